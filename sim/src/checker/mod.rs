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
mod calls;
mod names;

use std::collections::BTreeSet;
use std::net::IpAddr;

use evenkeel_engine::Instant;
use evenkeel_engine::wire::Protocol;
use serde::Serialize;

use crate::net::{Cable, Socket, Tap};
use crate::packet::{self, AnyEnd, ETHERNET_BYTES, Flags, Transport, Unusable};
use arp::Claim;
use calls::Calls;
use names::Known;
pub(crate) use names::Names;

/// Sentences that are kept; the first ones say most.
const FINDINGS_MAX: usize = 64;

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

/// What a sentence is about. What has been said is not put into words again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Finding {
    /// Two stations claim one address of a segment.
    Conflict { segment: usize, claim: Claim, first: [u8; 6] },
    /// A host gets packets for a VIP from a station that is no forwarder's.
    Bypassed { host: usize, vip: IpAddr, from: [u8; 6] },
    /// A machine gets packets that are not whole.
    BadPackets { machine: usize },
    /// A client that called one address is answered by another.
    Foreign { client: usize, called: IpAddr, from: IpAddr },
}

/// Watches the wires.
#[derive(Debug)]
pub(crate) struct Checker {
    names: Names,
    /// Whether a cable of the scenario corrupts frames, so that bad packets are no surprise.
    is_corrupting: bool,
    stations: arp::Stations,
    calls: Calls,
    said: BTreeSet<Finding>,
    findings: Findings,
}

impl Checker {
    pub(crate) fn new(names: Names, is_corrupting: bool) -> Self {
        Self {
            names,
            is_corrupting,
            stations: arp::Stations::default(),
            calls: Calls::default(),
            said: BTreeSet::new(),
            findings: Findings::default(),
        }
    }

    /// What it has found.
    pub(crate) const fn findings(&self) -> &Findings {
        &self.findings
    }

    /// Puts into words what has not been said, while there is room.
    fn say(&mut self, finding: Finding) {
        if self.findings.sentences.len() >= FINDINGS_MAX || !self.said.insert(finding) {
            return;
        }
        let sentence = self.names.sentence(finding);
        // Two stations of one machine are called alike.
        if !self.findings.sentences.contains(&sentence) {
            self.findings.sentences.push(sentence);
        }
    }

    fn hear_arp(&mut self, segment: usize, frame: &[u8]) {
        let Some(claim) = arp::claim(frame) else { return };
        let Some(first) = self.stations.note(segment, claim) else { return };
        self.findings.counts.arp_conflicts += 1;
        self.say(Finding::Conflict { segment, claim, first });
    }

    fn look_at(&mut self, machine: usize, from: [u8; 6], bytes: &[u8]) {
        let Some(address) = packet::destination(bytes) else { return };
        let to = self.names.known(address);
        if to.is_vip && self.names.is_host(machine) && !self.names.is_forwarders(from) {
            self.findings.counts.vip_bypassed += 1;
            self.say(Finding::Bypassed { host: machine, vip: address, from });
        }
        match packet::view(bytes) {
            Ok(view) => {
                let (protocol, is_call) = match &view.transport {
                    Transport::Tcp(segment) => (Protocol::TCP, segment.flags == Flags::SYN),
                    Transport::Udp => (Protocol::UDP, true),
                    Transport::IcmpError { .. } => return,
                };
                let answers = to.is_client && to.is_of(machine);
                if is_call || answers {
                    let source = self.names.known(view.source.address);
                    if is_call && source.is_client {
                        self.note_call(source, from, protocol, (view.source, view.destination));
                    }
                    if answers && !source.is_client {
                        self.note_answer(machine, protocol, view.source, view.destination);
                    }
                }
            }
            Err(Unusable::Checksum | Unusable::Malformed) => {
                self.findings.counts.bad_packets += 1;
                if !self.is_corrupting {
                    self.say(Finding::BadPackets { machine });
                }
            }
            Err(Unusable::Unspoken) => {}
        }
    }

    /// Notes whom a client called. What a forwarder sends on in its name is no call of the client's.
    fn note_call(&mut self, client: Known, from: [u8; 6], protocol: Protocol, ends: (AnyEnd, AnyEnd)) {
        if client.owner.is_some_and(|(machine, _)| self.names.sends_by(machine, from)) {
            self.calls.note(protocol, ends.0, ends.1);
        }
    }

    /// Who is called answers, or nobody.
    fn note_answer(&mut self, machine: usize, protocol: Protocol, from: AnyEnd, to: AnyEnd) {
        let Some(called) = self.calls.of(protocol, to) else { return };
        if called != from {
            self.findings.counts.foreign_answers += 1;
            self.say(Finding::Foreign { client: machine, called: called.address, from: from.address });
        }
    }
}

impl Tap for Checker {
    fn frame(&mut self, _now: Instant, cable: &Cable, at: Socket, frame: &[u8]) {
        let Some((header, body)) = frame.split_first_chunk::<ETHERNET_BYTES>() else { return };
        let [to @ .., f0, f1, f2, f3, f4, f5, t0, t1] = *header;
        match ([t0, t1], at) {
            // A switch hears every claim once.
            ([0x08, 0x06], Socket::Switch { .. } | Socket::Machine { .. }) => {
                self.hear_arp(cable.segment, frame)
            }
            // What a switch floods is for others.
            ([0x08, 0x00] | [0x86, 0xdd], Socket::Machine { machine, interface })
                if self.names.hears(machine, interface, to) =>
            {
                self.look_at(machine, [f0, f1, f2, f3, f4, f5], body);
            }
            _ => {}
        }
    }
}
