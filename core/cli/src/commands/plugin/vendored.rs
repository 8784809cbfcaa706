//! The SDK and the contract, as they were when the program was built: a plugin's folder gets a copy, so that it builds
//! without this repository and with the contract of the program that will run it.

/// Files under their path in the copy.
pub(super) const FILES: &[(&str, &str)] = &[
    ("wit/types.wit", include_str!("../../../../../wit/types.wit")),
    ("wit/schedule.wit", include_str!("../../../../../wit/schedule.wit")),
    ("wit/feedback.wit", include_str!("../../../../../wit/feedback.wit")),
    ("wit/decide.wit", include_str!("../../../../../wit/decide.wit")),
    ("wit/worlds.wit", include_str!("../../../../../wit/worlds.wit")),
    ("plugins/sdk/Cargo.toml", include_str!("../../../../../plugins/templates/rust/sdk.toml.txt")),
    ("plugins/sdk/build.rs", include_str!("../../../../../plugins/sdk/build.rs")),
    ("plugins/sdk/src/bindings.rs", include_str!("../../../../../plugins/sdk/src/bindings.rs")),
    ("plugins/sdk/src/export.rs", include_str!("../../../../../plugins/sdk/src/export.rs")),
    ("plugins/sdk/src/guest.rs", include_str!("../../../../../plugins/sdk/src/guest.rs")),
    ("plugins/sdk/src/hash.rs", include_str!("../../../../../plugins/sdk/src/hash.rs")),
    ("plugins/sdk/src/kit.rs", include_str!("../../../../../plugins/sdk/src/kit.rs")),
    ("plugins/sdk/src/lib.rs", include_str!("../../../../../plugins/sdk/src/lib.rs")),
    ("plugins/sdk/src/log.rs", include_str!("../../../../../plugins/sdk/src/log.rs")),
    ("plugins/sdk/src/maglev.rs", include_str!("../../../../../plugins/sdk/src/maglev.rs")),
    ("plugins/sdk/src/meter.rs", include_str!("../../../../../plugins/sdk/src/meter.rs")),
    ("plugins/sdk/src/network.rs", include_str!("../../../../../plugins/sdk/src/network.rs")),
    ("plugins/sdk/src/options.rs", include_str!("../../../../../plugins/sdk/src/options.rs")),
    ("plugins/sdk/src/random.rs", include_str!("../../../../../plugins/sdk/src/random.rs")),
    ("plugins/sdk/src/runtime.rs", include_str!("../../../../../plugins/sdk/src/runtime.rs")),
    ("plugins/sdk/src/state.rs", include_str!("../../../../../plugins/sdk/src/state.rs")),
    ("plugins/sdk/src/types.rs", include_str!("../../../../../plugins/sdk/src/types.rs")),
];

/// The exact versions of what the SDK needs; cargo takes out what belongs to others.
pub(super) const LOCK: &str = include_str!("../../../../../Cargo.lock");

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    #[test]
    fn the_copy_has_every_file_of_the_sdk_and_of_the_contract() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let copied: BTreeSet<String> = FILES.iter().map(|(path, _)| (*path).to_owned()).collect();
        for folder in ["wit", "plugins/sdk/src"] {
            for entry in std::fs::read_dir(root.join(folder)).unwrap() {
                let path = format!("{folder}/{}", entry.unwrap().file_name().to_string_lossy());
                assert!(copied.contains(&path), "{path} is missing in the copy");
            }
        }
    }

    #[test]
    fn the_copy_needs_what_the_sdk_needs_in_the_same_versions() {
        let needs = |text: &str| -> BTreeSet<String> {
            let rest = text.split("[dependencies]\n").nth(1).unwrap();
            rest.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name.to_owned()).collect()
        };
        let copy = include_str!("../../../../../plugins/templates/rust/sdk.toml.txt");
        assert_eq!(needs(copy), needs(include_str!("../../../../../plugins/sdk/Cargo.toml")));
        let workspace = include_str!("../../../../../Cargo.toml");
        for line in copy.split("[dependencies]\n").nth(1).unwrap().lines() {
            assert!(workspace.lines().any(|other| other == line), "{line}");
        }
        let channel = |text: &str| text.lines().find(|line| line.starts_with("channel")).unwrap().to_owned();
        assert_eq!(
            channel(include_str!("../../../../../plugins/templates/rust/rust-toolchain.toml.txt")),
            channel(include_str!("../../../../../rust-toolchain.toml"))
        );
    }
}
