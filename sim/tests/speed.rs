//! How fast the simulator is: prints figures beside the bars that they are held against, and asserts nothing but that
//! the runs are right. Run with `make bench-sim`.
//!
//! The reference: ten clients with eight requests outstanding each, one forwarder, four servers; links of 10 Gb/s with a
//! delay of 10 us; the checker looks at every frame. A packet counts where it reaches the host that it is for.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss, reason = "a measurement")]

#[path = "speed/reference.rs"]
mod reference;
mod replay_support;
#[path = "speed/rounds.rs"]
mod rounds;
mod support;

use std::fs::File;
use std::io::Read as _;

use evenkeel_engine::Guests;
use evenkeel_sim::capture::Reader;
use evenkeel_sim::replay::{Sides, replay};
use evenkeel_sim::{Options, Queue, Scenario, run};
use flate2::read::GzDecoder;
use reference::{Between, reference};
use replay_support::{capture, two_nics};
use rounds::Rounds;
use support::{cpu_seconds, native_equipment};

/// How often a measurement is repeated. A round is a tenth of a second of work or less, so that some rounds fall between
/// the neighbours' turns.
const ROUNDS: usize = 100;

/// A load of datagrams: 80 flows at a time, each with so many requests.
fn datagrams(flows: u64, rounds: u64) -> String {
    format!(
        "[load.udp]\nfrom = \"client*\"\nto = \"10.0.0.3:53/udp\"\narrivals = {{ process = \"closed\", outstanding = 80 }}\n\
         flows = {flows}\nrounds = {rounds}\nrequest = {{ size = \"64B\" }}\nresponse = {{ size = \"64B\" }}"
    )
}

/// A load of connections, each with one request of 1 kB and an answer of 10 kB.
fn connections(flows: u64, outstanding: u64, more: &str) -> String {
    format!(
        "[load.tcp]\nfrom = \"client*\"\nto = \"10.0.0.3:80/tcp\"\n\
         arrivals = {{ process = \"closed\", outstanding = {outstanding} }}\nflows = {flows}\n\
         request = {{ size = \"1kB\" }}\nresponse = {{ size = \"10kB\" }}\n{more}"
    )
}

struct Figures {
    seconds: f64,
    packets: f64,
    flows: f64,
    events: f64,
    hash: String,
}

fn measure(scenario: &Scenario, queue: Queue, is_unchecked: bool) -> Figures {
    let equipment = native_equipment(scenario, 1);
    let begin = cpu_seconds();
    let outcome = run(scenario, equipment, Options { queue, is_unchecked, ..Options::default() }).unwrap();
    let seconds = cpu_seconds() - begin;
    assert_eq!(outcome.flows.broken, 0, "{}", outcome.to_text());
    assert!(outcome.is_conserved && outcome.flows.completed > 0, "{}", outcome.to_text());
    let packets: u64 = outcome.hosts.iter().map(|host| host.counts.received).sum();
    Figures {
        seconds,
        packets: packets as f64,
        flows: outcome.flows.completed as f64,
        events: outcome.events as f64,
        hash: outcome.wire_hash,
    }
}

fn measure_all(scenario: &Scenario, queue: Queue) -> Vec<Figures> {
    (0..ROUNDS).map(|_| measure(scenario, queue, false)).collect()
}

fn say(name: &str, rounds: Rounds, unit: &str, bar: &str) {
    let Rounds { best, median } = rounds;
    println!("{name:<38} {best:>8.2} {unit:<15} median: {median:>8.2}   bar: {bar}");
}

#[test]
#[ignore = "a measurement: make bench-sim"]
fn packets_a_second() {
    let scenario = reference(Between::Cables, &datagrams(80, 2_000));
    let (mut checked, mut unchecked) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        checked.push(measure(&scenario, Queue::Wheel, false));
        unchecked.push(measure(&scenario, Queue::Wheel, true));
    }
    say_packets("UDP 64 B, Cables, Wheel, checked", &checked, "3, aim 6");
    say_packets("UDP 64 B, Cables, Wheel, unchecked", &unchecked, "3, aim 6");
}

fn say_packets(name: &str, figures: &[Figures], bar: &str) {
    let a_second = |count: fn(&Figures) -> f64| {
        Rounds::of(figures.iter().map(|round| count(round) / round.seconds / 1e6))
    };
    say(name, a_second(|round| round.packets), "M packets/s", bar);
    let hash = figures.first().map_or("", |round| &round.hash);
    println!("    {:.2} M events/s, wire hash {hash}", a_second(|round| round.events).best);
}

#[test]
#[ignore = "a measurement: make bench-sim"]
fn packets_a_second_otherwise() {
    for (between, queue) in
        [(Between::Cables, Queue::Heap), (Between::Ports, Queue::Wheel), (Between::Switches, Queue::Wheel)]
    {
        let figures = measure_all(&reference(between, &datagrams(80, 2_000)), queue);
        say_packets(&format!("UDP 64 B, {between:?}, {queue:?}, checked"), &figures, "-");
    }
    let figures = measure_all(&reference(Between::Cables, &datagrams(10_000, 1)), Queue::Wheel);
    say_packets("UDP 64 B, a new flow for each request", &figures, "-");
}

/// Few packets, whose instructions valgrind counts: see docs/src/simulator/speed.md.
#[test]
#[ignore = "a measurement: the page on speed says how, under valgrind"]
fn instructions_of_packets() {
    instructions(Between::Cables, &datagrams(80, 250));
}

#[test]
#[ignore = "a measurement: the page on speed says how, under valgrind"]
fn instructions_of_packets_at_ports() {
    instructions(Between::Ports, &datagrams(80, 250));
}

#[test]
#[ignore = "a measurement: the page on speed says how, under valgrind"]
fn instructions_of_new_flows() {
    instructions(Between::Cables, &datagrams(10_000, 1));
}

fn instructions(between: Between, load: &str) {
    let scenario = reference(between, load);
    let outcome = run(&scenario, native_equipment(&scenario, 1), Options::default()).unwrap();
    let packets: u64 = outcome.hosts.iter().map(|host| host.counts.received).sum();
    println!("{packets} packets, {} events, wire hash {}", outcome.events, outcome.wire_hash);
}

#[test]
#[ignore = "a measurement: make bench-sim"]
fn connections_a_second() {
    let scenario = reference(Between::Cables, &connections(1_500, 80, ""));
    let figures = measure_all(&scenario, Queue::Wheel);
    let name = "TCP, 1 kB -> 10 kB a connection";
    let packets = figures.iter().map(|round| round.packets / round.seconds / 1e3);
    say(name, Rounds::of(packets), "k packets/s", "300");
    let connections = figures.iter().map(|round| round.flows / round.seconds / 1e3);
    say(name, Rounds::of(connections), "k connections/s", "15");
    println!("    wire hash {}", figures.first().map_or("", |round| &round.hash));
}

/// A capture of 500 connections, read from memory, again and again.
#[test]
#[ignore = "a measurement: make bench-sim"]
fn frames_replayed_a_second() {
    let Some(path) = capture("zeek_echo-connections.pcap.gz") else { return };
    let mut bytes = Vec::new();
    GzDecoder::new(File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
    let options = replay_support::options(&["127.0.0.1:7000=10.0.0.3:80"], Sides::Both);
    let speeds = (0..ROUNDS).map(|_| {
        let plan = two_nics();
        let begin = cpu_seconds();
        let mut reader = Reader::new(&bytes[..]).unwrap();
        let outcome = replay(&mut reader, plan, Guests::default(), &options, None).unwrap();
        let seconds = cpu_seconds() - begin;
        assert_eq!((outcome.connections.served, outcome.connections.broken), (500, 0));
        outcome.read as f64 / seconds / 1e6
    });
    say("replay of a capture, from memory", Rounds::of(speeds), "M frames/s", "3");
}
