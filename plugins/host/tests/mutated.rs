//! Components with changed bytes: the host refuses them or runs them, and never panics.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::fs;
use std::path::PathBuf;

use crate::common::{self, at, flows, guest, servers, settings};
use evenkeel_engine::director::{NewFlow, Selection, ServerLoad};
use evenkeel_engine::plan::OnFault;
use evenkeel_engine::policy::{PolicyAnswer, PolicyFlow};
use evenkeel_engine::{Duration, Guests, InterfaceId, Plan};
use evenkeel_plugin_host::{Host, Mode, Settings};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

/// Mutants in an ordinary run, which compiles each without optimisation; `EVENKEEL_MUTANTS` asks for another number.
const MUTANTS: u64 = 800;

/// Tests that share the mutants, to use more than one core.
const STRIPES: usize = 2;

fn folder(stripe: u64) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("mutated-{stripe}"));
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Flips bits, changes, inserts, removes and copies bytes: one change, or up to four.
fn mutate(bytes: &mut Vec<u8>, random: &mut Xoshiro256PlusPlus) {
    let more = random.next_u32() % 4 * (random.next_u32() % 2);
    for _ in 0..=more {
        let place = random.next_u64() as usize % bytes.len();
        match random.next_u32() % 6 {
            0 => bytes[place] ^= 1 << (random.next_u32() % 8),
            1 => bytes[place] = random.next_u32() as u8,
            2 => bytes.insert(place, random.next_u32() as u8),
            3 => {
                bytes.remove(place);
            }
            4 => {
                let end = (place + random.next_u32() as usize % 64).min(bytes.len());
                let piece = bytes[place..end].to_vec();
                let target = random.next_u64() as usize % bytes.len();
                bytes.splice(target..target, piece);
            }
            _ => bytes[place] = [0, 1, 0x7f, 0x80, 0xff][random.next_u32() as usize % 5],
        }
    }
}

/// Does with the guests what an engine does.
fn exercise(guests: &mut Guests) {
    let servers = servers(&[4, 2, 0, 1]);
    for scheduler in guests.schedulers.values_mut() {
        scheduler.update(&servers, at(1));
        for (first, count) in [(0, 1), (1, 8)] {
            let flows: Vec<NewFlow> = flows(first, count);
            let mut loads = vec![ServerLoad::default(); servers.len()];
            let mut answers = vec![None; flows.len()];
            scheduler.pick(&mut Selection::new(&flows, &servers, &mut loads, &mut answers), at(2));
            assert!(answers.iter().all(Option::is_some));
        }
    }
    for policy in guests.policies.values_mut() {
        let flow = |new: &NewFlow| PolicyFlow::new(new.hash, new.tuple, InterfaceId(0));
        let flows: Vec<PolicyFlow> = flows(0, 8).iter().map(flow).collect();
        policy.decide(&flows, &mut [PolicyAnswer::SKIP; 8], at(3));
    }
}

fn plans() -> [Plan; 2] {
    let mut mutant = guest("mutant.wasm", "");
    mutant.call_budget = Duration::from_micros(200);
    [common::plan_of(mutant.clone()), {
        let mut plan = common::policy_plan(mutant, OnFault::Permit);
        plan.directors.clear();
        plan
    }]
}

/// Loads and runs the mutants `first`, `first + STRIPES`, ...
fn stripe(first: u64) {
    let folder = folder(first);
    let settings = Settings { base_dir: folder.clone(), ..settings(Mode::Fuel) };
    let mut hosts = [Host::new(settings.clone()), Host::new(settings)];
    let plans = plans();
    let count =
        std::env::var("EVENKEEL_MUTANTS").ok().and_then(|count| count.parse().ok()).unwrap_or(MUTANTS);
    let names = ["least-connections", "maglev", "maglev-pick", "misbehave", "rate-guard", "round-robin"];
    let (mut loaded, mut tried) = (0, 0);
    for seed in (first..count).step_by(STRIPES) {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let name = names[random.next_u32() as usize % names.len()];
        let mut bytes = evenkeel_plugins_bundled::component(name).unwrap().to_vec();
        mutate(&mut bytes, &mut random);
        fs::write(folder.join("mutant.wasm"), &bytes).unwrap();
        tried += 1;
        let role = usize::from(name == "rate-guard");
        match hosts[role].load(&plans[role], 0) {
            Ok(mut guests) => {
                loaded += 1;
                exercise(&mut guests);
            }
            Err(errors) => {
                let reason = &errors[0].reason;
                assert!(!reason.is_empty() && !reason.contains("gave up"), "seed {seed}: {reason}");
            }
        }
    }
    assert!(
        loaded * 10 > tried,
        "only {loaded} of {tried} could be loaded: this tests nothing but the parser"
    );
}

#[test]
fn no_mutant_of_a_component_panics_the_host() {
    stripe(0);
}

#[test]
fn no_mutant_of_the_second_stripe_panics_the_host() {
    stripe(1);
}
