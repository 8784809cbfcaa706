//! skeleton
#![no_std]
#![forbid(unsafe_code)]
#![allow(missing_docs, unused)]
extern crate alloc;

pub mod counters;
pub mod device;
pub mod director;
pub mod error;
pub mod event;
pub mod plan;
pub mod policy;
pub mod time;
pub mod verdict;
pub mod wire;

use alloc::{boxed::Box, collections::BTreeMap, string::String, vec::Vec};
use core::net::IpAddr;

pub use counters::Counters;
pub use device::{Device, StepReport, step};
use director::{GuestStats, Scheduler};
pub use error::{CommandError, PlanError};
pub use event::Event;
pub use plan::Plan;
use policy::Policy;
pub use time::{Duration, Instant};
pub use verdict::{DropReason, InterfaceId, Verdict};

/// The guests that a plan names, made ready by a host.
#[derive(Debug, Default)]
pub struct Guests {
    /// Schedulers, under the name of their director.
    pub schedulers: BTreeMap<String, Box<dyn Scheduler>>,
    /// Policies, under their own name.
    pub policies: BTreeMap<String, Box<dyn Policy>>,
}

#[derive(Debug)]
pub struct Engine {
    counters: Counters,
    plan: Plan,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectorStatus {
    pub name: String,
    pub address: IpAddr,
    pub port: u16,
    pub protocol: wire::Protocol,
    pub scheduler: String,
    pub guest: GuestStats,
    pub servers: Vec<ServerStatus>,
}
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerStatus {
    pub name: String,
    pub address: IpAddr,
    pub port: u16,
    pub weight: u32,
    pub is_up: bool,
    pub active: u32,
    pub inactive: u32,
    pub flows: u64,
    pub packets_to: u64,
    pub packets_from: u64,
    pub bytes_to: u64,
    pub bytes_from: u64,
}
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyStatus {
    pub name: String,
    pub guest: GuestStats,
}

impl Engine {
    pub fn new(plan: Plan, guests: Guests, now: Instant) -> Result<Self, PlanError> {
        let _ = (guests, now);
        Ok(Self { counters: Counters::default(), plan })
    }
    // look
    pub fn generation(&self) -> u64 {
        1
    }
    pub fn plan(&self) -> &Plan {
        &self.plan
    }
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
    pub fn flow_count(&self) -> usize {
        0
    }
    pub fn directors(&self) -> Vec<DirectorStatus> {
        Vec::new()
    }
    pub fn policies(&self) -> Vec<PolicyStatus> {
        Vec::new()
    }
    // handle
    pub fn handle_timeout(&mut self, _now: Instant) {}
    pub fn handle_batch<D: Device>(&mut self, _device: &mut D, _received: usize, _now: Instant) -> usize {
        0
    }
    // commands
    pub fn apply(&mut self, plan: Plan, _guests: Guests, _now: Instant) -> Result<(), PlanError> {
        self.plan = plan;
        Ok(())
    }
    pub fn set_weight(
        &mut self,
        _director: &str,
        _server: &str,
        _weight: u32,
        _now: Instant,
    ) -> Result<(), CommandError> {
        Ok(())
    }
    // poll
    pub fn transmit<D: Device>(&mut self, _device: &mut D) -> usize {
        0
    }
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}
