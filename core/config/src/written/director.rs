//! The table `[director.NAME]` and those in it, as written.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{
    AddressText, AgentCheck, At, BindText, DurationText, EndpointText, InterfaceNameText, ModeText, NameText,
    NetmaskText, OneOrMany, PortRangeText, Scheduler, SlowStart, TextOrTable,
};

/// One virtual service.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Director {
    /// What it serves: one text or a list of at most 1024. Of several directors that serve a packet the narrowest gets
    /// it: the longest prefix, then the fewest ports, then one protocol before both. Without it only flow rules lead
    /// here.
    pub(crate) bind: Option<At<OneOrMany<BindText>>>,
    /// How packets reach the real servers: `nat` replaces their destination; `gateway` hands them, unchanged, to the
    /// real server as the next hop; `tunnel` sends them, unchanged, inside other packets.
    #[schemars(extend("default" = "nat"))]
    pub(crate) mode: Option<At<ModeText>>,
    /// Full NAT, only with `mode = "nat"`: the source is translated too, so that real servers answer to the forwarder
    /// whatever their gateway is. Without it real servers see the client's address and must send their answers through
    /// the forwarder. Of a list of at most 256 the first counts whose conditions hold; where none does, the source stays.
    pub(crate) snat: Option<At<OneOrMany<SourceNat>>>,
    /// What outer packets look like, only with `mode = "tunnel"`.
    pub(crate) tunnel: Option<At<Tunnel>>,
    /// Who picks the real server of a new flow.
    #[schemars(extend("default" = "wlc"))]
    pub(crate) scheduler: Option<At<Scheduler>>,
    /// A second scheduler, written as `scheduler` is, or as the name of a component alone. It is asked the same and decides
    /// nothing: `evenkeel ctl stats` shows on how many flows both agree, how even it would be, and what it costs.
    pub(crate) shadow: Option<At<Scheduler>>,
    /// How a real server that is new, or comes back, gets to its share of flows: its weight counts little at first, and whole
    /// after this long. Without it, at once. Schedulers that ignore weights ignore it.
    pub(crate) slow_start: Option<At<SlowStart>>,
    /// A program on each real server is asked, over TCP, what it says of itself: a line such as `75%`, `drain` or
    /// `down #disk is full`. Its weight and state follow.
    pub(crate) agent_check: Option<At<AgentCheck>>,
    /// A client sticks to the real server that it was given: for this long after its last flow has begun, and as long as
    /// it has one.
    pub(crate) persistence: Option<At<Persistence>>,
    /// What happens to TCP segments of unknown flows that open none: `refuse` answers with a reset; `drop` drops them;
    /// `pick` lets them open a flow, as a SYN does, so that connections of another forwarder go on where the scheduler
    /// picks the same real server.
    #[schemars(extend("default" = "refuse"))]
    pub(crate) mid_stream: Option<At<MidStream>>,
    /// What happens to pings of its addresses: `when_usable` answers while a real server may take new flows; `always`
    /// answers; `forward` gives them to a real server, as a flow.
    #[schemars(extend("default" = "when_usable"))]
    pub(crate) ping: Option<At<Ping>>,
    /// Each UDP datagram is scheduled on its own and leaves no flow behind. With `mode = "nat"` it needs one address and
    /// port, in whose name answers leave, and excludes `snat`.
    #[schemars(extend("default" = false))]
    pub(crate) one_packet: Option<At<bool>>,
    /// The real servers; their order matters to the schedulers. At most 65535.
    pub(crate) server: Option<At<Vec<At<Server>>>>,
}

/// Source NAT.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SourceNat {
    /// The address that real servers see; one that is routed to the forwarder, of the VIP's family.
    #[schemars(required)]
    pub(crate) address: Option<At<AddressText>>,
    /// The ports that may be used. A client's own port is kept when it is in the range and free. Must not hold
    /// the port of a director on the same address and protocol.
    #[schemars(extend("default" = "1024-65535"))]
    pub(crate) ports: Option<At<PortRangeText>>,
    /// Only for clients that come in by this interface.
    pub(crate) r#in: Option<At<InterfaceNameText>>,
    /// Only for real servers behind this interface.
    pub(crate) out: Option<At<InterfaceNameText>>,
    /// Only for flows to these ports of the VIP.
    pub(crate) service_ports: Option<At<PortRangeText>>,
}

/// What lies between the outer and the inner packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Encapsulation {
    /// Nothing.
    #[default]
    Ipip,
    /// Generic Routing Encapsulation.
    Gre,
    /// Generic UDP Encapsulation.
    Gue,
}

impl Encapsulation {
    /// The word that stands in the file.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ipip => "ipip",
            Self::Gre => "gre",
            Self::Gue => "gue",
        }
    }
}

/// A tunnel.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tunnel {
    /// What lies between the outer and the inner packet: `ipip`, nothing (RFC 2003, 2473, 4213; 20 bytes more over IPv4,
    /// 40 over IPv6); `gre` (RFC 2784; 4 more than that, with a checksum 8); or `gue`, UDP (12 more than that).
    #[schemars(extend("default" = "ipip"))]
    pub(crate) encapsulation: Option<At<Encapsulation>>,
    /// Whether the outer packet has a checksum over the inner one. Not with `ipip`.
    #[schemars(extend("default" = false))]
    pub(crate) checksum: Option<At<bool>>,
    /// The UDP port of the real server to which outer packets go. Only with `gue`.
    #[schemars(range(min = 1, max = 65_535), extend("default" = 6_080))]
    pub(crate) port: Option<At<i64>>,
    /// From whom outer packets come: an address that is routed to the forwarder, or a list of one for each family.
    /// Without it, the first own address of the interface by which they leave.
    pub(crate) source: Option<At<OneOrMany<AddressText>>>,
    /// The outer packet's time to live; without it, that of the inner one.
    #[schemars(range(min = 1, max = 255))]
    pub(crate) ttl: Option<At<i64>>,
}

/// How long a client sticks, or also by how much of its address.
pub(crate) type Persistence = TextOrTable<DurationText, Stickiness>;

/// How clients stick.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stickiness {
    /// For how long, from 10ms to 30d.
    #[schemars(extend("default" = "300s"))]
    pub(crate) timeout: Option<At<DurationText>>,
    /// The part of an IPv4 client's address that counts: clients that share it share the real server. A mask, or its
    /// length in bits.
    #[schemars(extend("default" = 32))]
    pub(crate) netmask: Option<At<Netmask>>,
    /// The same for IPv6, in bits.
    #[schemars(range(min = 0, max = 128), extend("default" = 128))]
    pub(crate) netmask6: Option<At<i64>>,
}

/// A mask, or how many ones it has.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(untagged)]
pub(crate) enum Netmask {
    /// How many ones.
    Length(i64),
    /// The mask.
    Mask(NetmaskText),
}

impl JsonSchema for Netmask {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Netmask".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "integer", "minimum": 0, "maximum": 32 },
                generator.subschema_for::<NetmaskText>(),
            ]
        })
    }
}

/// What happens to TCP segments of unknown flows that open none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MidStream {
    /// A reset.
    Refuse,
    /// They are dropped.
    Drop,
    /// They open a flow.
    Pick,
}

/// What happens to pings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ping {
    /// Answered while a real server is usable.
    WhenUsable,
    /// Answered.
    Always,
    /// Forwarded.
    Forward,
}

/// One real server.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Server {
    /// The name; unique in its director.
    #[schemars(required)]
    pub(crate) name: Option<At<NameText>>,
    /// The RIP and the port. Only one real server of a director may have them. Without a port the one that the client
    /// called is kept; so it is in the modes `gateway` and `tunnel` in any case, where packets stay as they are.
    #[schemars(required)]
    pub(crate) address: Option<At<EndpointText>>,
    /// The share of new flows, relative to the other real servers; 0 drains: no new flows, old ones live on.
    #[schemars(range(min = 0, max = 65_535), extend("default" = 1))]
    pub(crate) weight: Option<At<i64>>,
    /// It takes no new flows while it has this many; 0 for no bound.
    #[schemars(range(min = 0, max = 16_777_216), extend("default" = 0))]
    pub(crate) max_flows: Option<At<i64>>,
    /// After `max_flows` was reached: until it has fewer than this many again. 0 for three quarters of `max_flows`.
    #[schemars(range(min = 0, max = 16_777_216), extend("default" = 0))]
    pub(crate) min_flows: Option<At<i64>>,
    /// The TCP port where its agent answers, in place of the one in `agent_check`; 0 where it has none.
    #[schemars(range(min = 0, max = 65_535))]
    pub(crate) agent_port: Option<At<i64>>,
}
