//! What the machine's kernel must know so that packets reach the forwarder: addresses, routes, rules and
//! settings.
//!
//! In: a plan, and the networks of the machine ([`attached_networks`]). Out: a list of changes
//! ([`plan_of_changes`]), shown as commands (their `Display`) or made and taken back by [`Setup`]; both from the
//! same list. Never touches a packet and never runs a program.

mod apply;
mod machine;
mod sysctl;

use evenkeel_engine::Plan;
use evenkeel_engine::plan::Layer;
use rustix::io::Errno;

pub use apply::{Mark, Setup};
pub use evenkeel_config::setup::{
    Attached, Change, PRIORITY_FROM_FORWARDER, PRIORITY_IGNORE, PRIORITY_REPLIES, PROTOCOL, Selector,
    TABLE_MAIN, TABLE_REPLIES, plan_of_changes, service_addresses, spread, unanswered,
};

// What a configuration may have, the device can open.
const _: () = assert!(evenkeel_config::setup::INTERFACES_MAX <= evenkeel_io::INTERFACES_MAX);

/// Why the machine could not be set up. What had been changed until then has been taken back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The kernel gives no netlink socket, or does not answer on it.
    #[error("the machine's routes cannot be read: {reason}")]
    Netlink {
        /// The reason.
        reason: String,
    },
    /// The kernel refuses a change.
    #[error("{command}: {reason}")]
    Refused {
        /// The change, as a command.
        command: String,
        /// The reason, and what helps.
        reason: String,
    },
    /// Something else is in the place that a change needs.
    #[error("{reason}")]
    InTheWay {
        /// What it is, and how to remove it.
        reason: String,
    },
    /// An interface does not exist.
    #[error("interface {name} does not exist")]
    NoInterface {
        /// Its name.
        name: String,
    },
}

impl SetupError {
    fn look(what: &'static str, error: &rtnetlink::Error) -> Self {
        Self::Netlink { reason: format!("{what}: {}", words(error)) }
    }

    fn refused(change: &Change, error: &rtnetlink::Error) -> Self {
        let mut reason = words(error);
        if errno(error) == Some(Errno::PERM) {
            reason.push_str("; this needs CAP_NET_ADMIN, run as root or set setup = \"manual\"");
        }
        Self::Refused { command: change.to_string(), reason }
    }

    fn setting(change: &Change, error: &std::io::Error) -> Self {
        let help = match Errno::from_io_error(error) {
            Some(Errno::ROFS) => "; /proc/sys is read-only here, set it outside of the container",
            Some(Errno::PERM | Errno::ACCESS) => "; run as root, or set it beforehand",
            _ => "",
        };
        Self::Refused { command: change.to_string(), reason: format!("{error}{help}") }
    }
}

/// The networks that this machine is attached to. Needs no rights and no runtime, and changes nothing.
///
/// # Errors
/// When the system gives no netlink socket or does not answer on it.
pub fn attached_networks() -> Result<Vec<Attached>, SetupError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| SetupError::Netlink { reason: error.to_string() })?;
    runtime.block_on(async { Setup::open().await?.attached().await })
}

/// The script that `evenkeel routes` prints: the changes as commands, with what else must be known.
#[must_use]
pub fn script(plan: &Plan, networks: &[Attached]) -> String {
    use std::fmt::Write as _;

    let mut text = String::new();
    let tuns = plan.interfaces.iter().filter(|interface| matches!(interface.layer, Layer::Ip));
    let tuns: Vec<&str> = tuns.map(|interface| interface.name.as_str()).collect();
    // Writing to a string does not fail.
    if !tuns.is_empty() {
        let _ = writeln!(text, "# evenkeel run creates {}; run these while it runs,", tuns.join(", "));
        let _ = writeln!(text, "# or before, after: ip tuntap add dev NAME mode tun");
    }
    for sentence in unanswered(plan, networks) {
        let _ = writeln!(text, "# {sentence}");
    }
    for change in plan_of_changes(plan, networks) {
        let _ = writeln!(text, "{change}");
    }
    text
}

fn errno(error: &rtnetlink::Error) -> Option<Errno> {
    let rtnetlink::Error::NetlinkError(message) = error else { return None };
    Some(Errno::from_raw_os_error(message.raw_code().saturating_abs()))
}

/// The kernel's reason without the words of the libraries around it.
fn words(error: &rtnetlink::Error) -> String {
    if let rtnetlink::Error::NetlinkError(message) = error {
        return message.to_io().to_string();
    }
    error.to_string()
}
