//! Flows and outflows: their names, what happens to their packets, and their rules.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use evenkeel_engine::Plan;
use evenkeel_engine::plan::{FlowAction, FlowPlan, FlowRule, PolicyPlan};

use super::component::is_permit;
use super::{Meaning, entries};
use crate::diagnostic::Code;
use crate::forms::{self, quote};
use crate::written::{self, At, ComponentWay, FlowPolicyText};

/// The most flows, and the most outflows: as many as there are rules.
const FLOWS_MAX: usize = 131_072;

/// The most rules of one flow, and of all together: a hundred thousand and some. Their index takes about 200 bytes for
/// each, and the time of a reload.
const RULES_MAX: usize = 131_072;

/// The most policy components; each is a call for every new flow.
const COMPONENTS_MAX: usize = 16;

fn is_out(component: &At<written::PolicyComponent>) -> bool {
    component.value.way.as_ref().is_some_and(|way| way.value == ComponentWay::Out)
}

/// Which of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    In,
    Out,
}

/// Where the rules of each flow stand.
pub(super) type RulePlaces = Vec<Vec<Range<usize>>>;

/// Flows, or outflows, in their order.
#[derive(Default)]
struct Flows {
    plans: Vec<FlowPlan>,
    places: RulePlaces,
    /// Which of them ask a component: their places, and its name.
    asking: Vec<(usize, At<String>)>,
}

impl Meaning<'_> {
    /// Fills in the chain of policies and what happens when none decides.
    pub(super) fn policies(&mut self, file: &written::File, plan: &mut Plan) {
        let mut names = BTreeMap::new();
        let policy = file.policy.as_ref().map(|at| &at.value);
        let components = policy.map_or(&[][..], |policy| entries(policy.component.as_ref()));
        self.bounded(components, COMPONENTS_MAX, "policy components");
        let flows = self.flows(entries(file.flow.as_ref()), Way::In, &mut names);
        let outflows = self.flows(entries(file.outflow.as_ref()), Way::Out, &mut names);
        plan.default_permit = is_permit(policy.and_then(|policy| policy.default.as_ref()));
        let asks = self.asks(&flows, components);
        if !self.found.has_errors() {
            let asking = asks.keys().copied().collect();
            self.shadowed(&flows.plans, &flows.places, &asking);
            self.shadowed(&outflows.plans, &outflows.places, &BTreeSet::new());
        }
        plan.outflows = outflows.plans;
        plan.policies = self.chain(flows.plans, components, &asks, &mut names);
        for component in components.iter().filter(|component| is_out(component)) {
            plan.outflow_guests.extend(self.policy_component(component, None, &mut names));
        }
    }

    /// Which flows ask which components: places of both.
    fn asks(&mut self, flows: &Flows, components: &[At<written::PolicyComponent>]) -> BTreeMap<usize, usize> {
        let name_of = |component: &At<written::PolicyComponent>| {
            component.value.name.as_ref().map(|name| name.value.0.clone())
        };
        let names: Vec<_> = components.iter().map(name_of).collect();
        let mut asks: BTreeMap<usize, usize> = BTreeMap::new();
        let mut asked: BTreeMap<usize, Range<usize>> = BTreeMap::new();
        for (flow, At { span, value }) in &flows.asking {
            let found = names.iter().position(|name| name.as_ref() == Some(value));
            let Some(place) = found else {
                let message = format!("no policy component is named {}", quote(value));
                let diagnostic = self.diagnostic(Code::UnknownComponent, span, message);
                let known = names.iter().flatten().map(String::as_str);
                self.found.push(match forms::nearest(value, known) {
                    Some(near) => {
                        let text = self.source.slice(span).replace(value, near);
                        diagnostic.repair(span, text, format!("did you mean `{near}`?"))
                    }
                    None => diagnostic.help("declare `[[policy.component]]` with this `name`"),
                });
                continue;
            };
            if components.get(place).is_some_and(is_out) {
                let message = format!("the component {} is asked about packets that leave", quote(value));
                let diagnostic = self.diagnostic(Code::Conflict, span, message);
                self.found.push(diagnostic.help("take out its `way = \"out\"`, or this flow"));
                continue;
            }
            if let Some(first) = asked.get(&place) {
                let message = format!("two flows ask the component {}", quote(value));
                let diagnostic = self.diagnostic(Code::Conflict, span, message).also(first, "first here");
                self.found.push(diagnostic.help("write one flow with the rules of both"));
                continue;
            }
            asked.insert(place, span.clone());
            asks.insert(*flow, place);
        }
        asks
    }

    /// The policies in their order: each component where a flow asks it, the others behind all flows.
    fn chain(
        &mut self,
        flows: Vec<FlowPlan>,
        components: &[At<written::PolicyComponent>],
        asks: &BTreeMap<usize, usize>,
        names: &mut BTreeMap<String, Range<usize>>,
    ) -> Vec<PolicyPlan> {
        let (mut chain, mut rules) = (Vec::new(), Vec::new());
        for (number, flow) in flows.into_iter().enumerate() {
            let Some(component) = asks.get(&number).and_then(|place| components.get(*place)) else {
                rules.push(flow);
                continue;
            };
            if !rules.is_empty() {
                chain.push(PolicyPlan::Rules(std::mem::take(&mut rules)));
            }
            let gate = (!flow.is_open()).then_some(flow);
            chain.extend(self.policy_component(component, gate, names).map(PolicyPlan::Guest));
        }
        if !rules.is_empty() {
            chain.push(PolicyPlan::Rules(rules));
        }
        for (place, component) in components.iter().enumerate() {
            if !is_out(component) && !asks.values().any(|asked| *asked == place) {
                chain.extend(self.policy_component(component, None, names).map(PolicyPlan::Guest));
            }
        }
        chain
    }

    fn flows(
        &mut self,
        written: &[At<written::Flow>],
        way: Way,
        names: &mut BTreeMap<String, Range<usize>>,
    ) -> Flows {
        self.bounded(written, FLOWS_MAX, if way == Way::In { "flows" } else { "outflows" });
        let all = written.iter().take(FLOWS_MAX).flat_map(|flow| entries(flow.value.rule.as_ref()));
        let count = all.clone().count();
        if let Some(beyond) = all.clone().nth(RULES_MAX) {
            let message = format!("there are {count} rules; {RULES_MAX} is the most");
            let diagnostic = self.diagnostic(Code::TooMany, &beyond.span, message);
            self.found.push(diagnostic.label("the first that is too many").help("take out some rules"));
        }
        let mut flows = Flows::default();
        for flow in written {
            let rules = entries(flow.value.rule.as_ref());
            let Some((plan, asks)) = self.flow(flow, way, names) else { continue };
            flows.asking.extend(asks.map(|asks| (flows.plans.len(), asks)));
            flows.plans.push(plan);
            flows.places.push(rules.iter().map(|rule| rule.span.clone()).collect());
        }
        flows
    }

    /// A flow, and the component that it asks.
    fn flow(
        &mut self,
        At { span, value }: &At<written::Flow>,
        way: Way,
        names: &mut BTreeMap<String, Range<usize>>,
    ) -> Option<(FlowPlan, Option<At<String>>)> {
        if let Some(name) = &value.name {
            self.places.insert("flow", &name.value.0, "", &name.span);
            self.text(&name.span, forms::name(&name.value.0));
            self.unique(names, "flows, outflows or policy components", &name.value.0, &name.span);
        }
        let asks = value.policy.as_ref().and_then(|At { span, value }| {
            let name = value.0.strip_prefix("component ").filter(|_| way == Way::In)?;
            Some(At { span: span.clone(), value: name.trim().to_owned() })
        });
        let action = match &value.policy {
            Some(_) if asks.is_some() => Some(FlowAction::Permit),
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
        Some((FlowPlan { name: name.value.0.clone(), action: action?, rules }, asks))
    }

    fn action(&mut self, At { span, value }: &At<FlowPolicyText>, way: Way) -> Option<FlowAction> {
        match value.0.as_str() {
            "permit" => return Some(FlowAction::Permit),
            "deny" => return Some(FlowAction::Deny),
            "skip" => return Some(FlowAction::Skip),
            _ => {}
        }
        if value.0.starts_with("component ") {
            let message = "an outflow asks no component: components are asked about packets that come in";
            let diagnostic = self.diagnostic(Code::Conflict, span, message);
            self.found
                .push(diagnostic.help("write `permit`, `deny`, `skip` or `table ID`, or make it a flow"));
            return None;
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
        const HELP: &str = "write `permit`, `deny`, `skip`, `director NAME`, `table ID` or `component NAME`";
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
