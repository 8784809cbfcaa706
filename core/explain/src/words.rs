//! Words of a line with their places, and mistakes that point to one.

use std::fmt;

/// The longest line that is read, in bytes: a filter over some dozens of addresses.
pub const ASKED_BYTES_MAX: usize = 2048;

/// What is wrong with a line, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The line.
    line: String,
    /// The first byte that it is about, and the first behind it.
    place: (usize, usize),
    /// What is wrong.
    reason: String,
    /// What is allowed there.
    help: String,
}

impl Mistake {
    pub(crate) fn new(line: &str, word: &Word<'_>, reason: String, help: &str) -> Self {
        let place = (word.start, word.start + word.text.len());
        Self { line: line.to_owned(), place, reason, help: help.to_owned() }
    }

    /// The column of the first character that it is about, from 1.
    #[must_use]
    pub fn column(&self) -> usize {
        self.line.get(..self.place.0).map_or(0, |before| before.chars().count()) + 1
    }

    /// What is wrong, in one line.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// How many characters of the line are shown before the place and behind it, so that the whole fits a terminal.
const AROUND: usize = 36;

impl fmt::Display for Mistake {
    fn fmt(&self, form: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (start, end) = self.place;
        let before: Vec<char> = self.line.get(..start).unwrap_or_default().chars().collect();
        let marked = self.line.get(start..end).unwrap_or_default();
        let after: String = self.line.get(end..).unwrap_or_default().chars().take(AROUND).collect();
        let shown: String =
            before.get(before.len().saturating_sub(AROUND)..).unwrap_or_default().iter().collect();
        let width = marked.chars().count().clamp(1, AROUND);
        let marked: String = marked.chars().take(AROUND).collect();
        writeln!(form, "column {}: {}", self.column(), self.reason)?;
        writeln!(form, "  {}", format!("{shown}{marked}{after}").trim_end())?;
        write!(form, "  {}{}", " ".repeat(shown.chars().count()), "^".repeat(width))?;
        if self.help.is_empty() { Ok(()) } else { write!(form, "\n{}", self.help) }
    }
}

/// A word and where it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word<'a> {
    pub(crate) text: &'a str,
    pub(crate) start: usize,
}

/// The words of a line, one by one. The characters in `single` are words of their own.
#[derive(Clone, Debug)]
pub(crate) struct Words<'a> {
    line: &'a str,
    words: Vec<Word<'a>>,
    next: usize,
}

impl<'a> Words<'a> {
    /// # Errors
    /// When the line is too long.
    pub(crate) fn of(line: &'a str, single: &[char]) -> Result<Self, Mistake> {
        if line.len() > ASKED_BYTES_MAX {
            let word = Word { text: "", start: 0 };
            let reason = format!("the line has {} bytes; {ASKED_BYTES_MAX} is the most", line.len());
            return Err(Mistake::new("", &word, reason, ""));
        }
        let mut words = Vec::new();
        let mut begun = None;
        for (place, letter) in line.char_indices().chain([(line.len(), ' ')]) {
            let is_single = single.contains(&letter);
            if letter.is_whitespace() || is_single {
                if let Some(start) = begun.take() {
                    words.push(Word { text: line.get(start..place).unwrap_or_default(), start });
                }
                if is_single {
                    let end = place + letter.len_utf8();
                    words.push(Word { text: line.get(place..end).unwrap_or_default(), start: place });
                }
            } else if begun.is_none() {
                begun = Some(place);
            }
        }
        Ok(Self { line, words, next: 0 })
    }

    pub(crate) fn peek(&self) -> Option<Word<'a>> {
        self.words.get(self.next).copied()
    }

    pub(crate) fn next(&mut self) -> Option<Word<'a>> {
        let word = self.peek()?;
        self.next += 1;
        Some(word)
    }

    /// The next word if it is `wanted`.
    pub(crate) fn accept(&mut self, wanted: &str) -> bool {
        let is_it = self.peek().is_some_and(|word| word.text == wanted);
        self.next += usize::from(is_it);
        is_it
    }

    /// The next word.
    ///
    /// # Errors
    /// With what is `missing` when there is none.
    pub(crate) fn expect(&mut self, missing: &str, help: &str) -> Result<Word<'a>, Mistake> {
        let end = Word { text: "", start: self.line.len() };
        self.next().ok_or_else(|| Mistake::new(self.line, &end, format!("{missing} is missing"), help))
    }

    pub(crate) fn mistake(&self, word: &Word<'_>, reason: String, help: &str) -> Mistake {
        Mistake::new(self.line, word, reason, help)
    }
}

/// The names that there are, as a list for people; of many the first few.
pub(crate) fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const SHOWN: usize = 8;
    let names: Vec<&str> = names.collect();
    let shown = names.get(..names.len().min(SHOWN)).unwrap_or_default().join(", ");
    match names.len() {
        0 => "none".to_owned(),
        count if count > SHOWN => format!("{shown} and {} more", count - SHOWN),
        _ => shown,
    }
}
