//! Katran's own test packets: pairs of what went in and what came out.
//!
//! In: the JSON list of `katran.json`, one object for each vector, with `suite`, `list`, `class`, `in_frame`, `out_frame` and
//! `expect`. The vectors of a list are replayed in order against one engine, set up as Katran's tests set theirs up. What
//! is compared:
//!
//! | class | compared |
//! |---|---|
//! | `encap` | the tunnel, the inner packet, outer type of service, time to live and identification; the real server is one of the service's, the same for one flow |
//! | `local-icmp-reply` | an echo reply: every byte. A packet too big: type, code, MTU and the quote |
//! | `pass-up-unchanged` | every byte, on the way to the machine itself |
//! | `drop` | nothing is sent |
//!
//! Masked, as the format says: the hop that a router takes off the inner packet, the outer source address and what spreads
//! flows over queues, and which of the real servers it is, since that is Katran's own hash.

mod judge;
mod setup;

use std::collections::BTreeMap;

use evenkeel_engine::Instant;
use evenkeel_engine::verdict::InterfaceId;
use serde_json::Value;

use super::bench::Bench;
use super::report::{Difference, Report};
use super::{Options, RecordingError, bytes, parse, wrong};
use judge::{Judge, Outcome};
use setup::{FRONT, Setup};

/// Time between two vectors of a list.
const GAP_NANOSECONDS: u64 = 1_000_000;

/// A vector as it is written.
#[derive(Clone, Debug)]
struct Vector {
    id: String,
    suite: String,
    list: String,
    class: String,
    /// `ipip` or `gue`, for packets that leave in a tunnel.
    tunnel: Option<String>,
    frame: Vec<u8>,
    out: Vec<u8>,
}

/// Replays every list of a recording.
///
/// # Errors
/// When the text is not of the format.
pub fn replay(text: &str, options: Options) -> Result<Report, RecordingError> {
    let all = parse(text)?;
    let items = all.as_array().ok_or_else(|| wrong("the file", "a list of vectors", &all))?;
    let mut lists: Vec<(String, Vec<Vector>)> = Vec::new();
    for (number, value) in items.iter().enumerate() {
        let vector = read(number, value)?;
        let name = format!("{}/{}", vector.suite, vector.list);
        match lists.last_mut() {
            Some((last, vectors)) if *last == name => vectors.push(vector),
            _ => lists.push((name, vec![vector])),
        }
    }
    let mut report = Report::new("katran", "vectors");
    for (name, vectors) in &lists {
        report.begin(name);
        replay_list(name, vectors, options, &mut report)?;
    }
    Ok(report)
}

fn read(number: usize, value: &Value) -> Result<Vector, RecordingError> {
    let at = |key: &str| format!("[{number}].{key}");
    let text = |key: &'static str| {
        let found = value.get(key).unwrap_or(&Value::Null);
        found.as_str().map(str::to_owned).ok_or_else(|| wrong(&at(key), "a text", found))
    };
    let frame = |key: &'static str| bytes(&at(key), value.get(key).unwrap_or(&Value::Null));
    let tunnel = value.get("expect").and_then(|expect| expect.get("encap")).and_then(Value::as_str);
    Ok(Vector {
        id: text("id")?,
        suite: text("suite")?,
        list: text("list")?,
        class: text("class")?,
        tunnel: tunnel.map(str::to_owned),
        frame: frame("in_frame")?,
        out: frame("out_frame")?,
    })
}

fn replay_list(
    name: &str,
    vectors: &[Vector],
    options: Options,
    report: &mut Report,
) -> Result<(), RecordingError> {
    let setup = Setup::read(vectors, options);
    let refused = |error| RecordingError::Plan { case: name.to_owned(), error };
    let mut bench = Bench::new(setup.plan()).map_err(refused)?;
    // A flow and the real server that it was given.
    let mut flows: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut now = GAP_NANOSECONDS;
    for vector in vectors {
        if let Some(reason) = setup.strange(vector) {
            report.skip(reason);
            continue;
        }
        now += GAP_NANOSECONDS;
        let sent = bench.feed(InterfaceId(FRONT), &vector.frame, Instant::from_nanos(now));
        let mut judge = Judge { setup: &setup, vector, flows: &mut flows };
        let mut outcome = judge.judge(&sent);
        if let Some(probe) = judge.wants_probe(&outcome) {
            now += GAP_NANOSECONDS;
            let sent = bench.feed(InterfaceId(FRONT), &probe, Instant::from_nanos(now));
            outcome = judge.judge_probe(outcome, &sent);
        }
        settle(vector, outcome, report);
    }
    if report.cases.last().is_some_and(|case| case.compared == 0) {
        report.note("not applicable".to_owned());
    } else {
        report.note(setup.words());
    }
    Ok(())
}

fn settle(vector: &Vector, outcome: Outcome, report: &mut Report) {
    outcome.masks.iter().for_each(|mask| report.mask(mask));
    if outcome.what.is_empty() && outcome.rules.is_empty() {
        return report.agree();
    }
    let is_meant = outcome.what.is_empty();
    let fields: Vec<_> = outcome.fields.iter().map(|field| field.field.clone()).collect();
    let what = if is_meant { fields.join(", ") } else { outcome.what.join("; ") };
    report.differ(Difference {
        case: String::new(),
        at: vector.id.clone(),
        rules: if is_meant { outcome.rules.into_iter().collect() } else { Vec::new() },
        what,
        fields: outcome.fields,
        recorded: Some(vector.out.clone()),
        ours: outcome.ours,
    });
}
