//! Fixtures for the benches, the allocation test and the fuzz target: an engine with many flows, and a device in
//! memory that costs next to nothing.
#![forbid(unsafe_code)]

pub mod fixture;
pub mod fuzz;
pub mod rules;
