//! How fast the simulator is: prints figures beside the bars that they are held against, and asserts nothing but that
//! the runs are right. Run with `make bench-sim`.
//!
//! The reference: ten clients with eight requests outstanding each, one forwarder, four servers; links of 10 Gb/s with a
//! delay of 10 us; the checker looks at every frame. A packet counts where it reaches the host that it is for.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss, reason = "a measurement")]

#[path = "speed/reference.rs"]
mod reference;
mod replay_support;
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
use support::native_equipment;

/// How often a short measurement is repeated; the best time counts, since neighbours only ever add to it.
const ROUNDS: usize = 3;

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

/// Time that this thread has spent on a processor, so that neighbours on the machine do not count.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

struct Figures {
    seconds: f64,
    packets: f64,
    flows: f64,
    events: f64,
    hash: String,
}

fn measure(scenario: &Scenario, queue: Queue, is_unchecked: bool) -> Figures {
    let mut best: Option<Figures> = None;
    for _ in 0..ROUNDS {
        let equipment = native_equipment(scenario, 1);
        let begin = cpu_seconds();
        let outcome =
            run(scenario, equipment, Options { queue, is_unchecked, ..Options::default() }).unwrap();
        let seconds = cpu_seconds() - begin;
        assert_eq!(outcome.flows.broken, 0, "{}", outcome.to_text());
        assert!(outcome.is_conserved && outcome.flows.completed > 0, "{}", outcome.to_text());
        let packets: u64 = outcome.hosts.iter().map(|host| host.counts.received).sum();
        if best.as_ref().is_none_or(|best| seconds < best.seconds) {
            best = Some(Figures {
                seconds,
                packets: packets as f64,
                flows: outcome.flows.completed as f64,
                events: outcome.events as f64,
                hash: outcome.wire_hash,
            });
        }
    }
    best.unwrap()
}

fn say(name: &str, figure: f64, unit: &str, bar: &str) {
    println!("{name:<58} {figure:>9.2} {unit:<22} bar: {bar}");
}

#[test]
#[ignore = "a measurement: make bench-sim"]
fn packets_a_second() {
    for (queue, is_unchecked) in [(Queue::Wheel, false), (Queue::Wheel, true)] {
        say_packets(Between::Cables, queue, is_unchecked, "3, aim 6");
    }
}

fn say_packets(between: Between, queue: Queue, is_unchecked: bool, bar: &str) {
    let scenario = reference(between, &datagrams(800, 1_000));
    let figures = measure(&scenario, queue, is_unchecked);
    let look = if is_unchecked { "unchecked" } else { "checked" };
    let name = format!("UDP 64 B, {between:?}, {queue:?}, {look}");
    say(&name, figures.packets / figures.seconds / 1e6, "M packets/s", bar);
    println!(
        "    {:.2} CPU s, {:.2} M events/s, wire hash {}",
        figures.seconds,
        figures.events / figures.seconds / 1e6,
        figures.hash
    );
}

#[test]
#[ignore = "a measurement: make bench-sim"]
fn packets_a_second_otherwise() {
    say_packets(Between::Cables, Queue::Heap, false, "-");
    say_packets(Between::Ports, Queue::Wheel, false, "-");
    say_packets(Between::Switches, Queue::Wheel, false, "-");
    let figures = measure(&reference(Between::Cables, &datagrams(400_000, 1)), Queue::Wheel, false);
    say("UDP 64 B, a new flow for each request", figures.packets / figures.seconds / 1e6, "M packets/s", "-");
}

/// Few packets, whose instructions valgrind counts: see docs/src/simulator/speed.md.
#[test]
#[ignore = "a measurement: the page on speed says how, under valgrind"]
fn instructions_of_packets() {
    instructions(Between::Cables);
}

#[test]
#[ignore = "a measurement: the page on speed says how, under valgrind"]
fn instructions_of_packets_at_ports() {
    instructions(Between::Ports);
}

fn instructions(between: Between) {
    let scenario = reference(between, &datagrams(80, 250));
    let outcome = run(&scenario, native_equipment(&scenario, 1), Options::default()).unwrap();
    let packets: u64 = outcome.hosts.iter().map(|host| host.counts.received).sum();
    println!("{packets} packets, {} events, wire hash {}", outcome.events, outcome.wire_hash);
}

#[test]
#[ignore = "a measurement: make bench-sim"]
fn connections_a_second() {
    let scenario = reference(Between::Cables, &connections(50_000, 80, ""));
    let figures = measure(&scenario, Queue::Wheel, false);
    let name = "TCP, 1 kB -> 10 kB a connection";
    say(name, figures.packets / figures.seconds / 1e3, "k packets/s", "300");
    say(name, figures.flows / figures.seconds / 1e3, "k connections/s", "15");
    println!("    {:.2} CPU s, wire hash {}", figures.seconds, figures.hash);
}

/// A capture of 500 connections, read from memory, again and again.
#[test]
#[ignore = "a measurement: make bench-sim"]
fn frames_replayed_a_second() {
    const TURNS: u32 = 20;
    let Some(path) = capture("zeek_echo-connections.pcap.gz") else { return };
    let mut bytes = Vec::new();
    GzDecoder::new(File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
    let options = replay_support::options(&["127.0.0.1:7000=10.0.0.3:80"], Sides::Both);
    let (mut frames, mut best) = (0.0, f64::MAX);
    for _ in 0..ROUNDS {
        let mut seconds = 0.0;
        for _ in 0..TURNS {
            let plan = two_nics();
            let begin = cpu_seconds();
            let mut reader = Reader::new(&bytes[..]).unwrap();
            let outcome = replay(&mut reader, plan, Guests::default(), &options, None).unwrap();
            seconds += cpu_seconds() - begin;
            assert_eq!((outcome.connections.served, outcome.connections.broken), (500, 0));
            frames = outcome.read as f64;
        }
        best = best.min(seconds / f64::from(TURNS));
    }
    say("replay of a capture, from memory", frames / best / 1e6, "M frames/s", "3");
}
