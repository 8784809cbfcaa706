//! The report as text: a table of servers, then what else a reader asks first.

use std::fmt::Write as _;

use super::{ForwarderReport, Outcome, ServerReport};
use crate::flow_mode;
use crate::host::Cause;
use crate::record::data::Mode;
use crate::table::aligned;

/// The text of a report, with a line's end at its end.
pub(super) fn render(outcome: &Outcome) -> String {
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = head(outcome, &mut text);
    let _ = servers(outcome, &mut text);
    let _ = forwarders(outcome.mode, &outcome.forwarders, &mut text);
    let _ = expectations(outcome, &mut text);
    if outcome.mode == Mode::Packet {
        let _ = write!(text, "wire hash {}   ", outcome.wire_hash);
    }
    let _ = writeln!(
        text,
        "decision hash {}   metric hash {}   evenkeel {}",
        outcome.decision_hash, outcome.metric_hash, outcome.version
    );
    text
}

fn head(outcome: &Outcome, text: &mut String) -> std::fmt::Result {
    let (seconds, millis) = (outcome.elapsed_ns / 1_000_000_000, outcome.elapsed_ns / 1_000_000 % 1_000);
    let (flows, packets) = (&outcome.flows, &outcome.packets);
    writeln!(
        text,
        "scenario {}, seed {}: {seconds}.{millis:03} s of virtual time, {} events",
        outcome.scenario, outcome.seed, outcome.events
    )?;
    writeln!(
        text,
        "flows    {} started, {} completed, {} broken, {} unfinished",
        flows.started, flows.completed, flows.broken, flows.unfinished
    )?;
    for (cause, count) in &flows.causes {
        writeln!(text, "         {count} broken: {}", words(outcome.mode, cause))?;
    }
    if outcome.unavoidable > 0 {
        writeln!(
            text,
            "         {} of them could not be kept: their real server was away",
            outcome.unavoidable
        )?;
    }
    for sentence in &outcome.checks.sentences {
        writeln!(text, "found    {sentence}")?;
    }
    if outcome.mode == Mode::Flow {
        let latency = &outcome.latency;
        let [mean, p99] = [latency.mean_ns, latency.p99_ns].map(milliseconds);
        return writeln!(
            text,
            "requests {} answered, after {mean} ms on average, 99 % of them within {p99} ms\n",
            latency.answers
        );
    }
    let lost = packets.lost();
    writeln!(
        text,
        "packets  {} sent, {} received, {lost} lost, {} sent again, {} stray",
        packets.sent, packets.received, packets.retransmitted, packets.stray
    )?;
    writeln!(text)
}

/// A cause in words.
fn words(mode: Mode, key: &str) -> &str {
    let found = match mode {
        Mode::Packet => Cause::ALL.iter().find(|cause| cause.key() == key).map(|cause| cause.words()),
        Mode::Flow => {
            flow_mode::Cause::ALL.iter().find(|cause| cause.key() == key).map(|cause| cause.words())
        }
    };
    found.unwrap_or(key)
}

/// Milliseconds with three digits behind the point.
fn milliseconds(nanoseconds: u64) -> String {
    let microseconds = nanoseconds / 1_000;
    format!("{}.{:03}", microseconds / 1_000, microseconds % 1_000)
}

/// The real servers as rows under their head: flows, shares, and what came of them, in packets where there are any.
#[must_use]
pub fn server_rows(mode: Mode, servers: &[ServerReport]) -> Vec<Vec<String>> {
    let head = ["director", "server", "address", "weight", "flows", "share", "by weight"];
    let tail: &[&str] = match mode {
        Mode::Packet => &["packets to", "packets from"],
        Mode::Flow => &["completed"],
    };
    let mut rows = vec![head.iter().chain(tail).map(|title| (*title).to_owned()).collect::<Vec<_>>()];
    rows.extend(servers.iter().map(|server| {
        let mut row = vec![
            server.director.clone(),
            server.server.clone(),
            server.address.clone(),
            server.weight.to_string(),
            server.flows.to_string(),
            format!("{:.1} %", server.flows_percent),
            format!("{:.1} %", server.weight_percent),
        ];
        match mode {
            Mode::Packet => row.extend([server.packets_to.to_string(), server.packets_from.to_string()]),
            Mode::Flow => row.push(server.answered.to_string()),
        }
        row
    }));
    rows
}

fn servers(outcome: &Outcome, text: &mut String) -> std::fmt::Result {
    if outcome.servers.is_empty() {
        return Ok(());
    }
    writeln!(text, "{}", aligned(&server_rows(outcome.mode, &outcome.servers), 3))
}

fn forwarders(mode: Mode, forwarders: &[ForwarderReport], text: &mut String) -> std::fmt::Result {
    for forwarder in forwarders {
        let dropped: u64 = forwarder.dropped.values().sum();
        let name = &forwarder.name;
        match mode {
            Mode::Packet => writeln!(
                text,
                "forwarder {name}: {} packets in, {} forwarded, {} answered, {dropped} dropped",
                forwarder.packets_in, forwarder.forwarded, forwarder.answered
            )?,
            Mode::Flow => writeln!(
                text,
                "forwarder {name}: {} flows opened, {} scheduler calls",
                forwarder.flows_opened, forwarder.scheduler_calls
            )?,
        }
        for (reason, count) in &forwarder.dropped {
            writeln!(text, "  {count} dropped: {reason}")?;
        }
        for guest in &forwarder.guests {
            writeln!(
                text,
                "  component of {}: {} calls, {} flows decided, {} faults, {} flows by fallback",
                guest.name, guest.calls, guest.decided, guest.faults, guest.fallbacks
            )?;
        }
        if let Some(fault) = forwarder.faults.first() {
            writeln!(text, "  first fault: {fault}")?;
        }
    }
    Ok(())
}

fn expectations(outcome: &Outcome, text: &mut String) -> std::fmt::Result {
    for expectation in &outcome.expectations {
        let mark = if expectation.is_met { "ok    " } else { "FAILED" };
        write!(text, "{mark} {} {}", expectation.metric, expectation.wanted)?;
        match &expectation.found {
            Some(found) => writeln!(text, " (found {found})")?,
            None => writeln!(text, " (not measured in this run)")?,
        }
    }
    Ok(())
}
