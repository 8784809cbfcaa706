//! What a trace shows: flows by one of their ends, and machines by name.
//!
//! A flow is followed through the forwarder: the ends that its packets have on the other side belong to it as well.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::str::FromStr;

use evenkeel_engine::wire::{FiveTuple, Protocol};

use crate::scenario::Scenario;

/// Wishes of one filter; more than fit a command line that a person writes.
const WISHES_MAX: usize = 64;
/// Five-tuples that are followed: those of that many flows in four forms each are known at a time.
const FOLLOWED_MAX: usize = 1 << 16;

/// What is shown; nothing said is everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    flows: Vec<FlowEnd>,
    machines: Vec<String>,
    /// The five-tuples of flows that are shown, each in the order of its ends.
    followed: BTreeSet<FiveTuple>,
}

/// One end of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FlowEnd {
    protocol: Option<Protocol>,
    address: IpAddr,
    port: Option<u16>,
}

impl FlowEnd {
    fn fits(&self, tuple: &FiveTuple) -> bool {
        let is_end = |address: IpAddr, port: u16| {
            address == self.address && self.port.is_none_or(|wanted| wanted == port)
        };
        self.protocol.is_none_or(|protocol| protocol == tuple.protocol)
            && (is_end(tuple.source.into(), tuple.source_port)
                || is_end(tuple.destination.into(), tuple.destination_port))
    }
}

impl Filter {
    /// Whether every machine of it is in the scenario.
    ///
    /// # Errors
    /// When one is not; the text names it and those that there are.
    pub fn check(&self, scenario: &Scenario) -> Result<(), String> {
        let names: Vec<&str> =
            (0..scenario.machine_count()).filter_map(|it| scenario.machine(it)).map(|it| it.0).collect();
        let is_unknown = |wish: &&String| !names.iter().any(|name| is_named(wish, name));
        match self.machines.iter().find(is_unknown) {
            Some(wish) => Err(format!("there is no machine {wish:?}; there are: {}", names.join(", "))),
            None => Ok(()),
        }
    }

    /// Whether something at this machine, or about these five-tuples, is shown.
    pub(super) fn shows(&self, machine: &str, tuples: &[FiveTuple]) -> bool {
        let is_everything = self.flows.is_empty() && self.machines.is_empty();
        is_everything || self.shows_machine(machine) || tuples.iter().any(|tuple| self.shows_flow(tuple))
    }

    /// Whether what happens on a machine is shown whatever it is about.
    pub(super) fn shows_machine(&self, name: &str) -> bool {
        self.machines.iter().any(|wish| is_named(wish, name))
    }

    fn shows_flow(&self, tuple: &FiveTuple) -> bool {
        self.flows.iter().any(|flow| flow.fits(tuple)) || self.followed.contains(&ordered(*tuple))
    }

    /// A forwarder has made `after` of `before`: where the one is shown the other is from now on.
    pub(super) fn follow(&mut self, before: &[FiveTuple], after: &[FiveTuple]) {
        if self.followed.len() < FOLLOWED_MAX && before.iter().any(|tuple| self.shows_flow(tuple)) {
            self.followed.extend(after.iter().copied().map(ordered));
        }
    }
}

/// Whether a name is meant: the name itself, or its beginning with `*` behind.
fn is_named(wish: &str, name: &str) -> bool {
    wish.strip_suffix('*').map_or(wish == name, |start| name.starts_with(start))
}

/// A tuple in the one of its two directions that comes first.
fn ordered(tuple: FiveTuple) -> FiveTuple {
    tuple.min(tuple.reversed())
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut filter = Self::default();
        for wish in text.split(',').filter(|wish| !wish.is_empty()) {
            match wish.split_once('=') {
                Some(("flow", end)) => filter.flows.push(flow(end)?),
                Some(("host" | "forwarder" | "router" | "machine", name)) if !name.is_empty() => {
                    filter.machines.push(name.to_owned());
                }
                _ => {
                    return Err(format!(
                        "{wish:?}: write flow=tcp/198.51.100.7:4242, host=NAME, forwarder=NAME or router=NAME"
                    ));
                }
            }
        }
        if filter.flows.len() + filter.machines.len() > WISHES_MAX {
            return Err(format!("at most {WISHES_MAX} at a time"));
        }
        Ok(filter)
    }
}

/// `tcp/198.51.100.7:4242`, `[2001:db8::1]:80`, `10.0.0.3`: protocol and port may be left out.
fn flow(text: &str) -> Result<FlowEnd, String> {
    let (protocol, end) = match text.split_once('/') {
        None => (None, text),
        Some(("tcp", end)) => (Some(Protocol::TCP), end),
        Some(("udp", end)) => (Some(Protocol::UDP), end),
        Some((other, _)) => return Err(format!("{other:?} is no protocol of flows: tcp or udp")),
    };
    if let Ok(end) = end.parse::<std::net::SocketAddr>() {
        return Ok(FlowEnd { protocol, address: end.ip(), port: Some(end.port()) });
    }
    let bare = end.strip_prefix('[').and_then(|end| end.strip_suffix(']')).unwrap_or(end);
    let address = bare
        .parse()
        .map_err(|_| format!("{end:?} is no end of a flow: ADDRESS:PORT, [ADDRESS]:PORT or ADDRESS"))?;
    Ok(FlowEnd { protocol, address, port: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(source: &str, port: u16) -> FiveTuple {
        FiveTuple {
            source: source.parse::<IpAddr>().unwrap().into(),
            destination: "10.0.0.3".parse::<IpAddr>().unwrap().into(),
            source_port: port,
            destination_port: 80,
            protocol: Protocol::TCP,
        }
    }

    #[test]
    fn a_flow_is_meant_by_either_end_and_followed_behind_the_forwarder() {
        let mut filter: Filter = "flow=tcp/198.51.100.7:4242".parse().unwrap();
        let [mine, other] = [tuple("198.51.100.7", 4_242), tuple("198.51.100.7", 4_243)];
        assert!(filter.shows("x", &[mine]) && filter.shows("x", &[mine.reversed()]));
        assert!(!filter.shows("x", &[other]));
        let [inside, foreign] = [tuple("10.9.9.9", 1), tuple("10.9.9.9", 2)];
        filter.follow(&[other], &[foreign]);
        filter.follow(&[mine], &[inside]);
        assert!(filter.shows("x", &[inside.reversed()]) && !filter.shows("x", &[foreign]));
    }

    #[test]
    fn several_wishes_are_shown_together() {
        let filter: Filter = "host=client*,forwarder=lb,flow=[2001:db8::1]:80".parse().unwrap();
        assert!(filter.shows("client.3", &[]) && filter.shows("lb", &[]) && !filter.shows("server", &[]));
        let everything = Filter::default();
        assert!(everything.shows("server", &[]));
        assert_eq!("".parse::<Filter>(), Ok(everything));
    }

    #[test]
    fn what_is_no_wish_is_named() {
        let refused = |text: &str| text.parse::<Filter>().unwrap_err();
        assert!(refused("flow=sctp/1.2.3.4:1").contains("\"sctp\" is no protocol"));
        assert!(refused("flow=tcp/1.2.3:1").contains("\"1.2.3:1\" is no end of a flow"));
        assert!(refused("lb").contains("write flow="));
        assert!(refused("host=").contains("\"host=\""));
    }
}
