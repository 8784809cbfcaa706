//! Fragments against a slow model, and under floods.

use super::*;
use alloc::collections::BTreeSet;
use alloc::vec;
use proptest::prelude::*;

const MILLISECOND: u64 = 1_000_000;

fn at(milliseconds: u64) -> Instant {
    Instant::from_nanos(milliseconds * MILLISECOND)
}

fn key(source: u32, identification: u32) -> FragmentKey {
    FragmentKey {
        source: Address::v4(source.to_be_bytes()),
        destination: Address::v4([10, 0, 0, 3]),
        protocol: Protocol::UDP,
        identification,
    }
}

fn tuple_of(key: &FragmentKey) -> FiveTuple {
    FiveTuple {
        source: key.source,
        destination: key.destination,
        source_port: 40_000,
        destination_port: 53,
        protocol: key.protocol,
    }
}

fn piece(offset_bytes: u16, length: u16, more: bool) -> Piece {
    Piece { offset_bytes, length, more }
}

const fn interface() -> InterfaceId {
    InterfaceId(1)
}

/// A caller that permits every first fragment. What went on, in order, by the first byte of each piece.
#[derive(Default)]
struct Caller {
    fragments: Fragments,
    went: Vec<(FragmentKey, u16)>,
    drops: Vec<DropReason>,
}

impl Caller {
    fn give(&mut self, key: FragmentKey, piece: Piece, now: Instant) {
        let mut bytes = vec![0; usize::from(piece.length) + 20];
        bytes[..2].copy_from_slice(&piece.offset_bytes.to_be_bytes());
        bytes[2..6].copy_from_slice(&key.identification.to_be_bytes());
        bytes[6..10].copy_from_slice(&key.source.v4_bytes());
        match self.fragments.look(key, piece, now) {
            Follow::First => {
                self.went.push((key, piece.offset_bytes));
                self.fragments.settle(&key, tuple_of(&key));
            }
            Follow::Known(tuple) => {
                assert_eq!(tuple, tuple_of(&key));
                self.went.push((key, piece.offset_bytes));
            }
            Follow::Wait => {
                if let Err(reason) = self.fragments.hold(&key, &bytes, interface()) {
                    self.drops.push(reason);
                }
            }
            Follow::Drop(reason) => self.drops.push(reason),
        }
        while let Some(Held { interface: from, bytes, tuple }) = self.fragments.poll_released() {
            assert_eq!(from, interface());
            let key = key_of(&bytes);
            assert_eq!(tuple, tuple_of(&key));
            self.went.push((key, u16::from_be_bytes([bytes[0], bytes[1]])));
        }
        assert_bounds(&self.fragments);
    }
}

fn key_of(bytes: &[u8]) -> FragmentKey {
    let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    key(word(6), word(2))
}

fn assert_bounds(fragments: &Fragments) {
    assert!(fragments.datagrams() <= DATAGRAMS_MAX);
    assert!(fragments.datagrams.len() <= DATAGRAMS_MAX);
    assert!(fragments.waiting_bytes() <= HELD_BYTES_MAX);
}

/// Walks every list and compares it with the sums that are kept.
fn assert_consistent(fragments: &Fragments) {
    let (mut listed, mut held, mut pieces) = (0, 0, 0);
    for list in [LIGHT, HEAVY] {
        let (mut at, mut before, mut touched) = (fragments.lists[list].oldest, NIL, Instant::ZERO);
        while at != NIL {
            let datagram = &fragments.datagrams[at as usize];
            assert_eq!((datagram.previous, datagram.list), (before, list));
            assert_eq!(datagram.held_bytes > 0, list == HEAVY);
            assert!(datagram.touched >= touched && datagram.pieces.len() <= PIECES_MAX);
            assert_eq!(fragments.places.get(&datagram.key), Some(&at));
            (touched, before, at) = (datagram.touched, at, datagram.next);
            (listed, held, pieces) = (listed + 1, held + datagram.held_bytes, pieces + datagram.held.len());
        }
        assert_eq!(fragments.lists[list].newest, before);
    }
    assert_eq!((listed, held, pieces), (fragments.datagrams(), fragments.held_bytes, fragments.held_pieces));
    assert_eq!(listed + fragments.free.len(), fragments.datagrams.len());
}

#[test]
fn later_fragments_follow_the_first_and_a_whole_datagram_leaves_nothing() {
    let mut caller = Caller::default();
    for piece in [piece(0, 1480, true), piece(1480, 1480, true), piece(2960, 48, false)] {
        caller.give(key(1, 7), piece, at(0));
    }
    assert_eq!(caller.went, [(key(1, 7), 0), (key(1, 7), 1480), (key(1, 7), 2960)]);
    assert_eq!(caller.fragments.datagrams(), 0);
    assert_eq!(caller.fragments.next_timeout(), None);
}

#[test]
fn fragments_that_come_before_their_first_wait_and_go_on_behind_it_in_order_of_arrival() {
    let mut caller = Caller::default();
    caller.give(key(1, 7), piece(2960, 48, false), at(0));
    caller.give(key(1, 7), piece(1480, 1480, true), at(1));
    assert_eq!((caller.went.len(), caller.fragments.waiting()), (0, 2));
    assert_eq!(caller.fragments.waiting_bytes(), 1568);
    caller.give(key(1, 7), piece(0, 1480, true), at(2));
    assert_eq!(caller.went, [(key(1, 7), 0), (key(1, 7), 2960), (key(1, 7), 1480)]);
    assert_eq!((caller.fragments.datagrams(), caller.fragments.waiting()), (0, 0));
    assert_eq!(caller.fragments.waiting_bytes(), 0);
}

#[test]
fn a_fragment_behind_a_first_that_is_still_being_decided_on_waits() {
    let mut fragments = Fragments::default();
    assert_eq!(fragments.look(key(1, 7), piece(0, 1480, true), at(0)), Follow::First);
    assert_eq!(fragments.look(key(1, 7), piece(1480, 8, false), at(0)), Follow::Wait);
    fragments.settle(&key(1, 7), tuple_of(&key(1, 7)));
    // The decision falls between the question and the bytes; the datagram is whole and gone by then.
    assert_eq!(fragments.hold(&key(1, 7), &[1], interface()), Err(DropReason::FragmentsFull));
    assert_eq!(fragments.look(key(1, 8), piece(0, 1480, true), at(0)), Follow::First);
    assert_eq!(fragments.look(key(1, 8), piece(1480, 8, true), at(0)), Follow::Wait);
    fragments.settle(&key(1, 8), tuple_of(&key(1, 8)));
    assert_eq!(fragments.hold(&key(1, 8), &[1], interface()), Ok(()));
    assert_eq!(fragments.poll_released().unwrap().bytes, [1]);
    assert_consistent(&fragments);
}

#[test]
fn fragments_of_a_refused_datagram_end_for_the_same_reason() {
    let mut fragments = Fragments::default();
    assert_eq!(fragments.look(key(1, 7), piece(1480, 1480, true), at(0)), Follow::Wait);
    fragments.hold(&key(1, 7), &[0; 1500], interface()).unwrap();
    assert_eq!(fragments.look(key(1, 7), piece(0, 1480, true), at(0)), Follow::First);
    fragments.refuse(&key(1, 7), DropReason::PolicyDenied);
    assert_eq!(fragments.poll_given_up(), Some((DropReason::PolicyDenied, 1)));
    assert_eq!(fragments.poll_given_up(), None);
    let last = fragments.look(key(1, 7), piece(2960, 8, false), at(0));
    assert_eq!(last, Follow::Drop(DropReason::PolicyDenied));
    // That was the whole datagram.
    assert_eq!((fragments.datagrams(), fragments.waiting_bytes()), (0, 0));
}

#[test]
fn tiny_fragments_and_contradictions_have_their_reasons() {
    let mut fragments = Fragments::default();
    let tcp = FragmentKey { protocol: Protocol::TCP, ..key(1, 7) };
    let icmp = FragmentKey { protocol: Protocol::ICMP, ..key(1, 7) };
    for (key, piece, reason) in [
        (tcp, piece(8, 1480, true), DropReason::FragmentTiny),
        (tcp, piece(8, 5, false), DropReason::FragmentTiny),
        (tcp, piece(0, 8, true), DropReason::FragmentTiny),
        (key(1, 7), piece(0, 4, true), DropReason::FragmentTiny),
        (icmp, piece(0, 0, true), DropReason::FragmentTiny),
        (key(1, 7), piece(0, 1484, true), DropReason::BadHeader),
        (key(1, 7), piece(1480, 0, false), DropReason::BadHeader),
        (key(1, 7), piece(4, 8, true), DropReason::BadHeader),
        // The ping of death.
        (icmp, piece(65_528, 8, false), DropReason::BadHeader),
    ] {
        assert_eq!(fragments.look(key, piece, at(0)), Follow::Drop(reason), "{key:?} {piece:?}");
    }
    assert_eq!(fragments.datagrams(), 0);
    assert_eq!(fragments.look(tcp, piece(0, 16, true), at(0)), Follow::First);
    assert_eq!(fragments.look(icmp, piece(0, 8, true), at(0)), Follow::First);
    assert_eq!(fragments.look(key(1, 7), piece(65_528, 7, false), at(0)), Follow::Wait);
}

#[test]
fn a_repeated_piece_is_dropped_alone_and_an_overlapping_one_with_all_that_follow() {
    const OVERLAP: Follow = Follow::Drop(DropReason::FragmentOverlap);
    let base = [piece(0, 80, true), piece(160, 80, true)];
    let begin = || {
        let mut fragments = Fragments::default();
        assert_eq!(fragments.look(key(1, 7), base[0], at(0)), Follow::First);
        fragments.settle(&key(1, 7), tuple_of(&key(1, 7)));
        assert_eq!(fragments.look(key(1, 7), base[1], at(0)), Follow::Known(tuple_of(&key(1, 7))));
        fragments
    };
    let mut fragments = begin();
    for again in base {
        assert_eq!(fragments.look(key(1, 7), again, at(0)), OVERLAP);
    }
    assert!(matches!(fragments.look(key(1, 7), piece(80, 80, true), at(0)), Follow::Known(_)));
    for overlap in [
        piece(72, 16, true),
        piece(80, 88, true),
        piece(0, 88, true),
        piece(0, 72, true),
        piece(168, 8, true),
        piece(232, 16, false),
        // A last piece before others, and the same bytes as the last piece now.
        piece(88, 8, false),
        piece(160, 80, false),
    ] {
        let mut fragments = begin();
        assert_eq!(fragments.look(key(1, 7), overlap, at(0)), OVERLAP, "{overlap:?}");
        assert_eq!(fragments.look(key(1, 7), piece(80, 80, true), at(1999)), OVERLAP, "{overlap:?}");
        assert_eq!(fragments.handle_timeout(at(2000)), 0);
        assert_eq!(fragments.datagrams(), 0);
    }
    // Two last pieces.
    for second in [piece(320, 8, false), piece(400, 8, true), piece(240, 80, true)] {
        let mut fragments = begin();
        assert!(matches!(fragments.look(key(1, 7), piece(240, 80, false), at(0)), Follow::Known(_)));
        assert_eq!(fragments.look(key(1, 7), second, at(0)), OVERLAP, "{second:?}");
        assert_eq!(fragments.look(key(1, 7), piece(80, 80, true), at(0)), OVERLAP);
    }
}

#[test]
fn what_waits_for_a_first_that_does_not_come_is_given_up_in_time() {
    let mut fragments = Fragments::default();
    assert_eq!(fragments.look(key(1, 7), piece(80, 80, true), at(5)), Follow::Wait);
    fragments.hold(&key(1, 7), &[0; 100], interface()).unwrap();
    assert_eq!(fragments.look(key(1, 7), piece(160, 80, true), at(1000)), Follow::Wait);
    fragments.hold(&key(1, 7), &[0; 100], interface()).unwrap();
    assert_eq!(fragments.next_timeout(), Some(at(3000)));
    assert_eq!((fragments.handle_timeout(at(2999)), fragments.waiting()), (0, 2));
    assert_eq!((fragments.handle_timeout(at(3000)), fragments.waiting()), (2, 0));
    assert_eq!((fragments.datagrams(), fragments.waiting_bytes()), (0, 0));
    assert_eq!(fragments.poll_given_up(), None);
    // Without the timer, the next piece finds a new datagram.
    assert_eq!(fragments.look(key(1, 7), piece(80, 80, true), at(4000)), Follow::Wait);
    fragments.hold(&key(1, 7), &[0; 100], interface()).unwrap();
    assert_eq!(fragments.look(key(1, 7), piece(80, 80, true), at(6000)), Follow::Wait);
    assert_eq!(fragments.poll_given_up(), Some((DropReason::FragmentTimeout, 1)));
    assert_consistent(&fragments);
}

#[test]
fn a_datagram_that_is_refused_ends_by_its_own_age() {
    let mut fragments = Fragments::default();
    assert_eq!(fragments.look(key(1, 7), piece(80, 80, true), at(0)), Follow::Wait);
    fragments.hold(&key(1, 7), &[0; 100], interface()).unwrap();
    assert_eq!(fragments.look(key(1, 8), piece(0, 80, true), at(1000)), Follow::First);
    let overlap = Follow::Drop(DropReason::FragmentOverlap);
    assert_eq!(fragments.look(key(1, 7), piece(88, 8, true), at(1500)), overlap);
    assert_eq!(fragments.poll_given_up(), Some((DropReason::FragmentOverlap, 1)));
    assert_consistent(&fragments);
    assert_eq!(fragments.next_timeout(), Some(at(2000)));
    assert_eq!((fragments.handle_timeout(at(2000)), fragments.datagrams()), (0, 1));
}

#[test]
fn a_datagram_of_too_many_pieces_or_bytes_is_given_up() {
    let mut fragments = Fragments::default();
    for turn in 0..128 {
        assert_eq!(fragments.look(key(1, 7), piece(8 + turn * 8, 8, true), at(0)), Follow::Wait);
        fragments.hold(&key(1, 7), &[0; 28], interface()).unwrap();
    }
    let full = Follow::Drop(DropReason::FragmentsFull);
    assert_eq!(fragments.look(key(1, 7), piece(8000, 8, true), at(0)), full);
    assert_eq!(fragments.poll_given_up(), Some((DropReason::FragmentsFull, 128)));
    assert_eq!(fragments.look(key(1, 7), piece(0, 8, true), at(0)), full);
    assert_eq!(fragments.look(key(1, 8), piece(8, 8, true), at(0)), Follow::Wait);
    let much = vec![0; DATAGRAM_HELD_BYTES_MAX + 1];
    assert_eq!(fragments.hold(&key(1, 8), &much, interface()), Err(DropReason::FragmentsFull));
    assert_eq!(fragments.look(key(1, 8), piece(0, 8, true), at(0)), full);
    assert_consistent(&fragments);
}

#[test]
fn the_largest_datagrams_pass_backwards() {
    for mtu in [576_u32, 1500, 9000] {
        let mut caller = Caller::default();
        let room = (mtu - 20) / 8 * 8;
        let starts: Vec<u32> = (0..65_515).step_by(room as usize).collect();
        for start in starts.iter().rev() {
            let length = room.min(65_515 - start);
            let more = start + length < 65_515;
            let piece = piece(u16::try_from(*start).unwrap(), u16::try_from(length).unwrap(), more);
            caller.give(key(1, 7), piece, at(0));
        }
        assert_eq!((caller.went.len(), caller.drops.len()), (starts.len(), 0), "{mtu}");
    }
}

#[test]
fn one_source_takes_its_share_and_no_more() {
    let mut caller = Caller::default();
    caller.give(key(2, 0), piece(80, 80, true), at(0));
    for identification in 0..5000 {
        caller.give(key(1, identification), piece(1480, 1480, true), at(1));
    }
    assert_eq!(caller.fragments.datagrams(), SOURCE_DATAGRAMS_MAX + 1);
    assert!(caller.fragments.waiting_bytes() <= SOURCE_HELD_BYTES_MAX + 100);
    caller.give(key(2, 0), piece(0, 80, true), at(2));
    assert_eq!(caller.went, [(key(2, 0), 0), (key(2, 0), 80)]);
    // Held in few large pieces, bytes are what is bounded.
    let mut caller = Caller::default();
    for identification in 0..60 {
        caller.give(key(1, identification), piece(8, 60_000, true), at(1));
    }
    assert!((60_000..=SOURCE_HELD_BYTES_MAX).contains(&caller.fragments.waiting_bytes()));
    assert_consistent(&caller.fragments);
}

#[test]
fn a_host_of_ipv6_is_one_source_whatever_its_address_in_the_network() {
    let mut fragments = Fragments::default();
    for last in 0..2000_u32 {
        let source = Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(last) << 3);
        let key = FragmentKey { source: IpAddr::V6(source).into(), ..key(1, 7) };
        assert_eq!(fragments.look(key, piece(0, 80, true), at(0)), Follow::First);
    }
    assert_eq!(fragments.datagrams(), SOURCE_DATAGRAMS_MAX);
}

/// A generator of numbers for floods: the constants of Knuth's MMIX.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 33).unwrap() % below
    }
}

/// Honest hosts send datagrams of three fragments in order, one in ten with the first one last, while as many bytes
/// of `flood` are mixed in. Returns how many honest fragments of a thousand went on.
fn honest_of_a_thousand(flood: impl Fn(&mut Numbers) -> (FragmentKey, Piece)) -> usize {
    const HONEST: [Piece; 3] = [
        Piece { offset_bytes: 0, length: 1480, more: true },
        Piece { offset_bytes: 1480, length: 1480, more: true },
        Piece { offset_bytes: 2960, length: 40, more: false },
    ];
    let (mut numbers, mut caller) = (Numbers(1), Caller::default());
    let (mut honest_bytes, mut flood_bytes, mut flood_packets, mut sent) = (0, 0, 0, 0);
    // Ten times the buffer, in datagrams and in bytes.
    while flood_bytes < 10 * HELD_BYTES_MAX || flood_packets < 10 * DATAGRAMS_MAX {
        let key = key(0x0a00_0000 + numbers.next(500), sent);
        let order = if numbers.next(10) == 0 { [1, 2, 0] } else { [0, 1, 2] };
        for place in order {
            // A microsecond for each packet of the flood, and the gaps of Ethernet on the link.
            let now = Instant::from_nanos(flood_packets as u64 * 1000);
            caller.give(key, HONEST[place], now);
            sent += 1;
            honest_bytes += usize::from(HONEST[place].length) + 58;
            while flood_bytes < honest_bytes {
                let (key, piece) = flood(&mut numbers);
                caller.give(key, piece, now);
                flood_bytes += (usize::from(piece.length) + 58).max(84);
                flood_packets += 1;
            }
        }
        assert_bounds(&caller.fragments);
    }
    assert_consistent(&caller.fragments);
    let is_honest = |key: &FragmentKey| key.source.v4_bytes()[0] == 10;
    let went = caller.went.iter().filter(|(key, _)| is_honest(key)).count();
    went * 1000 / sent as usize
}

#[test]
fn honest_fragments_pass_while_half_of_the_link_is_a_flood() {
    let spoofed = |numbers: &mut Numbers| 0x1400_0000 + numbers.next(1 << 24);
    let later = piece(1480, 1480, true);
    let small = piece(800, 8, true);
    let first = piece(0, 8, true);
    for (name, one_source, shape) in [
        ("lone later fragments of one source", true, later),
        ("lone later fragments of all sources", false, later),
        ("the smallest of one source", true, small),
        ("the smallest of all sources", false, small),
        ("first fragments of one source", true, first),
        ("first fragments of all sources", false, first),
    ] {
        let share = honest_of_a_thousand(|numbers| {
            let source = if one_source { 0x1400_0000 } else { spoofed(numbers) };
            (key(source, numbers.next(1 << 16)), shape)
        });
        assert!(share >= 990, "{name}: {share} of 1000");
    }
}

/// What the rules say, in the plainest words: which fragments of a list go on, for one datagram without bounds.
fn slow_model(given: &[Piece]) -> Vec<u16> {
    let (mut seen, mut waiting, mut went): (Vec<Piece>, Vec<u16>, Vec<u16>) = Default::default();
    let (mut is_poisoned, mut has_first) = (false, false);
    for piece in given {
        if is_poisoned || seen.contains(piece) {
            continue;
        }
        let bytes = |piece: &Piece| {
            let start = u32::from(piece.offset_bytes);
            (start..start + u32::from(piece.length)).collect::<BTreeSet<u32>>()
        };
        let all: BTreeSet<u32> = seen.iter().flat_map(bytes).collect();
        let mine = bytes(piece);
        let last = seen.iter().find(|piece| !piece.more).map(bytes);
        let is_beyond_last = last.is_some_and(|last| mine.last() > last.last() || !piece.more);
        let is_short_last = !piece.more && mine.last() < all.last();
        if !all.is_disjoint(&mine) || is_beyond_last || is_short_last {
            is_poisoned = true;
            continue;
        }
        seen.push(*piece);
        if piece.offset_bytes == 0 {
            has_first = true;
            went.push(0);
            went.append(&mut waiting);
        } else if has_first {
            went.push(piece.offset_bytes);
        } else {
            waiting.push(piece.offset_bytes);
        }
        let all: BTreeSet<u32> = seen.iter().flat_map(bytes).collect();
        let end = seen.iter().find(|piece| !piece.more).and_then(|last| bytes(last).last().copied());
        if has_first && end.is_some_and(|end| all.len() == end as usize + 1) {
            (seen, has_first) = (Vec::new(), false);
        }
    }
    went
}

/// Cuts of a datagram into pieces of 8 to 80 bytes, the last of any length.
fn cuts() -> impl Strategy<Value = Vec<Piece>> {
    (proptest::collection::vec(1_u16..=10, 1..12), 1_u16..80).prop_map(|(units, last)| {
        let mut pieces = Vec::new();
        let mut at = 0;
        for unit in units {
            pieces.push(piece(at, unit * 8, true));
            at += unit * 8;
        }
        pieces.push(piece(at, last, false));
        pieces
    })
}

proptest! {
    /// In any order, each piece goes on once; repetitions that come before the datagram is whole change nothing.
    #[test]
    fn every_byte_of_a_datagram_goes_on_once(
        (pieces, order, repeats) in cuts().prop_flat_map(|pieces| {
            let count = pieces.len();
            let order = Just((0..count).collect::<Vec<_>>()).prop_shuffle();
            (Just(pieces), order, proptest::collection::vec((0..count, 0..count), 0..6))
        }),
    ) {
        let mut caller = Caller::default();
        for (turn, place) in order.iter().enumerate() {
            for (_, again) in repeats.iter().filter(|(after, again)| *after == turn && *again < turn) {
                caller.give(key(1, 7), pieces[order[*again]], at(0));
            }
            caller.give(key(1, 7), pieces[*place], at(0));
        }
        let mut went: Vec<u16> = caller.went.iter().map(|(_, start)| *start).collect();
        prop_assert_eq!(went[0], 0);
        went.sort_unstable();
        let starts: Vec<u16> = pieces.iter().map(|piece| piece.offset_bytes).collect();
        prop_assert_eq!(went, starts);
        prop_assert_eq!(caller.fragments.datagrams(), 0);
    }

    /// Any pieces, in any order: what goes on is what the model lets go on.
    #[test]
    fn any_pieces_fare_as_in_the_model(
        given in proptest::collection::vec((0_u16..8, 1_u16..4, 0_u8..4), 0..16),
    ) {
        let given: Vec<Piece> = given
            .into_iter()
            .map(|(offset, units, kind)| piece(offset * 8, units * 8 - u16::from(kind == 0), kind != 0))
            .filter(|piece| piece.offset_bytes != 0 || piece.more)
            .collect();
        let mut caller = Caller::default();
        given.iter().for_each(|piece| caller.give(key(1, 7), *piece, at(0)));
        let went: Vec<u16> = caller.went.iter().map(|(_, start)| *start).collect();
        prop_assert_eq!(went, slow_model(&given));
        assert_consistent(&caller.fragments);
    }

    /// Many datagrams, sources, answers and times: sums and lists agree, bounds hold, and everything ends.
    #[test]
    fn nothing_is_lost_or_kept(
        steps in proptest::collection::vec((0_u32..40, 0_u32..60, 0_u16..6, 0_u8..6, 0_u64..300), 0..600),
    ) {
        let mut fragments = Fragments::default();
        let (mut now, mut held, mut gone) = (0, 0, 0);
        for (source, identification, offset, answer, pause) in steps {
            now += pause;
            let (key, piece) = (key(source, identification), piece(offset * 5000 / 8 * 8, 4992, offset < 5));
            match fragments.look(key, piece, at(now)) {
                Follow::First if answer == 0 => fragments.refuse(&key, DropReason::NoServer),
                Follow::First if answer < 5 => fragments.settle(&key, tuple_of(&key)),
                Follow::Wait => {
                    held += usize::from(fragments.hold(&key, &[0; 5012], interface()).is_ok());
                }
                Follow::First | Follow::Known(_) | Follow::Drop(_) => {}
            }
            if answer != 1 {
                gone += fragments.handle_timeout(at(now));
            }
            while fragments.poll_released().is_some() {
                gone += 1;
            }
            while let Some((_, pieces)) = fragments.poll_given_up() {
                gone += usize::try_from(pieces).unwrap();
            }
            prop_assert_eq!(held, gone + fragments.waiting());
            assert_bounds(&fragments);
            assert_consistent(&fragments);
        }
        gone += fragments.handle_timeout(fragments.next_timeout().unwrap_or_default().after(LIFETIME * 9));
        prop_assert_eq!((held, fragments.datagrams(), fragments.waiting_bytes()), (gone, 0, 0));
        prop_assert_eq!(fragments.next_timeout(), None);
    }
}
