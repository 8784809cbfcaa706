//! Mistakes that are found after the file has been read: by the engine, and by whoever loads components.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails says where")]

use evenkeel_config::{Code, Diagnostic, Diagnostics, Loaded, Subject, parse};

/// An interface and a director that are right; cases follow it, so that their first line is line 9.
const GOOD: &str = r#"[interface.tun0]
kind = "tun"
[director.web]
bind = "10.0.0.3:80/tcp"
[[director.web.server]]
name = "s1"
address = "10.0.3.20:80"

"#;

fn found(text: &str) -> Diagnostics {
    match parse(text, "evenkeel.toml") {
        Ok(loaded) => loaded.warnings,
        Err(found) => found,
    }
}

fn line_and_column(diagnostic: &Diagnostic) -> (usize, usize) {
    diagnostic.place().map_or((0, 0), |(start, _)| (start.line, start.column))
}

fn good() -> Loaded {
    let text = format!(
        "{GOOD}[director.guest]\nbind = '10.0.0.4:80/tcp'\nscheduler = {{ component = 'bundled:x' }}\n\
         server = [{{ name = 's', address = '10.0.3.2:80' }}]\n\
         [[policy.component]]\nname = 'guest'\ncomponent = 'bundled:y'\noptions = {{ a = 1 }}\n\
         [[flow]]\nname = 'f'\nrule = [{{ match = {{}} }}]\n\
         [forwarder]\ncontrol = '/run/x.sock'\n"
    );
    parse(&text, "evenkeel.toml").unwrap_or_else(|found| panic!("{found}"))
}

#[test]
fn later_errors_point_at_what_they_are_about() {
    let loaded = good();
    let at = |subject| line_and_column(&loaded.diagnostic_at(subject, "message", "help"));
    assert_eq!(at(Subject::Interface("tun0", "kind")), (2, 8));
    assert_eq!(at(Subject::Interface("tun0", "nothing")), (1, 12));
    assert_eq!(at(Subject::Director("web", "bind")), (4, 8));
    assert_eq!(at(Subject::Director("guest", "scheduler")), (11, 27));
    assert_eq!(at(Subject::Server("web", "s1")), (6, 8));
    assert_eq!(at(Subject::Policy("guest", "component")), (15, 13));
    assert_eq!(at(Subject::Flow("f")), (18, 8));
    assert_eq!(at(Subject::Forwarder("control")), (21, 11));
    assert_eq!(at(Subject::Director("nobody", "bind")), (0, 0));
}

#[test]
fn a_component_error_points_at_the_table_that_names_the_component() {
    let loaded = good();
    let by_director = loaded.component_error("guest", "bundled:x", "there is no bundled component x");
    assert_eq!((by_director.code(), line_and_column(&by_director)), (Code::Component, (11, 27)));
    let by_policy = loaded.component_error("guest", "bundled:y", "it lacks the world policy");
    assert_eq!(line_and_column(&by_policy), (15, 13));
    assert!(by_policy.message().contains("bundled:y") && by_policy.message().contains("lacks the world"));
}

#[test]
fn a_refused_plan_points_at_the_director() {
    let error = evenkeel_engine::PlanError::MissingGuest {
        name: "guest".to_owned(),
        component: "bundled:x".to_owned(),
    };
    let refused = good().refused(&error);
    assert_eq!((refused.code(), line_and_column(&refused)), (Code::Refused, (9, 11)), "{refused}");
}

#[test]
fn json_is_one_object_a_line_with_the_documented_keys() {
    let lines = found("[interface.tun0]\nkind = 'tin'\n[[director.web.server]]\n").to_json_lines();
    assert!(lines.lines().count() >= 3, "{lines}");
    for line in lines.lines() {
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        let keys: Vec<_> = object.as_object().unwrap().keys().map(String::as_str).collect();
        let documented = [
            "also",
            "code",
            "column",
            "end_column",
            "end_line",
            "file",
            "help",
            "line",
            "message",
            "repair",
            "severity",
        ];
        assert_eq!(keys, documented, "{line}");
    }
    let first: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(first["repair"]["text"], "\"tun\"", "{first}");
    assert_eq!((&first["line"], &first["column"], &first["end_column"]), (&2.into(), &8.into(), &13.into()));
}

#[test]
fn options_are_as_short_as_components_are_promised() {
    let text = |length: usize| {
        let value = "x".repeat(length);
        format!(
            "{GOOD}[[policy.component]]\nname = 'p'\ncomponent = 'bundled:p'\noptions = {{ a = '{value}' }}\n"
        )
    };
    assert!(found(&text(65_000)).is_empty());
    let found = found(&text(66_000));
    let only = found.iter().next().unwrap();
    assert_eq!((only.code(), line_and_column(only)), (Code::OutOfRange, (12, 11)));
    assert!(only.message().contains("65536 is the most"), "{found}");
}
