//! Packets as hosts build and read them: whole IP packets of both families with every checksum in place.
//!
//! Written apart from the engine's `wire`, so that what the engine does to a packet is judged by code that
//! does not share its mistakes.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::{Deref, DerefMut, Range};

use evenkeel_engine::device::HEADROOM_BYTES;
use evenkeel_engine::wire::Protocol;

use crate::net::index;

mod build;
mod read;

pub(crate) use build::build_summed;
pub use build::{
    build, icmp_about, icmp_about_with, icmpv6, icmpv6_about, icmpv6_about_with, mend_header,
    port_unreachable,
};
pub use read::{adds_up, destination, sender, take_hop, view};
pub(crate) use read::{datagram, view_of};

/// Bytes of an IPv4 header without options.
pub const IPV4_BYTES: usize = 20;
/// Bytes of an IPv6 header.
pub const IPV6_BYTES: usize = 40;
/// Bytes of an Ethernet header without a VLAN tag.
pub const ETHERNET_BYTES: usize = 14;
/// The most bytes of an ICMPv6 error: what every link carries (RFC 4443 s.2.4).
const ICMPV6_ERROR_BYTES: usize = 1_280;
/// Bytes of a TCP header without options.
pub const TCP_BYTES: usize = 20;
/// Bytes of a UDP header.
pub const UDP_BYTES: usize = 8;
/// The largest IP packet on a simulated segment.
pub const MTU_BYTES: usize = 1_500;
/// Bytes of payload in a full TCP segment.
pub const SEGMENT_BYTES: u32 = 1_460;
/// The time to live that hosts send with.
pub const TTL: u8 = 64;

/// One packet in its buffer, with room in front. It changes hands some twenty times on its way through a world, so that it
/// is no larger than a pointer; one that has ended is used again for the next one, buffer and all.
#[derive(Clone, Debug, Default)]
pub struct Packet(Box<Body>);

/// Where nothing is known to be sound: no packet begins there.
const NOT_KNOWN: (u32, u32) = (u32::MAX, u32::MAX);

/// What a packet is made of: one line of the processor's cache.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub struct Body {
    /// The whole buffer.
    buffer: Vec<u8>,
    /// Where the packet lies in it: no buffer is so large that 32 bits are not enough.
    start: u32,
    end: u32,
    /// What copies of one packet share while it travels, counted from 1; 0 for one that has not been sent yet.
    pub id: u64,
    /// Where in the buffer an IP packet lies that is known to be [sound](Sound): nothing has been written since that was
    /// found.
    sound: (u32, u32),
    /// What its headers say.
    said: Sound,
}

/// What the headers of an IP packet say that is known to be sound: IPv4 without options and not in pieces, with TCP or UDP
/// behind it, whose lengths are right and whose checksums, of which UDP has one, add up. Who reads what has been found here
/// need not look at the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sound {
    /// The source first.
    addresses: u64,
    /// Ports, flags of TCP, protocol, and sixteen bits of nothing.
    rest: u64,
}

impl Sound {
    /// What headers with these addresses and ports say; each pair in the order of the wire.
    #[inline(always)]
    pub(crate) const fn new(addresses: u64, ports: u32, protocol: u8, flags: Flags) -> Self {
        Self { addresses, rest: (ports as u64) << 32 | (flags.0 as u64) << 24 | (protocol as u64) << 16 }
    }

    /// Source and destination address.
    #[inline(always)]
    pub(crate) const fn addresses(self) -> u64 {
        self.addresses
    }

    /// Ports, then nothing, then the protocol, then sixteen bits of nothing: with the addresses, all that tells flows apart.
    #[inline(always)]
    pub(crate) const fn ports_and_protocol(self) -> u64 {
        self.rest & 0xffff_ffff_00ff_0000
    }

    /// The protocol.
    #[inline(always)]
    pub(crate) const fn protocol(self) -> Protocol {
        Protocol((self.rest >> 16).to_le_bytes()[0])
    }

    /// The flags of TCP; of UDP, none.
    #[inline(always)]
    pub(crate) const fn flags(self) -> Flags {
        Flags((self.rest >> 24).to_le_bytes()[0])
    }

    /// Who sends.
    #[inline(always)]
    pub(crate) const fn source(self) -> End {
        let [_, _, _, _, a, b, c, d] = (self.addresses >> 32).to_be_bytes();
        let [.., high, low] = (self.rest >> 48).to_be_bytes();
        End { address: Ipv4Addr::new(a, b, c, d), port: u16::from_be_bytes([high, low]) }
    }

    /// To whom.
    #[inline(always)]
    pub(crate) const fn destination(self) -> End {
        let [_, _, _, _, a, b, c, d] = self.addresses.to_be_bytes();
        let [.., high, low] = (self.rest >> 32).to_be_bytes();
        End { address: Ipv4Addr::new(a, b, c, d), port: u16::from_be_bytes([high, low]) }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self { buffer: Vec::new(), start: 0, end: 0, id: 0, sound: NOT_KNOWN, said: Sound::default() }
    }
}

impl Deref for Packet {
    type Target = Body;

    #[inline]
    fn deref(&self) -> &Body {
        &self.0
    }
}

impl DerefMut for Packet {
    #[inline]
    fn deref_mut(&mut self) -> &mut Body {
        &mut self.0
    }
}

impl Packet {
    /// A packet of these bytes in the place of `used`, which is lost.
    #[must_use]
    pub fn copied_into(used: Self, bytes: &[u8]) -> Self {
        let mut packet = used.emptied(HEADROOM_BYTES);
        packet.extend(bytes);
        packet
    }

    /// A packet of so many bytes, to be written, in the place of `used`.
    #[must_use]
    pub fn of_length(used: Self, bytes: usize) -> Self {
        let mut packet = used.emptied(HEADROOM_BYTES);
        packet.buffer_mut().resize(HEADROOM_BYTES + bytes, 0);
        packet.end = short(packet.buffer.len());
        packet
    }

    /// A packet without bytes that has not been sent yet, with so much room in front.
    #[must_use]
    pub fn emptied(mut self, room: usize) -> Self {
        set_length(&mut self.buffer, room);
        (self.start, self.end) = (short(room), short(room));
        self.id = 0;
        self.sound = NOT_KNOWN;
        self
    }

    /// Adds bytes behind those that are there; nothing of the buffer may be left behind the packet.
    pub fn extend(&mut self, bytes: &[u8]) {
        let buffer = self.buffer_mut();
        buffer.extend_from_slice(bytes);
        self.end = short(self.buffer.len());
    }

    /// The bytes of the packet.
    #[must_use]
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.buffer.get(self.range()).unwrap_or_else(|| beyond())
    }

    /// Where it lies in its buffer.
    #[must_use]
    #[inline]
    pub fn range(&self) -> Range<usize> {
        index(self.start)..index(self.end)
    }

    /// How many bytes it has.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.range().len()
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    /// Lets it lie elsewhere in its buffer.
    #[inline]
    pub fn set_range(&mut self, range: Range<usize>) {
        (self.start, self.end) = (short(range.start), short(range.end));
    }

    /// Takes bytes off in front, as far as there are any.
    #[inline]
    pub fn take_front(&mut self, bytes: usize) {
        self.start = self.start.saturating_add(short(bytes)).min(self.end);
    }

    /// Takes bytes into it that lie before it in the buffer, as far as there are any.
    #[inline]
    pub fn grow_front(&mut self, bytes: usize) {
        self.start = self.start.saturating_sub(short(bytes));
    }

    /// Cuts off what is behind its first `bytes` bytes.
    #[inline]
    pub fn cut_to(&mut self, bytes: usize) {
        self.end = self.end.min(self.start.saturating_add(short(bytes)));
    }

    /// The bytes of the packet, to be changed.
    #[must_use]
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.sound = NOT_KNOWN;
        self.bytes_mut_soundly()
    }

    /// The same for whoever changes what no checksum covers, or changes that as well.
    #[inline]
    pub(crate) fn bytes_mut_soundly(&mut self) -> &mut [u8] {
        let body = &mut *self.0;
        body.buffer.get_mut(index(body.start)..index(body.end)).unwrap_or_else(|| beyond_mut())
    }

    /// The whole buffer, to be changed.
    #[must_use]
    #[inline]
    pub fn buffer_mut(&mut self) -> &mut Vec<u8> {
        self.sound = NOT_KNOWN;
        &mut self.buffer
    }

    /// The range and the whole buffer, to be changed.
    #[must_use]
    #[inline]
    pub(crate) fn parts_mut(&mut self) -> (Range<usize>, &mut Vec<u8>) {
        (self.range(), self.buffer_mut())
    }

    /// What the IP packet says that lies behind the first `skipped` bytes, where it has been found to be sound, or was
    /// built so, and nobody has written to it since.
    #[inline(always)]
    pub(crate) fn sound(&self, skipped: usize) -> Option<Sound> {
        (self.sound == (self.start.wrapping_add(short(skipped)), self.end)).then_some(self.said)
    }

    /// What lies behind the first `skipped` bytes has been found to be sound, and to say this.
    #[inline]
    pub(crate) fn note_sound(&mut self, skipped: usize, said: Sound) {
        self.sound = (self.start.wrapping_add(short(skipped)), self.end);
        self.said = said;
    }
}

/// What a range beyond the buffer holds.
#[cold]
const fn beyond<'a>() -> &'a [u8] {
    &[]
}

#[cold]
const fn beyond_mut<'a>() -> &'a mut [u8] {
    &mut []
}

/// One end of a packet's way: of IPv4, or with [`AnyEnd`] of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct End<A = Ipv4Addr> {
    /// The address.
    pub address: A,
    /// The port.
    pub port: u16,
}

/// One end of a packet's way, of either family.
pub type AnyEnd = End<IpAddr>;

impl<A: Into<IpAddr>> End<A> {
    /// The same end, where ends of both families are meant.
    #[must_use]
    #[inline(always)]
    pub fn into_any(self) -> AnyEnd {
        End { address: self.address.into(), port: self.port }
    }
}

impl AnyEnd {
    /// The same end, where it is one of IPv4.
    #[must_use]
    pub const fn v4(self) -> Option<End> {
        match self.address {
            IpAddr::V4(address) => Some(End { address, port: self.port }),
            IpAddr::V6(_) => None,
        }
    }
}

impl End {
    /// The same end, where ends of both families are meant.
    #[must_use]
    pub const fn any(self) -> AnyEnd {
        End { address: IpAddr::V4(self.address), port: self.port }
    }
}

/// Flags of a TCP segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Self = Self(1);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(2);
    /// Reset.
    pub const RST: Self = Self(4);
    /// Push.
    pub const PSH: Self = Self(8);
    /// The acknowledgement counts.
    pub const ACK: Self = Self(16);

    /// These and those.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The header of a TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The number of its first byte.
    pub sequence: u32,
    /// The next byte that the sender expects.
    pub acknowledgement: u32,
    /// The flags.
    pub flags: Flags,
    /// The sender's receive window, in bytes.
    pub window: u16,
}

/// What a packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A TCP segment.
    Tcp(Segment),
    /// A UDP datagram.
    Udp,
    /// An ICMP message of this type and code about a packet that this host has sent.
    IcmpError {
        /// Type and code.
        kind: (u8, u8),
        /// The protocol of the quoted packet.
        protocol: Protocol,
        /// The largest packet that gets further, where the message says that this one was too big.
        mtu: Option<u32>,
    },
}

/// A packet as a host reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View<'a> {
    /// Who sent it; for an ICMP error, who sent the quoted packet.
    pub source: AnyEnd,
    /// To whom; for an ICMP error, to whom the quoted packet went.
    pub destination: AnyEnd,
    /// The header.
    pub transport: Transport,
    /// What is behind the headers.
    pub payload: &'a [u8],
}

/// Why a host cannot use a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// Too short, or header fields that contradict each other.
    Malformed,
    /// A checksum is wrong.
    Checksum,
    /// A protocol or message that simulated hosts do not speak.
    Unspoken,
}

/// What a host wants to send.
#[derive(Clone, Copy, Debug)]
pub enum Header {
    /// A TCP segment.
    Tcp(Segment),
    /// A UDP datagram.
    Udp,
}

/// Makes a buffer so long; what it held stays, since whoever asks writes over it.
fn set_length(buffer: &mut Vec<u8>, bytes: usize) {
    buffer.truncate(bytes);
    buffer.resize(bytes, 0);
}

/// A place in a buffer as packets keep it.
#[inline]
fn short(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

/// A length as it counts in a pseudo-header.
#[inline]
fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX >> 16)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;
    use crate::checksum::{finish, sum};

    const A: End = End { address: Ipv4Addr::new(192, 0, 2, 1), port: 40_000 };
    const B: End = End { address: Ipv4Addr::new(10, 0, 0, 3), port: 80 };
    const SEGMENT: Segment = Segment { sequence: 1, acknowledgement: 2, flags: Flags::ACK, window: 3 };

    fn built(header: Header, length: usize) -> Packet {
        build(Packet::default(), (A, B), header, length, |payload| payload.fill(0x5a))
    }

    #[test]
    fn what_is_built_can_be_read() {
        for length in [0, 1, 2, 3, 100, 1460] {
            let packet = built(Header::Tcp(SEGMENT), length);
            let view = view(packet.bytes()).unwrap();
            assert_eq!((view.source, view.destination, view.payload.len()), (A.any(), B.any(), length));
            assert_eq!(view.transport, Transport::Tcp(SEGMENT));
            let packet = built(Header::Udp, length);
            assert_eq!(super::view(packet.bytes()).unwrap().payload, vec![0x5a; length]);
        }
    }

    #[test]
    fn a_sound_packet_is_read_like_any_other_and_one_that_was_touched_is_not_sound() {
        for header in [Header::Tcp(SEGMENT), Header::Udp] {
            for length in [0, 1, 64, 1_460] {
                let packet = built(header, length);
                assert!(packet.sound(0).is_some() && packet.sound(1).is_none());
                assert_eq!(view_of(&packet), view(packet.bytes()));
                let touches: [fn(&mut Packet); 4] = [
                    |packet| packet.cut_to(packet.len() - 1),
                    |packet| packet.take_front(1),
                    |packet| packet.bytes_mut()[15] ^= 1,
                    |packet| packet.buffer_mut()[HEADROOM_BYTES + 25] ^= 1,
                ];
                for touch in touches {
                    let mut other = packet.clone();
                    touch(&mut other);
                    assert_eq!(other.sound(0), None);
                    assert!(view_of(&other).is_err());
                }
                assert_eq!((packet.emptied(0).sound(0), Packet::default().sound(0)), (None, None));
            }
        }
        let (from, to) = (Ipv6Addr::from_bits(1), Ipv6Addr::from_bits(2));
        let ends = (End { address: from, port: 1 }, End { address: to, port: 2 });
        assert_eq!(build(Packet::default(), ends, Header::Udp, 8, |_| {}).sound(0), None);
    }

    #[test]
    fn a_known_header_has_the_known_checksum() {
        // The worked example of RFC 1071's method on the header in RFC 791's layout.
        let header: [u8; 20] =
            [0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7];
        assert_eq!(finish(sum(&header)), 0xb861);
    }

    #[test]
    fn ipv6_is_built_and_read_and_every_flipped_bit_noticed() {
        let end = |last, port| End { address: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last), port };
        let (from, to) = (end(1, 40_000), end(2, 80));
        for header in [Header::Udp, Header::Tcp(SEGMENT)] {
            let packet = build(Packet::default(), (from, to), header, 33, |payload| payload.fill(0x5a));
            let view = view(packet.bytes()).unwrap();
            assert_eq!((view.source.address, view.destination.port), (from.address.into(), 80));
            assert_eq!(destination(packet.bytes()), Some(to.address.into()));
            assert_eq!(sender(packet.bytes()).map(|sender| sender.2), Some(40_000));
            // What stands before the addresses is covered in part only: traffic class, flow label, hops.
            for bit in (32..56).chain(64..packet.bytes().len() * 8) {
                let mut bytes = packet.bytes().to_vec();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(super::view(&bytes).is_err(), "bit {bit}");
            }
        }
        let quoted = build(Packet::default(), (from, to), Header::Udp, 10, |_| {});
        let error = port_unreachable(Packet::default(), quoted.bytes()).unwrap();
        let view = view(error.bytes()).unwrap();
        assert_eq!((view.source.port, view.destination.address), (40_000, to.address.into()));
        assert_eq!(view.transport, Transport::IcmpError { kind: (1, 4), protocol: Protocol::UDP, mtu: None });
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        for header in [Header::Udp, Header::Tcp(SEGMENT)] {
            let packet = built(header, 33);
            for bit in 0..packet.bytes().len() * 8 {
                let mut bytes = packet.bytes().to_vec();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(view(&bytes).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn every_cut_packet_is_refused_without_panic() {
        let packet = built(Header::Tcp(SEGMENT), 33);
        for length in 0..packet.bytes().len() {
            assert!(view(&packet.bytes()[..length]).is_err());
        }
    }

    #[test]
    fn a_hop_leaves_the_header_intact() {
        let mut packet = built(Header::Udp, 10);
        for _ in 1..TTL {
            assert!(take_hop(packet.bytes_mut()));
            assert!(view(packet.bytes()).is_ok());
        }
        assert!(!take_hop(packet.bytes_mut()));
        assert_eq!(destination(packet.bytes()), Some(B.address.into()));
        assert_eq!(sender(packet.bytes()), Some((A.address.into(), Protocol::UDP, A.port)));
    }

    #[test]
    fn an_error_is_read_as_what_it_quotes() {
        let quoted = built(Header::Udp, 10);
        let error = port_unreachable(Packet::default(), quoted.bytes()).unwrap();
        let view = view(error.bytes()).unwrap();
        assert_eq!((view.source, view.destination), (A.any(), B.any()));
        assert_eq!(view.transport, Transport::IcmpError { kind: (3, 3), protocol: Protocol::UDP, mtu: None });
    }
}
