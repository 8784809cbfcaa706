//! Instructions per packet, which repeat exactly however busy the machine is: `make bench-instructions`.
#![allow(
    missing_docs,
    unused_qualifications,
    clippy::unwrap_used,
    reason = "benchmarks and what their macros make"
)]

use std::hint::black_box;

use evenkeel_benches::fixture::{Frames, Loop, established, established_on_ethernet, packet, plan};
use evenkeel_engine::journal::{Journal, Wish};
use evenkeel_engine::plan::Builtin;
use evenkeel_engine::wire::{Address, FiveTuple, HashKey, Protocol, ipv4};
use evenkeel_engine::{Engine, Guests, Instant, step};
use gungraun::{library_benchmark, library_benchmark_group, main};

// Batches of 64 packets in one measurement, so that the fixed cost of a batch is spread as in use.
const TURNS: usize = 16;

fn fresh(kind: Builtin) -> (Engine, Loop) {
    let engine = Engine::new(plan(4096, 16, kind), Guests::default(), Instant::ZERO).unwrap();
    (engine, Loop::in_order(4096, 64))
}

/// With a journal that writes every packet down.
fn traced((mut engine, device): (Engine, Loop)) -> (Engine, Loop) {
    engine.set_journal(Some(Journal::new(Wish::default(), None)));
    (engine, device)
}

/// The engine and the packets of `established`, of which a batch has been traced before: what a trace costs when it is over.
fn traced_once() -> (Engine, Loop) {
    let (mut engine, device) = traced(established(1024, 64).unwrap());
    step(&mut engine, &mut Loop::in_order(1024, 64), Instant::ZERO);
    assert!(engine.set_journal(None).is_some_and(|mut journal| journal.poll().is_some()));
    (engine, device)
}

#[library_benchmark]
#[bench::packet_64(packet(7))]
fn parse(mut bytes: [u8; 64]) -> bool {
    ipv4::Packet::split(black_box(&mut bytes)).is_ok()
}

#[library_benchmark]
#[bench::v4(FiveTuple { source: Address::v4([100, 0, 0, 7]), destination: Address::v4([10, 0, 0, 3]), source_port: 40_000, destination_port: 53, protocol: Protocol::UDP })]
fn hash(tuple: FiveTuple) -> u64 {
    black_box(tuple).hash(HashKey([1, 2]))
}

// 1,024 packets of known flows: parse, look up, translate, count.
#[library_benchmark]
#[bench::batch_of_64(established(1024, 64).unwrap())]
#[bench::batch_of_64_after_a_trace(traced_once())]
#[bench::batch_of_64_traced(traced(established(1024, 64).unwrap()))]
#[bench::batch_of_1(established(1024, 1).unwrap())]
fn known_flow((mut engine, mut device): (Engine, Loop)) -> (Engine, Loop) {
    let packets = TURNS * 64;
    while device.sent < packets as u64 {
        step(&mut engine, &mut device, Instant::ZERO);
    }
    (engine, device)
}

// The same in frames: link headers in and out, next hops and neighbours besides.
#[library_benchmark]
#[bench::batch_of_64(established_on_ethernet(1024, 64).unwrap())]
fn known_flow_in_frames((mut engine, mut device): (Engine, Frames)) -> (Engine, Frames) {
    let packets = TURNS * 64;
    while device.sent() < packets as u64 {
        step(&mut engine, &mut device, Instant::ZERO);
    }
    (engine, device)
}

// 1,024 packets that each open a flow: the same, and policy, scheduler, insertion.
#[library_benchmark]
#[bench::rr(fresh(Builtin::RoundRobin))]
#[bench::wlc(fresh(Builtin::WeightedLeastConnections))]
#[bench::maglev(fresh(Builtin::Maglev))]
fn new_flow((mut engine, mut device): (Engine, Loop)) -> (Engine, Loop) {
    for _ in 0..TURNS {
        step(&mut engine, &mut device, Instant::ZERO);
    }
    (engine, device)
}

// What the device of the benches itself costs for 1,024 packets, to be taken off the others.
#[library_benchmark]
#[bench::device_alone(Loop::new(1024, 64))]
fn offer(mut device: Loop) -> Loop {
    use evenkeel_engine::Device;
    for _ in 0..TURNS {
        black_box(device.receive());
        device.flush();
    }
    device
}

library_benchmark_group!(
    name = engine,
    benchmarks = [parse, hash, known_flow, known_flow_in_frames, new_flow, offer]
);
main!(library_benchmark_groups = engine);
