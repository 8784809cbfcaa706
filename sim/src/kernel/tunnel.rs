//! The end of a tunnel: the outer header comes off.

use evenkeel_engine::wire::Protocol;

use crate::packet::Packet;
use crate::wires::frame;

use super::ip::{self, Head};
use super::plan::TunnelKind;
use super::routes::DeviceId;
use super::{DeviceKind, Kernel, Tunnel};

/// IPv4 and IPv6 in IP (RFC 2003, RFC 4213).
const IP_IN_IP: [u8; 2] = [4, 41];
const GRE: Protocol = Protocol(47);
/// EtherTypes, by which GRE names what it carries.
const CARRIED: [u16; 2] = [frame::IPV4, frame::IPV6];
const UDP_BYTES: usize = 8;

impl Kernel {
    /// The end of the tunnel that a packet to the machine has come through: one that names addresses goes before one that
    /// takes any, and the other end counts first.
    pub(super) fn tunnel_of(&self, head: &Head) -> Option<(DeviceId, TunnelKind)> {
        let numbered = (0..).zip(&self.devices);
        let tunnels = numbered.filter_map(|(id, device)| match &device.kind {
            DeviceKind::Tunnel(tunnel) => Some((id, tunnel)),
            DeviceKind::Ethernet(_) | DeviceKind::Tun(_) | DeviceKind::Loopback => None,
        });
        let is_up = |id: DeviceId| self.routing.is_up.get(usize::from(id)) == Some(&true);
        let fitting = tunnels.filter(|(id, tunnel)| is_up(*id) && fits(tunnel, head));
        fitting
            .min_by_key(|(_, tunnel)| (tunnel.remote.is_none(), tunnel.local.is_none()))
            .map(|(id, tunnel)| (id, tunnel.kind))
    }
}

fn fits(tunnel: &Tunnel, head: &Head) -> bool {
    let is_kind = match tunnel.kind {
        TunnelKind::Ip => IP_IN_IP.contains(&head.protocol.0),
        TunnelKind::Gre => head.protocol == GRE,
        TunnelKind::Gue { port } => head.protocol == Protocol::UDP && head.ports.1 == port,
    };
    is_kind
        && tunnel.local.is_none_or(|local| head.destination == local.into())
        && tunnel.remote.is_none_or(|remote| head.source == remote.into())
}

/// Takes the outer header off, and hands the mark of congestion on (RFC 6040 s.4.2). Says whether there is a packet
/// inside.
pub(super) fn take_off(kind: TunnelKind, head: &Head, packet: &mut Packet) -> bool {
    let outer = ip::traffic(packet.bytes()) & 3;
    let Some(inside) = packet.bytes().get(head.offset..) else { return false };
    let length = match kind {
        TunnelKind::Ip => Some(0),
        TunnelKind::Gre => gre(inside),
        TunnelKind::Gue { .. } => gue(inside),
    };
    let Some(length) = length else { return false };
    packet.take_front(head.offset + length);
    let inner = ip::traffic(packet.bytes()) & 3;
    if outer != 3 {
        return true;
    }
    if inner != 0 {
        ip::set_congestion(packet.bytes_mut());
    }
    inner != 0
}

/// Bytes of a GRE header (RFC 2784, RFC 2890); version 0 and without routing only.
fn gre(bytes: &[u8]) -> Option<usize> {
    let [flags, version, t0, t1] = bytes.first_chunk::<4>()?;
    if *version & 7 != 0 || flags & 0x4f != 0 || !CARRIED.contains(&u16::from_be_bytes([*t0, *t1])) {
        return None;
    }
    let optional = (flags & 0xb0).count_ones();
    let length = 4 + 4 * usize::try_from(optional).ok()?;
    let has_checksum = flags & 0x80 != 0;
    (bytes.len() >= length && (!has_checksum || ip::finish(ip::sum(bytes)) == 0)).then_some(length)
}

/// Bytes of a UDP header and of a GUE header behind it; none of the latter in version 1.
fn gue(bytes: &[u8]) -> Option<usize> {
    let first = *bytes.get(UDP_BYTES)?;
    match first >> 6 {
        1 => Some(UDP_BYTES),
        0 => {
            let is_control = first & 0x20 != 0;
            let carried = *bytes.get(UDP_BYTES + 1)?;
            let length = UDP_BYTES + 4 + usize::from(first & 0x1f) * 4;
            (!is_control && IP_IN_IP.contains(&carried) && bytes.len() >= length).then_some(length)
        }
        _ => None,
    }
}
