//! `evenkeel sim compare SCENARIO`: the same input through several schedulers, over several seeds.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use evenkeel_config::Loaded;
use evenkeel_daemon::GuestLoader;
use evenkeel_engine::director::{builtin::seed_of, native};
use evenkeel_engine::plan::{Plan, SchedulerPlan};
use evenkeel_plugin_host::Mode;
use evenkeel_plugin_host::suite::farm::{self, Farm};
use evenkeel_sim::record::data::Parameter;
use evenkeel_sim::record::{Comparison, RunRecord};
use evenkeel_sim::watch::Watch;
use evenkeel_sim::{Edit, Equipment, Loader, Options, Scenario, Supplier, Supply};

use super::cost::{self, Patience};
use super::sim::loader;
use super::{components, pages};
use crate::progress::Progress;
use crate::{Failure, output};

/// The most schedulers of one comparison: the rows that a page is readable with.
const SCHEDULERS_MAX: usize = 64;
/// The most seeds of one comparison.
const SEEDS_MAX: u64 = 1_000;

/// The most times that decisions are timed; the interval over so many is narrow enough.
const TIMED_MAX: u64 = 5;
/// How long decisions are timed each time: a fifth of a second of a comparison that takes seconds, for each scheduler.
const PATIENCE: Patience = Patience { rounds: 9, limit: Duration::from_millis(200) };

/// What is compared.
pub(super) struct Wish<'a> {
    pub(super) scenario: &'a Path,
    /// Schedulers as they are written; see [`scheduler`].
    pub(super) schedulers: Vec<String>,
    /// Only that of this director is replaced.
    pub(super) director: Option<&'a str>,
    pub(super) seeds: u64,
    pub(super) first: Option<u64>,
    pub(super) jobs: Option<u16>,
    pub(super) out: Option<&'a Path>,
    /// Whether decisions are timed by the clock, besides.
    pub(super) is_measured: bool,
    pub(super) is_json: bool,
}

/// One run: which point of the scenario, which scheduler, and which seed.
#[derive(Clone, Copy)]
struct Task {
    point: usize,
    /// Nothing for those of the configuration.
    scheduler: Option<usize>,
    seed: u64,
}

/// What is compared: points of a scenario, and schedulers.
struct Study {
    points: Vec<(Vec<Parameter>, Scenario)>,
    schedulers: Vec<Scheduler>,
}

pub(super) fn run(wish: &Wish<'_>) -> Result<(), Failure> {
    let schedulers = wish.schedulers.iter().map(|text| scheduler(text)).collect::<Result<Vec<_>, _>>()?;
    if schedulers.len() > SCHEDULERS_MAX {
        let count = schedulers.len();
        return Err(Failure::Usage(format!("{count} schedulers; a comparison has at most {SCHEDULERS_MAX}")));
    }
    if wish.seeds == 0 || wish.seeds > SEEDS_MAX {
        return Err(Failure::Usage(format!("--seeds {}: from 1 to {SEEDS_MAX}", wish.seeds)));
    }
    let points = Scenario::load_points(wish.scenario).map_err(|errors| Failure::Usage(errors.to_string()))?;
    let Some((_, scenario)) = points.first() else { return Ok(()) };
    if schedulers.is_empty() && points.len() < 2 {
        let words = "nothing to compare: name --schedulers, or write a [sweep] into the scenario";
        return Err(Failure::Usage(words.to_owned()));
    }
    let (name, first) = (scenario.name.clone(), wish.first.unwrap_or(scenario.seed));
    let study = Study { points, schedulers };
    let tasks = study.tasks(first, wish.seeds);
    let records = records(wish, &study, &tasks)?;
    let mut comparison = Comparison::new(name, env!("CARGO_PKG_VERSION"));
    comparison.command = command(wish, first);
    records.iter().for_each(|record| comparison.add(record));
    if wish.is_measured {
        measure(wish, &study, first, &mut comparison)?;
    }
    pages::tell_comparison(&comparison, wish.out, wish.is_json)
}

impl Study {
    /// All runs, those of a seed one after the other.
    fn tasks(&self, first: u64, seeds: u64) -> Vec<Task> {
        let schedulers: Vec<Option<usize>> = match self.schedulers.len() {
            0 => vec![None],
            count => (0..count).map(Some).collect(),
        };
        let mut tasks = Vec::new();
        for seed in (0..seeds).map(|number| first.wrapping_add(number)) {
            for &scheduler in &schedulers {
                tasks.extend((0..self.points.len()).map(|point| Task { point, scheduler, seed }));
            }
        }
        tasks
    }
}

/// The records of all runs, in the order of the tasks, whoever made them.
fn records(wish: &Wish<'_>, study: &Study, tasks: &[Task]) -> Result<Vec<RunRecord>, Failure> {
    let progress = Progress::start("comparing schedulers");
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let jobs = wish.jobs.map_or_else(cores, usize::from).min(tasks.len());
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    let mut done: Vec<Option<Result<RunRecord, Failure>>> = tasks.iter().map(|_| None).collect();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                let mut loader = loader();
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some(task) = tasks.get(place) else { break };
                    let record = one(wish, study, *task, &mut loader);
                    if sender.send((place, record)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let total = u64::try_from(tasks.len()).unwrap_or(u64::MAX);
        for ((place, record), count) in receiver.into_iter().zip(1..) {
            if let Some(slot) = done.get_mut(place) {
                *slot = Some(record);
            }
            progress.done(count, total);
        }
    });
    done.into_iter().flatten().collect()
}

/// One run.
fn one(wish: &Wish<'_>, study: &Study, task: Task, loader: &mut Loader<'_>) -> Result<RunRecord, Failure> {
    let seed = task.seed;
    let wanted = task.scheduler.and_then(|place| study.schedulers.get(place));
    let Some((parameters, scenario)) = study.points.get(task.point) else {
        return Err(Failure::Runtime("a point is missing".to_owned()));
    };
    let parameters = parameters_of(parameters, wanted);
    let usage = |error: &dyn std::fmt::Display| {
        let what: Vec<_> = parameters.iter().map(|one| format!("{} = {}", one.name, one.value)).collect();
        Failure::Usage(format!("{}: {error}", what.join(", ")))
    };
    let edit = wanted.map(|wanted| edit(wanted.plan.clone(), wish.director.map(str::to_owned)));
    let edit = edit.as_ref().map(|edit| edit as &Edit);
    let mut supplier = Supplier { scenario, seed, loader, edit };
    let equipment = (0..scenario.forwarders.len()).map(|number| supplier.equipment(number, None));
    let equipment = equipment.collect::<Result<Vec<_>, _>>().map_err(|error| usage(&error))?;
    let options = Options { seed: Some(seed), ..Options::default() };
    let watch = &mut Watch::default();
    let outcome =
        evenkeel_sim::run_watched(scenario, equipment, options, Some(&mut supplier), &mut |_| {}, watch)
            .map_err(|error| usage(&error))?;
    let mut record = outcome.record;
    record.parameters = parameters.clone();
    record.command = command(wish, seed);
    record.seal();
    Ok(record)
}

/// What is different from other rows.
fn parameters_of(point: &[Parameter], scheduler: Option<&Scheduler>) -> Vec<Parameter> {
    let scheduler =
        scheduler.map(|wanted| Parameter { name: "scheduler".to_owned(), value: wanted.name.clone() });
    scheduler.into_iter().chain(point.iter().cloned()).collect()
}

/// Times the decisions of every row by the clock, as often as there are seeds: what the machine does besides is then within
/// the interval. No run waits meanwhile, and none hears of it.
fn measure(wish: &Wish<'_>, study: &Study, first: u64, comparison: &mut Comparison) -> Result<(), Failure> {
    let _progress = Progress::start("timing decisions");
    let flows = farm::flows(0, cost::FLOWS);
    let mut loader = GuestLoader::new(components(), Mode::Epoch);
    let mut load =
        |loaded: &Loaded| loader.load(loaded).map_err(|mistakes| mistakes.render(output::has_colour()));
    for (point, scenario) in &study.points {
        let mut timed = Vec::new();
        let schedulers = study.schedulers.iter().map(Some);
        let own = study.schedulers.is_empty().then_some(None);
        for scheduler in schedulers.chain(own) {
            let made = timed_farm(wish, scenario, scheduler, first, &mut load)?;
            timed.extend(made.map(|farm| (parameters_of(point, scheduler), farm)));
        }
        for seed in (0..wish.seeds.min(TIMED_MAX)).map(|number| first.wrapping_add(number)) {
            let mut farms: Vec<&mut Farm> = timed.iter_mut().map(|(_, farm)| farm).collect();
            let best = cost::best(&mut farms, &flows, 1, PATIENCE);
            for ((parameters, _), nanoseconds) in timed.iter().zip(best) {
                comparison.add_measured(parameters, seed, nanoseconds);
            }
        }
    }
    let note = "\"a decision\" is the time of one new flow alone, measured by the clock of this machine beside the \
                runs: it is another one each time, and no hash covers it.";
    comparison.notes.push(note.to_owned());
    Ok(())
}

/// A scheduler with the servers of the scenario's first forwarder, out of the simulation. None where it has no director.
fn timed_farm(
    wish: &Wish<'_>,
    scenario: &Scenario,
    scheduler: Option<&Scheduler>,
    seed: u64,
    loader: &mut Loader<'_>,
) -> Result<Option<Farm>, Failure> {
    let edit = scheduler.map(|wanted| edit(wanted.plan.clone(), wish.director.map(str::to_owned)));
    let edit = edit.as_ref().map(|edit| edit as &Edit);
    let mut supplier = Supplier { scenario, seed, loader, edit };
    let equipment = supplier.equipment(0, None).map_err(|error| Failure::Usage(error.to_string()))?;
    let Equipment { plan, mut guests } = equipment;
    let wanted = |name: &str| wish.director.is_none_or(|only| only == name);
    let Some(director) = plan.directors.iter().find(|director| wanted(&director.name)) else {
        return Ok(None);
    };
    let weights: Vec<u32> = director.servers.iter().map(|server| server.weight).collect();
    let tuned = director.scheduler.native();
    let scheduler = guests
        .schedulers
        .remove(&director.name)
        .or_else(|| tuned.map(|tuned| native(&tuned, seed_of(plan.seed, &director.name))));
    Ok(scheduler.map(|scheduler| Farm::new(scheduler, farm::servers(&weights))))
}

/// The command that gives the whole comparison again.
fn command(wish: &Wish<'_>, first: u64) -> String {
    let base = pages::command("compare", [wish.scenario].into_iter(), None);
    let schedulers = match &wish.schedulers[..] {
        [] => String::new(),
        some => format!(" --schedulers {}", pages::quoted(&some.join(","))),
    };
    let director =
        wish.director.map_or_else(String::new, |name| format!(" --director {}", pages::quoted(name)));
    let measured = if wish.is_measured { "" } else { " --no-clock" };
    format!("{base}{schedulers}{director} --seeds {} --first {first}{measured}", wish.seeds)
}

/// A scheduler of a comparison.
struct Scheduler {
    /// As it was written.
    name: String,
    plan: SchedulerPlan,
}

/// What replaces the scheduler of every director, or of the one with this name.
fn edit(scheduler: SchedulerPlan, only: Option<String>) -> impl Fn(&mut Plan) -> Result<(), String> {
    move |plan| {
        let mut is_there = false;
        for director in &mut plan.directors {
            if only.as_ref().is_none_or(|only| *only == director.name) {
                director.scheduler = scheduler.clone();
                is_there = true;
            }
        }
        if is_there {
            return Ok(());
        }
        let names: Vec<&str> = plan.directors.iter().map(|director| director.name.as_str()).collect();
        Err(format!(
            "there is no director {:?}; there are: {}",
            only.as_deref().unwrap_or_default(),
            names.join(", ")
        ))
    }
}

/// A scheduler from its text: `maglev`, `p2c:choices=3`, `bundled:NAME`, a path, or a table as a configuration has it.
fn scheduler(text: &str) -> Result<Scheduler, Failure> {
    let written = written(text);
    // The configuration is read by whoever reads configurations: what is right there is right here.
    let document = format!(
        "interface.tun0 = {{ kind = \"tun\" }}\n[director.d]\nbind = \"192.0.2.1:80/tcp\"\nmode = \"nat\"\n\
         scheduler = {written}\nserver = [{{ name = \"s\", address = \"192.0.2.2:80\" }}]\n"
    );
    let loaded = evenkeel_config::parse(&document, &format!("scheduler {text}"))
        .map_err(|found| Failure::Usage(format!("--schedulers {text}:\n{}", found.render(false))))?;
    match loaded.plan.directors.into_iter().next() {
        Some(director) => Ok(Scheduler { name: text.to_owned(), plan: director.scheduler }),
        None => Err(Failure::Usage(format!("--schedulers {text}: that is no scheduler"))),
    }
}

/// The text as a configuration has it.
fn written(text: &str) -> String {
    if text.starts_with('{') {
        return text.to_owned();
    }
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    if text.starts_with("bundled:") || text.contains('/') || text.ends_with(".wasm") {
        // A path on the command line is meant from here, not from the folder of a configuration.
        let path = Path::new(text);
        let here = std::path::absolute(path).ok().filter(|_| path.is_file());
        let name = here.as_deref().and_then(Path::to_str).unwrap_or(text);
        return format!("{{ component = {} }}", quoted(name));
    }
    let mut parts = text.split(':');
    let name = quoted(parts.next().unwrap_or_default());
    let options: Vec<String> = parts
        .map(|option| match option.split_once('=') {
            Some((key, value)) => {
                let is_plain = value == "true" || value == "false" || value.parse::<i64>().is_ok();
                let value = if is_plain { value.to_owned() } else { quoted(value) };
                format!("{key} = {value}")
            }
            None => option.to_owned(),
        })
        .collect();
    if options.is_empty() { name } else { format!("{{ name = {name}, {} }}", options.join(", ")) }
}

/// The schedulers of a list, at commas that are not within a table.
pub(super) fn split(list: &str) -> Vec<String> {
    let (mut parts, mut depth) = (vec![String::new()], 0_usize);
    for sign in list.chars() {
        match sign {
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = parts.last_mut() {
            last.push(sign);
        }
    }
    parts.into_iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedulers_are_written_as_one_likes() {
        assert_eq!(split("maglev, p2c:choices=3,{ name = \"mh\", table_size = 251 }").len(), 3);
        for text in ["maglev", "p2c:choices=3", "maglev:table_size=251:weights=turns", "bundled:p2c"] {
            assert!(scheduler(text).is_ok(), "{text}");
        }
        assert!(matches!(scheduler("bundled:p2c").unwrap().plan, SchedulerPlan::Guest(_)));
        let same = scheduler("{ name = \"p2c\", choices = 3 }").unwrap().plan;
        assert_eq!(scheduler("p2c:choices=3").unwrap().plan, same);
        for (text, word) in
            [("magle", "magle"), ("p2c:choice=3", "choice"), ("p2c:choices=99", "99"), ("a\"b", "a")]
        {
            let Err(Failure::Usage(words)) = scheduler(text) else { panic!("{text}") };
            assert!(words.contains(word), "{words}");
        }
    }
}
