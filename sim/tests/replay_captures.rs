//! Captures of others through the engine: every packet has one end, connections keep their servers, and the hashes are
//! those of every other build.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "tests"
)]

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use crate::replay_support::{capture, check, options, plan, two_nics};
use crate::support::cpu_seconds;
use evenkeel_engine::{Guests, Plan};
use evenkeel_sim::capture::Reader;
use evenkeel_sim::replay::{Outcome, Sides, replay};

/// Every address at every port is a service, on three servers of its family behind the second TUN.
fn everything() -> Plan {
    let mut text = String::from(
        "[interface.tun0]\nkind = \"tun\"\naddress = [\"10.99.0.1/24\", \"fc00:99::1/64\"]\n\n\
         [interface.tun1]\nkind = \"tun\"\naddress = [\"10.99.1.1/24\", \"fc00:98::1/64\"]\n\n",
    );
    for (to, interface) in [("0.0.0.0/0", 0), ("::/0", 0), ("10.0.3.0/24", 1), ("fc00:3::/64", 1)] {
        text.push_str(&format!("[[route]]\nto = \"{to}\"\ninterface = \"tun{interface}\"\n\n"));
    }
    for (name, bind, network) in [("four", "0.0.0.0/0:*", "10.0.3.2"), ("six", "[::]/0:*", "fc00:3::2")] {
        text.push_str(&format!("[director.{name}]\nbind = \"{bind}\"\nscheduler = \"wlc\"\n\n"));
        for number in 0..3 {
            text.push_str(&format!(
                "[[director.{name}.server]]\nname = \"s{number}\"\naddress = \"{network}{number}\"\nweight = {}\n\n",
                number + 1
            ));
        }
    }
    plan(&text)
}

fn run(path: &Path, plan: Plan, maps: &[&str], sides: Sides, output: Option<&mut dyn Write>) -> Outcome {
    let mut reader = Reader::new(File::open(path).unwrap()).unwrap();
    let outcome = replay(&mut reader, plan, Guests::default(), &options(maps, sides), output).unwrap();
    check(&outcome);
    outcome
}

/// A capture, its mappings, and what must come out: connections, wire and decision hash with both sides, then the wire
/// hash with clients alone. The hashes change when the engine sends other bytes or decides otherwise, and are to be
/// looked at then; they are the same in every build.
type Golden = (&'static str, &'static [&'static str], u64, [&'static str; 3]);

const GOLDENS: [Golden; 10] = [
    (
        "zeek_echo-connections.pcap.gz",
        &["127.0.0.1:7000=10.0.0.3:80"],
        500,
        ["d280db41e7e559ba", "f18bab15262da29c", "539a64b1990d5452"],
    ),
    ("zeek_http_bro.org.pcap", &[], 13, ["0bfbc263e28e5b54", "041fd83e9bed72f0", "f47e985cde7e467d"]),
    ("zeek_dns-edns-ecs.pcap", &[], 69, ["4397454e003539d9", "8e879dfaae60148d", "e69a332cd54d132b"]),
    (
        "zeek_quic_firefox-102.13.0esr-blog-cloudflare-com.pcap",
        &["250.58.23.113=203.0.113.7"],
        1,
        ["2cb1fc12255d5425", "72ceecad42a331e0", "3309261d029c3379"],
    ),
    ("zeek_ipv4_fragmented-3.pcap", &[], 1, ["22fde9d4973083db", "cd76e412a64c34d6", "22fde9d4973083db"]),
    ("zeek_ipv6-fragmented-dns.pcap", &[], 2, ["f2e34af2a27b0a4a", "e4b8cf17c6959854", "b9d17b033b217a65"]),
    ("zeek_ftp_ipv6.pcap", &[], 6, ["84e8e4d96611eb97", "cb4fbc95acad5d2a", "68ee3d7f36752898"]),
    ("zeek_http-vlan-0.pcap", &[], 1, ["52cd9d7c79976e16", "776d0752fe1fe5ee", "8e432601e2a92cf1"]),
    (
        "zeek_icmp_icmp-destunreach-udp.pcap",
        &[],
        0,
        ["0000000000000000", "78b51e82fa500c78", "0000000000000000"],
    ),
    ("suricata_syn-flood-200.pcap", &[], 200, ["7a049022f544ad2c", "8f4f82375f74de26", "7aca61d34d6f5746"]),
];

#[test]
fn captures_of_others_are_replayed_alike_in_every_build() {
    let mut wrong = Vec::new();
    for (name, maps, connections, hashes) in GOLDENS {
        let Some(path) = capture(name) else { continue };
        let both = run(&path, everything(), maps, Sides::Both, None);
        assert_eq!(both.connections.seen, connections, "{name}\n{}", both.to_text());
        assert_eq!(both.connections.broken, 0, "{name}\n{}", both.to_text());
        let mut out = Vec::new();
        assert_eq!(both, run(&path, everything(), maps, Sides::Both, Some(&mut out)), "{name}");
        let clients = run(&path, everything(), maps, Sides::Clients, None);
        assert_eq!(clients.connections.broken, 0, "{name}\n{}", clients.to_text());
        let found = [both.wire_hash, both.decision_hash, clients.wire_hash];
        if found != hashes {
            wrong.push(format!("{name}: {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn five_hundred_connections_are_shared_by_weight_and_keep_their_servers() {
    let Some(path) = capture("zeek_echo-connections.pcap.gz") else { return };
    for sides in [Sides::Both, Sides::Clients] {
        let outcome = run(&path, two_nics(), &["127.0.0.1:7000=10.0.0.3:80"], sides, None);
        let connections = outcome.connections;
        assert_eq!((connections.seen, connections.served, connections.broken), (500, 500, 0));
        assert_eq!(outcome.dropped.values().sum::<u64>(), 0, "{}", outcome.to_text());
        let flows: Vec<_> = outcome.servers.iter().map(|server| server.flows).collect();
        for (flows, wanted) in flows.iter().zip([286, 143, 71]) {
            assert!(flows.abs_diff(wanted) <= 4, "{flows} of {wanted}: 4 to 2 to 1");
        }
    }
}

/// Rows of tshark's fields, or nothing where it is not installed.
fn tshark(file: &[u8], fields: &[&str]) -> Option<Vec<Vec<String>>> {
    let path = std::env::temp_dir().join(format!("evenkeel-replay-{}.pcapng", std::process::id()));
    std::fs::write(&path, file).unwrap();
    let mut command = Command::new("tshark");
    command.arg("-r").arg(&path).args(["-T", "fields"]);
    for field in fields {
        command.args(["-e", field]);
    }
    let output = command.output();
    std::fs::remove_file(&path).unwrap();
    let output = match output {
        Ok(output) => output,
        Err(error) => {
            eprintln!("SKIPPED: tshark does not run: {error}");
            return None;
        }
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    Some(text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect())
}

#[test]
fn what_is_written_down_can_be_read_by_tshark() {
    let Some(path) = capture("zeek_http-vlan-0.pcap") else { return };
    let rule = "\n[[flow]]\nname = \"web-only\"\npolicy = \"permit\"\nrule = [{ match = { proto = \"tcp\", dstport = 80 } }]\n";
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/nat-two-nic-evenkeel.toml");
    let plan = plan(&(std::fs::read_to_string(file).unwrap() + rule));
    let mut out = Vec::new();
    let outcome = run(&path, plan, &["192.150.187.43:80=10.0.0.3:80"], Sides::Both, Some(&mut out));
    assert_eq!((outcome.fed, outcome.forwarded), (14, 14));
    let fields = [
        "frame.packet_id",
        "frame.interface_name",
        "frame.packet_flags_direction",
        "ip.src",
        "ip.dst",
        "frame.comment",
        "tcp.checksum.status",
    ];
    let Some(rows) = tshark(&out, &fields) else { return };
    assert_eq!(rows.len(), 28, "in and out");
    for row in &rows {
        let copies = rows.iter().filter(|other| other[0] == row[0]).count();
        assert_eq!(copies, 2, "packet {} in and out", row[0]);
        let server = outcome.servers.iter().find(|server| server.flows > 0).unwrap();
        for part in ["flow: 1 tcp 141.142.228.5:59856 > 10.0.0.3:80; ", "rule: web-only; ", "director: web; "]
        {
            assert!(row[5].contains(part), "{part}: {}", row[5]);
        }
        let server = format!("real server: {} {}; ", server.server, server.address);
        assert!(row[5].contains(&server), "{server}: {}", row[5]);
    }
    let first = rows.iter().find(|row| row[0] == "1" && row[2] == "0x00000001").unwrap();
    assert_eq!((first[1].as_str(), first[4].as_str()), ("tun0", "10.0.0.3"));
    assert!(first[5].ends_with("stage: new flow; forwarded by tun1"), "{}", first[5]);
    let second = rows.iter().find(|row| row[0] == "2" && row[2] == "0x00000002").unwrap();
    assert_eq!((second[1].as_str(), second[3].as_str()), ("tun0", "10.0.0.3"));
    assert!(second[5].ends_with("stage: known flow; forwarded by tun0"), "{}", second[5]);
}

#[test]
fn drops_are_named_with_their_stage_and_reason() {
    let Some(path) = capture("suricata_syn-flood-200.pcap") else { return };
    let rule = "\n[[flow]]\nname = \"blocked\"\npolicy = \"deny\"\nrule = [{ match = { src = \"192.0.2.0/24\" } }]\n";
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/nat-two-nic-evenkeel.toml");
    let plan = plan(&(std::fs::read_to_string(file).unwrap() + rule));
    let mut out = Vec::new();
    let outcome = run(&path, plan, &["198.51.100.5:443=10.0.0.3:80"], Sides::Both, Some(&mut out));
    assert_eq!((outcome.dropped.get("policy_denied"), outcome.connections.refused), (Some(&200), 200));
    let Some(rows) = tshark(&out, &["frame.packet_id", "frame.comment"]) else { return };
    assert_eq!(rows.len(), 200);
    let wanted = "flow: 7 tcp 192.0.2.10:40006 > 10.0.0.3:80; rule: blocked; director: web; stage: policy; \
                  dropped: policy_denied";
    assert_eq!(rows[6], ["7", wanted]);
}

/// A capture may be fed to anything: every file through every kind of plan, with nothing mapped.
#[test]
fn every_capture_goes_through_every_kind_of_forwarder() {
    let one = |director: &str| {
        plan(&format!(
            "[interface.tun0]\nkind = \"tun\"\naddress = [\"10.99.0.1/24\"]\n\n\
             [director.web]\nbind = \"0.0.0.0/0:*\"\n{director}\n\n\
             [[director.web.server]]\nname = \"s1\"\naddress = \"10.0.3.20\"\n"
        ))
    };
    let plans = [
        two_nics(),
        one("mode = \"gateway\""),
        one("mid_stream = \"pick\""),
        one("mid_stream = \"drop\"\nping = \"forward\""),
    ];
    for (name, ..) in GOLDENS {
        let Some(path) = capture(name) else { continue };
        for plan in &plans {
            for sides in [Sides::Both, Sides::Clients] {
                let outcome = run(&path, plan.clone(), &[], sides, None);
                assert!(outcome.read > 0);
            }
        }
    }
}

/// `cargo test --release -p evenkeel-sim --test all replay_captures -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement: cargo test -p evenkeel-sim --release --test all replay_captures -- --ignored --nocapture"]
#[allow(clippy::cast_precision_loss, reason = "a rate")]
fn packets_a_second() {
    let Some(path) = capture("zeek_echo-connections.pcap.gz") else { return };
    let mut unpacked = Vec::new();
    let file = flate2::read::GzDecoder::new(File::open(&path).unwrap());
    std::io::Read::read_to_end(&mut { file }, &mut unpacked).unwrap();
    // The same packets ten times over: the second time they are those of known connections that are over.
    let mut long = unpacked.clone();
    for _ in 0..9 {
        long.extend_from_slice(&unpacked[24..]);
    }
    for (name, file) in [("once", &unpacked), ("ten times", &long)] {
        for sides in [Sides::Both, Sides::Clients] {
            let begin = cpu_seconds();
            let mut reader = Reader::new(&file[..]).unwrap();
            let options = options(&["127.0.0.1:7000=10.0.0.3:80"], sides);
            let outcome = replay(&mut reader, two_nics(), Guests::default(), &options, None).unwrap();
            let seconds = cpu_seconds() - begin;
            println!(
                "{name} {sides:?}: {seconds:.3} CPU s, {:.2} M packets/s",
                outcome.read as f64 / seconds / 1e6
            );
        }
    }
    let begin = cpu_seconds();
    let mut reader = Reader::new(&long[..]).unwrap();
    while reader.next().unwrap().is_some() {}
    let seconds = cpu_seconds() - begin;
    println!("reading alone: {:.2} M packets/s", reader.packets() as f64 / seconds / 1e6);
}
