//! The flow log of a node: takes the workers' records while somebody wants them, and gives them to who does: files in Azure's
//! format, a collector, people who follow, and who asks for the newest.
//!
//! A record that finds no room somewhere is counted there, and told: in the workers' queues, at files and collector, with who
//! follows. Nothing is put into words that nobody wants. What takes time (files, a collector) has a thread of its own: the lock
//! here is held while records are taken and put into lines, never while something is written, and sums do not need it.

mod batch;
mod follower;
mod outlet;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::dataplane::Dataplane;
use super::refusal::Refusal;
use super::round_trips::{RoundTrip, RoundTrips};
use super::streamed::Streamed;
use crate::model::network::Network;
use crate::path::record::{Lost, Record, Records};
use crate::telemetry::flow_record::{FlowLogTotals, FlowRecord};
use crate::telemetry::ipfix::{self, Address, Exporter};
use crate::telemetry::vnet_flow_log::{self, Target, VnetFlowLog};
use batch::Batch;
use follower::Follower;
use outlet::{Collector, Files, Outlet, Sums};

/// Records that are kept for who asks what was: some kilobytes each.
const KEPT: usize = 4_096;

/// Records that are given on together at most. They are less than 64 KiB then, and so is a piece of lines: an allocator that is
/// given back more puts all of its small pieces together each time.
const TOGETHER: usize = (64 << 10) / size_of::<Record>() - 1;

/// Records that one look takes of each worker, so that it ends.
const TAKEN: usize = 1 << 16;

/// How many may follow: what waits for each is bounded, too.
const MOST_FOLLOWERS: usize = 16;

/// By how much the wall clock may differ from the workers' before it is believed that it was set, in milliseconds: until then
/// what is told of one flow is told by one clock.
const STEP: u64 = 1_000;

/// How long the end of a node waits for files and collector to take what is left, and then for what they have taken to be
/// written.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a node logs of its own accord.
#[derive(Debug, Clone, Default)]
pub struct FlowLogOptions {
    /// Where files in Azure's format are written.
    pub folder: Option<PathBuf>,
    /// Of whom: networks, subnets (`network/subnet`) and NICs; none means a log for every subnet.
    pub targets: Vec<String>,
    /// How often they are written.
    pub interval: Duration,
    /// After how many days they are deleted; none: never.
    pub retention: Option<u32>,
    /// An IPFIX collector.
    pub collector: Option<Address>,
}

/// The newest records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowLogAnswer {
    /// Sums since the start.
    pub totals: FlowLogTotals,
    /// The newest records, the oldest of them first.
    pub records: Vec<FlowRecord>,
}

/// One line of what is followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowLogLine {
    /// A record.
    Record(Box<FlowRecord>),
    /// So many records were not told here: the reader was too slow, or the workers had no room.
    Lost(u64),
}

/// What goes on while somebody wants records.
#[derive(Default)]
struct Going {
    /// Whether the node logs of its own accord.
    always: bool,
    /// The newest records, the oldest of them first, and how many they are.
    kept: VecDeque<Arc<Batch>>,
    kept_records: usize,
    followers: Vec<Follower>,
    files: Option<Outlet>,
    collector: Option<Outlet>,
    round_trips: RoundTrips,
    /// When the workers' clock showed nothing, in milliseconds since 1970.
    epoch: Option<u64>,
    /// The generation that the last record was decided under.
    generation: u64,
    /// The generation whose regions the files know.
    regions: Option<u64>,
}

/// The workers' queues; none while nobody wants records.
#[derive(Default)]
struct Queues {
    queues: Vec<Arc<Records>>,
    /// What queues lost that are not there any more.
    lost_before: Lost,
}

/// The flow log of a node.
#[derive(Default)]
pub(crate) struct FlowLog {
    going: Mutex<Going>,
    /// Held for moments only.
    queues: Mutex<Queues>,
    sums: Arc<Sums>,
    /// Whether somebody wants records: else there is nothing to do.
    wanted: AtomicBool,
}

impl FlowLog {
    /// Begins to log of its own accord, from queues that the workers use from their first packet on.
    ///
    /// # Errors
    /// When there is no thread.
    pub(crate) fn start(
        &self,
        queues: Vec<Arc<Records>>,
        files: Option<VnetFlowLog>,
        interval: Duration,
        exporter: Option<Exporter>,
    ) -> io::Result<()> {
        let mut going = lock(&self.going);
        let files = files.map(|files| Files::new(files, interval, self.sums.clone()));
        going.files = files.map(|files| Outlet::start("flow-log", files)).transpose()?;
        let collector = exporter.map(|exporter| Collector::new(exporter, self.sums.clone()));
        going.collector = collector.map(|collector| Outlet::start("ipfix", collector)).transpose()?;
        going.always = true;
        lock(&self.queues).queues = queues;
        self.wanted.store(true, Relaxed);
        Ok(())
    }

    /// Whether there is something to look at.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Relaxed)
    }

    /// Takes the records in that wait, and gives them on. To be called many times a second. `generation` is the one in force,
    /// and `regions` those of its virtual networks.
    pub(crate) fn look(
        &self,
        dataplane: &dyn Dataplane,
        generation: u64,
        regions: impl FnOnce() -> HashMap<String, String>,
    ) {
        if !self.is_wanted() {
            return;
        }
        let mut going = lock(&self.going);
        going.tell_regions(generation, regions);
        self.take(&mut going, dataplane);
        self.narrow(&going);
        if going.is_for_round_trips() && !going.round_trips.is_wanted() {
            let _ = dataplane.log(false);
            // What they made until then.
            self.take(&mut going, dataplane);
            self.forget_queues();
            self.wanted.store(false, Relaxed);
        }
    }

    /// Takes what is left when the workers have ended, and waits until everything is written.
    pub(crate) fn end(
        &self,
        dataplane: &dyn Dataplane,
        generation: u64,
        regions: impl FnOnce() -> HashMap<String, String>,
        rest: impl FnOnce(&mut dyn FnMut(Record)),
    ) {
        if !self.is_wanted() {
            return;
        }
        let mut going = lock(&self.going);
        going.tell_regions(generation, regions);
        self.take(&mut going, dataplane);
        let until = Some(Instant::now() + PATIENCE);
        let mut together = Vec::with_capacity(TOGETHER);
        let only_round_trips = going.is_for_round_trips();
        rest(&mut |record| {
            if only_round_trips {
                return;
            }
            together.push(record);
            if together.len() == TOGETHER {
                self.give(&mut going, std::mem::replace(&mut together, Vec::with_capacity(TOGETHER)), until);
            }
        });
        self.give(&mut going, together, until);
        let lost = self.lost().records;
        going.followers.drain(..).for_each(|follower| follower.end(lost));
        let outlets = [going.files.take(), going.collector.take()];
        drop(going);
        // Together: each has the rest of the time, whatever the other does.
        let outlets: Vec<_> = outlets.into_iter().flatten().map(Outlet::close).collect();
        let until = Instant::now() + PATIENCE;
        outlets.into_iter().for_each(|outlet| outlet.end(until));
    }

    /// The newest records, and the sums.
    pub(crate) fn newest(&self, most: usize) -> FlowLogAnswer {
        let batches: Vec<_> = lock(&self.going).kept.iter().cloned().collect();
        let mut records: Vec<_> =
            batches.iter().rev().flat_map(|batch| batch.words().rev()).take(most).cloned().collect();
        records.reverse();
        FlowLogAnswer { totals: self.totals(), records }
    }

    /// The sums.
    pub(crate) fn totals(&self) -> FlowLogTotals {
        let (lost, sums) = (self.lost(), &self.sums);
        FlowLogTotals {
            records: sums.records.load(Relaxed),
            lost_records: lost.records,
            lost_packets: lost.packets,
            lost_bytes: lost.bytes,
            unwritten: sums.unwritten.load(Relaxed),
            exported: sums.exported.load(Relaxed),
            not_exported: sums.not_exported.load(Relaxed),
        }
    }

    /// Everything from now on, as lines of JSON. Records are made as long as somebody follows.
    ///
    /// # Errors
    /// [`Refusal::Conflict`] where as many follow as may.
    pub(crate) fn follow(&self, dataplane: &dyn Dataplane) -> Result<Streamed, Refusal> {
        let mut going = lock(&self.going);
        going.followers.retain(|follower| !follower.is_gone());
        if going.followers.len() >= MOST_FOLLOWERS {
            return Err(Refusal::Conflict(format!(
                "{MOST_FOLLOWERS} follow the flow log, as many as may: end one of them, or try again"
            )));
        }
        if going.is_for_round_trips() {
            // Flows have not been told so far: they are from here on.
            let _ = dataplane.log(false);
            self.take(&mut going, dataplane);
            self.forget_queues();
        }
        let (follower, streamed) = Follower::new(self.lost().records);
        going.followers.push(follower);
        self.begin(&going, dataplane);
        Ok(streamed)
    }

    /// How long first answers took since somebody asked last. Records of them, and of nothing else, are made as long as somebody
    /// asks again and again.
    pub(crate) fn round_trips(&self, dataplane: &dyn Dataplane) -> Vec<RoundTrip> {
        let mut going = lock(&self.going);
        let told = going.round_trips.ask();
        self.begin(&going, dataplane);
        told
    }

    /// Lets the workers make records, as many as are wanted.
    fn begin(&self, going: &Going, dataplane: &dyn Dataplane) {
        let is_first = lock(&self.queues).queues.is_empty();
        if is_first {
            let queues = dataplane.log(true);
            lock(&self.queues).queues = queues;
        }
        self.narrow(going);
        self.wanted.store(true, Relaxed);
    }

    /// Takes nothing more from the queues that there are.
    fn forget_queues(&self) {
        let mut queues = lock(&self.queues);
        for queue in std::mem::take(&mut queues.queues) {
            add(&mut queues.lost_before, queue.lost());
        }
    }

    /// Lets workers make no more records than are wanted.
    fn narrow(&self, going: &Going) {
        let only_replies = going.is_for_round_trips();
        lock(&self.queues).queues.iter().for_each(|queue| queue.want_only_replies(only_replies));
    }

    /// What found no room in the workers' queues.
    fn lost(&self) -> Lost {
        let queues = lock(&self.queues);
        let mut lost = queues.lost_before;
        queues.queues.iter().for_each(|queue| add(&mut lost, queue.lost()));
        lost
    }

    fn take(&self, going: &mut Going, dataplane: &dyn Dataplane) {
        going.set_clock(milliseconds(SystemTime::now()), dataplane.milliseconds());
        let queues = lock(&self.queues).queues.clone();
        let mut together = Vec::with_capacity(TOGETHER);
        for queue in queues {
            for _ in 0..TAKEN {
                let Some(record) = queue.take() else { break };
                together.push(record);
                if together.len() == TOGETHER {
                    self.give(going, std::mem::replace(&mut together, Vec::with_capacity(TOGETHER)), None);
                }
            }
        }
        self.give(going, together, None);
        going.followers.retain(|follower| !follower.is_gone());
        let lost = self.lost().records;
        going.followers.iter_mut().for_each(|follower| follower.look(lost));
    }

    /// Gives records to all who want them. Files and collector take them later, or not at all where they have too many: they
    /// are waited for until a time, if any is said.
    fn give(&self, going: &mut Going, records: Vec<Record>, until: Option<Instant>) {
        let Some(generation) = records.last().map(|record| record.snapshot.generation) else { return };
        records.iter().for_each(|record| going.round_trips.add(record));
        if going.is_for_round_trips() {
            return;
        }
        self.sums.records.fetch_add(records.len() as u64, Relaxed);
        let batch = Arc::new(Batch::new(records, going.epoch.unwrap_or_default()));
        if let Some(files) = &going.files
            && !files.give(&batch, until)
        {
            let tuples = batch.records().iter().map(vnet_flow_log::tuples_of).sum();
            self.sums.unwritten.fetch_add(tuples, Relaxed);
        }
        if let Some(collector) = &going.collector
            && !collector.give(&batch, until)
        {
            let records = batch.records().iter().map(ipfix::data_records).sum();
            self.sums.not_exported.fetch_add(records, Relaxed);
        }
        if !going.followers.is_empty() {
            for piece in follower::pieces(&batch) {
                going.followers.iter_mut().for_each(|follower| follower.tell(&piece));
            }
        }
        going.keep(batch, generation);
    }
}

impl Going {
    /// Whether records are wanted for nothing but how long first answers take.
    fn is_for_round_trips(&self) -> bool {
        !self.always && self.followers.is_empty()
    }

    /// Tells files where virtual networks are, before records come that are of these.
    fn tell_regions(&mut self, generation: u64, regions: impl FnOnce() -> HashMap<String, String>) {
        if let Some(files) = &self.files
            && self.regions != Some(generation)
        {
            files.tell(regions());
            self.regions = Some(generation);
        }
    }

    /// Sets the workers' clock by the wall clock, if that was set.
    fn set_clock(&mut self, wall: u64, workers: u64) {
        let epoch = wall.saturating_sub(workers);
        if self.epoch.is_none_or(|before| before.abs_diff(epoch) >= STEP) {
            self.epoch = Some(epoch);
        }
    }

    fn keep(&mut self, batch: Arc<Batch>, generation: u64) {
        if self.generation < generation {
            self.generation = generation;
            // Snapshots that are not in force any more are not held for what is kept.
            self.kept.iter_mut().for_each(|kept| *kept = Arc::new(kept.only_words()));
        }
        self.kept_records += batch.len();
        self.kept.push_back(batch);
        while let Some(first) = self.kept.front().filter(|first| self.kept_records - first.len() >= KEPT) {
            self.kept_records -= first.len();
            self.kept.pop_front();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn add(sum: &mut Lost, lost: Lost) {
    sum.records += lost.records;
    sum.packets += lost.packets;
    sum.bytes += lost.bytes;
}

fn milliseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// Makes files for what the command line names.
///
/// # Errors
/// The name that is none of the network's.
pub(crate) fn files(options: &FlowLogOptions, network: &Network) -> Result<Option<VnetFlowLog>, Refusal> {
    let Some(folder) = &options.folder else { return Ok(None) };
    let is_network = |name: &str| network.virtual_networks.iter().any(|known| known.name == name);
    let mut targets = Vec::new();
    for name in &options.targets {
        let target = Target::named(name, is_network);
        let known = match &target {
            Target::Network(_) => true,
            Target::Subnet(virtual_network, subnet) => network
                .virtual_networks
                .iter()
                .any(|known| known.name == *virtual_network && known.subnets.iter().any(|known| known.name == *subnet)),
            Target::Nic(nic) => network.nics.iter().any(|known| known.name == *nic),
        };
        if !known {
            return Err(Refusal::Unknown(format!(
                "--flow-log-target {name}: the document has no virtual network, subnet (NETWORK/SUBNET) or NIC of that name"
            )));
        }
        targets.push(target);
    }
    Ok(Some(VnetFlowLog::new(folder.clone(), targets, options.retention)))
}

#[cfg(test)]
pub(super) mod tests;
