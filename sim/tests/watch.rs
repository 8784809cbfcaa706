//! Whoever looks at a run sees what happened: captures that tshark reads, steps of one flow through the forwarder, and the
//! first event in which two runs differ.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stderr, reason = "tests")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Write;
use std::process::Command;
use std::rc::Rc;

use crate::support::{self, library, native_equipment};
use evenkeel_engine::Instant;
use evenkeel_sim::capture::Reader;
use evenkeel_sim::travel::{Side, difference};
use evenkeel_sim::watch::{Captures, ChainKind, Filter, Steps, Watch};
use evenkeel_sim::{Options, Outcome, Scenario, run_watched};

/// A file in memory.
#[derive(Clone, Default)]
struct Memory(Rc<RefCell<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn run(scenario: &Scenario, seed: u64, until_ms: u64, watch: &mut Watch) -> Outcome {
    let until = (until_ms > 0).then(|| Instant::from_nanos(until_ms * 1_000_000));
    let options = Options { seed: Some(seed), until, ..Options::default() };
    let equipment = native_equipment(scenario, seed);
    run_watched(scenario, equipment, options, None, &mut |_| {}, watch).unwrap()
}

/// The capture files of a run, by name.
fn captured(scenario: &Scenario, until_ms: u64) -> BTreeMap<String, Vec<u8>> {
    let mut files: BTreeMap<String, Memory> = BTreeMap::new();
    let mut open = |name: &str| {
        let memory = Memory::default();
        files.insert(name.to_owned(), memory.clone());
        Ok(Box::new(memory) as Box<dyn Write>)
    };
    let captures = Captures::open(scenario, &mut open).unwrap();
    let mut watch = Watch::new(captures, None, None);
    run(scenario, 1, until_ms, &mut watch);
    let names = watch.captures.unwrap().finish().unwrap();
    assert_eq!(names.len(), files.len());
    files.into_iter().map(|(name, memory)| (name, memory.0.take())).collect()
}

fn nat() -> Scenario {
    let mut scenario = library("nat-two-nic.toml");
    scenario.captures = vec![0];
    scenario.captured_machines = vec![scenario.machine_count() - 1];
    scenario
}

#[test]
fn a_capture_says_what_was_decided_and_ties_copies_together() {
    let files = captured(&nat(), 200);
    assert_eq!(files.keys().collect::<Vec<_>>(), ["machine-lb.pcapng", "segment-clients.pcapng"]);
    let mut copies: BTreeMap<u64, Vec<(String, String)>> = BTreeMap::new();
    let mut reader = Reader::new(&files["machine-lb.pcapng"][..]).unwrap();
    while let Some(record) = reader.next().unwrap() {
        let (id, comment) =
            (record.notes.packet_id().unwrap(), record.notes.comment().unwrap_or_default().to_owned());
        let (interface, way) = (record.interface, record.notes.way());
        let place = format!("{} {way:?}", reader.interface_name(interface).unwrap());
        copies.entry(id).or_default().push((place, comment));
    }
    let crossed: Vec<_> = copies.values().filter(|copies| copies.len() == 2).collect();
    assert!(crossed.len() > 50, "{}", crossed.len());
    for copies in crossed {
        let [(first, comment), (second, again)] = &copies[..] else { panic!("{copies:?}") };
        assert!(first.ends_with("Some(In)") && second.ends_with("Some(Out)"), "{copies:?}");
        assert_eq!(comment, again, "the copy behind the forwarder says the same");
        for part in ["flow: ", "director: ", "real server: s", "forwarded by tun"] {
            assert!(comment.contains(part), "{comment}");
        }
    }
    let any = |word: &str| copies.values().flatten().any(|(_, comment)| comment.contains(word));
    assert!(any("; new, ") && any("; known, "));
}

#[test]
fn tshark_reads_what_is_captured() {
    if Command::new("tshark").arg("--version").output().is_err() {
        return eprintln!("SKIPPED: tshark is not installed, so nobody else reads the captures");
    }
    let files = captured(&nat(), 200);
    let folder = std::env::temp_dir().join(format!("evenkeel-watch-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for (name, bytes) in &files {
        let path = folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        let fields = ["-T", "fields", "-e", "frame.comment", "-e", "ip.src", "-e", "frame.interface_name"];
        let output = Command::new("tshark").arg("-r").arg(&path).args(fields).output().unwrap();
        let (said, complaints) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{name}: {complaints}");
        assert!(!complaints.contains("cut short") && !complaints.contains("corrupt"), "{name}: {complaints}");
        let mut reader = Reader::new(&bytes[..]).unwrap();
        let mut ours = 0;
        while reader.next().unwrap().is_some() {
            ours += 1;
        }
        assert_eq!(said.lines().count(), ours, "{name}");
        assert!(said.contains("director: web; real server: s1 10.0.3.20:80"), "{name}");
        assert!(said.contains("lb:eth0"), "{name}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

/// The lines of a trace.
fn trace(scenario: &Scenario, filter: &str, from_ms: u64) -> Vec<String> {
    let memory = Memory::default();
    let from = Instant::from_nanos(from_ms * 1_000_000);
    let steps = Steps::new(filter.parse().unwrap(), from, Box::new(memory.clone()));
    let mut watch = Watch::new(None, Some(steps), None);
    run(scenario, 1, 200, &mut watch);
    watch.steps.unwrap().finish().unwrap();
    let text = String::from_utf8(memory.0.take()).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn one_flow_is_traced_through_the_forwarder_and_back() {
    let scenario = nat();
    let all = trace(&scenario, "forwarder=lb", 0);
    let opening = all.iter().find(|line| line.contains("; new, syn_sent")).unwrap();
    let client = opening.split("flow: tcp ").nth(1).unwrap().split(' ').next().unwrap();
    let lines = trace(&scenario, &format!("flow=tcp/{client}"), 0);
    assert!(lines.iter().all(|line| line.contains(client) || line.contains("timeline")), "{lines:#?}");
    let count = |word: &str| lines.iter().filter(|line| line.contains(word)).count();
    assert_eq!(count("; new, "), 1, "{lines:#?}");
    assert!(count("server.") > 3 && count("client.") > 3 && count(" engine ") > 5, "{lines:#?}");
    let later = trace(&scenario, &format!("flow=tcp/{client}"), 60);
    assert!(later.len() < lines.len() && lines.ends_with(&later));
}

#[test]
fn a_filter_names_machines_of_the_scenario() {
    let scenario = nat();
    assert_eq!("host=client.1".parse::<Filter>().unwrap().check(&scenario), Ok(()));
    let refused = "host=nobody".parse::<Filter>().unwrap().check(&scenario).unwrap_err();
    assert!(refused.contains("\"nobody\"") && refused.contains("client.0"), "{refused}");
}

#[test]
fn two_runs_part_where_the_scenario_makes_them_part() {
    let text = std::fs::read_to_string(&library("nat-two-nic.toml").path).unwrap();
    let changed = "[[timeline]]\nat = \"1s\"\ndo = \"weight\"\ntarget = \"lb\"\ndirector = \"web\"\nserver = \"s1\"\nweight = 0\n";
    let (left, right) = (support::scenario(&text), support::scenario(&(text + changed)));
    let mut runs = 0;
    let chains = |scenario: &Scenario| run(scenario, 1, 0, &mut Watch::default()).record.chains;
    let (of_left, of_right) = (chains(&left), chains(&right));
    let mut rerun = |side, window| {
        runs += 1;
        let scenario = if side == Side::Left { &left } else { &right };
        let mut watch = Watch::new(None, None, Some(window));
        run(scenario, 1, 0, &mut watch);
        Ok(watch.window.unwrap())
    };
    let found = difference(&of_left, &of_right, &mut rerun).unwrap().unwrap();
    assert_eq!((found.kind, found.common.len()), (ChainKind::Wire, 3));
    let (one, other) = (found.left.unwrap(), found.right.unwrap());
    let seconds = |words: &str| words.split(' ').next().unwrap().parse::<f64>().unwrap();
    for words in [&one.words, &other.words] {
        assert!((1.0..1.5).contains(&seconds(words)), "{words}");
    }
    assert_ne!(one.words, other.words);
    assert_eq!(difference(&of_left, &chains(&left), &mut rerun), Ok(None));
    assert_eq!(runs, 2, "equal runs need no rerun");
}
