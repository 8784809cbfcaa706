//! How fast flow mode is: prints figures, asserts nothing but that the runs are right. Run with
//! `cargo test --release -p evenkeel-sim --test flow_speed -- --ignored --nocapture`.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss, reason = "a measurement")]

mod flow_support;
#[path = "speed/rounds.rs"]
mod rounds;
mod support;

use evenkeel_engine::plan::Builtin;
use evenkeel_sim::Options;
use evenkeel_sim::flow_mode::{Connections, Keys, Setup, World};
use evenkeel_sim::work::{Arrivals, Law, QueueSpec};
use flow_support::{MILLISECOND, forwarder, load, machines, plan, setup};
use rounds::Rounds;
use support::cpu_seconds;

/// Rounds of a measurement, and the requests of one: a twentieth of a second of work, so that some rounds fall between the
/// turns of the neighbours on the processor.
const ROUNDS: usize = 100;
const REQUESTS: u64 = 250_000;

/// Memory of this process that is there, in MiB.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    (text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4_096) >> 20
}

/// Requests a second, and the mean latency of one in nanoseconds.
fn measure_once(setup: &Setup, scheduler: Builtin, servers: usize, records: bool) -> (f64, f64) {
    let mut world = World::new(setup, vec![forwarder("lb", plan(scheduler, servers))]).unwrap();
    if records {
        world.record(setup);
    }
    let begin = cpu_seconds();
    world.run();
    let seconds = cpu_seconds() - begin;
    let outcome = world.outcome();
    assert_eq!(outcome.broken_in_all(), 0, "{outcome:?}");
    (outcome.answered as f64 / seconds, outcome.mean_latency())
}

fn measure(name: &str, setup: &Setup, scheduler: Builtin, servers: usize, records: bool, rounds: usize) {
    let mut latency = 0.0;
    let speeds = (0..rounds).map(|_| {
        let (speed, mean) = measure_once(setup, scheduler, servers, records);
        latency = mean;
        speed / 1e6
    });
    let Rounds { best, median } = Rounds::of(speeds);
    println!(
        "{name:<34} {best:>5.2} M requests/s   median: {median:>5.2}   resident {} MiB; mean latency {:.3} ms",
        resident(),
        latency / 1e6,
    );
}

fn poisson(servers: usize, requests: u64) -> Setup {
    let arrivals = Arrivals::Poisson { per_second: 800.0 * servers as f64 };
    let load = load(arrivals, Law::Exponential { mean: MILLISECOND }, requests);
    setup(1, machines(servers, QueueSpec::default()), load)
}

#[test]
#[ignore = "a measurement: make bench-sim"]
fn requests_a_second() {
    let brief = poisson(10, REQUESTS);
    measure("rr over 10", &brief, Builtin::RoundRobin, 10, false, ROUNDS);
    measure("rr over 10, with a report", &brief, Builtin::RoundRobin, 10, true, ROUNDS);
    measure("lc over 10", &brief, Builtin::LeastConnections, 10, false, ROUNDS);
    measure("maglev over 10", &brief, Builtin::Maglev, 10, false, ROUNDS);
    measure("p2c over 1000", &poisson(1_000, REQUESTS), Builtin::PowerOfChoices, 1_000, false, ROUNDS);
    // In production flows linger; those that somebody may look up have entries.
    let lingering = Setup { connections: Connections::Timed, ..poisson(10, REQUESTS) };
    measure("rr over 10, flows linger", &lingering, Builtin::RoundRobin, 10, true, ROUNDS);
    let mut kept = Setup { connections: Connections::Timed, ..poisson(10, REQUESTS) };
    kept.loads.iter_mut().for_each(|load| load.keys = Keys::Shared { count: 1 << 32, exponent: 0.0 });
    measure("rr over 10, each flow has an entry", &kept, Builtin::RoundRobin, 10, true, ROUNDS);
}

/// Few requests, whose instructions valgrind counts: see docs/src/simulator/speed.md.
#[test]
#[ignore = "a measurement: the page on speed says how, under valgrind"]
fn instructions_of_requests() {
    measure("rr over 10", &poisson(10, 100_000), Builtin::RoundRobin, 10, false, 1);
}

/// The scenario of the library with a hundred times its flows: everything that `evenkeel sim run` does after reading it.
#[test]
#[ignore = "a measurement: make bench-sim"]
fn a_scenario_of_ten_million_requests() {
    let mut scenario = support::library("many-requests.toml");
    scenario.expectations.clear();
    for load in &mut scenario.loads {
        load.extent = evenkeel_sim::scenario::Extent::Flows(10_000_000);
    }
    let equipment = support::native_equipment(&scenario, 1);
    let begin = cpu_seconds();
    let outcome = evenkeel_sim::run(&scenario, equipment, Options::default()).unwrap();
    let seconds = cpu_seconds() - begin;
    assert_eq!(outcome.flows.completed, 10_000_000);
    println!(
        "scenario many-requests: {} requests in {seconds:.2} CPU s; {:.2} M requests/s; resident {} MiB",
        outcome.flows.completed,
        outcome.flows.completed as f64 / seconds / 1e6,
        resident(),
    );
}

/// 10^8 requests in memory that does not grow with them.
#[test]
#[ignore = "a measurement: make bench-sim"]
fn a_hundred_million_requests() {
    measure("rr over 10", &poisson(10, 100_000_000), Builtin::RoundRobin, 10, false, 1);
}
