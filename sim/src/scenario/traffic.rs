//! Who talks to whom, how often, and what is said.

use std::net::IpAddr;

use evenkeel_engine::Duration;
use evenkeel_engine::wire::Protocol;
use serde::{Deserialize, Serialize};

use crate::work::Law;

/// Flows from some hosts to one service.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// Its name.
    pub name: String,
    /// Who opens the flows, in turn: indices into [`super::Scenario::hosts`].
    pub clients: Vec<usize>,
    /// The service.
    pub service: Service,
    /// When flows are opened.
    pub arrivals: Arrivals,
    /// When the first flow may open.
    pub start: Duration,
    /// When it stops to open flows.
    pub extent: Extent,
    /// What a flow carries.
    pub exchange: Exchange,
    /// How long a client waits for an answer before the flow counts as broken; without end where nothing is given (TCP
    /// gives up by itself, a datagram is asked again three times).
    pub deadline: Option<Duration>,
}

/// An address, port and protocol to talk to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Service {
    /// The address: a VIP, or a host's own.
    pub address: IpAddr,
    /// The port (1 to 65,535).
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

impl std::fmt::Display for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.address {
            IpAddr::V4(address) => write!(f, "{address}:{}/{}", self.port, self.protocol),
            IpAddr::V6(address) => write!(f, "[{address}]:{}/{}", self.port, self.protocol),
        }
    }
}

/// When flows are opened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrivals {
    /// Independent users: exponential gaps with this mean.
    Poisson {
        /// The mean gap between two flows of the load.
        mean_gap: Duration,
    },
    /// One flow after the other, evenly spaced.
    Uniform {
        /// The gap between two flows of the load.
        gap: Duration,
    },
    /// Independent users who come in waves: Poisson while on, nobody while off, both for exponential times.
    OnOff {
        /// The mean gap while on.
        mean_gap: Duration,
        /// The mean time on.
        on: Duration,
        /// The mean time off.
        off: Duration,
    },
    /// A fixed number of flows at any time; one that ends makes room for the next.
    Closed {
        /// Flows that are open together, over all clients.
        outstanding: u32,
        /// The mean of the exponential time between the end of a flow and the next; zero for at once.
        think: Duration,
    },
}

/// When a load stops to open flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// After this many flows.
    Flows(u64),
    /// After this time since its start.
    Duration(Duration),
}

/// What one flow carries: the client asks, the server answers, `rounds` times.
#[derive(Clone, Debug, PartialEq)]
pub struct Exchange {
    /// Bytes of one request (TCP: of the stream; UDP: of one datagram). At least 16: the request's head.
    pub request: Law,
    /// Bytes of one response. At least 16: the response's head.
    pub response: Law,
    /// Requests of one flow, one after the other. Default 1.
    pub rounds: u32,
    /// The mean of the exponential pause of a client between an answer and its next request; default none.
    pub pause: Duration,
}

/// How the programs of a server work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceModel {
    /// How long one request takes on an idle core.
    pub time: Law,
    /// Who is served when.
    pub discipline: Discipline,
    /// Cores, or requests that are served at the same time at full speed.
    pub cores: u32,
    /// Requests that may wait or be served; further ones are refused (TCP: the SYN is dropped; UDP: the datagram).
    pub backlog: u32,
}

/// Who is served when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Discipline {
    /// First come, first served.
    #[default]
    Fcfs,
    /// All at once, each with its share of the cores.
    Ps,
}
