//! The device of a replay: a batch of packets at a time, and afterwards what became of each.
//!
//! Unlike the simulator's device it remembers: every slot keeps its buffer, where its packet went and how it ended, until
//! the next batch begins. No queue waits behind it, since whoever replays hands over no more than a batch.

use std::ops::Range;

use evenkeel_engine::device::{BATCH_MAX, Device, HEADROOM_BYTES, Offload, PacketBuffer};
use evenkeel_engine::verdict::{InterfaceId, Verdict};

/// One packet of the batch.
#[derive(Debug, Default)]
pub(super) struct Slot {
    buffer: Vec<u8>,
    range: Range<usize>,
    interface: InterfaceId,
    offload: Offload,
    out: Option<(InterfaceId, Range<usize>)>,
    end: Option<Verdict>,
}

impl Slot {
    /// Where it came in.
    pub(super) const fn interface(&self) -> InterfaceId {
        self.interface
    }

    /// What left, and where. The same bytes as came in, edited by the engine.
    pub(super) fn out(&self) -> Option<(InterfaceId, &[u8])> {
        let (interface, range) = self.out.clone()?;
        Some((interface, self.buffer.get(range)?))
    }

    /// How it ended. `None` for a packet that simply went on.
    pub(super) const fn end(&self) -> Option<Verdict> {
        self.end
    }

    /// The packet as it was put here, and until the engine has taken it.
    pub(super) fn bytes(&self) -> &[u8] {
        self.buffer.get(self.range.clone()).unwrap_or_default()
    }
}

/// The device.
#[derive(Debug)]
pub(super) struct Tap {
    slots: Vec<Slot>,
    filled: usize,
    /// Whether the engine has taken the batch.
    is_taken: bool,
    /// What was born in the engine or had waited there; places beyond `born_count` are kept for later.
    born: Vec<(InterfaceId, Vec<u8>)>,
    born_count: usize,
}

impl Default for Tap {
    fn default() -> Self {
        let slots = (0..BATCH_MAX).map(|_| Slot::default()).collect();
        Self { slots, filled: 0, is_taken: false, born: Vec::new(), born_count: 0 }
    }
}

impl Tap {
    /// How many packets are in the batch.
    pub(super) const fn len(&self) -> usize {
        self.filled
    }

    /// Whether there is no room for another packet.
    pub(super) const fn is_full(&self) -> bool {
        self.filled >= BATCH_MAX
    }

    /// Puts a packet made of `parts` into the batch, and gives its bytes from behind the first part on, to be changed.
    /// There must be room.
    #[inline]
    pub(super) fn put(&mut self, interface: InterfaceId, parts: [&[u8]; 2], offload: Offload) -> &mut [u8] {
        let Some(slot) = self.slots.get_mut(self.filled) else { return &mut [] };
        self.filled += 1;
        let [first, second] = parts;
        slot.buffer.clear();
        slot.buffer.resize(HEADROOM_BYTES, 0);
        slot.buffer.extend_from_slice(first);
        slot.buffer.extend_from_slice(second);
        slot.range = HEADROOM_BYTES..slot.buffer.len();
        slot.interface = interface;
        slot.offload = offload;
        slot.out = None;
        slot.end = None;
        slot.buffer.get_mut(HEADROOM_BYTES + first.len()..).unwrap_or_default()
    }

    /// The packets of the batch.
    pub(super) fn slots(&self) -> &[Slot] {
        self.slots.get(..self.filled).unwrap_or_default()
    }

    /// What was born in the engine since the batch began.
    pub(super) fn born(&self) -> &[(InterfaceId, Vec<u8>)] {
        self.born.get(..self.born_count).unwrap_or_default()
    }

    /// Begins the next batch.
    pub(super) const fn clear(&mut self) {
        self.filled = 0;
        self.born_count = 0;
        self.is_taken = false;
    }
}

impl Device for Tap {
    fn receive(&mut self) -> usize {
        if self.is_taken { 0 } else { self.filled }
    }

    fn packet(&mut self, slot: usize) -> PacketBuffer<'_> {
        let Some(slot) = self.slots.get_mut(slot) else {
            // The engine never asks for a slot that was not announced; an empty packet is dropped as truncated.
            let interface = InterfaceId(u16::MAX);
            return PacketBuffer { interface, buffer: &mut [], range: 0..0, offload: Offload::default() };
        };
        PacketBuffer {
            interface: slot.interface,
            range: slot.range.clone(),
            buffer: &mut slot.buffer,
            offload: slot.offload,
        }
    }

    fn forward(&mut self, slot: usize, interface: InterfaceId, range: Range<usize>) -> bool {
        let Some(slot) = self.slots.get_mut(slot) else { return false };
        slot.out = Some((interface, range));
        true
    }

    fn send(&mut self, interface: InterfaceId, bytes: &[u8]) -> bool {
        if self.born_count == self.born.len() {
            self.born.push((interface, Vec::new()));
        }
        if let Some((place, buffer)) = self.born.get_mut(self.born_count) {
            *place = interface;
            buffer.clear();
            buffer.extend_from_slice(bytes);
        }
        self.born_count += 1;
        true
    }

    fn flush(&mut self) {
        self.is_taken = true;
    }

    fn ended(&mut self, slot: usize, end: Verdict) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.end = Some(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_engine::verdict::DropReason;

    #[test]
    fn a_batch_is_taken_once_and_remembered_until_the_next() {
        let mut tap = Tap::default();
        for number in 0..BATCH_MAX {
            assert!(!tap.is_full());
            let byte = u8::try_from(number).unwrap();
            let body = tap.put(InterfaceId(0), [&[9], &[byte, 5]], Offload::default());
            body[1] = 6;
        }
        assert!(tap.is_full());
        assert_eq!(tap.receive(), BATCH_MAX);
        assert_eq!(tap.packet(3).buffer[HEADROOM_BYTES..], [9, 3, 6]);
        assert!(tap.forward(3, InterfaceId(1), HEADROOM_BYTES + 1..HEADROOM_BYTES + 3));
        tap.ended(4, Verdict::Drop(DropReason::NoFlow));
        assert!(tap.send(InterfaceId(2), b"born"));
        tap.flush();
        assert_eq!(tap.receive(), 0, "a step that only passes time gets nothing");
        assert_eq!(tap.slots()[3].out(), Some((InterfaceId(1), &[3, 6][..])));
        assert_eq!(tap.slots()[4].end(), Some(Verdict::Drop(DropReason::NoFlow)));
        assert_eq!(tap.born(), [(InterfaceId(2), b"born".to_vec())]);
        tap.clear();
        assert_eq!((tap.len(), tap.born().len()), (0, 0));
        tap.put(InterfaceId(0), [&[], &[1]], Offload::default());
        assert!(tap.slots()[0].out().is_none() && tap.slots()[0].end().is_none());
    }
}
