//! The Maglev table, entry for entry the one that the forwarder's native scheduler builds.
//!
//! Members are the servers with a share in the order of their ids. Each has its own permutation of the places of the
//! table; in rounds, a member adds its weight to its credit and claims the next free place of its permutation
//! whenever the credit reaches the largest weight. Two forwarders with the same servers get the same table.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use crate::{ConfigureError, NO_ANSWER, Options, Server, keyed_hash};

/// The size that a table has when nothing else is said. A prime, 100 times the largest number of servers that
/// still share evenly to the percent.
pub const SIZE_DEFAULT: usize = 65_537;
/// The largest size of a table.
pub const SIZE_MAX: usize = 1_048_576;

/// Whether `number` is prime. A table needs a prime size, or permutations would miss places.
#[must_use]
pub fn is_prime(number: usize) -> bool {
    number >= 2
        && (2..)
            .take_while(|divisor| divisor * divisor <= number)
            .all(|divisor| !number.is_multiple_of(divisor))
}

/// Reads the option `size`.
///
/// # Errors
/// When it is not a prime of 3 to [`SIZE_MAX`].
pub fn size(options: &mut Options) -> Result<usize, ConfigureError> {
    let size = options.integer("size", 65_537, 3..=1_048_576)?;
    let not_prime = || ConfigureError::bad_option("size", format!("{size} is not a prime"));
    usize::try_from(size).ok().filter(|size| is_prime(*size)).ok_or_else(not_prime)
}

struct Member {
    index: u32,
    id: u64,
    weight: u32,
    credit: u32,
    place: usize,
    skip: usize,
}

impl Member {
    fn new(index: usize, server: &Server, size: usize) -> Option<Self> {
        let reduce = |key, modulus: usize| {
            let hash = keyed_hash([0, key], &[server.id]);
            usize::try_from(hash % u64::try_from(modulus).ok()?).ok()
        };
        Some(Self {
            index: u32::try_from(index).ok()?,
            id: server.id,
            weight: server.weight,
            credit: 0,
            place: reduce(0, size)?,
            skip: reduce(1, size - 1)? + 1,
        })
    }

    /// Claims the next free place.
    fn claim(&mut self, table: &mut [u32]) {
        loop {
            let place = self.place;
            let next = place + self.skip;
            self.place = if next < table.len() { next } else { next - table.len() };
            if let Some(entry) = table.get_mut(place)
                && *entry == NO_ANSWER
            {
                *entry = self.index;
                return;
            }
        }
    }
}

/// Builds the table; empty where no server is usable.
///
/// # Panics
/// When `size` is not a prime of 3 to [`SIZE_MAX`].
#[must_use]
pub fn table(servers: &[Server], size: usize) -> Vec<u32> {
    assert!((3..=SIZE_MAX).contains(&size) && is_prime(size), "the size of a table is a prime");
    let usable = servers.iter().enumerate().filter(|(_, server)| server.is_member());
    let mut members: Vec<Member> =
        usable.filter_map(|(index, server)| Member::new(index, server, size)).collect();
    members.sort_by_key(|member| (member.id, member.index));
    let Some(largest) = members.iter().map(|member| member.weight).max() else { return Vec::new() };

    let mut table = vec![NO_ANSWER; size];
    let mut free = size;
    loop {
        for member in &mut members {
            member.credit += member.weight;
            if member.credit >= largest {
                member.credit -= largest;
                member.claim(&mut table);
                free -= 1;
                if free == 0 {
                    return table;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kit::server;

    #[test]
    fn primes_are_told_from_other_numbers() {
        let primes: Vec<usize> = (0..30).filter(|number| is_prime(*number)).collect();
        assert_eq!(primes, [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]);
        assert!(is_prime(SIZE_DEFAULT));
    }

    #[test]
    fn every_place_is_taken_and_shares_follow_the_weights() {
        let servers: Vec<Server> = [4, 2, 1, 0].iter().enumerate().map(|(n, w)| server(n, *w)).collect();
        let table = table(&servers, SIZE_DEFAULT);
        let share = |index| table.iter().filter(|entry| **entry == index).count();
        assert_eq!(share(0) + share(1) + share(2), SIZE_DEFAULT);
        assert!(share(0).abs_diff(SIZE_DEFAULT * 4 / 7) <= 2);
        assert!(share(1).abs_diff(SIZE_DEFAULT * 2 / 7) <= 2);
    }

    #[test]
    fn losing_one_server_moves_few_of_the_other_flows() {
        let mut servers: Vec<Server> = (0..10).map(|number| server(number, 1)).collect();
        let before = table(&servers, 4_099);
        servers[3].is_up = false;
        let after = table(&servers, 4_099);
        let moved = before.iter().zip(&after).filter(|(old, new)| **old != 3 && old != new).count();
        assert!(moved < 4_099 / 10, "{moved} places of other servers moved");
        assert!(!after.contains(&3));
    }

    #[test]
    fn without_a_usable_server_there_is_no_table() {
        assert!(table(&[server(0, 0)], 101).is_empty());
    }
}
