//! Whom clients have called: the last calls, each found by the end that it was made from.

use evenkeel_engine::wire::Protocol;

use crate::index::{Index, end_word, hash};
use crate::net::{index, number};
use crate::packet::AnyEnd;

/// Calls that are remembered. Older ones are forgotten first.
const CALLS_MAX: usize = 1 << 16;

#[derive(Clone, Copy, Debug)]
struct Call {
    protocol: Protocol,
    client: AnyEnd,
    called: AnyEnd,
}

/// Whom the client at an end called last.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// In the order in which their ends called first, as a ring when all places are taken.
    calls: Vec<Call>,
    oldest: usize,
    by_client: Index,
}

impl Calls {
    /// Notes a call.
    pub(super) fn note(&mut self, protocol: Protocol, client: AnyEnd, called: AnyEnd) {
        if let Some(known) = self.place(protocol, client).and_then(|place| self.calls.get_mut(place)) {
            known.called = called;
            return;
        }
        let call = Call { protocol, client, called };
        let place = if self.calls.len() < CALLS_MAX {
            self.calls.push(call);
            self.calls.len() - 1
        } else {
            let place = self.oldest;
            if let Some(known) = self.calls.get_mut(place) {
                self.by_client.remove(name(known.protocol, known.client), number(place));
                *known = call;
            }
            self.oldest = (place + 1) % CALLS_MAX;
            place
        };
        self.by_client.insert(name(protocol, client), number(place));
    }

    /// Whom the client at this end called last.
    pub(super) fn of(&self, protocol: Protocol, client: AnyEnd) -> Option<AnyEnd> {
        self.place(protocol, client).and_then(|place| self.calls.get(place)).map(|call| call.called)
    }

    fn place(&self, protocol: Protocol, client: AnyEnd) -> Option<usize> {
        let is_meant = |place| {
            let call = self.calls.get(index(place));
            call.is_some_and(|call| call.protocol == protocol && call.client == client)
        };
        self.by_client.find(name(protocol, client), is_meant).map(index)
    }
}

fn name(protocol: Protocol, client: AnyEnd) -> u32 {
    hash([u64::from(protocol.0), end_word(client)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(number: usize) -> AnyEnd {
        let port = u16::try_from(number % 60_000).unwrap();
        let host = u8::try_from(number / 60_000).unwrap();
        AnyEnd { address: [10, 0, 0, host].into(), port }
    }

    #[test]
    fn the_last_call_counts_and_the_oldest_is_forgotten() {
        let mut calls = Calls::default();
        let service = |last| AnyEnd { address: [10, 9, 9, last].into(), port: 80 };
        for client in 0..CALLS_MAX {
            calls.note(Protocol::TCP, end(client), service(1));
        }
        calls.note(Protocol::TCP, end(0), service(2));
        assert_eq!(calls.of(Protocol::TCP, end(0)), Some(service(2)));
        assert_eq!(calls.of(Protocol::UDP, end(0)), None);
        for client in CALLS_MAX..CALLS_MAX + 3 {
            calls.note(Protocol::TCP, end(client), service(3));
        }
        let known = (0..CALLS_MAX + 3).map(|client| calls.of(Protocol::TCP, end(client)).is_some());
        assert_eq!(known.collect::<Vec<_>>(), [vec![false; 3], vec![true; CALLS_MAX]].concat());
    }
}
