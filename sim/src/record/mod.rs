//! What a run tells: numbers that a world feeds in while it runs, as data, text, pages and drawings.
//!
//! ```text
//! world -> Recorder -> RunRecord -+-> result.json, text, CSV
//!                                 +-> report.html
//!                      RunRecords -> Comparison -> the same, with intervals of confidence
//! ```
//!
//! * [`recorder`] what a world calls; [`data`] what comes of it
//! * [`histogram`], [`batches`], [`balance`] numbers that can be merged, whole ones only
//! * [`statistics`] how certain a mean is; floats are only there and where numbers are shown
//! * [`drawing`] machines and what connects them, as a picture

pub mod balance;
pub mod batches;
pub mod comparison;
pub mod csv;
pub mod data;
pub mod drawing;
#[cfg(test)]
mod example;
pub mod histogram;
pub mod html;
pub mod markup;
pub mod number;
pub mod paper;
pub mod recorder;
pub mod statistics;
pub mod text;
mod topology;

pub use comparison::Comparison;
pub use data::RunRecord;
pub use histogram::Histogram;
pub use recorder::Recorder;
