//! The chained hash of what happened: equal chains mean equal runs, and where two runs differ the
//! checkpoints lead to the first difference.
//!
//! What goes in is what the world could see (time, place, kind, bytes), never a number of the program's own
//! (a slot, an address in memory, a sequence), so a faster queue or another layout leaves the hash alone.

use std::hash::Hasher;

use evenkeel_engine::Instant;
use siphasher::sip::SipHasher13;

use crate::packet::Packet;
use crate::wires::frame::{grow_front, take_front};

/// Events between two checkpoints.
pub const CHECKPOINT_EVENTS: u64 = 1 << 16;

/// One chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    chain: u64,
    events: u64,
    checkpoints: Vec<u64>,
}

impl Trace {
    /// Links in one event.
    pub fn add(&mut self, at: Instant, place: u32, bytes: &[u8]) {
        let mut hasher = SipHasher13::new_with_keys(self.chain, at.as_nanos());
        hasher.write(&place.to_le_bytes());
        hasher.write(bytes);
        self.link_in(hasher.finish());
    }

    /// The same for a frame. What stands before it in its buffer is lost: the place is put there, since bytes in one piece
    /// are hashed in half the time.
    pub fn add_frame(&mut self, at: Instant, place: u32, packet: &mut Packet) {
        let place = place.to_le_bytes();
        grow_front(packet, place.len());
        if let Some(front) = packet.bytes_mut().first_chunk_mut() {
            *front = place;
        }
        let hash = SipHasher13::new_with_keys(self.chain, at.as_nanos()).hash(packet.bytes());
        take_front(packet, place.len());
        self.link_in(hash);
    }

    fn link_in(&mut self, hash: u64) {
        self.chain = hash;
        self.events += 1;
        if self.events.is_multiple_of(CHECKPOINT_EVENTS) {
            self.checkpoints.push(self.chain);
        }
    }

    /// The hash of everything so far.
    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.chain
    }

    /// Events so far.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.events
    }

    /// The number of the last event and the hash with it.
    #[must_use]
    pub const fn link(&self) -> (u64, u64) {
        (self.events, self.chain)
    }

    /// The hash after every 65,536 events.
    #[must_use]
    pub fn checkpoints(&self) -> &[u64] {
        &self.checkpoints
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_depends_on_time_place_bytes_and_order() {
        let run = |events: &[(u64, u32, &[u8])]| {
            let mut trace = Trace::default();
            for (at, place, bytes) in events {
                trace.add(Instant::from_nanos(*at), *place, bytes);
            }
            trace.hash()
        };
        let base = run(&[(1, 1, b"a"), (2, 2, b"b")]);
        assert_eq!(base, run(&[(1, 1, b"a"), (2, 2, b"b")]));
        assert_ne!(base, run(&[(2, 2, b"b"), (1, 1, b"a")]));
        assert_ne!(base, run(&[(1, 1, b"a"), (3, 2, b"b")]));
        assert_ne!(base, run(&[(1, 1, b"a"), (2, 3, b"b")]));
        assert_ne!(base, run(&[(1, 1, b"a"), (2, 2, b"c")]));
        assert_ne!(base, run(&[(1, 1, b"a")]));
    }

    #[test]
    fn a_frame_counts_as_its_bytes_and_stays_as_it_is() {
        for length in [0, 1, 7, 8, 60, 1_514] {
            let (mut bytes, mut frame) = (Trace::default(), Trace::default());
            let content = vec![7; length];
            let roomy = Packet::copied_into(Vec::new(), &content);
            let tight = Packet { buffer: content.clone(), range: 0..length, ..Packet::default() };
            for mut packet in [roomy, tight] {
                bytes.add(Instant::from_nanos(5), 3, &content);
                frame.add_frame(Instant::from_nanos(5), 3, &mut packet);
                assert_eq!((frame.hash(), packet.bytes()), (bytes.hash(), &content[..]));
            }
        }
    }

    #[test]
    fn checkpoints_come_at_their_interval() {
        let mut trace = Trace::default();
        for event in 0..CHECKPOINT_EVENTS * 2 + 5 {
            trace.add(Instant::from_nanos(event), 0, &[]);
        }
        assert_eq!(trace.checkpoints().len(), 2);
        assert_eq!(trace.events(), CHECKPOINT_EVENTS * 2 + 5);
    }
}
