//! V8 to V11: schedulers that look at loads, against the theory of very many servers and against each other.

use evenkeel_engine::plan::{Builtin, Options, Tuned};
use evenkeel_sim::flow_mode::Outcome;
use evenkeel_sim::work::QueueSpec;

use crate::exact;
use crate::flow_support::{plan, run_with};
use crate::queues::{EXPONENTIAL, means, p99s, queues, runs};
use crate::row::{Effort, Row};

fn choices(choices: u32) -> Tuned {
    let options = Options { choices: Some(choices), ..Options::default() };
    Tuned { kind: Builtin::PowerOfChoices, options }
}

fn many(effort: Effort, scheduler: Tuned, servers: usize, load: f64, requests: (u64, u64)) -> Vec<Outcome> {
    runs(effort, requests, |seed, requests| {
        let queue = QueueSpec::default();
        run_with(&queues(seed, servers, queue, EXPONENTIAL, load, requests), plan(scheduler, servers))
    })
}

/// With more servers the mean comes nearer to that of infinitely many, from above.
fn supermarket(effort: Effort, id: &'static str, d: u32, cases: &[(f64, f64)]) -> Vec<Row> {
    let row = |(load, tolerance): &(f64, f64)| {
        let servers = effort.choose(200, 1_000);
        let outcomes = many(effort, choices(d), servers, *load, (30_000, 500_000));
        let case = format!("shortest of {d} of {servers} queues, load {load}: mean time, of infinitely many");
        let exact = exact::supermarket_mean(d, *load);
        Row::of_seeds(id, case, &means(&outcomes), exact, effort.choose(*tolerance, 0.02))
    };
    cases.iter().map(row).collect()
}

pub fn v8(effort: Effort) -> Vec<Row> {
    let quick = [(0.5, 0.02), (0.7, 0.02), (0.9, 0.04)];
    let long = [0.5, 0.7, 0.8, 0.9, 0.95].map(|load| (load, 0.01));
    supermarket(effort, "V8", 2, effort.choose(&quick[..], &long[..]))
}

pub fn v9(effort: Effort) -> Vec<Row> {
    let quick = [(0.5, 0.02), (0.9, 0.04)];
    let long = [0.5, 0.7, 0.8, 0.9, 0.95].map(|load| (load, 0.01));
    supermarket(effort, "V9", 3, effort.choose(&quick[..], &long[..]))
}

/// The ladder of schedulers at 100 servers and load 0.9. Where theory has no closed form, the exact value is that of an
/// independent simulation, to three digits.
pub fn v10(effort: Effort) -> Vec<Row> {
    let kind = |kind: Builtin| Tuned::from(kind);
    let (servers, load) = (100, 0.9);
    // Name, scheduler, mean, 99 % and tolerances of both in a quick run.
    let random = (exact::mm1_mean(load), exact::mm1_quantile(load, 0.99));
    let turns = (exact::erlang_m1_mean(100, load), exact::erlang_m1_quantile(100, load, 0.99));
    let ladder = [
        ("random (hash of fresh flows)", kind(Builtin::Modulo), random, (0.08, 0.14)),
        ("round robin", kind(Builtin::RoundRobin), turns, (0.06, 0.09)),
        ("shortest of 2", choices(2), (2.656, 8.94), (0.04, 0.04)),
        ("shortest of 3", choices(3), (2.078, 7.47), (0.04, 0.04)),
        ("an idle one", kind(Builtin::JoinIdleQueue), (1.076, 5.01), (0.02, 0.03)),
        ("the shortest", kind(Builtin::JoinShortestQueue), (1.065, 4.88), (0.02, 0.03)),
    ];
    let mut rows = Vec::new();
    for (name, scheduler, (mean, p99), (mean_tolerance, p99_tolerance)) in ladder {
        let outcomes = many(effort, scheduler, servers, load, (120_000, 1_000_000));
        let less = effort.choose(1.0, 0.5);
        let case = format!("{name}, 100 servers, load 0.9: mean time");
        rows.push(Row::of_seeds("V10", case, &means(&outcomes), mean, mean_tolerance * less));
        let case = format!("{name}, 100 servers, load 0.9: 99 % of all times");
        rows.push(Row::of_seeds("V10", case, &p99s(&outcomes), p99, p99_tolerance * less));
    }
    rows
}

/// Join-idle-queue waits a small part of what the shortest of two does: 30 times less in the limit of Lu et al., "Join-
/// Idle-Queue", Performance Evaluation 2011; at 100 servers and one dispatcher 21.9 times.
pub fn v11(effort: Effort) -> Vec<Row> {
    let waits = |scheduler: Tuned| -> Vec<f64> {
        let outcomes = many(effort, scheduler, 100, 0.9, (120_000, 1_000_000));
        means(&outcomes).into_iter().map(|mean| mean - 1.0).collect()
    };
    let (two, idle) = (waits(choices(2)), waits(Builtin::JoinIdleQueue.into()));
    // The same seed draws the same arrivals and the same work for both.
    let ratios: Vec<f64> = two.iter().zip(&idle).map(|(two, idle)| two / idle).collect();
    let case = "waiting: shortest of 2 by an idle one, 100 servers, load 0.9";
    vec![Row::of_seeds("V11", case, &ratios, 21.9, effort.choose(0.25, 0.08))]
}
