//! What `lblc` and `lblcr` remember of each address that clients call: a table that is swept now and then, as in IPVS.
//!
//! Every minute, when there are more entries than it is meant for, those that were not used for six minutes go, a third
//! more than are too many at most; and every half hour those that were not used for the whole expiration.
//! Sweeps that were due while nobody called are made up for by the next call.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::held::Held;
use super::ipvs::{fold, hash_bits};
use crate::time::{Duration, Instant};
use crate::wire::Address;

/// Buckets, as a power of two; they give the order in which a sweep goes.
const BITS: u32 = 10;
const BUCKETS: u16 = 1 << BITS;

/// Entries that the table is meant for: 16 in each bucket.
const ENTRIES_MEANT: usize = 16 << BITS;

/// The most entries. Beyond, addresses are scheduled without being remembered: a scan over a network of addresses must
/// not take all memory. IPVS has no such bound.
const ENTRIES_MAX: usize = 4 * ENTRIES_MEANT;

/// Between two sweeps.
const INTERVAL: Duration = Duration::from_secs(60);

/// How long an entry is safe from the sweeps that make room.
const SAFE: Duration = Duration::from_secs(360);

/// Every so many sweeps one looks at all entries.
const FULL_EVERY: u32 = 30;

/// How long an entry of `lblc` and `lblcr` lives that nobody uses, when the plan does not say: a day, as in IPVS.
pub const EXPIRATION: Duration = Duration::from_secs(86_400);

#[derive(Clone, Debug)]
struct Entry<T> {
    used: Instant,
    value: T,
}

/// A value for each destination.
#[derive(Clone, Debug)]
pub(super) struct Destinations<T> {
    entries: BTreeMap<(u16, Address), Entry<T>>,
    expiration: Duration,
    /// When the next sweep is due; none before the first call.
    next: Option<Instant>,
    counter: u32,
    /// The bucket at which the last sweep ended.
    rover: u16,
}

fn key(destination: Address) -> (u16, Address) {
    (u16::try_from(hash_bits(fold(destination), BITS)).unwrap_or(0), destination)
}

impl<T> Destinations<T> {
    pub(super) fn new(expiration: Option<Duration>) -> Self {
        let expiration = expiration.unwrap_or(EXPIRATION);
        Self { entries: BTreeMap::new(), expiration, next: None, counter: 1, rover: 0 }
    }

    /// How long an entry lives that nobody uses.
    pub(super) const fn expiration(&self) -> Duration {
        self.expiration
    }

    /// What is known of `destination`, which counts as use.
    pub(super) fn touch(&mut self, destination: Address, now: Instant) -> Option<&mut T> {
        let entry = self.entries.get_mut(&key(destination))?;
        entry.used = now;
        Some(&mut entry.value)
    }

    /// Remembers `value` of `destination`, where there is room.
    pub(super) fn insert(&mut self, destination: Address, value: T, now: Instant) {
        let key = key(destination);
        if self.entries.len() < ENTRIES_MAX || self.entries.contains_key(&key) {
            self.entries.insert(key, Entry { used: now, value });
        }
    }

    /// Makes the sweeps that are due at `now`.
    pub(super) fn sweep(&mut self, now: Instant) {
        let Some(next) = self.next else {
            self.next = Some(now.after(INTERVAL));
            return;
        };
        if next > now {
            return;
        }
        // Since the last call nothing was used, so of many sweeps only as many as make a whole round matter.
        let late = now.since(next).as_nanos() / INTERVAL.as_nanos();
        let late = u64::try_from(late).unwrap_or(u64::MAX);
        let skipped = late.saturating_sub(u64::from(2 * FULL_EVERY)) / u64::from(FULL_EVERY);
        let minute = INTERVAL.as_secs() * 1_000_000_000;
        let mut due = Instant::from_nanos(
            next.as_nanos()
                .saturating_add(skipped.saturating_mul(u64::from(FULL_EVERY)).saturating_mul(minute)),
        );
        while due <= now && due != Instant::NEVER {
            self.sweep_at(due);
            due = due.after(INTERVAL);
        }
        self.next = Some(due);
    }

    fn sweep_at(&mut self, now: Instant) {
        if self.counter.is_multiple_of(FULL_EVERY) {
            let expiration = self.expiration;
            self.entries.retain(|_, entry| now.since(entry.used) < expiration);
            self.counter = 1;
        } else if self.entries.len() <= ENTRIES_MEANT {
            self.counter += 1;
        } else {
            self.make_room(now);
        }
    }

    /// Takes out old entries, bucket after bucket, until enough have gone.
    fn make_room(&mut self, now: Instant) {
        let excess = self.entries.len().saturating_sub(ENTRIES_MEANT);
        let goal = (excess * 4 / 3).min(ENTRIES_MEANT / 2);
        let mut gone = 0;
        for _ in 0..BUCKETS {
            self.rover = (self.rover + 1) % BUCKETS;
            let range = (self.rover, Address::UNSPECIFIED)..(self.rover + 1, Address::UNSPECIFIED);
            let old = self.entries.range(range).filter(|(_, entry)| now.since(entry.used) >= SAFE);
            let old: Vec<(u16, Address)> = old.map(|(key, _)| *key).collect();
            gone += old.len();
            old.iter().for_each(|key| {
                self.entries.remove(key);
            });
            if gone >= goal {
                break;
            }
        }
    }
}

impl<T> Held for Destinations<T> {
    fn held(&self) -> usize {
        self.entries.held()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    fn address(number: u32) -> Address {
        Address::v4(number.to_be_bytes())
    }

    #[test]
    fn an_address_that_nobody_calls_goes_with_the_first_full_sweep_after_its_expiration() {
        let mut known = Destinations::new(Some(Duration::from_secs(100)));
        known.sweep(at(0));
        known.insert(address(1), "one", at(0));
        known.insert(address(2), "two", at(0));
        // The 30th sweep, after half an hour, is the first full one.
        known.sweep(at(1799));
        assert_eq!(known.touch(address(1), at(1799)), Some(&mut "one"));
        known.sweep(at(1800));
        assert_eq!(known.entries.len(), 1);
        assert_eq!(known.touch(address(2), at(1800)), None);
    }

    #[test]
    fn too_many_addresses_are_swept_when_they_are_six_minutes_old_and_never_exceed_the_bound() {
        let mut known = Destinations::new(None);
        known.sweep(at(0));
        (0..100_000).for_each(|number| known.insert(address(number), (), at(1)));
        assert_eq!(known.entries.len(), ENTRIES_MAX);
        known.sweep(at(360));
        assert_eq!(known.entries.len(), ENTRIES_MAX, "nothing is old enough");
        known.sweep(at(420));
        // The most that one sweep takes out is half of what the table is meant for, and the rest of a bucket.
        let gone = ENTRIES_MAX - known.entries.len();
        assert!((ENTRIES_MEANT / 2..ENTRIES_MEANT / 2 + 200).contains(&gone), "{gone}");
        known.sweep(at(7_000));
        assert!(known.entries.len() <= ENTRIES_MEANT, "{}", known.entries.len());
    }

    #[test]
    fn a_call_after_years_takes_no_longer_than_one_after_an_hour() {
        let mut known = Destinations::new(None);
        known.sweep(at(0));
        known.insert(address(1), (), at(0));
        known.sweep(Instant::from_nanos(u64::MAX - 1));
        assert!(known.entries.is_empty());
        known.sweep(Instant::NEVER);
    }
}
