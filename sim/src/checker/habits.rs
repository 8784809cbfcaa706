//! Frames like ones that were seen before: whose they are is remembered, and not asked again.
//!
//! Nearly every frame is a plain one of TCP or UDP over IPv4 in the middle of a call, on a way that others of its call have
//! taken. What is remembered of it is what the scenario says of its ends, which never changes, and where its call lies.
//! Whatever a frame may change (a start, an end, another way, a packet that is not whole) is looked at in full.

use std::net::Ipv4Addr;

use evenkeel_engine::wire::Protocol;

use super::ring::Place;
use crate::checksum::{adds_up, finish, sum};
use crate::index::hash_pair;
use crate::net::{index, number};
use crate::packet::{AnyEnd, End, Flags, Sound, TCP_BYTES};

/// The fewest and the most rows of two ways each that are remembered, powers of two: a call has one way for each hop and
/// direction.
const ROWS_MIN: usize = 32;
const ROWS_MAX: usize = 2_048;
/// Bytes of the stations in the header of Ethernet, of the whole of it, of IPv4 without options, and of UDP.
const STATIONS_BYTES: usize = 12;
const ETHERNET_BYTES: usize = 14;
const IPV4_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
/// The port of generic UDP encapsulation: such a packet may be the outside of another one.
const GUE_PORT: u16 = 6_080;

/// What the headers of a frame say that may be one of many alike: TCP or UDP over IPv4, without options and not in pieces.
#[inline(always)]
pub(super) fn read(frame: &[u8]) -> Option<Sound> {
    let [
        t0,
        t1,
        first,
        _,
        _,
        _,
        _,
        _,
        f0,
        f1,
        _,
        protocol,
        _,
        _,
        a0,
        a1,
        a2,
        a3,
        a4,
        a5,
        a6,
        a7,
        p0,
        p1,
        p2,
        p3,
    ] = *frame.get(STATIONS_BYTES..)?.first_chunk()?;
    let is_plain = (t0, t1, first) == (0x08, 0x00, 0x45) && (f0 & 0x3f, f1) == (0, 0);
    let flags = match Protocol(protocol) {
        Protocol::TCP => Flags(*frame.get(ETHERNET_BYTES + IPV4_BYTES + 13)?),
        Protocol::UDP => Flags::default(),
        _ => return None,
    };
    let addresses = u64::from_be_bytes([a0, a1, a2, a3, a4, a5, a6, a7]);
    let ports = u32::from_be_bytes([p0, p1, p2, p3]);
    is_plain.then(|| Sound::new(addresses, ports, protocol, flags))
}

/// Everything that a habit depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Path {
    /// Of IPv4, the source first.
    addresses: u64,
    /// Ports, then the protocol, then the interface where it arrives.
    ports: u64,
    /// The stations of the frame but for the last four bytes.
    stations: u64,
    /// These, then the machine where it arrives.
    rest: u64,
}

impl Path {
    /// That of a frame whose headers say this, where it is in the middle of a call.
    #[inline(always)]
    pub(super) fn of(frame: &[u8], said: Sound, machine: usize, interface: usize) -> Option<Self> {
        let [s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11] = *frame.first_chunk::<STATIONS_BYTES>()?;
        let is_middle = said.flags().0 & (Flags::SYN.0 | Flags::FIN.0 | Flags::RST.0) == 0
            && (said.protocol() == Protocol::TCP || said.destination().port != GUE_PORT);
        let interface = u16::try_from(interface).ok()?;
        let end = u64::from(u32::from_ne_bytes([s8, s9, s10, s11]));
        is_middle.then(|| Self {
            addresses: said.addresses(),
            ports: said.ports_and_protocol() | u64::from(interface),
            stations: u64::from_ne_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
            rest: end << 32 | u64::from(number(machine)),
        })
    }

    /// Who sends, and to whom.
    pub(super) fn ends(&self) -> (AnyEnd, AnyEnd) {
        let [a0, a1, a2, a3, a4, a5, a6, a7] = self.addresses.to_be_bytes();
        let [p0, p1, p2, p3, ..] = self.ports.to_be_bytes();
        let end = |address: [u8; 4], port| End { address: Ipv4Addr::from(address).into(), port };
        (
            end([a0, a1, a2, a3], u16::from_be_bytes([p0, p1])),
            end([a4, a5, a6, a7], u16::from_be_bytes([p2, p3])),
        )
    }

    /// Who sends, as one word (see [`super::calls::v4_word`]).
    #[inline]
    pub(super) const fn sender_word(&self) -> u64 {
        self.addresses >> 32 << 16 | self.ports >> 48
    }

    /// To whom, as one word.
    #[inline]
    pub(super) const fn receiver_word(&self) -> u64 {
        self.addresses << 32 >> 16 | self.ports << 16 >> 48
    }

    #[inline]
    pub(super) fn protocol(&self) -> Protocol {
        let [.., protocol, _, _] = self.ports.to_be_bytes();
        Protocol(protocol)
    }

    #[inline]
    fn hash(&self) -> u32 {
        hash_pair(self.addresses ^ self.rest.wrapping_mul(0x9e37_79b9_7f4a_7c15), self.ports)
    }
}

/// How long the packet in a frame of some [`Path`] is, where it is whole, as a host would find it. Lengths and checksums
/// that are only unusual are for the long way.
#[inline(always)]
pub(super) fn whole_length(frame: &[u8]) -> Option<usize> {
    let (header, rest) = frame.get(ETHERNET_BYTES..)?.split_first_chunk()?;
    let [_, _, t0, t1, _, _, _, _, _, protocol, _, _, a0, a1, a2, a3, a4, a5, a6, a7]: [u8; IPV4_BYTES] =
        *header;
    let length = usize::from(u16::from_be_bytes([t0, t1])).saturating_sub(IPV4_BYTES);
    let body = rest.get(..length)?;
    let has_lengths = match Protocol(protocol) {
        Protocol::TCP => body.get(12).is_some_and(|offset| {
            let header_bytes = usize::from(offset >> 4) * 4;
            (TCP_BYTES..=length).contains(&header_bytes)
        }),
        // Without a checksum it may be anything.
        _ => body.first_chunk().is_some_and(|header| {
            let [_, _, _, _, l0, l1, c0, c1]: [u8; UDP_BYTES] = *header;
            usize::from(u16::from_be_bytes([l0, l1])) == length && (c0, c1) != (0, 0)
        }),
    };
    let addresses =
        u64::from(u32::from_be_bytes([a0, a1, a2, a3])) + u64::from(u32::from_be_bytes([a4, a5, a6, a7]));
    let covered = addresses + u64::from(protocol) + length as u64;
    let is_whole = has_lengths && adds_up(header) && finish(covered + sum(body)) == 0;
    is_whole.then_some(IPV4_BYTES + length)
}

/// What frames of a path are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// A client's request has reached a forwarder.
    Forwarded,
    /// It has reached the real server that is to answer.
    Served,
    /// It has reached somebody else on the way.
    Passed,
    /// An answer has reached the client.
    Answered,
    /// An answer has reached a forwarder.
    Returned,
    /// It has reached somebody else on the way.
    Returning,
}

impl Deed {
    /// Whether it is a request.
    #[inline]
    pub(super) const fn is_request(self) -> bool {
        matches!(self, Self::Forwarded | Self::Served | Self::Passed)
    }
}

/// Frames of one path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habit {
    pub(super) deed: Deed,
    /// Where the call lies.
    pub(super) call: Place,
}

/// The last two habits that belong there; the last one lies in one line of the processor's cache.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Row([Option<(Path, Habit)>; 2]);

/// The habits of all calls.
#[derive(Debug, Default)]
pub(super) struct Habits {
    rows: Vec<Row>,
    /// Those that were put in since there were last made more places.
    taken: usize,
}

impl Habits {
    #[inline]
    pub(super) fn find(&self, path: &Path) -> Option<&Habit> {
        let Row([first, second]) = self.rows.get(self.row(path))?;
        let is_meant = |known: &&(Path, Habit)| known.0 == *path;
        let known = first.as_ref().filter(is_meant).or_else(|| second.as_ref().filter(is_meant));
        known.map(|(_, habit)| habit)
    }

    pub(super) fn put(&mut self, path: Path, habit: Habit) {
        self.taken += 1;
        if self.taken > self.rows.len() && self.rows.len() < ROWS_MAX {
            self.rows = vec![Row::default(); (self.rows.len() * 2).max(ROWS_MIN)];
            self.taken = 0;
        }
        let row = self.row(&path);
        if let Some(Row([first, second])) = self.rows.get_mut(row) {
            if first.as_ref().is_some_and(|(known, _)| *known != path) {
                *second = *first;
            }
            *first = Some((path, habit));
        }
    }

    #[inline]
    fn row(&self, path: &Path) -> usize {
        index(path.hash()) & self.rows.len().wrapping_sub(1)
    }
}
