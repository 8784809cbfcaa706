//! Why a flow broke, by what was seen of it on the wires and what happened to the machines that it passed.
//!
//! The causes are asked in this order; the first that fits is named. What nobody could have kept comes first.

use evenkeel_engine::{Duration, Instant};
use serde::Serialize;

use super::calls::{Call, Whom};
use super::names::Names;
use crate::host::Cause;

/// Why a flow broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakCause {
    /// The client has stopped, or had no port.
    Client,
    /// The real server was away.
    ServerGone,
    /// The forwarder was away, or has begun anew.
    ForwarderGone,
    /// Its packets came to another forwarder than before.
    ForwarderMoved,
    /// A component of the forwarder failed on it.
    PluginFault,
    /// The forwarder has forgotten it: its table was full, or it was silent for too long.
    Evicted,
    /// The same forwarder sent it to another real server than before.
    TableMoved,
    /// Its answers take another way than its requests, and end there.
    AsymmetricPath,
    /// A rule of the forwarder denies it.
    Denied,
    /// Its requests reached the forwarder, and no real server.
    Unserved,
    /// Nothing of all this was seen.
    Unexplained,
}

impl BreakCause {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Client,
        Self::ServerGone,
        Self::ForwarderGone,
        Self::ForwarderMoved,
        Self::PluginFault,
        Self::Evicted,
        Self::TableMoved,
        Self::AsymmetricPath,
        Self::Denied,
        Self::Unserved,
        Self::Unexplained,
    ];

    /// Its name in reports.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::ServerGone => "server_gone",
            Self::ForwarderGone => "forwarder_gone",
            Self::ForwarderMoved => "forwarder_moved",
            Self::PluginFault => "plugin_fault",
            Self::Evicted => "evicted",
            Self::TableMoved => "table_moved",
            Self::AsymmetricPath => "asymmetric_path",
            Self::Denied => "denied",
            Self::Unserved => "unserved",
            Self::Unexplained => "unexplained",
        }
    }

    /// Whether no load balancer could have kept the flow.
    #[must_use]
    pub const fn is_unavoidable(self) -> bool {
        match self {
            Self::Client | Self::ServerGone => true,
            Self::ForwarderGone
            | Self::ForwarderMoved
            | Self::PluginFault
            | Self::Evicted
            | Self::TableMoved
            | Self::AsymmetricPath
            | Self::Denied
            | Self::Unserved
            | Self::Unexplained => false,
        }
    }
}

/// What has happened to a forwarder, and when for the last time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct History {
    /// A component failed.
    pub(crate) fault: Option<Instant>,
    /// It threw a flow out of its table, or had no room for one.
    pub(crate) eviction: Option<Instant>,
    /// It began anew.
    pub(crate) restart: Option<Instant>,
    /// The least time that it keeps a silent flow of TCP that carries data, and one of UDP.
    pub(crate) patience: [Duration; 2],
}

/// What the world knows of a machine.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Witness {
    /// It was away since the flow was opened.
    pub(crate) was_away: bool,
    /// For a forwarder.
    pub(crate) history: History,
}

/// Why a flow broke that its client saw end in this way.
pub(super) fn blame(
    call: Option<&Call>,
    (seen, is_tcp): (Cause, bool),
    client: usize,
    names: &Names,
    witness: &dyn Fn(usize) -> Witness,
) -> BreakCause {
    if matches!(seen, Cause::ClientGone | Cause::NoPort) || witness(client).was_away {
        return BreakCause::Client;
    }
    let Some(call) = call else { return BreakCause::Unexplained };
    if call.server.get().is_some_and(|server| witness(server).was_away) {
        return BreakCause::ServerGone;
    }
    if call.forwarder_moved.is_some() {
        return BreakCause::ForwarderMoved;
    }
    let since = |at: Option<Instant>| at.is_some_and(|at| at >= call.opened);
    let is_changed = call.server_moved.is_some() || seen == Cause::ServerChanged;
    if let Some(forwarder) = call.forwarder.get() {
        let Witness { was_away, history } = witness(forwarder);
        if was_away || since(history.restart) {
            return BreakCause::ForwarderGone;
        }
        if since(history.fault) && (is_changed || call.server == Whom::NOBODY) {
            return BreakCause::PluginFault;
        }
        let [tcp, udp] = history.patience;
        let patience = if is_tcp { tcp } else { udp };
        let is_expired = patience > Duration::ZERO && call.silence() >= patience;
        if since(history.eviction) || is_expired {
            return BreakCause::Evicted;
        }
    }
    if is_changed {
        return BreakCause::TableMoved;
    }
    let strays = |at: usize| at != client && !call.way().any(|it| it == at) && !names.is_forwarder(at);
    if call.is_foreign || call.server != Whom::NOBODY && call.answers_at.get().is_some_and(strays) {
        return BreakCause::AsymmetricPath;
    }
    match (call.forwarder_since(), call.server.get(), &call.denied) {
        (Some(_), None, Some(_)) => BreakCause::Denied,
        (Some(_), None, None) => BreakCause::Unserved,
        (None, _, _) | (_, Some(_), _) => BreakCause::Unexplained,
    }
}

/// The cause in a sentence; none for what nobody could have kept, and for what says nothing.
pub(super) fn sentence(cause: BreakCause, call: Option<&Call>, names: &Names) -> Option<String> {
    let call = call?;
    let called = call.called.address;
    let forwarder = call.forwarder.get().map_or("the forwarder", |forwarder| names.of(forwarder));
    Some(match cause {
        BreakCause::Client | BreakCause::ServerGone | BreakCause::Denied | BreakCause::Unexplained => {
            return None;
        }
        BreakCause::Unserved => {
            format!("requests to {called} reach {forwarder}, and none of them a real server")
        }
        BreakCause::ForwarderGone => {
            format!("flows to {called} broke because {forwarder} was away, and with it what it knew of them")
        }
        BreakCause::ForwarderMoved => {
            let (from, to) = call.forwarder_moved?;
            format!(
                "flows to {called} broke because their packets came to {} and then to {}, which does not know them: \
                 use a scheduler that picks by a hash, or a route that keeps flows where they are",
                names.of(from),
                names.of(to)
            )
        }
        BreakCause::PluginFault => {
            format!("flows to {called} broke because a component of {forwarder} failed on them")
        }
        BreakCause::Evicted => format!(
            "flows to {called} broke because {forwarder} had forgotten them: its flow table was full, or they were \
             silent for longer than its timeouts"
        ),
        BreakCause::TableMoved => match call.server_moved {
            Some((from, to)) => format!(
                "flows to {called} broke because {forwarder} sent them to {} and then to {}",
                names.of(from),
                names.of(to)
            ),
            None => format!("flows to {called} broke because {forwarder} sent them to another real server"),
        },
        // Whose answers come is told when they do.
        BreakCause::AsymmetricPath if call.is_foreign => return None,
        BreakCause::AsymmetricPath => {
            let at = call.answers_at.get().map_or("somebody", |at| names.of(at));
            let way: Vec<&str> = call.way().map(|machine| names.of(machine)).collect();
            format!(
                "requests to {called} go by {}, and answers were last seen at {at}: the path is asymmetric; give \
                 answers a route back by the way of requests, or look at rp_filter of {at}",
                way.join(", ")
            )
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::calls::{Calls, Mark};
    use crate::packet::{AnyEnd, End};
    use evenkeel_engine::wire::Protocol;

    const CLIENT: usize = 0;
    const SERVER: usize = 1;
    const OTHER: usize = 2;
    const ROUTER: usize = 3;
    const FORWARDER: usize = 4;
    const SECOND: usize = 5;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO.after(Duration::from_secs(seconds))
    }

    fn names() -> Names {
        let mut names = Names::default();
        for (number, name) in ["client", "server.0", "server.1", "edge", "lb-a", "lb-b"].iter().enumerate() {
            names.machine(name, number < 3);
            names.station_of(number, [2, 0, 0, 0, 0, u8::try_from(number).unwrap()], number >= FORWARDER);
        }
        names
    }

    /// A flow that was opened after ten seconds and went its way.
    fn call(change: impl FnOnce(&mut Call)) -> Call {
        let end = |last, port| -> AnyEnd { End { address: [10, 0, 0, last].into(), port } };
        let key = (Protocol::TCP, end(1, 40_000));
        let mut calls = Calls::default();
        calls.start(at(10), key, end(3, 80), Some(Mark::Number(1)));
        let call = calls.get_mut(&key).unwrap();
        call.pass(FORWARDER);
        call.reach_forwarder(at(10), FORWARDER);
        call.reach_server(SERVER, true);
        change(call);
        call.clone()
    }

    fn judged(
        change: impl FnOnce(&mut Call),
        seen: Cause,
        who: usize,
        witness: Witness,
    ) -> (BreakCause, Option<String>) {
        let (call, names) = (call(change), names());
        let witness = |machine: usize| if machine == who { witness } else { Witness::default() };
        let cause = blame(Some(&call), (seen, true), CLIENT, &names, &witness);
        (cause, sentence(cause, Some(&call), &names))
    }

    #[test]
    fn each_cause_is_found_where_it_happened() {
        let none = Witness::default();
        let away = Witness { was_away: true, ..none };
        let with = |history| Witness { history, ..none };
        let (before, later) = (Some(at(9)), Some(at(11)));
        let quiet = |_: &mut Call| {};
        let moved = |call: &mut Call| {
            call.reach_server(OTHER, false);
        };
        let cause = |change: &dyn Fn(&mut Call), seen, who, witness| judged(change, seen, who, witness).0;
        assert_eq!(cause(&quiet, Cause::NoPort, CLIENT, none), BreakCause::Client);
        assert_eq!(cause(&quiet, Cause::TimedOut, CLIENT, away), BreakCause::Client);
        assert_eq!(cause(&quiet, Cause::TimedOut, SERVER, away), BreakCause::ServerGone);
        assert_eq!(cause(&quiet, Cause::TimedOut, OTHER, away), BreakCause::Unexplained, "not its own");
        assert_eq!(cause(&quiet, Cause::Reset, FORWARDER, away), BreakCause::ForwarderGone);
        let restart = with(History { restart: later, ..History::default() });
        assert_eq!(cause(&quiet, Cause::Reset, FORWARDER, restart), BreakCause::ForwarderGone);
        assert_eq!(
            cause(&|call| call.forwarder_moved = Some((FORWARDER, SECOND)), Cause::Reset, FORWARDER, none),
            BreakCause::ForwarderMoved
        );
        let fault = with(History { fault: later, ..History::default() });
        assert_eq!(cause(&moved, Cause::Reset, FORWARDER, fault), BreakCause::PluginFault);
        assert_eq!(cause(&quiet, Cause::Reset, FORWARDER, fault), BreakCause::Unexplained, "not on it");
        let old = with(History { fault: before, restart: before, eviction: before, ..History::default() });
        assert_eq!(cause(&moved, Cause::Reset, FORWARDER, old), BreakCause::TableMoved);
        let eviction = with(History { eviction: later, ..History::default() });
        assert_eq!(cause(&quiet, Cause::Reset, FORWARDER, eviction), BreakCause::Evicted);
        let patience = [Duration::from_secs(900), Duration::from_secs(300)];
        let patient = with(History { patience, ..History::default() });
        let silent = |call: &mut Call| call.touch(at(910));
        assert_eq!(cause(&silent, Cause::Reset, FORWARDER, patient), BreakCause::Evicted);
        assert_eq!(
            cause(&|call| call.touch(at(909)), Cause::Reset, FORWARDER, patient),
            BreakCause::Unexplained
        );
        assert_eq!(cause(&quiet, Cause::ServerChanged, FORWARDER, none), BreakCause::TableMoved);
        let strays = |call: &mut Call| call.answers_at = Whom::machine(ROUTER);
        assert_eq!(cause(&strays, Cause::TimedOut, FORWARDER, none), BreakCause::AsymmetricPath);
        assert_eq!(
            cause(&|call| call.is_foreign = true, Cause::Reset, CLIENT, none),
            BreakCause::AsymmetricPath
        );
        let unserved = |call: &mut Call| call.server = Whom::NOBODY;
        assert_eq!(cause(&unserved, Cause::TimedOut, FORWARDER, none), BreakCause::Unserved);
        let denied = |call: &mut Call| (call.server, call.denied) = (Whom::NOBODY, Some("bad".into()));
        assert_eq!(cause(&denied, Cause::TimedOut, FORWARDER, none), BreakCause::Denied);
        assert_eq!(
            blame(None, (Cause::Reset, true), CLIENT, &names(), &|_| none),
            BreakCause::Unexplained,
            "nobody saw it"
        );
    }

    #[test]
    fn a_sentence_names_the_machines_and_what_to_do() {
        let none = Witness::default();
        let strays = judged(|call| call.answers_at = Whom::machine(ROUTER), Cause::TimedOut, CLIENT, none);
        assert_eq!(
            strays.1.unwrap(),
            "requests to 10.0.0.3 go by lb-a, and answers were last seen at edge: the path is asymmetric; give answers \
             a route back by the way of requests, or look at rp_filter of edge"
        );
        let moved = judged(
            |call| {
                call.reach_server(OTHER, false);
            },
            Cause::Reset,
            CLIENT,
            none,
        );
        assert_eq!(
            moved.1.unwrap(),
            "flows to 10.0.0.3 broke because lb-a sent them to server.0 and then to server.1"
        );
        let gone = Witness { was_away: true, ..none };
        assert_eq!(judged(|_| {}, Cause::TimedOut, SERVER, gone).1, None, "nobody could have kept it");
    }

    #[test]
    fn every_cause_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<&str> =
            BreakCause::ALL.iter().map(|cause| cause.key()).collect();
        assert_eq!(names.len(), BreakCause::ALL.len());
    }
}
