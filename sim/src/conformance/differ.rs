//! Two frames side by side: which fields differ, and how that is shown.

use std::fmt::Write;

use serde::Serialize;

use super::frame::Parsed;

/// Bytes in a row of the side-by-side dump.
const ROW_BYTES: usize = 8;
/// Rows that are shown of a pair at most; a difference that goes on is seen by then.
const ROWS_MAX: usize = 24;

/// A field that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldDifference {
    /// Its name, with what it lies in: `ip.ttl`, `icmp.quote.udp.checksum`.
    pub field: String,
    /// What the recording says; nothing where the field is missing.
    pub recorded: Option<String>,
    /// What the engine said.
    pub ours: Option<String>,
}

/// The fields that differ, in the order of the recorded frame, then those that only ours has.
pub(super) fn compare(recorded: &Parsed<'_>, ours: &Parsed<'_>) -> Vec<FieldDifference> {
    let mut differences = Vec::new();
    for field in &recorded.fields {
        let other = ours.field(&field.name);
        let is_same = other.is_some() && recorded.get(&field.name) == ours.get(&field.name);
        if !is_same {
            differences.push(FieldDifference {
                field: field.name.clone(),
                recorded: Some(field.text.clone()),
                ours: other.map(|other| other.text.clone()),
            });
        }
    }
    for field in ours.fields.iter().filter(|field| recorded.field(&field.name).is_none()) {
        let (field, ours) = (field.name.clone(), Some(field.text.clone()));
        differences.push(FieldDifference { field, recorded: None, ours });
    }
    differences
}

/// The fields that differ as a table.
pub(super) fn table(differences: &[FieldDifference]) -> String {
    let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let rows: Vec<[String; 3]> =
        differences.iter().map(|one| [one.field.clone(), shown(&one.recorded), shown(&one.ours)]).collect();
    let width = |column: usize, title: &str| {
        let widest = rows.iter().filter_map(|row| row.get(column)).map(String::len).max();
        widest.unwrap_or(0).max(title.len())
    };
    let (first, second) = (width(0, "field"), width(1, "recorded"));
    let mut text = format!("    {:first$}  {:second$}  ours\n", "field", "recorded");
    for [field, recorded, ours] in &rows {
        let _ = writeln!(text, "    {field:first$}  {recorded:second$}  {ours}");
    }
    text
}

/// The rows of both frames that differ, recorded left, ours right.
pub(super) fn dump(recorded: &[u8], ours: &[u8]) -> String {
    let rows = recorded.len().max(ours.len()).div_ceil(ROW_BYTES);
    let row = |bytes: &[u8], at: usize| {
        let end = bytes.len().min(at + ROW_BYTES);
        let bytes = bytes.get(at..end).unwrap_or_default();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
    };
    let mut text = String::new();
    let mut shown = 0;
    for number in 0..rows {
        let at = number * ROW_BYTES;
        let (left, right) = (row(recorded, at), row(ours, at));
        if left == right {
            continue;
        }
        shown += 1;
        if shown > ROWS_MAX {
            text.push_str("    ...\n");
            break;
        }
        let width = ROW_BYTES * 3 - 1;
        let _ = writeln!(text, "    {at:04x}  {left:width$}  |  {right}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stdio::decode;

    fn datagram() -> Vec<u8> {
        decode("45000021a55740003e11cb67c000020a0a0000039c401f40000d347468656c6c6f").unwrap()
    }

    #[test]
    fn the_same_bytes_differ_nowhere() {
        let bytes = datagram();
        assert_eq!(compare(&Parsed::packet(&bytes), &Parsed::packet(&bytes)), []);
        assert_eq!(dump(&bytes, &bytes), "");
    }

    #[test]
    fn each_changed_byte_is_named_and_shown() {
        let bytes = datagram();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let found = compare(&Parsed::packet(&bytes), &Parsed::packet(&changed));
            assert!(!found.is_empty(), "byte {at}");
            let shown = dump(&bytes, &changed);
            assert!(shown.starts_with(&format!("    {:04x}  ", at / ROW_BYTES * ROW_BYTES)), "{shown}");
            assert!(table(&found).lines().count() > 1);
        }
    }

    #[test]
    fn fields_that_one_side_lacks_are_differences() {
        let bytes = datagram();
        let cut = &bytes[..24];
        let found = compare(&Parsed::packet(&bytes), &Parsed::packet(cut));
        let names: Vec<_> = found.iter().map(|one| one.field.as_str()).collect();
        assert_eq!(names, ["udp.length", "udp.checksum", "payload"]);
        assert!(found.iter().all(|one| one.ours.is_none()));
        let found = compare(&Parsed::packet(cut), &Parsed::packet(&bytes));
        assert!(found.len() == 3 && found.iter().all(|one| one.recorded.is_none()));
        assert_eq!(dump(&[], &[0xab; 3]), format!("    0000  {:23}  |  ab ab ab\n", ""));
    }
}
