//! The reference page of the configuration file, from the same types that read it.
//!
//! What goes out: one Markdown page with a file of every key, a table for each TOML table, the forms of texts,
//! and the codes of errors. A test keeps the page of the book equal to it.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostic::Code;
use crate::schema::schema;
use crate::shape::{alternatives, words};
use crate::written::FORMS;

/// A configuration file that has every key, with the defaults where there are any. It gives the page its order.
pub const EXAMPLE: &str = include_str!("example.toml");

/// The page, in Markdown.
#[must_use]
pub fn page() -> String {
    let mut page = String::from(
        "# Configuration reference\n\n\
         <!-- Generated from core/config/src/written.rs. To write it again:\n\
         EVENKEEL_WRITE_DOCS=1 cargo test -p evenkeel-config --test all reference -->\n\n\
         The forwarder and the simulator read the same file, usually `evenkeel.toml`. It is\n\
         [TOML](https://toml.io). `evenkeel check` reads it and reports every mistake with file, line, column and\n\
         what to do; `evenkeel schema` prints the JSON schema for editors. An unknown key is an error.\n\n\
         ## A file with every key\n\n```toml\n",
    );
    page.push_str(EXAMPLE);
    page.push_str("```\n");
    page.push_str(&tables(schema(), EXAMPLE, FORMS));
    page.push_str(&codes());
    page
}

/// A form of text: its name, what it means, examples.
pub type Form = (&'static str, &'static str, &'static [&'static str]);

/// A table of keys for every table of a document, in the order of an example that has every key, then the forms of
/// texts. In Markdown, with headings of the second level.
#[must_use]
pub fn tables(schema: &Value, example: &str, forms: &'static [Form]) -> String {
    let order = order(schema, example);
    let mut sections = Sections { schema, forms, order, known: Vec::new(), text: String::new() };
    sections.table(schema, "", "");
    sections.text.push_str(&form_table(forms));
    sections.text
}

/// Where each key stands in the example, by its path with `*` for names of the user's choice.
fn order(schema: &Value, example: &str) -> BTreeMap<String, usize> {
    fn look(schema: &Value, value: &Spanned<DeValue<'_>>, path: &str, order: &mut BTreeMap<String, usize>) {
        match value.get_ref() {
            DeValue::Table(table) => look_in_table(schema, table, path, order),
            DeValue::Array(items) => {
                let schema = schema.get("items").unwrap_or(schema);
                items.iter().for_each(|item| look(schema, item, path, order));
            }
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => {}
        }
    }
    fn look_in_table(schema: &Value, table: &DeTable<'_>, path: &str, order: &mut BTreeMap<String, usize>) {
        let schema = as_table(schema).unwrap_or(schema);
        for (key, value) in table {
            let property = schema.get("properties").and_then(|all| all.get(key.get_ref().as_ref()));
            let (name, below) = match property {
                Some(property) => (key.get_ref().as_ref(), property),
                None => ("*", schema.get("additionalProperties").unwrap_or(schema)),
            };
            let path = format!("{path}.{name}");
            let start = key.span().start;
            order.entry(path.clone()).and_modify(|first| *first = start.min(*first)).or_insert(start);
            look(below, value, &path, order);
        }
    }
    let mut order = BTreeMap::new();
    if let Ok(example) = DeTable::parse(example) {
        look_in_table(schema, example.get_ref(), "", &mut order);
    }
    order
}

/// The alternative of a schema that is a table, if any.
fn as_table(schema: &Value) -> Option<&Value> {
    alternatives(schema).into_iter().find(|one| one.get("type").is_some_and(|name| name == "object"))
}

/// The tables of the page.
struct Sections<'a> {
    schema: &'a Value,
    forms: &'static [Form],
    order: BTreeMap<String, usize>,
    known: Vec<(Value, String)>,
    text: String,
}

impl Sections<'_> {
    /// Writes the section of one table, then those of the tables in it.
    fn table(&mut self, schema: &Value, path: &str, title: &str) {
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
        let mut keys: Vec<(&String, &Value)> = properties.iter().collect();
        keys.sort_by_key(|(key, _)| self.place(path, key));
        if !title.is_empty() {
            self.known.push((schema.clone(), title.to_owned()));
            self.keys(schema, &keys);
        }
        for (key, below) in keys {
            let here = format!("{path}.{key}");
            let name = if title.is_empty() { key.clone() } else { format!("{title}.{key}") };
            let is_list = below.get("items").is_some();
            let below = below.get("items").unwrap_or(below);
            match below.get("additionalProperties").filter(|each| each.is_object()) {
                Some(each) => self.section(each, below, &format!("{here}.*"), &format!("{name}.NAME"), false),
                None => self.section(as_table(below).unwrap_or(below), below, &here, &name, is_list),
            }
        }
    }

    /// Where the example has a key; or, where it has not, a key of this name in another table that is called the same.
    fn place(&self, path: &str, key: &str) -> usize {
        if let Some(place) = self.order.get(&format!("{path}.{key}")) {
            return *place;
        }
        let name = path.rsplit('.').next().unwrap_or_default();
        let end = format!(".{name}.{key}");
        let same = self.order.iter().filter(|(path, _)| path.ends_with(&end));
        same.map(|(_, place)| *place).min().unwrap_or(usize::MAX)
    }

    fn section(&mut self, table: &Value, described: &Value, path: &str, name: &str, is_list: bool) {
        if table.get("properties").is_none() {
            return;
        }
        let header = if is_list { format!("[[{name}]]") } else { format!("[{name}]") };
        let text = description(described).or_else(|| description(table)).unwrap_or_default();
        let list = self.schema.get("properties").and_then(|all| all.get(name)).and_then(description);
        let _ = write!(self.text, "\n## `{header}`\n\n{}\n", list.unwrap_or(text));
        let keys = table.get("properties");
        let same = self.known.iter().find(|(known, _)| known.get("properties") == keys);
        if let Some((_, same)) = same {
            let _ = write!(self.text, "\nThe same keys as in `[{same}]`.\n");
            return;
        }
        self.table(table, path, name);
    }

    fn keys(&mut self, schema: &Value, keys: &[(&String, &Value)]) {
        let required = schema.get("required").and_then(Value::as_array);
        let is_required = |key: &str| required.is_some_and(|all| all.iter().any(|one| one == key));
        self.text.push_str("\n| key | takes | default | meaning |\n|---|---|---|---|\n");
        for (key, below) in keys {
            let default = match below.get("default") {
                Some(Value::String(text)) => format!("`\"{text}\"`"),
                Some(value) => format!("`{value}`"),
                None if is_required(key) => "needed".to_owned(),
                None => "none".to_owned(),
            };
            let text = description(below).unwrap_or_default();
            let row = [format!("`{key}`"), takes(below, self.forms), default, text];
            let row: Vec<_> = row.iter().map(|cell| cell.replace('|', "\\|").replace('\n', " ")).collect();
            let _ = writeln!(self.text, "| {} |", row.join(" | "));
        }
    }
}

fn description(schema: &Value) -> Option<String> {
    schema.get("description").and_then(Value::as_str).map(str::to_owned)
}

/// What a key takes, in words.
fn takes(schema: &Value, forms: &[Form]) -> String {
    let takes = |schema| takes(schema, forms);
    if let Some(all) = schema.get("anyOf").and_then(Value::as_array) {
        return all.iter().map(takes).collect::<Vec<_>>().join(" or ");
    }
    let words = words(schema);
    if !words.is_empty() {
        return words.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", ");
    }
    if let Some(form) = schema.get("x-form").and_then(Value::as_str) {
        let is_described = forms.iter().any(|(name, ..)| *name == form);
        return if is_described { format!("[{form}](#forms)") } else { form.to_owned() };
    }
    if let Some(items) = schema.get("items") {
        return format!("list of {}", takes(items));
    }
    let bound = |key: &str| schema.get(key).and_then(Value::as_i64);
    let real = |key: &str| schema.get(key).and_then(Value::as_f64);
    if let (Some("number"), Some(low), Some(high)) =
        (schema.get("type").and_then(Value::as_str), real("minimum"), real("maximum"))
    {
        return format!("{low} to {high}");
    }
    match (schema.get("type").and_then(Value::as_str), bound("minimum"), bound("maximum")) {
        (Some("integer"), Some(low), Some(high)) => format!("{low} to {high}"),
        (Some("object"), _, _) => "table".to_owned(),
        (name, _, _) => name.unwrap_or("table").to_owned(),
    }
}

fn form_table(forms: &[Form]) -> String {
    let mut text = String::from("\n## Forms\n\n| form | meaning | examples |\n|---|---|---|\n");
    for (name, meaning, examples) in forms {
        let examples: Vec<_> = examples.iter().map(|example| format!("`\"{example}\"`")).collect();
        let meaning = meaning.split_whitespace().collect::<Vec<_>>().join(" ");
        let _ = writeln!(text, "| {name} | {meaning} | {} |", examples.join(", "));
    }
    text
}

fn codes() -> String {
    let mut text = String::from(
        "\n## Errors and warnings\n\n\
         A configuration with an error is refused whole: `evenkeel run` and `evenkeel check` end with exit code 2,\n\
         and a forwarder that runs keeps the configuration that it has. Warnings refuse nothing.\n\n\
         With `--format json` every one is a line with one object: `severity`, `code`, `message`, `file`, `line`,\n\
         `column`, `end_line`, `end_column` (counted from 1, columns in characters, the end not included; `null`\n\
         when it has no place), `help` (text or `null`), `also` (other places: `line`, `column`, `message`) and\n\
         `repair` (`null`, or an edit: `line`, `column`, `end_line`, `end_column`, `text`).\n\n\
         | code | severity | meaning |\n|---|---|---|\n",
    );
    for code in Code::ALL {
        let _ = writeln!(text, "| `{}` | {} | {} |", code.name(), code.severity().name(), code.help());
    }
    text
}
