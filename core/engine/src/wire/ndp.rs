//! Neighbour discovery on Ethernet (RFC 4861): who has an IPv6 address, and who says so.
//!
//! In come solicitations and advertisements, checked as RFC 4861 s.7.1 asks; out go whole packets with their checksums.
//! Routers are not discovered: routes are configured.

use zerocopy::{Immutable, IntoBytes, Unaligned, transmute};

use super::ethernet::MacAddress;
use super::icmpv6::{self, kind};
use super::{Address, Protocol, ipv6};
use crate::verdict::DropReason;

/// Bytes of a packet that is made here: IPv6 header, ICMPv6 header, target and one option.
pub const PACKET_BYTES: usize = ipv6::HEADER_BYTES + icmpv6::HEADER_BYTES + 16 + 8;

/// The group of all nodes on the link (RFC 4291 s.2.7.1).
pub const ALL_NODES: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// The most options that are read. Senders put one or two into a message; a nonce (RFC 3971) makes three.
const OPTIONS_MAX: usize = 16;

/// A message is only believed with this hop limit, which no router has lowered.
const HOP_LIMIT: u8 = 255;

const SOURCE_LINK_ADDRESS: u8 = 1;
const TARGET_LINK_ADDRESS: u8 = 2;

const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// Which of the two messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Who has the target?
    Solicitation,
    /// The target is here.
    Advertisement,
}

/// A checked message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    kind: Kind,
    flags: u8,
    target: [u8; 16],
    source_mac: Option<MacAddress>,
    target_mac: Option<MacAddress>,
}

impl Message {
    /// Checks the ICMPv6 message in `payload`, which came from `source` to `destination`; `is_from_link` says whether its
    /// hop limit was 255. A source of `::` is right here where it asks whether an address is taken.
    ///
    /// # Errors
    /// `Truncated` when bytes are missing, `BadChecksum` when the message does not add up, `IcmpUnhandled` when it is
    /// another message, `BadHeader` when RFC 4861 s.7.1 forbids what it says.
    pub fn parse(
        payload: &mut [u8],
        source: [u8; 16],
        destination: [u8; 16],
        is_from_link: bool,
    ) -> Result<Self, DropReason> {
        let (header, body) = icmpv6::Header::split(payload, source, destination)?;
        let kind = match header.kind() {
            kind::NEIGHBOUR_SOLICITATION => Kind::Solicitation,
            kind::NEIGHBOUR_ADVERTISEMENT => Kind::Advertisement,
            _ => return Err(DropReason::IcmpUnhandled),
        };
        let [flags, ..] = header.rest();
        let (target, options) = body.split_first_chunk::<16>().ok_or(DropReason::Truncated)?;
        let mut message = Self { kind, flags, target: *target, source_mac: None, target_mac: None };
        message.read_options(options)?;
        if header.code() != 0 || !is_from_link || !message.is_allowed(source, destination) {
            return Err(DropReason::BadHeader);
        }
        Ok(message)
    }

    fn read_options(&mut self, mut options: &[u8]) -> Result<(), DropReason> {
        for _ in 0..OPTIONS_MAX {
            let [kind, length, ..] = *options else {
                return if options.is_empty() { Ok(()) } else { Err(DropReason::Truncated) };
            };
            if length == 0 {
                return Err(DropReason::BadHeader);
            }
            let (option, rest) =
                options.split_at_checked(usize::from(length) * 8).ok_or(DropReason::Truncated)?;
            let place = match kind {
                SOURCE_LINK_ADDRESS => Some(&mut self.source_mac),
                TARGET_LINK_ADDRESS => Some(&mut self.target_mac),
                _ => None,
            };
            if let Some(place) = place {
                *place = Some(link_address(option)?);
            }
            options = rest;
        }
        if options.is_empty() { Ok(()) } else { Err(DropReason::BadHeader) }
    }

    /// Whether addresses and flags are such as RFC 4861 s.7.1 allows.
    fn is_allowed(&self, source: [u8; 16], destination: [u8; 16]) -> bool {
        let (is_group, is_nobody) = (is_multicast(destination), source == [0; 16]);
        // An address that stands for one of IPv4 would be taken for that; nobody's is among them.
        let is_target_right = !is_multicast(self.target) && !ipv6::embeds_v4(self.target);
        let is_source_right = !is_multicast(source) && (is_nobody || !ipv6::embeds_v4(source));
        let is_kind_right = match self.kind {
            Kind::Solicitation => {
                // Whoever asks whether an address is taken has none yet, and can not be told apart.
                let is_probe_right = destination == solicited_node(self.target) && self.source_mac.is_none();
                !is_nobody || is_probe_right
            }
            Kind::Advertisement => !(is_nobody || is_group && self.is_solicited()),
        };
        is_target_right && is_source_right && is_kind_right
    }

    /// Which of the two messages this is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The address that is asked for, or that is told of.
    #[must_use]
    pub const fn target(&self) -> Address {
        Address::v6(self.target)
    }

    /// The link address of whoever sent a solicitation.
    #[must_use]
    pub const fn source_mac(&self) -> Option<MacAddress> {
        self.source_mac
    }

    /// The link address of an advertisement's target.
    #[must_use]
    pub const fn target_mac(&self) -> Option<MacAddress> {
        self.target_mac
    }

    /// Whether an advertisement answers a solicitation.
    #[must_use]
    pub const fn is_solicited(&self) -> bool {
        self.flags & SOLICITED != 0
    }

    /// Whether an advertisement may replace a link address that is already known.
    #[must_use]
    pub const fn is_override(&self) -> bool {
        self.flags & OVERRIDE != 0
    }
}

/// The question who has `target`, from the station `mac` with the address `source`, to the target's group. Its frame
/// goes to [`MacAddress::multicast_of`] [`solicited_node`] of the target.
#[must_use]
pub fn solicitation(mac: MacAddress, source: [u8; 16], target: [u8; 16]) -> [u8; PACKET_BYTES] {
    let addresses = [source, solicited_node(target)];
    packet(kind::NEIGHBOUR_SOLICITATION, 0, addresses, target, SOURCE_LINK_ADDRESS, mac)
}

/// The answer to the station `to` that `mac` has the address `target`. A `to` of `::` has no address yet and is told
/// by telling all (RFC 4861 s.7.2.4).
#[must_use]
pub fn advertisement(mac: MacAddress, target: [u8; 16], to: [u8; 16]) -> [u8; PACKET_BYTES] {
    if to == [0; 16] {
        return announcement(mac, target);
    }
    let flags = ROUTER | SOLICITED | OVERRIDE;
    packet(kind::NEIGHBOUR_ADVERTISEMENT, flags, [target, to], target, TARGET_LINK_ADDRESS, mac)
}

/// The news for all on the link that `mac` has the address `target` from now on (RFC 4861 s.7.2.6).
#[must_use]
pub fn announcement(mac: MacAddress, target: [u8; 16]) -> [u8; PACKET_BYTES] {
    let addresses = [target, ALL_NODES];
    packet(kind::NEIGHBOUR_ADVERTISEMENT, ROUTER | OVERRIDE, addresses, target, TARGET_LINK_ADDRESS, mac)
}

/// The group in which whoever has `address` listens for solicitations (RFC 4291 s.2.7.1).
#[must_use]
pub const fn solicited_node(address: [u8; 16]) -> [u8; 16] {
    let [.., a, b, c] = address;
    [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]
}

/// The address that the station `mac` has on its link without being given one (RFC 4291 s.2.5.6 and appendix A).
#[must_use]
pub const fn link_local(mac: MacAddress) -> [u8; 16] {
    let MacAddress([a, b, c, d, e, f]) = mac;
    [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f]
}

/// What follows the ICMPv6 header of a message that is made here.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Body {
    target: [u8; 16],
    option: u8,
    /// In units of eight bytes.
    option_length: u8,
    mac: [u8; 6],
}

#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Whole {
    ip: ipv6::Header,
    message: icmpv6::Header,
    body: Body,
}

fn packet(
    kind: u8,
    flags: u8,
    [source, destination]: [[u8; 16]; 2],
    target: [u8; 16],
    option: u8,
    mac: MacAddress,
) -> [u8; PACKET_BYTES] {
    const PAYLOAD_BYTES: u16 = 32;
    let body = Body { target, option, option_length: 1, mac: mac.0 };
    let message = icmpv6::Header::new(kind, 0, [flags, 0, 0, 0], body.as_bytes(), source, destination);
    let ip = ipv6::Header::new(0, HOP_LIMIT, Protocol::ICMPV6, source, destination, PAYLOAD_BYTES);
    transmute!(Whole { ip, message, body })
}

/// The Ethernet address in an option.
fn link_address(option: &[u8]) -> Result<MacAddress, DropReason> {
    let [_, _, address @ ..] = option else { return Err(DropReason::Truncated) };
    let mac = MacAddress(address.try_into().map_err(|_| DropReason::BadHeader)?);
    if mac.is_group() { Err(DropReason::BadHeader) } else { Ok(mac) }
}

const fn is_multicast(address: [u8; 16]) -> bool {
    let [first, ..] = address;
    first == 0xff
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use core::net::Ipv6Addr;
    use etherparse::{Icmpv6Slice, Icmpv6Type, Ipv6Slice};
    use proptest::prelude::*;

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);
    const TARGET: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xa, 0xb, 0xc, 0xd];
    const OTHER: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

    /// Reads a packet as the engine does.
    fn read(bytes: &mut [u8]) -> Result<Message, DropReason> {
        let ip = ipv6::Packet::split(bytes)?;
        let [from, to] = [ip.header.source(), ip.header.destination()].map(Address::v6_bytes);
        Message::parse(ip.payload, from, to, ip.header.hop_limit() == 255)
    }

    /// Reads a message that is made of these parts, its checksum right.
    fn with(
        kind: u8,
        code: u8,
        flags: u8,
        [from, to]: [[u8; 16]; 2],
        body: &[u8],
    ) -> Result<Message, DropReason> {
        let header = icmpv6::Header::new(kind, code, [flags, 0, 0, 0], body, from, to);
        Message::parse(&mut [header.as_bytes(), body].concat(), from, to, true)
    }

    #[test]
    fn groups_are_those_of_the_rfcs() {
        let group: Ipv6Addr = "ff02::1:ff0b:c0d".parse().unwrap();
        assert_eq!(solicited_node(TARGET), group.octets());
        assert_eq!(MacAddress::multicast_of(group.octets()), MacAddress([0x33, 0x33, 0xff, 0xb, 0xc, 0xd]));
        assert!(MacAddress::multicast_of(ALL_NODES).is_group());
    }

    #[test]
    fn a_question_is_read_back_and_by_another_reader() {
        let mut bytes = solicitation(MAC, OTHER, TARGET);
        let ip = Ipv6Slice::from_slice(&bytes).unwrap();
        assert_eq!((ip.header().hop_limit(), ip.header().destination()), (255, solicited_node(TARGET)));
        let message = Icmpv6Slice::from_slice(ip.payload().payload).unwrap();
        assert!(message.is_checksum_valid(OTHER, solicited_node(TARGET)));
        assert_eq!(message.icmp_type(), Icmpv6Type::NeighborSolicitation);
        let read = read(&mut bytes).unwrap();
        assert_eq!((read.kind(), read.target()), (Kind::Solicitation, Address::v6(TARGET)));
        assert_eq!((read.source_mac(), read.target_mac()), (Some(MAC), None));
    }

    #[test]
    fn a_link_local_address_is_made_of_the_mac_address() {
        let mac = MacAddress([0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde]);
        let expected: Ipv6Addr = "fe80::3656:78ff:fe9a:bcde".parse().unwrap();
        assert_eq!(link_local(mac), expected.octets());
    }

    #[test]
    fn an_answer_is_solicited_and_an_announcement_is_not() {
        let mut bytes = advertisement(MAC, TARGET, OTHER);
        let ip = Ipv6Slice::from_slice(&bytes).unwrap();
        let message = Icmpv6Slice::from_slice(ip.payload().payload).unwrap();
        assert!(message.is_checksum_valid(TARGET, OTHER));
        let Icmpv6Type::NeighborAdvertisement(flags) = message.icmp_type() else { panic!("not an answer") };
        assert!(flags.router && flags.solicited && flags.r#override);
        let answer = read(&mut bytes).unwrap();
        assert_eq!((answer.kind(), answer.target()), (Kind::Advertisement, Address::v6(TARGET)));
        assert_eq!((answer.source_mac(), answer.target_mac()), (None, Some(MAC)));
        assert!(answer.is_solicited() && answer.is_override());

        let mut bytes = announcement(MAC, TARGET);
        assert_eq!(bytes, advertisement(MAC, TARGET, [0; 16]));
        let news = read(&mut bytes).unwrap();
        assert!(!news.is_solicited() && news.is_override());
        assert_eq!(Ipv6Slice::from_slice(&bytes).unwrap().header().destination(), ALL_NODES);
    }

    #[test]
    fn a_message_that_has_passed_a_router_is_refused() {
        let mut bytes = solicitation(MAC, OTHER, TARGET);
        bytes[7] = 254;
        assert_eq!(read(&mut bytes), Err(DropReason::BadHeader));
        bytes[7] = 255;
        bytes[70] ^= 1;
        assert_eq!(read(&mut bytes), Err(DropReason::BadChecksum));
    }

    #[test]
    fn what_the_rfc_forbids_is_refused() {
        let group = solicited_node(TARGET);
        let ask = |code, pair, body: &[u8]| with(135, code, 0, pair, body);
        let tell = |flags, pair| with(136, 0, flags, pair, &TARGET);
        let bad = Err(DropReason::BadHeader);
        assert!(ask(0, [OTHER, group], &TARGET).is_ok());
        assert_eq!(ask(1, [OTHER, group], &TARGET), bad);
        assert_eq!(ask(0, [OTHER, group], &group), bad);
        assert_eq!(ask(0, [OTHER, group], &[0; 16]), bad);
        assert_eq!(ask(0, [group, OTHER], &TARGET), bad);
        let mapped = Address::v4([10, 0, 0, 1]).v6_bytes();
        assert_eq!(ask(0, [OTHER, group], &mapped), bad);
        assert_eq!(ask(0, [mapped, group], &TARGET), bad);
        assert_eq!(ask(0, [OTHER, group], &TARGET[..15]), Err(DropReason::Truncated));
        // Whether the address is taken: to its group, without a link address.
        assert!(ask(0, [[0; 16], group], &TARGET).is_ok());
        assert_eq!(ask(0, [[0; 16], ALL_NODES], &TARGET), bad);
        let named = [&TARGET[..], &[1, 1, 2, 0, 0, 0, 0, 9]].concat();
        assert_eq!(ask(0, [[0; 16], group], &named), bad);
        assert!(tell(SOLICITED, [TARGET, OTHER]).is_ok());
        assert_eq!(tell(SOLICITED, [TARGET, ALL_NODES]), bad);
        assert_eq!(tell(0, [[0; 16], ALL_NODES]), bad);
        assert_eq!(with(134, 0, 0, [OTHER, ALL_NODES], &TARGET), Err(DropReason::IcmpUnhandled));
    }

    #[test]
    fn options_are_read_within_their_bounds() {
        let ask =
            |options: &[u8]| with(135, 0, 0, [OTHER, solicited_node(TARGET)], &[&TARGET, options].concat());
        let link = [1, 1, 2, 0, 0, 0, 0, 9];
        let unknown = [14, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(ask(&[&unknown[..], &link].concat()).unwrap().source_mac(), Some(MAC));
        assert_eq!(ask(&[1, 0, 2, 0, 0, 0, 0, 9]), Err(DropReason::BadHeader));
        assert_eq!(ask(&[1, 1, 3, 0, 0, 0, 0, 9]), Err(DropReason::BadHeader));
        assert_eq!(ask(&[&[1, 2][..], &[0; 14]].concat()), Err(DropReason::BadHeader));
        assert_eq!(ask(&link[..7]), Err(DropReason::Truncated));
        assert_eq!(ask(&[1]), Err(DropReason::Truncated));
        assert!(ask(&link.repeat(OPTIONS_MAX)).is_ok());
        assert_eq!(ask(&link.repeat(OPTIONS_MAX + 1)), Err(DropReason::BadHeader));
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_are_read_or_refused(
            kind in 133_u8..138, rest: [u8; 4], from: [u8; 16], to: [u8; 16],
            body in proptest::collection::vec(prop_oneof![0_u8..4, any::<u8>()], 0..120),
        ) {
            let header = icmpv6::Header::new(kind, 0, rest, &body, from, to);
            let mut payload: Vec<u8> = [header.as_bytes(), &body].concat();
            let _ = Message::parse(&mut payload, from, to, true);
        }
    }
}
