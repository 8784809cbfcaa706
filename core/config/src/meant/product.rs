//! The packets that meet a rule: a product of one set of values for each field, and what is left of it behind others.

use std::collections::BTreeSet;

use evenkeel_engine::InterfaceId;
use evenkeel_engine::plan::{Condition, FlowRule, Test};
use evenkeel_engine::policy::PolicyFlow;
use evenkeel_engine::wire::tcp::Flags;
use evenkeel_engine::wire::{Address, FiveTuple, Protocol};

/// The fields of a packet that rules look at.
const FIELDS: usize = 9;

/// The greatest value of each field: interface, protocol, addresses, ports, ICMP type, code point, flags.
const GREATEST: [u128; FIELDS] =
    [u16::MAX as u128, 255, u128::MAX, u128::MAX, u16::MAX as u128, u16::MAX as u128, 255, 63, 255];

/// Stretches, both ends included, in order and apart.
type Stretches = Vec<(u128, u128)>;

/// The packets that meet a rule: for each field, its values.
#[derive(Clone, Debug)]
pub(super) struct Product([Stretches; FIELDS]);

impl Product {
    pub(super) fn of(rule: &FlowRule) -> Self {
        let mut product = Self(GREATEST.map(|last| vec![(0, last)]));
        for Condition { is_negated, test } in &rule.conditions {
            let Some((field, stretches)) = field(test) else { continue };
            let stretches = if *is_negated { without(&stretches, last_of(field)) } else { stretches };
            if let Some(own) = product.0.get_mut(field) {
                *own = common(own, &stretches);
            }
        }
        product
    }

    /// Whether there is no such packet.
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().any(Vec::is_empty)
    }

    /// Two of its packets, from its ends.
    pub(super) fn corners(&self) -> [PolicyFlow; 2] {
        [
            self.corner(|stretches| stretches.first().map(|one| one.0)),
            self.corner(|stretches| stretches.last().map(|one| one.1)),
        ]
    }

    /// The packets that are in both, if there are any, and those that are in this one alone.
    pub(super) fn cut(self, by: &Self) -> (Option<Self>, Vec<Self>) {
        let mut both = self.clone();
        for (own, other) in both.0.iter_mut().zip(&by.0) {
            *own = common(own, other);
        }
        if both.is_empty() {
            return (None, vec![self]);
        }
        let (mut pieces, mut rest) = (Vec::new(), self);
        for (field, other) in by.0.iter().enumerate() {
            let outside = common(rest.field(field), &without(other, last_of(field)));
            let inside = common(rest.field(field), other);
            if !outside.is_empty() {
                let mut piece = rest.clone();
                piece.set(field, outside);
                pieces.push(piece);
            }
            rest.set(field, inside);
        }
        (Some(both), pieces)
    }

    fn set(&mut self, field: usize, stretches: Stretches) {
        if let Some(own) = self.0.get_mut(field) {
            *own = stretches;
        }
    }

    fn field(&self, field: usize) -> &[(u128, u128)] {
        self.0.get(field).map_or(&[], Vec::as_slice)
    }

    /// Whether `rule` holds for every packet.
    pub(super) fn is_within(&self, rule: &FlowRule) -> bool {
        rule.conditions.iter().all(|Condition { is_negated, test }| {
            let Some((field, stretches)) = field(test) else { return false };
            let own = self.field(field);
            if *is_negated { common(own, &stretches).is_empty() } else { is_part(own, &stretches) }
        })
    }

    /// Whether `rule` holds for no packet.
    pub(super) fn is_apart(&self, rule: &FlowRule) -> bool {
        rule.conditions.iter().any(|Condition { is_negated, test }| {
            let Some((field, stretches)) = field(test) else { return false };
            let own = self.field(field);
            if *is_negated { is_part(own, &stretches) } else { common(own, &stretches).is_empty() }
        })
    }

    /// One of its packets.
    fn corner(&self, pick: impl Fn(&[(u128, u128)]) -> Option<u128>) -> PolicyFlow {
        let value = |field: usize| pick(self.field(field)).unwrap_or(0);
        let small = |field: usize| u16::try_from(value(field)).unwrap_or(u16::MAX);
        let byte = |field: usize| u8::try_from(value(field)).unwrap_or(u8::MAX);
        let tuple = FiveTuple {
            source: Address::v6(value(2).to_be_bytes()),
            destination: Address::v6(value(3).to_be_bytes()),
            source_port: small(4),
            destination_port: small(5),
            protocol: Protocol(byte(1)),
        };
        let flow = PolicyFlow::new(0, tuple, InterfaceId(small(0)));
        PolicyFlow { icmp_kind: byte(6), dscp: Some(byte(7)), flags: Flags(byte(8)), ..flow }
    }
}

fn last_of(field: usize) -> u128 {
    GREATEST.get(field).copied().unwrap_or(u128::MAX)
}

/// Which field a test looks at, and the values for which it holds; nothing for a limit.
fn field(test: &Test) -> Option<(usize, Stretches)> {
    let one = |value: u128| vec![(value, value)];
    let ports = |ranges: &[(u16, u16)]| {
        ranges.iter().map(|(first, last)| (u128::from(*first), u128::from(*last))).collect()
    };
    let bytes = |most: u8, holds: &dyn Fn(u8) -> bool| {
        let values: BTreeSet<u8> = (0..=most).filter(|value| holds(*value)).collect();
        values.into_iter().map(|value| (u128::from(value), u128::from(value))).collect()
    };
    Some(match test {
        Test::Interface(interface) => (0, one(u128::from(interface.0))),
        Test::Protocol(protocol) => (1, one(u128::from(protocol.0))),
        Test::Source(set) => (2, set.ranges().to_vec()),
        Test::Destination(set) => (3, set.ranges().to_vec()),
        Test::SourcePort(set) => (4, ports(set.ranges())),
        Test::DestinationPort(set) => (5, ports(set.ranges())),
        Test::IcmpKind(kinds) => (6, bytes(255, &|kind| kinds.contains(kind))),
        Test::Dscp(points) => (7, bytes(63, &|point| points.contains(point))),
        Test::Flags { mask, set } => (8, bytes(255, &|flags| flags & mask == *set)),
        Test::Limit(_) => return None,
    })
}

/// What both have in common.
fn common(one: &[(u128, u128)], other: &[(u128, u128)]) -> Stretches {
    let mut all = Vec::new();
    let (mut left, mut right) = (one.iter().peekable(), other.iter().peekable());
    while let (Some((first, last)), Some((low, high))) = (left.peek(), right.peek()) {
        if first.max(low) <= last.min(high) {
            all.push((*first.max(low), *last.min(high)));
        }
        if last < high {
            left.next();
        } else {
            right.next();
        }
    }
    all
}

/// What is not in `stretches`, up to `greatest`.
fn without(stretches: &[(u128, u128)], greatest: u128) -> Stretches {
    let mut all = Vec::new();
    let mut next = Some(0);
    for (first, last) in stretches {
        if let Some(start) = next.filter(|start| start < first) {
            all.push((start, first - 1));
        }
        next = last.checked_add(1);
    }
    all.extend(next.filter(|start| *start <= greatest).map(|start| (start, greatest)));
    all
}

/// Whether all of `one` is in `other`. Neighbours in `other` count as one.
fn is_part(one: &[(u128, u128)], other: &[(u128, u128)]) -> bool {
    one.iter().all(|(first, last)| {
        let mut reached = *first;
        for (low, high) in other.iter().skip(other.partition_point(|(_, high)| high < first)) {
            if *low > reached {
                return false;
            }
            if high >= last {
                return true;
            }
            reached = high + 1;
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_are_cut_joined_and_compared() {
        let (one, other) = (vec![(0, 5), (10, 20)], vec![(3, 12), (13, 13), (20, 30)]);
        assert_eq!(common(&one, &other), [(3, 5), (10, 12), (13, 13), (20, 20)]);
        assert_eq!(without(&one, 63), [(6, 9), (21, 63)]);
        assert_eq!(without(&[(0, 63)], 63), []);
        assert_eq!(without(&[], u128::MAX), [(0, u128::MAX)]);
        assert_eq!(without(&[(5, u128::MAX)], u128::MAX), [(0, 4)]);
        assert!(is_part(&[(3, 13)], &other) && is_part(&[], &other));
        assert!(!is_part(&[(3, 14)], &other) && !is_part(&[(2, 4)], &other));
    }

    /// Piece by piece, each packet of a small world is where it was.
    #[test]
    fn what_is_cut_is_in_one_piece_and_in_no_other() {
        let of = |ports: (u128, u128), dscp: (u128, u128)| {
            let mut product = Product(GREATEST.map(|_| vec![(1, 1)]));
            product.set(5, vec![ports]);
            product.set(7, vec![dscp]);
            product
        };
        let has = |product: &Product, port: u128, point: u128| {
            let is_in = |field: usize, value: u128| {
                product.field(field).iter().any(|(first, last)| (first..=last).contains(&&value))
            };
            is_in(5, port) && is_in(7, point)
        };
        let ranges: Vec<_> = (0..5).flat_map(|first| (first..5).map(move |last| (first, last))).collect();
        for (ports, points) in ranges.iter().flat_map(|one| ranges.iter().map(move |other| (*one, *other))) {
            let (whole, by) = (of((1, 3), (1, 3)), of(ports, points));
            let (both, pieces) = whole.clone().cut(&by);
            for (port, point) in (0..5).flat_map(|port| (0..5).map(move |point| (port, point))) {
                let expected = usize::from(has(&whole, port, point));
                let found = both.iter().chain(&pieces).filter(|piece| has(piece, port, point)).count();
                assert_eq!(found, expected, "{port} {point} of {ports:?} {points:?}");
                let is_common = both.as_ref().is_some_and(|both| has(both, port, point));
                assert_eq!(is_common, expected == 1 && has(&by, port, point));
            }
        }
    }
}
