//! Probes: a scheduler's questions to real servers, which the driver carries by what means it has.
//!
//! ```text
//! new flow -> scheduler -> Engine::poll_probe -> driver -> real server
//!             scheduler <- Engine::probe_answered <- driver <- its answer
//! ```
//!
//! A probe that nobody carries, and an answer that never comes, do no harm: the scheduler decides without. A driver fetches
//! probes after each call that hands packets over, gives up one that is older than a few milliseconds, and hands over what
//! comes in time. How many there are follows the new flows; the driver may bound their rate by leaving some out.

use core::net::IpAddr;

use crate::director::ServerId;
use crate::engine::Engine;
use crate::time::{Duration, Instant};

/// A question: how many requests are you working on, and how long did the last ones take?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Who asks: the place of the director, to be handed back.
    pub director: u16,
    /// Who is asked, to be handed back.
    pub server: ServerId,
    /// The real server's address.
    pub address: IpAddr,
    /// The real server's port; 0 where it answers at any.
    pub port: u16,
}

/// The answer to a [`Probe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeReply {
    /// As in the probe.
    pub director: u16,
    /// As in the probe.
    pub server: ServerId,
    /// Requests that the real server works on, from all forwarders.
    pub in_flight: u32,
    /// How long its recent requests took while it had about as many.
    pub latency: Duration,
}

impl Engine {
    /// The next probe that a scheduler wants to be carried.
    pub fn poll_probe(&mut self, now: Instant) -> Option<Probe> {
        self.directors.poll_probe(now)
    }

    /// A real server has answered a probe. Returns whether the director and the server are still there.
    pub fn probe_answered(&mut self, reply: &ProbeReply, now: Instant) -> bool {
        let now = self.tick(now);
        let director = self.directors.at_mut(reply.director);
        director.is_some_and(|director| {
            director.probe_answered(reply.server, reply.in_flight, reply.latency, now)
        })
    }
}
