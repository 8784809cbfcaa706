//! The reference pages say what the code does: every metric, cause and key is there, the example is a scenario,
//! and the example session is what the engine answers.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::path::Path;

use evenkeel_sim::report::metric;
use evenkeel_sim::{Options, Scenario};
use support::{library, run_native};

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/reference").join(name);
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn the_example_is_a_scenario() {
    let page = page("scenario.md");
    let example = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let scenario =
        Scenario::parse(example, Path::new("page.toml")).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!((scenario.hosts.len(), scenario.forwarders.len(), scenario.links.len()), (7, 1, 1));
}

#[test]
fn every_metric_is_described() {
    let page = page("scenario.md");
    for (name, meaning) in metric::NAMES {
        assert!(page.contains(&format!("| `{name}` | {meaning} |")), "{name}");
    }
}

#[test]
fn every_key_of_the_report_is_described() {
    let page = page("scenario.md");
    let outcome = run_native(&library("nat-udp-snat.toml"), Options::default());
    let json = serde_json::to_value(&outcome).unwrap();
    let mut keys: Vec<&String> = json.as_object().unwrap().keys().collect();
    for list in ["loads", "servers", "forwarders", "hosts", "expectations"] {
        keys.extend(json[list][0].as_object().unwrap().keys());
    }
    for table in ["flows", "packets"] {
        keys.extend(json[table].as_object().unwrap().keys());
    }
    for key in keys {
        assert!(page.contains(&format!("`{key}`")) || page.contains(&format!("`{key}[]`")), "{key}");
    }
}

#[test]
fn every_cause_is_described() {
    use evenkeel_sim::Cause;
    let page = page("scenario.md");
    let causes = [
        Cause::TimedOut,
        Cause::Reset,
        Cause::Unreachable,
        Cause::WrongAnswer,
        Cause::ServerChanged,
        Cause::ClosedEarly,
        Cause::NoPort,
    ];
    for cause in causes {
        let name = serde_json::to_value(cause).unwrap();
        let row = format!("| `{}` | {} |", name.as_str().unwrap(), cause.words());
        assert!(page.contains(&row), "{row}");
    }
}
