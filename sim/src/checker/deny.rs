//! Which flows the rules of a forwarder's configuration deny, read once more and apart from the engine.

use evenkeel_engine::plan::{Condition, FlowAction, Plan, PolicyPlan, Test};
use evenkeel_engine::wire::Protocol;

use crate::packet::AnyEnd;

/// The name of the flow whose rules deny this one; `"default"` where nothing decides and that is denied. `None` where it
/// is permitted, or where a component or an interface that can not be seen from outside has a say.
pub(super) fn denied_by(plan: &Plan, protocol: Protocol, (from, to): (AnyEnd, AnyEnd)) -> Option<&str> {
    for policy in &plan.policies {
        let PolicyPlan::Rules(flows) = policy else { return None };
        for flow in flows.iter().filter(|flow| flow.action != FlowAction::Skip) {
            for rule in &flow.rules {
                let mut holds = true;
                for condition in &rule.conditions {
                    holds &= is_true(condition, protocol, from, to)?;
                }
                if !holds {
                    continue;
                }
                if rule.is_match {
                    return (flow.action == FlowAction::Deny).then_some(&flow.name);
                }
                break;
            }
        }
    }
    (!plan.default_permit).then_some("default")
}

fn is_true(condition: &Condition, protocol: Protocol, from: AnyEnd, to: AnyEnd) -> Option<bool> {
    let truth = match &condition.test {
        // What hangs on more than addresses and ports is not judged.
        Test::Interface(_) | Test::Flags { .. } | Test::Dscp(_) | Test::Limit(_) => return None,
        Test::Protocol(wanted) => *wanted == protocol,
        Test::Source(set) => set.contains(from.address.into()),
        Test::Destination(set) => set.contains(to.address.into()),
        Test::SourcePort(ports) => ports.contains(from.port),
        Test::DestinationPort(ports) => ports.contains(to.port),
        Test::IcmpKind(_) => false,
    };
    Some(truth != condition.is_negated)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::End;
    use evenkeel_engine::plan::{FlowPlan, FlowRule, Prefix};
    use evenkeel_engine::verdict::InterfaceId;

    fn flow(name: &str, action: FlowAction, rules: Vec<FlowRule>) -> FlowPlan {
        FlowPlan { name: name.to_owned(), action, rules }
    }

    fn rule(is_match: bool, test: Test) -> FlowRule {
        if is_match { FlowRule::matching(vec![test]) } else { FlowRule::ignoring(vec![test]) }
    }

    fn asked(plan: &Plan, source: [u8; 4]) -> Option<&str> {
        let ends =
            (End { address: source.into(), port: 40_000 }, End { address: [10, 0, 0, 3].into(), port: 80 });
        denied_by(plan, Protocol::TCP, ends)
    }

    #[test]
    fn the_first_flow_that_matches_decides_and_ignore_leaves_it() {
        let net = |text: [u8; 4], length| Test::source(Prefix { address: text.into(), length });
        let bad = flow(
            "bad",
            FlowAction::Deny,
            vec![rule(false, net([192, 0, 2, 7], 32)), rule(true, net([192, 0, 2, 0], 24))],
        );
        let rest = flow("rest", FlowAction::Permit, vec![rule(true, net([192, 0, 0, 0], 16))]);
        let mut plan = Plan { policies: vec![PolicyPlan::Rules(vec![bad, rest])], ..Plan::empty() };
        assert_eq!(asked(&plan, [192, 0, 2, 1]), Some("bad"));
        assert_eq!(asked(&plan, [192, 0, 2, 7]), None);
        assert_eq!(asked(&plan, [198, 51, 100, 1]), None);
        plan.default_permit = false;
        assert_eq!(asked(&plan, [198, 51, 100, 1]), Some("default"));
        assert_eq!(asked(&plan, [192, 0, 2, 7]), None);
    }

    #[test]
    fn what_can_not_be_seen_from_outside_is_not_judged() {
        let here = rule(true, Test::Interface(InterfaceId(0)));
        let plan = Plan {
            policies: vec![PolicyPlan::Rules(vec![flow("in", FlowAction::Deny, vec![here])])],
            default_permit: false,
            ..Plan::empty()
        };
        assert_eq!(asked(&plan, [192, 0, 2, 1]), None);
    }
}
