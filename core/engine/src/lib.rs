//! The engine: a pure corridor from packet to verdict. It is given bytes and a time, and owns no socket, clock,
//! thread or file; the same code runs behind a TUN in production and behind a simulated link.
//!
//! ```text
//! device -> enter -> flow lookup -------------------------------> exit -> device
//!             |          | unknown                                 ^
//!             |          +-> open: policy, director, scheduler ----+
//!             +-> answers to pings and neighbours, fragments that wait
//! ```
//!
//! The corridor itself is private and short: `walk` takes a batch through `enter` (headers), `open` (new flows), `exit`
//! (translation, tunnels, errors) and `link` (Ethernet). The rooms along it, in the order in which a packet sees them:
//! [`device`], [`wire`], [`flow`], [`policy`], [`director`], [`nat`], [`forward`], and beside the way [`neighbour`]
//! (Ethernet) and [`reply`] (packets born here, which wait in `outbox`).
//! What a walk can end as is in [`verdict`]; what an engine runs by is in [`plan`]; what a walk says of itself, where somebody wants to know, in [`journal`].
//!
//! # Calls
//! An [`Engine`] has four families of methods:
//! * *look*: [`Engine::counters`], [`Engine::directors`], [`Engine::flow_count`], [`Engine::explain`] ... change nothing;
//! * *handle*: [`Engine::handle_timeout`], then [`Engine::handle_batch`], as [`step`] calls them;
//! * *commands*: [`Engine::apply`], [`Engine::set_weight`], [`Engine::probe_answered`],
//!   [`Engine::agent_answered`], between two steps;
//! * *poll*: [`Engine::transmit`], [`Engine::poll_event`], [`Engine::poll_probe`] and [`Engine::poll_agent_check`] after each of
//!   the others, until they have nothing;
//!   [`Engine::poll_timeout`] last: when to call again.
//!
//! # Promises
//! The same plan, guests, packets and times give the same bytes, counters and events on every machine. No packet
//! causes a panic. A packet of a known flow causes no allocation and never enters a guest.
#![no_std]
#![forbid(unsafe_code)]
#![allow(
    clippy::inline_always,
    reason = "a packet's walk is compiled twice, with the journal and without, and what has two callers is not inlined by \
              itself; benches count the instructions"
)]

extern crate alloc;

pub mod agent;
pub mod counters;
pub mod device;
pub mod director;
pub mod error;
pub mod event;
pub mod flow;
pub mod forward;
pub mod journal;
pub mod nat;
pub mod neighbour;
pub mod plan;
pub mod policy;
pub mod probe;
pub mod reply;
pub mod time;
pub mod verdict;
pub mod wire;

mod check;
mod engine;
mod enter;
mod exit;
mod explain;
mod judge;
mod link;
mod memory;
mod open;
mod outbox;
mod permit;
mod status;
mod walk;

pub use agent::{AgentCheck, AgentReply};
pub use counters::Counters;
pub use device::{Device, StepReport, step};
pub use engine::{Engine, Guests};
pub use error::{CommandError, PlanError};
pub use event::Event;
pub use explain::Explanation;
pub use memory::{Memory, MemoryError};
pub use plan::Plan;
pub use probe::{Probe, ProbeReply};
pub use status::{AgentStatus, DirectorStatus, FlowStatus, PolicyStatus, ServerStatus};
pub use time::{Duration, Instant};
pub use verdict::{DropReason, InterfaceId, Verdict};
