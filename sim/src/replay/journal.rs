//! Writes a replay down: every packet as it came in and as it went out, tied by an identity, each with a comment that
//! names its flow, the rule that let it pass, its director and real server, and the stage where it ended.

use std::fmt::Write as _;
use std::io::{self, Write};

use evenkeel_engine::plan::{Layer, Plan, PolicyPlan};
use evenkeel_engine::policy::rules::Rules;
use evenkeel_engine::policy::{PolicyFlow, PolicyVerdict};
use evenkeel_engine::verdict::DropReason;
use evenkeel_engine::wire::{FiveTuple, HashKey};
use evenkeel_engine::{Engine, Instant, InterfaceId, Verdict};

use super::connections::{Connection, Connections};
use super::driver::Entry;
use super::outcome::Servers;
use super::tap::{Slot, Tap};
use crate::capture::{Heading, Link, Seen, Way, Writer};

/// The first identity of packets that are not in the capture: no capture that ends in time has so many.
const BORN_IDS: u64 = 1 << 48;

/// A file under way.
pub(super) struct Journal<'a> {
    writer: Writer<&'a mut dyn Write>,
    /// When virtual time began.
    epoch_ns: Option<u64>,
    policies: Vec<Stage>,
    /// The packets of the batch as they came in; places beyond `count` are kept for later.
    copies: Vec<Vec<u8>>,
    born: u64,
    comment: String,
}

/// One link of the policy chain, so that rules can be asked which of them it was.
enum Stage {
    Rule(String, Box<Rules>),
    Component(String),
}

/// What a comment is made from.
type Known<'a> = (&'a Engine, &'a Connections, &'a Servers);

impl<'a> Journal<'a> {
    /// Begins a file with one interface for each of the plan's.
    pub(super) fn new(output: &'a mut dyn Write, plan: &Plan) -> io::Result<Self> {
        let mut writer = Writer::new(output)?;
        for interface in &plan.interfaces {
            let link = match interface.layer {
                Layer::Ip => Link::Raw,
                Layer::Ethernet(_) => Link::Ethernet,
            };
            writer.interface(&interface.name, link)?;
        }
        let mut policies = Vec::new();
        for policy in &plan.policies {
            match policy {
                PolicyPlan::Rules(flows) => {
                    let each = flows
                        .iter()
                        .map(|flow| (flow.name.clone(), Rules::new(vec![flow.clone()], HashKey([0, 0]))));
                    policies.extend(each.map(|(name, rules)| Stage::Rule(name, Box::new(rules))));
                }
                PolicyPlan::Guest(guest) => policies.push(Stage::Component(guest.name.clone())),
            }
        }
        let (epoch_ns, copies, comment) = (None, Vec::new(), String::new());
        Ok(Self { writer, epoch_ns, policies, copies, born: 0, comment })
    }

    /// Virtual time begins at `first_ns`, unless it has begun.
    pub(super) fn begin(&mut self, first_ns: u64) {
        self.epoch_ns.get_or_insert(first_ns);
    }

    /// Keeps the packets of the batch as they are before the engine edits them.
    pub(super) fn before(&mut self, tap: &Tap) {
        for (place, slot) in tap.slots().iter().enumerate() {
            if place == self.copies.len() {
                self.copies.push(Vec::new());
            }
            if let Some(copy) = self.copies.get_mut(place) {
                copy.clear();
                copy.extend_from_slice(slot.bytes());
            }
        }
    }

    /// Writes the batch down: what came in, then what went out of it, then what was born.
    pub(super) fn after(
        &mut self,
        tap: &Tap,
        entries: &[Entry],
        now: Instant,
        known: Known<'_>,
    ) -> io::Result<()> {
        let Self { writer, epoch_ns, policies, copies, born, comment } = self;
        let at = |at: Instant| epoch_ns.unwrap_or(0).saturating_add(at.as_nanos());
        let first_born = *born;
        for ((slot, entry), bytes) in tap.slots().iter().zip(entries).zip(&*copies) {
            let packet_id = identity(entry, born);
            describe(comment, slot, entry, policies, known);
            let (interface, way) = (u32::from(slot.interface().0), Way::In);
            let heading = Heading { interface, at_ns: at(entry.at), way, packet_id };
            writer.packet(&Seen { heading, bytes, comment })?;
        }
        let mut numbers = first_born;
        for (slot, entry) in tap.slots().iter().zip(entries) {
            let packet_id = identity(entry, &mut numbers);
            let Some((interface, bytes)) = slot.out() else { continue };
            describe(comment, slot, entry, policies, known);
            let (interface, way) = (u32::from(interface.0), Way::Out);
            let heading = Heading { interface, at_ns: at(now), way, packet_id };
            writer.packet(&Seen { heading, bytes, comment })?;
        }
        for (interface, bytes) in tap.born() {
            let packet_id = BORN_IDS + *born;
            *born += 1;
            let (interface, way) = (u32::from(interface.0), Way::Out);
            let heading = Heading { interface, at_ns: at(now), way, packet_id };
            let comment = "born in the forwarder, or kept there until now";
            writer.packet(&Seen { heading, bytes, comment })?;
        }
        Ok(())
    }

    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// The number that copies of a packet share: its place in the capture, or one behind all of these.
fn identity(entry: &Entry, born: &mut u64) -> u64 {
    entry.number.unwrap_or_else(|| {
        *born += 1;
        BORN_IDS + *born - 1
    })
}

/// Says in `text` what became of a packet and why.
fn describe(text: &mut String, slot: &Slot, entry: &Entry, policies: &[Stage], known: Known<'_>) {
    let (engine, connections, servers) = known;
    text.clear();
    let connection = entry.connection.and_then(|number| connections.get(number));
    // Writing into a String cannot fail.
    if let (Some(number), Some(connection)) = (entry.connection, connection) {
        let _ = write!(text, "flow: {} {}; ", u64::from(number) + 1, connection.tuple);
        let _ = write!(text, "rule: {}; ", rule(policies, &connection.tuple, InterfaceId(0)));
        let server = connection.way.and_then(|way| servers.get(way.server));
        if let Some(server) = server {
            let _ = write!(text, "director: {}; ", server.director);
            let end = super::outcome::end(server.address, server.port);
            let _ = write!(text, "real server: {} {end}; ", server.server);
        } else if let Some(director) = bound(engine.plan(), &connection.tuple) {
            let _ = write!(text, "director: {director}; ");
        }
    }
    let _ = write!(text, "stage: {}; ", stage(slot.end(), entry, connection));
    let name = |interface: InterfaceId| {
        engine.plan().interfaces.get(interface.index()).map_or("", |interface| interface.name.as_str())
    };
    let _ = match (slot.end(), slot.out()) {
        (None | Some(Verdict::Forward(_)), Some((out, _))) => write!(text, "forwarded by {}", name(out)),
        (Some(Verdict::Replace(out)), _) => write!(text, "cut to pieces, by {}", name(out)),
        (Some(Verdict::Hold), _) => text.write_str("kept for now"),
        (Some(Verdict::Answer(out)), _) => write!(text, "answered by {}", name(out)),
        (Some(Verdict::Consume), _) => text.write_str("for the forwarder itself"),
        (Some(Verdict::Drop(reason)), _) => write!(text, "dropped: {}", reason.name()),
        (None | Some(Verdict::Forward(_)), None) => Ok(()),
    };
}

/// The rule that decides about new flows of `tuple`.
fn rule(policies: &[Stage], tuple: &FiveTuple, interface: InterfaceId) -> String {
    let flow = PolicyFlow::new(0, *tuple, interface);
    let mut components = Vec::new();
    for policy in policies {
        match policy {
            Stage::Component(name) => components.push(name.as_str()),
            Stage::Rule(name, rules) if rules.evaluate(&flow) != Some(PolicyVerdict::Skip) => {
                return with_components(name, &components);
            }
            Stage::Rule(..) => {}
        }
    }
    with_components("none", &components)
}

/// What a component has decided is known to it alone.
fn with_components(rule: &str, components: &[&str]) -> String {
    if components.is_empty() {
        return rule.to_owned();
    }
    format!("{rule}, unless component {} decided", components.join(" or "))
}

/// The director that is bound to the destination of `tuple`.
fn bound<'a>(plan: &'a Plan, tuple: &FiveTuple) -> Option<&'a str> {
    let (address, port, protocol) = (tuple.destination.into(), tuple.destination_port, tuple.protocol);
    let found = plan
        .directors
        .iter()
        .find(|director| director.binds.iter().any(|bind| bind.serves(address, port, protocol)));
    found.map(|director| director.name.as_str())
}

/// Where the walk of a packet ended, in the words of the map.
fn stage(end: Option<Verdict>, entry: &Entry, connection: Option<&Connection>) -> &'static str {
    match end {
        Some(Verdict::Drop(reason)) => room(reason),
        Some(Verdict::Answer(_) | Verdict::Consume | Verdict::Hold) => "enter",
        None | Some(Verdict::Forward(_) | Verdict::Replace(_)) => {
            let is_known = connection.is_some_and(|connection| connection.way.is_some());
            if entry.is_opening {
                "new flow"
            } else if is_known {
                "known flow"
            } else {
                "exit"
            }
        }
    }
}

/// The room of the engine where packets are dropped for `reason`.
const fn room(reason: DropReason) -> &'static str {
    match reason {
        DropReason::Truncated
        | DropReason::BadHeader
        | DropReason::BadChecksum
        | DropReason::Martian
        | DropReason::SourceRoute
        | DropReason::NotIp
        | DropReason::UnknownProtocol
        | DropReason::Fragment
        | DropReason::FragmentTiny
        | DropReason::FragmentOverlap
        | DropReason::FragmentsFull
        | DropReason::FragmentTimeout
        | DropReason::IcmpUnhandled
        | DropReason::UnknownInterface
        | DropReason::OtherHost => "enter",
        DropReason::PolicyDenied => "policy",
        DropReason::NoDirector
        | DropReason::NoFlow
        | DropReason::NoServer
        | DropReason::ClientLimit
        | DropReason::FlowTableFull => "director",
        DropReason::PortsExhausted
        | DropReason::TtlExceeded
        | DropReason::TooBig
        | DropReason::NoRoute
        | DropReason::AnswerLimited => "exit",
        DropReason::NeighbourUnresolved => "link",
        DropReason::DeviceQueueFull => "device",
    }
}
