//! Scenarios with a forwarder, natively scheduled: shares, conservation, broken set-ups and their causes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use crate::support::{self, library, native_equipment, run_native};
use evenkeel_engine::Guests;
use evenkeel_engine::plan::{InterfacePlan, Layer, Plan};
use evenkeel_engine::wire::ethernet::MacAddress;
use evenkeel_sim::wires::{Loss, Quality};
use evenkeel_sim::{Cause, Equipment, Options, Outcome, Queue, RunError, run};

/// What holds in every run: nothing vanishes between machines, in forwarders and in engines.
fn assert_conserved(outcome: &Outcome) {
    assert!(outcome.packets.is_conserved(), "{}", outcome.to_text());
    assert!(outcome.is_conserved);
    for forwarder in &outcome.forwarders {
        let kernel = &forwarder.kernel;
        let dropped: u64 = forwarder.dropped.values().sum();
        let into = kernel.into_tun + kernel.into_engine - kernel.queue_full;
        assert_eq!(into, forwarder.packets_in, "everything in the TUN reaches the engine");
        assert_eq!(
            forwarder.packets_in,
            forwarder.forwarded + forwarder.answered + forwarder.consumed + dropped
        );
        let out = forwarder.forwarded + forwarder.answered + forwarder.born;
        assert_eq!(kernel.out_of_tun + kernel.out_of_engine, out);
    }
    let flows = &outcome.flows;
    assert_eq!(flows.started, flows.completed + flows.broken + flows.unfinished);
    let of_hosts: u64 = outcome.hosts.iter().map(|host| host.counts.received).sum();
    let of_kernels: u64 = outcome
        .forwarders
        .iter()
        .map(|one| one.kernel.into_tun + one.kernel.into_engine + one.kernel.local)
        .sum();
    assert!(of_hosts + of_kernels <= outcome.packets.received);
}

#[test]
fn the_demo_splits_by_weight_and_breaks_nothing() {
    let outcome = run_native(&library("demo.toml"), Options::default());
    assert_conserved(&outcome);
    assert_eq!(outcome.flows.completed, 700, "{}", outcome.to_text());
    assert!(outcome.share_deviation <= 2.0, "{}", outcome.to_text());
    assert_eq!((outcome.packets.stray, outcome.packets.retransmitted), (0, 0));
    for server in &outcome.servers {
        assert_eq!(server.answered, server.flows, "clients and engine agree on {}", server.server);
    }
}

#[test]
fn with_source_nat_servers_need_no_gateway() {
    let outcome = run_native(&library("nat-udp-snat.toml"), Options::default());
    assert_conserved(&outcome);
    assert!(outcome.is_as_expected(), "{}", outcome.to_text());
}

#[test]
fn without_source_nat_servers_need_a_gateway() {
    let scenario = library("nat-udp-snat.toml");
    let mut equipment = native_equipment(&scenario, 1);
    for director in &mut equipment[0].plan.directors {
        director.mode = evenkeel_engine::plan::Mode::Nat { sources: Vec::new() };
    }
    let outcome = run(&scenario, equipment, Options::default()).unwrap();
    assert_conserved(&outcome);
    assert_eq!(outcome.flows.completed, 0);
    assert!(outcome.packets.dropped_by_kernels["no_route"] >= 1000, "{:?}", outcome.packets);
}

#[test]
fn in_one_subnet_destination_nat_alone_breaks_every_flow() {
    let outcome = run_native(&library("nat-one-subnet.toml"), Options::default());
    assert_conserved(&outcome);
    assert!(outcome.is_as_expected(), "{}", outcome.to_text());
    assert_eq!(outcome.flows.causes.get(Cause::TimedOut.key()), Some(&5));
}

#[test]
fn the_same_seed_gives_the_same_run_with_either_queue() {
    let scenario = library("demo.toml");
    let run = |seed, queue| run_native(&scenario, Options { seed: Some(seed), queue, ..Options::default() });
    let first = run(5, Queue::Wheel);
    assert_eq!(first, run(5, Queue::Heap));
    let other = run(6, Queue::Wheel);
    assert_ne!(first.wire_hash, other.wire_hash);
    assert_ne!(first.decision_hash, other.decision_hash);
}

/// The hashes of the library with native schedulers, seed 1. A change here is a change of behaviour: of the
/// engine's bytes, of the hosts, or of the meaning of seeds. Say in the commit which.
#[test]
fn the_hashes_of_the_library_are_pinned() {
    let golden = [
        ("demo", "53f25b8dce5c4402", "261dd7e04dd76fdf"),
        ("guest-faults", "b6c1456b9315b006", "69b9935995c8d34c"),
        ("nat-one-subnet", "ae8cb96c2838143d", "f0314ec7b691ac1d"),
        ("nat-udp-snat", "788d8c6d9fcf39e3", "c8ad764877b92b8f"),
    ];
    let found: Vec<_> = golden
        .iter()
        .map(|(name, ..)| {
            let outcome = run_native(&library(&format!("{name}.toml")), Options::default());
            (*name, outcome.wire_hash, outcome.decision_hash)
        })
        .collect();
    let found: Vec<_> =
        found.iter().map(|(name, wire, decisions)| (*name, wire.as_str(), decisions.as_str())).collect();
    assert_eq!(found, golden);
}

#[test]
fn plans_that_do_not_fit_are_refused_before_anything_runs() {
    let scenario = library("demo.toml");
    let refuse = |change: fn(&mut Plan)| {
        let mut equipment = native_equipment(&scenario, 1);
        change(&mut equipment[0].plan);
        run(&scenario, equipment, Options::default()).unwrap_err()
    };
    assert!(matches!(
        run(&scenario, Vec::new(), Options::default()),
        Err(RunError::Equipment { wanted: 1, given: 0 })
    ));
    assert!(matches!(refuse(|plan| plan.interfaces.clear()), RunError::NoInterface { .. }));
    let ethernet = refuse(|plan| {
        plan.interfaces.push(InterfacePlan::new("eth9", Layer::Ethernet(MacAddress([2, 0, 0, 0, 0, 1]))));
    });
    assert!(ethernet.to_string().contains("interface = \"eth9\""), "{ethernet}");
    let taken = refuse(|plan| plan.directors[0].binds[0].network.address = "10.0.3.20".parse().unwrap());
    assert!(matches!(taken, RunError::AddressTaken { .. }), "{taken}");
    let own = refuse(|plan| plan.directors[0].binds[0].network.address = "10.0.3.1".parse().unwrap());
    assert!(own.to_string().starts_with("10.0.3.1 is an address of lb"), "{own}");
    let twice = refuse(|plan| plan.directors.push(plan.directors[0].clone()));
    assert!(matches!(twice, RunError::Plan { .. }), "{twice}");
}

#[test]
fn a_lossy_link_behind_the_forwarder_breaks_no_connection() {
    let mut scenario = library("demo.toml");
    for host in 0..scenario.hosts.len() {
        let segment = scenario.hosts[host].network.attachments[0].segment;
        let quality = Quality { loss: Loss::Even { millionths: 10_000 }, ..Quality::default() };
        scenario.links.push(evenkeel_sim::scenario::Link {
            name: String::new(),
            machines: vec![host],
            segment,
            up: quality,
            down: quality,
        });
    }
    let outcome = run_native(&scenario, Options::default());
    assert_conserved(&outcome);
    assert!(outcome.flows.completed >= 695, "{}", outcome.to_text());
    assert!(outcome.packets.retransmitted > 50 && outcome.packets.lost() > 50);
    let wrong: u64 = outcome.hosts.iter().map(|host| host.counts.bad_checksum + host.counts.malformed).sum();
    assert_eq!(wrong, 0);
}

#[test]
fn a_report_has_documented_keys() {
    let outcome = run_native(&library("nat-udp-snat.toml"), Options::default());
    let json = serde_json::to_value(&outcome).unwrap();
    for key in [
        "schema",
        "scenario",
        "seed",
        "elapsed_ns",
        "events",
        "flows",
        "packets",
        "loads",
        "servers",
        "forwarders",
        "hosts",
        "share_deviation",
        "is_conserved",
        "wire_hash",
        "wire_checkpoints",
        "decision_hash",
        "expectations",
    ] {
        assert!(json.get(key).is_some(), "{key}");
    }
    assert_eq!(json["loads"][0]["service"], "10.0.0.3:8000/udp");
    assert_eq!(json["expectations"][0]["is_met"], true);
    assert_eq!(json["hosts"][0]["name"], "client.0");
    let text = outcome.to_text();
    assert!(text.contains("web1") && text.contains("50.0 %") && text.contains(&outcome.wire_hash), "{text}");
}

#[test]
fn equipment_of_an_empty_plan_is_refused() {
    let scenario = library("demo.toml");
    let equipment = vec![Equipment { plan: Plan::empty(), guests: Guests::default() }];
    assert!(run(&scenario, equipment, Options::default()).is_err());
}

#[test]
fn two_ways_of_frames_between_two_segments_are_refused() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/lb-rp-two-port.toml");
    let text = std::fs::read_to_string(path).unwrap();
    let second = r#"
[forwarder.lb2]
attach = [{ segment = "front", interface = "front0" }, { segment = "back", interface = "back0" }]
config = "lb-rp-two-port-evenkeel.toml"

[load.web]"#;
    let scenario = support::scenario(&text.replace("[load.web]", second.trim_start()));
    let refused = run(&scenario, native_equipment(&scenario, 1), Options::default()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "forwarder lb2 passes frames on between segment front and segment back, which are joined already: a broadcast \
         would go round for ever; leave pass_to out of one of the ways between them"
    );
}
