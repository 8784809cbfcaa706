//! The page that compares rows: the table first, then the pictures behind it.

use std::fmt::Write as _;

use super::bars::{self, Bar};
use super::chart::{Axis, Chart, Form, LINES_MAX, Line, POINTS_MAX, Values, Width};
use super::run::cdf;
use super::scale::{Scale, Unit};
use super::{Page, write_facts, write_timeline};
use crate::record::comparison::{Comparison, METRICS, Metric, Row, Sweep, Unit as MetricUnit};
use crate::record::drawing::Drawing;
use crate::record::histogram::Histogram;
use crate::record::markup::escaped;
use crate::record::number::{self, float, length};

/// The most rows of the table, and of the list of commands.
const ROWS_MAX: usize = 200;
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
        write!(
            page.body,
            "<figure class=\"card\"><figcaption><p>{sentence}</p></figcaption><div class=\"drawing\">{svg}</div></figure>\n"
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

/// Metrics that at least one row has.
fn metrics(comparison: &Comparison) -> Vec<&'static Metric> {
    let has = |metric: &&Metric| comparison.rows.iter().any(|row| row.estimate(metric).is_some());
    METRICS.iter().filter(has).collect()
}

fn write_table(comparison: &Comparison, body: &mut String) -> std::fmt::Result {
    let metrics = metrics(comparison);
    body.push_str("<div class=\"card\"><p>Mean over the seeds ± half of its 95 % interval. The second line is the difference from the first row of the same kind, paired by seed; in brackets where zero is within its interval. Shaded: the best, and those of which it cannot be told that they are worse.</p><div class=\"scroll tall\"><table class=\"sortable compare\"><thead><tr><th scope=\"col\">run</th>");
    for metric in &metrics {
        write!(body, "<th scope=\"col\">{}</th>", escaped(metric.name))?;
    }
    body.push_str("</tr></thead><tbody>");
    let mut written = 0;
    for group in comparison.groups() {
        let best: Vec<Vec<usize>> = metrics.iter().map(|metric| comparison.best(&group, metric)).collect();
        let baseline = group.first().and_then(|index| comparison.rows.get(*index));
        for index in &group {
            let Some(row) = comparison.rows.get(*index).filter(|_| written < ROWS_MAX) else { continue };
            written += 1;
            write!(body, "<tr><th scope=\"row\">{}</th>", escaped(&comparison.label(row)))?;
            for (metric, best) in metrics.iter().zip(&best) {
                let baseline = baseline.filter(|baseline| !std::ptr::eq(*baseline, row));
                write_cell(row, baseline, metric, best.iter().position(|good| good == index), body)?;
            }
            body.push_str("</tr>");
        }
    }
    body.push_str("</tbody></table></div>");
    if comparison.rows.len() > written {
        write!(body, "<p>{} further rows are in comparison.csv.</p>", comparison.rows.len() - written)?;
    }
    body.push_str("</div>\n");
    Ok(())
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
        write!(body, " ± {}", escaped(&metric.show(half)))?;
    }
    if let Some(found) = baseline.and_then(|baseline| row.difference(baseline, metric)) {
        let sign = if found.mean > 0.0 { "+" } else { "" };
        let shown = if found.mean == 0.0 {
            "=".to_owned()
        } else {
            format!("{sign}{}", metric.show(found.mean)).replace('-', "−")
        };
        let half = found
            .half_width
            .filter(|half| *half > 0.0)
            .map_or(String::new(), |half| format!(" ± {}", metric.show(half)));
        let told = if found.count > 1 && found.mean != 0.0 && !found.is_not_zero() {
            format!("({shown}{half})")
        } else {
            shown + &half
        };
        write!(body, "<small>{}</small>", escaped(&told))?;
    }
    body.push_str("</td>");
    Ok(())
}

// Pictures.

fn write_sweep(comparison: &Comparison, sweep: &Sweep, page: &mut Page) -> std::fmt::Result {
    page.section("sweep", "Over the sweep");
    page.body.push_str("<div class=\"figures\">");
    for metric in METRICS.iter().filter(|metric| SWEPT.contains(&metric.key)) {
        let chart = sweep_chart(comparison, sweep, metric);
        if chart.lines.iter().any(|line| line.points.iter().any(|(_, value)| *value > 0.0)) {
            chart.write(&mut page.body)?;
        }
    }
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
    let is_time = metric.unit == MetricUnit::Time;
    let scale = if is_time { Scale::log(values) } else { Scale::linear(values) };
    let unit = match metric.unit {
        MetricUnit::Time => Unit::Time,
        MetricUnit::Plain => Unit::Plain,
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

/// Rows that are drawn as lines: of a sweep, those at its last place that all lines have.
fn drawn(comparison: &Comparison) -> (Vec<(String, &Row)>, String, usize) {
    let label = |index: &usize| comparison.rows.get(*index).map(|row| (comparison.label(row), row));
    let groups = comparison.groups();
    let most = groups.iter().map(Vec::len).max().unwrap_or(0);
    let group = groups.iter().rev().find(|group| group.len() == most);
    let rows: Vec<(String, &Row)> = group.into_iter().flatten().filter_map(label).collect();
    let note = match comparison.sweep() {
        Some(_) if most < comparison.rows.len() => " At the end of the sweep.".to_owned(),
        _ => String::new(),
    };
    let count = rows.len();
    (rows.into_iter().take(LINES_MAX).collect(), note, count)
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
    let mut chart = cdf("cdf", "How long flows took", note, &shown);
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
    for (label, row) in &rows {
        let causes = row.causes().into_iter().map(|cause| Bar {
            name: cause.words,
            more: cause.cause,
            count: cause.count,
            part: cause.unavoidable,
        });
        let note = "All seeds together; the floor could not be kept by any load balancer.";
        bars::write(
            &format!("Why flows broke: {label}"),
            note,
            Some("floor"),
            causes.collect(),
            &mut page.body,
        )?;
    }
    page.body.push_str("</div>\n");
    write_timeline(timeline.map_or(&[], Vec::as_slice), &mut page.body)
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
