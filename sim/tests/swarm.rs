//! Random scenarios: none of them shows anything that should not be, and a fault that is put in on purpose is found and
//! made small.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stderr, reason = "tests")]

use std::path::Path;

use crate::support::guests;
use evenkeel_sim::swarm::{Case, Judge, Kind, shrink_violation};
use evenkeel_sim::{Planted, Scenario};

/// Seeds of the planted fault: the swarm of the command has more.
const PLANTED_SEEDS: u64 = 1_000;
/// Seeds that are run with every test; `evenkeel sim swarm` runs as many as one likes.
const SEEDS: u64 = 60;

#[test]
fn random_scenarios_show_nothing_that_should_not_be() {
    let mut loader = guests;
    let mut judge = Judge { loader: &mut loader, planted: Planted::Nothing };
    let (mut flows, mut broken) = (0, 0);
    for seed in 0..SEEDS {
        let case = Case::draw(seed);
        let verdict = if seed % 10 == 0 { judge.judge_twice(&case) } else { judge.judge(&case) };
        assert!(verdict.is_fine(), "seed {seed}: {:#?}\n{}", verdict.violations, case.files()[0].1);
        flows += verdict.flows.0;
        broken += verdict.flows.1;
    }
    assert!(flows > SEEDS * 20, "{flows}");
    assert!(broken > SEEDS, "the faults do break flows: {broken}");
}

#[test]
fn every_case_is_a_scenario_file_with_its_configurations() {
    for seed in 0..1_000 {
        let case = Case::draw(seed);
        assert_eq!(case, Case::draw(seed));
        for (name, text) in &case.files()[1..] {
            let loaded =
                evenkeel_config::parse(text, name).unwrap_or_else(|found| panic!("seed {seed}: {found}"));
            assert!(loaded.warnings.is_empty(), "seed {seed}: {}", loaded.warnings);
        }
        let (name, text) = &case.files()[0];
        Scenario::parse(text, Path::new(name))
            .unwrap_or_else(|errors| panic!("seed {seed}: {errors}\n{text}"));
    }
}

#[test]
fn a_planted_fault_is_found_and_made_small() {
    let mut loader = guests;
    let mut judge = Judge { loader: &mut loader, planted: Planted::HashedAnew };
    let found = (0..PLANTED_SEEDS).find(|seed| judge.judge(&Case::draw(*seed)).has(Kind::Broken));
    let seed = found.expect("the fault is not found");
    let (small, tries) = shrink_violation(&mut judge, &Case::draw(seed), Kind::Broken);
    let text = &small.files()[0].1;
    eprintln!("found with seed {seed}, made small in {tries} runs:\n{text}");
    assert!(text.lines().count() < 30, "{text}");
    assert!(judge.judge(&small).has(Kind::Broken), "it still fails");
    judge.planted = Planted::Nothing;
    assert!(judge.judge(&small).is_fine(), "and without the fault it does not");
}
