//! The short way: nearly every packet is a whole one of TCP or UDP over IPv4, without options, of a flow of which packets
//! have gone the same way before. What it is and where it goes is read from 24 bytes and one look.
//!
//! What is done to it is what [`input`](super::input) and [`output`](super::output) do; whatever is not plain goes there.

use evenkeel_engine::Instant;
use evenkeel_engine::wire::Protocol;

use crate::checksum::adds_up;
use crate::net::index;
use crate::packet::{Flags, Packet, Sound};
use crate::wires::frame;

use super::cache::{Decision, Goal, PlainKey, PlainWay};
use super::ip::{self, Head};
use super::routes::{DeviceId, LOOPBACK};
use super::{DeviceKind, Kernel, Out, Up};

/// Bytes of a header without options and of the ports behind it.
const PLAIN_BYTES: usize = 24;
/// Where the time to live stands in a header.
const TTL_AT: usize = 8;

/// What the header of a plain packet says, and where packets like it go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plain {
    total: usize,
    way: PlainWay,
}

impl Kernel {
    /// Where the plain packet in a frame for this station goes, and the device that it came in by.
    #[inline(always)]
    pub(super) fn plain_frame(&self, interface: usize, packet: &Packet) -> Option<(DeviceId, Plain)> {
        let inlet = DeviceId::try_from(interface).ok()?;
        let device = self.devices.get(interface)?;
        let DeviceKind::Ethernet(own) = &device.kind else { return None };
        let (header, bytes) = packet.bytes().split_first_chunk::<{ frame::ETHERNET_BYTES }>()?;
        if !device.is_up() || !frame::is_to(header, *own, frame::IPV4) {
            return None;
        }
        let plain = match packet.sound(frame::ETHERNET_BYTES) {
            Some(said) => self.plain(inlet, bytes, said)?,
            None => self.read_plain(inlet, bytes)?,
        };
        Some((inlet, plain))
    }

    /// Where a plain packet goes.
    #[inline(always)]
    pub(super) fn plain_packet(&self, inlet: DeviceId, packet: &Packet) -> Option<Plain> {
        match packet.sound(0) {
            Some(said) => self.plain(inlet, packet.bytes(), said),
            None => self.read_plain(inlet, packet.bytes()),
        }
    }

    /// The same of one that is known to be sound, and to say this.
    #[inline(always)]
    fn plain(&self, inlet: DeviceId, bytes: &[u8], said: Sound) -> Option<Plain> {
        let way = self.cache.find_plain(&PlainKey::said(said, inlet))?;
        let ttl = *bytes.get(TTL_AT)?;
        let total = u16::try_from(bytes.len()).ok()?;
        (total <= way.mtu && ttl >= way.ttl_min).then_some(Plain { total: bytes.len(), way })
    }

    /// Where a plain packet goes, where that is known and nothing happens to it on the way but a hop.
    fn read_plain(&self, inlet: DeviceId, bytes: &[u8]) -> Option<Plain> {
        let header = bytes.first_chunk::<PLAIN_BYTES>()?;
        let (words, _) = header.as_chunks::<8>();
        let [first, second, third] = *words else { return None };
        let [first, second, third] = [first, second, third].map(u64::from_be_bytes);
        let [_, _, t0, t1, ..] = first.to_be_bytes();
        let [ttl, protocol, ..] = second.to_be_bytes();
        let total = u16::from_be_bytes([t0, t1]);
        // Of version 4, without options, and whole.
        let is_plain = first & 0xff00_0000_0000_3fff == 0x4500_0000_0000_0000;
        let length = usize::from(total);
        if !is_plain || length < PLAIN_BYTES || length > bytes.len() {
            return None;
        }
        // Nothing is remembered of other protocols than TCP and UDP, of which nobody here wants to know the flags.
        let [.., p0, p1, p2, p3] = third.to_be_bytes();
        let ports = u32::from_be_bytes([p0, p1, p2, p3]);
        let said = Sound::new(second << 32 | third >> 32, ports, protocol, Flags::default());
        let way = self.cache.find_plain(&PlainKey::said(said, inlet))?;
        let goes = total <= way.mtu && ttl >= way.ttl_min;
        let (head, _) = header.split_first_chunk::<{ ip::V4_BYTES }>()?;
        (goes && adds_up(head)).then_some(Plain { total: length, way })
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
        let Plain { total, way } = plain;
        packet.cut_to(total);
        match way.goal {
            Goal::Host => {
                self.counts.to_host += 1;
                Some(Up::Host(packet))
            }
            Goal::Neighbour => {
                self.take_plain_hop(inlet, &mut packet);
                self.transmit_now(now, way.number, packet, inlet, out)
            }
            Goal::Tun => {
                self.take_plain_hop(inlet, &mut packet);
                self.counts.to_tuns += 1;
                Some(Up::Tun(index(way.number), packet))
            }
        }
    }

    /// A packet that is not the machine's own has come a hop further.
    #[inline]
    fn take_plain_hop(&mut self, inlet: DeviceId, packet: &mut Packet) {
        if inlet != LOOPBACK {
            ip::take_hop_v4(packet.bytes_mut_soundly());
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
        if is_plain
            && self.nats.is_empty()
            && !self.has_tunnels
            && let Some(way) = PlainWay::of(decision, inlet == LOOPBACK)
        {
            self.cache.put_plain(PlainKey::of(head, inlet), way);
        }
    }
}
