//! The picture as SVG: one element with its own style, light and dark, that stands alone or within a page.
//!
//! All lengths are whole units, so that the same graph gives the same bytes everywhere. Widths of text are
//! reckoned by its number of characters; what is too long is cut and told in full as the node's title.

use std::fmt::Write as _;

use super::layout::{Hop, Layout, Slot};
use super::{Graph, Kind, Node};
use crate::record::markup::{escaped, shortened};
use crate::record::number::grouped;

/// How the picture looks.
const STYLE: &str = include_str!("topology.css");

/// The width that is reckoned for a character.
const CHARACTER: usize = 7;
/// The most characters of a line in a node.
const CHARACTERS_MAX: usize = 26;
/// The most addresses in a node.
const ADDRESSES_MAX: usize = 3;
/// Between the frame of a node and its text.
const PADDING: usize = 10;
/// The height of a line.
const LINE: usize = 16;
/// Between two nodes of a layer.
const SPACE: usize = 16;
/// What an edge's way takes of a layer's height.
const WAY: usize = 8;
/// Between two layers: at least and at most, by the labels that must go there.
const GAP: (usize, usize) = (56, 190);
/// What lines that fan out take of the gap before there is room for a label between them.
const FAN: usize = 40;
/// The most characters of a label.
const LABEL_MAX: usize = 20;
/// How far each of the two nodes behind a group's node looks out.
const BEHIND: usize = 4;
/// Around the picture.
const MARGIN: usize = 10;

/// Where something stands.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    x: usize,
    y: usize,
    width: usize,
    height: usize,
}

impl Place {
    const fn middle(self) -> usize {
        self.y + self.height / 2
    }
}

pub(super) fn draw(graph: &Graph, layout: &Layout, title: &str) -> String {
    let (places, width, height) = places(graph, layout);
    let mut svg = String::new();
    // Writing into a String cannot fail.
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"topology\" role=\"img\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" style=\"max-width:100%;height:auto\"><title>{}</title><desc>{}</desc>\
         <style>{STYLE}</style>",
        escaped(title),
        escaped(&graph.sentence()),
    );
    let _ = edges(graph, layout, &places, &mut svg);
    for (slots, places) in layout.layers.iter().zip(&places) {
        for (slot, place) in slots.iter().zip(places) {
            if let Slot::Node(index) = slot
                && let Some(found) = graph.nodes.get(*index)
            {
                let _ = node(found, *place, &mut svg);
            }
        }
    }
    svg.push_str("</svg>");
    svg
}

/// Where each slot of each layer stands, and the size of it all.
fn places(graph: &Graph, layout: &Layout) -> (Vec<Vec<Place>>, usize, usize) {
    let mut layers: Vec<Vec<Place>> = Vec::new();
    let mut x = MARGIN;
    for (number, slots) in layout.layers.iter().enumerate() {
        let lines = |slot: &Slot| match slot {
            Slot::Node(index) => graph.nodes.get(*index).map(lines),
            Slot::Way(_) => None,
        };
        let longest = slots.iter().filter_map(lines).flatten().map(|line| line.chars().count()).max();
        let width = longest.map_or(0, |longest| longest * CHARACTER + 2 * PADDING);
        let mut y = 0;
        let stacked = slots.iter().map(|slot| {
            let height = lines(slot).map_or(WAY, |lines| lines.len() * LINE + 2 * PADDING - 4);
            let place = Place { x, y, width, height };
            y += height + SPACE;
            place
        });
        layers.push(stacked.collect());
        let is_group = |slot: &Slot| matches!(slot, Slot::Node(index) if graph.nodes.get(*index).is_some_and(|node| node.count > 1));
        let behind = if slots.iter().any(is_group) { 2 * BEHIND } else { 0 };
        x += width + behind + gap(graph, layout, number);
    }
    let middle = |places: &[Place]| {
        let ends = (
            places.first().map_or(0, |place| place.middle()),
            places.last().map_or(0, |place| place.middle()),
        );
        (ends.0 + ends.1) / 2
    };
    let centre = layers.iter().map(|places| middle(places)).max().unwrap_or(0);
    let mut height = 0;
    for places in &mut layers {
        let down = MARGIN + 2 * BEHIND + centre - middle(places);
        for place in places {
            place.y += down;
            height = height.max(place.y + place.height);
        }
    }
    let width = layers.iter().flatten().map(|place| place.x + place.width).max().unwrap_or(0);
    (layers, width + MARGIN + 2 * BEHIND, height + MARGIN)
}

/// The room behind a layer, wide enough for the labels there.
fn gap(graph: &Graph, layout: &Layout, layer: usize) -> usize {
    let labels = labelled(graph, layout).into_iter().filter(|label| label.hop.layer == layer);
    let wanted = labels.map(|label| label.width() + if label.fan == Fan::None { 20 } else { FAN + 12 });
    wanted.max().unwrap_or(0).clamp(GAP.0, GAP.1)
}

/// The lines in a node: its kind, its name, its addresses.
fn lines(node: &Node) -> Vec<String> {
    let kind = if node.count > 1 {
        format!("{} {}", grouped(node.count.into()), node.kind.words())
    } else {
        node.kind.word().to_owned()
    };
    let mut lines = vec![kind, node.label.clone()];
    lines.extend(node.addresses.iter().take(ADDRESSES_MAX).cloned());
    if node.addresses.len() > ADDRESSES_MAX {
        lines.push(format!("and {} more", node.addresses.len() - ADDRESSES_MAX));
    }
    lines.iter().map(|line| shortened(line, CHARACTERS_MAX)).collect()
}

fn node(node: &Node, place: Place, svg: &mut String) -> std::fmt::Result {
    let Place { x, y, width, height } = place;
    let (class, corner) = match node.kind {
        Kind::Client => ("client", 6),
        Kind::Nat => ("nat", 2),
        Kind::Router => ("router", 2),
        Kind::Forwarder => ("forwarder", 6),
        Kind::Switch => ("switch", 18),
        Kind::Server => ("server", 6),
    };
    let full =
        [node.label.clone()].into_iter().chain(node.addresses.iter().cloned()).collect::<Vec<_>>().join(" ");
    write!(svg, "<g><title>{}</title>", escaped(&full))?;
    let behind = if node.count > 1 { &[2 * BEHIND, BEHIND][..] } else { &[] };
    for offset in behind {
        write!(
            svg,
            "<rect class=\"box {class}\" x=\"{}\" y=\"{}\" width=\"{width}\" height=\"{height}\" rx=\"{corner}\"/>",
            x + offset,
            y - offset,
        )?;
    }
    write!(
        svg,
        "<rect class=\"box {class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"{corner}\"/>"
    )?;
    for (number, line) in lines(node).iter().enumerate() {
        let class = match number {
            0 => "kind",
            1 => "name",
            _ => "address",
        };
        let baseline = y + PADDING + 9 + number * LINE;
        write!(
            svg,
            "<text class=\"{class}\" x=\"{}\" y=\"{baseline}\">{}</text>",
            x + PADDING,
            escaped(line)
        )?;
    }
    write!(svg, "</g>")
}

fn edges(graph: &Graph, layout: &Layout, places: &[Vec<Place>], svg: &mut String) -> std::fmt::Result {
    let place = |layer: usize, slot: usize| places.get(layer)?.get(slot).copied();
    let ends = |hop: &Hop| Some((place(hop.layer, hop.left)?, place(hop.layer + 1, hop.right)?));
    for hop in &layout.hops {
        let Some((left, right)) = ends(hop) else { continue };
        let (x1, y1, x2, y2) = (left.x + left.width, left.middle(), right.x, right.middle());
        // A node may be narrower than its layer only where it is a way, which goes straight through.
        let middle = (x1 + x2) / 2;
        write!(svg, "<path class=\"edge\" d=\"M{x1} {y1}C{middle} {y1} {middle} {y2} {x2} {y2}\"/>")?;
    }
    for (slots, places) in layout.layers.iter().zip(places) {
        for (_, place) in slots.iter().zip(places).filter(|(slot, _)| matches!(slot, Slot::Way(_))) {
            let (y, end) = (place.middle(), place.x + place.width);
            write!(svg, "<path class=\"edge\" d=\"M{} {y}H{end}\"/>", place.x)?;
        }
    }
    for index in &layout.within {
        let Some(edge) = graph.edges.get(*index) else { continue };
        let find = |node: usize| {
            let all = layout.layers.iter().zip(places).flat_map(|(slots, places)| slots.iter().zip(places));
            all.filter(|(slot, _)| **slot == Slot::Node(node)).map(|(_, place)| *place).next()
        };
        let (Some(one), Some(other)) = (find(edge.from), find(edge.to)) else { continue };
        let (x, y1, y2) = (one.x + one.width, one.middle(), other.middle());
        let out = x + 28;
        write!(svg, "<path class=\"edge\" d=\"M{x} {y1}C{out} {y1} {out} {y2} {x} {y2}\"/>")?;
    }
    for label in labelled(graph, layout) {
        let Some((left, right)) = ends(&label.hop) else { continue };
        let (x1, y1, x2, y2) = (left.x + left.width, left.middle(), right.x, right.middle());
        let (x, y) = match label.fan {
            Fan::None => ((x1 + x2) / 2, (y1 + y2) / 2),
            Fan::Left => (x1 + 6 + label.width() / 2, y1),
            Fan::Right => (x2.saturating_sub(6 + label.width() / 2), y2),
        };
        for (part, number) in label.parts.iter().zip(0..) {
            // Above the line, so that the last part does not lie on it.
            let baseline = (y + number * 13).saturating_sub(5 + 13 * (label.parts.len() - 1));
            write!(svg, "<text class=\"label\" x=\"{x}\" y=\"{baseline}\">{}</text>", escaped(part))?;
        }
    }
    Ok(())
}

/// On which side the lines with the same label go apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fan {
    None,
    Left,
    Right,
}

/// A label that is written.
struct Label {
    hop: Hop,
    fan: Fan,
    parts: Vec<String>,
}

impl Label {
    fn width(&self) -> usize {
        self.parts.iter().map(|part| part.chars().count()).max().unwrap_or(0) * (CHARACTER - 1)
    }
}

/// The labels: of the lines between two layers that have the same one, the one in the middle bears it.
fn labelled(graph: &Graph, layout: &Layout) -> Vec<Label> {
    let text = |hop: &Hop| graph.edges.get(hop.edge).map_or("", |edge| &edge.label[..]);
    let mut hops: Vec<Hop> = layout.hops.iter().filter(|hop| !text(hop).is_empty()).copied().collect();
    hops.sort_by_key(|hop| (hop.layer, text(hop), hop.left, hop.right));
    let groups = hops.chunk_by(|one, other| (one.layer, text(one)) == (other.layer, text(other)));
    let labels = groups.filter_map(|group| {
        let hop = *group.get((group.len() - 1) / 2)?;
        let fan = match group {
            [_] => Fan::None,
            many if many.iter().all(|other| other.left == hop.left) => Fan::Right,
            _ => Fan::Left,
        };
        let parts = text(&hop).split(", ").map(|part| shortened(part, LABEL_MAX)).collect();
        Some(Label { hop, fan, parts })
    });
    labels.collect()
}
