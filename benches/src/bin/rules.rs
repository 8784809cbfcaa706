//! The time of one decision by 1 to 100,000 rules: compiled, walked, and by nftables with the same rules, which needs a
//! network namespace of its own and the program `nft`: `unshare --net cargo run --release --bin rules`.
//!
//! What nftables takes is the time to send a datagram over the loopback interface with the rules in its input chain,
//! less the time without rules.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a program whose purpose is to print")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "it measures time")]

use std::hint::black_box;
use std::io::Write;
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::time::Instant;

use evenkeel_benches::rules::{asked, flows, nftables};
use evenkeel_engine::policy::linear;
use evenkeel_engine::policy::rules::Rules;
use evenkeel_engine::wire::HashKey;

const COUNTS: [u32; 6] = [1, 10, 100, 1_000, 10_000, 100_000];

/// Datagrams of one measurement, fewer where there are many rules: about a second.
const DATAGRAMS: u32 = 200_000;

fn main() {
    println!(
        "{:>8} {:>12} {:>12} {:>12} {:>12}",
        "rules", "compiled ns", "walk ns", "nftables ns", "compile ms"
    );
    let idle = datagrams(0, DATAGRAMS);
    for count in COUNTS {
        let (plans, asked) = (flows(count), asked(1_024, count));
        let begun = Instant::now();
        let mut rules = Rules::new(plans.clone(), HashKey([1, 2]));
        let compile = begun.elapsed().as_secs_f64() * 1e3;
        let compiled = time(200_000, |number| {
            let flow = asked.get(number % asked.len());
            black_box(flow.map(|flow| rules.decide_one(flow, evenkeel_engine::Instant::ZERO)));
        });
        let turns = (20_000_000 / count as usize).clamp(200, 200_000);
        let walk = time(turns, |number| {
            black_box(asked.get(number % asked.len()).map(|flow| linear::evaluate(&plans, flow)));
        });
        let sent = (DATAGRAMS / (1 + count / 50)).max(500);
        let kernel = datagrams(count, sent).zip(idle).map(|(with, without)| with - without);
        let kernel = kernel.map_or_else(|| "-".to_owned(), |ns| format!("{ns:.0}"));
        println!("{count:>8} {compiled:>12.0} {walk:>12.0} {kernel:>12} {compile:>12.1}");
    }
}

/// Nanoseconds of one turn: the least of three measurements.
fn time(turns: usize, mut turn: impl FnMut(usize)) -> f64 {
    let mut least = f64::INFINITY;
    for _ in 0..3 {
        let begun = Instant::now();
        (0..turns).for_each(&mut turn);
        least = least.min(begun.elapsed().as_secs_f64());
    }
    #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
    let turns = turns as f64;
    least * 1e9 / turns
}

/// Nanoseconds of one datagram over the loopback interface behind `count` rules; nothing where nftables can not be used.
fn datagrams(count: u32, sent: u32) -> Option<f64> {
    let run = |program: &str, arguments: &[&str], input: &str| {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().ok()?;
        child.stdin.take()?.write_all(input.as_bytes()).ok()?;
        child.wait().ok()?.success().then_some(())
    };
    run("ip", &["link", "set", "lo", "up"], "")?;
    run("nft", &["flush", "ruleset"], "")?;
    if count > 0 {
        run("nft", &["-f", "-"], &nftables(count))?;
    }
    let to = UdpSocket::bind("127.0.0.1:0").ok()?;
    let from = UdpSocket::bind("127.0.0.1:0").ok()?;
    let place = to.local_addr().ok()?;
    let turns = usize::try_from(sent).ok()?;
    let measured = time(turns, |_| {
        // A full queue drops it behind the rules, which is all the same here.
        let _ = from.send_to(&[0; 16], place);
    });
    run("nft", &["flush", "ruleset"], "")?;
    Some(measured)
}
