//! What guests say: at most 20 messages a second for each instance, each cut after 1,024 bytes.
//!
//! Messages become events of `tracing` under the target `evenkeel::guest`. Nothing else of a guest ever gets
//! into a log as it is: control characters are replaced.

use evenkeel_engine::{Duration, Instant};

use crate::contract::Level;

/// The longest message that is kept, in bytes.
const MESSAGE_MAX: usize = 1024;
/// The most messages of one instance in a second.
const MESSAGES_MAX: u32 = 20;
const SECOND: Duration = Duration::from_secs(1);

/// Text of a guest made fit for a terminal and a log file.
pub(crate) fn clean(text: &str) -> String {
    let cut = text.floor_char_boundary(MESSAGE_MAX);
    let kept = text.get(..cut).unwrap_or_default();
    let one_line = |character: char| if character.is_control() { ' ' } else { character };
    kept.trim_end().chars().map(one_line).collect()
}

/// Counts the messages of one instance.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    began: Instant,
    count: u32,
    held_back: u64,
}

impl Gate {
    /// Whether one more message may pass, and how many were held back before it.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if now.since(self.began) >= SECOND {
            (self.began, self.count) = (now, 0);
        }
        if self.count >= MESSAGES_MAX {
            self.held_back += 1;
            return None;
        }
        self.count += 1;
        Some(std::mem::take(&mut self.held_back))
    }

    /// Writes a message, or counts it.
    pub(crate) fn write(&mut self, guest: &str, level: Level, message: &str, now: Instant) {
        let Some(held_back) = self.admit(now) else { return };
        let message = clean(message);
        match level {
            Level::Fatal | Level::Error => {
                tracing::error!(target: "evenkeel::guest", guest, held_back, "{message}");
            }
            Level::Warn => tracing::warn!(target: "evenkeel::guest", guest, held_back, "{message}"),
            Level::Info => tracing::info!(target: "evenkeel::guest", guest, held_back, "{message}"),
            Level::Debug => tracing::debug!(target: "evenkeel::guest", guest, held_back, "{message}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_messages_pass_in_a_second_and_the_others_are_counted() {
        let mut gate = Gate::default();
        let now = Instant::ZERO.after(Duration::from_secs(5));
        let passed = (0..100).filter(|_| gate.admit(now).is_some()).count();
        assert_eq!(passed, 20);
        assert_eq!(gate.admit(now.after(SECOND)), Some(80));
        assert_eq!(gate.admit(now.after(SECOND)), Some(0));
    }

    #[test]
    fn a_message_cannot_move_the_cursor_or_fill_the_log() {
        assert_eq!(clean("a\u{1b}[2Jb\nc\n"), "a [2Jb c");
        assert_eq!(clean(&"é".repeat(2_000)).len(), 1_024);
        assert_eq!(clean(&format!("x{}", "é".repeat(2_000))).len(), 1_023);
    }
}
