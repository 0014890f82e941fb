//! Where the path sends packets to, and why a packet could not leave. The worker's ports stand behind it; a test's list
//! does as well. Who watches a packet stands between the path and its ports, and is told what the stages decide.

use super::observer::StageRecord;
use super::verdict::DropReason;
use crate::packet::frame::Frame;
use crate::snapshot::PortId;

/// Where the path sends packets to.
pub trait Egress {
    /// Sends a packet out of a port. Whatever is in the frame afterwards is not to be used: the packet may have been taken out
    /// of it, to leave together with those that follow.
    ///
    /// # Errors
    /// Why the packet could not be sent; it is gone. What was held back and could not leave later is told by
    /// [`count_unsent`](super::Forwarder::count_unsent).
    fn send(&mut self, now: u64, port: PortId, frame: &mut Frame) -> Result<(), SendFailure>;

    /// Whether [`Egress::stage`] is heard: known when the program is compiled, so that what is only made to be told costs
    /// forwarding nothing.
    #[inline(always)]
    fn observes(&self) -> bool {
        false
    }

    /// The stages begin with a packet that has no flow. Told of no other packet, so that whoever takes the time pays for first
    /// packets alone; the path has no clock.
    fn first_begins(&mut self) {}

    /// It has come to its end. How many nanoseconds that took, where the time was taken.
    fn first_ended(&mut self) -> Option<u64> {
        None
    }

    /// A stage has decided about the packet. The record is made only where somebody wants it.
    #[inline(always)]
    fn stage(&mut self, _record: impl FnOnce() -> StageRecord) {}
}

/// Why a packet could not leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendFailure {
    /// The device's queue is full.
    QueueFull,
    /// The packet exceeds what the device takes.
    TooBig,
    /// The device refused it.
    Device,
    /// The neighbour is not resolved yet.
    NeighbourUnknown,
    /// The worker has no such port.
    NoPort,
}

impl From<SendFailure> for DropReason {
    fn from(failure: SendFailure) -> Self {
        match failure {
            SendFailure::QueueFull => Self::EgressQueueFull,
            SendFailure::TooBig => Self::PacketTooBig,
            SendFailure::Device => Self::EgressFailed,
            SendFailure::NeighbourUnknown => Self::NeighbourUnknown,
            SendFailure::NoPort => Self::UnknownPort,
        }
    }
}
