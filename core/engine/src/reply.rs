//! Packets that are born here: answers in the place of their question, and errors about packets.
//!
//! Answers to pings reuse the buffer of their question. Errors and resets are written to a bounded outbox and
//! leave at the end of the batch: the device may have left their packet's checksum undone, and theirs are complete.
//! All of it is rate limited together.

use zerocopy::IntoBytes;

use crate::time::Instant;
use crate::wire::checksum::Delta;
use crate::wire::{Address, Protocol, checksum, icmp, icmpv6, ip, ipv4, ipv6, tcp};

/// The time to live of what we send.
const TTL: u8 = 64;

/// The type of service of ICMP errors: internetwork control (RFC 1812 s.4.3.2.5).
const ERROR_TOS: u8 = 0xc0;

/// The most bytes of an ICMP error with the packet that it quotes (RFC 1812 s.4.3.2.3).
const ERROR_BYTES_MAX: usize = 576;

/// The same for IPv6: what every link carries (RFC 4443 s.2.4).
const ERROR_BYTES_MAX_V6: usize = 1280;

/// A token bucket over all answers and errors, filled by the second.
#[derive(Clone, Debug)]
pub struct AnswerLimit {
    per_second: u32,
    left: u32,
    second: u64,
}

impl AnswerLimit {
    /// A full bucket of `per_second` answers.
    #[must_use]
    pub const fn new(per_second: u32) -> Self {
        Self { per_second, left: per_second, second: 0 }
    }

    /// What is left, and of which second.
    pub(crate) const fn state(&self) -> [u64; 2] {
        [self.left as u64, self.second]
    }

    /// Goes on with what was left of a second.
    pub(crate) fn set_state(&mut self, [left, second]: [u64; 2]) {
        self.left = u32::try_from(left).unwrap_or(u32::MAX).min(self.per_second);
        self.second = second;
    }

    /// Whether one more answer may be given at `now`.
    pub const fn take(&mut self, now: Instant) -> bool {
        let second = now.as_nanos() / 1_000_000_000;
        if second != self.second {
            self.second = second;
            self.left = self.per_second;
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

/// Which error to send about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// Its hops are over here (RFC 792, type 11 code 0; RFC 4443, type 3 code 0).
    TtlExceeded,
    /// It must not be cut and does not fit the way out, which takes this many bytes (RFC 1191, type 3 code 4; RFC 4443,
    /// type 2).
    TooBig(u16),
    /// Nobody serves its port (type 3 code 3; RFC 4443, type 1 code 4).
    PortUnreachable,
    /// There is no room for its flow (type 3 code 13; RFC 4443, type 1 code 1).
    Prohibited,
}

impl IcmpError {
    /// Type, code and the four bytes behind the checksum.
    const fn v4(self) -> (u8, u8, [u8; 4]) {
        match self {
            Self::TtlExceeded => (icmp::kind::TIME_EXCEEDED, 0, [0; 4]),
            Self::TooBig(mtu) => {
                let [high, low] = mtu.to_be_bytes();
                (icmp::kind::UNREACHABLE, 4, [0, 0, high, low])
            }
            Self::PortUnreachable => (icmp::kind::UNREACHABLE, 3, [0; 4]),
            Self::Prohibited => (icmp::kind::UNREACHABLE, 13, [0; 4]),
        }
    }

    const fn v6(self) -> (u8, u8, [u8; 4]) {
        match self {
            Self::TtlExceeded => (icmpv6::kind::TIME_EXCEEDED, 0, [0; 4]),
            Self::TooBig(mtu) => {
                let [high, low] = mtu.to_be_bytes();
                (icmpv6::kind::TOO_BIG, 0, [0, 0, high, low])
            }
            Self::PortUnreachable => (icmpv6::kind::UNREACHABLE, 4, [0; 4]),
            Self::Prohibited => (icmpv6::kind::UNREACHABLE, 1, [0; 4]),
        }
    }
}

/// The headers of an ICMP error, and how much of the packet that it is about follows them.
#[derive(Debug)]
pub enum ErrorHeaders {
    /// About a packet of IPv4.
    V4(ipv4::Header, icmp::Header, usize),
    /// About a packet of IPv6.
    V6(ipv6::Header, icmpv6::Header, usize),
}

impl ErrorHeaders {
    /// The headers of `error` about the packet whose bytes are `offending`, from `source` of the same family.
    #[must_use]
    pub fn new(error: IcmpError, source: Address, offending: &[u8]) -> Self {
        let quote = |headers: usize, most: usize| {
            let length = offending.len().min(most - headers);
            (offending.get(..length).unwrap_or(offending), length)
        };
        if source.is_v4() {
            let (quote, length) = quote(ipv4::HEADER_BYTES + icmp::HEADER_BYTES, ERROR_BYTES_MAX);
            let (kind, code, rest) = error.v4();
            let message = icmp::Header::new(kind, code, rest, quote);
            // A quote is at most 548 bytes long.
            let payload = u16::try_from(icmp::HEADER_BYTES + length).unwrap_or(0);
            let to = offending.get(12..16).and_then(|bytes| bytes.first_chunk()).copied().unwrap_or_default();
            let header = ipv4::Header::new(ERROR_TOS, TTL, Protocol::ICMP, source.v4_bytes(), to, payload);
            return Self::V4(header, message, length);
        }
        let (quote, length) = quote(ipv6::HEADER_BYTES + icmpv6::HEADER_BYTES, ERROR_BYTES_MAX_V6);
        let (kind, code, rest) = error.v6();
        let to = offending.get(8..24).and_then(|bytes| bytes.first_chunk()).copied().unwrap_or_default();
        let message = icmpv6::Header::new(kind, code, rest, quote, source.v6_bytes(), to);
        // A quote is at most 1,232 bytes long.
        let payload = u16::try_from(icmpv6::HEADER_BYTES + length).unwrap_or(0);
        let header = ipv6::Header::new(ERROR_TOS, TTL, Protocol::ICMPV6, source.v6_bytes(), to, payload);
        Self::V6(header, message, length)
    }

    /// The bytes of both headers, and of `offending` what is quoted.
    #[must_use]
    pub fn parts<'a>(&'a self, offending: &'a [u8]) -> [&'a [u8]; 3] {
        let quote = |length: &usize| offending.get(..*length).unwrap_or_default();
        match self {
            Self::V4(header, message, length) => [header.as_bytes(), message.as_bytes(), quote(length)],
            Self::V6(header, message, length) => [header.as_bytes(), message.as_bytes(), quote(length)],
        }
    }
}

/// Whether an ICMP error about `packet` is allowed (RFC 1812 s.4.3.2.7, RFC 4443 s.2.4): not about errors, later
/// fragments, and packets from or to many. `is_later` says that it is a later fragment.
#[must_use]
pub fn may_send_error(packet: &mut ip::Packet<'_>, protocol: Protocol, is_later: bool) -> bool {
    let (source, destination) = (packet.source(), packet.destination());
    let kind = packet.payload().first().copied();
    let is_query = match protocol {
        Protocol::ICMP => kind.is_some_and(|kind| {
            matches!(kind, icmp::kind::ECHO_REQUEST | icmp::kind::ECHO_REPLY | 13 | 14 | 17 | 18)
        }),
        Protocol::ICMPV6 => {
            kind.is_some_and(|kind| !icmpv6::kind::is_error(kind) && kind != icmpv6::kind::REDIRECT)
        }
        _ => true,
    };
    is_query && !is_later && source.is_station() && destination.is_station()
}

/// A reset as bytes, the first of them as many as it has.
pub type Reset = ([u8; RESET_BYTES_MAX], usize);

/// Bytes of the longest reset: a header of IPv6 and one of TCP.
const RESET_BYTES_MAX: usize = ipv6::HEADER_BYTES + tcp::HEADER_BYTES;

/// A reset that answers a segment of an unknown connection (RFC 9293 s.3.5.2), and `None` when the segment is itself
/// a reset.
#[must_use]
pub fn reset(packet: &mut ip::Packet<'_>) -> Option<Reset> {
    let (source, destination) = (packet.source(), packet.destination());
    let payload = packet.payload();
    let payload_bytes = payload.len();
    let (segment, _) = tcp::Header::split(payload).ok()?;
    let flags = segment.flags();
    if flags.has(tcp::Flags::RST) || !source.is_station() || !destination.is_station() {
        return None;
    }
    let data = u32::try_from(payload_bytes - segment.header_length()).unwrap_or(0);
    let ends = u32::from(flags.has(tcp::Flags::SYN)) + u32::from(flags.has(tcp::Flags::FIN));
    let (sequence, acknowledgement, flags) = if flags.has(tcp::Flags::ACK) {
        (segment.acknowledgement(), 0, tcp::Flags::RST)
    } else {
        let next = segment.sequence().wrapping_add(data).wrapping_add(ends);
        (0, next, tcp::Flags(tcp::Flags::RST.0 | tcp::Flags::ACK.0))
    };
    let (from, to) = (segment.destination_port(), segment.source_port());
    let mut answer = tcp::Header::bare(from, to, sequence, acknowledgement, flags);
    let mut bytes = [0; RESET_BYTES_MAX];
    let length = if source.is_v4() {
        let (from, to) = (destination.v4_bytes(), source.v4_bytes());
        let start = checksum::pseudo_header_v4(from, to, Protocol::TCP.0, 20);
        answer.set_checksum(checksum::checksum(start, answer.as_bytes()));
        let header = ipv4::Header::new(0, TTL, Protocol::TCP, from, to, 20);
        join(&mut bytes, header.as_bytes(), answer.as_bytes())
    } else {
        let (from, to) = (destination.v6_bytes(), source.v6_bytes());
        let start = checksum::pseudo_header_v6(from, to, Protocol::TCP.0, 20);
        answer.set_checksum(checksum::checksum(start, answer.as_bytes()));
        let header = ipv6::Header::new(0, TTL, Protocol::TCP, from, to, 20);
        join(&mut bytes, header.as_bytes(), answer.as_bytes())
    };
    Some((bytes, length))
}

/// Writes both parts to the front of `bytes` and gives their length.
fn join(bytes: &mut [u8], first: &[u8], second: &[u8]) -> usize {
    for (place, byte) in bytes.iter_mut().zip(first.iter().chain(second)) {
        *place = *byte;
    }
    first.len() + second.len()
}

/// Turns the echo request in `packet`, whose message has been checked, into its reply.
pub fn echo(packet: &mut ip::Packet<'_>) {
    match packet {
        ip::Packet::V4(packet) => {
            if icmp::Header::split(packet.payload).is_ok() {
                icmp::Header::become_echo_reply(packet.payload);
            }
            let (from, to) = (packet.header.destination().v4_bytes(), packet.header.source().v4_bytes());
            packet.header.become_answer(from, to, TTL);
        }
        ip::Packet::V6(header, payload) => {
            let (from, to) = (header.destination().v6_bytes(), header.source().v6_bytes());
            if let Ok((message, _)) = icmpv6::Header::split(payload, to, from) {
                message.become_echo_reply(Delta::NONE);
            }
            header.become_answer(from, to, TTL);
        }
    }
}
