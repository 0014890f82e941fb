//! Plain TUN device by the `tun-tap` crate: one packet a frame, no offload, one queue. For kernels and sandboxes without
//! the virtio net header, and the baseline of comparisons.
//!
//! Super-packets that come from other ports are cut in software and partial checksums are finished before writing.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use tun_tap::{Iface, Mode};

use super::software::Software;
use super::{Port, SendError, send_error, sys};
use crate::packet::frame::{Checksum, Frame};

/// A TUN device without offload.
pub(crate) struct Plain {
    interface: Iface,
    software: Software,
    cut_in_software: u64,
}

/// Makes a TUN device in the network namespace of the calling thread. An existing one of the name that nobody holds is
/// taken over: a caller that does not want that looks first.
pub(crate) fn open(name: &str) -> io::Result<Plain> {
    if name.is_empty() || name.len() > sys::NAME_MAX {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let interface = Iface::without_packet_info(name, Mode::Tun)?;
    rustix::io::ioctl_fionbio(sys::borrow_interface(&interface), true)?;
    sys::tun_set_offload(sys::borrow_interface(&interface), 0)?;
    Ok(Plain { interface, software: Software::default(), cut_in_software: 0 })
}

impl Port for Plain {
    fn receive(&mut self, _now: Instant, batch: &mut [Frame]) -> io::Result<usize> {
        let mut received = 0;
        while let Some(frame) = batch.get_mut(received) {
            frame.clear();
            match self.interface.recv(frame.room_mut()) {
                Ok(length) => {
                    frame.set_len(length);
                    received += 1;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) if received > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(received)
    }

    fn send(&mut self, _now: Instant, frame: &mut Frame) -> Result<(), SendError> {
        let interface = &self.interface;
        let write = |packet: &[u8]| loop {
            match interface.send(packet) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(send_error(error)),
            }
        };
        match (frame.offload.segmentation, frame.offload.checksum) {
            (None, Checksum::Complete | Checksum::Verified) => write(frame.bytes()),
            (segmentation, _) => {
                self.cut_in_software += u64::from(segmentation.is_some());
                self.software.finish(frame, write)
            }
        }
    }

    fn readable(&self) -> Option<BorrowedFd<'_>> {
        Some(sys::borrow_interface(&self.interface))
    }

    fn set_persistent(&mut self, persistent: bool) -> io::Result<()> {
        sys::tun_set_persistent(sys::borrow_interface(&self.interface), persistent)
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        vec![("cut_in_software", self.cut_in_software)]
    }

    fn describe(&self) -> String {
        format!("tun {}, plain", self.interface.name())
    }
}
