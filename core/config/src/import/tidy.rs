//! Services as a configuration file can hold them: names that are names and differ, numbers within their ranges, and no
//! two services at one place. What has to give way is told of.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Notes;
use super::service::{Server, Service, Way};
use crate::addresses::netmask;
use crate::forms::{self, quote};

/// The largest weight.
const WEIGHT_MAX: u32 = 65_535;

/// The longest time that a client sticks, in seconds: 30 days.
const PERSISTENCE_MAX: u32 = 30 * 86_400;

/// The most real servers of one director that are written; it is that of the configuration.
const SERVERS_MAX: usize = 65_535;

pub(super) fn tidy(services: Vec<Service>, notes: &mut Notes) -> Vec<Service> {
    let (mut names, mut binds) = (BTreeSet::new(), BTreeSet::new());
    let mut tidied = Vec::new();
    for (number, mut service) in services.into_iter().enumerate() {
        service.binds.dedup();
        let had_binds = !service.binds.is_empty();
        service.binds.retain(|bind| {
            let is_new = binds.insert(bind.clone());
            if !is_new {
                let message = format!("another service has {} already", quote(bind));
                notes.not_kept(&service.span, message, "give each service an address or a port of its own");
            }
            is_new
        });
        if had_binds && service.binds.is_empty() {
            continue;
        }
        service.name = name(&service.name, || format!("service-{}", number + 1), &mut names);
        numbers(&mut service, notes);
        servers(&mut service, notes);
        tidied.push(service);
    }
    tidied
}

/// `wanted` where it is a name that nobody has, else another one.
fn name(wanted: &str, other: impl Fn() -> String, names: &mut BTreeSet<String>) -> String {
    let first = Some(wanted).filter(|wanted| forms::name(wanted).is_ok()).map(ToOwned::to_owned);
    let others = (1_u32..).map(|number| if number == 1 { other() } else { format!("{}-{number}", other()) });
    let free = first.into_iter().chain(others).find(|name| !names.contains(name)).unwrap_or_default();
    names.insert(free.clone());
    free
}

fn numbers(service: &mut Service, notes: &mut Notes) {
    if let Some(seconds) = service.persistence_seconds
        && !(1..=PERSISTENCE_MAX).contains(&seconds)
    {
        let kept = seconds.clamp(1, PERSISTENCE_MAX);
        let message = format!("clients of {} stick for {kept} s, not {seconds} s", quote(&service.name));
        notes.not_kept(&service.span, message, "from 1 s to 30 days can be kept");
        service.persistence_seconds = Some(kept);
    }
    let is_mask = service.netmask.as_ref().is_none_or(|mask| match mask.parse::<u8>() {
        Ok(length) => length <= 128,
        Err(_) => netmask(mask).is_ok(),
    });
    if !is_mask {
        let mask = service.netmask.take().unwrap_or_default();
        let message = format!("{} is no netmask; clients stick by their whole address", quote(&mask));
        notes.not_kept(&service.span, message, "write a mask as in `255.255.255.0`");
    }
}

fn servers(service: &mut Service, notes: &mut Notes) {
    let Service { name: of, servers, way, span, binds, .. } = service;
    let is_nat = way.clone().unwrap_or_default() == Way::Nat;
    let is_tunnel = matches!(way, Some(Way::Tunnel(..)));
    let first_bind = binds.first().map(|bind| !bind.starts_with('['));
    let is_v4 = first_bind.unwrap_or_else(|| servers.first().is_none_or(|server| server.address.is_ipv4()));
    if !is_tunnel {
        binds.retain(|bind| {
            let is_kept = bind.starts_with('[') != is_v4;
            if !is_kept {
                let message = format!(
                    "{} of {} is left out: its first address is of the other kind",
                    quote(bind),
                    quote(of)
                );
                notes.not_kept(span, message, "give each kind of address a service of its own");
            }
            is_kept
        });
    }
    let mut known: BTreeSet<(IpAddr, u16)> = BTreeSet::new();
    let mut names = BTreeSet::new();
    let mut number = 0;
    servers.retain_mut(|server| {
        let is_family = is_tunnel || server.address.is_ipv4() == is_v4;
        let port = if is_nat { server.port } else { 0 };
        let reason = if !is_family {
            "it has another kind of address than its service"
        } else if server.address.is_unspecified() || server.address.is_multicast() {
            "no real server can have its address"
        } else if !known.insert((server.address, port)) {
            "there is another one at its place"
        } else if number >= SERVERS_MAX {
            "there are too many"
        } else {
            number += 1;
            let other = || format!("s{number}");
            let wanted = server.name.clone().unwrap_or_else(other);
            server.name = Some(name(&wanted, other, &mut names));
            bounds(server);
            return true;
        };
        let message = format!(
            "the real server {} of {} is left out: {reason}",
            quote(&server.address.to_string()),
            quote(of)
        );
        notes.not_kept(span, message, "change it there, and import again");
        false
    });
    if servers.iter().any(|server| server.weight > WEIGHT_MAX) {
        let message = format!("weights of {} are at most {WEIGHT_MAX} here", quote(of));
        notes.not_kept(span, message, "divide all of them by the same number");
        servers.iter_mut().for_each(|server| server.weight = server.weight.min(WEIGHT_MAX));
    }
}

/// Bounds of flows that can be: the lower one is below the upper one.
fn bounds(server: &mut Server) {
    if server.lower >= server.upper {
        server.lower = 0;
    }
}
