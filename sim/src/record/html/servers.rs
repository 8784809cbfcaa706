//! The part of a run's page that is about real servers: load over time, a heat map, balance, and a table.

use std::fmt::Write as _;

use super::Page;
use super::chart::{self, Chart, Form, LINES_MAX, Line, Values};
use super::heat::Heat;
use super::run::{balance_line, over_time, per_second};
use super::scale::{Scale, Unit};
use crate::record::data::{RunRecord, ServerSeries};
use crate::record::markup::escaped;
use crate::record::number::{self, float, length};

/// The points of a load line: more would show chance rather than load.
const LOAD_POINTS: usize = 64;
/// The most servers in the table.
const ROWS_MAX: usize = 200;

pub(super) fn write(record: &RunRecord, page: &mut Page) -> std::fmt::Result {
    if record.servers.is_empty() {
        return Ok(());
    }
    page.section("servers", "Real servers");
    let body = &mut page.body;
    body.push_str("<div class=\"figures\">");
    let joined = record.series.completed.len().div_ceil(LOAD_POINTS).max(1);
    let interval = float(record.series.interval_ns) * length(joined);
    let note = format!("Completed in each {}.", number::duration(interval));
    let rates = rates(record, joined);
    let mut charts =
        vec![load(record, "load", "Requests per second", note, "requests per second", &rates, interval)];
    let active = |series: &ServerSeries| joined_max(&series.active, joined);
    let active: Vec<Vec<f64>> = record.series.servers.iter().map(active).collect();
    if active.iter().flatten().any(|flows| *flows > 0.0) {
        let note = "The most at a time.".to_owned();
        charts.push(load(record, "active", "Active flows", note, "active flows", &active, interval));
    }
    if record.servers.len() > 1 && record.series.balance.windows.iter().flatten().next().is_some() {
        charts.push(balance(record));
    }
    chart::write_all(charts, body)?;
    heat(record).write(body)?;
    body.push_str("</div>\n");
    write_table(record, body)
}

/// Requests per second of each server.
fn rates(record: &RunRecord, joined: usize) -> Vec<Vec<f64>> {
    record.series.servers.iter().map(|series| per_second(record, &series.requests, joined)).collect()
}

fn joined_max(values: &[u32], joined: usize) -> Vec<f64> {
    let windows = values.chunks(joined);
    windows.map(|window| f64::from(window.iter().copied().max().unwrap_or(0))).collect()
}

/// A line for each server; with more servers than lines, the median between the least and the most.
fn load<'a>(
    record: &RunRecord,
    id: &'a str,
    title: &'a str,
    note: String,
    label: &str,
    servers: &[Vec<f64>],
    interval: f64,
) -> Chart<'a> {
    let points = |values: &[f64]| -> Vec<(f64, f64)> {
        values.iter().enumerate().map(|(index, value)| (length(index) * interval, *value)).collect()
    };
    if servers.len() <= LINES_MAX {
        let names = record.servers.iter().map(|server| server.name.clone());
        let lines = names.zip(servers).enumerate();
        let lines =
            lines.map(|(style, (name, values))| Line::new(name, style, Form::Straight, points(values)));
        return over_time(record, id, title, note, label, lines.collect());
    }
    let columns = servers.iter().map(Vec::len).max().unwrap_or(0);
    let (mut least, mut median, mut most) = (Vec::new(), Vec::new(), Vec::new());
    for column in 0..columns {
        let mut values: Vec<f64> = servers.iter().filter_map(|server| server.get(column).copied()).collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        least.push(at(0));
        median.push(at(values.len() / 2));
        most.push(at(values.len().saturating_sub(1)));
    }
    let band = least.iter().copied().zip(most.iter().copied()).collect();
    let note = format!(
        "{note} The band goes from the least to the most loaded of {} servers.",
        number::grouped(number::count(servers.len()))
    );
    let lines = vec![
        Line::new("most", 1, Form::Straight, points(&most)),
        Line { band, ..Line::new("median", 0, Form::Straight, points(&median)) },
        Line::new("least", 2, Form::Straight, points(&least)),
    ];
    over_time(record, id, title, note, label, lines)
}

fn balance(record: &RunRecord) -> Chart<'static> {
    let lines = vec![
        balance_line(record, "most loaded over mean", 1, |balance| balance.max_over_mean),
        balance_line(record, "Jain's index", 0, |balance| balance.jain),
    ];
    let window = float(record.series.balance.intervals) * float(record.series.interval_ns);
    let note = format!("Requests by weight in windows of {}; 1 is even.", number::duration(window));
    let mut chart = over_time(record, "balance", "Balance over time", note, "ratio", lines);
    let all = chart.lines.iter().flat_map(|line| line.points.iter().map(|(_, value)| *value));
    chart.y.scale = Scale::around(all);
    chart.y.unit = Unit::Plain;
    chart.values = Values::of_lines(&chart.x, &chart.y, &chart.lines);
    chart
}

fn heat(record: &RunRecord) -> Heat<'static> {
    Heat {
        id: "heat",
        title: "Load of each server over time",
        note: "Requests per second in each interval.".to_owned(),
        label: "requests per second",
        unit: Unit::Count,
        names: record.servers.iter().map(|server| server.name.clone()).collect(),
        rows: rates(record, 1),
        interval: float(record.series.interval_ns),
    }
}

fn write_table(record: &RunRecord, body: &mut String) -> std::fmt::Result {
    let total: u64 = record.servers.iter().map(|server| server.requests).fold(0, u64::saturating_add);
    let weights: u64 = record.servers.iter().map(|server| u64::from(server.weight)).sum();
    body.push_str("<div class=\"card\" style=\"margin-top:16px\"><h3>Each server</h3>");
    if record.servers.len() > ROWS_MAX {
        let all = number::grouped(number::count(record.servers.len()));
        write!(body, "<p>The first {ROWS_MAX} of {all}; all are in servers.csv.</p>")?;
    }
    body.push_str("<div class=\"scroll tall\"><table class=\"sortable\"><thead><tr><th scope=\"col\">server</th><th scope=\"col\" class=\"left\">address</th><th scope=\"col\">weight</th><th scope=\"col\">requests</th><th scope=\"col\">share</th><th scope=\"col\">by weight</th><th scope=\"col\">most active flows</th><th scope=\"col\">broken flows</th><th scope=\"col\">bytes</th></tr></thead><tbody>");
    for server in record.servers.iter().take(ROWS_MAX) {
        write!(
            body,
            "<tr><th scope=\"row\">{}</th><td class=\"left\">{}</td><td>{}</td><td data-v=\"{}\">{}</td>",
            escaped(&server.name),
            escaped(&server.address),
            server.weight,
            server.requests,
            number::grouped(server.requests),
        )?;
        for (part, whole) in [(server.requests, total), (u64::from(server.weight), weights)] {
            let sort = number::millionths(part, whole).unwrap_or(0);
            write!(body, "<td data-v=\"{sort}\">{}</td>", number::percent_of(part, whole))?;
        }
        write!(
            body,
            "<td data-v=\"{}\">{}</td><td data-v=\"{}\">{}</td><td data-v=\"{}\">{}</td></tr>",
            server.active_max,
            number::grouped(server.active_max.into()),
            server.broken,
            number::grouped(server.broken),
            server.bytes,
            number::bytes(float(server.bytes)),
        )?;
    }
    body.push_str("</tbody></table></div></div>\n");
    Ok(())
}
