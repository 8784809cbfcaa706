//! The engine on the bench: an in-memory device, frames in at their times, frames out.

use evenkeel_engine::plan::Plan;
use evenkeel_engine::verdict::InterfaceId;
use evenkeel_engine::{DropReason, Engine, Guests, Instant, PlanError, step};

use crate::device::SimDevice;
use crate::packet::Packet;

/// Timer steps that one frame causes at most, so that a recording with a far time ends.
const TIMER_STEPS_MAX: usize = 1 << 16;

/// An engine and its device, in the recording's time.
#[derive(Debug)]
pub(super) struct Bench {
    engine: Engine,
    device: SimDevice,
    now: Instant,
}

impl Bench {
    /// An engine whose announcements have gone out already.
    ///
    /// # Errors
    /// When the engine refuses the plan.
    pub(super) fn new(plan: Plan) -> Result<Self, PlanError> {
        let engine = Engine::new(plan, Guests::default(), Instant::ZERO)?;
        let mut bench = Self { engine, device: SimDevice::default(), now: Instant::ZERO };
        bench.step(&mut Vec::new());
        Ok(bench)
    }

    /// Lets a frame come in at a time, and gives what left before and because of it.
    pub(super) fn feed(
        &mut self,
        interface: InterfaceId,
        bytes: &[u8],
        at: Instant,
    ) -> Vec<(InterfaceId, Vec<u8>)> {
        let mut out = self.pass_time(at);
        let packet = Packet::copied_into(self.device.buffer(), bytes);
        // The queue is empty between frames.
        let _ = self.device.put(interface, packet);
        self.step(&mut out);
        out
    }

    /// Lets every timer up to `at` act at its own time.
    pub(super) fn pass_time(&mut self, at: Instant) -> Vec<(InterfaceId, Vec<u8>)> {
        let mut out = Vec::new();
        for _ in 0..TIMER_STEPS_MAX {
            let Some(due) = self.engine.poll_timeout().filter(|due| *due <= at) else { break };
            self.now = self.now.max(due);
            self.step(&mut out);
        }
        self.now = self.now.max(at);
        out
    }

    /// Replaces the plan.
    ///
    /// # Errors
    /// When the engine refuses it.
    pub(super) fn apply(&mut self, plan: Plan) -> Result<(), PlanError> {
        self.engine.apply(plan, Guests::default(), self.now)?;
        self.step(&mut Vec::new());
        Ok(())
    }

    /// The engine, to look at.
    pub(super) const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What has been dropped, by reason.
    pub(super) fn drops(&self) -> Vec<(DropReason, u64)> {
        self.engine.counters().drops().filter(|(_, count)| *count > 0).collect()
    }

    fn step(&mut self, out: &mut Vec<(InterfaceId, Vec<u8>)>) {
        loop {
            step(&mut self.engine, &mut self.device, self.now);
            while let Some((interface, packet)) = self.device.take() {
                out.push((interface, packet.bytes().to_vec()));
                self.device.recycle(packet);
            }
            while self.engine.poll_event().is_some() {}
            if !self.device.has_waiting() {
                break;
            }
        }
    }
}
