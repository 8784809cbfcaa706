//! A device for one batch at a time.

use std::ops::Range;

use evenkeel_engine::device::{BATCH_MAX, HEADROOM_BYTES, Offload, PacketBuffer};
use evenkeel_engine::{Device, InterfaceId};

/// A packet that came in.
#[derive(Debug)]
pub(crate) struct Slot {
    interface: InterfaceId,
    buffer: Vec<u8>,
    /// As it was before the engine saw it.
    pub(crate) original: Vec<u8>,
    pub(crate) offload: Offload,
    /// Whether its checksums are right, as far as it has any.
    pub(crate) is_sound: bool,
}

/// A packet that left.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) interface: InterfaceId,
    pub(crate) bytes: Vec<u8>,
    /// The place of the packet that it was before; none for what was born in the engine or kept by it.
    pub(crate) slot: Option<usize>,
}

/// What came in and left since it was cleared.
#[derive(Debug, Default)]
pub(crate) struct Once {
    pub(crate) slots: Vec<Slot>,
    pub(crate) sent: Vec<Sent>,
}

impl Once {
    /// Packets that wait for the engine.
    pub(crate) const fn len(&self) -> usize {
        self.slots.len()
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.slots.clear();
        self.sent.clear();
    }

    /// Takes a packet for the next batch. Returns whether there was room.
    pub(crate) fn push(&mut self, interface: u16, packet: Vec<u8>, offload: Offload, is_sound: bool) -> bool {
        if self.slots.len() >= BATCH_MAX {
            return false;
        }
        let mut buffer = Vec::with_capacity(HEADROOM_BYTES + packet.len());
        buffer.resize(HEADROOM_BYTES, 0);
        buffer.extend_from_slice(&packet);
        self.slots.push(Slot {
            interface: InterfaceId(interface),
            buffer,
            original: packet,
            offload,
            is_sound,
        });
        true
    }
}

impl Device for Once {
    fn receive(&mut self) -> usize {
        self.slots.len()
    }

    fn packet(&mut self, slot: usize) -> PacketBuffer<'_> {
        match self.slots.get_mut(slot) {
            Some(slot) => {
                let range = HEADROOM_BYTES..slot.buffer.len();
                PacketBuffer {
                    interface: slot.interface,
                    buffer: &mut slot.buffer,
                    range,
                    offload: slot.offload,
                }
            }
            None => PacketBuffer {
                interface: InterfaceId(0),
                buffer: &mut [],
                range: 0..0,
                offload: Offload::default(),
            },
        }
    }

    fn forward(&mut self, slot: usize, interface: InterfaceId, range: Range<usize>) -> bool {
        let bytes = self.slots.get(slot).and_then(|slot| slot.buffer.get(range));
        assert!(bytes.is_some(), "a packet lies in its buffer");
        let bytes = bytes.unwrap_or_default().to_vec();
        self.sent.push(Sent { interface, bytes, slot: Some(slot) });
        true
    }

    fn send(&mut self, interface: InterfaceId, bytes: &[u8]) -> bool {
        self.sent.push(Sent { interface, bytes: bytes.to_vec(), slot: None });
        true
    }

    fn flush(&mut self) {}
}
