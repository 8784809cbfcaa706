//! The way out: which interface and next hop, and what the way asks for: an outer header, or smaller packets.

pub mod cut;
mod ranges;
mod routes;
pub mod tunnel;
mod ways;

pub use routes::{MAIN, NextHop, Routes};
pub(crate) use ways::{DEAD_END, Way, Ways};
