//! The tests of this package from outside, in one binary: a binary for each file would link everything once more.

mod common;
mod faults;
mod flowmgr;
mod guests;
mod loading;
mod mutated;
mod suite;
mod twins;
