//! The page that compares rows: the table first, then the pictures behind it.

use std::fmt::Write as _;

use super::chart::{self, Axis, Chart, Form, LINES_MAX, Line, POINTS_MAX, Values, Width};
use super::run::cdf;
use super::scale::{Scale, Unit};
use super::{Page, write_facts, write_timeline};
use crate::record::comparison::{Comparison, METRICS, Metric, Row, Sweep, Unit as MetricUnit};
use crate::record::data::Broken;
use crate::record::drawing::Drawing;
use crate::record::histogram::Histogram;
use crate::record::markup::escaped;
use crate::record::number::{self, float, length};

/// The most rows of the table, and of the list of commands.
const ROWS_MAX: usize = 200;
/// How the table begins.
const TABLE_HEAD: &str = "<div class=\"card\"><p>Means over the seeds. Below each: half of its 95 % interval, and \
    the difference from the first row, paired by seed; in brackets where zero lies within its interval. ★ is the \
    best; shaded rows cannot be told from it. The floor is \
    of broken flows that no load balancer could have kept.</p><div class=\"scroll free\"><table class=\"sortable compare\">\
    <thead><tr><th scope=\"col\">run</th>";
/// How the table of causes begins.
const CAUSES_HEAD: &str = "<div class=\"card\"><h3>Why flows broke</h3><p>Means over the seeds; below each, the \
    floor: those that no load balancer could have kept.</p><div class=\"scroll tall\"><table><thead><tr>\
    <th scope=\"col\">cause</th>";
/// Metrics that a sweep shows.
const SWEPT: [&str; 4] = ["p99_ns", "p50_ns", "imbalance", "broken"];

pub(super) fn write(comparison: &Comparison, page: &mut Page) -> std::fmt::Result {
    write_head(comparison, page)?;
    page.section("table", "Result");
    write_table(comparison, &mut page.body)?;
    if let Some(sweep) = comparison.sweep() {
        write_sweep(comparison, &sweep, page)?;
    }
    write_latency(comparison, page)?;
    write_breaks(comparison, page)?;
    if !comparison.topology.nodes.is_empty() {
        page.section("topology", "Topology");
        let svg = Drawing::new(&comparison.topology).to_svg("Topology of the first run");
        let sentence = escaped(&comparison.topology.sentence());
        writeln!(
            page.body,
            "<figure class=\"card\"><figcaption><p>{sentence}</p></figcaption><div class=\"drawing\">{svg}</div></figure>"
        )?;
    }
    write_how(comparison, page)
}

fn write_head(comparison: &Comparison, page: &mut Page) -> std::fmt::Result {
    let runs: usize = comparison.rows.iter().map(|row| row.runs.len()).sum();
    let mistakes: u64 =
        comparison.rows.iter().flat_map(|row| row.runs.values()).map(|run| run.mistakes).sum();
    let seeds = comparison.rows.iter().map(|row| row.runs.len()).max().unwrap_or(0);
    let several = |count: usize, one: &str| {
        format!("{} {one}{}", number::grouped(number::count(count)), if count == 1 { "" } else { "s" })
    };
    write!(
        page.head,
        "<p class=\"eyebrow\">Evenkeel comparison</p><h1>{}</h1><p class=\"facts\">{}, {} each, {} in all</p><ul class=\"verdicts\">",
        escaped(&comparison.title),
        several(comparison.rows.len(), "row"),
        several(seeds, "seed"),
        several(runs, "run"),
    )?;
    if mistakes > 0 {
        let verb =
            if mistakes == 1 { "expectation missed or finding" } else { "expectations missed or findings" };
        write!(page.head, "<li class=\"bad\">✗ {} {verb}</li>", number::grouped(mistakes))?;
    }
    page.head.push_str("</ul>");
    Ok(())
}

// The table.

/// Metrics that at least one row has; the floor is told with the broken flows.
fn metrics(comparison: &Comparison) -> Vec<&'static Metric> {
    let has = |metric: &&Metric| comparison.rows.iter().any(|row| row.estimate(metric).is_some());
    METRICS.iter().filter(has).filter(|metric| metric.key != "floor").collect()
}

fn write_table(comparison: &Comparison, body: &mut String) -> std::fmt::Result {
    let metrics = metrics(comparison);
    let sweep = comparison.sweep();
    body.push_str(TABLE_HEAD);
    for metric in &metrics {
        write!(body, "<th scope=\"col\">{}</th>", escaped(metric.name))?;
    }
    body.push_str("</tr></thead>");
    let mut written = 0;
    for group in comparison.groups() {
        let best: Vec<Vec<usize>> = metrics.iter().map(|metric| comparison.best(&group, metric)).collect();
        let rows = group.iter().filter_map(|index| Some((index, comparison.rows.get(*index)?)));
        let rows: Vec<(&usize, &Row)> = rows.take(ROWS_MAX - written).collect();
        let Some((_, baseline)) = rows.first().copied() else { continue };
        written += rows.len();
        body.push_str("<tbody>");
        if let Some(sweep) = &sweep {
            let place = escaped(&comparison.place(baseline, sweep));
            let columns = metrics.len() + 1;
            write!(
                body,
                "<tr class=\"place\"><th scope=\"rowgroup\" colspan=\"{columns}\">{place}</th></tr>"
            )?;
        }
        for (index, row) in rows {
            write!(body, "<tr><th scope=\"row\">{}</th>", escaped(&label(comparison, row)))?;
            let baseline = (!std::ptr::eq(baseline, row)).then_some(baseline);
            for (metric, best) in metrics.iter().zip(&best) {
                write_cell(row, baseline, metric, best.iter().position(|good| good == index), body)?;
            }
            body.push_str("</tr>");
        }
        body.push_str("</tbody>");
    }
    body.push_str("</table></div>");
    if comparison.rows.len() > written {
        let further = comparison.rows.len() - written;
        write!(body, "<p>{further} further rows are in comparison.csv.</p>")?;
    }
    body.push_str("</div>\n");
    Ok(())
}

/// What tells a row from those that it is compared with.
fn label(comparison: &Comparison, row: &Row) -> String {
    comparison.sweep().map_or_else(|| comparison.label(row), |sweep| comparison.line(row, &sweep))
}

fn write_cell(
    row: &Row,
    baseline: Option<&Row>,
    metric: &Metric,
    place: Option<usize>,
    body: &mut String,
) -> std::fmt::Result {
    let Some(estimate) = row.estimate(metric) else {
        body.push_str("<td>-</td>");
        return Ok(());
    };
    let class = if place.is_some() { " class=\"best\"" } else { "" };
    write!(body, "<td{class} data-v=\"{}\">", estimate.mean)?;
    if place == Some(0) {
        body.push_str("<span aria-hidden=\"true\">★ </span><span class=\"hidden\">best: </span>");
    }
    body.push_str(&escaped(&metric.show(estimate.mean)));
    if let Some(half) = estimate.half_width.filter(|half| *half > 0.0) {
        write!(body, "<small>± {}</small>", escaped(&metric.show(half)))?;
    }
    let floor = METRICS.iter().find(|other| metric.key == "broken" && other.key == "floor");
    if let Some(floor) = floor.and_then(|floor| row.estimate(floor)).filter(|floor| floor.mean > 0.0) {
        write!(body, "<small>floor {}</small>", number::counted(floor.mean))?;
    }
    if let Some(baseline) = baseline
        && let Some(told) = difference(row, baseline, metric)
    {
        write!(body, "<small>{}</small>", escaped(&told))?;
    }
    body.push_str("</td>");
    Ok(())
}

/// How far a row is from the first one: in percent of that, or as it is where that is zero.
fn difference(row: &Row, baseline: &Row, metric: &Metric) -> Option<String> {
    let (found, base) = (row.difference(baseline, metric)?, baseline.estimate(metric)?.mean);
    if found.mean == 0.0 {
        return Some("same".to_owned());
    }
    let show = |value: f64| {
        if base == 0.0 { metric.show(value) } else { format!("{:.2} %", value * 100.0 / base.abs()) }
    };
    let sign = if found.mean > 0.0 { "+" } else { "−" };
    let told = format!("{sign}{}", show(found.mean.abs()));
    Some(if found.count > 1 && !found.is_not_zero() { format!("({told})") } else { told })
}

// Pictures.

fn write_sweep(comparison: &Comparison, sweep: &Sweep, page: &mut Page) -> std::fmt::Result {
    page.section("sweep", "Over the sweep");
    page.body.push_str("<div class=\"figures\">");
    let swept = METRICS.iter().filter(|metric| SWEPT.contains(&metric.key));
    let charts = swept.map(|metric| sweep_chart(comparison, sweep, metric));
    let is_above = |(_, value): &(f64, f64)| *value > 0.0;
    let has_values = |chart: &Chart<'_>| chart.lines.iter().any(|line| line.points.iter().any(is_above));
    chart::write_all(charts.filter(has_values).collect(), &mut page.body)?;
    page.body.push_str("</div>\n");
    Ok(())
}

fn sweep_chart<'a>(comparison: &Comparison, sweep: &Sweep, metric: &'a Metric) -> Chart<'a> {
    let all = comparison.lines(sweep);
    let note = "The band is the 95 % interval over the seeds.".to_owned() + &left_out(all.len());
    let lines = all.iter().take(LINES_MAX).enumerate().map(|(style, (label, places))| {
        let estimates = places.iter().map(|(place, index)| {
            let estimate = comparison.rows.get(*index).and_then(|row| row.estimate(metric));
            (*place, estimate)
        });
        let mut line = Line::new(label.clone(), style, Form::Straight, Vec::new());
        line.has_dots = true;
        for (place, estimate) in estimates.take(POINTS_MAX) {
            let mean = estimate.map_or(f64::NAN, |found| found.mean);
            let half = estimate.and_then(|found| found.half_width).unwrap_or(0.0);
            line.points.push((place, mean));
            line.band.push(((mean - half).max(0.0), mean + half));
        }
        line
    });
    let lines: Vec<Line> = lines.collect();
    let places = || lines.iter().flat_map(|line| line.points.iter().map(|(place, _)| *place));
    let (low, high) = (places().fold(f64::INFINITY, f64::min), places().fold(f64::NEG_INFINITY, f64::max));
    let values = lines.iter().flat_map(|line| {
        line.points.iter().map(|(_, value)| *value).chain(line.band.iter().map(|band| band.1))
    });
    // Latencies grow by orders of magnitude towards full load.
    let scale = match metric.unit {
        MetricUnit::Time => Scale::log(values),
        MetricUnit::Plain | MetricUnit::Index => Scale::around(values),
        MetricUnit::Count | MetricUnit::Bytes => Scale::linear(values),
    };
    let unit = match metric.unit {
        MetricUnit::Time => Unit::Time,
        MetricUnit::Plain | MetricUnit::Index => Unit::Plain,
        MetricUnit::Count | MetricUnit::Bytes => Unit::Count,
    };
    let x = Axis { scale: Scale::exact(low, high), unit: Unit::Count, label: sweep.label() };
    let y = Axis { scale, unit, label: metric.name.to_owned() };
    let values = Values::of_lines(&x, &y, &lines);
    let title = match metric.key {
        "p99_ns" => "Latency that 99 % did not exceed",
        "p50_ns" => "Median latency",
        "imbalance" => "Busiest server over the mean",
        _ => "Broken flows",
    };
    Chart { id: metric.key, title, note, width: Width::Half, x, y, lines, marks: Vec::new(), values }
}

fn left_out(count: usize) -> String {
    let further = count.saturating_sub(LINES_MAX);
    if further == 0 { String::new() } else { format!(" {further} further rows are not drawn.") }
}

/// Rows that are drawn as lines: of a sweep, those at its last place that all lines have. With what to say of
/// them, and how many there are.
fn drawn(comparison: &Comparison) -> (Vec<(String, &Row)>, String, usize) {
    let groups = comparison.groups();
    let most = groups.iter().map(Vec::len).max().unwrap_or(0);
    let group = groups.iter().rev().find(|group| group.len() == most);
    let rows: Vec<&Row> =
        group.into_iter().flatten().filter_map(|index| comparison.rows.get(*index)).collect();
    let note = match (comparison.sweep(), rows.first()) {
        (Some(sweep), Some(row)) => format!(" At {}.", comparison.place(row, &sweep)),
        _ => String::new(),
    };
    let count = rows.len();
    (rows.into_iter().take(LINES_MAX).map(|row| (label(comparison, row), row)).collect(), note, count)
}

fn write_latency(comparison: &Comparison, page: &mut Page) -> std::fmt::Result {
    let (rows, note, count) = drawn(comparison);
    let latencies: Vec<(&str, Histogram)> =
        rows.iter().map(|(label, row)| (&label[..], row.latency())).collect();
    if latencies.iter().all(|(_, latency)| latency.count() == 0) {
        return Ok(());
    }
    page.section("latency", "Latency");
    let shown: Vec<(&str, &Histogram)> = latencies.iter().map(|(label, latency)| (*label, latency)).collect();
    let note = format!("Of all seeds together.{note}{}", left_out(count));
    let mut chart = cdf("cdf", "How long requests took", note, &shown);
    chart.width = Width::Whole;
    page.body.push_str("<div class=\"figures\">");
    chart.write(&mut page.body)?;
    page.body.push_str("</div>\n");
    Ok(())
}

fn write_breaks(comparison: &Comparison, page: &mut Page) -> std::fmt::Result {
    let (rows, note, count) = drawn(comparison);
    if rows.iter().all(|(_, row)| row.runs.values().all(|run| run.flows.broken == 0)) {
        return Ok(());
    }
    page.section("breaks", "Broken connections");
    page.body.push_str("<div class=\"figures\">");
    let lines: Vec<Line> = rows
        .iter()
        .enumerate()
        .map(|(style, (label, row))| Line::new(label.clone(), style, Form::Steps, mean_breaks(row)))
        .collect();
    let runs = || rows.iter().flat_map(|(_, row)| row.runs.values());
    let end = runs().map(|run| run.elapsed_ns).max().unwrap_or(0);
    let timeline = runs().map(|run| &run.timeline).max_by_key(|timeline| timeline.len());
    let all = lines.iter().flat_map(|line| line.points.iter().map(|(_, value)| *value));
    let y = Axis { scale: Scale::linear(all), unit: Unit::Count, label: "broken flows so far".to_owned() };
    let x = Axis { scale: Scale::exact(0.0, float(end)), unit: Unit::Time, label: "time".to_owned() };
    let marks = timeline.into_iter().flatten().map(|mark| float(mark.at_ns)).collect();
    let values = Values::of_lines(&x, &y, &lines);
    let note = format!("Mean over the seeds.{note}{}", left_out(count));
    let chart = Chart {
        id: "breaks-time",
        title: "Broken flows so far",
        note,
        width: Width::Whole,
        x,
        y,
        lines,
        marks,
        values,
    };
    chart.write(&mut page.body)?;
    page.body.push_str("</div>\n");
    write_timeline(timeline.map_or(&[], Vec::as_slice), &mut page.body)?;
    write_causes(&rows, &mut page.body)
}

/// Causes by row, as means over the seeds.
fn write_causes(rows: &[(String, &Row)], body: &mut String) -> std::fmt::Result {
    let all: Vec<Vec<Broken>> = rows.iter().map(|(_, row)| row.causes()).collect();
    let mut causes: Vec<(&str, &str)> =
        all.iter().flatten().map(|cause| (&cause.cause[..], &cause.words[..])).collect();
    causes.sort_unstable();
    causes.dedup();
    body.push_str(CAUSES_HEAD);
    for (label, _) in rows {
        write!(body, "<th scope=\"col\">{}</th>", escaped(label))?;
    }
    body.push_str("</tr></thead><tbody>");
    for (key, words) in causes {
        write!(body, "<tr><td class=\"words\">{}<small>{}</small></td>", escaped(words), escaped(key))?;
        for ((_, row), own) in rows.iter().zip(&all) {
            let found = own.iter().find(|cause| cause.cause == key);
            let mean = |count: u64| float(count) / length(row.runs.len().max(1));
            let (count, floor) =
                found.map_or((0.0, 0.0), |cause| (mean(cause.count), mean(cause.unavoidable)));
            write!(body, "<td>{}<small>{}</small></td>", number::counted(count), number::counted(floor))?;
        }
        body.push_str("</tr>");
    }
    body.push_str("</tbody></table></div></div>\n");
    Ok(())
}

/// Broken flows so far, as the mean over the seeds, at the times of the longest interval among them.
fn mean_breaks(row: &Row) -> Vec<(f64, f64)> {
    let runs = || row.runs.values().map(|run| (run.breaks.0.max(1), &run.breaks.1));
    let interval = runs().map(|(interval, _)| interval).max().unwrap_or(1);
    let end = runs().map(|(own, breaks)| own.saturating_mul(number::count(breaks.len()))).max().unwrap_or(0);
    let steps = end.div_ceil(interval).min(number::count(POINTS_MAX));
    let points = (1..=steps).map(|step| {
        let time = step.saturating_mul(interval);
        let sum: f64 = runs()
            .map(|(own, breaks)| {
                let whole = usize::try_from(time.checked_div(own).unwrap_or(0)).unwrap_or(usize::MAX);
                breaks.iter().take(whole).map(|count| float(*count)).sum::<f64>()
            })
            .sum();
        (float(time), sum / length(row.runs.len().max(1)))
    });
    [(0.0, 0.0)].into_iter().chain(points).collect()
}

fn write_how(comparison: &Comparison, page: &mut Page) -> std::fmt::Result {
    page.section("how", "How it was made");
    let notes = comparison.all_notes().iter().map(|note| escaped(note)).collect::<Vec<_>>().join("<br>");
    let command = if comparison.command.is_empty() {
        String::new()
    } else {
        format!("<pre>{}</pre>", escaped(&comparison.command))
    };
    write_facts(
        &[("command", command), ("version", escaped(&comparison.version)), ("notes", notes)],
        &mut page.body,
    )?;
    let body = &mut page.body;
    body.push_str("<div class=\"card\"><h3>Runs</h3><p>The command gives the run again; equal hashes mean equal runs.</p><div class=\"scroll\"><table><thead><tr><th scope=\"col\">run</th><th scope=\"col\">seed</th><th scope=\"col\" class=\"left\">command</th><th scope=\"col\" class=\"left\">wire hash</th><th scope=\"col\" class=\"left\">decision hash</th><th scope=\"col\" class=\"left\">metric hash</th></tr></thead><tbody>");
    let runs =
        comparison.rows.iter().flat_map(|row| row.runs.iter().map(move |(seed, run)| (row, seed, run)));
    for (row, seed, run) in runs.take(ROWS_MAX) {
        write!(
            body,
            "<tr><th scope=\"row\">{}</th><td>{seed}</td><td class=\"words\"><code>{}</code></td>",
            escaped(&comparison.label(row)),
            escaped(&run.command),
        )?;
        for hash in [&run.hashes.wire, &run.hashes.decisions, &run.hashes.metrics] {
            write!(body, "<td class=\"left\"><code>{}</code></td>", escaped(hash))?;
        }
        body.push_str("</tr>");
    }
    body.push_str("</tbody></table></div></div>\n");
    Ok(())
}
