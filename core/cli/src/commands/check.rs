//! `evenkeel check`: whether a forwarder would start with a configuration.

use clap::ValueEnum;
use evenkeel_daemon::{Mistakes, Prepared, add_next_hops, prepare};
use evenkeel_engine::Instant;

use super::{ConfigArgument, components};
use crate::progress::Progress;
use crate::{Failure, output};

/// Check a configuration and the components that it names
///
/// Exit code 0 when a forwarder would start with it, 2 when not. Changes
/// nothing and needs no rights.
#[derive(Debug, clap::Args)]
#[command(after_long_help = first_file())]
pub(crate) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// text for people, json for programs: one object a line on the standard
    /// output
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// A configuration to start from, as the quick start has it.
const FIRST: &str = include_str!("first.toml");

fn first_file() -> String {
    let mut text = String::from("A first file, evenkeel.toml:\n\n");
    for line in FIRST.lines() {
        text.push_str(format!("  {line}").trim_end());
        text.push('\n');
    }
    text
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let path = arguments.config.path();
    let checked = {
        let _progress = Progress::start(format!("checking {}", path.display()));
        // No packet is hashed here, so any seed will do.
        prepare(&path, &components(), |written| written.unwrap_or(0)).and_then(into_loaded)
    };
    match checked {
        Ok(loaded) => {
            report(arguments.format, &Mistakes::File(loaded.warnings.clone()))?;
            let directors = loaded.plan.directors.len();
            let servers: usize = loaded.plan.directors.iter().map(|director| director.servers.len()).sum();
            match arguments.format {
                Format::Text => output::answer(&format!(
                    "{}: fine ({}, {})\n",
                    loaded.file(),
                    count(directors, "director"),
                    count(servers, "real server")
                )),
                Format::Json => Ok(()),
            }
        }
        Err(mistakes) => {
            report(arguments.format, &arguments.config.explain(mistakes))?;
            Err(Failure::Usage(String::new()))
        }
    }
}

fn into_loaded(prepared: Prepared) -> Result<evenkeel_config::Loaded, Mistakes> {
    let (_, mut loaded) = prepared.into_engine(Instant::ZERO)?;
    add_next_hops(&mut loaded)?;
    Ok(loaded)
}

fn report(format: Format, mistakes: &Mistakes) -> Result<(), Failure> {
    match format {
        Format::Text => {
            output::complain(&mistakes.render(output::has_colour()));
            Ok(())
        }
        Format::Json => output::answer(&mistakes.to_json_lines()),
    }
}

fn count(number: usize, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}
