//! Bytes from an input, in pieces that lie together, with their place in the file.

use std::io::{self, Cursor, Read};

use flate2::read::MultiGzDecoder;

use super::error::{CaptureError, Problem};

/// Bytes that are asked for at once: large enough that a system call costs nothing per packet.
const PIECE_BYTES: usize = 256 << 10;
/// How a file begins that is packed with gzip (RFC 1952).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// An input and the bytes of it that are looked at.
pub(super) struct Source<'a> {
    input: Box<dyn Read + 'a>,
    buffer: Vec<u8>,
    /// Where what has not been consumed begins and ends.
    start: usize,
    end: usize,
    /// The place of `start` in the file.
    offset: u64,
    is_over: bool,
    is_packed: bool,
}

impl std::fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { start, end, offset, is_packed, .. } = self;
        write!(f, "Source {{ offset: {offset}, waiting: {}, is_packed: {is_packed} }}", end - start)
    }
}

impl<'a> Source<'a> {
    /// Looks at how the input begins and unpacks it where it is packed.
    pub(super) fn open(input: Box<dyn Read + 'a>) -> Result<Self, CaptureError> {
        let mut source = Self::over(input, false);
        match source.peek::<2>()? {
            Some(GZIP) => {}
            _ if source.end == 0 => return Err(source.error(Problem::Empty)),
            _ => return Ok(source),
        }
        source.buffer.truncate(source.end);
        let whole = Cursor::new(source.buffer).chain(source.input);
        let mut source = Self::over(Box::new(MultiGzDecoder::new(whole)), true);
        if source.peek::<1>()?.is_none() {
            return Err(source.error(Problem::Empty));
        }
        Ok(source)
    }

    fn over(input: Box<dyn Read + 'a>, is_packed: bool) -> Self {
        let buffer = vec![0; PIECE_BYTES];
        Self { input, buffer, start: 0, end: 0, offset: 0, is_over: false, is_packed }
    }

    pub(super) const fn is_packed(&self) -> bool {
        self.is_packed
    }

    /// Where what comes next begins in the file.
    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    /// A mistake in what comes next.
    pub(super) const fn error(&self, problem: Problem) -> CaptureError {
        CaptureError::new(self.offset, self.is_packed, problem)
    }

    /// The next `N` bytes, or nothing where the file has not so many left.
    #[inline]
    pub(super) fn peek<const N: usize>(&mut self) -> Result<Option<[u8; N]>, CaptureError> {
        if !self.has(N)? {
            return Ok(None);
        }
        Ok(self.waiting().first_chunk::<N>().copied())
    }

    /// Whether `length` more bytes are there. They lie together then.
    #[inline]
    pub(super) fn has(&mut self, length: usize) -> Result<bool, CaptureError> {
        if self.end - self.start >= length {
            return Ok(true);
        }
        self.fill(length)
    }

    /// What has come and not been consumed.
    #[inline]
    pub(super) fn waiting(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Goes past `length` bytes, which have come, and says where they lie: until more is asked for.
    #[inline]
    pub(super) fn take(&mut self, length: usize) -> usize {
        let start = self.start;
        let length = length.min(self.end - start);
        self.start += length;
        self.offset += u64::try_from(length).unwrap_or(0);
        start
    }

    /// Bytes that have been taken.
    #[inline]
    pub(super) fn part(&self, (start, end): (usize, usize)) -> &[u8] {
        self.buffer.get(start..end).unwrap_or_default()
    }

    /// Reads until `length` bytes wait or the input ends. The buffer grows with what comes, not with what is claimed.
    #[cold]
    fn fill(&mut self, length: usize) -> Result<bool, CaptureError> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        while self.end < length && !self.is_over {
            if self.end == self.buffer.len() {
                self.buffer.resize(self.end * 2, 0);
            }
            let Some(room) = self.buffer.get_mut(self.end..) else { break };
            match self.input.read(room) {
                Ok(0) => self.is_over = true,
                Ok(count) => self.end = (self.end + count).min(self.buffer.len()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A packed file that is cut ends as one that is not packed.
                Err(error) if self.is_packed && error.kind() == io::ErrorKind::UnexpectedEof => {
                    self.is_over = true;
                }
                Err(error) => {
                    let offset = self.offset + u64::try_from(self.end).unwrap_or(0);
                    return Err(CaptureError::new(offset, self.is_packed, Problem::Input(error)));
                }
            }
        }
        Ok(self.end >= length)
    }
}
