//! Writes pcapng: a file that is valid whenever it ends, for blocks leave whole.
//!
//! Everything is little endian and in nanoseconds. An interface may be described at any time, before its first packet.

use std::io::{self, Write};

use super::link::Link;
use super::pcapng::{
    BYTE_ORDER, INTERFACE_BLOCK, OPTION_COMMENT, OPTION_FLAGS, OPTION_NAME, OPTION_PACKET_ID,
    OPTION_RESOLUTION, PACKET_BLOCK, SECTION_BLOCK,
};

/// The most bytes of a comment: a line that fits a screen some times over. The rest is left out.
pub const COMMENT_BYTES_MAX: usize = 1_024;
/// Bytes that are gathered before they are written.
const GATHERED_BYTES: usize = 64 << 10;
/// The application that wrote the file, in a section header.
const OPTION_APPLICATION: u16 = 4;

/// Which way a packet goes through the interface where it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It comes in.
    In,
    /// It goes out.
    Out,
}

/// What is said of a packet besides its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Heading {
    /// The number that [`Writer::interface`] gave.
    pub interface: u32,
    /// When, in nanoseconds since 1970 in UTC.
    pub at_ns: u64,
    /// Which way it goes.
    pub way: Way,
    /// The number that copies of this packet share.
    pub packet_id: u64,
}

/// One copy of a packet, as it was seen at one place.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Where and when.
    pub heading: Heading,
    /// Its bytes.
    pub bytes: &'a [u8],
    /// What there is to say about it; empty where there is nothing.
    pub comment: &'a str,
}

/// A pcapng file under way.
#[derive(Debug)]
pub struct Writer<W: Write> {
    output: W,
    /// Whole blocks that have not been written.
    gathered: Vec<u8>,
    interfaces: u32,
}

impl<W: Write> Writer<W> {
    /// Begins a file. It needs no buffer behind.
    ///
    /// # Errors
    /// When the output fails.
    pub fn new(output: W) -> io::Result<Self> {
        let mut writer = Self { output, gathered: Vec::with_capacity(GATHERED_BYTES * 2), interfaces: 0 };
        let application = concat!("evenkeel ", env!("CARGO_PKG_VERSION"));
        writer.block(u32::from_le_bytes(SECTION_BLOCK), |block| {
            block.extend(BYTE_ORDER.to_le_bytes());
            block.extend([1, 0, 0, 0]);
            // The length of the section is not known.
            block.extend([0xff; 8]);
            option(block, OPTION_APPLICATION, application.as_bytes());
            end_of_options(block);
        })?;
        Ok(writer)
    }

    /// Describes an interface and gives its number.
    ///
    /// # Errors
    /// When the output fails.
    pub fn interface(&mut self, name: &str, link: Link) -> io::Result<u32> {
        let number = self.interfaces;
        self.interfaces += 1;
        self.block(INTERFACE_BLOCK, |block| {
            block.extend(link.number().to_le_bytes());
            block.extend([0, 0]);
            // No bound on the length of packets.
            block.extend([0; 4]);
            option(block, OPTION_NAME, name.as_bytes());
            option(block, OPTION_RESOLUTION, &[9]);
            end_of_options(block);
        })?;
        Ok(number)
    }

    /// Writes one copy of a packet.
    ///
    /// # Errors
    /// When the output fails.
    pub fn packet(&mut self, seen: &Seen<'_>) -> io::Result<()> {
        let Heading { interface, at_ns, way, packet_id } = seen.heading;
        let length = u32::try_from(seen.bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
        let [t0, t1, t2, t3, high @ ..] = at_ns.to_le_bytes();
        self.block(PACKET_BLOCK, |block| {
            for field in [interface.to_le_bytes(), high, [t0, t1, t2, t3], length, length] {
                block.extend(field);
            }
            block.extend_from_slice(seen.bytes);
            pad(block, seen.bytes.len());
            let comment = shortened(seen.comment);
            if !comment.is_empty() {
                option(block, OPTION_COMMENT, comment.as_bytes());
            }
            let flags: u32 = match way {
                Way::In => 1,
                Way::Out => 2,
            };
            option(block, OPTION_FLAGS, &flags.to_le_bytes());
            option(block, OPTION_PACKET_ID, &packet_id.to_le_bytes());
            end_of_options(block);
        })
    }

    /// Writes what has been gathered.
    ///
    /// # Errors
    /// When the output fails.
    pub fn flush(&mut self) -> io::Result<()> {
        self.output.write_all(&self.gathered)?;
        self.gathered.clear();
        self.output.flush()
    }

    /// Ends the file.
    ///
    /// # Errors
    /// When the output fails.
    pub fn finish(mut self) -> io::Result<W> {
        self.flush()?;
        Ok(self.output)
    }

    /// Gathers a block, whose body `fill` appends, and writes what is gathered when it is enough.
    fn block(&mut self, kind: u32, fill: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let start = self.gathered.len();
        self.gathered.extend(kind.to_le_bytes());
        self.gathered.extend([0; 4]);
        fill(&mut self.gathered);
        let length = self.gathered.len() - start + 4;
        let length = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
        self.gathered.extend(length);
        if let Some(place) = self.gathered.get_mut(start + 4..start + 8) {
            place.copy_from_slice(&length);
        }
        if self.gathered.len() >= GATHERED_BYTES {
            self.output.write_all(&self.gathered)?;
            self.gathered.clear();
        }
        Ok(())
    }
}

/// The beginning of a comment that is too long, whole characters of it.
fn shortened(comment: &str) -> &str {
    let end = (0..=COMMENT_BYTES_MAX.min(comment.len())).rev().find(|end| comment.is_char_boundary(*end));
    comment.get(..end.unwrap_or(0)).unwrap_or_default()
}

fn option(block: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    let value = value.get(..usize::from(length)).unwrap_or_default();
    block.extend(kind.to_le_bytes());
    block.extend(length.to_le_bytes());
    block.extend_from_slice(value);
    pad(block, value.len());
}

fn end_of_options(block: &mut Vec<u8>) {
    block.extend([0; 4]);
}

/// Fills up to a multiple of four.
fn pad(block: &mut Vec<u8>, length: usize) {
    block.extend(std::iter::repeat_n(0, length.next_multiple_of(4) - length));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Reader;

    fn seen_at(number: u64, bytes: &[u8]) -> Seen<'_> {
        let heading = Heading { interface: 0, at_ns: number, way: Way::Out, packet_id: number };
        Seen { heading, bytes, comment: "é" }
    }

    #[test]
    fn a_long_comment_is_cut_between_characters() {
        let long = "é".repeat(COMMENT_BYTES_MAX);
        assert_eq!(shortened(&long), "é".repeat(COMMENT_BYTES_MAX / 2));
        assert_eq!(shortened(&format!("a{long}")).len(), COMMENT_BYTES_MAX - 1);
        assert_eq!(shortened(""), "");
    }

    /// An output that keeps each write apart.
    #[derive(Default)]
    struct Writes(Vec<Vec<u8>>);

    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.push(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_file_is_valid_after_each_write() {
        let mut writer = Writer::new(Writes::default()).unwrap();
        writer.interface("tun0", Link::Raw).unwrap();
        let packet = vec![0x45; 1_001];
        for number in 0..200 {
            writer.packet(&seen_at(number, &packet)).unwrap();
        }
        let writes = writer.finish().unwrap().0;
        assert!(writes.len() > 3, "{}", writes.len());
        let mut file = Vec::new();
        let mut seen = 0;
        for write in writes {
            file.extend(write);
            let mut reader = Reader::new(&file[..]).unwrap();
            let mut packets = 0;
            while let Some(record) = reader.next().unwrap() {
                assert_eq!((record.at_ns, record.bytes), (packets, &packet[..]));
                assert_eq!(record.notes.comment(), Some("é"));
                assert_eq!((record.notes.packet_id(), record.notes.way()), (Some(packets), Some(Way::Out)));
                packets += 1;
            }
            assert_eq!(reader.warnings(), [] as [String; 0]);
            assert_eq!(reader.interface_name(0), Some("tun0"));
            assert!(packets > seen);
            seen = packets;
        }
        assert_eq!(seen, 200);
    }
}
