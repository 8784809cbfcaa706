//! The part of the reference page that the types give: the example with every key, a table of keys for each table
//! of the file, forms of texts, laws and actions. A test keeps the page of the book equal to it.

use std::fmt::Write;

use evenkeel_config::document;
use serde_json::Value;

use super::check::{LAWS, TIMES, rules};
use super::written::{Do, FORMS, schema};
use crate::work::NAMES;

/// A scenario that has every key. It gives the page its order.
pub const EXAMPLE: &str = include_str!("example.toml");

/// That part of the page, in Markdown.
#[must_use]
pub fn part() -> String {
    let mut part = format!("## A scenario with every key\n\n```toml\n{EXAMPLE}```\n");
    part.push_str(&document::tables(schema(), EXAMPLE, FORMS));
    part.push_str(&actions());
    part.push_str(&laws());
    part
}

fn code(words: &[&str]) -> String {
    let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
}

fn actions() -> String {
    let mut text = String::from(
        "\n## Actions\n\nWhat `do` can be in a `[[timeline]]`. Without a `target` what is for forwarders is for all of them.\n\n\
         | `do` | what happens | to | needs | may have |\n|---|---|---|---|---|\n",
    );
    let words = schema().pointer("/properties/timeline/items/properties/do/oneOf").and_then(Value::as_array);
    for action in Do::ALL {
        let (name, whom, needed, may) = rules(action);
        let is_named = |one: &&Value| one.get("const").and_then(Value::as_str) == Some(name);
        let described = words.into_iter().flatten().find(is_named).and_then(|one| one.get("description"));
        let described = described.and_then(Value::as_str).unwrap_or_default().replace('\n', " ");
        let _ = writeln!(
            text,
            "| `{name}` | {described} | {} | {} | {} |",
            whom.words(),
            code(needed),
            code(may)
        );
    }
    text
}

fn laws() -> String {
    let mut text = String::from(
        "\n## Laws\n\nWhat `law` can be where sizes and durations are drawn, except in the delays of links.\n\n\
         A message is never smaller than 16 bytes, nor larger than a message may be: what is drawn beyond is cut.\n\n\
         | `law` | needs | values |\n|---|---|---|\n",
    );
    for (name, needed, like) in LAWS {
        let _ = writeln!(text, "| `{name}` | {} | {like} |", code(needed));
    }
    let sizes: Vec<&str> = NAMES.iter().copied().filter(|name| !TIMES.contains(name)).collect();
    let _ = writeln!(text, "| {} | nothing | sizes as in traces of data centres |", code(&sizes));
    let _ = writeln!(text, "| {} | nothing | durations as in traces of data centres |", code(&TIMES));
    text
}
