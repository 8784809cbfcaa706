//! The configuration as it is written: one type per table of the file, with the place of every value.
//!
//! What comes in: a TOML tree whose shape has been checked by `shape`. What goes out: [`File`], still in the
//! user's words: texts are not parsed, names are not resolved, nothing has a default. The doc comments are
//! the reference page and the descriptions of the JSON schema; ranges and defaults stand beside the fields.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

mod agent;
mod director;
mod either;
mod policy;
mod scheduler;

use crate::texts;
use crate::{Io, Setup};

pub(crate) use agent::AgentCheck;
pub(crate) use director::{
    Director, Encapsulation, MidStream, Netmask, Persistence, Ping, Server, SourceNat, Stickiness, Tunnel,
};
pub use either::{OneOrMany, TextOrTable};
pub(crate) use policy::{
    ComponentWay, Conditions, Dscp, FaultPolicy, Flow, IcmpType, Negated, NumberOr, Per, Permission, Policy,
    PolicyComponent, Ports, Rule, Set,
};
pub(crate) use scheduler::{
    Fallback, HashType, Key, ProbeSource, Scheduler, SchedulerTable, SlowStart, Weights,
};

/// A value and where it stands in the file, in bytes.
#[derive(Clone, Debug)]
pub struct At<T> {
    /// Where it stands.
    pub span: Range<usize>,
    /// The value.
    pub value: T,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = toml::Spanned::<T>::deserialize(deserializer)?;
        Ok(Self { span: spanned.span(), value: spanned.into_inner() })
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// Tables under names of the user's choice, in the order of the file.
#[derive(Clone, Debug)]
pub struct Named<T>(pub Vec<(At<String>, At<T>)>);

impl<T> Named<T> {
    /// The entries, in the order of the file.
    #[must_use]
    pub fn entries(named: Option<&Self>) -> &[(At<String>, At<T>)] {
        named.map_or(&[], |named| &named.0)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = Named<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of tables")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry::<At<String>, At<T>>()? {
                    entries.push(entry);
                }
                entries.sort_by_key(|(name, _)| name.span.start);
                Ok(Named(entries))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Named<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("Named_{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "additionalProperties": generator.subschema_for::<T>() })
    }
}

texts! {
    /// A whole number and a unit: `ns`, `us`, `ms`, `s`, `m`, `h` or `d`.
    DurationText: "duration", r"^[0-9]+(ns|us|ms|s|m|h|d)$", ["900s", "15m", "500ms", "200us"];
    /// A whole number and a unit: `B`, `KiB`, `MiB` or `GiB`.
    SizeText: "size", r"^[0-9]+(B|KiB|MiB|GiB)$", ["16MiB", "64KiB"];
    /// An IPv4 or IPv6 address.
    AddressText: "address", r"^[0-9A-Fa-f.:]+$", ["10.0.0.1", "fc00::1"];
    /// An address and a port from 1 to 65535. An IPv6 address stands in brackets. Without a port, the one that the
    /// client called is kept.
    EndpointText: "address:port", r"^([0-9.]+(:[0-9]+)?|\[[0-9A-Fa-f.:]+\](:[0-9]+)?|[0-9A-Fa-f.:]+)$",
        ["10.0.3.20:80", "[fc00::20]:80", "10.0.3.20", "fc00::20"];
    /// An address or a network, a port, a range of ports or `*` for any port, and `tcp` or `udp`. An IPv6 address
    /// stands in brackets. After `*` the protocol may be left out: both are served. Any port means pings as well,
    /// where they are forwarded.
    BindText: "address:ports/protocol",
        r"^([0-9.]+|\[[0-9A-Fa-f.:]+\])(/[0-9]+)?:([0-9]+(-[0-9]+)?/(tcp|udp)|\*(/(tcp|udp))?)$",
        ["10.0.0.3:80/tcp", "[fc00::3]:53/udp", "10.0.0.3:*", "10.0.0.3:50000-51000/udp", "10.0.0.0/24:443/tcp", "[fc00:1::]/96:*/tcp"];
    /// An address of an interface and the length of its network: 0 to 32, for IPv6 to 128.
    InterfaceAddressText: "address/length", r"^[0-9A-Fa-f.:]+/[0-9]+$", ["10.99.0.1/24", "fc00::1/64"];
    /// A network, bits beyond the length being zero; an address alone is a network of one. Of IPv4, the length may be
    /// written as a mask.
    NetworkText: "network", r"^[0-9A-Fa-f.:]+(/[0-9.]+)?$", ["192.0.2.0/24", "192.0.2.7", "192.0.2.0/255.255.255.0", "2001:db8::/32", "::/0"];
    /// A network, or `@` and the name of a set of addresses.
    NetworksText: "network or set", r"^([0-9A-Fa-f.:]+(/[0-9.]+)?|@[A-Za-z0-9_-]{1,27})$", ["192.0.2.0/24", "2001:db8::/32", "@office"];
    /// One port or two with a hyphen or a colon between them, both included, from 1 to 65535; or `@` and the name of a set
    /// of ports.
    PortsText: "ports or set", r"^([0-9]+([-:][0-9]+)?|@[A-Za-z0-9_-]{1,27})$", ["1024-65535", "8000", "@web"];
    /// Flags of TCP (`fin`, `syn`, `rst`, `psh`, `ack`, `urg`, `ece`, `cwr`), separated by commas, which must be there; and
    /// after a slash those that are looked at. Without a slash, other flags do not matter.
    FlagsText: "TCP flags", r"^[a-z,]+(/[a-z,]+)?$", ["syn", "syn/syn,ack"];
    /// A code point by its name: `ef`, `af11` to `af43`, `cs0` to `cs7`, or a number from 0 to 63.
    DscpText: "code point", r"^([a-z]+[0-9]*|[0-9]+)$", ["ef", "af41", "46"];
    /// How many in each second, minute or hour (`/s`, `/m`, `/h`), `burst` and how many at once after a pause (without it,
    /// as many as in one period), and `per src` or `per dst`, with the length of a prefix, for whom they are counted.
    LimitText: "limit", r"^[0-9]+/[smh]( burst [0-9]+)?( per (src|dst)(/[0-9]+)?)?$", ["1000/s", "1000/s burst 200 per src", "60/m per src/24"];
    /// An IPv4 mask of ones and then zeros.
    NetmaskText: "netmask", r"^[0-9.]+$", ["255.255.255.0"];
    /// One port or two with a hyphen between them, both included, from 1 to 65535.
    PortRangeText: "ports", r"^[0-9]+(-[0-9]+)?$", ["1024-65535", "8000"];
    /// One port or two with a hyphen or a colon between them, both included, from 1 to 65535.
    RulePortsText: "ports in a rule", r"^[0-9]+([-:][0-9]+)?$", ["1024-65535", "8000", "8000:8999"];
    /// Six bytes in hexadecimal, separated by colons; not a group address.
    MacText: "MAC address", r"^([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}$", ["02:00:00:00:00:01"];
    /// The protocol of layer 4: `tcp` or `udp`; `icmp` or `icmpv6` for pings, where they are forwarded.
    ProtocolText: "protocol", r"^(tcp|udp|icmp|icmpv6)$", ["tcp", "udp", "icmp", "icmpv6"];
    /// Letters, digits, `_` and `-`; 1 to 27 of them.
    NameText: "name", r"^[A-Za-z0-9_-]{1,27}$", ["web", "rate-guard"];
    /// The name of an interface that the file declares.
    InterfaceNameText: "interface name", r"^[A-Za-z0-9_.-]{1,15}$", ["tun0"];
    /// A built-in scheduler; the chapter Schedulers has a page for each.
    BuiltinText: "built-in scheduler",
        r"^(rr|wrr|lc|wlc|sh|maglev|lblc|lblcr|dh|sed|nq|fo|ovf|mh|twos|p2c|jsq|jiq|modulo|source|leastconn|first|random|static-rr|swrr|rendezvous|weighted-rendezvous|ring|bounded|jump|anchor|dx|multi-probe|peak-ewma|least-request|prequal)$",
        ["rr", "wlc", "maglev"];
    /// `bundled:NAME` for a component that is part of the program, or the path of a file, relative to the
    /// configuration file.
    ComponentText: "component", r"^.+$", ["bundled:maglev", "schedulers/mine.wasm"];
    /// `permit`, `deny`, `skip`, `director NAME`, or `table ID`.
    FlowPolicyText: "flow policy", r"^(permit|deny|skip|director [A-Za-z0-9_-]{1,27}|table [0-9]+|component [A-Za-z0-9_-]{1,27})$", ["permit", "deny", "skip", "director web", "table 200", "component guard"];
    /// How packets reach the real servers: `nat` replaces their destination; `gateway` hands them, unchanged, to the
    /// real server as the next hop; `tunnel` sends them, unchanged, inside other packets.
    ModeText: "mode", r"^(nat|gateway|tunnel)$", ["nat", "gateway", "tunnel"];
}

/// The whole file. Every table is optional but `interface`.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    /// The program itself: what it sets up and how it is reached.
    pub(crate) forwarder: Option<At<Forwarder>>,
    /// Bounds of what the forwarder keeps and sends.
    pub(crate) limits: Option<At<Limits>>,
    /// How long a flow lives without packets: those of a profile, and each can be set apart from it.
    pub(crate) timeouts: Option<At<Timeouts>>,
    /// How packets are handled on their way, whatever their director.
    pub(crate) handling: Option<At<Handling>>,
    /// The interfaces, each under its name; at most 64. The first in the file is the first for the forwarder.
    #[schemars(required)]
    pub(crate) interface: Option<At<Named<Interface>>>,
    /// Where packets leave: the longest matching prefix wins, then the first in the file. The networks of the
    /// interfaces' own addresses are routes already, after the ones written here; when there is exactly one
    /// interface, a default route of each family to it comes last.
    pub(crate) route: Option<At<Vec<At<Route>>>>,
    /// The virtual services, each under its name (1 to 27 letters, digits, `_` or `-`).
    pub(crate) director: Option<At<Named<Director>>>,
    /// Components that decide about new flows, and what happens when nothing decides.
    pub(crate) policy: Option<At<Policy>>,
    /// Flow rules: who may pass, and to which director. They are asked in the order of the file, those of `policy.rules`
    /// and `policy.file` behind them, each policy component where a flow names it, and then the other policy components;
    /// the first that does not skip decides.
    pub(crate) flow: Option<At<Vec<At<Flow>>>>,
    /// Outflow rules: by which routing table packets leave, or that they do not. Asked once for each direction of a flow,
    /// about packets as they leave, at the interface that the main routes have chosen.
    pub(crate) outflow: Option<At<Vec<At<Flow>>>>,
    /// Sets of addresses or ports, each under its name, for rules that name it as `@NAME`.
    pub(crate) set: Option<At<Named<Set>>>,
}

/// The program itself.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Forwarder {
    /// Who sets up addresses, routes and rules of the system: `auto`, the forwarder, which takes them down
    /// again at exit; or `manual`, the operator.
    #[schemars(extend("default" = "auto"))]
    pub(crate) setup: Option<At<Setup>>,
    /// The unix socket of `evenkeel ctl`, made with mode 0600. Relative to the configuration file.
    #[schemars(extend("default" = "/run/evenkeel/evenkeel.sock", "x-form" = "path"))]
    pub(crate) control: Option<At<String>>,
    /// How devices are driven: `io_uring`, `epoll`, or `auto` for `io_uring` where the system allows it.
    #[schemars(extend("default" = "auto"))]
    pub(crate) io: Option<At<Io>>,
    /// The UDP port at which real servers answer schedulers that ask them how they are (`prequal` with
    /// `probe_source = "servers"`, and components).
    #[schemars(range(min = 1, max = 65_535), extend("default" = 7791))]
    pub(crate) probe_port: Option<At<i64>>,
    /// Where all randomness comes from: the key of the flow hash and the seeds of components derive from it.
    /// Drawn at start when it is missing. A fixed seed makes runs repeatable and lets whoever knows it aim
    /// collisions, so leave it out on a forwarder that faces strangers.
    #[schemars(range(min = 0, max = 9_223_372_036_854_775_807_i64))]
    pub(crate) seed: Option<At<i64>>,
}

/// Bounds.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    /// The most flows that are kept. A full table drops new flows and keeps the ones that it has.
    #[schemars(range(min = 1, max = 16_777_216), extend("default" = 1_048_576))]
    pub(crate) flows: Option<At<i64>>,
    /// The most flows beside these whose opening nobody has answered yet, at most as many as `flows`. When one more
    /// begins, the one that has waited longest gives way, so that a flood of openings takes no other flow's place.
    /// Without the key it is 65535, or `flows` where that is less.
    #[schemars(range(min = 1, max = 65_535), extend("default" = 65_535))]
    pub(crate) half_open: Option<At<i64>>,
    /// The most flows of one client address; 0 for no bound.
    #[schemars(range(min = 0, max = 16_777_216), extend("default" = 0))]
    pub(crate) flows_per_client: Option<At<i64>>,
    /// The most clients that stick to a real server, all directors together. Beyond it the one whose time ends next is
    /// forgotten.
    #[schemars(range(min = 1, max = 16_777_216), extend("default" = 65_536))]
    pub(crate) persistent: Option<At<i64>>,
    /// The most packets of the forwarder's own (answers, errors) a second, all kinds together.
    #[schemars(range(min = 0, max = 1_000_000), extend("default" = 1_000))]
    pub(crate) answers_per_second: Option<At<i64>>,
}

/// Whose timeouts hold where the file sets none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Profile {
    /// Those of IPVS in Linux 6.1.
    Ipvs,
    /// Those that RFC 5382, 7857, 4787 and 5508 ask for.
    Rfc,
}

/// Timeouts; each from 10 ms to 30 days.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Timeouts {
    /// Whose timeouts hold where none is written: `ipvs`, those of IPVS in Linux 6.1, which are the defaults shown here;
    /// or `rfc`, those that RFC 5382 and 7857 ask for TCP (7440s once both sides have spoken, else 240s), RFC 4787 for
    /// UDP (300s) and RFC 5508 for ICMP (60s).
    #[schemars(extend("default" = "ipvs"))]
    pub(crate) profile: Option<At<Profile>>,
    /// TCP, both sides have spoken. From 10ms to 30d, as the others.
    #[schemars(extend("default" = "900s"))]
    pub(crate) tcp_established: Option<At<DurationText>>,
    /// TCP, the client's SYN has been seen.
    #[schemars(extend("default" = "120s"))]
    pub(crate) tcp_syn_sent: Option<At<DurationText>>,
    /// TCP, the real server has answered the SYN; in the modes `gateway` and `tunnel`, the client's SYN has been seen.
    #[schemars(extend("default" = "60s"))]
    pub(crate) tcp_syn_received: Option<At<DurationText>>,
    /// TCP, the client has closed.
    #[schemars(extend("default" = "60s"))]
    pub(crate) tcp_close_wait: Option<At<DurationText>>,
    /// TCP, the real server has closed.
    #[schemars(extend("default" = "120s"))]
    pub(crate) tcp_fin_wait: Option<At<DurationText>>,
    /// TCP, both sides have closed.
    #[schemars(extend("default" = "120s"))]
    pub(crate) tcp_time_wait: Option<At<DurationText>>,
    /// TCP, a reset was seen.
    #[schemars(extend("default" = "10s"))]
    pub(crate) tcp_close: Option<At<DurationText>>,
    /// UDP.
    #[schemars(extend("default" = "300s"))]
    pub(crate) udp: Option<At<DurationText>>,
    /// Pings that are forwarded.
    #[schemars(extend("default" = "60s"))]
    pub(crate) icmp: Option<At<DurationText>>,
}

/// Handling of packets.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Handling {
    /// An IPv4 packet that does not fit on the way out is cut, unless it forbids that. Else it is dropped, and its
    /// sender is told what fits.
    #[schemars(extend("default" = true))]
    pub(crate) cut: Option<At<bool>>,
    /// The largest segment that a TCP SYN may announce, in bytes; larger ones are lowered to it. In the modes `gateway`
    /// and `tunnel` only the client's SYN comes by, so that what travels in a tunnel is bounded at the real server
    /// instead. Less than 88, the least that Linux takes for itself, is more header than data.
    #[schemars(range(min = 88, max = 65_535))]
    pub(crate) mss: Option<At<i64>>,
    /// A UDP datagram over IPv4 that came without a checksum is given one by NAT, as IPVS does. Else it stays without.
    #[schemars(extend("default" = false))]
    pub(crate) fill_udp_checksum: Option<At<bool>>,
    /// A packet that would open a flow is checked up to its layer-4 checksum first.
    #[schemars(extend("default" = false))]
    pub(crate) verify_checksums: Option<At<bool>>,
    /// A flow whose real server the configuration no longer has ends with its next packet, which opens a new one where
    /// it can. Else such packets are dropped, and the flow goes on when the real server comes back.
    #[schemars(extend("default" = false))]
    pub(crate) expire_nodest: Option<At<bool>>,
    /// A client does not stick to a real server of weight 0. Else it does, until its time ends.
    #[schemars(extend("default" = false))]
    pub(crate) expire_quiescent: Option<At<bool>>,
    /// A client whose flow is refused for want of room (flows, ports, `flows_per_client`) is told so by ICMP.
    #[schemars(extend("default" = false))]
    pub(crate) tell_exhausted: Option<At<bool>>,
    /// Answers to clients leave as the routes say, as in ALOHA. Else they leave by the interface by which the client's
    /// packets came in.
    #[schemars(extend("default" = false))]
    pub(crate) route_replies: Option<At<bool>>,
}

/// What an interface carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// IP packets without a link header.
    Tun,
    /// Ethernet frames.
    Ethernet,
}

/// One interface.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Interface {
    /// What it carries: `tun`, IP packets, by an interface that the forwarder makes; or `ethernet`, frames, by one that
    /// is there already.
    #[schemars(required)]
    pub(crate) kind: Option<At<Kind>>,
    /// The MAC address. Without one an interface of `kind = "ethernet"` keeps its own; refused with `kind = "tun"`.
    pub(crate) mac: Option<At<MacText>>,
    /// Own addresses.
    pub(crate) address: Option<At<Vec<At<InterfaceAddressText>>>>,
    /// The largest IP packet that leaves there, in bytes. A `tun` interface is given this MTU; that of an `ethernet`
    /// interface must be as large at least.
    #[schemars(range(min = 68, max = 65_535), extend("default" = 1_500))]
    pub(crate) mtu: Option<At<i64>>,
    /// The interface by which packets and frames leave, as they are, that are not for the forwarder: frames to other
    /// hosts, other protocols, addresses without a director. Both must be of the same kind. Without it they are dropped.
    pub(crate) pass_to: Option<At<InterfaceNameText>>,
}

/// One route.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Route {
    /// The destinations that it serves.
    #[schemars(required)]
    pub(crate) to: Option<At<NetworkText>>,
    /// The router to hand packets to, of the same family. Without one the destinations are on the link itself.
    pub(crate) via: Option<At<AddressText>>,
    /// Where packets leave. Without it, where the network of the router is.
    pub(crate) interface: Option<At<InterfaceNameText>>,
    /// The routing table that it is in, by its number; without it, the main one. Rules lead to a table with `table ID`;
    /// where it has no route to a destination, the main one holds.
    #[schemars(range(min = 1, max = 4_294_967_295_u32))]
    pub(crate) table: Option<At<i64>>,
}

/// A table that only a component understands.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(transparent)]
pub(crate) struct Options(pub(crate) toml::Table);

impl JsonSchema for Options {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Options".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object" })
    }
}
