//! Questions of schedulers to real servers, and their answers, past the simulated network; see [`crate::work`] for what they
//! take and who answers.

use std::net::IpAddr;

use evenkeel_engine::{Probe, ProbeReply};

use super::World;
use super::machine::Role;
use crate::net::{Event, Net};
use crate::work::{PROBE_WAY, PROBES_MAX};

/// A question or its answer on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flying {
    /// The forwarder that asks.
    machine: usize,
    probe: Probe,
    reply: Option<ProbeReply>,
}

impl Net {
    /// Takes a forwarder's question on its way.
    pub(crate) fn ask(&mut self, machine: usize, probe: Probe) {
        if self.probes.len() < PROBES_MAX {
            let number = self.probes.insert(Flying { machine, probe, reply: None });
            self.schedule(self.now.after(PROBE_WAY), Event::Probe { number });
        }
    }
}

impl World<'_> {
    /// A question has reached its server, or an answer its forwarder.
    pub(super) fn probe(&mut self, number: usize) {
        let Some(flying) = self.net.probes.try_remove(number) else { return };
        if let Some(reply) = flying.reply {
            if let Some(machine) = self.machines.get_mut(flying.machine) {
                machine.with_forwarder(&mut self.net, |forwarder, now| forwarder.probe_answered(&reply, now));
            }
            return;
        }
        let Probe { director, server, address, .. } = flying.probe;
        let Some((in_flight, latency)) = self.condition(address) else { return };
        let reply = Some(ProbeReply { director, server, in_flight, latency });
        let number = self.net.probes.insert(Flying { reply, ..flying });
        self.net.schedule(self.net.now.after(PROBE_WAY), Event::Probe { number });
    }

    /// What the host with this address says of itself, where it answers.
    fn condition(&self, address: IpAddr) -> Option<(u32, evenkeel_engine::Duration)> {
        let machine = *self.hosts.get(&address)?;
        let node = self.machines.get(machine).filter(|node| node.is_up())?;
        match &node.role {
            Role::Host(host) => host.condition(),
            Role::Router | Role::Forwarder(_) => None,
        }
    }
}
