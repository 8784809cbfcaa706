//! Native rules at work: compiled, counted, limited.
//!
//! A flow of the plan becomes one unit for each `match` rule. An `ignore` rule becomes no unit: it is asked when a later
//! rule of its flow would hold, and where it says `not src NETWORK` and the like, it narrows the boxes of these rules.
//! An `ignore` rule with a limit has a side effect, so it is a unit of its own. Units are in the order of the rules,
//! and the [index](super::index) finds the first that may hold.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::index::{DIMENSIONS, Entry, Index, Point, Ranks, Region};
use super::limits::Meter;
use super::linear::{self, Decision, Finding, RuleId};
use super::{PolicyFlow, PolicyVerdict};
use crate::plan::{Condition, FlowAction, FlowPlan, FlowRule, Test};
use crate::time::Instant;
use crate::wire::HashKey;

/// A list with at most this many ranges becomes as many boxes; a longer one is one box around all of them.
const BOXES_MAX: usize = 64;

/// The most boxes of all rules together: beyond, lists are one box each. A box takes about 100 bytes.
const BOXES_TOTAL_MAX: usize = 1 << 20;

/// So many `ignore` rules of a flow are asked one by one; more have an index of their own.
const IGNORES_MAX: usize = 8;

/// The rules of one link of the policy chain, or those about outflows.
///
/// A clone shares what is compiled and has counts and limits of its own.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    flows: Arc<Vec<FlowPlan>>,
    units: Arc<Vec<Unit>>,
    index: Arc<Index>,
    sources: Arc<Ranks>,
    destinations: Arc<Ranks>,
    /// The `ignore` rules of each flow that need no unit.
    ignores: Arc<Vec<Ignores>>,
    meters: Vec<(Meter, bool)>,
    /// How often each unit has decided.
    counts: Vec<u64>,
    needs_dscp: bool,
    key: Option<HashKey>,
}

/// What the index finds.
#[derive(Clone, Copy, Debug)]
struct Unit {
    id: RuleId,
    is_match: bool,
    /// The first unit of the next flow.
    next_flow: u32,
    /// Its limits, among all meters.
    first_meter: usize,
    meters: usize,
}

/// The `ignore` rules of a flow: their places, and an index where there are many.
#[derive(Debug, Default)]
struct Ignores {
    rules: Vec<usize>,
    index: Option<Index>,
}

/// How often a rule has decided about a new flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleCount<'a> {
    /// The name of the flow.
    pub flow: &'a str,
    /// The number of the rule in it, from 1.
    pub rule: usize,
    /// What its author says of it.
    pub comment: &'a str,
    /// How many new flows it has decided about.
    pub count: u64,
}

impl Rules {
    /// Compiles the rules of `flows`. Directors, interfaces and tables are numbered as in the plan; `key` spreads the
    /// addresses that limits count.
    #[must_use]
    pub fn new(flows: Vec<FlowPlan>, key: HashKey) -> Self {
        let live = || flows.iter().filter(|flow| flow.action != FlowAction::Skip);
        let tests =
            || live().flat_map(|flow| &flow.rules).flat_map(|rule| &rule.conditions).map(|one| &one.test);
        let sources = Ranks::new(
            tests()
                .filter_map(|test| if let Test::Source(set) = test { Some(set.ranges()) } else { None })
                .flatten(),
        );
        let destinations = Ranks::new(
            tests()
                .filter_map(|test| if let Test::Destination(set) = test { Some(set.ranges()) } else { None })
                .flatten(),
        );
        let needs_dscp = tests().any(|test| matches!(test, Test::Dscp(_)));
        let mut compiler = Compiler { sources: &sources, destinations: &destinations, ..Compiler::new(key) };
        for (place, flow) in flows.iter().enumerate() {
            compiler.flow(place, flow);
        }
        let Compiler { units, entries, ignores, meters, .. } = compiler;
        let (index, counts) = (Index::new(entries), alloc::vec![0; units.len()]);
        Self {
            flows: Arc::new(flows),
            units: Arc::new(units),
            index: Arc::new(index),
            sources: Arc::new(sources),
            destinations: Arc::new(destinations),
            ignores: Arc::new(ignores),
            meters,
            counts,
            needs_dscp,
            key: Some(key),
        }
    }

    /// Whether these are the rules of `flows`, with this key.
    pub(crate) fn is_of(&self, flows: &[FlowPlan], key: HashKey) -> bool {
        self.key == Some(key) && *self.flows == flows
    }

    /// Whether there is no rule at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// The flows that it was made of.
    #[must_use]
    pub fn flows(&self) -> &[FlowPlan] {
        &self.flows
    }

    /// Takes over counts and limits from the rules that these replace: those of rules that are the same, at the same
    /// place of a flow of the same name.
    pub(crate) fn inherit(&mut self, old: &Self) {
        let mut by_name: alloc::collections::BTreeMap<(&str, usize), usize> =
            alloc::collections::BTreeMap::new();
        for (number, unit) in old.units.iter().enumerate() {
            if let Some(flow) = old.flows.get(unit.id.flow) {
                by_name.insert((&flow.name, unit.id.rule), number);
            }
        }
        for (unit, count) in self.units.iter().zip(&mut self.counts) {
            let Some(flow) = self.flows.get(unit.id.flow) else { continue };
            let Some(number) = by_name.get(&(flow.name.as_str(), unit.id.rule)) else { continue };
            let Some(before) = old.units.get(*number) else { continue };
            if old.rule(before.id) != flow.rules.get(unit.id.rule) {
                continue;
            }
            *count = old.counts.get(*number).copied().unwrap_or(0);
            let meters = self.meters.get_mut(unit.first_meter..unit.first_meter + unit.meters);
            let others = old.meters.get(before.first_meter..before.first_meter + before.meters);
            if let (Some(meters), Some(others)) = (meters, others)
                && meters.len() == others.len()
            {
                meters.clone_from_slice(others);
            }
        }
    }

    /// What the rules say of `flow`, and which one; counts it, also against limits.
    pub fn decide_one(&mut self, flow: &PolicyFlow, now: Instant) -> Option<(PolicyVerdict, RuleId)> {
        let point = self.point(flow);
        let mut from = 0;
        loop {
            let number = self.first(flow, &point, from)?;
            let unit = *self.units.get(number as usize)?;
            let meters = self.meters.get_mut(unit.first_meter..unit.first_meter + unit.meters);
            let is_within = meters
                .unwrap_or_default()
                .iter_mut()
                .all(|(meter, is_negated)| meter.take(flow, now) != *is_negated);
            from = number + 1;
            if !is_within {
                continue;
            }
            if let Some(count) = self.counts.get_mut(number as usize) {
                *count += 1;
            }
            if unit.is_match {
                return Some((self.verdict(unit.id), unit.id));
            }
            from = unit.next_flow;
        }
    }

    /// What the limits have counted, in the order of the rules that have one.
    pub(crate) fn meters(&self) -> impl Iterator<Item = &Meter> {
        self.meters.iter().map(|(meter, _)| meter)
    }

    /// The same, to change it.
    pub(crate) fn meters_mut(&mut self) -> impl Iterator<Item = &mut Meter> {
        self.meters.iter_mut().map(|(meter, _)| meter)
    }

    /// The rule that decides about `flow`, within all limits. Counts nothing.
    #[must_use]
    pub fn decider(&self, flow: &PolicyFlow) -> Option<RuleId> {
        let point = self.point(flow);
        let mut from = 0;
        while let Some(number) = self.first(flow, &point, from) {
            let Some(unit) = self.units.get(number as usize) else { break };
            let meters = self.meters.get(unit.first_meter..unit.first_meter + unit.meters);
            from = number + 1;
            if meters.unwrap_or_default().iter().any(|(_, is_negated)| *is_negated) {
                continue;
            }
            if unit.is_match {
                return Some(unit.id);
            }
            from = unit.next_flow;
        }
        None
    }

    /// What the rules say of a flow that is open already: within its limits, and not counted again. Nothing where that
    /// depends on what is not known any more.
    #[must_use]
    pub fn evaluate(&self, flow: &PolicyFlow) -> Option<PolicyVerdict> {
        if self.needs_dscp && flow.dscp.is_none() {
            return linear::evaluate(&self.flows, flow);
        }
        Some(self.decider(flow).map_or(PolicyVerdict::Skip, |id| self.verdict(id)))
    }

    /// Looks at the rules one by one and tells `look` of each, changing nothing.
    pub fn explain(&self, flow: &PolicyFlow, now: Instant, look: impl FnMut(Finding)) -> Decision {
        let meters_of = |id: RuleId| {
            let unit = self.units.iter().find(|unit| unit.id == id);
            let range = unit.map_or(0..0, |unit| unit.first_meter..unit.first_meter + unit.meters);
            self.meters.get(range).unwrap_or_default()
        };
        let limit = |id: RuleId, bound: &_| {
            let meter = meters_of(id).iter().find(|(meter, _)| meter.limit() == bound);
            meter.is_none_or(|(meter, _)| meter.would_take(flow, now))
        };
        linear::decide(&self.flows, flow, limit, look)
    }

    /// How often each rule has decided, in order; rules that have never been able to are not among them.
    pub fn counts(&self) -> impl Iterator<Item = RuleCount<'_>> {
        self.units.iter().zip(&self.counts).filter_map(|(unit, count)| {
            let flow = self.flows.get(unit.id.flow)?;
            let rule = flow.rules.get(unit.id.rule)?;
            Some(RuleCount {
                flow: &flow.name,
                rule: unit.id.rule + 1,
                comment: &rule.comment,
                count: *count,
            })
        })
    }

    fn rule(&self, id: RuleId) -> Option<&FlowRule> {
        self.flows.get(id.flow)?.rules.get(id.rule)
    }

    fn verdict(&self, id: RuleId) -> PolicyVerdict {
        self.flows.get(id.flow).map_or(PolicyVerdict::Skip, |flow| linear::verdict(flow.action))
    }

    #[inline]
    fn point(&self, flow: &PolicyFlow) -> Point {
        let tuple = &flow.tuple;
        [
            self.sources.of(tuple.source.bits()),
            self.destinations.of(tuple.destination.bits()),
            u32::from(tuple.source_port),
            u32::from(tuple.destination_port),
            u32::from(tuple.protocol.0),
            u32::from(flow.interface.0),
        ]
    }

    /// The first unit from `from` on whose conditions hold, apart from limits.
    fn first(&self, flow: &PolicyFlow, point: &Point, from: u32) -> Option<u32> {
        self.index.first(point, from, |number| {
            let Some(unit) = self.units.get(number as usize) else { return false };
            self.rule(unit.id).is_some_and(|rule| all_hold(rule, flow))
                && !self.is_ignored(unit.id, flow, point)
        })
    }

    /// Whether an `ignore` rule before this rule takes `flow` out of its flow.
    fn is_ignored(&self, id: RuleId, flow: &PolicyFlow, point: &Point) -> bool {
        let Some(ignores) = self.ignores.get(id.flow) else { return false };
        let Some(plan) = self.flows.get(id.flow) else { return false };
        let holds = |place: usize| plan.rules.get(place).is_some_and(|rule| all_hold(rule, flow));
        match &ignores.index {
            Some(index) => {
                let first = index.first(point, 0, |place| holds(place as usize));
                first.is_some_and(|place| (place as usize) < id.rule)
            }
            None => ignores.rules.iter().take_while(|place| **place < id.rule).any(|place| holds(*place)),
        }
    }
}

/// Whether all conditions of a rule hold, apart from limits.
fn all_hold(rule: &FlowRule, flow: &PolicyFlow) -> bool {
    rule.conditions.iter().all(|condition| linear::holds(condition, flow) == Some(true))
}

fn has_limit(rule: &FlowRule) -> bool {
    rule.conditions.iter().any(|condition| matches!(condition.test, Test::Limit(_)))
}

/// Turns rules into units and boxes.
struct Compiler<'a> {
    sources: &'a Ranks,
    destinations: &'a Ranks,
    units: Vec<Unit>,
    entries: Vec<Entry>,
    ignores: Vec<Ignores>,
    meters: Vec<(Meter, bool)>,
    key: HashKey,
}

impl<'a> Compiler<'a> {
    const NO_RANKS: &'static Ranks = &Ranks::NONE;

    const fn new(key: HashKey) -> Self {
        Self {
            sources: Self::NO_RANKS,
            destinations: Self::NO_RANKS,
            units: Vec::new(),
            entries: Vec::new(),
            ignores: Vec::new(),
            meters: Vec::new(),
            key,
        }
    }

    fn flow(&mut self, place: usize, flow: &FlowPlan) {
        let first = self.units.len();
        let mut ignores = Ignores::default();
        let mut within = Region::ALL;
        let rules = if flow.action == FlowAction::Skip { &[][..] } else { &flow.rules };
        for (number, rule) in rules.iter().enumerate() {
            if rule.is_match || has_limit(rule) {
                self.unit(RuleId { flow: place, rule: number }, rule, &within);
            } else {
                ignores.rules.push(number);
                // It leaves to the rules that follow only what this one condition holds for.
                if let [Condition { is_negated: true, test }] = rule.conditions.as_slice()
                    && let [region] = self.regions(test, 1).as_slice()
                {
                    within.narrow_to(region);
                }
            }
        }
        if ignores.rules.len() > IGNORES_MAX {
            let entries = ignores.rules.iter().filter_map(|number| Some((*number, rules.get(*number)?)));
            let entries = entries.flat_map(|(number, rule)| {
                let order = u32::try_from(number).unwrap_or(u32::MAX);
                self.boxes(rule, &Region::ALL).into_iter().map(move |region| Entry { region, order })
            });
            ignores.index = Some(Index::new(entries.collect()));
        }
        self.ignores.push(ignores);
        let end = u32::try_from(self.units.len()).unwrap_or(u32::MAX);
        self.units.iter_mut().skip(first).for_each(|unit| unit.next_flow = end);
    }

    fn unit(&mut self, id: RuleId, rule: &FlowRule, within: &Region) {
        let first_meter = self.meters.len();
        for Condition { is_negated, test } in &rule.conditions {
            if let Test::Limit(limit) = test {
                self.meters.push((Meter::new(*limit, self.key), *is_negated));
            }
        }
        let order = u32::try_from(self.units.len()).unwrap_or(u32::MAX);
        let boxes = self.boxes(rule, within);
        self.entries.extend(boxes.into_iter().map(|region| Entry { region, order }));
        let meters = self.meters.len() - first_meter;
        self.units.push(Unit { id, is_match: rule.is_match, next_flow: 0, first_meter, meters });
    }

    /// Boxes that hold every packet for which `rule` holds: one, or one for each range of its longest list.
    fn boxes(&self, rule: &FlowRule, within: &Region) -> Vec<Region> {
        let most = if self.entries.len() < BOXES_TOTAL_MAX { BOXES_MAX } else { 1 };
        let mut around = *within;
        let mut parts: Vec<Region> = Vec::new();
        for condition in rule.conditions.iter().filter(|condition| !condition.is_negated) {
            let hull = self.regions(&condition.test, 1);
            hull.iter().for_each(|region| around.narrow_to(region));
            if hull.is_empty() && is_set(&condition.test) {
                // An empty set holds nothing.
                return Vec::new();
            }
            let regions = self.regions(&condition.test, most);
            if regions.len() > parts.len().max(1) {
                parts = regions;
            }
        }
        if parts.is_empty() {
            parts.push(Region::ALL);
        }
        parts.iter_mut().for_each(|part| part.narrow_to(&around));
        parts
    }

    /// The boxes of one condition, one around all of them where there are more than `most`; none for a condition that
    /// the index does not look at, or a set without elements.
    fn regions(&self, test: &Test, most: usize) -> Vec<Region> {
        let stretches: (usize, Vec<(u32, u32)>) = match test {
            Test::Source(set) => (0, ranked(self.sources, set.ranges())),
            Test::Destination(set) => (1, ranked(self.destinations, set.ranges())),
            Test::SourcePort(set) => (2, widened(set.ranges())),
            Test::DestinationPort(set) => (3, widened(set.ranges())),
            Test::Protocol(protocol) => (4, Vec::from([(u32::from(protocol.0), u32::from(protocol.0))])),
            Test::Interface(interface) => (5, Vec::from([(u32::from(interface.0), u32::from(interface.0))])),
            Test::IcmpKind(_) | Test::Flags { .. } | Test::Dscp(_) | Test::Limit(_) => return Vec::new(),
        };
        let (dimension, stretches) = stretches;
        debug_assert!(dimension < DIMENSIONS, "each test has its dimension");
        let all = stretches.first().zip(stretches.last()).map(|((low, _), (_, high))| (*low, *high));
        let stretches = if stretches.len() > most { all.into_iter().collect() } else { stretches };
        let region = |(low, high)| {
            let mut region = Region::ALL;
            region.narrow(dimension, low, high);
            region
        };
        stretches.into_iter().map(region).collect()
    }
}

/// Whether a condition asks for an element of a set.
fn is_set(test: &Test) -> bool {
    matches!(test, Test::Source(_) | Test::Destination(_) | Test::SourcePort(_) | Test::DestinationPort(_))
}

fn ranked(ranks: &Ranks, ranges: &[(u128, u128)]) -> Vec<(u32, u32)> {
    ranges.iter().map(|(first, last)| (ranks.of(*first), ranks.of(*last))).collect()
}

fn widened(ranges: &[(u16, u16)]) -> Vec<(u32, u32)> {
    ranges.iter().map(|(first, last)| (u32::from(*first), u32::from(*last))).collect()
}
