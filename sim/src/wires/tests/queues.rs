//! Rates and queues.

use evenkeel_engine::Duration;

use super::*;
use crate::random::Stream;
use crate::wires::red::{self, RedState};

fn quality(rate_bits: u64, queue: Discipline) -> Quality {
    Quality { rate_bits, queue, delay: Delay::Fixed(Duration::from_micros(10)), ..Quality::default() }
}

#[test]
fn frames_wait_for_each_other_and_the_last_one_finds_the_queue_full() {
    // 1,000 bytes at 1 Gbit/s take 8 us.
    let mut wire = Wire::new(quality(1_000_000_000, Discipline::Packets { limit: 3 }), 1, "a", "up");
    assert_eq!(arrival(&mut wire, 1_000, 0), Ok(18_000));
    assert_eq!(arrival(&mut wire, 1_000, 0), Ok(26_000));
    assert_eq!(arrival(&mut wire, 1_000, 0), Ok(34_000));
    assert_eq!(arrival(&mut wire, 1_000, 0), Ok(42_000));
    assert_eq!(wire.queue(at(0)), (3, 3_000));
    assert_eq!(arrival(&mut wire, 1_000, 0), Err(WireDrop::QueueFull), "one is sent, three wait");
    assert_eq!(wire.queue(at(8_000)), (2, 2_000));
    assert_eq!(arrival(&mut wire, 1_000, 8_000), Ok(50_000), "one has left");
    assert_eq!(arrival(&mut wire, 1_000, 1_000_000), Ok(1_018_000));
    assert_eq!(wire.queue(at(1_000_000)), (0, 0));
    assert_eq!(wire.counts().queue_full, 1);
    assert_eq!(wire.counts().passed_bytes, 6_000);
    assert_conserved(&wire, 7);
}

#[test]
fn a_queue_of_bytes_takes_what_fits() {
    let mut wire = Wire::new(quality(1_000_000_000, Discipline::Bytes { limit: 2_500 }), 1, "a", "up");
    assert!(arrival(&mut wire, 1_500, 0).is_ok(), "is sent");
    assert!(arrival(&mut wire, 1_500, 0).is_ok());
    assert_eq!(arrival(&mut wire, 1_500, 0), Err(WireDrop::QueueFull));
    assert!(arrival(&mut wire, 1_000, 0).is_ok(), "a smaller one fits");
    assert_eq!(arrival(&mut wire, 60, 0), Err(WireDrop::QueueFull));
    assert_eq!(wire.queue(at(0)), (2, 2_500));
}

#[test]
fn without_a_rate_nothing_waits() {
    let mut wire = Wire::new(quality(0, Discipline::Packets { limit: 0 }), 1, "a", "up");
    for _ in 0..10 {
        assert_eq!(arrival(&mut wire, 1_500, 0), Ok(10_000));
    }
    assert_eq!(wire.queue(at(0)), (0, 0));
}

#[test]
fn serialisation_loses_no_picosecond() {
    // At 3 Gbit/s a byte takes 2,666.67 ps: what is cut off is less than a picosecond a frame, however many there are.
    for (rate, bytes) in
        [(3_000_000_000_u64, 64_usize), (7, 1_500), (1_000_003, 999), (40_000_000_000, 1_518)]
    {
        let mut wire = Wire::new(quality(rate, Discipline::Packets { limit: u32::MAX }), 1, "a", "up");
        let mut last = 0;
        let frames = 1_000_u128;
        for _ in 0..frames {
            last = arrival(&mut wire, bytes, 0).unwrap();
        }
        let exact_ps = frames * u128::try_from(bytes).unwrap() * 8_000_000_000_000 / u128::from(rate);
        let arrived_ps = u128::from(last - 10_000) * 1_000;
        assert!(arrived_ps + frames >= exact_ps, "{rate}: {arrived_ps} before {exact_ps}");
        assert!(arrived_ps < exact_ps + 1_000, "{rate}: rounded once, up to the next nanosecond");
    }
}

#[test]
fn the_gap_between_frames_counts_where_it_is_asked_for() {
    // The shortest frame of 10 Gbit Ethernet: 14.88 million a second.
    let mut wire = Wire::new(
        Quality { overhead_bytes: 24, ..quality(10_000_000_000, Discipline::Packets { limit: 9 }) },
        1,
        "a",
        "",
    );
    assert_eq!(arrival(&mut wire, 60, 0), Ok(10_068), "67.2 ns");
    assert_eq!(arrival(&mut wire, 60, 0), Ok(10_135), "134.4 ns");
}

#[test]
fn a_changed_rate_holds_for_the_next_frame() {
    let mut wire = Wire::new(quality(1_000_000_000, Discipline::Packets { limit: 9 }), 1, "a", "up");
    assert_eq!(arrival(&mut wire, 1_000, 0), Ok(18_000));
    wire.set_quality(quality(100_000_000, Discipline::Packets { limit: 9 }));
    assert_eq!(wire.quality().rate_bits, 100_000_000);
    assert_eq!(arrival(&mut wire, 1_000, 0), Ok(98_000));
}

#[test]
fn a_frame_may_be_as_long_as_the_mtu_besides_its_header_and_tags() {
    let mut wire = Wire::new(Quality { mtu_bytes: 1_500, ..Quality::default() }, 1, "a", "up");
    assert!(arrival(&mut wire, 1_514, 0).is_ok());
    assert_eq!(arrival(&mut wire, 1_515, 0), Err(WireDrop::TooLong));
    let mut tagged = frame_of(1_514);
    frame::push_tag(&mut tagged, 5);
    assert!(matches!(wire.pass(&mut tagged, at(0)), Passage::Arrives { .. }));
    let mut tagged = frame_of(1_515);
    frame::push_tag(&mut tagged, 5);
    assert_eq!(wire.pass(&mut tagged, at(0)), Passage::Ended(WireDrop::TooLong));
    assert_conserved(&wire, 4);
}

#[test]
fn a_cut_cable_takes_nothing() {
    let mut wire = Wire::new(Quality::default(), 1, "a", "up");
    wire.set_up(false);
    assert!(!wire.is_up());
    assert_eq!(arrival(&mut wire, 100, 0), Err(WireDrop::Down));
    wire.set_up(true);
    assert!(arrival(&mut wire, 100, 0).is_ok());
    assert_conserved(&wire, 2);
}

const RED: Red = Red {
    low: 5,
    high: 15,
    limit: 1_000,
    share_millionths: 100_000,
    weight_millionths: 1_000_000,
    marks: false,
};

#[test]
fn the_average_of_red_follows_its_formula() {
    let plan = Red { weight_millionths: 2_000, ..RED };
    let (mut state, mut stream) = (RedState::default(), Stream::new(1, "a", "red"));
    let mut expected = 0.0_f64;
    for queue in (0..200).chain((0..200).rev()) {
        state.picks(&plan, queue, 0, &mut stream);
        expected = expected.mul_add(0.998, 0.002 * f64::from(u32::try_from(queue).unwrap()));
        assert!((state.average() - expected).abs() < 1e-9);
    }
    // Idle for 1,000 frames: (1 - w)^1000 of it is left, and a sample of zero comes in.
    state.picks(&plan, 0, 1_000, &mut stream);
    assert!((state.average() - expected * 0.998_f64.powi(1_001)).abs() < 1e-9);
    // 1,000 bytes at 8 Gbit/s take 1 us.
    assert_eq!(red::idle_frames(5_500_000, 8_000_000_000), 5);
}

#[test]
fn red_picks_evenly_spaced_frames_at_its_share() {
    // Halfway, the base probability is 5 %: the gaps between picked frames are even from 1 to 20 (section 7 of the paper),
    // which makes 10.5 on average.
    let (mut state, mut stream) = (RedState::default(), Stream::new(1, "a", "red"));
    let mut gaps = Vec::new();
    let mut gap = 0_u32;
    for _ in 0..200_000 {
        gap += 1;
        if state.picks(&RED, 10, 0, &mut stream) {
            gaps.push(gap);
            gap = 0;
        }
    }
    assert!(gaps.iter().all(|gap| (1..=20).contains(gap)));
    let mean = f64::from(gaps.iter().sum::<u32>()) / f64::from(u32::try_from(gaps.len()).unwrap());
    assert!((10.3..10.7).contains(&mean), "{mean}");
    for length in 1..=20 {
        let count = gaps.iter().filter(|gap| **gap == length).count();
        let expected = gaps.len() / 20;
        assert!(count.abs_diff(expected) < expected / 5, "{length}: {count} of {expected}");
    }
    assert!((0..100).all(|_| !state.picks(&RED, 4, 0, &mut stream)), "none below");
    assert!((0..100).all(|_| state.picks(&RED, 15, 0, &mut stream)), "all above");
}

#[test]
fn red_marks_what_can_be_marked_and_drops_the_rest() {
    let red = Red { low: 1, high: 2, marks: true, ..RED };
    for is_v4 in [true, false] {
        for (traffic, marked) in [(0, None), (1, Some(3)), (2, Some(3)), (3, Some(3)), (0xb9, Some(0xbb))] {
            let mut wire = Wire::new(quality(1_000_000, Discipline::Red(red)), 1, "a", "up");
            for _ in 0..4 {
                wire.pass(&mut frame_of(100), at(0));
            }
            let mut packet = datagram(is_v4, traffic);
            let passage = wire.pass(&mut packet, at(0));
            let Some(marked) = marked else {
                assert_eq!(passage, Passage::Ended(WireDrop::Early));
                continue;
            };
            assert!(matches!(passage, Passage::Arrives { .. }));
            assert_eq!(
                packet.bytes(),
                datagram(is_v4, marked).bytes(),
                "all else stays, and the checksum is right"
            );
            assert_eq!(wire.counts().marked, 1);
        }
    }
}

#[test]
fn a_red_queue_has_an_end() {
    let red = Red { low: 500, high: 600, limit: 3, ..RED };
    let mut wire = Wire::new(quality(1_000_000, Discipline::Red(red)), 1, "a", "up");
    let ends: Vec<_> = (0..6).map(|_| arrival(&mut wire, 100, 0).is_ok()).collect();
    assert_eq!(ends, [true, true, true, true, false, false]);
    assert_eq!(wire.counts().queue_full, 2);
    assert_eq!(wire.counts().queue_max, 4, "with the one that is being sent");
}
