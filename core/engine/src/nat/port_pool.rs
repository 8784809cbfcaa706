//! Ports for source NAT: which of ours are free towards which real server.

use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use crate::wire::{Address, Protocol};

/// A port may be used once per combination of these, since then the reply tuple is unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PoolKey {
    /// Our address, which real servers see.
    pub mapped: Address,
    /// The real server.
    pub server: Address,
    /// Its port.
    pub server_port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

const PORTS: usize = 1 << 16;
const WORD: usize = 64;

/// The ports that flows hold. A pool costs 8 KiB and exists only while one of its ports is held, so there
/// are never more pools than flows, nor than real servers times mapped addresses.
#[derive(Debug, Default)]
pub struct PortPools {
    pools: BTreeMap<PoolKey, Pool>,
}

#[derive(Clone, Debug)]
struct Pool {
    /// A bit for each port that is held.
    held: Vec<u64>,
    count: u32,
}

impl PortPools {
    /// Takes a free port of `range`: `wanted` itself if possible, else the first free one at or after a place that
    /// `spread` chooses (RFC 6056 s.3.3: hash-based).
    pub fn take(
        &mut self,
        key: PoolKey,
        wanted: u16,
        range: &RangeInclusive<u16>,
        spread: u64,
    ) -> Option<u16> {
        if range.is_empty() {
            return None;
        }
        match self.pools.entry(key) {
            Entry::Occupied(mut pool) => pool.get_mut().take(wanted, range, spread),
            Entry::Vacant(place) => {
                place.insert(Pool { held: vec![0; PORTS / WORD], count: 0 }).take(wanted, range, spread)
            }
        }
    }

    /// Gives `port` back.
    pub fn release(&mut self, key: PoolKey, port: u16) {
        let Entry::Occupied(mut pool) = self.pools.entry(key) else { return };
        pool.get_mut().release(port);
        if pool.get().count == 0 {
            pool.remove();
        }
    }

    /// The ports that are held of a pool, as ranges.
    pub(crate) fn ranges(&self, key: &PoolKey) -> Vec<(u16, u16)> {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        let Some(pool) = self.pools.get(key) else { return ranges };
        for port in (0..=u16::MAX).filter(|port| pool.is_held(*port)) {
            match ranges.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(port) => *last = port,
                _ => ranges.push((port, port)),
            }
        }
        ranges
    }

    /// Has these ports of a pool held.
    pub(crate) fn hold(&mut self, key: PoolKey, ports: RangeInclusive<u16>) {
        for port in ports {
            self.take(key, port, &(port..=port), 0);
        }
    }

    /// The pools of `keys` alone.
    #[must_use]
    pub fn fork(&self, keys: &[PoolKey]) -> Self {
        let pools = keys.iter().filter_map(|key| Some((*key, self.pools.get(key)?.clone())));
        Self { pools: pools.collect() }
    }

    /// How many ports are held towards all real servers together.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.pools.values().map(|pool| u64::from(pool.count)).sum()
    }
}

impl Pool {
    fn take(&mut self, wanted: u16, range: &RangeInclusive<u16>, spread: u64) -> Option<u16> {
        let (first, last) = (*range.start(), *range.end());
        let size = u64::from(last - first) + 1;
        let port = if range.contains(&wanted) && !self.is_held(wanted) {
            wanted
        } else {
            // The remainder is below the size, so the sum stays in the range.
            let start = first.saturating_add(u16::try_from(spread % size).unwrap_or(0));
            self.first_free(start, last).or_else(|| self.first_free(first, start))?
        };
        if let Some(word) = self.held.get_mut(usize::from(port) / WORD) {
            *word |= 1 << (usize::from(port) % WORD);
            self.count += 1;
        }
        Some(port)
    }

    fn release(&mut self, port: u16) {
        let bit = 1 << (usize::from(port) % WORD);
        if let Some(word) = self.held.get_mut(usize::from(port) / WORD)
            && *word & bit != 0
        {
            *word &= !bit;
            self.count -= 1;
        }
    }

    fn is_held(&self, port: u16) -> bool {
        let word = self.held.get(usize::from(port) / WORD).copied().unwrap_or(0);
        word >> (usize::from(port) % WORD) & 1 == 1
    }

    /// The first free port from `first` to `last`, both included: at most 1,024 words are read.
    fn first_free(&self, first: u16, last: u16) -> Option<u16> {
        let (from, to) = (usize::from(first), usize::from(last));
        for at in from / WORD..=to / WORD {
            let mut free = !self.held.get(at).copied().unwrap_or(u64::MAX);
            if at == from / WORD {
                free &= u64::MAX << (from % WORD);
            }
            if at == to / WORD {
                free &= u64::MAX >> (WORD - 1 - to % WORD);
            }
            if free != 0 {
                return u16::try_from(at * WORD + free.trailing_zeros() as usize).ok();
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use proptest::prelude::*;

    fn key() -> PoolKey {
        let address = |last| Address::v4([10, 0, 0, last]);
        PoolKey { mapped: address(3), server: address(20), server_port: 80, protocol: Protocol::UDP }
    }

    #[test]
    fn a_free_port_is_kept_and_a_held_one_replaced() {
        let mut pools = PortPools::default();
        assert_eq!(pools.take(key(), 40_000, &(1024..=65_535), 7), Some(40_000));
        let other = pools.take(key(), 40_000, &(1024..=65_535), 7);
        assert_eq!(other, Some(1031));
        pools.release(key(), 40_000);
        assert_eq!(pools.take(key(), 40_000, &(1024..=65_535), 7), Some(40_000));
    }

    #[test]
    fn four_ports_serve_four_flows_and_then_the_pool_is_gone_when_they_end() {
        let mut pools = PortPools::default();
        let ports: Vec<_> = (0..6).map(|n| pools.take(key(), n, &(5000..=5003), 9)).collect();
        assert_eq!(ports, [Some(5001), Some(5002), Some(5003), Some(5000), None, None]);
        (5000..=5003).for_each(|port| pools.release(key(), port));
        assert!(pools.pools.is_empty());
    }

    proptest! {
        #[test]
        fn no_port_is_given_twice_and_none_is_left_unused(
            first in 0_u16..=65_535, size in 0_u16..200, wanted: [u16; 8], spread: u64,
        ) {
            let range = first..=first.saturating_add(size);
            let mut pools = PortPools::default();
            let mut given = BTreeSet::new();
            for turn in 0..=range.len() {
                let wanted = wanted[turn % wanted.len()];
                let port = pools.take(key(), wanted, &range, spread.wrapping_mul(turn as u64 + 1));
                prop_assert_eq!(port.is_none(), given.len() == range.len());
                if let Some(port) = port {
                    prop_assert!(range.contains(&port) && given.insert(port));
                }
            }
            prop_assert_eq!(pools.held(), given.len() as u64);
        }
    }
}
