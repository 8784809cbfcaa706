//! What was seen on the wires of each client's flow: where it went, and whose it became.
//!
//! A call is known by the client's end. Behind source NAT it is recognised by what translation leaves alone: the number of
//! its SYN, or the head of the request in a datagram.

use std::net::IpAddr;

use evenkeel_engine::wire::Protocol;
use evenkeel_engine::{Duration, Instant};

use super::ring::{Name, Place, Ring};
use crate::index::{end_word, hash};
use crate::net::{index, number};
use crate::packet::{AnyEnd, Flags, Segment};
use crate::payload;

/// Machines that are remembered of a way; longer ways are routers in a row.
const WAY_MAX: usize = 8;
/// How long a client's end has to be idle before its next call is one that nobody can know: longer than a flow table keeps
/// a closed or idle flow of UDP (300 s).
const FRESH: Duration = Duration::from_secs(600);

/// How long packets of a call are under way after its last one at most: they wait for neighbours, and on slow cables.
const LATE: Duration = Duration::from_secs(60);

/// The client's end of a call.
pub(crate) type Key = (Protocol, AnyEnd);

/// An end of IPv4 in one word; those of IPv6 are like none of them.
#[inline]
pub(super) fn v4_word(end: AnyEnd) -> u64 {
    match end.address {
        IpAddr::V4(address) => u64::from(address.to_bits()) << 16 | u64::from(end.port),
        IpAddr::V6(_) => u64::MAX,
    }
}

/// What translation leaves alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mark {
    /// The sequence number of a SYN.
    Number(u32),
    /// The head of a request in a datagram: its pattern and lengths.
    Head(u32, u32, u32),
}

impl Mark {
    /// The mark of a packet that starts a flow.
    pub(super) fn of(segment: Option<&Segment>, payload: &[u8]) -> Option<Self> {
        match segment {
            Some(segment) => (segment.flags == Flags::SYN).then_some(Self::Number(segment.sequence)),
            None => {
                let head = payload::request_head(payload.first_chunk::<16>()?)?;
                Some(Self::Head(head.pattern, head.length, head.argument))
            }
        }
    }
}

/// A machine or nobody, in four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Whom(u32);

impl Whom {
    pub(super) const NOBODY: Self = Self(u32::MAX);

    #[inline]
    pub(super) fn machine(machine: usize) -> Self {
        Self(number(machine))
    }

    #[inline]
    pub(super) fn get(self) -> Option<usize> {
        (self != Self::NOBODY).then(|| index(self.0))
    }
}

/// What was seen of a call. What every packet of it meets lies in front, in one line of the processor's cache.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub(crate) struct Call {
    /// The end that the client calls, in one word (see [`v4_word`]).
    pub(super) called_word: u64,
    last: Instant,
    /// The longest time without a packet.
    silence_ns: u64,
    /// The forwarder that its requests reach.
    pub(super) forwarder: Whom,
    /// The real server that its requests reach.
    pub(super) server: Whom,
    /// The machine that an answer has reached last.
    pub(super) answers_at: Whom,
    /// The client is done with it.
    pub(super) is_over: bool,
    /// An answer came from somebody whom the client had not called.
    pub(super) is_foreign: bool,
    /// Nobody can know a flow of this client's end from before.
    pub(super) is_fresh: bool,
    /// How many machines its requests have reached, and which.
    way_length: u8,
    way: [u32; WAY_MAX],
    /// Since when requests reach the forwarder.
    forwarder_since: Instant,
    pub(super) called: AnyEnd,
    pub(super) opened: Instant,
    /// Its requests went from this forwarder to that one.
    pub(super) forwarder_moved: Option<(usize, usize)>,
    /// They went from this real server to that one.
    pub(super) server_moved: Option<(usize, usize)>,
    /// The flow whose rules deny it.
    pub(super) denied: Option<Box<str>>,
    mark: Option<Mark>,
}

impl Call {
    fn new(now: Instant, called: AnyEnd, mark: Option<Mark>, is_fresh: bool) -> Self {
        Self {
            called,
            called_word: v4_word(called),
            opened: now,
            last: now,
            silence_ns: 0,
            is_fresh,
            forwarder: Whom::NOBODY,
            forwarder_since: now,
            forwarder_moved: None,
            server: Whom::NOBODY,
            server_moved: None,
            denied: None,
            way_length: 0,
            way: [0; WAY_MAX],
            answers_at: Whom::NOBODY,
            is_foreign: false,
            is_over: false,
            mark,
        }
    }

    /// Whether a packet that starts a flow can be one of this call.
    pub(super) fn mark_is(&self, mark: Option<Mark>) -> bool {
        match mark {
            Some(Mark::Number(_)) => self.mark == mark,
            Some(Mark::Head(..)) | None => true,
        }
    }

    /// Whether packets of it may still be under way.
    pub(super) fn is_recent(&self, now: Instant) -> bool {
        now.since(self.last) <= LATE
    }

    /// The longest time without a packet.
    pub(super) const fn silence(&self) -> Duration {
        Duration::from_nanos(self.silence_ns)
    }

    /// A packet of it was seen.
    #[inline]
    pub(super) fn touch(&mut self, now: Instant) {
        // Compared as numbers: a duration is made where it is needed.
        let silence = now.as_nanos().saturating_sub(self.last.as_nanos());
        self.silence_ns = self.silence_ns.max(silence);
        self.last = now;
    }

    /// A request has reached a machine.
    pub(super) fn pass(&mut self, machine: usize) {
        let machine = number(machine);
        let count = usize::from(self.way_length);
        let is_known = self.way.iter().take(count).any(|known| *known == machine);
        if let Some(place) = self.way.get_mut(count).filter(|_| !is_known) {
            *place = machine;
            self.way_length += 1;
        }
    }

    /// The machines that its requests have reached.
    pub(super) fn way(&self) -> impl Iterator<Item = usize> + '_ {
        self.way.iter().take(usize::from(self.way_length)).map(|machine| index(*machine))
    }

    /// The forwarder that its requests reach, and since when.
    pub(super) fn forwarder_since(&self) -> Option<(usize, Instant)> {
        self.forwarder.get().map(|forwarder| (forwarder, self.forwarder_since))
    }

    /// A request has reached a forwarder. Gives whether it is the first one there.
    pub(super) fn reach_forwarder(&mut self, now: Instant, machine: usize) -> bool {
        let before = std::mem::replace(&mut self.forwarder, Whom::machine(machine)).get();
        if before == Some(machine) {
            return false;
        }
        if let Some(known) = before {
            self.forwarder_moved = Some((known, machine));
        }
        self.forwarder_since = now;
        before.is_none()
    }

    /// A request has reached a real server. Gives whether it is new there. A SYN that is sent again may go elsewhere.
    pub(super) fn reach_server(&mut self, machine: usize, is_syn: bool) -> bool {
        let before = std::mem::replace(&mut self.server, Whom::machine(machine)).get();
        if let Some(before) = before.filter(|before| *before != machine && !is_syn) {
            self.server_moved = Some((before, machine));
        }
        before != Some(machine)
    }
}

/// The calls of all clients.
#[derive(Debug, Default)]
pub(super) struct Calls {
    all: Ring<Key, Call>,
    marks: Ring<Mark, Key>,
}

impl Calls {
    /// A packet that may start a call has been seen. Gives where the call lies.
    pub(super) fn start(
        &mut self,
        now: Instant,
        key: Key,
        called: AnyEnd,
        mark: Option<Mark>,
    ) -> Option<Place> {
        let before = self.all.get(&key);
        let is_same = before.is_some_and(|before| match mark {
            Some(Mark::Number(_)) => before.mark == mark,
            Some(Mark::Head(..)) | None => before.called == called && !before.is_over,
        });
        if is_same {
            return self.all.place(&key);
        }
        let is_fresh = before.is_none_or(|before| now.since(before.last) >= FRESH);
        let (place, _) = self.all.insert(key, Call::new(now, called, mark, is_fresh));
        if let Some(mark) = mark {
            self.marks.insert(mark, key);
        }
        Some(place)
    }

    /// Where the call of a client's end lies.
    #[inline]
    pub(super) fn place(&self, key: &Key) -> Option<Place> {
        self.all.place(key)
    }

    #[inline]
    pub(super) fn at(&self, place: Place) -> Option<&Call> {
        self.all.at(place)
    }

    #[inline]
    pub(super) fn at_mut(&mut self, place: Place) -> Option<&mut Call> {
        self.all.at_mut(place)
    }

    #[inline]
    pub(super) fn get(&self, key: &Key) -> Option<&Call> {
        self.all.get(key)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, key: &Key) -> Option<&mut Call> {
        self.all.get_mut(key)
    }

    /// Whose packet this is, by what translation leaves alone.
    pub(super) fn marked(&self, mark: Mark) -> Option<Key> {
        let key = *self.marks.get(&mark)?;
        self.all.get(&key).is_some_and(|call| call.mark == Some(mark)).then_some(key)
    }

    /// Whether a client is done with a call, or it is long forgotten.
    pub(super) fn is_over(&self, key: &Key) -> bool {
        self.all.get(key).is_none_or(|call| call.is_over)
    }
}

impl Name for Key {
    #[inline]
    fn hash(&self) -> u32 {
        hash([u64::from(self.0.0), end_word(self.1)])
    }
}

impl Name for Mark {
    fn hash(&self) -> u32 {
        match *self {
            Self::Number(number) => hash([u64::from(number)]),
            Self::Head(pattern, length, argument) => {
                hash([u64::from(pattern), u64::from(length) << 32 | u64::from(argument)])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::End;

    fn key(port: u16) -> Key {
        (Protocol::TCP, End { address: [192, 0, 2, 1].into(), port })
    }

    const VIP: AnyEnd = End { address: IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 3)), port: 80 };

    #[test]
    fn a_syn_sent_again_is_the_same_call_and_another_one_is_not() {
        let mut calls = Calls::default();
        let at = |seconds| Instant::ZERO.after(Duration::from_secs(seconds));
        calls.start(at(0), key(1), VIP, Some(Mark::Number(5)));
        calls.get_mut(&key(1)).unwrap().pass(4);
        calls.start(at(1), key(1), VIP, Some(Mark::Number(5)));
        assert_eq!(calls.get(&key(1)).unwrap().way().collect::<Vec<_>>(), [4]);
        calls.start(at(2), key(1), VIP, Some(Mark::Number(6)));
        let call = calls.get(&key(1)).unwrap();
        assert!(call.way().next().is_none() && !call.is_fresh);
        assert_eq!((calls.marked(Mark::Number(5)), calls.marked(Mark::Number(6))), (None, Some(key(1))));
        calls.start(at(700), key(1), VIP, Some(Mark::Number(7)));
        assert!(calls.get(&key(1)).unwrap().is_fresh, "nobody knows it any more");
    }

    #[test]
    fn moves_are_noticed_and_a_syn_may_go_elsewhere() {
        let mut call = Call::new(Instant::ZERO, VIP, None, true);
        assert!(call.reach_forwarder(Instant::ZERO, 7) && !call.reach_forwarder(Instant::ZERO, 7));
        assert!(!call.reach_forwarder(Instant::ZERO, 8));
        assert_eq!(call.forwarder_moved, Some((7, 8)));
        assert!(call.reach_server(1, true) && call.reach_server(2, true) && !call.reach_server(2, false));
        assert_eq!(call.server_moved, None);
        assert!(call.reach_server(3, false));
        assert_eq!(call.server_moved, Some((2, 3)));
    }

    #[test]
    fn a_way_is_remembered_up_to_its_bound() {
        let mut call = Call::new(Instant::ZERO, VIP, None, true);
        (0..20).chain(0..20).for_each(|machine| call.pass(machine));
        assert_eq!(call.way().collect::<Vec<_>>(), (0..WAY_MAX).collect::<Vec<_>>());
    }
}
