//! How much memory a scheduler keeps: what its lists hold, counted by their entries.
//!
//! In: lists. Out: bytes. What the allocator adds and what trees need between their entries is not counted, so that the
//! figure is the same on every machine.

use alloc::collections::{BTreeMap, BinaryHeap, VecDeque};
use alloc::vec::Vec;
use core::mem::{size_of, size_of_val};

/// Something with entries on the heap.
pub(super) trait Held {
    /// The bytes of its entries.
    fn held(&self) -> usize;
}

impl<T> Held for Vec<T> {
    fn held(&self) -> usize {
        size_of_val(self.as_slice())
    }
}

impl<T> Held for VecDeque<T> {
    fn held(&self) -> usize {
        self.len().saturating_mul(size_of::<T>())
    }
}

impl<T> Held for BinaryHeap<T> {
    fn held(&self) -> usize {
        self.len().saturating_mul(size_of::<T>())
    }
}

impl<K, V> Held for BTreeMap<K, V> {
    fn held(&self) -> usize {
        self.len().saturating_mul(size_of::<(K, V)>())
    }
}

/// A scheduler and the entries of its lists.
pub(super) fn total<S>(scheduler: &S, lists: &[&dyn Held]) -> u64 {
    let lists = lists.iter().fold(size_of_val(scheduler), |sum, list| sum.saturating_add(list.held()));
    u64::try_from(lists).unwrap_or(u64::MAX)
}
