//! The format of Wireshark (draft-ietf-opsawg-pcapng): blocks, each with its length in front and behind. Sections,
//! interfaces and the three kinds of packets are read, other blocks are passed over.

use super::error::{CaptureError, Problem};
use super::link::Link;
use super::source::Source;
use super::{BLOCK_BYTES_MAX, Found, INTERFACES_MAX, PACKET_BYTES_MAX, Place, WARNINGS_MAX};

/// How a section header block begins, in either byte order.
pub(super) const SECTION_BLOCK: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
/// The byte order mark of a section.
pub(super) const BYTE_ORDER: u32 = 0x1a2b_3c4d;
pub(super) const INTERFACE_BLOCK: u32 = 1;
const OLD_PACKET_BLOCK: u32 = 2;
const SIMPLE_PACKET_BLOCK: u32 = 3;
pub(super) const PACKET_BLOCK: u32 = 6;

pub(super) const OPTION_COMMENT: u16 = 1;
/// The name of an interface, and the flags of a packet.
pub(super) const OPTION_NAME: u16 = 2;
pub(super) const OPTION_FLAGS: u16 = 2;
pub(super) const OPTION_PACKET_ID: u16 = 5;
pub(super) const OPTION_RESOLUTION: u16 = 9;
const OPTION_TIME_OFFSET: u16 = 14;

/// Bytes of a block around its body.
const FRAME_BYTES: usize = 12;
/// The most options of one block that are looked at.
const OPTIONS_MAX: usize = 64;

/// An interface as its block describes it.
#[derive(Clone, Debug)]
struct Interface {
    name: String,
    link: Link,
    snapshot_bytes: u32,
    unit: Unit,
    /// Seconds that are added to each time.
    seconds: i64,
}

/// How times of an interface become nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// Times this.
    Times(u64),
    /// Divided by this.
    Parts(u64),
    /// In parts of a second of two to this power.
    Binary(u8),
}

impl Unit {
    /// From the option `if_tsresol`: ten to the minus `value`, or two when the top bit is set.
    fn of(value: u8) -> Self {
        if value & 0x80 != 0 {
            return Self::Binary(value & 0x7f);
        }
        let power = |exponent: u8| 10u64.checked_pow(u32::from(exponent));
        match value {
            0..=9 => Self::Times(power(9 - value).unwrap_or(1)),
            // Less than the smallest part of the largest time is nothing.
            _ => power(value - 9).map_or(Self::Binary(127), Self::Parts),
        }
    }

    fn nanoseconds(self, time: u64) -> u64 {
        match self {
            Self::Times(factor) => time.saturating_mul(factor),
            Self::Parts(divisor) => time / divisor.max(1),
            Self::Binary(shift) => {
                let whole = u128::from(time) * 1_000_000_000;
                u64::try_from(whole >> shift.min(127)).unwrap_or(u64::MAX)
            }
        }
    }
}

/// The section under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Section {
    is_big_endian: bool,
    interfaces: Vec<Interface>,
}

/// A block: where its body lies in the source's buffer.
#[derive(Clone, Copy, Debug)]
struct Block {
    kind: u32,
    offset: u64,
    start: usize,
    end: usize,
}

impl Section {
    pub(super) fn name(&self, interface: u32) -> Option<&str> {
        let interface = self.interfaces.get(usize::try_from(interface).ok()?)?;
        Some(&interface.name).filter(|name| !name.is_empty()).map(String::as_str)
    }

    /// Reads the section header that a file begins with.
    pub(super) fn begin(&mut self, source: &mut Source<'_>) -> Result<(), CaptureError> {
        match self.block(source)? {
            Step::Block(_) => Ok(()),
            Step::End | Step::Cut { .. } => Err(source.error(Problem::HeaderCut)),
        }
    }

    pub(super) fn next(
        &mut self,
        source: &mut Source<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Found, CaptureError> {
        // Each turn takes at least twelve bytes of the file.
        loop {
            let block = match self.block(source)? {
                Step::Block(block) => block,
                Step::End => return Ok(Found::End),
                Step::Cut { offset, is_packet } => return Ok(Found::Cut { offset, is_packet }),
            };
            let wrong = |problem| CaptureError::new(block.offset, source.is_packed(), problem);
            let body = source.part((block.start, block.end));
            let place = match block.kind {
                INTERFACE_BLOCK => {
                    if self.interfaces.len() >= INTERFACES_MAX {
                        return Err(wrong(Problem::Interfaces));
                    }
                    let interface = self.interface(body).map_err(wrong)?;
                    if let Link::Unknown(number) = interface.link
                        && warnings.len() < WARNINGS_MAX
                    {
                        warnings.push(unknown_link(self.interfaces.len(), number));
                    }
                    self.interfaces.push(interface);
                    continue;
                }
                PACKET_BLOCK => self.packet(body, block.start),
                SIMPLE_PACKET_BLOCK => self.simple_packet(body, block.start),
                OLD_PACKET_BLOCK => self.old_packet(body, block.start),
                _ => continue,
            };
            let place = place.map_err(wrong)?;
            return Ok(Found::Packet(Place { offset: block.offset, ..place }));
        }
    }

    /// Takes the next block as a whole, and the byte order from a section header.
    fn block(&mut self, source: &mut Source<'_>) -> Result<Step, CaptureError> {
        let offset = source.offset();
        let Some([k0, k1, k2, k3, length @ ..]) = source.peek::<8>()? else {
            let is_end = source.waiting().is_empty();
            return Ok(if is_end { Step::End } else { Step::Cut { offset, is_packet: false } });
        };
        let kind_bytes = [k0, k1, k2, k3];
        let is_section = kind_bytes == SECTION_BLOCK;
        if is_section {
            let Some([_, _, _, _, _, _, _, _, mark @ ..]) = source.peek::<12>()? else {
                return Ok(Step::Cut { offset, is_packet: false });
            };
            self.is_big_endian = match (u32::from_be_bytes(mark), u32::from_le_bytes(mark)) {
                (BYTE_ORDER, _) => true,
                (_, BYTE_ORDER) => false,
                _ => return Err(source.error(Problem::ByteOrder)),
            };
        }
        let kind = self.number(kind_bytes);
        let claimed = self.number(length);
        let least = if is_section { 28 } else { 12 };
        if claimed < least || claimed > BLOCK_BYTES_MAX || !claimed.is_multiple_of(4) {
            return Err(source.error(Problem::BlockLength { claimed }));
        }
        let length = usize::try_from(claimed).unwrap_or(usize::MAX);
        if !source.has(length)? {
            let is_packet = matches!(kind, PACKET_BLOCK | SIMPLE_PACKET_BLOCK | OLD_PACKET_BLOCK);
            return Ok(Step::Cut { offset, is_packet });
        }
        let last = source.waiting().get(length - 4..length).and_then(|last| last.first_chunk::<4>());
        let after = last.map_or(0, |last| self.number(*last));
        if after != claimed {
            return Err(source.error(Problem::Lengths { before: claimed, after }));
        }
        if is_section {
            self.section(source)?;
        }
        let start = source.take(length);
        Ok(Step::Block(Block { kind, offset, start: start + 8, end: start + length - (FRAME_BYTES - 8) }))
    }

    /// A new section: what the one before described is over.
    fn section(&mut self, source: &Source<'_>) -> Result<(), CaptureError> {
        self.interfaces.clear();
        let versions = source.waiting().get(12..16).and_then(|bytes| bytes.first_chunk::<4>());
        let [a, b, c, d] = versions.copied().unwrap_or_default();
        let (major, minor) = (self.half([a, b]), self.half([c, d]));
        if major == 1 { Ok(()) } else { Err(source.error(Problem::Version { major, minor })) }
    }

    fn interface(&self, body: &[u8]) -> Result<Interface, Problem> {
        let Some(([l0, l1, _, _, snapshot @ ..], options)) = body.split_first_chunk::<8>() else {
            return Err(Problem::Inside { what: "a description", claimed: 8, room: body.len() });
        };
        let find = |kind| option(options, self.is_big_endian, kind);
        let name = find(OPTION_NAME).map(|name| String::from_utf8_lossy(name).into_owned());
        // Without the option times are in microseconds.
        let unit = find(OPTION_RESOLUTION)
            .and_then(<[u8]>::first)
            .map_or(Unit::Times(1_000), |value| Unit::of(*value));
        let seconds = find(OPTION_TIME_OFFSET).and_then(|bytes| bytes.first_chunk::<8>());
        let seconds = seconds.map_or(0, |bytes| {
            if self.is_big_endian { i64::from_be_bytes(*bytes) } else { i64::from_le_bytes(*bytes) }
        });
        let link = Link::of(self.half([*l0, *l1]));
        let snapshot_bytes = self.number(*snapshot);
        Ok(Interface { name: name.unwrap_or_default(), link, snapshot_bytes, unit, seconds })
    }

    /// An enhanced packet block.
    #[inline]
    fn packet(&self, body: &[u8], start: usize) -> Result<Place, Problem> {
        let Some((head, rest)) = body.split_first_chunk::<20>() else {
            return Err(Problem::Inside { what: "a packet's header", claimed: 20, room: body.len() });
        };
        let (fields, _) = head.as_chunks::<4>();
        let [interface, high, low, captured, original] = *fields else {
            return Err(Problem::Inside { what: "a packet's header", claimed: 20, room: body.len() });
        };
        let interface = self.number(interface);
        let time = u64::from(self.number(high)) << 32 | u64::from(self.number(low));
        self.place((interface, Some(time)), self.number(captured), self.number(original), rest, start + 20)
    }

    /// A packet block of the kind that newer files no longer have.
    fn old_packet(&self, body: &[u8], start: usize) -> Result<Place, Problem> {
        let Some(([i0, i1, _, _, fields @ ..], rest)) = body.split_first_chunk::<20>() else {
            return Err(Problem::Inside { what: "a packet's header", claimed: 20, room: body.len() });
        };
        let (fields, _) = fields.as_chunks::<4>();
        let [high, low, captured, original] = *fields else {
            return Err(Problem::Inside { what: "a packet's header", claimed: 20, room: body.len() });
        };
        let interface = u32::from(self.half([*i0, *i1]));
        let time = u64::from(self.number(high)) << 32 | u64::from(self.number(low));
        self.place((interface, Some(time)), self.number(captured), self.number(original), rest, start + 20)
    }

    /// A simple packet block: of the first interface, without a time, as long as the snapshot length lets it be.
    fn simple_packet(&self, body: &[u8], start: usize) -> Result<Place, Problem> {
        let Some((original, rest)) = body.split_first_chunk::<4>() else {
            return Err(Problem::Inside { what: "a packet's header", claimed: 4, room: body.len() });
        };
        let original = self.number(*original);
        let snapshot = self.interfaces.first().map_or(0, |interface| interface.snapshot_bytes);
        let captured = if snapshot == 0 { original } else { original.min(snapshot) };
        let mut place = self.place((0, None), captured, original, rest, start + 4)?;
        place.notes = (0, 0);
        Ok(place)
    }

    /// A packet whose bytes begin `rest`, which lies at `start` of the source's buffer.
    #[inline]
    fn place(
        &self,
        (number, time): (u32, Option<u64>),
        captured: u32,
        original_bytes: u32,
        rest: &[u8],
        start: usize,
    ) -> Result<Place, Problem> {
        let known = usize::try_from(number).ok().and_then(|number| self.interfaces.get(number));
        let Some(interface) = known else {
            return Err(Problem::Interface { number, known: self.interfaces.len() });
        };
        if captured > PACKET_BYTES_MAX {
            return Err(Problem::PacketLength { claimed: captured });
        }
        let length = usize::try_from(captured).unwrap_or(usize::MAX);
        if length > rest.len() {
            return Err(Problem::Inside { what: "a packet", claimed: captured, room: rest.len() });
        }
        let at_ns = time.map(|time| {
            let nanoseconds = i128::from(interface.unit.nanoseconds(time));
            let shifted = nanoseconds + i128::from(interface.seconds) * 1_000_000_000;
            u64::try_from(shifted.max(0)).unwrap_or(u64::MAX)
        });
        let padded = length.next_multiple_of(4).min(rest.len());
        Ok(Place {
            offset: 0,
            at_ns,
            interface: number,
            link: interface.link,
            original_bytes,
            bytes: (start, start + length),
            notes: (start + padded, start + rest.len()),
            is_big_endian: self.is_big_endian,
        })
    }

    #[inline]
    const fn number(&self, bytes: [u8; 4]) -> u32 {
        if self.is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    #[inline]
    const fn half(&self, bytes: [u8; 2]) -> u16 {
        if self.is_big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }
}

/// The next block, or why there is none.
enum Step {
    Block(Block),
    End,
    Cut { offset: u64, is_packet: bool },
}

fn unknown_link(number: usize, link: u16) -> String {
    format!("interface {number} has link type {link}, which cannot be replayed; its packets are skipped")
}

/// The value of the first option of this kind. What does not fit ends the search.
pub(super) fn option(mut options: &[u8], is_big_endian: bool, wanted: u16) -> Option<&[u8]> {
    let half =
        |bytes: [u8; 2]| if is_big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) };
    for _ in 0..OPTIONS_MAX {
        let ([k0, k1, l0, l1], rest) = options.split_first_chunk::<4>()?;
        let (kind, length) = (half([*k0, *k1]), usize::from(half([*l0, *l1])));
        let value = rest.get(..length)?;
        match kind {
            0 => return None,
            _ if kind == wanted => return Some(value),
            _ => options = rest.get(length.next_multiple_of(4)..)?,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_resolution_gives_nanoseconds() {
        for (value, time, nanoseconds) in [
            (0, 7, 7_000_000_000),
            (3, 7, 7_000_000),
            (6, 1_700_000_000_000_001, 1_700_000_000_000_001_000),
            (9, u64::MAX, u64::MAX),
            (12, 7_999, 7),
            (28, u64::MAX, 1),
            (29, u64::MAX, 0),
            (127, u64::MAX, 0),
            (0x80, 3, 3_000_000_000),
            (0x80 | 10, 1_536, 1_500_000_000),
            (0x80 | 32, 1 << 31, 500_000_000),
            (0xff, u64::MAX, 0),
            (0, u64::MAX, u64::MAX),
            (0x80, u64::MAX, u64::MAX),
        ] {
            assert_eq!(Unit::of(value).nanoseconds(time), nanoseconds, "{value} {time}");
        }
    }

    #[test]
    fn options_end_where_they_do_not_fit() {
        let options = [1, 0, 3, 0, b'a', b'b', b'c', 0, 5, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(option(&options, false, 1), Some(&b"abc"[..]));
        assert_eq!(option(&options, false, 5), Some(&[9][..]));
        assert_eq!(option(&options, false, 7), None);
        assert_eq!(option(&options[..6], false, 1), None);
        assert_eq!(option(&options, true, 5), None);
        let endless = [9, 0, 0, 0].repeat(OPTIONS_MAX * 2);
        assert_eq!(option(&endless, false, 1), None);
    }
}
