//! What a plan needs of the machine around it: addresses, routes, rules and settings.
//!
//! In: a plan, and the networks of the machine. Out: a list of changes ([`plan_of_changes`]), which the daemon makes on
//! its kernel and the simulator on a simulated one. Never touches a packet, reads nothing and changes nothing.

mod change;
mod direct;
mod neighbours;

pub use change::{
    Attached, Change, PRIORITY_FROM_FORWARDER, PRIORITY_IGNORE, PRIORITY_REPLIES, PROTOCOL, Selector,
    TABLE_MAIN, TABLE_REPLIES, plan_of_changes, service_addresses,
};
pub use direct::{INTERFACES_MAX, spread};
pub use neighbours::unanswered;
