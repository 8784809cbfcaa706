//! V1 to V7: one queue, or several behind round robin, against queueing theory.

use evenkeel_engine::Duration;
use evenkeel_engine::plan::Builtin;
use evenkeel_sim::flow_mode::{Outcome, Setup};
use evenkeel_sim::work::{Arrivals, Discipline, Law, QueueSpec};

use crate::exact;
use crate::flow_support::{MILLISECOND, load, machines, plan, run_with, setup};
use crate::row::{Effort, Row};

/// A run of so many requests, whose service takes a millisecond on average, at a load of all cores. The first tenth
/// warms it up.
pub fn queues(
    seed: u64,
    servers: usize,
    queue: QueueSpec,
    work: Law,
    utilisation: f64,
    requests: u64,
) -> Setup {
    let cores = servers as f64 * f64::from(queue.cores);
    let per_second = utilisation * cores * 1_000.0;
    let load = load(Arrivals::Poisson { per_second }, work, requests);
    let warmup = Duration::from_secs_f64(requests as f64 / per_second / 10.0);
    Setup { warmup, ..setup(seed, machines(servers, queue), load) }
}

/// The mean time and a quantile of it, in milliseconds.
pub fn mean_of(outcome: &Outcome) -> f64 {
    outcome.mean_latency() / MILLISECOND as f64
}

pub fn p99_of(outcome: &Outcome) -> f64 {
    outcome.latency.quantile(990_000).unwrap() as f64 / MILLISECOND as f64
}

pub const EXPONENTIAL: Law = Law::Exponential { mean: MILLISECOND };

/// One run for each seed.
pub fn runs(effort: Effort, requests: (u64, u64), make: impl Fn(u64, u64) -> Outcome) -> Vec<Outcome> {
    let (seeds, requests) = (6, effort.choose(requests.0, requests.1));
    (1..=seeds).map(|seed| make(seed, requests)).collect()
}

pub fn means(outcomes: &[Outcome]) -> Vec<f64> {
    outcomes.iter().map(mean_of).collect()
}

pub fn p99s(outcomes: &[Outcome]) -> Vec<f64> {
    outcomes.iter().map(p99_of).collect()
}

fn one_queue(effort: Effort, requests: (u64, u64), queue: QueueSpec, work: &Law, load: f64) -> Vec<Outcome> {
    runs(effort, requests, |seed, requests| {
        run_with(&queues(seed, 1, queue, work.clone(), load, requests), plan(Builtin::RoundRobin, 1))
    })
}

const LINE: QueueSpec = QueueSpec { discipline: Discipline::Fcfs, cores: 1, backlog: 1 << 20 };

pub fn v1_and_v2(effort: Effort) -> Vec<Row> {
    let mut rows = Vec::new();
    for (load, requests, tolerance) in [(0.5, 30_000, 0.02), (0.8, 60_000, 0.05), (0.9, 120_000, 0.10)] {
        let outcomes = one_queue(effort, (requests, 2_000_000), LINE, &EXPONENTIAL, load);
        let tolerance = effort.choose(tolerance, tolerance / 5.0);
        let case = format!("M/M/1, load {load}: mean time");
        rows.push(Row::of_seeds("V1", case, &means(&outcomes), exact::mm1_mean(load), tolerance));
        let case = format!("M/M/1, load {load}: 99 % of all times");
        let quantile = exact::mm1_quantile(load, 0.99);
        rows.push(Row::of_seeds("V2", case, &p99s(&outcomes), quantile, 1.5 * tolerance + 0.004));
    }
    rows
}

pub fn v3(effort: Effort) -> Vec<Row> {
    let cases = [(10, 0.8, 30_000, 0.04), (10, 0.9, 50_000, 0.04), (100, 0.95, 50_000, 0.04)];
    let row = |(cores, load, requests, tolerance): (u32, f64, u64, f64)| {
        let queue = QueueSpec { cores, ..LINE };
        let outcomes = one_queue(effort, (requests, 4_000_000), queue, &EXPONENTIAL, load);
        let case = format!("M/M/{cores}, load {load}: mean time");
        let tolerance = effort.choose(tolerance, tolerance / 4.0);
        Row::of_seeds("V3", case, &means(&outcomes), exact::mmk_mean(cores, load), tolerance)
    };
    cases.into_iter().map(row).collect()
}

pub fn v4(effort: Effort) -> Vec<Row> {
    let (small, large, share_large) = (MILLISECOND / 2, 50 * MILLISECOND + MILLISECOND / 2, 0.01);
    let work = Law::Bimodal { small, large, share_large };
    let outcomes = one_queue(effort, (100_000, 2_000_000), LINE, &work, 0.5);
    let second_moment = 0.99 * 0.5 * 0.5 + 0.01 * 50.5 * 50.5;
    let exact = exact::pollaczek_khinchine(0.5, second_moment);
    let case = "M/G/1, 99 % need 0.5 and 1 % need 50.5, load 0.5: mean time";
    vec![Row::of_seeds("V4", case, &means(&outcomes), exact, effort.choose(0.08, 0.025))]
}

pub fn v5(effort: Effort) -> Vec<Row> {
    let work = Law::Fixed { value: MILLISECOND };
    let outcomes = one_queue(effort, (60_000, 2_000_000), LINE, &work, 0.8);
    let exact = exact::pollaczek_khinchine(0.8, 1.0);
    let case = "M/D/1, load 0.8: mean time";
    vec![Row::of_seeds("V5", case, &means(&outcomes), exact, effort.choose(0.03, 0.01))]
}

pub fn v6(effort: Effort) -> Vec<Row> {
    let queue = QueueSpec { discipline: Discipline::Ps, ..LINE };
    let half = MILLISECOND / 2;
    let bimodal = Law::Bimodal { small: half, large: 10 * MILLISECOND + half, share_large: 0.05 };
    let laws = [
        ("exponential", EXPONENTIAL, 0.08),
        ("always the same", Law::Fixed { value: MILLISECOND }, 0.06),
        ("95 % need 0.5 and 5 % need 10.5", bimodal, 0.10),
    ];
    let row = |(name, work, tolerance): (&str, Law, f64)| {
        let outcomes = one_queue(effort, (50_000, 1_000_000), queue, &work, 0.8);
        let case = format!("M/G/1 with a shared core, {name}, load 0.8: mean time");
        Row::of_seeds(
            "V6",
            case,
            &means(&outcomes),
            exact::mm1_mean(0.8),
            effort.choose(tolerance, tolerance / 4.0),
        )
    };
    laws.into_iter().map(row).collect()
}

pub fn v7(effort: Effort) -> Vec<Row> {
    let cases = [(0.8, 80_000, 0.05), (0.9, 160_000, 0.08)];
    let row = |(load, requests, tolerance): (f64, u64, f64)| {
        let outcomes = runs(effort, (requests, 2_000_000), |seed, requests| {
            run_with(&queues(seed, 10, LINE, EXPONENTIAL, load, requests), plan(Builtin::RoundRobin, 10))
        });
        let case = format!("round robin over 10 servers, load {load}: mean time");
        let exact = exact::erlang_m1_mean(10, load);
        Row::of_seeds("V7", case, &means(&outcomes), exact, effort.choose(tolerance, tolerance / 4.0))
    };
    cases.into_iter().map(row).collect()
}
