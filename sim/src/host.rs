//! A simulated machine that is not a forwarder: it opens flows, serves services, and looks at every packet
//! that reaches it the way a kernel and its programs would.
//!
//! In: packets, timers, flows to open. Out: packets through [`Net`], and how each flow ended. A host never
//! knows what lies between it and the other end; it judges by what it sees.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use evenkeel_engine::wire::Protocol;
use evenkeel_engine::{Duration, Instant};
use serde::Serialize;
use slab::Slab;

use crate::net::{Event, Net, Routes};
use crate::packet::{self, End, Flags, Header, Packet, Segment, Transport, Unusable, View};
use crate::payload::{self, Head, Message};
use crate::random::Stream;
use crate::scenario::{Exchange, Service};
use crate::tcp::{State, Tcp, Transmit, reset_for};

/// Connections that a host keeps; a SYN beyond is dropped. Each costs about 400 bytes.
const CONNECTIONS_MAX: usize = 1 << 20;
/// The first port that clients use.
const PORT_FIRST: u16 = 1_024;
/// How long a client waits for the answer to a datagram, the first time; then twice as long each time.
const DATAGRAM_PATIENCE: Duration = Duration::from_secs(1);
/// How often a datagram is sent again.
const DATAGRAM_RETRIES: u32 = 3;

/// Why a flow is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The other side stopped to answer.
    TimedOut,
    /// The connection was reset.
    Reset,
    /// An ICMP message said that nobody is there.
    Unreachable,
    /// The answer was not the one that belongs to the question.
    WrongAnswer,
    /// Another real server answered than before.
    ServerChanged,
    /// The connection was closed before the answer was complete.
    ClosedEarly,
    /// The client had no free port.
    NoPort,
}

impl Cause {
    /// The cause in words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::TimedOut => "the other side stopped to answer",
            Self::Reset => "the connection was reset",
            Self::Unreachable => "an ICMP message said that nobody is there",
            Self::WrongAnswer => "the answer was not the one that belongs to the question",
            Self::ServerChanged => "another real server answered than before",
            Self::ClosedEarly => "the connection was closed before the answer was complete",
            Self::NoPort => "the client had no free port",
        }
    }
}

/// A flow that is to be opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    pub(crate) load: usize,
    pub(crate) number: u64,
    pub(crate) service: Service,
    pub(crate) exchange: Exchange,
    pub(crate) pattern: u32,
}

/// A flow that has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ending {
    pub(crate) load: usize,
    pub(crate) number: u64,
    pub(crate) service: Service,
    pub(crate) server: Option<Ipv4Addr>,
    pub(crate) broken: Option<Cause>,
}

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
    /// Packets to an address that is not the host's.
    pub other_host: u64,
    /// Packets that belong to nothing that is open here.
    pub unexpected: u64,
    /// Requests whose bytes were not what a client had sent.
    pub bad_requests: u64,
    /// Packets that it could not send: no route leads to their destination.
    pub no_route: u64,
    /// Connections that were not accepted because too many were open.
    pub refused: u64,
}

impl HostCounts {
    /// Packets for which the host had no use.
    #[must_use]
    pub const fn stray(&self) -> u64 {
        self.bad_checksum + self.malformed + self.other_host + self.unexpected
    }
}

/// What a client knows of its flow.
#[derive(Clone, Copy, Debug)]
struct Flow {
    opening: Opening,
    round: u32,
    server: Option<Ipv4Addr>,
}

impl Flow {
    /// What a request's head says.
    const fn head(&self) -> Head {
        let Exchange { request_bytes, response_bytes, .. } = self.opening.exchange;
        let pattern = self.opening.pattern.wrapping_add(self.round.wrapping_mul(0x9e37_79b9));
        Head { length: request_bytes, argument: response_bytes, pattern }
    }

    fn request(&self) -> Message {
        let Head { length, argument, pattern } = self.head();
        Message::request(length, argument, pattern)
    }

    /// Takes in who answered and goes on to the next round; `Some` when the flow is over.
    fn answered(&mut self, server: Ipv4Addr) -> Option<Result<(), Cause>> {
        if *self.server.get_or_insert(server) != server {
            return Some(Err(Cause::ServerChanged));
        }
        self.round += 1;
        (self.round >= self.opening.exchange.rounds).then_some(Ok(()))
    }
}

/// What a reader has found so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Whole(Head),
    Corrupt,
}

/// Reads messages out of a stream and compares every byte with what it must be.
#[derive(Clone, Debug)]
struct Reader {
    /// The request whose answer this is; `None` reads requests.
    question: Option<Head>,
    head: [u8; 16],
    got: u32,
    message: Option<(Head, Message)>,
}

impl Reader {
    const fn new(question: Option<Head>) -> Self {
        Self { question, head: [0; 16], got: 0, message: None }
    }

    /// Takes in bytes of the stream.
    fn push(&mut self, bytes: &[u8]) -> Found {
        let start = usize::try_from(self.got).unwrap_or(usize::MAX);
        let place = self.head.get_mut(start..).unwrap_or(&mut []);
        let taken = place.len().min(bytes.len());
        for (to, from) in place.iter_mut().zip(bytes) {
            *to = *from;
        }
        if self.message.is_none() && start + taken == self.head.len() {
            self.message = self.understand();
            if self.message.is_none() {
                return Found::Corrupt;
            }
        }
        let Some((head, message)) = self.message else {
            self.got += u32::try_from(bytes.len()).unwrap_or(0);
            return Found::Nothing;
        };
        // The head is compared as well: it was understood by the same rule that wrote it.
        let fits = message.matches(self.got, bytes);
        self.got = self.got.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        if !fits || self.got > message.len() {
            return Found::Corrupt;
        }
        if self.got < message.len() {
            return Found::Nothing;
        }
        *self = Self::new(self.question);
        Found::Whole(head)
    }

    fn understand(&self) -> Option<(Head, Message)> {
        match &self.question {
            None => {
                let head = payload::request_head(&self.head)?;
                Some((head, Message::request(head.length, head.argument, head.pattern)))
            }
            Some(question) => {
                let head = payload::response_head(&self.head)?;
                let expected = Message::response(question, Ipv4Addr::from_bits(head.argument));
                (head.length == question.argument && head.pattern == !question.pattern)
                    .then_some((head, expected))
            }
        }
    }
}

#[derive(Debug)]
enum Kind {
    /// The side of a TCP connection that asks.
    Client { tcp: Tcp, reader: Reader, flow: Flow, has_ended: bool },
    /// The side of a TCP connection that answers.
    Server { tcp: Tcp, reader: Reader },
    /// Datagrams that ask.
    Asker { flow: Flow, retries: u32, deadline: Instant },
}

#[derive(Debug)]
struct Connection {
    local: End,
    remote: End,
    generation: u32,
    /// When the pending timer event is due.
    scheduled: Instant,
    kind: Kind,
}

impl Connection {
    const fn protocol(&self) -> Protocol {
        match self.kind {
            Kind::Client { .. } | Kind::Server { .. } => Protocol::TCP,
            Kind::Asker { .. } => Protocol::UDP,
        }
    }

    const fn deadline(&self) -> Instant {
        match &self.kind {
            Kind::Client { tcp, .. } | Kind::Server { tcp, .. } => tcp.deadline(),
            Kind::Asker { deadline, .. } => *deadline,
        }
    }
}

/// A machine.
pub(crate) struct Host {
    machine: usize,
    /// Its addresses with the number of their port, the way out to each.
    addresses: Vec<(Ipv4Addr, usize)>,
    routes: Routes,
    services: Vec<Service>,
    connections: Slab<Connection>,
    /// Connections by protocol, own end and other end.
    table: BTreeMap<(Protocol, End, End), usize>,
    next_port: u16,
    generation: u32,
    draw: Stream,
    transmits: Vec<Transmit>,
    pub(crate) counts: HostCounts,
    pub(crate) endings: Vec<Ending>,
}

impl Host {
    pub(crate) fn new(
        machine: usize,
        name: &str,
        seed: u64,
        addresses: Vec<(Ipv4Addr, usize)>,
        routes: Routes,
        services: Vec<Service>,
    ) -> Self {
        let mut draw = Stream::new(seed, name, "numbers");
        let span = u64::from(u16::MAX - PORT_FIRST);
        let next_port = PORT_FIRST + u16::try_from(draw.below(span)).unwrap_or(0);
        Self {
            machine,
            addresses,
            routes,
            services,
            connections: Slab::new(),
            table: BTreeMap::new(),
            next_port,
            generation: 0,
            draw,
            transmits: Vec::new(),
            counts: HostCounts::default(),
            endings: Vec::new(),
        }
    }

    // Commands.

    /// Opens a flow.
    pub(crate) fn open(&mut self, net: &mut Net, opening: Opening) {
        let service = opening.service;
        let flow = Flow { opening, round: 0, server: None };
        let remote = End { address: service.address, port: service.port };
        let Some(local) = self.free_end(service.protocol, remote) else {
            return self.finish(&flow, Some(Cause::NoPort));
        };
        let mut transmits = std::mem::take(&mut self.transmits);
        let kind = if service.protocol == Protocol::TCP {
            let tcp = Tcp::connect(self.number(), flow.request(), net.now, &mut transmits);
            Kind::Client { tcp, reader: Reader::new(Some(flow.head())), flow, has_ended: false }
        } else {
            Kind::Asker { flow, retries: 0, deadline: net.now.after(DATAGRAM_PATIENCE) }
        };
        let index = self.insert(local, remote, kind);
        if service.protocol == Protocol::UDP {
            self.send_datagram(net, (local, remote), &flow.request());
        }
        self.send_segments(net, (local, remote), &mut transmits);
        self.transmits = transmits;
        self.arm(net, index);
    }

    /// Takes in a packet.
    pub(crate) fn receive(&mut self, net: &mut Net, packet: Packet) {
        self.counts.received += 1;
        match packet::view(packet.bytes()) {
            Ok(view) => self.understand(net, &view, packet.bytes()),
            Err(Unusable::Checksum) => self.counts.bad_checksum += 1,
            Err(Unusable::Malformed) => self.counts.malformed += 1,
            Err(Unusable::Unspoken) => self.counts.unexpected += 1,
        }
        net.recycle(packet);
    }

    /// A timer of a connection is due.
    pub(crate) fn timeout(&mut self, net: &mut Net, index: usize, generation: u32) {
        let now = net.now;
        let Some(connection) = self.connections.get_mut(index) else { return };
        if connection.generation != generation || now < connection.scheduled {
            return;
        }
        connection.scheduled = Instant::NEVER;
        if now < connection.deadline() {
            return self.arm(net, index);
        }
        let ends = (connection.local, connection.remote);
        let mut transmits = std::mem::take(&mut self.transmits);
        let mut again = None;
        let mut ended = None;
        match &mut connection.kind {
            Kind::Client { tcp, .. } | Kind::Server { tcp, .. } => tcp.timeout(now, &mut transmits),
            Kind::Asker { flow, retries, deadline } => {
                if *retries >= DATAGRAM_RETRIES {
                    ended = Some(*flow);
                } else {
                    *retries += 1;
                    *deadline = now.after(DATAGRAM_PATIENCE * (1 << *retries));
                    again = Some(flow.request());
                }
            }
        }
        self.send_segments(net, ends, &mut transmits);
        self.transmits = transmits;
        if let Some(request) = again {
            self.counts.retransmitted += 1;
            self.send_datagram(net, ends, &request);
        }
        if let Some(flow) = ended {
            self.remove(index);
            return self.finish(&flow, Some(Cause::TimedOut));
        }
        self.review(net, index);
    }

    // Packets in.

    fn understand(&mut self, net: &mut Net, view: &View<'_>, bytes: &[u8]) {
        match &view.transport {
            Transport::IcmpError { protocol, .. } => {
                return self.hear_error(*protocol, view.source, view.destination);
            }
            Transport::Tcp(_) | Transport::Udp => {}
        }
        if !self.addresses.iter().any(|(own, _)| *own == view.destination.address) {
            self.counts.other_host += 1;
            return;
        }
        match &view.transport {
            Transport::Tcp(segment) => self.receive_segment(net, view, segment),
            Transport::Udp => self.receive_datagram(net, view, bytes),
            Transport::IcmpError { .. } => {}
        }
    }

    /// An ICMP error about a packet that we sent from `from` to `to`.
    fn hear_error(&mut self, protocol: Protocol, from: End, to: End) {
        let Some(index) = self.table.get(&(protocol, from, to)).copied() else {
            self.counts.unexpected += 1;
            return;
        };
        // TCP treats them as hints and waits (RFC 5461); a program behind a connected UDP socket is told.
        let Some(connection) = self.connections.get(index) else { return };
        if let Kind::Asker { flow, .. } = connection.kind {
            self.remove(index);
            self.finish(&flow, Some(Cause::Unreachable));
        }
    }

    fn listens(&self, protocol: Protocol, end: End) -> bool {
        let wanted = Service { address: end.address, port: end.port, protocol };
        self.services.contains(&wanted)
    }

    fn receive_segment(&mut self, net: &mut Net, view: &View<'_>, segment: &Segment) {
        let (local, remote) = (view.destination, view.source);
        let mut transmits = std::mem::take(&mut self.transmits);
        if let Some(index) = self.table.get(&(Protocol::TCP, local, remote)).copied() {
            self.receive_known(net.now, index, segment, view.payload, &mut transmits);
            self.send_segments(net, (local, remote), &mut transmits);
            self.review(net, index);
        } else if segment.flags == Flags::SYN && self.listens(Protocol::TCP, local) {
            if self.connections.len() < CONNECTIONS_MAX {
                let tcp = Tcp::accept(self.number(), segment, net.now, &mut transmits);
                let index = self.insert(local, remote, Kind::Server { tcp, reader: Reader::new(None) });
                self.send_segments(net, (local, remote), &mut transmits);
                self.arm(net, index);
            } else {
                self.counts.refused += 1;
            }
        } else {
            self.counts.unexpected += 1;
            self.reset(net, (local, remote), segment, view.payload.len());
        }
        self.transmits = transmits;
    }

    /// Hands a segment to its connection and lets its program react.
    fn receive_known(
        &mut self,
        now: Instant,
        index: usize,
        segment: &Segment,
        payload: &[u8],
        transmits: &mut Vec<Transmit>,
    ) {
        let Some(connection) = self.connections.get_mut(index) else { return };
        let local = connection.local.address;
        let (mut found, mut cause) = (Found::Nothing, Cause::WrongAnswer);
        match &mut connection.kind {
            Kind::Client { tcp, reader, flow, .. } => {
                tcp.receive(segment, payload, now, transmits, &mut |bytes| {
                    note(&mut found, reader.push(bytes))
                });
                if let Found::Whole(head) = found {
                    found = Found::Nothing;
                    match flow.answered(Ipv4Addr::from_bits(head.argument)) {
                        None => {
                            *reader = Reader::new(Some(flow.head()));
                            tcp.send(flow.request());
                        }
                        Some(Ok(())) => tcp.close(),
                        Some(Err(error)) => (found, cause) = (Found::Corrupt, error),
                    }
                }
                tcp.flush(now, transmits);
            }
            Kind::Server { tcp, reader } => {
                let was_closed = tcp.is_closed_by_peer();
                tcp.receive(segment, payload, now, transmits, &mut |bytes| {
                    note(&mut found, reader.push(bytes))
                });
                if let Found::Whole(head) = found {
                    tcp.send(Message::response(&head, local));
                }
                if tcp.is_closed_by_peer() && !was_closed {
                    tcp.close();
                }
                tcp.flush(now, transmits);
            }
            Kind::Asker { .. } => {}
        }
        if found == Found::Corrupt {
            transmits
                .extend(reset_for(segment, payload.len()).map(|segment| Transmit { segment, data: None }));
            self.abandon(index, cause);
        }
    }

    /// Bytes came that cannot be: the program gives up.
    fn abandon(&mut self, index: usize, cause: Cause) {
        let Some(connection) = self.remove(index) else { return };
        match connection.kind {
            Kind::Client { flow, has_ended: false, .. } => self.finish(&flow, Some(cause)),
            Kind::Client { .. } | Kind::Asker { .. } => {}
            Kind::Server { .. } => self.counts.bad_requests += 1,
        }
    }

    fn receive_datagram(&mut self, net: &mut Net, view: &View<'_>, bytes: &[u8]) {
        let (local, remote) = (view.destination, view.source);
        if let Some(index) = self.table.get(&(Protocol::UDP, local, remote)).copied() {
            return self.receive_answer(net, index, view.payload);
        }
        if self.listens(Protocol::UDP, local) {
            match Reader::new(None).push(view.payload) {
                Found::Whole(head) => {
                    self.send_datagram(net, (local, remote), &Message::response(&head, local.address));
                }
                Found::Nothing | Found::Corrupt => self.counts.bad_requests += 1,
            }
            return;
        }
        self.counts.unexpected += 1;
        let error = packet::port_unreachable(net.buffer(), bytes);
        if let Some(error) = error {
            self.send(net, remote.address, error);
        }
    }

    /// An answer to a datagram of ours.
    fn receive_answer(&mut self, net: &mut Net, index: usize, payload: &[u8]) {
        let now = net.now;
        let Some(connection) = self.connections.get_mut(index) else { return };
        let ends = (connection.local, connection.remote);
        let Kind::Asker { flow, retries, deadline } = &mut connection.kind else { return };
        let Some(head) = payload::response_head(payload) else {
            let flow = *flow;
            self.remove(index);
            return self.finish(&flow, Some(Cause::WrongAnswer));
        };
        if head.pattern != !flow.head().pattern {
            // The answer to a question that was asked twice.
            self.counts.unexpected += 1;
            return;
        }
        let verdict = match Reader::new(Some(flow.head())).push(payload) {
            Found::Whole(head) => flow.answered(Ipv4Addr::from_bits(head.argument)),
            Found::Nothing | Found::Corrupt => Some(Err(Cause::WrongAnswer)),
        };
        match verdict {
            None => {
                (*retries, *deadline) = (0, now.after(DATAGRAM_PATIENCE));
                let request = flow.request();
                self.send_datagram(net, ends, &request);
                self.arm(net, index);
            }
            Some(result) => {
                let flow = *flow;
                self.remove(index);
                self.finish(&flow, result.err());
            }
        }
    }

    // State.

    /// Looks at what a connection has become, after a segment or a timer.
    fn review(&mut self, net: &mut Net, index: usize) {
        let Some(connection) = self.connections.get_mut(index) else { return };
        let (state, mut ended) = match &mut connection.kind {
            Kind::Client { tcp, flow, has_ended, .. } => {
                let is_done = flow.round >= flow.opening.exchange.rounds;
                let verdict = match tcp.state() {
                    State::TimeWait | State::Closed => Some(None),
                    State::Reset => Some(Some(Cause::Reset)),
                    State::TimedOut => Some(Some(Cause::TimedOut)),
                    State::Open if tcp.is_closed_by_peer() && !is_done => Some(Some(Cause::ClosedEarly)),
                    State::SynSent | State::SynReceived | State::Open => None,
                };
                let ended = verdict.filter(|_| !*has_ended).map(|cause| (*flow, cause));
                *has_ended |= ended.is_some();
                (tcp.state(), ended)
            }
            Kind::Server { tcp, .. } => (tcp.state(), None),
            Kind::Asker { .. } => return self.arm(net, index),
        };
        let is_cut = matches!(ended, Some((_, Some(Cause::ClosedEarly))));
        if let Some((flow, cause)) = ended.take() {
            self.finish(&flow, cause);
        }
        if is_cut || matches!(state, State::Closed | State::Reset | State::TimedOut) {
            self.remove(index);
        } else {
            self.arm(net, index);
        }
    }

    fn finish(&mut self, flow: &Flow, broken: Option<Cause>) {
        let Opening { load, number, service, .. } = flow.opening;
        self.endings.push(Ending { load, number, service, server: flow.server, broken });
    }

    fn insert(&mut self, local: End, remote: End, kind: Kind) -> usize {
        self.generation = self.generation.wrapping_add(1);
        let connection =
            Connection { local, remote, generation: self.generation, scheduled: Instant::NEVER, kind };
        let key = (connection.protocol(), local, remote);
        let index = self.connections.insert(connection);
        self.table.insert(key, index);
        index
    }

    fn remove(&mut self, index: usize) -> Option<Connection> {
        let connection = self.connections.try_remove(index)?;
        self.table.remove(&(connection.protocol(), connection.local, connection.remote));
        if let Kind::Client { tcp, .. } | Kind::Server { tcp, .. } = &connection.kind {
            self.counts.retransmitted += tcp.retransmitted;
        }
        Some(connection)
    }

    /// Sees to it that a timer event comes when the connection's deadline does.
    fn arm(&mut self, net: &mut Net, index: usize) {
        let Some(connection) = self.connections.get_mut(index) else { return };
        let deadline = connection.deadline();
        if deadline < connection.scheduled {
            connection.scheduled = deadline;
            let generation = connection.generation;
            net.schedule(deadline, Event::Timer { machine: self.machine, connection: index, generation });
        }
    }

    /// An own end for a flow to `remote`: the address of the way out and the next port that is free.
    fn free_end(&mut self, protocol: Protocol, remote: End) -> Option<End> {
        let (_, out) = self.routes.find(remote.address)?;
        let (address, _) = self.addresses.iter().copied().find(|(_, port)| *port == out)?;
        for _ in PORT_FIRST..=u16::MAX {
            let end = End { address, port: self.next_port };
            self.next_port = self.next_port.checked_add(1).unwrap_or(PORT_FIRST);
            if !self.table.contains_key(&(protocol, end, remote)) && !self.listens(protocol, end) {
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

    fn send_segments(&mut self, net: &mut Net, ends: (End, End), transmits: &mut Vec<Transmit>) {
        for Transmit { segment, data } in transmits.drain(..) {
            let length = data.map_or(0, |(_, _, length)| usize::try_from(length).unwrap_or(0));
            let fill = |place: &mut [u8]| {
                if let Some((message, offset, _)) = data {
                    message.write(offset, place);
                }
            };
            let packet = packet::build(net.buffer(), ends, Header::Tcp(segment), length, fill);
            self.send(net, ends.1.address, packet);
        }
    }

    fn send_datagram(&mut self, net: &mut Net, ends: (End, End), message: &Message) {
        let length = usize::try_from(message.len()).unwrap_or(0).min(packet::MTU_BYTES);
        let packet = packet::build(net.buffer(), ends, Header::Udp, length, |place| message.write(0, place));
        self.send(net, ends.1.address, packet);
    }

    fn reset(&mut self, net: &mut Net, ends: (End, End), segment: &Segment, payload: usize) {
        let mut answer =
            reset_for(segment, payload).map(|segment| Transmit { segment, data: None }).into_iter().collect();
        self.send_segments(net, ends, &mut answer);
    }

    fn send(&mut self, net: &mut Net, to: Ipv4Addr, packet: Packet) {
        let Some((next_hop, port)) = self.routes.find(to) else {
            self.counts.no_route += 1;
            return net.recycle(packet);
        };
        self.counts.sent += 1;
        net.send(port, next_hop, packet);
    }

    // Questions.

    /// Segments that connections which are still open have sent again.
    pub(crate) fn retransmitted(&self) -> u64 {
        let of = |(_, connection): (usize, &Connection)| match &connection.kind {
            Kind::Client { tcp, .. } | Kind::Server { tcp, .. } => tcp.retransmitted,
            Kind::Asker { .. } => 0,
        };
        self.counts.retransmitted + self.connections.iter().map(of).sum::<u64>()
    }
}

/// Adds what one piece of the stream gave to what the pieces before it gave.
fn note(found: &mut Found, now: Found) {
    *found = match (*found, now) {
        (before, Found::Nothing) => before,
        (Found::Nothing, now) => now,
        // A second message, which nobody has asked for, or something after corruption.
        (Found::Whole(_) | Found::Corrupt, Found::Whole(_) | Found::Corrupt) => Found::Corrupt,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(message: &Message) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(message.len()).unwrap()];
        message.write(0, &mut bytes);
        bytes
    }

    #[test]
    fn a_reader_understands_messages_in_any_pieces() {
        let request = Message::request(100, 50, 3);
        let asked = Head { length: 100, argument: 50, pattern: 3 };
        for cut in 0..100 {
            let mut reader = Reader::new(None);
            let whole = bytes(&request);
            assert_eq!(reader.push(&whole[..cut]), Found::Nothing);
            assert_eq!(reader.push(&whole[cut..]), Found::Whole(asked), "cut at {cut}");
        }
        let mut reader = Reader::new(Some(asked));
        let response = bytes(&Message::response(&asked, Ipv4Addr::new(10, 0, 3, 20)));
        assert!(matches!(reader.push(&response), Found::Whole(_)));
    }

    #[test]
    fn a_reader_refuses_every_changed_byte_and_a_foreign_answer() {
        let asked = Head { length: 100, argument: 50, pattern: 3 };
        let response = bytes(&Message::response(&asked, Ipv4Addr::new(10, 0, 3, 20)));
        // The server's own address, bytes 8 to 11, is what a client cannot know before.
        for place in (0..50).filter(|place| !(8..12).contains(place)) {
            let mut changed = response.clone();
            changed[place] ^= 1;
            assert_eq!(Reader::new(Some(asked)).push(&changed), Found::Corrupt, "byte {place}");
        }
        let other = Head { pattern: 4, ..asked };
        assert_eq!(Reader::new(Some(other)).push(&response), Found::Corrupt);
        let mut long = response;
        long.push(0);
        assert_eq!(Reader::new(Some(asked)).push(&long), Found::Corrupt);
    }

    #[test]
    fn corruption_outweighs_what_was_found_before() {
        let head = Head { length: 16, argument: 16, pattern: 1 };
        let mut found = Found::Nothing;
        note(&mut found, Found::Whole(head));
        note(&mut found, Found::Nothing);
        assert_eq!(found, Found::Whole(head));
        note(&mut found, Found::Corrupt);
        note(&mut found, Found::Whole(head));
        assert_eq!(found, Found::Corrupt);
    }
}
