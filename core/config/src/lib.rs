//! The configuration file: TOML in, a checked [`Plan`] out, or errors that point.
//!
//! ```text
//! bytes -> text -> TOML tree -> shape (keys, types, ranges) -> as written -> as meant -> Plan
//!            |         |              |                                          |
//!            +---------+--------------+------------- Diagnostics ----------------+
//! ```
//!
//! What comes in: a path or a text. What goes out: [`Loaded`], a plan with the program's own settings and the
//! places of things in the file; or [`Diagnostics`], every mistake with line, column and what to do.
//!
//! It never draws a random number, never opens a component, and never panics, whatever the bytes are. The only
//! files that it reads are the one that [`load`] is given and those that it names for rules and sets.

#![forbid(unsafe_code)]

mod addresses;
mod by_name;
mod diagnostic;
pub mod document;
pub mod export;
mod forms;
mod gather;
pub mod import;
mod loaded;
mod matching;
mod meant;
mod read;
pub mod reference;
pub mod rules;
mod schema;
mod seed;
pub mod setup;
mod shape;
mod sheet;
mod source;
mod written;

pub use by_name::{is_component, scheduler_by_name};
pub use diagnostic::{Code, Diagnostic, Diagnostics, Severity};
pub use evenkeel_engine::Plan;
pub use loaded::{ForwarderConfig, Io, Loaded, Setup, Subject};
pub use read::{FILE_BYTES_MAX, load, parse, parse_in};
pub use schema::schema;
pub use source::Position;
