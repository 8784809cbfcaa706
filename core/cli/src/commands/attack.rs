//! `evenkeel sim attack`: attacks on the engine in virtual time, and what came of them.

use clap::{Subcommand, ValueEnum};
use evenkeel_sim::attack::{AttackError, Mode, forged, fragments, hash, syn_flood};
use serde::Serialize;

use crate::{Failure, output};

/// Bytes of a page where `/proc` counts memory: Linux on the machines that Evenkeel is built for.
const PAGE_BYTES: u64 = 4096;

/// Attack the engine in virtual time; exit code 1 when a promise is broken
///
/// The same numbers and seed give the same outcome on every machine.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Segments and errors in the name of others, who are known but for
    /// their sequence numbers
    Forged {
        /// Established connections
        #[arg(long, value_name = "N", default_value_t = 1_000)]
        connections: u32,
        /// Forged packets
        #[arg(long, value_name = "N", default_value_t = 1_000_000)]
        packets: u64,
        /// How packets reach the real servers
        #[arg(long, value_enum, default_value = "nat")]
        mode: ModeArgument,
        #[command(flatten)]
        common: Common,
    },
    /// Connections that nobody means to open
    SynFlood {
        /// Places in the flow table; half of them are taken before
        #[arg(long, value_name = "N", default_value_t = 10_000)]
        flows: u32,
        /// SYNs for each place
        #[arg(long, value_name = "N", default_value_t = 100)]
        factor: u32,
        /// SYNs per second [default: 5 for each half-open place]
        #[arg(long, value_name = "N")]
        rate: Option<u64>,
        #[command(flatten)]
        common: Common,
    },
    /// Tuples chosen with the source code, but without the key
    Hash {
        /// Tuples of each kind
        #[arg(long, value_name = "N", default_value_t = 1_000_000)]
        tuples: u32,
        /// Real servers
        #[arg(long, value_name = "N", default_value_t = 10)]
        servers: u16,
        #[command(flatten)]
        common: Common,
    },
    /// Parts of datagrams that never become whole, on half of the link
    Fragments {
        /// How many times what the engine holds at most
        #[arg(long, value_name = "N", default_value_t = 10)]
        factor: u32,
        #[command(flatten)]
        common: Common,
    },
}

/// What every attack takes.
#[derive(Clone, Copy, Debug, clap::Args)]
struct Common {
    /// The seed of everything random
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// The outcome as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeArgument {
    /// The destination is translated
    Nat,
    /// Source and destination are translated
    FullNat,
    /// Nothing is translated, and answers do not come by
    Gateway,
}

impl From<ModeArgument> for Mode {
    fn from(mode: ModeArgument) -> Self {
        match mode {
            ModeArgument::Nat => Self::Nat,
            ModeArgument::FullNat => Self::FullNat,
            ModeArgument::Gateway => Self::Gateway,
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match arguments.command {
        Command::Forged { connections, packets, mode, common } => {
            let options = forged::Options { connections, packets, seed: common.seed, mode: mode.into() };
            let report = forged::run(&options).map_err(usage)?;
            tell(common, &report, &report.to_text(), report.is_as_expected())
        }
        Command::SynFlood { flows, factor, rate, common } => {
            let options = syn_flood::Options { flows, factor, rate, seed: common.seed };
            let report = syn_flood::run(&options, &mut resident_bytes).map_err(usage)?;
            tell(common, &report, &report.to_text(), report.is_as_expected())
        }
        Command::Hash { tuples, servers, common } => {
            let report = hash::run(&hash::Options { tuples, servers, seed: common.seed }).map_err(usage)?;
            tell(common, &report, &report.to_text(), report.is_as_expected())
        }
        Command::Fragments { factor, common } => {
            let options = fragments::Options { factor, seed: common.seed };
            let report = fragments::run(&options, &mut resident_bytes).map_err(usage)?;
            tell(common, &report, &report.to_text(), report.is_as_expected())
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "as map_err gives it")]
fn usage(error: AttackError) -> Failure {
    Failure::Usage(error.to_string())
}

fn tell(common: Common, report: &impl Serialize, text: &str, is_as_expected: bool) -> Result<(), Failure> {
    if common.json {
        let value = serde_json::to_value(report).map_err(Failure::runtime)?;
        output::answer(&format!("{value:#}\n"))?;
    } else {
        output::answer(text)?;
    }
    if is_as_expected { Ok(()) } else { Err(Failure::Runtime("a promise is broken".to_owned())) }
}

/// Resident memory of this process, where `/proc` tells it.
fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(PAGE_BYTES)
}
