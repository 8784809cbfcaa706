//! The flow table: who talks to which real server, and for how long.
//!
//! ```text
//! five-tuple -- hash --> index -- id and direction --> entry (slab) <-- id -- timers
//! ```
//!
//! One entry holds both directions of a flow, so they live and die together. Known flows are found and
//! refreshed without an allocation; the bound on flows is hard. Half-open flows have a bound of their own and give way to each other; a flow whose opening has been answered is
//! never given up for a new one.

mod clients;
pub mod entry;
pub mod fragments;
mod index;
mod table;
pub mod tcp_track;
mod timers;

pub use clients::Clients;
pub use entry::{Direction, FlowEntry, FlowState, Tally, Traits};
pub use table::{Birth, Departed, FlowId, FlowTable, InsertError, Inserted};
