//! A forwarder without packets: the engine's parts in the engine's order.
//!
//! ```text
//! request -> known flow -> its server
//!            unknown    -> policies -> director -> persistence | scheduler -> table
//! ```
//! Directors, schedulers, policies, flow table, persistence and ports are the engine's own, and are called as it calls
//! them (see `walk.rs` and `open.rs` there), so that a scheduler sees the same servers and loads. A test
//! holds both against each other, request by request.

mod lingering;
mod opening;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use evenkeel_engine::director::sticky::{self, Sticky};
use evenkeel_engine::director::{
    Director, Directors, Fault, FlowAnswered, GuestStats, NewFlow, Server, ServerId,
};
use evenkeel_engine::flow::{Clients, Departed, Direction, FlowEntry, FlowState, Traits};
use evenkeel_engine::forward::Routes;
use evenkeel_engine::nat::{PoolKey, PortPools};
use evenkeel_engine::plan::{Mode, Plan};
use evenkeel_engine::policy::chain::Chain;
use evenkeel_engine::wire::{Address, FiveTuple, HashKey, Protocol};
use evenkeel_engine::{AgentCheck, Guests, Instant, Probe, ProbeReply};

use lingering::{Gone, Lingering};

use super::connections::{EntryId, Table};
use super::level::Level;
use super::outcome::TableOutcome;
use super::setup::{Connections, ForwarderSetup, SetupError};

/// Stands for a real server that is no machine; every one of a checked setup is.
const NO_MACHINE: u32 = u32::MAX;

/// Messages of faults that are kept; the first ones say most.
const FAULTS_MAX: usize = 16;

/// A request as a forwarder sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    /// Its tuple, and the keyed hash of that.
    pub(super) flow: NewFlow,
    /// Whether it may open a flow whatever the director says of segments in the middle: a SYN, or a datagram.
    pub(super) is_opening: bool,
    /// Whether nobody will look the flow up but its own end, so that it may be counted instead of kept.
    pub(super) is_private: bool,
}

/// Where a request has got to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reached {
    pub(super) machine: u32,
    pub(super) place: u16,
    pub(super) slot: u16,
    pub(super) way: Way,
    /// Whether the flow is a new one.
    pub(super) is_new: bool,
}

/// What is remembered of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// An entry.
    Listed(EntryId),
    /// It is counted as open, without an entry.
    Unlisted,
    /// Nothing.
    Stateless,
}

/// Why a request went nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is from the middle of a flow that is not known.
    NoFlow,
    /// Its flow's server has left the plan.
    ServerRemoved,
    NoServer,
    TableFull,
    NoPort,
    /// By policy, a client's bound, or for want of a director.
    NotPermitted,
}

/// What the plan of today says of a flow of an older one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Validity {
    /// It goes on.
    Valid,
    /// It has ended.
    Gone,
    /// Its packets are dropped until its server is back.
    Refused,
}

/// No flow goes to this address.
const NOTHING_BOUND: ((Address, u16, Protocol), Option<u16>) = ((Address::UNSPECIFIED, 0, Protocol(0)), None);

/// A forwarder at work.
#[derive(Debug)]
pub(super) struct Forwarder {
    pub(super) name: String,
    pub(super) is_up: bool,
    /// How often it has lost its flows.
    pub(super) epoch: u32,
    /// Flows that gave way to others.
    pub(super) evicted: u64,
    pub(super) scheduler_calls: u64,
    connections: Connections,
    /// The plan with every server that there ever is, and with the weights of today.
    plan: Plan,
    /// Machines whose servers are out of the plan.
    removed: BTreeSet<u32>,
    machine_of: BTreeMap<IpAddr, u32>,
    /// The machine of each slot of each director.
    machines: Vec<Vec<u32>>,
    directors: Directors,
    /// What was asked for last, and the place of the director that is bound to it.
    bound: ((Address, u16, Protocol), Option<u16>),
    policies: Chain,
    table: Table,
    sticky: Sticky,
    clients: Clients,
    ports: PortPools,
    routes: Routes,
    generation: u8,
    lifetimes: [u64; FlowState::ALL.len()],
    /// Whether no director and no bound needs to know more of a flow than its server.
    is_plain: bool,
    /// Flows that are counted without an entry, and what stands for their entries.
    unlisted: usize,
    unlisted_flow: Departed,
    /// Those of them that are closed and linger.
    lingering: Lingering,
    /// When the table wants to be looked at, if that is known.
    expiry: Option<u64>,
    entries: Level,
    half_open_max: usize,
    opened: u64,
    closed: u64,
    /// The first faults of components, in words.
    pub(super) faults: Vec<String>,
}

impl Forwarder {
    pub(super) fn new(
        setup: ForwarderSetup,
        connections: Connections,
        machine_of: &BTreeMap<IpAddr, u32>,
        warmup: u64,
    ) -> Result<Self, SetupError> {
        let ForwarderSetup { name, plan, mut guests } = setup;
        plan.check(&guests).map_err(|error| SetupError::Plan { forwarder: name.clone(), error })?;
        for server in plan.directors.iter().flat_map(|director| &director.servers) {
            if !machine_of.contains_key(&server.address) {
                let (server, address) = (server.name.clone(), server.address);
                return Err(SetupError::NoMachine { forwarder: name, server, address });
            }
        }
        // Where answers do not come by, a flow whose server resets it waits half-open.
        let needs_entry = |mode: &Mode| match mode {
            Mode::Nat { sources } => !sources.is_empty(),
            Mode::Gateway | Mode::Tunnel { .. } => true,
        };
        let mut directors = plan.directors.iter();
        let is_plain = plan.limits.flows_per_client == 0
            && directors.all(|director| director.persistence.is_none() && !needs_entry(&director.mode));
        let mut forwarder = Self {
            is_up: true,
            epoch: 0,
            evicted: 0,
            scheduler_calls: 0,
            connections,
            removed: BTreeSet::new(),
            machine_of: machine_of.clone(),
            machines: Vec::new(),
            directors: Directors::default(),
            bound: NOTHING_BOUND,
            policies: Chain::new(&plan, &mut guests, Chain::default()),
            table: Table::new(connections, &plan),
            sticky: Sticky::default(),
            clients: Clients::default(),
            ports: PortPools::default(),
            routes: Routes::new(&plan),
            generation: 0,
            lifetimes: FlowState::ALL.map(|state| nanoseconds(&plan, state)),
            is_plain,
            unlisted: 0,
            unlisted_flow: Departed { entry: answered_once(), birth: None },
            lingering: Lingering::default(),
            expiry: None,
            entries: Level::new(warmup),
            half_open_max: 0,
            opened: 0,
            closed: 0,
            faults: Vec::new(),
            name,
            plan,
        };
        forwarder.sticky.set_most(forwarder.plan.limits.persistent_max);
        forwarder.clients.set_most(forwarder.plan.limits.flows_per_client, std::iter::empty());
        forwarder.apply(&mut guests, Instant::ZERO);
        forwarder.is_plain &= !forwarder.directors.iter().any(Director::times_flows);
        Ok(forwarder)
    }

    // Requests and answers.

    /// Sends a request on.
    #[inline(always)]
    pub(super) fn deliver(&mut self, packet: &Packet, now: Instant) -> Result<Reached, Refused> {
        // Nobody else has the tuple of a private flow.
        if !packet.is_private
            && let Some(id) = self.table.find(packet.flow.hash, &packet.flow.tuple)
            && let Some(result) = self.deliver_known(id, packet, now)
        {
            return result;
        }
        self.open(packet, now)
    }

    /// The server of a new flow has taken it: the handshake is done, if the flow `is_opening` with one.
    #[inline]
    pub(super) fn accepted(&mut self, reached: &Reached, is_opening: bool, now: Instant) {
        if let Way::Listed(id) = reached.way {
            self.establish(id, is_opening, now);
        }
    }

    fn establish(&mut self, id: EntryId, is_opening: bool, now: Instant) {
        let lifetime = self.lifetime(FlowState::Established);
        let Some(entry) = self.table.entry_mut(id) else { return };
        if matches!(entry.state, FlowState::SynSent | FlowState::SynReceived) {
            entry.state = FlowState::Established;
            // The client's acknowledgement: one that the server refused has sent a SYN and no more.
            if is_opening {
                entry.count(Direction::Original, 0);
            }
            entry.expires = lifetime.map_or(Instant::NEVER, |lifetime| later(now, lifetime));
            self.tell_answered(id, now);
            self.table.promote(id);
        }
    }

    /// The server has said its first word to a flow.
    fn tell_answered(&mut self, id: EntryId, now: Instant) {
        let Some(after) = self.table.note_answer(id, now) else { return };
        let Some(entry) = self.table.entry(id) else { return };
        let (place, slot) = (entry.director, entry.server_slot);
        let hash = entry.tuple(Direction::Original).hash(self.plan.hash_key);
        if let Some(director) = self.directors.at_mut(place) {
            let is_through_client = director.mode.is_one_sided();
            director.answered(slot, FlowAnswered { hash, server: 0, after, is_through_client }, now);
        }
    }

    /// The server has reset the flow.
    pub(super) fn reset(&mut self, reached: &Reached, hash: u64, now: Instant) {
        match reached.way {
            Way::Listed(id) => {
                // Where answers do not come by, nobody sees it.
                if !self.is_one_sided(reached.place) {
                    self.close(id, FlowState::Closed, now);
                }
            }
            Way::Unlisted => self.close_unlisted(reached.place, reached.slot, hash, FlowState::Closed, now),
            Way::Stateless => {}
        }
    }

    /// An answer to a flow that has an entry; `is_last` when both sides close after it. Returns whether it got through.
    pub(super) fn answer(
        &mut self,
        tuple: &FiveTuple,
        hash: u64,
        place: u16,
        is_last: bool,
        now: Instant,
    ) -> bool {
        let is_one_sided = self.is_one_sided(place);
        // Where answers do not come by, only the client's close does.
        if is_one_sided && !is_last {
            return true;
        }
        let Some(id) = self.table.find(hash, tuple) else { return is_one_sided };
        if self.table.entry(id).is_none_or(|entry| entry.expires <= now) {
            self.end(id, now);
            return is_one_sided;
        }
        match self.validity(id, now) {
            Validity::Valid => {}
            Validity::Gone | Validity::Refused => return is_one_sided,
        }
        let Some(entry) = self.table.entry_mut(id) else { return is_one_sided };
        if !is_one_sided {
            let (state, is_timed) = (entry.state, entry.expires != Instant::NEVER);
            entry.count(Direction::Reply, 0);
            let is_answered = entry.traits.has(Traits::HALF_OPEN);
            // Of a connection, the first word was the handshake.
            if is_answered && state == FlowState::Udp && entry.tally(Direction::Reply).packets() == 1 {
                self.tell_answered(id, now);
            }
            if is_timed && let Some(lifetime) = self.lifetime(state) {
                self.extend(id, lifetime, now);
            }
            if is_answered {
                self.promote(id);
            }
        }
        if is_last {
            let state = match (tuple.protocol, is_one_sided) {
                (Protocol::TCP, true) => FlowState::FinClient,
                (Protocol::TCP, false) => FlowState::TimeWait,
                _ => FlowState::Udp,
            };
            self.close(id, state, now);
        }
        true
    }

    /// A flow without an entry has closed: it is in `state` now, and lingers as an entry would.
    #[inline(always)]
    pub(super) fn close_unlisted(
        &mut self,
        place: u16,
        slot: u16,
        hash: u64,
        state: FlowState,
        now: Instant,
    ) {
        let Some(director) = self.directors.at_mut(place) else { return };
        director.change_state(slot, FlowState::Established, state);
        let gone = Gone { place, slot, hash, state };
        if self.connections == Connections::Timed {
            let due = self.lingering.push(later(now, self.lifetime(state).unwrap_or(0)), gone);
            self.expiry = self.expiry.map(|known| known.min(due));
        } else {
            self.settle_unlisted(gone, now);
        }
    }

    /// Settles what a flow without an entry held.
    #[inline]
    fn settle_unlisted(&mut self, gone: Gone, now: Instant) {
        self.unlisted = self.unlisted.saturating_sub(1);
        self.entries.fall(now.as_nanos());
        self.closed += 1;
        self.unlisted_flow.entry.server_slot = gone.slot;
        self.unlisted_flow.entry.state = gone.state;
        if let Some(director) = self.directors.at_mut(gone.place) {
            director.close(&self.unlisted_flow, gone.hash, now);
        }
    }

    // Time.

    /// When [`Forwarder::handle_timeout`] has something to do; the end of time if never.
    #[inline]
    pub(super) fn next_timeout(&mut self) -> u64 {
        *self.expiry.get_or_insert_with(|| {
            let others =
                [self.sticky.next_expiry(), self.directors.next_tick(), self.directors.next_agents()];
            let others = others.into_iter().flatten().map(Instant::as_nanos).min();
            self.table.next_expiry().min(others.unwrap_or(u64::MAX)).min(self.lingering.next())
        })
    }

    /// Takes out what is over at `now`.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some(departed) = self.table.expire(now) {
            self.farewell(departed, now);
        }
        while let Some(gone) = self.lingering.pop(now) {
            self.settle_unlisted(gone, now);
        }
        self.sticky.expire(now);
        self.directors.handle_ticks(now);
        if self.is_up {
            self.directors.handle_agents(now);
        }
        self.expiry = None;
        self.count_entries(now);
    }

    // Commands.

    /// Takes the servers of a machine out of every director, or puts them back.
    pub(super) fn set_removed(&mut self, machine: u32, is_removed: bool, now: Instant) {
        let is_news = if is_removed { self.removed.insert(machine) } else { self.removed.remove(&machine) };
        if is_news {
            self.apply(&mut Guests::default(), now);
        }
    }

    /// Weighs the servers of a machine anew.
    pub(super) fn set_weight(&mut self, machine: u32, weight: u32, now: Instant) {
        let weight = weight.min(u32::from(u16::MAX));
        for plan in &mut self.plan.directors {
            let Some(director) = self.directors.named_mut(&plan.name) else { continue };
            for server in &mut plan.servers {
                if self.machine_of.get(&server.address) == Some(&machine) {
                    server.weight = weight;
                    director.set_weight(&server.name, weight, now);
                }
            }
        }
    }

    /// Weighs one real server anew. Gives its machine and its weight of before, if there is one.
    pub(super) fn set_server_weight(
        &mut self,
        director: &str,
        server: &str,
        weight: u32,
        now: Instant,
    ) -> Option<(u32, u32)> {
        let weight = weight.min(u32::from(u16::MAX));
        let plan = self.plan.directors.iter_mut().find(|plan| plan.name == director)?;
        let written = plan.servers.iter_mut().find(|written| written.name == server)?;
        let before = std::mem::replace(&mut written.weight, weight);
        let machine = *self.machine_of.get(&written.address)?;
        self.directors.named_mut(director)?.set_weight(server, weight, now);
        Some((machine, before))
    }

    /// Stops and loses every flow, or starts again. Its schedulers keep what they know.
    pub(super) fn set_up(&mut self, is_up: bool, now: Instant) {
        self.is_up = is_up;
        // Without power nobody asks, and what was said is forgotten.
        self.directors.restart_agents(is_up.then_some(now), now);
        self.expiry = None;
        if is_up {
            return;
        }
        self.epoch += 1;
        let lost = std::mem::replace(&mut self.table, Table::new(self.connections, &self.plan));
        for departed in lost.into_departed() {
            self.farewell(departed, now);
        }
        self.sticky = Sticky::default();
        self.sticky.set_most(self.plan.limits.persistent_max);
        self.expiry = None;
        self.count_entries(now);
    }

    // Questions.

    pub(super) fn key(&self) -> HashKey {
        self.plan.hash_key
    }

    pub(super) const fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(super) fn is_removed(&self, machine: u32) -> bool {
        self.removed.contains(&machine)
    }

    /// The address of a machine.
    pub(super) fn address(&self, machine: u32) -> IpAddr {
        let found = self.machine_of.iter().find(|(_, number)| **number == machine);
        found.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |(address, _)| *address)
    }

    pub(super) const fn connections(&self) -> Connections {
        self.connections
    }

    pub(super) fn entries(&self) -> usize {
        self.table.len() + self.unlisted
    }

    pub(super) fn capacity(&self) -> usize {
        self.table.capacity()
    }

    /// The machine that has this address.
    pub(super) fn machine_at(&self, address: IpAddr) -> Option<u32> {
        self.machine_of.get(&address).copied()
    }

    /// Flows that were opened.
    pub(super) const fn opened(&self) -> u64 {
        self.opened
    }

    /// The next question of a scheduler to a real server.
    #[inline]
    pub(super) fn poll_probe(&mut self, now: Instant) -> Option<Probe> {
        self.directors.poll_probe(now)
    }

    /// A real server has answered one.
    pub(super) fn probe_answered(&mut self, reply: &ProbeReply, now: Instant) {
        if let Some(director) = self.directors.at_mut(reply.director) {
            director.probe_answered(reply.server, reply.in_flight, reply.latency, now);
        }
    }

    /// The next question to an agent.
    pub(super) fn poll_agent_check(&mut self) -> Option<AgentCheck> {
        self.directors.poll_agent_check()
    }

    /// An agent has answered one. Gives the machine of its server, and the weight that counts of it now.
    pub(super) fn agent_answered(
        &mut self,
        check: &AgentCheck,
        line: &[u8],
        now: Instant,
    ) -> Option<(u32, u32)> {
        self.directors.agent_answered(&check.reply(line), now)?;
        self.expiry = None;
        let director = self.directors.at(check.director)?;
        let is_its = |server: &&Server| ServerId::of(server.address, server.port) == check.server;
        let server = director.members().find(is_its)?;
        Some((self.machine_at(check.address)?, server.effective_weight()))
    }

    /// How often it began anew.
    pub(super) fn restarts(&self) -> u64 {
        u64::from(self.epoch) - u64::from(!self.is_up)
    }

    /// Bytes that the schedulers of its directors keep.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.directors.iter().fold(0, |sum, director| director.scheduler().memory_bytes().saturating_add(sum))
    }

    /// How often each director's and policy's component was called, and how it did.
    pub(super) fn guests(&self) -> impl Iterator<Item = (String, GuestStats)> {
        let directors =
            self.directors.iter().map(|director| (director.name.clone(), director.scheduler().stats()));
        directors.chain(self.policies.status().map(|policy| (policy.name, policy.guest)))
    }

    /// Its directors, in the plan's order.
    pub(super) fn directors(&self) -> impl Iterator<Item = &Director> {
        self.directors.iter()
    }

    pub(super) fn outcome(&self, now: u64) -> TableOutcome {
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        TableOutcome {
            name: self.name.clone(),
            capacity: number(self.table.capacity()),
            opened: self.opened,
            closed: self.closed,
            evicted: self.evicted,
            entries: number(self.entries()),
            entries_mean_millionths: self.entries.mean_millionths(now),
            entries_max: self.entries.max(),
            half_open_max: number(self.half_open_max),
            ports_held: self.ports.held(),
        }
    }

    // Known flows.

    /// A request of the flow `id`; nothing if the flow has ended, so that the request may open another.
    fn deliver_known(
        &mut self,
        id: EntryId,
        packet: &Packet,
        now: Instant,
    ) -> Option<Result<Reached, Refused>> {
        let entry = self.table.entry(id)?;
        if entry.expires <= now || (packet.is_opening && entry.state.is_over()) {
            self.end(id, now);
            return None;
        }
        let (place, slot, state) = (entry.director, entry.server_slot, entry.state);
        match self.validity(id, now) {
            Validity::Valid => {}
            Validity::Gone => return None,
            Validity::Refused => return Some(Err(Refused::ServerRemoved)),
        }
        let lifetime = self.lifetime(state);
        let entry = self.table.entry_mut(id)?;
        entry.count(Direction::Original, 0);
        // A second datagram shows that somebody has answered.
        let is_answered = entry.traits.has(Traits::HALF_OPEN) && entry.is_answered();
        if let Some(lifetime) = lifetime {
            self.extend(id, lifetime, now);
        }
        if is_answered {
            self.promote(id);
        }
        let machine = self.machine(place, slot);
        Some(Ok(Reached { machine, place, slot, way: Way::Listed(id), is_new: false }))
    }

    /// Whether the plan of today still has the server of a flow of an older one.
    fn validity(&mut self, id: EntryId, now: Instant) -> Validity {
        let generation = self.generation;
        let Some(entry) = self.table.entry_mut(id) else { return Validity::Gone };
        if entry.generation == generation {
            return Validity::Valid;
        }
        let director = self.directors.at(entry.director);
        let server = director.and_then(|director| director.server(entry.server_slot));
        if server.is_some_and(|server| server.view.is_some()) {
            entry.generation = generation;
            return Validity::Valid;
        }
        if !self.plan.handling.expires_nodest {
            return Validity::Refused;
        }
        self.end(id, now);
        Validity::Gone
    }

    /// Nanoseconds that a flow lives in a state; nothing where flows do not run out.
    fn lifetime(&self, state: FlowState) -> Option<u64> {
        match self.connections {
            Connections::Timed | Connections::Brief => self.lifetimes.get(state as usize).copied(),
            Connections::Lru { .. } | Connections::Stateless => None,
        }
    }

    fn extend(&mut self, id: EntryId, lifetime: u64, now: Instant) {
        if let Some(entry) = self.table.entry_mut(id) {
            entry.expires = later(now, lifetime);
        }
    }

    fn promote(&mut self, id: EntryId) {
        self.table.promote(id);
    }

    /// A flow is closed by its ends, or reset: it changes its state, and leaves at once where nothing lingers.
    fn close(&mut self, id: EntryId, after: FlowState, now: Instant) {
        let Some(entry) = self.table.entry_mut(id) else { return };
        let (before, place, slot) = (entry.state, entry.director, entry.server_slot);
        entry.state = after;
        if let Some(director) = self.directors.at_mut(place) {
            director.change_state(slot, before, after);
        }
        if self.connections != Connections::Timed {
            self.end(id, now);
        } else if before != after
            && let (Some(was), Some(is)) = (self.lifetime(before), self.lifetime(after))
        {
            self.extend(id, is, now);
            if is < was {
                self.table.reschedule(id);
                self.expiry = None;
            }
        }
    }

    /// Takes a flow out.
    fn end(&mut self, id: EntryId, now: Instant) {
        if let Some(departed) = self.table.remove(id) {
            self.farewell(departed, now);
            self.count_entries(now);
        }
    }

    /// Settles what a flow that has left the table held.
    fn farewell(&mut self, mut departed: Departed, now: Instant) {
        let entry = &mut departed.entry;
        self.closed += 1;
        self.expiry = None;
        if entry.traits.has(Traits::HOLDS_PORT) {
            self.ports.release(pool_key(entry), entry.mapped_port);
        }
        self.clients.close(entry.client);
        let place = entry.director;
        let persistence = self.directors.at(place).and_then(|director| director.persistence.as_ref());
        if let Some(persistence) = persistence.filter(|_| entry.traits.has(Traits::STICKS)) {
            self.sticky.close(&sticky::key(place, entry.client, persistence), entry.server_slot);
        }
        let hash = entry.tuple(Direction::Original).hash(self.plan.hash_key);
        if let Some(director) = self.directors.at_mut(place) {
            // It was one-sided for the table alone.
            if !director.mode.is_one_sided() {
                entry.traits = entry.traits.without(Traits::ONE_SIDED);
            }
            director.close(&departed, hash, now);
        }
    }

    pub(super) fn is_one_sided(&self, place: u16) -> bool {
        self.directors.at(place).is_some_and(|director| director.mode.is_one_sided())
    }

    fn machine(&self, place: u16, slot: u16) -> u32 {
        let slots = self.machines.get(usize::from(place));
        slots.and_then(|slots| slots.get(usize::from(slot))).copied().unwrap_or(NO_MACHINE)
    }

    #[inline]
    fn count_entries(&mut self, now: Instant) {
        let entries = self.table.len() + self.unlisted;
        self.entries.set(u64::try_from(entries).unwrap_or(u64::MAX), now.as_nanos());
    }

    // Plans.

    /// Becomes what the plan says, without the servers that are removed.
    fn apply(&mut self, guests: &mut Guests, now: Instant) {
        let mut plan = self.plan.clone();
        for director in &mut plan.directors {
            director.servers.retain(|server| {
                let machine = self.machine_of.get(&server.address);
                machine.is_none_or(|machine| !self.removed.contains(machine))
            });
        }
        self.directors.apply(&plan, guests, now);
        self.bound = NOTHING_BOUND;
        self.generation = self.generation.wrapping_add(1);
        if self.generation == 0 {
            self.table.forget_generations();
            self.generation = 1;
        }
        self.expiry = None;
        // A director never has more slots than there are servers.
        let slots = self.plan.directors.iter().map(|director| director.servers.len()).max().unwrap_or(0);
        self.machines = (0..self.plan.directors.len())
            .map(|place| {
                let director = u16::try_from(place).ok().and_then(|place| self.directors.at(place));
                let machine = |slot: usize| {
                    let slot = u16::try_from(slot).ok()?;
                    let address = IpAddr::from(director?.server(slot)?.address);
                    self.machine_of.get(&address).copied()
                };
                (0..slots).map(|slot| machine(slot).unwrap_or(NO_MACHINE)).collect()
            })
            .collect();
    }
}

/// A flow with a packet from either side.
fn answered_once() -> FlowEntry {
    let mut entry = FlowEntry::new(FlowState::TimeWait, 0);
    entry.count(Direction::Original, 0);
    entry.count(Direction::Reply, 0);
    entry
}

/// Keeps a fault in words, unless there are enough of them.
#[cold]
fn note(faults: &mut Vec<String>, name: &str, fault: Fault) {
    let Fault { component, call, reason } = fault;
    if faults.len() < FAULTS_MAX {
        faults.push(format!("{name}: {component} in {call}: {reason}"));
    }
}

/// The ports among which a flow's was chosen.
const fn pool_key(entry: &FlowEntry) -> PoolKey {
    PoolKey {
        mapped: entry.mapped,
        server: entry.server,
        server_port: entry.server_port,
        protocol: entry.protocol(),
    }
}

fn nanoseconds(plan: &Plan, state: FlowState) -> u64 {
    u64::try_from(state.timeout(&plan.timeouts).as_nanos()).unwrap_or(u64::MAX)
}

const fn later(now: Instant, nanoseconds: u64) -> Instant {
    Instant::from_nanos(now.as_nanos().saturating_add(nanoseconds))
}

#[cfg(test)]
mod tests;
