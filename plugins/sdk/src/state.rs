//! States that outlive a guest: the name of their form, a zero byte, then numbers, little end first.
//!
//! ```text
//! rr\0  8 bytes  8 bytes  ...
//! ```

use alloc::vec::Vec;

/// Writes a state.
#[derive(Clone, Debug)]
pub struct StateWriter(Vec<u8>);

impl StateWriter {
    /// An empty state of this form. A new meaning of the numbers needs a new name.
    #[must_use]
    pub fn new(form: &str) -> Self {
        let mut bytes: Vec<u8> = form.bytes().filter(|byte| *byte != 0).collect();
        bytes.push(0);
        Self(bytes)
    }

    /// Appends a number.
    pub fn number(&mut self, number: u64) {
        self.0.extend(number.to_le_bytes());
    }

    /// Appends a number with a fraction.
    pub fn float(&mut self, number: f64) {
        self.number(number.to_bits());
    }

    /// The bytes.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Reads a state. Numbers that are not there are `None`; nothing else can go wrong.
#[derive(Clone, Copy, Debug)]
pub struct State<'a>(&'a [u8]);

impl<'a> State<'a> {
    /// What follows the name, if the state has this form.
    #[must_use]
    pub fn read(state: &'a [u8], form: &str) -> Option<Self> {
        let rest = state.strip_prefix(form.as_bytes())?;
        rest.strip_prefix(&[0]).map(Self)
    }

    /// The next number.
    pub fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }

    /// The next number with a fraction.
    pub fn float(&mut self) -> Option<f64> {
        self.number().map(f64::from_bits)
    }

    /// Whether nothing is left.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_as_it_was_written_and_by_its_own_form_alone() {
        let mut writer = StateWriter::new("rr");
        writer.number(7);
        writer.float(-0.5);
        let bytes = writer.finish();
        let mut state = State::read(&bytes, "rr").unwrap();
        assert_eq!((state.number(), state.float()), (Some(7), Some(-0.5)));
        assert!(state.is_over() && state.number().is_none());
        assert!(State::read(&bytes, "r").is_none());
        assert!(State::read(&bytes, "rrr").is_none());
        assert!(State::read(&[], "rr").is_none());
    }
}
