//! `evenkeel plugin bench`: nanoseconds for a decision, of a component and of built-in schedulers in the same run.

use std::time::Duration;

use evenkeel_engine::director::native;
use evenkeel_engine::plan::{Builtin, Tuned};
use evenkeel_plugin_host::suite::Subject;
use evenkeel_plugin_host::suite::farm::{Farm, flows, servers};
use evenkeel_plugin_host::{Host, Mode};
use serde_json::{Value, json};

use super::bench_policy;
use super::look::refused;
use crate::commands::cost::{self, Patience};
use crate::progress::Progress;
use crate::{Failure, output};

/// Sizes of batches: one flow alone, what a busy forwarder meets, and the most there is.
const BATCHES: [usize; 3] = [1, 32, 256];
/// Rounds that are measured; the best of them is shown.
const ROUNDS: usize = 40;
/// The most time for one line, whatever the component takes.
const LINE_TIME_MAX: Duration = Duration::from_secs(5);
/// Servers of the director.
const WEIGHTS: [u32; 16] = [1; 16];
/// What it is compared with: the two cheapest of their kinds, and one that looks at every server.
const BASELINES: [Builtin; 3] = [Builtin::RoundRobin, Builtin::Maglev, Builtin::WeightedLeastConnections];

/// Bundled components and the built-in schedulers that they decide like.
const TWINS: [(&str, Builtin); 8] = [
    ("bundled:rr", Builtin::RoundRobin),
    ("bundled:wlc", Builtin::WeightedLeastConnections),
    ("bundled:maglev", Builtin::Maglev),
    ("bundled:maglev-pick", Builtin::Maglev),
    ("bundled:rendezvous", Builtin::Rendezvous),
    ("bundled:p2c", Builtin::PowerOfChoices),
    ("bundled:peak-ewma", Builtin::PeakEwma),
    ("bundled:prequal", Builtin::Prequal),
];

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
    let mut guest = guest(subject, &mut host)?;
    let mut lines = vec![Line { name: component.clone(), nanoseconds: measure(&mut [&mut guest]).concat() }];
    let memory_bytes = faultless(component, &mut guest)?;
    // Its twin, where it is one, and others.
    let twin = TWINS.iter().find(|(name, kind)| name == component && !BASELINES.contains(kind));
    for kind in twin.map(|(_, kind)| *kind).into_iter().chain(BASELINES) {
        progress.stage(format!("measuring {}", kind.name()));
        let nanoseconds = measure(&mut [&mut built_in(kind)]).concat();
        lines.push(Line { name: kind.name().to_owned(), nanoseconds });
    }
    drop(progress);
    if is_json {
        return answer_json(&lines, &json!(memory_bytes));
    }
    output::answer(&table(&lines, &format!("{} KiB of memory.", memory_bytes >> 10)))
}

/// Every bundled component with a built-in sibling, round by round in turn with it.
pub(super) fn run_twins(
    subject: impl Fn(&str) -> Result<Subject, Failure>,
    is_json: bool,
) -> Result<(), Failure> {
    let progress = Progress::start("measuring twins");
    let (mut lines, mut memory) = (Vec::new(), serde_json::Map::new());
    for (component, kind) in TWINS {
        progress.stage(format!("measuring {} and {component}", kind.name()));
        let subject = subject(component)?;
        let mut host = subject.host(Mode::Epoch);
        let (mut sibling, mut guest) = (built_in(kind), guest(&subject, &mut host)?);
        let both = measure(&mut [&mut sibling, &mut guest]);
        memory.insert(component.to_owned(), faultless(component, &mut guest)?.into());
        let [native, guest] = both.as_slice() else { continue };
        let more = native.iter().zip(guest).map(|(native, guest)| guest - native).collect();
        lines.push(Line { name: kind.name().to_owned(), nanoseconds: native.clone() });
        lines.push(Line { name: component.to_owned(), nanoseconds: guest.clone() });
        lines.push(Line { name: MORE.to_owned(), nanoseconds: more });
    }
    drop(progress);
    if is_json {
        return answer_json(&lines, &Value::Object(memory));
    }
    output::answer(&table(&lines, "The third line of each is what the component costs more."))
}

/// The name of a line that is a difference.
const MORE: &str = "  more";

fn guest(subject: &Subject, host: &mut Host) -> Result<Farm, Failure> {
    let scheduler = subject.scheduler(host).map_err(|reason| refused(&subject.component, &reason))?;
    Ok(Farm::new(scheduler, servers(&WEIGHTS)))
}

fn built_in(kind: Builtin) -> Farm {
    Farm::new(native(&Tuned::from(kind), 7), servers(&WEIGHTS))
}

/// The memory of a component that has answered every question; of another one there is nothing to tell.
fn faultless(component: &str, guest: &mut Farm) -> Result<u64, Failure> {
    let stats = guest.scheduler.stats();
    if stats.faults == 0 {
        return Ok(stats.memory_bytes);
    }
    let reason = guest.scheduler.take_fault().map_or_else(String::new, |fault| fault.reason);
    Err(refused(component, &format!("{} faults while it was measured: {reason}", stats.faults)))
}

fn answer_json(lines: &[Line], memory_bytes: &Value) -> Result<(), Failure> {
    let list: Vec<Value> = lines
        .iter()
        .map(|line| json!({ "name": line.name.trim(), "nanoseconds": line.nanoseconds }))
        .collect();
    let value = json!({
        "batches": BATCHES, "servers": WEIGHTS.len(), "schedulers": list,
        "memory_bytes": memory_bytes, "is_optimised": !cfg!(debug_assertions),
    });
    output::answer(&format!("{value:#}\n"))
}

/// Nanoseconds of each, for each size of batch.
fn measure(farms: &mut [&mut Farm]) -> Vec<Vec<f64>> {
    let flows = flows(0, cost::FLOWS);
    let patience = Patience { rounds: ROUNDS, limit: LINE_TIME_MAX };
    let mut all = vec![Vec::with_capacity(BATCHES.len()); farms.len()];
    for batch in BATCHES {
        let best = cost::best(farms, &flows, batch, patience);
        all.iter_mut().zip(best).for_each(|(all, best)| all.push(best));
    }
    all
}

fn table(lines: &[Line], last: &str) -> String {
    let width = lines.iter().map(|line| line.name.len()).max().unwrap_or(0).max(9);
    let mut text = format!("{:width$}", "scheduler");
    for batch in BATCHES {
        let head = if batch == 1 { "alone".to_owned() } else { format!("of {batch}") };
        text.push_str(&format!("  {head:>10}"));
    }
    text.push('\n');
    for line in lines {
        text.push_str(&format!("{:width$}", line.name));
        for nanoseconds in &line.nanoseconds {
            let sign = if line.name == MORE && *nanoseconds >= 0.0 { "+" } else { "" };
            text.push_str(&format!("  {:>7} ns", format!("{sign}{nanoseconds:.1}")));
        }
        text.push('\n');
    }
    let servers = WEIGHTS.len();
    text.push_str(&format!("\nFor each new flow, alone or in batches, over {servers} servers. {last}\n"));
    if cfg!(debug_assertions) {
        text.push_str("This program is not optimised: only the difference between lines means something.\n");
    }
    text
}
