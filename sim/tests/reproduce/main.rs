//! Figures that others have published about per-connection consistency, reproduced with the engine's own schedulers.
//!
//! `cargo test -p evenkeel-sim --test reproduce` runs small cases, and holds their order. `make reproduce` runs the
//! published ones, optimised, and writes `docs/src/reproduce.md`.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "measurements"
)]

mod cheetah;
#[path = "../flow_support/mod.rs"]
mod flow_support;
mod jet;
mod lru;

use std::path::PathBuf;

/// The text of the page with what is between the marks of a part replaced.
fn replaced(text: &str, part: &str, table: &str) -> String {
    let (begin, end) = (format!("<!-- {part} -->\n"), format!("<!-- /{part} -->"));
    let (before, rest) = text.split_once(&begin).expect("the page has its marks");
    let (_, after) = rest.split_once(&end).expect("the page has its marks");
    format!("{before}{begin}\n{table}\n{end}{after}")
}

#[test]
fn tracking_just_enough_breaks_less_than_tracking_all_in_the_same_table() {
    let small = jet::Point { target: 1_000, seconds: 200, lru: 100 };
    let seen: Vec<jet::Seen> = (1..=2).map(|seed| jet::run(small, seed)).collect();
    let sum = |count: fn(&jet::Seen) -> u64| seen.iter().map(count).sum::<u64>();
    let (all, enough) = (sum(|seen| seen.broken_all), sum(|seen| seen.broken_enough));
    assert!(all > 0 && enough < all, "{all} {enough}");
    // Where nothing has to give way, nobody breaks.
    let roomy = jet::run(jet::Point { lru: 100_000, ..small }, 1);
    assert_eq!((roomy.broken_all, roomy.broken_enough), (0, 0));
    // 1,000 connections at a time of 21.3 s each.
    assert!((8_500..10_300).contains(&roomy.connections), "{}", roomy.connections);
}

#[test]
fn the_order_of_schemes_is_the_published_one() {
    let [hash, consistent, beamer, tracked] = cheetah::run(8_000, 1).map(|scheme| scheme.broken);
    assert!(
        hash > consistent && consistent > beamer && beamer > tracked,
        "{hash} {consistent} {beamer} {tracked}"
    );
    assert_eq!(tracked, 0);
}

#[test]
#[ignore = "takes minutes and writes the page: run it by `make reproduce`"]
fn write_the_page() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/src/reproduce.md");
    let text = std::fs::read_to_string(&path).expect("the page is there");
    let text = replaced(&text, "jet", &jet::table());
    let text = replaced(&text, "cheetah", &cheetah::table());
    std::fs::write(path, text).unwrap();
}
