//! A port around a port that behaves like a long or bad line: one-way delay, rate, loss, reordering, in both directions
//! alike and each direction for itself.
//!
//! A packet passes in this order:
//! 1. **Queue.** With a rate, a packet is serialised after those before it. A packet that finds more bytes waiting than
//!    the queue holds is dropped (tail drop): on sending with [`SendError::Full`], both ways counted.
//! 2. **Rate.** Bytes are IP bytes; a super-packet takes as long as its segments with a header each, and is handed on
//!    whole when its last byte would be through.
//! 3. **Loss** is drawn for each packet on the wire, thus for each segment of a super-packet. If some are lost and some
//!    not, the rest goes on as single packets; what is lost has taken its time on the wire.
//! 4. **Reordering** lets a packet skip the delay, so that it overtakes those on their way.
//! 5. **Delay.**
//!
//! The same seed, packets and times give the same result; the clock is the caller's.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::software::Software;
use super::{Port, SendError, vnet};
use crate::packet::frame::{Frame, MAX_PACKET, Offload};

/// How long a line's queue is when nothing else is said: at the line's rate.
const QUEUE_TIME: Duration = Duration::from_millis(100);

/// Bytes under way in one direction at most: 64 MiB are 20 ms at 25 Gbit/s, and what a lab may cost.
const MEMORY: usize = 64 << 20;

/// The properties of a line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// One-way delay.
    pub delay: Duration,
    /// Bits in a second of each direction, none for no limit.
    pub rate: Option<u64>,
    /// Bytes that wait for the line in each direction; none for 100 ms at its rate. Without a rate nothing waits.
    pub queue: Option<usize>,
    /// Probability that a packet is lost, 0 to 1.
    pub loss: f64,
    /// Probability that a packet skips the delay, 0 to 1.
    pub reorder: f64,
    /// Seed of the two probabilities.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { delay: Duration::ZERO, rate: None, queue: None, loss: 0.0, reorder: 0.0, seed: 0 }
    }
}

/// A port behind a line.
pub struct Link {
    inner: Box<dyn Port>,
    settings: Settings,
    outbound: Direction,
    inbound: Direction,
    scratch: Frame,
    /// Packets that the inner port refused when their time had come.
    refused: u64,
}

impl Link {
    /// Puts a line in front of a port.
    pub fn new(inner: Box<dyn Port>, settings: Settings) -> Self {
        let mut random = Rng::with_seed(settings.seed);
        let inbound = Direction::new(settings, random.fork());
        let outbound = Direction::new(settings, random);
        Self { inner, settings, outbound, inbound, scratch: Frame::new(), refused: 0 }
    }

    /// Hands everything that is due to the inner port.
    fn flush(&mut self, now: Instant) {
        while self.outbound.take_due(now, &mut self.scratch) {
            if self.inner.send(now, &mut self.scratch).is_err() {
                self.refused += 1;
            }
        }
    }
}

impl Port for Link {
    fn receive(&mut self, now: Instant, batch: &mut [Frame]) -> io::Result<usize> {
        let read = self.inner.receive(now, batch);
        for frame in batch.iter_mut().take(*read.as_ref().unwrap_or(&0)) {
            // A packet that finds the queue full is counted there; nobody waits for an answer.
            let _dropped = self.inbound.admit(now, frame);
        }
        let mut received = 0;
        for frame in batch {
            if !self.inbound.take_due(now, frame) {
                break;
            }
            received += 1;
        }
        match read {
            Err(error) if received == 0 => Err(error),
            _ => Ok(received),
        }
    }

    fn send(&mut self, now: Instant, frame: &mut Frame) -> Result<(), SendError> {
        self.outbound.admit(now, frame)?;
        self.flush(now);
        Ok(())
    }

    fn readable(&self) -> Option<BorrowedFd<'_>> {
        self.inner.readable()
    }

    fn deadline(&self) -> Option<Instant> {
        [self.inner.deadline(), self.outbound.next_due(), self.inbound.next_due()].into_iter().flatten().min()
    }

    fn advance(&mut self, now: Instant) {
        self.inner.advance(now);
        self.flush(now);
    }

    fn set_persistent(&mut self, persistent: bool) -> io::Result<()> {
        self.inner.set_persistent(persistent)
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let mut counters = self.inner.counters();
        counters.extend([
            ("link_out_packets", self.outbound.passed),
            ("link_out_lost", self.outbound.lost),
            ("link_out_reordered", self.outbound.reordered),
            ("link_out_queue_full", self.outbound.queue_full),
            ("link_out_refused", self.refused),
            ("link_in_packets", self.inbound.passed),
            ("link_in_lost", self.inbound.lost),
            ("link_in_reordered", self.inbound.reordered),
            ("link_in_queue_full", self.inbound.queue_full),
        ]);
        counters
    }

    fn describe(&self) -> String {
        let Settings { delay, rate, loss, reorder, .. } = self.settings;
        let mut text = format!("{}, link delay {delay:?}", self.inner.describe());
        if let Some(rate) = rate {
            text += &format!(" rate {rate} bit/s");
        }
        if loss > 0.0 {
            text += &format!(" loss {loss}");
        }
        if reorder > 0.0 {
            text += &format!(" reorder {reorder}");
        }
        text
    }
}

/// A packet under way; ordered by the time it arrives, then by the order of entry.
struct Waiting {
    due: Instant,
    sequence: u64,
    bytes: Vec<u8>,
    offload: Offload,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        (self.due, self.sequence) == (other.due, other.sequence)
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.sequence).cmp(&(other.due, other.sequence))
    }
}

/// One direction of a line.
struct Direction {
    settings: Settings,
    random: Rng,
    /// When the last bit of what was admitted is on the wire.
    busy_until: Option<Instant>,
    under_way: BinaryHeap<Reverse<Waiting>>,
    bytes: usize,
    sequence: u64,
    pool: Pool,
    software: Software,
    lost_segments: Vec<bool>,
    passed: u64,
    lost: u64,
    reordered: u64,
    queue_full: u64,
}

impl Direction {
    fn new(settings: Settings, random: Rng) -> Self {
        Self {
            settings,
            random,
            busy_until: None,
            under_way: BinaryHeap::new(),
            bytes: 0,
            sequence: 0,
            pool: Pool::default(),
            software: Software::default(),
            lost_segments: Vec::new(),
            passed: 0,
            lost: 0,
            reordered: 0,
            queue_full: 0,
        }
    }

    /// Takes a packet in, or drops it because the queue is full.
    fn admit(&mut self, now: Instant, frame: &mut Frame) -> Result<(), SendError> {
        let segments = vnet::segments(&frame.offload, frame.bytes());
        let count = segments.map_or(1, |segments| segments.count);
        let wire_bytes = frame.len() + segments.map_or(0, |segments| segments.headers * (segments.count - 1));
        if self.bytes >= MEMORY || self.backlog(now) > self.queue() {
            self.queue_full += count as u64;
            return Err(SendError::Full(None));
        }
        let mut lost = std::mem::take(&mut self.lost_segments);
        lost.clear();
        lost.extend((0..count).map(|_| draw(&mut self.random, self.settings.loss)));
        let losses = lost.iter().filter(|lost| **lost).count();
        self.lost += losses as u64;
        if losses == 0 || losses == count {
            let sent = self.serialise(now, wire_bytes);
            if losses == 0 {
                self.launch(sent, frame.bytes(), frame.offload, count as u64);
            }
        } else {
            let mut software = std::mem::take(&mut self.software);
            let mut fates = lost.iter();
            let cut = software.finish(frame, |segment| {
                let sent = self.serialise(now, segment.len());
                if fates.next() == Some(&false) {
                    self.launch(sent, segment, Offload::default(), 1);
                }
                Ok(())
            });
            self.software = software;
            cut?;
        }
        self.lost_segments = lost;
        Ok(())
    }

    /// Bytes that wait for the line.
    fn backlog(&self, now: Instant) -> usize {
        let (Some(rate), Some(busy_until)) = (self.settings.rate, self.busy_until) else { return 0 };
        let bits = busy_until.saturating_duration_since(now).as_nanos() * u128::from(rate) / 1_000_000_000;
        usize::try_from(bits / 8).unwrap_or(usize::MAX)
    }

    /// Bytes that may wait.
    fn queue(&self) -> usize {
        match (self.settings.queue, self.settings.rate) {
            (Some(bytes), _) => bytes,
            (None, Some(rate)) => {
                let bytes = u128::from(rate) * QUEUE_TIME.as_millis() / 8000;
                usize::try_from(bytes).unwrap_or(usize::MAX)
            }
            (None, None) => usize::MAX,
        }
    }

    /// Occupies the line for some bytes and returns when the last bit is on it.
    fn serialise(&mut self, now: Instant, bytes: usize) -> Instant {
        let Some(rate) = self.settings.rate else { return now };
        let nanoseconds = bytes as u128 * 8 * 1_000_000_000 / u128::from(rate.max(1));
        let start = self.busy_until.map_or(now, |busy_until| busy_until.max(now));
        let sent = start + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        self.busy_until = Some(sent);
        sent
    }

    /// Sends a packet that left the queue at a time on its way.
    fn launch(&mut self, sent: Instant, packet: &[u8], offload: Offload, count: u64) {
        let overtakes = draw(&mut self.random, self.settings.reorder);
        let due = if overtakes {
            self.reordered += count;
            sent
        } else {
            sent + self.settings.delay
        };
        self.passed += count;
        self.bytes += packet.len();
        self.sequence += 1;
        let bytes = self.pool.take(packet);
        self.under_way.push(Reverse(Waiting { due, sequence: self.sequence, bytes, offload }));
    }

    /// Takes the next packet that has arrived into a frame; false if there is none.
    fn take_due(&mut self, now: Instant, frame: &mut Frame) -> bool {
        if self.next_due().is_none_or(|due| due > now) {
            return false;
        }
        let Some(Reverse(waiting)) = self.under_way.pop() else { return false };
        self.bytes -= waiting.bytes.len();
        frame.set_packet(&waiting.bytes);
        frame.offload = waiting.offload;
        self.pool.put(waiting.bytes);
        true
    }

    fn next_due(&self) -> Option<Instant> {
        self.under_way.peek().map(|Reverse(waiting)| waiting.due)
    }
}

fn draw(random: &mut Rng, probability: f64) -> bool {
    probability > 0.0 && random.f64() < probability
}

/// Buffers of three sizes, kept for reuse: a packet of an ordinary MTU, one of a jumbo frame, a super-packet.
#[derive(Default)]
struct Pool {
    free: [Vec<Vec<u8>>; SIZES.len()],
}

const SIZES: [usize; 3] = [2048, 16 * 1024, MAX_PACKET];

/// Free buffers kept of each size: 2 MiB, 2 MiB, 4 MiB.
const KEPT: [usize; 3] = [1024, 128, 64];

impl Pool {
    fn take(&mut self, packet: &[u8]) -> Vec<u8> {
        let class = SIZES.iter().position(|size| packet.len() <= *size).unwrap_or(SIZES.len() - 1);
        let mut buffer = self.free[class].pop().unwrap_or_else(|| Vec::with_capacity(SIZES[class]));
        buffer.clear();
        buffer.extend_from_slice(packet);
        buffer
    }

    fn put(&mut self, buffer: Vec<u8>) {
        let class = SIZES.iter().rposition(|size| buffer.capacity() >= *size).unwrap_or(0);
        if self.free[class].len() < KEPT[class] {
            self.free[class].push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::frame::{Checksum, SegmentKind, Segmentation};
    use crate::port::memory::{self, Packet};

    fn link(settings: Settings) -> (Link, memory::Handle) {
        let (port, handle) = memory::port(memory::Settings::default());
        (Link::new(Box::new(port), settings), handle)
    }

    fn packet(number: usize, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
        bytes
    }

    fn number(packet: &Packet) -> u64 {
        u64::from_be_bytes(packet.bytes[..8].try_into().expect("eight bytes"))
    }

    fn super_packet(segments: usize) -> Frame {
        let mut bytes = vec![0; 40 + segments * 1000];
        bytes[0] = 0x45;
        let length = u16::try_from(bytes.len()).expect("length");
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        bytes[8] = 64;
        bytes[9] = 6;
        bytes[32] = 5 << 4;
        let checksum = !crate::packet::checksum::sum(&bytes[..20]);
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        let mut frame = Frame::from_packet(&bytes);
        frame.offload = Offload {
            checksum: Checksum::Partial { start: 20, offset: 16 },
            segmentation: Some(Segmentation { kind: SegmentKind::TcpV4, size: 1000, ecn: false }),
        };
        frame
    }

    fn count(link: &Link, name: &str) -> u64 {
        link.counters().into_iter().find(|(counter, _)| *counter == name).expect("a counter").1
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_packet_arrives_after_the_delay_in_both_directions() {
        let (mut link, handle) = link(Settings { delay: 20 * MS, ..Settings::default() });
        let start = Instant::now();
        let mut batch = [Frame::new(), Frame::new()];
        handle.inject(packet(1, 100));
        assert_eq!(link.receive(start, &mut batch).expect("receive"), 0);
        link.send(start + MS, &mut Frame::from_packet(&packet(2, 100))).expect("send");
        assert_eq!(link.deadline(), Some(start + 20 * MS));
        link.advance(start + 20 * MS);
        assert_eq!(link.receive(start + 20 * MS, &mut batch).expect("receive"), 1);
        assert_eq!(batch[0].bytes(), packet(1, 100));
        assert_eq!(handle.collect(), None);
        assert_eq!(link.deadline(), Some(start + 21 * MS));
        link.advance(start + 21 * MS);
        assert_eq!(handle.collect().expect("delivered").bytes, packet(2, 100));
        assert_eq!(link.deadline(), None);
    }

    #[test]
    fn without_properties_packets_pass_at_once() {
        let (mut link, handle) = link(Settings::default());
        let now = Instant::now();
        link.send(now, &mut super_packet(5)).expect("send");
        let delivered = handle.collect().expect("delivered");
        assert_eq!((delivered.bytes.as_slice(), delivered.offload), (super_packet(5).bytes(), super_packet(5).offload));
        handle.inject(delivered);
        let mut batch = [Frame::new()];
        assert_eq!(link.receive(now, &mut batch).expect("receive"), 1);
        assert_eq!(batch[0].offload, super_packet(5).offload);
    }

    #[test]
    fn the_rate_spaces_packets() {
        // 1000 bytes at 8 Mbit/s take one millisecond.
        let (mut link, handle) = link(Settings { rate: Some(8_000_000), ..Settings::default() });
        let start = Instant::now();
        for index in 0..10 {
            link.send(start, &mut Frame::from_packet(&packet(index, 1000))).expect("send");
        }
        for index in 1..=10 {
            let due = start + u32::try_from(index).expect("small") * MS;
            assert_eq!(link.deadline(), Some(due));
            link.advance(due);
            assert_eq!(handle.collect_all().iter().map(number).collect::<Vec<_>>(), [index - 1]);
        }
    }

    #[test]
    fn a_super_packet_takes_the_time_of_its_segments() {
        let (mut link, _handle) = link(Settings { rate: Some(8_000_000), ..Settings::default() });
        let start = Instant::now();
        link.send(start, &mut super_packet(10)).expect("send");
        assert_eq!(link.deadline(), Some(start + Duration::from_micros(10_400)));
    }

    #[test]
    fn a_full_queue_drops_the_tail() {
        let (mut link, handle) = link(Settings { rate: Some(8_000_000), queue: Some(5000), ..Settings::default() });
        let start = Instant::now();
        let sent = (0..10).filter(|n| link.send(start, &mut Frame::from_packet(&packet(*n, 1000))).is_ok()).count();
        // One more than the queue holds: the test is for more bytes than it holds.
        assert_eq!(sent, 6);
        assert_eq!(count(&link, "link_out_queue_full"), 4);
        link.advance(start + 6 * MS);
        assert_eq!(handle.collect_all().iter().map(number).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
        link.send(start + 6 * MS, &mut Frame::from_packet(&packet(9, 1000))).expect("there is room again");
    }

    #[test]
    fn the_queue_is_a_tenth_of_a_second_when_nothing_is_said() {
        let (mut link, _handle) = link(Settings { rate: Some(8_000_000), ..Settings::default() });
        let start = Instant::now();
        let sent = (0..200).filter(|n| link.send(start, &mut Frame::from_packet(&packet(*n, 1000))).is_ok()).count();
        assert_eq!(sent, 101);
    }

    #[test]
    fn loss_follows_the_seed() {
        let outcome = |seed| {
            let (mut link, handle) = link(Settings { loss: 0.3, seed, ..Settings::default() });
            let now = Instant::now();
            for index in 0..1000 {
                link.send(now, &mut Frame::from_packet(&packet(index, 64))).expect("send");
            }
            let arrived: Vec<u64> = handle.collect_all().iter().map(number).collect();
            assert_eq!(arrived.len() as u64 + count(&link, "link_out_lost"), 1000);
            arrived
        };
        let first = outcome(1);
        assert!((640..760).contains(&first.len()), "{} of 1000 arrived", first.len());
        assert_eq!(first, outcome(1));
        assert_ne!(first, outcome(2));
    }

    #[test]
    fn a_super_packet_loses_segments_not_itself() {
        let (mut link, handle) = link(Settings { loss: 0.2, seed: 3, ..Settings::default() });
        let now = Instant::now();
        for _ in 0..20 {
            link.send(now, &mut super_packet(40)).expect("send");
        }
        let arrived: usize =
            handle.collect_all().iter().map(|packet| if packet.offload.segmentation.is_some() { 40 } else { 1 }).sum();
        assert_eq!(arrived as u64 + count(&link, "link_out_lost"), 800);
        assert_eq!(arrived as u64, count(&link, "link_out_packets"));
        assert!((590..690).contains(&arrived), "{arrived} of 800 arrived");
    }

    #[test]
    fn reordering_overtakes() {
        let (mut link, handle) = link(Settings { delay: 10 * MS, reorder: 0.2, seed: 5, ..Settings::default() });
        let start = Instant::now();
        for index in 0..100 {
            let now = start + u32::try_from(index).expect("small") * MS;
            link.advance(now);
            link.send(now, &mut Frame::from_packet(&packet(index, 64))).expect("send");
        }
        link.advance(start + Duration::from_secs(1));
        let order: Vec<u64> = handle.collect_all().iter().map(number).collect();
        assert_eq!(order.len(), 100);
        assert!(!order.is_sorted());
        let overtaking = count(&link, "link_out_reordered");
        assert!((5..40).contains(&overtaking), "{overtaking}");
    }

    #[test]
    fn what_the_device_refuses_is_counted() {
        let (mut link, handle) = link(Settings { delay: MS, ..Settings::default() });
        let start = Instant::now();
        handle.fail_next_send(memory::Failure::Full);
        link.send(start, &mut Frame::from_packet(&packet(1, 64))).expect("send");
        link.advance(start + MS);
        assert_eq!(count(&link, "link_out_refused"), 1);
    }

    #[test]
    fn a_lost_device_is_reported_after_what_is_due() {
        let (mut link, handle) = link(Settings { delay: MS, ..Settings::default() });
        let start = Instant::now();
        let mut batch = [Frame::new()];
        handle.inject(packet(1, 64));
        assert_eq!(link.receive(start, &mut batch).expect("receive"), 0);
        handle.remove();
        assert_eq!(link.receive(start + MS, &mut batch).expect("the delayed packet"), 1);
        assert!(link.receive(start + MS, &mut batch).is_err());
    }

    #[test]
    fn it_says_what_it_is() {
        let settings = Settings { delay: 20 * MS, rate: Some(200_000_000), loss: 0.01, ..Settings::default() };
        assert_eq!(
            link(settings).0.describe(),
            "memory, offload tcp4 tcp6 udp, link delay 20ms rate 200000000 bit/s loss 0.01"
        );
    }
}
