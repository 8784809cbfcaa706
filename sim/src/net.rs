//! Everything between the machines: cables, switches, time, and what is due.
//!
//! A frame takes one hop for each cable; each hop is one event, and when a frame will arrive is known as soon as it is
//! sent. [`Way`] is how a machine's programs reach their kernel and the net behind it.

use std::net::IpAddr;

use evenkeel_engine::Instant;
use slab::Slab;

use crate::capture::Way as Direction;
use crate::checker::Checker;
use crate::kernel::{Kernel, Out, Up};
use crate::packet::Packet;
use crate::queue::{AnyQueue, EventQueue};
use crate::trace::Trace;
use crate::watch::{FrameSeen, Watch};
use crate::wires::{Exit, Passage, Switch, Wire};
use crate::world::Flying;

/// Something that is due. Twenty-four bytes, since many wait: machines and connections are numbered in 32 bits.
#[derive(Debug)]
pub(crate) struct Due {
    pub(crate) event: Event,
    /// What has arrived, where something has.
    pub(crate) frame: Option<Packet>,
}

/// What has come out of the queue.
pub(crate) enum Next {
    /// A frame has reached this end of a cable.
    Arrival(Plug, Packet),
    /// Something else is due.
    Other(Event),
}

/// What is due.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    /// A frame has reached the other end of its cable.
    Arrive { at: Plug },
    /// A load opens a flow.
    Open { load: u32 },
    /// A closed loop opens the next flow.
    Reopen { load: u32 },
    /// A timer of a connection of a host.
    Timer { machine: u32, connection: u32, generation: u32 },
    /// Requests on a host may have been worked on.
    Work { machine: u32, generation: u32 },
    /// A timer of a machine's kernel.
    Kernel { machine: u32 },
    /// A forwarder has packets to look at.
    Step { machine: u32 },
    /// A timer of a forwarder's engine.
    EngineTimer { machine: u32 },
    /// Something of the timeline happens.
    Happen { happening: u32 },
    /// What has happened for a while is over.
    Over { undoing: u32 },
    /// A scheduler's question, or its answer, has arrived.
    Probe { number: u32 },
}

/// The short form of an index. Nothing that is counted here reaches 2^32 before memory ends.
pub(crate) fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// The index of a short form.
pub(crate) fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// What a cable is plugged into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Socket {
    /// An interface of a machine.
    Machine { machine: usize, interface: usize },
    /// A port of a switch.
    Switch { switch: usize, port: usize },
}

/// Two wires, one for each direction.
#[derive(Debug)]
pub(crate) struct Cable {
    /// The segment that it belongs to.
    pub(crate) segment: usize,
    pub(crate) ends: [Socket; 2],
    /// The first carries frames from the first end.
    pub(crate) wires: [Wire; 2],
}

/// One end of a cable: twice the number of the cable, and one more where it is the second end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plug(u32);

impl Plug {
    fn new(cable: usize, is_second: bool) -> Self {
        Self(number(cable) << 1 | u32::from(is_second))
    }

    pub(crate) fn cable(self) -> usize {
        index(self.0 >> 1)
    }

    const fn is_second(self) -> bool {
        self.0 & 1 == 1
    }

    /// The other end of its cable.
    const fn other(self) -> Self {
        Self(self.0 ^ 1)
    }
}

/// The cable of each interface of each machine, in one row: those of the first machine, then those of the second.
#[derive(Debug, Default)]
struct Plugs {
    /// Where those of each machine begin.
    starts: Vec<u32>,
    plugs: Vec<Option<Plug>>,
}

impl Plugs {
    #[inline]
    fn get(&self, machine: usize, interface: usize) -> Option<Plug> {
        let start = index(*self.starts.get(machine)?);
        let end = self.starts.get(machine + 1).map_or(self.plugs.len(), |end| index(*end));
        *self.plugs.get(start..end)?.get(interface)?
    }

    fn put(&mut self, machine: usize, interface: usize, plug: Plug) {
        while self.starts.len() <= machine {
            self.starts.push(number(self.plugs.len()));
        }
        let start = self.starts.get(machine).map_or(0, |start| index(*start));
        let end = self.starts.get(machine + 1).map_or(self.plugs.len(), |end| index(*end));
        let missing = (interface + 1).saturating_sub(end - start);
        self.plugs.splice(end..end, std::iter::repeat_n(None, missing));
        self.starts.iter_mut().skip(machine + 1).for_each(|start| *start += number(missing));
        if let Some(place) = self.plugs.get_mut(start + interface) {
            *place = Some(plug);
        }
    }
}

/// Time, what is due, and everything between the machines.
pub(crate) struct Net {
    pub(crate) now: Instant,
    queue: AnyQueue<Due>,
    pub(crate) cables: Vec<Cable>,
    pub(crate) switches: Vec<Switch>,
    /// The cable of each port of each switch.
    switch_plugs: Vec<Vec<Plug>>,
    /// The cable of each interface of each machine.
    machine_plugs: Plugs,
    /// Frames that are under way.
    under_way: usize,
    /// Schedulers' questions to servers that are under way.
    pub(crate) probes: Slab<Flying>,
    /// What kernels send, and buffers for later.
    pub(crate) out: Out,
    exits: Vec<Exit>,
    /// Who looks at the run, where somebody does.
    pub(crate) watch: Option<Box<Watch>>,
    /// Judges from outside, where somebody wants to know.
    pub(crate) checker: Option<Box<Checker>>,
    /// Frames that machines sent, that arrived at a machine, and that arrived at one without power.
    pub(crate) sent: u64,
    pub(crate) arrived: u64,
    /// Copies that switches and cables made.
    pub(crate) copied: u64,
    pub(crate) into_the_dark: u64,
    pub(crate) unplugged: u64,
    pub(crate) events: u64,
    pub(crate) wire_trace: Trace,
    pub(crate) decision_trace: Trace,
    pub(crate) answer_trace: Trace,
    /// Packets that were sent for the first time.
    packets: u64,
}

impl Net {
    pub(crate) fn new(queue: AnyQueue<Due>) -> Self {
        Self {
            now: Instant::ZERO,
            queue,
            cables: Vec::new(),
            switches: Vec::new(),
            switch_plugs: Vec::new(),
            machine_plugs: Plugs::default(),
            under_way: 0,
            probes: Slab::new(),
            out: Out::default(),
            exits: Vec::new(),
            watch: None,
            checker: None,
            sent: 0,
            arrived: 0,
            copied: 0,
            into_the_dark: 0,
            unplugged: 0,
            events: 0,
            wire_trace: Trace::default(),
            decision_trace: Trace::default(),
            answer_trace: Trace::default(),
            packets: 0,
        }
    }

    /// Adds a switch and gives its number.
    pub(crate) fn add_switch(&mut self, switch: Switch) -> usize {
        self.switches.push(switch);
        self.switch_plugs.push(Vec::new());
        self.switches.len() - 1
    }

    /// Adds a cable. `wires` are those from its first and from its second end.
    pub(crate) fn add_cable(&mut self, segment: usize, ends: [Socket; 2], wires: [Wire; 2]) {
        let cable = self.cables.len();
        for (end, is_second) in ends.iter().zip([false, true]) {
            let plug = Plug::new(cable, is_second);
            match *end {
                Socket::Machine { machine, interface } => self.machine_plugs.put(machine, interface, plug),
                Socket::Switch { switch, port } => {
                    // Ports are given out in order.
                    if let Some(plugs) = self.switch_plugs.get_mut(switch).filter(|plugs| plugs.len() == port)
                    {
                        plugs.push(plug);
                    }
                }
            }
        }
        self.cables.push(Cable { segment, ends, wires });
    }

    /// Lets an event be due at `at`.
    pub(crate) fn schedule(&mut self, at: Instant, event: Event) {
        self.queue.push_made(at, || Due { event, frame: None });
    }

    /// What is next; the clock goes on to it.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Option<Next> {
        let (now, place) = self.queue.pop_place()?;
        self.now = now;
        self.events += 1;
        // Only what is needed is read: an event that is moved as a whole is written in bytes that are not read as such.
        if let Some(Due { event: Event::Arrive { at }, frame: frame @ Some(_) }) = place {
            let arrival = Next::Arrival(*at, frame.take()?);
            *place = None;
            return Some(arrival);
        }
        Some(Next::Other(place.take()?.event))
    }

    /// Sends what the kernel of `machine` has put out.
    #[inline(always)]
    pub(crate) fn flush(&mut self, machine: usize) {
        if !self.out.frames.is_empty() {
            self.flush_all(machine);
        }
    }

    fn flush_all(&mut self, machine: usize) {
        // Nearly always there is one, or none.
        if self.out.frames.len() < 2 {
            if let Some((interface, frame)) = self.out.frames.pop() {
                self.send_now(machine, interface, frame);
            }
            return;
        }
        let mut frames = std::mem::take(&mut self.out.frames);
        for (interface, frame) in frames.drain(..) {
            self.send(machine, interface, frame);
        }
        self.out.frames = frames;
    }

    /// Sends a frame out of an interface of a machine.
    #[inline(always)]
    fn send_now(&mut self, machine: usize, interface: usize, mut frame: Packet) {
        self.sent += 1;
        if frame.id == 0 {
            self.packets += 1;
            frame.id = self.packets;
        }
        if self.watch.is_some() {
            self.show_sent(machine, interface, &frame);
        }
        let Some(plug) = self.machine_plugs.get(machine, interface) else {
            self.unplugged += 1;
            return self.recycle(frame);
        };
        self.transmit(plug, frame);
    }

    /// Sends a frame that no kernel has made.
    pub(crate) fn send(&mut self, machine: usize, interface: usize, frame: Packet) {
        self.send_now(machine, interface, frame);
    }

    /// Puts a frame into the end of a cable.
    #[inline(always)]
    fn transmit(&mut self, plug: Plug, mut frame: Packet) {
        let at = plug.other();
        let Some(cable) = self.cables.get_mut(plug.cable()) else { return };
        let [first, second] = &mut cable.wires;
        let wire = if plug.is_second() { second } else { first };
        match wire.pass(&mut frame, self.now) {
            Passage::Arrives { at: due, again } => {
                if let Some(again) = again {
                    self.launch_copy(again, at, &frame);
                }
                self.launch(due, at, frame);
            }
            Passage::Ended(_) => self.recycle(frame),
        }
    }

    #[cold]
    fn launch_copy(&mut self, due: Instant, at: Plug, frame: &Packet) {
        self.copied += 1;
        let copy = self.copy(frame);
        self.launch(due, at, copy);
    }

    #[inline(always)]
    fn launch(&mut self, due: Instant, at: Plug, frame: Packet) {
        self.under_way += 1;
        self.queue.push_made(due, || Due { event: Event::Arrive { at }, frame: Some(frame) });
    }

    /// A frame has reached the end of its cable. Gives the machine and its interface, where it is one.
    #[inline(always)]
    pub(crate) fn arrive(&mut self, mut frame: Packet, at: Plug) -> Option<(usize, usize, Packet)> {
        self.under_way -= 1;
        let cable = self.cables.get(at.cable())?;
        let [first, second] = &cable.ends;
        let socket = *if at.is_second() { second } else { first };
        if let Some(checker) = &mut self.checker {
            checker.frame(self.now, cable, socket, &mut frame);
        }
        match socket {
            Socket::Machine { machine, interface } => {
                self.arrived += 1;
                self.wire_trace.add(self.now, number(machine), frame.bytes());
                if self.watch.is_some() {
                    self.show_arrived(machine, interface, &frame);
                }
                Some((machine, interface, frame))
            }
            Socket::Switch { switch, port } => {
                self.switch(switch, port, frame);
                None
            }
        }
    }

    /// Shows a frame that a machine sends to whoever looks at the run.
    #[cold]
    fn show_sent(&mut self, machine: usize, interface: usize, frame: &Packet) {
        let Some(watch) = &mut self.watch else { return };
        let (now, way, id, bytes) = (self.now, Direction::Out, frame.id, frame.bytes());
        watch.frame(&FrameSeen { now, machine, interface, way, id, bytes });
    }

    /// The same of a frame that has arrived at a machine, and is in the chained hash.
    #[cold]
    fn show_arrived(&mut self, machine: usize, interface: usize, frame: &Packet) {
        let Some(watch) = &mut self.watch else { return };
        let (now, way, id, bytes) = (self.now, Direction::In, frame.id, frame.bytes());
        let seen = FrameSeen { now, machine, interface, way, id, bytes };
        watch.frame(&seen);
        watch.wire_link(self.wire_trace.link(), &seen);
    }

    /// Lets a switch send a frame on.
    fn switch(&mut self, number: usize, port: usize, mut frame: Packet) {
        let mut exits = std::mem::take(&mut self.exits);
        let Some(switch) = self.switches.get_mut(number) else { return self.recycle(frame) };
        // The switch itself counts a frame that ends in it.
        let _ = switch.forward(port, &frame, self.now, &mut exits);
        let plug = |net: &Self, exit: &Exit| {
            net.switch_plugs.get(number).and_then(|plugs| plugs.get(exit.port)).copied()
        };
        let last = exits.pop();
        for exit in exits.drain(..) {
            self.copied += 1;
            let mut copy = self.copy(&frame);
            exit.apply(&mut copy);
            match plug(self, &exit) {
                Some(plug) => self.transmit(plug, copy),
                None => self.recycle(copy),
            }
        }
        self.exits = exits;
        match last.and_then(|exit| plug(self, &exit).map(|plug| (exit, plug))) {
            Some((exit, plug)) => {
                exit.apply(&mut frame);
                self.transmit(plug, frame);
            }
            None => self.recycle(frame),
        }
    }

    /// Frames that are under way.
    pub(crate) const fn under_way(&self) -> usize {
        self.under_way
    }

    /// The wires of the cables by which `machine` is plugged into `segment`: from it, and to it.
    pub(crate) fn wires_of(&mut self, machine: usize, segment: usize) -> Vec<[&mut Wire; 2]> {
        let is_its =
            |socket: &Socket| matches!(socket, Socket::Machine { machine: own, .. } if *own == machine);
        let cables = self.cables.iter_mut().filter(|cable| cable.segment == segment);
        let wires = cables.filter_map(|Cable { ends: [first, second], wires: [one, two], .. }| {
            if is_its(first) {
                return Some([one, two]);
            }
            is_its(second).then_some([two, one])
        });
        wires.collect()
    }

    fn copy(&mut self, frame: &Packet) -> Packet {
        let mut copy = Packet::copied_into(self.buffer(), frame.bytes());
        copy.id = frame.id;
        copy
    }

    /// A packet that has ended, whose buffer can be used again, or a new one.
    #[inline]
    pub(crate) fn buffer(&mut self) -> Packet {
        self.out.buffer()
    }

    /// Takes back a packet that has ended.
    #[inline]
    pub(crate) fn recycle(&mut self, packet: Packet) {
        self.out.recycle(packet);
    }
}

/// How the programs of a machine reach the net.
pub(crate) struct Way<'a> {
    pub(crate) net: &'a mut Net,
    pub(crate) kernel: &'a mut Kernel,
    pub(crate) machine: usize,
}

impl Way<'_> {
    pub(crate) const fn now(&self) -> Instant {
        self.net.now
    }

    pub(crate) fn buffer(&mut self) -> Packet {
        self.net.buffer()
    }

    pub(crate) fn recycle(&mut self, packet: Packet) {
        self.net.recycle(packet);
    }

    pub(crate) fn schedule(&mut self, at: Instant, event: Event) {
        self.net.schedule(at, event);
    }

    /// Sends an IP packet of the machine's own. What it sends to itself waits in [`Out::up`] until the program is done.
    pub(crate) fn send(&mut self, packet: Packet) {
        match self.kernel.send_at_once(self.net.now, packet, &mut self.net.out) {
            Ok(Some(Up::Wire(interface, frame))) => self.net.send(self.machine, interface, frame),
            // A program of ours does not read the error of its system call; the kernel has counted it.
            result => {
                self.net.out.keep(result.ok().flatten());
                self.net.flush(self.machine);
            }
        }
    }

    /// The address from which packets to `destination` come.
    pub(crate) fn source_for(&self, destination: IpAddr) -> Option<IpAddr> {
        self.kernel.source_for(destination)
    }
}
