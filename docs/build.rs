//! Takes the Rust out of the book, so that the tests compile and run it.
//!
//! In: the pages under `src/`. Out: one file with a module for each block that is marked `rust` and nothing else.
//! A block is a file of its own in the book: its attributes and docs for the whole crate are left out.

#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?).join("book.rs");
    let book = Path::new("src");
    // Printing is how a build script talks to cargo.
    #[allow(clippy::print_stdout, reason = "cargo reads it")]
    {
        println!("cargo::rerun-if-changed={}", book.display());
    }
    let mut pages = Vec::new();
    find_pages(book, &mut pages)?;
    pages.sort();
    let mut modules = String::new();
    for page in pages {
        let name = page.strip_prefix(book)?.with_extension("").display().to_string();
        let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        for (number, block) in blocks(&fs::read_to_string(&page)?).iter().enumerate() {
            writeln!(modules, "mod {name}_{number} {{\n{block}}}")?;
        }
    }
    fs::write(out, modules)?;
    Ok(())
}

fn find_pages(folder: &Path, pages: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            find_pages(&path, pages)?;
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
    Ok(())
}

/// The blocks of a page that are marked `rust`, without what holds for a whole crate.
fn blocks(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Option<Option<String>> = None;
    for line in page.lines() {
        if let Some(mark) = line.trim_start().strip_prefix("```") {
            open = match open.take() {
                None => Some((mark.trim() == "rust").then(String::new)),
                Some(block) => {
                    found.extend(block);
                    None
                }
            };
        } else if let Some(Some(block)) = &mut open
            && !line.starts_with("#![")
            && !line.starts_with("//!")
        {
            block.push_str(line);
            block.push('\n');
        }
    }
    found
}
