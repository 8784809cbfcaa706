//! A sheet as TOML tables, for the configuration file.

use std::fmt::Write;

use super::lexer::Comment;
use super::{Entry, Item, Sheet, print};
use crate::written::{At, Director, Flow, Netmask, OneOrMany, Persistence, Rule, Set, TextOrTable};

/// Prints `sheet` as tables, in its order; routes come first.
pub(crate) fn tables(sheet: &Sheet) -> String {
    let mut out = String::new();
    for route in &sheet.routes {
        begin(&mut out, "[[route]]");
        let value = &route.value;
        pair(&mut out, "to", value.to.as_ref().map(|at| text(&at.value.0)));
        pair(&mut out, "via", value.via.as_ref().map(|at| text(&at.value.0)));
        pair(&mut out, "interface", value.interface.as_ref().map(|at| text(&at.value.0)));
        pair(&mut out, "table", value.table.as_ref().map(|at| at.value.to_string()));
    }
    let mut comments: &[Comment] = &sheet.comments;
    for Entry { item, number, span } in &sheet.order {
        let count = comments.partition_point(|comment| comment.place < span.end);
        let (before, rest) = comments.split_at(count);
        comments = rest;
        if !before.is_empty() && !out.is_empty() {
            out.push('\n');
        }
        for comment in before {
            let _ = writeln!(out, "{}", comment.text);
        }
        let is_commented = !before.is_empty();
        match item {
            Item::Flow => flow(&mut out, "flow", sheet.flows.get(*number), is_commented),
            Item::Outflow => flow(&mut out, "outflow", sheet.outflows.get(*number), is_commented),
            Item::Set => set(&mut out, sheet.sets.get(*number)),
            Item::Director => director(&mut out, sheet.directors.get(*number)),
            Item::Service => {}
        }
    }
    for comment in comments {
        let _ = writeln!(out, "{}", comment.text);
    }
    out
}

fn begin(out: &mut String, header: &str) {
    if !out.is_empty() && !out.ends_with("\n\n") {
        out.push('\n');
    }
    let _ = writeln!(out, "{header}");
}

fn pair(out: &mut String, key: &str, value: Option<String>) {
    if let Some(value) = value {
        let _ = writeln!(out, "{key} = {value}");
    }
}

fn flow(out: &mut String, kind: &str, flow: Option<&At<Flow>>, is_commented: bool) {
    let Some(At { value, .. }) = flow else { return };
    if is_commented {
        let _ = writeln!(out, "[[{kind}]]");
    } else {
        begin(out, &format!("[[{kind}]]"));
    }
    pair(out, "name", value.name.as_ref().map(|at| text(&at.value.0)));
    pair(out, "policy", value.policy.as_ref().map(|at| text(&at.value.0)));
    let Some(rules) = &value.rule else { return };
    out.push_str("rule = [\n");
    for rule in &rules.value {
        let _ = writeln!(out, "  {},", rule_table(&rule.value));
    }
    out.push_str("]\n");
}

fn rule_table(rule: &Rule) -> String {
    let (kind, conditions) = match (&rule.r#match, &rule.ignore) {
        (Some(conditions), _) => ("match", conditions),
        (None, Some(conditions)) => ("ignore", conditions),
        (None, None) => return String::from("{}"),
    };
    let words = print::words(&conditions.value);
    let list = |is_negated: bool| {
        let some = words.iter().filter(move |(negated, ..)| *negated == is_negated);
        some.map(|(_, name, values)| format!("{name} = {}", condition(name, values))).collect::<Vec<_>>()
    };
    let (mut plain, negated) = (list(false), list(true));
    if !negated.is_empty() {
        plain.push(format!("not = {{ {} }}", negated.join(", ")));
    }
    let inner = if plain.is_empty() { String::from("{}") } else { format!("{{ {} }}", plain.join(", ")) };
    let comment = rule.comment.as_ref().map(|at| format!(", comment = {}", text(&at.value)));
    format!("{{ {kind} = {inner}{} }}", comment.unwrap_or_default())
}

/// The value of a condition: numbers where it takes them, a list where there are several.
fn condition(name: &str, values: &[String]) -> String {
    let show = |value: &String| {
        let is_ports = name.ends_with("port") && !value.starts_with('@');
        let is_number = (is_ports || ["icmptype", "dscp"].contains(&name)) && is_number(value);
        if is_number {
            value.clone()
        } else if is_ports {
            text(&value.replace(':', "-"))
        } else {
            text(value)
        }
    };
    match values {
        [one] => show(one),
        several => format!("[{}]", several.iter().map(show).collect::<Vec<_>>().join(", ")),
    }
}

/// Whether TOML reads it as the same number.
fn is_number(text: &str) -> bool {
    text == "0"
        || (!text.starts_with('0')
            && !text.is_empty()
            && text.len() < 10
            && text.bytes().all(|b| b.is_ascii_digit()))
}

fn set(out: &mut String, set: Option<&(At<String>, At<Set>)>) {
    let Some((name, At { value, .. })) = set else { return };
    begin(out, &format!("[set.{}]", key(&name.value)));
    if let Some(file) = &value.file {
        return pair(out, "file", Some(text(&file.value)));
    }
    let name = if value.ports.is_some() { "ports" } else { "addresses" };
    let of = if value.ports.is_some() { "dstport" } else { "" };
    let all =
        print::elements(value).iter().map(|one| condition(of, std::slice::from_ref(one))).collect::<Vec<_>>();
    pair(out, name, Some(format!("[{}]", all.join(", "))));
}

fn director(out: &mut String, director: Option<&(At<String>, At<Director>)>) {
    let Some((name, At { value, .. })) = director else { return };
    begin(out, &format!("[director.{}]", key(&name.value)));
    let binds: Vec<_> =
        OneOrMany::each(value.bind.as_ref()).into_iter().map(|(_, bind)| text(&bind.0)).collect();
    match binds.as_slice() {
        [] => {}
        [one] => pair(out, "bind", Some(one.clone())),
        several => pair(out, "bind", Some(format!("[{}]", several.join(", ")))),
    }
    pair(out, "mode", value.mode.as_ref().map(|at| text(&at.value.0)));
    pair(
        out,
        "scheduler",
        value.scheduler.as_ref().map(|at| match &at.value {
            TextOrTable::Text(name) => text(&name.0),
            TextOrTable::Table(table) => {
                format!("{{ name = {} }}", text(table.name.as_ref().map_or("wlc", |name| &name.value.0)))
            }
        }),
    );
    pair(out, "persistence", value.persistence.as_ref().map(|at| persistence(&at.value)));
    let Some(servers) = &value.server else { return };
    out.push_str("server = [\n");
    for At { value, .. } in &servers.value {
        let mut parts = Vec::new();
        parts.extend(value.name.as_ref().map(|at| format!("name = {}", text(&at.value.0))));
        parts.extend(value.address.as_ref().map(|at| format!("address = {}", text(&at.value.0))));
        parts.extend(value.weight.as_ref().map(|at| format!("weight = {}", at.value)));
        parts.extend(value.max_flows.as_ref().map(|at| format!("max_flows = {}", at.value)));
        parts.extend(value.min_flows.as_ref().map(|at| format!("min_flows = {}", at.value)));
        let _ = writeln!(out, "  {{ {} }},", parts.join(", "));
    }
    out.push_str("]\n");
}

fn persistence(value: &Persistence) -> String {
    match value {
        TextOrTable::Text(time) => text(&time.0),
        TextOrTable::Table(table) => {
            let mut parts = Vec::new();
            parts.extend(table.timeout.as_ref().map(|at| format!("timeout = {}", text(&at.value.0))));
            parts.extend(table.netmask.as_ref().map(|at| match &at.value {
                Netmask::Length(length) => format!("netmask = {length}"),
                Netmask::Mask(mask) => format!("netmask = {}", text(&mask.0)),
            }));
            if parts.is_empty() { String::from("{}") } else { format!("{{ {} }}", parts.join(", ")) }
        }
    }
}

/// A text as TOML writes it.
pub(crate) fn text(value: &str) -> String {
    toml::Value::String(value.to_owned()).to_string()
}

/// A key of a table.
pub(crate) fn key(name: &str) -> String {
    let is_bare =
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if is_bare { name.to_owned() } else { text(name) }
}
