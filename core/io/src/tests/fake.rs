//! Cases on pairs of sockets: no rights are needed, and the far end can do what a kernel would not.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use evenkeel_engine::InterfaceId;
use evenkeel_engine::device::{BATCH_MAX, Device, HEADROOM_BYTES};
use rustix::io::Errno;

use super::{PATIENCE, assert_no_buffer_is_lost, on_both_backends, open, packet_pair, settle, turn};
use crate::offload::{HEADER_BYTES, VirtioNetHeader};
use crate::{Backend, DeviceError, INTERFACES_MAX, IoChoice, KernelDevice, Tun, Wake};

on_both_backends! {
    packets_pass_in_order_with_their_headers,
    a_device_of_many_interfaces_reads_each,
    a_packet_born_here_and_one_that_passes_leave_in_order,
    a_full_queue_drops_and_counts_and_loses_no_buffer,
    more_packets_than_buffers_all_arrive,
    less_than_a_header_is_counted_and_skipped,
    an_interface_that_is_gone_is_named,
    a_wakeup_ends_the_wait_before_or_during_it,
    a_wait_ends_with_its_time,
    a_signal_ends_the_wait,
}

/// A device over `count` fake interfaces, with the far end of each.
fn fakes(count: usize, choice: IoChoice) -> Option<(KernelDevice, Vec<OwnedFd>)> {
    let (near, far): (Vec<_>, Vec<_>) = (0..count).map(|_| packet_pair()).unzip();
    let names = (0..count).map(|number| format!("fake{number}"));
    let tuns = near.into_iter().zip(names).map(|(file, name)| Tun::adopt(file, &name).unwrap());
    Some((open(tuns.collect(), choice)?, far))
}

fn put(far: &OwnedFd, header: VirtioNetHeader, packet: &[u8]) {
    let bytes = [&header.to_bytes()[..], packet].concat();
    assert_eq!(rustix::io::write(far, &bytes), Ok(bytes.len()));
}

fn fetch(far: &OwnedFd) -> Option<(VirtioNetHeader, Vec<u8>)> {
    let mut bytes = vec![0; 70_000];
    let length = rustix::io::read(far, &mut bytes).ok()?;
    let (header, packet) = bytes[..length].split_first_chunk::<HEADER_BYTES>().unwrap();
    Some((VirtioNetHeader::parse(*header), packet.to_vec()))
}

/// Turns until `count` packets have come in, back where they came from.
fn turn_until(device: &mut KernelDevice, count: usize) {
    let mut received = 0;
    while received < count {
        match turn(device, |interface| interface) {
            0 => assert_eq!(device.wait(Some(PATIENCE)).unwrap(), Wake::Ready, "{received} of {count} came"),
            some => received += some,
        }
    }
    settle(device);
}

fn packets_pass_in_order_with_their_headers(choice: IoChoice) {
    let Some((mut device, far)) = fakes(1, choice) else { return };
    let header = |number| VirtioNetHeader {
        flags: 1,
        gso_type: 1,
        header_bytes: 52,
        segment_bytes: number,
        checksum_start: 20,
        checksum_offset: 16,
    };
    for number in 1..=50 {
        put(&far[0], header(number), &number.to_be_bytes());
    }
    turn_until(&mut device, 50);
    for number in 1..=50_u16 {
        assert_eq!(fetch(&far[0]), Some((header(number), number.to_be_bytes().to_vec())));
    }
    let counters = device.counters();
    assert_eq!((counters.packets_read, counters.bytes_read), (50, 100));
    assert_eq!((counters.packets_written, counters.bytes_written), (50, 100));
    assert_no_buffer_is_lost(&mut device);
}

/// With registered files, number 0 is the first interface; as a descriptor of the process it is
/// something else. A request that confuses the two reads nothing here, or from the wrong file.
fn a_device_of_many_interfaces_reads_each(choice: IoChoice) {
    let Some((mut device, far)) = fakes(INTERFACES_MAX, choice) else { return };
    for (number, far) in far.iter().enumerate() {
        put(far, VirtioNetHeader::WHOLE, format!("to interface {number}").as_bytes());
    }
    turn_until(&mut device, far.len());
    for (number, far) in far.iter().enumerate() {
        let (_, packet) = fetch(far).unwrap();
        assert_eq!(packet, format!("to interface {number}").as_bytes());
    }
}

fn a_packet_born_here_and_one_that_passes_leave_in_order(choice: IoChoice) {
    let Some((mut device, far)) = fakes(2, choice) else { return };
    put(&far[0], VirtioNetHeader::WHOLE, b"passes");
    while device.receive() == 0 {
        device.wait(Some(PATIENCE)).unwrap();
    }
    assert!(device.send(InterfaceId(1), b"born"));
    assert!(device.forward(0, InterfaceId(1), HEADROOM_BYTES..HEADROOM_BYTES + 6));
    device.flush();
    settle(&mut device);
    assert_eq!(fetch(&far[1]).unwrap().1, b"born");
    assert_eq!(fetch(&far[1]).unwrap().1, b"passes");
    assert_no_buffer_is_lost(&mut device);
}

fn a_full_queue_drops_and_counts_and_loses_no_buffer(choice: IoChoice) {
    let Some((mut device, far)) = fakes(2, choice) else { return };
    let packet = vec![7; 60_000];
    for _ in 0..3 {
        for _ in 0..BATCH_MAX {
            assert!(device.send(InterfaceId(1), &packet));
        }
        device.flush();
        settle(&mut device);
    }
    let counters = device.counters();
    assert!(counters.queue_full > 0, "a socket does not hold 11 MB: {counters:?}");
    assert!(counters.packets_written > 0);
    assert_eq!(counters.packets_written + counters.queue_full, 3 * BATCH_MAX as u64);
    let arrived = std::iter::from_fn(|| fetch(&far[1])).count();
    assert_eq!(arrived as u64, counters.packets_written);
    assert_no_buffer_is_lost(&mut device);
}

fn more_packets_than_buffers_all_arrive(choice: IoChoice) {
    let Some((mut device, far)) = fakes(1, choice) else { return };
    let mut sent = 0_u64;
    let mut seen = 0;
    while sent < 5_000 {
        let bytes = [&[0; HEADER_BYTES][..], &sent.to_be_bytes()].concat();
        match rustix::io::write(&far[0], &bytes) {
            Ok(_) => sent += 1,
            Err(Errno::AGAIN) => {
                let received = turn(&mut device, |interface| interface);
                if received == 0 {
                    assert_eq!(device.wait(Some(PATIENCE)).unwrap(), Wake::Ready);
                }
                seen += received;
                while fetch(&far[0]).is_some() {}
            }
            Err(error) => panic!("{error}"),
        }
    }
    turn_until(&mut device, usize::try_from(sent).unwrap() - seen);
    let counters = device.counters();
    assert_eq!(counters.packets_read, 5_000);
    assert_eq!(counters.read_errors, 0);
    if choice == IoChoice::IoUring {
        assert!(counters.buffers_exhausted > 0, "more packets than buffers waited at once: {counters:?}");
    }
    assert_no_buffer_is_lost(&mut device);
}

fn less_than_a_header_is_counted_and_skipped(choice: IoChoice) {
    let Some((mut device, far)) = fakes(1, choice) else { return };
    rustix::io::write(&far[0], &[1; HEADER_BYTES - 1]).unwrap();
    put(&far[0], VirtioNetHeader::WHOLE, b"good");
    turn_until(&mut device, 1);
    assert_eq!(fetch(&far[0]).unwrap().1, b"good");
    assert_eq!(device.counters().read_errors, 1);
    assert_no_buffer_is_lost(&mut device);
}

fn an_interface_that_is_gone_is_named(choice: IoChoice) {
    let Some((mut device, mut far)) = fakes(2, choice) else { return };
    drop(far.pop());
    put(&far[0], VirtioNetHeader::WHOLE, b"still here");
    turn_until(&mut device, 1);
    for _ in 0..10 {
        turn(&mut device, |interface| interface);
    }
    let Err(DeviceError::Gone { name, .. }) = device.wait(Some(PATIENCE)) else { panic!("it is gone") };
    assert_eq!(name, "fake1");
    assert_eq!(fetch(&far[0]).unwrap().1, b"still here");
}

fn a_wakeup_ends_the_wait_before_or_during_it(choice: IoChoice) {
    let Some((mut device, _far)) = fakes(1, choice) else { return };
    let waker = device.waker();
    for _ in 0..3 {
        waker.wake();
        assert_eq!(device.wait(Some(PATIENCE)).unwrap(), Wake::Ready);
        assert_eq!(turn(&mut device, |interface| interface), 0);
        assert_eq!(
            device.wait(Some(std::time::Duration::ZERO)).unwrap(),
            Wake::TimedOut,
            "it was one wakeup"
        );
    }
    let other = std::thread::spawn(move || waker.wake());
    assert_eq!(device.wait(None).unwrap(), Wake::Ready);
    other.join().unwrap();
}

fn a_wait_ends_with_its_time(choice: IoChoice) {
    let Some((mut device, _far)) = fakes(1, choice) else { return };
    let before = std::time::Instant::now();
    let time = std::time::Duration::from_micros(1_500);
    assert_eq!(device.wait(Some(time)).unwrap(), Wake::TimedOut);
    assert!(before.elapsed() >= time);
}

fn a_signal_ends_the_wait(choice: IoChoice) {
    extern "C" fn ignore(_signal: libc::c_int) {}
    let Some((mut device, _far)) = fakes(1, choice) else { return };
    let handler: extern "C" fn(libc::c_int) = ignore;
    // SAFETY: the handler touches nothing, so that it may interrupt anything.
    unsafe { libc::signal(libc::SIGUSR1, handler as libc::sighandler_t) };
    // SAFETY: the call has no arguments and can not fail.
    let thread = unsafe { libc::pthread_self() };
    let is_done = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&is_done);
    let other = std::thread::spawn(move || {
        while !seen.load(Ordering::Acquire) {
            // SAFETY: the thread is joined below by whoever started it and lives until `is_done` is set.
            unsafe { libc::pthread_kill(thread, libc::SIGUSR1) };
            std::thread::yield_now();
        }
    });
    let wake = device.wait(Some(PATIENCE));
    is_done.store(true, Ordering::Release);
    other.join().unwrap();
    assert_eq!(wake.unwrap(), Wake::Ready);
}

#[test]
fn a_device_needs_an_interface_and_takes_a_bounded_number() {
    let open = |count| {
        let pairs: Vec<_> = (0..count).map(|_| packet_pair()).collect();
        let tuns = pairs
            .iter()
            .map(|(near, _)| Tun::adopt(near.as_fd().try_clone_to_owned().unwrap(), "x").unwrap());
        KernelDevice::open(tuns.collect(), IoChoice::Epoll)
    };
    assert!(matches!(open(0), Err(DeviceError::InterfaceCount { count: 0 })));
    assert!(open(1).is_ok());
    assert!(matches!(open(INTERFACES_MAX + 1), Err(DeviceError::InterfaceCount { count: 65 })));
}

/// Refuses io_uring to this thread, as containers do.
fn refuse_io_uring() -> bool {
    let load_number = libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 };
    let is_setup =
        libc::sock_filter { code: 0x15, jt: 0, jf: 1, k: libc::SYS_io_uring_setup.try_into().unwrap() };
    let refuse = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0x0005_0000 | libc::EPERM.unsigned_abs() };
    let allow = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 };
    let mut filter = [load_number, is_setup, refuse, allow];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY: this call only takes numbers; the thread can gain no privileges from now on.
    unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: the program and its filter live during the call, which copies both.
    unsafe { libc::prctl(libc::PR_SET_SECCOMP, 2, &raw const program) == 0 }
}

#[test]
fn where_io_uring_is_forbidden_epoll_takes_over_and_says_why() {
    let refused = std::thread::spawn(|| {
        if !refuse_io_uring() {
            println!("SKIPPED: seccomp is refused here");
            return;
        }
        let (near, far) = packet_pair();
        let tun = || Tun::adopt(near.try_clone().unwrap(), "fake").unwrap();
        let error = KernelDevice::open(vec![tun()], IoChoice::IoUring).unwrap_err();
        assert!(matches!(error, DeviceError::IoUringRefused { .. }), "{error}");
        let mut device = KernelDevice::open(vec![tun()], IoChoice::Auto).unwrap();
        let Backend::Epoll { refusal: Some(refusal) } = device.backend() else { panic!("it was refused") };
        assert_eq!((refusal.operation, refusal.error), ("io_uring_setup", Errno::PERM));
        let line = device.backend().to_string();
        assert!(line.starts_with("epoll") && line.contains("Operation not permitted"), "{line}");
        assert!(!line.contains('\n'));
        put(&far, VirtioNetHeader::WHOLE, b"passes");
        turn_until(&mut device, 1);
        assert_eq!(fetch(&far).unwrap().1, b"passes");
    });
    refused.join().unwrap();
}

#[test]
fn epoll_that_was_asked_for_is_no_refusal() {
    let (mut device, _far) = fakes(1, IoChoice::Epoll).unwrap();
    assert_eq!(device.backend(), &Backend::Epoll { refusal: None });
    assert_eq!(device.interfaces()[0].name(), "fake0");
    assert_no_buffer_is_lost(&mut device);
}
