//! Native flow rules, evaluated in order as the plan has them.
//!
//! A flow without an action of its own is passed over. In a flow, the first rule whose conditions all hold decides:
//! `match` applies the flow's action, `ignore` leaves the flow.

use alloc::vec::Vec;

use super::{Policy, PolicyFlow, PolicyVerdict};
use crate::plan::{Condition, FlowAction, FlowPlan, Test};
use crate::time::Instant;

/// The flow rules of one link of the policy chain. Cost grows with the number of rules; asked once per flow.
#[derive(Debug)]
pub struct Rules {
    flows: Vec<FlowPlan>,
}

impl Rules {
    /// The rules of `flows`. Directors are numbered as in the plan.
    #[must_use]
    pub const fn new(flows: Vec<FlowPlan>) -> Self {
        Self { flows }
    }

    /// What the rules say of `flow`.
    #[must_use]
    pub fn evaluate(&self, flow: &PolicyFlow) -> PolicyVerdict {
        for plan in &self.flows {
            let verdict = match &plan.action {
                FlowAction::Permit => PolicyVerdict::Permit,
                FlowAction::Deny => PolicyVerdict::Deny,
                FlowAction::Director(place) => {
                    u16::try_from(*place).map_or(PolicyVerdict::Deny, PolicyVerdict::Director)
                }
                FlowAction::Skip => continue,
            };
            let rule = plan.rules.iter().find(|rule| rule.conditions.iter().all(|one| holds(one, flow)));
            if rule.is_some_and(|rule| rule.is_match) {
                return verdict;
            }
        }
        PolicyVerdict::Skip
    }
}

impl Policy for Rules {
    fn name(&self) -> &'static str {
        "flows"
    }

    fn decide(&mut self, flows: &[PolicyFlow], verdicts: &mut [PolicyVerdict], _now: Instant) {
        for (flow, verdict) in flows.iter().zip(verdicts) {
            *verdict = self.evaluate(flow);
        }
    }
}

fn holds(condition: &Condition, flow: &PolicyFlow) -> bool {
    let tuple = &flow.tuple;
    let truth = match &condition.test {
        Test::Interface(interface) => flow.interface == *interface,
        Test::Protocol(protocol) => tuple.protocol == *protocol,
        Test::Source(prefix) => prefix.contains(tuple.source.into()),
        Test::Destination(prefix) => prefix.contains(tuple.destination.into()),
        Test::SourcePort(ports) => ports.contains(&tuple.source_port),
        Test::DestinationPort(ports) => ports.contains(&tuple.destination_port),
    };
    truth != condition.is_negated
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{FlowRule, Prefix};
    use crate::verdict::InterfaceId;
    use crate::wire::{Address, FiveTuple, Protocol};
    use alloc::string::ToString;
    use alloc::vec;

    fn flow(source: [u8; 4], port: u16) -> PolicyFlow {
        let tuple = FiveTuple {
            source: Address::v4(source),
            destination: Address::v4([10, 0, 0, 3]),
            source_port: 40_000,
            destination_port: port,
            protocol: Protocol::TCP,
        };
        PolicyFlow { hash: 0, tuple, interface: InterfaceId(1) }
    }

    fn rule(is_match: bool, tests: Vec<(bool, Test)>) -> FlowRule {
        let conditions = tests.into_iter().map(|(is_negated, test)| Condition { is_negated, test }).collect();
        FlowRule { is_match, conditions }
    }

    fn named(action: FlowAction, rules: Vec<FlowRule>) -> FlowPlan {
        FlowPlan { name: "f".to_string(), action, rules }
    }

    fn network(text: [u8; 4], length: u8) -> Test {
        Test::Source(Prefix { address: text.into(), length })
    }

    #[test]
    fn ignore_leaves_the_flow_and_the_next_one_is_asked() {
        let rules = Rules::new(vec![
            named(
                FlowAction::Deny,
                vec![
                    rule(false, vec![(false, network([192, 0, 2, 7], 32))]),
                    rule(true, vec![(false, network([192, 0, 2, 0], 24))]),
                ],
            ),
            named(FlowAction::Director(3), vec![rule(true, vec![(false, Test::DestinationPort(80..=90))])]),
        ]);
        assert_eq!(rules.evaluate(&flow([192, 0, 2, 1], 80)), PolicyVerdict::Deny);
        assert_eq!(rules.evaluate(&flow([192, 0, 2, 7], 80)), PolicyVerdict::Director(3));
        assert_eq!(rules.evaluate(&flow([192, 0, 2, 7], 91)), PolicyVerdict::Skip);
    }

    #[test]
    fn conditions_are_joined_by_and_and_not_turns_one_around() {
        let both = vec![
            (true, Test::Interface(InterfaceId(2))),
            (false, Test::Protocol(Protocol::TCP)),
            (false, Test::SourcePort(40_000..=40_000)),
            (false, Test::Destination(Prefix { address: [10, 0, 0, 3].into(), length: 32 })),
        ];
        let rules = Rules::new(vec![named(FlowAction::Permit, vec![rule(true, both)])]);
        assert_eq!(rules.evaluate(&flow([1, 2, 3, 4], 1)), PolicyVerdict::Permit);
        let other = PolicyFlow { interface: InterfaceId(2), ..flow([1, 2, 3, 4], 1) };
        assert_eq!(rules.evaluate(&other), PolicyVerdict::Skip);
    }

    #[test]
    fn a_rule_without_conditions_holds_and_a_skipped_flow_does_nothing() {
        let all = || vec![rule(true, vec![])];
        let rules = Rules::new(vec![named(FlowAction::Skip, all()), named(FlowAction::Deny, all())]);
        assert_eq!(rules.evaluate(&flow([1, 2, 3, 4], 1)), PolicyVerdict::Deny);
        let none = Rules::new(vec![named(FlowAction::Deny, vec![])]);
        assert_eq!(none.evaluate(&flow([1, 2, 3, 4], 1)), PolicyVerdict::Skip);
    }
}
