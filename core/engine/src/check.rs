//! Whether a plan can be run at all. `config` finds these things earlier and points at them; a plan that a program
//! built by hand meets them here.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use core::net::IpAddr;

use crate::engine::Guests;
use crate::error::PlanError;
use crate::forward::{Routes, Ways};
use crate::plan::{
    AgentPlan, Binding, Condition, DirectorPlan, FlowAction, FlowPlan, Limit, LimitKey, Mode, Plan,
    PolicyGuestPlan, PolicyPlan, SchedulerPlan, ServerPlan, Test,
};
use crate::policy::GUEST_LIMITS_MAX;
use crate::policy::chain::PACKET_GUESTS_MAX;
use crate::time::Duration;
use crate::wire::Protocol;

/// The most directors, and servers of one director: their places are 16 bits wide.
const PLACES_MAX: usize = 65_535;

/// The most interfaces: entries keep their numbers in 8 bits.
const INTERFACES_MAX: usize = 255;

impl Plan {
    /// Whether a new engine would run by this plan with these guests.
    ///
    /// # Errors
    /// When the plan contradicts itself or lacks a guest.
    pub fn check(&self, guests: &Guests) -> Result<(), PlanError> {
        check(self, guests, |_| false)
    }
}

impl Limit {
    /// Whether its values are in their ranges; `name` is whose limit it is.
    ///
    /// # Errors
    /// When one of them is not.
    pub fn check(&self, name: &str) -> Result<(), PlanError> {
        in_range(&format!("{name} limit"), self.count as usize, 1, EVENTS_MAX, "1 to 1000000000")?;
        in_range(&format!("{name} burst"), self.burst as usize, 1, EVENTS_MAX, "1 to 1000000000")?;
        let seconds = usize::try_from(self.period.as_secs()).unwrap_or(usize::MAX);
        in_range(&format!("{name} period"), seconds, 1, 86_400, "1 s to 1 day")?;
        if let LimitKey::Source(v4, v6) | LimitKey::Destination(v4, v6) = self.key {
            in_range(&format!("{name} prefix length"), usize::from(v4), 0, 32, "0 to 32")?;
            in_range(&format!("{name} prefix length for IPv6"), usize::from(v6), 0, 128, "0 to 128")?;
        }
        Ok(())
    }
}

/// Checks `plan`. `is_loaded` says whether the guest of a director or policy is there already.
pub(crate) fn check(
    plan: &Plan,
    guests: &Guests,
    is_loaded: impl Fn(&DirectorPlan) -> bool,
) -> Result<(), PlanError> {
    in_range("directors", plan.directors.len(), 0, PLACES_MAX, "0 to 65535")?;
    in_range("interfaces", plan.interfaces.len(), 0, INTERFACES_MAX, "0 to 255")?;
    in_range("flows_max", plan.limits.flows_max as usize, 1, 1 << 24, "1 to 16777216")?;
    in_range("half_open_max", usize::from(plan.limits.half_open_max), 1, PLACES_MAX, "1 to 65535")?;
    in_range("persistent_max", plan.limits.persistent_max as usize, 1, 1 << 24, "1 to 16777216")?;
    if let Some(mss_bytes) = plan.handling.mss_bytes {
        in_range("mss_bytes", usize::from(mss_bytes), 88, PLACES_MAX, "88 to 65535")?;
    }
    check_tables(plan)?;
    for interface in &plan.interfaces {
        in_range(&interface.name, usize::from(interface.mtu_bytes), 68, PLACES_MAX, "68 to 65535")?;
        if let Some(other) = interface.passes_to {
            is_interface(plan, &interface.name, other.index())?;
        }
    }
    let mut names: BTreeMap<&str, ()> = BTreeMap::new();
    let mut bindings: BTreeMap<String, &str> = BTreeMap::new();
    for director in &plan.directors {
        if names.insert(&director.name, ()).is_some() {
            return Err(PlanError::DuplicateDirector { name: director.name.clone() });
        }
        check_director(plan, director)?;
        for binding in &director.binds {
            let binding = binding.to_string();
            if let Some(first) = bindings.insert(binding.clone(), &director.name) {
                return Err(PlanError::DuplicateBinding {
                    first: first.to_string(),
                    second: director.name.clone(),
                    binding,
                });
            }
        }
        if let SchedulerPlan::Guest(guest) = &director.scheduler
            && !guests.schedulers.contains_key(&director.name)
            && !is_loaded(director)
        {
            let component = guest.component.clone();
            return Err(PlanError::MissingGuest { name: director.name.clone(), component });
        }
        if let Some(SchedulerPlan::Guest(guest)) = &director.shadow
            && !guests.shadows.contains_key(&director.name)
        {
            let component = guest.component.clone();
            return Err(PlanError::MissingGuest { name: director.name.clone(), component });
        }
    }
    plan.outflows.iter().try_for_each(|flow| check_flow(plan, flow, true))?;
    plan.policies.iter().try_for_each(|policy| check_policy(plan, policy, guests))?;
    plan.outflow_guests.iter().try_for_each(|guest| check_guest(plan, guest, guests))?;
    let judges = plan.policies.iter().filter(|policy| match policy {
        PolicyPlan::Rules(_) => false,
        PolicyPlan::Guest(guest) => {
            let wishes = guests.policies.get(&guest.name).is_some_and(|policy| policy.wishes().packets);
            guest.packets.unwrap_or(wishes)
        }
    });
    in_range("policies that judge every packet", judges.count(), 0, PACKET_GUESTS_MAX, "0 to 2")
}

fn check_director(plan: &Plan, director: &DirectorPlan) -> Result<(), PlanError> {
    let name = &director.name;
    for binding in &director.binds {
        check_binding(name, binding)?;
    }
    if let Some(Err(error)) = director.scheduler.native().map(|tuned| tuned.check()) {
        return Err(PlanError::Scheduler { name: name.clone(), error });
    }
    if let Some(slow) = &director.slow_start {
        let time = usize::try_from(slow.time.as_millis()).unwrap_or(usize::MAX);
        in_range(&format!("{name} slow start"), time, 10, 86_400_000, "10 ms to 1 day")?;
        in_range(&format!("{name} slow start's least"), slow.least as usize, 1, 100, "1 to 100")?;
        let aggression = slow.aggression as usize;
        in_range(&format!("{name} slow start's aggression"), aggression, 1, 10_000, "1 to 10000")?;
    }
    if let Some(agents) = &director.agent_check {
        check_agents(name, agents)?;
    }
    in_range(&format!("{name} servers"), director.servers.len(), 0, PLACES_MAX, "0 to 65535")?;
    if let Some(persistence) = &director.persistence {
        let lengths = (usize::from(persistence.length_v4), usize::from(persistence.length_v6));
        in_range(&format!("{name} persistence length"), lengths.0, 0, 32, "0 to 32")?;
        in_range(&format!("{name} persistence length for IPv6"), lengths.1, 0, 128, "0 to 128")?;
    }
    match &director.mode {
        Mode::Nat { sources } => {
            if director.is_one_packet && !sources.is_empty() {
                return Err(PlanError::Conflict {
                    name: name.clone(),
                    reason: "one packet at a time leaves no flow behind, and source NAT needs one for the answers",
                });
            }
            for interface in sources.iter().flat_map(|rule| [rule.interface_in, rule.interface_out]).flatten()
            {
                is_interface(plan, name, interface.index())?;
            }
        }
        Mode::Gateway => {}
        Mode::Tunnel { ttl, .. } => {
            in_range(&format!("{name} ttl"), ttl.map_or(1, usize::from), 1, 255, "1 to 255")?
        }
    }
    let mut seen: BTreeMap<(IpAddr, u16), ()> = BTreeMap::new();
    for server in &director.servers {
        let title = format!("{name}/{}", server.name);
        in_range(&format!("{title} weight"), server.weight as usize, 0, PLACES_MAX, "0 to 65535")?;
        check_server(director, server)?;
        if seen.insert((server.address, server.port), ()).is_some() {
            return Err(PlanError::DuplicateServer { director: name.clone(), name: server.name.clone() });
        }
    }
    Ok(())
}

/// The most bytes that an agent is sent, as many as it answers.
const SEND_BYTES_MAX: usize = 1024;

fn check_agents(name: &str, agents: &AgentPlan) -> Result<(), PlanError> {
    let milliseconds = |time: Duration| usize::try_from(time.as_millis()).unwrap_or(usize::MAX);
    let interval = milliseconds(agents.interval);
    in_range(&format!("{name} agent port"), usize::from(agents.port), 1, PLACES_MAX, "1 to 65535")?;
    in_range(&format!("{name} agent interval"), interval, 50, 3_600_000, "50 ms to 1 hour")?;
    let timeout = milliseconds(agents.timeout);
    in_range(&format!("{name} agent timeout"), timeout, 10, interval, "10 ms to the interval")?;
    in_range(&format!("{name} agent send"), agents.send.len(), 0, SEND_BYTES_MAX, "0 to 1024 bytes")
}

fn check_binding(name: &str, binding: &Binding) -> Result<(), PlanError> {
    if let Some(protocol) = binding.protocol
        && protocol != Protocol::TCP
        && protocol != Protocol::UDP
    {
        let value = u64::from(protocol.0);
        return Err(PlanError::OutOfRange {
            name: format!("{name} protocol"),
            value,
            range: "tcp (6), udp (17)",
        });
    }
    let most = if binding.network.address.is_ipv4() { 32 } else { 128 };
    let length = usize::from(binding.network.length);
    in_range(&format!("{name} prefix length"), length, 0, most, "0 to 32, for IPv6 to 128")?;
    if binding.is_any_port() {
        return Ok(());
    }
    let (first, last) = (usize::from(*binding.ports.start()), usize::from(*binding.ports.end()));
    in_range(&format!("{name} port"), first, 1, PLACES_MAX, "1 to 65535")?;
    in_range(&format!("{name} last port"), last, first, PLACES_MAX, "the first port to 65535")
}

/// Whether packets for the director can reach this server unchanged, or be translated to it.
fn check_server(director: &DirectorPlan, server: &ServerPlan) -> Result<(), PlanError> {
    let conflict = |reason| {
        let name = format!("{}/{}", director.name, server.name);
        Err(PlanError::Conflict { name, reason })
    };
    let is_v4 = server.address.is_ipv4();
    if director.mode.is_one_sided() {
        let differs = |binding: &Binding| binding.port() != Some(server.port);
        if server.port != 0 && director.binds.iter().any(differs) {
            return conflict(
                "packets reach the real server unchanged in the modes gateway and tunnel, so its port must be that of \
                 the VIP, or 0",
            );
        }
    } else if !director.binds.is_empty()
        && director.binds.iter().all(|binding| binding.network.address.is_ipv4() != is_v4)
    {
        return conflict("NAT does not translate between IPv4 and IPv6; tunnels carry one in the other");
    }
    if director.mode == Mode::Gateway
        && director.binds.iter().any(|binding| binding.network.address.is_ipv4() != is_v4)
    {
        return conflict("the mode gateway needs a real server of the same family as the VIP");
    }
    Ok(())
}

fn check_policy(plan: &Plan, policy: &PolicyPlan, guests: &Guests) -> Result<(), PlanError> {
    match policy {
        PolicyPlan::Guest(guest) => check_guest(plan, guest, guests),
        PolicyPlan::Rules(flows) => flows.iter().try_for_each(|flow| check_flow(plan, flow, false)),
    }
}

fn check_guest(plan: &Plan, policy: &PolicyGuestPlan, guests: &Guests) -> Result<(), PlanError> {
    let PolicyGuestPlan { name, guest, gate, .. } = policy;
    gate.iter().try_for_each(|flow| check_flow(plan, flow, false))?;
    // A policy has no place that it keeps across plans, so each plan brings its own.
    let Some(policy) = guests.policies.get(name) else {
        return Err(PlanError::MissingGuest { name: name.clone(), component: guest.component.clone() });
    };
    let limits = policy.wishes().limits;
    in_range(&format!("{name} limits"), limits.len(), 0, GUEST_LIMITS_MAX, "0 to 16")?;
    limits.iter().try_for_each(|limit| limit.check(name))
}

/// The most ways out: entries keep their numbers in 8 bits, and one of these means that there is none.
const WAYS_MAX: usize = 255;

/// The most routing tables beside the main one, for the same reason.
const TABLES_MAX: usize = 254;

fn check_tables(plan: &Plan) -> Result<(), PlanError> {
    in_range("routing tables", plan.tables.len(), 0, TABLES_MAX, "0 to 254")?;
    let mut known: BTreeMap<u32, ()> = BTreeMap::new();
    for table in &plan.tables {
        if known.insert(table.id, ()).is_some() {
            let name = format!("routing table {}", table.id);
            return Err(PlanError::Conflict { name, reason: "it is there twice" });
        }
    }
    for route in plan.routes.iter().chain(plan.tables.iter().flat_map(|table| &table.routes)) {
        is_interface(plan, "a route", route.interface.index())?;
    }
    in_range(
        "interfaces of all routing tables",
        Ways::new(plan, &Routes::new(plan)).count(),
        0,
        WAYS_MAX,
        "0 to 255",
    )
}

/// Whether what a flow or outflow refers to is there, and its values are in their ranges.
fn check_flow(plan: &Plan, flow: &FlowPlan, is_outflow: bool) -> Result<(), PlanError> {
    let name = &flow.name;
    let missing = |target: String| Err(PlanError::UnknownReference { name: name.clone(), target });
    let conflict = |reason| Err(PlanError::Conflict { name: name.clone(), reason });
    match flow.action {
        FlowAction::Director(_) if is_outflow => {
            return conflict("an outflow leads to no director: its packets come from one");
        }
        FlowAction::Director(place) if place >= plan.directors.len() => {
            return missing(format!("director number {place}"));
        }
        FlowAction::Table(place) if place >= plan.tables.len() => {
            return missing(format!("routing table number {place}"));
        }
        FlowAction::Permit
        | FlowAction::Deny
        | FlowAction::Director(_)
        | FlowAction::Table(_)
        | FlowAction::Skip => {}
    }
    for Condition { test, .. } in flow.rules.iter().flat_map(|rule| &rule.conditions) {
        match test {
            Test::Interface(interface) => is_interface(plan, name, interface.index())?,
            Test::Dscp(_) | Test::Limit(_) if is_outflow => {
                return conflict(
                    "an outflow decides once for both directions, so it has neither `dscp` nor `limit`",
                );
            }
            Test::Limit(limit) => limit.check(name)?,
            Test::Protocol(_)
            | Test::Source(_)
            | Test::Destination(_)
            | Test::SourcePort(_)
            | Test::DestinationPort(_)
            | Test::IcmpKind(_)
            | Test::Flags { .. }
            | Test::Dscp(_) => {}
        }
    }
    Ok(())
}

/// The most flows of a limit in its period, and of a burst.
const EVENTS_MAX: usize = 1_000_000_000;

fn is_interface(plan: &Plan, name: &str, place: usize) -> Result<(), PlanError> {
    if place < plan.interfaces.len() {
        return Ok(());
    }
    let target: String = format!("interface number {place}");
    Err(PlanError::UnknownReference { name: name.to_string(), target })
}

fn in_range(name: &str, value: usize, low: usize, high: usize, range: &'static str) -> Result<(), PlanError> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(PlanError::OutOfRange { name: name.to_string(), value: value as u64, range })
}
