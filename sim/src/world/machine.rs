//! One machine: the kernel, and what runs on it.

use evenkeel_config::setup;
use evenkeel_engine::plan::Plan;
use evenkeel_engine::{Duration, Guests, Instant};
use serde::Serialize;

use crate::forwarder::{ForwarderNode, Port};
use crate::host::Host;
use crate::kernel::plan::KernelPlan;
use crate::kernel::{Kernel, KernelDrop, KernelError, Up};
use crate::net::{Event, Net, Way, number};
use crate::packet::Packet;
use crate::scenario::{Route, Subnet};

use super::setting::{Told, prefix};

/// What runs on a machine.
#[allow(clippy::large_enum_variant, reason = "nearly every machine is a host")]
pub(crate) enum Role {
    Host(Host),
    Router,
    Forwarder(Box<ForwarderNode>),
}

/// What a forwarder's machine did around the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KernelCounts {
    /// Packets that went into a TUN.
    pub into_tun: u64,
    /// Packets that came out of a TUN.
    pub out_of_tun: u64,
    /// Frames that the engine took from a wire itself.
    pub into_engine: u64,
    /// Frames that the engine put on a wire itself.
    pub out_of_engine: u64,
    /// Packets to the machine itself.
    pub local: u64,
    /// Packets that found the engine's queue full.
    pub queue_full: u64,
}

/// A machine.
pub(crate) struct Machine {
    number: usize,
    pub(crate) kernel: Kernel,
    /// What the scenario told the kernel, without what an engine's plan adds.
    told: Told,
    pub(crate) role: Role,
    is_up: bool,
    /// When the pending timer event of the kernel is due.
    kernel_timer: Instant,
    /// The segment of each interface.
    segments: Vec<usize>,
    /// Whether the engine owns the interface, up to the last one that it owns.
    is_engines: Vec<bool>,
    pub(crate) counts: KernelCounts,
}

impl Machine {
    pub(super) fn new(
        number: usize,
        seed: u64,
        (told, plan): (Told, &KernelPlan),
        segments: Vec<usize>,
        role: Role,
    ) -> Result<Self, KernelError> {
        let mut is_engines: Vec<bool> = (0..segments.len()).map(|interface| owns(&role, interface)).collect();
        is_engines.truncate(is_engines.iter().rposition(|is_engines| *is_engines).map_or(0, |last| last + 1));
        Ok(Self {
            number,
            kernel: Kernel::new(plan, seed)?,
            told,
            role,
            is_up: true,
            kernel_timer: Instant::NEVER,
            segments,
            is_engines,
            counts: KernelCounts::default(),
        })
    }

    // Commands.

    /// Says that it is there: gratuitous ARP.
    pub(super) fn start(&mut self, net: &mut Net) {
        self.kernel.start(net.now, &mut net.out);
        if let Role::Forwarder(forwarder) = &mut self.role {
            forwarder.engine.announce();
            self.step(net);
        }
        self.settle(net);
    }

    /// Somebody wants to know what becomes of packets here.
    pub(super) fn watch(&mut self) {
        if let Role::Forwarder(forwarder) = &mut self.role {
            forwarder.watch();
        }
    }

    /// A frame has come in.
    #[inline]
    pub(super) fn receive(&mut self, net: &mut Net, interface: usize, frame: Packet) {
        if net.watch.as_ref().is_some_and(|watch| watch.is_curious()) {
            return self.receive_watched(net, interface, frame);
        }
        self.take_in(net, interface, frame);
    }

    /// The same, and tells what the kernel has dropped because of it.
    fn receive_watched(&mut self, net: &mut Net, interface: usize, frame: Packet) {
        let (id, bytes) = (frame.id, frame.bytes().to_vec());
        let before: Vec<u64> = self.kernel.drops().map(|(_, count)| count).collect();
        self.take_in(net, interface, frame);
        let after = self.kernel.drops().zip(before).filter(|((_, after), before)| after > before);
        let reasons: Vec<&str> = after.map(|((reason, _), _)| reason.name()).collect();
        if let Some(watch) = &mut net.watch {
            if !self.is_up {
                watch.kernel(net.now, self.number, (id, &bytes), "no power: the frame ends here");
            }
            for reason in reasons {
                watch.kernel(net.now, self.number, (id, &bytes), &format!("the kernel drops: {reason}"));
            }
        }
    }

    #[inline(always)]
    fn take_in(&mut self, net: &mut Net, interface: usize, frame: Packet) {
        if !self.is_up {
            net.into_the_dark += 1;
            return net.recycle(frame);
        }
        if self.is_engines.get(interface) == Some(&true) {
            self.counts.into_engine += 1;
            return self.hand_to_engine(net, Port::Ethernet(interface), frame);
        }
        let up = self.kernel.receive(net.now, interface, frame, &mut net.out);
        self.take_up(net, up);
        self.settle(net);
    }

    /// A timer of the kernel is due.
    pub(super) fn kernel_timeout(&mut self, net: &mut Net) {
        if net.now < self.kernel_timer {
            return;
        }
        self.kernel_timer = Instant::NEVER;
        if self.is_up {
            self.kernel.timeout(net.now, &mut net.out);
        }
        self.settle(net);
    }

    /// The loop of the forwarder runs until nothing waits for it.
    pub(super) fn step(&mut self, net: &mut Net) {
        if !self.is_up {
            return;
        }
        loop {
            let Role::Forwarder(forwarder) = &mut self.role else { return };
            let goes_on = forwarder.turn(net.now);
            if let Some(watch) = &mut net.watch {
                for decided in forwarder.take_decided() {
                    watch.decided(net.now, self.number, &decided, &forwarder.engine);
                }
            }
            while let Some(probe) = forwarder.poll_probe(net.now) {
                net.ask(self.number, probe);
            }
            while let Some(check) = forwarder.poll_agent_check(net.now) {
                net.ask_agent(self.number, check);
            }
            while let Some((port, packet)) = self.take_from_engine() {
                self.hand_to_kernel(net, port, packet);
            }
            if !goes_on {
                break;
            }
        }
        self.arm_engine(net);
        self.settle(net);
    }

    /// The engine's timer is due.
    pub(super) fn engine_timeout(&mut self, net: &mut Net) {
        let Role::Forwarder(forwarder) = &mut self.role else { return };
        if net.now >= forwarder.timer {
            forwarder.timer = Instant::NEVER;
            self.step(net);
        }
    }

    /// Lets the programs of a host act, where it has power.
    pub(super) fn with_host<T>(
        &mut self,
        net: &mut Net,
        act: impl FnOnce(&mut Host, &mut Way<'_>) -> T,
    ) -> Option<T> {
        let Role::Host(host) = &mut self.role else { return None };
        if !self.is_up {
            return None;
        }
        let result = act(host, &mut Way { net, kernel: &mut self.kernel, machine: self.number });
        self.settle(net);
        Some(result)
    }

    /// Lets something be done to a forwarder that has power, and its loop look at it.
    pub(super) fn with_forwarder<T>(
        &mut self,
        net: &mut Net,
        act: impl FnOnce(&mut ForwarderNode, Instant) -> T,
    ) -> Option<T> {
        let Role::Forwarder(forwarder) = &mut self.role else { return None };
        if !self.is_up {
            return None;
        }
        let result = act(forwarder, net.now);
        self.step(net);
        Some(result)
    }

    /// Loses power.
    pub(super) fn stop(&mut self, net: &mut Net) {
        if !std::mem::replace(&mut self.is_up, false) {
            return;
        }
        match &mut self.role {
            Role::Host(host) => host.stop(net.now),
            Role::Router => {}
            Role::Forwarder(forwarder) => forwarder.stop(),
        }
    }

    /// Gets power again. A forwarder begins with an empty flow table, by the plan that it last had.
    pub(super) fn power_up(&mut self, net: &mut Net, guests: Option<Guests>) {
        if std::mem::replace(&mut self.is_up, true) {
            return;
        }
        self.kernel.restart(&mut net.out);
        if let Role::Forwarder(forwarder) = &mut self.role {
            forwarder.restart(guests.unwrap_or_default(), net.now);
        }
        self.start(net);
    }

    /// Goes on by another plan.
    pub(super) fn reload(&mut self, net: &mut Net, plan: Plan, guests: Guests) {
        let Role::Forwarder(forwarder) = &mut self.role else { return };
        let plan = match setup::spread(&plan) {
            Ok(mut plan) => {
                self.told.claim_stations(&mut plan);
                plan
            }
            Err(reason) => return forwarder.tell(format!("reload: {reason}")),
        };
        match self.told.ports(&plan) {
            Ok(ports) => {
                let changed = self.told.with(&plan);
                forwarder.reload(plan, guests, ports, net.now);
                if let Err(error) = self.kernel.reconfigure(&changed) {
                    forwarder.tell(format!("reload: {error}"));
                }
            }
            Err(interface) => forwarder.tell(format!("reload: there is no interface {interface}")),
        }
        self.step(net);
    }

    /// The link of an interface is gone or back.
    pub(super) fn set_link(&mut self, net: &mut Net, segment: usize, is_up: bool) {
        for (interface, own) in self.segments.iter().enumerate() {
            if *own == segment {
                // An engine's interface is not the kernel's, and every other one is there.
                let _ = self.kernel.set_carrier(net.now, interface, is_up, &mut net.out);
            }
        }
        self.settle(net);
    }

    pub(super) fn set_route(&mut self, route: &Route) {
        // A router that is on no link of the machine is refused when the scenario is read.
        let _ = self.kernel.set_route(&self.told.route(route));
    }

    pub(super) fn delete_route(&mut self, to: Subnet, table: u32) {
        // As with `ip route del`, one that is not there can not be deleted, and nothing has changed.
        let _ = self.kernel.remove_route(table, prefix(to), None);
    }

    /// The clock of the forwarder jumps ahead.
    pub(super) fn jump(&mut self, net: &mut Net, by: Duration) {
        if let Role::Forwarder(forwarder) = &mut self.role {
            forwarder.ahead += by;
            forwarder.timer = Instant::NEVER;
        }
        self.step(net);
    }

    // Between kernel, engine and programs.

    #[inline(always)]
    fn take_up(&mut self, net: &mut Net, up: Option<Up>) {
        match up {
            None => {}
            Some(Up::Host(packet)) => {
                self.counts.local += 1;
                match &mut self.role {
                    Role::Host(host) => {
                        host.receive(
                            &mut Way { net, kernel: &mut self.kernel, machine: self.number },
                            packet,
                        );
                    }
                    Role::Router | Role::Forwarder(_) => net.recycle(packet),
                }
            }
            Some(Up::Tun(tun, packet)) => {
                self.counts.into_tun += 1;
                self.hand_to_engine(net, Port::Tun(tun), packet);
            }
            Some(Up::Wire(interface, frame)) => net.send(self.number, interface, frame),
        }
    }

    #[inline]
    fn hand_to_engine(&mut self, net: &mut Net, port: Port, packet: Packet) {
        let Role::Forwarder(forwarder) = &mut self.role else { return net.recycle(packet) };
        let Some(interface) = forwarder.interface_at(port) else { return net.recycle(packet) };
        let (refused, wakes) = forwarder.put(interface, packet);
        if let Some(packet) = refused {
            net.recycle(packet);
        }
        if wakes {
            net.schedule(net.now, Event::Step { machine: number(self.number) });
        }
    }

    fn take_from_engine(&mut self) -> Option<(Port, Packet)> {
        let Role::Forwarder(forwarder) = &mut self.role else { return None };
        forwarder.take()
    }

    fn hand_to_kernel(&mut self, net: &mut Net, port: Port, packet: Packet) {
        match port {
            Port::Tun(tun) => {
                self.counts.out_of_tun += 1;
                let up = self.kernel.receive_from_tun(net.now, tun, packet, &mut net.out);
                net.flush(self.number);
                self.take_up(net, up);
            }
            Port::Ethernet(interface) => {
                self.counts.out_of_engine += 1;
                net.send(self.number, interface, packet);
            }
        }
    }

    /// What the kernel has put out goes its way, and its timer is set.
    #[inline(always)]
    fn settle(&mut self, net: &mut Net) {
        net.flush(self.number);
        if self.is_up && (net.out.has_up() || self.kernel.deadline() < self.kernel_timer) {
            self.settle_further(net);
        }
    }

    #[inline(never)]
    fn settle_further(&mut self, net: &mut Net) {
        // What programs say to their own machine comes back up; each answer may be followed by another.
        while let Some(up) = net.out.take_up() {
            self.take_up(net, Some(up));
            net.flush(self.number);
        }
        let due = self.kernel.deadline();
        if due < self.kernel_timer {
            self.kernel_timer = due;
            net.schedule(due, Event::Kernel { machine: number(self.number) });
        }
    }

    fn arm_engine(&mut self, net: &mut Net) {
        let Role::Forwarder(forwarder) = &mut self.role else { return };
        if let Some(due) = forwarder.next_timer() {
            net.schedule(due, Event::EngineTimer { machine: number(self.number) });
        }
    }

    // Questions.

    /// Packets that the kernel dropped, by reason.
    pub(crate) fn kernel_drops(&self) -> impl Iterator<Item = (KernelDrop, u64)> + '_ {
        self.kernel.drops()
    }

    /// Whether nothing waits on this machine.
    pub(super) fn is_idle(&self) -> bool {
        match &self.role {
            Role::Forwarder(forwarder) => forwarder.is_idle(),
            Role::Host(_) | Role::Router => true,
        }
    }

    pub(super) const fn is_up(&self) -> bool {
        self.is_up
    }
}

fn owns(role: &Role, interface: usize) -> bool {
    match role {
        Role::Forwarder(forwarder) => forwarder.interface_at(Port::Ethernet(interface)).is_some(),
        Role::Host(_) | Role::Router => false,
    }
}
