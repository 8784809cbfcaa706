//! The text language of rules: flows, outflows, sets, directors, and what the network is told for their sake.
//!
//! ```text
//! text -> words (lexer) -> flows, directors, sets, routes: the same types as the tables of the file (written)
//!                                                       -> text (print), TOML (tables)
//! ```
//! What comes in: a text and where it begins in the source. What goes out: a [`Sheet`], still in the user's words, and a
//! misfit for every word that can not stand where it does. After one, the next word that begins something is looked for,
//! so that the rest is still read.

mod directors;
mod flows;
pub(crate) mod lexer;
pub(crate) mod print;
mod services;
pub(crate) mod tables;

use std::ops::Range;

use crate::diagnostic::Code;
use crate::document::Misfit;
use crate::forms::{nearest, quote};
use crate::written::{
    At, Director, Flow, InterfaceAddressText, NetworkText, NumberOr, OneOrMany, Route, RulePortsText, Set,
};
use lexer::{Comment, Lexer, Token};

/// What a text of rules says.
#[derive(Debug, Default)]
pub(crate) struct Sheet {
    pub(crate) flows: Vec<At<Flow>>,
    pub(crate) outflows: Vec<At<Flow>>,
    pub(crate) sets: Vec<(At<String>, At<Set>)>,
    pub(crate) directors: Vec<(At<String>, At<Director>)>,
    pub(crate) routes: Vec<At<Route>>,
    /// Addresses of interfaces, each with the interface's name.
    pub(crate) addresses: Vec<(At<String>, At<InterfaceAddressText>)>,
    pub(crate) comments: Vec<Comment>,
    /// What stands in which order.
    pub(crate) order: Vec<Entry>,
}

/// What a text of rules is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Flow,
    Outflow,
    Set,
    Director,
    Service,
}

/// One thing of a text.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) item: Item,
    /// Its place in the list of its kind; services have none.
    pub(crate) number: usize,
    pub(crate) span: Range<usize>,
}

/// The words that begin something.
const ITEMS: [&str; 5] = ["flow", "outflow", "director", "set", "service"];

/// Reads `text`, which begins at `base` of the source.
pub(crate) fn read(text: &str, base: usize, report: &mut dyn FnMut(Misfit)) -> Sheet {
    let mut reader = Reader { lexer: Lexer::new(text, base, report), sheet: Sheet::default() };
    while reader.item() {}
    reader.sheet.comments = std::mem::take(&mut reader.lexer.comments);
    reader.sheet
}

/// Reads one thing after another.
struct Reader<'t, 'r> {
    lexer: Lexer<'t, 'r>,
    sheet: Sheet,
}

impl<'t> Reader<'t, '_> {
    /// Reads one thing; whether there was one.
    fn item(&mut self) -> bool {
        let Some(token) = self.lexer.next() else { return false };
        match token.raw {
            "flow" => self.flow(&token, false),
            "outflow" => self.flow(&token, true),
            "director" => self.director(&token),
            "set" => self.set(&token),
            "service" => self.service(&token),
            _ => {
                self.unexpected(&token, "nothing begins with", &ITEMS);
                self.skip_to_item();
            }
        }
        true
    }

    fn misfit(&mut self, misfit: Misfit) {
        (self.lexer.report)(misfit);
    }

    /// Reports a word that can not stand where it does.
    fn unexpected(&mut self, token: &Token<'_>, what: &str, allowed: &[&str]) {
        let misfit = Misfit::new(Code::BadWord, &token.span, format!("{what} {}", quote(token.raw)));
        let list = allowed.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        self.misfit(match nearest(token.raw, allowed.iter().copied()) {
            Some(near) => {
                let help = format!("did you mean `{near}`? Allowed here: {list}");
                misfit.repair(token.span.clone(), near.to_owned(), help)
            }
            None => misfit.help(format!("allowed here: {list}")),
        });
    }

    /// The word that `token` needs behind it on its line; a missing one is reported.
    fn value(&mut self, token: &Token<'_>, what: &str, example: &str) -> Option<Token<'t>> {
        let found = self.lexer.next_on_line();
        if found.is_none() {
            let message = format!("{} is missing behind `{}`", what, token.raw);
            let misfit = Misfit::new(Code::BadWord, &token.span, message);
            self.misfit(misfit.help(format!("write `{} {example}`", token.raw)));
        }
        found
    }

    /// Takes words until one begins a line and something.
    fn skip_to_item(&mut self) {
        while self.lexer.peek().is_some_and(|token| !(token.is_first && ITEMS.contains(&token.raw))) {
            self.lexer.next();
        }
    }

    /// Takes the rest of the line.
    fn skip_line(&mut self) {
        while self.lexer.next_on_line().is_some() {}
    }

    /// Reports what is left of a line.
    fn end_line(&mut self, what: &str) {
        if let Some(token) = self.lexer.next_on_line() {
            let misfit =
                Misfit::new(Code::BadWord, &token.span, format!("{} is too much {what}", quote(token.raw)));
            self.misfit(misfit.help("take it out, or write it on a line of its own"));
            self.skip_line();
        }
    }

    /// A set: its name, then `file PATH`, or its elements on any number of lines.
    fn set(&mut self, first: &Token<'t>) {
        let Some(name) = self.value(first, "the name of the set", "NAME 192.0.2.0/24 198.51.100.7") else {
            return self.skip_to_item();
        };
        let mut set = Set::default();
        let start = self.lexer.peek().map_or(name.span.end, |token| token.span.start);
        if self.lexer.peek().is_some_and(|token| token.raw == "file" && !token.is_first) {
            let Some(word) = self.lexer.next() else { return };
            if let Some(path) = self.value(&word, "the path", "\"office.txt\"") {
                set.file = Some(At { span: path.span.clone(), value: path.text() });
            }
            self.end_line("behind the file of a set");
        } else {
            let mut elements = Vec::new();
            while self.lexer.peek().is_some_and(|token| !(token.is_first && ITEMS.contains(&token.raw))) {
                elements.extend(self.lexer.next().into_iter().flat_map(|token| parts(&token)));
            }
            fill(&mut set, start..elements.last().map_or(start, |(span, _)| span.end), elements);
        }
        let end = self.lexer.last_end();
        let span = first.span.start..end;
        self.sheet.order.push(Entry { item: Item::Set, number: self.sheet.sets.len(), span });
        let name = At { span: name.span.clone(), value: name.text() };
        self.sheet.sets.push((name, At { span: first.span.start..end, value: set }));
    }
}

/// A word as a value of the file.
fn at<T>(token: &Token<'_>, make: impl FnOnce(String) -> T) -> At<T> {
    At { span: token.span.clone(), value: make(token.text()) }
}

/// The parts of a list: what commas separate, each with its place. A word in quotes is one.
fn parts(token: &Token<'_>) -> Vec<(Range<usize>, String)> {
    if token.raw.starts_with('"') {
        return vec![(token.span.clone(), token.text())];
    }
    let mut start = token.span.start;
    let mut all = Vec::new();
    for part in token.raw.split(',') {
        all.push((start..start + part.len(), part.to_owned()));
        start += part.len() + 1;
    }
    all
}

/// A list of one or more.
fn list<T>(token: &Token<'_>, make: impl Fn(String) -> T) -> At<OneOrMany<T>> {
    let mut all: Vec<At<T>> =
        parts(token).into_iter().map(|(span, text)| At { span, value: make(text) }).collect();
    let value = match all.pop() {
        Some(one) if all.is_empty() => OneOrMany::One(one.value),
        last => OneOrMany::Many(all.into_iter().chain(last).collect()),
    };
    At { span: token.span.clone(), value }
}

/// Puts elements into a set: ports when the first of them is one or a range of them, else addresses.
pub(crate) fn fill(set: &mut Set, span: Range<usize>, elements: Vec<(Range<usize>, String)>) {
    let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b':' || byte == b'-');
    let is_ports = elements.first().is_some_and(|(_, text)| is_port(text) && text != "::");
    if is_ports {
        let make = |(span, text)| At { span, value: NumberOr::Text(RulePortsText(text)) };
        set.ports = Some(At { span, value: OneOrMany::Many(elements.into_iter().map(make).collect()) });
    } else {
        let make = |(span, text)| At { span, value: NetworkText(text) };
        set.addresses = Some(At { span, value: OneOrMany::Many(elements.into_iter().map(make).collect()) });
    }
}

/// The elements of a set in a file of its own: one or more words a line.
pub(crate) fn elements(
    text: &str,
    base: usize,
    report: &mut dyn FnMut(Misfit),
) -> Vec<(Range<usize>, String)> {
    let mut lexer = Lexer::new(text, base, report);
    std::iter::from_fn(|| lexer.next()).flat_map(|token| parts(&token)).collect()
}
