//! Flow rules and policy components.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};

use evenkeel_engine::plan::{Condition, FlowAction, FlowPlan, FlowRule, PolicyPlan, Test};
use evenkeel_engine::wire::Protocol;
use evenkeel_engine::{InterfaceId, Plan};

use super::{GuestText, Meaning, entries};
use crate::addresses;
use crate::diagnostic::Code;
use crate::forms::{self, quote};
use crate::written::{
    self, At, Conditions, FlowPolicyText, InterfaceNameText, Negated, NetworkText, Permission, Ports,
    ProtocolText,
};

/// The most flows; they are looked through one by one for a new flow.
const FLOWS_MAX: usize = 1_024;

/// The most rules of one flow, for the same reason.
const RULES_MAX: usize = 1_024;

/// The most policy components; each is a call for every new flow.
const COMPONENTS_MAX: usize = 16;

impl Meaning<'_> {
    /// Fills in the chain of policies and what happens when none decides.
    pub(super) fn policies(&mut self, file: &written::File, plan: &mut Plan) {
        let flows = entries(file.flow.as_ref());
        self.bounded(flows, FLOWS_MAX, "flows");
        let mut names = BTreeMap::new();
        let mut rules = Vec::new();
        for flow in flows {
            rules.extend(self.flow(flow, &mut names));
        }
        if !rules.is_empty() {
            plan.policies.push(PolicyPlan::Rules(rules));
        }
        let Some(policy) = file.policy.as_ref().map(|at| &at.value) else { return };
        plan.default_permit = is_permit(policy.default.as_ref());
        let components = entries(policy.component.as_ref());
        self.bounded(components, COMPONENTS_MAX, "policy components");
        for component in components {
            plan.policies.extend(self.policy_component(component, &mut names));
        }
    }

    fn policy_component(
        &mut self,
        At { span, value }: &At<written::PolicyComponent>,
        names: &mut BTreeMap<String, Range<usize>>,
    ) -> Option<PolicyPlan> {
        if let Some(name) = &value.name {
            self.text(&name.span, forms::name(&name.value.0));
            self.unique(names, "flows or policy components", &name.value.0, &name.span);
            self.places.insert("policy", &name.value.0, "", span);
            if let Some(component) = &value.component {
                self.places.insert("policy", &name.value.0, "component", &component.span);
            }
            if let Some(options) = &value.options {
                self.places.insert("policy", &name.value.0, "options", &options.span);
            }
        }
        let text = GuestText {
            component: value.component.as_ref(),
            fallback: None,
            budget: value.budget.as_ref(),
            memory: value.memory.as_ref(),
            options: value.options.as_ref(),
        };
        let guest = self.guest(&text)?;
        let name = value.name.as_ref()?.value.0.clone();
        Some(PolicyPlan::Guest { name, guest, permit_on_fault: is_permit(value.on_fault.as_ref()) })
    }

    fn flow(
        &mut self,
        At { value, .. }: &At<written::Flow>,
        names: &mut BTreeMap<String, Range<usize>>,
    ) -> Option<FlowPlan> {
        if let Some(name) = &value.name {
            self.places.insert("flow", &name.value.0, "", &name.span);
            self.text(&name.span, forms::name(&name.value.0));
            self.unique(names, "flows or policy components", &name.value.0, &name.span);
        }
        let action = match &value.policy {
            Some(policy) => self.action(policy),
            None => Some(FlowAction::Skip),
        };
        let written = entries(value.rule.as_ref());
        self.bounded(written, RULES_MAX, "rules");
        let mut rules = Vec::new();
        for rule in written {
            rules.extend(self.rule(rule));
        }
        let name = value.name.as_ref()?;
        if written.is_empty() {
            let message = format!("the flow {} has no rule: no packet belongs to it", quote(&name.value.0));
            let diagnostic = self.diagnostic(Code::EmptyFlow, &name.span, message);
            self.found
                .push(diagnostic.help("add `rule = [ { match = {} } ]` for every packet, or take it out"));
        }
        Some(FlowPlan { name: name.value.0.clone(), action: action?, rules })
    }

    fn action(&mut self, At { span, value }: &At<FlowPolicyText>) -> Option<FlowAction> {
        match value.0.as_str() {
            "permit" => return Some(FlowAction::Permit),
            "deny" => return Some(FlowAction::Deny),
            "skip" => return Some(FlowAction::Skip),
            _ => {}
        }
        if let Some(name) = value.0.strip_prefix("director ") {
            let index = self.resolve(Code::UnknownDirector, "director", name.trim(), span);
            return index.map(FlowAction::Director);
        }
        let message = format!("{} is not a flow's policy", quote(&value.0));
        let diagnostic = self.diagnostic(Code::UnknownValue, span, message);
        const HELP: &str = "write `permit`, `deny`, `skip` or `director NAME`";
        let near = match self.directors.get_key_value(value.0.as_str()) {
            Some((name, _)) => Some(format!("director {name}")),
            None => forms::nearest(&value.0, ["permit", "deny", "skip"]).map(str::to_owned),
        };
        self.found.push(match near {
            Some(near) => diagnostic.repair(span, format!("\"{near}\""), HELP),
            None => diagnostic.help(HELP),
        });
        None
    }

    fn rule(&mut self, At { span, value }: &At<written::Rule>) -> Option<FlowRule> {
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
        let conditions = self.conditions(&conditions.value);
        Some(FlowRule { is_match, conditions, comment: String::new() })
    }

    fn conditions(&mut self, written: &Conditions) -> Vec<Condition> {
        let mut conditions = Vec::new();
        let plain = Tests::of(written);
        self.tests(&plain, false, &mut conditions);
        if let Some(not) = &written.not {
            let negated = Tests::of_negated(&not.value);
            self.tests(&negated, true, &mut conditions);
        }
        self.ports_have_a_protocol(written, &conditions);
        let address = |at: &Option<At<NetworkText>>| {
            at.as_ref().and_then(|at| addresses::network(&at.value.0).ok()).map(|prefix| prefix.address)
        };
        let (source, destination) = (address(&written.src), address(&written.dst));
        if let (Some(source), Some(destination), Some(at)) = (source, destination, &written.dst)
            && source.is_ipv4() != destination.is_ipv4()
        {
            let (from, to) = (addresses::family(&source), addresses::family(&destination));
            let message = format!("no packet meets this rule: `src` is of {from}, and `dst` of {to}");
            let diagnostic = self.diagnostic(Code::NeverHolds, &at.span, message);
            self.found.push(diagnostic.help("write two rules, one for each family"));
        }
        conditions
    }

    /// Reports conditions on ports in a rule that names no protocol with ports.
    fn ports_have_a_protocol(&mut self, written: &Conditions, conditions: &[Condition]) {
        let not = written.not.as_ref().map(|not| &not.value);
        let places = [
            written.srcport.as_ref(),
            written.dstport.as_ref(),
            not.and_then(|not| not.srcport.as_ref()),
            not.and_then(|not| not.dstport.as_ref()),
        ];
        let Some(place) = places.into_iter().flatten().next() else { return };
        let has_ports = |protocol| protocol == Protocol::TCP || protocol == Protocol::UDP;
        let without = |condition: &Condition| match condition.test {
            Test::Protocol(protocol) => !condition.is_negated && !has_ports(protocol),
            Test::Interface(_)
            | Test::Source(_)
            | Test::Destination(_)
            | Test::SourcePort(_)
            | Test::DestinationPort(_)
            | Test::IcmpKind(_)
            | Test::Flags { .. }
            | Test::Dscp(_)
            | Test::Limit(_) => false,
        };
        let message = if written.proto.is_none() {
            "ports belong to a protocol, and this rule names none"
        } else if conditions.iter().any(without) {
            "ports belong to TCP and UDP, and this rule names another protocol"
        } else {
            return;
        };
        let diagnostic = self.diagnostic(Code::PortWithoutProtocol, &place.span, message);
        self.found.push(diagnostic.help("add `proto = \"tcp\"` or `proto = \"udp\"` beside it"));
    }

    fn tests(&mut self, written: &Tests<'_>, is_negated: bool, conditions: &mut Vec<Condition>) {
        let interface = written
            .iface
            .and_then(|name| self.resolve(Code::UnknownInterface, "interface", &name.value.0, &name.span));
        let interface = interface.and_then(|index| u16::try_from(index).ok()).map(InterfaceId);
        let protocol = written.proto.and_then(|at| self.text(&at.span, forms::rule_protocol(&at.value.0)));
        let source = written.src.and_then(|at| self.text(&at.span, addresses::network(&at.value.0)));
        let destination = written.dst.and_then(|at| self.text(&at.span, addresses::network(&at.value.0)));
        let source_port = written.srcport.and_then(|at| self.ports(at));
        let destination_port = written.dstport.and_then(|at| self.ports(at));
        let tests = [
            interface.map(Test::Interface),
            protocol.map(Test::Protocol),
            source.map(Test::source),
            destination.map(Test::destination),
            source_port.map(Test::source_port),
            destination_port.map(Test::destination_port),
        ];
        conditions.extend(tests.into_iter().flatten().map(|test| Condition { is_negated, test }));
    }

    fn ports(&mut self, At { span, value }: &At<Ports>) -> Option<RangeInclusive<u16>> {
        match value {
            Ports::One(port) => u16::try_from(*port).ok().map(|port| port..=port),
            Ports::Range(text) => self.text(span, addresses::port_range(&text.0)),
        }
    }
}

fn is_permit(written: Option<&At<Permission>>) -> bool {
    written.is_none_or(|at| at.value == Permission::Permit)
}

/// The conditions that plain and negated ones have in common.
struct Tests<'a> {
    iface: Option<&'a At<InterfaceNameText>>,
    proto: Option<&'a At<ProtocolText>>,
    src: Option<&'a At<NetworkText>>,
    dst: Option<&'a At<NetworkText>>,
    srcport: Option<&'a At<Ports>>,
    dstport: Option<&'a At<Ports>>,
}

impl<'a> Tests<'a> {
    fn of(written: &'a Conditions) -> Self {
        Self {
            iface: written.iface.as_ref(),
            proto: written.proto.as_ref(),
            src: written.src.as_ref(),
            dst: written.dst.as_ref(),
            srcport: written.srcport.as_ref(),
            dstport: written.dstport.as_ref(),
        }
    }

    fn of_negated(written: &'a Negated) -> Self {
        Self {
            iface: written.iface.as_ref(),
            proto: written.proto.as_ref(),
            src: written.src.as_ref(),
            dst: written.dst.as_ref(),
            srcport: written.srcport.as_ref(),
            dstport: written.dstport.as_ref(),
        }
    }
}
