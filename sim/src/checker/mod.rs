//! Judges a run from outside: by the frames on the wires, and by what clients and servers saw.
//!
//! ```text
//! frames as they arrive -> Checker -> findings, as sentences, and counts
//! ```
//! It asks no engine and no kernel. It knows the scenario (who is who, which addresses are VIPs), and holds what passes
//! against it. It changes nothing: the same run gives the same bytes with and without it.
//!
//! * checksums and lengths of every packet that reaches a machine, unless a cable is told to corrupt
//! * who answers for an address on a segment: two stations for one address is a conflict, and the sentence names the
//!   switch of the kernel that ends it
//! * frames for a VIP that reach a real server past every forwarder
//! * answers to a client from another address than the one that it called

mod arp;
mod names;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use evenkeel_engine::Instant;
use evenkeel_engine::wire::Protocol;
use serde::Serialize;

use crate::net::{Cable, Socket, Tap};
use crate::packet::{self, AnyEnd, ETHERNET_BYTES, Flags, Transport, Unusable};
pub(crate) use names::Names;

/// Sentences that are kept; the first ones say most.
const FINDINGS_MAX: usize = 64;
/// Calls of clients that are remembered: a client's port and whom it called. Older ones are forgotten first.
const CALLS_MAX: usize = 1 << 16;

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Packets that reached a machine with a wrong checksum or a length that contradicts itself.
    pub bad_packets: u64,
    /// Claims of an address that another station had claimed before.
    pub arp_conflicts: u64,
    /// Frames for a VIP that reached a real server past every forwarder.
    pub vip_bypassed: u64,
    /// Answers to a client from an address that it had not called.
    pub foreign_answers: u64,
}

/// What a checker has found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// How often.
    pub counts: Counts,
    /// What, in whole sentences, the first ones.
    pub sentences: Vec<String>,
}

/// Watches the wires.
#[derive(Debug)]
pub(crate) struct Checker {
    names: Names,
    /// Whether a cable of the scenario corrupts frames, so that bad packets are no surprise.
    is_corrupting: bool,
    stations: arp::Stations,
    /// Whom the client at this end called last.
    calls: BTreeMap<(Protocol, AnyEnd), AnyEnd>,
    /// The same in the order in which they were made.
    order: VecDeque<(Protocol, AnyEnd)>,
    said: BTreeSet<String>,
    findings: Findings,
}

impl Checker {
    pub(crate) fn new(names: Names, is_corrupting: bool) -> Self {
        Self {
            names,
            is_corrupting,
            stations: arp::Stations::default(),
            calls: BTreeMap::new(),
            order: VecDeque::new(),
            said: BTreeSet::new(),
            findings: Findings::default(),
        }
    }

    /// What it has found.
    pub(crate) const fn findings(&self) -> &Findings {
        &self.findings
    }

    /// Keeps a sentence once.
    fn say(&mut self, sentence: String) {
        if self.findings.sentences.len() < FINDINGS_MAX && self.said.insert(sentence.clone()) {
            self.findings.sentences.push(sentence);
        }
    }

    fn hear_arp(&mut self, segment: usize, frame: &[u8]) {
        let Some(claim) = arp::claim(frame) else { return };
        let Some(conflict) = self.stations.note(segment, claim) else { return };
        self.findings.counts.arp_conflicts += 1;
        let sentence = self.names.conflict(segment, claim, conflict);
        self.say(sentence);
    }

    fn look_at(&mut self, machine: usize, from: [u8; 6], bytes: &[u8]) {
        let Some(to) = packet::destination(bytes) else { return };
        if self.names.is_vip(to) && self.names.is_host(machine) && !self.names.is_forwarders(from) {
            self.findings.counts.vip_bypassed += 1;
            let (server, sender) = (self.names.of(machine), self.names.station(from));
            self.say(format!(
                "{server} gets packets for the VIP {to} from {sender}, past every forwarder: whoever sends them takes \
                 {server} for {to}"
            ));
        }
        match packet::view(bytes) {
            Ok(view) => {
                let protocol = match view.transport {
                    Transport::Tcp(_) => Protocol::TCP,
                    Transport::Udp => Protocol::UDP,
                    Transport::IcmpError { .. } => return,
                };
                let is_call = match &view.transport {
                    Transport::Tcp(segment) => segment.flags == Flags::SYN,
                    Transport::Udp | Transport::IcmpError { .. } => true,
                };
                if is_call && self.names.is_client(view.source.address) {
                    self.note_call(protocol, view.source, view.destination);
                }
                if self.names.has(machine, view.destination.address) {
                    self.note_answer(machine, protocol, view.source, view.destination);
                }
            }
            Err(Unusable::Checksum | Unusable::Malformed) => {
                self.findings.counts.bad_packets += 1;
                if !self.is_corrupting {
                    let name = self.names.of(machine);
                    self.say(format!(
                        "{name} gets packets whose checksum or length is wrong, and no cable corrupts"
                    ));
                }
            }
            Err(Unusable::Unspoken) => {}
        }
    }

    fn note_call(&mut self, protocol: Protocol, client: AnyEnd, called: AnyEnd) {
        if self.calls.insert((protocol, client), called).is_none() {
            self.order.push_back((protocol, client));
        }
        while self.order.len() > CALLS_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.calls.remove(&oldest);
            }
        }
    }

    /// Who is called answers, or nobody.
    fn note_answer(&mut self, machine: usize, protocol: Protocol, from: AnyEnd, to: AnyEnd) {
        let Some(called) = self.calls.get(&(protocol, to)) else { return };
        if called == &from || !self.names.is_client(to.address) || self.names.is_client(from.address) {
            return;
        }
        let (called, who) = (called.address, self.names.of(machine));
        self.findings.counts.foreign_answers += 1;
        let server = self.names.owner(from.address);
        self.say(format!(
            "{who} called {called} and gets answers from {} ({server}): the real server's answers do not come back \
             through the forwarder; make it the gateway of {server}, or use source NAT",
            from.address
        ));
    }
}

impl Tap for Checker {
    fn frame(&mut self, _now: Instant, cable: &Cable, at: Socket, frame: &[u8]) {
        let Some((header, body)) = frame.split_first_chunk::<ETHERNET_BYTES>() else { return };
        let [_, _, _, _, _, _, f0, f1, f2, f3, f4, f5, t0, t1] = *header;
        match ([t0, t1], at) {
            // A switch hears every claim once.
            ([0x08, 0x06], Socket::Switch { .. } | Socket::Machine { .. }) => {
                self.hear_arp(cable.segment, frame)
            }
            ([0x08, 0x00] | [0x86, 0xdd], Socket::Machine { machine, .. }) => {
                // What a switch floods is for others.
                if self.names.hears(machine, frame) {
                    self.look_at(machine, [f0, f1, f2, f3, f4, f5], body);
                }
            }
            _ => {}
        }
    }
}
