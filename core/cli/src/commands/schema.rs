//! `evenkeel schema`: the JSON schemas of the configuration and of scenarios, for editors.

use crate::{Failure, output};

/// Print the JSON schema of the configuration file, for editors
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The schema of scenario files instead
    #[arg(long)]
    scenario: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let schema =
        if arguments.scenario { evenkeel_sim::scenario::schema() } else { evenkeel_config::schema() };
    output::answer(&format!("{schema:#}\n"))
}
