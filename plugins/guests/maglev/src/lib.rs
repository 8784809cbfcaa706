//! Maglev hashing: a flow goes by its hash, and a change of servers moves few of the other flows.
//!
//! The table is the one that the forwarder's own `maglev` builds, entry for entry, so that either can stand in
//! for the other. Option `size`: places in the table, a prime from 3 to 1,048,576 (default 65537). A hundred
//! places for each unit of weight keep shares exact to the percent.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec::Vec;

use evenkeel_plugin_sdk::{ConfigureError, Instant, Options, Server, Setup, TableScheduler, maglev};

#[derive(Debug)]
struct Maglev {
    size: usize,
}

impl TableScheduler for Maglev {
    fn configure(_: &Setup, options: &mut Options) -> Result<Self, ConfigureError> {
        Ok(Self { size: maglev::size(options)? })
    }

    fn build(&mut self, servers: &[Server], _: Instant) -> Vec<u32> {
        maglev::table(servers, self.size)
    }
}

evenkeel_plugin_sdk::export_table_scheduler!(Maglev);

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use evenkeel_plugin_sdk::kit::{TableSchedulerKit, message};

    #[test]
    fn shares_follow_the_weights() {
        let mut kit = TableSchedulerKit::<Maglev>::new("").unwrap();
        kit.servers(&[4, 2, 1]);
        assert_eq!(kit.table().len(), 65_537);
        let shares = kit.shares(70_000);
        for (share, wanted) in shares.iter().zip([40_000_usize, 20_000, 10_000]) {
            assert!(share.abs_diff(wanted) < 700, "{shares:?}");
        }
    }

    #[test]
    fn a_size_that_is_not_prime_is_refused() {
        let error = TableSchedulerKit::<Maglev>::new("size = 65536").unwrap_err();
        assert_eq!(message(&error), "option `size`: 65536 is not a prime");
        let error = TableSchedulerKit::<Maglev>::new("size = 2").unwrap_err();
        assert_eq!(message(&error), "option `size`: 2 is not a whole number from 3 to 1048576");
    }
}
