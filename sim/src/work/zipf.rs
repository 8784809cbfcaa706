//! Zipf's law over keys: key `k` of `1..=n` comes with a chance in proportion to `k^-s`.

use super::number::{real, whole};
use crate::random::Stream;

/// Draws before the law gives up and answers its most likely key. Fewer than half of all draws are drawn again,
/// so 2^-64 is the chance that this many are.
const REDRAWS_MAX: u32 = 64;

/// A law of keys, ready to be drawn from. It takes the same room and time for any number of keys.
///
/// By rejection-inversion: Hörmann and Derflinger, "Rejection-Inversion to Generate Variates from Monotone
/// Discrete Distributions", ACM TOMACS 6(3), 1996, sections 1 and 3.
#[derive(Clone, Debug)]
pub struct Zipf {
    keys: u64,
    exponent: f64,
    /// The integral of the hat at 3/2 minus 1, and at `n + 1/2`.
    from: f64,
    upto: f64,
    /// Below this distance to a key its draw is taken without a further look.
    squeeze: f64,
}

impl Zipf {
    /// A law over `keys` keys (at least 1) with the exponent `exponent`; 0 is even, and what is below 0 or no
    /// number counts as 0.
    #[must_use]
    pub fn new(keys: u64, exponent: f64) -> Self {
        let keys = keys.max(1);
        let exponent = if exponent.is_finite() { exponent.max(0.0) } else { 0.0 };
        let mut law = Self { keys, exponent, from: 0.0, upto: 0.0, squeeze: 0.0 };
        law.from = law.integral(1.5) - 1.0;
        law.upto = law.integral(real(keys) + 0.5);
        law.squeeze = 2.0 - law.inverse(law.integral(2.5) - law.height(2.0));
        law
    }

    /// A key, from 0 (the most likely) to the number of keys minus 1.
    pub fn draw(&self, stream: &mut Stream) -> u64 {
        for _ in 0..REDRAWS_MAX {
            let under = self.upto + stream.unit() * (self.from - self.upto);
            let at = self.inverse(under);
            let key = whole(at).clamp(1, self.keys);
            let place = real(key);
            if place - at <= self.squeeze || under >= self.integral(place + 0.5) - self.height(place) {
                return key - 1;
            }
        }
        0
    }

    /// `x^-s`.
    fn height(&self, x: f64) -> f64 {
        libm::exp(-self.exponent * libm::log(x))
    }

    /// The integral of [`Zipf::height`], `(x^(1-s) - 1) / (1 - s)`, which is the logarithm where s is 1.
    fn integral(&self, x: f64) -> f64 {
        let log = libm::log(x);
        let grown = (1.0 - self.exponent) * log;
        if grown.abs() < 1e-8 { log * (1.0 + grown / 2.0) } else { libm::expm1(grown) / grown * log }
    }

    /// The inverse of [`Zipf::integral`].
    fn inverse(&self, area: f64) -> f64 {
        let grown = (area * (1.0 - self.exponent)).max(-1.0);
        let log =
            if grown.abs() < 1e-8 { area * (1.0 - grown / 2.0) } else { libm::log1p(grown) / grown * area };
        libm::exp(log)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest distance of any key's share from `k^-s`, in standard errors.
    fn worst(keys: u64, exponent: f64) -> f64 {
        const DRAWS: u64 = 40_000;
        let law = Zipf::new(keys, exponent);
        let mut stream = Stream::new(5, "zipf", "test");
        let mut counts = vec![0u64; usize::try_from(keys).unwrap()];
        for _ in 0..DRAWS {
            counts[usize::try_from(law.draw(&mut stream)).unwrap()] += 1;
        }
        let weight = |key: u64| libm::pow(real(key), -exponent);
        let total: f64 = (1..=keys).map(weight).sum();
        (1..=keys).zip(&counts).fold(0.0, |worst: f64, (key, count)| {
            let share = weight(key) / total;
            let error = libm::sqrt(real(DRAWS) * share * (1.0 - share)).max(1.0);
            worst.max((real(*count) - real(DRAWS) * share).abs() / error)
        })
    }

    #[test]
    fn keys_come_as_often_as_their_rank_says() {
        for (keys, exponent) in
            [(1, 1.0), (2, 0.0), (20, 0.0), (20, 0.5), (50, 0.99), (50, 1.0), (50, 1.2), (20, 3.0)]
        {
            let worst = worst(keys, exponent);
            assert!(worst < 4.5, "{keys} {exponent}: {worst}");
        }
    }

    #[test]
    fn a_billion_keys_take_no_room() {
        let law = Zipf::new(1_000_000_000, 0.9);
        let mut stream = Stream::new(5, "zipf", "large");
        let draws: Vec<u64> = (0..10_000).map(|_| law.draw(&mut stream)).collect();
        assert!(draws.iter().all(|key| *key < 1_000_000_000));
        assert!(draws.iter().any(|key| *key > 100_000_000) && draws.contains(&0));
    }

    #[test]
    fn an_exponent_that_is_none_counts_as_zero() {
        let mut stream = Stream::new(5, "zipf", "odd");
        for exponent in [f64::NAN, f64::INFINITY, -1.0] {
            assert!(Zipf::new(0, exponent).draw(&mut stream) == 0);
        }
    }
}
