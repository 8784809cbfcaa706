//! Writes what travels into pcapng files: one for each segment or machine, with an interface for each cable, and a comment
//! for each packet that says what the forwarder decided about it.
//!
//! A frame waits until the time goes on, for the engine decides about it at the very time of its arrival. Copies of one
//! packet share an identity, on all links and in all files.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};

use evenkeel_engine::Instant;

use super::{FrameSeen, Names};
use crate::capture::{Heading, Link, Seen, Way, Writer};
use crate::scenario::Scenario;

/// Frames of one moment that wait for a decision; with more, the first ones go without.
const HELD_MAX: usize = 4_096;
/// Packets whose decision is remembered for their later copies; the oldest are forgotten first.
const COMMENTS_MAX: usize = 1 << 16;
/// Files of one run: as many as a process may safely have open.
pub const FILES_MAX: usize = 256;

/// Opens the file of this name.
pub type Open<'a> = dyn FnMut(&str) -> io::Result<Box<dyn Write>> + 'a;

/// Captures under way.
pub struct Captures {
    files: Vec<File>,
    held: VecDeque<Held>,
    comments: BTreeMap<u64, String>,
    /// The packets of the comments, oldest first.
    order: VecDeque<u64>,
    error: Option<io::Error>,
}

impl std::fmt::Debug for Captures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let files: Vec<&str> = self.files.iter().map(|file| file.name.as_str()).collect();
        f.debug_struct("Captures").field("files", &files).finish_non_exhaustive()
    }
}

/// What one file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Frames as they reach a machine on this segment.
    Segment(usize),
    /// Frames as they reach and leave this machine.
    Machine(usize),
}

struct File {
    name: String,
    place: Place,
    writer: Writer<Box<dyn Write>>,
    /// The number of each cable's interface in the file.
    interfaces: BTreeMap<(usize, usize), u32>,
}

/// A frame that waits for what will be said of it.
struct Held {
    now: Instant,
    file: usize,
    interface: u32,
    way: Way,
    id: u64,
    bytes: Vec<u8>,
    /// What is known already.
    comment: String,
}

impl Captures {
    /// Opens a file for each segment and machine that `scenario` captures: `segment-NAME.pcapng`, `machine-NAME.pcapng`.
    /// Nothing where it captures none.
    ///
    /// # Errors
    /// When a file cannot be opened or there would be too many; the text names it.
    pub fn open(scenario: &Scenario, open: &mut Open<'_>) -> io::Result<Option<Self>> {
        let places = scenario
            .captures
            .iter()
            .map(|place| Place::Segment(*place))
            .chain(scenario.captured_machines.iter().map(|place| Place::Machine(*place)));
        let names = Names::of(scenario);
        let mut files = Vec::new();
        for place in places {
            let name = match place {
                Place::Segment(place) => {
                    let segment = scenario.segments.get(place);
                    format!("segment-{}.pcapng", segment.map_or("", |segment| &segment.name))
                }
                Place::Machine(place) => format!("machine-{}.pcapng", names.machine(place)),
            };
            if files.len() == FILES_MAX {
                return Err(io::Error::other(format!("{name}: a run has at most {FILES_MAX} captures")));
            }
            let named = |error: io::Error| io::Error::new(error.kind(), format!("{name}: {error}"));
            let mut writer = Writer::new(open(&name).map_err(named)?)?;
            let mut interfaces = BTreeMap::new();
            for (machine, interface, segment) in names.interfaces() {
                let is_in = match place {
                    Place::Segment(place) => place == segment,
                    Place::Machine(place) => place == machine,
                };
                if is_in {
                    let cable = format!("{}:{}", names.machine(machine), names.interface(machine, interface));
                    interfaces.insert((machine, interface), writer.interface(&cable, Link::Ethernet)?);
                }
            }
            files.push(File { name, place, writer, interfaces });
        }
        let empty = Self {
            files,
            held: VecDeque::new(),
            comments: BTreeMap::new(),
            order: VecDeque::new(),
            error: None,
        };
        Ok((!empty.files.is_empty()).then_some(empty))
    }

    /// Ends the files and gives their names.
    ///
    /// # Errors
    /// When something could not be written.
    pub fn finish(mut self) -> io::Result<Vec<String>> {
        while let Some(held) = self.held.pop_front() {
            self.write(&held);
        }
        if let Some(error) = self.error {
            return Err(error);
        }
        let mut names = Vec::new();
        for file in self.files {
            file.writer.finish()?.flush()?;
            names.push(file.name);
        }
        Ok(names)
    }

    pub(super) fn frame(&mut self, seen: &FrameSeen<'_>, segment: Option<usize>) {
        self.settle(seen.now);
        for place in 0..self.files.len() {
            let Some(file) = self.files.get(place) else { continue };
            let is_in = match file.place {
                Place::Segment(own) => Some(own) == segment && seen.way == Way::In,
                Place::Machine(own) => own == seen.machine,
            };
            let interface = file.interfaces.get(&(seen.machine, seen.interface)).copied();
            let (true, Some(interface)) = (is_in, interface) else { continue };
            let comment = self.comments.get(&seen.id).cloned().unwrap_or_default();
            let (now, way, id, bytes) = (seen.now, seen.way, seen.id, seen.bytes.to_vec());
            self.held.push_back(Held { now, file: place, interface, way, id, bytes, comment });
            if self.held.len() > HELD_MAX
                && let Some(first) = self.held.pop_front()
            {
                self.write(&first);
            }
        }
    }

    /// Something is to be said of a packet: of its copies of this moment, and of later ones.
    pub(super) fn say(&mut self, id: u64, words: &str) {
        for held in self.held.iter_mut().filter(|held| held.id == id) {
            words.clone_into(&mut held.comment);
        }
        if self.comments.insert(id, words.to_owned()).is_none() {
            self.order.push_back(id);
        }
        if self.order.len() > COMMENTS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.comments.remove(&oldest);
        }
    }

    /// Time has gone on: nothing more will be decided about what came before.
    fn settle(&mut self, now: Instant) {
        while self.held.front().is_some_and(|held| held.now < now) {
            if let Some(held) = self.held.pop_front() {
                self.write(&held);
            }
        }
    }

    fn write(&mut self, held: &Held) {
        let Some(file) = self.files.get_mut(held.file).filter(|_| self.error.is_none()) else { return };
        let (interface, at_ns, way, packet_id) = (held.interface, held.now.as_nanos(), held.way, held.id);
        let heading = Heading { interface, at_ns, way, packet_id };
        let written = file.writer.packet(&Seen { heading, bytes: &held.bytes, comment: &held.comment });
        self.error = written.err();
    }
}
