//! Policy components.

use std::collections::BTreeMap;
use std::ops::Range;

use evenkeel_engine::plan::PolicyPlan;

use super::{GuestText, Meaning};
use crate::forms;
use crate::written::{self, At, Permission};

impl Meaning<'_> {
    pub(super) fn policy_component(
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
}

pub(super) fn is_permit(written: Option<&At<Permission>>) -> bool {
    written.is_none_or(|at| at.value == Permission::Permit)
}
