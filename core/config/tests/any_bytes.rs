//! Whatever the bytes are: an answer in bounded time, never a panic.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails says where")]

use evenkeel_config::{Diagnostics, FILE_BYTES_MAX, parse, reference};
use proptest::prelude::*;

/// Parses, and renders all that was found in every way.
fn try_all(text: &str) -> Diagnostics {
    let found = match parse(text, "evenkeel.toml") {
        Ok(loaded) => loaded.warnings,
        Err(found) => found,
    };
    assert!(found.iter().count() <= Diagnostics::MAX);
    let _ = (found.render(false), found.render(true));
    for line in found.to_json_lines().lines() {
        let _: serde_json::Value = serde_json::from_str(line).unwrap();
    }
    for diagnostic in &found {
        if let Some((start, end)) = diagnostic.place() {
            assert!(start.line >= 1 && start.column >= 1 && start <= end);
        }
    }
    found
}

/// The example with some of its bytes replaced, taken out or doubled.
fn mutated() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just(String::new()),
        "[\\[\\]{}=,.\"'#\n]",
        Just("\0".to_owned()),
        Just("\u{1b}".to_owned()),
        Just("é".to_owned()),
        Just("\r\n".to_owned()),
        "[0-9]{1,20}",
        "[a-z_]{1,6}",
    ];
    let edits = prop::collection::vec((0..reference::EXAMPLE.len(), 0_usize..12, piece), 1..5);
    edits.prop_map(|edits| {
        let mut text = reference::EXAMPLE.to_owned();
        for (at, length, piece) in edits {
            let start = text.floor_char_boundary(at);
            let end = text.floor_char_boundary(start + length);
            text.replace_range(start..end, &piece);
        }
        text
    })
}

/// Lines of the example in another order, some missing, some twice.
fn shuffled() -> impl Strategy<Value = String> {
    let lines: Vec<_> = reference::EXAMPLE.lines().collect();
    prop::collection::vec(prop::sample::select(lines), 0..60).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #[test]
    fn random_text_never_panics(text in "\\PC{0,200}") {
        try_all(&text);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        try_all(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn a_mutated_file_never_panics(text in mutated()) {
        try_all(&text);
    }

    #[test]
    fn shuffled_lines_never_panic(text in shuffled()) {
        try_all(&text);
    }
}

/// A text of an eighth of the largest size that is read: a build without optimisation takes seconds for more.
fn large(unit: &str) -> String {
    unit.repeat(FILE_BYTES_MAX / 8 / unit.len())
}

#[test]
fn large_garbage_is_answered_with_few_words() {
    let units =
        ["=", "=\n", "[", "{", "a.", "\0", "\"", "'''", "x=1\n", "[a]\n", "[[a]]\n", "é", "\r", "a=[1,\n"];
    for unit in units {
        let found = try_all(&large(unit));
        assert!(found.has_errors(), "{unit:?}");
        assert!(found.render(false).len() < 1 << 20, "{unit:?}");
    }
}

#[test]
fn deep_nesting_is_refused() {
    for (open, close) in [("[", "]"), ("{a=", "}")] {
        let text = format!("a={}1{}", open.repeat(100_000), close.repeat(100_000));
        assert!(try_all(&text).has_errors());
    }
    for text in [format!("{}a=1", "a.".repeat(100_000)), format!("[{}a]", "a.".repeat(100_000))] {
        assert!(try_all(&text).has_errors());
    }
}

#[test]
fn a_long_line_is_not_shown() {
    let text = format!("[interface.tun0]\nkind = 'tun'\nx = '{}'\n", "y".repeat(1 << 20));
    let found = try_all(&text);
    assert!(found.render(false).len() < 1_000);
    assert!(found.render(false).contains("evenkeel.toml:3:1"), "{found}");
}

/// Many mistakes, each of which would look for a name among many, are answered in time.
#[test]
fn many_names_and_many_mistakes_take_no_long_time() {
    let number = 4_000;
    let directors: String = (0..number).map(|n| format!("[director.d{n}]\n")).collect();
    let flows: String =
        (0..number).map(|n| format!("[[flow]]\nname='f{n}'\npolicy='director e{n}'\n")).collect();
    assert!(try_all(&format!("{directors}{flows}")).len() > 2 * number);
    let keys: String = (0..number * 5).map(|n| format!("key{n} = 1\n")).collect();
    assert!(try_all(&keys).len() > number * 5);
    let items = format!("[[route]]\nto = [{}]\n", "1,".repeat(number));
    assert!(try_all(&items).has_errors());
    let vips: String = (0..number)
        .map(|n| format!("[director.d{n}]\nbind='10.0.0.1:{}/tcp'\nsnat={{address='10.0.0.2'}}\n", n + 1))
        .collect();
    assert!(!try_all(&vips).is_empty());
}
