//! The contract's own rules: every item says since when it is there, and says what it is.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::path::Path;

/// Lines of all files of the package, with the file's name.
fn files() -> Vec<(String, Vec<String>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let lines = |path: &Path| fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect();
    files.iter().map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), lines(path))).collect()
}

fn is_item(line: &str) -> bool {
    let line = line.trim();
    let starts = ["interface ", "record ", "variant ", "enum ", "world ", "import ", "export ", "include "];
    starts.iter().any(|start| line.starts_with(start)) || line.contains(": func(")
}

#[test]
fn every_item_says_since_when_it_is_there() {
    let mut items = 0;
    for (file, lines) in files() {
        for (number, line) in lines.iter().enumerate().filter(|(_, line)| is_item(line)) {
            items += 1;
            assert_eq!(lines[number - 1].trim(), "@since(version = 0.1.0)", "{file}:{}: {line}", number + 1);
        }
    }
    assert!(items > 30, "only {items} items were found");
}

#[test]
fn every_item_and_field_is_documented() {
    let is_field = |line: &str| {
        let line = line.trim();
        line.ends_with(',') && !line.starts_with("///")
    };
    let is_glue =
        |line: &str| ["import ", "export ", "include "].iter().any(|start| line.trim().starts_with(start));
    for (file, lines) in files() {
        for (number, line) in lines.iter().enumerate().filter(|(_, line)| is_item(line) || is_field(line)) {
            let above = lines[..number].iter().rev().find(|line| !line.trim().starts_with('@')).unwrap();
            let is_told = above.trim().starts_with("///") || is_glue(line);
            assert!(is_told, "{file}:{}: {line}", number + 1);
        }
    }
}
