//! Holds back sources that open too many TCP connections.
//!
//! Each source has a budget of opening segments: `connections_per_second` (1 to 1,000,000, default 50) with a `burst`
//! (default twice that). Within it, a flow is skipped: later policies decide. A source that goes beyond it is denied for
//! a `penalty` (0s to 1h, default 10s), and each further attempt meanwhile begins the penalty anew. With
//! `total_per_second` (default 0: no bound) all sources together may open so many connections; the forwarder counts
//! those. What is not TCP, or does not open a connection, is skipped.
//!
//! A source is an IPv4 address or the /64 of an IPv6 address. At most `table_size` sources (8 to 262,144, default 32,768,
//! 32 bytes each) are remembered; a new one takes the place of one that has been quiet for longer than others.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec::Vec;
use core::time::Duration;

use evenkeel_plugin_sdk::meter::Meter;
use evenkeel_plugin_sdk::network::is_ipv4;
use evenkeel_plugin_sdk::{
    Arrival, ConfigureError, Decision, Instant, Limit, Options, Policy, PolicySetup, PolicyWishes, Verdict,
};

/// The control bits that open a connection, and those that are looked at: SYN without ACK.
const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;

#[derive(Debug)]
struct SynGuard {
    meter: Meter,
    penalty: Duration,
    total: Option<u32>,
}

impl Policy for SynGuard {
    fn configure(setup: &PolicySetup, options: &mut Options) -> Result<Self, ConfigureError> {
        let rate = options.integer("connections_per_second", 50, 1..=1_000_000)?;
        let burst = options.integer("burst", (rate * 2).min(1_000_000), 1..=1_000_000)?;
        let penalty = options.duration(
            "penalty",
            Duration::from_secs(10),
            Duration::ZERO..=Duration::from_secs(3_600),
        )?;
        let total = options.integer("total_per_second", 0, 0..=1_000_000_000)?;
        let size = options.integer("table_size", 32_768, 8..=262_144)?;
        let size = usize::try_from(size).unwrap_or(0);
        let meter = Meter::new(setup.common.seed, rate, Duration::from_secs(1), burst, size);
        Ok(Self { meter, penalty, total: u32::try_from(total).ok().filter(|total| *total > 0) })
    }

    fn wishes(&self) -> PolicyWishes {
        let limits: Vec<Limit> =
            self.total.into_iter().map(|total| Limit::per_second(total, total)).collect();
        PolicyWishes { limits, ..PolicyWishes::NONE }
    }

    fn decide(&mut self, arrival: &Arrival, now: Instant) -> Decision {
        let flow = &arrival.flow;
        if !flow.is_tcp() || arrival.tcp_flags & SYN_ACK != SYN {
            return Verdict::Skip.into();
        }
        let address = flow.source_bits();
        let source = if is_ipv4(address) { address } else { address >> 64 << 64 };
        if !self.meter.take(source, now) {
            self.meter.block(source, now, self.penalty);
            return Verdict::Deny.into();
        }
        if self.total.is_some() { Verdict::Skip.within(0) } else { Verdict::Skip.into() }
    }
}

evenkeel_plugin_sdk::export_policy!(SynGuard);

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;
    use evenkeel_plugin_sdk::kit::{PolicyKit, flow_from, message};
    use evenkeel_plugin_sdk::{Flow, PROTOCOL_UDP};

    fn flows(source: [u8; 4], count: u64) -> Vec<Flow> {
        (0..count).map(|salt| flow_from(Ipv4Addr::from(source), salt)).collect()
    }

    fn passed(kit: &mut PolicyKit<SynGuard>, source: [u8; 4], count: u64) -> usize {
        let verdicts = kit.decide(&flows(source, count));
        verdicts.iter().filter(|verdict| **verdict == Verdict::Skip).count()
    }

    #[test]
    fn a_source_that_goes_beyond_its_budget_waits_for_its_penalty() {
        let mut kit = PolicyKit::new("connections_per_second = 10\nburst = 5\npenalty = \"2s\"").unwrap();
        assert_eq!(passed(&mut kit, [192, 0, 2, 1], 5), 5, "the budget is not a penalty");
        kit.wait(Duration::from_millis(100));
        assert_eq!(passed(&mut kit, [192, 0, 2, 1], 2), 1);
        kit.wait(Duration::from_millis(1_900));
        assert_eq!(passed(&mut kit, [192, 0, 2, 1], 1), 0, "it begins anew");
        kit.wait(Duration::from_millis(2_100));
        assert_eq!(passed(&mut kit, [192, 0, 2, 1], 1), 1);
        assert_eq!(passed(&mut kit, [192, 0, 2, 2], 9), 5, "others have their own");
    }

    #[test]
    fn what_opens_no_connection_costs_nothing() {
        let mut kit = PolicyKit::<SynGuard>::new("connections_per_second = 1\nburst = 1").unwrap();
        let flow = flow_from(Ipv4Addr::LOCALHOST, 0);
        for _ in 0..10 {
            let udp = Flow { protocol: PROTOCOL_UDP, ..flow };
            assert_eq!(kit.decide(&[udp]), [Verdict::Skip]);
            let answer = Arrival { tcp_flags: 0x12, ..Arrival::from(flow) };
            assert_eq!(kit.arrive(&answer).verdict, Verdict::Skip);
        }
        assert_eq!(kit.decide(&[flow, flow]), [Verdict::Skip, Verdict::Deny]);
    }

    #[test]
    fn all_sources_together_are_counted_by_the_forwarder() {
        let kit = PolicyKit::<SynGuard>::new("").unwrap();
        assert_eq!(kit.wishes(), &PolicyWishes::NONE);
        let mut kit = PolicyKit::<SynGuard>::new("total_per_second = 1000").unwrap();
        assert_eq!(kit.wishes().limits, [Limit::per_second(1_000, 1_000)]);
        let flow = Arrival::from(flow_from(Ipv4Addr::LOCALHOST, 0));
        assert_eq!(kit.arrive(&flow), Verdict::Skip.within(0));
    }

    #[test]
    fn the_memory_is_bounded_and_the_offender_is_remembered() {
        let mut kit = PolicyKit::new("connections_per_second = 1\nburst = 2\ntable_size = 8").unwrap();
        assert_eq!(passed(&mut kit, [192, 0, 2, 1], 9), 2);
        for host in 2..=200 {
            assert_eq!(passed(&mut kit, [192, 0, 2, host], 1), 1);
        }
        assert_eq!(passed(&mut kit, [192, 0, 2, 1], 9), 0);
        let error = PolicyKit::<SynGuard>::new("penalty = \"2h\"").unwrap_err();
        assert!(message(&error).contains("penalty"), "{}", message(&error));
    }
}
