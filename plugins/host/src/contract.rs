//! The WIT package as the host sees it, and the check whether a component keeps to it.
//!
//! Gets a compiled component; gives the interface that it offers, or the reason why it cannot be a guest. The
//! bindings are generated from `wit/`, unsafe code of the canonical ABI included.

use wasmtime::component::Component;

/// Generated bindings: the records once, then one world each over them.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unnameable_types,
    unused_qualifications,
    clippy::allow_attributes_without_reason,
    clippy::expect_used,
    clippy::missing_errors_doc,
    clippy::or_fun_call,
    clippy::use_self,
    reason = "generated code has its own style"
)]
pub(crate) mod bindings {
    pub mod guest {
        wasmtime::component::bindgen!({ path: "../../wit", world: "guest" });
    }

    macro_rules! world {
        ($module:ident, $world:literal) => {
            pub mod $module {
                wasmtime::component::bindgen!({
                    path: "../../wit",
                    world: $world,
                    with: {
                        "evenkeel:plugin/types": super::guest::evenkeel::plugin::types,
                        "evenkeel:plugin/log": super::guest::evenkeel::plugin::log,
                    },
                });
            }
        };
    }

    world!(scheduler, "scheduler");
    world!(listener, "listener");
    world!(keeper, "keeper");
    world!(hash_scheduler, "hash-scheduler");
    world!(table_scheduler, "table-scheduler");
    world!(policy, "policy");
}

pub(crate) use bindings::guest::evenkeel::plugin::log::Level;
pub(crate) use bindings::guest::evenkeel::plugin::types::{ConfigureError, Flow, Load, Server, Setup};
pub(crate) use bindings::hash_scheduler::{HashScheduler, HashSchedulerPre};
pub(crate) use bindings::keeper::{Keeper, KeeperIndices};
pub(crate) use bindings::listener::exports::evenkeel::plugin::feedback::{
    FlowEvent, Happening, Hearing, ProbeAnswer,
};
pub(crate) use bindings::listener::{Listener, ListenerIndices};
pub(crate) use bindings::policy::exports::evenkeel::plugin::decide::{
    Answer, Arrival, Limit as LimitWish, LimitKey as LimitKeyWish, Moment as MomentOf, PolicySetup,
    PolicyWishes as PolicyWish,
};
pub(crate) use bindings::policy::{Policy, PolicyPre};
pub(crate) use bindings::scheduler::{Scheduler, SchedulerIndices, SchedulerPre};
pub(crate) use bindings::table_scheduler::{TableScheduler, TableSchedulerPre};

/// "No answer" of a scheduler.
pub(crate) const NO_ANSWER: u32 = u32::MAX;
/// The verdicts of a policy that are not the index of a director.
pub(crate) const VERDICT_SKIP: u32 = u32::MAX;
pub(crate) const VERDICT_PERMIT: u32 = u32::MAX - 1;
pub(crate) const VERDICT_DENY: u32 = u32::MAX - 2;
/// Where the indexes of routing tables begin among verdicts.
pub(crate) const VERDICT_TABLES: u32 = 65_536;
/// "No limit" of a policy.
pub(crate) const NO_LIMIT: u32 = u32::MAX;
/// The largest table of a table scheduler.
pub(crate) const TABLE_MAX: usize = 1 << 20;

/// The interface that the host gives to every guest, beside the records.
pub(crate) const LOG: &str = "evenkeel:plugin/log@0.1.0";
/// The records.
pub(crate) const TYPES: &str = "evenkeel:plugin/types@0.1.0";
/// What a scheduler may export besides.
pub(crate) const FEEDBACK: &str = "evenkeel:plugin/feedback@0.1.0";
pub(crate) const SNAPSHOT: &str = "evenkeel:plugin/snapshot@0.1.0";
const POLICY: &str = "evenkeel:plugin/decide@0.1.0";

/// What a component can be asked as a scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SchedulerKind {
    Table,
    Hashes,
    Flows,
}

impl SchedulerKind {
    /// In the order of preference: the cheapest first.
    const ALL: [Self; 3] = [Self::Table, Self::Hashes, Self::Flows];

    const fn interface(self) -> &'static str {
        match self {
            Self::Table => "evenkeel:plugin/schedule-by-table@0.1.0",
            Self::Hashes => "evenkeel:plugin/schedule-by-hash@0.1.0",
            Self::Flows => "evenkeel:plugin/schedule@0.1.0",
        }
    }
}

/// What a component is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Portrait {
    /// Its size.
    pub bytes: usize,
    /// The first bytes of the SHA-256 of it, in hexadecimal digits.
    pub digest: String,
    /// How the forwarder would use it; none where it would not.
    pub worlds: Vec<&'static str>,
    /// What it exports.
    pub exports: Vec<String>,
    /// What it imports.
    pub imports: Vec<String>,
    /// Why it cannot be used, whatever it is for.
    pub trouble: Option<String>,
}

impl Portrait {
    /// Whether it is a policy and nothing else.
    #[must_use]
    pub fn is_policy(&self) -> bool {
        self.worlds == ["policy"]
    }
}

/// Looks at a component.
pub(crate) fn portrait(component: &Component, bytes: usize, digest: String) -> Portrait {
    let has = |interface: &str| component.get_export_index(None, interface).is_some();
    let worlds = [
        ("table-scheduler", SchedulerKind::Table.interface()),
        ("hash-scheduler", SchedulerKind::Hashes.interface()),
        ("scheduler", SchedulerKind::Flows.interface()),
        ("listener", FEEDBACK),
        ("keeper", SNAPSHOT),
        ("policy", POLICY),
    ];
    let worlds: Vec<_> =
        worlds.into_iter().filter(|(_, interface)| has(interface)).map(|(world, _)| world).collect();
    let ty = component.component_type();
    let imports = ty.imports(component.engine()).map(|(name, _)| name.to_owned()).collect();
    let trouble = check_imports(component).err();
    let trouble = trouble.or_else(|| {
        let message = format!("it is neither a scheduler nor a policy: {}", offer(component));
        worlds.is_empty().then_some(message)
    });
    Portrait { bytes, digest, worlds, exports: exports(component), imports, trouble }
}

/// The most names that an error lists.
const LISTED_MAX: usize = 8;

/// Names in a sentence, the first few of them.
fn list(names: &[String]) -> String {
    let shown = names.iter().take(LISTED_MAX).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(LISTED_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Refuses imports that are not ours.
pub(crate) fn check_imports(component: &Component) -> Result<(), String> {
    let ty = component.component_type();
    let names = ty.imports(component.engine()).map(|(name, _)| name.to_owned());
    let foreign: Vec<String> = names.filter(|name| name != LOG && name != TYPES).collect();
    if foreign.is_empty() {
        return Ok(());
    }
    let hint = if foreign.iter().any(|name| name.starts_with("wasi:")) {
        "; a guest has no clock, entropy, files or sockets, and a Rust guest is no_std"
    } else {
        ""
    };
    Err(format!("it imports {}, and a guest may import nothing but {LOG}{hint}", list(&foreign)))
}

fn exports(component: &Component) -> Vec<String> {
    component.component_type().exports(component.engine()).map(|(name, _)| name.to_owned()).collect()
}

/// What a component that lacks an interface offers instead.
fn offer(component: &Component) -> String {
    match exports(component).as_slice() {
        [] => "it exports nothing".to_owned(),
        names => format!("it exports {}", list(names)),
    }
}

/// How the component can be asked as a scheduler.
pub(crate) fn scheduler_kind(component: &Component) -> Result<SchedulerKind, String> {
    let has = |kind: &SchedulerKind| component.get_export_index(None, kind.interface()).is_some();
    SchedulerKind::ALL.into_iter().find(has).ok_or_else(|| {
        let [table, hashes, flows] = SchedulerKind::ALL.map(SchedulerKind::interface);
        format!(
            "it is not a scheduler: it must export one of {flows}, {hashes}, {table}, and {}",
            offer(component)
        )
    })
}

/// Whether the component can be asked as a policy.
pub(crate) fn check_policy(component: &Component) -> Result<(), String> {
    if component.get_export_index(None, POLICY).is_some() {
        return Ok(());
    }
    Err(format!("it is not a policy: it must export {POLICY}, and {}", offer(component)))
}

/// A guest's refusal in the operator's words.
pub(crate) fn describe(error: &ConfigureError) -> String {
    let text = match error {
        ConfigureError::UnknownOption(name) => format!("there is no option `{name}`"),
        ConfigureError::BadOption(bad) => format!("option `{}`: {}", bad.name, bad.reason),
        ConfigureError::Other(reason) => reason.clone(),
    };
    crate::log::clean(&text)
}
