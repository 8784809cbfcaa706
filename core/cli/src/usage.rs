//! What is said about wrong usage, beyond what the parser of arguments says itself.

use clap::error::{ContextKind, ContextValue, Error, ErrorKind};
use clap::{Command, builder::StyledStr};

/// Adds what to type to the complaint about a file that was named without its option.
///
/// `words` are the arguments as they were typed, without the program.
pub(crate) fn advise(mut error: Error, command: &Command, words: &[String]) -> Error {
    if error.kind() == ErrorKind::UnknownArgument
        && let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidArg)
        && !word.starts_with('-')
        && has_config(command, words)
    {
        let tip = StyledStr::from(format!("to name a configuration file, use '--config {word}'"));
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip]));
    }
    error
}

/// Whether the subcommand that `words` name takes a configuration file.
fn has_config(command: &Command, words: &[String]) -> bool {
    let deepest =
        words.iter().try_fold(command, |command, word| command.find_subcommand(word).ok_or(command));
    let (Ok(deepest) | Err(deepest)) = deepest;
    deepest.get_arguments().any(|argument| argument.get_long() == Some("config"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn said(words: &[&str]) -> String {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let command = crate::Arguments::command();
        let error = command
            .clone()
            .try_get_matches_from(std::iter::once("evenkeel").chain(words.iter().map(String::as_str)));
        advise(error.unwrap_err(), &command, &words).to_string()
    }

    #[test]
    fn a_file_without_its_option_is_told_which_it_needs() {
        for words in [&["check", "mine.toml"][..], &["routes", "mine.toml"], &["run", "mine.toml"]] {
            let said = said(words);
            assert!(said.contains("tip: to name a configuration file, use '--config mine.toml'"), "{said}");
        }
    }

    #[test]
    fn nothing_is_advised_where_it_would_not_help() {
        for words in [&["check", "--mine"][..], &["version", "mine.toml"], &["nothing", "mine.toml"]] {
            let said = said(words);
            assert!(!said.contains("--config"), "{said}");
        }
    }
}
