//! The picture in characters. Boxes and lines where they fit the width and can be told apart, else a list of
//! nodes with their neighbours, which always fits.
//!
//! ```text
//! ┌──────────┐   ╭─────────╮   ┏━━━━┓   ╭─────────╮   ┌──────────┐
//! │client.0  ├─┬─┤ clients ├───┨ lb ┠───┤ servers ├─┬─┤ server.0 │
//! └──────────┘ │ ╰─────────╯   ┗━━━━┛   ╰─────────╯ │ └──────────┘
//! ```
//! Between two columns, nodes that are all connected with each other share one line. Where lines cannot be
//! drawn without saying more than there is, the list is told instead.

use std::collections::BTreeMap;

use super::layout::{Layout, Slot};
use super::{Edge, Graph, Kind, Node};
use crate::record::number::grouped;

/// More rows than this are no picture any more.
const ROWS_MAX: usize = 60;
/// The narrowest width; below it nothing can be said.
const COLUMNS_MIN: usize = 40;

/// How much is written into the boxes, most first.
const DETAILS: [Detail; 3] = [
    Detail { has_addresses: true, padding: 1, margin: 2 },
    Detail { has_addresses: true, padding: 0, margin: 1 },
    Detail { has_addresses: false, padding: 0, margin: 1 },
];

#[derive(Clone, Copy)]
struct Detail {
    has_addresses: bool,
    /// Blanks beside the text of a box.
    padding: usize,
    /// Characters of line beside the tracks of a gap.
    margin: usize,
}

const UP: u8 = 1;
const DOWN: u8 = 2;
const LEFT: u8 = 4;
const RIGHT: u8 = 8;

pub(super) fn draw(graph: &Graph, layout: &Layout, columns: usize) -> String {
    let columns = columns.max(COLUMNS_MIN);
    let picture = DETAILS.iter().find_map(|detail| picture(graph, layout, *detail, columns));
    let text = picture.unwrap_or_else(|| list(graph, layout));
    let mut cut = String::new();
    for line in text.lines() {
        cut.push_str(&shortened(line.trim_end(), columns));
        cut.push('\n');
    }
    cut
}

// Boxes and lines.

/// What stands in a place of a layer.
struct Cell {
    lines: Vec<String>,
    kind: Option<Kind>,
    top: usize,
}

impl Cell {
    fn new(graph: &Graph, slot: Slot, detail: Detail) -> Self {
        let Slot::Node(index) = slot else { return Self { lines: Vec::new(), kind: None, top: 0 } };
        let Some(node) = graph.nodes.get(index) else {
            return Self { lines: Vec::new(), kind: None, top: 0 };
        };
        let mut lines = vec![clean(&node.label)];
        if detail.has_addresses {
            lines.extend(node.addresses.iter().map(|address| clean(address)));
            lines.extend(crowd(node));
        }
        Self { lines, kind: Some(node.kind), top: 0 }
    }

    const fn height(&self) -> usize {
        if self.kind.is_some() { self.lines.len() + 2 } else { 1 }
    }

    /// The row where lines meet it.
    const fn row(&self) -> usize {
        self.top + self.height() / 2
    }

    fn width(&self, detail: Detail) -> usize {
        let text = self.lines.iter().map(|line| line.chars().count()).max();
        text.map_or(0, |text| text + 2 + 2 * detail.padding)
    }
}

/// Nodes of two columns that share one line.
struct Net {
    lefts: Vec<usize>,
    rights: Vec<usize>,
    track: usize,
}

impl Net {
    fn rows(&self) -> (usize, usize) {
        let all = || self.lefts.iter().chain(&self.rights).copied();
        (all().min().unwrap_or(0), all().max().unwrap_or(0))
    }
}

fn picture(graph: &Graph, layout: &Layout, detail: Detail, columns: usize) -> Option<String> {
    let mut layers: Vec<Vec<Cell>> = layout
        .layers
        .iter()
        .map(|slots| slots.iter().map(|slot| Cell::new(graph, *slot, detail)).collect())
        .collect();
    let rows = stack(&mut layers);
    let mut gaps = Vec::new();
    for layer in 1..layers.len() {
        gaps.push(nets(layout, &layers, layer - 1)?);
    }
    let mut widths = Vec::new();
    for (index, cells) in layers.iter().enumerate() {
        let tracks = gaps.get(index).map(|nets| nets.iter().map(|net| net.track + 1).max().unwrap_or(1));
        let gap = tracks.map_or(0, |tracks| 2 * tracks - 1 + 2 * detail.margin);
        widths.push((cells.iter().map(|cell| cell.width(detail)).max().unwrap_or(0), gap));
    }
    let width: usize = widths.iter().map(|(column, gap)| column + gap).sum();
    if width > columns || rows > ROWS_MAX {
        return None;
    }
    let mut canvas = Canvas::new(width, rows);
    let mut left = 0;
    for ((cells, (column, gap)), index) in layers.iter().zip(&widths).zip(0..) {
        for cell in cells {
            let from =
                |layer: usize| gaps.get(layer).is_some_and(|nets| has_row(nets, cell.row(), layer == index));
            let sides = (index.checked_sub(1).is_some_and(from), from(index));
            canvas.cell(cell, (left, *column), detail, sides);
        }
        left += column;
        for (number, net) in gaps.get(index).into_iter().flatten().enumerate() {
            canvas.net(net, number, (left, *gap), detail)?;
        }
        left += gap;
    }
    Some(canvas.text() + &notes(graph, layout, detail))
}

/// Stacks the cells of each layer around one row, so that single nodes stand in line; gives the rows.
fn stack(layers: &mut [Vec<Cell>]) -> usize {
    for cells in layers.iter_mut() {
        let mut top = 0;
        for cell in cells {
            cell.top = top;
            top += cell.height();
        }
    }
    let middle = |cells: &[Cell]| {
        let (first, last) = (cells.first().map_or(0, Cell::row), cells.last().map_or(0, Cell::row));
        (first + last) / 2
    };
    let centre = layers.iter().map(|cells| middle(cells)).max().unwrap_or(0);
    let mut rows = 0;
    for cells in layers.iter_mut() {
        let down = centre - middle(cells);
        cells.iter_mut().for_each(|cell| cell.top += down);
        rows = rows.max(cells.last().map_or(0, |cell| cell.top + cell.height()));
    }
    rows
}

/// Whether a net meets the node in this row, on its left or right side.
fn has_row(nets: &[Net], row: usize, is_left: bool) -> bool {
    nets.iter().any(|net| if is_left { net.lefts.contains(&row) } else { net.rights.contains(&row) })
}

/// The nets between a layer and the next; nothing where one line would say too much.
fn nets(layout: &Layout, layers: &[Vec<Cell>], gap: usize) -> Option<Vec<Net>> {
    let hops = || layout.hops.iter().filter(move |hop| hop.layer == gap);
    let row = |layer: usize, place: usize| layers.get(layer)?.get(place).map(Cell::row);
    let mut of_left: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for hop in hops() {
        let (left, right) = (row(gap, hop.left)?, row(gap + 1, hop.right)?);
        let rights = of_left.entry(left).or_default();
        if !rights.contains(&right) {
            rights.push(right);
        }
    }
    let mut nets: Vec<Net> = Vec::new();
    for (left, mut rights) in of_left {
        rights.sort_unstable();
        if let Some(net) = nets.iter_mut().find(|net| net.rights == rights) {
            net.lefts.push(left);
        } else if nets.iter().any(|net| net.rights.iter().any(|right| rights.contains(right))) {
            return None;
        } else {
            nets.push(Net { lefts: vec![left], rights, track: 0 });
        }
    }
    // Nets whose rows overlap stand beside each other.
    nets.sort_by_key(Net::rows);
    let mut ends: Vec<usize> = Vec::new();
    for net in &mut nets {
        let (first, last) = net.rows();
        if first == last {
            continue;
        }
        let free = ends.iter().position(|end| *end < first);
        net.track = free.unwrap_or(ends.len());
        match ends.get_mut(net.track) {
            Some(end) => *end = last,
            None => ends.push(last),
        }
    }
    Some(nets)
}

struct Canvas {
    width: usize,
    characters: Vec<char>,
    /// The net that a line belongs to, and its directions.
    lines: Vec<Option<(usize, u8)>>,
}

impl Canvas {
    fn new(width: usize, rows: usize) -> Self {
        Self { width, characters: vec![' '; width * rows], lines: vec![None; width * rows] }
    }

    fn put(&mut self, row: usize, column: usize, character: char) {
        if let Some(place) = self.characters.get_mut(row * self.width + column) {
            *place = character;
        }
    }

    fn cell(&mut self, cell: &Cell, (left, width): (usize, usize), detail: Detail, sides: (bool, bool)) {
        let Some(kind) = cell.kind else {
            (left..left + width).for_each(|column| self.put(cell.row(), column, '─'));
            return;
        };
        let [nw, horizontal, ne, vertical, se, sw, into_left, into_right] = border(kind);
        let (right, bottom) = (left + width - 1, cell.top + cell.height() - 1);
        for column in left..right {
            self.put(cell.top, column, horizontal);
            self.put(bottom, column, horizontal);
        }
        for row in cell.top..bottom {
            let meets = row == cell.row();
            self.put(row, left, if meets && sides.0 { into_left } else { vertical });
            self.put(row, right, if meets && sides.1 { into_right } else { vertical });
        }
        let corners = [(cell.top, left, nw), (cell.top, right, ne), (bottom, left, sw), (bottom, right, se)];
        corners.into_iter().for_each(|(row, column, corner)| self.put(row, column, corner));
        for (line, row) in cell.lines.iter().zip(cell.top + 1..) {
            for (character, column) in line.chars().zip(left + 1 + detail.padding..) {
                self.put(row, column, character);
            }
        }
    }

    /// Draws a net; nothing where it would lie on another one.
    fn net(&mut self, net: &Net, number: usize, (left, gap): (usize, usize), detail: Detail) -> Option<()> {
        let track = left + detail.margin + 2 * net.track;
        let right = left + gap;
        let (first, last) = net.rows();
        for row in first..=last {
            let up = if row > first { UP } else { 0 };
            let down = if row < last { DOWN } else { 0 };
            self.line(row, track, number, up | down)?;
        }
        for row in &net.lefts {
            (left..track).try_for_each(|column| self.line(*row, column, number, LEFT | RIGHT))?;
            self.line(*row, track, number, LEFT)?;
        }
        for row in &net.rights {
            self.line(*row, track, number, RIGHT)?;
            (track + 1..right).try_for_each(|column| self.line(*row, column, number, LEFT | RIGHT))?;
        }
        Some(())
    }

    /// Adds directions to a place. Where two nets cross, the one that goes across lies above.
    fn line(&mut self, row: usize, column: usize, net: usize, directions: u8) -> Option<()> {
        const ACROSS: u8 = LEFT | RIGHT;
        const UPRIGHT: u8 = UP | DOWN;
        let place = self.lines.get_mut(row * self.width + column)?;
        *place = match *place {
            _ if directions == 0 => *place,
            None => Some((net, directions)),
            Some((other, known)) if other == net => Some((net, known | directions)),
            Some((_, UPRIGHT)) if directions == ACROSS => Some((net, directions)),
            Some((other, ACROSS)) if directions == UPRIGHT => Some((other, ACROSS)),
            Some(_) => return None,
        };
        Some(())
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let rows = self.characters.chunks(self.width.max(1)).zip(self.lines.chunks(self.width.max(1)));
        for (characters, lines) in rows {
            let drawn = characters.iter().zip(lines).map(|(character, line)| match line {
                Some((_, directions)) => character_of(*directions),
                None => *character,
            });
            let row: String = drawn.collect();
            text.push_str(row.trim_end());
            text.push('\n');
        }
        text
    }
}

const fn character_of(directions: u8) -> char {
    match directions & (UP | DOWN | LEFT | RIGHT) {
        0b0000 => ' ',
        0b0001..=0b0011 => '│',
        0b0100 | 0b1000 | 0b1100 => '─',
        0b0101 => '┘',
        0b0110 => '┐',
        0b0111 => '┤',
        0b1001 => '└',
        0b1010 => '┌',
        0b1011 => '├',
        0b1101 => '┴',
        0b1110 => '┬',
        _ => '┼',
    }
}

/// Corners and sides clockwise from the upper left corner, and the sides where a line comes in.
const fn border(kind: Kind) -> [char; 8] {
    match kind {
        Kind::Forwarder => ['┏', '━', '┓', '┃', '┛', '┗', '┨', '┠'],
        Kind::Switch => ['╭', '─', '╮', '│', '╯', '╰', '┤', '├'],
        Kind::Router | Kind::Nat => ['╔', '═', '╗', '║', '╝', '╚', '╢', '╟'],
        Kind::Client | Kind::Server => ['┌', '─', '┐', '│', '┘', '└', '┤', '├'],
    }
}

/// What the picture does not say: addresses where they did not fit, links, and links within a column.
fn notes(graph: &Graph, layout: &Layout, detail: Detail) -> String {
    let mut text = String::new();
    if !detail.has_addresses {
        text.push('\n');
        for node in in_order(graph, layout) {
            let addresses: Vec<String> = node.addresses.iter().map(|address| clean(address)).collect();
            let crowd = crowd(node).map_or(String::new(), |crowd| format!(" ({crowd})"));
            if !addresses.is_empty() || node.count > 1 {
                text.push_str(&format!("{}{crowd}  {}\n", clean(&node.label), addresses.join(", ")));
            }
        }
    }
    let labels = labels(graph, layout);
    if !labels.is_empty() {
        text.push('\n');
    }
    for (label, ends) in labels {
        text.push_str(&format!("{label}: {ends}\n"));
    }
    for edge in layout.within.iter().filter_map(|index| graph.edges.get(*index)) {
        text.push_str(&format!("also connected: {}\n", ends(graph, layout, edge)));
    }
    text
}

/// Each label with its links; the one that most links have comes last.
fn labels(graph: &Graph, layout: &Layout) -> Vec<(String, String)> {
    /// With fewer links they are named.
    const NAMED_MAX: usize = 2;
    let mut labels: Vec<(String, Vec<String>)> = Vec::new();
    for edge in &graph.edges {
        let (label, ends) = (clean(&edge.label), ends(graph, layout, edge));
        match labels.iter_mut().find(|(known, _)| *known == label) {
            Some((_, list)) => list.push(ends),
            None => labels.push((label, vec![ends])),
        }
    }
    labels.sort_by_key(|(_, ends)| ends.len());
    let kinds = labels.len();
    let told = labels.into_iter().enumerate().filter(|(_, (label, _))| !label.is_empty());
    let told = told.map(|(index, (label, ends))| {
        let ends = match (kinds, index + 1 == kinds && ends.len() > NAMED_MAX) {
            (1, _) => "every link".to_owned(),
            (_, true) => "every other link".to_owned(),
            (_, false) => ends.join("; "),
        };
        (label, ends)
    });
    told.collect()
}

/// The two nodes of an edge, the left one first.
fn ends(graph: &Graph, layout: &Layout, edge: &Edge) -> String {
    let place = |node: usize| layout.layers.iter().flatten().position(|slot| *slot == Slot::Node(node));
    let (left, right) =
        if place(edge.from) <= place(edge.to) { (edge.from, edge.to) } else { (edge.to, edge.from) };
    let name = |index: usize| graph.nodes.get(index).map_or(String::new(), |node| clean(&node.label));
    format!("{} - {}", name(left), name(right))
}

// The list.

/// Every node with its neighbours.
fn list(graph: &Graph, layout: &Layout) -> String {
    let mut text = String::new();
    for slot in layout.layers.iter().flatten() {
        let Slot::Node(index) = slot else { continue };
        let Some(node) = graph.nodes.get(*index) else { continue };
        let addresses: Vec<String> = node.addresses.iter().map(|address| clean(address)).collect();
        let what = crowd(node).unwrap_or_else(|| node.kind.word().to_owned());
        text.push_str(&format!("{} ({what})  {}\n", clean(&node.label), addresses.join(", ")));
        for edge in graph.edges.iter().filter(|edge| edge.from == *index || edge.to == *index) {
            let other = if edge.from == *index { edge.to } else { edge.from };
            let name = graph.nodes.get(other).map_or(String::new(), |node| clean(&node.label));
            let label =
                if edge.label.is_empty() { String::new() } else { format!(": {}", clean(&edge.label)) };
            text.push_str(&format!("    - {name}{label}\n"));
        }
    }
    text
}

fn in_order<'a>(graph: &'a Graph, layout: &'a Layout) -> impl Iterator<Item = &'a Node> {
    layout.layers.iter().flatten().filter_map(|slot| match slot {
        Slot::Node(index) => graph.nodes.get(*index),
        Slot::Way(_) => None,
    })
}

/// `10,000 clients`, of a node that stands for several and does not say so itself.
fn crowd(node: &Node) -> Option<String> {
    let words = format!("{} {}", grouped(node.count.into()), node.kind.words());
    (node.count > 1 && !node.label.ends_with(node.kind.words())).then_some(words)
}

/// Without characters that would move the cursor.
fn clean(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '?' } else { character }).collect()
}

fn shortened(line: &str, columns: usize) -> String {
    if line.chars().count() <= columns {
        return line.to_owned();
    }
    line.chars().take(columns - 1).chain(['…']).collect()
}
