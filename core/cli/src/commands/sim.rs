//! `evenkeel sim`: the engine in virtual time, by scenario or packet by packet.

use std::io::{ErrorKind, stdin, stdout};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use evenkeel_config::Loaded;
use evenkeel_daemon::{GuestLoader, Mistakes, control, load_guests};
use evenkeel_engine::{Engine, Guests, Instant};
use evenkeel_plugin_host::Mode;
use evenkeel_sim::stdio::StdioError;
use evenkeel_sim::watch::Watch;
use evenkeel_sim::{Options, Outcome};

use super::{
    ConfigArgument, attack, components, pages, replay, sim_diff, sim_draw, sim_new, sim_run, sim_swarm,
};
use crate::{Failure, output};

/// Run scenarios in the deterministic simulator
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(sim_run::Arguments),
    Diff(sim_diff::Arguments),
    Swarm(sim_swarm::Arguments),
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
        Command::Run(arguments) => sim_run::run(arguments),
        Command::Diff(arguments) => sim_diff::run(arguments),
        Command::Swarm(arguments) => sim_swarm::run(arguments),
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

/// One run of a scenario file.
pub(crate) fn simulate(path: &Path, seed: Option<u64>) -> Result<Outcome, Failure> {
    let scenario = sim_run::load(path)?;
    let options = Options { seed, ..Options::default() };
    sim_run::simulate(&scenario, options, &mut Watch::default())
}

/// Makes components ready, by counted instructions, so that a run repeats. Each is compiled once.
pub(super) fn loader() -> impl FnMut(&Loaded) -> Result<Guests, String> {
    let mut loader = GuestLoader::new(components(), Mode::Fuel);
    move |loaded| loader.load(loaded).map_err(|mistakes| mistakes.render(output::has_colour()))
}
