//! What is written of one packet: plain data, with the names of the plan that was in force.

use alloc::string::String;
use alloc::vec::Vec;

use super::filter::Facts;
use crate::director::{PickInputs, ServerLoad};
use crate::flow::{Direction, FlowState};
use crate::forward::tunnel::Encapsulation;
use crate::policy::PolicyVerdict;
use crate::policy::linear::{Decision, Finding};
use crate::time::{Duration, Instant};
use crate::verdict::{DropReason, InterfaceId, Verdict};
use crate::wire::ethernet::MacAddress;
use crate::wire::tcp::Flags;
use crate::wire::{Address, FiveTuple};

/// One packet's way through the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// When it was taken in.
    pub at: Instant,
    /// Where it came in.
    pub interface: InterfaceId,
    /// How it came, as much as is kept of it: an IP packet, or a frame on Ethernet.
    pub before: Vec<u8>,
    /// Its length then.
    pub before_bytes: usize,
    /// How it left, where it did.
    pub after: Vec<u8>,
    /// Its length then.
    pub after_bytes: usize,
    /// What happened, in order.
    pub notes: Vec<Note>,
    /// How it ended; `None` where that could not be told.
    pub end: Option<Verdict>,
}

/// One step, and how long it took where somebody measures: from the note before it, or from the packet's turn in its
/// batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What happened.
    pub step: Step,
    /// Nanoseconds.
    pub took_ns: Option<u64>,
}

/// What happened to a packet on one stretch of its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Its headers were read.
    Read {
        /// Who talks to whom; for an ICMP error, whom the packet in it was from and to, turned around.
        tuple: FiveTuple,
        /// TCP's control bits, where they are there.
        flags: Option<Flags>,
        /// It is a fragment, the first or a later one.
        is_fragment: bool,
        /// It is an ICMP error about a packet of this tuple.
        is_error: bool,
    },
    /// The flow table was asked.
    Looked(Option<Known>),
    /// The flow began under an older plan, and the plan in force was asked about it.
    Reviewed(Review),
    /// The flow was over: it has ended, and the packet may open another.
    Lapsed,
    /// A stage of the policy chain was asked, or a component about packets that leave.
    Policy {
        /// Its place in the chain, or among those components.
        place: usize,
        /// Its name.
        name: String,
        /// What it said.
        ruling: Ruling,
    },
    /// No stage decided, and the default did.
    Default {
        /// What it is.
        permits: bool,
    },
    /// Who serves the packet.
    Directed {
        /// The director; `None` where there is none.
        director: Option<String>,
        /// Why it takes no flow of this packet, if it does not.
        refused: Option<DropReason>,
    },
    /// It was looked up whether the client sticks to a real server.
    Stuck(Stick),
    /// The scheduler was asked.
    Picked(Pick),
    /// A port was chosen for source NAT.
    Mapped {
        /// The address that the real server sees.
        address: Address,
        /// The client's port, which is kept where it is free.
        wanted: u16,
        /// The port; `None` where none is left.
        port: Option<u16>,
    },
    /// The outflow rules were asked.
    Outflow {
        /// The packets that are asked about, as they leave.
        tuple: FiveTuple,
        /// Where the routes say that they leave.
        interface: InterfaceId,
        /// What they said.
        ruling: Ruling,
    },
    /// A flow was entered.
    Opened {
        /// Another half-open flow had to give way.
        has_evicted: bool,
    },
    /// It was sent on its way.
    Carried(Settlement),
    /// Its walk ended.
    Ended(Verdict),
}

/// What the plan in force said of a flow of an older one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Review {
    /// It goes on.
    Valid,
    /// It has ended; the packet may open another.
    Gone,
    /// The packet is dropped.
    Refused(DropReason),
}

/// A flow of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Which way the packet goes.
    pub direction: Direction,
    /// How far the flow has come.
    pub state: FlowState,
    /// The director.
    pub director: String,
    /// The real server.
    pub server: String,
    /// The tuple of the client's packets.
    pub original: FiveTuple,
    /// The tuple of the real server's packets, where they come by.
    pub reply: Option<FiveTuple>,
    /// How long it lives without packets; `None` where it is over.
    pub lives: Option<Duration>,
    /// Packets from the client, and from the real server.
    pub packets: [u32; 2],
    /// Nobody has answered its opening yet.
    pub is_half_open: bool,
    /// It was permitted under an older plan.
    pub is_old: bool,
}

/// What rules or a component said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// What it comes to.
    pub verdict: PolicyVerdict,
    /// How rules came to it; `None` for a component.
    pub study: Option<Study>,
    /// It could not be asked without changing it, so that this is not known.
    pub is_unknown: bool,
}

/// How rules came to a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Study {
    /// What came of looking at each rule; only the last where nobody wants to know all.
    pub findings: Vec<Finding>,
    /// Findings that found no room.
    pub left_out: usize,
    /// The rule that decides.
    pub decision: Decision,
}

/// What was found of a client that may stick to a real server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stick {
    /// The director.
    pub director: String,
    /// The part of the client's address that counts.
    pub client: Address,
    /// The real server, where there is an entry.
    pub server: Option<String>,
    /// Whether the entry is of use: its server is there and may take flows.
    pub is_used: bool,
}

/// What a scheduler was asked and answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pick {
    /// The director.
    pub director: String,
    /// The scheduler.
    pub scheduler: String,
    /// What it hashes, and where its random numbers stood.
    pub inputs: PickInputs,
    /// The random numbers that it drew.
    pub draws: Vec<u64>,
    /// Flows that were asked about in the same question.
    pub asked: usize,
    /// The real servers before the question; empty where nobody wants to know.
    pub candidates: Vec<Candidate>,
    /// The real server; `None` where none may be picked.
    pub server: Option<String>,
    /// It could not be asked without changing it, so that this is not known.
    pub is_unknown: bool,
}

/// A real server that a scheduler considers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The name that users know.
    pub name: String,
    /// Its weight, as the scheduler is told.
    pub weight: u32,
    /// Its flows.
    pub load: ServerLoad,
    /// Whether it may be picked, apart from its weight.
    pub is_up: bool,
    /// It has as many flows as it may have.
    pub is_full: bool,
}

/// How a packet was sent on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// The director.
    pub director: String,
    /// The real server.
    pub server: String,
    /// Which way the packet goes.
    pub direction: Direction,
    /// The state of the flow before and after; `None` where no flow is kept, or the packet is an error.
    pub states: Option<(FlowState, FlowState)>,
    /// What becomes of the packet.
    pub change: Change,
    /// By which way it leaves.
    pub way: Option<Way>,
    /// Why it does not.
    pub refused: Option<DropReason>,
}

/// What becomes of a packet on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Addresses and ports are translated.
    Translated {
        /// As it came.
        before: FiveTuple,
        /// As it leaves.
        after: FiveTuple,
    },
    /// It stays as it is and goes to the real server as next hop.
    Unchanged,
    /// It goes in a tunnel.
    Wrapped {
        /// What is put around it.
        encapsulation: Encapsulation,
        /// The source of the outer header.
        source: Address,
        /// Its destination, the real server.
        destination: Address,
        /// Bytes that it adds.
        overhead_bytes: u16,
    },
    /// An ICMP error is translated with the packet that it quotes.
    Quoted,
}

/// A way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The interface.
    pub interface: InterfaceId,
    /// The routing table: 0 is the main one, others count from 1 in the order of the plan.
    pub table: u8,
    /// Whom to hand the packet to on the link.
    pub next_hop: Address,
    /// Its link address: known, asked for, or none needed.
    pub link: Route,
    /// The largest packet that leaves there.
    pub mtu_bytes: u16,
}

/// What is known of the link address of a next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// The interface carries IP alone.
    Unneeded,
    /// It is this.
    Known(MacAddress),
    /// It is asked for.
    Asked,
}

impl Account {
    pub(crate) fn new(at: Instant, interface: InterfaceId, before: &[u8], before_bytes: usize) -> Self {
        Self {
            at,
            interface,
            before: before.to_vec(),
            before_bytes,
            after: Vec::new(),
            after_bytes: 0,
            notes: Vec::new(),
            end: None,
        }
    }

    /// What happened, in order.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.notes.iter().map(|note| &note.step)
    }

    /// The tuple of the packet as it came, where its headers could be read.
    #[must_use]
    pub fn tuple(&self) -> Option<FiveTuple> {
        self.steps().find_map(|step| if let Step::Read { tuple, .. } = step { Some(*tuple) } else { None })
    }

    /// The director and the real server that had to do with it, as far as known.
    #[must_use]
    pub fn parties(&self) -> (Option<&str>, Option<&str>) {
        let mut parties = (None, None);
        for step in self.steps() {
            match step {
                Step::Looked(Some(known)) => parties = (Some(&*known.director), Some(&*known.server)),
                Step::Lapsed | Step::Reviewed(Review::Gone) => parties = (None, None),
                Step::Directed { director: Some(director), .. } => parties.0 = Some(&**director),
                Step::Picked(Pick { server: Some(server), .. }) => parties.1 = Some(&**server),
                Step::Carried(settlement) => {
                    parties = (Some(&*settlement.director), Some(&*settlement.server));
                }
                Step::Read { .. }
                | Step::Looked(None)
                | Step::Reviewed(_)
                | Step::Policy { .. }
                | Step::Default { .. }
                | Step::Directed { director: None, .. }
                | Step::Stuck(_)
                | Step::Picked(Pick { server: None, .. })
                | Step::Mapped { .. }
                | Step::Outflow { .. }
                | Step::Opened { .. }
                | Step::Ended(_) => {}
            }
        }
        parties
    }

    /// What a filter looks at; `is_over` says that nothing is added any more.
    pub(super) fn facts(&self, is_over: bool) -> Facts<'_> {
        let (director, server) = self.parties();
        let reason = match self.end {
            Some(Verdict::Drop(reason)) => Some(reason),
            Some(
                Verdict::Forward(_)
                | Verdict::Replace(_)
                | Verdict::Hold
                | Verdict::Answer(_)
                | Verdict::Consume,
            )
            | None => None,
        };
        Facts { tuple: self.tuple(), interface: self.interface, director, server, reason, is_over }
    }
}

impl Step {
    /// The component that was to be asked here and could not be.
    #[must_use]
    pub fn unknown(&self) -> Option<&str> {
        match self {
            Self::Policy { name, ruling, .. } if ruling.is_unknown => Some(name),
            Self::Picked(pick) if pick.is_unknown => Some(&pick.scheduler),
            Self::Read { .. }
            | Self::Looked(_)
            | Self::Reviewed(_)
            | Self::Lapsed
            | Self::Policy { .. }
            | Self::Default { .. }
            | Self::Directed { .. }
            | Self::Stuck(_)
            | Self::Picked(_)
            | Self::Mapped { .. }
            | Self::Outflow { .. }
            | Self::Opened { .. }
            | Self::Carried(_)
            | Self::Ended(_) => None,
        }
    }
}
