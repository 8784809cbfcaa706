//! The short way: nearly every packet is a whole one of TCP or UDP over IPv4, without options, of a flow of which packets
//! have gone the same way before. What it is and where it goes is read from 24 bytes and one look.
//!
//! What is done to it is what [`input`](super::input) and [`output`](super::output) do; whatever is not plain goes there.

use evenkeel_engine::Instant;
use evenkeel_engine::wire::Protocol;

use crate::checksum::adds_up;
use crate::packet::Packet;

use super::cache::{Decision, PlainKey};
use super::ip::{self, Head};
use super::routes::{DeviceId, LOOPBACK};
use super::{Kernel, Out, Up};

/// Bytes of a header without options and of the ports behind it.
const PLAIN_BYTES: usize = 24;

/// What the header of a plain packet says, and where packets like it go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plain {
    total: usize,
    decision: Decision,
}

impl Kernel {
    /// Where a plain packet goes, where that is known and nothing happens to it on the way but a hop.
    #[inline(always)]
    pub(super) fn plain(&self, inlet: DeviceId, bytes: &[u8]) -> Option<Plain> {
        let header = bytes.first_chunk::<PLAIN_BYTES>()?;
        let (words, _) = header.as_chunks::<4>();
        let [first, second, third, ..] = *words else { return None };
        let [first, second, third] = [first, second, third].map(u32::from_be_bytes);
        let [ttl, protocol, _, _] = third.to_be_bytes();
        let total = usize::from(lower(first));
        // Without options, and whole.
        let is_plain = first >> 24 == 0x45 && second & 0x3fff == 0;
        let is_spoken = matches!(Protocol(protocol), Protocol::TCP | Protocol::UDP);
        if !is_plain || !is_spoken || total < PLAIN_BYTES || total > bytes.len() {
            return None;
        }
        let decision = self.cache.find_plain(&PlainKey::read(header, inlet))?;
        let is_own = inlet == LOOPBACK;
        let goes = match decision {
            Decision::Local => !is_own,
            Decision::Forward { mtu, .. } | Decision::Tun { mtu, .. } => {
                total <= usize::from(mtu) && (is_own || ttl > 1)
            }
            Decision::Drop(_) | Decision::Refuse(_) => false,
        };
        let (head, _) = header.split_first_chunk::<{ ip::V4_BYTES }>()?;
        (goes && adds_up(head)).then_some(Plain { total, decision })
    }

    /// Lets a plain packet go where packets like it go.
    #[inline(always)]
    pub(super) fn pass_plain(
        &mut self,
        now: Instant,
        inlet: DeviceId,
        plain: Plain,
        mut packet: Packet,
        out: &mut Out,
    ) -> Option<Up> {
        packet.range.end = packet.range.start + plain.total;
        match plain.decision {
            Decision::Forward { neighbour, .. } => {
                self.take_plain_hop(inlet, &mut packet);
                self.transmit(now, neighbour, packet, inlet, out);
                None
            }
            Decision::Tun { tun, .. } => {
                self.take_plain_hop(inlet, &mut packet);
                self.counts.to_tuns += 1;
                Some(Up::Tun(usize::from(tun), packet))
            }
            Decision::Local | Decision::Drop(_) | Decision::Refuse(_) => {
                self.counts.to_host += 1;
                Some(Up::Host(packet))
            }
        }
    }

    /// A packet that is not the machine's own has come a hop further.
    #[inline]
    fn take_plain_hop(&mut self, inlet: DeviceId, packet: &mut Packet) {
        if inlet != LOOPBACK {
            ip::take_hop_v4(packet.bytes_mut());
            self.counts.forwarded += 1;
        }
    }

    /// Remembers where a packet has gone, where it is a plain one and source NAT and tunnels leave it alone.
    #[inline]
    pub(super) fn remember_plain(&mut self, inlet: DeviceId, head: &Head, decision: Decision) {
        let is_plain = head.is_v4()
            && head.fragment.is_none()
            && head.offset == ip::V4_BYTES
            && matches!(head.protocol, Protocol::TCP | Protocol::UDP);
        if is_plain && self.nats.is_empty() && !self.has_tunnels {
            self.cache.put_plain(PlainKey::of(head, inlet), decision);
        }
    }
}

/// The lower half of a word of a header.
#[allow(clippy::cast_possible_truncation, reason = "the lower half is what is meant")]
const fn lower(word: u32) -> u16 {
    word as u16
}
