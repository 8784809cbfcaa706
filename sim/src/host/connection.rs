//! What a host keeps of one connection, of TCP or of datagrams.

use evenkeel_engine::Instant;
use evenkeel_engine::wire::Protocol;

use super::flow::{Flow, Reader};
use super::stack::Stack;
use crate::packet::AnyEnd;

/// What a connection is to its host.
#[derive(Debug)]
pub(super) enum Kind {
    /// The side of a TCP connection that asks.
    Client { tcp: Stack, reader: Reader, flow: Box<Flow>, has_ended: bool },
    /// The side of a TCP connection that answers.
    Server { tcp: Stack, reader: Reader, is_half_open: bool },
    /// Datagrams that ask.
    Asker { flow: Box<Flow>, retries: u32, deadline: Instant },
}

/// What a host keeps of a connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) local: AnyEnd,
    pub(super) remote: AnyEnd,
    pub(super) generation: u32,
    /// When the pending timer event is due.
    pub(super) scheduled: Instant,
    /// When the client goes on after a pause.
    pub(super) resumes: Instant,
    pub(super) kind: Kind,
}

impl Connection {
    pub(super) const fn protocol(&self) -> Protocol {
        match self.kind {
            Kind::Client { .. } | Kind::Server { .. } => Protocol::TCP,
            Kind::Asker { .. } => Protocol::UDP,
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        let own = match &self.kind {
            Kind::Client { tcp, flow, has_ended: false, .. } => tcp.deadline().min(flow.deadline),
            Kind::Client { tcp, .. } | Kind::Server { tcp, .. } => tcp.deadline(),
            Kind::Asker { flow, deadline, .. } => (*deadline).min(flow.deadline),
        };
        own.min(self.resumes)
    }

    /// Whether the client's deadline has passed before its flow was over.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        match &self.kind {
            Kind::Client { flow, has_ended: false, .. } | Kind::Asker { flow, .. } => flow.deadline <= now,
            Kind::Client { .. } | Kind::Server { .. } => false,
        }
    }

    /// Segments that it has sent again.
    pub(super) fn retransmitted(&self) -> u64 {
        match &self.kind {
            Kind::Client { tcp, .. } | Kind::Server { tcp, .. } => u64::from(tcp.retransmitted()),
            Kind::Asker { .. } => 0,
        }
    }
}
