//! How evenly work is spread over servers, in whole numbers.
//!
//! In: requests and weight of each server. Out: the largest load over the mean, Jain's index and the
//! coefficient of variation, each in millionths. A server's load is its requests over those that its weight
//! promises, so that a server with twice the weight and twice the requests is as loaded as its neighbour.
//! Servers without weight have no part in it.
//!
//! Jain's index is `(sum x)^2 / (n sum x^2)`: 1 when all loads are equal, `1/n` when one server has it all
//! (R. Jain, D. Chiu, W. Hawe: A Quantitative Measure of Fairness and Discrimination, DEC-TR-301, 1984).

use serde::{Deserialize, Serialize};

/// One, in millionths.
const ONE: u64 = 1_000_000;
/// Loads are scaled so that the largest has this many bits: a million times the squares of a million of them
/// fit 128 bits.
const LOAD_BITS: u32 = 40;

/// How evenly work is spread. All are in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balance {
    /// The largest load over the mean; 1,000,000 is perfectly even.
    pub max_over_mean: u64,
    /// Jain's index; 1,000,000 is perfectly even.
    pub jain: u64,
    /// The standard deviation over the mean; 0 is perfectly even.
    pub variation: u64,
}

impl Balance {
    /// The balance of servers, each with its requests and weight; nothing without requests or weight.
    pub fn of(servers: impl Iterator<Item = (u64, u64)> + Clone) -> Option<Self> {
        let counted = servers.filter(|(_, weight)| *weight > 0);
        // Requests for each unit of weight, in 2^-32: the scale goes out of every ratio again.
        let load = |(requests, weight): (u64, u64)| (u128::from(requests) << 32) / u128::from(weight);
        let largest = counted.clone().map(load).max()?;
        let shift = (u128::BITS - largest.leading_zeros()).saturating_sub(LOAD_BITS);
        let (mut sum, mut squares, mut count) = (0u128, 0u128, 0u128);
        for server in counted {
            let load = load(server) >> shift;
            sum += load;
            squares += load * load;
            count += 1;
        }
        if sum == 0 {
            return None;
        }
        let max_over_mean = ((largest >> shift) * count * u128::from(ONE)).checked_div(sum)?;
        // (n sum x^2) / (sum x)^2 = 1 + CoV^2 = 1 / Jain; in units of 10^-12, for the root is taken of it.
        let spread = ratio(count * squares, sum * sum)?;
        let one = u128::from(ONE) * u128::from(ONE);
        Some(Self {
            max_over_mean: u64::try_from(max_over_mean).unwrap_or(u64::MAX),
            jain: u64::try_from((one * u128::from(ONE)).checked_div(spread)?).unwrap_or(u64::MAX).min(ONE),
            variation: u64::try_from(spread.saturating_sub(one).isqrt()).unwrap_or(u64::MAX),
        })
    }
}

/// `part / whole` in units of 10^-12. Both may have 128 bits; the low ones are let go.
fn ratio(part: u128, whole: u128) -> Option<u128> {
    // 10^12 has 40 bits.
    let bits = u128::BITS - part.max(whole).leading_zeros();
    let shift = bits.saturating_sub(u128::BITS - 40);
    let part = (part >> shift) * u128::from(ONE) * u128::from(ONE);
    part.checked_div(whole >> shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(servers: &[(u64, u64)]) -> Option<(u64, u64, u64)> {
        let balance = Balance::of(servers.iter().copied())?;
        Some((balance.max_over_mean, balance.jain, balance.variation))
    }

    #[test]
    fn equal_loads_are_even() {
        assert_eq!(of(&[(7, 1), (7, 1), (7, 1)]), Some((1_000_000, 1_000_000, 0)));
        assert_eq!(of(&[(40, 4), (20, 2), (10, 1)]), Some((1_000_000, 1_000_000, 0)));
        assert_eq!(of(&[(u64::MAX, 1); 1_000]), Some((1_000_000, 1_000_000, 0)));
    }

    #[test]
    fn one_server_of_four_with_everything() {
        // max/mean 4, Jain 1/4, CoV sqrt(3).
        assert_eq!(of(&[(9, 1), (0, 1), (0, 1), (0, 1)]), Some((4_000_000, 250_000, 1_732_050)));
    }

    #[test]
    fn known_values() {
        // 1, 2, 3: mean 2, Jain 36/42, CoV sqrt(2/3)/2.
        assert_eq!(of(&[(1, 1), (2, 1), (3, 1)]), Some((1_500_000, 857_142, 408_248)));
    }

    #[test]
    fn a_server_without_weight_has_no_part() {
        assert_eq!(of(&[(5, 1), (5, 1), (100, 0)]), Some((1_000_000, 1_000_000, 0)));
        assert_eq!(of(&[(5, 0)]), None);
        assert_eq!(of(&[(0, 1), (0, 1)]), None);
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn many_servers_of_any_size_do_not_overflow() {
        let servers: Vec<(u64, u64)> = (0..65_536u64).map(|n| (u64::MAX - n, 1 + n % 2)).collect();
        let (most, jain, variation) = of(&servers).unwrap();
        // Half of the servers have twice the load of the others: 2 / 1.5, 2.25 / 2.5, 1/3.
        assert!(most.abs_diff(1_333_333) <= 1, "{most}");
        assert!(jain.abs_diff(900_000) <= 1, "{jain}");
        assert!(variation.abs_diff(333_333) <= 2, "{variation}");
    }
}
