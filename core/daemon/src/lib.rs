//! The forwarder as a service: a configuration becomes a data path that runs, on a machine that is set up
//! for it.
//!
//! ```text
//!             control socket, signals                   TUN, Ethernet
//!                       |                                      |
//!   main thread: control plane (tokio) -- orders, wakeup --> data path: step() in a loop
//!                       |              <-- answers, events --
//!               netlink, /proc/sys
//! ```
//!
//! In: a configuration file, signals, lines on the control socket. Out: a process that forwards until it is
//! told to stop and leaves the machine as it was. The data path takes no lock and waits for nobody; the
//! control plane never touches a packet. A mistake in a configuration never stops a forwarder that runs.

#![forbid(unsafe_code)]

mod agents;
pub mod control;
mod data_path;
mod events;
mod links;
mod ports;
mod prepare;
mod prober;
mod service;
pub mod setup;

pub use prepare::{Components, GuestLoader, Mistakes, Prepared, draw_seed, load_guests, prepare};
pub use service::{Options, RunError, add_next_hops, default_config, run};
