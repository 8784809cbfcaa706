//! The checker finds why flows break, in scenarios in which it is made to happen: its cause, and what to do in words.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::time::Duration;

use crate::support::{library, native_equipment, run_native, scenario};
use evenkeel_engine::plan::{Builtin, SchedulerPlan};
use evenkeel_sim::{BreakCause, Equipment, Options, Outcome, Scenario, run};

/// A library scenario with other loads, and with more behind it.
fn changed(name: &str, load: &str, more: &str) -> Scenario {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios").join(name);
    let text = std::fs::read_to_string(path).unwrap();
    let (machines, _) = text.split_once("[load.").unwrap();
    scenario(&format!("{machines}\n{load}\n{more}").replace("duration = \"30s\"", "duration = \"10m\""))
}

fn run_with(scenario: &Scenario, change: impl FnOnce(&mut [Equipment])) -> Outcome {
    let mut equipment = native_equipment(scenario, 1);
    change(&mut equipment);
    let outcome = run(scenario, equipment, Options::default()).unwrap();
    assert!(outcome.is_conserved, "{}", outcome.to_text());
    assert_eq!(outcome.checks.breaks.values().sum::<u64>(), outcome.flows.broken);
    outcome
}

/// Asserts that flows broke for this reason alone, and gives their number and the sentences.
fn only(outcome: &Outcome, cause: BreakCause) -> (u64, String) {
    let breaks = &outcome.checks.breaks;
    assert_eq!(breaks.keys().collect::<Vec<_>>(), [&cause], "{breaks:?}\n{}", outcome.to_text());
    (breaks[&cause], outcome.checks.sentences.join("\n"))
}

const LONG: &str = r#"
[load.web]
from = "client"
to = "10.0.0.3:80/tcp"
arrivals = { process = "poisson", rate = "20/s" }
flows = 100
rounds = 20
pause = "500ms"
"#;

#[test]
fn answers_that_take_another_way_are_named_with_both_ways() {
    let outcome = run_with(&library("d09-outflow-table-missing.toml"), |_| {});
    let (count, words) = only(&outcome, BreakCause::AsymmetricPath);
    assert_eq!(count, 5);
    assert!(words.contains("requests to 10.0.0.3 go by b, lb, server"), "{words}");
    assert!(words.contains("answers were last seen at a: the path is asymmetric"), "{words}");
    assert!(words.contains("look at rp_filter of a"), "{words}");
}

#[test]
fn a_real_server_that_answers_past_the_forwarder_is_told_what_to_do() {
    let outcome = run_with(&library("nat-one-subnet.toml"), |_| {});
    let (count, words) = only(&outcome, BreakCause::AsymmetricPath);
    assert_eq!(count, 5);
    assert!(words.contains("make it the gateway of server, or use source NAT"), "{words}");
}

#[test]
fn requests_that_no_real_server_gets_are_said_to_end_at_the_forwarder() {
    let outcome = run_with(&library("d05-dsr-behind-router.toml"), |_| {});
    let (count, words) = only(&outcome, BreakCause::Unserved);
    assert_eq!(count, 5);
    assert!(words.contains("reach lb, and none of them a real server"), "{words}");
}

#[test]
fn a_real_server_that_stops_is_the_floor() {
    let stop = "[[timeline]]\nat = \"5s\"\ndo = \"stop\"\ntarget = \"server.1\"\n";
    let outcome = run_with(&changed("nat-two-nic.toml", LONG, stop), |equipment| {
        // Who knew it first still has half of the flows; new ones go elsewhere.
        equipment[0].plan.directors[0].servers.iter_mut().for_each(|server| server.weight = 1);
    });
    let count = outcome.checks.breaks[&BreakCause::ServerGone];
    assert!(count > 10, "{}", outcome.to_text());
    assert!(outcome.unavoidable >= count, "{} of {count}", outcome.unavoidable);
}

#[test]
fn a_route_that_moves_flows_to_a_forwarder_without_them_is_named() {
    let scenario = library("ecmp-four-forwarders.toml");
    let outcome = run_with(&scenario, |equipment| {
        for one in equipment {
            one.plan.directors[0].scheduler = SchedulerPlan::Builtin(Builtin::RoundRobin);
        }
    });
    let (count, words) = only(&outcome, BreakCause::ForwarderMoved);
    assert!(count > 20, "{}", outcome.to_text());
    assert!(words.contains("which does not know them: use a scheduler that picks by a hash"), "{words}");
    assert_eq!(outcome.unavoidable, 0, "somebody could have kept them");
}

#[test]
fn a_forwarder_that_begins_anew_is_the_cause() {
    let restart = "[[timeline]]\nat = \"5s\"\ndo = \"stop\"\ntarget = \"lb\"\nfor = \"1s\"\n";
    let outcome = run_with(&changed("nat-two-nic.toml", LONG, restart), |equipment| {
        equipment[0].plan.directors[0].scheduler = SchedulerPlan::Builtin(Builtin::RoundRobin);
    });
    let (count, words) = only(&outcome, BreakCause::ForwarderGone);
    assert!(count > 10, "{}", outcome.to_text());
    assert!(words.contains("broke because lb was away"), "{words}");
}

#[test]
fn silence_beyond_the_timeout_is_the_cause() {
    let outcome = run_with(&changed("nat-two-nic.toml", LONG, ""), |equipment| {
        let plan = &mut equipment[0].plan;
        plan.timeouts.tcp_established = Duration::from_millis(300);
        plan.directors[0].scheduler = SchedulerPlan::Builtin(Builtin::RoundRobin);
    });
    let (count, words) = only(&outcome, BreakCause::Evicted);
    assert!(count > 50, "{}", outcome.to_text());
    assert!(words.contains("silent for longer than its timeouts"), "{words}");
}

#[test]
fn datagrams_that_are_dealt_out_one_by_one_break_flows_of_several() {
    let load = r#"
[load.names]
from = "client"
to = "10.0.0.3:53/udp"
arrivals = { process = "poisson", rate = "20/s" }
flows = 50
rounds = 4
"#;
    let outcome = run_with(&changed("nat-two-nic.toml", load, ""), |equipment| {
        for director in &mut equipment[0].plan.directors {
            director.is_one_packet = true;
            director.scheduler = SchedulerPlan::Builtin(Builtin::RoundRobin);
        }
    });
    let (count, words) = only(&outcome, BreakCause::TableMoved);
    assert!(count > 10, "{}", outcome.to_text());
    assert!(words.contains("broke because lb sent them to server."), "{words}");
}

#[test]
fn scenarios_in_which_all_is_well_have_no_findings() {
    for name in ["nat-two-nic.toml", "nat-udp-snat.toml", "dsr.toml", "tunnel.toml", "d07-one-arm-snat.toml"]
    {
        let outcome = run_native(&library(name), Options::default());
        assert_eq!(outcome.checks, evenkeel_sim::Findings::default(), "{name}");
    }
}

#[test]
fn a_weight_of_zero_is_obeyed_while_flows_come() {
    let drain = "[[timeline]]\nat = \"3s\"\ndo = \"weight\"\ntarget = \"lb\"\ndirector = \"web\"\nserver = \"s2\"\nweight = 0\n";
    let load = LONG.replace("rounds = 20", "rounds = 1").replace("flows = 100", "flows = 300");
    let outcome = run_with(&changed("nat-two-nic.toml", &load, drain), |_| {});
    assert_eq!(outcome.checks.counts.out_of_service, 0, "{}", outcome.to_text());
    let drained = outcome.servers.iter().find(|row| row.director == "web" && row.server == "s2").unwrap();
    assert!(drained.flows > 0 && drained.flows < 40, "{}", outcome.to_text());
}
