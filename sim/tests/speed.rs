//! How fast the simulator is: prints figures beside the bars that they are held against, and asserts nothing but that
//! the runs are right. Run with `make bench-sim`.
//!
//! The reference: ten clients with eight requests outstanding each, one forwarder, four servers; links of 10 Gb/s with a
//! delay of 10 us; the checker looks at every frame. A packet counts where it reaches the host that it is for.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss, reason = "a measurement")]

mod replay_support;
mod support;

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use evenkeel_engine::Guests;
use evenkeel_sim::capture::Reader;
use evenkeel_sim::replay::{Sides, replay};
use evenkeel_sim::{Options, Queue, Scenario, run, run_with_progress};
use flate2::read::GzDecoder;
use replay_support::{capture, two_nics};
use support::{native_equipment, scenario};

const CLIENTS: usize = 10;
const SERVERS: usize = 4;
/// How often a short measurement is repeated; the best time counts, since neighbours only ever add to it.
const ROUNDS: usize = 3;

/// What lies between the machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Between {
    /// Each host has a cable to the forwarder.
    Cables,
    /// Clients share a switch, and servers do.
    Switches,
}

/// The reference with the given load.
fn reference(between: Between, load: &str) -> Scenario {
    let mut text = String::from("scenario = { name = \"speed\", duration = \"1h\" }\n");
    let mut forwarder = String::new();
    let mut plug = |kind: &str, segment: &str, address: &str| {
        let subnet = format!("{}.0/24", address.rsplit_once('.').unwrap().0);
        writeln!(text, "segment.{segment} = {{ kind = \"{kind}\", subnet = \"{subnet}\" }}").unwrap();
        let ends = format!("ends = [\"*\", \"{segment}\"]");
        writeln!(text, "link.{segment} = {{ {ends}, rate = \"10Gbit\", delay = \"10us\", queue = 1000 }}")
            .unwrap();
        writeln!(forwarder, "    {{ segment = \"{segment}\", address = \"{address}/24\" }},").unwrap();
    };
    match between {
        Between::Cables => {
            (0..CLIENTS).for_each(|host| plug("cable", &format!("c{host}"), &format!("198.51.{host}.1")));
            (0..SERVERS).for_each(|host| plug("cable", &format!("s{host}"), &format!("10.0.1{host}.1")));
        }
        Between::Switches => {
            plug("switch", "clients", "198.51.0.1");
            plug("switch", "servers", "10.0.10.1");
        }
    }
    let mut host = |name: &str, segment: &str, address: &str| {
        let gateway = format!("{}.1", address.rsplit_once('.').unwrap().0);
        writeln!(
            text,
            "host.{name} = {{ attach = [{{ segment = \"{segment}\", address = \"{address}/24\" }}], gateway = \"{gateway}\" }}"
        )
        .unwrap();
    };
    for number in 0..CLIENTS {
        let address = match between {
            Between::Cables => (format!("c{number}"), format!("198.51.{number}.2")),
            Between::Switches => ("clients".to_owned(), format!("198.51.0.{}", number + 2)),
        };
        host(&format!("client{number}"), &address.0, &address.1);
    }
    for number in 0..SERVERS {
        let address = match between {
            Between::Cables => (format!("s{number}"), format!("10.0.1{number}.2")),
            Between::Switches => ("servers".to_owned(), format!("10.0.10.{}", number + 2)),
        };
        host(&format!("server{number}"), &address.0, &address.1);
    }
    scenario(&format!(
        "{text}\n[forwarder.lb]\nattach = [\n{forwarder}]\nconfig = \"{}\"\n\n{load}\n",
        folder().join(if between == Between::Cables { "evenkeel.toml" } else { "switches.toml" }).display(),
    ))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/speed")
}

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

/// Resident bytes of this process.
fn resident_bytes() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<f64>().unwrap() * 4_096.0
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
#[ignore = "a measurement: run it alone and optimised"]
fn packets_a_second() {
    for (between, queue, is_unchecked) in [
        (Between::Cables, Queue::Wheel, false),
        (Between::Cables, Queue::Wheel, true),
        (Between::Cables, Queue::Heap, false),
        (Between::Switches, Queue::Wheel, false),
    ] {
        let scenario = reference(between, &datagrams(800, 1_000));
        let figures = measure(&scenario, queue, is_unchecked);
        let look = if is_unchecked { "unchecked" } else { "checked" };
        let name = format!("UDP 64 B, {between:?}, {queue:?}, {look}");
        let bar = if between == Between::Cables { "3, aim 6" } else { "-" };
        say(&name, figures.packets / figures.seconds / 1e6, "M packets/s", bar);
        println!(
            "    {:.2} CPU s, {:.2} M events/s, wire hash {}",
            figures.seconds,
            figures.events / figures.seconds / 1e6,
            figures.hash
        );
    }
    let figures = measure(&reference(Between::Cables, &datagrams(400_000, 1)), Queue::Wheel, false);
    say("UDP 64 B, a new flow for each request", figures.packets / figures.seconds / 1e6, "M packets/s", "-");
}

#[test]
#[ignore = "a measurement: run it alone and optimised"]
fn connections_a_second() {
    let scenario = reference(Between::Cables, &connections(50_000, 80, ""));
    let figures = measure(&scenario, Queue::Wheel, false);
    let name = "TCP, 1 kB -> 10 kB a connection";
    say(name, figures.packets / figures.seconds / 1e3, "k packets/s", "300");
    say(name, figures.flows / figures.seconds / 1e3, "k connections/s", "15");
    println!("    {:.2} CPU s, wire hash {}", figures.seconds, figures.hash);
}

/// Connections that open one after the other and then say nothing for a while.
#[test]
#[ignore = "a measurement: run it alone and optimised"]
fn memory_of_a_connection() {
    const COUNT: u64 = 100_000;
    let scenario = reference(
        Between::Cables,
        &format!(
            "[load.tcp]\nfrom = \"client*\"\nto = \"10.0.0.3:80/tcp\"\n\
             arrivals = {{ process = \"uniform\", rate = \"20000/s\" }}\nflows = {COUNT}\nrounds = 2\n\
             pause = \"1h\"\ndeadline = \"7s\""
        ),
    );
    let mut equipment = native_equipment(&scenario, 1);
    // The forwarder's table is there from the beginning: one of twenty times as many flows would be counted as well.
    equipment.iter_mut().for_each(|one| one.plan.limits.flows_max = 131_072);
    let before = resident_bytes();
    let mut most: f64 = 0.0;
    run_with_progress(&scenario, equipment, Options::default(), &mut |_| most = most.max(resident_bytes()))
        .unwrap();
    let each = (most - before) / COUNT as f64;
    say("TCP, both ends and the flow in the forwarder", each, "B/connection", "1024");
}

/// A capture of 500 connections, read from memory, again and again.
#[test]
#[ignore = "a measurement: run it alone and optimised"]
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
