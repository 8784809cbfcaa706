//! The reference pages say what the code does: every metric, cause and key is there, the example is a scenario,
//! and the example session is what the engine answers.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::path::Path;

use crate::support::{library, run_native};
use evenkeel_sim::report::metric;
use evenkeel_sim::scenario::{reference, schema};
use evenkeel_sim::{Options, Scenario};

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

const GENERATED: &str = "cargo test -p evenkeel-sim --test all documentation -->\n";
const END: &str = "<!-- End of what is generated. -->";

#[test]
fn the_keys_on_the_page_are_those_of_the_types() {
    let page = page("scenario.md");
    let (before, rest) = page.split_once(GENERATED).unwrap();
    let (_, behind) = rest.split_once(END).unwrap();
    let wanted = format!("{before}{GENERATED}\n{}\n{END}{behind}", reference::part());
    if std::env::var_os("EVENKEEL_WRITE_DOCS").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/reference/scenario.md");
        std::fs::write(path, &wanted).unwrap();
    } else {
        let advice = "run EVENKEEL_WRITE_DOCS=1 cargo test -p evenkeel-sim --test all documentation, and look at the difference";
        assert!(page == wanted, "{advice}");
    }
}

/// Every path of keys in a schema, with `*` for a name of the user's choice.
fn paths(schema: &serde_json::Value, path: &str, all: &mut Vec<String>) {
    for (key, below) in schema.get("properties").and_then(|all| all.as_object()).into_iter().flatten() {
        let path = format!("{path}.{key}");
        paths(below, &path, all);
        all.push(path);
    }
    for key in ["items", "additionalProperties"] {
        schema.get(key).into_iter().for_each(|below| paths(below, path, all));
    }
    for below in schema.get("anyOf").and_then(|all| all.as_array()).into_iter().flatten() {
        paths(below, path, all);
    }
}

#[test]
fn the_example_has_every_key_and_is_a_scenario() {
    let mut all = Vec::new();
    paths(schema(), "", &mut all);
    assert!(all.len() > 200, "{all:?}");
    for path in all {
        let key = path.rsplit('.').next().unwrap();
        let is_there = reference::EXAMPLE.lines().any(|line| {
            let header = line.trim_matches(['[', ']']);
            line.starts_with('[') && header.split('.').any(|part| part == key)
                || line.split([' ', '{', ',']).any(|word| word == key)
        });
        assert!(is_there, "{path} is missing in the example");
    }
    Scenario::parse(reference::EXAMPLE, Path::new("every-key.toml"))
        .unwrap_or_else(|errors| panic!("{errors}"));
}

#[test]
fn every_table_refuses_unknown_keys_and_every_key_is_described() {
    fn look(path: &str, schema: &serde_json::Value) {
        if let Some(properties) = schema.get("properties").and_then(|all| all.as_object()) {
            assert_eq!(schema.get("additionalProperties"), Some(&false.into()), "{path}");
            for (key, below) in properties {
                assert!(below.get("description").is_some_and(|text| text.is_string()), "{path}.{key}");
                look(&format!("{path}.{key}"), below);
            }
        }
        for key in ["items", "additionalProperties"] {
            schema.get(key).into_iter().for_each(|below| look(path, below));
        }
        for below in schema.get("anyOf").and_then(|all| all.as_array()).into_iter().flatten() {
            look(path, below);
        }
    }
    look("", schema());
    assert!(!schema().to_string().contains("$ref"));
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
fn every_cause_and_reason_is_described() {
    use evenkeel_sim::kernel::KernelDrop;
    use evenkeel_sim::{BreakCause, Cause};
    let page = page("scenario.md");
    let all = KernelDrop::ALL.iter().map(|reason| reason.name());
    for name in all.chain(BreakCause::ALL.iter().map(|cause| cause.key())) {
        assert!(page.contains(&format!("| `{name}` | ")), "{name}");
    }
    for cause in Cause::ALL {
        let name = serde_json::to_value(cause).unwrap();
        let row = format!("| `{}` | {} |", name.as_str().unwrap(), cause.words());
        assert!(page.contains(&row), "{row}");
    }
}
