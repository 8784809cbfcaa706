//! Real servers, and whether the packets of their director can reach them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Range;

use evenkeel_engine::plan::{Binding, ServerPlan};

use super::director::Service;
use super::{Meaning, number};
use crate::addresses::{self, family, in_brackets};
use crate::diagnostic::Code;
use crate::forms::{self, ModeName, quote};
use crate::written::{self, At};

/// The most real servers of one director: their numbers have 16 bits.
const SERVERS_MAX: usize = 65_535;

/// The weight of a real server when the file does not say.
const WEIGHT_DEFAULT: u32 = 1;

/// What real servers of one director must not share.
#[derive(Default)]
struct Seen {
    names: BTreeMap<String, Range<usize>>,
    endpoints: BTreeMap<(IpAddr, u16), Range<usize>>,
    /// The family of the first, for a director that is bound to nothing.
    first: Option<IpAddr>,
}

impl Meaning<'_> {
    pub(super) fn servers(
        &mut self,
        service: &Service<'_>,
        written: &[At<written::Server>],
    ) -> Vec<ServerPlan> {
        self.bounded(written, SERVERS_MAX, "real servers");
        let mut seen = Seen::default();
        let mut plans = Vec::new();
        for At { value, .. } in written {
            plans.extend(self.server(service, value, &mut seen));
        }
        let director = service.name;
        let name = quote(&director.value);
        if written.is_empty() {
            let message = format!("the director {name} has no real server: it drops every new flow");
            let diagnostic = self.diagnostic(Code::NoServers, &director.span, message);
            let table = format!("add a table `[[director.{}.server]]`", director.value);
            self.found.push(diagnostic.help(table));
        } else if plans.len() == written.len() && plans.iter().all(|plan| plan.weight == 0) {
            let message = format!("all real servers of {name} have weight 0: it drops every new flow");
            let diagnostic = self.diagnostic(Code::AllDrained, &director.span, message);
            self.found.push(diagnostic.help("give one of them a weight"));
        }
        plans
    }

    fn server(
        &mut self,
        service: &Service<'_>,
        written: &written::Server,
        seen: &mut Seen,
    ) -> Option<ServerPlan> {
        let director = &service.name.value;
        if let Some(name) = &written.name {
            self.places.insert("server", director, &name.value.0, &name.span);
            self.text(&name.span, forms::name(&name.value.0));
            self.unique(&mut seen.names, "real servers", &name.value.0, &name.span);
        }
        let (flows_upper, flows_lower) = self.flow_bounds(written);
        let at = written.address.as_ref()?;
        let (address, port) = self.text(&at.span, addresses::endpoint(&at.value.0))?;
        let name = written.name.as_ref()?.value.0.clone();
        self.places.insert("server address", director, &name, &at.span);
        let weight = number(written.weight.as_ref(), WEIGHT_DEFAULT);
        let agent_port = self.agent_port(service.has_agents, written.agent_port.as_ref());
        let plan = ServerPlan {
            flows_upper,
            flows_lower,
            agent_port,
            ..ServerPlan::new(&name, address, port, weight)
        };
        if self.is_new(service, &plan, &at.span, seen)
            && self.is_of_the_family(service, &plan, &at.span, seen)
            && self.has_the_port(service, &plan, &at.span)
        {
            self.not_a_director(service, &plan, &at.span);
        }
        Some(plan)
    }

    /// The bounds on the flows of a real server.
    fn flow_bounds(&mut self, written: &written::Server) -> (u32, u32) {
        let (upper, lower) = (number(written.max_flows.as_ref(), 0), number(written.min_flows.as_ref(), 0));
        if let Some(at) = written.min_flows.as_ref().filter(|_| lower > upper) {
            let (message, help) = if upper == 0 {
                let message =
                    "`min_flows` says when a real server that reached `max_flows` takes flows again";
                (message.to_owned(), "add `max_flows`, or take out `min_flows`".to_owned())
            } else {
                let message = format!("`min_flows` is {lower}, more than the {upper} of `max_flows`");
                (message, format!("write a number from 0 to {upper}"))
            };
            let mut diagnostic = self.diagnostic(Code::Conflict, &at.span, message);
            if let Some(upper) = &written.max_flows {
                diagnostic = diagnostic.also(&upper.span, "`max_flows` here");
            }
            self.found.push(diagnostic.help(help));
        }
        (upper, lower)
    }

    /// Whether no other real server of the director is the same.
    fn is_new(
        &mut self,
        service: &Service<'_>,
        plan: &ServerPlan,
        span: &Range<usize>,
        seen: &mut Seen,
    ) -> bool {
        let port = match plan.port {
            _ if service.is_one_sided() => 0,
            0 => service.port().unwrap_or(0),
            port => port,
        };
        let Some(first) = seen.endpoints.get(&(plan.address, port)) else {
            seen.endpoints.insert((plan.address, port), span.clone());
            return true;
        };
        let place = match port {
            0 => plan.address.to_string(),
            port => format!("{}:{port}", in_brackets(plan.address)),
        };
        let message = format!("two real servers of {} are at {place}", quote(&service.name.value));
        let diagnostic = self
            .diagnostic(Code::DuplicateServer, span, message)
            .label("again here")
            .also(first, "first here")
            .help("take one out, and give the other the sum of their weights");
        self.found.push(diagnostic);
        false
    }

    /// Whether packets of the director can be made into packets to this real server, or handed to it.
    fn is_of_the_family(
        &mut self,
        service: &Service<'_>,
        plan: &ServerPlan,
        span: &Range<usize>,
        seen: &mut Seen,
    ) -> bool {
        let reason = match service.mode {
            Some(ModeName::Nat) => "NAT does not translate between IPv4 and IPv6",
            Some(ModeName::Gateway) => "packets are handed over as they are",
            Some(ModeName::Tunnel) | None => return true,
        };
        let is_other = |address: &IpAddr| address.is_ipv4() != plan.address.is_ipv4();
        let mut vips = service.binds.iter().filter(|binding| is_other(&binding.network.address));
        let of = family(&plan.address);
        let (director, server) = (quote(&service.name.value), quote(&plan.name));
        let message = if let Some(vip) = vips.next() {
            format!("{server} has an {of} address, and {director} is bound to `{vip}`: {reason}")
        } else if service.binds.is_empty() && seen.first.is_some_and(|first| is_other(&first)) {
            format!("{server} has an {of} address, and others of {director} have not: {reason}")
        } else {
            seen.first.get_or_insert(plan.address);
            return true;
        };
        let diagnostic = self.diagnostic(Code::FamilyMismatch, span, message);
        let help = "give each family a director of its own, or write `mode = \"tunnel\"`, which carries one in the other";
        self.found.push(diagnostic.help(help));
        false
    }

    /// Whether the real server listens where unchanged packets go.
    fn has_the_port(&mut self, service: &Service<'_>, plan: &ServerPlan, span: &Range<usize>) -> bool {
        let Some(mode) = service.mode.filter(|_| service.is_one_sided() && plan.port != 0) else {
            return true;
        };
        let differs = |binding: &&Binding| binding.port() != Some(plan.port);
        let bound = match service.binds.iter().find(differs) {
            Some(binding) => format!("is bound to `{binding}`"),
            None if service.binds.is_empty() => "gets packets for any port".to_owned(),
            None => return true,
        };
        let (director, server) = (quote(&service.name.value), quote(&plan.name));
        let message = format!(
            "{server} is at port {}, and {director} {bound}: packets reach the real server unchanged in the mode `{}`, \
             so its port must be that of the VIP",
            plan.port,
            mode.name()
        );
        let diagnostic = self.diagnostic(Code::PortUnchanged, span, message);
        let help = "leave the port out, or use the mode `nat`, which replaces it";
        self.found.push(diagnostic.repair(span, format!("\"{}\"", plan.address), help));
        false
    }

    /// Reports a real server where a director is bound.
    fn not_a_director(&mut self, service: &Service<'_>, plan: &ServerPlan, span: &Range<usize>) {
        let bound = if service.is_one_sided() {
            // The VIP stays in the packet; what matters is that somebody else has it.
            let is_own =
                |binding: &Binding| binding.network.is_host() && binding.network.address == plan.address;
            service.all.of(&service.name.value).find(|bound| is_own(&bound.binding))
        } else if plan.port == 0 {
            let mut binds = service.binds.iter();
            binds.find_map(|bind| service.all.meeting(plan.address, &bind.ports, bind.protocol))
        } else {
            let protocols: BTreeSet<_> = service.binds.iter().map(|bind| bind.protocol).collect();
            let ports = plan.port..=plan.port;
            protocols.iter().find_map(|protocol| service.all.meeting(plan.address, &ports, *protocol))
        };
        let Some(bound) = bound else { return };
        let (server, director) = (quote(&plan.name), quote(&bound.director));
        let message = format!("the real server {server} is where the director {director} is bound");
        let diagnostic = self
            .diagnostic(Code::ServerIsDirector, span, message)
            .also(&bound.place, "bound here")
            .help("write the address of the real server itself");
        self.found.push(diagnostic);
    }
}
