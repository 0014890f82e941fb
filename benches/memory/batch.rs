//! Packets in batches through the path of one worker, timed.

use std::hint::black_box;
use std::time::Duration;

use sidestep::packet::frame::Frame;
use sidestep::path::Forwarder;
use sidestep::snapshot::PortId;

use crate::forwarding::{Sink, processor_time};

/// Packets that a worker reads before it knows that they are small and of flows.
const FIRST: usize = 8;

/// Takes packets to their ends as a worker does with what it reads in one turn: a few, then the rest of the turn.
fn take(forwarder: &mut Forwarder, now: u64, port: PortId, frames: &mut [Frame]) {
    let (first, rest) = frames.split_at_mut(FIRST.min(frames.len()));
    for batch in [first, rest] {
        forwarder.approach(port, batch);
        for frame in batch {
            black_box(forwarder.receive(now, port, frame, &mut Sink));
        }
    }
}

/// Packets of one length, one behind the other: a processor that reads them in their order foresees the next.
#[derive(Debug, Default)]
pub(crate) struct Packets {
    bytes: Vec<u8>,
    length: usize,
}

impl Packets {
    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.bytes.len() / self.length.max(1)
    }

    /// As many of them, from the first on.
    pub(crate) fn first(&self, count: usize) -> Self {
        Self { bytes: self.bytes[..count * self.length].to_vec(), length: self.length }
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.chunks_exact(self.length.max(1))
    }
}

impl FromIterator<Vec<u8>> for Packets {
    fn from_iter<I: IntoIterator<Item = Vec<u8>>>(packets: I) -> Self {
        let mut all = Self::default();
        for packet in packets {
            assert!(all.length == 0 || all.length == packet.len(), "packets of one length");
            all.length = packet.len();
            all.bytes.extend_from_slice(&packet);
        }
        all
    }
}

/// The frames of a batch.
#[derive(Debug)]
pub(crate) struct Batch(Vec<Frame>);

impl Batch {
    /// So many.
    pub(crate) fn new(frames: usize) -> Self {
        Self((0..frames).map(|_| Frame::new()).collect())
    }

    /// Nanoseconds that the path takes for a packet.
    ///
    /// The frames of a batch are filled, then taken through the path; then the same packets are copied into the frames once
    /// more and nothing else, and what that takes is subtracted. So what is counted is everything from a frame with a packet
    /// on: to parse it, to find or to make its flow, to rewrite it, to count it, and to hand it to an egress that keeps
    /// nothing.
    pub(crate) fn path(&mut self, forwarder: &mut Forwarder, now: u64, port: PortId, packets: &Packets) -> f64 {
        let both = self.each(packets, |frames| take(forwarder, now, port, frames));
        (both.as_nanos() as f64 - self.copying(packets).as_nanos() as f64) / packets.count() as f64
    }

    /// The time that it takes to copy packets into the frames.
    pub(crate) fn copying(&mut self, packets: &Packets) -> Duration {
        self.each(packets, |frames| _ = black_box(frames))
    }

    /// Takes packets through the path untimed.
    pub(crate) fn pass(&mut self, forwarder: &mut Forwarder, now: u64, port: PortId, packets: &Packets) {
        self.each(packets, |frames| take(forwarder, now, port, frames));
    }

    fn each(&mut self, packets: &Packets, mut then: impl FnMut(&mut [Frame])) -> Duration {
        let Self(frames) = self;
        let start = processor_time();
        let mut filled = 0;
        for packet in packets.iter() {
            frames[filled].set_packet(packet);
            filled += 1;
            if filled == frames.len() {
                then(frames);
                filled = 0;
            }
        }
        then(&mut frames[..filled]);
        processor_time() - start
    }
}
