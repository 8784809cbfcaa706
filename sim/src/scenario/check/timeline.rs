//! The timeline.

use std::collections::BTreeSet;
use std::ops::Range;

use evenkeel_config::document::{At, OneOrMany, TextOrTable};
use evenkeel_config::scheduler_by_name;
use evenkeel_engine::Duration;
use evenkeel_engine::plan::{Builtin, SchedulerPlan};

use super::quality::thousandths;
use super::roster::Roster;
use super::routes::WrittenRoute;
use super::{Checker, TABLES_MAX};
use crate::scenario::written::{Do, Renewal, Timeline};
use crate::scenario::{Action, DURATION_MAX, Happening, RouteAction, Scenario, TABLE_MAIN, When, quantity};
use crate::work::AgentModel;

/// The most times that something happens; each is an event.
const TIMES_MAX: u64 = 1_000_000;
/// The most real servers of one happening.
const SERVERS_MAX: usize = 64;
/// The most schedulers that take turns: every built-in one and its twin.
const SCHEDULERS_MAX: usize = 128;
/// The longest name of a scheduler: the control socket takes it as one word of a line.
const SCHEDULER_NAME_MAX: usize = 512;
/// The shortest time that something takes which may not take none.
const INSTANT: Duration = Duration::from_nanos(1);

/// Whom an action can happen to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scenario) enum Whom {
    Machines,
    Hosts,
    Forwarders,
}

impl Whom {
    pub(in crate::scenario) const fn words(self) -> &'static str {
        match self {
            Self::Machines => "machines",
            Self::Hosts => "hosts",
            Self::Forwarders => "forwarders",
        }
    }
}

/// What an action is called, whom it can happen to, and the keys that it needs and may have besides `target`.
pub(in crate::scenario) fn rules(
    action: Do,
) -> (&'static str, Whom, &'static [&'static str], &'static [&'static str]) {
    match action {
        Do::Stop => ("stop", Whom::Machines, &[], &["for"]),
        Do::Start => ("start", Whom::Machines, &[], &[]),
        Do::Hang => ("hang", Whom::Hosts, &[], &["for"]),
        Do::Slow => ("slow", Whom::Hosts, &["factor"], &["for"]),
        Do::Agent => ("agent", Whom::Hosts, &["says"], &["for"]),
        Do::Weight => ("weight", Whom::Forwarders, &["director", "server", "weight"], &["for"]),
        Do::Scheduler => ("scheduler", Whom::Forwarders, &["director", "scheduler"], &[]),
        Do::Reload => ("reload", Whom::Forwarders, &[], &["config"]),
        Do::LinkDown => ("link.down", Whom::Machines, &["segment"], &["for"]),
        Do::LinkUp => ("link.up", Whom::Machines, &["segment"], &[]),
        Do::LinkSet => ("link.set", Whom::Machines, &["segment"], &["both", "up", "down", "for"]),
        Do::RouteSet => ("route.set", Whom::Machines, &["to"], &["via", "action", "table"]),
        Do::RouteDelete => ("route.delete", Whom::Machines, &["to"], &["table"]),
        Do::ClockJump => ("clock.jump", Whom::Forwarders, &["by"], &[]),
    }
}

/// The keys that only some actions take, with their places.
fn keys(written: &Timeline) -> Vec<(&'static str, Range<usize>)> {
    let keys = [
        ("for", written.r#for.as_ref().map(|at| &at.span)),
        ("factor", written.factor.as_ref().map(|at| &at.span)),
        ("says", written.says.as_ref().map(|at| &at.span)),
        ("director", written.director.as_ref().map(|at| &at.span)),
        ("server", written.server.as_ref().map(|at| &at.span)),
        ("weight", written.weight.as_ref().map(|at| &at.span)),
        ("scheduler", written.scheduler.as_ref().map(|at| &at.span)),
        ("config", written.config.as_ref().map(|at| &at.span)),
        ("segment", written.segment.as_ref().map(|at| &at.span)),
        ("both", written.both.as_ref().map(|at| &at.span)),
        ("up", written.up.as_ref().map(|at| &at.span)),
        ("down", written.down.as_ref().map(|at| &at.span)),
        ("to", written.to.as_ref().map(|at| &at.span)),
        ("via", written.via.as_ref().map(|at| &at.span)),
        ("action", written.action.as_ref().map(|at| &at.span)),
        ("table", written.table.as_ref().map(|at| &at.span)),
        ("by", written.by.as_ref().map(|at| &at.span)),
    ];
    keys.into_iter().filter_map(|(key, place)| Some((key, place?.clone()))).collect()
}

impl Checker<'_, '_> {
    pub(super) fn timeline(
        &mut self,
        written: Option<&At<Vec<At<Timeline>>>>,
        scenario: &Scenario,
        roster: &Roster,
    ) -> Vec<Happening> {
        let written = written.map_or(&[][..], |at| at.value.as_slice());
        self.too_many(written.get(TABLES_MAX).map(|at| &at.span), "timeline");
        let mut happenings = Vec::new();
        for entry in written.iter().take(TABLES_MAX) {
            let when = self.when(entry, scenario.duration);
            let action = self.action(entry, scenario, roster);
            if let (Some(when), Some(action)) = (when, action) {
                happenings.push(Happening { when, action });
            }
        }
        happenings
    }

    fn when(&mut self, entry: &At<Timeline>, end: Duration) -> Option<When> {
        let written = &entry.value;
        let given = [written.at.is_some(), written.every.is_some(), written.within.is_some()];
        if given.into_iter().filter(|given| *given).count() != 1 {
            let message = "one of `at`, `every` and `within` says when it happens";
            self.errors.add_missing(entry.span.clone(), message);
            return None;
        }
        if let Some(start) = written.start.as_ref().filter(|_| written.every.is_none()) {
            self.errors.add(start.span.clone(), "only `every` has a `start`");
        }
        let count = written.count.as_ref().and_then(|at| u32::try_from(at.value).ok());
        if let Some(at) = &written.at {
            if let Some(count) = &written.count {
                self.errors.add(count.span.clone(), "`at` is once; `every` and `within` have a `count`");
            }
            return self.moment(at, end).map(When::At);
        }
        if let Some(within) = &written.within {
            let [from, to] = within.value.as_slice() else {
                self.errors.add(within.span.clone(), "`within` is two times, from and to");
                return None;
            };
            let (from, to) = (self.moment(from, end)?, self.moment(to, end)?);
            if from >= to {
                self.errors.add(within.span.clone(), "`within` ends before it begins");
                return None;
            }
            return Some(When::Within { from, to, count: count.unwrap_or(1) });
        }
        let every = written.every.as_ref()?;
        let (gap, is_random) = match &every.value {
            TextOrTable::Text(text) => {
                let text = At { span: every.span.clone(), value: text.clone() };
                (self.duration(&text, INSTANT..=DURATION_MAX)?, false)
            }
            TextOrTable::Table(table) => {
                let rate = table.rate.as_ref()?;
                let gap = self.value(&rate.span, &rate.value.0, quantity::gap)?;
                (gap, table.process.as_ref()?.value == Renewal::Poisson)
            }
        };
        let start = match &written.start {
            Some(start) => self.moment(start, end)?,
            None if is_random => Duration::ZERO,
            None => gap,
        };
        self.repeated(every, (start, end), gap, count, is_random)
    }

    /// Again and again, as long as the run lasts, and not more often than a run can hold.
    fn repeated<T>(
        &mut self,
        every: &At<T>,
        (start, end): (Duration, Duration),
        gap: Duration,
        count: Option<u32>,
        is_random: bool,
    ) -> Option<When> {
        let room = end.saturating_sub(start).as_nanos() / gap.as_nanos().max(1);
        if start > end {
            let help = Some("write a `start`, or a shorter gap".to_owned());
            self.errors.add_with_help(every.span.clone(), "the run ends before it happens first", help);
            return None;
        }
        let times = u64::try_from(room).unwrap_or(u64::MAX).saturating_add(1);
        if count.map_or(times, u64::from).min(times) > TIMES_MAX {
            let message = format!("this would happen more than {TIMES_MAX} times");
            self.errors.add(every.span.clone(), message);
            return None;
        }
        Some(When::Every { start, gap, is_random, count: count.unwrap_or(u32::MAX) })
    }

    /// The machines of an entry, all of a kind that the action can happen to.
    fn targets(
        &mut self,
        entry: &At<Timeline>,
        (name, whom): (&str, Whom),
        scenario: &Scenario,
        roster: &Roster,
    ) -> Option<Vec<usize>> {
        let Some(at) = &entry.value.target else {
            if whom == Whom::Forwarders {
                // What is meant for forwarders is meant for all of them when none is named.
                let first = scenario.hosts.len() + scenario.routers.len();
                return Some((first..scenario.machine_count()).collect());
            }
            self.errors.add_missing(entry.span.clone(), format!("`{name}` needs a `target`"));
            return None;
        };
        let machines = self.machines(&OneOrMany::each(Some(at)), roster);
        let fits = |number: usize| match whom {
            Whom::Machines => true,
            Whom::Hosts => roster.is_host(number),
            Whom::Forwarders => roster.is_forwarder(number),
        };
        let other =
            machines.iter().find(|number| !fits(**number)).and_then(|number| scenario.machine(*number));
        if let Some((machine, ..)) = other {
            let kind = if whom == Whom::Hosts { "host" } else { "forwarder" };
            self.errors.add(at.span.clone(), format!("{machine} is no {kind}, and `{name}` is for those"));
            return None;
        }
        if machines.is_empty() || !self.take_parts(&at.span, machines.len()) {
            return None;
        }
        Some(machines)
    }

    fn action(&mut self, entry: &At<Timeline>, scenario: &Scenario, roster: &Roster) -> Option<Action> {
        let written = &entry.value;
        let action = written.r#do.as_ref()?.value;
        let (name, whom, needed, may) = rules(action);
        let is_right = self.keys_of("action", name, &entry.span, &keys(written), needed, may);
        let targets = self.targets(entry, (name, whom), scenario, roster);
        let downtime = match &written.r#for {
            Some(text) => Some(self.duration(text, INSTANT..=DURATION_MAX)?),
            None => None,
        };
        if !is_right {
            return None;
        }
        match action {
            Do::Stop => Some(Action::Stop { targets: targets?, downtime }),
            Do::Start => Some(Action::Start { targets: targets? }),
            Do::Hang => Some(Action::Hang { targets: targets?, downtime }),
            Do::Slow => {
                let factor_thousandths = thousandths(written.factor.as_ref()?.value).max(1);
                Some(Action::Slow { targets: targets?, factor_thousandths, downtime })
            }
            Do::Agent => {
                let says = written.says.as_ref()?.value.0.clone();
                let agent = AgentModel { says, full: None };
                Some(Action::Agent { targets: targets?, agent, downtime })
            }
            Do::Weight => self.weight(written, targets?, downtime),
            Do::Scheduler => self.scheduler(written, targets?),
            Do::Reload => {
                let config = written.config.as_ref().map(|path| self.folder.join(&path.value));
                Some(Action::Reload { targets: targets?, config })
            }
            Do::LinkDown | Do::LinkUp | Do::LinkSet => {
                self.link_action(action, written, targets?, downtime, scenario)
            }
            Do::RouteSet | Do::RouteDelete => self.route_action(action, entry, targets?, scenario),
            Do::ClockJump => {
                let by = self.duration(written.by.as_ref()?, INSTANT..=DURATION_MAX)?;
                Some(Action::ClockJump { targets: targets?, by })
            }
        }
    }

    fn weight(
        &mut self,
        written: &Timeline,
        forwarders: Vec<usize>,
        downtime: Option<Duration>,
    ) -> Option<Action> {
        let director = written.director.as_ref()?;
        self.name(&director.span, &director.value, "director");
        let each = OneOrMany::each(written.server.as_ref());
        if each.is_empty() || each.len() > SERVERS_MAX {
            let span = written.server.as_ref()?.span.clone();
            self.errors.add(span, format!("a list of 1 to {SERVERS_MAX} real servers"));
            return None;
        }
        for (span, server) in &each {
            self.name(span, server, "server");
        }
        let servers = each.into_iter().map(|(_, server)| server.clone()).collect();
        let weight = u32::try_from(written.weight.as_ref()?.value).ok()?;
        Some(Action::Weight { forwarders, director: director.value.clone(), servers, weight, downtime })
    }

    fn scheduler(&mut self, written: &Timeline, forwarders: Vec<usize>) -> Option<Action> {
        let director = written.director.as_ref()?;
        self.name(&director.span, &director.value, "director");
        let each = OneOrMany::each(written.scheduler.as_ref());
        if each.is_empty() || each.len() > SCHEDULERS_MAX {
            let span = written.scheduler.as_ref()?.span.clone();
            self.errors.add(span, format!("a list of 1 to {SCHEDULERS_MAX} schedulers"));
            return None;
        }
        for (span, scheduler) in &each {
            // What a component gets from the one before it does not matter for its name.
            if let Err(words) = scheduler_by_name(scheduler, &SchedulerPlan::Builtin(Builtin::RoundRobin)) {
                self.errors.add((*span).clone(), words);
            } else if scheduler.len() > SCHEDULER_NAME_MAX || scheduler.contains(char::is_whitespace) {
                let words =
                    format!("a component here has 1 to {SCHEDULER_NAME_MAX} bytes and no space in its name");
                self.errors.add((*span).clone(), words);
            }
        }
        let schedulers = each.into_iter().map(|(_, scheduler)| scheduler.clone()).collect();
        Some(Action::Scheduler { forwarders, director: director.value.clone(), schedulers })
    }

    fn link_action(
        &mut self,
        action: Do,
        written: &Timeline,
        targets: Vec<usize>,
        downtime: Option<Duration>,
        scenario: &Scenario,
    ) -> Option<Action> {
        let name = written.segment.as_ref()?;
        let segment = self.segment(name, &scenario.segments)?;
        let is_there = |number: &usize| {
            let network = scenario.machine(*number).map(|(_, _, network)| network);
            network.is_some_and(|network| network.attachments.iter().any(|own| own.segment == segment))
        };
        if let Some((machine, ..)) =
            targets.iter().find(|number| !is_there(number)).and_then(|number| scenario.machine(*number))
        {
            self.errors.add(name.span.clone(), format!("{machine} is not attached to {}", name.value));
            return None;
        }
        match action {
            Do::LinkDown => Some(Action::LinkDown { targets, segment, downtime }),
            Do::LinkUp => Some(Action::LinkUp { targets, segment }),
            Do::Stop
            | Do::Start
            | Do::Hang
            | Do::Slow
            | Do::Agent
            | Do::Weight
            | Do::Scheduler
            | Do::Reload
            | Do::LinkSet
            | Do::RouteSet
            | Do::RouteDelete
            | Do::ClockJump => {
                let both = written.both.as_ref().map(|at| at.value.clone()).unwrap_or_default();
                let up = self.quality(&both, written.up.as_ref().map(|at| &at.value));
                let down = self.quality(&both, written.down.as_ref().map(|at| &at.value));
                Some(Action::LinkSet { targets, segment, up, down, downtime })
            }
        }
    }

    fn route_action(
        &mut self,
        action: Do,
        entry: &At<Timeline>,
        targets: Vec<usize>,
        scenario: &Scenario,
    ) -> Option<Action> {
        let written = &entry.value;
        let to = written.to.as_ref()?;
        let (via, table) = (written.via.as_ref(), written.table.as_ref());
        if action == Do::RouteSet {
            let span = &entry.span;
            let route =
                self.route(&WrittenRoute { span, to, via, table, action: written.action.as_ref() })?;
            self.new_next_hops(&route.action, via.map_or(span, |at| &at.span), &targets, scenario);
            return Some(Action::RouteSet { targets, route });
        }
        let text = &to.value.0;
        let Some(to_network) = self.value(&to.span, text, quantity::destination)? else {
            let help = Some("write `0.0.0.0/0` or `::/0`".to_owned());
            self.errors.add_with_help(to.span.clone(), "`default` of which family?", help);
            return None;
        };
        let table = table.and_then(|table| u32::try_from(table.value).ok()).unwrap_or(TABLE_MAIN);
        if !self.is_network(&to.span, to_network) {
            return None;
        }
        Some(Action::RouteDelete { targets, to: to_network, table })
    }

    /// The routers of a route that machines get are on a segment of each of them.
    fn new_next_hops(
        &mut self,
        action: &RouteAction,
        span: &Range<usize>,
        targets: &[usize],
        scenario: &Scenario,
    ) {
        let RouteAction::Via(ways) = action else { return };
        let mut told = BTreeSet::new();
        for (address, _) in ways {
            for number in targets {
                let Some((name, _, network)) = scenario.machine(*number) else { continue };
                let mut segments =
                    network.attachments.iter().filter_map(|own| scenario.segments.get(own.segment));
                if !segments.any(|segment| segment.contains(*address)) && told.insert(*address) {
                    self.errors.add(span.clone(), format!("router {address} is on no segment of {name}"));
                }
            }
        }
    }
}
