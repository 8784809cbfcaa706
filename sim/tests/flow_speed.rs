//! How fast flow mode is: prints figures, asserts nothing but that the runs are right. Run with
//! `cargo test --release -p evenkeel-sim --test flow_speed -- --ignored --nocapture`.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss, reason = "a measurement")]

mod flow_support;

use evenkeel_engine::plan::Builtin;
use evenkeel_sim::flow_mode::{Connections, Setup, World};
use evenkeel_sim::work::{Arrivals, Law, QueueSpec};
use flow_support::{MILLISECOND, forwarder, load, machines, plan, setup};

/// Time that this thread has spent on a processor, so that neighbours on the machine do not count.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

/// Memory of this process that is there, in MiB.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    (text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4_096) >> 20
}

fn measure(name: &str, setup: &Setup, scheduler: Builtin, servers: usize, records: bool) {
    let mut world = World::new(setup, vec![forwarder("lb", plan(scheduler, servers))]).unwrap();
    if records {
        world.record(setup);
    }
    let begin = cpu_seconds();
    world.run();
    let seconds = cpu_seconds() - begin;
    let outcome = world.outcome();
    assert_eq!(outcome.broken_in_all(), 0, "{outcome:?}");
    println!(
        "{name}: {} requests in {seconds:.2} CPU s; {:.2} M requests/s; resident {} MiB; mean latency {:.3} ms",
        outcome.answered,
        outcome.answered as f64 / seconds / 1e6,
        resident(),
        outcome.mean_latency() / 1e6,
    );
}

fn poisson(servers: usize, requests: u64) -> Setup {
    let arrivals = Arrivals::Poisson { per_second: 800.0 * servers as f64 };
    let load = load(arrivals, Law::Exponential { mean: MILLISECOND }, requests);
    setup(1, machines(servers, QueueSpec::default()), load)
}

#[test]
#[ignore = "a measurement: run it alone and optimised"]
fn requests_a_second() {
    const REQUESTS: u64 = 10_000_000;
    let brief = poisson(10, REQUESTS);
    for round in 1..=3 {
        measure(&format!("rr over 10, round {round}"), &brief, Builtin::RoundRobin, 10, false);
    }
    measure("rr over 10, with a report", &brief, Builtin::RoundRobin, 10, true);
    measure("lc over 10", &brief, Builtin::LeastConnections, 10, false);
    measure("maglev over 10", &brief, Builtin::Maglev, 10, false);
    measure("p2c over 1000", &poisson(1_000, REQUESTS), Builtin::PowerOfChoices, 1_000, false);
    let lingering = Setup { connections: Connections::Timed, ..poisson(10, 2_000_000) };
    let mut plan = plan(Builtin::RoundRobin, 10);
    plan.timeouts.tcp_time_wait = evenkeel_engine::Duration::from_secs(10);
    let mut world = World::new(&lingering, vec![forwarder("lb", plan)]).unwrap();
    let begin = cpu_seconds();
    world.run();
    let seconds = cpu_seconds() - begin;
    let outcome = world.outcome();
    println!(
        "rr over 10, flow table of the engine, {} entries on average: {:.2} M requests/s",
        outcome.tables.first().unwrap().entries_mean_millionths / 1_000_000,
        outcome.answered as f64 / seconds / 1e6,
    );
}

/// 10^8 requests in memory that does not grow with them.
#[test]
#[ignore = "a measurement: run it alone and optimised"]
fn a_hundred_million_requests() {
    measure("rr over 10", &poisson(10, 100_000_000), Builtin::RoundRobin, 10, false);
}
