//! What the tests of flow mode share: forwarders from native schedulers, and runs of the usual shape.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "each test binary uses a part; a broken fixture ends the test"
)]

use std::net::{IpAddr, Ipv4Addr};

use evenkeel_engine::plan::{Binding, Builtin, DirectorPlan, Plan, SchedulerPlan, ServerPlan, Tuned};
use evenkeel_engine::wire::{HashKey, Protocol};
use evenkeel_engine::{Duration, Guests};
use evenkeel_sim::flow_mode::{Extent, ForwarderSetup, LoadSetup, MachineSetup, Outcome, Setup, run};
use evenkeel_sim::work::{Arrivals, Law, QueueSpec};

/// A millisecond in nanoseconds: the mean service time of most tests.
pub const MILLISECOND: u64 = 1_000_000;
pub const SECOND: u64 = 1_000_000_000;

pub const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

/// The address of a machine.
pub fn rip(number: usize) -> IpAddr {
    Ipv4Addr::from_bits(0x0a01_0000 + u32::try_from(number).unwrap()).into()
}

/// Machines of one kind.
pub fn machines(count: usize, queue: QueueSpec) -> Vec<MachineSetup> {
    let machine = |number| MachineSetup::new(&format!("s{number}"), rip(number), queue);
    (0..count).map(machine).collect()
}

/// A plan of one director for port 80 of the VIP, TCP and UDP, over so many real servers of weight 1.
pub fn plan(scheduler: impl Into<Tuned>, servers: usize) -> Plan {
    let server = |number| ServerPlan::new(&format!("s{number}"), rip(number), 80, 1);
    let servers: Vec<ServerPlan> = (0..servers).map(server).collect();
    let bind = Binding::of(VIP, 80, Protocol::TCP);
    let mut director = DirectorPlan::new("web", bind, Builtin::RoundRobin, servers);
    director.scheduler = SchedulerPlan::Tuned(scheduler.into());
    director.binds.push(Binding::of(VIP, 80, Protocol::UDP));
    Plan { directors: vec![director], hash_key: HashKey([3, 5]), ..Plan::empty() }
}

/// A forwarder that runs by a plan without components.
pub fn forwarder(name: &str, plan: Plan) -> ForwarderSetup {
    ForwarderSetup { name: name.to_owned(), plan, guests: Guests::default() }
}

/// A load of so many TCP requests to the VIP.
pub fn load(arrivals: Arrivals, work: Law, requests: u64) -> LoadSetup {
    LoadSetup { extent: Extent::Sessions(requests), ..LoadSetup::new("users", VIP, 80, arrivals, work) }
}

/// A run without an end, over machines of one kind, with brief connections.
pub fn setup(seed: u64, machines: Vec<MachineSetup>, load: LoadSetup) -> Setup {
    Setup {
        seed,
        duration: Duration::from_secs(1 << 30),
        machines,
        loads: vec![load],
        connections: evenkeel_sim::flow_mode::Connections::Brief,
        ..Setup::default()
    }
}

/// Runs with one forwarder.
pub fn run_with(setup: &Setup, plan: Plan) -> Outcome {
    run(setup, vec![forwarder("lb", plan)]).unwrap_or_else(|error| panic!("{error}"))
}
