//! Why a packet ends in the network stack of a machine, and what is counted there.

use std::fmt;

use serde::Serialize;

/// Why a packet ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum KernelDrop {
    /// A header is cut short, or its fields contradict each other.
    Malformed,
    /// The checksum of a header is wrong.
    Checksum,
    /// The frame is for another station.
    OtherHost,
    /// The frame carries neither IP nor ARP.
    UnknownType,
    /// The interface is down, or there is none with this number.
    InterfaceDown,
    /// The source is no address that a packet can come from: the machine's own, or that of a group.
    MartianSource,
    /// The destination is no address that a packet can go to.
    MartianDestination,
    /// The way back to the source does not lead to where the packet came from (`rp_filter`).
    ReversePath,
    /// The packet is for somebody else, and the machine does not forward.
    NotForwarding,
    /// No route leads to the destination.
    NoRoute,
    /// A route or rule says so.
    Blackhole,
    /// A route or rule says that the destination cannot be reached.
    Unreachable,
    /// A route or rule says that this is forbidden.
    Prohibited,
    /// The time to live has run out.
    TtlExceeded,
    /// The packet is larger than the next link takes, and must not be cut.
    TooBig,
    /// Nobody answers for the next hop.
    NeighbourFailed,
    /// Too many packets wait for the next hop.
    NeighbourQueueFull,
    /// There are too many neighbours.
    NeighbourTableFull,
    /// A fragment whose others did not come in time.
    FragmentTimeout,
    /// A fragment that overlaps another, or for which there is no room.
    FragmentRefused,
    /// All mappings of the source NAT are taken.
    NatFull,
    /// The source NAT knows no such flow, and the packet is of a protocol that it cannot translate.
    NatUntranslatable,
    /// The source NAT lets nothing in from there.
    NatFiltered,
    /// What came through a tunnel is no packet.
    TunnelMalformed,
    /// What came through a tunnel has been through too many.
    TunnelNested,
    /// The checksum of a message to the kernel itself is wrong.
    MessageChecksum,
}

/// How many reasons there are.
const REASONS: usize = 26;

impl KernelDrop {
    /// Every reason.
    pub const ALL: [Self; REASONS] = [
        Self::Malformed,
        Self::Checksum,
        Self::OtherHost,
        Self::UnknownType,
        Self::InterfaceDown,
        Self::MartianSource,
        Self::MartianDestination,
        Self::ReversePath,
        Self::NotForwarding,
        Self::NoRoute,
        Self::Blackhole,
        Self::Unreachable,
        Self::Prohibited,
        Self::TtlExceeded,
        Self::TooBig,
        Self::NeighbourFailed,
        Self::NeighbourQueueFull,
        Self::NeighbourTableFull,
        Self::FragmentTimeout,
        Self::FragmentRefused,
        Self::NatFull,
        Self::NatUntranslatable,
        Self::NatFiltered,
        Self::TunnelMalformed,
        Self::TunnelNested,
        Self::MessageChecksum,
    ];

    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Checksum => "checksum",
            Self::OtherHost => "other_host",
            Self::UnknownType => "unknown_type",
            Self::InterfaceDown => "interface_down",
            Self::MartianSource => "martian_source",
            Self::MartianDestination => "martian_destination",
            Self::ReversePath => "reverse_path",
            Self::NotForwarding => "not_forwarding",
            Self::NoRoute => "no_route",
            Self::Blackhole => "blackhole",
            Self::Unreachable => "unreachable",
            Self::Prohibited => "prohibited",
            Self::TtlExceeded => "ttl_exceeded",
            Self::TooBig => "too_big",
            Self::NeighbourFailed => "neighbour_failed",
            Self::NeighbourQueueFull => "neighbour_queue_full",
            Self::NeighbourTableFull => "neighbour_table_full",
            Self::FragmentTimeout => "fragment_timeout",
            Self::FragmentRefused => "fragment_refused",
            Self::NatFull => "nat_full",
            Self::NatUntranslatable => "nat_untranslatable",
            Self::NatFiltered => "nat_filtered",
            Self::TunnelMalformed => "tunnel_malformed",
            Self::TunnelNested => "tunnel_nested",
            Self::MessageChecksum => "message_checksum",
        }
    }
}

impl fmt::Display for KernelDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the network stack of a machine has done so far. Every packet that comes in or is made there ends once:
///
/// `received + sent + from_tuns + born + split == transmitted + to_host + to_tuns + consumed + dropped + waiting`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KernelCounts {
    /// Frames that came in by an interface.
    pub received: u64,
    /// Packets that the machine's programs sent.
    pub sent: u64,
    /// Packets that came out of TUN devices.
    pub from_tuns: u64,
    /// Packets that the stack made itself: ARP, neighbour discovery, ICMP errors.
    pub born: u64,
    /// What cutting packets into fragments added to their number.
    pub split: u64,
    /// Frames that left by an interface.
    pub transmitted: u64,
    /// Packets that went up to the machine's programs.
    pub to_host: u64,
    /// Packets that went into TUN devices.
    pub to_tuns: u64,
    /// Packets that were for the stack itself, and fragments that became part of another.
    pub consumed: u64,
    /// Packets that wait for a neighbour or for further fragments.
    pub waiting: u64,
    /// Packets that were forwarded, into TUN devices or by an interface.
    pub forwarded: u64,
    /// Requests for a neighbour that were sent, to all or to one.
    pub requests_sent: u64,
    /// Requests for a neighbour that were answered.
    pub requests_answered: u64,
    /// Requests for an address of the machine that were not answered because of `arp_ignore` or `arp_filter`.
    pub requests_ignored: u64,
    /// Times that a known neighbour's link address changed.
    pub neighbours_changed: u64,
    /// Echo requests that were answered.
    pub echoes: u64,
    /// ICMP errors that were sent.
    pub errors_sent: u64,
    /// ICMP errors that were not sent because there were too many.
    pub errors_limited: u64,
    /// Packets that ended, in the order of [`KernelDrop::ALL`].
    dropped: [u64; REASONS],
}

impl KernelCounts {
    /// Packets that ended for this reason.
    #[must_use]
    pub fn dropped(&self, reason: KernelDrop) -> u64 {
        self.dropped.get(usize::from(reason as u8)).copied().unwrap_or(0)
    }

    /// Packets that ended for any reason.
    #[must_use]
    pub fn dropped_all(&self) -> u64 {
        self.dropped.iter().sum()
    }

    pub(super) fn drop(&mut self, reason: KernelDrop) {
        if let Some(count) = self.dropped.get_mut(usize::from(reason as u8)) {
            *count += 1;
        }
    }
}
