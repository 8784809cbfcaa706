//! From the scenario to machines and cables.

use std::collections::BTreeMap;
use std::net::IpAddr;

use evenkeel_config::setup;
use evenkeel_engine::Instant;
use evenkeel_engine::plan::Plan;

use super::bridges::Bridges;
use super::load::LoadState;
use super::machine::{Machine, Role};
use super::setting::{Told, station};
use super::telling::{Absences, Identities, Telling};
use super::timeline::addresses;
use super::{Equipment, Options, Queue, RunError, World};
use crate::checker::{Checker, Names};
use crate::forwarder::{ForwarderNode, ethernet_names, real_servers};
use crate::host::Host;
use crate::kernel::plan::KernelPlan;
use crate::net::{Due, Net, Socket};
use crate::payload::identity;
use crate::queue::{AnyQueue, HeapQueue};
use crate::scenario::{Action, Attachment, Network, Scenario, SegmentKind, Service, Turn, When};
use crate::wires::{Membership, Switch, SwitchPlan, Wire};
use crate::work::AgentModel;

impl<'a> World<'a> {
    /// Builds everything, with nothing under way.
    pub(super) fn new(
        scenario: &'a Scenario,
        equipment: Vec<Equipment>,
        options: Options,
    ) -> Result<Self, RunError> {
        let (wanted, given) = (scenario.forwarders.len(), equipment.len());
        if wanted != given {
            return Err(RunError::Equipment { wanted, given });
        }
        let seed = options.seed.unwrap_or(scenario.seed);
        let services: Vec<Service> = equipment.iter().flat_map(|one| real_servers(&one.plan)).collect();
        let mut machines = Vec::with_capacity(scenario.machine_count());
        for (number, host) in scenario.hosts.iter().enumerate() {
            let listeners = scenario.listeners(number, &services);
            let own = host.network.attachments.iter().flat_map(|it| it.addresses.clone()).collect();
            let host = Host::new(number, host, seed, own, listeners)
                .map_err(|error| RunError::Law { what: format!("host {}", host.name), error })?;
            let role = Role::Host(host);
            let Some((_, _, network)) = scenario.machine(number) else { continue };
            let told = Told::by(scenario, number, network);
            let plan = told.alone();
            machines.push(machine(scenario, number, seed, (told, &plan), role)?);
        }
        for router in &scenario.routers {
            let told = Told::by(scenario, machines.len(), &router.network);
            let plan = told.alone();
            machines.push(machine(scenario, machines.len(), seed, (told, &plan), Role::Router)?);
        }
        let mut bridges = Bridges::default();
        for (forwarder, equipment) in scenario.forwarders.iter().zip(equipment) {
            bridges.add(scenario, machines.len(), &equipment.plan)?;
            let (told, plan, role) = equip(scenario, machines.len(), &forwarder.network, equipment)?;
            machines.push(machine(scenario, machines.len(), seed, (told, &plan), role)?);
        }
        let loads = scenario.loads.iter().map(|load| {
            let what = || format!("load {}", load.name);
            LoadState::new(load, seed).map_err(|error| RunError::Law { what: what(), error })
        });
        let telling = Telling::new(scenario, super::nodes(&machines));
        let mut world = Self {
            scenario,
            seed,
            net: Net::new(queue(options.queue)),
            machines,
            loads: loads.collect::<Result<_, _>>()?,
            answers: BTreeMap::new(),
            identities: identities(scenario, &telling),
            hosts: hosts(scenario),
            agents: agents(scenario),
            undoings: Vec::new(),
            turns: vec![Turn::default(); scenario.timeline.len()],
            fates: (0..scenario.timeline.len()).map(|index| When::fate(seed, index)).collect(),
            telling,
            absences: Absences::default(),
            planted: options.planted,
            supplier: None,
        };
        world.lay_cables();
        if !options.is_unchecked {
            let is_corrupting = world.net.cables.iter().flat_map(|cable| &cable.wires).any(is_corrupting)
                || scenario.timeline.iter().any(|one| matches!(one.action, Action::LinkSet { .. }));
            let checker = Checker::new(names(scenario, &world.machines), is_corrupting);
            world.net.checker = Some(Box::new(checker));
            (0..world.machines.len()).for_each(|machine| world.tell_checker(machine));
        }
        Ok(world)
    }

    /// A switch for each segment with its cables, or the one cable that the segment is.
    fn lay_cables(&mut self) {
        for (segment, written) in self.scenario.segments.iter().enumerate() {
            let plugged = plugged_into(self.scenario, segment);
            match (written.kind, &plugged[..]) {
                (SegmentKind::Cable, [first, second]) => {
                    let wires = [self.wire(first, segment, true), self.wire(second, segment, true)];
                    self.net.add_cable(segment, [first.socket(), second.socket()], wires);
                }
                (SegmentKind::Cable | SegmentKind::Switch, _) => {
                    let vlans = plugged.iter().map(|one| Membership::Access(one.attachment.vlan)).collect();
                    let switch =
                        self.net.add_switch(Switch::new(SwitchPlan { ports: vlans, ..SwitchPlan::plain(0) }));
                    for (port, one) in plugged.iter().enumerate() {
                        let wires = [self.wire(one, segment, true), self.wire(one, segment, false)];
                        self.net.add_cable(segment, [one.socket(), Socket::Switch { switch, port }], wires);
                    }
                }
            }
        }
    }

    /// One direction of the cable between a machine and a segment.
    fn wire(&self, plugged: &Plugged<'_>, segment: usize, is_up: bool) -> Wire {
        let (up, down) = self.scenario.quality(plugged.machine, segment);
        let name = self.scenario.machine(plugged.machine).map_or("", |(name, _, _)| name);
        let name = format!("{name}@{}", plugged.attachment.interface);
        let (quality, direction) = if is_up { (up, "up") } else { (down, "down") };
        Wire::new(quality, self.seed, &name, direction)
    }
}

/// The host of each address that hosts have on their interfaces.
fn hosts(scenario: &Scenario) -> BTreeMap<IpAddr, usize> {
    let each = 0..scenario.hosts.len();
    each.flat_map(|host| addresses(scenario, host).map(move |address| (address, host))).collect()
}

fn queue(wanted: Queue) -> AnyQueue<Due> {
    match wanted {
        Queue::Wheel => AnyQueue::Wheel(Box::default()),
        Queue::Heap => AnyQueue::Heap(HeapQueue::default()),
    }
}

/// What the agents of hosts say, where they have one.
fn agents(scenario: &Scenario) -> BTreeMap<usize, AgentModel> {
    let each = scenario.hosts.iter().enumerate();
    each.filter_map(|(number, host)| Some((number, host.agent.clone()?))).collect()
}

/// A machine's end of a cable.
struct Plugged<'s> {
    machine: usize,
    interface: usize,
    attachment: &'s Attachment,
}

impl Plugged<'_> {
    const fn socket(&self) -> Socket {
        Socket::Machine { machine: self.machine, interface: self.interface }
    }
}

fn plugged_into(scenario: &Scenario, segment: usize) -> Vec<Plugged<'_>> {
    let mut plugged = Vec::new();
    for machine in 0..scenario.machine_count() {
        let Some((_, _, network)) = scenario.machine(machine) else { continue };
        let its =
            network.attachments.iter().enumerate().filter(|(_, attachment)| attachment.segment == segment);
        plugged.extend(its.map(|(interface, attachment)| Plugged { machine, interface, attachment }));
    }
    plugged
}

fn machine(
    scenario: &Scenario,
    number: usize,
    seed: u64,
    plans: (Told, &KernelPlan),
    role: Role,
) -> Result<Machine, RunError> {
    let network = scenario.machine(number).map(|(_, _, network)| network);
    let plugged = network.into_iter().flat_map(|network| &network.attachments);
    let segments = plugged.map(|attachment| attachment.segment).collect();
    let name = plans.1.name.clone();
    Machine::new(number, seed, plans, segments, role)
        .map_err(|error| RunError::Kernel { machine: name, error })
}

/// Who says which word of itself in a response; of two with the same word the first is meant.
fn identities(scenario: &Scenario, telling: &Telling) -> Identities {
    let mut identities = BTreeMap::new();
    for host in &scenario.hosts {
        let plugged = host.network.attachments.iter().flat_map(|attachment| &attachment.addresses);
        for address in plugged.chain(&host.network.loopback) {
            identities.entry(identity(*address)).or_insert(*address);
        }
    }
    Identities::new(identities, telling)
}

fn is_corrupting(wire: &Wire) -> bool {
    wire.quality().corrupt_millionths > 0
}

/// Who is who, for the checker.
fn names(scenario: &Scenario, machines: &[Machine]) -> Names {
    let mut names = Names::default();
    for segment in &scenario.segments {
        names.segment(&segment.name);
    }
    for (number, machine) in machines.iter().enumerate() {
        let Some((name, _, network)) = scenario.machine(number) else { continue };
        names.machine(name, number < scenario.hosts.len());
        for (place, attachment) in network.attachments.iter().enumerate() {
            names.station_of(number, station(number, place).0, matches!(machine.role, Role::Forwarder(_)));
            attachment.addresses.iter().for_each(|address| names.address_of(number, *address, false));
        }
        network.loopback.iter().for_each(|address| names.address_of(number, *address, true));
        if let Role::Forwarder(forwarder) = &machine.role {
            let binds = forwarder.engine.plan().directors.iter().flat_map(|director| &director.binds);
            binds.filter(|bind| bind.network.is_host()).for_each(|bind| names.vip(bind.network.address));
        }
    }
    for client in scenario.loads.iter().flat_map(|load| &load.clients) {
        let network = scenario.machine(*client).map(|(_, _, network)| network);
        let plugged = network.into_iter().flat_map(|network| &network.attachments);
        plugged.flat_map(|attachment| &attachment.addresses).for_each(|address| names.client(*address));
    }
    names
}

/// A forwarder's kernel and engine: the production configuration, on a machine that is set up for it as a real one is.
fn equip(
    scenario: &Scenario,
    number: usize,
    network: &Network,
    equipment: Equipment,
) -> Result<(Told, KernelPlan, Role), RunError> {
    let forwarder = scenario.machine(number).map_or_else(String::new, |(name, ..)| name.to_owned());
    let Equipment { plan, guests } = equipment;
    if plan.interfaces.is_empty() {
        return Err(RunError::NoInterface { forwarder });
    }
    let mut plan =
        setup::spread(&plan).map_err(|reason| RunError::Spread { forwarder: forwarder.clone(), reason })?;
    let told = Told::by(scenario, number, network);
    told.claim_stations(&mut plan);
    let ports = told
        .ports(&plan)
        .map_err(|interface| RunError::NoAttachment { forwarder: forwarder.clone(), interface })?;
    if let Some((address, first)) = taken(scenario, &plan) {
        return Err(RunError::AddressTaken { address, first, forwarder });
    }
    let kernel = told.with(&plan);
    let node = ForwarderNode::new(plan, guests, ports, Instant::ZERO)
        .map_err(|error| RunError::Plan { forwarder, error })?;
    Ok((told, kernel, Role::Forwarder(Box::new(node))))
}

/// A VIP or source-NAT address that is a machine's own, and that machine. In the modes gateway and tunnel the VIP is the
/// real servers' as well, on their loopback interfaces.
fn taken(scenario: &Scenario, plan: &Plan) -> Option<(IpAddr, String)> {
    let services = setup::service_addresses(plan).into_iter().filter(|(_, network)| network.is_host());
    for (_, network) in services {
        let address = network.address;
        for number in 0..scenario.machine_count() {
            let Some((name, _, own)) = scenario.machine(number) else { continue };
            // An engine on Ethernet has its addresses from its own configuration.
            let plugged =
                own.attachments.iter().filter(|it| !ethernet_names(plan).any(|name| name == it.interface));
            if plugged.into_iter().any(|attachment| attachment.addresses.contains(&address)) {
                return Some((address, name.to_owned()));
            }
        }
    }
    None
}
