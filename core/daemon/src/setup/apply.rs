//! Makes changes on the machine and takes them back.
//!
//! In: a list of [`Change`]s. Out: the machine as they say, and a record of what was done, so that exactly
//! that is undone, in reverse order: at the end, when a step fails midway, and when a new plan needs it no
//! longer. What was there already is left alone and stays.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use evenkeel_engine::Plan;
use evenkeel_engine::plan::Layer;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourState};
use rtnetlink::packet_route::route::{RouteMessage, RouteScope};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage, RulePortRange};
use rtnetlink::{AddressMessageBuilder, Handle, LinkUnspec, NeighbourAddRequest, RouteMessageBuilder};
use rustix::io::Errno;

use super::machine::{Before, Link, Machine, Presence, mark};
use super::{Attached, Change, PRIORITY_IGNORE, Selector, SetupError, plan_of_changes, sysctl, unanswered};

/// What one change did to the machine.
#[derive(Clone, Debug)]
struct Made {
    change: Change,
    undo: Undo,
}

#[derive(Clone, Debug)]
enum Undo {
    /// Nothing: it was there already.
    Leave,
    /// Take it away.
    Remove,
    /// Put back what was there.
    Restore(Before),
}

/// Where the changes of one [`Setup::add`] begin.
#[derive(Debug)]
pub struct Mark(usize);

/// The hand that changes the machine, and the memory of what it did.
#[derive(Debug)]
pub struct Setup {
    handle: Handle,
    connection: tokio::task::JoinHandle<()>,
    made: Vec<Made>,
    /// The links before any device was opened: to open a TUN brings it up.
    links: Vec<Link>,
}

impl Drop for Setup {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Setup {
    /// Opens the way to the kernel, before the devices are opened. Nothing changes. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the system gives no netlink socket or does not answer on it.
    pub async fn open() -> Result<Self, SetupError> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|error| SetupError::Netlink { reason: error.to_string() })?;
        let connection = tokio::spawn(connection);
        let mut setup = Self { handle, connection, made: Vec::new(), links: Vec::new() };
        setup.links = Machine::look(&setup.handle).await?.links;
        Ok(setup)
    }

    /// The networks that the machine is attached to.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn attached(&self) -> Result<Vec<Attached>, SetupError> {
        Ok(Machine::look(&self.handle).await?.attached())
    }

    /// Makes what `plan` needs and is not there; all of it, or nothing.
    ///
    /// # Errors
    /// When the kernel refuses a step, when something else is in its place, or when a VIP or source-NAT
    /// address is the machine's own.
    pub async fn add(&mut self, plan: &Plan) -> Result<Mark, SetupError> {
        let machine = Machine::look(&self.handle).await?;
        if let Some(problem) = machine.local_services(plan).into_iter().next() {
            return Err(SetupError::InTheWay { reason: problem });
        }
        for sentence in unanswered(plan, &machine.attached()) {
            tracing::warn!("{sentence}");
        }
        let mark = self.made.len();
        for change in plan_of_changes(plan, &machine.attached()) {
            if let Err(error) = self.add_one(&machine, change).await {
                self.revert_to(mark).await;
                return Err(error);
            }
        }
        Ok(Mark(mark))
    }

    /// Takes back what one [`Setup::add`] made. Never fails: what resists is logged.
    pub async fn take_back(&mut self, mark: Mark) {
        self.revert_to(mark.0).await;
    }

    async fn add_one(&mut self, machine: &Machine, change: Change) -> Result<(), SetupError> {
        let undo = match machine.presence(&change) {
            Presence::Conflict(reason) => return Err(SetupError::InTheWay { reason }),
            Presence::Foreign => self.undo_of_opening(&change),
            Presence::LeftBehind => Undo::Remove,
            Presence::Missing => {
                self.make(machine, &change).await?;
                Undo::Remove
            }
            Presence::Differs(before) => {
                self.make(machine, &change).await?;
                Undo::Restore(before)
            }
        };
        // A second plan that needs the same keeps the memory of how it was before the first one.
        if !self.made.iter().any(|made| made.change == change) {
            self.made.push(Made { change, undo });
        }
        Ok(())
    }

    /// What was there when the forwarder started may be there because a device has been opened since.
    fn undo_of_opening(&self, change: &Change) -> Undo {
        let Change::Link { interface, mtu_bytes } = change else { return Undo::Leave };
        match self.links.iter().find(|link| link.name == *interface) {
            Some(link) if !link.is_up || link.mtu_bytes != u32::from(*mtu_bytes) => {
                Undo::Restore(Before::Link { is_up: link.is_up, mtu_bytes: link.mtu_bytes })
            }
            Some(_) | None => Undo::Leave,
        }
    }

    /// Takes away what was made and `plan` does not need. Never fails: what resists is logged.
    pub async fn remove_all_but(&mut self, plan: &Plan) {
        let networks = match Machine::look(&self.handle).await {
            Ok(machine) => machine.attached(),
            Err(error) => {
                tracing::warn!(%error, "the machine cannot be read, so what is not needed any more stays");
                return;
            }
        };
        let wanted = plan_of_changes(plan, &networks);
        let mut obsolete = Vec::new();
        let mut kept: Vec<Made> = Vec::new();
        for made in self.made.drain(..).collect::<Vec<_>>().into_iter().rev() {
            let is_wanted = wanted.contains(&made.change);
            match kept.iter_mut().find(|later| later.change.is_same_place(&made.change)) {
                // A later value has taken its place: at the end what was there before both comes back. Where
                // the earlier one was there already, that is what the later one has found.
                Some(later) => {
                    if !matches!(made.undo, Undo::Leave) {
                        later.undo = made.undo;
                    }
                }
                None if is_wanted => kept.push(made),
                None => obsolete.push(made),
            }
        }
        kept.reverse();
        self.made = kept;
        self.undo(obsolete).await;
    }

    /// Takes everything back, the last change first, and removes the interfaces of `plan` that were not there
    /// when the forwarder started. Never fails: what resists is logged.
    pub async fn revert(&mut self, plan: &Plan) {
        self.revert_to(0).await;
        let made = plan.interfaces.iter().filter(|interface| matches!(interface.layer, Layer::Ip));
        for name in made.map(|interface| &interface.name) {
            if self.links.iter().any(|link| link.name == *name) {
                continue;
            }
            // It goes with its last descriptor as well, but an io_uring keeps that for a while after its end.
            if let Err(error) = self.remove_link(name).await {
                tracing::warn!(name, %error, "the interface could not be removed");
            }
        }
    }

    async fn remove_link(&self, name: &str) -> Result<(), SetupError> {
        let machine = Machine::look(&self.handle).await?;
        let Ok(link) = index(&machine, name) else { return Ok(()) };
        match self.handle.link().del(link).execute().await {
            Err(error) if !is_gone(&error) => {
                let command = format!("ip link delete dev {name}");
                Err(SetupError::Refused { command, reason: super::words(&error) })
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Says what `plan` needs and the machine lacks, one sentence each.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn missing(&self, plan: &Plan) -> Result<Vec<String>, SetupError> {
        let machine = Machine::look(&self.handle).await?;
        let mut problems = machine.local_services(plan);
        for change in plan_of_changes(plan, &machine.attached()) {
            match machine.presence(&change) {
                Presence::Foreign | Presence::LeftBehind => {}
                Presence::Missing | Presence::Differs(_) => problems.push(format!("missing: {change}")),
                Presence::Conflict(reason) => problems.push(reason),
            }
        }
        Ok(problems)
    }

    async fn revert_to(&mut self, mark: usize) {
        let mut tail = self.made.split_off(mark.min(self.made.len()));
        tail.reverse();
        self.undo(tail).await;
    }

    /// Undoes in the order of the list.
    async fn undo(&self, list: Vec<Made>) {
        if list.is_empty() {
            return;
        }
        let machine = match Machine::look(&self.handle).await {
            Ok(machine) => machine,
            Err(error) => {
                tracing::warn!(%error, "the machine's routes cannot be read, so they stay as they are");
                return;
            }
        };
        for Made { change, undo } in list {
            let result = match undo {
                Undo::Leave => Ok(()),
                Undo::Remove => self.remove(&machine, &change).await,
                Undo::Restore(before) => self.restore(&machine, &change, before).await,
            };
            if let Err(error) = result {
                tracing::warn!(%change, %error, "this could not be taken back");
            }
        }
    }

    async fn make(&self, machine: &Machine, change: &Change) -> Result<(), SetupError> {
        let refused = |error| SetupError::refused(change, &error);
        match change {
            Change::Sysctl { key, value } => {
                sysctl::write(key, value).map_err(|error| SetupError::setting(change, &error))
            }
            Change::Link { interface, mtu_bytes } => {
                let message = LinkUnspec::new_with_index(index(machine, interface)?);
                let message = message.up().mtu(u32::from(*mtu_bytes)).build();
                self.handle.link().set(message).execute().await.map_err(refused)
            }
            Change::Up { interface } => {
                let message = LinkUnspec::new_with_index(index(machine, interface)?).up().build();
                self.handle.link().set(message).execute().await.map_err(refused)
            }
            Change::Ignore { is_v6, interface } => {
                let mut request = self.handle.rule().add().v4();
                *request.message_mut() = ignore(*is_v6, interface);
                request.execute().await.map_err(refused)
            }
            Change::Address { interface, address, length } => {
                let link = index(machine, interface)?;
                let mut request = self.handle.address().add(link, *address, *length);
                // A TUN has no broadcast.
                let attributes = &mut request.message_mut().attributes;
                attributes.retain(|attribute| !matches!(attribute, AddressAttribute::Broadcast(_)));
                request.execute().await.map_err(refused)
            }
            Change::Route { destination, length, interface, table } => {
                let message = route((*destination, *length), index(machine, interface)?, *table);
                self.handle.route().add(message).execute().await.map_err(refused)
            }
            Change::NextHop { address, table } => {
                let message = next_hop(*address, *table);
                self.handle.route().add(message).execute().await.map_err(refused)
            }
            Change::Rule { is_v6, priority, selector, table } => {
                let mut request = self.handle.rule().add().v4();
                *request.message_mut() = rule(*is_v6, *priority, selector, *table);
                request.execute().await.map_err(refused)
            }
            Change::ProxyNeighbour { address, interface } => {
                self.proxy_neighbour(*address, index(machine, interface)?).execute().await.map_err(refused)
            }
        }
    }

    fn proxy_neighbour(&self, address: IpAddr, link: u32) -> NeighbourAddRequest {
        let request = self.handle.neighbours().add(link, address).flags(NeighbourFlags::Proxy);
        let mut request = request.state(NeighbourState::None);
        request.message_mut().attributes.push(NeighbourAttribute::Protocol(mark()));
        request
    }

    async fn remove(&self, machine: &Machine, change: &Change) -> Result<(), SetupError> {
        let result = match change {
            // None of these can be taken away; they are restored instead.
            Change::Sysctl { .. } | Change::Link { .. } | Change::Up { .. } => return Ok(()),
            Change::Ignore { is_v6, interface } => {
                self.handle.rule().del(ignore(*is_v6, interface)).execute().await
            }
            Change::Address { interface, address, length } => {
                let Ok(link) = index(machine, interface) else { return Ok(()) };
                let message = match address {
                    IpAddr::V4(address) => AddressMessageBuilder::<Ipv4Addr>::new()
                        .index(link)
                        .address(*address, *length)
                        .build(),
                    IpAddr::V6(address) => AddressMessageBuilder::<Ipv6Addr>::new()
                        .index(link)
                        .address(*address, *length)
                        .build(),
                };
                self.handle.address().del(message).execute().await
            }
            Change::Route { destination, length, interface, table } => {
                let Ok(link) = index(machine, interface) else { return Ok(()) };
                let message = route((*destination, *length), link, *table);
                self.handle.route().del(message).execute().await
            }
            Change::NextHop { address, table } => {
                self.handle.route().del(next_hop(*address, *table)).execute().await
            }
            Change::Rule { is_v6, priority, selector, table } => {
                self.handle.rule().del(rule(*is_v6, *priority, selector, *table)).execute().await
            }
            Change::ProxyNeighbour { address, interface } => {
                let Ok(link) = index(machine, interface) else { return Ok(()) };
                let message = self.proxy_neighbour(*address, link).message_mut().clone();
                self.handle.neighbours().del(message).execute().await
            }
        };
        match result {
            // Someone else has taken it away before us.
            Err(error) if is_gone(&error) => Ok(()),
            other => other.map_err(|error| SetupError::refused(change, &error)),
        }
    }

    async fn restore(&self, machine: &Machine, change: &Change, before: Before) -> Result<(), SetupError> {
        match (change, before) {
            (Change::Sysctl { key, value }, Before::Sysctl(old)) => match sysctl::read(key) {
                // Gone with its interface, or changed by someone else since.
                None => Ok(()),
                Some(now) if now != *value => Ok(()),
                Some(_) => sysctl::write(key, &old).map_err(|error| SetupError::setting(change, &error)),
            },
            (
                Change::Link { interface, .. } | Change::Up { interface },
                Before::Link { is_up, mtu_bytes },
            ) => {
                let Ok(link) = index(machine, interface) else { return Ok(()) };
                let message = LinkUnspec::new_with_index(link).mtu(mtu_bytes);
                let message = if is_up { message.up() } else { message.down() };
                let result = self.handle.link().set(message.build()).execute().await;
                result.map_err(|error| SetupError::refused(change, &error))
            }
            (
                Change::Sysctl { .. }
                | Change::Link { .. }
                | Change::Up { .. }
                | Change::Ignore { .. }
                | Change::Address { .. }
                | Change::Route { .. }
                | Change::NextHop { .. }
                | Change::Rule { .. }
                | Change::ProxyNeighbour { .. },
                _,
            ) => Ok(()),
        }
    }
}

fn index(machine: &Machine, interface: &str) -> Result<u32, SetupError> {
    let link = machine.link(interface).map(|link| link.index);
    link.ok_or_else(|| SetupError::NoInterface { name: interface.to_owned() })
}

fn route((address, length): (IpAddr, u8), link: u32, table: u32) -> RouteMessage {
    let is_default = length == 0;
    match address {
        IpAddr::V4(address) => {
            let builder = RouteMessageBuilder::<Ipv4Addr>::new().output_interface(link).table_id(table);
            let builder = builder.protocol(mark()).scope(RouteScope::Link);
            if is_default { builder.build() } else { builder.destination_prefix(address, length).build() }
        }
        // IPv6 has no scopes of routes.
        IpAddr::V6(address) => {
            let builder = RouteMessageBuilder::<Ipv6Addr>::new().output_interface(link).table_id(table);
            let builder = builder.protocol(mark());
            if is_default { builder.build() } else { builder.destination_prefix(address, length).build() }
        }
    }
}

/// The default route of `table`, to a next hop that the kernel finds the interface of.
fn next_hop(address: IpAddr, table: u32) -> RouteMessage {
    match address {
        IpAddr::V4(address) => {
            RouteMessageBuilder::<Ipv4Addr>::new().gateway(address).table_id(table).protocol(mark()).build()
        }
        IpAddr::V6(address) => {
            RouteMessageBuilder::<Ipv6Addr>::new().gateway(address).table_id(table).protocol(mark()).build()
        }
    }
}

fn rule(is_v6: bool, priority: u32, selector: &Selector, table: u32) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = if is_v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    message.header.action = RuleAction::ToTable;
    let attributes = &mut message.attributes;
    attributes.push(RuleAttribute::Priority(priority));
    attributes.push(RuleAttribute::Protocol(mark()));
    attributes.push(RuleAttribute::Table(table));
    match selector {
        Selector::Interface(name) => attributes.push(RuleAttribute::Iifname(name.clone())),
        Selector::Replies { address, protocol, ports } => {
            message.header.src_len = if address.is_ipv4() { 32 } else { 128 };
            attributes.push(RuleAttribute::Source(*address));
            attributes.extend(protocol.map(|number| RuleAttribute::IpProtocol(i32::from(number).into())));
            let range = ports.map(|(start, end)| RulePortRange { start, end });
            attributes.extend(range.map(RuleAttribute::SourcePortRange));
        }
    }
    message
}

/// The rule that drops, without a word, what comes in by `interface` and is not for an address of the kernel's.
fn ignore(is_v6: bool, interface: &str) -> RuleMessage {
    let selector = Selector::Interface(interface.to_owned());
    let mut message = rule(is_v6, PRIORITY_IGNORE, &selector, 0);
    message.header.action = RuleAction::Blackhole;
    message.attributes.retain(|attribute| !matches!(attribute, RuleAttribute::Table(_)));
    message
}

fn is_gone(error: &rtnetlink::Error) -> bool {
    let gone = [Errno::NOENT, Errno::SRCH, Errno::NODEV, Errno::ADDRNOTAVAIL];
    super::errno(error).is_some_and(|errno| gone.contains(&errno))
}
