//! A director under load: batches of new flows for one scheduler.

use evenkeel_engine::director::{NewFlow, Scheduler, Selection, ServerLoad, ServerView};
use evenkeel_plugin_host::Mode;

use crate::common::{at, flows, guest, load_plan, plan_of, servers};

/// Batches that a bench walks through, so that tables are looked up all over.
const BATCHES: usize = 128;

pub struct Farm {
    pub scheduler: Box<dyn Scheduler>,
    servers: Vec<ServerView>,
    loads: Vec<ServerLoad>,
    flows: Vec<NewFlow>,
    batch: usize,
    at: usize,
}

impl Farm {
    /// With 16 real servers and `batch` flows at a time, at most 32.
    pub fn new(mut scheduler: Box<dyn Scheduler>, batch: usize) -> Self {
        let servers = servers(&[1; 16]);
        scheduler.update(&servers, at(0));
        let flows = flows(0, u32::try_from(BATCHES * batch).unwrap());
        Self { scheduler, loads: vec![ServerLoad::default(); servers.len()], servers, flows, batch, at: 0 }
    }

    pub fn pick(&mut self) -> Option<u16> {
        self.at = (self.at + 1) % BATCHES;
        let flows = &self.flows[self.at * self.batch..(self.at + 1) * self.batch];
        let mut answers = [None; 32];
        let answers = &mut answers[..self.batch];
        let mut selection = Selection::new(flows, &self.servers, &mut self.loads, answers);
        self.scheduler.pick(&mut selection, at(1));
        answers[self.batch - 1]
    }
}

pub fn component(name: &str, mode: Mode) -> Box<dyn Scheduler> {
    load_plan(&plan_of(guest(name, "")), mode).unwrap().schedulers.remove("web").unwrap()
}
