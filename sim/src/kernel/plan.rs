//! What a kernel is told.

use std::net::IpAddr;

use super::Device;
use crate::scenario::{Ecmp, Rule, Subnet, Sysctl, TABLE_MAIN};

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfacePlan {
    /// Its name.
    pub name: String,
    /// Its station.
    pub mac: [u8; 6],
    /// The largest IP packet.
    pub mtu_bytes: u16,
    /// The machine's addresses there, each with the length of its network.
    pub addresses: Vec<Subnet>,
}

/// A TUN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunPlan {
    /// Its name.
    pub name: String,
    /// The largest IP packet.
    pub mtu_bytes: u16,
    /// The machine's addresses there.
    pub addresses: Vec<Subnet>,
    /// Sources are not looked at on it, whatever the machine's `rp_filter` says.
    pub is_trusted: bool,
}

/// Where packets for a network go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteEntry {
    /// The network.
    pub to: Subnet,
    /// The routing table.
    pub table: u32,
    /// What happens to them.
    pub way: Way,
}

/// What a route does with packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// Gives them to one of these routers: address and weight.
    Via(Vec<(IpAddr, u32)>),
    /// Sends them out of a device, to the destination itself.
    On(Device),
    /// Drops them without a word.
    Blackhole,
    /// Drops them and tells the sender.
    Unreachable,
}

/// What a kernel is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelPlan {
    /// Its interfaces.
    pub interfaces: Vec<InterfacePlan>,
    /// Its TUNs.
    pub tuns: Vec<TunPlan>,
    /// Addresses on the loopback interface.
    pub loopback: Vec<IpAddr>,
    /// Routes besides those to the networks of its interfaces.
    pub routes: Vec<RouteEntry>,
    /// Rules, in any order.
    pub rules: Vec<Rule>,
    /// Its switches.
    pub sysctl: Sysctl,
    /// How it deals flows out over several ways.
    pub ecmp: Ecmp,
    /// The interfaces on which sources of others are replaced.
    pub masquerade: Vec<usize>,
    /// Addresses of others for which it answers: interface and address.
    pub proxies: Vec<(usize, IpAddr)>,
    /// Whether it takes packets out of tunnels.
    pub decapsulates: bool,
}

impl KernelPlan {
    pub(super) fn own_addresses(&self) -> Vec<IpAddr> {
        let plugged = self.interfaces.iter().flat_map(|interface| &interface.addresses);
        let tuns = self.tuns.iter().flat_map(|tun| &tun.addresses);
        let all = plugged.chain(tuns).map(|subnet| subnet.address);
        all.chain(self.loopback.iter().copied()).collect()
    }

    /// The addresses that a device has.
    pub(super) fn addresses(&self, device: Device) -> &[Subnet] {
        match device {
            Device::Interface(number) => self.interfaces.get(number).map_or(&[], |one| &one.addresses),
            Device::Tun(number) => self.tuns.get(number).map_or(&[], |one| &one.addresses),
        }
    }

    /// The address of this machine that packets by `device` to `towards` come from: one of the same network before any of
    /// the device, and that before any other.
    pub(super) fn address_towards(&self, device: Device, towards: IpAddr) -> Option<IpAddr> {
        let is_fit = |subnet: &&Subnet| subnet.address.is_ipv4() == towards.is_ipv4();
        let own = self.addresses(device).iter().filter(is_fit);
        let near =
            own.clone().find(|subnet| network(subnet).contains(towards)).or_else(|| own.clone().next());
        near.map(|subnet| subnet.address).or_else(|| {
            let all = self.interfaces.iter().flat_map(|interface| &interface.addresses);
            all.filter(is_fit).map(|subnet| subnet.address).next()
        })
    }

    pub(super) fn mtu(&self, device: Device) -> u16 {
        match device {
            Device::Interface(number) => self.interfaces.get(number).map_or(0, |one| one.mtu_bytes),
            Device::Tun(number) => self.tuns.get(number).map_or(0, |one| one.mtu_bytes),
        }
    }

    pub(super) fn rp_filter(&self, device: Device) -> u8 {
        match device {
            Device::Tun(number) if self.tuns.get(number).is_some_and(|tun| tun.is_trusted) => 0,
            Device::Tun(_) | Device::Interface(_) => self.sysctl.rp_filter,
        }
    }

    /// The device with this name.
    #[must_use]
    pub fn device(&self, name: &str) -> Option<Device> {
        let interface = self.interfaces.iter().position(|one| one.name == name).map(Device::Interface);
        interface.or_else(|| self.tuns.iter().position(|one| one.name == name).map(Device::Tun))
    }

    pub(super) fn set_route(&mut self, entry: RouteEntry) {
        self.delete_route(entry.to, entry.table);
        self.routes.push(entry);
    }

    pub(super) fn delete_route(&mut self, to: Subnet, table: u32) {
        self.routes.retain(|known| known.to != to || known.table != table);
    }

    /// The routes to the networks of its devices, in the main table.
    pub(super) fn connected(&self) -> impl Iterator<Item = RouteEntry> + '_ {
        let of = |device: Device| {
            self.addresses(device).iter().map(move |subnet| RouteEntry {
                to: network(subnet),
                table: TABLE_MAIN,
                way: Way::On(device),
            })
        };
        let interfaces = (0..self.interfaces.len()).map(Device::Interface);
        interfaces.chain((0..self.tuns.len()).map(Device::Tun)).flat_map(of)
    }
}

/// The network of an address: its host bits are zero.
pub(super) fn network(subnet: &Subnet) -> Subnet {
    let length = subnet.length;
    let address = match subnet.address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    };
    Subnet { address, length }
}
