//! Directors: virtual services, their real servers, and who picks one for a new flow.
//!
//! ```text
//! address, port, protocol --> director --> scheduler --> place of a real server
//! ```
//!
//! Directors and real servers keep their places across plans as long as flows refer to them.

mod agents;
pub mod builtin;
mod scheduler;
mod seat;
mod service;
pub mod slow_start;
mod state;
pub mod sticky;
mod table;

pub use agents::{AGENT_CHECKS_MAX, Agent, Heard, News};
pub use builtin::{builtin, native};
pub use scheduler::{
    Fault, FlowAnswered, FlowClosed, FlowEnd, FlowEvent, FlowOpened, GuestStats, NewFlow, PickInputs,
    ProbeAnswer, Scheduler, Selection, ServerId, ServerLoad, ServerView, TICK_MIN, Wishes,
};
pub use seat::ShadowStatus;
pub use service::{Director, Server};
pub use table::{Directors, Pinged};
