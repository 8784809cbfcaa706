//! The forwarder against the kernel's NAT and other forwarders, end to end on one machine.
//!
//! ```text
//! client --- forwarder under test --- server        three namespaces, joined by veth
//! ```
//!
//! In goes a list of forwarders, out comes a table of packets, bytes, CPU time and latency of each, and
//! the ratios that were promised. Rounds are interleaved: each forwarder is started, measured and stopped
//! in turn, again and again, and the medians are compared, so that a machine that is slower for a while
//! is so for all of them. It needs root, `ip`, and `nft`, `haproxy` and `nginx` for those.

#![forbid(unsafe_code)]

mod bare;
mod forwarders;
mod lab;
mod measure;
mod report;
mod traffic;

use std::io::{self, IsTerminal, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use evenkeel_io::IoChoice;

use forwarders::Forwarder;
use lab::{Host, Lab};
use measure::Measure;
use report::{Report, Samples};

/// Why a run has ended early, in words.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Measures forwarders end to end on namespaces of this machine.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    /// The `evenkeel` binary, built in release mode. Default: the one beside this program; without any, it
    /// is left out.
    #[arg(long, value_name = "PATH")]
    evenkeel: Option<PathBuf>,
    /// Rounds that the medians are of.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Seconds that each figure is measured.
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    seconds: f64,
    /// Only these forwarders.
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Forwarder>,
    /// Only these kinds of traffic.
    #[arg(long, value_delimiter = ',', value_enum)]
    measure: Vec<Measure>,
    /// Seconds to wait, before each window, for a machine that does nothing else.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=3600))]
    patience: u64,
    /// Lets the run go before everything else on the machine.
    #[arg(long)]
    urgent: bool,
    /// Prints the result as JSON.
    #[arg(long)]
    json: bool,
    /// Ends with 1 when a goal is missed.
    #[arg(long)]
    strict: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

/// The parts that this program plays in the namespaces; started by itself.
#[derive(Debug, Subcommand)]
enum Part {
    /// The server: sinks and echo.
    #[command(hide = true)]
    Serve,
    /// Sends small datagrams from one namespace and receives them in its own.
    #[command(hide = true)]
    Flood {
        #[arg(long)]
        client: String,
        #[arg(long)]
        to: SocketAddrV4,
        #[arg(long)]
        window: bool,
        #[arg(long)]
        mixed: bool,
    },
    /// Opens and closes TCP connections.
    #[command(hide = true)]
    Connect {
        #[arg(long)]
        to: SocketAddrV4,
    },
    /// Writes on TCP connections.
    #[command(hide = true)]
    Stream {
        #[arg(long)]
        to: SocketAddrV4,
        #[arg(long)]
        streams: usize,
    },
    /// Measures round trips.
    #[command(hide = true)]
    Ping {
        #[arg(long)]
        to: SocketAddrV4,
        #[arg(long)]
        rate: u64,
        #[arg(long, value_parser = seconds)]
        seconds: f64,
    },
    /// Waits until packets pass.
    #[command(hide = true)]
    Probe {
        #[arg(long)]
        to: SocketAddrV4,
        #[arg(long)]
        protocol: String,
        #[arg(long, value_parser = seconds)]
        seconds: f64,
    },
    /// A forwarder that only rewrites.
    #[command(hide = true)]
    Bare {
        #[arg(long, value_enum)]
        way: Way,
        #[arg(long)]
        vip: Ipv4Addr,
        #[arg(long)]
        server: Ipv4Addr,
    },
    /// Removes what a run has left, when its stdin ends.
    #[command(hide = true)]
    CleanAfter { id: u32 },
}

/// How the bare forwarder moves packets.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Way {
    /// Blocking read and write, no offloads.
    Plain,
    /// The device over io_uring.
    IoUring,
    /// The device over epoll.
    Epoll,
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    arguments.evenkeel = arguments.evenkeel.or_else(binary_beside);
    let result = match &arguments.part {
        Some(part) => play(part).map(|()| ExitCode::SUCCESS),
        None => run(&arguments),
    };
    result.unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "error: {error}");
        ExitCode::FAILURE
    })
}

fn play(part: &Part) -> Result<(), Failure> {
    match part {
        Part::Serve => traffic::serve(lab::SERVER),
        Part::Flood { client, to, window, mixed } => {
            traffic::flood(client, *to, lab::SERVER, traffic::Shape { has_window: *window, is_mixed: *mixed })
        }
        Part::Connect { to } => traffic::connect(*to),
        Part::Stream { to, streams } => traffic::stream(*to, *streams),
        Part::Ping { to, rate, seconds } => traffic::ping(*to, *rate, Duration::from_secs_f64(*seconds)),
        Part::Probe { to, protocol, seconds } => {
            traffic::probe(*to, protocol == "tcp", Duration::from_secs_f64(*seconds))
        }
        Part::Bare { way, vip, server } => {
            let translation = bare::Translation { vip: *vip, server: *server };
            match way {
                Way::Plain => bare::run_plain("tun0", translation),
                Way::IoUring => bare::run_device("tun0", IoChoice::IoUring, translation),
                Way::Epoll => bare::run_device("tun0", IoChoice::Epoll, translation),
            }
        }
        Part::CleanAfter { id } => lab::clean_after(*id),
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    if arguments.urgent {
        rustix::process::setpriority_process(None, -20)?;
        // Where sessions share the processors before processes do, the whole session has to go first.
        let _ = std::fs::write("/proc/self/autogroup", "-20");
    }
    let mut lab = Lab::build()?;
    let window = Duration::from_secs_f64(arguments.seconds);
    let forwarders = chosen(arguments);
    let measures =
        if arguments.measure.is_empty() { Measure::ALL.to_vec() } else { arguments.measure.clone() };
    let mut samples = Samples::new();
    for round in 1..=arguments.rounds {
        for forwarder in &forwarders {
            let running = forwarder.start(&lab, arguments.evenkeel.as_deref())?;
            for measure in measures.iter().copied().filter(|measure| forwarder.can(*measure)) {
                let (name, what) = (forwarder.name(), measure.name());
                progress(&format!("round {round} of {}: {name} {what}", arguments.rounds));
                measure::wait_for_quiet(&lab, Duration::from_secs(arguments.patience))?;
                let sample = measure::measure(&mut lab, *forwarder, measure, window)
                    .map_err(|error| format!("{name}, {what}: {error}"))?;
                samples.entry((*forwarder, measure)).or_default().push(sample);
            }
            running.stop(&lab);
        }
    }
    progress("");
    let has_veth_gro = has_gro(&lab);
    let report = Report::new(&samples, arguments.rounds.into(), arguments.seconds, has_veth_gro);
    let text = if arguments.json { serde_json::to_string_pretty(&report)? + "\n" } else { report.table() };
    io::stdout().write_all(text.as_bytes())?;
    let is_bad = arguments.strict && !report.is_met();
    Ok(if is_bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The forwarders to measure: those that were named, or all that are there.
fn chosen(arguments: &Arguments) -> Vec<Forwarder> {
    if !arguments.only.is_empty() {
        return arguments.only.clone();
    }
    let is_there = |forwarder: &Forwarder| match forwarder {
        Forwarder::Evenkeel | Forwarder::EvenkeelNative | Forwarder::EvenkeelEpoll => {
            arguments.evenkeel.is_some()
        }
        Forwarder::Nft => has_program("nft"),
        Forwarder::Haproxy => has_program("haproxy"),
        Forwarder::Nginx => has_program("nginx"),
        Forwarder::Route | Forwarder::Plain | Forwarder::BareUring | Forwarder::BareEpoll => true,
    };
    let (there, missing): (Vec<_>, Vec<_>) = Forwarder::ALL.into_iter().partition(is_there);
    for forwarder in missing {
        let _ = writeln!(io::stderr(), "left out: {} (not installed or not named)", forwarder.name());
    }
    there
}

fn binary_beside() -> Option<PathBuf> {
    let path = std::env::current_exe().ok()?.with_file_name("evenkeel");
    path.is_file().then_some(path)
}

fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// Whether the forwarder's veth merges packets, by ethtool; where that is missing, no (the default).
fn has_gro(lab: &Lab) -> bool {
    let said = lab.run(Host::Forwarder, "ethtool", &["-k", "f0"]).unwrap_or_default();
    said.contains("generic-receive-offload: on")
}

/// One line that is overwritten, on a terminal only.
fn progress(text: &str) {
    let mut out = io::stderr();
    if out.is_terminal() {
        let _ = write!(out, "\r\x1b[K{text}");
        let _ = out.flush();
    }
}

/// A length of time in seconds, more than none and at most an hour.
fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text} is not a number"))?;
    if seconds > 0.0 && seconds <= 3600.0 { Ok(seconds) } else { Err("more than 0, at most 3600".to_owned()) }
}
