//! The checked configuration that an engine runs by. Built by `config`, a scenario or a test; the
//! engine takes it whole with [`Engine::apply`](crate::Engine::apply) or refuses it whole.
//!
//! A plan is plain data: nothing in it is open, running or random.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::ops::RangeInclusive;

use crate::time::Duration;
use crate::verdict::InterfaceId;
use crate::wire::ethernet::MacAddress;
use crate::wire::{HashKey, Protocol};

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
    /// Who decides about new flows, in order; the first that does not skip wins.
    pub policies: Vec<PolicyPlan>,
    /// What happens to a packet that no policy decided.
    pub default_permit: bool,
    /// The virtual services.
    pub directors: Vec<DirectorPlan>,
    /// Bounds of the tables.
    pub limits: Limits,
    /// How long flows live without packets.
    pub timeouts: Timeouts,
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
            policies: Vec::new(),
            default_permit: true,
            directors: Vec::new(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
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
    Guest {
        /// The name that users know.
        name: String,
        /// What the host needs to run it.
        guest: GuestPlan,
        /// What a packet gets when the guest fails on it: permit, or else deny.
        permit_on_fault: bool,
    },
}

/// A named flow: rules that say which packets belong to it, and what happens to those.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowPlan {
    /// The name that users know, shown where it denies.
    pub name: String,
    /// What happens to packets of this flow.
    pub action: FlowAction,
    /// Looked at in order; the first whose condition holds decides.
    pub rules: Vec<FlowRule>,
}

/// What a flow does with its packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlowAction {
    /// The packet goes on to the director that is bound to its destination.
    Permit,
    /// The packet is dropped.
    Deny,
    /// The packet goes to this director, whatever its destination; the index into [`Plan::directors`].
    Director(usize),
    /// The flow is passed over.
    Skip,
}

/// One rule of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowRule {
    /// `match` when set: the packet belongs to the flow. Else `ignore`: it does not, and the next flow is asked.
    pub is_match: bool,
    /// Every one of them must hold.
    pub conditions: Vec<Condition>,
}

/// One condition, negated or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `not` stands in front of it.
    pub is_negated: bool,
    /// What it looks at.
    pub test: Test,
}

/// What a condition looks at. Each is constant within a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// The input interface.
    Interface(InterfaceId),
    /// The protocol of layer 4.
    Protocol(Protocol),
    /// The source address.
    Source(Prefix),
    /// The destination address.
    Destination(Prefix),
    /// The source port, both ends included.
    SourcePort(RangeInclusive<u16>),
    /// The destination port, both ends included.
    DestinationPort(RangeInclusive<u16>),
}

/// One virtual service.
#[derive(Clone, Debug, PartialEq)]
pub struct DirectorPlan {
    /// The name that users know; unique.
    pub name: String,
    /// The VIP.
    pub address: IpAddr,
    /// The port of the service (1 to 65,535).
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// How packets reach the real server.
    pub mode: Mode,
    /// Who picks the real server.
    pub scheduler: SchedulerPlan,
    /// The real servers, in the order in which the user named them.
    pub servers: Vec<ServerPlan>,
}

/// How packets reach the real server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The destination becomes the real server's; with `source` the source becomes ours as well (full NAT).
    Nat {
        /// Where the source is translated to, if it is.
        source: Option<SourceNat>,
    },
}

/// Translation of the source on the way to the real server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceNat {
    /// The address that real servers see; one of ours.
    pub address: IpAddr,
    /// The ports that may be used, both ends included. A client's own port is kept when it is free.
    pub ports: RangeInclusive<u16>,
}

/// Who picks the real server.
#[derive(Clone, Debug, PartialEq)]
pub enum SchedulerPlan {
    /// A scheduler of the engine.
    Builtin(Builtin),
    /// A component; found under the director's name among the [`Guests`](crate::Guests).
    Guest(GuestPlan),
}

macro_rules! builtins {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// The schedulers that are built into the engine.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Builtin {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Builtin {
            /// Every built-in scheduler.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The name that configuration files use.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

builtins! {
    /// Round robin.
    RoundRobin = "rr",
    /// Weighted round robin.
    WeightedRoundRobin = "wrr",
    /// Least connections.
    LeastConnections = "lc",
    /// Weighted least connections.
    WeightedLeastConnections = "wlc",
    /// Source hashing.
    SourceHashing = "sh",
    /// Maglev hashing over the flow hash.
    Maglev = "maglev",
}

/// What a host needs to run a component; the engine only keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct GuestPlan {
    /// A bundled component's name (`bundled:maglev`), or the path of a file.
    pub component: String,
    /// The text of the guest's own options, given to it as it is.
    pub options: String,
    /// The most time that one call may take. The simulator counts instructions instead.
    pub call_budget: Duration,
    /// The most linear memory that the guest may have, in bytes.
    pub memory_limit_bytes: u64,
    /// The native scheduler that answers when the guest does not.
    pub fallback: Builtin,
}

/// One real server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerPlan {
    /// The name that users know; unique in its director.
    pub name: String,
    /// The RIP.
    pub address: IpAddr,
    /// The port (1 to 65,535).
    pub port: u16,
    /// Relative share of new flows (0 to 65,535); 0 drains.
    pub weight: u32,
}

/// Bounds of what the engine keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most flows (1 to 16,777,216). A flow costs about 170 bytes, allocated as it is first used.
    pub flows_max: u32,
    /// Answers and errors of our own per second, all kinds together.
    pub answers_per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { flows_max: 1 << 20, answers_per_second: 1_000 }
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
    /// TCP, one side has closed: 120 s.
    pub tcp_fin_wait: Duration,
    /// TCP, both sides have closed: 120 s.
    pub tcp_time_wait: Duration,
    /// TCP, a reset was seen: 10 s.
    pub tcp_close: Duration,
    /// UDP: 300 s.
    pub udp: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            tcp_established: seconds(900),
            tcp_syn_sent: seconds(120),
            tcp_syn_received: seconds(60),
            tcp_fin_wait: seconds(120),
            tcp_time_wait: seconds(120),
            tcp_close: seconds(10),
            udp: seconds(300),
        }
    }
}
