//! Flows and outflows: their names, what happens to their packets, and their rules.

use std::collections::BTreeMap;
use std::ops::Range;

use evenkeel_engine::Plan;
use evenkeel_engine::plan::{FlowAction, FlowPlan, FlowRule, PolicyPlan};

use super::component::is_permit;
use super::{Meaning, entries};
use crate::diagnostic::Code;
use crate::forms::{self, quote};
use crate::written::{self, At, FlowPolicyText};

/// The most flows, and the most outflows: as many as there are rules.
const FLOWS_MAX: usize = 131_072;

/// The most rules of one flow, and of all together: a hundred thousand and some. Their index takes about 200 bytes for
/// each, and the time of a reload.
const RULES_MAX: usize = 131_072;

/// The most policy components; each is a call for every new flow.
const COMPONENTS_MAX: usize = 16;

/// Which of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    In,
    Out,
}

/// Where the rules of each flow stand.
pub(super) type RulePlaces = Vec<Vec<Range<usize>>>;

impl Meaning<'_> {
    /// Fills in the chain of policies and what happens when none decides.
    pub(super) fn policies(&mut self, file: &written::File, plan: &mut Plan) {
        let mut names = BTreeMap::new();
        let (rules, places) = self.flows(entries(file.flow.as_ref()), Way::In, &mut names);
        let (outflows, out_places) = self.flows(entries(file.outflow.as_ref()), Way::Out, &mut names);
        let policy = file.policy.as_ref().map(|at| &at.value);
        plan.default_permit = is_permit(policy.and_then(|policy| policy.default.as_ref()));
        if !self.found.has_errors() {
            self.shadowed(&rules, &places);
            self.shadowed(&outflows, &out_places);
        }
        if !rules.is_empty() {
            plan.policies.push(PolicyPlan::Rules(rules));
        }
        plan.outflows = outflows;
        let components = policy.map_or(&[][..], |policy| entries(policy.component.as_ref()));
        self.bounded(components, COMPONENTS_MAX, "policy components");
        for component in components {
            plan.policies.extend(self.policy_component(component, &mut names));
        }
    }

    fn flows(
        &mut self,
        written: &[At<written::Flow>],
        way: Way,
        names: &mut BTreeMap<String, Range<usize>>,
    ) -> (Vec<FlowPlan>, RulePlaces) {
        self.bounded(written, FLOWS_MAX, if way == Way::In { "flows" } else { "outflows" });
        let all = written.iter().take(FLOWS_MAX).flat_map(|flow| entries(flow.value.rule.as_ref()));
        let count = all.clone().count();
        if let Some(beyond) = all.clone().nth(RULES_MAX) {
            let message = format!("there are {count} rules; {RULES_MAX} is the most");
            let diagnostic = self.diagnostic(Code::TooMany, &beyond.span, message);
            self.found.push(diagnostic.label("the first that is too many").help("take out some rules"));
        }
        let (mut flows, mut places) = (Vec::new(), Vec::new());
        for flow in written {
            let rules = entries(flow.value.rule.as_ref());
            if let Some(plan) = self.flow(flow, way, names) {
                flows.push(plan);
                places.push(rules.iter().map(|rule| rule.span.clone()).collect());
            }
        }
        (flows, places)
    }

    fn flow(
        &mut self,
        At { span, value }: &At<written::Flow>,
        way: Way,
        names: &mut BTreeMap<String, Range<usize>>,
    ) -> Option<FlowPlan> {
        if let Some(name) = &value.name {
            self.places.insert("flow", &name.value.0, "", &name.span);
            self.text(&name.span, forms::name(&name.value.0));
            self.unique(names, "flows, outflows or policy components", &name.value.0, &name.span);
        }
        let action = match &value.policy {
            Some(policy) => self.action(policy, way),
            None => Some(FlowAction::Skip),
        };
        let written = entries(value.rule.as_ref());
        let rules: Vec<_> = written.iter().filter_map(|rule| self.rule(rule, way)).collect();
        let name = value.name.as_ref()?;
        if written.is_empty() {
            let message = format!("the flow {} has no rule: no packet belongs to it", quote(&name.value.0));
            let place = if name.span.is_empty() { span } else { &name.span };
            let diagnostic = self.diagnostic(Code::EmptyFlow, place, message);
            let is_table = self.source.slice(&name.span).starts_with(['"', '\'']);
            self.found.push(diagnostic.help(if is_table {
                "add `rule = [ { match = {} } ]` for every packet, or take it out"
            } else {
                "add a line `match` for every packet, `match` with conditions, or take the flow out"
            }));
        }
        Some(FlowPlan { name: name.value.0.clone(), action: action?, rules })
    }

    fn action(&mut self, At { span, value }: &At<FlowPolicyText>, way: Way) -> Option<FlowAction> {
        match value.0.as_str() {
            "permit" => return Some(FlowAction::Permit),
            "deny" => return Some(FlowAction::Deny),
            "skip" => return Some(FlowAction::Skip),
            _ => {}
        }
        if let Some(name) = value.0.strip_prefix("director ") {
            if way == Way::Out {
                let message = "an outflow leads to no director: its packets come from one";
                let diagnostic = self.diagnostic(Code::Conflict, span, message);
                let help = "write `permit`, `deny`, `skip` or `table ID`, or make it a flow";
                self.found.push(diagnostic.help(help));
                return None;
            }
            let index = self.resolve(Code::UnknownDirector, "director", name.trim(), span);
            return index.map(FlowAction::Director);
        }
        if let Some(id) = value.0.strip_prefix("table ") {
            return self.table(id.trim(), span).map(FlowAction::Table);
        }
        let message = format!("{} is not a flow's policy", quote(&value.0));
        let diagnostic = self.diagnostic(Code::UnknownValue, span, message);
        const HELP: &str = "write `permit`, `deny`, `skip`, `director NAME` or `table ID`";
        let near = match self.directors.get_key_value(value.0.as_str()) {
            Some((name, _)) => Some(format!("director {name}")),
            None => forms::nearest(&value.0, ["permit", "deny", "skip"]).map(str::to_owned),
        };
        self.found.push(match near {
            Some(near) => diagnostic.repair(span, self.as_there(span, &near), HELP),
            None => diagnostic.help(HELP),
        });
        None
    }

    /// The place of a routing table by its number.
    fn table(&mut self, id: &str, span: &Range<usize>) -> Option<usize> {
        let Some(id) = id.parse::<u32>().ok().filter(|id| *id > 0) else {
            let message = format!("{} is not the number of a routing table", quote(id));
            let diagnostic = self.diagnostic(Code::OutOfRange, span, message);
            self.found.push(diagnostic.help("write a number from 1 to 4294967295"));
            return None;
        };
        let found = self.tables.iter().position(|known| *known == id);
        if found.is_none() {
            let message = format!("no route is in the routing table {id}");
            let diagnostic = self.diagnostic(Code::UnknownTable, span, message);
            let known: Vec<_> = self.tables.iter().take(10).map(u32::to_string).collect();
            self.found.push(diagnostic.help(if known.is_empty() {
                format!("add `[[route]]` with `to`, `via` and `table = {id}`")
            } else {
                format!("the tables of this file are {}", known.join(", "))
            }));
        }
        found
    }

    fn rule(&mut self, At { span, value }: &At<written::Rule>, way: Way) -> Option<FlowRule> {
        let (is_match, conditions) = match (&value.r#match, &value.ignore) {
            (Some(conditions), None) => (true, conditions),
            (None, Some(conditions)) => (false, conditions),
            (Some(_), Some(_)) | (None, None) => {
                let message = "a rule is one of `match` and `ignore`";
                let diagnostic = self.diagnostic(Code::BadRule, span, message);
                let help = "write `{ match = { ... } }` or `{ ignore = { ... } }`; several rules are a list";
                self.found.push(diagnostic.help(help));
                return None;
            }
        };
        let conditions = self.conditions(&conditions.value, way);
        let comment = value.comment.as_ref().map_or_else(String::new, |at| at.value.clone());
        Some(FlowRule { is_match, conditions, comment })
    }

    /// A text in place of the one at `span`, in quotes where that has them.
    pub(super) fn as_there(&self, span: &Range<usize>, text: &str) -> String {
        let is_quoted = self.source.slice(span).starts_with(['"', '\'']);
        if is_quoted { format!("\"{text}\"") } else { text.to_owned() }
    }
}
