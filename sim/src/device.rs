//! The simulated device: what a driver puts in, the engine takes out through [`Device`], and the other way.
//!
//! No clock and no wire: it holds packets between two steps. Buffers move through without a copy and come
//! back to be used again.

use std::collections::VecDeque;
use std::ops::Range;

use evenkeel_engine::device::{BATCH_MAX, Device, Offload, PacketBuffer};
use evenkeel_engine::verdict::InterfaceId;

use crate::packet::Packet;

/// The most packets that wait for the engine: the queue of a Linux TUN device. Further ones are refused.
pub const QUEUE_MAX: usize = 500;
/// The most buffers that are kept for later: a full queue, a batch and as many under way.
const POOL_MAX: usize = 1_024;

/// A device without a machine.
#[derive(Debug, Default)]
pub struct SimDevice {
    waiting: VecDeque<(InterfaceId, Packet)>,
    slots: Vec<Slot>,
    out: VecDeque<(InterfaceId, Packet)>,
    pool: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct Slot {
    interface: InterfaceId,
    packet: Packet,
    leaves_by: Option<(InterfaceId, Range<usize>)>,
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
        self.waiting.push_back((interface, packet));
        Ok(())
    }

    /// The next packet that left, and by which interface.
    pub fn take(&mut self) -> Option<(InterfaceId, Packet)> {
        self.out.pop_front()
    }

    /// A buffer that was used before, or a new one.
    pub fn buffer(&mut self) -> Vec<u8> {
        self.pool.pop().unwrap_or_default()
    }

    /// Takes back a buffer.
    pub fn recycle(&mut self, buffer: Vec<u8>) {
        if self.pool.len() < POOL_MAX {
            self.pool.push(buffer);
        }
    }

    /// Whether packets wait for the engine.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}

impl Device for SimDevice {
    fn receive(&mut self) -> usize {
        while self.slots.len() < BATCH_MAX {
            let Some((interface, packet)) = self.waiting.pop_front() else { break };
            self.slots.push(Slot { interface, packet, leaves_by: None });
        }
        self.slots.len()
    }

    fn packet(&mut self, slot: usize) -> PacketBuffer<'_> {
        let Some(slot) = self.slots.get_mut(slot) else {
            // The engine never asks for a slot that was not announced; an empty packet is dropped as truncated.
            return PacketBuffer {
                interface: InterfaceId(u16::MAX),
                buffer: &mut [],
                range: 0..0,
                offload: Offload::default(),
            };
        };
        PacketBuffer {
            interface: slot.interface,
            range: slot.packet.range.clone(),
            buffer: &mut slot.packet.buffer,
            offload: Offload::default(),
        }
    }

    fn forward(&mut self, slot: usize, interface: InterfaceId, range: Range<usize>) -> bool {
        let Some(slot) = self.slots.get_mut(slot) else { return false };
        slot.leaves_by = Some((interface, range));
        true
    }

    fn send(&mut self, interface: InterfaceId, bytes: &[u8]) -> bool {
        let packet = Packet::copied_into(self.buffer(), bytes);
        self.out.push_back((interface, packet));
        true
    }

    fn flush(&mut self) {
        let mut slots = std::mem::take(&mut self.slots);
        for slot in slots.drain(..) {
            match slot.leaves_by {
                Some((interface, range)) => {
                    self.out.push_back((interface, Packet { buffer: slot.packet.buffer, range }));
                }
                None => self.recycle(slot.packet.buffer),
            }
        }
        self.slots = slots;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: usize = evenkeel_engine::device::HEADROOM_BYTES;

    fn packet(byte: u8) -> Packet {
        Packet::copied_into(Vec::new(), &[byte; 20])
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
