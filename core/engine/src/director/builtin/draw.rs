//! Where the built-in schedulers that choose at random get their numbers: one stream for each director, from the
//! plan's seed and the director's name alone, so that nobody else's draws change them.

use alloc::vec::Vec;

use siphasher::sip::SipHasher13;

/// Separates these streams from everything else that is drawn from the plan's seed.
const SALT: u64 = 0x7363_6865_6475_6c65;

/// The seed of the scheduler of the director called `name`, in an engine whose plan has `seed`.
#[must_use]
pub fn seed_of(seed: u64, name: &str) -> u64 {
    SipHasher13::new_with_keys(seed, SALT).hash(name.as_bytes())
}

/// A stream of random numbers: `SplitMix64` (Steele, Lea and Flood, OOPSLA 2014), of period 2^64.
#[derive(Clone, Debug)]
pub(super) struct Draw(u64);

impl Draw {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The place in the stream, from which [`Draw::new`] goes on.
    pub(super) const fn place(&self) -> u64 {
        self.0
    }

    /// 64 random bits.
    pub(super) const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// An even draw from 0 to `bound - 1`; 0 where `bound` is 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        // The high half of a product; draws that would favour low results are drawn again (at most every other).
        let threshold = bound.wrapping_neg().checked_rem(bound).unwrap_or(0);
        loop {
            let product = u128::from(self.bits()) * u128::from(bound);
            #[allow(clippy::cast_possible_truncation, reason = "the halves of the product")]
            let (high, low) = ((product >> 64) as u64, product as u64);
            if low >= threshold {
                return high;
            }
        }
    }
}

/// The numbers that a stream gives on its way from one place to another, at most `most` of them.
#[must_use]
pub fn drawn_between(from: u64, to: u64, most: usize) -> Vec<u64> {
    let mut draw = Draw::new(from);
    let mut numbers = Vec::new();
    while draw.place() != to && numbers.len() < most {
        numbers.push(draw.bits());
    }
    numbers
}

/// Spreads what the bits of `value` say over all of them: the finisher of `SplitMix64`, which is one-to-one.
pub(super) const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_pinned_and_even() {
        // A change here changes what every seed does: it is a change of the format of seeds.
        assert_eq!(Draw::new(1).bits(), 10_451_216_379_200_822_465);
        assert_eq!(seed_of(1, "web"), seed_of(1, "web"));
        assert_ne!(seed_of(1, "web"), seed_of(1, "mail"));
        assert_ne!(seed_of(1, "web"), seed_of(2, "web"));
        let mut draw = Draw::new(7);
        let mut counts = [0_u32; 7];
        (0..70_000).for_each(|_| counts[usize::try_from(draw.below(7)).unwrap()] += 1);
        assert!(counts.iter().all(|count| (9_600..10_400).contains(count)), "{counts:?}");
        assert_eq!((draw.below(0), draw.below(1)), (0, 0));
    }
}
