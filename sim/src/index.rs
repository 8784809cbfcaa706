//! Finding things by what they are called, quickly and alike on every machine: open addressing over a fixed hash.
//!
//! An [`Index`] holds the numbers of things that lie elsewhere (in a slab, in a list), not the things: whoever asks says
//! by which of them is meant. It is never walked through, so that its order has no influence on a run.

use std::net::IpAddr;

use crate::packet::AnyEnd;

/// Places of an index that holds nothing yet.
const PLACES_MIN: usize = 16;
/// An empty place. No list has so many things.
const EMPTY: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Place {
    hash: u32,
    item: u32,
}

/// The numbers of things by the hash of their names.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    /// Their number is a power of two, and at most three quarters of them are taken.
    places: Vec<Place>,
    taken: usize,
}

impl Default for Index {
    fn default() -> Self {
        Self { places: vec![Place { hash: 0, item: EMPTY }; PLACES_MIN], taken: 0 }
    }
}

impl Index {
    /// The thing under this hash that `is_meant`.
    #[inline]
    pub(crate) fn find(&self, hash: u32, mut is_meant: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut at = self.home(hash);
        // A quarter of the places is empty, so that this ends.
        loop {
            let place = self.places.get(at)?;
            if place.item == EMPTY {
                return None;
            }
            if place.hash == hash && is_meant(place.item) {
                return Some(place.item);
            }
            at = self.behind(at);
        }
    }

    /// Adds a thing that is not there yet.
    pub(crate) fn insert(&mut self, hash: u32, item: u32) {
        if (self.taken + 1) * 4 > self.places.len() * 3 {
            self.grow();
        }
        self.taken += 1;
        self.put(Place { hash, item });
    }

    /// Takes a thing out, where it is there.
    pub(crate) fn remove(&mut self, hash: u32, item: u32) {
        let mut at = self.home(hash);
        loop {
            let Some(place) = self.places.get(at).filter(|place| place.item != EMPTY) else { return };
            if place.item == item {
                break;
            }
            at = self.behind(at);
        }
        self.taken -= 1;
        self.close_gap(at);
    }

    /// Takes everything out.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Moves up what stands behind a place that has become empty, so that it is found from where it belongs.
    fn close_gap(&mut self, mut gap: usize) {
        let mut at = gap;
        loop {
            at = self.behind(at);
            let Some(place) = self.places.get(at).copied().filter(|place| place.item != EMPTY) else { break };
            let way = |from: usize, to: usize| to.wrapping_sub(from) & (self.places.len() - 1);
            if way(self.home(place.hash), at) >= way(gap, at) {
                self.set(gap, place);
                gap = at;
            }
        }
        self.set(gap, Place { hash: 0, item: EMPTY });
    }

    fn grow(&mut self) {
        let more = vec![Place { hash: 0, item: EMPTY }; self.places.len() * 2];
        for place in std::mem::replace(&mut self.places, more) {
            if place.item != EMPTY {
                self.put(place);
            }
        }
    }

    fn put(&mut self, place: Place) {
        let mut at = self.home(place.hash);
        while self.places.get(at).is_some_and(|known| known.item != EMPTY) {
            at = self.behind(at);
        }
        self.set(at, place);
    }

    fn set(&mut self, at: usize, place: Place) {
        if let Some(known) = self.places.get_mut(at) {
            *known = place;
        }
    }

    /// The place where a thing of this hash belongs.
    fn home(&self, hash: u32) -> usize {
        usize::try_from(hash).unwrap_or(0) & (self.places.len() - 1)
    }

    fn behind(&self, at: usize) -> usize {
        (at + 1) & (self.places.len() - 1)
    }
}

/// Mixes a word into a hash: the two halves of a product, one over the other.
#[inline]
const fn mix(hash: u64, word: u64) -> u64 {
    let product = (hash ^ word) as u128 * 0x9e37_79b9_7f4a_7c15;
    #[allow(clippy::cast_possible_truncation, reason = "the halves of the product")]
    {
        (product >> 64) as u64 ^ product as u64
    }
}

/// The hash of some words.
#[inline]
pub(crate) fn hash<const N: usize>(words: [u64; N]) -> u32 {
    let mixed = words.into_iter().fold(0x2545_f491_4f6c_dd1d, mix);
    #[allow(clippy::cast_possible_truncation, reason = "the upper half of 64 mixed bits")]
    {
        (mixed >> 32) as u32
    }
}

/// The hash of two words by one multiplication, for caches that are asked for every packet.
#[inline]
pub(crate) const fn hash_pair(one: u64, other: u64) -> u32 {
    let product = (one ^ 0x2545_f491_4f6c_dd1d) as u128 * (other ^ 0x9e37_79b9_7f4a_7c15) as u128;
    #[allow(clippy::cast_possible_truncation, reason = "the lower half of both halves")]
    {
        (product >> 64) as u32 ^ product as u32
    }
}

/// An address as a word; two of IPv6 may share one.
#[inline]
pub(crate) fn address_word(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => {
            #[allow(clippy::cast_possible_truncation, reason = "the halves of the address")]
            {
                mix(1 << 63, (address.to_bits() >> 64) as u64) ^ address.to_bits() as u64
            }
        }
    }
}

/// An end as a word; the port is where addresses of IPv4 have nothing.
#[inline]
pub(crate) fn end_word(end: AnyEnd) -> u64 {
    address_word(end.address) ^ (u64::from(end.port) << 40)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;
    use std::collections::BTreeMap;

    #[test]
    fn an_index_finds_what_a_map_finds() {
        // Few hashes, so that there are many of one; and many.
        for spread in [3, 40, 1 << 40] {
            let mut draw = Stream::new(spread, "index", "test");
            let (mut index, mut map) = (Index::default(), BTreeMap::new());
            let mut names: Vec<u64> = Vec::new();
            for _ in 0..3_000 {
                let name = draw.below(400);
                let hash = hash([name % spread]);
                let item = index.find(hash, |item| names[item as usize] == name);
                assert_eq!(item, map.get(&name).copied(), "{name}");
                match item {
                    Some(item) => {
                        index.remove(hash, item);
                        map.remove(&name);
                    }
                    None => {
                        let item = u32::try_from(names.len()).unwrap();
                        names.push(name);
                        index.insert(hash, item);
                        map.insert(name, item);
                    }
                }
                assert_eq!(index.taken, map.len());
            }
            for (name, item) in &map {
                let found = index.find(hash([name % spread]), |item| names[item as usize] == *name);
                assert_eq!(found, Some(*item));
            }
            index.clear();
            assert!(map.keys().all(|name| index.find(hash([name % spread]), |_| true).is_none()));
        }
    }

    #[test]
    fn ends_that_differ_a_little_differ_in_their_hash() {
        let end = |address: &str, port| AnyEnd { address: address.parse().unwrap(), port };
        let mut hashes = std::collections::BTreeSet::new();
        let mut count = 0;
        for host in 0..32 {
            for port in 1_024..2_048 {
                for network in ["10.0.0.", "fd00::"] {
                    hashes.insert(hash([end_word(end(&format!("{network}{host}"), port))]));
                    count += 1;
                }
            }
        }
        // Of 65,536 things, half a pair shares one of 2^32 hashes on average.
        assert!(hashes.len() + 8 > count, "{} of {count}", hashes.len());
    }
}
