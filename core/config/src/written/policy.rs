//! The policy stage as written: flows, outflows, their rules, sets, components.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{
    At, ComponentText, DscpText, DurationText, FlagsText, FlowPolicyText, InterfaceNameText, LimitText,
    NameText, NetworkText, NetworksText, OneOrMany, Options, PortsText, ProtocolText, RulePortsText,
    SizeText,
};

/// What happens when something does not decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Permission {
    /// The packet goes on.
    Permit,
    /// The packet is dropped.
    Deny,
}

/// What happens when a component fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FaultPolicy {
    /// The packet goes on.
    Permit,
    /// The packet is dropped.
    Deny,
    /// The flow rules and components behind it decide.
    Native,
}

/// Which packets a component is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ComponentWay {
    /// Those that come in.
    In,
    /// Those that leave.
    Out,
}

/// What a component is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Per {
    /// The first packet of a flow.
    Flow,
    /// Every packet.
    Packet,
}

/// The policy stage.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Policy {
    /// What happens to a new flow about which neither a flow rule nor a component decides: `permit` or `deny`.
    #[schemars(extend("default" = "permit"))]
    pub(crate) default: Option<At<Permission>>,
    /// Flows, outflows, sets and directors as text; the chapter on flow rules has its language. Write it between three
    /// single quotes, so that mistakes are shown where they are.
    #[schemars(extend("x-form" = "rules"))]
    pub(crate) rules: Option<At<String>>,
    /// The same in a file, or a list of at most 64 files, read in this order. Relative to the configuration file.
    #[schemars(extend("x-form" = "path"))]
    pub(crate) file: Option<At<OneOrMany<String>>>,
    /// Components. One that a flow names by `policy = "component NAME"` is asked there; the others are asked after all
    /// flows, in the order of the file.
    pub(crate) component: Option<At<Vec<At<PolicyComponent>>>>,
}

/// A component that permits or denies.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PolicyComponent {
    /// The name; unique among policy components and flows.
    #[schemars(required)]
    pub(crate) name: Option<At<NameText>>,
    /// Which component.
    #[schemars(required)]
    pub(crate) component: Option<At<ComponentText>>,
    /// What a flow gets when the component fails on it: `permit`, `deny`, or `native`: as if it had skipped, the flows and
    /// components behind it decide.
    #[schemars(extend("default" = "permit"))]
    pub(crate) on_fault: Option<At<FaultPolicy>>,
    /// What it is asked about: the first packet of each flow, `flow`, or every one, `packet`. Without it, as the component
    /// wants. At most two components may be asked about every packet.
    pub(crate) per: Option<At<Per>>,
    /// Which packets it is asked about: those that come `in`, or where no outflow decides those that go `out`, once for each
    /// direction of a flow.
    #[schemars(extend("default" = "in"))]
    pub(crate) way: Option<At<ComponentWay>>,
    /// The most time that one call may take, from 10us to 1s. The simulator counts instructions instead.
    #[schemars(extend("default" = "200us"))]
    pub(crate) budget: Option<At<DurationText>>,
    /// The most linear memory that the component may have, from 64KiB to 1GiB.
    #[schemars(extend("default" = "16MiB"))]
    pub(crate) memory: Option<At<SizeText>>,
    /// The component's own options, given to it as TOML text of at most 65536 bytes.
    #[schemars(extend("x-form" = "table"))]
    pub(crate) options: Option<At<Options>>,
    /// A text file of at most 4 MiB whose content is given to the component, relative to the configuration file.
    #[schemars(extend("x-form" = "path"))]
    pub(crate) data: Option<At<String>>,
    /// The content of that file, when it has been read.
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) content: Option<String>,
}

/// A set of addresses or of ports: exactly one of its keys.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Set {
    /// Networks and addresses: one or a list.
    pub(crate) addresses: Option<At<OneOrMany<NetworkText>>>,
    /// Ports and ranges of ports: one or a list.
    pub(crate) ports: Option<At<OneOrMany<Range>>>,
    /// A file with one network, address, port or range of ports a line; `#` begins a comment. Relative to the
    /// configuration file.
    #[schemars(extend("x-form" = "path"))]
    pub(crate) file: Option<At<String>>,
}

/// One named flow or outflow.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Flow {
    /// The name; unique among flows, outflows and policy components.
    #[schemars(required)]
    pub(crate) name: Option<At<NameText>>,
    /// What happens to packets of this flow: `permit` sends them to the director that is bound to their
    /// destination, `deny` drops them, `director NAME` (not in an outflow) sends them to that director whatever their
    /// destination, `table ID` lets them pass by that routing table, `component NAME` (not in an outflow) asks that policy
    /// component, `skip` passes the flow over.
    #[schemars(extend("default" = "skip"))]
    pub(crate) policy: Option<At<FlowPolicyText>>,
    /// Rules, looked at in order; the first whose conditions all hold decides. A packet for which none holds
    /// does not belong to the flow.
    pub(crate) rule: Option<At<Vec<At<Rule>>>>,
}

/// One rule: either `match` or `ignore`.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    /// A packet for which all these conditions hold belongs to the flow. Without conditions: every packet.
    pub(crate) r#match: Option<At<Conditions>>,
    /// A packet for which all these conditions hold does not belong to the flow; the next flow is asked. Takes
    /// the same conditions as `match`.
    pub(crate) ignore: Option<At<Conditions>>,
    /// What you want to remember of it; shown with its counter.
    pub(crate) comment: Option<At<String>>,
}

/// A port, or a text.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(untagged)]
pub(crate) enum NumberOr<T> {
    /// A number.
    Number(i64),
    /// A text.
    Text(T),
}

/// A port, a range of ports or the name of a set.
pub(crate) type Ports = NumberOr<PortsText>;

/// A port or a range of ports.
pub(crate) type Range = NumberOr<RulePortsText>;

/// A code point by its number or name.
pub(crate) type Dscp = NumberOr<DscpText>;

/// The number that may stand in a place of such a text.
trait Numbered {
    /// The least and the greatest.
    const BOUNDS: (u32, u32);
}

impl Numbered for PortsText {
    const BOUNDS: (u32, u32) = (1, 65_535);
}

impl Numbered for RulePortsText {
    const BOUNDS: (u32, u32) = (1, 65_535);
}

impl Numbered for DscpText {
    const BOUNDS: (u32, u32) = (0, 63);
}

impl<T: JsonSchema + Numbered> JsonSchema for NumberOr<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("number_or_{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (low, high) = T::BOUNDS;
        json_schema!({
            "anyOf": [
                { "type": "integer", "minimum": low, "maximum": high },
                generator.subschema_for::<T>(),
            ]
        })
    }
}

/// The type of an ICMP message.
#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(transparent)]
pub(crate) struct IcmpType(pub(crate) i64);

impl JsonSchema for IcmpType {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "IcmpType".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 0, "maximum": 255 })
    }
}

/// Conditions; a packet must meet every one of them. Where a list may stand, one of its elements must hold.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Conditions {
    /// The interface on which the packet came in; in an outflow, the one by which the main routes let it leave.
    pub(crate) iface: Option<At<InterfaceNameText>>,
    /// The protocol.
    pub(crate) proto: Option<At<ProtocolText>>,
    /// The source address.
    pub(crate) src: Option<At<OneOrMany<NetworksText>>>,
    /// The destination address.
    pub(crate) dst: Option<At<OneOrMany<NetworksText>>>,
    /// The source port. Needs `proto`, `tcp` or `udp`.
    pub(crate) srcport: Option<At<OneOrMany<Ports>>>,
    /// The destination port. Needs `proto`, `tcp` or `udp`.
    pub(crate) dstport: Option<At<OneOrMany<Ports>>>,
    /// The type of an ICMP message. Needs `proto`, `icmp` or `icmpv6`.
    pub(crate) icmptype: Option<At<OneOrMany<IcmpType>>>,
    /// The flags of the TCP segment that opens the flow. Needs `proto = "tcp"`.
    pub(crate) tcpflags: Option<At<FlagsText>>,
    /// The differentiated services code point of the packet that opens the flow. Not in an outflow.
    pub(crate) dscp: Option<At<OneOrMany<Dscp>>>,
    /// How many new flows may meet the rule; beyond, it does not hold. Asked after all other conditions. Not in an outflow.
    pub(crate) limit: Option<At<LimitText>>,
    /// Conditions that must not hold, none of them.
    pub(crate) not: Option<At<Negated>>,
}

/// Conditions that must not hold.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Negated {
    /// The interface.
    pub(crate) iface: Option<At<InterfaceNameText>>,
    /// The protocol.
    pub(crate) proto: Option<At<ProtocolText>>,
    /// The source address.
    pub(crate) src: Option<At<OneOrMany<NetworksText>>>,
    /// The destination address.
    pub(crate) dst: Option<At<OneOrMany<NetworksText>>>,
    /// The source port. Needs `proto` beside `not`.
    pub(crate) srcport: Option<At<OneOrMany<Ports>>>,
    /// The destination port. Needs `proto` beside `not`.
    pub(crate) dstport: Option<At<OneOrMany<Ports>>>,
    /// The type of an ICMP message. Needs `proto` beside `not`.
    pub(crate) icmptype: Option<At<OneOrMany<IcmpType>>>,
    /// The flags of the TCP segment that opens the flow. Needs `proto` beside `not`.
    pub(crate) tcpflags: Option<At<FlagsText>>,
    /// The code point of the packet that opens the flow.
    pub(crate) dscp: Option<At<OneOrMany<Dscp>>>,
    /// Holds beyond the limit.
    pub(crate) limit: Option<At<LimitText>>,
}
