//! Every scenario of the library does what it says: its configuration is right, and its expectations hold.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use crate::support;
use evenkeel_config::Loaded;
use evenkeel_engine::Guests;
use evenkeel_plugin_host::{Mode, Settings};
use evenkeel_sim::{Options, Outcome, Scenario, library, prepare, run};

fn guests(loaded: &Loaded) -> Result<Guests, String> {
    let settings = Settings {
        mode: Mode::Fuel,
        base_dir: loaded.base_dir().to_owned(),
        bundled: evenkeel_plugins_bundled::component,
    };
    let words = |errors: Vec<evenkeel_plugin_host::LoadError>| format!("{errors:?}");
    evenkeel_plugin_host::load(&loaded.plan, &settings).map_err(words)
}

fn run_seed(scenario: &Scenario, seed: u64) -> Outcome {
    let equipment = prepare(scenario, seed, &mut guests).unwrap();
    run(scenario, equipment, Options { seed: Some(seed), ..Options::default() }).unwrap()
}

#[test]
fn every_configuration_is_right_and_without_a_warning() {
    for entry in library::ENTRIES {
        for (name, text) in &entry.files[1..] {
            let loaded = evenkeel_config::parse(text, name).unwrap_or_else(|found| panic!("{found}"));
            assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
        }
    }
}

#[test]
fn every_expectation_holds_whatever_the_seed() {
    let mut missed = Vec::new();
    for entry in library::ENTRIES {
        let scenario = support::library(entry.files[0].0);
        for seed in [scenario.seed, 7] {
            let outcome = run_seed(&scenario, seed);
            if !outcome.is_as_expected() {
                missed.push(format!("{} with seed {seed}:\n{}", entry.name, outcome.to_text()));
            }
            assert!(outcome.is_conserved, "{}", entry.name);
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n\n"));
}
