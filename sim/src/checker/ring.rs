//! What is remembered of many things: each found by its name, and the oldest forgotten when there is no room.

use crate::index::Index;
use crate::net::{index, number};

/// Things that are remembered of a kind.
pub(super) const RING_MAX: usize = 1 << 16;

/// Things by name.
#[derive(Debug)]
pub(super) struct Ring<N, T> {
    /// In the order in which their names came first, as a ring when all places are taken.
    all: Vec<(N, T)>,
    oldest: usize,
    by_name: Index,
    hash: fn(&N) -> u32,
}

impl<N: Copy + PartialEq, T> Ring<N, T> {
    pub(super) fn new(hash: fn(&N) -> u32) -> Self {
        Self { all: Vec::new(), oldest: 0, by_name: Index::default(), hash }
    }

    /// Puts a thing in; gives the one that had its name.
    pub(super) fn insert(&mut self, name: N, thing: T) -> Option<T> {
        if let Some(known) = self.get_mut(&name) {
            return Some(std::mem::replace(known, thing));
        }
        let place = if self.all.len() < RING_MAX {
            self.all.push((name, thing));
            self.all.len() - 1
        } else {
            let place = self.oldest;
            if let Some(known) = self.all.get_mut(place) {
                self.by_name.remove((self.hash)(&known.0), number(place));
                *known = (name, thing);
            }
            self.oldest = (place + 1) % RING_MAX;
            place
        };
        self.by_name.insert((self.hash)(&name), number(place));
        None
    }

    #[inline]
    pub(super) fn get(&self, name: &N) -> Option<&T> {
        self.place(name).and_then(|place| self.all.get(place)).map(|(_, thing)| thing)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, name: &N) -> Option<&mut T> {
        self.place(name).and_then(|place| self.all.get_mut(place)).map(|(_, thing)| thing)
    }

    fn place(&self, name: &N) -> Option<usize> {
        let is_meant = |place| self.all.get(index(place)).is_some_and(|(known, _)| known == name);
        self.by_name.find((self.hash)(name), is_meant).map(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::hash;

    #[test]
    fn the_oldest_is_forgotten_when_there_is_no_room() {
        let mut ring = Ring::new(|name: &usize| hash([*name as u64]));
        for name in 0..RING_MAX {
            assert_eq!(ring.insert(name, name), None);
        }
        assert_eq!(ring.insert(0, 7), Some(0), "it keeps its place");
        for name in RING_MAX..RING_MAX + 3 {
            ring.insert(name, name);
        }
        let known: Vec<bool> = (0..RING_MAX + 3).map(|name| ring.get(&name).is_some()).collect();
        assert_eq!(known, [vec![false; 3], vec![true; RING_MAX]].concat());
        *ring.get_mut(&5).unwrap() = 1;
        assert_eq!(ring.get(&5), Some(&1));
    }
}
