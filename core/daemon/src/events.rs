//! What happened lately, for the log and for `evenkeel ctl events`.
//!
//! In: the engine's events, in order. Out: lines of the log, at a bounded rate, and the last of them as JSON.
//! A component that fails in every call fills neither memory nor disk.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use evenkeel_engine::Event;
use serde_json::Value;

use crate::control;

/// The most events that are kept: enough to see what led to a fault, and an answer of some 50 KiB.
pub(crate) const KEPT_MAX: usize = 256;

/// The most lines of the log per second; what goes beyond is counted and told in one line.
const LINES_PER_SECOND: u32 = 10;

/// The last events, and how many lines have been written lately.
#[derive(Debug)]
pub(crate) struct EventLog {
    start: Instant,
    kept: VecDeque<Value>,
    window: Instant,
    lines: u32,
    silent: u64,
}

impl EventLog {
    pub(crate) fn new(start: Instant) -> Self {
        Self { start, kept: VecDeque::new(), window: start, lines: 0, silent: 0 }
    }

    /// Keeps an event, and tells the log about it.
    pub(crate) fn push(&mut self, event: &Event, now: Instant) {
        let mut value = control::event(event);
        let uptime = now.saturating_duration_since(self.start).as_millis();
        control::insert(&mut value, "uptime_ms", u64::try_from(uptime).unwrap_or(u64::MAX));
        if self.kept.len() == KEPT_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(value);
        if self.may_write(now) {
            write(event);
        }
    }

    /// The events that are kept, the oldest first.
    pub(crate) fn list(&self) -> Vec<Value> {
        self.kept.iter().cloned().collect()
    }

    fn may_write(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.window) >= Duration::from_secs(1) {
            if self.silent > 0 {
                tracing::warn!(events = self.silent, "further events were not logged");
            }
            (self.window, self.lines, self.silent) = (now, 0, 0);
        }
        if self.lines == LINES_PER_SECOND {
            self.silent = self.silent.saturating_add(1);
            return false;
        }
        self.lines += 1;
        true
    }
}

fn write(event: &Event) {
    match event {
        Event::PlanApplied { generation } => tracing::info!(generation, "a new plan is in force"),
        Event::GuestFault { name, fault } => tracing::warn!(
            name,
            component = fault.component,
            call = fault.call,
            reason = fault.reason,
            "a component failed, the fallback has decided"
        ),
        Event::FlowTableFull { flows_max } => {
            tracing::warn!(flows_max, "the flow table is full, new flows are dropped");
        }
        Event::PortsExhausted { director, server } => {
            tracing::warn!(director, server, "source NAT has no port left");
        }
        Event::AgentChanged { director, server, state } => {
            tracing::info!(director, server, state, "the agent of a real server says");
        }
        Event::SchedulerChanged { director, scheduler } => {
            tracing::info!(director, scheduler, "a director has another scheduler");
        }
        Event::SchedulerRolledBack { director, from, to } => {
            tracing::warn!(
                director,
                from,
                to,
                "a scheduler on trial had too many faults, the one before is back"
            );
        }
        other => tracing::info!(event = ?other, "the engine reports"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_of_events_is_bounded_and_keeps_the_newest() {
        let start = Instant::now();
        let mut log = EventLog::new(start);
        for generation in 1..=1_000 {
            log.push(&Event::PlanApplied { generation }, start + Duration::from_millis(1));
        }
        let list = log.list();
        assert_eq!(list.len(), KEPT_MAX);
        assert_eq!(list.last().unwrap()["generation"], 1_000);
        assert_eq!(list.first().unwrap()["generation"], 1_001 - KEPT_MAX);
        assert_eq!(list.last().unwrap()["uptime_ms"], 1);
    }

    #[test]
    fn at_most_ten_lines_are_written_per_second() {
        let start = Instant::now();
        let mut log = EventLog::new(start);
        let written = (0..1_000).filter(|_| log.may_write(start)).count();
        assert_eq!(written, 10);
        assert_eq!(log.silent, 990);
        assert!(log.may_write(start + Duration::from_secs(1)));
        assert_eq!(log.silent, 0);
    }
}
