//! The clock of budgets on a forwarder: a thread that advances the epoch of the WASM engine every 100 us.
//!
//! It ticks while calls run, and a little longer, since waking costs more than a tick; then it sleeps, so that a
//! forwarder that opens no flows loses no time to it. A call must never run without the clock, however long its
//! thread is kept from running, so each one is counted from its begin to its end. Who sleeps and who wakes is
//! decided in [`turns`], and only carried out here.

mod turns;

use std::sync::Arc;
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use turns::{Clock, Shared, Step};

/// How often the epoch advances.
pub(crate) const TICK: Duration = Duration::from_micros(100);

/// The longest budget that a call may have: a configuration that says more gets this.
pub(crate) const BUDGET_MAX: Duration = Duration::from_secs(1);

/// The thread, and what calls tell it.
#[derive(Debug)]
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
    handle: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Starts the thread, which calls `advance` once for each tick.
    ///
    /// # Errors
    /// When the system has no more threads.
    pub(crate) fn start(advance: impl FnMut() + Send + 'static) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let its = Arc::clone(&shared);
        let handle =
            thread::Builder::new().name("evenkeel-ticker".to_owned()).spawn(move || tick(&its, advance))?;
        Ok(Self { shared, thread: handle.thread().clone(), handle: Some(handle) })
    }

    /// A call begins; it ends with the value.
    pub(crate) fn call(&self) -> Running<'_> {
        if self.shared.begin() {
            self.thread.unpark();
        }
        Running(&self.shared)
    }
}

/// A call that runs.
#[derive(Debug)]
pub(crate) struct Running<'a>(&'a Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop();
        self.thread.unpark();
        if let Some(handle) = self.handle.take() {
            // The thread ends within a tick; it has nothing to say.
            let _ = handle.join();
        }
    }
}

fn tick(shared: &Shared, mut advance: impl FnMut()) {
    let mut clock = Clock::default();
    loop {
        match clock.step(shared) {
            Step::Tick => {
                thread::sleep(TICK);
                advance();
            }
            Step::Sleep => thread::park(),
            Step::End => break,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Instant;

    use super::turns::IDLE_TICKS_MAX;
    use super::*;

    /// Far more than anything here takes on a machine that is busy with other things: only a test that fails
    /// waits for so long.
    const LONG: Duration = Duration::from_secs(20);

    /// More ticks than come without a call, and one that may have begun before the call.
    const TICKS_OF_A_CALL: u32 = IDLE_TICKS_MAX + 2;

    fn counted() -> (Ticker, Receiver<()>) {
        let (sender, ticks) = channel();
        let ticker = Ticker::start(move || {
            // Nobody listens any more at the end of a test.
            let _ = sender.send(());
        });
        (ticker.unwrap(), ticks)
    }

    /// Returns when the thread sleeps or is about to, with no tick left.
    fn let_it_sleep(ticker: &Ticker, ticks: &Receiver<()>) {
        let began = Instant::now();
        while !ticker.shared.is_asleep() {
            assert!(began.elapsed() < LONG, "nobody calls, so the clock sleeps and says so");
            thread::yield_now();
        }
        ticks.try_iter().for_each(drop);
    }

    /// Drops it where a thread that does not end makes a test fail and not wait.
    fn end(ticker: Ticker) {
        let (sender, ended) = channel();
        thread::spawn(move || {
            drop(ticker);
            // Nobody listens any more when it was too late.
            let _ = sender.send(());
        });
        ended.recv_timeout(LONG).expect("the thread is told, and ends");
    }

    fn expect_ticks(ticks: &Receiver<()>) {
        ticks.try_iter().for_each(drop);
        for _ in 0..TICKS_OF_A_CALL {
            ticks.recv_timeout(LONG).expect("a call runs, so the clock ticks");
        }
    }

    #[test]
    fn a_call_has_ticks_after_calls_too_short_to_be_seen() {
        let (ticker, ticks) = counted();
        for _ in 0..10 {
            let_it_sleep(&ticker, &ticks);
            drop(ticker.call());
            let_it_sleep(&ticker, &ticks);
            let _running = ticker.call();
            expect_ticks(&ticks);
        }
        end(ticker);
    }

    #[test]
    fn a_call_has_ticks_after_many_threads_called_while_the_clock_fell_asleep() {
        let (ticker, ticks) = counted();
        for _ in 0..10 {
            let_it_sleep(&ticker, &ticks);
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| (0..1_000).for_each(|_| drop(ticker.call())));
                }
            });
            let _running = ticker.call();
            expect_ticks(&ticks);
        }
        end(ticker);
    }

    #[test]
    fn the_thread_ends_awake_and_asleep() {
        for is_asleep in [false, true] {
            let (ticker, ticks) = counted();
            if is_asleep {
                let_it_sleep(&ticker, &ticks);
            }
            end(ticker);
        }
    }
}
