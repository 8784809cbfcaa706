//! Which server HAProxy's `balance source` gave to each client address.
//!
//! In: the JSON object of `haproxy_source.json`: a list `source` of back ends, each with `hash_type`, `weights` and `decisions`,
//! a list of `[address, "sN"]`; and for the same clients, lists of servers after something happened to one of them:
//! `after_sN_weightW` and `after_sN_maint`. Before each such list everything else is as at first. A back end may
//! have a `balance_factor`; then every client's connection stays open.
//!
//! Every client is asked about in turn, by the scheduler `source` alone: it is a decision about an address, and the recorded
//! ones are of this host itself (127.0.0.0/8), from where no packet may come to a forwarder.

use std::net::IpAddr;

use evenkeel_engine::Instant;
use evenkeel_engine::director::{NewFlow, Scheduler, Selection, ServerId, ServerLoad, ServerView, native};
use evenkeel_engine::plan::{Builtin, HashType, Options as Settings, Tuned};
use evenkeel_engine::wire::{Address, FiveTuple, Protocol};
use serde_json::Value;

use super::ipvs_scheduling::decide;
use super::report::Report;
use super::{Options, RecordingError, parse, wrong};

/// The most servers: their addresses differ in one byte.
const SERVERS_MAX: usize = 254;

/// The highest weight of HAProxy.
const WEIGHT_MAX: u64 = 256;

/// The port of the recorded clients does not matter; each has its own address.
const CLIENT_PORT: u16 = 40_000;

/// Replays every back end of a recording.
///
/// # Errors
/// When the text is not of the format.
pub fn replay(text: &str, _options: Options) -> Result<Report, RecordingError> {
    let all = parse(text)?;
    let list = all.get("source").unwrap_or(&Value::Null);
    let list = list.as_array().ok_or_else(|| wrong("source", "a list of back ends", list))?;
    let mut report = Report::new("haproxy-source", "decisions");
    for (number, value) in list.iter().enumerate() {
        replay_one(&format!("source[{number}]"), value, &mut report)?;
    }
    Ok(report)
}

fn replay_one(at: &str, value: &Value, report: &mut Report) -> Result<(), RecordingError> {
    let backend = read_backend(at, value)?;
    let hash_type = value.get("hash_type").and_then(Value::as_str).unwrap_or_default();
    let weights: Vec<String> = backend.weights.iter().map(u32::to_string).collect();
    let name = format!("{at} {hash_type}, weights {}", weights.join(" "));
    let decisions = value.get("decisions").unwrap_or(&Value::Null);
    let decisions =
        decisions.as_array().ok_or_else(|| wrong(&format!("{at}.decisions"), "a list", decisions))?;
    let mut clients = Vec::new();
    let mut first = Vec::new();
    for (number, decision) in decisions.iter().enumerate() {
        let at = format!("{at}.decisions[{number}]");
        let address = decision.get(0).and_then(Value::as_str).and_then(|text| text.parse::<IpAddr>().ok());
        let address = address.ok_or_else(|| wrong(&at, "[\"address\", \"sN\"]", decision))?;
        clients.push(address);
        first.push(read_server(&at, decision.get(1).unwrap_or(&Value::Null))?);
    }
    report.begin(&name);
    phase(&backend, None, &clients, &first, report);
    for (key, list) in value.as_object().into_iter().flatten() {
        let Some(event) = key.strip_prefix("after_") else { continue };
        let at = format!("{at}.{key}");
        let change = change(event).ok_or_else(|| wrong(&at, "after_sN_weightW or after_sN_maint", list))?;
        let list = list.as_array().filter(|list| list.len() == clients.len());
        let list = list
            .ok_or_else(|| wrong(&at, "a server for each client", value.get(key).unwrap_or(&Value::Null)))?;
        let servers: Result<Vec<_>, _> = list
            .iter()
            .enumerate()
            .map(|(number, one)| read_server(&format!("{at}[{number}]"), one))
            .collect();
        report.begin(&format!("{name}, {key}"));
        phase(&backend, Some(change), &clients, &servers?, report);
    }
    Ok(())
}

/// A back end.
#[derive(Debug)]
struct Backend {
    tuned: Tuned,
    weights: Vec<u32>,
}

/// What happens to the server of a number, from 1.
#[derive(Clone, Copy, Debug)]
enum Change {
    Weight(usize, u32),
    Down(usize),
}

/// Asks about every client once, after something has happened.
fn phase(
    backend: &Backend,
    change: Option<Change>,
    clients: &[IpAddr],
    recorded: &[Option<u32>],
    report: &mut Report,
) {
    let mut scheduler = native(&backend.tuned, 0);
    let mut servers: Vec<ServerView> = (1..).zip(&backend.weights).map(view).collect();
    scheduler.update(&servers, Instant::ZERO);
    match change {
        Some(Change::Weight(number, weight)) => {
            servers.iter_mut().skip(number - 1).take(1).for_each(|server| server.weight = weight);
        }
        Some(Change::Down(number)) => {
            servers.iter_mut().skip(number - 1).take(1).for_each(|server| server.is_up = false);
        }
        None => {}
    }
    scheduler.update(&servers, Instant::ZERO);
    let mut loads = vec![ServerLoad::default(); servers.len()];
    for (number, (client, recorded)) in clients.iter().zip(recorded).enumerate() {
        let ours = ask(&mut *scheduler, &servers, &mut loads, *client);
        decide(report, &format!("client {}, {client}", number + 1), *recorded, ours);
    }
}

fn view((number, weight): (u64, &u32)) -> ServerView {
    let last = u8::try_from(number).unwrap_or(u8::MAX);
    let address = IpAddr::from([10, 0, 0, last]);
    ServerView { id: ServerId(number), address, port: 80, weight: *weight, is_up: true, is_full: false }
}

fn ask(
    scheduler: &mut dyn Scheduler,
    servers: &[ServerView],
    loads: &mut [ServerLoad],
    client: IpAddr,
) -> Option<u32> {
    let tuple = FiveTuple {
        source: client.into(),
        destination: Address::v4([10, 0, 0, 254]),
        source_port: CLIENT_PORT,
        destination_port: 80,
        protocol: Protocol::TCP,
    };
    let mut answer = [None];
    let flow = [NewFlow { hash: 0, tuple }];
    scheduler.pick(&mut Selection::new(&flow, servers, loads, &mut answer), Instant::ZERO);
    let [answer] = answer;
    answer.map(|place| u32::from(place) + 1)
}

/// What happened, in the words of a key.
fn change(event: &str) -> Option<Change> {
    let (server, what) = event.split_once('_')?;
    let number: usize = server.strip_prefix('s')?.parse().ok().filter(|number| *number > 0)?;
    match what {
        "maint" | "down" => Some(Change::Down(number)),
        "drain" => Some(Change::Weight(number, 0)),
        _ => Some(Change::Weight(number, what.strip_prefix("weight")?.parse().ok()?)),
    }
}

/// The number in `sN`; nobody for null and an empty text.
fn read_server(at: &str, value: &Value) -> Result<Option<u32>, RecordingError> {
    match value.as_str() {
        None if value.is_null() => Ok(None),
        Some("") => Ok(None),
        text => {
            let number = text.and_then(|text| text.strip_prefix('s')).and_then(|text| text.parse().ok());
            number.map(Some).ok_or_else(|| wrong(at, "\"sN\"", value))
        }
    }
}

fn read_backend(at: &str, value: &Value) -> Result<Backend, RecordingError> {
    let part = |key: &str| value.get(key).unwrap_or(&Value::Null);
    let weights = part("weights").as_array().filter(|weights| weights.len() <= SERVERS_MAX);
    let weights =
        weights.ok_or_else(|| wrong(&format!("{at}.weights"), "a list of at most 254", part("weights")))?;
    let mut all = Vec::new();
    for (number, weight) in weights.iter().enumerate() {
        let expected = "a weight from 0 to 256";
        let value = weight
            .as_u64()
            .filter(|weight| *weight <= WEIGHT_MAX)
            .and_then(|weight| u32::try_from(weight).ok());
        let at = format!("{at}.weights[{number}]");
        all.push(value.ok_or_else(|| wrong(&at, expected, weight))?);
    }
    let hash_type = part("hash_type");
    let words: Vec<&str> = hash_type.as_str().unwrap_or("map-based").split_whitespace().collect();
    let mut options = Settings::default();
    match words.first() {
        None | Some(&"map-based") => options.hash_type = Some(HashType::MapBased),
        Some(&"consistent") => options.hash_type = Some(HashType::Consistent),
        Some(_) => {
            let expected = "\"map-based\" or \"consistent\", with a function and \"avalanche\"";
            return Err(wrong(&format!("{at}.hash_type"), expected, hash_type));
        }
    }
    // The function does not matter for an address. Without one, `consistent` spreads; with one, who says so.
    if words.len() > 1 {
        options.avalanche = Some(words.contains(&"avalanche"));
    }
    let factor = part("balance_factor").as_u64().or_else(|| part("hash_balance_factor").as_u64());
    options.balance_factor =
        factor.filter(|factor| *factor > 100).and_then(|factor| u32::try_from(factor).ok());
    Ok(Backend { tuned: Tuned { kind: Builtin::Source, options }, weights: all })
}
