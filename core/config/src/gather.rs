//! What stands elsewhere: rules as text within the file and in files that it names, sets and the data of components in
//! files of their own. They become
//! part of the file as written, and their texts part of the source, so that every mistake is shown where it is.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::diagnostic::{Code, Diagnostics};
use crate::document::Misfit;
use crate::forms::{nearest, quote};
use crate::read::{self, FILE_BYTES_MAX};
use crate::sheet::{self, Sheet};
use crate::source::Source;
use crate::written::{At, File, InterfaceAddressText, Named, OneOrMany, PolicyComponent, Set};

/// The most files that a configuration may name for its rules and sets.
const FILES_MAX: usize = 64;

/// Where further files are looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Files<'a> {
    /// Nowhere: a text alone has none beside it.
    None,
    /// In this folder, and wherever an absolute path leads.
    Beside(&'a Path),
}

/// Adds to `file` what it says elsewhere. Returns the source with all texts.
pub(crate) fn gather(
    file: &mut File,
    source: Arc<Source>,
    files: Files<'_>,
    found: &mut Diagnostics,
) -> Arc<Source> {
    let has_more = file
        .policy
        .as_ref()
        .is_some_and(|policy| policy.value.rules.is_some() || policy.value.file.is_some());
    let has_data = components(file).any(|component| component.data.is_some());
    let sets = Named::entries(file.set.as_ref().map(|sets| &sets.value));
    if !has_more && !has_data && sets.iter().all(|(_, set)| set.value.file.is_none()) {
        return source;
    }
    let mut gathering = Gathering { source: (*source).clone(), files, count: 0, misfits: Vec::new() };
    for sheet in gathering.sheets(file) {
        gathering.merge(file, sheet);
    }
    if let Some(sets) = &mut file.set {
        for (_, set) in &mut sets.value.0 {
            gathering.read_set(&mut set.value);
        }
    }
    for component in components(file) {
        let Some(At { span, value }) = component.data.clone() else { continue };
        component.content = gathering.open(&span, &value).map(|(_, text)| text);
    }
    let source = Arc::new(gathering.source);
    for misfit in gathering.misfits {
        found.push(misfit.into_diagnostic(&source));
    }
    source
}

/// The policy components.
fn components(file: &mut File) -> impl Iterator<Item = &mut PolicyComponent> {
    let components = file.policy.as_mut().and_then(|policy| policy.value.component.as_mut());
    components.into_iter().flat_map(|list| &mut list.value).map(|component| &mut component.value)
}

struct Gathering<'a> {
    source: Source,
    files: Files<'a>,
    /// How many files have been read.
    count: usize,
    misfits: Vec<Misfit>,
}

impl Gathering<'_> {
    fn sheets(&mut self, file: &File) -> Vec<Sheet> {
        let mut sheets = Vec::new();
        let Some(policy) = &file.policy else { return sheets };
        if let Some(rules) = &policy.value.rules {
            let base = self.place_of(rules);
            let (misfits, text) = (&mut self.misfits, rules.value.as_str());
            sheets.push(sheet::read(text, base, &mut |misfit| note(misfits, misfit)));
        }
        for (span, path) in OneOrMany::each(policy.value.file.as_ref()) {
            let Some((base, text)) = self.open(span, path) else { continue };
            let misfits = &mut self.misfits;
            sheets.push(sheet::read(&text, base, &mut |misfit| note(misfits, misfit)));
        }
        sheets
    }

    /// Where the text of rules within the file begins. One with escapes is not in the file as it is, so it follows it.
    fn place_of(&mut self, rules: &At<String>) -> usize {
        let raw = self.source.slice(&rules.span);
        match raw.find(rules.value.as_str()) {
            Some(place) if !rules.value.is_empty() => rules.span.start + place,
            _ => {
                let name = format!("{}, policy.rules", self.source.name);
                self.source.append(&name, &rules.value)
            }
        }
    }

    /// Reads a file that the configuration names. Returns where its text begins in the source, and the text.
    fn open(&mut self, span: &Range<usize>, path: &str) -> Option<(usize, String)> {
        let refused =
            |message: String, help: &str| Some(Misfit::new(Code::Unreadable, span, message).help(help));
        self.count += 1;
        let misfit = if self.count > FILES_MAX {
            let message = format!("more than {FILES_MAX} files of rules and sets are named");
            Some(Misfit::new(Code::TooMany, span, message).help("put some of them into one file"))
        } else {
            match self.files {
                Files::None => refused(
                    format!("{} can not be read: this text is in no folder", quote(path)),
                    "write the rules here instead, or keep this text in a file",
                ),
                Files::Beside(base) => match read::regular(&base.join(path)).and_then(text_of) {
                    Ok(text) => {
                        let name = base.join(path).display().to_string();
                        return Some((self.source.append(&name, &text), text));
                    }
                    Err(reason) => refused(
                        format!("can not read {}: {reason}", quote(path)),
                        "name a text file of at most 4 MiB, relative to this one",
                    ),
                },
            }
        };
        self.misfits.extend(misfit);
        None
    }

    /// Fills a set from its file.
    fn read_set(&mut self, set: &mut Set) {
        let Some(At { span, value }) = set.file.clone() else { return };
        if set.addresses.is_some() || set.ports.is_some() {
            let message = "a set has elements or a file, not both".to_owned();
            self.misfits.push(Misfit::new(Code::Conflict, &span, message).help("take one of them out"));
            return;
        }
        let Some((base, text)) = self.open(&span, &value) else { return };
        let misfits = &mut self.misfits;
        let elements = sheet::elements(&text, base, &mut |misfit| note(misfits, misfit));
        sheet::fill(set, span, elements);
    }

    /// Adds what a text says to the file as written.
    fn merge(&mut self, file: &mut File, sheet: Sheet) {
        let Sheet { flows, outflows, sets, directors, routes, addresses, .. } = sheet;
        extend(&mut file.flow, flows);
        extend(&mut file.outflow, outflows);
        extend(&mut file.route, routes);
        self.add_named(&mut file.set, sets, "sets");
        self.add_named(&mut file.director, directors, "directors");
        for (name, address) in addresses {
            self.address(file, &name, address);
        }
    }

    /// Adds an address to the interface of this name.
    fn address(&mut self, file: &mut File, name: &At<String>, address: At<InterfaceAddressText>) {
        let tables = file.interface.as_mut().map(|tables| &mut tables.value.0);
        let tables = tables.map_or(&mut [][..], |tables| tables.as_mut_slice());
        if let Some((_, table)) = tables.iter_mut().find(|(own, _)| own.value == name.value) {
            return extend(&mut table.value.address, vec![address]);
        }
        let message = format!("no interface is named {}", quote(&name.value));
        let misfit = Misfit::new(Code::UnknownInterface, &name.span, message);
        let names = tables.iter().map(|(own, _)| own.value.as_str());
        self.misfits.push(match nearest(&name.value, names) {
            Some(near) => {
                misfit.repair(name.span.clone(), near.to_owned(), format!("did you mean `{near}`?"))
            }
            None => misfit.help("declare `[interface.NAME]` in the configuration file"),
        });
    }

    fn add_named<T>(&mut self, list: &mut Option<At<Named<T>>>, more: Vec<(At<String>, At<T>)>, kinds: &str) {
        let Some((first, _)) = more.first() else { return };
        let span = first.span.clone();
        let list = &mut list.get_or_insert_with(|| At { span, value: Named(Vec::new()) }).value.0;
        let mut names: BTreeSet<String> = list.iter().map(|(name, _)| name.value.clone()).collect();
        for (name, value) in more {
            if names.insert(name.value.clone()) {
                list.push((name, value));
                continue;
            }
            let message = format!("two {kinds} are named {}", quote(&name.value));
            let misfit = Misfit::new(Code::DuplicateName, &name.span, message);
            self.misfits.push(misfit.help("give one of them another name"));
        }
    }
}

/// The most mistakes that are noted of a text: more than are shown, and few beside the text itself.
const MISFITS_MAX: usize = 10 * Diagnostics::MAX;

fn note(misfits: &mut Vec<Misfit>, misfit: Misfit) {
    if misfits.len() < MISFITS_MAX {
        misfits.push(misfit);
    }
}

fn extend<T>(list: &mut Option<At<Vec<At<T>>>>, more: Vec<At<T>>) {
    let Some(span) = more.first().map(|first| first.span.clone()) else { return };
    list.get_or_insert_with(|| At { span, value: Vec::new() }).value.extend(more);
}

fn text_of(bytes: Vec<u8>) -> io::Result<String> {
    if bytes.len() > FILE_BYTES_MAX {
        return Err(io::Error::other("it is larger than 4 MiB"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        io::Error::other(format!("it is not UTF-8 from byte {valid} on"))
    })
}
