//! Scenarios with the components that their configurations name, held to budgets of instructions: the demo, a
//! component that traps, and the same run every time.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use crate::support::library;
use evenkeel_config::Loaded;
use evenkeel_engine::Guests;
use evenkeel_plugin_host::{Mode, Settings};
use evenkeel_sim::{Options, Outcome, Scenario, prepare, run};

fn guests(loaded: &Loaded) -> Result<Guests, String> {
    let settings = Settings {
        mode: Mode::Fuel,
        base_dir: loaded.base_dir().to_owned(),
        bundled: evenkeel_plugins_bundled::component,
    };
    let words = |errors: Vec<evenkeel_plugin_host::LoadError>| format!("{errors:?}");
    evenkeel_plugin_host::load(&loaded.plan, &settings).map_err(words)
}

fn run_with_components(scenario: &Scenario, seed: u64) -> Outcome {
    let equipment = prepare(scenario, seed, &mut guests).unwrap();
    run(scenario, equipment, Options { seed: Some(seed), ..Options::default() }).unwrap()
}

#[test]
fn the_demo_runs_by_its_component() {
    let outcome = run_with_components(&library("demo.toml"), 1);
    assert!(outcome.is_as_expected(), "{}", outcome.to_text());
    let guests = &outcome.forwarders[0].guests;
    assert_eq!(guests.iter().map(|guest| guest.decided).sum::<u64>(), 700, "every flow, and each once");
    assert_eq!(guests.iter().map(|guest| guest.fallbacks).sum::<u64>(), 0);
}

#[test]
fn a_component_that_traps_costs_no_packet() {
    let outcome = run_with_components(&library("guest-faults.toml"), 1);
    assert!(outcome.is_as_expected(), "{}", outcome.to_text());
    let forwarder = &outcome.forwarders[0];
    let guest = &forwarder.guests[0];
    assert_eq!(guest.decided + guest.fallbacks, 200, "{guest:?}");
    assert!(forwarder.faults[0].starts_with("web: bundled:misbehave in "), "{:?}", forwarder.faults);
    assert!(outcome.share_deviation < 10.0, "{}", outcome.to_text());
}

/// The wires carry the same frames at the same times, and every decision is the same.
#[test]
fn rules_as_a_component_do_to_each_packet_what_native_rules_do() {
    for name in ["policy-examples", "policy-outflow"] {
        let [native, component] = ["", "-component"].map(|kind| library(&format!("{name}{kind}.toml")));
        for seed in [1, 5] {
            let native = run_with_components(&native, seed);
            let component = run_with_components(&component, seed);
            assert!(component.is_as_expected(), "{}", component.to_text());
            assert_eq!(component.wire_hash, native.wire_hash, "{name} with seed {seed}");
            assert_eq!(component.decision_hash, native.decision_hash, "{name} with seed {seed}");
            assert_eq!(component.forwarders[0].guests.iter().map(|guest| guest.fallbacks).sum::<u64>(), 0);
        }
    }
}

#[test]
fn components_repeat_with_the_seed() {
    for name in ["demo.toml", "guest-faults.toml"] {
        let scenario = library(name);
        let first = run_with_components(&scenario, 3);
        assert_eq!(first, run_with_components(&scenario, 3));
        assert_ne!(first.wire_hash, run_with_components(&scenario, 4).wire_hash);
    }
}

/// The demo's hashes, with its components, seed 1. See `forwarders.rs` about changes; a component that decides
/// otherwise is one more reason.
#[test]
fn the_hash_of_the_demo_is_pinned() {
    let outcome = run_with_components(&library("demo.toml"), 1);
    let hashes = (outcome.wire_hash.as_str(), outcome.decision_hash.as_str());
    assert_eq!(hashes, ("ce824805f606341a", "ca879e9839f23565"));
}

#[test]
fn a_component_that_is_not_there_is_told_with_its_forwarder() {
    let scenario = library("demo.toml");
    let error = prepare(&scenario, 1, &mut |_| Err("no component today".to_owned())).unwrap_err();
    assert_eq!(error.to_string(), "forwarder lb: no component today");
    let mut scenario = scenario;
    scenario.forwarders[0].config = "/nonexistent/evenkeel.toml".into();
    let error = prepare(&scenario, 1, &mut guests).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/evenkeel.toml"), "{error}");
}
