//! The lab as its users see it: runs that end well, runs that are killed, and what is left of them.
//!
//! It needs the binary `evenkeel` beside this test's own (`cargo test --workspace` builds it; EVENKEEL_BIN
//! names another one), and a machine that allows namespaces and TUN devices. Where one of them is missing
//! each test says so and passes; with EVENKEEL_REQUIRE_LAB=1 it fails instead.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stderr, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The variable that marks the processes of one test, so that each finds its own.
const MARK: &str = "EVENKEEL_LAB_TEST";

/// How long the slowest step of a test may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn program() -> Option<PathBuf> {
    let named = std::env::var_os("EVENKEEL_BIN").map(PathBuf::from);
    let beside = || Some(std::env::current_exe().ok()?.parent()?.parent()?.join("evenkeel"));
    named.or_else(beside).filter(|path| path.is_file())
}

/// The binary, when a lab can run here; else says why the test is skipped.
fn lab() -> Option<PathBuf> {
    let reason = match program() {
        None => "the binary evenkeel is not built (cargo test --workspace builds it)".to_owned(),
        Some(program) => match evenkeel_netns_lab::available(&program) {
            Ok(()) => return Some(program),
            Err(error) => error.to_string(),
        },
    };
    assert!(std::env::var_os("EVENKEEL_REQUIRE_LAB").is_none(), "EVENKEEL_REQUIRE_LAB is set, but {reason}");
    eprintln!("SKIPPED: {reason}");
    None
}

/// One call of the binary, with records in a folder of its own.
struct Run {
    mark: String,
    records: PathBuf,
    program: PathBuf,
}

impl Run {
    fn new(program: PathBuf, name: &str) -> Self {
        let mark = format!("{name}-{}", std::process::id());
        let records = std::env::temp_dir().join(format!("evenkeel-lab-test-{mark}"));
        Self { mark, records, program }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).env(MARK, &self.mark).env("EVENKEEL_LAB_RECORDS", &self.records);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// A scenario of these tests, or by its path in the repository.
    fn scenario(&self, file: &str) -> Command {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = if file.contains('/') { here.join("..") } else { here.join("tests/scenarios") };
        let path = folder.join(file);
        self.command(&["lab", "run", "--json", path.to_str().unwrap()])
    }

    /// Living processes of this test, by number.
    fn processes(&self) -> BTreeSet<i32> {
        let wanted = format!("{MARK}={}", self.mark);
        let has_mark = |pid: &i32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes())
        };
        all_processes().into_iter().filter(has_mark).collect()
    }

    /// Waits until the lab is up: the namespaces of the segments, the client and the server are there.
    fn wait_until_up(&self) -> BTreeSet<PathBuf> {
        wait_until("the lab comes up", || {
            let processes = self.processes();
            let namespaces = network_namespaces(&processes);
            // The runner, the two of the namespaces, a client and a server.
            (processes.len() >= 5 && namespaces.len() == 3).then_some(namespaces)
        })
    }

    fn records(&self) -> usize {
        fs::read_dir(&self.records).map_or(0, Iterator::count)
    }

    /// Nothing of the run is there any more: no process, no namespace, no link outside, no record.
    fn assert_nothing_left(&self, namespaces: &BTreeSet<PathBuf>) {
        assert_eq!(self.processes(), BTreeSet::new(), "processes are left");
        let held = network_namespaces(&all_processes());
        let left: Vec<_> = namespaces.intersection(&held).collect();
        assert!(left.is_empty(), "namespaces are left: {left:?}");
        let links = fs::read_dir("/sys/class/net").unwrap().map(|link| link.unwrap().file_name());
        let ours: Vec<_> = links
            .filter(|name| {
                let name = name.to_string_lossy();
                ["segment", "port", "wire"].iter().any(|prefix| name.starts_with(prefix))
            })
            .collect();
        assert!(ours.is_empty(), "links are left outside: {ours:?}");
        assert_eq!(self.records(), 0, "records are left");
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.records);
    }
}

fn all_processes() -> BTreeSet<i32> {
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The network namespaces that these processes are in, without our own.
fn network_namespaces(processes: &BTreeSet<i32>) -> BTreeSet<PathBuf> {
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    let links = processes.iter().filter_map(|pid| fs::read_link(format!("/proc/{pid}/ns/net")).ok());
    links.filter(|namespace| *namespace != own).collect()
}

/// Looks again and again until there is an answer; the pause only leaves the processor to others.
fn wait_until<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "{what}: not within {PATIENCE:?}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// A run that is ended when its test fails.
struct Running(Option<Child>);

impl Running {
    fn start(mut command: Command) -> Self {
        Self(Some(command.spawn().unwrap()))
    }

    fn signal(&self, signal: Signal) {
        let id = self.0.as_ref().unwrap().id();
        kill_process(Pid::from_raw(i32::try_from(id).unwrap()).unwrap(), signal).unwrap();
    }

    fn finish(mut self) -> Output {
        self.0.take().unwrap().wait_with_output().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn outcome(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// Runs a scenario to its end; its outcome, and whether the scenario's expectations hold.
fn run_to_end(name: &str, file: &str) -> Option<(Value, bool)> {
    let run = Run::new(lab()?, name);
    let output = Running::start(run.scenario(file)).finish();
    let outcome = outcome(&output);
    run.assert_nothing_left(&BTreeSet::new());
    Some((outcome, output.status.success()))
}

/// The outcome, which must be as the scenario expects.
fn run_well(name: &str, file: &str) -> Option<Value> {
    let (outcome, is_met) = run_to_end(name, file)?;
    assert!(is_met, "{outcome:#}");
    Some(outcome)
}

#[test]
fn kernel_clients_and_servers_exchange_every_byte() {
    let Some(outcome) = run_well("direct", "direct.toml") else { return };
    assert_eq!(outcome["metrics"]["flows.completed"], 200.0);
    assert_eq!(outcome["broken"], serde_json::json!({}));
}

#[test]
fn broken_flows_are_told_by_their_cause() {
    let Some(outcome) = run_well("nobody", "nobody.toml") else { return };
    assert_eq!(outcome["broken"], serde_json::json!({ "unreachable": 5 }));
    assert_eq!(outcome["metrics"]["flows.completed"], 0.0);
}

#[test]
fn user_space_wire_loses_frames_and_the_flows_survive() {
    let Some(outcome) = run_well("lossy", "lossy.toml") else { return };
    assert!(outcome["metrics"]["packets.lost"].as_f64().unwrap() > 0.0);
}

#[test]
fn real_forwarder_splits_flows_by_weight() {
    let Some(outcome) = run_well("balanced", "balanced.toml") else { return };
    let servers = outcome["servers"].as_array().unwrap();
    let flows: Vec<_> = servers.iter().map(|server| server["flows"].as_u64().unwrap()).collect();
    assert_eq!(flows, [80, 40, 20, 80, 40, 20]);
    for server in servers {
        assert_eq!(server["answered"], server["flows"], "the clients saw what the forwarder counted");
        assert!(server["packets_to"].as_u64() > server["flows"].as_u64());
    }
    assert_eq!(outcome["exits"]["lb"], 0, "the forwarder stops cleanly");
}

#[test]
fn a_running_forwarder_follows_what_agents_say() {
    let Some(outcome) = run_well("agents", "agents.toml") else { return };
    assert_eq!(outcome["exits"]["lb"], 0, "the forwarder stops cleanly");
}

#[test]
fn source_nat_address_in_the_servers_network_is_found_by_arp() {
    let Some((outcome, _)) = run_to_end("snat", "sim/scenarios/nat-udp-snat.toml") else { return };
    // On a machine that stands still for a second a datagram is sent again, and its second answer comes when
    // nobody waits any more: unlike in the simulator, the scenario's bound on stray packets can be missed.
    assert_eq!(outcome["metrics"]["flows.completed"], 1000.0, "{outcome:#}");
}

#[test]
fn an_outflow_sends_answers_back_by_the_router_of_its_table() {
    let Some((outcome, _)) = run_to_end("outflow", "sim/scenarios/policy-outflow.toml") else { return };
    assert_eq!(outcome["metrics"]["flows.completed"], 200.0, "{outcome:#}");
    assert_eq!(outcome["metrics"]["flows.broken"], 5.0, "{outcome:#}");
}

#[test]
fn flow_rules_permit_direct_and_deny_real_packets() {
    let Some((outcome, _)) = run_to_end("rules", "sim/scenarios/policy-examples.toml") else { return };
    assert_eq!(outcome["metrics"]["flows.completed"], 250.0, "{outcome:#}");
    assert_eq!(outcome["metrics"]["flows.broken"], 15.0, "{outcome:#}");
}

#[test]
fn a_component_with_the_same_rules_permits_directs_and_denies_the_same() {
    let scenario = "sim/scenarios/policy-examples-component.toml";
    let Some((outcome, _)) = run_to_end("rules-component", scenario) else { return };
    assert_eq!(outcome["metrics"]["flows.completed"], 250.0, "{outcome:#}");
    assert_eq!(outcome["metrics"]["flows.broken"], 15.0, "{outcome:#}");
}

#[test]
fn a_component_sends_answers_back_by_the_router_of_its_table() {
    let scenario = "sim/scenarios/policy-outflow-component.toml";
    let Some((outcome, _)) = run_to_end("outflow-component", scenario) else { return };
    assert_eq!(outcome["metrics"]["flows.completed"], 200.0, "{outcome:#}");
    assert_eq!(outcome["metrics"]["flows.broken"], 5.0, "{outcome:#}");
}

/// Runs a scenario in which the scheduler changes under load: each change took place, and nobody on the wires could tell.
fn swap_under_load(name: &str, file: &str, changes: u64, flows: u64) {
    let Some(outcome) = run_well(name, file) else { return };
    let number = |metric: &str| outcome["metrics"][metric].as_f64();
    assert_eq!(number("scheduler.changes"), Some(changes as f64), "{outcome:#}");
    assert_eq!(number("flows.completed"), Some(flows as f64), "{outcome:#}");
    assert_eq!(outcome["broken"], serde_json::json!({}), "no flow has moved");
    assert_eq!(number("packets.lost"), Some(0.0), "{outcome:#}");
    assert_eq!(number("share.deviation"), Some(0.0), "whose turn it is goes over: {outcome:#}");
    assert_eq!(outcome["exits"]["lb"], 0, "the forwarder stops cleanly");
    let packets = number("packets.sent").zip(number("packets.received"));
    let (sent, received) = packets.unwrap();
    eprintln!(
        "{changes} changes, {flows} flows: 0 moved; {sent} packets sent by hosts, {received} received, 0 lost"
    );
}

#[test]
fn scheduler_changes_under_load_and_no_packet_is_lost_and_no_flow_moves() {
    swap_under_load("swaps-few", "swaps-few.toml", 50, 240);
}

/// Half a minute; `make swaps` runs it.
#[test]
#[ignore = "half a minute, by the clock: make swaps"]
fn scheduler_changes_a_thousand_times_under_load() {
    swap_under_load("swaps", "swaps.toml", 1_000, 3_600);
}

/// Starts a long run, ends it by `how`, and checks that nothing is left.
fn end_by(name: &str, how: Signal) -> Option<Output> {
    let run = Run::new(lab()?, name);
    let running = Running::start(run.scenario("long.toml"));
    let namespaces = run.wait_until_up();
    assert_eq!(run.records(), 1);
    running.signal(how);
    let output = running.finish();
    if how == Signal::KILL {
        // The kernel ends the rest by itself; only the record stays, and clean removes it.
        wait_until("the processes end with their runner", || run.processes().is_empty().then_some(()));
        let cleaned = Running::start(run.command(&["lab", "clean", "--json"])).finish();
        assert!(cleaned.status.success(), "{}", String::from_utf8_lossy(&cleaned.stderr));
        assert_eq!(outcome(&cleaned)["runs"], 1);
    }
    run.assert_nothing_left(&namespaces);
    Some(output)
}

#[test]
fn interrupted_run_leaves_nothing_behind() {
    let Some(output) = end_by("interrupted", Signal::INT) else { return };
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("SIGINT"));
}

#[test]
fn terminated_run_leaves_nothing_behind() {
    let Some(output) = end_by("terminated", Signal::TERM) else { return };
    assert!(String::from_utf8_lossy(&output.stderr).contains("SIGTERM"));
}

#[test]
fn killed_run_leaves_only_a_record_and_clean_removes_it() {
    let Some(output) = end_by("killed", Signal::KILL) else { return };
    assert_eq!(output.status.code(), None);
}

#[test]
fn clean_leaves_a_run_alone_that_goes_on() {
    let Some(program) = lab() else { return };
    let run = Run::new(program, "going-on");
    let running = Running::start(run.scenario("long.toml"));
    let namespaces = run.wait_until_up();
    let cleaned = Running::start(run.command(&["lab", "clean", "--json"])).finish();
    assert_eq!(outcome(&cleaned)["running"], 1);
    assert_eq!(outcome(&cleaned)["processes"], 0);
    running.signal(Signal::TERM);
    running.finish();
    run.assert_nothing_left(&namespaces);
}

#[test]
fn forwarder_that_does_not_start_is_told_with_its_own_words() {
    let Some(program) = lab() else { return };
    let run = Run::new(program, "bad-config");
    let folder = run.records.with_extension("scenario");
    fs::create_dir(&folder).unwrap();
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    fs::copy(here.join("balanced.toml"), folder.join("balanced.toml")).unwrap();
    let config = fs::read_to_string(here.join("balanced-evenkeel.toml")).unwrap();
    let config = config
        .replace("scheduler = \"wrr\"", "scheduler = { component = \"absent.wasm\", fallback = \"wrr\" }");
    fs::write(folder.join("balanced-evenkeel.toml"), config).unwrap();
    let path = folder.join("balanced.toml");
    let output = Running::start(run.command(&["lab", "run", path.to_str().unwrap()])).finish();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("absent.wasm"), "{said}");
    fs::remove_dir_all(&folder).unwrap();
    run.assert_nothing_left(&BTreeSet::new());
}
