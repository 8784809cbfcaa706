//! The lab: a scenario of the simulator on real networks of the kernel, with the real forwarder.
//!
//! What comes in: a scenario file and the path of the binary `evenkeel`. What goes out: an [`Outcome`] with
//! the same table and the same expectations as the simulator's. What it never does: change the network,
//! the mounts or the settings of the machine it runs on.
//!
//! ```text
//! evenkeel lab run            the runner: reads the scenario, waits, judges
//!  '- enter                   makes the namespaces; as an ordinary user a user namespace first
//!      '- conduct             head of a process namespace, in a network with one bridge per segment
//!          |- host            a client: its own network, kernel sockets, the load
//!          |- host            a real server: its own network, kernel sockets, answers
//!          '- host            the forwarder's machine: its own network and /run
//!              '- evenkeel run --config ...
//! ```
//!
//! Everything is anonymous and hangs on the head: when it ends, the kernel kills every process inside, and
//! the networks, links and devices vanish with the last of them. Each process asks the kernel to be killed
//! when its parent ends. A run is also written down, so that [`clean`] can end what should still be there.

#![forbid(unsafe_code)]

mod child;
mod client;
mod comparison;
mod conductor;
mod forwarder;
mod host;
mod network;
mod orders;
mod outcome;
mod plan;
mod record;
mod runner;
mod sandbox;
mod server;
mod wire;
mod work;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use evenkeel_engine::plan::DirectorPlan;
use evenkeel_engine::wire::Protocol;
use evenkeel_sim::scenario::{Scenario, ScenarioErrors, Service};
use serde::{Deserialize, Serialize};

pub use comparison::{
    Comparison, DROPS_MIN, DropComparison, ServerComparison, TOLERANCE_BROKEN_PERCENT, TOLERANCE_FLOWS,
    TOLERANCE_POINTS, compare,
};
pub use orders::Cause;
pub use outcome::{Judgement, Outcome, SCHEMA};
pub use plan::{DURATION_MAX, FLOWS_MAX, MACHINES_MAX};
pub use record::Cleaned;

/// The first argument of the processes that the lab starts. A binary that offers the lab hands what follows
/// it to [`child_main`], before it starts a thread.
pub const CHILD: &str = "lab-child";

/// How a run is done.
#[derive(Clone, Debug)]
pub struct Options {
    /// The binary that the forwarder and the lab's own processes are started from.
    pub program: PathBuf,
    /// The seed of arrivals, delays and losses; without one the scenario's.
    pub seed: Option<u64>,
}

/// What a run is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A new part has begun.
    Stage(String),
    /// So many flows have ended. `total` is zero when nobody knows before.
    Flows {
        /// Flows that have ended.
        done: u64,
        /// Flows that will be opened.
        total: u64,
    },
}

/// Something that a lab needs and this machine or user does not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// What is missing.
    pub what: String,
    /// What the system answered.
    pub why: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.what, self.why, self.remedy)
    }
}

/// Why there is no outcome.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// The scenario is wrong.
    #[error("{0}")]
    Scenario(#[from] ScenarioErrors),
    /// The configuration of a forwarder is wrong.
    #[error("{0}")]
    Config(String),
    /// The scenario is more than a lab can do.
    #[error("the scenario has {0}")]
    TooLarge(String),
    /// The scenario has something that a lab can not do.
    #[error("{0}")]
    Unable(String),
    /// The machine lacks something.
    #[error("a lab can not run here: {}", list(.0))]
    Missing(Vec<Missing>),
    /// Something inside the lab failed.
    #[error("{0}")]
    Failed(String),
    /// A signal ended the run.
    #[error("stopped by {0}; nothing is left behind")]
    Interrupted(&'static str),
    /// The system refused something outside of the lab.
    #[error("{0}")]
    System(#[from] io::Error),
}

fn list(missing: &[Missing]) -> String {
    missing.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Runs a scenario. Blocks until it has ended, and waits then until nothing of it is left.
///
/// SIGINT and SIGTERM end the run with [`LabError::Interrupted`]; after the call the process no longer ends
/// by these signals of itself.
///
/// # Errors
///
/// When the scenario or a configuration is wrong, the machine lacks something, or a part of the lab fails.
/// An expectation that does not hold is no error: see [`Outcome::is_met`].
pub fn run(
    scenario: &Path,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Outcome, LabError> {
    let scenario = Scenario::load(scenario)?;
    let mut files = Vec::new();
    let mut directors = Vec::new();
    for forwarder in &scenario.forwarders {
        let loaded = evenkeel_config::load(&forwarder.config)
            .map_err(|diagnostics| LabError::Config(diagnostics.to_string()))?;
        let control = std::path::absolute(loaded.base_dir().join(&loaded.forwarder.control))?;
        directors.push(loaded.plan.directors.clone());
        let real_servers = real_servers(&loaded.plan.directors);
        files.push(plan::ForwarderFile { control, real_servers, directors: loaded.plan.directors });
    }
    let seed = options.seed.unwrap_or(scenario.seed);
    let plan = plan::lay_out(&scenario, &files, &options.program, seed)?;
    available(&options.program)?;
    let findings = runner::run(&plan, progress)?;
    Ok(outcome::judge(&scenario, &directors, seed, &findings))
}

fn real_servers(directors: &[DirectorPlan]) -> Vec<Service> {
    let mut services = Vec::new();
    for director in directors {
        // Only flow rules lead here, by either protocol.
        if director.binds.is_empty() {
            for server in director.servers.iter().filter(|server| server.port != 0) {
                let (address, port) = (server.address, server.port);
                services.extend([Protocol::TCP, Protocol::UDP].map(|protocol| Service {
                    address,
                    port,
                    protocol,
                }));
            }
        }
        for (server, binding) in director
            .servers
            .iter()
            .flat_map(|server| director.binds.iter().map(move |binding| (server, binding)))
        {
            // Without a port of its own a real server is called where the client called.
            let port = if server.port == 0 { binding.port() } else { Some(server.port) };
            let (address, Some(port)) = (server.address, port) else { continue };
            let protocols =
                binding.protocol.map_or_else(|| vec![Protocol::TCP, Protocol::UDP], |one| vec![one]);
            services.extend(protocols.into_iter().map(|protocol| Service { address, port, protocol }));
        }
    }
    services
}

/// Tries everything that a lab needs, in namespaces that vanish at once.
///
/// # Errors
///
/// [`LabError::Missing`] with everything that did not work and what to do about it.
pub fn available(program: &Path) -> Result<(), LabError> {
    let missing = runner::probe(program)?;
    if missing.is_empty() { Ok(()) } else { Err(LabError::Missing(missing)) }
}

/// Removes what killed runs of this user have left behind: their processes, with which the kernel removes
/// their namespaces, links and devices, and their records.
///
/// # Errors
///
/// When the records can not be read, or a process can not be ended.
pub fn clean() -> Result<Cleaned, LabError> {
    Ok(record::clean(&record::folder()?)?)
}

/// The life of a process that the lab has started. `arguments` are those behind [`CHILD`].
///
/// It must be called before the process starts a thread.
#[must_use]
pub fn child_main(arguments: &[String]) -> ExitCode {
    child::run(arguments)
}
