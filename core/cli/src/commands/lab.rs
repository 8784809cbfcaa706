//! `evenkeel lab`: a scenario on kernel namespaces with the real forwarder.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use evenkeel_netns_lab::{LabError, Options, Outcome, Progress as Stage, compare};
use serde_json::json;

use super::sim;
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
    /// Run a scenario in the simulator and in the lab; exit code 1 when they differ
    ///
    /// They agree when no share of a real server differs by more than 2
    /// percentage points (and 2 flows), broken flows by no more than 2 % of all flows, and
    /// no reason for drops is met 10 times or more in one of them and never in
    /// the other. How often it is met is shown and not judged: it depends on
    /// how often TCP tries again.
    Compare {
        /// The scenario file
        scenario: PathBuf,
        /// The seed of both [default: the scenario's]
        #[arg(long, value_name = "N")]
        seed: Option<u64>,
        /// Both outcomes and their comparison as JSON
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
        Command::Run { scenario, seed, json } => show(&in_lab(scenario, *seed)?, *json),
        Command::Compare { scenario, seed, json } => side_by_side(scenario, *seed, *json),
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

fn in_lab(scenario: &Path, seed: Option<u64>) -> Result<Outcome, Failure> {
    let program = std::env::current_exe().map_err(Failure::runtime)?;
    let options = Options { program, seed };
    let progress = Progress::start(format!("reading {}", scenario.display()));
    evenkeel_netns_lab::run(scenario, &options, &mut |stage| show_stage(&progress, stage)).map_err(failure)
}

fn side_by_side(scenario: &Path, seed: Option<u64>, is_json: bool) -> Result<(), Failure> {
    let simulated = sim::simulate(scenario, seed)?;
    let real = in_lab(scenario, seed)?;
    let comparison = compare(&simulated, &real);
    if is_json {
        let value = json!({ "sim": simulated, "lab": real, "comparison": comparison });
        output::answer(&format!("{value:#}\n"))?;
    } else {
        output::answer(&format!("{}, seed {}\n\n{comparison}", real.scenario, real.seed))?;
    }
    let differ = "the simulator and the lab differ";
    if comparison.agrees() { Ok(()) } else { Err(Failure::Runtime(differ.to_owned())) }
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
