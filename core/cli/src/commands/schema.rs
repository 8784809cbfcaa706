//! `evenkeel schema`: the configuration's JSON schema, for editors.

use crate::{Failure, output};

/// Print the JSON schema of the configuration file, for editors
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {}

pub(crate) fn run(_: &Arguments) -> Result<(), Failure> {
    output::answer(&format!("{:#}\n", evenkeel_config::schema()))
}
