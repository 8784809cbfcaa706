//! A packet as it is written on a command line.
//!
//! ```text
//! tcp|udp ADDRESS:PORT > ADDRESS:PORT [syn ack fin rst psh urg] [len N] [ttl N] [dscp N] [df] [seq N] [acked N] [in NAME]
//! icmp    ADDRESS > ADDRESS [type N] [code N] [id N] [len N] [ttl N] [dscp N] [df] [in NAME]
//! ```

use std::net::{IpAddr, SocketAddr};

use evenkeel_engine::plan::{InterfacePlan, Layer, Plan};
use evenkeel_engine::wire::ethernet::MacAddress;
use evenkeel_engine::{InterfaceId, wire};

use crate::frame::{Build, Form};
use crate::words::{Mistake, Word, Words, list};

/// A packet to ask about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Where it comes in.
    pub interface: InterfaceId,
    /// The packet, with the link header that the interface has.
    pub bytes: Vec<u8>,
}

/// The largest payload that can be asked for, in bytes.
const PAYLOAD_MAX: u16 = 60_000;

const FORM: &str = "a packet is: tcp|udp ADDRESS:PORT > ADDRESS:PORT [syn ack ...] [in INTERFACE],\nor icmp \
                    ADDRESS > ADDRESS [type N]; IPv6 with a port is [2001:db8::1]:80";

/// The control bits of TCP that can be named.
const FLAGS: [(&str, u8); 6] = [("fin", 1), ("syn", 2), ("rst", 4), ("psh", 8), ("ack", 16), ("urg", 32)];

/// Reads a packet that comes in at an interface of `plan`. Without `in NAME` it is the only one there is.
///
/// # Errors
/// With the place of what is wrong, and what is allowed there.
pub fn packet(line: &str, plan: &Plan) -> Result<Asked, Mistake> {
    let mut words = Words::of(line, &['>'])?;
    let first = words.expect("the protocol", FORM)?;
    let mut form = match first.text {
        "tcp" => Form::Tcp { flags: 0, sequence: 1, acknowledgement: 0 },
        "udp" => Form::Udp,
        "icmp" | "icmpv6" => Form::Icmp { kind: None, code: 0, identifier: 1 },
        other => {
            let reason = format!("{other} is no protocol that can be asked about: tcp, udp, icmp or icmpv6");
            return Err(words.mistake(&first, reason, FORM));
        }
    };
    let has_ports = !matches!(form, Form::Icmp { .. });
    let source = end(&mut words, first.text, has_ports, "the source")?;
    let arrow = words.expect("> and the destination", FORM)?;
    if arrow.text != ">" {
        let reason = format!("expected > and the destination, found {}", arrow.text);
        return Err(words.mistake(&arrow, reason, FORM));
    }
    let place = words.peek();
    let destination = end(&mut words, first.text, has_ports, "the destination")?;
    if source.ip().is_ipv4() != destination.ip().is_ipv4() {
        let place = place.unwrap_or(first);
        let reason = "source and destination are of different families".to_owned();
        return Err(words.mistake(&place, reason, "both are IPv4, or both IPv6"));
    }
    if first.text == "icmpv6" && source.is_ipv4() {
        return Err(words.mistake(&first, "icmpv6 between IPv4 addresses".to_owned(), "write icmp"));
    }
    let mut build = Build { source, destination, ttl: 64, dscp: 0, is_whole: false, payload_bytes: 0, form };
    let mut interface = None;
    let mut has_flags = false;
    while let Some(word) = words.next() {
        let flag = FLAGS.iter().find(|(name, _)| *name == word.text);
        match (word.text, &mut form, flag) {
            (_, Form::Tcp { flags, .. }, Some((_, bit))) => {
                *flags |= bit;
                has_flags = true;
            }
            (_, _, Some(_)) => {
                return Err(words.mistake(&word, format!("{} is of tcp alone", word.text), ""));
            }
            ("in", _, _) => interface = Some(named(&mut words, plan)?),
            ("len", _, _) => build.payload_bytes = number(&mut words, "len", PAYLOAD_MAX.into())?,
            ("ttl", _, _) => build.ttl = number(&mut words, "ttl", 255)?,
            ("dscp", _, _) => build.dscp = number(&mut words, "dscp", 63)?,
            ("df", _, _) => build.is_whole = true,
            ("seq", Form::Tcp { sequence, .. }, _) => *sequence = number(&mut words, "seq", u32::MAX.into())?,
            ("acked", Form::Tcp { acknowledgement, .. }, _) => {
                *acknowledgement = number(&mut words, "acked", u32::MAX.into())?;
            }
            ("type", Form::Icmp { kind, .. }, _) => *kind = Some(number(&mut words, "type", 255)?),
            ("code", Form::Icmp { code, .. }, _) => *code = number(&mut words, "code", 255)?,
            ("id", Form::Icmp { identifier, .. }, _) => *identifier = number(&mut words, "id", 65_535)?,
            _ => return Err(unknown(&words, &word, &form)),
        }
    }
    if let (Form::Tcp { flags, .. }, false) = (&mut form, has_flags) {
        *flags = 2;
    }
    build.form = form;
    let interface = match interface {
        Some(interface) => interface,
        None => only(&words, line, plan)?,
    };
    Ok(framed(interface, plan, build.packet()))
}

/// A packet that is there already, as IP: what the interface has in front of it is put there.
#[must_use]
pub fn raw(interface: InterfaceId, plan: &Plan, ip: Vec<u8>) -> Asked {
    framed(interface, plan, ip)
}

fn framed(interface: InterfaceId, plan: &Plan, ip: Vec<u8>) -> Asked {
    let layer = plan.interfaces.get(interface.index()).map(|plan| plan.layer);
    let bytes = match layer {
        Some(Layer::Ethernet(own)) => {
            let kind: u16 = if ip.first().is_some_and(|first| first >> 4 == 6) { 0x86dd } else { 0x0800 };
            // Of nobody in particular: a locally administered address.
            let MacAddress(from) = MacAddress([2, 0, 0, 0, 0, 1]);
            [&own.0[..], &from, &kind.to_be_bytes(), &ip].concat()
        }
        Some(Layer::Ip) | None => ip,
    };
    Asked { interface, bytes }
}

/// An address, with a port where the protocol has some.
fn end(words: &mut Words<'_>, protocol: &str, has_ports: bool, what: &str) -> Result<SocketAddr, Mistake> {
    let word = words.expect(what, FORM)?;
    let whole: Result<SocketAddr, _> = word.text.parse();
    let bare: Result<IpAddr, _> = word.text.parse();
    match (whole, bare, has_ports) {
        (Ok(end), _, true) => Ok(end),
        (_, Ok(address), false) => Ok(SocketAddr::new(address, 0)),
        (Ok(_), _, false) => {
            let reason = format!("{protocol} has no ports: {what} is an address alone");
            Err(words.mistake(&word, reason, "leave out the colon and what follows; id N is the identifier"))
        }
        (_, Ok(address), true) => {
            let example = SocketAddr::new(address, 80);
            let reason = format!("{what} needs a port");
            Err(words.mistake(&word, reason, &format!("such as {example}")))
        }
        (Err(_), Err(_), _) => {
            let reason = format!("{} is no address{}", word.text, if has_ports { " and port" } else { "" });
            Err(words.mistake(&word, reason, FORM))
        }
    }
}

/// The interface that is named next.
fn named(words: &mut Words<'_>, plan: &Plan) -> Result<InterfaceId, Mistake> {
    let known = || list(plan.interfaces.iter().map(|one| one.name.as_str()));
    let word = words.expect("the name of an interface", &format!("interfaces: {}", known()))?;
    interface_of(plan, word.text).ok_or_else(|| {
        words.mistake(
            &word,
            format!("there is no interface {}", word.text),
            &format!("interfaces: {}", known()),
        )
    })
}

pub(crate) fn interface_of(plan: &Plan, name: &str) -> Option<InterfaceId> {
    let place = plan.interfaces.iter().position(|one: &InterfacePlan| one.name == name)?;
    u16::try_from(place).ok().map(InterfaceId)
}

/// The only interface of `plan`.
fn only(words: &Words<'_>, line: &str, plan: &Plan) -> Result<InterfaceId, Mistake> {
    if plan.interfaces.len() == 1 {
        return Ok(InterfaceId(0));
    }
    let known = list(plan.interfaces.iter().map(|one| one.name.as_str()));
    let end = Word { text: "", start: line.len() };
    Err(words.mistake(
        &end,
        "it is not said where it comes in".to_owned(),
        &format!("add: in NAME, of {known}"),
    ))
}

fn number<T: TryFrom<u64>>(words: &mut Words<'_>, what: &str, most: u64) -> Result<T, Mistake> {
    let help = format!("a number from 0 to {most}");
    let word = words.expect(&format!("the number of {what}"), &help)?;
    let number = word.text.parse::<u64>().ok().filter(|number| *number <= most);
    let number = number.and_then(|number| T::try_from(number).ok());
    number.ok_or_else(|| words.mistake(&word, format!("{} is no {what}", word.text), &help))
}

fn unknown(words: &Words<'_>, word: &Word<'_>, form: &Form) -> Mistake {
    let (reason, help) = match (form, word.text) {
        (Form::Tcp { .. } | Form::Udp, "type" | "code" | "id") => {
            (format!("{} is of icmp alone", word.text), String::new())
        }
        (Form::Udp | Form::Icmp { .. }, "seq" | "acked") => {
            (format!("{} is of tcp alone", word.text), String::new())
        }
        (Form::Tcp { .. }, other) => (
            format!("{other} is not known here"),
            "of tcp: syn ack fin rst psh urg, seq N, acked N, len N, ttl N, dscp N, df, in NAME".to_owned(),
        ),
        (Form::Udp, other) => {
            (format!("{other} is not known here"), "of udp: len N, ttl N, dscp N, df, in NAME".to_owned())
        }
        (Form::Icmp { .. }, other) => (
            format!("{other} is not known here"),
            "of icmp: type N, code N, id N, len N, ttl N, dscp N, df, in NAME".to_owned(),
        ),
    };
    words.mistake(word, reason, &help)
}

/// The address as the engine has it.
pub(crate) fn address(address: IpAddr) -> wire::Address {
    wire::Address::from(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plan(names: &[&str]) -> Plan {
        let interfaces = names.iter().map(|name| InterfacePlan::new(name, Layer::Ip)).collect();
        Plan { interfaces, ..Plan::empty() }
    }

    fn reads(line: &str) -> String {
        let plan = plan(&["eth0", "eth1"]);
        let asked = packet(line, &plan).map_err(|mistake| mistake.to_string()).unwrap();
        crate::summary(&asked, &plan)
    }

    fn fails(line: &str) -> (usize, String) {
        let mistake = packet(line, &plan(&["eth0", "eth1"])).unwrap_err();
        let text = mistake.to_string();
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        (mistake.column(), text)
    }

    #[test]
    fn a_packet_is_built_as_it_is_written() {
        for line in [
            "tcp 198.51.100.7:4242 > 10.0.0.3:80 syn in eth0",
            "tcp 198.51.100.7:4242 > 10.0.0.3:80 fin ack len 100 in eth1",
            "udp 198.51.100.7:53 > 10.0.0.3:53 len 12 ttl 1 dscp 46 df in eth0",
            "icmp 198.51.100.7 > 10.0.0.3 type 8 id 7 in eth0",
            "tcp [2001:db8::7]:4242 > [2001:db8::3]:80 syn in eth0",
            "udp [2001:db8::7]:4242 > [2001:db8::3]:80 len 1400 in eth0",
            "icmpv6 2001:db8::7 > 2001:db8::3 type 128 id 7 in eth0",
        ] {
            assert_eq!(reads(line), line);
        }
        assert_eq!(reads("tcp 1.2.3.4:1>5.6.7.8:2 in eth0"), "tcp 1.2.3.4:1 > 5.6.7.8:2 syn in eth0");
    }

    #[test]
    fn a_mistake_points_and_says_what_is_allowed() {
        for (line, column, says) in [
            ("", 1, "the protocol is missing"),
            ("sctp 1.2.3.4:1 > 5.6.7.8:2", 1, "sctp is no protocol"),
            ("tcp 1.2.3.4 > 5.6.7.8:2 in eth0", 5, "the source needs a port"),
            ("tcp 1.2.3.4:1 > 5.6.7.8 in eth0", 17, "such as 5.6.7.8:80"),
            ("icmp 1.2.3.4:7 > 5.6.7.8 in eth0", 6, "icmp has no ports"),
            ("tcp 1.2.3.400:7 > 5.6.7.8:2 in eth0", 5, "1.2.3.400:7 is no address and port"),
            ("tcp 1.2.3.4:70000 > 5.6.7.8:2 in eth0", 5, "is no address and port"),
            ("tcp 1.2.3.4:7 5.6.7.8:2 in eth0", 15, "expected > and the destination"),
            ("tcp 1.2.3.4:7 > [::1]:2 in eth0", 17, "different families"),
            ("tcp 1.2.3.4:7 > 5.6.7.8:2 in eth9", 30, "interfaces: eth0, eth1"),
            ("tcp 1.2.3.4:7 > 5.6.7.8:2 in", 29, "the name of an interface is missing"),
            ("tcp 1.2.3.4:7 > 5.6.7.8:2 syn", 30, "add: in NAME, of eth0, eth1"),
            ("tcp 1.2.3.4:7 > 5.6.7.8:2 type 8 in eth0", 27, "type is of icmp alone"),
            ("udp 1.2.3.4:7 > 5.6.7.8:2 syn in eth0", 27, "syn is of tcp alone"),
            ("udp 1.2.3.4:7 > 5.6.7.8:2 len 99999 in eth0", 31, "a number from 0 to 60000"),
            ("udp 1.2.3.4:7 > 5.6.7.8:2 dscp x in eth0", 32, "x is no dscp"),
            ("icmp ::1 > ::2 type 300 in eth0", 21, "a number from 0 to 255"),
            ("icmpv6 1.2.3.4 > 1.2.3.5 in eth0", 1, "write icmp"),
            ("udp ä > 5.6.7.8:2 in eth0", 5, "ä is no address and port"),
        ] {
            let (at, text) = fails(line);
            assert_eq!(at, column, "{text}");
            assert!(text.contains(says), "{text}");
        }
        assert!(fails(&"x".repeat(5_000)).1.contains("2048 is the most"));
    }

    #[test]
    fn where_there_is_one_interface_it_need_not_be_named() {
        assert_eq!(packet("udp 1.2.3.4:1 > 5.6.7.8:2", &plan(&["tun0"])).unwrap().interface, InterfaceId(0));
    }

    proptest! {
        #[test]
        fn any_line_is_a_packet_or_a_mistake_that_can_be_shown(line in "[a-z0-9:.>\\[\\] ä]{0,80}") {
            if let Err(mistake) = packet(&line, &plan(&["eth0"])) {
                prop_assert!(mistake.to_string().contains("column"));
            }
        }
    }
}
