//! Progress of long commands: a line that moves on a terminal, nothing in a pipe.

use std::borrow::Cow;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(120);

/// A line on the standard error that says how far a command has come; it vanishes at the end.
#[derive(Debug)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// A line with `stage`, if the standard error is a terminal.
    pub(crate) fn start(stage: impl Into<Cow<'static, str>>) -> Self {
        let is_shown = std::io::stderr().is_terminal();
        let target = if is_shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(ProgressStyle::default_spinner());
        bar.set_message(stage);
        if is_shown {
            bar.enable_steady_tick(TICK);
        }
        Self(bar)
    }

    /// Another part has begun.
    pub(crate) fn stage(&self, stage: impl Into<Cow<'static, str>>) {
        self.0.set_message(stage);
    }

    /// So much of it is done; a `total` of zero is unknown.
    pub(crate) fn done(&self, done: u64, total: u64) {
        if total == 0 {
            return;
        }
        if self.0.length() != Some(total) {
            self.0.set_length(total);
            // The template is a constant of ours; where it were wrong the spinner stays.
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} [{bar:30}] {pos}/{len}") {
                self.0.set_style(style);
            }
        }
        self.0.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
