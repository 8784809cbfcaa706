//! Limits the new flows of each source address by a token bucket.
//!
//! Within its rate a source is skipped: later policies decide. Beyond it, its new flows are denied. A source is
//! an IPv4 address or the /64 of an IPv6 address. Flows that exist already are never looked at.
//!
//! Options: `flows_per_second`, how fast a bucket fills (1 to 1,000,000, default 100); `burst`, how many flows a
//! full bucket holds (1 to 1,000,000, default twice `flows_per_second`); `table_size`, how many sources are
//! remembered (8 to 1,048,576, default 65,536, 24 bytes each).
//!
//! The memory is bounded: places are in sets of eight, and a new source in a full set takes the place of the one
//! whose bucket is fullest, which is the one that loses least by being forgotten. The place of a source depends
//! on the seed, so that nobody outside can fill one set on purpose.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;

use evenkeel_plugin_sdk::{
    Arrival, ConfigureError, Instant, Options, Policy, PolicySetup, Verdict, keyed_hash,
};

/// Places that a source can be at: enough that sets fill evenly, few enough to look through at once.
const WAYS: usize = 8;
const SECOND_NS: u64 = 1_000_000_000;

/// A source and the time at which its bucket will be full again.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    source: (u64, u64),
    full_at_ns: u64,
}

#[derive(Debug)]
struct RateGuard {
    seed: u64,
    /// The time in which one flow's worth flows back.
    refill_ns: u64,
    /// The time in which an empty bucket fills.
    depth_ns: u64,
    sets: Vec<[Bucket; WAYS]>,
}

impl RateGuard {
    fn bucket(&mut self, source: (u64, u64)) -> Option<&mut Bucket> {
        let hash = keyed_hash([self.seed, 0], &[source.0, source.1]);
        let sets = u64::try_from(self.sets.len()).ok()?;
        let set = self.sets.get_mut(usize::try_from(hash.checked_rem(sets)?).ok()?)?;
        let place = set.iter().position(|bucket| bucket.source == source && bucket.full_at_ns > 0);
        if let Some(place) = place {
            return set.get_mut(place);
        }
        let bucket = set.iter_mut().min_by_key(|bucket| bucket.full_at_ns)?;
        *bucket = Bucket { source, full_at_ns: 0 };
        Some(bucket)
    }
}

impl Policy for RateGuard {
    fn configure(setup: &PolicySetup, options: &mut Options) -> Result<Self, ConfigureError> {
        let rate = options.integer("flows_per_second", 100, 1..=1_000_000)?;
        let burst = options.integer("burst", (rate * 2).min(1_000_000), 1..=1_000_000)?;
        let size = options.integer("table_size", 65_536, 8..=1_048_576)?;
        let sets = usize::try_from(size).unwrap_or(WAYS) / WAYS;
        let refill_ns = SECOND_NS / rate;
        let depth_ns = refill_ns * burst;
        Ok(Self { seed: setup.common.seed, refill_ns, depth_ns, sets: vec![[Bucket::default(); WAYS]; sets] })
    }

    fn decide(&mut self, Arrival { flow, .. }: &Arrival, now: Instant) -> Verdict {
        let (refill_ns, depth_ns) = (self.refill_ns, self.depth_ns);
        let is_ipv4 = flow.source_high == 0 && flow.source_low >> 32 == 0xffff;
        let source = (flow.source_high, if is_ipv4 { flow.source_low } else { 0 });
        let Some(bucket) = self.bucket(source) else { return Verdict::Skip };
        let full_at_ns = bucket.full_at_ns.max(now.as_nanos()).saturating_add(refill_ns);
        if full_at_ns > now.as_nanos().saturating_add(depth_ns) {
            return Verdict::Deny;
        }
        bucket.full_at_ns = full_at_ns;
        Verdict::Skip
    }
}

evenkeel_plugin_sdk::export_policy!(RateGuard);

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;
    use core::time::Duration;
    use evenkeel_plugin_sdk::Flow;
    use evenkeel_plugin_sdk::kit::{PolicyKit, flow_from, message};

    fn passed(kit: &mut PolicyKit<RateGuard>, source: [u8; 4], count: u64) -> usize {
        let flows: Vec<Flow> = (0..count).map(|salt| flow_from(Ipv4Addr::from(source), salt)).collect();
        kit.decide(&flows).iter().filter(|verdict| **verdict == Verdict::Skip).count()
    }

    #[test]
    fn a_source_gets_its_burst_and_then_its_rate() {
        let mut kit = PolicyKit::<RateGuard>::new("flows_per_second = 10\nburst = 5").unwrap();
        assert_eq!(passed(&mut kit, [192, 0, 2, 1], 20), 5);
        kit.wait(Duration::from_millis(99));
        assert_eq!(passed(&mut kit, [192, 0, 2, 1], 20), 0);
        kit.wait(Duration::from_millis(1));
        assert_eq!(passed(&mut kit, [192, 0, 2, 1], 20), 1);
        kit.wait(Duration::from_secs(3600));
        assert_eq!(passed(&mut kit, [192, 0, 2, 1], 20), 5, "a bucket holds no more than the burst");
    }

    #[test]
    fn sources_do_not_share_a_bucket() {
        let mut kit = PolicyKit::<RateGuard>::new("flows_per_second = 1\nburst = 1").unwrap();
        for host in 1..=100 {
            assert_eq!(passed(&mut kit, [192, 0, 2, host], 3), 1);
        }
    }

    #[test]
    fn addresses_of_one_ipv6_network_share_a_bucket() {
        let mut kit = PolicyKit::<RateGuard>::new("flows_per_second = 1\nburst = 1").unwrap();
        let six =
            |high, low| Flow { source_high: high, source_low: low, ..flow_from(Ipv4Addr::LOCALHOST, 0) };
        let verdicts = kit.decide(&[six(1 << 61, 1), six(1 << 61, 2), six(1 << 61 | 1, 1)]);
        assert_eq!(verdicts, [Verdict::Skip, Verdict::Deny, Verdict::Skip]);
    }

    #[test]
    fn a_full_table_forgets_the_fullest_bucket_and_not_the_offender() {
        let mut kit =
            PolicyKit::<RateGuard>::new("flows_per_second = 1\nburst = 10\ntable_size = 8").unwrap();
        assert_eq!(passed(&mut kit, [192, 0, 2, 1], 50), 10);
        for host in 2..=200 {
            assert_eq!(passed(&mut kit, [192, 0, 2, host], 1), 1);
        }
        assert_eq!(passed(&mut kit, [192, 0, 2, 1], 50), 0);
    }

    #[test]
    fn a_value_out_of_range_is_refused() {
        let error = PolicyKit::<RateGuard>::new("flows_per_second = 0").unwrap_err();
        assert_eq!(message(&error), "option `flows_per_second`: 0 is not a whole number from 1 to 1000000");
    }
}
