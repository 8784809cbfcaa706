//! What the tests share: scenarios from text, and plans whose components are replaced by their fallbacks.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "each test binary uses a part; a broken fixture ends the test"
)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_config::Loaded;
use evenkeel_engine::Guests;
use evenkeel_engine::plan::{Plan, PolicyPlan, SchedulerPlan};
use evenkeel_plugin_host::{Mode, Settings};
use evenkeel_sim::watch::Watch;
use evenkeel_sim::{Equipment, Options, Outcome, Scenario, Supplier, prepare, run, run_watched};

/// Time that this thread has spent on a processor, so that neighbours on the machine do not count. To the nanosecond: what
/// `schedstat` tells of a thread is as old as the last tick, up to four milliseconds.
pub fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap().as_secs_f64()
}

/// A scenario of the library.
pub fn library(name: &str) -> Scenario {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios").join(name);
    Scenario::load(&path).unwrap_or_else(|errors| panic!("{errors}"))
}

/// A scenario from its text; paths in it are relative to the library's folder.
pub fn scenario(text: &str) -> Scenario {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios").join("test.toml");
    Scenario::parse(text, &path).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The same plan with native schedulers and without policy components.
pub fn native(mut plan: Plan) -> Plan {
    for director in &mut plan.directors {
        if let SchedulerPlan::Guest(guest) = &director.scheduler {
            director.scheduler = SchedulerPlan::Builtin(guest.fallback);
        }
    }
    plan.policies.retain(|policy| matches!(policy, PolicyPlan::Rules(_)));
    plan.outflow_guests.clear();
    plan
}

/// The forwarders' equipment, with native schedulers.
pub fn native_equipment(scenario: &Scenario, seed: u64) -> Vec<Equipment> {
    let load = |forwarder: &evenkeel_sim::scenario::Forwarder| {
        let loaded = evenkeel_config::load(&forwarder.config)
            .unwrap_or_else(|errors| panic!("{}", errors.render(false)));
        Equipment { plan: native(loaded.with_seed(seed).plan), guests: Guests::default() }
    };
    scenario.forwarders.iter().map(load).collect()
}

/// Runs with native schedulers.
pub fn run_native(scenario: &Scenario, options: Options) -> Outcome {
    let seed = options.seed.unwrap_or(scenario.seed);
    run(scenario, native_equipment(scenario, seed), options).unwrap()
}

/// The components that a configuration names, in fuel mode.
pub fn guests(loaded: &Loaded) -> Result<Guests, String> {
    let settings = Settings {
        mode: Mode::Fuel,
        base_dir: loaded.base_dir().to_owned(),
        bundled: evenkeel_plugins_bundled::component,
    };
    let words = |errors: Vec<evenkeel_plugin_host::LoadError>| format!("{errors:?}");
    evenkeel_plugin_host::load(&loaded.plan, &settings).map_err(words)
}

/// Runs with the components that the configurations name, also after a restart.
pub fn with_components(scenario: &Scenario, seed: u64, options: Options, watch: &mut Watch) -> Outcome {
    let equipment = prepare(scenario, seed, &mut guests).unwrap();
    let mut loader = guests;
    let mut supplier = Supplier { scenario, seed, loader: &mut loader, edit: None };
    let options = Options { seed: Some(seed), ..options };
    run_watched(scenario, equipment, options, Some(&mut supplier), &mut |_| {}, watch).unwrap()
}

/// One client and one server on one segment, without a forwarder.
pub fn back_to_back(protocol: &str, flows: u32, more: &str, link: &str) -> Scenario {
    scenario(&format!(
        r#"
[scenario]
name = "back-to-back"
duration = "1h"

[segment.lan]
subnet = "10.0.0.0/24"

[host.client]
attach = [{{ segment = "lan", address = "10.0.0.1/24" }}]

[host.server]
attach = [{{ segment = "lan", address = "10.0.0.2/24" }}]

[link.all]
ends = ["*", "lan"]
{link}

[load.ask]
from = "client"
to = "10.0.0.2:80/{protocol}"
arrivals = {{ process = "poisson", rate = "100/s" }}
flows = {flows}
{more}
"#
    ))
}
