//! A plan in the words of other systems.
//!
//! ```text
//! plan -> one service for each director and bind -> lines of `ipvsadm --restore`, and what they do not say
//! ```

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use evenkeel_engine::forward::tunnel::Encapsulation;
use evenkeel_engine::plan::{
    Binding, DirectorPlan, FlowKey, MidStream, Mode, Persistence, Plan, PolicyPlan, ServerPlan,
};
use evenkeel_engine::wire::Protocol;

use crate::forms::quote;
use crate::import::SCHEDULERS;

/// A text for another system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// The text.
    pub text: String,
    /// A sentence for each thing of the plan that the text does not say.
    pub not_kept: Vec<String>,
}

impl Exported {
    fn not_kept(&mut self, director: &DirectorPlan, what: &str) {
        self.not_kept.push(format!("director {}: {what}", quote(&director.name)));
    }
}

/// The directors of `plan` as `ipvsadm --restore` takes them, and [`import`](crate::import::import) as well.
#[must_use]
pub fn ipvsadm(plan: &Plan) -> Exported {
    let mut out = Exported::default();
    let rules = plan.policies.iter().map(|policy| match policy {
        PolicyPlan::Rules(flows) => flows.len(),
        PolicyPlan::Guest(_) => 1,
    });
    let rules = rules.sum::<usize>() + plan.outflows.len() + plan.outflow_guests.len();
    if rules > 0 {
        out.not_kept.push(format!("{rules} flows, outflows and policies: IPVS has none; see nftables"));
    }
    for director in &plan.directors {
        self::director(&mut out, director);
    }
    out
}

fn director(out: &mut Exported, director: &DirectorPlan) {
    besides(out, director);
    let targets = targets(out, director);
    if director.binds.is_empty() && targets.is_empty() {
        out.not_kept(director, "only flow rules lead to it, and it is left out");
    }
    if targets.len() > 1 {
        out.not_kept(
            director,
            "it becomes several services, which share neither loads nor clients that stick",
        );
    }
    for target in targets {
        service(out, director, &target);
    }
}

/// What of a director IPVS has no words for.
fn besides(out: &mut Exported, director: &DirectorPlan) {
    if matches!(&director.mode, Mode::Nat { sources } if !sources.is_empty()) {
        out.not_kept(
            director,
            "`source_nat` is not kept: masquerade with nftables, and set `net.ipv4.vs.conntrack`",
        );
    }
    if matches!(&director.mode, Mode::Tunnel { sources, ttl, .. } if !sources.is_empty() || ttl.is_some()) {
        out.not_kept(director, "the source and the hops of its tunnels are not kept");
    }
    if director.shadow.is_some() {
        out.not_kept(director, "its second scheduler is not kept");
    }
    if director.slow_start.is_some() {
        out.not_kept(director, "`slow_start` is not kept");
    }
    if director.agent_check.is_some() {
        out.not_kept(
            director,
            "`agent_check` is not kept: IPVS asks nobody, keepalived has checks of its own",
        );
    }
    if director.mid_stream == MidStream::Pick {
        out.not_kept(
            director,
            "`mid_stream` is not kept: IPVS has `net.ipv4.vs.sloppy_tcp` for all services",
        );
    }
}

/// What a service is called by: `-t 10.0.0.3:80`, `-f 7`.
struct Target {
    words: String,
    is_v6: bool,
    /// The port of its address; nothing for a mark.
    port: Option<u16>,
}

fn targets(out: &mut Exported, director: &DirectorPlan) -> Vec<Target> {
    let mark = director.name.strip_prefix("fwm-").and_then(|mark| mark.parse::<u32>().ok());
    if let Some(mark) = mark.filter(|mark| *mark > 0 && director.binds.is_empty()) {
        let is_v6 = director.servers.iter().any(|server| server.address.is_ipv6());
        let words = if is_v6 { format!("-f {mark} -6") } else { format!("-f {mark}") };
        return vec![Target { words, is_v6, port: None }];
    }
    director.binds.iter().flat_map(|bind| targets_of(out, director, bind)).collect()
}

fn targets_of(out: &mut Exported, director: &DirectorPlan, bind: &Binding) -> Vec<Target> {
    let is_any = bind.is_any_port();
    let port = if is_any { Some(0) } else { bind.port() };
    let reason = if !bind.network.is_host() {
        Some("IPVS knows single addresses; mark the network's packets and use a service by mark")
    } else if port.is_none() {
        Some("IPVS knows single ports; mark their packets and use a service by mark")
    } else if is_any && director.persistence.is_none() {
        Some("IPVS takes any port only where clients stick")
    } else {
        None
    };
    let (Some(port), None) = (port, reason) else {
        let reason = reason.unwrap_or_default();
        out.not_kept(director, &format!("the bind {} is left out: {reason}", quote(&bind.to_string())));
        return Vec::new();
    };
    let protocols: &[&str] = match bind.protocol {
        Some(Protocol::UDP) => &["-u"],
        Some(_) => &["-t"],
        None => &["-t", "-u"],
    };
    let address = bind.network.address;
    let target = |option: &&str| Target {
        words: format!("{option} {}", place(address, port)),
        is_v6: address.is_ipv6(),
        port: Some(port),
    };
    protocols.iter().map(target).collect()
}

fn place(address: IpAddr, port: u16) -> String {
    match address {
        IpAddr::V4(address) => format!("{address}:{port}"),
        IpAddr::V6(address) => format!("[{address}]:{port}"),
    }
}

fn service(out: &mut Exported, director: &DirectorPlan, target: &Target) {
    let (scheduler, flags) = scheduler(out, director);
    let mut line = format!("-A {} -s {scheduler}", target.words);
    if let Some(Persistence { timeout, length_v4, length_v6 }) = director.persistence {
        let seconds = timeout.as_nanos().div_ceil(1_000_000_000).max(1);
        // Writing into a String cannot fail.
        let _ = write!(line, " -p {seconds}");
        if target.is_v6 && length_v6 < 128 {
            let _ = write!(line, " -M {}", length_v6.max(1));
        } else if !target.is_v6 && length_v4 < 32 {
            let mask = u32::MAX.checked_shl(32 - u32::from(length_v4)).unwrap_or(0);
            let _ = write!(line, " -M {}", Ipv4Addr::from_bits(mask));
        }
    }
    if director.is_one_packet {
        line.push_str(" -o");
    }
    if !flags.is_empty() {
        let _ = write!(line, " -b {flags}");
    }
    out.text.push_str(&line);
    out.text.push('\n');
    for server in &director.servers {
        let line = self::server(director, target, server);
        out.text.push_str(&line);
    }
}

/// The name and the flags of its scheduler.
fn scheduler(out: &mut Exported, director: &DirectorPlan) -> (&'static str, String) {
    let native = director.scheduler.native();
    let found = native.and_then(|tuned| {
        let name = SCHEDULERS.into_iter().find(|name| *name == tuned.kind.name())?;
        Some((name, tuned.options))
    });
    let Some((name, options)) = found else {
        let whose = native.map_or_else(|| "a component".to_owned(), |tuned| quote(tuned.kind.name()));
        let what = format!("its scheduler, {whose}, is none of IPVS; `wlc` takes its place");
        if !out.not_kept.iter().any(|line| line.ends_with(&what) && line.contains(&quote(&director.name))) {
            out.not_kept(director, &what);
        }
        return ("wlc", String::new());
    };
    let mut flags = Vec::new();
    if ["sh", "mh"].contains(&name) {
        // Here it is what happens unless somebody says no; there, only where somebody says so.
        if options.fallback != Some(false) {
            flags.push(format!("{name}-fallback"));
        }
        if options.key == Some(FlowKey::SourcePort) {
            flags.push(format!("{name}-port"));
        }
    }
    (name, flags.join(","))
}

fn server(director: &DirectorPlan, target: &Target, server: &ServerPlan) -> String {
    let own = if server.port == 0 { target.port.unwrap_or(0) } else { server.port };
    let mut line = format!("-a {} -r {}", target.words.trim_end_matches(" -6"), place(server.address, own));
    let mut tunnel = String::new();
    line.push_str(match &director.mode {
        Mode::Nat { .. } => " -m",
        Mode::Gateway => " -g",
        Mode::Tunnel { encapsulation, .. } => {
            tunnel = match encapsulation {
                Encapsulation::IpIp => String::new(),
                Encapsulation::Gre { checksum } => format!(" --tun-type gre {}", sum(*checksum)),
                Encapsulation::Gue { port, checksum } => {
                    format!(" --tun-type gue --tun-port {port} {}", sum(*checksum))
                }
            };
            " -i"
        }
    });
    let _ = write!(line, " -w {}{tunnel}", server.weight);
    if server.flows_upper > 0 {
        let _ = write!(line, " -x {}", server.flows_upper);
    }
    if server.flows_lower > 0 {
        let _ = write!(line, " -y {}", server.flows_lower);
    }
    line.push('\n');
    line
}

const fn sum(has_checksum: bool) -> &'static str {
    if has_checksum { "--tun-csum" } else { "--tun-nocsum" }
}
