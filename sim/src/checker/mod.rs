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
//! * answers to a client from another address than the one that it called, or to another forwarder than its requests
//! * new flows to real servers that are drained or down, flows that a rule denies, and tuples that are used again too soon
//! * why each flow broke, and whether anybody could have kept it
//!
//! ```text
//! frame -> [arp]
//!      `-> [inner] -> client's? -> [calls] -> at a forwarder: [deny]
//!                                        `-> at a real server: drained? denied? [tuples]
//!                     answer? -> [tuples], [calls] -> the way that it takes
//! ending ------------------------> [blame] -> cause
//! ```

mod arp;
mod blame;
mod calls;
mod deny;
mod inner;
mod names;
#[cfg(test)]
mod tests;
mod tuples;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use evenkeel_engine::Instant;
use evenkeel_engine::plan::Plan;
use evenkeel_engine::wire::Protocol;
use serde::Serialize;

use crate::host::Cause;
use crate::net::{Cable, Socket, Tap};
use crate::packet::{self, ETHERNET_BYTES, Flags, Segment, Transport, Unusable, View};
pub use blame::BreakCause;
pub(crate) use blame::{History, Witness};
pub(crate) use calls::Key;
use calls::{Calls, Mark};
pub(crate) use names::Names;
use tuples::{Reuse, Tuples};

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
    /// Answers that reached another forwarder than the requests.
    pub strayed_answers: u64,
    /// New flows that reached a real server which was drained or down at the forwarder.
    pub out_of_service: u64,
    /// Flows that reached a real server although a rule of the forwarder denies them.
    pub denied: u64,
    /// Tuples that two flows had at once at a real server.
    pub tuples_shared: u64,
    /// Tuples that were used again while the real server waited (TIME-WAIT).
    pub tuples_early: u64,
}

/// What a checker has found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// How often.
    pub counts: Counts,
    /// What, in whole sentences, the first ones.
    pub sentences: Vec<String>,
    /// Why flows broke.
    pub breaks: BTreeMap<BreakCause, u64>,
}

/// Watches the wires.
#[derive(Debug)]
pub(crate) struct Checker {
    names: Names,
    /// Whether a cable of the scenario corrupts frames, so that bad packets are no surprise.
    is_corrupting: bool,
    stations: arp::Stations,
    calls: Calls,
    tuples: Tuples,
    /// The plan of each forwarder.
    plans: BTreeMap<usize, Plan>,
    /// The real servers that each forwarder knows; since when it gives them no new flows, where that is so.
    service: BTreeMap<(usize, IpAddr), Option<Instant>>,
    said: BTreeSet<String>,
    findings: Findings,
}

impl Checker {
    pub(crate) fn new(names: Names, is_corrupting: bool) -> Self {
        Self {
            names,
            is_corrupting,
            stations: arp::Stations::default(),
            calls: Calls::default(),
            tuples: Tuples::default(),
            plans: BTreeMap::new(),
            service: BTreeMap::new(),
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

    /// A forwarder goes by this plan from now on.
    pub(crate) fn told(&mut self, forwarder: usize, plan: &Plan) {
        self.plans.insert(forwarder, plan.clone());
    }

    /// Whether a forwarder gives new flows to a real server from now on.
    pub(crate) fn serves(&mut self, now: Instant, forwarder: usize, server: IpAddr, gets_flows: bool) {
        let out = self.service.entry((forwarder, server)).or_default();
        *out = if gets_flows { None } else { Some(out.unwrap_or(now)) };
    }

    /// A client's flow has ended; where it broke, `witness` tells what has happened to machines since. Gives the cause.
    pub(crate) fn ended(
        &mut self,
        client: usize,
        key: Option<Key>,
        broken: Option<Cause>,
        witness: &dyn Fn(usize) -> Witness,
    ) -> Option<BreakCause> {
        if let Some(call) = key.and_then(|key| self.calls.get_mut(&key)) {
            call.is_over = true;
        }
        let seen = broken?;
        let is_tcp = key.is_some_and(|(protocol, _)| protocol == Protocol::TCP);
        let call = key.and_then(|key| self.calls.get(&key));
        let cause = blame::blame(call, (seen, is_tcp), client, &self.names, witness);
        let sentence = blame::sentence(cause, call, &self.names);
        *self.findings.breaks.entry(cause).or_default() += 1;
        sentence.into_iter().for_each(|sentence| self.say(sentence));
        Some(cause)
    }

    fn look_at(&mut self, now: Instant, machine: usize, from: [u8; 6], bytes: &[u8]) {
        let Some(to) = packet::destination(bytes) else { return };
        if self.names.is_vip(to) && self.names.is_host(machine) && !self.names.is_forwarders(from) {
            self.findings.counts.vip_bypassed += 1;
            let (server, sender) = (self.names.of(machine), self.names.station(from));
            self.say(format!(
                "{server} gets packets for the VIP {to} from {sender}, past every forwarder: whoever sends them takes \
                 {server} for {to}"
            ));
        }
        let inside = inner::inner(bytes);
        match packet::view(inside.unwrap_or(bytes)) {
            Ok(view) => self.follow(now, machine, &view, inside.map_or(Some(to), |_| None)),
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

    /// A packet has reached a machine; `to` is its destination where it is in no tunnel.
    fn follow(&mut self, now: Instant, machine: usize, view: &View<'_>, to: Option<IpAddr>) {
        let (protocol, segment) = match &view.transport {
            Transport::Tcp(segment) => (Protocol::TCP, Some(segment)),
            Transport::Udp => (Protocol::UDP, None),
            Transport::IcmpError { .. } => return,
        };
        let key = (protocol, view.source);
        let is_start = segment.is_none_or(|segment| segment.flags == Flags::SYN);
        let mark = Mark::of(segment, view.payload);
        if self.names.is_client(view.source.address) && !self.names.is_client(view.destination.address) {
            // Behind a forwarder the same call has another destination.
            let is_known = self.calls.get(&key).is_some_and(|call| !call.is_over && call.mark_is(mark));
            if is_start && !is_known {
                self.calls.start(now, key, view.destination, mark);
            }
            self.note_request(now, machine, key, view, to.is_some());
        }
        if self.names.is_host(machine) {
            let tuple = (protocol, view.source, view.destination);
            let is_own = self.calls.get(&key).is_some();
            let call = if is_own {
                Some(key)
            } else {
                mark.and_then(|mark| self.calls.marked(mark)).or_else(|| self.tuples.call(&tuple))
            };
            if let Some(call) = call {
                self.note_served(now, machine, call, view, segment);
            }
        }
        self.note_answer(now, machine, protocol, view, segment);
    }

    /// A client's request has reached a machine.
    fn note_request(&mut self, now: Instant, machine: usize, key: Key, view: &View<'_>, is_bare: bool) {
        let is_forwarder = self.names.is_forwarder(machine);
        let Some(call) = self.calls.get_mut(&key) else { return };
        call.touch(now);
        call.pass(machine);
        if !is_forwarder || !is_bare || view.destination != call.called {
            return;
        }
        if call.reach_forwarder(now, machine) && call.is_fresh {
            let plan = self.plans.get(&machine);
            let denied = plan.and_then(|plan| deny::denied_by(plan, key.0, (view.source, view.destination)));
            call.denied = denied.map(str::to_owned);
        }
    }

    /// A request has reached the real server that is to answer it.
    fn note_served(
        &mut self,
        now: Instant,
        machine: usize,
        key: Key,
        view: &View<'_>,
        segment: Option<&Segment>,
    ) {
        let is_syn = segment.is_some_and(|segment| segment.flags == Flags::SYN);
        let Some(call) = self.calls.get_mut(&key) else { return };
        let is_new = call.reach_server(machine, is_syn) && (is_syn || segment.is_none());
        let (called, denied, forwarder) = (call.called.address, call.denied.clone(), call.forwarder);
        let is_judged = is_new && call.is_fresh;
        let server = self.names.of(machine).to_owned();
        if let (Some(flow), Some((forwarder, _)), true) = (denied, forwarder, is_new) {
            self.findings.counts.denied += 1;
            let forwarder = self.names.of(forwarder);
            self.say(format!("{server} gets flows to {called} that the flow {flow} of {forwarder} denies"));
        }
        if let (Some((forwarder, since)), true) = (forwarder, is_judged)
            && self.is_out(forwarder, machine, view.destination.address, since)
        {
            self.findings.counts.out_of_service += 1;
            let forwarder = self.names.of(forwarder);
            self.say(format!(
                "{server} gets new flows to {called} from {forwarder}, where it is drained or down"
            ));
        }
        let (calls, tuple) = (&self.calls, (key.0, view.source, view.destination));
        match self.tuples.request(now, tuple, key, segment, |other| calls.is_over(other)) {
            None => {}
            Some(Reuse::InUse((_, other))) => {
                self.findings.counts.tuples_shared += 1;
                let (port, client) = (view.source, self.names.owner(key.1.address).to_owned());
                let other = self.names.owner(other.address);
                self.say(format!(
                    "{} port {} stands for flows of {client} and of {other} at {server} at once",
                    port.address, port.port
                ));
            }
            Some(Reuse::TooEarly) => {
                self.findings.counts.tuples_early += 1;
                self.say(format!(
                    "{} uses ports towards {server} again while {server} waits (TIME-WAIT)",
                    view.source.address
                ));
            }
        }
    }

    /// Whether a forwarder gave no new flows to a real server when a call reached it.
    fn is_out(&self, forwarder: usize, machine: usize, to: IpAddr, at: Instant) -> bool {
        let state = |address: IpAddr| self.service.get(&(forwarder, address)).copied();
        let since = match state(to) {
            Some(since) => since,
            // In the modes gateway and tunnel the packet has the VIP: every address counts that the forwarder knows.
            None => {
                let known: Vec<_> = self.names.addresses(machine).filter_map(state).collect();
                if known.is_empty() || known.contains(&None) {
                    return false;
                }
                known.into_iter().flatten().max()
            }
        };
        since.is_some_and(|since| since < at)
    }

    /// What may be an answer has reached a machine. Who is called answers, or nobody, and by the way of the requests.
    fn note_answer(
        &mut self,
        now: Instant,
        machine: usize,
        protocol: Protocol,
        view: &View<'_>,
        segment: Option<&Segment>,
    ) {
        let (from, to) = (view.source, view.destination);
        let tuple = self.tuples.answer(now, (protocol, to, from), segment);
        let is_to_client = self.names.is_client(to.address) && !self.names.is_client(from.address);
        let key = if is_to_client { Some((protocol, to)) } else { tuple };
        let is_at_client = self.names.has(machine, to.address);
        let is_forwarder = self.names.is_forwarder(machine);
        let Some((key, call)) = key.and_then(|key| self.calls.get_mut(&key).map(|call| (key, call))) else {
            return;
        };
        call.touch(now);
        call.answers_at = Some(machine);
        let (called, expected) = (call.called, call.forwarder);
        if let Some((expected, _)) = expected.filter(|(expected, _)| is_forwarder && *expected != machine) {
            self.findings.counts.strayed_answers += 1;
            let (server, at) = (self.names.owner(from.address), self.names.of(machine));
            let expected = self.names.of(expected);
            self.say(format!(
                "answers of {server} to flows of {expected} come to {at}: the path is asymmetric; give {server} a route \
                 back by {expected}, or each forwarder source addresses of its own"
            ));
        }
        if !is_to_client || !is_at_client || called == from {
            return;
        }
        if let Some(call) = self.calls.get_mut(&key) {
            call.is_foreign = true;
        }
        self.findings.counts.foreign_answers += 1;
        let (who, server, called) = (self.names.of(machine), self.names.owner(from.address), called.address);
        self.say(format!(
            "{who} called {called} and gets answers from {} ({server}): the real server's answers do not come back \
             through the forwarder; make it the gateway of {server}, or use source NAT",
            from.address
        ));
    }
}

impl Tap for Checker {
    fn frame(&mut self, now: Instant, cable: &Cable, at: Socket, frame: &[u8]) {
        let Some((header, body)) = frame.split_first_chunk::<ETHERNET_BYTES>() else { return };
        let [_, _, _, _, _, _, f0, f1, f2, f3, f4, f5, t0, t1] = *header;
        match ([t0, t1], at) {
            // A switch hears every claim once.
            ([0x08, 0x06], Socket::Switch { .. } | Socket::Machine { .. }) => {
                self.hear_arp(cable.segment, frame)
            }
            // What a switch floods is for others.
            ([0x08, 0x00] | [0x86, 0xdd], Socket::Machine { machine, .. })
                if self.names.hears(machine, frame) =>
            {
                self.look_at(now, machine, [f0, f1, f2, f3, f4, f5], body);
            }
            _ => {}
        }
    }
}
