//! The loop of flow mode: what comes next in time, and what becomes of it.

mod happen;
mod probing;

use std::collections::BTreeMap;
use std::net::IpAddr;

use evenkeel_engine::director::NewFlow;
use evenkeel_engine::flow::FlowState;
use evenkeel_engine::wire::{FiveTuple, HashKey, Protocol};
use evenkeel_engine::{Duration, Instant};
use slab::Slab;

use happen::{Act, ChurnState, changes};
use probing::Flying;

use super::agenda::Agenda;
use super::forwarder::{Forwarder, Packet, Reached, Refused, Way};
use super::load::{Kind, Load, nanoseconds};
use super::machine::Machine;
use super::outcome::{Cause, MachineOutcome, Outcome};
use super::setup::{Connections, Extent, ForwarderSetup, RouterSetup, Setup, SetupError};
use super::steering::{Router, Steering};
use super::tell::Tell;
use super::tournament::Tournament;
use crate::host::PORT_FIRST;
use crate::random::Stream;
use crate::record::{Histogram, RunRecord};
use crate::work::Refusal;
use crate::work::arrivals::Running;
use crate::world::Progress;

/// The most sessions at a time; whoever comes then is turned away. 8 GiB of them are more than any machine that
/// is simulated could hold.
const SESSIONS_MAX: usize = 1 << 26;

/// Events between two looks at the progress.
const PROGRESS_EVENTS: u64 = 1 << 16;

/// Runs to the end.
///
/// # Errors
/// When the setup contradicts itself, or the engine refuses a plan; nothing has run then.
pub fn run(setup: &Setup, forwarders: Vec<ForwarderSetup>) -> Result<Outcome, SetupError> {
    let mut world = World::new(setup, forwarders)?;
    world.run();
    Ok(world.outcome())
}

/// Everything that there is.
#[derive(Debug)]
pub struct World {
    seed: u64,
    end: u64,
    warmup: u64,
    now: u64,
    events: u64,
    requests: u64,
    answered: u64,
    latency: Histogram,
    decisions: u64,
    decision_hash: u64,
    routers: Vec<Router>,
    forwarders: Vec<Forwarder>,
    machines: Vec<Machine>,
    due: Tournament,
    agenda: Agenda<Wake>,
    /// Schedulers' questions to servers that are under way.
    probes: Slab<Flying>,
    /// The next port of each machine that calls.
    ports: Vec<u16>,
    loads: Vec<Load>,
    /// The load whose next session begins first, and when.
    next_load: (u64, usize),
    sessions: Slab<Exchange>,
    changes: Vec<Act>,
    churn: Option<ChurnState>,
    /// The hash key of the first forwarder: those of the others are the same in most runs.
    key: HashKey,
    /// Whether flows that nobody looks up need no entry: they end with their answer, and nothing stops before.
    may_be_private: bool,
    tell: Tell,
}

/// Something that was planned.
#[derive(Clone, Copy, Debug)]
enum Wake {
    /// The next request of a session.
    Request(u32),
    /// A user of a closed loop begins a session.
    User(u16),
    /// A change of the timeline.
    Change(u32),
    /// An upgrade begins.
    Update,
    /// A machine comes back from its upgrade.
    Return(u32),
    /// A scheduler's question to a server, or its answer, has arrived.
    Probe(u32),
}

/// A session, with its request that is under way if there is one.
#[derive(Clone, Copy, Debug)]
struct Exchange {
    hash: u64,
    /// The number of its five-tuple.
    number: u64,
    sent: u64,
    left: u32,
    machine: u32,
    machine_epoch: u32,
    forwarder_epoch: u32,
    load: u16,
    forwarder: u16,
    place: u16,
    slot: u16,
    memory: Memory,
}

/// What its forwarder remembers of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memory {
    Listed,
    Unlisted,
    Nothing,
}

impl World {
    /// A world at its beginning.
    ///
    /// # Errors
    /// When the setup contradicts itself, or the engine refuses a plan.
    pub fn new(setup: &Setup, forwarders: Vec<ForwarderSetup>) -> Result<Self, SetupError> {
        setup.check(forwarders.len())?;
        let warmup = nanoseconds(setup.warmup);
        let machine_of: BTreeMap<IpAddr, u32> = setup
            .machines
            .iter()
            .zip(0..)
            .flat_map(|(machine, number)| machine.addresses.iter().map(move |address| (*address, number)))
            .collect();
        let forwarders = forwarders.into_iter();
        let forwarders: Vec<Forwarder> = forwarders
            .map(|forwarder| Forwarder::new(forwarder, setup.connections, &machine_of, warmup))
            .collect::<Result<_, _>>()?;
        let loads = setup.loads.iter().map(|load| Load::new(load, setup.seed));
        let loads: Vec<Load> = loads.collect::<Result<_, _>>()?;
        let machines = setup.machines.iter().map(|machine| Machine::new(machine, setup.seed, warmup));
        let changes = changes(setup, &forwarders)?;
        let is_calm = !changes.iter().any(Act::ends_flows) && setup.churn.is_none();
        let mut world = Self {
            seed: setup.seed,
            end: nanoseconds(setup.duration),
            warmup,
            now: 0,
            events: 0,
            requests: 0,
            answered: 0,
            latency: Histogram::new(),
            decisions: 0,
            decision_hash: 0,
            routers: routers(setup, forwarders.len()),
            key: forwarders.first().map_or(HashKey([0, 0]), Forwarder::key),
            may_be_private: may_be_private(setup, is_calm),
            forwarders,
            machines: machines.collect::<Result<_, _>>()?,
            due: Tournament::new(setup.machines.len()),
            agenda: Agenda::new(),
            probes: Slab::new(),
            ports: setup.callers.iter().map(|caller| first_port(setup.seed, caller)).collect(),
            loads,
            next_load: (u64::MAX, 0),
            sessions: Slab::new(),
            changes,
            churn: None,
            tell: Tell::default(),
        };
        world.plan_ahead(setup)?;
        Ok(world)
    }

    /// Plans what is known from the beginning.
    fn plan_ahead(&mut self, setup: &Setup) -> Result<(), SetupError> {
        for (timed, number) in setup.timeline.iter().zip(0..) {
            self.agenda.push(nanoseconds(timed.at), Wake::Change(number));
        }
        for (load, number) in setup.loads.iter().zip(0..) {
            let users = self.loads.get(usize::from(number)).map_or(0, Load::users);
            for _ in 0..users {
                self.agenda.push(nanoseconds(load.start), Wake::User(number));
            }
        }
        self.find_next_load();
        let Some(churn) = &setup.churn else { return Ok(()) };
        let law = |error| SetupError::Law { name: "churn".to_owned(), error };
        let Running::Open(updates) = churn.updates.start(0).map_err(law)? else {
            return Err(SetupError::ClosedChurn);
        };
        self.churn = Some(ChurnState {
            updates,
            downtime: churn.downtime.sampler().map_err(law)?,
            stops: churn.stops,
            draws: ["updates", "victims", "downtimes"].map(|what| Stream::new(setup.seed, "churn", what)),
            is_away: vec![false; setup.machines.len()],
        });
        self.plan_update();
        Ok(())
    }

    /// Takes down what happens for a report. Costs a run some of its speed.
    pub fn record(&mut self, setup: &Setup) {
        let loads: Vec<String> = self.loads.iter().map(|load| load.name.clone()).collect();
        self.tell.begin(setup, &loads, &self.forwarders);
    }

    /// Runs to the end.
    pub fn run(&mut self) {
        self.run_with_progress(&mut |_| {});
    }

    /// The same, and tells now and then how far it is: what sessions have ended, and how many there will be.
    pub fn run_with_progress(&mut self, listener: &mut dyn FnMut(Progress)) {
        while self.step() {
            if self.events.is_multiple_of(PROGRESS_EVENTS) {
                listener(self.progress());
            }
        }
        listener(self.progress());
    }

    fn progress(&self) -> Progress {
        let ended = self.loads.iter().map(|load| load.started - load.unfinished()).sum();
        let expected = self.loads.iter().map(Load::expected).sum();
        Progress { now: self.time(), flows: ended, flows_expected: expected }
    }

    /// What the run has come to so far.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        Outcome {
            seed: self.seed,
            elapsed_ns: self.now,
            warmup_ns: self.warmup,
            events: self.events,
            requests: self.requests,
            answered: self.answered,
            scheduler_calls: self.forwarders.iter().map(|forwarder| forwarder.scheduler_calls).sum(),
            latency: self.latency.clone(),
            loads: self.loads.iter().map(Load::outcome).collect(),
            machines: self.machines.iter().map(|machine| machine.outcome(self.now)).collect(),
            tables: self.forwarders.iter().map(|forwarder| forwarder.outcome(self.now)).collect(),
            decision_hash: format!("{:016x}", self.decision_hash),
        }
    }

    /// The record of the run, if one was asked for; once.
    pub fn take_record(&mut self) -> Option<RunRecord> {
        let outcome = self.outcome();
        self.tell.finish(self.time(), &outcome, &self.forwarders)
    }

    /// The forwarders, in the order of the setup.
    pub(super) fn forwarders(&self) -> impl Iterator<Item = &Forwarder> {
        self.forwarders.iter()
    }

    /// The machines, each with how many requests it has.
    pub(super) fn machines(&self) -> impl Iterator<Item = (MachineOutcome, u64)> {
        let held = |machine: &Machine| u64::try_from(machine.held()).unwrap_or(u64::MAX);
        self.machines.iter().map(move |machine| (machine.outcome(self.now), held(machine)))
    }

    /// Sessions of a load that the machine with this address has completed.
    pub(super) fn completed_by(&self, load: usize, address: IpAddr) -> u64 {
        let machine = self.forwarders.first().and_then(|forwarder| forwarder.machine_at(address));
        let place = machine.and_then(|machine| usize::try_from(machine).ok());
        let load = self.loads.get(load);
        place.and_then(|place| load?.completed_by.get(place)).copied().unwrap_or(0)
    }

    // The loop.

    /// Lets the next thing happen. Returns whether there was one before the end.
    fn step(&mut self) -> bool {
        let mut timeout = u64::MAX;
        for forwarder in &mut self.forwarders {
            timeout = timeout.min(forwarder.next_timeout());
        }
        let (done, planned, arrival) = (self.due.next(), self.agenda.next(), self.next_load.0);
        let next = timeout.min(done).min(planned).min(arrival);
        if next > self.end || next == u64::MAX {
            self.now = self.end.max(self.now).min(next);
            return false;
        }
        self.now = self.now.max(next);
        self.tell.sample(self.time(), &self.machines, &self.forwarders);
        if timeout == next {
            let now = self.time();
            self.forwarders.iter_mut().for_each(|forwarder| forwarder.handle_timeout(now));
            self.ask_agents();
            return true;
        }
        self.events += 1;
        if done == next {
            self.complete();
        } else if planned == next {
            self.wake();
        } else {
            let load = self.next_load.1;
            self.begin(load);
            if let Some(load) = self.loads.get_mut(load) {
                load.plan_next(self.now);
            }
            self.find_next_load();
        }
        !self.is_over()
    }

    /// Every load is done. What is left in tables runs out unseen.
    fn is_over(&self) -> bool {
        self.next_load.0 == u64::MAX
            && self.sessions.is_empty()
            && self.loads.iter().all(|load| load.is_done(self.now))
    }

    const fn time(&self) -> Instant {
        Instant::from_nanos(self.now)
    }

    #[inline]
    fn find_next_load(&mut self) {
        if let [only] = &*self.loads {
            self.next_load = (only.next, 0);
            return;
        }
        // Of equal times the first load.
        let times = self.loads.iter().map(|load| load.next).zip(0..);
        self.next_load = times.min().unwrap_or((u64::MAX, 0));
    }

    // Sessions.

    /// A session of a load begins.
    #[inline(never)]
    fn begin(&mut self, number: usize) {
        let now = self.time();
        let Some(load) = self.loads.get_mut(number) else { return };
        let begin = load.begin(&mut self.ports);
        let tuple = load.tuples.tuple(begin.number);
        let is_flood = matches!(load.kind, Kind::Flood);
        let is_private = begin.is_fresh
            && self.may_be_private
            && matches!(load.kind, Kind::Request)
            && tuple.protocol == Protocol::TCP;
        let number = u16::try_from(number).unwrap_or(u16::MAX);
        self.tell.started(now, number);
        let exchange = Exchange {
            hash: tuple.hash(self.key),
            number: begin.number,
            sent: self.now,
            left: begin.requests,
            machine: u32::MAX,
            machine_epoch: 0,
            forwarder_epoch: 0,
            load: number,
            forwarder: u16::MAX,
            place: 0,
            slot: 0,
            memory: Memory::Nothing,
        };
        let flow = NewFlow { hash: exchange.hash, tuple };
        let mut packet = Packet { flow, is_opening: begin.is_opening, is_private };
        if is_flood {
            self.flood(&exchange, &packet);
        } else if self.sessions.len() >= SESSIONS_MAX {
            self.break_off(&exchange, Cause::ServerFull);
        } else {
            let key = self.sessions.insert(exchange);
            if let Err(cause) = self.send(key, &mut packet) {
                self.give_up(key, cause);
            }
        }
    }

    /// A packet that opens a flow, which nobody answers.
    #[inline(never)]
    fn flood(&mut self, exchange: &Exchange, packet: &Packet) {
        let now = self.time();
        let router = self.loads.get(usize::from(exchange.load)).map_or(0, |load| load.router);
        let place = self.steer(router, &packet.flow.tuple);
        let forwarder = place.and_then(|place| self.forwarders.get_mut(usize::from(place)));
        let Some(forwarder) = forwarder.filter(|forwarder| forwarder.is_up) else {
            return self.break_off(exchange, Cause::ForwarderGone);
        };
        match forwarder.deliver(packet, now) {
            Ok(reached) => {
                self.note(packet.flow.hash, reached.machine);
                if let Some(load) = self.loads.get_mut(usize::from(exchange.load)) {
                    load.complete(reached.machine);
                }
            }
            Err(refused) => self.break_off(exchange, cause_of(refused).unwrap_or(Cause::Refused)),
        }
    }

    /// The next request of a session that waited.
    #[inline(never)]
    fn go_on(&mut self, key: u32) {
        let place = usize::try_from(key).unwrap_or(usize::MAX);
        let Some(exchange) = self.sessions.get_mut(place) else { return };
        let Some(load) = self.loads.get(usize::from(exchange.load)) else { return };
        exchange.sent = self.now;
        let flow = NewFlow { hash: exchange.hash, tuple: load.tuples.tuple(exchange.number) };
        let mut packet = Packet { flow, is_opening: load.opens_always(), is_private: false };
        if let Err(cause) = self.send(place, &mut packet) {
            self.give_up(place, cause);
        }
    }

    /// A session ends early.
    #[cold]
    fn give_up(&mut self, key: usize, cause: Cause) {
        if let Some(exchange) = self.sessions.try_remove(key) {
            self.break_off(&exchange, cause);
        }
    }

    /// Sends a request of a session to its server.
    #[inline(always)]
    fn send(&mut self, key: usize, packet: &mut Packet) -> Result<(), Cause> {
        let now = self.time();
        self.requests += 1;
        let load = self.sessions.get(key).map(|exchange| usize::from(exchange.load));
        let load = load.and_then(|load| self.loads.get_mut(load)).ok_or(Cause::Refused)?;
        let (work, router) = (load.work(), load.router);
        let number = self.steer(router, &packet.flow.tuple).ok_or(Cause::ForwarderGone)?;
        let forwarder = self.forwarders.get_mut(usize::from(number));
        let Some(forwarder) = forwarder.filter(|forwarder| forwarder.is_up) else {
            return Err(Cause::ForwarderGone);
        };
        if number > 0 && forwarder.key() != self.key {
            packet.flow.hash = packet.flow.tuple.hash(forwarder.key());
        }
        let mut sent = forwarder.deliver(packet, now);
        if let Err(refused) = sent {
            sent = Ok(self.try_again(key, packet, number, refused)?);
        }
        let Ok(reached) = &sent else { return Err(Cause::Refused) };
        if reached.is_new {
            self.note(packet.flow.hash, reached.machine);
            if let Some(forwarder) = self.forwarders.get_mut(usize::from(number))
                && let Some(probe) = forwarder.poll_probe(now)
            {
                self.ask(number, probe);
            }
        }
        self.hand_over(key, packet, number, reached, work)
    }

    /// The forwarder with this number has refused a request. A client who keeps a connection is reset where nobody knows
    /// it any more, and connects anew at once.
    #[cold]
    fn try_again(
        &mut self,
        key: usize,
        packet: &mut Packet,
        number: u16,
        mut refused: Refused,
    ) -> Result<Reached, Cause> {
        let now = self.time();
        let Some(exchange) = self.sessions.get(key).copied() else { return Err(Cause::Refused) };
        let load = self.loads.get(usize::from(exchange.load));
        let is_kept = load.is_some_and(|load| matches!(load.kind, Kind::Kept));
        let forwarder = self.forwarders.get_mut(usize::from(number));
        if let (Some(forwarder), true) = (forwarder, is_kept && refused == Refused::NoFlow) {
            packet.is_opening = true;
            match forwarder.deliver(packet, now) {
                Ok(reached) => return Ok(reached),
                Err(again) => refused = again,
            }
        }
        Err(self.why(&exchange, number, Some(refused)))
    }

    /// The forwarder that a router sends a flow to.
    #[inline]
    fn steer(&self, router: u16, tuple: &FiveTuple) -> Option<u16> {
        self.routers.get(usize::from(router))?.steer(tuple)
    }

    /// A request has reached a machine.
    #[inline(always)]
    fn hand_over(
        &mut self,
        key: usize,
        packet: &Packet,
        number: u16,
        reached: &Reached,
        work: Duration,
    ) -> Result<(), Cause> {
        let now = self.time();
        let Some(exchange) = self.sessions.get_mut(key) else { return Err(Cause::Refused) };
        let job = u32::try_from(key).unwrap_or(u32::MAX);
        let place = usize::try_from(reached.machine).unwrap_or(usize::MAX);
        let is_first = exchange.machine == u32::MAX;
        let machine = self.machines.get_mut(place).ok_or(Cause::NoServer)?;
        let forwarder = self.forwarders.get_mut(usize::from(number)).ok_or(Cause::ForwarderGone)?;
        let is_its =
            is_first || (exchange.machine == reached.machine && exchange.machine_epoch == machine.epoch);
        let work = if is_its { machine.work().unwrap_or(work) } else { work };
        let taken = if is_its { machine.arrive(job, work, now) } else { Err(Refusal::Full) };
        match taken {
            Ok(()) if reached.is_new => forwarder.accepted(reached, packet.is_opening, now),
            Ok(()) => {}
            Err(Refusal::Full) => forwarder.reset(reached, packet.flow.hash, now),
            // Nobody answers at all, and the flow waits until it runs out.
            Err(Refusal::Down) => {}
        }
        match taken {
            _ if !is_its => {
                let exchange = *exchange;
                return Err(self.why(&exchange, number, None));
            }
            Ok(()) => {}
            Err(Refusal::Full) => return Err(Cause::ServerFull),
            Err(Refusal::Down) => return Err(Cause::ServerGone),
        }
        self.due.set(place, machine.due());
        exchange.machine = reached.machine;
        exchange.machine_epoch = machine.epoch;
        exchange.forwarder = number;
        exchange.forwarder_epoch = forwarder.epoch;
        (exchange.place, exchange.slot) = (reached.place, reached.slot);
        exchange.memory = match reached.way {
            Way::Listed(_) => Memory::Listed,
            Way::Unlisted => Memory::Unlisted,
            Way::Stateless => Memory::Nothing,
        };
        Ok(())
    }

    /// A machine is done with a request.
    #[inline(never)]
    fn complete(&mut self) {
        let (now, place) = (self.time(), self.due.winner());
        let Some(machine) = self.machines.get_mut(place) else { return };
        let job = machine.complete(now);
        self.due.set(place, machine.due());
        let Some(key) = job.and_then(|job| usize::try_from(job).ok()) else { return };
        let Some(session) = self.sessions.get_mut(key) else { return };
        let exchange = Exchange { left: session.left.saturating_sub(1), ..*session };
        session.left = exchange.left;
        if !self.answer(&exchange) {
            self.sessions.remove(key);
            let cause = self.why(&exchange, exchange.forwarder, Some(Refused::NoFlow));
            return self.break_off(&exchange, cause);
        }
        self.answered += 1;
        let latency = self.now - exchange.sent;
        if let Some(machine) = self.machines.get_mut(place) {
            machine.note(latency);
        }
        if exchange.sent >= self.warmup {
            self.latency.record(latency);
        }
        self.tell.completed(now, exchange.load, exchange.machine, Duration::from_nanos(latency));
        if exchange.left > 0 {
            let gap = self.loads.get_mut(usize::from(exchange.load)).map_or(0, Load::gap);
            let key = u32::try_from(key).unwrap_or(u32::MAX);
            self.agenda.push(self.now.saturating_add(gap), Wake::Request(key));
            return;
        }
        self.sessions.remove(key);
        if let Some(load) = self.loads.get_mut(usize::from(exchange.load)) {
            load.complete(exchange.machine);
        }
        self.rest(exchange.load);
    }

    /// An answer goes back through the forwarder that the request came by. Returns whether it got through.
    #[inline]
    fn answer(&mut self, exchange: &Exchange) -> bool {
        let now = self.time();
        let Some(forwarder) = self.forwarders.get_mut(usize::from(exchange.forwarder)) else { return false };
        let Exchange { place, slot, .. } = *exchange;
        match exchange.memory {
            Memory::Unlisted => {
                forwarder.close_unlisted(place, slot, exchange.hash, FlowState::TimeWait, now);
                true
            }
            Memory::Nothing => forwarder.is_up || forwarder.is_one_sided(place),
            Memory::Listed => {
                let Some(load) = self.loads.get(usize::from(exchange.load)) else { return false };
                let tuple = load.tuples.tuple(exchange.number);
                let hash =
                    if forwarder.key() == self.key { exchange.hash } else { tuple.hash(forwarder.key()) };
                let is_last = exchange.left == 0 && !matches!(load.kind, Kind::Kept);
                if !forwarder.is_up && !forwarder.is_one_sided(place) {
                    return false;
                }
                forwarder.answer(&tuple, hash, place, is_last, now)
            }
        }
    }

    /// A session has broken.
    #[cold]
    fn break_off(&mut self, exchange: &Exchange, cause: Cause) {
        let now = self.time();
        if let Some(load) = self.loads.get_mut(usize::from(exchange.load))
            && let Some(count) = load.broken.get_mut(cause as usize)
        {
            *count += 1;
        }
        let machine = (exchange.machine != u32::MAX).then_some(exchange.machine);
        self.tell.broken(now, exchange.load, machine, cause);
        self.rest(exchange.load);
    }

    /// A user whose session has ended thinks, and comes back.
    #[inline(always)]
    fn rest(&mut self, number: u16) {
        let think = self.loads.get_mut(usize::from(number)).and_then(Load::think);
        if let Some(think) = think {
            self.agenda.push(self.now.saturating_add(think), Wake::User(number));
        }
    }

    /// Why a request of a session has not reached its server: the forwarder with this number refused it, or
    /// another machine has no connection like it.
    #[cold]
    fn why(&self, exchange: &Exchange, number: u16, refused: Option<Refused>) -> Cause {
        let machine = usize::try_from(exchange.machine).ok().and_then(|place| self.machines.get(place));
        let forwarder = self.forwarders.get(usize::from(number));
        let (Some(machine), Some(forwarder)) = (machine, forwarder) else {
            return refused.and_then(cause_of).unwrap_or(Cause::Refused);
        };
        if machine.is_down() || machine.epoch != exchange.machine_epoch {
            return Cause::ServerGone;
        }
        if let Some(cause) = refused.and_then(cause_of) {
            return cause;
        }
        if forwarder.is_removed(exchange.machine) {
            return Cause::ServerRemoved;
        }
        if number != exchange.forwarder {
            return Cause::ForwarderMoved;
        }
        if !forwarder.is_up || forwarder.epoch != exchange.forwarder_epoch {
            return Cause::ForwarderGone;
        }
        match (forwarder.connections(), exchange.memory) {
            (Connections::Lru { .. }, Memory::Listed) => Cause::Evicted,
            (Connections::Timed | Connections::Brief, Memory::Listed) => Cause::Expired,
            (_, Memory::Nothing | Memory::Unlisted) | (Connections::Stateless, Memory::Listed) => {
                Cause::TableMoved
            }
        }
    }

    /// Takes a decision into the hash of all.
    #[inline]
    fn note(&mut self, hash: u64, machine: u32) {
        self.decisions += 1;
        // The finaliser of SplitMix64 (Steele, Lea, Flood 2014) over the chain so far.
        let mut mixed = self.decision_hash ^ hash.rotate_left(32) ^ u64::from(machine);
        mixed = mixed.wrapping_add(self.decisions.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.decision_hash = mixed ^ (mixed >> 31);
    }
}

/// Why a session breaks that a forwarder refused, where that alone says it.
const fn cause_of(refused: Refused) -> Option<Cause> {
    match refused {
        Refused::NoFlow => None,
        Refused::ServerRemoved => Some(Cause::ServerRemoved),
        Refused::NoServer => Some(Cause::NoServer),
        Refused::TableFull => Some(Cause::TableFull),
        Refused::NoPort => Some(Cause::NoPort),
        Refused::NotPermitted => Some(Cause::Refused),
    }
}

/// Whether flows with a tuple of their own need no entry: nobody looks them up but their own end. So it is where nothing
/// ends them before, and no caller comes to a port for the second time.
fn may_be_private(setup: &Setup, is_calm: bool) -> bool {
    let is_kept = matches!(setup.connections, Connections::Timed | Connections::Brief);
    let mut used = vec![0_u64; setup.callers.len()];
    for load in &setup.loads {
        let count = u64::try_from(load.callers.len()).unwrap_or(u64::MAX);
        let sessions = match load.extent {
            Extent::Sessions(sessions) => {
                sessions.checked_div(count).map_or(0, |each| each.saturating_add(1))
            }
            Extent::Never | Extent::Until(_) => u64::MAX,
        };
        for (caller, _) in &load.callers {
            let place = usize::try_from(*caller).unwrap_or(usize::MAX);
            if let Some(used) = used.get_mut(place) {
                *used = used.saturating_add(sessions);
            }
        }
    }
    let ports = u64::from(u16::MAX - PORT_FIRST);
    is_kept && is_calm && used.into_iter().all(|used| used <= ports)
}

/// The routers: one for everything where the setup has none.
fn routers(setup: &Setup, forwarders: usize) -> Vec<Router> {
    let all = || (0..u16::try_from(forwarders).unwrap_or(u16::MAX)).collect();
    if setup.routers.is_empty() {
        return vec![Router::new(Steering::default(), setup.seed, all())];
    }
    let router = |router: &RouterSetup| Router::new(router.steering, setup.seed, router.forwarders.clone());
    setup.routers.iter().map(router).collect()
}

/// The port from which a machine that calls counts up: that of packet mode.
fn first_port(seed: u64, name: &str) -> u16 {
    let span = u64::from(u16::MAX - PORT_FIRST);
    PORT_FIRST + u16::try_from(Stream::new(seed, name, "numbers").below(span)).unwrap_or(0)
}

fn number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
