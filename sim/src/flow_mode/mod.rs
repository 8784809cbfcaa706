//! Flow mode: whole requests instead of packets, for 10^7 to 10^8 of them in one run.
//!
//! ```text
//! arrivals -> five-tuple, keyed hash -> forwarder (steering) -> flow table | policy, director, scheduler
//!                                                                   |
//!                      answer <- completion <- queue of the machine <+
//! ```
//! What decides is the engine's own: directors, schedulers (native or components), flow table, persistence, ports
//! of source NAT, timeouts, and the hash. What is left out is everything below: frames, links, TCP's segments
//! and windows, checksums. A request reaches its server in the instant in which it is sent, a handshake and
//! a close take no time.
//!
//! A scenario with `mode = "flow"` becomes a setup in [`scenario`]; studies make theirs themselves.
//!
//! In: a [`Setup`] and for each forwarder a plan with its guests. Out: an [`Outcome`], and a
//! [`crate::record::RunRecord`] for reports. The same input gives the same outcome on every machine. Of things that
//! happen at the same time, flows that run out come first, then answers of servers in the order of the
//! servers, then what was planned (timeline, users that come back), then arrivals in the order of loads.

mod agenda;
mod connections;
mod forwarder;
mod level;
mod load;
mod machine;
mod outcome;
mod report;
mod scenario;
mod setup;
mod steering;
mod tell;
mod tournament;
mod tuples;
mod world;

pub(crate) use report::run_scenario;

pub use outcome::{Cause, LoadOutcome, MachineOutcome, Outcome, TableOutcome};
pub use setup::{
    Beginnings, Change, Churn, Clients, Connections, Extent, ForwarderSetup, Keys, LoadSetup, MachineSetup,
    RouterSetup, Session, Setup, SetupError, Steering, Timed,
};
pub use world::{World, run};
