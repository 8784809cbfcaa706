//! `evenkeel sim swarm`: random scenarios, as many as there are cores for, and the small files of what fails.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use evenkeel_engine::Instant;
use evenkeel_sim::swarm::{Case, Judge, Kind, Verdict, shrink_violation};
use evenkeel_sim::trace::Trace;
use evenkeel_sim::watch::{Captures, Watch};
use evenkeel_sim::{Planted, Queue};

use super::parts::{self, Parts};
use super::sim::loader;
use crate::progress::Progress;
use crate::{Failure, output};

/// Failing seeds that are made small: each costs hundreds of runs, and the first ones say most.
const SHRUNK_MAX: usize = 10;
/// Failing seeds that are printed.
const FAILURES_MAX: usize = 1_000;
/// One of so many seeds is run twice, with either queue.
const TWICE_ONE_IN: u64 = 64;
/// Verdicts that wait for an earlier seed, for each thread: threads that are further ahead wait.
const AHEAD_MAX: usize = 256;

/// Run random scenarios and judge them; exit code 1 when something is wrong
///
/// Topology, load and faults come from the seed: crashes, restarts, cut
/// cables, loss, reordering, corruption, jumps of the clock, weights that
/// change, full tables, failing components, reloads. What breaks although
/// nothing in its scenario can break it is a failure. Each failing seed is
/// printed, made small, and saved: the scenario with its configuration, to be
/// run with `sim run`, and captures. The same seeds give the same output with
/// any number of jobs.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many scenarios
    #[arg(long, value_name = "N")]
    seeds: u64,
    /// The first seed
    #[arg(long, value_name = "S", default_value_t = 0)]
    first: u64,
    /// Threads [default: as many as there are cores]
    #[arg(long, value_name = "J", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Where failing scenarios are saved
    #[arg(long, value_name = "FOLDER", default_value = "swarm-failures")]
    out: PathBuf,
    /// Save the scenarios of these seeds, failing or not, and run nothing
    #[arg(long)]
    write: bool,
}

/// What all seeds came to.
#[derive(Default)]
struct Sum {
    flows: u64,
    broken: u64,
    explained: u64,
    events: u64,
    chain: Trace,
    failing: Vec<(u64, Verdict)>,
    failures: u64,
}

impl Sum {
    fn add(&mut self, seed: u64, verdict: Verdict) {
        self.flows += verdict.flows.0;
        self.broken += verdict.flows.1;
        self.explained += verdict.explained;
        self.events += verdict.events;
        self.chain.add(Instant::from_nanos(seed), 0, verdict.hashes.concat().as_bytes());
        if !verdict.is_fine() {
            self.failures += 1;
            if self.failing.len() < FAILURES_MAX {
                self.failing.push((seed, verdict));
            }
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Some(end) = arguments.first.checked_add(arguments.seeds) else {
        return Err(Failure::Usage(format!("--first {}: the last seed is too large", arguments.first)));
    };
    if arguments.write {
        return (arguments.first..end).try_for_each(|seed| {
            let folder = arguments.out.join(Case::draw(seed).name());
            write(&folder, &Case::draw(seed).files())
        });
    }
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let jobs = arguments.jobs.map_or_else(cores, usize::from);
    let sum = all(arguments.first, end, jobs);
    let mut kept = 0;
    for (seed, verdict) in &sum.failing {
        let mut text = format!("seed {seed}:\n");
        for violation in &verdict.violations {
            let _ = writeln!(text, "  {}", violation.words);
        }
        output::answer(&text)?;
        if kept < SHRUNK_MAX {
            kept += 1;
            keep(&arguments.out, *seed, verdict)?;
        }
    }
    output::answer(&format!(
        "{} scenarios, seeds {} to {}: {} flows, {} broken, {} of them by what the scenario does; {} events\n\
         swarm hash {:016x}   evenkeel {}\n",
        arguments.seeds,
        arguments.first,
        end.saturating_sub(1),
        sum.flows,
        sum.broken,
        sum.explained,
        sum.events,
        sum.chain.hash(),
        env!("CARGO_PKG_VERSION")
    ))?;
    match sum.failures {
        0 => Ok(()),
        count => Err(Failure::Runtime(format!("{count} of {} scenarios fail", arguments.seeds))),
    }
}

/// Runs all seeds, and adds up what they came to in their order.
fn all(first: u64, end: u64, jobs: usize) -> Sum {
    let progress = Progress::start("running random scenarios");
    let next = AtomicU64::new(first);
    let (sender, receiver) = mpsc::sync_channel(jobs.saturating_mul(AHEAD_MAX));
    let mut sum = Sum::default();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                let mut loader = loader();
                let mut judge = Judge { loader: &mut loader, planted: Planted::Nothing };
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || sender.send((seed, judge_one(&mut judge, seed))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let (mut waiting, mut due) = (BTreeMap::new(), first);
        for (seed, verdict) in receiver {
            waiting.insert(seed, verdict);
            while let Some(verdict) = waiting.remove(&due) {
                sum.add(due, verdict);
                due += 1;
            }
            progress.done(due - first, end - first);
        }
    });
    sum
}

fn judge_one(judge: &mut Judge<'_, '_>, seed: u64) -> Verdict {
    let case = Case::draw(seed);
    if seed.is_multiple_of(TWICE_ONE_IN) { judge.judge_twice(&case) } else { judge.judge(&case) }
}

/// Makes a failing case small, and saves it as it was and as it is now.
fn keep(folder: &Path, seed: u64, verdict: &Verdict) -> Result<(), Failure> {
    let case = Case::draw(seed);
    let folder = folder.join(case.name());
    write(&folder, &case.files())?;
    let Some(kind) = verdict.violations.first().map(|violation| violation.kind) else { return Ok(()) };
    let progress = Progress::start(format!("making seed {seed} small"));
    let mut loader = loader();
    let mut judge = Judge { loader: &mut loader, planted: Planted::Nothing };
    let (small, tries) = shrink_violation(&mut judge, &case, kind);
    let folder = folder.join("small");
    let explained = judge.judge(&small).explained;
    let files = match kind {
        Kind::Broken => small.files_expecting(&[("flows.broken", explained)]),
        Kind::Endless => small.files_expecting(&[("flows.unfinished", 0)]),
        Kind::NotConserved
        | Kind::BadPacket
        | Kind::ArpConflict
        | Kind::Bypassed
        | Kind::Strayed
        | Kind::OutOfService
        | Kind::Shared
        | Kind::Refused
        | Kind::Panicked
        | Kind::NotRepeated => small.files(),
    };
    write(&folder, &files)?;
    capture(&folder, &mut judge, &small)?;
    drop(progress);
    let lines = files.first().map_or(0, |(_, text)| text.lines().count());
    let place = folder.join(format!("{}.toml", small.name()));
    output::answer(&format!(
        "  made small in {tries} runs, {lines} lines: evenkeel sim run {}\n",
        place.display()
    ))
}

/// Captures every segment, and the forwarder, of a case.
fn capture(folder: &Path, judge: &mut Judge<'_, '_>, case: &Case) -> Result<(), Failure> {
    // What is refused, or panics, has nothing to be captured.
    let Ok(mut scenario) = case.parse() else { return Ok(()) };
    scenario.captures = (0..scenario.segments.len()).collect();
    scenario.captured_machines = scenario.machine_count().checked_sub(1).into_iter().collect();
    let wrong = |error: std::io::Error| Failure::Runtime(format!("{}: {error}", folder.display()));
    let mut parts = Parts::in_folder(folder).map_err(wrong)?;
    let mut open = |name: &str| parts.open(name).map(|file| Box::new(file) as Box<dyn Write>);
    let mut watch = Watch::new(Captures::open(&scenario, &mut open).map_err(wrong)?, None, None);
    let _ = judge.run(case, Queue::Wheel, &mut watch);
    if let Some(captures) = watch.captures.take() {
        captures.finish().map_err(wrong)?;
    }
    parts.finish().map_err(wrong)
}

fn write(folder: &Path, files: &[(String, String)]) -> Result<(), Failure> {
    let wrong = |path: &Path, error: std::io::Error| Failure::Runtime(format!("{}: {error}", path.display()));
    std::fs::create_dir_all(folder).map_err(|error| wrong(folder, error))?;
    for (name, text) in files {
        let path = folder.join(name);
        parts::write(&path, text.as_bytes()).map_err(|error| wrong(&path, error))?;
    }
    Ok(())
}
