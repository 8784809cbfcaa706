//! Directors, their schedulers and real servers.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::{Range, RangeInclusive};

use evenkeel_engine::plan::{DirectorPlan, Mode, SchedulerPlan, ServerPlan, SourceNat};
use evenkeel_engine::wire::Protocol;

use super::{GuestText, Meaning, SCHEDULER_DEFAULT, entries, number};
use crate::diagnostic::Code;
use crate::forms::{self, quote};
use crate::written::{self, At, Named, Scheduler};

/// The most directors: their numbers have 16 bits.
const DIRECTORS_MAX: usize = 65_535;

/// The most real servers of one director: their numbers have 16 bits.
const SERVERS_MAX: usize = 65_535;

/// The ports of source NAT when the file does not say: all but those that only privileged programs use.
const SNAT_PORTS_DEFAULT: RangeInclusive<u16> = 1_024..=65_535;

/// The weight of a real server when the file does not say.
const WEIGHT_DEFAULT: u32 = 1;

/// What one director is bound to.
type Binding = (Ipv4Addr, u16, Protocol);

/// Every binding with the director that has it and where it is written.
type Bindings = BTreeMap<Binding, (String, Range<usize>)>;

impl Meaning<'_> {
    pub(super) fn directors(&mut self, file: &written::File) -> Vec<DirectorPlan> {
        let tables = Named::entries(file.director.as_ref().map(|at| &at.value));
        if let Some((name, _)) = tables.get(DIRECTORS_MAX) {
            let message = format!("there are {} directors; {DIRECTORS_MAX} is the most", tables.len());
            let diagnostic = self.diagnostic(Code::TooMany, &name.span, message);
            self.found.push(diagnostic.help("take out some directors"));
        }
        if tables.is_empty() {
            let diagnostic = self.diagnostic(Code::NoDirectors, &(0..0), "there is no director");
            self.found
                .push(diagnostic.help("add a table `[director.NAME]` with `bind = \"10.0.0.3:80/tcp\"`"));
        }
        let mut bindings = Bindings::new();
        for (name, table) in tables {
            self.bind(&name.value, table.value.bind.as_ref(), &mut bindings);
        }
        let mut plans = Vec::new();
        for (name, table) in tables {
            plans.extend(self.director(name, &table.value, &bindings));
        }
        plans
    }

    /// Enters what a director is bound to, and reports when another has it already.
    fn bind(&mut self, name: &str, written: Option<&At<written::BindText>>, bindings: &mut Bindings) {
        let Some(At { span, value }) = written else { return };
        self.places.insert("director", name, "bind", span);
        let Some(binding) = self.text(span, forms::bind(&value.0)) else { return };
        let Some((first, place)) = bindings.get(&binding) else {
            bindings.insert(binding, (name.to_owned(), span.clone()));
            return;
        };
        let (first, name) = (quote(first), quote(name));
        let message = format!("the directors {first} and {name} are both bound to {}", quote(&value.0));
        let diagnostic = self
            .diagnostic(Code::DuplicateBinding, span, message)
            .label("again here")
            .also(place, "first here")
            .help("give one of them another address, port or protocol, or put their real servers together");
        self.found.push(diagnostic);
    }

    fn director(
        &mut self,
        name: &At<String>,
        written: &written::Director,
        bindings: &Bindings,
    ) -> Option<DirectorPlan> {
        self.places.insert("director", &name.value, "", &name.span);
        self.text(&name.span, forms::name(&name.value));
        let mode = self.mode(written.mode.as_ref());
        let binding = written.bind.as_ref().and_then(|bind| forms::bind(&bind.value.0).ok());
        let protocol = binding.map(|(_, _, protocol)| protocol);
        let source = match &written.snat {
            Some(snat) => {
                self.places.insert("director", &name.value, "snat", &snat.span);
                self.source_nat(snat, protocol, bindings).map(Some)
            }
            None => Some(None),
        };
        let scheduler = self.scheduler(&name.value, written.scheduler.as_ref());
        let servers = self.servers(name, entries(written.server.as_ref()), protocol, bindings);
        let (address, port, protocol) = binding?;
        mode?;
        Some(DirectorPlan {
            name: name.value.clone(),
            address: IpAddr::V4(address),
            port,
            protocol,
            mode: Mode::Nat { source: source? },
            scheduler: scheduler?,
            servers,
        })
    }

    /// Whether the mode is one that this version has.
    fn mode(&mut self, written: Option<&At<written::ModeText>>) -> Option<()> {
        let Some(At { span, value }) = written else { return Some(()) };
        if value.0 == "nat" {
            return Some(());
        }
        let message = match value.0.as_str() {
            "gateway" | "tunnel" => format!("the mode {} is not in this version yet", quote(&value.0)),
            _ => format!("the mode {} is unknown", quote(&value.0)),
        };
        let diagnostic = self.diagnostic(Code::UnsupportedMode, span, message);
        self.found.push(diagnostic.repair(span, "\"nat\"", "write `nat`, or leave `mode` out"));
        None
    }

    fn source_nat(
        &mut self,
        written: &At<written::SourceNat>,
        protocol: Option<Protocol>,
        bindings: &Bindings,
    ) -> Option<SourceNat> {
        let At { span, value } = written;
        let address =
            value.address.as_ref().and_then(|at| self.text(&at.span, forms::host_address(&at.value.0)));
        let ports = match &value.ports {
            Some(at) => self.text(&at.span, forms::port_range(&at.value.0)),
            None => Some(SNAT_PORTS_DEFAULT),
        };
        let (address, ports) = (address?, ports?);
        let all = (address, *ports.start(), Protocol(u8::MIN))..=(address, *ports.end(), Protocol(u8::MAX));
        let clash = bindings.range(all).find(|((_, _, bound), _)| Some(*bound) == protocol);
        if let Some(((_, port, _), (director, place))) = clash {
            let range = format!("{}-{}", ports.start(), ports.end());
            let message = format!(
                "the source NAT to {address} uses the ports {range}, and port {port} is that of the director {}",
                quote(director)
            );
            let instead = beside(&ports, *port);
            let diagnostic = self
                .diagnostic(Code::SnatOverlap, value.ports.as_ref().map_or(span, |at| &at.span), message)
                .also(place, "bound here");
            self.found.push(match &value.ports {
                Some(at) => diagnostic.repair(&at.span, format!("\"{instead}\""), "leave its port out"),
                None => diagnostic.help(format!("add `ports = \"{instead}\"`")),
            });
            return None;
        }
        Some(SourceNat { address: IpAddr::V4(address), ports })
    }

    fn scheduler(&mut self, director: &str, written: Option<&At<Scheduler>>) -> Option<SchedulerPlan> {
        let Some(At { span, value }) = written else {
            return Some(SchedulerPlan::Builtin(SCHEDULER_DEFAULT));
        };
        self.places.insert("director", director, "scheduler", span);
        match value {
            Scheduler::Builtin(name) if name.starts_with("bundled:") || name.ends_with(".wasm") => {
                let message = format!("{} is a component and not a built-in scheduler", quote(name));
                let diagnostic = self.diagnostic(Code::UnknownScheduler, span, message);
                let table = format!("{{ component = {} }}", self.source.slice(span));
                self.found.push(diagnostic.repair(span, table, "write a table"));
                None
            }
            Scheduler::Builtin(name) => self.text(span, forms::builtin(name)).map(SchedulerPlan::Builtin),
            Scheduler::Component(table) => {
                if let Some(component) = &table.component {
                    self.places.insert("director", director, "scheduler", &component.span);
                }
                let text = GuestText {
                    component: table.component.as_ref(),
                    fallback: table.fallback.as_ref(),
                    budget: table.budget.as_ref(),
                    memory: table.memory.as_ref(),
                    options: table.options.as_ref(),
                };
                self.guest(&text).map(SchedulerPlan::Guest)
            }
        }
    }

    fn servers(
        &mut self,
        director: &At<String>,
        written: &[At<written::Server>],
        protocol: Option<Protocol>,
        bindings: &Bindings,
    ) -> Vec<ServerPlan> {
        self.bounded(written, SERVERS_MAX, "real servers");
        let mut names = BTreeMap::new();
        let mut endpoints = BTreeMap::new();
        let mut plans = Vec::new();
        for At { value, .. } in written {
            let plan = self.server(&director.value, value, &mut names, &mut endpoints);
            if let (Some(plan), Some(protocol), Some(at)) = (&plan, protocol, &value.address) {
                self.not_a_director(plan, protocol, &at.span, bindings);
            }
            plans.extend(plan);
        }
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
        director: &str,
        written: &written::Server,
        names: &mut BTreeMap<String, Range<usize>>,
        endpoints: &mut BTreeMap<(Ipv4Addr, u16), Range<usize>>,
    ) -> Option<ServerPlan> {
        if let Some(name) = &written.name {
            self.places.insert("server", director, &name.value.0, &name.span);
            self.text(&name.span, forms::name(&name.value.0));
            self.unique(names, "real servers", &name.value.0, &name.span);
        }
        let at = written.address.as_ref()?;
        let (address, port) = self.text(&at.span, forms::endpoint(&at.value.0))?;
        if let Some(first) = endpoints.get(&(address, port)) {
            let message = format!("two real servers of {} are at {address}:{port}", quote(director));
            let diagnostic = self
                .diagnostic(Code::DuplicateServer, &at.span, message)
                .label("again here")
                .also(first, "first here")
                .help("take one out, and give the other the sum of their weights");
            self.found.push(diagnostic);
        } else {
            endpoints.insert((address, port), at.span.clone());
        }
        let name = written.name.as_ref()?.value.0.clone();
        let weight = number(written.weight.as_ref(), WEIGHT_DEFAULT);
        Some(ServerPlan { name, address: IpAddr::V4(address), port, weight })
    }

    /// Reports a real server at the address, port and protocol of a director.
    fn not_a_director(
        &mut self,
        server: &ServerPlan,
        protocol: Protocol,
        span: &Range<usize>,
        bindings: &Bindings,
    ) {
        let IpAddr::V4(address) = server.address else { return };
        let Some((director, place)) = bindings.get(&(address, server.port, protocol)) else { return };
        let (server, director) = (quote(&server.name), quote(director));
        let message = format!("the real server {server} is where the director {director} is bound");
        let diagnostic = self
            .diagnostic(Code::ServerIsDirector, span, message)
            .also(place, "bound here")
            .help("write the address of the real server itself");
        self.found.push(diagnostic);
    }
}

/// The larger part of `ports` that does not hold `port`.
fn beside(ports: &RangeInclusive<u16>, port: u16) -> String {
    let (low, high) = (*ports.start(), *ports.end());
    if port - low > high - port {
        format!("{low}-{}", port - 1)
    } else if high > port {
        format!("{}-{high}", port + 1)
    } else {
        // The range is that one port; any other range would do.
        "1024-65535".to_owned()
    }
}
