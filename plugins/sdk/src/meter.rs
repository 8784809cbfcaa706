//! How often each of many has come, in bounded memory.
//!
//! Of each key one time is kept: when it would have used up what it has had. It may go on while that is less than a burst
//! ahead (the virtual scheduling form of the generic cell rate algorithm, ITU-T I.371). Places are in sets of eight, and a
//! new key in a full set takes the place of the one that has been quiet for longest. Where a key's set is depends on the
//! seed, so that nobody outside can fill one set on purpose.

use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use crate::{Instant, keyed_hash};

/// Places that a key can be at: enough that sets fill evenly, few enough to look through at once.
const WAYS: usize = 8;

/// A key, and when it has used up what it has had.
#[derive(Clone, Copy, Debug)]
struct Place {
    key: u128,
    used_up: u64,
}

const FREE: Place = Place { key: 0, used_up: 0 };

/// A rate and a burst, kept for each of many keys.
#[derive(Clone, Debug)]
pub struct Meter {
    seed: u64,
    /// Nanoseconds that one takes up.
    each: u64,
    /// Nanoseconds that may be taken up ahead.
    ahead: u64,
    size: usize,
    /// Made when it is first asked.
    sets: Vec<[Place; WAYS]>,
}

impl Meter {
    /// `count` in each `period`, and `burst` of them at once, for each of about `size` keys.
    #[must_use]
    pub fn new(seed: u64, count: u64, period: Duration, burst: u64, size: usize) -> Self {
        let period = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
        let each = period.div_ceil(count.max(1)).max(1);
        Self { seed, each, ahead: each.saturating_mul(burst.max(1)), size, sets: Vec::new() }
    }

    /// Counts `key` if it is within its rate; whether it is.
    pub fn take(&mut self, key: u128, now: Instant) -> bool {
        let (each, ahead, now) = (self.each, self.ahead, now.as_nanos());
        let Some(place) = self.place(key) else { return true };
        let used_up = place.used_up.max(now).saturating_add(each);
        let is_within = used_up - now <= ahead;
        if is_within {
            place.used_up = used_up;
        }
        is_within
    }

    /// Lets nothing of `key` through for `time`, and its burst only after another pause. Longer than before, never shorter.
    pub fn block(&mut self, key: u128, now: Instant, time: Duration) {
        let ahead = self.ahead;
        let Some(place) = self.place(key) else { return };
        let until = now.after(time).as_nanos().saturating_add(ahead);
        place.used_up = place.used_up.max(until);
    }

    fn place(&mut self, key: u128) -> Option<&mut Place> {
        if self.sets.is_empty() {
            self.sets = vec![[FREE; WAYS]; (self.size / WAYS).max(1)];
        }
        let halves = [u64::try_from(key >> 64).ok()?, u64::try_from(key & u128::from(u64::MAX)).ok()?];
        let hash = keyed_hash([self.seed, 0], &halves);
        let sets = u64::try_from(self.sets.len()).ok()?;
        let set = self.sets.get_mut(usize::try_from(hash.checked_rem(sets)?).ok()?)?;
        let known = set.iter().position(|place| place.key == key && place.used_up > 0);
        if let Some(place) = known {
            return set.get_mut(place);
        }
        let place = set.iter_mut().min_by_key(|place| place.used_up)?;
        *place = Place { key, used_up: 0 };
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Instant {
        Instant::from_nanos(milliseconds * 1_000_000)
    }

    fn taken(meter: &mut Meter, key: u128, now: u64) -> usize {
        (0..20).filter(|_| meter.take(key, at(now))).count()
    }

    #[test]
    fn a_key_gets_its_burst_and_then_its_rate() {
        let mut meter = Meter::new(1, 10, Duration::from_secs(1), 3, 64);
        assert_eq!((taken(&mut meter, 7, 5_000), taken(&mut meter, 8, 5_000)), (3, 3));
        assert_eq!((taken(&mut meter, 7, 5_099), taken(&mut meter, 7, 5_100)), (0, 1));
        assert_eq!(taken(&mut meter, 7, 99_000), 3, "a pause saves no more than a burst");
    }

    #[test]
    fn a_key_that_is_blocked_waits() {
        let mut meter = Meter::new(1, 10, Duration::from_secs(1), 3, 64);
        meter.block(7, at(1_000), Duration::from_secs(5));
        assert_eq!((taken(&mut meter, 7, 6_000), taken(&mut meter, 7, 6_100)), (0, 1));
        meter.block(7, at(1_000), Duration::from_secs(1));
        assert_eq!(taken(&mut meter, 7, 6_150), 0, "it is not shortened");
    }

    #[test]
    fn a_full_table_forgets_the_quiet_and_not_the_loud() {
        let mut meter = Meter::new(1, 1, Duration::from_secs(1), 10, 8);
        assert_eq!(taken(&mut meter, 1, 1_000), 10);
        assert!((2..200).all(|key| meter.take(key, at(1_000))));
        assert_eq!(taken(&mut meter, 1, 1_000), 0);
    }
}
