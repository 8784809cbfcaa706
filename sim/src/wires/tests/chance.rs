//! Loss, delay, order, copies and corruption: how much of each, and that none shifts another.

use evenkeel_engine::Duration;

use super::*;

const FRAMES: u64 = 100_000;

fn wire(quality: Quality) -> Wire {
    Wire::new(Quality { rate_bits: 0, ..quality }, 1, "a", "up")
}

/// Which of many frames arrive, and when, counted from when they were sent.
fn delays(wire: &mut Wire) -> Vec<Option<u64>> {
    let mut packet = frame_of(100);
    let send = |number| match wire.pass(&mut packet, at(number * 1_000_000)) {
        Passage::Arrives { at, .. } => Some(at.as_nanos() - number * 1_000_000),
        Passage::Ended(_) => None,
    };
    (0..FRAMES).map(send).collect()
}

fn float(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap())
}

#[test]
fn even_loss_has_its_share() {
    let mut wire = wire(Quality { loss: Loss::Even { millionths: 20_000 }, ..Quality::default() });
    let lost = delays(&mut wire).iter().filter(|delay| delay.is_none()).count();
    assert!((1_850..2_150).contains(&lost), "{lost}");
    assert_eq!(wire.counts().lost, u64::try_from(lost).unwrap());
    assert_conserved(&wire, FRAMES);
}

#[test]
fn bursts_have_the_share_and_length_of_the_closed_form() {
    // Bad for p / (p + r) of the time, and for 1 / r frames at a time.
    for (p, r) in [(10_000, 200_000), (1_000, 100_000), (50_000, 500_000)] {
        let loss = Loss::GilbertElliott {
            to_bad_millionths: p,
            to_good_millionths: r,
            good_millionths: 0,
            bad_millionths: 1_000_000,
        };
        let arrivals: Vec<bool> =
            delays(&mut wire(Quality { loss, ..Quality::default() })).iter().map(Option::is_some).collect();
        let lost = float(arrivals.iter().filter(|arrived| !**arrived).count());
        let bursts = float(arrivals.windows(2).filter(|pair| pair[0] && !pair[1]).count());
        let (p, r) = (f64::from(p) / 1e6, f64::from(r) / 1e6);
        let share = lost / float(arrivals.len());
        assert!((share / (p / (p + r)) - 1.0).abs() < 0.15, "{share} instead of {}", p / (p + r));
        assert!((lost / bursts * r - 1.0).abs() < 0.1, "{} instead of {}", lost / bursts, 1.0 / r);
    }
}

#[test]
fn a_bad_cable_may_still_let_some_through() {
    // 0.01 / 0.11 of the time bad, and then half is lost; 1 % else.
    let loss = Loss::GilbertElliott {
        to_bad_millionths: 10_000,
        to_good_millionths: 100_000,
        good_millionths: 10_000,
        bad_millionths: 500_000,
    };
    let lost =
        delays(&mut wire(Quality { loss, ..Quality::default() })).iter().filter(|d| d.is_none()).count();
    let expected = float(100_000) * (0.5 / 11.0 + 0.01 * 10.0 / 11.0);
    assert!((float(lost) / expected - 1.0).abs() < 0.1, "{lost} instead of {expected}");
}

/// Mean and standard deviation of the delays, in nanoseconds.
fn moments(delay: Delay) -> (f64, f64) {
    let delays: Vec<f64> = delays(&mut wire(Quality { delay, ..Quality::default() }))
        .into_iter()
        .map(|delay| f64::from(u32::try_from(delay.unwrap()).unwrap()))
        .collect();
    let count = float(delays.len());
    let mean = delays.iter().sum::<f64>() / count;
    let variance = delays.iter().map(|delay| (delay - mean) * (delay - mean)).sum::<f64>() / count;
    (mean, variance.sqrt())
}

fn assert_near(found: f64, expected: f64, tolerance: f64) {
    assert!((found / expected - 1.0).abs() < tolerance, "{found} instead of {expected}");
}

#[test]
fn delays_have_the_mean_and_deviation_of_their_law() {
    let ms = Duration::from_millis;
    let (mean, deviation) = moments(Delay::Uniform { low: ms(5), high: ms(40) });
    assert_near(mean, 22.5e6, 0.01);
    assert_near(deviation, 35e6 / 12_f64.sqrt(), 0.01);
    let (mean, deviation) = moments(Delay::Normal { mean: ms(20), deviation: ms(3) });
    assert_near(mean, 20e6, 0.01);
    assert_near(deviation, 3e6, 0.02);
    let (mean, deviation) = moments(Delay::LogNormal { mean: ms(20), deviation: ms(10) });
    assert_near(mean, 20e6, 0.01);
    assert_near(deviation, 10e6, 0.05);
    let (mean, deviation) = moments(Delay::Exponential { low: ms(10), mean: ms(5) });
    assert_near(mean, 15e6, 0.01);
    assert_near(deviation, 5e6, 0.02);
    // Shape 3: the mean is 3/2 of the least.
    let (mean, _) = moments(Delay::Pareto { low: ms(10), high: ms(2_000), shape_thousandths: 3_000 });
    assert_near(mean, 15e6, 0.01);
    assert_eq!(moments(Delay::Fixed(ms(7))), (7e6, 0.0));
    assert_eq!(moments(Delay::LogNormal { mean: Duration::ZERO, deviation: ms(1) }), (0.0, 0.0));
}

#[test]
fn a_pareto_delay_stays_in_its_bounds_and_a_normal_one_above_zero() {
    let (low, high) = (Duration::from_micros(10), Duration::from_millis(1));
    let pareto = Delay::Pareto { low, high, shape_thousandths: 500 };
    let found = delays(&mut wire(Quality { delay: pareto, ..Quality::default() }));
    assert!(found.iter().flatten().all(|delay| (10_000..=1_000_000).contains(delay)));
    assert!(found.contains(&Some(1_000_000)), "one in ten is cut off");
    let normal = Delay::Normal { mean: Duration::from_micros(1), deviation: Duration::from_millis(1) };
    let found = delays(&mut wire(Quality { delay: normal, ..Quality::default() }));
    assert!(found.contains(&Some(0)));
}

#[test]
fn frames_overtake_each_other_unless_order_is_kept() {
    let delay = Delay::Uniform { low: Duration::ZERO, high: Duration::from_millis(1) };
    for keeps_order in [false, true] {
        let mut wire = wire(Quality { delay, keeps_order, ..Quality::default() });
        let arrivals: Vec<u64> =
            (0..1_000).map(|number| arrival(&mut wire, 100, number * 1_000).unwrap()).collect();
        assert_eq!(arrivals.is_sorted(), keeps_order);
    }
}

#[test]
fn reordered_frames_come_later() {
    let reorder = Reorder { millionths: 100_000, extra: Duration::from_micros(50) };
    let mut wire = wire(Quality { reorder, keeps_order: true, ..Quality::default() });
    let found = delays(&mut wire);
    assert!(found.iter().all(|delay| matches!(delay, Some(10_000 | 60_000))));
    let late = found.iter().filter(|delay| **delay == Some(60_000)).count();
    assert!((9_500..10_500).contains(&late), "{late}");
    assert_eq!(wire.counts().reordered, u64::try_from(late).unwrap());
}

#[test]
fn copies_arrive_as_well() {
    let delay = Delay::Uniform { low: Duration::ZERO, high: Duration::from_millis(1) };
    let mut wire = wire(Quality { delay, duplicate_millionths: 50_000, ..Quality::default() });
    let mut packet = frame_of(100);
    let mut copies = 0_u64;
    for number in 0..FRAMES {
        if let Passage::Arrives { again: Some(again), .. } = wire.pass(&mut packet, at(number * 1_000)) {
            copies += 1;
            assert!(again >= at(number * 1_000));
        }
    }
    assert!((4_700..5_300).contains(&copies), "{copies}");
    assert_eq!(wire.counts().duplicated, copies);
}

#[test]
fn one_bit_of_a_corrupted_frame_is_another() {
    let mut wire = wire(Quality { corrupt_millionths: 300_000, ..Quality::default() });
    let mut places = [0_u32; 64];
    for _ in 0..20_000 {
        let (mut packet, original) = (frame_of(64), frame_of(64));
        wire.pass(&mut packet, at(0));
        let pairs = packet.bytes().iter().zip(original.bytes());
        let flipped: u32 = pairs.clone().map(|(new, old)| (new ^ old).count_ones()).sum();
        assert!(flipped <= 1);
        if let Some(place) = pairs.clone().position(|(new, old)| new != old) {
            places[place] += 1;
        }
    }
    let corrupted = u64::from(places.iter().sum::<u32>());
    assert_eq!(wire.counts().corrupted, corrupted);
    assert!((5_700..6_300).contains(&corrupted), "{corrupted}");
    assert!(places.iter().all(|count| *count > 40), "anywhere in the frame: {places:?}");
}

#[test]
fn no_chance_shifts_another() {
    let delay = Delay::Uniform { low: Duration::from_millis(1), high: Duration::from_millis(2) };
    let base = Quality { delay, ..Quality::default() };
    let plain = delays(&mut wire(base));
    let changes: [Quality; 4] = [
        Quality { corrupt_millionths: 500_000, ..base },
        Quality { duplicate_millionths: 500_000, ..base },
        Quality { reorder: Reorder { millionths: 500_000, extra: Duration::ZERO }, ..base },
        Quality { keeps_order: false, mtu_bytes: 100, ..base },
    ];
    for quality in changes {
        assert_eq!(delays(&mut wire(quality)), plain, "{quality:?}");
    }
    let lossy = delays(&mut wire(Quality { loss: Loss::Even { millionths: 300_000 }, ..base }));
    let lossy_too = delays(&mut wire(Quality {
        loss: Loss::Even { millionths: 300_000 },
        delay: Delay::Fixed(Duration::ZERO),
        ..base
    }));
    let pairs = lossy.iter().zip(&lossy_too);
    assert!(pairs.clone().all(|(a, b)| a.is_some() == b.is_some()), "the same frames are lost");
    // A lost frame has no delay: those that arrive get the draws in order.
    let arrived: Vec<_> = lossy.iter().flatten().copied().collect();
    let drawn: Vec<_> = plain.iter().flatten().copied().take(arrived.len()).collect();
    assert_eq!(arrived, drawn);
}

#[test]
fn another_name_seed_or_direction_is_another_cable() {
    let quality = Quality {
        rate_bits: 0,
        delay: Delay::Exponential { low: Duration::ZERO, mean: Duration::from_millis(1) },
        ..Quality::default()
    };
    let first =
        |seed, name, direction| arrival(&mut Wire::new(quality, seed, name, direction), 64, 0).unwrap();
    let all = [first(1, "a", "up"), first(2, "a", "up"), first(1, "b", "up"), first(1, "a", "down")];
    for (index, one) in all.iter().enumerate() {
        assert!(!all[index + 1..].contains(one), "{all:?}");
    }
    assert_eq!(first(1, "a", "up"), all[0]);
}
