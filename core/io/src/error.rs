//! What can go wrong with a device. Single packets that could not be read or written are no errors:
//! they are counted in [`DeviceCounters`](crate::DeviceCounters).

use std::io;

/// Why a device could not be opened or can not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// `/dev/net/tun` can not be opened.
    #[error("/dev/net/tun: {error}: the kernel needs the tun module and the process CAP_NET_ADMIN")]
    NoTun {
        /// What the system said.
        error: io::Error,
    },
    /// The kernel gives no packet socket.
    #[error("a packet socket: {error}: the process needs CAP_NET_RAW")]
    NoPacketSocket {
        /// What the system said.
        error: io::Error,
    },
    /// There is no such interface.
    #[error("there is no interface {name}; `ip link` lists those that there are")]
    NoInterface {
        /// The name.
        name: String,
    },
    /// The interface carries no Ethernet frames.
    #[error("interface {name} is no Ethernet: its kind of hardware is {kind}, and that of Ethernet 1")]
    NotEthernet {
        /// The interface.
        name: String,
        /// Its kind, as `linux/if_arp.h` numbers them.
        kind: u16,
    },
    /// The interface carries only shorter packets than it is asked for.
    #[error("interface {name} has an MTU of {has_bytes}, and {wanted_bytes} are wanted of it")]
    SmallMtu {
        /// The interface.
        name: String,
        /// Its MTU, in bytes.
        has_bytes: u32,
        /// The MTU that is wanted, in bytes.
        wanted_bytes: u16,
    },
    /// This can not be the name of an interface.
    #[error("{name:?} is not an interface name: 1 to 15 printable ASCII bytes without / and : are")]
    Name {
        /// What was given.
        name: String,
    },
    /// The kernel refused a call about an interface.
    #[error("interface {name}: {call}: {error}")]
    Interface {
        /// The call.
        call: &'static str,
        /// The interface.
        name: String,
        /// What the system said.
        error: io::Error,
    },
    /// The number of interfaces is out of range.
    #[error("{count} interfaces: a device takes 1 to {}", crate::INTERFACES_MAX)]
    InterfaceCount {
        /// How many there were.
        count: usize,
    },
    /// io_uring was asked for by name and is refused.
    #[error("{refusal}")]
    IoUringRefused {
        /// Why.
        refusal: crate::Refusal,
    },
    /// The system has no memory or no file descriptor left for the device.
    #[error("{what}: {error}")]
    Resource {
        /// What was asked for.
        what: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// An interface was deleted, or its queue was taken away.
    #[error("interface {name} is gone: {error}")]
    Gone {
        /// The interface.
        name: String,
        /// What its queue said.
        error: io::Error,
    },
    /// The kernel refused to take requests or to wait for packets.
    #[error("{call}: {error}")]
    Wait {
        /// The call.
        call: &'static str,
        /// What the system said.
        error: io::Error,
    },
}
