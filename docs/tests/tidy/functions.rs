//! The length of functions, and the ratchet that stops the long ones from growing.

use std::collections::BTreeMap;

use super::code::without_comments;

/// A function of more lines is long: it does not fit a screen.
pub(crate) const LINES_MAX: usize = 70;

/// Every function that is longer than [`LINES_MAX`], with its lines from `fn` to the closing brace.
pub(crate) fn long(text: &str) -> Vec<(String, usize)> {
    let mut all = all(text);
    all.retain(|(_, lines)| *lines > LINES_MAX);
    all
}

/// Every function with a body.
fn all(text: &str) -> Vec<(String, usize)> {
    let code = without_comments(text);
    let bytes = code.as_bytes();
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let before = at.checked_sub(1).and_then(|before| bytes.get(before));
        if before.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') {
            continue;
        }
        let rest = code.get(at + 3..).unwrap_or("");
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if name.is_empty() {
            continue;
        }
        if let Some(end) = body_end(bytes, at) {
            let lines = code.get(at..end).unwrap_or("").matches('\n').count() + 1;
            found.push((name, lines));
        }
    }
    found
}

/// The end of the body of the function that begins at `at`; none when it has no body.
fn body_end(bytes: &[u8], at: usize) -> Option<usize> {
    let (mut round, mut curly) = (0_i32, 0_i32);
    for (index, byte) in bytes.iter().enumerate().skip(at) {
        match byte {
            b'(' | b'[' => round += 1,
            b')' | b']' => round -= 1,
            b'{' => curly += 1,
            b'}' => {
                curly -= 1;
                if curly == 0 && round == 0 {
                    return Some(index + 1);
                }
                if curly < 0 {
                    return None;
                }
            }
            b';' if curly == 0 && round == 0 => return None,
            _ => {}
        }
    }
    None
}

/// The ratchet: lines of `PATH::FUNCTION LINES`, and comments after `#`.
pub(crate) fn parse_ratchet(text: &str) -> Result<BTreeMap<String, usize>, String> {
    let mut allowed = BTreeMap::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or("").trim();
        if line.is_empty() {
            continue;
        }
        let entry = line.split_once(' ').and_then(|(name, lines)| Some((name, lines.trim().parse().ok()?)));
        let Some((name, lines)) = entry else { return Err(format!("not an entry of the ratchet: {line}")) };
        if allowed.insert(name.to_owned(), lines).is_some() {
            return Err(format!("twice in the ratchet: {name}"));
        }
    }
    Ok(allowed)
}

/// What has grown, and what has shrunk and is still allowed to be long: the ratchet turns one way only.
pub(crate) fn compare(allowed: &BTreeMap<String, usize>, found: &BTreeMap<String, usize>) -> Vec<String> {
    let mut findings = Vec::new();
    for (name, lines) in found {
        match allowed.get(name) {
            None => findings.push(format!("{name} has {lines} lines; {LINES_MAX} is the most")),
            Some(most) if lines > most => {
                findings.push(format!("{name} has grown from {most} to {lines} lines"));
            }
            Some(most) if lines < most => {
                findings
                    .push(format!("{name} has shrunk: write {lines} for {most} in docs/tests/ratchet.txt"));
            }
            Some(_) => {}
        }
    }
    let gone = allowed.keys().filter(|name| !found.contains_key(*name));
    findings.extend(
        gone.map(|name| format!("{name} is not long any more: take it out of docs/tests/ratchet.txt")),
    );
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&str, usize)]) -> BTreeMap<String, usize> {
        entries.iter().map(|(name, lines)| ((*name).to_owned(), *lines)).collect()
    }

    #[test]
    fn functions_are_measured_from_fn_to_the_closing_brace() {
        let text = "trait T { fn none(&self); fn one(&self) {} }\n\
                    fn array(x: [u8; 4]) -> [u8; 2] {\n  // }\n  let s = \"}\";\n  if x { }\n}\n\
                    type F = fn (u8);\nfn outer() {\n  fn inner() {\n  }\n}\n";
        let expected = [("one", 1), ("array", 5), ("outer", 4), ("inner", 2)];
        let expected: Vec<_> = expected.iter().map(|(name, lines)| ((*name).to_owned(), *lines)).collect();
        assert_eq!(all(text), expected);
        assert!(long(text).is_empty());
        let text = format!("fn long() {{\n{}}}\n", "    x();\n".repeat(69));
        assert_eq!(long(&text), [("long".to_owned(), 71)]);
    }

    #[test]
    fn the_ratchet_turns_one_way_only() {
        let allowed = map(&[("a", 80), ("b", 90), ("c", 100), ("d", 110)]);
        let found = map(&[("a", 80), ("b", 91), ("c", 99), ("e", 71)]);
        let findings = compare(&allowed, &found);
        assert_eq!(findings.len(), 4, "{findings:?}");
        for (name, word) in [("b", "grown"), ("c", "shrunk"), ("e", "most"), ("d", "any more")] {
            assert!(
                findings.iter().any(|line| line.starts_with(name) && line.contains(word)),
                "{findings:?}"
            );
        }
        assert!(compare(&allowed, &allowed).is_empty());
    }

    #[test]
    fn a_broken_ratchet_is_refused() {
        assert_eq!(parse_ratchet("# why\na::b 80 # c\n\n"), Ok(map(&[("a::b", 80)])));
        assert!(parse_ratchet("a::b").is_err());
        assert!(parse_ratchet("a::b many").is_err());
        assert!(parse_ratchet("a 1\na 2").is_err());
    }
}
