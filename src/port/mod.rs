//! Devices behind one trait: where packets enter and leave a node.
//!
//! A device is opened with as many queues as there are workers; each worker owns one [`Port`] of it, so a port needs no
//! lock. Wrappers ([`link`], [`pcap`]) are ports around ports.

pub mod errno;
mod ethernet;
pub mod link;
pub mod memory;
pub mod namespace;
mod neighbour;
pub mod netlink;
pub mod open;
pub mod pcap;
pub mod pcapng;
mod plain;
mod resolution;
mod software;
pub(crate) mod sys;
mod tun;
mod vnet;

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use crate::packet::frame::{Frame, SegmentKind};

/// What ports ask of their device by `ioctl` once they are open.
pub const REQUESTS: &[u32] = &[sys::TUNSETPERSIST, sys::TUNSETOFFLOAD];

pub use sys::prefer_huge_pages;

/// One queue of a device, owned by one worker.
pub trait Port: Send {
    /// Reads packets into the frames of `batch` from its front and returns how many there are; 0 means that there is
    /// nothing now. Never blocks. A frame that was filled holds a packet from its IP header on and its offload state.
    ///
    /// # Errors
    /// When the device is gone or broken; what was read before is returned first.
    fn receive(&mut self, now: Instant, batch: &mut [Frame]) -> io::Result<usize>;

    /// Sends one packet, which the port may change (headers in front, finished checksums). Never blocks.
    ///
    /// # Errors
    /// [`SendError`]: the packet is gone, the port goes on.
    fn send(&mut self, now: Instant, frame: &mut Frame) -> Result<(), SendError>;

    /// Whether the device takes super-packets of a kind whole, so that packets are better merged than sent one by one. Wrappers
    /// say no: lines delay and captures show each packet by itself.
    fn takes(&self, _kind: SegmentKind) -> bool {
        false
    }

    /// Descriptor that becomes readable when there is something to receive; none for ports without a device.
    fn readable(&self) -> Option<BorrowedFd<'_>>;

    /// When the port has something to do by itself (a delayed packet is due): the worker calls
    /// [`Port::advance`] no later than that.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// Does what is due. After it, [`Port::receive`] may have packets though the descriptor is not readable.
    fn advance(&mut self, _now: Instant) {}

    /// Lets the device, with its addresses and routes, outlive the process, or not. Ports whose device is not theirs have
    /// nothing to do.
    ///
    /// # Errors
    /// When the device is gone.
    fn set_persistent(&mut self, _persistent: bool) -> io::Result<()> {
        Ok(())
    }

    /// Counters of the device's own, by name; shown, never interpreted.
    fn counters(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// What the device was granted: `plain`, `offload tcp4 tcp6 udp`, for people and metrics.
    fn describe(&self) -> String;
}

/// Why a packet could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The device's queue is full; try later, or drop. With the number of the kernel's error, where it was the kernel that said so.
    #[error("the device's queue is full")]
    Full(Option<i32>),
    /// The packet exceeds the device's MTU and cannot be cut.
    #[error("the packet is larger than the device's MTU")]
    TooBig,
    /// The device refused the packet or is gone.
    #[error("the device refused the packet: {0}")]
    Device(#[from] io::Error),
    /// The link layer does not know the neighbour yet; resolution has been started.
    #[error("the neighbour's link-layer address is not known")]
    NeighbourUnknown,
}

/// What a failed write of a packet means to the sender.
fn send_error(error: io::Error) -> SendError {
    match error.raw_os_error() {
        Some(number @ (libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM)) => SendError::Full(Some(number)),
        Some(libc::EMSGSIZE) => SendError::TooBig,
        _ => SendError::Device(error),
    }
}

/// A packet that no device would take, since its offload state does not fit it.
fn refused(error: vnet::VnetError) -> SendError {
    SendError::Device(io::Error::new(io::ErrorKind::InvalidData, error))
}
