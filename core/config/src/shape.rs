//! The first step: whether the tree has the keys and types that the schema knows.
//!
//! What comes in: a TOML tree with spans. What goes out: every unknown key, missing key, wrong type, number out
//! of range and unknown word, all of them at once, and the tree without those, so that the second step can
//! still look at the rest. It never looks at what a text means.

use std::collections::BTreeSet;
use std::ops::Range;

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::diagnostic::{Code, Diagnostics};
use crate::document::Misfit;
use crate::forms::{nearest, quote};
use crate::source::Source;

/// Checks `root` against `schema` and takes out what does not fit.
pub(crate) fn check(
    source: &Source,
    root: &mut Spanned<DeTable<'_>>,
    schema: &Value,
    found: &mut dyn FnMut(Misfit),
) {
    // The place of the whole file is its beginning: a span over all of it would show all of it.
    Shape { source, found }.table(schema, root.get_mut(), &(0..0), "");
}

/// The types that TOML values can have, as the schema calls them and as people do.
const TYPES: [(&str, &str); 6] = [
    ("string", "a string"),
    ("integer", "an integer"),
    ("object", "a table"),
    ("array", "a list"),
    ("boolean", "true or false"),
    ("number", "a number with a point"),
];

fn type_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "string",
        DeValue::Integer(_) => "integer",
        DeValue::Float(_) => "number",
        DeValue::Boolean(_) => "boolean",
        DeValue::Datetime(_) => "date",
        DeValue::Array(_) => "array",
        DeValue::Table(_) => "object",
    }
}

fn in_words(type_name: &str) -> &'static str {
    TYPES.iter().find(|(name, _)| *name == type_name).map_or("a date", |(_, words)| words)
}

/// The alternatives of a schema, those of alternatives included; itself when it has none.
pub(crate) fn alternatives(schema: &Value) -> Vec<&Value> {
    match schema.get("anyOf").and_then(Value::as_array) {
        Some(all) => all.iter().flat_map(alternatives).collect(),
        None => vec![schema],
    }
}

fn type_name(schema: &Value) -> &str {
    let name = schema.get("type").and_then(Value::as_str);
    name.unwrap_or_else(|| if schema.get("oneOf").is_some() { "string" } else { "object" })
}

/// The words that a schema allows, when it lists them.
pub(crate) fn words(schema: &Value) -> Vec<&str> {
    let listed = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
    let described = schema.get("oneOf").and_then(Value::as_array).into_iter().flatten();
    let described = described.flat_map(|one| match one.get("enum").and_then(Value::as_array) {
        Some(several) => several.iter().collect(),
        None => one.get("const").into_iter().collect::<Vec<_>>(),
    });
    listed.chain(described).filter_map(Value::as_str).collect()
}

fn list(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// Takes out the entries that `keep` refuses.
fn retain<'d>(
    table: &mut DeTable<'d>,
    mut keep: impl FnMut(&Spanned<DeString<'d>>, &mut Spanned<DeValue<'d>>) -> bool,
) {
    let mut refused = Vec::new();
    for (key, value) in table.iter_mut() {
        if !keep(key, value) {
            refused.push(key.get_ref().to_string());
        }
    }
    for key in refused {
        table.remove(key.as_str());
    }
}

/// A path and a key below it.
fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Where a path is, in words that follow a key.
fn inside(path: &str) -> String {
    if path.is_empty() { "at the top of the file".to_owned() } else { format!("in {}", quote(path)) }
}

struct Shape<'a> {
    source: &'a Source,
    found: &'a mut dyn FnMut(Misfit),
}

impl Shape<'_> {
    fn report(&mut self, code: Code, span: &Range<usize>, message: String, help: Help) {
        let misfit = Misfit::new(code, span, message);
        (self.found)(match help {
            Help::Words(words) => misfit.help(words),
            Help::Repair(span, text, words) => misfit.repair(span, text, words),
        });
    }

    /// Checks a table and takes out what does not fit.
    fn table(&mut self, schema: &Value, table: &mut DeTable<'_>, span: &Range<usize>, path: &str) {
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
            if let Some(each) = schema.get("additionalProperties") {
                retain(table, |key, value| self.value(each, value, &below(path, key.get_ref())));
            }
            return;
        };
        let keys: Vec<&str> = properties.keys().map(String::as_str).collect();
        let absent: Vec<&str> = keys.iter().copied().filter(|key| !table.contains_key(*key)).collect();
        let unknown = table.keys().map(|key| key.get_ref()).filter(|key| !keys.contains(&key.as_ref()));
        // A misspelt key is one mistake: what it was probably meant to be is not missing as well.
        let meant: BTreeSet<&str> =
            unknown.take(Diagnostics::MAX).filter_map(|key| nearest(key, absent.iter().copied())).collect();
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
        let missing = required.filter_map(Value::as_str).filter(|key| !table.contains_key(*key));
        for key in missing.filter(|key| !meant.contains(key)).collect::<Vec<_>>() {
            let example = properties.get(key).map_or_else(String::new, |schema| example(key, schema));
            let message = format!("the key {} is missing {}", quote(key), inside(path));
            self.report(Code::MissingKey, span, message, Help::Words(format!("add {example}")));
        }
        retain(table, |key, value| {
            if let Some(schema) = properties.get(key.get_ref().as_ref()) {
                return self.value(schema, value, &below(path, key.get_ref()));
            }
            let help = match nearest(key.get_ref(), absent.iter().copied()) {
                Some(near) => Help::Repair(key.span(), near.to_owned(), format!("did you mean `{near}`?")),
                None => Help::Words(format!("the keys here are {}", list(&keys))),
            };
            let message = format!("the key {} is unknown {}", quote(key.get_ref()), inside(path));
            self.report(Code::UnknownKey, &key.span(), message, help);
            false
        });
    }

    /// Checks a value and everything below it; whether it may stay.
    fn value<'d>(&mut self, schema: &Value, value: &mut Spanned<DeValue<'d>>, path: &str) -> bool {
        let span = value.span();
        let actual = type_of(value.get_ref());
        let alternatives = alternatives(schema);
        let fits = |schema: &&&Value| type_name(schema) == actual;
        // A whole number is a number as well.
        let is_number = |schema: &&&Value| actual == "integer" && type_name(schema) == "number";
        let Some(schema) = alternatives.iter().find(fits).or_else(|| alternatives.iter().find(is_number))
        else {
            self.wrong_type(&alternatives, value, path);
            return false;
        };
        match value.get_mut() {
            DeValue::Table(table) => {
                self.table(schema, table, &span, path);
                true
            }
            DeValue::Array(items) => {
                if let Some(each) = schema.get("items") {
                    let all = std::mem::replace(items, std::iter::empty().collect());
                    let fits = |(index, mut item): (usize, Spanned<DeValue<'d>>)| {
                        self.value(each, &mut item, &format!("{path}[{}]", index + 1)).then_some(item)
                    };
                    *items = all.into_iter().enumerate().filter_map(fits).collect();
                }
                true
            }
            DeValue::Integer(number) if type_name(schema) == "number" => {
                let number = i64::from_str_radix(number.as_str(), number.radix()).ok();
                #[allow(clippy::cast_precision_loss, reason = "bounds are small beside what is lost")]
                self.float_range(schema, number.map_or(f64::NAN, |number| number as f64), &span, path)
            }
            DeValue::Float(number) => {
                let number = number.as_str().parse().unwrap_or(f64::NAN);
                self.float_range(schema, number, &span, path)
            }
            DeValue::Integer(number) => {
                let number = i128::from_str_radix(number.as_str(), number.radix()).ok();
                self.range(schema, number, &span, path)
            }
            DeValue::String(text) => {
                let text = text.to_string();
                self.word(schema, &text, &span, path)
            }
            DeValue::Boolean(_) | DeValue::Datetime(_) => true,
        }
    }

    /// Numbers with a point are finite, whatever the schema says.
    fn float_range(&mut self, schema: &Value, number: f64, span: &Range<usize>, path: &str) -> bool {
        let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
        let (low, high) = (bound("minimum"), bound("maximum"));
        if number.is_finite() && low.is_none_or(|low| number >= low) && high.is_none_or(|high| number <= high)
        {
            return true;
        }
        let wanted = match (low, high) {
            (Some(low), Some(high)) => format!("from {low} to {high}"),
            (Some(low), None) => format!("of at least {low}"),
            (None, Some(high)) => format!("of at most {high}"),
            (None, None) => "that is finite".to_owned(),
        };
        let message =
            format!("{} is {}, but takes a number {wanted}", quote(path), quote(self.source.slice(span)));
        self.report(Code::OutOfRange, span, message, Help::Words(format!("write a number {wanted}")));
        false
    }

    fn range(&mut self, schema: &Value, number: Option<i128>, span: &Range<usize>, path: &str) -> bool {
        let bound = |key: &str| schema.get(key).and_then(Value::as_i64);
        let low = bound("minimum").unwrap_or(i64::MIN);
        let high = bound("maximum").unwrap_or(i64::MAX);
        if number.is_some_and(|number| (i128::from(low)..=i128::from(high)).contains(&number)) {
            return true;
        }
        let shown = quote(self.source.slice(span));
        let message = format!("{} is {shown}, outside of {low} to {high}", quote(path));
        let help = Help::Words(format!("write a number from {low} to {high}"));
        self.report(Code::OutOfRange, span, message, help);
        false
    }

    fn word(&mut self, schema: &Value, text: &str, span: &Range<usize>, path: &str) -> bool {
        let words = words(schema);
        if words.is_empty() || words.contains(&text) {
            return true;
        }
        let help = match nearest(text, words.iter().copied()) {
            Some(near) => {
                Help::Repair(span.clone(), format!("\"{near}\""), format!("did you mean `{near}`?"))
            }
            None => Help::Words(format!("write one of {}", list(&words))),
        };
        let message = format!("{} can not be {}", quote(path), quote(text));
        self.report(Code::UnknownValue, span, message, help);
        false
    }

    fn wrong_type(&mut self, alternatives: &[&Value], value: &Spanned<DeValue<'_>>, path: &str) {
        let expected: Vec<_> = alternatives.iter().map(|schema| type_name(schema)).collect();
        let wanted = expected.iter().map(|name| in_words(name)).collect::<Vec<_>>().join(" or ");
        let actual = in_words(type_of(value.get_ref()));
        let message = format!("{} is {actual}, but takes {wanted}", quote(path));
        let help = repair_of_type(&expected, value, self.source)
            .unwrap_or_else(|| Help::Words(format!("write {wanted}")));
        self.report(Code::WrongType, &value.span(), message, help);
    }
}

/// What to do: words, or an edit with words.
enum Help {
    Words(String),
    Repair(Range<usize>, String, String),
}

/// How a value of the wrong type may have been meant.
fn repair_of_type(expected: &[&str], value: &Spanned<DeValue<'_>>, source: &Source) -> Option<Help> {
    let span = value.span();
    let text = source.slice(&span);
    let wants = |name: &str| expected.contains(&name);
    let repair = |text: String, words: &str| Some(Help::Repair(span.clone(), text, words.to_owned()));
    match value.get_ref() {
        DeValue::String(inner) if wants("integer") && inner.parse::<i64>().is_ok() => {
            repair(inner.to_string(), "write the number without quotes")
        }
        DeValue::Integer(_) if wants("string") => repair(format!("\"{text}\""), "write it in quotes"),
        DeValue::Table(_) if wants("array") && text.starts_with('[') && !text.contains('\n') => {
            repair(format!("[{text}]"), "write double brackets: each such header begins one more entry")
        }
        DeValue::Table(_) if wants("array") && text.starts_with('{') => {
            repair(format!("[{text}]"), "write a list, even of one")
        }
        DeValue::Array(_) if wants("object") && text.starts_with("[[") => {
            let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'))?;
            repair(inner.to_owned(), "write single brackets: there is only one such table")
        }
        DeValue::String(_) if wants("array") => repair(format!("[{text}]"), "write a list, even of one"),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => None,
    }
}

/// How a missing key would be written.
fn example(key: &str, schema: &Value) -> String {
    let examples = schema.get("examples").and_then(Value::as_array);
    let first = examples.and_then(|examples| examples.first()).and_then(Value::as_str);
    let first = first.or_else(|| words(schema).first().copied());
    match (first, type_name(schema)) {
        (Some(text), _) => format!("`{key} = \"{text}\"`"),
        (None, "object") => format!("a table `[{key}.NAME]`"),
        (None, _) => quote(key),
    }
}
