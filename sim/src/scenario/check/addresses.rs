//! Segments, and the addresses of machines on them.

use std::net::IpAddr;
use std::ops::Range;

use evenkeel_config::document::{At, Named, OneOrMany, quote};

use super::Checker;
use crate::scenario::quantity::{self, CountedAddress, bits_of, network_of};
use crate::scenario::written::{self, LoneAddressText};
use crate::scenario::{Attachment, Scenario, Segment, SegmentKind, Subnet, VLAN_DEFAULT};

/// The longest name of an interface, in bytes; the kernel's limit.
const INTERFACE_MAX: usize = 15;
/// The most interfaces of a machine; as many as a configuration has.
const INTERFACES_MAX: usize = 64;
/// The largest IP packet of an interface that names none: Ethernet's.
const MTU_DEFAULT: u16 = 1_500;
/// Networks are this long at least: a shorter one holds more addresses than a scenario has machines, many times over.
const LENGTH_MIN: u8 = 8;

impl Checker<'_, '_> {
    pub(super) fn segments(&mut self, written: Option<&At<Named<written::Segment>>>) -> Vec<Segment> {
        let mut segments: Vec<Segment> = Vec::new();
        for (name, segment) in self.sorted(written, "segment") {
            let subnets = self.subnets(&segment.value);
            let kind = match segment.value.kind.as_ref().map(|at| at.value) {
                None | Some(written::SegmentKind::Switch) => SegmentKind::Switch,
                Some(written::SegmentKind::Cable) => SegmentKind::Cable,
            };
            // Without a network it stays, so that nobody on it is told that it does not exist.
            segments.push(Segment { name: name.value.clone(), kind, subnets });
        }
        segments
    }

    fn subnets(&mut self, segment: &written::Segment) -> Vec<Subnet> {
        let mut subnets: Vec<Subnet> = Vec::new();
        let each = OneOrMany::each(segment.subnet.as_ref());
        if let (Some(at), true) = (&segment.subnet, each.is_empty()) {
            self.errors.add_missing(at.span.clone(), "a segment has at least one network");
        }
        for (span, text) in each {
            let Some(subnet) = self.value(span, &text.0, quantity::network) else { continue };
            let longest = bits_of(subnet.address) - 1;
            if !(LENGTH_MIN..=longest).contains(&subnet.length) {
                let message =
                    format!("the length of {} is outside of {LENGTH_MIN} to {longest}", quote(&text.0));
                self.errors.add(span.clone(), message);
                continue;
            }
            if !self.is_network(span, subnet) {
                continue;
            }
            if subnets.iter().any(|other| other.address.is_ipv4() == subnet.address.is_ipv4()) {
                self.errors.add(span.clone(), "a segment has one network of each family");
                continue;
            }
            subnets.push(subnet);
        }
        subnets
    }

    /// Networks do not overlap, but for the two sides of a forwarder that passes frames on between them.
    pub(super) fn overlaps(&mut self, file: &written::File, scenario: &Scenario) {
        for (name, written) in Named::entries(file.segment.as_ref().map(|at| &at.value)) {
            let found = scenario.segments.iter().position(|segment| segment.name == name.value);
            let Some(segment) = found.and_then(|index| scenario.segments.get(index).map(|one| (index, one)))
            else {
                continue;
            };
            for (other, subnet) in
                scenario.segments.iter().enumerate().take(segment.0).flat_map(|(index, other)| {
                    other.subnets.iter().map(move |subnet| ((index, other), *subnet))
                })
            {
                let overlaps = |own: &&Subnet| own.contains(subnet.address) || subnet.contains(own.address);
                let Some(own) = segment.1.subnets.iter().find(overlaps) else { continue };
                if *own == subnet && is_bridged(scenario, segment.0, other.0) {
                    continue;
                }
                let span = written.value.subnet.as_ref().map_or(&name.span, |at| &at.span).clone();
                let message = format!("{own} overlaps the network of segment {} ({subnet})", other.1.name);
                self.errors.add(span, message);
                break;
            }
        }
    }

    /// Whether it has no bits beyond its length; notes those.
    pub(super) fn is_network(&mut self, span: &Range<usize>, subnet: Subnet) -> bool {
        let address = network_of(subnet.address, subnet.length);
        if address == subnet.address {
            return true;
        }
        let help = format!("the network is {}", Subnet { address, ..subnet });
        self.errors.add_with_help(span.clone(), format!("{subnet} has bits beyond its length"), Some(help));
        false
    }

    /// The interfaces of machine `number` of its group; nothing when one is wrong.
    pub(super) fn attachments(
        &mut self,
        written: &At<Vec<At<written::Attach>>>,
        segments: &[Segment],
        machine: &str,
        number: Option<u32>,
    ) -> Option<Vec<Attachment>> {
        if written.value.is_empty() {
            self.errors.add_missing(written.span.clone(), format!("{machine} is attached to nothing"));
            return None;
        }
        if let Some(attach) = written.value.get(INTERFACES_MAX) {
            self.errors
                .add(attach.span.clone(), format!("a machine has at most {INTERFACES_MAX} interfaces"));
            return None;
        }
        let mut attachments: Vec<Attachment> = Vec::new();
        let mut is_right = true;
        for (place, attach) in written.value.iter().enumerate() {
            let Some(attachment) = self.attachment(place, attach, segments, machine, number) else {
                is_right = false;
                continue;
            };
            if let Some(other) = attachments.iter().find(|other| other.interface == attachment.interface) {
                let span = attach.value.interface.as_ref().map_or(&attach.span, |at| &at.span).clone();
                let message = format!("{machine} has two interfaces of the name {}", other.interface);
                self.errors.add(span, message);
                is_right = false;
            }
            let is_same =
                |other: &Attachment| other.segment == attachment.segment && other.vlan == attachment.vlan;
            if attachments.iter().any(is_same) {
                let span = attach.value.segment.as_ref().map_or(&attach.span, |at| &at.span).clone();
                self.errors.add(span, format!("{machine} is attached there twice"));
                is_right = false;
            }
            attachments.push(attachment);
        }
        is_right.then_some(attachments)
    }

    fn attachment(
        &mut self,
        place: usize,
        written: &At<written::Attach>,
        segments: &[Segment],
        machine: &str,
        number: Option<u32>,
    ) -> Option<Attachment> {
        let attach = &written.value;
        let interface = match &attach.interface {
            Some(name) => self.interface_name(name)?,
            None => format!("eth{place}"),
        };
        let index = self.segment(attach.segment.as_ref()?, segments)?;
        let segment = segments.get(index)?;
        let vlan =
            attach.vlan.as_ref().and_then(|vlan| u16::try_from(vlan.value).ok()).unwrap_or(VLAN_DEFAULT);
        if let (Some(vlan), SegmentKind::Cable) = (&attach.vlan, segment.kind) {
            self.errors.add(vlan.span.clone(), format!("{} is a cable, which has no VLANs", segment.name));
        }
        let mtu_bytes =
            attach.mtu.as_ref().and_then(|mtu| u16::try_from(mtu.value).ok()).unwrap_or(MTU_DEFAULT);
        let mut addresses = Vec::new();
        let mut is_right = true;
        for (span, text) in OneOrMany::each(attach.address.as_ref()) {
            match self.own_address(span, &text.0, segment, machine, number) {
                Some(address) => addresses.push(address),
                None => is_right = false,
            }
        }
        is_right &= self.take_parts(&written.span, 1 + addresses.len());
        is_right.then_some(Attachment { segment: index, interface, vlan, addresses, mtu_bytes })
    }

    fn interface_name(&mut self, name: &At<String>) -> Option<String> {
        let text = &name.value;
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if text.is_empty() || text.len() > INTERFACE_MAX || !text.bytes().all(is_allowed) || text == "lo" {
            let rule = format!(
                "interfaces have names of 1 to {INTERFACE_MAX} letters, digits, `-`, `_` and `.`, and not `lo`"
            );
            self.errors.add(name.span.clone(), format!("interface name {}: {rule}", quote(text)));
            return None;
        }
        Some(text.clone())
    }

    /// The address of one machine of a group, where exactly one of them is counted on.
    fn counted(
        &mut self,
        span: &Range<usize>,
        counted: CountedAddress,
        machine: &str,
        number: Option<u32>,
    ) -> Option<IpAddr> {
        if counted.counts && number.is_none() {
            self.errors.add(span.clone(), format!("{machine}: `+i` needs a `count`"));
            return None;
        }
        let address = counted.of(number.unwrap_or(0));
        if address.is_none() {
            self.errors.add(span.clone(), format!("the addresses end before {machine}"));
        }
        address
    }

    fn own_address(
        &mut self,
        span: &Range<usize>,
        text: &str,
        segment: &Segment,
        machine: &str,
        number: Option<u32>,
    ) -> Option<IpAddr> {
        let counted = self.value(span, text, quantity::counted_address)?;
        if number.is_some_and(|number| number > 0) && !counted.counts {
            let message = format!("{machine}: several hosts have the same address here");
            self.errors.add_with_help(
                span.clone(),
                message,
                Some(format!("write `+i`: {}", with_count(text))),
            );
            return None;
        }
        let address = self.counted(span, counted, machine, number)?;
        if segment.subnets.is_empty() {
            return Some(address);
        }
        let Some(subnet) = segment.subnets.iter().find(|subnet| is_host(**subnet, address)) else {
            let networks: Vec<_> = segment.subnets.iter().map(ToString::to_string).collect();
            let message = format!(
                "{address}, the address of {machine}, is no host of {} ({})",
                segment.name,
                networks.join(", ")
            );
            self.errors.add(span.clone(), message);
            return None;
        };
        if counted.length != subnet.length {
            let message = format!("the length is {} here, but {} is {subnet}", counted.length, segment.name);
            self.errors.add(span.clone(), message);
            return None;
        }
        if let Some(owner) = self.owners.insert(address, machine.to_owned()) {
            self.errors.add(span.clone(), format!("{owner} and {machine} both have the address {address}"));
            return None;
        }
        Some(address)
    }

    /// The addresses on the loopback interface. Several machines may have the same one there.
    pub(super) fn loopback(
        &mut self,
        written: Option<&At<OneOrMany<LoneAddressText>>>,
        machine: &str,
        number: Option<u32>,
    ) -> Option<Vec<IpAddr>> {
        let mut addresses: Vec<IpAddr> = Vec::new();
        for (span, text) in OneOrMany::each(written) {
            let counted = self.value(span, &text.0, quantity::lone_address)?;
            let address = self.counted(span, counted, machine, number)?;
            if address.is_unspecified() || address.is_multicast() {
                self.errors.add(span.clone(), format!("{address} is no address of a machine"));
                return None;
            }
            if addresses.contains(&address) {
                self.errors.add(span.clone(), format!("{machine} has {address} twice"));
                return None;
            }
            addresses.push(address);
        }
        let span = written.map_or(0..0, |at| at.span.clone());
        self.take_parts(&span, addresses.len()).then_some(addresses)
    }
}

/// Whether a forwarder has ports without addresses on both segments.
fn is_bridged(scenario: &Scenario, one: usize, other: usize) -> bool {
    scenario.forwarders.iter().any(|forwarder| {
        let has_port = |segment| {
            let mut all = forwarder.network.attachments.iter();
            all.any(|attachment| attachment.segment == segment && attachment.addresses.is_empty())
        };
        has_port(one) && has_port(other)
    })
}

/// "10.0.0.10/24" as "10.0.0.10+i/24".
fn with_count(text: &str) -> String {
    match text.split_once('/') {
        Some((address, length)) => format!("`{address}+i/{length}`"),
        None => String::new(),
    }
}

/// In the network, and for IPv4 neither its first nor its last address.
fn is_host(subnet: Subnet, address: IpAddr) -> bool {
    if !subnet.contains(address) {
        return false;
    }
    match (subnet.address, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) if subnet.length < 31 => {
            let last = network.to_bits() | (u32::MAX >> subnet.length);
            address != network && address.to_bits() != last
        }
        (IpAddr::V4(_) | IpAddr::V6(_), IpAddr::V4(_) | IpAddr::V6(_)) => true,
    }
}
