//! The policy stage: what may pass, before anything else is decided about a new flow, and by which way it leaves.
//!
//! Gets the five-tuple and the interface of a packet without an entry, and what else its opening packet says; gives a
//! [`PolicyVerdict`]. It is kept with the flow, so that packets of a known flow cost nothing here.
//!
//! ```text
//! flows    -- rules: index -> candidates in order -> exact conditions -> limits --> verdict
//! outflows -- the same, by the packet as it leaves ------------------------------> routing table
//! ```
//! [`linear`] is the same decision in its plainest form: what rules mean, and why each did or did not hold.

mod index;
mod limits;
pub mod linear;
pub mod rules;

use alloc::boxed::Box;
use core::fmt::Debug;

use crate::director::Fault;
use crate::time::Instant;
use crate::verdict::InterfaceId;
use crate::wire::tcp::Flags;
use crate::wire::{FiveTuple, Protocol, icmp, icmpv6};

/// What a policy says of a new flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyVerdict {
    /// It may pass, to the director that is bound to its destination.
    Permit,
    /// It is dropped.
    Deny,
    /// It may pass, to this director; the index into the plan's directors.
    Director(u16),
    /// It may pass as with `Permit`, and leaves by this routing table; the index into the plan's tables.
    Table(u16),
    /// Another policy, or else the default, decides.
    Skip,
}

/// A flow that asks for permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyFlow {
    /// The keyed hash of the five-tuple.
    pub hash: u64,
    /// Who talks to whom.
    pub tuple: FiveTuple,
    /// Where its first packet came in; for outflows, where it is to leave.
    pub interface: InterfaceId,
    /// The ICMP type of its first packet.
    pub icmp_kind: u8,
    /// The control bits of its first packet.
    pub flags: Flags,
    /// The code point of its first packet (0 to 63); `None` for a flow whose first packet is long gone.
    pub dscp: Option<u8>,
}

impl PolicyFlow {
    /// A flow of which only this is known: it began as flows do, with a SYN or an echo request.
    #[must_use]
    pub fn new(hash: u64, tuple: FiveTuple, interface: InterfaceId) -> Self {
        let icmp_kind = match tuple.protocol {
            Protocol::ICMPV6 => icmpv6::kind::ECHO_REQUEST,
            _ => icmp::kind::ECHO_REQUEST,
        };
        let flags = if tuple.protocol == Protocol::TCP { Flags::SYN } else { Flags(0) };
        Self { hash, tuple, interface, icmp_kind, flags, dscp: None }
    }
}

/// A stage that permits or denies new flows: native rules or a guest.
pub trait Policy: Debug + Send {
    /// The name that users know.
    fn name(&self) -> &str;

    /// Decides about each of `flows`, in order, into the same place of `verdicts`.
    ///
    /// Both slices have the same length, at most [`BATCH_MAX`](crate::device::BATCH_MAX), and every verdict
    /// is `Skip` before. A policy that fails answers with what its configuration says, in the same call.
    fn decide(&mut self, flows: &[PolicyFlow], verdicts: &mut [PolicyVerdict], now: Instant);

    /// Another one in the same state, which answers as this one would and changes nothing here; `None` where there can
    /// be none.
    fn fork(&self) -> Option<Box<dyn Policy>> {
        None
    }

    /// How often it was asked and failed.
    fn stats(&self) -> crate::director::GuestStats {
        crate::director::GuestStats::default()
    }

    /// The last fault since the previous call, if any.
    fn take_fault(&mut self) -> Option<Fault> {
        None
    }
}
