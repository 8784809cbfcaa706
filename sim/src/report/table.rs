//! The report as text: a table of servers, then what else a reader asks first.

use std::fmt::Write as _;

use super::{ForwarderReport, Outcome};
use crate::flow_mode;
use crate::host::Cause;
use crate::record::data::Mode;

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

/// The servers of a run without packets.
fn flow_servers(outcome: &Outcome, text: &mut String) -> std::fmt::Result {
    let head = ["director", "server", "address", "weight", "flows", "share", "by weight", "completed"];
    let mut rows = vec![head.map(str::to_owned)];
    for server in &outcome.servers {
        rows.push([
            server.director.clone(),
            server.server.clone(),
            server.address.clone(),
            server.weight.to_string(),
            server.flows.to_string(),
            format!("{:.1} %", server.flows_percent),
            format!("{:.1} %", server.weight_percent),
            server.answered.to_string(),
        ]);
    }
    aligned(&rows, 3, text)?;
    writeln!(text)
}

fn servers(outcome: &Outcome, text: &mut String) -> std::fmt::Result {
    if outcome.servers.is_empty() {
        return Ok(());
    }
    if outcome.mode == Mode::Flow {
        return flow_servers(outcome, text);
    }
    let head = [
        "director",
        "server",
        "address",
        "weight",
        "flows",
        "share",
        "by weight",
        "packets to",
        "packets from",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    for server in &outcome.servers {
        rows.push([
            server.director.clone(),
            server.server.clone(),
            server.address.clone(),
            server.weight.to_string(),
            server.flows.to_string(),
            format!("{:.1} %", server.flows_percent),
            format!("{:.1} %", server.weight_percent),
            server.packets_to.to_string(),
            server.packets_from.to_string(),
        ]);
    }
    aligned(&rows, 3, text)?;
    writeln!(text)
}

/// Columns as wide as their widest cell, with the first `left` of them aligned to the left.
fn aligned<const N: usize>(rows: &[[String; N]], left: usize, text: &mut String) -> std::fmt::Result {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            if column < left {
                write!(line, "{gap}{cell:<width$}")?;
            } else {
                write!(line, "{gap}{cell:>width$}")?;
            }
        }
        writeln!(text, "{}", line.trim_end())?;
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [["a", "100"], ["long", "1"]].map(|row| row.map(str::to_owned));
        let mut text = String::new();
        aligned(&rows, 1, &mut text).unwrap();
        assert_eq!(text, "a     100\nlong    1\n");
    }
}
