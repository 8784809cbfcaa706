//! The format of libpcap: a header of 24 bytes, then each packet behind a header of 16.

use super::error::{CaptureError, Problem};
use super::link::Link;
use super::source::Source;
use super::{Found, PACKET_BYTES_MAX, Place};

/// Bytes of the header of the file.
const HEADER_BYTES: usize = 24;
/// Bytes of the header of a packet.
const RECORD_BYTES: usize = 16;
/// Times are in microseconds.
const MICROSECONDS: u32 = 0xa1b2_c3d4;
/// Times are in nanoseconds.
const NANOSECONDS: u32 = 0xa1b2_3c4d;

/// What the header of the file says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    is_big_endian: bool,
    /// Nanoseconds of a unit of the fraction of a second.
    unit_ns: u64,
    link: Link,
}

impl Header {
    pub(super) fn read(source: &mut Source<'_>) -> Result<Self, CaptureError> {
        let Some(magic) = source.peek::<4>()? else {
            return Err(source.error(no_capture(source.waiting())));
        };
        let (is_big_endian, unit_ns) = match (u32::from_be_bytes(magic), u32::from_le_bytes(magic)) {
            (MICROSECONDS, _) => (true, 1_000),
            (NANOSECONDS, _) => (true, 1),
            (_, MICROSECONDS) => (false, 1_000),
            (_, NANOSECONDS) => (false, 1),
            _ => return Err(source.error(no_capture(&magic))),
        };
        let Some(header) = source.peek::<HEADER_BYTES>()? else {
            return Err(source.error(Problem::HeaderCut));
        };
        let [_, _, _, _, a, b, c, d, _, _, _, _, _, _, _, _, _, _, _, _, link @ ..] = header;
        let number =
            |two: [u8; 2]| if is_big_endian { u16::from_be_bytes(two) } else { u16::from_le_bytes(two) };
        let (major, minor) = (number([a, b]), number([c, d]));
        if major != 2 {
            return Err(source.error(Problem::Version { major, minor }));
        }
        // The upper half says whether frames have a check sequence; what is behind an IP packet is left alone anyway.
        let link = if is_big_endian { u32::from_be_bytes(link) } else { u32::from_le_bytes(link) };
        let link = u16::try_from(link & 0xffff).unwrap_or(u16::MAX);
        let link = Link::of(link);
        if let Link::Unknown(number) = link {
            return Err(source.error(Problem::Link { number }));
        }
        source.take(HEADER_BYTES);
        Ok(Self { is_big_endian, unit_ns, link })
    }

    pub(super) fn next(&self, source: &mut Source<'_>) -> Result<Found, CaptureError> {
        let offset = source.offset();
        let Some(record) = source.peek::<RECORD_BYTES>()? else {
            let is_end = source.waiting().is_empty();
            return Ok(if is_end { Found::End } else { Found::Cut { offset, is_packet: true } });
        };
        let (fields, _) = record.as_chunks::<4>();
        let [seconds, fraction, captured, original] = *fields else { return Ok(Found::End) };
        let number = |four: [u8; 4]| {
            if self.is_big_endian { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) }
        };
        let captured = number(captured);
        if captured > PACKET_BYTES_MAX {
            return Err(source.error(Problem::PacketLength { claimed: captured }));
        }
        let length = usize::try_from(captured).unwrap_or(usize::MAX);
        if !source.has(RECORD_BYTES + length)? {
            return Ok(Found::Cut { offset, is_packet: true });
        }
        let start = source.take(RECORD_BYTES + length) + RECORD_BYTES;
        let at_ns = u64::from(number(seconds)) * 1_000_000_000 + u64::from(number(fraction)) * self.unit_ns;
        Ok(Found::Packet(Place {
            offset,
            at_ns: Some(at_ns),
            interface: 0,
            link: self.link,
            original_bytes: number(original),
            bytes: (start, start + length),
            notes: (0, 0),
            is_big_endian: self.is_big_endian,
        }))
    }
}

fn no_capture(first: &[u8]) -> Problem {
    let found: Vec<String> = first.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    Problem::NoCapture { found: found.join(" ") }
}
