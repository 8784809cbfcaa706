//! The virtual servers of a keepalived file. Everything else of it stays with keepalived.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;

use super::service::{Server, Service, Way, bind, name};
use super::{Notes, SCHEDULERS, words};
use crate::forms::quote;

const CHECKS: &str = "real servers are not checked yet: each counts as usable";

/// A line: its words, what its braces hold, and where it stands.
struct Line<'t> {
    words: Vec<&'t str>,
    inside: Vec<Self>,
    span: Range<usize>,
}

/// The deepest nesting that is read; keepalived has four levels.
const DEPTH_MAX: usize = 16;

pub(super) fn import(text: &str, notes: &mut Notes) -> Vec<Service> {
    let mut tokens = tokens(text).into_iter().peekable();
    let lines = block(&mut tokens, 0);
    let mut groups = BTreeMap::new();
    for line in &lines {
        if let ["virtual_server_group", name, ..] = line.words.as_slice() {
            groups.insert(*name, line);
        }
    }
    let mut services = Vec::new();
    for line in &lines {
        match line.words.as_slice() {
            ["virtual_server", rest @ ..] => {
                let number = services.len() + 1;
                services.extend(service(line, rest, number, &groups, notes));
            }
            ["virtual_server_group", ..] => {}
            [first, ..] => {
                let message = format!("{} is passed over", quote(first));
                notes.not_kept(
                    &line.span,
                    message,
                    "only virtual servers are read; the rest stays keepalived's",
                );
            }
            [] => {}
        }
    }
    services
}

/// Words, braces and ends of lines (an empty word), without comments.
fn tokens(text: &str) -> Vec<(Range<usize>, &str)> {
    let mut all = Vec::new();
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let code = line.find(['!', '#']).and_then(|end| line.get(..end)).unwrap_or(line);
        for (span, word) in words(code, offset) {
            // Braces may touch words.
            let mut start = span.start;
            for part in word.split_inclusive(['{', '}']) {
                let bare = part.trim_end_matches(['{', '}']);
                if !bare.is_empty() {
                    all.push((start..start + bare.len(), bare));
                }
                if let Some(brace) = part.get(bare.len()..).filter(|brace| !brace.is_empty()) {
                    all.push((start + bare.len()..start + part.len(), brace));
                }
                start += part.len();
            }
        }
        offset += line.len();
        all.push((offset..offset, ""));
    }
    all
}

/// Lines up to the brace that closes them.
fn block<'t>(
    tokens: &mut std::iter::Peekable<std::vec::IntoIter<(Range<usize>, &'t str)>>,
    depth: usize,
) -> Vec<Line<'t>> {
    let mut lines: Vec<Line<'t>> = Vec::new();
    let mut is_open = false;
    while let Some((span, word)) = tokens.next() {
        match word {
            "" => is_open = false,
            "}" => break,
            "{" => {
                let inside = if depth < DEPTH_MAX { block(tokens, depth + 1) } else { Vec::new() };
                match lines.last_mut() {
                    Some(line) => line.inside = inside,
                    None => lines.push(Line { words: Vec::new(), inside, span }),
                }
                is_open = false;
            }
            word => match lines.last_mut().filter(|_| is_open) {
                Some(line) => {
                    line.words.push(word);
                    line.span.end = span.end;
                }
                None => {
                    lines.push(Line { words: vec![word], inside: Vec::new(), span });
                    is_open = true;
                }
            },
        }
    }
    lines
}

fn service(
    line: &Line<'_>,
    target: &[&str],
    number: usize,
    groups: &BTreeMap<&str, &Line<'_>>,
    notes: &mut Notes,
) -> Option<Service> {
    let mut service = Service { scheduler: "wlc".to_owned(), ..Service::default() };
    let protocol = line.inside.iter().find_map(|line| match line.words.as_slice() {
        ["protocol", name] => Some(name.to_lowercase()),
        _ => None,
    });
    let protocol = protocol.unwrap_or_else(|| "tcp".to_owned());
    if protocol != "tcp" && protocol != "udp" {
        let message = format!("a virtual server of {} is left out", quote(&protocol));
        notes.not_kept(&line.span, message, "directors serve TCP and UDP");
        return None;
    }
    match target {
        ["fwmark", mark, ..] => {
            service.name = format!("fwm-{mark}");
            let message =
                format!("what sets the mark {mark} is not known, so nothing leads to its director yet");
            notes.not_kept(
                &line.span,
                message,
                "add a flow with `policy = \"director ...\"` for the packets of the mark",
            );
        }
        ["group", group, ..] => {
            service.name = (*group).to_owned();
            let members = groups.get(group).map_or(&[][..], |group| group.inside.as_slice());
            for member in members {
                let [address, port, ..] = member.words.as_slice() else { continue };
                if let Some((address, port)) = place(address, port) {
                    service.binds.push(bind(address, port, &protocol));
                } else {
                    let message = format!("{} of the group is not kept", quote(&member.words.join(" ")));
                    notes.not_kept(&member.span, message, "write single addresses with their ports");
                }
            }
        }
        [address, rest @ ..] => {
            let port = rest.first().copied().unwrap_or("0");
            let Some((address, port)) = place(address, port) else {
                let message = format!("{} is not an address and a port", quote(&target.join(" ")));
                notes.not_kept(&line.span, message, "the virtual server is left out");
                return None;
            };
            service.name = name(&protocol, &address.to_string(), port, number);
            service.binds.push(bind(address, port, &protocol));
        }
        [] => return None,
    }
    for line in &line.inside {
        setting(line, &mut service, notes);
    }
    Some(service)
}

fn setting(line: &Line<'_>, service: &mut Service, notes: &mut Notes) {
    match line.words.as_slice() {
        ["lb_algo" | "lvs_sched", name] if SCHEDULERS.contains(name) => {
            service.scheduler = (*name).to_owned()
        }
        ["lb_kind" | "lvs_method", kind, rest @ ..] => {
            let encapsulation = match rest {
                ["type", "gre", ..] => "gre",
                ["type", "gue", ..] => "gue",
                _ => "ipip",
            };
            service.way = Some(match *kind {
                "DR" => Way::Gateway,
                "TUN" => Way::Tunnel(encapsulation, None, false),
                _ => Way::Nat,
            });
        }
        ["persistence_timeout", rest @ ..] => {
            service.persistence_seconds =
                Some(rest.first().and_then(|text| text.parse().ok()).unwrap_or(360));
        }
        ["persistence_granularity", mask] => service.netmask = Some((*mask).to_owned()),
        ["ops"] => service.is_one_packet = true,
        ["sh-port" | "mh-port"] => service.uses_port = true,
        ["sh-fallback" | "mh-fallback"] => service.has_fallback = true,
        ["protocol", ..] => {}
        ["real_server", rest @ ..] => service.servers.extend(server(line, rest, notes)),
        [first, ..] => {
            let message = format!("{} of a virtual server is not kept", quote(first));
            notes.not_kept(&line.span, message, CHECKS);
        }
        [] => {}
    }
}

fn server(line: &Line<'_>, target: &[&str], notes: &mut Notes) -> Option<Server> {
    let found = match target {
        [address] => place(address, "0"),
        [address, port, ..] => place(address, port),
        [] => None,
    };
    let Some((address, port)) = found else {
        let message = format!("{} is not an address and a port", quote(&target.join(" ")));
        notes.not_kept(&line.span, message, "the real server is left out");
        return None;
    };
    let mut server = Server::at(address, port);
    for setting in &line.inside {
        let number = setting.words.get(1).and_then(|text| text.parse().ok());
        match (setting.words.first().copied(), number) {
            (Some("weight"), Some(weight)) => server.weight = weight,
            (Some("uthreshold"), Some(upper)) => server.upper = upper,
            (Some("lthreshold"), Some(lower)) => server.lower = lower,
            (Some(other), _) => {
                let message = format!("{} of a real server is not kept", quote(other));
                notes.not_kept(&setting.span, message, CHECKS);
            }
            (None, _) => {}
        }
    }
    Some(server)
}

fn place(address: &str, port: &str) -> Option<(IpAddr, u16)> {
    Some((address.parse().ok()?, port.parse().ok()?))
}
