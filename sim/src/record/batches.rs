//! A sequence of observations in few numbers: sums over batches of equal size, in the order in which they came.
//!
//! In: observations, any number of them. Out: at most [`BATCHES_MAX`] sums. When they are full, neighbours are
//! joined and batches are twice as long from then on. They answer whether a run was in its steady state and
//! how certain its mean is (see [`super::statistics`]).

use serde::{Deserialize, Serialize};

/// The most batches: enough for 20 batch means of 50 batches each, and 16 KiB.
pub const BATCHES_MAX: usize = 1_024;
/// Observations of a batch in the beginning, as in MSER-5.
pub const BATCH_FIRST: u64 = 5;

/// Sums over batches of equal size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batches {
    /// Observations in each batch.
    pub size: u64,
    /// The sum of each whole batch.
    pub sums: Vec<u64>,
    #[serde(skip)]
    pub(super) open_sum: u64,
    #[serde(skip)]
    pub(super) open_count: u64,
}

impl Default for Batches {
    fn default() -> Self {
        Self { size: BATCH_FIRST, sums: Vec::new(), open_sum: 0, open_count: 0 }
    }
}

impl Batches {
    /// Takes in one observation.
    pub fn record(&mut self, value: u64) {
        self.open_sum = self.open_sum.saturating_add(value);
        self.open_count += 1;
        if self.open_count < self.size {
            return;
        }
        if self.sums.len() >= BATCHES_MAX {
            self.widen();
        }
        if self.open_count >= self.size {
            self.sums.push(self.open_sum);
            (self.open_sum, self.open_count) = (0, 0);
        }
    }

    /// Without the observations that fill no batch.
    #[must_use]
    pub fn closed(self) -> Self {
        Self { open_sum: 0, open_count: 0, ..self }
    }

    fn widen(&mut self) {
        let joined =
            self.sums.chunks(2).map(|pair| pair.iter().fold(0u64, |sum, one| sum.saturating_add(*one)));
        self.sums = joined.collect();
        self.size *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_sums_of_five() {
        let mut batches = Batches::default();
        (0..12).for_each(|value| batches.record(value));
        assert_eq!((batches.size, batches.sums), (5, vec![10, 35]));
    }

    #[test]
    fn a_long_sequence_keeps_every_whole_batch_in_bounded_room() {
        let mut batches = Batches::default();
        let count = 1_000_000;
        (0..count).for_each(|value| batches.record(value));
        assert!((BATCHES_MAX / 2..=BATCHES_MAX).contains(&batches.sums.len()), "{}", batches.sums.len());
        let mut first = 0;
        for sum in &batches.sums {
            let last = first + batches.size - 1;
            assert_eq!(*sum, (first + last) * batches.size / 2);
            first += batches.size;
        }
        assert!(count - first < batches.size);
    }
}
