//! Distributions as tables: values with the share of draws up to them, as traces of data centres are published.
//!
//! ```text
//! # comment
//! 10000 15        15 % of all values are at most 10,000
//! 20000 20
//! ...
//! 30000000 100
//! ```

use serde::{Deserialize, Serialize};

use super::number::real;
use crate::random::Stream;

/// Parts of a whole share. Ten billionths of a percent are told apart.
const WHOLE: u64 = 1_000_000_000_000;

/// Lines that a table may have at most; the longest that is published has some 600.
const POINTS_MAX: usize = 65_536;

/// What lies between two points of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// Every value between them, evenly.
    #[default]
    Line,
    /// Nothing: the upper value has all of the share.
    Step,
}

/// A distribution by points.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cdf {
    shape: Shape,
    /// Value and share up to it, in parts of [`WHOLE`]; both grow, and the last share is whole.
    points: Vec<(u64, u64)>,
}

/// What is wrong with a table, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct CdfError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong with it, in words.
    pub reason: String,
}

impl Cdf {
    /// Reads a table: a value and a percentage in each line. Values are multiplied by `unit` and rounded, so
    /// that seconds with fractions become nanoseconds.
    ///
    /// A table that does not begin at 0 % begins at its first value: that has the first share for itself.
    ///
    /// # Errors
    /// When a line is not two numbers, or a number is below that of the line before, or the last
    /// percentage is not 100.
    pub fn parse(text: &str, unit: u64, shape: Shape) -> Result<Self, CdfError> {
        let mut points: Vec<(u64, u64)> = Vec::new();
        let mut last_line = 0;
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.split('#').next().unwrap_or_default().trim();
            if text.is_empty() {
                continue;
            }
            let fail = |reason: String| CdfError { line, reason };
            let point = point(text, unit).map_err(fail)?;
            if point.1 > WHOLE {
                return Err(fail("the percentage is above 100".to_owned()));
            }
            if let Some((value, share)) = points.last()
                && (point.0 < *value || point.1 < *share)
            {
                return Err(fail("value and percentage have to be at least those of the line before".into()));
            }
            if points.len() == POINTS_MAX {
                return Err(fail(format!("a table has at most {POINTS_MAX} points")));
            }
            points.push(point);
            last_line = line;
        }
        match points.last() {
            Some((_, WHOLE)) => Ok(Self { shape, points }),
            Some(_) => {
                Err(CdfError { line: last_line, reason: "the last percentage has to be 100".to_owned() })
            }
            None => Err(CdfError { line: 1, reason: "there is no point in the table".to_owned() }),
        }
    }

    /// One value.
    pub fn draw(&self, stream: &mut Stream) -> u64 {
        self.value_at(stream.below(WHOLE))
    }

    /// The value up to which `share` parts of a whole lie.
    fn value_at(&self, share: u64) -> u64 {
        let place = self.points.partition_point(|(_, upto)| *upto <= share);
        let Some((value, upto)) = self.points.get(place) else { return self.max() };
        let before = place.checked_sub(1).and_then(|before| self.points.get(before));
        let (Some((low, from)), Shape::Line) = (before, self.shape) else { return *value };
        // Shares are at most 2^40 and values 2^64, so the product fits.
        let part = u128::from(value - low) * u128::from(share - from) / u128::from(upto - from);
        low + u64::try_from(part).unwrap_or(0)
    }

    /// The mean of its draws, but for their rounding.
    #[must_use]
    pub fn mean(&self) -> f64 {
        let (mut sum, mut last) = (0.0, None);
        for (value, upto) in &self.points {
            let (low, from) = match (last, self.shape) {
                (Some((low, from)), Shape::Line) => (low, from),
                (Some((_, from)), Shape::Step) => (*value, from),
                (None, _) => (*value, 0),
            };
            sum += f64::midpoint(real(low), real(*value)) * real(upto - from);
            last = Some((*value, *upto));
        }
        sum / real(WHOLE)
    }

    /// The greatest value.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.points.last().map_or(0, |(value, _)| *value)
    }
}

fn point(text: &str, unit: u64) -> Result<(u64, u64), String> {
    let mut words = text.split_ascii_whitespace();
    let (Some(value), Some(percent), None) = (words.next(), words.next(), words.next()) else {
        return Err(format!("{text:?} is not a value and a percentage"));
    };
    let number = |word: &str, unit: u64| {
        decimal(word, unit).ok_or_else(|| format!("{word:?} is not a number such as 1460 or 97.5"))
    };
    Ok((number(value, unit)?, number(percent, WHOLE / 100)?))
}

/// A decimal number times `unit`, rounded; at most 18 digits on either side of the point.
fn decimal(word: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = word.split_once('.').unwrap_or((word, "0"));
    let digits = |text: &str| {
        let is_plain = (1..=18).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        if is_plain { text.parse::<u64>().ok() } else { None }
    };
    let scale = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let part = u128::from(digits(fraction)?) * u128::from(unit);
    let rounded = (part + scale / 2) / scale;
    u64::try_from(u128::from(digits(whole)?) * u128::from(unit) + rounded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str, shape: Shape) -> Cdf {
        Cdf::parse(text, 1, shape).unwrap()
    }

    #[test]
    fn values_lie_on_the_lines_between_points() {
        let cdf = table("0 0\n100 50 # half\n\n200 100\n", Shape::Line);
        assert_eq!(cdf.value_at(0), 0);
        assert_eq!(cdf.value_at(WHOLE / 4), 50);
        assert_eq!(cdf.value_at(WHOLE / 2), 100);
        assert_eq!(cdf.value_at(WHOLE - 1), 199);
        assert!((cdf.mean() - 100.0).abs() < 1e-9);
    }

    #[test]
    fn values_of_steps_are_those_of_the_table() {
        let cdf = table("1 25\n2 75\n4 100", Shape::Step);
        assert_eq!([0, 30, 74, 75, 99].map(|percent| cdf.value_at(percent * WHOLE / 100)), [1, 2, 2, 4, 4]);
        assert!((cdf.mean() - 2.25).abs() < 1e-9);
    }

    #[test]
    fn a_first_share_and_a_jump_belong_to_one_value() {
        for text in ["1 50\n3 100", "1 0\n1 50\n3 100"] {
            let cdf = table(text, Shape::Line);
            assert_eq!(
                [0, 49, 50, 75].map(|percent| cdf.value_at(percent * WHOLE / 100)),
                [1, 1, 1, 2],
                "{text}"
            );
            assert!((cdf.mean() - 1.5).abs() < 1e-9);
        }
    }

    #[test]
    fn units_turn_fractions_into_whole_numbers() {
        let cdf = Cdf::parse("0.001 50\n120.8016369 100", 1_000_000_000, Shape::Step).unwrap();
        assert_eq!((cdf.value_at(0), cdf.max()), (1_000_000, 120_801_636_900));
    }

    #[test]
    fn draws_have_the_mean_of_the_table() {
        let cdf = table("0 0\n10 30\n50 90\n1000 100", Shape::Line);
        let mut stream = Stream::new(1, "cdf", "test");
        let sum: u64 = (0..50_000).map(|_| cdf.draw(&mut stream)).sum();
        // Draws are rounded down.
        assert!((real(sum) / 50_000.0 + 0.5 - cdf.mean()).abs() < 3.0, "{sum}");
    }

    #[test]
    fn errors_name_the_line() {
        let error = |text: &str| Cdf::parse(text, 1, Shape::Line).unwrap_err().to_string();
        assert_eq!(error("1 0\nx 100"), "line 2: \"x\" is not a number such as 1460 or 97.5");
        assert_eq!(error("# nothing\n1"), "line 2: \"1\" is not a value and a percentage");
        assert_eq!(error("1 2 3"), "line 1: \"1 2 3\" is not a value and a percentage");
        assert_eq!(
            error("5 10\n4 100"),
            "line 2: value and percentage have to be at least those of the line before"
        );
        assert_eq!(error("5 10\n6 101"), "line 2: the percentage is above 100");
        assert_eq!(error("5 10\n6 99\n\n"), "line 2: the last percentage has to be 100");
        assert_eq!(error("\n"), "line 1: there is no point in the table");
        for text in ["-1 100", "1e3 100", "1. 100", ". 100", "1.2.3 100", "9999999999999999999 100"] {
            assert!(error(text).contains("is not a number"), "{text}");
        }
        assert!(Cdf::parse("99999999999 100", u64::MAX, Shape::Line).is_err());
    }

    #[test]
    fn a_table_with_too_many_points_is_refused() {
        let text: String = (0..=POINTS_MAX).map(|value| format!("{value} 0\n")).collect();
        assert!(Cdf::parse(&text, 1, Shape::Line).unwrap_err().reason.contains("at most 65536"));
    }
}
