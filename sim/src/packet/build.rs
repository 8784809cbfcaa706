//! Packets as hosts write them: whole, with every checksum in place.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use evenkeel_engine::device::HEADROOM_BYTES;
use evenkeel_engine::wire::Protocol;

use super::read::{ipv4, ipv4_of_any, ipv6};
use super::{
    End, Flags, Header, ICMPV6_ERROR_BYTES, IPV4_BYTES, IPV6_BYTES, Packet, Segment, Sound, TCP_BYTES, TTL,
    UDP_BYTES, wide,
};
use crate::checksum::{finish, sum};

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
    build_summed(used, ends, header, length, |payload| {
        fill(payload);
        sum(payload)
    })
}

/// The same, where `fill` gives the [sum] of what it has written.
#[inline(always)]
pub(crate) fn build_summed<A: Into<IpAddr>>(
    used: Packet,
    ends: (End<A>, End<A>),
    header: Header,
    length: usize,
    fill: impl FnOnce(&mut [u8]) -> u64,
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
    packet.grow_front(ip_bytes + body_bytes);
    let bytes = packet.bytes_mut_soundly();
    let (body, addresses) = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let Some((ip, body)) = bytes.split_first_chunk_mut() else { return Packet::default() };
            *ip = ipv4_header(source, destination, protocol, IPV4_BYTES + body_bytes);
            (body, u64::from(source.to_bits()) + u64::from(destination.to_bits()))
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let Some((ip, body)) = bytes.split_first_chunk_mut() else { return Packet::default() };
            *ip = ipv6_header(source, destination, protocol, body_bytes);
            (body, sum(&source.octets()) + sum(&destination.octets()))
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return Packet::default(),
    };
    let mut flags = Flags::default();
    let covered = addresses + u64::from(protocol.0) + wide(body_bytes);
    match header {
        Header::Tcp(segment) => {
            flags = segment.flags;
            let Some((transport, payload)) = body.split_first_chunk_mut() else { return Packet::default() };
            *transport = tcp_header(ports, segment, covered + fill(payload));
        }
        Header::Udp => {
            let Some((transport, payload)) = body.split_first_chunk_mut() else { return Packet::default() };
            *transport = udp_header(ports, body_bytes, covered + fill(payload));
        }
    }
    if let (IpAddr::V4(source), IpAddr::V4(destination)) = (source, destination) {
        let addresses = u64::from(source.to_bits()) << 32 | u64::from(destination.to_bits());
        let ports = u32::from(ports.0) << 16 | u32::from(ports.1);
        packet.note_sound(0, Sound::new(addresses, ports, protocol.0, flags));
    }
    packet
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

/// `covered` is the sum of everything else that its checksum covers.
fn tcp_header((from, to): (u16, u16), segment: Segment, covered: u64) -> [u8; TCP_BYTES] {
    let ([p0, p1], [p2, p3]) = (from.to_be_bytes(), to.to_be_bytes());
    let ([s0, s1, s2, s3], [a0, a1, a2, a3]) =
        (segment.sequence.to_be_bytes(), segment.acknowledgement.to_be_bytes());
    let [w0, w1] = segment.window.to_be_bytes();
    let flags = u16::from_be_bytes([0x50, segment.flags.0]);
    let numbers = u64::from(segment.sequence) + u64::from(segment.acknowledgement);
    let words = u64::from(from) + u64::from(to) + u64::from(flags) + u64::from(segment.window);
    let [c0, c1] = finish(covered + numbers + words).to_be_bytes();
    [p0, p1, p2, p3, s0, s1, s2, s3, a0, a1, a2, a3, 0x50, segment.flags.0, w0, w1, c0, c1, 0, 0]
}

/// `covered` is the sum of everything else that its checksum covers.
#[inline]
fn udp_header((from, to): (u16, u16), length: usize, covered: u64) -> [u8; UDP_BYTES] {
    let ([p0, p1], [p2, p3]) = (from.to_be_bytes(), to.to_be_bytes());
    let length = u16::try_from(length).unwrap_or(u16::MAX);
    let sum = finish(covered + u64::from(from) + u64::from(to) + u64::from(length));
    // A checksum of zero would mean that there is none (RFC 768).
    let sum = if sum == 0 { 0xffff } else { sum };
    let ([l0, l1], [c0, c1]) = (length.to_be_bytes(), sum.to_be_bytes());
    [p0, p1, p2, p3, l0, l1, c0, c1]
}
