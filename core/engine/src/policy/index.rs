//! Finds the first of many boxes that holds a point, without looking at all of them.
//!
//! A rule is a box: a stretch in each dimension (addresses by their rank among all ends of ranges, ports, protocol,
//! interface). Boxes that leave the same dimensions open share a tree, so that rules about sources do not blur those
//! about ports. In a tree each node is the hull of its boxes; it is split where that shrinks the hulls most, or where
//! they would overlap anyway, by order. A search enters only hulls that hold the point, earlier rules first, and
//! leaves out those that come after what has been found. Memory grows with the number of boxes and nothing else.

use alloc::vec::Vec;

/// Source, destination, source port, destination port, protocol, interface.
pub(crate) const DIMENSIONS: usize = 6;

/// Boxes of a leaf: to look at so many costs less than another level.
const LEAF_MAX: usize = 4;

/// The most nodes that wait during a search: one for each level. Trees are halved, so that 2^32 boxes have 32.
const STACK_MAX: usize = 64;

/// Hulls that shrink to less than this part of two, in 16ths, are worth a split; else order is.
const GAIN_MIN: u64 = 29;

/// A packet as the trees see it.
pub(crate) type Point = [u32; DIMENSIONS];

/// A stretch in each dimension, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) low: Point,
    pub(crate) high: Point,
}

impl Region {
    /// Everything.
    pub(crate) const ALL: Self = Self { low: [0; DIMENSIONS], high: [u32::MAX; DIMENSIONS] };

    /// Narrows one dimension to what it has in common with `low..=high`.
    pub(crate) fn narrow(&mut self, dimension: usize, low: u32, high: u32) {
        if let (Some(own_low), Some(own_high)) = (self.low.get_mut(dimension), self.high.get_mut(dimension)) {
            *own_low = (*own_low).max(low);
            *own_high = (*own_high).min(high);
        }
    }

    /// What it has in common with `other`.
    pub(crate) fn narrow_to(&mut self, other: &Self) {
        for (dimension, (low, high)) in other.low.iter().zip(&other.high).enumerate() {
            self.narrow(dimension, *low, *high);
        }
    }

    /// Whether no point lies in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.low.iter().zip(&self.high).any(|(low, high)| low > high)
    }

    #[inline]
    fn holds(&self, point: &Point) -> bool {
        let ends = self.low.iter().zip(&self.high);
        point.iter().zip(ends).all(|(value, (low, high))| low <= value && value <= high)
    }

    fn hull(&mut self, other: &Self) {
        self.low.iter_mut().zip(&other.low).for_each(|(own, low)| *own = (*own).min(*low));
        self.high.iter_mut().zip(&other.high).for_each(|(own, high)| *own = (*own).max(*high));
    }

    /// Which dimensions are left open, in bits.
    fn open(&self) -> u8 {
        let ends = self.low.iter().zip(&self.high).enumerate();
        ends.map(|(place, (low, high))| u8::from(*low == 0 && *high == u32::MAX) << place).sum()
    }

    fn stretch(&self, dimension: usize) -> (u32, u32) {
        (self.low.get(dimension).copied().unwrap_or(0), self.high.get(dimension).copied().unwrap_or(0))
    }
}

/// A box and which rule it belongs to; a rule may have several.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) region: Region,
    pub(crate) order: u32,
}

/// A hull. Its children, or in a leaf its entries, lie side by side from `place` on.
#[derive(Clone, Copy, Debug)]
struct Node {
    region: Region,
    /// The least order below, and the greatest.
    first: u32,
    last: u32,
    place: u32,
    /// Entries of a leaf; 0 for a node with two children.
    entries: u32,
}

/// The boxes, ready to be asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    /// One tree for each set of open dimensions, the one with the earliest rule first.
    roots: Vec<Node>,
    nodes: Vec<Node>,
    entries: Vec<Entry>,
}

impl Index {
    /// Builds the trees. Empty boxes are left out.
    pub(crate) fn new(mut entries: Vec<Entry>) -> Self {
        entries.retain(|entry| !entry.region.is_empty());
        entries.sort_unstable_by_key(|entry| (entry.region.open(), entry.order));
        let mut index = Self::default();
        let shapes = entries.chunk_by_mut(|one, other| one.region.open() == other.region.open());
        for shape in shapes {
            let root = index.grow(shape);
            index.roots.push(root);
        }
        index.roots.sort_by_key(|root| root.first);
        index
    }

    /// The least order from `from` on with a box that holds `point` and for which `check` says yes.
    #[inline]
    pub(crate) fn first(&self, point: &Point, from: u32, mut check: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut best = u32::MAX;
        for root in &self.roots {
            if root.first >= best {
                break;
            }
            best = self.search(root, point, from, best, &mut check);
        }
        (best != u32::MAX).then_some(best)
    }

    /// The least order below `root`, or else `best`.
    fn search(
        &self,
        root: &Node,
        point: &Point,
        from: u32,
        mut best: u32,
        check: &mut impl FnMut(u32) -> bool,
    ) -> u32 {
        let mut stack: [u32; STACK_MAX] = [0; STACK_MAX];
        let mut waiting = 0_usize;
        let mut next = Some(root);
        while let Some(node) = next {
            let is_worth = node.first < best && node.last >= from && node.region.holds(point);
            let place = node.place as usize;
            next = None;
            if is_worth && node.entries > 0 {
                let entries = self.entries.get(place..place + node.entries as usize).unwrap_or_default();
                for entry in entries {
                    let is_new = entry.order >= from && entry.order < best;
                    if is_new && entry.region.holds(point) && check(entry.order) {
                        best = entry.order;
                    }
                }
            } else if is_worth && let Some([one, other]) = self.nodes.get(place..place + 2) {
                let is_first = one.first <= other.first;
                if let Some(slot) = stack.get_mut(waiting) {
                    *slot = if is_first { node.place + 1 } else { node.place };
                    waiting += 1;
                }
                next = Some(if is_first { one } else { other });
            }
            if next.is_none() && waiting > 0 {
                waiting -= 1;
                next = stack.get(waiting).and_then(|place| self.nodes.get(*place as usize));
            }
        }
        best
    }

    /// A node over `entries` with everything below it.
    fn grow(&mut self, entries: &mut [Entry]) -> Node {
        let mut node = hull(entries);
        if entries.len() <= LEAF_MAX {
            entries.sort_unstable_by_key(|entry| entry.order);
            node.place = number(self.entries.len());
            node.entries = number(entries.len());
            self.entries.extend_from_slice(entries);
            return node;
        }
        let half = entries.len() / 2;
        match best_split(entries, &node.region) {
            Some(dimension) => partition(entries, dimension),
            None => {
                entries.select_nth_unstable_by_key(half, |entry| entry.order);
            }
        }
        let place = self.nodes.len();
        node.place = number(place);
        self.nodes.extend_from_slice(&[node, node]);
        let (left, right) = entries.split_at_mut(half);
        for (offset, part) in [left, right].into_iter().enumerate() {
            let child = self.grow(part);
            if let Some(slot) = self.nodes.get_mut(place + offset) {
                *slot = child;
            }
        }
        node
    }
}

fn number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

/// The hull of `entries`, without a place.
fn hull(entries: &[Entry]) -> Node {
    let mut region = entries.first().map_or(Region::ALL, |entry| entry.region);
    let (mut first, mut last) = (u32::MAX, 0);
    for entry in entries {
        region.hull(&entry.region);
        first = first.min(entry.order);
        last = last.max(entry.order);
    }
    Node { region, first, last, place: 0, entries: 0 }
}

/// Puts the lower half of `entries` in front.
fn partition(entries: &mut [Entry], dimension: usize) {
    let half = entries.len() / 2;
    entries.select_nth_unstable_by_key(half, |entry| (entry.region.stretch(dimension), entry.order));
}

/// The dimension in which the two halves have the smallest hulls, if any is worth it.
fn best_split(entries: &mut [Entry], all: &Region) -> Option<usize> {
    let mut best = None;
    for dimension in 0..DIMENSIONS {
        let stretch = entries.first()?.region.stretch(dimension);
        if entries.iter().all(|entry| entry.region.stretch(dimension) == stretch) {
            continue;
        }
        partition(entries, dimension);
        let (left, right) = entries.split_at(entries.len() / 2);
        let length = |part: &[Entry]| {
            let low = part.iter().map(|entry| entry.region.stretch(dimension).0).min().unwrap_or(0);
            let high = part.iter().map(|entry| entry.region.stretch(dimension).1).max().unwrap_or(0);
            u64::from(high - low) + 1
        };
        let (low, high) = all.stretch(dimension);
        let cost = (length(left) + length(right)) * 16 / (u64::from(high - low) + 1);
        if cost < GAIN_MIN && best.is_none_or(|(least, _)| cost < least) {
            best = Some((cost, dimension));
        }
    }
    best.map(|(_, dimension)| dimension)
}

/// Ranks of numbers among the ends of ranges: a range of numbers becomes a range of ranks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ranks(Vec<u128>);

impl Ranks {
    /// Of no range.
    pub(crate) const NONE: Self = Self(Vec::new());

    /// Of all these ranges, both ends included.
    pub(crate) fn new<'a>(ranges: impl Iterator<Item = &'a (u128, u128)>) -> Self {
        let ends = ranges.flat_map(|(first, last)| [Some(*first), last.checked_add(1)]);
        let mut ends: Vec<u128> = ends.flatten().collect();
        ends.sort_unstable();
        ends.dedup();
        Self(ends)
    }

    /// How many ends lie at or below `bits`.
    #[inline]
    pub(crate) fn of(&self, bits: u128) -> u32 {
        number(self.0.partition_point(|end| *end <= bits))
    }

    /// How many ends there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream of numbers that are as good as random.
    fn numbers(mut state: u64) -> impl FnMut(u32) -> u32 {
        move |below| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            u32::try_from((state >> 33) % u64::from(below)).unwrap()
        }
    }

    #[test]
    fn the_first_box_is_the_one_that_a_walk_over_all_finds() {
        let mut random = numbers(7);
        for round in 0..200 {
            let width = 1 + random(40);
            let entries: Vec<Entry> = (0..1 + random(120))
                .map(|order| {
                    let mut region = Region::ALL;
                    for dimension in 0..DIMENSIONS {
                        if random(3) > 0 {
                            let low = random(width);
                            region.narrow(dimension, low, low + random(3));
                        }
                    }
                    Entry { region, order: order / (1 + round % 2) }
                })
                .collect();
            let index = Index::new(entries.clone());
            for _ in 0..50 {
                let point = core::array::from_fn(|_| random(width));
                let from = random(20);
                let odd = |order: u32| round % 3 != 0 || order % 2 == 1;
                let holding = entries.iter().filter(|entry| entry.region.holds(&point));
                let expected =
                    holding.map(|entry| entry.order).filter(|order| *order >= from && odd(*order)).min();
                assert_eq!(index.first(&point, from, odd), expected);
            }
        }
    }

    #[test]
    fn ranks_turn_ranges_into_ranges() {
        let ranges = [(5, 9), (0, 3), (9, 9), (20, u128::MAX)];
        let ranks = Ranks::new(ranges.iter());
        for (first, last) in ranges {
            for bits in (0..30).chain([u128::MAX]) {
                let is_within = (ranks.of(first)..=ranks.of(last)).contains(&ranks.of(bits));
                assert_eq!(is_within, (first..=last).contains(&bits), "{bits} in {first}..={last}");
            }
        }
        assert_eq!(ranks.len(), 6);
    }

    #[test]
    fn a_search_looks_at_few_of_many_boxes() {
        let entries = (0..10_000).map(|order| {
            let mut region = Region::ALL;
            region.narrow(0, order * 2, order * 2);
            region.narrow(3, order % 7, order % 7);
            Entry { region, order }
        });
        let index = Index::new(entries.collect());
        let mut looked = 0;
        let found = index.first(&[14_000, 0, 0, 0, 0, 0], 0, |_| {
            looked += 1;
            true
        });
        assert_eq!((found, looked), (Some(7_000), 1));
        assert!(index.nodes.len() < 10_000, "a leaf holds several");
    }
}
