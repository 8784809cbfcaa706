//! The scenarios that come with the program, with the configuration files that they name.
//!
//! They are text: whoever runs one writes its files into a folder first, or reads them where they lie in the
//! source, `sim/scenarios`.

/// One scenario of the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name, the one in its file.
    pub name: &'static str,
    /// Its files, by name; the first is the scenario.
    pub files: &'static [(&'static str, &'static str)],
}

macro_rules! entries {
    ($($name:literal),+ $(,)?) => {
        &[$(Entry {
            name: $name,
            files: &[
                (concat!($name, ".toml"), include_str!(concat!("../scenarios/", $name, ".toml"))),
                (
                    concat!($name, "-evenkeel.toml"),
                    include_str!(concat!("../scenarios/", $name, "-evenkeel.toml")),
                ),
            ],
        }),+]
    };
}

/// Every scenario, sorted by name.
pub const ENTRIES: &[Entry] = entries![
    "agent-check",
    "d01-dsr-arp-ignore-0",
    "d02-dsr-arp-ignore-1",
    "d03-dsr-arp-announce-0",
    "d04-dsr-arp-announce-2",
    "d05-dsr-behind-router",
    "d06-nat-one-subnet",
    "d07-one-arm-snat",
    "d08-two-nic-gateway",
    "d09-outflow-table-missing",
    "d10-pass-unchanged",
    "demo",
    "dsr",
    "ecmp-four-forwarders",
    "flows-and-outflows",
    "guest-faults",
    "lb-rp-two-port",
    "many-requests",
    "nat-one-nic",
    "nat-one-subnet",
    "nat-two-nic",
    "nat-udp-snat",
    "policy-examples",
    "policy-examples-component",
    "policy-outflow",
    "policy-outflow-component",
    "smoltcp-hosts",
    "source-sticky-two-forwarders",
    "tunnel",
];

impl Entry {
    /// What it shows: the first sentence of the comment that opens the file.
    #[must_use]
    pub fn about(&self) -> String {
        let text = self.files.first().map_or("", |(_, text)| text);
        let comment = text.lines().map_while(|line| line.strip_prefix('#')).map(str::trim);
        let comment = comment.collect::<Vec<_>>().join(" ");
        let end = comment.find(". ").map_or(comment.len(), |at| at + 1);
        comment.get(..end).unwrap_or_default().to_owned()
    }
}

/// The scenario of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;
    use std::path::Path;

    #[test]
    fn every_scenario_is_named_as_its_file_and_names_its_configuration() {
        assert!(ENTRIES.is_sorted_by_key(|entry| entry.name));
        for entry in ENTRIES {
            let (file, text) = entry.files[0];
            let scenario = Scenario::parse(text, Path::new(file)).unwrap();
            assert_eq!(scenario.name, entry.name);
            let mut named: Vec<_> = scenario.forwarders.iter().map(|one| one.config.clone()).collect();
            named.dedup();
            let given: Vec<_> = entry.files[1..].iter().map(|(name, _)| Path::new(name).to_owned()).collect();
            assert_eq!(named, given);
        }
        assert!(find("demo").is_some() && find("nothing").is_none());
    }

    #[test]
    fn every_scenario_says_in_a_sentence_what_it_shows() {
        for entry in ENTRIES {
            let about = entry.about();
            assert!(
                about.ends_with(['.', ':']) && (20..200).contains(&about.len()),
                "{}: {about}",
                entry.name
            );
        }
    }

    #[test]
    fn every_file_of_the_folder_is_in_the_library() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let known: Vec<&str> = ENTRIES.iter().flat_map(|entry| entry.files).map(|(name, _)| *name).collect();
        for file in std::fs::read_dir(folder).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            assert!(name == "goldens.txt" || known.contains(&name.as_str()), "{name}");
        }
    }
}
