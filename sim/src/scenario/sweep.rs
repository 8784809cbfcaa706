//! The points of a study: the same file with other values in some places, in every combination.
//!
//! ```text
//! [sweep]                                            point 1: 20k/s, 2 cores ... point 4: 40k/s, 4 cores
//! "load.users.arrivals.rate" = ["20k/s", "40k/s"]  ->  each the text of the file with these values
//! "host.server.service.cores" = [2, 4]
//! ```
//! Values are put in the place of those in the text, so all else stays as it was written, lines and columns as well.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::record::data::Parameter;

/// The most points of a study: as many as a comparison has rows.
pub const POINTS_MAX: usize = crate::record::comparison::ROWS_MAX;

/// One point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// What is different from other points, in the order of the file.
    pub parameters: Vec<Parameter>,
    /// The text of its scenario.
    pub text: String,
}

/// One key and the places where its values stand: that in the scenario, and those of the list.
struct Axis {
    key: String,
    place: Range<usize>,
    values: Vec<Range<usize>>,
}

/// The points of a scenario; one without parameters where nothing is swept.
///
/// # Errors
/// When a key of the sweep is not in the file, or there are too many points; the text names it.
pub fn points(text: &str) -> Result<Vec<Point>, String> {
    let root = DeTable::parse(text).map_err(|error| error.to_string())?;
    let root = root.get_ref();
    let mut points = vec![Point { parameters: Vec::new(), text: text.to_owned() }];
    let Some(sweep) = root.get("sweep").and_then(|sweep| sweep.get_ref().as_table()) else {
        return Ok(points);
    };
    let mut axes = Vec::new();
    for (key, values) in sweep {
        let key = key.get_ref().to_string();
        let list =
            values.get_ref().as_array().ok_or_else(|| format!("sweep: {key:?} has no list of values"))?;
        let place = place(root, &key).ok_or_else(|| {
            format!("sweep: the file has no {key:?}; a value that is swept stands there, as for a single run")
        })?;
        axes.push(Axis { key, place, values: list.iter().map(Spanned::span).collect() });
    }
    // The first key of the file changes slowest.
    axes.sort_by_key(|axis| axis.values.first().map_or(0, |first| first.start));
    let count = axes.iter().try_fold(1_usize, |count, axis| count.checked_mul(axis.values.len()));
    if count.is_none_or(|count| count > POINTS_MAX) {
        return Err(format!("sweep: more than {POINTS_MAX} points"));
    }
    points = combinations(text, &axes);
    Ok(points)
}

/// Every combination of values.
fn combinations(text: &str, axes: &[Axis]) -> Vec<Point> {
    let mut choices: Vec<Vec<(&Axis, &Range<usize>)>> = vec![Vec::new()];
    for axis in axes {
        let longer = choices.iter().flat_map(|choice| {
            axis.values.iter().map(move |value| {
                let mut choice = choice.clone();
                choice.push((axis, value));
                choice
            })
        });
        choices = longer.collect();
    }
    choices.iter().map(|choice| point(text, choice)).collect()
}

fn point(text: &str, choice: &[(&Axis, &Range<usize>)]) -> Point {
    let literal = |value: &Range<usize>| text.get(value.clone()).unwrap_or_default();
    let parameters = choice.iter().map(|(axis, value)| Parameter {
        name: axis.key.clone(),
        value: literal(value).trim_matches('"').to_owned(),
    });
    let parameters = parameters.collect();
    // From the end to the beginning, so that places stay right.
    let mut changes: Vec<_> =
        choice.iter().map(|(axis, value)| (axis.place.clone(), literal(value))).collect();
    changes.sort_by_key(|(place, _)| std::cmp::Reverse(place.start));
    let mut changed = text.to_owned();
    for (place, value) in changes {
        if text.is_char_boundary(place.start) && text.is_char_boundary(place.end) {
            changed.replace_range(place, value);
        }
    }
    Point { parameters, text: changed }
}

/// Where the value of a key stands: names, and numbers of entries of lists from 0, with dots between them.
fn place(root: &DeTable<'_>, key: &str) -> Option<Range<usize>> {
    let mut parts = key.split('.');
    let mut value = root.get(parts.next()?)?;
    let mut rest: Vec<&str> = parts.collect();
    rest.reverse();
    while let Some(part) = rest.pop() {
        value = match value.get_ref() {
            DeValue::Table(table) => table.get(part)?,
            DeValue::Array(list) => list.get(part.parse::<usize>().ok()?)?,
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => return None,
        };
    }
    match value.get_ref() {
        DeValue::Table(_) => None,
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_) => Some(value.span()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[sweep]\n\"load.web.rate\" = [\"20/s\", \"40/s\"] # two\n\"host.0.cores\" = [1, 2, 4]\n\n[load.web]\n\
                        rate = \"10/s\" # stays\n[[host]]\ncores = 9\n";

    #[test]
    fn every_combination_is_a_text_in_which_only_the_values_differ() {
        let points = points(TEXT).unwrap();
        assert_eq!(points.len(), 6);
        assert!(
            points[0].text.ends_with("rate = \"20/s\" # stays\n[[host]]\ncores = 1\n"),
            "{}",
            points[0].text
        );
        assert!(
            points[5].text.ends_with("rate = \"40/s\" # stays\n[[host]]\ncores = 4\n"),
            "{}",
            points[5].text
        );
        let values = |point: &Point| {
            let each = point.parameters.iter().map(|one| format!("{}={}", one.name, one.value));
            each.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(values(&points[4]), "load.web.rate=40/s host.0.cores=2");
        let lines = |text: &str| text.lines().count();
        assert!(points.iter().all(|point| lines(&point.text) == lines(TEXT)));
    }

    #[test]
    fn a_file_without_a_sweep_is_one_point() {
        let points = points("[scenario]\nname = \"x\"\n").unwrap();
        assert_eq!((points.len(), points[0].parameters.len()), (1, 0));
    }

    #[test]
    fn what_can_not_be_swept_is_named() {
        let refused = |text: &str| points(text).unwrap_err();
        assert!(refused("[sweep]\n\"load.web.rate\" = [1]\n").contains("no \"load.web.rate\""));
        assert!(refused("a = 1\n[sweep]\na = 1\n").contains("\"a\" has no list"));
        let many = format!("a = 1\nb = 2\n[sweep]\na = [{0}]\nb = [{0}]\n", vec!["1"; 40].join(","));
        assert!(refused(&many).contains("more than 1024 points"));
    }
}
