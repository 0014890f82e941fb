//! TUN device with the virtio net header, segmentation offload and several queues: the default port.
//!
//! The kernel hands over super-packets of up to 64 KiB with unfinished checksums, and takes them back as they are. What
//! it may leave to us is probed from the richest set down when the device is opened. A kernel can still refuse a
//! segmented write; then the kind of segments is given up for the device, aloud: from there on such packets are cut in
//! software, and the kernel is told to make no more of them. Since header and packet are checked against each other
//! before ([`vnet`]), a refusal speaks of the kernel and not of the packet.
//!
//! A device of one queue is opened without `IFF_MULTI_QUEUE`: the kernel then keeps no table of flows for it, and
//! another process cannot attach to it. Exclusive creation (`IFF_TUN_EXCL`) refuses a device that exists, whoever made
//! it, unless one is to be taken over that an earlier process left. Header size and offload mask belong to the device and
//! stay with it: both are always set.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::software::Software;
use super::sys::{
    self, IFF_MULTI_QUEUE, IFF_NO_PI, IFF_TUN, IFF_TUN_EXCL, IFF_VNET_HDR, TUN_F_CSUM, TUN_F_TSO_ECN, TUN_F_TSO4,
    TUN_F_TSO6, TUN_F_USO4, TUN_F_USO6,
};
use super::vnet::{self, HEADER};
use super::{Port, SendError, send_error};
use crate::packet::frame::{Frame, SegmentKind};

/// The sets of offloads that kernels have had, the richest first.
const OFFLOADS: [u32; 6] = [
    TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN | TUN_F_USO4 | TUN_F_USO6,
    TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN,
    TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6,
    TUN_F_CSUM | TUN_F_TSO4,
    TUN_F_CSUM,
    0,
];

/// What the queues of a device share.
struct Device {
    name: String,
    /// What the kernel granted and still keeps.
    offload: AtomicU32,
}

/// One queue of a TUN device.
pub(crate) struct Tun {
    fd: OwnedFd,
    device: Arc<Device>,
    software: Software,
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    super_packets_in: u64,
    super_packets_out: u64,
    cut_in_software: u64,
    invalid: u64,
    fallbacks: u64,
}

/// Why a TUN device could not be opened.
#[derive(Debug)]
pub(crate) enum TunError {
    /// The driver is not there or may not be used.
    Driver(io::Error),
    /// The driver lacks the virtio net header.
    NoOffload,
    /// The driver lacks queues.
    NoQueues,
    /// An interface of the name exists, or is in use.
    Exists,
    /// A step failed.
    Step(&'static str, io::Error),
}

/// Opens the driver's clone device.
pub(crate) fn open_driver() -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::open("/dev/net/tun", flags, Mode::empty())?)
}

/// Makes a TUN device in the network namespace of the calling thread and gives one port for each queue. With `take_over`
/// a device of the name that nobody holds is attached to instead.
pub(crate) fn open(name: &str, queues: u16, take_over: bool) -> Result<Vec<Tun>, TunError> {
    let queues = queues.max(1);
    let mut flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR;
    if queues > 1 {
        flags |= IFF_MULTI_QUEUE;
    }
    let mut descriptors = Vec::with_capacity(usize::from(queues));
    for queue in 0..queues {
        let fd = open_driver().map_err(TunError::Driver)?;
        let exclusive = if queue == 0 {
            let features = sys::tun_features(fd.as_fd()).map_err(|error| TunError::Step("ask the driver", error))?;
            if features & u32::from(IFF_VNET_HDR) == 0 {
                return Err(TunError::NoOffload);
            }
            if features & u32::from(flags & IFF_MULTI_QUEUE) != u32::from(flags & IFF_MULTI_QUEUE) {
                return Err(TunError::NoQueues);
            }
            if take_over { 0 } else { IFF_TUN_EXCL }
        } else {
            0
        };
        sys::tun_attach(fd.as_fd(), name, flags | exclusive).map_err(|error| match error.raw_os_error() {
            Some(libc::EBUSY | libc::EEXIST) => TunError::Exists,
            _ => TunError::Step("make the device", error),
        })?;
        descriptors.push(fd);
    }
    let Some(first) = descriptors.first() else { return Ok(Vec::new()) };
    sys::tun_set_header_size(first.as_fd(), HEADER as i32)
        .map_err(|error| TunError::Step("set the header size of the device", error))?;
    let granted = probe(first.as_fd()).map_err(|error| TunError::Step("set the offloads of the device", error))?;
    let device = Arc::new(Device { name: name.to_owned(), offload: AtomicU32::new(granted) });
    if granted & TUN_F_TSO4 == 0 {
        tracing::warn!(interface = name, "the kernel grants no segmentation offload: packets are cut in software");
    }
    Ok(descriptors
        .into_iter()
        .map(|fd| Tun { fd, device: device.clone(), software: Software::default(), counters: Counters::default() })
        .collect())
}

/// Sets the richest set of offloads that the kernel grants and returns it.
fn probe(fd: BorrowedFd<'_>) -> io::Result<u32> {
    let mut refusal = io::Error::from(io::ErrorKind::InvalidInput);
    for mask in OFFLOADS {
        match sys::tun_set_offload(fd, mask) {
            Ok(()) => return Ok(mask),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refusal = error,
            Err(error) => return Err(error),
        }
    }
    Err(refusal)
}

/// The bits that a kind of segments needs.
const fn bits(kind: SegmentKind) -> u32 {
    match kind {
        SegmentKind::TcpV4 => TUN_F_TSO4,
        SegmentKind::TcpV6 => TUN_F_TSO6,
        SegmentKind::Udp => TUN_F_USO4 | TUN_F_USO6,
    }
}

/// A mask without a kind of segments, and without what needs it.
const fn without(mask: u32, kind: SegmentKind) -> u32 {
    let mask = mask & !bits(kind);
    if mask & (TUN_F_TSO4 | TUN_F_TSO6) == 0 { mask & !TUN_F_TSO_ECN } else { mask }
}

/// How people read a mask.
fn names(mask: u32) -> String {
    let names = [
        (TUN_F_CSUM, "checksum"),
        (TUN_F_TSO4, "tcp4"),
        (TUN_F_TSO6, "tcp6"),
        (TUN_F_TSO_ECN, "ecn"),
        (TUN_F_USO4, "udp"),
    ];
    names.into_iter().filter(|(bit, _)| mask & bit != 0).fold("offload".to_owned(), |text, (_, name)| text + " " + name)
}

impl Tun {
    /// Writes a packet with its header in front, from the frame that it is in: one piece costs the kernel less than two.
    fn write(&self, header: [u8; HEADER], frame: &mut Frame) -> Result<(), Errno> {
        let Some(bytes) = frame.with_front(header) else {
            return self.write_pieces(&[IoSlice::new(&header), IoSlice::new(frame.bytes())]);
        };
        loop {
            match rustix::io::write(&self.fd, bytes) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes one packet, header and all, from where its pieces are.
    fn write_pieces(&self, pieces: &[IoSlice<'_>]) -> Result<(), Errno> {
        loop {
            match rustix::io::writev(&self.fd, pieces) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives a kind of segments up for the whole device.
    fn fall_back(&mut self, kind: SegmentKind) {
        let given_up = self.device.offload.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |before| {
            let after = without(before, kind);
            (after != before).then_some(after)
        });
        // Another queue may have been faster.
        let Ok(before) = given_up else { return };
        let after = without(before, kind);
        self.counters.fallbacks += 1;
        let told = sys::tun_set_offload(self.fd.as_fd(), after);
        tracing::warn!(
            interface = self.device.name,
            kind = ?kind,
            left = names(after),
            told = told.is_ok(),
            "the kernel refused a segmented packet: such packets are cut in software from now on"
        );
    }

    /// Cuts a packet in software, or finishes its checksum, and writes what comes of it.
    fn send_cut(&mut self, frame: &mut Frame) -> Result<(), SendError> {
        self.counters.cut_in_software += 1;
        let mut software = std::mem::take(&mut self.software);
        let sent = software.finish(frame, |segment| {
            let pieces = [IoSlice::new(&[0; HEADER]), IoSlice::new(segment)];
            self.write_pieces(&pieces).map_err(|error| send_error(error.into()))
        });
        self.software = software;
        sent
    }
}

impl Port for Tun {
    fn receive(&mut self, _now: Instant, batch: &mut [Frame]) -> io::Result<usize> {
        let mut received = 0;
        while let Some(frame) = batch.get_mut(received) {
            frame.clear();
            match rustix::io::read(&self.fd, frame.room_with_front_mut(HEADER)) {
                Ok(length) => {
                    frame.set_len(length.saturating_sub(HEADER));
                    let header = frame.front().unwrap_or_default();
                    match vnet::decode(header, 0, frame.bytes()) {
                        Ok(offload) => {
                            frame.offload = offload;
                            self.counters.super_packets_in += u64::from(offload.segmentation.is_some());
                            received += 1;
                        }
                        Err(error) => {
                            tracing::debug!(interface = self.device.name, %error, "a packet is dropped");
                            self.counters.invalid += 1;
                        }
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // The error stays; it is reported when nothing was read before it.
                Err(_) if received > 0 => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(received)
    }

    fn send(&mut self, _now: Instant, frame: &mut Frame) -> Result<(), SendError> {
        let Some(segmentation) = frame.offload.segmentation else {
            let header = vnet::encode(&frame.offload, 0, frame.bytes()).map_err(super::refused)?;
            return self.write(header, frame).map_err(|error| send_error(error.into()));
        };
        if !self.takes(segmentation.kind) {
            return self.send_cut(frame);
        }
        let header = vnet::encode(&frame.offload, 0, frame.bytes()).map_err(super::refused)?;
        match self.write(header, frame) {
            Ok(()) => {
                self.counters.super_packets_out += 1;
                Ok(())
            }
            Err(Errno::INVAL) => {
                self.fall_back(segmentation.kind);
                self.send_cut(frame)
            }
            Err(error) => Err(send_error(error.into())),
        }
    }

    fn takes(&self, kind: SegmentKind) -> bool {
        let needed = bits(kind);
        self.device.offload.load(Ordering::Relaxed) & needed == needed
    }

    fn readable(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }

    fn set_persistent(&mut self, persistent: bool) -> io::Result<()> {
        sys::tun_set_persistent(self.fd.as_fd(), persistent)
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let Counters { super_packets_in, super_packets_out, cut_in_software, invalid, fallbacks } = self.counters;
        vec![
            ("super_packets_in", super_packets_in),
            ("super_packets_out", super_packets_out),
            ("cut_in_software", cut_in_software),
            ("invalid_headers", invalid),
            ("offload_fallbacks", fallbacks),
        ]
    }

    fn describe(&self) -> String {
        format!("tun {}, {}", self.device.name, names(self.device.offload.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_set_of_offloads_is_poorer_than_the_one_before() {
        for pair in OFFLOADS.windows(2) {
            assert_eq!(pair[0] & pair[1], pair[1]);
            assert_ne!(pair[0], pair[1]);
        }
    }

    #[test]
    fn giving_up_a_kind_keeps_what_the_kernel_accepts() {
        let all = OFFLOADS[0];
        let no_udp = without(all, SegmentKind::Udp);
        assert_eq!(names(no_udp), "offload checksum tcp4 tcp6 ecn");
        let no_tcp4 = without(no_udp, SegmentKind::TcpV4);
        assert_eq!(names(no_tcp4), "offload checksum tcp6 ecn");
        assert_eq!(names(without(no_tcp4, SegmentKind::TcpV6)), "offload checksum");
        assert_eq!(names(without(all, SegmentKind::TcpV6)), "offload checksum tcp4 ecn udp");
        assert_eq!(names(all), "offload checksum tcp4 tcp6 ecn udp");
    }
}
