//! A port without a device: a test puts packets in and takes packets out by a [`Handle`].
//!
//! Bounded like a device, and able to fail like one. Without segmentation offload it does what a device without it
//! needs: super-packets are cut and partial checksums finished before the other side sees them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::software::Software;
use super::{Port, SendError, send_error};
use crate::packet::frame::{Frame, Offload, SegmentKind};

/// How a memory port behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Packets that wait in each direction at most.
    pub capacity: usize,
    /// Super-packets and partial checksums pass as they are, as through a TUN device with offload; otherwise they are
    /// cut and finished on sending.
    pub offload: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { capacity: 4096, offload: true }
    }
}

/// A packet on its way through memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// From the IP header on.
    pub bytes: Vec<u8>,
    /// What is left to do for it.
    pub offload: Offload,
}

impl From<Vec<u8>> for Packet {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, offload: Offload::default() }
    }
}

/// A failure that a test asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The device's queue is full.
    Full,
    /// The packet is larger than the device takes.
    TooBig,
    /// The device refuses the packet.
    Device(io::ErrorKind),
    /// The kernel gives an error of this number.
    Errno(i32),
}

#[derive(Debug, Default)]
struct Shared {
    /// Towards the node.
    inbound: VecDeque<Packet>,
    /// From the node.
    outbound: VecDeque<Packet>,
    failures: VecDeque<Failure>,
    /// The number of the error that the next receive gives.
    failing: Option<i32>,
    gone: bool,
}

/// The node's end.
pub struct MemoryPort {
    settings: Settings,
    shared: Arc<Mutex<Shared>>,
    software: Software,
}

/// The test's end of a [`MemoryPort`].
#[derive(Debug, Clone)]
pub struct Handle {
    capacity: usize,
    shared: Arc<Mutex<Shared>>,
}

/// Makes a port and the handle to its other side.
pub fn port(settings: Settings) -> (MemoryPort, Handle) {
    let shared = Arc::new(Mutex::new(Shared::default()));
    let handle = Handle { capacity: settings.capacity, shared: shared.clone() };
    (MemoryPort { settings, shared, software: Software::default() }, handle)
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Handle {
    /// Puts a packet where the node receives it next; false if as many wait as may.
    pub fn inject(&self, packet: impl Into<Packet>) -> bool {
        let mut shared = lock(&self.shared);
        if shared.inbound.len() >= self.capacity {
            return false;
        }
        shared.inbound.push_back(packet.into());
        true
    }

    /// Takes the oldest packet that the node sent.
    pub fn collect(&self) -> Option<Packet> {
        lock(&self.shared).outbound.pop_front()
    }

    /// Takes all packets that the node sent, the oldest first.
    pub fn collect_all(&self) -> Vec<Packet> {
        lock(&self.shared).outbound.drain(..).collect()
    }

    /// Lets the node's next send fail; asked for again, the one after it.
    pub fn fail_next_send(&self, failure: Failure) {
        lock(&self.shared).failures.push_back(failure);
    }

    /// Lets the node's next receive fail with an error of the kernel, by its number.
    pub fn fail_next_receive(&self, errno: i32) {
        lock(&self.shared).failing = Some(errno);
    }

    /// Removes the device: once what waits is received, receiving and sending fail.
    pub fn remove(&self) {
        lock(&self.shared).gone = true;
    }
}

impl Port for MemoryPort {
    fn receive(&mut self, _now: Instant, batch: &mut [Frame]) -> io::Result<usize> {
        let mut shared = lock(&self.shared);
        if let Some(number) = shared.failing.take() {
            return Err(io::Error::from_raw_os_error(number));
        }
        let mut received = 0;
        for frame in batch {
            let Some(packet) = shared.inbound.pop_front() else { break };
            frame.set_packet(&packet.bytes);
            frame.offload = packet.offload;
            received += 1;
        }
        if received == 0 && shared.gone {
            return Err(io::Error::from(io::ErrorKind::NotConnected));
        }
        Ok(received)
    }

    fn send(&mut self, _now: Instant, frame: &mut Frame) -> Result<(), SendError> {
        let mut shared = lock(&self.shared);
        match shared.failures.pop_front() {
            Some(Failure::Full) => return Err(SendError::Full(None)),
            Some(Failure::TooBig) => return Err(SendError::TooBig),
            Some(Failure::Device(kind)) => return Err(SendError::Device(kind.into())),
            Some(Failure::Errno(number)) => return Err(send_error(io::Error::from_raw_os_error(number))),
            None => {}
        }
        if shared.gone {
            return Err(SendError::Device(io::ErrorKind::NotConnected.into()));
        }
        let capacity = self.settings.capacity;
        if self.settings.offload {
            if shared.outbound.len() >= capacity {
                return Err(SendError::Full(None));
            }
            shared.outbound.push_back(Packet { bytes: frame.bytes().to_vec(), offload: frame.offload });
            return Ok(());
        }
        self.software.finish(frame, |segment| {
            if shared.outbound.len() >= capacity {
                return Err(SendError::Full(None));
            }
            shared.outbound.push_back(Packet::from(segment.to_vec()));
            Ok(())
        })
    }

    fn takes(&self, _kind: SegmentKind) -> bool {
        self.settings.offload
    }

    fn readable(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn describe(&self) -> String {
        if self.settings.offload { "memory, offload tcp4 tcp6 udp".to_owned() } else { "memory, plain".to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::checksum;
    use crate::packet::frame::{Checksum, SegmentKind, Segmentation};

    /// An IPv4 TCP super-packet of segments of 1000 bytes.
    fn super_packet(segments: usize) -> Packet {
        let mut bytes = vec![0; 40 + segments * 1000];
        let length = u16::try_from(bytes.len()).expect("length");
        bytes[0] = 0x45;
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        bytes[8..10].copy_from_slice(&[64, 6]);
        bytes[32] = 5 << 4;
        let header = !checksum::sum(&bytes[..20]);
        bytes[10..12].copy_from_slice(&header.to_be_bytes());
        bytes[36..38].copy_from_slice(&(6 + length - 20).to_be_bytes());
        let segmentation = Some(Segmentation { kind: SegmentKind::TcpV4, size: 1000, ecn: false });
        Packet { bytes, offload: Offload { checksum: Checksum::Partial { start: 20, offset: 16 }, segmentation } }
    }

    fn frame(packet: &Packet) -> Frame {
        let mut frame = Frame::from_packet(&packet.bytes);
        frame.offload = packet.offload;
        frame
    }

    #[test]
    fn packets_pass_in_order_with_their_offload_state() {
        let (mut port, handle) = port(Settings::default());
        let now = Instant::now();
        assert!(handle.inject(super_packet(3)));
        assert!(handle.inject(vec![1; 40]));
        let mut batch = [Frame::new(), Frame::new(), Frame::new()];
        assert_eq!(port.receive(now, &mut batch).expect("receive"), 2);
        assert_eq!((batch[0].bytes(), batch[0].offload), (&super_packet(3).bytes[..], super_packet(3).offload));
        assert_eq!((batch[1].bytes(), batch[1].offload), (&[1; 40][..], Offload::default()));
        port.send(now, &mut batch[0]).expect("send");
        assert_eq!(handle.collect(), Some(super_packet(3)));
        assert_eq!(port.receive(now, &mut batch).expect("receive"), 0);
        assert!(port.readable().is_none());
    }

    #[test]
    fn without_offload_the_other_side_sees_whole_segments() {
        let (mut port, handle) = port(Settings { offload: false, ..Settings::default() });
        port.send(Instant::now(), &mut frame(&super_packet(3))).expect("send");
        let segments = handle.collect_all();
        assert_eq!(segments.len(), 3);
        for segment in &segments {
            assert_eq!((segment.bytes.len(), segment.offload), (1040, Offload::default()));
            let pseudo = u64::from(checksum::sum(&segment.bytes[12..20])) + 6 + 1020;
            let sum = checksum::fold(pseudo + u64::from(checksum::sum(&segment.bytes[20..])));
            assert_eq!(sum, 0xffff, "the checksum is right");
        }
    }

    #[test]
    fn both_directions_are_bounded() {
        let (mut port, handle) = port(Settings { capacity: 2, ..Settings::default() });
        let now = Instant::now();
        let accepted = (0..3).filter(|_| handle.inject(vec![0; 20])).count();
        let sent = (0..3).filter(|_| port.send(now, &mut Frame::from_packet(&[0; 20])).is_ok()).count();
        assert_eq!((accepted, sent), (2, 2));
        assert!(matches!(port.send(now, &mut Frame::from_packet(&[0; 20])), Err(SendError::Full(None))));
    }

    #[test]
    fn failures_come_in_the_order_asked_for() {
        let (mut port, handle) = port(Settings::default());
        let now = Instant::now();
        let mut packet = Frame::from_packet(&[0; 20]);
        handle.fail_next_send(Failure::Full);
        handle.fail_next_send(Failure::TooBig);
        handle.fail_next_send(Failure::Device(io::ErrorKind::BrokenPipe));
        assert!(matches!(port.send(now, &mut packet), Err(SendError::Full(None))));
        assert!(matches!(port.send(now, &mut packet), Err(SendError::TooBig)));
        assert!(matches!(port.send(now, &mut packet), Err(SendError::Device(_))));
        port.send(now, &mut packet).expect("and then it goes on");
        assert_eq!(handle.collect_all().len(), 1);
    }

    #[test]
    fn a_removed_device_gives_what_waits_and_then_fails() {
        let (mut port, handle) = port(Settings::default());
        let now = Instant::now();
        handle.inject(vec![0; 20]);
        handle.remove();
        let mut batch = [Frame::new(), Frame::new()];
        assert_eq!(port.receive(now, &mut batch).expect("what waits"), 1);
        assert!(port.receive(now, &mut batch).is_err());
        assert!(matches!(port.send(now, &mut batch[0]), Err(SendError::Device(_))));
    }
}
