//! Recordings of a Linux director between real hosts: every frame at every interface of a scenario.
//!
//! In: the JSON object of `ipvs_packets.json`: scenarios by name, each with `frames`, a list of
//! `[microseconds, "host.interface", "in" | "out", "hexadecimal"]`, and `tables`, the director's connection table in words.
//! The frames that came in at `lb` go into the engine at their times; what the engine sends is held against what `lb`
//! sent, byte for byte and interface by interface, behind these masks:
//!
//! * the identification of packets that the recorded kernel made itself;
//! * times, and with them the order of frames that have nothing to do with each other;
//! * frames that were recorded as they left, though they are listed as they came in: what came in is made up from the
//!   same packet one host earlier;
//! * the outer total length of GUE frames, which were recorded before they were finished;
//! * a port that the recorded kernel chose, once the engine has chosen another for the same flow.

mod explain;
mod topology;

use std::collections::BTreeMap;

use evenkeel_engine::Instant;
use evenkeel_engine::verdict::InterfaceId;
use serde_json::Value;

use super::bench::Bench;
use super::frame::{Parsed, mend};
use super::report::{Difference, Report};
use super::{Options, RecordingError, bytes, parse, wrong};
use explain::Explained;
use topology::{HOSTS, Scenario, Topology, is_own_mac};

/// The virtual time of the first frame: after the engine's own start.
const START_NANOSECONDS: u64 = 1_000_000_000;
/// How often a scenario is replayed to learn the ports that the engine chose: each turn settles those of the flows whose
/// answers were understood in the one before.
const TURNS_MAX: usize = 8;

/// A recorded frame.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Frame {
    microseconds: u64,
    host: String,
    interface: u16,
    is_in: bool,
    bytes: Vec<u8>,
}

/// A frame that the director sent, or that the engine sent.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sent {
    /// Its place on its interface.
    number: usize,
    microseconds: u64,
    bytes: Vec<u8>,
}

/// The frames of one interface in their order.
type ByInterface = BTreeMap<u16, Vec<Sent>>;

/// Ports that the recorded kernel chose, and those that the engine chose instead: by protocol, the real server's address and
/// the recorded port.
type Renamed = BTreeMap<(u32, Vec<u8>, u32), u32>;

/// Replays every scenario of a recording.
///
/// # Errors
/// When the text is not of the format, or a scenario describes nothing that this engine can be.
pub fn replay(text: &str, options: Options) -> Result<Report, RecordingError> {
    let all = parse(text)?;
    let scenarios = all.as_object().ok_or_else(|| wrong("the file", "an object of scenarios", &all))?;
    let mut report = Report::new("ipvs-packets", "frames");
    for (name, value) in scenarios {
        report.begin(name);
        let frames = read_frames(name, value)?;
        let tables = value.get("tables").and_then(|tables| tables.get("ipvs")).and_then(Value::as_str);
        let scenario = Scenario { name, frames: &frames, tables: tables.unwrap_or_default() };
        replay_one(&scenario, options, &mut report)?;
    }
    Ok(report)
}

fn read_frames(name: &str, scenario: &Value) -> Result<Vec<Frame>, RecordingError> {
    let path = format!("{name}.frames");
    let list = scenario.get("frames").unwrap_or(&Value::Null);
    let list = list.as_array().ok_or_else(|| wrong(&path, "a list of frames", list))?;
    let mut frames = Vec::with_capacity(list.len());
    for (number, value) in list.iter().enumerate() {
        let path = format!("{path}[{number}]");
        let Some([time, place, direction, digits]) = value.as_array().map(Vec::as_slice) else {
            return Err(wrong(
                &path,
                "[microseconds, \"host.interface\", \"in\" or \"out\", \"hex\"]",
                value,
            ));
        };
        let microseconds = time.as_u64();
        // Times become nanoseconds, after a start.
        let microseconds = microseconds.filter(|time| *time < u64::MAX / 2_000);
        let microseconds =
            microseconds.ok_or_else(|| wrong(&format!("{path}[0]"), "microseconds, a whole number", time))?;
        let parts = place.as_str().and_then(|place| place.split_once('.'));
        let known = parts.and_then(|(host, interface)| {
            let digits = interface.strip_prefix("eth").or_else(|| interface.strip_prefix('r'))?;
            let number = digits.parse::<u16>().ok().filter(|number| *number < 10)?;
            HOSTS.iter().any(|(known, _)| *known == host).then(|| (host.to_owned(), number))
        });
        let expected = "\"host.interface\" with the hosts cl, rt, lb, s1, s2 and interfaces eth0, r0 ...";
        let (host, interface) = known.ok_or_else(|| wrong(&format!("{path}[1]"), expected, place))?;
        let is_in = match direction.as_str() {
            Some("in") => true,
            Some("out") => false,
            _ => return Err(wrong(&format!("{path}[2]"), "\"in\" or \"out\"", direction)),
        };
        let bytes = bytes(&format!("{path}[3]"), digits)?;
        frames.push(Frame { microseconds, host, interface, is_in, bytes });
    }
    Ok(frames)
}

fn replay_one(scenario: &Scenario<'_>, options: Options, report: &mut Report) -> Result<(), RecordingError> {
    let topology = Topology::read(scenario, options);
    report.note(topology.words());
    let mut renamed = Renamed::new();
    let mut turn = run(scenario, &topology, &renamed)?;
    for _ in 0..TURNS_MAX {
        let before = renamed.len();
        learn_ports(&turn, &topology, &mut renamed);
        if renamed.len() == before {
            break;
        }
        turn = run(scenario, &topology, &renamed)?;
    }
    for _ in 0..turn.made_up {
        report.mask("frames listed as they left");
    }
    if turn.skipped > 0 {
        report.note(format!("{} frames could not be made up and were not fed", turn.skipped));
    }
    let interfaces: Vec<u16> = turn.recorded.keys().chain(turn.ours.keys()).copied().collect();
    let last = interfaces.into_iter().max().unwrap_or(0);
    for interface in 0..=last {
        let (recorded, ours) = (sent_by(&turn.recorded, interface), sent_by(&turn.ours, interface));
        let explained = Explained { topology: &topology, fed: &turn.fed, renamed: &renamed };
        judge_interface(interface, recorded, ours, &explained, report);
    }
    let drops: Vec<_> =
        turn.drops.iter().map(|(reason, count)| format!("{} {count}", reason.name())).collect();
    if !drops.is_empty() {
        report.note(format!("dropped: {}", drops.join(", ")));
    }
    Ok(())
}

/// What one replay came to.
struct Turn {
    fed: Vec<Vec<u8>>,
    recorded: ByInterface,
    ours: ByInterface,
    drops: Vec<(evenkeel_engine::DropReason, u64)>,
    made_up: u64,
    skipped: u64,
}

fn sent_by(all: &ByInterface, interface: u16) -> &[Sent] {
    all.get(&interface).map_or(&[], Vec::as_slice)
}

fn run(scenario: &Scenario<'_>, topology: &Topology, renamed: &Renamed) -> Result<Turn, RecordingError> {
    let plan = topology.plan();
    let refused = |error| RecordingError::Plan { case: scenario.name.to_owned(), error };
    let mut bench = Bench::new(plan).map_err(refused)?;
    let mut turn = Turn {
        fed: Vec::new(),
        recorded: ByInterface::new(),
        ours: ByInterface::new(),
        drops: Vec::new(),
        made_up: 0,
        skipped: 0,
    };
    let mut last = 0;
    for (number, frame) in scenario.frames.iter().enumerate() {
        last = frame.microseconds.max(last);
        if frame.host != "lb" {
            continue;
        }
        if !frame.is_in {
            push(&mut turn.recorded, frame.interface, frame.microseconds, frame.bytes.clone());
            continue;
        }
        let mut bytes = frame.bytes.clone();
        if bytes.get(6..12).is_some_and(is_own_mac) {
            let Some(came) = topology::as_it_came(scenario.frames, number) else {
                turn.skipped += 1;
                continue;
            };
            turn.made_up += 1;
            bytes = came;
        }
        rename(&mut bytes, renamed);
        let out = bench.feed(InterfaceId(frame.interface), &bytes, instant(frame.microseconds));
        turn.fed.push(bytes);
        turn.note(frame.microseconds, out);
    }
    let out = bench.pass_time(instant(last));
    turn.note(last, out);
    turn.drops = bench.drops();
    Ok(turn)
}

impl Turn {
    fn note(&mut self, microseconds: u64, out: Vec<(InterfaceId, Vec<u8>)>) {
        for (interface, bytes) in out {
            push(&mut self.ours, interface.0, microseconds, bytes);
        }
    }
}

fn push(all: &mut ByInterface, interface: u16, microseconds: u64, bytes: Vec<u8>) {
    let list = all.entry(interface).or_default();
    list.push(Sent { number: list.len(), microseconds, bytes });
}

const fn instant(microseconds: u64) -> Instant {
    Instant::from_nanos(START_NANOSECONDS + microseconds * 1_000)
}

/// Notes the ports that the engine chose where the recorded kernel chose others.
fn learn_ports(turn: &Turn, topology: &Topology, renamed: &mut Renamed) {
    if topology.snat_ports.is_none() {
        return;
    }
    for interface in turn.recorded.keys() {
        let (recorded, ours) = (sent_by(&turn.recorded, *interface), sent_by(&turn.ours, *interface));
        for (recorded, ours) in pairs(recorded, ours) {
            let (Some(recorded), Some(ours)) = (recorded, ours) else { continue };
            let (recorded, ours) = (Parsed::frame(&recorded.bytes), Parsed::frame(&ours.bytes));
            let (Some((source, server)), Some(protocol)) = (recorded.addresses(""), recorded.protocol(""))
            else {
                continue;
            };
            let is_mapped = topology.is_own(source) && topology.is_server(server);
            let same = ours.addresses("") == Some((source, server)) && ours.protocol("") == Some(protocol);
            let (theirs, mine) = (recorded.ports("").0, ours.ports("").0);
            if is_mapped && same && theirs != mine && recorded.number("icmp.type").is_none() {
                renamed.entry((protocol, server.to_vec(), theirs)).or_insert(mine);
            }
        }
    }
}

/// Gives the answer of a real server to a port that the recorded kernel chose the port that the engine chose, in the
/// header and in what an error quotes.
fn rename(frame: &mut [u8], renamed: &Renamed) {
    if renamed.is_empty() {
        return;
    }
    let found = {
        let parsed = Parsed::frame(frame);
        let at = |name: String| parsed.field(&name).map(|field| field.at.clone());
        let transport = |prefix: &str| if parsed.protocol(prefix) == Some(6) { "tcp" } else { "udp" };
        let answer = parsed.addresses("").and_then(|(server, _)| {
            let key = (parsed.protocol("")?, server.to_vec(), parsed.ports("").1);
            let name = transport("");
            let new = *renamed.get(&key)?;
            Some((new, at(format!("{name}.destination_port"))?, at(format!("{name}.checksum")), None))
        });
        let quote = "icmp.quote.";
        answer.or_else(|| {
            let server = parsed.addresses(quote)?.1;
            let key = (parsed.protocol(quote)?, server.to_vec(), parsed.ports(quote).0);
            let name = transport(quote);
            let new = *renamed.get(&key)?;
            let port = at(format!("{quote}{name}.source_port"))?;
            Some((new, port, at(format!("{quote}{name}.checksum")), at("icmp.checksum".to_owned())))
        })
    };
    let Some((new, port, checksum, outer)) = found else { return };
    let new = u16::try_from(new).unwrap_or(0).to_be_bytes();
    let Some(place) = frame.get_mut(port) else { return };
    let old = place.to_vec();
    place.copy_from_slice(&new);
    let mut changed = vec![(old.clone(), new.to_vec())];
    if let Some(place) = checksum.and_then(|at| frame.get_mut(at))
        && let Ok(sum) = <[u8; 2]>::try_from(&*place)
        && sum != [0, 0]
    {
        let mended = mend(sum, &old, &new);
        place.copy_from_slice(&mended);
        changed.push((sum.to_vec(), mended.to_vec()));
    }
    if let Some(place) = outer.and_then(|at| frame.get_mut(at))
        && let Ok(sum) = <[u8; 2]>::try_from(&*place)
    {
        let (before, after): (Vec<_>, Vec<_>) = changed.into_iter().unzip();
        place.copy_from_slice(&mend(sum, &before.concat(), &after.concat()));
    }
}

/// What a frame is about: frames that are about the same keep their order, others need not.
fn subject(frame: &[u8]) -> Vec<u8> {
    let parsed = Parsed::frame(frame);
    let mut subject = route_of(&parsed);
    let is_gue = parsed.field("gue.header").is_some();
    let (source, destination) = parsed.ports(if is_gue { "inner." } else { "" });
    subject.extend([source.to_be_bytes(), destination.to_be_bytes()].concat());
    subject
}

/// What a frame was before anything was done to it: a translated one keeps its identification and what it carries.
fn origin(frame: &[u8]) -> Vec<u8> {
    let parsed = Parsed::frame(frame);
    let mut origin = route_of(&parsed);
    for name in ["ip.identification", "ip.fragment", "tcp.sequence", "payload", "fragment"] {
        origin.extend(parsed.get(name).unwrap_or_default());
        origin.push(b'|');
    }
    origin
}

/// Who sends what kind of frame to whom.
fn route_of(parsed: &Parsed<'_>) -> Vec<u8> {
    let mut route = Vec::new();
    for name in ["arp.operation", "arp.sender", "arp.target", "icmp.type", "ip.protocol", "ip6.next_header"] {
        route.extend(parsed.get(name).unwrap_or_default());
        route.push(b'|');
    }
    if let Some((source, destination)) = parsed.addresses("") {
        route.extend([source, destination].concat());
    }
    route
}

/// Pairs of frames, in the order of the recording, then those that are left over. Of what both sides have, those that are
/// the same come together first, then those that were the same before, then those about the same, then any of one kind, so
/// that a wrong address is shown as one.
fn pairs<'a>(recorded: &'a [Sent], ours: &'a [Sent]) -> Vec<(Option<&'a Sent>, Option<&'a Sent>)> {
    type Key = fn(&[u8]) -> Vec<u8>;
    const KEYS: [Key; 4] =
        [<[u8]>::to_vec, origin, subject, |frame| frame.get(12..14).unwrap_or_default().to_vec()];
    let mut taken = vec![false; ours.len()];
    let mut partners: Vec<Option<usize>> = vec![None; recorded.len()];
    for key in KEYS {
        let mut places: BTreeMap<Vec<u8>, Vec<usize>> = BTreeMap::new();
        for (at, sent) in ours.iter().enumerate().rev().filter(|(at, _)| taken.get(*at) == Some(&false)) {
            places.entry(key(&sent.bytes)).or_default().push(at);
        }
        let left = recorded.iter().zip(&mut partners).filter(|(_, partner)| partner.is_none());
        for (frame, partner) in left {
            // The earliest is the last of its list.
            *partner = places.get_mut(&key(&frame.bytes)).and_then(Vec::pop);
            if let Some(place) = partner.and_then(|at| taken.get_mut(at)) {
                *place = true;
            }
        }
    }
    let both = recorded
        .iter()
        .zip(partners)
        .map(|(frame, partner)| (Some(frame), partner.and_then(|at| ours.get(at))));
    let mut all: Vec<_> = both.collect();
    let extra = ours.iter().zip(&taken).filter(|(_, taken)| !**taken);
    all.extend(extra.map(|(sent, _)| (None, Some(sent))));
    all
}

/// Whether each pair follows the last one about the same, on our side too: the numbers are those of [`Sent::number`].
fn is_in_order(last: &mut BTreeMap<Vec<u8>, usize>, theirs: &Sent, mine: &Sent) -> bool {
    let before = last.insert(subject(&theirs.bytes), mine.number);
    before.is_none_or(|before| before < mine.number)
}

fn judge_interface(
    interface: u16,
    recorded: &[Sent],
    ours: &[Sent],
    explained: &Explained<'_>,
    report: &mut Report,
) {
    let mut last = BTreeMap::new();
    for (number, (theirs, mine)) in pairs(recorded, ours).into_iter().enumerate() {
        let time = theirs.or(mine).map_or(0, |sent| sent.microseconds);
        let at = format!("lb.eth{interface} out {}, {time} us", number + 1);
        let difference = |rules: Vec<&'static str>, what: String, fields| Difference {
            case: String::new(),
            at: at.clone(),
            rules,
            what,
            fields,
            recorded: theirs.map(|sent| sent.bytes.clone()),
            ours: mine.map(|sent| sent.bytes.clone()),
        };
        match (theirs, mine) {
            (Some(theirs), Some(mine)) if !is_in_order(&mut last, theirs, mine) => {
                let what = format!("sent in another order: {}", words(&theirs.bytes));
                report.differ(difference(Vec::new(), what, Vec::new()));
            }
            (Some(theirs), Some(mine)) => match explained.pair(&theirs.bytes, &mine.bytes, report) {
                explain::Verdict::Same => report.agree(),
                explain::Verdict::Differs(rules, fields) => {
                    let names: Vec<_> = fields.iter().map(|field| field.field.as_str()).collect();
                    let what = format!("{} differ", names.join(", "));
                    report.differ(difference(rules, what, fields));
                }
            },
            (Some(theirs), None) => {
                let rules = explained.missing(&theirs.bytes);
                let what = format!("not sent: {}", words(&theirs.bytes));
                report.differ(difference(rules, what, Vec::new()));
            }
            (None, Some(mine)) => {
                let rules = explained.besides(&mine.bytes, ours.get(..mine.number).unwrap_or_default());
                let what = format!("sent besides: {}", words(&mine.bytes));
                report.differ(difference(rules, what, Vec::new()));
            }
            (None, None) => {}
        }
    }
}

/// A frame in a few words.
fn words(frame: &[u8]) -> String {
    let parsed = Parsed::frame(frame);
    let text = |name: &str| parsed.field(name).map(|field| field.text.clone());
    let of =
        |name: &str| text(&format!("ip.{name}")).or_else(|| text(&format!("ip6.{name}"))).unwrap_or_default();
    if let (Some(operation), Some(sender), Some(target)) =
        (text("arp.operation"), text("arp.sender"), text("arp.target"))
    {
        let kind = if operation == "1" { "question" } else { "answer" };
        return format!("ARP {kind} of {sender} to {target}");
    }
    let kind = match parsed.protocol("") {
        Some(1) => format!(
            "ICMP {}/{}",
            text("icmp.type").unwrap_or_default(),
            text("icmp.code").unwrap_or_default()
        ),
        Some(6) => "TCP".to_owned(),
        Some(17) => "UDP".to_owned(),
        Some(other) => format!("protocol {other}"),
        None => "a frame".to_owned(),
    };
    let (from, to) = parsed.ports("");
    format!("{kind} {}:{from} to {}:{to}", of("source"), of("destination"))
}
