//! The few steps between whole numbers and real ones, each in one place.

use crate::logarithm::minus_ln;
use crate::random::Stream;

/// The nearest real number.
#[allow(clippy::cast_precision_loss, reason = "53 bits are more than a draw can tell apart")]
pub(super) const fn real(whole: u64) -> f64 {
    whole as f64
}

/// The nearest whole number; 0 for what is below it or no number, and the largest one above that.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the conversion stops at both ends, which is what is wanted"
)]
#[inline]
pub(super) fn whole(real: f64) -> u64 {
    /// From here on numbers are whole, so that adding it rounds to the nearest, and to the even one between two; and up to
    /// twice of it they are one apart, as their bits are.
    const WHOLE: f64 = 4_503_599_627_370_496.0;
    if real < WHOLE { (real.max(0.0) + WHOLE).to_bits() - WHOLE.to_bits() } else { real as u64 }
}

/// An exponential draw of mean 1; at most 36.7, which one draw in 2^53 reaches.
#[inline]
pub(super) fn exponential(stream: &mut Stream) -> f64 {
    minus_ln(stream.bits())
}

/// A draw from the standard normal law, by the transform of Box and Muller (1958). Takes two numbers from the
/// stream and keeps none, so that the stream's place tells how many were drawn.
pub(super) fn normal(stream: &mut Stream) -> f64 {
    let radius = libm::sqrt(2.0 * minus_ln(stream.bits()));
    radius * libm::cos(2.0 * core::f64::consts::PI * stream.unit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as the function itself")]
    fn whole_numbers_are_rounded_and_stop_at_both_ends() {
        let cases = [(0.4, 0), (0.6, 1), (1.5, 2), (2.5, 2), (-3.0, 0), (f64::NAN, 0), (1e300, u64::MAX)];
        assert!(cases.iter().all(|(real, expected)| whole(*real) == *expected));
        let mut stream = Stream::new(1, "number", "whole");
        for size in 0..64 {
            // Halves, where it matters which of two is the nearest, and any number.
            let number = real(stream.bits() >> size);
            for one in [number, number + 0.5, number / 8.0, -number] {
                assert_eq!(whole(one), libm::rint(one) as u64, "{one}");
            }
        }
    }

    #[test]
    fn normal_draws_have_their_moments() {
        let mut stream = Stream::new(1, "number", "normal");
        let draws: Vec<f64> = (0..40_000).map(|_| normal(&mut stream)).collect();
        let mean = draws.iter().sum::<f64>() / 40_000.0;
        let square = draws.iter().map(|draw| draw * draw).sum::<f64>() / 40_000.0;
        assert!(mean.abs() < 0.02, "{mean}");
        assert!((square - 1.0).abs() < 0.03, "{square}");
    }
}
