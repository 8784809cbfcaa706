//! Agents: programs on real servers that say their own weight and state, and the questions to them, which the driver carries
//! by what means it has.
//!
//! ```text
//! time -> Engine::handle_timeout -> Engine::poll_agent_check -> driver -> agent
//!            server's weight, state <- Engine::agent_answered <- driver <- one line
//! ```
//!
//! The line is of words, between spaces, tabs and commas; the forms are those of HAProxy's agent check (configuration manual
//! 2.6, section 5.2, `agent-check`). Of several words about one thing the last counts; what no word is about stays as it was.
//!
//! ```text
//! 75%  weight:20%       the weight, in hundredths of the operator's     up                      undoes down
//! weight:20             the weight itself                               down  fail  stopped     no new flows at all
//! maxconn:300           the most flows; 0 for no bound                  down #disk is full      why
//! ready  drain  maint   as usual; no new clients; no new flows at all
//! ```
//!
//! No answer is no fault: everything stays as it was, and is counted. What an agent says is beside what the operator says, not
//! in its place: a server takes new flows where both let it.

use alloc::string::{String, ToString};
use core::net::IpAddr;

use crate::director::ServerId;
use crate::engine::Engine;
use crate::event::Event;
use crate::time::{Duration, Instant};

/// The longest line, in bytes: a few words and a sentence why. A longer one is not read, since its end is missing.
pub const LINE_BYTES_MAX: usize = 1024;

/// The highest weight that a server can have.
const WEIGHT_MAX: u32 = 65_535;

/// A question: how are you?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentCheck {
    /// The place of the director, to be handed back.
    pub director: u16,
    /// Who is asked, to be handed back.
    pub server: ServerId,
    /// Which question it is, to be handed back.
    pub number: u64,
    /// The real server's address.
    pub address: IpAddr,
    /// The TCP port where its agent answers.
    pub port: u16,
    /// After this long an answer comes too late.
    pub timeout: Duration,
    /// What to send once connected; nothing where it is empty.
    pub send: String,
}

impl AgentCheck {
    /// What the agent has answered: all bytes up to the end of its line, its end included where it came, or the first
    /// [`LINE_BYTES_MAX`] + 1 of them. None for an agent that could not be reached, or has said nothing in time.
    #[must_use]
    pub const fn reply<'a>(&self, line: &'a [u8]) -> AgentReply<'a> {
        AgentReply { director: self.director, server: self.server, number: self.number, line }
    }
}

/// The answer to an [`AgentCheck`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentReply<'a> {
    /// As in the question.
    pub director: u16,
    /// As in the question.
    pub server: ServerId,
    /// As in the question.
    pub number: u64,
    /// What the agent said; see [`AgentCheck::reply`].
    pub line: &'a [u8],
}

/// A weight, as an agent says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentWeight {
    /// Hundredths of the operator's weight.
    Percent(u32),
    /// The weight itself.
    Absolute(u32),
}

impl AgentWeight {
    /// What becomes of the operator's weight: 0 stays 0, and so much as 1 % of 1 is 1. At most 65,535.
    #[must_use]
    pub fn of(self, weight: u32) -> u32 {
        match self {
            Self::Percent(0) | Self::Absolute(0) => 0,
            _ if weight == 0 => 0,
            Self::Absolute(own) => own.min(WEIGHT_MAX),
            Self::Percent(percent) => {
                let share = u64::from(weight) * u64::from(percent) / 100;
                u32::try_from(share.clamp(1, u64::from(WEIGHT_MAX))).unwrap_or(WEIGHT_MAX)
            }
        }
    }
}

/// What an agent would have done with its server, as an operator would.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AgentMode {
    /// It takes flows.
    #[default]
    Ready,
    /// It takes no flows but those of clients that stick to it, as with weight 0.
    Drain,
    /// It takes no flows.
    Maint,
}

impl AgentMode {
    /// The word that agents say.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }
}

/// Whether its server works, as an agent says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentHealth {
    /// It does.
    Up,
    /// It does not: the reason, or the word alone where there is none.
    Down(String),
}

/// What a line says; nothing about what it has no word for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The weight.
    pub weight: Option<AgentWeight>,
    /// The most flows; 0 for no bound.
    pub flows_max: Option<u32>,
    /// What is to be done with the server.
    pub mode: Option<AgentMode>,
    /// Whether it works.
    pub health: Option<AgentHealth>,
    /// Words that mean nothing.
    pub bad_words: u32,
}

/// The first line of what an agent has answered, without its end. None where nothing came, or its end is beyond the bound.
#[must_use]
pub fn first_line(answer: &[u8]) -> Option<&[u8]> {
    let end = answer.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(answer.len());
    answer.get(..end).filter(|line| !line.is_empty() && line.len() <= LINE_BYTES_MAX)
}

/// What `line` says, of which there is no more than one.
#[must_use]
pub fn parse(line: &[u8]) -> Said {
    let mut said = Said::default();
    let mut rest = line;
    let mut down: Option<&[u8]> = None;
    let mut reason: &[u8] = &[];
    while let Some(start) = rest.iter().position(|byte| !is_space(*byte)) {
        rest = rest.get(start..).unwrap_or_default();
        let end = rest.iter().position(|byte| is_space(*byte)).unwrap_or(rest.len());
        let word = rest.get(..end).unwrap_or_default();
        let sharp = word.iter().position(|byte| *byte == b'#');
        // A sharp ends the words: after white space, or right behind a word that may have a reason.
        let begins_reason =
            sharp.filter(|place| *place == 0 || is_down(word.get(..*place).unwrap_or_default()));
        let word = word.get(..begins_reason.unwrap_or(word.len())).unwrap_or_default();
        if is_down(word) {
            down = Some(word);
        } else if word.eq_ignore_ascii_case(b"up") {
            down = None;
            said.health = Some(AgentHealth::Up);
        } else if !word.is_empty() && !said.take(word) {
            said.bad_words += 1;
        }
        if let Some(place) = begins_reason {
            reason = rest.get(place + 1..).unwrap_or_default();
            break;
        }
        rest = rest.get(end..).unwrap_or_default();
    }
    if let Some(word) = down {
        let reason = shown(reason);
        let reason = if reason.is_empty() { shown(word) } else { reason };
        said.health = Some(AgentHealth::Down(reason));
    }
    said
}

impl Said {
    /// Takes in a word that is neither up nor down. Returns whether it means something.
    fn take(&mut self, word: &[u8]) -> bool {
        if word.eq_ignore_ascii_case(b"ready") {
            self.mode = Some(AgentMode::Ready);
        } else if word.eq_ignore_ascii_case(b"drain") {
            self.mode = Some(AgentMode::Drain);
        } else if word.eq_ignore_ascii_case(b"maint") {
            self.mode = Some(AgentMode::Maint);
        } else if let Some(number) = after(word, b"maxconn:") {
            let Some(number) = decimal(number) else { return false };
            self.flows_max = Some(number);
        } else if let Some(weight) = after(word, b"weight:") {
            let absolute = || decimal(weight).map(AgentWeight::Absolute);
            let Some(weight) = percentage(weight).or_else(absolute) else { return false };
            self.weight = Some(weight);
        } else {
            let Some(weight) = percentage(word) else { return false };
            self.weight = Some(weight);
        }
        true
    }
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b',')
}

fn is_down(word: &[u8]) -> bool {
    let words: [&[u8]; 4] = [b"down", b"fail", b"failed", b"stopped"];
    words.iter().any(|known| word.eq_ignore_ascii_case(known))
}

/// What follows `prefix`, in whatever case.
fn after<'a>(word: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = word.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn percentage(word: &[u8]) -> Option<AgentWeight> {
    decimal(word.strip_suffix(b"%")?).map(AgentWeight::Percent)
}

/// A whole number of digits alone; the highest there is where it is higher.
fn decimal(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u32, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u32::from(*digit - b'0'))?;
        Some(number.saturating_mul(10).saturating_add(digit))
    })
}

/// Somebody else's text, fit to be shown: what is not printable ASCII becomes a question mark.
pub(crate) fn shown(text: &[u8]) -> String {
    let printable = |byte: &u8| if (b' '..=b'~').contains(byte) { char::from(*byte) } else { '?' };
    let text: String = text.iter().map(|byte| if *byte == b'\t' { ' ' } else { printable(byte) }).collect();
    text.trim().to_string()
}

impl Engine {
    /// The next question to an agent that is due, after [`Engine::handle_timeout`] has said so.
    pub fn poll_agent_check(&mut self, now: Instant) -> Option<AgentCheck> {
        let _ = self.tick(now);
        self.directors.poll_agent_check()
    }

    /// An agent has answered, or is known not to. Returns whether the question is still open.
    pub fn agent_answered(&mut self, reply: &AgentReply<'_>, now: Instant) -> bool {
        let now = self.tick(now);
        let Some(heard) = self.directors.agent_answered(reply, now) else { return false };
        let counters = &mut self.exit.counters;
        counters.agent_answers += u64::from(heard.is_answer);
        counters.agent_failures += u64::from(!heard.is_answer);
        counters.agent_bad_words += u64::from(heard.bad_words);
        if let Some(news) = heard.news {
            self.push_event(Event::AgentChanged {
                director: news.director,
                server: news.server,
                state: news.state,
            });
        }
        true
    }

    /// Gives up agents that have not answered in time, and asks those that are due.
    pub(crate) fn handle_agents(&mut self, now: Instant) {
        let (asked, given_up) = self.directors.handle_agents(now);
        self.exit.counters.agent_checks += asked;
        self.exit.counters.agent_failures += given_up;
    }
}
