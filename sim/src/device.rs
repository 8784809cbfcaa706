//! The simulated device: what a driver puts in, the engine takes out through [`Device`], and the other way.
//!
//! No clock and no wire: it holds packets between two steps. Buffers move through without a copy and come
//! back to be used again.

use std::collections::VecDeque;
use std::ops::Range;

use evenkeel_engine::device::{BATCH_MAX, Device, Offload, PacketBuffer};
use evenkeel_engine::verdict::{InterfaceId, Verdict};

use crate::packet::Packet;

/// The most packets that wait for the engine: the queue of a Linux TUN device. Further ones are refused.
pub const QUEUE_MAX: usize = 500;
/// The most buffers that are kept for later: a full queue, a batch and as many under way.
const POOL_MAX: usize = 1_024;

/// A device without a machine.
#[derive(Debug, Default)]
pub struct SimDevice {
    /// Packets that the engine has.
    batch: Vec<Slot>,
    /// Packets that wait, in their order.
    waiting: Vec<Slot>,
    out: VecDeque<(InterfaceId, Packet)>,
    pool: Vec<Packet>,
    /// What became of each packet since it was fetched last, where somebody wants to know.
    decided: Option<Vec<Decided>>,
}

#[derive(Debug)]
struct Slot {
    packet: Packet,
    interface: InterfaceId,
    leaves_by: Option<InterfaceId>,
    /// Whether its flow was known before the batch, as far as somebody wants to know.
    is_known: bool,
    /// Where somebody wants to know: a box, since packets are many and those who want to know are few.
    seen: Option<Box<Seen>>,
}

/// What was seen of a packet.
#[derive(Debug)]
struct Seen {
    /// The packet before the engine edited it.
    before: Vec<u8>,
    /// How it ended.
    end: Option<Verdict>,
}

/// What became of a packet in the engine.
#[derive(Clone, Debug)]
pub(crate) struct Decided {
    /// What copies of the packet share.
    pub(crate) id: u64,
    /// Where it came in.
    pub(crate) interface: InterfaceId,
    /// The packet as it came in.
    pub(crate) before: Vec<u8>,
    /// Whether its flow was known before the batch.
    pub(crate) is_known: bool,
    /// How it ended; nothing for one that simply went on.
    pub(crate) end: Option<Verdict>,
    /// What left, and where.
    pub(crate) out: Option<(InterfaceId, Vec<u8>)>,
}

impl SimDevice {
    /// Lets a packet come in by `interface`. A refused one, for which there is no room, is given back.
    ///
    /// # Errors
    /// When [`QUEUE_MAX`] packets wait already.
    pub fn put(&mut self, interface: InterfaceId, packet: Packet) -> Result<(), Packet> {
        if self.waiting.len() >= QUEUE_MAX {
            return Err(packet);
        }
        self.waiting.push(Slot { packet, interface, leaves_by: None, is_known: false, seen: None });
        Ok(())
    }

    /// The next packet that left, and by which interface.
    pub fn take(&mut self) -> Option<(InterfaceId, Packet)> {
        self.out.pop_front()
    }

    /// A packet that has ended, whose buffer can be used again, or a new one.
    pub fn buffer(&mut self) -> Packet {
        self.pool.pop().unwrap_or_default()
    }

    /// Takes back a packet that has ended.
    pub fn recycle(&mut self, packet: Packet) {
        if self.pool.len() < POOL_MAX {
            self.pool.push(packet);
        }
    }

    /// Somebody wants to know what becomes of each packet.
    pub(crate) fn watch(&mut self) {
        self.decided = Some(Vec::new());
    }

    /// Whether somebody wants to know.
    pub(crate) const fn is_watched(&self) -> bool {
        self.decided.is_some()
    }

    /// Notes for each packet of the next batch whether its flow is known.
    pub(crate) fn note_known(&mut self, mut is_known: impl FnMut(InterfaceId, &[u8]) -> bool) {
        for slot in self.waiting.iter_mut().take(BATCH_MAX) {
            slot.is_known = is_known(slot.interface, slot.packet.bytes());
        }
    }

    /// What became of the packets since this was asked last.
    pub(crate) fn take_decided(&mut self) -> Vec<Decided> {
        self.decided.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Whether packets wait for the engine.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}

impl Device for SimDevice {
    fn receive(&mut self) -> usize {
        let before = self.batch.len();
        if before == 0 && self.waiting.len() <= BATCH_MAX {
            std::mem::swap(&mut self.batch, &mut self.waiting);
        } else {
            let count = self.waiting.len().min(BATCH_MAX.saturating_sub(before));
            self.batch.extend(self.waiting.drain(..count));
        }
        if self.decided.is_some() {
            for slot in self.batch.iter_mut().skip(before) {
                slot.seen = Some(Box::new(Seen { before: slot.packet.bytes().to_vec(), end: None }));
            }
        }
        self.batch.len()
    }

    #[inline]
    fn packet(&mut self, slot: usize) -> PacketBuffer<'_> {
        let Some(slot) = self.batch.get_mut(slot) else {
            // The engine never asks for a slot that was not announced; an empty packet is dropped as truncated.
            return PacketBuffer {
                interface: InterfaceId(u16::MAX),
                buffer: &mut [],
                range: 0..0,
                offload: Offload::default(),
            };
        };
        let (range, buffer) = slot.packet.parts_mut();
        PacketBuffer { interface: slot.interface, range, buffer, offload: Offload::default() }
    }

    fn forward(&mut self, slot: usize, interface: InterfaceId, range: Range<usize>) -> bool {
        let Some(slot) = self.batch.get_mut(slot) else { return false };
        slot.packet.set_range(range);
        slot.leaves_by = Some(interface);
        true
    }

    fn send(&mut self, interface: InterfaceId, bytes: &[u8]) -> bool {
        let packet = Packet::copied_into(self.buffer(), bytes);
        self.out.push_back((interface, packet));
        true
    }

    fn ended(&mut self, slot: usize, end: Verdict) {
        if let Some(seen) = self.batch.get_mut(slot).and_then(|slot| slot.seen.as_mut()) {
            seen.end = Some(end);
        }
    }

    fn flush(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        for Slot { packet, interface, leaves_by, is_known, seen } in batch.drain(..) {
            if let (Some(decided), Some(seen)) = (&mut self.decided, seen) {
                let Seen { before, end } = *seen;
                let out = leaves_by.map(|interface| (interface, packet.bytes().to_vec()));
                decided.push(Decided { id: packet.id, interface, before, is_known, end, out });
            }
            match leaves_by {
                Some(interface) => self.out.push_back((interface, packet)),
                None => self.recycle(packet),
            }
        }
        self.batch = batch;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: usize = evenkeel_engine::device::HEADROOM_BYTES;

    fn packet(byte: u8) -> Packet {
        Packet::copied_into(Packet::default(), &[byte; 20])
    }

    #[test]
    fn packets_come_in_batches_and_leave_in_order() {
        let mut device = SimDevice::default();
        for byte in 0..100 {
            device.put(InterfaceId(0), packet(byte)).unwrap();
        }
        assert_eq!(device.receive(), BATCH_MAX);
        assert!(device.forward(3, InterfaceId(1), AT..AT + 20));
        assert!(device.forward(1, InterfaceId(0), AT..AT + 20));
        assert!(device.send(InterfaceId(2), &[9; 4]));
        assert!(!device.forward(BATCH_MAX, InterfaceId(0), 0..1));
        device.flush();
        let out: Vec<_> =
            std::iter::from_fn(|| device.take()).map(|(at, packet)| (at.0, packet.bytes()[0])).collect();
        assert_eq!(out, [(2, 9), (0, 1), (1, 3)]);
        assert_eq!(device.receive(), 100 - BATCH_MAX);
    }

    #[test]
    fn a_full_queue_refuses() {
        let mut device = SimDevice::default();
        for _ in 0..QUEUE_MAX {
            device.put(InterfaceId(0), packet(0)).unwrap();
        }
        assert!(device.put(InterfaceId(0), packet(1)).is_err());
    }
}
