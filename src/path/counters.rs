//! Counters of one worker. Written by that worker alone, read by anyone at any time: plain loads and stores of relaxed
//! atomics, no read-modify-write.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::nsg::Direction;
use super::verdict::{Answer, DropReason};

/// A counter with a single writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it. Only the owning worker may call this.
    #[inline]
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    /// Its value now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Sets a gauge. Only the owning worker may call this.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }
}

/// Sizes by which batches are counted, in packets; none is larger than the last.
pub const BATCH_SIZES: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

/// Times by which what takes long is counted, in nanoseconds: from less than a first packet takes in memory to more than anybody
/// wants to wait, each some twice the one before.
pub const TIMES: [u64; 16] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 25_000_000,
];

/// How long something took that was timed.
#[derive(Debug, Default)]
pub struct Times {
    /// How often it took up to each of [`TIMES`], and at last how often it took longer.
    pub counts: [Counter; TIMES.len() + 1],
    /// Nanoseconds of all.
    pub nanoseconds: Counter,
}

impl Times {
    /// Adds one. Only the owning worker may call this.
    pub fn add(&self, nanoseconds: u64) {
        if let Some(count) = self.counts.get(TIMES.partition_point(|time| *time < nanoseconds)) {
            count.add(1);
        }
        self.nanoseconds.add(nanoseconds);
    }
}

/// What one worker counts. Packets are counted as they come from the device: a super-packet is one.
#[derive(Debug)]
pub struct Counters {
    /// Packets received from ports.
    pub received: Counter,
    /// Bytes of received packets, from the IP header on.
    pub received_bytes: Counter,
    /// Received packets that were super-packets.
    pub received_super: Counter,
    /// Packets that the received super-packets stand for: what a device without offload would have delivered.
    pub received_segments: Counter,
    /// Batches that were read from a port, by how many packets they had: up to [`BATCH_SIZES`] each.
    pub batches: [Counter; BATCH_SIZES.len()],
    /// Packets in these batches.
    pub batched: Counter,
    /// How long batches took that were timed, from the read to the last write.
    pub batch_times: Times,
    /// Packets in the batches that were timed.
    pub timed_packets: Counter,
    /// How long packets that met no flow took, of those that were timed: from there to their end.
    pub first_packets: Times,
    /// How often the worker asked the kernel to wait for something to do; with packets there the answer comes at once.
    pub waits: Counter,
    /// Packets forwarded.
    pub forwarded: Counter,
    /// Bytes of forwarded packets.
    pub forwarded_bytes: Counter,
    /// Packets answered, by [`Answer`].
    pub answered: Vec<Counter>,
    /// Packets dropped, by [`DropReason`] and then by [`Direction`].
    pub dropped: Vec<[Counter; Direction::ALL.len()]>,
    /// Packets made here: ICMP errors and TCP resets that left.
    pub generated: Counter,
    /// Packets given to the worker that owns their flow.
    pub handed_over: Counter,
    /// Packets taken from other workers.
    pub taken_over: Counter,
    /// Packets that met a flow of this generation.
    pub flow_hits: Counter,
    /// Packets that met no flow.
    pub flow_misses: Counter,
    /// Flows made.
    pub flows_created: Counter,
    /// Flows that ended by their timer.
    pub flows_expired: Counter,
    /// Flows decided again under a newer generation with the same outcome.
    pub flows_kept: Counter,
    /// TCP flows that were reset because their path changed.
    pub flows_reset: Counter,
    /// Other flows that were moved to another path, or ended because there is none any more.
    pub flows_moved: Counter,
    /// Flows ended for others because there was no room.
    pub flows_evicted: Counter,
    /// Flows now.
    pub flows: Counter,
    /// Fragments that wait for the first of their packet now.
    pub fragments_held: Counter,
    /// Connections that have to name their resource, now.
    pub undecided: Counter,
    /// Connections that were ended because they did not name it in time.
    pub undecided_timeouts: Counter,
}

impl Counters {
    /// All at zero.
    pub fn new() -> Self {
        Self {
            received: Counter::default(),
            received_bytes: Counter::default(),
            received_super: Counter::default(),
            received_segments: Counter::default(),
            batches: Default::default(),
            batched: Counter::default(),
            batch_times: Times::default(),
            timed_packets: Counter::default(),
            first_packets: Times::default(),
            waits: Counter::default(),
            forwarded: Counter::default(),
            forwarded_bytes: Counter::default(),
            answered: Answer::ALL.iter().map(|_| Counter::default()).collect(),
            dropped: DropReason::ALL.iter().map(|_| Default::default()).collect(),
            generated: Counter::default(),
            handed_over: Counter::default(),
            taken_over: Counter::default(),
            flow_hits: Counter::default(),
            flow_misses: Counter::default(),
            flows_created: Counter::default(),
            flows_expired: Counter::default(),
            flows_kept: Counter::default(),
            flows_reset: Counter::default(),
            flows_moved: Counter::default(),
            flows_evicted: Counter::default(),
            flows: Counter::default(),
            fragments_held: Counter::default(),
            undecided: Counter::default(),
            undecided_timeouts: Counter::default(),
        }
    }

    /// Counts a batch of so many packets that was read from a port; nothing where it is empty.
    pub fn count_batch(&self, packets: usize) {
        if packets > 0 {
            let number = BATCH_SIZES.partition_point(|size| *size < packets).min(BATCH_SIZES.len() - 1);
            if let Some(counter) = self.batches.get(number) {
                counter.add(1);
            }
            self.batched.add(packets as u64);
        }
    }

    /// Counts one answered packet.
    pub fn count_answer(&self, answer: Answer) {
        if let Some(counter) = self.answered.get(answer as usize) {
            counter.add(1);
        }
    }

    /// Counts one dropped packet.
    pub fn count_drop(&self, reason: DropReason, direction: Direction) {
        self.count_drops(reason, direction, 1);
    }

    /// Counts dropped packets.
    pub fn count_drops(&self, reason: DropReason, direction: Direction, packets: u64) {
        if let Some(counter) = self.dropped.get(reason as usize).and_then(|by| by.get(direction as usize)) {
            counter.add(packets);
        }
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}
