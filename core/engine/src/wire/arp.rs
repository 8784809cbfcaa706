//! ARP for IPv4 on Ethernet (RFC 826).

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::ethernet::MacAddress;
use crate::verdict::DropReason;

/// Bytes of a message.
pub const MESSAGE_BYTES: usize = 28;

const REQUEST: u16 = 1;
const REPLY: u16 = 2;

/// A message.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Message {
    hardware: U16,
    protocol: U16,
    hardware_length: u8,
    protocol_length: u8,
    operation: U16,
    sender_mac: [u8; 6],
    sender_address: [u8; 4],
    target_mac: [u8; 6],
    target_address: [u8; 4],
}

impl Message {
    /// Checks the message at the start of `payload`.
    ///
    /// # Errors
    /// `Truncated` when bytes are missing, `BadHeader` when it is not about IPv4 on Ethernet or its sender is a group.
    pub fn split(payload: &mut [u8]) -> Result<&mut Self, DropReason> {
        let Ok((message, _)) = Self::mut_from_prefix(payload) else { return Err(DropReason::Truncated) };
        let kinds = (message.hardware.get(), message.protocol.get());
        let lengths = (message.hardware_length, message.protocol_length);
        if kinds != (1, 0x0800) || lengths != (6, 4) || message.sender_mac().is_group() {
            return Err(DropReason::BadHeader);
        }
        Ok(message)
    }

    /// The question who has `target`.
    #[must_use]
    pub fn request(sender_mac: MacAddress, sender: [u8; 4], target: [u8; 4]) -> Self {
        Self {
            hardware: U16::new(1),
            protocol: U16::new(0x0800),
            hardware_length: 6,
            protocol_length: 4,
            operation: U16::new(REQUEST),
            sender_mac: sender_mac.0,
            sender_address: sender,
            target_mac: [0; 6],
            target_address: target,
        }
    }

    /// The news for all on the link that `mac` has `address` from now on: a question for one's own address (RFC 5227
    /// s.2.3). Its frame goes to everyone.
    #[must_use]
    pub fn announcement(mac: MacAddress, address: [u8; 4]) -> Self {
        Self::request(mac, address, address)
    }

    /// Turns a question into the answer that `mac` has the address asked for.
    pub fn become_reply(&mut self, mac: MacAddress) {
        let asked = self.target_address;
        self.operation.set(REPLY);
        self.target_mac = self.sender_mac;
        self.target_address = self.sender_address;
        self.sender_mac = mac.0;
        self.sender_address = asked;
    }

    /// Whether this is a question.
    #[must_use]
    pub fn is_request(&self) -> bool {
        self.operation.get() == REQUEST
    }

    /// Whether this is an answer.
    #[must_use]
    pub fn is_reply(&self) -> bool {
        self.operation.get() == REPLY
    }

    /// The link address of whoever sent it.
    #[must_use]
    pub const fn sender_mac(&self) -> MacAddress {
        MacAddress(self.sender_mac)
    }

    /// The address of whoever sent it.
    #[must_use]
    pub const fn sender_address(&self) -> [u8; 4] {
        self.sender_address
    }

    /// The address that is asked for.
    #[must_use]
    pub const fn target_address(&self) -> [u8; 4] {
        self.target_address
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{ArpOperation, ArpPacketSlice};

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);

    #[test]
    fn an_announcement_asks_for_its_own_address() {
        let message = Message::announcement(MAC, [10, 0, 0, 1]);
        let read = ArpPacketSlice::from_slice(message.as_bytes()).unwrap();
        assert_eq!(read.operation(), ArpOperation::REQUEST);
        assert_eq!((read.sender_hw_addr(), read.target_hw_addr()), (&MAC.0[..], &[0; 6][..]));
        assert_eq!(
            (read.sender_protocol_addr(), read.target_protocol_addr()),
            (&[10, 0, 0, 1][..], &[10, 0, 0, 1][..])
        );
        let mut bytes = [0; MESSAGE_BYTES];
        bytes.copy_from_slice(message.as_bytes());
        let read = Message::split(&mut bytes).unwrap();
        assert!(read.is_request() && read.sender_address() == read.target_address());
    }
}
