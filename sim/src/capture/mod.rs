//! Captures: what others recorded is read, what happened here is written.
//!
//! ```text
//! bytes -> (gzip) -> pcap | pcapng -> Record -> strip() -> IP packet
//! packets -> Writer -> pcapng
//! ```
//!
//! * [`Reader`] reads pcap and pcapng of either byte order, packed with gzip or not, packet by packet
//! * [`strip`] takes the link header and VLAN tags off
//! * [`Writer`] writes pcapng with a comment and an identity for each packet
//!
//! Memory has a bound whatever the file claims, and every mistake is told with its place. Nothing here opens a file or
//! knows what a packet means.

mod error;
mod link;
mod pcap;
mod pcapng;
mod source;
mod writer;

use std::io::Read;

pub use error::{CaptureError, Problem};
pub use link::{Content, Link, VLANS_MAX, strip};
pub use writer::{COMMENT_BYTES_MAX, Heading, Seen, Way, Writer};

use source::Source;

/// The most bytes that one packet may have been captured with: the largest snapshot length of tcpdump.
pub const PACKET_BYTES_MAX: u32 = 262_144;
/// The most bytes of one pcapng block: what Wireshark reads.
pub const BLOCK_BYTES_MAX: u32 = 16 << 20;
/// The most interfaces of one pcapng section: what a packet block of the old kind can name.
pub const INTERFACES_MAX: usize = 1 << 16;
/// Warnings that are kept; the first ones say most.
pub const WARNINGS_MAX: usize = 16;

/// What kind of file a capture is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The format of libpcap.
    Pcap,
    /// The format of Wireshark.
    Pcapng,
}

impl Format {
    /// The name that users know.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pcap => "pcap",
            Self::Pcapng => "pcapng",
        }
    }
}

/// One packet of a capture.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Which packet of the file it is, from 1.
    pub number: u64,
    /// Where its record begins in the file, in bytes; of a packed file, in what comes out.
    pub offset: u64,
    /// When it was captured, in nanoseconds since 1970 in UTC. A packet without a time has that of the one before it.
    pub at_ns: u64,
    /// On which interface, by its number in the section.
    pub interface: u32,
    /// What its bytes begin with.
    pub link: Link,
    /// Its length on the wire, in bytes: more than it has here when the capture cut it.
    pub original_bytes: u32,
    /// What was captured of it.
    pub bytes: &'a [u8],
    /// What else is said of it. Nothing in pcap.
    pub notes: Notes<'a>,
}

impl Record<'_> {
    /// Whether the capture has kept only the beginning of the packet.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        usize::try_from(self.original_bytes).is_ok_and(|original| original > self.bytes.len())
    }
}

/// The options of a pcapng packet, looked at when they are asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Notes<'a> {
    bytes: &'a [u8],
    is_big_endian: bool,
}

impl<'a> Notes<'a> {
    /// The first comment.
    #[must_use]
    pub fn comment(&self) -> Option<&'a str> {
        pcapng::option(self.bytes, self.is_big_endian, pcapng::OPTION_COMMENT)
            .and_then(|text| std::str::from_utf8(text).ok())
    }

    /// The number that copies of one packet share.
    #[must_use]
    pub fn packet_id(&self) -> Option<u64> {
        let bytes = pcapng::option(self.bytes, self.is_big_endian, pcapng::OPTION_PACKET_ID)?;
        let bytes = *bytes.first_chunk::<8>()?;
        Some(if self.is_big_endian { u64::from_be_bytes(bytes) } else { u64::from_le_bytes(bytes) })
    }

    /// Which way it went through the interface.
    #[must_use]
    pub fn way(&self) -> Option<Way> {
        let bytes = pcapng::option(self.bytes, self.is_big_endian, pcapng::OPTION_FLAGS)?;
        let bytes = *bytes.first_chunk::<4>()?;
        let flags = if self.is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
        match flags & 3 {
            1 => Some(Way::In),
            2 => Some(Way::Out),
            _ => None,
        }
    }
}

/// A capture that is read packet by packet.
#[derive(Debug)]
pub struct Reader<'a> {
    source: Source<'a>,
    kind: Kind,
    packets: u64,
    last_ns: u64,
    warnings: Vec<String>,
    is_over: bool,
}

#[derive(Debug)]
enum Kind {
    Pcap(pcap::Header),
    Pcapng(pcapng::Section),
}

/// What a reader of one of the formats found.
enum Found {
    /// A packet: where its parts lie in the source's buffer.
    Packet(Place),
    /// The end.
    End,
    /// The file ends in the middle of something.
    Cut {
        /// Where that begins.
        offset: u64,
        /// Whether it is a packet.
        is_packet: bool,
    },
}

/// A packet that has been found, without its bytes.
#[derive(Clone, Copy, Debug)]
struct Place {
    offset: u64,
    at_ns: Option<u64>,
    interface: u32,
    link: Link,
    original_bytes: u32,
    /// Where its bytes begin and end in the source's buffer.
    bytes: (usize, usize),
    /// The same for its options.
    notes: (usize, usize),
    is_big_endian: bool,
}

impl<'a> Reader<'a> {
    /// A reader of whatever kind of capture `input` is. It reads large pieces, so it needs no buffer in front.
    ///
    /// # Errors
    /// When it is no capture, or one whose beginning cannot be read.
    pub fn new(input: impl Read + 'a) -> Result<Self, CaptureError> {
        let mut source = Source::open(Box::new(input))?;
        let kind = match source.peek::<4>()? {
            Some(pcapng::SECTION_BLOCK) => Kind::Pcapng(pcapng::Section::default()),
            _ => Kind::Pcap(pcap::Header::read(&mut source)?),
        };
        let mut reader = Self { source, kind, packets: 0, last_ns: 0, warnings: Vec::new(), is_over: false };
        if let Kind::Pcapng(section) = &mut reader.kind {
            section.begin(&mut reader.source)?;
        }
        Ok(reader)
    }

    /// The next packet; `None` at the end.
    ///
    /// # Errors
    /// When something contradicts itself, is beyond a bound, or cannot be read. There is no way on behind that: what
    /// follows an error is the end.
    #[allow(clippy::should_implement_trait, reason = "a record borrows from the reader")]
    pub fn next(&mut self) -> Result<Option<Record<'_>>, CaptureError> {
        if self.is_over {
            return Ok(None);
        }
        let number = self.packets + 1;
        let found = match &mut self.kind {
            Kind::Pcap(header) => header.next(&mut self.source),
            Kind::Pcapng(section) => section.next(&mut self.source, &mut self.warnings),
        };
        let place = match found {
            Ok(Found::Packet(place)) => place,
            Ok(Found::End) => {
                self.is_over = true;
                return Ok(None);
            }
            Ok(Found::Cut { offset, is_packet }) => {
                self.is_over = true;
                self.warn_of_cut(offset, is_packet);
                return Ok(None);
            }
            Err(error) => {
                self.is_over = true;
                return Err(error.at_packet(number));
            }
        };
        self.packets = number;
        let at_ns = place.at_ns.unwrap_or(self.last_ns);
        self.last_ns = at_ns;
        Ok(Some(Record {
            number,
            offset: place.offset,
            at_ns,
            interface: place.interface,
            link: place.link,
            original_bytes: place.original_bytes,
            bytes: self.source.part(place.bytes),
            notes: Notes { bytes: self.source.part(place.notes), is_big_endian: place.is_big_endian },
        }))
    }

    fn warn_of_cut(&mut self, offset: u64, is_packet: bool) {
        let what = if is_packet { format!("packet {}", self.packets + 1) } else { "a block".to_owned() };
        let packed = if self.source.is_packed() { " of the unpacked file" } else { "" };
        let text = format!(
            "{what} at byte {offset}{packed} is not whole: the file ends there. The {} packets before it are used",
            self.packets
        );
        self.warnings.push(text);
    }

    /// What kind of file it is.
    #[must_use]
    pub const fn format(&self) -> Format {
        match self.kind {
            Kind::Pcap(_) => Format::Pcap,
            Kind::Pcapng(_) => Format::Pcapng,
        }
    }

    /// Whether it is packed with gzip.
    #[must_use]
    pub const fn is_packed(&self) -> bool {
        self.source.is_packed()
    }

    /// Packets that have been read.
    #[must_use]
    pub const fn packets(&self) -> u64 {
        self.packets
    }

    /// The name of an interface of the section under way, where it has one.
    #[must_use]
    pub fn interface_name(&self, interface: u32) -> Option<&str> {
        match &self.kind {
            Kind::Pcap(_) => None,
            Kind::Pcapng(section) => section.name(interface),
        }
    }

    /// What is not as it should be and yet no error; at most [`WARNINGS_MAX`].
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}
