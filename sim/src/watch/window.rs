//! Some links of a chain with what they are made of, so that two runs can be compared event by event.

/// Which of the chains of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainKind {
    /// Frames that reached a machine.
    Wire,
    /// Flows and the servers that they had.
    Decisions,
    /// Answers and how long they took, and flows that broke.
    Answers,
}

impl ChainKind {
    /// The word that hashes are called by.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wire => "wire",
            Self::Decisions => "decision",
            Self::Answers => "metric",
        }
    }
}

/// One event of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkSeen {
    /// Its number, from 1.
    pub number: u64,
    /// The chain with it.
    pub hash: u64,
    /// What it is.
    pub words: String,
}

/// The links of a chain with numbers of a range, kept; the run ends with the last of them.
#[derive(Clone, Debug)]
pub struct Window {
    kind: ChainKind,
    first: u64,
    last: u64,
    links: Vec<LinkSeen>,
    is_over: bool,
}

impl Window {
    /// The links of `kind` from number `first` to `last`.
    #[must_use]
    pub const fn new(kind: ChainKind, first: u64, last: u64) -> Self {
        Self { kind, first, last, links: Vec::new(), is_over: false }
    }

    /// What was kept.
    #[must_use]
    pub fn links(&self) -> &[LinkSeen] {
        &self.links
    }

    pub(super) const fn is_over(&self) -> bool {
        self.is_over
    }

    /// An event has been linked into a chain.
    pub(crate) fn link(
        &mut self,
        kind: ChainKind,
        (number, hash): (u64, u64),
        words: impl FnOnce() -> String,
    ) {
        if kind != self.kind || number < self.first || self.is_over {
            return;
        }
        if number <= self.last {
            self.links.push(LinkSeen { number, hash, words: words() });
        }
        self.is_over = number >= self.last;
    }
}
