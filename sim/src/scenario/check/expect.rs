//! Captures and expectations.

use evenkeel_config::document::{At, Named, OneOrMany};

use super::Checker;
use super::roster::Roster;
use super::traffic::PATTERNS_MAX;
use crate::report::metric;
use crate::scenario::written::{self, NumberOrText};
use crate::scenario::{Expectation, Expected, Segment};

/// The most expectations of a file.
const EXPECTATIONS_MAX: usize = 1_024;

impl Checker<'_, '_> {
    /// The segments that a capture holds, by number.
    pub(super) fn captures(
        &mut self,
        written: Option<&At<written::Capture>>,
        segments: &[Segment],
    ) -> Vec<usize> {
        let mut captures = Vec::new();
        let patterns = OneOrMany::each(written.and_then(|at| at.value.segments.as_ref()));
        if let Some((span, _)) = patterns.get(PATTERNS_MAX) {
            self.errors.add((*span).clone(), format!("a list has at most {PATTERNS_MAX} patterns"));
        }
        for (span, pattern) in patterns.into_iter().take(PATTERNS_MAX) {
            let fits = |segment: &Segment| match pattern.0.strip_suffix('*') {
                Some(start) => segment.name.starts_with(start),
                None => segment.name == pattern.0,
            };
            let before = captures.len();
            captures
                .extend(segments.iter().enumerate().filter(|(_, segment)| fits(segment)).map(|(at, _)| at));
            if captures.len() == before {
                self.unknown(
                    span,
                    "segment",
                    &pattern.0,
                    segments.iter().map(|segment| segment.name.as_str()),
                );
            }
            captures.sort_unstable();
            captures.dedup();
        }
        captures
    }

    /// The machines that a capture holds, by number.
    pub(super) fn captured_machines(
        &mut self,
        written: Option<&At<written::Capture>>,
        roster: &Roster,
    ) -> Vec<usize> {
        let Some(At { span, value }) = written else { return Vec::new() };
        if value.segments.is_none() && value.machines.is_none() {
            self.errors.add_missing(span.clone(), "a capture needs `segments` or `machines`");
        }
        let patterns = OneOrMany::each(value.machines.as_ref());
        let mut machines = self.machines(&patterns, roster);
        machines.sort_unstable();
        machines.dedup();
        machines
    }

    /// Every key of a sweep has values. Whether it is there at all is seen where points are made.
    pub(super) fn sweep(&mut self, written: Option<&At<Named<Vec<NumberOrText>>>>) {
        for (key, values) in Named::entries(written.map(|at| &at.value)) {
            if values.value.is_empty() {
                self.errors.add(values.span.clone(), format!("{:?} is swept over no value", key.value));
            }
        }
    }

    pub(super) fn expectations(
        &mut self,
        written: Option<&At<Vec<At<written::Expect>>>>,
    ) -> Vec<Expectation> {
        let mut expectations = Vec::new();
        let written = written.map_or(&[][..], |at| at.value.as_slice());
        if let Some(first) = written.get(EXPECTATIONS_MAX) {
            self.errors.add(first.span.clone(), format!("more than {EXPECTATIONS_MAX} expectations"));
        }
        for At { span, value } in written.iter().take(EXPECTATIONS_MAX) {
            if let Some(name) = value.metric.as_ref().filter(|name| !metric::is_known(&name.value)) {
                self.unknown(&name.span, "metric", &name.value, metric::NAMES.iter().map(|(name, _)| *name));
            }
            if value.min.is_none() && value.max.is_none() && value.equals.is_none() {
                self.errors.add_missing(span.clone(), "an expectation needs `min`, `max` or `equals`");
            }
            if let (Some(min), Some(max)) = (&value.min, &value.max)
                && min.value > max.value
            {
                self.errors
                    .add(min.span.clone(), format!("`min` ({}) is above `max` ({})", min.value, max.value));
            }
            let Some(metric) = &value.metric else { continue };
            expectations.push(Expectation {
                metric: metric.value.clone(),
                min: value.min.as_ref().map(|at| at.value),
                max: value.max.as_ref().map(|at| at.value),
                equals: value.equals.as_ref().map(|at| match &at.value {
                    NumberOrText::Number(number) => Expected::Number(*number),
                    NumberOrText::Text(text) => Expected::Text(text.clone()),
                }),
            });
        }
        expectations
    }
}
