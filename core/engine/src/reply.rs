//! Packets that are born here: answers in the place of their question, and errors about packets.
//!
//! Answers to pings reuse the buffer of their question. Errors and resets are written to a bounded [`Outbox`] and
//! leave at the end of the batch: the device may have left their packet's checksum undone, and theirs are complete.
//! All of it is rate limited together.

use alloc::vec;
use alloc::vec::Vec;

use zerocopy::IntoBytes;

use crate::time::Instant;
use crate::verdict::InterfaceId;
use crate::wire::{Protocol, checksum, icmp, ipv4, tcp};

/// The time to live of what we send.
const TTL: u8 = 64;

/// The type of service of ICMP errors: internetwork control (RFC 1812 s.4.3.2.5).
const ERROR_TOS: u8 = 0xc0;

/// The most bytes of an ICMP error with the packet that it quotes (RFC 1812 s.4.3.2.3).
const ERROR_BYTES_MAX: usize = 576;

/// The most packets that wait in the outbox: a batch and a half. Further ones are counted as lost.
const OUTBOX_MAX: usize = 96;

/// Room for an error behind an Ethernet header.
const PACKET_BYTES_MAX: usize = ERROR_BYTES_MAX + 14;

/// Packets that wait to leave, in memory that is allocated once.
#[derive(Debug)]
pub struct Outbox {
    bytes: Vec<u8>,
    waiting: Vec<(InterfaceId, usize)>,
}

impl Default for Outbox {
    /// An empty outbox with all its room.
    fn default() -> Self {
        Self { bytes: vec![0; OUTBOX_MAX * PACKET_BYTES_MAX], waiting: Vec::with_capacity(OUTBOX_MAX) }
    }
}

impl Outbox {
    /// Queues a packet made of `parts`, one behind the other. Returns whether there was room.
    pub fn push(&mut self, interface: InterfaceId, parts: &[&[u8]]) -> bool {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let start = self.waiting.len() * PACKET_BYTES_MAX;
        if self.waiting.len() == OUTBOX_MAX || length > PACKET_BYTES_MAX {
            return false;
        }
        let Some(mut place) = self.bytes.get_mut(start..start + length) else { return false };
        for part in parts {
            let (head, tail) = place.split_at_mut(part.len());
            head.copy_from_slice(part);
            place = tail;
        }
        self.waiting.push((interface, length));
        true
    }

    /// The packets that wait, in order.
    pub fn packets(&self) -> impl Iterator<Item = (InterfaceId, &[u8])> {
        let places = self.bytes.chunks_exact(PACKET_BYTES_MAX);
        self.waiting.iter().zip(places).filter_map(|((interface, length), place)| {
            place.get(..*length).map(|packet| (*interface, packet))
        })
    }

    /// Forgets what waited.
    pub fn clear(&mut self) {
        self.waiting.clear();
    }
}

/// A token bucket over all answers and errors, filled by the second.
#[derive(Debug)]
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
    /// Its time to live is over here (RFC 792, type 11 code 0).
    TtlExceeded,
    /// It must not be cut and does not fit the way out, which takes this many bytes (RFC 1191, type 3 code 4).
    TooBig(u16),
    /// Nobody serves its port (type 3 code 3).
    PortUnreachable,
}

/// Writes the header and body of `error` about the packet whose bytes are `offending`, from `source`, as parts for
/// [`Outbox::push`]: IP header, ICMP header, and the length of the quote.
#[must_use]
pub fn icmp_error(
    error: IcmpError,
    source: [u8; 4],
    offending: &[u8],
) -> (ipv4::Header, icmp::Header, usize) {
    let room = ERROR_BYTES_MAX - ipv4::HEADER_BYTES - icmp::HEADER_BYTES;
    let length = offending.len().min(room);
    let quote = offending.get(..length).unwrap_or(offending);
    let (kind, code, rest) = match error {
        IcmpError::TtlExceeded => (icmp::kind::TIME_EXCEEDED, 0, [0; 4]),
        IcmpError::TooBig(mtu) => {
            let [high, low] = mtu.to_be_bytes();
            (icmp::kind::UNREACHABLE, 4, [0, 0, high, low])
        }
        IcmpError::PortUnreachable => (icmp::kind::UNREACHABLE, 3, [0; 4]),
    };
    let message = icmp::Header::new(kind, code, rest, quote);
    // A quote is at most 548 bytes long.
    let payload = u16::try_from(icmp::HEADER_BYTES + quote.len()).unwrap_or(0);
    let to = offending.get(12..16).and_then(|bytes| bytes.first_chunk()).copied().unwrap_or_default();
    (ipv4::Header::new(ERROR_TOS, TTL, Protocol::ICMP, source, to, payload), message, length)
}

/// Whether an ICMP error about `packet` is allowed (RFC 1812 s.4.3.2.7): not about errors and later fragments.
#[must_use]
pub fn may_send_error(packet: &ipv4::Packet<'_>) -> bool {
    let is_error = packet.header.protocol() == Protocol::ICMP
        && packet.payload.first().is_none_or(|kind| {
            !matches!(*kind, icmp::kind::ECHO_REQUEST | icmp::kind::ECHO_REPLY | 13 | 14 | 17 | 18)
        });
    !is_error && !packet.header.is_later_fragment()
}

/// The bytes of a reset from `destination` that answers a segment of an unknown connection (RFC 9293 s.3.5.2), and
/// `None` when the segment is itself a reset.
#[must_use]
pub fn reset(packet: &mut ipv4::Packet<'_>) -> Option<[u8; 40]> {
    let payload_bytes = packet.payload.len();
    let (source, destination) = (packet.header.source().v4_bytes(), packet.header.destination().v4_bytes());
    let (segment, _) = tcp::Header::split(packet.payload).ok()?;
    let flags = segment.flags();
    if flags.has(tcp::Flags::RST) {
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
    let mut answer = tcp::Header::bare(
        segment.destination_port(),
        segment.source_port(),
        sequence,
        acknowledgement,
        flags,
    );
    let start = checksum::pseudo_header_v4(destination, source, Protocol::TCP.0, 20);
    answer.set_checksum(checksum::checksum(start, answer.as_bytes()));
    let header = ipv4::Header::new(0, TTL, Protocol::TCP, destination, source, 20);
    let mut bytes = [0; 40];
    let (first, second) = bytes.split_at_mut(ipv4::HEADER_BYTES);
    first.copy_from_slice(header.as_bytes());
    second.copy_from_slice(answer.as_bytes());
    Some(bytes)
}

/// Turns the echo request in `packet` into its reply. The message has been checked.
///
/// # Errors
/// The reason of a message that is too short or does not add up.
pub fn echo(packet: &mut ipv4::Packet<'_>) -> Result<(), crate::DropReason> {
    let (message, _) = icmp::Header::split(packet.payload)?;
    message.become_echo_reply();
    let (from, to) = (packet.header.destination().v4_bytes(), packet.header.source().v4_bytes());
    packet.header.become_answer(from, to, TTL);
    Ok(())
}
