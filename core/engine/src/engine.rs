//! The engine's state, and the calls that are not about packets: looking, commands, timers, polling.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use crate::check::check;
use crate::counters::Counters;
use crate::device::{BATCH_MAX, Device};
use crate::director::builtin::seed_of;
use crate::director::sticky::{self, Sticky};
use crate::director::{Directors, Fault, Scheduler, native};
use crate::error::{CommandError, PlanError};
use crate::event::{EVENTS_MAX, Event};
use crate::exit::Exit;
use crate::flow::fragments::Fragments;
use crate::flow::{Clients, Departed, Direction, FlowEntry, FlowId, FlowState, FlowTable, Traits};
use crate::forward::{Routes, Ways};
use crate::journal::Journal;
use crate::judge::Judging;
use crate::nat::{PoolKey, PortPools};
use crate::open::Opening;
use crate::outbox::Kind;
use crate::plan::{Plan, SchedulerPlan};
use crate::policy::Policy;
use crate::policy::chain::{Chain, compiled};
use crate::policy::rules::{RuleCount, Rules};
use crate::reply::AnswerLimit;
use crate::status::{DirectorStatus, FlowStatus, PolicyStatus};
use crate::time::Instant;
use crate::verdict::{DropReason, InterfaceId};
use crate::walk::Walk;
use crate::wire::{Address, FiveTuple};

/// Flows that one call of [`Engine::handle_timeout`] takes out at most, so that the end of many flows at once
/// holds up no packet for more than a fraction of a millisecond. The rest is due in the next call.
const EXPIRIES_MAX: usize = 1024;

/// The guests that a plan names, made ready by a host.
#[derive(Debug, Default)]
pub struct Guests {
    /// Schedulers, under the name of their director.
    pub schedulers: BTreeMap<String, Box<dyn Scheduler>>,
    /// Shadows of schedulers, under the name of their director.
    pub shadows: BTreeMap<String, Box<dyn Scheduler>>,
    /// Policies, under their own name.
    pub policies: BTreeMap<String, Box<dyn Policy>>,
}

/// Packets in, verdicts out. See the [crate] for the order of calls.
#[derive(Debug)]
pub struct Engine {
    /// Plans that have been applied.
    pub(crate) plans: u64,
    /// The number of the plan in force, as entries keep it: never 0.
    pub(crate) generation: u8,
    pub(crate) now: Instant,
    pub(crate) flows: FlowTable,
    pub(crate) fragments: Fragments,
    pub(crate) clients: Clients,
    pub(crate) chain: Chain,
    pub(crate) outflows: Rules,
    /// Asked where no outflow decides.
    pub(crate) outflow_guests: Chain,
    pub(crate) directors: Directors,
    pub(crate) sticky: Sticky,
    pub(crate) ports: PortPools,
    /// What all flows share on the way out, the plan and the counters among it.
    pub(crate) exit: Exit,
    /// Whether the table has been full, and ports have run out, since a flow ended last.
    pub(crate) was_full: bool,
    pub(crate) was_exhausted: bool,
    /// Room for the walks of one batch.
    pub(crate) walks: Vec<Walk>,
    pub(crate) opening: Opening,
    /// Where walks say what they do, while somebody wants to know.
    pub(crate) journal: Option<Box<Journal>>,
    pub(crate) judging: Judging,
    pub(crate) events: VecDeque<Event>,
}

impl Engine {
    /// An engine that runs by `plan`, with the guests that it names.
    ///
    /// # Errors
    /// When the plan contradicts itself or lacks a guest.
    pub fn new(plan: Plan, guests: Guests, now: Instant) -> Result<Self, PlanError> {
        let mut engine = Self {
            plans: 0,
            generation: 0,
            now,
            flows: FlowTable::new(1, 1, plan.hash_key),
            fragments: Fragments::default(),
            clients: Clients::default(),
            chain: Chain::default(),
            outflows: Rules::default(),
            outflow_guests: Chain::default(),
            directors: Directors::default(),
            sticky: Sticky::default(),
            ports: PortPools::default(),
            exit: Exit::new(plan.limits.answers_per_second),
            was_full: false,
            was_exhausted: false,
            walks: vec![Walk::NONE; BATCH_MAX],
            opening: Opening::new(),
            journal: None,
            judging: Judging::default(),
            events: VecDeque::new(),
        };
        engine.apply(plan, guests, now)?;
        Ok(engine)
    }

    // Look.

    /// The latest time that it was told.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// How many plans have been applied; the first is 1.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.plans
    }

    /// The plan in force.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.exit.plan
    }

    /// What has been counted since the start.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.exit.counters
    }

    /// Flows in the flow table.
    #[must_use]
    pub fn flow_count(&self) -> usize {
        self.flows.len()
    }

    /// Flows among them whose opening nobody has answered yet.
    #[must_use]
    pub const fn half_open_count(&self) -> usize {
        self.flows.half_open()
    }

    /// Clients that stick to a real server.
    #[must_use]
    pub fn sticky_count(&self) -> usize {
        self.sticky.len()
    }

    /// Every flow, in the order of their places in the flow table.
    pub fn flows(&self) -> impl Iterator<Item = &FlowEntry> {
        self.flows.iter()
    }

    /// The flow that a packet of `tuple` belongs to, whichever way it goes.
    #[must_use]
    pub fn flow(&self, tuple: &FiveTuple) -> Option<FlowStatus<'_>> {
        let (id, direction) = self.flows.find(tuple.hash(self.flows.key()), tuple)?;
        let entry = self.flows.entry(id)?;
        let director = self.directors.at(entry.director)?;
        let server = director.server(entry.server_slot)?;
        let way = self.exit.ways.at(entry.way(Direction::Original));
        let interface_out = way.map_or(InterfaceId(u16::MAX), |way| way.interface);
        Some(FlowStatus { entry, direction, director: &director.name, server: &server.name, interface_out })
    }

    /// Ports that source NAT holds now.
    #[must_use]
    pub fn ports_held(&self) -> u64 {
        self.ports.held()
    }

    /// Bytes of fragments that wait for the first one of their datagram.
    #[must_use]
    pub const fn fragment_bytes_waiting(&self) -> usize {
        self.fragments.waiting_bytes()
    }

    /// The directors of the plan, in its order.
    #[must_use]
    pub fn directors(&self) -> Vec<DirectorStatus> {
        self.directors.iter().map(DirectorStatus::from).collect()
    }

    /// How often each native rule has decided about a new flow: those about flows, in the order in which they are asked,
    /// then those about outflows.
    pub fn rule_counts(&self) -> impl Iterator<Item = RuleCount<'_>> {
        self.chain.rule_counts().chain(self.outflows.counts())
    }

    /// The policies, in the order in which they are asked.
    #[must_use]
    pub fn policies(&self) -> Vec<PolicyStatus> {
        self.chain.status().chain(self.outflow_guests.status()).collect()
    }

    // Handle. Batches are in `walk`.

    /// Takes out flows that are over at `now`, at most 1,024 in one call, and gives up what has waited too long for its
    /// neighbour or its first fragment.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.tick(now);
        for _ in 0..EXPIRIES_MAX {
            let Some(departed) = self.flows.expire(now) else { break };
            self.farewell(&departed);
        }
        if !self.sticky.is_empty() {
            self.sticky.expire(now);
        }
        self.directors.handle_ticks(now);
        self.handle_agents(now);
        self.handle_waiting(now);
    }

    /// Gives up what has waited too long for its neighbour or its first fragment.
    fn handle_waiting(&mut self, now: Instant) {
        if self.fragments.datagrams() == 0 && self.exit.neighbours.count() == 0 {
            return;
        }
        let given_up = self.fragments.handle_timeout(now) as u64;
        self.exit.counters.give_up(DropReason::FragmentTimeout, given_up);
        while let Some((reason, count)) = self.fragments.poll_given_up() {
            self.exit.counters.give_up(reason, count);
        }
        self.exit.age_neighbours(&self.directors, now);
    }

    // Commands.

    /// Replaces the plan. Flows go on where the new plan still permits them and still has their real server; the
    /// others end with their next packet.
    ///
    /// # Errors
    /// When the plan contradicts itself or lacks a guest; then nothing has changed.
    pub fn apply(&mut self, plan: Plan, mut guests: Guests, now: Instant) -> Result<(), PlanError> {
        check(&plan, &guests, |director| {
            let known = self.directors.named(&director.name);
            known.is_some_and(|known| *known.scheduler_plan() == director.scheduler)
        })?;
        let now = self.tick(now);
        let known: Vec<Address> = self.directors.own_addresses().collect();
        let lengths: Vec<_> = self.sticky.places().map(|place| (place, self.lengths_of(place))).collect();
        self.directors.apply(&plan, &mut guests, now);
        for (place, before) in lengths {
            if before != self.lengths_of(place) {
                self.sticky.forget(place);
            }
        }
        self.chain = Chain::new(&plan, &mut guests, core::mem::take(&mut self.chain));
        let leaving = core::mem::take(&mut self.outflow_guests);
        self.outflow_guests = Chain::of_outflows(&plan, &mut guests, leaving);
        let outflows = core::mem::take(&mut self.outflows);
        self.outflows = compiled(plan.outflows.clone(), plan.hash_key, Some(outflows));
        self.exit.routes = Routes::new(&plan);
        self.exit.ways = Ways::new(&plan, &self.exit.routes);
        let has_new_links = plan.interfaces != self.exit.plan.interfaces;
        if has_new_links {
            self.exit.neighbours.clear();
            let given_up = self.exit.neighbours.take_expired();
            self.exit.counters.give_up(DropReason::NeighbourUnresolved, given_up);
        }
        self.exit.answers = AnswerLimit::new(plan.limits.answers_per_second);
        for (place, state) in self.exit.lifetimes.iter_mut().zip(FlowState::ALL) {
            let nanoseconds = state.timeout(&plan.timeouts).as_nanos();
            *place = u64::try_from(nanoseconds).unwrap_or(u64::MAX);
        }
        let limits = &plan.limits;
        self.sticky.set_most(limits.persistent_max);
        let clients = self.flows.iter().map(|entry| entry.client);
        self.clients.set_most(limits.flows_per_client, clients);
        let before = &self.exit.plan.limits;
        let is_resized = (before.flows_max, before.half_open_max) != (limits.flows_max, limits.half_open_max);
        if is_resized || self.flows.key() != plan.hash_key || self.plans == 0 {
            self.rebuild_flows(&plan);
        }
        self.exit.set_plan(plan);
        self.plans += 1;
        self.next_generation();
        let new = self.directors.own_addresses().filter(|own| has_new_links || !known.contains(own));
        self.exit.announce(new.collect::<Vec<_>>().into_iter());
        self.push_event(Event::PlanApplied { generation: self.plans });
        Ok(())
    }

    /// How many bits of a client's address count at the director at `place`, if clients stick there.
    fn lengths_of(&self, place: u16) -> Option<(u8, u8)> {
        let director = self.directors.at(place).filter(|director| !director.is_removed)?;
        let persistence = director.persistence.as_ref()?;
        Some((persistence.length_v4, persistence.length_v6))
    }

    /// Counts plans as entries do. When the numbers have run out, every entry is marked as one of an older plan.
    fn next_generation(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        if self.generation == 0 {
            self.flows.set_generation(0);
            self.generation = 1;
        }
    }

    /// Tells every link anew where our addresses are, as after a take-over from another forwarder.
    pub fn announce(&mut self) {
        self.exit.announce(self.directors.own_addresses().collect::<Vec<_>>().into_iter());
    }

    /// Changes the weight of a real server (0 to 65,535; 0 drains) until the next plan.
    ///
    /// # Errors
    /// When the director or server is not there, or the weight out of range.
    pub fn set_weight(
        &mut self,
        director: &str,
        server: &str,
        weight: u32,
        now: Instant,
    ) -> Result<(), CommandError> {
        if weight > 65_535 {
            return Err(CommandError::WeightOutOfRange { weight });
        }
        let now = self.tick(now);
        let Some(found) = self.directors.named_mut(director) else {
            return Err(CommandError::NoDirector { name: director.to_string() });
        };
        if found.set_weight(server, weight, now) {
            return Ok(());
        }
        Err(CommandError::NoServer { director: director.to_string(), name: server.to_string() })
    }

    /// Changes who schedules for a director, until the next plan: a component that a host has made ready, or without one
    /// the built-in scheduler that `plan` names. Flows keep their servers, and the state goes over where both know its
    /// form. A component that fails too often in its first minute has to go again.
    ///
    /// # Errors
    /// When the director is not there, the options can not be, or a component is named and not given.
    pub fn set_scheduler(
        &mut self,
        director: &str,
        plan: SchedulerPlan,
        guest: Option<Box<dyn Scheduler>>,
        now: Instant,
    ) -> Result<(), CommandError> {
        let now = self.tick(now);
        let seed = seed_of(self.exit.plan.seed, director);
        let Some(found) = self.directors.named_mut(director) else {
            return Err(CommandError::NoDirector { name: director.to_string() });
        };
        let scheduler = match (guest, plan.native()) {
            (Some(guest), _) => guest,
            (None, Some(tuned)) => {
                tuned.check().map_err(|error| CommandError::Options { reason: error.to_string() })?;
                native(&tuned, seed)
            }
            (None, None) => return Err(CommandError::NoComponent { director: director.to_string() }),
        };
        found.set_scheduler(scheduler, plan, now);
        let scheduler = found.scheduler().name().to_string();
        self.directors.note_wishes();
        self.exit.counters.scheduler_changes += 1;
        self.push_event(Event::SchedulerChanged { director: director.to_string(), scheduler });
        Ok(())
    }

    /// Has walks say what they do from now on, or no more; gives back the journal that was there.
    pub fn set_journal(&mut self, journal: Option<Journal>) -> Option<Journal> {
        let before = core::mem::replace(&mut self.journal, journal.map(Box::new));
        before.map(|journal| *journal)
    }

    /// The journal, to fetch accounts from.
    pub fn journal(&mut self) -> Option<&mut Journal> {
        self.journal.as_deref_mut()
    }

    // Poll.

    /// Gives the packets that wait in the engine's outbox to `device`. Returns how many it took.
    pub fn transmit<D: Device>(&mut self, device: &mut D) -> usize {
        if self.exit.outbox.is_empty() && self.exit.neighbours.count() == 0 {
            return 0;
        }
        self.exit.release();
        let expired = self.exit.neighbours.take_expired();
        let counters = &mut self.exit.counters;
        counters.give_up(DropReason::NeighbourUnresolved, expired);
        let mut sent = 0;
        for (interface, kind, packet) in self.exit.outbox.packets() {
            let is_sent = device.send(interface, packet);
            sent += usize::from(is_sent);
            match (kind, is_sent) {
                (Kind::Born | Kind::Piece, true) => counters.born += 1,
                (Kind::Born | Kind::Piece, false) => counters.born_lost += 1,
                (Kind::Released, true) => counters.forwarded += 1,
                (Kind::Released, false) => counters.count_drop(DropReason::DeviceQueueFull),
            }
        }
        self.exit.outbox.clear();
        sent
    }

    /// The oldest event that has not been fetched.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Engine::handle_timeout`] has something to do next, if ever.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let all = [
            self.flows.next_expiry(),
            self.sticky.next_expiry(),
            self.fragments.next_timeout(),
            self.exit.neighbours.next_timeout(),
            self.directors.next_tick(),
            self.directors.next_agents(),
        ];
        all.into_iter().fold(None, |first, next| match (first, next) {
            (Some(first), Some(next)) => Some(Instant::min(first, next)),
            (first, next) => first.or(next),
        })
    }

    // Shared with the walk.

    /// The later of `now` and the latest time seen, so that a clock that steps back changes nothing.
    #[inline]
    pub(crate) fn tick(&mut self, now: Instant) -> Instant {
        self.now = self.now.max(now);
        self.now
    }

    pub(crate) fn push_event(&mut self, event: Event) {
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(event);
        } else {
            self.exit.counters.events_lost += 1;
        }
    }

    /// Turns a fault of a guest into an event.
    pub(crate) fn push_fault(&mut self, name: &str, fault: Option<Fault>) {
        if let Some(fault) = fault {
            self.push_event(Event::GuestFault { name: name.to_string(), fault });
        }
    }

    /// Ends a flow early.
    pub(crate) fn end_flow(&mut self, id: FlowId) {
        if let Some(departed) = self.flows.remove(id) {
            self.farewell(&departed);
        }
    }

    /// Settles what a flow that has left the table held: its load and its port.
    pub(crate) fn farewell(&mut self, departed: &Departed) {
        let entry = &departed.entry;
        self.exit.counters.flows_closed += 1;
        self.was_full = false;
        self.was_exhausted = false;
        self.release_port(entry);
        self.clients.close(entry.client);
        if entry.traits.has(Traits::STICKS)
            && let Some(persistence) =
                self.directors.at(entry.director).and_then(|it| it.persistence.as_ref())
        {
            self.sticky.close(&sticky::key(entry.director, entry.client, persistence), entry.server_slot);
        }
        let hash = entry.tuple(Direction::Original).hash(self.flows.key());
        if let Some(director) = self.directors.at_mut(entry.director) {
            director.close(departed, hash, self.now);
        }
        self.directors.release(entry.director);
    }

    /// Gives the port of a flow with source NAT back.
    pub(crate) fn release_port(&mut self, entry: &FlowEntry) {
        if entry.traits.has(Traits::HOLDS_PORT) {
            self.ports.release(pool_key(entry), entry.mapped_port);
        }
    }

    /// Moves the flows to a table of another size or key. Those beyond a smaller bound end.
    fn rebuild_flows(&mut self, plan: &Plan) {
        let limits = &plan.limits;
        let new = FlowTable::new(limits.flows_max, limits.half_open_max, plan.hash_key);
        let old = core::mem::replace(&mut self.flows, new);
        for departed in old.into_departed() {
            let hash = departed.entry.tuple(Direction::Original).hash(plan.hash_key);
            match self.flows.insert(departed.entry.clone(), hash) {
                Ok(inserted) => {
                    if let Some(birth) = departed.birth {
                        self.flows.set_birth(inserted.id, birth);
                    }
                    if let Some(evicted) = inserted.evicted {
                        self.farewell(&evicted);
                    }
                }
                Err(_) => self.farewell(&departed),
            }
        }
    }
}

/// The ports among which a flow's was chosen.
pub(crate) const fn pool_key(entry: &FlowEntry) -> PoolKey {
    PoolKey {
        mapped: entry.mapped,
        server: entry.server,
        server_port: entry.server_port,
        protocol: entry.protocol(),
    }
}
