//! SYN cookies: a first sequence number that says all that has to be kept of a connection that is half open, so that
//! nothing is kept (Bernstein, 1996; RFC 4987 s.3.6).
//!
//! A cookie is a hash of both ends, the other side's first number, the minute and a secret. Windows and the size of
//! segments are not in it: a connection that came by one begins with the smallest that everybody takes.

use evenkeel_engine::{Duration, Instant};

use crate::index::{end_word, hash};
use crate::packet::AnyEnd;
use crate::random::Stream;

/// How long a cookie is given out; it is good for as long again.
const PERIOD: Duration = Duration::from_secs(64);

/// The cookies of a host.
#[derive(Debug)]
pub(super) struct Cookies {
    secret: u64,
    /// The period in which the last one was given out. Without one nobody can have one to give back.
    last: Option<u64>,
}

impl Cookies {
    pub(super) fn new(seed: u64, name: &str) -> Self {
        Self { secret: Stream::new(seed, name, "cookies").bits(), last: None }
    }

    /// The number that answers a SYN.
    pub(super) fn give(&mut self, now: Instant, ends: (AnyEnd, AnyEnd), their_first: u32) -> u32 {
        let period = period(now);
        self.last = Some(period);
        self.cookie(period, ends, their_first)
    }

    /// Whether a number is one that was given out not long ago.
    pub(super) fn is_one(&self, now: Instant, ends: (AnyEnd, AnyEnd), their_first: u32, number: u32) -> bool {
        let now = period(now);
        let is_recent = self.last.is_some_and(|last| now <= last + 1);
        let mut periods = [Some(now), now.checked_sub(1)].into_iter().flatten();
        is_recent && periods.any(|period| self.cookie(period, ends, their_first) == number)
    }

    fn cookie(&self, period: u64, (local, remote): (AnyEnd, AnyEnd), their_first: u32) -> u32 {
        let rest = period << 32 | u64::from(their_first);
        hash([self.secret, end_word(local), end_word(remote), rest])
    }
}

const fn period(now: Instant) -> u64 {
    now.as_nanos() / (PERIOD.as_secs() * 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_good_for_its_ends_its_number_and_a_while() {
        let end = |last, port| AnyEnd { address: [10, 0, 0, last].into(), port };
        let ends = (end(1, 80), end(2, 4_000));
        let at = |seconds: u64| Instant::from_nanos(seconds * 1_000_000_000);
        let mut cookies = Cookies::new(1, "server");
        assert!(!cookies.is_one(at(100), ends, 7, 0));
        let cookie = cookies.give(at(100), ends, 7);
        for (now, is_good) in [(100, true), (127, true), (191, true), (192, false), (1_000, false)] {
            assert_eq!(cookies.is_one(at(now), ends, 7, cookie), is_good, "{now} s");
        }
        assert!(!cookies.is_one(at(100), ends, 8, cookie));
        assert!(!cookies.is_one(at(100), (end(1, 80), end(2, 4_001)), 7, cookie));
        assert!(!cookies.is_one(at(100), ends, 7, cookie.wrapping_add(1)));
        assert_ne!(Cookies::new(2, "server").give(at(100), ends, 7), cookie);
    }
}
