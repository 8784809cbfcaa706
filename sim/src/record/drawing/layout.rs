//! Columns from left to right: whose node stands in which, above whom, and by which places an edge goes.
//!
//! In: a graph of few nodes. Out: layers in order. A node's layer is its distance from the clients; servers
//! stand last. What goes over several layers gets a place in each layer that it passes, one for all edges of
//! the same node, so that lines go between nodes and not through them. The order within a layer is the one with the fewest crossings that a few sweeps
//! to and fro find (K. Sugiyama, S. Tagawa, M. Toda, 1981).

use std::collections::{BTreeMap, VecDeque};

use super::{Graph, Kind};

/// Sweeps over the layers; further ones hardly ever find a better order.
const SWEEPS: usize = 8;
/// With more parts of edges than this nobody follows a single line, and counting crossings takes long.
const LINKS_UNTANGLED: usize = 512;

/// What stands in a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Slot {
    /// A node.
    Node(usize),
    /// The way of everything that comes from this node and goes on to a later layer.
    Way(usize),
}

/// A part of an edge, from one layer to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hop {
    /// The layer where it begins.
    pub(super) layer: usize,
    /// The place in that layer.
    pub(super) left: usize,
    /// The place in the next layer.
    pub(super) right: usize,
    /// The edge, the first one where several go the same way.
    pub(super) edge: usize,
}

/// Where everything stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Layout {
    /// Layers from left to right, each from top to bottom.
    pub(super) layers: Vec<Vec<Slot>>,
    /// Parts of edges between layers.
    pub(super) hops: Vec<Hop>,
    /// Edges between nodes of one layer.
    pub(super) within: Vec<usize>,
}

/// A part of an edge before places are known.
#[derive(Clone, Copy)]
struct Link {
    layer: usize,
    left: Slot,
    right: Slot,
    edge: usize,
}

impl Layout {
    pub(super) fn new(graph: &Graph) -> Self {
        let ranks = ranks(graph);
        let mut layers: Vec<Vec<Slot>> = vec![Vec::new(); ranks.iter().max().map_or(0, |last| last + 1)];
        let mut order: Vec<usize> = (0..graph.nodes.len()).collect();
        order.sort_by_key(|index| graph.nodes.get(*index).map(|node| node.kind));
        for node in order {
            if let Some(layer) = ranks.get(node).and_then(|rank| layers.get_mut(*rank)) {
                layer.push(Slot::Node(node));
            }
        }
        let (mut links, mut within) = (Vec::new(), Vec::new());
        for (index, edge) in graph.edges.iter().enumerate() {
            let (Some(one), Some(other)) = (ranks.get(edge.from), ranks.get(edge.to)) else { continue };
            let (from, to, first, last) = if one <= other {
                (edge.from, edge.to, *one, *other)
            } else {
                (edge.to, edge.from, *other, *one)
            };
            if first == last {
                within.push(index);
            }
            for layer in first..last {
                let left = if layer == first { Slot::Node(from) } else { Slot::Way(from) };
                let right = if layer + 1 == last { Slot::Node(to) } else { Slot::Way(from) };
                let is_known = |link: &Link| (link.layer, link.left, link.right) == (layer, left, right);
                if links.iter().any(is_known) {
                    continue;
                }
                links.push(Link { layer, left, right, edge: index });
                if let (Slot::Way(_), Some(slots)) = (right, layers.get_mut(layer + 1))
                    && !slots.contains(&right)
                {
                    slots.push(right);
                }
            }
        }
        let layers = untangle(layers, &links);
        let hops = hops(&layers, &links);
        Self { layers, hops, within }
    }
}

/// The layer of each node.
fn ranks(graph: &Graph) -> Vec<usize> {
    let mut neighbours: Vec<Vec<usize>> = vec![Vec::new(); graph.nodes.len()];
    for edge in &graph.edges {
        for (one, other) in [(edge.from, edge.to), (edge.to, edge.from)] {
            if let Some(list) = neighbours.get_mut(one) {
                list.push(other);
            }
        }
    }
    // Servers are the end of every way: nobody is reached through one.
    let is_server = |node: usize| graph.nodes.get(node).is_some_and(|node| node.kind == Kind::Server);
    let mut ranks: Vec<Option<usize>> = vec![None; graph.nodes.len()];
    // Clients first; what nobody reaches from there begins a picture of its own, the leftmost kind first.
    let mut seeds: Vec<usize> = (0..graph.nodes.len()).filter(|node| !is_server(*node)).collect();
    seeds.sort_by_key(|index| graph.nodes.get(*index).map(|node| node.kind));
    let mut queue = VecDeque::new();
    let is_client = |node: usize| graph.nodes.get(node).is_some_and(|node| node.kind == Kind::Client);
    for client in seeds.iter().copied().filter(|node| is_client(*node)) {
        queue.push_back((client, 0));
    }
    let mut seeds = seeds.into_iter();
    loop {
        while let Some((node, rank)) = queue.pop_front() {
            let Some(place) = ranks.get_mut(node) else { continue };
            if place.is_some() {
                continue;
            }
            *place = Some(rank);
            let next = neighbours.get(node).into_iter().flatten();
            queue.extend(next.filter(|next| !is_server(**next)).map(|next| (*next, rank + 1)));
        }
        let Some(seed) = seeds.find(|seed| ranks.get(*seed).is_some_and(Option::is_none)) else { break };
        queue.push_back((seed, 0));
    }
    let last = ranks.iter().flatten().max().map_or(0, |last| last + 1);
    ranks.into_iter().map(|rank| rank.unwrap_or(last)).collect()
}

/// Orders each layer so that few lines cross.
fn untangle(mut layers: Vec<Vec<Slot>>, links: &[Link]) -> Vec<Vec<Slot>> {
    if links.len() > LINKS_UNTANGLED {
        return layers;
    }
    let mut best = (crossings(&layers, links), layers.clone());
    for sweep in 0..SWEEPS {
        if best.0 == 0 {
            break;
        }
        let count = layers.len();
        for step in 1..count {
            // To the right by what stands left, then to the left by what stands right.
            let (layer, fixed) =
                if sweep % 2 == 0 { (step, step - 1) } else { (count - 1 - step, count - step) };
            let places = places(layers.get(fixed).map_or(&[], Vec::as_slice));
            if let Some(slots) = layers.get_mut(layer) {
                sort_by_neighbours(slots, layer.min(fixed), fixed < layer, &places, links);
            }
        }
        let found = crossings(&layers, links);
        if found < best.0 {
            best = (found, layers.clone());
        }
    }
    best.1
}

fn places(slots: &[Slot]) -> BTreeMap<Slot, usize> {
    slots.iter().copied().zip(0..).collect()
}

/// Orders a layer by the mean place of each slot's neighbours; who has none stays where it is.
fn sort_by_neighbours(
    slots: &mut [Slot],
    gap: usize,
    is_left_fixed: bool,
    places: &BTreeMap<Slot, usize>,
    links: &[Link],
) {
    /// Parts of a place, so that means of whole numbers keep their order.
    const PARTS: usize = 1 << 16;
    let mut sums: BTreeMap<Slot, (usize, usize)> = BTreeMap::new();
    for link in links.iter().filter(|link| link.layer == gap) {
        let (fixed, free) = if is_left_fixed { (link.left, link.right) } else { (link.right, link.left) };
        let Some(place) = places.get(&fixed) else { continue };
        let (sum, count) = sums.entry(free).or_insert((0, 0));
        *sum += place * PARTS;
        *count += 1;
    }
    let own: BTreeMap<Slot, usize> = slots.iter().copied().zip(0..).collect();
    slots.sort_by_key(|slot| {
        let mean = sums.get(slot).and_then(|(sum, count)| sum.checked_div(*count));
        mean.unwrap_or_else(|| own.get(slot).map_or(0, |place| place * PARTS))
    });
}

/// Pairs of lines that cross.
fn crossings(layers: &[Vec<Slot>], links: &[Link]) -> usize {
    let hops = hops(layers, links);
    let mut count = 0;
    for (index, one) in hops.iter().enumerate() {
        let others = hops.iter().skip(index + 1).filter(|other| other.layer == one.layer);
        count += others
            .filter(|other| {
                (one.left < other.left && one.right > other.right)
                    || (one.left > other.left && one.right < other.right)
            })
            .count();
    }
    count
}

fn hops(layers: &[Vec<Slot>], links: &[Link]) -> Vec<Hop> {
    let all: Vec<BTreeMap<Slot, usize>> = layers.iter().map(|slots| places(slots)).collect();
    let hops = links.iter().filter_map(|link| {
        let left = *all.get(link.layer)?.get(&link.left)?;
        let right = *all.get(link.layer + 1)?.get(&link.right)?;
        Some(Hop { layer: link.layer, left, right, edge: link.edge })
    });
    hops.collect()
}
