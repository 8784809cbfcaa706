//! What an interface is asked and told by ioctl: number, hardware address, MTU, up, and in tests its address.
//!
//! In go names and values, out comes what the kernel said. Routes and rules are netlink's business and
//! not done here.

use std::ffi::c_int;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::ioctl::{Opcode, Updater};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// The longest name of an interface, in bytes, without the zero behind it.
pub(crate) const NAME_BYTES_MAX: usize = 15;

/// The kernel's `struct ifreq`: a name and 24 bytes whose meaning depends on the call.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(crate) struct InterfaceRequest {
    name: [u8; NAME_BYTES_MAX + 1],
    value: [u8; 24],
}

impl InterfaceRequest {
    /// A request about the interface `name`; nothing if that can not be a name.
    pub(crate) fn new(name: &str) -> Option<Self> {
        let is_legal = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':';
        let fits = (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_legal);
        if !fits || name == "." || name == ".." {
            return None;
        }
        let mut request = Self { name: [0; NAME_BYTES_MAX + 1], value: [0; 24] };
        for (place, byte) in request.name.iter_mut().zip(name.bytes()) {
            *place = byte;
        }
        Some(request)
    }

    /// With `bytes` as the first bytes of the value.
    pub(crate) fn with_value(mut self, bytes: &[u8]) -> Self {
        for (place, byte) in self.value.iter_mut().zip(bytes) {
            *place = *byte;
        }
        self
    }

    /// The first two bytes of the value, where flags lie.
    pub(crate) const fn flags(&self) -> u16 {
        let [first, second, ..] = self.value;
        u16::from_ne_bytes([first, second])
    }

    /// The first four bytes of the value, where a number lies.
    const fn number(&self) -> c_int {
        let [a, b, c, d, ..] = self.value;
        c_int::from_ne_bytes([a, b, c, d])
    }

    /// The kind of hardware, and an address of six bytes.
    const fn hardware(&self) -> (u16, [u8; 6]) {
        let [k0, k1, a, b, c, d, e, f, ..] = self.value;
        (u16::from_ne_bytes([k0, k1]), [a, b, c, d, e, f])
    }

    /// The name, which the kernel may have completed.
    pub(crate) fn name(&self) -> String {
        self.name.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect()
    }

    /// Makes the call `OPCODE` on `file` with this request, and gives back what the kernel made of it.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    ///
    /// # Safety
    ///
    /// `OPCODE` is a call that takes a pointer to a `struct ifreq` and touches nothing else.
    pub(crate) unsafe fn call<const OPCODE: Opcode>(mut self, file: impl AsFd) -> Result<Self, Errno> {
        // SAFETY: rustix can not know the type that a call expects. By the contract of this function it
        // is `struct ifreq`, which this type is at least as long as, with the same alignment.
        let call = unsafe { Updater::<OPCODE, Self>::new(&mut self) };
        // SAFETY: as above; the kernel reads and writes only this request.
        unsafe { rustix::ioctl::ioctl(file, call) }?;
        Ok(self)
    }
}

const SIOCGIFINDEX: Opcode = 0x8933;
const SIOCGIFHWADDR: Opcode = 0x8927;
const SIOCGIFMTU: Opcode = 0x8921;
const SIOCGIFFLAGS: Opcode = 0x8913;
const SIOCSIFFLAGS: Opcode = 0x8914;
const SIOCSIFMTU: Opcode = 0x8922;
const IFF_UP: u16 = 1;

/// The number of the interface `name`.
///
/// # Errors
///
/// When there is no such interface.
pub(crate) fn index(name: &str) -> Result<c_int, Errno> {
    let request = InterfaceRequest::new(name).ok_or(Errno::INVAL)?;
    let socket = control_socket()?;
    // SAFETY: this call takes a `struct ifreq`; through ioctl as the others here, so that one socket does.
    let answer = unsafe { request.call::<SIOCGIFINDEX>(&socket) }?;
    Ok(answer.number())
}

/// What kind of hardware the interface `name` is, as `linux/if_arp.h` numbers them, and its address.
///
/// # Errors
///
/// When there is no such interface.
pub(crate) fn hardware_address(name: &str) -> Result<(u16, [u8; 6]), Errno> {
    let request = InterfaceRequest::new(name).ok_or(Errno::INVAL)?;
    let socket = control_socket()?;
    // SAFETY: the address can only be read through ioctl or netlink; this call takes a `struct ifreq`.
    let answer = unsafe { request.call::<SIOCGIFHWADDR>(&socket) }?;
    Ok(answer.hardware())
}

/// The MTU of the interface `name`, in bytes of the IP packet.
///
/// # Errors
///
/// When there is no such interface.
pub(crate) fn mtu(name: &str) -> Result<u32, Errno> {
    let request = InterfaceRequest::new(name).ok_or(Errno::INVAL)?;
    let socket = control_socket()?;
    // SAFETY: the MTU can only be read through ioctl or netlink; this call takes a `struct ifreq`.
    let answer = unsafe { request.call::<SIOCGIFMTU>(&socket) }?;
    Ok(u32::try_from(answer.number()).unwrap_or(0))
}

/// Sets the MTU of the interface `name`, in bytes of the IP packet.
///
/// # Errors
///
/// When there is no such interface, it does not take this MTU, or the caller may not set it.
pub(crate) fn set_mtu(name: &str, mtu_bytes: u16) -> Result<(), Errno> {
    let request = InterfaceRequest::new(name).ok_or(Errno::INVAL)?;
    let request = request.with_value(&c_int::from(mtu_bytes).to_ne_bytes());
    let socket = control_socket()?;
    // SAFETY: the MTU can only be set through ioctl or netlink; this call takes a `struct ifreq`.
    unsafe { request.call::<SIOCSIFMTU>(&socket) }?;
    Ok(())
}

/// Brings the interface `name` up.
///
/// # Errors
///
/// When there is no such interface or the caller may not change it.
pub(crate) fn bring_up(name: &str) -> Result<(), Errno> {
    change_flags(name, |flags| flags | IFF_UP)
}

/// Brings the interface `name` down.
#[cfg(test)]
pub(crate) fn bring_down(name: &str) -> Result<(), Errno> {
    change_flags(name, |flags| flags & !IFF_UP)
}

fn change_flags(name: &str, change: impl FnOnce(u16) -> u16) -> Result<(), Errno> {
    let request = InterfaceRequest::new(name).ok_or(Errno::INVAL)?;
    let socket = control_socket()?;
    // SAFETY: the flags can only be read through ioctl or netlink; this call takes a `struct ifreq`.
    let request = unsafe { request.call::<SIOCGIFFLAGS>(&socket) }?;
    let request = request.with_value(&change(request.flags()).to_ne_bytes());
    // SAFETY: as above.
    unsafe { request.call::<SIOCSIFFLAGS>(&socket) }?;
    Ok(())
}

/// Gives the interface `name` an IPv4 address and the mask of its network.
#[cfg(test)]
pub(crate) fn set_address(name: &str, address: [u8; 4], mask: [u8; 4]) -> Result<(), Errno> {
    const SIOCSIFADDR: Opcode = 0x8916;
    const SIOCSIFNETMASK: Opcode = 0x891c;
    let request = InterfaceRequest::new(name).ok_or(Errno::INVAL)?;
    let family = libc::AF_INET.to_ne_bytes();
    let value = |[a, b, c, d]: [u8; 4]| [family[0], family[1], 0, 0, a, b, c, d];
    let socket = control_socket()?;
    // SAFETY: this call takes a `struct ifreq`.
    unsafe { request.with_value(&value(address)).call::<SIOCSIFADDR>(&socket) }?;
    // SAFETY: as above.
    unsafe { request.with_value(&value(mask)).call::<SIOCSIFNETMASK>(&socket) }?;
    Ok(())
}

/// Any socket: calls about interfaces go through one.
fn control_socket() -> Result<std::os::fd::OwnedFd, Errno> {
    socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_kernel_takes_as_a_name_makes_a_request() {
        for name in ["tun0", "a", "fifteen-bytes-x", "tun%d"] {
            assert_eq!(InterfaceRequest::new(name).unwrap().name(), name);
        }
        for name in ["", ".", "..", "sixteen-bytes-xx", "a/b", "a b", "a:1", "t\0n", "tün"] {
            assert!(InterfaceRequest::new(name).is_none(), "{name:?}");
        }
    }

    #[test]
    fn the_request_is_as_long_as_the_kernels() {
        assert!(size_of::<InterfaceRequest>() >= size_of::<libc::ifreq>());
        assert!(align_of::<InterfaceRequest>() >= align_of::<libc::ifreq>());
    }

    #[test]
    fn an_interface_that_is_not_there_is_named_by_the_error() {
        assert_eq!(bring_up("no-such-dev"), Err(Errno::NODEV));
        assert!(matches!(set_mtu("no-such-dev", 1400), Err(Errno::NODEV | Errno::PERM)));
    }
}
