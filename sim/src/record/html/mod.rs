//! One page that tells a run or a comparison, in one file that needs nothing else: no network, no library.
//!
//! In: a record, or rows of records. Out: HTML with its style, its pictures as inline SVG and a small script
//! for tooltips and sorting; without the script everything is still there. All text is escaped, and the page's
//! policy allows no other script and no request. Pictures have bounded numbers of points, so the size of a
//! page does not grow with the length of a run or the number of servers.

mod bars;
mod chart;
mod compare;
mod heat;
mod run;
mod scale;
mod servers;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use super::comparison::Comparison;
use super::data::{Mark, RunRecord};
use super::markup::escaped;
use super::number;

/// How a page looks.
const STYLE: &str = include_str!("page.css");
/// What a page does.
const SCRIPT: &str = include_str!("page.js");
/// The SHA-256 of [`SCRIPT`] in base64, for the policy of the page.
const SCRIPT_HASH: &str = "807KSCnbSyn66BJSKYyRDQBBMie002LY2d2oTA7IJtE=";
/// The most events of a timeline that are told in words.
const EVENTS_SHOWN: usize = 60;

/// The page of one run.
#[must_use]
pub fn run_page(record: &RunRecord) -> String {
    let mut page = Page::new(&record.scenario);
    // Writing into a String cannot fail.
    let _ = run::write(record, &mut page);
    page.finish(&record.version)
}

/// The page that compares several runs.
#[must_use]
pub fn comparison_page(comparison: &Comparison) -> String {
    let mut page = Page::new(&comparison.title);
    let _ = compare::write(comparison, &mut page);
    page.finish(&comparison.version)
}

/// A page that is being written.
struct Page {
    title: String,
    head: String,
    body: String,
    sections: Vec<(String, String)>,
}

impl Page {
    fn new(title: &str) -> Self {
        Self { title: title.to_owned(), head: String::new(), body: String::new(), sections: Vec::new() }
    }

    /// Begins a section.
    fn section(&mut self, id: &str, title: &str) {
        let _ = writeln!(self.body, "<h2 id=\"{id}\">{}</h2>", escaped(title));
        self.sections.push((id.to_owned(), title.to_owned()));
    }

    fn finish(self, version: &str) -> String {
        let title = escaped(&self.title);
        let mut page = String::with_capacity(self.body.len() + STYLE.len() + SCRIPT.len() + 4_096);
        let _ = write!(
            page,
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <meta name=\"color-scheme\" content=\"light dark\">\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
             script-src 'sha256-{SCRIPT_HASH}'; base-uri 'none'; form-action 'none'\">\
             <title>{title} - Evenkeel</title>\n<style>{STYLE}</style></head>\n<body><header>{}</header>\n",
            self.head
        );
        page.push_str("<nav aria-label=\"Sections\"><ul>");
        for (id, title) in &self.sections {
            let _ = write!(page, "<li><a href=\"#{id}\">{}</a></li>", escaped(title));
        }
        page.push_str("</ul></nav>\n<main>");
        page.push_str(&self.body);
        let version = escaped(version);
        let _ = write!(
            page,
            "</main>\n<footer>Made by evenkeel {version}. Everything on this page is in this file.</footer>\n\
             <script>{SCRIPT}</script></body></html>\n"
        );
        page
    }
}

/// A tile with one number.
struct Tile {
    name: &'static str,
    value: String,
    more: String,
    is_alarm: bool,
}

impl Tile {
    fn new(name: &'static str, value: String, more: String) -> Self {
        Self { name, value, more, is_alarm: false }
    }
}

fn write_tiles(tiles: &[Tile], page: &mut String) -> std::fmt::Result {
    page.push_str("<dl class=\"tiles\">");
    for tile in tiles {
        let class = if tile.is_alarm { " class=\"alarm\"" } else { "" };
        write!(
            page,
            "<div{class}><dt>{}</dt><dd class=\"value\">{}</dd><dd class=\"more\">{}</dd></div>",
            escaped(tile.name),
            escaped(&tile.value),
            escaped(&tile.more),
        )?;
    }
    page.push_str("</dl>\n");
    Ok(())
}

/// A list of names and values; values are markup.
fn write_facts(facts: &[(&str, String)], page: &mut String) -> std::fmt::Result {
    page.push_str("<div class=\"card\"><dl class=\"how\">");
    for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
        write!(page, "<dt>{}</dt><dd>{value}</dd>", escaped(name))?;
    }
    page.push_str("</dl></div>\n");
    Ok(())
}

/// What the numbers over the upright lines of charts mean.
fn write_timeline(marks: &[Mark], page: &mut String) -> std::fmt::Result {
    if marks.is_empty() {
        return Ok(());
    }
    page.push_str("<div class=\"card\"><h3>Events</h3><ol class=\"times\">");
    for mark in marks.iter().take(EVENTS_SHOWN) {
        let time = escaped(&number::nanoseconds(mark.at_ns));
        write!(page, "<li><time>{time}</time> {}</li>", escaped(&mark.words))?;
    }
    page.push_str("</ol>");
    if let Some(further) = marks.len().checked_sub(EVENTS_SHOWN).filter(|further| *further > 0) {
        write!(
            page,
            "<p>{} further events are in timeline.csv.</p>",
            number::grouped(number::count(further))
        )?;
    }
    page.push_str("</div>\n");
    Ok(())
}
