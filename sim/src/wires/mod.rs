//! Cables and switches: what happens to frames between machines.
//!
//! ```text
//! machine -> Wire (up) -> Switch -> Wire (down) -> machine        machine -> Wire -> machine
//! ```
//! In go frames and the time, out come times of arrival, ports and reasons why a frame ended. Nothing here knows of
//! machines, of addresses of layer 3 or of events: whoever drives it schedules what comes out. A frame is a
//! [`Packet`](crate::packet::Packet) whose range begins with its Ethernet header; it has no preamble and no check
//! sequence.
//!
//! * [`Quality`] what a cable does: rate, delay, queue, loss, order, copies, corruption, length
//! * [`Wire`] one direction of a cable
//! * [`Switch`] ports that learn, flood and keep VLANs apart
//! * [`frame`] the Ethernet header

pub mod frame;
mod quality;
mod red;
mod switch;
#[cfg(test)]
mod tests;
mod wire;

pub use quality::{Delay, Discipline, Loss, Quality, Red, Reorder};
pub use switch::{Exit, Membership, PortCounts, Switch, SwitchCounts, SwitchDrop, SwitchPlan, Tag};
pub use wire::{Passage, Wire, WireCounts, WireDrop};
