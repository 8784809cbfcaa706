//! The language of filters.
//!
//! ```text
//! filter  = term {or term}      term = factor {and factor}      factor = not factor | ( filter ) | quality
//! quality = src|dst|host|net ADDRESS[/BITS] | srcport|dstport|port N[-N] | proto tcp|udp|icmp|icmpv6
//!         | interface NAME | director NAME | server NAME | reason NAME|any
//! ```
//! `and` binds closer than `or`. Between two qualities without a word `and` is meant. `src` and `dst` before `port`,
//! `host` or `net` say which side.

use std::net::IpAddr;

use evenkeel_engine::DropReason;
use evenkeel_engine::journal::{Filter, Quality};
use evenkeel_engine::plan::{Plan, Prefix};
use evenkeel_engine::wire::Protocol;

use crate::packet::interface_of;
use crate::words::{Mistake, Word, Words, list};

/// How deep parentheses and `not` may be nested.
pub const DEPTH_MAX: usize = 32;

const FORM: &str = "src dst host net port srcport dstport proto interface director server reason,\njoined by and, \
                    or, not and parentheses";

/// Reads a filter on the packets of a forwarder with `plan`. An empty one is every packet.
///
/// # Errors
/// With the place of what is wrong, and what is allowed there.
pub fn filter(line: &str, plan: &Plan) -> Result<Filter, Mistake> {
    let mut words = Words::of(line, &['(', ')'])?;
    if words.peek().is_none() {
        return Ok(Filter::All);
    }
    let filter = either(&mut words, plan, 0)?;
    match words.next() {
        None => Ok(filter),
        Some(word) => Err(words.mistake(&word, format!("{} closes nothing", word.text), FORM)),
    }
}

fn either(words: &mut Words<'_>, plan: &Plan, depth: usize) -> Result<Filter, Mistake> {
    let mut all = vec![both(words, plan, depth)?];
    while words.accept("or") {
        all.push(both(words, plan, depth)?);
    }
    Ok(joined(all, Filter::Or))
}

fn both(words: &mut Words<'_>, plan: &Plan, depth: usize) -> Result<Filter, Mistake> {
    let mut all = vec![one(words, plan, depth)?];
    while let Some(word) = words.peek() {
        if matches!(word.text, "or" | ")") {
            break;
        }
        words.accept("and");
        all.push(one(words, plan, depth)?);
    }
    Ok(joined(all, Filter::And))
}

fn joined(mut all: Vec<Filter>, join: impl FnOnce(Vec<Filter>) -> Filter) -> Filter {
    match all.pop() {
        Some(only) if all.is_empty() => only,
        Some(last) => {
            all.push(last);
            join(all)
        }
        None => Filter::All,
    }
}

fn one(words: &mut Words<'_>, plan: &Plan, depth: usize) -> Result<Filter, Mistake> {
    let word = words.expect("a condition", FORM)?;
    if depth >= DEPTH_MAX {
        let reason = format!("nested more than {DEPTH_MAX} deep");
        return Err(words.mistake(&word, reason, "write it without so many parentheses"));
    }
    match word.text {
        "not" => Ok(Filter::Not(Box::new(one(words, plan, depth + 1)?))),
        "(" => {
            let inner = either(words, plan, depth + 1)?;
            let end = words.expect(")", FORM)?;
            if end.text == ")" { Ok(inner) } else { Err(words.mistake(&end, "expected )".to_owned(), FORM)) }
        }
        _ => quality(words, &word, plan).map(Filter::Has),
    }
}

fn quality(words: &mut Words<'_>, word: &Word<'_>, plan: &Plan) -> Result<Quality, Mistake> {
    Ok(match word.text {
        "src" | "dst" => {
            let is_source = word.text == "src";
            if words.accept("port") {
                let ports = ports(words)?;
                return Ok(if is_source {
                    Quality::SourcePort(ports)
                } else {
                    Quality::DestinationPort(ports)
                });
            }
            if !words.accept("host") {
                words.accept("net");
            }
            let net = network(words)?;
            if is_source { Quality::Source(net) } else { Quality::Destination(net) }
        }
        "host" | "net" => Quality::Host(network(words)?),
        "port" => Quality::Port(ports(words)?),
        "srcport" => Quality::SourcePort(ports(words)?),
        "dstport" => Quality::DestinationPort(ports(words)?),
        "proto" => Quality::Protocol(protocol(words)?),
        "tcp" => Quality::Protocol(Protocol::TCP),
        "udp" => Quality::Protocol(Protocol::UDP),
        "icmp" => Quality::Protocol(Protocol::ICMP),
        "icmpv6" => Quality::Protocol(Protocol::ICMPV6),
        "interface" | "iface" => {
            let help = format!("interfaces: {}", list(plan.interfaces.iter().map(|one| one.name.as_str())));
            let name = words.expect("the name of an interface", &help)?;
            let known = interface_of(plan, name.text);
            let unknown = || words.mistake(&name, format!("there is no interface {}", name.text), &help);
            Quality::Interface(known.ok_or_else(unknown)?)
        }
        "director" => {
            let known = || plan.directors.iter().map(|one| one.name.as_str());
            Quality::Director(one_of(words, "director", known)?)
        }
        "server" => {
            let servers = || plan.directors.iter().flat_map(|one| &one.servers);
            Quality::Server(one_of(words, "server", || servers().map(|one| one.name.as_str()))?)
        }
        "reason" => Quality::Dropped(reason(words)?),
        other => return Err(words.mistake(word, format!("{other} is no condition"), FORM)),
    })
}

/// A name that is one of those that are `known`.
fn one_of<'a, I: Iterator<Item = &'a str>>(
    words: &mut Words<'_>,
    what: &str,
    known: impl Fn() -> I,
) -> Result<String, Mistake> {
    let help = format!("{what}s: {}", list(known()));
    let name = words.expect(&format!("the name of a {what}"), &help)?;
    if known().any(|known| known == name.text) {
        return Ok(name.text.to_owned());
    }
    Err(words.mistake(&name, format!("there is no {what} {}", name.text), &help))
}

fn network(words: &mut Words<'_>) -> Result<Prefix, Mistake> {
    const HELP: &str = "such as 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32";
    let word = words.expect("an address", HELP)?;
    let (text, length) = word.text.split_once('/').map_or((word.text, None), |(ip, bits)| (ip, Some(bits)));
    let Ok(address) = text.parse::<IpAddr>() else {
        return Err(words.mistake(&word, format!("{} is no address", word.text), HELP));
    };
    let most = if address.is_ipv4() { 32 } else { 128 };
    let Some(length) = length else { return Ok(Prefix { address, length: most }) };
    match length.parse::<u8>() {
        Ok(length) if length <= most && !length_is_odd(word.text) => {
            let network = Prefix { address, length };
            let own = IpAddr::from(network.network());
            if own == address {
                return Ok(network);
            }
            let reason = format!("{} has bits beyond its length", word.text);
            Err(words.mistake(&word, reason, &format!("its network is {own}/{length}")))
        }
        _ => {
            let reason = format!("/{length} is no length of a network");
            Err(words.mistake(&word, reason, &format!("from /0 to /{most}")))
        }
    }
}

/// A length is digits alone, without a sign.
fn length_is_odd(text: &str) -> bool {
    text.rsplit('/').next().is_none_or(|length| !length.bytes().all(|digit| digit.is_ascii_digit()))
}

fn ports(words: &mut Words<'_>) -> Result<std::ops::RangeInclusive<u16>, Mistake> {
    const HELP: &str = "a port from 0 to 65535, or a range such as 8000-8010";
    let word = words.expect("a port", HELP)?;
    let (first, last) = word.text.split_once(['-', ':']).unwrap_or((word.text, word.text));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) if first <= last => Ok(first..=last),
        (Ok(_), Ok(_)) => Err(words.mistake(&word, format!("{} is upside down", word.text), HELP)),
        _ => Err(words.mistake(&word, format!("{} is no port", word.text), HELP)),
    }
}

fn protocol(words: &mut Words<'_>) -> Result<Protocol, Mistake> {
    const HELP: &str = "tcp, udp, icmp or icmpv6";
    let word = words.expect("a protocol", HELP)?;
    match word.text {
        "tcp" => Ok(Protocol::TCP),
        "udp" => Ok(Protocol::UDP),
        "icmp" => Ok(Protocol::ICMP),
        "icmpv6" => Ok(Protocol::ICMPV6),
        other => Err(words.mistake(&word, format!("{other} is no protocol"), HELP)),
    }
}

fn reason(words: &mut Words<'_>) -> Result<Option<DropReason>, Mistake> {
    const HELP: &str = "any, or a reason as `evenkeel ctl drops` lists them";
    let word = words.expect("a reason", HELP)?;
    if word.text == "any" {
        return Ok(None);
    }
    let known = DropReason::ALL.iter().find(|reason| reason.name() == word.text);
    let unknown = || words.mistake(&word, format!("{} is no reason for a drop", word.text), HELP);
    known.copied().map(Some).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_engine::InterfaceId;
    use evenkeel_engine::plan::{Binding, Builtin, DirectorPlan, InterfacePlan, Layer, ServerPlan};
    use proptest::prelude::*;

    fn plan() -> Plan {
        let bind = Binding::of("10.0.0.3".parse().unwrap(), 80, Protocol::TCP);
        let server = ServerPlan::new("s1", "10.0.3.20".parse().unwrap(), 80, 1);
        Plan {
            interfaces: vec![InterfacePlan::new("eth0", Layer::Ip)],
            directors: vec![DirectorPlan::new("web", bind, Builtin::RoundRobin, vec![server])],
            ..Plan::empty()
        }
    }

    fn source(text: &str, length: u8) -> Filter {
        Filter::Has(Quality::Source(Prefix { address: text.parse().unwrap(), length }))
    }

    #[test]
    fn and_binds_closer_than_or_and_parentheses_closest() {
        let port = |port| Filter::Has(Quality::Port(port..=port));
        let read = |line: &str| filter(line, &plan()).map_err(|mistake| mistake.to_string()).unwrap();
        let net = || source("10.0.0.0", 8);
        assert_eq!(read("src 10.0.0.0/8 and port 80"), Filter::And(vec![net(), port(80)]));
        assert_eq!(read("src 10.0.0.0/8 port 80"), Filter::And(vec![net(), port(80)]));
        let left = Filter::And(vec![port(80), net()]);
        assert_eq!(read("port 80 and src net 10.0.0.0/8 or port 81"), Filter::Or(vec![left, port(81)]));
        let either = Filter::Or(vec![port(80), port(81)]);
        assert_eq!(
            read("(port 80 or port 81) and not src host 10.0.0.0/8"),
            Filter::And(vec![either, Filter::Not(Box::new(net()))])
        );
        assert_eq!(read(""), Filter::All);
        assert_eq!(read("src port 1-5"), Filter::Has(Quality::SourcePort(1..=5)));
        assert_eq!(read("interface eth0"), Filter::Has(Quality::Interface(InterfaceId(0))));
        assert_eq!(read("reason no_server"), Filter::Has(Quality::Dropped(Some(DropReason::NoServer))));
        assert_eq!(read("server s1"), Filter::Has(Quality::Server("s1".to_owned())));
    }

    #[test]
    fn a_mistake_points_and_says_what_is_allowed() {
        for (line, column, says) in [
            ("src", 4, "an address is missing"),
            ("src 10.0.0.0/33", 5, "from /0 to /32"),
            ("src 10.0.0.1/8", 5, "its network is 10.0.0.0/8"),
            ("net 2001:db8::/+3", 5, "is no length"),
            ("port 80 and", 12, "a condition is missing"),
            ("port 80 and and port 81", 13, "and is no condition"),
            ("port 70000", 6, "70000 is no port"),
            ("port 90-80", 6, "upside down"),
            ("(port 80", 9, ") is missing"),
            ("port 80)", 8, ") closes nothing"),
            ("proto gre", 7, "tcp, udp, icmp or icmpv6"),
            ("director mail", 10, "directors: web"),
            ("server s9", 8, "servers: s1"),
            ("interface eth9", 11, "interfaces: eth0"),
            ("reason tired", 8, "is no reason for a drop"),
            ("colour red", 1, "colour is no condition"),
        ] {
            let mistake = filter(line, &plan()).unwrap_err();
            let text = mistake.to_string();
            assert_eq!(mistake.column(), column, "{text}");
            assert!(text.contains(says), "{text}");
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        }
        for deep in [format!("{}port 80", "not ".repeat(400)), "(".repeat(2_000)] {
            assert!(filter(&deep, &plan()).unwrap_err().to_string().contains("32 deep"));
        }
    }

    proptest! {
        #[test]
        fn any_line_is_a_filter_or_a_mistake(line in "(src|dst|port|and|or|not|\\(|\\)|80|10\\.0\\.0\\.0/8| |x){0,30}") {
            if let Err(mistake) = filter(&line, &plan()) {
                prop_assert!(mistake.to_string().contains("column"));
            }
        }
    }
}
