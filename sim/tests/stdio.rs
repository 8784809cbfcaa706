//! The engine at the end of a pipe: every line gets one answer, whatever is in it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::net::Ipv4Addr;

use evenkeel_engine::plan::{
    Builtin, DirectorPlan, InterfacePlan, Layer, Mode, Plan, Prefix, RoutePlan, SchedulerPlan, ServerPlan,
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
    let layers = [("tun0", Layer::Ip), ("eth0", Layer::Ethernet(MacAddress([2, 0, 0, 0, 0, 1])))];
    for (name, layer) in layers {
        plan.interfaces.push(InterfacePlan {
            name: name.to_owned(),
            layer,
            addresses: Vec::new(),
            mtu_bytes: 1500,
        });
    }
    let destination = Prefix { address: Ipv4Addr::UNSPECIFIED.into(), length: 0 };
    plan.routes.push(RoutePlan { destination, gateway: None, interface: InterfaceId(0) });
    plan.directors.push(DirectorPlan {
        name: "names".to_owned(),
        address: VIP.address.into(),
        port: VIP.port,
        protocol: Protocol::UDP,
        mode: Mode::Nat { source: None },
        scheduler: SchedulerPlan::Builtin(Builtin::RoundRobin),
        servers: vec![ServerPlan {
            name: "s1".to_owned(),
            address: SERVER.address.into(),
            port: SERVER.port,
            weight: 1,
        }],
    });
    plan
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).unwrap()).collect()
}

fn datagram(from: End, to: End) -> String {
    hex(build(Vec::new(), (from, to), Header::Udp, 5, |place| place.fill(7)).bytes())
}

/// The answers to lines.
fn answers(input: &[u8]) -> Vec<Value> {
    let mut output = Vec::new();
    let mut command = |engine: &mut Engine, line: &str, now: Instant| match line {
        "flows" => Ok(json!(engine.flow_count())),
        "now" => Ok(json!(now.as_nanos())),
        other => Err(format!("no command {other}")),
    };
    serve(plan(), Guests::default(), input, &mut output, &mut command).unwrap();
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
        assert_eq!((view.source, view.destination), (source, destination));
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
    let found = answers(text.as_bytes());
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
        json!({"in": "tun0", "ip": "00".repeat(65_550)}),
        json!({"in": "tun0", "ip": "45".repeat(65_535)}),
    ]);
    assert!(found[0]["error"].as_str().unwrap().contains("at most"));
    assert!(found[1].get("error").is_none() && !found[1]["drops"].as_object().unwrap().is_empty());
}
