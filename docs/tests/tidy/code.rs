//! Rules about single source files.

/// The text with comments and the insides of strings and characters blanked, so that what is left is code.
/// Lines stay where they are.
pub(crate) fn without_comments(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(&character) = characters.get(at) {
        let end = match character {
            '/' if characters.get(at + 1) == Some(&'/') => line_end(&characters, at),
            '/' if characters.get(at + 1) == Some(&'*') => comment_end(&characters, at),
            '"' => string_end(&characters, at),
            'r' if !follows_word(&characters, at) => raw_string_end(&characters, at).unwrap_or(at),
            '\'' => character_end(&characters, at).unwrap_or(at),
            _ => at,
        };
        if end == at {
            code.push(character);
            at += 1;
            continue;
        }
        let skipped = characters.get(at..end).unwrap_or_default();
        code.extend(skipped.iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    code
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Whether the character at `at` goes on with a word; `b` and `c` in front of a raw string are not a word.
fn follows_word(characters: &[char], at: usize) -> bool {
    let before = |back: usize| at.checked_sub(back).and_then(|at| characters.get(at)).copied();
    match before(1) {
        Some('b' | 'c') => before(2).is_some_and(is_word),
        Some(character) => is_word(character),
        None => false,
    }
}

fn line_end(characters: &[char], at: usize) -> usize {
    let rest = characters.iter().skip(at);
    at + rest.take_while(|c| **c != '\n').count()
}

fn comment_end(characters: &[char], at: usize) -> usize {
    let (mut at, mut depth) = (at, 0_usize);
    while at < characters.len() {
        match (characters.get(at), characters.get(at + 1)) {
            (Some('/'), Some('*')) => (at, depth) = (at + 2, depth + 1),
            (Some('*'), Some('/')) => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at.min(characters.len())
}

fn string_end(characters: &[char], at: usize) -> usize {
    let mut at = at + 1;
    while let Some(character) = characters.get(at) {
        match character {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    characters.len()
}

fn raw_string_end(characters: &[char], at: usize) -> Option<usize> {
    let hashes = characters.iter().skip(at + 1).take_while(|c| **c == '#').count();
    let open = at + 1 + hashes;
    if characters.get(open) != Some(&'"') {
        return None;
    }
    let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let rest = characters.get(open + 1..)?;
    let length = rest.windows(close.len()).position(|window| window == close)?;
    Some(open + 1 + length + close.len())
}

/// The end of a character; none for a lifetime.
fn character_end(characters: &[char], at: usize) -> Option<usize> {
    match characters.get(at + 1)? {
        '\\' => {
            let rest = characters.iter().skip(at + 3).take(10);
            let length = rest.take_while(|c| **c != '\'').count();
            Some(at + 3 + length + 1)
        }
        _ if characters.get(at + 2) == Some(&'\'') => Some(at + 3),
        _ => None,
    }
}

/// The words of a line of code.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !is_word(c)).filter(|word| !word.is_empty())
}

/// Lines with unsafe code where none may be. Attributes that speak of it are not code.
pub(crate) fn unsafe_outside_of_io(path: &str, text: &str) -> Vec<String> {
    if path.starts_with("core/io/src/") {
        return Vec::new();
    }
    let code = without_comments(text);
    let lines = code.lines().enumerate();
    let found = lines.filter(|(_, line)| words(line).any(|word| word == "unsafe"));
    found.map(|(index, _)| format!("{path}:{}: unsafe code outside of core/io/src", index + 1)).collect()
}

/// A crate root without `forbid(unsafe_code)`. Only `core/io` has unsafe code of its own; what a macro of another
/// crate makes (the component ABI in the SDK) is not counted by the compiler, and not seen here.
pub(crate) fn missing_forbid(path: &str, text: &str) -> Option<String> {
    let is_excepted = path.starts_with("core/io/");
    let forbids = without_comments(text).contains("#![forbid(unsafe_code)]");
    (!is_excepted && !forbids).then(|| format!("{path}: lacks #![forbid(unsafe_code)]"))
}

/// A source file that does not begin with what it is for.
pub(crate) fn missing_module_docs(path: &str, text: &str) -> Option<String> {
    let first = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("");
    (!first.starts_with("//!")).then(|| format!("{path}:1: begins without `//!`"))
}

/// The part of a file that is tests: all of it in a folder of tests, else what follows `#[cfg(test)]`.
pub(crate) fn test_part<'a>(path: &str, text: &'a str) -> &'a str {
    if path.contains("/tests/") || path.ends_with("/tests.rs") {
        return text;
    }
    text.find("#[cfg(test)]").and_then(|at| text.get(at..)).unwrap_or("")
}

/// The variants of an enum that no test names.
pub(crate) fn untested_variants(
    name: &str,
    variants: impl Iterator<Item = String>,
    tests: &str,
) -> Vec<String> {
    let tests = without_comments(tests);
    let is_named = |variant: &String| {
        let path = format!("{name}::{variant}");
        tests.match_indices(&path).any(|(at, _)| {
            let after = tests.get(at + path.len()..).and_then(|rest| rest.chars().next());
            !after.is_some_and(is_word)
        })
    };
    let missing = variants.filter(|variant| !is_named(variant));
    missing.map(|variant| format!("no test of the engine names {name}::{variant}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_is_left() {
        let text =
            "let a = \"// no\\\" unsafe\"; // unsafe\nlet b = r#\"unsafe \"x\" \"#; /* a /* b */ c */ unsafe";
        let code = without_comments(text);
        assert_eq!(words(&code).collect::<Vec<_>>(), ["let", "a", "let", "b", "unsafe"]);
        assert_eq!(code.lines().count(), 2);
        let code = without_comments("fn f<'a>(x: &'a str) -> char { '\\'' ; '{' ; b'\"' } for r in 0..1 {}");
        assert_eq!(code.matches('{').count(), 2, "{code}");
        assert!(code.contains("<'a>") && code.contains("for r in"), "{code}");
        assert_eq!(words(&without_comments("br\"x\" cr#\"y\"#")).collect::<Vec<_>>(), ["b", "c"]);
        assert!(without_comments("\"open").trim().is_empty());
    }

    #[test]
    fn unsafe_code_is_found_only_where_it_is_code() {
        let text = "//! About unsafe.\n#![forbid(unsafe_code)]\nfn f() {\n    unsafe { g() }\n}\n";
        assert_eq!(
            unsafe_outside_of_io("sim/src/a.rs", text),
            ["sim/src/a.rs:4: unsafe code outside of core/io/src"]
        );
        assert!(unsafe_outside_of_io("core/io/src/a.rs", text).is_empty());
        assert_eq!(unsafe_outside_of_io("core/io/tests/a.rs", text).len(), 1);
        assert!(unsafe_outside_of_io("a.rs", "// unsafe\nlet x = \"unsafe\";").is_empty());
    }

    #[test]
    fn a_root_that_does_not_forbid_is_found() {
        assert!(missing_forbid("sim/src/lib.rs", "// #![forbid(unsafe_code)]").is_some());
        assert!(missing_forbid("sim/src/lib.rs", "#![forbid(unsafe_code)]").is_none());
        assert!(missing_forbid("core/io/src/lib.rs", "").is_none());
    }

    #[test]
    fn a_file_without_docs_is_found() {
        assert!(missing_module_docs("a.rs", "use b;\n//! late").is_some());
        assert!(missing_module_docs("a.rs", "").is_some());
        assert!(missing_module_docs("a.rs", "\n//! What it does.").is_none());
    }

    #[test]
    fn a_variant_is_tested_only_when_a_test_names_it() {
        let variants = || ["TooBig", "Too", "NoRoute"].into_iter().map(str::to_owned);
        let source =
            "DropReason::NoRoute;\n#[cfg(test)]\nmod tests { DropReason::TooBig; } // DropReason::Too";
        let found = untested_variants("DropReason", variants(), test_part("core/engine/src/a.rs", source));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found.iter().all(|line| line.ends_with("::Too") || line.ends_with("::NoRoute")), "{found:?}");
        let found = untested_variants("DropReason", variants(), test_part("core/engine/tests/a.rs", source));
        assert_eq!(found.len(), 1, "{found:?}");
    }
}
