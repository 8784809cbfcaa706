//! A topology as a picture: as characters for a terminal and as SVG for a page.
//!
//! In: a plain [`Graph`] of machines and what connects them. Out: the same picture for the same graph,
//! whatever its size: members of a group become one node, and what is still too much is counted.
//!
//! ```text
//! Graph -> collapse: few nodes -> layout: columns from clients to servers -+-> text
//!                                                                          +-> SVG
//! ```

mod collapse;
mod layout;
mod svg;
mod text;

use serde::{Deserialize, Serialize};

use layout::Layout;

/// The most nodes of a graph: every host of the largest scenario, and as many forwarders and networks again.
pub const NODES_MAX: usize = 1 << 17;
/// The most edges of a graph.
pub const EDGES_MAX: usize = 1 << 18;

/// What a node is; it says how it is drawn and, among equals, how far to the left it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Opens flows.
    Client,
    /// Translates addresses of those behind it.
    Nat,
    /// Forwards by routing table.
    Router,
    /// Runs Evenkeel.
    Forwarder,
    /// One network: everyone on it reaches everyone else.
    Switch,
    /// Serves flows.
    Server,
}

impl Kind {
    /// Every kind, from clients to servers.
    pub const ALL: [Self; 6] =
        [Self::Client, Self::Nat, Self::Router, Self::Forwarder, Self::Switch, Self::Server];

    /// What one of it is called.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Nat => "NAT",
            Self::Router => "router",
            Self::Forwarder => "forwarder",
            Self::Switch => "network",
            Self::Server => "real server",
        }
    }

    /// What several of it are called.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Client => "clients",
            Self::Nat => "NATs",
            Self::Router => "routers",
            Self::Forwarder => "forwarders",
            Self::Switch => "networks",
            Self::Server => "real servers",
        }
    }
}

/// A machine or a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Its name; members of a group are `GROUP.NUMBER`.
    pub label: String,
    /// Its addresses, or the network's.
    pub addresses: Vec<String>,
    /// Machines that this node stands for: 1, or more where a group has been drawn together.
    pub count: u32,
}

/// What connects two nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// The index of one node.
    pub from: usize,
    /// The index of the other node.
    pub to: usize,
    /// What a reader should know of it, such as delay and rate, with commas between; may be empty.
    pub label: String,
}

/// Machines and what connects them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graph {
    /// The nodes. Those beyond [`NODES_MAX`] are not drawn.
    pub nodes: Vec<Node>,
    /// The edges. One that names a node that is not there is not drawn.
    pub edges: Vec<Edge>,
}

impl Graph {
    /// Adds a node and gives its index.
    pub fn node(&mut self, kind: Kind, label: impl Into<String>, addresses: Vec<String>) -> usize {
        self.nodes.push(Node { kind, label: label.into(), addresses, count: 1 });
        self.nodes.len() - 1
    }

    /// Connects two nodes.
    pub fn edge(&mut self, from: usize, to: usize, label: impl Into<String>) {
        self.edges.push(Edge { from, to, label: label.into() });
    }

    /// The same topology with few nodes: members of a group that are connected alike are one node, and of each
    /// kind there are few.
    #[must_use]
    pub fn collapsed(&self) -> Self {
        collapse::collapse(self)
    }

    /// A sentence that says what there is.
    #[must_use]
    pub fn sentence(&self) -> String {
        let mut parts = Vec::new();
        for kind in Kind::ALL {
            let of_kind = self.nodes.iter().filter(|node| node.kind == kind);
            match of_kind.map(|node| u64::from(node.count)).sum() {
                0 => {}
                1 => parts.push(format!("1 {}", kind.word())),
                count => parts.push(format!("{} {}", super::number::grouped(count), kind.words())),
            }
        }
        match parts.split_last() {
            None => "Nothing.".to_owned(),
            Some((only, [])) => format!("{only}."),
            Some((last, rest)) => format!("{} and {last}.", rest.join(", ")),
        }
    }
}

/// A topology that is laid out and can be drawn.
#[derive(Clone, Debug)]
pub struct Drawing {
    graph: Graph,
    layout: Layout,
}

impl Drawing {
    /// Lays out a topology from left to right: clients, what lies between, servers.
    #[must_use]
    pub fn new(graph: &Graph) -> Self {
        let graph = graph.collapsed();
        let layout = Layout::new(&graph);
        Self { graph, layout }
    }

    /// The picture in characters, at most `columns` wide: boxes and lines where they fit, else a list.
    #[must_use]
    pub fn to_text(&self, columns: usize) -> String {
        text::draw(&self.graph, &self.layout, columns)
    }

    /// The picture as one SVG element that stands alone or within a page, with a title and a description.
    #[must_use]
    pub fn to_svg(&self, title: &str) -> String {
        svg::draw(&self.graph, &self.layout, title)
    }
}

#[cfg(test)]
mod tests;
