//! The same input through several schedulers: who would have got which connection, how even that is, and which
//! connections one scheduler gives to another server than the first does.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read};

use evenkeel_engine::plan::{Builtin, DirectorPlan, GuestPlan, Plan, SchedulerPlan};
use evenkeel_engine::{Duration, PlanError};
use serde::Serialize;

use super::{Options, Outcome, ReplayError, replay};
use crate::capture::Reader;
use crate::table::aligned;
use crate::world::Equipment;

/// The version of the form of the JSON; it grows when a key changes its meaning or goes.
pub const SCHEMA: u32 = 1;
/// The most schedulers of one comparison: the columns of its table.
pub const SCHEDULERS_MAX: usize = 16;
/// The most seeds of one comparison.
pub const SEEDS_MAX: u64 = 1_000;
/// Connections with different servers that the text shows; the JSON has all.
const DIFFERENCES_SHOWN: usize = 20;
/// The budget of a component that a configuration names without one.
const BUDGET_DEFAULT: Duration = Duration::from_micros(200);
/// The memory of a component that a configuration names without a bound.
const MEMORY_DEFAULT_BYTES: u64 = 16 << 20;

/// Opens the capture anew.
pub type Open<'a> = dyn FnMut() -> io::Result<Box<dyn Read + 'a>> + 'a;

/// Makes the plan and components ready for a scheduler and a seed; see [`set_scheduler`].
pub type Equip<'a> = dyn FnMut(&str, u64) -> Result<Equipment, String> + 'a;

/// What goes through the schedulers.
#[allow(missing_debug_implementations, reason = "it holds a function of the caller")]
pub enum Input<'a> {
    /// A capture, replayed.
    Capture {
        /// Opens it, once for each run.
        open: &'a mut Open<'a>,
        /// How it is replayed; the seed is that of the run.
        options: Options,
    },
}

impl Input<'_> {
    const fn name(&self) -> &'static str {
        match self {
            Self::Capture { .. } => "capture",
        }
    }

    fn run(&mut self, equipment: Equipment, seed: u64) -> Result<Outcome, CompareError> {
        match self {
            Self::Capture { open, options } => {
                let mut reader =
                    Reader::new(open().map_err(CompareError::Input)?).map_err(ReplayError::from)?;
                let options = Options { seed, ..options.clone() };
                Ok(replay(&mut reader, equipment.plan, equipment.guests, &options, None)?)
            }
        }
    }
}

/// Why schedulers could not be compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompareError {
    /// A run failed.
    #[error("{0}")]
    Replay(#[from] ReplayError),
    /// The input cannot be opened.
    #[error("{0}")]
    Input(io::Error),
    /// A scheduler cannot be used.
    #[error("scheduler {scheduler}: {message}")]
    Scheduler {
        /// Its name.
        scheduler: String,
        /// Why.
        message: String,
    },
    /// A number is out of its range.
    #[error("{count} {what}; a comparison has 1 to {most}")]
    Count {
        /// What is counted.
        what: &'static str,
        /// How many.
        count: usize,
        /// The most.
        most: u64,
    },
}

/// What a comparison came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The version of this form.
    pub schema: u32,
    /// The version of the program.
    pub version: &'static str,
    /// What the input was: `capture`.
    pub input: &'static str,
    /// Packets of one run.
    pub packets: u64,
    /// Each run, by scheduler and seed.
    pub runs: Vec<Run>,
    /// The connections of the first seed that not every scheduler gives to the same server.
    pub differences: Vec<Difference>,
}

/// One scheduler with one seed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Run {
    /// The scheduler.
    pub scheduler: String,
    /// The seed.
    pub seed: u64,
    /// Connections that were given a server.
    pub served: u64,
    /// Connections that broke.
    pub broken: u64,
    /// Each real server.
    pub servers: Vec<Share>,
    /// The largest load of a server over the mean; flows over weight, servers of one director together.
    pub max_over_mean: f64,
    /// Jain's index of these loads: 1 is even, one over the number of servers is all on one.
    pub jain: f64,
    /// Connections that the first scheduler, with this seed, gives to another server.
    pub moved: u64,
    /// The hash of every packet that left the engine.
    pub wire_hash: String,
    /// The hash of which connection got which server.
    pub decision_hash: String,
}

/// What one real server was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Share {
    /// The director.
    pub director: String,
    /// The server.
    pub server: String,
    /// Its weight.
    pub weight: u32,
    /// Flows.
    pub flows: u64,
}

/// A connection that not every scheduler gives to the same server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Its number, from 1.
    pub connection: u64,
    /// Who talks to whom.
    pub tuple: String,
    /// Its server with each scheduler, in their order.
    pub servers: Vec<Option<String>>,
}

/// Puts `scheduler`, the name of a built-in one or a component (`bundled:NAME` or a path), in place of that of every
/// director, or of the one called `director`.
///
/// # Errors
/// When there is no such director, or none at all, or the name is neither that of a scheduler nor like a component's.
pub fn set_scheduler(plan: &mut Plan, scheduler: &str, director: Option<&str>) -> Result<(), String> {
    let names: Vec<&str> = plan.directors.iter().map(|director| director.name.as_str()).collect();
    if let Some(name) = director.filter(|name| !names.contains(name)) {
        return Err(format!("there is no director {name:?}; there are: {}", names.join(", ")));
    }
    if names.is_empty() {
        return Err("the configuration has no director".to_owned());
    }
    let native = Builtin::ALL.iter().copied().find(|builtin| builtin.name() == scheduler);
    let is_component = scheduler.contains([':', '/', '.']);
    if native.is_none() && !is_component {
        let known: Vec<&str> = Builtin::ALL.iter().map(|builtin| builtin.name()).collect();
        let known = known.join(", ");
        return Err(format!("{scheduler:?} is none of {known}, nor a component (bundled:NAME, or a path)"));
    }
    let is_meant = |one: &&mut DirectorPlan| director.is_none_or(|name| one.name == name);
    for plan in plan.directors.iter_mut().filter(is_meant) {
        plan.scheduler = match native {
            Some(builtin) => SchedulerPlan::Builtin(builtin),
            None => SchedulerPlan::Guest(component(scheduler, &plan.scheduler)),
        };
    }
    Ok(())
}

/// A component in place of `before`, with its budget where it has one.
fn component(name: &str, before: &SchedulerPlan) -> GuestPlan {
    let component = name.to_owned();
    match before {
        // Options are those of one component; another would not know them.
        SchedulerPlan::Guest(guest) if guest.component == name => guest.clone(),
        SchedulerPlan::Guest(guest) => GuestPlan { component, options: String::new(), ..guest.clone() },
        SchedulerPlan::Builtin(_) | SchedulerPlan::Tuned(_) => GuestPlan {
            component,
            options: String::new(),
            call_budget: BUDGET_DEFAULT,
            memory_limit_bytes: MEMORY_DEFAULT_BYTES,
            fallback: before.native().map_or(Builtin::RoundRobin, |tuned| tuned.kind),
        },
    }
}

/// Runs `input` through each of `schedulers` with each of `seeds`.
///
/// # Errors
/// When a run fails, a scheduler cannot be used, or there are too few or too many of either.
pub fn compare(
    mut input: Input<'_>,
    schedulers: &[String],
    seeds: &[u64],
    equip: &mut Equip<'_>,
) -> Result<Comparison, CompareError> {
    in_range("schedulers", schedulers.len(), u64::try_from(SCHEDULERS_MAX).unwrap_or(0))?;
    in_range("seeds", seeds.len(), SEEDS_MAX)?;
    let (mut runs, mut firsts, mut packets) = (Vec::new(), Vec::new(), 0);
    let name = input.name();
    for (number, seed) in seeds.iter().enumerate() {
        let mut first: Option<Outcome> = None;
        for scheduler in schedulers {
            let told = |message| CompareError::Scheduler { scheduler: scheduler.clone(), message };
            let outcome = input.run(equip(scheduler, *seed).map_err(told)?, *seed)?;
            packets = outcome.read;
            runs.push(run(scheduler, *seed, &outcome, first.as_ref()));
            if number == 0 {
                firsts.push(outcome.clone());
            }
            first.get_or_insert(outcome);
        }
    }
    let (schema, version) = (SCHEMA, env!("CARGO_PKG_VERSION"));
    Ok(Comparison { schema, version, input: name, packets, runs, differences: differences(&firsts) })
}

fn in_range(what: &'static str, count: usize, most: u64) -> Result<(), CompareError> {
    let fits = u64::try_from(count).is_ok_and(|count| (1..=most).contains(&count));
    if fits { Ok(()) } else { Err(CompareError::Count { what, count, most }) }
}

fn run(scheduler: &str, seed: u64, outcome: &Outcome, first: Option<&Outcome>) -> Run {
    let shares: Vec<Share> = outcome.servers.iter().map(share).collect();
    let (max_over_mean, jain) = evenness(&shares);
    Run {
        scheduler: scheduler.to_owned(),
        seed,
        served: outcome.connections.served,
        broken: outcome.connections.broken,
        servers: shares,
        max_over_mean,
        jain,
        moved: first.map_or(0, |first| moved(first, outcome)),
        wire_hash: outcome.wire_hash.clone(),
        decision_hash: outcome.decision_hash.clone(),
    }
}

fn share(server: &super::ServerReport) -> Share {
    let (director, name) = (server.director.clone(), server.server.clone());
    Share { director, server: name, weight: server.weight, flows: server.flows }
}

/// The largest load over the mean, and Jain's index. A load is what a server has for each unit of its weight, over what
/// all servers of its director have for each.
fn evenness(shares: &[Share]) -> (f64, f64) {
    let mut totals: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for share in shares {
        let (flows, weight) = totals.entry(&share.director).or_insert((0, 0));
        *flows += share.flows;
        *weight += u64::from(share.weight);
    }
    #[allow(clippy::cast_precision_loss, reason = "counts far below 2^53; ratios for reading")]
    let load = |share: &Share| {
        let (flows, weight) = totals.get(share.director.as_str()).copied().unwrap_or((0, 0));
        let own = f64::from(share.weight);
        (flows > 0 && share.weight > 0).then(|| share.flows as f64 / own / (flows as f64 / weight as f64))
    };
    let loads: Vec<f64> = shares.iter().filter_map(load).collect();
    let (sum, squares) =
        loads.iter().fold((0.0, 0.0), |(sum, squares), load| (sum + load, squares + load * load));
    if squares == 0.0 {
        return (0.0, 0.0);
    }
    #[allow(clippy::cast_precision_loss, reason = "a number of servers")]
    let count = loads.len() as f64;
    let most = loads.iter().copied().fold(0.0, f64::max);
    (most, sum * sum / (count * squares))
}

/// The server of a connection, by its name.
fn server_of(outcome: &Outcome, number: usize) -> Option<&str> {
    let (_, server) = outcome.given.connections.get(number)?;
    outcome.given.servers.get(usize::from((*server)?)).map(String::as_str)
}

fn moved(first: &Outcome, other: &Outcome) -> u64 {
    let count = first.given.connections.len().max(other.given.connections.len());
    let differs = (0..count).filter(|number| server_of(first, *number) != server_of(other, *number));
    u64::try_from(differs.count()).unwrap_or(u64::MAX)
}

fn differences(outcomes: &[Outcome]) -> Vec<Difference> {
    let count = outcomes.iter().map(|outcome| outcome.given.connections.len()).max().unwrap_or(0);
    let mut differences = Vec::new();
    for number in 0..count {
        let servers: Vec<_> = outcomes.iter().map(|outcome| server_of(outcome, number)).collect();
        if servers.windows(2).all(|two| two.first() == two.last()) {
            continue;
        }
        let tuple = outcomes.iter().find_map(|outcome| outcome.given.connections.get(number));
        differences.push(Difference {
            connection: u64::try_from(number).unwrap_or(u64::MAX).saturating_add(1),
            tuple: tuple.map_or_else(String::new, |(tuple, _)| tuple.to_string()),
            servers: servers.into_iter().map(|server| server.map(str::to_owned)).collect(),
        });
    }
    differences
}

impl Comparison {
    /// The text for people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = self.render(&mut text);
        text
    }

    fn render(&self, text: &mut String) -> std::fmt::Result {
        let mut schedulers: Vec<&str> = Vec::new();
        for run in &self.runs {
            if !schedulers.contains(&run.scheduler.as_str()) {
                schedulers.push(&run.scheduler);
            }
        }
        let seeds = self.runs.len() / schedulers.len().max(1);
        writeln!(
            text,
            "{} packets of a {}, seeds: {seeds}, version {}\n",
            self.packets, self.input, self.version
        )?;
        let mut rows = vec![vec!["scheduler".to_owned()]];
        if let Some(head) = rows.first_mut() {
            let names = self.runs.first().map_or(&[][..], |run| &run.servers[..]);
            head.extend(names.iter().map(|share| format!("{}/{}", share.director, share.server)));
            head.extend(["served", "broken", "max/mean", "Jain", "moved"].map(str::to_owned));
        }
        for scheduler in &schedulers {
            let runs: Vec<&Run> = self.runs.iter().filter(|run| run.scheduler == *scheduler).collect();
            rows.push(row(scheduler, &runs));
        }
        text.push_str(&aligned(&rows, 1));
        if seeds > 1 {
            writeln!(
                text,
                "\nEach number is the mean over the seeds; max/mean and Jain with the worst behind it."
            )?;
        }
        self.render_differences(&schedulers, text)
    }

    fn render_differences(&self, schedulers: &[&str], text: &mut String) -> std::fmt::Result {
        if self.differences.is_empty() {
            return writeln!(text, "\nEvery scheduler gives every connection to the same server.");
        }
        writeln!(text, "\n{} connections differ:", self.differences.len())?;
        let mut rows = vec![vec!["number".to_owned(), "connection".to_owned()]];
        if let Some(head) = rows.first_mut() {
            head.extend(schedulers.iter().map(|name| (*name).to_owned()));
        }
        for difference in self.differences.iter().take(DIFFERENCES_SHOWN) {
            let mut row = vec![difference.connection.to_string(), difference.tuple.clone()];
            let servers =
                difference.servers.iter().map(|server| server.as_deref().unwrap_or("none").to_owned());
            row.extend(servers);
            rows.push(row);
        }
        text.push_str(&aligned(&rows, usize::MAX));
        match self.differences.len().checked_sub(DIFFERENCES_SHOWN).filter(|more| *more > 0) {
            Some(more) => writeln!(text, "... and {more} more, all of them in the JSON"),
            None => Ok(()),
        }
    }
}

/// One line of the table: the mean of all seeds.
fn row(scheduler: &str, runs: &[&Run]) -> Vec<String> {
    #[allow(clippy::cast_precision_loss, reason = "counts far below 2^53; means for reading")]
    let mean = |value: &dyn Fn(&Run) -> u64| {
        let sum: u64 = runs.iter().map(|run| value(run)).sum();
        let mean = sum as f64 / runs.len().max(1) as f64;
        if sum.is_multiple_of(u64::try_from(runs.len().max(1)).unwrap_or(1)) {
            format!("{mean:.0}")
        } else {
            format!("{mean:.1}")
        }
    };
    #[allow(clippy::cast_precision_loss, reason = "a number of runs")]
    let ratio = |value: &dyn Fn(&Run) -> f64, worse: &dyn Fn(f64, f64) -> f64| {
        let mean = runs.iter().map(|run| value(run)).sum::<f64>() / runs.len().max(1) as f64;
        let worst = runs.iter().map(|run| value(run)).reduce(worse).unwrap_or(0.0);
        if runs.len() > 1 { format!("{mean:.3} ({worst:.3})") } else { format!("{mean:.3}") }
    };
    let mut row = vec![scheduler.to_owned()];
    let servers = runs.first().map_or(0, |run| run.servers.len());
    row.extend((0..servers).map(|place| mean(&|run| run.servers.get(place).map_or(0, |share| share.flows))));
    row.push(mean(&|run| run.served));
    row.push(mean(&|run| run.broken));
    row.push(ratio(&|run| run.max_over_mean, &f64::max));
    row.push(ratio(&|run| run.jain, &f64::min));
    row.push(mean(&|run| run.moved));
    row
}

impl From<PlanError> for CompareError {
    fn from(error: PlanError) -> Self {
        Self::Replay(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(all: &[(&str, u32, u64)]) -> Vec<Share> {
        let share = |(director, weight, flows): &(&str, u32, u64)| Share {
            director: (*director).to_owned(),
            server: "s".to_owned(),
            weight: *weight,
            flows: *flows,
        };
        all.iter().map(share).collect()
    }

    #[test]
    fn evenness_counts_weights_and_directors_apart() {
        assert_eq!(evenness(&shares(&[("a", 4, 40), ("a", 2, 20), ("a", 1, 10)])), (1.0, 1.0));
        let (most, jain) = evenness(&shares(&[("a", 1, 30), ("a", 1, 0), ("a", 1, 0)]));
        assert!((most - 3.0).abs() < 1e-12 && (jain - 1.0 / 3.0).abs() < 1e-12, "{most} {jain}");
        let both =
            shares(&[("a", 1, 1000), ("a", 1, 1000), ("b", 5, 1), ("b", 5, 1), ("c", 1, 0), ("c", 0, 0)]);
        assert_eq!(evenness(&both), (1.0, 1.0));
        assert_eq!(evenness(&shares(&[("a", 1, 0)])), (0.0, 0.0));
        let (most, jain) = evenness(&shares(&[("a", 1, 3), ("a", 1, 1)]));
        assert!((most - 1.5).abs() < 1e-12 && (jain - 0.8).abs() < 1e-12, "{most} {jain}");
    }

    #[test]
    fn a_scheduler_takes_the_place_of_another() {
        let toml = "[interface.tun0]\nkind = \"tun\"\n\n[director.a]\nbind = \"10.0.0.3:80/tcp\"\n\
                    scheduler = { component = \"bundled:maglev\", fallback = \"rr\", budget = \"3ms\" }\n\
                    [[director.a.server]]\nname = \"s\"\naddress = \"10.0.3.20:80\"\n\n\
                    [director.b]\nbind = \"10.0.0.3:81/tcp\"\n\
                    [[director.b.server]]\nname = \"s\"\naddress = \"10.0.3.20:80\"\n";
        let mut plan = evenkeel_config::parse(toml, "test.toml").unwrap().plan;
        let error = set_scheduler(&mut plan, "fastest", None).unwrap_err();
        assert!(error.starts_with("\"fastest\" is none of rr, wrr"), "{error}");
        let error = set_scheduler(&mut plan, "rr", Some("c")).unwrap_err();
        assert_eq!(error, "there is no director \"c\"; there are: a, b");
        set_scheduler(&mut plan, "bundled:round-robin", None).unwrap();
        let guests: Vec<_> = plan.directors.iter().map(|director| director.scheduler.clone()).collect();
        let [SchedulerPlan::Guest(a), SchedulerPlan::Guest(b)] = &guests[..] else { panic!("{guests:?}") };
        assert_eq!((a.component.as_str(), a.call_budget), ("bundled:round-robin", Duration::from_millis(3)));
        assert_eq!((a.fallback, b.call_budget), (Builtin::RoundRobin, BUDGET_DEFAULT));
        set_scheduler(&mut plan, "lc", Some("b")).unwrap();
        assert_eq!(plan.directors[1].scheduler, SchedulerPlan::Builtin(Builtin::LeastConnections));
        assert!(matches!(plan.directors[0].scheduler, SchedulerPlan::Guest(_)));
    }
}
