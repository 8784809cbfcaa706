//! What happens in a world besides sessions: the timeline, users that come back, and upgrades.

use super::{Wake, World, number};
use crate::flow_mode::forwarder::Forwarder;
use crate::flow_mode::load::nanoseconds;
use crate::flow_mode::machine::Machine;
use crate::flow_mode::outcome::Cause;
use crate::flow_mode::setup::{Change, Setup, SetupError};
use crate::flow_mode::tell::weight_of;
use crate::random::Stream;
use crate::work::{AgentModel, ArrivalProcess, Sampler, Speed};

/// A change of the timeline, with places instead of names.
#[derive(Clone, Debug)]
pub(super) enum Act {
    Weight(usize, u32),
    Remove(usize, bool),
    Stop(usize),
    Start(usize),
    Speed(usize, Speed),
    Agent(usize, Option<AgentModel>),
    Forwarder(usize, bool),
    Power(usize, bool),
    Routes(usize, Vec<u16>),
    ServerWeight { forwarder: usize, director: String, server: String, weight: u32, lasting: Option<u64> },
}

impl Act {
    /// Whether it may end flows that are open, or take their server away.
    pub(super) const fn ends_flows(&self) -> bool {
        match self {
            Self::Remove(..) | Self::Stop(_) | Self::Forwarder(..) | Self::Power(..) => true,
            Self::Weight(..)
            | Self::Start(_)
            | Self::Speed(..)
            | Self::Agent(..)
            | Self::Routes(..)
            | Self::ServerWeight { .. } => false,
        }
    }
}

#[derive(Debug)]
pub(super) struct ChurnState {
    pub(super) updates: ArrivalProcess,
    pub(super) downtime: Sampler,
    pub(super) stops: bool,
    pub(super) draws: [Stream; 3],
    pub(super) is_away: Vec<bool>,
}

impl World {
    pub(super) fn wake(&mut self) {
        let Some((_, wake)) = self.agenda.pop() else { return };
        match wake {
            Wake::Request(key) => self.go_on(key),
            Wake::User(load) => {
                let load = usize::from(load);
                if self.loads.get(load).is_some_and(|load| load.may_begin(self.now)) {
                    self.begin(load);
                }
            }
            Wake::Change(number) => {
                let change = usize::try_from(number).ok().and_then(|number| self.changes.get(number));
                if let Some(change) = change.cloned() {
                    self.change(change);
                }
            }
            Wake::Update => self.update(),
            Wake::Probe(number) => self.probe(number),
            Wake::Return(machine) => self.come_back(machine),
        }
    }

    fn change(&mut self, act: Act) {
        let now = self.time();
        match act.clone() {
            Act::Weight(machine, weight) => {
                self.forwarders.iter_mut().for_each(|one| one.set_weight(number(machine), weight, now));
                self.tell.weighed(now, machine, weight);
            }
            Act::Remove(machine, is_removed) => self.set_removed(machine, is_removed),
            Act::Stop(machine) => self.stop(machine),
            Act::Start(machine) => {
                if let Some(machine) = self.machines.get_mut(machine) {
                    machine.start(now);
                }
            }
            Act::Speed(place, speed) => {
                if let Some(machine) = self.machines.get_mut(place) {
                    machine.set_speed(speed, now);
                    self.due.set(place, machine.due());
                }
            }
            Act::Agent(place, agent) => {
                if let Some(machine) = self.machines.get_mut(place) {
                    machine.set_agent(agent);
                }
            }
            Act::Forwarder(place, is_up) => {
                if let Some(forwarder) = self.forwarders.get_mut(place) {
                    forwarder.set_up(is_up, now);
                    let place = u16::try_from(place).unwrap_or(u16::MAX);
                    self.routers.iter_mut().for_each(|router| router.set_alive(place, is_up));
                }
            }
            Act::Power(place, is_up) => {
                if let Some(forwarder) = self.forwarders.get_mut(place).filter(|one| one.is_up != is_up) {
                    forwarder.set_up(is_up, now);
                }
            }
            Act::Routes(router, forwarders) => {
                if let Some(router) = self.routers.get_mut(router) {
                    router.set_routes(&forwarders);
                }
            }
            Act::ServerWeight { forwarder, director, server, weight, lasting } => {
                self.set_server_weight(forwarder, (&director, &server), weight, lasting);
            }
        }
        let (machines, forwarders) = (&self.machines, &self.forwarders);
        self.tell.mark(now, || words(&act, machines, forwarders));
    }

    /// A forwarder weighs one of its real servers anew, for a time or for good.
    fn set_server_weight(
        &mut self,
        place: usize,
        (director, server): (&str, &str),
        weight: u32,
        lasting: Option<u64>,
    ) {
        let now = self.time();
        let Some(forwarder) = self.forwarders.get_mut(place).filter(|forwarder| forwarder.is_up) else {
            return;
        };
        let Some((machine, before)) = forwarder.set_server_weight(director, server, weight, now) else {
            return;
        };
        self.tell.weighed(now, usize::try_from(machine).unwrap_or(usize::MAX), weight);
        let Some(lasting) = lasting else { return };
        let back = Act::ServerWeight {
            forwarder: place,
            director: director.to_owned(),
            server: server.to_owned(),
            weight: before,
            lasting: None,
        };
        // The timeline bounds how many there are.
        self.agenda.push(self.now.saturating_add(lasting), Wake::Change(number(self.changes.len())));
        self.changes.push(back);
    }

    fn set_removed(&mut self, machine: usize, is_removed: bool) {
        let now = self.time();
        let mut weight = 0;
        for forwarder in &mut self.forwarders {
            forwarder.set_removed(number(machine), is_removed, now);
            if !is_removed {
                weight = weight.max(weight_of(Some(forwarder.plan()), forwarder.address(number(machine))));
            }
        }
        self.tell.weighed(now, machine, weight);
    }

    /// A machine stops: what it had is lost.
    fn stop(&mut self, place: usize) {
        let now = self.time();
        let machine = self.machines.get_mut(place).filter(|machine| !machine.is_down());
        let Some(machine) = machine else { return };
        let lost = machine.stop(now);
        self.due.set(place, machine.due());
        for key in lost {
            let key = usize::try_from(key).unwrap_or(usize::MAX);
            let Some(exchange) = self.sessions.try_remove(key) else { continue };
            self.break_off(&exchange, Cause::ServerGone);
        }
    }

    // Upgrades.

    pub(super) fn plan_update(&mut self) {
        let Some(churn) = &mut self.churn else { return };
        let [updates, ..] = &mut churn.draws;
        if let Some(time) = churn.updates.next(updates) {
            self.agenda.push(time, Wake::Update);
        }
    }

    /// An upgrade begins with a machine that is not away, if there is one.
    fn update(&mut self) {
        self.plan_update();
        let Some(churn) = &mut self.churn else { return };
        let [_, victims, downtimes] = &mut churn.draws;
        let here = churn.is_away.iter().filter(|is_away| !**is_away).count();
        let chosen = victims.below(u64::try_from(here).unwrap_or(0));
        let chosen = usize::try_from(chosen).unwrap_or(usize::MAX);
        let mut candidates = churn.is_away.iter_mut().enumerate().filter(|(_, is_away)| !**is_away);
        let Some((machine, is_away)) = candidates.nth(chosen) else { return };
        *is_away = true;
        let back = self.now.saturating_add(churn.downtime.draw(downtimes));
        let stops = churn.stops;
        self.agenda.push(back, Wake::Return(number(machine)));
        self.set_removed(machine, true);
        if stops {
            self.stop(machine);
        }
    }

    fn come_back(&mut self, machine: u32) {
        let now = self.time();
        let Some(churn) = &mut self.churn else { return };
        let place = usize::try_from(machine).unwrap_or(usize::MAX);
        if let Some(is_away) = churn.is_away.get_mut(place) {
            *is_away = false;
        }
        if churn.stops
            && let Some(machine) = self.machines.get_mut(place)
        {
            machine.start(now);
        }
        self.set_removed(place, false);
    }
}

/// The timeline with places instead of names.
pub(super) fn changes(setup: &Setup, forwarders: &[Forwarder]) -> Result<Vec<Act>, SetupError> {
    let forwarder = |name: &str| {
        let place = forwarders.iter().position(|forwarder| forwarder.name == name);
        place.ok_or_else(|| SetupError::Unknown { kind: "forwarder", name: name.to_owned() })
    };
    let act = |change: &Change| {
        Ok(match change {
            Change::Weight { machine, weight } => Act::Weight(setup.machine(machine)?, *weight),
            Change::Remove { machine } => Act::Remove(setup.machine(machine)?, true),
            Change::Restore { machine } => Act::Remove(setup.machine(machine)?, false),
            Change::Stop { machine } => Act::Stop(setup.machine(machine)?),
            Change::Start { machine } => Act::Start(setup.machine(machine)?),
            Change::Speed { machine, millionths } => {
                Act::Speed(setup.machine(machine)?, Speed::millionths(*millionths))
            }
            Change::Agent { machine, agent } => Act::Agent(setup.machine(machine)?, agent.clone()),
            Change::StopForwarder { forwarder: name } => Act::Forwarder(forwarder(name)?, false),
            Change::StartForwarder { forwarder: name } => Act::Forwarder(forwarder(name)?, true),
            Change::Power { forwarder: name, is_up } => Act::Power(forwarder(name)?, *is_up),
            Change::Routes { router, forwarders } => Act::Routes((*router).into(), forwarders.clone()),
            Change::ServerWeight { forwarder: name, director, server, weight, lasting } => {
                Act::ServerWeight {
                    forwarder: forwarder(name)?,
                    director: director.clone(),
                    server: server.clone(),
                    weight: *weight,
                    lasting: lasting.map(nanoseconds),
                }
            }
        })
    };
    setup.timeline.iter().map(|timed| act(&timed.change)).collect()
}

/// A change in words, for the marks of a report.
fn words(act: &Act, machines: &[Machine], forwarders: &[Forwarder]) -> String {
    let machine = |place: usize| machines.get(place).map_or("", |machine| &machine.name);
    let forwarder = |place: usize| forwarders.get(place).map_or("", |forwarder| &forwarder.name);
    match act {
        Act::Weight(place, weight) => format!("{} has weight {weight}", machine(*place)),
        Act::Remove(place, true) => format!("{} leaves the plan", machine(*place)),
        Act::Remove(place, false) => format!("{} is back in the plan", machine(*place)),
        Act::Stop(place) => format!("{} stops", machine(*place)),
        Act::Start(place) => format!("{} starts", machine(*place)),
        Act::Speed(place, Speed::HUNG) => format!("{} hangs", machine(*place)),
        Act::Speed(place, speed) => format!("{} works at {} %", machine(*place), speed.percent()),
        Act::Agent(place, Some(agent)) => format!("the agent of {} says {:?}", machine(*place), agent.says),
        Act::Agent(place, None) => format!("{} has no agent any more", machine(*place)),
        Act::Forwarder(place, false) | Act::Power(place, false) => format!("{} stops", forwarder(*place)),
        Act::Forwarder(place, true) | Act::Power(place, true) => format!("{} starts", forwarder(*place)),
        Act::Routes(router, ways) => format!("router {router} has {} ways", ways.len()),
        Act::ServerWeight { forwarder: place, server, weight, .. } => {
            format!("{server} has weight {weight} at {}", forwarder(*place))
        }
    }
}
