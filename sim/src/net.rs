//! Segments and links: who is plugged in where, and how packets travel between machines.
//!
//! A packet takes two hops, from its sender to the segment and from there to the machine that has the next
//! hop's address. Each hop is one event; when a packet will arrive is known as soon as it is queued.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;

use evenkeel_engine::{Duration, Instant};
use slab::Slab;

use crate::packet::Packet;
use crate::queue::EventQueue;
use crate::random::Stream;
use crate::scenario::{Attachment, Quality};
use crate::trace::Trace;

/// Buffers that are kept for later: more packets than this are seldom under way.
const POOL_MAX: usize = 4_096;

/// Something that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A packet has reached its segment.
    Hop { flight: usize },
    /// A packet has reached its machine.
    Arrive { flight: usize },
    /// A load opens a flow.
    Open { load: usize },
    /// A timer of a connection of a host.
    Timer { machine: usize, connection: usize, generation: u32 },
    /// A forwarder has packets to look at.
    Step { machine: usize },
    /// A timer of a forwarder's engine.
    EngineTimer { machine: usize },
}

/// Where a machine meets a segment.
pub(crate) struct Port {
    pub(crate) machine: usize,
    pub(crate) attachment: Attachment,
    up: Wire,
    down: Wire,
}

/// One direction of a link.
struct Wire {
    quality: Quality,
    draw: Stream,
    /// When the last packet so far will have left, in picoseconds.
    busy_until_ps: u64,
    /// When each packet that waits will have left, in nanoseconds.
    leaving: VecDeque<u64>,
}

/// What a wire did with a packet.
enum Passage {
    Arrives(Instant),
    Lost,
    QueueFull,
}

impl Wire {
    fn new(quality: Quality, seed: u64, name: &str, direction: &str) -> Self {
        let draw = Stream::new(seed, name, direction);
        Self { quality, draw, busy_until_ps: 0, leaving: VecDeque::new() }
    }

    fn pass(&mut self, bytes: usize, now: Instant) -> Passage {
        let mut departure = now;
        if self.quality.rate_bits > 0 {
            while self.leaving.front().is_some_and(|left| *left <= now.as_nanos()) {
                self.leaving.pop_front();
            }
            if self.leaving.len() > usize::try_from(self.quality.queue_packets).unwrap_or(usize::MAX) {
                return Passage::QueueFull;
            }
            let bits = u128::try_from(bytes).unwrap_or(0) * 8;
            let serialisation_ps = bits * 1_000_000_000_000 / u128::from(self.quality.rate_bits);
            let start_ps = self.busy_until_ps.max(now.as_nanos().saturating_mul(1_000));
            self.busy_until_ps = start_ps.saturating_add(u64::try_from(serialisation_ps).unwrap_or(u64::MAX));
            departure = Instant::from_nanos(self.busy_until_ps.div_ceil(1_000));
            self.leaving.push_back(departure.as_nanos());
        }
        if self.quality.loss_millionths > 0 && self.draw.happens(self.quality.loss_millionths) {
            return Passage::Lost;
        }
        let mut delay = self.quality.delay;
        if self.quality.jitter > Duration::ZERO {
            let jitter = u64::try_from(self.quality.jitter.as_nanos()).unwrap_or(u64::MAX);
            delay += Duration::from_nanos(self.draw.below(jitter.saturating_add(1)));
        }
        Passage::Arrives(departure.after(delay))
    }
}

/// Packets that ended between machines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Losses {
    pub(crate) by_chance: u64,
    pub(crate) queue_full: u64,
    pub(crate) no_neighbour: u64,
}

struct Flight {
    packet: Packet,
    port: usize,
}

/// Time, what is due, and everything between the machines.
pub(crate) struct Net {
    pub(crate) now: Instant,
    queue: Box<dyn EventQueue<Event>>,
    ports: Vec<Port>,
    /// Who answers for an address on a segment.
    owners: BTreeMap<(usize, Ipv4Addr), usize>,
    flights: Slab<Flight>,
    pool: Vec<Vec<u8>>,
    seed: u64,
    pub(crate) losses: Losses,
    pub(crate) sent: u64,
    pub(crate) arrived: u64,
    pub(crate) events: u64,
    pub(crate) wire_trace: Trace,
    pub(crate) decision_trace: Trace,
}

impl Net {
    pub(crate) fn new(queue: Box<dyn EventQueue<Event>>, seed: u64) -> Self {
        Self {
            now: Instant::ZERO,
            queue,
            ports: Vec::new(),
            owners: BTreeMap::new(),
            flights: Slab::new(),
            pool: Vec::new(),
            seed,
            losses: Losses::default(),
            sent: 0,
            arrived: 0,
            events: 0,
            wire_trace: Trace::default(),
            decision_trace: Trace::default(),
        }
    }

    /// Plugs a machine in and gives the number of its port.
    pub(crate) fn plug(
        &mut self,
        machine: usize,
        name: &str,
        attachment: Attachment,
        quality: Quality,
    ) -> usize {
        let port = self.ports.len();
        let name = format!("{name}@{}", attachment.address);
        let up = Wire::new(quality, self.seed, &name, "up");
        let down = Wire::new(quality, self.seed, &name, "down");
        self.ports.push(Port { machine, attachment, up, down });
        self.claim(port, attachment.address);
        port
    }

    /// Lets a port answer for a further address on its segment; the first who claims an address has it.
    pub(crate) fn claim(&mut self, port: usize, address: Ipv4Addr) {
        if let Some(segment) = self.ports.get(port).map(|port| port.attachment.segment) {
            self.owners.entry((segment, address)).or_insert(port);
        }
    }

    /// Lets an event be due at `at`.
    pub(crate) fn schedule(&mut self, at: Instant, event: Event) {
        self.queue.push(at, event);
    }

    /// The next event; the clock goes on to it.
    pub(crate) fn next(&mut self) -> Option<Event> {
        let (at, event) = self.queue.pop()?;
        self.now = at;
        self.events += 1;
        Some(event)
    }

    /// Sends a packet out of a port to the machine that has the address `next_hop` there.
    pub(crate) fn send(&mut self, port: usize, next_hop: Ipv4Addr, packet: Packet) {
        self.sent += 1;
        let Some(from) = self.ports.get_mut(port) else { return };
        let Some(to) = self.owners.get(&(from.attachment.segment, next_hop)).copied() else {
            self.losses.no_neighbour += 1;
            self.recycle(packet);
            return;
        };
        let passage = from.up.pass(packet.range.len(), self.now);
        if let Some((at, packet)) = self.settle(passage, packet) {
            let flight = self.flights.insert(Flight { packet, port: to });
            self.queue.push(at, Event::Hop { flight });
        }
    }

    /// The second hop, from the segment to the machine.
    pub(crate) fn hop(&mut self, flight: usize) {
        let Some(Flight { packet, port }) = self.flights.try_remove(flight) else { return };
        let Some(to) = self.ports.get_mut(port) else { return };
        let passage = to.down.pass(packet.range.len(), self.now);
        if let Some((at, packet)) = self.settle(passage, packet) {
            let flight = self.flights.insert(Flight { packet, port });
            self.queue.push(at, Event::Arrive { flight });
        }
    }

    /// Counts what got lost; gives back the packet and its time where it did not.
    fn settle(&mut self, passage: Passage, packet: Packet) -> Option<(Instant, Packet)> {
        match passage {
            Passage::Arrives(at) => return Some((at, packet)),
            Passage::Lost => self.losses.by_chance += 1,
            Passage::QueueFull => self.losses.queue_full += 1,
        }
        self.recycle(packet);
        None
    }

    /// A packet that has reached its machine, and that machine.
    pub(crate) fn arrive(&mut self, flight: usize) -> Option<(usize, Packet)> {
        let Flight { packet, port } = self.flights.try_remove(flight)?;
        let machine = self.ports.get(port)?.machine;
        self.arrived += 1;
        self.wire_trace.add(self.now, u32::try_from(machine).unwrap_or(u32::MAX), packet.bytes());
        Some((machine, packet))
    }

    /// Packets that are under way.
    pub(crate) fn under_way(&self) -> usize {
        self.flights.len()
    }

    /// A buffer that was used before, or a new one.
    pub(crate) fn buffer(&mut self) -> Vec<u8> {
        self.pool.pop().unwrap_or_default()
    }

    /// Takes back the buffer of a packet that has ended.
    pub(crate) fn recycle(&mut self, packet: Packet) {
        if self.pool.len() < POOL_MAX {
            self.pool.push(packet.buffer);
        }
    }
}

/// The routing table of a machine: its segments, then its gateway.
#[derive(Clone, Debug, Default)]
pub(crate) struct Routes {
    connected: Vec<(Ipv4Addr, u8, usize)>,
    gateway: Option<(Ipv4Addr, usize)>,
}

impl Routes {
    /// `connected` holds network, prefix length and port of each segment.
    pub(crate) fn new(connected: Vec<(Ipv4Addr, u8, usize)>, gateway: Option<Ipv4Addr>) -> Self {
        let mut routes = Self { connected, gateway: None };
        routes.gateway = gateway.and_then(|address| routes.on_link(address).map(|port| (address, port)));
        routes
    }

    fn on_link(&self, address: Ipv4Addr) -> Option<usize> {
        let fits = |(network, length, _): &&(Ipv4Addr, u8, usize)| {
            (address.to_bits() ^ network.to_bits()).checked_shr(32 - u32::from(*length)).unwrap_or(0) == 0
        };
        self.connected.iter().find(fits).map(|(_, _, port)| *port)
    }

    /// The next hop to `destination` and the port that leads there.
    pub(crate) fn find(&self, destination: Ipv4Addr) -> Option<(Ipv4Addr, usize)> {
        self.on_link(destination).map(|port| (destination, port)).or(self.gateway)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::HeapQueue;

    fn quality(rate_bits: u64) -> Quality {
        Quality { rate_bits, delay: Duration::from_micros(10), queue_packets: 3, ..Quality::default() }
    }

    fn arrival(passage: Passage) -> Option<u64> {
        match passage {
            Passage::Arrives(at) => Some(at.as_nanos()),
            Passage::Lost | Passage::QueueFull => None,
        }
    }

    #[test]
    fn packets_of_a_limited_rate_wait_for_each_other() {
        // 1,000 bytes at 1 Gbit/s take 8 us.
        let mut wire = Wire::new(quality(1_000_000_000), 1, "a", "up");
        let mut send = |at| arrival(wire.pass(1000, Instant::from_nanos(at)));
        assert_eq!(send(0), Some(18_000));
        assert_eq!(send(0), Some(26_000));
        assert_eq!(send(0), Some(34_000));
        assert_eq!(send(0), Some(42_000));
        assert_eq!(send(0), None, "one is sent, three wait");
        assert_eq!(send(8_000), Some(50_000), "one has left");
        assert_eq!(send(1_000_000), Some(1_018_000));
    }

    #[test]
    fn without_a_limit_only_the_delay_counts() {
        let mut wire = Wire::new(quality(0), 1, "a", "up");
        for _ in 0..10 {
            assert_eq!(arrival(wire.pass(1500, Instant::ZERO)), Some(10_000));
        }
    }

    #[test]
    fn a_packet_to_nobody_is_counted() {
        let mut net = Net::new(Box::new(HeapQueue::default()), 1);
        let attachment = Attachment { segment: 0, address: Ipv4Addr::new(10, 0, 0, 1) };
        let port = net.plug(0, "a", attachment, Quality::default());
        net.send(port, Ipv4Addr::new(10, 0, 0, 9), Packet::copied_into(Vec::new(), &[0; 20]));
        assert_eq!(net.losses.no_neighbour, 1);
        assert_eq!(net.under_way(), 0);
        net.claim(port, Ipv4Addr::new(10, 0, 0, 9));
        net.send(port, Ipv4Addr::new(10, 0, 0, 9), Packet::copied_into(Vec::new(), &[0; 20]));
        let Some(Event::Hop { flight }) = net.next() else { panic!("no hop") };
        net.hop(flight);
        let Some(Event::Arrive { flight }) = net.next() else { panic!("no arrival") };
        assert_eq!(net.arrive(flight).map(|(machine, _)| machine), Some(0));
        assert_eq!((net.sent, net.arrived, net.now.as_nanos()), (2, 1, 20_032));
    }

    #[test]
    fn the_segment_comes_before_the_gateway() {
        let address = |last| Ipv4Addr::new(10, 0, 0, last);
        let routes = Routes::new(vec![(address(0), 24, 7)], Some(address(1)));
        assert_eq!(routes.find(address(9)), Some((address(9), 7)));
        assert_eq!(routes.find(Ipv4Addr::new(8, 8, 8, 8)), Some((address(1), 7)));
        assert_eq!(Routes::new(vec![(address(0), 24, 7)], None).find(Ipv4Addr::new(8, 8, 8, 8)), None);
    }
}
