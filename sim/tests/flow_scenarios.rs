//! The same scenario in packet mode and in flow mode: real servers get the same flows, and answers differ by the time that
//! packets are on their way.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use crate::support;
use evenkeel_engine::plan::{Builtin, SchedulerPlan};
use evenkeel_sim::scenario::Mode;
use evenkeel_sim::{Equipment, Options, Outcome, Scenario, run};

/// The outcomes of packet mode and flow mode, with the equipment changed by `change`.
fn both(scenario: &Scenario, seed: u64, change: impl Fn(&mut Equipment)) -> [Outcome; 2] {
    [Mode::Packet, Mode::Flow].map(|mode| {
        let scenario = Scenario { mode, ..scenario.clone() };
        let mut equipment = support::native_equipment(&scenario, seed);
        equipment.iter_mut().for_each(&change);
        run(&scenario, equipment, Options { seed: Some(seed), ..Options::default() }).unwrap()
    })
}

/// Every real server of every director: its name, flows that it was given, and flows that it completed.
fn counts(outcome: &Outcome) -> Vec<(String, u64, u64)> {
    let row = |server: &evenkeel_sim::report::ServerReport| {
        (format!("{}.{}", server.director, server.server), server.flows, server.answered)
    };
    outcome.servers.iter().map(row).collect()
}

#[test]
fn servers_get_the_same_flows_in_both_modes() {
    for name in ["demo", "dsr", "lb-rp-two-port", "nat-one-nic", "nat-two-nic", "nat-udp-snat", "tunnel"] {
        let scenario = support::library(&format!("{name}.toml"));
        for seed in [scenario.seed, 3] {
            let [packet, flow] = both(&scenario, seed, |_| {});
            assert!(flow.is_conserved && flow.flows.completed > 0, "{name}");
            assert_eq!(packet.flows, flow.flows, "{name}, seed {seed}");
            assert_eq!(counts(&packet), counts(&flow), "{name}, seed {seed}");
        }
    }
}

#[test]
fn every_scheduler_that_hashes_gives_the_same_flows_in_both_modes() {
    let scenario = support::library("nat-two-nic.toml");
    let hashing = [
        Builtin::SourceHashing,
        Builtin::Maglev,
        Builtin::MaglevHashing,
        Builtin::Modulo,
        Builtin::Source,
        Builtin::Rendezvous,
        Builtin::WeightedRendezvous,
        Builtin::Ring,
        Builtin::Jump,
        Builtin::Anchor,
        Builtin::Dx,
        Builtin::MultiProbe,
    ];
    for kind in hashing {
        let [packet, flow] = both(&scenario, 5, |equipment| {
            for director in &mut equipment.plan.directors {
                director.scheduler = SchedulerPlan::Builtin(kind);
            }
        });
        assert_eq!(counts(&packet), counts(&flow), "{kind:?}");
    }
}

/// Four forwarders behind a router that loses one and has it back. The router's hash is another one in flow mode, so the
/// forwarders' shares differ; the real servers' do not.
#[test]
fn forwarders_that_agree_give_the_same_flows_in_both_modes() {
    let scenario = support::library("ecmp-four-forwarders.toml");
    let [packet, flow] = both(&scenario, 3, |_| {});
    assert_eq!(packet.flows, flow.flows);
    let answered = |outcome: &Outcome| -> Vec<u64> {
        outcome.servers.iter().take(4).map(|server| server.answered).collect()
    };
    assert_eq!(answered(&packet), answered(&flow));
    let opened = |outcome: &Outcome| outcome.forwarders.iter().map(|one| one.flows_opened).sum::<u64>();
    assert!(opened(&flow) > 250 && opened(&packet) > 250, "flows moved, and were taken up in their middle");
}

/// One client, three real servers in a row, and links that take always the same time.
fn timed(protocol: &str, mean: &str, more: &str) -> Scenario {
    support::scenario(&format!(
        r#"
[scenario]
name = "timed"
duration = "1h"

[segment.clients]
subnet = "198.51.100.0/24"

[segment.servers]
subnet = "10.0.3.0/24"

[host.client]
attach = [{{ segment = "clients", address = "198.51.100.10/24" }}]
gateway = "198.51.100.1"

[host.server]
count = 3
attach = [{{ segment = "servers", address = "10.0.3.20+i/24" }}]
gateway = "10.0.3.1"
service = {{ time = {{ law = "exponential", mean = "{mean}" }} }}

[forwarder.lb]
attach = [
    {{ segment = "clients", address = "198.51.100.1/24" }},
    {{ segment = "servers", address = "10.0.3.1/24" }},
]
config = "nat-two-nic-evenkeel.toml"

[link.access]
ends = ["client", "clients"]
delay = "2ms"

[link.rack]
ends = ["server", "servers"]
delay = "1ms"

[load.ask]
from = "client"
to = "{protocol}"
arrivals = {{ process = "uniform", rate = "100/s" }}
flows = 2000
{more}
"#
    ))
}

#[test]
fn answers_take_longer_in_packet_mode_by_the_time_on_the_way() {
    let scenario = timed("10.0.0.3:53/udp", "8ms", "");
    let [packet, flow] = both(&scenario, 1, |_| {});
    assert_eq!(counts(&packet), counts(&flow));
    assert_eq!([packet.latency.answers, flow.latency.answers], [2_000, 2_000]);
    // Every request meets the same service times in the same order, so each waits as long. There and back: 3 ms of
    // delay each way, and below a hundredth of that for the serialisation of frames of 106 bytes and ARP in the beginning.
    let way = i128::from(packet.latency.mean_ns) - i128::from(flow.latency.mean_ns);
    assert!((6_000_000..6_060_000).contains(&way), "{way} ns");
    assert!(flow.latency.mean_ns > 8_000_000, "{} ns", flow.latency.mean_ns);
}

#[test]
fn the_timeline_does_the_same_in_both_modes() {
    // Each entry lies between two arrivals, with nothing on the way: flows open every 10 ms.
    let timeline = r#"
[[timeline]]
at = "2005ms"
do = "weight"
target = "lb"
director = "names"
server = "s1"
weight = 1
for = "3s"

[[timeline]]
at = "8005ms"
do = "slow"
target = "server.1"
factor = 2
for = "2s"

[[timeline]]
every = { process = "poisson", rate = "1/s" }
start = "12s"
count = 4
do = "hang"
target = "server.*"
for = "100ms"
"#;
    let scenario = timed("10.0.0.3:53/udp", "8ms", timeline);
    let [packet, flow] = both(&scenario, 1, |_| {});
    assert_eq!(packet.flows, flow.flows);
    assert_eq!(counts(&packet), counts(&flow));
    let weights = counts(&both(&timed("10.0.0.3:53/udp", "8ms", ""), 1, |_| {})[1]);
    assert_ne!(counts(&flow), weights, "the weight was another one for a while");
}

#[test]
fn a_server_that_stops_breaks_the_flows_that_it_has() {
    let stop = r#"
rounds = 5
pause = "50ms"

[[timeline]]
at = "5s"
do = "stop"
target = "server.2"
"#;
    let scenario = Scenario { mode: Mode::Flow, ..timed("10.0.0.3:80/tcp", "1ms", stop) };
    let outcome = support::run_native(&scenario, Options::default());
    assert!(outcome.is_conserved);
    let gone = outcome.flows.causes["server_gone"];
    assert_eq!((gone, outcome.unavoidable), (outcome.flows.broken, outcome.flows.broken));
    // Weights 4, 2 and 1: a seventh of the flows that open in 15 s meets a server that nobody has taken out.
    assert!((200..280).contains(&gone), "{gone}");
    assert_eq!(outcome.flows.started, outcome.flows.completed + outcome.flows.broken);
    assert_eq!(outcome.record.mode, evenkeel_sim::record::data::Mode::Flow);
}

#[test]
fn a_run_in_flow_mode_repeats_and_its_report_has_no_packets() {
    let scenario = Scenario { mode: Mode::Flow, ..support::library("nat-two-nic.toml") };
    let [first, second] = [(), ()].map(|()| support::run_native(&scenario, Options::default()));
    assert_eq!(first, second);
    let text = first.to_text();
    assert!(text.contains("requests 1400 answered") && !text.contains("packets"), "{text}");
    let other = support::run_native(&scenario, Options { seed: Some(9), ..Options::default() });
    assert_ne!(first.decision_hash, other.decision_hash);
}

#[test]
fn what_needs_packets_is_refused_in_words() {
    let refused = |scenario: Scenario| {
        let scenario = Scenario { mode: Mode::Flow, ..scenario };
        let equipment = support::native_equipment(&scenario, 1);
        run(&scenario, equipment, Options::default()).unwrap_err().to_string()
    };
    let unserved = refused(timed("10.0.0.3:81/tcp", "1ms", ""));
    assert!(
        unserved.starts_with("load ask: no director of any forwarder is bound to 10.0.0.3:81/tcp"),
        "{unserved}"
    );
    let client = "[[timeline]]\nat = \"5s\"\ndo = \"stop\"\ntarget = \"client\"\n";
    let stopped = refused(timed("10.0.0.3:80/tcp", "1ms", client));
    assert!(
        stopped.contains("a machine loses power to what is neither real server nor forwarder"),
        "{stopped}"
    );
}
