//! Hosts, routers and forwarders as written: where they are plugged in and what their kernels are told.

use evenkeel_config::document::{At, OneOrMany, TextOrTable};
use schemars::JsonSchema;
use serde::Deserialize;

use super::forms::{
    AddressText, AgentText, CountedAddressText, DestinationText, DurationText, LoneAddressText, Ports,
};
use super::traffic::DurationLaw;

/// Declares machines: what each kind has of its own, and the keys of the network, which all have.
macro_rules! machines {
    ($($(#[doc = $doc:literal])+ $name:ident {
        $($(#[$own:meta])+ $key:ident: $type:ty,)*
    })+) => {$(
        $(#[doc = $doc])+
        #[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct $name {
            $($(#[$own])+ pub(crate) $key: Option<At<$type>>,)*
            /// Where it is plugged in, one entry for each interface.
            #[schemars(required)]
            pub(crate) attach: Option<At<Vec<At<Attach>>>>,
            /// Further addresses, on its loopback interface, such as the VIP of a real server in gateway mode.
            pub(crate) loopback: Option<At<OneOrMany<LoneAddressText>>>,
            /// The router for every address without a better route, or one of each family.
            pub(crate) gateway: Option<At<OneOrMany<AddressText>>>,
            /// Further routes; the longest prefix counts.
            pub(crate) routes: Option<At<Vec<At<Route>>>>,
            /// Which packets use which routing table, in the order of their priorities. A packet for which no rule
            /// holds uses the table `main`.
            pub(crate) rules: Option<At<Vec<At<Rule>>>>,
            /// How flows are dealt out over several routers of one route: `modulo` takes the hash of the flow modulo
            /// their number; `rendezvous` the router whose hash with the flow is highest; `hash-threshold` cuts the
            /// range of the hash into a piece for each (RFC 2992), as Linux does; `resilient` has a table of slots of
            /// which only those of a router that is gone change hands.
            #[schemars(extend("default" = "hash-threshold"))]
            pub(crate) ecmp: Option<At<Ecmp>>,
            /// Linux's switches of the network stack, for all interfaces.
            pub(crate) sysctl: Option<At<Sysctl>>,
            /// The interfaces on which sources of others are replaced by the machine's own address there, as a home
            /// router does with IPv4.
            pub(crate) masquerade: Option<At<OneOrMany<String>>>,
            /// Whether packets are taken out of tunnels (IPIP, GRE, GUE) that end at its addresses.
            #[schemars(extend("default" = false))]
            pub(crate) tunnel: Option<At<bool>>,
        }

        impl $name {
            /// What all kinds of machines have.
            pub(crate) const fn network(&self) -> NetworkKeys<'_> {
                NetworkKeys {
                    attach: self.attach.as_ref(),
                    loopback: self.loopback.as_ref(),
                    gateway: self.gateway.as_ref(),
                    routes: self.routes.as_ref(),
                    rules: self.rules.as_ref(),
                    ecmp: self.ecmp.as_ref(),
                    sysctl: self.sysctl.as_ref(),
                    masquerade: self.masquerade.as_ref(),
                    tunnel: self.tunnel.as_ref(),
                }
            }
        }
    )+

    /// The keys of the network of a machine.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct NetworkKeys<'a> {
        pub(crate) attach: Option<&'a At<Vec<At<Attach>>>>,
        pub(crate) loopback: Option<&'a At<OneOrMany<LoneAddressText>>>,
        pub(crate) gateway: Option<&'a At<OneOrMany<AddressText>>>,
        pub(crate) routes: Option<&'a At<Vec<At<Route>>>>,
        pub(crate) rules: Option<&'a At<Vec<At<Rule>>>>,
        pub(crate) ecmp: Option<&'a At<Ecmp>>,
        pub(crate) sysctl: Option<&'a At<Sysctl>>,
        pub(crate) masquerade: Option<&'a At<OneOrMany<String>>>,
        pub(crate) tunnel: Option<&'a At<bool>>,
    }
    };
}

machines! {
    /// A group of machines that talk: clients where a load names them, else servers.
    Host {
        /// How many there are: `NAME.0`, `NAME.1` and so on. Without it there is one, called `NAME`.
        #[schemars(range(min = 1, max = 65_536))]
        count: i64,
        /// What its programs speak TCP with: `minimal`, our own stack, small and quick; or `smoltcp`, an independent
        /// and complete one.
        #[schemars(extend("default" = "minimal"))]
        stack: Stack,
        /// Connections that are half open, with a client that has not answered yet; of further ones nothing is kept.
        #[schemars(range(min = 1, max = 1_048_576), extend("default" = 4096))]
        syn_backlog: i64,
        /// Whether SYNs beyond `syn_backlog` are answered with a cookie; else they are dropped, as with `smoltcp`, which
        /// has no cookies.
        #[schemars(extend("default" = true))]
        syn_cookies: bool,
        /// How long its programs work on requests. Without it they answer at once.
        service: Service,
        /// What its agent answers to forwarders whose director has `agent_check`, at whatever port: the line, or a table. Without
        /// it there is no agent.
        agent: TextOrTable<AgentText, Agent>,
    }
    /// A machine that only sends packets on.
    Router {}
    /// A machine that runs Evenkeel.
    Forwarder {
        /// The configuration file, the one of production, unchanged. Relative to this file.
        #[schemars(required, extend("x-form" = "path"))]
        config: String,
    }
}

/// One interface of a machine.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Attach {
    /// The segment that it is plugged into.
    #[schemars(required, extend("x-form" = "name"))]
    pub(crate) segment: Option<At<String>>,
    /// Its addresses, with the length of the segment's network. None for a port that only passes frames on, or whose
    /// address is in the configuration of a forwarder.
    pub(crate) address: Option<At<OneOrMany<CountedAddressText>>>,
    /// The name of the interface, for rules, for `masquerade`, and for an interface of kind `ethernet` in the
    /// configuration of a forwarder. Without it `eth0`, `eth1` and so on in the order of the list.
    #[schemars(extend("x-form" = "interface name"))]
    pub(crate) interface: Option<At<String>>,
    /// The VLAN of the switch that its port belongs to. Frames on the port itself have no tag.
    #[schemars(range(min = 1, max = 4_094), extend("default" = 1))]
    pub(crate) vlan: Option<At<i64>>,
    /// The largest IP packet of the interface, in bytes.
    #[schemars(range(min = 576, max = 9_000), extend("default" = 1500))]
    pub(crate) mtu: Option<At<i64>>,
}

/// What a machine does with packets to a network.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Route {
    /// The network; an address alone is a network of one.
    #[schemars(required)]
    pub(crate) to: Option<At<DestinationText>>,
    /// The router, or a list of several among which flows are dealt out.
    pub(crate) via: Option<At<OneOrMany<Via>>>,
    /// The routing table; 254 is `main`.
    #[schemars(range(min = 1, max = 4_294_967_295_i64), extend("default" = 254))]
    pub(crate) table: Option<At<i64>>,
    /// Instead of `via`: `blackhole` drops without a word, `unreachable` tells the sender.
    pub(crate) action: Option<At<RouteAction>>,
}

/// One of several routers: an address, or a table with its weight.
pub(crate) type Via = TextOrTable<AddressText, NextHop>;

/// One of several routers of a route.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NextHop {
    /// Its address.
    #[schemars(required)]
    pub(crate) address: Option<At<AddressText>>,
    /// How many flows it gets beside the others.
    #[schemars(range(min = 1, max = 256), extend("default" = 1))]
    pub(crate) weight: Option<At<i64>>,
}

/// What a route does that leads to no router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RouteAction {
    /// Drops without a word.
    Blackhole,
    /// Drops and tells the sender.
    Unreachable,
}

/// Which packets use which routing table. A packet must meet every condition that is there.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    /// Its place in the order; lower is earlier.
    #[schemars(required, range(min = 0, max = 32_767))]
    pub(crate) priority: Option<At<i64>>,
    /// The interface that the packet came in by; `lo` for the machine's own packets.
    #[schemars(extend("x-form" = "interface name"))]
    pub(crate) iif: Option<At<String>>,
    /// The network of its source.
    pub(crate) from: Option<At<DestinationText>>,
    /// The network of its destination.
    pub(crate) to: Option<At<DestinationText>>,
    /// Its protocol: `tcp`, `udp`, `icmp` or `icmpv6`.
    pub(crate) proto: Option<At<Protocol>>,
    /// Its source port. Needs `proto`, `tcp` or `udp`.
    pub(crate) sport: Option<At<Ports>>,
    /// Its destination port. Needs `proto`, `tcp` or `udp`.
    pub(crate) dport: Option<At<Ports>>,
    /// The table that is looked into. Where it has no route the next rule is asked.
    #[schemars(required, range(min = 1, max = 4_294_967_295_i64))]
    pub(crate) table: Option<At<i64>>,
}

/// A protocol of layer 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP for IPv4.
    Icmp,
    /// ICMP for IPv6.
    Icmpv6,
}

/// How flows are dealt out over several routers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Ecmp {
    /// The hash modulo the number of ways.
    Modulo,
    /// The way whose hash with the flow is highest.
    Rendezvous,
    /// A piece of the hash's range for each way.
    HashThreshold,
    /// A table of slots.
    Resilient,
}

/// Linux's switches of the network stack, for all interfaces.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sysctl {
    /// Which ARP questions are answered: 0, for every address of the machine; 1, only for those of the interface that
    /// was asked; 2, as 1 and only to the own network; 8, none.
    #[schemars(range(min = 0, max = 8), extend("default" = 0))]
    pub(crate) arp_ignore: Option<At<i64>>,
    /// From which address own ARP questions come: 0, that of the packet that waits; 1, one of the asked network where
    /// there is one; 2, the best one of the interface.
    #[schemars(range(min = 0, max = 2), extend("default" = 0))]
    pub(crate) arp_announce: Option<At<i64>>,
    /// Whether packets are dropped to whose source no route leads by the interface that they came in by (1), or by none
    /// (2).
    #[schemars(range(min = 0, max = 2), extend("default" = 0))]
    pub(crate) rp_filter: Option<At<i64>>,
    /// Whether packets for others are sent on (1). Without it hosts do not, and routers and forwarders do.
    #[schemars(range(min = 0, max = 1))]
    pub(crate) ip_forward: Option<At<i64>>,
}

/// The stack of a host's programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stack {
    /// Our own.
    Minimal,
    /// smoltcp.
    Smoltcp,
}

/// How long programs work on requests.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Service {
    /// How long one request takes on an idle core: a duration, or a law.
    #[schemars(required)]
    pub(crate) time: Option<At<TextOrTable<DurationText, DurationLaw>>>,
    /// Who is served when: `fcfs`, first come, first served; or `ps`, all at once, each with its share of the cores.
    #[schemars(extend("default" = "fcfs"))]
    pub(crate) discipline: Option<At<Discipline>>,
    /// Requests that are served at the same time at full speed.
    #[schemars(range(min = 1, max = 1_024), extend("default" = 1))]
    pub(crate) cores: Option<At<i64>>,
    /// Requests that may wait or be served; a further one is refused.
    #[schemars(range(min = 1, max = 1_048_576), extend("default" = 1_024))]
    pub(crate) backlog: Option<At<i64>>,
}

/// An agent whose line follows the load.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Agent {
    /// How the line begins.
    pub(crate) says: Option<At<AgentText>>,
    /// The requests with which the host is as busy as it may be. The line ends with how much of them it could still take, from
    /// `100%` down to `1%`.
    #[schemars(required, range(min = 1, max = 1_048_576))]
    pub(crate) full: Option<At<i64>>,
}

/// Who is served when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Discipline {
    /// First come, first served.
    Fcfs,
    /// All at once.
    Ps,
}
