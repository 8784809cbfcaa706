//! What `ipvsadm --save --numeric` prints, of today and of older versions (`pe sip` and `ops` without dashes).

use std::net::IpAddr;
use std::ops::Range;

use super::service::{Server, Service, Way, bind, name};
use super::{Notes, SCHEDULERS, words};
use crate::forms::quote;
use crate::sheet::tables;

type Word<'t> = (Range<usize>, &'t str);

/// Whom a line is about: the words behind `-t`, `-u` or `-f`.
type Target<'t> = (&'t str, &'t str);

pub(super) fn import(text: &str, notes: &mut Notes) -> Vec<Service> {
    let mut services: Vec<(Target<'_>, Service)> = Vec::new();
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let words = words(line, offset);
        offset += line.len();
        let Some(((span, first), rest)) = words.split_first() else { continue };
        match *first {
            "-A" | "--add-service" => services.extend(service(rest, span, services.len() + 1, notes)),
            "-a" | "--add-server" => server(rest, span, &mut services, notes),
            "-C" | "--clear" => {}
            comment if comment.starts_with('#') => {}
            other => {
                let message = format!("a line that begins with {} is passed over", quote(other));
                notes.not_kept(span, message, "only `-A` and `-a` are read, as `ipvsadm -S -n` prints them");
            }
        }
    }
    services.into_iter().map(|(_, service)| service).collect()
}

/// Takes the value of an option.
fn value<'t>(words: &mut std::slice::Iter<'_, Word<'t>>) -> Option<Word<'t>> {
    words.next().cloned()
}

fn service<'t>(
    words: &[Word<'t>],
    line: &Range<usize>,
    number: usize,
    notes: &mut Notes,
) -> Option<(Target<'t>, Service)> {
    let mut found = None;
    let mut service = Service { scheduler: "wlc".to_owned(), ..Service::default() };
    let mut words = words.iter().peekable();
    while let Some((span, option)) = words.next() {
        let is_value = words.peek().is_some_and(|(_, word)| !word.starts_with('-'));
        let mut next = || words.next().cloned();
        match *option {
            "-t" | "--tcp-service" => found = Some(("tcp", next()?)),
            "-u" | "--udp-service" => found = Some(("udp", next()?)),
            "-f" | "--fwmark-service" => found = Some(("fwm", next()?)),
            "--sctp-service" => found = Some(("sctp", next()?)),
            "-s" | "--scheduler" => scheduler(&next()?, &mut service, notes),
            "-p" | "--persistent" => {
                let seconds = if is_value { next()?.1.parse().unwrap_or(300) } else { 300 };
                service.persistence_seconds = Some(seconds);
            }
            "-M" | "--netmask" => service.netmask = Some(next()?.1.to_owned()),
            "-o" | "--ops" | "ops" => service.is_one_packet = true,
            "-b" | "--sched-flags" => flags(&next()?, &mut service, notes),
            "-6" => {}
            "--pe" | "pe" => {
                let word = next()?;
                let message = format!("the persistence engine {} is not kept", quote(word.1));
                notes.not_kept(&word.0, message, "clients stick by their address");
            }
            other => {
                let message = format!("{} of a service is not kept", quote(other));
                notes.not_kept(span, message, "the service is kept without it");
            }
        }
    }
    let Some((kind, (span, target))) = found.filter(|(kind, _)| *kind != "sctp") else {
        let help = "only services of TCP, UDP and firewall marks are kept";
        notes.not_kept(
            line,
            "a service without `-t`, `-u` or `-f` is left out, with its real servers".to_owned(),
            help,
        );
        return None;
    };
    if kind == "fwm" {
        service.name = format!("fwm-{target}");
        let message =
            format!("what sets the mark {target} is not known, so nothing leads to its director yet");
        notes.not_kept(
            &span,
            message,
            "add a flow with `policy = \"director ...\"` for the packets of the mark",
        );
        return Some(((kind, target), service));
    }
    let Some((address, port)) = place(target) else {
        let message = format!("{} is not an address and a port, and the service is left out", quote(target));
        notes.not_kept(&span, message, "save with `--numeric`");
        return None;
    };
    service.name = name(kind, &address.to_string(), port, number);
    service.binds.push(bind(address, port, kind));
    Some(((kind, target), service))
}

fn scheduler(word: &Word<'_>, service: &mut Service, notes: &mut Notes) {
    if SCHEDULERS.contains(&word.1) {
        service.scheduler = word.1.to_owned();
        return;
    }
    let message = format!("the scheduler {} is not known; `wlc` takes its place", quote(word.1));
    notes.not_kept(&word.0, message, "choose a scheduler of this system");
}

fn flags(word: &Word<'_>, service: &mut Service, notes: &mut Notes) {
    for flag in word.1.split(',') {
        match flag {
            "sh-port" | "mh-port" => service.uses_port = true,
            "sh-fallback" | "mh-fallback" => service.has_fallback = true,
            _ => {
                let message = format!("the flag {} is not kept", quote(flag));
                notes.not_kept(&word.0, message, "the scheduler is kept without it");
            }
        }
    }
}

fn server<'t>(
    words: &[Word<'t>],
    line: &Range<usize>,
    services: &mut [(Target<'t>, Service)],
    notes: &mut Notes,
) {
    let (mut target, mut place_of, mut way) = (None, None, Way::Nat);
    let mut server = Server::at(IpAddr::from([0, 0, 0, 0]), 0);
    let mut words = words.iter();
    while let Some((span, option)) = words.next() {
        let number =
            |words: &mut std::slice::Iter<'_, Word<'_>>| value(words).and_then(|word| word.1.parse().ok());
        match *option {
            "-t" | "--tcp-service" => target = value(&mut words).map(|word| ("tcp", word.1)),
            "-u" | "--udp-service" => target = value(&mut words).map(|word| ("udp", word.1)),
            "-f" | "--fwmark-service" => target = value(&mut words).map(|word| ("fwm", word.1)),
            "--sctp-service" => return,
            "-r" | "--real-server" => place_of = value(&mut words),
            "-g" | "--gatewaying" => way = Way::Gateway,
            "-i" | "--ipip" => way = Way::Tunnel("ipip", None, false),
            "-m" | "--masquerading" => way = Way::Nat,
            "-w" | "--weight" => server.weight = number(&mut words).unwrap_or(1),
            "-x" | "--u-threshold" => server.upper = number(&mut words).unwrap_or(0),
            "-y" | "--l-threshold" => server.lower = number(&mut words).unwrap_or(0),
            "--tun-type" => {
                let kind = value(&mut words).map_or("ipip", |word| word.1);
                let known = [("gre", "gre"), ("gue", "gue")].into_iter().find(|(name, _)| *name == kind);
                way = Way::Tunnel(known.map_or("ipip", |(_, ours)| ours), None, false);
            }
            "--tun-port" => {
                let port = value(&mut words).and_then(|word| word.1.parse().ok());
                if let Way::Tunnel(_, own, _) = &mut way {
                    *own = port;
                }
            }
            "--tun-csum" => {
                if let Way::Tunnel(_, _, checksum) = &mut way {
                    *checksum = true;
                }
            }
            "--tun-nocsum" | "-6" => {}
            other => {
                let message = format!("{} of a real server is not kept", quote(other));
                notes.not_kept(span, message, "the real server is kept without it");
            }
        }
    }
    let own = services.iter_mut().find(|(known, _)| Some(*known) == target);
    let (Some((_, service)), Some((span, place_text))) = (own, place_of) else {
        let message = "a real server of no service that is kept is left out".to_owned();
        return notes.not_kept(line, message, "its service comes first, with the same `-t`, `-u` or `-f`");
    };
    let Some((address, port)) = place(place_text) else {
        let message = format!("{} is not an address, and the real server is left out", quote(place_text));
        return notes.not_kept(&span, message, "save with `--numeric`");
    };
    if *service.way.get_or_insert_with(|| way.clone()) != way {
        let message = format!(
            "the real server {} is left out: others of its service are reached another way",
            tables::text(place_text)
        );
        return notes.not_kept(&span, message, "a director has one mode; make a second one for this server");
    }
    (server.address, server.port) = (address, port);
    service.servers.push(server);
}

/// An address and a port, which is 0 where it is missing.
fn place(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = match text.strip_prefix('[') {
        Some(rest) => {
            rest.split_once(']').map(|(address, rest)| (address, rest.strip_prefix(':').unwrap_or("0")))?
        }
        None => text.rsplit_once(':').unwrap_or((text, "0")),
    };
    Some((address.parse().ok()?, port.parse().ok()?))
}
