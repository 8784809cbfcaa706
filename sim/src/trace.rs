//! The chained hash of what happened: equal chains mean equal runs, and where two runs differ the
//! checkpoints lead to the first difference.
//!
//! What goes in is what the world could see (time, place, kind, bytes), never a number of the program's own
//! (a slot, an address in memory, a sequence), so a faster queue or another layout leaves the hash alone.

use evenkeel_engine::Instant;

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

/// SipHash-1-3 under `keys` of a word and what follows it. Written out, since the word need then not be put in front of
/// bytes that lie elsewhere: every frame comes through here.
#[inline]
fn hash(keys: (u64, u64), place: u32, bytes: &[u8]) -> u64 {
    let mut state = State::new(keys);
    // The top byte of the last word is the length's lowest.
    let length = (bytes.len() as u64).wrapping_add(4) << 56;
    let Some((first, rest)) = bytes.split_first_chunk::<4>() else {
        let few = bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        state.take(length | few << 32 | u64::from(place));
        return state.finish();
    };
    state.take(u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(place));
    let (words, tail) = rest.as_chunks::<8>();
    for word in words {
        state.take(u64::from_le_bytes(*word));
    }
    state.take(length | tail_word(tail));
    state.finish()
}

/// Fewer than eight bytes as a number.
#[inline]
fn tail_word(tail: &[u8]) -> u64 {
    let (fours, rest) = tail.as_chunks::<4>();
    let (twos, rest) = rest.as_chunks::<2>();
    let mut word = rest.first().map_or(0, |byte| u64::from(*byte));
    if let Some(two) = twos.first() {
        word = word << 16 | u64::from(u16::from_le_bytes(*two));
    }
    fours.first().map_or(word, |four| word << 32 | u64::from(u32::from_le_bytes(*four)))
}

/// The four words of SipHash (Aumasson and Bernstein 2012).
#[derive(Clone, Copy, Debug)]
struct State([u64; 4]);

impl State {
    #[inline]
    const fn new((k0, k1): (u64, u64)) -> Self {
        Self([
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ])
    }

    #[inline]
    const fn round(&mut self) {
        let [a, b, c, d] = self.0;
        let (a, c) = (a.wrapping_add(b), c.wrapping_add(d));
        let (b, d) = (b.rotate_left(13) ^ a, d.rotate_left(16) ^ c);
        let (a, c) = (a.rotate_left(32).wrapping_add(d), c.wrapping_add(b));
        self.0 = [a, b.rotate_left(17) ^ c, c.rotate_left(32), d.rotate_left(21) ^ a];
    }

    #[inline]
    const fn take(&mut self, word: u64) {
        self.0[3] ^= word;
        self.round();
        self.0[0] ^= word;
    }

    #[inline]
    const fn finish(mut self) -> u64 {
        self.0[2] ^= 0xff;
        self.round();
        self.round();
        self.round();
        let [a, b, c, d] = self.0;
        a ^ b ^ c ^ d
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use siphasher::sip::SipHasher13;

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
    fn the_hash_is_that_of_the_word_and_the_bytes_in_one_piece() {
        let content: Vec<u8> = (0..=255).cycle().take(1_514).collect();
        for length in (0..80).chain([1_513, 1_514]) {
            let bytes = &content[..length];
            let whole = [&0xa1b2_c3d4_u32.to_le_bytes()[..], bytes].concat();
            let keys = (length as u64, 0x1234_5678_9abc_def0);
            let expected = SipHasher13::new_with_keys(keys.0, keys.1).hash(&whole);
            assert_eq!(hash(keys, 0xa1b2_c3d4, bytes), expected, "{length}");
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
