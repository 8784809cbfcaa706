//! What a comparison came to, as text and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;
use serde_json::Value;

use super::differ::{self, FieldDifference};
use super::intended;

/// The most differences that are kept: a recording of which nothing agrees is understood by then. All are counted.
const DIFFERENCES_MAX: usize = 10_000;

/// The outcome of replaying a recording.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The recording's format: `ipvs-packets` or `katran`.
    pub recording: &'static str,
    /// What is counted: frames or vectors.
    pub unit: &'static str,
    /// How many are the same after the recording's masks.
    pub agree: u64,
    /// How many were compared.
    pub compared: u64,
    /// How many differ as it is meant.
    pub intended: u64,
    /// How many differ otherwise.
    pub differ: u64,
    /// How often each mask of the recording was applied.
    pub masked: BTreeMap<&'static str, u64>,
    /// How often each rule of the differences that are meant was met.
    pub rules: BTreeMap<&'static str, u64>,
    /// What was not compared, by reason.
    pub not_applicable: BTreeMap<String, u64>,
    /// The scenarios or lists, in the order of the file.
    pub cases: Vec<Case>,
    /// The differences, those that are meant among them.
    pub differences: Vec<Difference>,
}

/// A scenario, or a list of vectors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Case {
    /// Its name in the recording.
    pub name: String,
    /// How many are the same after the recording's masks.
    pub agree: u64,
    /// How many were compared.
    pub compared: u64,
    /// What was read out of it: mode, servers, what was skipped.
    pub notes: Vec<String>,
}

/// A frame that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The scenario or list.
    pub case: String,
    /// Which of its frames.
    pub at: String,
    /// The rules that it falls under; none for a difference that is not meant.
    pub rules: Vec<&'static str>,
    /// What differs, in a line.
    pub what: String,
    /// The fields that differ.
    pub fields: Vec<FieldDifference>,
    /// The recorded bytes, in hexadecimal.
    #[serde(serialize_with = "hex")]
    pub recorded: Option<Vec<u8>>,
    /// The engine's bytes, in hexadecimal.
    #[serde(serialize_with = "hex")]
    pub ours: Option<Vec<u8>>,
}

#[allow(clippy::ref_option, reason = "the serializer's form")]
fn hex<S: serde::Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
    bytes.as_deref().map(crate::stdio::encode).serialize(serializer)
}

impl Report {
    pub(super) fn new(recording: &'static str, unit: &'static str) -> Self {
        Self { recording, unit, ..Self::default() }
    }

    /// Whether every difference is one that is meant.
    #[must_use]
    pub const fn is_conforming(&self) -> bool {
        self.differ == 0
    }

    /// The report as JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        if let Some(object) = value.as_object_mut() {
            object.insert("is_conforming".to_owned(), self.is_conforming().into());
        }
        value
    }

    pub(super) fn begin(&mut self, name: &str) {
        self.cases.push(Case { name: name.to_owned(), ..Case::default() });
    }

    pub(super) fn note(&mut self, note: String) {
        if let Some(case) = self.cases.last_mut() {
            case.notes.push(note);
        }
    }

    pub(super) fn mask(&mut self, name: &'static str) {
        *self.masked.entry(name).or_default() += 1;
    }

    pub(super) fn skip(&mut self, reason: &str) {
        *self.not_applicable.entry(reason.to_owned()).or_default() += 1;
    }

    pub(super) fn agree(&mut self) {
        self.agree += 1;
        self.compared += 1;
        if let Some(case) = self.cases.last_mut() {
            case.agree += 1;
            case.compared += 1;
        }
    }

    pub(super) fn differ(&mut self, mut difference: Difference) {
        self.compared += 1;
        if let Some(case) = self.cases.last_mut() {
            case.compared += 1;
            difference.case.clone_from(&case.name);
        }
        if difference.rules.is_empty() {
            self.differ += 1;
        } else {
            self.intended += 1;
        }
        for rule in &difference.rules {
            *self.rules.entry(rule).or_default() += 1;
        }
        if self.differences.len() < DIFFERENCES_MAX {
            self.differences.push(difference);
        }
    }

    /// The report for people: what differs, then the counts; the line `AGREE n of m` is the last but for its remarks.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        self.write_cases(&mut text);
        self.write_unexplained(&mut text);
        self.write_intended(&mut text);
        for (reason, count) in &self.not_applicable {
            let _ = writeln!(text, "not applicable: {count} {}: {reason}", self.unit);
        }
        for (mask, count) in &self.masked {
            let _ = writeln!(text, "masked: {mask}, {count} times");
        }
        let _ = writeln!(text, "AGREE {} of {}", self.agree, self.compared);
        let skipped: u64 = self.not_applicable.values().sum();
        let _ = writeln!(
            text,
            "{}: {} differ as intended, {} otherwise, {skipped} not applicable",
            self.unit, self.intended, self.differ
        );
        text
    }

    fn write_cases(&self, text: &mut String) {
        let width = self.cases.iter().map(|case| case.name.len()).max().unwrap_or(0);
        for case in &self.cases {
            let notes = case.notes.join("; ");
            let counts = format!("{} of {}", case.agree, case.compared);
            let line = format!("{:width$}  {counts:>9}  {notes}", case.name);
            let _ = writeln!(text, "{}", line.trim_end());
        }
    }

    fn write_unexplained(&self, text: &mut String) {
        for one in self.differences.iter().filter(|one| one.rules.is_empty()) {
            let _ = writeln!(text, "\nDIFFERS {}, {}: {}", one.case, one.at, one.what);
            if !one.fields.is_empty() {
                text.push_str(&differ::table(&one.fields));
            }
            match (&one.recorded, &one.ours) {
                (Some(recorded), Some(ours)) => {
                    text.push_str("    bytes, recorded | ours\n");
                    text.push_str(&differ::dump(recorded, ours));
                }
                (Some(bytes), None) | (None, Some(bytes)) => {
                    let _ = writeln!(text, "    {}", crate::stdio::encode(bytes));
                }
                (None, None) => {}
            }
        }
        text.push('\n');
    }

    fn write_intended(&self, text: &mut String) {
        for (id, count) in &self.rules {
            let Some(rule) = intended::rule(id) else { continue };
            let _ = writeln!(text, "intended: {id}, {count} times: {}; here {}", rule.recorded, rule.ours);
        }
        for one in self.differences.iter().filter(|one| !one.rules.is_empty()) {
            let fields = one.fields.iter().map(|field| {
                let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
                format!("{} {} -> {}", field.field, shown(&field.recorded), shown(&field.ours))
            });
            let fields = fields.collect::<Vec<_>>().join(", ");
            let fields = if fields.is_empty() { one.what.clone() } else { fields };
            let _ = writeln!(text, "  {}, {} ({}): {fields}", one.case, one.at, one.rules.join(", "));
        }
    }
}
