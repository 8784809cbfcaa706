//! Who is who: machines by name, and the patterns that mean several of them.

use std::ops::Range;

use crate::scenario::Scenario;

/// The machines of a scenario by group. Groups are few where machines are many, so a pattern is held against groups.
#[derive(Debug)]
pub(super) struct Roster {
    /// Name, whether its machines are numbered, and their numbers in the scenario.
    groups: Vec<(String, bool, Range<usize>)>,
    /// Where routers begin, and where forwarders do.
    routers: usize,
    forwarders: usize,
}

impl Roster {
    pub(super) fn of(scenario: &Scenario) -> Self {
        let mut groups: Vec<(String, bool, Range<usize>)> = Vec::new();
        for number in 0..scenario.machine_count() {
            let Some((name, group, _)) = scenario.machine(number) else { continue };
            match groups.last_mut() {
                Some((last, true, range)) if last == group => range.end = number + 1,
                _ => groups.push((group.to_owned(), name != group, number..number + 1)),
            }
        }
        let routers = scenario.hosts.len();
        Self { groups, routers, forwarders: routers + scenario.routers.len() }
    }

    /// The machines that a pattern means: a name, a group's name, or the beginning of either with "*" behind.
    pub(super) fn matching(&self, pattern: &str) -> Vec<usize> {
        let (wanted, is_prefix) = match pattern.strip_suffix('*') {
            Some(start) => (start, true),
            None => (pattern, false),
        };
        let mut found = Vec::new();
        for (group, is_numbered, range) in &self.groups {
            if group == wanted || (is_prefix && group.starts_with(wanted)) {
                found.extend(range.clone());
                continue;
            }
            let rest = wanted.strip_prefix(group.as_str()).and_then(|rest| rest.strip_prefix('.'));
            let Some(digits) = rest.filter(|_| *is_numbered) else { continue };
            if is_prefix {
                let numbers = (0..range.len()).filter(|number| number.to_string().starts_with(digits));
                found.extend(numbers.map(|number| range.start + number));
            } else if let Ok(number) = digits.parse::<usize>()
                && number < range.len()
                && number.to_string() == digits
            {
                found.push(range.start + number);
            }
        }
        found
    }

    /// The names of all groups, routers and forwarders.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().map(|(name, ..)| name.as_str())
    }

    pub(super) const fn is_host(&self, machine: usize) -> bool {
        machine < self.routers
    }

    pub(super) const fn is_forwarder(&self, machine: usize) -> bool {
        machine >= self.forwarders
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_names_groups_and_beginnings() {
        let groups = vec![
            ("client".to_owned(), true, 0..12),
            ("clients".to_owned(), false, 12..13),
            ("server".to_owned(), true, 13..16),
            ("lb".to_owned(), false, 16..17),
        ];
        let roster = Roster { groups, routers: 16, forwarders: 16 };
        assert_eq!(roster.matching("client"), (0..12).collect::<Vec<_>>());
        assert_eq!(roster.matching("client*"), (0..13).collect::<Vec<_>>());
        assert_eq!(roster.matching("client.1"), [1]);
        assert_eq!(roster.matching("client.1*"), [1, 10, 11]);
        assert_eq!(roster.matching("client.*").len(), 12);
        assert_eq!(roster.matching("*").len(), 17);
        assert_eq!(roster.matching("lb"), [16]);
        for nobody in
            ["", "client.12", "client.01", "client.", "client.x", "lb.0", "clients.0", "cli", "serverx*"]
        {
            assert_eq!(roster.matching(nobody), [0; 0], "{nobody}");
        }
        assert!(roster.is_forwarder(16) && roster.is_host(15) && !roster.is_host(16));
    }
}
