//! Packets that wait to leave at the end of the batch: those that were born here, and those that the engine kept.

use alloc::vec;
use alloc::vec::Vec;

use crate::verdict::InterfaceId;

/// The most bytes that wait: room for four of the largest packets, cut into pieces, in one batch; further packets are
/// counted as lost.
const BYTES_MAX: usize = 4 * 65_536;

/// The most packets that wait.
const PACKETS_MAX: usize = 1024;

/// Packets in the order in which they were queued, in memory that is allocated once.
#[derive(Debug)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    used: usize,
    waiting: Vec<Waiting>,
}

/// A packet that waits.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    interface: InterfaceId,
    end: usize,
    kind: Kind,
}

/// Where a packet in the outbox comes from, so that it is counted where it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Born here: an error, a reset, a question for a neighbour.
    Born,
    /// A piece of a packet that is counted already.
    Piece,
    /// A packet that was kept until it could go on.
    Released,
}

impl Default for Outbox {
    /// An empty outbox with all its room.
    fn default() -> Self {
        Self { bytes: vec![0; BYTES_MAX], used: 0, waiting: Vec::with_capacity(PACKETS_MAX) }
    }
}

impl Outbox {
    /// Queues a packet made of `parts`, one behind the other. Returns whether there was room.
    pub(crate) fn push(&mut self, interface: InterfaceId, kind: Kind, parts: &[&[u8]]) -> bool {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let end = self.used + length;
        if self.waiting.len() >= PACKETS_MAX {
            return false;
        }
        let Some(mut place) = self.bytes.get_mut(self.used..end) else { return false };
        for part in parts {
            let (head, tail) = place.split_at_mut(part.len());
            head.copy_from_slice(part);
            place = tail;
        }
        self.waiting.push(Waiting { interface, end, kind });
        self.used = end;
        true
    }

    /// Whether nothing waits.
    pub(crate) const fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The packets that wait, in order.
    pub(crate) fn packets(&self) -> impl Iterator<Item = (InterfaceId, Kind, &[u8])> {
        let mut start = 0;
        self.waiting.iter().filter_map(move |waiting| {
            let packet = self.bytes.get(start..waiting.end)?;
            start = waiting.end;
            Some((waiting.interface, waiting.kind, packet))
        })
    }

    /// Forgets what waited.
    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_leave_whole_and_in_order_and_the_room_has_an_end() {
        let mut outbox = Outbox::default();
        assert!(outbox.push(InterfaceId(1), Kind::Born, &[b"ab", b"", b"c"]));
        assert!(outbox.push(InterfaceId(0), Kind::Piece, &[b"d"]));
        let waiting: Vec<_> = outbox.packets().collect();
        assert_eq!(
            waiting,
            [(InterfaceId(1), Kind::Born, &b"abc"[..]), (InterfaceId(0), Kind::Piece, &b"d"[..])]
        );
        outbox.clear();
        let large = [0; 65_536];
        let taken = (0..5).map(|_| outbox.push(InterfaceId(0), Kind::Released, &[&large]));
        assert_eq!(taken.collect::<Vec<_>>(), [true, true, true, true, false]);
        outbox.clear();
        let taken = (0..PACKETS_MAX + 3).filter(|_| outbox.push(InterfaceId(0), Kind::Born, &[b"x"])).count();
        assert_eq!(taken, PACKETS_MAX);
    }
}
