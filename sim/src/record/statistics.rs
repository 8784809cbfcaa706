//! How certain a result is: means with intervals of confidence over seeds, differences between runs that drew
//! the same random numbers, batch means within one run, and where its warm-up ends.
//!
//! In: numbers of runs. Out: floats for people. Every interval is the 95 % one.

use super::batches::Batches;
use super::number::{float, length};

/// Batches of which a mean within one run is made. Fewer waste certainty, more are not independent.
pub const BATCH_MEANS: usize = 20;

/// The 97.5 % quantiles of Student's t for 1 to 30 degrees of freedom.
const T_TABLE: [f64; 30] = [
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010, 2.1788, 2.1604,
    2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860, 2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555,
    2.0518, 2.0484, 2.0452, 2.0423,
];
/// The same quantile of the normal law.
const NORMAL: f64 = 1.959_964;

/// A mean and how far the true one may be away.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Half of the 95 % interval; nothing where a single number says nothing about it.
    pub half_width: Option<f64>,
    /// Numbers of which the mean was taken.
    pub count: usize,
}

impl Estimate {
    /// The mean of independent numbers; nothing of none.
    #[must_use]
    pub fn of(numbers: &[f64]) -> Option<Self> {
        let count = numbers.len();
        if count == 0 {
            return None;
        }
        let mean = numbers.iter().sum::<f64>() / length(count);
        let half_width = (count > 1).then(|| {
            let squares: f64 = numbers.iter().map(|number| (number - mean) * (number - mean)).sum();
            let deviation = libm::sqrt(squares / length(count - 1));
            student_t(count - 1) * deviation / libm::sqrt(length(count))
        });
        Some(Self { mean, half_width, count })
    }

    /// The mean of `numbers[i] - baseline[i]`, where both drew the same random numbers (the same seed). Chance
    /// that both share goes out, so the interval is often far narrower than those of the two means.
    #[must_use]
    pub fn of_difference(numbers: &[f64], baseline: &[f64]) -> Option<Self> {
        let pairs: Vec<f64> = numbers.iter().zip(baseline).map(|(one, other)| one - other).collect();
        Self::of(&pairs)
    }

    /// The mean of one run from its batches, leaving out the first `skipped` of them; nothing with fewer than
    /// two batch means.
    #[must_use]
    pub fn of_batches(batches: &Batches, skipped: usize) -> Option<Self> {
        let used = batches.sums.get(skipped..)?;
        let size = used.len() / BATCH_MEANS;
        let (size, means) = if size == 0 { (1, used.len()) } else { (size, BATCH_MEANS) };
        // What does not fill the batches is taken from the beginning, where the run is least steady.
        let used = used.get(used.len() - size * means..)?;
        let observations = length(size) * float(batches.size);
        let means: Vec<f64> = used.chunks(size).map(|sums| sum(sums) / observations).collect();
        if means.len() < 2 { None } else { Self::of(&means) }
    }

    /// Whether zero is outside of the interval.
    #[must_use]
    pub fn is_not_zero(&self) -> bool {
        self.half_width.is_some_and(|half| self.mean.abs() > half)
    }
}

/// Where a run becomes steady.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WarmUp {
    /// Batches in the beginning that should be left out.
    pub batches: usize,
    /// Whether a steady part was found: the cut lies in the first half.
    pub is_steady: bool,
}

/// MSER: the cut after which the mean has the smallest marginal standard error. Batches of five observations
/// make it MSER-5 (K. P. White, M. J. Cobb, S. C. Spratt, Winter Simulation Conference 2000); a long run has
/// longer batches. Nothing with fewer than ten batches.
#[must_use]
pub fn mser(batches: &Batches) -> Option<WarmUp> {
    /// Below this many batches a minimum means nothing.
    const LEAST: usize = 10;
    let sums = &batches.sums;
    if sums.len() < LEAST {
        return None;
    }
    let (mut best, mut at) = (f64::INFINITY, 0);
    let (mut total, mut squares, mut count) = (0.0, 0.0, 0.0);
    // Deviations from some mean near the true one keep the squares small.
    let centre = sum(sums) / length(sums.len());
    // From the end, so that each cut costs one step. The last batches alone always look steady.
    for (cut, value) in sums.iter().enumerate().rev() {
        let deviation = float(*value) - centre;
        total += deviation;
        squares += deviation * deviation;
        count += 1.0;
        if sums.len() - cut < LEAST / 2 {
            continue;
        }
        let error = (squares - total * total / count) / (count * count);
        if error <= best {
            (best, at) = (error, cut);
        }
    }
    Some(WarmUp { batches: at, is_steady: at <= sums.len() / 2 })
}

/// The 97.5 % quantile of Student's t.
fn student_t(degrees: usize) -> f64 {
    let known = degrees.checked_sub(1).and_then(|index| T_TABLE.get(index));
    known.copied().unwrap_or_else(|| {
        // The expansion in 1/degrees (Abramowitz and Stegun 26.7.5); right to five digits beyond 30.
        let (z, n) = (NORMAL, length(degrees));
        let (z3, z5) = (z * z * z, z * z * z * z * z);
        z + (z3 + z) / (4.0 * n) + (5.0 * z5 + 16.0 * z3 + 3.0 * z) / (96.0 * n * n)
    })
}

fn sum(numbers: &[u64]) -> f64 {
    numbers.iter().map(|number| float(*number)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;
    use evenkeel_engine::Duration;

    fn is_near(found: f64, wanted: f64, tolerance: f64) -> bool {
        (found - wanted).abs() <= tolerance
    }

    fn exponential(stream: &mut Stream, mean: u64) -> u64 {
        u64::try_from(stream.exponential(Duration::from_nanos(mean)).as_nanos()).unwrap()
    }

    #[test]
    fn quantiles_of_t_fit_the_closed_forms_and_each_other() {
        // One degree: tan(pi * 0.475). Two: 0.95 * sqrt(2 / (1 - 0.95^2)).
        assert!(is_near(student_t(1), libm::tan(core::f64::consts::PI * 0.475), 1e-4));
        assert!(is_near(student_t(2), 0.95 * libm::sqrt(2.0 / (1.0 - 0.95 * 0.95)), 1e-4));
        assert!(is_near(student_t(31), 2.0395, 1e-4) && is_near(student_t(60), 2.0003, 1e-4));
        assert!(is_near(student_t(1_000_000), NORMAL, 1e-5));
        let all: Vec<f64> = (1..200).map(student_t).collect();
        assert!(all.windows(2).all(|pair| pair[0] > pair[1]));
    }

    #[test]
    fn the_interval_of_known_numbers() {
        let estimate = Estimate::of(&[1.0, 2.0, 3.0, 4.0]).unwrap();
        // Deviation sqrt(5/3), t(3) = 3.1824.
        assert!(is_near(estimate.mean, 2.5, 1e-12));
        assert!(is_near(estimate.half_width.unwrap(), 3.1824 * libm::sqrt(5.0 / 3.0) / 2.0, 1e-9));
        assert_eq!(Estimate::of(&[7.0]).unwrap(), Estimate { mean: 7.0, half_width: None, count: 1 });
        assert_eq!(Estimate::of(&[]), None);
        assert!(!Estimate::of(&[7.0]).unwrap().is_not_zero());
    }

    #[test]
    fn nineteen_of_twenty_intervals_hold_the_true_mean() {
        let mut stream = Stream::new(5, "statistics", "coverage");
        let mut held = 0;
        for _ in 0..2_000 {
            // Sums of twelve even draws are as good as normal.
            let numbers: Vec<f64> =
                (0..8).map(|_| (0..12).map(|_| float(stream.below(1_000_001))).sum::<f64>() / 1e6).collect();
            let estimate = Estimate::of(&numbers).unwrap();
            held += u32::from(is_near(estimate.mean, 6.0, estimate.half_width.unwrap()));
        }
        assert!((1_870..=1_930).contains(&held), "{held}");
    }

    #[test]
    fn common_random_numbers_make_differences_certain() {
        let mut stream = Stream::new(6, "statistics", "pairs");
        let base: Vec<f64> = (0..10).map(|_| float(stream.below(1_000))).collect();
        let other: Vec<f64> = base.iter().map(|number| number + 3.0 + float(stream.below(3))).collect();
        let paired = Estimate::of_difference(&other, &base).unwrap();
        assert!(paired.is_not_zero() && paired.half_width.unwrap() < 1.0);
        assert!(Estimate::of(&other).unwrap().half_width.unwrap() > 100.0);
    }

    #[test]
    fn batch_means_know_the_mean_of_correlated_observations() {
        // Each observation is nine parts of the one before and one part new: the plain interval is far too small.
        let (mut stream, mut held, mut plain_held) = (Stream::new(7, "statistics", "batches"), 0, 0);
        for _ in 0..200 {
            let (mut batches, mut level, mut all) = (Batches::default(), 1_000_000u64, Vec::new());
            for _ in 0..20_000 {
                level = (level * 9 + exponential(&mut stream, 1_000_000)) / 10;
                batches.record(level);
                all.push(float(level));
            }
            let holds = |estimate: Estimate| is_near(estimate.mean, 1e6, estimate.half_width.unwrap());
            held += u32::from(holds(Estimate::of_batches(&batches, 0).unwrap()));
            plain_held += u32::from(holds(Estimate::of(&all).unwrap()));
        }
        assert!(held >= 180 && plain_held < 100, "{held} {plain_held}");
    }

    #[test]
    fn few_batches_are_means_of_their_own_and_one_is_none() {
        let batches = |sums: &[u64]| Batches { sums: sums.to_vec(), ..Batches::default() };
        assert_eq!(Estimate::of_batches(&batches(&[10, 20]), 0).unwrap().mean, 3.0);
        assert_eq!(Estimate::of_batches(&batches(&[10, 20]), 1), None);
        assert_eq!(Estimate::of_batches(&batches(&[]), 0), None);
        assert_eq!(Estimate::of_batches(&batches(&[1]), 5), None);
        // 45 batches: 20 means of two, without the first five.
        let mut sums = vec![1_000; 5];
        sums.extend([10; 40]);
        assert_eq!(Estimate::of_batches(&batches(&sums), 0).unwrap().mean, 2.0);
    }

    #[test]
    fn the_warm_up_is_found_where_it_ends() {
        let mut stream = Stream::new(8, "statistics", "warm-up");
        let mut batches = Batches::default();
        for turn in 0..2_500u64 {
            let start = 50_000u64.saturating_sub(turn * 100);
            batches.record(start + exponential(&mut stream, 2_000));
        }
        // 500 observations decline: 100 batches of 500.
        let found = mser(&batches).unwrap();
        assert!((80..=110).contains(&found.batches) && found.is_steady, "{found:?}");
    }

    #[test]
    fn a_run_that_grows_to_its_end_is_not_steady() {
        let growing = Batches { sums: (0..500).map(|turn| turn * turn).collect(), ..Batches::default() };
        assert!(!mser(&growing).unwrap().is_steady);
        let even = Batches { sums: vec![5; 500], ..Batches::default() };
        assert_eq!(mser(&even), Some(WarmUp { batches: 0, is_steady: true }));
        assert_eq!(mser(&Batches::default()), None);
    }
}
