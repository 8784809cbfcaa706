//! `evenkeel conformance`: recordings of other load balancers, replayed through the engine.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use evenkeel_sim::conformance::{self, FILE_MAX_BYTES, Options, RecordingError, Report};

use crate::{Failure, output};

/// Replay recordings of other load balancers and show what differs
///
/// Exit code 1 when something differs that is not in the list of differences
/// that are meant.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Frames of a Linux director (IPVS) between real hosts
    IpvsPackets(Recording),
    /// Which real server a Linux director (IPVS) gave to each new client
    IpvsScheduling(Recording),
    /// Which server HAProxy's balance source gave to each client address
    HaproxySource(Recording),
    /// Packets of Katran's own tests
    Katran(Recording),
}

#[derive(Debug, clap::Args)]
struct Recording {
    /// The recording
    file: PathBuf,
    /// Set the engine up to do as was recorded where it has an option for that
    #[arg(long)]
    as_recorded: bool,
    /// The report as JSON
    #[arg(long)]
    json: bool,
}

/// Replays a recording from its text.
type Replay = fn(&str, Options) -> Result<Report, RecordingError>;

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (replay, recording): (Replay, _) = match &arguments.command {
        Command::IpvsPackets(recording) => (conformance::ipvs_packets, recording),
        Command::IpvsScheduling(recording) => (conformance::ipvs_scheduling, recording),
        Command::HaproxySource(recording) => (conformance::haproxy_source, recording),
        Command::Katran(recording) => (conformance::katran, recording),
    };
    let wrong =
        |error: &dyn std::fmt::Display| Failure::Usage(format!("{}: {error}", recording.file.display()));
    let text = read(&recording.file).map_err(|error| wrong(&error))?;
    let options = Options { as_recorded: recording.as_recorded };
    let report = replay(&text, options).map_err(|error| wrong(&error))?;
    if recording.json {
        output::answer(&format!("{:#}\n", report.to_json()))?;
    } else {
        output::answer(&report.to_text())?;
    }
    if report.is_conforming() {
        return Ok(());
    }
    Err(Failure::Runtime(format!("{} {} differ in ways that are not meant", report.differ, report.unit)))
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    file.take(FILE_MAX_BYTES + 1).read_to_string(&mut text)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > FILE_MAX_BYTES {
        return Err(std::io::Error::other(format!("the file is larger than {FILE_MAX_BYTES} bytes")));
    }
    Ok(text)
}
