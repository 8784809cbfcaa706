//! How Katran's tests set their balancer up, as a plan: services, real servers, tunnels, and what is none of ours.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use evenkeel_engine::forward::tunnel::{Encapsulation, overhead_bytes};
use evenkeel_engine::plan::{
    ANY_PORT, Binding, Builtin, DirectorPlan, InterfacePlan, Layer, MidStream, Mode, Ping, Plan, Prefix,
    RoutePlan, ServerPlan,
};
use evenkeel_engine::verdict::InterfaceId;
use evenkeel_engine::wire::Protocol;
use evenkeel_engine::wire::ethernet::MacAddress;

use super::Vector;
use crate::conformance::Options;
use crate::conformance::frame::Parsed;

/// Where packets come in.
pub(super) const FRONT: u16 = 0;
/// The machine itself: what is not ours goes up there.
pub(super) const HOST: u16 = 1;
const REALS_V4: u16 = 2;
const REALS_V6: u16 = 3;

/// The port and form of Katran's GUE.
const GUE: Encapsulation = Encapsulation::Gue { port: 9886, checksum: true };
/// What fits into Katran's frames of 1,514 bytes before the tunnel.
const INNER_MTU_BYTES: u16 = 1500;
/// The time to live of Katran's outer headers.
pub(super) const OUTER_TTL: u8 = 64;
const SOURCE_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 13, 37);
const SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0xfc00, 0x2307, 0, 0, 0, 0, 0, 0x1337);

/// Suites whose set-up is the one that the format describes.
const SUITES: &[&str] = &["base", "gue", "cidr", "icmptoobig", "decapstats"];
/// The suite of services that are networks.
const NETWORKS: &str = "cidr";

const TCP: Option<Protocol> = Some(Protocol::TCP);
const UDP: Option<Protocol> = Some(Protocol::UDP);
const V4_REALS: &[&str] = &["10.0.0.1", "10.0.0.2", "10.0.0.3"];
const V6_REALS: &[&str] = &["fc00::1", "fc00::2", "fc00::3"];

/// A service of Katran's tests: network, its bits, port (0 for any), protocol, real servers, and whether QUIC connection
/// ids choose among them.
type Row = (&'static str, u8, u16, Option<Protocol>, &'static [&'static str], bool);

/// The services of the suites base and gue.
const BASE: &[Row] = &[
    ("10.200.1.1", 32, 80, UDP, V4_REALS, false),
    ("10.200.1.1", 32, 80, TCP, V4_REALS, false),
    ("10.200.1.2", 32, 0, TCP, V4_REALS, false),
    ("10.200.1.3", 32, 80, TCP, V6_REALS, false),
    ("10.200.1.4", 32, 0, TCP, V4_REALS, false),
    ("10.200.1.5", 32, 443, UDP, V4_REALS, true),
    ("10.200.1.6", 32, 80, UDP, V4_REALS, false),
    ("fc00:1::1", 128, 80, TCP, V6_REALS, false),
    ("fc00:1::2", 128, 443, UDP, V6_REALS, true),
    ("10.200.1.99", 32, 0, None, &[], false),
    ("fc00:1::11", 128, 0, None, &[], false),
];

/// The services of the suite cidr.
const CIDR: &[Row] = &[
    ("fc00:1::", 96, 0, TCP, &["fc00::1", "fc00::2"], false),
    ("fc00:2::", 96, 443, TCP, &["fc00::3", "fc00::4"], false),
    ("fc00:3::", 96, 0, UDP, &["fc00::5", "fc00::6"], false),
    ("fc00:4::", 96, 443, UDP, &["fc00::7", "fc00::8"], false),
];

/// The set-up of one list.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    rows: &'static [Row],
    is_gue: bool,
    /// What fits into the tunnels to real servers of IPv4 and of IPv6.
    inner_mtu_bytes: [u16; 2],
    options: Options,
}

impl Setup {
    pub(super) fn read(vectors: &[Vector], options: Options) -> Self {
        let is_cidr = vectors.first().is_some_and(|vector| vector.suite == NETWORKS);
        let is_gue = vectors.iter().any(|vector| vector.tunnel.as_deref() == Some("gue"));
        let told = |name: &str, kind: (u32, u32)| {
            let found = vectors.iter().find_map(|vector| {
                let frame = Parsed::frame(&vector.out);
                let number = |field: &str| frame.number(&format!("{name}.{field}"));
                let is_too_big =
                    (number("type")?, number("code")?) == kind && vector.class == "local-icmp-reply";
                number("rest").filter(|_| is_too_big)
            });
            // A smaller one than every link carries is none that a test is set up for.
            let mtu = found.and_then(|mtu| u16::try_from(mtu).ok()).filter(|mtu| *mtu >= 576);
            mtu.unwrap_or(INNER_MTU_BYTES)
        };
        let inner_mtu_bytes = [told("icmp", (3, 4)), told("icmp6", (2, 0))];
        Self { rows: if is_cidr { CIDR } else { BASE }, is_gue, inner_mtu_bytes, options }
    }

    /// The set-up in words.
    pub(super) fn words(&self) -> String {
        let tunnel = if self.is_gue { "tunnel gue" } else { "tunnel ipip" };
        format!("{tunnel}, {} services", self.rows.len())
    }

    /// Whether packets that may be cut are.
    pub(super) const fn cuts(&self) -> bool {
        !self.options.as_recorded
    }

    pub(super) const fn encapsulation(&self) -> Encapsulation {
        if self.is_gue { GUE } else { Encapsulation::IpIp }
    }

    /// Why a vector is about something that this engine does not do, if it is.
    pub(super) fn strange(&self, vector: &Vector) -> Option<&'static str> {
        match vector.suite.as_str() {
            "tpr" => return Some("a server id in a TCP option chooses the real server"),
            "flowmig" => return Some("flows leave real servers that went down by Katran's own rule"),
            "stablert" => return Some("a connection id in UDP payload chooses the real server"),
            "lpm" => return Some("the client's network chooses the real server"),
            "hc" => return Some("steering of health checks"),
            "tcsrc" => return Some("rewriting of inner sources on the way out"),
            "xdpdecap" | "xdpdecapgue" | "egressdecap" | "xpop" => return Some("decapsulation"),
            suite if !SUITES.contains(&suite) => return Some("a suite whose set-up is not described"),
            _ => {}
        }
        if vector.class == "decap-to-host" || vector.class == "encap-other" {
            return Some("decapsulation");
        }
        let frame = Parsed::frame(&vector.frame);
        let is_quic = self.row_of(&frame, "").is_some_and(|row| row.5);
        (vector.class == "encap" && is_quic).then_some("a QUIC connection id chooses the real server")
    }

    /// The real servers of the service that the header under `prefix` is for.
    pub(super) fn reals_of(&self, frame: &Parsed<'_>, prefix: &str) -> Option<Vec<Vec<u8>>> {
        let (.., reals, _) = self.row_of(frame, prefix)?;
        Some(reals.iter().filter_map(|real| real.parse().ok()).map(octets).collect())
    }

    fn row_of(&self, frame: &Parsed<'_>, prefix: &str) -> Option<&'static Row> {
        let (_, to) = frame.addresses(prefix)?;
        let protocol = frame.protocol(prefix)?;
        let (to, port) = (address(to)?, frame.ports(prefix).1);
        self.rows.iter().find(|(network, length, bound, proto, ..)| {
            let network = network.parse::<IpAddr>().map(|address| Prefix { address, length: *length });
            let is_protocol = proto.is_none_or(|proto| u32::from(proto.0) == protocol);
            network.is_ok_and(|network| network.contains(to))
                && (*bound == 0 || u32::from(*bound) == port)
                && is_protocol
        })
    }

    /// The plan of an engine in Katran's place.
    pub(super) fn plan(&self) -> Plan {
        let mut plan = Plan::empty();
        plan.handling.cuts = self.cuts();
        let mut front = InterfacePlan::new("front", Layer::Ethernet(MacAddress([2, 0, 0, 0, 0, 0])));
        front.passes_to = Some(InterfaceId(HOST));
        let mut host = InterfacePlan::new("host", Layer::Ethernet(MacAddress([2, 0, 0, 0, 0, 1])));
        (front.mtu_bytes, host.mtu_bytes) = (u16::MAX, u16::MAX);
        plan.interfaces.extend([front, host]);
        for (name, inner, is_v6) in
            [("reals4", self.inner_mtu_bytes[0], false), ("reals6", self.inner_mtu_bytes[1], true)]
        {
            let mut reals = InterfacePlan::new(name, Layer::Ip);
            reals.mtu_bytes = inner.saturating_add(overhead_bytes(self.encapsulation(), is_v6));
            plan.interfaces.push(reals);
        }
        let routes = [
            (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)), 24, REALS_V4),
            (IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0)), 64, REALS_V6),
            (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0, FRONT),
            (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0, FRONT),
        ];
        for (address, length, interface) in routes {
            let destination = Prefix { address, length };
            plan.routes.push(RoutePlan { destination, gateway: None, interface: InterfaceId(interface) });
        }
        plan.directors =
            self.rows.iter().enumerate().filter_map(|(number, row)| self.director(number, row)).collect();
        plan
    }

    fn director(
        &self,
        number: usize,
        (network, length, port, protocol, reals, _): &Row,
    ) -> Option<DirectorPlan> {
        let network = Prefix { address: network.parse().ok()?, length: *length };
        let ports = if *port == 0 { ANY_PORT } else { *port..=*port };
        let bind = Binding { network, ports, protocol: *protocol };
        let reals = reals.iter().filter_map(|real| real.parse::<IpAddr>().ok());
        let servers = reals.map(|real| ServerPlan::new(&real.to_string(), real, 0, 1)).collect();
        let mut director = DirectorPlan::new(&format!("service{number}"), bind, Builtin::Maglev, servers);
        let sources = vec![SOURCE_V4.into(), SOURCE_V6.into()];
        director.mode = Mode::Tunnel { encapsulation: self.encapsulation(), sources, ttl: Some(OUTER_TTL) };
        // Katran's packets are single segments without a handshake.
        director.mid_stream = MidStream::Pick;
        director.ping = Ping::Always;
        Some(director)
    }

    /// What the recording may quote or write as source of a tunnel.
    pub(super) fn own_sources() -> BTreeSet<Vec<u8>> {
        [octets(SOURCE_V4.into()), octets(SOURCE_V6.into())].into()
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}
