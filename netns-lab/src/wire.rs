//! A wire in user space: two TAP devices and threads that hand frames from one to the other.
//!
//! In: frames. Out: the same frames when the simulator's [`Wire`] says, changed, doubled or not at all where it says so:
//! one cable for both, driven by virtual time there and by the machine's clock here. It is made of plain single-queue
//! devices, which is what the crate `tun-tap` gives.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use evenkeel_sim::packet::Packet;
use evenkeel_sim::wires::{Passage, Wire};
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

/// One direction, shared between the thread that drives it and the conductor, which may change it.
#[derive(Clone, Debug)]
struct Shared {
    wire: Arc<Mutex<Wire>>,
    begin: Instant,
}

impl Shared {
    fn new(wire: Wire) -> Self {
        Self { wire: Arc::new(Mutex::new(wire)), begin: Instant::now() }
    }

    /// When the frame arrives, and its copy if there is one.
    fn pass(&self, packet: &mut Packet) -> [Option<Instant>; 2] {
        let since = u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let now = evenkeel_engine::Instant::from_nanos(since);
        let mut wire = self.wire.lock().unwrap_or_else(PoisonError::into_inner);
        let real = |at: evenkeel_engine::Instant| self.begin + Duration::from_nanos(at.as_nanos());
        match wire.pass(packet, now) {
            Passage::Arrives { at, again } => [Some(real(at)), again.map(real)],
            Passage::Ended(_) => [None; 2],
        }
    }
}

/// A running wire.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    up: Shared,
    down: Shared,
}

impl Running {
    /// Changes what it does from now on.
    pub(crate) fn change(&self, plan: &WirePlan) {
        for (shared, quality) in [(&self.up, plan.up), (&self.down, plan.down)] {
            shared.wire.lock().unwrap_or_else(PoisonError::into_inner).set_quality(quality);
        }
    }
}

/// Makes the two TAP devices and starts their threads, which end with the process. The devices vanish with it as well.
/// `near` is plugged into the segment, `far` is the host's; `name` is what its random numbers go by.
///
/// # Errors
///
/// When a device can not be made or a thread not started.
pub(crate) fn start(
    [near, far]: [&str; 2],
    plan: &WirePlan,
    (seed, name): (u64, &str),
    lost: &Lost,
) -> io::Result<Running> {
    let [near, far] = [near, far].map(|name| {
        Iface::without_packet_info(name, Mode::Tap)
            .map(Arc::new)
            .map_err(|error| io::Error::new(error.kind(), format!("TAP {name}: {error}")))
    });
    let (near, far) = (near?, far?);
    let shared = |quality, direction| Shared::new(Wire::new(quality, seed, name, direction));
    let running = Running { up: shared(plan.up, "up"), down: shared(plan.down, "down") };
    start_direction(&far, &near, running.up.clone(), lost)?;
    start_direction(&near, &far, running.down.clone(), lost)?;
    Ok(running)
}

fn start_direction(from: &Arc<Iface>, to: &Arc<Iface>, shared: Shared, lost: &Lost) -> io::Result<()> {
    let (queue, frames) = sync_channel(HANDOVER_FRAMES_MAX);
    let (from, to, lost_in, lost_out) = (Arc::clone(from), Arc::clone(to), lost.clone(), lost.clone());
    thread::Builder::new()
        .name("wire-in".to_owned())
        .spawn(move || take_in(&from, &shared, &queue, &lost_in))?;
    thread::Builder::new().name("wire-out".to_owned()).spawn(move || give_out(&to, &frames, &lost_out))?;
    Ok(())
}

fn take_in(from: &Iface, shared: &Shared, queue: &SyncSender<(Instant, Vec<u8>)>, lost: &Lost) {
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    loop {
        // The device is down until its end has been moved and brought up: reading waits or is refused.
        let Ok(length) = from.recv(&mut buffer) else {
            thread::sleep(DOWN_PAUSE);
            continue;
        };
        let mut packet = Packet::copied_into(Packet::default(), buffer.get(..length).unwrap_or_default());
        let arrivals = shared.pass(&mut packet);
        if arrivals[0].is_none() {
            lost.add_one();
        }
        for due in arrivals.into_iter().flatten() {
            match queue.try_send((due, packet.bytes().to_vec())) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => lost.add_one(),
                Err(TrySendError::Disconnected(_)) => return,
            }
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

#[cfg(test)]
mod tests {
    use evenkeel_sim::wires::{Delay, Loss, Quality};

    use super::*;

    const FRAME: [u8; 64] = [0; 64];

    fn pass(shared: &Shared) -> [Option<Instant>; 2] {
        shared.pass(&mut Packet::copied_into(Packet::default(), &FRAME))
    }

    #[test]
    fn frame_arrives_no_sooner_than_its_delay() {
        let delay = Duration::from_millis(5);
        let quality = Quality { rate_bits: 0, delay: Delay::Fixed(delay), ..Quality::default() };
        let shared = Shared::new(Wire::new(quality, 1, "wire", "up"));
        let before = Instant::now();
        let [Some(at), None] = pass(&shared) else { panic!("one frame arrives") };
        assert!(at >= before + delay && at <= Instant::now() + delay);
    }

    #[test]
    fn changed_wire_does_what_it_is_told_from_then_on() {
        let shared = |direction| Shared::new(Wire::new(Quality::default(), 1, "wire", direction));
        let running = Running { up: shared("up"), down: shared("down") };
        assert!(pass(&running.up)[0].is_some());
        let all = Quality { loss: Loss::Even { millionths: 1_000_000 }, ..Quality::default() };
        running.change(&WirePlan { up: all, down: Quality::default() });
        assert!(pass(&running.up)[0].is_none());
        assert!(pass(&running.down)[0].is_some());
    }
}
