//! One flow: both tuples, where it goes, what has passed, and when it ends.

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

/// How far a flow has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum FlowState {
    /// UDP: datagrams have been seen.
    Udp,
    /// TCP: the client's SYN has been seen.
    SynSent,
    /// TCP: the real server has answered the SYN.
    SynReceived,
    /// TCP: the client has acknowledged.
    Established,
    /// TCP: the client has closed its side.
    FinClient,
    /// TCP: the real server has closed its side.
    FinServer,
    /// TCP: both have closed.
    TimeWait,
    /// TCP: reset.
    Closed,
}

impl FlowState {
    /// The state after a segment with `flags` in `direction`. UDP stays UDP.
    #[must_use]
    #[inline]
    pub fn after(self, flags: Flags, direction: Direction) -> Self {
        // Most packets are data of an open connection, or UDP.
        let is_plain = !flags.has(Flags(Flags::FIN.0 | Flags::RST.0));
        if self == Self::Udp || (self == Self::Established && is_plain) {
            return self;
        }
        if flags.has(Flags::RST) {
            return Self::Closed;
        }
        match (self, direction) {
            (Self::SynSent, Direction::Reply) if flags.has(Flags::SYN) && flags.has(Flags::ACK) => {
                Self::SynReceived
            }
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
            Self::SynSent => timeouts.tcp_syn_sent,
            Self::SynReceived => timeouts.tcp_syn_received,
            Self::Established => timeouts.tcp_established,
            Self::FinClient | Self::FinServer => timeouts.tcp_fin_wait,
            Self::TimeWait => timeouts.tcp_time_wait,
            Self::Closed => timeouts.tcp_close,
        }
    }

    /// Whether schedulers count the flow as active, as IPVS does: TCP from the SYN to the first FIN.
    #[must_use]
    pub const fn is_active(self) -> bool {
        match self {
            Self::SynSent | Self::SynReceived | Self::Established => true,
            Self::Udp | Self::FinClient | Self::FinServer | Self::TimeWait | Self::Closed => false,
        }
    }

    /// Whether the client may open a new flow with the same ports.
    #[must_use]
    pub const fn is_over(self) -> bool {
        match self {
            Self::TimeWait | Self::Closed => true,
            Self::Udp
            | Self::SynSent
            | Self::SynReceived
            | Self::Established
            | Self::FinClient
            | Self::FinServer => false,
        }
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
    /// The client's port.
    pub client_port: u16,
    /// The port that the client called.
    pub service_port: u16,
    /// The real server's port.
    pub server_port: u16,
    /// The port that the real server sees.
    pub mapped_port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// How far it has come.
    pub state: FlowState,
    /// The place of its director.
    pub director: u16,
    /// The place of its real server within the director.
    pub server_slot: u16,
    /// When it ends unless a packet comes.
    pub expires: Instant,
    /// The plan under which it was last permitted.
    pub generation: u32,
    /// What the original direction does to sums over addresses; the reply direction does the inverse.
    pub address_delta: Delta,
    /// The same for sums over addresses and ports.
    pub tuple_delta: Delta,
    /// Where the client's packets came in.
    pub client_interface: InterfaceId,
    /// Where the real server is.
    pub server_interface: InterfaceId,
    /// Packets from the client; wraps.
    pub packets_original: u32,
    /// Packets from the real server; wraps.
    pub packets_reply: u32,
    /// IP bytes of both directions.
    pub bytes: u64,
}

impl FlowEntry {
    /// The tuple of packets in `direction`, as they come in.
    #[must_use]
    #[inline]
    pub const fn tuple(&self, direction: Direction) -> FiveTuple {
        match direction {
            Direction::Original => FiveTuple {
                source: self.client,
                destination: self.service,
                source_port: self.client_port,
                destination_port: self.service_port,
                protocol: self.protocol,
            },
            Direction::Reply => FiveTuple {
                source: self.server,
                destination: self.mapped,
                source_port: self.server_port,
                destination_port: self.mapped_port,
                protocol: self.protocol,
            },
        }
    }

    /// The tuple of packets in `direction`, as they leave.
    #[must_use]
    #[inline]
    pub const fn translated(&self, direction: Direction) -> FiveTuple {
        match direction {
            Direction::Original => self.tuple(Direction::Reply).reversed(),
            Direction::Reply => self.tuple(Direction::Original).reversed(),
        }
    }

    /// A number from each cache line of the entry, to have both read early.
    #[must_use]
    #[inline]
    pub(crate) const fn touch(&self) -> u32 {
        self.generation ^ u32::from_be_bytes(self.client.v4_bytes())
    }

    /// Where packets in `direction` leave.
    #[must_use]
    #[inline]
    pub const fn interface_out(&self, direction: Direction) -> InterfaceId {
        match direction {
            Direction::Original => self.server_interface,
            Direction::Reply => self.client_interface,
        }
    }

    /// Counts a packet of `length` IP bytes.
    #[inline]
    pub fn count(&mut self, direction: Direction, length: u16) {
        let packets = match direction {
            Direction::Original => &mut self.packets_original,
            Direction::Reply => &mut self.packets_reply,
        };
        *packets = packets.wrapping_add(1);
        self.bytes += u64::from(length);
    }

    /// Computes the deltas from the tuples.
    pub fn set_deltas(&mut self) {
        self.address_delta = between(self.client, self.mapped).and(between(self.service, self.server));
        let source_port = Delta::of_word(self.client_port, self.mapped_port);
        let destination_port = Delta::of_word(self.service_port, self.server_port);
        self.tuple_delta = self.address_delta.and(source_port).and(destination_port);
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
        assert_eq!(walk(&[(Flags::ACK, Reply)]), FlowState::SynSent);
        assert_eq!(FlowState::Udp.after(FIN_ACK, Reply), FlowState::Udp);
    }
}
