//! A simulated machine that runs Evenkeel: the production engine behind a simulated TUN, and around it what
//! the kernel of such a machine does.
//!
//! ```text
//! segment -> kernel: VIP, source-NAT address, reply of a real server? -> TUN -> step() -> TUN -> kernel -> segment
//!                        `-> anything else: forwarded by the routing table ------------------------^
//! ```
//! The kernel's part is the one that `setup = "auto"` arranges on a real machine: a route for each VIP and
//! each source-NAT address, a rule for the replies of each real server, and whatever comes out of the TUN
//! goes by the main table.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use evenkeel_engine::plan::{ANY_PORT, Binding, DirectorPlan, Layer, Mode, Plan, Prefix, SourceNat};
use evenkeel_engine::verdict::InterfaceId;
use evenkeel_engine::wire::Protocol;
use evenkeel_engine::{Engine, Event as EngineEvent, Guests, Instant, PlanError, step};
use serde::Serialize;

use crate::device::SimDevice;
use crate::net::{Event, Net, Routes};
use crate::packet::{self, Packet};
use crate::scenario::Service;

/// Messages of faults that are kept; the first ones say most.
const FAULTS_MAX: usize = 16;

/// What the kernel of a forwarder did on its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KernelCounts {
    /// Packets that went into the TUN.
    pub into_tun: u64,
    /// Packets that came out of the TUN and went on.
    pub out_of_tun: u64,
    /// Packets that were forwarded past the TUN.
    pub past_tun: u64,
    /// Packets to the machine itself.
    pub local: u64,
    /// Packets whose time to live ran out.
    pub ttl_exceeded: u64,
    /// Packets to which no route led.
    pub no_route: u64,
    /// Packets that found the TUN's queue full.
    pub queue_full: u64,
}

/// What the kernel sends into a TUN, and into which.
#[derive(Debug, Default)]
struct Rules {
    addresses: BTreeMap<Ipv4Addr, InterfaceId>,
    networks: Vec<(Prefix, InterfaceId)>,
    /// Source address, protocol and source port of replies; port 0 stands for any.
    replies: BTreeMap<(Ipv4Addr, Protocol, u16), InterfaceId>,
}

impl Rules {
    fn new(plan: &Plan) -> Self {
        let mut rules = Self::default();
        let is_ip = |index: &usize| {
            plan.interfaces.get(*index).is_some_and(|interface| matches!(interface.layer, Layer::Ip))
        };
        let first = (0..plan.interfaces.len()).find(is_ip).and_then(|index| u16::try_from(index).ok());
        let Some(first) = first.map(InterfaceId) else { return rules };
        let way_out = |address: IpAddr| {
            let fits = plan.routes.iter().rev().filter(|route| route.destination.contains(address));
            fits.max_by_key(|route| route.destination.length).map_or(first, |route| route.interface)
        };
        for bind in plan.directors.iter().flat_map(|director| &director.binds) {
            match bind.network.address {
                IpAddr::V4(address) if bind.network.is_host() => {
                    rules.addresses.entry(address).or_insert(first);
                }
                IpAddr::V4(_) => rules.networks.push((bind.network, first)),
                IpAddr::V6(_) => {}
            }
        }
        for director in &plan.directors {
            let Mode::Nat { sources } = &director.mode else { continue };
            let towards = director.servers.first().map_or(first, |server| way_out(server.address));
            for source in sources {
                if let IpAddr::V4(address) = source.address {
                    rules.addresses.entry(address).or_insert(towards);
                }
            }
            if sources.iter().any(is_for_all) {
                continue;
            }
            for (address, port) in servers(director) {
                for protocol in protocols(director) {
                    let key = (address, protocol, port.unwrap_or(0));
                    rules.replies.entry(key).or_insert_with(|| way_out(address.into()));
                }
            }
        }
        rules
    }

    fn find(&self, bytes: &[u8]) -> Option<InterfaceId> {
        let destination = packet::destination(bytes);
        let by_address = destination.and_then(|address| self.addresses.get(&address)).copied();
        let by_network = || {
            let to = destination?;
            self.networks
                .iter()
                .find(|(network, _)| network.contains(to.into()))
                .map(|(_, interface)| *interface)
        };
        let by_reply = || {
            let (address, protocol, port) = packet::sender(bytes)?;
            let exact = self.replies.get(&(address, protocol, port));
            exact.or_else(|| self.replies.get(&(address, protocol, 0))).copied()
        };
        by_address.or_else(by_network).or_else(by_reply)
    }
}

/// Whether no flow keeps its own source.
fn is_for_all(source: &SourceNat) -> bool {
    source.interface_in.is_none() && source.interface_out.is_none() && source.service_ports == ANY_PORT
}

/// The real servers of a director, each with its port where that is one: the one that clients call goes for it.
fn servers(director: &DirectorPlan) -> impl Iterator<Item = (Ipv4Addr, Option<u16>)> {
    let called = match &director.binds[..] {
        [bind] => bind.port(),
        _ => None,
    };
    director.servers.iter().filter_map(move |server| match server.address {
        IpAddr::V4(address) => Some((address, if server.port == 0 { called } else { Some(server.port) })),
        IpAddr::V6(_) => None,
    })
}

/// The protocols that a director serves, each once.
fn protocols(director: &DirectorPlan) -> Vec<Protocol> {
    let serves = |protocol: &Protocol| {
        let is_bound = |bind: &Binding| bind.protocol.is_none_or(|bound| bound == *protocol);
        director.binds.is_empty() || director.binds.iter().any(is_bound)
    };
    [Protocol::TCP, Protocol::UDP].into_iter().filter(serves).collect()
}

/// The services that the real servers of a plan offer. Those at whatever port the client called are not among them.
pub(crate) fn real_servers(plan: &Plan) -> Vec<Service> {
    let mut services = Vec::new();
    for director in &plan.directors {
        for (address, port) in servers(director) {
            for protocol in protocols(director) {
                services.extend(port.map(|port| Service { address, port, protocol }));
            }
        }
    }
    services
}

/// The addresses that a plan serves with: VIPs and source-NAT addresses. Networks of VIPs are not among them.
pub(crate) fn service_addresses(plan: &Plan) -> Vec<Ipv4Addr> {
    let mut addresses = Vec::new();
    for director in &plan.directors {
        let sources = match &director.mode {
            Mode::Nat { sources } => &sources[..],
            Mode::Gateway | Mode::Tunnel { .. } => &[],
        };
        let bound = director.binds.iter().filter(|bind| bind.network.is_host());
        let all = bound.map(|bind| bind.network.address).chain(sources.iter().map(|source| source.address));
        addresses.extend(all.filter_map(|address| match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }));
    }
    addresses
}

/// A machine with an engine.
pub(crate) struct ForwarderNode {
    machine: usize,
    pub(crate) engine: Engine,
    device: SimDevice,
    own: Vec<Ipv4Addr>,
    routes: Routes,
    rules: Rules,
    is_step_due: bool,
    /// When the pending timer event is due.
    timer: Instant,
    pub(crate) counts: KernelCounts,
    /// The first faults of components, in words.
    pub(crate) faults: Vec<String>,
}

impl ForwarderNode {
    /// # Errors
    /// When the engine refuses the plan.
    pub(crate) fn new(
        machine: usize,
        plan: Plan,
        guests: Guests,
        own: Vec<Ipv4Addr>,
        routes: Routes,
    ) -> Result<Self, PlanError> {
        let rules = Rules::new(&plan);
        let engine = Engine::new(plan, guests, Instant::ZERO)?;
        Ok(Self {
            machine,
            engine,
            device: SimDevice::default(),
            own,
            routes,
            rules,
            is_step_due: false,
            timer: Instant::NEVER,
            counts: KernelCounts::default(),
            faults: Vec::new(),
        })
    }

    /// The addresses that are not the machine's own and that it answers for: VIPs and source-NAT addresses.
    pub(crate) fn service_addresses(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        self.rules.addresses.keys().copied()
    }

    /// Whether no packet waits for the engine.
    pub(crate) const fn is_idle(&self) -> bool {
        !self.is_step_due
    }

    /// A packet has come from a segment.
    pub(crate) fn receive(&mut self, net: &mut Net, mut packet: Packet) {
        let Some(interface) = self.rules.find(packet.bytes()) else {
            let is_own = packet::destination(packet.bytes()).is_some_and(|to| self.own.contains(&to));
            if is_own {
                self.counts.local += 1;
                return net.recycle(packet);
            }
            let has_left = self.route(net, packet);
            self.counts.past_tun += u64::from(has_left);
            return;
        };
        if !packet::take_hop(packet.bytes_mut()) {
            self.counts.ttl_exceeded += 1;
            return net.recycle(packet);
        }
        match self.device.put(interface, packet) {
            Ok(()) => {
                self.counts.into_tun += 1;
                if !self.is_step_due {
                    self.is_step_due = true;
                    net.schedule(net.now, Event::Step { machine: self.machine });
                }
            }
            Err(packet) => {
                self.counts.queue_full += 1;
                net.recycle(packet);
            }
        }
    }

    /// The loop of the forwarder runs until nothing waits for it.
    pub(crate) fn step(&mut self, net: &mut Net) {
        self.is_step_due = false;
        loop {
            let report = step(&mut self.engine, &mut self.device, net.now);
            while let Some((_, packet)) = self.device.take() {
                let has_left = self.route(net, packet);
                self.counts.out_of_tun += u64::from(has_left);
            }
            while let Some(event) = self.engine.poll_event() {
                self.note(&event);
            }
            if report.received == 0 || !self.device.has_waiting() {
                break;
            }
        }
        let due = self.engine.poll_timeout().unwrap_or(Instant::NEVER);
        if due < self.timer {
            self.timer = due;
            net.schedule(due, Event::EngineTimer { machine: self.machine });
        }
    }

    /// The engine's timer is due.
    pub(crate) fn timeout(&mut self, net: &mut Net) {
        if net.now >= self.timer {
            self.timer = Instant::NEVER;
            self.step(net);
        }
    }

    fn note(&mut self, event: &EngineEvent) {
        if let EngineEvent::GuestFault { name, fault } = event
            && self.faults.len() < FAULTS_MAX
        {
            self.faults.push(format!("{name}: {} in {}: {}", fault.component, fault.call, fault.reason));
        }
    }

    /// Forwards a packet by the main routing table. Says whether it left.
    fn route(&mut self, net: &mut Net, mut packet: Packet) -> bool {
        let way = packet::destination(packet.bytes()).and_then(|to| self.routes.find(to));
        let Some((next_hop, port)) = way else {
            self.counts.no_route += 1;
            net.recycle(packet);
            return false;
        };
        if !packet::take_hop(packet.bytes_mut()) {
            self.counts.ttl_exceeded += 1;
            net.recycle(packet);
            return false;
        }
        net.send(port, next_hop, packet);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_engine::plan::{Builtin, InterfacePlan, RoutePlan, ServerPlan};

    fn v4(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn plan(source: Option<&str>) -> Plan {
        let mut plan = Plan::empty();
        for name in ["tun0", "tun1"] {
            plan.interfaces.push(InterfacePlan::new(name, Layer::Ip));
        }
        for (network, length, interface) in [("0.0.0.0", 0, 0), ("10.0.3.0", 24, 1)] {
            plan.routes.push(RoutePlan {
                destination: Prefix { address: v4(network), length },
                gateway: None,
                interface: InterfaceId(interface),
            });
        }
        let sources: Vec<_> =
            source.into_iter().map(|address| SourceNat::to(v4(address), 1024..=65535)).collect();
        let servers = vec![ServerPlan::new("s", v4("10.0.3.20"), 8080, 1)];
        let bind = Binding::of(v4("10.0.0.3"), 80, Protocol::TCP);
        let mut director = DirectorPlan::new("web", bind, Builtin::RoundRobin, servers);
        director.mode = Mode::Nat { sources };
        plan.directors.push(director);
        plan
    }

    fn packet(from: (&str, u16), to: (&str, u16)) -> Packet {
        let end = |(address, port): (&str, u16)| packet::End { address: address.parse().unwrap(), port };
        let segment =
            packet::Segment { sequence: 0, acknowledgement: 0, flags: packet::Flags::SYN, window: 0 };
        packet::build(Vec::new(), (end(from), end(to)), packet::Header::Tcp(segment), 0, |_| {})
    }

    #[test]
    fn the_kernel_sends_into_the_tun_what_the_engine_needs() {
        let rules = Rules::new(&plan(None));
        let find = |from, to| rules.find(packet(from, to).bytes());
        assert_eq!(find(("192.0.2.1", 9), ("10.0.0.3", 80)), Some(InterfaceId(0)));
        assert_eq!(find(("192.0.2.1", 9), ("10.0.0.3", 9999)), Some(InterfaceId(0)), "the whole address");
        assert_eq!(find(("10.0.3.20", 8080), ("192.0.2.1", 9)), Some(InterfaceId(1)));
        assert_eq!(find(("10.0.3.20", 22), ("192.0.2.1", 9)), None, "not a service");
        assert_eq!(find(("192.0.2.1", 9), ("10.0.3.20", 8080)), None);
    }

    #[test]
    fn with_source_nat_only_addresses_lead_into_the_tun() {
        let rules = Rules::new(&plan(Some("10.0.3.2")));
        let find = |from, to| rules.find(packet(from, to).bytes());
        assert_eq!(find(("10.0.3.20", 8080), ("10.0.3.2", 5000)), Some(InterfaceId(1)));
        assert_eq!(find(("10.0.3.20", 8080), ("192.0.2.1", 9)), None);
    }

    #[test]
    fn networks_of_addresses_and_servers_at_any_port_lead_into_the_tun() {
        let mut plan = plan(None);
        let director = &mut plan.directors[0];
        director.binds = vec![Binding {
            network: Prefix { address: v4("10.9.0.0"), length: 16 },
            ports: ANY_PORT,
            protocol: None,
        }];
        director.servers[0].port = 0;
        let rules = Rules::new(&plan);
        let find = |from, to| rules.find(packet(from, to).bytes());
        assert_eq!(find(("192.0.2.1", 9), ("10.9.200.3", 80)), Some(InterfaceId(0)));
        assert_eq!(find(("192.0.2.1", 9), ("10.10.0.3", 80)), None);
        assert_eq!(find(("10.0.3.20", 22), ("192.0.2.1", 9)), Some(InterfaceId(1)));
        assert_eq!(real_servers(&plan), []);
        assert_eq!(service_addresses(&plan), Vec::<Ipv4Addr>::new());
    }

    #[test]
    fn real_servers_are_the_services_of_a_plan() {
        let service = Service { address: "10.0.3.20".parse().unwrap(), port: 8080, protocol: Protocol::TCP };
        assert_eq!(real_servers(&plan(None)), [service]);
    }
}
