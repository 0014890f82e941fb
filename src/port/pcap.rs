//! A port around a port that writes every packet of both directions to a pcapng file, which Wireshark and tcpdump read.
//!
//! Link type RAW (101): packets begin with the IP header. Each carries its direction, seen from the node, and a time in
//! nanoseconds. Super-packets are written as they are, so a packet may look larger than the MTU, and a checksum that a
//! device would finish looks wrong: as in any capture on a host with segmentation offload.
//!
//! A capture never harms the port: when its file cannot be written, the capture ends with a warning and the port goes
//! on. Writing is buffered and reaches the file after a second at the latest, and when the port is dropped.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::pcapng::{self, Direction};
use super::{Port, SendError};
use crate::packet::frame::Frame;

/// How long a packet waits for the file at most.
const FLUSH: Duration = Duration::from_secs(1);

/// Memory of the writer: sixteen super-packets.
const BUFFER: usize = 1 << 20;

/// A port whose packets are captured.
pub struct Pcap {
    inner: Box<dyn Port>,
    path: PathBuf,
    /// None after the file failed.
    file: Option<BufWriter<File>>,
    started: Instant,
    started_at: Duration,
    /// When the oldest packet in the buffer has to be in the file.
    flush_at: Option<Instant>,
    packets: u64,
    failures: u64,
}

impl Pcap {
    /// Captures a port, of a name that the file shows, to a file, which is overwritten.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn new(inner: Box<dyn Port>, name: &str, path: &Path, now: Instant) -> io::Result<Self> {
        let mut file = BufWriter::with_capacity(BUFFER, File::create(path)?);
        pcapng::write_section(&mut file, "")?;
        pcapng::write_interface(&mut file, pcapng::LINK_TYPE_RAW, name, "", 0)?;
        file.flush()?;
        Ok(Self {
            inner,
            path: path.to_owned(),
            file: Some(file),
            started: now,
            started_at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            flush_at: None,
            packets: 0,
            failures: 0,
        })
    }

    fn write(&mut self, now: Instant, direction: Direction, packet: &[u8]) {
        let at = self.started_at + now.saturating_duration_since(self.started);
        let Some(file) = &mut self.file else { return };
        let (bytes, length) = (packet, packet.len());
        let packet = pcapng::Packet { interface: 0, at, bytes, length, direction, id: None, comment: "" };
        match pcapng::write_packet(file, &packet) {
            Ok(()) => {
                self.packets += 1;
                self.flush_at.get_or_insert(now + FLUSH);
            }
            Err(error) => self.give_up(&error),
        }
    }

    fn flush(&mut self) {
        self.flush_at = None;
        if let Some(Err(error)) = self.file.as_mut().map(BufWriter::flush) {
            self.give_up(&error);
        }
    }

    fn give_up(&mut self, error: &io::Error) {
        tracing::warn!(file = %self.path.display(), %error, "the capture ends: its file cannot be written");
        self.failures += 1;
        self.flush_at = None;
        // What the buffer holds cannot be written either.
        if let Some(file) = self.file.take() {
            let (_file, _unwritten) = file.into_parts();
        }
    }
}

impl Port for Pcap {
    fn receive(&mut self, now: Instant, batch: &mut [Frame]) -> io::Result<usize> {
        let received = self.inner.receive(now, batch)?;
        for frame in batch.iter().take(received) {
            self.write(now, Direction::Inbound, frame.bytes());
        }
        Ok(received)
    }

    fn send(&mut self, now: Instant, frame: &mut Frame) -> Result<(), SendError> {
        // Before sending, since the port may put headers in front; so a packet that the device refuses is seen too.
        self.write(now, Direction::Outbound, frame.bytes());
        self.inner.send(now, frame)
    }

    fn readable(&self) -> Option<BorrowedFd<'_>> {
        self.inner.readable()
    }

    fn deadline(&self) -> Option<Instant> {
        [self.inner.deadline(), self.flush_at].into_iter().flatten().min()
    }

    fn advance(&mut self, now: Instant) {
        self.inner.advance(now);
        if self.flush_at.is_some_and(|at| at <= now) {
            self.flush();
        }
    }

    fn set_persistent(&mut self, persistent: bool) -> io::Result<()> {
        self.inner.set_persistent(persistent)
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let mut counters = self.inner.counters();
        counters.extend([("pcap_packets", self.packets), ("pcap_failures", self.failures)]);
        counters
    }

    fn describe(&self) -> String {
        let state = if self.file.is_some() { "" } else { " (failed)" };
        format!("{}, pcap {}{state}", self.inner.describe(), self.path.display())
    }
}

impl Drop for Pcap {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::super::pcapng::{
        BYTE_ORDER, ENHANCED_PACKET, INTERFACE_DESCRIPTION, INTERFACE_NAME, INTERFACE_TIME_RESOLUTION, SECTION_HEADER,
        write_option,
    };
    use super::*;
    use crate::port::memory;

    /// A packet as the file has it.
    #[derive(Debug, PartialEq, Eq)]
    struct Captured {
        at: u64,
        direction: u32,
        bytes: Vec<u8>,
    }

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
    }

    /// Reads a file back by the letter of the format.
    fn read(path: &Path) -> Vec<Captured> {
        let file = std::fs::read(path).expect("read the capture");
        let mut captured = Vec::new();
        let mut rest = file.as_slice();
        let mut kinds = Vec::new();
        while !rest.is_empty() {
            let (kind, length) = (word(rest, 0), word(rest, 4) as usize);
            assert_eq!(length % 4, 0);
            assert_eq!(word(rest, length - 4) as usize, length);
            let body = &rest[8..length - 4];
            match kind {
                SECTION_HEADER => assert_eq!(word(body, 0), BYTE_ORDER),
                INTERFACE_DESCRIPTION => {
                    assert_eq!(u16::from_ne_bytes([body[0], body[1]]), 101);
                    assert_eq!(&body[8..], interface_options("eth0"));
                }
                ENHANCED_PACKET => {
                    let bytes = word(body, 12) as usize;
                    let options = &body[20 + bytes.next_multiple_of(4)..];
                    assert_eq!((word(body, 0), word(body, 16) as usize), (0, bytes));
                    captured.push(Captured {
                        at: u64::from(word(body, 4)) << 32 | u64::from(word(body, 8)),
                        direction: word(options, 4),
                        bytes: body[20..20 + bytes].to_vec(),
                    });
                }
                other => panic!("a block of type {other}"),
            }
            kinds.push(kind);
            rest = &rest[length..];
        }
        assert_eq!(kinds[..2], [SECTION_HEADER, INTERFACE_DESCRIPTION]);
        captured
    }

    fn interface_options(name: &str) -> Vec<u8> {
        let mut options = Vec::new();
        write_option(&mut options, INTERFACE_NAME, name.as_bytes());
        write_option(&mut options, INTERFACE_TIME_RESOLUTION, &[9]);
        write_option(&mut options, 0, &[]);
        options
    }

    fn capture(path: &Path, now: Instant) -> (Pcap, memory::Handle) {
        let (port, handle) = memory::port(memory::Settings::default());
        (Pcap::new(Box::new(port), "eth0", path, now).expect("capture"), handle)
    }

    #[test]
    fn both_directions_are_in_the_file() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("both.pcapng");
        let now = Instant::now();
        let (mut port, handle) = capture(&path, now);
        handle.inject(vec![0x45; 61]);
        assert_eq!(port.receive(now, &mut [Frame::new()]).expect("receive"), 1);
        port.send(now + Duration::from_micros(5), &mut Frame::from_packet(&[0x60; 64])).expect("send");
        assert_eq!(handle.collect().expect("sent").bytes, [0x60; 64]);
        drop(port);
        let captured = read(&path);
        let [first, second] = captured.as_slice() else { panic!("{captured:?}") };
        assert_eq!((first.direction, first.bytes.as_slice()), (1, [0x45; 61].as_slice()));
        assert_eq!((second.direction, second.bytes.as_slice()), (2, [0x60; 64].as_slice()));
        assert_eq!(second.at - first.at, 5000);
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
        assert!(clock - u128::from(first.at) < 60_000_000_000, "{clock} {}", first.at);
    }

    #[test]
    fn a_packet_is_in_the_file_after_a_second() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("late.pcapng");
        let now = Instant::now();
        let (mut port, _handle) = capture(&path, now);
        assert_eq!(port.deadline(), None);
        port.send(now, &mut Frame::from_packet(&[0x45; 40])).expect("send");
        assert_eq!(port.deadline(), Some(now + FLUSH));
        assert_eq!(read(&path), []);
        port.advance(now + FLUSH);
        assert_eq!(read(&path).len(), 1);
        assert_eq!(port.deadline(), None);
    }

    #[test]
    fn a_full_disk_ends_the_capture_and_not_the_port() {
        let now = Instant::now();
        let (port, handle) = memory::port(memory::Settings::default());
        let folder = tempfile::tempdir().expect("folder");
        let mut port = Pcap::new(Box::new(port), "eth0", &folder.path().join("x"), now).expect("capture");
        let full = File::options().write(true).open("/dev/full").expect("/dev/full");
        port.file = Some(BufWriter::new(full));
        port.send(now, &mut Frame::from_packet(&[0x45; 40])).expect("send");
        port.advance(now + FLUSH);
        assert!(port.describe().ends_with("(failed)"), "{}", port.describe());
        assert!(port.counters().contains(&("pcap_failures", 1)));
        port.send(now, &mut Frame::from_packet(&[0x45; 40])).expect("send");
        assert_eq!(handle.collect_all().len(), 2);
        assert_eq!(port.deadline(), None);
    }
}
