//! Runs a case and judges it: what broke although nothing that the case does could break it.
//!
//! The floor of a flow is drawn from the case alone. A server, client or forwarder that was away while a flow was open
//! explains that the flow broke; another weight, a configuration that is read again, a slow server or a component that
//! fails explain nothing, whatever the scheduler.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use evenkeel_config::Loaded;
use evenkeel_engine::director::Scheduler;
use evenkeel_engine::plan::{PolicyPlan, SchedulerPlan};
use evenkeel_engine::{Guests, Instant};

use super::case::{Case, Fault, Machine, Shape, What};
use crate::host::Cause;
use crate::prepare::{Loader, PrepareError, Supply, one_scheduler};
use crate::random::Stream;
use crate::report::Outcome;
use crate::scenario::Scenario;
use crate::watch::{BrokenSeen, Watch};
use crate::world::{Equipment, Options, Planted, Queue, run_watched};

/// How long what is over is felt: neighbours are asked anew, switches learn where stations are.
const GRACE_MS: u64 = 3_000;
/// Broken flows that are told one by one.
const TOLD_MAX: usize = 5;

/// What kind of thing must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A flow broke, and nothing explains it.
    Broken,
    /// Flows are open long after every deadline.
    Endless,
    /// A packet has had no end, or two.
    NotConserved,
    /// A packet with a wrong checksum or length reached a machine, and no cable corrupts.
    BadPacket,
    /// Two stations claim one address.
    ArpConflict,
    /// Packets for the VIP reached a real server past the forwarder.
    Bypassed,
    /// An answer came from, or went to, somebody who has no part in the flow.
    Strayed,
    /// A new flow reached a real server that takes none.
    OutOfService,
    /// Two flows had one tuple at a real server.
    Shared,
    /// The case could not be run: its files are wrong.
    Refused,
    /// The program panicked.
    Panicked,
    /// A second run was another.
    NotRepeated,
}

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What kind.
    pub kind: Kind,
    /// What exactly, in a sentence.
    pub words: String,
}

/// What a case came to.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// What must not be.
    pub violations: Vec<Violation>,
    /// Flows, and those that broke.
    pub flows: (u64, u64),
    /// Broken flows that the case explains.
    pub explained: u64,
    /// Events of the run.
    pub events: u64,
    /// Wire, decision and metric hash; empty where there was no run.
    pub hashes: [String; 3],
}

impl Verdict {
    /// Whether all is well.
    #[must_use]
    pub const fn is_fine(&self) -> bool {
        self.violations.is_empty()
    }

    /// Whether something of this kind is wrong.
    #[must_use]
    pub fn has(&self, kind: Kind) -> bool {
        self.violations.iter().any(|violation| violation.kind == kind)
    }

    fn add(&mut self, kind: Kind, words: String) {
        self.violations.push(Violation { kind, words });
    }
}

/// Runs cases.
pub struct Judge<'a, 'l> {
    /// Makes components ready.
    pub loader: &'a mut Loader<'l>,
    /// A fault on purpose.
    pub planted: Planted,
}

impl std::fmt::Debug for Judge<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Judge").field("planted", &self.planted).finish_non_exhaustive()
    }
}

impl Judge<'_, '_> {
    /// Runs a case once and judges it.
    pub fn judge(&mut self, case: &Case) -> Verdict {
        let mut verdict = Verdict::default();
        let watch = &mut Watch::default();
        watch.broken = Some(Vec::new());
        match self.run(case, Queue::Wheel, watch) {
            Err((kind, words)) => verdict.add(kind, words),
            Ok(outcome) => {
                verdict.flows = (outcome.flows.started, outcome.flows.broken);
                verdict.events = outcome.events;
                verdict.hashes = hashes(&outcome);
                look_at(case, &outcome, &mut verdict);
                let broken = watch.broken.take().unwrap_or_default();
                flows(case, &broken, &mut verdict);
            }
        }
        verdict
    }

    /// The same, and once more with the reference queue, which must give the same hashes.
    pub fn judge_twice(&mut self, case: &Case) -> Verdict {
        let mut verdict = self.judge(case);
        if verdict.hashes.iter().all(String::is_empty) {
            return verdict;
        }
        match self.run(case, Queue::Heap, &mut Watch::default()) {
            Err((kind, words)) => verdict.add(kind, format!("with the reference queue: {words}")),
            Ok(outcome) => {
                let again = hashes(&outcome);
                if again != verdict.hashes {
                    let words =
                        format!("hashes {:?}, and with the reference queue {again:?}", verdict.hashes);
                    verdict.add(Kind::NotRepeated, words);
                }
            }
        }
        verdict
    }

    /// One run, while somebody looks on.
    ///
    /// # Errors
    /// When the case is refused or the program panics; the kind and the words of that.
    pub fn run(&mut self, case: &Case, queue: Queue, watch: &mut Watch) -> Result<Outcome, (Kind, String)> {
        let scenario = case.parse()?;
        let refused = |words: String| (Kind::Refused, words);
        let files: BTreeMap<String, String> = case.files().into_iter().collect();
        let main = case.main_name();
        let mut shelf = Shelf { files: &files, main: &main, seed: case.seed, loader: self.loader };
        let first = shelf.equipment(0, None).map_err(|error| refused(error.to_string()))?;
        let options = Options { queue, planted: self.planted, ..Options::default() };
        let run = || run_watched(&scenario, vec![first], options, Some(&mut shelf), &mut |_| {}, watch);
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(result) => result.map_err(|error| refused(error.to_string())),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
                Err((Kind::Panicked, text.to_owned()))
            }
        }
    }
}

/// The configurations of a case, as a forwarder reads them.
struct Shelf<'a, 'l> {
    files: &'a BTreeMap<String, String>,
    main: &'a str,
    seed: u64,
    loader: &'a mut Loader<'l>,
}

impl Shelf<'_, '_> {
    fn configuration(&self, forwarder: usize, config: Option<&Path>) -> Result<Loaded, PrepareError> {
        let refused = |message| PrepareError { forwarder: forwarder.to_string(), message };
        let name = config.and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or(self.main);
        let text = self.files.get(name).ok_or_else(|| refused(format!("there is no file {name}")))?;
        let loaded = evenkeel_config::parse(text, name).map_err(|found| refused(found.render(false)))?;
        Ok(loaded.with_seed(Stream::new(self.seed, "lb", "seed").bits()))
    }
}

impl Supply for Shelf<'_, '_> {
    fn equipment(&mut self, forwarder: usize, config: Option<&Path>) -> Result<Equipment, PrepareError> {
        let refused = |message| PrepareError { forwarder: forwarder.to_string(), message };
        let loaded = self.configuration(forwarder, config)?;
        let guests =
            if has_component(&loaded) { (self.loader)(&loaded).map_err(refused)? } else { Guests::default() };
        Ok(Equipment { plan: loaded.plan, guests })
    }

    fn scheduler(
        &mut self,
        forwarder: usize,
        director: &str,
        plan: &SchedulerPlan,
    ) -> Result<Box<dyn Scheduler>, PrepareError> {
        let loaded = self.configuration(forwarder, None)?;
        one_scheduler(loaded, director, plan, self.loader)
            .map_err(|message| PrepareError { forwarder: forwarder.to_string(), message })
    }
}

fn has_component(loaded: &Loaded) -> bool {
    let is_component = |scheduler: &SchedulerPlan| matches!(scheduler, SchedulerPlan::Guest(_));
    loaded.plan.directors.iter().any(|director| is_component(&director.scheduler))
        || loaded.plan.policies.iter().any(|policy| matches!(policy, PolicyPlan::Guest(_)))
        || !loaded.plan.outflow_guests.is_empty()
}

fn hashes(outcome: &Outcome) -> [String; 3] {
    [outcome.wire_hash.clone(), outcome.decision_hash.clone(), outcome.metric_hash.clone()]
}

/// What must never be, apart from single flows.
fn look_at(case: &Case, outcome: &Outcome, verdict: &mut Verdict) {
    if !outcome.is_conserved {
        verdict.add(Kind::NotConserved, format!("packets are not conserved: {:?}", outcome.packets));
    }
    if outcome.flows.unfinished > 0 {
        let words = format!("{} flows are open long after every deadline", outcome.flows.unfinished);
        verdict.add(Kind::Endless, words);
    }
    let counts = outcome.checks.counts;
    let said = || outcome.checks.sentences.first().cloned().unwrap_or_default();
    // A bit that flips in a claim of an address, which has no checksum, is a conflict.
    if !case.is_corrupting() {
        let all = [
            (Kind::BadPacket, counts.bad_packets, "bad packets"),
            (Kind::ArpConflict, counts.arp_conflicts, "conflicts of addresses"),
            (Kind::Bypassed, counts.vip_bypassed, "frames past the forwarder"),
            (Kind::Strayed, counts.foreign_answers + counts.strayed_answers, "stray answers"),
            (Kind::OutOfService, counts.out_of_service, "flows to a server that takes none"),
            (Kind::Shared, counts.tuples_shared, "tuples of two flows"),
        ];
        for (kind, count, words) in all.into_iter().filter(|(_, count, _)| *count > 0) {
            verdict.add(kind, format!("{count} {words}: {}", said()));
        }
    }
    for text in outcome.forwarders.iter().flat_map(|forwarder| &forwarder.faults) {
        if text.starts_with("reload") || text.starts_with("restart") {
            verdict.add(Kind::Refused, text.clone());
        }
    }
}

/// Flows that broke although nothing could break them.
fn flows(case: &Case, broken: &[BrokenSeen], verdict: &mut Verdict) {
    let mut unexplained = Vec::new();
    for flow in broken {
        if case.explains(flow) {
            verdict.explained += 1;
        } else {
            unexplained.push(flow);
        }
    }
    let count = unexplained.len();
    for flow in unexplained.into_iter().take(TOLD_MAX) {
        let server = flow.server.map_or_else(|| "nobody".to_owned(), |server| server.to_string());
        let words = format!(
            "flow {} of load l{}, opened by client.{} at {} ms and answered by {server}, broke at {} ms: {} ({count} in all)",
            flow.number,
            flow.load,
            flow.client,
            millis(flow.opened),
            millis(flow.ended),
            flow.cause.words()
        );
        verdict.add(Kind::Broken, words);
    }
}

const fn millis(at: Instant) -> u64 {
    at.as_nanos() / 1_000_000
}

impl Case {
    /// The scenario that its file says.
    ///
    /// # Errors
    /// When that is none: a mistake of whoever drew the case.
    pub fn parse(&self) -> Result<Scenario, (Kind, String)> {
        let files = self.files();
        let (name, text) = files.first().map_or(("", ""), |(name, text)| (name.as_str(), text.as_str()));
        Scenario::parse(text, Path::new(name)).map_err(|errors| (Kind::Refused, errors.to_string()))
    }

    /// Whether a cable of it changes bits at some time.
    fn is_corrupting(&self) -> bool {
        let is_changing = |fault: &Fault| matches!(fault.what, What::Noise(_, noise) if noise.corrupt > 0);
        self.noise.corrupt > 0 || self.faults.iter().any(is_changing)
    }

    /// Whether something that the case does can have broken this flow.
    fn explains(&self, flow: &BrokenSeen) -> bool {
        // What a client did not get in time may have been lost on a bad cable.
        let is_silence = matches!(flow.cause, Cause::TimedOut | Cause::Deadline | Cause::Unreachable);
        if is_silence && !self.noise.is_none() {
            return true;
        }
        // A full table keeps the flows that it knows to be open, and has no room for others. Where answers go past the
        // forwarder, it does not know that of datagrams until the client goes on.
        let is_tcp = self.loads.get(flow.load).is_some_and(|load| load.is_tcp);
        let is_unknown = flow.server.is_none() || (self.shape == Shape::Gateway && !is_tcp);
        if self.flows_max > 0 && is_unknown {
            return true;
        }
        self.faults.iter().any(|fault| fault.explains(self, flow, is_silence))
    }
}

impl Fault {
    fn explains(&self, case: &Case, flow: &BrokenSeen, is_silence: bool) -> bool {
        let begin = u64::from(self.at_ms);
        let is_before = millis(flow.ended) < begin;
        let is_behind = self.for_ms > 0 && millis(flow.opened) > begin + u64::from(self.for_ms) + GRACE_MS;
        if is_before {
            return false;
        }
        // A flow that nobody has answered may have been given to whoever is away.
        let is_of = |server: u32| {
            let address = Case::server(server).parse::<IpAddr>().ok();
            flow.server.is_none() || flow.server == address
        };
        let concerns = |machine: Machine| match machine {
            Machine::Client(client) => usize::try_from(client) == Ok(flow.client),
            Machine::Server(server) => is_of(server),
            Machine::Forwarder => true,
        };
        match self.what {
            What::Stop(machine) | What::Cut(machine) => !is_behind && concerns(machine),
            What::Hang(server) => !is_behind && is_of(server),
            What::Slow(server, _) => !is_behind && is_silence && is_of(server),
            // A claim of an address in which a bit has flipped is believed until it is refreshed.
            What::Noise(machine, noise) => {
                is_silence && (noise.corrupt > 0 || (!is_behind && concerns(machine)))
            }
            What::Weight(..) | What::Reload { is_other: false } => false,
            // The last server is no longer in the configuration.
            What::Reload { is_other: true } => {
                is_of(u32::try_from(case.weights.len()).unwrap_or(1).saturating_sub(1))
            }
            // Flows that were idle for long may be forgotten.
            What::Jump(by) => by > IDLE_MS && millis(flow.opened) <= begin,
        }
    }
}

/// The shortest time after which a forwarder may forget a flow that is idle: connections that close.
const IDLE_MS: u32 = 10_000;
