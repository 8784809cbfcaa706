//! A configuration file as text, and the way from byte offsets to lines and columns. The files that it names follow it in
//! the same text, so that an offset alone tells file, line and column.
//!
//! What comes in: names and texts. What goes out: positions counted from 1, columns in characters. It never
//! fails: an offset beyond the text is its end, one inside a character is that character's start.

use std::ops::Range;

/// The mark that some editors put in front of UTF-8; it takes no column.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// A place in a file, for people and editors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

/// A text with a name, and those that belong to it.
#[derive(Clone, Debug)]
pub struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
    line_starts: Vec<usize>,
    /// Where further files begin, and their names.
    parts: Vec<(usize, String)>,
}

impl Source {
    /// A text under the name that messages use.
    #[must_use]
    pub fn new(name: &str, text: String) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let line_starts = std::iter::once(0).chain(ends).collect();
        Self { name: name.to_owned(), text, line_starts, parts: Vec::new() }
    }

    /// Adds a file behind the others. Returns where its text begins.
    pub(crate) fn append(&mut self, name: &str, text: &str) -> usize {
        self.text.push('\n');
        let start = self.text.len();
        self.text.push_str(text);
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| start + at + 1);
        self.line_starts.push(start);
        self.line_starts.extend(ends);
        self.parts.push((start, name.to_owned()));
        start
    }

    /// The file in which `offset` lies: where it begins, and its name.
    fn part(&self, offset: usize) -> (usize, &str) {
        let behind = self.parts.partition_point(|(start, _)| *start <= offset);
        let part = behind.checked_sub(1).and_then(|place| self.parts.get(place));
        part.map_or((0, self.name.as_str()), |(start, name)| (*start, name))
    }

    /// The name of the file in which `offset` lies.
    pub(crate) fn name_at(&self, offset: usize) -> &str {
        self.part(offset).1
    }

    /// Whether both lie in the same file.
    pub(crate) fn is_one_file(&self, one: usize, other: usize) -> bool {
        self.part(one).0 == self.part(other).0
    }

    /// The number of the line of its file in which `offset` lies, from 1.
    fn line_number(&self, offset: usize) -> usize {
        self.line_index(offset) - self.line_index(self.part(offset).0) + 1
    }

    /// `offset` moved back to the start of a character, at most to the end of the text.
    pub(crate) fn clamp(&self, offset: usize) -> usize {
        self.text.floor_char_boundary(offset)
    }

    /// The span with both ends clamped and in order.
    pub(crate) fn clamp_span(&self, span: &Range<usize>) -> Range<usize> {
        let start = self.clamp(span.start);
        start..self.clamp(span.end).max(start)
    }

    /// The index of the line in which `offset` lies, from 0.
    fn line_index(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset).saturating_sub(1)
    }

    /// Where the line begins in which `offset` lies.
    fn line_start(&self, offset: usize) -> usize {
        self.line_starts.get(self.line_index(offset)).copied().unwrap_or(0)
    }

    /// Where an offset in bytes is.
    #[must_use]
    pub fn position(&self, offset: usize) -> Position {
        let offset = self.clamp(offset);
        let column = self.line_before(offset).trim_start_matches(BYTE_ORDER_MARK).chars().count() + 1;
        Position { line: self.line_number(offset), column }
    }

    /// The part of the line before `offset`.
    pub(crate) fn line_before(&self, offset: usize) -> &str {
        self.text.get(self.line_start(offset)..self.clamp(offset)).unwrap_or("")
    }

    /// The whole lines that hold `span`: where they begin, and the number of the first, from 1.
    pub(crate) fn lines(&self, span: &Range<usize>) -> (Range<usize>, usize) {
        let span = self.clamp_span(span);
        let start = self.line_start(span.start);
        let end = match self.line_starts.get(self.line_index(span.end) + 1) {
            Some(next) => next - 1,
            None => self.text.len(),
        };
        (start..end.max(start), self.line_number(span.start))
    }

    /// The text of a span as a terminal may see it: of the same length, without the control characters of
    /// two bytes, which some terminals obey.
    pub(crate) fn excerpt(&self, span: &Range<usize>) -> String {
        self.slice(span).replace(|c: char| c.is_control() && c.len_utf8() == 2, "\u{b7}")
    }

    /// The text of a span.
    #[must_use]
    pub fn slice(&self, span: &Range<usize>) -> &str {
        self.text.get(self.clamp_span(span)).unwrap_or("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_lines_count_from_one() {
        let source = Source::new("f", "\u{feff}aé = 1\r\n\nx".to_owned());
        let at = |needle: &str| source.position(source.text.find(needle).unwrap());
        assert_eq!(at("a"), Position { line: 1, column: 1 });
        assert_eq!(at("="), Position { line: 1, column: 4 });
        assert_eq!(at("x"), Position { line: 3, column: 1 });
        assert_eq!(source.position(usize::MAX), Position { line: 3, column: 2 });
        assert_eq!(source.position(5), at("é"), "an offset inside a character is its start");
    }

    #[test]
    fn a_file_behind_another_has_its_own_lines() {
        let mut source = Source::new("one", "a\nb".to_owned());
        let start = source.append("two", "c\nd\n");
        let last = source.append("three", "e");
        for (offset, name, line) in
            [(2, "one", 2), (start, "two", 1), (start + 2, "two", 2), (last, "three", 1)]
        {
            assert_eq!((source.name_at(offset), source.position(offset).line), (name, line));
        }
        assert!(source.is_one_file(start, start + 3) && !source.is_one_file(2, start));
        assert_eq!(source.lines(&(start + 2..start + 3)), (start + 2..start + 3, 2));
    }

    #[test]
    fn the_lines_of_a_span_are_whole_and_without_the_last_line_feed() {
        let source = Source::new("f", "one\ntwo\nthree\n".to_owned());
        assert_eq!(source.lines(&(5..6)), (4..7, 2));
        assert_eq!(source.lines(&(5..9)), (4..13, 2));
        assert_eq!(source.lines(&(14..14)), (14..14, 4));
        assert_eq!(source.lines(&(90..99)), (14..14, 4));
    }
}
