//! What became of packets like this one: ways that have been found, so that the next packet need not look again.
//!
//! An array of places; two keys that share one push each other out. What is found does not depend on it: whatever
//! changes a way empties the whole.

use super::drops::KernelDrop;
use super::routes::DeviceId;

/// Places of a new cache: a host with a few peers needs no more.
const PLACES_MIN: usize = 16;
/// The most places: 64 bytes each.
const PLACES_MAX: usize = 4_096;

/// What a way depends on. Protocol and ports are 0 where no rule reads them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) source: u128,
    pub(super) destination: u128,
    /// Ports, protocol and the device that the packet came in by.
    pub(super) rest: u64,
    pub(super) mark: u32,
}

impl Key {
    #[allow(clippy::cast_possible_truncation, reason = "both halves are used")]
    const fn hash(&self) -> u64 {
        let source = self.source as u64 ^ (self.source >> 64) as u64;
        let destination = self.destination as u64 ^ (self.destination >> 64) as u64;
        let mixed = source.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ destination.rotate_left(32);
        (mixed ^ self.rest.rotate_left(17)).wrapping_mul(0xd6e8_feb8_6659_fd93) >> 32
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) enum Decision {
    /// It is for the machine itself.
    Local,
    /// It leaves for this neighbour.
    Forward { neighbour: u32, device: DeviceId, mtu: u16 },
    /// It goes into a TUN device.
    Tun { tun: u16, device: DeviceId, mtu: u16 },
    /// It ends.
    Drop(KernelDrop),
    /// It ends, and its sender is told.
    Refuse(KernelDrop),
}

#[derive(Clone, Copy, Debug)]
struct Place {
    key: Key,
    generation: u32,
    decision: Decision,
}

/// Ways that have been found.
#[derive(Debug)]
pub(super) struct Cache {
    places: Vec<Place>,
    /// Places of an earlier one are empty.
    generation: u32,
    /// Places that were taken anew since the cache last grew or was emptied.
    taken: usize,
    is_on: bool,
}

impl Cache {
    pub(super) fn new() -> Self {
        Self { places: empty(PLACES_MIN), generation: 1, taken: 0, is_on: true }
    }

    /// Lets every packet look anew, with all that it has; for tests.
    #[cfg(test)]
    pub(super) const fn switch_off(&mut self) {
        self.is_on = false;
    }

    /// Whether anything is remembered.
    pub(super) const fn is_on(&self) -> bool {
        self.is_on
    }

    pub(super) fn find(&self, key: &Key) -> Option<Decision> {
        let place = self.places.get(self.place(key))?;
        (place.generation == self.generation && place.key == *key).then_some(place.decision)
    }

    pub(super) fn put(&mut self, key: Key, decision: Decision) {
        if !self.is_on {
            return;
        }
        self.taken += 1;
        if self.taken > self.places.len() && self.places.len() < PLACES_MAX {
            self.places = empty(self.places.len() * 2);
            self.taken = 0;
        }
        let index = self.place(&key);
        if let Some(place) = self.places.get_mut(index) {
            *place = Place { key, generation: self.generation, decision };
        }
    }

    pub(super) fn clear(&mut self) {
        self.taken = 0;
        self.generation = self.generation.wrapping_add(1);
        if self.generation == 0 {
            self.generation = 1;
            self.places = empty(self.places.len());
        }
    }

    fn place(&self, key: &Key) -> usize {
        usize::try_from(key.hash()).unwrap_or(0) & (self.places.len() - 1)
    }
}

fn empty(count: usize) -> Vec<Place> {
    vec![Place { key: Key::default(), generation: 0, decision: Decision::Local }; count]
}
