//! What becomes of packets on their way through flows: which rules take them, and whether any get to a rule or to a
//! director.
//!
//! A product goes from rule to rule. Each rule cuts it in two: what meets the rule is taken or leaves the flow, and the
//! pieces of what does not go on. Where that comes to too many pieces or steps, nothing is said.

use std::collections::BTreeSet;
use std::ops::Range;

use evenkeel_engine::plan::{ANY_PORT, Binding, FlowAction, FlowPlan, FlowRule, Plan, Test};
use evenkeel_engine::policy::linear::RuleId;

use super::Meaning;
use super::flow::RulePlaces;
use super::product::Product;
use super::shadow::{Shadows, has_limit, rules_of};
use crate::diagnostic::Code;
use crate::forms::quote;
use crate::written::{self, Named};

/// The most pieces at a time: no text that people write comes near.
const PIECES_MAX: usize = 256;

/// What is left of packets, and who has taken the others.
#[derive(Debug, Default)]
struct Passage {
    left: Vec<Product>,
    takers: Vec<RuleId>,
}

impl Passage {
    fn take(&mut self, id: RuleId) {
        if !self.takers.contains(&id) {
            self.takers.push(id);
        }
    }
}

/// A flow on the way.
#[derive(Clone, Copy)]
struct Station<'f> {
    number: usize,
    flow: &'f FlowPlan,
    /// Its component may skip.
    asks: bool,
    /// What it takes may get where it is to get.
    lets: bool,
    /// The rule before which the way ends.
    until: Option<usize>,
}

impl Shadows<'_> {
    /// The rules that take all of `product` before it comes to the rule `id`, one by one or together.
    pub(super) fn takers(&mut self, product: &Product, id: RuleId) -> Option<Vec<RuleId>> {
        let passage = self.pass(product.clone(), Some(id), |_| false)?;
        passage.left.is_empty().then_some(passage.takers)
    }

    /// The rules because of which no packet to any of `binds` gets to the director that is bound there, none where it is
    /// the default; nothing where some packets may. `default_permit` is what holds where no rule decides.
    fn barrier(&mut self, binds: &[Binding], default_permit: bool) -> Option<Vec<RuleId>> {
        let lets = |action| matches!(action, FlowAction::Permit | FlowAction::Table(_));
        let (mut takers, mut has_rest) = (Vec::new(), false);
        for binding in binds {
            let product = product_of(binding);
            let gets_there = |packet: &_| match self.decider(packet) {
                None => default_permit,
                Some(id) => self.flows.get(id.flow).is_some_and(|flow| lets(flow.action)),
            };
            if product.corners().iter().any(gets_there) {
                return None;
            }
            let passage = self.pass(product, None, lets)?;
            has_rest |= !passage.left.is_empty();
            takers.extend(passage.takers);
        }
        if has_rest {
            return (!default_permit).then(Vec::new);
        }
        takers.sort_by_key(|id| (id.flow, id.rule));
        takers.dedup();
        Some(takers)
    }

    /// Sends `product` through the flows, up to a rule or behind all of them. Nothing where a packet may be let through on
    /// the way by a flow with an action that `lets`, or where there is too much to tell.
    fn pass(
        &mut self,
        product: Product,
        until: Option<RuleId>,
        lets: impl Fn(FlowAction) -> bool,
    ) -> Option<Passage> {
        let mut passage = Passage { left: vec![product], takers: Vec::new() };
        let flows = self.flows;
        let last = until.map_or(usize::MAX, |id| id.flow);
        for (number, flow) in flows.iter().enumerate() {
            if number > last || passage.left.is_empty() {
                break;
            }
            if flow.action == FlowAction::Skip {
                continue;
            }
            let until = until.filter(|id| id.flow == number).map(|id| id.rule);
            let asks = self.asking.contains(&number);
            self.cross(Station { number, flow, asks, lets: lets(flow.action), until }, &mut passage)?;
        }
        Some(passage)
    }

    /// Sends what is left through one flow: behind it comes what it does not take, or before a rule of it what gets there.
    fn cross(&mut self, station: Station<'_>, passage: &mut Passage) -> Option<()> {
        let mut inside = std::mem::take(&mut passage.left);
        let mut behind = Vec::new();
        for (place, rule) in station.flow.rules.iter().enumerate() {
            if inside.is_empty() || station.until == Some(place) {
                break;
            }
            if inside.len() + behind.len() > PIECES_MAX || !self.spend(inside.len()) {
                return None;
            }
            let met = Product::of(rule);
            let mut kept = Vec::new();
            for piece in inside {
                if has_limit(rule) {
                    // It may hold or not.
                    kept.push(piece.clone());
                }
                let (part, pieces) = piece.cut(&met);
                if !has_limit(rule) {
                    kept.extend(pieces);
                }
                let Some(part) = part else { continue };
                if !rule.is_match {
                    behind.push(part);
                } else if station.lets {
                    return None;
                } else if station.asks {
                    behind.push(part);
                } else if !has_limit(rule) {
                    passage.take(RuleId { flow: station.number, rule: place });
                    continue;
                }
                if station.until.is_some() && !has_limit(rule) {
                    passage.take(RuleId { flow: station.number, rule: place });
                }
            }
            inside = kept;
        }
        passage.left = inside;
        if station.until.is_none() {
            passage.left.append(&mut behind);
        }
        Some(())
    }
}

/// The packets of a binding.
fn product_of(binding: &Binding) -> Product {
    let mut tests = vec![Test::destination(binding.network)];
    if binding.ports != ANY_PORT {
        tests.push(Test::destination_port(binding.ports.clone()));
    }
    tests.extend(binding.protocol.map(Test::Protocol));
    Product::of(&FlowRule::matching(tests))
}

impl Meaning<'_> {
    /// Warns of directors that are bound, and none of whose packets any flow lets through. With a component that may lead
    /// anywhere, nothing is said.
    pub(super) fn shut_directors(
        &mut self,
        file: &written::File,
        plan: &Plan,
        shadows: &mut Shadows<'_>,
        places: &RulePlaces,
    ) {
        let flows = shadows.flows;
        let is_alive = |flow: &&FlowPlan| !self.dead_flows.contains(&flow.name) && !flow.rules.is_empty();
        let actions = flows.iter().filter(is_alive).map(|flow| flow.action);
        let led: BTreeSet<usize> = actions
            .filter_map(|action| match action {
                FlowAction::Director(place) => Some(place),
                FlowAction::Permit | FlowAction::Deny | FlowAction::Skip | FlowAction::Table(_) => None,
            })
            .collect();
        let written = Named::entries(file.director.as_ref().map(|at| &at.value));
        for (place, (director, (name, _))) in plan.directors.iter().zip(written).enumerate() {
            if director.binds.is_empty() || director.name != name.value || led.contains(&place) {
                continue;
            }
            let Some(takers) = shadows.barrier(&director.binds, plan.default_permit) else { continue };
            if self.found.is_full() {
                return;
            }
            self.shut(&name.span, &director.name, &takers, flows, places);
        }
    }

    fn shut(
        &mut self,
        span: &Range<usize>,
        director: &str,
        takers: &[RuleId],
        flows: &[FlowPlan],
        places: &RulePlaces,
    ) {
        let reason = match takers {
            [] => "no flow lets them in, and `policy.default` denies them".to_owned(),
            takers => format!("{} of those that are for it", rules_of(takers, flows, "all")),
        };
        let message = format!("the director {} gets no packets: {reason}", quote(director));
        let mut diagnostic = self.diagnostic(Code::UnusedDirector, span, message);
        for id in takers.iter().take(1) {
            if let Some(place) = places.get(id.flow).and_then(|rules| rules.get(id.rule)) {
                diagnostic = diagnostic.also(place, "by this rule");
            }
        }
        self.found.push(diagnostic.help("add a flow before that permits them, or take the director out"));
    }
}
