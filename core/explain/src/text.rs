//! Accounts as text for a terminal of 80 columns, made from their JSON.

use std::fmt::Write as _;

use serde_json::Value;

/// Where the second column begins.
const INDENT: usize = 13;

/// The widest line.
const COLUMNS: usize = 80;

/// Rules that did not match and are shown before and after a gap; the JSON has all.
const RULES_SHOWN: usize = 12;

/// Real servers that are shown; the JSON has all.
const SERVERS_SHOWN: usize = 32;

/// What is left of a number of nanoseconds.
const SECOND_NS: u64 = 1_000_000_000;

/// The text of an explanation, or of one packet of a trace.
#[must_use]
pub fn text(value: &Value) -> String {
    let mut page = Page::default();
    page.line(
        "packet",
        &format!(
            "{} in {} ({} bytes)",
            of(value, "packet"),
            of(value, "interface"),
            number(value, "length_bytes")
        ),
    );
    for step in list(value, "steps") {
        page.step(step);
    }
    if let Some(component) = value.get("not_predicted").and_then(Value::as_str) {
        page.line(
            "not known",
            &format!(
                "the component {component} decides next. To ask it would change it, so the rest is not predicted; \
                 `evenkeel trace` shows what becomes of real packets."
            ),
        );
    }
    if is(value, "is_as_told") {
        page.line(
            "note",
            "a scheduler or a component keeps a state that tokens do not hold; its answer is the one that the token says",
        );
    }
    for sent in list(value, "sent_besides") {
        page.line("also sent", &format!("{} by {}", of(sent, "packet"), of(sent, "interface")));
    }
    match (some(value, "token"), some(value, "no_token")) {
        (Some(token), _) => {
            // In one piece, so that it can be copied.
            let _ = writeln!(page.0, "{:<INDENT$}{token}", "token");
        }
        (None, Some(reason)) => page.line("token", &format!("none: {reason}")),
        (None, None) => {}
    }
    page.0
}

/// The text of one packet of a trace, with the time since the trace began, in nanoseconds.
#[must_use]
pub fn trace_text(value: &Value, since_ns: u64) -> String {
    let mut page = Page::default();
    let (seconds, rest) = (since_ns / SECOND_NS, since_ns % SECOND_NS);
    page.line(
        &format!("{seconds}.{:06}", rest / 1_000),
        &format!("{} in {}", of(value, "packet"), of(value, "interface")),
    );
    for step in list(value, "steps") {
        page.step(step);
    }
    page.0
}

fn of<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or("?")
}

fn some<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}

fn number(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(Value::as_u64).unwrap_or(0)
}

fn is(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool).unwrap_or(false)
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[derive(Debug, Default)]
struct Page(String);

impl Page {
    /// A line with its heading, folded where it is too long.
    fn line(&mut self, heading: &str, text: &str) {
        self.folded(heading, INDENT, text);
    }

    fn folded(&mut self, heading: &str, indent: usize, text: &str) {
        let mut line = format!("{heading:<indent$}");
        if heading.chars().count() >= indent {
            line.push(' ');
        }
        let mut is_empty = true;
        for word in text.split(' ') {
            if !is_empty && line.chars().count() + 1 + word.chars().count() > COLUMNS {
                let _ = writeln!(self.0, "{}", line.trim_end());
                line = " ".repeat(indent);
                is_empty = true;
            }
            if !is_empty {
                line.push(' ');
            }
            line.push_str(word);
            is_empty = false;
        }
        let _ = writeln!(self.0, "{}", line.trim_end());
    }

    fn step(&mut self, step: &Value) {
        let took = step.get("took_ns").and_then(Value::as_u64);
        let took = took.map_or_else(String::new, |took| format!(" ({took} ns)"));
        match of(step, "step") {
            "headers" => self.headers(step, &took),
            "flow_table" => self.flow_table(step, &took),
            "review" => {
                let text = match of(step, "outcome") {
                    "goes_on" => "a flow of an older plan; the plan in force permits it".to_owned(),
                    "ended" => "a flow of an older plan, whose server is gone; it ends".to_owned(),
                    _ => format!("a flow of an older plan, refused: {}", of(step, "reason")),
                };
                self.line("review", &(text + &took));
            }
            "lapsed" => self.line("flow", &format!("it was over; this packet may open another{took}")),
            "policy" => self.policy("policy", of(step, "policy"), step, &took),
            "outflow" => {
                self.policy(
                    "outflow",
                    &format!("{} at {}", of(step, "tuple"), of(step, "interface")),
                    step,
                    &took,
                );
            }
            "default" => {
                self.line("policy", &format!("nothing has decided: the default is {}", of(step, "verdict")));
            }
            "director" => self.director(step),
            "stick_table" => self.stick(step),
            "scheduler" => self.scheduler(step, &took),
            "source_nat" => {
                let port = step.get("port").and_then(Value::as_u64);
                let port = port.map_or_else(|| "no port is left".to_owned(), |port| format!("port {port}"));
                let wanted = number(step, "wanted");
                self.line("source NAT", &format!("{}: {port}, wanted {wanted}{took}", of(step, "address")));
            }
            "opened" => {
                let evicted =
                    if is(step, "half_open_evicted") { "; the oldest half-open one gave way" } else { "" };
                self.line("flow", &format!("entered{evicted}{took}"));
            }
            "sent_on" => self.sent_on(step, &took),
            "end" => self.end(step.get("end").unwrap_or(&Value::Null)),
            other => self.line(other, &took),
        }
    }

    fn headers(&mut self, step: &Value, took: &str) {
        let what = match (is(step, "is_error_about_it"), is(step, "is_fragment")) {
            (true, _) => "an ICMP error about ",
            (false, true) => "a fragment of ",
            (false, false) => "",
        };
        self.line("headers", &format!("{what}{}{took}", of(step, "tuple")));
    }

    fn flow_table(&mut self, step: &Value, took: &str) {
        if !is(step, "hit") {
            return self.line("flow table", &format!("no such flow{took}"));
        }
        let way = if of(step, "direction") == "to_server" { "to the real server" } else { "to the client" };
        let old = if is(step, "is_of_older_plan") { ", of an older plan" } else { "" };
        let half = if is(step, "is_half_open") { ", half open" } else { "" };
        let lives = step.get("lives_ns").and_then(Value::as_u64);
        let lives = lives.map_or_else(|| ", over".to_owned(), |ns| format!(", lives {}", seconds(ns)));
        let counts = format!(
            ", {} packets from the client, {} from the server",
            number(step, "packets_from_client"),
            number(step, "packets_from_server")
        );
        let head = format!("{} of {} / {}", of(step, "state"), of(step, "director"), of(step, "server"));
        self.line("flow table", &format!("hit, {way}: {head}{half}{old}{lives}{counts}{took}"));
    }

    fn policy(&mut self, heading: &str, name: &str, step: &Value, took: &str) {
        let by = step.get("by").filter(|by| !by.is_null());
        let by =
            by.map_or_else(String::new, |by| format!(", by {} rule {}", of(by, "flow"), number(by, "rule")));
        let verdict = match some(step, "verdict") {
            Some("skip") if is(step, "is_component") => "skip".to_owned(),
            Some("skip") => "no rule matches".to_owned(),
            Some(verdict) => format!("{verdict}{by}"),
            None => "not known: a component".to_owned(),
        };
        self.line(heading, &format!("{name}: {verdict}{took}"));
        let rules = list(step, "rules");
        let (head, tail) = if rules.len() > RULES_SHOWN * 2 {
            let (head, rest) = rules.split_at(RULES_SHOWN);
            (head, rest.split_at(rest.len() - RULES_SHOWN).1)
        } else {
            (rules, &[][..])
        };
        head.iter().for_each(|rule| self.rule(rule));
        if !tail.is_empty() {
            let hidden = rules.len() - head.len() - tail.len();
            self.folded("", INDENT + 2, &format!("... {hidden} more that do not match ..."));
        }
        tail.iter().for_each(|rule| self.rule(rule));
    }

    fn rule(&mut self, rule: &Value) {
        let text = match of(rule, "outcome") {
            "passed_over" => format!("{}: passed over, its policy is skip", of(rule, "flow")),
            outcome => {
                let came = match outcome {
                    "matched" => format!("yes: {}", of(rule, "policy")),
                    "ignored" => "yes: leaves this flow".to_owned(),
                    "failed" => format!("no: {}", of(rule, "condition")),
                    _ => format!("not known: {}", of(rule, "condition")),
                };
                format!("{} {}: {} -- {came}", of(rule, "flow"), number(rule, "rule"), of(rule, "text"))
            }
        };
        self.folded(&" ".repeat(INDENT), INDENT + 2, &text);
    }

    fn director(&mut self, step: &Value) {
        let text = match (some(step, "director"), some(step, "refused")) {
            (Some(director), None) => director.to_owned(),
            (Some(director), Some(reason)) => {
                format!("{director}, which takes no flow of this packet: {reason}")
            }
            (None, _) => "none serves this address, port and protocol".to_owned(),
        };
        self.line("director", &text);
    }

    fn stick(&mut self, step: &Value) {
        let client = of(step, "client");
        let text = match (some(step, "server"), is(step, "is_used")) {
            (Some(server), true) => format!("hit: {client} sticks to {server}"),
            (Some(server), false) => format!("{client} stuck to {server}, which takes no flows now"),
            (None, _) => format!("{client} sticks to nobody yet"),
        };
        self.line("stick table", &text);
    }

    fn scheduler(&mut self, step: &Value, took: &str) {
        let name = of(step, "scheduler");
        let picked = some(step, "server");
        let text = match picked {
            Some(server) => format!("{name} picks {server}{took}"),
            None if is(step, "is_unknown") => format!("{name}, a component: its pick is not known"),
            None => format!("{name} has no server for it{took}"),
        };
        self.line("scheduler", &text);
        if let (Some(of), Some(hash)) = (some(step, "hash_of"), some(step, "hash")) {
            self.folded("", INDENT, &format!("hash of {of}: {hash}"));
        }
        let draws: Vec<&str> = list(step, "draws").iter().filter_map(Value::as_str).collect();
        if !draws.is_empty() {
            self.folded("", INDENT, &format!("draws: {}", draws.join(" ")));
        }
        let candidates = list(step, "candidates");
        if !candidates.is_empty() {
            let _ = writeln!(
                self.0,
                "{:INDENT$}{:<24}{:>8}{:>10}{:>10}",
                "", "server", "weight", "active", "inactive"
            );
        }
        for one in candidates.iter().take(SERVERS_SHOWN) {
            let server = of(one, "server");
            let note = match (Some(server) == picked, is(one, "is_full"), is(one, "is_up")) {
                (true, ..) => "  <- picked",
                (_, true, _) => "  full",
                (_, _, false) => "  down",
                _ => "",
            };
            let short: String = server.chars().take(23).collect();
            let (weight, active, inactive) =
                (number(one, "weight"), number(one, "active"), number(one, "inactive"));
            let _ = writeln!(self.0, "{:INDENT$}{short:<24}{weight:>8}{active:>10}{inactive:>10}{note}", "");
        }
        if let Some(more) = candidates.len().checked_sub(SERVERS_SHOWN).filter(|more| *more > 0) {
            self.folded("", INDENT, &format!("... and {more} more"));
        }
    }

    fn sent_on(&mut self, step: &Value, took: &str) {
        let change = step.get("change").unwrap_or(&Value::Null);
        match of(change, "kind") {
            "translated" => {
                self.line("rewrite", &format!("{}{took}", of(change, "before")));
                self.folded("", INDENT - 3, &format!("-> {}", of(change, "after")));
            }
            "tunnel" => self.line(
                "tunnel",
                &format!(
                    "{} from {} to {}, {} bytes more{took}",
                    of(change, "encapsulation"),
                    of(change, "source"),
                    of(change, "destination"),
                    number(change, "overhead_bytes")
                ),
            ),
            "error_translated" => {
                self.line("rewrite", &format!("the error and the packet that it quotes{took}"))
            }
            _ => self.line("rewrite", &format!("none: the packet stays as it is{took}")),
        }
        if let (Some(before), Some(after)) = (some(step, "state_before"), some(step, "state_after"))
            && before != after
        {
            self.line("flow", &format!("{before} -> {after}"));
        }
        if let Some(way) = step.get("way").filter(|way| !way.is_null()) {
            let link =
                some(way, "link_address").map_or_else(String::new, |mac| format!(", link address {mac}"));
            let table = number(way, "table");
            let table = if table == 0 { String::new() } else { format!(" by routing table {table}") };
            let (interface, hop) = (of(way, "interface"), of(way, "next_hop"));
            self.line(
                "next hop",
                &format!("{hop} on {interface}{table}{link}, mtu {}", number(way, "mtu_bytes")),
            );
        }
    }

    fn end(&mut self, end: &Value) {
        let by = of(end, "interface");
        let text = match of(end, "verdict") {
            "forward" => format!("forward by {by}"),
            "cut" => format!("cut into pieces, by {by}"),
            "answer" => format!("answered by {by}"),
            "hold" => "kept until its next hop or its first fragment is known".to_owned(),
            "consume" => "taken in; nothing leaves".to_owned(),
            "drop" => format!("drop: {} -- {}", of(end, "reason"), of(end, "meaning")),
            other => other.to_owned(),
        };
        self.line("verdict", &text);
    }
}

fn seconds(nanoseconds: u64) -> String {
    format!("{}.{} s", nanoseconds / SECOND_NS, nanoseconds % SECOND_NS / 100_000_000)
}
