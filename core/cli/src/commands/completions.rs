//! `evenkeel completions`: what a shell needs to complete the command's words.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::{Failure, output};

/// Print the completions for a shell
///
/// For bash: evenkeel completions bash > /etc/bash_completion.d/evenkeel
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut crate::Arguments::command(), "evenkeel", &mut script);
    output::answer(&String::from_utf8_lossy(&script))
}
