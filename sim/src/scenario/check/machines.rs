//! Hosts, routers and forwarders.

use evenkeel_config::document::{At, Named, OneOrMany, TextOrTable, quote};

use super::Checker;
use crate::scenario::written::{self, NetworkKeys};
use crate::scenario::{
    Attachment, Discipline, Ecmp, Forwarder, HOSTS_MAX, Host, Network, Router, Segment, ServiceModel, Stack,
    SynPlan, Sysctl,
};
use crate::work::{AgentModel, Law};

/// Requests that may wait or be served where the file says nothing: what Linux lets wait at a socket, roughly.
const BACKLOG_DEFAULT: u32 = 1_024;

/// Which machine of its group it is.
#[derive(Clone, Copy, Debug)]
struct Member<'a> {
    name: &'a str,
    number: Option<u32>,
    kind: Kind,
}

/// What a machine is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Host,
    Router,
    Forwarder,
}

impl Checker<'_, '_> {
    /// Notes a name that a machine of another kind has already.
    fn machine_name(&mut self, name: &At<String>, kind: &'static str) {
        if let Some(other) = self.names.insert(name.value.clone(), kind) {
            let message = format!("{kind} {} has the name of a {other}", quote(&name.value));
            let help = Some("machines of all kinds have different names".to_owned());
            self.errors.add_with_help(name.span.clone(), message, help);
        }
    }

    pub(super) fn hosts(
        &mut self,
        written: Option<&At<Named<written::Host>>>,
        segments: &[Segment],
    ) -> Vec<Host> {
        let mut hosts = Vec::new();
        for (group, host) in self.sorted(written, "host") {
            self.machine_name(group, "host");
            let host = &host.value;
            let count = host.count.as_ref().map_or(1, |count| u32::try_from(count.value).unwrap_or(1));
            let room = HOSTS_MAX.saturating_sub(hosts.len());
            if usize::try_from(count).is_ok_and(|count| count > room) {
                let span = host.count.as_ref().map_or(&group.span, |count| &count.span).clone();
                self.errors.add(span, format!("with these there are more than {HOSTS_MAX} hosts in all"));
                continue;
            }
            let service = host.service.as_ref().map(|service| self.service(&service.value));
            let stack = match host.stack.as_ref().map(|at| at.value) {
                None | Some(written::Stack::Minimal) => Stack::Minimal,
                Some(written::Stack::Smoltcp) => Stack::Smoltcp,
            };
            let syn = syn(host);
            let agent = host.agent.as_ref().map(|agent| agent_model(&agent.value));
            let mut shared = None;
            for number in 0..count {
                let number = host.count.as_ref().map(|_| number);
                let group = group.value.clone();
                let name = number.map_or_else(|| group.clone(), |number| format!("{group}.{number}"));
                let member = Member { name: &name, number, kind: Kind::Host };
                // What is wrong with one of them is wrong with the next as well.
                let Some(network) = self.network(host.network(), segments, member, &mut shared) else {
                    break;
                };
                let (service, agent) = (service.clone(), agent.clone());
                hosts.push(Host { name, group, network, stack, syn, service, agent });
            }
        }
        hosts
    }

    pub(super) fn routers(
        &mut self,
        written: Option<&At<Named<written::Router>>>,
        segments: &[Segment],
    ) -> Vec<Router> {
        let mut routers = Vec::new();
        for (name, router) in self.sorted(written, "router") {
            self.machine_name(name, "router");
            let member = Member { name: &name.value, number: None, kind: Kind::Router };
            let network = self.network(router.value.network(), segments, member, &mut None);
            routers.extend(network.map(|network| Router { name: name.value.clone(), network }));
        }
        routers
    }

    pub(super) fn forwarders(
        &mut self,
        written: Option<&At<Named<written::Forwarder>>>,
        segments: &[Segment],
    ) -> Vec<Forwarder> {
        let mut forwarders = Vec::new();
        for (name, forwarder) in self.sorted(written, "forwarder") {
            self.machine_name(name, "forwarder");
            let config = forwarder.value.config.as_ref();
            if let Some(config) = config.filter(|config| config.value.is_empty()) {
                self.errors.add(config.span.clone(), "the path of the configuration file is empty");
            }
            let config = self.folder.join(config.map_or("", |config| config.value.as_str()));
            let member = Member { name: &name.value, number: None, kind: Kind::Forwarder };
            let network = self.network(forwarder.value.network(), segments, member, &mut None);
            let name = name.value.clone();
            forwarders.extend(network.map(|network| Forwarder { name, network, config }));
        }
        forwarders
    }

    /// The network of one machine; nothing when its interfaces are wrong. `shared` is that of the first of its group:
    /// what is not counted on is looked at once.
    fn network(
        &mut self,
        written: NetworkKeys<'_>,
        segments: &[Segment],
        member: Member<'_>,
        shared: &mut Option<Network>,
    ) -> Option<Network> {
        let Member { name, number, kind } = member;
        let attachments = self.attachments(written.attach?, segments, name, number)?;
        let loopback = self.loopback(written.loopback, name, number)?;
        let shared = match shared {
            Some(shared) => shared,
            None => shared.insert(Network {
                attachments: Vec::new(),
                loopback: Vec::new(),
                gateways: self.gateways(written.gateway),
                routes: self.routes(written.routes),
                rules: self.rules(written.rules, &attachments, kind == Kind::Forwarder),
                sysctl: sysctl(written.sysctl.map(|at| &at.value), kind != Kind::Host),
                ecmp: ecmp(written.ecmp.map(|at| at.value)),
                masquerade: self.masquerade(written.masquerade, &attachments, name),
                decapsulates: written.tunnel.is_some_and(|tunnel| tunnel.value),
            }),
        };
        let parts = shared.gateways.len() + shared.routes.len() + shared.rules.len();
        let span = written.attach.map_or(0..0, |at| at.span.clone());
        self.take_parts(&span, parts).then(|| Network { attachments, loopback, ..shared.clone() })
    }

    fn masquerade(
        &mut self,
        written: Option<&At<OneOrMany<String>>>,
        attachments: &[Attachment],
        machine: &str,
    ) -> Vec<String> {
        let mut interfaces = Vec::new();
        for (span, name) in OneOrMany::each(written) {
            match attachments.iter().find(|attachment| attachment.interface == *name) {
                None => {
                    let known = attachments.iter().map(|attachment| attachment.interface.as_str());
                    self.unknown(span, &format!("interface of {machine}"), name, known);
                }
                Some(attachment) if attachment.addresses.is_empty() => {
                    let message = format!("{name} has no address that could replace others");
                    self.errors.add(span.clone(), message);
                }
                Some(_) => interfaces.push(name.clone()),
            }
        }
        interfaces
    }

    fn service(&mut self, service: &written::Service) -> ServiceModel {
        let time = match service.time.as_ref().map(|at| (&at.span, &at.value)) {
            None => Law::Fixed { value: 0 },
            Some((span, TextOrTable::Text(text))) => {
                self.fixed_time(&At { span: span.clone(), value: text.clone() })
            }
            Some((span, TextOrTable::Table(law))) => self.duration_law(span, law),
        };
        let number =
            |at: Option<&At<i64>>, default| at.and_then(|at| u32::try_from(at.value).ok()).unwrap_or(default);
        ServiceModel {
            time,
            discipline: match service.discipline.as_ref().map(|at| at.value) {
                None | Some(written::Discipline::Fcfs) => Discipline::Fcfs,
                Some(written::Discipline::Ps) => Discipline::Ps,
            },
            cores: number(service.cores.as_ref(), 1),
            backlog: number(service.backlog.as_ref(), BACKLOG_DEFAULT),
        }
    }
}

/// What the agent of a host says.
fn agent_model(written: &TextOrTable<written::AgentText, written::Agent>) -> AgentModel {
    match written {
        TextOrTable::Text(text) => AgentModel { says: text.0.clone(), full: None },
        TextOrTable::Table(table) => AgentModel {
            says: table.says.as_ref().map_or_else(String::new, |at| at.value.0.clone()),
            full: table.full.as_ref().and_then(|at| u32::try_from(at.value).ok()),
        },
    }
}

/// What a host does about connections that are half open.
fn syn(host: &written::Host) -> SynPlan {
    let SynPlan { backlog, cookies } = SynPlan::default();
    let written = host.syn_backlog.as_ref().and_then(|written| usize::try_from(written.value).ok());
    SynPlan {
        backlog: written.unwrap_or(backlog),
        cookies: host.syn_cookies.as_ref().map_or(cookies, |written| written.value),
    }
}

fn sysctl(written: Option<&written::Sysctl>, forwards: bool) -> Sysctl {
    let number =
        |at: Option<&Option<At<i64>>>| at.and_then(Option::as_ref).and_then(|at| u8::try_from(at.value).ok());
    Sysctl {
        arp_ignore: number(written.map(|sysctl| &sysctl.arp_ignore)).unwrap_or(0),
        arp_announce: number(written.map(|sysctl| &sysctl.arp_announce)).unwrap_or(0),
        rp_filter: number(written.map(|sysctl| &sysctl.rp_filter)).unwrap_or(0),
        ip_forward: number(written.map(|sysctl| &sysctl.ip_forward)).map_or(forwards, |number| number != 0),
    }
}

fn ecmp(written: Option<written::Ecmp>) -> Ecmp {
    match written {
        None => Ecmp::default(),
        Some(written::Ecmp::Modulo) => Ecmp::Modulo,
        Some(written::Ecmp::Rendezvous) => Ecmp::Rendezvous,
        Some(written::Ecmp::HashThreshold) => Ecmp::HashThreshold,
        Some(written::Ecmp::Resilient) => Ecmp::Resilient,
    }
}
