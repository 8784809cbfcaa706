//! Captures on the command line: what is printed, what is written, and what a mistake looks like.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests"
)]

#[path = "../../../sim/tests/replay_support/mod.rs"]
mod replay_support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use replay_support::{connections, pcap};
use serde_json::Value;

/// A folder of its own with a configuration and a capture, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("evenkeel-replay-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        let scenarios = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sim/scenarios");
        let configuration = std::fs::read_to_string(scenarios.join("nat-two-nic-evenkeel.toml")).unwrap();
        // The page's configuration has one director.
        let (web, _) = configuration.split_once("[director.names]").unwrap();
        std::fs::write(path.join("evenkeel.toml"), web).unwrap();
        std::fs::write(path.join("web.pcap"), pcap(&connections(14, ("192.0.2.80", 80)))).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.0.join(name), bytes).unwrap();
    }

    /// Runs `evenkeel sim` with these words.
    fn sim(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
        command.arg("sim").args(words).current_dir(&self.0).stdin(Stdio::null()).output().unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const MAP: [&str; 2] = ["--map", "192.0.2.80:80=10.0.0.3:80"];

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn answer(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn refused(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "");
    text(&output.stderr)
}

#[test]
fn a_replay_is_told_as_text_and_as_json_and_repeats() {
    let folder = Folder::new();
    let said = answer(&folder.sim(&["replay", "web.pcap", MAP[0], MAP[1]]));
    for part in
        ["14 seen (14 tcp, 0 udp, 0 icmp), 14 served, 0 refused, 0 broken", " M packets/s\n", "wire hash "]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    // The page shows this very answer.
    let page = include_str!("../../../docs/src/simulator/captures.md");
    let shown = page.split("```text\n").nth(1).and_then(|rest| rest.split("...\n").next()).unwrap();
    assert!(said.starts_with(shown), "the page shows something else than\n{said}");
    let json = ["replay", "web.pcap", "--config", "evenkeel.toml", MAP[0], MAP[1], "--json"];
    let first = answer(&folder.sim(&json));
    assert_eq!(first, answer(&folder.sim(&[&json[..], &["--out", "journey.pcapng"]].concat())));
    let value: Value = serde_json::from_str(&first).unwrap();
    assert_eq!((&value["read"], &value["connections"]["served"]), (&126.into(), &14.into()));
    assert!(said.contains(value["wire_hash"].as_str().unwrap()));
    let other =
        answer(&folder.sim(&[&json[..], &["--seed", "7", "--clients-only", "--max-gap", "500us"]].concat()));
    let value: Value = serde_json::from_str(&other).unwrap();
    assert_eq!(
        (&value["seed"], &value["sides"], &value["skipped"]["from_server"]),
        (&7.into(), &"clients".into(), &42.into())
    );
    assert_eq!(value["time"]["shortened"], 13);
}

#[test]
fn what_is_written_is_a_capture_again() {
    let folder = Folder::new();
    answer(&folder.sim(&["replay", "web.pcap", MAP[0], MAP[1], "--out", "journey.pcapng"]));
    // Clients' packets in and out, servers' packets in and out.
    let said = answer(&folder.sim(&["replay", "journey.pcapng", "--json"]));
    let value: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&value["capture"]["format"], &value["read"]), (&"pcapng".into(), &252.into()));
}

#[test]
fn schedulers_are_compared() {
    let folder = Folder::new();
    let words = ["compare", "web.pcap", MAP[0], MAP[1], "--schedulers", "wrr,rr,maglev"];
    let said = answer(&folder.sim(&words));
    for part in ["scheduler  web/s1", "max/mean", "\nwrr  ", "\nmaglev  ", " connections differ:"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let said = answer(&folder.sim(&[&words[..], &["--json", "--seeds", "2", "--director", "web"]].concat()));
    let value: Value = serde_json::from_str(&said).unwrap();
    let runs = value["runs"].as_array().unwrap();
    assert_eq!((runs.len(), &runs[5]["seed"], &runs[5]["scheduler"]), (6, &2.into(), &"maglev".into()));
    assert_eq!(runs[0]["moved"], 0);
    for (words, part) in [
        (&["--schedulers", "fastest"][..], "scheduler fastest: \"fastest\" is none of rr, wrr"),
        (&["--schedulers", "bundled:fastest"], "bundled:fastest"),
        (&["--schedulers", "rr", "--director", "dns"], "there is no director \"dns\"; there are: web"),
        (&["--schedulers", "rr", "--seeds", "0"], "0 seeds; a comparison has 1 to 1000"),
    ] {
        let said = refused(&folder.sim(&[&["compare", "web.pcap"], words].concat()), 2);
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn mistakes_name_the_thing_the_place_and_what_to_do() {
    let folder = Folder::new();
    folder.file("empty.pcap", b"");
    folder.file("program", b"\x7fELF and so on");
    let mut damaged = pcap(&connections(1, ("192.0.2.80", 80)));
    damaged[24 + 8..24 + 12].fill(0xff);
    folder.file("damaged.pcap", &damaged);
    folder.file("wifi.pcap", &[&damaged[..20], &[105, 0, 0, 0]].concat());
    std::fs::create_dir(folder.0.join("folder")).unwrap();
    for command in ["replay", "compare"] {
        let more: &[&str] = if command == "compare" { &["--schedulers", "rr"] } else { &[] };
        for (capture, part) in [
            ("absent.pcap", "absent.pcap: No such file"),
            ("folder", "folder: "),
            ("empty.pcap", "empty.pcap: byte 0: the file is empty"),
            ("program", "program: byte 0: the file begins with 7f 45 4c 46, which is no capture"),
            ("damaged.pcap", "damaged.pcap: byte 24, packet 1: a packet of 4294967295 bytes is claimed"),
            ("wifi.pcap", "wifi.pcap: byte 0: link type 105 cannot be replayed; these can: "),
        ] {
            let said = refused(&folder.sim(&[&[command, capture], more].concat()), 2);
            assert!(said.contains(part), "{command} {part}: {said}");
        }
    }
    for (words, part) in [
        (&["--map", "10.0.0.3:80"][..], "is not of the form OLD=NEW"),
        (&["--map", "10.0.0.3:80=fc00::3"], "of different families"),
        (&["--max-gap", "soon"], "write a number and a unit"),
        (&["--both", "--clients-only"], "cannot be used with"),
        (&["--config", "absent.toml"], "absent.toml"),
        (&["--out", "web.pcap"], "--out web.pcap: that is the capture itself"),
        (&["--out", "no/folder.pcapng"], "--out no/folder.pcapng: No such file"),
    ] {
        let said = refused(&folder.sim(&[&["replay", "web.pcap"], words].concat()), 2);
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(folder.0.join("web.pcap").metadata().unwrap().len() > 1_000, "the capture is untouched");
    if Path::new("/dev/full").exists() {
        let said = refused(&folder.sim(&["replay", "web.pcap", "--out", "/dev/full"]), 1);
        assert!(said.contains("/dev/full: No space left on device"), "{said}");
    }
}

/// The commands of the page, in order, in a folder with the files that they name; each says what the page shows, up to
/// three points.
#[test]
fn the_commands_of_the_book_work() {
    let page = include_str!("../../../docs/src/simulator/captures.md");
    let folder = Folder::new();
    let program = Path::new(env!("CARGO_BIN_EXE_evenkeel"));
    let (mut tried, mut shown) = (0, 0);
    for part in page.split("```sh\n").skip(1) {
        let (commands, rest) = part.split_once("```").unwrap();
        let mut said = String::new();
        for command in commands.lines() {
            if command.starts_with("tshark") && Command::new("tshark").arg("--version").output().is_err() {
                eprintln!("SKIPPED: tshark is not installed: {command}");
                continue;
            }
            let line = command.replacen("evenkeel ", &format!("{} ", program.display()), 1);
            let output = Command::new("sh").args(["-c", &line]).current_dir(&folder.0).output().unwrap();
            assert!(output.status.success(), "{command}\n{}", text(&output.stderr));
            said = text(&output.stdout);
            assert!(!said.is_empty(), "{command}");
            tried += 1;
        }
        if let Some(block) = rest.strip_prefix("\n\n```text\n") {
            let wanted = block.split("```").next().unwrap().split("\n...").next().unwrap();
            assert!(said.starts_with(wanted), "{commands}\n{said}");
            shown += 1;
        }
    }
    assert!(tried >= 3 && shown >= 2, "{tried} {shown}");
}
