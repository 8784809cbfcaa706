//! Every plot as a table for other programs: one file of comma-separated values each (RFC 4180).
//!
//! The first line names the columns; their units are in the names. Numbers are whole, except in the files of a
//! comparison.

use std::fmt::Display;

use super::comparison::{Comparison, METRICS};
use super::data::RunRecord;

/// A table on paper.
struct Table(String);

impl Table {
    fn new(head: &[&str]) -> Self {
        let mut table = Self(String::new());
        table.row(head.iter());
        table
    }

    fn row<T: Display>(&mut self, cells: impl IntoIterator<Item = T>) {
        for (place, cell) in cells.into_iter().enumerate() {
            if place > 0 {
                self.0.push(',');
            }
            self.0.push_str(&quoted(&cell.to_string()));
        }
        self.0.push_str("\r\n");
    }
}

/// A cell, in quotation marks where it must be.
fn quoted(cell: &str) -> String {
    let is_plain = !cell.contains([',', '"', '\r', '\n']);
    if is_plain { cell.to_owned() } else { format!("\"{}\"", cell.replace('"', "\"\"")) }
}

/// The files of a run: names and contents.
#[must_use]
pub fn run_files(record: &RunRecord) -> Vec<(&'static str, String)> {
    vec![
        ("latency.csv", latency(record)),
        ("flows.csv", flows(record)),
        ("servers.csv", servers(record)),
        ("balance.csv", balance(record)),
        ("causes.csv", causes(record)),
        ("drops.csv", drops(record)),
        ("tables.csv", tables(record)),
        ("timeline.csv", timeline(record)),
    ]
}

fn latency(record: &RunRecord) -> String {
    let mut table = Table::new(&["load", "from_ns", "to_ns", "count", "count_so_far"]);
    for load in &record.loads {
        let mut so_far = 0u64;
        for bucket in load.latency.buckets() {
            so_far = so_far.saturating_add(bucket.count);
            let numbers = [bucket.first, bucket.last, bucket.count, so_far].map(|number| number.to_string());
            table.row([load.name.clone()].into_iter().chain(numbers));
        }
    }
    table.0
}

/// When an interval begins.
fn begin(record: &RunRecord, interval: usize) -> u64 {
    record.series.interval_ns.saturating_mul(super::number::count(interval))
}

fn flows(record: &RunRecord) -> String {
    let series = &record.series;
    let mut table = Table::new(&[
        "from_ns",
        "started",
        "completed",
        "broken",
        "unavoidable",
        "p50_ns",
        "p99_ns",
        "max_ns",
    ]);
    let lists = [
        &series.completed,
        &series.broken,
        &series.unavoidable,
        &series.p50_ns,
        &series.p99_ns,
        &series.max_ns,
    ];
    for (interval, started) in series.started.iter().enumerate() {
        let rest = lists.iter().map(|list| list.get(interval).copied().unwrap_or(0));
        table.row([begin(record, interval), *started].into_iter().chain(rest));
    }
    table.0
}

fn servers(record: &RunRecord) -> String {
    let mut table = Table::new(&["from_ns", "server", "address", "requests", "active", "bytes"]);
    for (server, series) in record.servers.iter().zip(&record.series.servers) {
        for (interval, requests) in series.requests.iter().enumerate() {
            let active = series.active.get(interval).copied().unwrap_or(0);
            let bytes = series.bytes.get(interval).copied().unwrap_or(0);
            table.row([
                begin(record, interval).to_string(),
                server.name.clone(),
                server.address.clone(),
                requests.to_string(),
                active.to_string(),
                bytes.to_string(),
            ]);
        }
    }
    table.0
}

fn balance(record: &RunRecord) -> String {
    let series = &record.series.balance;
    let mut table =
        Table::new(&["from_ns", "max_over_mean_millionths", "jain_millionths", "variation_millionths"]);
    for (window, balance) in series.windows.iter().enumerate() {
        let from = begin(record, window).saturating_mul(series.intervals);
        if let Some(balance) = balance {
            table.row([from, balance.max_over_mean, balance.jain, balance.variation]);
        }
    }
    table.0
}

fn causes(record: &RunRecord) -> String {
    let mut table = Table::new(&["cause", "count", "unavoidable"]);
    for cause in &record.flows.causes {
        table.row([cause.cause.clone(), cause.count.to_string(), cause.unavoidable.to_string()]);
    }
    table.0
}

fn drops(record: &RunRecord) -> String {
    let mut table = Table::new(&["place", "reason", "count"]);
    for drop in &record.drops {
        table.row([drop.place.clone(), drop.reason.clone(), drop.count.to_string()]);
    }
    table.0
}

fn tables(record: &RunRecord) -> String {
    let mut table = Table::new(&["from_ns", "table", "capacity", "entries", "evicted"]);
    for series in &record.series.tables {
        for (interval, entries) in series.entries.iter().enumerate() {
            let evicted = series.evicted.get(interval).copied().unwrap_or(0);
            let from = begin(record, interval).to_string();
            let numbers = [series.capacity, *entries, evicted].map(|number| number.to_string());
            table.row([from, series.name.clone()].into_iter().chain(numbers));
        }
    }
    table.0
}

fn timeline(record: &RunRecord) -> String {
    let mut table = Table::new(&["at_ns", "event"]);
    for mark in &record.timeline {
        table.row([mark.at_ns.to_string(), mark.words.clone()]);
    }
    table.0
}

/// The files of a comparison: every run, and every row with its intervals.
#[must_use]
pub fn comparison_files(comparison: &Comparison) -> Vec<(&'static str, String)> {
    vec![("runs.csv", runs(comparison)), ("comparison.csv", rows(comparison))]
}

fn runs(comparison: &Comparison) -> String {
    let head: Vec<&str> =
        ["run", "seed"].into_iter().chain(METRICS.iter().map(|metric| metric.key)).collect();
    let mut table = Table::new(&head);
    for row in &comparison.rows {
        for (seed, run) in &row.runs {
            let metrics =
                METRICS.iter().map(|metric| metric.of(run).map_or(String::new(), |value| value.to_string()));
            table.row([comparison.label(row), seed.to_string()].into_iter().chain(metrics));
        }
    }
    table.0
}

fn rows(comparison: &Comparison) -> String {
    let mut table = Table::new(&[
        "run",
        "metric",
        "seeds",
        "mean",
        "half_width_95",
        "difference_from_first",
        "difference_half_width_95",
        "is_best",
    ]);
    let shown = |number: Option<f64>| number.map_or(String::new(), |number| number.to_string());
    for group in comparison.groups() {
        let baseline = group.first().and_then(|index| comparison.rows.get(*index));
        for metric in &METRICS {
            let best = comparison.best(&group, metric);
            for index in &group {
                let Some(row) = comparison.rows.get(*index) else { continue };
                let Some(estimate) = row.estimate(metric) else { continue };
                let difference = baseline.and_then(|baseline| row.difference(baseline, metric));
                table.row([
                    comparison.label(row),
                    metric.key.to_owned(),
                    estimate.count.to_string(),
                    estimate.mean.to_string(),
                    shown(estimate.half_width),
                    shown(difference.map(|found| found.mean)),
                    shown(difference.and_then(|found| found.half_width)),
                    u8::from(best.contains(index)).to_string(),
                ]);
            }
        }
    }
    table.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::super::example;
    use super::*;

    fn lines(text: &str) -> Vec<Vec<&str>> {
        text.split_terminator("\r\n").map(|line| line.split(',').collect()).collect()
    }

    fn sum(lines: &[Vec<&str>], column: &str) -> u64 {
        let at = lines[0].iter().position(|name| *name == column).unwrap();
        lines[1..].iter().map(|line| line[at].parse::<u64>().unwrap()).sum()
    }

    #[test]
    fn every_file_sums_up_to_the_record() {
        let record = example::busy(1, "round-robin", 4, 300);
        let files = run_files(&record);
        let file = |name: &str| lines(&files.iter().find(|(other, _)| *other == name).unwrap().1);
        for (name, text) in &files {
            let table = lines(text);
            assert!(table.len() > 1 && table.iter().all(|line| line.len() == table[0].len()), "{name}");
        }
        assert_eq!(sum(&file("latency.csv"), "count"), record.latency.count());
        assert_eq!(sum(&file("flows.csv"), "started"), record.flows.started);
        assert_eq!(sum(&file("servers.csv"), "requests"), record.flows.completed);
        assert_eq!(sum(&file("causes.csv"), "count"), record.flows.broken);
        assert_eq!(sum(&file("drops.csv"), "count"), 880);
        assert_eq!(file("timeline.csv")[1], ["8000000000", "server.1 stops"]);
    }

    #[test]
    fn cells_that_would_break_out_are_quoted() {
        assert_eq!(quoted("a,b"), "\"a,b\"");
        assert_eq!(quoted("say \"x\"\n"), "\"say \"\"x\"\"\n\"");
        assert_eq!(quoted("plain text"), "plain text");
    }

    #[test]
    fn a_comparison_has_every_run_and_every_row() {
        let mut comparison = Comparison::new("x", "1");
        for scheduler in ["hash", "maglev"] {
            (1..=3).for_each(|seed| comparison.add(&example::busy(seed, scheduler, 4, 100)));
        }
        let files = comparison_files(&comparison);
        let (runs, rows) = (lines(&files[0].1), lines(&files[1].1));
        assert_eq!((runs.len(), runs[1][0], runs[4][0], runs[4][1]), (7, "hash", "maglev", "1"));
        // The time of a decision is measured apart from the runs.
        assert_eq!(rows.len(), 1 + 2 * (METRICS.len() - 1));
        let p99: Vec<&Vec<&str>> = rows.iter().filter(|row| row[1] == "p99_ns").collect();
        assert_eq!((p99[0][5], p99[0][7], p99[1][7]), ("0", "0", "1"));
        assert!(p99[1][5].starts_with('-'), "{:?}", p99[1]);
    }
}
