//! Finds the first event in which two runs differ.
//!
//! ```text
//! checkpoints of both -> the stretch in which they part -> both again, with every link of it -> the first that differs
//! ```
//! A hash of a chain covers everything before it, so chains that have parted stay apart: both searches halve.

use crate::record::data::{Chain, Chains};
use crate::watch::{ChainKind, LinkSeen, Window};

/// Equal events that are told before the first different one.
const COMMON_TOLD: usize = 3;

/// Which of two runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The first.
    Left,
    /// The second.
    Right,
}

/// The first event in which two runs differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The chain that it is an event of.
    pub kind: ChainKind,
    /// Its number there, from 1.
    pub number: u64,
    /// The last events before it, which are equal.
    pub common: Vec<LinkSeen>,
    /// What happened in the first run; nothing where it is over.
    pub left: Option<LinkSeen>,
    /// What happened in the second run; nothing where it is over.
    pub right: Option<LinkSeen>,
}

/// Why the difference could not be found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TravelError {
    /// A run cannot be done again.
    #[error("{0}")]
    Rerun(String),
    /// A run that is done again is another than it was.
    #[error(
        "the {side} run does not repeat: event {number} of its {chain} chain has the hash {found}, and the record says \
         {wanted}; another version of the program, the scenario or a component made it. The runs part between event \
         {first} and {last}"
    )]
    Changed {
        /// Which one.
        side: &'static str,
        /// Which chain.
        chain: &'static str,
        /// The event.
        number: u64,
        /// The hash now.
        found: String,
        /// The hash then.
        wanted: String,
        /// The first event that may be the different one.
        first: u64,
        /// The last one.
        last: u64,
    },
}

/// Does a run again while a window looks on, and gives the window back.
pub type Rerun<'a> = dyn FnMut(Side, Window) -> Result<Window, String> + 'a;

/// The events among which is the first that differs; nothing for equal chains.
fn stretch(left: &Chain, right: &Chain, every: u64) -> Option<(u64, u64)> {
    if left == right {
        return None;
    }
    let both: Vec<_> = left.checkpoints.iter().zip(&right.checkpoints).collect();
    let equal = both.partition_point(|(left, right)| left == right);
    let equal = u64::try_from(equal).unwrap_or(u64::MAX);
    let first = equal.saturating_mul(every).saturating_add(1);
    Some((first, first.saturating_add(every - 1).min(left.events.max(right.events))))
}

/// Finds the first event in which two runs differ: of the wire, else of the decisions, else of the answers. Nothing when
/// all three chains are equal.
///
/// # Errors
/// When a run cannot be done again, or is another when it is.
pub fn difference(
    left: &Chains,
    right: &Chains,
    rerun: &mut Rerun<'_>,
) -> Result<Option<Difference>, TravelError> {
    let every = left.every_events.max(1);
    if left.every_events != right.every_events {
        let words = format!(
            "checkpoints after {} events and after {}: no version of the program reads both",
            left.every_events, right.every_events
        );
        return Err(TravelError::Rerun(words));
    }
    let chains = [
        (ChainKind::Wire, &left.wire, &right.wire),
        (ChainKind::Decisions, &left.decisions, &right.decisions),
        (ChainKind::Answers, &left.answers, &right.answers),
    ];
    let parted = chains.into_iter().find_map(|(kind, left, right)| {
        stretch(left, right, every).map(|(first, last)| (kind, (left, right), (first, last)))
    });
    let Some((kind, (left, right), (first, last))) = parted else { return Ok(None) };
    let mut again = |side, chain: &Chain| {
        let window = rerun(side, Window::new(kind, first, last)).map_err(TravelError::Rerun)?;
        holds(side, kind, chain, (window.links(), every)).map(|()| window)
    };
    let (left, right) = (again(Side::Left, left)?, again(Side::Right, right)?);
    let (left, right) = (left.links(), right.links());
    let both: Vec<_> = left.iter().zip(right).collect();
    let equal = both.partition_point(|(left, right)| left.hash == right.hash);
    let common = left.get(equal.saturating_sub(COMMON_TOLD)..equal).unwrap_or_default().to_vec();
    let number = first.saturating_add(u64::try_from(equal).unwrap_or(u64::MAX));
    let (left, right) = (left.get(equal).cloned(), right.get(equal).cloned());
    Ok(Some(Difference { kind, number, common, left, right }))
}

/// Whether what was done again is what it was: by the checkpoint at the end of the stretch, or the end of the run.
fn holds(
    side: Side,
    kind: ChainKind,
    chain: &Chain,
    (links, every): (&[LinkSeen], u64),
) -> Result<(), TravelError> {
    let (Some(first), Some(last)) = (links.first(), links.last()) else { return Ok(()) };
    let checkpoint = last.number.checked_div(every).unwrap_or(0).saturating_sub(1);
    let wanted = if last.number == chain.events {
        &chain.hash
    } else if let Some(wanted) = usize::try_from(checkpoint)
        .ok()
        .and_then(|place| chain.checkpoints.get(place))
        .filter(|_| last.number.is_multiple_of(every))
    {
        wanted
    } else if last.number < chain.events {
        // The other run was longer than this stretch of it.
        return Ok(());
    } else {
        &chain.hash
    };
    let found = format!("{:016x}", last.hash);
    if &found == wanted {
        return Ok(());
    }
    let side = match side {
        Side::Left => "first",
        Side::Right => "second",
    };
    Err(TravelError::Changed {
        side,
        chain: kind.name(),
        number: last.number,
        found,
        wanted: wanted.clone(),
        first: first.number,
        last: last.number,
    })
}

impl std::fmt::Display for Difference {
    /// The events before it, then both sides of it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "the {} chains part at event {}", self.kind.name(), self.number)?;
        for link in &self.common {
            writeln!(f, "  both   {:016x}  {}", link.hash, link.words)?;
        }
        for (name, link) in [("first ", &self.left), ("second", &self.right)] {
            match link {
                Some(link) => writeln!(f, "  {name} {:016x}  {}", link.hash, link.words)?,
                None => writeln!(f, "  {name} is over")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{CHECKPOINT_EVENTS, Trace};
    use evenkeel_engine::Instant;

    /// A run of so many events, of which one is another.
    fn chains(events: u64, odd: Option<u64>) -> Chains {
        let wire = Chain::from(&trace(events, odd, &mut |_, _| {}));
        Chains { every_events: CHECKPOINT_EVENTS, wire, ..Chains::default() }
    }

    fn trace(events: u64, odd: Option<u64>, each: &mut dyn FnMut((u64, u64), bool)) -> Trace {
        let mut trace = Trace::default();
        for number in 1..=events {
            let is_odd = odd == Some(number);
            trace.add(Instant::from_nanos(number), u32::from(is_odd), &[]);
            each(trace.link(), is_odd);
        }
        trace
    }

    fn found(left: (u64, Option<u64>), right: (u64, Option<u64>)) -> Option<Difference> {
        let mut stretches = Vec::new();
        let mut rerun = |side, mut window: Window| {
            let (events, odd) = if side == Side::Left { left } else { right };
            trace(events, odd, &mut |link, is_odd| window.link(ChainKind::Wire, link, || is_odd.to_string()));
            stretches.push(window.links().len());
            Ok(window)
        };
        let result = difference(&chains(left.0, left.1), &chains(right.0, right.1), &mut rerun).unwrap();
        assert!(stretches.iter().all(|links| u64::try_from(*links).unwrap() <= CHECKPOINT_EVENTS));
        result
    }

    #[test]
    fn the_first_different_event_is_found_wherever_it_is() {
        let every = CHECKPOINT_EVENTS;
        for odd in [1, 2, every, every + 1, 2 * every, 2 * every + 77, 2 * every + 100] {
            let events = 2 * every + 100;
            let difference = found((events, None), (events, Some(odd))).unwrap();
            assert_eq!(difference.number, odd);
            assert_eq!(difference.right.unwrap().words, "true");
            assert_eq!(difference.left.unwrap().words, "false");
        }
        assert_eq!(found((every, None), (every, None)), None);
    }

    #[test]
    fn a_run_that_is_over_sooner_differs_where_it_ends() {
        let every = CHECKPOINT_EVENTS;
        for (left, right) in [(10, 20), (every, every + 1), (every + 5, 3 * every)] {
            let difference = found((left, None), (right, None)).unwrap();
            assert_eq!(difference.number, left + 1);
            assert!(difference.left.is_none() && difference.right.is_some());
        }
    }

    #[test]
    fn a_run_that_does_not_repeat_is_no_proof_of_anything() {
        let mut rerun = |side, mut window: Window| {
            let odd = if side == Side::Left { Some(3) } else { Some(7) };
            trace(10, odd, &mut |link, _| window.link(ChainKind::Wire, link, String::new));
            Ok(window)
        };
        let error = difference(&chains(10, None), &chains(10, Some(7)), &mut rerun).unwrap_err().to_string();
        assert!(error.contains("the first run does not repeat: event 10 of its wire chain"), "{error}");
    }
}
