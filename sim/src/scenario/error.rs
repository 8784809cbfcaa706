//! Errors of scenario files: the place, what is wrong there, and what to do.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// The most errors that are told at once; the rest follows from them more often than not.
const ERRORS_MAX: usize = 20;

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

/// Everything that is wrong in a scenario file (the first 20), in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ScenarioErrors(pub Vec<ScenarioError>);

impl ScenarioErrors {
    /// One error that is about the file and no place in it.
    #[must_use]
    pub fn whole_file(path: &Path, message: String) -> Self {
        Self(vec![ScenarioError { file: path.to_owned(), line: 1, column: 1, message, help: None }])
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
    text: &'a str,
    path: &'a Path,
    found: Vec<(usize, String, Option<String>)>,
}

impl<'a> Collector<'a> {
    pub(super) const fn new(text: &'a str, path: &'a Path) -> Self {
        Self { text, path, found: Vec::new() }
    }

    pub(super) fn add(&mut self, span: Range<usize>, message: impl Into<String>) {
        self.found.push((span.start, message.into(), None));
    }

    pub(super) fn add_with_help(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        self.found.push((span.start, message.into(), help));
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub(super) fn finish(mut self) -> ScenarioErrors {
        self.found.sort_by_key(|(start, ..)| *start);
        self.found.truncate(ERRORS_MAX);
        let errors = self.found.into_iter().map(|(start, message, help)| {
            let (line, column) = place(self.text, start);
            ScenarioError { file: self.path.to_owned(), line, column, message, help }
        });
        ScenarioErrors(errors.collect())
    }
}

/// Line and column, both from 1, of a byte offset; the end of the text for an offset beyond it.
fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
    (line, column)
}

/// The candidate that is most like `word`, if one is like it at all.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let scored = candidates.into_iter().map(|name| (strsim::osa_distance(word, name), name));
    let (distance, name) = scored.min()?;
    let tolerated = word.chars().count().max(name.chars().count()).div_ceil(3);
    (distance <= tolerated).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_from_one_and_in_characters() {
        assert_eq!(place("ab\ncd", 0), (1, 1));
        assert_eq!(place("ab\ncd", 3), (2, 1));
        assert_eq!(place("é = x", 5), (1, 5));
        assert_eq!(place("ab", 99), (1, 3));
    }

    #[test]
    fn only_a_similar_name_is_suggested() {
        assert_eq!(nearest("cuont", ["count", "attach"]), Some("count"));
        assert_eq!(nearest("zzzzzz", ["count", "attach"]), None);
        assert_eq!(nearest("x", []), None);
    }
}
