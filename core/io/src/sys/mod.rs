//! The system calls that no safe crate offers, each behind a small safe wrapper.
//!
//! In go file descriptors and plain values, out come results. Nothing here knows what a packet is.

pub(crate) mod bufring;
pub(crate) mod eventfd;
pub(crate) mod ifreq;
pub(crate) mod memory;
pub(crate) mod packet;
pub(crate) mod tun;
