//! What runs on a simulated machine that is not a forwarder: programs that open flows and serve services, and look at
//! every packet that reaches them the way programs would.
//!
//! In: packets for the machine, timers, flows to open. Out: packets through [`Way`], and how each flow ended. A host
//! never knows what lies between it and the other end; it judges by what it sees.

mod connection;
mod cookie;
mod datagrams;
mod flow;
mod smol;
mod stack;
#[cfg(test)]
mod tests;
mod work;

use std::net::IpAddr;

use evenkeel_engine::wire::Protocol;
use evenkeel_engine::{Duration, Instant};
use serde::Serialize;
use slab::Slab;

use connection::{Connection, Kind};
use cookie::Cookies;
pub use flow::Cause;
pub(crate) use flow::{Answer, Ending, Opening};
use flow::{Flow, Found, Reader};
use smol::Smol;
use stack::{Arrival, Outbox, Stack};
use work::{Job, Target, Work};

use crate::index::{Index, end_word, hash_pair};
use crate::net::{Event, Way, index, number};
use crate::packet::{
    self, AnyEnd, End, Flags, Header, IPV4_BYTES, IPV6_BYTES, Packet, Segment, TCP_BYTES, Transport,
    Unusable, View,
};
use crate::payload::{self, Message};
use crate::random::Stream;
use crate::scenario::{Host as HostPlan, Service, Stack as StackKind, SynPlan};
use crate::tcp::{State, Tcp, Transmit, reset_for};
use crate::work::LawError;

/// Connections that a host keeps; a SYN beyond is dropped. Each costs about 250 bytes, and a client's 80 more.
const CONNECTIONS_MAX: usize = 1 << 20;
/// The same of a host that speaks TCP with smoltcp: each has buffers of 128 KiB.
const SMOLTCP_CONNECTIONS_MAX: usize = 1 << 12;
/// The least room for connections that a host makes at a time.
const ROOM_MIN: usize = 16;
/// The first port that clients use.
pub(crate) const PORT_FIRST: u16 = 1_024;
/// How long a client waits for the answer to a datagram, the first time; then twice as long each time.
const DATAGRAM_PATIENCE: Duration = Duration::from_secs(1);
/// How often a datagram is sent again.
const DATAGRAM_RETRIES: u32 = 3;

/// What a host has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HostCounts {
    /// Packets that it sent.
    pub sent: u64,
    /// Packets that reached it.
    pub received: u64,
    /// Segments and datagrams that it sent again.
    pub retransmitted: u64,
    /// Packets that arrived with a wrong checksum.
    pub bad_checksum: u64,
    /// Packets that contradict themselves.
    pub malformed: u64,
    /// Packets that belong to nothing that is open here.
    pub unexpected: u64,
    /// Requests whose bytes were not what a client had sent.
    pub bad_requests: u64,
    /// Connections that were not accepted because too many were open, or half open.
    pub refused: u64,
    /// SYNs that were answered with a cookie, because too many connections were half open.
    pub cookies_sent: u64,
    /// Connections that came about because a client gave a cookie back.
    pub cookies_taken: u64,
}

impl HostCounts {
    /// Packets for which the host had no use.
    #[must_use]
    pub const fn stray(&self) -> u64 {
        self.bad_checksum + self.malformed + self.unexpected
    }
}

/// The programs of a machine.
pub(crate) struct Host {
    machine: usize,
    /// The addresses of its interfaces, by the first of which it calls itself where it is called otherwise.
    own: Vec<IpAddr>,
    services: Vec<Service>,
    connections: Slab<Connection>,
    /// Connections by protocol, own end and other end.
    table: Index,
    next_port: u16,
    generation: u32,
    draw: Stream,
    pauses: Stream,
    outbox: Outbox,
    stack: StackKind,
    syn: SynPlan,
    /// Connections of which the client has not answered yet.
    half_open: usize,
    cookies: Cookies,
    /// Work for requests, where it takes time.
    work: Option<Work>,
    /// The programs do not run: what comes is left lying.
    is_hung: bool,
    pub(crate) counts: HostCounts,
    pub(crate) endings: Vec<Ending>,
    pub(crate) answers: Vec<Answer>,
}

impl Host {
    /// The programs of the machine with this number, which has these addresses and offers these services.
    pub(crate) fn new(
        machine: usize,
        plan: &HostPlan,
        seed: u64,
        own: Vec<IpAddr>,
        services: Vec<Service>,
    ) -> Result<Self, LawError> {
        let name = &plan.name;
        let mut draw = Stream::new(seed, name, "numbers");
        let span = u64::from(u16::MAX - PORT_FIRST);
        let next_port = PORT_FIRST + u16::try_from(draw.below(span)).unwrap_or(0);
        Ok(Self {
            machine,
            own,
            services,
            connections: Slab::new(),
            table: Index::default(),
            next_port,
            generation: 0,
            draw,
            pauses: Stream::new(seed, name, "pauses"),
            outbox: Outbox::default(),
            stack: plan.stack,
            syn: plan.syn,
            half_open: 0,
            cookies: Cookies::new(seed, name),
            work: plan.service.as_ref().map(|model| Work::new(model, seed, name)).transpose()?,
            is_hung: false,
            counts: HostCounts::default(),
            endings: Vec::new(),
            answers: Vec::new(),
        })
    }

    // Commands.

    /// Opens a flow.
    pub(crate) fn open(&mut self, way: &mut Way<'_>, opening: Opening) {
        let service = opening.service;
        let flow = Box::new(Flow::new(&opening, way.now()));
        let request = (service.protocol == Protocol::UDP).then(|| flow.request());
        let remote = End { address: service.address, port: service.port };
        let Some(local) = self.free_end(way, service.protocol, remote) else {
            return self.finish(None, &flow, Some(Cause::NoPort));
        };
        let mut outbox = std::mem::take(&mut self.outbox);
        let kind = if service.protocol == Protocol::TCP {
            let Some(tcp) = self.connect(way.now(), (local, remote), &flow, &mut outbox) else {
                self.outbox = outbox;
                return self.finish(Some(local), &flow, Some(Cause::Unreachable));
            };
            Kind::Client { tcp, reader: Reader::default(), flow, has_ended: false }
        } else {
            Kind::Asker { flow, retries: 0, deadline: way.now().after(DATAGRAM_PATIENCE) }
        };
        let index = self.insert(local, remote, kind);
        if let Some(request) = request {
            self.send_datagram(way, (local, remote), &request);
        }
        self.send_out(way, (local, remote), &mut outbox);
        self.outbox = outbox;
        self.arm(way, index);
    }

    /// Takes in a packet.
    pub(crate) fn receive(&mut self, way: &mut Way<'_>, packet: Packet) {
        self.counts.received += 1;
        if self.is_hung {
            return way.recycle(packet);
        }
        if let Some((source, destination, payload)) = packet::datagram(&packet) {
            self.receive_datagram(way, (destination, source), payload, packet.bytes());
            return way.recycle(packet);
        }
        match packet::view_of(&packet) {
            Ok(view) => self.understand(way, &view, packet.bytes()),
            Err(Unusable::Checksum) => self.counts.bad_checksum += 1,
            Err(Unusable::Malformed) => self.counts.malformed += 1,
            Err(Unusable::Unspoken) => self.counts.unexpected += 1,
        }
        way.recycle(packet);
    }

    /// A timer of a connection is due.
    pub(crate) fn timeout(&mut self, way: &mut Way<'_>, index: usize, generation: u32) {
        let now = way.now();
        let Some(connection) = self.connections.get_mut(index) else { return };
        if connection.generation != generation || now < connection.scheduled {
            return;
        }
        connection.scheduled = Instant::NEVER;
        if now < connection.deadline() {
            return self.arm(way, index);
        }
        if self.connections.get(index).is_some_and(|connection| connection.is_late(now)) {
            return self.give_up(way, index, Cause::Deadline);
        }
        if self.connections.get(index).is_some_and(|connection| connection.resumes <= now) {
            self.ask_next(way, index);
        }
        let Some(connection) = self.connections.get_mut(index) else { return };
        let ends = (connection.local, connection.remote);
        let mut outbox = std::mem::take(&mut self.outbox);
        let mut again = None;
        let mut is_given_up = false;
        match &mut connection.kind {
            Kind::Client { tcp, .. } | Kind::Server { tcp, .. } => tcp.timeout(now, &mut outbox),
            Kind::Asker { flow, retries, deadline } if *deadline <= now => {
                if *retries >= DATAGRAM_RETRIES {
                    is_given_up = true;
                } else {
                    *retries += 1;
                    *deadline = now.after(DATAGRAM_PATIENCE * (1 << *retries));
                    again = Some(flow.request());
                }
            }
            Kind::Asker { .. } => {}
        }
        self.send_out(way, ends, &mut outbox);
        self.outbox = outbox;
        if let Some(request) = again {
            self.counts.retransmitted += 1;
            self.send_datagram(way, ends, &request);
        }
        if is_given_up {
            return self.give_up(way, index, Cause::TimedOut);
        }
        self.review(way, index);
    }

    /// Work on requests may be done.
    pub(crate) fn work_is_due(&mut self, way: &mut Way<'_>, generation: u32) {
        if !self.work.as_ref().is_some_and(|work| work.is_current(generation)) {
            return;
        }
        while let Some(job) = self.work.as_mut().and_then(|work| work.take_done(way.now())) {
            self.answer(way, job);
        }
        self.arm_work(way);
    }

    /// The machine loses power: connections are gone, and flows of its clients with them.
    pub(crate) fn stop(&mut self, now: Instant) {
        let flows = self.connections.iter().filter_map(|(_, connection)| match &connection.kind {
            Kind::Client { flow, has_ended: false, .. } | Kind::Asker { flow, .. } => {
                Some(flow.ending(Some(connection.local), Some(Cause::ClientGone)))
            }
            Kind::Client { .. } | Kind::Server { .. } => None,
        });
        self.endings.extend(flows);
        self.counts.retransmitted = self.retransmitted();
        self.connections.clear();
        self.table.clear();
        self.half_open = 0;
        // Programs that hung do so no more when they begin anew.
        self.is_hung = false;
        // What was numbered before must not meet what comes after.
        self.generation = self.generation.wrapping_add(1);
        if let Some(work) = &mut self.work {
            work.crash(now);
        }
    }

    /// The programs stop to run, or go on.
    pub(crate) fn set_hung(&mut self, way: &mut Way<'_>, is_hung: bool) {
        self.is_hung = is_hung;
        if let Some(work) = &mut self.work {
            work.set_hung(way.now(), is_hung);
        }
        self.arm_work(way);
    }

    /// What a server answers to a scheduler's question; nothing while its programs hang. One without work has none.
    pub(crate) fn condition(&self) -> Option<(u32, Duration)> {
        if self.is_hung {
            return None;
        }
        Some(self.work.as_ref().map_or((0, Duration::ZERO), Work::condition))
    }

    /// The programs run at another speed, in thousandths of the normal service time.
    pub(crate) fn set_slowness(&mut self, way: &mut Way<'_>, thousandths: u32) {
        if let Some(work) = &mut self.work {
            work.set_slowness(way.now(), thousandths);
        }
        self.arm_work(way);
    }

    // Packets in.

    fn understand(&mut self, way: &mut Way<'_>, view: &View<'_>, bytes: &[u8]) {
        match &view.transport {
            Transport::Tcp(segment) => self.receive_segment(way, view, segment, bytes),
            Transport::Udp => {
                self.receive_datagram(way, (view.destination, view.source), view.payload, bytes);
            }
            Transport::IcmpError { protocol, mtu, .. } => {
                self.hear_error(way, *protocol, *mtu, view.source, view.destination);
            }
        }
    }

    /// An ICMP error about a packet that we sent from `from` to `to`.
    fn hear_error(
        &mut self,
        way: &mut Way<'_>,
        protocol: Protocol,
        mtu: Option<u32>,
        from: AnyEnd,
        to: AnyEnd,
    ) {
        let Some(index) = self.find(protocol, from, to) else {
            self.counts.unexpected += 1;
            return;
        };
        let Some(connection) = self.connections.get_mut(index) else { return };
        match (&mut connection.kind, mtu) {
            (Kind::Client { tcp, .. } | Kind::Server { tcp, .. }, Some(mtu)) => {
                let mut outbox = std::mem::take(&mut self.outbox);
                let headers = u32::try_from(ip_bytes(from) + TCP_BYTES).unwrap_or(0);
                tcp.limit_segments(mtu.saturating_sub(headers), way.now(), &mut outbox);
                self.send_out(way, (from, to), &mut outbox);
                self.outbox = outbox;
                self.arm(way, index);
            }
            // TCP treats others as hints and waits (RFC 5461); a program behind a connected UDP socket is told.
            (Kind::Client { .. } | Kind::Server { .. }, None) => {}
            (Kind::Asker { .. }, _) => self.give_up(way, index, Cause::Unreachable),
        }
    }

    fn listens(&self, protocol: Protocol, end: AnyEnd) -> bool {
        let wanted = Service { address: end.address, port: end.port, protocol };
        self.services.contains(&wanted)
    }

    fn receive_segment(&mut self, way: &mut Way<'_>, view: &View<'_>, segment: &Segment, packet: &[u8]) {
        let ends = (view.destination, view.source);
        let arrival = Arrival { segment, payload: view.payload, packet };
        if let Some(index) = self.find(Protocol::TCP, ends.0, ends.1) {
            return self.receive_known(way, index, arrival);
        }
        if self.listens(Protocol::TCP, ends.0) {
            if segment.flags == Flags::SYN {
                return self.accept(way, ends, arrival);
            }
            if let Some(index) = self.take_cookie(way, ends, segment) {
                return self.receive_known(way, index, arrival);
            }
        }
        self.counts.unexpected += 1;
        self.reset(way, ends, segment, view.payload.len());
    }

    /// A client asks for a connection.
    fn accept(&mut self, way: &mut Way<'_>, ends: (AnyEnd, AnyEnd), arrival: Arrival<'_>) {
        let has_room = self.work.as_ref().is_none_or(Work::has_room);
        if self.connections.len() >= self.connections_max() || !has_room {
            self.counts.refused += 1;
            return;
        }
        if self.half_open >= self.syn.backlog {
            return self.answer_without_memory(way, ends, arrival.segment);
        }
        let mut outbox = std::mem::take(&mut self.outbox);
        let tcp = match self.stack {
            StackKind::Minimal => {
                let mut tcp = Tcp::accept(self.number(), arrival.segment, way.now(), &mut outbox.transmits);
                tcp.limit_segments(segment_bytes(ends.0), way.now(), &mut outbox.transmits);
                Some(Stack::Minimal(tcp))
            }
            StackKind::Smoltcp => {
                let seed = self.draw.bits();
                let smol = Smol::accept(seed, ends.0, arrival.packet, way.now(), &mut outbox.packets);
                smol.map(|smol| Stack::Smoltcp(Box::new(smol)))
            }
        };
        let Some(tcp) = tcp else {
            self.outbox = outbox;
            self.counts.refused += 1;
            return;
        };
        self.half_open += 1;
        let kind = Kind::Server { tcp, reader: Reader::default(), is_half_open: true };
        let index = self.insert(ends.0, ends.1, kind);
        self.send_out(way, ends, &mut outbox);
        self.outbox = outbox;
        self.arm(way, index);
    }

    /// Too many connections are half open: the answer to this one says all that would have to be kept.
    fn answer_without_memory(&mut self, way: &mut Way<'_>, ends: (AnyEnd, AnyEnd), syn: &Segment) {
        if !self.syn.cookies || self.stack == StackKind::Smoltcp {
            self.counts.refused += 1;
            return;
        }
        self.counts.cookies_sent += 1;
        let sequence = self.cookies.give(way.now(), ends, syn.sequence);
        let segment = Tcp::answer_to(syn, sequence);
        self.outbox.transmits.push(Transmit { segment, data: None });
        let mut outbox = std::mem::take(&mut self.outbox);
        self.send_out(way, ends, &mut outbox);
        self.outbox = outbox;
    }

    /// A segment of no connection that is open: one may come about because it gives a cookie back.
    fn take_cookie(&mut self, way: &Way<'_>, ends: (AnyEnd, AnyEnd), segment: &Segment) -> Option<usize> {
        let is_plain =
            segment.flags.has(Flags::ACK) && !segment.flags.has(Flags::SYN) && !segment.flags.has(Flags::RST);
        let number = segment.acknowledgement.wrapping_sub(1);
        let their_first = segment.sequence.wrapping_sub(1);
        if !is_plain
            || self.connections.len() >= self.connections_max()
            || !self.cookies.is_one(way.now(), ends, their_first, number)
        {
            return None;
        }
        self.counts.cookies_taken += 1;
        let tcp = Stack::Minimal(Tcp::resume(number, segment));
        let kind = Kind::Server { tcp, reader: Reader::default(), is_half_open: false };
        Some(self.insert(ends.0, ends.1, kind))
    }

    /// Connections that the host keeps.
    const fn connections_max(&self) -> usize {
        match self.stack {
            StackKind::Minimal => CONNECTIONS_MAX,
            StackKind::Smoltcp => SMOLTCP_CONNECTIONS_MAX,
        }
    }

    /// Opens a connection. `None` where the stack can not.
    fn connect(
        &mut self,
        now: Instant,
        ends: (AnyEnd, AnyEnd),
        flow: &Flow,
        outbox: &mut Outbox,
    ) -> Option<Stack> {
        match self.stack {
            StackKind::Minimal => {
                let mut tcp = Tcp::connect(self.number(), flow.request(), now, &mut outbox.transmits);
                tcp.limit_segments(segment_bytes(ends.0), now, &mut outbox.transmits);
                Some(Stack::Minimal(tcp))
            }
            StackKind::Smoltcp if self.connections.len() >= SMOLTCP_CONNECTIONS_MAX => None,
            StackKind::Smoltcp => {
                let seed = self.draw.bits();
                let smol = Smol::connect(seed, ends, flow.request(), now, &mut outbox.packets);
                smol.map(|smol| Stack::Smoltcp(Box::new(smol)))
            }
        }
    }

    /// Hands a segment to its connection, lets its program react, and looks at what has become of it.
    fn receive_known(&mut self, way: &mut Way<'_>, index: usize, arrival: Arrival<'_>) {
        let mut outbox = std::mem::take(&mut self.outbox);
        let ends = self.connections.get(index).map(|known| (known.local, known.remote));
        self.react(way, index, arrival, &mut outbox);
        if let Some(ends) = ends {
            self.send_out(way, ends, &mut outbox);
        }
        self.outbox = outbox;
        self.review(way, index);
    }

    fn react(&mut self, way: &mut Way<'_>, index: usize, arrival: Arrival<'_>, out: &mut Outbox) {
        let now = way.now();
        let Some(connection) = self.connections.get_mut(index) else { return };
        let (identity, generation) = (identity(&self.own, connection.local.address), connection.generation);
        let (mut found, mut cause) = (Found::Nothing, Cause::WrongAnswer);
        let mut asked = None;
        match &mut connection.kind {
            Kind::Client { tcp, reader, flow, .. } => {
                let question = flow.head();
                let mut read = |bytes: &[u8]| found.note(reader.push(Some(&question), bytes));
                tcp.receive(arrival, now, out, &mut read);
                if let Found::Whole(head) = found {
                    found = Found::Nothing;
                    self.answers.push(flow.answer(head.argument, now));
                    match flow.answered(head.argument) {
                        None => {
                            let pause = draw_pause(&mut self.pauses, flow.pause());
                            connection.resumes = now.after(pause);
                        }
                        Some(Ok(())) => tcp.close(),
                        Some(Err(error)) => (found, cause) = (Found::Corrupt, error),
                    }
                }
                if connection.resumes <= now {
                    connection.resumes = Instant::NEVER;
                    ask(tcp, reader, flow, now);
                }
                tcp.flush(now, out);
            }
            Kind::Server { tcp, reader, .. } => {
                let was_closed = tcp.is_closed_by_peer();
                let mut read = |bytes: &[u8]| found.note(reader.push(None, bytes));
                tcp.receive(arrival, now, out, &mut read);
                if let Found::Whole(head) = found {
                    if self.work.is_some() {
                        asked = Some(head);
                    } else {
                        tcp.send(Message::response_of(&head, identity));
                    }
                }
                if tcp.is_closed_by_peer() && !was_closed {
                    tcp.close();
                }
                tcp.flush(now, out);
            }
            Kind::Asker { .. } => {}
        }
        if let Some(head) = asked {
            self.begin_work(
                way,
                Job { target: Target::Connection { index, generation }, head, since: way.now() },
            );
        }
        if found == Found::Corrupt {
            let reset = reset_for(arrival.segment, arrival.payload.len());
            out.transmits.extend(reset.map(|segment| Transmit { segment, data: None }));
            self.abandon(index, cause);
        }
    }

    /// Bytes came that cannot be: the program gives up.
    fn abandon(&mut self, index: usize, cause: Cause) {
        let Some(connection) = self.remove(index) else { return };
        match connection.kind {
            Kind::Client { flow, has_ended: false, .. } => {
                self.finish(Some(connection.local), &flow, Some(cause));
            }
            Kind::Client { .. } | Kind::Asker { .. } => {}
            Kind::Server { .. } => self.counts.bad_requests += 1,
        }
    }

    // Work.

    fn begin_work(&mut self, way: &mut Way<'_>, job: Job) {
        let Some(work) = &mut self.work else { return };
        if !work.begin(way.now(), job) {
            self.counts.refused += 1;
        }
        self.arm_work(way);
    }

    fn arm_work(&mut self, way: &mut Way<'_>) {
        if let Some((at, event)) = self.work.as_mut().and_then(|work| work.next_event(self.machine)) {
            way.schedule(at, event);
        }
    }

    /// A request has been worked on.
    fn answer(&mut self, way: &mut Way<'_>, job: Job) {
        match job.target {
            Target::Datagram { local, remote } => {
                let answer = Message::response_of(&job.head, identity(&self.own, local.address));
                self.send_datagram(way, (local, remote), &answer);
            }
            Target::Connection { index, generation } => {
                let known = self.connections.get_mut(index).filter(|one| one.generation == generation);
                let Some(connection) = known else { return };
                let ends = (connection.local, connection.remote);
                let Kind::Server { tcp, .. } = &mut connection.kind else { return };
                let identity = identity(&self.own, ends.0.address);
                let mut outbox = std::mem::take(&mut self.outbox);
                tcp.send(Message::response_of(&job.head, identity));
                tcp.flush(way.now(), &mut outbox);
                self.send_out(way, ends, &mut outbox);
                self.outbox = outbox;
                self.review(way, index);
            }
        }
    }

    // State.

    /// The client of a connection gives up: its flow ends here, and the other side is told where that is usual.
    fn give_up(&mut self, way: &mut Way<'_>, index: usize, cause: Cause) {
        let Some(connection) = self.remove(index) else { return };
        match connection.kind {
            Kind::Client { mut tcp, flow, has_ended, .. } => {
                let mut outbox = std::mem::take(&mut self.outbox);
                tcp.abort(way.now(), &mut outbox);
                self.send_out(way, (connection.local, connection.remote), &mut outbox);
                self.outbox = outbox;
                if !has_ended {
                    self.finish(Some(connection.local), &flow, Some(cause));
                }
            }
            Kind::Asker { flow, .. } => self.finish(Some(connection.local), &flow, Some(cause)),
            Kind::Server { .. } => {}
        }
    }

    /// Sends the next request after a pause.
    fn ask_next(&mut self, way: &mut Way<'_>, index: usize) {
        let now = way.now();
        let Some(connection) = self.connections.get_mut(index) else { return };
        connection.resumes = Instant::NEVER;
        let ends = (connection.local, connection.remote);
        match &mut connection.kind {
            Kind::Client { tcp, reader, flow, .. } => {
                let mut outbox = std::mem::take(&mut self.outbox);
                ask(tcp, reader, flow, now);
                tcp.flush(now, &mut outbox);
                self.send_out(way, ends, &mut outbox);
                self.outbox = outbox;
            }
            Kind::Asker { flow, retries, deadline } => {
                (*retries, *deadline) = (0, now.after(DATAGRAM_PATIENCE));
                flow.asked = now;
                let request = flow.request();
                match (ends.0.v4(), ends.1.v4()) {
                    (Some(local), Some(remote)) => self.send_datagram(way, (local, remote), &request),
                    _ => self.send_datagram(way, ends, &request),
                }
            }
            Kind::Server { .. } => {}
        }
    }

    /// Looks at what a connection has become, after a segment or a timer.
    fn review(&mut self, way: &mut Way<'_>, index: usize) {
        let Some(connection) = self.connections.get_mut(index) else { return };
        let local = connection.local;
        let (state, mut ended) = match &mut connection.kind {
            Kind::Client { tcp, flow, has_ended, .. } => {
                let is_done = flow.is_done();
                let verdict = match tcp.state() {
                    State::TimeWait | State::Closed => Some(None),
                    State::Reset => Some(Some(Cause::Reset)),
                    State::TimedOut => Some(Some(Cause::TimedOut)),
                    State::Open if tcp.is_closed_by_peer() && !is_done => Some(Some(Cause::ClosedEarly)),
                    State::SynSent | State::SynReceived | State::Open => None,
                };
                let ended = verdict.filter(|_| !*has_ended).map(|cause| (**flow, cause));
                *has_ended |= ended.is_some();
                (tcp.state(), ended)
            }
            Kind::Server { tcp, is_half_open, .. } => {
                if *is_half_open && tcp.state() != State::SynReceived {
                    *is_half_open = false;
                    self.half_open = self.half_open.saturating_sub(1);
                }
                (tcp.state(), None)
            }
            Kind::Asker { .. } => return self.arm(way, index),
        };
        let is_cut = matches!(ended, Some((_, Some(Cause::ClosedEarly))));
        if let Some((flow, cause)) = ended.take() {
            self.finish(Some(local), &flow, cause);
        }
        if is_cut || matches!(state, State::Closed | State::Reset | State::TimedOut) {
            self.remove(index);
        } else {
            self.arm(way, index);
        }
    }

    fn finish(&mut self, client: Option<AnyEnd>, flow: &Flow, broken: Option<Cause>) {
        self.endings.push(flow.ending(client, broken));
    }

    fn insert(&mut self, local: AnyEnd, remote: AnyEnd, kind: Kind) -> usize {
        self.generation = self.generation.wrapping_add(1);
        let (scheduled, resumes) = (Instant::NEVER, Instant::NEVER);
        let connection = Connection { local, remote, generation: self.generation, scheduled, resumes, kind };
        let name = name(connection.protocol(), local, remote);
        if self.connections.len() == self.connections.capacity() {
            // By a quarter, not by as much again: room for connections is most of what a host takes.
            self.connections.reserve_exact((self.connections.len() / 4).max(ROOM_MIN));
        }
        let index = self.connections.insert(connection);
        self.table.insert(name, number(index));
        index
    }

    fn find(&self, protocol: Protocol, local: AnyEnd, remote: AnyEnd) -> Option<usize> {
        self.find_at_once(protocol, local, remote)
    }

    /// The same, in place: ends whose family is known are never written out as such.
    #[inline(always)]
    fn find_at_once(&self, protocol: Protocol, local: AnyEnd, remote: AnyEnd) -> Option<usize> {
        let is_meant = |place| {
            let known = self.connections.get(index(place));
            known.is_some_and(|one| one.local == local && one.remote == remote && one.protocol() == protocol)
        };
        self.table.find(name(protocol, local, remote), is_meant).map(index)
    }

    fn remove(&mut self, index: usize) -> Option<Connection> {
        let connection = self.connections.try_remove(index)?;
        self.table.remove(name(connection.protocol(), connection.local, connection.remote), number(index));
        self.counts.retransmitted += connection.retransmitted();
        if let Kind::Server { is_half_open: true, .. } = connection.kind {
            self.half_open = self.half_open.saturating_sub(1);
        }
        Some(connection)
    }

    /// Sees to it that a timer event comes when the connection's deadline does.
    fn arm(&mut self, way: &mut Way<'_>, index: usize) {
        let Some(connection) = self.connections.get_mut(index) else { return };
        let deadline = connection.deadline();
        if deadline < connection.scheduled {
            connection.scheduled = deadline;
            let (machine, generation) = (number(self.machine), connection.generation);
            way.schedule(deadline, Event::Timer { machine, connection: number(index), generation });
        }
    }

    /// An own end for a flow to `remote`: the address of the way out and the next port that is free.
    fn free_end(&mut self, way: &Way<'_>, protocol: Protocol, remote: AnyEnd) -> Option<AnyEnd> {
        let address: IpAddr = way.source_for(remote.address)?;
        for _ in PORT_FIRST..=u16::MAX {
            let end = End { address, port: self.next_port };
            self.next_port = self.next_port.checked_add(1).unwrap_or(PORT_FIRST);
            if self.find(protocol, end, remote).is_none() && !self.listens(protocol, end) {
                return Some(end);
            }
        }
        None
    }

    /// A first sequence number.
    fn number(&mut self) -> u32 {
        #[allow(clippy::cast_possible_truncation, reason = "32 of 64 random bits")]
        {
            self.draw.bits() as u32
        }
    }

    // Packets out.

    /// Sends what a connection wants sent.
    fn send_out(&mut self, way: &mut Way<'_>, ends: (AnyEnd, AnyEnd), outbox: &mut Outbox) {
        for packet in outbox.packets.drain(..) {
            self.send(way, packet);
        }
        for Transmit { segment, data } in outbox.transmits.drain(..) {
            let length = data.map_or(0, |(_, _, length)| usize::try_from(length).unwrap_or(0));
            let fill = |place: &mut [u8]| {
                if let Some((message, offset, _)) = data {
                    message.write(offset, place);
                }
            };
            let packet = packet::build(way.buffer(), ends, Header::Tcp(segment), length, fill);
            self.send(way, packet);
        }
    }

    fn reset(&mut self, way: &mut Way<'_>, ends: (AnyEnd, AnyEnd), segment: &Segment, payload: usize) {
        if let Some(segment) = reset_for(segment, payload) {
            let packet = packet::build(way.buffer(), ends, Header::Tcp(segment), 0, |_| ());
            self.send(way, packet);
        }
    }

    fn send(&mut self, way: &mut Way<'_>, packet: Packet) {
        self.counts.sent += 1;
        way.send(packet);
    }

    // Questions.

    /// Segments that connections which are still open have sent again, and those that are over.
    pub(crate) fn retransmitted(&self) -> u64 {
        let open = self.connections.iter().map(|(_, connection)| connection.retransmitted());
        self.counts.retransmitted + open.sum::<u64>()
    }
}

/// The hash of what a connection is found by.
#[inline]
fn name(protocol: Protocol, local: AnyEnd, remote: AnyEnd) -> u32 {
    hash_pair(end_word(local) ^ (u64::from(protocol.0) << 56), end_word(remote))
}

/// What the programs of a host call themselves when they were called by `local`: an address of an interface, and not one
/// that all real servers share.
#[inline]
fn identity(own: &[IpAddr], local: IpAddr) -> u32 {
    let is_shared = !own.contains(&local);
    payload::identity(own.first().copied().filter(|_| is_shared).unwrap_or(local))
}

/// Sends the next request of a flow on its connection.
fn ask(tcp: &mut Stack, reader: &mut Reader, flow: &mut Flow, now: Instant) {
    flow.asked = now;
    *reader = Reader::default();
    tcp.send(flow.request());
}

fn draw_pause(draw: &mut Stream, mean: Duration) -> Duration {
    if mean == Duration::ZERO { Duration::ZERO } else { draw.exponential(mean) }
}

const fn ip_bytes(end: AnyEnd) -> usize {
    if end.address.is_ipv4() { IPV4_BYTES } else { IPV6_BYTES }
}

/// The payload of a full segment on an Ethernet of 1,500 bytes.
fn segment_bytes(end: AnyEnd) -> u32 {
    u32::try_from(packet::MTU_BYTES - ip_bytes(end) - TCP_BYTES).unwrap_or(packet::SEGMENT_BYTES)
}
