//! The fallback: epoll to wait, one read or write per packet.
//!
//! The same packets come in and go out as with io_uring, and are counted the same; it only costs a
//! system call for each of them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

use crate::buffers::{Buffer, FRAME_RANGE, Pool, READ_RANGE};
use crate::device::{Wake, timespec};
use crate::port::Port;
use crate::slots::Slots;
use crate::sys::eventfd::Wakeup;
use crate::sys::packet::Arrived;

/// The number under which epoll reports a wakeup; interfaces have their index.
const WAKEUP: u64 = u64::MAX;

/// What waits, and where the next batch begins to read.
pub(crate) struct Epoll {
    file: OwnedFd,
    /// The interface that is read first: each in turn, so that a busy one starves nobody.
    first: usize,
    events: Vec<Event>,
}

impl Epoll {
    /// Waits for all of `ports` and for `wakeup`.
    ///
    /// # Errors
    ///
    /// When the process has no file descriptor left.
    pub(crate) fn new(ports: &[Port], wakeup: &Wakeup) -> io::Result<Self> {
        let file = epoll::create(CreateFlags::CLOEXEC)?;
        for (index, port) in ports.iter().enumerate() {
            epoll::add(&file, port, EventData::new_u64(index as u64), EventFlags::IN)?;
        }
        epoll::add(&file, wakeup, EventData::new_u64(WAKEUP), EventFlags::IN)?;
        Ok(Self { file, first: 0, events: Vec::with_capacity(ports.len() + 1) })
    }

    /// Reads what is there, up to a full batch.
    pub(crate) fn receive(&mut self, slots: &mut Slots, ports: &[Port]) {
        let (before, from) = ports.split_at(self.first.min(ports.len()));
        let in_turn = (before.len()..).zip(from).chain((0..).zip(before));
        for (interface, port) in in_turn {
            read_all(slots, interface, port);
        }
        self.first = if self.first + 1 < ports.len() { self.first + 1 } else { 0 };
    }

    /// Writes what is queued and gives back every buffer.
    pub(crate) fn flush(&mut self, slots: &mut Slots, ports: &[Port]) {
        let mut list = slots.take_outgoing();
        for mut outgoing in list.drain(..) {
            let range = outgoing.range.clone();
            let wanted_bytes = range.len();
            let bytes = slots.pool.bytes_mut(&mut outgoing.buffer);
            let bytes = bytes.get(range).unwrap_or_default();
            let result = ports.get(outgoing.interface).map_or(Err(Errno::NODEV), |port| write(port, bytes));
            slots.count_write(result, wanted_bytes, outgoing.packets);
            slots.pool.give(outgoing.buffer);
        }
        slots.put_back(list);
        slots.clear(Pool::give);
    }

    /// Sleeps until a packet, a wakeup, a signal or the end of `timeout`.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to wait.
    pub(crate) fn wait(&mut self, wakeup: &Wakeup, timeout: Option<Duration>) -> Result<Wake, Errno> {
        let timeout = timeout.map(timespec);
        self.events.clear();
        let events = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.file, events, timeout.as_ref()) {
            Ok(0) => return Ok(Wake::TimedOut),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        if self.events.iter().any(|event| event.data.u64() == WAKEUP) {
            wakeup.drain();
        }
        Ok(Wake::Ready)
    }
}

impl std::fmt::Debug for Epoll {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Epoll").field("first", &self.first).finish_non_exhaustive()
    }
}

/// Reads from one interface until it is empty or the batch is full, or a super-packet is being cut: buffers that wait
/// behind it are missing where its segments are to go.
fn read_all(slots: &mut Slots, interface: usize, port: &Port) {
    while !slots.is_full() && !slots.is_cutting() {
        let Some(buffer) = slots.pool.take() else {
            slots.counters.buffers_exhausted += 1;
            return;
        };
        let (unused, goes_on) = read_one(slots, interface, port, buffer);
        if let Some(buffer) = unused {
            slots.pool.give(buffer);
        }
        if !goes_on {
            return;
        }
    }
}

/// What one read gave.
enum Read {
    /// A packet of this many bytes, header included.
    Packet(usize),
    Frame(Arrived),
}

/// Reads one packet. Gives the buffer back if it is not in use now, and says whether there may be more packets.
fn read_one(slots: &mut Slots, interface: usize, port: &Port, mut buffer: Buffer) -> (Option<Buffer>, bool) {
    let whole = slots.pool.bytes_mut(&mut buffer);
    let read = match port {
        Port::Tun(tun) => {
            let read = rustix::io::read(tun.as_fd(), whole.get_mut(READ_RANGE).unwrap_or_default());
            read.and_then(|bytes| if bytes == 0 { Err(Errno::PIPE) } else { Ok(Read::Packet(bytes)) })
        }
        Port::Ethernet(ethernet) => {
            ethernet.receive(whole.get_mut(FRAME_RANGE).unwrap_or_default()).map(Read::Frame)
        }
    };
    match read {
        Ok(Read::Packet(read_bytes)) => (slots.fill(buffer, interface, read_bytes), true),
        Ok(Read::Frame(arrived)) => (slots.fill_frame(buffer, interface, arrived), true),
        Err(error) => {
            slots.count_read_error(interface, port, error);
            (Some(buffer), error == Errno::INTR)
        }
    }
}

/// Writes one packet. A signal before anything was written is no reason to lose it.
fn write(port: &Port, bytes: &[u8]) -> Result<usize, Errno> {
    loop {
        match rustix::io::write(port, bytes) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}
