//! Accounts of packets as JSON, with the names of the plan: what programs read, and what the text is made from.

use std::net::{IpAddr, SocketAddr};

use evenkeel_engine::flow::Direction;
use evenkeel_engine::forward::tunnel::Encapsulation;
use evenkeel_engine::journal::{
    Account, Change, Known, Pick, Review, Route, Ruling, Settlement, Step, Stick, Study, Way,
};
use evenkeel_engine::plan::{FlowPlan, Layer, Plan, PolicyPlan};
use evenkeel_engine::policy::PolicyVerdict;
use evenkeel_engine::policy::linear::{Decision, Finding, RuleId};
use evenkeel_engine::wire::{FiveTuple, Protocol};
use evenkeel_engine::{Explanation, InterfaceId, Verdict};
use serde_json::{Value, json};

use crate::conditions;
use crate::frame;
use crate::token::Token;

/// Digits of bytes as hex.
const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];

/// Bytes as pairs of hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The bytes of pairs of hexadecimal digits; nothing where they are none.
#[must_use]
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    let pair = |at: usize| text.get(at * 2..at * 2 + 2).filter(|pair| !pair.starts_with('+'));
    (0..text.len() / 2).map(|at| u8::from_str_radix(pair(at)?, 16).ok()).collect()
}

/// What would become of a packet.
#[must_use]
pub fn explanation(told: &Explanation, plan: &Plan) -> Value {
    let mut value = account(&told.account, plan);
    let born = told.born.iter().map(|(interface, bytes)| {
        json!({
            "interface": interface_name(plan, *interface),
            "packet": frame::line(bytes, is_frame(plan, *interface)),
            "bytes": hex(bytes),
        })
    });
    set(&mut value, "sent_besides", Value::Array(born.collect()));
    if let Some(component) = told.unknown() {
        set(&mut value, "not_predicted", json!(component));
    }
    value
}

/// Puts into an explanation the token that makes the decision again, or why there is none.
pub fn seal(value: &mut Value, plan: &Plan, state: Result<Vec<u8>, String>) {
    match state {
        Ok(state) => set(value, "token", json!(Token::new(plan, state).to_string())),
        Err(reason) => set(value, "no_token", json!(reason)),
    }
}

fn set(value: &mut Value, key: &str, inner: Value) {
    if let Value::Object(map) = value {
        map.insert(key.to_owned(), inner);
    }
}

/// One packet's way.
#[must_use]
pub fn account(account: &Account, plan: &Plan) -> Value {
    let steps = account.notes.iter().map(|note| {
        let mut value = step(&note.step, plan);
        if let Some(took_ns) = note.took_ns {
            set(&mut value, "took_ns", json!(took_ns));
        }
        value
    });
    let out = match account.end {
        Some(Verdict::Forward(out) | Verdict::Answer(out)) => Some(out),
        Some(Verdict::Replace(_) | Verdict::Hold | Verdict::Consume | Verdict::Drop(_)) | None => None,
    };
    json!({
        "at_ns": account.at.as_nanos(),
        "interface": interface_name(plan, account.interface),
        "is_frame": is_frame(plan, account.interface),
        "packet": frame::line(&account.before, is_frame(plan, account.interface)),
        "length_bytes": account.before_bytes,
        "before": hex(&account.before),
        "after": if account.after_bytes == 0 { Value::Null } else { json!(hex(&account.after)) },
        "after_is_frame": out.is_some_and(|out| is_frame(plan, out)),
        "after_length_bytes": account.after_bytes,
        "steps": steps.collect::<Vec<_>>(),
        "end": account.end.map(|end| verdict(end, plan)),
    })
}

fn step(step: &Step, plan: &Plan) -> Value {
    match step {
        Step::Read { tuple, flags, is_fragment, is_error } => json!({
            "step": "headers",
            "tuple": self::tuple(tuple),
            "tcp_flags": flags.map(|flags| flags.0),
            "is_fragment": is_fragment,
            "is_error_about_it": is_error,
        }),
        Step::Looked(None) => json!({ "step": "flow_table", "hit": false }),
        Step::Looked(Some(known)) => flow(known),
        Step::Reviewed(review) => match review {
            Review::Valid => json!({ "step": "review", "outcome": "goes_on" }),
            Review::Gone => json!({ "step": "review", "outcome": "ended" }),
            Review::Refused(reason) => {
                json!({ "step": "review", "outcome": "refused", "reason": reason.name() })
            }
        },
        Step::Lapsed => json!({ "step": "lapsed" }),
        Step::Policy { place, name, ruling } => {
            let flows = match plan.policies.get(*place) {
                Some(PolicyPlan::Rules(flows)) => flows.as_slice(),
                Some(PolicyPlan::Guest(guest)) => guest.gate.as_slice(),
                None => &[],
            };
            self::ruling(json!({ "step": "policy", "policy": name }), ruling, flows, plan)
        }
        Step::Default { permits } => {
            json!({ "step": "default", "verdict": if *permits { "permit" } else { "deny" } })
        }
        Step::Directed { director, refused } => json!({
            "step": "director",
            "director": director,
            "refused": refused.map(|reason| reason.name()),
        }),
        Step::Stuck(stick) => self::stick(stick),
        Step::Picked(pick) => self::pick(pick),
        Step::Mapped { address, wanted, port } => json!({
            "step": "source_nat",
            "address": IpAddr::from(*address).to_string(),
            "wanted": wanted,
            "port": port,
        }),
        Step::Outflow { tuple, interface, ruling } => {
            let head = json!({
                "step": "outflow",
                "tuple": self::tuple(tuple),
                "interface": interface_name(plan, *interface),
            });
            self::ruling(head, ruling, &plan.outflows, plan)
        }
        Step::Opened { has_evicted } => json!({ "step": "opened", "half_open_evicted": has_evicted }),
        Step::Carried(settlement) => carried(settlement, plan),
        Step::Ended(end) => json!({ "step": "end", "end": verdict(*end, plan) }),
    }
}

fn flow(known: &Known) -> Value {
    let [from_client, from_server] = known.packets;
    json!({
        "step": "flow_table",
        "hit": true,
        "direction": direction(known.direction),
        "state": known.state.name(),
        "director": known.director,
        "server": known.server,
        "original": tuple(&known.original),
        "reply": known.reply.as_ref().map(tuple),
        "lives_ns": known.lives.map(|lives| u64::try_from(lives.as_nanos()).unwrap_or(u64::MAX)),
        "packets_from_client": from_client,
        "packets_from_server": from_server,
        "is_half_open": known.is_half_open,
        "is_of_older_plan": known.is_old,
    })
}

fn ruling(mut head: Value, ruling: &Ruling, flows: &[FlowPlan], plan: &Plan) -> Value {
    let verdict = if ruling.is_unknown { Value::Null } else { json!(policy_verdict(ruling.verdict, plan)) };
    set(&mut head, "verdict", verdict);
    let Some(Study { findings, left_out, decision }) = &ruling.study else {
        set(&mut head, "is_component", json!(true));
        return head;
    };
    let by = if let Decision::By(id) = decision { Some(named(*id, flows)) } else { None };
    set(&mut head, "by", json!(by));
    let looked: Vec<Value> = findings.iter().map(|one| finding(one, flows, plan)).collect();
    set(&mut head, "rules", Value::Array(looked));
    set(&mut head, "rules_left_out", json!(left_out));
    head
}

fn named(id: RuleId, flows: &[FlowPlan]) -> Value {
    json!({ "flow": flows.get(id.flow).map_or("?", |flow| flow.name.as_str()), "rule": id.rule + 1 })
}

fn finding(finding: &Finding, flows: &[FlowPlan], plan: &Plan) -> Value {
    let (id, outcome, condition) = match *finding {
        Finding::PassedOver(place) => {
            let name = flows.get(place).map_or("?", |flow| flow.name.as_str());
            return json!({ "flow": name, "outcome": "passed_over" });
        }
        Finding::Matched(id) => (id, "matched", None),
        Finding::Ignored(id) => (id, "ignored", None),
        Finding::Failed(id, condition) => (id, "failed", Some(condition)),
        Finding::Unknown(id, condition) => (id, "unknown", Some(condition)),
    };
    let flow = flows.get(id.flow);
    let rule = flow.and_then(|flow| flow.rules.get(id.rule));
    let condition = condition.and_then(|place| rule?.conditions.get(place));
    json!({
        "flow": flow.map_or("?", |flow| flow.name.as_str()),
        "policy": flow.map(|flow| conditions::action(flow, plan)),
        "rule": id.rule + 1,
        "text": rule.map(|rule| conditions::rule(rule, plan)),
        "comment": rule.map(|rule| rule.comment.as_str()).filter(|comment| !comment.is_empty()),
        "outcome": outcome,
        "condition": condition.map(|condition| conditions::condition(condition, plan)),
    })
}

fn policy_verdict(verdict: PolicyVerdict, plan: &Plan) -> String {
    match verdict {
        PolicyVerdict::Permit => "permit".to_owned(),
        PolicyVerdict::Deny => "deny".to_owned(),
        PolicyVerdict::Skip => "skip".to_owned(),
        PolicyVerdict::Director(place) => {
            let director = plan.directors.get(usize::from(place));
            format!("director {}", director.map_or("?", |director| director.name.as_str()))
        }
        PolicyVerdict::Table(place) => {
            let table = plan.tables.get(usize::from(place));
            format!("table {}", table.map_or(0, |table| table.id))
        }
    }
}

fn stick(stick: &Stick) -> Value {
    json!({
        "step": "stick_table",
        "director": stick.director,
        "client": IpAddr::from(stick.client).to_string(),
        "server": stick.server,
        "is_used": stick.is_used,
    })
}

fn pick(pick: &Pick) -> Value {
    let candidates = pick.candidates.iter().map(|one| {
        json!({
            "server": one.name,
            "weight": one.weight,
            "active": one.load.active,
            "inactive": one.load.inactive,
            "is_up": one.is_up,
            "is_full": one.is_full,
        })
    });
    json!({
        "step": "scheduler",
        "director": pick.director,
        "scheduler": pick.scheduler,
        "hash_of": pick.inputs.hash.map(|(of, _)| of),
        "hash": pick.inputs.hash.map(|(_, hash)| format!("{hash:#x}")),
        "draws": pick.draws.iter().map(|draw| format!("{draw:#x}")).collect::<Vec<_>>(),
        "flows_asked_about": pick.asked,
        "candidates": candidates.collect::<Vec<_>>(),
        "server": pick.server,
        "is_unknown": pick.is_unknown,
    })
}

fn carried(settlement: &Settlement, plan: &Plan) -> Value {
    let change = match settlement.change {
        Change::Translated { before, after } => {
            json!({ "kind": "translated", "before": tuple(&before), "after": tuple(&after) })
        }
        Change::Unchanged => json!({ "kind": "unchanged" }),
        Change::Quoted => json!({ "kind": "error_translated" }),
        Change::Wrapped { encapsulation, source, destination, overhead_bytes } => json!({
            "kind": "tunnel",
            "encapsulation": match encapsulation {
                Encapsulation::IpIp => "ipip",
                Encapsulation::Gre { .. } => "gre",
                Encapsulation::Gue { .. } => "gue",
            },
            "source": IpAddr::from(source).to_string(),
            "destination": IpAddr::from(destination).to_string(),
            "overhead_bytes": overhead_bytes,
        }),
    };
    json!({
        "step": "sent_on",
        "director": settlement.director,
        "server": settlement.server,
        "direction": direction(settlement.direction),
        "state_before": settlement.states.map(|(before, _)| before.name()),
        "state_after": settlement.states.map(|(_, after)| after.name()),
        "change": change,
        "way": settlement.way.map(|way| self::way(way, plan)),
        "refused": settlement.refused.map(|reason| reason.name()),
    })
}

fn way(way: Way, plan: &Plan) -> Value {
    let table = usize::from(way.table).checked_sub(1).and_then(|place| plan.tables.get(place));
    json!({
        "interface": interface_name(plan, way.interface),
        "table": table.map(|table| table.id),
        "next_hop": IpAddr::from(way.next_hop).to_string(),
        "link_address": match way.link {
            Route::Unneeded => Value::Null,
            Route::Known(mac) => json!(mac.to_string()),
            Route::Asked => json!("asked for"),
        },
        "mtu_bytes": way.mtu_bytes,
    })
}

fn verdict(end: Verdict, plan: &Plan) -> Value {
    let by = |verdict: &str, interface: InterfaceId| json!({ "verdict": verdict, "interface": interface_name(plan, interface) });
    match end {
        Verdict::Forward(interface) => by("forward", interface),
        Verdict::Replace(interface) => by("cut", interface),
        Verdict::Answer(interface) => by("answer", interface),
        Verdict::Hold => json!({ "verdict": "hold" }),
        Verdict::Consume => json!({ "verdict": "consume" }),
        Verdict::Drop(reason) => {
            json!({ "verdict": "drop", "reason": reason.name(), "meaning": reason.help() })
        }
    }
}

const fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Original => "to_server",
        Direction::Reply => "to_client",
    }
}

pub(crate) fn interface_name(plan: &Plan, interface: InterfaceId) -> &str {
    plan.interfaces.get(interface.index()).map_or("?", |interface| interface.name.as_str())
}

fn is_frame(plan: &Plan, interface: InterfaceId) -> bool {
    let interface = plan.interfaces.get(interface.index());
    interface.is_some_and(|interface| matches!(interface.layer, Layer::Ethernet(_)))
}

/// A tuple in words.
fn tuple(tuple: &FiveTuple) -> String {
    let protocol = frame::name(tuple.protocol.0);
    let (source, destination) = (IpAddr::from(tuple.source), IpAddr::from(tuple.destination));
    if tuple.protocol == Protocol::TCP || tuple.protocol == Protocol::UDP {
        let ends = [tuple_end(source, tuple.source_port), tuple_end(destination, tuple.destination_port)];
        return format!("{protocol} {}", ends.join(" > "));
    }
    let identifier = tuple.source_port.max(tuple.destination_port);
    format!("{protocol} {source} > {destination} id {identifier}")
}

/// An address with its port.
pub(crate) fn tuple_end(address: IpAddr, port: u16) -> String {
    SocketAddr::new(address, port).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_the_same_after_hex_and_back() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(unhex(&hex(&bytes)), Some(bytes));
        assert_eq!((unhex("abc"), unhex("zz"), unhex("ää")), (None, None, None));
        assert_eq!(unhex("+f"), None);
    }
}
