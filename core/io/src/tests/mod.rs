//! The device on real TUN and Ethernet interfaces between network namespaces, and on pairs of sockets that
//! behave as a TUN. Both backends run the same cases.

mod ethernet;
mod fake;
mod joining;
mod wire;

use std::os::fd::OwnedFd;
use std::time::Duration;

use evenkeel_engine::InterfaceId;
use evenkeel_engine::device::Device;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::buffers::{BUFFERS, RECEIVE_BUFFERS};
use crate::{Backend, IoChoice, KernelDevice, Port};

/// No test waits longer than this for anything; one that does has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Two ends that keep packets apart, as a TUN does.
pub(crate) fn packet_pair() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
}

/// The device over `ports`; nothing, said aloud, where the system does not allow the backend.
fn open<P: Into<Port>>(ports: Vec<P>, choice: IoChoice) -> Option<KernelDevice> {
    match KernelDevice::open(ports, choice) {
        Ok(device) => {
            assert_eq!(matches!(device.backend(), Backend::IoUring), choice == IoChoice::IoUring);
            Some(device)
        }
        Err(error) => {
            println!("SKIPPED: {error}");
            None
        }
    }
}

/// One turn that forwards each packet by the interface that `way_out` names for the one it came by.
fn turn(device: &mut KernelDevice, way_out: fn(InterfaceId) -> InterfaceId) -> usize {
    let received = device.receive();
    for slot in 0..received {
        let packet = device.packet(slot);
        let (interface, range) = (way_out(packet.interface), packet.range.clone());
        assert!(device.forward(slot, interface, range));
    }
    device.flush();
    received
}

/// Takes in the completions of what was written. Those of failed writes come a call later, at most 20 by a call. What the
/// kernels still say to each other, such as the last acknowledgement, is thrown away.
fn settle(device: &mut KernelDevice) {
    let mut quiet = 0;
    for _ in 0..BUFFERS {
        quiet = if device.receive() == 0 { quiet + 1 } else { 0 };
        device.flush();
        if quiet == BUFFERS / 20 {
            return;
        }
    }
    panic!("packets keep coming");
}

/// Asserts that every buffer is where it belongs when nothing is under way.
fn assert_no_buffer_is_lost(device: &mut KernelDevice) {
    let (slots, ring) = device.parts();
    match ring {
        None => assert_eq!(slots.pool.free_count(), BUFFERS),
        Some(ring) => {
            assert_eq!(ring.offered(), RECEIVE_BUFFERS);
            assert_eq!(slots.pool.free_count(), BUFFERS - RECEIVE_BUFFERS);
            assert_eq!(slots.pool.lent_count(), RECEIVE_BUFFERS);
        }
    }
}

/// Makes a test of each case for each backend.
macro_rules! on_both_backends {
    ($($case:ident,)+) => {
        mod with_io_uring {
            $(#[test] fn $case() { super::$case($crate::IoChoice::IoUring); })+
        }
        mod with_epoll {
            $(#[test] fn $case() { super::$case($crate::IoChoice::Epoll); })+
        }
    };
}
use on_both_backends;
