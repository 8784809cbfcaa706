//! Where words go: answers to the standard output, complaints to the standard error.

use std::io::{self, IsTerminal, Write};

use crate::Failure;

/// Writes an answer as it is. A reader that has left early, such as `head`, is no failure.
pub(crate) fn answer(text: &str) -> Result<(), Failure> {
    is_taken(text).map(|_| ())
}

/// Writes one of many answers. Returns whether somebody still reads.
pub(crate) fn is_taken(text: &str) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::runtime(error)),
    }
}

/// Writes a complaint, with an end of line. Where even that fails nobody could be told.
pub(crate) fn complain(text: &str) {
    let text = text.trim_end();
    if !text.is_empty() {
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}

/// Whether complaints may have colours.
pub(crate) fn has_colour() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
