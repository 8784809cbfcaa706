//! Components against the built-in schedulers of the same name: the same questions, decision for decision, and either
//! takes over from the other in the middle.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use crate::common;
use evenkeel_engine::director::builtin::seed_of;
use evenkeel_engine::director::{
    FlowAnswered, FlowClosed, FlowEnd, FlowEvent, FlowOpened, NewFlow, ProbeAnswer, Scheduler, Selection,
    ServerLoad, ServerView, native,
};
use evenkeel_engine::plan::{Builtin, Options, ProbeSource, Tuned};
use evenkeel_engine::wire::Protocol;
use evenkeel_engine::{Duration, Instant};
use evenkeel_plugin_host::Mode;
use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

/// Scripts for each twin, and steps of each script.
const SCRIPTS: u64 = 6;
const STEPS: usize = 250;

/// A component with its options, and the built-in scheduler that it is the twin of.
struct Twins {
    component: &'static str,
    options: &'static str,
    native: Tuned,
}

impl Twins {
    fn guest(&self) -> Box<dyn Scheduler> {
        let plan = common::plan_of(common::guest(self.component, self.options));
        common::load_plan(&plan, Mode::Fuel).unwrap().schedulers.remove("web").unwrap()
    }

    fn native(&self) -> Box<dyn Scheduler> {
        native(&self.native, seed_of(common::plan_of(common::guest(self.component, "")).seed, "web"))
    }
}

fn twins() -> Vec<Twins> {
    let plain = |component, kind| Twins { component, options: "", native: Tuned::from(kind) };
    let tuned = |component, options, kind, settings| Twins {
        component,
        options,
        native: Tuned { kind, options: settings },
    };
    vec![
        plain("bundled:rr", Builtin::RoundRobin),
        plain("bundled:wlc", Builtin::WeightedLeastConnections),
        plain("bundled:maglev", Builtin::Maglev),
        plain("bundled:rendezvous", Builtin::Rendezvous),
        tuned("bundled:rendezvous", "weighted = true", Builtin::WeightedRendezvous, Options::default()),
        plain("bundled:p2c", Builtin::PowerOfChoices),
        tuned(
            "bundled:p2c",
            "choices = 5",
            Builtin::PowerOfChoices,
            Options { choices: Some(5), ..Options::default() },
        ),
        plain("bundled:peak-ewma", Builtin::PeakEwma),
        tuned(
            "bundled:peak-ewma",
            "decay = \"50ms\"\nchoices = 3",
            Builtin::PeakEwma,
            Options { decay: Some(Duration::from_millis(50)), choices: Some(3), ..Options::default() },
        ),
        plain("bundled:prequal", Builtin::Prequal),
        tuned(
            "bundled:prequal",
            "probe_source = \"servers\"\nprobe_rate = 150\npool = 8\nprobe_age = \"300ms\"\nhot_quantile = 50",
            Builtin::Prequal,
            Options {
                probe_source: Some(ProbeSource::Servers),
                probe_rate: Some(150),
                pool: Some(8),
                probe_age: Some(Duration::from_millis(300)),
                hot_quantile: Some(50),
                ..Options::default()
            },
        ),
    ]
}

/// The twins at work, with one world around both.
struct Pair<'a> {
    twins: &'a Twins,
    random: SplitMix64,
    sides: [Box<dyn Scheduler>; 2],
    servers: Vec<ServerView>,
    loads: Vec<ServerLoad>,
    /// Open flows: hash, identity of the server, protocol.
    open: Vec<(u64, u64, Protocol)>,
    next_flow: u32,
    now: Instant,
    decisions: usize,
}

impl<'a> Pair<'a> {
    fn new(twins: &'a Twins, seed: u64) -> Self {
        let servers = common::servers(&[1; 5]);
        let loads = vec![ServerLoad::default(); servers.len()];
        let sides = [twins.native(), twins.guest()];
        let (open, now) = (Vec::new(), common::at(1_000));
        let random = SplitMix64::seed_from_u64(seed);
        let mut pair = Self { twins, random, sides, servers, loads, open, next_flow: 0, now, decisions: 0 };
        pair.update();
        pair
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.random.next_u64() % bound.max(1) as u64) as usize
    }

    fn update(&mut self) {
        self.sides.iter_mut().for_each(|side| side.update(&self.servers, self.now));
    }

    /// Both are asked about a batch, and answer alike.
    fn pick(&mut self) {
        let count = 1 + self.below(40) as u32;
        let protocol = if self.below(4) == 0 { Protocol::UDP } else { Protocol::TCP };
        let mut flows: Vec<NewFlow> = common::flows(self.next_flow, count);
        flows.iter_mut().for_each(|flow| flow.tuple.protocol = protocol);
        self.next_flow += count;
        let now = self.now;
        let answers = [0, 1].map(|side| {
            let (mut loads, mut answers) = (self.loads.clone(), vec![None; flows.len()]);
            let mut selection = Selection::new(&flows, &self.servers, &mut loads, &mut answers);
            self.sides[side].pick(&mut selection, now);
            (answers, loads)
        });
        let component = self.twins.component;
        assert_eq!(answers[0], answers[1], "{component} after {} decisions", self.decisions);
        self.decisions += flows.len();
        let [(answers, loads), _] = answers;
        self.loads = loads;
        let mut events = Vec::new();
        for (flow, answer) in flows.iter().zip(answers) {
            let Some(server) = answer else { continue };
            self.open.push((flow.hash, self.servers[usize::from(server)].id.0, flow.tuple.protocol));
            events.push(FlowEvent::Opened(FlowOpened { hash: flow.hash, server }));
        }
        self.hear(&events);
        self.carry_probes();
    }

    /// Both are told of what they wish to hear of.
    fn hear(&mut self, events: &[FlowEvent]) {
        for side in &mut self.sides {
            let wishes = side.wishes();
            let wished = |event: &&FlowEvent| match event {
                FlowEvent::Opened(_) => wishes.opened,
                FlowEvent::Answered(_) => wishes.answered,
                FlowEvent::Closed(_) => wishes.closed,
            };
            let events: Vec<FlowEvent> = events.iter().filter(wished).copied().collect();
            if !events.is_empty() {
                side.hear(&events, self.now);
            }
        }
    }

    fn carry_probes(&mut self) {
        loop {
            let now = self.now;
            let [native, guest] = self.sides.each_mut().map(|side| side.poll_probe(now));
            assert_eq!(native, guest, "{}", self.twins.component);
            let Some(server) = native else { return };
            let latency = Duration::from_micros(200 + self.below(5_000) as u64);
            let answer = ProbeAnswer { server, in_flight: self.below(12) as u32, latency };
            if self.below(5) > 0 {
                self.sides.iter_mut().for_each(|side| side.probe_answered(answer, now));
            }
        }
    }

    /// Some flow is answered, or ends.
    fn go_on(&mut self, is_end: bool) {
        if self.open.is_empty() {
            return;
        }
        let number = self.below(self.open.len());
        let (hash, id, protocol) = self.open[number];
        let Some(place) = self.servers.iter().position(|server| server.id.0 == id) else {
            self.open.swap_remove(number);
            return;
        };
        let after = Duration::from_micros(100 + self.below(90_000) as u64);
        let server = place as u16;
        let event = if is_end {
            self.open.swap_remove(number);
            let load = &mut self.loads[place];
            let counted = if protocol == Protocol::TCP { &mut load.active } else { &mut load.inactive };
            *counted -= 1;
            let ends = [FlowEnd::Finished, FlowEnd::Reset, FlowEnd::Idle, FlowEnd::Unanswered];
            let end = ends[self.below(4)];
            let packets_to = self.below(3) as u32;
            FlowEvent::Closed(FlowClosed { hash, server, end, packets_to, ..FlowClosed::default() })
        } else {
            FlowEvent::Answered(FlowAnswered { hash, server, after, is_through_client: false })
        };
        self.hear(&[event]);
    }

    /// Weights change, servers go down, come up, come, go, and change places.
    fn change(&mut self) {
        let number = self.below(self.servers.len());
        match self.below(6) {
            0 | 1 => {
                let weight = [0, 1, 1, 2, 3, 10, 100][self.below(7)];
                if let Some(server) = self.servers.get_mut(number) {
                    server.weight = weight;
                }
            }
            2 => {
                if let Some(server) = self.servers.get_mut(number) {
                    server.is_up = !server.is_up;
                }
            }
            3 if self.servers.len() < 12 => {
                let new = common::servers(&[1; 12]);
                let is_known = |id| self.servers.iter().any(|server| server.id == id);
                let new = new.into_iter().find(|server| !is_known(server.id)).unwrap();
                self.servers.insert(number, new);
                self.loads.insert(number, ServerLoad::default());
            }
            4 if self.servers.len() > 1 => {
                let gone = self.servers.remove(number);
                self.loads.remove(number);
                self.open.retain(|(_, id, _)| *id != gone.id.0);
            }
            5 if self.servers.len() > 1 => {
                self.servers.swap(0, number);
                self.loads.swap(0, number);
            }
            _ => {}
        }
        self.update();
    }

    /// Each takes over from the other.
    fn swap(&mut self) {
        let now = self.now;
        let states = self.sides.each_mut().map(|side| side.save(now));
        assert_eq!(states[0], states[1], "{}: one form, one state", self.twins.component);
        let Some(state) = &states[0] else { return };
        self.sides = [self.twins.native(), self.twins.guest()];
        for side in &mut self.sides {
            assert!(side.restore(state, now), "{}", self.twins.component);
            side.update(&self.servers, now);
        }
    }

    fn step(&mut self) {
        match self.below(20) {
            0..=6 => self.pick(),
            7..=10 => self.go_on(false),
            11..=14 => self.go_on(true),
            15 | 16 => self.change(),
            17 => self.swap(),
            _ => {
                let pause = Duration::from_micros(self.below(400_000) as u64);
                self.now = self.now.after(pause);
            }
        }
    }
}

fn agree(component: &str) {
    let mut tried = 0;
    for twins in twins().iter().filter(|twins| twins.component == component) {
        for seed in 0..SCRIPTS {
            let mut pair = Pair::new(twins, seed);
            (0..STEPS).for_each(|_| pair.step());
            assert!(pair.decisions > STEPS, "{component} decided {} flows", pair.decisions);
            let stats = pair.sides[1].stats();
            assert_eq!(stats.faults, 0, "{component}: {:?}", pair.sides[1].take_fault());
            tried += 1;
        }
    }
    assert!(tried > 0, "{component} has no twin");
}

#[test]
fn a_state_may_take_longer_than_a_decision() {
    let mut plan = common::guest("bundled:peak-ewma", "");
    plan.call_budget = Duration::from_micros(10);
    let loaded = common::load_plan(&common::plan_of(plan), Mode::Fuel);
    let mut guest = loaded.unwrap().schedulers.remove("web").unwrap();
    let twins = Twins { component: "bundled:peak-ewma", options: "", native: Builtin::PeakEwma.into() };
    let mut before = twins.native();
    let (servers, now) = (common::servers(&[1; 200]), common::at(1_000));
    before.update(&servers, now);
    let answered = |server: u16| {
        let after = Duration::from_micros(100 + u64::from(server));
        FlowEvent::Answered(FlowAnswered { hash: u64::from(server), server, after, is_through_client: false })
    };
    let events: Vec<FlowEvent> = (0..200).map(answered).collect();
    events.chunks(64).for_each(|events| before.hear(events, now));
    let state = before.save(now).unwrap();
    assert!(guest.restore(&state, now), "{:?}", guest.take_fault());
    guest.update(&servers, now);
    assert!(guest.save(now) == Some(state), "{:?}", guest.take_fault());
    assert_eq!(guest.stats().faults, 0);
}

#[test]
fn rr_decides_as_its_twin() {
    agree("bundled:rr");
}

#[test]
fn wlc_decides_as_its_twin() {
    agree("bundled:wlc");
}

#[test]
fn maglev_decides_as_its_twin() {
    agree("bundled:maglev");
}

#[test]
fn rendezvous_decides_as_its_twin() {
    agree("bundled:rendezvous");
}

#[test]
fn p2c_decides_as_its_twin() {
    agree("bundled:p2c");
}

#[test]
fn peak_ewma_decides_as_its_twin() {
    agree("bundled:peak-ewma");
}

#[test]
fn prequal_decides_as_its_twin() {
    agree("bundled:prequal");
}
