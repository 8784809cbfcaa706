//! From a tuple's hash to an entry: open addressing with linear probing over slots of 8 bytes.
//!
//! A slot holds the upper half of the hash and a handle (entry and direction), so that a probe reads one cache
//! line and asks the entry only when 32 bits of a keyed hash agree. Deletion shifts back: no tombstones, so
//! a table that has churned for a year is as fast as a new one.

use alloc::vec;
use alloc::vec::Vec;

/// What a slot leads to: an entry and a direction, below 2^32 - 1.
pub(super) type Handle = u32;

#[derive(Debug)]
pub(super) struct Index {
    /// Upper 32 bits: upper half of the hash. Lower 32 bits: handle + 1; zero is an empty slot.
    slots: Vec<u64>,
    /// The home of a hash is what is left of it when this many lower bits are shifted out (at least 32).
    shift: u32,
}

const HANDLE: u64 = 0xffff_ffff;

impl Index {
    /// Room for `keys` keys at a load of at most two thirds.
    pub(super) fn for_keys(keys: usize) -> Self {
        let bits = (keys.max(2) * 3 / 2 + 1).next_power_of_two().trailing_zeros();
        debug_assert!(bits <= 32, "the home is cut from the 32 bits that a slot keeps");
        Self { slots: vec![0; 1 << bits], shift: 64 - bits }
    }

    #[allow(clippy::cast_possible_truncation, reason = "at most 32 bits are left, and usize has them")]
    #[inline]
    fn home(&self, hash: u64) -> usize {
        (hash >> self.shift) as usize
    }

    fn next(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }

    fn slot(&self, at: usize) -> u64 {
        // The mask of `next` and the shift of `home` keep `at` inside.
        self.slots.get(at).copied().unwrap_or(0)
    }

    /// The first handle that a probe for `hash` meets, right or wrong, plus one; or zero. Reading it early warms the
    /// cache.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "the mask leaves 32 bits")]
    pub(super) fn hint(&self, hash: u64) -> u32 {
        (self.slot(self.home(hash)) & HANDLE) as u32
    }

    /// The handle of `hash` for which `is_it` holds.
    #[inline(always)]
    pub(super) fn find(&self, hash: u64, mut is_it: impl FnMut(Handle) -> bool) -> Option<Handle> {
        let home = self.home(hash);
        let slot = self.slot(home);
        let found = handle(slot)?;
        // Most are at home, and to say so takes no loop.
        if agrees(slot, hash) && is_it(found) {
            return Some(found);
        }
        self.find_behind(home, hash, is_it)
    }

    #[inline(never)]
    fn find_behind(&self, home: usize, hash: u64, mut is_it: impl FnMut(Handle) -> bool) -> Option<Handle> {
        let mut at = self.next(home);
        // An index is never full, so a probe ends at an empty slot; the bound guards against our own bugs.
        for _ in 0..self.slots.len() {
            let slot = self.slot(at);
            let found = handle(slot)?;
            if agrees(slot, hash) && is_it(found) {
                return Some(found);
            }
            at = self.next(at);
        }
        None
    }

    /// Enters `handle` under `hash`. The caller has looked first and stays below the number of keys.
    pub(super) fn insert(&mut self, hash: u64, handle: Handle) {
        let mut at = self.home(hash);
        for _ in 0..self.slots.len() {
            if self.slot(at) == 0 {
                break;
            }
            at = self.next(at);
        }
        if let Some(slot) = self.slots.get_mut(at) {
            debug_assert_eq!(*slot, 0, "an index is never full");
            *slot = (hash & !HANDLE) | (u64::from(handle) + 1);
        }
    }

    /// Removes `handle` from under `hash`. Returns whether it was there.
    pub(super) fn remove(&mut self, hash: u64, handle: Handle) -> bool {
        let wanted = (hash & !HANDLE) | (u64::from(handle) + 1);
        let mut hole = self.home(hash);
        loop {
            match self.slot(hole) {
                0 => return false,
                slot if slot == wanted => break,
                _ => hole = self.next(hole),
            }
        }
        // Later slots of the run move up into the hole, unless that would put them before their home.
        let mask = self.slots.len() - 1;
        let mut at = self.next(hole);
        loop {
            let slot = self.slot(at);
            if slot == 0 {
                break;
            }
            let distance_from_home = at.wrapping_sub(self.home(slot)) & mask;
            let distance_from_hole = at.wrapping_sub(hole) & mask;
            if distance_from_home >= distance_from_hole {
                self.put(hole, slot);
                hole = at;
            }
            at = self.next(at);
        }
        self.put(hole, 0);
        true
    }

    fn put(&mut self, at: usize, value: u64) {
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = value;
        }
    }
}

/// Whether a slot may be that of `hash`.
const fn agrees(slot: u64, hash: u64) -> bool {
    (slot ^ hash) & !HANDLE == 0
}

#[allow(clippy::cast_possible_truncation, reason = "the mask leaves 32 bits")]
fn handle(slot: u64) -> Option<Handle> {
    ((slot & HANDLE) as u32).checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use proptest::prelude::*;

    proptest! {
        /// Few homes, so that runs are long, meet and wrap around the end.
        #[test]
        fn an_index_behaves_like_a_map(steps in proptest::collection::vec((0_u64..6, 0_u32..12, any::<bool>()), 1..400)) {
            let mut index = Index::for_keys(32);
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            for (home, key, is_insert) in steps {
                // Homes at the very end of the table (64 slots) wrap.
                let hash = ((60 + home) % 64) << 58 | u64::from(key) << 33 | 7;
                let known = model.iter().any(|(k, h)| *k == key && *h == hash);
                if is_insert && !model.contains_key(&key) {
                    index.insert(hash, key);
                    model.insert(key, hash);
                } else if !is_insert {
                    prop_assert_eq!(index.remove(hash, key), known);
                    if known { model.remove(&key); }
                }
                for (key, hash) in &model {
                    prop_assert_eq!(index.find(*hash, |handle| handle == *key), Some(*key));
                }
                let used = index.slots.iter().filter(|slot| **slot != 0).count();
                prop_assert_eq!(used, model.len());
            }
        }
    }
}
