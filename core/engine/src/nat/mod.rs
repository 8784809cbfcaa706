//! Network address translation: which addresses and ports a flow gets, and what that does to its packets.
//!
//! Terms of RFC 4787: a *mapping* binds a client's address and port to one of ours; *port preservation*
//! keeps the client's own port where it is free.

pub mod icmp_error;
mod port_pool;
mod rewrite;

pub use port_pool::{PoolKey, PortPools};
pub(crate) use rewrite::between;
pub use rewrite::{Scope, fill_udp_checksum, rewrite};
