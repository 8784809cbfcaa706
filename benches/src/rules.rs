//! Rules as filters of packets have them, and flows to ask them about: the same for every bench.

use std::net::Ipv4Addr;

use evenkeel_engine::InterfaceId;
use evenkeel_engine::plan::{FlowAction, FlowPlan, FlowRule, Prefix, Test};
use evenkeel_engine::policy::PolicyFlow;
use evenkeel_engine::wire::{Address, FiveTuple, Protocol};

/// What rule number `number` says, of four kinds in turn: a source network; one and a port; an address and a port; a wider
/// source network and a range of ports.
fn tests(number: u32) -> Vec<Test> {
    let network = |length: u8| {
        let bits = 0x0a00_0000 | number << 8;
        let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
        Prefix { address: Ipv4Addr::from_bits(bits & mask).into(), length }
    };
    let port = u16::try_from(1_024 + number % 60_000).unwrap_or(u16::MAX);
    let tcp = Test::Protocol(Protocol::TCP);
    match number % 4 {
        0 => vec![Test::source(network(24))],
        1 => vec![tcp, Test::source(network(24)), Test::destination_port(port..=port)],
        2 => vec![tcp, Test::destination(network(32)), Test::destination_port(443..=443)],
        _ => vec![tcp, Test::source(network(20)), Test::destination_port(port..=port.saturating_add(9))],
    }
}

/// So many rules, a flow for each, that deny; what none of them denies is permitted by one more.
#[must_use]
pub fn flows(count: u32) -> Vec<FlowPlan> {
    let flow =
        |name: String, action, tests| FlowPlan { name, action, rules: vec![FlowRule::matching(tests)] };
    let mut flows: Vec<_> =
        (0..count).map(|number| flow(format!("f{number}"), FlowAction::Deny, tests(number))).collect();
    flows.push(flow("rest".to_owned(), FlowAction::Permit, Vec::new()));
    flows
}

/// The same rules as commands of `nft -f`, in a chain of what comes in.
#[must_use]
pub fn nftables(count: u32) -> String {
    let mut text =
        String::from("table ip t {\n chain c {\n  type filter hook input priority 0; policy accept;\n");
    for number in 0..count {
        let source = Ipv4Addr::from_bits(0x0a00_0000 | number << 8);
        let wide = Ipv4Addr::from_bits((0x0a00_0000 | number << 8) & 0xffff_f000);
        let port = 1_024 + number % 60_000;
        let last = (port + 9).min(65_535);
        text.push_str(&match number % 4 {
            0 => format!("  ip saddr {source}/24 drop\n"),
            1 => format!("  ip saddr {source}/24 tcp dport {port} drop\n"),
            2 => format!("  ip daddr {source} tcp dport 443 drop\n"),
            _ => format!("  ip saddr {wide}/20 tcp dport {port}-{last} drop\n"),
        });
    }
    text.push_str(" }\n}\n");
    text
}

/// So many flows: half from anywhere, which the last rule permits, half from the networks of `rules` rules.
#[must_use]
pub fn asked(count: u32, rules: u32) -> Vec<PolicyFlow> {
    let mut state = 1_u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(state >> 32).unwrap_or(0)
    };
    let mut flow = |number: u32| {
        let near = 0x0a00_0000 | (random() % rules.max(1)) << 8 | 7;
        let source = if number.is_multiple_of(2) { 0x6400_0000 | random() >> 8 } else { near };
        let port = u16::try_from(1_024 + random() % 60_000).unwrap_or(80);
        let tuple = FiveTuple {
            source: Address::from(Ipv4Addr::from_bits(source)),
            destination: Address::v4([10, 0, 0, 3]),
            source_port: 40_000,
            destination_port: port,
            protocol: Protocol::TCP,
        };
        PolicyFlow { dscp: Some(0), ..PolicyFlow::new(0, tuple, InterfaceId(0)) }
    };
    (0..count).map(&mut flow).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_engine::policy::linear;
    use evenkeel_engine::policy::rules::Rules;
    use evenkeel_engine::wire::HashKey;

    #[test]
    fn the_rules_of_the_benches_decide_alike_both_ways_and_deny_some() {
        let flows = flows(500);
        let rules = Rules::new(flows.clone(), HashKey([1, 2]));
        let answers: Vec<_> = asked(400, 500)
            .iter()
            .map(|flow| (rules.evaluate(flow), linear::evaluate(&flows, flow)))
            .collect();
        assert!(answers.iter().all(|(one, other)| one == other));
        let denied = answers
            .iter()
            .filter(|(one, _)| *one == Some(evenkeel_engine::policy::PolicyVerdict::Deny))
            .count();
        assert!((40..300).contains(&denied), "{denied}");
        assert_eq!(nftables(500).lines().filter(|line| line.ends_with("drop")).count(), 500);
    }
}
