//! What a component is made of, and whether it behaves: for authors, before anybody forwards with it.
//!
//! ```text
//! bytes -> inspect -> Portrait: interfaces, imports, size, memory
//!       -> examine -> findings: passed, failed, or a figure without a verdict
//! ```
//!
//! Everything runs by counted instructions, so that the findings repeat. Nothing is forwarded.

mod checks;
pub mod farm;
mod policies;

use std::path::Path;

use evenkeel_engine::plan::{
    Binding, Builtin, DirectorPlan, GuestPlan, InterfacePlan, Layer, OnFault, PolicyGuestPlan, PolicyPlan,
    SchedulerPlan, ServerPlan, TablePlan,
};
use evenkeel_engine::policy::Policy;
use evenkeel_engine::wire::Protocol;
use evenkeel_engine::{Duration, Plan, director::Scheduler};

use crate::load::{Host, Settings};
use crate::{Mode, contract};

pub use checks::{Finding, Verdict};
pub use contract::Portrait;
pub use policies::flows as policy_flows;

/// The director whose scheduler is examined.
const DIRECTOR: &str = "examined";

/// What is to be looked at: a component with options, and where its files are.
#[derive(Clone, Debug)]
pub struct Subject {
    /// A path, or `bundled:NAME`.
    pub component: String,
    /// Its options as TOML text.
    pub options: String,
    /// The content of its file, for a policy.
    pub data: String,
    /// The budget of a call.
    pub budget: Duration,
    /// The most linear memory.
    pub memory_bytes: u64,
    /// Finds bundled components.
    pub bundled: fn(&str) -> Option<&'static [u8]>,
}

impl Subject {
    fn guest(&self) -> GuestPlan {
        GuestPlan {
            component: self.component.clone(),
            options: self.options.clone(),
            call_budget: self.budget,
            memory_limit_bytes: self.memory_bytes,
            // Whose answers are counted as not the guest's.
            fallback: Builtin::RoundRobin,
        }
    }

    fn plan(&self) -> Plan {
        let guest = self.guest();
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

    /// A new instance of it as a policy, on a forwarder with two directors, `web` and `dns`, two interfaces, `tun0` and
    /// `tun1`, and a routing table, 200.
    ///
    /// # Errors
    /// With the reason, when it cannot be used.
    pub fn policy(&self, host: &mut Host) -> Result<Box<dyn Policy>, String> {
        let director = |name| {
            let bind = Binding::of([10, 0, 0, 3].into(), 80, Protocol::TCP);
            DirectorPlan::new(name, bind, Builtin::RoundRobin, Vec::new())
        };
        let policy = PolicyGuestPlan {
            on_fault: OnFault::Native,
            data: self.data.clone(),
            ..PolicyGuestPlan::new(DIRECTOR, self.guest())
        };
        let plan = Plan {
            directors: ["web", "dns"].map(director).to_vec(),
            interfaces: ["tun0", "tun1"].map(|name| InterfacePlan::new(name, Layer::Ip)).to_vec(),
            tables: vec![TablePlan { id: 200, routes: Vec::new() }],
            policies: vec![PolicyPlan::Guest(policy)],
            seed: 7,
            ..Plan::empty()
        };
        let mut guests = host
            .load(&plan, 0)
            .map_err(|errors| errors.into_iter().map(|error| error.reason).collect::<Vec<_>>().join("; "))?;
        guests.policies.remove(DIRECTOR).ok_or_else(|| "it is not a policy".to_owned())
    }

    /// What it is made of, whether it can be used or not.
    ///
    /// # Errors
    /// When it is not there, or not a component.
    pub fn inspect(&self) -> Result<Portrait, String> {
        self.host(Mode::Fuel).portrait(&self.component)
    }
}

/// Runs the suite that fits: that of policies on what is a policy and no scheduler.
///
/// # Errors
/// When the component cannot be used at all.
pub fn examine(subject: &Subject) -> Result<Vec<Finding>, String> {
    let portrait = subject.inspect()?;
    if portrait.is_policy() { policies::examine(subject) } else { checks::examine(subject) }
}
