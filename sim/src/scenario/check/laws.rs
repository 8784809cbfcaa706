//! Laws of sizes and durations.

use std::ops::Range;

use evenkeel_config::document::At;
use evenkeel_engine::Duration;

use super::Checker;
use crate::scenario::written::{DurationLaw, DurationText, SizeLaw, SizeText};
use crate::scenario::{DURATION_MAX, quantity};
use crate::work::{Cdf, Law, NAMES, Shape};

/// The laws with keys: the name, the keys that it needs, and what it is like.
pub(in crate::scenario) const LAWS: [(&str, &[&str], &str); 7] = [
    ("uniform", &["low", "high"], "each value between them is as likely as any other"),
    ("exponential", &["mean"], "without memory"),
    ("lognormal", &["mean", "cv"], "by the mean and the variation of the values themselves"),
    ("bimodal", &["small", "large", "share_large"], "mostly small, now and then large"),
    ("bounded-pareto", &["low", "high", "shape"], "few are very large, and those carry much of the sum"),
    (
        "truncated-normal",
        &["mean", "deviation"],
        "normal, drawn again where it falls below 0, so that the mean of what comes out is larger",
    ),
    ("hyperexponential", &["mean", "cv"], "of two exponentials; more varied than one (`cv` is 1 or more)"),
];
/// The laws with a name of their own whose values are durations; those of all others are sizes.
pub(in crate::scenario) const TIMES: [&str; 2] = ["hadoop-connection-duration", "silkroad-upgrade"];
/// Nanoseconds of the unit of tables of durations, a second.
const SECOND: u64 = 1_000_000_000;

/// The keys of a law with their values as whole numbers: bytes, or nanoseconds.
#[derive(Debug, Default)]
struct Values {
    mean: u64,
    deviation: u64,
    low: u64,
    high: u64,
    small: u64,
    large: u64,
    cv: f64,
    shape: f64,
    share_large: f64,
}

/// What the values of a law are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Bytes,
    Nanoseconds,
}

impl Checker<'_, '_> {
    /// Always this duration.
    pub(super) fn fixed_time(&mut self, text: &At<DurationText>) -> Law {
        let time = self.duration(text, Duration::ZERO..=DURATION_MAX).unwrap_or_default();
        Law::Fixed { value: nanoseconds(time) }
    }

    pub(super) fn duration_law(&mut self, span: &Range<usize>, written: &DurationLaw) -> Law {
        let mut time = |at: &Option<At<DurationText>>| {
            let time = at.as_ref().and_then(|at| self.duration(at, Duration::ZERO..=DURATION_MAX));
            nanoseconds(time.unwrap_or_default())
        };
        let values = Values {
            mean: time(&written.mean),
            deviation: time(&written.deviation),
            low: time(&written.low),
            high: time(&written.high),
            small: time(&written.small),
            large: time(&written.large),
            cv: number(written.cv.as_ref()),
            shape: number(written.shape.as_ref()),
            share_large: number(written.share_large.as_ref()),
        };
        let choice = (written.law.as_ref(), written.cdf.as_ref());
        self.law(span, choice, &written.law_keys(), &values, Unit::Nanoseconds)
    }

    /// The law of sizes without `size`.
    pub(super) fn size_law(&mut self, span: &Range<usize>, written: &SizeLaw) -> Law {
        let mut bytes = |at: &Option<At<SizeText>>| {
            let bytes = at.as_ref().and_then(|at| self.value(&at.span, &at.value.0, quantity::bytes));
            u64::from(bytes.unwrap_or_default())
        };
        let values = Values {
            mean: bytes(&written.mean),
            deviation: bytes(&written.deviation),
            low: bytes(&written.low),
            high: bytes(&written.high),
            small: bytes(&written.small),
            large: bytes(&written.large),
            cv: number(written.cv.as_ref()),
            shape: number(written.shape.as_ref()),
            share_large: number(written.share_large.as_ref()),
        };
        let choice = (written.law.as_ref(), written.cdf.as_ref());
        self.law(span, choice, &written.law_keys(), &values, Unit::Bytes)
    }

    fn law(
        &mut self,
        span: &Range<usize>,
        choice: (Option<&At<String>>, Option<&At<String>>),
        keys: &[(&'static str, Range<usize>)],
        values: &Values,
        unit: Unit,
    ) -> Law {
        // What it is worth when something is wrong does not matter.
        let fallback = Law::Fixed { value: 0 };
        let law = match choice {
            (Some(law), None) => law,
            (None, Some(file)) => {
                self.keys_of("a table from", "cdf", span, keys, &[], &[]);
                return self.table(file, unit).map_or(fallback, |table| Law::Table { table });
            }
            (Some(_), Some(file)) => {
                self.errors.add(file.span.clone(), "`law` or `cdf`, not both");
                return fallback;
            }
            (None, None) => {
                self.errors.add_missing(span.clone(), "this needs `law` or `cdf`");
                return fallback;
            }
        };
        let Some(made) = self.named_law(span, law, keys, values, unit) else { return fallback };
        match made.sampler() {
            Ok(_) => made,
            Err(error) => {
                self.errors.add(law.span.clone(), error.to_string());
                fallback
            }
        }
    }

    fn named_law(
        &mut self,
        span: &Range<usize>,
        law: &At<String>,
        keys: &[(&'static str, Range<usize>)],
        values: &Values,
        unit: Unit,
    ) -> Option<Law> {
        let name = law.value.as_str();
        let Some((_, needed, _)) = LAWS.iter().find(|(known, ..)| *known == name) else {
            let fits = |known: &&str| TIMES.contains(known) == (unit == Unit::Nanoseconds);
            let of_unit = NAMES.iter().copied().filter(fits);
            if NAMES.contains(&name) && !of_unit.clone().any(|known| known == name) {
                let what = if unit == Unit::Bytes { "durations" } else { "sizes" };
                self.errors.add(law.span.clone(), format!("`{name}` is a law of {what}"));
                return None;
            }
            if !NAMES.contains(&name) {
                let known = LAWS.iter().map(|(known, ..)| *known).chain(of_unit);
                self.unknown(&law.span, "law", name, known);
                return None;
            }
            let is_right = self.keys_of("law", name, span, keys, &[], &[]);
            return is_right.then(|| Law::Named { name: name.to_owned() });
        };
        if !self.keys_of("law", name, span, keys, needed, &[]) {
            return None;
        }
        let Values { mean, deviation, low, high, small, large, cv, shape, share_large } = *values;
        Some(match name {
            "uniform" => Law::Uniform { low, high },
            "exponential" => Law::Exponential { mean },
            "lognormal" => Law::Lognormal { mean, cv },
            "bimodal" => Law::Bimodal { small, large, share_large },
            "bounded-pareto" => Law::BoundedPareto { low, high, shape },
            "truncated-normal" => Law::TruncatedNormal { mean, deviation },
            _ => Law::Hyperexponential { mean, cv },
        })
    }

    /// The table in a file.
    fn table(&mut self, file: &At<String>, unit: Unit) -> Option<Cdf> {
        let path = self.folder.join(&file.value);
        let factor = if unit == Unit::Bytes { 1 } else { SECOND };
        let read = (self.files)(&path);
        let table = read.and_then(|text| {
            Cdf::parse(&text, factor, Shape::Line).map_err(|error| format!("{}: {error}", path.display()))
        });
        table.map_err(|reason| self.errors.add(file.span.clone(), reason)).ok()
    }
}

fn number(at: Option<&At<f64>>) -> f64 {
    at.map_or(0.0, |at| at.value)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
