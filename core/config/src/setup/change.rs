//! What the machine needs so that packets of a plan reach the forwarder and leave it again.
//!
//! In: a plan, and the networks that the machine is attached to. Out: a list of [`Change`]s, in the order in
//! which they are made, each of which can be shown as a command of `ip` or `sysctl`. Reads nothing of the
//! machine and changes nothing.
//!
//! ```text
//! client -> [VIP route] -> tun -> engine -> tun -> [iif rule: main] -> real server
//! client <- [iif rule: main] <- tun <- engine <- tun <- [reply rule: own table] <- real server
//! ```
//!
//! A reply rule knows a real server's address and port, not the client: whoever reaches that port through
//! this machine without the VIP has its replies taken to the forwarder, which knows no such flow. With source
//! NAT there are no such rules. Two forwarders in one network namespace share the numbers below, so that at
//! most one of them can have directors without source NAT; the second is refused.
//!
//! Neighbours in a network ask for a service's address that lies in it: see [`neighbours`](super::neighbours). That comes
//! last: nobody is called before the forwarder is ready.
//!
//! An Ethernet interface is not the kernel's to route to. The kernel sees its frames all the same, and must do nothing
//! with packets that are not for an address of its own: it is told so by a rule before all others but its own addresses.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use evenkeel_engine::Plan;
use evenkeel_engine::plan::{
    ANY_PORT, Binding, DirectorPlan, InterfacePlan, Layer, Mode, Ping, Prefix, ServerPlan,
};
use evenkeel_engine::wire::Protocol;

use super::{direct, neighbours};

/// The priority of the rule that has the kernel do nothing with what comes in by an Ethernet interface of the forwarder:
/// before those below, which could send it on.
pub const PRIORITY_IGNORE: u32 = 999;

/// The priority of the rule that keeps packets which leave the forwarder out of its reply table. After the
/// local table (0) and before the main one (32,766), so that both kinds of rule are seen in time; a round
/// number that leaves room on both sides for rules of others.
pub const PRIORITY_FROM_FORWARDER: u32 = 1_000;

/// The priority of the rules that take replies of real servers to the forwarder: after the rule above, so
/// that a reply which has been translated is not taken back.
pub const PRIORITY_REPLIES: u32 = 1_001;

/// The routing table of the first interface's replies; that of the next one follows. Above 255, where the
/// tables with names end.
pub const TABLE_REPLIES: u32 = 7_790;

/// The main routing table.
pub const TABLE_MAIN: u32 = 254;

/// The routing protocol number that marks routes and rules as the forwarder's, so that `ip route show proto
/// 69` lists them and what a killed forwarder left is recognised. 69 is free in the list of iproute2.
pub const PROTOCOL: u8 = 69;

/// One thing that the machine needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// A kernel setting below `/proc/sys`.
    Sysctl {
        /// Its path, with slashes.
        key: String,
        /// Its value.
        value: String,
    },
    /// The interface is up and has this MTU.
    Link {
        /// The interface.
        interface: String,
        /// The MTU, in bytes.
        mtu_bytes: u16,
    },
    /// The interface is up.
    Up {
        /// The interface, which is not made by the forwarder.
        interface: String,
    },
    /// The kernel does nothing with packets that come in there, but for those to its own addresses.
    Ignore {
        /// Whether it is about IPv6.
        is_v6: bool,
        /// The interface.
        interface: String,
    },
    /// The kernel has this address there.
    Address {
        /// The interface.
        interface: String,
        /// The address and the length of its network.
        address: IpAddr,
        /// Bits of the network part.
        length: u8,
    },
    /// Packets to this destination enter the forwarder.
    Route {
        /// The destination; `0.0.0.0/0` or `::/0` for the default.
        destination: IpAddr,
        /// Bits of the network part.
        length: u8,
        /// The interface.
        interface: String,
        /// The routing table.
        table: u32,
    },
    /// What is routed by this table goes to this real server as it is.
    NextHop {
        /// The RIP.
        address: IpAddr,
        /// The routing table.
        table: u32,
    },
    /// These packets are routed by that table.
    Rule {
        /// Whether it is about IPv6; the kernel keeps the rules of the two families apart.
        is_v6: bool,
        /// The place among the rules; lower is earlier.
        priority: u32,
        /// Which packets.
        selector: Selector,
        /// The routing table.
        table: u32,
    },
    /// The kernel answers for this address when neighbours ask on that interface.
    ProxyNeighbour {
        /// The address, which is not the kernel's.
        address: IpAddr,
        /// The interface.
        interface: String,
    },
}

/// A network that an interface of the machine is attached to, where neighbours ask for addresses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attached {
    /// The interface.
    pub interface: String,
    /// The machine's address there.
    pub address: IpAddr,
    /// Bits of the network part.
    pub length: u8,
}

/// Which packets a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Selector {
    /// Packets that come in by this interface.
    Interface(String),
    /// What this real server sends from its ports.
    Replies {
        /// The RIP.
        address: IpAddr,
        /// 6 for TCP, 17 for UDP, and those of pings; any without it.
        protocol: Option<u8>,
        /// The first and the last port; any without them.
        ports: Option<(u16, u16)>,
    },
}

impl Change {
    /// What two changes have in common when one replaces the other: all but the value that they set.
    #[must_use]
    pub fn is_same_place(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Sysctl { key: one, .. }, Self::Sysctl { key: two, .. }) => one == two,
            (Self::Link { interface: one, .. }, Self::Link { interface: two, .. }) => one == two,
            (Self::Address { .. }, Self::Address { .. })
            | (Self::Route { .. }, Self::Route { .. })
            | (Self::NextHop { .. }, Self::NextHop { .. })
            | (Self::Up { .. }, Self::Up { .. })
            | (Self::Ignore { .. }, Self::Ignore { .. })
            | (Self::Rule { .. }, Self::Rule { .. })
            | (Self::ProxyNeighbour { .. }, Self::ProxyNeighbour { .. }) => self == other,
            (
                Self::Sysctl { .. }
                | Self::Link { .. }
                | Self::Up { .. }
                | Self::Ignore { .. }
                | Self::Address { .. }
                | Self::Route { .. }
                | Self::NextHop { .. }
                | Self::Rule { .. }
                | Self::ProxyNeighbour { .. },
                _,
            ) => false,
        }
    }
}

/// The command that makes this change by hand.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // A dot in a name would be taken for a separator; slashes are understood as well.
            Self::Sysctl { key, value } if key.contains('.') => {
                write!(f, "sysctl -w {}", quoted(&format!("{key}={value}")))
            }
            Self::Sysctl { key, value } => {
                write!(f, "sysctl -w {}", quoted(&format!("{}={value}", key.replace('/', "."))))
            }
            Self::Link { interface, mtu_bytes } => {
                write!(f, "ip link set dev {} mtu {mtu_bytes} up", quoted(interface))
            }
            Self::Up { interface } => write!(f, "ip link set dev {} up", quoted(interface)),
            Self::Ignore { is_v6, interface } => {
                let family = if *is_v6 { " -6" } else { "" };
                let selector = Selector::Interface(interface.clone());
                write!(
                    f,
                    "ip{family} rule add priority {PRIORITY_IGNORE} {selector} blackhole protocol {PROTOCOL}"
                )
            }
            Self::Address { interface, address, length } => {
                write!(f, "ip address add {address}/{length} dev {}", quoted(interface))
            }
            Self::Route { destination, length, interface, table } => {
                let family = family(destination);
                write!(f, "ip{family} route add {destination}/{length} dev {}", quoted(interface))?;
                if *table != TABLE_MAIN {
                    write!(f, " table {table}")?;
                }
                write!(f, " proto {PROTOCOL}")
            }
            Self::NextHop { address, table } => {
                let family = family(address);
                write!(f, "ip{family} route add default via {address} table {table} proto {PROTOCOL}")
            }
            Self::Rule { is_v6, priority, selector, table } => {
                let family = if *is_v6 { " -6" } else { "" };
                write!(f, "ip{family} rule add priority {priority} {selector} lookup ")?;
                match *table {
                    TABLE_MAIN => f.write_str("main")?,
                    number => write!(f, "{number}")?,
                }
                write!(f, " protocol {PROTOCOL}")
            }
            Self::ProxyNeighbour { address, interface } => {
                let family = family(address);
                write!(
                    f,
                    "ip{family} neigh add proxy {address} dev {} protocol {PROTOCOL}",
                    quoted(interface)
                )
            }
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface(name) => write!(f, "iif {}", quoted(name)),
            Self::Replies { address, protocol, ports } => {
                write!(f, "from {address}")?;
                match protocol.map(Protocol) {
                    // As `ip` names it.
                    Some(Protocol::ICMPV6) => f.write_str(" ipproto ipv6-icmp")?,
                    Some(protocol) => write!(f, " ipproto {protocol}")?,
                    None => {}
                }
                match ports {
                    Some((first, last)) if first == last => write!(f, " sport {first}"),
                    Some((first, last)) => write!(f, " sport {first}-{last}"),
                    None => Ok(()),
                }
            }
        }
    }
}

/// What `ip` must be told to mean this family.
const fn family(address: &IpAddr) -> &'static str {
    if address.is_ipv6() { " -6" } else { "" }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-=/:@".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Everything that a machine in these networks needs for `plan`, in the order in which it is made.
///
/// What directors need is done for TUNs alone: Ethernet interfaces are not the kernel's to route to.
#[must_use]
pub fn plan_of_changes(plan: &Plan, networks: &[Attached]) -> Vec<Change> {
    let mut changes = routed_changes(plan);
    changes.extend(ethernet_changes(plan));
    if plan.interfaces.iter().any(|interface| matches!(interface.layer, Layer::Ip)) {
        changes.extend(neighbours::proxies(plan, networks));
    }
    changes
}

/// What Ethernet interfaces need: to be up, and a kernel that leaves alone what the engine handles.
fn ethernet_changes(plan: &Plan) -> Vec<Change> {
    let is_frames = |interface: &&InterfacePlan| matches!(interface.layer, Layer::Ethernet(_));
    let has_v6 = has_v6(plan);
    let mut changes = Vec::new();
    for interface in plan.interfaces.iter().filter(is_frames) {
        let name = &interface.name;
        changes.push(Change::Ignore { is_v6: false, interface: name.clone() });
        if has_v6 {
            changes.push(Change::Ignore { is_v6: true, interface: name.clone() });
        }
        changes.push(Change::Up { interface: name.clone() });
    }
    changes
}

/// What TUNs need.
fn routed_changes(plan: &Plan) -> Vec<Change> {
    let interfaces: Vec<_> = plan
        .interfaces
        .iter()
        .enumerate()
        .filter(|(_, interface)| matches!(interface.layer, Layer::Ip))
        .map(|(index, interface)| (index, interface.name.as_str()))
        .collect();
    let Some(&(_, first)) = interfaces.first() else { return Vec::new() };
    let has_v6 = has_v6(plan);

    let mut changes = vec![setting("net/ipv4/ip_forward", "1")];
    if has_v6 {
        changes.push(setting("net/ipv6/conf/all/forwarding", "1"));
    }
    for interface in plan.interfaces.iter().filter(|interface| matches!(interface.layer, Layer::Ip)) {
        let name = &interface.name;
        // Packets come out of the TUN with the client's address, to which the way back is another one.
        changes.push(setting(&format!("net/ipv4/conf/{name}/rp_filter"), "0"));
        changes.push(Change::Link { interface: name.clone(), mtu_bytes: interface.mtu_bytes });
    }
    changes.extend(addresses(plan));
    changes.extend(service_routes(plan, first));
    for &(index, name) in &interfaces {
        changes.extend(rules_of_interface(plan, index, name, has_v6));
    }
    changes.extend(reply_routes(plan));
    changes
}

/// Where packets go that leave the forwarder by this interface: by the main table, or to the real server that the
/// interface is for.
fn rules_of_interface(plan: &Plan, index: usize, name: &str, has_v6: bool) -> Vec<Change> {
    let selector = Selector::Interface(name.to_owned());
    let priority = PRIORITY_FROM_FORWARDER;
    if let Some(address) = direct::real_server_of(plan, index) {
        let table = direct::TABLE_DIRECT.saturating_add(u32::try_from(index).unwrap_or(u32::MAX));
        let is_v6 = address.is_ipv6();
        return vec![Change::NextHop { address, table }, Change::Rule { is_v6, priority, selector, table }];
    }
    let rule = |is_v6| Change::Rule { is_v6, priority, selector: selector.clone(), table: TABLE_MAIN };
    if has_v6 { vec![rule(false), rule(true)] } else { vec![rule(false)] }
}

/// Whether anything in `plan` is IPv6.
fn has_v6(plan: &Plan) -> bool {
    let own = plan.interfaces.iter().flat_map(|interface| &interface.addresses).map(|own| own.address);
    let real = plan.directors.iter().flat_map(|director| &director.servers).map(|server| server.address);
    let services = service_addresses(plan).into_iter().map(|(_, service)| service.address);
    own.chain(real).chain(services).any(|address| address.is_ipv6())
}

pub(super) fn setting(key: &str, value: &str) -> Change {
    Change::Sysctl { key: key.to_owned(), value: value.to_owned() }
}

/// The interfaces' own addresses, without those that services use: a packet to an address of the kernel's
/// never reaches the TUN, and a packet from one is refused when it comes out of the TUN.
fn addresses(plan: &Plan) -> Vec<Change> {
    let used: Vec<Prefix> = service_addresses(plan).into_iter().map(|(_, service)| service).collect();
    let mut changes = Vec::new();
    for interface in plan.interfaces.iter().filter(|interface| matches!(interface.layer, Layer::Ip)) {
        for prefix in &interface.addresses {
            if !used.iter().any(|service| service.contains(prefix.address)) {
                changes.push(Change::Address {
                    interface: interface.name.clone(),
                    address: prefix.address,
                    length: prefix.length,
                });
            }
        }
    }
    changes
}

/// The addresses that belong to the engine and must not be the kernel's: VIPs, source-NAT addresses and the sources
/// of tunnels, each with who uses it.
#[must_use]
pub fn service_addresses(plan: &Plan) -> Vec<(String, Prefix)> {
    let mut addresses = Vec::new();
    for director in &plan.directors {
        let name = &director.name;
        for binding in &director.binds {
            addresses.push((format!("director {name}: the VIP"), binding.network));
        }
        match &director.mode {
            Mode::Nat { sources } => {
                let who = format!("director {name}: the source-NAT address");
                let hosts = sources.iter().map(|source| Prefix::host(source.address));
                addresses.extend(hosts.map(|host| (who.clone(), host)));
            }
            Mode::Gateway => {}
            Mode::Tunnel { .. } => {
                let who = format!("director {name}: the tunnel's source");
                addresses.extend(tunnel_sources(plan, director).map(|own| (who.clone(), Prefix::host(own))));
            }
        }
    }
    addresses
}

/// From whom tunnel packets of `director` come: the addresses that it names, or the first own ones of the interface by
/// which they leave.
fn tunnel_sources<'a>(plan: &'a Plan, director: &'a DirectorPlan) -> impl Iterator<Item = IpAddr> + 'a {
    let named = match &director.mode {
        Mode::Tunnel { sources, .. } => Some(sources.as_slice()),
        Mode::Nat { .. } | Mode::Gateway => None,
    };
    let found = named.into_iter().flat_map(move |named| {
        director.servers.iter().filter_map(move |server| {
            let is_fit = |address: &IpAddr| address.is_ipv4() == server.address.is_ipv4();
            let out = way_out(plan, server.address).and_then(|(index, _)| plan.interfaces.get(index));
            let own = out.into_iter().flat_map(|interface| &interface.addresses).map(|own| own.address);
            named.iter().copied().chain(own).find(is_fit)
        })
    });
    let unique: BTreeSet<IpAddr> = found.collect();
    unique.into_iter()
}

/// A route for each VIP, to the first interface, and for each source-NAT address, to the interface by which
/// its real servers are reached; so for the sources of tunnels.
fn service_routes(plan: &Plan, first: &str) -> Vec<Change> {
    let mut seen = BTreeSet::new();
    let mut changes = Vec::new();
    let mut add = |network: Prefix, interface: &str| {
        if seen.insert(network) {
            let Prefix { address: destination, length } = network;
            let interface = interface.to_owned();
            changes.push(Change::Route { destination, length, interface, table: TABLE_MAIN });
        }
    };
    for binding in plan.directors.iter().flat_map(|director| &director.binds) {
        add(binding.network, first);
    }
    for director in &plan.directors {
        let way_to = |address: IpAddr| {
            let is_its = |server: &&ServerPlan| server.address.is_ipv4() == address.is_ipv4();
            let towards = director.servers.iter().find(is_its).map(|server| server.address);
            towards.and_then(|address| way_out(plan, address)).map_or(first, |(_, name)| name)
        };
        if let Mode::Nat { sources } = &director.mode {
            for source in sources {
                add(Prefix::host(source.address), way_to(source.address));
            }
        }
        for source in tunnel_sources(plan, director) {
            // Errors about tunnel packets come back there.
            add(Prefix::host(source), way_to(source));
        }
    }
    changes
}

/// For real servers that see the client's own address: their replies go to the forwarder, not to the client.
fn reply_routes(plan: &Plan) -> Vec<Change> {
    let mut tables = BTreeSet::new();
    let mut rules = BTreeSet::new();
    for director in &plan.directors {
        for server in director.servers.iter().filter(|server| sees_clients(director, server)) {
            let Some((index, interface)) = way_out(plan, server.address) else { continue };
            let table = TABLE_REPLIES.saturating_add(u32::try_from(index).unwrap_or(u32::MAX));
            let selectors = replies_of(director, server);
            if !selectors.is_empty() {
                tables.insert((table, server.address.is_ipv6(), interface));
            }
            rules.extend(selectors.into_iter().map(|selector| (server.address.is_ipv6(), selector, table)));
        }
    }
    let routes = tables.into_iter().map(|(table, is_v6, interface)| {
        let destination = if is_v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        Change::Route { destination, length: 0, interface: interface.to_owned(), table }
    });
    let priority = PRIORITY_REPLIES;
    let rules =
        rules.into_iter().map(|(is_v6, selector, table)| Change::Rule { is_v6, priority, selector, table });
    routes.chain(rules).collect()
}

/// Whether the source of some packets to `server` stays the client's.
fn sees_clients(director: &DirectorPlan, server: &ServerPlan) -> bool {
    let Mode::Nat { sources } = &director.mode else { return false };
    !sources.iter().any(|source| {
        source.address.is_ipv4() == server.address.is_ipv4()
            && source.interface_in.is_none()
            && source.interface_out.is_none()
            && source.service_ports == ANY_PORT
    })
}

/// What `server` sends that belongs to flows of `director`.
fn replies_of(director: &DirectorPlan, server: &ServerPlan) -> Vec<Selector> {
    let address = server.address;
    let is_its = |binding: &&Binding| binding.network.address.is_ipv4() == address.is_ipv4();
    let bound = director.binds.iter().filter(is_its).map(|binding| {
        let ports = if server.port == 0 { binding.ports.clone() } else { server.port..=server.port };
        // Any port is any protocol as well, so that pings come back; port 0 needs no rule of its own.
        let is_any = ports == ANY_PORT && binding.protocol.is_none();
        let protocols = match binding.protocol {
            _ if is_any => vec![None],
            Some(protocol) => vec![Some(protocol.0)],
            None => vec![Some(Protocol::TCP.0), Some(Protocol::UDP.0)],
        };
        (protocols, ends(&ports))
    });
    let mut selectors: Vec<Selector> = bound
        .flat_map(|(protocols, ports)| {
            protocols.into_iter().map(move |protocol| Selector::Replies { address, protocol, ports })
        })
        .collect();
    if director.ping == Ping::Forward && !selectors.is_empty() {
        let protocol = if address.is_ipv4() { Protocol::ICMP } else { Protocol::ICMPV6 };
        selectors.push(Selector::Replies { address, protocol: Some(protocol.0), ports: None });
    }
    selectors
}

/// The ends of a range of ports, as a rule has them; `None` for any port.
fn ends(ports: &RangeInclusive<u16>) -> Option<(u16, u16)> {
    (*ports != ANY_PORT).then(|| (*ports.start(), *ports.end()))
}

pub(super) fn is_of_forwarder(plan: &Plan, name: &str) -> bool {
    plan.interfaces.iter().any(|interface| interface.name == name)
}

/// The interface by which the engine reaches `address`: the longest prefix wins, then the first.
pub(super) fn way_out(plan: &Plan, address: IpAddr) -> Option<(usize, &str)> {
    let mut best: Option<(Prefix, usize)> = None;
    for route in plan.routes.iter().filter(|route| route.destination.contains(address)) {
        if best.is_none_or(|(prefix, _)| prefix.length < route.destination.length) {
            best = Some((route.destination, route.interface.index()));
        }
    }
    let (_, index) = best?;
    let interface = plan.interfaces.get(index)?;
    matches!(interface.layer, Layer::Ip).then_some((index, interface.name.as_str()))
}

#[cfg(test)]
mod tests {
    use evenkeel_engine::InterfaceId;
    use evenkeel_engine::forward::tunnel::Encapsulation;
    use evenkeel_engine::plan::{Builtin, InterfacePlan, RoutePlan, SourceNat};

    use super::*;

    fn interface(name: &str, addresses: &[[u8; 4]]) -> InterfacePlan {
        let prefix = |bytes: &[u8; 4]| Prefix { address: (*bytes).into(), length: 24 };
        let addresses = addresses.iter().map(prefix).collect();
        InterfacePlan { addresses, ..InterfacePlan::new(name, Layer::Ip) }
    }

    fn route(to: [u8; 4], length: u8, interface: u16) -> RoutePlan {
        let destination = Prefix { address: to.into(), length };
        RoutePlan { destination, gateway: None, interface: InterfaceId(interface) }
    }

    fn director(name: &str, vip: u8, protocol: Protocol, servers: &[([u8; 4], u16)]) -> DirectorPlan {
        let server =
            |&(address, port): &([u8; 4], u16)| ServerPlan::new(&format!("s{port}"), address.into(), port, 1);
        let bind = Binding::of([10, 0, 0, vip].into(), 80, protocol);
        DirectorPlan::new(name, bind, Builtin::RoundRobin, servers.iter().map(server).collect())
    }

    fn plan() -> Plan {
        Plan {
            interfaces: vec![interface("tun0", &[[10, 99, 0, 1]])],
            routes: vec![route([0, 0, 0, 0], 0, 0)],
            directors: vec![director("web", 3, Protocol::TCP, &[([10, 0, 3, 20], 8080)])],
            ..Plan::empty()
        }
    }

    fn commands(plan: &Plan) -> Vec<String> {
        plan_of_changes(plan, &[]).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn one_director_without_source_nat_needs_exactly_this() {
        let expected = [
            "sysctl -w net.ipv4.ip_forward=1",
            "sysctl -w net.ipv4.conf.tun0.rp_filter=0",
            "ip link set dev tun0 mtu 1500 up",
            "ip address add 10.99.0.1/24 dev tun0",
            "ip route add 10.0.0.3/32 dev tun0 proto 69",
            "ip rule add priority 1000 iif tun0 lookup main protocol 69",
            "ip route add 0.0.0.0/0 dev tun0 table 7790 proto 69",
            "ip rule add priority 1001 from 10.0.3.20 ipproto tcp sport 8080 lookup 7790 protocol 69",
        ];
        assert_eq!(commands(&plan()), expected);
    }

    #[test]
    fn source_nat_needs_a_route_to_its_address_and_no_rule_for_replies() {
        let mut plan = plan();
        let source = SourceNat::to([10, 99, 0, 2].into(), 1024..=65535);
        plan.directors[0].mode = Mode::Nat { sources: vec![source] };
        let commands = commands(&plan);
        assert!(commands.contains(&"ip route add 10.99.0.2/32 dev tun0 proto 69".to_owned()), "{commands:?}");
        assert!(!commands.iter().any(|command| command.contains("7790")), "{commands:?}");
    }

    #[test]
    fn an_address_that_a_service_uses_never_becomes_the_kernels() {
        let mut plan = plan();
        let source = SourceNat::to([10, 99, 0, 1].into(), 1024..=65535);
        plan.directors[0].mode = Mode::Nat { sources: vec![source] };
        let commands = commands(&plan);
        assert!(!commands.iter().any(|command| command.contains("address add")), "{commands:?}");
        assert!(commands.contains(&"ip route add 10.99.0.1/32 dev tun0 proto 69".to_owned()), "{commands:?}");
    }

    #[test]
    fn what_directors_share_is_there_once() {
        let mut plan = plan();
        let servers = [([10, 0, 3, 20], 8080), ([10, 0, 3, 21], 8080)];
        plan.directors.push(director("again", 3, Protocol::TCP, &servers));
        plan.directors.push(director("dns", 3, Protocol::UDP, &servers));
        let commands = commands(&plan);
        let count = |text: &str| commands.iter().filter(|command| command.contains(text)).count();
        assert_eq!(count("10.0.0.3/32"), 1);
        assert_eq!(count("from 10.0.3.20 ipproto tcp"), 1);
        assert_eq!(count("ipproto udp"), 2);
        assert_eq!(count("0.0.0.0/0"), 1);
        let unique: BTreeSet<&String> = commands.iter().collect();
        assert_eq!(unique.len(), commands.len());
    }

    #[test]
    fn replies_come_back_by_the_interface_that_the_longest_route_names() {
        let mut plan = plan();
        plan.interfaces.push(interface("tun1", &[]));
        plan.routes.push(route([10, 0, 3, 0], 24, 1));
        let commands = commands(&plan);
        for expected in [
            "ip route add 10.0.0.3/32 dev tun0 proto 69",
            "ip route add 0.0.0.0/0 dev tun1 table 7791 proto 69",
            "ip rule add priority 1000 iif tun1 lookup main protocol 69",
            "ip rule add priority 1001 from 10.0.3.20 ipproto tcp sport 8080 lookup 7791 protocol 69",
        ] {
            assert!(commands.contains(&expected.to_owned()), "{expected}: {commands:?}");
        }
    }

    #[test]
    fn an_ethernet_interface_is_brought_up_and_the_kernel_leaves_its_packets_alone() {
        let mut plan = plan();
        let mac = evenkeel_engine::wire::ethernet::MacAddress([2, 0, 0, 0, 0, 1]);
        plan.interfaces[0] = InterfacePlan { name: "lan".to_owned(), ..plan.interfaces[0].clone() };
        plan.interfaces[0].layer = Layer::Ethernet(mac);
        let v4 = "ip rule add priority 999 iif lan blackhole protocol 69";
        let v6 = "ip -6 rule add priority 999 iif lan blackhole protocol 69";
        let up = "ip link set dev lan up";
        assert_eq!(commands(&plan), [v4, up]);
        plan.directors[0].servers.push(ServerPlan::new("s6", "fd00::20".parse().unwrap(), 0, 1));
        assert_eq!(commands(&plan), [v4, v6, up]);
        // Beside a TUN both get what they need.
        plan.interfaces.insert(0, interface("tun0", &[]));
        let mixed = commands(&plan);
        for expected in [v4, v6, up, "ip route add 10.0.0.3/32 dev tun0 proto 69"] {
            assert!(mixed.contains(&expected.to_owned()), "{expected}: {mixed:?}");
        }
        assert!(!mixed.iter().any(|command| command.contains("mtu 1500") && command.contains("lan")));
    }

    #[test]
    fn names_from_a_file_are_quoted_for_the_shell() {
        let mut plan = plan();
        plan.interfaces[0].name = "t;reboot'".to_owned();
        assert!(commands(&plan).contains(&r"ip link set dev 't;reboot'\''' mtu 1500 up".to_owned()));
        plan.interfaces[0].name = "tun.7".to_owned();
        let setting = "sysctl -w net/ipv4/conf/tun.7/rp_filter=0".to_owned();
        assert!(commands(&plan).contains(&setting), "a dot in a name is not a separator");
    }

    #[test]
    fn a_new_value_takes_the_place_of_the_old_one_and_of_nothing_else() {
        let link = |mtu_bytes| Change::Link { interface: "tun0".to_owned(), mtu_bytes };
        assert!(link(1500).is_same_place(&link(9000)));
        assert!(!link(1500).is_same_place(&Change::Link { interface: "tun1".to_owned(), mtu_bytes: 1500 }));
        assert!(!link(1500).is_same_place(&setting("net/ipv4/ip_forward", "1")));
        assert!(setting("a", "1").is_same_place(&setting("a", "0")));
    }

    #[test]
    fn ipv6_needs_the_same_of_its_own_tables() {
        let mut plan = plan();
        let vip = Prefix { address: "fc00::".parse().unwrap(), length: 64 };
        plan.directors[0].binds = vec![Binding { network: vip, ports: ANY_PORT, protocol: None }];
        plan.directors[0].servers = vec![ServerPlan::new("s1", "fd00::20".parse().unwrap(), 0, 1)];
        plan.interfaces[0].addresses = vec![Prefix { address: "fd99::1".parse().unwrap(), length: 64 }];
        let all = Prefix { address: "::".parse().unwrap(), length: 0 };
        plan.routes.push(RoutePlan { destination: all, gateway: None, interface: InterfaceId(0) });
        let expected = [
            "sysctl -w net.ipv4.ip_forward=1",
            "sysctl -w net.ipv6.conf.all.forwarding=1",
            "sysctl -w net.ipv4.conf.tun0.rp_filter=0",
            "ip link set dev tun0 mtu 1500 up",
            "ip address add fd99::1/64 dev tun0",
            "ip -6 route add fc00::/64 dev tun0 proto 69",
            "ip rule add priority 1000 iif tun0 lookup main protocol 69",
            "ip -6 rule add priority 1000 iif tun0 lookup main protocol 69",
            "ip -6 route add ::/0 dev tun0 table 7790 proto 69",
            "ip -6 rule add priority 1001 from fd00::20 lookup 7790 protocol 69",
        ];
        assert_eq!(commands(&plan), expected);
    }

    #[test]
    fn replies_are_told_by_every_protocol_and_port_that_a_director_serves() {
        let mut plan = plan();
        let bind = Binding { ports: 80..=90, protocol: None, ..plan.directors[0].binds[0].clone() };
        plan.directors[0].binds = vec![bind];
        plan.directors[0].servers[0].port = 0;
        plan.directors[0].ping = Ping::Forward;
        let commands = commands(&plan);
        for expected in [
            "from 10.0.3.20 ipproto tcp sport 80-90",
            "from 10.0.3.20 ipproto udp sport 80-90",
            "from 10.0.3.20 ipproto icmp lookup",
        ] {
            assert!(commands.iter().any(|command| command.contains(expected)), "{expected}: {commands:?}");
        }
    }

    #[test]
    fn source_nat_for_some_flows_leaves_rules_for_the_replies_of_the_others() {
        let mut plan = plan();
        let source = SourceNat {
            interface_in: Some(InterfaceId(0)),
            ..SourceNat::to([10, 99, 0, 2].into(), 1024..=65535)
        };
        plan.directors[0].mode = Mode::Nat { sources: vec![source] };
        let commands = commands(&plan);
        assert!(commands.iter().any(|command| command.contains("from 10.0.3.20")), "{commands:?}");
        assert!(commands.iter().any(|command| command.contains("10.99.0.2/32")), "{commands:?}");
    }

    #[test]
    fn the_source_of_a_tunnel_is_the_forwarders_and_replies_go_their_own_way() {
        let mut plan = plan();
        plan.directors[0].mode =
            Mode::Tunnel { encapsulation: Encapsulation::IpIp, sources: Vec::new(), ttl: None };
        let commands = commands(&plan);
        assert!(!commands.iter().any(|command| command.contains("address add")), "{commands:?}");
        assert!(!commands.iter().any(|command| command.contains("7790")), "{commands:?}");
        assert!(commands.contains(&"ip route add 10.99.0.1/32 dev tun0 proto 69".to_owned()), "{commands:?}");
    }

    #[test]
    fn an_interface_for_one_real_server_routes_to_it_alone() {
        let mut plan = plan();
        plan.directors[0].mode = Mode::Gateway;
        plan.directors[0].servers[0].port = 0;
        let commands = commands(&direct::spread(&plan).unwrap());
        for expected in [
            "sysctl -w net.ipv4.conf.tun0-g1.rp_filter=0",
            "ip link set dev tun0-g1 mtu 1500 up",
            "ip route add default via 10.0.3.20 table 7901 proto 69",
            "ip rule add priority 1000 iif tun0-g1 lookup 7901 protocol 69",
            "ip rule add priority 1000 iif tun0 lookup main protocol 69",
        ] {
            assert!(commands.contains(&expected.to_owned()), "{expected}: {commands:?}");
        }
        assert!(!commands.iter().any(|command| command.contains("7790")), "{commands:?}");
    }
}
