//! The subcommands.

pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod ctl;
pub(crate) mod demo;
pub(crate) mod lab;
pub(crate) mod routes;
pub(crate) mod run;
pub(crate) mod schema;
pub(crate) mod sim;
pub(crate) mod version;

use std::path::PathBuf;

use evenkeel_daemon::Components;

/// The configuration file of a command.
#[derive(Debug, clap::Args)]
pub(crate) struct ConfigArgument {
    /// The configuration file [default: evenkeel.toml here, else
    /// /etc/evenkeel/evenkeel.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigArgument {
    pub(crate) fn path(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(evenkeel_daemon::default_config)
    }
}

/// Where components come from.
pub(crate) fn components() -> Components {
    Components { bundled: evenkeel_plugins_bundled::component }
}
