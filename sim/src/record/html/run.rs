//! The page of one run, from what matters most to how it was made.

use std::fmt::Write as _;

use super::bars::{self, Bar};
use super::chart::{self, Axis, Chart, Form, Line, POINTS_MAX, Values, Width};
use super::scale::{Scale, Unit};
use super::{Page, Tile, servers, write_facts, write_tiles, write_timeline};
use crate::record::balance::Balance;
use crate::record::data::{Mode, RunRecord};
use crate::record::drawing::Drawing;
use crate::record::histogram::Histogram;
use crate::record::markup::escaped;
use crate::record::number::{self, float, length};
use crate::record::statistics::{Estimate, mser};

pub(super) fn write(record: &RunRecord, page: &mut Page) -> std::fmt::Result {
    write_head(record, &mut page.head)?;
    write_tiles(&tiles(record), &mut page.body)?;
    write_judgement(record, page)?;
    if !record.topology.nodes.is_empty() {
        page.section("topology", "Topology");
        let svg = Drawing::new(&record.topology).to_svg(&format!("Topology of {}", record.scenario));
        let sentence = escaped(&record.topology.sentence());
        writeln!(
            page.body,
            "<figure class=\"card\"><figcaption><p>{sentence}</p></figcaption><div class=\"drawing\">{svg}</div></figure>"
        )?;
    }
    write_latency(record, page)?;
    servers::write(record, page)?;
    write_flows(record, page)?;
    write_how(record, page)
}

fn write_head(record: &RunRecord, head: &mut String) -> std::fmt::Result {
    let mode = match record.mode {
        Mode::Packet => "packet by packet",
        Mode::Flow => "flow by flow",
    };
    write!(
        head,
        "<p class=\"eyebrow\">Evenkeel simulation</p><h1>{}</h1><p class=\"facts\">{mode}, seed {}, {} of virtual time, {} events</p>",
        escaped(&record.scenario),
        record.seed,
        escaped(&number::nanoseconds(record.elapsed_ns)),
        number::grouped(record.events),
    )?;
    if !record.parameters.is_empty() {
        let parameters = record.parameters.iter().map(|one| format!("{} = {}", one.name, one.value));
        write!(head, "<p class=\"facts\">{}</p>", escaped(&parameters.collect::<Vec<_>>().join(", ")))?;
    }
    let (met, all) = (record.expectations.iter().filter(|one| one.is_met).count(), record.expectations.len());
    head.push_str("<ul class=\"verdicts\">");
    if all > 0 {
        let (class, sign) = if met == all { ("good", "✓") } else { ("bad", "✗") };
        write!(head, "<li class=\"{class}\">{sign} {met} of {all} expectations met</li>")?;
    }
    match record.findings.len() {
        0 => {}
        1 => head.push_str("<li class=\"bad\">✗ 1 finding</li>"),
        count => write!(head, "<li class=\"bad\">✗ {count} findings</li>")?,
    }
    head.push_str("</ul>");
    Ok(())
}

fn tiles(record: &RunRecord) -> Vec<Tile> {
    let flows = &record.flows;
    let share = |part: u64| {
        if flows.started == 0 {
            return "none was started".to_owned();
        }
        format!("{} of {} started", number::percent_of(part, flows.started), number::grouped(flows.started))
    };
    let quantile =
        |millionths| record.latency.quantile(millionths).map_or_else(|| "-".to_owned(), number::nanoseconds);
    let broken_more = if flows.broken == 0 {
        "none".to_owned()
    } else {
        let kept = match flows.unavoidable {
            0 => "every one could have been kept".to_owned(),
            some => format!("{} could not have been kept", number::grouped(some)),
        };
        format!("{}; {kept}", number::percent_of(flows.broken, flows.started))
    };
    let half = if record.latency.count() > 0 {
        "half of the requests took no longer"
    } else {
        "no request completed"
    };
    let mut tiles = vec![
        Tile::new("Flows completed", number::grouped(flows.completed), share(flows.completed)),
        Tile {
            is_alarm: flows.broken > flows.unavoidable,
            ..Tile::new("Flows broken", number::grouped(flows.broken), broken_more)
        },
        Tile::new("Median latency", quantile(500_000), half.to_owned()),
        Tile::new(
            "p99",
            quantile(990_000),
            format!("p99.9 {}, longest {}", quantile(999_000), quantile(1_000_000)),
        ),
    ];
    if let Some(balance) = record.balance.filter(|_| record.servers.len() > 1) {
        let more = format!("busiest server over the mean; Jain {}", number::index(float(balance.jain) / 1e6));
        tiles.push(Tile::new("Imbalance", number::ratio(balance.max_over_mean), more));
    }
    let dropped: u64 = record.drops.iter().map(|drop| drop.count).fold(0, u64::saturating_add);
    let more = format!(
        "of {} packets; {} sent again",
        number::grouped(record.packets.sent),
        number::grouped(record.packets.retransmitted)
    );
    if record.mode == Mode::Packet {
        tiles.push(Tile::new("Packets dropped", number::grouped(dropped), more));
    }
    tiles
}

/// Expectations and findings.
fn write_judgement(record: &RunRecord, page: &mut Page) -> std::fmt::Result {
    if record.expectations.is_empty() && record.findings.is_empty() {
        return Ok(());
    }
    page.section("judgement", "Judgement");
    let body = &mut page.body;
    if !record.findings.is_empty() {
        body.push_str("<div class=\"card\"><h3>Findings</h3><ul class=\"findings\">");
        for finding in &record.findings {
            write!(body, "<li>{}</li>", escaped(finding))?;
        }
        body.push_str("</ul></div>\n");
    }
    if record.expectations.is_empty() {
        return Ok(());
    }
    body.push_str("<div class=\"card\"><div class=\"scroll tall\"><table><thead><tr><th scope=\"col\">expectation</th><th scope=\"col\" class=\"left\">wanted</th><th scope=\"col\">found</th><th scope=\"col\">verdict</th></tr></thead><tbody>");
    for one in &record.expectations {
        let (class, verdict) = if one.is_met { ("good", "✓ met") } else { ("bad", "✗ missed") };
        write!(
            body,
            "<tr><th scope=\"row\">{}</th><td class=\"words\">{}</td><td>{}</td><td><span class=\"tag {class}\">{verdict}</span></td></tr>",
            escaped(&one.metric),
            escaped(&one.wanted),
            escaped(one.found.as_deref().unwrap_or("not measured")),
        )?;
    }
    body.push_str("</tbody></table></div></div>\n");
    Ok(())
}

// Latency.

fn write_latency(record: &RunRecord, page: &mut Page) -> std::fmt::Result {
    if record.latency.count() == 0 {
        return Ok(());
    }
    page.section("latency", "Latency");
    let body = &mut page.body;
    body.push_str("<div class=\"figures\">");
    let with_own = record.loads.iter().filter(|load| load.latency.count() > 0);
    let loads: Vec<(&str, &Histogram)> = with_own.map(|load| (&load.name[..], &load.latency)).collect();
    let all = [("all requests", &record.latency)];
    let shown: Vec<(&str, &Histogram)> = match loads.len() {
        2..=7 => all.into_iter().chain(loads).collect(),
        _ => all.to_vec(),
    };
    cdf("cdf", "How long requests took", cdf_note(record), &shown).write(body)?;
    latency_over_time(record).write(body)?;
    body.push_str("</div>\n");
    write_steadiness(record, body)
}

fn cdf_note(record: &RunRecord) -> String {
    let left_out = if record.warmup_ns > 0 {
        format!(", without the first {}", number::nanoseconds(record.warmup_ns))
    } else {
        String::new()
    };
    format!("The {} requests that completed{left_out}.", number::grouped(record.latency.count()))
}

/// Distributions of latency, with the tail stretched.
pub(super) fn cdf<'a>(id: &'a str, title: &'a str, note: String, shown: &[(&str, &Histogram)]) -> Chart<'a> {
    /// The rows of the table.
    const SHARES: [(u32, &str); 15] = [
        (10_000, "1 %"),
        (50_000, "5 %"),
        (100_000, "10 %"),
        (250_000, "25 %"),
        (500_000, "50 %"),
        (750_000, "75 %"),
        (900_000, "90 %"),
        (950_000, "95 %"),
        (980_000, "98 %"),
        (990_000, "99 %"),
        (995_000, "99.5 %"),
        (998_000, "99.8 %"),
        (999_000, "99.9 %"),
        (999_900, "99.99 %"),
        (999_990, "99.999 %"),
    ];
    let most = shown.iter().map(|(_, histogram)| histogram.count()).max().unwrap_or(1);
    // As many nines as there are flows to tell them by, and never fewer than two.
    let nines = libm::log10(float(most)).clamp(2.0, 6.0);
    let ends =
        shown.iter().flat_map(|(_, histogram)| [histogram.min(), histogram.max()]).flatten().map(float);
    let x = Axis { scale: Scale::log(ends), unit: Unit::Time, label: "latency".to_owned() };
    let y = Axis {
        scale: Scale::Nines { most: nines },
        unit: Unit::Share,
        label: "requests that took no longer (the slowest are stretched)".to_owned(),
    };
    let lines = shown.iter().enumerate().map(|(style, (name, histogram))| {
        Line::new(*name, style, Form::Straight, cdf_points(histogram, &x, &y))
    });
    let mut values = Values { head: vec!["requests".to_owned()], rows: Vec::new(), is_upright: true };
    values.head.extend(shown.iter().map(|(name, _)| (*name).to_owned()));
    for (share, name) in SHARES {
        let value = f64::from(share) / 1e6;
        if y.scale.place(value) < 1.0 {
            let cells = shown.iter().map(|(_, histogram)| {
                histogram.quantile(share).map_or_else(|| "-".to_owned(), number::nanoseconds)
            });
            values.rows.push((value, [name.to_owned()].into_iter().chain(cells).collect()));
        }
    }
    Chart { id, title, note, width: Width::Half, lines: lines.collect(), x, y, marks: Vec::new(), values }
}

/// The points of a distribution that a picture can tell apart.
fn cdf_points(histogram: &Histogram, x: &Axis, y: &Axis) -> Vec<(f64, f64)> {
    /// The least distance of two points, as a share of the axis.
    const APART: f64 = 1.0 / 240.0;
    let total = float(histogram.count());
    let mut points: Vec<(f64, f64)> = histogram.min().map(|min| (float(min), 0.0)).into_iter().collect();
    let mut seen = 0u64;
    for bucket in histogram.buckets() {
        seen = seen.saturating_add(bucket.count);
        let last = histogram.max().map_or(bucket.last, |max| max.min(bucket.last));
        let point = (float(last), float(seen) / total);
        let is_apart = points.last().is_none_or(|before| {
            let distance = |axis: &Axis, one, other| (axis.scale.place(one) - axis.scale.place(other)).abs();
            distance(x, before.0, point.0) + distance(y, before.1, point.1) > APART
        });
        if is_apart || seen == histogram.count() {
            points.push(point);
        }
    }
    points
}

fn latency_over_time(record: &RunRecord) -> Chart<'static> {
    let series = &record.series;
    let interval = float(series.interval_ns);
    let points = |values: &[u64]| {
        let points = values.iter().take(POINTS_MAX).enumerate().map(|(index, value)| {
            let value = if *value == 0 { f64::NAN } else { float(*value) };
            (length(index) * interval, value)
        });
        points.collect::<Vec<_>>()
    };
    let lines = vec![
        Line::new("p50", 0, Form::Straight, points(&series.p50_ns)),
        Line::new("p99", 1, Form::Straight, points(&series.p99_ns)),
        Line::new("longest", 3, Form::Straight, points(&series.max_ns)),
    ];
    let all = lines.iter().flat_map(|line| line.points.iter().map(|(_, value)| *value));
    let y = Axis { scale: Scale::log(all), unit: Unit::Time, label: "latency".to_owned() };
    let x = time_axis(record);
    let values = Values::of_lines(&x, &y, &lines);
    Chart {
        id: "latency-time",
        title: "Latency over time",
        note: format!("Of the requests that completed in each {}.", number::duration(interval)),
        width: Width::Half,
        x,
        y,
        lines,
        marks: marks(record),
        values,
    }
}

/// How certain the mean is, and whether the run was long enough.
fn write_steadiness(record: &RunRecord, body: &mut String) -> std::fmt::Result {
    let batches = &record.batches;
    let Some(warm_up) = mser(batches) else { return Ok(()) };
    let total = batches.sums.len();
    let left_out = number::count(warm_up.batches).saturating_mul(batches.size);
    let mut sentences = Vec::new();
    if let Some(estimate) = Estimate::of_batches(batches, if warm_up.is_steady { warm_up.batches } else { 0 })
    {
        let half = estimate.half_width.map_or(String::new(), |half| format!(" ± {}", number::duration(half)));
        sentences.push(format!(
            "Mean latency {}{half} (95 %, from batch means of this run).",
            number::duration(estimate.mean)
        ));
    }
    sentences.push(if !warm_up.is_steady {
        format!("The latency has not settled: by MSER-5 the run is steady only in its last {} of {total} batches, so the numbers depend on its length.", total - warm_up.batches)
    } else if warm_up.batches == 0 {
        "By MSER-5 the run is steady from its beginning.".to_owned()
    } else {
        format!("By MSER-5 the run is steady after its first {} requests; the mean leaves them out.", number::grouped(left_out))
    });
    writeln!(body, "<p style=\"margin-top:12px\">{}</p>", escaped(&sentences.join(" ")))
}

// Flows, packets and tables.

fn write_flows(record: &RunRecord, page: &mut Page) -> std::fmt::Result {
    page.section("flows", "Flows and packets");
    let body = &mut page.body;
    if record.flows.started == 0 {
        body.push_str("<p>No flow was opened.</p>");
    }
    body.push_str("<div class=\"figures\">");
    let breaks = (record.flows.broken > 0).then(|| breaks(record));
    let rates = (record.flows.started > 0).then(|| rates(record));
    let charts = [rates, breaks, tables(record)];
    chart::write_all(charts.into_iter().flatten().collect(), body)?;
    body.push_str("</div>\n<div class=\"figures\">");
    if record.flows.broken > 0 {
        let causes = record.flows.causes.iter().map(|cause| Bar {
            name: cause.words.clone(),
            more: cause.cause.clone(),
            count: cause.count,
            part: cause.unavoidable,
        });
        let note =
            "Flows that no load balancer could have kept, because their server had gone, are the floor.";
        bars::write("Why flows broke", note, Some("floor"), causes.collect(), body)?;
    }
    let drops = record.drops.iter().map(|drop| Bar {
        name: drop.reason.clone(),
        more: drop.place.clone(),
        count: drop.count,
        part: 0,
    });
    bars::write("Why packets were dropped", "By reason and place.", None, drops.collect(), body)?;
    body.push_str("</div>\n");
    write_timeline(&record.timeline, body)?;
    write_forwarders(record, body)
}

fn rates(record: &RunRecord) -> Chart<'static> {
    let series = &record.series;
    let points = |values: &[u64]| {
        let rates = per_second(record, values, 1).into_iter().take(POINTS_MAX).enumerate();
        rates.map(|(index, rate)| (length(index) * float(series.interval_ns), rate)).collect()
    };
    let lines = vec![
        Line::new("flows opened", 0, Form::Steps, points(&series.started)),
        Line::new("requests completed", 1, Form::Steps, points(&series.completed)),
    ];
    over_time(record, "rates", "Flows and requests per second", String::new(), "per second", lines)
}

fn breaks(record: &RunRecord) -> Chart<'static> {
    let series = &record.series;
    let running = |values: &[u64]| {
        let mut sum = 0u64;
        let points = values.iter().take(POINTS_MAX).enumerate().map(|(index, value)| {
            sum = sum.saturating_add(*value);
            (length(index + 1) * float(series.interval_ns), float(sum))
        });
        points.collect()
    };
    let lines = vec![
        Line::new("broken", 1, Form::Steps, running(&series.broken)),
        Line::new("could not be kept", 7, Form::Steps, running(&series.unavoidable)),
    ];
    over_time(
        record,
        "breaks",
        "Broken flows so far",
        "Numbers above the upright lines are the events below.".to_owned(),
        "broken flows",
        lines,
    )
}

fn tables(record: &RunRecord) -> Option<Chart<'static>> {
    let series = &record.series;
    let used = series.tables.iter().filter(|table| table.entries.iter().any(|entries| *entries > 0));
    let lines: Vec<Line> = used
        .take(chart::LINES_MAX)
        .enumerate()
        .map(|(style, table)| {
            let points = table.entries.iter().take(POINTS_MAX).enumerate();
            let points =
                points.map(|(index, entries)| (length(index) * float(series.interval_ns), float(*entries)));
            Line::new(table.name.clone(), style, Form::Steps, points.collect())
        })
        .collect();
    let told = series.tables.iter().map(|table| {
        let most = table.entries.iter().max().copied().unwrap_or(0);
        let evicted: u64 = table.evicted.iter().fold(0, |sum, one| sum.saturating_add(*one));
        let full = if table.capacity > 0 {
            format!(" of {}", number::grouped(table.capacity))
        } else {
            String::new()
        };
        format!(
            "{}: at most {}{full}, {} evicted.",
            table.name,
            number::grouped(most),
            number::grouped(evicted)
        )
    });
    let note = told.take(4).collect::<Vec<_>>().join(" ");
    (!lines.is_empty()).then(|| over_time(record, "tables", "Entries in tables", note, "entries", lines))
}

fn write_forwarders(record: &RunRecord, body: &mut String) -> std::fmt::Result {
    if record.forwarders.is_empty() {
        return Ok(());
    }
    body.push_str("<div class=\"card\" style=\"margin-top:16px\"><h3>Forwarders</h3><div class=\"scroll tall\"><table class=\"sortable\"><thead><tr><th scope=\"col\">forwarder</th><th scope=\"col\">packets in</th><th scope=\"col\">forwarded</th><th scope=\"col\">answered</th><th scope=\"col\">dropped</th><th scope=\"col\">flows opened</th><th scope=\"col\">instructions a decision</th><th scope=\"col\">memory</th><th scope=\"col\" class=\"left\">components</th></tr></thead><tbody>");
    for one in record.forwarders.iter().take(64) {
        write!(body, "<tr><th scope=\"row\">{}</th>", escaped(&one.name))?;
        for count in [one.packets_in, one.forwarded, one.answered, one.dropped, one.flows_opened] {
            write!(body, "<td data-v=\"{count}\">{}</td>", number::grouped(count))?;
        }
        let cost = one.cost.instructions.and_then(|sum| sum.checked_div(one.cost.decisions));
        let memory =
            one.cost.memory_bytes.map_or_else(|| "-".to_owned(), |bytes| number::bytes(float(bytes)));
        write!(
            body,
            "<td>{}</td><td>{memory}</td><td class=\"words\">",
            cost.map_or_else(|| "-".to_owned(), number::grouped)
        )?;
        for guest in &one.guests {
            write!(
                body,
                "{}: {} calls, {} decided, {} faults, {} by fallback<br>",
                escaped(&guest.name),
                number::grouped(guest.calls),
                number::grouped(guest.decided),
                number::grouped(guest.faults),
                number::grouped(guest.fallbacks),
            )?;
        }
        if let Some(fault) = one.faults.first() {
            write!(body, "<small>first fault: {}</small>", escaped(fault))?;
        }
        body.push_str("</td></tr>");
    }
    body.push_str("</tbody></table></div></div>\n");
    Ok(())
}

/// How to have this run again.
fn write_how(record: &RunRecord, page: &mut Page) -> std::fmt::Result {
    page.section("how", "How it was made");
    let code =
        |text: &str| if text.is_empty() { String::new() } else { format!("<code>{}</code>", escaped(text)) };
    let command = if record.command.is_empty() {
        String::new()
    } else {
        format!("<pre>{}</pre>", escaped(&record.command))
    };
    let notes = record.notes.iter().map(|note| escaped(note)).collect::<Vec<_>>().join("<br>");
    let error = Histogram::<7>::ERROR_PARTS;
    write_facts(
        &[
            ("command", command),
            ("version", escaped(&record.version)),
            ("wire hash", code(&record.hashes.wire)),
            ("decision hash", code(&record.hashes.decisions)),
            ("metric hash", code(&record.hashes.metrics)),
            (
                "warm-up",
                if record.warmup_ns > 0 {
                    escaped(&number::nanoseconds(record.warmup_ns))
                } else {
                    "none".to_owned()
                },
            ),
            (
                "precision",
                format!(
                    "quantiles are right to one part in {error}, those over time to one in 32; counts, means and extremes are exact"
                ),
            ),
            ("notes", notes),
        ],
        &mut page.body,
    )
}

// What charts over time share.

/// Counts of so many intervals each as rates. The run may have ended within the last one; a rest of less than
/// half is left out, for it would show little but chance.
pub(super) fn per_second(record: &RunRecord, values: &[u64], joined: usize) -> Vec<f64> {
    let interval = float(record.series.interval_ns.max(1));
    let window = interval * length(joined);
    let rates = values.chunks(joined).enumerate().filter_map(|(index, counts)| {
        let left = float(record.elapsed_ns) - length(index) * window;
        let passed = left.min(interval * length(counts.len()));
        let sum: f64 = counts.iter().map(|count| float(*count)).sum();
        (passed >= window / 2.0 || index == 0 && passed > 0.0).then(|| sum * 1e9 / passed)
    });
    rates.collect()
}

/// The time of a run, from its beginning to its end.
pub(super) fn time_axis(record: &RunRecord) -> Axis {
    Axis { scale: Scale::exact(0.0, float(record.elapsed_ns)), unit: Unit::Time, label: "time".to_owned() }
}

pub(super) fn marks(record: &RunRecord) -> Vec<f64> {
    record.timeline.iter().map(|mark| float(mark.at_ns)).collect()
}

pub(super) fn over_time<'a>(
    record: &RunRecord,
    id: &'a str,
    title: &'a str,
    note: String,
    label: &str,
    lines: Vec<Line>,
) -> Chart<'a> {
    let all = lines.iter().flat_map(|line| line.points.iter().map(|(_, value)| *value));
    let y = Axis { scale: Scale::linear(all), unit: Unit::Count, label: label.to_owned() };
    let x = time_axis(record);
    let values = Values::of_lines(&x, &y, &lines);
    Chart { id, title, note, width: Width::Half, x, y, lines, marks: marks(record), values }
}

/// One number of the balance over time; windows without requests are gaps.
pub(super) fn balance_line(record: &RunRecord, name: &str, style: usize, of: fn(&Balance) -> u64) -> Line {
    let series = &record.series.balance;
    let window = float(series.intervals) * float(record.series.interval_ns);
    let points = series.windows.iter().take(POINTS_MAX).enumerate().map(|(index, balance)| {
        (length(index) * window, balance.as_ref().map_or(f64::NAN, |balance| float(of(balance)) / 1e6))
    });
    Line::new(name, style, Form::Steps, points.collect())
}
