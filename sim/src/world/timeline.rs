//! What happens during a run besides traffic: each entry of the timeline draws its targets and moments from a stream of
//! its own, so that another entry, or another load, shifts nothing.

use std::net::IpAddr;
use std::path::Path;

use evenkeel_engine::plan::SchedulerPlan;
use evenkeel_engine::{Duration, Guests, Instant};

use super::machine::{Machine, Role};
use super::{Equipment, World};
use crate::forwarder::ForwarderNode;
use crate::net::{Event, number};
use crate::scenario::{Action, Scenario};
use crate::wires::Quality;
use crate::work::AgentModel;

/// What is undone when the time of something that has happened is over.
#[derive(Clone, Debug)]
pub(super) enum Undoing {
    Start { machine: usize },
    Wake { machine: usize },
    Speed { machine: usize },
    Agent { machine: usize },
    Weight { forwarder: usize, director: String, server: String, weight: u32 },
    LinkUp { machine: usize, segment: usize },
    LinkSet { machine: usize, segment: usize, qualities: Vec<[Quality; 2]> },
}

impl World<'_> {
    /// Lets everything be due that has a time of its own.
    pub(super) fn begin_timeline(&mut self) {
        for (index, happening) in self.scenario.timeline.iter().enumerate() {
            let Some(draw) = self.fates.get_mut(index) else { continue };
            for at in happening.when.moments(draw, self.scenario.duration) {
                self.net.schedule(Instant::ZERO.after(at), Event::Happen { happening: number(index) });
            }
        }
    }

    /// An entry of the timeline is due.
    pub(super) fn happen(&mut self, index: usize) {
        let scenario = self.scenario;
        let Some(happening) = scenario.timeline.get(index) else { return };
        self.mark(happening.action.words());
        let Some(draw) = self.fates.get_mut(index) else { return };
        let mut one = |targets: &[usize]| draw.pick(targets).copied();
        match &happening.action {
            Action::Stop { targets, downtime } => {
                let Some(machine) = one(targets) else { return };
                self.stop(machine);
                self.later(*downtime, Undoing::Start { machine });
            }
            Action::Start { targets } => targets.iter().for_each(|machine| self.start(*machine)),
            Action::Hang { targets, downtime } => {
                let Some(machine) = one(targets) else { return };
                self.hang(machine, *downtime);
            }
            Action::Slow { targets, factor_thousandths, downtime } => {
                let Some(machine) = one(targets) else { return };
                self.with_host(machine, |host, way| host.set_slowness(way, *factor_thousandths));
                self.later(*downtime, Undoing::Speed { machine });
            }
            Action::Agent { targets, agent, downtime } => {
                let machine = one(targets);
                self.set_agent(machine, agent, *downtime);
            }
            Action::Weight { forwarders, director, servers, weight, downtime } => {
                let Some(server) = draw.pick(servers) else { return };
                self.set_weights(forwarders, (director, server), *weight, *downtime);
            }
            Action::Scheduler { forwarders, director, schedulers } => {
                let turn = self.turns.get_mut(index).and_then(|turn| turn.next(schedulers));
                let Some(scheduler) = turn else { return };
                forwarders.iter().for_each(|machine| self.set_scheduler(*machine, director, scheduler));
            }
            Action::Reload { targets, config } => {
                targets.iter().for_each(|machine| self.reload(*machine, config.as_deref()));
            }
            Action::LinkDown { targets, segment, downtime } => {
                let Some(machine) = one(targets) else { return };
                self.go_away(machine);
                self.set_link(machine, *segment, false);
                self.later(*downtime, Undoing::LinkUp { machine, segment: *segment });
            }
            Action::LinkUp { targets, segment } => {
                targets.iter().for_each(|machine| self.set_link(*machine, *segment, true));
            }
            Action::LinkSet { targets, segment, up, down, downtime } => {
                for machine in targets {
                    self.set_quality(*machine, *segment, [up, down], *downtime);
                }
            }
            Action::RouteSet { targets, route } => {
                for machine in targets {
                    self.with_machine(*machine, |machine, _| machine.set_route(route));
                }
            }
            Action::RouteDelete { targets, to, table } => {
                for machine in targets {
                    self.with_machine(*machine, |machine, _| machine.delete_route(*to, *table));
                }
            }
            Action::ClockJump { targets, by } => {
                for machine in targets {
                    self.with_machine(*machine, |machine, net| machine.jump(net, *by));
                }
            }
        }
    }

    fn mark(&mut self, words: &str) {
        self.telling.mark(self.net.now, words.to_owned());
        if let Some(watch) = &mut self.net.watch {
            watch.happened(self.net.now, words);
        }
    }

    /// The programs of a host hang.
    fn hang(&mut self, machine: usize, downtime: Option<Duration>) {
        self.go_away(machine);
        self.with_host(machine, |host, way| host.set_hung(way, true));
        self.later(downtime, Undoing::Wake { machine });
    }

    /// The agent of a host says something else.
    fn set_agent(&mut self, machine: Option<usize>, agent: &AgentModel, downtime: Option<Duration>) {
        let Some(machine) = machine else { return };
        self.agents.insert(machine, agent.clone());
        self.later(downtime, Undoing::Agent { machine });
    }

    /// The time of something is over.
    pub(super) fn undo(&mut self, index: usize) {
        let Some(undoing) = self.undoings.get(index).cloned() else { return };
        match undoing {
            Undoing::Start { machine } => self.start(machine),
            Undoing::Wake { machine } => {
                self.absences.end(self.net.now, addresses(self.scenario, machine));
                self.with_host(machine, |host, way| host.set_hung(way, false));
            }
            Undoing::Speed { machine } => {
                self.with_host(machine, |host, way| host.set_slowness(way, NORMAL_THOUSANDTHS));
            }
            Undoing::Agent { machine } => {
                let written = self.scenario.hosts.get(machine).and_then(|host| host.agent.clone());
                match written {
                    Some(agent) => drop(self.agents.insert(machine, agent)),
                    None => drop(self.agents.remove(&machine)),
                }
            }
            Undoing::Weight { forwarder, director, server, weight } => {
                self.set_weight(forwarder, &director, &server, weight);
            }
            Undoing::LinkUp { machine, segment } => {
                self.absences.end(self.net.now, addresses(self.scenario, machine));
                self.set_link(machine, segment, true);
            }
            Undoing::LinkSet { machine, segment, qualities } => {
                for ([from, to], [up, down]) in self.net.wires_of(machine, segment).into_iter().zip(qualities)
                {
                    from.set_quality(up);
                    to.set_quality(down);
                }
            }
        }
    }

    /// A server can not be reached from now on, whatever a load balancer does.
    fn go_away(&mut self, machine: usize) {
        self.absences.begin(self.net.now, addresses(self.scenario, machine));
    }

    fn later(&mut self, after: Option<Duration>, undoing: Undoing) {
        let Some(after) = after else { return };
        let event = Event::Over { undoing: number(self.undoings.len()) };
        self.undoings.push(undoing);
        self.net.schedule(self.net.now.after(after), event);
    }

    fn stop(&mut self, machine: usize) {
        self.go_away(machine);
        self.with_machine(machine, Machine::stop);
        self.collect(machine);
    }

    /// Gives a machine power again; a forwarder begins with an empty flow table and the plan that it last had.
    fn start(&mut self, machine: usize) {
        let Some(node) = self.machines.get(machine).filter(|node| !node.is_up()) else { return };
        self.absences.end(self.net.now, addresses(self.scenario, machine));
        let guests = match &node.role {
            Role::Forwarder(_) => self.supply_guests(machine),
            Role::Host(_) | Role::Router => None,
        };
        self.with_machine(machine, |machine, net| machine.power_up(net, guests));
        self.tell_checker(machine);
    }

    /// The components of a forwarder that begins anew. Without a supplier there are none, and the engine says which it
    /// lacks.
    fn supply_guests(&mut self, machine: usize) -> Option<Guests> {
        Some(self.supply(machine, None)?.guests)
    }

    fn supply(&mut self, machine: usize, config: Option<&Path>) -> Option<Equipment> {
        let first = self.scenario.hosts.len() + self.scenario.routers.len();
        let supplier = self.supplier.as_mut()?;
        match supplier.equipment(machine.checked_sub(first)?, config) {
            Ok(equipment) => Some(equipment),
            Err(error) => {
                let text = error.to_string();
                if let Some(Role::Forwarder(forwarder)) =
                    self.machines.get_mut(machine).map(|it| &mut it.role)
                {
                    forwarder.tell(text);
                }
                None
            }
        }
    }

    /// Changes the weight of a director's server on several forwarders.
    fn set_weights(
        &mut self,
        forwarders: &[usize],
        (director, server): (&str, &str),
        weight: u32,
        downtime: Option<Duration>,
    ) {
        for &forwarder in forwarders {
            let Some(weight) = self.set_weight(forwarder, director, server, weight) else { continue };
            let (director, server) = (director.to_owned(), server.to_owned());
            self.later(downtime, Undoing::Weight { forwarder, director, server, weight });
        }
    }

    fn set_weight(&mut self, machine: usize, director: &str, server: &str, weight: u32) -> Option<u32> {
        let planted = self.planted;
        let node = self.machines.get_mut(machine)?;
        let before = node.with_forwarder(&mut self.net, |forwarder, now| {
            let before = forwarder.set_weight(director, server, weight, now);
            forwarder.spoil(planted, now);
            before
        })?;
        self.tell_checker(machine);
        before
    }

    fn set_scheduler(&mut self, machine: usize, director: &str, name: &str) {
        let first = self.scenario.hosts.len() + self.scenario.routers.len();
        let Some(forwarder) = machine.checked_sub(first) else { return };
        let planned = self.forwarder_at(machine).map(|node| node.plan_scheduler(director, name));
        let made = match planned {
            // Without power nobody hears it.
            None => return,
            Some(Err(words)) => Err(words),
            Some(Ok(plan @ SchedulerPlan::Guest(_))) => match self.supplier.as_mut() {
                Some(supplier) => {
                    let guest = supplier.scheduler(forwarder, director, &plan);
                    guest.map(|guest| (plan, Some(guest))).map_err(|error| error.to_string())
                }
                None => Err(format!("{name}: nobody makes components ready in this run")),
            },
            Some(Ok(plan)) => Ok((plan, None)),
        };
        let told = self.machines.get_mut(machine).and_then(|node| {
            node.with_forwarder(&mut self.net, |forwarder, now| match made {
                Ok((plan, guest)) => forwarder.set_scheduler(director, plan, guest, now),
                Err(words) => forwarder.tell(format!("director {director}: {words}")),
            })
        });
        if told.is_some() {
            self.tell_checker(machine);
        }
    }

    fn forwarder_at(&self, machine: usize) -> Option<&ForwarderNode> {
        match &self.machines.get(machine).filter(|node| node.is_up())?.role {
            Role::Forwarder(forwarder) => Some(forwarder),
            Role::Host(_) | Role::Router => None,
        }
    }

    fn reload(&mut self, machine: usize, config: Option<&Path>) {
        let Some(Equipment { plan, guests }) = self.supply(machine, config) else { return };
        let planted = self.planted;
        self.with_machine(machine, |machine, net| {
            machine.reload(net, plan, guests);
            machine.with_forwarder(net, |forwarder, now| forwarder.spoil(planted, now));
        });
        self.tell_checker(machine);
    }

    fn set_link(&mut self, machine: usize, segment: usize, is_up: bool) {
        for wire in self.net.wires_of(machine, segment).into_iter().flatten() {
            wire.set_up(is_up);
        }
        self.with_machine(machine, |machine, net| machine.set_link(net, segment, is_up));
    }

    fn set_quality(
        &mut self,
        machine: usize,
        segment: usize,
        [up, down]: [&Quality; 2],
        downtime: Option<Duration>,
    ) {
        let mut before = Vec::new();
        for [from, to] in self.net.wires_of(machine, segment) {
            before.push([*from.quality(), *to.quality()]);
            from.set_quality(*up);
            to.set_quality(*down);
        }
        self.later(downtime, Undoing::LinkSet { machine, segment, qualities: before });
    }
}

/// The addresses that a machine has on its interfaces.
pub(super) fn addresses(scenario: &Scenario, machine: usize) -> impl Iterator<Item = IpAddr> {
    let network = scenario.machine(machine).map(|(_, _, network)| network);
    network.into_iter().flat_map(|network| &network.attachments).flat_map(|it| it.addresses.iter().copied())
}

/// The speed of a machine that is well.
const NORMAL_THOUSANDTHS: u32 = 1_000;
