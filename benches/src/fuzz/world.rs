//! The plans of the fuzzer's world: small ones, so that every bound is met within a few hundred packets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use evenkeel_engine::forward::tunnel::{Encapsulation, GUE_PORT};
use evenkeel_engine::plan::{
    ANY_PORT, Binding, Builtin, DirectorPlan, FlowAction, FlowPlan, FlowRule, Handling, InterfacePlan, Layer,
    Limits, MidStream, Mode, Persistence, Ping, Plan, PolicyPlan, Prefix, RoutePlan, ServerPlan, SourceNat,
    Test, Timeouts,
};
use evenkeel_engine::wire::ethernet::MacAddress;
use evenkeel_engine::wire::{HashKey, Protocol};
use evenkeel_engine::{Duration, InterfaceId};

/// The directors of every plan.
pub(crate) const DIRECTORS: [&str; 6] = ["web", "dns", "all", "dsr", "far", "net"];

/// The real servers of every director.
pub(crate) const SERVERS: [&str; 3] = ["s1", "s2", "s3"];

/// The number of the TUN among the interfaces; two of Ethernet follow.
pub(crate) const TUN: u16 = 0;

/// The port of every service that is not bound to any.
pub(crate) const PORT: u16 = 80;

/// A host of the world in either family.
pub(crate) fn host(is_v6: bool, network: u8, number: u8) -> IpAddr {
    match (is_v6, network) {
        (false, 0) => IpAddr::V4(Ipv4Addr::new(192, 0, 2, number)),
        (false, _) => IpAddr::V4(Ipv4Addr::new(10, 0, network - 1, number)),
        (true, _) => IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, u16::from(network), 0, 0, 0, u16::from(number))),
    }
}

/// A client.
pub(crate) fn client(is_v6: bool, number: u8) -> IpAddr {
    host(is_v6, 0, 1 + number)
}

/// A VIP: the number is that of the director.
pub(crate) fn vip(is_v6: bool, director: u8) -> IpAddr {
    host(is_v6, 1, 3 + director)
}

/// A real server.
pub(crate) fn real(is_v6: bool, number: u8) -> IpAddr {
    host(is_v6, 4, 2 + number)
}

/// Our own address towards the real servers.
pub(crate) fn own(is_v6: bool) -> IpAddr {
    host(is_v6, 4, 1)
}

/// The link address of an interface.
pub(crate) const fn mac(interface: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, interface])
}

/// The bits of a plan's number, taken one by one.
struct Bits(u64);

impl Bits {
    fn bit(&mut self) -> bool {
        self.below(2) == 1
    }

    /// A number below `bound`, from as many bits as that needs.
    fn below(&mut self, bound: u32) -> u32 {
        let count = u32::BITS - (bound - 1).leading_zeros();
        let value = self.0 & ((1 << count) - 1);
        self.0 >>= count;
        u32::try_from(value).unwrap_or(0) % bound
    }
}

/// A small plan; `kind` chooses its features. `has_tables` says whether Maglev is among its schedulers.
pub(crate) fn plan(kind: u64, has_tables: bool) -> Plan {
    let mut bits = Bits(kind);
    let any = |is_v6| Prefix { length: 0, ..Prefix::host(host(is_v6, 1, 0)) };
    // Packets of one family may leave by the TUN and those of the other by Ethernet.
    let ways = [bits.below(2), bits.below(2)];
    let routes = [false, true].into_iter().zip(ways).map(|(is_v6, way)| RoutePlan {
        destination: Prefix { address: if is_v6 { [0; 16].into() } else { [0; 4].into() }, ..any(is_v6) },
        gateway: None,
        interface: InterfaceId(u16::try_from(way).unwrap_or(0)),
    });
    let routes = routes.collect();
    Plan {
        hash_key: HashKey([u64::from(bits.bit()), 2]),
        interfaces: interfaces(&mut bits),
        routes,
        policies: policies(&mut bits),
        directors: directors(&mut bits, has_tables),
        handling: Handling {
            cuts: !bits.bit(),
            mss_bytes: bits.bit().then_some(536),
            fills_udp_checksum: bits.bit(),
            verifies_checksums: bits.bit(),
            expires_nodest: bits.bit(),
            expires_quiescent: bits.bit(),
            tells_exhausted: bits.bit(),
            routes_replies: false,
        },
        limits: Limits {
            flows_max: 24 + bits.below(3),
            half_open_max: if bits.bit() { 6 } else { 40 },
            flows_per_client: if bits.bit() { 5 } else { 0 },
            persistent_max: 4,
            answers_per_second: 50,
        },
        timeouts: if bits.bit() { Timeouts::rfc() } else { Timeouts::default() },
        ..Plan::empty()
    }
}

fn interfaces(bits: &mut Bits) -> Vec<InterfacePlan> {
    let addresses = vec![
        Prefix { length: 24, ..Prefix::host(own(false)) },
        Prefix { length: 64, ..Prefix::host(own(true)) },
    ];
    let (mtu_bytes, passes) = ([1500, 1280, 600].get(bits.below(3) as usize).copied(), bits.bit());
    let interface = |name: &str, layer, passes_to: u16| InterfacePlan {
        addresses: addresses.clone(),
        mtu_bytes: mtu_bytes.unwrap_or(1500),
        passes_to: passes.then_some(InterfaceId(passes_to)),
        ..InterfacePlan::new(name, layer)
    };
    vec![
        interface("tun0", Layer::Ip, 0),
        interface("eth0", Layer::Ethernet(mac(1)), 2),
        interface("eth1", Layer::Ethernet(mac(2)), 1),
    ]
}

fn policies(bits: &mut Bits) -> Vec<PolicyPlan> {
    if !bits.bit() {
        return Vec::new();
    }
    let rules = vec![FlowRule::matching(vec![Test::source(Prefix::host(client(false, 3)))])];
    let action = if bits.bit() { FlowAction::Deny } else { FlowAction::Director(2) };
    vec![PolicyPlan::Rules(vec![FlowPlan { name: "some".to_owned(), action, rules }])]
}

fn directors(bits: &mut Bits, has_tables: bool) -> Vec<DirectorPlan> {
    let fit = |kind: &Builtin| has_tables || *kind != Builtin::Maglev;
    let fit: Vec<_> = Builtin::ALL.iter().copied().filter(fit).collect();
    let scheduler = fit.get(bits.below(8) as usize % fit.len()).copied().unwrap_or(Builtin::RoundRobin);
    let shift = u8::from(bits.bit());
    let server = |name: &str, is_v6: bool, number: u8, port: u16| ServerPlan {
        flows_upper: 8,
        ..ServerPlan::new(name, real(is_v6, number), port, 1 + u32::from(number))
    };
    let servers = |is_third_v6: bool, port: u16| {
        let [first, second, third] = SERVERS;
        vec![
            server(first, false, shift, port),
            server(second, is_third_v6, 1 + shift, port),
            server(third, is_third_v6, 2 + shift, port),
        ]
    };
    let source = |is_v6| SourceNat::to(own(is_v6), 1000..=1007);
    let is_full = bits.bit();
    let sources = if is_full { vec![source(false), source(true)] } else { Vec::new() };
    let persistence =
        bits.bit().then_some(Persistence { timeout: Duration::from_secs(30), length_v4: 31, length_v6: 127 });
    let mid_stream =
        [MidStream::Refuse, MidStream::Drop, MidStream::Pick].get(bits.below(3) as usize).copied();
    let ping = [Ping::WhenUsable, Ping::Always, Ping::Forward].get(bits.below(3) as usize).copied();
    let director = |name: &str, binds: Vec<Binding>, servers: Vec<ServerPlan>| {
        let first = binds.first().cloned().unwrap_or_else(|| Binding::of(vip(false, 0), PORT, Protocol::TCP));
        DirectorPlan {
            binds,
            persistence,
            mid_stream: mid_stream.unwrap_or_default(),
            ping: ping.unwrap_or_default(),
            ..DirectorPlan::new(name, first, scheduler, servers)
        }
    };
    let [web, dns, all, dsr, far, net] = DIRECTORS;
    let one = PORT..=PORT;
    let is_one_packet = bits.bit();
    let dns_sources = if is_one_packet { Vec::new() } else { sources.clone() };
    let mut network = both(5, Some(Protocol::TCP), 70..=90);
    for bind in &mut network {
        bind.network.length -= 1;
        bind.network.address = bind.network.network().into();
    }
    let v4_only = |binds: Vec<Binding>| binds.into_iter().take(1).collect::<Vec<_>>();
    vec![
        DirectorPlan {
            mode: Mode::Nat { sources: sources.clone() },
            ..director(web, both(0, Some(Protocol::TCP), one.clone()), servers(true, PORT))
        },
        DirectorPlan {
            mode: Mode::Nat { sources: dns_sources },
            is_one_packet,
            ..director(dns, both(1, Some(Protocol::UDP), one.clone()), servers(true, PORT))
        },
        DirectorPlan {
            mode: Mode::Nat { sources },
            ..director(all, both(2, None, ANY_PORT), servers(true, 0))
        },
        DirectorPlan {
            mode: Mode::Gateway,
            ..director(dsr, v4_only(both(3, None, ANY_PORT)), servers(false, 0))
        },
        DirectorPlan { mode: tunnel(bits), ..director(far, both(4, None, one), servers(true, 0)) },
        director(net, network, servers(true, PORT)),
    ]
}

/// The VIPs at `place`, one of each family.
fn both(place: u8, protocol: Option<Protocol>, ports: std::ops::RangeInclusive<u16>) -> Vec<Binding> {
    let bind = |is_v6| Binding { network: Prefix::host(vip(is_v6, place)), ports: ports.clone(), protocol };
    vec![bind(false), bind(true)]
}

fn tunnel(bits: &mut Bits) -> Mode {
    let checksum = bits.bit();
    let encapsulation = match bits.below(3) {
        0 => Encapsulation::IpIp,
        1 => Encapsulation::Gre { checksum },
        _ => Encapsulation::Gue { port: GUE_PORT, checksum },
    };
    Mode::Tunnel { encapsulation, sources: Vec::new(), ttl: bits.bit().then_some(9) }
}
