//! `evenkeel lab`: a scenario on kernel namespaces with the real forwarder.

use std::path::PathBuf;

use clap::Subcommand;
use evenkeel_netns_lab::{LabError, Options, Outcome, Progress as Stage};

use crate::progress::Progress;
use crate::{Failure, output};

/// Run a scenario on network namespaces with the real forwarder
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a scenario; exit code 1 when an expectation is missed
    ///
    /// As an ordinary user it makes a user namespace first, where the system
    /// allows that. Nothing is left behind.
    Run {
        /// The scenario file
        scenario: PathBuf,
        /// The seed of arrivals, delays and losses [default: the scenario's]
        #[arg(long, value_name = "N")]
        seed: Option<u64>,
        /// The outcome as JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove what killed runs of this user have left behind
    Clean {
        /// The counts as JSON
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Command::Run { scenario, seed, json } => {
            let program = std::env::current_exe().map_err(Failure::runtime)?;
            let options = Options { program, seed: *seed };
            let outcome = {
                let progress = Progress::start(format!("reading {}", scenario.display()));
                evenkeel_netns_lab::run(scenario, &options, &mut |stage| show_stage(&progress, stage))
                    .map_err(failure)?
            };
            show(&outcome, *json)
        }
        Command::Clean { json } => {
            let cleaned = evenkeel_netns_lab::clean().map_err(failure)?;
            if *json {
                let value = serde_json::to_value(&cleaned).map_err(Failure::runtime)?;
                return output::answer(&format!("{value:#}\n"));
            }
            output::answer(&format!(
                "removed {} ended runs with {} processes; {} runs go on\n",
                cleaned.runs, cleaned.processes, cleaned.running
            ))
        }
    }
}

fn show(outcome: &Outcome, is_json: bool) -> Result<(), Failure> {
    if is_json {
        let value = serde_json::to_value(outcome).map_err(Failure::runtime)?;
        output::answer(&format!("{value:#}\n"))?;
    } else {
        output::answer(&outcome.to_string())?;
    }
    if outcome.is_met() { Ok(()) } else { Err(Failure::Runtime("an expectation is missed".to_owned())) }
}

/// Shows how far a run has come.
pub(crate) fn show_stage(progress: &Progress, stage: Stage) {
    match stage {
        Stage::Stage(name) => progress.stage(name),
        Stage::Flows { done, total } => progress.done(done, total),
    }
}

/// Why there is no outcome, with the exit code that it deserves.
pub(crate) fn failure(error: LabError) -> Failure {
    if matches!(error, LabError::Scenario(_) | LabError::Config(_) | LabError::TooLarge(_)) {
        return Failure::Usage(error.to_string());
    }
    Failure::runtime(error)
}
