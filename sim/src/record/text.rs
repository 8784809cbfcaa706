//! A run or a comparison as text for a terminal: what a reader asks first, in tables that line up.

use std::fmt::Write as _;

use super::comparison::{Comparison, METRICS, Metric};
use super::data::{ForwarderRecord, RunRecord};
use super::number::{self, grouped, nanoseconds};
use crate::table::aligned;

/// The most servers that are told; those with the fewest and the most requests are told of more.
const SERVERS_MAX: usize = 40;
/// The most drops, marks and findings that are told.
const LINES_MAX: usize = 20;

/// The text of a run, with a line's end at its end.
#[must_use]
pub fn run_text(record: &RunRecord) -> String {
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = head(record, &mut text);
    let _ = latency(record, &mut text);
    let _ = servers(record, &mut text);
    let _ = forwarders(&record.forwarders, &mut text);
    let _ = drops(record, &mut text);
    let _ = tables(record, &mut text);
    let _ = judgement(record, &mut text);
    let hashes = &record.hashes;
    let named = [("wire", &hashes.wire), ("decision", &hashes.decisions), ("metric", &hashes.metrics)];
    let told =
        named.iter().filter(|(_, hash)| !hash.is_empty()).map(|(name, hash)| format!("{name} hash {hash}"));
    let _ = writeln!(text, "{}", told.collect::<Vec<_>>().join("   "));
    text
}

fn head(record: &RunRecord, text: &mut String) -> std::fmt::Result {
    let (flows, packets) = (&record.flows, &record.packets);
    writeln!(
        text,
        "scenario {}, seed {}: {} of virtual time, {} events",
        record.scenario,
        record.seed,
        nanoseconds(record.elapsed_ns),
        grouped(record.events)
    )?;
    for parameter in &record.parameters {
        writeln!(text, "         {} = {}", parameter.name, parameter.value)?;
    }
    writeln!(
        text,
        "flows    {} started, {} completed, {} broken, {} unfinished",
        grouped(flows.started),
        grouped(flows.completed),
        grouped(flows.broken),
        grouped(flows.unfinished)
    )?;
    for cause in &flows.causes {
        let floor = if cause.unavoidable == 0 {
            String::new()
        } else {
            format!(" ({} could not have been kept)", grouped(cause.unavoidable))
        };
        writeln!(text, "         {} broken: {}{floor}", grouped(cause.count), cause.words)?;
    }
    if packets.sent > 0 {
        writeln!(
            text,
            "packets  {} sent, {} received, {} sent again, {} stray",
            grouped(packets.sent),
            grouped(packets.received),
            grouped(packets.retransmitted),
            grouped(packets.stray)
        )?;
    }
    Ok(())
}

fn latency(record: &RunRecord, text: &mut String) -> std::fmt::Result {
    if record.latency.count() == 0 {
        return writeln!(text);
    }
    let mut rows =
        vec![["latency", "requests", "mean", "p50", "p90", "p99", "p99.9", "longest"].map(str::to_owned)];
    let all = ("all", &record.latency);
    let loads = record
        .loads
        .iter()
        .filter(|load| load.latency.count() > 0)
        .map(|load| (&load.name[..], &load.latency));
    let loads: Vec<_> = loads.collect();
    let shown = if loads.len() == 1 {
        loads
    } else {
        [all].into_iter().chain(loads.into_iter().take(LINES_MAX)).collect()
    };
    for (name, latency) in shown {
        let at = |share| latency.quantile(share).map_or_else(|| "-".to_owned(), nanoseconds);
        rows.push([
            name.to_owned(),
            grouped(latency.count()),
            latency.mean().map_or_else(|| "-".to_owned(), nanoseconds),
            at(500_000),
            at(900_000),
            at(990_000),
            at(999_000),
            at(1_000_000),
        ]);
    }
    writeln!(text)?;
    text.push_str(&aligned(&rows, 1));
    writeln!(text)
}

fn servers(record: &RunRecord, text: &mut String) -> std::fmt::Result {
    if record.servers.is_empty() {
        return Ok(());
    }
    let total = record.servers.iter().map(|server| server.requests).fold(0, u64::saturating_add);
    let weights = record.servers.iter().map(|server| u64::from(server.weight)).sum();
    let mut rows = vec![
        ["server", "address", "weight", "requests", "share", "by weight", "most active", "broken"]
            .map(str::to_owned),
    ];
    for server in record.servers.iter().take(SERVERS_MAX) {
        rows.push([
            server.name.clone(),
            server.address.clone(),
            server.weight.to_string(),
            grouped(server.requests),
            share(server.requests, total),
            share(server.weight.into(), weights),
            grouped(server.active_max.into()),
            grouped(server.broken),
        ]);
    }
    text.push_str(&aligned(&rows, 2));
    if let Some(further) = record.servers.len().checked_sub(SERVERS_MAX).filter(|further| *further > 0) {
        let requests = record.servers.iter().map(|server| server.requests);
        let (least, most) = (requests.clone().min().unwrap_or(0), requests.max().unwrap_or(0));
        let further = grouped(number::count(further));
        writeln!(text, "and {further} more; {} to {} requests each", grouped(least), grouped(most))?;
    }
    if let Some(balance) = record.balance.filter(|_| record.servers.len() > 1) {
        writeln!(
            text,
            "balance  busiest over mean {}, Jain's index {}, variation {}",
            number::ratio(balance.max_over_mean),
            number::index(number::float(balance.jain) / 1e6),
            number::ratio(balance.variation)
        )?;
    }
    writeln!(text)
}

/// A share with one digit behind the point, so that a column of them lines up.
fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    format!("{:.1} %", number::float(part) * 100.0 / number::float(whole))
}

fn forwarders(forwarders: &[ForwarderRecord], text: &mut String) -> std::fmt::Result {
    for forwarder in forwarders {
        writeln!(
            text,
            "forwarder {}: {} packets in, {} forwarded, {} answered, {} dropped",
            forwarder.name,
            grouped(forwarder.packets_in),
            grouped(forwarder.forwarded),
            grouped(forwarder.answered),
            grouped(forwarder.dropped)
        )?;
        let cost = &forwarder.cost;
        if let Some(each) = cost.instructions.and_then(|sum| sum.checked_div(cost.decisions)) {
            writeln!(text, "  {} decisions, {} instructions each", grouped(cost.decisions), grouped(each))?;
        }
        if let Some(bytes) = cost.memory_bytes {
            writeln!(text, "  {} of memory in schedulers", number::bytes(number::float(bytes)))?;
        }
        for guest in &forwarder.guests {
            writeln!(
                text,
                "  component of {}: {} calls, {} flows decided, {} faults, {} flows by fallback",
                guest.name,
                grouped(guest.calls),
                grouped(guest.decided),
                grouped(guest.faults),
                grouped(guest.fallbacks)
            )?;
        }
        if let Some(fault) = forwarder.faults.first() {
            writeln!(text, "  first fault: {fault}")?;
        }
    }
    Ok(())
}

fn drops(record: &RunRecord, text: &mut String) -> std::fmt::Result {
    for drop in record.drops.iter().take(LINES_MAX) {
        writeln!(text, "{} dropped by {}: {}", grouped(drop.count), drop.place, drop.reason)?;
    }
    if record.drops.len() > LINES_MAX {
        writeln!(text, "and {} more places and reasons", record.drops.len() - LINES_MAX)?;
    }
    Ok(())
}

fn tables(record: &RunRecord, text: &mut String) -> std::fmt::Result {
    for table in record.series.tables.iter().take(LINES_MAX) {
        let most = table.entries.iter().max().copied().unwrap_or(0);
        let evicted = table.evicted.iter().fold(0u64, |sum, one| sum.saturating_add(*one));
        if most == 0 && evicted == 0 {
            continue;
        }
        let full =
            if table.capacity > 0 { format!(" of {}", grouped(table.capacity)) } else { String::new() };
        writeln!(
            text,
            "{}: at most {}{full} entries, {} evicted",
            table.name,
            grouped(most),
            grouped(evicted)
        )?;
    }
    Ok(())
}

fn judgement(record: &RunRecord, text: &mut String) -> std::fmt::Result {
    for mark in record.timeline.iter().take(LINES_MAX) {
        writeln!(text, "at {}: {}", nanoseconds(mark.at_ns), mark.words)?;
    }
    if record.timeline.len() > LINES_MAX {
        writeln!(text, "and {} more events", record.timeline.len() - LINES_MAX)?;
    }
    for finding in record.findings.iter().take(LINES_MAX) {
        writeln!(text, "FOUND  {finding}")?;
    }
    if record.findings.len() > LINES_MAX {
        writeln!(text, "and {} more findings", record.findings.len() - LINES_MAX)?;
    }
    for expectation in &record.expectations {
        let mark = if expectation.is_met { "ok    " } else { "FAILED" };
        let found = expectation
            .found
            .as_ref()
            .map_or_else(|| "not measured in this run".to_owned(), |found| format!("found {found}"));
        writeln!(text, "{mark} {} {} ({found})", expectation.metric, expectation.wanted)?;
    }
    for note in &record.notes {
        writeln!(text, "note: {note}")?;
    }
    Ok(())
}

// Comparisons.

/// The columns of a comparison on a terminal and their short names; the page has all.
const TOLD: [(&str, &str); 9] = [
    ("imbalance", "max/mean"),
    ("jain", "Jain"),
    ("p50_ns", "p50"),
    ("p99_ns", "p99"),
    ("p999_ns", "p99.9"),
    ("broken", "broken"),
    ("instructions", "instructions"),
    ("decision_ns", "a decision"),
    ("memory_bytes", "memory"),
];

/// The text of a comparison, with a line's end at its end.
#[must_use]
pub fn comparison_text(comparison: &Comparison) -> String {
    let mut text = String::new();
    let has = |metric: &&Metric| comparison.rows.iter().any(|row| row.estimate(metric).is_some());
    let named = METRICS.iter().filter(has).filter_map(|metric| {
        let (_, name) = TOLD.iter().find(|(key, _)| *key == metric.key)?;
        Some((metric, (*name).to_owned()))
    });
    let (metrics, names): (Vec<&Metric>, Vec<String>) = named.unzip();
    let mut rows: Vec<Vec<String>> = vec![[String::new()].into_iter().chain(names).collect()];
    for group in comparison.groups() {
        let best: Vec<Vec<usize>> = metrics.iter().map(|metric| comparison.best(&group, metric)).collect();
        for index in &group {
            let Some(row) = comparison.rows.get(*index) else { continue };
            let cells = metrics.iter().zip(&best).map(|(metric, best)| {
                let Some(estimate) = row.estimate(metric) else { return "-".to_owned() };
                let half = estimate.half_width.filter(|half| *half > 0.0);
                let half = half
                    .map_or(String::new(), |half| format!(" ±{:.1}%", half * 100.0 / estimate.mean.abs()));
                let mark = if best.first() == Some(index) { "* " } else { "" };
                format!("{mark}{}{half}", metric.show(estimate.mean))
            });
            rows.push([comparison.label(row)].into_iter().chain(cells).collect());
        }
    }
    let seeds = comparison.rows.iter().map(|row| row.runs.len()).max().unwrap_or(0);
    // Writing into a String cannot fail.
    let _ =
        writeln!(text, "{}: {} rows, up to {seeds} seeds each\n", comparison.title, comparison.rows.len());
    text.push_str(&aligned(&rows, 1));
    let _ =
        writeln!(text, "\n* the best; ± half of the 95 % interval over the seeds, in percent of the mean");
    for note in comparison.all_notes() {
        let _ = writeln!(text, "note: {note}");
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::super::data::Mark;
    use super::super::example;
    use super::*;

    #[test]
    fn a_run_as_text() {
        let record = example::busy(1, "maglev", 3, 300);
        let wanted = "
scenario example, seed 1: 20 s of virtual time, 1,234,567 events
         service.web.scheduler = maglev
         load.web.rate = 300/s
flows    6,000 started, 5,964 completed, 36 broken, 0 unfinished
         1 broken: another real server answered than before
         35 broken: the other side stopped to answer (35 could not have been kept)
packets  640,000 sent, 639,120 received, 412 sent again, 0 stray

latency  requests     mean      p50      p90      p99    p99.9  longest
all         5,964  1.24 ms   948 µs  2.47 ms  4.57 ms  6.57 ms  8.02 ms
web         3,965  1.18 ms   907 µs  2.32 ms  4.28 ms  6.24 ms  7.27 ms
names       1,999  1.36 ms  1.06 ms  2.71 ms  5.13 ms  6.67 ms  8.02 ms

server    address    weight  requests   share  by weight  most active  broken
server.0  10.0.3.20       1     1,971  33.0 %     33.3 %           34       0
server.1  10.0.3.21       1     1,967  33.0 %     33.3 %           34      35
server.2  10.0.3.22       1     2,026  34.0 %     33.3 %           34       1
balance  busiest over mean 1.02, Jain's index 0.9998, variation 0.0135

forwarder lb: 640,000 packets in, 639,719 forwarded, 0 answered, 281 dropped
  6,000 decisions, 412 instructions each
  9.4 MB of memory in schedulers
  component of web: 6,000 calls, 6,000 flows decided, 0 faults, 0 flows by fallback
220 dropped by forwarder lb: no_server
61 dropped by forwarder lb: unknown_flow
512 dropped by link client.0 - clients: lost by chance
87 dropped by link lb - servers: queue full
lb flow table: at most 4,645 of 65,536 entries, 11 evicted
at 8 s: server.1 stops
at 12 s: server.1 is replaced by server.9
ok     flows.broken at most 1000 (found 36)
ok     conserved equal to 1 (found 1)
note: Packets of the first second are part of the totals.
wire hash 00112233445566ff   decision hash ffeeddccbbaa9988   metric hash 398e72ede97f3f02
";
        assert_eq!(run_text(&record), wanted.trim_start_matches('\n'));
    }

    #[test]
    fn very_many_servers_and_events_are_counted() {
        let mut record = example::busy(1, "maglev", 500, 100);
        record.timeline = vec![Mark { at_ns: 1, words: "x".to_owned() }; 30];
        record.findings = vec!["Wrong.".to_owned(); 30];
        let text = run_text(&record);
        assert!(text.contains("and 460 more; ") && text.contains("and 10 more events\n"), "{text}");
        assert!(text.contains("and 10 more findings\n") && text.lines().count() < 130, "{text}");
    }

    #[test]
    fn a_run_of_nothing_is_told() {
        let text = run_text(&RunRecord::default());
        assert!(text.contains("flows    0 started") && !text.contains("latency"), "{text}");
    }

    #[test]
    fn a_comparison_as_text() {
        let mut comparison = Comparison::new("Schedulers", "1");
        for scheduler in ["hash", "maglev"] {
            (1..=3).for_each(|seed| comparison.add(&example::busy(seed, scheduler, 4, 100)));
        }
        comparison.add(&example::busy(3, "maglev", 4, 100));
        let wanted = "
Schedulers: 2 rows, up to 3 seeds each

              max/mean            Jain             p50               p99             p99.9       broken  instructions    memory
hash      1.0278 ±3.0%  * 0.9994 ±0.1%    963 µs ±2.2%    4.79 ms ±13.6%     7.6 ms ±19.2%  11.3 ±25.3%           655  * 8.6 MB
maglev  * 1.0263 ±3.6%    0.9991 ±0.2%  * 920 µs ±1.1%  * 4.52 ms ±11.7%  * 7.17 ms ±19.4%  * 11 ±59.7%         * 412    9.4 MB

* the best; ± half of the 95 % interval over the seeds, in percent of the mean
note: Left out because a row had the seed already: 1 runs.
";
        assert_eq!(comparison_text(&comparison), wanted.trim_start_matches('\n'));
    }
}
