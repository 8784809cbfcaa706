//! Tells when the link of an Ethernet interface comes up, so that the neighbours there can be told of our addresses.
//!
//! In: names of interfaces, and what the kernel says of links. Out: the name of one whose link has come up. A switch
//! that was restarted, or a cable that leads elsewhere now, knows nothing of us until we say something.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's messages and attributes are many, and new ones must not disturb"
)]

use std::collections::BTreeMap;
use std::io;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use tokio::task::JoinHandle;

/// The watch over some interfaces.
pub(crate) struct Links {
    messages: BoxStream<'static, LinkMessage>,
    connection: JoinHandle<()>,
    /// By name, whether the link was up when it was last heard of.
    is_up: BTreeMap<String, bool>,
}

impl Drop for Links {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Links {
    /// Watches the interfaces `names`, whose links count as up until the kernel says otherwise.
    ///
    /// # Errors
    /// When the system gives no netlink socket.
    pub(crate) fn watch(names: impl Iterator<Item = String>) -> io::Result<Self> {
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&[MulticastGroup::Link])?;
        let connection = tokio::spawn(connection);
        let about_links = messages.filter_map(|(message, _)| async move {
            match message.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => Some(link),
                _ => None,
            }
        });
        let is_up = names.map(|name| (name, true)).collect();
        Ok(Self { messages: about_links.boxed(), connection, is_up })
    }

    /// Waits until the link of one of the interfaces comes up. Never ends when the kernel says no more.
    pub(crate) async fn next_up(&mut self) -> String {
        while let Some(message) = self.messages.next().await {
            if let Some(name) = note(&mut self.is_up, &message) {
                return name;
            }
        }
        std::future::pending().await
    }
}

/// Notes what a message says of a link. Gives its name when it has come up.
fn note(is_up: &mut BTreeMap<String, bool>, message: &LinkMessage) -> Option<String> {
    let name = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name),
        _ => None,
    })?;
    let state = is_up.get_mut(name)?;
    let now = message.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp);
    let was = std::mem::replace(state, now);
    (now && !was).then(|| name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(name: &str, flags: LinkFlags) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.flags = flags;
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message
    }

    #[test]
    fn a_link_is_told_when_it_comes_up_and_only_then() {
        let mut is_up = BTreeMap::from([("lan".to_owned(), true)]);
        let (up, no_carrier) = (LinkFlags::Up | LinkFlags::LowerUp, LinkFlags::Up);
        assert_eq!(note(&mut is_up, &message("lan", up)), None, "it was up");
        assert_eq!(note(&mut is_up, &message("lan", no_carrier)), None);
        assert_eq!(note(&mut is_up, &message("wan", up)), None, "nobody has asked for it");
        assert_eq!(note(&mut is_up, &message("lan", up)), Some("lan".to_owned()));
        assert_eq!(note(&mut is_up, &message("lan", up)), None);
        assert_eq!(note(&mut is_up, &message("lan", LinkFlags::empty())), None);
        assert_eq!(note(&mut is_up, &message("lan", LinkFlags::LowerUp)), None, "it is down all the same");
    }
}
