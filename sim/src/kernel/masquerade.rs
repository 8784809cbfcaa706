//! The address translation of a home router: packets of others leave with the router's own address and a port of its
//! choice. Mapping is endpoint-independent (RFC 4787 REQ-1), and kept as long as it is used.

use std::collections::BTreeMap;
use std::net::IpAddr;

use evenkeel_engine::wire::Protocol;
use evenkeel_engine::{Duration, Instant};

use super::route::Flow;
use super::{Device, KernelPlan};
use crate::packet;

/// The ports that are given out.
const PORTS: std::ops::RangeInclusive<u16> = 1_024..=65_535;
/// How long a mapping lives without packets: TCP (RFC 5382 REQ-5), others (RFC 4787 REQ-5).
const TCP_LIFE: Duration = Duration::from_secs(7_440);
const OTHER_LIFE: Duration = Duration::from_secs(300);

type Inner = (Protocol, IpAddr, u16);
type Outer = (Protocol, IpAddr, u16);

#[derive(Clone, Copy, Debug)]
struct Mapping {
    outer: Outer,
    until: Instant,
}

/// The mappings of a router.
#[derive(Debug, Default)]
pub(super) struct Masquerade {
    by_inner: BTreeMap<(usize, Inner), Mapping>,
    by_outer: BTreeMap<Outer, (usize, Inner)>,
    next: u16,
}

impl Masquerade {
    /// Replaces the source of a packet that leaves by `interface`. Returns whether there was a port for it.
    pub(super) fn replace(
        &mut self,
        now: Instant,
        plan: &KernelPlan,
        interface: usize,
        bytes: &mut [u8],
    ) -> bool {
        let Some(flow) = Flow::of(bytes, None) else { return false };
        let Some((port, _)) = flow.ports.or_else(|| packet::query(bytes).map(|identifier| (identifier, 0)))
        else {
            return false;
        };
        let Some(own) = plan.address_towards(Device::Interface(interface), flow.destination) else {
            return false;
        };
        let inner = (flow.protocol, flow.source, port);
        let known = self.by_inner.get(&(interface, inner)).filter(|mapping| mapping.until > now).copied();
        let outer = match known {
            Some(mapping) => mapping.outer,
            None => {
                let Some(outer) = self.free(now, flow.protocol, own, port) else { return false };
                if let Some(before) = self.by_outer.insert(outer, (interface, inner)) {
                    self.by_inner.remove(&before);
                }
                outer
            }
        };
        let until = now.after(if flow.protocol == Protocol::TCP { TCP_LIFE } else { OTHER_LIFE });
        self.by_inner.insert((interface, inner), Mapping { outer, until });
        packet::set_source(bytes, outer.1, outer.2)
    }

    /// Gives a packet that came for a mapping its own destination back. Returns whether it was one.
    pub(super) fn restore(
        &mut self,
        now: Instant,
        plan: &KernelPlan,
        from: Device,
        bytes: &mut [u8],
    ) -> bool {
        let Device::Interface(interface) = from else { return false };
        if !plan.masquerade.contains(&interface) {
            return false;
        }
        let Some(flow) = Flow::of(bytes, None) else { return false };
        if let Some((_, port)) = flow.ports.or_else(|| packet::query(bytes).map(|identifier| (0, identifier)))
        {
            let Some((at, inner)) = self.living(now, (flow.protocol, flow.destination, port)) else {
                return false;
            };
            return at == interface && packet::set_destination(bytes, inner.1, inner.2);
        }
        // An error about a packet of ours quotes it as it left.
        let Some((protocol, quoted)) = packet::quoted_source(bytes) else { return false };
        let Some((at, inner)) = self.living(now, (protocol, quoted.address, quoted.port)) else {
            return false;
        };
        at == interface && packet::set_quoted_source(bytes, inner.1, inner.2)
    }

    fn living(&self, now: Instant, outer: Outer) -> Option<(usize, Inner)> {
        let key = self.by_outer.get(&outer)?;
        let is_alive =
            self.by_inner.get(key).is_some_and(|mapping| mapping.until > now && mapping.outer == outer);
        is_alive.then_some(*key)
    }

    /// A free port, the sender's own where it is (RFC 4787 s.4.2.1: preservation).
    fn free(&mut self, now: Instant, protocol: Protocol, own: IpAddr, wanted: u16) -> Option<Outer> {
        let is_free = |masquerade: &Self, port: u16| masquerade.living(now, (protocol, own, port)).is_none();
        if PORTS.contains(&wanted) && is_free(self, wanted) {
            return Some((protocol, own, wanted));
        }
        for _ in PORTS {
            self.next = if self.next < *PORTS.start() || self.next == *PORTS.end() {
                *PORTS.start()
            } else {
                self.next + 1
            };
            if is_free(self, self.next) {
                return Some((protocol, own, self.next));
            }
        }
        None
    }
}
