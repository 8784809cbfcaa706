//! How numbers, addresses and tuples are written down: numbers in as many bytes as they need, seven bits each.

use alloc::vec::Vec;

use super::MemoryError;
use crate::verdict::InterfaceId;
use crate::wire::{Address, FiveTuple, Protocol};

/// The longest packet and the longest state of a scheduler that are read, in bytes.
const BYTES_MAX: u64 = 1 << 20;

/// The most of anything that is read, so that a few bytes can not ask for much memory.
const COUNT_MAX: u64 = 1 << 17;

/// Writes them.
#[derive(Debug, Default)]
pub(super) struct Write(pub(super) Vec<u8>);

impl Write {
    pub(super) fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(u8::try_from(number & 0x7f).unwrap_or(0) | 0x80);
            number >>= 7;
        }
        self.0.push(u8::try_from(number).unwrap_or(0));
    }

    pub(super) fn numbers(&mut self, numbers: &[u64]) {
        numbers.iter().for_each(|number| self.number(*number));
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn address(&mut self, address: Address) {
        if address.is_v4() {
            self.0.push(4);
            self.0.extend(address.v4_bytes());
        } else {
            self.0.push(6);
            self.0.extend(address.v6_bytes());
        }
    }

    pub(super) fn tuple(&mut self, tuple: &FiveTuple) {
        self.address(tuple.source);
        self.address(tuple.destination);
        let FiveTuple { source_port, destination_port, protocol, .. } = *tuple;
        self.numbers(&[u64::from(source_port), u64::from(destination_port), u64::from(protocol.0)]);
    }

    pub(super) fn many<T>(
        &mut self,
        all: impl Iterator<Item = T>,
        mut one: impl FnMut(&mut Self, T) -> Result<(), MemoryError>,
    ) -> Result<(), MemoryError> {
        let mut inner = Self::default();
        let mut count = 0;
        for each in all {
            one(&mut inner, each)?;
            count += 1;
        }
        self.number(count);
        self.0.append(&mut inner.0);
        Ok(())
    }
}

/// Reads them.
#[derive(Debug)]
pub(super) struct Read<'a>(pub(super) &'a [u8]);

impl<'a> Read<'a> {
    pub(super) fn number(&mut self) -> Result<u64, MemoryError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(MemoryError::Bytes)?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(MemoryError::Bytes)
    }

    pub(super) fn small(&mut self) -> Result<u16, MemoryError> {
        u16::try_from(self.number()?).map_err(|_| MemoryError::Bytes)
    }

    pub(super) fn byte(&mut self) -> Result<u8, MemoryError> {
        u8::try_from(self.number()?).map_err(|_| MemoryError::Bytes)
    }

    pub(super) fn count(&mut self) -> Result<u64, MemoryError> {
        self.number().and_then(|count| if count <= COUNT_MAX { Ok(count) } else { Err(MemoryError::Bytes) })
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], MemoryError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(MemoryError::Bytes)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], MemoryError> {
        let count = self.number()?;
        if count > BYTES_MAX {
            return Err(MemoryError::Bytes);
        }
        self.take(usize::try_from(count).unwrap_or(usize::MAX))
    }

    pub(super) fn address(&mut self) -> Result<Address, MemoryError> {
        match self.take(1)? {
            [4] => self.take(4)?.first_chunk().map(|bytes| Address::v4(*bytes)),
            [6] => self.take(16)?.first_chunk().map(|bytes| Address::v6(*bytes)),
            _ => None,
        }
        .ok_or(MemoryError::Bytes)
    }

    pub(super) fn interface(&mut self) -> Result<InterfaceId, MemoryError> {
        self.small().map(InterfaceId)
    }

    pub(super) fn tuple(&mut self) -> Result<FiveTuple, MemoryError> {
        Ok(FiveTuple {
            source: self.address()?,
            destination: self.address()?,
            source_port: self.small()?,
            destination_port: self.small()?,
            protocol: Protocol(self.byte()?),
        })
    }

    pub(super) fn many<T>(
        &mut self,
        mut one: impl FnMut(&mut Self) -> Result<T, MemoryError>,
    ) -> Result<Vec<T>, MemoryError> {
        (0..self.count()?).map(|_| one(self)).collect()
    }
}
