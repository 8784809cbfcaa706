//! Randomness that is nobody's neighbour: each (seed, entity, purpose) has its own stream, found by hashing
//! the names. Whoever joins a scenario or draws more than before leaves every other draw as it was.

use evenkeel_engine::Duration;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher;

use crate::logarithm::minus_ln;

/// One stream of random numbers.
#[derive(Clone, Debug)]
pub struct Stream(ChaCha8Rng);

impl Stream {
    /// The stream of `entity` for `purpose` under `seed`.
    #[must_use]
    pub fn new(seed: u64, entity: &str, purpose: &str) -> Self {
        let mut key = [0; 32];
        for (place, half) in key.chunks_exact_mut(16).zip(0..) {
            let mut hasher = SipHasher13::new_with_keys(seed, half);
            for text in [entity, purpose] {
                hasher.write(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_le_bytes());
                hasher.write(text.as_bytes());
            }
            let hash = hasher.finish128();
            place.copy_from_slice([hash.h1.to_le_bytes(), hash.h2.to_le_bytes()].as_flattened());
        }
        Self(ChaCha8Rng::from_seed(key))
    }

    /// 64 random bits.
    #[inline]
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// An even draw from (0, 1], of 53 bits.
    #[inline]
    #[allow(clippy::cast_precision_loss, reason = "53 bits fit a float")]
    pub fn unit(&mut self) -> f64 {
        /// 2^-53.
        const STEP: f64 = 1.0 / 9_007_199_254_740_992.0;
        ((self.bits() >> 11) + 1) as f64 * STEP
    }

    /// An even draw from 0 to `bound - 1`; 0 where `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
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

    /// One of several, drawn where there is a choice.
    pub fn pick<'t, T>(&mut self, of: &'t [T]) -> Option<&'t T> {
        let count = u64::try_from(of.len()).unwrap_or(u64::MAX);
        let place = if count > 1 { self.below(count) } else { 0 };
        of.get(usize::try_from(place).unwrap_or(0))
    }

    /// Whether an event of the given probability, in millionths, happens.
    pub fn happens(&mut self, millionths: u32) -> bool {
        self.below(1_000_000) < u64::from(millionths)
    }

    /// An exponential draw with this mean, at most 40 times the mean.
    pub fn exponential(&mut self, mean: Duration) -> Duration {
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "53 bits are more than a draw can tell apart; the logarithm of one lies in (-37, 0]"
        )]
        {
            let nanoseconds = u64::try_from(mean.as_nanos()).unwrap_or(u64::MAX);
            Duration::from_nanos((minus_ln(self.bits()) * nanoseconds as f64) as u64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_depends_on_seed_entity_and_purpose_alone() {
        let first = |seed, entity, purpose| Stream::new(seed, entity, purpose).bits();
        assert_eq!(first(1, "a", "b"), first(1, "a", "b"));
        for (seed, entity, purpose) in
            [(2, "a", "b"), (1, "b", "b"), (1, "a", "a"), (1, "ab", ""), (1, "", "ab")]
        {
            assert_ne!(first(seed, entity, purpose), first(1, "a", "b"));
        }
    }

    #[test]
    fn draws_are_pinned() {
        // A change here changes every golden hash: it is a change of the format of seeds.
        let mut stream = Stream::new(1, "client.0", "arrivals");
        assert_eq!(stream.bits(), 13_579_500_739_998_346_776);
        assert_eq!(stream.exponential(Duration::from_millis(1)).as_nanos(), 386_632);
    }

    #[test]
    fn draws_of_the_unit_are_never_zero() {
        let mut stream = Stream::new(1, "random", "unit");
        assert!((0..10_000).all(|_| {
            let draw = stream.unit();
            draw > 0.0 && draw <= 1.0
        }));
    }

    #[test]
    fn draws_have_the_mean_that_they_should() {
        let mut stream = Stream::new(7, "x", "y");
        let count = 100_000;
        let total: u128 = (0..count).map(|_| stream.exponential(Duration::from_micros(1)).as_nanos()).sum();
        let mean = total / count;
        assert!((985..1015).contains(&mean), "{mean}");
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[usize::try_from(stream.below(7)).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (9_600..10_400).contains(count)), "{counts:?}");
        let lost = (0..100_000).filter(|_| stream.happens(10_000)).count();
        assert!((880..1120).contains(&lost), "{lost}");
        assert_eq!(stream.below(0), 0);
    }
}
