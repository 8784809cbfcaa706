//! The rules of the house that no compiler checks. Each checker is a pure function over text, tried on bad
//! input beside its code; the tests here run them over the whole repository.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod tidy {
    pub(crate) mod arrows;
    pub(crate) mod code;
    pub(crate) mod files;
    pub(crate) mod functions;
    pub(crate) mod links;
    pub(crate) mod words;
}

use std::collections::BTreeMap;
use std::path::Path;

use evenkeel_engine::DropReason;
use tidy::{arrows, code, files, functions, links, words};

/// The longest source file, in lines. Beyond it a file does more than one thing.
const FILE_LINES_MAX: usize = 900;

/// Fails with every finding on a line of its own.
fn assert_none(findings: &[String]) {
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

/// Whether there is a file or folder, relative to the repository.
fn exists(path: &str) -> bool {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path).exists()
}

fn rust_files() -> Vec<(String, String)> {
    let files = files::with_extensions(&["rs"]);
    assert!(files.len() > 50, "the walk over the repository is broken");
    files
}

fn markdown_files() -> Vec<(String, String)> {
    let files = files::with_extensions(&["md"]);
    assert!(files.len() > 10, "the walk over the repository is broken");
    files
}

#[test]
fn crates_know_only_whom_the_map_allows() {
    let metadata = arrows::metadata();
    let found = arrows::arrows(&metadata);
    assert!(found.len() > 20, "{found:?}");
    assert_none(&arrows::check(&found));
}

#[test]
fn the_engine_is_built_without_std() {
    let text = files::read("core/engine/src/lib.rs");
    assert!(code::without_comments(&text).contains("#![no_std]"));
}

#[test]
fn unsafe_code_lives_only_in_io() {
    let mut findings = Vec::new();
    for (path, text) in rust_files() {
        findings.extend(code::unsafe_outside_of_io(&path, &text));
    }
    for root in arrows::crate_roots(&arrows::metadata()) {
        findings.extend(code::missing_forbid(&root, &files::read(&root)));
    }
    assert_none(&findings);
}

#[test]
fn every_source_file_says_what_it_does() {
    let findings: Vec<_> =
        rust_files().iter().filter_map(|(path, text)| code::missing_module_docs(path, text)).collect();
    assert_none(&findings);
}

#[test]
fn no_source_file_is_too_long() {
    let mut findings = Vec::new();
    for (path, text) in rust_files() {
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            findings.push(format!("{path} has {lines} lines; {FILE_LINES_MAX} is the most"));
        }
    }
    assert_none(&findings);
}

#[test]
fn nothing_is_left_for_later_and_nothing_names_a_workplace() {
    let kinds = ["rs", "toml", "md", "wit", "sh", "yml", "yaml", "txt", "json", "nft", "service"];
    let mut findings = Vec::new();
    for (path, text) in files::with_extensions(&kinds) {
        findings.extend(words::check(&path, &text));
    }
    for path in ["Makefile", ".ci/run"] {
        if let Some(text) = files::try_read(path) {
            findings.extend(words::check(path, &text));
        }
    }
    assert_none(&findings);
}

#[test]
fn every_drop_reason_has_a_test() {
    let mut tests = String::new();
    for (path, text) in rust_files() {
        if path.starts_with("core/engine/") {
            tests.push_str(code::test_part(&path, &text));
        }
    }
    let variants = DropReason::ALL.iter().map(|reason| format!("{reason:?}"));
    assert_none(&code::untested_variants("DropReason", variants, &tests));
}

#[test]
fn no_file_of_tests_is_left_out() {
    let sources = rust_files();
    let mut findings = Vec::new();
    let mut packages = 0;
    for (all, modules) in &sources {
        let Some(package) = all.strip_suffix("/tests/all.rs") else { continue };
        let manifest = files::read(&format!("{package}/Cargo.toml"));
        packages += 1;
        for (path, _) in &sources {
            let file = path.strip_prefix(package).and_then(|path| path.strip_prefix("/tests/"));
            let name = file.and_then(|file| file.strip_suffix(".rs"));
            let Some(name) = name.filter(|name| !name.contains('/') && *name != "all") else { continue };
            let is_named = modules.lines().any(|line| line == format!("mod {name};"))
                || manifest.contains(&format!("path = \"tests/{name}.rs\""));
            if !is_named {
                findings.push(format!("{path} is never compiled: name it in {all}"));
            }
        }
    }
    assert!(packages > 3, "the packages with one binary of tests are not found");
    assert_none(&findings);
}

#[test]
fn no_function_grows_beyond_the_ratchet() {
    let mut found = BTreeMap::new();
    for (path, text) in rust_files() {
        for (name, lines) in functions::long(&text) {
            let place = found.entry(format!("{path}::{name}")).or_insert(lines);
            *place = lines.max(*place);
        }
    }
    let allowed = functions::parse_ratchet(&files::read("docs/tests/ratchet.txt")).unwrap();
    assert_none(&functions::compare(&allowed, &found));
}

#[test]
fn links_lead_somewhere() {
    let pages = markdown_files();
    let anchors: BTreeMap<&str, Vec<String>> =
        pages.iter().map(|(path, text)| (path.as_str(), links::anchors(text))).collect();
    let mut findings = Vec::new();
    for (path, text) in &pages {
        findings.extend(links::dead(path, text, &anchors, exists));
    }
    assert_none(&findings);
}

#[test]
fn the_summary_lists_every_page_once() {
    let pages = markdown_files();
    let pages = pages.iter().filter_map(|(path, _)| path.strip_prefix("docs/src/"));
    let pages: Vec<_> = pages.filter(|path| *path != "SUMMARY.md").collect();
    assert_none(&links::summary(&files::read("docs/src/SUMMARY.md"), &pages));
}

#[test]
fn every_decision_has_a_number_and_is_listed() {
    let pages = markdown_files();
    let decisions = pages.iter().filter_map(|(path, _)| path.strip_prefix("docs/decisions/"));
    let decisions: Vec<_> = decisions.filter(|path| *path != "README.md").collect();
    let mut findings = links::summary(&files::read("docs/decisions/README.md"), &decisions);
    for (number, path) in decisions.iter().enumerate() {
        if !path.starts_with(&format!("{:04}-", number + 1)) {
            findings.push(format!("docs/decisions/{path} is not number {:04}", number + 1));
        }
    }
    assert_none(&findings);
}
