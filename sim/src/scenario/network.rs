//! Machines and what lies between them, as a scenario means them.
//!
//! Machines are numbered: hosts first, then, counted on, routers, then forwarders.

use std::net::IpAddr;
use std::path::PathBuf;

use evenkeel_engine::wire::Protocol;

use crate::wires::Quality;
use crate::work::AgentModel;

/// A network address and the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subnet {
    /// The address; of a network, its host bits are zero.
    pub address: IpAddr,
    /// Bits of the network part.
    pub length: u8,
}

impl Subnet {
    /// Whether `address` lies in this network. An address of the other family never does.
    #[must_use]
    pub const fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differs = own.to_bits() ^ other.to_bits();
                self.length == 0 || differs >> (32 - if self.length > 32 { 32 } else { self.length }) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differs = own.to_bits() ^ other.to_bits();
                self.length == 0 || differs >> (128 - if self.length > 128 { 128 } else { self.length }) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// What joins the machines of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SegmentKind {
    /// A switch that learns where stations are: two hops from machine to machine.
    #[default]
    Switch,
    /// A cable between exactly two machines: one hop.
    Cable,
}

/// One layer-2 network: everyone on it reaches everyone else without a router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its name.
    pub name: String,
    /// What it is made of.
    pub kind: SegmentKind,
    /// Its IP networks: at most one of each family, at least one in all.
    pub subnets: Vec<Subnet>,
}

impl Segment {
    /// Whether `address` lies in a network of this segment.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.subnets.iter().any(|subnet| subnet.contains(address))
    }
}

/// Where a machine is plugged in, and its addresses there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The index into [`super::Scenario::segments`].
    pub segment: usize,
    /// The name of the machine's interface; `eth0`, `eth1` ... in the order of the attachments where none is given.
    pub interface: String,
    /// The VLAN of the switch that the port belongs to (1 to 4094), untagged.
    pub vlan: u16,
    /// The machine's own addresses there; none for a port that is only bridged.
    pub addresses: Vec<IpAddr>,
    /// The largest IP packet of the interface. Default 1,500.
    pub mtu_bytes: u16,
}

/// Linux's switches of a machine's network stack, for all its interfaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sysctl {
    /// Which ARP questions are answered: 0, 1, 2 or 8.
    pub arp_ignore: u8,
    /// Which source addresses own ARP questions have: 0, 1 or 2.
    pub arp_announce: u8,
    /// Whether packets from implausible sources are dropped: 0, 1 (strict) or 2 (loose).
    pub rp_filter: u8,
    /// Whether packets for others are sent on. Routers and forwarders have it set.
    pub ip_forward: bool,
}

/// Where packets for a network go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The network.
    pub to: Subnet,
    /// The routing table; [`TABLE_MAIN`] where none is given.
    pub table: u32,
    /// What happens to them.
    pub action: RouteAction,
}

/// The number of the table `main`.
pub const TABLE_MAIN: u32 = 254;

/// What a route does with packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteAction {
    /// Sends them to one of these routers: address and weight. More than one shares the load by a hash of the flow.
    Via(Vec<(IpAddr, u32)>),
    /// Drops them without a word.
    Blackhole,
    /// Drops them and tells the sender.
    Unreachable,
}

/// Which routing table certain packets use. Rules are asked in the order of their priorities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its place in the order; lower is earlier.
    pub priority: u32,
    /// The interface that packets came in by.
    pub interface: Option<String>,
    /// The network of their source.
    pub from: Option<Subnet>,
    /// The network of their destination.
    pub to: Option<Subnet>,
    /// Their protocol.
    pub protocol: Option<Protocol>,
    /// Their source ports.
    pub source_ports: Option<(u16, u16)>,
    /// Their destination ports.
    pub destination_ports: Option<(u16, u16)>,
    /// The table that is looked into.
    pub table: u32,
}

/// How a router that knows several ways for a network deals flows out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ecmp {
    /// The flow's hash modulo the number of ways.
    Modulo,
    /// Highest random weight: of the ways, the one whose hash with the flow is highest.
    Rendezvous,
    /// The range of the hash is cut into a piece for each way (RFC 2992). Linux's, and the default.
    #[default]
    HashThreshold,
    /// A table of slots in which only those of a way that is gone change.
    Resilient,
}

/// What the kernel of a machine is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Where it is plugged in; at least once.
    pub attachments: Vec<Attachment>,
    /// Addresses on its loopback interface, such as the VIP of a real server in gateway mode.
    pub loopback: Vec<IpAddr>,
    /// Routers for everything that has no other route: at most one of each family.
    pub gateways: Vec<IpAddr>,
    /// Further routes.
    pub routes: Vec<Route>,
    /// Policy rules.
    pub rules: Vec<Rule>,
    /// Its switches.
    pub sysctl: Sysctl,
    /// How it deals flows out over several ways.
    pub ecmp: Ecmp,
    /// The interfaces on which sources of others are replaced by the machine's own address (a home router's NAT).
    pub masquerade: Vec<String>,
    /// Whether it takes packets out of tunnels (IPIP, GRE, GUE) that end at its addresses.
    pub decapsulates: bool,
}

/// The stack that the programs of a host speak TCP with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stack {
    /// Our own minimal one: small and quick.
    #[default]
    Minimal,
    /// smoltcp: an independent, complete one.
    Smoltcp,
}

/// What a host does about connections whose client has not answered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynPlan {
    /// How many it keeps.
    pub backlog: usize,
    /// Whether further ones are answered with a cookie, without being kept; else they are dropped.
    pub cookies: bool,
}

impl Default for SynPlan {
    fn default() -> Self {
        // Linux: net.core.somaxconn since 5.4, and net.ipv4.tcp_syncookies.
        Self { backlog: 4_096, cookies: true }
    }
}

/// One machine that is neither forwarder nor router: a client where a load names it, else a server.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// `GROUP`, or `GROUP.NUMBER` from 0 where the file gives a count.
    pub name: String,
    /// The group in the file.
    pub group: String,
    /// Its network.
    pub network: Network,
    /// Its TCP.
    pub stack: Stack,
    /// What it does about connections that are half open.
    pub syn: SynPlan,
    /// How its programs serve requests; at once where nothing is given.
    pub service: Option<super::ServiceModel>,
    /// What its agent says; it has none where nothing is given.
    pub agent: Option<AgentModel>,
}

/// One machine that only sends packets on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Router {
    /// Its name.
    pub name: String,
    /// Its network.
    pub network: Network,
}

/// One machine that runs Evenkeel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarder {
    /// Its name.
    pub name: String,
    /// Its network; an interface of kind `ethernet` in the configuration takes the attachment of that name.
    pub network: Network,
    /// The production configuration file, as a path that can be opened (already joined with the folder).
    pub config: PathBuf,
}

/// How packets travel between a machine and a segment.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// The machines at one end, by number.
    pub machines: Vec<usize>,
    /// The segment at the other end: the index into [`super::Scenario::segments`].
    pub segment: usize,
    /// What it does to packets from the machine.
    pub up: Quality,
    /// What it does to packets to the machine.
    pub down: Quality,
}
