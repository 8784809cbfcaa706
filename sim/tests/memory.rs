//! What a simulated TCP connection costs in memory: prints bytes beside the bar. Run with `make bench-sim`.
//!
//! Connections open one after the other, exchange one request and then say nothing. What lives at most is counted by the
//! allocator, less what lives before the first one opens: of a client that calls a server directly, of clients behind a
//! forwarder, and of these with the checker on the wires. What a part costs is what it adds.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss, reason = "a measurement")]

#[expect(dead_code, reason = "switches are for the measurement of speed")]
#[path = "speed/reference.rs"]
mod reference;
mod support;

use std::alloc::System;

use evenkeel_sim::{Equipment, Options, Scenario, run_with_progress};
use reference::{Between, reference};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use support::{native_equipment, scenario};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const CONNECTIONS: u32 = 60_000;
/// Connections of the run whose memory is that of everything but connections.
const FEW: u32 = 600;

/// Bytes that live now.
fn living() -> f64 {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated as f64 - stats.bytes_deallocated as f64
}

/// The most bytes that live during a run.
fn most(scenario: &Scenario, flows: u32, is_unchecked: bool) -> f64 {
    let mut equipment: Vec<Equipment> = native_equipment(scenario, 1);
    // The table is there from the beginning, whether it is used or not: it has as many places as flows come.
    equipment.iter_mut().for_each(|one| one.plan.limits.flows_max = flows);
    let (before, mut most) = (living(), 0.0_f64);
    let options = Options { is_unchecked, ..Options::default() };
    run_with_progress(scenario, equipment, options, &mut |_| most = most.max(living())).unwrap();
    most - before
}

/// Bytes of a connection, of a scenario for so many.
fn each(scenario: impl Fn(u32) -> Scenario, is_unchecked: bool) -> f64 {
    let most = |flows| most(&scenario(flows), flows, is_unchecked);
    (most(CONNECTIONS) - most(FEW)) / f64::from(CONNECTIONS - FEW)
}

/// The scenario's load: so many connections to `to`.
fn load(to: &str, flows: u32) -> String {
    format!(
        "[load.tcp]\nfrom = \"client*\"\nto = \"{to}:80/tcp\"\n\
         arrivals = {{ process = \"uniform\", rate = \"20000/s\" }}\nflows = {flows}\nrounds = 2\n\
         pause = \"1h\"\ndeadline = \"7s\"\n"
    )
}

/// A client and a server on one segment.
fn direct(flows: u32) -> Scenario {
    let host = |name: &str, last: u8| {
        format!("host.{name} = {{ attach = [{{ segment = \"lan\", address = \"10.0.0.{last}/24\" }}] }}\n")
    };
    scenario(&format!(
        "scenario = {{ name = \"memory\", duration = \"1h\" }}\nsegment.lan = {{ subnet = \"10.0.0.0/24\" }}\n{}{}{}",
        host("client", 1),
        host("server", 2),
        load("10.0.0.2", flows)
    ))
}

fn say(name: &str, bytes: f64, bar: &str) {
    println!("{name:<58} {bytes:>9.0} {:<22} bar: {bar}", "B/connection");
}

#[test]
#[ignore = "a measurement: make bench-sim"]
fn memory_of_a_connection() {
    let through = |flows| reference(Between::Cables, &load("10.0.0.3", flows));
    let hosts = each(direct, true);
    let unchecked = each(through, true);
    let checked = each(through, false);
    say("TCP, hosts: client, server, their timers", hosts, "1024");
    say("TCP, forwarder: the flow's place in its table", unchecked - hosts, "-");
    say("TCP, checker: what it remembers of the flow", checked - unchecked, "-");
    say("TCP, everything", checked, "-");
}
