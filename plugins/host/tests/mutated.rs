//! Components with changed bytes: the host refuses them or runs them, and never panics.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "tests")]

mod common;

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;

use common::{flows, guest, servers, settings};
use evenkeel_engine::director::{Selection, ServerLoad};
use evenkeel_engine::policy::{PolicyFlow, PolicyVerdict};
use evenkeel_engine::{Duration, Guests, InterfaceId};
use evenkeel_plugin_host::{Mode, Settings};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

/// Mutants in an ordinary run. `EVENKEEL_MUTANTS` asks for more.
const MUTANTS: u64 = 10_000;
