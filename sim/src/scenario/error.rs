//! Errors of scenario files: the place, what is wrong there, and what to do.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use evenkeel_config::document::Source;
use serde::Serialize;

/// The most errors of a file that are kept: more than anyone reads at once. The rest is counted.
const ERRORS_MAX: usize = 100;

/// One thing that is wrong in a scenario file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{}:{line}:{column}: {message}{}", file.display(), Help(help.as_deref()))]
pub struct ScenarioError {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The line in which it ends, from 1.
    pub end_line: usize,
    /// The column behind its end, in characters, from 1.
    pub end_column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do, if that is known.
    pub help: Option<String>,
}

struct Help<'a>(Option<&'a str>);

impl fmt::Display for Help<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |help| write!(f, "; {help}"))
    }
}

/// Everything that is wrong in a scenario file, in the order of the file: the first hundred that were found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ScenarioErrors(pub Vec<ScenarioError>);

impl ScenarioErrors {
    /// One error that is about the file and no place in it.
    #[must_use]
    pub fn whole_file(path: &Path, message: String) -> Self {
        let (line, column, end_line, end_column) = (1, 1, 1, 1);
        let file = path.to_owned();
        Self(vec![ScenarioError { file, line, column, end_line, end_column, message, help: None }])
    }
}

impl fmt::Display for ScenarioErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ScenarioErrors {}

/// Collects errors while a file is checked.
#[derive(Debug)]
pub(super) struct Collector<'a> {
    source: &'a Source,
    path: &'a Path,
    found: Vec<(Range<usize>, String, Option<String>)>,
    omitted: usize,
    /// Where something was left out because it had not the shape that it should have.
    left_out: Vec<usize>,
}

impl<'a> Collector<'a> {
    pub(super) const fn new(source: &'a Source, path: &'a Path) -> Self {
        Self { source, path, found: Vec::new(), omitted: 0, left_out: Vec::new() }
    }

    pub(super) fn add(&mut self, span: Range<usize>, message: impl Into<String>) {
        self.add_with_help(span, message, None);
    }

    pub(super) fn add_with_help(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        if self.found.len() < ERRORS_MAX {
            self.found.push((span, message.into(), help));
        } else {
            self.omitted += 1;
        }
    }

    /// What is wrong with the shape of the file, and so is not there for later checks.
    pub(super) fn add_misfit(&mut self, span: Range<usize>, message: String, help: Option<String>) {
        self.left_out.push(span.start);
        self.add_with_help(span, message, help);
    }

    /// That something is missing; not noted where something was left out of the same table.
    pub(super) fn add_missing(&mut self, span: Range<usize>, message: impl Into<String>) {
        let table = self.table_around(span.start);
        if !self.left_out.iter().any(|place| table.contains(place)) {
            self.add(span, message);
        }
    }

    /// From the header of the table in which a place is to the next header.
    fn table_around(&self, place: usize) -> Range<usize> {
        let text = self.source.slice(&(0..usize::MAX));
        let before = text.get(..place).unwrap_or(text);
        let start = before.rfind("\n[").map_or(0, |at| at + 1);
        let behind = text.get(place..).unwrap_or_default();
        // A place in the header itself is not at its end.
        start..behind.find("\n[").map_or(text.len(), |at| place + at)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub(super) fn finish(mut self) -> ScenarioErrors {
        let order = |(span, message, help): &(Range<usize>, String, Option<String>)| {
            (span.start, span.end, message.clone(), help.clone())
        };
        self.found.sort_by_cached_key(order);
        self.found.dedup();
        if self.omitted > 0
            && let Some((_, message, _)) = self.found.last_mut()
        {
            message.push_str(&format!(" (and {} further errors)", self.omitted));
        }
        let errors = self.found.into_iter().map(|(span, message, help)| {
            let start = self.source.position(span.start);
            let end = self.source.position(span.end.max(span.start));
            ScenarioError {
                file: self.path.to_owned(),
                line: start.line,
                column: start.column,
                end_line: end.line,
                end_column: end.column,
                message,
                help,
            }
        });
        ScenarioErrors(errors.collect())
    }
}
