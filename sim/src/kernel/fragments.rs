//! Fragments: packets that are cut because a link takes no more (RFC 791, RFC 8200 s.4.5), and those that are put together
//! because they are for this machine or for its source NAT.

use std::collections::BTreeMap;

use evenkeel_engine::device::HEADROOM_BYTES;
use evenkeel_engine::wire::Protocol;
use evenkeel_engine::{Duration, Instant};
use slab::Slab;

use crate::packet::Packet;

use super::address::Ip;
use super::icmp::Refusal;
use super::ip::{self, Head, V4_BYTES, V6_BYTES};
use super::{Kernel, KernelDrop, Out, Timer};

/// How long the fragments of a packet are waited for (`ipfrag_time`).
const WAIT_V4: Duration = Duration::from_secs(30);
/// The same with IPv6 (RFC 8200 s.4.5).
const WAIT_V6: Duration = Duration::from_secs(60);
/// Packets of which some fragments are there. Linux counts memory, 4 MiB, which is as many of ordinary size.
const ASSEMBLIES_MAX: usize = 1_024;
/// Fragments of one packet: the largest packet, in pieces of an MTU of 576.
const PIECES_MAX: usize = 128;
/// Bytes of the fragment header of IPv6.
const FRAGMENT_BYTES: usize = 8;
/// The largest packet.
const PACKET_MAX: usize = 65_535;

type Key = (Ip, Ip, Protocol, u32);

/// The fragments of a packet that are there, by offset.
#[derive(Debug)]
struct Assembly {
    key: Key,
    pieces: BTreeMap<usize, Piece>,
    /// Bytes of what is behind the header, once the last fragment is there.
    total: Option<usize>,
    due: Instant,
}

#[derive(Debug)]
struct Piece {
    packet: Packet,
    /// Where its part begins.
    offset: usize,
}

impl Piece {
    fn part(&self) -> &[u8] {
        self.packet.bytes().get(self.offset..).unwrap_or(&[])
    }
}

/// Packets of which some fragments are there.
#[derive(Debug, Default)]
pub(super) struct Assemblies {
    all: Slab<Assembly>,
    places: BTreeMap<Key, usize>,
}

impl Kernel {
    /// A fragment has come in; gives the whole packet once all are there.
    pub(super) fn gather(
        &mut self,
        now: Instant,
        packet: Packet,
        head: &Head,
        out: &mut Out,
    ) -> Option<Packet> {
        let fragment = head.fragment?;
        let key = (head.source, head.destination, head.protocol, fragment.identification);
        let key = if head.is_v4() { key } else { (key.0, key.1, Protocol(0), key.3) };
        let place = match self.assemblies.places.get(&key) {
            Some(place) => *place,
            None => {
                if self.assemblies.all.len() >= ASSEMBLIES_MAX {
                    self.end(KernelDrop::FragmentRefused, packet, out);
                    return None;
                }
                let due = now.after(if head.is_v4() { WAIT_V4 } else { WAIT_V6 });
                let assembly = Assembly { key, pieces: BTreeMap::new(), total: None, due };
                let place = self.assemblies.all.insert(assembly);
                self.assemblies.places.insert(key, place);
                self.schedule(due, Timer::Assembly(place));
                place
            }
        };
        self.add_piece(place, packet, head, out)
    }

    fn add_piece(&mut self, place: usize, packet: Packet, head: &Head, out: &mut Out) -> Option<Packet> {
        let fragment = head.fragment?;
        let assembly = self.assemblies.all.get_mut(place)?;
        let (start, length) = (usize::from(fragment.offset), packet.len() - head.offset);
        let end = start + length;
        let same = assembly.pieces.get(&start).map(|piece| piece.part().len());
        if same == Some(length) {
            self.end(KernelDrop::FragmentRefused, packet, out);
            return None;
        }
        // An overlap ends all (RFC 5722); Linux does the same with IPv4.
        let before = assembly.pieces.range(..start).next_back();
        let after = assembly.pieces.range(start..).next();
        let overlaps = before.is_some_and(|(at, piece)| at + piece.part().len() > start)
            || after.is_some_and(|(at, _)| *at < end);
        let is_odd = length == 0
            || fragment.has_more && !length.is_multiple_of(8)
            || end > PACKET_MAX - head.offset
            || assembly.total.is_some_and(|total| end > total || !fragment.has_more && end != total)
            || assembly.pieces.len() >= PIECES_MAX
            || !fragment.has_more && after.is_some();
        if overlaps || is_odd {
            self.end(KernelDrop::FragmentRefused, packet, out);
            self.drop_assembly(place, KernelDrop::FragmentRefused, out);
            return None;
        }
        if !fragment.has_more {
            assembly.total = Some(end);
        }
        assembly.pieces.insert(start, Piece { packet, offset: head.offset });
        self.counts.waiting += 1;
        let have: usize = assembly.pieces.values().map(|piece| piece.part().len()).sum();
        if assembly.total == Some(have) { self.join(place, out) } else { None }
    }

    /// Puts a packet together of which everything is there.
    fn join(&mut self, place: usize, out: &mut Out) -> Option<Packet> {
        let assembly = self.assemblies.all.try_remove(place)?;
        self.assemblies.places.remove(&assembly.key);
        let count = u64::try_from(assembly.pieces.len()).unwrap_or(0);
        self.counts.waiting -= count;
        self.counts.consumed += count - 1;
        let id = assembly.pieces.values().next().map_or(0, |first| first.packet.id);
        let mut packet = out.buffer().emptied(HEADROOM_BYTES);
        packet.id = id;
        for (index, (_, piece)) in assembly.pieces.into_iter().enumerate() {
            let from = if index == 0 { 0 } else { piece.offset };
            packet.extend(piece.packet.bytes().get(from..).unwrap_or(&[]));
            out.recycle(piece.packet);
        }
        make_whole(&mut packet);
        Some(packet)
    }

    /// The other fragments of a packet have not come in time.
    pub(super) fn give_up_assembly(&mut self, now: Instant, place: usize, out: &mut Out) {
        let Some(assembly) = self.assemblies.all.get(place).filter(|assembly| assembly.due <= now) else {
            return;
        };
        // The sender is told only where the first one is there (RFC 792).
        let first = assembly.pieces.get(&0).map(|piece| piece.packet.clone());
        if let Some(first) = first {
            self.refuse(now, Refusal::ReassemblyTimeout, &first, out);
            out.recycle(first);
        }
        self.drop_assembly(place, KernelDrop::FragmentTimeout, out);
    }

    /// Nobody waits for fragments any more.
    pub(super) fn forget_assemblies(&mut self, out: &mut Out) {
        let places: Vec<usize> = self.assemblies.all.iter().map(|(place, _)| place).collect();
        for place in places {
            self.drop_assembly(place, KernelDrop::FragmentTimeout, out);
        }
    }

    fn drop_assembly(&mut self, place: usize, reason: KernelDrop, out: &mut Out) {
        let Some(assembly) = self.assemblies.all.try_remove(place) else { return };
        self.assemblies.places.remove(&assembly.key);
        for piece in assembly.pieces.into_values() {
            self.counts.waiting -= 1;
            self.end(reason, piece.packet, out);
        }
    }

    /// Cuts a packet into fragments that a link takes; none where that cannot be.
    pub(super) fn cut(&mut self, packet: &Packet, mtu: u16, out: &mut Out) -> Vec<Packet> {
        let is_v4 = packet.bytes().first().is_some_and(|first| first >> 4 == 4);
        let pieces = if is_v4 {
            cut_v4(packet, usize::from(mtu), out)
        } else {
            let identification = u32::from(self.next_identification());
            cut_v6(packet, usize::from(mtu), identification, out)
        };
        self.counts.split += u64::try_from(pieces.len().saturating_sub(1)).unwrap_or(0);
        pieces
    }
}

/// Makes the first fragment's header that of the whole packet.
fn make_whole(packet: &mut Packet) {
    let length = packet.len();
    let is_v4 = packet.bytes().first().is_some_and(|first| first >> 4 == 4);
    if is_v4 {
        let total = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
        if let [_, _, t0, t1, _, _, f0, f1, ..] = packet.bytes_mut() {
            ([*t0, *t1], [*f0, *f1]) = (total, [0, 0]);
        }
        ip::mend_header(packet.bytes_mut());
        return;
    }
    let Some((at, next)) = fragment_header(packet.bytes()) else { return };
    // The fragment header goes: what is in front of it moves back over it.
    if let Some(following) = packet.bytes().get(at).copied()
        && let Some(place) = packet.bytes_mut().get_mut(next)
    {
        *place = following;
    }
    packet.bytes_mut().copy_within(..at, FRAGMENT_BYTES);
    packet.take_front(FRAGMENT_BYTES);
    let behind = u16::try_from(length - FRAGMENT_BYTES - V6_BYTES).unwrap_or(u16::MAX).to_be_bytes();
    if let [_, _, _, _, l0, l1, ..] = packet.bytes_mut() {
        [*l0, *l1] = behind;
    }
}

/// Where the fragment header of an IPv6 packet is, and the field that names it.
fn fragment_header(bytes: &[u8]) -> Option<(usize, usize)> {
    let (mut at, mut field) = (V6_BYTES, 6);
    loop {
        let next = *bytes.get(field)?;
        match next {
            ip::FRAGMENT => return bytes.get(at..at + FRAGMENT_BYTES).map(|_| (at, field)),
            0 | 43 | 60 => {
                field = at;
                at += 8 + usize::from(*bytes.get(at + 1)?) * 8;
            }
            _ => return None,
        }
    }
}

/// The fragments of an IPv4 packet, which may be one itself.
fn cut_v4(packet: &Packet, mtu: usize, out: &mut Out) -> Vec<Packet> {
    let bytes = packet.bytes();
    let header_bytes = bytes.first().map_or(V4_BYTES, |first| usize::from(first & 15) * 4);
    let Some((header, body)) = bytes.split_at_checked(header_bytes) else { return Vec::new() };
    let room = mtu.saturating_sub(header_bytes) & !7;
    let [_, _, _, _, _, _, f0, f1, ..] = header else { return Vec::new() };
    if room == 0 {
        return Vec::new();
    }
    let field = u16::from_be_bytes([*f0, *f1]);
    let (first_offset, was_more) = (field & 0x1fff, field & 0x2000);
    let count = body.len().div_ceil(room);
    let mut pieces = Vec::with_capacity(count);
    for (index, part) in body.chunks(room).enumerate() {
        let mut piece = out.buffer().emptied(HEADROOM_BYTES);
        piece.id = packet.id;
        piece.extend(header);
        piece.extend(part);
        let total = u16::try_from(piece.len()).unwrap_or(u16::MAX).to_be_bytes();
        let offset = first_offset + u16::try_from(index * room / 8).unwrap_or(0);
        let more = if index + 1 < count { 0x2000 } else { was_more };
        if let [_, _, t0, t1, _, _, f0, f1, ..] = piece.bytes_mut() {
            ([*t0, *t1], [*f0, *f1]) = (total, (offset | more).to_be_bytes());
        }
        if index > 0 {
            blank_options(piece.bytes_mut(), header_bytes);
        }
        ip::mend_header(piece.bytes_mut());
        pieces.push(piece);
    }
    pieces
}

/// Options that are not copied into every fragment become "no operation" (RFC 791 s.3.1).
fn blank_options(bytes: &mut [u8], header_bytes: usize) {
    let Some(options) = bytes.get_mut(V4_BYTES..header_bytes) else { return };
    let mut at = 0;
    while let Some(kind) = options.get(at).copied() {
        let length = match kind {
            0 => break,
            1 => 1,
            _ => options.get(at + 1).map_or(1, |length| usize::from(*length).max(2)),
        };
        if kind & 0x80 == 0
            && let Some(option) = options.get_mut(at..at + length)
        {
            option.fill(1);
        }
        at += length;
    }
}

/// The fragments of an IPv6 packet of this machine.
fn cut_v6(packet: &Packet, mtu: usize, identification: u32, out: &mut Out) -> Vec<Packet> {
    let Some((header, body)) = packet.bytes().split_first_chunk::<V6_BYTES>() else { return Vec::new() };
    let room = mtu.saturating_sub(V6_BYTES + FRAGMENT_BYTES) & !7;
    let [_, _, _, _, _, _, next, ..] = header;
    if room == 0 || *next == ip::FRAGMENT {
        return Vec::new();
    }
    let count = body.len().div_ceil(room);
    let mut pieces = Vec::with_capacity(count);
    for (index, part) in body.chunks(room).enumerate() {
        let mut piece = out.buffer().emptied(HEADROOM_BYTES);
        piece.id = packet.id;
        piece.extend(header);
        let more = u16::from(index + 1 < count);
        let field = u16::try_from(index * room).unwrap_or(0) | more;
        piece.extend(&[*next, 0]);
        piece.extend(&field.to_be_bytes());
        piece.extend(&identification.to_be_bytes());
        piece.extend(part);
        let behind = u16::try_from(FRAGMENT_BYTES + part.len()).unwrap_or(u16::MAX).to_be_bytes();
        if let [_, _, _, _, l0, l1, next, ..] = piece.bytes_mut() {
            ([*l0, *l1], *next) = (behind, ip::FRAGMENT);
        }
        pieces.push(piece);
    }
    pieces
}
