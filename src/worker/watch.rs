//! Packets that are watched: what entered, what the stages decided, what left, and the verdict, for traces and captures.
//!
//! Forwarding is not changed by it: a watched packet takes the same way, with an [`Egress`] around the ports that hears the
//! stages and copies what leaves. A worker that watches nothing looks at one list once a batch.
//!
//! Everything is bounded: what is not read in time is lost and counted, and no packet waits for it. A packet that another
//! worker takes over is seen where it ends. A fragment that waits for the first of its packet is seen when it is held, and
//! again when it is released.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use ipnet::IpNet;

use super::ports::Ports;
use super::run::Worker;
use super::shared::{Command, Waker};
use crate::packet::frame::{Frame, Offload};
use crate::packet::glance::{Glance, glance};
use crate::packet::icmp;
use crate::packet::parse::{self, Parsed, protocol};
use crate::packet::segment::segment_count;
use crate::path::subject::Subject;
use crate::path::{DropReason, Egress, Forwarder, SendFailure, StageRecord, Verdict};
use crate::snapshot::{PortId, Snapshot};

/// Traces and captures that may be at a time.
pub const MOST_WATCHES: usize = 8;

/// Packets that wait to be read.
const QUEUE: usize = 1_024;

/// Bytes that wait to be read, the records not counted: 128 super-packets that entered and left.
const QUEUE_BYTES: usize = 16 << 20;

/// One end of what is watched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct End {
    /// A port: what enters or leaves through it.
    pub port: Option<PortId>,
    /// Prefixes; of a port, its own addresses.
    pub prefixes: Vec<IpNet>,
}

impl End {
    fn has(&self, address: IpAddr) -> bool {
        self.prefixes.iter().any(|prefix| prefix.contains(&address))
    }
}

/// Which packets are watched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Where and from whom they come.
    pub from: Option<End>,
    /// Whom they are sent to, or where they leave.
    pub to: Option<End>,
    /// IP protocol; ICMP stands for that of both families.
    pub protocol: Option<u8>,
    /// Destination port.
    pub port: Option<u16>,
    /// What goes the other way, too.
    pub both: bool,
}

/// What a filter can say of a packet before its way is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Possible {
    forward: bool,
    reverse: bool,
}

impl Filter {
    /// Whether a packet certainly is not meant, found out in no time: most packets are not, where few are watched.
    fn is_out_of_question(&self, ingress: PortId, frame: &Frame) -> bool {
        if self.both {
            return false;
        }
        // ICMP may be about another packet, and is never glanced at.
        let Some(Glance { addresses, protocol, .. }) = glance(frame.bytes()) else { return false };
        let (source, destination) = (addresses.source(), addresses.destination());
        let is_from = |from: &End| from.port.map_or_else(|| from.has(source), |port| port == ingress);
        !self.protocol.is_none_or(|wanted| is_protocol(wanted, protocol))
            || self.from.as_ref().is_some_and(|from| !is_from(from))
            || self.to.as_ref().is_some_and(|to| to.port.is_none() && !to.has(destination))
    }

    /// Everything that can be said as a packet enters.
    fn at_entry(&self, ingress: PortId, frame: &Frame, parsed: Option<&Parsed>) -> Possible {
        let Some(parsed) = parsed else {
            // Who sent it to whom nobody knows.
            let port = self.from.as_ref().is_none_or(|from| from.port == Some(ingress));
            let forward = port && self.to.is_none() && self.protocol.is_none() && self.port.is_none();
            return Possible { forward, reverse: false };
        };
        let mut possible = self.of_subject(&Subject::of(ingress, parsed));
        if let Some(quoted) = quoted(ingress, frame, parsed) {
            let quoted = self.of_subject(&quoted);
            possible.forward |= quoted.forward;
            possible.reverse |= quoted.reverse;
        }
        possible
    }

    fn of_subject(&self, subject: &Subject) -> Possible {
        if !self.protocol.is_none_or(|wanted| is_protocol(wanted, subject.protocol)) {
            return Possible::default();
        }
        let from = self.from.as_ref().is_none_or(|from| match from.port {
            Some(port) => port == subject.ingress,
            None => from.has(subject.source),
        });
        let to = self.to.as_ref().is_none_or(|to| to.port.is_some() || to.has(subject.destination));
        let entered = self.to.as_ref().and_then(|to| to.port).is_none_or(|port| port == subject.ingress);
        Possible {
            forward: from && to && self.is_port(subject.protocol, subject.destination_port),
            reverse: self.both && entered && self.is_port(subject.protocol, subject.source_port),
        }
    }

    /// Whether it is the port; the identifier of a ping is none.
    fn is_port(&self, protocol: u8, number: u16) -> bool {
        let has_ports =
            matches!(protocol, protocol::TCP | protocol::UDP | protocol::DCCP | protocol::SCTP | protocol::UDP_LITE);
        self.port.is_none_or(|port| has_ports && port == number)
    }

    /// The rest, once the way is known.
    fn at_end(&self, possible: Possible, seen: &Seen) -> bool {
        let Some((_, entered)) = &seen.entered else { return false };
        let left = || seen.left.iter().map(|(image, _)| image);
        let reaches = |end: &End| {
            left().any(|image| end.port == Some(image.port) || image.parsed.is_some_and(|p| end.has(p.destination())))
                || entered.addresses().any(|(_, destination)| end.has(destination))
        };
        let comes_from = |end: &End| {
            end.port == Some(entered.port)
                || entered.addresses().any(|(source, _)| end.has(source))
                || left().any(|image| image.parsed.is_some_and(|parsed| end.has(parsed.source())))
        };
        possible.forward && self.to.as_ref().is_none_or(|to| to.port.is_none() || reaches(to))
            || possible.reverse && self.to.as_ref().is_none_or(comes_from) && self.from.as_ref().is_none_or(reaches)
    }

    /// Whether a packet that the node made by itself is meant.
    fn made(&self, image: &Image) -> bool {
        let Some(parsed) = &image.parsed else { return false };
        let source = |end: &End| end.has(parsed.source());
        let destination = |end: &End| end.port == Some(image.port) || end.has(parsed.destination());
        let forward = self.from.as_ref().is_none_or(source)
            && self.to.as_ref().is_none_or(destination)
            && self.is_port(parsed.protocol, parsed.destination_port);
        let reverse = self.both
            && self.to.as_ref().is_none_or(source)
            && self.from.as_ref().is_none_or(destination)
            && self.is_port(parsed.protocol, parsed.source_port);
        self.protocol.is_none_or(|wanted| is_protocol(wanted, parsed.protocol)) && (forward || reverse)
    }
}

fn is_protocol(wanted: u8, protocol: u8) -> bool {
    wanted == protocol || [wanted, protocol] == [protocol::ICMP, protocol::ICMPV6]
}

/// What an ICMP error is about, as if it came back: an error about a flow is of the flow.
fn quoted(ingress: PortId, frame: &Frame, parsed: &Parsed) -> Option<Subject> {
    let inner = icmp::embedded(frame.bytes(), parsed)?;
    Some(Subject {
        ingress,
        source: inner.destination(),
        destination: inner.source(),
        protocol: inner.protocol,
        source_port: inner.destination_port,
        destination_port: inner.source_port,
    })
}

/// What is wanted of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct What {
    /// Packets as they entered.
    pub entered: bool,
    /// Packets as they left, what the node made itself included.
    pub left: bool,
    /// Packets as they entered that got no further: dropped, or answered in their receiver's place.
    pub dropped: bool,
}

impl Default for What {
    fn default() -> Self {
        Self { entered: true, left: true, dropped: true }
    }
}

impl What {
    /// Of a packet, the image as it entered, where that is wanted.
    pub fn entered_of(self, seen: &Seen) -> Option<&Image> {
        let (how, image) = seen.entered.as_ref()?;
        let ended = matches!(seen.verdict, Some(Verdict::Dropped(_) | Verdict::Answered(_)));
        // A fragment that had waited has been seen when it came.
        let entered = self.entered && (*how != How::Released || ended && self.dropped);
        (entered || self.dropped && ended).then_some(image)
    }

    /// Of a packet, what left because of it, where that is wanted.
    pub fn left_of(self, seen: &Seen) -> &[(Image, Result<(), SendFailure>)] {
        if self.left { &seen.left } else { &[] }
    }

    fn has_any_of(self, seen: &Seen) -> bool {
        self.entered_of(seen).is_some() || !self.left_of(seen).is_empty()
    }
}

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Which packets.
    pub filter: Filter,
    /// What of them: others take no room from these.
    pub what: What,
    /// Whether the decision of each stage is wanted.
    pub stages: bool,
    /// Whether packets are wanted that the node makes by itself: resets after a change, late errors.
    pub made: bool,
    /// Bytes that are kept of each packet.
    pub snaplen: usize,
    /// Most packets; none is no limit.
    pub limit: Option<u64>,
}

/// A packet at one place.
#[derive(Debug, Clone)]
pub struct Image {
    /// Where it entered or left.
    pub port: PortId,
    /// Its first bytes.
    pub bytes: Vec<u8>,
    /// Its length.
    pub length: usize,
    /// What it is; none where it cannot be parsed.
    pub parsed: Option<Parsed>,
    /// What is left to do for it.
    pub offload: Offload,
    /// What it would be on a wire: more than 1 for a super-packet.
    pub segments: usize,
    /// Source and destination of the packet that an ICMP error is about, as if it came back.
    quoted: Option<(IpAddr, IpAddr)>,
}

impl Image {
    fn of(port: PortId, frame: &Frame, parsed: Option<Parsed>, snaplen: usize) -> Self {
        let bytes = frame.bytes();
        let quoted = parsed.and_then(|parsed| quoted(port, frame, &parsed));
        Self {
            port,
            bytes: bytes.get(..snaplen).unwrap_or(bytes).to_vec(),
            length: bytes.len(),
            parsed,
            offload: frame.offload,
            segments: parsed.map_or(1, |parsed| segment_count(frame, &parsed).max(1)),
            quoted: quoted.map(|subject| (subject.source, subject.destination)),
        }
    }

    fn addresses(&self) -> impl Iterator<Item = (IpAddr, IpAddr)> {
        let own = self.parsed.map(|parsed| (parsed.source(), parsed.destination()));
        own.into_iter().chain(self.quoted)
    }
}

/// How a worker came by a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// A device delivered it.
    Received,
    /// Another worker received it, and its flow is of this one.
    TakenOver,
    /// A fragment that had waited.
    Released,
}

/// A packet that was watched to its end.
#[derive(Debug, Clone)]
pub struct Seen {
    /// When it was looked at.
    pub at: SystemTime,
    /// The worker that took it to its end.
    pub worker: u16,
    /// What decided, and says what its ports are called.
    pub snapshot: Arc<Snapshot>,
    /// What entered; none for what the node made by itself.
    pub entered: Option<(How, Image)>,
    /// What each stage decided, if that was wanted.
    pub stages: Vec<StageRecord>,
    /// What left because of it, answers included, and whether the port took it.
    pub left: Vec<(Image, Result<(), SendFailure>)>,
    /// What became of it; none for what the node made by itself.
    pub verdict: Option<Verdict>,
}

impl Seen {
    fn size(&self) -> usize {
        let entered = self.entered.as_ref().map_or(0, |(_, image)| image.bytes.len());
        entered + self.left.iter().map(|(image, _)| image.bytes.len()).sum::<usize>()
    }
}

/// What is watched for one client: shared by the workers and the one who reads.
#[derive(Debug)]
pub(super) struct Watch {
    wanted: Wanted,
    events: Sender<Arc<Seen>>,
    /// Packets that were given away.
    given: AtomicU64,
    /// Bytes that wait.
    waiting: AtomicUsize,
    /// Packets that were lost, by the port that they entered or left through; the last stands for ports that came later.
    lost: Vec<AtomicU64>,
    /// Packets of any flow that were taken for sent and could not leave.
    unsent: AtomicU64,
    ended: AtomicBool,
}

impl Watch {
    fn is_over(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
            || self.wanted.limit.is_some_and(|limit| self.given.load(Ordering::Relaxed) >= limit)
    }

    fn give(&self, seen: &Arc<Seen>) {
        if !self.wanted.what.has_any_of(seen) {
            return;
        }
        let size = seen.size();
        if self.waiting.load(Ordering::Relaxed).saturating_add(size) > QUEUE_BYTES {
            return self.lose(seen);
        }
        self.waiting.fetch_add(size, Ordering::Relaxed);
        match self.events.try_send(seen.clone()) {
            Ok(()) => _ = self.given.fetch_add(1, Ordering::Relaxed),
            Err(why) => {
                self.waiting.fetch_sub(size, Ordering::Relaxed);
                match why {
                    TrySendError::Full(_) => self.lose(seen),
                    TrySendError::Disconnected(_) => self.ended.store(true, Ordering::Relaxed),
                }
            }
        }
    }

    fn lose(&self, seen: &Seen) {
        let made = seen.left.first().map(|(image, _)| image.port);
        let port = seen.entered.as_ref().map(|(_, image)| image.port).or(made);
        let place = port.map_or(usize::MAX, |port| usize::from(port.0));
        if let Some(lost) = self.lost.get(place).or(self.lost.last()) {
            lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The reading end of a watch. Workers are free of it when it is dropped.
pub struct Watching {
    watch: Arc<Watch>,
    events: Receiver<Arc<Seen>>,
    workers: Vec<(Sender<Command>, Waker)>,
}

impl Watching {
    /// A watch over workers that are told of it by [`Command::Watch`].
    pub(super) fn new(wanted: Wanted, ports: usize, workers: Vec<(Sender<Command>, Waker)>) -> (Self, Arc<Watch>) {
        let (sender, events) = bounded(QUEUE);
        let watch = Arc::new(Watch {
            wanted,
            events: sender,
            given: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            lost: (0..=ports).map(|_| AtomicU64::new(0)).collect(),
            unsent: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        });
        (Self { watch: watch.clone(), events, workers }, watch)
    }

    /// The next packet; none where there is none in time.
    pub fn next(&self, patience: Duration) -> Option<Arc<Seen>> {
        let seen = match self.events.recv_timeout(patience) {
            Ok(seen) => seen,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
        };
        self.watch.waiting.fetch_sub(seen.size(), Ordering::Relaxed);
        Some(seen)
    }

    /// Packets that matched and were lost, because they were not read in time: by port where there are any.
    pub fn lost(&self) -> Vec<(PortId, u64)> {
        let lost = (0..).zip(&self.watch.lost).map(|(port, lost)| (PortId(port), lost.load(Ordering::Relaxed)));
        lost.filter(|(_, lost)| *lost > 0).collect()
    }

    /// Packets of any flow that were taken for sent, and then could not leave with those that they were put together with.
    pub fn unsent(&self) -> u64 {
        self.watch.unsent.load(Ordering::Relaxed)
    }

    /// Nothing new is watched from now on; what was seen can be read.
    pub fn end(&self) {
        self.watch.ended.store(true, Ordering::Relaxed);
        for (commands, waker) in &self.workers {
            let _ = commands.send(Command::Unwatch);
            waker.wake();
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.end();
    }
}

/// The watches of one worker.
#[derive(Debug, Default)]
pub(super) struct Watches(Vec<Arc<Watch>>);

impl Watches {
    /// Whether there is nothing to watch.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn add(&mut self, watch: Arc<Watch>) {
        self.0.push(watch);
    }

    /// Forgets those that are over.
    pub(super) fn clean(&mut self) {
        self.0.retain(|watch| !watch.ended.load(Ordering::Relaxed));
    }

    pub(super) fn count_unsent(&self, packets: u64) {
        for watch in &self.0 {
            watch.unsent.fetch_add(packets, Ordering::Relaxed);
        }
    }
}

/// The ports of a worker, and what goes through them and is decided before.
pub(super) struct Observed<'a> {
    ports: &'a mut Ports,
    snapshot: Arc<Snapshot>,
    snaplen: usize,
    /// None where nobody wants them.
    stages: Option<Vec<StageRecord>>,
    left: Vec<(Image, Result<(), SendFailure>)>,
}

impl Egress for Observed<'_> {
    fn send(&mut self, now: u64, port: PortId, frame: &mut Frame) -> Result<(), SendFailure> {
        let parsed = parse::parse(frame.bytes()).ok();
        let image = Image::of(port, frame, parsed, self.snaplen);
        // It is not to be used afterwards.
        let length = image.length;
        let result = self.ports.send(now, port, frame);
        let snapshot = self.snapshot.clone();
        self.stage(|| {
            let name = snapshot.port(port).map_or("?", |port| port.name.as_str());
            match result {
                Ok(()) => StageRecord::new("send", format!("out of {name}, {length} bytes")),
                Err(failure) => {
                    let reason = DropReason::from(failure);
                    StageRecord::new("send", format!("not out of {name}: {}", reason.name())).with(reason.text())
                }
            }
        });
        self.left.push((image, result));
        result
    }

    fn observes(&self) -> bool {
        self.stages.is_some()
    }

    fn first_begins(&mut self) {
        self.ports.first_begins();
    }

    fn first_ended(&mut self) -> Option<u64> {
        self.ports.first_ended()
    }

    fn stage(&mut self, record: impl FnOnce() -> StageRecord) {
        if let Some(stages) = &mut self.stages {
            stages.push(record());
        }
    }
}

impl Worker {
    /// Takes a packet to its end where something is watched: as [`Forwarder::receive`], [`Forwarder::take_over`] and
    /// [`Forwarder::resume`] do.
    #[cold]
    pub(super) fn watched(&mut self, how: How, now: u64, ingress: PortId, frame: &mut Frame) -> Verdict {
        if self.watching.0.iter().all(|watch| watch.wanted.filter.is_out_of_question(ingress, frame)) {
            return forward(&mut self.forwarder, how, now, ingress, frame, &mut self.ports);
        }
        let parsed = parse::parse(frame.bytes()).ok();
        let meant = |watch: &Arc<Watch>| {
            let possible = watch.wanted.filter.at_entry(ingress, frame, parsed.as_ref());
            (!watch.is_over() && (possible.forward || possible.reverse)).then(|| (watch.clone(), possible))
        };
        let watches: Vec<(Arc<Watch>, Possible)> = self.watching.0.iter().filter_map(meant).collect();
        if watches.is_empty() {
            return forward(&mut self.forwarder, how, now, ingress, frame, &mut self.ports);
        }
        let at = SystemTime::now();
        let snaplen = watches.iter().map(|(watch, _)| watch.wanted.snaplen).max().unwrap_or_default();
        let stages = watches.iter().any(|(watch, _)| watch.wanted.stages).then(Vec::new);
        let image = Image::of(ingress, frame, parsed, snaplen);
        let snapshot = self.forwarder.snapshot().clone();
        let mut observed = Observed { ports: &mut self.ports, snapshot, snaplen, stages, left: Vec::new() };
        let verdict = forward(&mut self.forwarder, how, now, ingress, frame, &mut observed);
        // It is seen where it ends.
        if matches!(verdict, Verdict::HandOver(_)) {
            return verdict;
        }
        let Observed { snapshot, stages, left, .. } = observed;
        let seen = Arc::new(Seen {
            at,
            worker: self.number,
            snapshot,
            entered: Some((how, image)),
            stages: stages.unwrap_or_default(),
            left,
            verdict: Some(verdict),
        });
        for (watch, possible) in watches {
            if watch.wanted.filter.at_end(possible, &seen) {
                watch.give(&seen);
            }
        }
        verdict
    }

    /// Tells that a packet found no room in the ring to the worker that owns its flow.
    #[cold]
    pub(super) fn watched_hand_over(&self, ingress: PortId, frame: &Frame) {
        let parsed = parse::parse(frame.bytes()).ok();
        for watch in self.watching.0.iter().filter(|watch| !watch.is_over()) {
            let possible = watch.wanted.filter.at_entry(ingress, frame, parsed.as_ref());
            let seen = Arc::new(Seen {
                at: SystemTime::now(),
                worker: self.number,
                snapshot: self.forwarder.snapshot().clone(),
                entered: Some((How::Received, Image::of(ingress, frame, parsed, watch.wanted.snaplen))),
                stages: Vec::new(),
                left: Vec::new(),
                verdict: Some(Verdict::Dropped(DropReason::HandOverFull)),
            });
            if watch.wanted.filter.at_end(possible, &seen) {
                watch.give(&seen);
            }
        }
    }

    /// Lets the path do something that no packet has asked for, and tells what it sends.
    #[cold]
    pub(super) fn watched_by_itself<T>(&mut self, act: impl FnOnce(&mut Forwarder, &mut Observed<'_>) -> T) -> T {
        let made = || self.watching.0.iter().filter(|watch| watch.wanted.made && !watch.is_over());
        let snaplen = made().map(|watch| watch.wanted.snaplen).max().unwrap_or_default();
        let snapshot = self.forwarder.snapshot().clone();
        let mut observed = Observed { ports: &mut self.ports, snapshot, snaplen, stages: None, left: Vec::new() };
        let result = act(&mut self.forwarder, &mut observed);
        let Observed { snapshot, left, .. } = observed;
        for (image, sent) in left {
            let seen = Arc::new(Seen {
                at: SystemTime::now(),
                worker: self.number,
                snapshot: snapshot.clone(),
                entered: None,
                stages: Vec::new(),
                left: vec![(image, sent)],
                verdict: None,
            });
            for watch in self.watching.0.iter().filter(|watch| watch.wanted.made && !watch.is_over()) {
                if seen.left.iter().any(|(image, _)| watch.wanted.filter.made(image)) {
                    watch.give(&seen);
                }
            }
        }
        result
    }
}

/// Takes a packet to its end.
#[inline]
pub(super) fn forward(
    forwarder: &mut Forwarder,
    how: How,
    now: u64,
    ingress: PortId,
    frame: &mut Frame,
    egress: &mut impl Egress,
) -> Verdict {
    match how {
        How::Received => forwarder.receive(now, ingress, frame, egress),
        How::TakenOver => forwarder.take_over(now, ingress, frame, egress),
        How::Released => forwarder.resume(now, ingress, frame, egress),
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    fn end(port: Option<u16>, prefix: &str) -> Option<End> {
        Some(End { port: port.map(PortId), prefixes: vec![prefix.parse().unwrap()] })
    }

    fn packets() -> Vec<Vec<u8>> {
        let bytes = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = Vec::new();
            write(&mut bytes);
            bytes
        };
        let mut packets = Vec::new();
        for (from, to) in [([10, 1, 1, 4], [20, 60, 1, 10]), ([20, 60, 1, 10], [10, 1, 1, 4])] {
            let v4 = || PacketBuilder::ipv4(from, to, 64);
            packets.push(bytes(&|out| v4().udp(5, 53).write(out, b"x").unwrap()));
            packets.push(bytes(&|out| v4().tcp(5, 443, 1, 1).write(out, b"").unwrap()));
            packets.push(bytes(&|out| v4().icmpv4_echo_request(7, 1).write(out, b"").unwrap()));
            let v6 = || PacketBuilder::ipv6(from.map(|byte| [byte; 4]).concat().try_into().unwrap(), [9; 16], 64);
            packets.push(bytes(&|out| v6().udp(5, 53).write(out, b"x").unwrap()));
        }
        // No packets at all.
        packets.extend([vec![], vec![0x45], vec![0x60; 12], vec![0xff; 60]]);
        packets
    }

    /// A packet is only left out of what could never have been meant; most are.
    #[test]
    fn what_is_out_of_question_could_not_have_been_meant() {
        let ends = [None, end(None, "10.1.1.0/24"), end(None, "198.51.100.1/32"), end(Some(1), "10.1.1.4/32")];
        let (mut out, mut all) = (0, 0);
        for (from, to) in ends.iter().flat_map(|from| ends.iter().map(move |to| (from, to))) {
            for protocol in [None, Some(protocol::TCP), Some(protocol::ICMP)] {
                for (port, both) in [(None, false), (Some(53), false), (None, true)] {
                    let filter = Filter { from: from.clone(), to: to.clone(), protocol, port, both };
                    for (ingress, packet) in
                        [1, 2].into_iter().flat_map(|port| packets().into_iter().map(move |p| (port, p)))
                    {
                        let mut frame = Frame::new();
                        frame.set_packet(&packet);
                        let parsed = parse::parse(frame.bytes()).ok();
                        let possible = filter.at_entry(PortId(ingress), &frame, parsed.as_ref());
                        all += 1;
                        if filter.is_out_of_question(PortId(ingress), &frame) {
                            out += 1;
                            assert_eq!(possible, Possible::default(), "{filter:?} {ingress} {packet:02x?}");
                        }
                    }
                }
            }
        }
        assert!(out * 4 > all, "{out} of {all}");
    }
}
