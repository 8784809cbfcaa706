//! Directors.
pub mod scheduler;
pub use scheduler::*;
