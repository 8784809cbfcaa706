//! The page with the tables, between markers.

use std::path::PathBuf;

use crate::row::{HEAD, Row};

const QUICK: [&str; 2] = ["<!-- quick -->\n", "<!-- /quick -->"];
const LONG: [&str; 2] = ["<!-- long -->\n", "<!-- /long -->"];

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/src/simulator/truth.md")
}

fn read() -> String {
    std::fs::read_to_string(path()).expect("the page is there")
}

/// The text with what is between two markers replaced.
fn replaced(text: &str, [begin, end]: [&str; 2], rows: &[Row]) -> String {
    let (before, rest) = text.split_once(begin).expect("the page has its markers");
    let (_, after) = rest.split_once(end).expect("the page has its markers");
    let lines: Vec<String> = rows.iter().map(Row::line).collect();
    format!("{before}{begin}\n{HEAD}{}\n\n{end}{after}", lines.join("\n"))
}

/// Each row is on the page, word for word.
pub fn check(rows: &[Row]) {
    let text = read();
    let (_, rest) = text.split_once(QUICK[0]).expect("the page has its markers");
    let (table, _) = rest.split_once(QUICK[1]).expect("the page has its markers");
    for row in rows {
        let line = row.line();
        assert!(
            table.lines().any(|known| known == line),
            "docs/src/simulator/truth.md has another line than\n{line}\nwrite it anew by `make truth-quick`"
        );
    }
}

pub fn write(quick: &[Row], long: &[Row]) {
    let text = replaced(&replaced(&read(), QUICK, quick), LONG, long);
    std::fs::write(path(), text).unwrap();
}

pub fn write_quick(quick: &[Row]) {
    std::fs::write(path(), replaced(&read(), QUICK, quick)).unwrap();
}
