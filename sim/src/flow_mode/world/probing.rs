//! Questions of schedulers to real servers, and their answers; see [`crate::work`] for what they take and who answers.

use evenkeel_engine::{Probe, ProbeReply};

use super::{Wake, World, number};
use crate::flow_mode::load::nanoseconds;
use crate::work::{PROBE_WAY, PROBES_MAX};

/// A question or its answer on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flying {
    /// The forwarder that asks.
    forwarder: u16,
    probe: Probe,
    reply: Option<ProbeReply>,
}

impl World {
    /// Takes what a forwarder's schedulers ask on its way.
    #[inline]
    pub(super) fn ask(&mut self, place: u16) {
        let now = self.time();
        let Some(forwarder) = self.forwarders.get_mut(usize::from(place)) else { return };
        while let Some(probe) = forwarder.poll_probe(now) {
            if self.probes.len() < PROBES_MAX {
                let key = self.probes.insert(Flying { forwarder: place, probe, reply: None });
                self.agenda.push(self.now.saturating_add(nanoseconds(PROBE_WAY)), Wake::Probe(number(key)));
            }
        }
    }

    /// A question has reached its server, or an answer its forwarder.
    pub(super) fn probe(&mut self, key: u32) {
        let Some(flying) = usize::try_from(key).ok().and_then(|key| self.probes.try_remove(key)) else {
            return;
        };
        let now = self.time();
        let forwarder = self.forwarders.get_mut(usize::from(flying.forwarder)).filter(|one| one.is_up);
        let Some(forwarder) = forwarder else { return };
        if let Some(reply) = flying.reply {
            return forwarder.probe_answered(&reply, now);
        }
        let Probe { director, server, address, .. } = flying.probe;
        let machine = forwarder.machine_at(address).and_then(|machine| usize::try_from(machine).ok());
        let asked = machine.and_then(|machine| self.machines.get(machine));
        let Some((in_flight, latency)) = asked.and_then(|machine| machine.condition()) else { return };
        let reply = Some(ProbeReply { director, server, in_flight, latency });
        let key = self.probes.insert(Flying { reply, ..flying });
        self.agenda.push(self.now.saturating_add(nanoseconds(PROBE_WAY)), Wake::Probe(number(key)));
    }
}
