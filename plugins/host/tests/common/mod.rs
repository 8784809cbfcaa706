//! A director with a guest, as the engine drives it.

#![allow(dead_code, reason = "benches use a part")]
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "tests"
)]

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex};

use evenkeel_engine::director::{
    Fault, FlowEvent, GuestStats, NewFlow, Scheduler, Selection, ServerId, ServerLoad, ServerView,
};
use evenkeel_engine::plan::{
    Binding, Builtin, DirectorPlan, GuestPlan, InterfacePlan, Layer, OnFault, PolicyGuestPlan, PolicyPlan,
    SchedulerPlan,
};
use evenkeel_engine::policy::{Policy, PolicyAnswer, PolicyFlow, PolicyVerdict};
use evenkeel_engine::wire::{Address, FiveTuple, HashKey, Protocol};
use evenkeel_engine::{Duration, Guests, Instant, InterfaceId, Plan};
use evenkeel_plugin_host::{Host, LoadError, Mode, Settings};

pub const MODES: [Mode; 2] = [Mode::Fuel, Mode::Epoch];

pub fn settings(mode: Mode) -> Settings {
    Settings { mode, base_dir: PathBuf::from("."), bundled: evenkeel_plugins_bundled::component }
}

pub fn guest(component: &str, options: &str) -> GuestPlan {
    GuestPlan {
        component: component.to_owned(),
        options: options.to_owned(),
        // Long enough for a machine that has other things to do.
        call_budget: Duration::from_millis(100),
        memory_limit_bytes: 16 << 20,
        fallback: Builtin::RoundRobin,
    }
}

pub fn director(name: &str, scheduler: GuestPlan) -> DirectorPlan {
    let bind = Binding::of(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 3)), 80, Protocol::TCP);
    let plan = DirectorPlan::new(name, bind, Builtin::RoundRobin, Vec::new());
    DirectorPlan { scheduler: SchedulerPlan::Guest(scheduler), ..plan }
}

pub fn plan_of(scheduler: GuestPlan) -> Plan {
    Plan { directors: vec![director("web", scheduler)], seed: 7, ..Plan::empty() }
}

pub fn policy_plan(guest: GuestPlan, on_fault: OnFault) -> Plan {
    let interfaces = vec![InterfacePlan::new("tun0", Layer::Ip)];
    let policy = PolicyGuestPlan { on_fault, ..PolicyGuestPlan::new("guard", guest) };
    let policies = vec![PolicyPlan::Guest(policy)];
    let directors = vec![director("web", self::guest("bundled:round-robin", ""))];
    Plan { directors, interfaces, policies, seed: 7, ..Plan::empty() }
}

/// One host for each mode and process: it keeps what it compiled.
static HOSTS: LazyLock<[Mutex<Host>; 2]> =
    LazyLock::new(|| MODES.map(|mode| Mutex::new(Host::new(settings(mode)))));

pub fn load_plan(plan: &Plan, mode: Mode) -> Result<Guests, Vec<LoadError>> {
    let mut host = HOSTS[usize::from(mode == MODES[1])].lock().unwrap();
    host.load(plan, 0)
}

pub fn at(milliseconds: u64) -> Instant {
    Instant::ZERO.after(Duration::from_millis(milliseconds))
}

pub fn servers(weights: &[u32]) -> Vec<ServerView> {
    let server = |(number, weight): (usize, &u32)| ServerView {
        id: ServerId((number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        address: IpAddr::V4(Ipv4Addr::new(10, 0, 3, number as u8 + 1)),
        port: 80,
        weight: *weight,
        is_up: true,
        is_full: false,
    };
    weights.iter().enumerate().map(server).collect()
}

pub fn tuple(number: u32) -> FiveTuple {
    FiveTuple {
        source: Address::from(Ipv4Addr::from_bits(0xc612_0001 + number)),
        destination: Address::v4([10, 0, 0, 3]),
        source_port: 40_000,
        destination_port: 80,
        protocol: Protocol::TCP,
    }
}

pub fn flows(first: u32, count: u32) -> Vec<NewFlow> {
    let flow = |number| NewFlow { hash: tuple(number).hash(HashKey([1, 2])), tuple: tuple(number) };
    (first..first + count).map(flow).collect()
}

/// One director at work.
#[derive(Debug)]
pub struct Director {
    pub scheduler: Box<dyn Scheduler>,
    pub servers: Vec<ServerView>,
    pub loads: Vec<ServerLoad>,
    pub next_flow: u32,
    pub now: Instant,
}

impl Director {
    pub fn new(component: &str, options: &str, mode: Mode, weights: &[u32]) -> Self {
        Self::with(guest(component, options), mode, weights)
    }

    pub fn with(guest: GuestPlan, mode: Mode, weights: &[u32]) -> Self {
        let mut guests = load_plan(&plan_of(guest), mode).unwrap();
        let scheduler = guests.schedulers.remove("web").unwrap();
        let servers = servers(weights);
        let loads = vec![ServerLoad::default(); servers.len()];
        let mut director = Self { scheduler, servers, loads, next_flow: 0, now: at(1_000) };
        director.update();
        director
    }

    pub fn update(&mut self) {
        self.scheduler.update(&self.servers, self.now);
    }

    pub fn pick(&mut self, count: u32) -> Vec<Option<u16>> {
        let flows = flows(self.next_flow, count);
        self.next_flow += count;
        let mut answers = vec![None; flows.len()];
        let mut selection = Selection::new(&flows, &self.servers, &mut self.loads, &mut answers);
        self.scheduler.pick(&mut selection, self.now);
        answers
    }

    pub fn shares(&mut self, count: u32, batch: u32) -> Vec<u32> {
        let mut shares = vec![0; self.servers.len()];
        for _ in 0..count / batch {
            for answer in self.pick(batch) {
                shares[usize::from(answer.unwrap())] += 1;
            }
        }
        shares
    }

    pub fn hear(&mut self, events: &[FlowEvent]) {
        self.scheduler.hear(events, self.now);
    }

    pub fn stats(&self) -> GuestStats {
        self.scheduler.stats()
    }

    pub fn fault(&mut self) -> Fault {
        self.scheduler.take_fault().unwrap()
    }

    pub fn wait(&mut self, milliseconds: u64) {
        self.now = self.now.after(Duration::from_millis(milliseconds));
    }
}

/// One policy at work.
#[derive(Debug)]
pub struct Guard {
    pub policy: Box<dyn Policy>,
    pub now: Instant,
}

impl Guard {
    pub fn new(component: &str, options: &str, mode: Mode, on_fault: OnFault) -> Self {
        Self::of(&policy_plan(guest(component, options), on_fault), mode)
    }

    pub fn of(plan: &Plan, mode: Mode) -> Self {
        let mut guests = load_plan(plan, mode).unwrap();
        Self { policy: guests.policies.remove("guard").unwrap(), now: at(1_000) }
    }

    pub fn decide(&mut self, sources: &[u32]) -> Vec<PolicyVerdict> {
        let flow = |source: &u32| {
            let tuple = tuple(*source);
            PolicyFlow::new(tuple.hash(HashKey([1, 2])), tuple, InterfaceId(0))
        };
        let flows: Vec<PolicyFlow> = sources.iter().map(flow).collect();
        self.answer(&flows).into_iter().map(|answer| answer.verdict).collect()
    }

    pub fn answer(&mut self, flows: &[PolicyFlow]) -> Vec<PolicyAnswer> {
        let mut answers = vec![PolicyAnswer::SKIP; flows.len()];
        self.policy.decide(flows, &mut answers, self.now);
        answers
    }
}
