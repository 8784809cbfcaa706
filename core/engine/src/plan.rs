//! The checked configuration that an engine runs by. Built by `config`, a scenario or a test; the
//! engine takes it whole with [`Engine::apply`](crate::Engine::apply) or refuses it whole.
//!
//! A plan is plain data: nothing in it is open, running or random.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;
use core::ops::RangeInclusive;

use crate::forward::tunnel::Encapsulation;
use crate::time::Duration;
use crate::verdict::InterfaceId;
use crate::wire::ethernet::MacAddress;
use crate::wire::{HashKey, Protocol};

mod agent;
mod rules;
mod scheduling;

pub use agent::AgentPlan;
pub use rules::{
    AddressSet, ByteSet, Condition, FlowAction, FlowPlan, FlowRule, Limit, LimitKey, PortSet, TablePlan, Test,
};
pub use scheduling::{
    Builtin, FlowKey, GuestPlan, HASHING_TABLE_SIZES, HashType, OptionError, Options, ProbeSource,
    SchedulerPlan, Setting, SlowStart, TABLE_SIZE_MAX, TableWeights, Tuned,
};

/// Everything that an engine is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The key of the flow hash: drawn by the daemon, fixed by a scenario.
    pub hash_key: HashKey,
    /// The seed that schedulers and policies draw from.
    pub seed: u64,
    /// The interfaces, in the order of their [`InterfaceId`].
    pub interfaces: Vec<InterfacePlan>,
    /// Where packets leave; the longest prefix wins, then the first.
    pub routes: Vec<RoutePlan>,
    /// Further routing tables, for flows that rules lead to one. Where none of its routes serves a destination, `routes`
    /// do.
    pub tables: Vec<TablePlan>,
    /// Rules about packets as they leave, asked once for each direction of a flow. None of them leads to a director.
    pub outflows: Vec<FlowPlan>,
    /// Who decides about new flows, in order; the first that does not skip wins.
    pub policies: Vec<PolicyPlan>,
    /// Guests that are asked about packets as they leave, in this order, where no outflow decides.
    pub outflow_guests: Vec<PolicyGuestPlan>,
    /// What happens to a packet that no policy decided.
    pub default_permit: bool,
    /// The virtual services.
    pub directors: Vec<DirectorPlan>,
    /// Bounds of the tables.
    pub limits: Limits,
    /// How long flows live without packets.
    pub timeouts: Timeouts,
    /// How packets are handled on their way, whatever their director.
    pub handling: Handling,
}

impl Plan {
    /// A plan without interfaces and directors, with the default bounds, key zero and seed zero.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            hash_key: HashKey([0, 0]),
            seed: 0,
            interfaces: Vec::new(),
            routes: Vec::new(),
            tables: Vec::new(),
            outflows: Vec::new(),
            policies: Vec::new(),
            outflow_guests: Vec::new(),
            default_permit: true,
            directors: Vec::new(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            handling: Handling::default(),
        }
    }

    /// Gives each Ethernet interface that has no MAC address yet the one that `own` says for its number. Whoever has
    /// the device or makes it up does so, before the plan goes to an engine.
    pub fn fill_in_macs(&mut self, mut own: impl FnMut(usize) -> MacAddress) {
        for (number, interface) in self.interfaces.iter_mut().enumerate() {
            if interface.layer == Layer::Ethernet(MacAddress::UNSPECIFIED) {
                interface.layer = Layer::Ethernet(own(number));
            }
        }
    }
}

/// How packets are handled on their way, whatever their director.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handling {
    /// An IPv4 packet that may be fragmented and does not fit is cut (RFC 791). Else it is dropped as too big.
    pub cuts: bool,
    /// The largest segment that a SYN may announce, in bytes (88 to 65,535); larger ones are lowered to it.
    pub mss_bytes: Option<u16>,
    /// A UDP datagram over IPv4 that came without a checksum is given one by NAT, as IPVS does. Else it stays without.
    pub fills_udp_checksum: bool,
    /// A packet that would open a flow is checked up to its layer-4 checksum first.
    pub verifies_checksums: bool,
    /// A flow whose real server has gone ends with its next packet, which opens a new flow where it can. Else such
    /// packets are dropped, and the flow goes on when the real server comes back.
    pub expires_nodest: bool,
    /// A client does not stick to a real server of weight 0.
    pub expires_quiescent: bool,
    /// A client whose flow is refused for want of room is told so (ICMP, administratively prohibited).
    pub tells_exhausted: bool,
    /// Answers to clients leave as the routes say. Else they leave by the interface by which the client's packets came.
    pub routes_replies: bool,
}

impl Default for Handling {
    fn default() -> Self {
        Self {
            cuts: true,
            mss_bytes: None,
            fills_udp_checksum: false,
            verifies_checksums: false,
            expires_nodest: false,
            expires_quiescent: false,
            tells_exhausted: false,
            routes_replies: false,
        }
    }
}

/// One interface of the forwarder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfacePlan {
    /// The name that users and rules know.
    pub name: String,
    /// What a packet looks like there.
    pub layer: Layer,
    /// Own addresses with the length of their prefix. On Ethernet they are answered for by ARP.
    pub addresses: Vec<Prefix>,
    /// The largest IP packet that leaves there, in bytes (68 to 65,535).
    pub mtu_bytes: u16,
    /// Where packets and frames leave, as they are, that this engine has no use for: other hosts' frames, unknown
    /// protocols, addresses without a director. Without it they are dropped.
    pub passes_to: Option<InterfaceId>,
}

impl InterfacePlan {
    /// An interface without own addresses, of 1,500 bytes, that passes nothing on.
    #[must_use]
    pub fn new(name: &str, layer: Layer) -> Self {
        Self { name: String::from(name), layer, addresses: Vec::new(), mtu_bytes: 1500, passes_to: None }
    }
}

/// What a device carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// IP packets without a link header, as on a TUN.
    Ip,
    /// Ethernet frames; the address is the interface's own.
    Ethernet(MacAddress),
}

/// An address and the length of the network part, in bits (0 to 32 for IPv4, 0 to 128 for IPv6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// The address; for a network, the bits beyond the length are zero.
    pub address: IpAddr,
    /// Bits of the network part.
    pub length: u8,
}

impl Prefix {
    /// One address alone.
    #[must_use]
    pub const fn host(address: IpAddr) -> Self {
        let length = match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        Self { address, length }
    }

    /// Whether it is one address alone.
    #[must_use]
    pub const fn is_host(&self) -> bool {
        match self.address {
            IpAddr::V4(_) => self.length == 32,
            IpAddr::V6(_) => self.length == 128,
        }
    }

    /// The network's own address: the bits beyond the length are zero.
    #[must_use]
    pub fn network(&self) -> crate::wire::Address {
        let network = match self.address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.length.min(32))).unwrap_or(0);
                IpAddr::V4(core::net::Ipv4Addr::from_bits(address.to_bits() & mask))
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.length.min(128))).unwrap_or(0);
                IpAddr::V6(core::net::Ipv6Addr::from_bits(address.to_bits() & mask))
            }
        };
        network.into()
    }

    /// The first and the last address of the network, as 128 bits: one range, two around the IPv4 addresses for an
    /// IPv6 network that has these in its middle, or none within them.
    pub(crate) fn ranges(&self) -> [Option<(u128, u128)>; 2] {
        let first = self.network().bits();
        let (width, is_v4) = match self.address {
            IpAddr::V4(_) => (32, true),
            IpAddr::V6(_) => (128, false),
        };
        let host_bits = width - u32::from(self.length).min(width);
        let last = first | 1_u128.checked_shl(host_bits).map_or(u128::MAX, |bit| bit - 1);
        let (low, high) = (0xffff_0000_0000, 0xffff_ffff_ffff);
        if is_v4 || last < low || first > high {
            return [Some((first, last)), None];
        }
        [(first < low).then_some((first, low - 1)), (last > high).then_some((high + 1, last))]
    }

    /// Whether `address` lies in this network. Addresses of the other family never do.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let shift = 32 - u32::from(self.length.min(32));
                let difference = u64::from(network.to_bits() ^ address.to_bits());
                difference >> shift == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let difference = network.to_bits() ^ address.to_bits();
                let shift = 128 - u32::from(self.length.min(128));
                difference.checked_shr(shift).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// One route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoutePlan {
    /// Destinations that it serves.
    pub destination: Prefix,
    /// The router to hand the packet to; without one the destination is on the link itself.
    pub gateway: Option<IpAddr>,
    /// Where the packet leaves.
    pub interface: InterfaceId,
}

/// One link of the policy chain.
#[derive(Clone, Debug, PartialEq)]
pub enum PolicyPlan {
    /// Native flow rules.
    Rules(Vec<FlowPlan>),
    /// A guest, found under its name among the [`Guests`](crate::Guests).
    Guest(PolicyGuestPlan),
}

/// A guest in the policy chain.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyGuestPlan {
    /// The name that users know; unique.
    pub name: String,
    /// What the host needs to run it.
    pub guest: GuestPlan,
    /// What a flow gets when the guest fails on it.
    pub on_fault: OnFault,
    /// The flow whose packets it is asked about, whatever that flow's action; without one, about all.
    pub gate: Option<FlowPlan>,
    /// Whether it is asked about every packet of a flow; nothing to let the guest say.
    pub packets: Option<bool>,
    /// The content of its file, which it is given beside its options.
    pub data: String,
}

impl PolicyGuestPlan {
    /// A guest that is asked about every flow, and permits where it fails.
    #[must_use]
    pub fn new(name: &str, guest: GuestPlan) -> Self {
        Self {
            name: String::from(name),
            guest,
            on_fault: OnFault::Permit,
            gate: None,
            packets: None,
            data: String::new(),
        }
    }
}

/// What a flow gets when a guest fails on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFault {
    /// It may pass.
    #[default]
    Permit,
    /// It is dropped.
    Deny,
    /// Those behind the guest decide, as if it had skipped.
    Native,
}

/// One virtual service.
#[derive(Clone, Debug, PartialEq)]
pub struct DirectorPlan {
    /// The name that users know; unique.
    pub name: String,
    /// What it serves. Without any, only flow rules lead to it.
    pub binds: Vec<Binding>,
    /// How packets reach the real server.
    pub mode: Mode,
    /// Who picks the real server.
    pub scheduler: SchedulerPlan,
    /// A second scheduler, which is asked the same and whose answers are only counted.
    pub shadow: Option<SchedulerPlan>,
    /// How a real server that is new comes to its share of flows; at once without it.
    pub slow_start: Option<SlowStart>,
    /// How the programs on its real servers are asked that say their own weight and state, if they are.
    pub agent_check: Option<AgentPlan>,
    /// The real servers, in the order in which the user named them.
    pub servers: Vec<ServerPlan>,
    /// Each UDP datagram is scheduled on its own and leaves no flow behind.
    pub is_one_packet: bool,
    /// How long, and by how much of its address, a client sticks to a real server.
    pub persistence: Option<Persistence>,
    /// What happens to TCP segments of unknown flows that open none.
    pub mid_stream: MidStream,
    /// What happens to pings of its addresses.
    pub ping: Ping,
}

impl DirectorPlan {
    /// A director that does NAT without translating sources, bound to `bind`, with the default answers.
    #[must_use]
    pub fn new(name: &str, bind: Binding, scheduler: Builtin, servers: Vec<ServerPlan>) -> Self {
        Self {
            name: String::from(name),
            binds: Vec::from([bind]),
            mode: Mode::Nat { sources: Vec::new() },
            scheduler: SchedulerPlan::Builtin(scheduler),
            shadow: None,
            slow_start: None,
            agent_check: None,
            servers,
            is_one_packet: false,
            persistence: None,
            mid_stream: MidStream::Refuse,
            ping: Ping::WhenUsable,
        }
    }
}

/// What a director serves: addresses, ports and protocols.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The VIP, or a network of VIPs.
    pub network: Prefix,
    /// The ports, both ends included; 0 to 65,535 is any port, and then ICMP queries as well.
    pub ports: RangeInclusive<u16>,
    /// TCP or UDP; both without it.
    pub protocol: Option<Protocol>,
}

/// Every port there is.
pub const ANY_PORT: RangeInclusive<u16> = 0..=65_535;

impl Binding {
    /// One address and port.
    #[must_use]
    pub const fn of(address: IpAddr, port: u16, protocol: Protocol) -> Self {
        Self { network: Prefix::host(address), ports: port..=port, protocol: Some(protocol) }
    }

    /// Whether it serves any port.
    #[must_use]
    pub fn is_any_port(&self) -> bool {
        self.ports == ANY_PORT
    }

    /// The one port that it serves, if it is one.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        (self.ports.start() == self.ports.end()).then(|| *self.ports.start())
    }

    /// Whether it serves packets to this address and port by this protocol.
    #[must_use]
    pub fn serves(&self, address: IpAddr, port: u16, protocol: Protocol) -> bool {
        let is_query = protocol == Protocol::ICMP || protocol == Protocol::ICMPV6;
        let is_protocol = match self.protocol {
            _ if is_query => self.is_any_port(),
            Some(bound) => bound == protocol,
            None => true,
        };
        is_protocol && self.ports.contains(&port) && self.network.contains(address)
    }
}

impl fmt::Display for Binding {
    /// As configuration files write it: `10.0.0.3:80/tcp`, `[fc00::3]:53/udp`, `10.0.0.0/24:*`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { network, ports, protocol } = self;
        match network.address {
            IpAddr::V4(address) => write!(f, "{address}")?,
            IpAddr::V6(address) => write!(f, "[{address}]")?,
        }
        if !network.is_host() {
            write!(f, "/{}", network.length)?;
        }
        match self.port() {
            Some(port) => write!(f, ":{port}")?,
            None if self.is_any_port() => f.write_str(":*")?,
            None => write!(f, ":{}-{}", ports.start(), ports.end())?,
        }
        protocol.map_or(Ok(()), |protocol| write!(f, "/{protocol}"))
    }
}

/// A client sticks to the real server that it was given first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// How long after its last flow has begun. IPVS: 300 s.
    pub timeout: Duration,
    /// Bits of an IPv4 client's address that count (0 to 32).
    pub length_v4: u8,
    /// Bits of an IPv6 client's address that count (0 to 128).
    pub length_v6: u8,
}

/// What happens to TCP segments of unknown flows that open none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MidStream {
    /// The sender gets a reset, as from a host that does not know the connection.
    #[default]
    Refuse,
    /// They are dropped.
    Drop,
    /// They open a flow, as a SYN does: a connection that another forwarder began goes on where the scheduler gives
    /// it the same real server.
    Pick,
}

/// What happens to pings of a VIP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ping {
    /// Answered while a real server is usable.
    #[default]
    WhenUsable,
    /// Answered.
    Always,
    /// Forwarded to a real server, as a flow of its own.
    Forward,
}

/// How packets reach the real server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The destination becomes the real server's; with `sources` the source becomes ours as well (full NAT).
    Nat {
        /// Where the source is translated to: the first rule that holds. Where none does, it stays.
        sources: Vec<SourceNat>,
    },
    /// The packet stays as it is and is handed to the real server as the next hop (direct server return).
    Gateway,
    /// The packet stays as it is and travels inside another one to the real server.
    Tunnel {
        /// What the outer packet looks like.
        encapsulation: Encapsulation,
        /// From whom outer packets come, one for each family that is used. Without one it is the first own address of
        /// the interface by which they leave.
        sources: Vec<IpAddr>,
        /// The outer packet's hops (1 to 255); those of the inner one without it.
        ttl: Option<u8>,
    },
}

impl Mode {
    /// Whether only the client's half of the traffic comes by.
    #[must_use]
    pub const fn is_one_sided(&self) -> bool {
        match self {
            Self::Nat { .. } => false,
            Self::Gateway | Self::Tunnel { .. } => true,
        }
    }
}

/// Translation of the source on the way to the real server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceNat {
    /// Only for clients that come in here.
    pub interface_in: Option<InterfaceId>,
    /// Only for real servers behind this interface.
    pub interface_out: Option<InterfaceId>,
    /// Only for services at these ports, both ends included.
    pub service_ports: RangeInclusive<u16>,
    /// The address that real servers see; one of ours.
    pub address: IpAddr,
    /// The ports that may be used, both ends included. A client's own port is kept when it is free.
    pub ports: RangeInclusive<u16>,
}

impl SourceNat {
    /// Translates every source to `address` and one of `ports`.
    #[must_use]
    pub const fn to(address: IpAddr, ports: RangeInclusive<u16>) -> Self {
        Self { interface_in: None, interface_out: None, service_ports: ANY_PORT, address, ports }
    }
}

/// One real server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerPlan {
    /// The name that users know; unique in its director.
    pub name: String,
    /// The RIP.
    pub address: IpAddr,
    /// The port (1 to 65,535), or 0: the one that the client called.
    pub port: u16,
    /// Relative share of new flows (0 to 65,535); 0 drains.
    pub weight: u32,
    /// It takes no new flows while it has this many (0: no bound).
    pub flows_upper: u32,
    /// Until it has fewer than this many again (0: three quarters of the upper bound).
    pub flows_lower: u32,
    /// The TCP port where its agent answers, in place of the director's (0: it has none).
    pub agent_port: Option<u16>,
}

impl ServerPlan {
    /// A server without bounds.
    #[must_use]
    pub fn new(name: &str, address: IpAddr, port: u16, weight: u32) -> Self {
        Self {
            name: String::from(name),
            address,
            port,
            weight,
            flows_upper: 0,
            flows_lower: 0,
            agent_port: None,
        }
    }
}

/// Bounds of what the engine keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most flows (1 to 16,777,216). A flow costs about 170 bytes, allocated as it is first used.
    pub flows_max: u32,
    /// The most flows beside these whose opening nobody has answered yet (1 to 65,535). When one more begins, the
    /// one that has waited longest gives way.
    pub half_open_max: u16,
    /// The most flows of one client address (0: no bound).
    pub flows_per_client: u32,
    /// The most clients that stick to a real server, all directors together (1 to 16,777,216).
    pub persistent_max: u32,
    /// Answers and errors of our own per second, all kinds together.
    pub answers_per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flows_max: 1 << 20,
            half_open_max: 65_535,
            flows_per_client: 0,
            persistent_max: 1 << 16,
            answers_per_second: 1_000,
        }
    }
}

/// How long a flow lives without packets. The defaults are those of IPVS in Linux 6.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP, both sides have spoken: 900 s.
    pub tcp_established: Duration,
    /// TCP, the client's SYN has been seen: 120 s.
    pub tcp_syn_sent: Duration,
    /// TCP, the real server has answered the SYN: 60 s.
    pub tcp_syn_received: Duration,
    /// TCP, the client has closed: 60 s.
    pub tcp_close_wait: Duration,
    /// TCP, the real server has closed: 120 s.
    pub tcp_fin_wait: Duration,
    /// TCP, both sides have closed: 120 s.
    pub tcp_time_wait: Duration,
    /// TCP, a reset was seen: 10 s.
    pub tcp_close: Duration,
    /// UDP: 300 s.
    pub udp: Duration,
    /// ICMP queries: 60 s.
    pub icmp: Duration,
}

impl Timeouts {
    /// Those that the RFCs ask for: 5382 and 7857 for TCP, 4787 for UDP, 5508 for ICMP.
    #[must_use]
    pub fn rfc() -> Self {
        let seconds = Duration::from_secs;
        Self {
            tcp_established: seconds(7_440),
            tcp_syn_sent: seconds(240),
            tcp_syn_received: seconds(240),
            tcp_close_wait: seconds(240),
            tcp_fin_wait: seconds(240),
            tcp_time_wait: seconds(240),
            tcp_close: seconds(240),
            udp: seconds(300),
            icmp: seconds(60),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            tcp_established: seconds(900),
            tcp_syn_sent: seconds(120),
            tcp_syn_received: seconds(60),
            tcp_close_wait: seconds(60),
            tcp_fin_wait: seconds(120),
            tcp_time_wait: seconds(120),
            tcp_close: seconds(10),
            udp: seconds(300),
            icmp: seconds(60),
        }
    }
}
