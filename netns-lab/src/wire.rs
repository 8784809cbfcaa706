//! A wire in user space: two TAP devices and threads that hand frames from one to the other, late or not
//! at all.
//!
//! In: frames. Out: the same frames after their delay, without the lost ones. Never changes a frame. It is
//! made of plain single-queue devices, which is what the crate `tun-tap` gives.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use evenkeel_sim::random::Stream;
use tun_tap::{Iface, Mode};

use crate::orders::WirePlan;

/// Frames between the two threads of one direction; more are lost, as on a full queue.
const HANDOVER_FRAMES_MAX: usize = 1_024;

/// Frames under way in one direction: 65,536 full frames are about 100 MB, or 0.8 s of a gigabit.
const UNDER_WAY_FRAMES_MAX: usize = 65_536;

/// Room for one frame of the largest MTU that a TAP has.
const FRAME_BYTES_MAX: usize = 65_554;

/// Pause before a device that is not up yet is looked at again.
const DOWN_PAUSE: Duration = Duration::from_millis(1);

/// Frames that all wires of a run lost.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lost(Arc<AtomicU64>);

impl Lost {
    /// How many up to now.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Makes the two TAP devices and starts their threads, which end with the process. The devices vanish
/// with it as well.
///
/// # Errors
///
/// When a device can not be made or a thread not started.
pub(crate) fn start(ends: [&str; 2], plan: WirePlan, seed: u64, lost: &Lost) -> io::Result<()> {
    let [near, far] = ends.map(|name| {
        Iface::without_packet_info(name, Mode::Tap)
            .map(Arc::new)
            .map_err(|error| io::Error::new(error.kind(), format!("TAP {name}: {error}")))
    });
    let (near, far) = (near?, far?);
    start_direction(&near, &far, plan, Stream::new(seed, ends[0], "frames in"), lost)?;
    start_direction(&far, &near, plan, Stream::new(seed, ends[0], "frames out"), lost)
}

fn start_direction(
    from: &Arc<Iface>,
    to: &Arc<Iface>,
    plan: WirePlan,
    random: Stream,
    lost: &Lost,
) -> io::Result<()> {
    let (queue, frames) = sync_channel(HANDOVER_FRAMES_MAX);
    let (from, to, lost_in, lost_out) = (Arc::clone(from), Arc::clone(to), lost.clone(), lost.clone());
    let fate = Fate { plan, random, free_at: Instant::now() };
    thread::Builder::new()
        .name("wire-in".to_owned())
        .spawn(move || take_in(&from, fate, &queue, &lost_in))?;
    thread::Builder::new().name("wire-out".to_owned()).spawn(move || give_out(&to, &frames, &lost_out))?;
    Ok(())
}

fn take_in(from: &Iface, mut fate: Fate, queue: &SyncSender<(Instant, Vec<u8>)>, lost: &Lost) {
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    loop {
        // The device is down until its end has been moved and brought up: reading waits or is refused.
        let Ok(length) = from.recv(&mut buffer) else {
            thread::sleep(DOWN_PAUSE);
            continue;
        };
        let frame = buffer.get(..length).unwrap_or_default();
        let Some(due) = fate.draw(Instant::now(), frame.len()) else {
            lost.add_one();
            continue;
        };
        match queue.try_send((due, frame.to_vec())) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => lost.add_one(),
            Err(TrySendError::Disconnected(_)) => return,
        }
    }
}

/// Sends each frame when it is due; frames that are due at the same time in their order.
fn give_out(to: &Iface, frames: &Receiver<(Instant, Vec<u8>)>, lost: &Lost) {
    let mut under_way = BinaryHeap::new();
    let mut sequence = 0_u64;
    loop {
        let pause = match under_way.peek() {
            Some(Reverse((due, _, _))) => Instant::saturating_duration_since(due, Instant::now()),
            None => Duration::from_secs(1),
        };
        match frames.recv_timeout(pause) {
            Ok((due, frame)) if under_way.len() < UNDER_WAY_FRAMES_MAX => {
                under_way.push(Reverse((due, sequence, frame)));
                sequence += 1;
            }
            Ok(_) => lost.add_one(),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while let Some(Reverse((due, _, _))) = under_way.peek()
            && *due <= Instant::now()
        {
            // A device that is down loses the frame, as a cable without a card behind it does.
            if let Some(Reverse((_, _, frame))) = under_way.pop() {
                let _ = to.send(&frame);
            }
        }
    }
}

/// What happens to each frame of one direction.
#[derive(Debug)]
struct Fate {
    plan: WirePlan,
    random: Stream,
    /// When the limited rate has sent everything that came before.
    free_at: Instant,
}

impl Fate {
    /// When the next frame arrives; `None` when it is lost.
    fn draw(&mut self, now: Instant, bytes: usize) -> Option<Instant> {
        if self.random.happens(self.plan.loss_ppm) {
            return None;
        }
        let jitter = self.random.below(self.plan.jitter_ns.saturating_add(1));
        let sent = self.send_time(now, bytes)?;
        Some(sent + Duration::from_nanos(self.plan.delay_ns.saturating_add(jitter)))
    }

    /// When the frame has left at the limited rate; `None` when the queue before it is full.
    fn send_time(&mut self, now: Instant, bytes: usize) -> Option<Instant> {
        if self.plan.rate_bits == 0 {
            return Some(now);
        }
        let bits = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(8);
        let nanoseconds = u128::from(bits) * 1_000_000_000 / u128::from(self.plan.rate_bits);
        let one_frame = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        // Waiting frames are counted in frames of this size: nobody keeps the sizes of those before.
        if self.free_at.saturating_duration_since(now) > one_frame.saturating_mul(self.plan.queue_frames) {
            return None;
        }
        self.free_at = self.free_at.max(now) + one_frame;
        Some(self.free_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: WirePlan =
        WirePlan { delay_ns: 5_000, jitter_ns: 0, rate_bits: 0, loss_ppm: 0, queue_frames: 10 };

    fn fate(plan: WirePlan, free_at: Instant) -> Fate {
        Fate { plan, random: Stream::new(1, "wire", "test"), free_at }
    }

    #[test]
    fn wire_loses_its_share_and_delays_within_its_bounds() {
        let now = Instant::now();
        let plan = WirePlan { jitter_ns: 2_000, loss_ppm: 100_000, ..PLAIN };
        let mut fate = fate(plan, now);
        let delays: Vec<_> = (0..100_000).filter_map(|_| fate.draw(now, 64)).map(|due| due - now).collect();
        // 10 % of 100,000 with a standard deviation of 95: five of them are 474.
        assert!((89_526..=90_474).contains(&delays.len()), "{} frames arrived", delays.len());
        assert!(delays.iter().all(|delay| (5_000..=7_000).contains(&delay.as_nanos())));
    }

    #[test]
    fn wire_without_loss_loses_nothing() {
        let now = Instant::now();
        let mut fate = fate(PLAIN, now);
        assert!((0..1_000).all(|_| fate.draw(now, 1_500) == Some(now + Duration::from_micros(5))));
    }

    #[test]
    fn limited_rate_spaces_frames_and_drops_what_finds_the_queue_full() {
        let now = Instant::now();
        // 1,000 bytes take 1 ms.
        let plan = WirePlan { rate_bits: 8_000_000, delay_ns: 0, ..PLAIN };
        let mut fate = fate(plan, now);
        let times: Vec<_> = (0..20).map_while(|_| fate.draw(now, 1_000)).map(|due| due - now).collect();
        assert_eq!(times.len(), 11, "one frame is being sent and ten wait");
        assert!(times.iter().enumerate().all(|(i, time)| time.as_millis() == i as u128 + 1));
    }
}
