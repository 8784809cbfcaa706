//! The page with the table, between markers.

use std::path::PathBuf;

use crate::row::{HEAD, Row};

const MARKS: [&str; 2] = ["<!-- measured -->\n", "<!-- /measured -->"];

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/src/truth.md")
}

pub fn write(rows: &[Row]) {
    let text = std::fs::read_to_string(path()).expect("the page is there");
    let (before, rest) = text.split_once(MARKS[0]).expect("the page has its markers");
    let (_, after) = rest.split_once(MARKS[1]).expect("the page has its markers");
    let lines: Vec<String> = rows.iter().map(Row::line).collect();
    let text = format!("{before}{}\n{HEAD}{}\n\n{}{after}", MARKS[0], lines.join("\n"), MARKS[1]);
    std::fs::write(path(), text).unwrap();
}
