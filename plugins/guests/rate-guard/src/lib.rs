//! Limits the new flows of each source address by a token bucket.
//!
//! Within its rate a source is skipped: later policies decide. Beyond it, its new flows are denied. A source is
//! an IPv4 address or the /64 of an IPv6 address. Flows that exist already are never looked at.
//!
//! Options: `flows_per_second`, how fast a bucket fills (1 to 1,000,000, default 100); `burst`, how many flows a
//! full bucket holds (1 to 1,000,000, default twice `flows_per_second`); `table_size`, how many sources are
//! remembered (8 to 1,048,576, default 65,536, 32 bytes each).
//!
//! The memory is bounded: a new source in a full table takes the place of one whose bucket is fuller than that of others,
//! which loses least by being forgotten.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use core::time::Duration;

use evenkeel_plugin_sdk::meter::Meter;
use evenkeel_plugin_sdk::network::is_ipv4;
use evenkeel_plugin_sdk::{
    Arrival, ConfigureError, Decision, Instant, Options, Policy, PolicySetup, Verdict,
};

#[derive(Debug)]
struct RateGuard {
    meter: Meter,
}

impl Policy for RateGuard {
    fn configure(setup: &PolicySetup, options: &mut Options) -> Result<Self, ConfigureError> {
        let rate = options.integer("flows_per_second", 100, 1..=1_000_000)?;
        let burst = options.integer("burst", (rate * 2).min(1_000_000), 1..=1_000_000)?;
        let size = options.integer("table_size", 65_536, 8..=1_048_576)?;
        let size = usize::try_from(size).unwrap_or(0);
        Ok(Self { meter: Meter::new(setup.common.seed, rate, Duration::from_secs(1), burst, size) })
    }

    fn decide(&mut self, Arrival { flow, .. }: &Arrival, now: Instant) -> Decision {
        let address = flow.source_bits();
        let source = if is_ipv4(address) { address } else { address >> 64 << 64 };
        if self.meter.take(source, now) { Verdict::Skip.into() } else { Verdict::Deny.into() }
    }
}

evenkeel_plugin_sdk::export_policy!(RateGuard);

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use core::net::Ipv4Addr;
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
