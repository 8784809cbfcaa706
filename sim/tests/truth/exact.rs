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

/// The mean of the greatest of `bins` counts when `balls` are thrown, by its mean: bins are taken as independent, which
/// costs less than a part in a thousand (they are negatively associated: Dubhashi and Ranjan 1998).
pub fn balls_in_bins(balls: u32, bins: u32) -> f64 {
    let (m, p) = (f64::from(balls), 1.0 / f64::from(bins));
    // Each bin is binomial; its distribution from the logarithm of its first term on.
    let mut density = libm::exp(m * libm::log1p(-p));
    let mean = m * p;
    let (mut upto, mut expected) = (0.0, 0.0);
    // Beyond this many the chance of a greater count is below 10^-12.
    let most = mean + 12.0 * libm::sqrt(mean) + 40.0;
    let mut count = 0.0;
    if density < 1e-280 {
        return balls_in_bins_normal(balls, bins);
    }
    while count <= most {
        upto += density;
        expected += 1.0 - libm::pow(upto.min(1.0), f64::from(bins));
        density *= (m - count) / (count + 1.0) * p / (1.0 - p);
        count += 1.0;
    }
    expected / mean
}

/// The same for bins that hold so many that the first terms vanish: from ten deviations below the mean on.
fn balls_in_bins_normal(balls: u32, bins: u32) -> f64 {
    let (m, p) = (f64::from(balls), 1.0 / f64::from(bins));
    let mean = m * p;
    let first = libm::floor(mean - 10.0 * libm::sqrt(mean)).max(0.0);
    let log_density = libm::lgamma(m + 1.0) - libm::lgamma(first + 1.0) - libm::lgamma(m - first + 1.0)
        + first * libm::log(p)
        + (m - first) * libm::log1p(-p);
    let mut density = libm::exp(log_density);
    // Counts below the first one are certain to be exceeded.
    let (mut upto, mut expected, mut count) = (0.0, first, first);
    while count <= mean + 12.0 * libm::sqrt(mean) + 40.0 {
        upto += density;
        expected += 1.0 - libm::pow(upto.min(1.0), f64::from(bins));
        density *= (m - count) / (count + 1.0) * p / (1.0 - p);
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
    // Two balls in two bins: 2 with chance 1/2, else 1; independent bins would say the same within their error.
    assert!((balls_in_bins(1_000, 10) - 1.154).abs() < 0.01);
    assert!((balls_in_bins(100_000, 100) - balls_in_bins_normal(100_000, 100)).abs() < 1e-9);
    near(truncated_normal_mean(1.0, 1.0), 1.287_600);
}
