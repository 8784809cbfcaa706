//! Outflows, routing tables, and what rules do besides opening flows: pings, fragments, flows of an older plan.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use crate::support;
use std::net::Ipv4Addr;

use crate::support::*;
use evenkeel_engine::plan::{
    ByteSet, FlowAction, FlowPlan, FlowRule, Layer, Limit, LimitKey, Plan, PolicyPlan, Prefix, RoutePlan,
    TablePlan, Test,
};
use evenkeel_engine::time::Duration;
use evenkeel_engine::wire::Protocol;
use evenkeel_engine::wire::ethernet::MacAddress;
use evenkeel_engine::{DropReason, Guests, InterfaceId, PlanError};

fn network(text: &str, length: u8) -> Prefix {
    Prefix { address: text.parse().unwrap(), length }
}

fn flow(name: &str, action: FlowAction, rules: Vec<FlowRule>) -> FlowPlan {
    FlowPlan { name: name.to_owned(), action, rules }
}

fn all() -> FlowRule {
    FlowRule::matching(vec![])
}

/// Three TUNs: clients come by the first and the second; a default route leads to the first; table 200 leads to the
/// second, and for one network to the third.
fn three() -> Plan {
    let mut plan = plan();
    for (name, last) in [("tun1", 1), ("tun2", 2)] {
        plan.interfaces.push(interface(name, Ipv4Addr::new(10, 98, last, 1), 24));
    }
    let to =
        |destination, interface| RoutePlan { destination, gateway: None, interface: InterfaceId(interface) };
    let routes = vec![to(network("198.51.100.0", 24), 2), to(network("192.0.2.0", 24), 1)];
    plan.tables.push(TablePlan { id: 200, routes });
    plan
}

fn reply_to(out: &[u8]) -> Vec<u8> {
    let ends = audit(out);
    udp(support::ends(ends.destination.0, ends.destination.1, ends.source.0, ends.source.1), b"y")
}

fn client(last_network: u8) -> Ends {
    let source = if last_network == 0 { CLIENT } else { Ipv4Addr::new(198, 51, 100, last_network) };
    ends(source, 40_000, VIP, 80)
}

/// Where a datagram of `ends` that comes in by `interface` leaves, and where its answer does.
fn ways(engine: &mut evenkeel_engine::Engine, ends: Ends, interface: u16, now: u64) -> (u16, u16) {
    let out = exchange_on(engine, InterfaceId(interface), &[udp(ends, b"x")], at(now));
    let back = exchange_on(engine, InterfaceId(0), &[reply_to(&out[0].1)], at(now));
    (out[0].0.0, back[0].0.0)
}

#[test]
fn answers_leave_by_the_interface_of_the_client_unless_the_routes_are_to_say() {
    let mut engine = engine(three());
    assert_eq!(ways(&mut engine, client(0), 1, 1), (0, 1));
    let mut routed = three();
    routed.handling.routes_replies = true;
    engine.apply(routed, Guests::default(), at(2)).unwrap();
    assert_eq!(ways(&mut engine, client(0), 1, 3), (0, 0), "an open flow follows the new plan");
    assert_eq!(ways(&mut engine, client(7), 1, 3), (0, 0));
}

#[test]
fn an_outflow_sees_answers_as_they_leave_and_sends_them_by_its_table() {
    let mut plan = three();
    let rule = FlowRule::matching(vec![
        Test::Protocol(Protocol::UDP),
        Test::source(Prefix::host(VIP.into())),
        Test::source_port(80..=80),
    ]);
    plan.outflows.push(flow("return", FlowAction::Table(0), vec![rule]));
    let mut engine = engine(plan);
    assert_eq!(ways(&mut engine, client(0), 0, 1), (0, 1));
    assert_eq!(ways(&mut engine, client(9), 0, 1), (0, 2), "the longest route of the table");
    let far = ends(Ipv4Addr::new(203, 0, 113, 1), 1, VIP, 80);
    assert_eq!(ways(&mut engine, far, 0, 1), (0, 0), "the table has no route, so the main one holds");
    let counts: Vec<_> = engine.rule_counts().map(|one| (one.flow, one.rule, one.count)).collect();
    assert_eq!(counts, [("return", 1, 3)], "each flow once");
}

#[test]
fn an_outflow_sees_the_interface_that_the_routes_have_chosen() {
    let mut plan = three();
    let by_second = FlowRule::matching(vec![Test::Interface(InterfaceId(1))]);
    plan.outflows.push(flow("second", FlowAction::Table(0), vec![by_second]));
    let mut engine = engine(plan);
    assert_eq!(ways(&mut engine, client(9), 0, 1), (0, 0), "neither way leads by the second interface");
    let other = ends(Ipv4Addr::new(198, 51, 100, 9), 2, VIP, 80);
    assert_eq!(ways(&mut engine, other, 1, 1), (0, 2));
}

#[test]
fn an_outflow_that_denies_drops_what_it_matches_and_nothing_else() {
    let mut plan = three();
    let answers = FlowRule::matching(vec![Test::destination(Prefix::host(CLIENT.into()))]);
    let server = FlowRule::matching(vec![Test::destination(network("10.0.3.20", 32))]);
    plan.outflows.push(flow("quiet", FlowAction::Deny, vec![answers, server]));
    let mut engine = engine(plan);
    let out = one(&mut engine, udp(client(0), b"x"), at(1));
    refused(&mut engine, reply_to(&out), DropReason::PolicyDenied);
    refused(&mut engine, udp(client(7), b"x"), DropReason::PolicyDenied);
    assert_eq!(engine.flow_count(), 1, "what never leaves opens no flow");
    engine.apply(three(), Guests::default(), at(2)).unwrap();
    assert_eq!(exchange(&mut engine, &[reply_to(&out)], at(3)).len(), 1, "the way is free again");
}

#[test]
fn a_flow_can_choose_the_table_for_the_way_to_the_server() {
    let mut plan = three();
    plan.tables[0].routes.push(RoutePlan {
        destination: network("10.0.3.0", 24),
        gateway: None,
        interface: InterfaceId(2),
    });
    let rules = vec![FlowRule::ignoring(vec![Test::source(Prefix::host(CLIENT.into()))]), all()];
    plan.policies.push(PolicyPlan::Rules(vec![flow("by200", FlowAction::Table(0), rules)]));
    let mut engine = engine(plan);
    assert_eq!(ways(&mut engine, client(0), 0, 1), (0, 0));
    assert_eq!(ways(&mut engine, client(9), 0, 1), (2, 0));
}

#[test]
fn a_table_knows_its_own_gateway_on_the_link() {
    let (own, gateway, main) =
        (MacAddress([2, 0, 0, 0, 0, 1]), MacAddress([2, 0, 0, 0, 0, 2]), MacAddress([2, 0, 0, 0, 0, 3]));
    let mut plan = plan();
    plan.interfaces = vec![interface("eth0", Ipv4Addr::new(10, 0, 0, 2), 24)];
    plan.interfaces[0].layer = Layer::Ethernet(own);
    let to = |via: [u8; 4]| RoutePlan {
        destination: network("0.0.0.0", 0),
        gateway: Some(via.into()),
        interface: InterfaceId(0),
    };
    plan.routes = vec![to([10, 0, 0, 254])];
    plan.tables.push(TablePlan { id: 200, routes: vec![to([10, 0, 0, 253])] });
    let from_vip = FlowRule::matching(vec![Test::source(Prefix::host(VIP.into()))]);
    plan.outflows.push(flow("return", FlowAction::Table(0), vec![from_vip]));
    let mut engine = engine(plan);
    let frame =
        |to: MacAddress, from: MacAddress, packet: Vec<u8>| [&to.0[..], &from.0, &[8, 0], &packet].concat();
    let arp = |mac: MacAddress, last: u8| {
        let head = [0, 1, 8, 0, 6, 4, 0, 2];
        [&own.0[..], &mac.0, &[8, 6], &head[..], &mac.0, &[10, 0, 0, last], &own.0, &[10, 0, 0, 2]].concat()
    };
    exchange(&mut engine, &[arp(main, 254), arp(gateway, 253)], at(1));
    // Both gateways are asked for before the packets go.
    exchange(&mut engine, &[frame(own, main, udp(client(9), b"x"))], at(2));
    exchange(&mut engine, &[arp(main, 254)], at(2));
    let out = exchange(&mut engine, &[frame(own, main, udp(client(9), b"x"))], at(3));
    assert_eq!(out[0][..6], main.0, "to the server by the main table");
    let back = reply_to(&out[0][14..]);
    exchange(&mut engine, &[frame(own, main, back.clone())], at(4));
    exchange(&mut engine, &[arp(gateway, 253)], at(4));
    let out = exchange(&mut engine, &[frame(own, main, back)], at(5));
    assert_eq!(out[0][..6], gateway.0, "the answer by the table");
}

#[test]
fn a_ping_that_is_answered_here_asks_the_rules_first() {
    let mut plan = plan();
    let echo = Test::IcmpKind(ByteSet::of(&[8]));
    let from = |test| FlowRule::matching(vec![Test::Protocol(Protocol::ICMP), echo.clone(), test]);
    let permit = flow("ping", FlowAction::Permit, vec![from(Test::source(network("203.0.113.0", 24)))]);
    plan.policies.push(PolicyPlan::Rules(vec![permit, flow("rest", FlowAction::Deny, vec![all()])]));
    let mut engine = engine(plan);
    let ping = echo_request(VIP);
    refused(&mut engine, ping.clone(), DropReason::PolicyDenied);
    let mut near = ping;
    near[12..16].copy_from_slice(&[203, 0, 113, 5]);
    assert_eq!(exchange(&mut engine, &[mended(near)], at(1)).len(), 1);
}

#[test]
fn a_limit_counts_new_flows_and_leaves_old_ones_alone() {
    let mut plan = plan();
    let limit = Limit { count: 1, period: Duration::from_secs(1), burst: 2, key: LimitKey::Source(32, 128) };
    let within = FlowRule::matching(vec![Test::Limit(limit)]);
    let rules =
        vec![flow("few", FlowAction::Permit, vec![within]), flow("rest", FlowAction::Deny, vec![all()])];
    plan.policies.push(PolicyPlan::Rules(rules));
    let mut engine = engine(plan.clone());
    for port in [1, 2] {
        one(&mut engine, udp(call(port), b"x"), at(10));
    }
    refused(&mut engine, udp(call(3), b"x"), DropReason::PolicyDenied);
    one(&mut engine, udp(call(1), b"x"), at(11));
    one(&mut engine, udp(ends(Ipv4Addr::new(192, 0, 2, 99), 3, VIP, 80), b"x"), at(11));
    // The same rules under a new plan know what has been counted, and old flows go on.
    plan.limits.answers_per_second = 7;
    engine.apply(plan, Guests::default(), at(12)).unwrap();
    one(&mut engine, udp(call(2), b"x"), at(13));
    refused(&mut engine, udp(call(4), b"x"), DropReason::PolicyDenied);
    one(&mut engine, udp(call(4), b"x"), at(1_100));
}

#[test]
fn a_condition_on_what_is_forgotten_leaves_old_flows_alone() {
    let mut strict = plan();
    let expedited = FlowRule::matching(vec![Test::Dscp(ByteSet::of(&[46]))]);
    let rules =
        vec![flow("voice", FlowAction::Permit, vec![expedited]), flow("rest", FlowAction::Deny, vec![all()])];
    strict.policies.push(PolicyPlan::Rules(rules));
    let mut engine = engine(plan());
    one(&mut engine, udp(call(1), b"x"), at(1));
    engine.apply(strict, Guests::default(), at(2)).unwrap();
    one(&mut engine, udp(call(1), b"x"), at(3));
    refused(&mut engine, udp(call(2), b"x"), DropReason::PolicyDenied);
    let mut marked = udp(call(3), b"x");
    marked[1] = 46 << 2;
    one(&mut engine, mended(marked), at(3));
}

#[test]
fn later_fragments_of_a_denied_datagram_are_denied_with_it() {
    let mut plan = plan();
    let from = FlowRule::matching(vec![Test::Protocol(Protocol::UDP), Test::source_port(7..=7)]);
    plan.policies.push(PolicyPlan::Rules(vec![flow("no", FlowAction::Deny, vec![from])]));
    let mut engine = engine(plan);
    let whole = udp(call(7), &[5; 40]);
    let piece = |offset: u8, more: bool, bytes: &[u8]| {
        let mut packet = [&whole[..20], bytes].concat();
        let length = u16::try_from(packet.len()).unwrap().to_be_bytes();
        packet[2..4].copy_from_slice(&length);
        packet[4..6].copy_from_slice(&[7, 7]);
        packet[6..8].copy_from_slice(&[if more { 0x20 } else { 0 }, offset]);
        mended(packet)
    };
    refused(&mut engine, piece(0, true, &whole[20..44]), DropReason::PolicyDenied);
    refused(&mut engine, piece(3, false, &whole[44..68]), DropReason::PolicyDenied);
    assert_eq!(engine.counters().dropped(DropReason::PolicyDenied), 2);
    assert_eq!(engine.rule_counts().map(|one| one.count).sum::<u64>(), 1, "the rules were asked once");
}

#[test]
fn outflows_that_cannot_be_are_refused() {
    let refused = |action, rule, words: &str| {
        let mut plan = three();
        plan.outflows.push(flow("o", action, vec![rule]));
        let error = evenkeel_engine::Engine::new(plan, Guests::default(), at(0)).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        error
    };
    refused(FlowAction::Director(0), all(), "no director");
    refused(FlowAction::Table(1), all(), "routing table number 1");
    let limit = Limit { count: 1, period: Duration::from_secs(1), burst: 1, key: LimitKey::All };
    refused(FlowAction::Permit, FlowRule::matching(vec![Test::Limit(limit)]), "`limit`");
    let mut plan = three();
    plan.tables.push(plan.tables[0].clone());
    let error = evenkeel_engine::Engine::new(plan, Guests::default(), at(0)).unwrap_err();
    assert!(matches!(error, PlanError::Conflict { .. }), "{error}");
}
