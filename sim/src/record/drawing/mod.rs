//! A topology as a picture: as characters for a terminal and as SVG for a page.
//!
//! In: a plain [`Graph`] of machines and what connects them. Out: the same picture for the same graph,
//! whatever its size: members of a group become one node, and what is still too much is counted.

use serde::{Deserialize, Serialize};

/// What a node is; it says how it is drawn and, among equals, how far to the right it stands.
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
    /// What a reader should know of it, such as delay and rate; may be empty.
    pub label: String,
}

/// Machines and what connects them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graph {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The edges. One that names a node that is not there is not drawn.
    pub edges: Vec<Edge>,
}
