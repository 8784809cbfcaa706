//! What pages show: blocks of code, and commands.

/// The fenced blocks of exactly this language, each with the line where it begins.
pub(crate) fn fenced(text: &str, language: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, bool, String)> = None;
    for (index, line) in text.lines().enumerate() {
        let Some(info) = line.trim_start().strip_prefix("```") else {
            if let Some((_, _, block)) = &mut open {
                block.push_str(line);
                block.push('\n');
            }
            continue;
        };
        match open.take() {
            None => open = Some((index + 2, info.trim() == language, String::new())),
            Some((first, true, block)) => found.push((first, block)),
            Some((_, false, _)) => {}
        }
    }
    found
}

/// The subcommands that the program declares, sorted: the variants of its `enum Command`.
pub(crate) fn commands_of_program(text: &str) -> Vec<String> {
    let Some((_, rest)) = text.split_once("enum Command {\n") else { return Vec::new() };
    let body = rest.split_once("\n}").map_or(rest, |(body, _)| body);
    let variants =
        body.lines().map(str::trim).filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()));
    let name = |line: &str| line.split(['(', ',', ' ', '{']).next().unwrap_or("").to_lowercase();
    let mut names: Vec<_> = variants.map(name).collect();
    names.sort();
    names
}

/// The commands that a page has a heading for.
pub(crate) fn commands_of_page(text: &str) -> Vec<String> {
    let headings = text.lines().filter_map(|line| line.strip_prefix("## `evenkeel "));
    headings.filter_map(|heading| heading.split(['`', ' ']).next()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_by_their_language() {
        let text = "```toml\na\nb\n```\n```toml,ignore\nc\n```\n  ```toml\nd\n  ```\n```\n```toml\n";
        assert_eq!(fenced(text, "toml"), [(2, "a\nb\n".to_owned()), (9, "d\n".to_owned())]);
    }

    #[test]
    fn commands_are_found_on_both_sides() {
        let program = "enum Command {\n    /// Docs.\n    Sim(sim::Arguments),\n    #[x]\n    Check,\n}\nenum Other { A }";
        assert_eq!(commands_of_program(program), ["check", "sim"]);
        assert_eq!(
            commands_of_page("# x\n## `evenkeel run`\n## `evenkeel sim run`\n### `evenkeel no`\n"),
            ["run", "sim"]
        );
    }
}
