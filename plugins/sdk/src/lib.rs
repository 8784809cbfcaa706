//! For authors of schedulers and policies: a guest is one type, one trait, one macro.
//!
//! | trait | macro | the guest sees | price of a new flow |
//! |---|---|---|---|
//! | [`TableScheduler`] | [`export_table_scheduler!`] | the servers, once per change | none: the forwarder looks up |
//! | [`HashScheduler`] | [`export_hash_scheduler!`] | the hash of each flow | a few nanoseconds in a batch |
//! | [`Scheduler`] | [`export_scheduler!`] | each flow, loads, what becomes of flows | tens of nanoseconds in a batch |
//! | [`Policy`] | [`export_policy!`] | each flow | tens of nanoseconds in a batch |
//!
//! A guest is a `cdylib` for `wasm32-wasip2` and `#![no_std]`. This crate brings the allocator and the panic
//! handler, so that the component imports nothing but the forwarder's log: a guest that uses `std` imports
//! WASI, and the forwarder refuses it. The unsafe code of the canonical ABI is generated inside this crate's
//! macros; a guest forbids unsafe code and still exports itself.
//!
//! Native builds have no exports. There [`kit`] plays the forwarder, so that `cargo test` in the folder of a
//! guest runs without one.
//!
//! # Examples
//!
//! ```
//! use evenkeel_plugin_sdk::{ConfigureError, Flow, Instant, Load, Options, Scheduler, Server, Setup};
//!
//! /// Sends every flow to the first server that may take one.
//! struct First(Option<usize>);
//!
//! impl Scheduler for First {
//!     fn configure(_: &Setup, _: &mut Options) -> Result<Self, ConfigureError> {
//!         Ok(Self(None))
//!     }
//!     fn update(&mut self, servers: &[Server], _: Instant) {
//!         self.0 = servers.iter().position(Server::is_usable);
//!     }
//!     fn pick(&mut self, _: &Flow, _: &[Load], _: Instant) -> Option<usize> {
//!         self.0
//!     }
//! }
//!
//! evenkeel_plugin_sdk::export_scheduler!(First);
//!
//! use evenkeel_plugin_sdk::kit::SchedulerKit;
//! let mut kit = SchedulerKit::<First>::new("").unwrap();
//! kit.servers(&[0, 1, 1]);
//! assert_eq!(kit.pick(2), [Some(1), Some(1)]);
//! ```

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
extern crate self as evenkeel_plugin_sdk;
#[cfg(not(target_arch = "wasm32"))]
extern crate std;

#[doc(hidden)]
pub mod bindings;
mod export;
mod guest;
mod hash;
pub mod kit;
pub mod log;
pub mod maglev;
pub mod meter;
pub mod network;
mod options;
pub mod random;
#[cfg(target_arch = "wasm32")]
mod runtime;
mod state;
mod types;

pub use bindings::guest::evenkeel::plugin::types::{BadOption, ConfigureError, Flow, Load, Server, Setup};
pub use bindings::policy::exports::evenkeel::plugin::decide::{
    Answer, Arrival, Limit, LimitKey, Moment, PolicySetup, PolicyWishes,
};
pub use bindings::scheduler::exports::evenkeel::plugin::feedback::{FlowEvent, Happening, ProbeAnswer};
#[doc(hidden)]
pub use export::glue;
pub use guest::{Decision, HashScheduler, NO_ANSWER, Policy, Scheduler, TableScheduler, Verdict, Wishes};
pub use hash::keyed_hash;
pub use options::Options;
pub use state::{State, StateWriter};
pub use types::{Instant, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP};
#[doc(hidden)]
pub use wit_bindgen;
