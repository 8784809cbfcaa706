//! The subcommands.

pub(crate) mod attack;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod conformance;
mod cost;
pub(crate) mod ctl;
pub(crate) mod demo;
pub(crate) mod explain;
pub(crate) mod export;
pub(crate) mod fmt;
pub(crate) mod import;
pub(crate) mod lab;
pub(crate) mod pages;
mod parts;
pub(crate) mod plugin;
pub(crate) mod replay;
pub(crate) mod routes;
pub(crate) mod run;
pub(crate) mod schema;
pub(crate) mod sim;
pub(crate) mod sim_compare;
pub(crate) mod sim_diff;
pub(crate) mod sim_draw;
pub(crate) mod sim_new;
pub(crate) mod sim_run;
pub(crate) mod sim_swarm;
pub(crate) mod trace;
pub(crate) mod version;

use std::path::PathBuf;

use evenkeel_daemon::{Components, Mistakes};

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

    /// The mistakes of a configuration; where there is no file, with what to do on this command line.
    pub(crate) fn explain(&self, mistakes: impl Into<Mistakes>) -> Mistakes {
        match mistakes.into() {
            Mistakes::File(found) if !self.path().exists() => {
                let also =
                    if self.config.is_none() { "no evenkeel.toml is in this folder either; " } else { "" };
                let help =
                    "name an existing file with --config FILE; `evenkeel check --help` shows a first one";
                Mistakes::File(found.help_to_find_it(&format!("{also}{help}")))
            }
            other @ (Mistakes::File(_) | Mistakes::Later(_)) => other,
        }
    }
}

/// Where components come from.
pub(crate) fn components() -> Components {
    Components { bundled: evenkeel_plugins_bundled::component }
}
