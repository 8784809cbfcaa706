//! Flows that are counted instead of kept come to the same as flows with entries.

use std::net::Ipv4Addr;

use evenkeel_engine::Guests;
use evenkeel_engine::plan::{Binding, Builtin, DirectorPlan, Plan, ServerPlan};

use super::*;
use crate::flow_mode::setup::{LoadSetup, MachineSetup};
use crate::work::{Arrivals, Law, QueueSpec};

const MILLISECOND: u64 = 1_000_000;

/// Ten servers, two of them slow and with little room, under a scheduler that looks at loads.
fn setup(connections: Connections, callers: u32) -> Setup {
    let machine = |number: u8| {
        let backlog = if number < 2 { 3 } else { 1_000 };
        let queue = QueueSpec { backlog, ..QueueSpec::default() };
        MachineSetup::new(&format!("s{number}"), Ipv4Addr::new(10, 1, 0, number).into(), queue)
    };
    let work = Law::Exponential { mean: MILLISECOND };
    let vip = Ipv4Addr::new(10, 0, 0, 1).into();
    let mut load = LoadSetup::new("users", vip, 80, Arrivals::Poisson { per_second: 8_500.0 }, work);
    load.extent = Extent::Sessions(30_000);
    let address = |caller: u32| Ipv4Addr::from_bits(0xc612_0000 + caller).into();
    load.callers = (0..callers).map(|caller| (caller, address(caller))).collect();
    Setup {
        seed: 1,
        duration: Duration::from_secs(60),
        machines: (0..10).map(machine).collect(),
        callers: (0..callers).map(|caller| format!("client.{caller}")).collect(),
        loads: vec![load],
        connections,
        ..Setup::default()
    }
}

fn run_with(setup: &Setup, scheduler: Builtin, is_private: bool) -> Outcome {
    let server =
        |number: u8| ServerPlan::new(&format!("s{number}"), Ipv4Addr::new(10, 1, 0, number).into(), 80, 1);
    let bind = Binding::of(Ipv4Addr::new(10, 0, 0, 1).into(), 80, Protocol::TCP);
    let servers: Vec<ServerPlan> = (0..10).map(server).collect();
    let director = DirectorPlan::new("web", bind, scheduler, servers);
    let mut plan = Plan { directors: vec![director], hash_key: HashKey([3, 5]), ..Plan::empty() };
    plan.timeouts.tcp_time_wait = Duration::from_millis(400);
    plan.timeouts.tcp_fin_wait = Duration::from_millis(700);
    plan.timeouts.tcp_close = Duration::from_millis(100);
    let forwarder = ForwarderSetup { name: "lb".to_owned(), plan, guests: Guests::default() };
    let mut world = World::new(setup, vec![forwarder]).unwrap();
    assert!(world.may_be_private);
    world.may_be_private = is_private;
    world.run();
    world.outcome()
}

#[test]
fn flows_that_are_only_counted_come_to_the_same_as_flows_with_entries() {
    for connections in [Connections::Timed, Connections::Brief] {
        for callers in [0, 7] {
            let setup = setup(connections, callers);
            for scheduler in [Builtin::LeastConnections, Builtin::ShortestExpectedDelay, Builtin::Maglev] {
                let [counted, kept] = [true, false].map(|is_private| run_with(&setup, scheduler, is_private));
                assert_eq!(counted.answered, kept.answered);
                // Who looks at loads leaves the slow ones alone.
                let resets = counted.broken(Cause::ServerFull);
                assert!(resets > 100 || scheduler != Builtin::Maglev, "{resets} are reset");
                assert_eq!(seen(&counted), seen(&kept), "{connections:?} {scheduler:?}, {callers} callers");
            }
        }
    }
}

/// An outcome without what tells how it was computed: timers are events, and flows that are only counted are never
/// half-open, not for an instant.
fn seen(outcome: &Outcome) -> Outcome {
    let mut seen = outcome.clone();
    seen.events = 0;
    seen.tables.iter_mut().for_each(|table| table.half_open_max = 0);
    seen
}

#[test]
fn callers_that_come_to_a_port_again_have_entries() {
    let few = setup(Connections::Timed, 1);
    assert!(may_be_private(&few, true));
    let mut many = few.clone();
    many.loads.iter_mut().for_each(|load| load.extent = Extent::Sessions(65_000));
    assert!(!may_be_private(&many, true) && !may_be_private(&few, false));
}
