//! Laws of work: when requests come, how large they are, how long they take, and what a server does with many
//! at once.
//!
//! ```text
//! Arrivals -> times      Law, Cdf, sizes -> durations and sizes      Zipf -> keys
//!                                   |
//!                                   v
//!                     ServerQueue: arrive / due / complete
//! ```
//! Draws come from [`crate::random::Stream`] and go through whole numbers and the crate `libm` alone, so that
//! a seed gives the same numbers on every machine. Nothing here knows of packets, hosts or events: packet mode
//! and flow mode use the same parts.

mod agent;
pub mod arrivals;
mod cdf;
mod law;
mod number;
mod queue;
mod recent;
mod sizes;
mod zipf;

pub use agent::{AGENT_WAY, AgentModel};
pub use arrivals::{ArrivalProcess, Arrivals};
pub use cdf::{Cdf, CdfError, Shape};
pub use law::{Law, LawError, Sampler};
pub use queue::{Discipline, Due, QueueSpec, Refusal, ServerQueue, Speed};
pub use recent::{PROBE_WAY, PROBES_MAX, Recent};
pub use sizes::{NAMES, named};
pub use zipf::Zipf;
