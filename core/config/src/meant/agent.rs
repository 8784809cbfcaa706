//! How agents are asked.

use std::ops::RangeInclusive;

use evenkeel_engine::plan::AgentPlan;
use evenkeel_engine::time::Duration;

use super::{Meaning, number};
use crate::diagnostic::Code;
use crate::forms::show_duration;
use crate::written::{self, At};

/// How often an agent may be asked. Below, asking is a load of its own; above, nobody waits for the answer.
const INTERVALS: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(3_600);

/// The shortest time in which a real server can be expected to answer.
const TIMEOUT_MIN: Duration = Duration::from_millis(10);

/// The most bytes that an agent is sent.
const SEND_BYTES_MAX: usize = 1024;

impl Meaning<'_> {
    pub(super) fn agent_check(&mut self, written: Option<&At<written::AgentCheck>>) -> Option<AgentPlan> {
        let written = &written?.value;
        let default = AgentPlan::at(number(written.port.as_ref(), 0));
        let interval = self.duration(written.interval.as_ref(), &INTERVALS, default.interval);
        let range = TIMEOUT_MIN..=*INTERVALS.end();
        let timeout = self.duration(written.timeout.as_ref(), &range, default.timeout.min(interval));
        if let Some(at) = written.timeout.as_ref().filter(|_| timeout > interval) {
            let (timeout, most) = (show_duration(timeout), show_duration(interval));
            let message = format!("the timeout of {timeout} is longer than the interval of {most}");
            let mut diagnostic = self.diagnostic(Code::Conflict, &at.span, message);
            if let Some(interval) = &written.interval {
                diagnostic = diagnostic.also(&interval.span, "the interval here");
            }
            let help = format!("write a duration from {} to {most}", show_duration(TIMEOUT_MIN));
            self.found.push(diagnostic.help(help));
        }
        let send = written.send.as_ref().map_or_else(String::new, |at| at.value.clone());
        if let Some(at) = written.send.as_ref().filter(|at| at.value.len() > SEND_BYTES_MAX) {
            let message =
                format!("{} bytes are more than the {SEND_BYTES_MAX} that an agent is sent", send.len());
            let diagnostic = self.diagnostic(Code::OutOfRange, &at.span, message);
            self.found
                .push(diagnostic.help("write a word or two by which the agent knows what it is asked about"));
        }
        Some(AgentPlan { port: default.port, interval, timeout, send })
    }

    /// Where the agent of a real server answers, in place of `agents`' port.
    pub(super) fn agent_port(&mut self, has_agents: bool, written: Option<&At<i64>>) -> Option<u16> {
        let at = written?;
        if !has_agents {
            let message =
                "`agent_port` says where the agent of a real server answers, and the director asks none";
            let diagnostic = self.diagnostic(Code::Conflict, &at.span, message);
            let help = format!(
                "add `agent_check = {{ port = {} }}` to the director, or take it out",
                at.value.max(1)
            );
            self.found.push(diagnostic.help(help));
        }
        u16::try_from(at.value).ok()
    }
}
