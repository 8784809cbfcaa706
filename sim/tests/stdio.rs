//! The engine at the end of a pipe: every line gets one answer, whatever is in it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::net::Ipv4Addr;

use evenkeel_engine::plan::{
    Binding, Builtin, DirectorPlan, InterfacePlan, Layer, Plan, Prefix, RoutePlan, ServerPlan,
};
use evenkeel_engine::verdict::InterfaceId;
use evenkeel_engine::wire::Protocol;
use evenkeel_engine::wire::ethernet::MacAddress;
use evenkeel_engine::{Engine, Guests, Instant};
use evenkeel_sim::packet::{End, Header, Transport, build, view};
use evenkeel_sim::stdio::{LINE_MAX_BYTES, serve};
use serde_json::{Value, json};

const CLIENT: End = End { address: Ipv4Addr::new(198, 51, 100, 7), port: 4242 };
const VIP: End = End { address: Ipv4Addr::new(10, 0, 0, 3), port: 53 };
const SERVER: End = End { address: Ipv4Addr::new(10, 0, 3, 20), port: 5353 };

fn plan() -> Plan {
    let mut plan = Plan::empty();
    plan.interfaces.push(InterfacePlan::new("tun0", Layer::Ip));
    let destination = Prefix { address: Ipv4Addr::UNSPECIFIED.into(), length: 0 };
    plan.routes.push(RoutePlan { destination, gateway: None, interface: InterfaceId(0) });
    let servers = vec![ServerPlan::new("s1", SERVER.address.into(), SERVER.port, 1)];
    let bind = Binding::of(VIP.address.into(), VIP.port, Protocol::UDP);
    plan.directors.push(DirectorPlan::new("names", bind, Builtin::RoundRobin, servers));
    plan
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).unwrap()).collect()
}

fn datagram(from: End, to: End) -> String {
    hex(build(evenkeel_sim::packet::Packet::default(), (from, to), Header::Udp, 5, |place| place.fill(7))
        .bytes())
}

/// The answers to lines.
fn answers(input: &[u8]) -> Vec<Value> {
    answers_of(plan(), input)
}

fn answers_of(plan: Plan, input: &[u8]) -> Vec<Value> {
    let mut output = Vec::new();
    let mut command = |engine: &mut Engine, line: &str, now: Instant| match line {
        "flows" => Ok(json!(engine.flow_count())),
        "now" => Ok(json!(now.as_nanos())),
        other => Err(format!("no command {other}")),
    };
    serve(plan, Guests::default(), input, &mut output, &mut command).unwrap();
    String::from_utf8(output).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn answers_to(lines: &[Value]) -> Vec<Value> {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    answers(text.as_bytes())
}

#[test]
fn a_packet_is_translated_there_and_back() {
    let found = answers_to(&[
        json!({"t": 1000, "in": "tun0", "ip": datagram(CLIENT, VIP)}),
        json!({"t": 2000, "in": "tun0", "ip": datagram(SERVER, CLIENT)}),
    ]);
    let ends = [(CLIENT, SERVER), (VIP, CLIENT)];
    for (answer, (source, destination)) in found.iter().zip(ends) {
        assert_eq!(answer["out"].as_array().unwrap().len(), 1, "{answer}");
        assert_eq!((&answer["out"][0][0], &answer["drops"]), (&json!("tun0"), &json!({})));
        let bytes = unhex(answer["out"][0][1].as_str().unwrap());
        let view = view(&bytes).unwrap();
        assert_eq!((view.source, view.destination), (source.any(), destination.any()));
        assert_eq!((view.transport, view.payload), (Transport::Udp, &[7; 5][..]));
    }
    assert_eq!(found.len(), 2);
}

#[test]
fn drops_are_those_of_their_line() {
    let nobody = End { address: Ipv4Addr::new(10, 9, 9, 9), ..VIP };
    let found = answers_to(&[
        json!({"t": 1, "in": "tun0", "ip": datagram(CLIENT, nobody)}),
        json!({"t": 2, "in": "tun0", "ip": datagram(CLIENT, nobody)}),
        json!({"t": 3}),
        json!({"in": "tun0", "ip": ""}),
    ]);
    assert_eq!(found[0], json!({"out": [], "drops": {"no_director": 1}}));
    assert_eq!(found[1], json!({"out": [], "drops": {"no_director": 1}}));
    assert_eq!(found[2], json!({"out": [], "drops": {}}));
    assert_eq!(found[3], json!({"out": [], "drops": {"truncated": 1}}));
}

#[test]
fn time_ends_flows_when_it_passes() {
    let found = answers_to(&[
        json!({"t": 0, "in": "tun0", "ip": datagram(CLIENT, VIP)}),
        json!({"cmd": "flows"}),
        json!({"t": 299_000_000_000u64, "cmd": "flows"}),
        json!({"t": 302_000_000_000u64, "cmd": "flows"}),
    ]);
    let replies: Vec<_> = found[1..].iter().map(|answer| answer["reply"].clone()).collect();
    assert_eq!(replies, [json!(1), json!(1), json!(0)]);
}

#[test]
fn a_command_happens_at_the_time_of_its_line() {
    let found = answers_to(&[
        json!({"cmd": "now"}),
        json!({"t": 7, "cmd": "now"}),
        json!({"t": 90, "in": "tun0", "ip": datagram(CLIENT, VIP)}),
        json!({"cmd": "now"}),
        json!({"t": 302_000_000_000u64, "cmd": "now"}),
        json!({"t": 8, "cmd": "now"}),
        json!({"cmd": "now"}),
    ]);
    let replies: Vec<_> = found.iter().filter_map(|answer| answer.get("reply").cloned()).collect();
    let late = 302_000_000_000u64;
    // A packet and a time that has passed have no reply.
    assert_eq!(replies, [json!(0), json!(7), json!(90), json!(late), json!(late)]);
}

#[test]
fn bad_lines_are_answered_and_the_session_goes_on() {
    let good = json!({"t": 5, "in": "tun0", "ip": datagram(CLIENT, VIP)}).to_string();
    let bad: &[(&str, &str)] = &[
        ("", "EOF"),
        ("nonsense", "one JSON object"),
        ("[1, null, null, null, null]", "one JSON object"),
        ("{\"t\": -1}", "invalid"),
        ("{\"t\": 1.5}", "invalid"),
        ("{\"t\": 4}", "already"),
        ("{\"t\": 18446744073709551615}", "at most"),
        ("{}", "empty"),
        ("{\"t\": 6, \"colour\": 1}", "unknown field"),
        ("{\"in\": \"tun0\"}", "needs \"ip\""),
        ("{\"ip\": \"00\"}", "needs \"in\""),
        ("{\"in\": \"tun9\", \"ip\": \"00\"}", "there are: tun0, eth0"),
        ("{\"in\": \"tun0\", \"ip\": \"0\"}", "odd"),
        ("{\"in\": \"tun0\", \"ip\": \"0g\"}", "hexadecimal"),
        ("{\"in\": \"tun0\", \"ip\": \"00\", \"eth\": \"00\"}", "not both"),
        ("{\"in\": \"tun0\", \"eth\": \"00\"}", "use \"ip\""),
        ("{\"in\": \"eth0\", \"ip\": \"00\"}", "use \"eth\""),
        ("{\"in\": \"tun0\", \"cmd\": \"flows\"}", "stands alone"),
        ("{\"cmd\": \"dance\"}", "no command dance"),
        ("{\"t\": 6} {\"t\": 7}", "trailing"),
    ];
    let mut text = format!("{good}\n");
    for (line, _) in bad {
        text.push_str(line);
        text.push('\n');
    }
    text.push_str(&good);
    let mut plan = plan();
    plan.interfaces.push(InterfacePlan::new("eth0", Layer::Ethernet(MacAddress([2, 0, 0, 0, 0, 1]))));
    let found = answers_of(plan, text.as_bytes());
    assert_eq!(found.len(), bad.len() + 2);
    for (number, ((line, words), answer)) in bad.iter().zip(&found[1..]).enumerate() {
        assert!(answer["error"].as_str().unwrap().contains(words), "{line}: {answer}");
        assert_eq!(answer["line"], json!(number + 2));
    }
    let last = &found[found.len() - 1];
    assert_eq!(last["out"].as_array().unwrap().len(), 1, "nothing has happened in between: {last}");
}

#[test]
fn lines_that_are_no_text_or_without_end_are_survived() {
    let mut text = vec![0xff, 0xfe, b'\n'];
    text.extend(vec![b'['; LINE_MAX_BYTES * 3]);
    text.extend(b"\n");
    text.extend(vec![b'['; 200_000]);
    text.extend(b"\n{\"t\": 1}");
    let found = answers(&text);
    let errors: Vec<bool> = found.iter().map(|answer| answer.get("error").is_some()).collect();
    assert_eq!(errors, [true, true, true, false]);
}

#[test]
fn a_packet_too_large_for_ipv4_is_refused() {
    let found = answers_to(&[
        json!({"in": "tun0", "ip": "00".repeat(65_590)}),
        json!({"in": "tun0", "ip": "45".repeat(65_535)}),
    ]);
    assert!(found[0]["error"].as_str().unwrap().contains("at most"));
    assert!(found[1].get("error").is_none() && !found[1]["drops"].as_object().unwrap().is_empty());
}

const OWN_MAC: &str = "020000000001";
const CLIENT_MAC: &str = "020000000007";
const SERVER_MAC: &str = "020000000020";
const CLIENT_V6: &str = "20010db8000000000000000000000007";
const VIP_V6: &str = "fd000000000000000000000000000003";
const SERVER_V6: &str = "fd000003000000000000000000000020";

/// One Ethernet interface, one IPv6 service behind it.
fn ethernet() -> Plan {
    let mut plan = Plan::empty();
    let mut interface = InterfacePlan::new("eth0", Layer::Ethernet(MacAddress([2, 0, 0, 0, 0, 1])));
    interface.addresses.push(Prefix { address: "fd00:3::1".parse().unwrap(), length: 32 });
    plan.interfaces.push(interface);
    let gateway = Some("fd00:3::fe".parse().unwrap());
    let destination = Prefix { address: "::".parse().unwrap(), length: 0 };
    plan.routes.push(RoutePlan { destination, gateway, interface: InterfaceId(0) });
    let servers = vec![ServerPlan::new("s1", "fd00:3::20".parse().unwrap(), 53, 1)];
    let bind = Binding::of("fd00::3".parse().unwrap(), 53, Protocol::UDP);
    plan.directors.push(DirectorPlan::new("names", bind, Builtin::RoundRobin, servers));
    plan
}

/// A packet of IPv6 with its checksum at `at` of what the header is followed by.
fn ipv6(hops: u8, protocol: u8, ends: (&str, &str), mut body: Vec<u8>, at: usize) -> Vec<u8> {
    let (from, to) = (unhex(ends.0), unhex(ends.1));
    let length = u16::try_from(body.len()).unwrap();
    let all = [&from[..], &to, &length.to_be_bytes(), &[0, protocol], &body].concat();
    let mut sum: u32 =
        all.chunks(2).map(|two| u32::from(two[0]) << 8 | two.get(1).map_or(0, |low| u32::from(*low))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    body[at..at + 2].copy_from_slice(&(!u16::try_from(sum).unwrap()).to_be_bytes());
    let [high, low] = length.to_be_bytes();
    [&[0x60, 0, 0, 0, high, low, protocol, hops][..], &from, &to, &body].concat()
}

fn frame_v6(to: &str, from: &str, packet: &[u8]) -> String {
    format!("{to}{from}86dd{}", hex(packet))
}

/// Who has `target` says `mac`.
fn advertisement(target: &str, to: &str, mac: &str) -> Vec<u8> {
    let body = unhex(&format!("8800000060000000{target}0201{mac}"));
    ipv6(255, 58, (target, to), body, 2)
}

fn request_v6(hops: u8) -> Vec<u8> {
    ipv6(hops, 17, (CLIENT_V6, VIP_V6), unhex("109200350009000041"), 6)
}

#[test]
fn frames_of_ipv6_are_translated_and_wait_for_their_neighbour() {
    let own_v6 = "fd000003000000000000000000000001";
    let lines = [
        json!({"t": 0}),
        json!({"t": 1000, "in": "eth0", "eth": frame_v6(OWN_MAC, CLIENT_MAC, &request_v6(64))}),
        json!({"t": 2000, "in": "eth0",
            "eth": frame_v6(OWN_MAC, SERVER_MAC, &advertisement(SERVER_V6, own_v6, SERVER_MAC))}),
        json!({"t": 3000, "in": "eth0", "eth": frame_v6(OWN_MAC, CLIENT_MAC, &request_v6(1))}),
    ];
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let found = answers_of(ethernet(), text.as_bytes());
    // The start is announced.
    let announced = found[0]["out"][0][1].as_str().unwrap();
    assert!(announced.starts_with(&format!("333300000001{OWN_MAC}86dd6")), "{announced}");
    // The packet waits, the neighbour is asked for.
    let asked = found[1]["out"][0][1].as_str().unwrap();
    assert!(asked.starts_with(&format!("3333ff000020{OWN_MAC}86dd6")), "{asked}");
    assert_eq!((found[1]["out"].as_array().unwrap().len(), &found[1]["drops"]), (1, &json!({})));
    // It answers, and the packet goes on: one hop later, to the real server.
    let sent = found[2]["out"][0][1].as_str().unwrap();
    let expected = ipv6(63, 17, (CLIENT_V6, SERVER_V6), unhex("109200350009000041"), 6);
    assert_eq!(sent, frame_v6(SERVER_MAC, OWN_MAC, &expected));
    // An error is born here, and told of.
    assert_eq!(found[3]["drops"], json!({"ttl_exceeded": 1}));
    let error = found[3]["out"][0][1].as_str().unwrap();
    assert!(
        error.starts_with(&format!("{CLIENT_MAC}{OWN_MAC}86dd6")) && error[28..].contains("0300"),
        "{error}"
    );
}

#[test]
fn a_time_alone_lets_every_timer_act_at_its_own_time() {
    let lines = [
        json!({"t": 1000, "in": "eth0", "eth": frame_v6(OWN_MAC, CLIENT_MAC, &request_v6(64))}),
        json!({"t": 3_600_000_000_000u64, "cmd": "flows"}),
    ];
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let found = answers_of(ethernet(), text.as_bytes());
    // Nobody answers: the question is repeated, then the packet is given up, and later the flow ends.
    assert_eq!(found[1]["drops"], json!({"neighbour_unresolved": 1}));
    assert_eq!(found[1]["reply"], json!(0));
    let questions = found[1]["out"].as_array().unwrap();
    assert!((1..=10).contains(&questions.len()), "{questions:?}");
    assert!(questions.iter().all(|sent| sent[1].as_str().unwrap().starts_with("3333ff000020")));
}

#[test]
fn a_fragment_without_its_first_is_given_up_in_time() {
    let mut packet = unhex(&datagram(CLIENT, VIP));
    // More fragments of another datagram, at byte 80, with the header's sum mended.
    (packet[6], packet[7]) = (0x20, 10);
    packet.truncate(20);
    packet.extend([7; 8]);
    packet[3] = 28;
    (packet[10], packet[11]) = (0, 0);
    let mut sum: u32 = packet[..20].chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum();
    sum = (sum & 0xffff) + (sum >> 16);
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    let found =
        answers_to(&[json!({"t": 1, "in": "tun0", "ip": hex(&packet)}), json!({"t": 600_000_000_000u64})]);
    assert_eq!(found[0], json!({"out": [], "drops": {}}), "it waits");
    assert_eq!(found[1], json!({"out": [], "drops": {"fragment_timeout": 1}}));
}
