//! The guests of this repository as components, built by the build script and embedded.
//!
//! Gets a name as it stands behind `bundled:` in a configuration; gives the component's bytes. It runs nothing.

#![forbid(unsafe_code)]

struct Bundled {
    name: &'static str,
    is_public: bool,
    bytes: &'static [u8],
}

/// Sorted by name.
static TABLE: &[Bundled] = include!(concat!(env!("OUT_DIR"), "/table.rs"));

/// The component of this name: one of [`names`], or one that only tests use.
#[must_use]
pub fn component(name: &str) -> Option<&'static [u8]> {
    TABLE.iter().find(|bundled| bundled.name == name).map(|bundled| bundled.bytes)
}

/// The names that users may write behind `bundled:`, sorted.
pub fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().filter(|bundled| bundled.is_public).map(|bundled| bundled.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than the largest scheduler has.
    const BYTES_MAX: usize = 80 * 1024;
    /// What reads a whole language needs more.
    const READER_BYTES_MAX: usize = 128 * 1024;

    #[test]
    fn every_name_has_a_component() {
        for name in names() {
            let bytes = component(name).unwrap();
            assert_eq!(&bytes[..8], b"\0asm\x0d\0\x01\0", "{name} is a component");
            let most = if name == "flowmgr" { READER_BYTES_MAX } else { BYTES_MAX };
            assert!(bytes.len() < most, "{name} has {} bytes", bytes.len());
        }
        assert!(names().is_sorted());
    }

    #[test]
    fn the_guest_of_the_tests_is_there_and_not_shown() {
        assert!(component("misbehave").is_some());
        assert!(!names().any(|name| name == "misbehave"));
    }

    #[test]
    fn components_import_nothing_of_wasi_and_name_no_folder_of_the_build() {
        for bundled in TABLE {
            let has =
                |needle: &str| bundled.bytes.windows(needle.len()).any(|part| part == needle.as_bytes());
            assert!(!has("wasi:"), "{}", bundled.name);
            assert!(!has(env!("CARGO_MANIFEST_DIR")), "{}", bundled.name);
        }
    }

    #[test]
    fn a_name_that_is_not_there_has_no_component() {
        assert_eq!(component("nothing"), None);
    }
}
