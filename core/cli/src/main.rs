//! The command `evenkeel`: one file per subcommand, each of which asks a library and prints its answer.
//!
//! In: arguments. Out: text or JSON on the standard output, complaints on the standard error, and an exit
//! code: 0 for success, 1 when something failed, 2 for wrong usage or a wrong configuration.

#![forbid(unsafe_code)]

mod commands;
mod output;
mod progress;
mod usage;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// The widest line of help.
const HELP_COLUMNS: usize = 80;

/// A layer-4 load balancer whose schedulers and policies are WASM components.
#[derive(Debug, Parser)]
#[command(
    name = "evenkeel",
    version,
    max_term_width = HELP_COLUMNS,
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(commands::demo::Arguments),
    Run(commands::run::Arguments),
    Check(commands::check::Arguments),
    Fmt(commands::fmt::Arguments),
    Import(commands::import::Arguments),
    Export(commands::export::Arguments),
    Routes(commands::routes::Arguments),
    Ctl(commands::ctl::Arguments),
    Explain(commands::explain::Arguments),
    Trace(commands::trace::Arguments),
    Sim(commands::sim::Arguments),
    Plugin(commands::plugin::Arguments),
    Conformance(commands::conformance::Arguments),
    Lab(commands::lab::Arguments),
    Schema(commands::schema::Arguments),
    Completions(commands::completions::Arguments),
    Version(commands::version::Arguments),
}

/// Why a command did not succeed. The words have been chosen for the person at the terminal.
#[derive(Debug)]
enum Failure {
    /// Wrong usage or a wrong configuration: exit code 2.
    Usage(String),
    /// Something failed, or an expectation was missed: exit code 1.
    Runtime(String),
}

impl Failure {
    fn runtime(error: impl std::fmt::Display) -> Self {
        Self::Runtime(error.to_string())
    }

    /// What it says, without its kind.
    fn into_text(self) -> String {
        match self {
            Self::Usage(text) | Self::Runtime(text) => text,
        }
    }
}

fn main() -> ExitCode {
    // The lab starts this binary for its own processes, before any thread exists.
    let words: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    if let Some((first, rest)) = words.split_first()
        && first == evenkeel_netns_lab::CHILD
    {
        return evenkeel_netns_lab::child_main(rest);
    }
    let arguments = Arguments::try_parse()
        .unwrap_or_else(|error| usage::advise(error, &Arguments::command(), &words).exit());
    let result = match arguments.command {
        Command::Demo(arguments) => commands::demo::run(&arguments),
        Command::Run(arguments) => commands::run::run(arguments),
        Command::Check(arguments) => commands::check::run(&arguments),
        Command::Fmt(arguments) => commands::fmt::run(&arguments),
        Command::Import(arguments) => commands::import::run(&arguments),
        Command::Export(arguments) => commands::export::run(&arguments),
        Command::Routes(arguments) => commands::routes::run(&arguments),
        Command::Ctl(arguments) => commands::ctl::run(&arguments),
        Command::Explain(arguments) => commands::explain::run(&arguments),
        Command::Trace(arguments) => commands::trace::run(&arguments),
        Command::Sim(arguments) => commands::sim::run(&arguments),
        Command::Plugin(arguments) => commands::plugin::run(&arguments),
        Command::Conformance(arguments) => commands::conformance::run(&arguments),
        Command::Lab(arguments) => commands::lab::run(&arguments),
        Command::Schema(arguments) => commands::schema::run(&arguments),
        Command::Completions(arguments) => commands::completions::run(&arguments),
        Command::Version(arguments) => commands::version::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(text)) => {
            output::complain(&text);
            ExitCode::from(2)
        }
        Err(Failure::Runtime(text)) => {
            output::complain(&text);
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_help_fits_into_eighty_columns() {
        fn check(command: &mut clap::Command) {
            for line in command.render_long_help().to_string().lines() {
                assert!(line.chars().count() <= HELP_COLUMNS, "{}: {line:?}", command.get_name());
            }
            for sub in command.get_subcommands_mut() {
                check(sub);
            }
        }
        check(&mut Arguments::command().max_term_width(HELP_COLUMNS).term_width(HELP_COLUMNS));
    }
}
