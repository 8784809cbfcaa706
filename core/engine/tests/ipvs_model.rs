//! The schedulers of IPVS against a slow model of the kernel's: a list of destinations, newest first, one operation at a
//! time. Flows come and go, close, servers come, go, change their weight and fill up; every decision must be the same.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

use std::net::IpAddr;

use evenkeel_engine::director::{Director, NewFlow, native};
use evenkeel_engine::flow::{Departed, FlowEntry, FlowState};
use evenkeel_engine::plan::{
    Binding, Builtin, DirectorPlan, FlowKey, Options, SchedulerPlan, ServerPlan, Tuned,
};
use evenkeel_engine::wire::{Address, FiveTuple, Protocol};
use evenkeel_engine::{Duration, Instant};
use proptest::prelude::*;
use siphasher::sip::SipHasher13;

/// A destination of the model.
#[derive(Clone, Debug)]
struct Dest {
    number: u8,
    weight: i64,
    last_weight: i64,
    active: i64,
    inactive: i64,
    upper: i64,
    lower: i64,
    is_overloaded: bool,
}

impl Dest {
    fn overhead(&self) -> i64 {
        256 * self.active + self.active + self.inactive
    }
    fn total(&self) -> i64 {
        self.active + self.inactive
    }
    fn takes(&self) -> bool {
        self.weight > 0 && !self.is_overloaded
    }
    fn bind(&mut self) {
        if self.upper != 0 && self.total() >= self.upper {
            self.is_overloaded = true;
        }
    }
    fn unbind(&mut self) {
        let is_below = match (self.lower, self.upper) {
            (0, 0) => true,
            (0, upper) => self.total() * 4 < upper * 3,
            (lower, _) => self.total() < lower,
        };
        if is_below {
            self.is_overloaded = false;
        }
    }
}

/// What a scheduler of the model remembers; each uses its part.
#[derive(Clone, Debug, Default)]
struct Memory {
    /// `rr`, `wrr`: the last one taken; none is the head of the list.
    cursor: Option<u8>,
    cw: i64,
    mw: i64,
    di: i64,
    /// `lblc`, `lblcr`: destination address, set (newest first), last use, last change.
    cache: Vec<(u8, Vec<u8>, u64, u64)>,
    sweeps: u64,
    counter: u64,
}

/// A service of the kernel.
#[derive(Clone, Debug)]
struct Service {
    kind: Builtin,
    options: Options,
    dests: Vec<Dest>,
    /// Those that were taken out while they had flows.
    trash: Vec<Dest>,
    memory: Memory,
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn fold(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            (bits >> 96) as u32 ^ (bits >> 64) as u32 ^ (bits >> 32) as u32 ^ bits as u32
        }
    }
}

fn address(number: u8) -> IpAddr {
    IpAddr::from([192, 168, 100, number])
}

fn hsiphash(value: u32, key: u64) -> u32 {
    SipHasher13::new_with_keys(key, key).hash(&value.to_le_bytes()) as u32
}

impl Service {
    fn changed(&mut self) {
        if self.kind == Builtin::WeightedRoundRobin {
            let memory = &mut self.memory;
            memory.cursor = None;
            memory.di = self
                .dests
                .iter()
                .filter(|dest| dest.weight > 0)
                .fold(0, |all, dest| gcd(all, dest.weight))
                .max(1);
            memory.mw = self.dests.iter().map(|dest| dest.weight).max().unwrap_or(0) - (memory.di - 1);
            memory.mw = memory.mw.max(0);
            if memory.cw > memory.mw || memory.cw == 0 {
                memory.cw = memory.mw;
            } else if memory.di > 1 {
                memory.cw = memory.cw / memory.di * memory.di + 1;
            }
        }
    }

    fn add(&mut self, number: u8, weight: i64, upper: i64, lower: i64) {
        let old = self.trash.iter().position(|dest| dest.number == number).map(|at| self.trash.remove(at));
        let fresh = Dest {
            number,
            weight,
            last_weight: weight,
            active: 0,
            inactive: 0,
            upper,
            lower,
            is_overloaded: false,
        };
        let mut dest = old.unwrap_or(fresh);
        (dest.weight, dest.last_weight) = (weight, weight);
        self.dests.insert(0, dest);
        self.changed();
    }

    fn remove(&mut self, number: u8) {
        let at = self.dests.iter().position(|dest| dest.number == number).unwrap();
        if self.kind == Builtin::RoundRobin && self.memory.cursor == Some(number) {
            self.memory.cursor = at.checked_sub(1).map(|before| self.dests[before].number);
        }
        let dest = self.dests.remove(at);
        if dest.total() > 0 {
            self.trash.push(dest);
        }
        self.changed();
    }

    fn set_weight(&mut self, number: u8, weight: i64) {
        let dest = self.dests.iter_mut().find(|dest| dest.number == number).unwrap();
        if dest.weight == weight {
            return;
        }
        dest.weight = weight;
        if weight != 0 {
            dest.last_weight = weight;
        }
        self.changed();
    }

    /// The first destination with the least cost for its weight, among those in this order.
    fn least(&self, order: &[usize], cost: fn(&Dest) -> i64) -> Option<usize> {
        let first = order.iter().position(|at| self.dests[*at].takes())?;
        let mut least = order[first];
        for at in &order[first + 1..] {
            let (dest, best) = (&self.dests[*at], &self.dests[least]);
            if !dest.is_overloaded && cost(best) * dest.weight > cost(dest) * best.weight {
                least = *at;
            }
        }
        Some(least)
    }

    fn heaviest(&self, takes: fn(&Dest) -> bool) -> Option<usize> {
        let mut best: Option<usize> = None;
        for (at, dest) in self.dests.iter().enumerate() {
            if dest.takes() && takes(dest) && best.is_none_or(|best| dest.weight > self.dests[best].weight) {
                best = Some(at);
            }
        }
        best
    }

    fn round_robin(&mut self) -> Option<usize> {
        let count = self.dests.len();
        let cursor =
            self.memory.cursor.and_then(|number| self.dests.iter().position(|dest| dest.number == number));
        let first = cursor.map_or(0, |at| at + 1);
        let found = (0..count).map(|step| (first + step) % count).find(|at| self.dests[*at].takes())?;
        self.memory.cursor = Some(self.dests[found].number);
        Some(found)
    }

    /// Every step of the kernel's loop, threshold by threshold.
    fn weighted_round_robin(&mut self) -> Option<usize> {
        if self.memory.mw == 0 {
            return None;
        }
        let position = |dests: &[Dest], number| dests.iter().position(|dest| dest.number == number);
        let last = self.memory.cursor.and_then(|number| position(&self.dests, number));
        let mut at = last.map_or(0, |at| at + 1);
        let (mut stop, mut is_last_pass, mut restarted) = (None, false, false);
        loop {
            while at < self.dests.len() {
                if !self.dests[at].is_overloaded && self.dests[at].weight >= self.memory.cw {
                    self.memory.cursor = Some(self.dests[at].number);
                    return Some(at);
                }
                if Some(at) == stop {
                    return None;
                }
                at += 1;
            }
            at = 0;
            self.memory.cw -= self.memory.di;
            if self.memory.cw <= 0 {
                self.memory.cw = self.memory.mw;
                if is_last_pass || last.is_none() {
                    return None;
                }
                restarted = true;
            }
            is_last_pass = self.memory.cw <= self.memory.di;
            if is_last_pass && restarted {
                stop = last;
            }
        }
    }

    fn source_hashing(&self, client: (IpAddr, u16)) -> Option<usize> {
        let mut slots = Vec::new();
        while slots.len() < 256 {
            for (at, dest) in self.dests.iter().enumerate() {
                slots.extend(std::iter::repeat_n(at, dest.weight.max(1) as usize));
            }
        }
        let port = if self.options.key == Some(FlowKey::SourcePort) { u32::from(client.1) } else { 0 };
        let hash = |offset: usize| {
            (offset + (fold(client.0).wrapping_add(port).wrapping_mul(0x61C8_8647) >> 24) as usize) & 255
        };
        let first = hash(0);
        if self.dests[slots[first]].takes() {
            return Some(slots[first]);
        }
        let is_fallback = self.options.fallback == Some(true);
        let mut others = (0..256).map(|offset| slots[hash((offset + first) % 256)]).filter(|_| is_fallback);
        others.find(|at| self.dests[*at].takes())
    }

    fn maglev_hashing(&self, client: (IpAddr, u16)) -> Option<usize> {
        let size = self.options.table_size.unwrap_or(4093);
        let unit = self.dests.iter().fold(0, |all, dest| gcd(all, dest.last_weight)).max(1);
        let most = self.dests.iter().map(|dest| dest.last_weight / unit).max().unwrap_or(0);
        let bits = (64 - (most as u64).leading_zeros()) as i64;
        let shift = (bits - 6).max(0);
        let mut table = vec![None; size as usize];
        let hash = |value: u32, which: usize| hsiphash(value, [2_654_435_761, 2_654_446_892][which]);
        let mut members: Vec<(usize, u32, u32, i64)> = Vec::new();
        for (at, dest) in self.dests.iter().enumerate() {
            let value = fold(address(dest.number)).wrapping_add(80);
            let turns = (dest.last_weight / unit) >> shift;
            let turns = if turns == 0 && dest.last_weight != 0 { 1 } else { turns };
            members.push((at, hash(value, 0) % size, hash(value, 1) % (size - 1) + 1, turns));
        }
        if members.iter().all(|(.., turns)| *turns == 0) {
            return None;
        }
        let mut filled = 0;
        'all: loop {
            for (at, next, skip, turns) in &mut members {
                for _ in 0..*turns {
                    while table[*next as usize].is_some() {
                        *next = (*next + *skip) % size;
                    }
                    table[*next as usize] = Some(*at);
                    filled += 1;
                    if filled == size {
                        break 'all;
                    }
                }
            }
        }
        let port = if self.options.key == Some(FlowKey::SourcePort) { u32::from(client.1) } else { 0 };
        let slot = |offset: u32| hash(offset.wrapping_add(port).wrapping_add(fold(client.0)), 0) % size;
        let first = slot(0);
        let found = table[first as usize].unwrap();
        if self.dests[found].takes() {
            return Some(found);
        }
        let is_fallback = self.options.fallback == Some(true);
        let mut others = (0..size).map(|offset| table[slot((offset + first) % size) as usize].unwrap());
        others.find(|at| self.dests[*at].takes()).filter(|_| is_fallback)
    }

    fn is_crowded(&self, at: usize) -> bool {
        self.dests[at].active > self.dests[at].weight
            && self.dests.iter().any(|dest| dest.active * 2 < dest.weight)
    }

    /// The sweeps that are due: one each minute, every 30th over everything.
    fn sweep(&mut self, now: u64) {
        let started = 0;
        let expiration = self.options.expiration.unwrap().as_secs();
        while started + (self.memory.sweeps + 1) * 60 <= now {
            self.memory.sweeps += 1;
            let due = started + self.memory.sweeps * 60;
            if self.memory.counter.is_multiple_of(30) {
                self.memory.cache.retain(|(_, _, used, _)| due - used < expiration);
                self.memory.counter = 1;
            } else {
                self.memory.counter += 1;
            }
        }
    }

    fn locality(&mut self, destination: u8, now: u64, is_set: bool) -> Option<usize> {
        self.sweep(now);
        let all: Vec<usize> = (0..self.dests.len()).collect();
        let place = |service: &Self, number: u8| service.dests.iter().position(|dest| dest.number == number);
        let entry = self.memory.cache.iter().position(|(known, ..)| *known == destination);
        if let Some(entry) = entry {
            self.memory.cache[entry].2 = now;
            let (_, set, _, changed) = self.memory.cache[entry].clone();
            if !is_set {
                let found = place(self, set[0]);
                if let Some(at) = found.filter(|at| self.dests[*at].weight > 0 && !self.is_crowded(*at)) {
                    return Some(at);
                }
                let at = self.least(&all, Dest::overhead)?;
                self.memory.cache[entry].1 = vec![self.dests[at].number];
                return Some(at);
            }
            let order: Vec<usize> = set.iter().filter_map(|number| place(self, *number)).collect();
            let chosen = self.least(&order, Dest::overhead);
            if set.len() > 1 && now > changed + self.options.expiration.unwrap().as_secs() {
                let mut most: Option<usize> = None;
                for at in order.iter().filter(|at| self.dests[**at].weight > 0) {
                    let (dest, best) = (&self.dests[*at], most.map(|most| &self.dests[most]));
                    if best.is_none_or(|best| best.overhead() * dest.weight < dest.overhead() * best.weight) {
                        most = Some(*at);
                    }
                }
                if let Some(most) = most {
                    let number = self.dests[most].number;
                    self.memory.cache[entry].1.retain(|other| *other != number);
                    self.memory.cache[entry].3 = now;
                }
            }
            if let Some(at) = chosen.filter(|at| !self.is_crowded(*at)) {
                return Some(at);
            }
            let at = self.least(&all, Dest::overhead)?;
            let number = self.dests[at].number;
            if !self.memory.cache[entry].1.contains(&number) {
                self.memory.cache[entry].1.insert(0, number);
                self.memory.cache[entry].3 = now;
            }
            return Some(at);
        }
        let at = self.least(&all, Dest::overhead)?;
        self.memory.cache.push((destination, vec![self.dests[at].number], now, now));
        Some(at)
    }

    fn schedule(&mut self, client: (IpAddr, u16), destination: u8, now: u64) -> Option<usize> {
        // The kernel asks its scheduler all the same, which notes that the address is still called.
        let is_noted = matches!(self.kind, Builtin::Locality | Builtin::LocalityReplicated);
        if self.dests.is_empty() && !is_noted {
            return None;
        }
        let all: Vec<usize> = (0..self.dests.len()).collect();
        match self.kind {
            Builtin::RoundRobin => self.round_robin(),
            Builtin::WeightedRoundRobin => self.weighted_round_robin(),
            Builtin::LeastConnections => {
                let takes = |at: &usize| self.dests[*at].takes();
                all.into_iter().filter(takes).min_by_key(|at| self.dests[*at].overhead())
            }
            Builtin::WeightedLeastConnections => self.least(&all, Dest::overhead),
            Builtin::ShortestExpectedDelay => self.least(&all, |dest| dest.active + 1),
            Builtin::NeverQueue => {
                let idle = self.dests.iter().position(|dest| dest.takes() && dest.active == 0);
                idle.or_else(|| self.least(&all, |dest| dest.active + 1))
            }
            Builtin::Failover => self.heaviest(|_| true),
            Builtin::Overflow => self.heaviest(|dest| dest.active <= dest.weight),
            Builtin::DestinationHashing => {
                let hash = fold(service_address(destination)).wrapping_mul(0x61C8_8647) >> 24;
                Some(hash as usize % self.dests.len()).filter(|at| self.dests[*at].takes())
            }
            Builtin::SourceHashing => self.source_hashing(client),
            Builtin::MaglevHashing => self.maglev_hashing(client),
            Builtin::Locality => self.locality(destination, now, false),
            Builtin::LocalityReplicated => self.locality(destination, now, true),
            other => panic!("{other:?}"),
        }
    }

    fn dest_mut(&mut self, number: u8) -> &mut Dest {
        self.dests.iter_mut().chain(&mut self.trash).find(|dest| dest.number == number).unwrap()
    }

    /// A flow begins: to whom.
    fn open(&mut self, client: (IpAddr, u16), destination: u8, is_tcp: bool, now: u64) -> Option<u8> {
        let at = self.schedule(client, destination, now)?;
        let dest = &mut self.dests[at];
        let count = if is_tcp { &mut dest.active } else { &mut dest.inactive };
        *count += 1;
        dest.bind();
        Some(dest.number)
    }

    fn close(&mut self, number: u8, is_active: bool) {
        let dest = self.dest_mut(number);
        let count = if is_active { &mut dest.active } else { &mut dest.inactive };
        *count -= 1;
        dest.unbind();
        if dest.total() == 0 {
            self.trash.retain(|dest| dest.number != number);
        }
    }
}

fn service_address(destination: u8) -> IpAddr {
    IpAddr::from([10, 9, destination, 9])
}

/// What happens.
#[derive(Clone, Debug)]
enum Op {
    Open {
        client: u16,
        destination: u8,
        is_tcp: bool,
    },
    /// The flow with this number among those that live, modulo.
    Close(usize),
    Fin(usize),
    Weight(usize, i64),
    Remove(usize),
    /// A server with this number, unless it is there.
    Add(u8, i64),
    Wait(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        12 => (0_u16..500, 0_u8..4, any::<bool>()).prop_map(|(client, destination, is_tcp)| Op::Open { client, destination, is_tcp }),
        4 => any::<usize>().prop_map(Op::Close),
        2 => any::<usize>().prop_map(Op::Fin),
        1 => (any::<usize>(), 0_i64..7).prop_map(|(at, weight)| Op::Weight(at, weight)),
        1 => any::<usize>().prop_map(Op::Remove),
        1 => (1_u8..12, 0_i64..7).prop_map(|(number, weight)| Op::Add(number, weight)),
        1 => (1_u64..4000).prop_map(Op::Wait),
    ];
    proptest::collection::vec(op, 1..160)
}

/// Both at work: the model and the engine's director.
struct Pair {
    service: Service,
    plan: DirectorPlan,
    director: Director,
    seconds: u64,
    /// Server, its place in the director, whether active.
    flows: Vec<(u8, u16, bool)>,
}

impl Pair {
    fn new(kind: Builtin, options: Options, servers: &[(u8, i64, i64, i64)]) -> Self {
        let bind = Binding::of(service_address(0), 80, Protocol::TCP);
        let plans = servers.iter().map(|(number, weight, upper, lower)| ServerPlan {
            flows_upper: *upper as u32,
            flows_lower: *lower as u32,
            ..ServerPlan::new(&number.to_string(), address(*number), 80, *weight as u32)
        });
        let mut plan = DirectorPlan::new("web", bind, kind, plans.collect());
        let tuned = Tuned { kind, options };
        plan.scheduler = SchedulerPlan::Tuned(tuned);
        let director = Director::new(&plan, native(&tuned, 1), Instant::ZERO);
        let memory = Memory { counter: 1, ..Memory::default() };
        let mut service = Service { kind, options, dests: Vec::new(), trash: Vec::new(), memory };
        for (number, weight, upper, lower) in servers {
            service.add(*number, *weight, *upper, *lower);
        }
        Self { service, plan, director, seconds: 0, flows: Vec::new() }
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(self.seconds * 1_000_000_000)
    }

    fn change(&mut self) {
        let now = self.now();
        self.director.change(&self.plan, None, now);
    }

    fn open(&mut self, client: u16, destination: u8, is_tcp: bool) -> (Option<u8>, Option<u8>) {
        let source = IpAddr::from([172, 16, (client >> 8) as u8, client as u8]);
        let wanted = self.service.open((source, 20_000 + client % 7), destination, is_tcp, self.seconds);
        let protocol = if is_tcp { Protocol::TCP } else { Protocol::UDP };
        let tuple = FiveTuple {
            source: source.into(),
            destination: Address::from(service_address(destination)),
            source_port: 20_000 + client % 7,
            destination_port: 80,
            protocol,
        };
        let now = self.now();
        let mut answer = [None];
        self.director.pick(&[NewFlow { hash: 7, tuple }], &mut answer, now);
        let slot = answer[0].map(|view| self.director.open(view, 7, protocol, now).unwrap());
        let ours = slot.map(|slot| self.director.server(slot).unwrap().name.parse().unwrap());
        if let (Some(number), Some(slot)) = (ours, slot) {
            self.flows.push((number, slot, is_tcp));
        }
        (wanted, ours)
    }

    fn close(&mut self, at: usize) {
        let (number, slot, is_active) = self.flows.remove(at);
        self.service.close(number, is_active);
        let state = if is_active { FlowState::Established } else { FlowState::Udp };
        let entry = FlowEntry { server_slot: slot, ..FlowEntry::new(state, 1) };
        let now = self.now();
        self.director.close(&Departed { entry, birth: None }, 7, now);
    }

    fn fin(&mut self, at: usize) {
        let (number, slot, is_active) = &mut self.flows[at];
        if *is_active {
            *is_active = false;
            let dest = self.service.dest_mut(*number);
            dest.active -= 1;
            dest.inactive += 1;
            self.director.change_state(*slot, FlowState::Established, FlowState::FinClient);
        }
    }

    fn take(&mut self, op: &Op) -> Result<(), TestCaseError> {
        let servers = self.plan.servers.len();
        match op {
            Op::Open { client, destination, is_tcp } => {
                let (wanted, ours) = self.open(*client, *destination, *is_tcp);
                prop_assert_eq!(wanted, ours, "{:?}: {:?}", self.service.kind, self.service);
            }
            Op::Close(at) if !self.flows.is_empty() => self.close(at % self.flows.len()),
            Op::Fin(at) if !self.flows.is_empty() => self.fin(at % self.flows.len()),
            Op::Weight(at, weight) if servers > 0 => {
                let server = &mut self.plan.servers[at % servers];
                server.weight = *weight as u32;
                self.service.set_weight(server.name.parse().unwrap(), *weight);
                self.change();
            }
            Op::Remove(at) if servers > 0 => {
                let server = self.plan.servers.remove(at % servers);
                self.service.remove(server.name.parse().unwrap());
                self.change();
            }
            Op::Add(number, weight) => {
                let name = number.to_string();
                if self.plan.servers.iter().all(|server| server.name != name) {
                    let (upper, lower) = bounds(*number);
                    self.plan.servers.push(ServerPlan {
                        flows_upper: upper as u32,
                        flows_lower: lower as u32,
                        ..ServerPlan::new(&name, address(*number), 80, *weight as u32)
                    });
                    self.service.add(*number, *weight, upper, lower);
                    self.change();
                }
            }
            Op::Wait(seconds) => self.seconds += seconds,
            Op::Close(_) | Op::Fin(_) | Op::Weight(..) | Op::Remove(_) => {}
        }
        Ok(())
    }
}

/// Every third server has bounds on its flows, always the same ones.
fn bounds(number: u8) -> (i64, i64) {
    match number % 6 {
        0 => (3, 0),
        3 => (4, 2),
        _ => (0, 0),
    }
}

/// The schedulers of IPVS with every combination of their flags.
fn all() -> Vec<(Builtin, Options)> {
    let mut all: Vec<(Builtin, Options)> = [
        Builtin::RoundRobin,
        Builtin::WeightedRoundRobin,
        Builtin::LeastConnections,
        Builtin::WeightedLeastConnections,
        Builtin::ShortestExpectedDelay,
        Builtin::NeverQueue,
        Builtin::Failover,
        Builtin::Overflow,
        Builtin::DestinationHashing,
    ]
    .map(|kind| (kind, Options::default()))
    .to_vec();
    for kind in [Builtin::SourceHashing, Builtin::MaglevHashing] {
        for fallback in [false, true] {
            for key in [None, Some(FlowKey::SourcePort)] {
                let table_size = (kind == Builtin::MaglevHashing).then_some(251);
                all.push((kind, Options { fallback: Some(fallback), key, table_size, ..Options::default() }));
            }
        }
    }
    for kind in [Builtin::Locality, Builtin::LocalityReplicated] {
        all.push((kind, Options { expiration: Some(Duration::from_secs(600)), ..Options::default() }));
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn every_decision_is_the_kernels(ops in ops(), weights in proptest::collection::vec(0_i64..7, 0..8)) {
        for (kind, options) in all() {
            let servers = (1..).zip(&weights).map(|(number, weight)| {
                let (upper, lower) = bounds(number);
                (number, *weight, upper, lower)
            });
            let mut pair = Pair::new(kind, options, &servers.collect::<Vec<_>>());
            for op in &ops {
                pair.take(op)?;
            }
        }
    }

    #[test]
    fn large_weights_are_the_kernels_too(weights in proptest::collection::vec(prop_oneof![0_i64..4, 0_i64..=65_535], 1..6), flows in 1_usize..60) {
        for (kind, options) in all() {
            let servers = (1..).zip(&weights).map(|(number, weight)| (number, *weight, 0, 0));
            let mut pair = Pair::new(kind, options, &servers.collect::<Vec<_>>());
            for client in 0..flows {
                pair.take(&Op::Open { client: client as u16, destination: 0, is_tcp: client % 3 > 0 })?;
            }
        }
    }
}
