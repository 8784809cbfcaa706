//! Connections that nobody means to open: a flood of SYNs from made-up addresses, beside connections that carry data
//! and clients who do mean it.
//!
//! ```text
//! every place used once and left --> half the table established --> one second of the flood --> memory
//!     --> flood, data, honest clients --> memory --> data on each
//! ```
//!
//! A client's handshake takes its round-trip time of 20 to 100 ms and 1 ms on the real servers' side, and its SYN is
//! repeated after 1, 3 and 7 s, as common systems do. Real servers answer every SYN, the attacker's too, and keep
//! nothing until the third segment. Time passes in steps of 1 ms.
//!
//! A half-open flow gives way when as many others have begun after it as there are places. So what counts is the
//! attacker's rate against places and round-trip times; the report says where the limit is, found by trying.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use evenkeel_engine::plan::Builtin;
use evenkeel_engine::wire::Protocol;
use evenkeel_engine::{Duration, Instant, InterfaceId};
use serde::Serialize;

use super::{
    AttackError, Bench, Memory, Mode, OUTSIDE, VIP, grouped, honest, honest_number, in_range, millionths,
    per_cent, plan, server_of, stranger,
};
use crate::packet::{End, Flags, Header, Packet, Segment, Transport, build, view};
use crate::random::Stream;

/// Real servers.
const SERVERS: u16 = 5;
/// Places of the half-open ring that the default rate renews in a second: a half-open flow then survives 200 ms, twice
/// the longest handshake.
const RENEWALS_PER_SECOND: u64 = 5;
/// The shortest round-trip time of a client, in milliseconds.
const ROUND_TRIP_LEAST_MS: u64 = 20;
/// The longest.
const ROUND_TRIP_MOST_MS: u64 = 100;
/// When a SYN without an answer is repeated, in milliseconds after the first (RFC 6298 s.2).
const REPEATS_MS: [u64; 3] = [1_000, 3_000, 7_000];
/// How often an established connection asks something, in milliseconds.
const QUESTION_INTERVAL_MS: u64 = 2_000;
/// The share of honest clients that must get through, in millionths.
const COMPLETION_LEAST: u64 = 990_000;
/// What resident memory may grow by, in millionths.
const GROWTH_MOST: u64 = 10_000;
/// Packets between two turns of the engine, below what the device holds.
const CHUNK: usize = 64;
/// How long the flood runs before anything is measured, in milliseconds.
const REHEARSAL_MS: u64 = 1_000;
/// How long one try of another rate lasts, in milliseconds, and with how many honest clients.
const TRY_MS: u64 = 1_500;
const TRY_CLIENTS: u32 = 1_000;
/// How near the limit is found, as a part of it, and the highest rate that is tried.
const NEARNESS: u64 = 64;
const RATE_MAX: u64 = 1 << 26;
const WINDOW: u16 = 65_000;

/// What is sent against what.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The bound of the flow table (100 to 1,000,000).
    pub flows: u32,
    /// SYNs for each place in the flow table (1 to 10,000).
    pub factor: u32,
    /// SYNs per second (1,000 to 2^26); 5 for each half-open place without it.
    pub rate: Option<u64>,
    /// The seed of everything random.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { flows: 10_000, factor: 100, rate: None, seed: 1 }
    }
}

/// What was sent and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The bound of the flow table.
    pub flows_max: u32,
    /// Places for half-open flows.
    pub half_open_places: u64,
    /// SYNs of the attacker.
    pub packets: u64,
    /// SYNs of the attacker per second.
    pub rate: u64,
    /// Milliseconds that the flood lasted, in virtual time.
    pub flood_ms: u64,
    /// Milliseconds that a half-open flow survived: places by rate.
    pub survival_ms: u64,
    /// Connections that were established before.
    pub established: u64,
    /// Questions that they asked meanwhile, and were answered.
    pub answered: u64,
    /// Connections of these that lost an answer or were taken elsewhere.
    pub lost: u64,
    /// Honest clients who wanted to open a connection meanwhile.
    pub honest: u64,
    /// Those who were served before the flood was over.
    pub completed: u64,
    /// Those of these who had to repeat their SYN.
    pub repeated: u64,
    /// Half-open flows that gave way.
    pub evicted: u64,
    /// Packets that were dropped, by reason.
    pub drops: BTreeMap<&'static str, u64>,
    /// Resident memory when the flood has run for a second, in bytes.
    pub memory_before: Option<u64>,
    /// Resident memory after it.
    pub memory_after: Option<u64>,
    /// The lowest rate that was tried at which fewer than 99 % of the honest clients are served.
    pub limit_rate: Option<u64>,
}

impl Report {
    /// Whether every promise held.
    #[must_use]
    pub fn is_as_expected(&self) -> bool {
        let is_flat = self.growth_millionths().is_none_or(|growth| growth <= GROWTH_MOST);
        self.lost == 0 && millionths(self.completed, self.honest) >= COMPLETION_LEAST && is_flat
    }

    /// What resident memory grew by, in millionths.
    fn growth_millionths(&self) -> Option<u64> {
        let (before, after) = (self.memory_before?, self.memory_after?);
        Some(millionths(after.saturating_sub(before), before))
    }

    /// The report for people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let Self { rate, half_open_places: places, survival_ms, flood_ms, .. } = *self;
        let mut text = format!(
            "{} SYNs from made-up addresses, {} for each of {} places in the flow table, seed {}\n\
             {} SYNs per second for {}.{:03} s of virtual time against {} half-open places:\n\
             a half-open flow survives {survival_ms} ms; handshakes take {ROUND_TRIP_LEAST_MS} to \
             {ROUND_TRIP_MOST_MS} ms\n\n",
            grouped(self.packets),
            self.packets / u64::from(self.flows_max.max(1)),
            grouped(self.flows_max.into()),
            self.seed,
            grouped(rate),
            flood_ms / 1_000,
            flood_ms % 1_000,
            grouped(places),
        );
        let served = per_cent(millionths(self.completed, self.honest));
        let _ = write!(
            text,
            "established connections lost: {} of {} ({} questions answered meanwhile)\n\
             honest clients served: {} of {} ({served}, {} after a repeated SYN; 99 % promised)\n\
             half-open flows that gave way: {}\n",
            self.lost,
            grouped(self.established),
            grouped(self.answered),
            grouped(self.completed),
            grouped(self.honest),
            grouped(self.repeated),
            grouped(self.evicted),
        );
        for (reason, count) in &self.drops {
            let _ = writeln!(text, "dropped as {reason}: {}", grouped(*count));
        }
        match (self.memory_before, self.memory_after, self.growth_millionths()) {
            (Some(before), Some(after), Some(growth)) => {
                let [before, after] = [before, after].map(|bytes| grouped(bytes / 1024));
                let growth = per_cent(growth);
                let _ = writeln!(
                    text,
                    "memory of the process: {before} KiB before, {after} KiB after: +{growth} (1 % promised)"
                );
            }
            _ => text.push_str("memory of the process: not known here\n"),
        }
        match self.limit_rate {
            Some(limit) => {
                let _ = writeln!(
                    text,
                    "fewer than 99 % would be served from {} SYNs per second on",
                    grouped(limit)
                );
            }
            None => text.push_str("no rate that was tried keeps more than 1 % out\n"),
        }
        text
    }
}

/// Runs the flood, then tries other rates.
///
/// # Errors
/// When a number is out of its range.
pub fn run(options: &Options, memory: &mut Memory<'_>) -> Result<Report, AttackError> {
    in_range("flows", options.flows.into(), 100, 1_000_000, "100 to 1,000,000")?;
    in_range("factor", options.factor.into(), 1, 10_000, "1 to 10,000")?;
    let places = u64::from(options.flows.min(65_535));
    let rate = options.rate.unwrap_or(places * RENEWALS_PER_SECOND).max(1_000);
    in_range("rate", rate, 1_000, RATE_MAX, "1,000 to 67,108,864")?;
    let packets = u64::from(options.flows) * u64::from(options.factor);
    let flood_ms = (packets * 1_000).div_ceil(rate);
    let established = options.flows / 2;
    let mut world = World::new(options, established, options.flows / 4, flood_ms)?;
    world.use_every_place(options.flows);
    world.establish();
    world.rehearse(rate);
    let counters = world.bench.engine.counters();
    let (evicted, drops) = (counters.half_open_evicted, world.bench.drops());
    let answered = world.answered();
    let memory_before = memory();
    world.flood(rate, packets);
    let memory_after = memory();
    world.ask_all();
    let evicted = world.bench.engine.counters().half_open_evicted - evicted;
    let before: BTreeMap<_, _> = drops.into_iter().collect();
    let after = world.bench.drops().into_iter();
    let drops = after.map(|(reason, count)| (reason, count - before.get(reason).copied().unwrap_or(0)));
    let (asking, opening) = world.clients.split_at(usize::try_from(established).unwrap_or(0));
    let served = |client: &&Client| client.stage == Stage::Served;
    Ok(Report {
        seed: options.seed,
        flows_max: options.flows,
        half_open_places: places,
        packets,
        rate,
        flood_ms,
        survival_ms: places * 1_000 / rate,
        established: established.into(),
        answered: world.answered() - answered,
        lost: asking.iter().filter(|client| client.is_lost()).count() as u64,
        honest: opening.len() as u64,
        completed: opening.iter().filter(served).count() as u64,
        repeated: opening.iter().filter(served).filter(|client| client.attempts > 1).count() as u64,
        evicted,
        drops: drops.filter(|(_, count)| *count > 0).collect(),
        memory_before,
        memory_after,
        limit_rate: limit(options, rate)?,
    })
}

/// The lowest rate, as near as the tries go, at which fewer than 99 % of the honest clients are served.
fn limit(options: &Options, start: u64) -> Result<Option<u64>, AttackError> {
    let (mut low, mut high) = (0, start);
    while is_enough(options, high)? {
        low = high;
        high *= 2;
        if high > RATE_MAX {
            return Ok(None);
        }
    }
    while high - low > high / NEARNESS {
        let middle = low.midpoint(high);
        if is_enough(options, middle)? {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok(Some(high))
}

/// Whether 99 % of the honest clients are served while a short flood of this rate lasts.
fn is_enough(options: &Options, rate: u64) -> Result<bool, AttackError> {
    let clients = TRY_CLIENTS.min(options.flows / 2);
    let mut world = World::new(options, 0, clients, TRY_MS)?;
    world.flood(rate, rate * TRY_MS / 1_000);
    let served = world.clients.iter().filter(|client| client.stage == Stage::Served).count();
    Ok(millionths(served as u64, clients.into()) >= COMPLETION_LEAST)
}

/// How far a client has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It has sent nothing or waits for the answer to its SYN.
    Opening,
    /// It has acknowledged and asked.
    Asking,
    /// It has its answer.
    Served,
    /// It was told that there is no such connection.
    Refused,
}

#[derive(Clone, Copy, Debug)]
struct Client {
    stage: Stage,
    round_trip_ms: u64,
    attempts: u32,
    /// The number of its next byte, and the one that it expects.
    next: u32,
    expected: u32,
    /// Its real server, once it has one.
    server: Option<u16>,
    questions: u64,
    answers: u64,
    /// Its packets went to more than one real server.
    is_astray: bool,
    /// It keeps its connection and asks again and again; the others leave when they have their answer.
    stays: bool,
}

impl Client {
    const fn is_lost(&self) -> bool {
        self.is_astray || self.answers < self.questions || !matches!(self.stage, Stage::Served)
    }
}

/// What a client does at its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    Open,
    Ask,
    Close,
}

struct World {
    bench: Bench,
    clients: Vec<Client>,
    /// What clients do, by time in milliseconds and client.
    agenda: BTreeSet<(u64, u32, Act)>,
    /// What real servers say in the next millisecond.
    answers: Vec<(InterfaceId, Packet)>,
    attacker: Stream,
    now_ms: u64,
    waiting: usize,
}

impl World {
    /// A world whose first `established` clients are to be connected before, and the `opening` others come in the first
    /// three fifths of the flood, so that those who repeat their SYN do so under it.
    fn new(options: &Options, established: u32, opening: u32, flood_ms: u64) -> Result<Self, AttackError> {
        let mut plan = plan(Mode::Nat, Protocol::TCP, Builtin::RoundRobin, SERVERS, options.seed);
        plan.limits.flows_max = options.flows;
        plan.limits.half_open_max = u16::MAX;
        let mut random = Stream::new(options.seed, "clients", "round trips");
        let mut client = || Client {
            stage: Stage::Opening,
            round_trip_ms: ROUND_TRIP_LEAST_MS + random.below(ROUND_TRIP_MOST_MS - ROUND_TRIP_LEAST_MS + 1),
            attempts: 0,
            next: 1_000,
            expected: 0,
            server: None,
            questions: 0,
            answers: 0,
            is_astray: false,
            stays: false,
        };
        let mut clients: Vec<Client> = (0..established + opening).map(|_| client()).collect();
        for client in clients.iter_mut().take(usize::try_from(established).unwrap_or(0)) {
            client.stays = true;
        }
        let mut random = Stream::new(options.seed, "clients", "arrivals");
        let arrivals = (flood_ms * 3 / 5).max(1);
        let agenda = (established..established + opening).map(|id| (random.below(arrivals), id, Act::Open));
        Ok(Self {
            bench: Bench::new(plan)?,
            clients,
            agenda: agenda.collect(),
            answers: Vec::with_capacity(CHUNK * 16),
            attacker: Stream::new(options.seed, "attacker", "syn flood"),
            now_ms: 0,
            waiting: 0,
        })
    }

    /// Fills every place of the flow table but one (a full table takes no half-open flow), and every half-open place
    /// beside it; then lets all flows end. What the table needs is there before the flood begins.
    fn use_every_place(&mut self, flows: u32) {
        let beyond = u32::try_from(self.clients.len()).unwrap_or(0);
        for id in beyond..beyond + flows - 1 {
            self.send(OUTSIDE, (honest(id), VIP), segment(1_000, 0, Flags::SYN), 0);
            self.turn();
            for (interface, packet) in std::mem::take(&mut self.answers) {
                self.put(interface, packet);
            }
            self.send(OUTSIDE, (honest(id), VIP), segment(1_001, 1, Flags::ACK), 0);
            self.turn();
        }
        for _ in 0..flows {
            self.send_syn();
            self.answers.clear();
        }
        self.turn();
        self.answers.clear();
        let later = self.bench.now.after(Duration::from_secs(10_000));
        self.bench.pass_until(later);
    }

    /// Opens the connections of the clients that are to have one before the flood.
    fn establish(&mut self) {
        let count = self.clients.iter().take_while(|client| client.stays).count();
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let agenda = std::mem::take(&mut self.agenda);
        let start = self.bench.now;
        for id in 0..count {
            // A hundred in a millisecond.
            self.agenda.insert((u64::from(id / 100), id, Act::Open));
        }
        let most_ms = u64::from(count / 100) + 4 * ROUND_TRIP_MOST_MS;
        for ms in 0..most_ms {
            self.pass_millisecond(start, ms, 0);
        }
        self.agenda = agenda;
    }

    /// Lets the flood run for a second before anything is measured and anybody new comes, so that whatever is first used
    /// under it has been.
    fn rehearse(&mut self, rate: u64) {
        let agenda = std::mem::take(&mut self.agenda);
        self.flood(rate, rate * REHEARSAL_MS / 1_000);
        self.agenda = agenda;
    }

    /// Sends `packets` SYNs at `rate` per second, while clients do what they do.
    fn flood(&mut self, rate: u64, packets: u64) {
        let start = self.bench.now;
        let mut sent = 0;
        for ms in 0..(packets * 1_000).div_ceil(rate.max(1)) {
            let due = ((ms + 1) * rate / 1_000).min(packets);
            self.ask_in_turn(ms);
            self.pass_millisecond(start, ms, due - sent);
            sent = due;
        }
    }

    /// Puts a share of the established connections on the agenda, so that each asks every two seconds.
    fn ask_in_turn(&mut self, ms: u64) {
        let place = ms % QUESTION_INTERVAL_MS;
        let all = self.clients.iter().enumerate();
        let step = usize::try_from(QUESTION_INTERVAL_MS).unwrap_or(1);
        for (id, client) in all.skip(usize::try_from(place).unwrap_or(0)).step_by(step) {
            if client.stays && client.questions == client.answers {
                self.agenda.insert((ms, u32::try_from(id).unwrap_or(0), Act::Ask));
            }
        }
    }

    /// After the flood, every established connection asks once more.
    fn ask_all(&mut self) {
        self.agenda.clear();
        let start = self.bench.now;
        // The last answers take their time.
        for ms in 0..QUESTION_INTERVAL_MS + ROUND_TRIP_MOST_MS {
            if ms < QUESTION_INTERVAL_MS {
                self.ask_in_turn(ms);
            }
            self.pass_millisecond(start, ms, 0);
        }
    }

    /// Lets one millisecond pass: the real servers' answers, then what clients do, then the flood.
    fn pass_millisecond(&mut self, start: Instant, ms: u64, flood: u64) {
        self.now_ms = ms;
        self.bench.now = start.after(Duration::from_millis(ms));
        for (interface, packet) in std::mem::take(&mut self.answers) {
            self.put(interface, packet);
        }
        while let Some((due, id, act)) = self.agenda.first().copied().filter(|(due, ..)| *due <= ms) {
            self.agenda.remove(&(due, id, act));
            self.act(id, act);
        }
        for _ in 0..flood {
            self.send_syn();
        }
        self.turn();
    }

    /// Answers that those who keep their connection have got.
    fn answered(&self) -> u64 {
        self.clients.iter().filter(|client| client.stays).map(|client| client.answers).sum()
    }

    fn send_syn(&mut self) {
        let from = stranger(&mut self.attacker);
        let [a, b, c, d, ..] = self.attacker.bits().to_be_bytes();
        self.send(OUTSIDE, (from, VIP), segment(u32::from_be_bytes([a, b, c, d]), 0, Flags::SYN), 0);
    }

    fn send(&mut self, interface: InterfaceId, ends: (End, End), segment: Segment, length: usize) {
        let packet = build(self.bench.buffer(), ends, Header::Tcp(segment), length, |place| place.fill(0x41));
        self.put(interface, packet);
    }

    fn put(&mut self, interface: InterfaceId, packet: Packet) {
        self.bench.put(interface, packet);
        self.waiting += 1;
        if self.waiting >= CHUNK {
            self.turn();
        }
    }

    /// Has the engine look at what came in, and everybody at what left.
    fn turn(&mut self) {
        self.waiting = 0;
        self.bench.run();
        while let Some((interface, packet)) = self.bench.take() {
            if let Ok(view) = view(packet.bytes())
                && let Transport::Tcp(segment) = view.transport
                && let (Some(source), Some(destination)) = (view.source.v4(), view.destination.v4())
            {
                let (ends, length) = ((source, destination), view.payload.len());
                match server_of(interface) {
                    Some(server) => self.serve(server, interface, ends, &segment, length),
                    None => self.hear(ends.1, &segment, length),
                }
            }
            self.bench.recycle(packet);
        }
    }

    /// A real server gets a segment: it answers a SYN, a question and a FIN.
    fn serve(
        &mut self,
        server: u16,
        interface: InterfaceId,
        ends: (End, End),
        asked: &Segment,
        length: usize,
    ) {
        if let Some(client) = honest_number(ends.0).and_then(|id| self.client(id)) {
            client.is_astray |= *client.server.get_or_insert(server) != server;
        }
        let is_syn = asked.flags.has(Flags::SYN);
        let is_fin = asked.flags.has(Flags::FIN);
        if !is_syn && !is_fin && length == 0 {
            return;
        }
        let count = u32::try_from(length).unwrap_or(0) + u32::from(is_syn) + u32::from(is_fin);
        let (flags, answer) = match (is_syn, is_fin) {
            (true, _) => (Flags::SYN.with(Flags::ACK), 0),
            (false, true) => (Flags::FIN.with(Flags::ACK), 0),
            (false, false) => (Flags::PSH.with(Flags::ACK), length),
        };
        let segment = segment(asked.acknowledgement, asked.sequence.wrapping_add(count), flags);
        let back = (ends.1, ends.0);
        let packet = build(self.bench.buffer(), back, Header::Tcp(segment), answer, |place| place.fill(0x42));
        self.answers.push((interface, packet));
    }

    fn client(&mut self, id: u32) -> Option<&mut Client> {
        self.clients.get_mut(usize::try_from(id).ok()?)
    }

    /// A client gets a segment. Strangers get the answers to the SYNs in their name, too, and are silent.
    fn hear(&mut self, to: End, said: &Segment, length: usize) {
        let now_ms = self.now_ms;
        let Some(id) = honest_number(to) else { return };
        let Some(client) = self.client(id) else { return };
        let later = now_ms + client.round_trip_ms;
        let next = match client.stage {
            _ if said.flags.has(Flags::RST) => {
                client.stage = Stage::Refused;
                None
            }
            Stage::Opening if said.flags.has(Flags::SYN.with(Flags::ACK)) => {
                client.stage = Stage::Asking;
                client.next = said.acknowledgement;
                client.expected = said.sequence.wrapping_add(1);
                Some(Act::Ask)
            }
            Stage::Asking | Stage::Served if length > 0 => {
                let is_first = client.stage == Stage::Asking && !client.stays;
                client.stage = Stage::Served;
                client.answers += 1;
                client.expected = said.sequence.wrapping_add(u32::try_from(length).unwrap_or(0));
                is_first.then_some(Act::Close)
            }
            Stage::Opening | Stage::Asking | Stage::Served | Stage::Refused => None,
        };
        if let Some(act) = next {
            self.agenda.insert((later, id, act));
        }
    }

    fn act(&mut self, id: u32, act: Act) {
        let now_ms = self.now_ms;
        let Some(client) = self.client(id) else { return };
        let (next, expected) = (client.next, client.expected);
        let ends = (honest(id), VIP);
        match act {
            Act::Open => {
                if client.stage != Stage::Opening {
                    return;
                }
                let repeat = REPEATS_MS.get(usize::try_from(client.attempts).unwrap_or(usize::MAX)).copied();
                let waited = client
                    .attempts
                    .checked_sub(1)
                    .and_then(|last| REPEATS_MS.get(usize::try_from(last).unwrap_or(usize::MAX)).copied());
                client.attempts += 1;
                if let Some(repeat) = repeat {
                    self.agenda.insert((now_ms + repeat - waited.unwrap_or(0), id, Act::Open));
                }
                self.send(OUTSIDE, ends, segment(next, 0, Flags::SYN), 0);
            }
            Act::Ask => {
                client.questions += 1;
                client.next = next.wrapping_add(100);
                self.send(OUTSIDE, ends, segment(next, expected, Flags::PSH.with(Flags::ACK)), 100);
            }
            Act::Close => {
                client.next = next.wrapping_add(1);
                self.send(OUTSIDE, ends, segment(next, expected, Flags::FIN.with(Flags::ACK)), 0);
            }
        }
    }
}

const fn segment(sequence: u32, acknowledgement: u32, flags: Flags) -> Segment {
    Segment { sequence, acknowledgement, flags, window: WINDOW }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flood(rate: Option<u64>) -> Report {
        let mut sizes = [Some(1_000_000), Some(1_009_000)].into_iter();
        let options = Options { flows: 400, factor: 100, rate, seed: 1 };
        run(&options, &mut || sizes.next().flatten()).unwrap()
    }

    #[test]
    fn a_flood_takes_no_established_connection_and_keeps_no_honest_client_out() {
        let report = flood(None);
        assert!(report.is_as_expected(), "{}", report.to_text());
        assert_eq!((report.lost, report.established, report.honest), (0, 200, 100));
        assert!(report.answered >= 200 * 9 && report.evicted > 39_000, "{}", report.to_text());
        // Places by the longest handshake, less the SYNs of the honest clients.
        let limit = report.limit_rate.unwrap();
        assert!((3_500..4_000).contains(&limit), "{}", report.to_text());
        assert_eq!(flood(None), report);
    }

    #[test]
    fn a_flood_beyond_the_limit_is_told_as_one() {
        let report = flood(Some(8_000));
        assert!(!report.is_as_expected() && report.lost == 0, "{}", report.to_text());
        assert!((25..50).contains(&report.completed), "{}", report.to_text());
    }

    #[test]
    fn memory_that_grows_is_told() {
        let report = Report { memory_after: Some(1_011_000), ..flood(None) };
        assert!(!report.is_as_expected());
        assert!(report.to_text().contains("+1.10 %"), "{}", report.to_text());
    }
}
