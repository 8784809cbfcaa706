//! A capture through the production engine: the same packets at the same times, with the real servers that the engine
//! chooses.
//!
//! ```text
//! capture -> link header off -> server end becomes the VIP -> client's packet ----------------> engine -> out
//!                                                          -> server's packet: from the real      ^
//!                                                             server that the engine chose -------+
//! ```
//!
//! * `headers`, `edit`, `ends` what a captured packet says, and how it is changed
//! * `connections`, `fragments` what belongs together
//! * `tap` the engine's device, which remembers what became of each packet
//! * `peers`, `neighbours` who answers where the capture does not
//! * `route` which packet goes in how; `driver` the loop; `journal` what it writes; `outcome` what it came to
//! * [`compare`] the same input through several schedulers
//!
//! Packets that were captured at most [`BATCH_SPAN`] apart are handed over together, up to 64, at the time of the latest,
//! as a forwarder takes them that wakes up once for several. A replay depends on the capture, the plan, its components and
//! the options alone; whether it is written down changes nothing.

pub mod compare;
mod connections;
mod driver;
mod edit;
mod ends;
mod fragments;
mod headers;
mod journal;
mod neighbours;
mod outcome;
mod peers;
mod route;
mod tap;
mod text;

use std::io::{self, Write};

use evenkeel_engine::{Duration, Guests, Plan, PlanError};

pub use connections::CONNECTIONS_MAX;
pub use ends::{MAPPINGS_MAX, Mapping, MappingError};
pub use outcome::{
    BrokenReport, CaptureReport, ChecksumReport, ConnectionReport, Outcome, SCHEMA, ServerReport, TimeReport,
};

use crate::capture::{CaptureError, Reader};
use driver::Driver;

/// How far apart packets may be that are handed over together: a tenth of the round trip within a data centre's city, and
/// a tenth of a thousandth of the shortest timeout.
pub const BATCH_SPAN: Duration = Duration::from_millis(1);
/// The longest time between two packets that is taken as it is, unless told otherwise: longer than every timeout that is
/// the default, so that a longer one would change nothing.
pub const MAX_GAP_DEFAULT: Duration = Duration::from_secs(3_600);

/// Whose packets of the capture are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sides {
    /// Those of clients and servers.
    #[default]
    Both,
    /// Those of clients; simulated servers answer.
    Clients,
}

/// How a capture is replayed.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which ends of the capture become others; at most [`MAPPINGS_MAX`].
    pub mappings: Vec<Mapping>,
    /// Whose packets are used.
    pub sides: Sides,
    /// A longer time between two packets is shortened to this.
    pub max_gap: Duration,
    /// Wrong checksums stay wrong.
    pub keeps_checksums: bool,
    /// The seed of everything random; the plan has its own, derived from the same.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mappings: Vec::new(),
            sides: Sides::default(),
            max_gap: MAX_GAP_DEFAULT,
            keeps_checksums: false,
            seed: 0,
        }
    }
}

/// Why a capture could not be replayed to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The engine refuses the plan.
    #[error("{0}")]
    Plan(#[from] PlanError),
    /// The capture cannot be read.
    #[error("{0}")]
    Capture(#[from] CaptureError),
    /// What came out cannot be written.
    #[error("{0}")]
    Output(io::Error),
    /// The plan has no interface.
    #[error("the configuration has no interface by which packets could come in")]
    NoInterface,
    /// Too many mappings.
    #[error("{0} mappings; {MAPPINGS_MAX} is the most")]
    Mappings(usize),
}

/// Replays what `reader` reads through an engine that runs by `plan`, and writes every packet as it came in and went out
/// to `output`, if there is one.
///
/// # Errors
/// When the capture cannot be read, the engine refuses the plan, or the output fails.
pub fn replay(
    reader: &mut Reader<'_>,
    plan: Plan,
    guests: Guests,
    options: &Options,
    output: Option<&mut dyn Write>,
) -> Result<Outcome, ReplayError> {
    if options.mappings.len() > MAPPINGS_MAX {
        return Err(ReplayError::Mappings(options.mappings.len()));
    }
    let mut driver = Driver::new(plan, guests, options, output)?;
    while let Some(record) = reader.next()? {
        driver.take(&record).map_err(ReplayError::Output)?;
    }
    driver.finish().map_err(ReplayError::Output)?;
    Ok(driver.outcome(reader))
}
