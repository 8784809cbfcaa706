//! The component `flowmgr` says of every packet what the native rules say that are compiled from the same text: of random
//! texts, and of the examples of the language.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::fmt::Write as _;

use crate::common::{Guard, guest};
use evenkeel_engine::plan::{OnFault, PolicyGuestPlan, PolicyPlan};
use evenkeel_engine::policy::rules::Rules;
use evenkeel_engine::policy::{PolicyFlow, PolicyVerdict};
use evenkeel_engine::wire::tcp::Flags;
use evenkeel_engine::wire::{Address, FiveTuple, HashKey, Protocol};
use evenkeel_engine::{InterfaceId, Plan};
use evenkeel_plugin_host::Mode;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

/// What the rules are about: interfaces, directors, tables.
const AROUND: &str = "[interface.eth0]\nkind = 'ethernet'\naddress = ['192.168.0.254/24']\n\
    [interface.eth1]\nkind = 'ethernet'\naddress = ['192.168.161.10/24', '2001:db8:9::1/64']\n\
    [[route]]\nto = '0.0.0.0/0'\nvia = '192.168.161.1'\ntable = 200\n\
    [[route]]\nto = '0.0.0.0/0'\nvia = '192.168.0.1'\ntable = 7\n\
    [director.web]\nbind = '10.0.0.3:80/tcp'\nserver = [{ name = 's1', address = '10.0.3.20' }]\n\
    [director.maildirect]\nserver = [{ name = 's1', address = '10.0.3.20' }]\n";

/// The seven examples of the language.
const EXAMPLES: &str = "\
flow ssh permit
  ignore not src 192.168.0.0/24
  match proto tcp dst 192.168.0.1 dstport 22
flow dns permit
  match proto udp dst 192.168.0.1 dstport 53
flow ping permit
  match proto icmp dst 192.168.0.1 icmptype 0
  ignore not src 192.168.0.0/24
  match proto icmp dst 192.168.0.1
flow mail director maildirect
  match proto tcp dst 192.168.0.2 dstport 110
  match proto tcp dst 192.168.0.2 dstport 143
  match proto tcp dst 192.168.0.2 dstport 25
outflow return-eth1 table 200 match proto tcp src 192.168.161.0/24 srcport 80
outflow return-eth1-too table 200 match iface eth1
flow alltherest deny
  match
";

fn plan(rules: &str) -> Plan {
    let text = format!("{AROUND}[policy]\nrules = '''\n{rules}'''\n");
    evenkeel_config::parse(&text, "flowmgr.toml").unwrap_or_else(|found| panic!("{found}\n{rules}")).plan
}

/// The native rules of a text and the component with the same text, about flows or about outflows.
fn both(rules: &str, is_out: bool) -> (Rules, Guard) {
    let plan = plan(rules);
    let flows = match (is_out, plan.policies.first()) {
        (true, _) => plan.outflows.clone(),
        (false, Some(PolicyPlan::Rules(flows))) => flows.clone(),
        (false, _) => panic!("no rules"),
    };
    let policy = PolicyGuestPlan {
        on_fault: OnFault::Deny,
        data: rules.to_owned(),
        ..PolicyGuestPlan::new("guard", guest("bundled:flowmgr", ""))
    };
    let guarded = match is_out {
        true => Plan { policies: vec![], outflow_guests: vec![policy], ..plan },
        false => Plan { policies: vec![PolicyPlan::Guest(policy)], ..plan },
    };
    (Rules::new(flows, HashKey([1, 2])), Guard::of(&guarded, Mode::Fuel))
}

/// Asks both about packets, in batches of 64.
fn compare(rules: &str, is_out: bool, packets: &[PolicyFlow]) -> Vec<PolicyVerdict> {
    let (mut native, mut guard) = both(rules, is_out);
    let mut all = Vec::new();
    for batch in packets.chunks(64) {
        let now = guard.now;
        let answers = guard.answer(batch);
        for (packet, answer) in batch.iter().zip(answers) {
            let verdict = native.decide_one(packet, now).map_or(PolicyVerdict::Skip, |(verdict, _)| verdict);
            assert_eq!((answer.verdict, answer.limit), (verdict, None), "{packet:?} in\n{rules}");
            all.push(verdict);
        }
    }
    assert_eq!(guard.policy.stats().faults, 0, "{:?}", guard.policy.take_fault());
    all
}

fn packet(protocol: Protocol, from: (&str, u16), to: (&str, u16)) -> PolicyFlow {
    let address = |text: &str| Address::from(text.parse::<std::net::IpAddr>().unwrap());
    let tuple = FiveTuple {
        source: address(from.0),
        destination: address(to.0),
        source_port: from.1,
        destination_port: to.1,
        protocol,
    };
    PolicyFlow { dscp: Some(0), ..PolicyFlow::new(7, tuple, InterfaceId(0)) }
}

#[test]
fn the_seven_examples_decide_as_they_say() {
    use PolicyVerdict::{Deny, Director, Permit, Skip, Table};
    const TCP: Protocol = Protocol::TCP;
    const UDP: Protocol = Protocol::UDP;
    let echo = |from, to, kind| PolicyFlow { icmp_kind: kind, ..packet(Protocol::ICMP, (from, 9), (to, 0)) };
    let cases = [
        (packet(TCP, ("192.168.0.7", 4_000), ("192.168.0.1", 22)), Permit),
        (packet(TCP, ("192.168.1.7", 4_000), ("192.168.0.1", 22)), Deny),
        (packet(TCP, ("192.168.0.7", 4_000), ("192.168.0.1", 23)), Deny),
        (packet(UDP, ("203.0.113.1", 4_000), ("192.168.0.1", 53)), Permit),
        (packet(TCP, ("203.0.113.1", 4_000), ("192.168.0.1", 53)), Deny),
        (echo("203.0.113.1", "192.168.0.1", 0), Permit),
        (echo("203.0.113.1", "192.168.0.1", 8), Deny),
        (echo("192.168.0.7", "192.168.0.1", 8), Permit),
        (packet(TCP, ("203.0.113.1", 4_000), ("192.168.0.2", 25)), Director(1)),
        (packet(TCP, ("203.0.113.1", 4_000), ("192.168.0.2", 110)), Director(1)),
        (packet(TCP, ("203.0.113.1", 4_000), ("192.168.0.2", 143)), Director(1)),
        (packet(TCP, ("203.0.113.1", 4_000), ("192.168.0.2", 144)), Deny),
        (packet(UDP, ("203.0.113.1", 4_000), ("192.168.0.2", 25)), Deny),
    ];
    let packets: Vec<_> = cases.iter().map(|(packet, _)| *packet).collect();
    let expected: Vec<_> = cases.iter().map(|(_, verdict)| *verdict).collect();
    assert_eq!(compare(EXAMPLES, false, &packets), expected);
    let by_eth1 = |flow: PolicyFlow| PolicyFlow { interface: InterfaceId(1), ..flow };
    let cases = [
        (packet(TCP, ("192.168.161.9", 80), ("203.0.113.1", 4_000)), Table(0)),
        (packet(TCP, ("192.168.161.9", 81), ("203.0.113.1", 4_000)), Skip),
        (packet(TCP, ("192.168.162.9", 80), ("203.0.113.1", 4_000)), Skip),
        (by_eth1(packet(UDP, ("192.168.162.9", 53), ("203.0.113.1", 4_000))), Table(0)),
    ];
    let packets: Vec<_> = cases.iter().map(|(packet, _)| *packet).collect();
    let expected: Vec<_> = cases.iter().map(|(_, verdict)| *verdict).collect();
    assert_eq!(compare(EXAMPLES, true, &packets), expected);
}

/// Random texts and packets that are likely to meet.
struct Dice(Xoshiro256PlusPlus);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0.next_u64() % most
    }

    fn chance(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }

    fn one<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len() as u64) as usize]
    }

    fn address(&mut self) -> String {
        let (a, b) = (self.below(3), self.below(5));
        if self.chance(5) { format!("2001:db8::{a}:{b}") } else { format!("10.0.{a}.{b}") }
    }

    fn network(&mut self) -> String {
        let a = self.below(3);
        match self.below(9) {
            0 => "@office".to_owned(),
            1 => format!("10.0.{a}.0/24"),
            2 => format!("10.0.{a}.0/255.255.255.0"),
            3 => "10.0.0.0/15".to_owned(),
            4 => "2001:db8::/64".to_owned(),
            5 => format!("2001:db8::{a}:0/112"),
            6 => format!("10.0.{a}.0/30"),
            _ => self.address(),
        }
    }

    fn networks(&mut self) -> String {
        let count = 1 + self.below(3);
        (0..count).map(|_| self.network()).collect::<Vec<_>>().join(",")
    }

    fn ports(&mut self) -> String {
        let part = |dice: &mut Self| match dice.below(4) {
            0 => "@web".to_owned(),
            1 => format!("{}:{}", 1 + dice.below(5), 6 + dice.below(4)),
            _ => (1 + dice.below(10)).to_string(),
        };
        let count = 1 + self.below(2);
        (0..count).map(|_| part(self)).collect::<Vec<_>>().join(",")
    }

    fn rule(&mut self, text: &mut String, is_out: bool) {
        text.push_str(if self.chance(4) { "  ignore" } else { "  match" });
        let protocol = self.below(5);
        if let Some(name) = ["tcp", "udp", "icmp", "icmpv6"].get(protocol as usize) {
            write!(text, " proto {name}").unwrap();
        }
        let mut put = |dice: &mut Self, of: u64, word: &str, value: &dyn Fn(&mut Self) -> String| {
            for not in ["", "not "] {
                if dice.chance(if not.is_empty() { of } else { of * 2 }) {
                    write!(text, " {not}{word} {}", value(dice)).unwrap();
                }
            }
        };
        put(self, 4, "iface", &|dice| dice.one(&["eth0", "eth1"]).to_owned());
        put(self, 2, "src", &Self::networks);
        put(self, 3, "dst", &Self::networks);
        if protocol < 2 {
            put(self, 3, "srcport", &Self::ports);
            put(self, 2, "dstport", &Self::ports);
        }
        if protocol == 0 {
            let flags = |dice: &mut Self| dice.one(&["syn", "syn/syn,ack", "/rst", "ack,syn"]).to_owned();
            put(self, 4, "tcpflags", &flags);
        }
        if protocol == 2 || protocol == 3 {
            put(self, 2, "icmptype", &|dice| dice.one(&["0", "8", "128,129", "8,13"]).to_owned());
        }
        if !is_out {
            put(self, 6, "dscp", &|dice| dice.one(&["ef", "af11", "cs1,46", "0"]).to_owned());
            let limit = |dice: &mut Self| {
                dice.one(&["2/s", "9/m burst 3 per src", "4/s per dst/24", "5/h per src/120"]).to_owned()
            };
            put(self, 9, "limit", &limit);
        }
        if self.chance(9) {
            text.push_str(" comment \"a # word\"");
        }
        text.push_str(if self.chance(9) { " # why\n" } else { "\n" });
    }

    fn text(&mut self, is_out: bool) -> String {
        let mut text = "set office 10.0.1.0/29 2001:db8::1:0/127\nset web 3 5:7\n".to_owned();
        for flow in 0..1 + self.below(6) {
            let kinds =
                ["permit", "deny", "skip", "table 200", "table 7", "", "director web", "director maildirect"];
            let kinds = if is_out { &kinds[..6] } else { &kinds[..] };
            let kind = self.one(kinds);
            let word = if is_out { "outflow" } else { "flow" };
            writeln!(text, "{word} f{flow} {kind}").unwrap();
            for _ in 0..1 + self.below(4) {
                self.rule(&mut text, is_out);
            }
        }
        text
    }

    fn packet(&mut self) -> PolicyFlow {
        let protocols = [Protocol::TCP, Protocol::TCP, Protocol::UDP, Protocol::ICMP, Protocol::ICMPV6];
        let protocol = protocols[self.below(5) as usize];
        let (source, destination) = (self.address(), self.address());
        let ports = (self.below(12) as u16, self.below(12) as u16);
        let flow = packet(protocol, (&source, ports.0), (&destination, ports.1));
        let kinds = [0, 8, 13, 128, 129];
        let points = [0, 8, 10, 46];
        let flags = if protocol == Protocol::TCP {
            Flags([2, 0x12, 0x10, 4][self.below(4) as usize])
        } else {
            Flags(0)
        };
        PolicyFlow {
            hash: self.0.next_u64(),
            interface: InterfaceId(self.below(2) as u16),
            icmp_kind: kinds[self.below(5) as usize],
            dscp: Some(points[self.below(4) as usize]),
            flags,
            ..flow
        }
    }
}

#[test]
fn random_texts_and_packets_agree() {
    let mut dice = Dice(Xoshiro256PlusPlus::seed_from_u64(42));
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    for round in 0..150 {
        let is_out = round % 4 == 3;
        let text = dice.text(is_out);
        let packets: Vec<_> = (0..256).map(|_| dice.packet()).collect();
        for verdict in compare(&text, is_out, &packets) {
            *seen.entry(format!("{verdict:?}")).or_default() += 1;
        }
    }
    // All verdicts have come, none of them by chance alone.
    assert_eq!(seen.len(), 7, "{seen:?}");
    assert!(seen.values().all(|count| *count > 500), "{seen:?}");
}
