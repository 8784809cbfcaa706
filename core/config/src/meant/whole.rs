//! What only the whole plan tells: whether the interfaces that lead to real servers can carry what their directors send.

use std::net::IpAddr;

use evenkeel_engine::plan::{DirectorPlan, InterfacePlan, Mode, Plan, ServerPlan};

use super::Meaning;
use crate::addresses::family;
use crate::diagnostic::Code;
use crate::forms::quote;

impl Meaning<'_> {
    /// Reports tunnels without a source, and warns of next hops that no link can reach. A plan with other errors has
    /// holes, and is not looked at.
    pub(super) fn ways_to_servers(&mut self, plan: &Plan) {
        if self.found.has_errors() {
            return;
        }
        for director in &plan.directors {
            match &director.mode {
                Mode::Nat { .. } | Mode::Gateway => {}
                Mode::Tunnel { sources, .. } => self.tunnel_sources_of(plan, director, sources),
            }
        }
    }

    fn tunnel_sources_of(&mut self, plan: &Plan, director: &DirectorPlan, sources: &[IpAddr]) {
        for server in &director.servers {
            let is_fit = |address: &IpAddr| address.is_ipv4() == server.address.is_ipv4();
            let Some(out) = way_to(plan, server) else { continue };
            if sources.iter().any(is_fit) || out.addresses.iter().any(|own| is_fit(&own.address)) {
                continue;
            }
            let (name, interface, of) = (quote(&server.name), quote(&out.name), family(&server.address));
            let message = format!(
                "outer packets to {name} have no source: the tunnel names none of {of}, and {interface}, which leads \
                 there, has no {of} address"
            );
            let span = self.place_of(director, server);
            let diagnostic = self.diagnostic(Code::NoTunnelSource, &span, message);
            self.found.push(diagnostic.help("add `source` to `tunnel`, or an `address` to the interface"));
        }
    }

    /// Where the address of a real server is written.
    fn place_of(&self, director: &DirectorPlan, server: &ServerPlan) -> std::ops::Range<usize> {
        self.places.find("server address", &director.name, &server.name).cloned().unwrap_or(0..0)
    }
}

/// The interface by which packets to a real server leave: that of the longest prefix, and of those the first.
fn way_to<'a>(plan: &'a Plan, server: &ServerPlan) -> Option<&'a InterfacePlan> {
    let fitting = plan.routes.iter().rev().filter(|route| route.destination.contains(server.address));
    let route = fitting.max_by_key(|route| route.destination.length)?;
    plan.interfaces.get(route.interface.index())
}
