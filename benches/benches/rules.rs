//! Instructions of 64 decisions about new flows, by compiled rules and by the walk over all of them.
#![allow(missing_docs, unused_qualifications, reason = "benchmarks and what their macros make")]

use std::hint::black_box;

use evenkeel_benches::rules::{asked, flows};
use evenkeel_engine::Instant;
use evenkeel_engine::plan::FlowPlan;
use evenkeel_engine::policy::PolicyFlow;
use evenkeel_engine::policy::linear;
use evenkeel_engine::policy::rules::Rules;
use evenkeel_engine::wire::HashKey;
use gungraun::{library_benchmark, library_benchmark_group, main};

const FLOWS: u32 = 64;

fn compiled(count: u32) -> (Rules, Vec<PolicyFlow>) {
    (Rules::new(flows(count), HashKey([1, 2])), asked(FLOWS, count))
}

fn plain(count: u32) -> (Vec<FlowPlan>, Vec<PolicyFlow>) {
    (flows(count), asked(FLOWS, count))
}

#[library_benchmark]
#[bench::of_1(compiled(1))]
#[bench::of_10(compiled(10))]
#[bench::of_100(compiled(100))]
#[bench::of_1000(compiled(1_000))]
#[bench::of_10000(compiled(10_000))]
#[bench::of_100000(compiled(100_000))]
fn rules((mut rules, asked): (Rules, Vec<PolicyFlow>)) -> (Rules, Vec<PolicyFlow>) {
    for flow in &asked {
        black_box(rules.decide_one(black_box(flow), Instant::ZERO));
    }
    (rules, asked)
}

#[library_benchmark]
#[bench::of_1(plain(1))]
#[bench::of_10(plain(10))]
#[bench::of_100(plain(100))]
#[bench::of_1000(plain(1_000))]
#[bench::of_10000(plain(10_000))]
#[bench::of_100000(plain(100_000))]
fn walk((flows, asked): (Vec<FlowPlan>, Vec<PolicyFlow>)) -> (Vec<FlowPlan>, Vec<PolicyFlow>) {
    for flow in &asked {
        black_box(linear::evaluate(black_box(&flows), flow));
    }
    (flows, asked)
}

library_benchmark_group!(name = policy, benchmarks = [rules, walk]);
main!(library_benchmark_groups = policy);
