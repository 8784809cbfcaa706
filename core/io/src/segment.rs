//! Super-packets of an Ethernet interface are cut, and open checksums completed, where whole packets are wanted.
//!
//! ```text
//! | link | IP | TCP | 1,448 + 1,448 + 900 bytes |  ->  | link | IP | TCP | 1,448 |, again, | link | IP | TCP | 900 |
//! ```
//!
//! In goes a packet with its virtio-net header, out come packets that need none: as the kernel would have sent them to
//! a device without offloads. A TUN is told not to hand over anything else; an Ethernet interface can not be told, since
//! it is the sender on the same machine, or the receiving device, that makes super-packets. What is not what its header
//! says is refused. No buffer is held and no system call is made here.

use evenkeel_engine::wire::checksum;

use crate::offload::VirtioNetHeader;

/// The most segments of one super-packet: 64 KiB in the smallest segments of TCP that Linux sends (88 bytes) are fewer.
const SEGMENTS_MAX: usize = 1_024;

/// The checksum from `checksum_start` on is open.
const NEEDS_CSUM: u8 = 1;

/// Kinds of super-packets: TCP over IPv4, TCP over IPv6, UDP over either. Bit 7 says that one is marked for congestion.
const TCP_V4: u8 = 1;
const TCP_V6: u8 = 4;
const UDP: u8 = 5;
const ECN: u8 = 0x80;

const ETHERNET_BYTES: usize = 14;
const TAG_BYTES: usize = 4;
/// The types of tags between the addresses and the type of what follows.
const TAG_TYPES: [[u8; 2]; 2] = [[0x81, 0x00], [0x88, 0xa8]];
/// The most tags of one frame.
const TAGS_MAX: usize = 2;

const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
const TCP_CHECKSUM_AT: usize = 16;
const UDP_CHECKSUM_AT: usize = 6;

/// Flags of TCP that belong to the last segment, and to the first.
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// A super-packet, and how much of it has been cut off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    ip_at: usize,
    is_v6: bool,
    is_tcp: bool,
    layer_4_at: usize,
    payload_at: usize,
    payload_bytes: usize,
    segment_bytes: usize,
    /// Bytes of payload that have been cut off.
    done_bytes: usize,
    /// Segments that have been cut off.
    done: u16,
}

impl Cut {
    /// Reads a super-packet with its link header. Nothing when it is none, or not what its header says.
    pub(crate) fn of(header: VirtioNetHeader, packet: &[u8]) -> Option<Self> {
        let kind = header.gso_type & !ECN;
        let is_tcp = matches!(kind, TCP_V4 | TCP_V6);
        if header.flags & NEEDS_CSUM == 0 || !(is_tcp || kind == UDP) {
            return None;
        }
        let ip_at = ip_of(packet)?;
        let layer_4_at = usize::from(header.checksum_start);
        let is_v6 = packet.get(ip_at)? >> 4 == 6;
        let fits_kind = match kind {
            TCP_V4 => !is_v6,
            TCP_V6 => is_v6,
            _ => true,
        };
        let ip_bytes = if is_v6 { 40 } else { usize::from(packet.get(ip_at)? & 15) * 4 };
        let head_bytes = if is_tcp { usize::from(packet.get(layer_4_at + 12)? >> 4) * 4 } else { 8 };
        let payload_at = layer_4_at + head_bytes;
        let payload_bytes = packet.len().checked_sub(payload_at)?;
        let segment_bytes = usize::from(header.segment_bytes);
        let is_sound = fits_kind
            && ip_bytes >= 20
            && layer_4_at >= ip_at + ip_bytes
            && head_bytes >= if is_tcp { 20 } else { 8 }
            && segment_bytes > 0
            && payload_bytes > 0
            && payload_bytes.div_ceil(segment_bytes) <= SEGMENTS_MAX;
        is_sound.then_some(Self {
            ip_at,
            is_v6,
            is_tcp,
            layer_4_at,
            payload_at,
            payload_bytes,
            segment_bytes,
            done_bytes: 0,
            done: 0,
        })
    }

    /// Writes the next segment of `packet`, which this was read from, to the start of `target`. Gives its length;
    /// nothing when there is no more, or it does not fit.
    pub(crate) fn next(&mut self, packet: &[u8], target: &mut [u8]) -> Option<usize> {
        let bytes = self.segment_bytes.min(self.payload_bytes.checked_sub(self.done_bytes)?);
        if bytes == 0 {
            return None;
        }
        let from = self.payload_at + self.done_bytes;
        let length = self.payload_at + bytes;
        let segment = target.get_mut(..length)?;
        let (head, payload) = segment.split_at_mut_checked(self.payload_at)?;
        head.copy_from_slice(packet.get(..self.payload_at)?);
        payload.copy_from_slice(packet.get(from..from + bytes)?);
        self.mend(segment)?;
        self.done_bytes += bytes;
        self.done = self.done.wrapping_add(1);
        Some(length)
    }

    /// Whether every segment has been cut off.
    pub(crate) const fn is_done(&self) -> bool {
        self.done_bytes >= self.payload_bytes
    }

    /// Makes the copied headers those of the segment behind them.
    fn mend(&self, segment: &mut [u8]) -> Option<()> {
        let sum = self.mend_ip(segment.get_mut(self.ip_at..)?)?;
        let message = segment.get_mut(self.layer_4_at..)?;
        let checksum_at = if self.is_tcp {
            self.mend_tcp(message)?;
            TCP_CHECKSUM_AT
        } else {
            let length = u16::try_from(message.len()).ok()?;
            *message.get_mut(4..)?.first_chunk_mut()? = length.to_be_bytes();
            UDP_CHECKSUM_AT
        };
        put_checksum(message, checksum_at, sum)
    }

    /// Sets the lengths and the header checksum of the IP packet `ip`. Gives the sum of its pseudo header.
    fn mend_ip(&self, ip: &mut [u8]) -> Option<u16> {
        let length = ip.len();
        let message_bytes = u16::try_from(length + self.ip_at - self.layer_4_at).ok()?;
        let protocol = if self.is_tcp { PROTOCOL_TCP } else { PROTOCOL_UDP };
        if self.is_v6 {
            let payload = u16::try_from(length.checked_sub(40)?).ok()?;
            *ip.get_mut(4..)?.first_chunk_mut()? = payload.to_be_bytes();
            let source = *ip.get(8..)?.first_chunk()?;
            let destination = *ip.get(24..)?.first_chunk()?;
            return Some(checksum::pseudo_header_v6(source, destination, protocol, message_bytes.into()));
        }
        *ip.get_mut(2..)?.first_chunk_mut()? = u16::try_from(length).ok()?.to_be_bytes();
        let identification = ip.get_mut(4..)?.first_chunk_mut::<2>()?;
        *identification = u16::from_be_bytes(*identification).wrapping_add(self.done).to_be_bytes();
        let header = ip.get_mut(..self.layer_4_at - self.ip_at)?;
        *header.get_mut(10..)?.first_chunk_mut()? = [0, 0];
        let sum = checksum::checksum(0, header);
        *header.get_mut(10..)?.first_chunk_mut()? = sum.to_be_bytes();
        let (source, destination) = (*ip.get(12..)?.first_chunk()?, *ip.get(16..)?.first_chunk()?);
        Some(checksum::pseudo_header_v4(source, destination, protocol, message_bytes))
    }

    /// Sets the number of the segment, and leaves each flag to the segment that it belongs to.
    fn mend_tcp(&self, tcp: &mut [u8]) -> Option<()> {
        let sequence = tcp.get_mut(4..)?.first_chunk_mut::<4>()?;
        let done = u32::try_from(self.done_bytes).ok()?;
        *sequence = u32::from_be_bytes(*sequence).wrapping_add(done).to_be_bytes();
        let flags = tcp.get_mut(13)?;
        if self.done_bytes + self.segment_bytes < self.payload_bytes {
            *flags &= !(FIN | PSH);
        }
        if self.done_bytes > 0 {
            *flags &= !CWR;
        }
        Some(())
    }
}

/// Computes the checksum that the sender of `packet` has left open. Nothing when the header does not fit the packet.
pub(crate) fn complete(header: VirtioNetHeader, packet: &mut [u8]) -> Option<()> {
    if header.flags & NEEDS_CSUM == 0 {
        return Some(());
    }
    let message = packet.get_mut(usize::from(header.checksum_start)..)?;
    let at = usize::from(header.checksum_offset);
    // The field holds the pseudo header's sum.
    let sum = u16::from_be_bytes(*message.get(at..)?.first_chunk()?);
    put_checksum(message, at, sum)
}

/// Writes the checksum of `message` to its place, on top of the `sum` of a pseudo header.
fn put_checksum(message: &mut [u8], at: usize, sum: u16) -> Option<()> {
    *message.get_mut(at..)?.first_chunk_mut()? = [0, 0];
    let found = checksum::checksum(sum, message);
    // Zero would say of a datagram that it has none (RFC 768).
    let found = if found == 0 && at == UDP_CHECKSUM_AT { u16::MAX } else { found };
    *message.get_mut(at..)?.first_chunk_mut()? = found.to_be_bytes();
    Some(())
}

/// Where the IP packet of a frame begins.
fn ip_of(frame: &[u8]) -> Option<usize> {
    let mut at = ETHERNET_BYTES;
    for _ in 0..TAGS_MAX {
        let kind = frame.get(at - 2..)?.first_chunk::<2>()?;
        if !TAG_TYPES.contains(kind) {
            break;
        }
        at += TAG_BYTES;
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a super-packet is made of.
    #[derive(Clone, Debug)]
    struct Made {
        link: Vec<u8>,
        is_v6: bool,
        is_tcp: bool,
        options: usize,
        flags: u8,
        payload: Vec<u8>,
        segment_bytes: u16,
    }

    impl Made {
        fn packet(&self) -> (VirtioNetHeader, Vec<u8>) {
            let head = if self.is_tcp { 20 + self.options * 4 } else { 8 };
            let length = head + self.payload.len();
            let protocol = if self.is_tcp { 6 } else { 17 };
            let mut ip = if self.is_v6 {
                let mut ip = vec![0x60, 0, 0, 0];
                ip.extend(u16::try_from(length).unwrap().to_be_bytes());
                ip.extend([protocol, 64]);
                ip.extend((0..32).map(|byte| byte * 5));
                ip
            } else {
                let mut ip = vec![0x45, 0];
                ip.extend(u16::try_from(20 + length).unwrap().to_be_bytes());
                ip.extend([0xff, 0xfe, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
                let sum = checksum::checksum(0, &ip);
                ip[10..12].copy_from_slice(&sum.to_be_bytes());
                ip
            };
            let sum = self.pseudo(&ip, u16::try_from(length).unwrap());
            let mut message = vec![0x10, 0, 0x20, 0];
            if self.is_tcp {
                message.extend([0xff, 0xff, 0xff, 0xf0, 0, 0, 0, 9]);
                message.extend([u8::try_from(head / 4).unwrap() << 4, self.flags, 1, 1, 0, 0, 0, 0]);
                message.resize(head, 1);
                message[16..18].copy_from_slice(&sum.to_be_bytes());
            } else {
                message.extend(u16::try_from(length).unwrap().to_be_bytes());
                message.extend(sum.to_be_bytes());
            }
            let start = self.link.len() + ip.len();
            let header = VirtioNetHeader {
                flags: 1,
                gso_type: if !self.is_tcp {
                    5
                } else if self.is_v6 {
                    4
                } else {
                    1
                },
                header_bytes: u16::try_from(start + head).unwrap(),
                segment_bytes: self.segment_bytes,
                checksum_start: u16::try_from(start).unwrap(),
                checksum_offset: if self.is_tcp { 16 } else { 6 },
            };
            ip.splice(0..0, self.link.iter().copied());
            (header, [ip, message, self.payload.clone()].concat())
        }

        fn pseudo(&self, ip: &[u8], length: u16) -> u16 {
            let protocol = if self.is_tcp { 6 } else { 17 };
            if self.is_v6 {
                let [source, destination] = [8, 24].map(|at| ip[at..at + 16].try_into().unwrap());
                checksum::pseudo_header_v6(source, destination, protocol, length.into())
            } else {
                let [source, destination] = [12, 16].map(|at| ip[at..at + 4].try_into().unwrap());
                checksum::pseudo_header_v4(source, destination, protocol, length)
            }
        }
    }

    fn pieces(header: VirtioNetHeader, packet: &[u8]) -> Vec<Vec<u8>> {
        let mut cut = Cut::of(header, packet).unwrap();
        let mut target = vec![0; 70_000];
        let mut all = Vec::new();
        while let Some(length) = cut.next(packet, &mut target) {
            all.push(target[..length].to_vec());
        }
        assert!(cut.is_done());
        all
    }

    fn links() -> impl Strategy<Value = Vec<u8>> {
        let frame = |types: &[u8]| [&[2; 12][..], types].concat();
        prop_oneof![
            Just(frame(&[8, 0])),
            Just(frame(&[0x81, 0, 0, 7, 8, 0])),
            Just(frame(&[0x88, 0xa8, 0, 9, 0x81, 0, 0, 7, 8, 0])),
        ]
    }

    fn supers() -> impl Strategy<Value = Made> {
        let payload = (1_usize..20_000, any::<u8>()).prop_map(|(bytes, first)| {
            (0..bytes).map(|at| u8::try_from(at % 251).unwrap() ^ first).collect()
        });
        (links(), any::<bool>(), any::<bool>(), 0_usize..=10, any::<u8>(), payload, 40_u16..2_000).prop_map(
            |(link, is_v6, is_tcp, options, flags, payload, segment_bytes)| Made {
                link,
                is_v6,
                is_tcp,
                options,
                flags,
                payload,
                segment_bytes,
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn segments_are_whole_packets_that_add_up_to_the_payload(made in supers()) {
            let (header, packet) = made.packet();
            let all = pieces(header, &packet);
            prop_assert_eq!(all.len(), made.payload.len().div_ceil(made.segment_bytes.into()));
            let mut payload: Vec<u8> = Vec::new();
            for (number, piece) in all.iter().enumerate() {
                let (is_first, is_last) = (number == 0, number + 1 == all.len());
                prop_assert_eq!(&piece[..made.link.len()], &made.link[..]);
                let ip = &piece[made.link.len()..];
                let head = if made.is_v6 { 40 } else { 20 };
                let message = &ip[head..];
                let length = u16::try_from(message.len()).unwrap();
                if made.is_v6 {
                    prop_assert_eq!(&ip[4..6], &length.to_be_bytes());
                } else {
                    prop_assert_eq!(&ip[2..4], &(length + 20).to_be_bytes());
                    prop_assert!(checksum::is_valid(0, &ip[..20]));
                    let identification = 0xfffe_u16.wrapping_add(u16::try_from(number).unwrap());
                    prop_assert_eq!(&ip[4..6], &identification.to_be_bytes());
                }
                prop_assert!(checksum::is_valid(made.pseudo(ip, length), message));
                let done = u32::try_from(payload.len()).unwrap();
                if made.is_tcp {
                    prop_assert_eq!(&message[4..8], &0xffff_fff0_u32.wrapping_add(done).to_be_bytes());
                    let wanted = made.flags & !(if is_last { 0 } else { FIN | PSH })
                        & !(if is_first { 0 } else { CWR });
                    prop_assert_eq!(message[13], wanted);
                    payload.extend(&message[20 + made.options * 4..]);
                } else {
                    prop_assert_eq!(&message[4..6], &length.to_be_bytes());
                    payload.extend(&message[8..]);
                }
            }
            prop_assert!(payload == made.payload);
        }

        #[test]
        fn no_bytes_and_no_header_are_cut_out_of_their_bounds(
            mut bytes in prop::collection::vec(any::<u8>(), 0..200), header in any::<[u8; 12]>(),
        ) {
            let header = VirtioNetHeader::parse(header);
            let mut target = [0; 300];
            if let Some(mut cut) = Cut::of(header, &bytes) {
                while cut.next(&bytes, &mut target).is_some() {}
            }
            let _ = complete(header, &mut bytes);
        }
    }

    #[test]
    fn an_open_checksum_is_completed_and_a_whole_one_left_alone() {
        let made = Made {
            link: vec![8; 14],
            is_v6: false,
            is_tcp: false,
            options: 0,
            flags: 0,
            payload: vec![3; 101],
            segment_bytes: 0,
        };
        let (header, open) = made.packet();
        let header = VirtioNetHeader { gso_type: 0, ..header };
        let mut packet = open.clone();
        complete(header, &mut packet).unwrap();
        assert!(checksum::is_valid(made.pseudo(&packet[14..34], 109), &packet[34..]));
        let mut again = packet.clone();
        complete(VirtioNetHeader::WHOLE, &mut again).unwrap();
        assert_eq!(again, packet);
        assert!(complete(header, &mut open[..38].to_vec()).is_none(), "the field is not there");
    }

    #[test]
    fn what_is_not_what_its_header_says_is_refused() {
        let made = Made {
            link: [&[2; 12][..], &[8, 0]].concat(),
            is_v6: false,
            is_tcp: true,
            options: 0,
            flags: 16,
            payload: vec![1; 3_000],
            segment_bytes: 1_000,
        };
        let (header, packet) = made.packet();
        assert!(Cut::of(header, &packet).is_some());
        for (wrong, packet) in [
            (VirtioNetHeader { flags: 0, ..header }, &packet[..]),
            (VirtioNetHeader { gso_type: 4, ..header }, &packet),
            (VirtioNetHeader { gso_type: 3, ..header }, &packet),
            (VirtioNetHeader { gso_type: 0, ..header }, &packet),
            (VirtioNetHeader { segment_bytes: 0, ..header }, &packet),
            (VirtioNetHeader { segment_bytes: 2, ..header }, &packet),
            (VirtioNetHeader { checksum_start: 33, ..header }, &packet),
            (VirtioNetHeader { checksum_start: 4_000, ..header }, &packet),
            (header, &packet[..54]),
        ] {
            assert!(Cut::of(wrong, packet).is_none(), "{wrong:?}");
        }
    }
}
