//! Reads one service of the recording.
//!
//! What happened midway stands in its name, in words between underscores: `del2`, `add4`, `readd2`, `q3` (weight 0), `w2to5`,
//! each followed by `before_5th` (the fifth client) where it did not happen before the first. An added server has
//! the weight that `dests` gives it, or 1, or what the word says: `add4w3`.

use std::net::IpAddr;

use evenkeel_engine::Duration;
use evenkeel_engine::plan::{Builtin, FlowKey, Handling, Options, Persistence, Tuned};
use evenkeel_engine::wire::Protocol;
use serde_json::Value;

use super::super::{RecordingError, wrong};
use super::service::{Change, Dest, Setup};

/// The schedulers of IPVS.
const SCHEDULERS: [Builtin; 14] = [
    Builtin::RoundRobin,
    Builtin::WeightedRoundRobin,
    Builtin::LeastConnections,
    Builtin::WeightedLeastConnections,
    Builtin::Locality,
    Builtin::LocalityReplicated,
    Builtin::DestinationHashing,
    Builtin::SourceHashing,
    Builtin::ShortestExpectedDelay,
    Builtin::NeverQueue,
    Builtin::Failover,
    Builtin::Overflow,
    Builtin::MaglevHashing,
    Builtin::RandomTwos,
];

/// The highest number of a real server: it is the last byte of its address.
const NUMBER_MAX: u64 = 254;
/// How long clients stick when `-p` has no number: 300 s.
const PERSISTENCE_SECONDS: u64 = 300;

/// A service, and what its clients were given.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) setup: Setup,
    pub(super) steps: Vec<Step>,
    pub(super) clients: Vec<(IpAddr, u16)>,
    pub(super) picks: Vec<Option<u32>>,
}

/// A change before a client's first packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// The client's number, from 1.
    pub(super) before: usize,
    pub(super) change: Change,
}

/// What was read.
#[derive(Debug)]
pub(super) enum Reading {
    Service(Box<Entry>),
    /// A service that this engine can not be.
    Unlike {
        reason: String,
        decisions: usize,
    },
}

impl Entry {
    /// What was read out of it, for people.
    pub(super) fn notes(&self) -> Vec<String> {
        let Setup { tuned, dests, is_one_packet, persistence, .. } = &self.setup;
        let weights: Vec<String> = dests.iter().map(|dest| dest.weight.to_string()).collect();
        let mut notes = vec![tuned.kind.name().to_owned(), format!("weights {}", weights.join(" "))];
        if tuned.options.fallback == Some(true) {
            notes.push("fallback".to_owned());
        }
        if tuned.options.key == Some(FlowKey::SourcePort) {
            notes.push("ports".to_owned());
        }
        if *is_one_packet {
            notes.push("one packet".to_owned());
        }
        if let Some(persistence) = persistence {
            notes.push(format!("persistence {} s", persistence.timeout.as_secs()));
        }
        notes.extend(self.steps.iter().map(|step| match &step.change {
            Change::Remove(number) => format!("without {number} from client {}", step.before),
            Change::Add(dest) => format!("with {} from client {}", dest.number, step.before),
            Change::Weight(number, weight) => {
                format!("{number} weighs {weight} from client {}", step.before)
            }
        }));
        notes
    }
}

/// Reads the service called `name`.
///
/// # Errors
/// When it is not of the format.
pub(super) fn read(name: &str, value: &Value) -> Result<Reading, RecordingError> {
    let at = |key: &str| format!("{name}.{key}");
    let part = |key: &str| value.get(key).unwrap_or(&Value::Null);
    let list = |key: &'static str| part(key).as_array().ok_or_else(|| wrong(&at(key), "a list", part(key)));
    let picks = list("picks")?;
    let unlike = |reason: String| Ok(Reading::Unlike { reason, decisions: picks.len() });
    let protocol = match part("proto").as_str() {
        Some("UDP") => Protocol::UDP,
        Some("TCP") => Protocol::TCP,
        Some(other) => return unlike(format!("the protocol {other}")),
        None => return Err(wrong(&at("proto"), "\"UDP\" or \"TCP\"", part("proto"))),
    };
    let scheduler = part("sched").as_str().ok_or_else(|| wrong(&at("sched"), "a text", part("sched")))?;
    let Some(kind) = SCHEDULERS.into_iter().find(|kind| kind.name() == scheduler) else {
        return unlike(format!("the scheduler {scheduler}"));
    };
    let mut clients = Vec::new();
    for (number, client) in list("clients")?.iter().enumerate() {
        clients.push(read_client(&format!("{name}.clients[{number}]"), client)?);
    }
    let mut setup = Setup {
        protocol,
        is_v4: clients.first().is_none_or(|(address, _)| address.is_ipv4()),
        tuned: Tuned { kind, options: options(kind, part("flags")) },
        is_one_packet: false,
        persistence: None,
        handling: Handling::default(),
        dests: Vec::new(),
    };
    let words = if part("extra").is_null() { &[][..] } else { list("extra")? };
    if let Err(word) = read_words(words, &mut setup) {
        return unlike(format!("the word {word} of ipvsadm"));
    }
    for (number, dest) in list("dests")?.iter().enumerate() {
        match read_dest(&format!("{name}.dests[{number}]"), dest)? {
            Ok(dest) => setup.dests.push(dest),
            Err(word) => return unlike(format!("the word {word} of ipvsadm")),
        }
    }
    if clients.len() != picks.len() {
        let expected = "as many as there are clients";
        return Err(wrong(&at("picks"), expected, &Value::from(picks.len())));
    }
    if kind == Builtin::RandomTwos {
        return unlike("what was drawn at random".to_owned());
    }
    let mut recorded = Vec::new();
    for (number, pick) in picks.iter().enumerate() {
        recorded.push(read_pick(&format!("{name}.picks[{number}]"), pick)?);
    }
    let steps = steps(name, &mut setup.dests);
    Ok(Reading::Service(Box::new(Entry { setup, steps, clients, picks: recorded })))
}

/// What the flags of a scheduler say. Where none is said, it is as in the kernel: without fallback and ports.
fn options(kind: Builtin, flags: &Value) -> Options {
    let mut options = Options::default();
    if !matches!(kind, Builtin::SourceHashing | Builtin::MaglevHashing) {
        return options;
    }
    let listed = flags.as_array().into_iter().flatten().filter_map(Value::as_str);
    let flags: Vec<&str> =
        flags.as_str().into_iter().chain(listed).flat_map(|text| text.split(',')).collect();
    let has = |names: [&str; 3]| flags.iter().any(|flag| names.contains(&flag.trim()));
    options.fallback = Some(has(["sh-fallback", "mh-fallback", "flag-1"]));
    options.key = has(["sh-port", "mh-port", "flag-2"]).then_some(FlowKey::SourcePort);
    options
}

fn read_client(at: &str, value: &Value) -> Result<(IpAddr, u16), RecordingError> {
    let address = value.get(0).and_then(Value::as_str).and_then(|text| text.parse().ok());
    let port = value.get(1).and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
    address.zip(port).ok_or_else(|| wrong(at, "[\"address\", port]", value))
}

fn read_pick(at: &str, value: &Value) -> Result<Option<u32>, RecordingError> {
    if value.is_null() || value.as_str().is_some_and(|text| text.starts_with("err:")) {
        return Ok(None);
    }
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    number.map(Some).ok_or_else(|| wrong(at, "the number of a real server, \"err:N\" or null", value))
}

/// A word as `ipvsadm` would get it.
fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A real server, or the word that is not understood.
fn read_dest(at: &str, value: &Value) -> Result<Result<Dest, String>, RecordingError> {
    let expected = "[number from 1 to 254, weight, words of ipvsadm ...]";
    let number = value.get(0).and_then(Value::as_u64).filter(|number| (1..=NUMBER_MAX).contains(number));
    let weight = value.get(1).and_then(Value::as_u64).filter(|weight| *weight <= 65_535);
    let both = number.zip(weight).ok_or_else(|| wrong(at, expected, value))?;
    let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let mut dest = Dest::new(narrow(both.0), narrow(both.1));
    let words: Vec<String> = value.as_array().into_iter().flatten().skip(2).map(word).collect();
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let place = match word {
            "-x" | "--u-threshold" => &mut dest.upper,
            "-y" | "--l-threshold" => &mut dest.lower,
            "-w" | "--weight" => &mut dest.weight,
            // How packets reach it changes nothing about who gets them.
            "-g" | "-i" | "-m" | "--gatewaying" | "--ipip" | "--masquerading" => continue,
            other => return Ok(Err(other.to_owned())),
        };
        let Some(number) = words.next().and_then(|word| word.parse().ok()) else {
            return Ok(Err(word.to_owned()));
        };
        *place = number;
    }
    Ok(Ok(dest))
}

/// Reads what else was said of the service; the word that is not understood otherwise.
fn read_words(values: &[Value], setup: &mut Setup) -> Result<(), String> {
    let words: Vec<String> = values.iter().map(word).collect();
    let mut words = words.iter().map(String::as_str).peekable();
    while let Some(word) = words.next() {
        match word {
            "-p" | "--persistent" => {
                let seconds = words.peek().and_then(|word| word.parse::<u64>().ok());
                if seconds.is_some() {
                    words.next();
                }
                let timeout = Duration::from_secs(seconds.unwrap_or(PERSISTENCE_SECONDS));
                let lengths = setup.persistence.map_or((32, 128), |known| (known.length_v4, known.length_v6));
                setup.persistence = Some(Persistence { timeout, length_v4: lengths.0, length_v6: lengths.1 });
            }
            "-M" | "--netmask" => {
                let length = words.next().and_then(mask_length).ok_or_else(|| word.to_owned())?;
                let timeout = Duration::from_secs(PERSISTENCE_SECONDS);
                let default = Persistence { timeout, length_v4: 32, length_v6: 128 };
                let persistence = setup.persistence.get_or_insert(default);
                match setup.is_v4 {
                    true => persistence.length_v4 = length.min(32),
                    false => persistence.length_v6 = length.min(128),
                }
            }
            "-o" | "--ops" => setup.is_one_packet = true,
            other => return Err(other.to_owned()),
        }
    }
    Ok(())
}

/// How many bits a mask keeps, from either of its forms.
fn mask_length(text: &str) -> Option<u8> {
    let mask = text.parse::<std::net::Ipv4Addr>().map(std::net::Ipv4Addr::to_bits);
    let length = mask.map(|mask| mask.leading_ones()).or_else(|_| text.parse::<u32>()).ok()?;
    u8::try_from(length).ok()
}

/// What happened midway. A server that is added later does not stand among `dests` any more.
fn steps(name: &str, dests: &mut Vec<Dest>) -> Vec<Step> {
    let words: Vec<&str> = name.split('_').collect();
    let mut steps = Vec::new();
    for (place, word) in words.iter().enumerate() {
        let rest = words.get(place + 1..).unwrap_or_default();
        let Some(change) = change(word, dests) else { continue };
        let before = match rest {
            ["before", ordinal, ..] => number(ordinal),
            ["after", ordinal, ..] => number(ordinal).map(|number| number + 1),
            _ => Some(1),
        };
        let before = before.and_then(|before| usize::try_from(before).ok()).unwrap_or(1).max(1);
        if let (Change::Add(dest), true) = (&change, before > 1) {
            // What comes back was there before; what comes for the first time was not.
            if !word.starts_with("re") {
                dests.retain(|known| known.number != dest.number);
            }
        }
        steps.push(Step { before, change });
    }
    steps
}

/// The number that a word begins with.
fn number(word: &str) -> Option<u32> {
    let end = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
    word.get(..end)?.parse().ok()
}

fn change(word: &str, dests: &[Dest]) -> Option<Change> {
    let pair = |text: &str, between: &str| {
        let (first, second) = text.split_once(between)?;
        Some((first.parse::<u32>().ok()?, second.parse::<u32>().ok()?))
    };
    let whole = |text: &str| text.parse::<u32>().ok();
    if let Some(rest) = word.strip_prefix("del") {
        return whole(rest).map(Change::Remove);
    }
    if let Some(rest) = word.strip_prefix("readd").or_else(|| word.strip_prefix("add")) {
        let (number, weight) = pair(rest, "w")
            .map(|(number, weight)| (number, Some(weight)))
            .or_else(|| Some((whole(rest)?, None)))?;
        let known = dests.iter().find(|dest| dest.number == number).cloned();
        let mut dest = known.unwrap_or_else(|| Dest::new(number, 1));
        dest.weight = weight.unwrap_or(dest.weight);
        return Some(Change::Add(dest));
    }
    if let Some(rest) = word.strip_prefix('q') {
        return whole(rest).map(|number| Change::Weight(number, 0));
    }
    let rest =
        word.strip_prefix("set").or_else(|| word.strip_prefix('w')).or_else(|| word.strip_prefix("edit"))?;
    let (number, weight) = pair(rest, "to").or_else(|| pair(rest, "w"))?;
    Some(Change::Weight(number, weight))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_midway_is_read_out_of_the_name() {
        let dests = || (1..=3).map(|number| Dest::new(number, number)).collect::<Vec<_>>();
        let of = |name: &str| {
            let mut dests = dests();
            let steps = steps(name, &mut dests);
            let steps = steps.into_iter().map(|step| (step.before, step.change)).collect::<Vec<_>>();
            (steps, dests.iter().map(|dest| dest.number).collect::<Vec<_>>())
        };
        let all = vec![1, 2, 3];
        assert_eq!(of("rr_del2_before_5th"), (vec![(5, Change::Remove(2))], all.clone()));
        assert_eq!(of("sh_5eq_q3_fb"), (vec![(1, Change::Weight(3, 0))], all.clone()));
        assert_eq!(of("wrr_w2to7_before_2nd"), (vec![(2, Change::Weight(2, 7))], all.clone()));
        assert_eq!(of("mh_q1_after_9th"), (vec![(10, Change::Weight(1, 0))], all.clone()));
        assert_eq!(of("rr_add3_before_4th"), (vec![(4, Change::Add(Dest::new(3, 3)))], vec![1, 2]));
        assert_eq!(of("rr_add4w9_before_4th"), (vec![(4, Change::Add(Dest::new(4, 9)))], all.clone()));
        assert_eq!(
            of("lc_del1_before_3rd_readd1_before_6th"),
            (vec![(3, Change::Remove(1)), (6, Change::Add(Dest::new(1, 1)))], all.clone())
        );
        for name in [
            "rr_3",
            "wrr_432",
            "sh_w421",
            "ovf_tcp_w321",
            "rr_uthresh2_on_1",
            "mh_5eq_fb",
            "rr_persist60_mask24",
        ] {
            assert_eq!(of(name), (Vec::new(), all.clone()), "{name}");
        }
    }
}
