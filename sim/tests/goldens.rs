//! Golden hashes: what the scenarios of the library come to, hash by hash, on every machine and in every build.
//!
//! `EVENKEEL_WRITE_GOLDENS=1 cargo test -p evenkeel-sim --test all goldens` stores them anew. A commit that changes them shows
//! in its difference which scenarios run differently, and says why.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::support::{self, native_equipment, with_components};
use evenkeel_sim::watch::{Captures, Watch};
use evenkeel_sim::{Options, Outcome, Queue, Scenario, library, run_watched};

const HEAD: &str = "\
# What the scenarios of the library come to, with their own seed: wire, decision and metric hash. A test holds every build
# against them. To store them anew: EVENKEEL_WRITE_GOLDENS=1 cargo test -p evenkeel-sim --test all goldens
";

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/goldens.txt")
}

fn hashes(outcome: &Outcome) -> String {
    format!("{} {} {}", outcome.wire_hash, outcome.decision_hash, outcome.metric_hash)
}

#[test]
fn every_scenario_comes_to_its_golden_hashes() {
    let mut text = HEAD.to_owned();
    for entry in library::ENTRIES {
        let scenario = support::library(entry.files[0].0);
        let outcome = with_components(&scenario, scenario.seed, Options::default(), &mut Watch::default());
        writeln!(text, "{:<28} {}", entry.name, hashes(&outcome)).unwrap();
    }
    assert!(text.lines().count() >= 22, "twenty scenarios at least");
    if std::env::var_os("EVENKEEL_WRITE_GOLDENS").is_some() {
        return std::fs::write(file(), text).unwrap();
    }
    let stored = std::fs::read_to_string(file()).unwrap();
    let differ: Vec<_> = stored.lines().zip(text.lines()).filter(|(stored, now)| stored != now).collect();
    let advice =
        "where that is meant: EVENKEEL_WRITE_GOLDENS=1 cargo test -p evenkeel-sim --test all goldens";
    assert!(stored == text, "other hashes than stored (stored, now): {differ:#?}\n{advice}");
}

/// One run with native schedulers, which is quick; looked at with captures, or not.
fn native(scenario: &Scenario, queue: Queue, is_captured: bool) -> String {
    let mut scenario = scenario.clone();
    if is_captured {
        scenario.captures = (0..scenario.segments.len()).collect();
        scenario.captured_machines = (0..scenario.machine_count()).collect();
    }
    let mut open = |_: &str| Ok(Box::new(std::io::sink()) as Box<dyn std::io::Write>);
    let captures = Captures::open(&scenario, &mut open).unwrap();
    let mut watch = Watch::new(captures, None, None);
    let equipment = native_equipment(&scenario, scenario.seed);
    let options = Options { queue, ..Options::default() };
    let outcome = run_watched(&scenario, equipment, options, None, &mut |_| {}, &mut watch).unwrap();
    assert_eq!(watch.captures.is_some(), is_captured);
    hashes(&outcome)
}

#[test]
fn neither_the_queue_nor_a_capture_nor_neighbours_in_time_change_a_hash() {
    let scenarios: Vec<Scenario> =
        library::ENTRIES.iter().map(|entry| support::library(entry.files[0].0)).collect();
    let plain: Vec<String> = scenarios.iter().map(|scenario| native(scenario, Queue::Wheel, false)).collect();
    // The other runs go on two threads at a time, as `--jobs 2` does it.
    let (heap, captured) = std::thread::scope(|scope| {
        let heap =
            scope.spawn(|| scenarios.iter().map(|it| native(it, Queue::Heap, false)).collect::<Vec<_>>());
        let captured =
            scope.spawn(|| scenarios.iter().map(|it| native(it, Queue::Wheel, true)).collect::<Vec<_>>());
        (heap.join().unwrap(), captured.join().unwrap())
    });
    assert_eq!(heap, plain, "heap instead of wheel");
    assert_eq!(captured, plain, "captured");
}
