//! Configurations of other systems as one of ours.
//!
//! What comes in: a text of ALOHA, of `ipvsadm --save --numeric`, of keepalived or of HAProxy. What goes out: a configuration file,
//! and a warning for each thing of the text that it does not keep, with its place. The result is one that
//! [`parse`](crate::parse) takes; what has no meaning there is left out rather than guessed.

mod aloha;
mod haproxy;
mod ipvsadm;
mod keepalived;
mod service;
mod tidy;

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use crate::diagnostic::{Code, Diagnostic, Diagnostics};
use crate::document::Misfit;
use crate::source::Source;
use service::{Extras, Service};

/// The schedulers that IPVS has, which here have the same names and meanings.
pub(crate) const SCHEDULERS: [&str; 14] =
    ["rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh", "twos"];

/// Whose text it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// HAProxy ALOHA: flows, outflows, directors and network services.
    Aloha,
    /// IPVS, as `ipvsadm --save --numeric` prints it.
    Ipvsadm,
    /// keepalived: its virtual servers.
    Keepalived,
    /// HAProxy: what of its connections layer 4 can keep.
    Haproxy,
}

/// A configuration file that says what `text` says, and what it does not keep. `name` is that of the text in messages.
///
/// Where the text says "every address of the machine", `any` is meant.
///
/// # Errors
/// When nothing of the text can be kept, or a word of an ALOHA text can not stand where it does.
pub fn import(
    system: System,
    text: &str,
    name: &str,
    any: Option<IpAddr>,
) -> Result<(String, Diagnostics), Diagnostics> {
    let mut notes = Notes::default();
    let (services, extras) = match system {
        System::Aloha => return aloha::import(text, name),
        System::Ipvsadm => (ipvsadm::import(text, &mut notes), Extras::default()),
        System::Keepalived => (keepalived::import(text, &mut notes), Extras::default()),
        System::Haproxy => haproxy::import(text, any, &mut notes),
    };
    let services = tidy::tidy(services, &mut notes);
    finish(text, name, &services, extras, notes)
}

/// What an importer notes as it goes.
#[derive(Debug, Default)]
struct Notes(Vec<Misfit>);

impl Notes {
    fn not_kept(&mut self, span: &Range<usize>, message: String, help: &str) {
        if self.0.len() < 10 * Diagnostics::MAX {
            self.0.push(Misfit::new(Code::NotKept, span, message).help(help));
        }
    }
}

fn finish(
    text: &str,
    name: &str,
    services: &[Service],
    extras: Extras,
    notes: Notes,
) -> Result<(String, Diagnostics), Diagnostics> {
    let source = Arc::new(Source::new(name, text.to_owned()));
    let mut found = Diagnostics::default();
    notes.0.into_iter().for_each(|misfit| found.push(misfit.into_diagnostic(&source)));
    found.sort();
    if services.is_empty() {
        let message = format!("{name} has no service that can be kept");
        let diagnostic = Diagnostic::without_place(&source, Code::NoServices, message);
        let help = "name the file of the system that stands before it: `aloha`, `ipvsadm`, `keepalived` or `haproxy`";
        found.push(diagnostic.help(help));
        return Err(found);
    }
    Ok((service::file(services, extras), found))
}

/// The words of a line, each with its place; `offset` is where the line begins.
fn words(line: &str, offset: usize) -> Vec<(Range<usize>, &str)> {
    let mut all = Vec::new();
    let mut rest = line;
    while let Some(start) = rest.find(|one: char| !one.is_whitespace()) {
        let word = rest.get(start..).unwrap_or("");
        let word = word.get(..word.find(char::is_whitespace).unwrap_or(word.len())).unwrap_or("");
        let place = offset + (line.len() - rest.len()) + start;
        all.push((place..place + word.len(), word));
        rest = rest.get(start + word.len()..).unwrap_or("");
    }
    all
}
