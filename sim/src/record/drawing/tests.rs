//! Pictures of topologies that exist, of very large ones and of odd ones.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use crate::random::Stream;

/// Clients and servers on two sides of a forwarder.
fn two_sides(clients: usize, servers: usize) -> Graph {
    let mut graph = Graph::default();
    let left = graph.node(Kind::Switch, "clients", vec!["198.51.100.0/24".to_owned()]);
    let right = graph.node(Kind::Switch, "servers", vec!["10.0.3.0/24".to_owned()]);
    for index in 0..clients {
        let address = format!("198.51.{}.{}", index / 250, index % 250);
        let client = graph.node(Kind::Client, format!("client.{index}"), vec![address]);
        graph.edge(client, left, "1 ms, 1 Gbit/s");
    }
    for index in 0..servers {
        let server =
            graph.node(Kind::Server, format!("server.{index}"), vec![format!("10.0.3.{}", index + 20)]);
        graph.edge(server, right, "10 µs, 10 Gbit/s");
    }
    let lb = graph.node(Kind::Forwarder, "lb", vec!["198.51.100.1".to_owned(), "10.0.3.1".to_owned()]);
    graph.edge(lb, left, "10 µs, 10 Gbit/s");
    graph.edge(lb, right, "10 µs, 10 Gbit/s");
    graph
}

/// A gateway, and one network with forwarders and servers.
fn one_arm(forwarders: usize, servers: usize) -> Graph {
    let mut graph = Graph::default();
    let wan = graph.node(Kind::Switch, "wan", vec!["203.0.113.0/24".to_owned()]);
    let lan = graph.node(Kind::Switch, "lan", vec!["10.0.0.0/24".to_owned()]);
    let client = graph.node(Kind::Client, "client", vec!["203.0.113.9".to_owned()]);
    let gateway = graph.node(Kind::Router, "gw", vec!["203.0.113.1".to_owned(), "10.0.0.1".to_owned()]);
    graph.edge(client, wan, "20 ms");
    graph.edge(wan, gateway, "");
    graph.edge(gateway, lan, "");
    for index in 0..forwarders {
        let lb = graph.node(Kind::Forwarder, format!("lb{index}"), vec![format!("10.0.0.{}", 2 + index)]);
        graph.edge(lan, lb, "");
    }
    for index in 0..servers {
        let server = graph.node(Kind::Server, format!("s.{index}"), vec![format!("10.0.0.{}", 13 + index)]);
        graph.edge(lan, server, "");
    }
    graph
}

#[test]
fn two_sides_as_text() {
    let wanted = "
                                               ┌────────┐
                                             ┌─┤server.0│
                                             │ └────────┘
┌───────────┐   ╭───────╮   ┏━━┓   ╭───────╮ │ ┌────────┐
│client.0..9├───┤clients├───┨lb┠───┤servers├─┼─┤server.1│
└───────────┘   ╰───────╯   ┗━━┛   ╰───────╯ │ └────────┘
                                             │ ┌────────┐
                                             └─┤server.2│
                                               └────────┘

client.0..9 (10 clients)  198.51.0.0..9
clients  198.51.100.0/24
lb  198.51.100.1, 10.0.3.1
servers  10.0.3.0/24
server.0  10.0.3.20
server.1  10.0.3.21
server.2  10.0.3.22

1 ms, 1 Gbit/s: client.0..9 - clients
10 µs, 10 Gbit/s: every other link
";
    assert_eq!(Drawing::new(&two_sides(10, 3)).to_text(80), wanted.trim_start_matches('\n'));
}

#[test]
fn one_arm_as_text() {
    let wanted = "
                                          ┌───┐
                                        ┌─┤s.0│
                                  ┏━━━┓ │ └───┘
                                ┌─┨lb0┃ │ ┌───┐
┌──────┐   ╭───╮   ╔══╗   ╭───╮ │ ┗━━━┛ ├─┤s.1│
│client├───┤wan├───╢gw╟───┤lan├─┤ ┏━━━┓ │ └───┘
└──────┘   ╰───╯   ╚══╝   ╰───╯ ├─┨lb1┃ │ ┌───┐
                                │ ┗━━━┛ ├─┤s.2│
                                └───────┤ └───┘
                                        │ ┌───┐
                                        └─┤s.3│
                                          └───┘
";
    let text = Drawing::new(&one_arm(2, 4)).to_text(80);
    assert_eq!(
        text.split_inclusive("\n\n").next().unwrap().trim_end(),
        wanted.trim_start_matches('\n').trim_end()
    );
    let list = Drawing::new(&one_arm(2, 4)).to_text(40);
    assert!(list.contains("lan (network)  10.0.0.0/24\n    - gw\n    - lb0\n    - lb1\n"), "{list}");
}

#[test]
fn sixty_thousand_clients_are_one_node() {
    let drawing = Drawing::new(&two_sides(60_000, 500));
    assert_eq!(drawing.graph.nodes.len(), 5);
    let text = drawing.to_text(80);
    assert!(text.contains("client.0..59999 (60,000 clients)  198.51.0.0..198.51.239.249\n"), "{text}");
    let svg = drawing.to_svg("x");
    assert!(svg.contains("500 real servers") && svg.len() < 8_000, "{}", svg.len());
    assert_eq!(
        two_sides(60_000, 500).sentence(),
        "60,000 clients, 1 forwarder, 2 networks and 500 real servers."
    );
}

#[test]
fn members_with_other_links_are_other_nodes() {
    let mut graph = two_sides(10, 3);
    for edge in graph.edges.iter_mut().take(5) {
        edge.label = "80 ms".to_owned();
    }
    let labels: Vec<String> = graph.collapsed().nodes.into_iter().map(|node| node.label).collect();
    assert!(
        labels.contains(&"client.0..4".to_owned()) && labels.contains(&"client.5..9".to_owned()),
        "{labels:?}"
    );
}

#[test]
fn pairs_of_groups_become_two_nodes() {
    let mut graph = Graph::default();
    let wan = graph.node(Kind::Switch, "wan", Vec::new());
    for index in 0..100 {
        let nat = graph.node(Kind::Nat, format!("home.{index}"), vec![format!("203.0.113.{index}")]);
        let client = graph.node(Kind::Client, format!("user.{index}"), vec!["192.168.0.2".to_owned()]);
        graph.edge(client, nat, "");
        graph.edge(nat, wan, "");
    }
    let small = graph.collapsed();
    let labels: Vec<(&str, u32)> = small.nodes.iter().map(|node| (&node.label[..], node.count)).collect();
    assert_eq!(labels, [("wan", 1), ("home.0..99", 100), ("user.0..99", 100)]);
    assert_eq!(small.nodes[2].addresses, ["192.168.0.2"]);
    assert_eq!(small.edges.len(), 2);
}

#[test]
fn a_crowd_of_different_machines_is_counted() {
    let mut graph = Graph::default();
    let lan = graph.node(Kind::Switch, "lan", Vec::new());
    for index in 0..1_000 {
        let server = graph.node(Kind::Server, format!("machine-{index}"), Vec::new());
        graph.edge(lan, server, format!("{index} ms"));
    }
    let text = Drawing::new(&graph).to_text(80);
    assert!(text.contains("989 more real servers") && text.lines().count() < 80, "{text}");
    assert!(text.contains("989 kinds of link"), "{text}");
}

#[test]
fn odd_graphs_are_drawn_as_far_as_they_go() {
    let empty = Drawing::new(&Graph::default());
    assert_eq!(empty.to_text(80), "");
    assert!(empty.to_svg("nothing").contains("<desc>Nothing.</desc>"));
    let mut graph = Graph::default();
    let only = graph.node(Kind::Server, "s", Vec::new());
    graph.edge(only, only, "itself");
    graph.edge(only, 7, "nowhere");
    assert_eq!(Drawing::new(&graph).to_text(80), "┌───┐\n│ s │\n└───┘\n");
}

#[test]
fn neighbours_in_one_column_are_told() {
    let mut graph = two_sides(1, 1);
    let standby = graph.node(Kind::Forwarder, "standby", Vec::new());
    graph.edge(0, standby, "");
    graph.edge(standby, 1, "");
    graph.edge(4, standby, "");
    let drawing = Drawing::new(&graph);
    assert!(drawing.to_text(120).contains("also connected: lb - standby\n"));
    let lines = drawing.to_svg("x").matches("class=\"edge\"").count();
    assert_eq!(lines, graph.edges.len());
}

#[test]
fn names_cannot_break_out() {
    let mut graph = Graph::default();
    graph.node(Kind::Client, "<script>\u{1b}[2J", vec!["\"&'".to_owned()]);
    let drawing = Drawing::new(&graph);
    let (svg, text) = (drawing.to_svg("</title><b>"), drawing.to_text(80));
    assert!(!svg.contains("<script") && !svg.contains("<b>") && !svg.contains('\u{1b}'), "{svg}");
    assert!(!text.contains('\u{1b}') && text.contains("?[2J"), "{text}");
}

/// Graphs of any form: every node and no other is drawn, within the width, and twice the same.
#[test]
fn any_graph_is_drawn_within_its_width() {
    for seed in 0..300 {
        let mut stream = Stream::new(seed, "drawing", "graph");
        let mut graph = Graph::default();
        let nodes = usize::try_from(stream.below(40)).unwrap() + 1;
        for index in 0..nodes {
            let kind = Kind::ALL[usize::try_from(stream.below(6)).unwrap()];
            let group = stream.below(3);
            graph.node(kind, format!("g{group}.{index}"), vec![format!("10.0.{group}.{index}")]);
        }
        for _ in 0..stream.below(60) {
            let mut any = || usize::try_from(stream.below(u64::try_from(nodes).unwrap())).unwrap();
            let (from, to) = (any(), any());
            graph.edge(from, to, "1 ms");
        }
        let drawing = Drawing::new(&graph);
        let machines: u32 = drawing.graph.nodes.iter().map(|node| node.count).sum();
        assert_eq!(usize::try_from(machines).unwrap(), nodes, "seed {seed}");
        for width in [40, 80, 200] {
            let text = drawing.to_text(width);
            assert!(text.lines().all(|line| line.chars().count() <= width), "seed {seed}\n{text}");
            for node in &drawing.graph.nodes {
                assert!(text.contains(&node.label), "seed {seed}: {}\n{text}", node.label);
            }
            assert_eq!(text, Drawing::new(&graph).to_text(width));
        }
        let svg = drawing.to_svg("x");
        assert_eq!(svg.matches("<g>").count(), drawing.graph.nodes.len(), "seed {seed}");
    }
}
