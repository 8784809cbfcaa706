//! The state of an engine as JSON. In: an engine. Out: values with these keys, all counts since the start.
//!
//! `stats`:
//!
//! | key | meaning |
//! |---|---|
//! | `version` | version of the program |
//! | `generation` | number of the plan in force, from 1 |
//! | `flows.now`, `.max` | entries of the flow table, and their bound |
//! | `flows.half_open` | entries among them whose opening nobody has answered yet |
//! | `flows.opened`, `.closed` | entries made and gone |
//! | `flows.half_open_evicted` | half-open entries that gave way to newer ones |
//! | `sticky.now`, `.max` | clients that stick to a real server, and their bound |
//! | `packets.in`, `.bytes_in` | packets and bytes taken in |
//! | `packets.forwarded`, `.answered`, `.consumed`, `.dropped`, `.waiting` | how they ended, or that they wait; the sum is `packets.in` |
//! | `packets.passed` | packets that were not ours and were passed on as they came; forwarded as well |
//! | `packets.cut` | packets that were cut since they did not fit; forwarded as well, once |
//! | `packets.born`, `.born_lost` | packets of the engine's own that left, or found no way out |
//! | `resets` | TCP packets of unknown flows that were answered with a reset |
//! | `scheduler_calls` | calls to schedulers; packets of known flows cause none |
//! | `scheduler_changes` | how often `evenkeel ctl director` gave a director another scheduler |
//! | `agents.checks`, `.answers`, `.failures` | questions to agents of real servers, and how they went |
//! | `agents.bad_words` | words of their answers that mean nothing |
//! | `events_lost` | events that nobody fetched in time |
//! | `drops` | packets by reason; reasons without packets are left out |
//! | `directors[]` | as below |
//! | `policies[].name`, `.guest` | the policies in their order; native rules are named `flows` |
//! | `policies[].judges_packets` | whether the component is asked about every packet of a flow |
//! | `policies[].denied`, `.limited` | flows and packets that the component denied, and those among them that were beyond a limit |
//! | `io` | forwarder only: `io_uring` or `epoll` |
//! | `uptime_seconds` | forwarder only: since it forwards |
//! | `device` | forwarder only: what the device counted; `kernel_dropped` are packets that found its queue full |
//!
//! `directors`, and `directors[]` of `stats`: `name`, `binds[]` (each as configuration files write it:
//! `10.0.0.3:80/tcp`), `scheduler`, `guest` and `servers[]` with `name`, `address`, `port`, `weight`, `is_up`, `active`, `inactive` (entries now), `flows`
//! (entries ever), `packets_to`, `packets_from`, `bytes_to`, `bytes_from` (the real server), `effective_weight` (what its agent
//! leaves of `weight`) and `agent`.
//!
//! `agent` of a real server, null where it has none: `mode` (`ready`, `drain` or `maint`), `down` (why, or null), `flows_max`, `said`
//! (its last line) and `said_ms_ago`, both null before it has said anything, `checks`, `answers`, `failures` and `bad_words`.
//!
//! `shadow` of a director, null where it has none: `scheduler`, `guest`, flows that it was `asked` about, on which it
//! `agreed`, for which it gave no answer (`unanswered`), and the most flows of a server for its weight in thousandths of
//! the mean: `imbalance_thousandths` as it is, `imbalance_would_be_thousandths` had the shadow decided.
//!
//! `guest`: `calls` into the component, flows that it `decided`, `faults`, and flows that the native
//! `fallbacks` decided instead, `memory_bytes` and in the simulator `instructions`; all zero without a component.
//!
//! `rules`: a list of `flow`, `rule` (its number in the flow, from 1), `comment` and `count`, the new flows that it has decided
//! about; rules of skipped flows and `ignore` rules without a limit are not among them, and of a long list the first 10,000.
//!
//! `drops`: a list of `reason`, `count` and `help`, every reason included. `events`: a list of `event` with
//! what belongs to its kind, and on a forwarder `uptime_ms`.

use evenkeel_engine::director::{GuestStats, ShadowStatus};
use evenkeel_engine::{AgentStatus, DirectorStatus, Engine, Event, Instant, PolicyStatus, ServerStatus};
use serde_json::{Map, Value, json};

/// Everything that is counted.
pub(super) fn stats(engine: &Engine) -> Value {
    let counters = engine.counters();
    let drops: Map<String, Value> = counters
        .drops()
        .filter(|(_, count)| *count > 0)
        .map(|(reason, count)| (reason.name().to_owned(), count.into()))
        .collect();
    let policies: Vec<Value> = engine.policies().iter().map(policy).collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "generation": engine.generation(),
        "flows": {
            "now": engine.flow_count(),
            "max": engine.plan().limits.flows_max,
            "half_open": engine.half_open_count(),
            "opened": counters.flows_opened,
            "closed": counters.flows_closed,
            "half_open_evicted": counters.half_open_evicted,
        },
        "sticky": { "now": engine.sticky_count(), "max": engine.plan().limits.persistent_max },
        "packets": {
            "in": counters.packets_in,
            "bytes_in": counters.bytes_in,
            "forwarded": counters.forwarded,
            "answered": counters.answered,
            "consumed": counters.consumed,
            "dropped": counters.dropped_total(),
            "waiting": counters.waiting,
            "passed": counters.passed,
            "cut": counters.cut,
            "born": counters.born,
            "born_lost": counters.born_lost,
        },
        "resets": counters.resets,
        "scheduler_calls": counters.scheduler_calls,
        "scheduler_changes": counters.scheduler_changes,
        "agents": {
            "checks": counters.agent_checks,
            "answers": counters.agent_answers,
            "failures": counters.agent_failures,
            "bad_words": counters.agent_bad_words,
        },
        "events_lost": counters.events_lost,
        "drops": drops,
        "directors": directors(engine),
        "policies": policies,
    })
}

/// The directors with their real servers.
pub(super) fn directors(engine: &Engine) -> Vec<Value> {
    let now = engine.now();
    engine.directors().iter().map(|one| director(one, now)).collect()
}

/// Every reason, counted or not.
pub(super) fn drops(engine: &Engine) -> Vec<Value> {
    let line = |(reason, count): (evenkeel_engine::DropReason, u64)| json!({ "reason": reason.name(), "count": count, "help": reason.help() });
    engine.counters().drops().map(line).collect()
}

/// The most rules that an answer lists: it is written in one piece.
const RULES_MAX: usize = 10_000;

/// How often each rule has decided.
pub(super) fn rules(engine: &Engine) -> Vec<Value> {
    let line = |one: evenkeel_engine::policy::rules::RuleCount<'_>| json!({ "flow": one.flow, "rule": one.rule, "comment": one.comment, "count": one.count });
    engine.rule_counts().take(RULES_MAX).map(line).collect()
}

/// The events that nobody has fetched yet.
pub(super) fn waiting_events(engine: &mut Engine) -> Vec<Value> {
    let mut list = Vec::new();
    while list.len() < evenkeel_engine::event::EVENTS_MAX
        && let Some(next) = engine.poll_event()
    {
        list.push(event(&next));
    }
    list
}

/// One event, with its kind under `event`.
pub(crate) fn event(event: &Event) -> Value {
    match event {
        Event::PlanApplied { generation } => json!({ "event": "plan_applied", "generation": generation }),
        Event::GuestFault { name, fault } => json!({
            "event": "guest_fault",
            "name": name,
            "component": fault.component,
            "call": fault.call,
            "reason": fault.reason,
        }),
        Event::AgentChanged { director, server, state } => {
            json!({ "event": "agent_changed", "director": director, "server": server, "state": state })
        }
        Event::SchedulerChanged { director, scheduler } => {
            json!({ "event": "scheduler_changed", "director": director, "scheduler": scheduler })
        }
        Event::SchedulerRolledBack { director, from, to } => json!({
            "event": "scheduler_rolled_back", "director": director, "from": from, "to": to,
        }),
        Event::FlowTableFull { flows_max } => json!({ "event": "flow_table_full", "flows_max": flows_max }),
        Event::PortsExhausted { director, server } => {
            json!({ "event": "ports_exhausted", "director": director, "server": server })
        }
        // The engine's list of events may grow without this crate; its debug form is still worth showing.
        other => json!({ "event": "other", "text": format!("{other:?}") }),
    }
}

fn director(director: &DirectorStatus, now: Instant) -> Value {
    let servers: Vec<Value> = director.servers.iter().map(|one| server(one, now)).collect();
    let binds: Vec<String> = director.binds.iter().map(ToString::to_string).collect();
    json!({
        "name": director.name,
        "binds": binds,
        "scheduler": director.scheduler,
        "guest": guest(director.guest),
        "shadow": director.shadow.as_ref().map(shadow),
        "servers": servers,
    })
}

fn shadow(shadow: &ShadowStatus) -> Value {
    let [real, would_be] = shadow.imbalance_thousandths;
    json!({
        "scheduler": shadow.scheduler,
        "guest": guest(shadow.guest),
        "asked": shadow.asked,
        "agreed": shadow.agreed,
        "unanswered": shadow.unanswered,
        "imbalance_thousandths": real,
        "imbalance_would_be_thousandths": would_be,
    })
}

fn server(server: &ServerStatus, now: Instant) -> Value {
    json!({
        "name": server.name,
        "address": server.address,
        "port": server.port,
        "weight": server.weight,
        "effective_weight": server.effective_weight,
        "agent": server.agent.as_ref().map(|one| agent(one, now)),
        "is_up": server.is_up,
        "active": server.active,
        "inactive": server.inactive,
        "flows": server.flows,
        "packets_to": server.packets_to,
        "packets_from": server.packets_from,
        "bytes_to": server.bytes_to,
        "bytes_from": server.bytes_from,
    })
}

fn agent(agent: &AgentStatus, now: Instant) -> Value {
    let (at, said) = agent.last.as_ref().map(|(at, said)| (*at, said)).unzip();
    json!({
        "mode": agent.mode.name(),
        "down": agent.down,
        "flows_max": agent.flows_max,
        "said": said,
        "said_ms_ago": at.map(|at| u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX)),
        "checks": agent.checks,
        "answers": agent.answers,
        "failures": agent.failures,
        "bad_words": agent.bad_words,
    })
}

fn policy(policy: &PolicyStatus) -> Value {
    json!({
        "name": policy.name,
        "guest": guest(policy.guest),
        "judges_packets": policy.judges_packets,
        "denied": policy.denied,
        "limited": policy.limited,
    })
}

fn guest(stats: GuestStats) -> Value {
    json!({
        "calls": stats.calls,
        "decided": stats.decided,
        "faults": stats.faults,
        "fallbacks": stats.fallbacks,
        "memory_bytes": stats.memory_bytes,
        "instructions": stats.fuel,
    })
}
