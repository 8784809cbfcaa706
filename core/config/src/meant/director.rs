//! Directors, their schedulers, and how clients stick.

use std::time::Duration;

use evenkeel_engine::plan::{self, Binding, DirectorPlan, MidStream, Ping};

use super::bindings::Bindings;
use super::{Meaning, TIMEOUTS, entries, flag, number};
use crate::addresses;
use crate::diagnostic::Code;
use crate::forms::{self, ModeName, quote};
use crate::written::{self, At, Named, Netmask, Persistence, TextOrTable};

/// The most directors: their numbers have 16 bits.
const DIRECTORS_MAX: usize = 65_535;

/// How long a client sticks when the file does not say: as long as in IPVS.
const PERSISTENCE_DEFAULT: Duration = Duration::from_secs(300);

/// What the parts of a director need to know of the whole.
pub(super) struct Service<'a> {
    /// Its name.
    pub(super) name: &'a At<String>,
    /// Its mode; none when the file has it wrong.
    pub(super) mode: Option<ModeName>,
    /// What it is bound to.
    pub(super) binds: Vec<Binding>,
    /// What all directors are bound to.
    pub(super) all: &'a Bindings,
    /// Whether it asks agents.
    pub(super) has_agents: bool,
}

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
        let bindings = self.bindings(tables);
        let mut plans = Vec::new();
        for (name, table) in tables {
            plans.extend(self.director(name, &table.value, &bindings));
        }
        plans
    }

    fn director(
        &mut self,
        name: &At<String>,
        written: &written::Director,
        all: &Bindings,
    ) -> Option<DirectorPlan> {
        self.places.insert("director", &name.value, "", &name.span);
        self.text(&name.span, forms::name(&name.value));
        let binds = all.of(&name.value).map(|bound| bound.binding.clone()).collect();
        let mode_name = match &written.mode {
            Some(at) => {
                self.places.insert("director", &name.value, "mode", &at.span);
                self.text(&at.span, forms::mode(&at.value.0))
            }
            None => Some(ModeName::Nat),
        };
        let has_agents = written.agent_check.is_some();
        let service = Service { name, mode: mode_name, binds, all, has_agents };
        let mode = self.mode(&service, written);
        // In this order, so that what is wrong with the scheduler is shown at the scheduler.
        let shadow = self.shadow(&name.value, written.shadow.as_ref());
        let scheduler = self.scheduler(&name.value, written.scheduler.as_ref());
        let persistence = written.persistence.as_ref().map(|at| self.persistence(at));
        let servers = self.servers(&service, entries(written.server.as_ref()));
        let has_ports = servers.iter().any(|server| server.port != 0);
        self.one_packet(&service, written, has_ports);
        Some(DirectorPlan {
            name: name.value.clone(),
            binds: service.binds,
            mode: mode?,
            scheduler: scheduler?,
            shadow: shadow?,
            slow_start: self.slow_start(written.slow_start.as_ref()),
            agent_check: self.agent_check(written.agent_check.as_ref()),
            servers,
            is_one_packet: flag(written.one_packet.as_ref(), false),
            persistence: persistence.flatten(),
            mid_stream: match written.mid_stream.as_ref().map(|at| at.value) {
                None | Some(written::MidStream::Refuse) => MidStream::Refuse,
                Some(written::MidStream::Drop) => MidStream::Drop,
                Some(written::MidStream::Pick) => MidStream::Pick,
            },
            ping: match written.ping.as_ref().map(|at| at.value) {
                None | Some(written::Ping::WhenUsable) => Ping::WhenUsable,
                Some(written::Ping::Always) => Ping::Always,
                Some(written::Ping::Forward) => Ping::Forward,
            },
        })
    }

    fn persistence(&mut self, At { span, value }: &At<Persistence>) -> Option<plan::Persistence> {
        let (timeout, length_v4, length_v6) = match value {
            TextOrTable::Text(text) => (self.text(span, forms::duration(&text.0, &TIMEOUTS))?, 32, 128),
            TextOrTable::Table(table) => {
                let timeout = self.duration(table.timeout.as_ref(), &TIMEOUTS, PERSISTENCE_DEFAULT);
                let length_v4 = match &table.netmask {
                    None => Some(32),
                    Some(At { value: Netmask::Length(length), .. }) => u8::try_from(*length).ok(),
                    Some(At { span, value: Netmask::Mask(text) }) => {
                        self.text(span, addresses::netmask(&text.0))
                    }
                };
                (timeout, length_v4?, number(table.netmask6.as_ref(), 128))
            }
        };
        Some(plan::Persistence { timeout, length_v4, length_v6 })
    }

    /// Reports a director that can not schedule each datagram on its own.
    fn one_packet(&mut self, service: &Service<'_>, written: &written::Director, has_ports: bool) {
        let Some(at) = written.one_packet.as_ref().filter(|at| at.value) else { return };
        let name = quote(&service.name.value);
        let (message, help) = if service.mode == Some(ModeName::Nat) && written.snat.is_some() {
            let message = format!(
                "{name} leaves no flow behind with `one_packet`, and source NAT needs one for the answers"
            );
            (
                message,
                "take out `snat` or `one_packet`; without `snat` answers must come through the forwarder",
            )
        } else if !service.binds.is_empty() && service.binds.iter().all(is_tcp) {
            (format!("{name} is bound to TCP, and `one_packet` is about UDP"), "take out `one_packet`")
        } else if service.mode == Some(ModeName::Nat) && !has_one_name(&service.binds, has_ports) {
            let message = format!(
                "with `one_packet` the answers of {name} leave in the name of its VIP, so there must be one address and port"
            );
            (message, "bind to one address and one port, or use the mode `gateway` or `tunnel`")
        } else {
            return;
        };
        let diagnostic = self.diagnostic(Code::Conflict, &at.span, message);
        let diagnostic = match &written.snat {
            Some(snat) => diagnostic.also(&snat.span, "source NAT here"),
            None => diagnostic,
        };
        self.found.push(diagnostic.help(help));
    }
}

fn is_tcp(binding: &Binding) -> bool {
    binding.protocol == Some(evenkeel_engine::wire::Protocol::TCP)
}

/// Whether the answer of a real server tells by itself from which address and port its client awaits it.
fn has_one_name(binds: &[Binding], has_ports: bool) -> bool {
    let Some(first) = binds.first() else { return false };
    let is_same = |binding: &Binding| binding.network == first.network && binding.ports == first.ports;
    first.network.is_host() && (first.port().is_some() || !has_ports) && binds.iter().all(is_same)
}

impl Service<'_> {
    /// Whether packets reach real servers as they are.
    pub(super) fn is_one_sided(&self) -> bool {
        matches!(self.mode, Some(ModeName::Gateway | ModeName::Tunnel))
    }

    /// The one port that it is bound to, if it is one.
    pub(super) fn port(&self) -> Option<u16> {
        let port = self.binds.first()?.port()?;
        self.binds.iter().all(|binding| binding.port() == Some(port)).then_some(port)
    }
}
