//! Segments and errors in the name of others: the attacker knows both addresses and ports of every connection, and no
//! sequence number.
//!
//! ```text
//! open all --> forged packets, data of each connection between them --> wait --> data --> the real end of each
//! ```
//!
//! Both ends are modelled by RFC 5961: a reset of exactly the next number is believed, one within the window and any
//! other segment that does not fit is answered with what is right, at most twice a second. Every packet that leaves is
//! compared byte for byte with the one that must.
//!
//! A number may be guessed by chance, by whoever sends enough. The report says how often that is to be expected.

use std::collections::BTreeMap;
use std::fmt::Write;

use evenkeel_engine::flow::{FlowState, tcp_track};
use evenkeel_engine::plan::Builtin;
use evenkeel_engine::wire::Protocol;
use evenkeel_engine::{Duration, Instant, InterfaceId};
use serde::Serialize;

use super::{
    AttackError, Bench, Mode, OUTSIDE, VIP, grouped, honest, in_range, plan, server_address,
    server_interface, server_of,
};
use crate::packet::{
    End, Flags, Header, Packet, Segment, TCP_BYTES, Transport, build, destination, icmp_about, mend_header,
    take_hop, view,
};
use crate::random::Stream;

/// Real servers: enough that a flow which is opened anew goes elsewhere.
const SERVERS: u16 = 7;
/// Forged packets of each second: 26 Mbit/s of the smallest ones.
const PACKETS_PER_SECOND: u64 = 50_000;
/// Forged packets between two steps of live traffic.
const PACKETS_PER_STEP: u64 = 50;
/// How long everything rests after the attack, so that flows that were closed by mistake are gone.
const REST: Duration = Duration::from_secs(245);
/// An end answers what does not fit at most this often (RFC 5961 s.7).
const ANSWER_INTERVAL: Duration = Duration::from_millis(500);
/// The window that both ends offer.
const WINDOW: u16 = 65_000;
/// Bytes of the longest message.
const MESSAGE_BYTES_MAX: u64 = 1_200;
/// The most breaks that a report tells of in words.
const BREAKS_TOLD_MAX: usize = 10;

/// What is sent against how many.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Established connections (1 to 60,000).
    pub connections: u32,
    /// Forged packets (at most 10^9).
    pub packets: u64,
    /// The seed of everything random.
    pub seed: u64,
    /// How packets reach the real servers.
    pub mode: Mode,
}

impl Default for Options {
    fn default() -> Self {
        Self { connections: 1_000, packets: 1_000_000, seed: 1, mode: Mode::Nat }
    }
}

/// What was sent and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// How packets reach the real servers.
    pub mode: &'static str,
    /// The seed.
    pub seed: u64,
    /// Established connections.
    pub connections: u32,
    /// Forged packets.
    pub packets: u64,
    /// Seconds that the attack lasted, in virtual time.
    pub seconds: u64,
    /// Forged packets by kind.
    pub kinds: BTreeMap<&'static str, Fate>,
    /// Forged packets that were dropped, by reason.
    pub drops: BTreeMap<&'static str, u64>,
    /// Forged packets with a flag that could change a flow whose number fits by chance, to be expected, in millionths.
    pub chance_millionths: u64,
    /// Resets with exactly the number that the end expected next.
    pub guessed: u64,
    /// Answers of the ends to what did not fit.
    pub challenges: u64,
    /// Messages that arrived whole while the attack lasted and after it.
    pub messages: u64,
    /// Connections that were broken.
    pub broken: u64,
    /// The first breaks in words.
    pub breaks: Vec<String>,
    /// Genuine ends.
    pub ends: u64,
    /// Genuine ends that the flow table noticed.
    pub noticed: u64,
    /// Flows that were left when all was over.
    pub left_over: u64,
}

/// What became of the forged packets of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Fate {
    /// How many were sent.
    pub sent: u64,
    /// How many reached the end that they were meant for.
    pub forwarded: u64,
    /// How many were dropped.
    pub dropped: u64,
}

impl Report {
    /// Whether nothing broke and every genuine end was noticed.
    #[must_use]
    pub const fn is_as_expected(&self) -> bool {
        self.broken == 0 && self.noticed == self.ends && self.left_over == 0
    }

    /// The report for people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "{} forged packets against {} connections, mode {}, seed {}, {} s of virtual time\n\n\
             {:<22}{:>12}{:>12}{:>12}\n",
            grouped(self.packets),
            grouped(self.connections.into()),
            self.mode,
            self.seed,
            self.seconds,
            "forged",
            "sent",
            "forwarded",
            "dropped"
        );
        for (kind, fate) in &self.kinds {
            let Fate { sent, forwarded, dropped } = *fate;
            let [sent, forwarded, dropped] = [sent, forwarded, dropped].map(grouped);
            let _ = writeln!(text, "{kind:<22}{sent:>12}{forwarded:>12}{dropped:>12}");
        }
        for (reason, count) in &self.drops {
            let _ = writeln!(text, "dropped as {reason}: {}", grouped(*count));
        }
        let (chance, parts) = (self.chance_millionths / 1_000_000, self.chance_millionths % 1_000_000);
        let _ = write!(
            text,
            "\nnumbers guessed by chance, expected: {chance}.{parts:06}; believed by an end: {}\n\
             answers of the ends to what did not fit: {}\n\
             messages delivered whole: {}\n\
             broken connections: {}\n\
             genuine ends noticed: {} of {}\n\
             flows left when all was over: {}\n",
            self.guessed,
            grouped(self.challenges),
            grouped(self.messages),
            self.broken,
            self.noticed,
            self.ends,
            self.left_over
        );
        for told in &self.breaks {
            let _ = writeln!(text, "  {told}");
        }
        text
    }
}

/// Runs the attack.
///
/// # Errors
/// When a number is out of its range.
pub fn run(options: &Options) -> Result<Report, AttackError> {
    in_range("connections", options.connections.into(), 1, 60_000, "1 to 60,000")?;
    in_range("packets", options.packets, 0, 1_000_000_000, "at most 10^9")?;
    let plan = plan(options.mode, Protocol::TCP, Builtin::RoundRobin, SERVERS, options.seed);
    let mut field = Field {
        bench: Bench::new(plan)?,
        mode: options.mode,
        connections: Vec::new(),
        breaks: Vec::new(),
        challenges: 0,
        messages: 0,
    };
    field.open(options);
    let mut attacker = Attacker::new(options.seed);
    let before: BTreeMap<_, _> = field.bench.drops().into_iter().collect();
    let start = field.bench.now;
    let mut order = Stream::new(options.seed, "connections", "messages");
    for number in 0..options.packets {
        if number % PACKETS_PER_STEP == 0 {
            let at = number * 1_000_000 / PACKETS_PER_SECOND;
            field.bench.pass_until(start.after(Duration::from_micros(at)));
            let count = field.connections.len();
            // Every connection in turn, each at another step of its exchange.
            let turn = usize::try_from(number / PACKETS_PER_STEP).unwrap_or(0);
            field.advance(turn % count.max(1), &mut order);
        }
        attacker.strike(&mut field);
    }
    let seconds = field.bench.now.as_nanos().saturating_sub(start.as_nanos()).div_ceil(1_000_000_000);
    let after = field.bench.drops().into_iter();
    let drops = after.map(|(reason, count)| (reason, count - before.get(reason).copied().unwrap_or(0)));
    let drops = drops.filter(|(_, count)| *count > 0).collect();
    field.carry_on(&mut order);
    let (ends, noticed) = field.end_all();
    let left_over = field.let_all_end();
    let broken = field.connections.iter().filter(|connection| connection.is_broken).count() as u64;
    Ok(Report {
        mode: options.mode.name(),
        seed: options.seed,
        connections: options.connections,
        packets: options.packets,
        seconds,
        chance_millionths: attacker.chance_millionths(),
        kinds: attacker.fates,
        drops,
        guessed: attacker.guessed,
        challenges: field.challenges,
        messages: field.messages,
        broken,
        breaks: field.breaks,
        ends,
        noticed,
        left_over,
    })
}

/// Which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

impl Side {
    const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// One end's numbers.
#[derive(Clone, Copy, Debug)]
struct Numbers {
    /// The number of its next byte.
    next: u32,
    /// The number that it expects.
    expected: u32,
    /// What the other end has acknowledged, as this one knows.
    acknowledged: u32,
    /// When it may answer what does not fit again.
    quiet_until: Instant,
}

#[derive(Clone, Debug)]
struct Connection {
    client: End,
    /// Whom its server sees.
    mapped: End,
    server: u16,
    numbers: [Numbers; 2],
    /// Steps of the exchange so far.
    steps: u64,
    is_broken: bool,
}

impl Connection {
    fn numbers(&self, side: Side) -> &Numbers {
        let [client, server] = &self.numbers;
        match side {
            Side::Client => client,
            Side::Server => server,
        }
    }

    fn numbers_mut(&mut self, side: Side) -> &mut Numbers {
        let [client, server] = &mut self.numbers;
        match side {
            Side::Client => client,
            Side::Server => server,
        }
    }

    /// Source and destination of packets by `side` as they come in, and as they leave.
    fn ends(&self, side: Side, mode: Mode) -> [(End, End); 2] {
        let server = if mode == Mode::Gateway {
            VIP
        } else {
            End { address: server_address(self.server), port: super::SERVER_PORT }
        };
        match side {
            Side::Client => [(self.client, VIP), (self.mapped, server)],
            Side::Server => [(server, self.mapped), (VIP, self.client)],
        }
    }

    const fn interface_in(&self, side: Side) -> InterfaceId {
        match side {
            Side::Client => OUTSIDE,
            Side::Server => server_interface(self.server),
        }
    }

    const fn interface_out(&self, side: Side) -> InterfaceId {
        self.interface_in(side.other())
    }

    /// A segment of `side` that fits.
    fn segment(&self, side: Side, flags: Flags) -> Segment {
        let numbers = self.numbers(side);
        Segment { sequence: numbers.next, acknowledgement: numbers.expected, flags, window: WINDOW }
    }
}

/// Everything but the attacker.
struct Field {
    bench: Bench,
    mode: Mode,
    connections: Vec<Connection>,
    breaks: Vec<String>,
    challenges: u64,
    messages: u64,
}

impl Field {
    fn open(&mut self, options: &Options) {
        let mut random = Stream::new(options.seed, "connections", "numbers");
        for number in 0..options.connections {
            let client = honest(number);
            let mut numbers = || Numbers {
                next: half(random.bits()),
                expected: 0,
                acknowledged: 0,
                quiet_until: Instant::ZERO,
            };
            let numbers = [numbers(), numbers()];
            let connection =
                Connection { client, mapped: client, server: 0, numbers, steps: 0, is_broken: false };
            self.connections.push(connection);
            let id = self.connections.len() - 1;
            self.shake_hands(id);
        }
    }

    /// Opens a connection and learns to whom it goes.
    fn shake_hands(&mut self, id: usize) {
        let Some(connection) = self.connections.get(id) else { return };
        let segment = Segment { acknowledgement: 0, ..connection.segment(Side::Client, Flags::SYN) };
        let syn = build(self.bench.buffer(), (connection.client, VIP), Header::Tcp(segment), 0, |_| ());
        let out = self.bench.one(OUTSIDE, syn);
        let seen = out.as_ref().and_then(|(interface, packet)| {
            let view = view(packet.bytes()).ok()?;
            Some((server_of(*interface)?, view.source.v4()?))
        });
        let Some((server, mapped)) = seen else {
            self.break_off(id, "its SYN went nowhere".to_owned());
            return;
        };
        if let Some(connection) = self.connections.get_mut(id) {
            (connection.server, connection.mapped) = (server, mapped);
        }
        self.hear(id, Side::Client, 1);
        self.say(id, Side::Server, Flags::SYN.with(Flags::ACK), 0);
        self.say(id, Side::Client, Flags::ACK, 0);
    }

    /// The other end has taken in `length` numbers of `side`.
    fn hear(&mut self, id: usize, side: Side, length: u32) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let speaker = connection.numbers_mut(side);
        speaker.next = speaker.next.wrapping_add(length);
        let (next, said) = (speaker.next, speaker.expected);
        let listener = connection.numbers_mut(side.other());
        listener.expected = next;
        if said != 0 {
            listener.acknowledged = said;
        }
    }

    /// Sends a segment of `side` with a message of `length` bytes, which must arrive as it was meant.
    fn say(&mut self, id: usize, side: Side, flags: Flags, length: usize) {
        let Some(connection) = self.connections.get(id).filter(|connection| !connection.is_broken) else {
            return;
        };
        let segment = connection.segment(side, flags);
        let count = u32::try_from(length).unwrap_or(0)
            + u32::from(flags.has(Flags::SYN))
            + u32::from(flags.has(Flags::FIN));
        // What real servers say goes straight to the client in this mode.
        if self.mode == Mode::Gateway && side == Side::Server {
            self.hear(id, side, count);
            return;
        }
        let [came, left] = connection.ends(side, self.mode);
        let (in_by, out_by) = (connection.interface_in(side), connection.interface_out(side));
        let write = |place: &mut [u8]| fill(place, segment.sequence);
        let packet = build(self.bench.buffer(), came, Header::Tcp(segment), length, write);
        let mut expected = build(self.bench.buffer(), left, Header::Tcp(segment), length, write);
        let _ = take_hop(expected.bytes_mut());
        mend_header(expected.bytes_mut());
        match self.bench.one(in_by, packet) {
            Some((by, packet)) if by == out_by && packet.bytes() == expected.bytes() => {
                self.bench.recycle(packet);
                self.hear(id, side, count);
            }
            Some((by, packet)) => {
                let to = view(packet.bytes()).map(|view| view.destination);
                let words = format!("{side:?} with flags {:#x}: left by {} to {to:?}", flags.0, by.0);
                self.break_off(id, words);
            }
            None => self.break_off(id, format!("{side:?} with flags {:#x}: dropped", flags.0)),
        }
        self.bench.recycle(expected);
    }

    fn break_off(&mut self, id: usize, how: String) {
        if let Some(connection) = self.connections.get_mut(id)
            && !connection.is_broken
        {
            connection.is_broken = true;
            if self.breaks.len() < BREAKS_TOLD_MAX {
                self.breaks.push(format!("connection {id}: {how}"));
            }
        }
    }

    /// The next step of a connection's exchange: a question, its answer, and its acknowledgement. Between the steps of
    /// one connection, bytes are in flight.
    fn advance(&mut self, id: usize, random: &mut Stream) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let step = connection.steps % 3;
        connection.steps += 1;
        let length = usize::try_from(1 + random.below(MESSAGE_BYTES_MAX)).unwrap_or(1);
        let push = Flags::PSH.with(Flags::ACK);
        match step {
            0 => self.say(id, Side::Client, push, length),
            1 => self.say(id, Side::Server, push, length),
            _ => self.say(id, Side::Client, Flags::ACK, 0),
        }
        self.messages += u64::from(step < 2 && self.is_whole(id));
    }

    fn is_whole(&self, id: usize) -> bool {
        self.connections.get(id).is_some_and(|connection| !connection.is_broken)
    }

    /// An end has got a segment that does not fit. Returns whether it believed it.
    fn receive_forged(&mut self, id: usize, by: Side, segment: &Segment) -> bool {
        let now = self.bench.now;
        let Some(connection) = self.connections.get_mut(id) else { return false };
        let listener = connection.numbers_mut(by.other());
        let ahead = segment.sequence.wrapping_sub(listener.expected);
        if segment.flags.has(Flags::RST) && ahead == 0 {
            return true;
        }
        let is_silent = segment.flags.has(Flags::RST) && ahead >= u32::from(WINDOW);
        if is_silent || now < listener.quiet_until {
            return false;
        }
        listener.quiet_until = now.after(ANSWER_INTERVAL);
        self.challenges += 1;
        self.say(id, by.other(), Flags::ACK, 0);
        false
    }

    /// After the attack: rest, then every connection goes on both ways, and the flow table knows it as established.
    fn carry_on(&mut self, random: &mut Stream) {
        self.bench.pass_until(self.bench.now.after(REST));
        for id in 0..self.connections.len() {
            for _ in 0..6 {
                self.advance(id, random);
            }
            // Nothing is left in flight.
            self.say(id, Side::Server, Flags::ACK, 0);
            self.say(id, Side::Client, Flags::ACK, 0);
        }
        let states = self.states();
        for id in 0..self.connections.len() {
            let state = self.state(id, &states);
            if state != Some(FlowState::Established) {
                self.break_off(id, format!("is {} in the flow table", name(state)));
            }
        }
    }

    fn states(&self) -> BTreeMap<End, FlowState> {
        let entries = self.bench.engine.flows();
        entries.filter_map(|entry| Some((client_of(entry)?, entry.state))).collect()
    }

    fn state(&self, id: usize, states: &BTreeMap<End, FlowState>) -> Option<FlowState> {
        self.connections.get(id).and_then(|connection| states.get(&connection.client)).copied()
    }

    /// Ends every connection that is whole, in turn by a reset of either side and by FINs that either side begins with.
    /// Where the server is not seen, only what the client says can be noticed. Returns how many ended and how many of
    /// them the flow table noticed.
    fn end_all(&mut self) -> (u64, u64) {
        let mut expected = Vec::new();
        for id in 0..self.connections.len() {
            if !self.is_whole(id) {
                continue;
            }
            let is_one_sided = self.mode == Mode::Gateway;
            let first = if id % 4 < 2 || is_one_sided { Side::Client } else { Side::Server };
            if id % 2 == 0 {
                self.say(id, first, if id % 8 < 4 { Flags::RST } else { Flags::RST.with(Flags::ACK) }, 0);
                expected.push((id, FlowState::Closed));
                continue;
            }
            let fin = Flags::FIN.with(Flags::ACK);
            self.say(id, first, fin, 0);
            self.say(id, first.other(), fin, 0);
            self.say(id, first, Flags::ACK, 0);
            expected.push((id, if is_one_sided { FlowState::FinClient } else { FlowState::TimeWait }));
        }
        let states = self.states();
        let mut noticed = 0;
        for (id, state) in &expected {
            let found = self.state(*id, &states);
            if found == Some(*state) && self.is_whole(*id) {
                noticed += 1;
            } else if self.breaks.len() < BREAKS_TOLD_MAX {
                let words = format!("connection {id}: {} after its end, not {}", name(found), state.name());
                self.breaks.push(words);
            }
        }
        (expected.len() as u64, noticed)
    }

    /// Lets the flows end that have seen an end. Returns how many flows are left.
    fn let_all_end(&mut self) -> u64 {
        self.bench.pass_until(self.bench.now.after(REST));
        self.bench.engine.flow_count() as u64
    }
}

fn name(state: Option<FlowState>) -> &'static str {
    state.map_or("not there", FlowState::name)
}

fn client_of(entry: &evenkeel_engine::flow::FlowEntry) -> Option<End> {
    let std::net::IpAddr::V4(address) = entry.client.into() else { return None };
    Some(End { address, port: entry.client_port })
}

/// Bytes that say where in the stream they belong.
fn fill(place: &mut [u8], sequence: u32) {
    let mut number = sequence;
    for byte in place {
        let [high, .., low] = number.wrapping_mul(0x9e37_79b1).to_be_bytes();
        *byte = high ^ low;
        number = number.wrapping_add(1);
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the lower half is meant")]
const fn half(bits: u64) -> u32 {
    bits as u32
}

/// What is forged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Segment(&'static str, Flags),
    Error(&'static str, (u8, u8)),
}

const KINDS: [Kind; 12] = [
    Kind::Segment("rst", Flags::RST),
    Kind::Segment("rst ack", Flags(Flags::RST.0 | Flags::ACK.0)),
    Kind::Segment("fin ack", Flags(Flags::FIN.0 | Flags::ACK.0)),
    Kind::Segment("syn", Flags::SYN),
    Kind::Segment("syn ack", Flags(Flags::SYN.0 | Flags::ACK.0)),
    Kind::Segment("data", Flags(Flags::PSH.0 | Flags::ACK.0)),
    Kind::Error("port unreachable", (3, 3)),
    Kind::Error("host unreachable", (3, 1)),
    Kind::Error("too big", (3, 4)),
    Kind::Error("source quench", (4, 0)),
    Kind::Error("time exceeded", (11, 0)),
    Kind::Error("parameter problem", (12, 0)),
];

/// Knows every connection's addresses and ports.
struct Attacker {
    random: Stream,
    fates: BTreeMap<&'static str, Fate>,
    /// Numbers that would have been believed, summed over all packets with a flag that counts.
    believable: u64,
    guessed: u64,
}

impl Attacker {
    fn new(seed: u64) -> Self {
        let random = Stream::new(seed, "attacker", "forged");
        Self { random, fates: BTreeMap::new(), believable: 0, guessed: 0 }
    }

    fn chance_millionths(&self) -> u64 {
        u64::try_from((u128::from(self.believable) * 1_000_000) >> 32).unwrap_or(u64::MAX)
    }

    /// Sends one forged packet.
    fn strike(&mut self, field: &mut Field) {
        let count = field.connections.len() as u64;
        let id = usize::try_from(self.random.below(count)).unwrap_or(0);
        let kind = usize::try_from(self.random.below(KINDS.len() as u64)).unwrap_or(0);
        let Some(kind) = KINDS.get(kind).copied() else { return };
        // Where the server's packets do not come by, its name is of no use.
        let is_client = self.random.below(2) == 0 || field.mode == Mode::Gateway;
        let by = if is_client { Side::Client } else { Side::Server };
        let name = match kind {
            Kind::Segment(name, flags) => {
                self.send_segment(field, id, by, name, flags);
                name
            }
            Kind::Error(name, kind) => {
                self.send_error(field, id, by, name, kind);
                name
            }
        };
        self.fates.entry(name).or_default().sent += 1;
    }

    fn send_segment(&mut self, field: &mut Field, id: usize, by: Side, name: &'static str, flags: Flags) {
        let bits = self.random.bits();
        let sequence = half(bits);
        let acknowledgement = if flags.has(Flags::ACK) { half(bits >> 32) } else { 0 };
        let segment = Segment { sequence, acknowledgement, flags, window: WINDOW };
        let Some(connection) = field.connections.get(id) else { return };
        let [came, left] = connection.ends(by, field.mode);
        let interface = connection.interface_in(by);
        let out_by = connection.interface_out(by);
        if !flags.has(Flags::PSH) {
            self.believable += believable(connection, by, flags, field.mode);
        }
        let length = if flags.has(Flags::PSH) { 100 } else { 0 };
        let packet =
            build(field.bench.buffer(), came, Header::Tcp(segment), length, |place| place.fill(0x66));
        let out = field.bench.one(interface, packet);
        let is_right = out.as_ref().is_some_and(|(by, packet)| {
            let view = view(packet.bytes());
            *by == out_by
                && view.is_ok_and(|view| {
                    (view.source, view.destination) == (left.0.any(), left.1.any())
                        && view.transport == Transport::Tcp(segment)
                })
        });
        let is_gone = out.is_none();
        if let Some((_, packet)) = out {
            field.bench.recycle(packet);
        }
        self.note(field, id, name, is_right, is_gone);
        if is_right && field.receive_forged(id, by, &segment) {
            self.guessed += 1;
        }
    }

    /// An error that quotes what the side opposite to `by` may have sent, with a number that is made up.
    fn send_error(&mut self, field: &mut Field, id: usize, by: Side, name: &'static str, kind: (u8, u8)) {
        let Some(connection) = field.connections.get(id) else { return };
        // The quoted packet has the ends that its receiver sees.
        let [_, quoted] = connection.ends(by.other(), field.mode);
        let [came, left] = connection.ends(by, field.mode);
        let (interface, out_by) = (connection.interface_in(by), connection.interface_out(by));
        let segment = Segment {
            sequence: half(self.random.bits()),
            acknowledgement: 0,
            flags: Flags::ACK,
            window: WINDOW,
        };
        let inner = build(Packet::default(), quoted, Header::Tcp(segment), TCP_BYTES, |_| ());
        let Some(packet) = icmp_about(field.bench.buffer(), kind, came.0.address, inner.bytes()) else {
            return;
        };
        let out = field.bench.one(interface, packet);
        let is_right = out.as_ref().is_some_and(|(by, packet)| {
            *by == out_by
                && destination(packet.bytes()) == Some(left.1.address.into())
                && is_whole_error(packet)
        });
        let is_gone = out.is_none();
        if let Some((_, packet)) = out {
            field.bench.recycle(packet);
        }
        self.note(field, id, name, is_right, is_gone);
    }

    fn note(&mut self, field: &mut Field, id: usize, name: &'static str, is_right: bool, is_gone: bool) {
        let fate = self.fates.entry(name).or_default();
        fate.forwarded += u64::from(is_right);
        fate.dropped += u64::from(is_gone);
        if !is_right && !is_gone {
            field.break_off(id, format!("a forged {name} led to a wrong packet"));
        }
    }
}

/// How many of all 2^32 sequence numbers of a segment in the name of `by` the flow table takes for right.
fn believable(connection: &Connection, by: Side, flags: Flags, mode: Mode) -> u64 {
    let numbers = connection.numbers(by);
    let flight = if mode == Mode::Gateway {
        tcp_track::UNSEEN_FLIGHT
    } else {
        numbers.next.wrapping_sub(numbers.acknowledged)
    };
    // Those in flight, both ends included, and the one before; or with both numbers nearly right, any of these.
    let (reach, close) = (u64::from(tcp_track::REACH) * 2, u64::from(tcp_track::CLOSE) * 2);
    let both = if flags.has(Flags::ACK) { (reach * close) >> 32 } else { 0 };
    u64::from(flight) + 2 + both
}

/// Whether an ICMP error adds up.
fn is_whole_error(packet: &Packet) -> bool {
    packet
        .bytes()
        .split_first_chunk::<20>()
        .is_some_and(|(header, message)| crate::packet::adds_up(header) && crate::packet::adds_up(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(mode: Mode) -> Report {
        run(&Options { connections: 48, packets: 12_000, mode, ..Options::default() }).unwrap()
    }

    #[test]
    fn no_forged_packet_breaks_a_connection_and_every_real_end_is_noticed() {
        for mode in [Mode::Nat, Mode::FullNat, Mode::Gateway] {
            let report = report(mode);
            assert!(report.is_as_expected(), "{}", report.to_text());
            assert_eq!((report.ends, report.guessed), (48, 0));
            let sent: u64 = report.kinds.values().map(|fate| fate.sent).sum();
            assert_eq!((sent, report.kinds.len()), (12_000, KINDS.len()));
            assert!(report.kinds.values().all(|fate| fate.sent > 500), "{}", report.to_text());
            assert!(report.messages > 48 * 4 && report.challenges > 0, "{}", report.to_text());
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_report() {
        assert_eq!(report(Mode::Nat), report(Mode::Nat));
    }

    #[test]
    fn a_number_that_is_right_does_break_a_connection() {
        // The attack above shows something only if this one is found.
        let options = Options { connections: 4, packets: 0, ..Options::default() };
        let plan = plan(Mode::Nat, Protocol::TCP, Builtin::RoundRobin, SERVERS, 1);
        let mut field = Field {
            bench: Bench::new(plan).unwrap(),
            mode: Mode::Nat,
            connections: Vec::new(),
            breaks: Vec::new(),
            challenges: 0,
            messages: 0,
        };
        field.open(&options);
        let victim = field.connections[2].clone();
        let segment = victim.segment(Side::Client, Flags::RST);
        let packet = build(Packet::default(), (victim.client, VIP), Header::Tcp(segment), 0, |_| ());
        field.bench.one(OUTSIDE, packet);
        field.carry_on(&mut Stream::new(1, "test", "test"));
        let broken: Vec<_> = field.connections.iter().map(|connection| connection.is_broken).collect();
        assert_eq!(broken, [false, false, true, false], "{:?}", field.breaks);
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        let error = run(&Options { connections: 0, ..Options::default() }).unwrap_err();
        assert_eq!(error.to_string(), "connections is 0; it is 1 to 60,000");
    }
}
