//! What a Linux director (IPVS) decided for new flows: virtual services, lists of clients, and the real server that each
//! was given.
//!
//! In: the JSON object of `ipvs_scheduling.json`, one service for each key, with `proto`, `sched`, `flags`, `extra`, `dests`,
//! `clients` and `picks`. The first packet of every client goes into one engine that is set up as the service was, in the
//! same order; the real server in its flow table is held against the recorded one. What happened midway is read out of
//! the name ([`entry`]). Besides, a recording holds facts about the kernel; those that this engine has an equal of
//! are compared as well ([`facts`]), the others are counted as not applicable.

mod entry;
mod facts;
mod service;

use super::differ::FieldDifference;
use super::report::{Difference, Report};
use super::{Options, RecordingError, parse, wrong};
use entry::{Entry, Reading};
use service::Service;

/// Replays every service of a recording.
///
/// # Errors
/// When the text is not of the format, or a service can not be one of this engine's.
pub fn replay(text: &str, _options: Options) -> Result<Report, RecordingError> {
    let all = parse(text)?;
    let entries = all.as_object().ok_or_else(|| wrong("the file", "an object of services", &all))?;
    let mut report = Report::new("ipvs-scheduling", "decisions");
    for (name, value) in entries {
        report.begin(name);
        let is_service = value.get("clients").is_some() || value.get("picks").is_some();
        if !is_service {
            facts::compare(name, value, &mut report)?;
            continue;
        }
        match entry::read(name, value)? {
            Reading::Service(entry) => replay_entry(name, &entry, &mut report)?,
            Reading::Unlike { reason, decisions } => {
                report.note(reason.clone());
                (0..decisions).for_each(|_| report.skip(&reason));
            }
        }
    }
    Ok(report)
}

fn replay_entry(name: &str, entry: &Entry, report: &mut Report) -> Result<(), RecordingError> {
    entry.notes().into_iter().for_each(|note| report.note(note));
    let refused = |error| RecordingError::Plan { case: name.to_owned(), error };
    let mut service = Service::new(entry.setup.clone()).map_err(refused)?;
    for (number, (client, recorded)) in entry.clients.iter().zip(&entry.picks).enumerate() {
        for step in entry.steps.iter().filter(|step| step.before == number + 1) {
            service.take(&step.change).map_err(refused)?;
        }
        let ours = service.call(*client);
        let at = format!("client {}, {}:{}", number + 1, client.0, client.1);
        decide(report, &at, *recorded, ours);
    }
    Ok(())
}

/// Notes a decision.
pub(super) fn decide(report: &mut Report, at: &str, recorded: Option<u32>, ours: Option<u32>) {
    let shown = |pick: Option<u32>| pick.map_or_else(|| "nobody".to_owned(), |pick| pick.to_string());
    hold(report, at, "server", &shown(recorded), &shown(ours));
}

/// Holds what was recorded against what the engine did.
fn hold(report: &mut Report, at: &str, field: &str, recorded: &str, ours: &str) {
    if recorded == ours {
        report.agree();
        return;
    }
    let (recorded, ours) = (recorded.to_owned(), ours.to_owned());
    report.differ(Difference {
        case: String::new(),
        at: at.to_owned(),
        rules: Vec::new(),
        what: format!("{field} {recorded} was recorded, {ours} is ours"),
        fields: vec![FieldDifference { field: field.to_owned(), recorded: Some(recorded), ours: Some(ours) }],
        recorded: None,
        ours: None,
    });
}
