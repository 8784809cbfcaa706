//! `evenkeel fmt` and `evenkeel import` as a script sees them.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;
use std::process::{Command, Output};

fn evenkeel(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_evenkeel")).args(arguments).output().unwrap()
}

fn file(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn rules_are_printed_checked_and_changed_in_place() {
    let path = file("one.rules", "# All.\nflow a deny   match\n");
    let name = path.to_str().unwrap();
    let printed = "# All.\nflow a deny\n  match\n";
    assert_eq!(out(&evenkeel(&["fmt", name])), printed);
    assert_eq!(evenkeel(&["fmt", "--check", name]).status.code(), Some(1));
    assert!(evenkeel(&["fmt", "--write", name]).status.success());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), printed);
    assert!(evenkeel(&["fmt", "--check", name]).status.success());
    let tables = out(&evenkeel(&["fmt", "--to", "toml", name]));
    assert!(tables.contains("[[flow]]\nname = \"a\"\npolicy = \"deny\""), "{tables}");
    let config = file("one.toml", &format!("[interface.tun0]\nkind = \"tun\"\n{tables}"));
    assert_eq!(out(&evenkeel(&["fmt", config.to_str().unwrap()])), "flow a deny\n  match\n");
    let wrong = file("wrong.rules", "flow a deny mtach\n");
    let output = evenkeel(&["fmt", wrong.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("wrong.rules:1:13"), "{output:?}");
}

#[test]
fn what_is_imported_passes_the_check() {
    let save =
        file("ipvs.rules", "-A -t 10.9.9.9:80 -s wlc\n-a -t 10.9.9.9:80 -r 10.0.3.20:80 -m -w 5 --gap\n");
    let output = evenkeel(&["import", "ipvsadm", save.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("ipvs.rules:2:43"), "{output:?}");
    let config = file("imported.toml", &out(&output));
    let checked = evenkeel(&["check", "--config", config.to_str().unwrap()]);
    assert!(checked.status.success(), "{checked:?}");
    assert!(out(&checked).contains("fine (1 director, 1 real server)"), "{checked:?}");
    assert_eq!(evenkeel(&["import", "keepalived", save.to_str().unwrap()]).status.code(), Some(2));
    let back = evenkeel(&["export", "ipvsadm", "--config", config.to_str().unwrap()]);
    assert_eq!(out(&back), "-A -t 10.9.9.9:80 -s wlc\n-a -t 10.9.9.9:80 -r 10.0.3.20:80 -m -w 5\n");
    assert!(back.stderr.is_empty(), "{back:?}");
}

#[test]
fn an_import_of_haproxy_passes_the_check_and_tells_what_it_leaves_out() {
    let theirs = "\
frontend web
  bind *:80
  default_backend servers
backend servers
  balance source
  stick-table type ip size 20k expire 8h peers haproxy-cluster
  stick on src
  server one 10.0.3.20:80 check
peers hapeers
  peer a 10.0.0.1:1024
";
    let theirs = file("haproxy.cfg", theirs);
    let output = evenkeel(&["import", "haproxy", "--address", "10.0.0.3", theirs.to_str().unwrap()]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        told.contains("no section `peers haproxy-cluster`") && told.contains("did you mean `hapeers`?"),
        "{told}"
    );
    assert!(told.contains("haproxy.cfg:6:"), "{told}");
    let config = file("from-haproxy.toml", &out(&output));
    let checked = evenkeel(&["check", "--config", config.to_str().unwrap()]);
    assert!(out(&checked).contains("fine (1 director, 1 real server)"), "{checked:?}");
    let back = evenkeel(&["export", "ipvsadm", "--config", config.to_str().unwrap()]);
    assert!(out(&back).starts_with("-A -t 10.0.0.3:80 -s wlc -p 28800\n"), "{back:?}");
    assert!(String::from_utf8_lossy(&back.stderr).contains("`source`, is none of IPVS"), "{back:?}");
    let explained = "tcp 198.51.100.7:4242 > 10.0.0.3:80 syn";
    let told = out(&evenkeel(&["explain", "--config", config.to_str().unwrap(), explained]));
    assert!(told.contains("source picks one"), "{told}");
}
