//! A scenario as a topology that can be drawn.

use std::net::IpAddr;

use super::{Network, Scenario};
use crate::record::drawing::{Graph, Kind};
use crate::wires::{Delay, Discipline, Loss, Quality};

/// Addresses of a machine that are named; the rest is counted.
const ADDRESSES_SHOWN: usize = 6;

impl Scenario {
    /// Its machines and segments and what connects them.
    #[must_use]
    pub fn graph(&self) -> Graph {
        let mut graph = Graph::default();
        let segments: Vec<usize> = self
            .segments
            .iter()
            .map(|segment| {
                let networks = segment.subnets.iter().map(ToString::to_string).collect();
                graph.node(Kind::Switch, &segment.name, networks)
            })
            .collect();
        for number in 0..self.machine_count() {
            let Some((name, _, network)) = self.machine(number) else { continue };
            let node = graph.node(self.kind(number, network), name, addresses(network));
            for attachment in &network.attachments {
                let Some(segment) = segments.get(attachment.segment) else { continue };
                let mut words = connection(&self.quality(number, attachment.segment));
                if attachment.vlan != super::VLAN_DEFAULT {
                    words.insert(0, format!("VLAN {}", attachment.vlan));
                }
                graph.edge(node, *segment, words.join(", "));
            }
        }
        graph
    }

    fn kind(&self, number: usize, network: &Network) -> Kind {
        let routers = self.hosts.len();
        match number {
            _ if number >= routers + self.routers.len() => Kind::Forwarder,
            _ if !network.masquerade.is_empty() => Kind::Nat,
            _ if number >= routers => Kind::Router,
            _ if self.is_client(number) => Kind::Client,
            _ => Kind::Server,
        }
    }
}

fn addresses(network: &Network) -> Vec<String> {
    let plugged = network.attachments.iter().flat_map(|attachment| &attachment.addresses);
    let plugged = plugged.map(IpAddr::to_string);
    let loopback = network.loopback.iter().map(|address| format!("{address} on lo"));
    let mut all: Vec<String> = plugged.chain(loopback).collect();
    if all.len() > ADDRESSES_SHOWN {
        let more = all.len() - ADDRESSES_SHOWN;
        all.truncate(ADDRESSES_SHOWN);
        all.push(format!("{more} more"));
    }
    all
}

/// What is special about a link.
fn connection((up, down): &(Quality, Quality)) -> Vec<String> {
    let (upwards, downwards) = (words(up), words(down));
    if upwards == downwards {
        return upwards;
    }
    let side =
        |name: &str, words: Vec<String>| (!words.is_empty()).then(|| format!("{name} {}", words.join(" ")));
    [side("up", upwards), side("down", downwards)].into_iter().flatten().collect()
}

/// What is not as by default.
fn words(quality: &Quality) -> Vec<String> {
    let usual = Quality::default();
    let mut words = Vec::new();
    if quality.delay != usual.delay {
        words.push(delay(quality.delay));
    }
    if quality.rate_bits != usual.rate_bits {
        words.push(rate(quality.rate_bits));
    }
    match quality.loss {
        Loss::None => {}
        Loss::Even { millionths } => words.push(format!("loses {}", percent(millionths))),
        Loss::GilbertElliott { .. } => words.push("loses in bursts".to_owned()),
    }
    if quality.reorder.millionths > 0 {
        words.push(format!("reorders {}", percent(quality.reorder.millionths)));
    }
    if quality.duplicate_millionths > 0 {
        words.push(format!("doubles {}", percent(quality.duplicate_millionths)));
    }
    if quality.corrupt_millionths > 0 {
        words.push(format!("corrupts {}", percent(quality.corrupt_millionths)));
    }
    if quality.queue != usual.queue {
        words.push(match quality.queue {
            Discipline::Packets { limit } => format!("queue of {limit}"),
            Discipline::Bytes { limit } => format!("queue of {limit} bytes"),
            Discipline::Red(red) => format!("RED {} to {}", red.low, red.high),
        });
    }
    if quality.mtu_bytes != usual.mtu_bytes {
        words.push(format!("MTU {}", quality.mtu_bytes));
    }
    words
}

fn delay(delay: Delay) -> String {
    match delay {
        Delay::Fixed(delay) => format!("{delay:?}"),
        Delay::Uniform { low, high } => format!("{low:?} to {high:?}"),
        Delay::Normal { mean, .. } | Delay::LogNormal { mean, .. } => format!("about {mean:?}"),
        Delay::Exponential { low, mean } => format!("about {:?}", low + mean),
        Delay::Pareto { low, high, .. } => format!("{low:?} to {high:?}"),
    }
}

fn rate(bits: u64) -> String {
    let units =
        [(1_000_000_000_000, "Tbit/s"), (1_000_000_000, "Gbit/s"), (1_000_000, "Mbit/s"), (1_000, "kbit/s")];
    let exact = units.into_iter().find(|(unit, _)| bits >= *unit && bits.is_multiple_of(*unit / 1_000));
    match exact {
        Some((unit, name)) if bits.is_multiple_of(unit) => format!("{} {name}", bits / unit),
        Some((unit, name)) => {
            let fraction = format!("{:03}", bits % unit / (unit / 1_000));
            format!("{}.{} {name}", bits / unit, fraction.trim_end_matches('0'))
        }
        None => format!("{bits} bit/s"),
    }
}

/// Millionths in percent, without zeros at the end.
fn percent(millionths: u32) -> String {
    let text = format!("{}.{:04}", millionths / 10_000, millionths % 10_000);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::super::reference;
    use super::*;
    use crate::record::drawing::Drawing;
    use std::path::Path;

    #[test]
    fn the_scenario_with_every_key_is_drawn() {
        let scenario = Scenario::parse(reference::EXAMPLE, Path::new("x.toml")).unwrap();
        let graph = scenario.graph();
        assert_eq!(graph.sentence(), "4 clients, 1 NAT, 1 forwarder, 3 networks and 3 real servers.");
        let server = graph.nodes.iter().find(|node| node.label == "server.1").unwrap();
        assert_eq!(server.addresses, ["10.0.3.21", "fd00:3::21", "10.0.0.3 on lo"]);
        let labels: Vec<&str> = graph.edges.iter().map(|edge| edge.label.as_str()).collect();
        assert!(
            labels.contains(&"1ms to 1.2ms, 1 Gbit/s, loses 0.1 %, reorders 1 %, MTU 1500"),
            "{labels:?}"
        );
        assert!(labels.contains(&"VLAN 10"), "{labels:?}");
        assert!(
            labels
                .iter()
                .any(|label| label
                    .starts_with("up 2ms to 40ms 100 Mbit/s loses in bursts RED 50 to 150, down")),
            "{labels:?}"
        );
        let drawing = Drawing::new(&graph);
        assert!(drawing.to_text(200).contains("edge") && drawing.to_svg("x").contains("</svg>"));
    }

    #[test]
    fn rates_and_shares_are_short() {
        assert_eq!(rate(10_000_000_000), "10 Gbit/s");
        assert_eq!(rate(2_500_000_000), "2.5 Gbit/s");
        assert_eq!(rate(64_000), "64 kbit/s");
        assert_eq!(rate(1_234_567), "1234.567 kbit/s");
        assert_eq!(rate(7), "7 bit/s");
        assert_eq!([percent(10_000), percent(1), percent(1_000_000)], ["1 %", "0.0001 %", "100 %"]);
    }
}
