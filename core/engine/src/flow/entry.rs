//! One flow: both tuples, where it goes, what has passed, and when it ends.

use super::tcp_track::{Judgement, Segment, TcpTrack};
use crate::nat::between;
use crate::plan::Timeouts;
use crate::time::{Duration, Instant};
use crate::verdict::InterfaceId;
use crate::wire::checksum::Delta;
use crate::wire::tcp::Flags;
use crate::wire::{Address, FiveTuple, Protocol};

/// Which way a packet of a flow goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the real server.
    Original,
    /// From the real server to the client.
    Reply,
}

impl Direction {
    /// The other way.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Original => Self::Reply,
            Self::Reply => Self::Original,
        }
    }
}

macro_rules! states {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// How far a flow has come.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum FlowState {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl FlowState {
            /// Every state.
            pub const ALL: [Self; 9] = [$(Self::$variant,)+];

            /// The name that users see.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

states! {
    /// UDP: datagrams have been seen.
    Udp = "udp",
    /// ICMP: a query has been seen.
    Icmp = "icmp",
    /// TCP: the client's SYN has been seen.
    SynSent = "syn_sent",
    /// TCP: the real server has answered the SYN, or is not seen at all.
    SynReceived = "syn_received",
    /// TCP: the client has acknowledged.
    Established = "established",
    /// TCP: the client has closed its side.
    FinClient = "close_wait",
    /// TCP: the real server has closed its side.
    FinServer = "fin_wait",
    /// TCP: both have closed.
    TimeWait = "time_wait",
    /// TCP: reset.
    Closed = "closed",
}

impl FlowState {
    /// The state after a segment with `flags` in `direction`. UDP stays UDP.
    #[must_use]
    #[inline(always)]
    pub fn after(self, flags: Flags, direction: Direction) -> Self {
        // Most packets are data of an open connection, or UDP.
        let is_plain = !flags.has(Flags(Flags::FIN.0 | Flags::RST.0));
        if matches!(self, Self::Udp | Self::Icmp) || (self == Self::Established && is_plain) {
            return self;
        }
        if flags.has(Flags::RST) {
            return Self::Closed;
        }
        match (self, direction) {
            (Self::SynSent, Direction::Reply) if flags.has(Flags::SYN) => Self::SynReceived,
            // The server knows a connection that we met in its middle.
            (Self::SynSent, Direction::Reply) if flags.has(Flags::ACK) => Self::Established,
            (Self::SynReceived, Direction::Original) if flags.has(Flags::ACK) && !flags.has(Flags::SYN) => {
                if flags.has(Flags::FIN) {
                    Self::FinClient
                } else {
                    Self::Established
                }
            }
            (Self::SynReceived | Self::Established, Direction::Original) if flags.has(Flags::FIN) => {
                Self::FinClient
            }
            (Self::SynReceived | Self::Established, Direction::Reply) if flags.has(Flags::FIN) => {
                Self::FinServer
            }
            (Self::FinClient, Direction::Reply) | (Self::FinServer, Direction::Original)
                if flags.has(Flags::FIN) =>
            {
                Self::TimeWait
            }
            (
                Self::Udp
                | Self::Icmp
                | Self::SynSent
                | Self::SynReceived
                | Self::Established
                | Self::FinClient
                | Self::FinServer
                | Self::TimeWait
                | Self::Closed,
                Direction::Original | Direction::Reply,
            ) => self,
        }
    }

    /// How long a flow in this state lives without packets.
    #[must_use]
    pub const fn timeout(self, timeouts: &Timeouts) -> Duration {
        match self {
            Self::Udp => timeouts.udp,
            Self::Icmp => timeouts.icmp,
            Self::SynSent => timeouts.tcp_syn_sent,
            Self::SynReceived => timeouts.tcp_syn_received,
            Self::Established => timeouts.tcp_established,
            Self::FinClient => timeouts.tcp_close_wait,
            Self::FinServer => timeouts.tcp_fin_wait,
            Self::TimeWait => timeouts.tcp_time_wait,
            Self::Closed => timeouts.tcp_close,
        }
    }

    /// Whether schedulers count the flow as active, as IPVS does: TCP from the SYN to the first FIN.
    #[must_use]
    pub const fn is_active(self) -> bool {
        match self {
            Self::SynSent | Self::SynReceived | Self::Established => true,
            Self::Udp | Self::Icmp | Self::FinClient | Self::FinServer | Self::TimeWait | Self::Closed => {
                false
            }
        }
    }

    /// Whether the client may open a new flow with the same ports.
    #[must_use]
    pub const fn is_over(self) -> bool {
        match self {
            Self::TimeWait | Self::Closed => true,
            Self::Udp
            | Self::Icmp
            | Self::SynSent
            | Self::SynReceived
            | Self::Established
            | Self::FinClient
            | Self::FinServer => false,
        }
    }
}

/// What is always so of a flow, in bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traits(u8);

impl Traits {
    /// The packet stays as it is and goes to the real server as next hop or inside a tunnel; answers do not come by.
    pub const ONE_SIDED: Self = Self(1);
    /// It holds a port of source NAT.
    pub const HOLDS_PORT: Self = Self(2);
    /// It waits among the half-open flows for its opening to be answered.
    pub const HALF_OPEN: Self = Self(4);
    /// Its client sticks to the real server.
    pub const STICKS: Self = Self(8);
    /// The client's sequence numbers are known.
    pub const TRACKS_CLIENT: Self = Self(16);
    /// The real server's sequence numbers are known.
    pub const TRACKS_SERVER: Self = Self(32);
    /// Where the bits of the guests that judge its packets begin; two are left for them.
    const JUDGES_SHIFT: u32 = 6;

    /// All of them, in bits.
    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    /// Those of these bits.
    pub(crate) const fn of_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// Whether any bit of `other` is set.
    #[must_use]
    #[inline]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// These and those of `other`.
    #[must_use]
    #[inline]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The same with these guests as judges of its packets; the bits are those of the policy chain.
    #[must_use]
    pub const fn judged_by(self, judges: u8) -> Self {
        Self(self.0 & ((1 << Self::JUDGES_SHIFT) - 1) | judges << Self::JUDGES_SHIFT)
    }

    /// The guests that judge its packets.
    #[must_use]
    pub const fn judges(self) -> u8 {
        self.0 >> Self::JUDGES_SHIFT
    }

    /// These but not those of `other`.
    #[must_use]
    #[inline]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// Packets and bytes of one direction, in one word: both are counted by one addition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally(u64);

impl Tally {
    /// Bits of the word that count bytes: 1 TiB. The others count packets, 16 million of them.
    const BYTE_BITS: u32 = 40;

    /// The word.
    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    /// The tally of this word.
    pub(crate) const fn of_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Counts a packet of `length` IP bytes.
    #[inline]
    pub const fn count(&mut self, length: u32) {
        self.0 = self.0.wrapping_add((1 << Self::BYTE_BITS) | length as u64);
    }

    /// Packets; wraps after 2^24 of them.
    #[must_use]
    pub const fn packets(self) -> u32 {
        #[allow(clippy::cast_possible_truncation, reason = "24 bits are left")]
        let packets = (self.0 >> Self::BYTE_BITS) as u32;
        packets
    }

    /// IP bytes; wraps after 2^40 of them, which then counts as a packet.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0 & ((1 << Self::BYTE_BITS) - 1)
    }
}

/// One flow, in two cache lines.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub struct FlowEntry {
    /// The client, as it came in.
    pub client: Address,
    /// The address that the client called.
    pub service: Address,
    /// The real server.
    pub server: Address,
    /// Whom the real server sees: the client, or with source NAT one of our addresses.
    pub mapped: Address,
    /// The client's port, or the identifier of its ICMP query.
    pub client_port: u16,
    /// The port that the client called.
    pub service_port: u16,
    /// The real server's port.
    pub server_port: u16,
    /// The port that the real server sees.
    pub mapped_port: u16,
    /// How far it has come.
    pub state: FlowState,
    /// What is always so of it.
    pub traits: Traits,
    /// The place of its director.
    pub director: u16,
    /// The place of its real server within the director.
    pub server_slot: u16,
    /// The plan under which it was last permitted.
    pub generation: u8,
    /// Where the client's packets came in: the number of the interface.
    pub interface_in: u8,
    /// When it ends unless a packet comes.
    pub expires: Instant,
    /// Its place among the half-open flows, while it is one.
    pub ring_slot: u16,
    /// What the original direction does to sums over addresses; the reply direction does the inverse.
    pub address_delta: Delta,
    /// The same for sums over addresses and ports.
    pub tuple_delta: Delta,
    /// The numbers of the ways by which packets leave: to the client, and to the real server.
    pub ways: [u8; 2],
    /// What has come from the client, and from the real server.
    pub tallies: [Tally; 2],
    /// What is known of TCP's sequence numbers.
    pub track: TcpTrack,
}

impl FlowEntry {
    /// A flow between nobody, in `state`, permitted under the plan `generation`.
    #[must_use]
    pub fn new(state: FlowState, generation: u8) -> Self {
        Self {
            client: Address::UNSPECIFIED,
            service: Address::UNSPECIFIED,
            server: Address::UNSPECIFIED,
            mapped: Address::UNSPECIFIED,
            client_port: 0,
            service_port: 0,
            server_port: 0,
            mapped_port: 0,
            state,
            traits: Traits::default(),
            director: 0,
            server_slot: 0,
            generation,
            interface_in: 0,
            expires: Instant::ZERO,
            ring_slot: 0,
            address_delta: Delta::NONE,
            tuple_delta: Delta::NONE,
            ways: [0; 2],
            tallies: [Tally::default(); 2],
            track: TcpTrack::default(),
        }
    }

    /// Whether its packets stay as they are and its answers do not come by.
    #[must_use]
    #[inline]
    pub const fn is_one_sided(&self) -> bool {
        self.traits.has(Traits::ONE_SIDED)
    }

    /// Whether somebody has answered its opening: the handshake is done, a datagram has come back, or where answers do
    /// not come by, the client goes on.
    #[must_use]
    pub const fn is_answered(&self) -> bool {
        match self.state {
            FlowState::SynSent | FlowState::SynReceived => false,
            FlowState::Udp | FlowState::Icmp => {
                let [original, reply] = self.tallies;
                reply.packets() > 0 || original.packets() > 1
            }
            FlowState::Established | FlowState::FinClient | FlowState::FinServer | FlowState::TimeWait => {
                true
            }
            // Reset before it was open.
            FlowState::Closed => false,
        }
    }

    /// Notes what a segment says of TCP's numbers. Returns whether they fit; always so for other protocols.
    #[inline(always)]
    pub fn follow(&mut self, segment: &Segment, direction: Direction) -> bool {
        if self.protocol().0 != Protocol::TCP.0 {
            return true;
        }
        let is_plausible = self.track.judge(segment, direction) == Judgement::Plausible;
        if is_plausible {
            self.track.note(segment, direction);
        }
        is_plausible
    }

    /// TCP, UDP or ICMP.
    #[must_use]
    #[inline]
    pub const fn protocol(&self) -> Protocol {
        // The states of TCP come last.
        if self.state as u8 >= FlowState::SynSent as u8 {
            Protocol::TCP
        } else if self.state as u8 == FlowState::Udp as u8 {
            Protocol::UDP
        } else if self.service.is_v4() {
            Protocol::ICMP
        } else {
            Protocol::ICMPV6
        }
    }

    /// The tuple of packets in `direction`, as they come in. Answers of a one-sided flow have none that differs.
    #[must_use]
    #[inline(always)]
    pub const fn tuple(&self, direction: Direction) -> FiveTuple {
        match direction {
            Direction::Original => FiveTuple {
                source: self.client,
                destination: self.service,
                source_port: self.client_port,
                destination_port: self.service_port,
                protocol: self.protocol(),
            },
            Direction::Reply => FiveTuple {
                source: self.server,
                destination: self.mapped,
                source_port: self.server_port,
                destination_port: self.mapped_port,
                protocol: self.protocol(),
            },
        }
    }

    /// Whether `tuple` is that of packets in `direction`, as they come in.
    #[must_use]
    #[inline]
    pub fn is_tuple(&self, direction: Direction, tuple: &FiveTuple) -> bool {
        let has_ends = match direction {
            Direction::Original => {
                tuple.source == self.client
                    && tuple.destination == self.service
                    && tuple.source_port == self.client_port
                    && tuple.destination_port == self.service_port
            }
            Direction::Reply => {
                tuple.source == self.server
                    && tuple.destination == self.mapped
                    && tuple.source_port == self.server_port
                    && tuple.destination_port == self.mapped_port
            }
        };
        has_ends && tuple.protocol == self.protocol()
    }

    /// The tuple of packets in `direction`, as they leave.
    #[must_use]
    #[inline(always)]
    pub const fn translated(&self, direction: Direction) -> FiveTuple {
        match direction {
            Direction::Original => self.tuple(Direction::Reply).reversed(),
            Direction::Reply => self.tuple(Direction::Original).reversed(),
        }
    }

    /// The number of the way by which packets in `direction` leave.
    #[inline]
    pub(crate) const fn way(&self, direction: Direction) -> u8 {
        let [client, server] = self.ways;
        match direction {
            Direction::Original => server,
            Direction::Reply => client,
        }
    }

    /// Where the client's packets came in.
    #[must_use]
    pub const fn interface_in(&self) -> InterfaceId {
        InterfaceId(self.interface_in as u16)
    }

    /// Counts a packet of `length` IP bytes.
    #[inline]
    pub fn count(&mut self, direction: Direction, length: u32) {
        let [original, reply] = &mut self.tallies;
        let tally = match direction {
            Direction::Original => original,
            Direction::Reply => reply,
        };
        tally.count(length);
    }

    /// What has come in `direction`.
    #[must_use]
    pub const fn tally(&self, direction: Direction) -> Tally {
        let [original, reply] = self.tallies;
        match direction {
            Direction::Original => original,
            Direction::Reply => reply,
        }
    }

    /// Computes the deltas from the tuples.
    pub fn set_deltas(&mut self) {
        if self.is_one_sided() {
            return;
        }
        self.address_delta = between(self.client, self.mapped).and(between(self.service, self.server));
        let source_port = Delta::of_word(self.client_port, self.mapped_port);
        let destination_port = Delta::of_word(self.service_port, self.server_port);
        // ICMP of IPv4 sums no addresses.
        let is_bare = self.protocol().0 == Protocol::ICMP.0;
        let addresses = if is_bare { Delta::NONE } else { self.address_delta };
        self.tuple_delta = addresses.and(source_port).and(destination_port);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Original, Reply};

    #[test]
    fn an_entry_fits_two_cache_lines_with_room_for_the_slab_to_mark_it_free() {
        assert!(size_of::<FlowEntry>() <= 128, "{}", size_of::<FlowEntry>());
        assert_eq!(size_of::<Option<FlowEntry>>(), size_of::<FlowEntry>());
    }

    #[test]
    fn a_connection_opens_and_closes_from_either_side() {
        const SYN_ACK: Flags = Flags(0x12);
        const FIN_ACK: Flags = Flags(0x11);
        let walk = |steps: &[(Flags, Direction)]| {
            steps.iter().fold(FlowState::SynSent, |state, (flags, way)| state.after(*flags, *way))
        };
        let opened = [(SYN_ACK, Reply), (Flags::ACK, Original)];
        assert_eq!(walk(&opened), FlowState::Established);
        let with = |more: &[(Flags, Direction)]| walk(&[&opened, more].concat());
        assert_eq!(with(&[(FIN_ACK, Original)]), FlowState::FinClient);
        assert_eq!(with(&[(FIN_ACK, Original), (FIN_ACK, Reply)]), FlowState::TimeWait);
        assert_eq!(with(&[(FIN_ACK, Reply), (FIN_ACK, Original)]), FlowState::TimeWait);
        assert_eq!(with(&[(FIN_ACK, Reply), (FIN_ACK, Reply)]), FlowState::FinServer);
        assert_eq!(with(&[(Flags::RST, Reply)]), FlowState::Closed);
        // Stray segments do not open a connection.
        assert_eq!(walk(&[(Flags::ACK, Original)]), FlowState::SynSent);
        // A server that knows the connection was asked in its middle.
        assert_eq!(walk(&[(Flags::ACK, Reply)]), FlowState::Established);
        assert_eq!(FlowState::Udp.after(FIN_ACK, Reply), FlowState::Udp);
    }
}
