//! The tuples that real servers see, and whether one is used again too soon.
//!
//! With source NAT a tuple is a port of the forwarder's: two flows at once on one port of one real server would be mixed
//! up, and a new connection on the tuple of one that the real server has closed is refused while it waits (RFC 9293
//! s.3.6.1: TIME-WAIT), unless its sequence numbers go on (RFC 6191).

use evenkeel_engine::wire::Protocol;
use evenkeel_engine::{Duration, Instant};

use super::calls::Key;
use super::ring::{Name, Ring};
use crate::index::{end_word, hash};
use crate::packet::{AnyEnd, Flags, Segment};

/// How long who has closed first waits: Linux's time, half of what RFC 9293 says.
const TIME_WAIT: Duration = Duration::from_secs(60);

/// Protocol, the sender's end and the real server's.
type TupleKey = (Protocol, AnyEnd, AnyEnd);

#[derive(Clone, Copy, Debug)]
struct Tuple {
    call: Key,
    /// The number of the SYN, for TCP.
    first: Option<u32>,
    /// The sequence number behind everything that the sender has sent.
    top: u32,
    has_sender_closed: bool,
    has_server_closed: bool,
    /// The real server closed before the sender did, so that it waits.
    waits: bool,
    /// When both had closed, or one had reset.
    closed: Option<Instant>,
}

/// Why a tuple should not have been used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reuse {
    /// This other flow has it.
    InUse(Key),
    /// The real server still waits.
    TooEarly,
}

/// Tuples by what a real server sees.
#[derive(Debug, Default)]
pub(super) struct Tuples {
    all: Ring<TupleKey, Tuple>,
}

impl Name for TupleKey {
    #[inline]
    fn hash(&self) -> u32 {
        let (protocol, from, to) = self;
        hash([u64::from(protocol.0), end_word(*from), end_word(*to)])
    }
}

impl Tuples {
    /// A packet of a call reaches the real server. `is_over` tells whether another call has ended.
    pub(super) fn request(
        &mut self,
        now: Instant,
        key: TupleKey,
        call: Key,
        segment: Option<&Segment>,
        is_over: impl Fn(&Key) -> bool,
    ) -> Option<Reuse> {
        let first = segment.filter(|segment| segment.flags == Flags::SYN).map(|segment| segment.sequence);
        let known = self.all.get_mut(&key);
        let is_same = known.as_ref().is_some_and(|known| {
            known.call == call && (segment.is_none() || first.is_none() || first == known.first)
        });
        if let Some(known) = known.filter(|_| is_same) {
            known.follow(now, segment);
            return None;
        }
        // Only the start of a flow says whose the tuple is from now on.
        if segment.is_some() && first.is_none() {
            return None;
        }
        let top = first.unwrap_or(0).wrapping_add(1);
        let tuple = Tuple {
            call,
            first,
            top,
            has_sender_closed: false,
            has_server_closed: false,
            waits: false,
            closed: None,
        };
        let before = self.all.insert(key, tuple).1?;
        if before.closed.is_none() && before.call != call && !is_over(&before.call) {
            return Some(Reuse::InUse(before.call));
        }
        let is_waiting = before.waits && before.closed.is_some_and(|closed| now.since(closed) < TIME_WAIT);
        let goes_on = first.is_some_and(|first| first.wrapping_sub(before.top) < 1 << 31);
        (is_waiting && !goes_on).then_some(Reuse::TooEarly)
    }

    /// A packet of the real server is on its way back. Gives whose answer it is.
    pub(super) fn answer(&mut self, now: Instant, key: TupleKey, segment: Option<&Segment>) -> Option<Key> {
        let tuple = self.all.get_mut(&key)?;
        if let Some(segment) = segment {
            if segment.flags.has(Flags::FIN) && !tuple.has_server_closed {
                tuple.has_server_closed = true;
                tuple.waits = !tuple.has_sender_closed;
                tuple.close(now);
            }
            if segment.flags.has(Flags::RST) {
                tuple.reset(now);
            }
        }
        Some(tuple.call)
    }

    /// The call whose tuple this is.
    pub(super) fn call(&self, key: &TupleKey) -> Option<Key> {
        self.all.get(key).map(|tuple| tuple.call)
    }
}

impl Tuple {
    fn follow(&mut self, now: Instant, segment: Option<&Segment>) {
        let Some(segment) = segment else { return };
        let end = segment.sequence.wrapping_add(1);
        if end.wrapping_sub(self.top) < 1 << 31 {
            self.top = end;
        }
        if segment.flags.has(Flags::FIN) && !self.has_sender_closed {
            self.has_sender_closed = true;
            self.close(now);
        }
        if segment.flags.has(Flags::RST) {
            self.reset(now);
        }
    }

    fn close(&mut self, now: Instant) {
        if self.has_sender_closed && self.has_server_closed {
            self.closed.get_or_insert(now);
        }
    }

    /// Nobody waits after a reset.
    fn reset(&mut self, now: Instant) {
        self.waits = false;
        self.closed.get_or_insert(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::End;

    fn end(last: u8, port: u16) -> AnyEnd {
        End { address: [10, 0, 0, last].into(), port }
    }

    fn segment(sequence: u32, flags: Flags) -> Segment {
        Segment { sequence, acknowledgement: 0, flags, window: 0 }
    }

    const ACK: Flags = Flags::ACK;

    /// What a new connection of `number` on the tuple of one that was closed is, so many seconds later.
    fn after(server_first: bool, seconds: u64, number: u32) -> Option<Reuse> {
        let mut tuples = Tuples::default();
        let key = (Protocol::TCP, end(1, 2_000), end(9, 80));
        let (one, two) = ((Protocol::TCP, end(5, 1)), (Protocol::TCP, end(6, 1)));
        let syn = segment(1_000, Flags::SYN);
        assert_eq!(tuples.request(Instant::ZERO, key, one, Some(&syn), |_| false), None);
        let fin = segment(5_000, Flags::FIN.with(ACK));
        if server_first {
            tuples.answer(Instant::ZERO, key, Some(&fin));
        }
        assert_eq!(tuples.request(Instant::ZERO, key, one, Some(&fin), |_| false), None);
        tuples.answer(Instant::ZERO, key, Some(&fin));
        let again = segment(number, Flags::SYN);
        let at = Instant::ZERO.after(Duration::from_secs(seconds));
        tuples.request(at, key, two, Some(&again), |_| false)
    }

    #[test]
    fn a_tuple_that_the_server_waits_on_is_not_for_a_new_connection() {
        assert_eq!(after(true, 59, 77), Some(Reuse::TooEarly));
        assert_eq!(after(true, 60, 77), None, "the time is over");
        assert_eq!(after(true, 1, 5_001), None, "its numbers go on");
        assert_eq!(after(false, 1, 77), None, "the other side waits");
    }

    #[test]
    fn two_flows_at_once_on_one_tuple_are_noticed() {
        let mut tuples = Tuples::default();
        let key = (Protocol::UDP, end(1, 2_000), end(9, 53));
        let (one, two) = ((Protocol::UDP, end(5, 1)), (Protocol::UDP, end(6, 1)));
        let mut request = |call, is_over| tuples.request(Instant::ZERO, key, call, None, |_| is_over);
        assert_eq!(request(one, false), None);
        assert_eq!(request(one, false), None, "its own next packet");
        assert_eq!(request(two, false), Some(Reuse::InUse(one)));
        assert_eq!(request(one, true), None, "the other one has ended");
    }

    #[test]
    fn a_reset_sets_a_tuple_free() {
        let mut tuples = Tuples::default();
        let key = (Protocol::TCP, end(1, 2_000), end(9, 80));
        let call = |last| (Protocol::TCP, end(last, 1));
        let syn = |number| segment(number, Flags::SYN);
        tuples.request(Instant::ZERO, key, call(5), Some(&syn(9)), |_| false);
        assert_eq!(tuples.answer(Instant::ZERO, key, Some(&segment(0, Flags::RST))), Some(call(5)));
        assert_eq!(tuples.request(Instant::ZERO, key, call(6), Some(&syn(1)), |_| false), None);
        assert_eq!(tuples.call(&key), Some(call(6)));
    }
}
