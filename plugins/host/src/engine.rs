//! The WASM engine and what it allows: features, stack, memory, budgets.
//!
//! Two modes. `Fuel` counts instructions and makes not-a-numbers canonical: the same calls give the same answers
//! and end at the same instruction on every machine. `Epoch` counts ticks of 100 us: cheaper, and near enough
//! where a wall clock rules anyway.

use std::num::NonZeroUsize;

use wasmtime::component::{Linker, WasmStr};
use wasmtime::{Config, Engine, ResourceLimiter, Store, StoreContextMut, Trap, UpdateDeadline};

use evenkeel_engine::{Duration, Instant};

use crate::contract::{LOG, Level, TYPES};
use crate::grace::{Grace, thread_time, ticks};
use crate::log::{Gate, clean};
use crate::ticker::{BUDGET_MAX, Running, Ticker};

/// How the budget of a call is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In instructions: exact and repeatable, for the simulator.
    Fuel,
    /// In time: for the forwarder.
    Epoch,
}

/// The stack of a guest, in bytes: room for deep parsers, and little enough for any thread.
const STACK_BYTES: usize = 256 * 1024;
/// Units of fuel for a nanosecond of budget: about what a guest executes in that time.
const FUEL_PER_NANOSECOND: u64 = 2;
/// The budget of `configure`, `update` and `build`, which happen once per change and may have a table to fill.
const SETUP_BUDGET: Duration = Duration::from_millis(100);
/// Elements of all tables of a guest together. A Rust guest has tens, an interpreter thousands.
const TABLE_ELEMENTS_MAX: usize = 100_000;
/// Core instances, tables and memories of a guest. One from Rust has four instances, one from Python twenty.
const INSTANCES_MAX: usize = 64;

/// The engine with its clock.
#[derive(Debug)]
pub(crate) struct Runtime {
    pub(crate) engine: Engine,
    ticker: Option<Ticker>,
}

impl Runtime {
    pub(crate) fn new(mode: Mode) -> Result<Self, String> {
        let engine = Engine::new(&config(mode)).map_err(|error| format!("{error:#}"))?;
        let ticker = match mode {
            Mode::Fuel => None,
            Mode::Epoch => {
                let ticking = engine.clone();
                let ticker = Ticker::start(move || ticking.increment_epoch());
                Some(ticker.map_err(|error| format!("no thread for the clock: {error}"))?)
            }
        };
        Ok(Self { engine, ticker })
    }
}

/// What both modes have in common: nothing that is undefined, unbounded or not needed.
///
/// Instances are allocated on demand. A pool would save some microseconds of an instantiation that happens once
/// per director and fault, and would ask for the number of directors of every later configuration in advance.
fn config(mode: Mode) -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        .wasm_multi_memory(true)
        .concurrency_support(false)
        .max_wasm_stack(STACK_BYTES)
        .wasm_backtrace_max_frames(NonZeroUsize::new(FRAMES_MAX));
    match mode {
        Mode::Fuel => config.consume_fuel(true).cranelift_nan_canonicalization(true),
        Mode::Epoch => config.epoch_interruption(true),
    };
    config
}

/// Frames that are walked after a trap: a recursion that never ends has thousands.
const FRAMES_MAX: usize = 32;

/// How much one call may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    pub(crate) time: Duration,
    fuel: u64,
    ticks: u64,
}

impl Budget {
    pub(crate) fn of_call(time: Duration) -> Self {
        let time = time.clamp(Duration::from_micros(1), BUDGET_MAX);
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        // The tick that has begun already does not count.
        Self { time, fuel: nanoseconds * FUEL_PER_NANOSECOND, ticks: ticks(time) + 1 }
    }

    pub(crate) fn of_setup(call: Self) -> Self {
        Self::of_call(call.time.max(SETUP_BUDGET))
    }

    /// What a call that had this budget has used of it; 0 where nobody counts.
    pub(crate) fn fuel_used(self, store: &Store<Data>) -> u64 {
        store.get_fuel().map_or(0, |left| self.fuel.saturating_sub(left))
    }
}

/// What belongs to one instance beside its memory.
#[derive(Debug)]
pub(crate) struct Data {
    guest: Box<str>,
    memory_limit: usize,
    memory: usize,
    table_elements: usize,
    /// Whether more memory was asked for than there may be, in this call.
    pub(crate) is_memory_refused: bool,
    /// The guest's last words, in this call.
    pub(crate) last_words: Option<String>,
    pub(crate) now: Instant,
    /// What this call may still take when its time has passed.
    grace: Grace,
    gate: Gate,
}

impl Data {
    /// Linear memory that it has now.
    pub(crate) fn memory_bytes(&self) -> u64 {
        u64::try_from(self.memory).unwrap_or(u64::MAX)
    }
}

impl ResourceLimiter for Data {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let others = self.memory.saturating_sub(current);
        let is_granted = others.saturating_add(desired) <= self.memory_limit;
        if is_granted {
            self.memory = others.saturating_add(desired);
        } else {
            self.is_memory_refused = true;
        }
        Ok(is_granted)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let others = self.table_elements.saturating_sub(current);
        let is_granted = others.saturating_add(desired) <= TABLE_ELEMENTS_MAX;
        if is_granted {
            self.table_elements = others.saturating_add(desired);
        }
        Ok(is_granted)
    }

    fn instances(&self) -> usize {
        INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        INSTANCES_MAX
    }

    fn memories(&self) -> usize {
        INSTANCES_MAX
    }
}

impl Runtime {
    /// A store for one instance of a guest.
    pub(crate) fn store(&self, guest: &str, memory_limit_bytes: u64) -> Store<Data> {
        let memory_limit = usize::try_from(memory_limit_bytes).unwrap_or(usize::MAX);
        let data = Data {
            guest: guest.into(),
            memory_limit,
            memory: 0,
            table_elements: 0,
            is_memory_refused: false,
            last_words: None,
            now: Instant::ZERO,
            grace: Grace::default(),
            gate: Gate::default(),
        };
        let mut store = Store::new(&self.engine, data);
        store.limiter(|data| data);
        if self.ticker.is_some() {
            store.epoch_deadline_callback(|mut store| {
                let more = store.data_mut().grace.more(thread_time());
                more.map(UpdateDeadline::Continue).ok_or_else(|| Trap::Interrupt.into())
            });
        }
        store
    }

    /// Gives the next call its budget. The call may take it as long as the answer is kept.
    pub(crate) fn begin(
        &self,
        store: &mut Store<Data>,
        budget: Budget,
        now: Instant,
    ) -> wasmtime::Result<Option<Running<'_>>> {
        let data = store.data_mut();
        data.now = now;
        data.is_memory_refused = false;
        data.grace = Grace::of(budget.time);
        match &self.ticker {
            None => store.set_fuel(budget.fuel)?,
            Some(_) => store.set_epoch_deadline(budget.ticks),
        }
        Ok(self.ticker.as_ref().map(Ticker::call))
    }
}

/// What guests may import.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<Data>> {
    let mut linker = Linker::new(engine);
    linker.instance(TYPES)?;
    linker.instance(LOG)?.func_wrap("write", write)?;
    Ok(linker)
}

/// The guest's log. A message costs fuel by its length, as the host reads all of it.
fn write(mut store: StoreContextMut<'_, Data>, (level, message): (Level, WasmStr)) -> wasmtime::Result<()> {
    let text = message.to_str(&store)?;
    let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
    let is_fatal = level == Level::Fatal;
    let text = clean(&text);
    // Without fuel consumption there is no fuel, and the epoch sees to the bound.
    if let Ok(fuel) = store.get_fuel() {
        store.set_fuel(fuel.checked_sub(length).ok_or(Trap::OutOfFuel)?)?;
    }
    let data = store.data_mut();
    if is_fatal {
        data.last_words = Some(text);
    } else {
        data.gate.write(&data.guest, level, &text, data.now);
    }
    Ok(())
}
