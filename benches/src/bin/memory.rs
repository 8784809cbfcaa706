//! Prints the resident memory of a process with established flows: `memory [FLOWS]`, 1,048,576 when not said.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program whose purpose is to print")]

use std::process::ExitCode;

use evenkeel_benches::fixture::established;

/// The promise of the specification, for 1,048,576 flows.
const GOAL_MB: u64 = 256;

fn resident_kb() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn main() -> ExitCode {
    let argument = std::env::args().nth(1);
    let flows = match argument.as_deref().map(str::parse::<u32>) {
        None => 1 << 20,
        Some(Ok(flows)) if (1..=1 << 24).contains(&flows) => flows,
        Some(_) => {
            eprintln!("memory: the number of flows is between 1 and 16777216");
            return ExitCode::from(2);
        }
    };
    let before = resident_kb();
    let Ok((engine, device)) = established(flows, 64) else {
        eprintln!("memory: the engine refused the plan of the bench");
        return ExitCode::FAILURE;
    };
    let (Some(before), Some(after)) = (before, resident_kb()) else {
        eprintln!("memory: /proc/self/status does not tell the resident memory");
        return ExitCode::FAILURE;
    };
    let count = engine.flow_count() as u64;
    println!("flows                {count:>12}");
    println!("resident before      {before:>12} kB");
    println!("resident with flows  {after:>12} kB");
    println!("bytes per flow       {:>12}", (after - before) * 1024 / count.max(1));
    drop(device);
    let is_kept = flows != 1 << 20 || after * 1024 <= GOAL_MB * 1_000_000;
    println!(
        "goal                 {:>12} kB  {}",
        GOAL_MB * 1_000_000 / 1024,
        if is_kept { "kept" } else { "MISSED" }
    );
    if is_kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
