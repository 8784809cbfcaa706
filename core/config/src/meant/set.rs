//! Named sets of addresses and ports.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use evenkeel_engine::plan::{AddressSet, Prefix};

use super::Meaning;
use crate::addresses;
use crate::diagnostic::Code;
use crate::forms::{self, quote};
use crate::written::{self, Named, NumberOr, OneOrMany};

/// The most elements of a set: a file of 4 MiB holds no more.
const ELEMENTS_MAX: usize = 1 << 20;

/// What a set holds.
pub(super) enum Elements {
    /// Networks, and all of them as the engine takes them.
    Addresses(Vec<Prefix>, Arc<AddressSet>),
    /// Ranges of ports.
    Ports(Vec<RangeInclusive<u16>>),
}

impl Elements {
    /// What it is a set of.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Addresses(..) => "addresses",
            Self::Ports(_) => "ports",
        }
    }
}

impl Meaning<'_> {
    /// Understands the sets of the file.
    pub(super) fn all_sets(&mut self, file: &written::File) {
        let mut sets = BTreeMap::new();
        for (name, set) in Named::entries(file.set.as_ref().map(|sets| &sets.value)) {
            self.text(&name.span, forms::name(&name.value));
            let value = &set.value;
            if value.addresses.is_some() == value.ports.is_some() {
                // A file that could not be read has been reported.
                if value.file.is_none() || value.addresses.is_some() {
                    let message =
                        format!("the set {} is one of `addresses`, `ports` and `file`", quote(&name.value));
                    let diagnostic = self.diagnostic(Code::Conflict, &set.span, message);
                    self.found.push(diagnostic.help("write exactly one of them"));
                }
                sets.insert(name.value.clone(), self.addresses_of(value));
                continue;
            }
            let elements =
                if value.ports.is_some() { self.ports_of(value) } else { self.addresses_of(value) };
            sets.insert(name.value.clone(), elements);
        }
        self.sets = sets;
    }

    fn addresses_of(&mut self, set: &written::Set) -> Elements {
        let list = OneOrMany::each(set.addresses.as_ref());
        let parsed = list.into_iter().take(ELEMENTS_MAX);
        let networks: Vec<Prefix> =
            parsed.filter_map(|(span, text)| self.text(span, addresses::network(&text.0))).collect();
        let all = Arc::new(AddressSet::of(&networks));
        Elements::Addresses(networks, all)
    }

    fn ports_of(&mut self, set: &written::Set) -> Elements {
        let list = OneOrMany::each(set.ports.as_ref());
        let parsed = list.into_iter().take(ELEMENTS_MAX).filter_map(|(span, range)| match range {
            NumberOr::Number(port) => u16::try_from(*port).ok().map(|port| port..=port),
            NumberOr::Text(text) => self.text(span, addresses::rule_ports(&text.0)),
        });
        Elements::Ports(parsed.collect())
    }
}
