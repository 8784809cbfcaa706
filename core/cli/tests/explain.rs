//! `evenkeel explain` and `evenkeel trace` as users see them: of a configuration, of a capture, and of a forwarder that runs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests"
)]

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use crate::world::{Forwarder, World};
use evenkeel_sim::capture::{Heading, Link, Reader, Seen, Way, Writer};
use serde_json::Value;

const CONFIG: &str = r#"
[forwarder]
control = "run/evenkeel.sock"
seed = 1

[interface.tun0]
kind = "tun"
address = ["10.99.0.1/24"]

[director.web]
bind = "10.0.0.3:80/tcp"
mode = "nat"
scheduler = "SCHEDULER"
persistence = "5m"
[[director.web.server]]
name = "s1"
address = "10.0.3.20:8080"
[[director.web.server]]
name = "s2"
address = "10.0.3.21:8080"
weight = 3

[[flow]]
name = "ssh"
policy = "deny"
rule = [{ match = { proto = "tcp", dstport = 22 } }]
"#;

fn config(scheduler: &str) -> String {
    CONFIG.replace("SCHEDULER", scheduler)
}

/// A folder of its own for each test.
fn folder(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("explain-{name}"));
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn evenkeel(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_evenkeel")).args(words).stdin(Stdio::null()).output().unwrap()
}

fn out(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn token_of(text: &str) -> &str {
    text.lines().find_map(|line| line.strip_prefix("token")).expect("a token").trim()
}

/// An explanation without its token, which holds the time.
fn without_token(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.starts_with("token")).collect()
}

const SYN: &str = "tcp 198.51.100.7:4242 > 10.0.0.3:80 syn in tun0";

#[test]
fn a_configuration_is_asked_and_a_token_decides_again() {
    let path = folder("fresh").join("evenkeel.toml");
    let name = path.to_str().unwrap();
    for scheduler in ["wrr", "maglev", "p2c", "random"] {
        std::fs::write(&path, config(scheduler)).unwrap();
        let told = out(&evenkeel(&["explain", "--config", name, SYN]));
        for part in
            ["flow table   no such flow", "ssh 1: match proto tcp dstport 22 -- no: dstport 22", "picks s"]
        {
            assert!(told.contains(part), "{part}:\n{told}");
        }
        for part in ["stick table  198.51.100.7 sticks to nobody yet", "verdict      forward by tun0"] {
            assert!(told.contains(part), "{part}:\n{told}");
        }
        assert!(without_token(&told).iter().all(|line| line.chars().count() <= 80), "{told}");
        let again = out(&evenkeel(&["explain", "--config", name, "--token", token_of(&told)]));
        assert_eq!(again, told, "{scheduler}");
    }
    let told = out(&evenkeel(&["explain", "--config", name, SYN]));
    std::fs::write(&path, config("rr").replace("weight = 3", "weight = 4")).unwrap();
    let error = refused(&evenkeel(&["explain", "--config", name, "--token", token_of(&told)]));
    assert!(error.contains("the token is of another configuration"), "{error}");
    let error = refused(&evenkeel(&["explain", "--config", name, "--token", &token_of(&told)[..40]]));
    assert!(error.contains("the token is not whole"), "{error}");
    let error = refused(&evenkeel(&["explain", "--config", name, "tcp 198.51.100.7 > 10.0.0.3:80"]));
    assert!(error.contains("column 5: the source needs a port"), "{error}");
    let denied = "tcp 198.51.100.7:4242 > 10.0.0.3:22 in tun0";
    let told = out(&evenkeel(&["explain", "--json", "--config", name, denied]));
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["end"]["reason"], "policy_denied");
    assert!(told["token"].is_string());
}

#[test]
fn a_token_holds_what_a_component_picked() {
    let path = folder("component").join("evenkeel.toml");
    let name = path.to_str().unwrap();
    let with = |component: &str| {
        let component = format!("{{ component = \"{component}\", fallback = \"wlc\" }}");
        config("SCHEDULER").replace("\"SCHEDULER\"", &component)
    };
    std::fs::write(&path, with("bundled:p2c")).unwrap();
    let again = told_again(name, SYN);
    assert!(again.contains("its answer is"), "{again}");
    // One that builds tables leaves all that it knows in its table.
    std::fs::write(&path, with("bundled:maglev")).unwrap();
    let again = told_again(name, SYN);
    assert!(again.contains("bundled:maglev picks s") && !again.contains("note"), "{again}");
}

#[test]
fn a_token_holds_what_a_component_about_policy_said() {
    let path = folder("policy").join("evenkeel.toml");
    let name = path.to_str().unwrap();
    let components = r#"
[[policy.component]]
name = "guard"
component = "bundled:syn-guard"

[[policy.component]]
name = "leaving"
way = "out"
component = "bundled:flowmgr"
options = { rules = "outflow other deny\n match proto tcp dstport 8081" }
"#;
    std::fs::write(&path, config("rr") + components).unwrap();
    let again = told_again(name, SYN);
    for part in ["policy       guard: ", "policy       leaving: ", "its answer is"] {
        assert!(again.contains(part), "{again}");
    }
}

/// Asks about `packet` and by its token once more: who decides and what comes of it is the same.
fn told_again(config: &str, packet: &str) -> String {
    let told = out(&evenkeel(&["explain", "--config", config, packet]));
    let again = out(&evenkeel(&["explain", "--config", config, "--token", token_of(&told)]));
    let end = |text: &str| -> Vec<String> {
        let wanted = ["rewrite", "          ->", "next hop", "verdict"];
        text.lines()
            .filter(|line| wanted.iter().any(|word| line.starts_with(word)))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(end(&told).len(), 4, "{told}");
    assert_eq!(end(&again), end(&told), "{again}");
    assert_eq!(token_of(&again), token_of(&told), "the token of a token is itself");
    again
}

#[test]
fn a_packet_of_a_capture_is_asked_about() {
    let folder = folder("capture");
    let (path, capture) = (folder.join("evenkeel.toml"), folder.join("web.pcapng"));
    std::fs::write(&path, config("rr")).unwrap();
    let config = path.to_str().unwrap();
    let told = out(&evenkeel(&["explain", "--json", "--config", config, SYN]));
    let told: Value = serde_json::from_str(&told).unwrap();
    let bytes = unhex(told["before"].as_str().unwrap());
    let mut writer = Writer::new(std::fs::File::create(&capture).unwrap()).unwrap();
    let interface = writer.interface("any", Link::Raw).unwrap();
    for bytes in [&bytes[..3], &bytes[..]] {
        let heading = Heading { interface, at_ns: 1, way: Way::In, packet_id: 1 };
        writer.packet(&Seen { heading, bytes, comment: "" }).unwrap();
    }
    writer.finish().unwrap();
    let capture = capture.to_str().unwrap();
    let ask =
        |number: &str| evenkeel(&["explain", "--config", config, "--pcap", capture, "--packet", number]);
    assert!(out(&ask("2")).contains(SYN), "{:?}", ask("2"));
    assert!(refused(&ask("3")).contains("there is no packet 3; the capture has 2"));
    // A piece of a datagram has a token as well.
    let piece = "udp 198.51.100.7:4242 > 10.0.0.3:80 len 1400 in tun0";
    let told = out(&evenkeel(&["explain", "--json", "--config", config, piece]));
    let told: Value = serde_json::from_str(&told).unwrap();
    let bytes = first_fragment(unhex(told["before"].as_str().unwrap()));
    let mut writer = Writer::new(std::fs::File::create(capture).unwrap()).unwrap();
    let interface = writer.interface("any", Link::Raw).unwrap();
    let heading = Heading { interface, at_ns: 1, way: Way::In, packet_id: 1 };
    writer.packet(&Seen { heading, bytes: &bytes, comment: "" }).unwrap();
    writer.finish().unwrap();
    let told = out(&ask("1"));
    let again = out(&evenkeel(&["explain", "--config", config, "--token", token_of(&told)]));
    assert_eq!(again, told);
    assert!(told.contains("fragment"), "{told}");
}

/// The first 800 bytes behind the header of a packet.
fn first_fragment(mut packet: Vec<u8>) -> Vec<u8> {
    packet.truncate(820);
    packet[2..4].copy_from_slice(&820_u16.to_be_bytes());
    packet[6..8].copy_from_slice(&0x2000_u16.to_be_bytes());
    packet[10..12].copy_from_slice(&[0, 0]);
    let sum: u32 = packet[..20].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

fn unhex(digits: &str) -> Vec<u8> {
    (0..digits.len() / 2).map(|at| u8::from_str_radix(&digits[at * 2..at * 2 + 2], 16).unwrap()).collect()
}

/// A trace that has begun; killed when dropped.
struct Trace(Child, BufReader<std::process::ChildStdout>);

impl Trace {
    /// Begins one. A forwarder that has not noticed yet that the one before has left refuses it; so again.
    fn begin(forwarder: &Forwarder, words: &[&str]) -> Self {
        loop {
            let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
            command.args(["trace", "--json", "--socket"]).arg(forwarder.socket()).args(words);
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap());
            let mut first = String::new();
            BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut first).unwrap();
            if first.starts_with("tracing") {
                return Self(child, lines);
            }
            assert!(first.contains("there is one at a time"), "{first}");
            child.wait().unwrap();
        }
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// tshark reads the file as well: interfaces with names, directions, comments.
fn others_read_it(file: &std::path::Path) {
    let fields = ["frame.interface_name", "frame.packet_flags_direction", "frame.comment"];
    let mut command = Command::new("tshark");
    command.arg("-r").arg(file).args(["-T", "fields"]).args(fields.iter().flat_map(|field| ["-e", *field]));
    let Ok(read) = command.stdin(Stdio::null()).output() else {
        eprintln!("SKIPPED: tshark is not here, so only our own reader has read the trace");
        return;
    };
    let text = String::from_utf8_lossy(&read.stdout);
    assert!(read.status.success(), "{read:?}");
    assert!(text.lines().count() >= 4, "{text}");
    for wanted in ["tun0", "0x00000001", "0x00000002", "flow table   hit"] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
}

#[test]
fn a_running_component_that_builds_tables_is_asked_by_its_table() {
    let Some(world) = World::new() else { return };
    let with = |name: &str| {
        let component = format!("{{ component = \"bundled:{name}\" }}");
        config("SCHEDULER").replace("\"SCHEDULER\"", &component)
    };
    let forwarder = Forwarder::start(&world, &with("maglev"));
    let socket = forwarder.socket();
    let packet = "tcp 198.51.100.11:40000 > 10.0.0.3:80 syn in tun0";
    let ask = || out(&evenkeel(&["explain", "--socket", socket.to_str().unwrap(), packet]));
    let told = ask();
    assert!(told.contains("bundled:maglev picks s"), "{told}");
    let path = socket.parent().unwrap().parent().unwrap().join("evenkeel.toml");
    let again = out(&evenkeel(&["explain", "--config", path.to_str().unwrap(), "--token", token_of(&told)]));
    assert_eq!(again, told);
    // Nobody else can say what another one would pick.
    forwarder.write_config(&with("p2c"));
    assert!(forwarder.ctl(&["reload"]).status.success());
    let told = ask();
    assert!(told.contains("the component bundled:p2c decides next"), "{told}");
    assert!(told.contains("token        none: a component decides"), "{told}");
}

#[test]
fn a_running_forwarder_tells_of_its_packets() {
    let Some(world) = World::new() else { return };
    let mut forwarder = Forwarder::start(&world, &config("rr"));
    let socket = forwarder.socket();
    let socket = socket.to_str().unwrap();
    let first = "tcp 198.51.100.10:40000 > 10.0.0.3:80 syn in tun0";
    let ask = |packet: &str| out(&evenkeel(&["explain", "--socket", socket, packet]));
    let told = ask(first);
    assert!(told.contains("rr picks s") && told.contains("sticks to nobody yet"), "{told}");
    assert_eq!(without_token(&ask(first)), without_token(&told), "to ask changes nothing");

    let mut connection = world.tcp_connect("10.0.0.3:80");
    let server = connection.echo("hello").0;
    let known = if server == "10.0.3.20" { "s1" } else { "s2" };
    assert!(told.contains(&format!("rr picks {known}")), "what was told is what happened: {told}");
    let stats = forwarder.stats();
    assert_eq!(stats["flows"]["opened"], 1, "an explanation opens no flow: {stats:#}");
    let told = ask(first);
    assert!(told.contains(&format!("hit: 198.51.100.10 sticks to {known}")), "{told}");
    // The token has what this forwarder knows; the program has only the configuration.
    let config = forwarder.socket().parent().unwrap().parent().unwrap().join("evenkeel.toml");
    let again =
        out(&evenkeel(&["explain", "--config", config.to_str().unwrap(), "--token", token_of(&told)]));
    assert_eq!(again, told);

    let mut trace = Trace::begin(
        &forwarder,
        &["--filter", "director web and (src 198.51.100.10 or server s1 or server s2)"],
    );
    let other = evenkeel(&["trace", "--socket", socket]);
    assert!(String::from_utf8_lossy(&other.stderr).contains("there is one at a time"), "{other:?}");
    connection.echo("traced");
    let packet = trace.next();
    assert_eq!(packet["steps"][1]["hit"], true, "{packet:#}");
    assert!(packet["steps"].as_array().unwrap().iter().all(|step| step["took_ns"].is_u64()), "{packet:#}");
    assert_eq!(packet["end"]["verdict"], "forward");
    // Who leaves makes room for the next, also while no packet comes.
    drop(trace);
    let file = folder("live").join("trace.pcapng");
    let name = file.to_str().unwrap();
    let mut written = Trace::begin(&forwarder, &["--write", name, "--count", "3"]);
    connection.echo("written");
    assert!(written.0.wait().unwrap().success());
    let mut reader = Reader::new(std::fs::File::open(&file).unwrap()).unwrap();
    let mut comments = Vec::new();
    while let Some(record) = reader.next().unwrap() {
        comments.push(record.notes.comment().unwrap_or_default().to_owned());
    }
    assert!(comments.len() >= 4, "each as it came and as it left: {comments:?}");
    assert!(comments.iter().any(|comment| comment.contains("flow table   hit")), "{comments:?}");

    others_read_it(&file);
    let error = evenkeel(&["trace", "--socket", socket, "--filter", "port 80 and"]);
    assert!(
        String::from_utf8_lossy(&error.stderr).contains("column 12: a condition is missing"),
        "{error:?}"
    );
    assert_eq!(connection.echo("after").0, server);
    forwarder.terminate();
    assert_eq!(forwarder.wait(), Some(0), "{}", forwarder.log());
}
