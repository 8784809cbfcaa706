//! The least that a forwarder can do: swap one address for another, with nothing known of flows.
//!
//! In come packets to the VIP and from the real server, out go the same with the other address; the
//! checksums are mended by difference. Two ways of moving them: a plain loop of blocking reads and
//! writes, and the device of `evenkeel-io`. What either costs is the floor that the engine stands on.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use evenkeel_engine::device::Device;
use evenkeel_io::{HEADER_BYTES, IoChoice, KernelDevice, Tun, TunOptions, VirtioNetHeader};

use crate::Failure;

/// The one translation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Translation {
    /// The address that clients know.
    pub(crate) vip: Ipv4Addr,
    /// The address of the real server.
    pub(crate) server: Ipv4Addr,
}

/// Reads, translates and writes, one packet at a time, until killed.
///
/// # Errors
///
/// When the TUN can not be opened or read.
pub(crate) fn run_plain(name: &str, translation: Translation) -> Result<(), Failure> {
    let tun = Tun::open(&TunOptions { has_offloads: false, ..TunOptions::new(name) })?;
    rustix::io::ioctl_fionbio(tun.as_fd(), false)?;
    let mut buffer = vec![0; HEADER_BYTES + 65_535];
    loop {
        let length = rustix::io::read(&tun, &mut buffer)?;
        let bytes = buffer.get_mut(..length).unwrap_or_default();
        let Some((header, packet)) = bytes.split_first_chunk_mut::<HEADER_BYTES>() else { continue };
        let needs_checksum = VirtioNetHeader::parse(*header).offload().needs_checksum;
        if translation.apply(packet, needs_checksum).is_some() {
            // A packet that the kernel does not take is lost, as any forwarder would lose it.
            let _ = rustix::io::write(&tun, bytes);
        }
    }
}

/// The same through the device of `evenkeel-io`.
///
/// # Errors
///
/// When the TUN can not be opened or is gone.
pub(crate) fn run_device(name: &str, choice: IoChoice, translation: Translation) -> Result<(), Failure> {
    let tun = Tun::open(&TunOptions::new(name))?;
    let mut device = KernelDevice::open(vec![tun], choice)?;
    loop {
        let received = device.receive();
        for slot in 0..received {
            let packet = device.packet(slot);
            let (interface, range) = (packet.interface, packet.range.clone());
            let bytes = packet.buffer.get_mut(packet.range).unwrap_or_default();
            if translation.apply(bytes, packet.offload.needs_checksum).is_some() {
                device.forward(slot, interface, range);
            }
        }
        device.flush();
        if received == 0 {
            device.wait(None)?;
        }
    }
}

impl Translation {
    /// Translates the packet, or says with nothing that it is none of ours.
    fn apply(self, packet: &mut [u8], needs_checksum: bool) -> Option<()> {
        let header = packet.first_chunk::<20>()?;
        let (source, destination) = (word(header, 12)?, word(header, 16)?);
        let (place, old, new) = if destination == self.vip.to_bits() {
            (16, destination, self.server.to_bits())
        } else if source == self.server.to_bits() {
            (12, source, self.vip.to_bits())
        } else {
            return None;
        };
        let (version_and_length, protocol) = (*header.first()?, *header.get(9)?);
        let layer_4 = usize::from(version_and_length & 0x0f) * 4;
        let checksum_place = layer_4 + if protocol == 6 { 16 } else { 6 };
        let sum = half(packet, checksum_place)?;
        let is_left_out = protocol == 17 && sum == 0 && !needs_checksum;
        if !is_left_out {
            let mended = if needs_checksum { !mend(!sum, old, new) } else { mend(sum, old, new) };
            let mended = if mended == 0 && protocol == 17 { 0xffff } else { mended };
            put(packet, checksum_place, &mended.to_be_bytes())?;
        }
        let mended = mend(half(packet, 10)?, old, new);
        put(packet, 10, &mended.to_be_bytes())?;
        put(packet, place, &new.to_be_bytes())
    }
}

/// RFC 1624, equation 3: HC' = ~(~HC + ~m + m').
fn mend(checksum: u16, old: u32, new: u32) -> u16 {
    let halves = |word: u32| (word >> 16) + (word & 0xffff);
    let mut sum = u32::from(!checksum) + halves(!old) + halves(new);
    while sum > 0xffff {
        sum = halves(sum);
    }
    u16::try_from(sum).map_or(0, |sum| !sum)
}

fn word(bytes: &[u8], place: usize) -> Option<u32> {
    bytes.get(place..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

fn half(bytes: &[u8], place: usize) -> Option<u16> {
    bytes.get(place..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

fn put(bytes: &mut [u8], place: usize, value: &[u8]) -> Option<()> {
    bytes.get_mut(place..place + value.len())?.copy_from_slice(value);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRANSLATION: Translation =
        Translation { vip: Ipv4Addr::new(10, 77, 0, 1), server: Ipv4Addr::new(10, 77, 2, 2) };

    /// The sum of the 16-bit words; 0xffff over data with a right checksum.
    fn sum(bytes: &[u8]) -> u16 {
        let total: u32 =
            bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
        let mut total = total;
        while total > 0xffff {
            total = (total >> 16) + (total & 0xffff);
        }
        u16::try_from(total).unwrap()
    }

    fn datagram(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 32, 0, 1, 0, 0, 64, 17, 0, 0];
        packet.extend(source.octets());
        packet.extend(destination.octets());
        packet.extend([0x12, 0x34, 0x14, 0x52, 0, 12, 0, 0, 1, 2, 3, 4]);
        let header = !sum(&packet[..20]);
        put(&mut packet, 10, &header.to_be_bytes()).unwrap();
        let whole = !sum(&pseudo(&packet));
        put(&mut packet, 26, &whole.to_be_bytes()).unwrap();
        packet
    }

    fn pseudo(packet: &[u8]) -> Vec<u8> {
        [&packet[12..20], &[0, 17, 0, 12], &packet[20..]].concat()
    }

    #[test]
    fn both_directions_are_translated_with_right_checksums() {
        let client = Ipv4Addr::new(10, 77, 1, 2);
        let mut there = datagram(client, TRANSLATION.vip);
        TRANSLATION.apply(&mut there, false).unwrap();
        assert_eq!(there, datagram(client, TRANSLATION.server));
        let mut back = datagram(TRANSLATION.server, client);
        TRANSLATION.apply(&mut back, false).unwrap();
        assert_eq!(back, datagram(TRANSLATION.vip, client));
        assert_eq!(sum(&pseudo(&back)), 0xffff);
    }

    #[test]
    fn a_partial_sum_stays_partial() {
        let client = Ipv4Addr::new(10, 77, 1, 2);
        let partial = |packet: &mut Vec<u8>| {
            let pseudo_sum = sum(&pseudo(packet)[..12]);
            put(packet, 26, &pseudo_sum.to_be_bytes()).unwrap();
        };
        let (mut there, mut expected) =
            (datagram(client, TRANSLATION.vip), datagram(client, TRANSLATION.server));
        partial(&mut there);
        partial(&mut expected);
        TRANSLATION.apply(&mut there, true).unwrap();
        assert_eq!(there, expected);
    }

    #[test]
    fn other_packets_and_pieces_are_left_alone() {
        let stranger = datagram(Ipv4Addr::new(1, 2, 3, 4), Ipv4Addr::new(5, 6, 7, 8));
        assert!(TRANSLATION.apply(&mut stranger.clone(), false).is_none());
        for length in 0..28 {
            let mut piece = datagram(Ipv4Addr::new(10, 77, 1, 2), TRANSLATION.vip);
            piece.truncate(length);
            assert!(TRANSLATION.apply(&mut piece, false).is_none(), "{length} bytes");
        }
    }
}
