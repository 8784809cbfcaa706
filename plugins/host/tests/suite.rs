//! The conformance suite over every bundled component, and over guests that break the rules.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use evenkeel_plugin_host::suite::{Finding, Subject, Verdict, examine};

fn subject(component: &str, options: &str) -> Subject {
    Subject {
        component: component.to_owned(),
        options: options.to_owned(),
        data: String::new(),
        budget: Duration::from_millis(5),
        memory_bytes: 16 << 20,
        bundled: evenkeel_plugins_bundled::component,
    }
}

fn find<'a>(findings: &'a [Finding], name: &str) -> &'a Finding {
    findings.iter().find(|finding| finding.name == name).unwrap()
}

#[test]
fn every_bundled_component_passes() {
    for name in evenkeel_plugins_bundled::names() {
        let subject = subject(&format!("bundled:{name}"), "");
        let portrait = subject.inspect().unwrap();
        assert_eq!(portrait.trouble, None);
        assert!(portrait.imports.iter().all(|import| import.starts_with("evenkeel:plugin/")), "{portrait:?}");
        for finding in examine(&subject).unwrap() {
            assert_ne!(finding.verdict, Verdict::Failed, "{name}: {finding:?}");
        }
    }
}

#[test]
fn the_figures_are_those_of_the_algorithms() {
    let maglev = examine(&subject("bundled:maglev", "")).unwrap();
    assert_eq!(find(&maglev, "weights").verdict, Verdict::Passed);
    assert!(find(&maglev, "order").told.contains("agree"));
    let rendezvous = examine(&subject("bundled:rendezvous", "")).unwrap();
    assert!(find(&rendezvous, "disruption").told.starts_with("0.0 %"), "{rendezvous:?}");
    assert!(find(&rendezvous, "weights").told.contains("do not count"));
    let ewma = examine(&subject("bundled:peak-ewma", "")).unwrap();
    assert_eq!(find(&ewma, "snapshot").verdict, Verdict::Passed);
}

#[test]
fn what_a_policy_decides_is_told() {
    let guard = examine(&subject("bundled:syn-guard", "total_per_second = 9")).unwrap();
    assert!(find(&guard, "verdicts").told.contains("of 1 that it wishes"), "{guard:?}");
    assert!(find(&guard, "packets").told.starts_with("it judges flows"), "{guard:?}");
    let rules = "rules = '''\nflow a director dns match proto udp\nflow b deny match proto tcp dstport 22'''";
    let flowmgr = examine(&subject("bundled:flowmgr", rules)).unwrap();
    let told = &find(&flowmgr, "verdicts").told;
    assert!(told.contains("a director 333") && told.contains("deny "), "{told}");
    assert_eq!(find(&flowmgr, "batches").verdict, Verdict::Passed);
}

#[test]
fn guests_that_break_the_rules_are_found_out_by_name() {
    for (kind, check, words) in [
        ("unusable", "weight 0 and down", "down or drained"),
        ("trap", "answers", "misbehave was told to panic"),
        ("loop", "answers", "budget"),
        ("silent", "answers", "decided 0"),
        ("none", "snapshot", "does not take back"),
    ] {
        let findings = examine(&subject("bundled:misbehave", &format!("kind = \"{kind}\""))).unwrap();
        let finding = find(&findings, check);
        assert_eq!(finding.verdict, Verdict::Failed, "{kind}: {finding:?}");
        assert!(finding.told.contains(words), "{kind}: {finding:?}");
    }
    let refused = examine(&subject("bundled:misbehave", "kind = \"configure\"")).unwrap_err();
    assert!(refused.contains("told to panic in configure"), "{refused}");
    assert!(subject("missing.wasm", "").inspect().is_err());
}
