//! The policy stage: what may pass, before anything else is decided about a new flow.
//!
//! Gets the five-tuple and the interface of a packet without an entry; gives a [`PolicyVerdict`]. Reads only
//! what is constant within a flow, so that deciding once per flow equals deciding per packet.

pub mod rules;

use core::fmt::Debug;

use crate::director::Fault;
use crate::time::Instant;
use crate::verdict::InterfaceId;
use crate::wire::FiveTuple;

/// What a policy says of a new flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyVerdict {
    /// It may pass, to the director that is bound to its destination.
    Permit,
    /// It is dropped.
    Deny,
    /// It may pass, to this director; the index into the plan's directors.
    Director(u16),
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
    /// Where its first packet came in.
    pub interface: InterfaceId,
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

    /// How often it was asked and failed.
    fn stats(&self) -> crate::director::GuestStats {
        crate::director::GuestStats::default()
    }

    /// The last fault since the previous call, if any.
    fn take_fault(&mut self) -> Option<Fault> {
        None
    }
}
