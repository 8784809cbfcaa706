//! What agents have said of their servers, and when each is asked next.
//!
//! ```text
//! due --(time, and room)--> open, to be fetched by the driver --(answer, or too late)--> due
//! ```
//!
//! One question to an agent is open at a time, and a bounded number to all. The questions of a director are spread evenly over its
//! interval, so that servers are not asked all at once.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::string::{String, ToString};

use super::{Director, Directors, Server, ServerLoad, ServerView};
use crate::agent::{
    AgentCheck, AgentHealth, AgentMode, AgentReply, AgentWeight, Said, first_line, parse, shown,
};
use crate::time::{Duration, Instant};

/// The most questions that are open: each is a socket of the driver, and a process has 1,024 of them where nobody asks for more.
/// Where more servers than this hang, the others are asked less often: each place is free again after a timeout.
pub const AGENT_CHECKS_MAX: usize = 256;

/// What an agent has said of its server, and how its questions went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agent {
    /// The weight that it asked for last.
    pub weight: Option<AgentWeight>,
    /// The most flows that it asked for last; 0 for no bound.
    pub flows_max: Option<u32>,
    /// What it would have done with its server.
    pub mode: AgentMode,
    /// Why its server does not work; nothing while it does.
    pub down: Option<String>,
    /// What it said last, and when.
    pub last: Option<(Instant, String)>,
    /// Questions to it.
    pub checks: u64,
    /// Questions that it has answered.
    pub answers: u64,
    /// Questions that it has not: no connection, no answer in time, or none that can be read.
    pub failures: u64,
    /// Words of its answers that mean nothing.
    pub bad_words: u64,
    /// The number of the open question.
    open: Option<u64>,
    due: Instant,
    /// Until when the answer to the open question counts.
    until: Instant,
}

impl Agent {
    fn due_at(due: Instant) -> Self {
        Self { due, ..Self::default() }
    }

    /// Whether it lets its server have no new flow at all.
    #[must_use]
    pub const fn is_out(&self) -> bool {
        self.down.is_some() || matches!(self.mode, AgentMode::Maint)
    }

    /// What it leaves of the operator's weight.
    #[must_use]
    pub fn weight_of(&self, weight: u32) -> u32 {
        match (self.mode, self.weight) {
            (AgentMode::Drain, _) => 0,
            (AgentMode::Ready | AgentMode::Maint, Some(own)) => own.of(weight),
            (AgentMode::Ready | AgentMode::Maint, None) => weight,
        }
    }

    /// One that makes of a server with `load` what `view` shows, where the plan with its bound of `upper` flows does not: down, for no
    /// reason that is known, or with another bound.
    pub(super) fn recalled(view: &ServerView, load: &ServerLoad, upper: u32) -> Option<Self> {
        let flows = load.active.saturating_add(load.inactive);
        let down = (!view.is_up && !view.is_full).then(String::new);
        let flows_max = match view.is_full {
            true => Some(flows.max(1)),
            false if upper > 0 && flows >= upper => Some(0),
            false => None,
        };
        (down.is_some() || flows_max.is_some()).then(|| Self { down, flows_max, ..Self::default() })
    }

    fn take(&mut self, said: Said) {
        self.bad_words += u64::from(said.bad_words);
        self.weight = said.weight.or(self.weight);
        self.flows_max = said.flows_max.or(self.flows_max);
        self.mode = said.mode.unwrap_or(self.mode);
        match said.health {
            Some(AgentHealth::Up) => self.down = None,
            Some(AgentHealth::Down(reason)) => self.down = Some(reason),
            None => {}
        }
    }

    /// Its server's state in a word or two, for events: `ready`, `drain`, `down: disk is full`.
    fn state(&self) -> String {
        match &self.down {
            Some(reason) if self.mode == AgentMode::Ready => alloc::format!("down: {reason}"),
            Some(reason) => alloc::format!("{}, down: {reason}", self.mode.name()),
            None => self.mode.name().to_string(),
        }
    }

    /// The question is over. The next one is an interval after this one was due, or now where that has passed already.
    fn settle(&mut self, interval: Duration, now: Instant) {
        self.open = None;
        self.due = self.due.after(interval).max(now);
    }
}

/// What came of an answer to an open question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Whether it has a line that can be read.
    pub is_answer: bool,
    /// Words of it that mean nothing.
    pub bad_words: u32,
    /// What has changed for new flows, apart from weights.
    pub news: Option<News>,
}

/// A server whose agent has changed its state, and to what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// The director.
    pub director: String,
    /// The real server.
    pub server: String,
    /// As in [`Event::AgentChanged`](crate::Event::AgentChanged).
    pub state: String,
}

/// An agent: the places of its director and its server.
type Place = (u16, u16);

/// Which agent is asked when. It holds what the agents themselves hold, in order.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    due: BTreeSet<(Instant, Place)>,
    /// Open questions, by when they are given up.
    open: BTreeSet<(Instant, Place)>,
    /// Those among them that the driver has not fetched yet.
    ready: VecDeque<(Place, u64)>,
    /// Questions ever asked.
    asked: u64,
}

impl Agenda {
    /// When there is something to do next.
    pub(super) fn next(&self) -> Option<Instant> {
        let due = self.due.first().filter(|_| self.open.len() < AGENT_CHECKS_MAX);
        let all = [due, self.open.first()];
        all.into_iter().flatten().map(|(at, _)| *at).min()
    }
}

impl Server {
    /// What its agent leaves of its weight.
    #[must_use]
    pub fn effective_weight(&self) -> u32 {
        self.agent.as_ref().map_or(self.weight, |agent| agent.weight_of(self.weight))
    }
}

impl Director {
    /// Has agents be asked as its plan says. An agent that stays keeps what it has said; who is new is asked first within the
    /// interval, at a time of its own.
    pub(super) fn set_agents(&mut self, now: Instant) {
        self.forget_agents(false);
        let plan = self.agent_check.clone();
        let count = u32::try_from(self.slots().len()).unwrap_or(u32::MAX).max(1);
        for (slot, number) in self.slots().to_vec().into_iter().zip(0_u32..) {
            let Some(server) = self.server_mut(slot) else { continue };
            let Some(plan) = plan.as_ref().filter(|plan| plan.port_of(server.agent_port).is_some()) else {
                server.agent = None;
                continue;
            };
            let agent = server.agent.get_or_insert_with(|| {
                // An interval is at most an hour, so that its product with a place fits.
                Agent::due_at(now.after(plan.interval / count * number)).into()
            });
            agent.due = agent.due.min(now.after(plan.interval));
        }
    }

    /// The agent of the server at `slot`, where the plan has it asked.
    fn agent_at(&mut self, slot: u16) -> Option<&mut Agent> {
        let is_removed = self.is_removed;
        let server = self.server_mut(slot).filter(|server| server.view.is_some() && !is_removed)?;
        server.agent.as_deref_mut()
    }

    /// Asks the agent of the server at `slot`: question number `number`. Until when the answer counts.
    fn ask_agent(&mut self, slot: u16, number: u64, now: Instant) -> Option<Instant> {
        let until = now.after(self.agent_check.as_ref()?.timeout);
        let agent = self.agent_at(slot)?;
        (agent.open, agent.until) = (Some(number), until);
        agent.checks += 1;
        Some(until)
    }

    /// The open question `number` to the agent of the server at `slot`.
    fn agent_check(&self, place: u16, slot: u16, number: u64) -> Option<AgentCheck> {
        let plan = self.agent_check.as_ref()?;
        let server = self.server(slot)?;
        server.agent.as_ref().filter(|agent| agent.open == Some(number))?;
        let (_, id) = self.identity(server.view?)?;
        Some(AgentCheck {
            director: place,
            server: id,
            number,
            address: server.address.into(),
            port: plan.port_of(server.agent_port)?,
            timeout: plan.timeout,
            send: plan.send.clone(),
        })
    }

    /// The open question of the server at `slot` is over; when the next one is due.
    fn settle_agent(&mut self, slot: u16, now: Instant) -> Option<Instant> {
        let interval = self.agent_check.as_ref()?.interval;
        let agent = self.agent_at(slot)?;
        agent.settle(interval, now);
        Some(agent.due)
    }

    /// Takes in what the agent of the server at `slot` has answered.
    fn hear_agent(&mut self, slot: u16, answer: &[u8], now: Instant) -> Option<Heard> {
        let name = self.name.clone();
        let server = self.server_mut(slot)?;
        let agent = server.agent.as_deref_mut()?;
        let Some(line) = first_line(answer) else {
            agent.failures += 1;
            return Some(Heard::default());
        };
        let said = parse(line);
        let bad_words = said.bad_words;
        let before = agent.clone();
        agent.answers += 1;
        agent.last = Some((now, shown(line)));
        agent.take(said);
        let has_news = (before.mode, &before.down) != (agent.mode, &agent.down);
        let news =
            has_news.then(|| News { director: name, server: server.name.clone(), state: agent.state() });
        let is_same = (before.weight, before.flows_max, before.mode, before.is_out())
            == (agent.weight, agent.flows_max, agent.mode, agent.is_out());
        if !is_same {
            if before.flows_max != agent.flows_max {
                server.reopen();
            }
            self.follow_agents(now);
        }
        Some(Heard { is_answer: true, bad_words, news })
    }
}

impl Directors {
    /// Puts every agent into order, after a plan.
    pub(super) fn plan_agents(&mut self) {
        self.iter_mut().filter(|director| director.is_removed).for_each(|one| one.forget_agents(true));
        let mut agenda = Agenda { asked: self.agenda.asked, ..Agenda::default() };
        let asked = self.order.iter().filter_map(|place| Some((*place, self.at(*place)?)));
        for (place, director) in asked.filter(|(_, director)| director.agent_check.is_some()) {
            for slot in director.slots() {
                let agent = director.server(*slot).and_then(|server| server.agent.as_deref());
                let Some(agent) = agent else { continue };
                match agent.open {
                    Some(_) => agenda.open.insert((agent.until, (place, *slot))),
                    None => agenda.due.insert((agent.due, (place, *slot))),
                };
            }
        }
        agenda.ready = core::mem::take(&mut self.agenda.ready);
        self.agenda = agenda;
        self.drop_stale();
    }

    /// Forgets what agents have said, as a forwarder does that begins anew, and asks them from `begin` on, if at all.
    pub fn restart_agents(&mut self, begin: Option<Instant>, now: Instant) {
        for director in self.iter_mut().filter(|director| director.agent_check.is_some()) {
            director.forget_agents(true);
            if let Some(begin) = begin {
                director.set_agents(begin);
            }
            director.follow_agents(now);
        }
        self.plan_agents();
    }

    /// Gives up agents that have not answered in time, and asks those that are due: how many were asked, and given up.
    #[inline]
    pub fn handle_agents(&mut self, now: Instant) -> (u64, u64) {
        if self.agenda.next().is_none_or(|next| next > now) {
            return (0, 0);
        }
        self.work_off(now)
    }

    /// The same where something is due.
    fn work_off(&mut self, now: Instant) -> (u64, u64) {
        let (mut asked, mut given_up) = (0, 0);
        while let Some((_, (place, slot))) =
            self.agenda.open.first().copied().filter(|(until, _)| *until <= now)
        {
            self.agenda.open.pop_first();
            given_up += 1;
            if let Some(agent) = self.at_mut(place).and_then(|director| director.agent_at(slot)) {
                agent.failures += 1;
            }
            self.settle_agent((place, slot), now);
        }
        self.drop_stale();
        while self.agenda.open.len() < AGENT_CHECKS_MAX {
            let Some((_, (place, slot))) = self.agenda.due.first().copied().filter(|(due, _)| *due <= now)
            else {
                break;
            };
            self.agenda.due.pop_first();
            self.agenda.asked += 1;
            let number = self.agenda.asked;
            let until = self.at_mut(place).and_then(|director| director.ask_agent(slot, number, now));
            let Some(until) = until else { continue };
            self.agenda.open.insert((until, (place, slot)));
            self.agenda.ready.push_back(((place, slot), number));
            asked += 1;
        }
        (asked, given_up)
    }

    /// The next question that is ready to be carried.
    #[must_use = "who takes a question carries it"]
    pub fn poll_agent_check(&mut self) -> Option<AgentCheck> {
        while let Some(((place, slot), number)) = self.agenda.ready.pop_front() {
            let check = self.at(place).and_then(|director| director.agent_check(place, slot, number));
            if check.is_some() {
                return check;
            }
        }
        None
    }

    /// Takes in an answer, where its question is open.
    pub fn agent_answered(&mut self, reply: &AgentReply<'_>, now: Instant) -> Option<Heard> {
        let place = reply.director;
        let director = self.at_mut(place)?;
        let slot = director.slot_of(reply.server)?;
        let agent = director.agent_at(slot).filter(|agent| agent.open == Some(reply.number))?;
        let until = agent.until;
        let heard = director.hear_agent(slot, reply.line, now);
        self.agenda.open.remove(&(until, (place, slot)));
        self.settle_agent((place, slot), now);
        heard
    }

    fn settle_agent(&mut self, (place, slot): Place, now: Instant) {
        let due = self.at_mut(place).and_then(|director| director.settle_agent(slot, now));
        self.agenda.due.extend(due.map(|due| (due, (place, slot))));
    }

    /// Forgets questions that nobody has fetched while they were open.
    fn drop_stale(&mut self) {
        let mut ready = core::mem::take(&mut self.agenda.ready);
        ready.retain(|((place, slot), number)| {
            let server = self.at(*place).and_then(|director| director.server(*slot));
            let agent = server.and_then(|server| server.agent.as_deref());
            agent.is_some_and(|agent| agent.open == Some(*number))
        });
        self.agenda.ready = ready;
    }
}
