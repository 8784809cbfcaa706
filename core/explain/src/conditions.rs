//! Conditions of rules, in the words in which rules are written.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use evenkeel_engine::plan::{
    AddressSet, ByteSet, Condition, FlowAction, FlowPlan, FlowRule, LimitKey, Plan, PortSet, Test,
};

use crate::frame::name;

/// Elements of a set that are shown; of longer ones the first few.
const SHOWN: usize = 4;

/// Where IPv4 addresses lie among the 128 bits.
const V4: u128 = 0xffff_0000_0000;

/// A condition as it would be written in a rule.
pub(crate) fn condition(condition: &Condition, plan: &Plan) -> String {
    let text = match &condition.test {
        Test::Interface(interface) => {
            let known = plan.interfaces.get(interface.index());
            format!("iface {}", known.map_or("?", |known| known.name.as_str()))
        }
        Test::Protocol(protocol) => format!("proto {}", name(protocol.0)),
        Test::Source(set) => format!("src {}", addresses(set)),
        Test::Destination(set) => format!("dst {}", addresses(set)),
        Test::SourcePort(set) => format!("srcport {}", ports(set)),
        Test::DestinationPort(set) => format!("dstport {}", ports(set)),
        Test::IcmpKind(set) => format!("icmptype {}", bytes(set)),
        Test::Flags { mask, set } => format!("tcpflags {}/{}", flags(*set), flags(*mask)),
        Test::Dscp(set) => format!("dscp {}", bytes(set)),
        Test::Limit(limit) => {
            let per = match limit.key {
                LimitKey::All => "",
                LimitKey::Source(..) => " per src",
                LimitKey::Destination(..) => " per dst",
            };
            let (count, burst, seconds) = (limit.count, limit.burst, limit.period.as_nanos() / 1_000_000_000);
            let period = if seconds == 1 { "s".to_owned() } else { format!("{seconds}s") };
            format!("limit {count}/{period} burst {burst}{per}")
        }
    };
    if condition.is_negated { format!("not {text}") } else { text }
}

/// A rule as it would be written.
pub(crate) fn rule(rule: &FlowRule, plan: &Plan) -> String {
    let mut text = String::from(if rule.is_match { "match" } else { "ignore" });
    for one in &rule.conditions {
        let _ = write!(text, " {}", condition(one, plan));
    }
    text
}

/// What a flow does with packets that its rules match.
pub(crate) fn action(flow: &FlowPlan, plan: &Plan) -> String {
    match flow.action {
        FlowAction::Permit => "permit".to_owned(),
        FlowAction::Deny => "deny".to_owned(),
        FlowAction::Skip => "skip".to_owned(),
        FlowAction::Director(place) => {
            format!("director {}", plan.directors.get(place).map_or("?", |director| director.name.as_str()))
        }
        FlowAction::Table(place) => {
            format!("table {}", plan.tables.get(place).map_or(0, |table| table.id))
        }
    }
}

fn addresses(set: &AddressSet) -> String {
    few(set.ranges(), |(first, last)| network(*first, *last))
}

/// A stretch of addresses: as a network where it is one.
fn network(first: u128, last: u128) -> String {
    let is_v4 = first >= V4 && last <= V4 + u128::from(u32::MAX);
    let show = |bits: u128| match u32::try_from(bits.wrapping_sub(V4)) {
        Ok(bits) if is_v4 => IpAddr::from(Ipv4Addr::from_bits(bits)),
        Ok(_) | Err(_) => IpAddr::from(Ipv6Addr::from_bits(bits)),
    };
    let size = (last - first).wrapping_add(1);
    let bits = if size == 0 { 128 } else { size.trailing_zeros() };
    let is_network =
        (size == 0 || size.is_power_of_two()) && (bits == 128 || first & (size.wrapping_sub(1)) == 0);
    if !is_network {
        return format!("{}-{}", show(first), show(last));
    }
    match (if is_v4 { 32 } else { 128 } - bits.min(128), is_v4) {
        (32, true) | (128, false) => show(first).to_string(),
        (length, _) => format!("{}/{length}", show(first)),
    }
}

fn ports(set: &PortSet) -> String {
    few(
        set.ranges(),
        |(first, last)| if first == last { first.to_string() } else { format!("{first}:{last}") },
    )
}

fn bytes(set: &ByteSet) -> String {
    let all: Vec<u8> = (0..=255).filter(|number| set.contains(*number)).collect();
    few(&all, u8::to_string)
}

fn flags(bits: u8) -> String {
    let names =
        [("fin", 1), ("syn", 2), ("rst", 4), ("psh", 8), ("ack", 16), ("urg", 32), ("ece", 64), ("cwr", 128)];
    let set: Vec<&str> = names.iter().filter(|(_, bit)| bits & bit != 0).map(|(name, _)| *name).collect();
    if set.is_empty() { "none".to_owned() } else { set.join(",") }
}

fn few<T>(all: &[T], show: impl Fn(&T) -> String) -> String {
    let mut text = all.iter().take(SHOWN).map(show).collect::<Vec<_>>().join(",");
    if all.len() > SHOWN {
        let _ = write!(text, " and {} more", all.len() - SHOWN);
    }
    if all.is_empty() { "nothing".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_engine::plan::Prefix;

    fn net(text: &str, length: u8) -> Prefix {
        Prefix { address: text.parse().unwrap(), length }
    }

    #[test]
    fn sets_of_addresses_are_written_as_networks_where_they_are_some() {
        let show = |networks: &[Prefix]| addresses(&AddressSet::of(networks));
        assert_eq!(show(&[net("10.0.0.0", 8)]), "10.0.0.0/8");
        assert_eq!(show(&[net("10.0.0.7", 32)]), "10.0.0.7");
        assert_eq!(show(&[net("0.0.0.0", 0)]), "0.0.0.0/0");
        assert_eq!(show(&[net("2001:db8::", 32)]), "2001:db8::/32");
        assert_eq!(show(&[net("10.0.0.0", 24), net("10.0.1.0", 25)]), "10.0.0.0-10.0.1.127");
        assert_eq!(show(&[]), "nothing");
        let many: Vec<Prefix> = (0..7).map(|last| net(&format!("10.0.{last}.1"), 32)).collect();
        assert_eq!(show(&many), "10.0.0.1,10.0.1.1,10.0.2.1,10.0.3.1 and 3 more");
    }

    #[test]
    fn a_rule_is_written_as_users_write_it() {
        let mut wanted =
            FlowRule::matching(vec![Test::source(net("10.0.0.0", 8)), Test::destination_port(80..=81)]);
        wanted.conditions[0].is_negated = true;
        assert_eq!(rule(&wanted, &Plan::empty()), "match not src 10.0.0.0/8 dstport 80:81");
    }
}
