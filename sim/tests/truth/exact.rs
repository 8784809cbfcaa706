//! What theory says, computed from the formulas. Times are in units of the mean service time.

use std::f64::consts::PI;

/// Mean time in an M/M/1 queue: 1 / (1 - rho). Kleinrock, "Queueing Systems" I, 1975, section 3.2.
pub fn mm1_mean(load: f64) -> f64 {
    1.0 / (1.0 - load)
}

/// A quantile of the time in an M/M/1 queue, which is exponential with that mean (Kleinrock I, section 5.7).
pub fn mm1_quantile(load: f64, share: f64) -> f64 {
    -libm::log(1.0 - share) / (1.0 - load)
}

/// Erlang's C: the chance that a request has to wait for one of `servers`, by the recursion of Erlang's B
/// (Kleinrock I, section 3.5). `load` is that of one server.
pub fn erlang_c(servers: u32, load: f64) -> f64 {
    let offered = f64::from(servers) * load;
    let blocked = (1..=servers).fold(1.0, |blocked, server| {
        let grown: f64 = offered * blocked;
        grown / (f64::from(server) + grown)
    });
    blocked / (1.0 - load * (1.0 - blocked))
}

/// Mean time in an M/M/k queue: 1 + C / (k (1 - rho)).
pub fn mmk_mean(servers: u32, load: f64) -> f64 {
    1.0 + erlang_c(servers, load) / (f64::from(servers) * (1.0 - load))
}

/// A quantile of the time in an M/M/k queue: service, plus with chance C an exponential wait of rate k (1 - rho). By
/// bisection of its distribution (Kleinrock I, section 3.5).
pub fn mmk_quantile(servers: u32, load: f64, share: f64) -> f64 {
    let wait = erlang_c(servers, load);
    let rate = f64::from(servers) * (1.0 - load);
    let beyond = |time: f64| {
        let alone = libm::exp(-time);
        // The sum of two exponentials, or Erlang's law of order 2 where their rates are the same.
        let both = if (rate - 1.0).abs() < 1e-9 {
            (1.0 + time) * alone
        } else {
            (rate * alone - libm::exp(-rate * time)) / (rate - 1.0)
        };
        (1.0 - wait) * alone + wait * both
    };
    bisect(0.0, 1e4, |time| beyond(time) < 1.0 - share)
}

/// Mean time in an M/G/1 queue with mean service 1: 1 + lambda E[S^2] / (2 (1 - rho)). Pollaczek 1930, Khinchine 1932.
pub fn pollaczek_khinchine(load: f64, second_moment: f64) -> f64 {
    1.0 + load * second_moment / (2.0 * (1.0 - load))
}

/// Mean time in a GI/M/1 queue whose gaps are of Erlang's law of order `stages`: 1 / (1 - sigma), where sigma is the
/// root below 1 of sigma = A*(1 - sigma) with the transform A* of the gaps (Kleinrock I, section 6.4). Round
/// robin over `stages` servers gives each of them every such arrival.
pub fn erlang_m1_mean(stages: u32, load: f64) -> f64 {
    1.0 / (1.0 - erlang_root(stages, load))
}

/// A quantile of the same time, which is exponential.
pub fn erlang_m1_quantile(stages: u32, load: f64, share: f64) -> f64 {
    -libm::log(1.0 - share) / (1.0 - erlang_root(stages, load))
}

fn erlang_root(stages: u32, load: f64) -> f64 {
    let k = f64::from(stages);
    // Gaps have the mean 1 / load, so each stage has the rate k load.
    let transform = |s: f64| libm::pow(k * load / (k * load + s), k);
    bisect(0.0, 1.0 - 1e-12, |sigma| transform(1.0 - sigma) < sigma)
}

/// Mean time when each request joins the shortest of `choices` queues, with very many servers:
/// sum over i of load^((d^i - d) / (d - 1)). Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing",
/// IEEE TPDS 12(10), 2001, corollary of theorem 1; Vvedenskaya, Dobrushin and Karpelevich 1996.
pub fn supermarket_mean(choices: u32, load: f64) -> f64 {
    let d = f64::from(choices);
    let term = |step: i32| libm::pow(load, (libm::pow(d, f64::from(step)) - d) / (d - 1.0));
    (1..60).map(term).take_while(|term| *term > 1e-15).sum()
}

/// The mean of the greatest of `bins` counts when `balls` are thrown, by the mean count. Counts are independent Poisson
/// variables on the condition that their sum is `balls`, so P(all <= c) is the chance of that for independent ones,
/// times how much likelier it makes the sum (Levin, "A representation for multinomial cumulative distribution
/// functions", Annals of Statistics 9, 1981). The sum of counts cut off at c is taken as normal.
pub fn balls_in_bins(balls: u32, bins: u32) -> f64 {
    let (m, n) = (f64::from(balls), f64::from(bins));
    let mean = m / n;
    // Beyond twelve deviations a chance is below 10^-12 on either side.
    let reach = 12.0 * libm::sqrt(mean) + 40.0;
    let first = libm::floor(mean - reach).max(0.0);
    let density = |count: f64| libm::exp(count * libm::log(mean) - mean - libm::lgamma(count + 1.0));
    let mut expected = first;
    // The chance of a count up to this one, and the first two moments of what it is apart from the mean.
    let (mut upto, mut apart, mut square) = (0.0, 0.0, 0.0);
    let mut count = first;
    while count <= mean + reach {
        let (chance, off) = (density(count), count - mean);
        upto += chance;
        apart += chance * off;
        square += chance * off * off;
        let (shift, variance) = (apart / upto, square / upto - (apart / upto) * (apart / upto));
        let likelier = if variance > 0.0 {
            libm::exp(-n * shift * shift / (2.0 * variance)) * libm::sqrt(mean / variance)
        } else {
            0.0
        };
        expected += 1.0 - (libm::pow(upto.min(1.0), n) * likelier).min(1.0);
        count += 1.0;
    }
    expected / mean
}

/// The least value of a range for which `is_enough` holds, which it does from there on.
fn bisect(mut low: f64, mut high: f64, is_enough: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..200 {
        let middle = f64::midpoint(low, high);
        if is_enough(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    high
}

/// The mean of a normal law that is cut off below 0, by its mean and deviation before (Johnson, Kotz and Balakrishnan,
/// "Continuous Univariate Distributions" I, 1994, section 10.1).
pub fn truncated_normal_mean(mean: f64, deviation: f64) -> f64 {
    let cut = mean / deviation;
    let density = libm::exp(-cut * cut / 2.0) / libm::sqrt(2.0 * PI);
    mean + deviation * density / (libm::erfc(-cut / libm::sqrt(2.0)) / 2.0)
}

/// The same by the chances of all counts, bin by bin.
#[cfg(test)]
fn balls_in_bins_counted(balls: u32, bins: u32) -> f64 {
    let all = balls as usize;
    let density = |of: usize, share: f64, count: usize| {
        let (of, count) = (of as f64, count as f64);
        let ways = libm::lgamma(of + 1.0) - libm::lgamma(count + 1.0) - libm::lgamma(of - count + 1.0);
        libm::exp(ways + count * libm::log(share) + (of - count) * libm::log1p(-share))
    };
    // The chance that so many balls are left and no bin so far has more than `most`.
    let none_beyond = |most: usize| {
        let mut left = vec![0.0; all + 1];
        left[all] = 1.0;
        for bin in 0..bins - 1 {
            let share = 1.0 / f64::from(bins - bin);
            let mut next = vec![0.0; all + 1];
            for (balls, chance) in left.iter().enumerate().filter(|(_, chance)| **chance > 1e-15) {
                for count in 0..=most.min(balls) {
                    next[balls - count] += chance * density(balls, share, count);
                }
            }
            left = next;
        }
        left.iter().take(most + 1).sum::<f64>()
    };
    // From where it is certain that a bin has more, to where it is that none has.
    let mean = all / bins as usize;
    let most = (mean + 8 * mean.isqrt() + 8).min(all);
    let beyond: f64 = (mean..most).map(|most| 1.0 - none_beyond(most)).sum();
    (mean as f64 + beyond) / mean as f64
}

#[test]
fn formulas_give_the_published_values() {
    let near = |value: f64, wanted: f64| assert!((value - wanted).abs() < 6e-5 * wanted, "{value} {wanted}");
    near(erlang_c(10, 0.8), 0.409_180);
    near(erlang_c(10, 0.9), 0.668_732);
    near(erlang_c(100, 0.95), 0.506_457);
    near(mmk_mean(1, 0.8), mm1_mean(0.8));
    near(mmk_quantile(1, 0.8, 0.99), mm1_quantile(0.8, 0.99));
    near(pollaczek_khinchine(0.5, 0.99 * 0.25 + 0.01 * 50.5 * 50.5), 13.875);
    near(pollaczek_khinchine(0.8, 1.0), 3.0);
    near(erlang_m1_mean(1, 0.8), mm1_mean(0.8));
    near(erlang_m1_mean(10, 0.8), 2.9223);
    near(erlang_m1_mean(10, 0.9), 5.6603);
    near(supermarket_mean(2, 0.9), 2.6141);
    near(supermarket_mean(2, 0.99), 5.4320);
    near(supermarket_mean(3, 0.9), 2.0279);
    // All ways in which balls can lie, one bin after another.
    for (balls, bins) in [(60, 6), (200, 10)] {
        let (found, counted) = (balls_in_bins(balls, bins), balls_in_bins_counted(balls, bins));
        assert!((found - counted).abs() < 1e-3 * counted, "{balls} in {bins}: {found} {counted}");
    }
    near(truncated_normal_mean(1.0, 1.0), 1.287_600);
}
