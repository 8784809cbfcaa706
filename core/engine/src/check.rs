//! Whether a plan can be run at all. `config` finds these things earlier and points at them; a plan that a program
//! built by hand meets them here.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use core::net::IpAddr;

use crate::engine::Guests;
use crate::error::PlanError;
use crate::plan::{DirectorPlan, FlowAction, Mode, Plan, PolicyPlan, SchedulerPlan, Test};
use crate::wire::Protocol;

/// The most directors, servers of one director, and interfaces: their places are 16 bits wide.
const PLACES_MAX: usize = 65_535;

/// Checks `plan`. `is_loaded` says whether the guest of a director or policy is there already.
pub(crate) fn check(
    plan: &Plan,
    guests: &Guests,
    is_loaded: impl Fn(&DirectorPlan) -> bool,
) -> Result<(), PlanError> {
    in_range("directors", plan.directors.len(), 0, PLACES_MAX, "0 to 65535")?;
    in_range("interfaces", plan.interfaces.len(), 0, PLACES_MAX, "0 to 65535")?;
    in_range("flows_max", plan.limits.flows_max as usize, 1, 1 << 24, "1 to 16777216")?;
    for route in &plan.routes {
        is_interface(plan, "a route", route.interface.index())?;
    }
    for interface in &plan.interfaces {
        in_range(&interface.name, usize::from(interface.mtu_bytes), 68, PLACES_MAX, "68 to 65535")?;
    }
    let mut names: BTreeMap<&str, ()> = BTreeMap::new();
    let mut bindings: BTreeMap<(IpAddr, u16, Protocol), &str> = BTreeMap::new();
    for director in &plan.directors {
        if names.insert(&director.name, ()).is_some() {
            return Err(PlanError::DuplicateDirector { name: director.name.clone() });
        }
        check_director(director)?;
        let binding = (director.address, director.port, director.protocol);
        if let Some(first) = bindings.insert(binding, &director.name) {
            return Err(PlanError::DuplicateBinding {
                first: first.to_string(),
                second: director.name.clone(),
                binding: format!("{}:{}/{}", director.address, director.port, director.protocol),
            });
        }
        if let SchedulerPlan::Guest(guest) = &director.scheduler
            && !guests.schedulers.contains_key(&director.name)
            && !is_loaded(director)
        {
            let component = guest.component.clone();
            return Err(PlanError::MissingGuest { name: director.name.clone(), component });
        }
    }
    plan.policies.iter().try_for_each(|policy| check_policy(plan, policy, guests))
}

fn check_director(director: &DirectorPlan) -> Result<(), PlanError> {
    let name = &director.name;
    is_v4(name, director.address)?;
    in_range(&format!("{name} port"), usize::from(director.port), 1, PLACES_MAX, "1 to 65535")?;
    if director.protocol != Protocol::TCP && director.protocol != Protocol::UDP {
        let value = u64::from(director.protocol.0);
        return Err(PlanError::OutOfRange {
            name: format!("{name} protocol"),
            value,
            range: "tcp (6), udp (17)",
        });
    }
    in_range(&format!("{name} servers"), director.servers.len(), 0, PLACES_MAX, "0 to 65535")?;
    match &director.mode {
        Mode::Nat { source: None } => {}
        Mode::Nat { source: Some(source) } => is_v4(name, source.address)?,
    }
    let mut seen: BTreeMap<(IpAddr, u16), ()> = BTreeMap::new();
    for server in &director.servers {
        let title = format!("{name}/{}", server.name);
        is_v4(&title, server.address)?;
        in_range(&format!("{title} port"), usize::from(server.port), 1, PLACES_MAX, "1 to 65535")?;
        in_range(&format!("{title} weight"), server.weight as usize, 0, PLACES_MAX, "0 to 65535")?;
        if seen.insert((server.address, server.port), ()).is_some() {
            return Err(PlanError::DuplicateServer { director: name.clone(), name: server.name.clone() });
        }
    }
    Ok(())
}

fn check_policy(plan: &Plan, policy: &PolicyPlan, guests: &Guests) -> Result<(), PlanError> {
    match policy {
        PolicyPlan::Guest { name, guest, .. } => {
            // A policy has no place that it keeps across plans, so each plan brings its own.
            if guests.policies.contains_key(name) {
                return Ok(());
            }
            Err(PlanError::MissingGuest { name: name.clone(), component: guest.component.clone() })
        }
        PolicyPlan::Rules(flows) => {
            for flow in flows {
                if let FlowAction::Director(place) = flow.action
                    && place >= plan.directors.len()
                {
                    let target = format!("director number {place}");
                    return Err(PlanError::UnknownReference { name: flow.name.clone(), target });
                }
                for condition in flow.rules.iter().flat_map(|rule| &rule.conditions) {
                    if let Test::Interface(interface) = condition.test {
                        is_interface(plan, &flow.name, interface.index())?;
                    }
                }
            }
            Ok(())
        }
    }
}

fn is_interface(plan: &Plan, name: &str, place: usize) -> Result<(), PlanError> {
    if place < plan.interfaces.len() {
        return Ok(());
    }
    let target: String = format!("interface number {place}");
    Err(PlanError::UnknownReference { name: name.to_string(), target })
}

fn is_v4(name: &str, address: IpAddr) -> Result<(), PlanError> {
    match address {
        IpAddr::V4(_) => Ok(()),
        IpAddr::V6(address) => {
            Err(PlanError::NotIpv4 { name: name.to_string(), address: address.to_string() })
        }
    }
}

fn in_range(name: &str, value: usize, low: usize, high: usize, range: &'static str) -> Result<(), PlanError> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(PlanError::OutOfRange { name: name.to_string(), value: value as u64, range })
}
