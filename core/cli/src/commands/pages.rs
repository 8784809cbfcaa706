//! What `evenkeel sim` leaves behind: records, pages and tables in a folder; comparisons of records; drawings.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use evenkeel_sim::record::paper::{FILE_MAX_BYTES, ReadError};
use evenkeel_sim::record::{Comparison, RunRecord, csv, html, text};

use super::parts;
use crate::progress::Progress;
use crate::{Failure, output};

/// The name of a record in its folder.
const RECORD: &str = "result.json";
/// The name of the page in its folder.
const PAGE: &str = "report.html";
/// Writes everything that a run tells into `folder`.
pub(super) fn write_run(folder: &Path, record: &RunRecord) -> Result<(), Failure> {
    let mut files = vec![(RECORD, record.to_json()), (PAGE, html::run_page(record))];
    files.extend(csv::run_files(record));
    write(folder, &files)
}

/// Compares records, and writes everything about that into `folder` where one is given.
pub(super) fn compare(
    paths: &[PathBuf],
    title: Option<&str>,
    folder: Option<&Path>,
    is_json: bool,
) -> Result<(), Failure> {
    let progress = Progress::start("reading records");
    let mut comparison = Comparison::new("", env!("CARGO_PKG_VERSION"));
    for (path, number) in paths.iter().zip(1..) {
        comparison.add(&read(path)?);
        progress.done(number, u64::try_from(paths.len()).unwrap_or(u64::MAX));
    }
    drop(progress);
    let scenario = comparison.rows.first().map_or("", |row| &row.scenario);
    comparison.title = title.unwrap_or(scenario).to_owned();
    comparison.command = command("report", paths.iter().map(PathBuf::as_path), title);
    tell_comparison(&comparison, folder, is_json)
}

/// Prints a comparison, and writes everything about it into `folder` where one is given.
pub(super) fn tell_comparison(
    comparison: &Comparison,
    folder: Option<&Path>,
    is_json: bool,
) -> Result<(), Failure> {
    let data =
        || serde_json::to_value(comparison).map(|value| format!("{value:#}\n")).map_err(Failure::runtime);
    if let Some(folder) = folder {
        let mut files = vec![("comparison.json", data()?), (PAGE, html::comparison_page(comparison))];
        files.extend(csv::comparison_files(comparison));
        write(folder, &files)?;
    }
    if is_json { output::answer(&data()?) } else { output::answer(&text::comparison_text(comparison)) }
}

/// The command that does the same again.
pub(super) fn command<'a>(verb: &str, paths: impl Iterator<Item = &'a Path>, title: Option<&str>) -> String {
    let mut words = vec!["evenkeel".to_owned(), "sim".to_owned(), verb.to_owned()];
    words.extend(paths.map(|path| quoted(&path.to_string_lossy())));
    if let Some(title) = title {
        words.extend(["--title".to_owned(), quoted(title)]);
    }
    words.join(" ")
}

/// A word as a shell takes it.
pub(super) fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+=:,@%".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Reads a record: a file, or `result.json` in a folder.
pub(super) fn read(path: &Path) -> Result<RunRecord, Failure> {
    let path = if path.is_dir() { path.join(RECORD) } else { path.to_owned() };
    let wrong = |reason: &dyn std::fmt::Display| Failure::Usage(format!("{}: {reason}", path.display()));
    let file = File::open(&path).map_err(|error| wrong(&error))?;
    let mut text = String::new();
    let bytes = file.take(FILE_MAX_BYTES + 1).read_to_string(&mut text).map_err(|error| wrong(&error))?;
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    if bytes > FILE_MAX_BYTES {
        return Err(wrong(&ReadError::TooLong { bytes }));
    }
    RunRecord::read(&text).map_err(|error| wrong(&error))
}

/// Writes files into a folder, which is made where it is not there.
fn write(folder: &Path, files: &[(&str, String)]) -> Result<(), Failure> {
    let wrong = |path: &Path, error: std::io::Error| Failure::Runtime(format!("{}: {error}", path.display()));
    std::fs::create_dir_all(folder).map_err(|error| wrong(folder, error))?;
    for (name, content) in files {
        let path = folder.join(name);
        parts::write(&path, content.as_bytes()).map_err(|error| wrong(&path, error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_can_be_pasted_into_a_shell() {
        let paths = [Path::new("a/b.toml"), Path::new("it's here.toml"), Path::new("")];
        let command = command("run", paths.into_iter(), Some("$HOME"));
        assert_eq!(command, r"evenkeel sim run a/b.toml 'it'\''s here.toml' '' --title '$HOME'");
    }
}
