//! Agents of simulated real servers: both modes carry the questions, and the same words have the same effect.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use crate::support::{native_equipment, scenario};
use evenkeel_engine::Duration;
use evenkeel_engine::plan::{AgentPlan, Builtin, SchedulerPlan};
use evenkeel_sim::{Options, Outcome, Scenario, run};

/// Three servers of two directors' worth of words: `agents` are their lines, `rest` is what happens.
fn three(mode: &str, agents: [&str; 3], rest: &str) -> Scenario {
    let agents = agents.map(|line| if line.is_empty() { String::new() } else { format!("agent = {line}") });
    let [first, second, third] = agents;
    scenario(&format!(
        r#"
[scenario]
name = "three"
duration = "60s"
mode = "{mode}"
[segment.clients]
subnet = "198.51.100.0/24"
[segment.servers]
subnet = "10.0.3.0/24"
[host.client]
count = 10
attach = [{{ segment = "clients", address = "198.51.100.10+i/24" }}]
gateway = "198.51.100.1"
[host.s1]
attach = [{{ segment = "servers", address = "10.0.3.20/24" }}]
gateway = "10.0.3.1"
{first}
[host.s2]
attach = [{{ segment = "servers", address = "10.0.3.21/24" }}]
gateway = "10.0.3.1"
service = {{ time = "10ms", cores = 1 }}
{second}
[host.s3]
attach = [{{ segment = "servers", address = "10.0.3.22/24" }}]
gateway = "10.0.3.1"
{third}
[forwarder.lb]
attach = [
    {{ segment = "clients", address = "198.51.100.1/24" }},
    {{ segment = "servers", address = "10.0.3.1/24" }},
]
config = "many-requests-evenkeel.toml"
[load.users]
from = "client"
to = "10.0.0.3:80/tcp"
arrivals = {{ process = "uniform", rate = "100/s" }}
duration = "30s"
{rest}
"#
    ))
}

/// Flows of each server; the director weighs them 100 each, in turn, and asks their agents every second.
fn flows(scenario: &Scenario) -> (Vec<u64>, Outcome) {
    let mut equipment = native_equipment(scenario, 1);
    let director = &mut equipment[0].plan.directors[0];
    director.scheduler = SchedulerPlan::Builtin(Builtin::WeightedRoundRobin);
    director.servers.truncate(3);
    director.servers.iter_mut().for_each(|server| server.weight = 100);
    director.agent_check = Some(AgentPlan { interval: Duration::from_secs(1), ..AgentPlan::at(8888) });
    let outcome = run(scenario, equipment, Options { seed: Some(1), ..Options::default() }).unwrap();
    (outcome.servers.iter().take(3).map(|server| server.flows).collect(), outcome)
}

/// The same run in both modes: nearly the same flows, since words arrive at the same times.
fn both(agents: [&str; 3], rest: &str) -> Vec<u64> {
    let packet = flows(&three("packet", agents, rest)).0;
    let flow = flows(&three("flow", agents, rest)).0;
    let is_near = packet.iter().zip(&flow).all(|(packet, flow)| packet.abs_diff(*flow) <= 2);
    assert!(is_near, "packet mode {packet:?}, flow mode {flow:?}");
    assert_eq!(flows(&three("flow", agents, rest)).0, flow, "again");
    packet
}

#[test]
fn shares_follow_the_words_in_both_modes() {
    let shares = both(["'100%'", "'50%'", "''"], "");
    // Two fifths, a fifth, two fifths, but for the first moments.
    assert!(shares[0].abs_diff(1_200) < 20 && shares[1].abs_diff(600) < 20, "{shares:?}");
}

#[test]
fn drain_and_down_end_when_the_agent_says_so() {
    let rest = "
[[timeline]]
at = '5s'
do = 'agent'
target = 's1'
says = 'drain'
for = '10s'
[[timeline]]
at = '10s'
do = 'agent'
target = 's3'
says = 'maint'
[[timeline]]
at = '20s'
do = 'agent'
target = 's3'
says = 'ready'
";
    let shares = both(["'ready'", "'up'", "'ready'"], rest);
    // The second is alone for five seconds, and shares with one other for ten.
    let expected = [(5 + 15) * 100 / 3 - 5 * 100 / 3 + 5 * 50, 1_500, 750];
    let near =
        shares.iter().zip(expected).all(|(flows, expected): (&u64, u64)| flows.abs_diff(expected) < 60);
    assert!(near, "{shares:?} {expected:?}");
}

#[test]
fn who_says_nothing_changes_nothing_whether_it_hangs_is_off_or_was_never_there() {
    let off = "
[[timeline]]
at = '5s'
do = 'agent'
target = 's1'
says = '25%'
[[timeline]]
at = '10s'
do = 'hang'
target = 's1'
for = '10s'
";
    let hung = flows(&three("flow", ["'100%'", "'100%'", ""], off)).0;
    let answering = flows(&three(
        "flow",
        ["'100%'", "'100%'", ""],
        &off.replace("'hang'\ntarget = 's1'", "'hang'\ntarget = 's3'"),
    ))
    .0;
    assert_eq!(hung, answering, "a quarter it was, a quarter it stays");
    assert!(hung[0] < hung[1] && hung[1] == hung[2], "{hung:?}");
}

#[test]
fn a_line_can_follow_the_load() {
    for mode in ["packet", "flow"] {
        // The second takes 10 ms for a request and 100 come in a second: alone it could not take a third of ten times as many.
        let busy = three(mode, ["'100%'", "{ says = 'up', full = 4 }", "'100%'"], "");
        let slow = "\n[[timeline]]\nat = '0s'\ndo = 'slow'\ntarget = 's2'\nfactor = 20\n";
        let slowed = three(mode, ["'100%'", "{ says = 'up', full = 4 }", "'100%'"], slow);
        let (idle, slowed) = (flows(&busy).0, flows(&slowed).0);
        assert!(idle[1] > 900, "{mode}: {idle:?}");
        assert!(slowed[1] * 3 < idle[1], "{mode}: {slowed:?}");
    }
}

#[test]
fn a_forwarder_that_begins_anew_forgets_and_asks_again() {
    let rest = "
[[timeline]]
at = '10s'
do = 'stop'
target = 'lb'
for = '5s'
[[timeline]]
at = '11s'
do = 'agent'
target = 's1'
says = 'ready'
";
    for mode in ["packet", "flow"] {
        let (shares, _) = flows(&three(mode, ["'drain'", "'100%'", "'100%'"], rest));
        // Ready undoes nothing: what was said before is forgotten.
        assert!(shares[0] > 400, "{mode}: {shares:?}");
        let without = rest.replace("says = 'ready'", "says = ''");
        let (silent, _) = flows(&three(mode, ["'drain'", "'100%'", "'100%'"], &without));
        assert!(silent[0] > 400, "{mode}: {silent:?}");
    }
}
