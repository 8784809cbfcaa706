//! TUN interfaces: made or joined through `/dev/net/tun`, with a virtio-net header before each packet.
//!
//! In goes a name and what is wanted, out comes an open queue. The interface goes away with its last
//! queue, so nothing is left behind when the process ends, however it ends. Addresses and routes are
//! set elsewhere.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::ioctl::{IntegerSetter, Opcode, Setter, opcode};

use super::ifreq::{self, InterfaceRequest};
use crate::error::DeviceError;
use crate::offload::HEADER_BYTES;

const TUNSETIFF: Opcode = opcode::write::<c_int>(b'T', 202);
const TUNSETOFFLOAD: Opcode = opcode::write::<std::ffi::c_uint>(b'T', 208);
const TUNSETVNETHDRSZ: Opcode = opcode::write::<c_int>(b'T', 216);
const TUNSETVNETLE: Opcode = opcode::write::<c_int>(b'T', 220);

const IFF_TUN: u16 = 0x0001;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;
const IFF_MULTI_QUEUE: u16 = 0x0100;

const TUN_F_CSUM: usize = 0x01;
const TUN_F_TSO4: usize = 0x02;
const TUN_F_TSO6: usize = 0x04;
const TUN_F_USO4: usize = 0x20;
const TUN_F_USO6: usize = 0x40;

/// What a kernel may take, best first. USO came with Linux 6.2; before, the whole set is refused.
const OFFLOAD_STEPS: [(Offloads, usize); 4] = [
    (Offloads::ChecksumTcpUdp, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_USO4 | TUN_F_USO6),
    (Offloads::ChecksumTcp, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6),
    (Offloads::Checksum, TUN_F_CSUM),
    (Offloads::None, 0),
];

/// What the kernel leaves undone in packets that it hands over, because it is asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offloads {
    /// Checksums, and the cutting of TCP and UDP super-packets.
    ChecksumTcpUdp,
    /// Checksums, and the cutting of TCP super-packets.
    ChecksumTcp,
    /// Checksums only.
    Checksum,
    /// Nothing: every packet is whole.
    None,
}

impl Offloads {
    /// The words in which a start-up message names them.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ChecksumTcpUdp => "checksum, TSO, USO",
            Self::ChecksumTcp => "checksum, TSO",
            Self::Checksum => "checksum",
            Self::None => "none",
        }
    }
}

/// How long a TUN may be busy with a process that is no more, in tries of [`BUSY_PAUSE`]: a second.
const BUSY_TRIES: u32 = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// How a TUN interface is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunOptions {
    /// Name of the interface (1 to 15 printable ASCII bytes without `/` and `:`).
    pub name: String,
    /// Whether further queues may be opened under the same name. All queues must agree on it.
    pub has_queues: bool,
    /// Whether super-packets and open checksums are wanted. Default: yes.
    pub has_offloads: bool,
    /// The MTU to set, in bytes (68 to 65,535); without one the interface keeps its own (1,500).
    pub mtu_bytes: Option<u16>,
}

impl TunOptions {
    /// One queue with offloads, and the MTU as it is.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), has_queues: false, has_offloads: true, mtu_bytes: None }
    }
}

/// One open queue of a TUN interface.
#[derive(Debug)]
pub struct Tun {
    file: OwnedFd,
    name: String,
    offloads: Offloads,
}

impl Tun {
    /// Makes the interface, or joins one that persists or has queues, sets its MTU and brings it up.
    ///
    /// # Errors
    ///
    /// When `/dev/net/tun` is missing or closed to us, the name is not one, another process holds
    /// the interface, or the kernel refuses the MTU.
    pub fn open(options: &TunOptions) -> Result<Self, DeviceError> {
        let name = options.name.as_str();
        let request =
            InterfaceRequest::new(name).ok_or_else(|| DeviceError::Name { name: name.to_owned() })?;
        let file = open_control()?;
        let queues = if options.has_queues { IFF_MULTI_QUEUE } else { 0 };
        let flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | queues;
        let request = attach(&file, &request.with_value(&flags.to_ne_bytes()))
            .map_err(|error| refused("TUNSETIFF", name, error))?;
        let name = request.name();
        set_integer::<TUNSETVNETLE>(&file, 1).map_err(|error| refused("TUNSETVNETLE", &name, error))?;
        let header_bytes = c_int::try_from(HEADER_BYTES).unwrap_or(c_int::MAX);
        set_integer::<TUNSETVNETHDRSZ>(&file, header_bytes)
            .map_err(|error| refused("TUNSETVNETHDRSZ", &name, error))?;
        let offloads = set_offloads(&file, &name, options.has_offloads)?;
        if let Some(mtu_bytes) = options.mtu_bytes {
            ifreq::set_mtu(&name, mtu_bytes).map_err(|error| refused("SIOCSIFMTU", &name, error))?;
        }
        ifreq::bring_up(&name).map_err(|error| refused("SIOCSIFFLAGS", &name, error))?;
        Ok(Self { file, name, offloads })
    }

    /// Takes a descriptor that behaves as a TUN queue: one packet a read or write, with a virtio-net
    /// header of 12 bytes in front. It is made non-blocking.
    ///
    /// For queues that another process opened, and for tests on a pair of sockets.
    ///
    /// # Errors
    ///
    /// When the descriptor can not be made non-blocking.
    pub fn adopt(file: OwnedFd, name: &str) -> Result<Self, DeviceError> {
        rustix::io::ioctl_fionbio(&file, true).map_err(|error| refused("FIONBIO", name, error))?;
        Ok(Self { file, name: name.to_owned(), offloads: Offloads::None })
    }

    /// The interface's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the kernel leaves to us.
    #[must_use]
    pub const fn offloads(&self) -> Offloads {
        self.offloads
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Packets that were sent towards a TUN and found its queue full, by the kernel's own count.
///
/// # Errors
///
/// When the table of interfaces can not be read or has no interface `name`.
pub fn kernel_tx_dropped(name: &str) -> io::Result<u64> {
    let table = std::fs::read_to_string("/proc/thread-self/net/dev")?;
    tx_dropped_in(&table, name).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

/// The twelfth number behind the name: transmitted bytes, packets, errors, *dropped*.
fn tx_dropped_in(table: &str, name: &str) -> Option<u64> {
    let numbers = |line: &'_ str| Some(line.trim_start().strip_prefix(name)?.strip_prefix(':')?.to_owned());
    let line = table.lines().find_map(numbers)?;
    line.split_ascii_whitespace().nth(11)?.parse().ok()
}

fn open_control() -> Result<OwnedFd, DeviceError> {
    let path = Path::new("/dev/net/tun");
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|error| DeviceError::NoTun { error: error.into() })
}

/// Makes the descriptor a queue of the interface.
///
/// A process that was killed holds its queue until the kernel has closed its files, which on a loaded machine
/// is a moment after the process was waited for. So one that is busy is asked for again for a second.
fn attach(file: &OwnedFd, request: &InterfaceRequest) -> Result<InterfaceRequest, Errno> {
    let mut tries = 0;
    loop {
        // SAFETY: a TUN can only be made by ioctl; TUNSETIFF takes a `struct ifreq`.
        match unsafe { request.call::<TUNSETIFF>(file) } {
            Err(Errno::BUSY) if tries < BUSY_TRIES => tries += 1,
            result => return result,
        }
        std::thread::sleep(BUSY_PAUSE);
    }
}

/// Asks for the best set of offloads that the kernel takes.
fn set_offloads(file: &OwnedFd, name: &str, is_wanted: bool) -> Result<Offloads, DeviceError> {
    let mut last = Errno::INVAL;
    for (offloads, bits) in OFFLOAD_STEPS {
        if !is_wanted && bits != 0 {
            continue;
        }
        // SAFETY: rustix can not know what a call expects; TUNSETOFFLOAD takes its bits by value.
        let call = unsafe { IntegerSetter::<TUNSETOFFLOAD>::new_usize(bits) };
        // SAFETY: as above; the call touches no memory of ours.
        match unsafe { rustix::ioctl::ioctl(file, call) } {
            Ok(()) => return Ok(offloads),
            Err(error) => last = error,
        }
    }
    Err(refused("TUNSETOFFLOAD", name, last))
}

/// A call that takes a pointer to an int.
fn set_integer<const OPCODE: Opcode>(file: &OwnedFd, value: c_int) -> Result<(), Errno> {
    // SAFETY: rustix can not know what a call expects; the calls made through here take an `int *` to read.
    let call = unsafe { Setter::<OPCODE, c_int>::new(value) };
    // SAFETY: as above; the kernel reads only that integer.
    unsafe { rustix::ioctl::ioctl(file, call) }
}

fn refused(call: &'static str, name: &str, error: Errno) -> DeviceError {
    DeviceError::Interface { call, name: name.to_owned(), error: error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drop_counter_is_found_by_the_exact_name() {
        let table = "Inter-|   Receive                                                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo\n    \
            lo:     100       1    0    0    0     0          0         0      100       1    0    9    0     0  0  0\n  \
            tun1:   100       1    0    4    0     0          0         0      100       1    0    5    0     0  0  0\n   \
            tun:   100       1    0    4    0     0          0         0      100       1    0    7    0     0  0  0\n";
        assert_eq!(tx_dropped_in(table, "tun1"), Some(5));
        assert_eq!(tx_dropped_in(table, "tun"), Some(7));
        assert_eq!(tx_dropped_in(table, "tun2"), None);
        assert_eq!(tx_dropped_in("", "tun"), None);
    }

    #[test]
    fn a_name_that_can_not_be_one_is_refused_before_anything_is_opened() {
        let error = Tun::open(&TunOptions::new("a name with spaces")).unwrap_err();
        assert!(error.to_string().contains("a name with spaces"), "{error}");
    }
}
