//! What is remembered of many things: each found by its name, and the oldest forgotten when there is no room.

use crate::index::Index;
use crate::net::{index, number};

/// Things that are remembered of a kind.
pub(super) const RING_MAX: usize = 1 << 16;

/// What things are found by.
pub(super) trait Name: Copy + PartialEq {
    /// Its hash.
    fn hash(&self) -> u32;
}

/// Which of all things it is that were ever put in: it is found by that until it is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u64);

/// Things by name.
#[derive(Debug)]
pub(super) struct Ring<N, T> {
    /// In the order in which their names came first, as a ring when all places are taken.
    all: Vec<(N, T)>,
    /// Things that there is no room for any more.
    forgotten: u64,
    by_name: Index,
}

impl<N, T> Default for Ring<N, T> {
    fn default() -> Self {
        Self { all: Vec::new(), forgotten: 0, by_name: Index::default() }
    }
}

impl<N: Name, T> Ring<N, T> {
    /// Puts a thing in; gives its place, and the one that had its name.
    pub(super) fn insert(&mut self, name: N, thing: T) -> (Place, Option<T>) {
        if let Some(place) = self.place(&name)
            && let Some(known) = self.at_mut(place)
        {
            return (place, Some(std::mem::replace(known, thing)));
        }
        let slot = if self.all.len() < RING_MAX {
            self.all.push((name, thing));
            self.all.len() - 1
        } else {
            let slot = slot(self.forgotten);
            if let Some(known) = self.all.get_mut(slot) {
                self.by_name.remove(known.0.hash(), number(slot));
                *known = (name, thing);
            }
            self.forgotten += 1;
            slot
        };
        self.by_name.insert(name.hash(), number(slot));
        (self.place_of(slot), None)
    }

    #[inline]
    pub(super) fn get(&self, name: &N) -> Option<&T> {
        self.place(name).and_then(|place| self.at(place))
    }

    #[inline]
    pub(super) fn get_mut(&mut self, name: &N) -> Option<&mut T> {
        self.place(name).and_then(|place| self.at_mut(place))
    }

    /// Where the thing of this name lies.
    #[inline]
    pub(super) fn place(&self, name: &N) -> Option<Place> {
        let is_meant = |slot| self.all.get(index(slot)).is_some_and(|(known, _)| known == name);
        self.by_name.find(name.hash(), is_meant).map(|slot| self.place_of(index(slot)))
    }

    #[inline]
    pub(super) fn at(&self, place: Place) -> Option<&T> {
        let known = self.all.get(slot(place.0)).filter(|_| place.0 >= self.forgotten);
        known.map(|(_, thing)| thing)
    }

    #[inline]
    pub(super) fn at_mut(&mut self, place: Place) -> Option<&mut T> {
        let known = self.all.get_mut(slot(place.0)).filter(|_| place.0 >= self.forgotten);
        known.map(|(_, thing)| thing)
    }

    /// The place of what lies in a slot: those before the oldest have been taken anew.
    fn place_of(&self, at: usize) -> Place {
        let turn = self.forgotten - self.forgotten % RING_MAX as u64;
        let is_new = at < slot(self.forgotten);
        Place(turn + at as u64 + if is_new { RING_MAX as u64 } else { 0 })
    }
}

/// The slot of the thing with this number.
#[inline]
const fn slot(number: u64) -> usize {
    #[allow(clippy::cast_possible_truncation, reason = "reduced to below 65,536 first")]
    {
        (number % RING_MAX as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::hash;

    impl Name for usize {
        fn hash(&self) -> u32 {
            hash([*self as u64])
        }
    }

    #[test]
    fn the_oldest_is_forgotten_when_there_is_no_room() {
        let mut ring = Ring::default();
        for name in 0..RING_MAX {
            assert_eq!(ring.insert(name, name), (Place(name as u64), None));
        }
        assert_eq!(ring.insert(0, 7), (Place(0), Some(0)), "it keeps its place");
        for name in RING_MAX..RING_MAX + 3 {
            ring.insert(name, name);
        }
        let known: Vec<bool> = (0..RING_MAX + 3).map(|name| ring.get(&name).is_some()).collect();
        assert_eq!(known, [vec![false; 3], vec![true; RING_MAX]].concat());
        *ring.get_mut(&5).unwrap() = 1;
        assert_eq!(ring.get(&5), Some(&1));
        for name in 3..RING_MAX + 3 {
            assert_eq!(ring.place(&name), Some(Place(name as u64)));
        }
        assert_eq!(ring.at(Place(2)), None, "its slot is another's");
    }
}
