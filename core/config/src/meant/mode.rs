//! How packets reach the real servers: source NAT and tunnels.

use std::net::IpAddr;
use std::ops::{Range, RangeInclusive};

use evenkeel_engine::InterfaceId;
use evenkeel_engine::forward::tunnel::{Encapsulation, GUE_PORT};
use evenkeel_engine::plan::{ANY_PORT, Mode, SourceNat};

use super::bindings::Bound;
use super::director::Service;
use super::network::interface_id;
use super::{Meaning, flag, number};
use crate::addresses::{self, family};
use crate::diagnostic::Code;
use crate::forms::{ModeName, quote};
use crate::written::{self, At, OneOrMany, Tunnel};

/// The ports of source NAT when the file does not say: all but those that only privileged programs use.
const SNAT_PORTS_DEFAULT: RangeInclusive<u16> = 1_024..=65_535;

/// The most rules of source NAT of one director; they are looked through for a new flow.
const SNATS_MAX: usize = 256;

impl Meaning<'_> {
    /// How the packets of a director reach its real servers, with the details of the mode.
    pub(super) fn mode(&mut self, service: &Service<'_>, written: &written::Director) -> Option<Mode> {
        let name = &service.name.value;
        if let Some(snat) = &written.snat {
            self.places.insert("director", name, "snat", &snat.span);
            self.only_with(service, ModeName::Nat, "snat", &snat.span);
        }
        if let Some(tunnel) = &written.tunnel {
            self.places.insert("director", name, "tunnel", &tunnel.span);
            self.only_with(service, ModeName::Tunnel, "tunnel", &tunnel.span);
        }
        match service.mode? {
            ModeName::Gateway => Some(Mode::Gateway),
            ModeName::Nat => {
                self.source_nats(service, written.snat.as_ref()).map(|sources| Mode::Nat { sources })
            }
            ModeName::Tunnel => self.tunnel(written.tunnel.as_ref()),
        }
    }

    /// Reports a key that only one mode has.
    fn only_with(&mut self, service: &Service<'_>, wanted: ModeName, key: &str, span: &Range<usize>) {
        let Some(mode) = service.mode.filter(|mode| *mode != wanted) else { return };
        let name = quote(&service.name.value);
        let (mode, wanted) = (mode.name(), wanted.name());
        let message = format!("the mode of {name} is `{mode}`, and `{key}` belongs to `{wanted}`");
        let diagnostic = self.diagnostic(Code::Conflict, span, message);
        self.found.push(diagnostic.help(format!("write `mode = \"{wanted}\"`, or take out `{key}`")));
    }

    fn source_nats(
        &mut self,
        service: &Service<'_>,
        written: Option<&At<OneOrMany<written::SourceNat>>>,
    ) -> Option<Vec<SourceNat>> {
        let list = OneOrMany::each(written);
        if let Some(At { value: OneOrMany::Many(list), .. }) = written {
            self.bounded(list, SNATS_MAX, "rules of source NAT");
        }
        let mut known: Vec<(&Range<usize>, SourceNat)> = Vec::new();
        for (span, value) in list.iter().take(SNATS_MAX) {
            let Some(source) = self.source_nat(service, span, value) else { continue };
            if let Some((first, _)) = known.iter().find(|(_, earlier)| leaves_nothing(earlier, &source)) {
                let message = "an earlier rule of source NAT takes all flows of this one";
                let diagnostic = self.diagnostic(Code::ShadowedSnat, span, message).also(first, "this rule");
                self.found.push(diagnostic.help("put the rule with more conditions first, or take it out"));
            }
            known.push((span, source));
        }
        (known.len() == list.len()).then(|| known.into_iter().map(|(_, source)| source).collect())
    }

    fn source_nat(
        &mut self,
        service: &Service<'_>,
        span: &Range<usize>,
        value: &written::SourceNat,
    ) -> Option<SourceNat> {
        let address =
            value.address.as_ref().and_then(|at| self.text(&at.span, addresses::host_address(&at.value.0)));
        let mut range = |written: Option<&At<written::PortRangeText>>, default| match written {
            Some(at) => self.text(&at.span, addresses::port_range(&at.value.0)),
            None => Some(default),
        };
        let ports = range(value.ports.as_ref(), SNAT_PORTS_DEFAULT);
        let service_ports = range(value.service_ports.as_ref(), ANY_PORT);
        let interface_in = self.interface_of(value.r#in.as_ref());
        let interface_out = self.interface_of(value.out.as_ref());
        let (address, ports) = (address?, ports?);
        if let Some(at) = &value.address
            && !self.is_of_a_vip(service, address, &at.span)
        {
            return None;
        }
        let protocols = service.binds.iter().map(|binding| binding.protocol);
        let protocols: std::collections::BTreeSet<_> = protocols.collect();
        let clash = protocols.iter().find_map(|protocol| service.all.meeting(address, &ports, *protocol));
        if let Some(bound) = clash {
            self.snat_overlap(span, value, (address, &ports), bound);
            return None;
        }
        Some(SourceNat {
            interface_in: interface_in?,
            interface_out: interface_out?,
            service_ports: service_ports?,
            ..SourceNat::to(address, ports)
        })
    }

    /// The interface that a condition names; none without a condition.
    fn interface_of(
        &mut self,
        written: Option<&At<written::InterfaceNameText>>,
    ) -> Option<Option<InterfaceId>> {
        let Some(at) = written else { return Some(None) };
        let index = self.resolve(Code::UnknownInterface, "interface", &at.value.0, &at.span)?;
        interface_id(index).map(Some)
    }

    /// Whether some VIP is of the family of this address of source NAT; if none is, that is reported.
    fn is_of_a_vip(&mut self, service: &Service<'_>, address: IpAddr, span: &Range<usize>) -> bool {
        let is_fit = |vip: &IpAddr| vip.is_ipv4() == address.is_ipv4();
        let mut vips = service.binds.iter().map(|binding| binding.network.address);
        let Some(vip) = service.binds.first().map(|binding| binding.network.address) else { return true };
        if vips.any(|vip| is_fit(&vip)) {
            return true;
        }
        let (of, wanted) = (family(&address), family(&vip));
        let name = quote(&service.name.value);
        let message = format!("the source NAT of {name} is to an {of} address, and its VIPs are {wanted}");
        let diagnostic = self.diagnostic(Code::FamilyMismatch, span, message);
        self.found.push(diagnostic.help(format!("write an {wanted} address of the forwarder")));
        false
    }

    /// Reports ports of source NAT that a director needs for itself.
    fn snat_overlap(
        &mut self,
        span: &Range<usize>,
        value: &written::SourceNat,
        (address, ports): (IpAddr, &RangeInclusive<u16>),
        bound: &Bound,
    ) {
        let taken = &bound.binding.ports;
        let taken_text = match bound.binding.port() {
            Some(port) => format!("port {port} is that"),
            None if bound.binding.is_any_port() => "all of them are those".to_owned(),
            None => format!("the ports {}-{} are those", taken.start(), taken.end()),
        };
        let message = format!(
            "the source NAT to {address} uses the ports {}-{}, and {taken_text} of the director {}",
            ports.start(),
            ports.end(),
            quote(&bound.director)
        );
        let diagnostic = self
            .diagnostic(Code::SnatOverlap, value.ports.as_ref().map_or(span, |at| &at.span), message)
            .also(&bound.place, "bound here");
        self.found.push(match (beside(ports, taken), &value.ports) {
            (Some(instead), Some(at)) => {
                let words =
                    if taken.start() == taken.end() { "leave its port out" } else { "leave its ports out" };
                diagnostic.repair(&at.span, format!("\"{instead}\""), words)
            }
            (Some(instead), None) => diagnostic.help(format!("add `ports = \"{instead}\"`")),
            (None, _) => diagnostic.help("name other ports, or an address that no director is bound to"),
        });
    }

    fn tunnel(&mut self, written: Option<&At<Tunnel>>) -> Option<Mode> {
        let none = Tunnel::default();
        let value = written.map_or(&none, |at| &at.value);
        let kind = value.encapsulation.as_ref().map(|at| at.value).unwrap_or_default();
        let has_checksum = flag(value.checksum.as_ref(), false);
        let port = number(value.port.as_ref(), GUE_PORT);
        let (mut is_right, mut unfit) = (true, Vec::new());
        if let Some(at) = value.checksum.as_ref().filter(|at| at.value)
            && kind == written::Encapsulation::Ipip
        {
            unfit.push((
                &at.span,
                "checksum",
                "write `encapsulation = \"gre\"` or `\"gue\"`, or take it out",
            ));
        }
        if let Some(at) = &value.port
            && kind != written::Encapsulation::Gue
        {
            unfit.push((&at.span, "port", "write `encapsulation = \"gue\"`, or take it out"));
        }
        for (span, key, help) in unfit {
            let message = format!("an outer packet of `{}` has no {key}", kind.name());
            let diagnostic = self.diagnostic(Code::Conflict, span, message);
            self.found.push(diagnostic.help(help));
            is_right = false;
        }
        let encapsulation = match kind {
            written::Encapsulation::Ipip => Encapsulation::IpIp,
            written::Encapsulation::Gre => Encapsulation::Gre { checksum: has_checksum },
            written::Encapsulation::Gue => Encapsulation::Gue { port, checksum: has_checksum },
        };
        let sources = self.tunnel_sources(value.source.as_ref())?;
        let ttl = value.ttl.as_ref().and_then(|at| u8::try_from(at.value).ok());
        is_right.then_some(Mode::Tunnel { encapsulation, sources, ttl })
    }

    /// From whom outer packets come: one address for each family.
    fn tunnel_sources(
        &mut self,
        written: Option<&At<OneOrMany<written::AddressText>>>,
    ) -> Option<Vec<IpAddr>> {
        let list = OneOrMany::each(written);
        let mut known: Vec<(&Range<usize>, IpAddr)> = Vec::new();
        let mut is_right = true;
        for (span, text) in list {
            let Some(address) = self.text(span, addresses::host_address(&text.0)) else {
                is_right = false;
                continue;
            };
            let same = known.iter().find(|(_, other)| other.is_ipv4() == address.is_ipv4());
            if let Some((first, _)) = same {
                let message = format!("the tunnel has two sources of {}", family(&address));
                let diagnostic = self.diagnostic(Code::Conflict, span, message).also(first, "first here");
                self.found.push(diagnostic.help("name one address for each family"));
                return None;
            }
            known.push((span, address));
        }
        is_right.then(|| known.into_iter().map(|(_, address)| address).collect())
    }
}

/// Whether every flow for which `later` holds is one for which `earlier` does.
fn leaves_nothing(earlier: &SourceNat, later: &SourceNat) -> bool {
    let covers = |one: Option<InterfaceId>, other: Option<InterfaceId>| one.is_none() || one == other;
    let (ports, others) = (&earlier.service_ports, &later.service_ports);
    earlier.address.is_ipv4() == later.address.is_ipv4()
        && covers(earlier.interface_in, later.interface_in)
        && covers(earlier.interface_out, later.interface_out)
        && ports.start() <= others.start()
        && ports.end() >= others.end()
}

/// The larger part of `ports` that holds none of `taken`.
fn beside(ports: &RangeInclusive<u16>, taken: &RangeInclusive<u16>) -> Option<String> {
    let below = taken.start().checked_sub(1).map(|last| *ports.start()..=last);
    let above = taken.end().checked_add(1).map(|first| first..=*ports.end());
    let parts = [above, below].into_iter().flatten().filter(|part| !part.is_empty());
    parts.max_by_key(ExactSizeIterator::len).map(|part| format!("{}-{}", part.start(), part.end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_part_beside_is_taken() {
        assert_eq!(beside(&(1..=100), &(90..=90)).as_deref(), Some("1-89"));
        assert_eq!(beside(&(1..=100), &(10..=20)).as_deref(), Some("21-100"));
        assert_eq!(beside(&(1..=100), &(50..=200)).as_deref(), Some("1-49"));
        assert_eq!(beside(&(50..=100), &ANY_PORT), None);
        assert_eq!(beside(&(50..=50), &(50..=50)), None);
        assert_eq!(beside(&(1..=65_535), &(65_535..=65_535)).as_deref(), Some("1-65534"));
    }

    #[test]
    fn a_rule_takes_all_of_one_with_more_conditions() {
        let address: IpAddr = "10.99.0.1".parse().unwrap();
        let all = SourceNat::to(address, 1..=9);
        let some = SourceNat { service_ports: 80..=90, interface_in: Some(InterfaceId(1)), ..all.clone() };
        assert!(leaves_nothing(&all, &some) && leaves_nothing(&all, &all));
        assert!(!leaves_nothing(&some, &all));
        let other = SourceNat { interface_in: Some(InterfaceId(2)), ..some.clone() };
        assert!(!leaves_nothing(&other, &some));
        let six = SourceNat { address: "fc00::1".parse().unwrap(), ..all.clone() };
        assert!(!leaves_nothing(&all, &six), "each family has its own");
    }
}
