//! Compares instruction counts with the stored ones: `ratchet STORED [--write] < counts.jsonl`.
//!
//! Reads what `gungraun` prints with `--output-format=json`, one object a line. More than 2 % above a stored count
//! fails, for calls into components 20 %; `--write` stores the new counts instead, for a commit that says why they changed.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program whose purpose is to print")]

use std::collections::BTreeMap;
use std::io::BufRead;
use std::process::ExitCode;

use serde_json::Value;

/// Growth that is not worth a word, in percent: what another linker or a newer patch release may bring.
const SLACK_PERCENT: u64 = 2;

/// The same for calls into components, whose machine code is made for the processor on which they are loaded.
const SLACK_PERCENT_OF_COMPONENTS: u64 = 20;

/// How the benches of components are called.
const COMPONENTS: &str = "pick_32 ";

type Counts = BTreeMap<String, u64>;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(path) = arguments.next() else {
        eprintln!("usage: ratchet STORED [--write] < counts.jsonl");
        return ExitCode::from(2);
    };
    let is_write = arguments.next().as_deref() == Some("--write");
    let now = match measured() {
        Ok(now) if !now.is_empty() => now,
        Ok(_) => {
            eprintln!("ratchet: there is no count on the standard input");
            return ExitCode::FAILURE;
        }
        Err(error) => {
            eprintln!("ratchet: {error}");
            return ExitCode::FAILURE;
        }
    };
    if is_write {
        let text = serde_json::to_string_pretty(&now).unwrap_or_default() + "\n";
        return match std::fs::write(&path, text) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("ratchet: {path}: {error}");
                ExitCode::FAILURE
            }
        };
    }
    let text = std::fs::read_to_string(&path).map_err(|error| error.to_string());
    match text.and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string())) {
        Ok(stored) => compare(&stored, &now),
        Err(error) => {
            eprintln!("ratchet: {path}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The counts on the standard input, by bench.
fn measured() -> Result<Counts, String> {
    let mut counts = Counts::new();
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|error| error.to_string())?;
        let Ok(summary) = serde_json::from_str::<Value>(&line) else { continue };
        let text = |key: &str| summary.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let count = summary.pointer("/profiles/0/data/total/metrics/Ir/values/new").and_then(Value::as_u64);
        let name = format!("{} {}", text("function_name"), text("id"));
        let count = count.ok_or_else(|| format!("no instruction count for {name}"))?;
        counts.insert(name, count);
    }
    Ok(counts)
}

fn compare(stored: &Counts, now: &Counts) -> ExitCode {
    let mut is_kept = true;
    println!("{:<28} {:>12} {:>12} {:>9}", "bench", "stored", "now", "change");
    for (name, count) in now {
        let Some(before) = stored.get(name) else {
            println!("{name:<28} {:>12} {count:>12}   not stored", "-");
            is_kept = false;
            continue;
        };
        let is_component = name.starts_with(COMPONENTS);
        let slack = if is_component { SLACK_PERCENT_OF_COMPONENTS } else { SLACK_PERCENT };
        let limit = before + before * slack / 100;
        let permille = (i128::from(*count) - i128::from(*before)) * 1000 / i128::from((*before).max(1));
        let sign = if permille < 0 { '-' } else { '+' };
        let change = format!("{sign}{}.{} %", permille.abs() / 10, permille.abs() % 10);
        println!(
            "{name:<28} {before:>12} {count:>12} {change:>9}{}",
            if *count > limit { "  GREW" } else { "" }
        );
        is_kept &= *count <= limit;
    }
    for name in stored.keys().filter(|name| !now.contains_key(*name)) {
        println!("{name:<28} is stored and was not measured");
        is_kept = false;
    }
    if is_kept {
        return ExitCode::SUCCESS;
    }
    eprintln!(
        "instruction counts differ: mend the cause, or run `make bench-instructions WRITE=1` and say why"
    );
    ExitCode::FAILURE
}
