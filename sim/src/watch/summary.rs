//! What a packet is, in a line: who talks to whom, and what is said on layer 4.
//!
//! In: bytes as they are on a wire, of whatever quality. Out: words, and the five-tuples from outside to inside. It
//! checks no checksum, and what is cut or contradicts itself is named for what can be read of it.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use evenkeel_engine::wire::{FiveTuple, Protocol};

use crate::packet::Flags;
use crate::wires::frame::{ARP, IPV4, IPV6, payload};

/// Packets within packets that are looked into: a tunnel's, and one that an ICMP error quotes.
const DEPTH_MAX: u8 = 3;
/// Extension headers of IPv6 that are looked past, as many as there are kinds.
const EXTENSIONS_MAX: usize = 6;
const IPIP: u8 = 4;
const IPV6_IN_IP: u8 = 41;
const GRE: u8 = 47;

/// A packet in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) words: String,
    /// Who talks to whom, the outermost packet first.
    pub(crate) tuples: Vec<FiveTuple>,
}

impl Summary {
    /// Of a frame.
    pub(crate) fn of_frame(frame: &[u8]) -> Self {
        let mut summary = Self::default();
        let (kind, at) = payload(frame);
        let body = frame.get(at..).unwrap_or_default();
        match kind {
            ARP => arp(body, &mut summary.words),
            IPV4 | IPV6 => summary.add(body, 0),
            _ => summary.say(format_args!("ethertype {kind:#06x}")),
        }
        summary.say(format_args!(", {} bytes", frame.len()));
        summary
    }

    /// Of an IP packet without a frame.
    pub(crate) fn of_packet(bytes: &[u8]) -> Self {
        let mut summary = Self::default();
        summary.add(bytes, 0);
        summary.say(format_args!(", {} bytes", bytes.len()));
        summary
    }

    fn say(&mut self, words: std::fmt::Arguments<'_>) {
        // Writing into a String cannot fail.
        let _ = self.words.write_fmt(words);
    }

    fn add(&mut self, bytes: &[u8], depth: u8) {
        let Some(header) = Header::read(bytes) else { return self.say(format_args!("ip, malformed")) };
        let Header { source, destination, protocol, is_later, body } = header;
        if is_later {
            return self.say(format_args!("fragment {source} > {destination}, {}", Protocol(protocol)));
        }
        match (protocol, body) {
            (6, [s0, s1, d0, d1, q0, q1, q2, q3, a0, a1, a2, a3, _, flags, ..]) => {
                self.ends(&header, [*s0, *s1], [*d0, *d1]);
                let (sequence, acknowledgement) =
                    (u32::from_be_bytes([*q0, *q1, *q2, *q3]), u32::from_be_bytes([*a0, *a1, *a2, *a3]));
                self.say(format_args!(" {} seq {sequence}", Flags(*flags)));
                if Flags(*flags).has(Flags::ACK) {
                    self.say(format_args!(" ack {acknowledgement}"));
                }
            }
            (6 | 17, [s0, s1, d0, d1, ..]) => self.ends(&header, [*s0, *s1], [*d0, *d1]),
            (1 | 58, [kind, code, _, _, rest @ ..]) => {
                self.say(format_args!("{} {kind}/{code} {source} > {destination}", Protocol(protocol)));
                let is_error = if protocol == 1 { matches!(kind, 3 | 4 | 5 | 11 | 12) } else { *kind < 128 };
                if is_error && depth < DEPTH_MAX {
                    self.say(format_args!(" about "));
                    self.add(rest.get(4..).unwrap_or_default(), depth + 1);
                }
            }
            (IPIP | IPV6_IN_IP, inner) if depth < DEPTH_MAX => {
                self.say(format_args!("ipip {source} > {destination} with "));
                self.add(inner, depth + 1);
            }
            (GRE, [flags, _, ..]) if depth < DEPTH_MAX => {
                // Checksum, key and sequence number make the header longer by four bytes each (RFC 2890).
                let more = [0x80, 0x20, 0x10].iter().filter(|bit| flags & **bit != 0).count();
                self.say(format_args!("gre {source} > {destination} with "));
                self.add(body.get(4 + more * 4..).unwrap_or_default(), depth + 1);
            }
            _ => self.say(format_args!("{} {source} > {destination}", Protocol(protocol))),
        }
    }

    fn ends(&mut self, header: &Header<'_>, source_port: [u8; 2], destination_port: [u8; 2]) {
        let tuple = FiveTuple {
            source: header.source.into(),
            destination: header.destination.into(),
            source_port: u16::from_be_bytes(source_port),
            destination_port: u16::from_be_bytes(destination_port),
            protocol: Protocol(header.protocol),
        };
        self.say(format_args!("{tuple}"));
        self.tuples.push(tuple);
    }
}

/// What there is to read of an IP header.
struct Header<'a> {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    /// A fragment that is not the first: what follows is no header of layer 4.
    is_later: bool,
    body: &'a [u8],
}

impl<'a> Header<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => Self::v4(bytes),
            6 => Self::v6(bytes),
            _ => None,
        }
    }

    fn v4(bytes: &'a [u8]) -> Option<Self> {
        let [first, _, _, _, _, _, o0, o1, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] =
            *bytes.first_chunk::<20>()?;
        Some(Self {
            source: Ipv4Addr::new(s0, s1, s2, s3).into(),
            destination: Ipv4Addr::new(d0, d1, d2, d3).into(),
            protocol,
            is_later: u16::from_be_bytes([o0, o1]) & 0x1fff != 0,
            body: bytes.get(usize::from(first & 15) * 4..)?,
        })
    }

    fn v6(bytes: &'a [u8]) -> Option<Self> {
        let (header, mut body) = bytes.split_first_chunk::<40>()?;
        let [_, _, _, _, _, _, mut protocol, _, addresses @ ..] = *header;
        let (source, destination) = addresses.split_at(16);
        let address = |bytes: &[u8]| <[u8; 16]>::try_from(bytes).ok().map(|it| Ipv6Addr::from(it).into());
        let mut is_later = false;
        for _ in 0..EXTENSIONS_MAX {
            let length = match (protocol, body) {
                (44, [_, _, o0, o1, ..]) => {
                    is_later = u16::from_be_bytes([*o0, *o1]) & 0xfff8 != 0;
                    8
                }
                (0 | 43 | 60, [_, length, ..]) => (usize::from(*length) + 1) * 8,
                _ => break,
            };
            protocol = *body.first()?;
            body = body.get(length..)?;
            if is_later {
                break;
            }
        }
        Some(Self { source: address(source)?, destination: address(destination)?, protocol, is_later, body })
    }
}

fn arp(body: &[u8], words: &mut String) {
    let _ = match *body {
        [
            _,
            _,
            _,
            _,
            _,
            _,
            0,
            operation,
            m0,
            m1,
            m2,
            m3,
            m4,
            m5,
            s0,
            s1,
            s2,
            s3,
            _,
            _,
            _,
            _,
            _,
            _,
            t0,
            t1,
            t2,
            t3,
            ..,
        ] => {
            let (sender, target) = (Ipv4Addr::new(s0, s1, s2, s3), Ipv4Addr::new(t0, t1, t2, t3));
            if operation == 1 {
                write!(words, "arp who-has {target} tell {sender}")
            } else {
                let station = evenkeel_engine::wire::ethernet::MacAddress([m0, m1, m2, m3, m4, m5]);
                write!(words, "arp {sender} is-at {station}")
            }
        }
        _ => write!(words, "arp, malformed"),
    };
}

impl std::fmt::Display for Flags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = [
            (Self::SYN, "SYN"),
            (Self::FIN, "FIN"),
            (Self::RST, "RST"),
            (Self::PSH, "PSH"),
            (Self::ACK, "ACK"),
        ];
        let mut is_first = true;
        for (_, name) in names.into_iter().filter(|(flag, _)| self.has(*flag)) {
            f.write_str(if is_first { "" } else { "," })?;
            f.write_str(name)?;
            is_first = false;
        }
        if is_first { f.write_str("no flags") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{End, Header as Wanted, Segment, build};

    fn tcp() -> Vec<u8> {
        let segment =
            Segment { sequence: 7, acknowledgement: 9, flags: Flags::SYN.with(Flags::ACK), window: 1 };
        let ends = (
            End { address: Ipv4Addr::new(10, 0, 0, 1), port: 4_242 },
            End { address: Ipv4Addr::new(10, 0, 0, 2), port: 80 },
        );
        build(crate::packet::Packet::default(), ends, Wanted::Tcp(segment), 3, |_| {}).bytes().to_vec()
    }

    #[test]
    fn a_segment_says_who_talks_to_whom_and_where_it_is_in_its_stream() {
        let summary = Summary::of_packet(&tcp());
        assert_eq!(summary.words, "tcp 10.0.0.1:4242 > 10.0.0.2:80 SYN,ACK seq 7 ack 9, 43 bytes");
        assert_eq!(summary.tuples.len(), 1);
        assert_eq!(summary.tuples[0].source_port, 4_242);
    }

    #[test]
    fn tunnels_and_errors_are_looked_into() {
        let inner = tcp();
        let mut outer = inner[..20].to_vec();
        outer[9] = IPIP;
        outer.extend_from_slice(&inner);
        assert!(
            Summary::of_packet(&outer).words.starts_with("ipip 10.0.0.1 > 10.0.0.2 with tcp 10.0.0.1:4242")
        );
        outer[9] = 1;
        outer.splice(20..20, [3, 4, 0, 0, 0, 0, 5, 0]);
        let summary = Summary::of_packet(&outer);
        assert!(summary.words.starts_with("icmp 3/4 10.0.0.1 > 10.0.0.2 about tcp 10.0.0.1:4242"));
        assert_eq!(summary.tuples.len(), 1);
    }

    #[test]
    fn whatever_the_bytes_are_there_are_words() {
        let whole = tcp();
        for length in 0..whole.len() {
            assert!(!Summary::of_packet(&whole[..length]).words.is_empty());
        }
        for first in 0..=255 {
            assert!(!Summary::of_frame(&[first; 60]).words.is_empty());
            let mut packet = whole.clone();
            packet[0] = first;
            packet[9] = first;
            assert!(!Summary::of_packet(&packet).words.is_empty());
        }
    }
}
