//! The book is true: generated pages are up to date, configurations in it are accepted, commands exist.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod tidy {
    pub(crate) mod files;
    pub(crate) mod snippets;
}

use std::fmt::Write;
use std::path::Path;

use evenkeel_engine::DropReason;
use evenkeel_sim::Scenario;
use tidy::{files, snippets};

const DROP_REASONS: &str = "src/reference/drop-reasons.md";

/// The page of drop reasons, from the enum that counts them.
fn drop_reasons() -> String {
    let mut page = String::from(
        "# Drop reasons\n\n\
         <!-- Generated from core/engine/src/verdict.rs. To write it again:\n\
         EVENKEEL_WRITE_DOCS=1 cargo test -p evenkeel-docs --test book -->\n\n\
         Every packet that is dropped is counted under one of these. `evenkeel ctl drops` shows them all, and\n\
         `evenkeel ctl stats` those that have a count.\n\n\
         | reason | meaning |\n|---|---|\n",
    );
    for reason in DropReason::ALL {
        writeln!(page, "| `{}` | {} |", reason.name(), reason.help()).expect("a string takes all text");
    }
    page
}

#[test]
fn the_page_of_drop_reasons_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(DROP_REASONS);
    let page = drop_reasons();
    if std::env::var_os("EVENKEEL_WRITE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap_or_default() == page,
        "run EVENKEEL_WRITE_DOCS=1 cargo test -p evenkeel-docs --test book, and look at the difference"
    );
}

fn pages() -> Vec<(String, String)> {
    let mut pages = files::with_extensions(&["md"]);
    pages.retain(|(path, _)| path.starts_with("docs/src/") || path == "README.md");
    pages
}

/// What is a whole `evenkeel.toml` declares an interface.
fn is_configuration(snippet: &str) -> bool {
    snippet.lines().any(|line| line.starts_with("[interface."))
}

#[test]
fn every_configuration_in_the_book_is_accepted_without_a_warning() {
    let mut tried = 0;
    let mut wrong = Vec::new();
    for (path, text) in pages() {
        for (line, snippet) in snippets::fenced(&text, "toml") {
            if !is_configuration(&snippet) {
                continue;
            }
            tried += 1;
            let found = match evenkeel_config::parse(&snippet, &path) {
                Ok(loaded) => loaded.warnings,
                Err(found) => found,
            };
            if !found.is_empty() {
                wrong.push(format!("{path}:{line}:\n{found}"));
            }
        }
    }
    assert!(tried >= 4, "only {tried} configurations were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_scenario_in_the_book_is_accepted() {
    let mut tried = 0;
    for (path, text) in pages() {
        for (line, snippet) in snippets::fenced(&text, "toml") {
            if snippet.lines().any(|line| line.starts_with("[scenario]")) {
                tried += 1;
                let parsed = Scenario::parse(&snippet, Path::new(&path));
                assert!(parsed.is_ok(), "{path}:{line}: {}", parsed.unwrap_err());
            }
        }
    }
    assert!(tried >= 1, "no scenario was found");
}

#[test]
fn every_command_of_the_program_is_in_the_book_and_the_other_way_round() {
    let program = snippets::commands_of_program(&files::read("core/cli/src/main.rs"));
    let mut book = snippets::commands_of_page(&files::read("docs/src/reference/commands.md"));
    book.sort();
    assert!(program.len() >= 5, "{program:?}");
    assert_eq!(book, program);
}
