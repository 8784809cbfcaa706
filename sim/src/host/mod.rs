//! What runs on a simulated machine that is not a forwarder: programs that open flows and serve services, and look at
//! every packet that reaches them the way programs would.
//!
//! In: packets for the machine, timers, flows to open. Out: packets through [`Way`], and how each flow ended. A host
//! never knows what lies between it and the other end; it judges by what it sees.

mod flow;
mod work;

use std::net::IpAddr;

use evenkeel_engine::wire::Protocol;
use evenkeel_engine::{Duration, Instant};
use serde::Serialize;
use slab::Slab;

pub use flow::Cause;
pub(crate) use flow::{Answer, Ending, Opening};
use flow::{Flow, Found, Reader};
use work::{Job, Target, Work};

use crate::index::{Index, end_word, hash};
use crate::net::{Event, Way, index, number};
use crate::packet::{
    self, AnyEnd, End, Flags, Header, IPV4_BYTES, IPV6_BYTES, Packet, Segment, TCP_BYTES, Transport,
    Unusable, View,
};
use crate::payload::{self, Message};
use crate::random::Stream;
use crate::scenario::{Service, ServiceModel};
use crate::tcp::{State, Tcp, Transmit, reset_for};
use crate::work::LawError;

/// Connections that a host keeps; a SYN beyond is dropped. Each costs about 250 bytes, and a client's 80 more.
const CONNECTIONS_MAX: usize = 1 << 20;
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
    /// Connections that were not accepted because too many were open.
    pub refused: u64,
}

impl HostCounts {
    /// Packets for which the host had no use.
    #[must_use]
    pub const fn stray(&self) -> u64 {
        self.bad_checksum + self.malformed + self.unexpected
    }
}

#[derive(Debug)]
enum Kind {
    /// The side of a TCP connection that asks.
    Client { tcp: Tcp, reader: Reader, flow: Box<Flow>, has_ended: bool },
    /// The side of a TCP connection that answers.
    Server { tcp: Tcp, reader: Reader },
    /// Datagrams that ask.
    Asker { flow: Box<Flow>, retries: u32, deadline: Instant },
}

#[derive(Debug)]
struct Connection {
    local: AnyEnd,
    remote: AnyEnd,
    generation: u32,
    /// When the pending timer event is due.
    scheduled: Instant,
    /// When the client goes on after a pause.
    resumes: Instant,
    kind: Kind,
}

impl Connection {
    const fn protocol(&self) -> Protocol {
        match self.kind {
            Kind::Client { .. } | Kind::Server { .. } => Protocol::TCP,
            Kind::Asker { .. } => Protocol::UDP,
        }
    }

    fn deadline(&self) -> Instant {
        let own = match &self.kind {
            Kind::Client { tcp, flow, has_ended: false, .. } => tcp.deadline().min(flow.deadline),
            Kind::Client { tcp, .. } | Kind::Server { tcp, .. } => tcp.deadline(),
            Kind::Asker { flow, deadline, .. } => (*deadline).min(flow.deadline),
        };
        own.min(self.resumes)
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
    transmits: Vec<Transmit>,
    /// Work for requests, where it takes time.
    work: Option<Work>,
    /// The programs do not run: what comes is left lying.
    is_hung: bool,
    pub(crate) counts: HostCounts,
    pub(crate) endings: Vec<Ending>,
    pub(crate) answers: Vec<Answer>,
}

impl Host {
    pub(crate) fn new(
        machine: usize,
        name: &str,
        seed: u64,
        own: Vec<IpAddr>,
        services: Vec<Service>,
        model: Option<&ServiceModel>,
    ) -> Result<Self, LawError> {
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
            transmits: Vec::new(),
            work: model.map(|model| Work::new(model, seed, name)).transpose()?,
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
        let mut transmits = std::mem::take(&mut self.transmits);
        let kind = if service.protocol == Protocol::TCP {
            let mut tcp = Tcp::connect(self.number(), flow.request(), way.now(), &mut transmits);
            tcp.limit_segments(segment_bytes(local), way.now(), &mut transmits);
            Kind::Client { tcp, reader: Reader::default(), flow, has_ended: false }
        } else {
            Kind::Asker { flow, retries: 0, deadline: way.now().after(DATAGRAM_PATIENCE) }
        };
        let index = self.insert(local, remote, kind);
        if let Some(request) = request {
            self.send_datagram(way, (local, remote), &request);
        }
        self.send_segments(way, (local, remote), &mut transmits);
        self.transmits = transmits;
        self.arm(way, index);
    }

    /// Takes in a packet.
    pub(crate) fn receive(&mut self, way: &mut Way<'_>, packet: Packet) {
        self.counts.received += 1;
        if self.is_hung {
            return way.recycle(packet);
        }
        match packet::view(packet.bytes()) {
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
        if self.has_passed_its_deadline(now, index) {
            return self.give_up(way, index, Cause::Deadline);
        }
        if self.connections.get(index).is_some_and(|connection| connection.resumes <= now) {
            self.ask_next(way, index);
        }
        let Some(connection) = self.connections.get_mut(index) else { return };
        let ends = (connection.local, connection.remote);
        let mut transmits = std::mem::take(&mut self.transmits);
        let mut again = None;
        let mut is_given_up = false;
        match &mut connection.kind {
            Kind::Client { tcp, .. } | Kind::Server { tcp, .. } => tcp.timeout(now, &mut transmits),
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
        self.send_segments(way, ends, &mut transmits);
        self.transmits = transmits;
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
            Transport::Tcp(segment) => self.receive_segment(way, view, segment),
            Transport::Udp => self.receive_datagram(way, view, bytes),
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
                let mut transmits = std::mem::take(&mut self.transmits);
                let headers = u32::try_from(ip_bytes(from) + TCP_BYTES).unwrap_or(0);
                tcp.limit_segments(mtu.saturating_sub(headers), way.now(), &mut transmits);
                self.send_segments(way, (from, to), &mut transmits);
                self.transmits = transmits;
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

    fn receive_segment(&mut self, way: &mut Way<'_>, view: &View<'_>, segment: &Segment) {
        let (local, remote) = (view.destination, view.source);
        if let Some(index) = self.find(Protocol::TCP, local, remote) {
            let mut transmits = std::mem::take(&mut self.transmits);
            self.receive_known(way, index, segment, view.payload, &mut transmits);
            self.send_segments(way, (local, remote), &mut transmits);
            self.transmits = transmits;
            self.review(way, index);
        } else if segment.flags == Flags::SYN && self.listens(Protocol::TCP, local) {
            self.accept(way, (local, remote), segment);
        } else {
            self.counts.unexpected += 1;
            self.reset(way, (local, remote), segment, view.payload.len());
        }
    }

    fn accept(&mut self, way: &mut Way<'_>, ends: (AnyEnd, AnyEnd), segment: &Segment) {
        let has_room = self.work.as_ref().is_none_or(Work::has_room);
        if self.connections.len() >= CONNECTIONS_MAX || !has_room {
            self.counts.refused += 1;
            return;
        }
        let mut transmits = std::mem::take(&mut self.transmits);
        let mut tcp = Tcp::accept(self.number(), segment, way.now(), &mut transmits);
        tcp.limit_segments(segment_bytes(ends.0), way.now(), &mut transmits);
        let index = self.insert(ends.0, ends.1, Kind::Server { tcp, reader: Reader::default() });
        self.send_segments(way, ends, &mut transmits);
        self.transmits = transmits;
        self.arm(way, index);
    }

    /// Hands a segment to its connection and lets its program react.
    fn receive_known(
        &mut self,
        way: &mut Way<'_>,
        index: usize,
        segment: &Segment,
        payload: &[u8],
        transmits: &mut Vec<Transmit>,
    ) {
        let now = way.now();
        let Some(connection) = self.connections.get_mut(index) else { return };
        let (identity, generation) = (identity(&self.own, connection.local.address), connection.generation);
        let (mut found, mut cause) = (Found::Nothing, Cause::WrongAnswer);
        let mut asked = None;
        match &mut connection.kind {
            Kind::Client { tcp, reader, flow, .. } => {
                let question = flow.head();
                let mut read = |bytes: &[u8]| found.note(reader.push(Some(&question), bytes));
                tcp.receive(segment, payload, now, transmits, &mut read);
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
                tcp.flush(now, transmits);
            }
            Kind::Server { tcp, reader } => {
                let was_closed = tcp.is_closed_by_peer();
                let mut read = |bytes: &[u8]| found.note(reader.push(None, bytes));
                tcp.receive(segment, payload, now, transmits, &mut read);
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
                tcp.flush(now, transmits);
            }
            Kind::Asker { .. } => {}
        }
        if let Some(head) = asked {
            self.begin_work(way, Job { target: Target::Connection { index, generation }, head });
        }
        if found == Found::Corrupt {
            let reset = reset_for(segment, payload.len());
            transmits.extend(reset.map(|segment| Transmit { segment, data: None }));
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

    fn receive_datagram(&mut self, way: &mut Way<'_>, view: &View<'_>, bytes: &[u8]) {
        let (local, remote) = (view.destination, view.source);
        if let Some(index) = self.find(Protocol::UDP, local, remote) {
            return self.receive_answer(way, index, view.payload);
        }
        if self.listens(Protocol::UDP, local) {
            match Reader::default().push(None, view.payload) {
                Found::Whole(head) if self.work.is_some() => {
                    self.begin_work(way, Job { target: Target::Datagram { local, remote }, head });
                }
                Found::Whole(head) => {
                    let answer = Message::response_of(&head, identity(&self.own, local.address));
                    self.send_datagram(way, (local, remote), &answer);
                }
                Found::Nothing | Found::Corrupt => self.counts.bad_requests += 1,
            }
            return;
        }
        self.counts.unexpected += 1;
        if let Some(error) = packet::port_unreachable(way.buffer(), bytes) {
            self.send(way, error);
        }
    }

    /// An answer to a datagram of ours.
    fn receive_answer(&mut self, way: &mut Way<'_>, index: usize, payload: &[u8]) {
        let now = way.now();
        let Some(connection) = self.connections.get_mut(index) else { return };
        let Kind::Asker { flow, deadline, .. } = &mut connection.kind else { return };
        let Some(head) = payload::response_head(payload) else {
            let (flow, local) = (**flow, connection.local);
            self.remove(index);
            return self.finish(Some(local), &flow, Some(Cause::WrongAnswer));
        };
        if head.pattern != !flow.head().pattern || connection.resumes != Instant::NEVER {
            // The answer to a question that was asked twice.
            self.counts.unexpected += 1;
            return;
        }
        let verdict = match Reader::default().push(Some(&flow.head()), payload) {
            Found::Whole(head) => {
                self.answers.push(flow.answer(head.argument, now));
                flow.answered(head.argument)
            }
            Found::Nothing | Found::Corrupt => Some(Err(Cause::WrongAnswer)),
        };
        match verdict {
            None => {
                *deadline = Instant::NEVER;
                let pause = draw_pause(&mut self.pauses, flow.pause());
                connection.resumes = now.after(pause);
                if pause == Duration::ZERO {
                    self.ask_next(way, index);
                }
                self.arm(way, index);
            }
            Some(result) => {
                let (flow, local) = (**flow, connection.local);
                self.remove(index);
                self.finish(Some(local), &flow, result.err());
            }
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
                let mut transmits = std::mem::take(&mut self.transmits);
                tcp.send(Message::response_of(&job.head, identity));
                tcp.flush(way.now(), &mut transmits);
                self.send_segments(way, ends, &mut transmits);
                self.transmits = transmits;
                self.review(way, index);
            }
        }
    }

    // State.

    fn has_passed_its_deadline(&self, now: Instant, index: usize) -> bool {
        let flow = match self.connections.get(index).map(|connection| &connection.kind) {
            Some(Kind::Client { flow, has_ended: false, .. } | Kind::Asker { flow, .. }) => flow,
            Some(Kind::Client { .. } | Kind::Server { .. }) | None => return false,
        };
        flow.deadline <= now
    }

    /// The client of a connection gives up: its flow ends here, and the other side is told where that is usual.
    fn give_up(&mut self, way: &mut Way<'_>, index: usize, cause: Cause) {
        let Some(connection) = self.remove(index) else { return };
        match connection.kind {
            Kind::Client { tcp, flow, has_ended, .. } => {
                let reset = Transmit { segment: tcp.abort(), data: None };
                self.send_segments(way, (connection.local, connection.remote), &mut vec![reset]);
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
                let mut transmits = std::mem::take(&mut self.transmits);
                ask(tcp, reader, flow, now);
                tcp.flush(now, &mut transmits);
                self.send_segments(way, ends, &mut transmits);
                self.transmits = transmits;
            }
            Kind::Asker { flow, retries, deadline } => {
                (*retries, *deadline) = (0, now.after(DATAGRAM_PATIENCE));
                flow.asked = now;
                let request = flow.request();
                self.send_datagram(way, ends, &request);
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
            Kind::Server { tcp, .. } => (tcp.state(), None),
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
        let index = self.connections.insert(connection);
        self.table.insert(name, number(index));
        index
    }

    fn find(&self, protocol: Protocol, local: AnyEnd, remote: AnyEnd) -> Option<usize> {
        let is_meant = |place| {
            let known = self.connections.get(index(place));
            known.is_some_and(|one| one.local == local && one.remote == remote && one.protocol() == protocol)
        };
        self.table.find(name(protocol, local, remote), is_meant).map(index)
    }

    fn remove(&mut self, index: usize) -> Option<Connection> {
        let connection = self.connections.try_remove(index)?;
        self.table.remove(name(connection.protocol(), connection.local, connection.remote), number(index));
        if let Kind::Client { tcp, .. } | Kind::Server { tcp, .. } = &connection.kind {
            self.counts.retransmitted += u64::from(tcp.retransmitted);
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

    fn send_segments(&mut self, way: &mut Way<'_>, ends: (AnyEnd, AnyEnd), transmits: &mut Vec<Transmit>) {
        for Transmit { segment, data } in transmits.drain(..) {
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

    fn send_datagram(&mut self, way: &mut Way<'_>, ends: (AnyEnd, AnyEnd), message: &Message) {
        let length = usize::try_from(message.len()).unwrap_or(0).min(packet::MTU_BYTES);
        let packet = packet::build(way.buffer(), ends, Header::Udp, length, |place| message.write(0, place));
        self.send(way, packet);
    }

    fn reset(&mut self, way: &mut Way<'_>, ends: (AnyEnd, AnyEnd), segment: &Segment, payload: usize) {
        let mut answer =
            reset_for(segment, payload).map(|segment| Transmit { segment, data: None }).into_iter().collect();
        self.send_segments(way, ends, &mut answer);
    }

    fn send(&mut self, way: &mut Way<'_>, packet: Packet) {
        self.counts.sent += 1;
        way.send(packet);
    }

    // Questions.

    /// Segments that connections which are still open have sent again, and those that are over.
    pub(crate) fn retransmitted(&self) -> u64 {
        let of = |(_, connection): (usize, &Connection)| match &connection.kind {
            Kind::Client { tcp, .. } | Kind::Server { tcp, .. } => u64::from(tcp.retransmitted),
            Kind::Asker { .. } => 0,
        };
        self.counts.retransmitted + self.connections.iter().map(of).sum::<u64>()
    }
}

/// The hash of what a connection is found by.
fn name(protocol: Protocol, local: AnyEnd, remote: AnyEnd) -> u32 {
    hash([end_word(local) ^ (u64::from(protocol.0) << 56), end_word(remote)])
}

/// What the programs of a host call themselves when they were called by `local`: an address of an interface, and not one
/// that all real servers share.
fn identity(own: &[IpAddr], local: IpAddr) -> u32 {
    let is_shared = !own.contains(&local);
    payload::identity(own.first().copied().filter(|_| is_shared).unwrap_or(local))
}

/// Sends the next request of a flow on its connection.
fn ask(tcp: &mut Tcp, reader: &mut Reader, flow: &mut Flow, now: Instant) {
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
