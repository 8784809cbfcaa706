//! How the network stack of a machine is made: what an administrator would set with `ip` and `sysctl`.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use evenkeel_engine::Duration;
use evenkeel_engine::plan::Prefix;
use evenkeel_engine::wire::Protocol;

use crate::wires::frame::MacAddress;

/// The routing table that packets go by unless a rule says otherwise.
pub const TABLE_MAIN: u32 = 254;
/// The bytes of an IP packet on Ethernet.
pub const MTU_BYTES: u16 = 1_500;
/// The least MTU: IPv4 asks for it (RFC 791).
pub const MTU_MIN_BYTES: u16 = 68;

/// The network stack of a machine.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelPlan {
    /// The machine's name; its random streams are found by it.
    pub name: String,
    /// Interfaces with a cable, numbered from 0.
    pub interfaces: Vec<Interface>,
    /// TUN devices, numbered from 0.
    pub tuns: Vec<Tun>,
    /// Ends of tunnels, numbered from 0.
    pub tunnels: Vec<Tunnel>,
    /// Addresses of the loopback interface besides 127.0.0.1/8 and ::1/128. A network of IPv4 is local as a whole.
    pub loopback: Vec<Prefix>,
    /// `net.ipv4.conf.all`.
    pub all: Sysctl,
    /// `net.ipv4.ip_forward`. Default off.
    pub forwards_v4: bool,
    /// `net.ipv6.conf.all.forwarding`. Default off.
    pub forwards_v6: bool,
    /// Routes besides those of the interfaces' own networks.
    pub routes: Vec<Route>,
    /// Rules that choose a routing table; before them comes the local table, after them the main one (32,766).
    pub rules: Vec<Rule>,
    /// Marks that packets get before rules are looked at.
    pub marks: Vec<Marking>,
    /// Addresses that are answered for by ARP or neighbour discovery, with their interface (`ip neigh add proxy`).
    pub proxies: Vec<(usize, IpAddr)>,
    /// Source NAT as a home router does it, for each interface to the outside.
    pub masquerade: Vec<Masquerade>,
    /// How often ICMP errors are sent.
    pub icmp: IcmpLimits,
    /// The most neighbours (`gc_thresh3`). Default 1,024.
    pub neighbours_max: usize,
    /// How long a neighbour is believed without confirmation, on average (`base_reachable_time`): the machine draws between
    /// half and one and a half of it, every five minutes anew. Default 30 s.
    pub reachable: Duration,
}

impl Default for KernelPlan {
    fn default() -> Self {
        Self {
            name: String::new(),
            interfaces: Vec::new(),
            tuns: Vec::new(),
            tunnels: Vec::new(),
            loopback: Vec::new(),
            all: Sysctl::default(),
            forwards_v4: false,
            forwards_v6: false,
            routes: Vec::new(),
            rules: Vec::new(),
            marks: Vec::new(),
            proxies: Vec::new(),
            masquerade: Vec::new(),
            icmp: IcmpLimits::default(),
            neighbours_max: 1_024,
            reachable: Duration::from_secs(30),
        }
    }
}

/// An interface with a cable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its link address.
    pub mac: MacAddress,
    /// The most bytes of an IP packet. Default 1,500.
    pub mtu_bytes: u16,
    /// Its addresses, each with the length of its network. A link-local one of IPv6 is there besides.
    pub addresses: Vec<Prefix>,
    /// `net.ipv4.conf.<name>`.
    pub sysctl: Sysctl,
}

impl Interface {
    /// An interface with these addresses and the defaults of Linux.
    #[must_use]
    pub fn new(name: &str, mac: MacAddress, addresses: Vec<Prefix>) -> Self {
        Self { name: name.to_owned(), mac, mtu_bytes: MTU_BYTES, addresses, sysctl: Sysctl::default() }
    }
}

/// A TUN device: packets that are routed to it go up, and what comes from above enters as received on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tun {
    /// Its name.
    pub name: String,
    /// The most bytes of a packet. Default 1,500.
    pub mtu_bytes: u16,
    /// Its addresses.
    pub addresses: Vec<Prefix>,
    /// `net.ipv4.conf.<name>`.
    pub sysctl: Sysctl,
}

impl Tun {
    /// A device without addresses and with the defaults of Linux.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), mtu_bytes: MTU_BYTES, addresses: Vec::new(), sysctl: Sysctl::default() }
    }
}

/// An end of a tunnel: packets to `local` lose their outer header and enter as received on it. Nothing leaves by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Its name.
    pub name: String,
    /// What is taken off.
    pub kind: TunnelKind,
    /// The outer destination, one of the machine's addresses; `None` takes any of them.
    pub local: Option<IpAddr>,
    /// The outer source; `None` takes any.
    pub remote: Option<IpAddr>,
    /// `net.ipv4.conf.<name>`.
    pub sysctl: Sysctl,
}

/// What surrounds a packet in a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelKind {
    /// An IP header alone (RFC 2003, RFC 2473, RFC 4213): either family in either.
    Ip,
    /// GRE (RFC 2784, RFC 2890), with or without checksum, key and sequence number.
    Gre,
    /// Generic UDP encapsulation (draft-ietf-intarea-gue), version 0 with any header and version 1.
    Gue {
        /// The UDP port.
        port: u16,
    },
}

/// Settings of `net.ipv4.conf`. The value of `all` and that of the interface are joined as Linux does: the greater one of
/// a number, either one of a switch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sysctl {
    /// Which requests are answered: 0 those for any local address; 1 those for one of the interface; 2 the same, and the
    /// sender must be in the same network; 3 those for addresses that are not of host scope; 8 none. Default 0.
    pub arp_ignore: u8,
    /// Which source a request has: 0 any local address that the packet has; 1 one of the target's network if possible;
    /// 2 always the best one of the interface. Default 0.
    pub arp_announce: u8,
    /// Whether gratuitous ARP makes new entries. Default no: it only updates those that are there.
    pub arp_accept: bool,
    /// Whether a request is answered only where packets to the sender would leave by the same interface. Default no.
    pub arp_filter: bool,
    /// Whether addresses are told of when they come or the interface does. Default no.
    pub arp_notify: bool,
    /// Whether a packet's source is looked at: 0 no; 1 the way back must be the interface it came by (RFC 3704 s.2.2); 2 there
    /// must be a way back. Default 0.
    pub rp_filter: u8,
    /// Whether requests for addresses elsewhere are answered. Default no.
    pub proxy_arp: bool,
    /// Whether packets with a local source are taken. Default no.
    pub accept_local: bool,
    /// Whether 127.0.0.0/8 is routed. Default no.
    pub route_localnet: bool,
}

/// Which device a packet leaves by, or came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outlet {
    /// An interface with a cable.
    Interface(usize),
    /// A TUN device.
    Tun(usize),
    /// The end of a tunnel. Nothing leaves by it.
    Tunnel(usize),
    /// The machine itself. Nothing leaves by it.
    Loopback,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destinations that it serves.
    pub destination: Prefix,
    /// Its table. Default [`TABLE_MAIN`].
    pub table: u32,
    /// What it does.
    pub kind: RouteKind,
    /// Of two routes with the same destination the one with the lower metric is taken. Default 0.
    pub metric: u32,
    /// The source of packets that go by it, where their sender leaves it open.
    pub source: Option<IpAddr>,
}

impl Route {
    /// A route of the main table with one next hop.
    #[must_use]
    pub fn new(destination: Prefix, hop: Hop) -> Self {
        Self::of_kind(destination, RouteKind::Unicast { hops: vec![hop], spread: Spread::default() })
    }

    /// A route of the main table of any kind.
    #[must_use]
    pub const fn of_kind(destination: Prefix, kind: RouteKind) -> Self {
        Self { destination, table: TABLE_MAIN, kind, metric: 0, source: None }
    }
}

/// What a route does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// It leads on.
    Unicast {
        /// Where to.
        hops: Vec<Hop>,
        /// Which of several takes a packet.
        spread: Spread,
    },
    /// Packets are for the machine itself.
    Local,
    /// Packets are dropped without a word.
    Blackhole,
    /// Packets are dropped, and their senders told that the host cannot be reached.
    Unreachable,
    /// Packets are dropped, and their senders told that this is forbidden.
    Prohibit,
    /// As if the table had no such route: the next rule goes on.
    Throw,
}

/// A next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The router; without one destinations are on the link itself.
    pub gateway: Option<IpAddr>,
    /// The way out; without one it is found through the gateway.
    pub outlet: Option<Outlet>,
    /// Its share among several. Default 1.
    pub weight: u16,
    /// Whether the gateway is on the link although no address says so. Default no.
    pub is_on_link: bool,
}

impl Hop {
    /// The way over a router.
    #[must_use]
    pub const fn via(gateway: IpAddr) -> Self {
        Self { gateway: Some(gateway), outlet: None, weight: 1, is_on_link: false }
    }

    /// The way out of a device.
    #[must_use]
    pub const fn on(outlet: Outlet) -> Self {
        Self { gateway: None, outlet: Some(outlet), weight: 1, is_on_link: false }
    }
}

/// Which of several next hops takes a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// What of the packet counts.
    pub key: SpreadKey,
    /// How it chooses.
    pub choice: SpreadChoice,
}

/// What of a packet counts when next hops are chosen. Both directions of a flow give the same number, as in Linux.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpreadKey {
    /// Addresses (`fib_multipath_hash_policy` 0). An ICMP error counts as the packet that it quotes.
    #[default]
    Addresses,
    /// Addresses, protocol and ports (`fib_multipath_hash_policy` 1).
    FiveTuple,
}

/// How next hops are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpreadChoice {
    /// Each has a range of the numbers (RFC 2992), as Linux does.
    #[default]
    HashThreshold,
    /// The remainder of the number by the sum of weights.
    Modulo,
    /// The one with the highest number of its own for this packet (RFC 2991, highest random weight).
    Rendezvous,
    /// A table of buckets that survives changes: only buckets of next hops that are gone move, and idle ones of those with
    /// too many.
    Resilient {
        /// Buckets; at least one for each next hop.
        buckets: u16,
        /// How long a bucket has no packet before it may move. Linux's default is 120 s.
        idle: Duration,
    },
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its place among rules: the lowest comes first.
    pub priority: u32,
    /// Which packets it is for.
    pub selector: Selector,
    /// What happens to them.
    pub action: RuleAction,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleAction {
    /// They go by this table, if it knows a way.
    Lookup(u32),
    /// They are dropped without a word.
    Blackhole,
    /// They are dropped, and their senders told that the network cannot be reached.
    Unreachable,
    /// They are dropped, and their senders told that this is forbidden.
    Prohibit,
}

/// Which packets a rule or a mark is for. What is not named fits all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Only packets of this family.
    pub family: Option<Family>,
    /// The device that they came in by; [`Outlet::Loopback`] for those of the machine itself.
    pub inlet: Option<Outlet>,
    /// Their source.
    pub from: Option<Prefix>,
    /// Their destination.
    pub to: Option<Prefix>,
    /// Their protocol.
    pub protocol: Option<Protocol>,
    /// Their source port.
    pub source_ports: Option<RangeInclusive<u16>>,
    /// Their destination port.
    pub destination_ports: Option<RangeInclusive<u16>>,
    /// Their mark, and the bits of it that count.
    pub mark: Option<(u32, u32)>,
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A mark that packets get when they come in or are sent, as by a packet filter. The first that fits counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marking {
    /// Which packets. The mark in it is that of the sender.
    pub selector: Selector,
    /// The mark.
    pub mark: u32,
}

/// Source NAT as a home router does it: whoever sends through `interface` gets its address, and a port of its own
/// whatever the destination (endpoint-independent mapping, RFC 4787 s.4.1). What comes back to that port is let in from
/// anywhere, or only from where something was sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masquerade {
    /// The interface to the outside.
    pub interface: usize,
    /// Ports, and identifiers of ICMP. Default 1,024 to 65,535. The sender's own is kept where it is free.
    pub ports: RangeInclusive<u16>,
    /// The most mappings. Default 16,384.
    pub mappings_max: usize,
    /// Whether only addresses that were sent to may answer (RFC 4787 s.5). Default no.
    pub is_filtering: bool,
    /// How long a mapping of UDP lives. Default 120 s (RFC 4787 s.4.3).
    pub udp: Duration,
    /// How long a mapping of TCP lives while a connection is being made or has ended. Default 240 s (RFC 5382 s.5).
    pub tcp_transitory: Duration,
    /// How long a mapping of TCP lives else. Default 7,440 s (RFC 5382 s.5).
    pub tcp_established: Duration,
    /// How long a mapping of ICMP lives. Default 60 s (RFC 5508 s.3.2).
    pub icmp: Duration,
}

impl Masquerade {
    /// NAT towards an interface, with the defaults.
    #[must_use]
    pub const fn on(interface: usize) -> Self {
        Self {
            interface,
            ports: 1_024..=65_535,
            mappings_max: 16_384,
            is_filtering: false,
            udp: Duration::from_secs(120),
            tcp_transitory: Duration::from_secs(240),
            tcp_established: Duration::from_secs(7_440),
            icmp: Duration::from_secs(60),
        }
    }
}

/// How often ICMP errors are sent. Echo replies and "too big" have no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpLimits {
    /// The least time between two errors to the same host, of which six may come at once (`icmp_ratelimit`). Zero means no
    /// limit. Default 1 s.
    pub interval: Duration,
    /// Errors in a second, to all (`icmp_msgs_per_sec`). Default 1,000.
    pub per_second: u32,
    /// Of these, at once (`icmp_msgs_burst`). Default 50.
    pub burst: u32,
}

impl Default for IcmpLimits {
    fn default() -> Self {
        Self { interval: Duration::from_secs(1), per_second: 1_000, burst: 50 }
    }
}
