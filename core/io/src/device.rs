//! Several interfaces as one [`Device`] of the engine, over whichever backend the system allows.
//!
//! In come open interfaces and a choice; packets come and go as the engine asks. A packet never waits
//! for company: [`Device::receive`] takes what is there, [`Device::flush`] sends at once, and only
//! [`KernelDevice::wait`] sleeps.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::time::Duration;

use evenkeel_engine::InterfaceId;
use evenkeel_engine::device::{Device, PacketBuffer};
use rustix::event::Timespec;
use rustix::io::Errno;

use crate::INTERFACES_MAX;
use crate::epoll::Epoll;
use crate::error::DeviceError;
use crate::port::Port;
use crate::ring::Ring;
use crate::slots::{DeviceCounters, Slots};
use crate::sys::eventfd::{Waker, Wakeup};

/// How packets are to be read and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoChoice {
    /// io_uring, or epoll where that is refused. The default.
    #[default]
    Auto,
    /// io_uring or nothing.
    IoUring,
    /// epoll with a read or write for each packet.
    Epoll,
}

/// Why io_uring is not used although it may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What was asked of the kernel.
    pub operation: &'static str,
    /// What it answered.
    pub error: Errno,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, error } = self;
        let hint = match *error {
            Errno::PERM | Errno::ACCESS => " (forbidden by kernel.io_uring_disabled, seccomp or a container)",
            Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP => " (Linux 6.7 or later has it)",
            Errno::NOMEM => " (RLIMIT_MEMLOCK may be too low)",
            _ => "",
        };
        write!(f, "io_uring is refused: {operation}: {error}{hint}")
    }
}

/// How packets are read and written. Its text is one line for the start-up message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Through io_uring.
    IoUring,
    /// Through epoll, because it was asked for or because io_uring is refused.
    Epoll {
        /// Why io_uring is not used; nothing if epoll was asked for.
        refusal: Option<Refusal>,
    },
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IoUring => f.write_str("io_uring: multishot reads, batched writes"),
            Self::Epoll { refusal: None } => f.write_str("epoll: one read or write per packet, as asked for"),
            Self::Epoll { refusal: Some(refusal) } => {
                write!(f, "epoll: one read or write per packet, since {refusal}")
            }
        }
    }
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Something may be there: packets, a wakeup or a signal.
    Ready,
    /// The time is over.
    TimedOut,
}

#[derive(Debug)]
enum Driver {
    Ring(Box<Ring>),
    Epoll(Epoll),
}

/// Interfaces as a device; an [`InterfaceId`] is the index into the list that it was opened with.
///
/// It stays on the thread that opened it: the kernel is promised that one thread alone uses the ring.
/// Other threads reach it through its [`Waker`].
#[derive(Debug)]
pub struct KernelDevice {
    // Dropped in this order: the kernel lets go of the buffers before they and the files are gone.
    driver: Driver,
    slots: Slots,
    wakeup: Wakeup,
    ports: Vec<Port>,
    backend: Backend,
    _one_thread: PhantomData<*const ()>,
}

impl KernelDevice {
    /// Joins `ports`, of one kind or mixed, into a device.
    ///
    /// # Errors
    ///
    /// When there are no or more than [`INTERFACES_MAX`] interfaces, memory or descriptors are used up,
    /// or io_uring is refused and nothing else was allowed.
    pub fn open<P: Into<Port>>(ports: Vec<P>, choice: IoChoice) -> Result<Self, DeviceError> {
        let ports: Vec<Port> = ports.into_iter().map(Into::into).collect();
        let count = ports.len();
        if count == 0 || count > INTERFACES_MAX {
            return Err(DeviceError::InterfaceCount { count });
        }
        let resource = |what| move |error| DeviceError::Resource { what, error };
        let wakeup = Wakeup::new().map_err(resource("eventfd"))?;
        let mut slots = Slots::new(count).map_err(resource("packet buffers"))?;
        for (index, port) in ports.iter().enumerate() {
            if port.takes_super_datagrams() {
                slots.allow_super_datagrams(index);
            }
            if port.takes_whole() {
                slots.take_whole(index);
            }
        }
        let ring = match choice {
            IoChoice::Auto | IoChoice::IoUring => Ring::new(&ports, &wakeup, &mut slots).map_err(Some),
            IoChoice::Epoll => Err(None),
        };
        let (driver, backend) = match ring {
            Ok(ring) => (Driver::Ring(Box::new(ring)), Backend::IoUring),
            Err(Some(refusal)) if choice == IoChoice::IoUring => {
                return Err(DeviceError::IoUringRefused { refusal });
            }
            Err(refusal) => {
                let epoll = Epoll::new(&ports, &wakeup).map_err(resource("epoll"))?;
                (Driver::Epoll(epoll), Backend::Epoll { refusal })
            }
        };
        Ok(Self { driver, slots, wakeup, ports, backend, _one_thread: PhantomData })
    }

    /// Sleeps until a packet arrives, a [`Waker`] wakes, a signal comes or `timeout` is over; without one
    /// for as long as it takes.
    ///
    /// # Errors
    ///
    /// When an interface is gone, or the kernel refuses to wait.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<Wake, DeviceError> {
        if let Some((interface, error)) = self.slots.gone {
            let name = self.ports.get(interface).map_or("?", Port::name).to_owned();
            return Err(DeviceError::Gone { name, error: error.into() });
        }
        if self.slots.can_go_on() {
            return Ok(Wake::Ready);
        }
        match &mut self.driver {
            Driver::Ring(ring) => ring
                .wait(&mut self.slots, &self.ports, timeout)
                .map_err(|error| DeviceError::Wait { call: "io_uring_enter", error: error.into() }),
            Driver::Epoll(epoll) => epoll
                .wait(&self.wakeup, timeout)
                .map_err(|error| DeviceError::Wait { call: "epoll_wait", error: error.into() }),
        }
    }

    /// A handle that ends [`KernelDevice::wait`] from another thread.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.wakeup.waker()
    }

    /// How packets are read and written.
    #[must_use]
    pub const fn backend(&self) -> &Backend {
        &self.backend
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> DeviceCounters {
        let queue_overflows = self.ports.iter().map(Port::dropped).fold(0, u64::saturating_add);
        DeviceCounters { queue_overflows, ..self.slots.counters }
    }

    /// The interfaces, in the order of their [`InterfaceId`].
    #[must_use]
    pub fn interfaces(&self) -> &[Port] {
        &self.ports
    }

    #[cfg(test)]
    pub(crate) fn parts(&mut self) -> (&mut Slots, Option<&mut Ring>) {
        let ring = match &mut self.driver {
            Driver::Ring(ring) => Some(&mut **ring),
            Driver::Epoll(_) => None,
        };
        (&mut self.slots, ring)
    }
}

impl Device for KernelDevice {
    fn receive(&mut self) -> usize {
        self.slots.go_on();
        match &mut self.driver {
            Driver::Ring(ring) => ring.receive(&mut self.slots, &self.ports, &self.wakeup),
            Driver::Epoll(epoll) => epoll.receive(&mut self.slots, &self.ports),
        }
        self.slots.count_batch()
    }

    fn packet(&mut self, slot: usize) -> PacketBuffer<'_> {
        self.slots.packet(slot)
    }

    fn forward(&mut self, slot: usize, interface: InterfaceId, range: Range<usize>) -> bool {
        self.slots.forward(slot, interface, &range)
    }

    fn send(&mut self, interface: InterfaceId, bytes: &[u8]) -> bool {
        self.slots.send(interface, bytes)
    }

    fn flush(&mut self) {
        self.slots.coalesce();
        match &mut self.driver {
            Driver::Ring(ring) => ring.flush(&mut self.slots, &self.ports),
            Driver::Epoll(epoll) => epoll.flush(&mut self.slots, &self.ports),
        }
    }
}

/// A duration as the kernel takes it; longer than it can say is as long as it can say.
pub(crate) fn timespec(duration: Duration) -> Timespec {
    let tv_sec = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    Timespec { tv_sec, tv_nsec: duration.subsec_nanos().into() }
}
