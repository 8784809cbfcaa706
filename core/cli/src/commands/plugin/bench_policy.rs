//! `evenkeel plugin bench` of a policy: nanoseconds for a decision, of a component and of native rules in the same run.

use std::time::{Duration, Instant};

use evenkeel_engine::device::BATCH_MAX;
use evenkeel_engine::plan::{FlowAction, FlowPlan, FlowRule, Prefix, Test};
use evenkeel_engine::policy::rules::Rules;
use evenkeel_engine::policy::{PolicyAnswer, PolicyFlow};
use evenkeel_engine::wire::{HashKey, Protocol};
use evenkeel_plugin_host::Mode;
use evenkeel_plugin_host::suite::{Subject, policy_flows};
use serde_json::{Value, json};

use super::look::refused;
use crate::progress::Progress;
use crate::{Failure, output};

/// Sizes of batches: one flow alone, what a busy forwarder meets, and the most there is.
const BATCHES: [usize; 3] = [1, 32, BATCH_MAX];
/// Flows of one round, so that rules and tables are looked at all over.
const FLOWS: u32 = 4_096;
/// Rounds that are measured; the median of them is shown.
const ROUNDS: usize = 15;
/// The most time for one line, whatever the component takes.
const LINE_TIME_MAX: Duration = Duration::from_secs(5);
/// How many native rules it is compared with.
const RULES: [u32; 3] = [10, 1_000, 10_000];

/// One policy's nanoseconds for a decision, by size of batch.
struct Line {
    name: String,
    nanoseconds: Vec<f64>,
}

pub(super) fn run(subject: &Subject, is_json: bool) -> Result<(), Failure> {
    let component = &subject.component;
    let progress = Progress::start(format!("measuring {component}"));
    let flows = policy_flows(0, FLOWS);
    let now = evenkeel_engine::Instant::ZERO.after(Duration::from_secs(1));
    let mut host = subject.host(Mode::Epoch);
    let mut policy = subject.policy(&mut host).map_err(|reason| refused(component, &reason))?;
    let mut answers = vec![PolicyAnswer::SKIP; BATCH_MAX];
    let ask = |flows: &[PolicyFlow]| {
        policy.decide(flows, answers.get_mut(..flows.len()).unwrap_or_default(), now);
    };
    let mut lines = vec![Line { name: component.clone(), nanoseconds: measure(&flows, ask) }];
    let stats = policy.stats();
    if stats.faults > 0 {
        let reason = policy.take_fault().map_or_else(String::new, |fault| fault.reason);
        return Err(refused(component, &format!("{} faults while it was measured: {reason}", stats.faults)));
    }
    for count in RULES {
        progress.stage(format!("measuring {count} native rules"));
        let mut rules = Rules::new(native(count), HashKey([1, 2]));
        let ask = |flows: &[PolicyFlow]| {
            for flow in flows {
                std::hint::black_box(rules.decide_one(flow, now));
            }
        };
        lines.push(Line { name: format!("{count} native rules"), nanoseconds: measure(&flows, ask) });
    }
    drop(progress);
    if is_json {
        let list: Vec<Value> =
            lines.iter().map(|line| json!({ "name": line.name, "nanoseconds": line.nanoseconds })).collect();
        let value = json!({
            "batches": BATCHES, "policies": list, "memory_bytes": stats.memory_bytes,
            "is_optimised": !cfg!(debug_assertions),
        });
        return output::answer(&format!("{value:#}\n"));
    }
    output::answer(&table(&lines, stats.memory_bytes))
}

/// Rules about networks and ports, of which some meet the flows.
fn native(count: u32) -> Vec<FlowPlan> {
    let rule = |number: u32| {
        let address = std::net::Ipv4Addr::from_bits(0xc612_0000_u32.saturating_add(number * 2));
        let port = u16::try_from(number % 1_024).unwrap_or(0) + 1;
        FlowRule::matching(vec![
            Test::source(Prefix { address: address.into(), length: 31 }),
            Test::Protocol(Protocol::TCP),
            Test::destination_port(port..=port),
        ])
    };
    vec![FlowPlan {
        name: "some".to_owned(),
        action: FlowAction::Deny,
        rules: (0..count).map(rule).collect(),
    }]
}

/// The median over some rounds, for each size of batch.
fn measure(flows: &[PolicyFlow], mut ask: impl FnMut(&[PolicyFlow])) -> Vec<f64> {
    let mut measure = |batch: &usize| {
        let began = Instant::now();
        let mut rounds = Vec::with_capacity(ROUNDS);
        while rounds.len() < ROUNDS && began.elapsed() < LINE_TIME_MAX {
            let start = Instant::now();
            flows.chunks(*batch).for_each(&mut ask);
            rounds.push(start.elapsed().as_secs_f64() * 1e9 / f64::from(FLOWS));
        }
        rounds.sort_by(f64::total_cmp);
        rounds.get(rounds.len() / 2).copied().unwrap_or(f64::NAN)
    };
    BATCHES.iter().map(&mut measure).collect()
}

fn table(lines: &[Line], memory_bytes: u64) -> String {
    let width = lines.iter().map(|line| line.name.len()).max().unwrap_or(0).max(9);
    let mut text = format!("{:width$}", "policy");
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
    let memory = memory_bytes >> 10;
    text.push_str(&format!("\nFor each new flow, alone or in batches. {memory} KiB of memory.\n"));
    if cfg!(debug_assertions) {
        text.push_str("This program is not optimised: only the difference between lines means something.\n");
    }
    text
}
