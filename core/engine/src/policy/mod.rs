//! The policy stage: what may pass, before anything else is decided about a new flow, and by which way it leaves.
//!
//! Gets the five-tuple and the interface of a packet without an entry, and what else its opening packet says; gives a
//! [`PolicyVerdict`]. It is kept with the flow, so that packets of a known flow cost nothing here.
//!
//! ```text
//! flows    -- chain: rules -> guest -> rules -> ...: the first that does not skip --> verdict
//!             rules: index -> candidates in order -> exact conditions -> limits
//!             guest: gate  -> one call for all flows of a batch       -> limits
//! outflows -- rules, by the packet as it leaves ------------------------------------> routing table
//! ```
//! [`linear`] is what rules mean in the plainest form, and why each did or did not hold. A guest that judges packets
//! instead of flows is asked again about every packet of the flows that came as far as it: see [`chain`].

pub mod chain;
mod index;
mod limits;
pub mod linear;
pub mod rules;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt::Debug;

use crate::director::Fault;
use crate::plan::Limit;
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

/// What a guest answers about a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyAnswer {
    /// What it says.
    pub verdict: PolicyVerdict,
    /// The place, among [`PolicyWishes::limits`], of the limit within which it holds; beyond, the flow is denied.
    pub limit: Option<u16>,
}

impl PolicyAnswer {
    /// Another policy decides.
    pub const SKIP: Self = Self { verdict: PolicyVerdict::Skip, limit: None };
}

impl From<PolicyVerdict> for PolicyAnswer {
    fn from(verdict: PolicyVerdict) -> Self {
        Self { verdict, limit: None }
    }
}

/// What a guest wants besides flows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyWishes {
    /// Whether it is asked about every packet of a flow, and not only about the first.
    pub packets: bool,
    /// The limits that its answers name, at most [`GUEST_LIMITS_MAX`].
    pub limits: Vec<Limit>,
}

/// The most limits of one guest. One for each address takes half a megabyte when it is used.
pub const GUEST_LIMITS_MAX: usize = 16;

/// Which packet of its flow it is that somebody is asked about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Moment {
    /// The one that opens it.
    #[default]
    First,
    /// A later one from the client.
    FromClient,
    /// One from the real server.
    FromServer,
}

/// A flow that asks for permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyFlow {
    /// The keyed hash of the five-tuple.
    pub hash: u64,
    /// Who talks to whom, as the client sees it.
    pub tuple: FiveTuple,
    /// Where the packet came in; for outflows, where it is to leave.
    pub interface: InterfaceId,
    /// The ICMP type of the packet.
    pub icmp_kind: u8,
    /// The control bits of the packet.
    pub flags: Flags,
    /// The code point of the packet (0 to 63); `None` for a flow whose first packet is long gone.
    pub dscp: Option<u8>,
    /// Which packet of the flow it is.
    pub moment: Moment,
    /// Bytes of the packet, from its IP header on; 0 where no packet is there.
    pub length: u16,
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
        Self { hash, tuple, interface, icmp_kind, flags, dscp: None, moment: Moment::First, length: 0 }
    }
}

/// A guest that permits and denies.
pub trait Policy: Debug + Send {
    /// The name that users know.
    fn name(&self) -> &str;

    /// Decides about each of `flows`, in order, into the same place of `answers`.
    ///
    /// Both slices have the same length, at most [`BATCH_MAX`](crate::device::BATCH_MAX), and every answer
    /// is `SKIP` before. A policy that fails answers with what its configuration says, in the same call.
    fn decide(&mut self, flows: &[PolicyFlow], answers: &mut [PolicyAnswer], now: Instant);

    /// What it wants besides; asked once, before anything else.
    fn wishes(&self) -> PolicyWishes {
        PolicyWishes::default()
    }

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
