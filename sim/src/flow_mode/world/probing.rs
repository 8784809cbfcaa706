//! Questions of forwarders to real servers, by their schedulers and to their agents, and the answers; see [`crate::work`] for
//! what they take and who answers.

use evenkeel_engine::{AgentCheck, Duration, Probe, ProbeReply};

use super::{Wake, World, number};
use crate::flow_mode::load::nanoseconds;
use crate::work::{AGENT_WAY, PROBE_WAY, PROBES_MAX};

/// A question or its answer on its way.
#[derive(Clone, Debug)]
pub(super) struct Flying {
    /// The forwarder that asks.
    forwarder: u16,
    message: Message,
}

/// What is on its way.
#[derive(Clone, Debug)]
enum Message {
    Probe(Probe),
    Reply(ProbeReply),
    Check(Box<AgentCheck>),
    Line(Box<AgentCheck>, String),
}

impl World {
    /// Takes what a forwarder's schedulers ask on its way, this probe first.
    pub(super) fn ask(&mut self, place: u16, probe: Probe) {
        let now = self.time();
        let mut next = Some(probe);
        while let Some(probe) = next {
            self.send_off(place, Message::Probe(probe), PROBE_WAY);
            next =
                self.forwarders.get_mut(usize::from(place)).and_then(|forwarder| forwarder.poll_probe(now));
        }
    }

    /// Takes the questions to agents that are due on their way.
    pub(super) fn ask_agents(&mut self) {
        for place in 0..u16::try_from(self.forwarders.len()).unwrap_or(u16::MAX) {
            while let Some(check) = self.next_check(place) {
                self.send_off(place, Message::Check(Box::new(check)), AGENT_WAY);
            }
        }
    }

    fn next_check(&mut self, place: u16) -> Option<AgentCheck> {
        self.forwarders.get_mut(usize::from(place))?.poll_agent_check()
    }

    fn send_off(&mut self, forwarder: u16, message: Message, way: Duration) {
        if self.probes.len() < PROBES_MAX {
            let key = self.probes.insert(Flying { forwarder, message });
            self.agenda.push(self.now.saturating_add(nanoseconds(way)), Wake::Probe(number(key)));
        }
    }

    /// A question has reached its server, or an answer its forwarder.
    pub(super) fn probe(&mut self, key: u32) {
        let flying = usize::try_from(key).ok().and_then(|key| self.probes.try_remove(key));
        let Some(Flying { forwarder: place, message }) = flying else { return };
        let now = self.time();
        let forwarder = self.forwarders.get_mut(usize::from(place)).filter(|one| one.is_up);
        let Some(forwarder) = forwarder else { return };
        match message {
            Message::Reply(reply) => forwarder.probe_answered(&reply, now),
            Message::Line(check, line) => {
                if let Some((machine, weight)) = forwarder.agent_answered(&check, line.as_bytes(), now) {
                    self.tell.weighed(now, usize::try_from(machine).unwrap_or(usize::MAX), weight);
                }
            }
            Message::Probe(Probe { director, server, address, .. }) => {
                let machine = forwarder.machine_at(address).and_then(|machine| usize::try_from(machine).ok());
                let asked = machine.and_then(|machine| self.machines.get(machine));
                let Some((in_flight, latency)) = asked.and_then(|machine| machine.condition()) else {
                    return;
                };
                let reply = ProbeReply { director, server, in_flight, latency };
                self.send_off(place, Message::Reply(reply), PROBE_WAY);
            }
            Message::Check(check) => {
                let machine = forwarder.machine_at(check.address);
                let machine = machine.and_then(|machine| usize::try_from(machine).ok());
                let asked = machine.and_then(|machine| self.machines.get(machine));
                let Some(line) = asked.and_then(|machine| machine.says()) else { return };
                self.send_off(place, Message::Line(check, line), PROBE_WAY);
            }
        }
    }
}
