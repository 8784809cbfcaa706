//! What is sent: packets of both families between a handful of hosts and ports, whole or in pieces, some of them
//! broken.

use std::net::IpAddr;

use evenkeel_engine::device::{HEADROOM_BYTES, Offload};
use evenkeel_engine::forward::tunnel::{self, Encapsulation, Outer};
use evenkeel_engine::wire::checksum;
use evenkeel_engine::wire::ndp;

use super::Input;
use super::audit::adds_up;
use super::device::Once;
use super::world::{self, PORT, TUN};

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const FRAGMENT: u8 = 44;

/// Turns a program into packets.
pub(crate) struct Maker<'a> {
    pub(crate) input: Input<'a>,
    /// Names each packet, so that the pieces of two are never taken for those of one.
    count: u16,
}

/// A packet as it will be built.
struct Draft {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    /// Extension headers of IPv6 by their numbers, or options of IPv4: each is 8 bytes.
    extensions: Vec<u8>,
    hops: u8,
    may_be_cut: bool,
    body: Vec<u8>,
}

impl<'a> Maker<'a> {
    pub(crate) const fn new(input: Input<'a>) -> Self {
        Self { input, count: 0 }
    }

    /// Gives the next packet, or the pieces of one, to `device`. Returns whether there was room.
    pub(crate) fn make(&mut self, device: &mut Once) -> bool {
        let kind = self.input.byte();
        let way = self.input.byte();
        let interface = match way % 8 {
            0..=4 => TUN,
            5 | 6 => TUN + 1,
            _ => TUN + 2,
        };
        if kind.is_multiple_of(16) {
            let length = usize::from(self.input.byte());
            let packet = self.input.take(length);
            return device.push(interface, self.framed(interface, way, packet), Offload::default(), false);
        }
        if interface != TUN && kind % 16 == 1 {
            let frame = self.neighbour(interface);
            return device.push(interface, frame, Offload::default(), true);
        }
        let draft = self.draft(kind);
        self.count = self.count.wrapping_add(1);
        let mut packet = draft.build(self.count);
        if kind & 0x30 == 0x30 {
            return self.pieces(device, interface, way, &packet);
        }
        let mut offload = Offload::default();
        if kind >> 6 == 1 && interface == TUN {
            offload = offloaded(&mut packet, &draft, self.input.byte());
        }
        let mut is_sound = offload == Offload::default();
        if kind >> 6 == 3 {
            self.damage(&mut packet);
            is_sound = adds_up(&packet) == Some(true);
        }
        let frame = self.framed(interface, way, packet);
        device.push(interface, frame, offload, is_sound)
    }

    /// Changes up to four bytes, and mends the header of IPv4 sometimes.
    fn damage(&mut self, packet: &mut [u8]) {
        let how = self.input.byte();
        for _ in 0..1 + how % 4 {
            let at = usize::from(self.input.byte()) % packet.len().max(1);
            let change = self.input.byte();
            if let Some(byte) = packet.get_mut(at) {
                *byte ^= change;
            }
        }
        if how & 0x80 != 0 {
            mend_header(packet);
        }
    }

    /// A link header in front of what Ethernet carries.
    fn framed(&mut self, interface: u16, way: u8, packet: Vec<u8>) -> Vec<u8> {
        if interface == TUN {
            return packet;
        }
        let number = u8::try_from(interface).unwrap_or(1);
        let to = match way >> 3 {
            0 => [0xff; 6],
            1 => [2, 0, 0, 0, 0, 77],
            2 => [0x33, 0x33, 0, 0, 0, 1],
            _ => world::mac(number).0,
        };
        let is_v6 = packet.first().is_some_and(|first| first >> 4 == 6);
        let kind: [u8; 2] = match way >> 3 {
            3 => [8, self.input.byte()],
            _ if is_v6 => [0x86, 0xdd],
            _ => [8, 0],
        };
        [&to[..], &[2, 0, 0, 0, 0, 9], &kind, &packet].concat()
    }

    /// A question for a neighbour, or the answer to one, from a neighbour that is near.
    fn neighbour(&mut self, interface: u16) -> Vec<u8> {
        let kind = self.input.byte();
        let target = self.input.byte();
        let is_v6 = kind & 1 == 1;
        let near = world::real(is_v6, target % 4);
        let asked = match target >> 4 {
            0 => world::own(is_v6),
            n => world::vip(is_v6, n % 7),
        };
        let own = world::mac(u8::try_from(interface).unwrap_or(1));
        let sender = world::mac(0x20 + target % 4);
        let is_question = kind & 2 == 2;
        let message: Vec<u8> = match (near, asked) {
            (IpAddr::V6(near), IpAddr::V6(asked)) if is_question => {
                ndp::solicitation(sender, near.octets(), asked.octets()).to_vec()
            }
            (IpAddr::V6(near), _) => match world::own(true) {
                IpAddr::V6(to) => ndp::advertisement(sender, near.octets(), to.octets()).to_vec(),
                IpAddr::V4(_) => Vec::new(),
            },
            (IpAddr::V4(near), asked) => {
                let asked = if let IpAddr::V4(asked) = asked { asked.octets() } else { [0; 4] };
                let operation = if is_question { 1 } else { 2 };
                let head = [0, 1, 8, 0, 6, 4, 0, operation];
                [&head[..], &sender.0, &near.octets(), &own.0, &asked].concat()
            }
        };
        let to = if kind & 4 == 4 { [0xff; 6] } else { own.0 };
        let to = if is_v6 && kind & 4 == 4 { [0x33, 0x33, 0xff, 0, 0, 1] } else { to };
        let ethertype: [u8; 2] = if is_v6 { [0x86, 0xdd] } else { [8, 6] };
        [&to[..], &sender.0, &ethertype, &message].concat()
    }

    /// TCP, UDP or ICMP between a client and a VIP, or a real server and whom it knows.
    fn draft(&mut self, kind: u8) -> Draft {
        let (what, ports, flags) = (self.input.byte(), self.input.byte(), self.input.byte());
        let is_v6 = what & 1 == 1;
        let is_reply = what & 2 == 2;
        let director = what >> 2 & 7;
        let client = world::client(is_v6, ports & 3);
        let port = 1000 + u16::from(ports >> 2 & 15);
        let (source, destination, from, to) = if is_reply {
            let known = if ports & 0x40 == 0 { client } else { world::own(is_v6) };
            (world::real(is_v6, what >> 5), known, PORT, port)
        } else {
            (client, world::vip(is_v6, director), port, PORT)
        };
        let size = usize::from(self.input.byte()) * (1 + usize::from(flags & 0x80 != 0) * 6);
        let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
        let icmp = if is_v6 { ICMPV6 } else { ICMP };
        let (protocol, mut body) = match kind >> 1 & 7 {
            0..=2 => (TCP, tcp(&ports, flags)),
            3 | 4 => (UDP, [&ports[..], &[0, 0, 0, 0]].concat()),
            5 => (icmp, vec![echo(is_v6, is_reply), 0, 0, 0, 0, ports.first().copied().unwrap_or(0), 0, 7]),
            _ => (icmp, self.error(is_v6, flags, (source, destination), &ports)),
        };
        if protocol != icmp || kind >> 1 & 7 == 5 {
            body.resize(body.len() + size, kind);
        }
        if let (UDP, Some(place)) = (protocol, body.get(..8)) {
            let length = u16::try_from(body.len()).unwrap_or(0).to_be_bytes();
            let mut header = place.to_vec();
            header.splice(4..6, length);
            body.splice(..8, header);
        }
        let (source, destination) = match kind >> 1 & 7 {
            // Whoever is on the way may tell of an error.
            6 | 7 if flags & 4 == 4 => (world::host(is_v6, 4, 99), destination),
            _ => (source, destination),
        };
        let is_extended = self.input.byte();
        let extensions = if is_extended < 200 { Vec::new() } else { self.extensions(is_v6) };
        let hops = if is_extended.is_multiple_of(32) { self.input.byte() } else { 64 };
        let mut draft =
            Draft { source, destination, protocol, extensions, hops, may_be_cut: flags & 8 == 8, body };
        draft.fill_checksum();
        // IPv4 allows datagrams without a checksum.
        if protocol == UDP && !is_v6 && flags & 0x60 == 0x60 {
            put(&mut draft.body, 6, 0);
        }
        draft
    }

    /// An error about a packet between these two, seen from either side; or about one of our own tunnel packets.
    fn error(&mut self, is_v6: bool, flags: u8, about: (IpAddr, IpAddr), ports: &[u8]) -> Vec<u8> {
        let (source, destination) = (about.1, about.0);
        let reversed: Vec<u8> = ports.iter().skip(2).chain(ports.iter().take(2)).copied().collect();
        let protocol = if flags & 1 == 1 { TCP } else { UDP };
        let body = [&reversed[..], &[0, 24, 0, 0, 0, 0, 0, 0, 0x50, 2, 1, 0, 0, 0, 0, 0]].concat();
        let mut quoted =
            Draft { source, destination, protocol, extensions: Vec::new(), hops: 9, may_be_cut: false, body };
        if flags & 2 == 2 {
            // What the client sent, inside of what we made of it.
            (quoted.source, quoted.destination) = (destination, source);
            quoted.body.splice(..4, ports.iter().copied());
        }
        quoted.fill_checksum();
        let mut quote = quoted.build(7);
        if flags & 2 == 2 {
            quote = wrapped(is_v6, &quote).unwrap_or(quote);
        }
        let (kind, code) = match (is_v6, flags >> 3 & 3) {
            (true, 0) => (2, 0),
            (true, 1) => (3, 0),
            (true, _) => (1, 4),
            (false, 0) => (3, 4),
            (false, 1) => (11, 0),
            (false, _) => (3, 3),
        };
        let mtu = [0, 0, self.input.byte() & 7, 0xdc];
        [&[kind, code, 0, 0][..], &mtu, &quote].concat()
    }

    /// Up to three extension headers, or options.
    fn extensions(&mut self, is_v6: bool) -> Vec<u8> {
        let kinds = self.input.byte();
        let one = |bits: u8| match bits & 3 {
            0 => None,
            1 => Some(if is_v6 { 60 } else { 1 }),
            2 => Some(if is_v6 { 0 } else { 7 }),
            _ => Some(if is_v6 { 43 } else { 131 }),
        };
        [one(kinds), one(kinds >> 2), one(kinds >> 4)].into_iter().flatten().collect()
    }

    /// The pieces of `packet`: in order or not, all or not, apart or overlapping.
    fn pieces(&mut self, device: &mut Once, interface: u16, way: u8, packet: &[u8]) -> bool {
        let (size, order) = (8 * (1 + usize::from(self.input.byte() % 64)), self.input.byte());
        // Nearly always each piece is where it belongs.
        let shift = if order < 240 { 0 } else { 8 };
        let mut pieces = cut(packet, size, shift, self.count);
        if order & 1 == 1 {
            pieces.reverse();
        }
        let count = pieces.len().max(1);
        pieces.rotate_left(usize::from(order >> 1 & 3) % count);
        if order & 0x18 == 0x18 {
            pieces.pop();
        }
        let is_sound = shift == 0 && adds_up(packet) != Some(false);
        for piece in pieces {
            let frame = self.framed(interface, way, piece);
            if !device.push(interface, frame, Offload::default(), is_sound) {
                return false;
            }
        }
        true
    }
}

impl Draft {
    /// The whole packet, with the name `identification`.
    fn build(&self, identification: u16) -> Vec<u8> {
        let [high, low] = identification.to_be_bytes();
        let extensions = self.extension_bytes();
        let mut head = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let words = u8::try_from(5 + extensions.len() / 4).unwrap_or(5);
                let length = u16::try_from(20 + extensions.len() + self.body.len()).unwrap_or(0);
                let [more, less] = length.to_be_bytes();
                let bits = if self.may_be_cut { 0 } else { 0x40 };
                let fixed = [0x40 | words, 0, more, less, high, low, bits, 0, self.hops, self.protocol, 0, 0];
                [&fixed[..], &source.octets(), &destination.octets()].concat()
            }
            (source, destination) => {
                let length = u16::try_from(extensions.len() + self.body.len()).unwrap_or(0);
                let [more, less] = length.to_be_bytes();
                let next = self.extensions.first().copied().unwrap_or(self.protocol);
                let fixed = [0x60, 0, 0, 0, more, less, next, self.hops];
                [&fixed[..], &octets(source), &octets(destination)].concat()
            }
        };
        head.extend_from_slice(&extensions);
        mend_header(&mut head);
        head.extend_from_slice(&self.body);
        head
    }

    fn extension_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (place, kind) in self.extensions.iter().enumerate() {
            if self.source.is_ipv4() {
                bytes.extend(if *kind == 1 { [1; 8] } else { [*kind, 7, 8, 0, 0, 0, 0, 0] });
            } else {
                let next = self.extensions.get(place + 1).copied().unwrap_or(self.protocol);
                // Six bytes of padding; for a routing header, one without segments left.
                bytes.extend([next, 0, 1, if *kind == 43 { 0 } else { 4 }, 0, 0, 0, 0]);
            }
        }
        bytes
    }

    fn fill_checksum(&mut self) {
        let at = match self.protocol {
            TCP => 16,
            UDP => 6,
            _ => 2,
        };
        put(&mut self.body, at, 0);
        let start = pseudo_sum(self.source, self.destination, self.protocol, self.body.len());
        let sum = checksum::checksum(start, &self.body);
        put(&mut self.body, at, if self.protocol == UDP && sum == 0 { 0xffff } else { sum });
    }
}

/// The sum of the pseudo header; nothing for ICMP of IPv4.
pub(crate) fn pseudo_sum(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> u16 {
    match (source, destination) {
        (IpAddr::V4(_), IpAddr::V4(_)) if protocol == ICMP => 0,
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let length = u16::try_from(length).unwrap_or(0);
            checksum::pseudo_header_v4(source.octets(), destination.octets(), protocol, length)
        }
        (source, destination) => {
            let length = u32::try_from(length).unwrap_or(0);
            checksum::pseudo_header_v6(octets(source), octets(destination), protocol, length)
        }
    }
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// A TCP header with these flags; a SYN says how large its segments may be.
fn tcp(ports: &[u8], flags: u8) -> Vec<u8> {
    let flags = flags & 0x17;
    let options: &[u8] = if flags & 2 == 2 { &[2, 4, 5, 0xb4, 1, 1, 1, 0] } else { &[] };
    let offset = if options.is_empty() { 0x50 } else { 0x70 };
    [ports, &[0, 0, 0, 1, 0, 0, 0, 2, offset, flags, 1, 0, 0, 0, 0, 0], options].concat()
}

const fn echo(is_v6: bool, is_reply: bool) -> u8 {
    match (is_v6, is_reply) {
        (false, false) => 8,
        (false, true) => 0,
        (true, false) => 128,
        (true, true) => 129,
    }
}

/// What is left of a packet's checksum for the way out, and whether it is to be cut into segments.
fn offloaded(packet: &mut [u8], draft: &Draft, how: u8) -> Offload {
    let at = match draft.protocol {
        TCP => 16,
        UDP => 6,
        _ => return Offload::default(),
    };
    let start = packet.len() - draft.body.len();
    let sum = pseudo_sum(draft.source, draft.destination, draft.protocol, draft.body.len());
    put(packet, start + at, sum);
    let is_super = draft.protocol == TCP && how & 1 == 1;
    Offload { needs_checksum: true, segment_bytes: is_super.then_some(200) }
}

/// `packet` inside of one from us to a real server.
fn wrapped(is_v6: bool, packet: &[u8]) -> Option<Vec<u8>> {
    let room = HEADROOM_BYTES;
    let mut bytes = [&vec![0; room][..], packet].concat();
    let outer = Outer {
        source: world::own(is_v6).into(),
        destination: world::real(is_v6, 0).into(),
        flow_hash: 1,
        ttl: None,
    };
    let range = room..bytes.len();
    let range = tunnel::encapsulate(&mut bytes, range, Encapsulation::IpIp, &outer).ok()?;
    bytes.get(range).map(<[u8]>::to_vec)
}

/// `packet` in pieces with `size` bytes of its payload each; all but the first lie `shift` bytes too early.
fn cut(packet: &[u8], size: usize, shift: usize, identification: u16) -> Vec<Vec<u8>> {
    let is_v6 = packet.first().is_some_and(|first| first >> 4 == 6);
    let length = packet.first().map_or(0, |first| usize::from(first & 15) * 4);
    // Hop by hop options stand before the fragment header.
    let length = match (is_v6, packet.get(6)) {
        (true, Some(0)) => 48,
        (true, _) => 40,
        (false, _) => length,
    };
    let Some((head, payload)) = packet.split_at_checked(length) else { return vec![packet.to_vec()] };
    let count = payload.len().div_ceil(size);
    let piece = |(place, bytes): (usize, &[u8])| {
        let offset = (place * size).saturating_sub(if place == 0 { 0 } else { shift });
        let offset = u16::try_from(offset).unwrap_or(0);
        let is_last = place + 1 == count;
        let mut piece = head.to_vec();
        if is_v6 {
            let at = if length == 48 { 40 } else { 6 };
            let next = piece.get(at).copied().unwrap_or(0);
            if let Some(byte) = piece.get_mut(at) {
                *byte = FRAGMENT;
            }
            let [high, low] = (offset | u16::from(!is_last)).to_be_bytes();
            let [first, second] = identification.to_be_bytes();
            piece.extend([next, 0, high, low, 0, 1, first, second]);
            piece.extend_from_slice(bytes);
            let total = u16::try_from(piece.len() - 40).unwrap_or(0);
            put(&mut piece, 4, total);
        } else {
            let bits = (offset / 8) | if is_last { 0 } else { 0x2000 };
            put(&mut piece, 6, bits);
            put(&mut piece, 2, u16::try_from(head.len() + bytes.len()).unwrap_or(0));
            mend_header(&mut piece);
            piece.extend_from_slice(bytes);
        }
        piece
    };
    payload.chunks(size).enumerate().map(piece).collect()
}

/// Makes the header of IPv4 add up.
fn mend_header(packet: &mut [u8]) {
    let first = packet.first().copied().unwrap_or(0);
    if first >> 4 != 4 {
        return;
    }
    put(packet, 10, 0);
    let sum = packet.get(..usize::from(first & 15) * 4).map_or(0, |header| checksum::checksum(0, header));
    put(packet, 10, sum);
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}
