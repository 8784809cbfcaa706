//! `evenkeel plugin bench`: nanoseconds for a decision, of a component and of built-in schedulers in the same run.

use std::time::{Duration, Instant};

use evenkeel_engine::director::native;
use evenkeel_engine::plan::{Builtin, Tuned};
use evenkeel_plugin_host::Mode;
use evenkeel_plugin_host::suite::Subject;
use evenkeel_plugin_host::suite::farm::{Farm, flows, servers};
use serde_json::{Value, json};

use super::bench_policy;
use super::look::refused;
use crate::progress::Progress;
use crate::{Failure, output};

/// Sizes of batches: one flow alone, what a busy forwarder meets, and the most there is.
const BATCHES: [usize; 3] = [1, 32, 256];
/// Flows of one round, so that tables are looked up all over.
const FLOWS: u32 = 4_096;
/// Rounds that are measured; the median of them is shown.
const ROUNDS: usize = 15;
/// The most time for one line, whatever the component takes.
const LINE_TIME_MAX: Duration = Duration::from_secs(5);
/// Servers of the director.
const WEIGHTS: [u32; 16] = [1; 16];
/// What it is compared with: the two cheapest of their kinds, and one that looks at every server.
const BASELINES: [Builtin; 3] = [Builtin::RoundRobin, Builtin::Maglev, Builtin::WeightedLeastConnections];

/// One scheduler's nanoseconds for a decision, by size of batch.
struct Line {
    name: String,
    nanoseconds: Vec<f64>,
}

pub(super) fn run(subject: &Subject, is_json: bool) -> Result<(), Failure> {
    let component = &subject.component;
    if subject.inspect().is_ok_and(|portrait| portrait.is_policy()) {
        return bench_policy::run(subject, is_json);
    }
    let progress = Progress::start(format!("measuring {component}"));
    let mut host = subject.host(Mode::Epoch);
    let scheduler = subject.scheduler(&mut host).map_err(|reason| refused(component, &reason))?;
    let mut farm = Farm::new(scheduler, servers(&WEIGHTS));
    let mut lines = vec![Line { name: component.clone(), nanoseconds: measure(&mut farm) }];
    let stats = farm.scheduler.stats();
    if stats.faults > 0 {
        let reason = farm.scheduler.take_fault().map_or_else(String::new, |fault| fault.reason);
        return Err(refused(component, &format!("{} faults while it was measured: {reason}", stats.faults)));
    }
    // Its twin, where it is one, and others.
    let twin = component.strip_prefix("bundled:").and_then(|name| {
        Builtin::ALL.iter().copied().find(|kind| kind.name() == name && !BASELINES.contains(kind))
    });
    for kind in twin.into_iter().chain(BASELINES) {
        progress.stage(format!("measuring {}", kind.name()));
        let mut farm = Farm::new(native(&Tuned::from(kind), 7), servers(&WEIGHTS));
        lines.push(Line { name: kind.name().to_owned(), nanoseconds: measure(&mut farm) });
    }
    drop(progress);
    if is_json {
        let list: Vec<Value> =
            lines.iter().map(|line| json!({ "name": line.name, "nanoseconds": line.nanoseconds })).collect();
        let value = json!({
            "batches": BATCHES, "servers": WEIGHTS.len(), "schedulers": list,
            "memory_bytes": stats.memory_bytes, "is_optimised": !cfg!(debug_assertions),
        });
        return output::answer(&format!("{value:#}\n"));
    }
    output::answer(&table(&lines, stats.memory_bytes))
}

/// The median over some rounds, for each size of batch.
fn measure(farm: &mut Farm) -> Vec<f64> {
    let flows = flows(0, FLOWS);
    let measure = |batch: &usize| {
        let began = Instant::now();
        let mut rounds = Vec::with_capacity(ROUNDS);
        while rounds.len() < ROUNDS && began.elapsed() < LINE_TIME_MAX {
            farm.change(servers(&WEIGHTS));
            let start = Instant::now();
            std::hint::black_box(farm.pick(&flows, *batch));
            rounds.push(start.elapsed().as_secs_f64() * 1e9 / f64::from(FLOWS));
        }
        rounds.sort_by(f64::total_cmp);
        rounds.get(rounds.len() / 2).copied().unwrap_or(f64::NAN)
    };
    BATCHES.iter().map(measure).collect()
}

fn table(lines: &[Line], memory_bytes: u64) -> String {
    let width = lines.iter().map(|line| line.name.len()).max().unwrap_or(0).max(9);
    let mut text = format!("{:width$}", "scheduler");
    for batch in BATCHES {
        let head = if batch == 1 { "alone".to_owned() } else { format!("of {batch}") };
        text.push_str(&format!("  {head:>9}"));
    }
    text.push('\n');
    for line in lines {
        text.push_str(&format!("{:width$}", line.name));
        for nanoseconds in &line.nanoseconds {
            text.push_str(&format!("  {nanoseconds:>6.1} ns"));
        }
        text.push('\n');
    }
    text.push_str(&format!(
        "\nFor each new flow, alone or in batches, over {} servers. {} KiB of memory.\n",
        WEIGHTS.len(),
        memory_bytes >> 10
    ));
    if cfg!(debug_assertions) {
        text.push_str("This program is not optimised: only the difference between lines means something.\n");
    }
    text
}
