//! The loop of a replay: from a captured packet to the engine, and from what the engine did to the connection.

use std::collections::VecDeque;
use std::io::{self, Write};

use evenkeel_engine::device::{BATCH_MAX, Offload};
use evenkeel_engine::flow::FlowState;
use evenkeel_engine::plan::{Layer, Plan, Timeouts};
use evenkeel_engine::wire::{Address, FiveTuple, HashKey, Protocol};
use evenkeel_engine::{Duration, Engine, Event, Guests, Instant, InterfaceId, Verdict, step};

use super::connections::{Connection, Connections, Way, is_connected};
use super::edit::{self, Check, Edit};
use super::ends::Ends;
use super::fragments::{Follow, Fragments, Waiting};
use super::headers::{self, Header, Kind, Tcp};
use super::journal::Journal;
use super::outcome::{Counts, Outcome, Servers, Skip};
use super::peers::Peers;
use super::tap::{Slot, Tap};
use super::{BATCH_SPAN, Options, ReplayError, Sides, neighbours};
use crate::capture::{Content, Reader, Record, strip};
use crate::packet::Flags;
use crate::random::Stream;
use crate::stdio::PACKET_MAX_BYTES;
use crate::trace::Trace;

/// Timer steps that one jump of time causes at most; each takes care of up to 1,024 flows.
const TIMER_STEPS_MAX: usize = 1 << 20;
/// Messages of faults of components that are kept; the first ones say most.
const FAULTS_MAX: usize = 16;

/// Virtual time: that of the capture, from its first packet on, without jumps.
#[derive(Debug)]
pub(super) struct Clock {
    pub(super) first_ns: u64,
    pub(super) latest_ns: u64,
    pub(super) now: Instant,
    max_gap_ns: u64,
    has_begun: bool,
    /// Steps back that were taken as standing still, and gaps that were shortened.
    pub(super) backwards: u64,
    pub(super) shortened: u64,
}

impl Clock {
    fn new(max_gap: Duration) -> Self {
        let max_gap_ns = u64::try_from(max_gap.as_nanos()).unwrap_or(u64::MAX);
        let (now, has_begun) = (Instant::ZERO, false);
        Self { first_ns: 0, latest_ns: 0, now, max_gap_ns, has_begun, backwards: 0, shortened: 0 }
    }

    /// The virtual time of a packet that was captured at `at_ns`.
    #[inline]
    fn advance(&mut self, at_ns: u64) -> Instant {
        if !self.has_begun {
            (self.first_ns, self.latest_ns, self.has_begun) = (at_ns, at_ns, true);
        }
        let gap = at_ns.checked_sub(self.latest_ns);
        self.backwards += u64::from(gap.is_none());
        let gap = gap.unwrap_or(0);
        self.shortened += u64::from(gap > self.max_gap_ns);
        self.latest_ns = at_ns;
        self.now = self.now.after(Duration::from_nanos(gap.min(self.max_gap_ns)));
        self.now
    }
}

/// What a packet of the batch is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Its number in the capture; none for a simulated one.
    pub(super) number: Option<u64>,
    pub(super) at: Instant,
    pub(super) connection: Option<u32>,
    pub(super) is_from_client: bool,
    /// What TCP says; nothing for other protocols.
    flags: Flags,
    /// It opened a flow, or its connection has another server since.
    pub(super) is_opening: bool,
}

/// A packet that is born beside the engine and comes in with the next batch.
#[derive(Debug)]
struct Answer {
    interface: InterfaceId,
    connection: Option<u32>,
    /// An IP packet, or a frame where it is about neighbours.
    bytes: Vec<u8>,
    is_frame: bool,
}

/// A replay under way.
pub(super) struct Driver<'a> {
    engine: Engine,
    tap: Tap,
    entries: Vec<Entry>,
    connections: Connections,
    ends: Ends,
    fragments: Fragments,
    /// The simulated servers, when only clients are replayed.
    peers: Option<Peers>,
    answers: VecDeque<Answer>,
    journal: Option<Journal<'a>>,
    servers: Servers,
    counts: Counts,
    clock: Clock,
    /// When the engine has something to do of itself.
    due: Option<Instant>,
    /// The number of the batch under way, when its first packet came, and its latest.
    batch: u32,
    began: Instant,
    latest: Instant,
    wire: Trace,
    decisions: Trace,
    faults: Vec<String>,
    keeps_checksums: bool,
    has_one_packet: bool,
    /// The longest packet that fits everywhere.
    mtu_bytes: u16,
    /// A connection that has been silent this long may have lost its flow: the shortest timeout.
    silence: Duration,
    seed: u64,
}

impl<'a> Driver<'a> {
    pub(super) fn new(
        plan: Plan,
        guests: Guests,
        options: &Options,
        output: Option<&'a mut dyn Write>,
    ) -> Result<Self, ReplayError> {
        let mtu_bytes = plan.interfaces.iter().map(|interface| interface.mtu_bytes).min();
        let mtu_bytes = mtu_bytes.ok_or(ReplayError::NoInterface)?;
        let silence = shortest(&plan.timeouts);
        let has_one_packet = plan.directors.iter().any(|director| director.is_one_packet);
        let journal = output.map(|output| Journal::new(output, &plan)).transpose();
        let journal = journal.map_err(ReplayError::Output)?;
        let engine = Engine::new(plan, guests, Instant::ZERO)?;
        let mut key = Stream::new(options.seed, "replay", "connections");
        let mut driver = Self {
            tap: Tap::default(),
            entries: Vec::with_capacity(BATCH_MAX),
            connections: Connections::new(HashKey([key.bits(), key.bits()])),
            ends: Ends::new(&options.mappings),
            fragments: Fragments::default(),
            peers: (options.sides == Sides::Clients).then(|| Peers::new(options.seed)),
            answers: VecDeque::new(),
            journal,
            servers: Servers::default(),
            counts: Counts::default(),
            clock: Clock::new(options.max_gap),
            due: engine.poll_timeout(),
            batch: 1,
            began: Instant::ZERO,
            latest: Instant::ZERO,
            wire: Trace::default(),
            decisions: Trace::default(),
            faults: Vec::new(),
            keeps_checksums: options.keeps_checksums,
            has_one_packet,
            mtu_bytes,
            silence,
            seed: options.seed,
            engine,
        };
        // What the start announces is heard by neighbours who are not there.
        let _ = step(&mut driver.engine, &mut driver.tap, Instant::ZERO);
        driver.tap.clear();
        driver.poll();
        Ok(driver)
    }

    /// Takes in a packet of the capture.
    #[inline]
    pub(super) fn take(&mut self, record: &Record<'_>) -> io::Result<()> {
        self.counts.read += 1;
        self.counts.read_bytes += u64::try_from(record.bytes.len()).unwrap_or(0);
        let at = self.clock.advance(record.at_ns);
        if let Some(journal) = &mut self.journal {
            journal.begin(self.clock.first_ns);
        }
        let skip = match strip(record.link, record.bytes) {
            Content::Ip { .. } if record.is_cut() => Skip::Cut,
            Content::Ip { bytes, vlans } => {
                self.counts.tagged += u64::from(vlans > 0);
                return self.packet(record.number, at, bytes);
            }
            Content::Arp => Skip::Arp,
            Content::Other(_) => Skip::NotIp,
            Content::Short if record.is_cut() => Skip::Cut,
            Content::Short => Skip::Short,
            Content::UnknownLink => Skip::UnknownLink,
        };
        self.counts.skip(skip);
        Ok(())
    }

    /// Hands over what waits, and says what is left of the fragments.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.flush()?;
        for _ in 0..self.fragments.waiting() {
            self.counts.skip(Skip::FragmentWithoutFirst);
        }
        self.journal.as_mut().map_or(Ok(()), Journal::finish)
    }

    /// What the replay has come to.
    pub(super) fn outcome(&self, reader: &Reader<'_>) -> Outcome {
        let (engine, connections) = (&self.engine, self.connections.all());
        let hashes = (self.wire.hash(), self.decisions.hash());
        let seen = (&self.clock, &self.counts, &self.servers);
        let side = if self.peers.is_some() { Sides::Clients } else { Sides::Both };
        Outcome::of(reader, engine, connections, seen, hashes, (self.seed, side), &self.faults)
    }

    fn packet(&mut self, number: u64, at: Instant, bytes: &[u8]) -> io::Result<()> {
        self.pass_time(at)?;
        let Some(header) = headers::read(bytes) else {
            self.counts.unreadable += 1;
            let bytes = bytes.get(..PACKET_MAX_BYTES.min(bytes.len())).unwrap_or_default();
            return self.feed(Some(number), at, None, true, self.outside(), bytes, None);
        };
        let Some(fragment) = header.fragment else {
            return self.route(number, at, bytes, &header);
        };
        self.counts.fragments += 1;
        match self.fragments.look(&header, fragment) {
            Follow::First => {
                // Those that were captured before it still come before it.
                for waiting in self.fragments.release(&header, fragment) {
                    let Waiting { number, bytes } = waiting;
                    if let Some(earlier) = headers::read(&bytes) {
                        self.route(number, at, &bytes, &with_ports_of(&earlier, &header.tuple))?;
                    }
                }
                self.route(number, at, bytes, &header)
            }
            Follow::Known(source_port, destination_port) => {
                let tuple = FiveTuple { source_port, destination_port, ..header.tuple };
                self.route(number, at, bytes, &with_ports_of(&header, &tuple))
            }
            Follow::Wait => {
                let waiting = Waiting { number, bytes: bytes.to_vec() };
                if self.fragments.hold(&header, fragment, waiting).is_some() {
                    self.counts.skip(Skip::FragmentWithoutFirst);
                }
                Ok(())
            }
        }
    }

    /// Hands a packet over in the direction in which it goes.
    #[inline]
    fn route(&mut self, number: u64, at: Instant, bytes: &[u8], header: &Header) -> io::Result<()> {
        if self.tap.is_full() {
            self.flush()?;
        }
        let bytes = bytes.get(..header.end).unwrap_or_default();
        let mapped = self.mapped(&header.tuple);
        if let Kind::Error { .. } = header.kind {
            return self.route_error(number, at, bytes, header, mapped);
        }
        let edit = Edit { tuple: mapped, outer: None, acknowledges: 0 };
        if !is_connected(mapped.protocol) || (header.kind == Kind::Other && header.is_whole()) {
            let from = self.outside();
            return self.feed(Some(number), at, None, true, from, bytes, Some((header, &edit)));
        }
        let Some(connection) = self.connection(&mapped, header)? else {
            self.counts.skip(Skip::TooManyConnections);
            return Ok(());
        };
        let is_from_client = self.connections.get(connection).is_some_and(|one| one.tuple == mapped);
        if is_from_client {
            self.route_to_service(number, at, bytes, (header, connection), edit)
        } else {
            self.route_to_client(number, at, bytes, (header, connection), edit)
        }
    }

    /// A packet of the client.
    #[inline]
    fn route_to_service(
        &mut self,
        number: u64,
        at: Instant,
        bytes: &[u8],
        (header, connection): (&Header, u32),
        mut edit: Edit,
    ) -> io::Result<()> {
        let tcp = header.tcp();
        if let Some(tcp) = tcp.filter(|_| self.peers.is_some()) {
            edit.acknowledges = self.hear(at, connection, &tcp)?;
        }
        let (silence, batch) = (self.silence, self.batch);
        if let Some(known) = self.connections.get_mut(connection) {
            let opens = tcp.is_some_and(|tcp| tcp.opens());
            let is_silent = at.since(known.latest) >= silence;
            known.enter_batch(batch, true, opens || is_silent || known.way.is_none());
            known.latest = at;
        }
        let from = self.outside();
        self.feed(Some(number), at, Some(connection), true, from, bytes, Some((header, &edit)))
    }

    /// A packet of the server: it comes from the real server that the engine chose.
    #[inline]
    fn route_to_client(
        &mut self,
        number: u64,
        at: Instant,
        bytes: &[u8],
        (header, connection): (&Header, u32),
        mut edit: Edit,
    ) -> io::Result<()> {
        if self.peers.is_some() {
            self.counts.skip(Skip::FromServer);
            return Ok(());
        }
        let way = match self.way(connection)? {
            Ok(way) => way,
            Err(skip) => {
                self.counts.skip(skip);
                return Ok(());
            }
        };
        let batch = self.batch;
        if let Some(known) = self.connections.get_mut(connection) {
            known.enter_batch(batch, false, false);
            known.latest = at;
        }
        edit.tuple = way.reply;
        self.feed(Some(number), at, Some(connection), false, way.interface, bytes, Some((header, &edit)))
    }

    /// An ICMP error: it comes from the side to which the packet went that it quotes.
    #[cold]
    fn route_error(
        &mut self,
        number: u64,
        at: Instant,
        bytes: &[u8],
        header: &Header,
        quoted: FiveTuple,
    ) -> io::Result<()> {
        self.counts.errors += 1;
        let Some((source, destination)) = edit::ends(bytes) else { return Ok(()) };
        let mut outer = (self.ends.without_port(source), self.ends.without_port(destination));
        if destination == header.tuple.source {
            outer.1 = quoted.source;
        }
        if source == header.tuple.destination {
            outer.0 = quoted.destination;
        }
        let connection = self.connections.find(&quoted);
        let is_about_client =
            connection.and_then(|number| self.connections.get(number)).is_some_and(|one| one.tuple == quoted);
        let mut edit = Edit { tuple: quoted, outer: Some(outer), acknowledges: 0 };
        let Some(connection) = connection.filter(|_| is_about_client) else {
            let from = self.outside();
            return self.feed(Some(number), at, connection, true, from, bytes, Some((header, &edit)));
        };
        let way = match self.way(connection)? {
            _ if self.peers.is_some() => Err(Skip::FromServer),
            way => way,
        };
        let way = match way {
            Ok(way) => way,
            Err(skip) => {
                self.counts.skip(skip);
                return Ok(());
            }
        };
        edit.tuple = way.reply.reversed();
        let from = if outer.0 == quoted.destination { way.reply.source } else { outer.0 };
        edit.outer = Some((from, edit.tuple.source));
        self.feed(Some(number), at, Some(connection), false, way.interface, bytes, Some((header, &edit)))
    }

    /// The real server of a connection, after whatever the engine has still to decide about it.
    #[inline]
    fn way(&mut self, connection: u32) -> io::Result<Result<Way, Skip>> {
        let batch = self.batch;
        if self.connections.get(connection).is_some_and(|one| one.batch == batch && one.is_open_asked) {
            self.flush()?;
        }
        Ok(match self.connections.get(connection).and_then(|one| one.way) {
            None => Err(Skip::AnswerWithoutFlow),
            Some(way) if way.is_one_sided => Err(Skip::AnswerPastForwarder),
            Some(way) => Ok(way),
        })
    }

    /// The simulated server says what the client is about to acknowledge. Gives what is added to the acknowledgement.
    fn hear(&mut self, at: Instant, connection: u32, tcp: &Tcp) -> io::Result<u32> {
        let is_ahead = self.peers.as_ref().is_some_and(|peers| peers.is_ahead(connection, tcp));
        let batch = self.batch;
        if is_ahead && self.connections.get(connection).is_some_and(|one| one.batch == batch) {
            // What the server has to answer first may still wait.
            self.flush()?;
        }
        let Ok(way) = self.way(connection)? else { return Ok(0) };
        let Some(peers) = &mut self.peers else { return Ok(0) };
        let mut segments = Vec::new();
        let shift = peers.before(connection, tcp, &way.reply, &mut |bytes| segments.push(bytes));
        for bytes in segments {
            if self.tap.is_full() {
                self.flush()?;
            }
            self.counts.simulated += 1;
            self.feed(None, at, Some(connection), false, way.interface, &bytes, None)?;
        }
        if self.tap.is_full() {
            self.flush()?;
        }
        Ok(shift)
    }

    /// Who talks to whom after the mappings.
    #[inline]
    fn mapped(&self, tuple: &FiveTuple) -> FiveTuple {
        let (source, source_port) = self.end(tuple, tuple.source, tuple.source_port);
        let (destination, destination_port) = self.end(tuple, tuple.destination, tuple.destination_port);
        FiveTuple { source, destination, source_port, destination_port, protocol: tuple.protocol }
    }

    #[inline]
    fn end(&self, tuple: &FiveTuple, address: Address, port: u16) -> (Address, u16) {
        if tuple.protocol == Protocol::TCP || tuple.protocol == Protocol::UDP {
            self.ends.of(address, port)
        } else {
            (self.ends.without_port(address), port)
        }
    }

    /// The connection of a packet, entered if it is new. `None` where there is no room.
    #[inline]
    fn connection(&mut self, tuple: &FiveTuple, header: &Header) -> io::Result<Option<u32>> {
        if let Some(known) = self.connections.find(tuple) {
            let opens = header.tcp().is_some_and(|tcp| tcp.opens());
            if !opens || !self.is_over(known)? {
                return Ok(Some(known));
            }
        }
        let is_from_client = self.is_from_client(tuple, header);
        let captured = if is_from_client { header.tuple } else { header.tuple.reversed() };
        let called = (captured.destination, captured.destination_port);
        Ok(self.connections.enter(if is_from_client { *tuple } else { tuple.reversed() }, called))
    }

    /// Whether a connection is over, after whatever of it waits has been handed over.
    fn is_over(&mut self, connection: u32) -> io::Result<bool> {
        let batch = self.batch;
        if self.connections.get(connection).is_some_and(|one| one.batch == batch) {
            self.flush()?;
        }
        Ok(self.connections.get(connection).is_some_and(Connection::is_over))
    }

    /// Whether the first packet that is seen of a connection is the client's: by what it says, then by who is served.
    fn is_from_client(&self, tuple: &FiveTuple, header: &Header) -> bool {
        match header.kind {
            Kind::Tcp(tcp) if tcp.flags.has(Flags::SYN) => return tcp.opens(),
            Kind::Query { is_request } => return is_request,
            Kind::Tcp(_) | Kind::Udp | Kind::Error { .. } | Kind::Other => {}
        }
        let directors = &self.engine.plan().directors;
        let is_served = |address: Address, port| {
            let mut binds = directors.iter().flat_map(|director| &director.binds);
            binds.any(|bind| bind.serves(address.into(), port, tuple.protocol))
        };
        is_served(tuple.destination, tuple.destination_port) || !is_served(tuple.source, tuple.source_port)
    }

    /// Where clients come in: the first interface, as on a forwarder.
    #[allow(clippy::unused_self, reason = "a question to the plan")]
    const fn outside(&self) -> InterfaceId {
        InterfaceId(0)
    }

    /// Lets time pass up to `at`: what waits is handed over where it has waited long enough, and every timer of the engine
    /// acts at its own time.
    #[inline]
    fn pass_time(&mut self, at: Instant) -> io::Result<()> {
        let is_due = self.due.is_some_and(|due| due <= at);
        if self.tap.len() > 0 && (is_due || at.since(self.began) > BATCH_SPAN) {
            self.flush()?;
        }
        if is_due { self.run_timers(at) } else { Ok(()) }
    }

    #[cold]
    fn run_timers(&mut self, at: Instant) -> io::Result<()> {
        for _ in 0..TIMER_STEPS_MAX {
            let Some(due) = self.due.filter(|due| *due <= at) else { break };
            self.latest = self.latest.max(due);
            self.run()?;
        }
        Ok(())
    }

    /// Puts a packet into the batch, changed as `edit` says. There must be room.
    #[inline]
    #[allow(clippy::too_many_arguments, reason = "all of it belongs to one packet on its way in")]
    fn feed(
        &mut self,
        number: Option<u64>,
        at: Instant,
        connection: Option<u32>,
        is_from_client: bool,
        interface: InterfaceId,
        bytes: &[u8],
        edit: Option<(&Header, &Edit)>,
    ) -> io::Result<()> {
        if self.tap.is_full() {
            self.flush()?;
        }
        if self.tap.len() == 0 {
            self.began = at;
        }
        self.latest = self.latest.max(at);
        self.counts.fed += u64::from(number.is_some());
        let header = edit.map(|(header, _)| header);
        let offload = self.offload(header);
        let link = self.link_to(interface, bytes);
        let link = link.as_ref().map_or(&[][..], |link| &link[..]);
        let body = self.tap.put(interface, [link, bytes], offload);
        if let Some((header, edit)) = edit {
            let check = edit::check(body, header);
            let is_header_right = edit::is_header_right(body, header);
            edit::apply(body, header, edit);
            if check != Check::Right || !is_header_right {
                self.counts.note_checksum(check, is_header_right);
                if !self.keeps_checksums {
                    self.counts.repaired += 1;
                    edit::repair(body, header);
                }
            }
        }
        let tcp = match header {
            Some(header) => header.tcp(),
            // Of a simulated server's packet nothing is to be changed, but its close counts.
            None => connection.and_then(|_| headers::read(bytes)).and_then(|header| header.tcp()),
        };
        let flags = tcp.map_or(Flags(0), |tcp| tcp.flags);
        self.entries.push(Entry { number, at, connection, is_from_client, flags, is_opening: false });
        Ok(())
    }

    /// A segment that is longer than any link was put together, or not yet cut, by the machine that captured it.
    #[inline]
    fn offload(&mut self, header: Option<&Header>) -> Offload {
        let Some(header) = header.filter(|header| header.end > usize::from(self.mtu_bytes)) else {
            return Offload::default();
        };
        if header.tcp().is_none() || !header.is_whole() {
            return Offload::default();
        }
        self.counts.super_packets += 1;
        let headers_bytes = if header.tuple.source.is_v4() { 40 } else { 60 };
        Offload { needs_checksum: false, segment_bytes: Some(self.mtu_bytes.saturating_sub(headers_bytes)) }
    }

    /// The link header in front of a packet that comes in by an Ethernet interface.
    #[inline]
    fn link_to(&self, interface: InterfaceId, bytes: &[u8]) -> Option<[u8; 14]> {
        match self.engine.plan().interfaces.get(interface.index())?.layer {
            Layer::Ip => None,
            Layer::Ethernet(own) => Some(neighbours::link_to(own, bytes)),
        }
    }

    /// Hands over the batch, and then what was answered to it.
    fn flush(&mut self) -> io::Result<()> {
        self.run()?;
        while !self.answers.is_empty() {
            let at = self.latest;
            while let Some(answer) = self.answers.pop_front() {
                let Answer { interface, connection, bytes, is_frame } = answer;
                self.counts.simulated += 1;
                if is_frame {
                    self.tap.put(interface, [&[], &bytes], Offload::default());
                    let (number, is_from_client, flags, is_opening) = (None, false, Flags(0), false);
                    self.entries.push(Entry { number, at, connection, is_from_client, flags, is_opening });
                } else {
                    self.feed(None, at, connection, false, interface, &bytes, None)?;
                }
                if self.tap.is_full() {
                    break;
                }
            }
            self.run()?;
        }
        Ok(())
    }

    /// One turn of the engine with the batch, or with nothing but time.
    fn run(&mut self) -> io::Result<()> {
        if let Some(journal) = &mut self.journal {
            journal.before(&self.tap);
        }
        let opened = self.engine.counters().flows_opened;
        let _ = step(&mut self.engine, &mut self.tap, self.latest);
        let has_opened = self.engine.counters().flows_opened != opened;
        self.settle(has_opened);
        self.answer_neighbours();
        if let Some(journal) = &mut self.journal {
            let seen = (&self.engine, &self.connections, &self.servers);
            journal.after(&self.tap, &self.entries, self.latest, seen)?;
        }
        self.tap.clear();
        self.entries.clear();
        self.batch = self.batch.wrapping_add(1);
        self.poll();
        Ok(())
    }

    fn poll(&mut self) {
        while let Some(event) = self.engine.poll_event() {
            if let Event::GuestFault { name, fault } = event
                && self.faults.len() < FAULTS_MAX
            {
                self.faults.push(format!("{name}: {} in {}: {}", fault.component, fault.call, fault.reason));
            }
        }
        self.due = self.engine.poll_timeout();
    }

    /// Notes what became of every packet of the batch.
    fn settle(&mut self, has_opened: bool) {
        let Self { engine, tap, entries, connections, servers, wire, decisions, .. } = self;
        let now = self.latest;
        for (slot, entry) in tap.slots().iter().zip(entries) {
            if let Some((interface, bytes)) = slot.out() {
                wire.add(now, u32::from(interface.0), bytes);
            }
            if let Some(Verdict::Drop(reason)) = slot.end() {
                decisions.add(now, entry.connection.unwrap_or(u32::MAX), reason.name().as_bytes());
            }
            let Some(number) = entry.connection else { continue };
            let Some(connection) = connections.get_mut(number) else { continue };
            let packet = entry.number.unwrap_or(0);
            match slot.end() {
                None | Some(Verdict::Forward(_) | Verdict::Replace(_)) => connection.forwarded += 1,
                Some(Verdict::Drop(reason)) => connection.drop_packet(packet, reason),
                Some(Verdict::Hold | Verdict::Answer(_) | Verdict::Consume) => {}
            }
            connection.note(entry.flags, entry.is_from_client);
            let way = if !entry.is_from_client {
                None
            } else if has_opened {
                engine.flow(&connection.tuple).map(|status| Way::of(&status, servers.number(&status)))
            } else if self.has_one_packet {
                alone(engine, slot, &connection.tuple, servers)
            } else {
                None
            };
            if let Some(way) = way
                && connection.settle(packet, way)
            {
                entry.is_opening = true;
                decisions.add(now, number, &decision(&connection.tuple, &way));
            }
            if let Some(peers) = &mut self.peers
                && entry.is_from_client
                && let (Some(way), Some((_, bytes))) = (connection.way, slot.out())
                && !way.is_one_sided
                && let Some(header) = headers::read(neighbours::without_link(engine, slot, bytes))
                && let Some(bytes) =
                    peers.after(number, &header, neighbours::without_link(engine, slot, bytes))
            {
                let (interface, connection) = (way.interface, Some(number));
                self.answers.push_back(Answer { interface, connection, bytes, is_frame: false });
            }
        }
        for (interface, bytes) in tap.born() {
            wire.add(now, u32::from(interface.0), bytes);
        }
    }

    /// Answers the questions for neighbours that the engine has sent.
    fn answer_neighbours(&mut self) {
        for (interface, frame) in self.tap.born() {
            let layer = self.engine.plan().interfaces.get(interface.index()).map(|one| one.layer);
            if let (Some(Layer::Ethernet(_)), Some(bytes)) = (layer, neighbours::answer(frame)) {
                let (interface, connection) = (*interface, None);
                self.answers.push_back(Answer { interface, connection, bytes, is_frame: true });
            }
        }
    }
}

/// The same header with the ports of another part of the datagram.
fn with_ports_of(header: &Header, tuple: &FiveTuple) -> Header {
    let (source_port, destination_port) = (tuple.source_port, tuple.destination_port);
    Header { tuple: FiveTuple { source_port, destination_port, ..header.tuple }, ..*header }
}

/// Where a datagram went that left no flow behind.
fn alone(engine: &Engine, slot: &Slot, tuple: &FiveTuple, servers: &mut Servers) -> Option<Way> {
    let (interface, bytes) = slot.out()?;
    if slot.end().is_some() || tuple.protocol != Protocol::UDP || engine.flow(tuple).is_some() {
        return None;
    }
    let out = headers::read(neighbours::without_link(engine, slot, bytes))?.tuple;
    if out.destination == tuple.destination {
        return None;
    }
    let server = servers.at(engine, out.destination, out.destination_port)?;
    Some(Way { server, reply: out.reversed(), interface, is_one_sided: false, is_each_alone: true })
}

/// The shortest time that a flow lives without packets.
fn shortest(timeouts: &Timeouts) -> Duration {
    let all = FlowState::ALL.map(|state| state.timeout(timeouts));
    all.into_iter().min().unwrap_or(Duration::ZERO)
}

/// What is said of a decision in its hash: who got whom.
fn decision(tuple: &FiveTuple, way: &Way) -> Vec<u8> {
    let mut bytes = tuple.source.v6_bytes().to_vec();
    bytes.extend(tuple.source_port.to_be_bytes());
    bytes.extend(way.reply.source.v6_bytes());
    bytes.extend(way.reply.source_port.to_be_bytes());
    bytes
}
