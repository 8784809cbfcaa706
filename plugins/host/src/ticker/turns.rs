//! Who sleeps and who wakes: the calls that run and the clock that sleeps, in one atomic word.
//!
//! Every step of a caller and of the clock is one atomic operation on that word, so the order of those operations
//! is all that can happen between threads; the tests below try every order. No time and no thread is in here.
//!
//! ```text
//! caller: begin --(asleep)--> wake the thread --> the guest runs --> end
//! clock:  step -> Tick, Tick, ..., nobody calls for a while -> Sleep -> woken -> Tick ...
//! ```

use std::sync::atomic::{AtomicU32, Ordering};

/// Ticks without a call after which the clock sleeps: some milliseconds.
pub(super) const IDLE_TICKS_MAX: u32 = 20;

/// The clock sleeps, or is about to: who begins a call must wake it.
const ASLEEP: u32 = 1 << 31;
/// The clock has to end.
const STOPPED: u32 = 1 << 30;

/// What callers and the clock share. The low bits count the calls that run: at most one for each thread, of which
/// Linux has fewer than 2^22.
#[derive(Debug, Default)]
pub(super) struct Shared(AtomicU32);

impl Shared {
    /// A call begins; whether the caller has to wake the clock before the guest runs.
    pub(super) fn begin(&self) -> bool {
        self.0.fetch_add(1, Ordering::SeqCst) & ASLEEP != 0
    }

    /// A call that has begun ends.
    pub(super) fn end(&self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }

    /// Tells the clock to end. Whoever does has to wake it.
    pub(super) fn stop(&self) {
        self.0.fetch_or(STOPPED, Ordering::SeqCst);
    }

    #[cfg(test)]
    pub(super) fn is_asleep(&self) -> bool {
        self.0.load(Ordering::SeqCst) & ASLEEP != 0
    }
}

/// What the clock's thread has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Let a tick pass and say so.
    Tick,
    /// Sleep until somebody wakes the thread, or for no reason wakes it earlier.
    Sleep,
    /// Nothing any more.
    End,
}

/// The clock's own part.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Clock {
    /// Ticks since a call was seen.
    idle: u32,
    has_slept: bool,
}

impl Clock {
    /// One atomic operation, and what follows from it.
    ///
    /// The clock falls asleep only from "nobody calls" to "asleep" in one operation: a call that begins before it
    /// keeps the clock awake, and one that begins after it wakes the thread. Awake again, it ticks for a while
    /// even if that call has ended, so that a call now and then does not pay for waking each time.
    pub(super) fn step(&mut self, shared: &Shared) -> Step {
        let seen = if self.has_slept {
            *self = Self::default();
            shared.0.fetch_and(!ASLEEP, Ordering::SeqCst) & !ASLEEP
        } else if self.idle < IDLE_TICKS_MAX {
            shared.0.load(Ordering::SeqCst)
        } else {
            match shared.0.compare_exchange(0, ASLEEP, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => {
                    self.has_slept = true;
                    return Step::Sleep;
                }
                Err(seen) => seen,
            }
        };
        if seen & STOPPED != 0 {
            return Step::End;
        }
        self.idle = if seen == 0 { self.idle + 1 } else { 0 };
        Step::Tick
    }
}

#[cfg(test)]
mod tests;
