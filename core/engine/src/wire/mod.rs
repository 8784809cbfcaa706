//! Headers, viewed and edited in place: each file holds one header, checked once at its door.
//!
//! A view is a reference into the packet (`zerocopy`), so it cannot outlive or outgrow the buffer. After
//! `split` has answered, nothing here can fail.

pub mod arp;
pub mod checksum;
pub mod ethernet;
pub mod five_tuple;
pub mod icmp;
pub mod icmpv6;
pub mod ip;
pub mod ipv4;
pub mod ipv6;
pub mod ndp;
pub mod tcp;
pub mod udp;

pub use five_tuple::{Address, FiveTuple, HashKey, Protocol};
