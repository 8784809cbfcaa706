//! Schedulers that change while flows run, native ones and components in turn: nothing is lost, no flow moves, and where
//! both know the form of their state, decisions are those of a run in which nothing changed.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::path::Path;

use evenkeel_plugin_host::{Host, Mode, Settings};
use evenkeel_sim::scenario::{Action, Extent, When};
use evenkeel_sim::watch::Watch;
use evenkeel_sim::{Options, Outcome, Scenario, Supplier, prepare, run_watched};

/// The scenario that the lab runs too, in a quarter of the time.
fn swaps() -> Scenario {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../netns-lab/tests/scenarios/swaps.toml");
    let mut scenario = Scenario::load(&path).unwrap_or_else(|errors| panic!("{errors}"));
    for happening in &mut scenario.timeline {
        if let When::Every { start, gap, .. } = &mut happening.when {
            (*start, *gap) = (*start / 4, *gap / 4);
        }
    }
    for load in &mut scenario.loads {
        load.extent = match load.extent {
            Extent::Flows(flows) => Extent::Flows(flows / 4),
            Extent::Duration(duration) => Extent::Duration(duration / 4),
        };
    }
    // What the lab expects is for all of the flows.
    scenario.expectations.clear();
    scenario
}

/// A thousand changes, among these in turn.
fn among(schedulers: &[&str]) -> Scenario {
    let mut scenario = swaps();
    for happening in &mut scenario.timeline {
        if let Action::Scheduler { schedulers: turns, .. } = &mut happening.action {
            *turns = schedulers.iter().map(|name| (*name).to_owned()).collect();
        }
    }
    scenario
}

/// Runs it with components that are compiled once.
fn run(scenario: &Scenario) -> Outcome {
    let base_dir = scenario.forwarders[0].config.parent().unwrap().to_owned();
    let settings = Settings { mode: Mode::Fuel, base_dir, bundled: evenkeel_plugins_bundled::component };
    let mut host = Host::new(settings);
    let mut loader = |loaded: &evenkeel_config::Loaded| {
        host.load_beside(&loaded.plan, 0).map_err(|errors| format!("{errors:?}"))
    };
    let equipment = prepare(scenario, 1, &mut loader).unwrap();
    let mut supplier = Supplier { scenario, seed: 1, loader: &mut loader, edit: None };
    let options = Options { seed: Some(1), ..Options::default() };
    let watch = &mut Watch::default();
    run_watched(scenario, equipment, options, Some(&mut supplier), &mut |_| {}, watch).unwrap()
}

/// Nothing was lost, and no flow moved.
fn assert_unharmed(outcome: &Outcome) {
    let forwarder = &outcome.forwarders[0];
    assert_eq!(forwarder.scheduler_changes, 1_000, "{}", outcome.to_text());
    assert_eq!(forwarder.faults, Vec::<String>::new());
    assert!(forwarder.dropped.is_empty(), "{:?}", forwarder.dropped);
    assert!(outcome.is_conserved);
    let (flows, packets) = (&outcome.flows, &outcome.packets);
    assert_eq!((flows.started, flows.completed, flows.broken), (900, 900, 0), "{}", outcome.to_text());
    assert_eq!((packets.lost(), packets.retransmitted), (0, 0), "{}", outcome.to_text());
}

#[test]
fn a_thousand_changes_between_twins_are_as_none() {
    // The component has the last turn, a second and a quarter long, and says of it how often it was asked.
    let swapped = run(&among(&["rr", "bundled:rr"]));
    assert_unharmed(&swapped);
    let mut steady = swaps();
    steady.timeline.clear();
    let steady = run(&steady);
    assert!(steady.forwarders[0].guests.is_empty());
    assert!(swapped.forwarders[0].guests.iter().all(|guest| guest.decided > 30), "{}", swapped.to_text());
    assert_eq!(swapped.decision_hash, steady.decision_hash, "whose turn it is goes over with each change");
    assert_eq!(swapped.share_deviation, 0.0, "each real server has its third, to the flow");
    assert_eq!(swapped.wire_hash, steady.wire_hash, "nobody on the wires can tell");
}

#[test]
fn a_thousand_changes_among_schedulers_of_all_kinds_lose_nothing_and_move_no_flow() {
    let kinds = [
        "bundled:maglev",
        "wlc",
        "bundled:p2c",
        "prequal",
        "bundled:rendezvous",
        "peak-ewma",
        "bundled:wlc",
        "sh",
        "bundled:prequal",
        "lblc",
        "bundled:peak-ewma",
        "maglev",
    ];
    assert_unharmed(&run(&among(&kinds)));
}

#[test]
fn what_can_not_be_is_told_and_changes_nothing() {
    let outcome = run(&among(&["absent.wasm", "bundled:nobody", "rr"]));
    let forwarder = &outcome.forwarders[0];
    assert_eq!(forwarder.scheduler_changes, 332, "every third was possible, of either director");
    assert!(forwarder.faults.iter().any(|words| words.contains("absent.wasm")), "{:?}", forwarder.faults);
    assert!(forwarder.faults.iter().any(|words| words.contains("nobody")), "{:?}", forwarder.faults);
    assert_eq!(outcome.flows.broken, 0);
}
