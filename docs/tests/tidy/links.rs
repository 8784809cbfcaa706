//! Links between pages, and the summary of the book.

use std::collections::BTreeMap;

/// The folder of the book's pages.
const BOOK: &str = "docs/src/";

/// The lines of a page that are prose: no fenced code, inline code blanked.
fn prose(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut fence: Option<&str> = None;
    for (index, line) in text.lines().enumerate() {
        let start = line.trim_start();
        let marker = ["```", "~~~"].into_iter().find(|marker| start.starts_with(marker));
        match (fence, marker) {
            (None, Some(marker)) => fence = Some(marker),
            (Some(open), Some(marker)) if open == marker => fence = None,
            (Some(_), _) => {}
            (None, None) => lines.push((index + 1, without_inline_code(line))),
        }
    }
    lines
}

fn without_inline_code(line: &str) -> String {
    let mut parts = line.split('`');
    let mut text = parts.next().unwrap_or("").to_owned();
    while let Some(_code) = parts.next() {
        text.push(' ');
        text.push_str(parts.next().unwrap_or(""));
    }
    text
}

/// The targets of all links of a page, each with its line.
fn targets(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        let mut rest = line.as_str();
        while let Some(at) = rest.find("](") {
            rest = rest.get(at + 2..).unwrap_or("");
            let end = rest.find(')').unwrap_or(rest.len());
            let target = rest.get(..end).unwrap_or("");
            found.push((number, target.split(' ').next().unwrap_or("").trim_matches(['<', '>']).to_owned()));
        }
        let definition = line.trim_start().strip_prefix('[').and_then(|rest| rest.split_once("]: "));
        if let Some((name, target)) = definition
            && !name.contains(']')
        {
            found.push((number, target.split(' ').next().unwrap_or("").to_owned()));
        }
    }
    found
}

/// The anchors of a page: its headings as both GitHub and mdBook name them, and ids that it sets itself.
pub(crate) fn anchors(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut in_fence = false;
    for line in text.lines() {
        in_fence ^= line.trim_start().starts_with("```");
        for part in line.split("id=\"").skip(1) {
            found.extend(part.split('"').next().map(str::to_owned));
        }
        let title = line.trim_start_matches('#');
        if in_fence || title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let anchor = anchor(title.trim());
        let twins = found.iter().filter(|known| known.split("--").next() == Some(anchor.as_str())).count();
        found.push(if twins == 0 { anchor } else { format!("{anchor}-{twins}") });
    }
    found
}

fn anchor(title: &str) -> String {
    let keep = |c: char| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
        _ => None,
    };
    title.to_lowercase().chars().filter_map(keep).collect()
}

/// A relative path from the folder of a page, with `.` and `..` taken away; none when it leaves the repository.
fn resolve(page: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// The links of a page that lead nowhere.
pub(crate) fn dead(
    page: &str,
    text: &str,
    anchors: &BTreeMap<&str, Vec<String>>,
    exists: impl Fn(&str) -> bool,
) -> Vec<String> {
    let mut findings = Vec::new();
    for (line, target) in targets(text) {
        let is_elsewhere = ["https://", "http://", "mailto:"].iter().any(|scheme| target.starts_with(scheme));
        if is_elsewhere {
            continue;
        }
        let (path, fragment) = target.split_once('#').unwrap_or((&target, ""));
        let file = if path.is_empty() { Some(page.to_owned()) } else { resolve(page, path) };
        let Some(file) = file.filter(|file| !target.is_empty() && exists(file)) else {
            findings.push(format!("{page}:{line}: {target:?} leads nowhere"));
            continue;
        };
        if page.starts_with(BOOK) && !file.starts_with(BOOK) {
            findings
                .push(format!("{page}:{line}: {target:?} leads out of the book, which is published alone"));
        }
        let known = anchors.get(file.as_str());
        if !fragment.is_empty() && !known.is_some_and(|known| known.iter().any(|anchor| anchor == fragment)) {
            findings.push(format!("{page}:{line}: {file} has no heading #{fragment}"));
        }
    }
    findings
}

/// What a list of links names and is not there, what is there and not listed, and what is listed twice.
pub(crate) fn summary(text: &str, pages: &[&str]) -> Vec<String> {
    let listed: Vec<String> = targets(text).into_iter().map(|(_, target)| target).collect();
    let listed: Vec<&str> = listed.iter().map(|target| target.trim_start_matches("./")).collect();
    let mut findings = Vec::new();
    for (index, target) in listed.iter().enumerate() {
        if !pages.contains(target) {
            findings.push(format!("{target} is listed and not there"));
        }
        if listed.iter().take(index).any(|earlier| earlier == target) {
            findings.push(format!("{target} is listed twice"));
        }
    }
    let missing = pages.iter().filter(|page| !listed.contains(page));
    findings.extend(missing.map(|page| format!("{page} is not listed")));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_links_and_anchors_are_found() {
        let page = "# Title here\n[a](b.md) [c](../d.md#e) [x](https://x) [y](#title-here)\n\
                    ```\n[no](no.md)\n```\n`[no](no.md)` [f](gone.md) [g](b.md#gone) [h](../../../out.md)\n[r]: gone.md\n";
        let anchors = BTreeMap::from([
            ("docs/a.md", anchors(page)),
            ("docs/b.md", vec!["there".to_owned()]),
            ("d.md", vec!["e".to_owned()]),
        ]);
        let findings = dead("docs/a.md", page, &anchors, |path| anchors.contains_key(path));
        let lines: Vec<_> = findings.iter().map(|line| line.split(": ").next().unwrap_or("")).collect();
        assert_eq!(lines, ["docs/a.md:6", "docs/a.md:6", "docs/a.md:6", "docs/a.md:7"], "{findings:?}");
    }

    #[test]
    fn links_out_of_the_book_are_found() {
        let none = BTreeMap::new();
        let text = "[a](b.md) [c](../c.md) [d](../src/d.md)";
        let findings = dead("docs/src/a.md", text, &none, |_| true);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(dead("docs/a.md", text, &none, |_| true).is_empty());
    }

    #[test]
    fn anchors_are_named_as_books_name_them() {
        let text =
            "# `[director.NAME]`\n## What it can't do\n```\n# no\n```\n## A\n## A\n<a id=\"set\"></a>\n#no\n";
        assert_eq!(anchors(text), ["directorname", "what-it-cant-do", "a", "a-1", "set"]);
    }

    #[test]
    fn the_summary_is_compared_both_ways() {
        let text = "# Summary\n- [A](a.md)\n- [B](./b.md)\n- [A again](a.md)\n- [Gone](gone.md)\n";
        let findings = summary(text, &["a.md", "b.md", "lost.md"]);
        assert_eq!(findings.len(), 3, "{findings:?}");
        for word in ["a.md is listed twice", "gone.md is listed and not", "lost.md is not listed"] {
            assert!(findings.iter().any(|line| line.contains(word)), "{findings:?}");
        }
    }
}
