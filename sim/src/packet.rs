//! Packets as hosts build and read them: whole IP packets of both families with every checksum in place.
//!
//! Written apart from the engine's `wire`, so that what the engine does to a packet is judged by code that
//! does not share its mistakes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::{Deref, DerefMut, Range};

use evenkeel_engine::device::HEADROOM_BYTES;
use evenkeel_engine::wire::Protocol;

use crate::checksum::{adds_up as adds_up_plain, finish, sum};

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

/// What a packet is made of.
#[derive(Clone, Debug, Default)]
pub struct Body {
    /// The whole buffer.
    pub buffer: Vec<u8>,
    /// Where the packet lies in it.
    pub range: Range<usize>,
    /// What copies of one packet share while it travels, counted from 1; 0 for one that has not been sent yet.
    pub id: u64,
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
        packet.buffer.resize(HEADROOM_BYTES + bytes, 0);
        packet.range.end = packet.buffer.len();
        packet
    }

    /// A packet without bytes that has not been sent yet, with so much room in front.
    #[must_use]
    pub fn emptied(mut self, room: usize) -> Self {
        set_length(&mut self.buffer, room);
        self.range = room..room;
        self.id = 0;
        self
    }

    /// Adds bytes behind those that are there; nothing of the buffer may be left behind the packet.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        self.range.end = self.buffer.len();
    }

    /// The bytes of the packet.
    #[must_use]
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.buffer.get(self.range.clone()).unwrap_or(&[])
    }

    /// The bytes of the packet, to be changed.
    #[must_use]
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let body = &mut *self.0;
        body.buffer.get_mut(body.range.clone()).unwrap_or(&mut [])
    }
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

/// Builds a packet with `length` bytes of payload, which `fill` writes, in the place of `used`. Ends of different families can not
/// talk; the packet is then empty.
#[must_use]
pub fn build<A: Into<IpAddr>>(
    used: Packet,
    ends: (End<A>, End<A>),
    header: Header,
    length: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Packet {
    let (protocol, header_bytes) = match header {
        Header::Tcp(_) => (Protocol::TCP, TCP_BYTES),
        Header::Udp => (Protocol::UDP, UDP_BYTES),
    };
    let ports = (ends.0.port, ends.1.port);
    let (source, destination): (IpAddr, IpAddr) = (ends.0.address.into(), ends.1.address.into());
    let body_bytes = header_bytes + length;
    let ip_bytes = if source.is_ipv4() { IPV4_BYTES } else { IPV6_BYTES };
    // Every byte behind the headroom is written below.
    let mut packet = used.emptied(HEADROOM_BYTES + ip_bytes + body_bytes);
    packet.range.start = HEADROOM_BYTES;
    let Some((ip, body)) = packet.bytes_mut().split_at_mut_checked(ip_bytes) else {
        return Packet::default();
    };
    let addresses = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            ip.copy_from_slice(&ipv4_header(source, destination, protocol, IPV4_BYTES + body_bytes));
            u64::from(source.to_bits()) + u64::from(destination.to_bits())
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            ip.copy_from_slice(&ipv6_header(source, destination, protocol, body_bytes));
            sum(&source.octets()) + sum(&destination.octets())
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return Packet::default(),
    };
    let Some((transport, payload)) = body.split_at_mut_checked(header_bytes) else {
        return Packet::default();
    };
    fill(payload);
    match header {
        Header::Tcp(segment) => transport.copy_from_slice(&tcp_header(ports, segment)),
        Header::Udp => transport.copy_from_slice(&udp_header(ports, body_bytes)),
    }
    let sum = finish(addresses + u64::from(protocol.0) + wide(body_bytes) + sum(body));
    // A UDP checksum of zero would mean that there is none (RFC 768).
    let sum = if protocol == Protocol::UDP && sum == 0 { 0xffff } else { sum };
    let place = if protocol == Protocol::UDP { 6..8 } else { 16..18 };
    if let Some(place) = body.get_mut(place) {
        place.copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// Makes a buffer so long; what it held stays, since whoever asks writes over it.
fn set_length(buffer: &mut Vec<u8>, bytes: usize) {
    buffer.truncate(bytes);
    buffer.resize(bytes, 0);
}

/// The ICMP message "port unreachable" about the packet in `about` (RFC 792, RFC 1122 s.3.2.2.1; RFC 4443 s.3.1).
#[must_use]
pub fn port_unreachable(used: Packet, about: &[u8]) -> Option<Packet> {
    if about.first()? >> 4 == 6 {
        let (_, destination, ..) = ipv6(about).ok()?;
        return icmpv6_about(used, (1, 4), destination, about);
    }
    let (_, destination, ..) = ipv4(about).ok()?;
    icmp_about(used, (3, 3), destination, about)
}

/// The ICMP message of this type and code by `from` about the packet in `about`, of which the header and eight bytes
/// are quoted (RFC 792).
#[must_use]
pub fn icmp_about(used: Packet, kind: (u8, u8), from: Ipv4Addr, about: &[u8]) -> Option<Packet> {
    icmp_about_with(used, kind, 0, from, about)
}

/// The same with a number in its second word, such as the MTU of the next hop.
#[must_use]
pub fn icmp_about_with(
    used: Packet,
    kind: (u8, u8),
    word: u32,
    from: Ipv4Addr,
    about: &[u8],
) -> Option<Packet> {
    let (source, ..) = ipv4_of_any(about).ok()?;
    let header_bytes = usize::from(about.first()? & 15) * 4;
    let quoted = about.get(..header_bytes + 8)?;
    let mut message = vec![kind.0, kind.1, 0, 0];
    message.extend_from_slice(&word.to_be_bytes());
    message.extend_from_slice(quoted);
    let check = finish(sum(&message)).to_be_bytes();
    message.get_mut(2..4)?.copy_from_slice(&check);
    let header = ipv4_header(from, source, Protocol::ICMP, IPV4_BYTES + message.len());
    let mut packet = used.emptied(HEADROOM_BYTES);
    packet.extend(&header);
    packet.extend(&message);
    Some(packet)
}

/// The ICMPv6 message of this type and code by `from` about the packet in `about`, of which as much is quoted as fits
/// (RFC 4443 s.2.4).
#[must_use]
pub fn icmpv6_about(used: Packet, kind: (u8, u8), from: Ipv6Addr, about: &[u8]) -> Option<Packet> {
    icmpv6_about_with(used, kind, 0, from, about)
}

/// The same with a number in its second word, such as the MTU of the next hop.
#[must_use]
pub fn icmpv6_about_with(
    used: Packet,
    kind: (u8, u8),
    word: u32,
    from: Ipv6Addr,
    about: &[u8],
) -> Option<Packet> {
    let (source, ..) = ipv6(about).ok()?;
    let room = ICMPV6_ERROR_BYTES - IPV6_BYTES - 8;
    let mut message = vec![kind.0, kind.1, 0, 0];
    message.extend_from_slice(&word.to_be_bytes());
    message.extend_from_slice(about.get(..about.len().min(room))?);
    Some(icmpv6(used, (from, source), TTL, message))
}

/// An ICMPv6 packet of this message, whose checksum is filled in.
#[must_use]
pub fn icmpv6(used: Packet, (from, to): (Ipv6Addr, Ipv6Addr), hops: u8, mut message: Vec<u8>) -> Packet {
    let addresses = sum(&from.octets()) + sum(&to.octets());
    let check = finish(addresses + u64::from(Protocol::ICMPV6.0) + wide(message.len()) + sum(&message));
    if let Some(place) = message.get_mut(2..4) {
        place.copy_from_slice(&check.to_be_bytes());
    }
    let mut header = ipv6_header(from, to, Protocol::ICMPV6, message.len());
    header[7] = hops;
    let mut packet = used.emptied(HEADROOM_BYTES);
    packet.extend(&header);
    packet.extend(&message);
    packet
}

/// Computes the header checksum of the IPv4 packet in `bytes` anew, after an edit.
pub fn mend_header(bytes: &mut [u8]) {
    let header_bytes = bytes.first().map_or(0, |first| usize::from(first & 15) * 4);
    let Some(header) = bytes.get_mut(..header_bytes).filter(|header| header.len() >= IPV4_BYTES) else {
        return;
    };
    if let Some(place) = header.get_mut(10..12) {
        place.fill(0);
    }
    let check = finish(sum(header)).to_be_bytes();
    if let Some(place) = header.get_mut(10..12) {
        place.copy_from_slice(&check);
    }
}

/// Whether bytes with a checksum among them, such as an IPv4 header or an ICMP message, add up.
#[must_use]
pub fn adds_up(bytes: &[u8]) -> bool {
    finish(sum(bytes)) == 0
}

fn ipv4_header(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: Protocol,
    total: usize,
) -> [u8; IPV4_BYTES] {
    let total = u16::try_from(total).unwrap_or(u16::MAX);
    let ([l0, l1], [s0, s1, s2, s3], [d0, d1, d2, d3]) =
        (total.to_be_bytes(), source.octets(), destination.octets());
    // The words of the header, in its order, of which some are nothing.
    let life = u16::from_be_bytes([TTL, protocol.0]);
    let words = 0x4500 + u64::from(total) + 0x4000 + u64::from(life);
    let addresses = u64::from(source.to_bits()) + u64::from(destination.to_bits());
    let [c0, c1] = finish(words + addresses).to_be_bytes();
    [0x45, 0, l0, l1, 0, 0, 0x40, 0, TTL, protocol.0, c0, c1, s0, s1, s2, s3, d0, d1, d2, d3]
}

fn ipv6_header(source: Ipv6Addr, destination: Ipv6Addr, protocol: Protocol, body: usize) -> [u8; IPV6_BYTES] {
    let mut header = [0; IPV6_BYTES];
    let length = u16::try_from(body).unwrap_or(u16::MAX).to_be_bytes();
    let (fixed, addresses) = header.split_at_mut(8);
    let (from, to) = addresses.split_at_mut(16);
    fixed.copy_from_slice(&[0x60, 0, 0, 0, length[0], length[1], protocol.0, TTL]);
    from.copy_from_slice(&source.octets());
    to.copy_from_slice(&destination.octets());
    header
}

fn tcp_header((from, to): (u16, u16), segment: Segment) -> [u8; TCP_BYTES] {
    let ([p0, p1], [p2, p3]) = (from.to_be_bytes(), to.to_be_bytes());
    let ([s0, s1, s2, s3], [a0, a1, a2, a3]) =
        (segment.sequence.to_be_bytes(), segment.acknowledgement.to_be_bytes());
    let [w0, w1] = segment.window.to_be_bytes();
    [p0, p1, p2, p3, s0, s1, s2, s3, a0, a1, a2, a3, 0x50, segment.flags.0, w0, w1, 0, 0, 0, 0]
}

fn udp_header((from, to): (u16, u16), length: usize) -> [u8; UDP_BYTES] {
    let ([p0, p1], [p2, p3]) = (from.to_be_bytes(), to.to_be_bytes());
    let [l0, l1] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    [p0, p1, p2, p3, l0, l1, 0, 0]
}

/// Reads a packet as the host that it reached does, checksums included.
///
/// # Errors
/// When the host would throw it away.
#[inline]
pub fn view(bytes: &[u8]) -> Result<View<'_>, Unusable> {
    if bytes.first().is_some_and(|first| first >> 4 == 6) {
        return view_v6(bytes);
    }
    let (source, destination, protocol, body) = ipv4(bytes)?;
    let addresses = u64::from(source.to_bits()) + u64::from(destination.to_bits());
    view_transport((source.into(), destination.into()), addresses, protocol, body)
}

fn view_v6(bytes: &[u8]) -> Result<View<'_>, Unusable> {
    let (source, destination, protocol, body) = ipv6(bytes)?;
    let addresses = sum(&source.octets()) + sum(&destination.octets());
    view_transport((source.into(), destination.into()), addresses, protocol, body)
}

/// Reads what is behind an IP header. `addresses` is the sum of its addresses.
#[inline]
fn view_transport(
    (source, destination): (IpAddr, IpAddr),
    addresses: u64,
    protocol: Protocol,
    body: &[u8],
) -> Result<View<'_>, Unusable> {
    let start = addresses + u64::from(protocol.0);
    match protocol {
        Protocol::TCP => {
            let (from, to) = ports(body).ok_or(Unusable::Malformed)?;
            let (segment, payload) = tcp(body).ok_or(Unusable::Malformed)?;
            if !is_intact(start, body) {
                return Err(Unusable::Checksum);
            }
            let (source, destination) =
                (End { address: source, port: from }, End { address: destination, port: to });
            Ok(View { source, destination, transport: Transport::Tcp(segment), payload })
        }
        Protocol::UDP => {
            let ([p0, p1, p2, p3, l0, l1, c0, c1], _) =
                body.split_first_chunk::<UDP_BYTES>().ok_or(Unusable::Malformed)?;
            let length = usize::from(u16::from_be_bytes([*l0, *l1]));
            let datagram = body.get(..length).ok_or(Unusable::Malformed)?;
            let payload = datagram.get(UDP_BYTES..).ok_or(Unusable::Malformed)?;
            // Without a checksum, a datagram of IPv6 is refused (RFC 8200 s.8.1).
            let is_bare = (*c0, *c1) == (0, 0) && source.is_ipv4();
            if !is_bare && !is_intact(start, datagram) {
                return Err(Unusable::Checksum);
            }
            let source = End { address: source, port: u16::from_be_bytes([*p0, *p1]) };
            let destination = End { address: destination, port: u16::from_be_bytes([*p2, *p3]) };
            Ok(View { source, destination, transport: Transport::Udp, payload })
        }
        Protocol::ICMP => icmp_error(body),
        Protocol::ICMPV6 if !is_intact(start, body) => Err(Unusable::Checksum),
        Protocol::ICMPV6 => icmpv6_error(body),
        _ => Err(Unusable::Unspoken),
    }
}

/// Whether what a pseudo-header covers adds up; `start` is the sum of its addresses and protocol.
#[inline]
fn is_intact(start: u64, covered: &[u8]) -> bool {
    finish(start + wide(covered.len()) + sum(covered)) == 0
}

/// Checks the IPv6 header and gives addresses, protocol and what is behind it. Hosts here use no extension headers.
fn ipv6(bytes: &[u8]) -> Result<(Ipv6Addr, Ipv6Addr, Protocol, &[u8]), Unusable> {
    let (header, rest) = bytes.split_first_chunk::<IPV6_BYTES>().ok_or(Unusable::Malformed)?;
    let [first, _, _, _, l0, l1, protocol, _, addresses @ ..] = header;
    if first >> 4 != 6 {
        return Err(Unusable::Malformed);
    }
    let body = rest.get(..usize::from(u16::from_be_bytes([*l0, *l1]))).ok_or(Unusable::Malformed)?;
    let (source, destination) = addresses.split_at(16);
    let address =
        |bytes: &[u8]| <[u8; 16]>::try_from(bytes).map(Ipv6Addr::from).map_err(|_| Unusable::Malformed);
    Ok((address(source)?, address(destination)?, Protocol(*protocol), body))
}

/// Checks the IPv4 header and gives addresses, protocol and what is behind it. Fragments are not put together here.
#[inline]
fn ipv4(bytes: &[u8]) -> Result<(Ipv4Addr, Ipv4Addr, Protocol, &[u8]), Unusable> {
    let is_whole = |bytes: &[u8]| matches!(bytes.get(6..8), Some([high, 0]) if high & 0x3f == 0);
    let parts = ipv4_of_any(bytes)?;
    if is_whole(bytes) { Ok(parts) } else { Err(Unusable::Unspoken) }
}

/// The same of a packet that may be a fragment.
#[inline]
fn ipv4_of_any(bytes: &[u8]) -> Result<(Ipv4Addr, Ipv4Addr, Protocol, &[u8]), Unusable> {
    let header = bytes.first_chunk::<IPV4_BYTES>().ok_or(Unusable::Malformed)?;
    let [first, _, t0, t1, _, _, _, _, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = *header;
    let header_bytes = usize::from(first & 15) * 4;
    let total = usize::from(u16::from_be_bytes([t0, t1]));
    let whole = bytes.get(..total).ok_or(Unusable::Malformed)?;
    let (options, body) = whole.split_at_checked(header_bytes).ok_or(Unusable::Malformed)?;
    if first >> 4 != 4 || header_bytes < IPV4_BYTES {
        return Err(Unusable::Malformed);
    }
    let is_fine = if header_bytes == IPV4_BYTES { adds_up_plain(header) } else { adds_up(options) };
    if !is_fine {
        return Err(Unusable::Checksum);
    }
    Ok((Ipv4Addr::new(s0, s1, s2, s3), Ipv4Addr::new(d0, d1, d2, d3), Protocol(protocol), body))
}

#[inline]
fn ports(body: &[u8]) -> Option<(u16, u16)> {
    let [a, b, c, d] = *body.first_chunk::<4>()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

#[inline]
fn tcp(body: &[u8]) -> Option<(Segment, &[u8])> {
    let [_, _, _, _, s0, s1, s2, s3, a0, a1, a2, a3, offset, flags, w0, w1, ..] =
        *body.first_chunk::<TCP_BYTES>()?;
    let header_bytes = usize::from(offset >> 4) * 4;
    let payload = body.get(header_bytes..).filter(|_| header_bytes >= TCP_BYTES)?;
    let segment = Segment {
        sequence: u32::from_be_bytes([s0, s1, s2, s3]),
        acknowledgement: u32::from_be_bytes([a0, a1, a2, a3]),
        flags: Flags(flags),
        window: u16::from_be_bytes([w0, w1]),
    };
    Some((segment, payload))
}

/// An ICMP error that quotes one of our packets: destination unreachable or time exceeded.
fn icmp_error(body: &[u8]) -> Result<View<'_>, Unusable> {
    let ([kind, code, _, _, _, _, m0, m1], quoted) =
        body.split_first_chunk::<8>().ok_or(Unusable::Malformed)?;
    if finish(sum(body)) != 0 {
        return Err(Unusable::Checksum);
    }
    if !matches!(kind, 3 | 11) {
        return Err(Unusable::Unspoken);
    }
    let header = quoted.first_chunk::<IPV4_BYTES>().ok_or(Unusable::Malformed)?;
    let [first, _, _, _, _, _, _, _, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = *header;
    let rest = quoted.get(usize::from(first & 15) * 4..).ok_or(Unusable::Malformed)?;
    let (from, to) = ports(rest).ok_or(Unusable::Malformed)?;
    Ok(View {
        source: End { address: Ipv4Addr::new(s0, s1, s2, s3).into(), port: from },
        destination: End { address: Ipv4Addr::new(d0, d1, d2, d3).into(), port: to },
        transport: Transport::IcmpError {
            kind: (*kind, *code),
            protocol: Protocol(protocol),
            mtu: ((*kind, *code) == (3, 4)).then_some(u16::from_be_bytes([*m0, *m1]).into()),
        },
        payload: &[],
    })
}

/// An ICMPv6 error that quotes one of our packets: destination unreachable, packet too big or time exceeded.
fn icmpv6_error(body: &[u8]) -> Result<View<'_>, Unusable> {
    let ([kind, code, _, _, mtu @ ..], quoted) = body.split_first_chunk::<8>().ok_or(Unusable::Malformed)?;
    if !matches!(kind, 1..=3) {
        return Err(Unusable::Unspoken);
    }
    let (header, rest) = quoted.split_first_chunk::<IPV6_BYTES>().ok_or(Unusable::Malformed)?;
    let [_, _, _, _, _, _, protocol, _, addresses @ ..] = header;
    let (source, destination) = addresses.split_at(16);
    let address = |bytes: &[u8]| {
        let octets = <[u8; 16]>::try_from(bytes).map_err(|_| Unusable::Malformed)?;
        Ok(IpAddr::V6(octets.into()))
    };
    let (from, to) = ports(rest).ok_or(Unusable::Malformed)?;
    Ok(View {
        source: End { address: address(source)?, port: from },
        destination: End { address: address(destination)?, port: to },
        transport: Transport::IcmpError {
            kind: (*kind, *code),
            protocol: Protocol(*protocol),
            mtu: (*kind == 2).then_some(u32::from_be_bytes(*mtu)),
        },
        payload: &[],
    })
}

/// The destination address of an IP packet, without looking at anything else.
#[must_use]
pub fn destination(bytes: &[u8]) -> Option<IpAddr> {
    if bytes.first()? >> 4 == 6 {
        return bytes.get(24..40)?.try_into().ok().map(|octets: [u8; 16]| IpAddr::V6(octets.into()));
    }
    bytes.get(16..20)?.try_into().ok().map(|octets: [u8; 4]| IpAddr::V4(octets.into()))
}

/// Source address, protocol and source port of a TCP or UDP packet without IP options or extension headers.
#[must_use]
pub fn sender(bytes: &[u8]) -> Option<(IpAddr, Protocol, u16)> {
    if bytes.first()? >> 4 == 6 {
        let address: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
        let port = bytes.get(IPV6_BYTES..IPV6_BYTES + 2)?.try_into().ok()?;
        return Some((IpAddr::V6(address.into()), Protocol(*bytes.get(6)?), u16::from_be_bytes(port)));
    }
    let header = bytes.first_chunk::<24>()?;
    let [first, _, _, _, _, _, _, _, _, protocol, _, _, s0, s1, s2, s3, _, _, _, _, p0, p1, ..] = *header;
    (first == 0x45).then_some((
        IpAddr::V4(Ipv4Addr::new(s0, s1, s2, s3)),
        Protocol(protocol),
        u16::from_be_bytes([p0, p1]),
    ))
}

/// Takes one off the time to live, as a router does; `false` when none is left.
#[must_use]
pub fn take_hop(bytes: &mut [u8]) -> bool {
    let Some(header) = bytes.first_chunk_mut::<IPV4_BYTES>() else { return false };
    let [_, _, _, _, _, _, _, _, ttl, _, c0, c1, ..] = header;
    if *ttl <= 1 {
        return false;
    }
    *ttl -= 1;
    // RFC 1624: the complemented sum grows by what the field loses.
    let sum = u32::from(u16::from_be_bytes([*c0, *c1])) + 0x100;
    let folded = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap_or(u16::MAX);
    [*c0, *c1] = folded.to_be_bytes();
    true
}

/// A length as it counts in a pseudo-header.
#[inline]
fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

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
