//! What of a flow the hashing schedulers look at, as 64 bits.

use siphasher::sip::SipHasher13;

use crate::director::{NewFlow, PickInputs};
use crate::plan::{FlowKey, Prefix};
use crate::wire::Address;

/// Separates these hashes from everything else that is derived from the seed.
const SALT: u64 = 0x6b65_7920_6f66_2066;

/// Hashes flows by one of the keys. Forwarders with the same seed hash alike.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keyed {
    key: FlowKey,
    seed: u64,
}

impl Keyed {
    pub(super) fn new(key: Option<FlowKey>, seed: u64) -> Self {
        Self { key: key.unwrap_or_default(), seed }
    }

    /// The hash of `flow`. That of the five-tuple is the flow's own, which is known already.
    #[inline]
    pub(super) fn hash(&self, flow: &NewFlow) -> u64 {
        match self.key {
            FlowKey::FiveTuple => flow.hash,
            FlowKey::Source { length_v4, length_v6 } => {
                let source = flow.tuple.source;
                let length = if source.is_v4() { length_v4 } else { length_v6 };
                self.of(Prefix { address: source.into(), length }.network(), 0)
            }
            FlowKey::SourcePort => self.of(flow.tuple.source, flow.tuple.source_port),
            FlowKey::Destination => self.of(flow.tuple.destination, 0),
        }
    }

    /// What of `flow` is hashed, and its hash.
    pub(super) fn inputs(&self, flow: &NewFlow) -> PickInputs {
        let key = match self.key {
            FlowKey::FiveTuple => "addresses, ports and protocol",
            FlowKey::Source { .. } => "source address",
            FlowKey::SourcePort => "source address and port",
            FlowKey::Destination => "destination address",
        };
        PickInputs::hashed(key, self.hash(flow))
    }

    fn of(&self, address: Address, port: u16) -> u64 {
        let [high, low] = address.halves();
        let mut bytes = [0; 18];
        let parts = high.to_be_bytes().into_iter().chain(low.to_be_bytes()).chain(port.to_be_bytes());
        for (place, byte) in bytes.iter_mut().zip(parts) {
            *place = byte;
        }
        SipHasher13::new_with_keys(self.seed, SALT).hash(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{FiveTuple, Protocol};

    fn flow(source: [u8; 4], source_port: u16, destination: [u8; 4]) -> NewFlow {
        let tuple = FiveTuple {
            source: Address::v4(source),
            destination: Address::v4(destination),
            source_port,
            destination_port: 80,
            protocol: Protocol::TCP,
        };
        NewFlow { hash: u64::from(source_port) << 32 | u64::from(source[3]), tuple }
    }

    #[test]
    fn each_key_looks_at_what_it_names_and_at_nothing_else() {
        let first = flow([10, 0, 0, 1], 1000, [192, 0, 2, 1]);
        let neighbour = flow([10, 0, 0, 2], 1000, [192, 0, 2, 1]);
        let other_port = flow([10, 0, 0, 1], 2000, [192, 0, 2, 1]);
        let other_end = flow([10, 0, 0, 1], 1000, [192, 0, 2, 2]);
        let network = FlowKey::Source { length_v4: 24, length_v6: 64 };
        for (key, same) in [
            (FlowKey::FiveTuple, [false, false, true]),
            (FlowKey::SOURCE, [false, true, true]),
            (network, [true, true, true]),
            (FlowKey::SourcePort, [false, false, true]),
            (FlowKey::Destination, [true, true, false]),
        ] {
            let keyed = Keyed::new(Some(key), 7);
            let others =
                [neighbour, other_port, other_end].map(|other| keyed.hash(&other) == keyed.hash(&first));
            assert_eq!(others, same, "{key:?}");
        }
        let of_seed = |seed| Keyed::new(Some(FlowKey::SOURCE), seed).hash(&first);
        assert_eq!(of_seed(1), of_seed(1));
        assert_ne!(of_seed(1), of_seed(2));
    }
}
