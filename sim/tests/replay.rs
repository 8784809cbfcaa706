//! Captures through the engine: nothing is lost uncounted, connections keep their servers, runs repeat, and what is
//! written down can be read by others.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "tests"
)]

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use evenkeel_engine::{Guests, Plan};
use evenkeel_sim::capture::Reader;
use evenkeel_sim::replay::{Options, Outcome, Sides, replay};

/// The configuration that comes with the captures: 10.0.0.3:80/tcp on three servers in weights.
fn two_nics() -> Plan {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/nat-two-nic-evenkeel.toml");
    let loaded = evenkeel_config::load(&path).unwrap();
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    loaded.with_seed(1).plan
}

fn capture(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/pcaps").join(name);
    if path.is_file() {
        return Some(path);
    }
    eprintln!("SKIPPED: there is no capture {}", path.display());
    None
}

fn options(maps: &[&str], sides: Sides) -> Options {
    let mappings = maps.iter().map(|map| map.parse().unwrap()).collect();
    Options { mappings, sides, seed: 1, ..Options::default() }
}

fn run(path: &Path, plan: Plan, options: &Options, output: Option<&mut dyn Write>) -> Outcome {
    let mut reader = Reader::new(File::open(path).unwrap()).unwrap();
    let outcome = replay(&mut reader, plan, Guests::default(), options, output).unwrap();
    assert!(outcome.is_conserved, "{}", outcome.to_text());
    outcome
}

#[test]
fn five_hundred_connections_keep_their_servers() {
    let Some(path) = capture("zeek_echo-connections.pcap.gz") else { return };
    for sides in [Sides::Both, Sides::Clients] {
        let outcome = run(&path, two_nics(), &options(&["127.0.0.1:7000=10.0.0.3:80"], sides), None);
        println!("{}", outcome.to_text());
        assert_eq!(outcome.connections.served, 500);
    }
}
