//! Packets through io_uring: reads that stay armed, writes in batches, from and into the same buffers.
//!
//! ```text
//! READ_MULTISHOT, one per TUN        --- takes a buffer from the ring for each packet, until none is left
//! RECVMSG multishot, one per Ethernet --- the same, with a control message in front of each frame
//! WRITE, one per packet              --- from the same buffer, which is then back in the ring
//! POLL_ADD, multishot                --- the wakeup counter
//! ```
//!
//! The kernel does its work for the ring while we are in a system call of ours and at no other time
//! (`DEFER_TASKRUN`): one call per batch sends the old packets and takes in the new ones.
//!
//! Every completion belongs to a buffer, a request that stays armed or the wakeup, and all of those are
//! bounded, so the completion queue is made large enough for all of them. Should it overflow all the
//! same, the kernel keeps what does not fit and hands it over at the next call.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{CancelBuilder, Fixed, RecvMsgOut, SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, cqueue, opcode};
use rustix::io::Errno;

use crate::INTERFACES_MAX;
use crate::buffers::{BUFFERS, Buffer, Pool, READ_RANGE, RECEIVE_BUFFERS, SEND_BUFFERS};
use crate::device::{Refusal, Wake};
use crate::port::Port;
use crate::slots::{Outgoing, Slots};
use crate::sys::bufring::{BufferRing, GROUP};
use crate::sys::eventfd::Wakeup;
use crate::sys::packet::{self, Arrived};

/// Requests that wait to be submitted: a whole flush of writes, and every request that stays armed.
/// A full queue is submitted early, so this is about speed only.
const SUBMISSIONS: u32 = 256;

/// Completions that can be there at once: one for each buffer, one for the end of each armed request.
const COMPLETIONS: u32 = 512;

const _: () = assert!(BUFFERS + 2 * (INTERFACES_MAX + 1) <= COMPLETIONS as usize);

/// How long cancelled requests may take to end when the ring is closed. All of them are reads and polls
/// that wait, which end at once.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(1);

/// The most calls that deliver the ends of cancelled requests: the kernel delivers 20 in each.
const CANCEL_CALLS_MAX: u32 = COMPLETIONS / 20;

/// What a message is that is too short to be one.
const NO_FRAME: Arrived = Arrived { length_bytes: 0, is_truncated: false, vlan: None };

/// What a completion belongs to, as kept in the request's 64 bits of user data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tag {
    /// A read that stays armed on an interface.
    Read { interface: u16 },
    /// A write of this many bytes, header included, and packets, from a buffer.
    Write { buffer: u16, length_bytes: u32, packets: u8 },
    /// The poll of the wakeup counter.
    Wakeup,
}

impl Tag {
    const READ: u64 = 1;
    const WRITE: u64 = 2;
    const WAKEUP: u64 = 3;

    const fn to_bits(self) -> u64 {
        match self {
            Self::Read { interface } => Self::READ << 56 | interface as u64,
            Self::Write { buffer, length_bytes, packets } => {
                Self::WRITE << 56 | (packets as u64) << 48 | (length_bytes as u64) << 16 | buffer as u64
            }
            Self::Wakeup => Self::WAKEUP << 56,
        }
    }

    fn from_bits(bits: u64) -> Option<Self> {
        let [kind, packets, l0, l1, l2, l3, n0, n1] = bits.to_be_bytes();
        let number = u16::from_be_bytes([n0, n1]);
        match u64::from(kind) {
            Self::READ => Some(Self::Read { interface: number }),
            Self::WRITE => {
                let length_bytes = u32::from_be_bytes([l0, l1, l2, l3]);
                Some(Self::Write { buffer: number, length_bytes, packets })
            }
            Self::WAKEUP => Some(Self::Wakeup),
            _ => None,
        }
    }
}

/// An io_uring instance with its buffer ring.
pub(crate) struct Ring {
    // Dropped in this order: the instance before the ring of buffers that it reads from and the message.
    uring: IoUring,
    buffers: BufferRing,
    /// What reads of frames are made from; the kernel may look at it as long as the instance lives.
    message: Box<libc::msghdr>,
    /// Whether the read of each interface is armed or must not be any more.
    is_armed: Vec<bool>,
    is_wakeup_armed: bool,
    /// Buffers in the ring, as far as completions tell.
    offered: usize,
}

impl Ring {
    /// A ring over `ports` and `wakeup`, with the buffers for reading handed over. Nothing is read yet.
    ///
    /// # Errors
    ///
    /// When the kernel refuses io_uring, or lacks something of it.
    pub(crate) fn new(ports: &[Port], wakeup: &Wakeup, slots: &mut Slots) -> Result<Self, Refusal> {
        Self::with_queues(ports, wakeup, slots, SUBMISSIONS, COMPLETIONS)
    }

    fn with_queues(
        ports: &[Port],
        wakeup: &Wakeup,
        slots: &mut Slots,
        submissions: u32,
        completions: u32,
    ) -> Result<Self, Refusal> {
        let refused = |operation| move |error: io::Error| refusal(operation, &error);
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_cqsize(completions)
            .build(submissions)
            .map_err(refused("io_uring_setup"))?;
        let mut probe = Probe::new();
        uring.submitter().register_probe(&mut probe).map_err(refused("IORING_REGISTER_PROBE"))?;
        if !probe.is_supported(opcode::ReadMulti::CODE) {
            return Err(Refusal { operation: "IORING_OP_READ_MULTISHOT", error: Errno::OPNOTSUPP });
        }
        let files: Vec<_> = ports.iter().map(Port::as_fd).chain([wakeup.as_fd()]).collect();
        let files: Vec<_> = files.iter().map(AsRawFd::as_raw_fd).collect();
        uring.submitter().register_files(&files).map_err(refused("IORING_REGISTER_FILES"))?;
        let entries = u16::try_from(BUFFERS.next_power_of_two()).unwrap_or(u16::MAX);
        // SAFETY: the kernel is told of memory. It lives as long as the instance: both are fields of
        // `Ring`, and the instance is dropped first.
        let buffers = unsafe { BufferRing::register(&uring.submitter(), entries) }
            .map_err(refused("IORING_REGISTER_PBUF_RING"))?;
        let (message, is_armed) = (packet::template(), vec![false; ports.len()]);
        let mut ring = Self { uring, buffers, message, is_armed, is_wakeup_armed: false, offered: 0 };
        for _ in 0..RECEIVE_BUFFERS {
            if let Some(buffer) = slots.pool.take() {
                ring.offer(&mut slots.pool, buffer);
            }
        }
        ring.buffers.publish();
        ring.arm(slots, ports);
        Ok(ring)
    }

    /// Takes in completions: what was read fills the batch, what was written is counted.
    pub(crate) fn receive(&mut self, slots: &mut Slots, ports: &[Port], wakeup: &Wakeup) {
        if self.uring.completion().is_empty() && self.has_work() {
            self.submit(slots);
        }
        while !slots.is_full() {
            let Some(completion) = self.uring.completion().next() else { break };
            self.complete(&completion, slots, ports, wakeup);
        }
        self.buffers.publish();
    }

    /// Sends what is queued, gives every other buffer back, and takes in what has arrived meanwhile.
    pub(crate) fn flush(&mut self, slots: &mut Slots, ports: &[Port]) {
        let mut list = slots.take_outgoing();
        for outgoing in list.drain(..) {
            self.write(slots, outgoing);
        }
        slots.put_back(list);
        slots.clear(|pool, buffer| self.recycle(pool, buffer));
        self.buffers.publish();
        self.arm(slots, ports);
        if self.has_work() {
            self.submit(slots);
        }
    }

    /// Sleeps until a completion, a signal or the end of `timeout`.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to wait.
    pub(crate) fn wait(
        &mut self,
        slots: &mut Slots,
        ports: &[Port],
        timeout: Option<Duration>,
    ) -> Result<Wake, Errno> {
        if !self.uring.completion().is_empty() {
            return Ok(Wake::Ready);
        }
        // What waits goes first: a call that also submits says how much it took, not that time is over.
        self.arm(slots, ports);
        if self.has_work() {
            self.submit(slots);
            if !self.uring.completion().is_empty() {
                return Ok(Wake::Ready);
            }
        }
        let result = match timeout {
            None => self.uring.submitter().submit_and_wait(1),
            Some(duration) => {
                let timespec = Timespec::from(duration);
                let arguments = SubmitArgs::new().timespec(&timespec);
                self.uring.submitter().submit_with_args(1, &arguments)
            }
        };
        match result.map_err(|error| errno(&error)) {
            Ok(_) | Err(Errno::INTR | Errno::BUSY | Errno::AGAIN) => Ok(Wake::Ready),
            Err(Errno::TIME) => Ok(Wake::TimedOut),
            Err(error) => Err(error),
        }
    }

    /// Buffers in the ring, as far as completions tell.
    #[cfg(test)]
    pub(crate) fn offered(&self) -> usize {
        self.offered
    }

    /// Whether a system call would do something: requests wait, or the kernel has completions to deliver.
    fn has_work(&mut self) -> bool {
        let queue = self.uring.submission();
        !queue.is_empty() || queue.taskrun() || queue.cq_overflow()
    }

    /// Hands over what waits and lets the kernel deliver completions, without sleeping.
    fn submit(&mut self, slots: &mut Slots) {
        slots.counters.completion_overflows += u64::from(self.uring.submission().cq_overflow());
        // Interrupted, out of memory, or completions must be taken first: what waits stays in the queue,
        // and the next call hands it over. Anything else is told by `wait`, which makes the same call.
        let _ = self.uring.submit();
    }

    /// Arms what is not: each read, as long as there are buffers for it, and the wakeup.
    fn arm(&mut self, slots: &mut Slots, ports: &[Port]) {
        if !self.is_wakeup_armed {
            let file = u32::try_from(self.is_armed.len()).unwrap_or(u32::MAX);
            self.is_wakeup_armed = self.push(slots, &wakeup_entry(file));
        }
        for (interface, port) in ports.iter().enumerate() {
            let is_armed = self.is_armed.get(interface).copied().unwrap_or(true);
            if is_armed || self.offered == 0 {
                continue;
            }
            let Ok(index) = u16::try_from(interface) else { return };
            let entry = match port {
                Port::Tun(_) => read_entry(index),
                Port::Ethernet(_) => receive_entry(index, &self.message),
            };
            let pushed = self.push(slots, &entry);
            if let Some(is_armed) = self.is_armed.get_mut(interface) {
                *is_armed = pushed;
            }
        }
    }

    /// Takes in one completion.
    fn complete(&mut self, completion: &cqueue::Entry, slots: &mut Slots, ports: &[Port], wakeup: &Wakeup) {
        let is_last = !cqueue::more(completion.flags());
        let result = usize::try_from(completion.result())
            .map_err(|_| Errno::from_raw_os_error(completion.result().wrapping_neg()));
        match Tag::from_bits(completion.user_data()) {
            Some(Tag::Read { interface }) => {
                let interface = usize::from(interface);
                let Some(port) = ports.get(interface) else { return };
                let number = cqueue::buffer_select(completion.flags());
                // SAFETY: the kernel has taken this buffer for a read, and this is that read's completion.
                let buffer = number.and_then(|number| unsafe { slots.pool.reclaim(number) });
                self.offered -= usize::from(buffer.is_some());
                let may_read_on = self.complete_read(slots, (interface, port), result, buffer);
                if let Some(is_armed) = self.is_armed.get_mut(interface) {
                    // An interface that is gone counts as armed, so that nobody arms it again.
                    *is_armed = !is_last || !may_read_on;
                }
            }
            Some(Tag::Write { buffer, length_bytes, packets }) => {
                slots.count_write(result, usize::try_from(length_bytes).unwrap_or(usize::MAX), packets);
                // SAFETY: the write from this buffer is complete: this is its completion.
                if let Some(buffer) = unsafe { slots.pool.reclaim(buffer) } {
                    self.recycle(&mut slots.pool, buffer);
                }
            }
            Some(Tag::Wakeup) => {
                wakeup.drain();
                self.is_wakeup_armed = !is_last;
            }
            None => debug_assert!(false, "every request has a tag"),
        }
    }

    /// Takes in what a read of an interface gave. Says whether the interface may be read on.
    fn complete_read(
        &mut self,
        slots: &mut Slots,
        (interface, port): (usize, &Port),
        result: Result<usize, Errno>,
        buffer: Option<Buffer>,
    ) -> bool {
        let (unused, may_read_on) = match (result, buffer) {
            (Ok(read_bytes @ 1..), Some(buffer)) => match port {
                Port::Tun(_) => (slots.fill(buffer, interface, read_bytes), true),
                Port::Ethernet(_) => (self.fill_frame(slots, interface, read_bytes, buffer), true),
            },
            (Ok(1..), None) => (None, true),
            (Ok(0), buffer) => (buffer, slots.count_read_error(interface, port, Errno::PIPE)),
            (Err(error), buffer) => (buffer, slots.count_read_error(interface, port, error)),
        };
        if let Some(buffer) = unused {
            self.recycle(&mut slots.pool, buffer);
        }
        may_read_on
    }

    /// Takes in a frame, with its sizes and its control message in front: `read_bytes` bytes in all.
    fn fill_frame(
        &self,
        slots: &mut Slots,
        interface: usize,
        read_bytes: usize,
        mut buffer: Buffer,
    ) -> Option<Buffer> {
        let bytes = slots.pool.bytes_mut(&mut buffer).get(READ_RANGE).unwrap_or_default();
        let arrived = bytes.get(..read_bytes).and_then(|bytes| RecvMsgOut::parse(bytes, &self.message).ok());
        let arrived = arrived.map_or(NO_FRAME, |message| Arrived {
            length_bytes: message.payload_data().len(),
            is_truncated: message.is_payload_truncated(),
            vlan: packet::vlan_of(message.control_data()),
        });
        slots.fill_frame(buffer, interface, arrived)
    }

    /// Queues a write; the buffer goes with it.
    fn write(&mut self, slots: &mut Slots, outgoing: Outgoing) {
        let Outgoing { buffer, interface, range, packets, .. } = outgoing;
        let length_bytes = range.len();
        let (address, number) = slots.pool.lend(buffer);
        let file = u32::try_from(interface).unwrap_or(u32::MAX);
        let length = u32::try_from(length_bytes).unwrap_or(u32::MAX);
        let tag = Tag::Write { buffer: number, length_bytes: length, packets };
        // RWF_NOWAIT: a packet that finds the queue full is dropped and counted, it does not wait there.
        let entry = opcode::Write::new(Fixed(file), address.as_ptr().wrapping_add(range.start), length)
            .rw_flags(libc::RWF_NOWAIT)
            .build()
            .user_data(tag.to_bits());
        if self.push(slots, &entry) {
            return;
        }
        slots.count_write(Err(Errno::AGAIN), length_bytes, packets);
        // SAFETY: the request was not queued, so that the kernel has never heard of the buffer.
        if let Some(buffer) = unsafe { slots.pool.reclaim(number) } {
            self.recycle(&mut slots.pool, buffer);
        }
    }

    /// Queues a request, making room first where there is none. Says whether it is queued.
    fn push(&mut self, slots: &mut Slots, entry: &Entry) -> bool {
        if self.uring.submission().is_full() {
            self.submit(slots);
        }
        // SAFETY: a request names memory that must stay valid until its completion. Reads take theirs from
        // the buffer ring, polls have none, and a write's buffer was lent by the pool, which takes it back
        // only after the completion and is dropped after the instance. Reads of frames also name the
        // message, which is dropped after the instance too.
        unsafe { self.uring.submission().push(entry) }.is_ok()
    }

    /// Gives a buffer back to where it is missing: to the packets of our own first, then to the reads.
    fn recycle(&mut self, pool: &mut Pool, buffer: Buffer) {
        if pool.free_count() < SEND_BUFFERS {
            pool.give(buffer);
        } else {
            self.offer(pool, buffer);
        }
    }

    /// Puts a buffer into the ring; the kernel sees it after the next publish.
    fn offer(&mut self, pool: &mut Pool, buffer: Buffer) {
        let (address, number) = pool.lend(buffer);
        let length_bytes = u32::try_from(READ_RANGE.len()).unwrap_or(u32::MAX);
        // SAFETY: only its caller can know where the read range lies: within the buffer that was just lent.
        let address = unsafe { address.add(READ_RANGE.start) };
        // SAFETY: the kernel is given memory. It lies in a buffer that was just lent and is reclaimed by a
        // completion only; the pool has no more buffers than the ring has entries.
        unsafe { self.buffers.push(address, length_bytes, number) };
        self.offered += 1;
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // Closing the instance ends its requests in the background, but the buffers are unmapped right
        // after, and an interface lives as long as a request on it: so end them here and wait for it.
        let timeout = Timespec::from(CANCEL_TIMEOUT);
        let _ = self.uring.submit();
        let _ = self.uring.submitter().register_sync_cancel(Some(timeout), CancelBuilder::any());
        for _ in 0..CANCEL_CALLS_MAX {
            if !self.has_work() || self.uring.submit().is_err() {
                break;
            }
            self.uring.completion().for_each(drop);
        }
        let _ = self.uring.submitter().unregister_files();
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("is_armed", &self.is_armed)
            .field("offered", &self.offered)
            .finish_non_exhaustive()
    }
}

/// A read that stays armed on the registered file `interface`.
fn read_entry(interface: u16) -> Entry {
    // `ReadMulti::build` overwrites the flag that says that the file is a registered one, and the kernel
    // would read from the process's descriptor of that number: so set it again.
    opcode::ReadMulti::new(Fixed(interface.into()), 0, GROUP)
        .build()
        .flags(Flags::FIXED_FILE)
        .user_data(Tag::Read { interface }.to_bits())
}

/// A read of frames that stays armed on the registered file `interface`. Each completion brings what a message has of
/// the sizes in `message`.
fn receive_entry(interface: u16, message: &libc::msghdr) -> Entry {
    let message = std::ptr::from_ref(message);
    opcode::RecvMsgMulti::new(Fixed(interface.into()), message, GROUP)
        .build()
        .user_data(Tag::Read { interface }.to_bits())
}

/// A poll of the wakeup counter, registered file `file`, that stays armed.
fn wakeup_entry(file: u32) -> Entry {
    let events = u32::from(libc::POLLIN.unsigned_abs());
    opcode::PollAdd::new(Fixed(file), events).multi(true).build().user_data(Tag::Wakeup.to_bits())
}

fn refusal(operation: &'static str, error: &io::Error) -> Refusal {
    Refusal { operation, error: errno(error) }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_survives_the_kernel() {
        let tags = [
            Tag::Read { interface: 0 },
            Tag::Read { interface: u16::MAX },
            Tag::Write { buffer: 0, length_bytes: 0, packets: 0 },
            Tag::Write { buffer: u16::MAX, length_bytes: 65_547, packets: u8::MAX },
            Tag::Wakeup,
        ];
        for tag in tags {
            assert_eq!(Tag::from_bits(tag.to_bits()), Some(tag));
        }
        assert_eq!(Tag::from_bits(0), None);
        assert_eq!(Tag::from_bits(u64::MAX), None);
    }

    #[test]
    fn nothing_is_lost_when_the_completion_queue_overflows() {
        let (near, far) = crate::tests::packet_pair();
        let ports = [crate::Tun::adopt(near, "fake").unwrap().into()];
        let wakeup = Wakeup::new().unwrap();
        let mut slots = Slots::new(1).unwrap();
        let ring = Ring::with_queues(&ports, &wakeup, &mut slots, 2, 4);
        let Ok(mut ring) = ring else {
            println!("SKIPPED: io_uring is refused here");
            return;
        };
        for number in 0..100 {
            rustix::io::write(&far, &[[0; 12].as_slice(), &[number; 30]].concat()).unwrap();
        }
        let mut seen = Vec::new();
        while seen.len() < 100 {
            ring.wait(&mut slots, &ports, Some(Duration::from_secs(5))).unwrap();
            ring.receive(&mut slots, &ports, &wakeup);
            for slot in 0..slots.count_batch() {
                let packet = slots.packet(slot);
                seen.push(packet.buffer[packet.range][0]);
                assert!(slots.forward(slot, evenkeel_engine::InterfaceId(0), &(64..94)));
            }
            ring.flush(&mut slots, &ports);
        }
        assert_eq!(seen, (0..100).collect::<Vec<u8>>());
        assert!(slots.counters.completion_overflows > 0, "four places do not hold 100 completions");
        while slots.counters.packets_written < 100 {
            ring.wait(&mut slots, &ports, Some(Duration::from_secs(5))).unwrap();
            ring.receive(&mut slots, &ports, &wakeup);
        }
        assert_eq!(slots.counters.queue_full + slots.counters.write_errors, 0);
        assert_eq!(ring.offered, RECEIVE_BUFFERS);
    }
}
