//! `evenkeel sim`: the engine in virtual time, by scenario or packet by packet.

use std::io::{ErrorKind, stdin, stdout};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use evenkeel_config::Loaded;
use evenkeel_daemon::{Mistakes, control, load_guests};
use evenkeel_engine::{Engine, Guests, Instant};
use evenkeel_plugin_host::Mode;
use evenkeel_sim::stdio::StdioError;
use evenkeel_sim::{Options, Outcome, Scenario};

use super::{ConfigArgument, attack, components, pages, replay, sim_draw, sim_new};
use crate::progress::Progress;
use crate::{Failure, output};

/// Run scenarios in the deterministic simulator
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a scenario; exit code 1 when an expectation is missed
    ///
    /// The same scenario, configuration and seed give the same hashes on every
    /// machine and in every build.
    Run {
        /// The scenario file
        scenario: PathBuf,
        /// The seed of everything random [default: the scenario's]
        #[arg(long, value_name = "N")]
        seed: Option<u64>,
        /// The outcome as JSON
        #[arg(long)]
        json: bool,
        /// Write result.json, report.html and a CSV file for each plot there
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
    /// Compare runs: schedulers, rates or versions, over several seeds
    ///
    /// Runs with the same parameters are one row, with a mean over their
    /// seeds. Differences are paired by seed.
    Report {
        /// Records: result.json files, or folders that have one
        #[arg(required = true)]
        results: Vec<PathBuf>,
        /// What the page is called [default: the scenario's name]
        #[arg(long, value_name = "TEXT")]
        title: Option<String>,
        /// The comparison as JSON
        #[arg(long)]
        json: bool,
        /// Write comparison.json, report.html and CSV files there
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
    /// The engine at the end of a pipe: one JSON object a line, in virtual time
    ///
    /// In: {"t": NANOSECONDS, "in": "INTERFACE", "ip": "HEX"}, or "eth" for a
    /// frame, or only "t", or {"cmd": "a line of evenkeel ctl"}.
    /// Out: {"out": [["INTERFACE", "HEX"], ...], "drops": {"REASON": N}}.
    Stdio {
        #[command(flatten)]
        config: ConfigArgument,
    },
    New(sim_new::Arguments),
    Draw(sim_draw::Arguments),
    Attack(attack::Arguments),
    Replay(replay::Arguments),
    Compare(replay::CompareArguments),
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Command::Run { scenario, seed, json, out } => run_scenario(scenario, *seed, *json, out.as_deref()),
        Command::Report { results, title, json, out } => {
            pages::compare(results, title.as_deref(), out.as_deref(), *json)
        }
        Command::Stdio { config } => stdio(config),
        Command::New(arguments) => sim_new::run(arguments),
        Command::Draw(arguments) => sim_draw::run(arguments),
        Command::Attack(arguments) => attack::run(arguments),
        Command::Replay(arguments) => replay::run(arguments),
        Command::Compare(arguments) => replay::run_compare(arguments),
    }
}

fn run_scenario(path: &Path, seed: Option<u64>, is_json: bool, out: Option<&Path>) -> Result<(), Failure> {
    let mut outcome = simulate(path, seed)?;
    if let Some(folder) = out {
        let run = pages::command("run", [path].into_iter(), None);
        outcome.record.command = format!("{run} --seed {}", outcome.seed);
        pages::write_run(folder, &outcome.record)?;
    }
    if is_json {
        let value = serde_json::to_value(&outcome).map_err(Failure::runtime)?;
        output::answer(&format!("{value:#}\n"))?;
    } else {
        output::answer(&outcome.to_text())?;
    }
    if outcome.is_as_expected() {
        Ok(())
    } else {
        Err(Failure::Runtime("an expectation is missed".to_owned()))
    }
}

/// Without a seed in the file it is zero, so that a session repeats.
fn stdio(config: &ConfigArgument) -> Result<(), Failure> {
    let wrong = |mistakes: Mistakes| Failure::Usage(config.explain(mistakes).render(output::has_colour()));
    let loaded = evenkeel_config::load(&config.path()).map_err(|found| wrong(found.into()))?;
    let seed = loaded.forwarder.seed.unwrap_or(0);
    let loaded = loaded.with_seed(seed);
    let guests = load_guests(&loaded, &components(), Mode::Fuel).map_err(wrong)?;
    let mut command = |engine: &mut Engine, line: &str, now: Instant| control::execute(engine, line, now);
    let result =
        evenkeel_sim::stdio::serve(loaded.plan.clone(), guests, stdin(), stdout().lock(), &mut command);
    match result {
        Ok(()) => Ok(()),
        Err(StdioError::Plan(error)) => Err(wrong(loaded.refused(&error).into())),
        // The other end has what it wanted.
        Err(StdioError::Io(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::runtime(error)),
    }
}

pub(crate) fn simulate(path: &Path, seed: Option<u64>) -> Result<Outcome, Failure> {
    let usage = |error: &dyn std::fmt::Display| Failure::Usage(error.to_string());
    let progress = Progress::start(format!("reading {}", path.display()));
    let scenario = Scenario::load(path).map_err(|errors| usage(&errors))?;
    let seed = seed.unwrap_or(scenario.seed);
    progress.stage("loading components");
    let equipment = evenkeel_sim::prepare(&scenario, seed, &mut guests).map_err(|error| usage(&error))?;
    progress.stage(format!("simulating {}", scenario.name));
    let options = Options { seed: Some(seed), ..Options::default() };
    let mut show = |state: evenkeel_sim::Progress| {
        progress.done(state.flows, state.flows_expected.unwrap_or(0));
    };
    evenkeel_sim::run_with_progress(&scenario, equipment, options, &mut show).map_err(|error| usage(&error))
}

/// Components by counted instructions, so that a run repeats.
fn guests(loaded: &Loaded) -> Result<Guests, String> {
    load_guests(loaded, &components(), Mode::Fuel).map_err(|mistakes| mistakes.render(output::has_colour()))
}
