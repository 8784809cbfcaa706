//! From the scenario to machines and cables.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use evenkeel_config::setup::{self, Attached, Change, Selector};
use evenkeel_engine::Instant;
use evenkeel_engine::plan::{Layer, Plan};
use evenkeel_engine::wire::Protocol;
use evenkeel_engine::wire::ethernet::MacAddress;

use super::load::LoadState;
use super::machine::{Machine, Role};
use super::telling::{Absences, Telling};
use super::{Equipment, Options, Queue, RunError, World};
use crate::checker::{Checker, Names};
use crate::forwarder::{ForwarderNode, Port, ethernet_names, real_servers};
use crate::host::Host;
use crate::kernel::{Device, InterfacePlan, KernelPlan, RouteEntry, TunPlan, Way};
use crate::net::{Event, Net, Socket};
use crate::payload::identity;
use crate::queue::{EventQueue, HeapQueue, WheelQueue};
use crate::random::Stream;
use crate::scenario::{
    Action, Attachment, Network, Route, RouteAction, Rule, Scenario, SegmentKind, Service, Subnet, TABLE_MAIN,
};
use crate::wires::{Membership, Switch, SwitchPlan, Wire};

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
        let queue: Box<dyn EventQueue<Event>> = match options.queue {
            Queue::Wheel => Box::new(WheelQueue::default()),
            Queue::Heap => Box::new(HeapQueue::default()),
        };
        let services: Vec<Service> = equipment.iter().flat_map(|one| real_servers(&one.plan)).collect();
        let mut machines = Vec::with_capacity(scenario.machine_count());
        for (number, host) in scenario.hosts.iter().enumerate() {
            let listeners = scenario.listeners(number, &services);
            let own = host.network.attachments.iter().flat_map(|it| it.addresses.clone()).collect();
            let host = Host::new(number, host, seed, own, listeners)
                .map_err(|error| RunError::Law { what: format!("host {}", host.name), error })?;
            let role = Role::Host(host);
            let Some((_, _, network)) = scenario.machine(number) else { continue };
            let plan = told(scenario, number, network);
            machines.push(machine(scenario, number, seed, (plan.clone(), plan), role));
        }
        for router in &scenario.routers {
            let plan = told(scenario, machines.len(), &router.network);
            machines.push(machine(scenario, machines.len(), seed, (plan.clone(), plan), Role::Router));
        }
        for (forwarder, equipment) in scenario.forwarders.iter().zip(equipment) {
            let (plans, role) = equip(scenario, machines.len(), &forwarder.network, equipment)?;
            machines.push(machine(scenario, machines.len(), seed, plans, role));
        }
        let loads = scenario.loads.iter().map(|load| {
            let what = || format!("load {}", load.name);
            LoadState::new(load, seed).map_err(|error| RunError::Law { what: what(), error })
        });
        let telling = Telling::new(scenario, super::nodes(&machines));
        let mut world = Self {
            scenario,
            seed,
            net: Net::new(queue),
            machines,
            loads: loads.collect::<Result<_, _>>()?,
            answers: BTreeMap::new(),
            identities: identities(scenario),
            undoings: Vec::new(),
            fates: (0..scenario.timeline.len())
                .map(|index| Stream::new(seed, &format!("timeline.{index}"), "fate"))
                .collect(),
            telling,
            absences: Absences::default(),
            supplier: None,
        };
        world.lay_cables();
        if !options.is_unchecked {
            let is_corrupting = world.net.cables.iter().flat_map(|cable| &cable.wires).any(is_corrupting)
                || scenario.timeline.iter().any(|one| matches!(one.action, Action::LinkSet { .. }));
            let checker = Checker::new(names(scenario, &world.machines), is_corrupting);
            world.net.checker = Some(Box::new(checker));
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
    plans: (KernelPlan, KernelPlan),
    role: Role,
) -> Machine {
    let Some((name, _, network)) = scenario.machine(number) else {
        return Machine::new(number, "", seed, plans, Vec::new(), role);
    };
    let segments = network.attachments.iter().map(|attachment| attachment.segment).collect();
    Machine::new(number, name, seed, plans, segments, role)
}

/// Who says which word of itself in a response; of two with the same word the first is meant.
fn identities(scenario: &Scenario) -> BTreeMap<u32, IpAddr> {
    let mut identities = BTreeMap::new();
    for host in &scenario.hosts {
        let plugged = host.network.attachments.iter().flat_map(|attachment| &attachment.addresses);
        for address in plugged.chain(&host.network.loopback) {
            identities.entry(identity(*address)).or_insert(*address);
        }
    }
    identities
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
            names.station_of(number, mac(number, place), matches!(machine.role, Role::Forwarder(_)));
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

/// What the kernel of a machine is told by the scenario.
fn told(scenario: &Scenario, number: usize, network: &Network) -> KernelPlan {
    let interface = |(place, attachment): (usize, &Attachment)| {
        let segment = scenario.segments.get(attachment.segment);
        let length = |address: &IpAddr| {
            let subnets = segment.into_iter().flat_map(|segment| &segment.subnets);
            let holds = |subnet: &&Subnet| subnet.contains(*address);
            subnets
                .into_iter()
                .find(holds)
                .map_or_else(|| if address.is_ipv4() { 32 } else { 128 }, |subnet| subnet.length)
        };
        let addresses = attachment.addresses.iter().map(|it| Subnet { address: *it, length: length(it) });
        InterfacePlan {
            name: attachment.interface.clone(),
            mac: mac(number, place),
            mtu_bytes: attachment.mtu_bytes,
            addresses: addresses.collect(),
        }
    };
    let gateways = network.gateways.iter().map(|gateway| RouteEntry {
        to: everywhere(gateway.is_ipv4()),
        table: TABLE_MAIN,
        way: Way::Via(vec![(*gateway, 1)]),
    });
    let position = |name: &String| network.attachments.iter().position(|it| it.interface == *name);
    KernelPlan {
        interfaces: network.attachments.iter().enumerate().map(interface).collect(),
        tuns: Vec::new(),
        loopback: network.loopback.clone(),
        routes: gateways.chain(network.routes.iter().map(route)).collect(),
        rules: network.rules.clone(),
        sysctl: network.sysctl,
        ecmp: network.ecmp,
        masquerade: network.masquerade.iter().filter_map(position).collect(),
        proxies: Vec::new(),
        decapsulates: network.decapsulates,
    }
}

/// The station of a machine's interface: locally administered, by number.
fn mac(machine: usize, interface: usize) -> [u8; 6] {
    let [_, m1, m2, m3] = u32::try_from(machine).unwrap_or(u32::MAX).to_be_bytes();
    let [_, i3] = u16::try_from(interface).unwrap_or(u16::MAX).to_be_bytes();
    [2, 0, m1, m2, m3, i3]
}

const fn everywhere(is_v4: bool) -> Subnet {
    let address = if is_v4 { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    Subnet { address, length: 0 }
}

/// A route of the scenario, as a kernel has it.
pub(super) fn route(route: &Route) -> RouteEntry {
    let way = match &route.action {
        RouteAction::Via(gateways) => Way::Via(gateways.clone()),
        RouteAction::Blackhole => Way::Blackhole,
        RouteAction::Unreachable => Way::Unreachable,
    };
    RouteEntry { to: route.to, table: route.table, way }
}

/// A forwarder's kernel and engine: the production configuration, on a machine that is set up for it as a real one is.
fn equip(
    scenario: &Scenario,
    number: usize,
    network: &Network,
    equipment: Equipment,
) -> Result<((KernelPlan, KernelPlan), Role), RunError> {
    let forwarder = scenario.machine(number).map_or_else(String::new, |(name, ..)| name.to_owned());
    let Equipment { plan, guests } = equipment;
    if plan.interfaces.is_empty() {
        return Err(RunError::NoInterface { forwarder });
    }
    let plan =
        setup::spread(&plan).map_err(|reason| RunError::Spread { forwarder: forwarder.clone(), reason })?;
    let mut plan = plan;
    let own = told(scenario, number, network);
    claim_stations(&mut plan, &own);
    let ports = ports(&plan, &own)
        .map_err(|interface| RunError::NoAttachment { forwarder: forwarder.clone(), interface })?;
    if let Some((address, first)) = taken(scenario, &plan) {
        return Err(RunError::AddressTaken { address, first, forwarder });
    }
    let kernel = told_by(&plan, own.clone());
    let node = ForwarderNode::new(plan, guests, ports, Instant::ZERO)
        .map_err(|error| RunError::Plan { forwarder, error })?;
    Ok(((own, kernel), Role::Forwarder(Box::new(node))))
}

/// What each interface of a plan is on the machine; the error is the name of one that it has not.
pub(super) fn ports(plan: &Plan, kernel: &KernelPlan) -> Result<Vec<Port>, String> {
    let mut tuns = 0..;
    let port = |interface: &evenkeel_engine::plan::InterfacePlan| match interface.layer {
        Layer::Ip => tuns.next().map(Port::Tun).ok_or_else(|| interface.name.clone()),
        Layer::Ethernet(_) => {
            let place = kernel.interfaces.iter().position(|own| own.name == interface.name);
            place.map(Port::Ethernet).ok_or_else(|| interface.name.clone())
        }
    };
    plan.interfaces.iter().map(port).collect()
}

/// What a kernel is told by a plan besides: the changes that `setup = "auto"` makes on a real one.
pub(super) fn told_by(plan: &Plan, mut kernel: KernelPlan) -> KernelPlan {
    let is_ip = |layer: &Layer| matches!(layer, Layer::Ip);
    kernel.tuns = plan.interfaces.iter().filter(|interface| is_ip(&interface.layer)).map(tun).collect();
    let engines: Vec<&str> =
        plan.interfaces.iter().filter(|it| !is_ip(&it.layer)).map(|it| it.name.as_str()).collect();
    for interface in kernel.interfaces.iter_mut().filter(|own| engines.contains(&own.name.as_str())) {
        // The engine's interfaces have no addresses of the kernel's.
        interface.addresses.clear();
    }
    let attached: Vec<Attached> = attached(&kernel).collect();
    for change in setup::plan_of_changes(plan, &attached) {
        make(&mut kernel, change);
    }
    kernel
}

fn tun(interface: &evenkeel_engine::plan::InterfacePlan) -> TunPlan {
    TunPlan {
        name: interface.name.clone(),
        mtu_bytes: interface.mtu_bytes,
        addresses: Vec::new(),
        is_trusted: true,
    }
}

/// The networks in which neighbours ask for addresses.
fn attached(kernel: &KernelPlan) -> impl Iterator<Item = Attached> + '_ {
    kernel.interfaces.iter().flat_map(|interface| {
        interface.addresses.iter().map(move |subnet| {
            let Subnet { address, length } = *subnet;
            Attached { interface: interface.name.clone(), address, length }
        })
    })
}

/// Makes one change of the setup on a simulated kernel.
fn make(kernel: &mut KernelPlan, change: Change) {
    match change {
        Change::Sysctl { key, value } => {
            if key == "net/ipv4/ip_forward" || key == "net/ipv6/conf/all/forwarding" {
                kernel.sysctl.ip_forward |= value == "1";
            }
        }
        // The MTU of a TUN is the plan's already, and frames of the engine's interfaces do not reach this kernel.
        Change::Link { .. } | Change::Up { .. } | Change::Ignore { .. } => {}
        Change::Address { interface, address, length } => {
            if let Some(tun) = kernel.tuns.iter_mut().find(|tun| tun.name == interface) {
                tun.addresses.push(Subnet { address, length });
            }
        }
        Change::Route { destination, length, interface, table } => {
            if let Some(device) = kernel.device(&interface) {
                let to = Subnet { address: destination, length };
                kernel.routes.push(RouteEntry { to, table, way: Way::On(device) });
            }
        }
        Change::NextHop { address, table } => {
            let to = everywhere(address.is_ipv4());
            kernel.routes.push(RouteEntry { to, table, way: Way::Via(vec![(address, 1)]) });
        }
        Change::Rule { is_v6, priority, selector, table } => {
            kernel.rules.push(rule(is_v6, priority, selector, table));
        }
        Change::ProxyNeighbour { address, interface } => {
            if let Some(Device::Interface(number)) = kernel.device(&interface) {
                kernel.proxies.push((number, address));
            }
        }
    }
}

fn rule(is_v6: bool, priority: u32, selector: Selector, table: u32) -> Rule {
    let family = Some(everywhere(!is_v6));
    let empty = Rule {
        priority,
        interface: None,
        from: None,
        to: family,
        protocol: None,
        source_ports: None,
        destination_ports: None,
        table,
    };
    match selector {
        Selector::Interface(name) => Rule { interface: Some(name), ..empty },
        Selector::Replies { address, protocol, ports } => Rule {
            from: Some(Subnet { address, length: if address.is_ipv4() { 32 } else { 128 } }),
            protocol: protocol.map(Protocol),
            source_ports: ports,
            ..empty
        },
    }
}

/// The engine's interfaces on Ethernet have the stations of the machine's, whatever its configuration says: two machines
/// may share a file.
pub(super) fn claim_stations(plan: &mut Plan, kernel: &KernelPlan) {
    for interface in &mut plan.interfaces {
        let own = kernel.interfaces.iter().find(|own| own.name == interface.name);
        if let (Layer::Ethernet(station), Some(own)) = (&mut interface.layer, own) {
            *station = MacAddress(own.mac);
        }
    }
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
