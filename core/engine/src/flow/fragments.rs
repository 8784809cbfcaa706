//! Virtual reassembly: lets the later fragments of a datagram follow the decision made for its first one, whatever
//! the order of arrival. It never joins a datagram and never changes a byte.
//!
//! ```text
//! fragment -- look --> First:   the caller reads the ports, decides, then settles or refuses
//!                      Known:   goes the way of the first one
//!                      Wait:    held until the first one has come -- settle --> poll_released
//!                      Drop:    overlap, tiny, too many, refused
//! ```
//!
//! # Under a flood
//! Memory is fixed: [`DATAGRAMS_MAX`] datagrams of [`PIECES_MAX`] pieces, and [`HELD_BYTES_MAX`] bytes that wait.
//! When it is full, the datagram gives way that has waited the longest for its next piece, and before that the
//! longest waiting one of the same source, once that source has [`SOURCE_DATAGRAMS_MAX`] (of IPv6, a source is a
//! /64). Refusing new datagrams instead would let whoever fills the memory once keep everybody out until timers
//! run off; what gives way here is what is least likely to be finished. A host sends the fragments of a datagram
//! back to back, so at half of a link a flood of the smallest packets puts about 18 of its own between two honest
//! fragments of 1,500 bytes, and a datagram would give way only after 1,024. What is lost under such a flood is
//! honest datagrams whose fragments were torn apart by more than that many packets.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr};

use crate::time::{Duration, Instant};
use crate::verdict::{DropReason, InterfaceId};
use crate::wire::{Address, FiveTuple, Protocol};

/// The most datagrams under way. A datagram whose pieces come in order is here for as long as its bytes take on the
/// link, so this is far more than a link of 100 Gbit/s needs; what fills it is loss and attack.
pub const DATAGRAMS_MAX: usize = 1024;

/// The most datagrams under way of one source: a sixteenth, so that one host can not take the place of all.
pub const SOURCE_DATAGRAMS_MAX: usize = DATAGRAMS_MAX / 16;

/// The most pieces of one datagram: 64 KiB at an MTU of 576 bytes are 119.
pub const PIECES_MAX: usize = 128;

/// The most bytes that wait for a first fragment, in all datagrams together: 700 fragments of 1,500 bytes.
pub const HELD_BYTES_MAX: usize = 1 << 20;

/// The most bytes that wait in datagrams of one source: an eighth, and more than one whole datagram.
pub const SOURCE_HELD_BYTES_MAX: usize = HELD_BYTES_MAX / 8;

/// The most bytes that wait in one datagram: 65,535, and the longest IPv4 header for each of [`PIECES_MAX`] pieces.
pub const DATAGRAM_HELD_BYTES_MAX: usize = 72 << 10;

/// How long a datagram waits for its next piece. RFC 6146 s.3.4 asks for two seconds at least. The 60 s of RFC 8200
/// are for a receiver that must have all pieces; here only the spread of their way counts, and a shorter time
/// holds less under a flood and mixes fewer datagrams when identifications come around (RFC 4963).
pub const LIFETIME: Duration = Duration::from_secs(2);

/// The most bytes of a datagram behind its IP header.
const DATAGRAM_BYTES_MAX: u32 = 65_535;
/// The fragment offset that only an attack on filters uses with TCP (RFC 1858 s.3.2.2): one unit.
const TINY_OFFSET_BYTES: u16 = 8;
/// A first fragment of TCP is at least this long (RFC 3128 s.3): ports, numbers and flags are in it.
const TCP_FIRST_BYTES: u16 = 16;
/// A first fragment of any other protocol is at least this long: the headers of UDP and ICMP.
const OTHER_FIRST_BYTES: u16 = 8;
const NIL: u32 = u32::MAX;

/// What the fragments of one datagram have in common (RFC 791, RFC 8200 s.4.5). Each direction has its own, since
/// source and destination change places.
///
/// The interface is not part of it: routers send first and later fragments over different links when they spread
/// flows by ports that only the first one has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FragmentKey {
    /// Who sent it. The first field: datagrams of one source lie side by side.
    pub source: Address,
    /// To whom.
    pub destination: Address,
    /// The protocol of IPv4, or the next header of IPv6's fragment header.
    pub protocol: Protocol,
    /// The identification: 16 bits of IPv4, 32 of IPv6.
    pub identification: u32,
}

/// Which part of its datagram a fragment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins, in bytes behind the IP header (of IPv6: behind the fragment header).
    pub offset_bytes: u16,
    /// Its bytes, without headers.
    pub length: u16,
    /// Whether others follow it.
    pub more: bool,
}

/// What to do with a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// The first of its datagram: the caller reads its ports, decides, and calls [`Fragments::settle`] or
    /// [`Fragments::refuse`].
    First,
    /// The first has been decided on: this one is treated as a packet of the same tuple.
    Known(FiveTuple),
    /// The first has not come or is not decided on: the caller gives the bytes to [`Fragments::hold`].
    Wait,
    /// It goes nowhere.
    Drop(DropReason),
}

/// A fragment that waited and may go on now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Where it came in.
    pub interface: InterfaceId,
    /// The whole IP packet.
    pub bytes: Vec<u8>,
    /// The tuple of its datagram.
    pub tuple: FiveTuple,
}

/// How far the decision on a datagram has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The first piece has not come.
    Waiting,
    /// The caller has the first piece and decides.
    Asked,
    /// The first piece went on.
    Settled(FiveTuple),
    /// All pieces from now on are dropped.
    Refused(DropReason),
}

/// What has come of a datagram so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Passed {
    pub(crate) key: FragmentKey,
    pub(crate) phase: Phase,
    /// First byte and first byte behind it of each piece, in order, without overlap.
    pub(crate) pieces: Vec<(u16, u16)>,
    /// The length of the datagram, once its last piece has come.
    pub(crate) end: Option<u16>,
    /// What waits for the first piece, in order of arrival.
    pub(crate) held: Vec<(InterfaceId, Vec<u8>)>,
    /// When the last new piece came.
    pub(crate) touched: Instant,
}

#[derive(Clone, Debug)]
struct Datagram {
    key: FragmentKey,
    phase: Phase,
    /// First byte and first byte behind it of each piece, in order, without overlap.
    pieces: Vec<(u16, u16)>,
    /// Bytes in `pieces`.
    seen_bytes: u32,
    /// The length of the datagram, once its last piece has come.
    end: Option<u16>,
    /// What waits for the first piece, in order of arrival.
    held: Vec<(InterfaceId, Vec<u8>)>,
    held_bytes: usize,
    /// When the last new piece came.
    touched: Instant,
    list: usize,
    previous: u32,
    next: u32,
}

/// Datagrams in the order of their last new piece.
#[derive(Clone, Copy, Debug)]
struct List {
    oldest: u32,
    newest: u32,
}

/// The list of datagrams that hold no bytes.
const LIGHT: usize = 0;
/// The list of datagrams that hold bytes.
const HEAVY: usize = 1;

/// The datagrams under way.
#[derive(Clone, Debug)]
pub struct Fragments {
    /// Where the datagram of a key lies in `datagrams`. A sorted map: nobody can aim collisions at it.
    places: BTreeMap<FragmentKey, u32>,
    /// Grows to the bound and keeps its memory; places that are free are in `free`.
    datagrams: Vec<Datagram>,
    free: Vec<u32>,
    lists: [List; 2],
    released: VecDeque<Held>,
    /// Bytes that wait or are released and not yet polled.
    held_bytes: usize,
    held_pieces: usize,
    given_up: Vec<(DropReason, u64)>,
}

impl Default for Fragments {
    /// Nothing under way.
    fn default() -> Self {
        Self {
            places: BTreeMap::new(),
            datagrams: Vec::new(),
            free: Vec::new(),
            lists: [List { oldest: NIL, newest: NIL }; 2],
            released: VecDeque::new(),
            held_bytes: 0,
            held_pieces: 0,
            given_up: Vec::new(),
        }
    }
}

impl Fragments {
    /// Says what to do with the fragment `piece` of the datagram `key`, and remembers it.
    ///
    /// A fragment that is all of its datagram (offset 0 and no more) is a whole packet (RFC 6946); the caller does not
    /// ask about it. The answer to such a question is [`Follow::First`], and nothing is remembered.
    pub fn look(&mut self, key: FragmentKey, piece: Piece, now: Instant) -> Follow {
        if let Err(reason) = check(key.protocol, piece) {
            return Follow::Drop(reason);
        }
        if piece.offset_bytes == 0 && !piece.more {
            return Follow::First;
        }
        let known = self.places.get(&key).copied();
        // A datagram that is due is over, even if the timer has not been asked yet.
        let known = match known {
            Some(place) if self.is_due(place, now) => {
                self.give_up(place, DropReason::FragmentTimeout);
                None
            }
            known => known,
        };
        let place = known.unwrap_or_else(|| self.begin(key, now));
        let Some(datagram) = self.datagrams.get_mut(place as usize) else {
            return Follow::Drop(DropReason::FragmentsFull);
        };
        if datagram.phase == Phase::Refused(DropReason::FragmentOverlap) {
            return Follow::Drop(DropReason::FragmentOverlap);
        }
        match datagram.add(piece) {
            Added::New => {}
            Added::Again => return Follow::Drop(DropReason::FragmentOverlap),
            Added::Overlap => return self.poison(place, DropReason::FragmentOverlap),
            Added::TooMany => return self.poison(place, DropReason::FragmentsFull),
        }
        let is_whole = datagram.is_whole();
        let is_live = !matches!(datagram.phase, Phase::Refused(_));
        if is_live {
            // One that is refused keeps its age, so that it ends however many of its pieces still come.
            datagram.touched = now;
        }
        let follow = match datagram.phase {
            Phase::Waiting if piece.offset_bytes == 0 => {
                datagram.phase = Phase::Asked;
                Follow::First
            }
            Phase::Waiting | Phase::Asked => Follow::Wait,
            Phase::Settled(tuple) => Follow::Known(tuple),
            Phase::Refused(reason) => Follow::Drop(reason),
        };
        if is_whole && matches!(follow, Follow::Known(_) | Follow::Drop(_)) {
            self.remove(place);
        } else if is_live {
            self.relist(place);
        }
        follow
    }

    /// Keeps a copy of `bytes`, the whole IP packet of a fragment for which the answer was [`Follow::Wait`].
    ///
    /// # Errors
    /// `FragmentsFull` when there is no room for it, or its datagram gave way; the caller counts it.
    pub fn hold(
        &mut self,
        key: &FragmentKey,
        bytes: &[u8],
        interface: InterfaceId,
    ) -> Result<(), DropReason> {
        let Some(place) = self.places.get(key).copied() else { return Err(DropReason::FragmentsFull) };
        let Some(datagram) = self.datagrams.get(place as usize) else {
            return Err(DropReason::FragmentsFull);
        };
        if let Phase::Refused(reason) = datagram.phase {
            return Err(reason);
        }
        if datagram.held_bytes + bytes.len() > DATAGRAM_HELD_BYTES_MAX || !self.make_room(place, bytes.len())
        {
            // With a hole that nobody will fill, the others need not wait either.
            self.poison(place, DropReason::FragmentsFull);
            return Err(DropReason::FragmentsFull);
        }
        let Some(datagram) = self.datagrams.get_mut(place as usize) else {
            return Err(DropReason::FragmentsFull);
        };
        self.held_bytes += bytes.len();
        self.held_pieces += 1;
        if let Phase::Settled(tuple) = datagram.phase {
            // Decided between the question and now.
            self.released.push_back(Held { interface, bytes: bytes.to_vec(), tuple });
            return Ok(());
        }
        datagram.held_bytes += bytes.len();
        datagram.held.push((interface, bytes.to_vec()));
        self.relist(place);
        Ok(())
    }

    /// The first fragment of `key` went on as a packet of `tuple`: those that waited may go on too.
    pub fn settle(&mut self, key: &FragmentKey, tuple: FiveTuple) {
        let Some(place) = self.places.get(key).copied() else { return };
        let Some(datagram) = self.datagrams.get_mut(place as usize) else { return };
        if datagram.phase != Phase::Asked {
            return;
        }
        datagram.phase = Phase::Settled(tuple);
        datagram.held_bytes = 0;
        for (interface, bytes) in datagram.held.drain(..) {
            self.released.push_back(Held { interface, bytes, tuple });
        }
        if datagram.is_whole() {
            self.remove(place);
        } else {
            self.relist(place);
        }
    }

    /// The first fragment of `key` was dropped for `reason`: those that waited are given up, and those to come are
    /// dropped for the same reason.
    pub fn refuse(&mut self, key: &FragmentKey, reason: DropReason) {
        let Some(place) = self.places.get(key).copied() else { return };
        let Some(datagram) = self.datagrams.get(place as usize) else { return };
        if datagram.phase != Phase::Asked {
            return;
        }
        if datagram.is_whole() {
            self.give_up(place, reason);
        } else {
            self.poison(place, reason);
        }
    }

    /// The first fragment of `key` went on and was dropped later for `reason`: those to come are dropped for the same.
    pub fn revoke(&mut self, key: &FragmentKey, reason: DropReason) {
        let Some(place) = self.places.get(key).copied() else { return };
        let is_settled = |datagram: &Datagram| matches!(datagram.phase, Phase::Settled(_));
        if self.datagrams.get(place as usize).is_some_and(is_settled) {
            self.poison(place, reason);
        }
    }

    /// Gives up the datagrams whose next piece has not come in time. Returns how many pieces waited in them, to be
    /// counted as `FragmentTimeout`.
    pub fn handle_timeout(&mut self, now: Instant) -> usize {
        let before = self.held_pieces;
        for list in [LIGHT, HEAVY] {
            while let Some(place) = self.oldest(list).filter(|place| self.is_due(*place, now)) {
                self.drop_held(place);
                self.remove(place);
            }
        }
        before - self.held_pieces
    }

    /// Whether [`Fragments::poll_released`] or [`Fragments::poll_given_up`] has something.
    #[must_use]
    #[inline]
    pub fn has_news(&self) -> bool {
        !self.released.is_empty() || !self.given_up.is_empty()
    }

    /// The next fragment that may go on, in order of arrival.
    pub fn poll_released(&mut self) -> Option<Held> {
        let held = self.released.pop_front()?;
        self.held_bytes -= held.bytes.len();
        self.held_pieces -= 1;
        Some(held)
    }

    /// How many pieces that waited were given up since the last call, and why; without those that
    /// [`Fragments::handle_timeout`] returned. The caller asks until there is nothing.
    pub fn poll_given_up(&mut self) -> Option<(DropReason, u64)> {
        self.given_up.pop()
    }

    /// When to call [`Fragments::handle_timeout`] next.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let oldest = [LIGHT, HEAVY].into_iter().filter_map(|list| self.oldest(list));
        let touched = oldest.filter_map(|place| self.datagrams.get(place as usize));
        touched.map(|datagram| datagram.touched.after(LIFETIME)).min()
    }

    /// How many fragments wait.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.held_pieces
    }

    /// How many bytes wait.
    #[must_use]
    pub const fn waiting_bytes(&self) -> usize {
        self.held_bytes
    }

    /// How many datagrams are under way.
    #[must_use]
    pub fn datagrams(&self) -> usize {
        self.places.len()
    }

    /// What has come of the datagram `key`.
    pub(crate) fn passed(&self, key: &FragmentKey) -> Option<Passed> {
        let datagram = self.datagrams.get(*self.places.get(key)? as usize)?;
        let Datagram { phase, end, touched, .. } = *datagram;
        let (pieces, held) = (datagram.pieces.clone(), datagram.held.clone());
        Some(Passed { key: *key, phase, pieces, end, held, touched })
    }

    /// Takes in what had come of a datagram elsewhere.
    pub(crate) fn recall(&mut self, passed: Passed) {
        let Passed { key, phase, pieces, end, held, touched } = passed;
        let place = self.begin(key, touched);
        let Some(datagram) = self.datagrams.get_mut(place as usize) else { return };
        datagram.seen_bytes = pieces.iter().map(|(start, end)| u32::from(end.saturating_sub(*start))).sum();
        datagram.held_bytes = held.iter().map(|(_, bytes)| bytes.len()).sum();
        self.held_bytes += datagram.held_bytes;
        self.held_pieces += held.len();
        (datagram.phase, datagram.pieces, datagram.end, datagram.held) = (phase, pieces, end, held);
        self.relist(place);
    }

    /// A place for a new datagram. Others give way where a bound is reached.
    fn begin(&mut self, key: FragmentKey, now: Instant) -> u32 {
        let (count, oldest, _) = self.of_source(key.source, NIL);
        if count >= SOURCE_DATAGRAMS_MAX {
            self.give_up(oldest, DropReason::FragmentsFull);
        } else if self.places.len() >= DATAGRAMS_MAX {
            let oldest = [LIGHT, HEAVY].into_iter().filter_map(|list| self.oldest(list));
            let touched = |place: &u32| self.datagrams.get(*place as usize).map(|datagram| datagram.touched);
            if let Some(place) = oldest.min_by_key(touched) {
                self.give_up(place, DropReason::FragmentsFull);
            }
        }
        let place = self.free.pop().unwrap_or_else(|| {
            self.datagrams.push(Datagram::empty(key));
            // Below the bound on datagrams.
            u32::try_from(self.datagrams.len() - 1).unwrap_or(NIL)
        });
        if let Some(datagram) = self.datagrams.get_mut(place as usize) {
            datagram.begin(key, now);
        }
        self.places.insert(key, place);
        self.enlist(place, LIGHT);
        place
    }

    /// Makes room for `bytes` that the datagram at `place` is about to hold. Returns whether there is room.
    fn make_room(&mut self, place: u32, bytes: usize) -> bool {
        let Some(source) = self.datagrams.get(place as usize).map(|datagram| datagram.key.source) else {
            return false;
        };
        // Each turn frees a datagram, so neither loop has more turns than there are datagrams.
        loop {
            let (_, oldest, held) = self.of_source(source, place);
            if held + bytes <= SOURCE_HELD_BYTES_MAX {
                break;
            }
            if oldest == NIL {
                return false;
            }
            self.give_up(oldest, DropReason::FragmentsFull);
        }
        while self.held_bytes + bytes > HELD_BYTES_MAX {
            let Some(oldest) = self.oldest(HEAVY) else { return false };
            let next = self.datagrams.get(oldest as usize).map_or(NIL, |datagram| datagram.next);
            let victim = if oldest == place { next } else { oldest };
            if victim == NIL {
                return false;
            }
            self.give_up(victim, DropReason::FragmentsFull);
        }
        true
    }

    /// How many datagrams a source has, which of them is the oldest (with `spared`: of those that hold bytes, and not
    /// that one; else of all), and how many bytes they hold together.
    fn of_source(&self, source: Address, spared: u32) -> (usize, u32, usize) {
        let (low, high) = neighbours(source);
        let least = FragmentKey {
            source: low,
            destination: Address::UNSPECIFIED,
            protocol: Protocol(0),
            identification: 0,
        };
        let (mut count, mut oldest, mut oldest_touched, mut held) = (0, NIL, Instant::NEVER, 0);
        for (_, place) in self.places.range(least..).take_while(|(key, _)| key.source <= high) {
            let Some(datagram) = self.datagrams.get(*place as usize) else { continue };
            count += 1;
            held += datagram.held_bytes;
            let may_go = spared == NIL || (*place != spared && datagram.held_bytes > 0);
            if may_go && (oldest == NIL || datagram.touched < oldest_touched) {
                (oldest, oldest_touched) = (*place, datagram.touched);
            }
        }
        (count, oldest, held)
    }

    /// Drops all that comes of a datagram from now on, and what waits in it.
    fn poison(&mut self, place: u32, reason: DropReason) -> Follow {
        let pieces = self.drop_held(place);
        self.note_given_up(reason, pieces);
        let Some(datagram) = self.datagrams.get_mut(place as usize) else { return Follow::Drop(reason) };
        datagram.phase = Phase::Refused(reason);
        if datagram.list == HEAVY {
            self.relist(place);
        }
        Follow::Drop(reason)
    }

    /// Forgets a datagram before its time.
    fn give_up(&mut self, place: u32, reason: DropReason) {
        let pieces = self.drop_held(place);
        self.note_given_up(reason, pieces);
        self.remove(place);
    }

    fn note_given_up(&mut self, reason: DropReason, pieces: usize) {
        if pieces == 0 {
            return;
        }
        match self.given_up.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += pieces as u64,
            None => self.given_up.push((reason, pieces as u64)),
        }
    }

    /// Lets go of what waits in a datagram and says how many pieces that were.
    fn drop_held(&mut self, place: u32) -> usize {
        let Some(datagram) = self.datagrams.get_mut(place as usize) else { return 0 };
        let pieces = datagram.held.len();
        self.held_pieces -= pieces;
        self.held_bytes -= core::mem::take(&mut datagram.held_bytes);
        datagram.held.clear();
        pieces
    }

    fn remove(&mut self, place: u32) {
        self.unlist(place);
        if let Some(datagram) = self.datagrams.get(place as usize)
            && self.places.remove(&datagram.key).is_some()
        {
            self.free.push(place);
        }
    }

    fn is_due(&self, place: u32, now: Instant) -> bool {
        let datagram = self.datagrams.get(place as usize);
        datagram.is_some_and(|datagram| datagram.touched.after(LIFETIME) <= now)
    }

    fn oldest(&self, list: usize) -> Option<u32> {
        self.lists.get(list).map(|list| list.oldest).filter(|place| *place != NIL)
    }

    /// Puts a datagram where its age and what it holds want it.
    fn relist(&mut self, place: u32) {
        let Some(datagram) = self.datagrams.get(place as usize) else { return };
        let list = if datagram.held_bytes > 0 { HEAVY } else { LIGHT };
        self.unlist(place);
        self.enlist(place, list);
    }

    /// Enters a datagram into `list` behind all that were touched no later. Nearly always that is the end.
    fn enlist(&mut self, place: u32, list: usize) {
        let Some(touched) = self.datagrams.get(place as usize).map(|datagram| datagram.touched) else {
            return;
        };
        let mut before = self.lists.get(list).map_or(NIL, |list| list.newest);
        while let Some(datagram) = self.datagrams.get(before as usize) {
            if datagram.touched <= touched {
                break;
            }
            before = datagram.previous;
        }
        let Some(ends) = self.lists.get_mut(list) else { return };
        let next = match self.datagrams.get_mut(before as usize) {
            Some(datagram) => core::mem::replace(&mut datagram.next, place),
            None => core::mem::replace(&mut ends.oldest, place),
        };
        match self.datagrams.get_mut(next as usize) {
            Some(datagram) => datagram.previous = place,
            None => ends.newest = place,
        }
        if let Some(datagram) = self.datagrams.get_mut(place as usize) {
            (datagram.previous, datagram.next, datagram.list) = (before, next, list);
        }
    }

    fn unlist(&mut self, place: u32) {
        let Some(datagram) = self.datagrams.get(place as usize) else { return };
        let (previous, next) = (datagram.previous, datagram.next);
        let Some(ends) = self.lists.get_mut(datagram.list) else { return };
        match self.datagrams.get_mut(previous as usize) {
            Some(datagram) => datagram.next = next,
            None => ends.oldest = next,
        }
        match self.datagrams.get_mut(next as usize) {
            Some(datagram) => datagram.previous = previous,
            None => ends.newest = previous,
        }
    }
}

/// What became of a piece that was shown to its datagram.
enum Added {
    New,
    /// The very same piece was there.
    Again,
    /// It contradicts the others.
    Overlap,
    TooMany,
}

impl Datagram {
    const fn empty(key: FragmentKey) -> Self {
        Self {
            key,
            phase: Phase::Waiting,
            pieces: Vec::new(),
            seen_bytes: 0,
            end: None,
            held: Vec::new(),
            held_bytes: 0,
            touched: Instant::ZERO,
            list: LIGHT,
            previous: NIL,
            next: NIL,
        }
    }

    /// Makes this a new datagram; the memory of the one before serves again.
    fn begin(&mut self, key: FragmentKey, now: Instant) {
        self.pieces.clear();
        self.held.clear();
        let (pieces, held) = (core::mem::take(&mut self.pieces), core::mem::take(&mut self.held));
        *self = Self { pieces, held, touched: now, ..Self::empty(key) };
    }

    /// Notes a checked piece.
    fn add(&mut self, piece: Piece) -> Added {
        let start = piece.offset_bytes;
        let end = start.saturating_add(piece.length);
        let at = self.pieces.partition_point(|(other, _)| *other < start);
        if let Some(known) = self.pieces.get(at)
            && *known == (start, end)
            && (self.end == Some(end)) != piece.more
        {
            return Added::Again;
        }
        let is_behind = at.checked_sub(1).and_then(|before| self.pieces.get(before));
        let is_overlap = is_behind.is_some_and(|(_, before)| *before > start)
            || self.pieces.get(at).is_some_and(|(after, _)| *after < end);
        let is_beyond = self.end.is_some_and(|last| end > last || !piece.more);
        let is_short = !piece.more && at < self.pieces.len();
        if is_overlap || is_beyond || is_short {
            return Added::Overlap;
        }
        if self.pieces.len() >= PIECES_MAX {
            return Added::TooMany;
        }
        self.pieces.insert(at, (start, end));
        self.seen_bytes += u32::from(piece.length);
        if !piece.more {
            self.end = Some(end);
        }
        Added::New
    }

    /// Whether every byte has been seen.
    fn is_whole(&self) -> bool {
        self.end.is_some_and(|end| u32::from(end) == self.seen_bytes)
    }
}

/// What a fragment must not be, whatever came before it.
fn check(protocol: Protocol, piece: Piece) -> Result<(), DropReason> {
    let Piece { offset_bytes, length, more } = piece;
    let first_bytes = if protocol == Protocol::TCP { TCP_FIRST_BYTES } else { OTHER_FIRST_BYTES };
    let is_tiny = (offset_bytes == 0 && more && length < first_bytes)
        || (protocol == Protocol::TCP && offset_bytes == TINY_OFFSET_BYTES);
    if is_tiny {
        return Err(DropReason::FragmentTiny);
    }
    let is_odd = offset_bytes % 8 != 0 || (more && length % 8 != 0) || length == 0;
    if is_odd || u32::from(offset_bytes) + u32::from(length) > DATAGRAM_BYTES_MAX {
        return Err(DropReason::BadHeader);
    }
    Ok(())
}

/// The first and the last address that count as the same source: of IPv4 the address, of IPv6 its /64, all of which
/// one host can have.
fn neighbours(source: Address) -> (Address, Address) {
    if source.is_v4() {
        return (source, source);
    }
    let [high, _] = source.halves();
    let network = u128::from(high) << 64;
    let address = |bits| Address::from(IpAddr::V6(Ipv6Addr::from_bits(bits)));
    (address(network), address(network | u128::from(u64::MAX)))
}

#[cfg(test)]
mod tests;
