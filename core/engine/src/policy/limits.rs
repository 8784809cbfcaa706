//! Limits at work: how often the flows of a rule have come, for all together or for each address.
//!
//! Of each address one time is kept: when it would have used up what it has had (the virtual scheduling form of the
//! generic cell rate algorithm, ITU-T I.371). It may go on while that is less than a burst ahead.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use crate::plan::{Limit, LimitKey, Prefix};
use crate::time::Instant;
use crate::wire::{Address, FiveTuple, HashKey};

use super::PolicyFlow;

/// The most addresses that one limit counts at a time. A set that is full forgets the address that has been quiet for
/// longest; at 1,000 flows a second from each, these many sources are 16 million flows a second.
pub(crate) const ADDRESSES_MAX: usize = 16_384;

/// How many places an address may have.
const WAYS: usize = 8;

/// A place: whom it counts, and when what it has had is used up.
#[derive(Clone, Copy, Debug)]
struct Place {
    key: Address,
    used_up: u64,
}

const FREE: Place = Place { key: Address::UNSPECIFIED, used_up: 0 };

/// One limit with what has been counted.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    limit: Limit,
    /// Nanoseconds that one flow takes up.
    each: u64,
    /// Nanoseconds that may be taken up ahead.
    ahead: u64,
    /// One place for all, or sets of [`WAYS`]; made when it is first asked.
    /// Shared with clones until one of them counts.
    places: Arc<Vec<Place>>,
    key: HashKey,
}

impl Meter {
    pub(crate) fn new(limit: Limit, key: HashKey) -> Self {
        let period = u64::try_from(limit.period.as_nanos()).unwrap_or(u64::MAX);
        let each = period.div_ceil(u64::from(limit.count.max(1))).max(1);
        let ahead = each.saturating_mul(u64::from(limit.burst.max(1)));
        Self { limit, each, ahead, places: Arc::default(), key }
    }

    /// Whether it counts the same in the same way as `other`.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.limit == other.limit && self.key == other.key
    }

    pub(crate) const fn limit(&self) -> &Limit {
        &self.limit
    }

    /// When what was taken for whom `flow` counts for is used up, if anything was.
    pub(crate) fn used_up(&self, flow: &PolicyFlow) -> Option<u64> {
        if self.places.is_empty() {
            return None;
        }
        self.clone().place(flow).map(|place| place.used_up).filter(|used_up| *used_up > 0)
    }

    /// Sets when what was taken for whom `flow` counts for is used up.
    pub(crate) fn set_used_up(&mut self, flow: &PolicyFlow, used_up: u64) {
        if let Some(place) = self.place(flow) {
            place.used_up = used_up;
        }
    }

    /// Whether `flow` would be within the limit.
    pub(crate) fn would_take(&self, flow: &PolicyFlow, now: Instant) -> bool {
        self.clone().take(flow, now)
    }

    /// Counts `flow` if it is within the limit; whether it is.
    pub(crate) fn take(&mut self, flow: &PolicyFlow, now: Instant) -> bool {
        let now = now.as_nanos();
        let (each, ahead) = (self.each, self.ahead);
        let Some(place) = self.place(flow) else { return true };
        let used_up = place.used_up.max(now).saturating_add(each);
        let is_within = used_up - now <= ahead;
        if is_within {
            place.used_up = used_up;
        }
        is_within
    }

    /// The place of whoever `flow` counts for.
    fn place(&mut self, flow: &PolicyFlow) -> Option<&mut Place> {
        let (address, lengths) = match self.limit.key {
            LimitKey::All => {
                if self.places.is_empty() {
                    self.places = Arc::new(vec![FREE]);
                }
                return Arc::make_mut(&mut self.places).first_mut();
            }
            LimitKey::Source(v4, v6) => (flow.tuple.source, (v4, v6)),
            LimitKey::Destination(v4, v6) => (flow.tuple.destination, (v4, v6)),
        };
        let length = if address.is_v4() { lengths.0 } else { lengths.1 };
        let key = Prefix { address: address.into(), length }.network();
        if self.places.is_empty() {
            self.places = Arc::new(vec![FREE; ADDRESSES_MAX]);
        }
        let hash = FiveTuple { source: key, ..FiveTuple::default() }.hash(self.key);
        let sets = (ADDRESSES_MAX / WAYS) as u64;
        let start = usize::try_from(hash % sets).unwrap_or(0) * WAYS;
        let set = Arc::make_mut(&mut self.places).get_mut(start..start + WAYS)?;
        let known = set.iter().position(|place| place.key == key);
        let quiet =
            || set.iter().enumerate().min_by_key(|(_, place)| place.used_up).map(|(number, _)| number);
        let number = known.or_else(quiet)?;
        let place = set.get_mut(number)?;
        if known.is_none() {
            *place = Place { key, used_up: 0 };
        }
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;
    use crate::verdict::InterfaceId;

    fn from(last: u8) -> PolicyFlow {
        let source = Address::v4([192, 0, 2, last]);
        PolicyFlow::new(0, FiveTuple { source, ..FiveTuple::default() }, InterfaceId(0))
    }

    fn meter(key: LimitKey) -> Meter {
        Meter::new(Limit { count: 10, period: Duration::from_secs(1), burst: 3, key }, HashKey([1, 2]))
    }

    fn at(milliseconds: u64) -> Instant {
        Instant::from_nanos(milliseconds * 1_000_000)
    }

    #[test]
    fn a_burst_passes_and_then_one_for_each_tenth_of_a_second() {
        let mut meter = meter(LimitKey::All);
        let taken =
            |meter: &mut Meter, time| (0..9).filter(|last| meter.take(&from(*last), at(time))).count();
        assert_eq!(taken(&mut meter, 5_000), 3);
        assert_eq!(taken(&mut meter, 5_099), 0);
        assert_eq!(taken(&mut meter, 5_100), 1);
        assert_eq!(taken(&mut meter, 5_350), 2);
        assert_eq!(taken(&mut meter, 99_000), 3, "a pause saves no more than a burst");
    }

    #[test]
    fn each_source_has_its_own_and_a_network_shares_one() {
        let mut each = meter(LimitKey::Source(32, 128));
        assert_eq!((0..9).filter(|last| each.take(&from(*last), at(1))).count(), 9);
        assert_eq!((0..9).filter(|_| each.take(&from(1), at(1))).count(), 2);
        let mut network = meter(LimitKey::Source(24, 64));
        assert_eq!((0..9).filter(|last| network.take(&from(*last), at(1))).count(), 3);
    }

    #[test]
    fn addresses_beyond_the_bound_push_out_the_quiet_ones() {
        let mut meter = meter(LimitKey::Source(32, 128));
        let from = |number: u32| {
            let source = Address::from(core::net::Ipv4Addr::from_bits(number));
            PolicyFlow::new(0, FiveTuple { source, ..FiveTuple::default() }, InterfaceId(0))
        };
        let loud = from(7);
        assert_eq!((0..9).filter(|_| meter.take(&loud, at(1_000))).count(), 3);
        // Those that come once take up a third of what the loud one has: they give way to each other.
        for number in 1_000..100_000 {
            assert!(meter.take(&from(number), at(1_000)));
        }
        assert!(!meter.take(&loud, at(1_000)), "it is still known");
        assert_eq!(meter.places.len(), ADDRESSES_MAX);
    }
}
