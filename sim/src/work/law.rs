//! Laws of durations and sizes: plain parameters that a file can hold, and samplers made of them.
//!
//! A value is a whole number of the caller's unit, nanoseconds or bytes; draws are rounded to the nearest.

use serde::{Deserialize, Serialize};

use super::cdf::Cdf;
use super::number::{exponential, normal, real, whole};
use super::sizes;
use crate::random::Stream;

/// Draws of the truncated normal law before it gives up and answers 0. With a mean of at least 0 every other
/// draw is taken, so 2^-64 is the chance that this many are not.
const REDRAWS_MAX: u32 = 64;

/// How values are distributed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "dist", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Law {
    /// Always the same.
    Fixed {
        /// The value.
        value: u64,
    },
    /// Each value of a range is as likely as any other.
    Uniform {
        /// The least value.
        low: u64,
        /// The greatest value.
        high: u64,
    },
    /// Exponential: no memory.
    Exponential {
        /// The mean.
        mean: u64,
    },
    /// Lognormal, by its own mean and coefficient of variation.
    Lognormal {
        /// The mean of the values, not of their logarithms.
        mean: u64,
        /// Standard deviation by mean (above 0).
        cv: f64,
    },
    /// Mostly small, now and then large.
    Bimodal {
        /// The small value.
        small: u64,
        /// The large value.
        large: u64,
        /// The share of large ones (0 to 1).
        share_large: f64,
    },
    /// Pareto's law, cut off at both ends.
    BoundedPareto {
        /// The least value (above 0).
        low: u64,
        /// The greatest value.
        high: u64,
        /// The exponent of the tail (above 0); near 1 the few largest carry most of the sum.
        shape: f64,
    },
    /// Normal, drawn again where it falls below 0, so the mean of what comes out is larger than `mean`.
    TruncatedNormal {
        /// The mean before the cut.
        mean: u64,
        /// The standard deviation before the cut.
        deviation: u64,
    },
    /// Of two exponentials, chosen anew each time, which contribute alike to the mean (balanced means).
    Hyperexponential {
        /// The mean.
        mean: u64,
        /// Standard deviation by mean (1 or more; 1 is exponential).
        cv: f64,
    },
    /// One of the named laws in [`super::NAMES`].
    Named {
        /// The name.
        name: String,
    },
    /// A table, read from a file.
    Table {
        /// The table.
        table: Cdf,
    },
}

/// Why a law can not be drawn from.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LawError {
    /// A parameter is out of its range.
    #[error("{law}: {parameter} is {value}, and has to be {range}")]
    Parameter {
        /// The law.
        law: &'static str,
        /// The parameter.
        parameter: &'static str,
        /// Its value.
        value: f64,
        /// What it may be, in words.
        range: &'static str,
    },
    /// The ends of a range are the wrong way round.
    #[error("{law}: low is {low}, above high, which is {high}")]
    Range {
        /// The law.
        law: &'static str,
        /// The low end.
        low: u64,
        /// The high end.
        high: u64,
    },
    /// No law has this name.
    #[error("there is no law called {name:?}; there are {}", sizes::NAMES.join(", "))]
    Name {
        /// The name.
        name: String,
    },
}

/// A law that is ready to be drawn from.
#[derive(Clone, Debug)]
pub struct Sampler(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Fixed(u64),
    Uniform { low: u64, span: u64 },
    Exponential { mean: f64 },
    Lognormal { mu: f64, sigma: f64 },
    Bimodal { small: u64, large: u64, share_large: f64 },
    BoundedPareto { low: f64, cut: f64, inverse: f64, high: u64 },
    TruncatedNormal { mean: f64, deviation: f64 },
    Hyperexponential { share: f64, means: [f64; 2] },
    Table(Cdf),
}

impl Law {
    /// The sampler of this law.
    ///
    /// # Errors
    /// When a parameter is out of its range, or nobody has the name.
    pub fn sampler(&self) -> Result<Sampler, LawError> {
        let kind = match *self {
            Self::Fixed { value } => Kind::Fixed(value),
            Self::Uniform { low, high } => {
                in_order("uniform", low, high)?;
                // All 2^64 values can not be counted; the span of all but one can.
                Kind::Uniform { low, span: (high - low).saturating_add(1) }
            }
            Self::Exponential { mean } => Kind::Exponential { mean: real(mean) },
            Self::Lognormal { mean, cv } => {
                above_zero("lognormal", "cv", cv)?;
                above_zero("lognormal", "mean", real(mean))?;
                let variance = libm::log1p(cv * cv);
                Kind::Lognormal { mu: libm::log(real(mean)) - variance / 2.0, sigma: libm::sqrt(variance) }
            }
            Self::Bimodal { small, large, share_large } => {
                if !(0.0..=1.0).contains(&share_large) {
                    return Err(out_of("bimodal", "share_large", share_large, "from 0 to 1"));
                }
                Kind::Bimodal { small, large, share_large }
            }
            Self::BoundedPareto { low, high, shape } => {
                above_zero("bounded-pareto", "shape", shape)?;
                above_zero("bounded-pareto", "low", real(low))?;
                in_order("bounded-pareto", low, high)?;
                let cut = 1.0 - libm::pow(real(low) / real(high), shape);
                Kind::BoundedPareto { low: real(low), cut, inverse: -1.0 / shape, high }
            }
            Self::TruncatedNormal { mean, deviation } => {
                Kind::TruncatedNormal { mean: real(mean), deviation: real(deviation) }
            }
            Self::Hyperexponential { mean, cv } => {
                if !(cv.is_finite() && cv >= 1.0) {
                    return Err(out_of("hyperexponential", "cv", cv, "1 or more"));
                }
                let share = hyperexponential_share(cv);
                let half = real(mean) / 2.0;
                Kind::Hyperexponential { share, means: [half / share, half / (1.0 - share)] }
            }
            Self::Named { ref name } => {
                Kind::Table(sizes::named(name).ok_or_else(|| LawError::Name { name: name.clone() })?)
            }
            Self::Table { ref table } => Kind::Table(table.clone()),
        };
        Ok(Sampler(kind))
    }

    /// The mean of its draws, but for their rounding.
    ///
    /// # Errors
    /// As for [`Law::sampler`].
    pub fn mean(&self) -> Result<f64, LawError> {
        self.sampler()?;
        Ok(match *self {
            Self::Fixed { value } => real(value),
            Self::Uniform { low, high } => f64::midpoint(real(low), real(high)),
            Self::Exponential { mean }
            | Self::Lognormal { mean, .. }
            | Self::Hyperexponential { mean, .. } => real(mean),
            Self::Bimodal { small, large, share_large } => {
                real(small) * (1.0 - share_large) + real(large) * share_large
            }
            Self::BoundedPareto { low, high, shape } => bounded_pareto_mean(real(low), real(high), shape),
            Self::TruncatedNormal { mean, deviation } => truncated_normal_mean(real(mean), real(deviation)),
            Self::Named { ref name } => sizes::named(name).map_or(0.0, |table| table.mean()),
            Self::Table { ref table } => table.mean(),
        })
    }
}

impl Sampler {
    /// One value.
    #[inline]
    pub fn draw(&self, stream: &mut Stream) -> u64 {
        // The usual one first, without what the others save and bring back.
        if let Kind::Exponential { mean } = self.0 {
            return whole(exponential(stream) * mean);
        }
        self.draw_any(stream)
    }

    #[inline(never)]
    fn draw_any(&self, stream: &mut Stream) -> u64 {
        match self.0 {
            Kind::Fixed(value) => value,
            Kind::Uniform { low, span } => low + stream.below(span),
            Kind::Exponential { mean } => whole(exponential(stream) * mean),
            Kind::Lognormal { mu, sigma } => whole(libm::exp(mu + sigma * normal(stream))),
            Kind::Bimodal { small, large, share_large } => {
                if stream.unit() <= share_large {
                    large
                } else {
                    small
                }
            }
            Kind::BoundedPareto { low, cut, inverse, high } => {
                // The inverse of F(x) = (1 - (low / x)^shape) / (1 - (low / high)^shape).
                let draw = low * libm::pow(1.0 - (1.0 - stream.unit()) * cut, inverse);
                whole(draw).min(high)
            }
            Kind::TruncatedNormal { mean, deviation } => {
                let draws = (0..REDRAWS_MAX).map(|_| mean + deviation * normal(stream));
                let mut kept = draws.filter(|draw| *draw >= 0.0);
                kept.next().map_or(0, whole)
            }
            Kind::Hyperexponential { share, means: [first, second] } => {
                let mean = if stream.unit() <= share { first } else { second };
                whole(exponential(stream) * mean)
            }
            Kind::Table(ref table) => table.draw(stream),
        }
    }
}

/// The share of the first of two exponentials with balanced means (Tijms, "A First Course in Stochastic Models",
/// 2003, appendix B): p / m1 = (1 - p) / m2 in rates, for a coefficient of variation of `cv`.
fn hyperexponential_share(cv: f64) -> f64 {
    let square = cv * cv;
    (1.0 + libm::sqrt((square - 1.0) / (square + 1.0))) / 2.0
}

fn bounded_pareto_mean(low: f64, high: f64, shape: f64) -> f64 {
    let ratio = libm::pow(low / high, shape);
    if (shape - 1.0).abs() < 1e-9 {
        return low * libm::log(high / low) / (1.0 - ratio);
    }
    let power = libm::pow(low / high, shape - 1.0);
    low * shape / (shape - 1.0) * (1.0 - power) / (1.0 - ratio)
}

/// mu + sigma phi(a) / (1 - Phi(a)) with a = -mu / sigma.
fn truncated_normal_mean(mean: f64, deviation: f64) -> f64 {
    if deviation <= 0.0 {
        return mean;
    }
    let cut = mean / deviation;
    let density = libm::exp(-cut * cut / 2.0) / libm::sqrt(2.0 * core::f64::consts::PI);
    let kept = libm::erfc(-cut / core::f64::consts::SQRT_2) / 2.0;
    mean + deviation * density / kept
}

const fn out_of(law: &'static str, parameter: &'static str, value: f64, range: &'static str) -> LawError {
    LawError::Parameter { law, parameter, value, range }
}

fn above_zero(law: &'static str, parameter: &'static str, value: f64) -> Result<(), LawError> {
    if value.is_finite() && value > 0.0 { Ok(()) } else { Err(out_of(law, parameter, value, "above 0")) }
}

const fn in_order(law: &'static str, low: u64, high: u64) -> Result<(), LawError> {
    if low <= high { Ok(()) } else { Err(LawError::Range { law, low, high }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: u64 = 1_000_000;

    fn laws() -> Vec<Law> {
        vec![
            Law::Fixed { value: MILLISECOND },
            Law::Uniform { low: 10, high: 2 * MILLISECOND },
            Law::Exponential { mean: MILLISECOND },
            Law::Lognormal { mean: MILLISECOND, cv: 1.5 },
            Law::Bimodal { small: MILLISECOND / 2, large: 50 * MILLISECOND, share_large: 0.01 },
            Law::BoundedPareto { low: 100_000, high: 100 * MILLISECOND, shape: 1.5 },
            Law::BoundedPareto { low: 100_000, high: 100 * MILLISECOND, shape: 1.0 },
            Law::TruncatedNormal { mean: MILLISECOND, deviation: MILLISECOND },
            Law::Hyperexponential { mean: MILLISECOND, cv: 2.0 },
            Law::Named { name: "hadoop".into() },
        ]
    }

    /// Mean and coefficient of variation of so many draws.
    fn moments(law: &Law, count: u64) -> (f64, f64) {
        let sampler = law.sampler().unwrap();
        let mut stream = Stream::new(3, "law", "test");
        let (mut sum, mut square) = (0.0, 0.0);
        for _ in 0..count {
            let draw = real(sampler.draw(&mut stream));
            sum += draw;
            square += draw * draw;
        }
        let mean = sum / real(count);
        (mean, libm::sqrt((square / real(count) - mean * mean).max(0.0)) / mean)
    }

    #[test]
    fn draws_have_the_mean_that_the_law_says() {
        for law in laws() {
            let count = 60_000;
            let (mean, cv) = moments(&law, count);
            let wanted = law.mean().unwrap();
            // Five standard errors of this very sample.
            let bound = wanted * 5.0 * cv / libm::sqrt(real(count)) + 1.0;
            assert!((mean - wanted).abs() <= bound, "{law:?}: {mean} {wanted} {cv}");
        }
    }

    #[test]
    fn draws_vary_as_the_law_says() {
        let cases = [
            (Law::Fixed { value: 7 }, 0.0),
            (Law::Exponential { mean: MILLISECOND }, 1.0),
            (Law::Lognormal { mean: MILLISECOND, cv: 0.5 }, 0.5),
            (Law::Hyperexponential { mean: MILLISECOND, cv: 2.0 }, 2.0),
            (Law::Hyperexponential { mean: MILLISECOND, cv: 1.0 }, 1.0),
            // sqrt(E[x^2] - m^2) / m with 0.5 and 50.5.
            (Law::Bimodal { small: 500, large: 50_500, share_large: 0.01 }, 4.974_937),
        ];
        for (law, wanted) in cases {
            let (_, cv) = moments(&law, 60_000);
            assert!((cv - wanted).abs() <= 0.05 * wanted.max(0.001), "{law:?}: {cv}");
        }
    }

    #[test]
    fn draws_keep_to_their_bounds() {
        let mut stream = Stream::new(1, "law", "bounds");
        let pareto = Law::BoundedPareto { low: 10, high: 1_000, shape: 0.5 }.sampler().unwrap();
        let even = Law::Uniform { low: 5, high: 8 }.sampler().unwrap();
        let draws: Vec<(u64, u64)> =
            (0..5_000).map(|_| (pareto.draw(&mut stream), even.draw(&mut stream))).collect();
        assert!(draws.iter().all(|(pareto, even)| (10..=1_000).contains(pareto) && (5..=8).contains(even)));
        assert!(draws.iter().any(|(_, even)| *even == 5) && draws.iter().any(|(_, even)| *even == 8));
        let all = Law::Uniform { low: 0, high: u64::MAX }.sampler().unwrap();
        assert_ne!(all.draw(&mut stream), all.draw(&mut stream));
    }

    #[test]
    fn draws_are_pinned() {
        // A change here changes every run of a seed.
        let first = |law: &Law| law.sampler().unwrap().draw(&mut Stream::new(1, "law", "pinned"));
        let drawn: Vec<u64> = laws().iter().map(first).collect();
        assert_eq!(
            drawn,
            [1_000_000, 621_045, 1_169_509, 2_488_758, 500_000, 218_066, 321_328, 2_382_673, 41_065, 510]
        );
    }

    #[test]
    fn parameters_out_of_range_are_named() {
        let error = |law: Law| law.sampler().unwrap_err().to_string();
        assert_eq!(error(Law::Lognormal { mean: 1, cv: 0.0 }), "lognormal: cv is 0, and has to be above 0");
        assert_eq!(error(Law::Uniform { low: 2, high: 1 }), "uniform: low is 2, above high, which is 1");
        assert!(error(Law::Hyperexponential { mean: 1, cv: 0.5 }).contains("1 or more"));
        assert!(error(Law::Hyperexponential { mean: 1, cv: f64::NAN }).contains("1 or more"));
        assert!(error(Law::Bimodal { small: 1, large: 2, share_large: 1.5 }).contains("from 0 to 1"));
        assert!(error(Law::BoundedPareto { low: 0, high: 2, shape: 1.0 }).contains("low is 0"));
        assert!(error(Law::BoundedPareto { low: 1, high: 2, shape: -1.0 }).contains("shape is -1"));
        let named = error(Law::Named { name: "webserch".into() });
        assert!(named.contains("\"webserch\"") && named.contains("websearch"), "{named}");
    }

    #[test]
    fn laws_are_read_as_files_write_them() {
        let law: Law =
            toml::from_str("dist = \"bimodal\"\nsmall = 1\nlarge = 50\nshare_large = 0.1").unwrap();
        assert_eq!(law, Law::Bimodal { small: 1, large: 50, share_large: 0.1 });
        assert!(toml::from_str::<Law>("dist = \"fixed\"\nvalue = 1\nvalu = 2").is_err());
    }
}
