//! Ethernet interfaces: frames in and out through a packet socket, with a virtio-net header before each.
//!
//! In goes the name of an interface that is there already, out comes a socket that has a copy of every frame
//! that comes in, and sends frames as they are. The kernel's own stack sees the same frames: what it must not
//! answer is settled elsewhere.
//!
//! The header carries what a sender on the same machine has left undone: a veth hands over frames without
//! checksums and super-packets that nobody has cut. What goes out with the same header is finished by the
//! device or the kernel. A VLAN tag that the kernel has taken off a frame stands beside it, in a control message.

use std::ffi::{c_int, c_void};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use evenkeel_engine::wire::ethernet::MacAddress;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::ifreq;
use crate::error::DeviceError;
use crate::offload::HEADER_BYTES;

/// Of `linux/if_packet.h`; the C library's bindings lack them.
const PACKET_IGNORE_OUTGOING: c_int = 23;
const PACKET_VNET_HDR_SZ: c_int = 24;

const TP_STATUS_VLAN_VALID: u32 = 1 << 4;
const TP_STATUS_VLAN_TPID_VALID: u32 = 1 << 6;

/// The type of a VLAN tag when the kernel does not say: IEEE 802.1Q.
const VLAN_8021Q: u16 = 0x8100;

/// The most memory that frames may take which wait for us: about a hundred super-packets of 64 KiB or ten thousand
/// small frames, as many as arrive in a few milliseconds. The kernel doubles it for its own bookkeeping.
const RECEIVE_BYTES_MAX: usize = 8 << 20;

/// The most memory that frames may take which wait to leave: two batches of super-packets.
const SEND_BYTES_MAX: usize = 8 << 20;

/// Control bytes in front of a frame: a message of the kind that carries the tag (16 + 24), rounded up so that the
/// IP packet behind the Ethernet header lies on 16 bytes.
pub(crate) const CONTROL_BYTES: usize = 50;

/// How an Ethernet interface is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EthernetOptions {
    /// Name of the interface, which must be there.
    pub name: String,
    /// The MAC address to use. Default: the interface's own.
    pub mac: Option<MacAddress>,
    /// Whether frames to other stations are wanted too. Default: no, unless `mac` is not the interface's own.
    pub is_promiscuous: bool,
    /// Whether super-packets and open checksums are wanted as they come. Default: yes; else they are cut and completed.
    pub has_offloads: bool,
    /// The longest IP packet that it must carry, in bytes. Default: any MTU will do.
    pub mtu_bytes: Option<u16>,
}

impl EthernetOptions {
    /// Frames to the interface's own address, and to groups.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), mac: None, is_promiscuous: false, has_offloads: true, mtu_bytes: None }
    }
}

/// An open Ethernet interface.
#[derive(Debug)]
pub struct Ethernet {
    socket: OwnedFd,
    name: String,
    mac: MacAddress,
    has_offloads: bool,
    /// Frames that found the socket's queue full, as far as the kernel has been asked.
    dropped: AtomicU64,
}

/// A VLAN tag that the kernel has taken off a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VlanTag {
    /// The type in front of it, 0x8100 for IEEE 802.1Q.
    pub(crate) kind: u16,
    /// Priority, drop mark and number.
    pub(crate) control: u16,
}

/// A frame that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrived {
    /// Bytes of header and frame.
    pub(crate) length_bytes: usize,
    /// Whether the frame was longer than the place for it.
    pub(crate) is_truncated: bool,
    /// The tag that belongs behind the addresses.
    pub(crate) vlan: Option<VlanTag>,
}

impl Ethernet {
    /// Opens the interface. It is not brought up, and gets no address; frames come as soon as it is up.
    ///
    /// # Errors
    ///
    /// When there is no such interface or it is no Ethernet, its MTU is too small, the process lacks `CAP_NET_RAW`, or
    /// the kernel is older than Linux 6.4.
    pub fn open(options: &EthernetOptions) -> Result<Self, DeviceError> {
        let name = options.name.as_str();
        let refused = |call| {
            let name = name.to_owned();
            move |error: Errno| DeviceError::Interface { call, name, error: error.into() }
        };
        if cfg!(target_endian = "big") {
            // The header is in the byte order of the machine there, and little endian everywhere else here.
            return Err(refused("PACKET_VNET_HDR_SZ")(Errno::NOTSUP));
        }
        let index = match ifreq::index(name) {
            Err(Errno::NODEV) => return Err(DeviceError::NoInterface { name: name.to_owned() }),
            Err(Errno::INVAL) => return Err(DeviceError::Name { name: name.to_owned() }),
            result => result.map_err(refused("SIOCGIFINDEX"))?,
        };
        let (kind, own) = ifreq::hardware_address(name).map_err(refused("SIOCGIFHWADDR"))?;
        if kind != libc::ARPHRD_ETHER {
            return Err(DeviceError::NotEthernet { name: name.to_owned(), kind });
        }
        if let Some(wanted_bytes) = options.mtu_bytes {
            let has_bytes = ifreq::mtu(name).map_err(refused("SIOCGIFMTU"))?;
            if has_bytes < u32::from(wanted_bytes) {
                return Err(DeviceError::SmallMtu { name: name.to_owned(), has_bytes, wanted_bytes });
            }
        }
        let own = MacAddress(own);
        let mac = options.mac.unwrap_or(own);
        // Without a protocol nothing comes in until everything is set.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)
            .map_err(|error| DeviceError::NoPacketSocket { error: error.into() })?;
        let header_bytes = c_int::try_from(HEADER_BYTES).unwrap_or(c_int::MAX);
        set_option(&socket, PACKET_VNET_HDR_SZ, &header_bytes).map_err(refused("PACKET_VNET_HDR_SZ"))?;
        set_option(&socket, PACKET_IGNORE_OUTGOING, &1).map_err(refused("PACKET_IGNORE_OUTGOING"))?;
        set_option(&socket, libc::PACKET_AUXDATA, &1).map_err(refused("PACKET_AUXDATA"))?;
        set_sizes(&socket).map_err(refused("SO_RCVBUF"))?;
        let is_promiscuous = options.is_promiscuous || mac != own;
        join(&socket, index, is_promiscuous).map_err(refused("PACKET_ADD_MEMBERSHIP"))?;
        bind(&socket, index).map_err(refused("bind"))?;
        let (name, has_offloads) = (name.to_owned(), options.has_offloads);
        Ok(Self { socket, name, mac, has_offloads, dropped: AtomicU64::new(0) })
    }

    /// The interface's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The MAC address to send from and to be reached at.
    #[must_use]
    pub const fn mac(&self) -> MacAddress {
        self.mac
    }

    /// Whether super-packets and open checksums are wanted as they come.
    pub(crate) const fn has_offloads(&self) -> bool {
        self.has_offloads
    }

    /// Whether the interface is still there. It may be down.
    pub(crate) fn is_there(&self) -> bool {
        let mut address = address_of(0);
        let mut length = socklen(size_of::<libc::sockaddr_ll>());
        let place = std::ptr::from_mut(&mut address).cast();
        // SAFETY: rustix does not read addresses of packet sockets. The kernel writes at most `length` bytes to
        // `address`, which is as long, and both live.
        let result = unsafe { libc::getsockname(self.socket.as_raw_fd(), place, &raw mut length) };
        // The kernel takes a socket off an interface that is deleted or moved away.
        result == 0 && address.sll_ifindex > 0
    }

    /// Frames that found the queue of the socket full, since it was opened.
    pub(crate) fn dropped(&self) -> u64 {
        let mut counts = [0_u32; 2];
        let mut length = socklen(size_of_val(&counts));
        let place = std::ptr::from_mut(&mut counts).cast();
        let (file, level, option) = (self.socket.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_STATISTICS);
        // SAFETY: rustix does not know this option. The kernel writes two 32-bit counts, and `counts` has room
        // for just those.
        let result = unsafe { libc::getsockopt(file, level, option, place, &raw mut length) };
        // The kernel counts from its last answer on.
        let [_, new] = if result == 0 { counts } else { [0, 0] };
        self.dropped.fetch_add(new.into(), Ordering::Relaxed) + u64::from(new)
    }

    /// Reads one frame with its header into `place`, without waiting.
    ///
    /// # Errors
    ///
    /// `AGAIN` when there is none, `NETDOWN` once when the interface has gone down, or what else the kernel says.
    pub(crate) fn receive(&self, place: &mut [u8]) -> Result<Arrived, Errno> {
        let mut control = [0_u8; CONTROL_BYTES];
        let mut part = libc::iovec { iov_base: place.as_mut_ptr().cast(), iov_len: place.len() };
        let mut message = empty_message();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        #[allow(clippy::useless_conversion, reason = "its type is another in other C libraries")]
        let control_bytes = CONTROL_BYTES.try_into().unwrap_or_default();
        message.msg_controllen = control_bytes;
        let file = self.socket.as_raw_fd();
        // SAFETY: rustix hides control messages that it does not know. The message points to `place` and to
        // `control` with their true lengths; both are borrowed here alone until the call returns.
        let result = unsafe { libc::recvmsg(file, &raw mut message, libc::MSG_DONTWAIT) };
        let Ok(length_bytes) = usize::try_from(result) else { return Err(last_error()) };
        let is_truncated = message.msg_flags & libc::MSG_TRUNC != 0;
        // What was not written is zero, which is no message.
        let vlan = vlan_of(&control);
        Ok(Arrived { length_bytes, is_truncated, vlan })
    }
}

impl AsFd for Ethernet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The message that multishot reads of frames are made from: no name, and room for the control bytes.
pub(crate) fn template() -> Box<libc::msghdr> {
    let mut message = Box::new(empty_message());
    #[allow(clippy::useless_conversion, reason = "its type is another in other C libraries")]
    let control_bytes = CONTROL_BYTES.try_into().unwrap_or_default();
    message.msg_controllen = control_bytes;
    message
}

fn empty_message() -> libc::msghdr {
    // SAFETY: some C libraries have padding in it that can not be named, so it can not be written out. All zero
    // bytes are a message without any part: null pointers with length zero.
    unsafe { std::mem::zeroed() }
}

/// The VLAN tag that control messages tell of.
pub(crate) fn vlan_of(control: &[u8]) -> Option<VlanTag> {
    let mut rest = control;
    loop {
        let (length, after) = rest.split_first_chunk::<{ size_of::<usize>() }>()?;
        let (level, after) = after.split_first_chunk::<4>()?;
        let (kind, data) = after.split_first_chunk::<4>()?;
        let length = usize::from_ne_bytes(*length);
        if (c_int::from_ne_bytes(*level), c_int::from_ne_bytes(*kind))
            == (libc::SOL_PACKET, libc::PACKET_AUXDATA)
        {
            return tag_in(data);
        }
        // Each begins aligned as its length is; one of no length would never end.
        let step = length.clamp(1, control.len()).next_multiple_of(size_of::<usize>());
        rest = rest.get(step..)?;
    }
}

/// The tag in a `struct tpacket_auxdata`: four bytes of status, twelve about the frame's place, and the tag.
fn tag_in(data: &[u8]) -> Option<VlanTag> {
    let status = u32::from_ne_bytes(*data.first_chunk()?);
    let word = |at: usize| Some(u16::from_ne_bytes(*data.get(at..)?.first_chunk()?));
    if status & TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let kind = if status & TP_STATUS_VLAN_TPID_VALID == 0 { VLAN_8021Q } else { word(18)? };
    Some(VlanTag { kind, control: word(16)? })
}

/// Sets an option of packet sockets that takes a value of this type.
fn set_option<T>(socket: &OwnedFd, option: c_int, value: &T) -> Result<(), Errno> {
    let place: *const c_void = std::ptr::from_ref(value).cast();
    let (file, length) = (socket.as_raw_fd(), socklen(size_of::<T>()));
    // SAFETY: rustix does not know options of packet sockets. The kernel reads at most `length` bytes of
    // `value`, which is as long.
    let result = unsafe { libc::setsockopt(file, libc::SOL_PACKET, option, place, length) };
    if result == 0 { Ok(()) } else { Err(last_error()) }
}

/// Bounds both queues. Without `CAP_NET_ADMIN` the machine's own bounds may be lower.
fn set_sizes(socket: &OwnedFd) -> Result<(), Errno> {
    use rustix::net::sockopt::{
        set_socket_recv_buffer_size, set_socket_recv_buffer_size_force, set_socket_send_buffer_size,
        set_socket_send_buffer_size_force,
    };
    set_socket_recv_buffer_size_force(socket, RECEIVE_BYTES_MAX)
        .or_else(|_| set_socket_recv_buffer_size(socket, RECEIVE_BYTES_MAX))?;
    set_socket_send_buffer_size_force(socket, SEND_BYTES_MAX)
        .or_else(|_| set_socket_send_buffer_size(socket, SEND_BYTES_MAX))
}

/// Has the device let frames in that are not for its own address: all, or those to groups.
fn join(socket: &OwnedFd, index: c_int, is_promiscuous: bool) -> Result<(), Errno> {
    let kind = if is_promiscuous { libc::PACKET_MR_PROMISC } else { libc::PACKET_MR_ALLMULTI };
    let membership = libc::packet_mreq {
        mr_ifindex: index,
        mr_type: u16::try_from(kind).unwrap_or(0),
        mr_alen: 0,
        mr_address: [0; 8],
    };
    set_option(socket, libc::PACKET_ADD_MEMBERSHIP, &membership)
}

/// Lets frames of every kind come in from the interface with this number.
fn bind(socket: &OwnedFd, index: c_int) -> Result<(), Errno> {
    let address = address_of(index);
    let place = std::ptr::from_ref(&address).cast();
    let length = socklen(size_of::<libc::sockaddr_ll>());
    // SAFETY: rustix has no addresses of packet sockets. The kernel reads `length` bytes of `address`, which is
    // as long and lives.
    let result = unsafe { libc::bind(socket.as_raw_fd(), place, length) };
    if result == 0 { Ok(()) } else { Err(last_error()) }
}

fn address_of(index: c_int) -> libc::sockaddr_ll {
    let family = u16::try_from(libc::AF_PACKET).unwrap_or(0);
    let protocol = u16::try_from(libc::ETH_P_ALL).unwrap_or(0).to_be();
    libc::sockaddr_ll {
        sll_family: family,
        sll_protocol: protocol,
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    }
}

fn socklen(bytes: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(bytes).unwrap_or(0)
}

fn last_error() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(kind: c_int, status: u32, tci: u16, tpid: u16) -> Vec<u8> {
        let mut bytes = (size_of::<usize>() + 8 + 20).to_ne_bytes().to_vec();
        bytes.extend(libc::SOL_PACKET.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(status.to_ne_bytes());
        bytes.extend([0; 12]);
        bytes.extend(tci.to_ne_bytes());
        bytes.extend(tpid.to_ne_bytes());
        bytes.resize(bytes.len().next_multiple_of(size_of::<usize>()), 0);
        bytes
    }

    #[test]
    fn a_tag_is_told_by_the_control_message_of_its_kind() {
        let both = TP_STATUS_VLAN_VALID | TP_STATUS_VLAN_TPID_VALID;
        let auxdata = |status, tci, tpid| control(libc::PACKET_AUXDATA, status, tci, tpid);
        assert_eq!(vlan_of(&auxdata(both, 7, 0x88a8)), Some(VlanTag { kind: 0x88a8, control: 7 }));
        assert_eq!(
            vlan_of(&auxdata(TP_STATUS_VLAN_VALID, 0x2005, 0)),
            Some(VlanTag { kind: 0x8100, control: 0x2005 })
        );
        assert_eq!(vlan_of(&auxdata(1, 7, 0x8100)), None);
        let behind = [control(99, both, 7, 0x8100), auxdata(both, 9, 0x8100)].concat();
        assert_eq!(vlan_of(&behind), Some(VlanTag { kind: 0x8100, control: 9 }));
        assert!(behind.len() / 2 <= CONTROL_BYTES);
    }

    #[test]
    fn control_bytes_that_are_no_messages_tell_nothing() {
        let whole = control(libc::PACKET_AUXDATA, TP_STATUS_VLAN_VALID, 7, 0);
        for length in 0..whole.len() - 6 {
            assert_eq!(vlan_of(&whole[..length]), None, "{length} bytes");
        }
        assert_eq!(vlan_of(&[0; CONTROL_BYTES]), None);
        assert_eq!(vlan_of(&[0xff; CONTROL_BYTES]), None);
    }

    #[test]
    fn an_interface_that_is_not_there_or_no_ethernet_is_named() {
        let error = Ethernet::open(&EthernetOptions::new("no-such-dev")).unwrap_err();
        assert!(matches!(&error, DeviceError::NoInterface { name } if name == "no-such-dev"), "{error}");
        let error = Ethernet::open(&EthernetOptions::new("a b")).unwrap_err();
        assert!(matches!(&error, DeviceError::Name { .. }), "{error}");
        let error = Ethernet::open(&EthernetOptions::new("lo")).unwrap_err();
        assert!(error.to_string().contains("interface lo is no Ethernet"), "{error}");
    }
}
