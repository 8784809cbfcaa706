//! A run that is stopped leaves what was finished before as it was: each file in the folder is whole, or has another name.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use evenkeel_sim::capture::Reader;
use rustix::process::{Pid, Signal, kill_process};

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Two hosts that talk, without a forwarder.
fn scenario(flows: u32) -> String {
    format!(
        r#"
scenario = {{ name = "talk", duration = "1h" }}
segment.lan.subnet = "10.0.0.0/24"
host.client.attach = [{{ segment = "lan", address = "10.0.0.1/24" }}]
host.server.attach = [{{ segment = "lan", address = "10.0.0.2/24" }}]
load.ask = {{ from = "client", to = "10.0.0.2:80/tcp", arrivals = {{ process = "uniform", rate = "100/s" }}, flows = {flows} }}
"#
    )
}

fn run(folder: &Path, flows: u32) -> Command {
    let file = folder.join(format!("{flows}.toml"));
    std::fs::write(&file, scenario(flows)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    command.args(["sim", "run"]).arg(file).arg("--out").arg(folder.join("out")).args(["--capture", "lan"]);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    command
}

/// Every file of the folder, with what is in it.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let mut files: Vec<_> = entries.map(|path| (name(&path), std::fs::read(&path).unwrap())).collect();
    files.sort();
    files
}

fn packets(bytes: &[u8]) -> usize {
    let mut reader = Reader::new(bytes).unwrap();
    let mut count = 0;
    while reader.next().unwrap().is_some() {
        count += 1;
    }
    count
}

#[test]
fn a_run_that_is_interrupted_leaves_finished_files_alone() {
    let folder = Folder(std::env::temp_dir().join(format!("evenkeel-interrupted-{}", std::process::id())));
    std::fs::create_dir_all(&folder.0).unwrap();
    let out = folder.0.join("out");
    assert!(run(&folder.0, 3).stdout(Stdio::null()).status().unwrap().success());
    let before = files(&out);
    let names: Vec<&str> = before.iter().map(|(name, _)| name.as_str()).collect();
    assert!(names.contains(&"result.json") && names.contains(&"segment-lan.pcapng"), "{names:?}");
    assert!(!names.iter().any(|name| name.ends_with(".part")), "{names:?}");

    // Nobody reads more than the first step: a full pipe keeps the run from coming to its end.
    let mut child =
        run(&folder.0, 100_000).args(["--trace", "host=client"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut first).unwrap();
    assert!(!first.is_empty());
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(Signal::INT.as_raw()), "{status}");

    let (parts, whole): (Vec<_>, Vec<_>) =
        files(&out).into_iter().partition(|(name, _)| name.ends_with(".part"));
    assert_eq!(parts.len(), 1, "the capture that was under way");
    assert!(whole == before, "what the first run has finished is as it was");
    for (name, bytes) in &whole {
        if name.ends_with(".json") {
            serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
        }
        if name.ends_with(".pcapng") {
            assert!(packets(bytes) > 20, "{name}");
        }
    }

    // The next one goes over what was left.
    assert!(run(&folder.0, 3).stdout(Stdio::null()).status().unwrap().success());
    assert!(!files(&out).iter().any(|(name, _)| name.ends_with(".part")));
}
