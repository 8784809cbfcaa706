//! Recordings of other load balancers, replayed through the engine: the same frames in, and what differs in the frames
//! that come out.
//!
//! ```text
//! recording -> what is in it -> Plan -+
//!     |                               v
//!     +------ frames in ----------> engine -> frames out -+
//!     +------ frames out --------------------------------> differ -> Report: agree, intended, differ
//! ```
//!
//! * [`ipvs_packets`] frames of a Linux director at all interfaces of its scenario
//! * [`ipvs_scheduling`] which real server a Linux director gave to each new client
//! * [`haproxy_source`] which server HAProxy's `balance source` gave to each client address
//! * [`katran`] pairs of packets of Katran's own tests
//! * [`intended`] the differences that are meant, the table of `docs/src/differences.md`
//!
//! A recording says what was set up only by its names and its frames; both readers follow the description of their
//! format, and know no scenario by name.

mod bench;
mod differ;
mod frame;
mod haproxy_source;
pub mod intended;
mod ipvs_packets;
mod ipvs_scheduling;
mod katran;
mod report;

pub use differ::FieldDifference;
pub use haproxy_source::replay as haproxy_source;
pub use ipvs_packets::replay as ipvs_packets;
pub use ipvs_scheduling::replay as ipvs_scheduling;
pub use katran::replay as katran;
pub use report::{Case, Difference, Report};

use evenkeel_engine::PlanError;
use serde_json::Value;

/// The largest recording that is read, in bytes: a thousand times the known ones.
pub const FILE_MAX_BYTES: u64 = 1 << 28;

/// How a recording is replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The engine is set up to do as the recorded load balancer did, where there is an option for that. Else by its own
    /// defaults.
    pub as_recorded: bool,
}

/// Why a recording can not be replayed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordingError {
    /// It is no JSON.
    #[error("line {line}, column {column}: {message}")]
    Json {
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// What is wrong there.
        message: String,
    },
    /// It is not of the format.
    #[error("{position}: expected {expected}, found {found}")]
    Format {
        /// Where, as a path of keys and numbers.
        position: String,
        /// What belongs there.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// What it describes is no configuration of this engine.
    #[error("{case}: {error}")]
    Plan {
        /// The scenario or list.
        case: String,
        /// Why the engine refuses it.
        error: PlanError,
    },
}

fn parse(text: &str) -> Result<Value, RecordingError> {
    serde_json::from_str(text).map_err(|error| {
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or(&message).to_owned();
        RecordingError::Json { line: error.line(), column: error.column(), message }
    })
}

/// The most characters of a wrong value that are shown.
const SHOWN_MAX: usize = 60;

fn wrong(position: &str, expected: &'static str, found: &Value) -> RecordingError {
    let found = found.to_string();
    let mut shown: String = found.chars().take(SHOWN_MAX).collect();
    if shown.len() < found.len() {
        shown.push_str("...");
    }
    RecordingError::Format { position: position.to_owned(), expected, found: shown }
}

/// Bytes in hexadecimal digits.
fn bytes(position: &str, value: &Value) -> Result<Vec<u8>, RecordingError> {
    let decoded = value.as_str().and_then(|digits| crate::stdio::decode(digits).ok());
    decoded.ok_or_else(|| wrong(position, "an even number of hexadecimal digits", value))
}
