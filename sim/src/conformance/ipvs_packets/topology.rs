//! What a scenario was: hosts and links as the format describes them, and the director's set-up as its name, its frames
//! and its connection table tell it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

use evenkeel_engine::forward::tunnel::Encapsulation;
use evenkeel_engine::plan::{
    Binding, Builtin, DirectorPlan, InterfacePlan, Layer, Mode, Ping, Plan, Prefix, RoutePlan, ServerPlan,
    SourceNat,
};
use evenkeel_engine::verdict::InterfaceId;
use evenkeel_engine::wire::Protocol;
use evenkeel_engine::wire::ethernet::MacAddress;

use super::Frame;
use crate::conformance::Options;
use crate::conformance::frame::{Parsed, mend};

/// The hosts, with the byte that names them in their MAC addresses.
pub(super) const HOSTS: &[(&str, u8)] = &[("cl", 1), ("rt", 2), ("lb", 3), ("s1", 4), ("s2", 5)];

const DIRECTOR: u8 = 3;
const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
/// The director's own addresses, by interface.
const OWN: [&[Ipv4Addr]; 2] = [&[Ipv4Addr::new(10, 0, 0, 2), VIP], &[Ipv4Addr::new(10, 0, 3, 2)]];
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The router's address on the director's link.
const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 2, 1];
/// The networks of the director's interfaces, each of 24 bits.
const NETWORKS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 0), Ipv4Addr::new(10, 0, 3, 0)];
/// The last byte of the first real server's address: s1 is .20, s2 is .21.
const FIRST_SERVER: u8 = 20;
const PORT: u16 = 8000;
const MTU_BYTES: u16 = 1500;
/// The smallest MTU that an IPv4 link may have.
const MTU_LEAST: u16 = 68;

/// A scenario as it was recorded.
pub(super) struct Scenario<'a> {
    pub(super) name: &'a str,
    pub(super) frames: &'a [Frame],
    pub(super) tables: &'a str,
}

/// How the director forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Nat,
    Gateway,
    Tunnel(Encapsulation),
}

/// A real server: its address and port.
type Server = (Ipv4Addr, u16);

/// What a scenario was.
#[derive(Clone, Debug)]
pub(super) struct Topology {
    way: Way,
    /// The ports of source NAT, where the director translated sources.
    pub(super) snat_ports: Option<RangeInclusive<u16>>,
    is_two_nic: bool,
    /// The service's protocols and ports.
    services: BTreeSet<(u8, u16)>,
    /// Real servers with their port, in the order of the director's list.
    servers: Vec<Server>,
    /// No real server took new flows.
    is_drained: bool,
    /// The MTU towards the real servers.
    mtu_bytes: u16,
    options: Options,
}

/// Whether these six bytes are a MAC address of the director.
pub(super) fn is_own_mac(bytes: &[u8]) -> bool {
    bytes.len() == 6 && bytes.starts_with(&[2, 0, 0, 0, DIRECTOR])
}

impl Topology {
    pub(super) fn read(scenario: &Scenario<'_>, options: Options) -> Self {
        let name = scenario.name;
        let sent: Vec<_> = sent(scenario).collect();
        let is_two_nic = name.contains("two_nic")
            || scenario.frames.iter().any(|frame| frame.host == "lb" && frame.interface == 1);
        let way = way(name, &sent);
        let (services, listed) = table(scenario.tables);
        let mut topology = Self {
            way,
            snat_ports: None,
            is_two_nic,
            services,
            servers: Vec::new(),
            is_drained: false,
            mtu_bytes: MTU_BYTES,
            options,
        };
        if topology.services.is_empty() {
            topology.services = [(Protocol::TCP.0, PORT), (Protocol::UDP.0, PORT)].into();
        }
        topology.servers = topology.picked(&sent, &listed);
        topology.is_drained = topology.servers.is_empty() && topology.refuses(&sent);
        if topology.servers.is_empty() {
            let [_, _, third, _] = topology.network().octets();
            let port = if way == Way::Nat { PORT } else { 0 };
            topology.servers.push((Ipv4Addr::new(10, 0, third, FIRST_SERVER), port));
        }
        if way == Way::Nat {
            topology.snat_ports = topology.source_ports(name, scenario, &sent);
        }
        topology.mtu_bytes = topology.mtu(name, &sent);
        topology
    }

    /// The set-up in words.
    pub(super) fn words(&self) -> String {
        let way = match (self.way, &self.snat_ports) {
            (Way::Nat, Some(ports)) if *ports.start() > 1 => {
                format!("nat, sources to ports {} to {}", ports.start(), ports.end())
            }
            (Way::Nat, Some(_)) => "nat, sources too".to_owned(),
            (Way::Nat, None) => "nat".to_owned(),
            (Way::Gateway, _) => "gateway".to_owned(),
            (Way::Tunnel(Encapsulation::IpIp), _) => "tunnel ipip".to_owned(),
            (Way::Tunnel(Encapsulation::Gre { checksum }), _) => {
                format!("tunnel gre{}", if checksum { " with checksum" } else { "" })
            }
            (Way::Tunnel(Encapsulation::Gue { port, checksum }), _) => {
                format!("tunnel gue to port {port}{}", if checksum { " with checksum" } else { "" })
            }
        };
        let servers: Vec<_> = self.servers.iter().map(|(address, _)| address.to_string()).collect();
        let drained = if self.is_drained { ", all drained" } else { "" };
        let nics = if self.is_two_nic { "two interfaces" } else { "one interface" };
        format!("{way}, {nics}, {}{drained}", servers.join(" "))
    }

    /// Whether these bytes are an address of the director.
    pub(super) fn is_own(&self, address: &[u8]) -> bool {
        let interfaces = if self.is_two_nic { 2 } else { 1 };
        OWN.iter().take(interfaces).flat_map(|own| own.iter()).any(|own| own.octets() == address)
    }

    /// Whether these bytes are the address of a real server.
    pub(super) fn is_server(&self, address: &[u8]) -> bool {
        self.servers.iter().any(|(server, _)| server.octets() == address)
    }

    pub(super) const fn is_tunnel(&self) -> bool {
        matches!(self.way, Way::Tunnel(_))
    }

    pub(super) const fn is_nat(&self) -> bool {
        matches!(self.way, Way::Nat)
    }

    /// The plan of an engine in the director's place.
    pub(super) fn plan(&self) -> Plan {
        let mut plan = Plan::empty();
        plan.handling.fills_udp_checksum = self.options.as_recorded;
        let interfaces = if self.is_two_nic { 2 } else { 1 };
        for (number, own) in (0..).zip(OWN.iter().take(interfaces)) {
            let mac = MacAddress([2, 0, 0, 0, DIRECTOR, number]);
            let mut interface = InterfacePlan::new(&format!("eth{number}"), Layer::Ethernet(mac));
            interface.addresses =
                own.iter().map(|address| Prefix { address: (*address).into(), length: 24 }).collect();
            if usize::from(number) + 1 == interfaces {
                interface.mtu_bytes = self.mtu_bytes;
            }
            plan.interfaces.push(interface);
        }
        for (number, network) in (0_u16..).zip(NETWORKS.iter().take(interfaces)) {
            let destination = Prefix { address: (*network).into(), length: 24 };
            plan.routes.push(RoutePlan { destination, gateway: None, interface: InterfaceId(number) });
        }
        let destination = Prefix { address: Ipv4Addr::UNSPECIFIED.into(), length: 0 };
        plan.routes.push(RoutePlan { destination, gateway: Some(ROUTER.into()), interface: InterfaceId(0) });
        plan.directors.extend(self.directors());
        plan
    }

    fn directors(&self) -> Vec<DirectorPlan> {
        let weight = u32::from(!self.is_drained);
        // IPVS puts a new real server in front of its list, and so does the engine: what is to come first is named last.
        let servers = self.servers.iter().rev().enumerate().map(|(number, (address, port))| {
            ServerPlan::new(&format!("server{number}"), (*address).into(), *port, weight)
        });
        let servers: Vec<_> = servers.collect();
        let director = |(protocol, port): &(u8, u16)| {
            let protocol = Protocol(*protocol);
            let bind = Binding::of(VIP.into(), *port, protocol);
            let mut director =
                DirectorPlan::new(&format!("{port}/{protocol}"), bind, Builtin::RoundRobin, servers.clone());
            director.ping = Ping::Always;
            director.mode = match self.way {
                Way::Nat => {
                    let ports = self.snat_ports.iter();
                    Mode::Nat {
                        sources: ports.map(|ports| SourceNat::to(VIP.into(), ports.clone())).collect(),
                    }
                }
                Way::Gateway => Mode::Gateway,
                Way::Tunnel(encapsulation) => Mode::Tunnel { encapsulation, sources: Vec::new(), ttl: None },
            };
            director
        };
        self.services.iter().map(director).collect()
    }

    /// The network of the real servers.
    const fn network(&self) -> Ipv4Addr {
        let [near, far] = NETWORKS;
        if self.is_two_nic { far } else { near }
    }

    /// Which real server a frame that the director sent went to, and to which port.
    fn server_of(&self, frame: &Parsed<'_>) -> Option<Server> {
        let to = frame.get("eth.destination")?;
        let [2, 0, 0, 0, host, _] = *to else { return None };
        let number = host.checked_sub(4)?;
        let (_, destination) = frame.addresses("")?;
        let destination = Ipv4Addr::from(<[u8; 4]>::try_from(destination).ok()?);
        match self.way {
            Way::Nat if self.network().octets().starts_with(destination.octets().get(..3)?) => {
                let port = u16::try_from(frame.ports("").1).ok().filter(|port| *port != 0)?;
                Some((destination, port))
            }
            Way::Nat => None,
            Way::Tunnel(_) => Some((destination, 0)),
            Way::Gateway => {
                let [a, b, c, _] = self.network().octets();
                Some((Ipv4Addr::new(a, b, c, FIRST_SERVER.checked_add(number)?), 0))
            }
        }
    }

    /// The real servers in the order in which new flows got them, which is the order of the director's list as far as it
    /// was used; then those that only the connection table knows.
    fn picked(&self, sent: &[(u64, Parsed<'_>)], listed: &[Server]) -> Vec<Server> {
        let mut servers: Vec<Server> = Vec::new();
        let is_first = |frame: &Parsed<'_>| frame.field("icmp.type").is_none();
        let used = sent.iter().map(|(_, frame)| frame).filter(|frame| is_first(frame));
        for server in used.filter_map(|frame| self.server_of(frame)) {
            if !servers.iter().any(|known| known.0 == server.0) {
                servers.push(server);
            }
        }
        for (address, port) in listed {
            let port = if self.way == Way::Nat { *port } else { 0 };
            if !servers.iter().any(|known| known.0 == *address) {
                servers.push((*address, port));
            }
        }
        servers
    }

    /// Whether the director told a client of its service that nobody serves it.
    fn refuses(&self, sent: &[(u64, Parsed<'_>)]) -> bool {
        sent.iter().any(|(_, frame)| {
            let is_refusal = (frame.number("icmp.type"), frame.number("icmp.code")) == (Some(3), Some(3));
            let port = u16::try_from(frame.ports("icmp.quote.").1).unwrap_or(0);
            let protocol = frame.protocol("icmp.quote.").and_then(|protocol| u8::try_from(protocol).ok());
            is_refusal && protocol.is_some_and(|protocol| self.services.contains(&(protocol, port)))
        })
    }

    /// The ports of source NAT: any, or as many as the name says, from the lowest that was seen on.
    fn source_ports(
        &self,
        name: &str,
        scenario: &Scenario<'_>,
        sent: &[(u64, Parsed<'_>)],
    ) -> Option<RangeInclusive<u16>> {
        let to_servers = || {
            sent.iter().map(|(_, frame)| frame).filter(|frame| {
                frame.addresses("").is_some_and(|(_, to)| self.is_server(to)) && frame.ports("").0 != 0
            })
        };
        let is_full = name.contains("full")
            || (!name.contains("dnat_only")
                && to_servers().any(|frame| frame.addresses("").is_some_and(|(from, _)| self.is_own(from))));
        if !is_full {
            return None;
        }
        let ports: BTreeSet<u16> =
            to_servers().filter_map(|frame| u16::try_from(frame.ports("").0).ok()).collect();
        let came: BTreeSet<u16> = scenario
            .frames
            .iter()
            .filter(|frame| frame.host == "lb" && frame.is_in)
            .filter_map(|frame| u16::try_from(Parsed::frame(&frame.bytes).ports("").0).ok())
            .collect();
        let (Some(first), Some(last)) = (ports.first().copied(), ports.last().copied()) else {
            return Some(1..=u16::MAX);
        };
        if name.contains("range") || ports.is_disjoint(&came) {
            let size = number_after(name, "range_of_").or_else(|| number_before(name, "_port"));
            let last = size.map_or(last, |size| first.saturating_add(size.saturating_sub(1)));
            return Some(first..=last.max(first));
        }
        Some(1..=u16::MAX)
    }

    /// The MTU towards the real servers: the name says it, or an error of the director's own, or what it cut.
    fn mtu(&self, name: &str, sent: &[(u64, Parsed<'_>)]) -> u16 {
        let named = number_after(name, "mtu_").or_else(|| number_after(name, "mtu"));
        let overhead = match self.way {
            Way::Nat | Way::Gateway => 0,
            Way::Tunnel(encapsulation) => {
                evenkeel_engine::forward::tunnel::overhead_bytes(encapsulation, false)
            }
        };
        let told = sent.iter().find_map(|(_, frame)| {
            let is_own = frame.addresses("").is_some_and(|(from, _)| self.is_own(from));
            let is_born = frame.number("ip.ttl") == Some(64);
            let is_too_big = (frame.number("icmp.type"), frame.number("icmp.code")) == (Some(3), Some(4));
            let mtu = frame.number("icmp.rest").and_then(|rest| u16::try_from(rest & 0xffff).ok());
            mtu.filter(|_| is_own && is_born && is_too_big)
        });
        let told = told.map(|mtu| mtu.saturating_add(overhead));
        told.or(named).filter(|mtu| *mtu >= MTU_LEAST).unwrap_or(MTU_BYTES)
    }
}

/// What the director sent, with its times.
fn sent<'a>(scenario: &Scenario<'a>) -> impl Iterator<Item = (u64, Parsed<'a>)> {
    let frames = scenario.frames.iter().filter(|frame| frame.host == "lb" && !frame.is_in);
    frames.map(|frame| (frame.microseconds, Parsed::frame(&frame.bytes)))
}

/// How the director forwarded: the name says the family, the frames the rest.
fn way(name: &str, sent: &[(u64, Parsed<'_>)]) -> Way {
    if name.starts_with("dr_") || name.contains("_dr_") {
        return Way::Gateway;
    }
    let tunnel = sent.iter().map(|(_, frame)| frame).find(|frame| {
        let is_inside = frame.field("inner.ip.ttl").is_some() || frame.field("inner.ip6.hop_limit").is_some();
        is_inside && frame.field("icmp.type").is_none()
    });
    match tunnel {
        Some(frame) if frame.field("gre.flags").is_some() => {
            Way::Tunnel(Encapsulation::Gre { checksum: frame.field("gre.checksum").is_some() })
        }
        Some(frame) if frame.field("gue.header").is_some() => {
            let port = u16::try_from(frame.ports("").1).unwrap_or(6080);
            let checksum = frame.number("udp.checksum") != Some(0);
            Way::Tunnel(Encapsulation::Gue { port, checksum })
        }
        Some(_) => Way::Tunnel(Encapsulation::IpIp),
        None if name.contains("tun_gre") => {
            Way::Tunnel(Encapsulation::Gre { checksum: name.contains("csum") })
        }
        None if name.contains("tun_gue") => {
            let checksum = name.contains("csum") && !name.contains("nocsum");
            Way::Tunnel(Encapsulation::Gue { port: 6080, checksum })
        }
        None if name.contains("tun_") => Way::Tunnel(Encapsulation::IpIp),
        None => Way::Nat,
    }
}

/// Services and real servers of a connection table: lines of `protocol client port vip port server port state`, all in
/// hexadecimal.
fn table(text: &str) -> (BTreeSet<(u8, u16)>, Vec<Server>) {
    let (mut services, mut servers) = (BTreeSet::new(), Vec::new());
    let address = |word: &str| u32::from_str_radix(word, 16).ok().map(Ipv4Addr::from_bits);
    let port = |word: &str| u16::from_str_radix(word, 16).ok();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [protocol, _, _, vip, service, server, server_port, ..] = words[..] else { continue };
        let protocol = match protocol {
            "TCP" => Protocol::TCP.0,
            "UDP" => Protocol::UDP.0,
            _ => continue,
        };
        let (Some(vip), Some(service)) = (address(vip), port(service)) else { continue };
        let (Some(server), Some(server_port)) = (address(server), port(server_port)) else { continue };
        if IpAddr::from(vip) == IpAddr::from(VIP) && service != 0 {
            services.insert((protocol, service));
            servers.push((server, server_port));
        }
    }
    (services, servers)
}

/// The number that follows `word` in a name.
fn number_after(name: &str, word: &str) -> Option<u16> {
    let (_, rest) = name.split_once(word)?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// The number that stands in front of `word` in a name.
fn number_before(name: &str, word: &str) -> Option<u16> {
    let (front, _) = name.split_once(word)?;
    let digits: String = front.chars().rev().take_while(char::is_ascii_digit).collect();
    digits.chars().rev().collect::<String>().parse().ok()
}

/// What came in as the frame with this number, which is listed as it left: the same packet as it was seen last before that
/// by another host, a hop later if it passed the router in between.
pub(super) fn as_it_came(frames: &[Frame], number: usize) -> Option<Vec<u8>> {
    let listed = frames.get(number)?;
    let left = Parsed::frame(&listed.bytes);
    let same = |name: &str, other: &Parsed<'_>| left.get(name) == other.get(name);
    let names = ["ip.identification", "ip.fragment", "ip.protocol", "ip.total_length", "fragment", "payload"];
    let before = frames.get(..number)?.iter().rev().filter(|frame| frame.host != "lb");
    let mut candidates = before.filter(|frame| {
        let other = Parsed::frame(&frame.bytes);
        let is_pure = other.get("eth.source").is_some_and(|mac| !is_own_mac(mac));
        is_pure && names.iter().all(|name| same(name, &other))
    });
    let seen = candidates.next()?;
    let mut bytes = seen.bytes.clone();
    let own = [2, 0, 0, 0, DIRECTOR, u8::try_from(listed.interface).ok()?];
    if bytes.get(..6)? == own {
        return Some(bytes);
    }
    // It was on its way to the router, which takes a hop off and hands it to the director.
    let header = bytes.first_chunk_mut::<26>()?;
    let [head @ .., c0, c1] = header;
    let ttl = head.get_mut(22)?;
    let before = [*ttl, 0];
    *ttl = ttl.checked_sub(1).filter(|ttl| *ttl > 0)?;
    [*c0, *c1] = mend([*c0, *c1], &before, &[before[0] - 1, 0]);
    head.get_mut(..6)?.copy_from_slice(&own);
    head.get_mut(6..12)?.copy_from_slice(&ROUTER_MAC);
    Some(bytes)
}
