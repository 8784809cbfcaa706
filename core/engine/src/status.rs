//! What an engine shows of itself, as plain data.

use alloc::string::{String, ToString};
use core::net::IpAddr;

use crate::agent::{AgentMode, AgentWeight};
use crate::director::{Agent, Director, GuestStats, Server, ShadowStatus};
use crate::flow::{Direction, FlowEntry};
use crate::plan::Binding;
use crate::time::Instant;
use crate::verdict::InterfaceId;
use alloc::vec::Vec;

/// A director as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectorStatus {
    /// The name that users know.
    pub name: String,
    /// What it serves.
    pub binds: Vec<Binding>,
    /// Who picks the servers.
    pub scheduler: String,
    /// How the scheduler's component did; zero for a native scheduler.
    pub guest: GuestStats,
    /// The bytes that the scheduler keeps.
    pub memory_bytes: u64,
    /// How its shadow compares, where it has one.
    pub shadow: Option<ShadowStatus>,
    /// The servers of the plan, in its order.
    pub servers: Vec<ServerStatus>,
}

/// A real server as it is now. Packets and bytes are those of IP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerStatus {
    /// The name that users know.
    pub name: String,
    /// The RIP.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// The share of new flows as the operator has it; 0 drains.
    pub weight: u32,
    /// What its agent leaves of that.
    pub effective_weight: u32,
    /// What its agent says, where it is asked.
    pub agent: Option<AgentStatus>,
    /// Whether it may be picked, apart from its weight.
    pub is_up: bool,
    /// Flows that carry data now.
    pub active: u32,
    /// Other entries in the flow table.
    pub inactive: u32,
    /// Flows that it ever got.
    pub flows: u64,
    /// Packets to it.
    pub packets_to: u64,
    /// Packets from it.
    pub packets_from: u64,
    /// Bytes to it.
    pub bytes_to: u64,
    /// Bytes from it.
    pub bytes_from: u64,
}

/// An agent as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentStatus {
    /// The weight that it asked for; nothing where it never did.
    pub weight: Option<AgentWeight>,
    /// What it would have done with its server.
    pub mode: AgentMode,
    /// Why its server does not work; nothing while it does.
    pub down: Option<String>,
    /// The most flows that it asked for; 0 for no bound, nothing where it never said.
    pub flows_max: Option<u32>,
    /// What it said last, and when.
    pub last: Option<(Instant, String)>,
    /// Questions to it.
    pub checks: u64,
    /// Questions that it has answered.
    pub answers: u64,
    /// Questions that it has not.
    pub failures: u64,
    /// Words of its answers that mean nothing.
    pub bad_words: u64,
}

/// A flow as it is now, and who serves it.
#[derive(Clone, Copy, Debug)]
pub struct FlowStatus<'a> {
    /// The flow.
    pub entry: &'a FlowEntry,
    /// Which way the packet goes that was asked about.
    pub direction: Direction,
    /// The director that users know by this name.
    pub director: &'a str,
    /// The real server that users know by this name.
    pub server: &'a str,
    /// Where packets to the real server leave.
    pub interface_out: InterfaceId,
}

/// A policy as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyStatus {
    /// The name that users know.
    pub name: String,
    /// How its component did; zero for native rules.
    pub guest: GuestStats,
    /// Whether its component is asked about every packet of a flow.
    pub judges_packets: bool,
    /// Flows and packets that its component has denied, those beyond its limits included.
    pub denied: u64,
    /// Flows and packets among them that were beyond its limits.
    pub limited: u64,
}

impl From<&Director> for DirectorStatus {
    fn from(director: &Director) -> Self {
        Self {
            name: director.name.clone(),
            binds: director.binds.clone(),
            scheduler: director.scheduler().name().to_string(),
            guest: director.scheduler().stats(),
            memory_bytes: director.scheduler().memory_bytes(),
            shadow: director.shadow(),
            servers: director.members().map(ServerStatus::from).collect(),
        }
    }
}

impl From<&Agent> for AgentStatus {
    fn from(agent: &Agent) -> Self {
        Self {
            weight: agent.weight,
            mode: agent.mode,
            down: agent.down.clone(),
            flows_max: agent.flows_max,
            last: agent.last.clone(),
            checks: agent.checks,
            answers: agent.answers,
            failures: agent.failures,
            bad_words: agent.bad_words,
        }
    }
}

impl From<&Server> for ServerStatus {
    fn from(server: &Server) -> Self {
        Self {
            name: server.name.clone(),
            address: server.address.into(),
            port: server.port,
            weight: server.weight,
            effective_weight: server.effective_weight(),
            agent: server.agent.as_deref().map(AgentStatus::from),
            is_up: server.is_up,
            active: server.load.active,
            inactive: server.load.inactive,
            flows: server.flows,
            packets_to: server.packets_to,
            packets_from: server.packets_from,
            bytes_to: server.bytes_to,
            bytes_from: server.bytes_from,
        }
    }
}
