//! Packets as hosts read them: addresses, lengths and checksums are looked at, and what can not be used is told apart.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use evenkeel_engine::wire::Protocol;

use super::{
    End, Flags, IPV4_BYTES, IPV6_BYTES, Packet, Segment, TCP_BYTES, Transport, UDP_BYTES, Unusable, View,
    wide,
};
use crate::checksum::{adds_up as adds_up_plain, finish, sum};

/// From whom and to whom a datagram over IPv4 goes, and what it carries: the short way for what most packets are. None where
/// it is something else, and where lengths or checksums are not those of a packet that is whole, which [`view`] says why.
#[inline(always)]
pub(crate) fn datagram(packet: &Packet) -> Option<(End, End, &[u8])> {
    let (header, body) = packet.bytes().split_first_chunk::<IPV4_BYTES>()?;
    let (udp, payload) = body.split_first_chunk::<UDP_BYTES>()?;
    if let Some(said) = packet.sound(0) {
        return (said.protocol() == Protocol::UDP).then(|| (said.source(), said.destination(), payload));
    }
    let [.., protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = *header;
    let [p0, p1, p2, p3, ..] = *udp;
    if Protocol(protocol) != Protocol::UDP || !is_whole_datagram(header, udp, body) {
        return None;
    }
    let source = End { address: Ipv4Addr::new(s0, s1, s2, s3), port: u16::from_be_bytes([p0, p1]) };
    let destination = End { address: Ipv4Addr::new(d0, d1, d2, d3), port: u16::from_be_bytes([p2, p3]) };
    Some((source, destination, payload))
}

/// Whether a datagram over IPv4 is in one piece, without options, as long as it says, and has two checksums that are right.
fn is_whole_datagram(header: &[u8; IPV4_BYTES], udp: &[u8; UDP_BYTES], body: &[u8]) -> bool {
    let [first, _, t0, t1, _, _, f0, f1, _, protocol, _, _, addresses @ ..] = header;
    let [_, _, _, _, l0, l1, c0, c1] = *udp;
    let is_plain = (*first, f0 & 0x3f, *f1) == (0x45, 0, 0);
    let is_long = usize::from(u16::from_be_bytes([*t0, *t1])) == IPV4_BYTES + body.len()
        && usize::from(u16::from_be_bytes([l0, l1])) == body.len();
    let start = sum(addresses) + u64::from(*protocol);
    is_plain && is_long && (c0, c1) != (0, 0) && adds_up_plain(header) && is_intact(start, body)
}

/// The same of a packet that may be known to be sound: nothing that has been found is looked at again.
///
/// # Errors
/// When the host would throw it away.
#[inline(always)]
pub(crate) fn view_of(packet: &Packet) -> Result<View<'_>, Unusable> {
    let bytes = packet.bytes();
    if let Some(said) = packet.sound(0)
        && let Some((_, body)) = bytes.split_first_chunk::<IPV4_BYTES>()
        && let Some((_, payload)) = body.split_first_chunk::<UDP_BYTES>()
    {
        let (source, destination) = (said.source().any(), said.destination().any());
        if said.protocol() == Protocol::UDP {
            return Ok(View { source, destination, transport: Transport::Udp, payload });
        }
        let (segment, payload) = tcp(body).ok_or(Unusable::Malformed)?;
        return Ok(View { source, destination, transport: Transport::Tcp(segment), payload });
    }
    view(bytes)
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

/// Whether bytes with a checksum among them, such as an IPv4 header or an ICMP message, add up.
#[must_use]
pub fn adds_up(bytes: &[u8]) -> bool {
    finish(sum(bytes)) == 0
}

/// Checks the IPv6 header and gives addresses, protocol and what is behind it. Hosts here use no extension headers.
pub(super) fn ipv6(bytes: &[u8]) -> Result<(Ipv6Addr, Ipv6Addr, Protocol, &[u8]), Unusable> {
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
pub(super) fn ipv4(bytes: &[u8]) -> Result<(Ipv4Addr, Ipv4Addr, Protocol, &[u8]), Unusable> {
    let is_whole = |bytes: &[u8]| matches!(bytes.get(6..8), Some([high, 0]) if high & 0x3f == 0);
    let parts = ipv4_of_any(bytes)?;
    if is_whole(bytes) { Ok(parts) } else { Err(Unusable::Unspoken) }
}

/// The same of a packet that may be a fragment.
#[inline]
pub(super) fn ipv4_of_any(bytes: &[u8]) -> Result<(Ipv4Addr, Ipv4Addr, Protocol, &[u8]), Unusable> {
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
