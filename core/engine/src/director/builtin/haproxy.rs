//! What the schedulers of HAProxy share: its integer hash, its map and its ring.
//!
//! Integers throughout, as in HAProxy 2.6, so that clients keep their servers when they change over.

use alloc::collections::{BTreeMap, BTreeSet, BinaryHeap};
use alloc::vec::Vec;
use core::cmp::Reverse;

use super::held::Held;
use super::ipvs::gcd;
use crate::director::{ServerId, ServerView};

/// The highest weight of HAProxy. Higher ones count in proportion to the highest.
const WEIGHT_MAX: u32 = 256;

/// Points on the ring for each unit of weight.
const SCALE: u32 = 16;

/// The most entries of a map: 4,096 servers of the highest weight. With more, weights count for less.
const MAP_MAX: u64 = 1 << 20;

/// The most points of a ring: 2,048 servers of the highest weight. With more, each has fewer.
const RING_MAX: u64 = 1 << 23;

/// A 32-bit avalanche in six steps (Jenkins), spread by a multiplication.
pub(super) const fn avalanche(value: u32) -> u32 {
    let a = value;
    let a = a.wrapping_add(0x7ed5_5d16).wrapping_add(a << 12);
    let a = (a ^ 0xc761_c23c) ^ (a >> 19);
    let a = a.wrapping_add(0x1656_67b1).wrapping_add(a << 5);
    let a = a.wrapping_add(0xd3a2_646c) ^ (a << 9);
    let a = a.wrapping_add(0xfd70_46c5).wrapping_add(a << 3);
    let a = (a ^ 0xb55a_4f09) ^ (a >> 16);
    a.wrapping_mul(3_221_225_473)
}

/// Weights as HAProxy has them: none above 256, and 0 for a server without a share.
pub(super) fn weights(servers: &[ServerView]) -> Vec<u32> {
    let weights = servers.iter().map(|server| if server.is_member() { server.weight } else { 0 });
    let heaviest = servers.iter().map(|server| server.weight).max().unwrap_or(0);
    let scaled = weights.map(|weight| match weight {
        0 => 0,
        _ if heaviest <= WEIGHT_MAX => weight,
        // Below 2^24.
        _ => (weight * WEIGHT_MAX / heaviest).max(1),
    });
    scaled.collect()
}

/// The unit in which a map counts weights. HAProxy finds it once for a list of servers, and keeps it when weights change
/// later on.
#[derive(Clone, Debug, Default)]
pub(super) struct Unit {
    ids: Vec<ServerId>,
    unit: u32,
}

impl Unit {
    /// The weights of `servers` in their unit, rounded up.
    pub(super) fn divide(&mut self, servers: &[ServerView]) -> Vec<u32> {
        let ids = servers.iter().map(|server| server.id);
        if self.unit == 0 || !ids.clone().eq(self.ids.iter().copied()) {
            self.ids = ids.collect();
            self.unit = weights(servers).into_iter().fold(0, gcd);
        }
        let unit = self.unit.max(1);
        weights(servers).into_iter().map(|weight| weight.div_ceil(unit)).collect()
    }
}

/// The map over servers of these weights: in each of as many rounds as there is weight everybody's score grows by its
/// weight, and the first with the most whole turns saved up pays one. Places in `weights`; empty when nobody has weight.
pub(super) fn map(weights: &[u32]) -> Vec<u16> {
    let sum: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    let weight = |weight: u32| match u64::from(weight) {
        weight if sum <= MAP_MAX || weight == 0 => weight,
        weight => (weight * MAP_MAX / sum).max(1),
    };
    let weights: Vec<u64> = weights.iter().map(|own| weight(*own)).collect();
    let total: u64 = weights.iter().sum();
    // Turns that each has saved up, the most first, and the round in which each saves the next one.
    let mut saved: BTreeSet<(Reverse<i64>, usize)> = BTreeSet::new();
    let mut next: BinaryHeap<Reverse<(u64, usize, u64)>> = BinaryHeap::new();
    let mut turns: Vec<i64> = weights.iter().map(|_| 0).collect();
    let round = |weight: u64, turn: u64| (total * turn).div_ceil(weight);
    for (place, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0) {
        saved.insert((Reverse(0), place));
        next.push(Reverse((round(*weight, 1), place, 1)));
    }
    let mut map = Vec::new();
    for now in 1..=total {
        while let Some(Reverse((due, place, turn))) =
            next.peek().copied().filter(|Reverse((due, ..))| *due <= now)
        {
            next.pop();
            debug_assert!(due <= now, "in order");
            change(&mut saved, &mut turns, place, 1);
            if let Some(weight) = weights.get(place).filter(|_| turn < total) {
                next.push(Reverse((round(*weight, turn + 1), place, turn + 1)));
            }
        }
        let Some((_, place)) = saved.first().copied() else { break };
        change(&mut saved, &mut turns, place, -1);
        map.push(u16::try_from(place).unwrap_or(u16::MAX));
    }
    map
}

fn change(saved: &mut BTreeSet<(Reverse<i64>, usize)>, turns: &mut [i64], place: usize, by: i64) {
    if let Some(turns) = turns.get_mut(place) {
        saved.remove(&(Reverse(*turns), place));
        *turns += by;
        saved.insert((Reverse(*turns), place));
    }
}

/// The numbers by which HAProxy tells servers apart: each new one gets the lowest that is free, from 1.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbers(BTreeMap<ServerId, u32>);

impl Numbers {
    /// The number of each server, those that are there no longer give theirs back.
    fn of(&mut self, servers: &[ServerView]) -> Vec<u32> {
        let known = core::mem::take(&mut self.0);
        let kept = servers.iter().filter_map(|server| Some((server.id, *known.get(&server.id)?)));
        self.0 = kept.collect();
        let mut taken: BTreeSet<u32> = self.0.values().copied().collect();
        let mut lowest = 1;
        for server in servers {
            self.0.entry(server.id).or_insert_with(|| {
                while taken.contains(&lowest) {
                    lowest += 1;
                }
                taken.insert(lowest);
                lowest
            });
        }
        servers.iter().filter_map(|server| self.0.get(&server.id).copied()).collect()
    }
}

/// The ring: points of all servers, by hash.
#[derive(Clone, Debug, Default)]
pub(super) struct Ring {
    numbers: Numbers,
    /// What the points were made from.
    built: Vec<(ServerId, u32)>,
    points: Vec<(u32, u16)>,
}

impl Ring {
    /// Becomes the ring of `servers`.
    pub(super) fn update(&mut self, servers: &[ServerView]) {
        let weights = weights(servers);
        let wanted: Vec<(ServerId, u32)> = servers.iter().map(|server| server.id).zip(weights).collect();
        if wanted == self.built {
            return;
        }
        let total: u64 = wanted.iter().map(|(_, weight)| u64::from(weight * SCALE)).sum();
        let numbers = self.numbers.of(servers);
        self.points.clear();
        for ((place, number), (_, weight)) in (0_u16..).zip(numbers).zip(&wanted) {
            let count = match u64::from(weight * SCALE) {
                count if total <= RING_MAX || count == 0 => count,
                count => (count * RING_MAX / total).max(1),
            };
            let first = number.wrapping_mul(WEIGHT_MAX * SCALE);
            let keys =
                (0..u32::try_from(count).unwrap_or(0)).map(|point| avalanche(first.wrapping_add(point)));
            self.points.extend(keys.map(|key| (key, place)));
        }
        // Stable: of equal points the one that came first stays first.
        self.points.sort_by_key(|(key, _)| *key);
        self.built = wanted;
    }

    /// Every server from the point next to `hash` on, along the ring; servers come as often as they have points.
    pub(super) fn from(&self, hash: u32) -> impl Iterator<Item = usize> {
        let after = self.points.partition_point(|(key, _)| *key < hash);
        let count = self.points.len();
        let place = |at: usize| at.checked_rem(count).unwrap_or(0);
        let (next, before) = (place(after), place(after + count.saturating_sub(1)));
        let distance = |at: usize| self.points.get(at).map_or(0, |(key, _)| *key);
        let is_before = hash.wrapping_sub(distance(before)) <= distance(next).wrapping_sub(hash);
        let first = if is_before { before } else { next };
        let (head, tail) = self.points.split_at(first.min(count));
        tail.iter().chain(head).map(|(_, server)| usize::from(*server))
    }
}

impl Held for Unit {
    fn held(&self) -> usize {
        self.ids.held()
    }
}

impl Held for Ring {
    fn held(&self) -> usize {
        let both = self.built.held().saturating_add(self.points.held());
        both.saturating_add(self.numbers.0.held())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The map as it is defined, round after round.
    fn slow_map(weights: &[u32]) -> Vec<u16> {
        let total: i64 = weights.iter().map(|weight| i64::from(*weight)).sum();
        let mut scores = vec![0_i64; weights.len()];
        let mut map = Vec::new();
        for _ in 0..total {
            scores.iter_mut().zip(weights).for_each(|(score, weight)| *score += i64::from(*weight));
            let turns = |place: &usize| (scores[*place] + total) / total;
            let most = (0..weights.len())
                .filter(|place| weights[*place] > 0)
                .map(|place| turns(&place))
                .max()
                .unwrap();
            let chosen =
                (0..weights.len()).find(|place| weights[*place] > 0 && turns(place) == most).unwrap();
            scores[chosen] -= total;
            map.push(u16::try_from(chosen).unwrap());
        }
        map
    }

    extern crate std;
    use std::vec;

    proptest! {
        #[test]
        fn the_map_is_that_of_its_definition(weights in proptest::collection::vec(0_u32..40, 0..12)) {
            prop_assert_eq!(map(&weights), slow_map(&weights));
        }

        #[test]
        fn the_closer_point_of_the_ring_wins_and_the_one_before_among_equals(hashes in proptest::collection::vec(any::<u32>(), 20)) {
            let mut ring = Ring { points: vec![(10, 0), (10, 1), (20, 2), (0x8000_0000, 3), (0xffff_fff0, 4)], ..Ring::default() };
            for (hash, server) in [(10, 0), (11, 1), (15, 1), (16, 2), (20, 2), (0xffff_fff1, 4), (0xffff_fffe, 0), (0xffff_fffd, 4), (3, 0)] {
                prop_assert_eq!(ring.from(hash).next(), Some(server), "{}", hash);
            }
            for hash in hashes {
                let distance = |at: u32| (at.wrapping_sub(hash)).min(hash.wrapping_sub(at));
                let nearest = ring.points.iter().map(|(at, _)| distance(*at)).min();
                let chosen = ring.from(hash).next().unwrap();
                prop_assert_eq!(ring.points.iter().find(|(_, server)| usize::from(*server) == chosen).map(|(at, _)| distance(*at)), nearest);
                prop_assert_eq!(ring.from(hash).count(), 5);
            }
            ring.points.clear();
            prop_assert_eq!(ring.from(7).next(), None);
        }
    }

    #[test]
    fn maps_are_bounded_and_keep_the_shares() {
        let map = map(&[256; 5000]);
        assert!(map.len() <= 1 << 20, "{}", map.len());
        let of = |server: u16| map.iter().filter(|other| **other == server).count();
        assert_eq!((of(0), of(4999)), (map.len() / 5000, map.len() / 5000));
    }
}
