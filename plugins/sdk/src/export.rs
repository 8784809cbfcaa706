//! The bridge between a guest's trait and the exports of its component.
//!
//! A macro puts one instance of the guest into a static of the guest's crate and hands every call to `glue`.

/// What the macros call. Not for authors.
#[doc(hidden)]
pub mod glue {
    use alloc::vec::Vec;

    use crate::{
        Answer, Arrival, ConfigureError, Flow, FlowEvent, HashScheduler, Instant, Load, NO_ANSWER, Options,
        Policy, PolicySetup, ProbeAnswer, Scheduler, Server, Setup, TableScheduler, Wishes,
    };

    pub use crate::bindings::scheduler::exports::evenkeel::plugin::feedback::Hearing;
    pub use crate::bindings::scheduler::exports::evenkeel::plugin::schedule::Wishes as PickWishes;

    #[cfg(target_arch = "wasm32")]
    pub use crate::runtime::Arguments;

    /// The place of a guest between two calls.
    #[derive(Debug)]
    pub struct Slot<T>(spin::Mutex<Option<T>>);

    impl<T> Slot<T> {
        /// An empty place.
        #[must_use]
        pub const fn new() -> Self {
            Self(spin::Mutex::new(None))
        }

        /// Puts a freshly configured guest into the place.
        pub fn fill(&self, guest: T) {
            *self.0.lock() = Some(guest);
        }

        /// Hands a call to the guest.
        ///
        /// # Panics
        /// When there is none.
        pub fn with<R>(&self, call: impl FnOnce(&mut T) -> R) -> R {
            call(self.0.lock().as_mut().unwrap_or_else(|| panic!("called before it was configured")))
        }
    }

    impl<T> Default for Slot<T> {
        fn default() -> Self {
            Self::new()
        }
    }

    /// The answer for a flow as a number.
    fn code(choice: Option<usize>) -> u32 {
        choice.and_then(|index| u32::try_from(index).ok()).unwrap_or(NO_ANSWER)
    }

    /// Reads the options, and refuses what the guest left unread.
    fn with_options<T>(
        text: &str,
        configure: impl FnOnce(&mut Options) -> Result<T, ConfigureError>,
    ) -> Result<T, ConfigureError> {
        let mut options = Options::parse(text)?;
        let guest = configure(&mut options)?;
        options.finish()?;
        Ok(guest)
    }

    /// Configures a scheduler.
    ///
    /// # Errors
    /// Those of the guest, and unknown options.
    pub fn scheduler<G: Scheduler>(setup: &Setup) -> Result<(G, Wishes), ConfigureError> {
        let guest: G = with_options(&setup.options, |options| G::configure(setup, options))?;
        let wishes = guest.wishes();
        Ok((guest, wishes))
    }

    /// Configures a hash scheduler.
    ///
    /// # Errors
    /// Those of the guest, and unknown options.
    pub fn hash_scheduler<G: HashScheduler>(setup: &Setup) -> Result<G, ConfigureError> {
        with_options(&setup.options, |options| G::configure(setup, options))
    }

    /// Configures a table scheduler.
    ///
    /// # Errors
    /// Those of the guest, and unknown options.
    pub fn table_scheduler<G: TableScheduler>(setup: &Setup) -> Result<G, ConfigureError> {
        with_options(&setup.options, |options| G::configure(setup, options))
    }

    /// Configures a policy.
    ///
    /// # Errors
    /// Those of the guest, and unknown options.
    pub fn policy<G: Policy>(setup: &PolicySetup) -> Result<G, ConfigureError> {
        with_options(&setup.common.options, |options| G::configure(setup, options))
    }

    /// Answers a batch; a picked server is busier for the flows behind.
    pub fn pick<G: Scheduler>(guest: &mut G, flows: &[Flow], mut loads: Vec<Load>, now: u64) -> Vec<u32> {
        let now = Instant::from_nanos(now);
        let answer = |flow| {
            let choice = guest.pick(flow, &loads, now);
            if let Some(load) = choice.and_then(|index| loads.get_mut(index)) {
                count(flow, load);
            }
            code(choice)
        };
        flows.iter().map(answer).collect()
    }

    /// Counts a new flow as the forwarder does.
    pub fn count(flow: &Flow, load: &mut Load) {
        if flow.is_tcp() {
            load.active = load.active.saturating_add(1);
        } else {
            load.inactive = load.inactive.saturating_add(1);
        }
    }

    /// Answers one flow.
    pub fn pick_one<G: Scheduler>(guest: &mut G, flow: &Flow, now: u64) -> u32 {
        code(guest.pick(flow, &[], Instant::from_nanos(now)))
    }

    /// Tells of new servers.
    pub fn update<G: Scheduler>(guest: &mut G, servers: &[Server], now: u64) {
        guest.update(servers, Instant::from_nanos(now));
    }

    /// What `pick` is to be told.
    #[must_use]
    pub const fn pick_wishes(wishes: Wishes) -> PickWishes {
        PickWishes { loads: wishes.loads }
    }

    /// What the guest wants to hear.
    pub fn listen<G: Scheduler>(guest: &G) -> Hearing {
        let Wishes { opened, answered, closed, tick, probes, .. } = guest.wishes();
        Hearing { opened, answered, closed, tick: u64::try_from(tick.as_nanos()).unwrap_or(u64::MAX), probes }
    }

    /// Tells what has become of flows.
    pub fn hear<G: Scheduler>(guest: &mut G, events: &[FlowEvent], now: u64) {
        guest.hear(events, Instant::from_nanos(now));
    }

    /// Tells that time has passed.
    pub fn tick<G: Scheduler>(guest: &mut G, now: u64) {
        guest.tick(Instant::from_nanos(now));
    }

    /// Asks whom to probe.
    pub fn poll_probes<G: Scheduler>(guest: &mut G, now: u64) -> Vec<u32> {
        guest.poll_probes(Instant::from_nanos(now))
    }

    /// Hands over the answer to a probe.
    pub fn probe_answered<G: Scheduler>(guest: &mut G, answer: &ProbeAnswer, now: u64) {
        guest.probe_answered(answer, Instant::from_nanos(now));
    }

    /// Asks for the state.
    pub fn save<G: Scheduler>(guest: &mut G, now: u64) -> Vec<u8> {
        guest.save(Instant::from_nanos(now))
    }

    /// Hands over a state.
    pub fn restore<G: Scheduler>(guest: &mut G, state: &[u8], now: u64) -> bool {
        guest.restore(state, Instant::from_nanos(now))
    }

    /// Tells of new servers.
    pub fn update_hash<G: HashScheduler>(guest: &mut G, servers: &[Server], now: u64) {
        guest.update(servers, Instant::from_nanos(now));
    }

    /// Answers a batch of hashes.
    pub fn pick_hashes<G: HashScheduler>(guest: &mut G, hashes: &[u64], now: u64) -> Vec<u32> {
        let now = Instant::from_nanos(now);
        hashes.iter().map(|hash| code(guest.pick(*hash, now))).collect()
    }

    /// Answers one hash.
    pub fn pick_hash<G: HashScheduler>(guest: &mut G, hash: u64, now: u64) -> u32 {
        code(guest.pick(hash, Instant::from_nanos(now)))
    }

    /// Builds a table.
    pub fn build<G: TableScheduler>(guest: &mut G, servers: &[Server], now: u64) -> Vec<u32> {
        guest.build(servers, Instant::from_nanos(now))
    }

    /// Decides about a batch.
    pub fn decide<G: Policy>(guest: &mut G, arrivals: &[Arrival], now: u64) -> Vec<Answer> {
        let now = Instant::from_nanos(now);
        arrivals.iter().map(|arrival| guest.decide(arrival, now).answer()).collect()
    }

    /// Decides about one flow.
    pub fn decide_one<G: Policy>(guest: &mut G, arrival: &Arrival, now: u64) -> Answer {
        guest.decide(arrival, Instant::from_nanos(now)).answer()
    }
}

/// Makes a component of the world `scheduler` from a type that implements [`Scheduler`](crate::Scheduler).
///
/// Only builds for WASM export something; elsewhere the macro checks the type.
#[macro_export]
macro_rules! export_scheduler {
    ($guest:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            extern crate alloc;
            use alloc::vec::Vec;
            use $crate::bindings::scheduler as world;
            use $crate::{ConfigureError, Flow, FlowEvent, Load, ProbeAnswer, Server, Setup, glue};

            static GUEST: glue::Slot<$guest> = glue::Slot::new();
            struct Component;

            impl world::exports::evenkeel::plugin::schedule::Guest for Component {
                fn configure(setup: Setup) -> Result<glue::PickWishes, ConfigureError> {
                    let (guest, wishes) = glue::scheduler(&setup)?;
                    GUEST.fill(guest);
                    Ok(glue::pick_wishes(wishes))
                }
                fn update(servers: Vec<Server>, now: u64) {
                    GUEST.with(|guest| glue::update(guest, &servers, now));
                }
                fn pick(flows: Vec<Flow>, loads: Vec<Load>, now: u64) -> Vec<u32> {
                    GUEST.with(|guest| glue::pick(guest, &flows, loads, now))
                }
                fn pick_one(flow: Flow, now: u64) -> u32 {
                    GUEST.with(|guest| glue::pick_one(guest, &flow, now))
                }
            }

            impl world::exports::evenkeel::plugin::feedback::Guest for Component {
                fn listen() -> glue::Hearing {
                    GUEST.with(|guest| glue::listen(guest))
                }
                fn hear(events: Vec<FlowEvent>, now: u64) {
                    GUEST.with(|guest| glue::hear(guest, &events, now));
                }
                fn tick(now: u64) {
                    GUEST.with(|guest| glue::tick(guest, now));
                }
                fn poll_probes(now: u64) -> Vec<u32> {
                    GUEST.with(|guest| glue::poll_probes(guest, now))
                }
                fn probe_answered(answer: ProbeAnswer, now: u64) {
                    GUEST.with(|guest| glue::probe_answered(guest, &answer, now));
                }
            }

            impl world::exports::evenkeel::plugin::snapshot::Guest for Component {
                fn save(now: u64) -> Vec<u8> {
                    GUEST.with(|guest| glue::save(guest, now))
                }
                fn restore(state: Vec<u8>, now: u64) -> bool {
                    GUEST.with(|guest| glue::restore(guest, &state, now))
                }
            }

    world::export_scheduler_world!(Component with_types_in $crate::bindings::scheduler);
            $crate::export_runtime!();
        };
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn() = || {
            fn check<T: $crate::Scheduler>() {}
            check::<$guest>();
        };
    };
}

/// Makes a component of the world `hash-scheduler` from a type that implements
/// [`HashScheduler`](crate::HashScheduler).
///
/// Only builds for WASM export something; elsewhere the macro checks the type.
#[macro_export]
macro_rules! export_hash_scheduler {
    ($guest:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            extern crate alloc;
            use alloc::vec::Vec;
            use $crate::bindings::hash_scheduler as world;
            use $crate::{ConfigureError, Server, Setup, glue};

            static GUEST: glue::Slot<$guest> = glue::Slot::new();
            struct Component;

            impl world::exports::evenkeel::plugin::schedule_by_hash::Guest for Component {
                fn configure(setup: Setup) -> Result<(), ConfigureError> {
                    GUEST.fill(glue::hash_scheduler(&setup)?);
                    Ok(())
                }
                fn update(servers: Vec<Server>, now: u64) {
                    GUEST.with(|guest| glue::update_hash(guest, &servers, now));
                }
                fn pick(hashes: Vec<u64>, now: u64) -> Vec<u32> {
                    GUEST.with(|guest| glue::pick_hashes(guest, &hashes, now))
                }
                fn pick_one(hash: u64, now: u64) -> u32 {
                    GUEST.with(|guest| glue::pick_hash(guest, hash, now))
                }
            }

    world::export_hash_scheduler_world!(Component with_types_in $crate::bindings::hash_scheduler);
            $crate::export_runtime!();
        };
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn() = || {
            fn check<T: $crate::HashScheduler>() {}
            check::<$guest>();
        };
    };
}

/// Makes a component of the world `table-scheduler` from a type that implements
/// [`TableScheduler`](crate::TableScheduler).
///
/// Only builds for WASM export something; elsewhere the macro checks the type.
#[macro_export]
macro_rules! export_table_scheduler {
    ($guest:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            extern crate alloc;
            use alloc::vec::Vec;
            use $crate::bindings::table_scheduler as world;
            use $crate::{ConfigureError, Server, Setup, glue};

            static GUEST: glue::Slot<$guest> = glue::Slot::new();
            struct Component;

            impl world::exports::evenkeel::plugin::schedule_by_table::Guest for Component {
                fn configure(setup: Setup) -> Result<(), ConfigureError> {
                    GUEST.fill(glue::table_scheduler(&setup)?);
                    Ok(())
                }
                fn build(servers: Vec<Server>, now: u64) -> Vec<u32> {
                    GUEST.with(|guest| glue::build(guest, &servers, now))
                }
            }

    world::export_table_scheduler_world!(Component with_types_in $crate::bindings::table_scheduler);
            $crate::export_runtime!();
        };
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn() = || {
            fn check<T: $crate::TableScheduler>() {}
            check::<$guest>();
        };
    };
}

/// Makes a component of the world `policy` from a type that implements [`Policy`](crate::Policy).
///
/// Only builds for WASM export something; elsewhere the macro checks the type.
#[macro_export]
macro_rules! export_policy {
    ($guest:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            extern crate alloc;
            use alloc::vec::Vec;
            use $crate::bindings::policy as world;
            use $crate::{Answer, Arrival, ConfigureError, Policy, PolicySetup, PolicyWishes, glue};

            static GUEST: glue::Slot<$guest> = glue::Slot::new();
            struct Component;

            impl world::exports::evenkeel::plugin::decide::Guest for Component {
                fn configure(setup: PolicySetup) -> Result<PolicyWishes, ConfigureError> {
                    let guest: $guest = glue::policy(&setup)?;
                    let wishes = guest.wishes();
                    GUEST.fill(guest);
                    Ok(wishes)
                }
                fn decide(arrivals: Vec<Arrival>, now: u64) -> Vec<Answer> {
                    GUEST.with(|guest| glue::decide(guest, &arrivals, now))
                }
                fn decide_one(arrival: Arrival, now: u64) -> Answer {
                    GUEST.with(|guest| glue::decide_one(guest, &arrival, now))
                }
            }

    world::export_policy_world!(Component with_types_in $crate::bindings::policy);
            $crate::export_runtime!();
        };
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn() = || {
            fn check<T: $crate::Policy>() {}
            check::<$guest>();
        };
    };
}

/// Exports what every component needs besides its world.
#[doc(hidden)]
#[macro_export]
macro_rules! export_runtime {
    () => {
        const _: () = {
            use $crate::glue::Arguments;
            $crate::bindings::runtime::__export_world_runtime_cabi!(
                Arguments with_types_in $crate::bindings::runtime
            );
        };
    };
}
