//! The clock of budgets on a forwarder: a thread that advances the epoch of the WASM engine every 100 us.
//!
//! It sleeps when no guest has been called for a while, so that an idle forwarder stays idle. A call says that
//! it begins with one load of an atomic; only the first one after a pause wakes the thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use wasmtime::Engine;

/// How often the epoch advances.
pub(crate) const TICK: Duration = Duration::from_micros(100);

/// The longest budget that a call may have. A call may use it twice, and is always followed by at least one whole
/// period of ticks, so a period of two of these never leaves a call without a clock.
pub(crate) const BUDGET_MAX: Duration = Duration::from_secs(1);

/// Ticks between two looks at whether anyone called: more than twice the longest budget, as sleeps only overshoot.
const PERIOD_TICKS: u32 = 21_000;

#[derive(Debug)]
struct State {
    has_calls: AtomicBool,
    is_parked: AtomicBool,
    is_stopped: AtomicBool,
}

/// The thread, and what calls tell it.
#[derive(Debug)]
pub(crate) struct Ticker {
    state: Arc<State>,
    thread: Thread,
    handle: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no more threads.
    pub(crate) fn start(engine: &Engine) -> std::io::Result<Self> {
        let state = Arc::new(State {
            has_calls: AtomicBool::new(true),
            is_parked: AtomicBool::new(false),
            is_stopped: AtomicBool::new(false),
        });
        let (shared, engine) = (Arc::clone(&state), engine.clone());
        let handle = thread::Builder::new()
            .name("evenkeel-ticker".to_owned())
            .spawn(move || tick(&shared, &engine))?;
        Ok(Self { state, thread: handle.thread().clone(), handle: Some(handle) })
    }

    /// A call begins.
    pub(crate) fn call_begins(&self) {
        if self.state.has_calls.load(Ordering::Relaxed) {
            return;
        }
        self.state.has_calls.store(true, Ordering::SeqCst);
        if self.state.is_parked.swap(false, Ordering::SeqCst) {
            self.thread.unpark();
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.state.is_stopped.store(true, Ordering::SeqCst);
        self.thread.unpark();
        if let Some(handle) = self.handle.take() {
            // The thread ends within a tick; it has nothing to say.
            let _ = handle.join();
        }
    }
}

fn tick(state: &State, engine: &Engine) {
    let mut ticks = 0_u32;
    while !state.is_stopped.load(Ordering::Relaxed) {
        thread::sleep(TICK);
        engine.increment_epoch();
        ticks += 1;
        if ticks < PERIOD_TICKS {
            continue;
        }
        ticks = 0;
        if !state.has_calls.swap(false, Ordering::SeqCst) {
            park(state);
        }
    }
}

/// Waits for the next call. A call sets its flag before it looks at ours, and we the other way round, so one of
/// the two sees the other.
fn park(state: &State) {
    state.is_parked.store(true, Ordering::SeqCst);
    while !state.has_calls.load(Ordering::SeqCst) && !state.is_stopped.load(Ordering::SeqCst) {
        thread::park();
    }
    state.is_parked.store(false, Ordering::SeqCst);
}
