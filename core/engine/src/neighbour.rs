//! The Ethernet side: link addresses of next hops, the questions that find them, and packets that wait for an answer.
//!
//! In come addresses of next hops, and what stations say of themselves by ARP and neighbour discovery; out go link
//! addresses, questions to be asked and packets that may leave. It learns only from stations that talk to us or were
//! asked for, never from data, and it neither makes nor reads messages. On TUN devices it has nothing to do.
//!
//! A neighbour is *incomplete* until its first answer. Then it is *reachable*, and *stale* when the answer is old: it is
//! used on, and asked for again. One that leaves three questions unanswered has *failed*: packets to it are dropped
//! until it is heard of.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use alloc::vec::Vec;

use slab::Slab;

use crate::time::{Duration, Instant};
use crate::verdict::InterfaceId;
use crate::wire::Address;
use crate::wire::ethernet::MacAddress;

/// The most neighbours: next hops and real servers on the links, with room to spare. Further ones are not
/// learned, so a station that invents senders can not push out those that are in use.
const NEIGHBOURS_MAX: usize = 4096;

/// The most neighbours that have not answered: half of all. Packets to invented addresses of a link fill no more,
/// and stations that talk to us find room.
const UNANSWERED_MAX: usize = 2048;

/// How long an answer is believed, as a Linux host's base reachable time.
const FRESH: Duration = Duration::from_secs(30);

/// How long to wait before the same question is asked again (RFC 1122 s.2.3.2.1: at most one a second; RFC 4861 s.10:
/// one second).
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The questions that a neighbour may leave unanswered (RFC 4861 s.10).
const QUESTIONS_MAX: u8 = 3;

/// How long a neighbour is kept that nobody sends to.
const FORGET: Duration = Duration::from_secs(600);

/// How long a neighbour is kept that has failed and that nobody sends to.
const FORGET_FAILED: Duration = Duration::from_secs(10);

/// The least time between two looks at all neighbours: what is due meanwhile waits. A look takes tens of microseconds.
const ROUND: Duration = Duration::from_millis(100);

/// The most questions of one look, so that they leave room for other packets that are born here. At ten looks a second
/// all neighbours can be asked within [`FRESH`].
const ROUND_QUESTIONS_MAX: usize = 32;

/// The packets that wait for one neighbour (RFC 1122 s.2.3.2.2: at least one, the latest): the first of a few clients.
const HELD_EACH_MAX: usize = 3;

/// The packets that wait for all neighbours: those of 85 at once.
const HELD_MAX: usize = 256;

/// The bytes of packets that wait for all neighbours: room for [`HELD_MAX`] of 1500 bytes, and for a few large ones.
const HELD_BYTES_MAX: usize = 512 * 1024;

/// How long a packet waits: as long as its neighbour is asked.
const HELD_FOR: Duration = Duration::from_secs(3);

/// Spots in which it is noted where neighbours lie, a power of two: one for each, on average.
const HINTS: usize = NEIGHBOURS_MAX;

type Key = (InterfaceId, Address);

/// What is known about a next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// Its link address, if it has answered and not failed since.
    pub mac: Option<MacAddress>,
    /// Whether to ask for it now.
    pub must_ask: bool,
}

/// Who has `address` on the link of `interface`?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Where to ask.
    pub interface: InterfaceId,
    /// What to ask for.
    pub address: Address,
}

/// A packet whose wait is over: by which interface and to which station it may leave, and the IP packet as it was held.
pub type Released = (InterfaceId, MacAddress, Vec<u8>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Incomplete,
    /// Reachable while `confirmed` is fresh, stale afterwards and without it.
    Known {
        mac: MacAddress,
        confirmed: Option<Instant>,
    },
    Failed,
}

/// The questions since the last answer.
#[derive(Clone, Copy, Debug)]
struct Asked {
    last: Instant,
    count: u8,
}

#[derive(Clone, Debug)]
struct Held {
    packet: Vec<u8>,
    since: Instant,
}

#[derive(Clone, Debug)]
struct Neighbour {
    key: Key,
    state: State,
    asked: Option<Asked>,
    used: Instant,
    /// Packets that wait, the oldest first; only while incomplete.
    held: VecDeque<Held>,
}

/// How much waits, and how much waited in vain.
#[derive(Clone, Debug, Default)]
struct Load {
    packets: usize,
    bytes: usize,
    expired: u64,
}

/// Link addresses by interface and address.
///
/// Every packet asks, and mostly for whom others have just asked. So a neighbour has a place that it keeps, and a table of
/// hints says where the last one with about this key was found: whoever lies there is looked at before it is believed.
#[derive(Clone, Debug)]
pub struct Neighbours {
    /// Their places, in the order in which they are asked.
    known: BTreeMap<Key, u16>,
    all: Slab<Neighbour>,
    /// None before the first neighbour.
    hints: Vec<u16>,
    /// How many of them have no link address.
    unanswered: usize,
    released: VecDeque<Released>,
    load: Load,
    /// Not later than the first time at which a neighbour has something due.
    due: Instant,
    /// When all neighbours were looked at last.
    looked: Option<Instant>,
}

impl Default for Neighbours {
    /// Nobody is known.
    fn default() -> Self {
        Self {
            known: BTreeMap::new(),
            all: Slab::new(),
            hints: Vec::new(),
            unanswered: 0,
            released: VecDeque::new(),
            load: Load::default(),
            due: Instant::NEVER,
            looked: None,
        }
    }
}

impl Neighbours {
    /// Looks `address` up, and notes the question where one has to be asked: the link address is unknown, or old.
    #[inline]
    pub fn resolve(&mut self, interface: InterfaceId, address: Address, now: Instant) -> Resolution {
        let key = (interface, address);
        let Some(neighbour) = self.find(key) else { return self.meet(key, now) };
        neighbour.used = now;
        let must_ask = neighbour.must_ask(now);
        if must_ask {
            neighbour.ask(now);
        }
        let (mac, due) = (neighbour.mac(), if must_ask { neighbour.due() } else { Instant::NEVER });
        self.due = self.due.min(due);
        Resolution { mac, must_ask }
    }

    /// The link address of a neighbour, as far as it is known; changes nothing.
    #[must_use]
    pub fn mac(&self, interface: InterfaceId, address: Address) -> Option<MacAddress> {
        let place = self.known.get(&(interface, address))?;
        self.all.get(usize::from(*place)).and_then(Neighbour::mac)
    }

    /// Keeps a copy of an IP `packet` until its next hop answers, where it may still. Returns whether it did; the packet
    /// then comes out of [`Neighbours::poll_released`] or counts in [`Neighbours::take_expired`]. A packet for which a
    /// neighbour has no more room takes the place of the oldest.
    pub fn hold(&mut self, interface: InterfaceId, next_hop: Address, packet: &[u8], now: Instant) -> bool {
        let Some(place) = self.known.get(&(interface, next_hop)) else { return false };
        let Some(neighbour) = self.all.get_mut(usize::from(*place)) else { return false };
        if neighbour.state != State::Incomplete {
            return false;
        }
        let oldest = neighbour.held.front().filter(|_| neighbour.held.len() >= HELD_EACH_MAX);
        let (fewer, less) = oldest.map_or((0, 0), |held| (1, held.packet.len()));
        let packets = self.load.packets - fewer + 1;
        let bytes = self.load.bytes - less + packet.len();
        if packets > HELD_MAX || bytes > HELD_BYTES_MAX {
            return false;
        }
        if fewer == 1 {
            neighbour.give_up_oldest(&mut self.load);
        }
        self.load.packets += 1;
        self.load.bytes += packet.len();
        neighbour.held.push_back(Held { packet: packet.to_vec(), since: now });
        self.due = self.due.min(neighbour.due());
        true
    }

    /// Notes what a station said of itself. One that nobody asked for is only taken when it `talks_to_us`. A link
    /// address that changes without a question is taken too, and asked for with the next use.
    pub fn learn(
        &mut self,
        interface: InterfaceId,
        address: Address,
        mac: MacAddress,
        talks_to_us: bool,
        now: Instant,
    ) {
        // Nobody is reached at these.
        if mac.is_group() || address == Address::UNSPECIFIED || address == Address::v4([0; 4]) {
            return;
        }
        let key = (interface, address);
        let known = self.known.get(&key).and_then(|place| self.all.get_mut(usize::from(*place)));
        let Some(neighbour) = known else {
            if talks_to_us && self.known.len() < NEIGHBOURS_MAX {
                let state = State::Known { mac, confirmed: Some(now) };
                self.insert(Neighbour { key, state, asked: None, used: now, held: VecDeque::new() });
            }
            return;
        };
        let known = neighbour.mac();
        let is_certain = talks_to_us || neighbour.asked.is_some() || known == Some(mac);
        if known.is_none() {
            self.unanswered -= 1;
        }
        neighbour.state = State::Known { mac, confirmed: is_certain.then_some(now) };
        neighbour.asked = None;
        let ready = neighbour.held.drain(..).map(|held| (interface, mac, held.packet));
        self.released.extend(ready);
        self.due = self.due.min(neighbour.due());
    }

    /// The next packet whose wait is over, in the order in which the packets to its neighbour came.
    pub fn poll_released(&mut self) -> Option<Released> {
        let released = self.released.pop_front()?;
        self.load.packets -= 1;
        self.load.bytes -= released.2.len();
        Some(released)
    }

    /// How many packets wait, those included that are ready to leave.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.load.packets
    }

    /// How many neighbours there are, in all states.
    #[must_use]
    pub fn count(&self) -> usize {
        self.known.len()
    }

    /// How many packets have waited in vain since the last call.
    pub const fn take_expired(&mut self) -> u64 {
        core::mem::replace(&mut self.load.expired, 0)
    }

    /// When to call [`Neighbours::handle_timeout`] next; `None` while nobody is known.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let earliest = self.looked.map_or(Instant::ZERO, |looked| looked.after(ROUND));
        (!self.known.is_empty()).then(|| self.due.max(earliest))
    }

    /// Gives up packets and neighbours that have waited too long, forgets neighbours that nobody uses, and returns what
    /// has to be asked again: at most 32 questions, the others with the next call.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Question> {
        let mut questions = Vec::new();
        if self.next_timeout().is_none_or(|due| now < due) {
            return questions;
        }
        let Self { known, all, unanswered, load, .. } = self;
        let mut due = Instant::NEVER;
        known.retain(|&(interface, address), place| {
            let place = usize::from(*place);
            let Some(neighbour) = all.get_mut(place) else { return false };
            neighbour.give_up_old(now, load);
            if neighbour.due() <= now {
                if !neighbour.is_asking() {
                    *unanswered -= usize::from(neighbour.mac().is_none());
                    all.remove(place);
                    return false;
                }
                if neighbour.is_given_up() {
                    *unanswered += usize::from(neighbour.mac().is_some());
                    neighbour.fail(load);
                } else if questions.len() < ROUND_QUESTIONS_MAX {
                    neighbour.ask(now);
                    questions.push(Question { interface, address });
                }
            }
            due = due.min(neighbour.due());
            true
        });
        self.due = due;
        self.looked = Some(now);
        questions
    }

    /// Forgets everything, since interfaces have changed. The packets that wait count as waited in vain.
    pub fn clear(&mut self) {
        let expired = self.load.expired.saturating_add(self.load.packets as u64);
        *self = Self { load: Load { expired, ..Load::default() }, ..Self::default() };
    }

    /// Takes in a neighbour that has to be asked for, if there is room.
    #[cold]
    fn meet(&mut self, key: Key, now: Instant) -> Resolution {
        if self.known.len() >= NEIGHBOURS_MAX || self.unanswered >= UNANSWERED_MAX {
            return Resolution { mac: None, must_ask: false };
        }
        let asked = Some(Asked { last: now, count: 1 });
        self.unanswered += 1;
        self.insert(Neighbour { key, state: State::Incomplete, asked, used: now, held: VecDeque::new() });
        Resolution { mac: None, must_ask: true }
    }

    fn insert(&mut self, neighbour: Neighbour) {
        self.due = self.due.min(neighbour.due());
        // There are no more than NEIGHBOURS_MAX.
        let Ok(place) = u16::try_from(self.all.vacant_key()) else { return };
        self.known.insert(neighbour.key, place);
        self.all.insert(neighbour);
        if self.hints.is_empty() {
            self.hints = vec![0; HINTS];
        }
    }

    /// The neighbour with this key.
    #[inline]
    fn find(&mut self, key: Key) -> Option<&mut Neighbour> {
        let hint = self.hints.get_mut(spot(key))?;
        let is_meant = |neighbour: &Neighbour| neighbour.key == key;
        if !self.all.get(usize::from(*hint)).is_some_and(is_meant) {
            *hint = *self.known.get(&key)?;
        }
        self.all.get_mut(usize::from(*hint))
    }
}

/// Where the hint for a key is.
#[inline]
fn spot((interface, address): Key) -> usize {
    let [high, low] = address.halves();
    let mixed =
        (high.rotate_left(32) ^ low ^ u64::from(interface.0) << 48).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    usize::try_from(mixed >> 32).unwrap_or(0) % HINTS
}

impl Neighbour {
    const fn mac(&self) -> Option<MacAddress> {
        match self.state {
            State::Known { mac, .. } => Some(mac),
            State::Incomplete | State::Failed => None,
        }
    }

    /// Whether its use at `now` asks for a question. The last one of a series is followed by none until it has failed.
    fn must_ask(&self, now: Instant) -> bool {
        let is_fresh = match self.state {
            State::Known { confirmed, .. } => confirmed.is_some_and(|at| now.since(at) < FRESH),
            State::Incomplete | State::Failed => false,
        };
        let may_ask = self.asked.is_none_or(|asked| now.since(asked.last) >= ASK_AGAIN);
        let is_last = self.is_asking() && self.is_given_up();
        !is_fresh && may_ask && !is_last
    }

    fn ask(&mut self, now: Instant) {
        let count = self.asked.map_or(0, |asked| asked.count);
        self.asked = Some(Asked { last: now, count: count.saturating_add(1) });
    }

    /// Whether an answer is awaited.
    fn is_asking(&self) -> bool {
        self.asked.is_some() && self.state != State::Failed
    }

    /// Whether no further question is asked of it.
    fn is_given_up(&self) -> bool {
        self.asked.is_some_and(|asked| asked.count >= QUESTIONS_MAX)
    }

    /// When it has to be asked again, given up or forgotten, or a packet that waits for it.
    fn due(&self) -> Instant {
        match (self.state, self.asked) {
            (State::Incomplete | State::Known { .. }, Some(asked)) => {
                let packet = self.held.front().map(|held| held.since.after(HELD_FOR));
                asked.last.after(ASK_AGAIN).min(packet.unwrap_or(Instant::NEVER))
            }
            (State::Incomplete | State::Known { .. }, None) => self.used.after(FORGET),
            (State::Failed, _) => self.used.after(FORGET_FAILED),
        }
    }

    fn fail(&mut self, load: &mut Load) {
        self.state = State::Failed;
        while self.give_up_oldest(load) {}
    }

    /// Gives up the packets that have waited too long.
    fn give_up_old(&mut self, now: Instant, load: &mut Load) {
        while self.held.front().is_some_and(|held| now.since(held.since) >= HELD_FOR) {
            self.give_up_oldest(load);
        }
    }

    fn give_up_oldest(&mut self, load: &mut Load) -> bool {
        let Some(held) = self.held.pop_front() else { return false };
        load.packets -= 1;
        load.bytes -= held.packet.len();
        load.expired += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);
    const OTHER: MacAddress = MacAddress([2, 0, 0, 0, 0, 10]);
    const PORT: InterfaceId = InterfaceId(0);
    const HOP: Address = Address::v4([10, 0, 0, 1]);
    const QUESTION: Question = Question { interface: PORT, address: HOP };

    fn at(milliseconds: u64) -> Instant {
        Instant::from_nanos(milliseconds * 1_000_000)
    }

    fn host(number: u32) -> Address {
        let [a, b, c, d] = number.to_be_bytes();
        Address::v6([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 1, a, b, c, d])
    }

    /// Resolves and answers: link address and whether to ask.
    fn resolve(neighbours: &mut Neighbours, milliseconds: u64) -> (Option<MacAddress>, bool) {
        let resolution = neighbours.resolve(PORT, HOP, at(milliseconds));
        (resolution.mac, resolution.must_ask)
    }

    #[test]
    fn a_question_is_asked_once_a_second_and_three_times() {
        let mut neighbours = Neighbours::default();
        assert_eq!(neighbours.next_timeout(), None);
        assert_eq!(resolve(&mut neighbours, 5000), (None, true));
        assert_eq!(resolve(&mut neighbours, 5999), (None, false));
        assert_eq!(neighbours.next_timeout(), Some(at(6000)));
        assert_eq!(neighbours.handle_timeout(at(5999)), []);
        assert_eq!(neighbours.handle_timeout(at(6000)), [QUESTION]);
        assert_eq!(resolve(&mut neighbours, 6500), (None, false));
        // A use asks too, where the timeout is late.
        assert_eq!(resolve(&mut neighbours, 7001), (None, true));
        assert_eq!(resolve(&mut neighbours, 8001), (None, false));
        assert_eq!(neighbours.handle_timeout(at(8001)), []);
        // Failed: asked once a second by use alone.
        assert_eq!(resolve(&mut neighbours, 8002), (None, true));
        assert_eq!(resolve(&mut neighbours, 9001), (None, false));
        assert_eq!(resolve(&mut neighbours, 9002), (None, true));
        neighbours.learn(PORT, HOP, MAC, false, at(9500));
        assert_eq!(resolve(&mut neighbours, 9501), (Some(MAC), false));
    }

    #[test]
    fn an_old_answer_is_used_while_it_is_asked_for_again_until_it_fails() {
        let mut neighbours = Neighbours::default();
        neighbours.learn(PORT, HOP, MAC, true, at(1000));
        assert_eq!(resolve(&mut neighbours, 30_999), (Some(MAC), false));
        assert_eq!(resolve(&mut neighbours, 31_000), (Some(MAC), true));
        assert_eq!(neighbours.handle_timeout(at(32_000)), [QUESTION]);
        assert_eq!(neighbours.handle_timeout(at(33_000)), [QUESTION]);
        assert_eq!(resolve(&mut neighbours, 33_999), (Some(MAC), false));
        assert_eq!(neighbours.handle_timeout(at(34_000)), []);
        assert_eq!(resolve(&mut neighbours, 34_000), (None, true));
        assert!(!neighbours.hold(PORT, HOP, b"late", at(34_000)));
        neighbours.learn(PORT, HOP, MAC, false, at(34_500));
        assert_eq!(neighbours.handle_timeout(at(35_000)), []);
        assert_eq!(resolve(&mut neighbours, 35_000), (Some(MAC), false));
    }

    #[test]
    fn a_neighbour_that_nobody_uses_is_neither_asked_nor_kept() {
        let mut neighbours = Neighbours::default();
        neighbours.learn(PORT, HOP, MAC, true, at(0));
        assert_eq!(resolve(&mut neighbours, 20_000), (Some(MAC), false));
        assert_eq!(neighbours.handle_timeout(at(600_000)), []);
        assert_eq!((neighbours.count(), neighbours.next_timeout()), (1, Some(at(620_000))));
        assert_eq!(neighbours.handle_timeout(at(620_000)), []);
        assert_eq!((neighbours.count(), neighbours.next_timeout()), (0, None));
        // One that has failed is forgotten sooner.
        assert_eq!(resolve(&mut neighbours, 700_000), (None, true));
        for second in 701..710 {
            neighbours.handle_timeout(at(second * 1000));
            assert_eq!(neighbours.count(), 1);
        }
        neighbours.handle_timeout(at(710_000));
        assert_eq!((neighbours.count(), neighbours.unanswered), (0, 0));
    }

    #[test]
    fn packets_wait_for_the_answer_and_leave_in_order() {
        let mut neighbours = Neighbours::default();
        assert!(!neighbours.hold(PORT, HOP, b"unasked", at(0)));
        resolve(&mut neighbours, 0);
        for (time, packet) in [b"1", b"2", b"3", b"4"].into_iter().enumerate() {
            assert!(neighbours.hold(PORT, HOP, packet, at(time as u64)));
        }
        // The fourth has taken the place of the first.
        assert_eq!((neighbours.waiting(), neighbours.take_expired(), neighbours.take_expired()), (3, 1, 0));
        assert_eq!(neighbours.poll_released(), None);
        neighbours.learn(PORT, HOP, MAC, false, at(100));
        assert_eq!(neighbours.waiting(), 3);
        for packet in [b"2", b"3", b"4"] {
            let released = (PORT, MAC, packet.to_vec());
            assert_eq!(neighbours.poll_released(), Some(released));
        }
        assert_eq!((neighbours.poll_released(), neighbours.waiting(), neighbours.load.bytes), (None, 0, 0));
        assert!(!neighbours.hold(PORT, HOP, b"known", at(101)));
    }

    #[test]
    fn packets_that_wait_in_vain_are_counted() {
        let mut neighbours = Neighbours::default();
        resolve(&mut neighbours, 0);
        assert!(neighbours.hold(PORT, HOP, b"first", at(0)));
        assert!(neighbours.hold(PORT, HOP, b"second", at(2500)));
        // The timeouts come late, so that the questions have not ended when the first packet is too old.
        neighbours.handle_timeout(at(2600));
        assert_eq!(neighbours.next_timeout(), Some(at(3000)));
        neighbours.handle_timeout(at(3000));
        assert_eq!((neighbours.take_expired(), neighbours.waiting()), (1, 1));
        neighbours.handle_timeout(at(3600));
        assert!(neighbours.hold(PORT, HOP, b"third", at(4000)));
        neighbours.handle_timeout(at(4600));
        assert_eq!((neighbours.take_expired(), neighbours.waiting()), (2, 0));

        let mut neighbours = Neighbours::default();
        resolve(&mut neighbours, 0);
        neighbours.hold(PORT, HOP, b"a packet", at(0));
        neighbours.clear();
        assert_eq!((neighbours.take_expired(), neighbours.waiting(), neighbours.count()), (1, 0, 0));
    }

    #[test]
    fn all_packets_that_wait_have_a_bound_in_number_and_in_bytes() {
        let mut neighbours = Neighbours::default();
        let mut hold = |number, bytes: usize| {
            neighbours.resolve(PORT, host(number), at(0));
            neighbours.hold(PORT, host(number), &vec![0; bytes], at(0))
        };
        assert!((0..255).all(|number| hold(number / 3, 60)));
        assert!(hold(99, 60) && !hold(100, 60));
        // One in the place of another is no more.
        assert!(hold(0, 60));
        assert_eq!((neighbours.waiting(), neighbours.take_expired()), (HELD_MAX, 1));
        neighbours.clear();
        let mut hold = |number, bytes: usize| {
            neighbours.resolve(PORT, host(number), at(0));
            neighbours.hold(PORT, host(number), &vec![0; bytes], at(0))
        };
        assert!((0..8).all(|number| hold(number, 65_535)));
        assert!(!hold(9, 9) && hold(9, 8));
    }

    #[test]
    fn strangers_are_not_learned_and_the_table_has_a_bound() {
        let mut neighbours = Neighbours::default();
        neighbours.learn(PORT, HOP, MAC, false, at(1));
        neighbours.learn(PORT, HOP, MacAddress::BROADCAST, true, at(1));
        neighbours.learn(PORT, Address::UNSPECIFIED, MAC, true, at(1));
        neighbours.learn(PORT, Address::v4([0; 4]), MAC, true, at(1));
        assert_eq!(neighbours.count(), 0);
        for number in 0..6000 {
            neighbours.learn(PORT, host(number), MAC, true, at(1));
        }
        assert_eq!(neighbours.count(), NEIGHBOURS_MAX);
        assert_eq!(resolve(&mut neighbours, 2), (None, false));
    }

    #[test]
    fn addresses_that_nobody_has_leave_room_for_stations_that_talk_to_us() {
        let mut neighbours = Neighbours::default();
        let asked = (0..6000).filter(|number| neighbours.resolve(PORT, host(*number), at(0)).must_ask);
        assert_eq!(asked.count(), UNANSWERED_MAX);
        neighbours.learn(PORT, HOP, MAC, true, at(1));
        assert_eq!(resolve(&mut neighbours, 2), (Some(MAC), false));
        // They are asked again a few at a time, and make room for others in the end.
        let mut time = at(1000);
        let mut questions = 0;
        while neighbours.count() > 1 {
            let round = neighbours.handle_timeout(time);
            assert!(round.len() <= ROUND_QUESTIONS_MAX);
            questions += round.len();
            assert!(time < at(20_000));
            time = neighbours.next_timeout().unwrap();
        }
        assert_eq!((questions, neighbours.unanswered), (2 * UNANSWERED_MAX, 0));
    }

    #[test]
    fn news_that_nobody_asked_for_are_taken_and_verified() {
        let mut neighbours = Neighbours::default();
        neighbours.learn(PORT, HOP, MAC, true, at(0));
        neighbours.learn(PORT, HOP, MAC, false, at(20_000));
        assert_eq!(resolve(&mut neighbours, 40_000), (Some(MAC), false));
        neighbours.learn(PORT, HOP, OTHER, false, at(41_000));
        assert_eq!(resolve(&mut neighbours, 41_001), (Some(OTHER), true));
        neighbours.learn(PORT, HOP, OTHER, false, at(41_002));
        assert_eq!(resolve(&mut neighbours, 50_000), (Some(OTHER), false));
        // A station that moved and talks to us is believed at once.
        neighbours.learn(PORT, HOP, MAC, true, at(51_000));
        assert_eq!(resolve(&mut neighbours, 51_001), (Some(MAC), false));
        assert_eq!(neighbours.mac(InterfaceId(1), HOP), None);
        assert_eq!(neighbours.mac(PORT, HOP), Some(MAC));
    }

    #[derive(Clone, Copy, Debug)]
    enum Op {
        Resolve(u32),
        Hold(u32, usize),
        Learn(u32, u8, bool),
        Pass(u64),
        Poll,
        Clear,
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let number = || prop_oneof![0_u32..4, 0_u32..150];
        let op = prop_oneof![
            6 => number().prop_map(Op::Resolve),
            6 => (number(), prop_oneof![20_usize..1500, 20_usize..65_000]).prop_map(|(n, l)| Op::Hold(n, l)),
            2 => (number(), 0_u8..4, any::<bool>()).prop_map(|(n, mac, talks)| Op::Learn(n, mac, talks)),
            2 => prop_oneof![0_u64..1500, 0_u64..40_000].prop_map(Op::Pass),
            1 => Just(Op::Poll),
        ];
        proptest::collection::vec(prop_oneof![60 => op, 1 => Just(Op::Clear)], 1..300)
    }

    /// What is expected of one address, kept without bounds or timers.
    #[derive(Clone, Debug, Default)]
    struct Expected {
        mac: Option<MacAddress>,
        confirmed: Option<u64>,
        /// When it was asked since its last answer.
        asked: Vec<u64>,
        /// Whether three questions were not answered.
        has_failed: bool,
        /// Times and numbers of packets that wait.
        held: Vec<(u64, u64)>,
    }

    /// The slow model: one record an address, and every packet that was ever taken.
    #[derive(Debug, Default)]
    struct Model {
        addresses: BTreeMap<u32, Expected>,
        /// Packets that must come out, in order, and to whom.
        ready: VecDeque<(u64, MacAddress)>,
        expired: u64,
        now: u64,
    }

    impl Model {
        fn ask(&mut self, number: u32) {
            let expected = self.addresses.entry(number).or_default();
            let last = expected.asked.last().copied();
            assert!(last.is_none_or(|last| self.now - last >= 1000), "asked too often");
            expected.asked.push(self.now);
        }

        /// Somebody was forgotten, or never met.
        fn forget(&mut self, number: u32) {
            assert!(self.addresses.remove(&number).is_none_or(|expected| expected.held.is_empty()));
        }

        fn resolve(&mut self, number: u32, resolution: Resolution) {
            let expected = self.addresses.entry(number).or_default();
            assert_eq!(resolution.mac, expected.mac.filter(|_| !expected.has_failed));
            let is_last = !expected.has_failed && expected.asked.len() >= 3;
            assert!(!is_last || self.now - expected.asked[2] < 1100, "failed too late");
            let is_fresh = expected.confirmed.is_some_and(|at| self.now - at < 30_000);
            let is_due = expected.asked.last().is_none_or(|last| self.now - last >= 1000);
            assert_eq!(resolution.must_ask, !is_fresh && is_due && !is_last);
            if resolution.must_ask {
                self.ask(number);
            }
        }

        fn learn(&mut self, number: u32, mac: MacAddress, talks_to_us: bool, is_there: bool) {
            if !is_there {
                self.forget(number);
                if !talks_to_us {
                    return;
                }
            }
            let expected = self.addresses.entry(number).or_default();
            let is_certain = talks_to_us || !expected.asked.is_empty() || expected.mac == Some(mac);
            expected.confirmed = is_certain.then_some(self.now);
            expected.mac = Some(mac);
            expected.asked.clear();
            expected.has_failed = false;
            self.ready.extend(expected.held.drain(..).map(|(_, packet)| (packet, mac)));
        }

        /// Gives up what has waited for three seconds, or whose neighbour has failed.
        fn pass(&mut self) {
            for expected in self.addresses.values_mut() {
                expected.has_failed |= expected.asked.len() >= 3 && self.now - expected.asked[2] >= 1000;
                let before = expected.held.len();
                expected.held.retain(|(since, _)| !expected.has_failed && self.now - since < 3000);
                self.expired += (before - expected.held.len()) as u64;
            }
        }
    }

    /// Lets time pass, with a timeout whenever one is due.
    fn pass(neighbours: &mut Neighbours, model: &mut Model, until: u64) {
        while let Some(due) = neighbours.next_timeout().filter(|due| *due <= at(until)) {
            model.now = model.now.max(due.as_nanos() / 1_000_000);
            let questions = neighbours.handle_timeout(at(model.now));
            assert!(questions.len() <= ROUND_QUESTIONS_MAX);
            model.pass();
            for question in questions {
                let number = (0..150).find(|number| host(*number) == question.address).unwrap();
                model.ask(number);
            }
        }
        model.now = until;
    }

    fn check_bounds(neighbours: &Neighbours, model: &Model) {
        let all = || neighbours.all.iter().map(|(_, neighbour)| neighbour);
        assert_eq!(neighbours.all.len(), neighbours.known.len());
        assert!(neighbours.known.iter().all(|(key, place)| neighbours.all[usize::from(*place)].key == *key));
        let held: Vec<_> = all().flat_map(|neighbour| &neighbour.held).collect();
        let bytes = held.iter().map(|held| held.packet.len()).sum::<usize>()
            + neighbours.released.iter().map(|released| released.2.len()).sum::<usize>();
        assert_eq!(bytes, neighbours.load.bytes);
        assert!(bytes <= HELD_BYTES_MAX && neighbours.waiting() <= HELD_MAX);
        assert!(all().all(|neighbour| neighbour.held.len() <= HELD_EACH_MAX));
        let waiting = model.addresses.values().map(|expected| expected.held.len()).sum::<usize>();
        assert_eq!(neighbours.waiting(), waiting + model.ready.len());
        let unanswered = all().filter(|neighbour| neighbour.mac().is_none());
        assert_eq!(neighbours.unanswered, unanswered.count());
        let earliest = all().map(Neighbour::due).min();
        assert!(earliest.is_none_or(|earliest| neighbours.due <= earliest));
    }

    fn run(ops: Vec<Op>) {
        let (mut neighbours, mut model) = (Neighbours::default(), Model::default());
        let mut expired = 0;
        for (packet, op) in (0_u64..).zip(ops) {
            match op {
                Op::Resolve(number) => {
                    if !neighbours.known.contains_key(&(PORT, host(number))) {
                        model.forget(number);
                    }
                    model.resolve(number, neighbours.resolve(PORT, host(number), at(model.now)));
                }
                Op::Hold(number, length) => {
                    let mut bytes = vec![0; length];
                    bytes[..8].copy_from_slice(&packet.to_be_bytes());
                    if neighbours.hold(PORT, host(number), &bytes, at(model.now)) {
                        let expected = model.addresses.get_mut(&number).unwrap();
                        assert_eq!(expected.mac, None);
                        expected.held.push((model.now, packet));
                        if expected.held.len() > 3 {
                            expected.held.remove(0);
                            model.expired += 1;
                        }
                    }
                }
                Op::Learn(number, last, talks_to_us) => {
                    let mac = MacAddress([2, 0, 0, 0, 0, last]);
                    let is_there = neighbours.known.contains_key(&(PORT, host(number)));
                    neighbours.learn(PORT, host(number), mac, talks_to_us, at(model.now));
                    model.learn(number, mac, talks_to_us, is_there);
                }
                Op::Pass(milliseconds) => {
                    let until = model.now + milliseconds;
                    pass(&mut neighbours, &mut model, until);
                }
                Op::Poll => {
                    while let Some((_, mac, bytes)) = neighbours.poll_released() {
                        let packet = u64::from_be_bytes(*bytes.first_chunk().unwrap());
                        assert_eq!(model.ready.pop_front(), Some((packet, mac)));
                    }
                    assert!(model.ready.is_empty());
                }
                Op::Clear => {
                    neighbours.clear();
                    let held = model.addresses.values().map(|expected| expected.held.len()).sum::<usize>();
                    model.expired += (held + model.ready.len()) as u64;
                    (model.addresses, model.ready) = (BTreeMap::new(), VecDeque::new());
                }
            }
            expired += neighbours.take_expired();
            assert_eq!(expired, model.expired);
            check_bounds(&neighbours, &model);
        }
    }

    proptest! {
        #[test]
        fn no_bound_is_exceeded_and_nothing_is_lost_uncounted(ops in ops()) {
            run(ops);
        }
    }
}
