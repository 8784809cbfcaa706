//! The texts of a scenario file by their forms, and values that may be a number or something else.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

evenkeel_config::texts! {
    /// A number and a unit: `ns`, `us`, `ms`, `s`, `m` (or `min`), `h` or `d`.
    DurationText: "duration", r"^[0-9]+(\.[0-9]+)? ?(ns|us|ms|s|m|min|h|d)$", ["10us", "1.5ms", "30s"];
    /// A number and a unit: `B`, `kB` (1,000 bytes), `KiB` (1,024 bytes), `MB` or `MiB`.
    SizeText: "size", r"^[0-9]+(\.[0-9]+)? ?(B|kB|KB|KiB|MB|MiB)$", ["200B", "10kB", "64KiB"];
    /// A number, perhaps with `k` or `M` behind, and `/s`, `/min` or `/h`.
    FlowRateText: "rate", r"^[0-9]+(\.[0-9]+)? ?[kM]?/(s|min|m|h)$", ["200/s", "20k/s", "10/min"];
    /// A number and a unit: `bit`, `kbit`, `Mbit`, `Gbit` or `Tbit`, each per second.
    BitRateText: "bits per second", r"^[0-9]+(\.[0-9]+)? ?(bit|kbit|Mbit|Gbit|Tbit)$", ["100Mbit", "2.5Gbit"];
    /// An IPv4 or IPv6 address.
    AddressText: "address", r"^[0-9A-Fa-f.:]+$", ["10.0.0.1", "fd00::1"];
    /// A network, bits beyond the length being zero.
    NetworkText: "network", r"^[0-9A-Fa-f.:]+/[0-9]+$", ["10.0.0.0/24", "fd00::/64"];
    /// A network, or `default` for every address, of the family of what stands beside it.
    DestinationText: "destination", r"^(default|[0-9A-Fa-f.:]+(/[0-9]+)?)$", ["default", "10.9.0.0/16"];
    /// An address and the length of its network. `+i` adds the number of the host in its group, which begins with 0.
    CountedAddressText: "address/length", r"^[0-9A-Fa-f.:]+(\+i)?/[0-9]+$", ["10.0.0.2/24", "10.0.0.10+i/24", "fd00::10+i/64"];
    /// An address alone. `+i` adds the number of the host in its group, which begins with 0.
    LoneAddressText: "address+i", r"^[0-9A-Fa-f.:]+(\+i)?(/[0-9]+)?$", ["10.0.0.9", "10.9.0.1+i"];
    /// What an agent says: words of [agent checks](../agents.md), in one line.
    AgentText: "agent's line", r"^[ -~\t]{0,1000}$", ["ready 100%", "drain", "down #disk is full"];
    /// An address, a port and `tcp` or `udp`. An IPv6 address stands in brackets.
    ServiceText: "service", r"^([0-9.]+|\[[0-9A-Fa-f.:]+\]):[0-9]+/(tcp|udp)$", ["10.0.0.3:80/tcp", "[fd00::3]:53/udp"];
    /// One port or two with a hyphen between them, both included.
    PortRangeText: "ports", r"^[0-9]+(-[0-9]+)?$", ["8000-8999", "53"];
    /// The name of a machine, the name of its group, or the beginning of either with `*` behind.
    PatternText: "pattern", r"^[A-Za-z0-9_.-]*\*?$", ["client", "server.2", "server*"];
}

/// Declares a number of a certain kind that may be a table instead.
macro_rules! numbers_or_tables {
    ($($(#[doc = $doc:literal])+ $name:ident($number:ty) { $($schema:tt)+ } { $($visit:tt)+ })+) => {$(
        $(#[doc = $doc])+
        #[derive(Clone, Debug)]
        pub(crate) enum $name<T> {
            /// The number.
            Number($number),
            /// The table.
            Table(T),
        }

        impl<'de, T: Deserialize<'de>> Deserialize<'de> for $name<T> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Either<T>(PhantomData<T>);
                impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
                    type Value = $name<T>;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a number or a table")
                    }
                    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                        T::deserialize(MapAccessDeserializer::new(map)).map($name::Table)
                    }
                    $($visit)+
                }
                deserializer.deserialize_any(Either(PhantomData))
            }
        }

        impl<T: JsonSchema> JsonSchema for $name<T> {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                format!(concat!(stringify!($name), "_{}"), T::schema_name()).into()
            }
            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                json_schema!({ "anyOf": [{ $($schema)+ }, generator.subschema_for::<T>()] })
            }
        }
    )+};
}

numbers_or_tables! {
    /// A share from 0 to 1, or a table.
    ShareOrTable(f64) { "type": "number", "minimum": 0, "maximum": 1 } {
        fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
            Ok(ShareOrTable::Number(real(number)))
        }
        fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
            Ok(ShareOrTable::Number(number))
        }
    }
    /// A count, or a table.
    CountOrTable(i64) { "type": "integer", "minimum": 1, "maximum": 1_000_000 } {
        fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
            Ok(CountOrTable::Number(number))
        }
    }
}

/// A number, or a text.
#[derive(Clone, Debug)]
pub(crate) enum NumberOrText {
    /// The number.
    Number(f64),
    /// The text.
    Text(String),
}

impl<'de> Deserialize<'de> for NumberOrText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = NumberOrText;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a text")
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
                Ok(NumberOrText::Number(real(number)))
            }
            fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
                Ok(NumberOrText::Number(number))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(NumberOrText::Text(text.to_owned()))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for NumberOrText {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "NumberOrText".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "number" }, { "type": "string" }] })
    }
}

/// A port, or a range of them as a text.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(untagged)]
pub(crate) enum Ports {
    /// One port.
    One(i64),
    /// One or a range.
    Range(PortRangeText),
}

impl JsonSchema for Ports {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Ports".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "integer", "minimum": 1, "maximum": 65535 },
                generator.subschema_for::<PortRangeText>(),
            ]
        })
    }
}

/// A whole number of the file as the same number with a point.
fn real(number: i64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "what is lost beyond 2^53 is smaller than any use of it")]
    {
        number as f64
    }
}
