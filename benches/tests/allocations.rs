//! A packet of a known flow causes no allocation and asks no scheduler.
//!
//! Without the test harness, whose threads allocate as well: this process has one thread, so every allocation that
//! is counted is the engine's.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a test that is its own program")]

use std::alloc::System;

use evenkeel_benches::fixture::{Frames, established, established_on_ethernet};
use evenkeel_engine::{Device, Engine, Instant, step};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const NAME: &str = "a_known_flow_allocates_nothing_and_asks_nobody";

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let says = |word: &str| words.iter().any(|other| other == word);
    if says("--list") {
        // What runners ask for before they run a test; none of ours is ignored.
        if !says("--ignored") {
            println!("{NAME}: test");
        }
        return;
    }
    a_known_flow_allocates_nothing_and_asks_nobody(established(1000, 64).unwrap(), |device| device.sent);
    a_known_flow_allocates_nothing_and_asks_nobody(established_on_ethernet(1000, 64).unwrap(), Frames::sent);
    println!(
        "test {NAME} ... ok\n\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out"
    );
}

fn a_known_flow_allocates_nothing_and_asks_nobody<D: Device>(
    (mut engine, mut device): (Engine, D),
    sent: impl Fn(&D) -> u64,
) {
    let asked = engine.counters().scheduler_calls;
    assert!(asked > 0 && engine.flow_count() == 1000);
    let region = Region::new(ALLOCATOR);
    for turn in 0..1000 {
        step(&mut engine, &mut device, Instant::from_nanos(turn * 1_000_000));
    }
    let change = region.change();
    assert_eq!((change.allocations, change.reallocations), (0, 0));
    assert_eq!(sent(&device), 64_000);
    assert_eq!(engine.counters().scheduler_calls, asked);
    // The instrument works: a box is seen.
    let region = Region::new(ALLOCATOR);
    drop(std::hint::black_box(Box::new(engine)));
    assert_eq!(region.change().allocations, 1);
}
