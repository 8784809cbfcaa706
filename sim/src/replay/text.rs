//! The outcome of a replay as text.

use std::fmt::Write as _;

use super::outcome::Outcome;
use crate::table::aligned;

/// Broken connections that are shown; the JSON has all.
const BROKEN_MAX: usize = 20;

/// The text of an outcome, with a line's end at its end.
pub(super) fn render(outcome: &Outcome) -> String {
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = head(outcome, &mut text);
    let _ = servers(outcome, &mut text);
    let _ = packets(outcome, &mut text);
    let _ = broken(outcome, &mut text);
    let (wire, decisions) = (&outcome.wire_hash, &outcome.decision_hash);
    let _ = writeln!(text, "wire hash {wire}   decision hash {decisions}");
    text
}

fn head(outcome: &Outcome, text: &mut String) -> std::fmt::Result {
    let packed = if outcome.capture.is_packed { ", packed" } else { "" };
    let (seconds, millis) =
        (outcome.time.elapsed_ns / 1_000_000_000, outcome.time.elapsed_ns / 1_000_000 % 1_000);
    writeln!(
        text,
        "replay of {} packets ({}{packed}), seed {}, version {}: {seconds}.{millis:03} s of virtual time",
        outcome.read, outcome.capture.format, outcome.seed, outcome.version
    )?;
    for warning in &outcome.capture.warnings {
        writeln!(text, "warning: {warning}")?;
    }
    if outcome.time.backwards + outcome.time.shortened > 0 {
        let (backwards, shortened) = (outcome.time.backwards, outcome.time.shortened);
        writeln!(text, "time     {backwards} steps back taken as none, {shortened} gaps shortened")?;
    }
    let connections = &outcome.connections;
    writeln!(
        text,
        "connections  {} seen ({} tcp, {} udp, {} icmp), {} served, {} refused, {} broken",
        connections.seen,
        connections.tcp,
        connections.udp,
        connections.icmp,
        connections.served,
        connections.refused,
        connections.broken
    )?;
    if let Some(hint) = &outcome.hint {
        writeln!(text, "hint: {hint}")?;
    }
    writeln!(text)
}

fn servers(outcome: &Outcome, text: &mut String) -> std::fmt::Result {
    if outcome.servers.is_empty() {
        return Ok(());
    }
    let head = ["director", "server", "address", "weight", "flows", "packets to", "packets from"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for server in &outcome.servers {
        let numbers = [u64::from(server.weight), server.flows, server.packets_to, server.packets_from];
        let mut row = vec![server.director.clone(), server.server.clone(), server.address.clone()];
        row.extend(numbers.map(|number| number.to_string()));
        rows.push(row);
    }
    text.push_str(&aligned(&rows, 3));
    writeln!(text)
}

fn packets(outcome: &Outcome, text: &mut String) -> std::fmt::Result {
    let skipped: u64 = outcome.skipped.values().sum();
    let dropped: u64 = outcome.dropped.values().sum();
    writeln!(text, "packets  {} read, {} fed, {skipped} skipped", outcome.read, outcome.fed)?;
    for (reason, count) in &outcome.skipped {
        writeln!(text, "  {count} skipped: {reason}")?;
    }
    let simulated = match outcome.simulated {
        0 => String::new(),
        count => format!(" (with {count} simulated)"),
    };
    writeln!(
        text,
        "engine   {} forwarded, {} answered, {} consumed, {dropped} dropped, {} waiting, {} born{simulated}",
        outcome.forwarded, outcome.answered, outcome.consumed, outcome.waiting, outcome.born
    )?;
    for (reason, count) in &outcome.dropped {
        writeln!(text, "  {count} dropped: {reason}")?;
    }
    let checksums = &outcome.checksums;
    let notes = [
        (checksums.offloaded, "checksums were left to hardware"),
        (checksums.wrong, "checksums were wrong"),
        (checksums.headers, "checksums of headers were wrong"),
        (checksums.repaired, "packets were repaired"),
        (outcome.tagged, "packets had a VLAN tag, which was taken off"),
        (outcome.fragments, "fragments"),
        (outcome.errors, "ICMP errors"),
        (outcome.super_packets, "segments were longer than any link"),
        (outcome.unreadable, "packets could not be read"),
    ];
    for (count, words) in notes.into_iter().filter(|(count, _)| *count > 0) {
        writeln!(text, "  {count} {words}")?;
    }
    if let Some(fault) = outcome.faults.first() {
        writeln!(text, "  first fault: {fault}")?;
    }
    Ok(())
}

fn broken(outcome: &Outcome, text: &mut String) -> std::fmt::Result {
    for broken in outcome.broken.iter().take(BROKEN_MAX) {
        let (number, tuple) = (broken.connection, &broken.tuple);
        writeln!(text, "BROKEN connection {number}, {tuple}, packet {}: {}", broken.packet, broken.cause)?;
    }
    if let Some(more) = outcome.broken.len().checked_sub(BROKEN_MAX).filter(|more| *more > 0) {
        writeln!(text, "... and {more} more, all of them in the JSON")?;
    }
    Ok(())
}
