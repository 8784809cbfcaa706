//! Rules from one form into the other: the text language, and the tables of the configuration file.
//!
//! What comes in: a text of rules, or a configuration file. What goes out: the same rules in the one form that is kept to
//! everywhere, or every mistake that stands in the way. Names are not looked up and values not understood here:
//! `evenkeel check` does that.

use std::sync::Arc;

use crate::diagnostic::{Diagnostics, Severity};
use crate::document::{self, Misfit};
use crate::schema::schema;
use crate::sheet::{self, Entry, Item, Sheet, print, tables};
use crate::source::Source;
use crate::written::{File, Named};

/// Reads a text of rules as [`load`](crate::load) does; what is not kept is reported and passed over.
pub(crate) fn read(text: &str, name: &str) -> Result<(Sheet, Diagnostics), Diagnostics> {
    let source = Arc::new(Source::new(name, text.to_owned()));
    let mut found = Diagnostics::default();
    let sheet = sheet::read(text, 0, &mut |misfit: Misfit| found.push(misfit.into_diagnostic(&source)));
    found.sort();
    if found.has_errors() { Err(found) } else { Ok((sheet, found)) }
}

/// A text of rules in the form that `evenkeel fmt` gives.
///
/// # Errors
/// Every word that can not stand where it does.
pub fn format(text: &str, name: &str) -> Result<String, Diagnostics> {
    let (sheet, _) = read(text, name)?;
    Ok(print::text(&sheet, text, 0))
}

/// A text of rules as tables of the configuration file. Also gives what is not kept.
///
/// # Errors
/// Every word that can not stand where it does.
pub fn to_tables(text: &str, name: &str) -> Result<(String, Diagnostics), Diagnostics> {
    let (sheet, found) = read(text, name)?;
    Ok((tables::tables(&sheet), found))
}

/// The flows, outflows and sets of a configuration file as a text of rules, with those that it has as text.
///
/// # Errors
/// When the file is not a configuration file.
pub fn of_tables(toml: &str, name: &str) -> Result<String, Diagnostics> {
    let source = Arc::new(Source::new(name, toml.to_owned()));
    let mut found = Diagnostics::default();
    let file: Option<File> =
        document::read(&source, schema(), &mut |misfit: Misfit| found.push(misfit.into_diagnostic(&source)));
    let Some(file) = file.filter(|_| !found.has_errors()) else {
        found.sort();
        return Err(found.iter().filter(|one| one.severity() == Severity::Error).cloned().collect());
    };
    let rules = file.policy.as_ref().and_then(|policy| policy.value.rules.as_ref());
    let inline = rules.map(|rules| format(&rules.value, &format!("{name}, policy.rules"))).transpose()?;
    let text = print::text(&of_file(file), "", 0);
    Ok([text, inline.unwrap_or_default()]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("\n"))
}

/// The tables of a file as a sheet, in the order of the file: sets, flows, outflows.
fn of_file(file: File) -> Sheet {
    let list = |flows: Option<crate::written::At<Vec<_>>>| flows.map(|flows| flows.value).unwrap_or_default();
    let sets = file.set.map_or(Vec::new(), |sets| {
        let Named(sets) = sets.value;
        sets
    });
    let mut sheet = Sheet { flows: list(file.flow), outflows: list(file.outflow), sets, ..Sheet::default() };
    let counts = [
        (Item::Set, sheet.sets.len()),
        (Item::Flow, sheet.flows.len()),
        (Item::Outflow, sheet.outflows.len()),
    ];
    for (item, count) in counts {
        sheet.order.extend((0..count).map(|number| Entry { item, number, span: 0..0 }));
    }
    sheet
}
