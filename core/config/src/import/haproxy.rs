//! The part of an HAProxy file that layer 4 can keep: which addresses lead to which servers, how one is chosen, and who
//! sticks to whom. Timeouts, logs, checks and everything about HTTP are told of, and left out.
//!
//! ```text
//! text -> lines -> sections -> frontends, each with its backend -> one service for each backend that is reached
//! ```

use std::net::IpAddr;
use std::ops::Range;

use super::service::{Agents, Extras, Server, Service, Way, bind};
use super::{Notes, words};
use crate::forms::{nearest, quote};

/// Why something is left out that looks into connections.
const LAYER_4: &str = "layer 4 forwards packets; what is in a connection it does not see";

const CHECKS: &str = "real servers are not checked yet: each counts as usable";

/// Words of a server line that a number or a name follows.
const VALUED: [&str; 26] = [
    "weight",
    "maxconn",
    "minconn",
    "maxqueue",
    "id",
    "inter",
    "fastinter",
    "downinter",
    "rise",
    "fall",
    "port",
    "addr",
    "cookie",
    "source",
    "slowstart",
    "track",
    "agent-port",
    "agent-inter",
    "agent-send",
    "agent-addr",
    "error-limit",
    "observe",
    "on-error",
    "on-marked-down",
    "on-marked-up",
    "resolvers",
];

/// Words of a server line that are about checks.
const OF_CHECKS: [&str; 12] = [
    "check",
    "port",
    "addr",
    "inter",
    "fastinter",
    "downinter",
    "rise",
    "fall",
    "observe",
    "on-error",
    "error-limit",
    "track",
];

/// The time that an entry of a stick table lives at most here.
const STICK_SECONDS_MAX: u64 = 30 * 86_400;

/// A line: its words, each with its place.
type Line<'t> = Vec<(Range<usize>, &'t str)>;

/// A section: its first line, and the lines behind it.
struct Section<'t> {
    head: Line<'t>,
    lines: Vec<Line<'t>>,
    /// What `defaults` said before it, where it says nothing itself: the mode, and the number of the section with `balance`.
    mode: &'t str,
    balance: Option<usize>,
}

impl<'t> Section<'t> {
    fn kind(&self) -> &'t str {
        self.head.first().map_or("", |(_, word)| word)
    }

    fn name(&self) -> &'t str {
        self.head.get(1).map_or("", |(_, word)| word)
    }

    fn span(&self) -> Range<usize> {
        place(&self.head)
    }

    /// The words of its last line that begins so.
    fn last(&self, first: &[&str]) -> Option<&Line<'t>> {
        self.lines.iter().rev().find(|line| begins(line, first))
    }
}

fn begins(line: &Line<'_>, first: &[&str]) -> bool {
    line.len() >= first.len() && line.iter().zip(first).all(|((_, word), wanted)| word == wanted)
}

/// Where a line stands.
fn place(line: &Line<'_>) -> Range<usize> {
    let start = line.first().map_or(0, |(span, _)| span.start);
    start..line.last().map_or(start, |(span, _)| span.end)
}

pub(super) fn import(text: &str, any: Option<IpAddr>, notes: &mut Notes) -> (Vec<Service>, Extras) {
    let sections = sections(text);
    let peers: Vec<&str> = of(&sections, "peers").map(Section::name).collect();
    let mut extras = Extras { is_proxy: true, ..Extras::default() };
    for section in &sections {
        match section.kind() {
            "frontend" | "backend" | "listen" => {}
            "defaults" => section.lines.iter().for_each(|line| default(line, &mut extras, notes)),
            "peers" => {
                let message = format!("the peers {} are not kept", quote(section.name()));
                notes.not_kept(&section.span(), message, "forwarders do not share their stick tables yet");
            }
            other => {
                let message = format!("the section {} is passed over", quote(other));
                notes.not_kept(
                    &section.span(),
                    message,
                    "only `defaults`, `frontend`, `backend`, `listen` and `peers` are read",
                );
            }
        }
    }
    let mut services: Vec<(usize, Service)> = Vec::new();
    for (number, section) in sections.iter().enumerate() {
        let Some(serving) = serving(section, number, &sections, notes) else { continue };
        let mut binds = Vec::new();
        for line in &section.lines {
            frontend_line(line, section, any, &mut binds, notes);
        }
        let known = services.iter_mut().find(|(place, _)| *place == serving);
        if let Some((_, service)) = known {
            service.binds.append(&mut binds);
            continue;
        }
        let Some(backend) = sections.get(serving) else { continue };
        let mut service = backend_service(backend, &sections, &peers, &mut extras, notes);
        service.binds = binds;
        services.push((serving, service));
    }
    for (number, section) in sections.iter().enumerate().filter(|(_, section)| section.kind() == "backend") {
        if !services.iter().any(|(place, _)| *place == number) {
            let message =
                format!("no `default_backend` leads to {}, and it is left out", quote(section.name()));
            notes.not_kept(&section.span(), message, LAYER_4);
        }
    }
    (services.into_iter().map(|(_, service)| service).collect(), extras)
}

fn of<'s, 't>(sections: &'s [Section<'t>], kind: &'static str) -> impl Iterator<Item = &'s Section<'t>> {
    sections.iter().filter(move |section| section.kind() == kind)
}

/// What begins a section.
const SECTIONS: [&str; 17] = [
    "global",
    "defaults",
    "frontend",
    "backend",
    "listen",
    "peers",
    "resolvers",
    "mailers",
    "userlist",
    "cache",
    "program",
    "http-errors",
    "ring",
    "log-forward",
    "fcgi-app",
    "crt-store",
    "traces",
];

fn sections(text: &str) -> Vec<Section<'_>> {
    let mut all: Vec<Section<'_>> = Vec::new();
    let (mut mode, mut balance) = ("tcp", None);
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let code = line.split('#').next().unwrap_or("");
        let line_words = words(code, offset);
        offset += line.len();
        let Some((_, first)) = line_words.first() else { continue };
        if SECTIONS.contains(first) {
            if *first == "defaults" {
                (mode, balance) = ("tcp", None);
            }
            all.push(Section { head: line_words, lines: Vec::new(), mode, balance });
            continue;
        }
        let number = all.len().saturating_sub(1);
        let Some(section) = all.last_mut() else { continue };
        match line_words.as_slice() {
            [(_, "mode"), (_, own), ..] => {
                section.mode = own;
                if section.kind() == "defaults" {
                    mode = own;
                }
            }
            [(_, "balance"), ..] if section.kind() == "defaults" => balance = Some(number),
            _ => {}
        }
        section.lines.push(line_words);
    }
    all
}

/// A line of `defaults`.
fn default(line: &Line<'_>, extras: &mut Extras, notes: &mut Notes) {
    match line.as_slice() {
        [(_, "mode" | "balance"), ..] => {}
        [(_, "timeout"), (_, "client" | "server"), (_, time), ..] if milliseconds(time).is_some() => {
            // Whichever ends first ended the connection there.
            let time = milliseconds(time).map(|time| time.clamp(10, STICK_SECONDS_MAX * 1_000));
            extras.idle_ms = match (extras.idle_ms, time) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        }
        _ => not_kept(line, notes),
    }
}

fn not_kept(line: &Line<'_>, notes: &mut Notes) {
    let shown: Vec<&str> = line.iter().take(2).map(|(_, word)| *word).collect();
    notes.not_kept(&place(line), format!("{} is not kept", quote(&shown.join(" "))), LAYER_4);
}

/// The number of the section whose servers serve what `section` takes, if it takes anything.
fn serving(
    section: &Section<'_>,
    number: usize,
    sections: &[Section<'_>],
    notes: &mut Notes,
) -> Option<usize> {
    match section.kind() {
        "frontend" => {}
        "listen" if section.last(&["server"]).is_some() => {
            is_http(section, notes);
            return Some(number);
        }
        "listen" => {}
        _ => return None,
    }
    let wanted = section.last(&["default_backend"]);
    let Some((span, wanted)) = wanted.and_then(|line| line.get(1)) else {
        let message = format!("{} leads to no server, and is left out", quote(section.name()));
        notes.not_kept(&section.span(), message, LAYER_4);
        return None;
    };
    let found = sections.iter().position(|other| other.kind() == "backend" && other.name() == *wanted);
    if found.is_none() {
        let near = nearest(wanted, of(sections, "backend").map(Section::name));
        let help = near.map_or_else(|| "write the name of a backend of this file".to_owned(), meant);
        let message =
            format!("there is no backend {}, and {} is left out", quote(wanted), quote(section.name()));
        notes.not_kept(span, message, &help);
        return None;
    }
    is_http(section, notes);
    found
}

fn meant(near: &str) -> String {
    format!("did you mean {}?", quote(near))
}

fn is_http(section: &Section<'_>, notes: &mut Notes) {
    if section.mode != "tcp" {
        let message = format!(
            "{} has mode {}: its connections are kept, not what is in them",
            quote(section.name()),
            quote(section.mode)
        );
        notes.not_kept(&section.span(), message, LAYER_4);
    }
}

/// A line of a frontend, or what a `listen` has of one.
fn frontend_line(
    line: &Line<'_>,
    section: &Section<'_>,
    any: Option<IpAddr>,
    binds: &mut Vec<String>,
    notes: &mut Notes,
) {
    match line.as_slice() {
        [(_, "bind"), (span, places), options @ ..] => {
            for place in places.split(',') {
                match address_of(place, any) {
                    Ok((address, ports)) => binds.push(bind_of(address, ports)),
                    Err(why) => {
                        notes.not_kept(span, format!("{} is not kept: {why}", quote(place)), ANY_HELP)
                    }
                }
            }
            if let Some((span, option)) = options.first() {
                notes.not_kept(span, format!("{} of `bind` is not kept", quote(option)), LAYER_4);
            }
        }
        [(_, "default_backend" | "mode"), ..] => {}
        // What is a backend's, its own lines tell of.
        _ if section.kind() == "listen" => {}
        _ => not_kept(line, notes),
    }
}

const ANY_HELP: &str = "say with `--address` which address clients call, or write `bind` of the director";

/// An address and its ports.
fn address_of(text: &str, any: Option<IpAddr>) -> Result<(IpAddr, (u16, u16)), &'static str> {
    let text = text.strip_prefix("ipv4@").or_else(|| text.strip_prefix("ipv6@")).unwrap_or(text);
    let (address, ports) = text.rsplit_once(':').ok_or("it has no port")?;
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let ports = match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if first <= last && first > 0 => (first, last),
        _ => return Err("it has no port"),
    };
    let address = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    let address = match address.parse() {
        Ok(address) => Some(address).filter(|address: &IpAddr| !address.is_unspecified()),
        Err(_) if address.is_empty() || address == "*" => None,
        Err(_) => return Err("it is no IP address"),
    };
    let address = address.or(any).ok_or("a forwarder has no address of its own that clients call")?;
    Ok((address, ports))
}

fn bind_of(address: IpAddr, (first, last): (u16, u16)) -> String {
    if first == last {
        return bind(address, first, "tcp");
    }
    let single = bind(address, first, "tcp");
    single.replace(&format!(":{first}/tcp"), &format!(":{first}-{last}/tcp"))
}

fn backend_service(
    section: &Section<'_>,
    sections: &[Section<'_>],
    peers: &[&str],
    extras: &mut Extras,
    notes: &mut Notes,
) -> Service {
    let mut service = Service {
        name: section.name().to_owned(),
        span: section.span(),
        way: Some(Way::Nat),
        ..Service::default()
    };
    let inherited = section.balance.and_then(|number| sections.get(number));
    let balance = section.last(&["balance"]).or_else(|| inherited.and_then(|from| from.last(&["balance"])));
    scheduler(balance, section, &mut service, notes);
    let sticks = section.last(&["stick", "on", "src"]).filter(|line| line.len() == 3).is_some();
    for line in &section.lines {
        match line.as_slice() {
            [(_, "balance" | "hash-type" | "mode" | "bind" | "default_backend"), ..] => {}
            [(_, "stick"), (_, "on"), (_, "src")] => {}
            [(_, "stick-table"), options @ ..] => {
                stick_table(line, options, (sticks, peers), &mut service, extras, notes);
            }
            [(_, "server"), (_, name), (at, address), options @ ..] => {
                let found = server(line, name, (at, address), options, notes);
                if let Some(server) = found {
                    let agents = agents(options, notes);
                    let agent_port = agents.as_ref().map(|agents| agents.port);
                    share_agents(&mut service, agents, line, notes);
                    service.servers.push(Server { agent_port, ..server });
                }
            }
            _ => not_kept(line, notes),
        }
    }
    if sticks && service.persistence_seconds.is_none() {
        let message = "`stick on src` is not kept: the backend has no `stick-table` of addresses".to_owned();
        notes.not_kept(&section.span(), message, "write `persistence = \"8h\"` in the director");
    }
    service
}

/// Who chooses the server.
fn scheduler(balance: Option<&Line<'_>>, section: &Section<'_>, service: &mut Service, notes: &mut Notes) {
    let words: Vec<&str> = balance.into_iter().flatten().skip(1).map(|(_, word)| *word).collect();
    let named = words.first().copied().unwrap_or("roundrobin");
    let (name, rest) = match named.split_once('(') {
        Some((name, rest)) => (name, rest.trim_end_matches(')')),
        None => (named, ""),
    };
    service.scheduler = match name {
        // Smooth, by weights that may change: what `swrr` is.
        "roundrobin" => "swrr",
        "static-rr" | "leastconn" | "first" | "source" | "random" => name,
        _ => {
            let message = format!("`balance {named}` is not kept; `swrr` takes its place");
            notes.not_kept(&balance.map_or(0..0, place), message, LAYER_4);
            "swrr"
        }
    }
    .to_owned();
    if name == "random" && (1..=16).contains(&rest.parse::<u32>().unwrap_or(0)) {
        service.options.push(("choices", rest.to_owned()));
    }
    let Some(line) = section.last(&["hash-type"]) else { return };
    let is_kept = name == "source" && line.get(1).is_some_and(|(_, word)| *word == "consistent");
    if is_kept {
        service.options.push(("hash_type", "\"consistent\"".to_owned()));
    }
    let rest = line.get(if is_kept { 2 } else { 1 }).filter(|(_, word)| is_kept || *word != "map-based");
    if rest.is_some() {
        not_kept(line, notes);
    }
}

fn stick_table(
    line: &Line<'_>,
    options: &[(Range<usize>, &str)],
    (sticks, peers): (bool, &[&str]),
    service: &mut Service,
    extras: &mut Extras,
    notes: &mut Notes,
) {
    let mut seconds = STICK_SECONDS_MAX;
    let mut is_of_addresses = false;
    let mut options = options.iter();
    while let Some((span, option)) = options.next() {
        match *option {
            "type" => {
                is_of_addresses = options.next().is_some_and(|(_, kind)| ["ip", "ipv6"].contains(kind));
            }
            "size" => {
                let entries = options.next().and_then(|(_, size)| entries(size)).unwrap_or(0);
                extras.persistent = extras.persistent.saturating_add(entries);
            }
            "expire" => {
                let time = options.next().and_then(|(_, time)| milliseconds(time)).unwrap_or(0);
                seconds = (time / 1_000).clamp(1, STICK_SECONDS_MAX);
            }
            "peers" => {
                let Some((span, wanted)) = options.next() else { continue };
                peers_of(span, wanted, peers, notes);
            }
            "nopurge" => {}
            other => {
                let message = format!("{} of a stick table is not kept", quote(other));
                notes.not_kept(span, message, "a client and its real server are what is remembered");
                options.next();
            }
        }
    }
    if sticks && is_of_addresses {
        service.persistence_seconds = u32::try_from(seconds).ok();
    } else {
        notes.not_kept(
            &place(line),
            "the stick table is not kept: nothing sticks on `src` by it".to_owned(),
            LAYER_4,
        );
    }
}

fn peers_of(span: &Range<usize>, wanted: &str, peers: &[&str], notes: &mut Notes) {
    if peers.contains(&wanted) {
        return;
    }
    let near = nearest(wanted, peers.iter().copied()).or(match peers {
        [one] => Some(one),
        _ => None,
    });
    let help = near.map_or_else(|| "write a section `peers` of this name".to_owned(), meant);
    notes.not_kept(span, format!("there is no section `peers {wanted}`: HAProxy does not start so"), &help);
}

fn server(
    line: &Line<'_>,
    name: &str,
    (at, address): (&Range<usize>, &str),
    options: &[(Range<usize>, &str)],
    notes: &mut Notes,
) -> Option<Server> {
    let found = server_address(address);
    let Some((address, port)) = found else {
        let message =
            format!("{} is no IP address, and the real server {} is left out", quote(address), quote(name));
        notes.not_kept(at, message, "write the address that the name has");
        return None;
    };
    let mut server = Server { name: Some(name.to_owned()), ..Server::at(address, port) };
    let (mut is_checked, mut is_backup) = (None, false);
    let mut options = options.iter();
    while let Some((span, option)) = options.next() {
        let value = if VALUED.contains(option) { options.next().map(|(_, value)| *value) } else { None };
        let number = value.and_then(|value| value.parse().ok());
        match (*option, number) {
            ("weight", Some(weight)) => server.weight = weight,
            ("maxconn", Some(most)) => {
                server.upper = most;
                let message =
                    "above `maxconn` clients do not wait: other real servers are given to them".to_owned();
                notes.not_kept(span, message, "packets cannot wait for a real server");
            }
            ("disabled", _) => server.weight = 0,
            // Beside the rest, in `agents`.
            (
                "id" | "enabled" | "agent-check" | "agent-port" | "agent-inter" | "agent-send" | "agent-addr",
                _,
            ) => {}
            ("backup", _) => is_backup = true,
            (check, _) if OF_CHECKS.contains(&check) => is_checked = is_checked.or(Some(span)),
            (other, _) => {
                notes.not_kept(span, format!("{} of a real server is not kept", quote(other)), LAYER_4);
            }
        }
    }
    if let Some(span) = is_checked {
        notes.not_kept(span, format!("the checks of {} are not kept", quote(name)), CHECKS);
    }
    if is_backup {
        let message = format!("the real server {} is left out: `backup` is not kept", quote(name));
        notes.not_kept(&place(line), message, CHECKS);
        return None;
    }
    Some(server)
}

/// How often an agent is asked where the file does not say, in milliseconds.
const AGENT_INTERVAL_DEFAULT: u64 = 2_000;

/// How the agent of a server is asked, where it is.
fn agents(options: &[(Range<usize>, &str)], notes: &mut Notes) -> Option<Agents> {
    options
        .iter()
        .rfind(|(_, word)| ["agent-check", "no-agent-check"].contains(word))
        .filter(|(_, word)| *word == "agent-check")?;
    let mut agents = Agents { port: 0, interval_ms: AGENT_INTERVAL_DEFAULT, send: String::new() };
    for pair in options.windows(2) {
        let [(_, option), (span, value)] = pair else { continue };
        match *option {
            "agent-port" => agents.port = value.parse().unwrap_or(0),
            // What an agent may be asked here: from 50 ms to an hour.
            "agent-inter" => {
                agents.interval_ms =
                    milliseconds(value).unwrap_or(AGENT_INTERVAL_DEFAULT).clamp(50, 3_600_000);
            }
            "agent-send" => match unquoted(value) {
                Some(text) => agents.send = text,
                None => {
                    let message = format!("{} is not kept: its end is not here", quote(value));
                    notes.not_kept(span, message, "write `send` in the director's `agent_check`");
                }
            },
            "agent-addr" => {
                let message = "`agent-addr` is not kept: agents are asked at their real server".to_owned();
                notes.not_kept(span, message, "let the agent listen at the real server's address");
            }
            _ => {}
        }
    }
    Some(agents).filter(|agents| agents.port > 0)
}

/// A word as HAProxy reads it: without its quotes, `\n` and the like as what they stand for. None when its quotes are open,
/// since there was a blank in them.
fn unquoted(word: &str) -> Option<String> {
    let inner = match word.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"')?,
        None => word,
    };
    if let Some(rest) = inner.strip_prefix('\'') {
        return rest.strip_suffix('\'').map(str::to_owned);
    }
    let mut text = String::new();
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        text.push(match letter {
            '\\' => match letters.next()? {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                other => other,
            },
            other => other,
        });
    }
    Some(text)
}

/// A director asks all its agents alike, but for their ports: as the first one.
fn share_agents(service: &mut Service, agents: Option<Agents>, line: &Line<'_>, notes: &mut Notes) {
    let Some(agents) = agents else { return };
    let Some(first) = &service.agents else {
        service.agents = Some(agents);
        return;
    };
    if (first.interval_ms, &first.send) != (agents.interval_ms, &agents.send) {
        let message = "another `agent-inter` or `agent-send` than the first is not kept".to_owned();
        notes.not_kept(&place(line), message, "a director asks all its agents alike; make it two directors");
    }
}

/// A server's address, and its port, which is 0 where it is that of the client.
fn server_address(text: &str) -> Option<(IpAddr, u16)> {
    let text = text.strip_prefix("ipv4@").or_else(|| text.strip_prefix("ipv6@")).unwrap_or(text);
    if let Ok(address) = text.parse() {
        return Some((address, 0));
    }
    let (address, port) = text.rsplit_once(':')?;
    let address = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    Some((address.parse().ok()?, port.parse().ok()?))
}

/// A time as HAProxy writes it; without a unit, milliseconds.
fn milliseconds(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    match unit {
        "us" => Some(number / 1_000),
        "" | "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        "d" => number.checked_mul(86_400_000),
        _ => None,
    }
}

/// A number of entries as HAProxy writes it.
fn entries(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    match unit {
        "" => Some(number),
        "k" => number.checked_mul(1 << 10),
        "m" => number.checked_mul(1 << 20),
        "g" => number.checked_mul(1 << 30),
        _ => None,
    }
}

fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|one: char| !one.is_ascii_digit()).unwrap_or(text.len());
    Some((text.get(..end)?.parse().ok()?, text.get(end..)?))
}
