//! The flow table: who talks to which real server, and for how long.
//!
//! ```text
//! five-tuple -- hash --> index -- id and direction --> entry (slab) <-- id -- timers
//! ```
//!
//! One entry holds both directions of a flow, so they live and die together. Known flows are found and
//! refreshed without an allocation; the bound on flows is hard, and a live flow is never given up for a new one.

pub mod entry;
mod index;
mod table;
mod timers;

pub use entry::{Direction, FlowEntry, FlowState};
pub use table::{FlowId, FlowTable, InsertError};
