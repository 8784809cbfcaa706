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
//!      |-> [habits]: like others of its call?
//!      `-> [inner] -> client's? -> [calls] -> at a forwarder: [deny]
//!                                        `-> at a real server: drained? denied? [tuples]
//!                     answer? -> [tuples], [calls] -> the way that it takes
//! ending ------------------------> [blame] -> cause
//! ```

mod arp;
mod blame;
mod calls;
mod deny;
mod habits;
mod inner;
mod names;
mod ring;
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
use crate::net::{Cable, Socket};
use crate::packet::{self, AnyEnd, ETHERNET_BYTES, Flags, Packet, Segment, Transport, Unusable, View};
use arp::Claim;
pub use blame::BreakCause;
pub(crate) use blame::{History, Witness};
pub(crate) use calls::Key;
use calls::{Calls, Mark, Whom};
use habits::{Deed, Habit, Habits, Path};
use names::Known;
pub(crate) use names::Names;
use ring::Place;
use tuples::{Reuse, Tuples};

/// Whether a frame is like others before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Usual {
    No,
    /// It is, and its packet is whole, but does not fill it.
    Whole,
    /// It is, and its packet is sound and fills it.
    Sound,
}

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
    /// Answers to a client from an address that it had not called, of a real server that its forwarder has.
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
    /// A real server that a reload has removed goes on answering, and nobody translates it any more.
    Removed { server: IpAddr, forwarder: usize },
    /// A real server gets flows that a rule denies.
    Denied { server: usize, called: IpAddr, forwarder: usize },
    /// A real server gets new flows while it is drained or down.
    OutOfService { server: usize, called: IpAddr, forwarder: usize },
    /// One port stands for flows of two clients at once.
    Shared { server: usize, port: AnyEnd, one: IpAddr, other: IpAddr },
    /// Ports of this address are used again while a real server waits.
    Early { server: usize, address: IpAddr },
    /// A real server's answers come to another forwarder than the requests.
    Strayed { server: IpAddr, expected: usize, at: usize },
}

/// Watches the wires.
#[derive(Debug)]
pub(crate) struct Checker {
    names: Names,
    /// Whether a cable of the scenario corrupts frames, so that bad packets are no surprise.
    is_corrupting: bool,
    stations: arp::Stations,
    calls: Calls,
    habits: Habits,
    tuples: Tuples,
    /// The plan of each forwarder.
    plans: BTreeMap<usize, Plan>,
    /// The real servers that each forwarder knows; since when it gives them no new flows, where that is so.
    service: BTreeMap<(usize, IpAddr), Option<Instant>>,
    /// When a forwarder lost a real server, for the last time.
    removed: BTreeMap<(usize, IpAddr), Instant>,
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
            habits: Habits::default(),
            tuples: Tuples::default(),
            plans: BTreeMap::new(),
            service: BTreeMap::new(),
            removed: BTreeMap::new(),
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
        self.keep(sentence);
    }

    /// Keeps a sentence once, while there is room: two stations of one machine are called alike.
    fn keep(&mut self, sentence: String) {
        if self.findings.sentences.len() < FINDINGS_MAX && !self.findings.sentences.contains(&sentence) {
            self.findings.sentences.push(sentence);
        }
    }

    /// A forwarder goes by this plan from now on.
    pub(crate) fn told(&mut self, now: Instant, forwarder: usize, plan: &Plan) {
        let servers = |plan: &Plan| -> BTreeSet<IpAddr> {
            plan.directors.iter().flat_map(|director| &director.servers).map(|one| one.address).collect()
        };
        let are_known = servers(plan);
        let before = self.plans.insert(forwarder, plan.clone());
        for server in before.iter().flat_map(servers).filter(|server| !are_known.contains(server)) {
            self.serves(now, forwarder, server, false);
            self.removed.insert((forwarder, server), now);
        }
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
        sentence.into_iter().for_each(|sentence| self.keep(sentence));
        Some(cause)
    }

    fn hear_arp(&mut self, segment: usize, frame: &[u8]) {
        let Some(claim) = arp::claim(frame) else { return };
        let Some(first) = self.stations.note(segment, claim) else { return };
        self.findings.counts.arp_conflicts += 1;
        self.say(Finding::Conflict { segment, claim, first });
    }

    fn look_at(&mut self, now: Instant, machine: usize, from: [u8; 6], bytes: &[u8]) {
        let Some(address) = packet::destination(bytes) else { return };
        let to = self.names.known(address);
        if to.is_vip && self.names.is_host(machine) && !self.names.is_forwarders(from) {
            self.findings.counts.vip_bypassed += 1;
            self.say(Finding::Bypassed { host: machine, vip: address, from });
        }
        // Tunnels end at real servers. A client, or a forwarder in its name, may have the port of a tunnel as its own.
        let is_server = !to.is_client && to.owner.is_some_and(|(owner, _)| self.names.is_host(owner));
        let inside = if is_server { inner::inner(bytes) } else { None };
        match packet::view(inside.unwrap_or(bytes)) {
            Ok(view) => {
                let to = if inside.is_some() { self.names.known(view.destination.address) } else { to };
                self.follow(now, machine, &view, to, inside.is_none());
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

    /// A packet has reached a machine, in a tunnel or bare: it is a request of a client, or an answer.
    fn follow(&mut self, now: Instant, machine: usize, view: &View<'_>, to: Known, is_bare: bool) {
        let (protocol, segment) = match &view.transport {
            Transport::Tcp(segment) => (Protocol::TCP, Some(segment)),
            Transport::Udp => (Protocol::UDP, None),
            Transport::IcmpError { .. } => return,
        };
        let source = self.names.known(view.source.address);
        if to.is_client && !source.is_client {
            if segment.is_some() {
                self.note_end(now, protocol, view, segment);
            }
            return self.note_answer(now, machine, (protocol, view.destination), view, to.is_of(machine));
        }
        let key = (protocol, view.source);
        let is_start = segment.is_none_or(|segment| segment.flags == Flags::SYN);
        if source.is_client && !to.is_client {
            let known = self.calls.place(&key);
            let call = if is_start { self.note_call(now, (key, known), view, segment) } else { known };
            let Some(call) = call else { return };
            self.note_request(now, machine, (key, call), view, is_bare);
            if self.names.is_host(machine) {
                self.note_served(now, machine, (key, call), view, segment);
            }
        } else if self.names.is_host(machine) {
            // Behind source NAT.
            let known = self.tuples.call(&(protocol, view.source, view.destination));
            let mark = if is_start { Mark::of(segment, view.payload) } else { None };
            if let Some(key) = mark.and_then(|mark| self.calls.marked(mark)).or(known)
                && let Some(call) = self.calls.place(&key)
            {
                self.note_served(now, machine, (key, call), view, segment);
            }
        } else if let Some(key) = self.note_end(now, protocol, view, segment) {
            self.note_answer(now, machine, key, view, false);
        }
    }

    /// Whether a frame is one of a habit and changes nothing but when its call was last seen; that is noted.
    #[inline(always)]
    fn is_usual(
        &mut self,
        now: Instant,
        machine: usize,
        path: &Path,
        (frame, is_sound): (&[u8], bool),
    ) -> Usual {
        let Some(Habit { deed, call }) = self.habits.find(path) else { return Usual::No };
        let Some(call) = self.calls.at_mut(*call) else { return Usual::No };
        let here = Whom::machine(machine);
        let is_known_forwarder = call.forwarder == here;
        let is_usual = match deed {
            Deed::Forwarded => is_known_forwarder || call.called_word != path.receiver_word(),
            Deed::Served => call.server == here,
            Deed::Answered => call.called_word == path.sender_word(),
            Deed::Returned => is_known_forwarder,
            Deed::Passed | Deed::Returning => true,
        };
        // A datagram of a call that is over starts the next one.
        let is_going_on = !deed.is_request() || path.protocol() == Protocol::TCP || !call.is_over;
        if !is_usual || !is_going_on {
            return Usual::No;
        }
        let mut found = Usual::Sound;
        if !is_sound {
            let Some(length) = habits::whole_length(frame) else { return Usual::No };
            if frame.len() != ETHERNET_BYTES + length {
                found = Usual::Whole;
            }
        }
        call.touch(now);
        if deed.is_request() {
            call.pass(machine);
        } else {
            call.answers_at = here;
        }
        found
    }

    /// Looks at a packet in full, and remembers whose the next ones of its path are.
    fn look_and_learn(
        &mut self,
        now: Instant,
        machine: usize,
        (station, path): ([u8; 6], Option<Path>),
        packet: &[u8],
    ) {
        self.look_at(now, machine, station, packet);
        if let Some(path) = path {
            self.learn(machine, station, path);
        }
    }

    /// Remembers whose the frames of a path are.
    fn learn(&mut self, machine: usize, station: [u8; 6], path: Path) {
        let (from, to) = path.ends();
        let (source, destination) = (self.names.known(from.address), self.names.known(to.address));
        let (is_host, is_forwarder) = (self.names.is_host(machine), self.names.is_forwarder(machine));
        if destination.is_vip && is_host && !self.names.is_forwarders(station) {
            return;
        }
        let (deed, own) = match (source.is_client, destination.is_client) {
            (true, false) if is_host => (Deed::Served, from),
            (true, false) if is_forwarder => (Deed::Forwarded, from),
            (true, false) => (Deed::Passed, from),
            (false, true) if destination.is_of(machine) => (Deed::Answered, to),
            (false, true) if is_forwarder => (Deed::Returned, to),
            (false, true) => (Deed::Returning, to),
            // Behind source NAT, whose it is depends on more than its ends.
            (true, true) | (false, false) => return,
        };
        if let Some(call) = self.calls.place(&(path.protocol(), own)) {
            self.habits.put(path, Habit { deed, call });
        }
    }

    /// A client may have begun a call. Behind a forwarder the same call has another destination. Gives where it lies.
    fn note_call(
        &mut self,
        now: Instant,
        (key, place): (Key, Option<Place>),
        view: &View<'_>,
        segment: Option<&Segment>,
    ) -> Option<Place> {
        let known = place.and_then(|place| self.calls.at(place));
        if segment.is_none() && known.is_some_and(|call| !call.is_over) {
            return place;
        }
        // What was translated, and comes late, is no call of the real server.
        let is_late = known.is_some_and(|call| {
            let is_server = |forwarder| self.service.contains_key(&(forwarder, view.destination.address));
            call.called != view.destination
                && call.is_recent(now)
                && call.forwarder.get().is_some_and(is_server)
        });
        if is_late {
            return place;
        }
        let mark = Mark::of(segment, view.payload);
        if known.is_none_or(|call| call.is_over || !call.mark_is(mark)) {
            return self.calls.start(now, key, view.destination, mark);
        }
        place
    }

    /// A packet of a real server is on its way back. Gives whose answer it is behind source NAT.
    fn note_end(
        &mut self,
        now: Instant,
        protocol: Protocol,
        view: &View<'_>,
        segment: Option<&Segment>,
    ) -> Option<Key> {
        self.tuples.answer(now, (protocol, view.destination, view.source), segment)
    }

    /// A client's request has reached a machine.
    fn note_request(
        &mut self,
        now: Instant,
        machine: usize,
        (key, call): (Key, Place),
        view: &View<'_>,
        is_bare: bool,
    ) {
        let is_forwarder = self.names.is_forwarder(machine);
        let Some(call) = self.calls.at_mut(call) else { return };
        call.touch(now);
        call.pass(machine);
        if !is_forwarder || !is_bare || view.destination != call.called {
            return;
        }
        if call.reach_forwarder(now, machine) && call.is_fresh {
            let plan = self.plans.get(&machine);
            let denied = plan.and_then(|plan| deny::denied_by(plan, key.0, (view.source, view.destination)));
            call.denied = denied.map(Box::from);
        }
    }

    /// A request has reached the real server that is to answer it.
    fn note_served(
        &mut self,
        now: Instant,
        server: usize,
        (key, call): (Key, Place),
        view: &View<'_>,
        segment: Option<&Segment>,
    ) {
        let is_syn = segment.is_some_and(|segment| segment.flags == Flags::SYN);
        let Some(call) = self.calls.at_mut(call) else { return };
        let is_new = call.reach_server(server, is_syn) && (is_syn || segment.is_none());
        let is_told = segment.is_some_and(|segment| {
            [Flags::SYN, Flags::FIN, Flags::RST].iter().any(|flag| segment.flags.has(*flag))
        });
        if !is_new && !is_told {
            return;
        }
        let (called, is_denied, is_judged) =
            (call.called.address, call.denied.is_some(), is_new && call.is_fresh);
        if let Some((forwarder, since)) = call.forwarder_since() {
            if is_denied && is_new {
                self.findings.counts.denied += 1;
                self.say(Finding::Denied { server, called, forwarder });
            }
            if is_judged && self.is_out(forwarder, server, view.destination.address, since) {
                self.findings.counts.out_of_service += 1;
                self.say(Finding::OutOfService { server, called, forwarder });
            }
        }
        let (calls, tuple) = (&self.calls, (key.0, view.source, view.destination));
        match self.tuples.request(now, tuple, key, segment, |other| calls.is_over(other)) {
            None => {}
            Some(Reuse::InUse((_, other))) => {
                self.findings.counts.tuples_shared += 1;
                let (one, other) = (key.1.address, other.address);
                self.say(Finding::Shared { server, port: view.source, one, other });
            }
            Some(Reuse::TooEarly) => {
                self.findings.counts.tuples_early += 1;
                self.say(Finding::Early { server, address: view.source.address });
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

    /// An answer has reached a machine. Who is called answers, or nobody, and by the way of the requests.
    fn note_answer(&mut self, now: Instant, machine: usize, key: Key, view: &View<'_>, is_at_client: bool) {
        let is_forwarder = self.names.is_forwarder(machine);
        let Some(call) = self.calls.get_mut(&key) else { return };
        call.touch(now);
        call.answers_at = Whom::machine(machine);
        let (called, opened, from) = (call.called, call.opened, view.source);
        let is_foreign = is_at_client && called != from;
        call.is_foreign |= is_foreign;
        let owner = call.forwarder.get();
        if let Some(expected) = owner.filter(|expected| is_forwarder && *expected != machine) {
            self.findings.counts.strayed_answers += 1;
            self.say(Finding::Strayed { server: from.address, expected, at: machine });
        }
        let removed = |owner: &usize| self.removed.get(&(*owner, from.address));
        let has_removed = |owner: &usize| is_foreign && removed(owner).is_some_and(|at| opened <= *at);
        if let Some(forwarder) = owner.filter(has_removed) {
            self.say(Finding::Removed { server: from.address, forwarder });
        } else if is_foreign {
            self.findings.counts.foreign_answers += 1;
            self.say(Finding::Foreign { client: machine, called: called.address, from: from.address });
        }
    }
}

impl Checker {
    /// A frame has arrived at a machine or a switch. Whether its packet is known to be sound is found out where it has to
    /// be. Nothing that is done here has an influence on the run.
    #[inline]
    pub(crate) fn frame(&mut self, now: Instant, cable: &Cable, at: Socket, packet: &mut Packet) {
        let frame = packet.bytes();
        let Socket::Machine { machine, interface } = at else {
            return self.look(now, cable, at, (frame, None));
        };
        let known = packet.sound(ETHERNET_BYTES);
        let said = known.or_else(|| habits::read(frame));
        let path = said.and_then(|said| Path::of(frame, said, machine, interface));
        let Some(path) = path else { return self.look(now, cable, at, (frame, None)) };
        match self.is_usual(now, machine, &path, (frame, known.is_some())) {
            Usual::Sound if known.is_none() => {
                if let Some(said) = said {
                    packet.note_sound(ETHERNET_BYTES, said);
                }
            }
            Usual::Sound | Usual::Whole => {}
            Usual::No => self.look(now, cable, at, (frame, Some(path))),
        }
    }

    /// Looks at a frame that is not like others, or of which that is not known.
    fn look(&mut self, now: Instant, cable: &Cable, at: Socket, (frame, path): (&[u8], Option<Path>)) {
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
                self.look_and_learn(now, machine, ([f0, f1, f2, f3, f4, f5], path), body);
            }
            _ => {}
        }
    }
}
