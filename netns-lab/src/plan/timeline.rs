//! What happens while the loads run: the scenario's timeline as deeds of the conductor, with the same moments and the same
//! targets as in the simulator.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_sim::random::Stream;
use evenkeel_sim::scenario::{Action, Scenario, Turn, When};

use super::{ForwarderFile, forwarder_number, microseconds, network};
use crate::LabError;
use crate::orders::{Deed, Due, HostPlan, Order, Role, WirePlan};

/// The speed of a machine that is well, in thousandths.
const NORMAL_THOUSANDTHS: u32 = 1_000;

/// Deeds of one run: a timeline that drives the lab harder than this measures nothing but the lab.
const DEEDS_MAX: usize = 100_000;

/// The deeds in the order of time.
///
/// # Errors
///
/// When the timeline has what a lab can not do.
pub(super) fn lay_out(
    scenario: &Scenario,
    files: &[ForwarderFile],
    hosts: &[HostPlan],
    seed: u64,
) -> Result<Vec<Due>, LabError> {
    let mut timeline = Timeline::new(scenario, files, hosts, seed)?;
    while let Some(((at, _), step)) = timeline.agenda.pop_first() {
        timeline.take(at, step);
        if timeline.deeds.len() > DEEDS_MAX {
            let what = format!("a timeline of more than {DEEDS_MAX} changes");
            return Err(LabError::TooLarge(what));
        }
    }
    Ok(timeline.deeds)
}

/// What is next.
#[derive(Clone, Debug)]
enum Step {
    /// An entry of the scenario's timeline.
    Happen(usize),
    /// The time of something is over.
    Undo(Box<Deed>),
    /// The time of a changed weight is over.
    Weight { forwarder: usize, director: String, server: String, weight: u32 },
}

#[derive(Debug)]
struct Timeline<'s> {
    scenario: &'s Scenario,
    hosts: &'s [HostPlan],
    /// By time and by the order of insertion.
    agenda: BTreeMap<(Duration, u64), Step>,
    steps: u64,
    fates: Vec<Stream>,
    turns: Vec<Turn>,
    /// The weights as they are, by forwarder, director and real server.
    weights: BTreeMap<(usize, String, String), u32>,
    /// The wires as they are, by host and leg.
    wires: BTreeMap<(usize, usize), WirePlan>,
    deeds: Vec<Due>,
}

impl<'s> Timeline<'s> {
    fn new(
        scenario: &'s Scenario,
        files: &[ForwarderFile],
        hosts: &'s [HostPlan],
        seed: u64,
    ) -> Result<Self, LabError> {
        let mut weights = BTreeMap::new();
        for machine in 0..hosts.len() {
            let Some(file) = forwarder_number(scenario, machine).and_then(|number| files.get(number)) else {
                continue;
            };
            for director in &file.directors {
                let of = |server: &str| (machine, director.name.clone(), server.to_owned());
                weights.extend(director.servers.iter().map(|server| (of(&server.name), server.weight)));
            }
        }
        let mut wires = BTreeMap::new();
        for (host, plan) in hosts.iter().enumerate() {
            let its = plan.legs.iter().enumerate();
            wires.extend(its.filter_map(|(leg, plan)| Some(((host, leg), plan.wire?))));
        }
        let (agenda, deeds) = (BTreeMap::new(), Vec::new());
        let mut timeline = Self {
            scenario,
            hosts,
            agenda,
            steps: 0,
            fates: Vec::new(),
            turns: Vec::new(),
            weights,
            wires,
            deeds,
        };
        for (index, happening) in scenario.timeline.iter().enumerate() {
            timeline.check(&happening.action)?;
            let mut fate = When::fate(seed, index);
            for at in happening.when.moments(&mut fate, scenario.duration) {
                timeline.add(at, Step::Happen(index));
            }
            timeline.fates.push(fate);
            timeline.turns.push(Turn::default());
        }
        Ok(timeline)
    }

    /// Refuses what a lab can not do.
    fn check(&self, action: &Action) -> Result<(), LabError> {
        let unable = |why: &str| Err(LabError::Unable(format!("[[timeline]]: {}: {why}", action.words())));
        match action {
            Action::Stop { targets, .. }
                if targets.iter().any(|host| {
                    self.hosts.get(*host).is_some_and(|host| matches!(host.role, Role::Client(_)))
                }) =>
            {
                unable("a lab's clients keep their power")
            }
            Action::Reload { config: Some(_), .. } => {
                unable("a lab's forwarder reads the file that it was started with")
            }
            Action::ClockJump { .. } => unable("a lab has the clock of its machine"),
            Action::Stop { .. }
            | Action::Start { .. }
            | Action::Hang { .. }
            | Action::Slow { .. }
            | Action::Agent { .. }
            | Action::Weight { .. }
            | Action::Scheduler { .. }
            | Action::Reload { .. }
            | Action::LinkDown { .. }
            | Action::LinkUp { .. }
            | Action::LinkSet { .. }
            | Action::RouteSet { .. }
            | Action::RouteDelete { .. } => Ok(()),
        }
    }

    fn add(&mut self, at: Duration, step: Step) {
        self.agenda.insert((at, self.steps), step);
        self.steps += 1;
    }

    fn later(&mut self, at: Duration, after: Option<Duration>, deeds: impl IntoIterator<Item = Deed>) {
        let Some(after) = after else { return };
        for deed in deeds {
            self.add(at + after, Step::Undo(Box::new(deed)));
        }
    }

    fn tell(&mut self, at: Duration, host: usize, order: Order) {
        self.act(at, Deed::Tell(host, order));
    }

    fn tell_all(&mut self, at: Duration, hosts: &[usize], order: &Order) {
        for host in hosts {
            self.tell(at, *host, order.clone());
        }
    }

    fn act(&mut self, at: Duration, deed: Deed) {
        if at <= self.scenario.duration {
            self.deeds.push(Due { at_us: microseconds(at), deed });
        }
    }

    fn take(&mut self, at: Duration, step: Step) {
        match step {
            Step::Happen(index) => self.happen(at, index),
            Step::Undo(deed) => {
                if let Deed::Wire { host, leg, wire } = *deed {
                    self.wires.insert((host, leg), wire);
                }
                self.act(at, *deed);
            }
            Step::Weight { forwarder, director, server, weight } => {
                self.set_weight(at, forwarder, (&director, &server), weight);
            }
        }
    }

    fn happen(&mut self, at: Duration, index: usize) {
        let scenario = self.scenario;
        let (Some(happening), Some(fate)) = (scenario.timeline.get(index), self.fates.get_mut(index)) else {
            return;
        };
        match &happening.action {
            Action::Stop { targets, downtime } => {
                let Some(host) = fate.pick(targets).copied() else { return };
                self.power_off(at, host, *downtime);
            }
            Action::Start { targets } => {
                for host in targets {
                    let deeds = self.power_on(*host);
                    deeds.into_iter().for_each(|deed| self.act(at, deed));
                }
            }
            Action::Hang { targets, downtime } => {
                let Some(host) = fate.pick(targets).copied() else { return };
                self.for_a_time(at, host, [Order::Hang(true), Order::Hang(false)], *downtime);
            }
            Action::Slow { targets, factor_thousandths, downtime } => {
                let Some(host) = fate.pick(targets).copied() else { return };
                let orders = [*factor_thousandths, NORMAL_THOUSANDTHS].map(Order::Slow);
                self.for_a_time(at, host, orders, *downtime);
            }
            Action::Agent { targets, agent, downtime } => {
                let Some(host) = fate.pick(targets).copied() else { return };
                let written = scenario.hosts.get(host).and_then(|host| host.agent.clone());
                self.for_a_time(at, host, [Some(agent.clone()), written].map(Order::Agent), *downtime);
            }
            Action::Weight { forwarders, director, servers, weight, downtime } => {
                let Some(server) = fate.pick(servers) else { return };
                for forwarder in forwarders {
                    self.change_weight(at, *forwarder, (director, server), *weight, *downtime);
                }
            }
            Action::Scheduler { forwarders, director, schedulers } => {
                let next = self.turns.get_mut(index).and_then(|turn| turn.next(schedulers));
                let Some(scheduler) = next else { return };
                let words = ["director", director, "scheduler", scheduler].map(str::to_owned);
                self.tell_all(at, forwarders, &Order::Control(words.to_vec()));
            }
            Action::Reload { targets, config: _ } => {
                self.tell_all(at, targets, &Order::Control(vec!["reload".to_owned()]));
            }
            Action::LinkDown { targets, segment, downtime } => {
                let Some(host) = fate.pick(targets).copied() else { return };
                let legs = self.legs_at(host, *segment);
                legs.iter().for_each(|leg| self.act(at, Deed::Link { host, leg: *leg, is_up: false }));
                self.later(at, *downtime, legs.into_iter().map(|leg| Deed::Link { host, leg, is_up: true }));
            }
            Action::LinkUp { targets, segment } => {
                targets.iter().for_each(|host| self.link_up(at, *host, *segment));
            }
            Action::LinkSet { targets, segment, up, down, downtime } => {
                let wire = WirePlan { up: *up, down: *down };
                for host in targets {
                    self.change_wire(at, (*host, *segment), wire, *downtime);
                }
            }
            Action::RouteSet { targets, route } => {
                self.tell_all(at, targets, &Order::Ip(vec![network::set_route(route)]));
            }
            Action::RouteDelete { targets, to, table } => {
                self.tell_all(at, targets, &Order::Ip(vec![network::delete_route(to, *table)]));
            }
            // Refused before.
            Action::ClockJump { .. } => {}
        }
    }

    /// Tells a host the first order now, and the second one after this time.
    fn for_a_time(&mut self, at: Duration, host: usize, [order, back]: [Order; 2], time: Option<Duration>) {
        self.tell(at, host, order);
        self.later(at, time, [Deed::Tell(host, back)]);
    }

    fn link_up(&mut self, at: Duration, host: usize, segment: usize) {
        for leg in self.legs_at(host, segment) {
            self.act(at, Deed::Link { host, leg, is_up: true });
        }
    }

    /// What is under way is lost first, so that nobody hears of the end of a connection.
    fn power_off(&mut self, at: Duration, host: usize, downtime: Option<Duration>) {
        for leg in self.all_legs(host) {
            self.act(at, Deed::Link { host, leg, is_up: false });
        }
        self.tell(at, host, Order::PowerOff);
        let deeds = self.power_on(host);
        self.later(at, downtime, deeds);
    }

    fn power_on(&self, host: usize) -> Vec<Deed> {
        let mut deeds: Vec<_> =
            self.all_legs(host).map(|leg| Deed::Link { host, leg, is_up: true }).collect();
        deeds.push(Deed::Tell(host, Order::PowerOn));
        deeds
    }

    fn all_legs(&self, host: usize) -> std::ops::Range<usize> {
        0..self.hosts.get(host).map_or(0, |host| host.legs.len())
    }

    /// The legs of a machine that are plugged into a segment.
    fn legs_at(&self, host: usize, segment: usize) -> Vec<usize> {
        let network = self.scenario.machine(host).map(|(_, _, network)| network);
        let attachments = network.map_or(&[][..], |network| &network.attachments);
        let there = attachments.iter().enumerate().filter(|(_, one)| one.segment == segment);
        there.map(|(leg, _)| leg).collect()
    }

    fn change_weight(
        &mut self,
        at: Duration,
        forwarder: usize,
        (director, server): (&str, &str),
        weight: u32,
        downtime: Option<Duration>,
    ) {
        let Some(before) = self.set_weight(at, forwarder, (director, server), weight) else { return };
        let Some(downtime) = downtime else { return };
        let (director, server) = (director.to_owned(), server.to_owned());
        self.add(at + downtime, Step::Weight { forwarder, director, server, weight: before });
    }

    /// The weight of before; none when there is no such server.
    fn set_weight(
        &mut self,
        at: Duration,
        forwarder: usize,
        (director, server): (&str, &str),
        weight: u32,
    ) -> Option<u32> {
        let place = self.weights.get_mut(&(forwarder, director.to_owned(), server.to_owned()))?;
        let before = std::mem::replace(place, weight);
        let words = ["weight", director, server, &weight.to_string()].map(str::to_owned);
        self.tell(at, forwarder, Order::Control(words.to_vec()));
        Some(before)
    }

    fn change_wire(
        &mut self,
        at: Duration,
        (host, segment): (usize, usize),
        wire: WirePlan,
        downtime: Option<Duration>,
    ) {
        for leg in self.legs_at(host, segment) {
            let before = self.wires.insert((host, leg), wire);
            self.act(at, Deed::Wire { host, leg, wire });
            self.later(at, downtime, before.map(|wire| Deed::Wire { host, leg, wire }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use evenkeel_sim::wires::Delay;

    use super::super::tests::{SCENARIO, file, scenario};
    use super::*;

    fn deeds(timeline: &str) -> Result<Vec<Due>, LabError> {
        let scenario = scenario(&format!("{SCENARIO}\n{timeline}"));
        super::super::lay_out(&scenario, &[file()], Path::new("evenkeel"), 1).map(|plan| plan.timeline)
    }

    #[test]
    fn machine_loses_its_links_before_its_power_and_gets_them_back_before_it() {
        let deeds =
            deeds("[[timeline]]\nat = \"2s\"\ndo = \"stop\"\ntarget = \"server\"\nfor = \"3s\"\n").unwrap();
        let link = |is_up| Deed::Link { host: 3, leg: 0, is_up };
        let expected = [
            (2_000_000, link(false)),
            (2_000_000, Deed::Tell(3, Order::PowerOff)),
            (5_000_000, link(true)),
            (5_000_000, Deed::Tell(3, Order::PowerOn)),
        ];
        assert_eq!(deeds, expected.map(|(at_us, deed)| Due { at_us, deed }));
    }

    #[test]
    fn changed_link_is_as_before_when_its_time_is_over() {
        let text = "[[timeline]]\nat = \"1s\"\ndo = \"link.set\"\ntarget = \"server\"\nsegment = \"right\"\n\
                    both = { delay = \"9ms\" }\nfor = \"2s\"\n";
        let deeds = deeds(text).unwrap();
        let delays: Vec<_> = deeds
            .iter()
            .map(|due| match &due.deed {
                Deed::Wire { host: 3, leg: 0, wire } => (due.at_us, wire.up.delay),
                Deed::Tell(..) | Deed::Link { .. } | Deed::Wire { .. } => panic!("{:?}", due.deed),
            })
            .collect();
        let ms = |ms| Delay::Fixed(Duration::from_millis(ms));
        assert_eq!(delays, [(1_000_000, ms(9)), (3_000_000, ms(2))]);
    }

    #[test]
    fn what_a_lab_can_not_do_is_refused_by_its_name() {
        let clock = "[[timeline]]\nat = \"1s\"\ndo = \"clock.jump\"\ntarget = \"lb\"\nby = \"1s\"\n";
        let error = deeds(clock).unwrap_err().to_string();
        assert!(error.contains("a clock jumps"), "{error}");
        let client = "[[timeline]]\nat = \"1s\"\ndo = \"stop\"\ntarget = \"client.0\"\n";
        let error = deeds(client).unwrap_err().to_string();
        assert!(error.contains("clients keep their power"), "{error}");
    }
}
