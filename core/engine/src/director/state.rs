//! States that outlive a scheduler: the name of their form, a zero byte, then numbers, little end first.
//!
//! ```text
//! rr\0  8 bytes  8 bytes  ...
//! ```
//!
//! A built-in scheduler and its twin among the components write and read the same forms, so that they take over from each
//! other.

use alloc::vec::Vec;

/// Writes a state.
#[derive(Clone, Debug)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn new(form: &str) -> Self {
        let mut bytes = form.as_bytes().to_vec();
        bytes.push(0);
        Self(bytes)
    }

    pub(super) fn numbers(&mut self, numbers: &[u64]) {
        numbers.iter().for_each(|number| self.0.extend(number.to_le_bytes()));
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Reads a state. Numbers that are not there are `None`; nothing else can go wrong.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// What follows the name, if the state has this form.
    pub(super) fn new(state: &'a [u8], form: &str) -> Option<Self> {
        state.strip_prefix(form.as_bytes())?.strip_prefix(&[0]).map(Self)
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }

    pub(super) const fn is_over(&self) -> bool {
        self.0.is_empty()
    }
}
