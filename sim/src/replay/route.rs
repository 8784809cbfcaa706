//! From a captured packet to a packet of the engine: whose it is, which way it goes, and who sends it.

use std::io;

use evenkeel_engine::wire::{Address, FiveTuple, Protocol};
use evenkeel_engine::{Instant, InterfaceId};

use super::connections::{Connection, Way, is_connected};
use super::driver::{Driver, Entry};
use super::edit::{self, Edit};
use super::fragments::{Follow, Waiting};
use super::headers::{self, Header, Kind, Tcp};
use super::outcome::Skip;
use crate::packet::Flags;
use crate::stdio::PACKET_MAX_BYTES;

/// Where clients come in: the first interface, as on a forwarder.
const OUTSIDE: InterfaceId = InterfaceId(0);

/// A packet of the capture that has been read.
#[derive(Clone, Copy)]
struct Taken<'p> {
    number: u64,
    at: Instant,
    bytes: &'p [u8],
    header: &'p Header,
}

impl Taken<'_> {
    const fn entry(&self, connection: Option<u32>, is_from_client: bool) -> Entry {
        Entry::new(Some(self.number), self.at, connection, is_from_client)
    }
}

impl Driver<'_> {
    /// Takes in an IP packet.
    pub(super) fn packet(&mut self, number: u64, at: Instant, bytes: &[u8]) -> io::Result<()> {
        self.pass_time(at)?;
        let Some(header) = headers::read(bytes) else {
            self.counts.unreadable += 1;
            let bytes = bytes.get(..PACKET_MAX_BYTES.min(bytes.len())).unwrap_or_default();
            return self.feed(Entry::new(Some(number), at, None, true), OUTSIDE, bytes, None);
        };
        let bytes = bytes.get(..header.end).unwrap_or_default();
        if header.fragment.is_some() {
            return self.fragment(Taken { number, at, bytes, header: &header });
        }
        self.route(Taken { number, at, bytes, header: &header })
    }

    /// A fragment goes where the first one of its datagram goes.
    #[cold]
    fn fragment(&mut self, taken: Taken<'_>) -> io::Result<()> {
        self.counts.fragments += 1;
        let Taken { number, at, bytes, header } = taken;
        let Some(fragment) = header.fragment else { return Ok(()) };
        match self.fragments.look(header, fragment) {
            Follow::First => {
                // Those that were captured before it still come before it.
                for Waiting { number, bytes } in self.fragments.release(header, fragment) {
                    if let Some(earlier) = headers::read(&bytes) {
                        let earlier = with_ports_of(&earlier, &header.tuple);
                        self.route(Taken { number, at, bytes: &bytes, header: &earlier })?;
                    }
                }
                self.route(taken)
            }
            Follow::Known(source_port, destination_port) => {
                let tuple = FiveTuple { source_port, destination_port, ..header.tuple };
                self.route(Taken { header: &with_ports_of(header, &tuple), ..taken })
            }
            Follow::Wait => {
                let waiting = Waiting { number, bytes: bytes.to_vec() };
                if self.fragments.hold(header, fragment, waiting).is_some() {
                    self.counts.skip(Skip::FragmentWithoutFirst);
                }
                Ok(())
            }
        }
    }

    /// Hands a packet over in the direction in which it goes.
    #[inline]
    fn route(&mut self, taken: Taken<'_>) -> io::Result<()> {
        self.make_room()?;
        let header = taken.header;
        let mapped = self.mapped(&header.tuple);
        if let Kind::Error { .. } = header.kind {
            return self.route_error(taken, mapped);
        }
        if !is_connected(mapped.protocol) || (header.kind == Kind::Other && header.is_whole()) {
            let edit = Edit { tuple: mapped, outer: None, acknowledges: 0 };
            return self.feed(taken.entry(None, true), OUTSIDE, taken.bytes, Some((header, &edit)));
        }
        let Some(number) = self.connection(&mapped, header)? else {
            self.counts.skip(Skip::TooManyConnections);
            return Ok(());
        };
        if self.connections.get(number).is_some_and(|connection| connection.tuple == mapped) {
            self.route_to_service(taken, number, mapped)
        } else {
            self.route_to_client(taken, number)
        }
    }

    /// A packet of the client.
    #[inline]
    fn route_to_service(&mut self, taken: Taken<'_>, number: u32, tuple: FiveTuple) -> io::Result<()> {
        let tcp = taken.header.tcp();
        let mut edit = Edit { tuple, outer: None, acknowledges: 0 };
        if let Some(tcp) = tcp.filter(|_| self.peers.is_some()) {
            edit.acknowledges = self.hear(taken.at, number, &tcp)?;
        }
        let (silence, batch) = (self.silence, self.batch);
        if let Some(connection) = self.connections.get_mut(number) {
            let opens = tcp.is_some_and(|tcp| tcp.opens());
            let is_silent = taken.at.since(connection.latest) >= silence;
            connection.enter_batch(batch, true, opens || is_silent || connection.way.is_none());
            connection.latest = taken.at;
        }
        self.feed(taken.entry(Some(number), true), OUTSIDE, taken.bytes, Some((taken.header, &edit)))
    }

    /// A packet of the server: it comes from the real server that the engine chose.
    #[inline]
    fn route_to_client(&mut self, taken: Taken<'_>, number: u32) -> io::Result<()> {
        let Some(way) = self.way_or_skip(number)? else { return Ok(()) };
        let batch = self.batch;
        if let Some(connection) = self.connections.get_mut(number) {
            connection.enter_batch(batch, false, false);
            connection.latest = taken.at;
        }
        let edit = Edit { tuple: way.reply, outer: None, acknowledges: 0 };
        self.feed(taken.entry(Some(number), false), way.interface, taken.bytes, Some((taken.header, &edit)))
    }

    /// An ICMP error: it comes from the side to which the packet went that it quotes.
    #[cold]
    fn route_error(&mut self, taken: Taken<'_>, quoted: FiveTuple) -> io::Result<()> {
        self.counts.errors += 1;
        let header = taken.header;
        let outer = edit::ends(taken.bytes).map(|(source, destination)| {
            let tuple = &header.tuple;
            let is_there = source == tuple.destination;
            let from = if is_there { quoted.destination } else { self.ends.without_port(source) };
            let is_here = destination == tuple.source;
            (from, if is_here { quoted.source } else { self.ends.without_port(destination) })
        });
        let found = self.connections.find(&quoted);
        let is_about_client =
            |number: &u32| self.connections.get(*number).is_some_and(|connection| connection.tuple == quoted);
        let Some(number) = found.filter(is_about_client) else {
            let edit = Edit { tuple: quoted, outer, acknowledges: 0 };
            return self.feed(taken.entry(found, true), OUTSIDE, taken.bytes, Some((header, &edit)));
        };
        let Some(way) = self.way_or_skip(number)? else { return Ok(()) };
        let tuple = way.reply.reversed();
        let outer = outer.map(|(from, _)| {
            (if from == quoted.destination { way.reply.source } else { from }, tuple.source)
        });
        let edit = Edit { tuple, outer, acknowledges: 0 };
        self.feed(taken.entry(Some(number), false), way.interface, taken.bytes, Some((header, &edit)))
    }

    /// The real server of a connection, of which a packet of the server's side is at hand; none where that is skipped.
    #[inline]
    fn way_or_skip(&mut self, number: u32) -> io::Result<Option<Way>> {
        let skip = if self.peers.is_some() {
            Skip::FromServer
        } else {
            match self.way(number)? {
                Some(way) if !way.is_one_sided => return Ok(Some(way)),
                Some(_) => Skip::AnswerPastForwarder,
                None => Skip::AnswerWithoutFlow,
            }
        };
        self.counts.skip(skip);
        Ok(None)
    }

    /// The real server of a connection, after whatever the engine has still to decide about it.
    #[inline]
    fn way(&mut self, number: u32) -> io::Result<Option<Way>> {
        let batch = self.batch;
        let waits = |connection: &Connection| connection.batch == batch && connection.is_open_asked;
        if self.connections.get(number).is_some_and(waits) {
            self.flush()?;
        }
        Ok(self.connections.get(number).and_then(|connection| connection.way))
    }

    /// The simulated server says what the client is about to acknowledge. Gives what is added to the acknowledgement.
    fn hear(&mut self, at: Instant, number: u32, tcp: &Tcp) -> io::Result<u32> {
        if self.peers.as_ref().is_some_and(|peers| peers.is_ahead(number, tcp)) {
            // What the server has to answer first may still wait.
            self.hand_over(number)?;
        }
        let Some(way) = self.way(number)?.filter(|way| !way.is_one_sided) else { return Ok(0) };
        let Some(peers) = &mut self.peers else { return Ok(0) };
        let mut segments = Vec::new();
        let shift = peers.before(number, tcp, &way.reply, &mut |bytes| segments.push(bytes));
        for bytes in segments {
            self.feed(Entry::new(None, at, Some(number), false), way.interface, &bytes, None)?;
        }
        self.make_room()?;
        Ok(shift)
    }

    /// Hands over the batch if it has packets of this connection.
    fn hand_over(&mut self, number: u32) -> io::Result<()> {
        let batch = self.batch;
        let waits = self.connections.get(number).is_some_and(|connection| connection.batch == batch);
        if waits { self.flush() } else { Ok(()) }
    }

    /// Who talks to whom after the mappings.
    #[inline]
    fn mapped(&self, tuple: &FiveTuple) -> FiveTuple {
        let (source, source_port) = self.end(tuple, tuple.source, tuple.source_port);
        let (destination, destination_port) = self.end(tuple, tuple.destination, tuple.destination_port);
        FiveTuple { source, destination, source_port, destination_port, protocol: tuple.protocol }
    }

    #[inline]
    fn end(&self, tuple: &FiveTuple, address: Address, port: u16) -> (Address, u16) {
        if tuple.protocol == Protocol::TCP || tuple.protocol == Protocol::UDP {
            self.ends.of(address, port)
        } else {
            (self.ends.without_port(address), port)
        }
    }

    /// The connection of a packet, entered if it is new. `None` where there is no room.
    #[inline]
    fn connection(&mut self, tuple: &FiveTuple, header: &Header) -> io::Result<Option<u32>> {
        if let Some(known) = self.connections.find(tuple) {
            let opens = header.tcp().is_some_and(|tcp| tcp.opens());
            if !opens || !self.is_anew(known, tuple)? {
                return Ok(Some(known));
            }
        }
        let is_from_client = self.is_from_client(tuple, header);
        let captured = if is_from_client { header.tuple } else { header.tuple.reversed() };
        let called = (captured.destination, captured.destination_port);
        Ok(self.connections.enter(if is_from_client { *tuple } else { tuple.reversed() }, called))
    }

    /// Whether a SYN begins another connection between the ends of a known one: that is over, or it went the other way.
    fn is_anew(&mut self, known: u32, tuple: &FiveTuple) -> io::Result<bool> {
        self.hand_over(known)?;
        let is_anew = |connection: &Connection| connection.is_over() || connection.tuple != *tuple;
        Ok(self.connections.get(known).is_some_and(is_anew))
    }

    /// Whether the first packet that is seen of a connection is the client's: by what it says, then by who is served.
    fn is_from_client(&self, tuple: &FiveTuple, header: &Header) -> bool {
        match header.kind {
            Kind::Tcp(tcp) if tcp.flags.has(Flags::SYN) => return tcp.opens(),
            Kind::Query { is_request } => return is_request,
            Kind::Tcp(_) | Kind::Udp | Kind::Error { .. } | Kind::Other => {}
        }
        let directors = &self.engine.plan().directors;
        let is_served = |address: Address, port| {
            let mut binds = directors.iter().flat_map(|director| &director.binds);
            binds.any(|bind| bind.serves(address.into(), port, tuple.protocol))
        };
        is_served(tuple.destination, tuple.destination_port) || !is_served(tuple.source, tuple.source_port)
    }
}

/// The same header with the ports of another part of the datagram.
fn with_ports_of(header: &Header, tuple: &FiveTuple) -> Header {
    let (source_port, destination_port) = (tuple.source_port, tuple.destination_port);
    Header { tuple: FiveTuple { source_port, destination_port, ..header.tuple }, ..*header }
}
