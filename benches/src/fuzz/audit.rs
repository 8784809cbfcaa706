//! What is asked of packets that leave, by a parser that shares nothing with the engine's but the sum itself.
//!
//! Lengths, the header checksum, hops and the MTU always. Checksums of layer 4 wherever it can be known that they
//! should be right: as long as nothing unsound has come in, or when the packet itself came in sound. Pieces are put
//! together again where all of them left in one step.

use std::collections::BTreeMap;
use std::net::IpAddr;

use evenkeel_engine::Plan;
use evenkeel_engine::forward::tunnel::GUE_PORT;
use evenkeel_engine::plan::{InterfacePlan, Layer};
use evenkeel_engine::wire::checksum;

use super::device::{Once, Sent, Slot};
use super::packets::pseudo_sum;

/// Extension headers that are looked through: more than the engine takes.
const EXTENSIONS_MAX: usize = 16;

/// Checks what leaves.
#[derive(Debug, Default)]
pub(crate) struct Auditor {
    /// Something came in whose checksums are wrong or unknown. What is kept may be that.
    is_tainted: bool,
}

/// A packet as a host sees it.
struct Seen<'a> {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    fragment: Option<Fragment>,
    payload: &'a [u8],
}

#[derive(Clone, Copy)]
struct Fragment {
    identification: u32,
    offset: usize,
    has_more: bool,
}

/// What the pieces of one packet have in common.
type Key = (IpAddr, IpAddr, u32);

/// A piece of a packet.
struct Piece<'a> {
    offset: usize,
    has_more: bool,
    protocol: u8,
    bytes: &'a [u8],
}

/// The pieces that left in one step.
type Pieces<'a> = BTreeMap<Key, Vec<Piece<'a>>>;

impl Auditor {
    /// Looks at everything that left in one step.
    ///
    /// # Panics
    /// When it should not have left so.
    pub(crate) fn audit(&mut self, device: &Once, plan: &Plan) {
        self.is_tainted |= device.slots.iter().any(|slot| !slot.is_sound);
        let mut pieces: Pieces<'_> = BTreeMap::new();
        for sent in &device.sent {
            let slot = sent.slot.and_then(|slot| device.slots.get(slot));
            let Some(interface) = plan.interfaces.get(sent.interface.index()) else {
                panic!("interface {} is not in the plan", sent.interface.0);
            };
            if plan.interfaces.iter().any(|one| one.passes_to.is_some())
                && slot.is_some_and(|slot| slot.original == sent.bytes)
            {
                continue; // Passed on as it came, whatever it is.
            }
            let Some(packet) = without_link(interface, sent) else { continue };
            self.audit_ip(packet, interface, slot, &mut pieces);
        }
        if !self.is_tainted {
            pieces.iter_mut().for_each(|(key, pieces)| audit_pieces(key, pieces));
        }
    }

    fn audit_ip<'a>(
        &self,
        packet: &'a [u8],
        interface: &InterfacePlan,
        slot: Option<&Slot>,
        pieces: &mut Pieces<'a>,
    ) {
        let Some(seen) = look(packet) else { panic!("a packet that left is none: {packet:02x?}") };
        let is_super = slot.is_some_and(|slot| slot.offload.segment_bytes.is_some());
        // Whoever pings with packets that the link does not carry gets them back.
        let is_echo = matches!((seen.protocol, seen.payload.first()), (1, Some(0)) | (58, Some(129)));
        let is_own_v6 = seen.protocol == 58 && slot.is_none();
        // IPv6 asks every link to carry as much, and errors are sent with as much (RFC 8200 s.5, RFC 4443 s.3).
        let mtu = usize::from(interface.mtu_bytes).max(if is_own_v6 { 1280 } else { 0 });
        assert!(
            is_super || is_echo || packet.len() <= mtu,
            "{} bytes over {mtu}\nleft: {packet:02x?}\ncame: {:02x?}",
            packet.len(),
            slot.map(|slot| &slot.original)
        );
        let sound = if slot.is_some_and(|slot| slot.offload.needs_checksum) {
            Some(Sum::Partial)
        } else {
            let is_sound = !self.is_tainted || slot.is_some_and(|slot| slot.is_sound);
            is_sound.then_some(Sum::Whole)
        };
        if let Err(what) = audit_layer_4(&seen, sound) {
            panic!("{what}\nleft: {packet:02x?}\ncame: {:02x?}", slot.map(|slot| &slot.original));
        }
        if let Some(fragment) = seen.fragment {
            let key = (seen.source, seen.destination, fragment.identification);
            let Fragment { offset, has_more, .. } = fragment;
            let piece = Piece { offset, has_more, protocol: seen.protocol, bytes: seen.payload };
            pieces.entry(key).or_default().push(piece);
        }
    }
}

/// What is in the field of a layer-4 checksum.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sum {
    /// The sum of everything.
    Whole,
    /// That of the pseudo header.
    Partial,
}

/// Checks the checksum of layer 4 where it is there, and what a tunnel carries.
fn audit_layer_4(seen: &Seen<'_>, sound: Option<Sum>) -> Result<(), &'static str> {
    if seen.fragment.is_some() {
        return Ok(());
    }
    let payload = seen.payload;
    let inner = match seen.protocol {
        4 | 41 => Some(payload),
        47 => Some(gre(payload)?),
        17 if payload.get(2..4) == Some(&GUE_PORT.to_be_bytes()) => {
            let is_right = payload.get(6..8) == Some(&[0, 0]) || sum_is_right(seen);
            if !is_right {
                return Err("the datagram around a packet does not add up");
            }
            payload.get(12..)
        }
        _ => None,
    };
    if let Some(inner) = inner {
        let inner = look(inner).ok_or("a tunnel carries no packet")?;
        return audit_layer_4(&inner, sound);
    }
    let is_right = match sound {
        Some(Sum::Whole) => adds_up_seen(seen) != Some(false),
        Some(Sum::Partial) => {
            let at = if seen.protocol == 6 { 16 } else { 6 };
            let sum = pseudo_sum(seen.source, seen.destination, seen.protocol, payload.len());
            !matches!(seen.protocol, 6 | 17) || word(payload, at) == Some(sum)
        }
        None => true,
    };
    if is_right { Ok(()) } else { Err("the checksum of layer 4 is not what it should be") }
}

/// What GRE carries; its checksum is right if it has one.
fn gre(payload: &[u8]) -> Result<&[u8], &'static str> {
    let has_checksum = payload.first().is_some_and(|flags| flags & 0x80 != 0);
    if has_checksum && !checksum::is_valid(0, payload) {
        return Err("the checksum of GRE is wrong");
    }
    payload.get(if has_checksum { 8 } else { 4 }..).ok_or("GRE carries nothing")
}

/// Puts the pieces of one packet together and checks it, when all of them are there.
fn audit_pieces((source, destination, _): &Key, pieces: &mut [Piece<'_>]) {
    pieces.sort_unstable_by_key(|piece| piece.offset);
    let mut whole = Vec::new();
    for piece in pieces.iter() {
        if piece.offset != whole.len() {
            return;
        }
        whole.extend_from_slice(piece.bytes);
    }
    let (Some(first), Some(last)) = (pieces.first(), pieces.last()) else { return };
    if last.has_more {
        return;
    }
    // Where extension headers follow that of the pieces, the protocol is none that has a checksum here.
    let (source, destination, protocol) = (*source, *destination, first.protocol);
    let seen = Seen { source, destination, protocol, fragment: None, payload: &whole };
    let result = audit_layer_4(&seen, Some(Sum::Whole));
    assert!(result.is_ok(), "{result:?} in pieces of a packet from {source} to {destination}: {whole:02x?}");
}

/// The packet behind the link header; `None` for what is not IP.
fn without_link<'a>(interface: &InterfacePlan, sent: &'a Sent) -> Option<&'a [u8]> {
    let bytes = &sent.bytes[..];
    let Layer::Ethernet(own) = interface.layer else { return Some(bytes) };
    let Some((header, packet)) = bytes.split_at_checked(14) else { panic!("a frame has a header") };
    assert_eq!(header.get(6..12), Some(&own.0[..]), "frames come from the interface's own address");
    match word(header, 12) {
        Some(0x0806) => {
            assert!(packet.len() >= 28, "an ARP message is whole");
            None
        }
        kind => {
            let version = packet.first().map(|first| first >> 4);
            assert!(
                matches!((kind, version), (Some(0x0800), Some(4)) | (Some(0x86dd), Some(6))),
                "the link header says what follows: {kind:?} {version:?}"
            );
            Some(packet)
        }
    }
}

/// Whether the layer-4 checksum of a packet is right; `None` where there is none to tell.
pub(crate) fn adds_up(packet: &[u8]) -> Option<bool> {
    adds_up_seen(&look(packet)?)
}

fn adds_up_seen(seen: &Seen<'_>) -> Option<bool> {
    if seen.fragment.is_some() {
        return None;
    }
    let is_v4 = seen.source.is_ipv4();
    match seen.protocol {
        17 if is_v4 && word(seen.payload, 6) == Some(0) => None,
        17 if word(seen.payload, 4).map(usize::from) != Some(seen.payload.len()) => None,
        6 | 17 => Some(sum_is_right(seen)),
        1 if is_v4 => Some(sum_is_right(seen)),
        58 if !is_v4 => Some(sum_is_right(seen)),
        _ => None,
    }
}

fn sum_is_right(seen: &Seen<'_>) -> bool {
    let start = pseudo_sum(seen.source, seen.destination, seen.protocol, seen.payload.len());
    checksum::is_valid(start, seen.payload)
}

/// Reads a packet whose every length must be right.
fn look(packet: &[u8]) -> Option<Seen<'_>> {
    match packet.first()? >> 4 {
        4 => look_v4(packet),
        6 => look_v6(packet),
        _ => None,
    }
}

fn look_v4(packet: &[u8]) -> Option<Seen<'_>> {
    let (header, payload) = packet.split_at_checked(usize::from(packet.first()? & 15) * 4)?;
    let is_right = header.len() >= 20
        && word(packet, 2).map(usize::from) == Some(packet.len())
        && checksum::is_valid(0, header)
        && *header.get(8)? > 0;
    if !is_right {
        return None;
    }
    let bits = word(header, 6)?;
    let fragment = Fragment {
        identification: u32::from(word(header, 4)?),
        offset: usize::from(bits & 0x1fff) * 8,
        has_more: bits & 0x2000 != 0,
    };
    Some(Seen {
        source: IpAddr::from(*header.get(12..16)?.first_chunk::<4>()?),
        destination: IpAddr::from(*header.get(16..20)?.first_chunk::<4>()?),
        protocol: *header.get(9)?,
        fragment: (fragment.offset > 0 || fragment.has_more).then_some(fragment),
        payload,
    })
}

fn look_v6(packet: &[u8]) -> Option<Seen<'_>> {
    let (header, mut payload) = packet.split_at_checked(40)?;
    if word(header, 4).map(usize::from) != Some(payload.len()) || *header.get(7)? == 0 {
        return None;
    }
    let mut protocol = *header.get(6)?;
    let mut fragment = None;
    for _ in 0..EXTENSIONS_MAX {
        let length = match protocol {
            0 | 43 | 60 => 8 * (1 + usize::from(*payload.get(1)?)),
            44 => {
                let bits = word(payload, 2)?;
                let identification = u32::from_be_bytes(*payload.get(4..8)?.first_chunk()?);
                let offset = usize::from(bits & 0xfff8);
                let found = Fragment { identification, offset, has_more: bits & 1 == 1 };
                fragment = (found.offset > 0 || found.has_more).then_some(found);
                8
            }
            _ => break,
        };
        protocol = *payload.first()?;
        payload = payload.get(length..)?;
        if fragment.is_some() {
            break;
        }
    }
    Some(Seen {
        source: IpAddr::from(*header.get(8..24)?.first_chunk::<16>()?),
        destination: IpAddr::from(*header.get(24..40)?.first_chunk::<16>()?),
        protocol,
        fragment,
        payload,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.first_chunk().copied().map(u16::from_be_bytes)
}
