//! The language of flow rules as a component: flows, their rules and their conditions, in the order of a text.
//!
//! The text is the option `rules`, or the component's `data` (a file); with both, the option comes first. It is the
//! language of the chapter on flow rules, with these differences: a set stands in the text and not in a file; a flow asks
//! no component; and what is said of directors and networks is passed over, since the configuration says that.
//!
//! A component that is asked about packets as they leave (`way = "out"`) decides by the outflows of the text, and else by
//! its flows; option `way` says which (`in` or `out`) where that is to be otherwise.
//!
//! It shares no code with the native rules, and walks through its own one by one: hundreds of rules are no matter,
//! thousands are better kept native.
//!
//! ```text
//! text -> words -> flows (text.rs) -> for each arrival: flow by flow, rule by rule, condition by condition
//! ```

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod text;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use evenkeel_plugin_sdk::meter::Meter;
use evenkeel_plugin_sdk::network::{Network, is_ipv4};
use evenkeel_plugin_sdk::{
    Arrival, ConfigureError, Decision, Instant, Options, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP,
    PROTOCOL_UDP, Policy, PolicySetup, Verdict,
};

/// What a text says.
#[derive(Debug, Default)]
struct Book {
    flows: Vec<Flow>,
    outflows: Vec<Flow>,
    meters: Vec<Bound>,
}

/// Packets that belong together, and what happens to them; nothing where the flow is passed over.
#[derive(Debug)]
struct Flow {
    verdict: Option<Verdict>,
    rules: Vec<Rule>,
}

/// `match`, or else `ignore`.
#[derive(Debug)]
struct Rule {
    is_match: bool,
    conditions: Vec<Condition>,
}

#[derive(Debug)]
struct Condition {
    is_negated: bool,
    test: Test,
}

/// What a condition looks at; of a list, one must hold.
#[derive(Debug)]
enum Test {
    Interface(u32),
    Protocol(u8),
    Source(Vec<Network>),
    Destination(Vec<Network>),
    SourcePort(Vec<(u16, u16)>),
    DestinationPort(Vec<(u16, u16)>),
    IcmpKind(Vec<u8>),
    /// Of the bits in the mask, exactly those in the set.
    Flags {
        mask: u8,
        set: u8,
    },
    Dscp(Vec<u8>),
    /// The place of its meter.
    Limit(usize),
}

/// A limit, and whom it counts for.
#[derive(Debug)]
struct Bound {
    meter: Meter,
    key: Key,
}

/// Whom a limit counts for: by how many bits of IPv4 and IPv6.
#[derive(Clone, Copy, Debug)]
enum Key {
    All,
    Source(u8, u8),
    Destination(u8, u8),
}

impl Key {
    fn of(self, arrival: &Arrival) -> u128 {
        let (address, four, six) = match self {
            Self::All => return 0,
            Self::Source(four, six) => (arrival.flow.source_bits(), four, six),
            Self::Destination(four, six) => (arrival.flow.destination_bits(), four, six),
        };
        let length = if is_ipv4(address) { 96 + u32::from(four) } else { u32::from(six) };
        address & !u128::MAX.checked_shr(length).unwrap_or(0)
    }
}

#[derive(Debug)]
struct FlowManager {
    flows: Vec<Flow>,
    meters: Vec<Bound>,
}

/// Names and their places.
type Names = BTreeMap<String, u32>;

fn names(list: &[String]) -> Names {
    list.iter().zip(0..).map(|(name, place)| (name.clone(), place)).collect()
}

impl Policy for FlowManager {
    fn configure(setup: &PolicySetup, options: &mut Options) -> Result<Self, ConfigureError> {
        let way = options.text("way", if setup.is_outflow { "out" } else { "in" })?;
        let rules = options.text("rules", "")?;
        let mut reader = text::Reader::new(setup.common.seed, setup);
        for (place, part) in [("rules", &rules), ("data", &setup.data)] {
            reader.read(place, part).map_err(ConfigureError::Other)?;
        }
        let Book { flows, outflows, meters } = reader.book;
        let flows = match way.as_str() {
            "in" => flows,
            "out" => outflows,
            _ => return Err(ConfigureError::bad_option("way", "write `in` or `out`")),
        };
        Ok(Self { flows, meters })
    }

    fn decide(&mut self, arrival: &Arrival, now: Instant) -> Decision {
        for flow in &self.flows {
            let Some(verdict) = flow.verdict else { continue };
            for rule in &flow.rules {
                if !holds(&rule.conditions, &mut self.meters, arrival, now) {
                    continue;
                }
                if rule.is_match {
                    return verdict.into();
                }
                break;
            }
        }
        Verdict::Skip.into()
    }
}

/// Whether all conditions of a rule hold. To ask a limit counts, so limits come last.
fn holds(conditions: &[Condition], meters: &mut [Bound], arrival: &Arrival, now: Instant) -> bool {
    let is_met = |condition: &&Condition| match is_true(&condition.test, arrival) {
        Some(truth) => truth != condition.is_negated,
        None => true,
    };
    if !conditions.iter().all(|condition| is_met(&condition)) {
        return false;
    }
    conditions.iter().all(|condition| {
        let Test::Limit(place) = condition.test else { return true };
        let Some(Bound { meter, key }) = meters.get_mut(place) else { return true };
        meter.take(key.of(arrival), now) != condition.is_negated
    })
}

/// Whether a test holds; nothing for limits.
fn is_true(test: &Test, arrival: &Arrival) -> Option<bool> {
    let flow = &arrival.flow;
    let has_ports = flow.protocol == PROTOCOL_TCP || flow.protocol == PROTOCOL_UDP;
    let within = |ranges: &[(u16, u16)], port: u16| {
        has_ports && ranges.iter().any(|(first, last)| *first <= port && port <= *last)
    };
    let in_any = |networks: &[Network], bits| networks.iter().any(|network| network.contains(bits));
    Some(match test {
        Test::Interface(place) => arrival.interface == *place,
        Test::Protocol(protocol) => flow.protocol == *protocol,
        Test::Source(networks) => in_any(networks, flow.source_bits()),
        Test::Destination(networks) => in_any(networks, flow.destination_bits()),
        Test::SourcePort(ranges) => within(ranges, flow.source_port),
        Test::DestinationPort(ranges) => within(ranges, flow.destination_port),
        Test::IcmpKind(kinds) => {
            let is_icmp = flow.protocol == PROTOCOL_ICMP || flow.protocol == PROTOCOL_ICMPV6;
            is_icmp && kinds.contains(&arrival.icmp_kind)
        }
        Test::Flags { mask, set } => flow.is_tcp() && arrival.tcp_flags & mask == *set,
        Test::Dscp(points) => points.contains(&arrival.dscp),
        Test::Limit(_) => return None,
    })
}

evenkeel_plugin_sdk::export_policy!(FlowManager);

#[cfg(test)]
mod tests;
