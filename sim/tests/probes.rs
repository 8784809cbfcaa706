//! Schedulers that ask real servers how they are: both modes carry the questions, and a server that is slow is found out.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use crate::support::{native_equipment, scenario};
use evenkeel_engine::plan::{Builtin, Options as Tuning, ProbeSource, SchedulerPlan, Tuned};
use evenkeel_sim::{Options, Outcome, Scenario, run};

/// Twenty servers at half of what they can do, the first of them fifty times as slow.
fn one_is_slow(mode: &str) -> Scenario {
    scenario(&format!(
        r#"
[scenario]
name = "one-is-slow"
duration = "30s"
mode = "{mode}"

[segment.clients]
subnet = "198.51.100.0/24"

[segment.servers]
subnet = "10.0.3.0/24"

[host.client]
count = 10
attach = [{{ segment = "clients", address = "198.51.100.10+i/24" }}]
gateway = "198.51.100.1"

[host.server]
count = 20
attach = [{{ segment = "servers", address = "10.0.3.20+i/24" }}]
gateway = "10.0.3.1"
service = {{ time = {{ law = "exponential", mean = "1ms" }}, cores = 2 }}

[forwarder.lb]
attach = [
    {{ segment = "clients", address = "198.51.100.1/24" }},
    {{ segment = "servers", address = "10.0.3.1/24" }},
]
config = "many-requests-evenkeel.toml"

[load.users]
from = "client"
to = "10.0.0.3:80/tcp"
arrivals = {{ process = "poisson", rate = "20000/s" }}
flows = 3000

[[timeline]]
at = "0s"
do = "slow"
target = "server.0"
factor = 50
"#
    ))
}

fn run_by(scenario: &Scenario, scheduler: SchedulerPlan) -> Outcome {
    let mut equipment = native_equipment(scenario, 1);
    equipment[0].plan.directors[0].scheduler = scheduler;
    run(scenario, equipment, Options { seed: Some(1), ..Options::default() }).unwrap()
}

fn asking() -> SchedulerPlan {
    let options = Tuning { probe_source: Some(ProbeSource::Servers), ..Tuning::default() };
    SchedulerPlan::Tuned(Tuned { kind: Builtin::Prequal, options })
}

#[test]
fn a_slow_server_is_found_by_asking_in_both_modes() {
    for mode in ["packet", "flow"] {
        let scenario = one_is_slow(mode);
        let flows = |outcome: &Outcome| outcome.servers.iter().map(|server| server.flows).collect::<Vec<_>>();
        let in_turn = flows(&run_by(&scenario, SchedulerPlan::Builtin(Builtin::RoundRobin)));
        let outcome = run_by(&scenario, asking());
        let asked = flows(&outcome);
        assert!(in_turn[0] > 100, "{mode}: who only counts does not see it: {in_turn:?}");
        assert!(2 * asked[0] < in_turn[0], "{mode}: who asks, does: {asked:?}");
        assert!(asked[1..].iter().all(|flows| *flows > 75), "{mode}: {asked:?}");
        let again = run_by(&scenario, asking());
        assert_eq!(again.decision_hash, outcome.decision_hash, "{mode}");
    }
}

#[test]
fn a_server_whose_programs_hang_does_not_answer() {
    for mode in ["packet", "flow"] {
        let mut hung = one_is_slow(mode);
        let mut all = hung.timeline[0].clone();
        let evenkeel_sim::scenario::Action::Slow { targets, .. } = all.action else { unreachable!() };
        all.action = evenkeel_sim::scenario::Action::Hang { targets, downtime: None };
        hung.timeline = vec![all];
        hung.duration = evenkeel_engine::Duration::from_secs(1);
        let flows = run_by(&hung, asking()).servers[0].flows;
        assert!(flows < 40, "{mode}: it is never in the pool: {flows}");
    }
}
