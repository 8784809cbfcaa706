//! WASM components as schedulers and policies of the engine.
//!
//! Gets a plan and the bytes of components; gives the [`Guests`](evenkeel_engine::Guests) that an engine takes.
//! The contract is in `wit/`. What a guest may cost is bounded in time, memory and stack; what it answers is
//! checked; where it fails, the native fallback of its director (or what a policy's configuration says) answers
//! in the same call. A guest never sees a clock, entropy, a file or a socket, and no packet ever waits for one.
//!
//! ```text
//! load: bytes -> digest -> Component -> checks -> configure once
//! call: breaker -> (instance) -> budget -> guest -> checks -> answer
//!           |                                |
//!           +-------- fallback <-------------+  fault: counted, named, instance replaced
//! ```

#![forbid(unsafe_code)]

mod breaker;
mod contract;
mod engine;
mod flows;
mod grace;
mod load;
mod log;
mod policy;
mod rest;
mod sandbox;
mod scheduler;
pub mod suite;
mod ticker;

pub use engine::Mode;
pub use load::{Host, LoadError, Settings, load};
