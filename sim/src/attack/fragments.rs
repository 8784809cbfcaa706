//! Parts of datagrams that never become whole, many times what the engine keeps, beside honest datagrams in parts and
//! packets in one piece.
//!
//! The flood has half of the link: after each honest packet the attacker sends until both have sent as much. What the
//! attacker sends is drawn from four kinds: small and large parts without a first one, first parts without the rest,
//! and parts of one datagram that overlap. Sources and identifications are made up.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::Ipv4Addr;

use evenkeel_engine::flow::fragments::HELD_BYTES_MAX;
use evenkeel_engine::plan::Builtin;
use evenkeel_engine::wire::Protocol;
use evenkeel_engine::{Duration, InterfaceId};
use serde::Serialize;

use super::{
    AttackError, Bench, Memory, Mode, OUTSIDE, VIP, grouped, honest, in_range, millionths, per_cent, plan,
    stranger,
};
use crate::packet::{End, Header, IPV4_BYTES, Packet, adds_up, build};
use crate::random::Stream;

/// Real servers.
const SERVERS: u16 = 5;
/// Honest hosts that send datagrams in parts, each the parts of one datagram back to back.
const SENDERS: u32 = 64;
/// Bytes of an honest datagram: three parts.
const DATAGRAM_BYTES: usize = 4_000;
/// Bytes of payload in a part: the most that fit, in units of eight.
const PART_BYTES: usize = 1_480;
/// Bytes of a packet in one piece.
const WHOLE_BYTES: usize = 600;
/// Bytes that Ethernet adds to a packet on the wire, and the least that it carries: preamble, header, checksum, gap.
const WIRE_EXTRA_BYTES: u64 = 38;
const WIRE_LEAST_BYTES: u64 = 84;
/// Nanoseconds that a byte takes on a link of 1 Gbit/s.
const BYTE_NANOS: u64 = 8;
/// The share of honest datagrams that must arrive whole, in millionths.
const ARRIVAL_LEAST: u64 = 990_000;
/// What resident memory may grow by: what may be held, twice, since the device's buffers are larger than what is in them.
const GROWTH_MOST_BYTES: u64 = 4 << 20;

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many times what the engine holds at most the flood has (1 to 10,000).
    pub factor: u32,
    /// The seed of everything random.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { factor: 10, seed: 1 }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Fragments of the attacker.
    pub flood: u64,
    /// Their bytes.
    pub flood_bytes: u64,
    /// Of what honest hosts and the attacker sent, the attacker's part on the wire, in millionths.
    pub flood_share: u64,
    /// Packets in one piece.
    pub whole: u64,
    /// Those that did not arrive as they should.
    pub whole_lost: u64,
    /// Honest datagrams in parts.
    pub datagrams: u64,
    /// Those of which every part arrived as it should.
    pub datagrams_whole: u64,
    /// The most bytes that waited for a first part at once.
    pub held_bytes_most: u64,
    /// The most bytes that may.
    pub held_bytes_bound: u64,
    /// Packets that were dropped, by reason.
    pub drops: BTreeMap<&'static str, u64>,
    /// Packets that still waited when all was over.
    pub left_over: u64,
    /// Resident memory before the flood, in bytes.
    pub memory_before: Option<u64>,
    /// Resident memory after it.
    pub memory_after: Option<u64>,
}

impl Report {
    /// Whether every promise held.
    #[must_use]
    pub fn is_as_expected(&self) -> bool {
        let is_bounded = match (self.memory_before, self.memory_after) {
            (Some(before), Some(after)) => after.saturating_sub(before) <= GROWTH_MOST_BYTES,
            _ => true,
        };
        self.whole_lost == 0
            && millionths(self.datagrams_whole, self.datagrams) >= ARRIVAL_LEAST
            && self.held_bytes_most <= self.held_bytes_bound
            && self.left_over == 0
            && is_bounded
    }

    /// The report for people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "{} forged fragments, {} KiB, {} of the link, seed {}\n\n\
             packets in one piece lost: {} of {}\n\
             honest datagrams in parts that arrived whole: {} of {} ({}; 99 % promised)\n\
             bytes that waited at most: {} of {} allowed\n\
             packets that wait when all is over: {}\n",
            grouped(self.flood),
            grouped(self.flood_bytes / 1024),
            per_cent(self.flood_share),
            self.seed,
            self.whole_lost,
            grouped(self.whole),
            grouped(self.datagrams_whole),
            grouped(self.datagrams),
            per_cent(millionths(self.datagrams_whole, self.datagrams)),
            grouped(self.held_bytes_most),
            grouped(self.held_bytes_bound),
            self.left_over,
        );
        for (reason, count) in &self.drops {
            let _ = writeln!(text, "dropped as {reason}: {}", grouped(*count));
        }
        if let (Some(before), Some(after)) = (self.memory_before, self.memory_after) {
            let [before, after] = [before, after].map(|bytes| grouped(bytes / 1024));
            let _ = writeln!(text, "memory of the process: {before} KiB before, {after} KiB after");
        }
        text
    }
}

/// Runs the flood.
///
/// # Errors
/// When a number is out of its range.
pub fn run(options: &Options, memory: &mut Memory<'_>) -> Result<Report, AttackError> {
    in_range("factor", options.factor.into(), 1, 10_000, "1 to 10,000")?;
    let mut plan = plan(Mode::Nat, Protocol::UDP, Builtin::Maglev, SERVERS, options.seed);
    // Larger than what is cut here, so that parts leave as they came.
    plan.handling.cuts = false;
    let mut world = World {
        bench: Bench::new(plan)?,
        random: Stream::new(options.seed, "attacker", "fragments"),
        order: Stream::new(options.seed, "hosts", "order"),
        flood: 0,
        flood_bytes: 0,
        flood_wire: 0,
        honest_wire: 0,
        held_most: 0,
        arrived: 0,
        datagrams_whole: 0,
        whole: 0,
        whole_lost: 0,
        datagrams: 0,
    };
    world.open_flows();
    let memory_before = memory();
    let enough = u64::from(options.factor) * HELD_BYTES_MAX as u64;
    let mut round = 0;
    while world.flood_bytes < enough {
        world.round(round);
        round += 1;
    }
    let memory_after = memory();
    world.bench.pass_until(world.bench.now.after(Duration::from_secs(10)));
    let counters = world.bench.engine.counters();
    Ok(Report {
        seed: options.seed,
        flood: world.flood,
        flood_bytes: world.flood_bytes,
        flood_share: millionths(world.flood_wire, world.flood_wire + world.honest_wire),
        whole: world.whole,
        whole_lost: world.whole_lost,
        datagrams: world.datagrams,
        datagrams_whole: world.datagrams_whole,
        held_bytes_most: world.held_most,
        held_bytes_bound: HELD_BYTES_MAX as u64,
        left_over: counters.waiting,
        drops: world.bench.drops().into_iter().collect(),
        memory_before,
        memory_after,
    })
}

struct World {
    bench: Bench,
    random: Stream,
    order: Stream,
    flood: u64,
    flood_bytes: u64,
    flood_wire: u64,
    honest_wire: u64,
    held_most: u64,
    /// Bytes of the honest datagram under way that have arrived at its server.
    arrived: usize,
    whole: u64,
    whole_lost: u64,
    datagrams: u64,
    datagrams_whole: u64,
}

impl World {
    /// Every honest host has a flow, so that a lost datagram is lost for its parts alone.
    fn open_flows(&mut self) {
        for number in 0..SENDERS {
            let packet =
                build(self.bench.buffer(), (host(number), VIP), Header::Udp, 8, |place| place.fill(0));
            if let Some((_, packet)) = self.bench.one(OUTSIDE, packet) {
                self.bench.recycle(packet);
            }
        }
    }

    /// One packet in one piece and one datagram in parts, each followed by its share of the flood.
    fn round(&mut self, round: u32) {
        let sender = round % SENDERS;
        self.send_whole(sender);
        self.datagrams += 1;
        // An identification comes again after 65,536 datagrams of its host.
        let identification = u16::try_from(round / SENDERS % 65_536).unwrap_or(0);
        let mut parts = parts(host(sender), identification);
        // Some ways have several links, and parts of a datagram overtake each other.
        if self.order.below(4) == 0 {
            parts.reverse();
        }
        for part in parts {
            let length = part.bytes().len();
            self.pass(length);
            self.bench.put(OUTSIDE, part);
            self.bench.run();
            self.collect(sender, identification);
            self.flood();
        }
        let is_whole = std::mem::take(&mut self.arrived) == DATAGRAM_BYTES + 8;
        self.datagrams_whole += u64::from(is_whole);
    }

    /// Lets the time pass that a packet takes on the link.
    fn pass(&mut self, length: usize) {
        self.honest_wire += wire(length);
        self.bench.now = self.bench.now.after(Duration::from_nanos(wire(length) * BYTE_NANOS));
    }

    fn send_whole(&mut self, sender: u32) {
        let ends = (host(sender), VIP);
        let packet = build(self.bench.buffer(), ends, Header::Udp, WHOLE_BYTES, |place| place.fill(0x57));
        let length = packet.bytes().len();
        self.pass(length);
        self.whole += 1;
        let out = self.bench.one(OUTSIDE, packet);
        let is_right = out.as_ref().is_some_and(|(interface, packet)| {
            *interface != OUTSIDE
                && crate::packet::view(packet.bytes())
                    .is_ok_and(|view| view.source == ends.0.any() && view.payload.len() == WHOLE_BYTES)
        });
        self.whole_lost += u64::from(!is_right);
        if let Some((_, packet)) = out {
            self.bench.recycle(packet);
        }
        self.flood();
    }

    /// Notes the parts of an honest datagram that have left for its server.
    fn collect(&mut self, sender: u32, identification: u16) {
        let mut server: Option<InterfaceId> = None;
        while let Some((interface, packet)) = self.bench.take() {
            let is_same = *server.get_or_insert(interface) == interface && interface != OUTSIDE;
            if is_same && is_part_of(&packet, sender, identification) {
                self.arrived += packet.bytes().len() - IPV4_BYTES;
            }
            self.bench.recycle(packet);
        }
        self.held_most = self.held_most.max(self.bench.engine.fragment_bytes_waiting() as u64);
    }

    /// The attacker sends until the link is shared evenly.
    fn flood(&mut self) {
        while self.flood_wire < self.honest_wire {
            let packet = self.forged();
            let length = packet.bytes().len();
            self.flood += 1;
            self.flood_bytes += length as u64;
            self.flood_wire += wire(length);
            self.bench.now = self.bench.now.after(Duration::from_nanos(wire(length) * BYTE_NANOS));
            self.bench.put(OUTSIDE, packet);
            self.bench.run();
            while let Some((_, packet)) = self.bench.take() {
                self.bench.recycle(packet);
            }
            self.held_most = self.held_most.max(self.bench.engine.fragment_bytes_waiting() as u64);
        }
    }

    /// A part of a datagram that nobody sends the rest of.
    fn forged(&mut self) -> Packet {
        let bits = self.random.bits().to_be_bytes();
        let [kind, high, low, offset, ..] = bits;
        let from = stranger(&mut self.random);
        let identification = u16::from_be_bytes([high, low]);
        let (offset, length, more) = match kind % 8 {
            0 | 1 => (u16::from(offset) * 8 + 8, 8, true),
            2..=5 => (u16::from(offset) * 8 + 1_480, PART_BYTES, true),
            6 => (0, 8 * (1 + usize::from(offset) % 8), true),
            // Few sources and identifications, so that they meet.
            _ => {
                let address = Ipv4Addr::new(33, 0, 0, 1 + high % 16);
                let bytes = vec![0x46; 16];
                let place = u16::from(offset % 8) * 8 + 8;
                return part(address, u16::from(low % 16), place, true, &bytes);
            }
        };
        part(from.address, identification, offset, more, &vec![0x46; length])
    }
}

/// An honest host: each has an address of its own.
fn host(number: u32) -> End {
    honest(number * 16)
}

/// Bytes that a packet takes on the wire.
fn wire(length: usize) -> u64 {
    (length as u64 + WIRE_EXTRA_BYTES).max(WIRE_LEAST_BYTES)
}

/// The parts of a datagram of `from` to the service, in order.
fn parts(from: End, identification: u16) -> Vec<Packet> {
    let whole = build(Packet::default(), (from, VIP), Header::Udp, DATAGRAM_BYTES, |place| place.fill(0x44));
    let body = whole.bytes().get(IPV4_BYTES..).unwrap_or_default();
    let mut parts = Vec::new();
    let count = body.chunks(PART_BYTES).len();
    for (number, bytes) in body.chunks(PART_BYTES).enumerate() {
        let offset = u16::try_from(number * PART_BYTES).unwrap_or(0);
        parts.push(part(from.address, identification, offset, number + 1 < count, bytes));
    }
    parts
}

/// One part of a datagram to the service, which begins at byte `offset` of it.
fn part(from: Ipv4Addr, identification: u16, offset: u16, more: bool, bytes: &[u8]) -> Packet {
    let from = End { address: from, port: 0 };
    let mut packet =
        build(Packet::default(), (from, VIP), Header::Udp, bytes.len().saturating_sub(8), |_| ());
    let flags = (u16::from(more) << 13) | (offset / 8);
    if let Some((header, body)) = packet.bytes_mut().split_first_chunk_mut::<IPV4_BYTES>() {
        [header[4], header[5]] = identification.to_be_bytes();
        [header[6], header[7]] = flags.to_be_bytes();
        (header[10], header[11]) = (0, 0);
        body.copy_from_slice(bytes);
    }
    crate::packet::mend_header(packet.bytes_mut());
    packet
}

/// Whether a packet is a sound part of this datagram of an honest host.
fn is_part_of(packet: &Packet, sender: u32, identification: u16) -> bool {
    let Some((header, _)) = packet.bytes().split_first_chunk::<IPV4_BYTES>() else { return false };
    let [_, _, _, _, i0, i1, _, _, _, _, _, _, s0, s1, s2, s3, ..] = *header;
    let from = End { address: Ipv4Addr::new(s0, s1, s2, s3), port: host(sender).port };
    adds_up(header) && u16::from_be_bytes([i0, i1]) == identification && from == host(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_parts_hurts_neither_whole_packets_nor_honest_parts() {
        let report = run(&Options { factor: 3, seed: 1 }, &mut || None).unwrap();
        assert!(report.is_as_expected(), "{}", report.to_text());
        assert!((495_000..505_000).contains(&report.flood_share), "{}", report.to_text());
        assert!(report.whole > 500 && report.datagrams == report.whole, "{}", report.to_text());
        for reason in ["fragments_full", "fragment_overlap"] {
            assert!(report.drops.contains_key(reason), "{}", report.to_text());
        }
        assert!(report.held_bytes_most > report.held_bytes_bound / 2, "{}", report.to_text());
        assert_eq!(run(&Options { factor: 3, seed: 1 }, &mut || None).unwrap(), report);
    }

    #[test]
    fn a_part_that_is_built_is_sound() {
        for (number, part) in parts(host(3), 77).iter().enumerate() {
            assert!(
                is_part_of(part, 3, 77) && !is_part_of(part, 3, 78) && !is_part_of(part, 4, 77),
                "{number}"
            );
        }
    }
}
