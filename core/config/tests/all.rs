//! The tests of this package from outside, in one binary: a binary for each file would link everything once more.

mod any_bytes;
mod errors;
mod import;
mod later_errors;
mod plans;
mod reference;
mod rules;
mod text;
