//! Rules in their plainest form: every flow, every rule, every condition in the order of the plan. The compiled rules
//! are held against it, and whoever wants to know why a rule did or did not hold asks here.
//!
//! A flow whose policy is `skip` is passed over. In a flow, the first rule whose conditions all hold decides: `match`
//! applies the flow's policy, `ignore` leaves the flow. When no rule holds, the next flow is asked.

use crate::plan::{Condition, FlowAction, FlowPlan, FlowRule, Limit, Test};
use crate::wire::Protocol;

use super::{PolicyFlow, PolicyVerdict};

/// Which rule of which flow; the places in the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleId {
    /// The place of the flow.
    pub flow: usize,
    /// The place of the rule in it.
    pub rule: usize,
}

/// What came of looking at something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The flow at this place has the policy `skip`: none of its rules is looked at.
    PassedOver(usize),
    /// All conditions hold, and the rule is `match`: it decides.
    Matched(RuleId),
    /// All conditions hold, and the rule is `ignore`: the next flow is asked.
    Ignored(RuleId),
    /// The condition at this place is the first that does not hold.
    Failed(RuleId, usize),
    /// Whether the condition at this place holds can not be told of a flow that began before these rules were there.
    Unknown(RuleId, usize),
}

/// What the rules come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// This rule decides.
    By(RuleId),
    /// No rule does.
    Nobody,
    /// It depends on what is not known any more.
    Unknown,
}

/// Looks at the rules of `flows` in order until one decides about `flow`. `limit` says whether the limit of a rule
/// still holds, and is asked when all other conditions of its rule do; `look` hears of each step.
pub fn decide(
    flows: &[FlowPlan],
    flow: &PolicyFlow,
    mut limit: impl FnMut(RuleId, &Limit) -> bool,
    mut look: impl FnMut(Finding),
) -> Decision {
    for (place, plan) in flows.iter().enumerate() {
        if plan.action == FlowAction::Skip {
            look(Finding::PassedOver(place));
            continue;
        }
        for (number, rule) in plan.rules.iter().enumerate() {
            let id = RuleId { flow: place, rule: number };
            match check(rule, flow, |bound| limit(id, bound)) {
                Outcome::Fails(condition) => look(Finding::Failed(id, condition)),
                Outcome::Unknown(condition) => {
                    look(Finding::Unknown(id, condition));
                    return Decision::Unknown;
                }
                Outcome::Holds if rule.is_match => {
                    look(Finding::Matched(id));
                    return Decision::By(id);
                }
                Outcome::Holds => {
                    look(Finding::Ignored(id));
                    break;
                }
            }
        }
    }
    Decision::Nobody
}

/// What `flows` say of a flow that has passed its limits: of one that is open already.
#[must_use]
pub fn evaluate(flows: &[FlowPlan], flow: &PolicyFlow) -> Option<PolicyVerdict> {
    match decide(flows, flow, |_, _| true, |_| {}) {
        Decision::By(id) => Some(flows.get(id.flow).map_or(PolicyVerdict::Skip, |plan| verdict(plan.action))),
        Decision::Nobody => Some(PolicyVerdict::Skip),
        Decision::Unknown => None,
    }
}

/// The verdict that a flow's policy comes to.
pub(crate) fn verdict(action: FlowAction) -> PolicyVerdict {
    match action {
        FlowAction::Permit => PolicyVerdict::Permit,
        FlowAction::Deny => PolicyVerdict::Deny,
        FlowAction::Director(place) => {
            u16::try_from(place).map_or(PolicyVerdict::Deny, PolicyVerdict::Director)
        }
        FlowAction::Table(place) => u16::try_from(place).map_or(PolicyVerdict::Deny, PolicyVerdict::Table),
        FlowAction::Skip => PolicyVerdict::Skip,
    }
}

/// Whether a rule holds; with the place of the condition that says no.
enum Outcome {
    Holds,
    Fails(usize),
    Unknown(usize),
}

/// All conditions of a rule: those on limits last, since to ask them counts.
fn check(rule: &FlowRule, flow: &PolicyFlow, mut limit: impl FnMut(&Limit) -> bool) -> Outcome {
    let mut unknown = None;
    for (place, condition) in rule.conditions.iter().enumerate() {
        match holds(condition, flow) {
            Some(true) => {}
            Some(false) => return Outcome::Fails(place),
            None => unknown = unknown.or(Some(place)),
        }
    }
    if let Some(place) = unknown {
        return Outcome::Unknown(place);
    }
    for (place, condition) in rule.conditions.iter().enumerate() {
        if let Test::Limit(bound) = &condition.test
            && limit(bound) == condition.is_negated
        {
            return Outcome::Fails(place);
        }
    }
    Outcome::Holds
}

/// Whether a condition holds, a limit taken to do; nothing where that is not known.
pub(crate) fn holds(condition: &Condition, flow: &PolicyFlow) -> Option<bool> {
    let tuple = &flow.tuple;
    let has_ports = tuple.protocol == Protocol::TCP || tuple.protocol == Protocol::UDP;
    let truth = match &condition.test {
        Test::Interface(interface) => flow.interface == *interface,
        Test::Protocol(protocol) => tuple.protocol == *protocol,
        Test::Source(addresses) => addresses.contains(tuple.source),
        Test::Destination(addresses) => addresses.contains(tuple.destination),
        Test::SourcePort(ports) => has_ports && ports.contains(tuple.source_port),
        Test::DestinationPort(ports) => has_ports && ports.contains(tuple.destination_port),
        Test::IcmpKind(kinds) => {
            let is_icmp = tuple.protocol == Protocol::ICMP || tuple.protocol == Protocol::ICMPV6;
            is_icmp && kinds.contains(flow.icmp_kind)
        }
        Test::Flags { mask, set } => tuple.protocol == Protocol::TCP && flow.flags.0 & mask == *set,
        Test::Dscp(points) => points.contains(flow.dscp?),
        Test::Limit(_) => return Some(true),
    };
    Some(truth != condition.is_negated)
}
