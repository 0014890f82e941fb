//! The queues that one worker owns, by port number.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::event::epoll;
use serde::{Deserialize, Serialize};

use super::gather::{Gather, Unsent};
use super::sample::Sample;
use crate::packet::frame::Frame;
use crate::packet::merge::{Merged, Piece};
use crate::path::{Egress, SendFailure};
use crate::port::{Port, SendError, errno};
use crate::snapshot::PortId;

/// What a port counts and was granted, for people.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PortReport {
    /// The port's number.
    pub port: u16,
    /// The worker that owns this queue of it.
    pub worker: u16,
    /// What the device was granted.
    pub device: String,
    /// What went through it.
    pub traffic: Traffic,
    /// The device's own counters.
    pub counters: BTreeMap<String, u64>,
}

/// What went through one queue of a port since its device was opened. A super-packet is one packet where it is received, and
/// as many as were put together where it was made here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Packets that the device delivered.
    pub received: u64,
    /// Their bytes, from the IP header on.
    pub received_bytes: u64,
    /// Packets that the device took: forwarded ones, and answers, errors and resets that were made here. One that had to be cut
    /// for its MTU is as many as it was cut into.
    pub sent: u64,
    /// Their bytes, from the IP header on.
    pub sent_bytes: u64,
}

/// What a worker asked of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Its next packets.
    Read,
    /// To take a packet.
    Write,
}

impl Operation {
    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// How often a port's device answered a worker with one error. Outlives the device: an error may have been its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortErrors {
    /// The port.
    pub port: PortId,
    /// The worker whose queue it was.
    pub worker: u16,
    /// What was asked.
    pub operation: Operation,
    /// What the kernel calls the error: `EIO`.
    pub errno: &'static str,
    /// How often.
    pub count: u64,
}

/// One queue of a port.
struct Queue {
    port: Box<dyn Port>,
    traffic: Traffic,
}

/// The queues of a worker by port number, and how they failed.
#[derive(Default)]
struct Queues {
    slots: Vec<Option<Queue>>,
    /// Few, and looked through only where there is another one.
    errors: Vec<PortErrors>,
}

impl Queues {
    fn get_mut(&mut self, id: PortId) -> Option<&mut Queue> {
        self.slots.get_mut(usize::from(id.0))?.as_mut()
    }

    #[cold]
    fn count_error(&mut self, port: PortId, operation: Operation, errno: &'static str) {
        let same = |known: &&mut PortErrors| (known.port, known.operation, known.errno) == (port, operation, errno);
        match self.errors.iter_mut().find(same) {
            Some(known) => known.count += 1,
            // Whose queue it is, is told where it is asked for.
            None => self.errors.push(PortErrors { port, worker: 0, operation, errno, count: 1 }),
        }
    }
}

/// Reasons for which a packet cannot leave: those of [`SendFailure`].
const FAILURES: usize = 5;

/// The ports of a worker.
pub(super) struct Ports {
    queues: Queues,
    epoll: OwnedFd,
    /// The time of this batch, for devices that delay.
    pub(super) now: Instant,
    /// Packets of this batch that may become super-packets.
    gather: Gather,
    /// Whether more packets of this batch follow, so that it is worth while.
    gathering: bool,
    /// What of it could not leave, by reason.
    unsent: Vec<Unsent>,
    /// How long batches take, from the read to the last write.
    pub(super) batches: Sample,
    /// How long first packets take.
    first_packets: Sample,
}

impl Ports {
    /// No ports; `epoll` is where their descriptors are watched, with the port's number as data.
    pub(super) fn new(epoll: OwnedFd) -> Self {
        let (gather, unsent) = (Gather::new(), Vec::with_capacity(FAILURES));
        let (batches, first_packets) = (Sample::default(), Sample::default());
        Self {
            queues: Queues::default(),
            epoll,
            now: Instant::now(),
            gather,
            gathering: false,
            unsent,
            batches,
            first_packets,
        }
    }

    pub(super) fn epoll(&self) -> &OwnedFd {
        &self.epoll
    }

    /// Adds a port, or replaces the one with its number.
    pub(super) fn add(&mut self, id: PortId, port: Box<dyn Port>) {
        self.close(id);
        let index = usize::from(id.0);
        if self.queues.slots.len() <= index {
            self.queues.slots.resize_with(index + 1, || None);
        }
        if let Some(descriptor) = port.readable() {
            let data = epoll::EventData::new_u64(u64::from(id.0));
            if let Err(error) = epoll::add(&self.epoll, descriptor.as_fd(), data, epoll::EventFlags::IN) {
                tracing::error!(port = id.0, %error, "the port's descriptor cannot be watched; it is not served");
                return;
            }
        }
        if let Some(slot) = self.queues.slots.get_mut(index) {
            *slot = Some(Queue { port, traffic: Traffic::default() });
        }
    }

    /// Closes a port that there is no more, and forgets how it failed: another one may get its number.
    pub(super) fn discard(&mut self, id: PortId) {
        self.close(id);
        self.queues.errors.retain(|errors| errors.port != id);
    }

    /// Closes a port whose device is gone or broken, as it says.
    pub(super) fn lose(&mut self, id: PortId, error: &io::Error) {
        self.queues.count_error(id, Operation::Read, errno::name(error));
        self.remove(id);
    }

    /// Closes a port whose device is not to outlive it.
    fn close(&mut self, id: PortId) {
        if let Some(port) = self.get_mut(id)
            && let Err(error) = port.set_persistent(false)
        {
            tracing::warn!(port = id.0, %error, "the port's device may stay");
        }
        self.remove(id);
    }

    /// Closes a port.
    fn remove(&mut self, id: PortId) {
        if let Some(port) = self.queues.slots.get_mut(usize::from(id.0)).and_then(Option::take)
            && let Some(descriptor) = port.port.readable()
        {
            let _ = epoll::delete(&self.epoll, descriptor.as_fd());
        }
    }

    pub(super) fn get_mut(&mut self, id: PortId) -> Option<&mut (dyn Port + 'static)> {
        Some(&mut *self.queues.get_mut(id)?.port)
    }

    /// Counts what a port has delivered.
    pub(super) fn received(&mut self, id: PortId, packets: usize, bytes: usize) {
        if let Some(Queue { traffic, .. }) = self.queues.get_mut(id) {
            traffic.received += packets as u64;
            traffic.received_bytes += bytes as u64;
        }
    }

    /// Begins a batch of so many packets: those that follow each other in it may leave as super-packets.
    pub(super) fn gather(&mut self, packets: usize) {
        self.gathering = packets > 1;
    }

    /// Ends the batch: everything leaves. What could not is told, after the path took it for sent.
    pub(super) fn finish(&mut self) -> impl Iterator<Item = Unsent> {
        self.gathering = false;
        let Self { queues, gather, unsent, now, .. } = self;
        gather.give_up_all(|port, merged| write(queues, unsent, *now, port, merged));
        unsent.drain(..)
    }

    /// The earliest time at which a port has something to do by itself.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.queues.slots.iter().flatten().filter_map(|queue| queue.port.deadline()).min()
    }

    /// Numbers of ports that have something to do by now.
    pub(super) fn due(&self, now: Instant, due: &mut Vec<PortId>) {
        due.clear();
        for (id, port) in (0..).zip(&self.queues.slots) {
            if port.as_ref().and_then(|queue| queue.port.deadline()).is_some_and(|deadline| deadline <= now) {
                due.push(PortId(id));
            }
        }
    }

    /// Numbers of ports without a descriptor: they are asked each time.
    pub(super) fn polled(&self, polled: &mut Vec<PortId>) {
        polled.clear();
        for (id, port) in (0..).zip(&self.queues.slots) {
            if port.as_ref().is_some_and(|queue| queue.port.readable().is_none()) {
                polled.push(PortId(id));
            }
        }
    }

    pub(super) fn report(&self, worker: u16) -> Vec<PortReport> {
        let report = |(port, queue): (u16, &Option<Queue>)| {
            queue.as_ref().map(|Queue { port: device, traffic }| PortReport {
                port,
                worker,
                device: device.describe(),
                traffic: *traffic,
                counters: device.counters().into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            })
        };
        (0..).zip(&self.queues.slots).filter_map(report).collect()
    }

    /// How ports failed, those too that are closed.
    pub(super) fn errors(&self, worker: u16) -> Vec<PortErrors> {
        self.queues.errors.iter().map(|errors| PortErrors { worker, ..*errors }).collect()
    }
}

impl Egress for Ports {
    fn send(&mut self, _now: u64, port: PortId, frame: &mut Frame) -> Result<(), SendFailure> {
        let Self { queues, gather, gathering, unsent, now, .. } = self;
        if *gathering {
            let queue = queues.get_mut(port).ok_or(SendFailure::NoPort)?;
            match Piece::of(frame).filter(|piece| queue.port.takes(piece.kind)) {
                Some(piece) => {
                    gather.take(port, frame, piece, |port, merged| write(queues, unsent, *now, port, merged));
                    return Ok(());
                }
                // It may be of the same flow as one that waits.
                None => gather.give_up_port(port, |port, merged| write(queues, unsent, *now, port, merged)),
            }
        }
        let bytes = frame.len() as u64;
        send(queues, *now, port, frame, 1, bytes)
    }

    fn first_begins(&mut self) {
        self.first_packets.begin();
    }

    fn first_ended(&mut self) -> Option<u64> {
        self.first_packets.end()
    }
}

/// Writes what was gathered; a failure is kept for the end of the batch.
fn write(queues: &mut Queues, unsent: &mut Vec<Unsent>, now: Instant, port: PortId, merged: &mut Merged) {
    let (packets, bytes) = (merged.count() as u64, merged.bytes() as u64);
    let Err(failure) = send(queues, now, port, merged.finish(), packets, bytes) else { return };
    match unsent.iter_mut().find(|before| before.failure == failure) {
        Some(before) => {
            before.packets += packets;
            before.bytes += bytes;
        }
        None => unsent.push(Unsent { failure, packets, bytes }),
    }
}

/// Sends a frame, which counts as so many packets of so many bytes in all.
fn send(
    queues: &mut Queues,
    now: Instant,
    port: PortId,
    frame: &mut Frame,
    packets: u64,
    bytes: u64,
) -> Result<(), SendFailure> {
    let queue = queues.get_mut(port).ok_or(SendFailure::NoPort)?;
    if let Err(error) = queue.port.send(now, frame) {
        if let Some(errno) = error.errno() {
            queues.count_error(port, Operation::Write, errno);
        }
        return Err(match error {
            SendError::Full(_) => SendFailure::QueueFull,
            SendError::TooBig => SendFailure::TooBig,
            SendError::Device(_) => SendFailure::Device,
            SendError::NeighbourUnknown => SendFailure::NeighbourUnknown,
        });
    }
    queue.traffic.sent += packets;
    queue.traffic.sent_bytes += bytes;
    Ok(())
}
