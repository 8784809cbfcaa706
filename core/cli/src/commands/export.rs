//! `evenkeel export`: a configuration of ours as one of another system.

use clap::ValueEnum;
use evenkeel_config::export::ipvsadm;

use super::ConfigArgument;
use super::fmt::refused;
use crate::{Failure, output};

/// Turn the configuration into one of another system
///
/// Prints it on the standard output, and on the standard error a line for each
/// thing that it does not say.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  evenkeel export ipvsadm > ipvs.rules; ipvsadm --restore < ipvs.rules")]
pub(crate) struct Arguments {
    /// Whose configuration to write
    #[arg(value_enum)]
    system: Name,
    #[command(flatten)]
    config: ConfigArgument,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// IPVS, as `ipvsadm --restore` reads it
    Ipvsadm,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let loaded = evenkeel_config::load(&arguments.config.path()).map_err(|found| refused(&found))?;
    let exported = match arguments.system {
        Name::Ipvsadm => ipvsadm(&loaded.plan),
    };
    exported.not_kept.iter().for_each(|line| output::complain(&format!("not kept: {line}")));
    output::answer(&exported.text)
}
