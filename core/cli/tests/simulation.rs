//! `evenkeel sim run`, `diff`, `swarm` and `compare` at a terminal: what they print, write, and end with.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder that goes with the value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("evenkeel-sim-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// A scenario of the library with native schedulers, which is quick.
    fn scenario(&self, name: &str) -> PathBuf {
        let entry = evenkeel_sim::library::find(name).unwrap();
        for (name, text) in entry.files {
            std::fs::write(self.0.join(name), text).unwrap();
        }
        self.0.join(entry.files[0].0)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_evenkeel")).arg("sim").args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn complained(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn word(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_run_is_traced_captured_and_compared_with_another() {
    let folder = Folder::new();
    let path = folder.scenario("nat-udp-snat");
    let scenario = word(&path);
    let traced = sim(&["run", scenario, "--until", "0.05s", "--trace", "forwarder=lb"]);
    assert_eq!(traced.status.code(), Some(0), "{}", complained(&traced));
    assert!(said(&traced).contains("engine   flow: udp"), "{}", said(&traced));
    assert!(said(&traced).contains(", seed 1: 0.050 s of virtual time"));
    let refused = sim(&["run", scenario, "--trace", "host=nobody"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(complained(&refused).contains("there is no machine \"nobody\""));

    let out = folder.0.join("out");
    let run = sim(&["run", scenario, "--out", word(&out), "--capture", "lb"]);
    assert_eq!(run.status.code(), Some(0), "{}", complained(&run));
    assert!(out.join("machine-lb.pcapng").metadata().unwrap().len() > 100_000);
    let hashes = said(&run).lines().last().unwrap().to_owned();
    assert!(hashes.contains("metric hash ") && hashes.ends_with(env!("CARGO_PKG_VERSION")), "{hashes}");

    let same = sim(&["diff", word(&out), scenario]);
    assert_eq!(same.status.code(), Some(0), "{}", complained(&same));
    assert!(said(&same).starts_with("no difference"));
    let other = sim(&["diff", word(&out), &format!("{scenario}@2")]);
    assert_eq!(other.status.code(), Some(1));
    assert!(said(&other).contains("the wire chains part at event ") && said(&other).contains("\n  second "));
    let verified = sim(&["run", scenario, "--verify"]);
    assert_eq!(verified.status.code(), Some(0), "{}", complained(&verified));
    assert!(said(&verified).contains("two runs are equal"));
}

#[test]
fn a_swarm_says_the_same_with_any_number_of_jobs() {
    let folder = Folder::new();
    let out = folder.0.join("failures");
    let run = |jobs: &str| {
        let output = sim(&["swarm", "--seeds", "12", "--first", "100", "--jobs", jobs, "--out", word(&out)]);
        assert_eq!(output.status.code(), Some(0), "{}{}", said(&output), complained(&output));
        said(&output)
    };
    let first = run("1");
    assert!(first.contains("12 scenarios, seeds 100 to 111: ") && first.contains("swarm hash "), "{first}");
    assert_eq!(run("3"), first);
    assert!(!out.exists(), "nothing fails, so nothing is saved");
    let written = sim(&["swarm", "--seeds", "1", "--first", "100", "--write", "--out", word(&out)]);
    assert_eq!(written.status.code(), Some(0), "{}", complained(&written));
    let again = sim(&["run", word(&out.join("swarm-100/swarm-100.toml"))]);
    assert_eq!(again.status.code(), Some(0), "{}", complained(&again));
}

#[test]
fn schedulers_are_compared_on_one_scenario() {
    let folder = Folder::new();
    let path = folder.scenario("nat-udp-snat");
    let out = folder.0.join("out");
    let run = |jobs: &str| {
        let schedulers = "wrr,p2c:choices=3,sh";
        let arguments = [
            "compare",
            word(&path),
            "--schedulers",
            schedulers,
            "--seeds",
            "3",
            "--no-clock",
            "--jobs",
            jobs,
        ];
        let output = sim(&[&arguments[..], &["--out", word(&out)]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", complained(&output));
        (said(&output), std::fs::read_to_string(out.join("comparison.json")).unwrap())
    };
    let first = run("1");
    for scheduler in ["wrr", "p2c:choices=3", "sh"] {
        assert!(first.0.lines().any(|line| line.starts_with(scheduler)), "{}", first.0);
    }
    assert!(out.join("report.html").exists());
    assert_eq!(run("2"), first);
    assert!(!first.0.contains("a decision"), "{}", first.0);
    let refused = sim(&["compare", word(&path), "--schedulers", "magle"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(complained(&refused).contains("magle"));
}

#[test]
fn every_column_of_a_comparison_is_there_and_cost_is_a_component_s_and_a_clock_s() {
    let folder = Folder::new();
    let path = folder.scenario("nat-udp-snat");
    let schedulers = "wrr,bundled:rr,maglev";
    let timed = sim(&["compare", word(&path), "--schedulers", schedulers, "--seeds", "2", "--json"]);
    let timed: serde_json::Value = serde_json::from_slice(&timed.stdout).unwrap();
    for row in timed["rows"].as_array().unwrap() {
        let mean =
            |key: &str| row["metrics"][key]["mean"].as_f64().unwrap_or_else(|| panic!("{key}: {row:#}"));
        assert!(mean("decision_ns") > 0.0 && mean("memory_bytes") > 0.0, "{row:#}");
        assert!(mean("imbalance") >= 1.0 && mean("jain") <= 1.0, "{row:#}");
        assert!(mean("p50_ns") <= mean("p99_ns") && mean("p99_ns") <= mean("p999_ns"), "{row:#}");
        assert!(mean("broken") < 1.0, "{row:#}");
        let is_component = row["label"] == "bundled:rr";
        assert_eq!(row["metrics"]["instructions"].is_object(), is_component, "{row:#}");
    }
    let memory = |row: usize| timed["rows"][row]["metrics"]["memory_bytes"]["mean"].as_f64().unwrap();
    assert!(memory(0) < 1_000.0, "a list of two: {}", memory(0));
    assert!((131_074.0..150_000.0).contains(&memory(2)), "the table of Maglev: {}", memory(2));
    assert!(timed["notes"].as_array().unwrap().iter().any(|note| note.as_str().unwrap().contains("clock")));
}
