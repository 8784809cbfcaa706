//! What a new flow costs: native Maglev against the same Maglev as a table guest and as a guest that is asked,
//! in batches of 32 and one by one; and what it costs to make a guest.
//!
//! `cargo bench -p evenkeel-plugin-host --bench schedule`. Times are for the whole batch of 32 where a name says
//! so.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a bench ends where it fails, and prints"
)]

#[path = "../tests/common/mod.rs"]
mod common;
mod farm;

use std::hint::black_box;

use common::{at, flows, guest, load_plan, plan_of, policy_plan, servers, settings};
use criterion::{Criterion, criterion_group, criterion_main};
use evenkeel_engine::director::{NewFlow, Scheduler, Selection, ServerLoad, builtin};
use evenkeel_engine::plan::{Builtin, OnFault};
use evenkeel_engine::policy::{PolicyAnswer, PolicyFlow};
use evenkeel_engine::{InterfaceId, Plan};
use evenkeel_plugin_host::{Host, Mode};
use farm::{Farm, component};

fn picks(criterion: &mut Criterion) {
    for batch in [1, 32] {
        let mut group = criterion.benchmark_group(format!("pick-{batch}"));
        let mut run = |name: &str, scheduler: Box<dyn Scheduler>| {
            let mut farm = Farm::new(scheduler, batch);
            group.bench_function(name, |bencher| bencher.iter(|| black_box(farm.pick())));
            assert_eq!(farm.scheduler.stats().faults, 0, "{name}");
        };
        run("native-maglev", builtin(Builtin::Maglev));
        run("native-wlc", builtin(Builtin::WeightedLeastConnections));
        run("table-maglev", component("bundled:maglev", Mode::Epoch));
        run("hash-maglev", component("bundled:maglev-pick", Mode::Epoch));
        run("hash-maglev-fuel", component("bundled:maglev-pick", Mode::Fuel));
        run("round-robin", component("bundled:round-robin", Mode::Epoch));
        run("least-connections", component("bundled:least-connections", Mode::Epoch));
        group.finish();
    }
}

fn policies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decide");
    let plan = policy_plan(guest("bundled:rate-guard", ""), OnFault::Permit);
    for batch in [1, 32] {
        let mut policy = load_plan(&plan, Mode::Epoch).unwrap().policies.remove("guard").unwrap();
        let flow = |new: &NewFlow| PolicyFlow::new(new.hash, new.tuple, InterfaceId(0));
        let flows: Vec<PolicyFlow> = flows(0, batch).iter().map(flow).collect();
        let mut verdicts = vec![PolicyAnswer::SKIP; flows.len()];
        group.bench_function(format!("rate-guard-{batch}"), |bencher| {
            bencher.iter(|| {
                policy.decide(&flows, &mut verdicts, at(1));
                black_box(verdicts[0])
            });
        });
    }
    group.finish();
}

fn loads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("load");
    group.sample_size(20);
    let plan = plan_of(guest("bundled:round-robin", ""));
    group.bench_function("compile-and-load", |bencher| {
        bencher.iter(|| Host::new(settings(Mode::Fuel)).load(&plan, 0).unwrap());
    });
    let mut host = Host::new(settings(Mode::Epoch));
    host.load(&plan, 0).unwrap();
    group.bench_function("load-compiled", |bencher| bencher.iter(|| host.load(&plan, 0).unwrap()));
    let servers = servers(&[1; 16]);
    let mut table = component("bundled:maglev", Mode::Epoch);
    group.bench_function("update-table-maglev", |bencher| bencher.iter(|| table.update(&servers, at(1))));
    let mut native = builtin(Builtin::Maglev);
    group.bench_function("update-native-maglev", |bencher| bencher.iter(|| native.update(&servers, at(1))));
    group.finish();
}

/// Bytes of this process that are in memory.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok()).unwrap_or(0) * 1024
}

/// Prints what 1,000 directors with a component cost. It comes first and lets go of nothing before its end, so that
/// nothing is built where something else has just been freed; what compiling leaves behind is counted too.
fn memory(_: &mut Criterion) {
    let servers = servers(&[4, 2, 1]);
    let kinds = [
        ("bundled:round-robin", ""),
        ("bundled:least-connections", ""),
        ("bundled:maglev", "size = 4099"),
        ("bundled:maglev", ""),
    ];
    let mut kept = Vec::new();
    for (name, options) in kinds {
        let directors =
            (0..1_000).map(|number| common::director(&format!("d{number}"), guest(name, options)));
        let plan = Plan { directors: directors.collect(), ..Plan::empty() };
        let before = resident();
        let mut guests = load_plan(&plan, Mode::Epoch).unwrap();
        for scheduler in guests.schedulers.values_mut() {
            scheduler.update(&servers, at(1));
            let flows = flows(0, 2);
            let (mut loads, mut answers) = (vec![ServerLoad::default(); 3], vec![None; 2]);
            scheduler.pick(&mut Selection::new(&flows, &servers, &mut loads, &mut answers), at(2));
        }
        let grown = resident().saturating_sub(before);
        kept.push(guests);
        println!("memory: 1000 directors of {name} {options}: {} KiB", grown / 1024);
    }
}

criterion_group!(benches, memory, picks, policies, loads);
criterion_main!(benches);
