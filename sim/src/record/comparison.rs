//! Several runs side by side: a row for each point of a study, several seeds in each row.
//!
//! In: records, one after the other; what a comparison does not need of them is let go at once. Out: for each
//! row and metric a mean with its interval of confidence, the difference from the first row, and which rows are
//! the best. Rows of a sweep are compared with those at the same place of the sweep.
//!
//! Differences are paired by seed: runs of one seed drew the same random numbers, so most of what chance did
//! goes out of the difference.

use std::collections::BTreeMap;

use serde::Serialize;

use super::data::{Broken, Cost, Flows, Hashes, Mark, Parameter, RunRecord};
use super::drawing::Graph;
use super::histogram::Histogram;
use super::number::float;
use super::statistics::Estimate;

/// The version of the form of `comparison.json`.
pub const SCHEMA: u32 = 1;
/// The most rows; further points are left out and counted.
pub const ROWS_MAX: usize = 1_024;
/// The most seeds of a row.
pub const SEEDS_MAX: usize = 1_024;
/// The most seeds for which a comparison says how each can be had again.
const PARTS_NAMED: usize = 3;

/// What is compared.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// What a reader sees first.
    pub title: String,
    /// The version of the program that compares.
    pub version: String,
    /// The command that gives this comparison again; empty where nobody said.
    pub command: String,
    /// Rows in the order in which their first record came.
    pub rows: Vec<Row>,
    /// The machines of the first record.
    pub topology: Graph,
    /// What a reader should know.
    pub notes: Vec<String>,
    left_out: u64,
    repeated: u64,
}

/// One point of a study.
#[derive(Clone, Debug)]
pub struct Row {
    /// The scenario.
    pub scenario: String,
    /// The version of the program that made the runs.
    pub version: String,
    /// What is different from other points.
    pub parameters: Vec<Parameter>,
    /// Runs by seed.
    pub runs: BTreeMap<u64, Summary>,
}

/// What a comparison needs of a run.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// The command that gives the run again.
    pub command: String,
    /// The hashes of the run.
    pub hashes: Hashes,
    /// How flows ended.
    pub flows: Flows,
    /// The balance over the whole run, in millionths: the largest load over the mean, and Jain's index.
    pub balance: Option<(u64, u64)>,
    /// Latencies.
    pub latency: Histogram,
    /// What decisions of all forwarders cost.
    pub cost: Cost,
    /// Nanoseconds of a decision by the clock of a machine, where somebody measured it; no run and no hash depends on it.
    pub decision_ns: Option<f64>,
    /// Packets that were dropped.
    pub dropped: u64,
    /// The length of an interval, and broken flows in each.
    pub breaks: (u64, Vec<u64>),
    /// Virtual time that passed.
    pub elapsed_ns: u64,
    /// What the scenario did.
    pub timeline: Vec<Mark>,
    /// Expectations that were missed, and findings.
    pub mistakes: u64,
}

/// What a metric counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Nanoseconds.
    Time,
    /// A plain number.
    Plain,
    /// Bytes.
    Bytes,
    /// A number near one, of which the digits behind the nines count.
    Index,
}

/// Which values of a metric are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Small ones.
    Lower,
    /// Large ones.
    Higher,
    /// It says nothing about quality.
    Neither,
}

/// A number of a run.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its key in data.
    pub key: &'static str,
    /// Its name in a table.
    pub name: &'static str,
    /// What it counts.
    pub unit: Unit,
    /// Which values are good.
    pub better: Better,
    value: fn(&Summary) -> Option<f64>,
}

/// Every metric, in the order of the table.
pub const METRICS: [Metric; 13] = [
    Metric {
        key: "completed",
        name: "flows completed",
        unit: Unit::Count,
        better: Better::Neither,
        value: completed,
    },
    Metric {
        key: "imbalance",
        name: "imbalance max/mean",
        unit: Unit::Index,
        better: Better::Lower,
        value: imbalance,
    },
    Metric { key: "jain", name: "Jain's index", unit: Unit::Index, better: Better::Higher, value: jain },
    Metric { key: "mean_ns", name: "latency mean", unit: Unit::Time, better: Better::Lower, value: mean },
    Metric { key: "p50_ns", name: "latency p50", unit: Unit::Time, better: Better::Lower, value: p50 },
    Metric { key: "p99_ns", name: "latency p99", unit: Unit::Time, better: Better::Lower, value: p99 },
    Metric { key: "p999_ns", name: "latency p99.9", unit: Unit::Time, better: Better::Lower, value: p999 },
    Metric { key: "broken", name: "flows broken", unit: Unit::Count, better: Better::Lower, value: broken },
    Metric { key: "floor", name: "floor", unit: Unit::Count, better: Better::Neither, value: floor },
    Metric {
        key: "dropped",
        name: "dropped packets",
        unit: Unit::Count,
        better: Better::Lower,
        value: dropped,
    },
    Metric {
        key: "instructions",
        name: "instructions a decision",
        unit: Unit::Count,
        better: Better::Lower,
        value: instructions,
    },
    Metric {
        key: "decision_ns",
        name: "a decision, by the clock",
        unit: Unit::Time,
        better: Better::Lower,
        value: decision,
    },
    Metric {
        key: "memory_bytes",
        name: "memory of schedulers",
        unit: Unit::Bytes,
        better: Better::Lower,
        value: memory,
    },
];

fn completed(run: &Summary) -> Option<f64> {
    Some(float(run.flows.completed))
}

fn imbalance(run: &Summary) -> Option<f64> {
    run.balance.map(|(most, _)| float(most) / 1e6)
}

fn jain(run: &Summary) -> Option<f64> {
    run.balance.map(|(_, jain)| float(jain) / 1e6)
}

fn mean(run: &Summary) -> Option<f64> {
    (run.latency.count() > 0).then(|| float(run.latency.sum()) / float(run.latency.count()))
}

fn p50(run: &Summary) -> Option<f64> {
    run.latency.quantile(500_000).map(float)
}

fn p99(run: &Summary) -> Option<f64> {
    run.latency.quantile(990_000).map(float)
}

fn p999(run: &Summary) -> Option<f64> {
    run.latency.quantile(999_000).map(float)
}

fn broken(run: &Summary) -> Option<f64> {
    Some(float(run.flows.broken))
}

fn floor(run: &Summary) -> Option<f64> {
    Some(float(run.flows.unavoidable))
}

fn dropped(run: &Summary) -> Option<f64> {
    Some(float(run.dropped))
}

fn instructions(run: &Summary) -> Option<f64> {
    let sum = run.cost.instructions?;
    (run.cost.decisions > 0).then(|| float(sum) / float(run.cost.decisions))
}

fn decision(run: &Summary) -> Option<f64> {
    run.decision_ns
}

fn memory(run: &Summary) -> Option<f64> {
    run.cost.memory_bytes.map(float)
}

impl Summary {
    fn of(record: &RunRecord) -> Self {
        let mut cost = Cost::default();
        let sum = |one: Option<u64>, other: Option<u64>| match (one, other) {
            (None, None) => None,
            (one, other) => Some(one.unwrap_or(0).saturating_add(other.unwrap_or(0))),
        };
        for forwarder in &record.forwarders {
            cost.decisions = cost.decisions.saturating_add(forwarder.cost.decisions);
            cost.instructions = sum(cost.instructions, forwarder.cost.instructions);
            cost.memory_bytes = sum(cost.memory_bytes, forwarder.cost.memory_bytes);
        }
        let missed = record.expectations.iter().filter(|one| !one.is_met).count();
        Self {
            command: record.command.clone(),
            hashes: record.hashes.clone(),
            flows: record.flows.clone(),
            balance: record.balance.map(|balance| (balance.max_over_mean, balance.jain)),
            latency: record.latency.clone(),
            cost,
            decision_ns: None,
            dropped: record.drops.iter().fold(0, |sum, drop| sum.saturating_add(drop.count)),
            breaks: (record.series.interval_ns, record.series.broken.clone()),
            elapsed_ns: record.elapsed_ns,
            timeline: record.timeline.clone(),
            mistakes: super::number::count(missed + record.findings.len()),
        }
    }
}

impl Metric {
    /// The value of one run.
    #[must_use]
    pub fn of(&self, run: &Summary) -> Option<f64> {
        (self.value)(run)
    }

    /// A value as people read it.
    #[must_use]
    pub fn show(&self, value: f64) -> String {
        use super::number;
        match self.unit {
            Unit::Count => number::counted(value),
            Unit::Index => number::index(value),
            Unit::Time => number::duration(value),
            Unit::Plain => number::plain(value),
            Unit::Bytes => number::bytes(value),
        }
    }
}

impl Row {
    /// The mean of a metric over the seeds.
    #[must_use]
    pub fn estimate(&self, metric: &Metric) -> Option<Estimate> {
        let values: Vec<f64> = self.runs.values().filter_map(|run| metric.of(run)).collect();
        Estimate::of(&values)
    }

    /// How far a metric is from that of another row, over the seeds that both have.
    #[must_use]
    pub fn difference(&self, other: &Self, metric: &Metric) -> Option<Estimate> {
        let pairs = self.runs.iter().filter_map(|(seed, run)| {
            let base = other.runs.get(seed)?;
            Some((metric.of(run)?, metric.of(base)?))
        });
        let (values, bases): (Vec<f64>, Vec<f64>) = pairs.unzip();
        Estimate::of_difference(&values, &bases)
    }

    /// Latencies of all seeds.
    #[must_use]
    pub fn latency(&self) -> Histogram {
        let mut all = Histogram::new();
        self.runs.values().for_each(|run| all.merge(&run.latency));
        all
    }

    /// Broken flows of all seeds by cause.
    #[must_use]
    pub fn causes(&self) -> Vec<Broken> {
        let mut all: BTreeMap<String, Broken> = BTreeMap::new();
        for cause in self.runs.values().flat_map(|run| &run.flows.causes) {
            let none = || Broken { count: 0, unavoidable: 0, ..cause.clone() };
            let sum = all.entry(cause.cause.clone()).or_insert_with(none);
            sum.count = sum.count.saturating_add(cause.count);
            sum.unavoidable = sum.unavoidable.saturating_add(cause.unavoidable);
        }
        all.into_values().collect()
    }
}

impl Comparison {
    /// An empty comparison.
    #[must_use]
    pub fn new(title: impl Into<String>, version: impl Into<String>) -> Self {
        Self { title: title.into(), version: version.into(), ..Self::default() }
    }

    /// Takes in a run. Runs of the same scenario, version and parameters are one row; of a seed that a row has
    /// already, only the first run counts.
    pub fn add(&mut self, record: &RunRecord) {
        let is_same = |row: &Row| {
            row.scenario == record.scenario
                && row.version == record.version
                && row.parameters == record.parameters
        };
        if self.rows.is_empty() {
            self.topology = record.topology.clone();
        }
        let index = self.rows.iter().position(is_same).unwrap_or(self.rows.len());
        if index == self.rows.len() && index < ROWS_MAX {
            self.rows.push(Row {
                scenario: record.scenario.clone(),
                version: record.version.clone(),
                parameters: record.parameters.clone(),
                runs: BTreeMap::new(),
            });
        }
        let Some(row) = self.rows.get_mut(index) else {
            self.left_out += 1;
            return;
        };
        if row.runs.contains_key(&record.seed) {
            self.repeated += 1;
        } else if row.runs.len() >= SEEDS_MAX {
            self.left_out += 1;
        } else {
            row.runs.insert(record.seed, Summary::of(record));
        }
    }

    /// Notes what a decision of the row with these parameters took by the clock, beside the run with this seed.
    pub fn add_measured(&mut self, parameters: &[Parameter], seed: u64, nanoseconds: f64) {
        let rows = self.rows.iter_mut().filter(|row| row.parameters == parameters);
        for run in rows.filter_map(|row| row.runs.get_mut(&seed)) {
            run.decision_ns = nanoseconds.is_finite().then_some(nanoseconds);
        }
    }

    /// What a reader should know, and what was left out.
    #[must_use]
    pub fn all_notes(&self) -> Vec<String> {
        let mut notes = self.notes.clone();
        if self.repeated > 0 {
            notes.push(format!("Left out because a row had the seed already: {} runs.", self.repeated));
        }
        if self.left_out > 0 {
            notes.push(format!(
                "Left out beyond {ROWS_MAX} rows or {SEEDS_MAX} seeds: {} runs.",
                self.left_out
            ));
        }
        let seeds: Vec<Vec<u64>> = self.rows.iter().map(|row| row.runs.keys().copied().collect()).collect();
        if seeds.windows(2).any(|pair| matches!(pair, [one, other] if one != other)) {
            notes.push(
                "Rows have different seeds; differences are over those that both rows have.".to_owned(),
            );
        }
        notes
    }

    /// The names of parameters that are not the same everywhere.
    fn varying(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for parameter in self.rows.iter().flat_map(|row| &row.parameters) {
            let is_everywhere = self.rows.iter().all(|row| row.parameters.contains(parameter));
            if !is_everywhere && !names.contains(&parameter.name) {
                names.push(parameter.name.clone());
            }
        }
        names
    }

    /// What tells a row from the others, without the parameter `without`.
    fn label_without(&self, row: &Row, without: Option<&str>) -> String {
        let mut parts: Vec<(String, String)> = Vec::new();
        if self.rows.iter().any(|other| other.scenario != row.scenario) {
            parts.push(("scenario".to_owned(), row.scenario.clone()));
        }
        if self.rows.iter().any(|other| other.version != row.version) {
            parts.push(("version".to_owned(), row.version.clone()));
        }
        for name in self.varying().into_iter().filter(|name| Some(&name[..]) != without) {
            let value = row.parameters.iter().find(|one| one.name == name);
            let value = value.map_or_else(|| "-".to_owned(), |one| one.value.clone());
            parts.push((last_part(&name).to_owned(), value));
        }
        match &parts[..] {
            [] => "all".to_owned(),
            [(_, value)] => value.clone(),
            many => many.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", "),
        }
    }

    /// What tells a row from the others.
    #[must_use]
    pub fn label(&self, row: &Row) -> String {
        if self.rows.len() == 1 { row.scenario.clone() } else { self.label_without(row, None) }
    }

    /// What tells a row from the others at the same place of a sweep.
    #[must_use]
    pub fn line(&self, row: &Row, sweep: &Sweep) -> String {
        self.label_without(row, Some(&sweep.name))
    }

    /// The place of a row in a sweep, as it is written: `rate 20k/s`.
    #[must_use]
    pub fn place(&self, row: &Row, sweep: &Sweep) -> String {
        let value = row.parameters.iter().find(|one| one.name == sweep.name);
        format!("{} {}", last_part(&sweep.name), value.map_or("-", |one| &one.value))
    }

    /// The parameter along which rows are a sweep: of those that are quantities everywhere, the one with the
    /// most values.
    #[must_use]
    pub fn sweep(&self) -> Option<Sweep> {
        let mut best: Option<(usize, Sweep)> = None;
        for name in self.varying() {
            let places: Option<Vec<(f64, &'static str)>> =
                self.rows.iter().map(|row| quantity(row, &name)).collect();
            let Some(places) = places else { continue };
            let unit = places.first().map_or("", |(_, unit)| unit);
            let mut values: Vec<f64> = places.iter().map(|(value, _)| *value).collect();
            values.sort_by(f64::total_cmp);
            values.dedup();
            let is_more = best.as_ref().is_none_or(|(count, _)| values.len() > *count);
            if values.len() > 1 && is_more && places.iter().all(|(_, other)| *other == unit) {
                best = Some((values.len(), Sweep { name, unit }));
            }
        }
        best.map(|(_, sweep)| sweep)
    }

    /// Rows that are compared with each other: all, or those at the same place of the sweep. Indices of rows.
    #[must_use]
    pub fn groups(&self) -> Vec<Vec<usize>> {
        let Some(sweep) = self.sweep() else { return vec![(0..self.rows.len()).collect()] };
        let mut groups: Vec<(f64, Vec<usize>)> = Vec::new();
        for (index, row) in self.rows.iter().enumerate() {
            let Some((place, _)) = quantity(row, &sweep.name) else { continue };
            match groups.iter_mut().find(|(other, _)| other.total_cmp(&place).is_eq()) {
                Some((_, group)) => group.push(index),
                None => groups.push((place, vec![index])),
            }
        }
        groups.sort_by(|one, other| one.0.total_cmp(&other.0));
        groups.into_iter().map(|(_, group)| group).collect()
    }

    /// The lines of a sweep: rows that differ in nothing but the place, with their label, by place.
    #[must_use]
    pub fn lines(&self, sweep: &Sweep) -> Vec<(String, Vec<(f64, usize)>)> {
        let mut lines: Vec<(String, Vec<(f64, usize)>)> = Vec::new();
        for (index, row) in self.rows.iter().enumerate() {
            let Some((place, _)) = quantity(row, &sweep.name) else { continue };
            let label = self.line(row, sweep);
            match lines.iter_mut().find(|(other, _)| *other == label) {
                Some((_, places)) => places.push((place, index)),
                None => lines.push((label, vec![(place, index)])),
            }
        }
        for (_, places) in &mut lines {
            places.sort_by(|one, other| one.0.total_cmp(&other.0));
        }
        lines
    }

    /// The best rows of a group: the one with the best mean, then those of which it cannot be told that they
    /// are worse. Empty where all are alike or the metric says nothing about quality.
    #[must_use]
    pub fn best(&self, group: &[usize], metric: &Metric) -> Vec<usize> {
        let sign = match metric.better {
            Better::Lower => 1.0,
            Better::Higher => -1.0,
            Better::Neither => return Vec::new(),
        };
        let rows = group.iter().filter_map(|index| Some((*index, self.rows.get(*index)?)));
        let means: Vec<(usize, &Row, f64)> =
            rows.filter_map(|(index, row)| Some((index, row, row.estimate(metric)?.mean * sign))).collect();
        let Some(best) = means.iter().min_by(|one, other| one.2.total_cmp(&other.2)) else {
            return Vec::new();
        };
        let worst = means.iter().map(|(_, _, mean)| *mean).fold(best.2, f64::max);
        if worst <= best.2 {
            return Vec::new();
        }
        let is_as_good = |row: &Row, mean: f64| {
            mean <= best.2
                || row.difference(best.1, metric).is_some_and(|found| found.count > 1 && !found.is_not_zero())
        };
        let mut good = vec![best.0];
        good.extend(
            means
                .iter()
                .filter(|(index, row, mean)| *index != best.0 && is_as_good(row, *mean))
                .map(|one| one.0),
        );
        good
    }
}

/// A parameter that is a quantity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// The parameter.
    pub name: String,
    /// What its numbers count, in words; may be empty.
    pub unit: &'static str,
}

impl Sweep {
    /// The last part of its name and its unit.
    #[must_use]
    pub fn label(&self) -> String {
        let name = last_part(&self.name);
        if self.unit.is_empty() { name.to_owned() } else { format!("{name} ({})", self.unit) }
    }
}

/// The last part of `load.users.rate`; the last two where the last alone says nothing.
fn last_part(name: &str) -> &str {
    let last = name.rsplit('.').next().unwrap_or(name);
    if last != "component" && last != "value" {
        return last;
    }
    name.rmatch_indices('.').nth(1).map_or(name, |(at, _)| name.get(at + 1..).unwrap_or(name))
}

/// The number of a row's parameter, and what it counts.
fn quantity(row: &Row, name: &str) -> Option<(f64, &'static str)> {
    let value = &row.parameters.iter().find(|one| one.name == name)?.value;
    let end =
        value.find(|character: char| !character.is_ascii_digit() && character != '.' && character != '-');
    let (digits, unit) = value.split_at(end.unwrap_or(value.len()));
    let number: f64 = digits.parse().ok()?;
    let (factor, unit) = match unit.trim() {
        "" => (1.0, ""),
        "%" => (1.0, "%"),
        "/s" => (1.0, "per second"),
        "k/s" => (1e3, "per second"),
        "M/s" => (1e6, "per second"),
        "/min" => (1.0 / 60.0, "per second"),
        "ns" => (1e-9, "seconds"),
        "us" | "µs" => (1e-6, "seconds"),
        "ms" => (1e-3, "seconds"),
        "s" => (1.0, "seconds"),
        "m" | "min" => (60.0, "seconds"),
        "h" => (3_600.0, "seconds"),
        "bit" => (1.0, "bit/s"),
        "kbit" => (1e3, "bit/s"),
        "Mbit" => (1e6, "bit/s"),
        "Gbit" => (1e9, "bit/s"),
        "B" => (1.0, "bytes"),
        "kB" => (1e3, "bytes"),
        "MB" => (1e6, "bytes"),
        "KiB" => (1_024.0, "bytes"),
        "MiB" => (1_048_576.0, "bytes"),
        _ => return None,
    };
    Some((number * factor, unit))
}

// The form on paper.

/// A comparison as data.
#[derive(Serialize)]
struct Written<'a> {
    schema: u32,
    title: &'a str,
    version: &'a str,
    command: &'a str,
    notes: Vec<String>,
    rows: Vec<WrittenRow<'a>>,
}

#[derive(Serialize)]
struct WrittenRow<'a> {
    label: String,
    scenario: &'a str,
    version: &'a str,
    parameters: &'a [Parameter],
    seeds: Vec<u64>,
    metric_hashes: Vec<&'a str>,
    commands: Vec<&'a str>,
    metrics: BTreeMap<&'static str, WrittenMetric>,
}

#[derive(Serialize)]
struct WrittenMetric {
    mean: f64,
    half_width: Option<f64>,
    count: usize,
    difference: Option<f64>,
    difference_half_width: Option<f64>,
    is_best: bool,
}

impl Serialize for Comparison {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut rows: Vec<WrittenRow<'_>> = self.rows.iter().map(|row| self.written(row)).collect();
        for group in self.groups() {
            let baseline = group.first().and_then(|index| self.rows.get(*index));
            for metric in &METRICS {
                let best = self.best(&group, metric);
                for index in &group {
                    let (Some(row), Some(written)) = (self.rows.get(*index), rows.get_mut(*index)) else {
                        continue;
                    };
                    let Some(estimate) = row.estimate(metric) else { continue };
                    let difference = baseline.and_then(|baseline| row.difference(baseline, metric));
                    written.metrics.insert(
                        metric.key,
                        WrittenMetric {
                            mean: estimate.mean,
                            half_width: estimate.half_width,
                            count: estimate.count,
                            difference: difference.map(|found| found.mean),
                            difference_half_width: difference.and_then(|found| found.half_width),
                            is_best: best.contains(index),
                        },
                    );
                }
            }
        }
        let Self { title, version, command, .. } = self;
        Written { schema: SCHEMA, title, version, command, notes: self.all_notes(), rows }
            .serialize(serializer)
    }
}

impl Comparison {
    fn written<'a>(&self, row: &'a Row) -> WrittenRow<'a> {
        WrittenRow {
            label: self.label(row),
            scenario: &row.scenario,
            version: &row.version,
            parameters: &row.parameters,
            seeds: row.runs.keys().copied().collect(),
            metric_hashes: row.runs.values().map(|run| &run.hashes.metrics[..]).collect(),
            commands: row.runs.values().take(PARTS_NAMED).map(|run| &run.command[..]).collect(),
            metrics: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;
    use crate::record::balance::Balance;

    fn metric(key: &str) -> &'static Metric {
        METRICS.iter().find(|metric| metric.key == key).unwrap()
    }

    fn record(seed: u64, parameters: &[(&str, &str)], latency: u64) -> RunRecord {
        let parameter =
            |(name, value): &(&str, &str)| Parameter { name: (*name).to_owned(), value: (*value).to_owned() };
        let mut record = RunRecord { seed, scenario: "s".to_owned(), ..RunRecord::default() };
        record.parameters = parameters.iter().map(parameter).collect();
        record.latency.record(latency);
        record.balance = Some(Balance { max_over_mean: 1_000_000, jain: 1_000_000, variation: 0 });
        record
    }

    fn comparison(records: &[RunRecord]) -> Comparison {
        let mut comparison = Comparison::new("t", "v");
        records.iter().for_each(|record| comparison.add(record));
        comparison
    }

    #[test]
    fn runs_of_the_same_parameters_are_one_row() {
        let both =
            |seed| [record(seed, &[("x.scheduler", "a")], 100), record(seed, &[("x.scheduler", "b")], 90)];
        let found = comparison(&[both(1), both(2), both(2)].concat());
        assert_eq!(found.rows.len(), 2);
        assert_eq!(found.rows[0].runs.keys().copied().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(found.all_notes(), ["Left out because a row had the seed already: 2 runs."]);
        assert_eq!([&found.rows[0], &found.rows[1]].map(|row| found.label(row)), ["a", "b"]);
        let mut other = record(1, &[("x.scheduler", "a")], 1);
        other.version = "2".to_owned();
        let found = comparison(&[both(1).to_vec(), vec![other]].concat());
        assert_eq!(found.label(&found.rows[2]), "version 2, scheduler a");
    }

    #[test]
    fn a_difference_that_chance_shares_is_told_from_zero() {
        let base: Vec<RunRecord> = (1..=5).map(|seed| record(seed, &[("p", "a")], seed * 1_000)).collect();
        let more: Vec<RunRecord> =
            (1..=5).map(|seed| record(seed, &[("p", "b")], seed * 1_000 + 100 + seed)).collect();
        let found = comparison(&[base, more].concat());
        let [one, other] = &found.rows[..] else { panic!() };
        let difference = other.difference(one, metric("mean_ns")).unwrap();
        assert!((difference.mean - 103.0).abs() < 1e-9 && difference.is_not_zero());
        assert_eq!(found.best(&[0, 1], metric("mean_ns")), [0]);
        assert!(found.best(&[0, 1], metric("jain")).is_empty(), "all alike");
        assert!(found.best(&[0, 1], metric("completed")).is_empty(), "no quality");
    }

    #[test]
    fn rows_that_cannot_be_told_from_the_best_are_as_good() {
        let rows = [("a", [100, 120, 110]), ("b", [101, 118, 112]), ("c", [200, 220, 210])];
        let records = rows.iter().flat_map(|(name, latencies)| {
            latencies.iter().zip(1..).map(move |(latency, seed)| record(seed, &[("p", name)], *latency))
        });
        let found = comparison(&records.collect::<Vec<_>>());
        assert_eq!(found.best(&[0, 1, 2], metric("mean_ns")), [0, 1]);
        let single = comparison(&[record(1, &[("p", "a")], 5), record(1, &[("p", "b")], 4)]);
        assert_eq!(single.best(&[0, 1], metric("mean_ns")), [1], "one seed says nothing about chance");
    }

    #[test]
    fn a_sweep_is_found_and_its_rows_are_compared_by_place() {
        let mut records = Vec::new();
        for rate in ["20k/s", "500/s", "1.5k/s"] {
            for scheduler in ["rr.wasm", "maglev.wasm"] {
                records.push(record(
                    1,
                    &[("service.web.scheduler.component", scheduler), ("load.u.rate", rate)],
                    9,
                ));
            }
        }
        let found = comparison(&records);
        let sweep = found.sweep().unwrap();
        assert_eq!(
            (sweep.label(), found.place(&found.rows[4], &sweep)),
            ("rate (per second)".to_owned(), "rate 1.5k/s".to_owned())
        );
        assert_eq!(found.groups(), [[2, 3], [4, 5], [0, 1]]);
        let lines = found.lines(&sweep);
        assert_eq!(lines[1].0, "maglev.wasm");
        assert_eq!(lines[1].1, [(500.0, 3), (1_500.0, 5), (20_000.0, 1)]);
        assert_eq!(found.label(&found.rows[3]), "scheduler.component maglev.wasm, rate 500/s");
    }

    #[test]
    fn quantities_of_different_kinds_are_no_sweep() {
        let of = |values: &[&str]| {
            let records: Vec<RunRecord> = values.iter().map(|value| record(1, &[("x", value)], 1)).collect();
            comparison(&records).sweep().map(|sweep| sweep.unit)
        };
        assert_eq!(of(&["10us", "2ms", "1.5s"]), Some("seconds"));
        assert_eq!(of(&["1", "2"]), Some(""));
        assert_eq!(of(&["10us", "2kB"]), None);
        assert_eq!(of(&["1", "maglev"]), None);
        assert_eq!(of(&["5", "5"]), None);
        assert_eq!(of(&["", "-"]), None);
    }

    #[test]
    fn as_data_every_row_has_its_metrics() {
        let records: Vec<RunRecord> = (1..=3)
            .flat_map(|seed| {
                [record(seed, &[("p", "a")], 100 + seed), record(seed, &[("p", "b")], 90 + seed)]
            })
            .collect();
        let value = serde_json::to_value(comparison(&records)).unwrap();
        let metric = &value["rows"][1]["metrics"]["p50_ns"];
        assert_eq!((metric["mean"].as_f64(), metric["difference"].as_f64()), (Some(92.0), Some(-10.0)));
        assert_eq!(
            (metric["is_best"].as_bool(), value["rows"][0]["seeds"].to_string()),
            (Some(true), "[1,2,3]".to_owned())
        );
        assert!(value["rows"][1]["metrics"].get("instructions").is_none());
    }
}
