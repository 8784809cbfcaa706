//! How many flows each client has, where the plan bounds that.

use alloc::collections::BTreeMap;

use crate::wire::Address;

/// Flows by client address. Empty, and free of cost, where there is no bound; else as many clients as have flows.
#[derive(Debug, Default)]
pub struct Clients {
    counts: BTreeMap<Address, u32>,
    most: u32,
}

impl Clients {
    /// Bounds every client to `most` flows (0: none is bounded); `flows` are the clients of all flows there are.
    pub fn set_most(&mut self, most: u32, flows: impl Iterator<Item = Address>) {
        let was = core::mem::replace(&mut self.most, most);
        if most == 0 {
            self.counts.clear();
        } else if was == 0 {
            flows.for_each(|client| self.open(client));
        }
    }

    /// What is known of `some` clients alone.
    #[must_use]
    pub fn fork(&self, some: impl Iterator<Item = Address>) -> Self {
        let counts = some.filter_map(|client| Some((client, *self.counts.get(&client)?)));
        Self { counts: counts.collect(), most: self.most }
    }

    /// How many flows `client` has, where that is counted.
    pub(crate) fn count(&self, client: Address) -> u32 {
        self.counts.get(&client).copied().unwrap_or(0)
    }

    /// Sets how many flows `client` has.
    pub(crate) fn set_count(&mut self, client: Address, count: u32) {
        if count > 0 {
            self.counts.insert(client, count);
        }
    }

    /// Whether `client` may have one more flow.
    #[must_use]
    pub fn may_open(&self, client: Address) -> bool {
        self.most == 0 || self.counts.get(&client).is_none_or(|count| *count < self.most)
    }

    /// `client` has one more flow.
    pub fn open(&mut self, client: Address) {
        if self.most > 0 {
            *self.counts.entry(client).or_insert(0) += 1;
        }
    }

    /// `client` has one flow less.
    pub fn close(&mut self, client: Address) {
        if self.most == 0 {
            return;
        }
        if let Some(count) = self.counts.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_as_many_flows_as_it_may_and_is_forgotten_without() {
        let client = Address::v4([192, 0, 2, 1]);
        let mut clients = Clients::default();
        clients.open(client);
        assert!(clients.counts.is_empty(), "nobody is counted without a bound");
        clients.set_most(2, [client].into_iter());
        assert!(clients.may_open(client));
        clients.open(client);
        assert!(!clients.may_open(client) && clients.may_open(Address::v4([192, 0, 2, 2])));
        clients.close(client);
        assert!(clients.may_open(client));
        clients.close(client);
        assert!(clients.counts.is_empty());
    }
}
