//! What a kernel says about packets (RFC 792, RFC 1812 s.4.3, RFC 4443), and the cutting of those that do not fit.

use std::net::IpAddr;

use evenkeel_engine::wire::Protocol;
use evenkeel_engine::{Duration, Instant};

use super::Out;
use crate::packet::{self, IPV4_BYTES, IPV6_BYTES, Packet};

/// Errors per second (`icmp_msgs_per_sec`).
const ERRORS_PER_SECOND: u64 = 1_000;
/// Errors at once (`icmp_msgs_burst`).
const ERRORS_BURST: u64 = 50;
const NANOSECONDS_PER_ERROR: u64 = 1_000_000_000 / ERRORS_PER_SECOND;
/// The least that every link of IPv4 carries, which bounds the parts of a packet (RFC 791: 68).
const MTU_MIN: u16 = 68;

/// What a sender is told of its packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    NetUnreachable,
    HostUnreachable,
    HopsExceeded,
    TooBig(u16),
}

impl Told {
    /// The message by `own` about `packet`.
    pub(super) fn about(self, own: IpAddr, packet: &Packet, out: &mut Out) -> Option<Packet> {
        let buffer = out.buffer();
        match own {
            IpAddr::V4(own) => {
                let (kind, mtu) = match self {
                    Self::NetUnreachable => ((3, 0), 0),
                    Self::HostUnreachable => ((3, 1), 0),
                    Self::HopsExceeded => ((11, 0), 0),
                    Self::TooBig(mtu) => ((3, 4), mtu),
                };
                packet::icmp_about_with(buffer, kind, mtu.into(), own, packet.bytes())
            }
            IpAddr::V6(own) => {
                let (kind, mtu) = match self {
                    Self::NetUnreachable => ((1, 0), 0),
                    Self::HostUnreachable => ((1, 3), 0),
                    Self::HopsExceeded => ((3, 0), 0),
                    Self::TooBig(mtu) => ((2, 0), mtu),
                };
                packet::icmpv6_about_with(buffer, kind, mtu.into(), own, packet.bytes())
            }
        }
    }
}

/// A bucket of errors that may still be sent.
#[derive(Debug)]
pub(super) struct Budget {
    tokens: u64,
    since: Instant,
}

impl Default for Budget {
    fn default() -> Self {
        Self { tokens: ERRORS_BURST, since: Instant::ZERO }
    }
}

impl Budget {
    /// Takes one error out; `false` when none is left.
    pub(super) fn spend(&mut self, now: Instant) -> bool {
        let passed = u64::try_from(now.since(self.since).as_nanos()).unwrap_or(u64::MAX);
        let fresh = passed / NANOSECONDS_PER_ERROR;
        if fresh > 0 {
            self.tokens = self.tokens.saturating_add(fresh).min(ERRORS_BURST);
            self.since = self.since.after(Duration::from_nanos(fresh.saturating_mul(NANOSECONDS_PER_ERROR)));
        }
        let has_one = self.tokens > 0;
        self.tokens -= u64::from(has_one);
        has_one
    }
}

/// Whether an error about a packet may be sent: not about ICMP errors, later fragments and groups (RFC 1812 s.4.3.2.7).
pub(super) fn may_be_told(bytes: &[u8]) -> bool {
    match bytes.first().map(|first| first >> 4) {
        Some(4) => {
            let Some([_, _, _, _, _, _, f0, f1, _, protocol, ..]) = bytes.first_chunk::<IPV4_BYTES>() else {
                return false;
            };
            let header = bytes.first().map_or(0, |first| usize::from(first & 15) * 4);
            let is_first = u16::from_be_bytes([*f0, *f1]) & 0x1fff == 0;
            let is_query = matches!(bytes.get(header), Some(0 | 8 | 13..=18));
            is_first && (*protocol != Protocol::ICMP.0 || is_query)
        }
        Some(6) => {
            let is_error = bytes.get(6) == Some(&Protocol::ICMPV6.0)
                && bytes.get(IPV6_BYTES).is_none_or(|kind| *kind < 128);
            !is_error
        }
        _ => false,
    }
}

/// Turns an echo request around where the packet is one. Returns whether it was.
pub(super) fn turn_echo(bytes: &mut [u8]) -> bool {
    let is_v4 = bytes.first().is_some_and(|first| first >> 4 == 4);
    let (header, protocol, addresses, request) = if is_v4 {
        let header = bytes.first().map_or(0, |first| usize::from(first & 15) * 4);
        let is_whole = bytes.get(6..8).is_some_and(|field| field[0] & 0x3f == 0 && field[1] == 0);
        if !is_whole {
            return false;
        }
        (header, 9, 12..20, (Protocol::ICMP.0, 8_u8, 0_u8))
    } else {
        (IPV6_BYTES, 6, 8..40, (Protocol::ICMPV6.0, 128, 129))
    };
    if bytes.get(protocol) != Some(&request.0) || bytes.get(header) != Some(&request.1) {
        return false;
    }
    if let Some(addresses) = bytes.get_mut(addresses) {
        let (source, destination) = addresses.split_at_mut(addresses.len() / 2);
        source.swap_with_slice(destination);
    }
    if let Some(kind) = bytes.get_mut(header) {
        *kind = request.2;
    }
    // The type is the high byte of its word: the sum loses what the type loses (RFC 1624).
    if let Some([c0, c1]) = bytes.get_mut(header + 2..header + 4) {
        let lost = u32::from(request.1.abs_diff(request.2)) << 8;
        let old = u32::from(!u16::from_be_bytes([*c0, *c1]));
        let sum = if request.1 > request.2 { old + (0xffff - lost) } else { old + lost };
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        [*c0, *c1] = (!u16::try_from(sum).unwrap_or(u16::MAX)).to_be_bytes();
    }
    if is_v4 {
        if let Some(ttl) = bytes.get_mut(8) {
            *ttl = packet::TTL;
        }
        packet::mend_header(bytes);
    } else if let Some(hops) = bytes.get_mut(7) {
        *hops = packet::TTL;
    }
    true
}

/// Whether a router may cut a packet: one of IPv4 without the bit that forbids it.
pub(super) fn may_cut(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| first >> 4 == 4) && bytes.get(6).is_some_and(|flags| flags & 0x40 == 0)
}

/// The parts of an IPv4 packet, none longer than `mtu` (RFC 791 s.3.2). Options go into the first part only, as though
/// none had to be copied.
pub(super) fn cut(bytes: &[u8], mtu: u16) -> Vec<Vec<u8>> {
    let header_bytes = bytes.first().map_or(0, |first| usize::from(first & 15) * 4);
    let Some((header, body)) = bytes.split_at_checked(header_bytes) else { return Vec::new() };
    let Some([_, _, _, _, _, _, f0, f1, ..]) = header.first_chunk::<IPV4_BYTES>() else { return Vec::new() };
    let field = u16::from_be_bytes([*f0, *f1]);
    let (start, has_more) = (field & 0x1fff, field & 0x2000 != 0);
    let room = usize::from(mtu.max(MTU_MIN)).saturating_sub(header_bytes) / 8 * 8;
    let mut parts = Vec::new();
    for (number, chunk) in body.chunks(room.max(8)).enumerate() {
        let offset = u16::try_from(number * room / 8).unwrap_or(0x1fff);
        let is_last = (number + 1) * room >= body.len();
        let more = if is_last && !has_more { 0 } else { 0x2000 };
        let mut part = [header, chunk].concat();
        let length = u16::try_from(part.len()).unwrap_or(u16::MAX).to_be_bytes();
        let field = (start.saturating_add(offset) & 0x1fff | more).to_be_bytes();
        for (place, value) in [(2, length), (6, field)] {
            if let Some(slot) = part.get_mut(place..place + 2) {
                slot.copy_from_slice(&value);
            }
        }
        packet::mend_header(&mut part);
        parts.push(part);
    }
    parts
}
