//! Answers of the control socket as text for people: aligned tables. In: the JSON of an answer. Out: lines.
//! What a later version adds to the JSON is passed over, what an older one lacks is shown as a dash.

use serde_json::Value;

/// The text for the answer to `line`. Without a form of its own an answer is shown as indented JSON.
#[must_use]
pub fn text(line: &str, answer: &Value) -> String {
    match line.split_whitespace().next().unwrap_or_default() {
        "stats" => stats(answer),
        "directors" => directors(answer),
        "drops" => drops(answer),
        "rules" => rules(answer),
        "events" => events(answer),
        "explain" => evenkeel_explain::text(answer),
        "weight" => format!(
            "director {}, real server {}: weight {}\n",
            show(&answer["director"]),
            show(&answer["server"]),
            show(&answer["weight"])
        ),
        "director" => {
            format!("director {}: scheduler {}\n", show(&answer["director"]), show(&answer["scheduler"]))
        }
        "version" => format!("evenkeel {}\n", show(&answer["version"])),
        "help" => help(answer),
        "reload" => reload(answer),
        _ => format!("{answer:#}\n"),
    }
}

fn stats(answer: &Value) -> String {
    let mut text = format!("evenkeel {}, plan {}", show(&answer["version"]), show(&answer["generation"]));
    if let Some(io) = answer["io"].as_str() {
        text.push_str(&format!(", {io}"));
    }
    if let Some(seconds) = answer["uptime_seconds"].as_u64() {
        text.push_str(&format!(", up {seconds} s"));
    }
    text.push('\n');
    let flows = &answer["flows"];
    let packets = &answer["packets"];
    let pairs = |value: &Value, keys: &[(&str, &str)]| {
        let list: Vec<String> =
            keys.iter().map(|(key, label)| format!("{label} {}", show(&value[*key]))).collect();
        list.join("  ")
    };
    let keys = [("now", "now"), ("max", "max"), ("opened", "opened"), ("closed", "closed")];
    text.push_str(&format!("flows    {}\n", pairs(flows, &keys)));
    let keys = [("half_open", "half open"), ("half_open_evicted", "gave way")];
    let sticky = pairs(&answer["sticky"], &[("now", "clients that stick")]);
    text.push_str(&format!("         {}  {sticky}\n", pairs(flows, &keys)));
    let keys = [("in", "in"), ("forwarded", "forwarded"), ("answered", "answered"), ("dropped", "dropped")];
    text.push_str(&format!("packets  {}\n", pairs(packets, &keys)));
    let keys = [("waiting", "waiting"), ("passed", "passed on"), ("cut", "cut")];
    text.push_str(&format!("         {}\n", pairs(packets, &keys)));
    let keys = [("bytes_in", "bytes in"), ("consumed", "consumed"), ("born", "born"), ("born_lost", "lost")];
    text.push_str(&format!("         {}\n", pairs(packets, &keys)));
    let keys = [("scheduler_calls", "scheduler calls"), ("resets", "resets"), ("events_lost", "events lost")];
    text.push_str(&format!("         {}\n", pairs(answer, &keys)));
    if answer["scheduler_changes"].as_u64().unwrap_or(0) > 0 {
        let keys = [("scheduler_changes", "changes of schedulers")];
        text.push_str(&format!("         {}\n", pairs(answer, &keys)));
    }
    let agents = &answer["agents"];
    if agents["checks"].as_u64().unwrap_or(0) > 0 {
        let keys = [
            ("checks", "asked"),
            ("answers", "answered"),
            ("failures", "failed"),
            ("bad_words", "bad words"),
        ];
        text.push_str(&format!("agents   {}\n", pairs(agents, &keys)));
    }
    for key in ["device", "drops"] {
        let list: Vec<String> = entries(&answer[key]);
        if !list.is_empty() {
            text.push_str(&format!("{key:<9}{}\n", list.join("  ")));
        }
    }
    text.push_str(&directors(answer));
    for policy in items(&answer["policies"]) {
        let per = if policy["judges_packets"] == true { "  per packet" } else { "" };
        let counts = match (&policy["denied"], &policy["limited"]) {
            (denied, _) if denied.as_u64() == Some(0) => String::new(),
            (denied, limited) => format!("\n  denied {}, beyond a limit {}", show(denied), show(limited)),
        };
        text.push_str(&format!(
            "\npolicy {}{per}{}{counts}\n",
            show(&policy["name"]),
            guest(&policy["guest"])
        ));
    }
    text
}

fn directors(answer: &Value) -> String {
    let list = items(&answer["directors"]);
    if list.is_empty() {
        return "no directors\n".to_owned();
    }
    let mut text = String::new();
    for director in list {
        let binds: Vec<String> = items(&director["binds"]).iter().map(show).collect();
        text.push_str(&format!(
            "\ndirector {} {}  scheduler {}{}\n",
            show(&director["name"]),
            if binds.is_empty() { "by flow rules alone".to_owned() } else { binds.join(" ") },
            show(&director["scheduler"]),
            guest(&director["guest"]) + &shadow(&director["shadow"]),
        ));
        let mut table = Table::new(&[
            "server",
            "address",
            "weight",
            "state",
            "active",
            "flows",
            "pkts to",
            "pkts from",
            "bytes to",
            "bytes from",
        ]);
        for server in items(&director["servers"]) {
            let state = state(server);
            let address = show(&server["address"]);
            let address = if address.contains(':') { format!("[{address}]") } else { address };
            let port = if server["port"] == 0 { "*".to_owned() } else { show(&server["port"]) };
            let address = format!("{address}:{port}");
            let mut row = vec![show(&server["name"]), address, weight(server), state.to_owned()];
            let counted = ["active", "flows", "packets_to", "packets_from", "bytes_to", "bytes_from"];
            row.extend(counted.iter().map(|key| show(&server[*key])));
            table.row(row);
        }
        text.push_str(&table.render());
        items(&director["servers"]).iter().for_each(|server| text.push_str(&agent(server)));
    }
    text
}

/// Whether new flows go there.
fn state(server: &Value) -> &'static str {
    let weight = server["effective_weight"].as_u64().or_else(|| server["weight"].as_u64());
    let agent = &server["agent"];
    match (server["is_up"].as_bool(), agent["mode"].as_str(), weight) {
        (Some(false), Some("maint"), _) => "maint",
        (Some(false), ..) => "down",
        (_, _, Some(0)) => "drain",
        _ => "up",
    }
}

/// The weight that counts, and where its agent has made another one of it, that of the operator.
fn weight(server: &Value) -> String {
    let (own, effective) = (&server["weight"], &server["effective_weight"]);
    if effective.is_null() || own == effective {
        return show(own);
    }
    format!("{} of {}", show(effective), show(own))
}

/// What the agent of a server says, where one is asked.
fn agent(server: &Value) -> String {
    let agent = &server["agent"];
    if agent.is_null() {
        return String::new();
    }
    let said = match (agent["said"].as_str(), agent["said_ms_ago"].as_u64()) {
        (Some(_), Some(past)) => {
            let ago = format!("{}.{:03} s ago", past / 1_000, past % 1_000);
            format!("said {:?} {ago}", show(&agent["said"]))
        }
        _ => "has said nothing yet".to_owned(),
    };
    let down = match agent["down"].as_str() {
        Some(_) => format!("; down: {}", show(&agent["down"])),
        None => String::new(),
    };
    format!(
        "  agent of {} {said}{down}; asked {}, failed {}, bad words {}\n",
        show(&server["name"]),
        show(&agent["checks"]),
        show(&agent["failures"]),
        show(&agent["bad_words"])
    )
}

/// What a component did, where there is one.
fn guest(stats: &Value) -> String {
    if stats["calls"].as_u64().unwrap_or(0) == 0 {
        return String::new();
    }
    format!(
        "\n  component: {} calls, {} flows decided, {} faults, {} flows by the fallback",
        show(&stats["calls"]),
        show(&stats["decided"]),
        show(&stats["faults"]),
        show(&stats["fallbacks"])
    )
}

/// How a shadow compares, where there is one.
fn shadow(shadow: &Value) -> String {
    if shadow.is_null() {
        return String::new();
    }
    let times = |key: &str| {
        let thousandths = shadow[key].as_u64().unwrap_or(0);
        format!("{}.{:03}", thousandths / 1_000, thousandths % 1_000)
    };
    format!(
        "\n  shadow {}: agrees on {} of {} flows, no answer for {}; most/mean {} instead of {}{}",
        show(&shadow["scheduler"]),
        show(&shadow["agreed"]),
        show(&shadow["asked"]),
        show(&shadow["unanswered"]),
        times("imbalance_would_be_thousandths"),
        times("imbalance_thousandths"),
        guest(&shadow["guest"]),
    )
}

fn drops(answer: &Value) -> String {
    let mut table = Table::new(&["reason", "count", "meaning"]);
    for drop in items(&answer["drops"]) {
        table.row(vec![show(&drop["reason"]), show(&drop["count"]), show(&drop["help"])]);
    }
    table.render()
}

fn rules(answer: &Value) -> String {
    let mut table = Table::new(&["flow", "rule", "count", "comment"]);
    for rule in items(&answer["rules"]) {
        let cells = ["flow", "rule", "count", "comment"];
        table.row(cells.iter().map(|key| show(&rule[*key])).collect());
    }
    table.render()
}

fn events(answer: &Value) -> String {
    let list = items(&answer["events"]);
    if list.is_empty() {
        return "no events\n".to_owned();
    }
    let mut text = String::new();
    for event in list {
        let mut words = Vec::new();
        if let Some(seconds) = event["uptime_ms"].as_u64() {
            words.push(format!("{:>8}.{:03}s", seconds / 1000, seconds % 1000));
        }
        words.push(show(&event["event"]));
        for entry in entries(event) {
            if !entry.starts_with("event ") && !entry.starts_with("uptime_ms ") {
                words.push(entry);
            }
        }
        text.push_str(&words.join("  "));
        text.push('\n');
    }
    text
}

fn help(answer: &Value) -> String {
    let mut text = String::new();
    for command in items(&answer["commands"]) {
        let usage = format!("{} {}", show(&command["name"]), show(&command["arguments"]));
        text.push_str(&format!("{:<26}{}\n", usage.trim_end(), show(&command["help"])));
    }
    text
}

fn reload(answer: &Value) -> String {
    let mut text = format!("plan {} is in force\n", show(&answer["generation"]));
    for note in items(&answer["notes"]) {
        text.push_str(&format!("note: {}\n", show(note)));
    }
    text
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn entries(value: &Value) -> Vec<String> {
    let Some(map) = value.as_object() else { return Vec::new() };
    map.iter().map(|(key, value)| format!("{key} {}", show(value))).collect()
}

/// A value as one word or sentence; a control character from outside is never passed to a terminal.
fn show(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// Columns as wide as their widest cell; numbers to the right.
struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|&word| word.to_owned()).collect()] }
    }

    fn row(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    fn render(&self) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let cell = |row: &Vec<String>, column: usize| row.get(column).map_or(0, |cell| cell.chars().count());
        let widths: Vec<usize> = (0..columns)
            .map(|column| self.rows.iter().map(|row| cell(row, column)).max().unwrap_or(0))
            .collect();
        let is_number = |text: &String| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let numeric: Vec<bool> = (0..columns)
            .map(|column| {
                let mut cells = self.rows.iter().skip(1).filter_map(|row| row.get(column)).peekable();
                cells.peek().is_some() && cells.all(is_number)
            })
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::from(" ");
            for ((cell, width), is_right) in row.iter().zip(&widths).zip(&numeric) {
                let width = *width;
                line.push_str(&if *is_right {
                    format!(" {cell:>width$} ")
                } else {
                    format!(" {cell:<width$} ")
                });
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_table_aligns_words_left_and_numbers_right() {
        let mut table = Table::new(&["name", "count"]);
        table.row(vec!["a".to_owned(), "1000".to_owned()]);
        table.row(vec!["longer".to_owned(), "7".to_owned()]);
        let expected = "  name    count\n  a        1000\n  longer      7\n";
        assert_eq!(table.render(), expected);
    }

    #[test]
    fn an_answer_of_another_version_still_renders() {
        for line in
            ["stats", "directors", "drops", "rules", "events", "weight", "version", "help", "reload", "new"]
        {
            for answer in [json!(null), json!({}), json!({ "directors": [1, {}] }), json!([1])] {
                assert!(!text(line, &answer).is_empty() || line == "help", "{line}");
            }
        }
    }

    #[test]
    fn a_fault_is_shown_with_component_call_and_reason_but_without_escapes() {
        let answer = json!({ "events": [{
            "event": "guest_fault", "name": "web", "component": "bundled:maglev", "call": "pick",
            "reason": "trap\u{1b}[2J: unreachable", "uptime_ms": 1500,
        }] });
        let text = text("events", &answer);
        for word in ["1.500s", "guest_fault", "bundled:maglev", "pick", "unreachable"] {
            assert!(text.contains(word), "{text}");
        }
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}
