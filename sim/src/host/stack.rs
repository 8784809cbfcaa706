//! One end of a TCP connection, whichever implementation speaks: our own small one, or smoltcp.

use evenkeel_engine::Instant;

use super::smol::Smol;
use crate::packet::{Packet, Segment};
use crate::payload::Message;
use crate::tcp::{State, Tcp, Transmit};

/// What connections want sent: segments that are not built yet, and whole packets.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) transmits: Vec<Transmit>,
    pub(super) packets: Vec<Packet>,
}

/// A segment that has come: read, and as the whole packet that it came in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival<'a> {
    pub(super) segment: &'a Segment,
    pub(super) payload: &'a [u8],
    pub(super) packet: &'a [u8],
}

/// One end of a connection.
#[derive(Debug)]
pub(super) enum Stack {
    Minimal(Tcp),
    Smoltcp(Box<Smol>),
}

impl Stack {
    /// Takes in a segment. Bytes in order go to `deliver`.
    pub(super) fn receive(
        &mut self,
        arrival: Arrival<'_>,
        now: Instant,
        out: &mut Outbox,
        deliver: &mut dyn FnMut(&[u8]),
    ) {
        match self {
            Self::Minimal(tcp) => {
                tcp.receive(arrival.segment, arrival.payload, now, &mut out.transmits, deliver);
            }
            Self::Smoltcp(smol) => smol.receive(arrival.packet, now, &mut out.packets, deliver),
        }
    }

    /// Sends another message. The one before must have been answered, and so acknowledged.
    pub(super) fn send(&mut self, message: Message) {
        match self {
            Self::Minimal(tcp) => tcp.send(message),
            Self::Smoltcp(smol) => smol.send(message),
        }
    }

    /// Closes our side behind the message under way.
    pub(super) const fn close(&mut self) {
        match self {
            Self::Minimal(tcp) => tcp.close(),
            Self::Smoltcp(smol) => smol.close(),
        }
    }

    /// Sends what may be sent, and at least an acknowledgement where one is owed.
    pub(super) fn flush(&mut self, now: Instant, out: &mut Outbox) {
        match self {
            Self::Minimal(tcp) => tcp.flush(now, &mut out.transmits),
            Self::Smoltcp(smol) => smol.flush(now, &mut out.packets),
        }
    }

    /// The timer has run out.
    pub(super) fn timeout(&mut self, now: Instant, out: &mut Outbox) {
        match self {
            Self::Minimal(tcp) => tcp.timeout(now, &mut out.transmits),
            Self::Smoltcp(smol) => smol.timeout(now, &mut out.packets),
        }
    }

    /// Gives up, and tells the other side.
    pub(super) fn abort(&mut self, now: Instant, out: &mut Outbox) {
        match self {
            Self::Minimal(tcp) => out.transmits.push(Transmit { segment: tcp.abort(), data: None }),
            Self::Smoltcp(smol) => smol.abort(now, &mut out.packets),
        }
    }

    /// The way there carries no more than `bytes` of payload in a segment. smoltcp does not take that in.
    pub(super) fn limit_segments(&mut self, bytes: u32, now: Instant, out: &mut Outbox) {
        match self {
            Self::Minimal(tcp) => tcp.limit_segments(bytes, now, &mut out.transmits),
            Self::Smoltcp(_) => {}
        }
    }

    /// Where it stands.
    pub(super) fn state(&self) -> State {
        match self {
            Self::Minimal(tcp) => tcp.state(),
            Self::Smoltcp(smol) => smol.state(),
        }
    }

    /// When [`Stack::timeout`] is due.
    pub(super) const fn deadline(&self) -> Instant {
        match self {
            Self::Minimal(tcp) => tcp.deadline(),
            Self::Smoltcp(smol) => smol.deadline(),
        }
    }

    /// Whether the other side has closed and every byte before that has been delivered.
    pub(super) fn is_closed_by_peer(&self) -> bool {
        match self {
            Self::Minimal(tcp) => tcp.is_closed_by_peer(),
            Self::Smoltcp(smol) => smol.is_closed_by_peer(),
        }
    }

    /// Segments that were sent again.
    pub(super) const fn retransmitted(&self) -> u32 {
        match self {
            Self::Minimal(tcp) => tcp.retransmitted,
            Self::Smoltcp(smol) => smol.retransmitted,
        }
    }
}
