//! A histogram of whole numbers with buckets of constant relative width, for latencies above all.
//!
//! In: values, or another histogram. Out: counts, mean, quantiles with a stated relative error, buckets. It
//! holds whole numbers only, so that merging in any order gives the same histogram on every machine.
//!
//! ```text
//! value    0 1 2 ... 127 | 128 129 ... 255 | 256..257 258..259 ... | 512..515 ...
//! width    1             | 1               | 2                     | 4
//! ```
//! Each power of two is cut into `2^BITS` buckets. A quantile is the middle of its bucket, so it is at most
//! half a width away from a value that was recorded.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bits of precision where nothing else is said: quantiles are right to 1/256, 0.4 %.
pub const BITS: u32 = 7;

/// A quantile, in millionths: 500,000 is the median.
pub type Millionths = u32;

/// How often values of which size came. `BITS` says how finely (1 to 16).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram<const BITS: u32 = 7> {
    /// Counts by bucket, up to the highest that has one; at most [`Histogram::BUCKETS_MAX`].
    counts: Vec<u64>,
    count: u64,
    sum: u64,
    /// Of no meaning while nothing is recorded.
    min: u64,
    max: u64,
}

/// One bucket of a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// The least value that falls into it.
    pub first: u64,
    /// The greatest value that falls into it.
    pub last: u64,
    /// Values that did.
    pub count: u64,
}

impl<const BITS: u32> Histogram<BITS> {
    /// The largest distance of a quantile from a recorded value, as one part of so many.
    pub const ERROR_PARTS: u64 = 1 << (BITS + 1);
    /// Buckets that cover every value: 7,424 (58 KiB) with 7 bits.
    pub const BUCKETS_MAX: usize = ((64 - BITS as usize) + 1) << BITS;

    /// An empty histogram. Buckets are made when a value needs them.
    #[must_use]
    pub const fn new() -> Self {
        Self { counts: Vec::new(), count: 0, sum: 0, min: 0, max: 0 }
    }

    // Commands.

    /// Takes in one value.
    #[inline]
    pub fn record(&mut self, value: u64) {
        self.record_many(value, 1);
    }

    /// Takes in the same value so many times.
    #[inline(always)]
    pub fn record_many(&mut self, value: u64, times: u64) {
        if times == 0 {
            return;
        }
        let index = Self::index(value);
        if index >= self.counts.len() {
            self.widen(index + 1);
        }
        if let Some(place) = self.counts.get_mut(index) {
            *place = place.saturating_add(times);
        }
        self.min = if self.count == 0 { value } else { self.min.min(value) };
        self.max = self.max.max(value);
        self.count = self.count.saturating_add(times);
        self.sum = self.sum.saturating_add(value.saturating_mul(times));
    }

    #[cold]
    fn widen(&mut self, buckets: usize) {
        self.counts.resize(buckets, 0);
    }

    /// Takes in everything that another histogram has.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        if other.counts.len() > self.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (place, count) in self.counts.iter_mut().zip(&other.counts) {
            *place = place.saturating_add(*count);
        }
        self.min = if self.count == 0 { other.min } else { self.min.min(other.min) };
        self.max = self.max.max(other.max);
        self.count = self.count.saturating_add(other.count);
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// Forgets every value and keeps the room.
    pub fn clear(&mut self) {
        self.counts.clear();
        (self.count, self.sum, self.min, self.max) = (0, 0, 0, 0);
    }

    // Questions.

    /// Values that were recorded.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Their sum, at most 2^64 - 1 (584 years of nanoseconds).
    #[must_use]
    pub const fn sum(&self) -> u64 {
        self.sum
    }

    /// The least value, exactly.
    #[must_use]
    pub fn min(&self) -> Option<u64> {
        (self.count > 0).then_some(self.min)
    }

    /// The greatest value, exactly.
    #[must_use]
    pub fn max(&self) -> Option<u64> {
        (self.count > 0).then_some(self.max)
    }

    /// The mean, exactly but for the part behind the point.
    #[must_use]
    pub fn mean(&self) -> Option<u64> {
        self.sum.checked_div(self.count)
    }

    /// The value that this share of all values do not exceed, to [`Histogram::ERROR_PARTS`]; the greatest
    /// value exactly for 1,000,000 millionths and more.
    #[must_use]
    pub fn quantile(&self, share: Millionths) -> Option<u64> {
        if share >= 1_000_000 {
            return self.max();
        }
        let wanted = (u128::from(self.count) * u128::from(share)).div_ceil(1_000_000).max(1);
        let mut seen: u128 = 0;
        let bucket = self.buckets().find(|bucket| {
            seen += u128::from(bucket.count);
            seen >= wanted
        })?;
        let middle = bucket.first + (bucket.last - bucket.first).div_ceil(2);
        Some(middle.clamp(self.min, self.max))
    }

    /// Values up to and including `value`; those of the bucket in which it lies count when the bucket ends
    /// there.
    #[must_use]
    pub fn count_to(&self, value: u64) -> u64 {
        let below = self.buckets().take_while(|bucket| bucket.last <= value);
        below.fold(0, |sum, bucket| sum.saturating_add(bucket.count))
    }

    /// The buckets that have values, in the order of values.
    pub fn buckets(&self) -> impl Iterator<Item = Bucket> {
        let used = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        used.map(|(index, count)| {
            let (first, last) = Self::bounds(index);
            Bucket { first, last, count: *count }
        })
    }

    /// The bucket of a value. Values below `2^(BITS + 1)` have one of their own.
    const fn index(value: u64) -> usize {
        let magnitude = u64::BITS - value.leading_zeros();
        let shift = magnitude.saturating_sub(BITS + 1);
        #[allow(clippy::cast_possible_truncation, reason = "below 2^(BITS + 1), and BITS is at most 16")]
        let rest = (value >> shift) as usize;
        ((shift as usize) << BITS) + rest
    }

    /// The first and the last value of a bucket.
    fn bounds(index: usize) -> (u64, u64) {
        let shift = (index >> BITS).saturating_sub(1);
        let rest = u64::try_from(index - (shift << BITS)).unwrap_or(u64::MAX);
        let first = rest << shift;
        (first, first + ((1u64 << shift) - 1))
    }
}

/// The form on paper: only the buckets that have values, each as number and count.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    bits: u32,
    count: u64,
    sum: u64,
    min: u64,
    max: u64,
    buckets: Vec<(usize, u64)>,
}

impl<const BITS: u32> Serialize for Histogram<BITS> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let used = self.counts.iter().copied().enumerate().filter(|(_, count)| *count > 0);
        let Self { count, sum, min, max, .. } = *self;
        Written { bits: BITS, count, sum, min, max, buckets: used.collect() }.serialize(serializer)
    }
}

impl<'de, const BITS: u32> Deserialize<'de> for Histogram<BITS> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Written { bits, count, sum, min, max, buckets } = Written::deserialize(deserializer)?;
        if bits != BITS {
            return Err(D::Error::custom(format!("a histogram of {bits} bits; this one has {BITS}")));
        }
        let mut counts = Vec::new();
        for (index, count) in &buckets {
            if *index >= Self::BUCKETS_MAX || *index < counts.len() {
                return Err(D::Error::custom(format!("bucket {index} of a histogram is out of order")));
            }
            counts.resize(*index, 0);
            counts.push(*count);
        }
        let total = counts.iter().fold(0u64, |sum, count| sum.saturating_add(*count));
        if total != count {
            return Err(D::Error::custom(format!(
                "a histogram of {count} values has {total} in its buckets"
            )));
        }
        let first = buckets.first().map_or(0, |(index, _)| *index);
        let last = buckets.last().map_or(0, |(index, _)| *index);
        if count > 0 && (min > max || Self::index(min) != first || Self::index(max) != last) {
            return Err(D::Error::custom(format!("a histogram from {min} to {max} has other buckets")));
        }
        Ok(Self { counts, count, sum, min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    #[test]
    fn buckets_follow_each_other_without_gap_up_to_the_largest_value() {
        fn check<const BITS: u32>() {
            let mut next = 0u64;
            for index in 0..Histogram::<BITS>::BUCKETS_MAX {
                let (first, last) = Histogram::<BITS>::bounds(index);
                assert_eq!(first, next, "bucket {index}");
                assert!(last >= first);
                assert_eq!(Histogram::<BITS>::index(first), index);
                assert_eq!(Histogram::<BITS>::index(last), index);
                next = last.wrapping_add(1);
            }
            assert_eq!(next, 0, "the last bucket ends at the largest value");
        }
        check::<1>();
        check::<4>();
        check::<7>();
    }

    #[test]
    fn quantiles_are_as_near_as_stated_to_those_of_the_sorted_values() {
        let mut stream = Stream::new(1, "histogram", "values");
        let mut histogram = Histogram::<BITS>::new();
        let mut values: Vec<u64> = (0..20_000).map(|_| stream.bits() >> stream.below(64)).collect();
        for value in &values {
            histogram.record(*value);
        }
        values.sort_unstable();
        for share in [0, 1, 10_000, 500_000, 900_000, 990_000, 999_000, 999_999, 1_000_000] {
            let rank = (values.len() as u64 * u64::from(share)).div_ceil(1_000_000).max(1);
            let exact = values[usize::try_from(rank - 1).unwrap()];
            let found = histogram.quantile(share).unwrap();
            assert!(
                found.abs_diff(exact) <= exact / Histogram::<BITS>::ERROR_PARTS + 1,
                "{share}: {found} {exact}"
            );
        }
        assert_eq!(histogram.min(), values.first().copied());
        assert_eq!(histogram.max(), values.last().copied());
    }

    #[test]
    fn small_values_are_exact() {
        let mut histogram = Histogram::<BITS>::new();
        for value in 1..=200 {
            histogram.record(value);
        }
        assert_eq!((histogram.quantile(500_000), histogram.quantile(990_000)), (Some(100), Some(198)));
        assert_eq!((histogram.mean(), histogram.sum(), histogram.count_to(50)), (Some(100), 20_100, 50));
    }

    #[test]
    fn merging_in_any_order_is_recording_everything_in_one() {
        let mut stream = Stream::new(2, "histogram", "values");
        let mut parts: Vec<Histogram> = vec![Histogram::new(); 5];
        let mut whole = Histogram::new();
        for turn in 0..5_000 {
            let value = stream.bits() >> (stream.below(40) + 8);
            parts[turn % 4].record(value);
            whole.record(value);
        }
        let (mut forth, mut back) = (Histogram::new(), Histogram::new());
        parts.iter().for_each(|part| forth.merge(part));
        parts.iter().rev().for_each(|part| back.merge(part));
        assert_eq!(forth, whole);
        assert_eq!(back, whole);
    }

    #[test]
    fn nothing_has_no_quantile_and_no_mean() {
        let mut histogram = Histogram::<BITS>::new();
        histogram.record_many(7, 0);
        histogram.merge(&Histogram::new());
        assert_eq!((histogram.quantile(500_000), histogram.mean(), histogram.max()), (None, None, None));
        histogram.record(9);
        histogram.clear();
        assert_eq!((histogram.count(), histogram.min(), histogram.buckets().count()), (0, None, 0));
    }

    #[test]
    fn sums_stop_at_their_largest_value() {
        let mut histogram = Histogram::<BITS>::new();
        histogram.record_many(u64::MAX, 3);
        histogram.record_many(1, u64::MAX);
        assert_eq!(
            (histogram.sum(), histogram.count(), histogram.max()),
            (u64::MAX, u64::MAX, Some(u64::MAX))
        );
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let mut histogram = Histogram::<BITS>::new();
        for value in [0, 1, 500, 123_456_789, u64::MAX] {
            histogram.record(value);
        }
        let text = serde_json::to_string(&histogram).unwrap();
        assert_eq!(serde_json::from_str::<Histogram>(&text).unwrap(), histogram);
        let empty = serde_json::to_string(&Histogram::<BITS>::new()).unwrap();
        assert_eq!(serde_json::from_str::<Histogram>(&empty).unwrap(), Histogram::new());
    }

    #[test]
    fn what_contradicts_itself_is_not_read() {
        let read = |text: &str| serde_json::from_str::<Histogram>(text).map_err(|error| error.to_string());
        let of = |bits: u32, count: u64, max: u64, buckets: &str| {
            format!(r#"{{"bits":{bits},"count":{count},"sum":1,"min":1,"max":{max},"buckets":{buckets}}}"#)
        };
        assert!(read(&of(7, 1, 1, "[[1,1]]")).is_ok());
        assert!(read(&of(6, 1, 1, "[[1,1]]")).unwrap_err().contains("6 bits"));
        assert!(read(&of(7, 2, 1, "[[1,1]]")).unwrap_err().contains("2 values"));
        assert!(read(&of(7, 1, 2, "[[1,1]]")).unwrap_err().contains("from 1 to 2"));
        assert!(read(&of(7, 2, 1, "[[1,1],[1,1]]")).unwrap_err().contains("out of order"));
        assert!(read(&of(7, 1, 1, "[[99999999999,1]]")).unwrap_err().contains("out of order"));
    }
}
