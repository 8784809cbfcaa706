//! The Rust of the book compiles, and its own tests pass. `build.rs` makes a module of each block.

#![allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a page shows what matters, in few lines"
)]

include!(concat!(env!("OUT_DIR"), "/book.rs"));
