//! The deterministic simulator: machines, links and time, with the production engine and the production
//! components in the middle.
//!
//! ```text
//! scenario.toml -> Scenario -+                    +-> Outcome: table, JSON, hashes, expectations
//! evenkeel.toml -> Plan -----+-> run() -> World --+
//! components    -> Guests ---+        (hosts, links, forwarders; events in order of time)
//! ```
//!
//! * [`scenario`] what there is and what must come out; shared with the lab
//! * [`run`] one run; [`stdio`] the same engine at the end of a pipe, packet by packet
//! * [`queue`], [`random`], [`trace`] time, chance and the proof that two runs are the same
//! * [`work`] laws of arrivals, sizes and service times, and the queues of servers
//! * [`packet`], [`payload`], [`tcp`] what hosts speak
//! * [`device`] the engine's door; [`report`] what is told in the end
//! * [`flow_mode`] the same without frames, for very many requests
//! * [`attack`] who tries to do harm, and what came of it
//! * [`conformance`] recordings of other load balancers, replayed
//! * [`Findings`] what a checker has seen on the wires that should not be
//! * [`capture`] captures, read and written; [`replay`] a capture through the engine
//!
//! The same scenario, plans, guests and seed give the same bytes at the same virtual times on any machine
//! and in any build: no clock, no thread, no unordered map, no mathematics of the platform. Nothing here
//! opens a socket or a device.
#![forbid(unsafe_code)]

pub mod attack;
pub mod capture;
mod checker;
mod checksum;
pub mod conformance;
pub mod device;
pub mod flow_mode;
mod forwarder;
mod host;
mod index;
pub mod kernel;
pub mod library;
mod logarithm;
mod net;
mod openings;
pub mod packet;
pub mod payload;
mod prepare;
pub mod queue;
pub mod random;
pub mod record;
pub mod replay;
pub mod report;
pub mod scenario;
pub mod stdio;
pub mod swarm;
pub mod table;
pub mod tcp;
pub mod trace;
pub mod travel;
pub mod watch;
pub mod wires;
pub mod work;
mod world;

pub use checker::{BreakCause, Counts as CheckCounts, Findings};
pub use host::{Cause, HostCounts};
pub use prepare::{Edit, Loader, PrepareError, Supplier, Supply, prepare};
pub use report::Outcome;
pub use scenario::{Scenario, ScenarioErrors};
pub use world::{
    Equipment, KernelCounts, Options, Planted, Progress, Queue, RunError, run, run_supplied, run_watched,
    run_with_progress,
};
