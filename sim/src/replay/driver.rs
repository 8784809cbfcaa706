//! The loop of a replay: packets into the engine in batches, time, and from what the engine did to the connections. Which
//! packet goes in how is decided in `route`.

use std::collections::VecDeque;
use std::io::{self, Write};

use evenkeel_engine::device::{BATCH_MAX, Offload};
use evenkeel_engine::flow::{Direction, FlowState};
use evenkeel_engine::plan::{Layer, Plan, Timeouts};
use evenkeel_engine::wire::{FiveTuple, HashKey, Protocol};
use evenkeel_engine::{Duration, Engine, Event, Guests, Instant, InterfaceId, Verdict, step};

use super::connections::{Connections, Way};
use super::edit::{self, Check, Edit};
use super::ends::Ends;
use super::fragments::Fragments;
use super::headers::{self, Header, Kind};
use super::journal::Journal;
use super::outcome::{Counts, Outcome, Servers, Skip};
use super::peers::Peers;
use super::tap::{Slot, Tap};
use super::{BATCH_SPAN, Options, ReplayError, Sides, neighbours};
use crate::capture::{Content, Reader, Record, strip};
use crate::packet::Flags;
use crate::random::Stream;
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
    /// It is an ICMP error about a packet of the connection.
    is_error: bool,
    /// It opened a flow, or its connection has another server since.
    pub(super) is_opening: bool,
}

impl Entry {
    pub(super) const fn new(
        number: Option<u64>,
        at: Instant,
        connection: Option<u32>,
        is_from_client: bool,
    ) -> Self {
        let (flags, is_error, is_opening) = (Flags(0), false, false);
        Self { number, at, connection, is_from_client, flags, is_error, is_opening }
    }
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
    pub(super) engine: Engine,
    tap: Tap,
    entries: Vec<Entry>,
    pub(super) connections: Connections,
    pub(super) ends: Ends,
    pub(super) fragments: Fragments,
    /// The simulated servers, when only clients are replayed.
    pub(super) peers: Option<Peers>,
    answers: VecDeque<Answer>,
    journal: Option<Journal<'a>>,
    servers: Servers,
    pub(super) counts: Counts,
    clock: Clock,
    /// When the engine has something to do of itself.
    due: Option<Instant>,
    /// The number of the batch under way, when its first packet came, and its latest.
    pub(super) batch: u32,
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
    pub(super) silence: Duration,
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

    /// Lets time pass up to `at`: what waits is handed over where it has waited long enough, and every timer of the engine
    /// acts at its own time.
    #[inline]
    pub(super) fn pass_time(&mut self, at: Instant) -> io::Result<()> {
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

    /// Puts a packet into the batch, changed as `edit` says.
    #[inline]
    pub(super) fn feed(
        &mut self,
        mut entry: Entry,
        interface: InterfaceId,
        bytes: &[u8],
        edit: Option<(&Header, &Edit)>,
    ) -> io::Result<()> {
        if self.tap.is_full() {
            self.flush()?;
        }
        if self.tap.len() == 0 {
            self.began = entry.at;
        }
        self.latest = self.latest.max(entry.at);
        let is_captured = entry.number.is_some();
        self.counts.fed += u64::from(is_captured);
        self.counts.simulated += u64::from(!is_captured);
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
            None => entry.connection.and_then(|_| headers::read(bytes)).and_then(|header| header.tcp()),
        };
        entry.flags = tcp.map_or(Flags(0), |tcp| tcp.flags);
        entry.is_error = header.is_some_and(|header| matches!(header.kind, Kind::Error { .. }));
        self.entries.push(entry);
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
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.run()?;
        while !self.answers.is_empty() {
            while let Some(answer) = self.answers.pop_front() {
                let entry = Entry::new(None, self.latest, answer.connection, false);
                if answer.is_frame {
                    self.counts.simulated += 1;
                    self.tap.put(answer.interface, [&[], &answer.bytes], Offload::default());
                    self.entries.push(entry);
                } else {
                    self.feed(entry, answer.interface, &answer.bytes, None)?;
                }
                if self.tap.is_full() {
                    break;
                }
            }
            self.run()?;
        }
        Ok(())
    }

    /// Hands over the batch where there is no room for another packet.
    #[inline]
    pub(super) fn make_room(&mut self) -> io::Result<()> {
        if self.tap.is_full() { self.flush() } else { Ok(()) }
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
        self.answer_clients();
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
            let Some(number) = entry.connection.filter(|_| !entry.is_error) else { continue };
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
        }
        for (interface, bytes) in tap.born() {
            wire.add(now, u32::from(interface.0), bytes);
        }
    }

    /// Has the simulated servers answer what reached them.
    fn answer_clients(&mut self) {
        let Self { engine, tap, entries, connections, peers, answers, .. } = self;
        let Some(peers) = peers else { return };
        for (slot, entry) in tap.slots().iter().zip(entries) {
            let (Some(number), Some((_, bytes))) = (entry.connection, slot.out()) else { continue };
            let bytes = neighbours::without_link(engine, slot, bytes);
            let way = connections.get(number).and_then(|connection| connection.way);
            if let Some(way) = way.filter(|way| entry.is_from_client && !way.is_one_sided)
                && let Some(bytes) =
                    headers::read(bytes).and_then(|header| peers.after(number, &header, bytes))
            {
                let (interface, connection) = (way.interface, Some(number));
                answers.push_back(Answer { interface, connection, bytes, is_frame: false });
            }
        }
        // What had waited in the engine, for a neighbour or a first fragment, reaches its server now.
        for (out, bytes) in tap.born() {
            let bytes = neighbours::of_interface(engine, *out, bytes);
            let Some(header) = headers::read(bytes) else { continue };
            let flow = engine.flow(&header.tuple.reversed());
            let Some(entry) = flow.filter(|flow| flow.direction == Direction::Reply).map(|flow| flow.entry)
            else {
                continue;
            };
            if let Some(number) = connections.find(&entry.tuple(Direction::Original))
                && let Some(bytes) = peers.after(number, &header, bytes)
            {
                let (interface, connection) = (*out, Some(number));
                answers.push_back(Answer { interface, connection, bytes, is_frame: false });
            }
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
