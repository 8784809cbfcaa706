//! The chained hash of what happened: equal chains mean equal runs, and where two runs differ the
//! checkpoints lead to the first difference.
//!
//! What goes in is what the world could see (time, place, kind, bytes), never a number of the program's own
//! (a slot, an address in memory, a sequence), so a faster queue or another layout leaves the hash alone.

use evenkeel_engine::Instant;
use xxhash_rust::xxh3::xxh3_64_with_seed;

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
    #[inline]
    pub fn add(&mut self, at: Instant, place: u32, bytes: &[u8]) {
        self.link_in(hash((self.chain, at.as_nanos()), place, bytes));
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

/// XXH3 of the bytes, with everything else in its seed: every frame comes through here.
#[inline]
fn hash((chain, time): (u64, u64), place: u32, bytes: &[u8]) -> u64 {
    /// Bits without a pattern: the fraction of the square root of 2 and of 3. No time reaches the second one.
    const ODD: [u64; 2] = [0x6a09_e667_f3bc_c909, 0xbb67_ae85_84ca_a73b];
    let product = u128::from(chain ^ ODD[0] ^ u64::from(place) << 32) * u128::from(time ^ ODD[1]);
    #[allow(clippy::cast_possible_truncation, reason = "the halves of the product")]
    let seed = (product >> 64) as u64 ^ product as u64;
    xxh3_64_with_seed(bytes, seed)
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
    fn every_bit_of_an_event_changes_half_of_the_hash() {
        let content: Vec<u8> = (0..=255).cycle().take(300).collect();
        for length in [0, 1, 5, 20, 60, 106, 200, 300] {
            let event = ((3, 1_000_000), 7, &content[..length]);
            let base = hash(event.0, event.1, event.2);
            let mut others = Vec::new();
            for bit in 0..64 {
                others.push(hash((3 ^ 1 << bit, 1_000_000), 7, event.2));
                others.push(hash((3, 1_000_000 ^ 1 << bit), 7, event.2));
            }
            others.extend((0..32).map(|bit| hash(event.0, 7 ^ 1 << bit, event.2)));
            for bit in 0..8 * length {
                let mut bytes = event.2.to_vec();
                bytes[bit / 8] ^= 1 << (bit % 8);
                others.push(hash(event.0, 7, &bytes));
            }
            let changed = others.iter().map(|other| (other ^ base).count_ones());
            assert!(changed.clone().all(|bits| (8..=56).contains(&bits)), "{length}");
            let mean = f64::from(changed.sum::<u32>()) / others.len() as f64;
            assert!((31.0..33.0).contains(&mean), "{length}: {mean}");
        }
    }

    #[test]
    fn the_hash_is_pinned() {
        // A change here changes every hash that anybody has noted.
        let mut trace = Trace::default();
        trace.add(Instant::from_nanos(1), 2, b"frame");
        assert_eq!(trace.hash(), 0x7561_9aa0_feb2_2dd7);
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
