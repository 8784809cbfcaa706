//! Real devices for the engine: packets in and out of TUN and Ethernet interfaces, through io_uring or epoll.
//!
//! ```text
//! TUN queue     -> READ_MULTISHOT -> buffer -> engine (in place) -> WRITE from the same buffer -> TUN queue
//! packet socket -> RECVMSG ----------^  ^                                |                   '-> packet socket
//!                                       '------- buffer ring <------- completion
//! ```
//!
//! In come packets from the kernel; they are handed to the engine as [`Device`](evenkeel_engine::Device)
//! says, and leave by the interface that it names. What a packet means is never looked at here; no
//! address, route or rule is set. All unsafe code of the house is in this crate, each block one
//! operation behind a small safe wrapper.
//!
//! [`Tun`] and [`Ethernet`] open an interface, [`KernelDevice`] joins several into one device, [`Waker`] ends its wait from
//! another thread, [`MonotonicClock`] tells the engine's time.

mod buffers;
mod clock;
mod coalesce;
mod device;
mod epoll;
mod error;
mod offload;
mod port;
mod ring;
mod segment;
mod slots;
mod sys;

#[cfg(test)]
mod tests;

pub use clock::MonotonicClock;
pub use device::{Backend, IoChoice, KernelDevice, Refusal, Wake};
pub use error::DeviceError;
pub use offload::{HEADER_BYTES, VirtioNetHeader};
pub use port::Port;
pub use slots::DeviceCounters;
pub use sys::eventfd::Waker;
pub use sys::packet::{Ethernet, EthernetOptions};
pub use sys::tun::{Offloads, Tun, TunOptions, kernel_tx_dropped};

/// The most interfaces of one device. Each costs a registered file and a request that is always open; a
/// forwarder has a handful.
pub const INTERFACES_MAX: usize = 64;
