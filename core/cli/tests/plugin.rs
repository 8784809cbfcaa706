//! A scheduler and a policy of one's own, as somebody new would make them: the commands of the pages, in a fresh folder.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The pages whose commands are tried.
const PAGE: &str = include_str!("../../../docs/src/plugins/writing-a-scheduler.md");
const PAGE_OF_POLICIES: &str = include_str!("../../../docs/src/plugins/writing-a-policy.md");

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("evenkeel-plugin-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn evenkeel() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    command.stdin(Stdio::null());
    command
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The blocks of a page in this language, one after the other.
fn blocks(page: &str, language: &str) -> String {
    let (mut text, mut is_inside) = (String::new(), false);
    for line in page.lines() {
        match (line.strip_prefix("```"), is_inside) {
            (Some(name), false) if name == language => is_inside = true,
            (Some(""), true) => is_inside = false,
            (_, true) => {
                text.push_str(line);
                text.push('\n');
            }
            _ => {}
        }
    }
    text
}

/// Runs commands in a folder as in a shell of somebody who builds nothing else; what they said.
fn run(script: &str, folder: &Path) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_evenkeel")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let output = Command::new("sh")
        .args(["-e", "-c", script])
        .current_dir(folder)
        .env("PATH", path)
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("RUSTFLAGS")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    said
}

/// Lets what the commands of a page compile lie in one folder for both pages: three quarters of their time go into the
/// same dependencies.
fn with_target(script: &str, plugin: &str) -> String {
    let enter = format!("cd {plugin}\n");
    assert!(script.contains(&enter), "{script}");
    script.replacen(&enter, &format!("{enter}mkdir -p ../target\nln -s ../target target\n"), 1)
}

#[test]
fn the_commands_of_the_pages_end_with_what_the_pages_say() {
    let folder = Folder::new("pages");
    a_scheduler_ends_with_a_table_of_both_schedulers(&folder.0);
    a_policy_ends_with_clients_that_were_served_and_denied(&folder.0);
}

fn a_scheduler_ends_with_a_table_of_both_schedulers(folder: &Path) {
    let script = blocks(PAGE, "sh");
    assert!(script.lines().count() >= 7, "{script}");
    let said = run(&with_target(&script, "nearest"), folder);
    for words in ["nearest.wasm", "deterministic", "of 32", "wlc"] {
        assert!(said.contains(words), "{words} is missing in:\n{said}");
    }
    assert!(!said.contains("FAILED"), "{said}");
    let component = std::fs::metadata(folder.join("nearest/nearest.wasm")).unwrap();
    assert!(component.len() < 64 * 1024, "{} bytes", component.len());
}

fn a_policy_ends_with_clients_that_were_served_and_denied(folder: &Path) {
    let script = blocks(PAGE_OF_POLICIES, "sh");
    assert!(script.lines().count() >= 8, "{script}");
    let said = run(&with_target(&script, "office"), folder);
    for words in ["office.wasm", "worlds    policy", "verdicts", "10000 native rules", "flows.completed"] {
        assert!(said.contains(words), "{words} is missing in:\n{said}");
    }
    assert!(!said.contains("FAILED"), "{said}");
    // The policy of the page is one, and denies what its data names.
    let office = folder.join("office");
    std::fs::write(office.join("src/lib.rs"), blocks(PAGE_OF_POLICIES, "rust")).unwrap();
    let data = "198.18.0.0/15\n";
    std::fs::write(office.join("data.txt"), data).unwrap();
    let said = run("evenkeel plugin build\nevenkeel plugin check office.wasm --data data.txt", &office);
    assert!(
        said.contains("1000 flows: deny 797, skip 203; 203 within a limit, of 1 that it wishes"),
        "{said}"
    );
}

#[test]
fn every_language_has_a_template_and_nothing_is_overwritten() {
    let folder = Folder::new("new");
    for (lang, file) in [("rust", "src/lib.rs"), ("c", "mine-c.c"), ("js", "mine-js.js")] {
        let name = format!("mine-{lang}");
        let new = || {
            evenkeel().current_dir(&folder.0).args(["plugin", "new", &name, "--lang", lang]).output().unwrap()
        };
        let output = new();
        assert!(output.status.success(), "{}", said(&output));
        assert!(folder.0.join(&name).join(file).is_file(), "{lang}: {}", said(&output));
        let output = new();
        assert_eq!(output.status.code(), Some(2));
        assert!(said(&output).contains("exists"), "{}", said(&output));
    }
    let output = evenkeel().args(["plugin", "new", "No Name"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let policy_in_c = ["plugin", "new", "mine", "--kind", "policy", "--lang", "c"];
    let output = evenkeel().current_dir(&folder.0).args(policy_in_c).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("leave out --lang"), "{}", said(&output));
}

/// The compiler of C guests and its linker, as Debian's packages clang and lld bring them.
fn has_clang() -> bool {
    ["clang", "wasm-ld"].iter().all(|tool| {
        let found = Command::new(tool).arg("--version").stdout(Stdio::null()).status();
        found.is_ok_and(|status| status.success())
    })
}

#[test]
fn the_template_in_c_builds_and_behaves() {
    if !has_clang() {
        return println!("SKIPPED: the template in C, because clang or lld is missing");
    }
    let folder = Folder::new("in-c");
    let said = run("evenkeel plugin new mine --lang c\ncd mine\nevenkeel plugin build", &folder.0);
    assert!(said.contains("mine.wasm ("), "{said}");
    let said = run("evenkeel plugin check mine.wasm", &folder.0.join("mine"));
    assert!(said.contains("worlds    hash-scheduler") && !said.contains("FAILED"), "{said}");
    // A module that lacks a function of the world is named by it.
    let source = folder.0.join("mine/mine.c");
    std::fs::write(&source, "int other(void);\nint other(void) { return 1; }\n").unwrap();
    let output = evenkeel().current_dir(folder.0.join("mine")).args(["plugin", "build"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(self::said(&output).contains("is not one of this world"), "{}", self::said(&output));
}

#[test]
fn what_is_no_component_is_refused_by_name() {
    let folder = Folder::new("refused");
    let file = folder.0.join("text.wasm");
    std::fs::write(&file, "this is not WebAssembly").unwrap();
    for command in ["check", "bench", "inspect"] {
        let output = evenkeel().args(["plugin", command]).arg(&file).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{command}");
        assert!(said(&output).contains("text.wasm: "), "{}", said(&output));
    }
    let output = evenkeel().args(["plugin", "build"]).arg(&folder.0).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("evenkeel plugin new"), "{}", said(&output));
}

#[test]
fn a_bundled_component_is_inspected_and_passes_the_suite() {
    let output = evenkeel().args(["plugin", "inspect", "bundled:rr", "--json"]).output().unwrap();
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["worlds"], serde_json::json!(["scheduler", "listener", "keeper"]));
    assert_eq!(value["trouble"], serde_json::Value::Null);
    let output = evenkeel().args(["plugin", "check", "bundled:rr"]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("ok      snapshot"), "{}", said(&output));
}
