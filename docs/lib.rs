//! The book lives in `src/`, the map and the rules beside it, and the tests hold the house to them.
//!
//! This crate has no code of its own. `tests/tidy.rs` checks the rules that no compiler knows, `tests/book.rs`
//! keeps the book true, `tests/snippets.rs` compiles the Rust in it.

#![forbid(unsafe_code)]
