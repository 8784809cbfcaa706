//! Every connection of a capture: who talks to whom, which real server has it, and whether it broke.

use evenkeel_engine::verdict::DropReason;
use evenkeel_engine::wire::{Address, FiveTuple, HashKey, Protocol};
use evenkeel_engine::{FlowStatus, Instant, InterfaceId};

use crate::packet::Flags;

/// The most connections of one replay: what a trunk of 10 Gbit/s has in a minute. Packets of further ones are skipped.
pub const CONNECTIONS_MAX: usize = 1 << 21;

/// One connection: a TCP connection, or all datagrams between two ends.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    /// The client's packets, as they come to the forwarder.
    pub(super) tuple: FiveTuple,
    /// Whom the client called in the capture.
    pub(super) called: (Address, u16),
    /// Which real server has it.
    pub(super) way: Option<Way>,
    /// The batch in which its latest packet is.
    pub(super) batch: u32,
    /// Whether a packet in that batch may open a flow, so that what follows it has to wait for the answer.
    pub(super) is_open_asked: bool,
    /// When the latest packet came.
    pub(super) latest: Instant,
    /// The sides that have closed, and whether it was reset.
    ended: Ended,
    /// Packets of the client and of the server.
    pub(super) packets: [u32; 2],
    /// Packets that went on.
    pub(super) forwarded: u32,
    /// Why its first packet was dropped, when none has gone on.
    pub(super) refused: Option<DropReason>,
    /// How it broke first.
    pub(super) broken: Option<Broken>,
}

/// How far a connection has come to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ended {
    client: bool,
    server: bool,
    reset: bool,
}

/// What a connection's real server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// The number of the server, among all that have been seen.
    pub(super) server: u16,
    /// The server's packets, as they come to the forwarder.
    pub(super) reply: FiveTuple,
    /// Where the server is.
    pub(super) interface: InterfaceId,
    /// Its answers do not come by the forwarder.
    pub(super) is_one_sided: bool,
    /// Each of its datagrams is scheduled on its own.
    pub(super) is_each_alone: bool,
}

impl Way {
    pub(super) fn of(status: &FlowStatus<'_>, server: u16) -> Self {
        use evenkeel_engine::flow::Direction;
        Self {
            server,
            reply: status.entry.tuple(Direction::Reply),
            interface: status.interface_out,
            is_one_sided: status.entry.is_one_sided(),
            is_each_alone: false,
        }
    }
}

/// How a connection broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    /// The packet of the capture, from 1.
    pub(super) packet: u64,
    pub(super) cause: Cause,
}

/// Why a connection counts as broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Its packets went to this server, then to that.
    Moved(u16, u16),
    /// A later packet was dropped.
    Dropped(DropReason),
}

impl Connection {
    fn new(tuple: FiveTuple, called: (Address, u16)) -> Self {
        Self {
            tuple,
            called,
            way: None,
            batch: 0,
            is_open_asked: false,
            latest: Instant::ZERO,
            ended: Ended::default(),
            packets: [0; 2],
            forwarded: 0,
            refused: None,
            broken: None,
        }
    }

    /// Whether both sides have closed, or one has reset it.
    pub(super) const fn is_over(&self) -> bool {
        self.ended.reset || (self.ended.client && self.ended.server)
    }

    /// Notes that a packet of the client, or else of the server, is in the batch.
    #[inline]
    pub(super) fn enter_batch(&mut self, batch: u32, is_from_client: bool, may_open: bool) {
        let [client, server] = &mut self.packets;
        *(if is_from_client { client } else { server }) += 1;
        self.is_open_asked = may_open || (self.batch == batch && self.is_open_asked);
        self.batch = batch;
    }

    /// Notes what a packet of the client, or else of the server, says of its end.
    #[inline]
    pub(super) const fn note(&mut self, flags: Flags, is_from_client: bool) {
        self.ended.reset |= flags.has(Flags::RST);
        let has_closed = flags.has(Flags::FIN);
        if is_from_client {
            self.ended.client |= has_closed;
        } else {
            self.ended.server |= has_closed;
        }
    }

    /// Notes that a packet of it was dropped. A connection that is over loses nothing by that.
    pub(super) fn drop_packet(&mut self, packet: u64, reason: DropReason) {
        if self.forwarded == 0 {
            self.refused.get_or_insert(reason);
        } else if !self.is_over() {
            self.broken.get_or_insert(Broken { packet, cause: Cause::Dropped(reason) });
        }
    }

    /// Notes which server has it now. Returns whether that is news.
    pub(super) fn settle(&mut self, packet: u64, way: Way) -> bool {
        let before = self.way.replace(way);
        if let Some(before) = before
            && before.server != way.server
            && !way.is_each_alone
        {
            let cause = Cause::Moved(before.server, way.server);
            self.broken.get_or_insert(Broken { packet, cause });
        }
        before.is_none_or(|before| before.server != way.server)
    }
}

/// An end of a connection, so that both directions have the same key.
type End = (Address, u16);

fn ends(tuple: &FiveTuple) -> [End; 2] {
    [(tuple.source, tuple.source_port), (tuple.destination, tuple.destination_port)]
}

/// All connections, in the order in which they were seen first.
#[derive(Debug)]
pub(super) struct Connections {
    all: Vec<Connection>,
    /// Number plus one, at the place of the hash or behind it; 0 is free. Never more than half full.
    index: Vec<(u32, u32)>,
    key: HashKey,
}

impl Connections {
    pub(super) fn new(key: HashKey) -> Self {
        Self { all: Vec::new(), index: vec![(0, 0); 1 << 10], key }
    }

    pub(super) fn all(&self) -> &[Connection] {
        &self.all
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Connection> {
        self.all.get_mut(usize::try_from(number).ok()?)
    }

    pub(super) fn get(&self, number: u32) -> Option<&Connection> {
        self.all.get(usize::try_from(number).ok()?)
    }

    /// The connection to which packets of `tuple` belong, in either direction.
    #[inline]
    pub(super) fn find(&self, tuple: &FiveTuple) -> Option<u32> {
        let hash = self.hash(tuple);
        let at = self.place(tuple, hash)?;
        self.index.get(at)?.1.checked_sub(1)
    }

    /// Enters a connection whose client sends packets of `tuple` and called `called` in the capture, in place of one
    /// between the same ends. `None` where there is no room.
    pub(super) fn enter(&mut self, tuple: FiveTuple, called: (Address, u16)) -> Option<u32> {
        if self.all.len() >= CONNECTIONS_MAX {
            return None;
        }
        if (self.all.len() + 1) * 2 > self.index.len() {
            self.grow();
        }
        let number = u32::try_from(self.all.len()).ok()?;
        self.all.push(Connection::new(tuple, called));
        let hash = self.hash(&tuple);
        let at = self.place(&tuple, hash)?;
        *self.index.get_mut(at)? = (hash, number + 1);
        Some(number)
    }

    /// The same for both directions.
    #[inline]
    fn hash(&self, tuple: &FiveTuple) -> u32 {
        let [one, other] = ends(tuple);
        let hash = if one <= other { tuple.hash(self.key) } else { tuple.reversed().hash(self.key) };
        u32::try_from(hash >> 32).unwrap_or(0)
    }

    /// Where the connection of `tuple` is, or a free place for it.
    #[inline]
    fn place(&self, tuple: &FiveTuple, hash: u32) -> Option<usize> {
        let mask = self.index.len() - 1;
        let mut at = usize::try_from(hash).ok()? & mask;
        for _ in 0..self.index.len() {
            let (found, number) = *self.index.get(at)?;
            let Some(number) = number.checked_sub(1) else { return Some(at) };
            if found == hash && self.get(number).is_some_and(|one| is_between(&one.tuple, tuple)) {
                return Some(at);
            }
            at = (at + 1) & mask;
        }
        None
    }

    fn grow(&mut self) {
        let before = std::mem::take(&mut self.index);
        self.index = vec![(0, 0); before.len() * 2];
        let mask = self.index.len() - 1;
        for (hash, number) in before.into_iter().filter(|(_, number)| *number > 0) {
            let mut at = usize::try_from(hash).unwrap_or(0) & mask;
            while self.index.get(at).is_some_and(|(_, number)| *number > 0) {
                at = (at + 1) & mask;
            }
            if let Some(place) = self.index.get_mut(at) {
                *place = (hash, number);
            }
        }
    }
}

/// Whether packets of `other` go between the ends of `tuple`, in either direction.
#[inline]
fn is_between(tuple: &FiveTuple, other: &FiveTuple) -> bool {
    tuple == other || *tuple == other.reversed()
}

/// Whether packets of this protocol make connections.
pub(super) const fn is_connected(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::TCP | Protocol::UDP | Protocol::ICMP | Protocol::ICMPV6)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLED: (Address, u16) = (Address::UNSPECIFIED, 0);

    fn tuple(number: u32) -> FiveTuple {
        let [a, b, c, d] = number.to_be_bytes();
        FiveTuple {
            source: Address::v4([10 + a, b, c, d]),
            destination: Address::v4([10, 0, 0, 3]),
            source_port: 40_000,
            destination_port: 80,
            protocol: Protocol::TCP,
        }
    }

    #[test]
    fn connections_are_found_from_both_sides() {
        let mut connections = Connections::new(HashKey([1, 2]));
        for number in 0..5_000 {
            assert_eq!(connections.find(&tuple(number)), None);
            assert_eq!(connections.enter(tuple(number), CALLED), Some(number));
        }
        for number in 0..5_000 {
            assert_eq!(connections.find(&tuple(number)), Some(number));
            assert_eq!(connections.find(&tuple(number).reversed()), Some(number));
            let other = FiveTuple { protocol: Protocol::UDP, ..tuple(number) };
            assert_eq!(connections.find(&other), None);
        }
        assert_eq!(connections.enter(tuple(7).reversed(), CALLED), Some(5_000), "anew between the same ends");
        assert_eq!(connections.find(&tuple(7)), Some(5_000));
        assert_eq!(connections.all().len(), 5_001);
    }

    #[test]
    fn a_connection_breaks_when_it_moves_or_loses_a_later_packet() {
        let way = |server| Way {
            server,
            reply: tuple(1).reversed(),
            interface: InterfaceId(1),
            is_one_sided: false,
            is_each_alone: false,
        };
        let mut connection = Connection::new(tuple(1), CALLED);
        connection.drop_packet(1, DropReason::NoServer);
        assert_eq!((connection.refused, connection.broken), (Some(DropReason::NoServer), None));
        assert!(connection.settle(2, way(0)));
        connection.forwarded = 1;
        assert!(!connection.settle(3, way(0)));
        assert!(connection.settle(4, way(1)));
        connection.drop_packet(5, DropReason::NoFlow);
        assert_eq!(connection.broken, Some(Broken { packet: 4, cause: Cause::Moved(0, 1) }));
        let mut connection = Connection::new(tuple(1), CALLED);
        connection.forwarded = 1;
        connection.note(Flags::FIN, true);
        assert!(!connection.is_over());
        connection.note(Flags::FIN, false);
        assert!(connection.is_over());
        connection.drop_packet(5, DropReason::NoFlow);
        assert_eq!(connection.broken, None);
        connection.enter_batch(3, true, true);
        connection.enter_batch(3, false, false);
        assert!(connection.is_open_asked);
        connection.enter_batch(4, false, false);
        assert!(!connection.is_open_asked);
        assert_eq!(connection.packets, [1, 2]);
    }
}
