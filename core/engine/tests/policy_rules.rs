//! Compiled rules say what rules say that are walked one by one: in all small worlds, and in random ones.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]

use evenkeel_engine::plan::{
    AddressSet, ByteSet, Condition, FlowAction, FlowPlan, FlowRule, Limit, LimitKey, PortSet, Prefix, Test,
};
use evenkeel_engine::policy::linear::{self, Decision};
use evenkeel_engine::policy::rules::Rules;
use evenkeel_engine::policy::{PolicyFlow, PolicyVerdict};
use evenkeel_engine::time::Duration;
use evenkeel_engine::wire::tcp::Flags;
use evenkeel_engine::wire::{Address, FiveTuple, HashKey, Protocol};
use evenkeel_engine::{Instant, InterfaceId};
use proptest::prelude::*;

const KEY: HashKey = HashKey([1, 2]);

/// The rules with what a plain walk over them needs: limits are counted in the same way.
struct Model {
    flows: Vec<FlowPlan>,
    /// Flows taken so far by each limit, of everybody; its time stands still.
    taken: std::collections::BTreeMap<(usize, usize), u32>,
}

impl Model {
    fn decide(&mut self, flow: &PolicyFlow) -> Decision {
        let taken = &mut self.taken;
        linear::decide(
            &self.flows,
            flow,
            |id, limit| {
                let count = taken.entry((id.flow, id.rule)).or_insert(0);
                let is_within = *count < limit.burst;
                *count += u32::from(is_within);
                is_within
            },
            |_| {},
        )
    }
}

/// Asks both about every flow, and about every flow that is open already.
fn compare(flows: &[FlowPlan], asked: &[PolicyFlow]) {
    let mut model = Model { flows: flows.to_vec(), taken: std::collections::BTreeMap::new() };
    let mut rules = Rules::new(flows.to_vec(), KEY);
    for flow in asked {
        let decided = rules.decide_one(flow, Instant::ZERO).map(|(_, id)| id);
        let expected = match model.decide(flow) {
            Decision::By(id) => Some(id),
            Decision::Nobody | Decision::Unknown => None,
        };
        assert_eq!(decided, expected, "{flow:?} in {flows:#?}");
        assert_eq!(rules.evaluate(flow), linear::evaluate(flows, flow), "{flow:?} in {flows:#?}");
    }
}

fn network(text: &str, length: u8) -> Prefix {
    Prefix { address: text.parse().unwrap(), length }
}

fn flow(source: &str, destination: &str, ports: (u16, u16), protocol: Protocol) -> PolicyFlow {
    let address = |text: &str| Address::from(text.parse::<std::net::IpAddr>().unwrap());
    let (source, destination) = (address(source), address(destination));
    let (source_port, destination_port) = ports;
    let tuple = FiveTuple { source, destination, source_port, destination_port, protocol };
    PolicyFlow { dscp: Some(0), ..PolicyFlow::new(0, tuple, InterfaceId(0)) }
}

/// Every world of one flow with two rules, followed by a flow that denies the rest, over a few conditions that overlap,
/// with all packets that tell them apart.
#[test]
fn all_small_worlds_agree() {
    let tests = [
        None,
        Some(Test::source(network("10.0.0.0", 31))),
        Some(Test::source(network("10.0.0.1", 32))),
        Some(Test::destination_port(80..=81)),
        Some(Test::Protocol(Protocol::TCP)),
        Some(Test::Interface(InterfaceId(0))),
        Some(Test::Limit(Limit { count: 1, period: Duration::from_secs(1), burst: 2, key: LimitKey::All })),
    ];
    let choices: Vec<Option<Condition>> = tests
        .into_iter()
        .flat_map(|test| match test {
            None => vec![None],
            Some(test) => {
                [false, true].map(|is_negated| Some(Condition { is_negated, test: test.clone() })).to_vec()
            }
        })
        .collect();
    let mut packets = Vec::new();
    for source in ["10.0.0.0", "10.0.0.1", "10.0.0.2"] {
        for port in [80, 82] {
            for protocol in [Protocol::TCP, Protocol::UDP, Protocol::ICMP] {
                packets.push(flow(source, "10.1.0.1", (7, port), protocol));
                packets.push(PolicyFlow { interface: InterfaceId(1), ..packets[packets.len() - 1] });
            }
        }
    }
    let rest = FlowPlan {
        name: "rest".to_owned(),
        action: FlowAction::Deny,
        rules: vec![FlowRule::matching(vec![])],
    };
    let mut worlds = 0;
    for kinds in 0..4 {
        for one in &choices {
            for other in &choices {
                for third in &choices {
                    // Two limits in one rule would share the model's count.
                    if is_limit(one) && is_limit(third) {
                        continue;
                    }
                    let conditions =
                        |all: [&Option<Condition>; 2]| all.into_iter().flatten().cloned().collect();
                    let rule =
                        |is_match, conditions| FlowRule { is_match, conditions, comment: String::new() };
                    let rules = vec![
                        rule(kinds & 1 == 1, conditions([one, third])),
                        rule(kinds & 2 == 2, conditions([other, &None])),
                        FlowRule::matching(vec![Test::source(network("10.0.0.0", 24))]),
                    ];
                    let first = FlowPlan { name: "f".to_owned(), action: FlowAction::Permit, rules };
                    compare(&[first, rest.clone()], &packets);
                    worlds += 1;
                }
            }
        }
    }
    assert_eq!(worlds, 4 * 13 * (13 * 13 - 2 * 2));
}

fn is_limit(condition: &Option<Condition>) -> bool {
    condition.as_ref().is_some_and(|one| matches!(one.test, Test::Limit(_)))
}

fn prefix() -> impl Strategy<Value = Prefix> {
    let v4 = (0_u32..32, 0_u8..=8).prop_map(|(host, short)| {
        let bits = u32::from_be_bytes([10, 0, 0, 0]) | host;
        let length = 32 - short;
        let mask = u32::MAX.checked_shl(u32::from(short)).unwrap_or(0);
        Prefix { address: std::net::Ipv4Addr::from_bits(bits & mask).into(), length }
    });
    let v6 = (0_u128..16, 0_u8..=4).prop_map(|(host, short)| {
        let mask = u128::MAX.checked_shl(u32::from(short)).unwrap_or(0);
        let bits = 0xfc00 << 112 | host;
        Prefix { address: std::net::Ipv6Addr::from_bits(bits & mask).into(), length: 128 - short }
    });
    prop_oneof![8 => v4, 3 => v6, 1 => Just(network("::", 0)), 1 => Just(network("0.0.0.0", 0))]
}

fn ports() -> impl Strategy<Value = PortSet> {
    let range = (0_u16..20, 0_u16..4).prop_map(|(first, more)| first..=first + more);
    prop_oneof![
        prop::collection::vec(range, 0..5).prop_map(|ranges| PortSet::of(&ranges)),
        (0_u16..20).prop_map(|first| PortSet::of(&[first..=u16::MAX])),
    ]
}

fn test() -> impl Strategy<Value = Test> {
    let addresses = || prop::collection::vec(prefix(), 0..5).prop_map(|all| AddressSet::of(&all).into());
    let protocols = [Protocol::TCP, Protocol::UDP, Protocol::ICMP, Protocol::ICMPV6];
    prop_oneof![
        4 => addresses().prop_map(Test::Source),
        4 => addresses().prop_map(Test::Destination),
        3 => ports().prop_map(|ports| Test::DestinationPort(ports.into())),
        2 => ports().prop_map(|ports| Test::SourcePort(ports.into())),
        3 => prop::sample::select(protocols.to_vec()).prop_map(Test::Protocol),
        2 => (0_u16..3).prop_map(|number| Test::Interface(InterfaceId(number))),
        1 => prop::sample::select(vec![0_u8, 8, 128]).prop_map(|kind| Test::IcmpKind(ByteSet::of(&[kind]))),
        1 => (0_u8..4, 0_u8..4).prop_map(|(mask, set)| Test::Flags { mask, set: set & mask }),
        1 => (0_u8..3).prop_map(|point| Test::Dscp(ByteSet::of(&[point, 46]))),
        1 => (1_u32..5).prop_map(|burst| {
            Test::Limit(Limit { count: 1, period: Duration::from_secs(1), burst, key: LimitKey::All })
        }),
    ]
}

fn rule() -> impl Strategy<Value = FlowRule> {
    let condition = (prop::bool::weighted(0.3), test());
    let condition = condition.prop_map(|(is_negated, test)| Condition { is_negated, test });
    let conditions = prop::collection::vec(condition, 0..4).prop_map(|mut all| {
        // Two limits in one rule would share the model's count.
        let mut limits = 0;
        all.retain(|one| {
            limits += usize::from(matches!(one.test, Test::Limit(_)));
            !matches!(one.test, Test::Limit(_)) || limits == 1
        });
        all
    });
    (prop::bool::weighted(0.6), conditions).prop_map(|(is_match, conditions)| FlowRule {
        is_match,
        conditions,
        comment: String::new(),
    })
}

fn plan() -> impl Strategy<Value = Vec<FlowPlan>> {
    let actions = vec![
        FlowAction::Permit,
        FlowAction::Deny,
        FlowAction::Director(1),
        FlowAction::Table(0),
        FlowAction::Skip,
    ];
    let flow = (prop::sample::select(actions), prop::collection::vec(rule(), 0..16));
    let flow = flow.prop_map(|(action, rules)| FlowPlan { name: "f".to_owned(), action, rules });
    prop::collection::vec(flow, 0..8)
}

fn packet() -> impl Strategy<Value = PolicyFlow> {
    let address = || {
        prop_oneof![
            4 => (0_u32..40).prop_map(|host| Address::from(std::net::Ipv4Addr::from_bits(0x0a00_0000 | host))),
            1 => (0_u16..20).prop_map(|host| Address::from(std::net::IpAddr::from([0xfc00, 0, 0, 0, 0, 0, 0, host]))),
        ]
    };
    let protocol = prop::sample::select(vec![Protocol::TCP, Protocol::UDP, Protocol::ICMP, Protocol::ICMPV6]);
    let facts = (prop::sample::select(vec![0_u8, 8, 128]), 0_u8..4, prop::option::weighted(0.9, 0_u8..3));
    (address(), address(), 0_u16..25, 0_u16..25, protocol, 0_u16..3, facts).prop_map(
        |(
            source,
            destination,
            source_port,
            destination_port,
            protocol,
            interface,
            (icmp_kind, flags, dscp),
        )| {
            let tuple = FiveTuple { source, destination, source_port, destination_port, protocol };
            let flow = PolicyFlow::new(0, tuple, InterfaceId(interface));
            PolicyFlow { icmp_kind, flags: Flags(flags), dscp, ..flow }
        },
    )
}

/// How many random worlds: a few in every run, a million with `EVENKEEL_RULE_WORLDS=1000000`.
fn worlds() -> u32 {
    std::env::var("EVENKEEL_RULE_WORLDS").ok().and_then(|text| text.parse().ok()).unwrap_or(500)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: worlds(), ..ProptestConfig::default() })]

    #[test]
    fn random_worlds_agree(flows in plan(), asked in prop::collection::vec(packet(), 1..40)) {
        // Of a new flow everything is known; of an old one, the code point is not.
        let new: Vec<_> = asked.iter().map(|flow| PolicyFlow { dscp: flow.dscp.or(Some(0)), ..*flow }).collect();
        compare(&flows, &new);
        let rules = Rules::new(flows.clone(), KEY);
        for flow in &asked {
            prop_assert_eq!(rules.evaluate(flow), linear::evaluate(&flows, flow));
        }
    }
}

#[test]
fn ten_thousand_rules_are_told_apart_and_counted() {
    let rule = |number: u32| {
        let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 | number << 8);
        FlowRule::matching(vec![
            Test::source(Prefix { address: address.into(), length: 24 }),
            Test::Protocol(Protocol::TCP),
        ])
    };
    let flow_of = |number| FlowPlan {
        name: format!("f{number}"),
        action: FlowAction::Director(number as usize),
        rules: vec![rule(number)],
    };
    let flows: Vec<FlowPlan> = (0..10_000).map(flow_of).collect();
    let mut rules = Rules::new(flows, KEY);
    for number in [0_u32, 77, 9_999] {
        let source = std::net::Ipv4Addr::from_bits(0x0a00_0000 | number << 8 | 9).to_string();
        let decided = rules.decide_one(&flow(&source, "10.1.0.1", (1, 2), Protocol::TCP), Instant::ZERO);
        assert_eq!(decided.unwrap().0, PolicyVerdict::Director(number as u16));
    }
    let counted: Vec<_> = rules.counts().filter(|one| one.count > 0).map(|one| one.flow.to_owned()).collect();
    assert_eq!(counted, ["f0", "f77", "f9999"]);
}
