//! Cases on real TUN interfaces: two of them, each in a network namespace of its own, and the device is
//! the wire between them. The kernel's own sockets talk across it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc;
use std::thread::JoinHandle;

use evenkeel_engine::InterfaceId;
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::{PATIENCE, assert_no_buffer_is_lost, on_both_backends, open, settle, turn};
use crate::sys::ifreq;
use crate::{
    DeviceCounters, IoChoice, KernelDevice, Offloads, Tun, TunOptions, Wake, Waker, kernel_tx_dropped,
};

on_both_backends! {
    datagrams_of_every_size_arrive_unchanged,
    super_packets_of_tcp_pass_whole,
    datagrams_in_a_row_cross_the_kernel_as_one,
    a_hundred_thousand_packets_lose_no_buffer,
    a_write_to_an_interface_that_is_down_is_counted,
    an_interface_is_gone_as_soon_as_its_device_is,
}

const LEFT: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const RIGHT: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);

/// Moves this thread, and those that it starts from now on, into a network namespace of its own.
pub(super) fn enter_namespace() -> bool {
    // SAFETY: only file tables must not be unshared behind the back of others; a network namespace
    // concerns this thread alone.
    let result = unsafe { unshare_unsafe(UnshareFlags::NEWNET) };
    if let Err(error) = result {
        println!("SKIPPED: a network namespace: {error}");
    }
    result.is_ok()
}

/// A TUN in a namespace of its own; nothing, said aloud, where the system does not allow it.
fn tun_in_namespace(options: &TunOptions, address: Ipv4Addr) -> Option<Tun> {
    if !enter_namespace() {
        return None;
    }
    let tun = match Tun::open(options) {
        Ok(tun) => tun,
        Err(error) => {
            println!("SKIPPED: {error}");
            return None;
        }
    };
    ifreq::set_address(tun.name(), address.octets(), [255, 255, 255, 0]).unwrap();
    Some(tun)
}

/// Runs `left` and `right`, each in its namespace, with the device between them, until both have ended.
/// `right` goes first as far as its first `ready` call, so that it can listen before `left` connects.
fn across(
    choice: IoChoice,
    left: impl FnOnce() + Send + 'static,
    right: impl FnOnce(&dyn Fn()) + Send + 'static,
) -> Option<DeviceCounters> {
    let near = tun_in_namespace(&TunOptions::new("tun0"), LEFT)?;
    let (start_left, left_starts) = mpsc::channel::<Waker>();
    let left = std::thread::spawn(move || {
        let Ok(waker) = left_starts.recv() else { return };
        left();
        waker.wake();
    });
    let far = tun_in_namespace(&TunOptions::new("tun0"), RIGHT)?;
    let mut device = open(vec![near, far], choice)?;
    let waker = device.waker();
    let right = std::thread::spawn(move || {
        let left_waker = waker.clone();
        right(&|| start_left.send(left_waker.clone()).unwrap());
        waker.wake();
    });
    pump(&mut device, &[&left, &right]);
    left.join().unwrap();
    right.join().unwrap();
    assert_no_buffer_is_lost(&mut device);
    Some(device.counters())
}

fn pump(device: &mut KernelDevice, ends: &[&JoinHandle<()>]) {
    let other = |interface: InterfaceId| InterfaceId(1 - interface.0);
    while ends.iter().any(|end| !end.is_finished()) {
        if turn(device, other) == 0 {
            // A thread is finished a moment after its wakeup: so do not sleep for long.
            let wait = std::time::Duration::from_millis(100);
            let _: Wake = device.wait(Some(wait)).unwrap();
        }
    }
    while turn(device, other) > 0 {}
}

fn udp(address: Ipv4Addr, port: u16) -> UdpSocket {
    let socket = UdpSocket::bind((address, port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn datagrams_of_every_size_arrive_unchanged(choice: IoChoice) {
    let left = || {
        let socket = udp(LEFT, 1000);
        socket.connect((RIGHT, 2000)).unwrap();
        let mut answer = [0; 2_000];
        for size in 0..=1_472 {
            let packet: Vec<u8> =
                (0..size).map(|place| u8::try_from((place * 7 + size) % 251).unwrap()).collect();
            socket.send(&packet).unwrap();
            let length = socket.recv(&mut answer).unwrap();
            assert_eq!(answer[..length], packet);
        }
    };
    let right = |ready: &dyn Fn()| {
        let socket = udp(RIGHT, 2000);
        ready();
        let mut packet = [0; 2_000];
        for _ in 0..=1_472 {
            let (length, from) = socket.recv_from(&mut packet).unwrap();
            socket.send_to(&packet[..length], from).unwrap();
        }
    };
    let Some(counters) = across(choice, left, right) else { return };
    assert!(counters.packets_read >= 2 * 1_473);
    assert_eq!(counters.packets_read, counters.packets_written);
    assert_eq!(counters.bytes_read, counters.bytes_written);
}

fn super_packets_of_tcp_pass_whole(choice: IoChoice) {
    const BYTES: usize = 30_000_000;
    let pattern = || (0_u32..).map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()[0]).take(BYTES);
    let left = move || {
        let mut stream = TcpStream::connect((RIGHT, 2000)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&pattern().collect::<Vec<u8>>()).unwrap();
    };
    let right = move |ready: &dyn Fn()| {
        let listener = TcpListener::bind((RIGHT, 2000)).unwrap();
        ready();
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len(), BYTES);
        assert!(bytes.iter().copied().eq(pattern()), "the bytes arrive as they were sent");
    };
    let Some(counters) = across(choice, left, right) else { return };
    assert_eq!(counters.write_errors + counters.refused + counters.short_writes, 0, "{counters:?}");
    let mean = counters.bytes_read / counters.packets_read;
    assert!(
        mean > 2_000,
        "packets of {mean} bytes on average are no super-packets, acknowledgements included"
    );
}

fn datagrams_in_a_row_cross_the_kernel_as_one(choice: IoChoice) {
    let Some(near) = tun_in_namespace(&TunOptions::new("tun0"), LEFT) else { return };
    let sender = udp(LEFT, 1000);
    sender.connect((RIGHT, 2000)).unwrap();
    let Some(far) = tun_in_namespace(&TunOptions::new("tun0"), RIGHT) else { return };
    let receiver = udp(RIGHT, 2000);
    let takes_super_packets = far.offloads() == Offloads::ChecksumTcpUdp;
    let Some(mut device) = open(vec![near, far], choice) else { return };
    let sizes: Vec<usize> = [&[700; 20][..], &[90], &[1; 20], &[1_472; 10], &[3, 0, 2]].concat();
    let payload = |number: usize, size| vec![u8::try_from(number).unwrap(); size];
    for (number, size) in sizes.iter().copied().enumerate() {
        sender.send(&payload(number, size)).unwrap();
    }
    let other = |interface: InterfaceId| InterfaceId(1 - interface.0);
    while turn(&mut device, other) > 0 {}
    let mut bytes = [0; 2_000];
    for (number, size) in sizes.iter().copied().enumerate() {
        let length = receiver.recv(&mut bytes).unwrap();
        assert_eq!(bytes[..length], payload(number, size), "datagram {number}");
    }
    settle(&mut device);
    let counters = device.counters();
    assert!(counters.packets_joined > 0 || !takes_super_packets, "{counters:?}");
    assert_eq!(counters.packets_written, counters.packets_read, "{counters:?}");
    assert_eq!(counters.bytes_written, counters.bytes_read, "{counters:?}");
    assert_no_buffer_is_lost(&mut device);
}

fn a_hundred_thousand_packets_lose_no_buffer(choice: IoChoice) {
    /// Packets under way at a time: fewer than the 500 that the queue of a TUN holds.
    const WINDOW: usize = 200;
    const ROUNDS: usize = 250;
    let left = || {
        let socket = udp(LEFT, 1000);
        socket.connect((RIGHT, 2000)).unwrap();
        let mut answer = [0; 100];
        for _ in 0..ROUNDS {
            for number in 0..WINDOW {
                socket.send(&number.to_be_bytes()).unwrap();
            }
            for number in 0..WINDOW {
                assert_eq!(socket.recv(&mut answer).unwrap(), 8);
                assert_eq!(answer[..8], number.to_be_bytes(), "the order is kept");
            }
        }
    };
    let right = |ready: &dyn Fn()| {
        let socket = udp(RIGHT, 2000);
        ready();
        let mut packet = [0; 100];
        for _ in 0..ROUNDS * WINDOW {
            let (length, from) = socket.recv_from(&mut packet).unwrap();
            socket.send_to(&packet[..length], from).unwrap();
        }
    };
    let Some(counters) = across(choice, left, right) else { return };
    assert!(counters.packets_read >= 100_000);
    assert_eq!(counters.packets_read, counters.packets_written);
    assert!(counters.batches <= counters.packets_read);
}

fn a_write_to_an_interface_that_is_down_is_counted(choice: IoChoice) {
    use evenkeel_engine::device::Device;
    let Some(tun) = tun_in_namespace(&TunOptions::new("tun0"), LEFT) else { return };
    let Some(mut device) = open(vec![tun], choice) else { return };
    ifreq::bring_down("tun0").unwrap();
    // What the kernel itself has sent to the new interface is not forwarded.
    device.receive();
    assert!(device.send(InterfaceId(0), &[0x45; 40]));
    device.flush();
    settle(&mut device);
    assert_eq!(device.counters().write_errors, 1);
    assert_no_buffer_is_lost(&mut device);
}

fn an_interface_is_gone_as_soon_as_its_device_is(choice: IoChoice) {
    let Some(mut tun) = tun_in_namespace(&TunOptions::new("tun0"), LEFT) else { return };
    for _ in 0..20 {
        let Some(mut device) = open(vec![tun], choice) else { return };
        turn(&mut device, |interface| interface);
        drop(device);
        tun = Tun::open(&TunOptions::new("tun0")).unwrap();
    }
}

#[test]
fn the_kernels_count_of_a_full_queue_is_read() {
    let Some(tun) = tun_in_namespace(&TunOptions::new("tun0"), LEFT) else { return };
    assert_eq!(kernel_tx_dropped(tun.name()).unwrap(), 0);
    let socket = udp(LEFT, 1000);
    for _ in 0..2_000 {
        // Nobody reads: what does not fit into the queue of 500 is dropped, some of it with an error.
        let _ = socket.send_to(b"x", (RIGHT, 2000));
    }
    assert!(kernel_tx_dropped(tun.name()).unwrap() > 0);
    assert!(kernel_tx_dropped("tun7").is_err());
}

#[test]
fn an_interface_has_the_name_mtu_offloads_and_queues_that_were_asked_for() {
    let options = TunOptions { has_queues: true, mtu_bytes: Some(1_400), ..TunOptions::new("tun3") };
    let Some(first) = tun_in_namespace(&options, LEFT) else { return };
    assert_eq!(first.name(), "tun3");
    assert_ne!(first.offloads(), Offloads::None);
    let second = Tun::open(&options).unwrap();
    assert_eq!(second.name(), "tun3");
    let third = Tun::open(&TunOptions::new("tun3")).unwrap_err();
    assert!(third.to_string().contains("tun3"), "{third}");
    let plain = TunOptions { has_offloads: false, ..TunOptions::new("tun4") };
    assert_eq!(Tun::open(&plain).unwrap().offloads(), Offloads::None);
    let bad = TunOptions { mtu_bytes: Some(10), ..TunOptions::new("tun5") };
    assert!(Tun::open(&bad).unwrap_err().to_string().contains("tun5"));
    let socket = udp(LEFT, 1000);
    assert!(socket.send_to(&[0; 1_372], (RIGHT, 2000)).is_ok());
}
