//! Breaks the contract on demand, for tests of the forwarder: as a scheduler and as a policy.
//!
//! Option `kind`, what it does in `pick` and `decide`:
//!
//! | kind | what happens |
//! |---|---|
//! | `none` | nothing: the first usable server, or skip (the default) |
//! | `trap` | every second call panics |
//! | `loop` | the call never returns |
//! | `memory` | the call takes memory until there is none |
//! | `stack` | the call calls itself until the stack ends |
//! | `missing` | every second flow gets a server, or director, that does not exist |
//! | `unusable` | flows get a server that is down or drained, where there is one |
//! | `short`, `long` | the answer has one item too few, or too many |
//! | `silent` | every flow gets "no answer", or skip |
//! | `chatter` | 1,000 messages go to the log with every call |
//! | `float` | the bits of a computed not-a-number choose the server |
//! | `update` | `update` panics |
//! | `configure` | `configure` panics |
//! | `deny` | a policy that denies; a scheduler that is silent |
//! | `table`, `limit` | a policy that names a routing table, or a limit, that does not exist |
//! | `wish` | a policy that wants a limit of nothing |
//! | `packets` | a policy that wants to judge packets, and denies those without control bits of TCP |
//! | `limited` | a policy that permits 2 flows of a source at once, and 5 in a second |
//!
//! Option `where`: `answers`, in `pick` and `decide` (the default), or `feedback`, where it is told what becomes of flows,
//! that time has passed, and how servers are.
//!
//! Option `until_ns`: from this time on it behaves as `none` (default: never). Counting starts anew with each
//! instance.
//!
//! It is written on the bindings below the SDK's traits, which would not let it do most of this.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

// Native builds have nothing to export; the SDK still brings what `no_std` lacks.
use evenkeel_plugin_sdk as _;

#[cfg(target_arch = "wasm32")]
mod component;
