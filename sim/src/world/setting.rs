//! What the network stack of a machine is told: by the scenario, and by an engine whose setup is "auto".
//!
//! ```text
//! scenario -> Told --------------------> KernelPlan          a host, a router
//!              |   + plan of the engine -> changes -> KernelPlan    a forwarder
//! ```
//! A rule of the scenario may name an interface that only the engine brings, and a reload brings others: the scenario's
//! part is kept as it is written, and made into a plan each time.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use evenkeel_config::setup::{self, Attached, Change};
use evenkeel_engine::Duration;
use evenkeel_engine::plan::{InterfacePlan, Layer, Plan, Prefix};
use evenkeel_engine::wire::Protocol;

use crate::forwarder::Port;
use crate::kernel::plan::{
    Family, Hop, Interface, KernelPlan, Masquerade, Outlet, Route, RouteKind, Rule, RuleAction, Selector,
    Spread, SpreadChoice, SpreadKey, Sysctl, TABLE_MAIN, Tun, Tunnel, TunnelKind,
};
use crate::scenario::{self, Attachment, Ecmp, Network, RouteAction, Scenario, Subnet};
use crate::wires::frame::MacAddress;

/// Buckets of a resilient route: the default of Linux.
const BUCKETS: u16 = 128;
/// How long a bucket is idle before it may move: the default of Linux.
const BUCKET_IDLE: Duration = Duration::from_secs(120);
/// Neighbours of one machine. Linux has 1,024 by default (`gc_thresh3`), and who has larger segments raises it: here they
/// have up to 65,536 hosts.
const NEIGHBOURS_MAX: usize = 1 << 17;
/// The port of generic UDP encapsulation (IANA).
const GUE_PORT: u16 = 6_080;

/// What the scenario says of the network stack of a machine.
#[derive(Clone, Debug)]
pub(super) struct Told {
    /// Everything but the rules, and of routes those that the interfaces reach.
    plan: KernelPlan,
    rules: Vec<scenario::Rule>,
    spread: Spread,
}

impl Told {
    pub(super) fn by(scenario: &Scenario, number: usize, network: &Network) -> Self {
        let interfaces = network.attachments.iter().enumerate().map(|(place, attachment)| {
            interface(scenario, (number, place), attachment, sysctl(network.sysctl))
        });
        let position = |name: &String| network.attachments.iter().position(|it| it.interface == *name);
        let spread = Spread { key: SpreadKey::FiveTuple, choice: choice(network.ecmp) };
        let mut told = Self {
            plan: KernelPlan {
                name: scenario.machine(number).map_or_else(String::new, |(name, ..)| name.to_owned()),
                interfaces: interfaces.collect(),
                tunnels: if network.decapsulates { tunnels() } else { Vec::new() },
                loopback: network.loopback.iter().map(|address| Prefix::host(*address)).collect(),
                forwards_v4: network.sysctl.ip_forward,
                forwards_v6: network.sysctl.ip_forward,
                masquerade: network.masquerade.iter().filter_map(position).map(Masquerade::on).collect(),
                neighbours_max: NEIGHBOURS_MAX,
                ..KernelPlan::default()
            },
            rules: network.rules.clone(),
            spread,
        };
        let gateways = network.gateways.iter().map(|gateway| scenario::Route {
            to: everywhere(gateway.is_ipv4()),
            table: TABLE_MAIN,
            action: RouteAction::Via(vec![(*gateway, 1)]),
        });
        let routes = gateways.chain(network.routes.iter().cloned());
        told.plan.routes = routes.map(|route| told.route(&route)).collect();
        told
    }

    /// The plan of a machine without an engine.
    pub(super) fn alone(&self) -> KernelPlan {
        let mut plan = self.plan.clone();
        plan.rules = self.rules.iter().filter_map(|rule| resolved(rule, &plan)).collect();
        plan
    }

    /// The plan of a machine with an engine: with the changes that `setup = "auto"` makes on a real one.
    pub(super) fn with(&self, engine: &Plan) -> KernelPlan {
        let mut kernel = self.plan.clone();
        let is_ip = |layer: &Layer| matches!(layer, Layer::Ip);
        let tuns = engine.interfaces.iter().filter(|interface| is_ip(&interface.layer));
        kernel.tuns = tuns.map(|own| Tun { mtu_bytes: own.mtu_bytes, ..Tun::new(&own.name) }).collect();
        let engines: Vec<&str> =
            engine.interfaces.iter().filter(|it| !is_ip(&it.layer)).map(|it| it.name.as_str()).collect();
        for interface in kernel.interfaces.iter_mut().filter(|own| engines.contains(&own.name.as_str())) {
            // The engine's interfaces have no addresses of the kernel's.
            interface.addresses.clear();
        }
        kernel.rules = self.rules.iter().filter_map(|rule| resolved(rule, &kernel)).collect();
        let attached: Vec<Attached> = attached(&kernel).collect();
        for change in setup::plan_of_changes(engine, &attached) {
            make(&mut kernel, change);
        }
        leave_out_unreachable(&mut kernel);
        kernel
    }

    /// A route of the scenario, as the kernel has it.
    pub(super) fn route(&self, route: &scenario::Route) -> Route {
        let kind = match &route.action {
            RouteAction::Via(gateways) => {
                let hop = |(gateway, weight): &(IpAddr, u32)| Hop {
                    weight: u16::try_from(*weight).unwrap_or(u16::MAX),
                    ..Hop::via(*gateway)
                };
                RouteKind::Unicast { hops: gateways.iter().map(hop).collect(), spread: self.spread }
            }
            RouteAction::Blackhole => RouteKind::Blackhole,
            RouteAction::Unreachable => RouteKind::Unreachable,
        };
        Route { table: route.table, ..Route::of_kind(prefix(route.to), kind) }
    }

    /// What each interface of an engine's plan is on the machine; the error is the name of one that it has not.
    pub(super) fn ports(&self, engine: &Plan) -> Result<Vec<Port>, String> {
        let mut tuns = 0..;
        let port = |interface: &InterfacePlan| match interface.layer {
            Layer::Ip => tuns.next().map(Port::Tun).ok_or_else(|| interface.name.clone()),
            Layer::Ethernet(_) => {
                let place = self.plan.interfaces.iter().position(|own| own.name == interface.name);
                place.map(Port::Ethernet).ok_or_else(|| interface.name.clone())
            }
        };
        engine.interfaces.iter().map(port).collect()
    }

    /// The engine's interfaces on Ethernet have the stations of the machine's, whatever its configuration says: two machines
    /// may share a file.
    pub(super) fn claim_stations(&self, engine: &mut Plan) {
        for interface in &mut engine.interfaces {
            let own = self.plan.interfaces.iter().find(|own| own.name == interface.name);
            if let (Layer::Ethernet(station), Some(own)) = (&mut interface.layer, own) {
                *station = own.mac;
            }
        }
    }
}

/// The station of a machine's interface: locally administered, by number.
pub(crate) fn station(machine: usize, interface: usize) -> MacAddress {
    let [_, m1, m2, m3] = u32::try_from(machine).unwrap_or(u32::MAX).to_be_bytes();
    let [_, i3] = u16::try_from(interface).unwrap_or(u16::MAX).to_be_bytes();
    MacAddress([2, 0, m1, m2, m3, i3])
}

/// A network of the scenario, as kernels and engines write it.
pub(super) const fn prefix(subnet: Subnet) -> Prefix {
    Prefix { address: subnet.address, length: subnet.length }
}

const fn everywhere(is_v4: bool) -> Subnet {
    let address = if is_v4 { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    Subnet { address, length: 0 }
}

fn interface(
    scenario: &Scenario,
    (machine, place): (usize, usize),
    attachment: &Attachment,
    sysctl: Sysctl,
) -> Interface {
    let subnets = scenario.segments.get(attachment.segment).map_or(&[][..], |segment| &segment.subnets);
    let addresses = attachment.addresses.iter().map(|address| {
        let own = subnets.iter().find(|subnet| subnet.contains(*address));
        own.map_or_else(
            || Prefix::host(*address),
            |subnet| Prefix { address: *address, length: subnet.length },
        )
    });
    Interface {
        name: attachment.interface.clone(),
        mac: station(machine, place),
        mtu_bytes: attachment.mtu_bytes,
        addresses: addresses.collect(),
        sysctl,
    }
}

/// The scenario's switches are those of each interface, not of `all`: a TUN has its own, which the setup sets, and so has
/// the end of a tunnel.
fn sysctl(written: scenario::Sysctl) -> Sysctl {
    Sysctl {
        arp_ignore: written.arp_ignore,
        arp_announce: written.arp_announce,
        rp_filter: written.rp_filter,
        ..Sysctl::default()
    }
}

const fn choice(ecmp: Ecmp) -> SpreadChoice {
    match ecmp {
        Ecmp::Modulo => SpreadChoice::Modulo,
        Ecmp::Rendezvous => SpreadChoice::Rendezvous,
        Ecmp::HashThreshold => SpreadChoice::HashThreshold,
        Ecmp::Resilient => SpreadChoice::Resilient { buckets: BUCKETS, idle: BUCKET_IDLE },
    }
}

/// The ends of tunnels of a machine that takes packets out of all of them.
fn tunnels() -> Vec<Tunnel> {
    let kinds =
        [("ipip0", TunnelKind::Ip), ("gre0", TunnelKind::Gre), ("gue0", TunnelKind::Gue { port: GUE_PORT })];
    let tunnel = |(name, kind): (&str, TunnelKind)| Tunnel {
        name: name.to_owned(),
        kind,
        local: None,
        remote: None,
        sysctl: Sysctl::default(),
    };
    kinds.map(tunnel).into()
}

/// A rule of the scenario with its interface; none where the machine has no such interface.
fn resolved(rule: &scenario::Rule, kernel: &KernelPlan) -> Option<Rule> {
    let inlet = match &rule.interface {
        Some(name) => Some(outlet(kernel, name)?),
        None => None,
    };
    let family = [rule.from, rule.to].into_iter().flatten().next().map(|subnet| family(subnet.address));
    let range = |ports: Option<(u16, u16)>| ports.map(|(first, last)| first..=last);
    let selector = Selector {
        family,
        inlet,
        from: rule.from.map(prefix),
        to: rule.to.map(prefix),
        protocol: rule.protocol,
        source_ports: range(rule.source_ports),
        destination_ports: range(rule.destination_ports),
        mark: None,
    };
    Some(Rule { priority: rule.priority, selector, action: RuleAction::Lookup(rule.table) })
}

const fn family(address: IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}

/// The device with this name.
fn outlet(kernel: &KernelPlan, name: &str) -> Option<Outlet> {
    if name == "lo" {
        return Some(Outlet::Loopback);
    }
    let interface = kernel.interfaces.iter().position(|own| own.name == name).map(Outlet::Interface);
    interface.or_else(|| kernel.tuns.iter().position(|own| own.name == name).map(Outlet::Tun))
}

/// The networks in which neighbours ask for addresses.
fn attached(kernel: &KernelPlan) -> impl Iterator<Item = Attached> + '_ {
    kernel.interfaces.iter().flat_map(|interface| {
        interface.addresses.iter().map(move |prefix| {
            let Prefix { address, length } = *prefix;
            Attached { interface: interface.name.clone(), address, length }
        })
    })
}

/// Makes one change of the setup on a simulated kernel.
fn make(kernel: &mut KernelPlan, change: Change) {
    match change {
        Change::Sysctl { key, value } => set(kernel, &key, &value),
        // The MTU of a TUN is the plan's already, and frames of the engine's interfaces do not reach this kernel.
        Change::Link { .. } | Change::Up { .. } | Change::Ignore { .. } => {}
        Change::Address { interface, address, length } => {
            if let Some(tun) = kernel.tuns.iter_mut().find(|tun| tun.name == interface) {
                tun.addresses.push(Prefix { address, length });
            }
        }
        Change::Route { destination: address, length, interface, table } => {
            if let Some(outlet) = outlet(kernel, &interface) {
                let route = Route::new(Prefix { address, length }, Hop::on(outlet));
                kernel.routes.push(Route { table, ..route });
            }
        }
        Change::NextHop { address, table } => {
            let to = prefix(everywhere(address.is_ipv4()));
            kernel.routes.push(Route { table, ..Route::new(to, Hop::via(address)) });
        }
        Change::Rule { is_v6, priority, selector, table } => {
            if let Some(selector) = selected(kernel, is_v6, selector) {
                kernel.rules.push(Rule { priority, selector, action: RuleAction::Lookup(table) });
            }
        }
        Change::ProxyNeighbour { address, interface } => {
            if let Some(Outlet::Interface(number)) = outlet(kernel, &interface) {
                kernel.proxies.push((number, address));
            }
        }
    }
}

/// Sets what the setup sets; whatever else there is in `/proc/sys` has no counterpart here.
fn set(kernel: &mut KernelPlan, key: &str, value: &str) {
    match key {
        "net/ipv4/ip_forward" => kernel.forwards_v4 |= value == "1",
        "net/ipv6/conf/all/forwarding" => kernel.forwards_v6 |= value == "1",
        _ => {
            let named = key.strip_prefix("net/ipv4/conf/").and_then(|rest| rest.split_once('/'));
            let Some((name, "rp_filter")) = named else { return };
            if let Some(tun) = kernel.tuns.iter_mut().find(|tun| tun.name == name) {
                tun.sysctl.rp_filter = value.parse().unwrap_or(0);
            }
        }
    }
}

fn selected(kernel: &KernelPlan, is_v6: bool, selector: setup::Selector) -> Option<Selector> {
    let of_family =
        Selector { family: Some(if is_v6 { Family::V6 } else { Family::V4 }), ..Selector::default() };
    Some(match selector {
        setup::Selector::Interface(name) => Selector { inlet: Some(outlet(kernel, &name)?), ..of_family },
        setup::Selector::Replies { address, protocol, ports } => Selector {
            from: Some(Prefix::host(address)),
            protocol: protocol.map(Protocol),
            source_ports: ports.map(|(first, last)| first..=last),
            ..of_family
        },
    })
}

/// Leaves out next hops that are on no link of the machine, which `ip route` would refuse: those by an interface that is
/// the engine's now.
fn leave_out_unreachable(kernel: &mut KernelPlan) {
    let own = kernel
        .interfaces
        .iter()
        .map(|own| &own.addresses)
        .chain(kernel.tuns.iter().map(|own| &own.addresses));
    let links: Vec<Prefix> = own.flatten().copied().collect();
    let is_near = |gateway: IpAddr| links.iter().any(|link| link.contains(gateway));
    kernel.routes.retain_mut(|route| {
        let RouteKind::Unicast { hops, .. } = &mut route.kind else { return true };
        hops.retain(|hop| hop.gateway.is_none_or(is_near));
        !hops.is_empty()
    });
}
