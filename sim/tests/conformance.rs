//! Recordings of other load balancers: what was recorded is reproduced, what differs is found and named, and what is no
//! recording is refused at its place.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests"
)]

use std::collections::BTreeSet;
use std::path::Path;

use evenkeel_sim::conformance::intended::RULES;
use evenkeel_sim::conformance::{
    Options, RecordingError, Report, haproxy_source, ipvs_packets, ipvs_scheduling, katran,
};
use serde_json::{Value, json};

/// A recording beside the repository, or nothing where it is not there.
fn recording(name: &str) -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared").join(name);
    let text = std::fs::read_to_string(&path).ok();
    if text.is_none() {
        eprintln!("SKIPPED: there is no recording {}", path.display());
    }
    text
}

fn rules_of(report: &Report) -> Vec<&'static str> {
    report.rules.keys().copied().collect()
}

#[test]
fn a_linux_director_is_reproduced_frame_by_frame() {
    let Some(text) = recording("goldens/ipvs_packets.json") else { return };
    let report = ipvs_packets(&text, Options::default()).unwrap();
    assert!(report.is_conforming(), "{}", report.to_text());
    assert_eq!(report.agree + report.intended, report.compared);
    assert!(report.agree * 10 >= report.compared * 9, "{}", report.to_text());
    let expected =
        ["gue-source-port", "mapped-port", "own-packets-whole", "quoted-checksum", "udp-without-checksum"];
    assert_eq!(rules_of(&report), expected);
    let report = ipvs_packets(&text, Options { as_recorded: true }).unwrap();
    assert!(report.is_conforming() && !rules_of(&report).contains(&"udp-without-checksum"));
}

#[test]
fn a_linux_director_decides_as_recorded() {
    let Some(text) = recording("goldens/ipvs_scheduling.json") else { return };
    let report = ipvs_scheduling(&text, Options::default()).unwrap();
    assert_eq!((report.agree, report.differ), (report.compared, 0), "{}", report.to_text());
    assert!(report.compared > 800, "{}", report.to_text());
}

#[test]
fn haproxy_decides_as_recorded() {
    let Some(text) = recording("goldens/haproxy_source.json") else { return };
    let report = haproxy_source(&text, Options::default()).unwrap();
    assert_eq!((report.agree, report.differ), (report.compared, 0), "{}", report.to_text());
    assert!(report.compared >= 4800, "{}", report.to_text());
}

#[test]
fn katrans_packets_are_reproduced() {
    let Some(text) = recording("vectors/katran.json") else { return };
    for as_recorded in [false, true] {
        let report = katran(&text, Options { as_recorded }).unwrap();
        assert!(report.is_conforming(), "{}", report.to_text());
        let skipped: u64 = report.not_applicable.values().sum();
        let all: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(report.compared + skipped, all.as_array().unwrap().len() as u64);
        assert!(report.compared >= 64, "{}", report.to_text());
    }
}

/// A recording that was changed in one byte of what the director sent must not agree in that frame.
#[test]
fn no_changed_frame_passes() {
    let Some(text) = recording("goldens/ipvs_packets.json") else { return };
    let all: Value = serde_json::from_str(&text).unwrap();
    for name in ["nat_dnat_only_one_nic_gw_lb", "tun_ipip_udp", "dr_tcp"] {
        let scenario = &all[name];
        let frames = scenario["frames"].as_array().unwrap();
        let is_sent = |frame: &Value| frame[1] == "lb.eth0" && frame[2] == "out";
        let number = frames.iter().rposition(is_sent).unwrap();
        let digits = frames[number][3].as_str().unwrap().to_owned();
        for byte in 0..digits.len() / 2 {
            let mut changed = scenario.clone();
            let at = byte * 2;
            let value = u8::from_str_radix(&digits[at..at + 2], 16).unwrap() ^ 0x10;
            let text = format!("{}{value:02x}{}", &digits[..at], &digits[at + 2..]);
            changed["frames"][number][3] = json!(text);
            let report = ipvs_packets(&json!({name: changed}).to_string(), Options::default()).unwrap();
            assert!(!report.is_conforming(), "{name}, byte {byte}: {}", report.to_text());
        }
    }
}

// Scenarios that nobody recorded: built here by the rules of the format, with other clients, ports, sizes and protocols.

const CLIENT: [u8; 4] = [192, 0, 2, 11];
const VIP: [u8; 4] = [10, 0, 0, 3];
const ROUTER_MAC: &str = "020000000201";
const OWN_MAC: &str = "020000000300";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sum(bytes: &[u8]) -> [u8; 2] {
    let mut sum: u32 =
        bytes.chunks(2).map(|two| u32::from(two[0]) << 8 | two.get(1).map_or(0, |low| u32::from(*low))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).unwrap()).to_be_bytes()
}

fn ipv4(ttl: u8, protocol: u8, id: u16, flags: u8, ends: ([u8; 4], [u8; 4]), body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + body.len()).unwrap().to_be_bytes();
    let id = id.to_be_bytes();
    let mut header = vec![0x45, 0, length[0], length[1], id[0], id[1], flags, 0, ttl, protocol, 0, 0];
    header.extend(ends.0);
    header.extend(ends.1);
    let check = sum(&header);
    header[10..12].copy_from_slice(&check);
    header.extend(body);
    header
}

/// A datagram or segment between `ends`, with `size` bytes.
fn packet(protocol: u8, ttl: u8, ends: (([u8; 4], u16), ([u8; 4], u16)), size: usize) -> Vec<u8> {
    let ((from, from_port), (to, to_port)) = ends;
    let mut body = [from_port.to_be_bytes(), to_port.to_be_bytes()].concat();
    let at = if protocol == 17 {
        body.extend(u16::try_from(8 + size).unwrap().to_be_bytes());
        body.extend([0, 0]);
        6
    } else {
        // A SYN.
        body.extend([0, 0, 0, 9, 0, 0, 0, 0, 0x50, 2, 0x20, 0, 0, 0, 0, 0]);
        16
    };
    body.extend((0..size).map(|number| u8::try_from(number % 251).unwrap()));
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    let check = sum(&[&from[..], &to, &[0, protocol], &length, &body].concat());
    body[at..at + 2].copy_from_slice(&check);
    ipv4(ttl, protocol, 77, 0x40, (from, to), &body)
}

fn frame(to: &str, from: &str, packet: &[u8]) -> String {
    format!("{to}{from}0800{}", hex(packet))
}

fn arp(operation: u8, to: &str, sender: (&str, [u8; 4]), target: (&str, [u8; 4])) -> String {
    let (mac, address) = (sender.0, hex(&sender.1));
    format!("{to}{mac}0806000108000604{:04x}{mac}{address}{}{}", operation, target.0, hex(&target.1))
}

/// Frames of one request: the router asks for the VIP, the client's packet comes, the director asks for the real server, and
/// sends `sent` to it.
fn request(
    asks_as: [u8; 4],
    server: (u8, [u8; 4]),
    nic: u8,
    came: &[u8],
    sent: &[u8],
) -> Vec<(u64, String, &'static str, String)> {
    let server_mac = format!("0200000000{:02x}00", server.0).replace("0200000000", "02000000");
    let own = format!("0200000003{nic:02x}");
    let far = format!("lb.eth{nic}");
    let router = [10, 0, 0, 1];
    let (nobody, all) = ("000000000000", "ffffffffffff");
    vec![
        (10, "lb.eth0".to_owned(), "in", arp(1, all, (ROUTER_MAC, router), (nobody, VIP))),
        (20, "lb.eth0".to_owned(), "out", arp(2, ROUTER_MAC, (OWN_MAC, VIP), (ROUTER_MAC, router))),
        (30, "lb.eth0".to_owned(), "in", frame(OWN_MAC, ROUTER_MAC, came)),
        (40, far.clone(), "out", arp(1, all, (&own, asks_as), (nobody, server.1))),
        (50, far.clone(), "in", arp(2, &own, (&server_mac, server.1), (&own, asks_as))),
        (60, far, "out", frame(&server_mac, &own, sent)),
    ]
}

fn replay(name: &str, frames: &[(u64, String, &'static str, String)]) -> Report {
    ipvs_packets(&json!({name: {"frames": frames}}).to_string(), Options::default()).unwrap()
}

#[test]
fn scenarios_of_every_family_are_read_from_their_names_and_frames() {
    let own = [10, 0, 0, 2];
    for (protocol, port, size) in [(17, 8000, 5), (6, 8000, 0), (17, 8000, 1000), (6, 8000, 64)] {
        let client = (CLIENT, 40_007);
        let came = packet(protocol, 63, (client, (VIP, port)), size);
        let hop = packet(protocol, 62, (client, (VIP, port)), size);
        for (server, last) in [(4, 20), (5, 21)] {
            let near = (server, [10, 0, 0, last]);
            let mut reports = vec![replay("dr_other", &request(own, near, 0, &came, &hop))];
            let ipip = ipv4(62, 4, 0, 0x40, (own, near.1), &hop);
            reports.push(replay("tun_ipip_other", &request(own, near, 0, &came, &ipip)));
            let gre = ipv4(62, 47, 0, 0x40, (own, near.1), &[&[0, 0, 8, 0], &hop[..]].concat());
            reports.push(replay("tun_gre_other", &request(own, near, 0, &came, &gre)));
            let translated = packet(protocol, 62, (client, (near.1, port)), size);
            reports.push(replay("nat_dnat_only_other", &request(own, near, 0, &came, &translated)));
            let translated = packet(protocol, 62, ((VIP, client.1), (near.1, 9000)), size);
            reports.push(replay("nat_full_other_port", &request(VIP, near, 0, &came, &translated)));
            let far = (server, [10, 0, 3, last]);
            let translated = packet(protocol, 62, ((VIP, client.1), (far.1, port)), size);
            reports.push(replay("nat_full_two_nic_gw_router", &request(VIP, far, 1, &came, &translated)));
            for report in reports {
                assert_eq!((report.agree, report.compared), (3, 3), "{}", report.to_text());
            }
        }
    }
}

#[test]
fn an_mtu_is_read_from_the_errors_that_the_director_sent() {
    let came = packet(17, 63, ((CLIENT, 40_007), (VIP, 8000)), 1472);
    let quote = &came[..548];
    let mut message = [&[3, 4, 0, 0, 0, 0, 0x05, 0xc8][..], quote].concat();
    let check = sum(&message);
    message[2..4].copy_from_slice(&check);
    let mut error = ipv4(64, 1, 0x4711, 0, (VIP, CLIENT), &message);
    error[1] = 0xc0;
    (error[10], error[11]) = (0, 0);
    let check = sum(&error[..20]);
    error[10..12].copy_from_slice(&check);
    let mut frames = request([10, 0, 0, 2], (4, [10, 0, 0, 20]), 0, &came, &[]);
    frames.truncate(3);
    frames.push((40, "lb.eth0".to_owned(), "out", frame(ROUTER_MAC, OWN_MAC, &error)));
    let report = replay("tun_ipip_too_big", &frames);
    assert!(report.is_conforming(), "{}", report.to_text());
    assert_eq!(rules_of(&report), ["own-packets-whole"]);
}

#[test]
fn frames_that_are_missing_or_too_many_are_told() {
    let client = (CLIENT, 40_007);
    let came = packet(17, 63, (client, (VIP, 8000)), 5);
    let hop = packet(17, 62, (client, (VIP, 8000)), 5);
    let whole = request([10, 0, 0, 2], (4, [10, 0, 0, 20]), 0, &came, &hop);
    let mut more = whole.clone();
    more.push((70, "lb.eth0".to_owned(), "out", frame("020000000400", OWN_MAC, &hop)));
    let report = replay("dr_more", &more);
    assert_eq!((report.differ, report.agree), (1, 3));
    assert!(
        report.to_text().contains("not sent: UDP 192.0.2.11:40007 to 10.0.0.3:8000"),
        "{}",
        report.to_text()
    );
    let mut less = whole;
    less.remove(1);
    let report = replay("dr_less", &less);
    assert_eq!((report.differ, report.agree), (1, 2));
    assert!(report.to_text().contains("sent besides: ARP answer of 10.0.0.3"), "{}", report.to_text());
}

#[test]
fn a_difference_is_shown_field_by_field_and_byte_by_byte() {
    let client = (CLIENT, 40_007);
    let came = packet(17, 63, (client, (VIP, 8000)), 5);
    let wrong = packet(17, 61, (client, (VIP, 8000)), 5);
    let report = replay("dr_wrong", &request([10, 0, 0, 2], (4, [10, 0, 0, 20]), 0, &came, &wrong));
    let text = report.to_text();
    assert!(text.contains("DIFFERS dr_wrong, lb.eth0 out 3, 60 us: ip.ttl, ip.checksum differ"), "{text}");
    assert!(text.contains("    ip.ttl       61        62\n"), "{text}");
    assert!(text.contains("AGREE 2 of 3\n"), "{text}");
    let json = report.to_json();
    assert_eq!(
        json["differences"][0]["fields"][0],
        json!({"field": "ip.ttl", "recorded": "61", "ours": "62"})
    );
    assert_eq!((&json["is_conforming"], &json["differ"]), (&json!(false), &json!(1)));
    assert!(json["differences"][0]["ours"].as_str().unwrap().starts_with("020000000400"));
}

#[test]
fn what_is_no_recording_is_refused_at_its_place() {
    let refused = |text: &str| ipvs_packets(text, Options::default()).unwrap_err();
    let place = |text: &str| {
        let error = refused(text);
        let RecordingError::Format { position, .. } = error else { panic!("{error}") };
        position
    };
    let whole = json!({"dr_x": {"frames": [[1, "lb.eth0", "in", "00"]]}}).to_string();
    assert!(ipvs_packets(&whole, Options::default()).is_ok());
    for cut in 0..whole.len() {
        let error = refused(&whole[..cut]);
        assert!(matches!(error, RecordingError::Json { line: 1, .. }), "{error}");
    }
    assert_eq!(place("[]"), "the file");
    assert_eq!(place("{\"x\": {}}"), "x.frames");
    for (frame, at) in [
        (json!([1, "lb.eth0", "in"]), ""),
        (json!({"time": 1}), ""),
        (json!([-1, "lb.eth0", "in", "00"]), "[0]"),
        (json!([u64::MAX, "lb.eth0", "in", "00"]), "[0]"),
        (json!(["1", "lb.eth0", "in", "00"]), "[0]"),
        (json!([1, "lb", "in", "00"]), "[1]"),
        (json!([1, "moon.eth0", "in", "00"]), "[1]"),
        (json!([1, "lb.wlan0", "in", "00"]), "[1]"),
        (json!([1, "lb.eth99999", "in", "00"]), "[1]"),
        (json!([1, "lb.eth0", "across", "00"]), "[2]"),
        (json!([1, "lb.eth0", "in", "0"]), "[3]"),
        (json!([1, "lb.eth0", "in", "0g"]), "[3]"),
        (json!([1, "lb.eth0", "in", null]), "[3]"),
    ] {
        let text = json!({"x": {"frames": [[1, "cl.eth0", "in", "00"], frame]}}).to_string();
        assert_eq!(place(&text), format!("x.frames[1]{at}"), "{text}");
    }
    let refused = |value: Value| katran(&value.to_string(), Options::default()).unwrap_err().to_string();
    assert!(refused(json!({})).starts_with("the file: expected a list of vectors"));
    assert!(refused(json!([{}])).starts_with("[0].id: expected a text, found null"));
    let vector =
        json!({"id": "1", "suite": "base", "list": "l", "class": "drop", "in_frame": "zz", "out_frame": ""});
    assert!(refused(json!([vector])).starts_with("[0].in_frame: expected an even number of hexadecimal"));
}

#[test]
fn packets_for_katran_are_judged_by_their_service() {
    let front = |packet: &[u8]| frame("020000000000", "010000000000", packet);
    let vector = |class: &str, came: &[u8], out: &[u8]| {
        json!({"id": class, "suite": "base", "list": "l", "class": class, "in_frame": front(came),
            "out_frame": frame("0000deadbeaf", "020000000000", out), "expect": {"encap": "ipip"}})
    };
    let client = ([198, 51, 100, 9], 5000);
    let came = packet(6, 60, (client, ([10, 200, 1, 2], 4711)), 0);
    let mut outer = ipv4(64, 4, 0, 0x40, ([172, 16, 1, 1], [10, 0, 0, 2]), &came);
    let judge = |vectors: Value| katran(&vectors.to_string(), Options::default()).unwrap();
    let report = judge(json!([vector("encap", &came, &outer), vector("encap", &came, &outer)]));
    assert_eq!((report.agree, report.compared), (2, 2), "{}", report.to_text());
    // Another outer type of service, or a drop, is none of what is meant.
    outer[1] = 0x10;
    let report = judge(json!([vector("encap", &came, &outer), vector("drop", &came, &came)]));
    assert_eq!((report.agree, report.differ), (0, 2), "{}", report.to_text());
    assert!(report.to_text().contains("ip.tos differs"), "{}", report.to_text());
    let stranger = packet(17, 60, (client, ([10, 9, 9, 9], 53)), 9);
    let passed = json!({"id": "p", "suite": "base", "list": "l", "class": "pass-up-unchanged",
        "in_frame": front(&stranger), "out_frame": front(&stranger)});
    assert_eq!(judge(json!([passed])).agree, 1);
    let mut unknown = vector("encap", &came, &outer);
    unknown["suite"] = json!("new");
    assert_eq!(judge(json!([unknown])).not_applicable.values().sum::<u64>(), 1);
}

#[test]
fn any_bytes_in_a_recording_are_survived() {
    let client = (CLIENT, 40_007);
    let came = packet(17, 63, (client, (VIP, 8000)), 5);
    let hop = packet(17, 62, (client, (VIP, 8000)), 5);
    let whole = request([10, 0, 0, 2], (4, [10, 0, 0, 20]), 0, &came, &hop);
    for number in 0..whole.len() {
        for length in 0..whole[number].3.len() / 2 {
            let mut cut = whole.clone();
            cut[number].3.truncate(length * 2);
            let report = replay("dr_cut", &cut);
            assert!(!report.is_conforming(), "frame {number} of {length} bytes: {}", report.to_text());
        }
    }
}

#[test]
fn the_differences_that_are_meant_are_a_page() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/differences.md");
    let page = std::fs::read_to_string(path).unwrap();
    let rows: BTreeSet<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
    assert_eq!(rows.len(), RULES.len());
    for rule in RULES {
        let row = format!(
            "| `{}` | {} | {} | {} | {} |",
            rule.id, rule.recorded, rule.ours, rule.reason, rule.option
        );
        assert!(rows.contains(&row[..]), "{row}");
    }
}

#[test]
fn every_key_of_the_report_is_described() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/reference/conformance.md");
    let page = std::fs::read_to_string(path).unwrap();
    let client = (CLIENT, 40_007);
    let came = packet(17, 63, (client, (VIP, 8000)), 5);
    let wrong = packet(17, 61, (client, (VIP, 8000)), 5);
    let report = replay("dr_wrong", &request([10, 0, 0, 2], (4, [10, 0, 0, 20]), 0, &came, &wrong)).to_json();
    let objects =
        [&report, &report["cases"][0], &report["differences"][0], &report["differences"][0]["fields"][0]];
    for key in objects.into_iter().flat_map(|object| object.as_object().unwrap().keys()) {
        assert!(page.contains(&format!("`{key}`")), "{key}");
    }
}
