//! What can be wrong with a capture, where, and what to do about it.

use super::{BLOCK_BYTES_MAX, INTERFACES_MAX, PACKET_BYTES_MAX};

/// Why a capture cannot be read on, and where.
#[derive(Debug)]
pub struct CaptureError {
    /// Where in the file, in bytes; of a packed file, in what comes out.
    pub offset: u64,
    /// The packet that was looked for, from 1; 0 before the first.
    pub packet: u64,
    /// Whether the file is packed.
    pub is_packed: bool,
    /// What is wrong.
    pub problem: Problem,
}

impl std::fmt::Display for CaptureError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "byte {}", self.offset)?;
        if self.is_packed {
            f.write_str(" of the unpacked file")?;
        }
        if self.packet > 0 {
            write!(f, ", packet {}", self.packet)?;
        }
        write!(f, ": {}", self.problem)?;
        let cut = self.offset;
        match &self.problem {
            Problem::Input(_) | Problem::Empty | Problem::NoCapture { .. } | Problem::Link { .. } => Ok(()),
            Problem::HeaderCut => f.write_str("; capture it again, or take a whole copy"),
            Problem::Version { .. } => f.write_str("; write it anew with `editcap IN OUT`"),
            Problem::PacketLength { .. }
            | Problem::BlockLength { .. }
            | Problem::Lengths { .. }
            | Problem::Inside { .. }
            | Problem::Interface { .. }
            | Problem::Interfaces
            | Problem::ByteOrder => {
                if self.packet > 1 {
                    let whole = self.packet - 1;
                    write!(f, "; `head --bytes={cut}` keeps the {whole} packets before it")
                } else {
                    f.write_str("; the file is damaged, take another copy")
                }
            }
        }
    }
}

impl std::error::Error for CaptureError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.problem {
            Problem::Input(error) => Some(error),
            Problem::Empty
            | Problem::NoCapture { .. }
            | Problem::HeaderCut
            | Problem::Version { .. }
            | Problem::Link { .. }
            | Problem::PacketLength { .. }
            | Problem::BlockLength { .. }
            | Problem::Lengths { .. }
            | Problem::Inside { .. }
            | Problem::Interface { .. }
            | Problem::Interfaces
            | Problem::ByteOrder => None,
        }
    }
}

impl CaptureError {
    pub(super) const fn new(offset: u64, is_packed: bool, problem: Problem) -> Self {
        Self { offset, packet: 0, is_packed, problem }
    }

    pub(super) fn at_packet(self, packet: u64) -> Self {
        Self { packet, ..self }
    }
}

/// What is wrong with a capture.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The input fails.
    #[error("{0}")]
    Input(std::io::Error),
    /// There is nothing in it.
    #[error("the file is empty; a capture begins with a header of at least 24 bytes")]
    Empty,
    /// It begins like no capture.
    #[error(
        "the file begins with {found}, which is no capture; pcap and pcapng can be read, also packed with gzip \
         (`editcap -F pcapng IN OUT` makes one of most other kinds)"
    )]
    NoCapture {
        /// The first bytes, in hexadecimal.
        found: String,
    },
    /// It ends within its header.
    #[error("the file ends within its header")]
    HeaderCut,
    /// A version that is not known.
    #[error("version {major}.{minor} of the format is not known")]
    Version {
        /// The first number.
        major: u16,
        /// The second number.
        minor: u16,
    },
    /// A kind of link that cannot be read.
    #[error(
        "link type {number} cannot be replayed; these can: Ethernet (1), raw IP (12, 14, 101, 228, 229), Linux cooked \
         (113, 276), loopback (0, 108)"
    )]
    Link {
        /// Its number.
        number: u16,
    },
    /// A packet claims to be longer than any can be.
    #[error("a packet of {claimed} bytes is claimed; {PACKET_BYTES_MAX} is the most")]
    PacketLength {
        /// What is claimed.
        claimed: u32,
    },
    /// A block claims a length that none can have.
    #[error("a block of {claimed} bytes is claimed; a block has 12 to {BLOCK_BYTES_MAX} and a multiple of 4")]
    BlockLength {
        /// What is claimed.
        claimed: u32,
    },
    /// The two lengths of a block differ.
    #[error("a block of {before} bytes says {after} at its end")]
    Lengths {
        /// At its beginning.
        before: u32,
        /// At its end.
        after: u32,
    },
    /// Something claims to be longer than the block that it is in.
    #[error("{what} of {claimed} bytes is claimed in a block that has room for {room}")]
    Inside {
        /// What it is.
        what: &'static str,
        /// What is claimed.
        claimed: u32,
        /// What there is.
        room: usize,
    },
    /// A packet of an interface that has not been described.
    #[error("the packet is of interface {number}, but {known} are described")]
    Interface {
        /// Its number.
        number: u32,
        /// How many there are.
        known: usize,
    },
    /// Too many interfaces.
    #[error("more than {INTERFACES_MAX} interfaces are described")]
    Interfaces,
    /// A section without a byte order.
    #[error("a section begins without its byte order mark")]
    ByteOrder,
}
