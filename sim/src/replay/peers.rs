//! The simulated real servers of a replay that has the client's packets alone.
//!
//! They answer what a client of the capture turns out to have heard, and know nothing else: a SYN is answered at once; data
//! is acknowledged segment by segment; just before the client acknowledges bytes, they are sent, all zero, in full
//! segments; a FIN is answered with a FIN. A datagram or a ping is answered with one of the same content. The numbers of
//! the simulated server differ from those of the captured one, so the client's acknowledgements are shifted by the
//! difference. There is no retransmission, no window and no timer, and fragments are not put together.

use std::collections::BTreeMap;

use evenkeel_engine::wire::{FiveTuple, Protocol};

use super::edit::pseudo_sum;
use super::headers::{Header, Kind, Tcp};
use crate::checksum::{finish, sum};
use crate::packet::{Flags, SEGMENT_BYTES, TTL};
use crate::random::Stream;

/// Segments that are sent ahead of one acknowledgement at most: 1.5 MB, more than a connection has in flight. What a client
/// acknowledges beyond is taken for lost in the capture.
const SEGMENTS_MAX: u32 = 1_024;
/// The window that servers announce: the largest without scaling.
const WINDOW: u16 = u16::MAX;

/// One side of a TCP connection.
#[derive(Clone, Copy, Debug)]
struct Peer {
    /// The next number that it sends, and the next that it expects.
    next: u32,
    expected: u32,
    /// What is added to the client's acknowledgements, once the first has come.
    shift: Option<u32>,
    /// Its SYN or FIN is out and takes the last number.
    is_closed: bool,
}

/// The servers of all connections.
#[derive(Debug)]
pub(super) struct Peers {
    connections: BTreeMap<u32, Peer>,
    numbers: Stream,
}

impl Peers {
    pub(super) fn new(seed: u64) -> Self {
        Self { connections: BTreeMap::new(), numbers: Stream::new(seed, "replay", "sequence numbers") }
    }

    /// Whether the client of `connection` acknowledges in `tcp` what its server has not sent yet.
    pub(super) fn is_ahead(&self, connection: u32, tcp: &Tcp) -> bool {
        let Some(peer) = self.connections.get(&connection).filter(|peer| !peer.is_closed) else {
            return false;
        };
        let shifted = peer.shift.map(|shift| tcp.acknowledgement.wrapping_add(shift));
        tcp.flags.has(Flags::ACK) && shifted.is_some_and(|wanted| wanted != peer.next)
    }

    /// A segment of the client of `connection` is about to come: what is to be added to its acknowledgement. The server's
    /// segments that it acknowledges, from `reply`, go to `send` first.
    pub(super) fn before(
        &mut self,
        connection: u32,
        tcp: &Tcp,
        reply: &FiveTuple,
        send: &mut dyn FnMut(Vec<u8>),
    ) -> u32 {
        let Some(peer) = self.connections.get_mut(&connection) else { return 0 };
        if !tcp.flags.has(Flags::ACK) {
            return 0;
        }
        let next = peer.next;
        let shift = *peer.shift.get_or_insert_with(|| next.wrapping_sub(tcp.acknowledgement));
        let wanted = tcp.acknowledgement.wrapping_add(shift);
        let missing = wanted.wrapping_sub(next);
        // An older acknowledgement, or one of a server that has closed.
        if missing == 0 || missing > i32::MAX.unsigned_abs() || peer.is_closed {
            return shift;
        }
        let lost = missing.saturating_sub(SEGMENTS_MAX * SEGMENT_BYTES);
        peer.next = next.wrapping_add(lost);
        let mut left = missing - lost;
        while left > 0 {
            let length = left.min(SEGMENT_BYTES);
            let flags = if length == left { Flags::ACK.with(Flags::PSH) } else { Flags::ACK };
            send(segment(reply, peer, flags, length));
            peer.next = peer.next.wrapping_add(length);
            left -= length;
        }
        shift
    }

    /// A packet of `connection` has reached its server as `bytes`, which `header` describes: the answer, if there is one.
    pub(super) fn after(&mut self, connection: u32, header: &Header, bytes: &[u8]) -> Option<Vec<u8>> {
        if !header.is_whole() {
            return None;
        }
        let reply = header.tuple.reversed();
        match header.kind {
            Kind::Tcp(tcp) => self.after_segment(connection, &tcp, &reply),
            Kind::Udp => {
                let payload = bytes.get(header.layer_4 + 8..header.end)?;
                Some(packet(&reply, 8, payload.len(), |body| {
                    let length = u16::try_from(body.len()).unwrap_or(0).to_be_bytes();
                    if let Some((head, place)) = body.split_first_chunk_mut::<8>() {
                        let ([p0, p1], [p2, p3]) = ports(&reply);
                        *head = [p0, p1, p2, p3, length[0], length[1], 0, 0];
                        place.copy_from_slice(payload);
                    }
                }))
            }
            Kind::Query { is_request: true } => {
                let query = bytes.get(header.layer_4..header.end)?;
                Some(packet(&reply, 0, query.len(), |body| {
                    body.copy_from_slice(query);
                    if let Some([kind, code, c0, c1]) = body.first_chunk_mut::<4>() {
                        let is_v6 = reply.protocol == Protocol::ICMPV6;
                        (*kind, *code, *c0, *c1) = (if is_v6 { 129 } else { 0 }, 0, 0, 0);
                    }
                }))
            }
            Kind::Query { is_request: false } | Kind::Error { .. } | Kind::Other => None,
        }
    }

    fn after_segment(&mut self, connection: u32, tcp: &Tcp, reply: &FiveTuple) -> Option<Vec<u8>> {
        if tcp.flags.has(Flags::RST) {
            self.connections.remove(&connection);
            return None;
        }
        if tcp.opens() {
            // The answer to a SYN that is sent again has the same number.
            let numbers = &mut self.numbers;
            let peer = self.connections.entry(connection).or_insert_with(|| Peer {
                next: u32::try_from(numbers.bits() & 0xffff_ffff).unwrap_or(0).wrapping_add(1),
                expected: 0,
                shift: None,
                is_closed: false,
            });
            peer.expected = tcp.sequence.wrapping_add(1);
            let answer = Peer { next: peer.next.wrapping_sub(1), ..*peer };
            return Some(segment(reply, &answer, Flags::SYN.with(Flags::ACK), 0));
        }
        let has_closed = tcp.flags.has(Flags::FIN);
        // The capture may begin in the middle of a connection.
        let peer = self.connections.entry(connection).or_insert(Peer {
            next: tcp.acknowledgement,
            expected: tcp.sequence,
            shift: Some(0),
            is_closed: false,
        });
        if tcp.payload_bytes == 0 && !has_closed {
            return None;
        }
        let end = tcp.sequence.wrapping_add(tcp.payload_bytes).wrapping_add(u32::from(has_closed));
        // What was lost in the capture is taken as received.
        if end.wrapping_sub(peer.expected) <= i32::MAX.unsigned_abs() {
            peer.expected = end;
        }
        if has_closed && !peer.is_closed {
            let answer = segment(reply, peer, Flags::FIN.with(Flags::ACK), 0);
            peer.next = peer.next.wrapping_add(1);
            peer.is_closed = true;
            return Some(answer);
        }
        Some(segment(reply, peer, Flags::ACK, 0))
    }
}

const fn ports(tuple: &FiveTuple) -> ([u8; 2], [u8; 2]) {
    (tuple.source_port.to_be_bytes(), tuple.destination_port.to_be_bytes())
}

/// A segment of the server with `length` bytes of zero.
fn segment(reply: &FiveTuple, peer: &Peer, flags: Flags, length: u32) -> Vec<u8> {
    packet(reply, 16, 20 + usize::try_from(length).unwrap_or(0), |body| {
        let ([p0, p1], [p2, p3]) = ports(reply);
        let ([s0, s1, s2, s3], [a0, a1, a2, a3]) = (peer.next.to_be_bytes(), peer.expected.to_be_bytes());
        let [w0, w1] = WINDOW.to_be_bytes();
        if let Some(head) = body.first_chunk_mut::<20>() {
            *head = [p0, p1, p2, p3, s0, s1, s2, s3, a0, a1, a2, a3, 0x50, flags.0, w0, w1, 0, 0, 0, 0];
        }
    })
}

/// An IP packet of `tuple` with what `fill` writes into layer 4, checksums included; for UDP `length` is that of the payload.
fn packet(tuple: &FiveTuple, header_bytes: usize, length: usize, fill: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let is_udp = tuple.protocol == Protocol::UDP;
    let length = if is_udp { header_bytes + length } else { length };
    let mut bytes = ip_header(tuple, length);
    let at = bytes.len();
    bytes.resize(at + length, 0);
    let Some(body) = bytes.get_mut(at..) else { return Vec::new() };
    fill(body);
    let start = match tuple.protocol {
        Protocol::ICMP => 0,
        protocol => pseudo_sum(tuple.source, tuple.destination, protocol, u64::try_from(length).unwrap_or(0)),
    };
    let check = finish(start + sum(body));
    let check = if is_udp && check == 0 { 0xffff } else { check };
    let place = match tuple.protocol {
        Protocol::TCP => 16..18,
        Protocol::UDP => 6..8,
        _ => 2..4,
    };
    if let Some(place) = body.get_mut(place) {
        place.copy_from_slice(&check.to_be_bytes());
    }
    bytes
}

/// The header of either family, for `length` bytes behind it.
fn ip_header(tuple: &FiveTuple, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(40 + length);
    if tuple.source.is_v4() {
        let [t0, t1] = u16::try_from(20 + length).unwrap_or(u16::MAX).to_be_bytes();
        bytes.extend([0x45, 0, t0, t1, 0, 0, 0x40, 0, TTL, tuple.protocol.0, 0, 0]);
        bytes.extend(tuple.source.v4_bytes());
        bytes.extend(tuple.destination.v4_bytes());
        crate::packet::mend_header(&mut bytes);
    } else {
        let [l0, l1] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
        bytes.extend([0x60, 0, 0, 0, l0, l1, tuple.protocol.0, TTL]);
        bytes.extend(tuple.source.v6_bytes());
        bytes.extend(tuple.destination.v6_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::edit::{self, Check};
    use super::super::headers;
    use super::*;
    use evenkeel_engine::wire::Address;
    use std::net::IpAddr;

    fn tuple(protocol: Protocol, source: &str, destination: &str) -> FiveTuple {
        let address = |text: &str| -> Address { text.parse::<IpAddr>().unwrap().into() };
        let (source, destination) = (address(source), address(destination));
        FiveTuple { source, destination, source_port: 40_000, destination_port: 80, protocol }
    }

    fn read(bytes: &[u8]) -> Header {
        let header = headers::read(bytes).unwrap();
        assert_eq!(edit::check(bytes, &header), Check::Right);
        assert!(edit::is_header_right(bytes, &header));
        header
    }

    /// A segment of a client as it reaches its server.
    fn client(sequence: u32, acknowledgement: u32, flags: Flags, length: u32) -> Vec<u8> {
        let peer = Peer { next: sequence, expected: acknowledgement, shift: None, is_closed: false };
        segment(&tuple(Protocol::TCP, "192.0.2.1", "10.0.3.20"), &peer, flags, length)
    }

    fn answer(peers: &mut Peers, bytes: &[u8]) -> Option<Tcp> {
        let header = read(bytes);
        let answer = peers.after(7, &header, bytes)?;
        let found = read(&answer);
        assert_eq!(found.tuple, header.tuple.reversed());
        found.tcp()
    }

    #[test]
    fn a_connection_is_answered_with_numbers_that_fit() {
        let mut peers = Peers::new(1);
        let syn = client(100, 0, Flags::SYN, 0);
        let first = answer(&mut peers, &syn).unwrap();
        assert_eq!((first.flags, first.acknowledgement), (Flags::SYN.with(Flags::ACK), 101));
        assert_eq!(answer(&mut peers, &syn), Some(first), "a SYN that is sent again gets the same answer");
        // The captured server began with 5000.
        let reply = tuple(Protocol::TCP, "192.0.2.1", "10.0.3.20").reversed();
        let mut sent = Vec::new();
        let ack = read(&client(101, 5_001, Flags::ACK, 0)).tcp().unwrap();
        let shift = peers.before(7, &ack, &reply, &mut |bytes| sent.push(bytes));
        assert!(sent.is_empty());
        assert_eq!(5_001u32.wrapping_add(shift), first.sequence.wrapping_add(1));
        assert_eq!(answer(&mut peers, &client(101, first.sequence.wrapping_add(1), Flags::ACK, 0)), None);
        let data = answer(&mut peers, &client(101, first.sequence.wrapping_add(1), Flags::ACK, 500)).unwrap();
        assert_eq!((data.flags, data.acknowledgement, data.payload_bytes), (Flags::ACK, 601, 0));
        // The client has heard 2,000 bytes: they are sent before that.
        let ack = read(&client(601, 7_001, Flags::ACK, 0)).tcp().unwrap();
        assert_eq!(peers.before(7, &ack, &reply, &mut |bytes| sent.push(bytes)), shift);
        let lengths: Vec<_> = sent.iter().map(|bytes| read(bytes).tcp().unwrap().payload_bytes).collect();
        assert_eq!(lengths, [1_460, 540]);
        let fin = answer(&mut peers, &client(601, 0, Flags::FIN.with(Flags::ACK), 0)).unwrap();
        assert_eq!((fin.flags, fin.acknowledgement), (Flags::FIN.with(Flags::ACK), 602));
        assert_eq!(fin.sequence, first.sequence.wrapping_add(2_001));
        let again = answer(&mut peers, &client(601, 0, Flags::FIN.with(Flags::ACK), 0)).unwrap();
        assert_eq!((again.flags, again.sequence), (Flags::ACK, fin.sequence.wrapping_add(1)));
        assert_eq!(answer(&mut peers, &client(602, 0, Flags::RST, 0)), None);
        assert!(peers.connections.is_empty());
    }

    #[test]
    fn what_is_acknowledged_far_ahead_is_taken_for_lost() {
        let mut peers = Peers::new(1);
        answer(&mut peers, &client(100, 0, Flags::SYN, 0)).unwrap();
        let reply = tuple(Protocol::TCP, "192.0.2.1", "10.0.3.20").reversed();
        let mut sent = 0;
        for (number, most) in [(1, 0), (100_000_001, 1_024), (5, 0)] {
            let ack = read(&client(101, number, Flags::ACK, 0)).tcp().unwrap();
            let before = sent;
            peers.before(7, &ack, &reply, &mut |_| sent += 1);
            assert_eq!(sent - before, most);
        }
    }

    #[test]
    fn datagrams_and_pings_are_answered_with_what_they_say() {
        let mut peers = Peers::new(1);
        for (source, destination) in [("192.0.2.1", "10.0.3.20"), ("fc00::1", "fc00::20")] {
            let tuple = tuple(Protocol::UDP, source, destination);
            let datagram = packet(&tuple, 8, 5, |body| {
                body[..8].copy_from_slice(&[0x9c, 0x40, 0, 80, 0, 13, 0, 0]);
                body[8..].copy_from_slice(b"hello");
            });
            let answer = peers.after(1, &read(&datagram), &datagram).unwrap();
            let header = read(&answer);
            assert_eq!(header.tuple, tuple.reversed());
            assert_eq!(&answer[header.layer_4 + 8..], b"hello");
            let (protocol, kind) =
                if source.contains(':') { (Protocol::ICMPV6, 128) } else { (Protocol::ICMP, 8) };
            let tuple = FiveTuple { source_port: 9, destination_port: 0, protocol, ..tuple };
            let ping = packet(&tuple, 0, 10, |body| {
                body.copy_from_slice(&[kind, 0, 0, 0, 0, 9, 0, 1, b'h', b'i']);
            });
            let answer = peers.after(1, &read(&ping), &ping).unwrap();
            let header = read(&answer);
            assert_eq!((header.kind, header.tuple), (Kind::Query { is_request: false }, tuple.reversed()));
        }
    }
}
