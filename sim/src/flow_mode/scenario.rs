//! From a scenario to a setup: the same file runs in packet mode and in flow mode.
//!
//! In: a checked [`Scenario`] and the equipment of its forwarders. Out: a [`Setup`] in which clients, arrivals, service
//! times and the moments of the timeline are those of packet mode, drawn from the same streams. Segments, links and
//! routes other than those to forwarders have no meaning here.

use std::collections::BTreeMap;
use std::net::IpAddr;

use evenkeel_engine::Duration;
use evenkeel_engine::plan::{DirectorPlan, Plan};

use super::setup::{
    Beginnings, Change, Clients, Connections, Extent, ForwarderSetup, Keys, LoadSetup, MachineSetup,
    RouterSetup, Session, Setup, SetupError, Timed,
};
use super::steering::Steering;
use crate::random::Stream;
use crate::scenario::{
    self, Action, Discipline, Ecmp, Happening, Load, Route, RouteAction, Scenario, Service, When,
};
use crate::work::{self, Law, QueueSpec};
use crate::world::Equipment;

/// What every request to a machine is worth whose programs answer at once.
const AT_ONCE: Law = Law::Fixed { value: 0 };
/// The speed of a machine that is well, in millionths.
const FULL_MILLIONTHS: u32 = 1_000_000;

/// The setup of a scenario, and its forwarders.
///
/// # Errors
/// When a load calls an address that no forwarder serves, or the timeline asks for what is only in packet mode.
pub(super) fn translate(
    scenario: &Scenario,
    equipment: Vec<Equipment>,
    seed: u64,
) -> Result<(Setup, Vec<ForwarderSetup>), SetupError> {
    let plans: Vec<&Plan> = equipment.iter().map(|one| &one.plan).collect();
    let machines = Machines::of(scenario, &plans);
    let mut routers = Routers::default();
    let mut callers = Callers::default();
    let loads = scenario.loads.iter().map(|load| {
        let router = routers.of_service(scenario, &plans, load)?;
        Ok(load_setup(scenario, load, router, &mut callers))
    });
    let loads = loads.collect::<Result<Vec<_>, SetupError>>()?;
    let mut timeline = Vec::new();
    for (index, happening) in scenario.timeline.iter().enumerate() {
        let mut draw = Stream::new(seed, &format!("timeline.{index}"), "fate");
        for at in moments(&happening.when, scenario.duration, &mut draw) {
            let happens = Happens { scenario, routers: &routers, machines: &machines, at };
            timeline.extend(happens.changes(happening, &mut draw)?);
        }
    }
    let setup = Setup {
        seed,
        duration: scenario.duration,
        warmup: scenario.warmup,
        machines: machines.setups,
        callers: callers.names,
        loads,
        routers: routers.setups,
        connections: Connections::Timed,
        timeline,
        churn: None,
    };
    let named = scenario.forwarders.iter().zip(equipment);
    let forwarders = named.map(|(written, Equipment { plan, guests })| {
        let name = written.name.clone();
        ForwarderSetup { name, plan, guests }
    });
    Ok((setup, forwarders.collect()))
}

/// The hosts that are real servers.
struct Machines {
    setups: Vec<MachineSetup>,
    /// The name of the machine of each host that is one.
    names: BTreeMap<usize, String>,
}

impl Machines {
    fn of(scenario: &Scenario, plans: &[&Plan]) -> Self {
        let servers = || plans.iter().flat_map(|plan| &plan.directors).flat_map(|director| &director.servers);
        let (mut setups, mut names) = (Vec::new(), BTreeMap::new());
        for (number, host) in scenario.hosts.iter().enumerate() {
            let own = host.network.attachments.iter().flat_map(|attachment| &attachment.addresses);
            let own = own.chain(&host.network.loopback).copied();
            let mut addresses: Vec<IpAddr> =
                own.filter(|own| servers().any(|server| server.address == *own)).collect();
            addresses.sort_unstable();
            addresses.dedup();
            if addresses.is_empty() {
                continue;
            }
            let (queue, work) = match &host.service {
                Some(model) => (queue(model), model.time.clone()),
                None => (QueueSpec::default(), AT_ONCE),
            };
            let agent = host.agent.clone();
            names.insert(number, host.name.clone());
            setups.push(MachineSetup { name: host.name.clone(), addresses, queue, work: Some(work), agent });
        }
        Self { setups, names }
    }
}

const fn queue(model: &scenario::ServiceModel) -> QueueSpec {
    let discipline = match model.discipline {
        Discipline::Fcfs => work::Discipline::Fcfs,
        Discipline::Ps => work::Discipline::Ps,
    };
    QueueSpec { discipline, cores: model.cores, backlog: model.backlog }
}

/// The routers that loads go by: one for each machine that spreads flows, and one for each set of forwarders without.
#[derive(Default)]
struct Routers {
    setups: Vec<RouterSetup>,
    /// The number of the machine, and the address whose route has the ways; none where no machine spreads.
    places: Vec<Option<(usize, IpAddr)>>,
}

impl Routers {
    /// The place of the router in front of the forwarders of a service.
    fn of_service(&mut self, scenario: &Scenario, plans: &[&Plan], load: &Load) -> Result<u16, SetupError> {
        let serving: Vec<u16> = plans
            .iter()
            .zip(0..)
            .filter(|(plan, _)| serves(plan, load.service))
            .map(|(_, place)| place)
            .collect();
        if serving.is_empty() {
            let name = load.name.clone();
            return Err(SetupError::NoService { name, service: load.service.to_string() });
        }
        let (setup, place) = if serving.len() == 1 {
            (RouterSetup { steering: Steering::Modulo, forwarders: serving }, None)
        } else {
            spreading(scenario, load)?
        };
        let known = self.setups.iter().zip(&self.places).position(|(one, at)| *one == setup && *at == place);
        let found = known.unwrap_or_else(|| {
            self.setups.push(setup);
            self.places.push(place);
            self.setups.len() - 1
        });
        // There are at most as many as loads.
        Ok(u16::try_from(found).unwrap_or(u16::MAX))
    }
}

fn serves(plan: &Plan, service: Service) -> bool {
    let Service { address, port, protocol } = service;
    let binds = plan.directors.iter().flat_map(|director: &DirectorPlan| &director.binds);
    binds.into_iter().any(|bind| bind.serves(address, port, protocol))
}

/// The machine that has several ways to a service, and these.
fn spreading(scenario: &Scenario, load: &Load) -> Result<(RouterSetup, Option<(usize, IpAddr)>), SetupError> {
    let address = load.service.address;
    for (number, router) in scenario.routers.iter().enumerate() {
        let leading = router.network.routes.iter().filter(|route| route.to.contains(address));
        let Some(route) = leading.max_by_key(|route| route.to.length) else { continue };
        let forwarders = ways(scenario, route);
        if forwarders.is_empty() {
            continue;
        }
        let steering = match router.network.ecmp {
            Ecmp::Modulo => Steering::Modulo,
            Ecmp::HashThreshold => Steering::Threshold,
            // Both move the flows of a way that is gone, and no others.
            Ecmp::Rendezvous | Ecmp::Resilient => Steering::HighestRandomWeight,
        };
        let machine = scenario.hosts.len() + number;
        return Ok((RouterSetup { steering, forwarders }, Some((machine, address))));
    }
    Err(SetupError::NoWays { name: load.name.clone(), service: load.service.to_string() })
}

/// The forwarders that a route leads to.
fn ways(scenario: &Scenario, route: &Route) -> Vec<u16> {
    let RouteAction::Via(gateways) = &route.action else { return Vec::new() };
    let at = |address: &IpAddr| {
        let has = |forwarder: &scenario::Forwarder| {
            forwarder.network.attachments.iter().any(|attachment| attachment.addresses.contains(address))
        };
        scenario.forwarders.iter().position(has).and_then(|place| u16::try_from(place).ok())
    };
    gateways.iter().filter_map(|(address, _)| at(address)).collect()
}

/// The hosts that call.
#[derive(Default)]
struct Callers {
    names: Vec<String>,
    places: BTreeMap<usize, u32>,
}

impl Callers {
    fn place(&mut self, scenario: &Scenario, host: usize) -> u32 {
        *self.places.entry(host).or_insert_with(|| {
            self.names.push(scenario.hosts.get(host).map_or_else(String::new, |host| host.name.clone()));
            u32::try_from(self.names.len() - 1).unwrap_or(u32::MAX)
        })
    }
}

fn load_setup(scenario: &Scenario, load: &Load, router: u16, callers: &mut Callers) -> LoadSetup {
    let Service { address, port, protocol } = load.service;
    let of_family = |host: usize| {
        let network = &scenario.hosts.get(host)?.network;
        let own = network.attachments.iter().flat_map(|attachment| &attachment.addresses);
        own.chain(&network.loopback).find(|own| own.is_ipv4() == address.is_ipv4()).copied()
    };
    let calling = load.clients.iter().filter_map(|host| Some((*host, of_family(*host)?)));
    let calling: Vec<(usize, IpAddr)> = calling.collect();
    let session = if load.exchange.rounds <= 1 {
        Session::Request
    } else {
        let gap = match nanoseconds(load.exchange.pause) {
            0 => AT_ONCE,
            mean => Law::Exponential { mean },
        };
        Session::Requests { count: Law::Fixed { value: load.exchange.rounds.into() }, gap }
    };
    LoadSetup {
        name: load.name.clone(),
        address,
        port,
        protocol,
        clients: Clients::default(),
        callers: calling.into_iter().map(|(host, own)| (callers.place(scenario, host), own)).collect(),
        router,
        keys: Keys::Fresh,
        arrivals: Beginnings::Openings(load.arrivals),
        start: load.start,
        extent: match load.extent {
            scenario::Extent::Flows(flows) => Extent::Sessions(flows),
            // A flow may open at the end itself.
            scenario::Extent::Duration(duration) => {
                Extent::Until(load.start + duration + Duration::from_nanos(1))
            }
        },
        session,
        work: AT_ONCE,
    }
}

/// When an entry of the timeline happens, in order; drawn as packet mode draws it.
fn moments(when: &When, end: Duration, draw: &mut Stream) -> Vec<Duration> {
    match when {
        When::At(at) => vec![*at],
        When::Every { start, gap, is_random, count } => {
            let (mut at, mut all) = (*start, Vec::new());
            for _ in 0..*count {
                if *is_random {
                    at += draw.exponential(*gap);
                }
                if at > end {
                    break;
                }
                all.push(at);
                if !is_random {
                    at += *gap;
                }
            }
            all
        }
        When::Within { from, to, count } => {
            let span = nanoseconds(to.saturating_sub(*from));
            let moment = |_| *from + Duration::from_nanos(draw.below(span.saturating_add(1)));
            let mut all: Vec<Duration> = (0..*count).map(moment).collect();
            all.sort_unstable();
            all
        }
    }
}

/// An entry of the timeline at one of its moments.
struct Happens<'s> {
    scenario: &'s Scenario,
    routers: &'s Routers,
    machines: &'s Machines,
    at: Duration,
}

impl Happens<'_> {
    /// What changes, and what changes back.
    fn changes(&self, happening: &Happening, draw: &mut Stream) -> Result<Vec<Timed>, SetupError> {
        let action = &happening.action;
        let mut changes = Vec::new();
        let mut for_a_time = |[change, back]: [Change; 2], downtime: Option<Duration>| {
            changes.push(Timed { at: self.at, change });
            changes.extend(downtime.map(|time| Timed { at: self.at + time, change: back }));
        };
        match action {
            Action::Stop { targets, downtime } => {
                let Some(target) = pick(draw, targets) else { return Ok(changes) };
                for_a_time(self.power(action, *target)?, *downtime);
            }
            Action::Start { targets } => {
                for target in targets {
                    let [_, back] = self.power(action, *target)?;
                    changes.push(Timed { at: self.at, change: back });
                }
            }
            Action::Hang { targets, downtime } => {
                let Some(target) = pick(draw, targets) else { return Ok(changes) };
                for_a_time(self.speeds(action, *target, 0)?, *downtime);
            }
            Action::Slow { targets, factor_thousandths, downtime } => {
                let Some(target) = pick(draw, targets) else { return Ok(changes) };
                let speed = 1_000_000_000 / (*factor_thousandths).max(1);
                for_a_time(self.speeds(action, *target, speed)?, *downtime);
            }
            Action::Agent { targets, agent, downtime } => {
                let Some(target) = pick(draw, targets) else { return Ok(changes) };
                let Some(machine) = self.machines.names.get(target) else {
                    return Err(self.only_packets(action, " to what is no real server"));
                };
                let written = self.scenario.hosts.get(*target).and_then(|host| host.agent.clone());
                let says = |agent| Change::Agent { machine: machine.clone(), agent };
                for_a_time([says(Some(agent.clone())), says(written)], *downtime);
            }
            Action::Weight { forwarders, director, servers, weight, downtime } => {
                let Some(server) = pick(draw, servers) else { return Ok(changes) };
                let told = forwarders.iter().filter_map(|number| self.scenario.machine(*number));
                changes.extend(told.map(|(forwarder, ..)| Timed {
                    at: self.at,
                    change: Change::ServerWeight {
                        forwarder: forwarder.to_owned(),
                        director: director.clone(),
                        server: server.clone(),
                        weight: *weight,
                        lasting: *downtime,
                    },
                }));
            }
            Action::RouteSet { targets, route } => {
                for target in targets {
                    changes.extend(self.routes(action, *target, route)?);
                }
            }
            Action::Scheduler { .. }
            | Action::Reload { .. }
            | Action::LinkDown { .. }
            | Action::LinkUp { .. }
            | Action::LinkSet { .. }
            | Action::RouteDelete { .. }
            | Action::ClockJump { .. } => return Err(self.only_packets(action, "")),
        }
        Ok(changes)
    }

    fn only_packets(&self, action: &Action, why: &str) -> SetupError {
        SetupError::OnlyPackets { at: self.at, what: action.words(), why: why.to_owned() }
    }

    /// A machine loses power, and has it back.
    fn power(&self, action: &Action, target: usize) -> Result<[Change; 2], SetupError> {
        if let Some(name) = self.machines.names.get(&target) {
            let machine = name.clone();
            return Ok([Change::Stop { machine: machine.clone() }, Change::Start { machine }]);
        }
        let first = self.scenario.hosts.len() + self.scenario.routers.len();
        let forwarder = target.checked_sub(first).and_then(|place| self.scenario.forwarders.get(place));
        let Some(forwarder) = forwarder else {
            return Err(self.only_packets(action, " to what is neither real server nor forwarder"));
        };
        Ok([false, true].map(|is_up| Change::Power { forwarder: forwarder.name.clone(), is_up }))
    }

    /// The programs of a host run at another speed, and at their own again.
    fn speeds(&self, action: &Action, target: usize, millionths: u32) -> Result<[Change; 2], SetupError> {
        let Some(machine) = self.machines.names.get(&target) else {
            return Err(self.only_packets(action, " to what is no real server"));
        };
        Ok([millionths, FULL_MILLIONTHS]
            .map(|millionths| Change::Speed { machine: machine.clone(), millionths }))
    }

    /// A router that spreads flows has other ways.
    fn routes(&self, action: &Action, target: usize, route: &Route) -> Result<Vec<Timed>, SetupError> {
        let is_its = |place: &&Option<(usize, IpAddr)>| {
            place.is_some_and(|(machine, service)| machine == target && route.to.contains(service))
        };
        let forwarders = ways(self.scenario, route);
        let its = self.routers.places.iter().zip(0..).filter(|(place, _)| is_its(place));
        let changes: Vec<Timed> = its
            .map(|(_, router)| Timed {
                at: self.at,
                change: Change::Routes { router, forwarders: forwarders.clone() },
            })
            .collect();
        if changes.is_empty() {
            return Err(self.only_packets(action, " other than from a router to forwarders"));
        }
        Ok(changes)
    }
}

/// One of several, drawn as packet mode draws it.
fn pick<'t, T>(draw: &mut Stream, targets: &'t [T]) -> Option<&'t T> {
    let count = u64::try_from(targets.len()).unwrap_or(u64::MAX);
    let place = if count > 1 { draw.below(count) } else { 0 };
    targets.get(usize::try_from(place).unwrap_or(0))
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
