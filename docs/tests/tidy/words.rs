//! Words that no file may have.

/// What is left for later, in pieces so that this file does not have it.
const LATER: [&str; 5] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
    concat!("to", "do!"),
    concat!("unimpl", "emented!"),
];

/// Paths of one machine, in pieces for the same reason.
const PLACES: [&str; 4] =
    [concat!("/wo", "rk/"), concat!("/tmp", "/w/"), concat!("/tmp", "/w "), concat!("/root", "/.cargo")];

/// Lines with such a word.
pub(crate) fn check(path: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let place = || format!("{path}:{}", index + 1);
        if let Some(word) = LATER.iter().find(|word| has_word(line, word)) {
            findings.push(format!("{}: {word} is for issues, not for files", place()));
        }
        if let Some(word) = PLACES.iter().find(|word| line.contains(*word)) {
            findings.push(format!("{}: {word} is a path of one machine", place()));
        }
    }
    findings
}

/// Whether a line has a word that is not part of a longer one.
fn has_word(line: &str, word: &str) -> bool {
    let is_letter = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let after = line.get(at + word.len()..).and_then(|text| text.chars().next());
        let is_open = word.ends_with('!') || !after.is_some_and(is_letter);
        !before.is_some_and(is_letter) && is_open
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_later_are_found() {
        for word in LATER {
            assert_eq!(check("a.rs", &format!("x\n// {word} later")).len(), 1, "{word}");
            assert!(check("a.rs", &format!("x{word}")).is_empty(), "{word}");
        }
        let hex = concat!("06XX", "X00");
        assert!(check("a.rs", hex).is_empty());
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        assert_eq!(
            check("a.md", concat!("see /wo", "rk/main")),
            [concat!("a.md:1: /wo", "rk/ is a path of one machine")]
        );
        assert!(check("a.md", "see work/main and /tmp/evenkeel").is_empty());
    }
}
