//! The world `scheduler` with what a component may export besides: what it hears of flows, and the state that outlives
//! it.
//!
//! Gets calls about one instance; leaves out those whose interface the component does not export.

use evenkeel_engine::Duration;
use evenkeel_engine::director::{
    FlowAnswered, FlowClosed, FlowEnd, FlowEvent as Event, FlowOpened, ProbeAnswer as Answer, TICK_MIN,
    Wishes,
};
use wasmtime::Store;
use wasmtime::component::InstancePre;

use crate::contract::{
    FEEDBACK, FlowEvent, Happening, Hearing, Keeper, KeeperIndices, Listener, ListenerIndices, ProbeAnswer,
    SNAPSHOT, Scheduler, SchedulerPre,
};
use crate::engine::Data;
use crate::sandbox::World;

/// A time that is not known.
const UNKNOWN: u64 = u64::MAX;
/// The largest state that is carried over.
pub(crate) const STATE_BYTES_MAX: usize = 1 << 20;
/// The most probes that a guest may want to send after one batch.
pub(crate) const PROBES_MAX: usize = 256;

/// The exports of an instance.
pub(crate) struct Flows {
    pub(crate) schedule: Scheduler,
    pub(crate) feedback: Option<Box<Listener>>,
    pub(crate) snapshot: Option<Box<Keeper>>,
}

/// The exports of a component.
pub(crate) struct FlowsPre {
    schedule: SchedulerPre<Data>,
    feedback: Option<ListenerIndices>,
    snapshot: Option<KeeperIndices>,
}

impl FlowsPre {
    pub(crate) fn new(pre: InstancePre<Data>) -> wasmtime::Result<Self> {
        let has = |name: &str| pre.component().get_export_index(None, name).is_some();
        // An interface that is there in another form than ours is an error, not one that is missing.
        let feedback = has(FEEDBACK).then(|| ListenerIndices::new(&pre)).transpose()?;
        let snapshot = has(SNAPSHOT).then(|| KeeperIndices::new(&pre)).transpose()?;
        Ok(Self { schedule: SchedulerPre::new(pre)?, feedback, snapshot })
    }
}

impl World for Flows {
    type Pre = FlowsPre;

    fn instantiate(pre: &FlowsPre, store: &mut Store<Data>) -> wasmtime::Result<Self> {
        let instance = pre.schedule.instance_pre().instantiate(&mut *store)?;
        let feedback = pre.feedback.as_ref().map(|indices| indices.load(&mut *store, &instance));
        let snapshot = pre.snapshot.as_ref().map(|indices| indices.load(&mut *store, &instance));
        let (feedback, snapshot) = (feedback.transpose()?.map(Box::new), snapshot.transpose()?.map(Box::new));
        let schedule = crate::contract::SchedulerIndices::new(pre.schedule.instance_pre())?;
        Ok(Self { schedule: schedule.load(&mut *store, &instance)?, feedback, snapshot })
    }
}

impl Flows {
    /// What the guest wants to hear; nothing where it does not listen.
    pub(crate) fn listen(&self, store: &mut Store<Data>) -> wasmtime::Result<Wishes> {
        let Some(feedback) = &self.feedback else { return Ok(Wishes::default()) };
        let Hearing { opened, answered, closed, tick, probes } =
            feedback.evenkeel_plugin_feedback().call_listen(store)?;
        let tick = (tick > 0).then(|| Duration::from_nanos(tick).max(TICK_MIN));
        Ok(Wishes { opened, answered, closed, tick, probes })
    }
}

/// What a guest is told of `event`.
pub(crate) fn event_record(event: &Event) -> FlowEvent {
    let blank = |what, hash, server: u16| FlowEvent {
        hash,
        server: u32::from(server),
        what,
        is_through_client: false,
        answered: UNKNOWN,
        lived: UNKNOWN,
        packets_to: 0,
        packets_from: 0,
        bytes_to: 0,
        bytes_from: 0,
    };
    match event {
        Event::Opened(FlowOpened { hash, server }) => blank(Happening::Opened, *hash, *server),
        Event::Answered(FlowAnswered { hash, server, after, is_through_client }) => FlowEvent {
            answered: nanoseconds(*after),
            is_through_client: *is_through_client,
            ..blank(Happening::Answered, *hash, *server)
        },
        Event::Closed(flow) => {
            let FlowClosed { packets_to, packets_from, bytes_to, bytes_from, lived, answered, .. } = *flow;
            FlowEvent {
                answered: answered.map_or(UNKNOWN, nanoseconds),
                lived: lived.map_or(UNKNOWN, nanoseconds),
                packets_to,
                packets_from,
                bytes_to,
                bytes_from,
                ..blank(ending(flow.end), flow.hash, flow.server)
            }
        }
    }
}

const fn ending(end: FlowEnd) -> Happening {
    match end {
        FlowEnd::Finished => Happening::Finished,
        FlowEnd::Reset => Happening::Reset,
        FlowEnd::Idle => Happening::Idle,
        FlowEnd::Unanswered => Happening::Unanswered,
    }
}

/// What a guest is told of a server's answer.
pub(crate) fn answer_record(answer: Answer) -> ProbeAnswer {
    ProbeAnswer {
        server: u32::from(answer.server),
        in_flight: answer.in_flight,
        latency: nanoseconds(answer.latency),
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(UNKNOWN)
}
