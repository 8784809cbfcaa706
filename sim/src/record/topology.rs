//! The machines of a scenario as a graph that can be drawn.

use std::collections::BTreeMap;

use evenkeel_engine::Duration;

use super::drawing::{Graph, Kind};
use super::number::{duration, float, percent, short};
use crate::scenario::{Network, Scenario, SegmentKind};
use crate::wires::{Delay, Loss, Quality};

impl From<&Scenario> for Graph {
    /// Every machine and every network; a cable between two machines is an edge.
    fn from(scenario: &Scenario) -> Self {
        let mut graph = Self::default();
        let plugs = plugs(scenario);
        let mut networks = BTreeMap::new();
        for (index, segment) in scenario.segments.iter().enumerate() {
            let is_edge = segment.kind == SegmentKind::Cable && plugs.get(&index).map_or(0, Vec::len) == 2;
            if !is_edge {
                let subnets = segment.subnets.iter().map(ToString::to_string).collect();
                networks.insert(index, graph.node(Kind::Switch, segment.name.clone(), subnets));
            }
        }
        let first = graph.nodes.len();
        for number in 0..scenario.machine_count() {
            let Some((name, _, network)) = scenario.machine(number) else { continue };
            graph.node(kind(scenario, number, network), name, addresses(network));
        }
        for (index, machines) in &plugs {
            match (networks.get(index), &machines[..]) {
                (Some(network), _) => {
                    for machine in machines {
                        graph.edge(first + machine, *network, link(scenario.quality(*machine, *index)));
                    }
                }
                (None, [one, other]) => {
                    // A cable has one end at each machine, and each end may be written.
                    let (up, down) = scenario.quality(*one, *index);
                    graph.edge(first + one, first + other, link((up, down)));
                }
                (None, _) => {}
            }
        }
        graph
    }
}

/// The machines on each segment, by number.
fn plugs(scenario: &Scenario) -> BTreeMap<usize, Vec<usize>> {
    let mut plugs: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for number in 0..scenario.machine_count() {
        let Some((_, _, network)) = scenario.machine(number) else { continue };
        for attachment in &network.attachments {
            let machines = plugs.entry(attachment.segment).or_default();
            if !machines.contains(&number) {
                machines.push(number);
            }
        }
    }
    plugs
}

fn kind(scenario: &Scenario, number: usize, network: &Network) -> Kind {
    let (hosts, routers) = (scenario.hosts.len(), scenario.routers.len());
    match number {
        _ if number < hosts && scenario.is_client(number) => Kind::Client,
        _ if number < hosts => Kind::Server,
        _ if number < hosts + routers && !network.masquerade.is_empty() => Kind::Nat,
        _ if number < hosts + routers => Kind::Router,
        _ => Kind::Forwarder,
    }
}

fn addresses(network: &Network) -> Vec<String> {
    let attached = network.attachments.iter().flat_map(|attachment| &attachment.addresses);
    let own = attached.map(ToString::to_string);
    own.chain(network.loopback.iter().map(|address| format!("{address} on lo"))).collect()
}

/// What a link does to frames, in few words; both directions where they differ.
fn link((up, down): (Quality, Quality)) -> String {
    if up == down { words(&up) } else { format!("up {}, down {}", words(&up), words(&down)) }
}

/// Delay and rate, and whatever else is not as it should be.
fn words(quality: &Quality) -> String {
    let mut words = vec![delay(quality.delay)];
    if quality.rate_bits > 0 {
        words.push(format!("{}bit/s", spaced(&short(float(quality.rate_bits)))));
    }
    match quality.loss {
        Loss::None => {}
        Loss::Even { millionths } => words.push(format!("{} lost", percent(millionths.into()))),
        Loss::GilbertElliott { .. } => words.push("loss in bursts".to_owned()),
    }
    let shares = [
        (quality.reorder.millionths, "late"),
        (quality.duplicate_millionths, "twice"),
        (quality.corrupt_millionths, "corrupt"),
    ];
    let shares = shares.into_iter().filter(|(millionths, _)| *millionths > 0);
    words.extend(shares.map(|(millionths, what)| format!("{} {what}", percent(millionths.into()))));
    words.join(", ")
}

/// `10 G` of `10G`.
fn spaced(number: &str) -> String {
    match number.find(|character: char| character.is_ascii_alphabetic()) {
        Some(at) => format!("{} {}", number.get(..at).unwrap_or(number), number.get(at..).unwrap_or("")),
        None => format!("{number} "),
    }
}

fn delay(delay: Delay) -> String {
    let show = |time: Duration| duration(float(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)));
    match delay {
        Delay::Fixed(time) => show(time),
        Delay::Uniform { low, high } | Delay::Pareto { low, high, .. } => {
            format!("{} to {}", show(low), show(high))
        }
        Delay::Normal { mean, deviation } | Delay::LogNormal { mean, deviation } => {
            format!("{} ± {}", show(mean), show(deviation))
        }
        Delay::Exponential { low, mean } => format!("from {} on, {} more", show(low), show(mean)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use std::path::Path;

    use super::super::drawing::Drawing;
    use super::*;
    use crate::library;

    fn draw(text: &str) -> String {
        let scenario = Scenario::parse(text, Path::new("x.toml")).unwrap_or_else(|errors| panic!("{errors}"));
        Drawing::new(&Graph::from(&scenario)).to_text(80)
    }

    #[test]
    fn every_scenario_of_the_library_is_drawn() {
        for entry in library::ENTRIES {
            let (_, text) = entry.files[0];
            let drawn = draw(text);
            let scenario = Scenario::parse(text, Path::new("x.toml")).unwrap();
            for forwarder in &scenario.forwarders {
                assert!(drawn.contains(&forwarder.name), "{}\n{drawn}", entry.name);
            }
            assert!(drawn.lines().all(|line| line.chars().count() <= 80), "{}\n{drawn}", entry.name);
        }
    }

    #[test]
    fn the_demo_is_drawn_with_its_links() {
        let (_, text) = library::find("demo").unwrap().files[0];
        let drawn = draw(text);
        assert!(drawn.contains("┨lb┠"), "{drawn}");
        assert!(drawn.contains("client.0  198.51.100.10\n"), "{drawn}");
        assert!(drawn.contains("10 µs, 10 Gbit/s: every link\n"), "{drawn}");
    }

    #[test]
    fn what_links_do_is_told_in_few_words() {
        let plain = Quality::default();
        assert_eq!(words(&plain), "10 µs, 10 Gbit/s");
        let odd = Quality {
            rate_bits: 0,
            delay: Delay::Uniform { low: Duration::from_millis(5), high: Duration::from_millis(40) },
            loss: Loss::Even { millionths: 1_000 },
            duplicate_millionths: 500_000,
            ..Quality::default()
        };
        assert_eq!(words(&odd), "5 ms to 40 ms, 0.1 % lost, 50 % twice");
        assert_eq!(link((plain, odd)), "up 10 µs, 10 Gbit/s, down 5 ms to 40 ms, 0.1 % lost, 50 % twice");
        let slow = Quality { rate_bits: 500, ..plain };
        assert_eq!(words(&slow), "10 µs, 500 bit/s");
    }
}
