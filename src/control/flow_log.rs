//! The flow log of a node: takes the workers' records while somebody wants them, puts them into words, and gives them to who
//! does: files in Azure's format, a collector, people who follow.
//!
//! A record that finds no room somewhere is counted there, and told: in the workers' queues, at a collector, with who follows.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::body::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{self, error::TrySendError};

use super::dataplane::Dataplane;
use super::refusal::Refusal;
use super::streamed::Streamed;
use crate::model::network::Network;
use crate::path::record::{Lost, Record, Records};
use crate::telemetry::flow_record::{FlowLogTotals, FlowRecord};
use crate::telemetry::ipfix::{Address, Exporter};
use crate::telemetry::vnet_flow_log::{Target, VnetFlowLog};

/// Records that are kept for who asks what was: some kilobytes each.
const KEPT: usize = 4_096;

/// Lines that wait for who follows.
const FOLLOWED: usize = 8_192;

/// Records that one look takes of each worker, so that it ends.
const TAKEN: usize = 1 << 16;

/// What a node logs of its own accord.
#[derive(Debug, Clone, Default)]
pub struct FlowLogOptions {
    /// Where files in Azure's format are written.
    pub folder: Option<PathBuf>,
    /// Of whom: networks, subnets (`network/subnet`) and NICs; none means a log for every subnet.
    pub targets: Vec<String>,
    /// How often they are written.
    pub interval: Duration,
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

/// Somebody who follows.
struct Follower {
    lines: mpsc::Sender<Bytes>,
    /// What it was not told yet that it lost.
    lost: u64,
}

/// What goes on while somebody wants records.
#[derive(Default)]
struct Going {
    /// The workers' queues; none while nobody wants records.
    queues: Vec<Arc<Records>>,
    /// Whether the node logs of its own accord.
    always: bool,
    kept: VecDeque<FlowRecord>,
    followers: Vec<Follower>,
    files: Option<VnetFlowLog>,
    interval: Duration,
    written: Option<SystemTime>,
    exporter: Option<Exporter>,
    totals: FlowLogTotals,
    /// What queues lost that are not there any more.
    lost_before: Lost,
}

/// The flow log of a node.
#[derive(Default)]
pub(crate) struct FlowLog {
    going: Mutex<Going>,
    /// Whether somebody wants records: else there is nothing to do.
    wanted: AtomicBool,
}

impl FlowLog {
    /// Begins to log of its own accord, from queues that the workers use from their first packet on.
    pub(crate) fn start(
        &self,
        queues: Vec<Arc<Records>>,
        files: Option<VnetFlowLog>,
        interval: Duration,
        exporter: Option<Exporter>,
    ) {
        let mut going = self.lock();
        (going.files, going.interval, going.exporter, going.always) = (files, interval, exporter, true);
        going.queues = queues;
        self.wanted.store(true, Relaxed);
    }

    fn begin(&self, going: &mut Going, dataplane: &dyn Dataplane) {
        if going.queues.is_empty() {
            going.queues = dataplane.log(true);
        }
        self.wanted.store(true, Relaxed);
    }

    /// Whether there is something to look at.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Relaxed)
    }

    /// Takes the records in that wait, gives them on, and writes what is due. To be called many times a second.
    pub(crate) fn look(&self, dataplane: &dyn Dataplane, regions: impl Fn() -> HashMap<String, String>) {
        if !self.is_wanted() {
            return;
        }
        let mut going = self.lock();
        going.take(epoch(dataplane));
        let idle = !going.always && going.followers.is_empty();
        if idle {
            let _ = dataplane.log(false);
            // What they made until then.
            going.take(epoch(dataplane));
            for queue in std::mem::take(&mut going.queues) {
                add(&mut going.lost_before, queue.lost());
            }
            self.wanted.store(false, Relaxed);
        }
        going.write_if_due(regions, false);
    }

    /// Takes what is left when the workers have ended, and writes everything.
    pub(crate) fn end(
        &self,
        dataplane: &dyn Dataplane,
        regions: impl Fn() -> HashMap<String, String>,
        rest: impl FnOnce(&mut dyn FnMut(Record)),
    ) {
        if !self.is_wanted() {
            return;
        }
        let mut going = self.lock();
        let epoch = epoch(dataplane);
        going.take(epoch);
        rest(&mut |record| going.add(&record, epoch));
        if let Some(exporter) = &mut going.exporter {
            exporter.flush();
        }
        going.write_if_due(regions, true);
        going.followers.clear();
    }

    /// The newest records, and the sums.
    pub(crate) fn newest(&self, most: usize) -> FlowLogAnswer {
        let going = self.lock();
        let skipped = going.kept.len().saturating_sub(most);
        FlowLogAnswer { totals: going.totals(), records: going.kept.iter().skip(skipped).cloned().collect() }
    }

    /// The sums.
    pub(crate) fn totals(&self) -> FlowLogTotals {
        self.lock().totals()
    }

    /// Everything from now on, as lines of JSON. Records are made as long as somebody follows.
    pub(crate) fn follow(&self, dataplane: &dyn Dataplane) -> Streamed {
        let (lines, received) = mpsc::channel(FOLLOWED);
        let mut going = self.lock();
        going.followers.push(Follower { lines, lost: 0 });
        self.begin(&mut going, dataplane);
        Streamed(received)
    }

    fn lock(&self) -> MutexGuard<'_, Going> {
        self.going.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Going {
    fn take(&mut self, epoch: u64) {
        for queue in self.queues.clone() {
            let lost = queue.lost().records;
            for _ in 0..TAKEN {
                let Some(record) = queue.take() else { break };
                self.add(&record, epoch);
            }
            let more = queue.lost().records.saturating_sub(lost);
            for follower in &mut self.followers {
                follower.lost += more;
            }
        }
        if let Some(exporter) = &mut self.exporter {
            exporter.flush();
        }
        self.followers.retain(|follower| !follower.lines.is_closed());
    }

    fn add(&mut self, record: &Record, epoch: u64) {
        let told = FlowRecord::new(record, epoch);
        self.totals.records += 1;
        if let Some(files) = &mut self.files {
            files.add(&told);
        }
        if let Some(exporter) = &mut self.exporter {
            exporter.add(&told);
        }
        if !self.followers.is_empty() {
            let line = line(&FlowLogLine::Record(Box::new(told.clone())));
            for follower in &mut self.followers {
                follower.tell(&line);
            }
        }
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(told);
    }

    fn write_if_due(&mut self, regions: impl Fn() -> HashMap<String, String>, at_once: bool) {
        let Some(files) = &mut self.files else { return };
        let now = SystemTime::now();
        let due = files.is_large()
            || self.written.is_none_or(|written| now.duration_since(written).unwrap_or_default() >= self.interval);
        if !due && !at_once {
            return;
        }
        self.written = Some(now);
        files.add_regions(regions());
        let result = files.flush(milliseconds(now));
        if at_once {
            files.give_up();
        }
        let (waiting, unwritten) = (files.waiting(), files.unwritten());
        self.totals.unwritten = unwritten;
        if let Err(error) = result {
            tracing::warn!(%error, cause = std::error::Error::source(&error), waiting, unwritten, "flow logs are not written");
        }
    }

    fn totals(&self) -> FlowLogTotals {
        let mut lost = self.lost_before;
        for queue in &self.queues {
            add(&mut lost, queue.lost());
        }
        let (exported, not_exported) = self.exporter.as_ref().map(Exporter::counts).unwrap_or_default();
        FlowLogTotals {
            lost_records: lost.records,
            lost_packets: lost.packets,
            lost_bytes: lost.bytes,
            exported,
            not_exported,
            ..self.totals.clone()
        }
    }
}

impl Follower {
    fn tell(&mut self, text: &Bytes) {
        if self.lost > 0 && self.lines.try_send(line(&FlowLogLine::Lost(self.lost))).is_ok() {
            self.lost = 0;
        }
        if let Err(TrySendError::Full(_)) = self.lines.try_send(text.clone()) {
            self.lost += 1;
        }
    }
}

fn line(line: &FlowLogLine) -> Bytes {
    // Nothing in it can fail to be written.
    let mut text = serde_json::to_vec(line).unwrap_or_default();
    text.push(b'\n');
    text.into()
}

fn add(sum: &mut Lost, lost: Lost) {
    sum.records += lost.records;
    sum.packets += lost.packets;
    sum.bytes += lost.bytes;
}

fn milliseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// When the workers' clock showed nothing, in milliseconds since 1970.
fn epoch(dataplane: &dyn Dataplane) -> u64 {
    milliseconds(SystemTime::now()).saturating_sub(dataplane.milliseconds())
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
    Ok(Some(VnetFlowLog::new(folder.clone(), targets, None)))
}
