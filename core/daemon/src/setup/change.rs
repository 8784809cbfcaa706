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
//! Neighbours in a network ask by ARP for a service's address that lies in it. The kernel answers for
//! addresses that it is told of (proxy neighbours), as long as their route leads to another interface, which
//! the forwarder's is. That comes last: nobody is called before the forwarder is ready.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use evenkeel_engine::Plan;
use evenkeel_engine::plan::{Layer, Mode, Prefix};
use evenkeel_engine::wire::Protocol;

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
    /// The kernel has this address there.
    Address {
        /// The interface.
        interface: String,
        /// The address and the length of its network.
        address: Ipv4Addr,
        /// Bits of the network part.
        length: u8,
    },
    /// Packets to this destination enter the forwarder.
    Route {
        /// The destination; `0.0.0.0/0` for the default.
        destination: Ipv4Addr,
        /// Bits of the network part.
        length: u8,
        /// The interface.
        interface: String,
        /// The routing table.
        table: u32,
    },
    /// These packets are routed by that table.
    Rule {
        /// The place among the rules; lower is earlier.
        priority: u32,
        /// Which packets.
        selector: Selector,
        /// The routing table.
        table: u32,
    },
    /// The kernel answers ARP for this address on that interface.
    ProxyNeighbour {
        /// The address, which is not the kernel's.
        address: Ipv4Addr,
        /// The interface.
        interface: String,
    },
}

/// A network that an interface of the machine is attached to, where neighbours ask by ARP.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attached {
    /// The interface.
    pub interface: String,
    /// The machine's address there.
    pub address: Ipv4Addr,
    /// Bits of the network part.
    pub length: u8,
}

/// Which packets a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Selector {
    /// Packets that come in by this interface.
    Interface(String),
    /// What this real server sends from its port.
    Replies {
        /// The RIP.
        address: Ipv4Addr,
        /// 6 for TCP, 17 for UDP.
        protocol: u8,
        /// The port.
        port: u16,
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
            | (Self::Rule { .. }, Self::Rule { .. })
            | (Self::ProxyNeighbour { .. }, Self::ProxyNeighbour { .. }) => self == other,
            (
                Self::Sysctl { .. }
                | Self::Link { .. }
                | Self::Address { .. }
                | Self::Route { .. }
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
            Self::Address { interface, address, length } => {
                write!(f, "ip address add {address}/{length} dev {}", quoted(interface))
            }
            Self::Route { destination, length, interface, table } => {
                write!(f, "ip route add {destination}/{length} dev {}", quoted(interface))?;
                if *table != TABLE_MAIN {
                    write!(f, " table {table}")?;
                }
                write!(f, " proto {PROTOCOL}")
            }
            Self::Rule { priority, selector, table } => {
                write!(f, "ip rule add priority {priority} {selector} lookup ")?;
                match *table {
                    TABLE_MAIN => f.write_str("main")?,
                    number => write!(f, "{number}")?,
                }
                write!(f, " protocol {PROTOCOL}")
            }
            Self::ProxyNeighbour { address, interface } => {
                write!(f, "ip neigh add proxy {address} dev {} protocol {PROTOCOL}", quoted(interface))
            }
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface(name) => write!(f, "iif {}", quoted(name)),
            Self::Replies { address, protocol, port } => {
                write!(f, "from {address} ipproto {} sport {port}", Protocol(*protocol))
            }
        }
    }
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
/// Interfaces with frames are not the kernel's to route to and are left out, and so is what is not IPv4.
#[must_use]
pub fn plan_of_changes(plan: &Plan, networks: &[Attached]) -> Vec<Change> {
    let interfaces: Vec<_> = plan
        .interfaces
        .iter()
        .enumerate()
        .filter(|(_, interface)| matches!(interface.layer, Layer::Ip))
        .map(|(index, interface)| (index, interface.name.as_str()))
        .collect();
    let Some(&(_, first)) = interfaces.first() else { return Vec::new() };

    let mut changes = vec![setting("net/ipv4/ip_forward", "1")];
    for interface in plan.interfaces.iter().filter(|interface| matches!(interface.layer, Layer::Ip)) {
        let name = &interface.name;
        // Packets come out of the TUN with the client's address, to which the way back is another one.
        changes.push(setting(&format!("net/ipv4/conf/{name}/rp_filter"), "0"));
        changes.push(Change::Link { interface: name.clone(), mtu_bytes: interface.mtu_bytes });
    }
    changes.extend(addresses(plan));
    changes.extend(service_routes(plan, first));
    changes.extend(interfaces.iter().map(|&(_, name)| Change::Rule {
        priority: PRIORITY_FROM_FORWARDER,
        selector: Selector::Interface(name.to_owned()),
        table: TABLE_MAIN,
    }));
    changes.extend(reply_routes(plan));
    changes.extend(proxy_neighbours(plan, networks));
    changes
}

fn setting(key: &str, value: &str) -> Change {
    Change::Sysctl { key: key.to_owned(), value: value.to_owned() }
}

/// The interfaces' own addresses, without those that services use: a packet to an address of the kernel's
/// never reaches the TUN, and a packet from one is refused when it comes out of the TUN.
fn addresses(plan: &Plan) -> Vec<Change> {
    let used: BTreeSet<Ipv4Addr> = service_addresses(plan).into_iter().map(|(_, address)| address).collect();
    let mut changes = Vec::new();
    for interface in plan.interfaces.iter().filter(|interface| matches!(interface.layer, Layer::Ip)) {
        for prefix in &interface.addresses {
            if let IpAddr::V4(address) = prefix.address
                && !used.contains(&address)
            {
                changes.push(Change::Address {
                    interface: interface.name.clone(),
                    address,
                    length: prefix.length,
                });
            }
        }
    }
    changes
}

/// The addresses that belong to the engine and must not be the kernel's: VIPs and source-NAT addresses,
/// each with who uses it.
#[must_use]
pub fn service_addresses(plan: &Plan) -> Vec<(String, Ipv4Addr)> {
    let mut addresses = Vec::new();
    for director in &plan.directors {
        if let IpAddr::V4(address) = director.address {
            addresses.push((format!("director {}: the VIP", director.name), address));
        }
        let Mode::Nat { source } = &director.mode;
        if let Some(IpAddr::V4(address)) = source.as_ref().map(|source| source.address) {
            addresses.push((format!("director {}: the source-NAT address", director.name), address));
        }
    }
    addresses
}

/// A route for each VIP, to the first interface, and for each source-NAT address, to the interface by which
/// its real servers are reached.
fn service_routes(plan: &Plan, first: &str) -> Vec<Change> {
    let mut seen = BTreeSet::new();
    let mut changes = Vec::new();
    let mut add = |address: IpAddr, interface: &str| {
        if let IpAddr::V4(destination) = address
            && seen.insert(destination)
        {
            let interface = interface.to_owned();
            changes.push(Change::Route { destination, length: 32, interface, table: TABLE_MAIN });
        }
    };
    for director in &plan.directors {
        add(director.address, first);
    }
    for director in &plan.directors {
        let Mode::Nat { source: Some(source) } = &director.mode else { continue };
        let towards = director.servers.first().map(|server| server.address);
        let way = towards.and_then(|address| way_out(plan, address)).map_or(first, |(_, name)| name);
        add(source.address, way);
    }
    changes
}

/// For real servers that see the client's own address: their replies go to the forwarder, not to the client.
fn reply_routes(plan: &Plan) -> Vec<Change> {
    let mut tables = BTreeSet::new();
    let mut rules = BTreeSet::new();
    for director in &plan.directors {
        let Mode::Nat { source: None } = &director.mode else { continue };
        for server in &director.servers {
            let IpAddr::V4(address) = server.address else { continue };
            let Some((index, interface)) = way_out(plan, server.address) else { continue };
            let table = TABLE_REPLIES.saturating_add(u32::try_from(index).unwrap_or(u32::MAX));
            tables.insert((table, interface));
            let protocol = director.protocol.0;
            rules.insert((Selector::Replies { address, protocol, port: server.port }, table));
        }
    }
    let routes = tables.into_iter().map(|(table, interface)| Change::Route {
        destination: Ipv4Addr::UNSPECIFIED,
        length: 0,
        interface: interface.to_owned(),
        table,
    });
    let rules = rules.into_iter().map(|(selector, table)| Change::Rule {
        priority: PRIORITY_REPLIES,
        selector,
        table,
    });
    routes.chain(rules).collect()
}

/// For service addresses in a network of the machine: its kernel answers there when neighbours ask for them,
/// and at once. By default it would take up to 0.8 s for addresses that are not its own.
fn proxy_neighbours(plan: &Plan, networks: &[Attached]) -> Vec<Change> {
    let mut found = BTreeSet::new();
    for network in networks.iter().filter(|network| !is_of_forwarder(plan, &network.interface)) {
        let prefix = Prefix { address: network.address.into(), length: network.length };
        for (_, address) in service_addresses(plan) {
            if prefix.contains(address.into()) && address != network.address {
                found.insert((network.interface.as_str(), address));
            }
        }
    }
    let interfaces: BTreeSet<&str> = found.iter().map(|(interface, _)| *interface).collect();
    let at_once = interfaces.iter().map(|name| setting(&format!("net/ipv4/neigh/{name}/proxy_delay"), "0"));
    let answers = found
        .iter()
        .map(|&(interface, address)| Change::ProxyNeighbour { address, interface: interface.to_owned() });
    at_once.chain(answers).collect()
}

fn is_of_forwarder(plan: &Plan, name: &str) -> bool {
    plan.interfaces.iter().any(|interface| interface.name == name)
}

/// The interface by which the engine reaches `address`: the longest prefix wins, then the first.
fn way_out(plan: &Plan, address: IpAddr) -> Option<(usize, &str)> {
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
    use evenkeel_engine::plan::{
        Builtin, DirectorPlan, InterfacePlan, RoutePlan, SchedulerPlan, ServerPlan, SourceNat,
    };

    use super::*;

    fn interface(name: &str, addresses: &[[u8; 4]]) -> InterfacePlan {
        let prefix = |bytes: &[u8; 4]| Prefix { address: (*bytes).into(), length: 24 };
        InterfacePlan {
            name: name.to_owned(),
            layer: Layer::Ip,
            addresses: addresses.iter().map(prefix).collect(),
            mtu_bytes: 1500,
        }
    }

    fn route(to: [u8; 4], length: u8, interface: u16) -> RoutePlan {
        let destination = Prefix { address: to.into(), length };
        RoutePlan { destination, gateway: None, interface: InterfaceId(interface) }
    }

    fn director(name: &str, vip: u8, protocol: Protocol, servers: &[([u8; 4], u16)]) -> DirectorPlan {
        DirectorPlan {
            name: name.to_owned(),
            address: [10, 0, 0, vip].into(),
            port: 80,
            protocol,
            mode: Mode::Nat { source: None },
            scheduler: SchedulerPlan::Builtin(Builtin::RoundRobin),
            servers: servers
                .iter()
                .map(|&(address, port)| ServerPlan {
                    name: format!("s{port}"),
                    address: address.into(),
                    port,
                    weight: 1,
                })
                .collect(),
        }
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
        commands_in(plan, &[])
    }

    fn commands_in(plan: &Plan, networks: &[Attached]) -> Vec<String> {
        plan_of_changes(plan, networks).iter().map(ToString::to_string).collect()
    }

    fn attached(interface: &str, address: [u8; 4], length: u8) -> Attached {
        Attached { interface: interface.to_owned(), address: address.into(), length }
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
        let source = SourceNat { address: [10, 99, 0, 2].into(), ports: 1024..=65535 };
        plan.directors[0].mode = Mode::Nat { source: Some(source) };
        let commands = commands(&plan);
        assert!(commands.contains(&"ip route add 10.99.0.2/32 dev tun0 proto 69".to_owned()), "{commands:?}");
        assert!(!commands.iter().any(|command| command.contains("7790")), "{commands:?}");
    }

    #[test]
    fn an_address_that_a_service_uses_never_becomes_the_kernels() {
        let mut plan = plan();
        let source = SourceNat { address: [10, 99, 0, 1].into(), ports: 1024..=65535 };
        plan.directors[0].mode = Mode::Nat { source: Some(source) };
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
    fn arp_is_answered_for_services_in_networks_of_the_machine_and_for_nothing_else() {
        let mut plan = plan();
        let source = SourceNat { address: [10, 0, 3, 9].into(), ports: 1024..=65535 };
        plan.directors[0].mode = Mode::Nat { source: Some(source) };
        let networks = [
            attached("eth0", [10, 0, 0, 1], 24),
            attached("eth1.5", [10, 0, 3, 1], 24),
            attached("eth1.5", [10, 0, 3, 2], 24),
            attached("eth2", [192, 0, 2, 1], 24),
            attached("tun0", [10, 0, 0, 7], 8),
        ];
        let mut expected = commands(&plan);
        expected.extend(
            [
                "sysctl -w net.ipv4.neigh.eth0.proxy_delay=0",
                "sysctl -w net/ipv4/neigh/eth1.5/proxy_delay=0",
                "ip neigh add proxy 10.0.0.3 dev eth0 protocol 69",
                "ip neigh add proxy 10.0.3.9 dev eth1.5 protocol 69",
            ]
            .map(str::to_owned),
        );
        assert_eq!(commands_in(&plan, &networks), expected);
    }

    #[test]
    fn a_plan_without_a_tun_needs_nothing() {
        let mut plan = plan();
        plan.interfaces[0].layer =
            Layer::Ethernet(evenkeel_engine::wire::ethernet::MacAddress([2, 0, 0, 0, 0, 1]));
        assert_eq!(commands(&plan), Vec::<String>::new());
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
}
