//! Tokens: all that is needed to make one decision again, in one word.
//!
//! ```text
//! ek2.  base64url of: fingerprint of the configuration (8 bytes), state (Engine::remember), sum over both (4 bytes)
//! ```

use std::fmt::{self, Write as _};

use evenkeel_engine::plan::{Layer, Plan};
use evenkeel_engine::wire::HashKey;
use evenkeel_engine::wire::ethernet::MacAddress;
use evenkeel_engine::{Memory, MemoryError};
use siphasher::sip::SipHasher13;

/// The longest token that is read, in bytes: a packet of 64 KiB, and some thousand real servers.
pub const TOKEN_BYTES_MAX: usize = 1 << 20;

/// What a token begins with; the digit changes with its form.
const PREFIX: &str = "ek2.";

/// The digits of base64url (RFC 4648 s.5).
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Separates fingerprints and sums from each other.
const KEYS: [u64; 2] = [0x666f_726d, 0x7375_6d73];

/// A decision that can be made again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    fingerprint: u64,
    state: Vec<u8>,
}

/// Why a token can not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// It does not begin as tokens do.
    Form,
    /// A character is missing or wrong.
    Damaged,
    /// It is of another configuration.
    Foreign,
    /// What it holds can not be read.
    State(MemoryError),
}

impl fmt::Display for TokenError {
    fn fmt(&self, form: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => {
                write!(
                    form,
                    "that is no token of this version: one begins with {PREFIX}, as `evenkeel explain` prints it"
                )
            }
            Self::Damaged => {
                write!(form, "the token is not whole: a character is missing or wrong; copy all of it")
            }
            Self::Foreign => {
                write!(
                    form,
                    "the token is of another configuration, or of another version of evenkeel; name the one that it was \
                     made with by --config FILE"
                )
            }
            Self::State(error) => write!(form, "the token can not be read: {error}"),
        }
    }
}

impl Token {
    /// A token of what [`Engine::remember`](evenkeel_engine::Engine::remember) gave, for an engine of `plan`.
    #[must_use]
    pub fn new(plan: &Plan, state: Vec<u8>) -> Self {
        Self { fingerprint: fingerprint(plan), state }
    }

    /// Reads a token.
    ///
    /// # Errors
    /// When it is none, or not whole.
    pub fn read(text: &str) -> Result<Self, TokenError> {
        if text.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Form);
        }
        let digits = text.trim().strip_prefix(PREFIX).ok_or(TokenError::Form)?;
        let bytes = decode(digits).ok_or(TokenError::Damaged)?;
        let (rest, sum) = bytes.split_last_chunk::<4>().ok_or(TokenError::Damaged)?;
        let (fingerprint, state) = rest.split_first_chunk::<8>().ok_or(TokenError::Damaged)?;
        if sum_of(rest) != *sum {
            return Err(TokenError::Damaged);
        }
        Ok(Self { fingerprint: u64::from_be_bytes(*fingerprint), state: state.to_vec() })
    }

    /// What it holds, for an engine of `plan`.
    ///
    /// # Errors
    /// When it is of another one.
    pub fn memory(&self, plan: &Plan) -> Result<Memory, TokenError> {
        if fingerprint(plan) != self.fingerprint {
            return Err(TokenError::Foreign);
        }
        Memory::read(&self.state).map_err(TokenError::State)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, form: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.fingerprint.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.state);
        bytes.extend(sum_of(&bytes));
        write!(form, "{PREFIX}{}", encode(&bytes))
    }
}

/// A number that tells configurations apart: of everything in a plan but what is drawn or found when a forwarder starts, the
/// seed, the hash key and link addresses.
#[must_use]
pub fn fingerprint(plan: &Plan) -> u64 {
    let mut plan = plan.clone();
    (plan.seed, plan.hash_key) = (0, HashKey([0, 0]));
    for interface in &mut plan.interfaces {
        if let Layer::Ethernet(mac) = &mut interface.layer {
            *mac = MacAddress::UNSPECIFIED;
        }
    }
    let mut text = format!("{} ", env!("CARGO_PKG_VERSION"));
    // To write to a text never fails.
    let _ = write!(text, "{plan:?}");
    SipHasher13::new_with_keys(KEYS[0], 0).hash(text.as_bytes())
}

fn sum_of(bytes: &[u8]) -> [u8; 4] {
    let [.., a, b, c, d] = SipHasher13::new_with_keys(KEYS[1], 0).hash(bytes).to_be_bytes();
    [a, b, c, d]
}

fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 4 / 3 + 4);
    for chunk in bytes.chunks(3) {
        let group =
            chunk.iter().chain(&[0; 3]).take(3).fold(0_u32, |group, byte| group << 8 | u32::from(*byte));
        for place in 0..=chunk.len() {
            let shift = 18 - 6 * u32::try_from(place).unwrap_or(0);
            let digit = usize::try_from(group >> shift & 63).unwrap_or(0);
            text.push(char::from(DIGITS.get(digit).copied().unwrap_or(b'A')));
        }
    }
    text
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    for chunk in text.as_bytes().chunks(4) {
        let mut group = 0_u32;
        for digit in chunk {
            let value = DIGITS.iter().position(|known| known == digit)?;
            group = group << 6 | u32::try_from(value).ok()?;
        }
        let missing = 4 - chunk.len();
        group <<= 6 * u32::try_from(missing).ok()?;
        let [_, all @ ..] = group.to_be_bytes();
        bytes.extend(all.get(..3_usize.checked_sub(missing)?.min(chunk.len() - 1))?);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written_and_no_character_may_change() {
        for length in 0..40_u8 {
            let state: Vec<u8> = (0..length).map(|byte| byte.wrapping_mul(37)).collect();
            let token = Token::new(&Plan::empty(), state);
            let text = token.to_string();
            assert_eq!(Token::read(&text), Ok(token));
            assert!(text.is_ascii() && !text.contains(char::is_whitespace));
            for place in PREFIX.len()..text.len() {
                let mut other = text.clone().into_bytes();
                other[place] = if other[place] == b'A' { b'B' } else { b'A' };
                let other = String::from_utf8(other).unwrap();
                // The last digit may hold bits that say nothing.
                assert!(
                    Token::read(&other) == Err(TokenError::Damaged) || place + 1 == text.len(),
                    "{other}"
                );
            }
            assert_eq!(Token::read(&text[..text.len() - 2]), Err(TokenError::Damaged));
        }
        assert_eq!(Token::read("hello"), Err(TokenError::Form));
        assert_eq!(Token::read("ek2."), Err(TokenError::Damaged));
        assert_eq!(Token::read("ek2.ä"), Err(TokenError::Damaged));
    }

    #[test]
    fn a_token_of_another_configuration_is_refused_and_the_seed_does_not_matter() {
        let token = Token::new(&Plan::empty(), vec![1]);
        let other = Plan { default_permit: false, ..Plan::empty() };
        assert_eq!(token.memory(&other), Err(TokenError::Foreign));
        let seeded = Plan { seed: 7, hash_key: HashKey([1, 2]), ..Plan::empty() };
        assert_eq!(fingerprint(&seeded), fingerprint(&Plan::empty()));
        assert_eq!(token.memory(&seeded), Err(TokenError::State(MemoryError::Bytes)));
    }
}
