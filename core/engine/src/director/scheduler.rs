//! The plug point of scheduling: a [`Scheduler`] picks a real server for each new flow.
//!
//! Native or guest, the engine cannot tell. Flows come in batches, in the order of their packets; a
//! scheduler answers through [`Selection::assign`], which also counts the flow as open, so that the next
//! flow of the same batch sees it.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Debug;
use core::net::IpAddr;

use crate::time::{Duration, Instant};
use crate::wire::{FiveTuple, Protocol};

/// A real server's identity, the same in every instance and plan: a fixed hash of its address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub u64);

/// What a scheduler is told about a real server. Its place in the list is its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerView {
    /// The stable identity.
    pub id: ServerId,
    /// The RIP.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// The configured share; 0 takes no new flows.
    pub weight: u32,
    /// Whether it may be picked, apart from its weight.
    pub is_up: bool,
    /// Why it may not be picked: it is healthy, but has as many flows as it may have. Then `is_up` is not set.
    pub is_full: bool,
}

impl ServerView {
    /// Whether a new flow may go there.
    #[must_use]
    pub const fn is_usable(&self) -> bool {
        self.is_up && self.weight > 0
    }

    /// Whether it has a share of new flows, though it may be full at the moment. Schedulers that build something from
    /// their servers build it from these, so that a server that is full now and then changes nothing.
    #[must_use]
    pub const fn is_member(&self) -> bool {
        (self.is_up || self.is_full) && self.weight > 0
    }
}

/// How busy a real server is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerLoad {
    /// Flows that carry data both ways: TCP from the handshake to the first FIN.
    pub active: u32,
    /// Every other entry: UDP, and TCP that is closing.
    pub inactive: u32,
}

impl ServerLoad {
    /// What a flow by `protocol` would find before it: TCP connections that are open, or of other protocols, which
    /// nobody sees close, all entries.
    #[must_use]
    pub const fn outstanding(self, protocol: Protocol) -> u64 {
        let (active, inactive) = (self.active as u64, self.inactive as u64);
        if protocol.0 == Protocol::TCP.0 { active } else { active + inactive }
    }
}

/// A flow that needs a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewFlow {
    /// The keyed hash of the five-tuple, the same in table, shard and scheduler.
    pub hash: u64,
    /// Who talks to whom, as the client sees it.
    pub tuple: FiveTuple,
}

/// The question to a scheduler: flows without a server, beside the servers and their loads.
#[derive(Debug)]
pub struct Selection<'a> {
    flows: &'a [NewFlow],
    servers: &'a [ServerView],
    loads: &'a mut [ServerLoad],
    answers: &'a mut [Option<u16>],
    settled: &'a mut [bool],
}

impl<'a> Selection<'a> {
    /// A question about `flows`. `loads` has one place per server, `answers` one per flow, all empty.
    ///
    /// # Panics
    /// When the lengths do not fit.
    #[must_use]
    #[inline]
    pub fn new(
        flows: &'a [NewFlow],
        servers: &'a [ServerView],
        loads: &'a mut [ServerLoad],
        answers: &'a mut [Option<u16>],
    ) -> Self {
        assert!(flows.len() == answers.len() && servers.len() == loads.len(), "one place each");
        Self { flows, servers, loads, answers, settled: &mut [] }
    }

    /// The same question for a caller who wants to know which flows are [settled](Self::mark_settled): `settled` has one
    /// place per flow, none of them set.
    ///
    /// # Panics
    /// When the lengths do not fit.
    #[must_use]
    pub fn with_settled(mut self, settled: &'a mut [bool]) -> Self {
        assert!(self.flows.len() == settled.len(), "one place each");
        self.settled = settled;
        self
    }

    /// Notes that `flow` would be given the same server again though any of the servers come back that may not be picked
    /// now: whoever forwards its packets need not remember it (JET, Mendelson et al., CoNEXT 2021). A flow that is
    /// not marked may move.
    pub fn mark_settled(&mut self, flow: usize) {
        if let Some(place) = self.settled.get_mut(flow) {
            *place = true;
        }
    }

    /// The flows, in the order of their packets.
    #[must_use]
    pub const fn flows(&self) -> &'a [NewFlow] {
        self.flows
    }

    /// The real servers, as last given to [`Scheduler::update`].
    #[must_use]
    pub const fn servers(&self) -> &'a [ServerView] {
        self.servers
    }

    /// The load of each server, with the flows that were assigned in this batch.
    #[must_use]
    pub fn loads(&self) -> &[ServerLoad] {
        self.loads
    }

    /// The server at `place` and its load, with the flows that were assigned in this batch.
    #[must_use]
    pub fn server(&self, place: usize) -> Option<(&'a ServerView, ServerLoad)> {
        Some((self.servers.get(place)?, *self.loads.get(place)?))
    }

    /// What has been answered for `flow` so far.
    #[must_use]
    pub fn answer(&self, flow: usize) -> Option<u16> {
        self.answers.get(flow).copied().flatten()
    }

    /// Gives `flow` to `server` and counts it there. A flow that is never assigned has no server.
    ///
    /// Returns `false`, and changes nothing, when the server is not usable, the flow has one already, or
    /// either does not exist: an answer from a guest is checked here.
    pub fn assign(&mut self, flow: usize, server: usize) -> bool {
        self.assign_if(flow, server, ServerView::is_usable)
    }

    /// The same, for schedulers whose definition gives flows to a server that is full.
    pub fn assign_though_full(&mut self, flow: usize, server: usize) -> bool {
        self.assign_if(flow, server, ServerView::is_member)
    }

    fn assign_if(&mut self, flow: usize, server: usize, may: fn(&ServerView) -> bool) -> bool {
        let Some(new) = self.flows.get(flow) else { return false };
        let Some(answer) = self.answers.get_mut(flow) else { return false };
        let (Some(view), Some(load)) = (self.servers.get(server), self.loads.get_mut(server)) else {
            return false;
        };
        let Ok(index) = u16::try_from(server) else { return false };
        if answer.is_some() || !may(view) {
            return false;
        }
        *answer = Some(index);
        // A TCP flow counts as active from its SYN on, as in IPVS.
        if new.tuple.protocol == Protocol::TCP {
            load.active = load.active.saturating_add(1);
        } else {
            load.inactive = load.inactive.saturating_add(1);
        }
        true
    }
}

/// How a flow has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FlowEnd {
    /// Nobody has sent anything for its timeout.
    #[default]
    Idle,
    /// Both sides have closed.
    Finished,
    /// A side has reset it.
    Reset,
    /// The real server has never answered.
    Unanswered,
}

/// What a scheduler wants to hear besides its servers and its questions. What it does not ask for costs nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Each flow that is entered, whoever chose its server: this scheduler, its fallback, or the client that sticks.
    pub opened: bool,
    /// Each flow's first answer.
    pub answered: bool,
    /// Each flow's end.
    pub closed: bool,
    /// How often [`Scheduler::tick`] is to be called, at most every [`TICK_MIN`].
    pub tick: Option<Duration>,
    /// Whether [`Scheduler::poll_probe`] may give something.
    pub probes: bool,
}

impl Wishes {
    /// Whether `event` is among it.
    #[must_use]
    pub const fn has(self, event: &FlowEvent) -> bool {
        match event {
            FlowEvent::Opened(_) => self.opened,
            FlowEvent::Answered(_) => self.answered,
            FlowEvent::Closed(_) => self.closed,
        }
    }

    /// What either of two listeners wants to hear; ticks as often as the more impatient one wants them.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            opened: self.opened || other.opened,
            answered: self.answered || other.answered,
            closed: self.closed || other.closed,
            tick: self.tick.into_iter().chain(other.tick).min(),
            probes: self.probes || other.probes,
        }
    }
}

/// The shortest time between two ticks. Shorter ones would keep a forwarder from sleeping.
pub const TICK_MIN: Duration = Duration::from_millis(1);

/// What becomes of flows, in the order in which it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowEvent {
    /// A flow has been entered.
    Opened(FlowOpened),
    /// Its real server has answered for the first time.
    Answered(FlowAnswered),
    /// It has ended.
    Closed(FlowClosed),
}

/// A flow that has been entered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowOpened {
    /// The hash that [`NewFlow::hash`] was.
    pub hash: u64,
    /// The index of its server in the list of the last update.
    pub server: u16,
}

/// A flow that has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowClosed {
    /// The hash that [`NewFlow::hash`] was.
    pub hash: u64,
    /// The index of its server in the list of the last update.
    pub server: u16,
    /// How it has ended.
    pub end: FlowEnd,
    /// Packets to the server; wraps after 2^24.
    pub packets_to: u32,
    /// Packets from the server; wraps after 2^24. Always 0 where answers do not come by.
    pub packets_from: u32,
    /// IP bytes to the server; wraps after 2^40.
    pub bytes_to: u64,
    /// IP bytes from the server; wraps after 2^40. Always 0 where answers do not come by.
    pub bytes_from: u64,
    /// The time from its first packet to its end, the timeout included that ended it. `None` for a flow that was there
    /// before this scheduler was.
    pub lived: Option<Duration>,
    /// The time from its first packet to the first answer, as in [`FlowAnswered`]. `None` where there was none, or nobody
    /// listened.
    pub answered: Option<Duration>,
}

/// A real server's first answer to a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowAnswered {
    /// The hash that [`NewFlow::hash`] was.
    pub hash: u64,
    /// The index of its server in the list of the last update.
    pub server: u16,
    /// The time from the flow's first packet to the answer, as the forwarder sees it: from a SYN to its acknowledgement,
    /// or between two datagrams.
    pub after: Duration,
    /// Whether the answer went past the forwarder, to the client, and `after` ends with the client's acknowledgement: it
    /// holds the way to the client and back as well. So in the modes `gateway` and `tunnel`, for TCP alone.
    pub is_through_client: bool,
}

/// What a real server tells of itself when it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeAnswer {
    /// The index of the server in the list of the last update.
    pub server: u16,
    /// Requests that it works on, from all forwarders.
    pub in_flight: u32,
    /// How long its recent requests took while it had about as many.
    pub latency: Duration,
}

/// How often a guest was called, and how it did. Zero for a native scheduler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuestStats {
    /// Calls into the guest.
    pub calls: u64,
    /// Flows that the guest decided.
    pub decided: u64,
    /// Calls that trapped, ran out of budget or memory, or gave an answer that was refused.
    pub faults: u64,
    /// Flows that the native fallback decided instead.
    pub fallbacks: u64,
    /// Instructions that calls have taken, where they are counted: in the simulator.
    pub fuel: u64,
    /// Linear memory that the instance has now.
    pub memory_bytes: u64,
}

/// What went wrong in a guest, in words for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The component, as the configuration names it.
    pub component: String,
    /// The function that was called.
    pub call: &'static str,
    /// The reason.
    pub reason: String,
}

/// What a scheduler would look at besides servers and their loads, to be shown to people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PickInputs {
    /// What of the flow it hashes, and the hash or the slot that comes of it.
    pub hash: Option<(&'static str, u64)>,
    /// Where its stream of random numbers is; [`drawn_between`](super::builtin::drawn_between) two of them are the draws.
    pub stream: Option<u64>,
}

impl PickInputs {
    /// Those of a scheduler that hashes what `key` says.
    #[must_use]
    pub const fn hashed(key: &'static str, hash: u64) -> Self {
        Self { hash: Some((key, hash)), stream: None }
    }

    /// Those of a scheduler that draws from a stream.
    #[must_use]
    pub const fn drawn(place: u64) -> Self {
        Self { hash: None, stream: Some(place) }
    }
}

/// Picks a real server for each new flow.
pub trait Scheduler: Debug + Send {
    /// The name that users know.
    fn name(&self) -> &str;

    /// The servers, their weights or their states have changed. Called once before the first pick.
    ///
    /// At most 65,535 servers; their place in the list is the index that [`Selection::assign`] takes.
    fn update(&mut self, servers: &[ServerView], now: Instant);

    /// Answers the question.
    fn pick(&mut self, selection: &mut Selection<'_>, now: Instant);

    /// What it wants to hear. Asked after each update that comes from a plan.
    fn wishes(&self) -> Wishes {
        Wishes::default()
    }

    /// What has become of flows since the last call, in order: at most 64 events, and before the next question, the next
    /// update and the next tick. Holds only what it wished for.
    fn hear(&mut self, events: &[FlowEvent], now: Instant) {
        let _ = (events, now);
    }

    /// The time that it wished for has passed. A tick that came too late is not made up for.
    fn tick(&mut self, now: Instant) {
        let _ = now;
    }

    /// The index of a real server that is to be asked how it is, if any. The driver asks it by what means it has, and
    /// hands the answer to [`Scheduler::probe_answered`]; an answer that never comes does no harm.
    fn poll_probe(&mut self, now: Instant) -> Option<u16> {
        let _ = now;
        None
    }

    /// A real server has told how it is.
    fn probe_answered(&mut self, answer: ProbeAnswer, now: Instant) {
        let _ = (answer, now);
    }

    /// What it has learnt, for the scheduler that takes its place; `None` where there is nothing, or it cannot tell.
    ///
    /// A state begins with the name of its form, so that others can tell whether they know it.
    fn save(&mut self, now: Instant) -> Option<Vec<u8>> {
        let _ = now;
        None
    }

    /// Goes on where the scheduler left off that saved `state`, before the first update. Returns whether it does; where it
    /// does not know the state's form it begins anew.
    fn restore(&mut self, state: &[u8], now: Instant) -> bool {
        let _ = (state, now);
        false
    }

    /// Another one in the same state, which answers as this one would and changes nothing here; `None` where there can
    /// be none, as of a component.
    fn fork(&self) -> Option<Box<dyn Scheduler>> {
        None
    }

    /// What a pick for `flow` would look at, for explanations.
    fn inputs(&self, flow: &NewFlow) -> PickInputs {
        let _ = flow;
        PickInputs::default()
    }

    /// The bytes that it keeps: itself and the entries of its tables, or the linear memory of a component.
    fn memory_bytes(&self) -> u64 {
        let own = u64::try_from(size_of_val(self)).unwrap_or(u64::MAX);
        own.max(self.stats().memory_bytes)
    }

    /// How often it was called and failed.
    fn stats(&self) -> GuestStats {
        GuestStats::default()
    }

    /// The last fault since the previous call, if any.
    fn take_fault(&mut self) -> Option<Fault> {
        None
    }
}
