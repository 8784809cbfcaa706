//! What the machine has already: a picture of its links, addresses, routes, rules, proxy neighbours and
//! settings.
//!
//! In: one dump of each over netlink. Out: for a [`Change`], whether it is there, and whose it is. The
//! picture is plain data, so that everything that is decided from it is tested without a kernel.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's attributes are many, and new ones must not disturb"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use rtnetlink::packet_core::{DefaultNla, Nla as _};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{Handle, IpVersion, RouteMessageBuilder};

use super::{Attached, Change, PRIORITY_IGNORE, PROTOCOL, Selector, SetupError, service_addresses, sysctl};
use evenkeel_engine::Plan;
use evenkeel_engine::plan::{Layer, Prefix};

/// The most entries of one kind that are looked at: a router with the whole Internet's table has a million.
const ENTRIES_MAX: usize = 4_000_000;

/// The machine at one point in time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Machine {
    pub(crate) links: Vec<Link>,
    pub(crate) addresses: Vec<Address>,
    pub(crate) routes: Vec<Route>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) proxies: Vec<Proxy>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) is_up: bool,
    pub(crate) mtu_bytes: u32,
    /// Whether neighbours there ask by ARP.
    pub(crate) has_arp: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) link: u32,
    pub(crate) address: IpAddr,
    pub(crate) length: u8,
}

/// An address for which the kernel answers on a link though it is not its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proxy {
    pub(crate) link: u32,
    pub(crate) address: IpAddr,
    pub(crate) protocol: u8,
}

/// A route that a route of ours could meet: unicast, without TOS and metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) destination: IpAddr,
    pub(crate) length: u8,
    pub(crate) table: u32,
    pub(crate) link: Option<u32>,
    pub(crate) has_gateway: bool,
    /// The next hop, where it is one and of the same family.
    pub(crate) gateway: Option<IpAddr>,
    pub(crate) protocol: u8,
}

/// A rule that says no more than one of ours could.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) is_v6: bool,
    pub(crate) priority: u32,
    pub(crate) selector: Selector,
    /// The routing table; nothing for a rule that drops without a word.
    pub(crate) table: Option<u32>,
    pub(crate) protocol: u8,
}

/// Whether something is there, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It is not there.
    Missing,
    /// It is there with another value, which comes back at the end.
    Differs(Before),
    /// It is there and carries our mark: a forwarder that was killed has left it.
    LeftBehind,
    /// It is there and someone else's.
    Foreign,
    /// Something else is in its place.
    Conflict(String),
}

/// What a setting was before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    Sysctl(String),
    Link { is_up: bool, mtu_bytes: u32 },
}

impl Machine {
    /// Takes the picture.
    ///
    /// # Errors
    /// When the kernel does not answer a dump.
    pub(crate) async fn look(handle: &Handle) -> Result<Self, SetupError> {
        let failed = |what: &'static str| move |error| SetupError::look(what, &error);
        let mut machine = Self::default();

        let links = handle.link().get().execute();
        let mut links = std::pin::pin!(links);
        while let Some(message) = links.try_next().await.map_err(failed("links"))? {
            push(&mut machine.links, Some(link(message)));
        }
        let addresses = handle.address().get().execute();
        let mut addresses = std::pin::pin!(addresses);
        while let Some(message) = addresses.try_next().await.map_err(failed("addresses"))? {
            let link = message.header.index;
            let length = message.header.prefix_len;
            // On a point-to-point link `Address` is the peer; `Local` is ours wherever it is given, which is
            // always with IPv4.
            let local = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(address) => Some(*address),
                _ => None,
            });
            let other = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(IpAddr::V6(address)) => Some(IpAddr::V6(*address)),
                _ => None,
            });
            push(&mut machine.addresses, local.or(other).map(|address| Address { link, address, length }));
        }
        machine.look_at_routes(handle, IpVersion::V4).await?;
        // A kernel without IPv6 does not answer these; what a plan needs of it is then refused where it is made.
        let _ = machine.look_at_routes(handle, IpVersion::V6).await;
        machine.look_at_proxies(handle, AddressFamily::Inet).await?;
        // As above.
        let _ = machine.look_at_proxies(handle, AddressFamily::Inet6).await;
        Ok(machine)
    }

    async fn look_at_proxies(&mut self, handle: &Handle, family: AddressFamily) -> Result<(), SetupError> {
        let failed = |error| SetupError::look("proxy neighbours", &error);
        let proxies = handle.neighbours().get().proxies().set_address_family(family).execute();
        let mut proxies = std::pin::pin!(proxies);
        while let Some(message) = proxies.try_next().await.map_err(failed)? {
            push(&mut self.proxies, proxy(&message));
        }
        Ok(())
    }

    async fn look_at_routes(&mut self, handle: &Handle, version: IpVersion) -> Result<(), SetupError> {
        let failed = |what: &'static str| move |error| SetupError::look(what, &error);
        let question = match version {
            IpVersion::V4 => RouteMessageBuilder::<Ipv4Addr>::new().build(),
            IpVersion::V6 => RouteMessageBuilder::<Ipv6Addr>::new().build(),
        };
        let routes = handle.route().get(question).execute();
        let mut routes = std::pin::pin!(routes);
        while let Some(message) = routes.try_next().await.map_err(failed("routes"))? {
            push(&mut self.routes, route(&message));
        }
        let rules = handle.rule().get(version).execute();
        let mut rules = std::pin::pin!(rules);
        while let Some(message) = rules.try_next().await.map_err(failed("rules"))? {
            push(&mut self.rules, rule(&message));
        }
        Ok(())
    }

    pub(crate) fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// The networks in which neighbours ask by ARP or neighbour discovery.
    pub(crate) fn attached(&self) -> Vec<Attached> {
        let on_link = |address: &Address| {
            let link = self.links.iter().find(|link| link.index == address.link && link.has_arp)?;
            let (interface, length) = (link.name.clone(), address.length);
            let address = address.address;
            // An address without a network has no neighbours, and a link's own addresses are of no service.
            let has_network = match address {
                IpAddr::V4(_) => length < 32,
                IpAddr::V6(address) => length < 128 && !address.is_unicast_link_local(),
            };
            has_network.then_some(Attached { interface, address, length })
        };
        self.addresses.iter().filter_map(on_link).collect()
    }

    fn link_name(&self, index: Option<u32>) -> &str {
        let link = self.links.iter().find(|link| Some(link.index) == index);
        link.map_or("nowhere", |link| &link.name)
    }

    /// Whether `change` is there already.
    pub(crate) fn presence(&self, change: &Change) -> Presence {
        match change {
            Change::Sysctl { key, value } => match sysctl::read(key) {
                Some(now) if now == *value => Presence::Foreign,
                Some(now) => Presence::Differs(Before::Sysctl(now)),
                None => Presence::Missing,
            },
            Change::Link { interface, mtu_bytes } => match self.link(interface) {
                Some(link) if link.is_up && link.mtu_bytes == u32::from(*mtu_bytes) => Presence::Foreign,
                Some(link) => {
                    Presence::Differs(Before::Link { is_up: link.is_up, mtu_bytes: link.mtu_bytes })
                }
                None => Presence::Missing,
            },
            Change::Up { interface } => match self.link(interface) {
                Some(link) if link.is_up => Presence::Foreign,
                Some(link) => Presence::Differs(Before::Link { is_up: false, mtu_bytes: link.mtu_bytes }),
                None => Presence::Missing,
            },
            Change::Ignore { is_v6, interface } => {
                let selector = Selector::Interface(interface.clone());
                self.rule_presence((*is_v6, PRIORITY_IGNORE), &selector, None)
            }
            Change::Address { interface, address, length } => {
                let Some(link) = self.link(interface) else { return Presence::Missing };
                let wanted = Address { link: link.index, address: *address, length: *length };
                if self.addresses.contains(&wanted) { Presence::Foreign } else { Presence::Missing }
            }
            Change::Route { destination, length, interface, table } => {
                self.route_presence((*destination, *length), interface, *table)
            }
            Change::NextHop { address, table } => self.next_hop_presence(*address, *table),
            Change::Rule { is_v6, priority, selector, table } => {
                self.rule_presence((*is_v6, *priority), selector, Some(*table))
            }
            Change::ProxyNeighbour { address, interface } => self.proxy_presence(*address, interface),
        }
    }

    fn rule_presence(
        &self,
        (is_v6, priority): (bool, u32),
        selector: &Selector,
        table: Option<u32>,
    ) -> Presence {
        let same = |rule: &&Rule| {
            rule.is_v6 == is_v6
                && rule.priority == priority
                && rule.selector == *selector
                && rule.table == table
        };
        match self.rules.iter().find(same) {
            Some(rule) if rule.protocol == PROTOCOL => Presence::LeftBehind,
            Some(_) => Presence::Foreign,
            None => Presence::Missing,
        }
    }

    fn proxy_presence(&self, address: IpAddr, interface: &str) -> Presence {
        let Some(link) = self.link(interface) else { return Presence::Missing };
        match self.proxies.iter().find(|proxy| proxy.link == link.index && proxy.address == address) {
            Some(proxy) if proxy.protocol == PROTOCOL => Presence::LeftBehind,
            Some(_) => Presence::Foreign,
            None => Presence::Missing,
        }
    }

    fn next_hop_presence(&self, address: IpAddr, table: u32) -> Presence {
        let met = |route: &&Route| {
            (route.length, route.table) == (0, table) && route.destination.is_ipv6() == address.is_ipv6()
        };
        match self.routes.iter().find(met) {
            None => Presence::Missing,
            Some(route) if route.gateway == Some(address) && route.protocol == PROTOCOL => {
                Presence::LeftBehind
            }
            Some(route) if route.gateway == Some(address) => Presence::Foreign,
            Some(_) => {
                let family = if address.is_ipv6() { " -6" } else { "" };
                Presence::Conflict(format!(
                    "routing table {table} has another default route already; remove it with: ip{family} route del \
                     default table {table}"
                ))
            }
        }
    }

    fn route_presence(&self, destination: (IpAddr, u8), interface: &str, table: u32) -> Presence {
        let met = |route: &&Route| (route.destination, route.length) == destination && route.table == table;
        let Some(route) = self.routes.iter().find(met) else { return Presence::Missing };
        let wanted = self.link(interface).map(|link| link.index);
        if wanted.is_some() && route.link == wanted && !route.has_gateway {
            return if route.protocol == PROTOCOL { Presence::LeftBehind } else { Presence::Foreign };
        }
        let there = self.link_name(route.link);
        let (address, length) = destination;
        let family = if address.is_ipv6() { " -6" } else { "" };
        Presence::Conflict(format!(
            "{address}/{length} leads to {there} in routing table {table} already; remove it with: ip{family} route \
             del {address}/{length} table {table}"
        ))
    }

    /// VIPs and source-NAT addresses of `plan` that the kernel keeps for itself: packets to those never
    /// reach a forwarder, or are answered by both. So for the engine's own addresses on Ethernet.
    pub(crate) fn local_services(&self, plan: &Plan) -> Vec<String> {
        let mut problems = Vec::new();
        let on_ethernet = plan.interfaces.iter().filter(|one| matches!(one.layer, Layer::Ethernet(_)));
        let own = on_ethernet.flat_map(|one| {
            let who = format!("interface {}: the address", one.name);
            one.addresses.iter().map(move |own| (who.clone(), Prefix::host(own.address)))
        });
        for (who, service) in service_addresses(plan).into_iter().chain(own) {
            // Among the addresses of a network there may well be one of the machine; it stays the machine's.
            let is_one = service.is_host();
            for local in self.addresses.iter().filter(|local| is_one && local.address == service.address) {
                let (link, address) = (self.link_name(Some(local.link)), service.address);
                problems.push(format!(
                    "{who} {address} is an address of this machine, on {link}, so its kernel takes packets to \
                     it, which are the forwarder's; remove it with: ip address del {address}/{} dev {link}",
                    local.length
                ));
            }
        }
        problems
    }
}

fn push<T>(list: &mut Vec<T>, item: Option<T>) {
    if list.len() < ENTRIES_MAX {
        list.extend(item);
    }
}

fn link(message: LinkMessage) -> Link {
    let mut name = String::new();
    let mut mtu_bytes = 0;
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = text,
            LinkAttribute::Mtu(bytes) => mtu_bytes = bytes,
            _ => {}
        }
    }
    let flags = message.header.flags;
    let has_arp = !flags.intersects(LinkFlags::Loopback | LinkFlags::Noarp | LinkFlags::Pointopoint);
    Link { index: message.header.index, name, is_up: flags.contains(LinkFlags::Up), mtu_bytes, has_arp }
}

fn proxy(message: &NeighbourMessage) -> Option<Proxy> {
    let mut address = None;
    let mut protocol = 0;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(of)) => address = Some((*of).into()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(of)) => address = Some((*of).into()),
            NeighbourAttribute::Protocol(number) => protocol = u8::from(*number),
            _ => {}
        }
    }
    Some(Proxy { link: message.header.ifindex, address: address?, protocol })
}

/// What the kernel makes of a route of IPv6 without a metric.
const METRIC_DEFAULT_V6: u32 = 1024;

fn route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    let mut route = Route {
        destination: match header.address_family {
            AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
            _ => Ipv4Addr::UNSPECIFIED.into(),
        },
        length: header.destination_prefix_length,
        table: u32::from(header.table),
        link: None,
        has_gateway: false,
        gateway: None,
        protocol: header.protocol.into(),
    };
    let mut is_plain = header.kind == RouteType::Unicast && header.tos == 0;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => route.destination = (*address).into(),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => {
                route.destination = (*address).into()
            }
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::Oif(index) => route.link = Some(*index),
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => {
                (route.has_gateway, route.gateway) = (true, Some((*address).into()));
            }
            RouteAttribute::Gateway(RouteAddress::Inet6(address)) => {
                (route.has_gateway, route.gateway) = (true, Some((*address).into()));
            }
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) | RouteAttribute::MultiPath(_) => {
                route.has_gateway = true;
            }
            RouteAttribute::Priority(METRIC_DEFAULT_V6) if route.destination.is_ipv6() => {}
            RouteAttribute::Priority(metric) if *metric != 0 => is_plain = false,
            _ => {}
        }
    }
    is_plain.then_some(route)
}

/// The mask of the source port in a rule, as the kernel numbers it.
const FRA_SPORT_MASK: u16 = 28;

fn is_full(mask: &DefaultNla) -> bool {
    let mut bytes = vec![0; mask.value_len()];
    mask.emit_value(&mut bytes);
    bytes == [0xff, 0xff]
}

/// What a rule says, as far as ours say it.
#[derive(Default)]
struct Said {
    priority: u32,
    table: u32,
    protocol: u8,
    interface: Option<String>,
    source: Option<IpAddr>,
    ip_protocol: Option<u8>,
    ports: Option<(u16, u16)>,
}

fn rule(message: &RuleMessage) -> Option<Rule> {
    let header = &message.header;
    let is_blackhole = header.action == RuleAction::Blackhole;
    if (header.action != RuleAction::ToTable && !is_blackhole) || header.dst_len != 0 || header.tos != 0 {
        return None;
    }
    let mut said = Said { table: u32::from(header.table), ..Said::default() };
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(number) => said.priority = *number,
            RuleAttribute::Table(number) => said.table = *number,
            RuleAttribute::Protocol(number) => said.protocol = u8::from(*number),
            RuleAttribute::Iifname(name) => said.interface = Some(name.clone()),
            RuleAttribute::Source(address) if header.src_len == if address.is_ipv4() { 32 } else { 128 } => {
                said.source = Some(*address);
            }
            RuleAttribute::IpProtocol(protocol) => said.ip_protocol = u8::try_from(i32::from(*protocol)).ok(),
            RuleAttribute::SourcePortRange(range) => said.ports = Some((range.start, range.end)),
            // The kernel sends these with every rule, to say that nothing is suppressed.
            RuleAttribute::SuppressPrefixLen(u32::MAX) | RuleAttribute::SuppressIfGroup(u32::MAX) => {}
            // Linux 6.15 and later send the mask of a single port: all of its bits.
            RuleAttribute::Other(other) if other.kind() == FRA_SPORT_MASK && is_full(other) => {}
            _ => return None,
        }
    }
    let selector = match (said.interface, said.source) {
        (Some(name), None) if said.ip_protocol.is_none() && said.ports.is_none() => Selector::Interface(name),
        (None, Some(address)) => Selector::Replies { address, protocol: said.ip_protocol, ports: said.ports },
        (Some(_) | None, _) => return None,
    };
    let is_v6 = header.family == AddressFamily::Inet6;
    let Said { priority, table, protocol, .. } = said;
    let table = (!is_blackhole).then_some(table);
    Some(Rule { is_v6, priority, selector, table, protocol })
}

/// The mark of our routes and rules.
pub(crate) fn mark() -> RouteProtocol {
    RouteProtocol::from(PROTOCOL)
}

#[cfg(test)]
mod tests {
    use evenkeel_engine::plan::{Binding, Builtin, DirectorPlan, Mode, SourceNat};
    use evenkeel_engine::wire::Protocol;

    use super::super::{PRIORITY_FROM_FORWARDER, TABLE_MAIN};
    use super::*;

    fn machine() -> Machine {
        let link = |index, name: &str, is_up| Link {
            index,
            name: name.to_owned(),
            is_up,
            mtu_bytes: 1500,
            has_arp: name == "eth0",
        };
        Machine {
            links: vec![link(1, "lo", true), link(2, "eth0", true), link(3, "tun0", false)],
            addresses: vec![Address { link: 2, address: [10, 0, 0, 3].into(), length: 24 }],
            ..Machine::default()
        }
    }

    fn vip_route() -> Change {
        Change::Route {
            destination: [10, 0, 0, 9].into(),
            length: 32,
            interface: "tun0".to_owned(),
            table: TABLE_MAIN,
        }
    }

    fn there(link: u32, protocol: u8) -> Route {
        Route {
            destination: [10, 0, 0, 9].into(),
            length: 32,
            table: TABLE_MAIN,
            link: Some(link),
            has_gateway: false,
            gateway: None,
            protocol,
        }
    }

    #[test]
    fn a_route_is_missing_foreign_left_behind_or_in_the_way() {
        let mut machine = machine();
        assert_eq!(machine.presence(&vip_route()), Presence::Missing);
        machine.routes = vec![there(3, 4)];
        assert_eq!(machine.presence(&vip_route()), Presence::Foreign);
        machine.routes = vec![there(3, PROTOCOL)];
        assert_eq!(machine.presence(&vip_route()), Presence::LeftBehind);
        machine.routes = vec![there(2, PROTOCOL)];
        let Presence::Conflict(text) = machine.presence(&vip_route()) else { panic!("no conflict") };
        assert!(text.contains("10.0.0.9/32 leads to eth0"), "{text}");
    }

    #[test]
    fn a_rule_of_another_priority_or_table_is_not_ours() {
        let mut machine = machine();
        let selector = Selector::Interface("tun0".to_owned());
        let (priority, table) = (PRIORITY_FROM_FORWARDER, TABLE_MAIN);
        let change = Change::Rule { is_v6: false, priority, selector: selector.clone(), table };
        let rule = Rule { is_v6: false, priority, selector, table: Some(table), protocol: PROTOCOL };
        let others = [
            Rule { priority: 7, ..rule.clone() },
            Rule { table: Some(7), ..rule.clone() },
            Rule { table: None, ..rule.clone() },
            Rule { is_v6: true, ..rule.clone() },
        ];
        machine.rules = others.to_vec();
        assert_eq!(machine.presence(&change), Presence::Missing);
        machine.rules.push(rule.clone());
        assert_eq!(machine.presence(&change), Presence::LeftBehind);
        machine.rules = vec![Rule { protocol: 0, ..rule }];
        assert_eq!(machine.presence(&change), Presence::Foreign);
    }

    #[test]
    fn a_rule_that_has_the_kernel_ignore_an_interface_is_recognised() {
        let change = Change::Ignore { is_v6: false, interface: "eth0".to_owned() };
        let mut machine = machine();
        assert_eq!(machine.presence(&change), Presence::Missing);
        let selector = Selector::Interface("eth0".to_owned());
        let rule =
            Rule { is_v6: false, priority: PRIORITY_IGNORE, selector, table: None, protocol: PROTOCOL };
        machine.rules = vec![Rule { table: Some(254), ..rule.clone() }, Rule { is_v6: true, ..rule.clone() }];
        assert_eq!(machine.presence(&change), Presence::Missing);
        machine.rules.push(rule);
        assert_eq!(machine.presence(&change), Presence::LeftBehind);
    }

    #[test]
    fn an_ethernet_interface_that_is_down_is_brought_up_and_keeps_its_mtu() {
        let up = |name: &str| Change::Up { interface: name.to_owned() };
        let machine = machine();
        assert_eq!(machine.presence(&up("eth0")), Presence::Foreign);
        let before = Before::Link { is_up: false, mtu_bytes: 1500 };
        assert_eq!(machine.presence(&up("tun0")), Presence::Differs(before));
        assert_eq!(machine.presence(&up("eth9")), Presence::Missing);
    }

    #[test]
    fn an_address_of_the_engine_on_ethernet_must_not_be_the_kernels() {
        let mut plan = Plan::empty();
        let mac = evenkeel_engine::wire::ethernet::MacAddress([2, 0, 0, 0, 0, 1]);
        let mut lan = evenkeel_engine::plan::InterfacePlan::new("lan", Layer::Ethernet(mac));
        lan.addresses = vec![Prefix { address: [10, 0, 0, 3].into(), length: 24 }];
        plan.interfaces.push(lan.clone());
        let problems = machine().local_services(&plan);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with("interface lan: the address 10.0.0.3"), "{problems:?}");
        // A TUN is given its own addresses.
        plan.interfaces[0].layer = Layer::Ip;
        assert_eq!(machine().local_services(&plan), Vec::<String>::new());
    }

    #[test]
    fn networks_are_those_in_which_neighbours_ask() {
        let mut machine = machine();
        let address = |link, last: u8, length| Address { link, address: [10, 0, 0, last].into(), length };
        machine.addresses.extend([address(1, 5, 24), address(2, 6, 32), address(3, 7, 24)]);
        let v6 = |text: &str, length| Address { link: 2, address: text.parse().unwrap(), length };
        machine.addresses.extend([v6("fd98::1", 64), v6("fe80::1", 64), v6("fd98::2", 128)]);
        let attached = |text: &str, length| Attached {
            interface: "eth0".to_owned(),
            address: text.parse().unwrap(),
            length,
        };
        assert_eq!(machine.attached(), [attached("10.0.0.3", 24), attached("fd98::1", 64)]);
    }

    #[test]
    fn a_proxy_neighbour_belongs_to_one_link_and_carries_our_mark_or_not() {
        let address = IpAddr::from([10, 0, 0, 9]);
        let change = Change::ProxyNeighbour { address, interface: "eth0".to_owned() };
        let proxy = |link, protocol| Proxy { link, address, protocol };
        let mut machine = machine();
        machine.proxies = vec![proxy(3, PROTOCOL)];
        assert_eq!(machine.presence(&change), Presence::Missing);
        machine.proxies.push(proxy(2, 0));
        assert_eq!(machine.presence(&change), Presence::Foreign);
        machine.proxies = vec![proxy(2, PROTOCOL)];
        assert_eq!(machine.presence(&change), Presence::LeftBehind);
    }

    #[test]
    fn a_link_that_is_down_differs_and_remembers_how_it_was() {
        let change = Change::Link { interface: "tun0".to_owned(), mtu_bytes: 1500 };
        let before = Before::Link { is_up: false, mtu_bytes: 1500 };
        assert_eq!(machine().presence(&change), Presence::Differs(before));
        let change = Change::Link { interface: "eth0".to_owned(), mtu_bytes: 1500 };
        assert_eq!(machine().presence(&change), Presence::Foreign);
    }

    #[test]
    fn a_vip_that_the_kernel_keeps_is_named_with_its_link() {
        let mut plan = Plan::empty();
        let bind = Binding::of([10, 0, 0, 3].into(), 80, Protocol::TCP);
        let mut director = DirectorPlan::new("web", bind, Builtin::RoundRobin, Vec::new());
        let source = SourceNat::to([10, 0, 0, 4].into(), 1024..=65535);
        director.mode = Mode::Nat { sources: vec![source] };
        plan.directors.push(director);
        let problems = machine().local_services(&plan);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with("director web: the VIP 10.0.0.3"), "{problems:?}");
        assert!(problems[0].ends_with("ip address del 10.0.0.3/24 dev eth0"), "{problems:?}");
    }

    #[test]
    fn a_next_hop_is_missing_left_behind_or_in_the_way() {
        let mut machine = machine();
        let hop = |last: u8| Change::NextHop { address: [10, 0, 3, last].into(), table: 7901 };
        assert_eq!(machine.presence(&hop(1)), Presence::Missing);
        let route = Route {
            destination: [0, 0, 0, 0].into(),
            length: 0,
            table: 7901,
            link: Some(2),
            has_gateway: true,
            gateway: Some([10, 0, 3, 1].into()),
            protocol: PROTOCOL,
        };
        machine.routes = vec![route.clone()];
        assert_eq!(machine.presence(&hop(1)), Presence::LeftBehind);
        let Presence::Conflict(text) = machine.presence(&hop(2)) else { panic!("no conflict") };
        assert!(text.ends_with("ip route del default table 7901"), "{text}");
        machine.routes = vec![Route { protocol: 4, ..route }];
        assert_eq!(machine.presence(&hop(1)), Presence::Foreign);
    }
}
