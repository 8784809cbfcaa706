//! Pages of the example, of very many servers, of nothing and of hostile names; their colours; and how they
//! look in a browser where there is one.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod browser;
mod colours;

use sha2::{Digest, Sha256};

use super::super::data::ServerSeries;
use super::super::example;
use super::*;

/// What every page is.
fn assert_whole(page: &str) {
    assert!(page.starts_with("<!doctype html>\n<html lang=\"en\">") && page.ends_with("</body></html>\n"));
    for outside in ["src=", "href=\"http", "url(", "@import", "<link", "<iframe"] {
        assert!(!page.contains(outside), "{outside}");
    }
    for tag in
        ["figure", "table", "tbody", "svg", "details", "div", "section", "ul", "ol", "dl", "g", "p", "h3"]
    {
        let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
    }
    let mut ids: Vec<&str> =
        page.split(" id=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "an id twice");
    for link in page.split("href=\"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(ids.contains(&link), "{link}");
    }
    for name in
        page.split("aria-labelledby=\"").skip(1).flat_map(|rest| rest.split('"').next().unwrap().split(' '))
    {
        assert!(ids.contains(&name), "{name}");
    }
    let told = page.split("<script>").next().unwrap();
    assert!(!told.contains("NaN") && !told.contains("inf "), "a number that is none");
}

fn comparison(records: impl Iterator<Item = RunRecord>) -> Comparison {
    let mut comparison = Comparison::new("Schedulers", "0.1.0");
    records.for_each(|record| comparison.add(&record));
    comparison
}

#[test]
fn a_run_of_any_size_is_one_bounded_page() {
    for (servers, most) in [(1, 160_000), (8, 200_000), (1_000, 350_000)] {
        let page = run_page(&example::busy(1, "hash", servers, 500));
        assert_whole(&page);
        assert!(page.len() < most, "{servers}: {}", page.len());
    }
    let nothing = run_page(&RunRecord::default());
    assert_whole(&nothing);
    assert!(nothing.contains("No flow was opened."));
}

#[test]
fn a_page_says_what_the_run_was() {
    let record = example::busy(7, "maglev", 6, 500);
    let page = run_page(&record);
    for said in [
        "seed 7, 20 s of virtual time",
        "✓ 2 of 2 expectations met",
        "100 clients, 1 forwarder, 2 networks and 6 real servers.",
        "the other side stopped to answer",
        "server.1 is replaced by server.9",
        "--seed 7 --set service.web.scheduler=maglev",
        "00112233445566ff",
        &record.hashes.metrics,
        "lost by chance",
        "lb flow table: at most",
        "By MSER-5",
    ] {
        assert!(page.contains(said), "{said}");
    }
}

#[test]
fn every_plot_has_its_values_as_a_table() {
    let page = run_page(&example::busy(1, "hash", 6, 500));
    let plots = page.matches("<div class=\"plot\">").count();
    assert!(plots >= 8, "{plots}");
    assert_eq!(page.matches("<details class=\"values\"").count(), plots);
}

#[test]
fn names_become_no_markup() {
    let evil = "</title><script>alert(1)</script>\" onload='x' \u{202e}&amp;";
    let mut record = example::busy(1, "hash", 3, 100);
    for text in [&mut record.scenario, &mut record.version, &mut record.command, &mut record.hashes.wire] {
        *text = evil.to_owned();
    }
    record.notes.push(evil.to_owned());
    record.findings.push(evil.to_owned());
    record.parameters.iter_mut().for_each(|one| (one.name, one.value) = (evil.to_owned(), evil.to_owned()));
    record.servers.iter_mut().for_each(|one| (one.name, one.address) = (evil.to_owned(), evil.to_owned()));
    record.loads.iter_mut().for_each(|one| one.name = evil.to_owned());
    record.drops.iter_mut().for_each(|one| (one.place, one.reason) = (evil.to_owned(), evil.to_owned()));
    record.timeline.iter_mut().for_each(|one| one.words = evil.to_owned());
    record
        .flows
        .causes
        .iter_mut()
        .for_each(|one| (one.cause, one.words) = (evil.to_owned(), evil.to_owned()));
    record.series.tables.iter_mut().for_each(|one| one.name = evil.to_owned());
    record.topology.nodes.iter_mut().for_each(|one| one.label = evil.to_owned());
    record.topology.edges.iter_mut().for_each(|one| one.label = evil.to_owned());
    record.expectations.iter_mut().for_each(|one| one.metric = evil.to_owned());
    record
        .forwarders
        .iter_mut()
        .for_each(|one| (one.name, one.faults) = (evil.to_owned(), vec![evil.to_owned()]));
    let other = RunRecord { seed: 2, version: "2".to_owned(), ..record.clone() };
    let both = comparison([record.clone(), other].into_iter());
    for page in [run_page(&record), comparison_page(&both)] {
        assert_whole(&page);
        assert_eq!(page.matches("<script").count(), 1);
        assert!(!page.contains("onload='") && !page.contains('\u{202e}'));
    }
}

#[test]
fn records_that_contradict_themselves_are_drawn_as_far_as_they_go() {
    let mut record = example::busy(1, "hash", 3, 100);
    record.series.interval_ns = 0;
    record.series.servers.push(ServerSeries { requests: vec![u64::MAX; 9_999], ..ServerSeries::default() });
    record.series.p50_ns.clear();
    record.series.broken = vec![u64::MAX; 1_000];
    record.batches.size = 0;
    record.elapsed_ns = u64::MAX;
    let page = run_page(&record);
    assert_whole(&page);
    assert!(page.len() < 400_000, "{}", page.len());
}

#[test]
fn comparisons_of_any_form_are_whole_pages() {
    let schedulers = ["round-robin", "maglev", "least-connections", "hash"];
    let seeds = |scheduler| (1..=3).map(move |seed| example::busy(seed, scheduler, 4, 200));
    let plain = comparison_page(&comparison(schedulers.into_iter().flat_map(seeds)));
    assert_whole(&plain);
    assert!(plain.contains("4 rows, 3 seeds each, 12 runs in all") && !plain.contains("Over the sweep"));
    assert!(plain.contains("<span class=\"hidden\">best: </span>") && plain.contains("class=\"best\""));
    let rates = |scheduler| [100, 200, 300].into_iter().map(move |rate| example::busy(1, scheduler, 4, rate));
    let sweep = comparison_page(&comparison(schedulers.into_iter().flat_map(rates)));
    assert_whole(&sweep);
    assert!(sweep.contains("Over the sweep") && sweep.contains("rate (per second)"));
    assert_eq!(sweep.matches("<tr class=\"place\">").count(), 3);
    let one = comparison_page(&comparison([example::busy(1, "hash", 4, 100)].into_iter()));
    assert_whole(&one);
    assert_whole(&comparison_page(&Comparison::default()));
    assert_whole(&comparison_page(&comparison([RunRecord::default()].into_iter())));
}

#[test]
fn a_hundred_rows_are_drawn_as_eight_lines() {
    let base = example::busy(1, "hash", 2, 100);
    let rows = (0..100).map(|row| {
        let mut record = base.clone();
        record.parameters[0].value = format!("scheduler-{row}");
        record
    });
    let page = comparison_page(&comparison(rows));
    assert_whole(&page);
    assert!(page.contains("92 further rows are not drawn.") && page.len() < 500_000, "{}", page.len());
}

#[test]
fn the_policy_allows_the_script_of_the_page() {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let hash = Sha256::digest(SCRIPT.as_bytes());
    let mut text = String::new();
    for bytes in hash.chunks(3) {
        let bits =
            bytes.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - bytes.len()));
        for place in 0..=bytes.len() {
            let digit = bits >> (18 - 6 * place) & 63;
            text.push(char::from(DIGITS[usize::try_from(digit).unwrap()]));
        }
        (bytes.len()..3).for_each(|_| text.push('='));
    }
    assert_eq!(SCRIPT_HASH, text, "the script has changed: write its hash beside it");
}
