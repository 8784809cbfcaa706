//! Rules that decide about no packet, since no packet meets them or another rule, before them, takes them all.
//!
//! A rule is a product of one set for each field. Most rules are cleared by a witness: a packet out of the corner of that
//! product about which the compiled rules let this rule decide. For the others an earlier rule is looked for that holds
//! all of the product, and then whether several do together.

use std::collections::BTreeSet;
use std::ops::Range;

use evenkeel_engine::plan::{FlowAction, FlowPlan, FlowRule, Test};
use evenkeel_engine::policy::PolicyFlow;
use evenkeel_engine::policy::linear::RuleId;
use evenkeel_engine::policy::rules::Rules;
use evenkeel_engine::wire::HashKey;

use super::Meaning;
use super::flow::RulePlaces;
use super::product::Product;
use crate::diagnostic::Code;
use crate::forms::quote;

/// The most pairs of rules that are compared: a second's work. Beyond, shadowed rules stay unnoticed.
const PAIRS_MAX: usize = 5_000_000;

/// The most cuts of one product by another, each of which costs what some pairs do.
const CUTS_MAX: usize = 200_000;

/// The most rules that are named as hiding another.
const NAMED_MAX: usize = 3;

impl Meaning<'_> {
    /// Warns of rules that decide about nothing. `places` are those of the rules of each flow. Notes the flows of which no
    /// rule decides.
    pub(super) fn shadowed(&mut self, shadows: &mut Shadows<'_>, places: &RulePlaces) {
        let flows = shadows.flows;
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
                self.hidden(&span, (flow, id), &hidden, flows, places);
            }
            if !is_alive {
                self.dead_flows.insert(flow.name.clone());
            }
        }
    }

    fn hidden(
        &mut self,
        span: &Range<usize>,
        (flow, id): (&FlowPlan, RuleId),
        hidden: &Hidden,
        flows: &[FlowPlan],
        places: &RulePlaces,
    ) {
        let rule = format!("rule {} of the flow {}", id.rule + 1, quote(&flow.name));
        let Hidden::By(takers) = hidden else {
            let message = format!("no packet meets {rule}: its conditions exclude each other");
            let diagnostic = self.diagnostic(Code::NeverHolds, span, message);
            self.found.push(diagnostic.help("take out one of the conditions, or the rule"));
            return;
        };
        let by = rules_of(takers, flows, "them all");
        let message = format!("{rule} decides about no packet: {by} before");
        let mut diagnostic = self.diagnostic(Code::ShadowedRule, span, message);
        for taker in takers.iter().take(NAMED_MAX) {
            if let Some(place) = places.get(taker.flow).and_then(|rules| rules.get(taker.rule)) {
                diagnostic = diagnostic.also(place, "this rule");
            }
        }
        self.found.push(diagnostic.help("put the rule with more conditions first, or take it out"));
    }
}

/// `rule 1 of NAME takes WHAT`, or `rule 1 of NAME and rule 2 of NAME together take WHAT`.
pub(super) fn rules_of(takers: &[RuleId], flows: &[FlowPlan], what: &str) -> String {
    let named = |id: &RuleId| {
        let flow = flows.get(id.flow).map_or("", |flow| flow.name.as_str());
        format!("rule {} of {}", id.rule + 1, quote(flow))
    };
    let mut names: Vec<String> = takers.iter().take(NAMED_MAX).map(named).collect();
    if let more @ 1.. = takers.len().saturating_sub(NAMED_MAX) {
        names.push(format!("{more} more"));
    }
    match names.split_last() {
        Some((only, [])) => format!("{only} takes {what}"),
        Some((last, others)) => format!("{} and {last} together take {what}", others.join(", ")),
        None => format!("others take {what}"),
    }
}

/// Why a rule decides about nothing.
#[derive(Clone, Debug)]
enum Hidden {
    /// No packet meets it.
    Never,
    /// These rules take all of its packets.
    By(Vec<RuleId>),
}

/// The rules of a text, to find out about each of them.
pub(super) struct Shadows<'f> {
    pub(super) flows: &'f [FlowPlan],
    /// The rules without those that may let packets through, since they have a limit or ask a component, and the places
    /// of what is left.
    compiled: Rules,
    kept: Vec<Vec<usize>>,
    /// The places of flows that ask a component, which may skip.
    pub(super) asking: &'f BTreeSet<usize>,
    pairs: usize,
    cuts: usize,
}

impl<'f> Shadows<'f> {
    pub(super) fn new(flows: &'f [FlowPlan], asking: &'f BTreeSet<usize>) -> Self {
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
        Self { flows, compiled, kept, asking, pairs: 0, cuts: 0 }
    }

    /// Why a rule decides about nothing, if it does not.
    fn fate(&mut self, id: RuleId, rule: &FlowRule) -> Option<Hidden> {
        let product = Product::of(rule);
        if product.is_empty() {
            return Some(Hidden::Never);
        }
        if rule.is_match && product.corners().iter().any(|packet| self.decider(packet) == Some(id)) {
            return None;
        }
        let takers = match self.cover(id, &product) {
            Some(one) => Some(vec![one]),
            None => self.takers(&product, id),
        };
        takers.map(Hidden::By)
    }

    /// Whether so many cuts more may be made.
    pub(super) fn spend(&mut self, cuts: usize) -> bool {
        self.cuts += cuts;
        self.cuts <= CUTS_MAX
    }

    /// The rule that decides about a packet, of those that let none through that they meet.
    pub(super) fn decider(&self, packet: &PolicyFlow) -> Option<RuleId> {
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

pub(super) fn has_limit(rule: &FlowRule) -> bool {
    rule.conditions.iter().any(|condition| matches!(condition.test, Test::Limit(_)))
}
