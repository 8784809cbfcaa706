//! Questions of forwarders to real servers, by their schedulers and to their agents, and the answers, past the simulated
//! network; see [`crate::work`] for what they take and who answers.

use std::net::IpAddr;

use evenkeel_engine::{AgentCheck, Probe, ProbeReply};

use super::World;
use super::machine::Role;
use crate::net::{Event, Net, number};
use crate::work::{AGENT_WAY, PROBE_WAY, PROBES_MAX};

/// A question or its answer on its way.
#[derive(Clone, Debug)]
pub(crate) struct Flying {
    /// The forwarder that asks.
    machine: usize,
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

impl Message {
    const fn way(&self) -> evenkeel_engine::Duration {
        match self {
            Self::Probe(_) | Self::Reply(_) | Self::Line(..) => PROBE_WAY,
            Self::Check(_) => AGENT_WAY,
        }
    }
}

impl Net {
    /// Takes a scheduler's question on its way.
    pub(crate) fn ask(&mut self, machine: usize, probe: Probe) {
        self.send_off(Flying { machine, message: Message::Probe(probe) });
    }

    /// Takes a question to an agent on its way.
    pub(crate) fn ask_agent(&mut self, machine: usize, check: AgentCheck) {
        self.send_off(Flying { machine, message: Message::Check(Box::new(check)) });
    }

    fn send_off(&mut self, flying: Flying) {
        if self.probes.len() < PROBES_MAX {
            let at = self.now.after(flying.message.way());
            let probe = number(self.probes.insert(flying));
            self.schedule(at, Event::Probe { number: probe });
        }
    }
}

impl World<'_> {
    /// A question has reached its server, or an answer its forwarder.
    pub(super) fn probe(&mut self, number: usize) {
        let Some(Flying { machine, message }) = self.net.probes.try_remove(number) else { return };
        match message {
            Message::Probe(Probe { director, server, address, .. }) => {
                let Some((_, (in_flight, latency))) = self.condition(address) else { return };
                let reply = ProbeReply { director, server, in_flight, latency };
                self.net.send_off(Flying { machine, message: Message::Reply(reply) });
            }
            Message::Check(check) => {
                let Some((host, (held, _))) = self.condition(check.address) else { return };
                let Some(agent) = self.agents.get(&host) else { return };
                let message = Message::Line(check, agent.line(held));
                self.net.send_off(Flying { machine, message });
            }
            Message::Reply(reply) => {
                if let Some(machine) = self.machines.get_mut(machine) {
                    machine.with_forwarder(&mut self.net, |forwarder, now| {
                        forwarder.probe_answered(&reply, now);
                    });
                }
            }
            Message::Line(check, line) => {
                let Some(node) = self.machines.get_mut(machine) else { return };
                node.with_forwarder(&mut self.net, |forwarder, now| {
                    forwarder.agent_answered(&check.reply(line.as_bytes()), now);
                });
                self.tell_checker(machine);
            }
        }
    }

    /// The host with this address, and what it says of itself, where it answers.
    fn condition(&self, address: IpAddr) -> Option<(usize, (u32, evenkeel_engine::Duration))> {
        let machine = *self.hosts.get(&address)?;
        let node = self.machines.get(machine).filter(|node| node.is_up())?;
        match &node.role {
            Role::Host(host) => Some((machine, host.condition()?)),
            Role::Router | Role::Forwarder(_) => None,
        }
    }
}
