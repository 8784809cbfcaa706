//! One guest at work: its instance, the budget of each call, its faults, and its breaker.
//!
//! Gets a call; gives its result, or nothing after a fault that is counted and kept for the operator. An instance
//! that trapped is dropped; the next call meets a new one. It never panics and never blocks longer than a budget.

use std::fmt;
use std::sync::Arc;

use evenkeel_engine::Instant;
use evenkeel_engine::director::{Fault, GuestStats};
use wasmtime::{Store, Trap, WasmBacktrace};

use crate::breaker::Breaker;
use crate::contract::{
    ConfigureError, HashScheduler, HashSchedulerPre, Policy, PolicyPre, TableScheduler, TableSchedulerPre,
    describe,
};
use crate::engine::{Budget, Data, Runtime};

/// Functions of the guest that a fault names, from the innermost outwards.
const FRAMES_MAX: usize = 6;

/// The exports of an instance, by world.
pub(crate) trait World: Sized {
    type Pre;
    fn instantiate(pre: &Self::Pre, store: &mut Store<Data>) -> wasmtime::Result<Self>;
}

macro_rules! worlds {
    ($($world:ident from $pre:ident,)+) => {
        $(impl World for $world {
            type Pre = $pre<Data>;
            fn instantiate(pre: &Self::Pre, store: &mut Store<Data>) -> wasmtime::Result<Self> {
                pre.instantiate(store)
            }
        })+
    };
}

worlds! {
    HashScheduler from HashSchedulerPre,
    TableScheduler from TableSchedulerPre,
    Policy from PolicyPre,
}

/// What a sandbox is made of.
pub(crate) struct Terms<W: World> {
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) pre: W::Pre,
    /// The component, as the configuration names it.
    pub(crate) component: String,
    pub(crate) budget: Budget,
    pub(crate) memory_limit_bytes: u64,
}

struct Live<W> {
    store: Store<Data>,
    world: W,
}

/// A guest at work.
pub(crate) struct Sandbox<W: World> {
    terms: Terms<W>,
    setup_budget: Budget,
    live: Option<Live<W>>,
    breaker: Breaker,
    stats: GuestStats,
    fault: Option<Fault>,
}

impl<W: World> fmt::Debug for Sandbox<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox")
            .field("component", &self.terms.component)
            .field("is_live", &self.live.is_some())
            .field("breaker", &self.breaker)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

/// What `configure` gives: a trap, or a guest's refusal, or what it wants.
pub(crate) type Configured<R> = wasmtime::Result<Result<R, ConfigureError>>;

/// How much a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// A call about packets.
    Call,
    /// A call about the state that goes from one scheduler to the next. It may take as long as one about a change, since
    /// it happens once and a state that is cut off is lost; the next call may do well again.
    Handover,
    /// A call about a change. When it fails, the same call would fail again.
    Setup,
}

impl<W: World> Sandbox<W> {
    pub(crate) fn new(terms: Terms<W>) -> Self {
        let setup_budget = Budget::of_setup(terms.budget);
        let (breaker, stats) = (Breaker::new(), GuestStats::default());
        Self { terms, setup_budget, live: None, breaker, stats, fault: None }
    }

    pub(crate) fn component(&self) -> &str {
        &self.terms.component
    }

    pub(crate) const fn stats(&self) -> GuestStats {
        self.stats
    }

    pub(crate) const fn stats_mut(&mut self) -> &mut GuestStats {
        &mut self.stats
    }

    pub(crate) const fn take_fault(&mut self) -> Option<Fault> {
        self.fault.take()
    }

    pub(crate) const fn is_live(&self) -> bool {
        self.live.is_some()
    }

    /// Whether the breaker lets a call happen.
    pub(crate) fn may_call(&mut self, now: Instant) -> bool {
        self.breaker.allows(now)
    }

    /// The guest did what it had to.
    pub(crate) fn succeeded(&mut self, now: Instant) {
        self.breaker.succeeded(now);
    }

    /// Makes a new instance and configures it; `None` after a fault.
    pub(crate) fn begin<R>(
        &mut self,
        now: Instant,
        configure: impl FnOnce(&W, &mut Store<Data>) -> Configured<R>,
    ) -> Option<R> {
        self.live = None;
        if !self.instantiate(now) {
            return None;
        }
        match self.call("configure", Effort::Setup, now, configure)? {
            Ok(configured) => Some(configured),
            Err(error) => {
                self.live = None;
                self.refuse("configure", describe(&error), Effort::Setup, now);
                None
            }
        }
    }

    /// Forgets what happened so far, and tells the reason of the last fault.
    pub(crate) fn end_trial(&mut self) -> Option<String> {
        self.live = None;
        self.breaker = Breaker::new();
        self.stats = GuestStats::default();
        self.fault.take().map(|fault| fault.reason)
    }

    fn instantiate(&mut self, now: Instant) -> bool {
        let Terms { runtime, pre, component, memory_limit_bytes, .. } = &self.terms;
        let mut store = runtime.store(component, *memory_limit_bytes);
        let made = runtime
            .begin(&mut store, self.setup_budget, now)
            .and_then(|_running| W::instantiate(pre, &mut store));
        match made {
            Ok(world) => {
                self.live = Some(Live { store, world });
                true
            }
            Err(error) => {
                let reason = self.reason(&error, store.data_mut(), self.setup_budget);
                self.record("instantiate", reason, Effort::Setup, now);
                false
            }
        }
    }

    /// Gives the instance back to the system.
    pub(crate) fn drop_instance(&mut self) {
        self.live = None;
    }

    /// Calls the instance; `None` when there is none, or after a fault.
    pub(crate) fn call<R>(
        &mut self,
        name: &'static str,
        effort: Effort,
        now: Instant,
        call: impl FnOnce(&W, &mut Store<Data>) -> wasmtime::Result<R>,
    ) -> Option<R> {
        let budget = match effort {
            Effort::Call => self.terms.budget,
            Effort::Handover | Effort::Setup => self.setup_budget,
        };
        let Live { store, world } = self.live.as_mut()?;
        self.stats.calls += 1;
        let result = self.terms.runtime.begin(store, budget, now).and_then(|_running| call(world, store));
        self.stats.fuel += budget.fuel_used(store);
        self.stats.memory_bytes = store.data().memory_bytes();
        match result {
            Ok(result) => Some(result),
            Err(error) => {
                let live = self.live.take();
                let reason = match live {
                    Some(mut live) => self.reason(&error, live.store.data_mut(), budget),
                    None => format!("{error:#}"),
                };
                self.record(name, reason, effort, now);
                None
            }
        }
    }

    /// Counts an answer that the host does not take. The instance stays: it did not trap.
    pub(crate) fn refuse(&mut self, call: &'static str, reason: String, effort: Effort, now: Instant) {
        self.record(call, reason, effort, now);
    }

    fn record(&mut self, call: &'static str, reason: String, effort: Effort, now: Instant) {
        self.stats.faults += 1;
        match effort {
            Effort::Call | Effort::Handover => {
                self.breaker.failed(now);
            }
            Effort::Setup => self.breaker.failed_for_good(now),
        }
        self.fault = Some(Fault { component: self.terms.component.clone(), call, reason });
    }

    /// The reason in the operator's words.
    fn reason(&self, error: &wasmtime::Error, data: &mut Data, budget: Budget) -> String {
        let mut reason = match (data.last_words.take(), error.downcast_ref::<Trap>()) {
            (Some(words), _) => words,
            (None, Some(Trap::Interrupt | Trap::OutOfFuel)) => {
                format!("it took longer than its budget of {:?}", budget.time)
            }
            (None, Some(Trap::StackOverflow)) => "its stack is used up".to_owned(),
            (None, Some(trap)) => trap.to_string(),
            (None, None) => error.root_cause().to_string(),
        };
        if data.is_memory_refused {
            let limit = self.terms.memory_limit_bytes;
            reason = format!("it asked for more memory than its limit of {limit} bytes: {reason}");
        }
        if let Some(trace) = error.downcast_ref::<WasmBacktrace>() {
            let names = frames(trace);
            if !names.is_empty() {
                reason += &format!(" (in {})", names.join(" < "));
            }
        }
        crate::log::clean(&reason)
    }
}

/// The functions that were running, the innermost first, without those of the language's own panic machinery. A
/// function that calls itself is named once.
fn frames(trace: &WasmBacktrace) -> Vec<String> {
    let text = trace.to_string();
    let names = text.lines().filter_map(|line| line.split_once('!')).map(|(_, name)| plain(name.trim()));
    let is_machinery = |name: &str| {
        ["core::panicking", "rust_begin_unwind", "__rustc", "rust_panic"]
            .iter()
            .any(|part| name.contains(part))
    };
    let mut names: Vec<String> = names.filter(|name| !is_machinery(name)).map(str::to_owned).collect();
    names.dedup();
    names.truncate(FRAMES_MAX);
    names
}

/// A function's name without the hash that older symbol names end with.
fn plain(name: &str) -> &str {
    match name.rsplit_once("::h") {
        Some((path, hash)) if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => path,
        _ => name,
    }
}
