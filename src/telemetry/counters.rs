//! The counters of all workers as one report, and the balance that has to hold: every packet received was forwarded,
//! answered or dropped with a name.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::path::counters::{Counter, Counters, Times};
use crate::path::{Answer, DropReason};

/// The sum of all workers' counters. Packets are counted as devices deliver them: a super-packet is one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Packets received from ports.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// How many of them were super-packets.
    pub received_super: u64,
    /// Packets that the super-packets stand for.
    #[serde(default)]
    pub received_segments: u64,
    /// Batches that workers read, by how many packets they had: up to
    /// [`BATCH_SIZES`](crate::path::counters::BATCH_SIZES) each.
    #[serde(default)]
    pub batches: Vec<u64>,
    /// Packets in these batches.
    #[serde(default)]
    pub batched: u64,
    /// How long batches took that were timed.
    #[serde(default)]
    pub batch_times: TimesReport,
    /// Packets in the batches that were timed.
    #[serde(default)]
    pub timed_packets: u64,
    /// How long first packets took that were timed.
    #[serde(default)]
    pub first_packets: TimesReport,
    /// How often workers asked the kernel to wait for something to do.
    #[serde(default)]
    pub waits: u64,
    /// Packets forwarded.
    pub forwarded: u64,
    /// Their bytes as received.
    pub forwarded_bytes: u64,
    /// Packets answered, by name; names that never occurred are left out.
    pub answered: BTreeMap<String, u64>,
    /// Packets dropped, by reason; reasons that never occurred are left out.
    pub dropped: BTreeMap<String, u64>,
    /// Those of them that came in: by an edge, the gateway, or from a service. A NIC sent the others.
    #[serde(default)]
    pub dropped_inbound: BTreeMap<String, u64>,
    /// ICMP errors and TCP resets made here that left.
    pub generated: u64,
    /// Packets given to the worker that owns their flow.
    pub handed_over: u64,
    /// Packets taken from other workers.
    pub taken_over: u64,
    /// Packets that met a flow.
    pub flow_hits: u64,
    /// Packets that met none.
    pub flow_misses: u64,
    /// Flows made.
    pub flows_created: u64,
    /// Flows that ended by their timer.
    pub flows_expired: u64,
    /// Flows decided again after a change with the same outcome.
    pub flows_kept: u64,
    /// TCP flows reset because their path changed.
    pub flows_reset: u64,
    /// Other flows that moved or ended after a change.
    pub flows_moved: u64,
    /// Flows ended for others because there was no room.
    pub flows_evicted: u64,
    /// Flows now.
    pub flows: u64,
    /// Most flows that there may be; [`Report::sum`] leaves it to whoever has the snapshot.
    #[serde(default)]
    pub flow_limit: u64,
    /// Fragments that wait for the first of their packet now.
    pub fragments_held: u64,
    /// Connections that have to name the resource that they want, now.
    #[serde(default)]
    pub undecided: u64,
    /// Connections that were ended because they did not name it in time.
    #[serde(default)]
    pub undecided_timeouts: u64,
    /// What the devices count themselves, by port; [`Report::sum`] leaves it to whoever has the devices.
    pub ports: BTreeMap<String, BTreeMap<String, u64>>,
}

/// How long something took.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimesReport {
    /// How often it took up to each of [`TIMES`](crate::path::counters::TIMES), and at last how often it took longer.
    pub counts: Vec<u64>,
    /// Nanoseconds of all.
    pub nanoseconds: u64,
}

impl TimesReport {
    /// How often it was timed.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    fn add(&mut self, times: &Times) {
        self.counts.resize(times.counts.len(), 0);
        for (sum, counter) in self.counts.iter_mut().zip(&times.counts) {
            *sum += counter.get();
        }
        self.nanoseconds += times.nanoseconds.get();
    }
}

impl Report {
    /// Sums the counters of workers. They go on counting, so the sum is exact only when nothing is on its way.
    pub fn sum(workers: &[Arc<Counters>]) -> Self {
        let mut report = Self::default();
        // What ended is read before what came in, of all workers: a packet on its way, also between workers, may be
        // missing among the ends, never among the beginnings.
        for worker in workers {
            for (answer, counter) in Answer::ALL.iter().zip(&worker.answered) {
                add(&mut report.answered, answer.name(), counter.get());
            }
            for (reason, counter) in DropReason::ALL.iter().zip(&worker.dropped) {
                let [outbound, inbound] = counter.each_ref().map(Counter::get);
                add(&mut report.dropped, reason.name(), outbound + inbound);
                add(&mut report.dropped_inbound, reason.name(), inbound);
            }
            report.forwarded += worker.forwarded.get();
            report.forwarded_bytes += worker.forwarded_bytes.get();
        }
        for worker in workers {
            report.received += worker.received.get();
            report.received_bytes += worker.received_bytes.get();
            report.received_super += worker.received_super.get();
            report.received_segments += worker.received_segments.get();
            report.batches.resize(worker.batches.len(), 0);
            for (sum, counter) in report.batches.iter_mut().zip(&worker.batches) {
                *sum += counter.get();
            }
            report.batched += worker.batched.get();
            report.batch_times.add(&worker.batch_times);
            report.timed_packets += worker.timed_packets.get();
            report.first_packets.add(&worker.first_packets);
            report.waits += worker.waits.get();
            report.generated += worker.generated.get();
            report.undecided += worker.undecided.get();
            report.undecided_timeouts += worker.undecided_timeouts.get();
            report.handed_over += worker.handed_over.get();
            report.taken_over += worker.taken_over.get();
            report.flow_hits += worker.flow_hits.get();
            report.flow_misses += worker.flow_misses.get();
            report.flows_created += worker.flows_created.get();
            report.flows_expired += worker.flows_expired.get();
            report.flows_kept += worker.flows_kept.get();
            report.flows_reset += worker.flows_reset.get();
            report.flows_moved += worker.flows_moved.get();
            report.flows_evicted += worker.flows_evicted.get();
            report.flows += worker.flows.get();
            report.fragments_held += worker.fragments_held.get();
        }
        report
    }

    /// Packets that were received, have not come to an end and are not held: 0 in a node at rest.
    pub fn unaccounted(&self) -> i128 {
        let ended = self.forwarded + self.answered.values().sum::<u64>() + self.dropped.values().sum::<u64>();
        i128::from(self.received) - i128::from(ended) - i128::from(self.fragments_held)
    }
}

fn add(map: &mut BTreeMap<String, u64>, name: &str, count: u64) {
    if count > 0 {
        *map.entry(name.to_owned()).or_default() += count;
    }
}
