//! From a plan to its guests: finds, checks and compiles the components, and configures each guest once.
//!
//! Runs beside the data path, never on it. A component is compiled once, however many directors name it, and
//! stays compiled from one plan to the next.

use std::collections::BTreeMap;
use std::fs;
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use evenkeel_engine::director::builtin::seed_of;
use evenkeel_engine::director::native;
use evenkeel_engine::plan::{GuestPlan, PolicyGuestPlan, PolicyPlan, SchedulerPlan, Tuned};
use evenkeel_engine::{Guests, Plan};
use sha2::{Digest, Sha256};
use wasmtime::component::{Component, InstancePre, Linker};

use crate::contract::{
    HashSchedulerPre, PolicyPre, PolicySetup, SchedulerKind, Setup, TableSchedulerPre, check_imports,
    check_policy, scheduler_kind,
};
use crate::contract::{Portrait, portrait};
use crate::engine::{Budget, Data, Mode, Runtime, linker};
use crate::flows::FlowsPre;
use crate::policy::ComponentPolicy;
use crate::sandbox::{Terms, World};
use crate::scheduler::{ComponentScheduler, Offer};

/// The largest component. One from Rust has tens of kilobytes, an interpreter with its library tens of megabytes.
const COMPONENT_BYTES_MAX: u64 = 64 << 20;
/// The longest time that the compiler may take for one component. Large interpreters take seconds.
const COMPILE_TIME_MAX: Duration = Duration::from_secs(60);
/// The stack of the compiler's thread: deep nesting is the component's choice.
const COMPILER_STACK_BYTES: usize = 16 << 20;
/// The longest text of options, as the contract promises it to guests.
const OPTIONS_BYTES_MAX: usize = 65_536;
/// What stands in front of the name of a bundled component.
const BUNDLED: &str = "bundled:";

/// How guests are run and where their components are.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How budgets are measured.
    pub mode: Mode,
    /// The folder that relative paths start from: that of the configuration file.
    pub base_dir: PathBuf,
    /// Finds the components that are named `bundled:NAME`.
    pub bundled: fn(&str) -> Option<&'static [u8]>,
}

/// Why a guest cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {component}: {reason}")]
pub struct LoadError {
    /// The director or policy that names the component.
    pub name: String,
    /// The component, as the configuration names it.
    pub component: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Makes the guests that a plan names, for the first worker.
///
/// # Errors
/// When a component is not there, is not a guest, or refuses its options: one error for each director and policy
/// that is concerned.
pub fn load(plan: &Plan, settings: &Settings) -> Result<Guests, Vec<LoadError>> {
    Host::new(settings.clone()).load(plan, 0)
}

/// A compiled component with its imports.
#[derive(Clone)]
struct Compiled {
    component: Component,
    pre: InstancePre<Data>,
}

impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Compiled")
    }
}

/// Keeps compiled components from one plan to the next.
#[derive(Debug)]
pub struct Host {
    settings: Settings,
    /// Made when the first plan names a component: without one there is no engine, and no thread.
    workshop: Option<Workshop>,
}

struct Workshop {
    runtime: Arc<Runtime>,
    linker: Linker<Data>,
    /// The components of the last plan, by the digest of their bytes.
    compiled: BTreeMap<[u8; 32], Compiled>,
}

impl std::fmt::Debug for Workshop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workshop")
            .field("runtime", &self.runtime)
            .field("compiled", &self.compiled.len())
            .finish_non_exhaustive()
    }
}

impl Host {
    /// A host that has compiled nothing yet.
    #[must_use]
    pub const fn new(settings: Settings) -> Self {
        Self { settings, workshop: None }
    }

    /// The same for a part of a plan: what the whole plan has compiled is kept.
    ///
    /// # Errors
    /// As [`Host::load`].
    pub fn load_beside(&mut self, plan: &Plan, worker: u32) -> Result<Guests, Vec<LoadError>> {
        let kept = self.workshop.as_ref().map(|workshop| workshop.compiled.clone());
        let loaded = self.load(plan, worker);
        if let (Some(workshop), Some(kept)) = (&mut self.workshop, kept) {
            workshop.compiled.extend(kept);
        }
        loaded
    }

    /// Makes the guests that a plan names, for one worker.
    ///
    /// # Errors
    /// When a component is not there, is not a guest, or refuses its options: one error for each director and
    /// policy that is concerned.
    pub fn load(&mut self, plan: &Plan, worker: u32) -> Result<Guests, Vec<LoadError>> {
        let mut guests = Guests::default();
        let named = named(plan);
        if named.is_empty() {
            return Ok(guests);
        }
        let settings = &self.settings;
        let workshop = match &mut self.workshop {
            Some(workshop) => workshop,
            none => match Workshop::new(settings.mode) {
                Ok(workshop) => none.insert(workshop),
                Err(reason) => return Err(named.iter().map(|user| user.error(&reason)).collect()),
            },
        };
        let mut errors = Vec::new();
        let mut used = BTreeMap::new();
        let mut by_name = BTreeMap::new();
        for user in &named {
            let compiled = by_name
                .entry(user.plan.component.as_str())
                .or_insert_with_key(|component| workshop.compiled(component, settings, &mut used));
            let made = match compiled {
                Ok(compiled) => user.guest(compiled, workshop, plan, worker, &mut guests),
                Err(reason) => Err(reason.clone()),
            };
            if let Err(reason) = made {
                errors.push(user.error(&reason));
            }
        }
        workshop.compiled = used;
        if errors.is_empty() { Ok(guests) } else { Err(errors) }
    }
}

impl Host {
    /// What a component is made of, whether it can be used or not.
    ///
    /// # Errors
    /// When it is not there, or not a component.
    pub fn portrait(&mut self, component: &str) -> Result<Portrait, String> {
        let bytes = find(component, &self.settings)?;
        let digest: String =
            Sha256::digest(&bytes).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let length = bytes.len();
        let workshop = Workshop::new(self.settings.mode)?;
        let compiled = workshop.component(bytes)?;
        Ok(portrait(&compiled, length, digest))
    }
}

/// Who names a component.
struct User<'a> {
    name: &'a str,
    plan: &'a GuestPlan,
    role: Role<'a>,
}

#[derive(Clone, Copy)]
enum Role<'a> {
    Scheduler,
    Shadow,
    Policy(&'a PolicyGuestPlan, Direction),
}

/// Which packets a policy is asked about: those that come in, or those that leave.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    In,
    Out,
}

fn named(plan: &Plan) -> Vec<User<'_>> {
    let schedulers = plan.directors.iter().flat_map(|director| {
        let both = [(Some(&director.scheduler), Role::Scheduler), (director.shadow.as_ref(), Role::Shadow)];
        both.into_iter().filter_map(|(plan, role)| match plan? {
            SchedulerPlan::Builtin(_) | SchedulerPlan::Tuned(_) => None,
            SchedulerPlan::Guest(plan) => Some(User { name: &director.name, plan, role }),
        })
    });
    let policies = plan.policies.iter().filter_map(|policy| match policy {
        PolicyPlan::Rules(_) => None,
        PolicyPlan::Guest(policy) => {
            Some(User { name: &policy.name, plan: &policy.guest, role: Role::Policy(policy, Direction::In) })
        }
    });
    let outflows = plan.outflow_guests.iter().map(|policy| User {
        name: &policy.name,
        plan: &policy.guest,
        role: Role::Policy(policy, Direction::Out),
    });
    schedulers.chain(policies).chain(outflows).collect()
}

impl User<'_> {
    fn error(&self, reason: &str) -> LoadError {
        let (name, component) = (self.name.to_owned(), self.plan.component.clone());
        LoadError { name, component, reason: reason.to_owned() }
    }

    /// Makes the guest and puts it among the others.
    fn guest(
        &self,
        compiled: &Compiled,
        workshop: &Workshop,
        plan: &Plan,
        worker: u32,
        guests: &mut Guests,
    ) -> Result<(), String> {
        if self.plan.options.len() > OPTIONS_BYTES_MAX {
            return Err(format!(
                "its options have {} bytes, and {OPTIONS_BYTES_MAX} are allowed",
                self.plan.options.len()
            ));
        }
        let setup = Setup {
            name: self.name.to_owned(),
            options: self.plan.options.clone(),
            // That of a built-in scheduler of this director, so that twins draw alike.
            seed: seed_of(plan.seed, self.name),
            now: 0,
            worker,
        };
        match self.role {
            Role::Scheduler | Role::Shadow => {
                let offer = match scheduler_kind(&compiled.component)? {
                    SchedulerKind::Table => {
                        Offer::Table(self.terms(workshop, TableSchedulerPre::new(compiled.pre.clone()))?)
                    }
                    SchedulerKind::Hashes => {
                        Offer::Hashes(self.terms(workshop, HashSchedulerPre::new(compiled.pre.clone()))?)
                    }
                    SchedulerKind::Flows => {
                        Offer::Flows(self.terms(workshop, FlowsPre::new(compiled.pre.clone()))?)
                    }
                };
                let fallback = native(&Tuned::from(self.plan.fallback), seed_of(plan.seed, self.name));
                let scheduler = ComponentScheduler::new(offer, setup, fallback)?;
                let place = match self.role {
                    Role::Shadow => &mut guests.shadows,
                    Role::Scheduler | Role::Policy(..) => &mut guests.schedulers,
                };
                place.insert(self.name.to_owned(), Box::new(scheduler));
            }
            Role::Policy(policy, direction) => {
                check_policy(&compiled.component)?;
                let setup = PolicySetup {
                    common: setup,
                    directors: plan.directors.iter().map(|director| director.name.clone()).collect(),
                    interfaces: plan.interfaces.iter().map(|interface| interface.name.clone()).collect(),
                    tables: plan.tables.iter().map(|table| table.id).collect(),
                    is_outflow: direction == Direction::Out,
                    data: policy.data.clone(),
                };
                let terms = self.terms(workshop, PolicyPre::new(compiled.pre.clone()))?;
                let policy = ComponentPolicy::new(terms, setup, policy.on_fault)?;
                guests.policies.insert(self.name.to_owned(), Box::new(policy));
            }
        }
        Ok(())
    }

    fn terms<W: World>(
        &self,
        workshop: &Workshop,
        pre: wasmtime::Result<W::Pre>,
    ) -> Result<Terms<W>, String> {
        Ok(Terms {
            runtime: Arc::clone(&workshop.runtime),
            pre: pre.map_err(|error| sentence(&error))?,
            component: self.plan.component.clone(),
            budget: Budget::of_call(self.plan.call_budget),
            memory_limit_bytes: self.plan.memory_limit_bytes,
        })
    }
}

fn sentence(error: &wasmtime::Error) -> String {
    crate::log::clean(&format!("{error:#}"))
}

impl Workshop {
    fn new(mode: Mode) -> Result<Self, String> {
        let runtime = Arc::new(Runtime::new(mode)?);
        let linker = linker(&runtime.engine).map_err(|error| sentence(&error))?;
        Ok(Self { runtime, linker, compiled: BTreeMap::new() })
    }

    /// The compiled component of a guest, from the last plan or from this one where it was there.
    fn compiled(
        &self,
        component: &str,
        settings: &Settings,
        used: &mut BTreeMap<[u8; 32], Compiled>,
    ) -> Result<Compiled, String> {
        let bytes = find(component, settings)?;
        let digest: [u8; 32] = Sha256::digest(&bytes).into();
        if let Some(compiled) = used.get(&digest) {
            return Ok(compiled.clone());
        }
        let compiled = match self.compiled.get(&digest) {
            Some(compiled) => compiled.clone(),
            None => self.compile(bytes)?,
        };
        used.insert(digest, compiled.clone());
        Ok(compiled)
    }

    fn component(&self, bytes: Bytes) -> Result<Component, String> {
        if bytes.starts_with(b"\0asm\x01\0\0\0") {
            return Err("it is a core module and not a component; build it for wasm32-wasip2".to_owned());
        }
        compile_in_time(self.runtime.engine.clone(), bytes)
    }

    fn compile(&self, bytes: Bytes) -> Result<Compiled, String> {
        let component = self.component(bytes)?;
        check_imports(&component)?;
        let pre = self.linker.instantiate_pre(&component).map_err(|error| sentence(&error))?;
        Ok(Compiled { component, pre })
    }
}

type Bytes = std::borrow::Cow<'static, [u8]>;

/// The bytes of a component.
fn find(component: &str, settings: &Settings) -> Result<Bytes, String> {
    match component.strip_prefix(BUNDLED) {
        Some(name) => (settings.bundled)(name)
            .map(Bytes::Borrowed)
            .ok_or_else(|| format!("there is no bundled component `{name}`")),
        None => read(&settings.base_dir.join(component)).map(Bytes::Owned),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let describe = |error: std::io::Error| format!("{}: {error}", path.display());
    let metadata = fs::metadata(path).map_err(describe)?;
    if !metadata.is_file() {
        return Err(format!("{} is not a file", path.display()));
    }
    if metadata.len() > COMPONENT_BYTES_MAX {
        return Err(format!("it has {} bytes, and {COMPONENT_BYTES_MAX} are allowed", metadata.len()));
    }
    fs::read(path).map_err(describe)
}

/// Compiles in a thread of its own, which is left behind when it takes too long: a component may be made to keep
/// the compiler busy, and the caller has others to load.
fn compile_in_time(engine: wasmtime::Engine, bytes: Bytes) -> Result<Component, String> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let compiler =
        thread::Builder::new().name("evenkeel-compile".to_owned()).stack_size(COMPILER_STACK_BYTES);
    let spawned = compiler.spawn(move || {
        let compiled = panic::catch_unwind(panic::AssertUnwindSafe(|| Component::new(&engine, &bytes)));
        // Nobody waits any more when the time is over.
        let _ = sender.send(compiled);
    });
    spawned.map_err(|error| format!("no thread for the compiler: {error}"))?;
    match receiver.recv_timeout(COMPILE_TIME_MAX) {
        Ok(Ok(Ok(component))) => Ok(component),
        Ok(Ok(Err(error))) => Err(format!("it does not compile: {}", sentence(&error))),
        Ok(Err(_)) => Err("the compiler gave up on it".to_owned()),
        Err(_) => Err(format!("it takes longer to compile than {COMPILE_TIME_MAX:?}")),
    }
}
