//! Axes: from values to places, the values that are written beside an axis, and how they are written.

use crate::record::number;

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Things, or things per second.
    Count,
    /// Nanoseconds.
    Time,
    /// A plain number.
    Plain,
    /// A share of one, as `percent`.
    Share,
}

impl Unit {
    pub(super) fn show(self, value: f64) -> String {
        match self {
            Self::Count => number::short(value),
            Self::Time if value == 0.0 => "0".to_owned(),
            Self::Time => number::duration(value),
            Self::Plain => number::plain(value),
            Self::Share => {
                let text = format!("{:.4}", value * 100.0);
                format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
            }
        }
    }
}

/// How values lie on an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scale {
    /// Evenly.
    Linear {
        /// The value at the beginning.
        low: f64,
        /// The value at the end.
        high: f64,
    },
    /// By their logarithm.
    Log {
        /// The value at the beginning, above zero.
        low: f64,
        /// The value at the end.
        high: f64,
    },
    /// Shares by the nines that they have: 90 %, 99 % and 99.9 % are as far from each other.
    Nines {
        /// Nines at the end.
        most: f64,
    },
}

impl Scale {
    /// From zero, or the least value where it is below, to a round number above the greatest value.
    pub(super) fn linear(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = range(values).unwrap_or((0.0, 1.0));
        let (low, high) = (low.min(0.0), high.max(0.0));
        let high = if high - low > 0.0 { high } else { low + 1.0 };
        let step = step(high - low, TICKS);
        Self::Linear { low: libm::floor(low / step) * step, high: libm::ceil(high * HEADROOM / step) * step }
    }

    /// Between round numbers around the values, which need not be near zero.
    pub(super) fn around(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = range(values).unwrap_or((0.0, 1.0));
        // A range that is nothing but noise is not blown up to the whole height.
        let margin = ((low.abs() + high.abs()) * 0.05 - (high - low)).max(0.0) / 2.0;
        let (low, high) = (low - margin, high + margin);
        let step = step((high - low).max(f64::MIN_POSITIVE), TICKS);
        Self::exact(libm::floor(low / step + 1e-9) * step, libm::ceil(high / step - 1e-9) * step)
    }

    /// Exactly from one value to the other.
    pub(super) fn exact(low: f64, high: f64) -> Self {
        Self::Linear { low, high: if high > low { high } else { low + 1.0 } }
    }

    /// By logarithm, over all values above zero.
    pub(super) fn log(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = range(values.filter(|value| *value > 0.0)).unwrap_or((1.0, 10.0));
        // At least a factor of four, so that there are values to write beside the axis.
        let (low, high) = if high / low >= 4.0 { (low, high) } else { (low / 2.0, high * 2.0) };
        Self::Log { low: low / 1.05, high: high * 1.05 }
    }

    /// Where a value lies: 0 at the beginning, 1 at the end.
    pub(super) fn place(self, value: f64) -> f64 {
        let place = match self {
            Self::Linear { low, high } => (value - low) / (high - low),
            Self::Log { low, high } => libm::log10(value.max(low) / low) / libm::log10(high / low),
            Self::Nines { most } => nines(value) / most,
        };
        place.clamp(0.0, 1.0)
    }

    /// The values that are written, from low to high.
    pub(super) fn ticks(self) -> Vec<f64> {
        match self {
            Self::Linear { low, high } => {
                let step = step(high - low, TICKS);
                let first = libm::ceil(low / step - 1e-9);
                let ticks = (0..=2 * TICKS).map(|tick| (first + f64::from(tick)) * step);
                ticks.take_while(|tick| *tick <= high + step * 1e-6).collect()
            }
            Self::Log { low, high } => log_ticks(low, high),
            Self::Nines { most } => {
                let shares = [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.999_99, 0.999_999];
                shares.into_iter().filter(|share| nines(*share) <= most + 1e-6).collect()
            }
        }
    }
}

/// How much higher an axis goes than its values, so that no line runs along its upper end.
const HEADROOM: f64 = 1.04;
/// About how many values stand beside an axis.
const TICKS: u32 = 5;

/// `0.999` has three.
fn nines(share: f64) -> f64 {
    -libm::log10((1.0 - share).max(1e-12))
}

fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|value| value.is_finite()).fold(None, |range, value| {
        let (low, high) = range.unwrap_or((value, value));
        Some((low.min(value), high.max(value)))
    })
}

/// A step of 1, 2 or 5 times a power of ten, so that there are about so many in `length`.
fn step(length: f64, count: u32) -> f64 {
    let rough = (length / f64::from(count)).max(f64::MIN_POSITIVE);
    let power = libm::pow(10.0, libm::floor(libm::log10(rough)));
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= rough * 0.999);
    factor.unwrap_or(10.0) * power
}

/// Powers of ten, with 2 and 5 between them where there are few; every so many where there are a lot.
fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    let decades = libm::log10(high / low);
    let factors: &[f64] = if decades < 1.2 {
        &[1.0, 2.0, 3.0, 5.0, 7.0]
    } else if decades < 3.0 {
        &[1.0, 2.0, 5.0]
    } else {
        &[1.0]
    };
    let first = libm::floor(libm::log10(low));
    let every = libm::ceil(decades / 8.0).max(1.0);
    let mut ticks = Vec::new();
    let mut exponent = first;
    while exponent <= libm::log10(high) {
        let power = libm::pow(10.0, exponent);
        ticks
            .extend(factors.iter().map(|factor| factor * power).filter(|tick| *tick >= low && *tick <= high));
        exponent += every;
    }
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_axes_have_round_ends_and_few_ticks() {
        for (values, low, high) in [
            (vec![0.0, 97.0], 0.0, 97.0),
            (vec![3.0], 0.0, 3.0),
            (vec![-4.0, 9.0], -5.0, 9.0),
            (vec![], 0.0, 1.0),
        ] {
            let scale = Scale::linear(values.iter().copied());
            let Scale::Linear { low: found_low, high: found_high } = scale else { panic!() };
            assert!((found_low - low).abs() < 1e-9, "{values:?} {scale:?}");
            assert!((high..=1.4 * high).contains(&found_high), "{values:?} {scale:?}");
            let ticks = scale.ticks();
            assert!((3..=9).contains(&ticks.len()), "{values:?} {ticks:?}");
            assert!(ticks.first().unwrap().abs() - low.abs() < 1e-9);
        }
    }

    #[test]
    fn every_axis_has_ticks_in_order_within_its_ends() {
        let scales = [
            Scale::log([1.0, 1.1].into_iter()),
            Scale::log([1e3, 1e9].into_iter()),
            Scale::log([1.0, 1e300].into_iter()),
            Scale::log([0.0, f64::NAN].into_iter()),
            Scale::linear([f64::INFINITY, 1e-300].into_iter()),
            Scale::linear([1e18].into_iter()),
            Scale::exact(5.0, 5.0),
            Scale::around([1.0, 1.0].into_iter()),
            Scale::around([0.98, 1.3].into_iter()),
            Scale::around([0.0].into_iter()),
            Scale::Nines { most: 3.5 },
        ];
        for scale in scales {
            let ticks = scale.ticks();
            assert!((2..=20).contains(&ticks.len()), "{scale:?} {ticks:?}");
            let places: Vec<f64> = ticks.iter().map(|tick| scale.place(*tick)).collect();
            assert!(places.windows(2).all(|pair| pair[0] < pair[1]), "{scale:?} {ticks:?} {places:?}");
            assert!(places.iter().all(|place| (0.0..=1.0).contains(place)), "{scale:?} {places:?}");
        }
    }

    #[test]
    fn nines_are_evenly_spaced() {
        let scale = Scale::Nines { most: 3.0 };
        for (share, place) in [(0.0, 0.0), (0.9, 1.0 / 3.0), (0.99, 2.0 / 3.0), (0.999, 1.0), (1.0, 1.0)] {
            assert!((scale.place(share) - place).abs() < 1e-9, "{share}");
        }
    }

    #[test]
    fn values_outside_stay_at_the_ends() {
        let log = Scale::Log { low: 1.0, high: 10.0 };
        assert_eq!([-1.0, 0.0, 100.0].map(|value| log.place(value)), [0.0, 0.0, 1.0]);
        assert_eq!(Scale::exact(0.0, 2.0).place(3.0), 1.0);
    }
}
