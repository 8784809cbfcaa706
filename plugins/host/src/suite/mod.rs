//! What a scheduler component is made of, and whether it behaves: for authors, before anybody forwards with it.
//!
//! ```text
//! bytes -> inspect -> Portrait: interfaces, imports, size, memory
//!       -> examine -> findings: passed, failed, or a figure without a verdict
//! ```
//!
//! Everything runs by counted instructions, so that the findings repeat. Nothing is forwarded.

mod checks;
pub mod farm;

use std::path::Path;

use evenkeel_engine::plan::{Binding, Builtin, DirectorPlan, GuestPlan, SchedulerPlan, ServerPlan};
use evenkeel_engine::wire::Protocol;
use evenkeel_engine::{Duration, Plan, director::Scheduler};

use crate::load::{Host, Settings};
use crate::{Mode, contract};

pub use checks::{Finding, Verdict, examine};
pub use contract::Portrait;

/// The director whose scheduler is examined.
const DIRECTOR: &str = "examined";

/// What is to be looked at: a component with options, and where its files are.
#[derive(Clone, Debug)]
pub struct Subject {
    /// A path, or `bundled:NAME`.
    pub component: String,
    /// Its options as TOML text.
    pub options: String,
    /// The budget of a call.
    pub budget: Duration,
    /// The most linear memory.
    pub memory_bytes: u64,
    /// Finds bundled components.
    pub bundled: fn(&str) -> Option<&'static [u8]>,
}

impl Subject {
    fn plan(&self) -> Plan {
        let guest = GuestPlan {
            component: self.component.clone(),
            options: self.options.clone(),
            call_budget: self.budget,
            memory_limit_bytes: self.memory_bytes,
            // Whose answers are counted as not the guest's.
            fallback: Builtin::RoundRobin,
        };
        let bind = Binding::of([10, 0, 0, 3].into(), 80, Protocol::TCP);
        let server = ServerPlan::new("s1", [10, 0, 3, 1].into(), 80, 1);
        let director = DirectorPlan::new(DIRECTOR, bind, Builtin::RoundRobin, vec![server]);
        let director = DirectorPlan { scheduler: SchedulerPlan::Guest(guest), ..director };
        Plan { directors: vec![director], seed: 7, ..Plan::empty() }
    }

    /// A host that runs it.
    #[must_use]
    pub fn host(&self, mode: Mode) -> Host {
        let base_dir = Path::new(".").to_path_buf();
        Host::new(Settings { mode, base_dir, bundled: self.bundled })
    }

    /// A new instance of it.
    ///
    /// # Errors
    /// With the reason, when it cannot be used.
    pub fn scheduler(&self, host: &mut Host) -> Result<Box<dyn Scheduler>, String> {
        let mut guests = host
            .load(&self.plan(), 0)
            .map_err(|errors| errors.into_iter().map(|error| error.reason).collect::<Vec<_>>().join("; "))?;
        guests.schedulers.remove(DIRECTOR).ok_or_else(|| "it is not a scheduler".to_owned())
    }

    /// What it is made of, whether it can be used or not.
    ///
    /// # Errors
    /// When it is not there, or not a component.
    pub fn inspect(&self) -> Result<Portrait, String> {
        self.host(Mode::Fuel).portrait(&self.component)
    }
}
