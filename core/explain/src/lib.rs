//! What users ask about packets, and what they are told: the words in which a packet is written on a command line,
//! the filters of a trace, accounts of the engine as JSON and as text, and tokens by which a decision is made again.
//!
//! ```text
//! "tcp 198.51.100.7:4242 > 10.0.0.3:80 syn in eth0" -> packet -> Engine::explain -> JSON -> text
//! "src 10.0.0.0/8 and port 80"                      -> Filter -> Journal -------^
//! ```
//! Everything here is pure. It decides nothing about packets: that is what it tells of.

#![forbid(unsafe_code)]

mod conditions;
mod filter;
mod frame;
mod json;
mod packet;
mod text;
mod token;

mod words;

pub use filter::{DEPTH_MAX, filter};
pub use frame::summary;
pub use json::{account, explanation, hex, seal, unhex};
pub use packet::{Asked, packet, raw};
pub use text::{text, trace_text};

pub use token::{TOKEN_BYTES_MAX, Token, TokenError, fingerprint};
pub use words::{ASKED_BYTES_MAX, Mistake};
