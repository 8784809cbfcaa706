//! Links.

use evenkeel_config::document::{At, Named};

use super::Checker;
use super::roster::Roster;
use crate::scenario::written;
use crate::scenario::{Link, Scenario};

impl Checker<'_, '_> {
    /// In the order of the file, since the last one that fits counts.
    pub(super) fn links(
        &mut self,
        written: Option<&At<Named<written::Link>>>,
        scenario: &Scenario,
        roster: &Roster,
    ) -> Vec<Link> {
        let mut links = Vec::new();
        for (name, link) in self.in_order_of_file(written, "link") {
            let written = &link.value;
            let both = written.both();
            let up = self.quality(&both, written.up.as_ref().map(|at| &at.value));
            let down = self.quality(&both, written.down.as_ref().map(|at| &at.value));
            let Some(ends) = &written.ends else { continue };
            let [machines, segment] = ends.value.as_slice() else {
                let message = "ends are two: machines (`client*`) and a segment";
                self.errors.add(ends.span.clone(), message);
                continue;
            };
            let name_of_segment = At { span: segment.span.clone(), value: segment.value.0.clone() };
            let Some(index) = self.segment(&name_of_segment, &scenario.segments) else { continue };
            let machines = self.machines_on(machines, index, scenario, roster);
            if self.take_parts(&name.span, machines.len()) {
                links.push(Link { name: name.value.clone(), machines, segment: index, up, down });
            }
        }
        links
    }

    /// The machines of a pattern that are attached to a segment; notes when there are none.
    pub(super) fn machines_on(
        &mut self,
        pattern: &At<written::PatternText>,
        segment: usize,
        scenario: &Scenario,
        roster: &Roster,
    ) -> Vec<usize> {
        let is_there = |number: &usize| {
            let network = scenario.machine(*number).map(|(_, _, network)| network);
            network.is_some_and(|network| network.attachments.iter().any(|own| own.segment == segment))
        };
        let named = roster.matching(&pattern.value.0);
        let on: Vec<usize> = named.iter().copied().filter(is_there).collect();
        let name = scenario.segments.get(segment).map_or("", |segment| segment.name.as_str());
        if named.is_empty() {
            self.unknown(&pattern.span, "machine", &pattern.value.0, roster.names());
        } else if on.is_empty() {
            let message = format!("nobody of `{}` is attached to {name}", pattern.value.0);
            self.errors.add(pattern.span.clone(), message);
        }
        on
    }
}
