//! What a run tells: numbers that a world feeds in while it runs, as data, text, pages and drawings.

pub mod histogram;

pub use histogram::Histogram;
