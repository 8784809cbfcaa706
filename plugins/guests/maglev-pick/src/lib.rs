//! Maglev hashing with the table inside of the guest: asked for every flow, to show what such a call costs.
//!
//! Answers as `maglev` does. Option `size`: as there.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec::Vec;

use evenkeel_plugin_sdk::{
    ConfigureError, HashScheduler, Instant, NO_ANSWER, Options, Server, Setup, maglev,
};

#[derive(Debug)]
struct MaglevPick {
    size: usize,
    table: Vec<u32>,
}

impl HashScheduler for MaglevPick {
    fn configure(_: &Setup, options: &mut Options) -> Result<Self, ConfigureError> {
        Ok(Self { size: maglev::size(options)?, table: Vec::new() })
    }

    fn update(&mut self, servers: &[Server], _: Instant) {
        self.table = maglev::table(servers, self.size);
    }

    fn pick(&mut self, hash: u64, _: Instant) -> Option<usize> {
        let length = u64::try_from(self.table.len()).ok()?;
        let place = usize::try_from(hash.checked_rem(length)?).ok()?;
        let entry = self.table.get(place).copied().filter(|entry| *entry != NO_ANSWER)?;
        usize::try_from(entry).ok()
    }
}

evenkeel_plugin_sdk::export_hash_scheduler!(MaglevPick);

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use evenkeel_plugin_sdk::kit::{HashSchedulerKit, server};

    #[test]
    fn picks_are_the_entries_of_the_table() {
        let mut kit = HashSchedulerKit::<MaglevPick>::new("size = 4099").unwrap();
        kit.servers(&[4, 2, 1]);
        let servers: Vec<Server> = [4, 2, 1].iter().enumerate().map(|(n, w)| server(n, *w)).collect();
        let table = maglev::table(&servers, 4_099);
        for (number, pick) in (0..).zip(kit.pick(256)) {
            let place = usize::try_from(evenkeel_plugin_sdk::kit::flow(number).hash % 4_099).unwrap();
            assert_eq!(pick, usize::try_from(table[place]).ok());
        }
    }

    #[test]
    fn without_a_usable_server_the_fallback_chooses() {
        let mut kit = HashSchedulerKit::<MaglevPick>::new("").unwrap();
        kit.servers(&[0, 0]);
        assert_eq!(kit.pick(1), [None]);
    }
}
