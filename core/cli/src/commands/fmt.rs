//! `evenkeel fmt`: rules in one form, and from text to tables and back.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use evenkeel_config::{Diagnostics, rules};

use crate::{Failure, output};

/// Print rules in one form, as text or as tables of the configuration file
///
/// Reads a file of rules as text, or with the ending .toml a configuration file,
/// of which it takes flows, outflows and sets. Comments of a text are kept.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
  evenkeel fmt my.rules                in one form, on the standard output
  evenkeel fmt --write my.rules        in the file itself
  evenkeel fmt --check my.rules        exit code 1 unless it has that form
  evenkeel fmt --to toml my.rules      as tables
  evenkeel fmt evenkeel.toml           the tables of a configuration as text")]
pub(crate) struct Arguments {
    /// A file of rules, or a configuration file
    file: PathBuf,
    /// What to print [default: text]
    #[arg(long, value_enum, value_name = "FORM")]
    to: Option<Form>,
    /// Change the file itself; only text to text
    #[arg(long, conflicts_with_all = ["check", "to"])]
    write: bool,
    /// Print nothing; exit code 1 when the text has another form
    #[arg(long, conflicts_with = "to")]
    check: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Text,
    Toml,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let path = &arguments.file;
    let name = path.display().to_string();
    let text = read(path)?;
    let is_toml = path.extension().is_some_and(|ending| ending == "toml");
    if is_toml && (arguments.write || arguments.check) {
        return Err(Failure::Usage(format!("{name} is a configuration file; name a file of rules as text")));
    }
    let rules = if is_toml { rules::of_tables(&text, &name) } else { rules::format(&text, &name) };
    let rules = rules.map_err(|found| refused(&found))?;
    if arguments.check {
        return if rules == text {
            Ok(())
        } else {
            Err(Failure::Runtime(format!(
                "{name} has another form; `evenkeel fmt --write {name}` changes it\n"
            )))
        };
    }
    if arguments.write {
        return if rules == text { Ok(()) } else { std::fs::write(path, rules).map_err(Failure::runtime) };
    }
    match arguments.to {
        None | Some(Form::Text) => output::answer(&rules),
        Some(Form::Toml) => {
            let (tables, found) = rules::to_tables(&rules, &name).map_err(|found| refused(&found))?;
            output::complain(&found.render(output::has_colour()));
            output::answer(&tables)
        }
    }
}

/// The text of a file of at most as many bytes as a configuration may have.
pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    let refuse = |reason: String| Failure::Usage(format!("can not read {}: {reason}\n", path.display()));
    let about = std::fs::metadata(path).map_err(|error| refuse(error.to_string()))?;
    let most = u64::try_from(evenkeel_config::FILE_BYTES_MAX).unwrap_or(u64::MAX);
    if !about.is_file() || about.len() > most {
        return Err(refuse("it is not a text file of at most 4 MiB".to_owned()));
    }
    std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))
}

/// Shows what stands in the way.
pub(crate) fn refused(found: &Diagnostics) -> Failure {
    Failure::Usage(found.render(output::has_colour()))
}
