//! The clock of budgets on a forwarder: a thread that advances the epoch of the WASM engine every 100 us.
//!
//! It ticks while calls run, and a little longer, since waking costs more than a tick; then it sleeps, so that a
//! forwarder that opens no flows loses no time to it. A call must never run without the clock, however long its
//! thread is kept from running, so each one is counted from its begin to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use wasmtime::Engine;

/// How often the epoch advances.
pub(crate) const TICK: Duration = Duration::from_micros(100);

/// The longest budget that a call may have: a configuration that says more gets this.
pub(crate) const BUDGET_MAX: Duration = Duration::from_secs(1);

/// Ticks without a call after which the thread sleeps: some milliseconds.
const IDLE_TICKS_MAX: u32 = 20;

#[derive(Debug)]
struct State {
    /// Calls that run.
    calls: AtomicU32,
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
            calls: AtomicU32::new(0),
            is_parked: AtomicBool::new(false),
            is_stopped: AtomicBool::new(false),
        });
        let (shared, engine) = (Arc::clone(&state), engine.clone());
        let handle = thread::Builder::new()
            .name("evenkeel-ticker".to_owned())
            .spawn(move || tick(&shared, &engine))?;
        Ok(Self { state, thread: handle.thread().clone(), handle: Some(handle) })
    }

    /// A call begins; it ends with the value.
    pub(crate) fn call(&self) -> Running<'_> {
        self.state.calls.fetch_add(1, Ordering::SeqCst);
        if self.state.is_parked.swap(false, Ordering::SeqCst) {
            self.thread.unpark();
        }
        Running(&self.state.calls)
    }
}

/// A call that runs.
#[derive(Debug)]
pub(crate) struct Running<'a>(&'a AtomicU32);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
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
    let mut idle = 0_u32;
    while !state.is_stopped.load(Ordering::Relaxed) {
        idle = if state.calls.load(Ordering::SeqCst) == 0 { idle + 1 } else { 0 };
        if idle > IDLE_TICKS_MAX {
            park(state);
            idle = 0;
        }
        thread::sleep(TICK);
        engine.increment_epoch();
    }
}

/// Waits for the next call. A call is counted before it looks whether we are parked, and we do both the other way
/// round, so one of the two sees the other. A call that wakes us may have ended when we look: then we say anew that
/// we are parked before we look again, or the next call would not know.
fn park(state: &State) {
    loop {
        state.is_parked.store(true, Ordering::SeqCst);
        if state.calls.load(Ordering::SeqCst) > 0 || state.is_stopped.load(Ordering::SeqCst) {
            break;
        }
        thread::park();
    }
    state.is_parked.store(false, Ordering::SeqCst);
}
