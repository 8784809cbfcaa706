//! What flow rules and outflow rules say, as plain data: flows, their rules, conditions, sets, limits, routing tables.
//!
//! A set is sorted when it is made, so that asking it costs the logarithm of its size.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use super::{Prefix, RoutePlan};
use crate::time::Duration;
use crate::verdict::InterfaceId;
use crate::wire::{Address, Protocol};

/// A routing table beside the main one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablePlan {
    /// The number that users know.
    pub id: u32,
    /// The longest prefix wins, then the first; where none holds, the main routes do.
    pub routes: Vec<RoutePlan>,
}

/// A named flow or outflow: rules that say which packets belong to it, and what happens to those.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowPlan {
    /// The name that users know, shown where it denies.
    pub name: String,
    /// What happens to packets of this flow.
    pub action: FlowAction,
    /// Looked at in order; the first whose conditions all hold decides.
    pub rules: Vec<FlowRule>,
}

impl FlowPlan {
    /// Whether every packet belongs to it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.rules.first().is_some_and(|rule| rule.is_match && rule.conditions.is_empty())
    }
}

/// What a flow does with its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowAction {
    /// The packet goes on to the director that is bound to its destination; an outflow lets it leave.
    Permit,
    /// The packet is dropped.
    Deny,
    /// The packet goes to this director, whatever its destination; the index into
    /// [`Plan::directors`](super::Plan::directors). Not in outflows.
    Director(usize),
    /// The packet may pass, and leaves by this routing table; the index into [`Plan::tables`](super::Plan::tables).
    Table(usize),
    /// The flow is passed over.
    Skip,
}

/// One rule of a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowRule {
    /// `match` when set: the packet belongs to the flow. Else `ignore`: it does not, and the next flow is asked.
    pub is_match: bool,
    /// Every one of them must hold.
    pub conditions: Vec<Condition>,
    /// What its author says of it; empty without words.
    pub comment: String,
}

impl FlowRule {
    /// `match` with these conditions.
    #[must_use]
    pub fn matching(tests: Vec<Test>) -> Self {
        Self { is_match: true, ..Self::ignoring(tests) }
    }

    /// `ignore` with these conditions.
    #[must_use]
    pub fn ignoring(tests: Vec<Test>) -> Self {
        let conditions = tests.into_iter().map(|test| Condition { is_negated: false, test }).collect();
        Self { is_match: false, conditions, comment: String::new() }
    }
}

/// One condition, negated or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `not` stands in front of it.
    pub is_negated: bool,
    /// What it looks at.
    pub test: Test,
}

/// What a condition looks at. Of several packets of a flow it looks at the one that opens it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// The input interface; in an outflow, the output interface that the main routes have chosen.
    Interface(InterfaceId),
    /// The protocol of layer 4.
    Protocol(Protocol),
    /// The source address.
    Source(Arc<AddressSet>),
    /// The destination address.
    Destination(Arc<AddressSet>),
    /// The source port; holds for no protocol but TCP and UDP.
    SourcePort(Arc<PortSet>),
    /// The destination port; holds for no protocol but TCP and UDP.
    DestinationPort(Arc<PortSet>),
    /// The type of an ICMP message; holds for no other protocol.
    IcmpKind(ByteSet),
    /// Of the control bits in `mask`, exactly those in `set` are there; holds for no protocol but TCP.
    Flags {
        /// Which bits are looked at.
        mask: u8,
        /// Which of them must be there.
        set: u8,
    },
    /// The differentiated services code point (RFC 2474), 0 to 63.
    Dscp(ByteSet),
    /// Holds while this bound is not reached. It is asked after all other conditions of the rule.
    Limit(Limit),
}

impl Test {
    /// The source address lies in one network.
    #[must_use]
    pub fn source(network: Prefix) -> Self {
        Self::Source(Arc::new(AddressSet::of(&[network])))
    }

    /// The destination address lies in one network.
    #[must_use]
    pub fn destination(network: Prefix) -> Self {
        Self::Destination(Arc::new(AddressSet::of(&[network])))
    }

    /// The source port is one of a range.
    #[must_use]
    pub fn source_port(ports: RangeInclusive<u16>) -> Self {
        Self::SourcePort(Arc::new(PortSet::of(&[ports])))
    }

    /// The destination port is one of a range.
    #[must_use]
    pub fn destination_port(ports: RangeInclusive<u16>) -> Self {
        Self::DestinationPort(Arc::new(PortSet::of(&[ports])))
    }
}

/// How often new flows may meet a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// How many in each period (1 to 1,000,000,000).
    pub count: u32,
    /// The period (1 s to 1 day).
    pub period: Duration,
    /// How many at once after a pause (1 to 1,000,000,000).
    pub burst: u32,
    /// Whom it is counted for.
    pub key: LimitKey,
}

/// Whom a limit is counted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKey {
    /// All together.
    All,
    /// Each source, by this many bits of its address (IPv4, IPv6).
    Source(u8, u8),
    /// Each destination, by this many bits of its address (IPv4, IPv6).
    Destination(u8, u8),
}

/// Addresses: networks that have been sorted and joined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressSet {
    /// First and last, both included; sorted, with a gap between any two.
    ranges: Vec<(u128, u128)>,
}

impl AddressSet {
    /// All addresses of these networks.
    #[must_use]
    pub fn of(networks: &[Prefix]) -> Self {
        Self { ranges: joined(networks.iter().flat_map(Prefix::ranges).flatten().collect()) }
    }

    /// Whether `address` is one of them.
    #[must_use]
    #[inline]
    pub fn contains(&self, address: Address) -> bool {
        let bits = address.bits();
        let place = self.ranges.partition_point(|(_, last)| *last < bits);
        self.ranges.get(place).is_some_and(|(first, _)| *first <= bits)
    }

    /// First and last address of each stretch, both included, in order, with a gap between any two.
    #[must_use]
    pub fn ranges(&self) -> &[(u128, u128)] {
        &self.ranges
    }
}

/// Ports: ranges that have been sorted and joined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortSet {
    ranges: Vec<(u16, u16)>,
}

impl PortSet {
    /// All ports of these ranges.
    #[must_use]
    pub fn of(ranges: &[RangeInclusive<u16>]) -> Self {
        let pairs = ranges.iter().filter(|range| !range.is_empty());
        Self { ranges: joined(pairs.map(|range| (*range.start(), *range.end())).collect()) }
    }

    /// Whether `port` is one of them.
    #[must_use]
    #[inline]
    pub fn contains(&self, port: u16) -> bool {
        let place = self.ranges.partition_point(|(_, last)| *last < port);
        self.ranges.get(place).is_some_and(|(first, _)| *first <= port)
    }

    /// First and last port of each stretch, both included, in order, with a gap between any two.
    #[must_use]
    pub fn ranges(&self) -> &[(u16, u16)] {
        &self.ranges
    }
}

/// Any of the numbers from 0 to 255.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByteSet([u64; 4]);

impl ByteSet {
    /// These numbers.
    #[must_use]
    pub fn of(numbers: &[u8]) -> Self {
        let mut set = Self::default();
        for number in numbers {
            if let Some(word) = set.0.get_mut(usize::from(number >> 6)) {
                *word |= 1 << (number & 63);
            }
        }
        set
    }

    /// Whether `number` is one of them.
    #[must_use]
    #[inline]
    pub fn contains(&self, number: u8) -> bool {
        self.0.get(usize::from(number >> 6)).is_some_and(|word| word >> (number & 63) & 1 == 1)
    }
}

/// Ranges in order, those that touch or overlap made one.
fn joined<T: Copy + Ord + Step>(mut ranges: Vec<(T, T)>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut joined: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match joined.last_mut() {
            Some((_, end)) if first <= end.next() => *end = (*end).max(last),
            _ => joined.push((first, last)),
        }
    }
    joined
}

/// A number that has a next one.
trait Step {
    /// The next number; the last one is its own next.
    fn next(self) -> Self;
}

impl Step for u16 {
    fn next(self) -> Self {
        self.saturating_add(1)
    }
}

impl Step for u128 {
    fn next(self) -> Self {
        self.saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn network(text: &str, length: u8) -> Prefix {
        Prefix { address: text.parse().unwrap(), length }
    }

    #[test]
    fn a_set_holds_what_its_networks_hold_and_joins_neighbours() {
        let networks = [network("10.0.1.0", 24), network("10.0.0.0", 24), network("2001:db8::", 32)];
        let set = AddressSet::of(&networks);
        assert_eq!(set.ranges().len(), 2);
        for text in ["10.0.0.0", "10.0.1.255", "10.0.2.0", "9.255.255.255", "2001:db8::7", "2001:db9::", "::"]
        {
            let address: core::net::IpAddr = text.parse().unwrap();
            let expected = networks.iter().any(|network| network.contains(address));
            assert_eq!(set.contains(address.into()), expected, "{text}");
        }
    }

    #[test]
    fn no_ipv4_address_lies_in_a_network_of_ipv6() {
        for (text, length) in [("::", 0), ("::", 64), ("::ffff:0:0", 96), ("::ffff:a00:0", 104)] {
            let set = AddressSet::of(&[network(text, length)]);
            assert!(!set.contains(Address::v4([10, 0, 0, 1])), "{text}/{length}");
        }
        let all = AddressSet::of(&[network("::", 0)]);
        assert!(all.contains(Address::v6([0; 16])) && all.contains(Address::v6([255; 16])));
        assert_eq!(AddressSet::of(&[network("::", 0), network("0.0.0.0", 0)]).ranges(), [(0, u128::MAX)]);
    }

    #[test]
    fn ports_and_bytes_are_found_up_to_their_ends() {
        let set = PortSet::of(&[80..=80, 65_535..=65_535, 8_000..=8_010, 8_005..=8_020]);
        assert_eq!(set.ranges(), [(80, 80), (8_000, 8_020), (65_535, 65_535)]);
        for (port, is_in) in
            [(79, false), (80, true), (81, false), (8_020, true), (8_021, false), (65_535, true)]
        {
            assert_eq!(set.contains(port), is_in, "{port}");
        }
        let bytes = ByteSet::of(&[0, 63, 64, 255]);
        let found: Vec<u8> = (0..=255).filter(|byte| bytes.contains(*byte)).collect();
        assert_eq!(found, vec![0, 63, 64, 255]);
    }
}
