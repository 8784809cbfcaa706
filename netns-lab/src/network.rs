//! Links, addresses and routes of the namespace that the process is in, through rtnetlink; its settings
//! through `/proc/sys`.
//!
//! In: names and numbers. Out: the kernel's answer. Never starts a program.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::Path;

use rtnetlink::packet_route::link::{InfoData, InfoVeth};
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder, new_connection,
};
use rustix::net::{AddressFamily, SocketType, netdevice::name_to_index, socket};

/// A netlink connection to the namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Network {
    handle: Handle,
    names: OwnedFd,
}

impl Network {
    /// Opens the connection and leaves its loop to the current runtime.
    ///
    /// # Errors
    ///
    /// When the system gives no netlink socket.
    pub(crate) fn open() -> io::Result<Self> {
        let (connection, handle, _) = new_connection()?;
        tokio::spawn(connection);
        let names = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
        Ok(Self { handle, names })
    }

    /// Adds a bridge and brings it up.
    ///
    /// # Errors
    ///
    /// When the kernel refuses it.
    pub(crate) async fn add_bridge(&self, name: &str) -> io::Result<()> {
        let message = LinkBridge::new(name).up().build();
        self.handle.link().add(message).execute().await.map_err(|error| refused("bridge", name, &error))
    }

    /// Adds a pair of interfaces: `outer` here, `inner` in the network of the process `pid`.
    ///
    /// # Errors
    ///
    /// When the kernel refuses it.
    pub(crate) async fn add_pair(&self, outer: &str, inner: &str, pid: u32) -> io::Result<()> {
        let mut link = LinkVeth::new(outer, inner);
        let peer = LinkMessageBuilder::<LinkUnspec>::default().name(inner).setns_by_pid(pid).build();
        link = link.set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
        self.handle
            .link()
            .add(link.build())
            .execute()
            .await
            .map_err(|error| refused("veth pair", outer, &error))
    }

    /// Makes `port` a port of `bridge` and brings it up.
    ///
    /// # Errors
    ///
    /// When one of them does not exist or the kernel refuses.
    pub(crate) async fn join_bridge(&self, port: &str, bridge: &str) -> io::Result<()> {
        let controller = self.index(bridge)?;
        let message = LinkUnspec::new_with_index(self.index(port)?).controller(controller).up().build();
        self.handle.link().set(message).execute().await.map_err(|error| refused("bridge port", port, &error))
    }

    /// Moves an interface into the network of the process `pid`, under a new name.
    ///
    /// # Errors
    ///
    /// When it does not exist or the kernel refuses.
    pub(crate) async fn hand_over(&self, name: &str, new_name: &str, pid: u32) -> io::Result<()> {
        let message = LinkUnspec::new_with_index(self.index(name)?).name(new_name).setns_by_pid(pid).build();
        self.handle.link().set(message).execute().await.map_err(|error| refused("interface", name, &error))
    }

    /// Brings an interface up, with an MTU when one is given.
    ///
    /// # Errors
    ///
    /// When it does not exist or the kernel refuses.
    pub(crate) async fn bring_up(&self, name: &str, mtu_bytes: Option<u32>) -> io::Result<()> {
        let mut message = LinkUnspec::new_with_index(self.index(name)?).up();
        if let Some(mtu) = mtu_bytes {
            message = message.mtu(mtu);
        }
        self.handle
            .link()
            .set(message.build())
            .execute()
            .await
            .map_err(|error| refused("interface", name, &error))
    }

    /// Gives an interface an address.
    ///
    /// # Errors
    ///
    /// When it does not exist or the kernel refuses.
    pub(crate) async fn add_address(&self, name: &str, address: Ipv4Addr, length: u8) -> io::Result<()> {
        let request = self.handle.address().add(self.index(name)?, address.into(), length);
        request.execute().await.map_err(|error| refused("address", &address.to_string(), &error))
    }

    /// Adds a route by a gateway.
    ///
    /// # Errors
    ///
    /// When the gateway is not on a link or the kernel refuses.
    pub(crate) async fn add_route(&self, to: Ipv4Addr, length: u8, gateway: Ipv4Addr) -> io::Result<()> {
        let message =
            RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to, length).gateway(gateway).build();
        let request = self.handle.route().add(message);
        request.execute().await.map_err(|error| refused("route by", &gateway.to_string(), &error))
    }

    fn index(&self, name: &str) -> io::Result<u32> {
        name_to_index(&self.names, name).map_err(|error| {
            io::Error::new(io::Error::from(error).kind(), format!("interface {name}: {error}"))
        })
    }
}

/// Writes one setting, named as in `sysctl` with slashes: `net/ipv4/ip_forward`.
///
/// # Errors
///
/// When the setting does not exist or may not be written.
pub(crate) fn set(setting: &str, value: &str) -> io::Result<()> {
    fs::write(Path::new("/proc/sys").join(setting), value)
        .map_err(|error| io::Error::new(error.kind(), format!("setting {setting} = {value}: {error}")))
}

/// Whether this kernel knows the setting.
pub(crate) fn has(setting: &str) -> bool {
    Path::new("/proc/sys").join(setting).exists()
}

fn refused(what: &str, name: &str, error: &rtnetlink::Error) -> io::Error {
    io::Error::other(format!("the kernel refuses the {what} {name}: {error}"))
}
