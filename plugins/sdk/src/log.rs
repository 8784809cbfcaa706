//! Messages to the forwarder's log: cut after 1,024 bytes, 20 a second for each instance.
//!
//! Native builds have no forwarder: there a message goes nowhere.

use core::fmt;

use crate::bindings::guest::evenkeel::plugin::log::Level;

/// The longest message that the forwarder keeps, in bytes.
pub const MESSAGE_MAX: usize = 1024;

/// Something is broken, and somebody has to look at it.
pub fn error(message: fmt::Arguments<'_>) {
    write(Level::Error, message);
}

/// Something will break if nobody looks.
pub fn warn(message: fmt::Arguments<'_>) {
    write(Level::Warn, message);
}

/// A change that one operator would tell another about.
pub fn info(message: fmt::Arguments<'_>) {
    write(Level::Info, message);
}

/// For the author of the guest.
pub fn debug(message: fmt::Arguments<'_>) {
    write(Level::Debug, message);
}

/// Writes without allocating, so that it works when the memory is used up.
pub(crate) fn write(level: Level, message: fmt::Arguments<'_>) {
    let mut line = Line { bytes: [0; MESSAGE_MAX], length: 0 };
    // A line that is full keeps its beginning.
    let _ = fmt::write(&mut line, message);
    send(level, line.text());
}

#[cfg(target_arch = "wasm32")]
fn send(level: Level, text: &str) {
    crate::bindings::guest::evenkeel::plugin::log::write(level, text);
}

#[cfg(not(target_arch = "wasm32"))]
fn send(level: Level, text: &str) {
    let _ = (level, text);
}

struct Line {
    bytes: [u8; MESSAGE_MAX],
    length: usize,
}

impl Line {
    fn text(&self) -> &str {
        let bytes = self.bytes.get(..self.length).unwrap_or_default();
        match str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => bytes
                .get(..error.valid_up_to())
                .and_then(|bytes| str::from_utf8(bytes).ok())
                .unwrap_or_default(),
        }
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let free = self.bytes.get_mut(self.length..).unwrap_or_default();
        let taken = text.len().min(free.len());
        for (place, byte) in free.iter_mut().zip(text.bytes()) {
            *place = byte;
        }
        self.length += taken;
        if taken < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_keeps_its_beginning_and_stays_text() {
        let mut line = Line { bytes: [0; MESSAGE_MAX], length: 0 };
        assert!(fmt::write(&mut line, format_args!("x{}", "é".repeat(600))).is_err());
        assert_eq!(line.text().len(), 1023);
        assert!(line.text().starts_with("xé"));
    }
}
