//! The way out: which interface and next hop, and what the way asks for: an outer header, or smaller packets.

pub mod cut;
mod routes;
pub mod tunnel;

pub use routes::{NextHop, Routes};
