//! A sheet as text, in the one form that `evenkeel fmt` gives.
//!
//! Flows, outflows and sets are printed from what they say; directors and services as they are written, one line for
//! each of theirs. Comments stay in front of what they stood before.

use std::fmt::Write;

use super::lexer::Comment;
use super::{Entry, Item, Sheet};
use crate::written::{At, Conditions, Flow, Negated, NumberOr, OneOrMany, Rule, Set};

/// One condition: whether `not` stands before it, its word, and its values.
pub(crate) type Words = (bool, &'static str, Vec<String>);

/// The columns that elements of a set fill.
const COLUMNS: usize = 96;

/// Prints `sheet`, which was read from `text`, where that begins at `base`.
pub(crate) fn text(sheet: &Sheet, text: &str, base: usize) -> String {
    let mut printer = Printer { out: String::new(), comments: &sheet.comments };
    for Entry { item, number, span } in &sheet.order {
        if !printer.out.is_empty() {
            printer.out.push('\n');
        }
        if matches!(item, Item::Director | Item::Service) {
            // What stands behind the words of its first line is printed with them.
            printer.comments_above(span.start);
        } else {
            printer.comments_before(span.start, "");
        }
        match item {
            Item::Flow => {
                if let Some(flow) = sheet.flows.get(*number) {
                    printer.flow("flow", flow);
                }
            }
            Item::Outflow => {
                if let Some(flow) = sheet.outflows.get(*number) {
                    printer.flow("outflow", flow);
                }
            }
            Item::Set => {
                printer.comments_before(span.end, "");
                if let Some((name, set)) = sheet.sets.get(*number) {
                    printer.set(&name.value, &set.value);
                }
            }
            Item::Director | Item::Service => {
                let (start, end) = (span.start.saturating_sub(base), span.end.saturating_sub(base));
                let end = end + trailing_comment(text.get(end..).unwrap_or(""));
                printer.verbatim(text.get(start..end).unwrap_or(""));
                printer.skip_comments(span.end);
            }
        }
    }
    if !printer.comments.is_empty() && !printer.out.is_empty() {
        printer.out.push('\n');
    }
    printer.comments_before(usize::MAX, "");
    printer.out
}

/// Bytes of a comment that ends the line, with what stands before it.
fn trailing_comment(rest: &str) -> usize {
    let line = rest.lines().next().unwrap_or("").trim_end();
    if line.trim_start().starts_with('#') { line.len() } else { 0 }
}

struct Printer<'s> {
    out: String,
    /// Those that have not been printed.
    comments: &'s [Comment],
}

impl Printer<'_> {
    fn comments_before(&mut self, place: usize, indent: &str) {
        while let Some((first, rest)) = self.comments.split_first().filter(|(first, _)| first.place <= place)
        {
            let _ = writeln!(self.out, "{indent}{}", first.text);
            self.comments = rest;
        }
    }

    /// Those that stand on lines of their own above `place`.
    fn comments_above(&mut self, place: usize) {
        while let Some((first, rest)) = self.comments.split_first().filter(|(first, _)| first.place < place) {
            let _ = writeln!(self.out, "{}", first.text);
            self.comments = rest;
        }
    }

    fn skip_comments(&mut self, place: usize) {
        while let Some((_, rest)) = self.comments.split_first().filter(|(first, _)| first.place < place) {
            self.comments = rest;
        }
    }

    fn flow(&mut self, kind: &str, flow: &At<Flow>) {
        let value = &flow.value;
        let _ = write!(self.out, "{kind} {}", word(value.name.as_ref().map_or("", |name| &name.value.0)));
        if let Some(policy) = &value.policy {
            let _ = write!(self.out, " {}", policy_words(&policy.value.0));
        }
        self.out.push('\n');
        for rule in value.rule.as_ref().map_or(&[][..], |rules| &rules.value) {
            self.comments_before(rule.span.start, "  ");
            let _ = writeln!(self.out, "  {}", rule_text(&rule.value));
        }
    }

    fn set(&mut self, name: &str, set: &Set) {
        if let Some(file) = &set.file {
            let _ = writeln!(self.out, "set {} file {}", word(name), quoted(&file.value));
            return;
        }
        let _ = writeln!(self.out, "set {}", word(name));
        let mut line = String::new();
        // What is printed is measured, so that the same lines come of it when it is read again.
        for element in elements(set).iter().map(|one| element(one)) {
            if !line.is_empty() && line.len() + element.len() > COLUMNS {
                let _ = writeln!(self.out, " {line}");
                line.clear();
            }
            let _ = write!(line, " {element}");
        }
        if !line.is_empty() {
            let _ = writeln!(self.out, " {line}");
        }
    }

    fn verbatim(&mut self, lines: &str) {
        let lines = lines.lines().map(str::trim).filter(|line| !line.is_empty());
        for (number, line) in lines.enumerate() {
            let indent = if number == 0 { "" } else { "  " };
            let words: Vec<&str> = line.split_whitespace().collect();
            let _ = writeln!(self.out, "{indent}{}", words.join(" "));
        }
    }
}

/// The elements of a set, as they are written.
pub(crate) fn elements(set: &Set) -> Vec<String> {
    let addresses = OneOrMany::each(set.addresses.as_ref()).into_iter().map(|(_, text)| text.0.clone());
    let ports = OneOrMany::each(set.ports.as_ref()).into_iter().map(|(_, ports)| match ports {
        NumberOr::Number(number) => number.to_string(),
        NumberOr::Text(text) => with_colon(&text.0),
    });
    addresses.chain(ports).collect()
}

fn rule_text(rule: &Rule) -> String {
    let (kind, conditions) = match (&rule.r#match, &rule.ignore) {
        (Some(conditions), _) => ("match", conditions),
        (None, Some(conditions)) => ("ignore", conditions),
        (None, None) => return String::new(),
    };
    let mut text = String::from(kind);
    for (is_negated, name, values) in words(&conditions.value) {
        let not = if is_negated { " not" } else { "" };
        let values = match values.as_slice() {
            _ if name == "limit" => values.concat(),
            [value] if name != "tcpflags" => element(value),
            _ => word(&values.join(",")),
        };
        let _ = write!(text, "{not} {name} {values}");
    }
    if let Some(comment) = &rule.comment {
        let _ = write!(text, " comment {}", quoted(&comment.value));
    }
    text
}

/// The conditions of a rule in the order of the language, plain ones first.
pub(crate) fn words(conditions: &Conditions) -> Vec<Words> {
    macro_rules! collect {
        ($from:expr, $negated:expr) => {{
            let from = $from;
            [
                ("iface", from.iface.as_ref().map(|at| vec![at.value.0.clone()])),
                ("proto", from.proto.as_ref().map(|at| vec![at.value.0.clone()])),
                ("src", each(from.src.as_ref(), |one| one.0.clone())),
                ("dst", each(from.dst.as_ref(), |one| one.0.clone())),
                ("srcport", each(from.srcport.as_ref(), |one| number_or(one, |text| with_colon(&text.0)))),
                ("dstport", each(from.dstport.as_ref(), |one| number_or(one, |text| with_colon(&text.0)))),
                ("icmptype", each(from.icmptype.as_ref(), |one| one.0.to_string())),
                ("tcpflags", from.tcpflags.as_ref().map(|at| vec![at.value.0.clone()])),
                ("dscp", each(from.dscp.as_ref(), |one| number_or(one, |text| text.0.clone()))),
                ("limit", from.limit.as_ref().map(|at| vec![at.value.0.clone()])),
            ]
            .into_iter()
            .filter_map(|(name, values)| Some(($negated, name, values?)))
        }};
    }
    let none = Negated::default();
    let negated = conditions.not.as_ref().map_or(&none, |not| &not.value);
    collect!(conditions, false).chain(collect!(negated, true)).collect()
}

fn each<T>(list: Option<&At<OneOrMany<T>>>, show: impl Fn(&T) -> String) -> Option<Vec<String>> {
    list?;
    Some(OneOrMany::each(list).into_iter().map(|(_, one)| show(one)).collect())
}

fn number_or<T>(value: &NumberOr<T>, show: impl Fn(&T) -> String) -> String {
    match value {
        NumberOr::Number(number) => number.to_string(),
        NumberOr::Text(text) => show(text),
    }
}

/// A range of ports as the text language has it; the name of a set as it is.
fn with_colon(text: &str) -> String {
    if text.starts_with('@') { text.to_owned() } else { text.replace('-', ":") }
}

/// What becomes of packets: one word, or a kind and a name.
fn policy_words(policy: &str) -> String {
    match policy.split_once(' ') {
        Some((kind @ ("director" | "table" | "component"), name)) => format!("{kind} {}", word(name)),
        _ => word(policy),
    }
}

/// A word, in quotes where it would be read as something else.
fn word(text: &str) -> String {
    let is_plain = !text.is_empty()
        && !super::ITEMS.contains(&text)
        && !text.starts_with(['#', '"'])
        && !text.contains(char::is_whitespace);
    if is_plain { text.to_owned() } else { quoted(text) }
}

/// One element of a list, in quotes where it would be read as several.
fn element(text: &str) -> String {
    if text.contains(',') { quoted(text) } else { word(text) }
}

/// Words in quotes, on one line.
fn quoted(text: &str) -> String {
    let text: String = text.chars().map(|one| if one.is_control() { ' ' } else { one }).collect();
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
