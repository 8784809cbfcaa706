//! `evenkeel plugin inspect` and `check`: what a component is made of, and whether it behaves.

use std::time::Duration;

use evenkeel_plugin_host::suite::{Portrait, Subject, Verdict, examine};
use serde_json::{Value, json};

use crate::progress::Progress;
use crate::{Failure, output};

/// A component that is larger than this carries more than it needs, such as an interpreter.
const LARGE_BYTES: usize = 1 << 20;

pub(super) fn inspect(component: &str, is_json: bool) -> Result<(), Failure> {
    let subject = Subject {
        component: component.to_owned(),
        options: String::new(),
        data: String::new(),
        budget: Duration::from_millis(1),
        memory_bytes: 16 << 20,
        bundled: evenkeel_plugins_bundled::component,
    };
    let portrait = subject.inspect().map_err(|reason| refused(component, &reason))?;
    if is_json {
        output::answer(&format!("{:#}\n", value(&portrait)))?;
    } else {
        output::answer(&shown(component, &portrait))?;
    }
    match portrait.trouble {
        None => Ok(()),
        Some(trouble) => Err(Failure::Runtime(format!("{component}: {trouble}"))),
    }
}

pub(super) fn check(subject: &Subject, is_json: bool) -> Result<(), Failure> {
    let component = &subject.component;
    let progress = Progress::start(format!("examining {component}"));
    let portrait = subject.inspect().map_err(|reason| refused(component, &reason))?;
    if let Some(trouble) = &portrait.trouble {
        return Err(refused(component, trouble));
    }
    let findings = examine(subject).map_err(|reason| refused(component, &reason))?;
    drop(progress);
    let failed = findings.iter().filter(|finding| finding.verdict == Verdict::Failed).count();
    if is_json {
        let list: Vec<Value> = findings
            .iter()
            .map(|one| json!({ "check": one.name, "verdict": word(one.verdict), "told": one.told }))
            .collect();
        let value = json!({ "component": value(&portrait), "findings": list, "failed": failed });
        output::answer(&format!("{value:#}\n"))?;
    } else {
        let mut text = shown(component, &portrait);
        for finding in &findings {
            text.push_str(&format!("  {:<7} {:<18} {}\n", word(finding.verdict), finding.name, finding.told));
        }
        output::answer(&text)?;
    }
    match failed {
        0 => Ok(()),
        count => Err(Failure::Runtime(format!("{component}: {count} of {} checks failed", findings.len()))),
    }
}

const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "ok",
        Verdict::Failed => "FAILED",
        Verdict::Noted => "note",
    }
}

fn shown(component: &str, portrait: &Portrait) -> String {
    let list = |names: &[String]| {
        if names.is_empty() { "nothing".to_owned() } else { names.join("\n            ") }
    };
    let worlds = if portrait.worlds.is_empty() { "none".to_owned() } else { portrait.worlds.join(", ") };
    let size = if portrait.bytes > LARGE_BYTES { ", which is large" } else { "" };
    format!(
        "{component}\n  worlds    {worlds}\n  exports   {}\n  imports   {}\n  size      {} bytes{size}\n  sha256    {}...\n",
        list(&portrait.exports),
        list(&portrait.imports),
        portrait.bytes,
        portrait.digest,
    )
}

fn value(portrait: &Portrait) -> Value {
    json!({
        "worlds": portrait.worlds,
        "exports": portrait.exports,
        "imports": portrait.imports,
        "bytes": portrait.bytes,
        "sha256": portrait.digest,
        "trouble": portrait.trouble,
    })
}

pub(super) fn refused(component: &str, reason: &str) -> Failure {
    Failure::Runtime(format!("{component}: {reason}"))
}
