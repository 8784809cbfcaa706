//! `evenkeel sim replay` and `evenkeel sim compare`: captures through the engine.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use evenkeel_config::Loaded;
use evenkeel_daemon::{Mistakes, load_guests};
use evenkeel_engine::{Duration, Guests};
use evenkeel_plugin_host::Mode;
use evenkeel_sim::Equipment;
use evenkeel_sim::capture::Reader;
use evenkeel_sim::replay::compare::{CompareError, Input, compare, set_scheduler};
use evenkeel_sim::replay::{Mapping, Options, Outcome, ReplayError, Sides, replay};

use super::{ConfigArgument, components, sim_compare, sim_run};
use crate::progress::Progress;
use crate::{Failure, output};

/// Replay a capture through the engine in virtual time
///
/// Clients' packets go to the VIP; packets of the captured server come from
/// the real server that the engine chose for their connection, so that both
/// directions go through the engine. Reads pcap and pcapng, also packed with
/// gzip. The same capture, configuration and seed give the same hashes on
/// every machine.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The capture
    capture: PathBuf,
    #[command(flatten)]
    config: ConfigArgument,
    #[command(flatten)]
    how: How,
    /// Write every packet, as it came in and as it went out, to this pcapng
    /// file; comments say what became of it and why
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The seed of everything random [default: the configuration's, else 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// The outcome as JSON
    #[arg(long)]
    json: bool,
}

/// Send the same input through several schedulers and compare them
///
/// The input is a scenario (a file that ends in .toml), run with several
/// seeds: imbalance, latency, broken flows and cost of each scheduler, with
/// intervals of confidence, and differences from the first one, paired by
/// seed. Or it is a capture, replayed with --config: flows of each real
/// server, and the connections that the first scheduler gives to another.
/// A scenario with a [sweep] is compared at each of its points.
#[derive(Debug, clap::Args)]
pub(crate) struct CompareArguments {
    /// The scenario, or the capture
    #[arg(value_name = "SCENARIO|CAPTURE")]
    capture: PathBuf,
    #[command(flatten)]
    config: ConfigArgument,
    /// Schedulers by comma: names of built-in ones, of a scenario also with
    /// options (p2c:choices=3) or as a configuration has them, or components:
    /// bundled:NAME or a path
    #[arg(long, value_name = "A,B,...", default_value = "", hide_default_value = true)]
    schedulers: String,
    /// Only the scheduler of this director is replaced
    #[arg(long, value_name = "NAME")]
    director: Option<String>,
    /// As many runs, with seeds from the scenario's or configuration's on
    #[arg(long, value_name = "N", default_value_t = 1)]
    seeds: u64,
    #[command(flatten)]
    how: How,
    /// The comparison as JSON; of a capture, with every connection that
    /// differs
    #[arg(long)]
    json: bool,
    /// Of a scenario: the first seed [default: the scenario's]
    #[arg(long, value_name = "S")]
    first: Option<u64>,
    /// Of a scenario: threads [default: as many as there are cores]
    #[arg(long, value_name = "J", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Of a scenario: do not time decisions by the clock of this machine, so
    /// that the answer is the same each time
    #[arg(long)]
    no_clock: bool,
    /// Of a scenario: write comparison.json, report.html and CSV files there
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

/// How a capture is replayed.
#[derive(Debug, clap::Args)]
struct How {
    /// An end of the capture becomes another, checksums included, such as
    /// 127.0.0.1:7000=10.0.0.3:80; may be given many times
    #[arg(long, value_name = "OLD=NEW")]
    map: Vec<Mapping>,
    /// Only clients' packets; simulated servers answer
    #[arg(long, conflicts_with = "both")]
    clients_only: bool,
    /// Packets of clients and servers (this is the default)
    #[arg(long)]
    both: bool,
    /// A longer time between two packets is shortened to this
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = sim_run::moment)]
    max_gap: Duration,
    /// Leave wrong checksums as they are, instead of repairing them
    #[arg(long)]
    keep_checksums: bool,
}

impl How {
    fn options(&self, seed: u64) -> Options {
        Options {
            mappings: self.map.clone(),
            sides: if self.clients_only { Sides::Clients } else { Sides::Both },
            max_gap: self.max_gap,
            keeps_checksums: self.keep_checksums,
            seed,
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let wrong = |mistakes| wrong(&arguments.config, mistakes);
    let loaded = evenkeel_config::load(&arguments.config.path()).map_err(|found| wrong(found.into()))?;
    let seed = arguments.seed.or(loaded.forwarder.seed).unwrap_or(0);
    let loaded = loaded.with_seed(seed);
    let progress = Progress::start("loading components");
    let guests = load_guests(&loaded, &components(), Mode::Fuel).map_err(wrong)?;
    let path = &arguments.capture;
    progress.stage(format!("replaying {}", path.display()));
    let begin = Instant::now();
    let mut reader = Reader::new(open(path)?).map_err(|error| in_file(path, &error.into()))?;
    let mut file = arguments.out.as_deref().map(|out| Output::create(out, path)).transpose()?;
    let output = file.as_mut().map(|output| &mut output.file as &mut dyn Write);
    let options = arguments.how.options(seed);
    let outcome = replay(&mut reader, loaded.plan.clone(), guests, &options, output).map_err(|error| {
        if let ReplayError::Output(error) = error {
            return Failure::Runtime(format!("{}: {error}", shown(arguments.out.as_deref())));
        }
        failed(&arguments.config, &loaded, path, error)
    })?;
    drop(progress);
    tell(arguments, &outcome, begin)
}

fn tell(arguments: &Arguments, outcome: &Outcome, begin: Instant) -> Result<(), Failure> {
    if arguments.json {
        let value = serde_json::to_value(outcome).map_err(Failure::runtime)?;
        return output::answer(&format!("{value:#}\n"));
    }
    let seconds = begin.elapsed().as_secs_f64();
    #[allow(clippy::cast_precision_loss, reason = "a rate for reading")]
    let rate = outcome.read as f64 / seconds.max(1e-9) / 1e6;
    let (text, read) = (outcome.to_text(), outcome.read);
    output::answer(&format!("{text}{read} packets in {seconds:.3} s of real time: {rate:.2} M packets/s\n"))
}

pub(crate) fn run_compare(arguments: &CompareArguments) -> Result<(), Failure> {
    let schedulers = sim_compare::split(&arguments.schedulers);
    if arguments.capture.extension().is_some_and(|extension| extension == "toml") {
        return sim_compare::run(&sim_compare::Wish {
            scenario: &arguments.capture,
            schedulers,
            director: arguments.director.as_deref(),
            seeds: arguments.seeds,
            first: arguments.first,
            jobs: arguments.jobs,
            out: arguments.out.as_deref(),
            is_measured: !arguments.no_clock,
            is_json: arguments.json,
        });
    }
    if schedulers.is_empty() {
        return Err(Failure::Usage("a capture is compared with --schedulers A,B,...".to_owned()));
    }
    let wrong = |mistakes| wrong(&arguments.config, mistakes);
    let loaded = evenkeel_config::load(&arguments.config.path()).map_err(|found| wrong(found.into()))?;
    let first = loaded.forwarder.seed.unwrap_or(0);
    let seeds: Vec<u64> = (0..arguments.seeds).map(|number| first.wrapping_add(number)).collect();
    let progress = Progress::start("comparing schedulers");
    let path = &arguments.capture;
    let mut open = || File::open(path).map(|file| Box::new(file) as Box<dyn io::Read>);
    let input = Input::Capture { open: &mut open, options: arguments.how.options(first) };
    let director = arguments.director.as_deref();
    let mut equip = |scheduler: &str, seed: u64| {
        progress.stage(format!("replaying with {scheduler}, seed {seed}"));
        equipment(&loaded, scheduler, director, seed)
    };
    let comparison = compare(input, &schedulers, &seeds, &mut equip).map_err(|error| {
        if let CompareError::Replay(error) = error {
            return failed(&arguments.config, &loaded, path, error);
        }
        let place =
            if matches!(error, CompareError::Input(_)) { shown(Some(path)) + ": " } else { String::new() };
        Failure::Usage(format!("{place}{error}"))
    })?;
    drop(progress);
    if arguments.json {
        let value = serde_json::to_value(&comparison).map_err(Failure::runtime)?;
        return output::answer(&format!("{value:#}\n"));
    }
    output::answer(&comparison.to_text())
}

/// What an engine runs by that has another scheduler than the configuration says.
fn equipment(
    loaded: &Loaded,
    scheduler: &str,
    director: Option<&str>,
    seed: u64,
) -> Result<Equipment, String> {
    let mut loaded = loaded.clone().with_seed(seed);
    // A component beside the configuration is named from there; one on the command line, from here.
    let here = Path::new(scheduler);
    let absolute = std::path::absolute(here).ok().filter(|_| here.is_file());
    let scheduler = absolute.as_ref().and_then(|path| path.to_str()).unwrap_or(scheduler);
    set_scheduler(&mut loaded.plan, scheduler, director)?;
    let guests: Result<Guests, Mistakes> = load_guests(&loaded, &components(), Mode::Fuel);
    let guests = guests.map_err(|mistakes| mistakes.lines().join("\n"))?;
    Ok(Equipment { plan: loaded.plan, guests })
}

/// The file that packets are written to.
struct Output {
    file: File,
}

impl Output {
    /// Makes the file, unless it is the capture itself.
    fn create(path: &Path, capture: &Path) -> Result<Self, Failure> {
        let same = |path: &Path| path.canonicalize().ok();
        if same(path).is_some_and(|out| Some(out) == same(capture)) {
            return Err(Failure::Usage(format!("--out {}: that is the capture itself", path.display())));
        }
        let file = File::create(path);
        let file = file.map_err(|error| Failure::Usage(format!("--out {}: {error}", path.display())))?;
        Ok(Self { file })
    }
}

fn open(path: &Path) -> Result<File, Failure> {
    let is_folder = path.is_dir();
    match File::open(path) {
        Ok(_) if is_folder => Err(Failure::Usage(format!("{}: that is a folder", path.display()))),
        Ok(file) => Ok(file),
        Err(error) => Err(Failure::Usage(format!("{}: {error}", path.display()))),
    }
}

fn shown(path: Option<&Path>) -> String {
    path.map_or_else(String::new, |path| path.display().to_string())
}

fn wrong(config: &ConfigArgument, mistakes: Mistakes) -> Failure {
    Failure::Usage(config.explain(mistakes).render(output::has_colour()))
}

/// Why a replay failed, at the place in the configuration or the capture.
fn failed(config: &ConfigArgument, loaded: &Loaded, path: &Path, error: ReplayError) -> Failure {
    if let ReplayError::Plan(error) = error {
        return wrong(config, loaded.refused(&error).into());
    }
    in_file(path, &error)
}

/// A mistake in a capture, with the name of its file.
fn in_file(path: &Path, error: &ReplayError) -> Failure {
    Failure::Usage(format!("{}: {error}", path.display()))
}
