//! The commands of `evenkeel ctl`: what an operator asks a running engine.
//!
//! In: one line of words. Out: one JSON value, or a sentence that says what is wrong with the line. Works on
//! a bare engine, so that the forwarder and the simulator answer alike. Never waits and never does I/O.

mod explain;
mod render;
mod socket;
mod status;

use evenkeel_config::{is_component, scheduler_by_name};
use evenkeel_engine::plan::{Builtin, SchedulerPlan};
use evenkeel_engine::{Engine, Instant};
use serde_json::{Value, json};

pub use explain::{BYTES_MAX as EXPLAIN_BYTES_MAX, TRACE};
pub(crate) use explain::{Traced, seal, shown, wish};
pub use render::text;
pub(crate) use socket::{Answer, Listener, Reply};
pub use socket::{CLIENTS_MAX, ControlError, IDLE_MAX, LINE_BYTES_MAX, request, stream};
pub(crate) use status::event;

/// One command of the control socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// The first word.
    pub name: &'static str,
    /// The words that follow, as they are shown.
    pub arguments: &'static str,
    /// What it does, in one line.
    pub help: &'static str,
}

/// Every command, in the order in which `help` shows them.
pub const COMMANDS: &[Command] = &[
    Command { name: "stats", arguments: "", help: "counters, directors, real servers, guests, device" },
    Command { name: "directors", arguments: "", help: "directors and their real servers" },
    Command { name: "drops", arguments: "", help: "every reason for a drop, with its count and meaning" },
    Command { name: "rules", arguments: "", help: "flow and outflow rules, with how often each has decided" },
    Command {
        name: "explain",
        arguments: "PACKET...",
        help: "what would become of a packet now, and why; changes nothing",
    },
    Command { name: "events", arguments: "", help: "what happened lately: faults of guests, new plans" },
    Command { name: "weight", arguments: "DIRECTOR SERVER N", help: "set a weight, 0 to 65535; 0 drains" },
    Command {
        name: "director",
        arguments: "DIRECTOR scheduler NAME|FILE",
        help: "another scheduler until the next reload: a built-in one, bundled:NAME, a file",
    },
    Command { name: "reload", arguments: "", help: "read the configuration again and apply it" },
    Command { name: "version", arguments: "", help: "the version of the forwarder" },
    Command { name: "help", arguments: "", help: "this list" },
];

/// The most suggestions for a word that is not a command.
const SUGGESTIONS_MAX: usize = 3;

/// How alike two words must be, from 0 to 1, for one to be suggested for the other: one or two wrong letters
/// in a word of six.
const LIKENESS_MIN: f64 = 0.7;

/// Runs one command on an engine.
///
/// `reload` needs a configuration file and is answered with an error here; the forwarder answers it itself.
/// `events` takes the events that wait in the engine.
///
/// # Errors
/// With a sentence for the operator, when the line is not a command or the command is refused.
pub fn execute(engine: &mut Engine, line: &str, now: Instant) -> Result<Value, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let Some((&name, arguments)) = words.split_first() else {
        return Err("an empty line; help lists the commands".to_owned());
    };
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        return Err(unknown(name));
    };
    let wanted = command.arguments.split_whitespace().count();
    let is_fit = if command.arguments.ends_with("...") {
        arguments.len() >= wanted
    } else {
        arguments.len() == wanted
    };
    if !is_fit {
        return Err(format!("usage: {}", usage(command)));
    }
    match (name, arguments) {
        ("stats", _) => Ok(status::stats(engine)),
        ("directors", _) => Ok(json!({ "directors": status::directors(engine) })),
        ("drops", _) => Ok(json!({ "drops": status::drops(engine) })),
        ("rules", _) => Ok(json!({ "rules": status::rules(engine) })),
        ("events", _) => Ok(json!({ "events": status::waiting_events(engine) })),
        ("explain", _) => explain::explain(engine, line, now),
        ("version", _) => Ok(json!({ "version": env!("CARGO_PKG_VERSION") })),
        ("help", _) => Ok(help()),
        ("weight", &[director, server, weight]) => set_weight(engine, director, server, weight, now),
        ("director", &[director, "scheduler", scheduler]) => set_scheduler(engine, director, scheduler, now),
        ("director", _) => Err(format!("usage: {}", usage(command))),
        _ => Err(format!("{name} needs a running forwarder with a configuration file")),
    }
}

fn set_weight(
    engine: &mut Engine,
    director: &str,
    server: &str,
    weight: &str,
    now: Instant,
) -> Result<Value, String> {
    let number: u32 =
        weight.parse().map_err(|_| format!("{weight} is not a weight; weights are 0 to 65535"))?;
    engine.set_weight(director, server, number, now).map_err(|error| error.to_string())?;
    Ok(json!({ "director": director, "server": server, "weight": number }))
}

/// A built-in scheduler; components need a host.
fn set_scheduler(
    engine: &mut Engine,
    director: &str,
    scheduler: &str,
    now: Instant,
) -> Result<Value, String> {
    if is_component(scheduler) {
        return Err(format!("{scheduler} is a component, and those need a running forwarder"));
    }
    // Only components take anything from the one before.
    let plan = scheduler_by_name(scheduler, &SchedulerPlan::Builtin(Builtin::RoundRobin))?;
    engine.set_scheduler(director, plan, None, now).map_err(|error| error.to_string())?;
    Ok(json!({ "director": director, "scheduler": scheduler }))
}

fn help() -> Value {
    let list: Vec<Value> = COMMANDS
        .iter()
        .map(|command| json!({ "name": command.name, "arguments": command.arguments, "help": command.help }))
        .collect();
    json!({ "commands": list })
}

fn usage(command: &Command) -> String {
    format!("{} {}", command.name, command.arguments).trim_end().to_owned()
}

/// Adds a key to an answer that is an object.
pub(crate) fn insert(answer: &mut Value, key: &str, value: impl Into<Value>) {
    if let Some(map) = answer.as_object_mut() {
        map.insert(key.to_owned(), value.into());
    }
}

/// What to say of a word that is not a command: the nearest ones, or the whole list.
fn unknown(word: &str) -> String {
    // A word of any length may come in; the comparison takes time by the product of both lengths.
    let shown: String = word.chars().take(32).filter(|character| !character.is_control()).collect();
    let mut near: Vec<(f64, &str)> = COMMANDS
        .iter()
        .map(|command| (strsim::jaro_winkler(&shown, command.name), command.name))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .collect();
    near.sort_by(|one, two| two.0.total_cmp(&one.0));
    let names: Vec<&str> = near.into_iter().take(SUGGESTIONS_MAX).map(|(_, name)| name).collect();
    if names.is_empty() {
        let all: Vec<&str> = COMMANDS.iter().map(|command| command.name).collect();
        return format!("unknown command {shown}; there are {}", all.join(", "));
    }
    format!("unknown command {shown}; did you mean {}?", names.join(" or "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_engine::plan::{AgentPlan, Binding, Builtin, DirectorPlan, Plan, ServerPlan};
    use evenkeel_engine::wire::Protocol;
    use evenkeel_engine::{DropReason, Guests};

    fn engine() -> Engine {
        let mut plan = Plan::empty();
        let bind = Binding::of([10, 0, 0, 3].into(), 80, Protocol::TCP);
        let server = ServerPlan::new("s1", [10, 0, 3, 20].into(), 8080, 4);
        let director = DirectorPlan::new("web", bind, Builtin::WeightedRoundRobin, vec![server]);
        plan.directors.push(director);
        Engine::new(plan, Guests::default(), Instant::ZERO).unwrap()
    }

    fn run(engine: &mut Engine, line: &str) -> Result<Value, String> {
        execute(engine, line, Instant::ZERO)
    }

    #[test]
    fn every_command_that_needs_no_file_answers_and_renders() {
        let mut engine = engine();
        for line in ["stats", "directors", "drops", "events", "weight web s1 7", "version", "help"] {
            let value = run(&mut engine, line).unwrap();
            assert!(!text(line, &value).is_empty(), "{line}");
        }
        assert!(run(&mut engine, "reload").unwrap_err().contains("configuration file"));
    }

    #[test]
    fn stats_name_every_server_with_its_weight() {
        let value = run(&mut engine(), "stats").unwrap();
        let server = &value["directors"][0]["servers"][0];
        assert_eq!((&server["name"], &server["weight"]), (&json!("s1"), &json!(4)));
        assert_eq!(value["directors"][0]["binds"], json!(["10.0.0.3:80/tcp"]));
        assert_eq!(value["generation"], 1);
        assert!(value["packets"]["in"].is_u64());
    }

    #[test]
    fn what_an_agent_says_is_shown_with_its_reason_and_its_age() {
        let mut plan = engine().plan().clone();
        plan.directors[0].agent_check = Some(AgentPlan::at(8888));
        let mut engine = Engine::new(plan, Guests::default(), Instant::ZERO).unwrap();
        engine.handle_timeout(Instant::ZERO);
        let value = run(&mut engine, "stats").unwrap();
        assert!(text("stats", &value).contains("agent of s1 has said nothing yet"), "{value:#}");
        let check = engine.poll_agent_check(Instant::ZERO).unwrap();
        let now = Instant::from_nanos(1_000_000);
        assert!(engine.agent_answered(&check.reply(b"down 50% x #disk \x1bis full\n"), now));
        let value = execute(&mut engine, "stats", Instant::ZERO).unwrap();
        let server = &value["directors"][0]["servers"][0];
        assert_eq!((&server["weight"], &server["effective_weight"]), (&json!(4), &json!(2)));
        assert_eq!(
            (&server["agent"]["down"], &server["agent"]["mode"]),
            (&json!("disk ?is full"), &json!("ready"))
        );
        assert_eq!((&server["agent"]["said_ms_ago"], &value["agents"]["bad_words"]), (&json!(0), &json!(1)));
        let text = text("stats", &value);
        for words in [
            "2 of 4",
            " down ",
            "agent of s1 said \"down 50% x #disk ?is full\" 0.000 s ago; down: disk ?is full; asked 1, failed 0",
            "agents   asked 1  answered 1  failed 0  bad words 1",
        ] {
            assert!(text.contains(words), "{words}:\n{text}");
        }
        let events = run(&mut engine, "events").unwrap();
        assert_eq!(events["events"][1]["state"], "down: disk ?is full", "{events:#}");
    }

    #[test]
    fn a_new_weight_is_seen_in_the_next_answer() {
        let mut engine = engine();
        run(&mut engine, " weight  web s1 0 ").unwrap();
        let value = run(&mut engine, "directors").unwrap();
        assert_eq!(value["directors"][0]["servers"][0]["weight"], 0);
    }

    #[test]
    fn a_scheduler_changes_by_name_and_a_misspelt_one_is_answered_with_the_nearest() {
        let mut engine = engine();
        let value = run(&mut engine, "director web scheduler p2c").unwrap();
        assert_eq!(text("director web scheduler p2c", &value), "director web: scheduler p2c\n");
        assert_eq!(run(&mut engine, "directors").unwrap()["directors"][0]["scheduler"], "p2c");
        for (line, words) in [
            ("director web scheduler maglv", "did you mean maglev?"),
            ("director web scheduler xyz", "built in are rr"),
            ("director mail scheduler rr", "no director mail"),
            ("director web scheduler bundled:rr", "running forwarder"),
            ("director web scheduler x.wasm", "running forwarder"),
            ("director web policy rr", "usage: director DIRECTOR scheduler NAME|FILE"),
        ] {
            let error = run(&mut engine, line).unwrap_err();
            assert!(error.contains(words), "{line}: {error}");
        }
        assert_eq!(run(&mut engine, "directors").unwrap()["directors"][0]["scheduler"], "p2c");
    }

    #[test]
    fn drops_list_every_reason_with_its_meaning() {
        let value = run(&mut engine(), "drops").unwrap();
        let list = value["drops"].as_array().unwrap();
        assert_eq!(list.len(), DropReason::ALL.len());
        assert!(list.iter().all(|entry| entry["count"] == 0 && entry["help"] != ""));
    }

    #[test]
    fn rules_are_listed_with_their_comments_and_counts() {
        use evenkeel_engine::plan::{FlowAction, FlowPlan, FlowRule, PolicyPlan};
        let rule = FlowRule { comment: "all of it".to_owned(), ..FlowRule::matching(Vec::new()) };
        let flow = FlowPlan { name: "rest".to_owned(), action: FlowAction::Deny, rules: vec![rule] };
        let plan = Plan { policies: vec![PolicyPlan::Rules(vec![flow])], ..Plan::empty() };
        let mut engine = Engine::new(plan, Guests::default(), Instant::ZERO).unwrap();
        let answer = run(&mut engine, "rules").unwrap();
        assert_eq!(
            answer["rules"],
            json!([{ "flow": "rest", "rule": 1, "comment": "all of it", "count": 0 }])
        );
        assert!(text("rules", &answer).contains("all of it"));
    }

    #[test]
    fn a_misspelt_command_is_answered_with_the_nearest() {
        let error = run(&mut engine(), "stat").unwrap_err();
        assert!(error.contains("did you mean stats"), "{error}");
        let error = run(&mut engine(), "xyzzy").unwrap_err();
        assert!(error.contains("there are stats, directors"), "{error}");
    }

    #[test]
    fn wrong_arguments_are_answered_with_the_usage_and_change_nothing() {
        let mut engine = engine();
        let before = engine.plan().clone();
        assert_eq!(run(&mut engine, "weight web s1").unwrap_err(), "usage: weight DIRECTOR SERVER N");
        assert!(run(&mut engine, "weight web s1 many").unwrap_err().contains("many is not a weight"));
        assert!(run(&mut engine, "weight web s1 65536").unwrap_err().contains("65535"));
        assert_eq!(run(&mut engine, "weight web s9 1").unwrap_err(), "director web has no real server s9");
        assert_eq!(run(&mut engine, "weight mail s1 1").unwrap_err(), "no director mail");
        assert_eq!(run(&mut engine, "stats now").unwrap_err(), "usage: stats");
        assert!(run(&mut engine, " \t ").unwrap_err().contains("empty line"));
        assert_eq!(engine.plan(), &before);
    }

    #[test]
    fn no_line_makes_the_interpreter_panic() {
        let mut engine = engine();
        let long = "x".repeat(LINE_BYTES_MAX);
        for line in ["\0", "\u{1b}[2J", "weight \u{0} \u{0} -1", "ünïcödé", long.as_str()] {
            let error = run(&mut engine, line).unwrap_err();
            assert!(error.len() < 200 && !error.contains('\u{1b}'), "{error:?}");
        }
    }
}
