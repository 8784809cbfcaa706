//! Sequence tracking against a model of two ends, and against forgers.

use super::*;
use Direction::{Original, Reply};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use proptest::prelude::*;

const SYN_ACK: Flags = Flags(0x12);
const FIN_ACK: Flags = Flags(0x11);
const RST_ACK: Flags = Flags(0x14);

fn segment(flags: Flags, sequence: u32, acknowledgement: u32, payload_bytes: u32) -> Segment {
    Segment { sequence, acknowledgement, payload_bytes, flags }
}

fn is_plausible(track: &TcpTrack, segment: Segment, direction: Direction) -> bool {
    track.judge(&segment, direction) == Judgement::Plausible
}

/// As the caller does: judged, and noted if plausible.
fn pass(track: &mut TcpTrack, segment: Segment, direction: Direction) -> bool {
    let may = is_plausible(track, segment, direction);
    if may {
        track.note(&segment, direction);
    }
    may
}

const CLIENT: u32 = 0xffff_fff0;
const SERVER: u32 = 5000;

/// Handshake, a request of 100 bytes and its answer of 300, all acknowledged.
fn established() -> TcpTrack {
    let mut track = TcpTrack::opened(&segment(Flags::SYN, CLIENT, 0, 0));
    let (client, server) = (CLIENT.wrapping_add(1), SERVER + 1);
    for (segment, direction) in [
        (segment(SYN_ACK, SERVER, client, 0), Reply),
        (segment(Flags::ACK, client, server, 0), Original),
        (segment(Flags::ACK, client, server, 100), Original),
        (segment(Flags::ACK, server, client.wrapping_add(100), 300), Reply),
        (segment(Flags::ACK, client.wrapping_add(100), server + 300, 0), Original),
    ] {
        assert!(pass(&mut track, segment, direction));
    }
    track
}

/// The next numbers of both sides after [`established`].
const NEXT: [u32; 2] = [CLIENT.wrapping_add(101), SERVER + 301];

#[test]
fn a_track_is_sixteen_bytes() {
    assert_eq!(size_of::<TcpTrack>(), 16);
}

#[test]
fn resets_of_the_right_number_are_plausible_and_others_are_not() {
    let track = established();
    let [client, server] = NEXT;
    assert!(is_plausible(&track, segment(Flags::RST, client, 0, 0), Original));
    assert!(is_plausible(&track, segment(RST_ACK, server, client, 0), Reply));
    for distance in [2, 1000, 65_536, 1 << 22, 1 << 31, u32::MAX - 3] {
        let (client, server) = (client.wrapping_add(distance), server.wrapping_add(distance));
        assert!(!is_plausible(&track, segment(Flags::RST, client, 0, 0), Original), "{distance}");
        assert!(!is_plausible(&track, segment(RST_ACK, server, 1 << 30, 0), Reply), "{distance}");
        assert!(!is_plausible(&track, segment(Flags::SYN, client, 0, 0), Original), "{distance}");
        assert!(!is_plausible(&track, segment(FIN_ACK, server, 1 << 30, 0), Reply), "{distance}");
    }
}

#[test]
fn a_refused_connection_is_reset_by_its_acknowledgement() {
    let track = TcpTrack::opened(&segment(Flags::SYN, 9, 0, 0));
    assert!(is_plausible(&track, segment(RST_ACK, 0, 10, 0), Reply));
    assert!(!is_plausible(&track, segment(RST_ACK, 0, 11, 0), Reply));
    assert!(!is_plausible(&track, segment(Flags::RST, 0, 0, 0), Reply));
    // With data in the SYN, both that and the SYN alone can be what is refused.
    let track = TcpTrack::opened(&segment(Flags::SYN, 9, 0, 500));
    assert!(is_plausible(&track, segment(RST_ACK, 0, 510, 0), Reply));
}

#[test]
fn a_reset_after_loss_is_plausible_by_either_number() {
    let mut track = established();
    let [client, server] = NEXT;
    // Of three segments, the second has been lost behind here, and the third before.
    assert!(pass(&mut track, segment(Flags::ACK, server, client, 1000), Reply));
    assert!(pass(&mut track, segment(Flags::ACK, server + 1000, client, 1000), Reply));
    assert!(pass(&mut track, segment(Flags::ACK, client, server + 1000, 0), Original));
    // What it has sent, as those who abort do; and what the client asked for last, as those do who know nothing.
    assert!(is_plausible(&track, segment(RST_ACK, server + 3000, client, 0), Reply));
    assert!(is_plausible(&track, segment(Flags::RST, server + 1000, 0, 0), Reply));
    assert!(!is_plausible(&track, segment(Flags::RST, server + 3000, 0, 0), Reply));
}

#[test]
fn a_close_that_is_repeated_stays_plausible() {
    let mut track = established();
    let [client, server] = NEXT;
    let close = segment(FIN_ACK, client, server, 200);
    assert!(pass(&mut track, close, Original));
    assert!(pass(&mut track, segment(Flags::ACK, server, client + 201, 0), Reply));
    assert!(pass(&mut track, close, Original));
    assert!(pass(&mut track, segment(FIN_ACK, server, client + 201, 0), Reply));
    assert!(pass(&mut track, segment(Flags::ACK, client + 201, server + 1, 0), Original));
    assert!(pass(&mut track, segment(FIN_ACK, server, client + 201, 0), Reply));
}

#[test]
fn a_repeated_close_that_was_overtaken_by_much_is_plausible() {
    let mut track = established();
    let [client, server] = NEXT;
    let close = segment(FIN_ACK, client, server, 200);
    assert!(pass(&mut track, close, Original));
    assert!(pass(&mut track, segment(Flags::ACK, server, client + 201, 500_000), Reply));
    assert!(pass(&mut track, segment(Flags::ACK, client + 201, server + 500_000, 0), Original));
    assert!(is_plausible(&track, close, Original));
}

#[test]
fn a_close_behind_a_gap_is_plausible() {
    let track = established();
    let [client, server] = NEXT;
    assert!(is_plausible(&track, segment(FIN_ACK, client + 100_000, server, 1000), Original));
    // What it acknowledges may be newer than what has been seen, where the server is not.
    let mut track = TcpTrack::opened(&segment(Flags::SYN, 100, 0, 0));
    assert!(pass(&mut track, segment(Flags::ACK, 101, 7000, 0), Original));
    assert!(is_plausible(&track, segment(FIN_ACK, 5000, 7000 + 65_536, 0), Original));
    assert!(!is_plausible(&track, segment(FIN_ACK, 5000, 7001 + 65_536, 0), Original));
}

#[test]
fn probes_are_plausible() {
    let mut track = established();
    let [client, server] = NEXT;
    for payload_bytes in [0, 1] {
        let probe = segment(Flags::ACK, client.wrapping_sub(1), server, payload_bytes);
        assert!(pass(&mut track, probe, Original));
    }
    assert!(pass(&mut track, segment(Flags::ACK, server, client, 1), Reply));
    assert!(pass(&mut track, segment(Flags::ACK, client, server, 0), Original));
    assert!(is_plausible(&track, segment(Flags::RST, server, 0, 0), Reply));
}

#[test]
fn both_may_open_at_once() {
    let mut track = TcpTrack::opened(&segment(Flags::SYN, 100, 0, 0));
    assert!(pass(&mut track, segment(Flags::SYN, 900, 0, 0), Reply));
    assert!(pass(&mut track, segment(SYN_ACK, 100, 901, 0), Original));
    assert!(pass(&mut track, segment(SYN_ACK, 900, 101, 0), Reply));
    assert!(pass(&mut track, segment(Flags::ACK, 101, 901, 10), Original));
    assert!(is_plausible(&track, segment(Flags::RST, 901, 0, 0), Reply));
    assert!(!is_plausible(&track, segment(Flags::RST, 950, 0, 0), Reply));
}

#[test]
fn an_attempt_with_another_number_takes_the_place_of_the_first_until_it_is_answered() {
    let mut track = TcpTrack::opened(&segment(Flags::SYN, 100, 0, 0));
    assert!(pass(&mut track, segment(Flags::SYN, 3_000_000_000, 0, 0), Original));
    assert!(!pass(&mut track, segment(SYN_ACK, 7, 101, 0), Reply));
    assert!(pass(&mut track, segment(SYN_ACK, 7, 3_000_000_001, 0), Reply));
    assert!(!pass(&mut track, segment(Flags::SYN, 100, 0, 0), Original));
}

#[test]
fn a_connection_whose_opening_was_forged_heals() {
    let mut track = TcpTrack::opened(&segment(Flags::SYN, 3_000_000_000, 0, 0));
    // The real one goes on: the answer does not fit, the client's next segment stands for itself.
    assert!(!pass(&mut track, segment(SYN_ACK, 5000, 101, 0), Reply));
    assert!(pass(&mut track, segment(Flags::ACK, 101, 5001, 0), Original));
    assert!(pass(&mut track, segment(Flags::ACK, 5001, 101, 700), Reply));
    assert!(is_plausible(&track, segment(Flags::RST, 5701, 0, 0), Reply));
    // As does one of which one side is wrong.
    let mut track = established();
    let [client, server] = NEXT;
    track.set(Reply, Side::Seen { acknowledged: 3_000_000_000, sent: 3_000_000_009 });
    assert!(!is_plausible(&track, segment(RST_ACK, server, client, 0), Reply));
    assert!(pass(&mut track, segment(Flags::ACK, server, client, 10), Reply));
    assert!(is_plausible(&track, segment(RST_ACK, server + 10, client, 0), Reply));
}

#[test]
fn a_connection_that_began_elsewhere_is_picked_up() {
    let mut track = TcpTrack::opened(&segment(Flags::ACK, 1000, 9000, 50));
    // Before the server has been seen, it is known by what the client expects of it.
    assert!(is_plausible(&track, segment(Flags::RST, 9000, 0, 0), Reply));
    assert!(!is_plausible(&track, segment(Flags::RST, 9100, 0, 0), Reply));
    assert!(pass(&mut track, segment(Flags::ACK, 9400, 1050, 200), Reply));
    assert!(is_plausible(&track, segment(Flags::RST, 9600, 0, 0), Reply));
    assert!(is_plausible(&track, segment(Flags::RST, 1050, 0, 0), Original));
    // Of nothing seen at all, whatever comes first is the beginning.
    let mut track = TcpTrack::default();
    assert!(!is_plausible(&track, segment(Flags::RST, 1, 2, 0), Original));
    assert!(pass(&mut track, segment(Flags::ACK, 1, 2, 3), Reply));
    assert!(pass(&mut track, segment(Flags::ACK, 2, 4, 3), Original));
}

#[test]
fn one_forged_segment_of_data_moves_nothing() {
    let [client, server] = NEXT;
    for distance in [5_u32, 70_000, REACH, REACH + 5, 1 << 30, 1 << 31, 3 << 30] {
        let mut track = established();
        let before = track;
        let forged = segment(Flags::ACK, client.wrapping_add(distance), server.wrapping_add(1 << 29), 1400);
        assert!(!pass(&mut track, forged, Original));
        // With a good guess for both it moves by no more than the reach.
        let forged = segment(Flags::ACK, client.wrapping_add(distance), server.wrapping_sub(1), 1400);
        pass(&mut track, forged, Original);
        let moved = track.sent[0].wrapping_sub(before.sent[0]);
        assert!(moved <= REACH + 1400 && (distance <= REACH || moved == 0), "{distance}");
    }
}

#[test]
fn bulk_stays_tracked_over_all_numbers() {
    let mut track = established();
    let [client, mut server] = NEXT;
    // Ten times around, in super-packets; whole flights of 3 MiB are lost before here now and then.
    for turn in 0..700_000_u32 {
        let lost = if turn % 1000 == 999 { 3 << 20 } else { 0 };
        server = server.wrapping_add(lost);
        assert!(pass(&mut track, segment(Flags::ACK, server, client, 65_160), Reply));
        server = server.wrapping_add(65_160);
        if turn % 16 == 0 {
            assert!(pass(&mut track, segment(Flags::ACK, client, server, 0), Original));
        }
    }
    assert!(is_plausible(&track, segment(Flags::RST, server, 0, 0), Reply));
    assert!(is_plausible(&track, segment(Flags::RST, client, 0, 0), Original));
}

#[test]
fn a_flight_beyond_the_reach_that_was_lost_is_caught_up_with() {
    let mut track = established();
    let [client, server] = NEXT;
    let later = server + 300 * (1 << 20);
    assert!(!is_plausible(&track, segment(Flags::RST, later, 0, 0), Reply));
    assert!(pass(&mut track, segment(Flags::ACK, later, client, 1000), Reply));
    assert!(is_plausible(&track, segment(Flags::RST, later + 1000, 0, 0), Reply));
}

#[test]
fn the_clients_side_alone_is_enough_for_its_own_segments() {
    let mut track = TcpTrack::opened(&segment(Flags::SYN, CLIENT, 0, 0));
    let (mut client, mut server) = (CLIENT.wrapping_add(1), 77_u32);
    for turn in 0..100_000 {
        assert!(pass(&mut track, segment(Flags::ACK, client, server, 1400), Original), "{turn}");
        client = client.wrapping_add(1400);
        server = server.wrapping_add(100_000);
    }
    for (sequence, should) in [(0, true), (4096, true), (4098, false), (u32::MAX, false)] {
        let reset = segment(Flags::RST, client.wrapping_sub(sequence), 0, 0);
        assert_eq!(is_plausible(&track, reset, Original), should, "{sequence}");
    }
    assert!(pass(&mut track, segment(FIN_ACK, client, server, 0), Original));
    // Should the server be seen after all, it is known.
    assert!(is_plausible(&track, segment(Flags::RST, server, 0, 0), Reply));
}

/// A generator of numbers: the constants of Knuth's MMIX.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(((self.0 >> 32) * u64::from(below)) >> 32).unwrap()
    }

    fn any(&mut self) -> u32 {
        self.next(u32::MAX)
    }
}

/// Of this many forged segments with random numbers, how many are accepted; all that are, are noted.
fn accepted(mut track: TcpTrack, count: u32, all_flags: &[Flags]) -> u32 {
    let mut numbers = Numbers(42);
    let mut accepted = 0;
    for turn in 0..count {
        let flags = all_flags[turn as usize % all_flags.len()];
        let forged = segment(flags, numbers.any(), numbers.any(), numbers.next(1461));
        let direction = if numbers.next(2) == 0 { Original } else { Reply };
        accepted += u32::from(pass(&mut track, forged, direction));
    }
    accepted
}

#[test]
fn of_a_million_forged_segments_none_is_accepted() {
    let ends = [Flags::RST, RST_ACK, FIN_ACK, Flags::FIN, Flags::SYN, SYN_ACK];
    assert_eq!(accepted(established(), 1_000_000, &ends), 0);
    let mut one_sided = TcpTrack::opened(&segment(Flags::SYN, 1, 0, 0));
    for turn in 0..100 {
        assert!(pass(&mut one_sided, segment(Flags::ACK, 2 + turn * 1400, 50, 1400), Original));
    }
    assert_eq!(accepted(one_sided, 100_000, &ends), 0);
    // With 64 KiB in flight, one in 2^16 of those that claim to be from that side is right; half of them do.
    let mut busy = established();
    let [client, server] = NEXT;
    assert!(pass(&mut busy, segment(Flags::ACK, server, client, 65_536), Reply));
    assert!(accepted(busy, 1_000_000, &ends) <= 2 * 8);
    // Data moves the window of few: near in both numbers is one in 2^18.
    assert!(accepted(established(), 1_000_000, &[Flags::ACK]) <= 2 * 4);
}

/// One end of a connection in the model, with numbers counted from its SYN.
#[derive(Debug)]
struct End {
    initial: u32,
    /// Sent, SYN included; and whether the last of it is a FIN.
    next: u32,
    has_closed: bool,
    /// Acknowledged by the other.
    acknowledged: u32,
    /// Of the other: everything before this has come, and of later numbers these.
    expected: u32,
    early: Vec<(u32, u32)>,
    other_initial: u32,
    /// The socket is gone; what comes is answered with a reset.
    is_gone: bool,
}

/// Data of the model come in blocks of this many bytes, so that the model can count blocks.
const BLOCK: u32 = 700;

impl End {
    fn new(initial: u32, other_initial: u32) -> Self {
        Self {
            initial,
            next: 1,
            has_closed: false,
            acknowledged: 1,
            expected: 1,
            early: Vec::new(),
            other_initial,
            is_gone: false,
        }
    }

    fn send(&self, flags: Flags, from: u32, payload_bytes: u32) -> Segment {
        let acknowledgement = self.other_initial.wrapping_add(self.expected);
        segment(flags, self.initial.wrapping_add(from), acknowledgement, payload_bytes)
    }

    fn data(&mut self, blocks: u32) -> Segment {
        let sent = self.send(Flags::ACK, self.next, blocks * BLOCK);
        self.next += blocks * BLOCK;
        sent
    }

    fn close(&mut self, blocks: u32) -> Segment {
        let sent = self.send(FIN_ACK, self.next, blocks * BLOCK);
        self.next += blocks * BLOCK + 1;
        self.has_closed = true;
        sent
    }

    /// Sends anew from the first byte that is not acknowledged.
    fn repeat(&self, blocks: u32) -> Segment {
        let last = self.next - u32::from(self.has_closed);
        let size = (blocks * BLOCK).min(last.saturating_sub(self.acknowledged));
        let is_rest = self.has_closed && self.acknowledged + size == last;
        self.send(if is_rest { FIN_ACK } else { Flags::ACK }, self.acknowledged, size)
    }

    /// Takes a segment in. Returns its answer, and whether a RST or FIN in it was accepted.
    fn take(&mut self, given: &Segment) -> (Option<Segment>, bool) {
        let from = given.sequence.wrapping_sub(self.other_initial);
        if given.flags.has(Flags::RST) {
            // Exactly the expected number, as RFC 5961 s.3.2 asks; a near one is answered with a challenge.
            let is_accepted = from == self.expected && !self.is_gone;
            let is_near = from.wrapping_sub(self.expected) < 1 << 20 && !self.is_gone;
            let challenge = (is_near && !is_accepted).then(|| self.send(Flags::ACK, self.next, 0));
            self.is_gone |= is_accepted;
            return (challenge, is_accepted);
        }
        if self.is_gone {
            return (Some(segment(Flags::RST, given.acknowledgement, 0, 0)), false);
        }
        let acknowledged = given.acknowledgement.wrapping_sub(self.initial);
        if acknowledged <= self.next {
            self.acknowledged = self.acknowledged.max(acknowledged);
        }
        let before = self.expected;
        let length = given.end().wrapping_sub(given.sequence);
        self.early.push((from, from.wrapping_add(length)));
        while let Some((_, end)) =
            self.early.iter().find(|(start, end)| *start <= self.expected && *end > self.expected)
        {
            self.expected = *end;
        }
        self.early.retain(|(_, end)| *end > self.expected);
        let end = from.wrapping_add(length);
        let is_accepted = given.flags.has(Flags::FIN) && end > before;
        (((length > 0) || from < before).then(|| self.send(Flags::ACK, self.next, 0)), is_accepted)
    }
}

/// A segment under way, with the judgement that it got in the middle.
type Packet = (Segment, Option<bool>);

/// Two ends, the middle, and the packets before and behind it in each direction.
struct World {
    ends: [End; 2],
    track: TcpTrack,
    before: [Vec<Packet>; 2],
    behind: [Vec<Packet>; 2],
    /// Only the client's segments pass the middle.
    is_one_sided: bool,
    /// RSTs and FINs that were accepted: side, number of the end, and whether one of their copies was plausible.
    plausible: BTreeMap<(usize, u8, u32), bool>,
    accepted: BTreeSet<(usize, u8, u32)>,
}

impl World {
    fn new(initials: [u32; 2], is_one_sided: bool) -> Self {
        let [client, server] = initials;
        let mut track = TcpTrack::opened(&segment(Flags::SYN, client, 0, 0));
        if !is_one_sided {
            assert!(pass(&mut track, segment(SYN_ACK, server, client.wrapping_add(1), 0), Reply));
        }
        let third = segment(Flags::ACK, client.wrapping_add(1), server.wrapping_add(1), 0);
        assert!(pass(&mut track, third, Original));
        Self {
            ends: [End::new(client, server), End::new(server, client)],
            track,
            before: Default::default(),
            behind: Default::default(),
            is_one_sided,
            plausible: BTreeMap::new(),
            accepted: BTreeSet::new(),
        }
    }

    fn send(&mut self, side: usize, segment: Segment) {
        self.before[side].push((segment, None));
    }

    /// One of the first `spread` packets of a queue: repeated, lost or moved on.
    fn pick(queue: &mut Vec<Packet>, numbers: &mut Numbers, spread: u32, loss: u32) -> Option<Packet> {
        if queue.is_empty() {
            return None;
        }
        let place = numbers.next(spread.min(u32::try_from(queue.len()).unwrap())) as usize;
        if numbers.next(100) < 5 {
            return Some(queue[place]);
        }
        let packet = queue.remove(place);
        (numbers.next(100) >= loss).then_some(packet)
    }

    fn step(&mut self, numbers: &mut Numbers, spread: u32, loss: u32) {
        for (side, direction) in [Original, Reply].into_iter().enumerate() {
            if let Some((segment, _)) = Self::pick(&mut self.before[side], numbers, spread, loss) {
                let is_seen = side == 0 || !self.is_one_sided;
                let judged = is_seen.then(|| pass(&mut self.track, segment, direction));
                if let Some(is_plausible) = judged {
                    *self.plausible.entry(name(side, &segment)).or_default() |= is_plausible;
                }
                self.behind[side].push((segment, judged));
            }
            if let Some((segment, judged)) = Self::pick(&mut self.behind[side], numbers, spread, loss) {
                let (answer, is_accepted) = self.ends[1 - side].take(&segment);
                if is_accepted && judged.is_some() {
                    self.accepted.insert(name(side, &segment));
                }
                if let Some(answer) = answer {
                    self.send(1 - side, answer);
                }
            }
        }
    }

    fn check(&self) {
        for name in &self.accepted {
            assert!(self.plausible[name], "{name:?} of {:?}, {:?}", self.ends, self.track);
        }
    }
}

/// What copies of a RST or FIN have in common.
fn name(side: usize, segment: &Segment) -> (usize, u8, u32) {
    (side, segment.flags.0 & (Flags::RST.0 | Flags::FIN.0), segment.end())
}

/// Runs a connection to its end. Returns how many RSTs and FINs were accepted.
fn run(seed: u64, is_one_sided: bool) -> usize {
    let mut numbers = Numbers(seed);
    let initials = [numbers.any(), numbers.any()];
    let (spread, loss, window) = (1 + numbers.next(8), numbers.next(30), 4096 + numbers.next(60_000));
    // Of an unseen flight, only a short one is known.
    let window = if is_one_sided { 1000 } else { window };
    let how = numbers.next(4);
    let mut world = World::new(initials, is_one_sided);
    let talk = |world: &mut World, numbers: &mut Numbers| {
        for side in 0..2 {
            let end = &mut world.ends[side];
            if end.is_gone {
                continue;
            }
            let is_open = !end.has_closed && end.next - end.acknowledged < window;
            let sent = match numbers.next(8) {
                0..3 if is_open => end.data(1 + numbers.next(if is_one_sided { 2 } else { 12 })),
                3 => end.repeat(1 + numbers.next(4)),
                4 => end.send(Flags::ACK, end.next - 1, 0),
                _ => continue,
            };
            world.send(side, sent);
        }
    };
    for _ in 0..60 {
        talk(&mut world, &mut numbers);
        world.step(&mut numbers, spread, loss);
    }
    let side = numbers.next(2) as usize;
    match how {
        0 => {
            let end = &mut world.ends[side];
            let (next, is_gone) = (end.next, end.is_gone);
            end.is_gone = true;
            assert!(!is_gone);
            let reset = end.send(RST_ACK, next, 0);
            world.send(side, reset);
        }
        1 => world.ends[side].is_gone = true,
        _ => {
            for side in if how == 2 { &[0, 1][..] } else { &[1][..] } {
                let close = world.ends[*side].close(numbers.next(3));
                world.send(*side, close);
            }
        }
    }
    for _ in 0..120 {
        talk(&mut world, &mut numbers);
        world.step(&mut numbers, spread, loss);
    }
    world.check();
    world.accepted.len()
}

#[test]
fn whatever_ends_a_connection_of_the_model_is_plausible() {
    let both: usize = (0..1500).map(|seed| run(seed, false)).sum();
    let one: usize = (0..1500).map(|seed| run(seed, true)).sum();
    // The model does end its connections.
    assert!(both > 1000 && one > 500, "{both} {one}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_ends_any_connection_is_plausible(seed: u64) {
        run(seed, false);
    }

    /// Whatever is noted, the numbers stay within their bound and mean what they are read as.
    #[test]
    fn any_segments_leave_a_track_within_its_bounds(
        steps in proptest::collection::vec((0_u8..64, -3_i32..3, -3_i32..3, 0_u32..3, any::<bool>()), 0..60),
        scale in prop_oneof![Just(1), Just(1000), Just(3_000_000), Just(400_000_000)],
    ) {
        let mut track = TcpTrack::default();
        for (flags, sequence, acknowledgement, length, is_reply) in steps {
            let number = |offset: i32| (offset * scale).cast_unsigned();
            let segment = segment(Flags(flags), number(sequence), number(acknowledgement), length * 500);
            let direction = if is_reply { Reply } else { Original };
            let before = track;
            let may = pass(&mut track, segment, direction);
            prop_assert!(may || track == before);
            for direction in [Original, Reply] {
                if let Side::Seen { acknowledged, sent } = track.side(direction) {
                    prop_assert!(sent.wrapping_sub(acknowledged) <= FLIGHT_MAX);
                }
            }
            // A plausible segment of data makes the same segment right.
            if may && !segment.flags.has(Flags(Flags::RST.0 | Flags::SYN.0)) {
                prop_assert!(is_plausible(&track, segment, direction));
            }
        }
    }
}
