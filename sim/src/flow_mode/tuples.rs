//! The five-tuples of clients: each flow has a number, and each number an address and a port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use evenkeel_engine::wire::{Address, FiveTuple};

use super::setup::Clients;

/// Ports of a client: all but those below 1,024.
const PORTS: u64 = 64_512;
const FIRST_PORT: u64 = 1_024;

/// Makes five-tuples of numbers.
#[derive(Clone, Debug)]
pub(super) struct Tuples {
    clients: Source,
    service: FiveTuple,
}

#[derive(Clone, Debug)]
enum Source {
    /// Addresses one after the other.
    Range { first: IpAddr, addresses: u64 },
    /// Those of machines; the number has the port in its lowest 16 bits, and the place of the machine above.
    Callers(Vec<Address>),
}

impl Tuples {
    /// `service` gives everything but the client's address and port.
    pub(super) fn new(clients: &Clients, service: FiveTuple) -> Self {
        let addresses = u64::from(clients.addresses.max(1));
        Self { clients: Source::Range { first: clients.first, addresses }, service }
    }

    /// The same for clients that are machines, which count their ports themselves.
    pub(super) fn of_callers(addresses: impl Iterator<Item = IpAddr>, service: FiveTuple) -> Self {
        Self { clients: Source::Callers(addresses.map(Address::from).collect()), service }
    }

    /// The number of the tuple of a caller, by its place, and a port.
    pub(super) const fn number(place: u64, port: u16) -> u64 {
        place << 16 | port as u64
    }

    /// How many differ.
    pub(super) fn count(&self) -> u64 {
        match &self.clients {
            Source::Range { addresses, .. } => addresses * PORTS,
            Source::Callers(callers) => u64::try_from(callers.len()).unwrap_or(u64::MAX) * PORTS,
        }
    }

    /// The tuple of a number. Clients take turns; each counts its ports up. Numbers beyond the last begin anew.
    #[inline]
    pub(super) fn tuple(&self, number: u64) -> FiveTuple {
        let (first, addresses) = match &self.clients {
            Source::Range { first, addresses } => (*first, *addresses),
            Source::Callers(callers) => {
                let caller = usize::try_from(number >> 16).ok().and_then(|place| callers.get(place));
                let source = caller.copied().unwrap_or(Address::UNSPECIFIED);
                let source_port = u16::try_from(number & 0xffff).unwrap_or(0);
                return FiveTuple { source, source_port, ..self.service };
            }
        };
        let client = number % addresses;
        let port = FIRST_PORT + number / addresses % PORTS;
        let source = match first {
            IpAddr::V4(first) => {
                let offset = u32::try_from(client).unwrap_or(0);
                Address::from(Ipv4Addr::from_bits(first.to_bits().wrapping_add(offset)))
            }
            IpAddr::V6(first) => {
                let bits = first.to_bits().wrapping_add(u128::from(client));
                Address::from(IpAddr::V6(Ipv6Addr::from_bits(bits)))
            }
        };
        // At most 1,024 + 64,511.
        FiveTuple { source, source_port: u16::try_from(port).unwrap_or(0), ..self.service }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_engine::wire::Protocol;
    use std::collections::BTreeSet;

    #[test]
    fn numbers_have_tuples_of_their_own_until_they_begin_anew() {
        let service = FiveTuple {
            destination: Address::v4([10, 0, 0, 9]),
            destination_port: 443,
            protocol: Protocol::TCP,
            ..FiveTuple::default()
        };
        let clients = Clients { first: Ipv4Addr::new(100, 64, 0, 254).into(), addresses: 3 };
        let tuples = Tuples::new(&clients, service);
        let all: BTreeSet<FiveTuple> = (0..tuples.count()).map(|number| tuples.tuple(number)).collect();
        assert_eq!(all.len() as u64, tuples.count());
        assert_eq!(tuples.tuple(tuples.count()), tuples.tuple(0));
        assert_eq!(tuples.tuple(2).source, Address::v4([100, 64, 1, 0]));
        assert!(all.iter().all(|tuple| tuple.source_port >= 1_024 && tuple.destination_port == 443));
    }

    #[test]
    fn clients_of_ipv6_count_on_as_well() {
        let service = FiveTuple { destination: Address::v6([1; 16]), ..FiveTuple::default() };
        let first: IpAddr = "fd00::ffff".parse().unwrap();
        let tuples = Tuples::new(&Clients { first, addresses: 2 }, service);
        let next: IpAddr = "fd00::1:0".parse().unwrap();
        assert_eq!([tuples.tuple(0), tuples.tuple(1)].map(|tuple| IpAddr::from(tuple.source)), [first, next]);
    }
}
