//! Words of a text of rules, one by one, each with its place.
//!
//! A word ends at white space. One that begins with a double quote ends at the next, `\"` and `\\` within it being a
//! quote and a backslash. `#` at the beginning of a word makes the rest of the line a comment.

use std::ops::Range;

use crate::diagnostic::Code;
use crate::document::Misfit;

/// One word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token<'t> {
    /// Where it stands, quotes included.
    pub(crate) span: Range<usize>,
    /// As it is written.
    pub(crate) raw: &'t str,
    /// Whether it is the first of its line.
    pub(crate) is_first: bool,
}

impl Token<'_> {
    /// What stands between the quotes of a quoted word; the word itself without quotes.
    pub(crate) fn text(&self) -> String {
        let Some(inside) = self.raw.strip_prefix('"') else { return self.raw.to_owned() };
        let inside = inside.strip_suffix('"').unwrap_or(inside);
        let mut text = String::new();
        let mut characters = inside.chars();
        while let Some(character) = characters.next() {
            text.extend(if character == '\\' { characters.next() } else { Some(character) });
        }
        text
    }
}

/// A comment, and the offset of what it stands before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Comment {
    /// Whatever begins here or later comes behind the comment.
    pub(crate) place: usize,
    /// The comment with its `#`, without the end of the line.
    pub(crate) text: String,
}

/// The words of a text.
pub(crate) struct Lexer<'t, 'r> {
    text: &'t str,
    /// Where the text begins in the whole source.
    base: usize,
    at: usize,
    /// Where the first word of the line begins, once there is one.
    line: Option<usize>,
    peeked: Option<Token<'t>>,
    /// Where the last word ends that has been taken.
    taken: usize,
    pub(crate) comments: Vec<Comment>,
    pub(crate) report: &'r mut dyn FnMut(Misfit),
}

impl<'t, 'r> Lexer<'t, 'r> {
    pub(crate) fn new(text: &'t str, base: usize, report: &'r mut dyn FnMut(Misfit)) -> Self {
        Self { text, base, at: 0, line: None, peeked: None, taken: base, comments: Vec::new(), report }
    }

    /// The next word, which stays the next one.
    pub(crate) fn peek(&mut self) -> Option<&Token<'t>> {
        if self.peeked.is_none() {
            self.peeked = self.scan();
        }
        self.peeked.as_ref()
    }

    /// Takes the next word.
    pub(crate) fn next(&mut self) -> Option<Token<'t>> {
        let token = self.peeked.take().or_else(|| self.scan())?;
        self.taken = token.span.end;
        Some(token)
    }

    /// Takes the next word if it stands on the line that has begun.
    pub(crate) fn next_on_line(&mut self) -> Option<Token<'t>> {
        if self.peek().is_some_and(|token| !token.is_first) { self.next() } else { None }
    }

    /// Where the last word ends that has been taken.
    pub(crate) const fn last_end(&self) -> usize {
        self.taken
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn scan(&mut self) -> Option<Token<'t>> {
        loop {
            let first = self.rest().chars().next()?;
            if first == '\n' {
                self.line = None;
                self.at += 1;
            } else if first.is_whitespace() || first == '\u{feff}' {
                self.at += first.len_utf8();
            } else if first == '#' {
                let length = self.rest().find('\n').unwrap_or_else(|| self.rest().len());
                let text = self.rest().get(..length).unwrap_or("").trim_end().to_owned();
                // One behind words belongs to their line.
                let place = self.base + self.line.unwrap_or(self.at);
                self.comments.push(Comment { place, text });
                self.at += length;
            } else {
                return Some(self.word(first));
            }
        }
    }

    fn word(&mut self, first: char) -> Token<'t> {
        let start = self.at;
        let rest = self.rest();
        let length = if first == '"' {
            self.quoted(rest)
        } else {
            rest.find(char::is_whitespace).unwrap_or(rest.len())
        };
        self.at += length;
        let is_first = self.line.is_none();
        self.line.get_or_insert(start);
        let span = self.base + start..self.base + self.at;
        Token { span, raw: rest.get(..length).unwrap_or(""), is_first }
    }

    /// The length of a quoted word, both quotes included. It ends with its line at the latest.
    fn quoted(&mut self, rest: &str) -> usize {
        let mut is_escaped = false;
        for (place, character) in rest.char_indices().skip(1) {
            match character {
                '\n' => {
                    self.open_quote(place);
                    return place;
                }
                '"' if !is_escaped => return place + 1,
                _ => is_escaped = character == '\\' && !is_escaped,
            }
        }
        self.open_quote(rest.len());
        rest.len()
    }

    fn open_quote(&mut self, length: usize) {
        let start = self.base + self.at;
        let misfit = Misfit::new(Code::BadWord, &(start..start + length), "a quote is not closed".to_owned());
        (self.report)(misfit.help("end the words with a double quote on the same line"));
    }
}
