//! `evenkeel sim run`: one run of a scenario, up to a moment, with its steps, captures, and the proof that it repeats.

use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

use evenkeel_engine::{Duration, Instant};
use evenkeel_sim::travel::{Side, difference};
use evenkeel_sim::watch::{Captures, Filter, Steps, Watch, Window};
use evenkeel_sim::{Options, Outcome, Queue, Scenario, Supplier};

use super::pages;
use super::parts::Parts;
use super::sim::loader;
use crate::progress::Progress;
use crate::{Failure, output};

/// Run a scenario; exit code 1 when an expectation is missed
///
/// The same scenario, configuration and seed give the same hashes on every
/// machine and in every build. So going back in time is running again:
/// --until stops at a moment, and --trace shows each step of some flows or
/// machines up to there, with what the engine decided.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The scenario file
    scenario: PathBuf,
    /// The seed of everything random [default: the scenario's]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// The outcome as JSON
    #[arg(long)]
    json: bool,
    /// Write result.json, report.html, a CSV file for each plot, and the
    /// captures that the scenario asks for, there
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Stop at this moment, such as 12.5s; expectations are not judged
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Duration>,
    /// Show each step of these: flow=tcp/198.51.100.7:4242, host=NAME,
    /// router=NAME or forwarder=NAME; several by comma are shown together
    #[arg(long, value_name = "WHAT,...")]
    trace: Option<Filter>,
    /// Show no step before this moment
    #[arg(long, value_name = "TIME", value_parser = moment, requires = "trace")]
    from: Option<Duration>,
    /// Capture these segments and machines too, as pcapng in --out
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', requires = "out")]
    capture: Vec<String>,
    /// Run twice, the second time with the reference queue, and compare all
    /// hashes; exit code 1 with the first different event
    #[arg(long, conflicts_with_all = ["until", "trace"])]
    verify: bool,
}

/// A moment: a number, with decimals where they are wanted, and a unit.
pub(super) fn moment(text: &str) -> Result<Duration, String> {
    let form = || format!("{text:?}: write a number and a unit: 500us, 10ms, 12.5s, 5m, 1h");
    let end = text.find(|sign: char| !sign.is_ascii_digit() && sign != '.').ok_or_else(form)?;
    let (number, unit) = text.split_at(end);
    let unit: u64 = match unit {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return Err(form()),
    };
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = whole.parse().map_err(|_| form())?;
    let mut nanos = whole.checked_mul(unit).ok_or_else(form)?;
    let mut scale = unit;
    for digit in decimals.chars() {
        scale /= 10;
        let digit = digit.to_digit(10).ok_or_else(form)?;
        nanos = nanos.checked_add(u64::from(digit) * scale).ok_or_else(form)?;
    }
    Ok(Duration::from_nanos(nanos))
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let path = &arguments.scenario;
    let mut scenario = load(path)?;
    capture_also(&mut scenario, &arguments.capture)?;
    if arguments.verify {
        return verify(&scenario, arguments.seed);
    }
    let mut parts = match arguments.out.as_deref() {
        Some(folder) => Some(Parts::in_folder(folder).map_err(|error| wrong(folder, &error))?),
        None => None,
    };
    let captures = match &mut parts {
        Some(parts) => captures(&scenario, parts)?,
        None => None,
    };
    let mut watch = Watch::new(captures, steps(arguments, &scenario)?, None);
    let options = Options {
        seed: arguments.seed,
        until: arguments.until.map(|until| Instant::ZERO.after(until)),
        ..Options::default()
    };
    let mut outcome = simulate(&scenario, options, &mut watch)?;
    if let Some(steps) = watch.steps.take() {
        steps.finish().map_err(Failure::runtime)?;
    }
    if let Some(captures) = watch.captures.take() {
        captures.finish().map_err(Failure::runtime)?;
    }
    if let (Some(folder), Some(parts)) = (arguments.out.as_deref(), parts) {
        parts.finish().map_err(|error| wrong(folder, &error))?;
        let run = pages::command("run", [path.as_path()].into_iter(), None);
        outcome.record.command = format!("{run} --seed {}", outcome.seed);
        outcome.record.chains.file = path.display().to_string();
        pages::write_run(folder, &outcome.record)?;
    }
    if arguments.until.is_some() {
        outcome.expectations.clear();
    }
    if arguments.json {
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

/// The scenario of a file.
pub(super) fn load(path: &Path) -> Result<Scenario, Failure> {
    Scenario::load(path).map_err(|errors| Failure::Usage(errors.to_string()))
}

/// One run, while `watch` looks on.
pub(super) fn simulate(scenario: &Scenario, options: Options, watch: &mut Watch) -> Result<Outcome, Failure> {
    let usage = |error: &dyn std::fmt::Display| Failure::Usage(error.to_string());
    let seed = options.seed.unwrap_or(scenario.seed);
    let progress = Progress::start("loading components");
    let mut loader = loader();
    let equipment = evenkeel_sim::prepare(scenario, seed, &mut loader).map_err(|error| usage(&error))?;
    progress.stage(format!("simulating {}", scenario.name));
    let options = Options { seed: Some(seed), ..options };
    let mut show = |state: evenkeel_sim::Progress| {
        progress.done(state.flows, state.flows_expected.unwrap_or(0));
    };
    let mut supplier = Supplier { scenario, seed, loader: &mut loader, edit: None };
    evenkeel_sim::run_watched(scenario, equipment, options, Some(&mut supplier), &mut show, watch)
        .map_err(|error| usage(&error))
}

fn steps(arguments: &Arguments, scenario: &Scenario) -> Result<Option<Steps>, Failure> {
    let Some(filter) = &arguments.trace else { return Ok(None) };
    filter.check(scenario).map_err(|words| Failure::Usage(format!("--trace: {words}")))?;
    let from = Instant::ZERO.after(arguments.from.unwrap_or(Duration::ZERO));
    // A trace goes where the answer goes, but not into its JSON.
    let output: Box<dyn Write> =
        if arguments.json { Box::new(std::io::stderr()) } else { Box::new(stdout()) };
    Ok(Some(Steps::new(filter.clone(), from, output)))
}

/// The files that a scenario captures into.
fn captures(scenario: &Scenario, parts: &mut Parts) -> Result<Option<Captures>, Failure> {
    let mut open = |name: &str| parts.open(name).map(|file| Box::new(file) as Box<dyn Write>);
    Captures::open(scenario, &mut open).map_err(Failure::runtime)
}

fn wrong(folder: &Path, error: &std::io::Error) -> Failure {
    Failure::Runtime(format!("{}: {error}", folder.display()))
}

/// Adds segments and machines to what a scenario captures.
fn capture_also(scenario: &mut Scenario, names: &[String]) -> Result<(), Failure> {
    for name in names {
        let fits =
            |known: &str| name.strip_suffix('*').map_or(name == known, |start| known.starts_with(start));
        let segments = scenario.segments.iter().enumerate().filter(|(_, segment)| fits(&segment.name));
        let segments: Vec<usize> = segments.map(|(number, _)| number).collect();
        let is_meant = |number: &usize| {
            scenario.machine(*number).is_some_and(|(own, group, _)| fits(own) || fits(group))
        };
        let machines: Vec<usize> = (0..scenario.machine_count()).filter(is_meant).collect();
        if segments.is_empty() && machines.is_empty() {
            return Err(Failure::Usage(format!("--capture: no segment or machine is called {name:?}")));
        }
        scenario.captures.extend(segments);
        scenario.captured_machines.extend(machines);
    }
    for list in [&mut scenario.captures, &mut scenario.captured_machines] {
        list.sort_unstable();
        list.dedup();
    }
    Ok(())
}

/// Runs twice, with either queue, and compares.
fn verify(scenario: &Scenario, seed: Option<u64>) -> Result<(), Failure> {
    let run = |queue, window: Option<Window>| {
        let mut watch = Watch::new(None, None, window);
        let outcome = simulate(scenario, Options { seed, queue, ..Options::default() }, &mut watch)?;
        Ok::<_, Failure>((outcome, watch.window))
    };
    let (first, _) = run(Queue::Wheel, None)?;
    let (second, _) = run(Queue::Heap, None)?;
    let mut rerun = |side, window| {
        let queue = if side == Side::Left { Queue::Wheel } else { Queue::Heap };
        let (_, window) = run(queue, Some(window)).map_err(Failure::into_text)?;
        window.ok_or_else(|| "nothing was seen".to_owned())
    };
    let found =
        difference(&first.record.chains, &second.record.chains, &mut rerun).map_err(Failure::runtime)?;
    if let Some(found) = found {
        output::answer(&found.to_string())?;
        return Err(Failure::Runtime(format!("two runs of {} differ", scenario.name)));
    }
    let hashes = |it: &Outcome| (it.wire_hash.clone(), it.decision_hash.clone(), it.metric_hash.clone());
    if hashes(&first) != hashes(&second) {
        return Err(Failure::Runtime(format!(
            "two runs of {} have the same events and other numbers: metric hash {} and {}",
            scenario.name, first.metric_hash, second.metric_hash
        )));
    }
    let (wire, decision, metric) = hashes(&first);
    output::answer(&format!(
        "{}, seed {}: two runs are equal, {} events\nwire hash {wire}   decision hash {decision}   metric hash {metric}   \
         evenkeel {}\n",
        scenario.name, first.seed, first.events, first.version
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_may_have_decimals() {
        assert_eq!(moment("12.5s"), Ok(Duration::from_millis(12_500)));
        assert_eq!(moment("0.001ms"), Ok(Duration::from_micros(1)));
        assert_eq!(moment("7ns"), Ok(Duration::from_nanos(7)));
        for wrong in
            ["", "s", "1", ".5s", "1.2.3s", "1d", "-1s", "99999999999999999999s", "18446744073709551615s"]
        {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }
}
