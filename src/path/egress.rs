//! Where the path sends packets to, and why a packet could not leave. The worker's ports stand behind it; a test's list
//! does as well.

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
