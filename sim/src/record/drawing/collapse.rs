//! From many nodes to few. Members of a group are one node where nothing tells them apart: the same kind, the
//! same kind of neighbours, the same links. Groups of a few members stay as they are.
//!
//! Whether two nodes are alike is found by refinement: everyone begins with the name of the group, and each
//! round tells apart who has different neighbours, until no round does.

use std::collections::BTreeMap;

use super::{EDGES_MAX, Edge, Graph, Kind, NODES_MAX, Node};

/// Groups with so many members are drawn one by one.
const MEMBERS_SHOWN: usize = 4;
/// Nodes of a kind that are drawn at most; the last of them stands for all further ones.
const KIND_SHOWN: usize = 12;
/// Rounds of refinement. A chain of groups needs as many as it is long; no topology has longer ones.
const ROUNDS_MAX: usize = 8;

/// The graph with few nodes.
pub(super) fn collapse(graph: &Graph) -> Graph {
    let graph = bounded(graph);
    let alike = refine(&graph);
    let graph = quotient(&graph, &alike, group_label);
    let crowded = crowds(&graph);
    quotient(&graph, &crowded, crowd_label)
}

/// Without what is too much, and without edges from or to nowhere.
fn bounded(graph: &Graph) -> Graph {
    let nodes: Vec<Node> = graph.nodes.iter().take(NODES_MAX).cloned().collect();
    let is_there = |edge: &&Edge| edge.from < nodes.len() && edge.to < nodes.len() && edge.from != edge.to;
    let edges = graph.edges.iter().filter(is_there).take(EDGES_MAX).cloned().collect();
    Graph { nodes, edges }
}

/// The group of `GROUP.NUMBER`.
fn group(label: &str) -> Option<&str> {
    let (group, number) = label.rsplit_once('.')?;
    (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())).then_some(group)
}

/// The class of each node; nodes of one class become one.
fn refine(graph: &Graph) -> Vec<usize> {
    let mut members: BTreeMap<(Kind, &str), usize> = BTreeMap::new();
    for node in &graph.nodes {
        if let Some(group) = group(&node.label) {
            *members.entry((node.kind, group)).or_insert(0) += 1;
        }
    }
    let first = graph.nodes.iter().enumerate().map(|(index, node)| {
        let group = group(&node.label).filter(|group| {
            members.get(&(node.kind, *group)).is_some_and(|members| *members > MEMBERS_SHOWN)
        });
        // A node of its own is told apart by its index.
        (node.kind, group.map_or((index, ""), |group| (usize::MAX, group)))
    });
    let mut classes = numbered(first.collect());
    let mut neighbours: Vec<Vec<(usize, &str)>> = vec![Vec::new(); graph.nodes.len()];
    for edge in &graph.edges {
        for (one, other) in [(edge.from, edge.to), (edge.to, edge.from)] {
            if let Some(list) = neighbours.get_mut(one) {
                list.push((other, &edge.label));
            }
        }
    }
    for _ in 0..ROUNDS_MAX {
        let seen = |(other, label): &(usize, &str)| (classes.get(*other).copied(), label.to_string());
        let looks = classes.iter().zip(&neighbours).map(|(class, neighbours)| {
            let mut around: Vec<_> = neighbours.iter().map(seen).collect();
            around.sort_unstable();
            (*class, around)
        });
        let next = numbered(looks.collect());
        if next == classes {
            break;
        }
        classes = next;
    }
    classes
}

/// Equal keys get equal numbers, in the order in which keys first come.
fn numbered<K: Ord>(keys: Vec<K>) -> Vec<usize> {
    let mut numbers = BTreeMap::new();
    let mut classes = Vec::with_capacity(keys.len());
    for key in keys {
        let next = numbers.len();
        classes.push(*numbers.entry(key).or_insert(next));
    }
    classes
}

/// The class of each node when each kind keeps only its first nodes.
fn crowds(graph: &Graph) -> Vec<usize> {
    let of_kind = |kind: Kind| graph.nodes.iter().filter(|node| node.kind == kind).count();
    let totals: BTreeMap<Kind, usize> = Kind::ALL.into_iter().map(|kind| (kind, of_kind(kind))).collect();
    let mut seen: BTreeMap<Kind, usize> = BTreeMap::new();
    let keys = graph.nodes.iter().map(|node| {
        let place = seen.entry(node.kind).or_insert(0);
        *place += 1;
        let is_crowded = totals.get(&node.kind).is_some_and(|total| *total > KIND_SHOWN);
        (node.kind, if is_crowded { (*place).min(KIND_SHOWN) } else { *place })
    });
    numbered(keys.collect())
}

/// One node for each class, and one edge between two classes.
fn quotient(graph: &Graph, classes: &[usize], label: fn(&[&Node]) -> String) -> Graph {
    let count = classes.iter().max().map_or(0, |last| last + 1);
    let mut members: Vec<Vec<&Node>> = vec![Vec::new(); count];
    for (node, class) in graph.nodes.iter().zip(classes) {
        if let Some(list) = members.get_mut(*class) {
            list.push(node);
        }
    }
    let nodes = members.iter().filter_map(|members| {
        let first = members.first()?;
        let machines = members.iter().fold(0u32, |sum, node| sum.saturating_add(node.count));
        let (label, addresses) = match &members[..] {
            [only] => (only.label.clone(), only.addresses.clone()),
            many => (label(many), spans(many)),
        };
        Some(Node { kind: first.kind, label, addresses, count: machines })
    });
    let nodes = nodes.collect();
    let mut between: BTreeMap<(usize, usize), Vec<&str>> = BTreeMap::new();
    for edge in &graph.edges {
        let (Some(one), Some(other)) = (classes.get(edge.from), classes.get(edge.to)) else { continue };
        if one == other {
            continue;
        }
        let labels = between.entry((*one.min(other), *one.max(other))).or_default();
        if !edge.label.is_empty() && !labels.contains(&&edge.label[..]) {
            labels.push(&edge.label);
        }
    }
    let edges = between.into_iter().map(|((from, to), labels)| {
        let label = match &labels[..] {
            [] => String::new(),
            [only] => (*only).to_owned(),
            many => format!("{} kinds of link", many.len()),
        };
        Edge { from, to, label }
    });
    Graph { nodes, edges: edges.collect() }
}

/// `client.0..99`.
fn group_label(members: &[&Node]) -> String {
    let (Some(first), Some(last)) = (members.first(), members.last()) else { return String::new() };
    let number = last.label.rsplit_once('.').map_or("", |(_, number)| number);
    format!("{}..{number}", first.label)
}

fn crowd_label(members: &[&Node]) -> String {
    let words = members.first().map_or("nodes", |node| node.kind.words());
    let count = members.iter().map(|node| u64::from(node.count)).sum();
    format!("{} more {words}", crate::record::number::grouped(count))
}

/// From the first to the last address, for each place: `198.51.100.10..13`.
fn spans(members: &[&Node]) -> Vec<String> {
    let (Some(first), Some(last)) = (members.first(), members.last()) else { return Vec::new() };
    let pairs = first.addresses.iter().zip(&last.addresses);
    let spans = pairs.map(|(first, last)| {
        if first == last {
            return first.clone();
        }
        let separator = if first.contains(':') { ':' } else { '.' };
        let head = |address: &str| address.rfind(separator).map(|at| at + 1);
        match (head(first), head(last)) {
            (Some(at), Some(end)) if first.get(..at) == last.get(..end) => {
                format!("{first}..{}", last.get(end..).unwrap_or(last))
            }
            _ => format!("{first}..{last}"),
        }
    });
    spans.collect()
}
