//! The command as a script sees it: exit codes, what goes to which output, and what a mistake looks like.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

const GOOD: &str = r#"
[interface.tun0]
kind = "tun"

[director.web]
bind = "10.0.0.3:80/tcp"
mode = "nat"
scheduler = "rr"
[[director.web.server]]
name = "s1"
address = "10.0.3.20:8080"
weight = 4
"#;

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("evenkeel-cli-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn evenkeel() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    command.stdin(Stdio::null()).env_remove("NO_COLOR");
    command
}

fn check(text: impl AsRef<[u8]>, extra: &[&str]) -> Output {
    let folder = Folder::new();
    let path = folder.file("evenkeel.toml", text);
    evenkeel().args(["check", "--config"]).arg(path).args(extra).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_good_configuration_is_fine_and_says_what_is_in_it() {
    let output = check(GOOD, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).ends_with("evenkeel.toml: fine (1 director, 1 real server)\n"));
    let output = check(GOOD, &["--format", "json"]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), ""));
}

#[test]
fn every_bad_configuration_gives_code_2_and_its_place() {
    let director = |scheduler: &str| GOOD.replace("\"rr\"", scheduler);
    let twice = GOOD.to_owned() + &GOOD[GOOD.find("[director").unwrap()..].replace(".web", ".again");
    // What is wrong, its text, a word of the message, line and column.
    let cases = [
        ("unknown key", GOOD.replace("weight", "wieght"), "weight", 12, 1),
        ("wrong type", GOOD.replace("weight = 4", "weight = \"4\""), "weight", 12, 10),
        ("weight out of range", GOOD.replace("weight = 4", "weight = 70000"), "65535", 12, 10),
        ("duplicate VIP", twice, "10.0.0.3:80", 14, 8),
        ("unknown scheduler", director("\"fastest\""), "fastest", 8, 13),
        ("not TOML", "[forwarder\n".to_owned(), "TOML", 1, 11),
        ("unreadable component", director("{ component = \"nowhere.wasm\" }"), "nowhere.wasm", 8, 27),
        ("no such bundled one", director("{ component = \"bundled:maglove\" }"), "maglove", 8, 27),
    ];
    for (what, config, word, line, column) in cases {
        let output = check(&config, &[]);
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{what}: {errors}");
        assert_eq!(text(&output.stdout), "", "{what}");
        assert!(errors.contains(word), "{what}: {errors}");
        assert!(errors.contains(&format!("evenkeel.toml:{line}:{column}")), "{what}: {errors}");
        assert!(errors.contains("help"), "{what}: {errors}");
        assert!(!errors.contains('\u{1b}'), "{what}: no colours in a pipe");

        let output = check(&config, &["--format", "json"]);
        assert_eq!(output.status.code(), Some(2), "{what}");
        assert_eq!(text(&output.stderr), "", "{what}");
        let first: Value = serde_json::from_str(text(&output.stdout).lines().next().unwrap()).unwrap();
        assert_eq!(first["line"], line, "{what}: {first:#}");
        assert_eq!(first["column"], column, "{what}: {first:#}");
        assert_eq!(first["severity"], "error", "{what}");
        assert!(first["help"].is_string(), "{what}: {first:#}");
    }
}

#[test]
fn a_component_without_the_world_is_reported_at_its_place() {
    let folder = Folder::new();
    // The smallest component: it exports nothing.
    folder.file("empty.wasm", b"\0asm\x0d\0\x01\0");
    folder.file("text.wasm", "this is not WASM");
    // A policy where a scheduler is wanted.
    for component in ["empty.wasm", "text.wasm", "bundled:rate-guard"] {
        let config = GOOD.replace("\"rr\"", &format!("{{ component = \"{component}\" }}"));
        let path = folder.file("evenkeel.toml", config);
        let output = evenkeel().args(["check", "--config"]).arg(path).output().unwrap();
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{component}: {errors}");
        assert!(errors.contains("evenkeel.toml:8:27"), "{component}: {errors}");
        assert!(errors.contains(component), "{errors}");
    }
}

#[test]
fn bytes_that_are_no_configuration_never_crash_the_check() {
    for bytes in [&b""[..], b"\xff\xfe\0", b"\0", b"a = [[[[[[[[", &[b'['; 5000], b"\xef\xbb\xbf"] {
        let output = check(bytes, &[]);
        assert_eq!(output.status.code(), Some(2), "{bytes:?}: {}", text(&output.stderr));
    }
}

/// The commands that read a configuration and do nothing without one.
const READERS: [&[&str]; 4] = [&["check"], &["run"], &["routes"], &["sim", "stdio"]];

/// Options that name no file that is there, and the path that they lead to. On a machine that has a forwarder the
/// default leads to its file.
#[allow(clippy::print_stdout, reason = "a test that leaves something out says so")]
fn ways_to_no_file() -> Vec<(&'static [&'static str], &'static str)> {
    let mut ways: Vec<(&[&str], _)> = vec![(&["--config", "absent.toml"], "absent.toml")];
    let default = "/etc/evenkeel/evenkeel.toml";
    if Path::new(default).exists() {
        println!("SKIPPED: without --config, because this machine has {default}");
    } else {
        ways.push((&[], default));
    }
    ways
}

#[test]
fn without_a_file_the_words_name_the_path_the_option_and_a_first_file() {
    let folder = Folder::new();
    for words in READERS {
        for (option, path) in ways_to_no_file() {
            let output = evenkeel().args(words).args(option).current_dir(&folder.0).output().unwrap();
            let errors = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{words:?}: {errors}");
            assert_eq!(text(&output.stdout), "", "{words:?}");
            for part in [path, "--config FILE", "`evenkeel check --help` shows a first one"] {
                assert!(errors.contains(part), "{words:?} {option:?}: {part}: {errors}");
            }
            let says_default = errors.contains("no evenkeel.toml is in this folder");
            assert_eq!(says_default, option.is_empty(), "{words:?}: {errors}");
        }
    }
}

#[test]
fn without_a_file_json_says_the_same() {
    let folder = Folder::new();
    for (option, path) in ways_to_no_file() {
        let mut command = evenkeel();
        let output = command.args(["check", "--format", "json"]).args(option).current_dir(&folder.0).output();
        let output = output.unwrap();
        assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(2), ""));
        let value: Value = serde_json::from_slice(&output.stdout).expect("one line, one object");
        assert_eq!((&value["code"], &value["severity"]), (&"unreadable".into(), &"error".into()));
        assert_eq!(value["file"], path);
        let help = value["help"].as_str().unwrap();
        assert!(help.contains("--config FILE") && help.contains("evenkeel check --help"), "{help}");
    }
}

#[test]
fn the_file_in_this_folder_is_the_default() {
    let folder = Folder::new();
    folder.file("evenkeel.toml", GOOD);
    let output = evenkeel().arg("check").current_dir(&folder.0).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn the_first_file_of_the_help_is_that_of_the_quick_start_and_is_fine() {
    let output = evenkeel().args(["check", "--help"]).output().unwrap();
    let help = text(&output.stdout);
    let (_, shown) = help.split_once("A first file, evenkeel.toml:\n\n").unwrap();
    let first: String =
        shown.lines().map(|line| format!("{}\n", line.strip_prefix("  ").unwrap_or(line))).collect();
    let quick_start = include_str!("../../../docs/src/quick-start.md");
    assert!(quick_start.contains(&format!("```toml\n{}\n```\n", first.trim_end())), "{first}");
    let output = check(&first, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "", "without a warning");
}

#[test]
fn a_forwarder_does_not_start_with_a_broken_configuration_or_without_its_interface() {
    let folder = Folder::new();
    let path = folder.file("evenkeel.toml", GOOD.replace("\"rr\"", "\"fastest\""));
    let output = evenkeel().args(["run", "--config"]).arg(&path).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("evenkeel.toml:8:13"), "{}", text(&output.stderr));

    // An Ethernet interface must be there already.
    let frames = GOOD.replace("tun0", "absent0").replace("kind = \"tun\"", "kind = \"ethernet\"");
    std::fs::write(&path, frames).unwrap();
    let output = evenkeel().args(["run", "--config"]).arg(&path).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("there is no interface absent0"), "{}", text(&output.stderr));
}

#[test]
fn wrong_usage_gives_code_2_and_help_gives_code_0() {
    for words in [&["fly"][..], &["ctl"], &["check", "--fast"], &["sim", "run"], &["completions", "x"], &[]] {
        assert_eq!(evenkeel().args(words).output().unwrap().status.code(), Some(2), "{words:?}");
    }
    for words in [&["--help"][..], &["ctl", "--help"], &["lab", "run", "--help"], &["--version"]] {
        let output = evenkeel().args(words).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{words:?}");
        assert!(text(&output.stdout).lines().all(|line| line.chars().count() <= 80), "{words:?}");
    }
}

#[test]
fn nobody_answers_is_code_1_with_the_socket() {
    let folder = Folder::new();
    let socket = folder.0.join("none.sock");
    let output = evenkeel().args(["ctl", "--socket"]).arg(&socket).arg("stats").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("none.sock"), "{}", text(&output.stderr));
    // Without --socket, that of the configuration.
    let path = folder.file("evenkeel.toml", "[forwarder]\ncontrol = \"other.sock\"\n".to_owned() + GOOD);
    let output = evenkeel().args(["ctl", "stats", "--config"]).arg(path).output().unwrap();
    assert!(text(&output.stderr).contains("other.sock"), "{}", text(&output.stderr));
}

#[test]
fn routes_are_printed_as_a_script_and_as_json() {
    let folder = Folder::new();
    let path = folder.file("evenkeel.toml", GOOD);
    let output = evenkeel().args(["routes", "--config"]).arg(&path).output().unwrap();
    let script = text(&output.stdout);
    assert!(script.contains("\nip route add 10.0.0.3/32 dev tun0 proto 69\n"), "{script}");
    let mut shell = Command::new("sh").arg("-n").stdin(Stdio::piped()).spawn().unwrap();
    shell.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(shell.wait().unwrap().success(), "a shell reads it");

    let output = evenkeel().args(["routes", "--json", "--config"]).arg(&path).output().unwrap();
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    let printed: Vec<&str> = script.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(value["commands"], serde_json::json!(printed));
}

#[test]
fn schema_version_and_completions_are_machine_readable() {
    let output = evenkeel().arg("schema").output().unwrap();
    let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(schema["properties"]["director"].is_object());
    let output = evenkeel().args(["version", "--json"]).output().unwrap();
    let version: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert!(version["components"].as_array().unwrap().iter().any(|name| name == "maglev"));
    for shell in ["bash", "zsh", "fish"] {
        let output = evenkeel().args(["completions", shell]).output().unwrap();
        assert!(text(&output.stdout).contains("evenkeel"), "{shell}");
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let mut child = evenkeel().arg("schema").stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

fn scenario(folder: &Folder, extra: &str) -> PathBuf {
    let entry = evenkeel_sim::library::find("demo").unwrap();
    for (name, text) in entry.files {
        folder.file(name, text);
    }
    folder.file("demo.toml", entry.files[0].1.to_owned() + extra)
}

#[test]
fn a_simulation_repeats_and_its_exit_code_says_whether_expectations_hold() {
    let folder = Folder::new();
    let run = |path: &PathBuf, seed: &str| {
        let output =
            evenkeel().args(["sim", "run"]).arg(path).args(["--json", "--seed", seed]).output().unwrap();
        assert_eq!(text(&output.stderr).lines().count(), usize::from(!output.status.success()));
        let value: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), value["wire_hash"].clone(), value["decision_hash"].clone())
    };
    let path = scenario(&folder, "");
    let first = run(&path, "7");
    assert_eq!(first.0, Some(0));
    assert_eq!(run(&path, "7"), first);
    assert_ne!(run(&path, "8").1, first.1);
    let path = scenario(&folder, "\n[[expect]]\nmetric = \"flows.completed\"\nmin = 1000000\n");
    assert_eq!(run(&path, "7").0, Some(1));
    std::fs::write(&path, "[scenario]\nnam = \"x\"\n").unwrap();
    let output = evenkeel().args(["sim", "run"]).arg(&path).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("demo.toml:2:1"), "{}", text(&output.stderr));
}

#[test]
fn the_pipe_answers_the_commands_of_ctl() {
    let folder = Folder::new();
    let path = folder.file("evenkeel.toml", GOOD);
    let mut child = evenkeel()
        .args(["sim", "stdio", "--config"])
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = "{\"cmd\":\"weight web s1 9\"}\n{\"cmd\":\"directors\"}\n{\"cmd\":\"stat\"}\n";
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let answers: Vec<Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers[0]["reply"]["weight"], 9);
    assert_eq!(answers[1]["reply"]["directors"][0]["servers"][0]["weight"], 9);
    assert!(answers[2]["error"].as_str().unwrap().contains("did you mean stats"));
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn the_demo_needs_no_file_and_agrees_with_itself() {
    let output = evenkeel().args(["demo", "--json"]).output().unwrap();
    let value: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(value["sim"]["flows"]["completed"], 700);
    if let Some(reasons) = value["skipped"].as_array() {
        println!("SKIPPED: the demo through a real TUN: {reasons:?}");
        assert!(!reasons.is_empty());
    } else {
        assert_eq!(value["comparison"]["broken_lab"], 0);
        assert!(value["comparison"]["largest_difference"].as_f64().unwrap() <= 2.0);
    }
    assert!(output.status.success(), "{value:#}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_simulator_and_the_lab_are_compared() {
    let scenario =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../netns-lab/tests/scenarios/balanced.toml");
    let output = evenkeel().args(["lab", "compare"]).arg(scenario).output().unwrap();
    let (answer, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if said.contains("a lab can not run here") {
        println!("SKIPPED: the comparison with the lab: {said}");
        return;
    }
    assert!(output.status.success(), "{answer}{said}");
    assert!(answer.contains("shares agree: the largest difference is 0.00 points"), "{answer}");
    assert!(
        answer.contains("broken flows agree: 0 of 280 in the simulator, 0 of 280 in the lab"),
        "{answer}"
    );
}
