//! The policy chain with guests in it: order, gates, limits, and guests that judge every packet.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use crate::support;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use crate::support::*;
use evenkeel_engine::director::{Fault, GuestStats};
use evenkeel_engine::plan::{
    Builtin, FlowAction, FlowPlan, FlowRule, GuestPlan, Limit, LimitKey, OnFault, Plan, PolicyGuestPlan,
    PolicyPlan, Prefix, RoutePlan, TablePlan, Test,
};
use evenkeel_engine::policy::{Moment, Policy, PolicyAnswer, PolicyFlow, PolicyVerdict, PolicyWishes};
use evenkeel_engine::time::Duration;
use evenkeel_engine::wire::tcp::Flags;
use evenkeel_engine::{DropReason, Engine, Guests, Instant, InterfaceId, PlanError};

/// What a scripted guest has been asked, call by call.
type Asked = Arc<Mutex<Vec<Vec<PolicyFlow>>>>;

/// A guest that answers by a function.
struct Scripted {
    name: &'static str,
    wishes: PolicyWishes,
    answer: fn(&PolicyFlow) -> PolicyAnswer,
    asked: Asked,
    fault: Option<Fault>,
}

impl std::fmt::Debug for Scripted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Policy for Scripted {
    fn name(&self) -> &str {
        self.name
    }
    fn decide(&mut self, flows: &[PolicyFlow], answers: &mut [PolicyAnswer], _: Instant) {
        assert!(!flows.is_empty() && flows.len() == answers.len());
        assert!(answers.iter().all(|answer| *answer == PolicyAnswer::SKIP));
        for (flow, answer) in flows.iter().zip(answers) {
            *answer = (self.answer)(flow);
        }
        self.asked.lock().unwrap().push(flows.to_vec());
        self.fault =
            Some(Fault { component: "scripted".to_owned(), call: "decide", reason: "none".to_owned() });
    }
    fn wishes(&self) -> PolicyWishes {
        self.wishes.clone()
    }
    fn stats(&self) -> GuestStats {
        GuestStats { calls: self.asked.lock().unwrap().len() as u64, ..GuestStats::default() }
    }
    fn take_fault(&mut self) -> Option<Fault> {
        self.fault.take()
    }
}

fn guest_plan(name: &str) -> PolicyGuestPlan {
    let guest = GuestPlan {
        component: "scripted".to_owned(),
        options: String::new(),
        call_budget: Duration::from_millis(1),
        memory_limit_bytes: 1 << 20,
        fallback: Builtin::RoundRobin,
    };
    PolicyGuestPlan { on_fault: OnFault::Deny, ..PolicyGuestPlan::new(name, guest) }
}

/// Guests by name, and what they are asked.
#[derive(Default)]
struct House {
    guests: Guests,
}

impl House {
    fn add(
        &mut self,
        name: &'static str,
        wishes: PolicyWishes,
        answer: fn(&PolicyFlow) -> PolicyAnswer,
    ) -> Asked {
        let asked = Asked::default();
        let guest = Scripted { name, wishes, answer, asked: Arc::clone(&asked), fault: None };
        self.guests.policies.insert(name.to_owned(), Box::new(guest));
        asked
    }
    fn engine(self, policies: Vec<PolicyPlan>) -> Engine {
        Engine::new(Plan { policies, ..plan() }, self.guests, Instant::ZERO).unwrap()
    }
}

fn flow(name: &str, action: FlowAction, source: [u8; 4], length: u8) -> FlowPlan {
    let rules = vec![FlowRule::matching(vec![Test::source(Prefix { address: source.into(), length })])];
    FlowPlan { name: name.to_owned(), action, rules }
}

fn rules(flows: Vec<FlowPlan>) -> PolicyPlan {
    PolicyPlan::Rules(flows)
}

fn from(last: u8, port: u16) -> Ends {
    ends(Ipv4Addr::new(192, 0, 2, last), port, VIP, 80)
}

fn skip(_: &PolicyFlow) -> PolicyAnswer {
    PolicyAnswer::SKIP
}

fn deny(_: &PolicyFlow) -> PolicyAnswer {
    PolicyVerdict::Deny.into()
}

const JUDGE: PolicyWishes = PolicyWishes { packets: true, limits: Vec::new() };

/// Bytes of data decide: a packet that has some is denied.
fn deny_data(flow: &PolicyFlow) -> PolicyAnswer {
    if flow.length > 40 { PolicyVerdict::Deny.into() } else { PolicyAnswer::SKIP }
}

#[test]
fn the_first_that_does_not_skip_decides_whoever_it_is() {
    let mut house = House::default();
    let first = house.add("first", PolicyWishes::default(), |flow| {
        let last = flow.tuple.source.v4_bytes()[3];
        if last == 2 { PolicyVerdict::Director(1).into() } else { PolicyAnswer::SKIP }
    });
    let second = house.add("second", PolicyWishes::default(), deny);
    let mut engine = house.engine(vec![
        rules(vec![flow("known", FlowAction::Permit, [192, 0, 2, 1], 32)]),
        PolicyPlan::Guest(guest_plan("first")),
        rules(vec![flow("three", FlowAction::Permit, [192, 0, 2, 3], 32)]),
        PolicyPlan::Guest(guest_plan("second")),
    ]);
    let batch: Vec<_> = (1..=4).map(|last| udp(from(last, 1_000), b"x")).collect();
    let out = exchange(&mut engine, &batch, at(1));
    assert_eq!(out.len(), 3, "1 by a rule, 2 by the first guest, 3 by a rule behind it");
    assert_eq!(dropped(&engine), [("policy_denied", 1)]);
    let lasts = |asked: &Asked| -> Vec<Vec<u8>> {
        let calls = asked.lock().unwrap();
        calls.iter().map(|flows| flows.iter().map(|flow| flow.tuple.source.v4_bytes()[3]).collect()).collect()
    };
    assert_eq!(lasts(&first), [vec![2, 3, 4]], "one call for all of the batch");
    assert_eq!(lasts(&second), [vec![4]]);
    let status = engine.policies();
    let names: Vec<_> =
        status.iter().map(|policy| (policy.name.as_str(), policy.guest.calls, policy.denied)).collect();
    assert_eq!(names, [("flows", 0, 0), ("first", 1, 0), ("flows", 0, 0), ("second", 1, 1)]);
    exchange(&mut engine, &[udp(from(2, 1_000), b"x")], at(2));
    assert_eq!(first.lock().unwrap().len(), 1, "a packet of a known flow enters no guest");
}

#[test]
fn a_gate_names_the_flows_that_a_guest_is_asked_about() {
    let mut house = House::default();
    let asked = house.add("guard", PolicyWishes::default(), deny);
    let gate = flow("ask", FlowAction::Permit, [192, 0, 2, 128], 25);
    let guard = PolicyGuestPlan { gate: Some(gate), ..guest_plan("guard") };
    let mut engine = house.engine(vec![PolicyPlan::Guest(guard)]);
    let out = exchange(&mut engine, &[udp(from(7, 1), b"x"), udp(from(200, 1), b"x")], at(1));
    assert_eq!((out.len(), asked.lock().unwrap()[0].len()), (1, 1));
    let counts: Vec<_> = engine.rule_counts().map(|count| (count.flow.to_owned(), count.count)).collect();
    assert_eq!(counts, [("ask".to_owned(), 1)]);
}

#[test]
fn a_verdict_holds_within_its_limit_and_the_engine_counts() {
    let limit = Limit { count: 10, period: Duration::from_secs(1), burst: 3, key: LimitKey::Source(32, 64) };
    let wishes = PolicyWishes { packets: false, limits: vec![limit] };
    let within = |_: &PolicyFlow| PolicyAnswer { verdict: PolicyVerdict::Skip, limit: Some(0) };
    let mut house = House::default();
    house.add("guard", wishes.clone(), within);
    let mut engine = house.engine(vec![PolicyPlan::Guest(guest_plan("guard"))]);
    let mut passed = |last, first, now| {
        let batch: Vec<_> = (first..first + 9).map(|port| udp(from(last, port), b"x")).collect();
        exchange(&mut engine, &batch, at(now)).len()
    };
    assert_eq!((passed(1, 100, 1_000), passed(2, 100, 1_000)), (3, 3), "a burst for each source");
    assert_eq!((passed(1, 200, 1_099), passed(1, 300, 1_100)), (0, 1));
    let status = &engine.policies()[0];
    assert_eq!((status.denied, status.limited), (29, 29));
    // A reload with the same guest goes on counting.
    let mut house = House::default();
    house.add("guard", wishes, within);
    let policies = vec![PolicyPlan::Guest(guest_plan("guard"))];
    engine.apply(Plan { policies, ..plan() }, house.guests, at(1_100)).unwrap();
    let batch: Vec<_> = (400..409).map(|port| udp(from(1, port), b"x")).collect();
    assert_eq!(exchange(&mut engine, &batch, at(1_150)).len(), 0);
    assert_eq!(engine.policies()[0].limited, 38);
}

#[test]
fn limits_and_judges_beyond_their_bounds_are_refused() {
    let refused = |wishes: &[PolicyWishes]| {
        let mut house = House::default();
        let names = ["a", "b", "c"];
        for (name, wishes) in names.iter().zip(wishes) {
            house.add(name, wishes.clone(), skip);
        }
        let policies = names.iter().take(wishes.len()).map(|name| PolicyPlan::Guest(guest_plan(name)));
        Engine::new(Plan { policies: policies.collect(), ..plan() }, house.guests, Instant::ZERO).unwrap_err()
    };
    let limit = Limit { count: 0, period: Duration::from_secs(1), burst: 1, key: LimitKey::All };
    let of = |limits| PolicyWishes { packets: false, limits };
    assert!(matches!(refused(&[of(vec![limit])]), PlanError::OutOfRange { value: 0, .. }));
    let good = Limit { count: 1, ..limit };
    assert!(matches!(refused(&[of(vec![good; 17])]), PlanError::OutOfRange { value: 17, .. }));
    let error = refused(&[JUDGE, JUDGE, JUDGE]);
    assert_eq!(error.to_string(), "policies that judge every packet: 3 is outside of 0 to 2");
}

#[test]
fn a_guest_that_judges_packets_sees_them_all_and_may_deny_one() {
    let mut house = House::default();
    let asked = house.add("judge", JUDGE, deny_data);
    let mut engine = house.engine(vec![PolicyPlan::Guest(guest_plan("judge"))]);
    let client = call(40_000);
    let out = exchange(&mut engine, &[tcp(client, "S", b"")], at(1));
    let server = audit(&out[0]).destination;
    let back = ends(server.0, server.1, client.source.0, client.source.1);
    assert_eq!(exchange(&mut engine, &[tcp(back, "SA", b"")], at(2)).len(), 1);
    let batch = [tcp(client, "A", b""), tcp(client, "A", b"data"), tcp(client, "A", b"")];
    assert_eq!(exchange(&mut engine, &batch, at(3)).len(), 2, "the one with data is gone");
    assert_eq!(dropped(&engine), [("policy_denied", 1)]);
    let asked = asked.lock().unwrap();
    let told: Vec<Vec<_>> = asked
        .iter()
        .map(|flows| flows.iter().map(|flow| (flow.moment, flow.flags, flow.length)).collect())
        .collect();
    let ack = |length| (Moment::FromClient, Flags::ACK, length);
    let expected = [
        vec![(Moment::First, Flags::SYN, 40)],
        vec![(Moment::FromServer, Flags(0x12), 40)],
        vec![ack(40), ack(44), ack(40)],
    ];
    assert_eq!(told, expected, "batches, and each packet once");
    let all = asked.iter().flatten();
    assert!(all.clone().all(|flow| flow.tuple == asked[0][0].tuple && flow.hash == asked[0][0].hash));
}

#[test]
fn packets_that_follow_the_first_in_its_batch_are_judged_too() {
    let mut house = House::default();
    let asked = house.add("judge", JUDGE, |flow| match flow.moment {
        Moment::First => PolicyVerdict::Permit.into(),
        Moment::FromClient | Moment::FromServer => PolicyVerdict::Deny.into(),
    });
    let mut engine = house.engine(vec![PolicyPlan::Guest(guest_plan("judge"))]);
    let batch = [udp(from(1, 1), b"a"), udp(from(2, 1), b"a"), udp(from(1, 1), b"b"), udp(from(1, 1), b"c")];
    assert_eq!(exchange(&mut engine, &batch, at(1)).len(), 2);
    let sizes: Vec<_> = asked.lock().unwrap().iter().map(Vec::len).collect();
    assert_eq!(sizes, [2, 2]);
    assert_eq!(dropped(&engine), [("policy_denied", 2)]);
    assert_eq!(engine.flow_count(), 2);
}

#[test]
fn packets_are_judged_only_by_guests_that_their_flow_has_met() {
    let mut house = House::default();
    let first = house.add("first", JUDGE, skip);
    let second = house.add("second", JUDGE, deny_data);
    let policies = || {
        let known = rules(vec![flow("known", FlowAction::Permit, [192, 0, 2, 1], 32)]);
        let half = rules(vec![flow("half", FlowAction::Permit, [192, 0, 2, 2], 32)]);
        let quiet = PolicyGuestPlan { packets: Some(false), ..guest_plan("quiet") };
        vec![
            known,
            PolicyPlan::Guest(guest_plan("first")),
            half,
            PolicyPlan::Guest(quiet),
            PolicyPlan::Guest(guest_plan("second")),
        ]
    };
    let quiet = house.add("quiet", JUDGE, skip);
    let mut engine = house.engine(policies());
    for last in 1..=3 {
        exchange(&mut engine, &[tcp(from(last, 9), "S", b"")], at(1));
    }
    let counts = |asked: &Asked| asked.lock().unwrap().iter().map(Vec::len).sum::<usize>();
    assert_eq!((counts(&first), counts(&quiet), counts(&second)), (2, 1, 1));
    for last in 1..=3 {
        exchange(&mut engine, &[tcp(from(last, 9), "S", b"")], at(2));
    }
    assert_eq!((counts(&first), counts(&quiet), counts(&second)), (4, 1, 2));
    // After a reload, the flows meet those of the new plan.
    let mut house = House::default();
    let second = house.add("second", JUDGE, skip);
    let plan = Plan { policies: vec![PolicyPlan::Guest(guest_plan("second"))], ..plan() };
    engine.apply(plan, house.guests, at(3)).unwrap();
    exchange(&mut engine, &[tcp(from(1, 9), "S", b"")], at(3));
    assert_eq!(counts(&second), 1);
}

#[test]
fn fragments_of_a_packet_that_is_judged_wrong_go_with_it() {
    let mut house = House::default();
    house.add("judge", JUDGE, |flow| match flow.moment {
        Moment::First => PolicyAnswer::SKIP,
        Moment::FromClient | Moment::FromServer => PolicyVerdict::Deny.into(),
    });
    let mut engine = house.engine(vec![PolicyPlan::Guest(guest_plan("judge"))]);
    exchange(&mut engine, &[udp(from(1, 1), b"a")], at(1));
    let whole = udp(from(1, 1), &[7; 64]);
    let piece = |start: usize, end: usize, more: bool| {
        let mut bytes = whole[..20].to_vec();
        bytes.extend_from_slice(&whole[20 + start..20 + end]);
        let length = u16::try_from(bytes.len()).unwrap();
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        bytes[4..6].copy_from_slice(&7_u16.to_be_bytes());
        let field = u16::try_from(start / 8).unwrap() | if more { 0x2000 } else { 0 };
        bytes[6..8].copy_from_slice(&field.to_be_bytes());
        mended(bytes)
    };
    assert!(exchange(&mut engine, &[piece(0, 32, true)], at(2)).is_empty());
    assert!(exchange(&mut engine, &[piece(32, 72, false)], at(3)).is_empty());
    assert_eq!(dropped(&engine), [("policy_denied", 2)]);
}

#[test]
fn faults_of_policies_become_events_with_their_name() {
    let mut house = House::default();
    house.add("guard", JUDGE, skip);
    let mut engine = house.engine(vec![PolicyPlan::Guest(guest_plan("guard"))]);
    let faults = |engine: &mut Engine| {
        let mut names = Vec::new();
        while let Some(event) = engine.poll_event() {
            if let evenkeel_engine::Event::GuestFault { name, .. } = event {
                names.push(name);
            }
        }
        names
    };
    exchange(&mut engine, &[udp(from(1, 1), b"a")], at(1));
    assert_eq!(faults(&mut engine), ["guard"]);
    exchange(&mut engine, &[udp(from(1, 1), b"a")], at(1));
    assert_eq!(faults(&mut engine), ["guard"], "also when it judges packets");
}

/// A second TUN, to which the routing table 200 leads, and guests about packets that leave.
fn leaving(outflows: Vec<FlowPlan>, guests: &[&str]) -> Plan {
    let mut plan = plan();
    plan.interfaces.push(interface("tun1", Ipv4Addr::new(10, 98, 1, 1), 24));
    let destination = Prefix { address: [0, 0, 0, 0].into(), length: 0 };
    let route = RoutePlan { destination, gateway: None, interface: InterfaceId(1) };
    plan.tables.push(TablePlan { id: 200, routes: vec![route] });
    let outflow_guests = guests.iter().map(|name| guest_plan(name)).collect();
    Plan { outflows, outflow_guests, ..plan }
}

/// What is sent from port 80, answers of the service, leaves by the table; what else leaves is skipped.
fn answers_by_table(flow: &PolicyFlow) -> PolicyAnswer {
    let is_answer = flow.tuple.source_port == 80;
    if is_answer { PolicyVerdict::Table(0).into() } else { PolicyAnswer::SKIP }
}

/// Where the answer to a datagram of `ends` leaves.
fn way_of_answer(engine: &mut Engine, ends: Ends, now: u64) -> InterfaceId {
    let out = one(engine, udp(ends, b"x"), at(now));
    let seen = audit(&out);
    let back = support::ends(seen.destination.0, seen.destination.1, seen.source.0, seen.source.1);
    exchange_on(engine, InterfaceId(0), &[udp(back, b"y")], at(now))[0].0
}

#[test]
fn guests_about_packets_that_leave_are_asked_where_no_outflow_decides() {
    let mut house = House::default();
    let first = house.add("first", PolicyWishes::default(), skip);
    let second = house.add("second", PolicyWishes::default(), answers_by_table);
    let by_rule = flow("stay", FlowAction::Permit, [10, 0, 0, 0], 8);
    let rule = vec![Test::source_port(80..=80), Test::destination(Prefix::host([192, 0, 2, 9].into()))];
    let by_rule = FlowPlan { rules: vec![FlowRule::matching(rule)], ..by_rule };
    let plan = leaving(vec![by_rule], &["first", "second"]);
    let mut engine = Engine::new(plan, house.guests, Instant::ZERO).unwrap();
    assert_eq!(way_of_answer(&mut engine, from(7, 40_000), 1), InterfaceId(1));
    let questions = second.lock().unwrap().concat();
    let seen: Vec<_> = questions.iter().map(|one| (one.tuple.source_port, one.interface.0)).collect();
    assert_eq!(seen, [(40_000, 0), (80, 0)], "each direction once, as it leaves");
    assert_ne!(questions[0].tuple.destination, VIP.into(), "translated");
    assert_eq!(*first.lock().unwrap(), *second.lock().unwrap(), "in their order, until one does not skip");
    assert_eq!(way_of_answer(&mut engine, from(9, 40_000), 1), InterfaceId(0), "the outflow decided");
    let asked = first.lock().unwrap().concat();
    assert_eq!(asked.len(), 3, "of that flow only the way to the server");
    assert_eq!(engine.policies().len(), 2);
}

#[test]
fn guests_about_packets_that_leave_deny_a_direction_and_are_asked_again_after_a_change() {
    let mut house = House::default();
    let to_seven = |flow: &PolicyFlow| {
        let is_seven = flow.tuple.destination == Ipv4Addr::new(192, 0, 2, 7).into();
        if is_seven { PolicyVerdict::Deny.into() } else { PolicyVerdict::Director(0).into() }
    };
    house.add("guard", JUDGE, to_seven);
    let mut engine = Engine::new(leaving(vec![], &["guard"]), house.guests, Instant::ZERO).unwrap();
    let out = one(&mut engine, udp(from(7, 40_000), b"x"), at(1));
    let seen = audit(&out);
    let back = ends(seen.destination.0, seen.destination.1, seen.source.0, seen.source.1);
    refused(&mut engine, udp(back, b"y"), DropReason::PolicyDenied);
    assert_eq!(
        way_of_answer(&mut engine, from(8, 40_000), 1),
        InterfaceId(0),
        "a director means nothing here"
    );
    assert!(!engine.policies()[0].judges_packets, "packets that leave are not judged one by one");
    // Another guest of the same name: old flows meet it with their next packets.
    let mut house = House::default();
    house.add("guard", PolicyWishes::default(), answers_by_table);
    engine.apply(leaving(vec![], &["guard"]), house.guests, at(2)).unwrap();
    assert_eq!(exchange_on(&mut engine, InterfaceId(0), &[udp(back, b"y")], at(3))[0].0, InterfaceId(1));
    assert_eq!(engine.policies()[0].denied, 1, "what was counted under the name goes on");
    let missing = leaving(vec![], &["nobody"]);
    let error = engine.apply(missing, Guests::default(), at(4)).unwrap_err();
    assert!(matches!(error, PlanError::MissingGuest { .. }), "{error}");
}
