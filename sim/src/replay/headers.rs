//! What an IP packet of either family says: who talks to whom, and how. Read apart from the engine's own code, so that
//! what the engine does is followed by code that does not share its mistakes.

use evenkeel_engine::wire::{Address, FiveTuple, Protocol};

use crate::packet::Flags;

/// Extension headers that are gone past at most: one of each kind that a packet may have, and the second of the kind
/// that may come twice (RFC 8200 s.4.1).
const EXTENSIONS_MAX: usize = 8;

/// What a packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Who talks to whom. Of an ICMP error: who sent the packet that it quotes, and to whom. Ports are 0 where there are
    /// none; the identifier of a query stands at the side that asks.
    pub(super) tuple: FiveTuple,
    /// Where layer 4 begins.
    pub(super) layer_4: usize,
    /// Where the packet ends; what is behind belongs to the link.
    pub(super) end: usize,
    pub(super) kind: Kind,
    /// Which part of a datagram it is, if it is one.
    pub(super) fragment: Option<Fragment>,
}

/// What is in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Tcp(Tcp),
    Udp,
    /// A ping or its answer.
    Query {
        is_request: bool,
    },
    /// An ICMP error, with the place of the packet that it quotes.
    Error {
        quoted: usize,
    },
    /// Something else, or a fragment that is not the first.
    Other,
}

/// What a TCP header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tcp {
    pub(super) sequence: u32,
    pub(super) acknowledgement: u32,
    pub(super) flags: Flags,
    pub(super) payload_bytes: u32,
}

impl Tcp {
    /// Whether it asks for a new connection.
    pub(super) const fn opens(&self) -> bool {
        self.flags.has(Flags::SYN) && !self.flags.has(Flags::ACK)
    }
}

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fragment {
    pub(super) identification: u32,
    pub(super) is_first: bool,
}

impl Header {
    /// Whether the checksum of layer 4 covers what is here and nothing else.
    pub(super) const fn is_whole(&self) -> bool {
        self.fragment.is_none()
    }

    /// What is said of TCP, if it is TCP.
    pub(super) const fn tcp(&self) -> Option<Tcp> {
        match self.kind {
            Kind::Tcp(tcp) => Some(tcp),
            Kind::Udp | Kind::Query { .. } | Kind::Error { .. } | Kind::Other => None,
        }
    }
}

/// What the outer headers say.
struct Outer {
    source: Address,
    destination: Address,
    protocol: u8,
    layer_4: usize,
    end: usize,
    fragment: Option<Fragment>,
}

/// Reads a packet. `None` when its headers contradict themselves or end too early.
#[inline]
pub(super) fn read(bytes: &[u8]) -> Option<Header> {
    let outer = outer(bytes)?;
    let payload = bytes.get(outer.layer_4..outer.end)?;
    let (mut tuple, kind) = match outer.fragment {
        Some(Fragment { is_first: false, .. }) => (bare(&outer), Kind::Other),
        _ => layer_4(&outer, payload)?,
    };
    if let Kind::Error { quoted } = kind {
        tuple = quote(bytes.get(quoted..outer.end)?)?;
    }
    Some(Header { tuple, layer_4: outer.layer_4, end: outer.end, kind, fragment: outer.fragment })
}

const fn bare(outer: &Outer) -> FiveTuple {
    FiveTuple {
        source: outer.source,
        destination: outer.destination,
        source_port: 0,
        destination_port: 0,
        protocol: Protocol(outer.protocol),
    }
}

#[inline]
fn outer(bytes: &[u8]) -> Option<Outer> {
    match bytes.first()? >> 4 {
        4 => outer_v4(bytes, true),
        6 => outer_v6(bytes, true),
        _ => None,
    }
}

/// Of a quoted packet not everything `is_there`.
#[inline]
fn outer_v4(bytes: &[u8], is_there: bool) -> Option<Outer> {
    let [first, _, t0, t1, i0, i1, f0, f1, _, protocol, _, _, addresses @ ..] = *bytes.first_chunk::<20>()?;
    let layer_4 = usize::from(first & 15) * 4;
    let total = usize::from(u16::from_be_bytes([t0, t1]));
    let end = if is_there { total } else { bytes.len() };
    if layer_4 < 20 || end > bytes.len() || layer_4 > end {
        return None;
    }
    let [s0, s1, s2, s3, d0, d1, d2, d3] = addresses;
    let cut = u16::from_be_bytes([f0, f1]);
    let identification = u32::from(u16::from_be_bytes([i0, i1]));
    // More fragments follow, or this one is not the first.
    let fragment = (cut & 0x3fff != 0).then_some(Fragment { identification, is_first: cut & 0x1fff == 0 });
    let (source, destination) = (Address::v4([s0, s1, s2, s3]), Address::v4([d0, d1, d2, d3]));
    Some(Outer { source, destination, protocol, layer_4, end, fragment })
}

fn outer_v6(bytes: &[u8], is_there: bool) -> Option<Outer> {
    let (head, rest) = bytes.split_first_chunk::<40>()?;
    let [_, _, _, _, l0, l1, next, _, addresses @ ..] = *head;
    let (halves, _) = addresses.as_chunks::<16>();
    let [source, destination] = *halves else { return None };
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    let end = if is_there { 40 + length } else { bytes.len() };
    let rest = if is_there { rest.get(..length)? } else { rest };
    let (mut protocol, mut at, mut fragment) = (next, 0, None);
    for _ in 0..EXTENSIONS_MAX {
        let length = match protocol {
            // Hop-by-hop options, routing, destination options: in units of eight bytes, without the first.
            0 | 43 | 60 => (usize::from(*rest.get(at + 1)?) + 1) * 8,
            // The authentication header counts in units of four, without the first two.
            51 => (usize::from(*rest.get(at + 1)?) + 2) * 4,
            44 => {
                let [_, _, o0, o1, identification @ ..] = *rest.get(at..)?.first_chunk::<8>()?;
                let offset = u16::from_be_bytes([o0, o1]);
                let is_first = offset & 0xfff8 == 0;
                // A fragment that is all of its datagram (RFC 6946) is a whole packet.
                if offset & 0xfff9 != 0 {
                    fragment =
                        Some(Fragment { identification: u32::from_be_bytes(identification), is_first });
                }
                8
            }
            _ => break,
        };
        protocol = *rest.get(at)?;
        at += length;
        if fragment.is_some_and(|fragment| !fragment.is_first) {
            break;
        }
    }
    rest.get(at..)?;
    let (source, destination) = (Address::v6(source), Address::v6(destination));
    Some(Outer { source, destination, protocol, layer_4: 40 + at, end, fragment })
}

#[inline]
fn layer_4(outer: &Outer, payload: &[u8]) -> Option<(FiveTuple, Kind)> {
    let tuple = bare(outer);
    let is_query = |kind: u8| match (outer.protocol, kind) {
        (1, 8) | (58, 128) => Some(true),
        (1, 0) | (58, 129) => Some(false),
        _ => None,
    };
    match Protocol(outer.protocol) {
        Protocol::TCP => {
            let [p0, p1, p2, p3, s0, s1, s2, s3, a0, a1, a2, a3, offset, flags, ..] =
                *payload.first_chunk::<20>()?;
            let header_bytes = usize::from(offset >> 4) * 4;
            let payload_bytes = payload.len().checked_sub(header_bytes)?;
            let tcp = Tcp {
                sequence: u32::from_be_bytes([s0, s1, s2, s3]),
                acknowledgement: u32::from_be_bytes([a0, a1, a2, a3]),
                flags: Flags(flags),
                payload_bytes: u32::try_from(payload_bytes).ok()?,
            };
            Some((with_ports(tuple, [p0, p1, p2, p3]), Kind::Tcp(tcp)))
        }
        Protocol::UDP => {
            let [p0, p1, p2, p3, ..] = *payload.first_chunk::<8>()?;
            Some((with_ports(tuple, [p0, p1, p2, p3]), Kind::Udp))
        }
        Protocol::ICMP | Protocol::ICMPV6 => {
            let [kind, _, _, _, i0, i1, _, _] = *payload.first_chunk::<8>()?;
            if let Some(is_request) = is_query(kind) {
                let ports = if is_request { [i0, i1, 0, 0] } else { [0, 0, i0, i1] };
                return Some((with_ports(tuple, ports), Kind::Query { is_request }));
            }
            let is_error = match outer.protocol {
                1 => matches!(kind, 3 | 4 | 5 | 11 | 12),
                _ => kind < 128,
            };
            let quoted = outer.layer_4 + 8;
            Some((tuple, if is_error { Kind::Error { quoted } } else { Kind::Other }))
        }
        _ => Some((tuple, Kind::Other)),
    }
}

const fn with_ports(tuple: FiveTuple, [a, b, c, d]: [u8; 4]) -> FiveTuple {
    let (source_port, destination_port) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    FiveTuple { source_port, destination_port, ..tuple }
}

/// The tuple of a packet of which only the beginning is there.
fn quote(bytes: &[u8]) -> Option<FiveTuple> {
    let outer = match bytes.first()? >> 4 {
        4 => outer_v4(bytes, false)?,
        6 => outer_v6(bytes, false)?,
        _ => return None,
    };
    let tuple = bare(&outer);
    let rest = bytes.get(outer.layer_4..)?;
    match Protocol(outer.protocol) {
        _ if outer.fragment.is_some_and(|fragment| !fragment.is_first) => Some(tuple),
        Protocol::TCP | Protocol::UDP => Some(with_ports(tuple, *rest.first_chunk::<4>()?)),
        Protocol::ICMP | Protocol::ICMPV6 => {
            let [_, _, _, _, i0, i1] = *rest.first_chunk::<6>()?;
            Some(with_ports(tuple, [i0, i1, 0, 0]))
        }
        _ => Some(tuple),
    }
}

/// Where the header of layer 4 begins in a packet of which only the beginning may be there, and its protocol.
pub(super) fn quoted_layer_4(bytes: &[u8]) -> Option<(usize, Protocol)> {
    let outer = match bytes.first()? >> 4 {
        4 => outer_v4(bytes, false)?,
        6 => outer_v6(bytes, false)?,
        _ => return None,
    };
    Some((outer.layer_4, Protocol(outer.protocol)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{self, End, Header as Wanted, Segment};
    use std::net::Ipv4Addr;

    fn end(last: u8, port: u16) -> End {
        End { address: Ipv4Addr::new(192, 0, 2, last), port }
    }

    fn built(header: Wanted, length: usize) -> Vec<u8> {
        packet::build(packet::Packet::default(), (end(1, 40_000), end(2, 80)), header, length, |_| {})
            .bytes()
            .to_vec()
    }

    fn segment() -> Wanted {
        let flags = Flags::SYN;
        Wanted::Tcp(Segment { sequence: 7, acknowledgement: 9, flags, window: 3 })
    }

    #[test]
    fn a_segment_is_read_and_what_follows_it_is_not() {
        let mut bytes = built(segment(), 30);
        bytes.extend([0; 9]);
        let header = read(&bytes).unwrap();
        let tcp = Tcp { sequence: 7, acknowledgement: 9, flags: Flags::SYN, payload_bytes: 30 };
        assert_eq!((header.kind, header.layer_4, header.end), (Kind::Tcp(tcp), 20, 70));
        assert_eq!(header.tuple.to_string(), "tcp 192.0.2.1:40000 > 192.0.2.2:80");
        assert!(header.is_whole() && tcp.opens());
        for length in 0..70 {
            assert_eq!(read(&bytes[..length]), None, "{length}");
        }
    }

    #[test]
    fn fragments_are_told_apart() {
        let mut bytes = built(Wanted::Udp, 24);
        (bytes[4], bytes[5], bytes[6]) = (1, 2, 0x20);
        let first = read(&bytes).unwrap();
        assert_eq!(first.fragment, Some(Fragment { identification: 0x102, is_first: true }));
        assert_eq!(first.tuple.destination_port, 80);
        (bytes[6], bytes[7]) = (0, 3);
        let later = read(&bytes).unwrap();
        assert_eq!(later.fragment, Some(Fragment { identification: 0x102, is_first: false }));
        assert_eq!((later.tuple.source_port, later.tuple.destination_port, later.kind), (0, 0, Kind::Other));
    }

    #[test]
    fn an_error_is_read_as_what_it_quotes() {
        let about = built(Wanted::Udp, 10);
        let error = packet::port_unreachable(packet::Packet::default(), &about).unwrap();
        let header = read(error.bytes()).unwrap();
        assert_eq!(header.kind, Kind::Error { quoted: 28 });
        assert_eq!(header.tuple.to_string(), "udp 192.0.2.1:40000 > 192.0.2.2:80");
        assert_eq!(quoted_layer_4(&error.bytes()[28..]), Some((20, Protocol::UDP)));
    }

    /// An IPv6 packet with these headers behind the first, of which `next` is the first.
    fn v6(next: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        let mut bytes = vec![0x60, 0, 0, 0, length[0], length[1], next, 64];
        bytes.extend([&[0x20, 1, 0x0d, 0xb8][..], &[0; 11], &[1]].concat());
        bytes.extend([&[0x20, 1, 0x0d, 0xb8][..], &[0; 11], &[2]].concat());
        bytes.extend(rest);
        bytes
    }

    #[test]
    fn extension_headers_are_gone_past() {
        let udp = [0x9c, 0x40, 0, 53, 0, 8, 0, 0];
        let plain = read(&v6(17, &udp)).unwrap();
        assert_eq!(plain.tuple.to_string(), "udp 2001:db8::1:40000 > 2001:db8::2:53");
        let options = [&[60, 0, 0, 0, 0, 0, 0, 0][..], &[17, 1], &[0; 14], &udp].concat();
        let header = read(&v6(0, &options)).unwrap();
        assert_eq!((header.tuple, header.layer_4), (plain.tuple, 40 + 24));
        let first = [&[17, 0, 0, 1, 0, 0, 0, 5][..], &udp].concat();
        let header = read(&v6(44, &first)).unwrap();
        assert_eq!(header.fragment, Some(Fragment { identification: 5, is_first: true }));
        assert_eq!(header.tuple, plain.tuple);
        let later = [&[17, 0, 0, 8, 0, 0, 0, 5][..], &udp].concat();
        let header = read(&v6(44, &later)).unwrap();
        assert_eq!((header.kind, header.tuple.protocol), (Kind::Other, Protocol::UDP));
        let atomic = [&[17, 0, 0, 0, 0, 0, 0, 5][..], &udp].concat();
        assert!(read(&v6(44, &atomic)).unwrap().is_whole());
        for length in 0..48 {
            assert_eq!(read(&v6(17, &udp)[..length]), None, "{length}");
        }
        // An endless chain ends.
        assert!(read(&v6(60, &[60, 0, 0, 0, 0, 0, 0, 0].repeat(40))).is_some());
    }

    #[test]
    fn pings_have_their_identifier_at_the_side_that_asks() {
        let ping = |kind| v6(58, &[kind, 0, 0, 0, 0, 7, 0, 1]);
        let ask = read(&ping(128)).unwrap();
        assert_eq!((ask.kind, ask.tuple.source_port), (Kind::Query { is_request: true }, 7));
        let answer = read(&ping(129)).unwrap();
        assert_eq!((answer.kind, answer.tuple.destination_port), (Kind::Query { is_request: false }, 7));
        assert_eq!(read(&ping(135)).unwrap().kind, Kind::Other);
    }
}
