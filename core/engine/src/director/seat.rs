//! The seat of a director's scheduler: who sits there, whom it replaced, and who looks over its shoulder.
//!
//! ```text
//! question --> scheduler ---------> answer
//!          \-> shadow: same question, its answer is only counted
//!
//! change: state of the old one -> the new one is on trial -> proven after a while
//!                                      \-> too many faults: the old one sits there again
//! ```
//!
//! Flows never notice: who has a server keeps it, whoever schedules. What happens to flows is told to scheduler and
//! shadow, in order, in batches, to each what it wishes to hear; where nobody listens nothing is gathered.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{
    FlowEvent, GuestStats, NewFlow, Scheduler, Selection, ServerId, ServerLoad, ServerView, TICK_MIN, Wishes,
};
use crate::plan::SchedulerPlan;
use crate::time::{Duration, Instant};

/// How much that happened to flows is gathered before the scheduler is told of it at once.
const NEWS_MAX: usize = 64;

/// How long a scheduler that came in the place of another one is on trial.
const TRIAL: Duration = Duration::from_secs(60);

/// Faults during the trial that bring the old scheduler back: as many as open the breaker of a guest, so that one that
/// can not do its work is gone before its fallback has decided for a second.
const TRIAL_FAULTS_MAX: u64 = 8;

/// A scheduler at work.
#[derive(Debug)]
pub(super) struct Seat {
    scheduler: Box<dyn Scheduler>,
    plan: SchedulerPlan,
    /// What scheduler and shadow want to hear.
    wishes: Wishes,
    /// When they are to be called next because time has passed.
    next_tick: Option<Instant>,
    /// What they have not been told yet, in order.
    news: Vec<FlowEvent>,
    trial: Option<Trial>,
    shadow: Option<Shadow>,
    /// The scheduler is only a name.
    is_absent: bool,
}

/// A scheduler that has been replaced, while the new one is on trial.
#[derive(Debug)]
struct Trial {
    before: Box<dyn Scheduler>,
    plan: SchedulerPlan,
    until: Instant,
    /// Faults of the new one when the trial began.
    faults: u64,
}

/// A second scheduler, whose answers nobody acts upon.
#[derive(Debug)]
struct Shadow {
    scheduler: Box<dyn Scheduler>,
    plan: SchedulerPlan,
    loads: Vec<ServerLoad>,
    answers: Vec<Option<u16>>,
    asked: u64,
    agreed: u64,
    unanswered: u64,
    /// Flows that each server got, and would have got, since the shadow is there.
    flows: BTreeMap<ServerId, [u64; 2]>,
}

/// How a shadow compares with the scheduler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShadowStatus {
    /// Who it is.
    pub scheduler: String,
    /// How its component did; zero for a native scheduler.
    pub guest: GuestStats,
    /// Flows that both were asked about.
    pub asked: u64,
    /// Flows for which both chose the same server.
    pub agreed: u64,
    /// Flows for which the shadow had no answer.
    pub unanswered: u64,
    /// The most flows of a server for its weight, in thousandths of the mean: as it is, and as it would be.
    pub imbalance_thousandths: [u64; 2],
}

impl Seat {
    pub(super) const fn new(scheduler: Box<dyn Scheduler>, plan: SchedulerPlan) -> Self {
        Self {
            scheduler,
            plan,
            wishes: Wishes { opened: false, answered: false, closed: false, tick: None, probes: false },
            next_tick: None,
            news: Vec::new(),
            trial: None,
            shadow: None,
            is_absent: false,
        }
    }

    /// Another seat in the same state, without a trial and a shadow, which change nothing for flows; `is_asked` says
    /// whether its scheduler will be. One that is not, or of which there can be no other, is represented by its name.
    pub(super) fn fork(&self, is_asked: bool) -> Self {
        let scheduler = is_asked.then(|| self.scheduler.fork()).flatten();
        let is_absent = scheduler.is_none();
        let scheduler = scheduler.unwrap_or_else(|| Box::new(Absent(self.scheduler.name().to_string())));
        let wishes = Wishes { tick: None, probes: false, ..scheduler.wishes() };
        let news = self.news.iter().filter(|event| wishes.has(event)).copied().collect();
        Self { wishes, news, is_absent, ..Self::new(scheduler, self.plan.clone()) }
    }

    /// Puts `scheduler` in the place of the one that is there, with the state of that one where it understands it. It
    /// must be told of the servers before the next question.
    pub(super) fn change(&mut self, mut scheduler: Box<dyn Scheduler>, plan: SchedulerPlan, now: Instant) {
        self.flush(now);
        if let Some(state) = self.scheduler.save(now) {
            scheduler.restore(&state, now);
        }
        let faults = scheduler.stats().faults;
        let before = core::mem::replace(&mut self.scheduler, scheduler);
        let is_new = self.plan != plan;
        let before_plan = core::mem::replace(&mut self.plan, plan);
        // Whoever was on trial itself has proven nothing.
        let proven = self.trial.take().filter(|trial| now < trial.until);
        let (before, plan) = proven.map_or((before, before_plan), |trial| (trial.before, trial.plan));
        self.trial = is_new.then(|| Trial { before, plan, until: now.after(TRIAL), faults });
    }

    /// Puts a shadow there, or takes it away.
    pub(super) fn set_shadow(&mut self, shadow: Option<(Box<dyn Scheduler>, SchedulerPlan)>, now: Instant) {
        self.flush(now);
        self.shadow = shadow.map(|(scheduler, plan)| Shadow {
            scheduler,
            plan,
            loads: Vec::new(),
            answers: Vec::new(),
            asked: 0,
            agreed: 0,
            unanswered: 0,
            flows: BTreeMap::new(),
        });
    }

    /// After a fault: puts the old scheduler back where the new one has had too many of them on trial. Returns the name of
    /// the one that had to go.
    pub(super) fn judge(&mut self, views: &[ServerView], now: Instant) -> Option<String> {
        let trial = self.trial.as_ref()?;
        if now >= trial.until {
            self.trial = None;
            return None;
        }
        if self.scheduler.stats().faults.saturating_sub(trial.faults) < TRIAL_FAULTS_MAX {
            return None;
        }
        let Trial { before, plan, .. } = self.trial.take()?;
        let gone = core::mem::replace(&mut self.scheduler, before);
        self.plan = plan;
        self.update(views, now);
        self.listen(now);
        Some(gone.name().to_string())
    }

    pub(super) fn update(&mut self, views: &[ServerView], now: Instant) {
        self.flush(now);
        self.scheduler.update(views, now);
        if let Some(shadow) = &mut self.shadow {
            shadow.scheduler.update(views, now);
            shadow.flows.retain(|id, _| views.iter().any(|view| view.id == *id));
        }
    }

    /// Asks the scheduler, and the shadow for comparison.
    #[inline]
    pub(super) fn pick(
        &mut self,
        flows: &[NewFlow],
        views: &[ServerView],
        loads: &mut [ServerLoad],
        answers: &mut [Option<u16>],
        now: Instant,
    ) {
        if let Some(shadow) = &mut self.shadow {
            shadow.loads.clear();
            shadow.loads.extend_from_slice(loads);
        }
        self.scheduler.pick(&mut Selection::new(flows, views, loads, answers), now);
        if let Some(shadow) = &mut self.shadow {
            shadow.compare(flows, views, answers, now);
        }
    }

    /// Asks scheduler and shadow what they want to hear.
    pub(super) fn listen(&mut self, now: Instant) {
        let shadow = self.shadow.as_ref().map_or_else(Wishes::default, |shadow| shadow.scheduler.wishes());
        let wishes = self.scheduler.wishes();
        // Probes are carried for the scheduler alone.
        let wishes = Wishes { probes: wishes.probes, ..wishes.or(shadow) };
        if self.wishes.tick != wishes.tick {
            self.next_tick = wishes.tick.map(|interval| now.after(interval.max(TICK_MIN)));
        }
        self.wishes = wishes;
    }

    pub(super) const fn wishes(&self) -> Wishes {
        self.wishes
    }

    pub(super) const fn next_tick(&self) -> Option<Instant> {
        self.next_tick
    }

    /// Lets them know that time has passed, if that is due.
    pub(super) fn handle_tick(&mut self, now: Instant) {
        if self.next_tick.is_none_or(|due| due > now) {
            return;
        }
        self.flush(now);
        for scheduler in self.both().filter(|scheduler| scheduler.wishes().tick.is_some()) {
            scheduler.tick(now);
        }
        self.next_tick = self.wishes.tick.map(|interval| now.after(interval.max(TICK_MIN)));
    }

    fn both(&mut self) -> impl Iterator<Item = &mut Box<dyn Scheduler>> {
        let shadow = self.shadow.as_mut().map(|shadow| &mut shadow.scheduler);
        core::iter::once(&mut self.scheduler).chain(shadow)
    }

    /// Keeps what has happened until somebody is told.
    pub(super) fn tell(&mut self, event: FlowEvent, now: Instant) {
        self.news.push(event);
        if self.news.len() >= NEWS_MAX {
            self.flush(now);
        }
    }

    /// Tells what has been gathered.
    #[inline]
    pub(super) fn flush(&mut self, now: Instant) {
        if !self.news.is_empty() {
            self.tell_news(now);
        }
    }

    #[inline(never)]
    fn tell_news(&mut self, now: Instant) {
        let Some(shadow) = &mut self.shadow else {
            self.scheduler.hear(&self.news, now);
            self.news.clear();
            return;
        };
        let news = core::mem::take(&mut self.news);
        for scheduler in [&mut self.scheduler, &mut shadow.scheduler] {
            let wishes = scheduler.wishes();
            let wished: Vec<FlowEvent> = news.iter().filter(|event| wishes.has(event)).copied().collect();
            if !wished.is_empty() {
                scheduler.hear(&wished, now);
            }
        }
    }

    pub(super) fn scheduler(&self) -> &dyn Scheduler {
        &*self.scheduler
    }

    pub(super) fn scheduler_mut(&mut self) -> &mut dyn Scheduler {
        &mut *self.scheduler
    }

    /// Puts `scheduler` there as if it had always been.
    pub(super) fn put(&mut self, scheduler: Box<dyn Scheduler>) {
        self.scheduler = scheduler;
    }

    /// Has whoever sits there always pick this one from now on, under the same name.
    pub(super) fn fix(&mut self, view: u16) {
        self.scheduler = Box::new(Fixed { name: self.scheduler.name().to_string(), view });
    }

    /// Whether the scheduler is only a name: a fork's, whose original can not be asked without changing it.
    pub(super) const fn is_absent(&self) -> bool {
        self.is_absent
    }

    pub(super) const fn plan(&self) -> &SchedulerPlan {
        &self.plan
    }

    pub(super) fn shadow_plan(&self) -> Option<&SchedulerPlan> {
        self.shadow.as_ref().map(|shadow| &shadow.plan)
    }

    /// Whether the scheduler could still be taken back.
    pub(super) fn is_on_trial(&self, now: Instant) -> bool {
        self.trial.as_ref().is_some_and(|trial| now < trial.until)
    }

    pub(super) fn shadow(&self, views: &[ServerView]) -> Option<ShadowStatus> {
        let shadow = self.shadow.as_ref()?;
        Some(ShadowStatus {
            scheduler: shadow.scheduler.name().to_string(),
            guest: shadow.scheduler.stats(),
            asked: shadow.asked,
            agreed: shadow.agreed,
            unanswered: shadow.unanswered,
            imbalance_thousandths: [0, 1].map(|side| shadow.imbalance(views, side)),
        })
    }
}

/// In the place of a scheduler whose answer is known: it picks the same server for everybody.
#[derive(Clone, Debug)]
struct Fixed {
    name: String,
    view: u16,
}

impl Scheduler for Fixed {
    fn name(&self) -> &str {
        &self.name
    }

    fn fork(&self) -> Option<Box<dyn Scheduler>> {
        Some(Box::new(self.clone()))
    }

    fn update(&mut self, _servers: &[ServerView], _now: Instant) {}

    fn pick(&mut self, selection: &mut Selection<'_>, _now: Instant) {
        for flow in 0..selection.flows().len() {
            selection.assign_though_full(flow, usize::from(self.view));
        }
    }
}

/// In the place of a scheduler that nobody asks: it has no answer.
#[derive(Debug)]
struct Absent(String);

impl Scheduler for Absent {
    fn name(&self) -> &str {
        &self.0
    }

    fn update(&mut self, _servers: &[ServerView], _now: Instant) {}

    fn pick(&mut self, _selection: &mut Selection<'_>, _now: Instant) {}
}

impl Shadow {
    /// Asks the same question, with the loads from before it, and counts.
    fn compare(&mut self, flows: &[NewFlow], views: &[ServerView], real: &[Option<u16>], now: Instant) {
        self.answers.clear();
        self.answers.resize(flows.len(), None);
        let mut selection = Selection::new(flows, views, &mut self.loads, &mut self.answers);
        self.scheduler.pick(&mut selection, now);
        for (real, would) in real.iter().zip(&self.answers) {
            self.asked += 1;
            self.agreed += u64::from(real == would);
            self.unanswered += u64::from(would.is_none());
            for (side, answer) in [real, would].into_iter().enumerate() {
                let Some(view) = answer.and_then(|place| views.get(usize::from(place))) else { continue };
                let count = self.flows.entry(view.id).or_default().get_mut(side);
                if let Some(count) = count {
                    *count += 1;
                }
            }
        }
    }

    /// The most flows for a weight among the servers that take any, in thousandths of the mean.
    fn imbalance(&self, views: &[ServerView], side: usize) -> u64 {
        let count = |view: &ServerView| {
            let both = self.flows.get(&view.id).copied().unwrap_or_default();
            u128::from(both.get(side).copied().unwrap_or(0))
        };
        let taking: Vec<&ServerView> = views.iter().filter(|view| view.is_member()).collect();
        let flows: u128 = taking.iter().map(|view| count(view)).sum();
        let weights: u128 = taking.iter().map(|view| u128::from(view.weight)).sum();
        let most = taking.iter().map(|view| {
            let mean = flows * u128::from(view.weight);
            (count(view) * weights * 1_000).checked_div(mean).unwrap_or(0)
        });
        u64::try_from(most.max().unwrap_or(0)).unwrap_or(u64::MAX)
    }
}
