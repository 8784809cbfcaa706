//! Policy components.

use std::collections::BTreeMap;
use std::ops::Range;

use evenkeel_engine::plan::{FlowPlan, OnFault, PolicyGuestPlan};

use super::{GuestText, Meaning};
use crate::forms;
use crate::written::{self, At, FaultPolicy, Per, Permission};

impl Meaning<'_> {
    /// A component as the engine takes it, asked about the packets of `gate`, or about all.
    pub(super) fn policy_component(
        &mut self,
        At { span, value }: &At<written::PolicyComponent>,
        gate: Option<FlowPlan>,
        names: &mut BTreeMap<String, Range<usize>>,
    ) -> Option<PolicyGuestPlan> {
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
        let on_fault = match value.on_fault.as_ref().map(|at| at.value) {
            None | Some(FaultPolicy::Permit) => OnFault::Permit,
            Some(FaultPolicy::Deny) => OnFault::Deny,
            Some(FaultPolicy::Native) => OnFault::Native,
        };
        let packets = value.per.as_ref().map(|at| at.value == Per::Packet);
        let data = value.content.clone().unwrap_or_default();
        Some(PolicyGuestPlan { name, guest, on_fault, gate, packets, data })
    }
}

pub(super) fn is_permit(written: Option<&At<Permission>>) -> bool {
    written.is_none_or(|at| at.value == Permission::Permit)
}
