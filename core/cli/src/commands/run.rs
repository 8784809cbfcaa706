//! `evenkeel run`: the forwarder, until it is told to stop.

use std::io::IsTerminal;

use evenkeel_daemon::{Options, RunError};
use tracing_subscriber::EnvFilter;

use super::{ConfigArgument, components};
use crate::{Failure, output};

/// Forward packets until SIGTERM or SIGINT; SIGHUP reads the configuration
/// again
///
/// Needs root or CAP_NET_ADMIN, and /dev/net/tun. The log goes to the standard
/// error; EVENKEEL_LOG sets what it holds (error, warn, info, debug, trace).
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let filter = EnvFilter::try_from_env("EVENKEEL_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    let options = Options { config: arguments.config.path(), components: components() };
    match evenkeel_daemon::run(options) {
        Ok(()) => Ok(()),
        Err(RunError::Configuration(mistakes)) => {
            Err(Failure::Usage(arguments.config.explain(mistakes).render(output::has_colour())))
        }
        Err(error) => Err(Failure::Runtime(format!("evenkeel: {error}"))),
    }
}
