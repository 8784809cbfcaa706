//! Rules that decide about no packet, since no packet meets them or another rule, before them, takes them all.
//!
//! A rule is a product of one set for each field. Most rules are cleared by a witness: a packet out of the corner of that
//! product about which the compiled rules let this rule decide. For the others an earlier rule is looked for that holds
//! all of the product. Several earlier rules that only hold it together are not found.

use std::collections::BTreeSet;
use std::ops::Range;

use evenkeel_engine::InterfaceId;
use evenkeel_engine::plan::{Condition, FlowAction, FlowPlan, FlowRule, Test};
use evenkeel_engine::policy::PolicyFlow;
use evenkeel_engine::policy::linear::RuleId;
use evenkeel_engine::policy::rules::Rules;
use evenkeel_engine::wire::tcp::Flags;
use evenkeel_engine::wire::{Address, FiveTuple, HashKey, Protocol};

use super::Meaning;
use super::flow::RulePlaces;
use crate::diagnostic::Code;
use crate::forms::quote;

/// The most pairs of rules that are compared: a second's work. Beyond, shadowed rules stay unnoticed.
const PAIRS_MAX: usize = 5_000_000;

/// The fields of a packet that rules look at.
const FIELDS: usize = 9;

/// The greatest value of each field: interface, protocol, addresses, ports, ICMP type, code point, flags.
const GREATEST: [u128; FIELDS] =
    [u16::MAX as u128, 255, u128::MAX, u128::MAX, u16::MAX as u128, u16::MAX as u128, 255, 63, 255];

/// Stretches, both ends included, in order and apart.
type Stretches = Vec<(u128, u128)>;

/// The packets that meet a rule: for each field, its values.
struct Product([Stretches; FIELDS]);

impl Meaning<'_> {
    /// Warns of rules that decide about nothing. `places` are those of the rules of each flow. Notes the flows of which no
    /// rule decides. Flows at the places in `asking` ask a component, which may skip.
    pub(super) fn shadowed(&mut self, flows: &[FlowPlan], places: &RulePlaces, asking: &BTreeSet<usize>) {
        let mut shadows = Shadows::new(flows, asking);
        for (number, flow) in flows.iter().enumerate().filter(|(_, flow)| flow.action != FlowAction::Skip) {
            let mut is_alive = false;
            for (place, rule) in flow.rules.iter().enumerate() {
                let id = RuleId { flow: number, rule: place };
                let Some(hidden) = shadows.fate(id, rule) else {
                    is_alive |= rule.is_match;
                    continue;
                };
                if self.found.is_full() {
                    return;
                }
                let span = places.get(number).and_then(|rules| rules.get(place)).cloned().unwrap_or(0..0);
                self.hidden(&span, flow, id, hidden, flows, places);
            }
            if !is_alive {
                self.dead_flows.insert(flow.name.clone());
            }
        }
    }

    fn hidden(
        &mut self,
        span: &Range<usize>,
        flow: &FlowPlan,
        id: RuleId,
        hidden: Hidden,
        flows: &[FlowPlan],
        places: &RulePlaces,
    ) {
        let rule = format!("rule {} of the flow {}", id.rule + 1, quote(&flow.name));
        let Hidden::By(other) = hidden else {
            let message = format!("no packet meets {rule}: its conditions exclude each other");
            let diagnostic = self.diagnostic(Code::NeverHolds, span, message);
            self.found.push(diagnostic.help("take out one of the conditions, or the rule"));
            return;
        };
        let by = flows.get(other.flow).map_or("", |flow| flow.name.as_str());
        let message = format!(
            "{rule} decides about no packet: rule {} of {} takes them all before",
            other.rule + 1,
            quote(by)
        );
        let diagnostic = self.diagnostic(Code::ShadowedRule, span, message);
        let first = places.get(other.flow).and_then(|rules| rules.get(other.rule));
        let diagnostic = match first {
            Some(first) => diagnostic.also(first, "this rule"),
            None => diagnostic,
        };
        self.found.push(diagnostic.help("put the rule with more conditions first, or take it out"));
    }
}

/// Why a rule decides about nothing.
#[derive(Clone, Copy, Debug)]
enum Hidden {
    /// No packet meets it.
    Never,
    /// This rule takes all of its packets.
    By(RuleId),
}

struct Shadows<'f> {
    flows: &'f [FlowPlan],
    /// The rules without those that may let packets through, since they have a limit or ask a component, and the places
    /// of what is left.
    compiled: Rules,
    kept: Vec<Vec<usize>>,
    asking: &'f BTreeSet<usize>,
    pairs: usize,
}

impl<'f> Shadows<'f> {
    fn new(flows: &'f [FlowPlan], asking: &'f BTreeSet<usize>) -> Self {
        let is_kept = |flow: usize, rule: &FlowRule| !has_limit(rule) && !asking.contains(&flow);
        let places = |(number, flow): (usize, &FlowPlan)| {
            let rules = flow.rules.iter().enumerate();
            rules.filter(|(_, rule)| is_kept(number, rule)).map(|(place, _)| place).collect()
        };
        let kept = flows.iter().enumerate().map(places).collect();
        let without = flows.iter().enumerate().map(|(number, flow)| FlowPlan {
            rules: flow.rules.iter().filter(|rule| is_kept(number, rule)).cloned().collect(),
            ..flow.clone()
        });
        let compiled = Rules::new(without.collect(), HashKey([0, 0]));
        Self { flows, compiled, kept, asking, pairs: 0 }
    }

    /// Why a rule decides about nothing, if it does not.
    fn fate(&mut self, id: RuleId, rule: &FlowRule) -> Option<Hidden> {
        let product = Product::of(rule);
        if product.0.iter().any(Vec::is_empty) {
            return Some(Hidden::Never);
        }
        let corners = [
            product.corner(|stretches| stretches.first().map(|one| one.0)),
            product.corner(|stretches| stretches.last().map(|one| one.1)),
        ];
        if rule.is_match && corners.iter().any(|packet| self.decider(packet) == Some(id)) {
            return None;
        }
        self.cover(id, &product).map(Hidden::By)
    }

    fn decider(&self, packet: &PolicyFlow) -> Option<RuleId> {
        let found = self.compiled.decider(packet)?;
        let rule = *self.kept.get(found.flow)?.get(found.rule)?;
        Some(RuleId { flow: found.flow, rule })
    }

    /// The first rule before `id` that takes all packets of `product`.
    fn cover(&mut self, id: RuleId, product: &Product) -> Option<RuleId> {
        for (number, flow) in self.flows.iter().enumerate().take(id.flow + 1) {
            if flow.action == FlowAction::Skip {
                continue;
            }
            let is_own = number == id.flow;
            if self.asking.contains(&number) && !is_own {
                continue;
            }
            for (place, rule) in flow.rules.iter().enumerate() {
                if (is_own && place >= id.rule) || self.pairs >= PAIRS_MAX {
                    break;
                }
                self.pairs += 1;
                if has_limit(rule) || !(rule.is_match || is_own) || !product.is_within(rule) {
                    continue;
                }
                let mut guards = flow.rules.iter().take(place).filter(|guard| !guard.is_match);
                if is_own || guards.all(|guard| !has_limit(guard) && product.is_apart(guard)) {
                    return Some(RuleId { flow: number, rule: place });
                }
            }
        }
        None
    }
}

fn has_limit(rule: &FlowRule) -> bool {
    rule.conditions.iter().any(|condition| matches!(condition.test, Test::Limit(_)))
}

impl Product {
    fn of(rule: &FlowRule) -> Self {
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

    fn field(&self, field: usize) -> &[(u128, u128)] {
        self.0.get(field).map_or(&[], Vec::as_slice)
    }

    /// Whether `rule` holds for every packet.
    fn is_within(&self, rule: &FlowRule) -> bool {
        rule.conditions.iter().all(|Condition { is_negated, test }| {
            let Some((field, stretches)) = field(test) else { return false };
            let own = self.field(field);
            if *is_negated { common(own, &stretches).is_empty() } else { is_part(own, &stretches) }
        })
    }

    /// Whether `rule` holds for no packet.
    fn is_apart(&self, rule: &FlowRule) -> bool {
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
}
