//! A trace for people: a line for each step of the flows and machines that are asked for.
//!
//! ```text
//! time (s)         packet  machine   interface      what
//!     0.012345678  #17     lb        eth0    in     tcp 198.51.100.10:49152 > 10.0.0.3:80 SYN seq 1, 54 bytes
//!     0.012345678  #17     lb        tun0    engine flow: ...; director: web; real server: s1 ...; forwarded by tun1
//! ```

use std::fmt::Arguments;
use std::io::{self, Write};

use evenkeel_engine::Instant;

use super::decision::Decision;
use super::filter::Filter;
use super::summary::Summary;
use super::{FrameSeen, Names};
use crate::capture::Way;

/// The lines that a trace has at most: what an editor still opens. Further ones are counted.
pub const STEPS_MAX: u64 = 1_000_000;

/// A trace under way.
pub struct Steps {
    filter: Filter,
    /// Nothing before this is shown.
    from: Instant,
    output: Box<dyn Write>,
    lines: u64,
    left_out: u64,
    error: Option<io::Error>,
}

impl std::fmt::Debug for Steps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Steps")
            .field("filter", &self.filter)
            .field("lines", &self.lines)
            .finish_non_exhaustive()
    }
}

impl Steps {
    /// A trace of what `filter` shows from `from` on, into `output`.
    #[must_use]
    pub fn new(filter: Filter, from: Instant, output: Box<dyn Write>) -> Self {
        Self { filter, from, output, lines: 0, left_out: 0, error: None }
    }

    /// Lines that were written, and those that were too many.
    #[must_use]
    pub const fn lines(&self) -> (u64, u64) {
        (self.lines, self.left_out)
    }

    /// Ends the trace.
    ///
    /// # Errors
    /// When a line could not be written.
    pub fn finish(mut self) -> io::Result<()> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if self.left_out > 0 {
            writeln!(self.output, "{} further steps are left out", self.left_out)?;
        }
        self.output.flush()
    }

    pub(super) fn frame(&mut self, seen: &FrameSeen<'_>, names: &Names) {
        let summary = Summary::of_frame(seen.bytes);
        let machine = names.machine(seen.machine);
        if !self.filter.shows(machine, &summary.tuples) {
            return;
        }
        let way = match seen.way {
            Way::In => "in",
            Way::Out => "out",
        };
        let interface = names.interface(seen.machine, seen.interface);
        self.line(seen.now, (seen.id, machine, interface, way), format_args!("{}", summary.words));
    }

    pub(super) fn decided(&mut self, now: Instant, machine: &str, id: u64, decision: &Decision) {
        let after = decision.after.as_ref().map_or(&[][..], |after| &after.tuples);
        self.filter.follow(&decision.before.tuples, after);
        if !self.filter.shows(machine, &decision.before.tuples) {
            return;
        }
        let place = (id, machine, decision.interface.as_str(), "engine");
        match &decision.after {
            Some(after) => self.line(now, place, format_args!("{} as {}", decision.words, after.words)),
            None => self.line(now, place, format_args!("{}", decision.words)),
        }
    }

    /// The kernel of a machine did something with a packet.
    pub(super) fn kernel(&mut self, now: Instant, machine: &str, (id, frame): (u64, &[u8]), words: &str) {
        if self.filter.shows(machine, &Summary::of_frame(frame).tuples) {
            self.line(now, (id, machine, "", "kernel"), format_args!("{words}"));
        }
    }

    /// Something about a machine that is shown whatever flow it concerns.
    pub(super) fn about(&mut self, now: Instant, machine: &str, kind: &str, words: Arguments<'_>) {
        if self.filter.shows(machine, &[]) {
            self.line(now, (0, machine, "", kind), words);
        }
    }

    /// The scenario did something: always shown.
    pub(super) fn happened(&mut self, now: Instant, words: &str) {
        self.line(now, (0, "", "", "timeline"), format_args!("{words}"));
    }

    fn line(
        &mut self,
        now: Instant,
        (id, machine, interface, what): (u64, &str, &str, &str),
        words: Arguments<'_>,
    ) {
        if now < self.from || self.error.is_some() {
            return;
        }
        if self.lines >= STEPS_MAX {
            self.left_out += 1;
            return;
        }
        self.lines += 1;
        let (seconds, nanos) = (now.as_nanos() / 1_000_000_000, now.as_nanos() % 1_000_000_000);
        let packet = if id == 0 { String::new() } else { format!("#{id}") };
        let written = writeln!(
            self.output,
            "{seconds:>5}.{nanos:09}  {packet:<8} {machine:<12} {interface:<8} {what:<8} {words}"
        );
        self.error = written.err();
    }
}
