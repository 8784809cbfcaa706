//! The traits that a guest implements, one of them each.
//!
//! What comes in has been checked by the forwarder; what goes out is checked by it. An answer that names a
//! server which does not exist or may not be used costs the guest a fault, never a packet.

use alloc::vec::Vec;

use core::time::Duration;

use crate::{
    Answer, Arrival, ConfigureError, Flow, FlowEvent, Instant, Load, Options, PolicySetup, PolicyWishes,
    ProbeAnswer, Server, Setup,
};

/// The entry of a table, or the answer for a flow, that leaves the choice to the native fallback.
pub const NO_ANSWER: u32 = u32::MAX;

/// What a scheduler wants to be told besides its servers and its flows. What it does not ask for costs nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Whether [`Scheduler::pick`] gets the loads of the servers.
    pub loads: bool,
    /// Whether [`Scheduler::hear`] is told of each flow that is entered, whoever chose its server.
    pub opened: bool,
    /// Whether it is told of each flow's first answer.
    pub answered: bool,
    /// Whether it is told of each flow's end.
    pub closed: bool,
    /// How often [`Scheduler::tick`] is called: zero for never, and else a millisecond at least.
    pub tick: Duration,
    /// Whether [`Scheduler::poll_probes`] and [`Scheduler::probe_answered`] are called.
    pub probes: bool,
}

impl Wishes {
    /// Nothing.
    pub const NONE: Self = Self {
        loads: false,
        opened: false,
        answered: false,
        closed: false,
        tick: Duration::ZERO,
        probes: false,
    };
}

/// Picks a real server for each new flow from everything that is known about it.
pub trait Scheduler: Sized {
    /// Reads the options. What is not read of them is reported to the operator as unknown.
    ///
    /// # Errors
    /// When the options cannot be used; the operator reads the error.
    fn configure(setup: &Setup, options: &mut Options) -> Result<Self, ConfigureError>;

    /// What the guest wants to be told. Asked once, after `configure`.
    fn wishes(&self) -> Wishes {
        Wishes::NONE
    }

    /// The servers, their weights or their states have changed. Replaces the list before.
    fn update(&mut self, servers: &[Server], now: Instant);

    /// Gives the index of a usable server, or `None` to let the native fallback choose.
    ///
    /// `loads` has one item per server when [`Wishes::loads`] was set, and is empty otherwise. The flows that
    /// this guest picked earlier in the same batch are counted in it.
    fn pick(&mut self, flow: &Flow, loads: &[Load], now: Instant) -> Option<usize>;

    /// What has become of flows, in order, of the kinds that [`Wishes`] asked for.
    fn hear(&mut self, events: &[FlowEvent], now: Instant) {
        let _ = (events, now);
    }

    /// The time that [`Wishes::tick`] asked for has passed.
    fn tick(&mut self, now: Instant) {
        let _ = now;
    }

    /// The indexes of servers that are to be asked how they are, at most 256. Called after each batch when
    /// [`Wishes::probes`] was set.
    fn poll_probes(&mut self, now: Instant) -> Vec<u32> {
        let _ = now;
        Vec::new()
    }

    /// A server has answered a probe.
    fn probe_answered(&mut self, answer: &ProbeAnswer, now: Instant) {
        let _ = (answer, now);
    }

    /// What it has learnt, for whoever takes its place; empty where there is nothing. [`State`](crate::State) writes
    /// and reads states that name their form.
    fn save(&mut self, now: Instant) -> Vec<u8> {
        let _ = now;
        Vec::new()
    }

    /// Goes on where another one left off; called before the first update. Returns whether it does: `false` for a
    /// state whose form it does not know.
    fn restore(&mut self, state: &[u8], now: Instant) -> bool {
        let _ = (state, now);
        false
    }
}

/// Picks a real server for each new flow from its hash alone.
pub trait HashScheduler: Sized {
    /// As in [`Scheduler::configure`].
    ///
    /// # Errors
    /// When the options cannot be used.
    fn configure(setup: &Setup, options: &mut Options) -> Result<Self, ConfigureError>;

    /// As in [`Scheduler::update`].
    fn update(&mut self, servers: &[Server], now: Instant);

    /// Gives the index of a usable server, or `None` to let the native fallback choose.
    fn pick(&mut self, hash: u64, now: Instant) -> Option<usize>;
}

/// Builds a table once per change; the forwarder looks flows up in it.
pub trait TableScheduler: Sized {
    /// As in [`Scheduler::configure`].
    ///
    /// # Errors
    /// When the options cannot be used.
    fn configure(setup: &Setup, options: &mut Options) -> Result<Self, ConfigureError>;

    /// Gives the table: 1 to 1,048,576 indexes of usable servers, or [`NO_ANSWER`]. At least one server is
    /// usable. A flow goes where the entry `hash % length` points.
    ///
    /// State does not last: each call may meet a freshly configured guest.
    fn build(&mut self, servers: &[Server], now: Instant) -> Vec<u32>;
}

/// What a policy says of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may pass, to the director that is bound to its destination.
    Permit,
    /// It is dropped.
    Deny,
    /// It may pass, to the director with this index in [`PolicySetup::directors`] (0 to 65,534).
    Director(u16),
    /// It may pass as with `Permit`, and leaves by the routing table with this index in [`PolicySetup::tables`].
    Table(u16),
    /// Another policy, or else the default, decides.
    Skip,
}

impl Verdict {
    /// Where the numbers of routing tables begin in the contract.
    const TABLES: u32 = 65_536;

    /// The number that stands for this verdict in the contract.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Self::Skip => u32::MAX,
            Self::Permit => u32::MAX - 1,
            Self::Deny => u32::MAX - 2,
            Self::Director(index) => index as u32,
            Self::Table(index) => Self::TABLES + index as u32,
        }
    }

    /// This verdict as long as the limit with this index in [`PolicyWishes::limits`] is not reached; beyond, the flow is
    /// denied.
    #[must_use]
    pub const fn within(self, limit: u16) -> Decision {
        Decision { verdict: self, limit: Some(limit) }
    }
}

/// A verdict, with the limit within which it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What becomes of the flow.
    pub verdict: Verdict,
    /// The index of a limit in [`PolicyWishes::limits`].
    pub limit: Option<u16>,
}

impl Decision {
    /// The record that stands for it in the contract.
    #[must_use]
    pub const fn answer(self) -> Answer {
        let limit = match self.limit {
            Some(index) => index as u32,
            None => u32::MAX,
        };
        Answer { verdict: self.verdict.code(), limit }
    }
}

impl From<Verdict> for Decision {
    fn from(verdict: Verdict) -> Self {
        Self { verdict, limit: None }
    }
}

/// Decides which new flows may pass, and where they go.
pub trait Policy: Sized {
    /// As in [`Scheduler::configure`], with the names of the directors and interfaces.
    ///
    /// # Errors
    /// When the options cannot be used.
    fn configure(setup: &PolicySetup, options: &mut Options) -> Result<Self, ConfigureError>;

    /// What the guest wants: limits that the forwarder counts, or to be asked about every packet. Asked once, after
    /// `configure`.
    fn wishes(&self) -> PolicyWishes {
        PolicyWishes::NONE
    }

    /// Decides about one flow, or about one packet of it.
    fn decide(&mut self, arrival: &Arrival, now: Instant) -> Decision;
}
