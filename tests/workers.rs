//! Real workers on real threads over memory ports: generations are taken, flows stay in order, packets that meet the
//! wrong worker reach the right one, packets of a batch leave together.

#[path = "behaviour/bench.rs"]
#[allow(dead_code, reason = "shared with the behaviour tests, which use more of it")]
mod bench;
#[path = "behaviour/packets.rs"]
#[allow(dead_code, reason = "shared with the behaviour tests, which use more of it")]
mod packets;

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use sidestep::model::network::{EndpointSource, Network, ServiceEndpoint};
use sidestep::packet::checksum;
use sidestep::packet::frame::{Checksum, Frame, Offload};
use sidestep::packet::parse::parse;
use sidestep::packet::segment::segment;
use sidestep::path::DropReason;
use sidestep::path::record::{About, Event, Record, Records};
use sidestep::path::save::SavedFlow;
use sidestep::plan::Plan;
use sidestep::port::{Port, SendError, memory};
use sidestep::snapshot::{PortId, Publisher, Snapshot};
use sidestep::telemetry::counters::Report;
use sidestep::worker::{
    Handle, Meaning, Operation, OtherFlows, Paths, Poll, PortErrors, Restored, SavedBlock, Settings, Share,
};

use packets::{Tcp, decode, udp};

/// A node with workers, and the other side of each of their queues.
struct Node {
    network: Network,
    publisher: Arc<Publisher>,
    handle: Handle,
    /// By port, then by worker.
    queues: Vec<Vec<memory::Handle>>,
}

impl Node {
    fn start(workers: u16) -> Self {
        Self::resume(workers, Vec::new()).0
    }

    fn resume(workers: u16, flows: Vec<Vec<SavedFlow>>) -> (Self, Restored) {
        Self::resume_with(workers, flows, |_, _| {})
    }

    /// `before` fills queues before a worker looks at them.
    fn resume_with(
        workers: u16,
        flows: Vec<Vec<SavedFlow>>,
        before: impl FnOnce(&Snapshot, &[Vec<memory::Handle>]),
    ) -> (Self, Restored) {
        Self::resume_on(workers, flows, before, |_, _, port| port)
    }

    /// `wrap` makes another port of one, by its name and worker.
    fn resume_on(
        workers: u16,
        flows: Vec<Vec<SavedFlow>>,
        before: impl FnOnce(&Snapshot, &[Vec<memory::Handle>]),
        mut wrap: impl FnMut(&str, usize, Box<dyn Port>) -> Box<dyn Port>,
    ) -> (Self, Restored) {
        let network = sidestep::model::parse(bench::NETWORK, Path::new("workers.toml"), None).unwrap();
        let snapshot = Arc::new(Plan::new(Arc::new(network.clone()), bench::catalogue()).compile(1, None).unwrap());
        let mut ports: Vec<(PortId, Vec<Box<dyn Port>>)> = Vec::new();
        let mut queues = Vec::new();
        for number in 0..snapshot.ports.len() {
            let (mine, theirs): (Vec<_>, Vec<_>) =
                (0..workers).map(|_| memory::port(memory::Settings::default())).unzip();
            let name = &snapshot.ports[number].name;
            let mine = mine.into_iter().enumerate().map(|(worker, port)| wrap(name, worker, Box::new(port)));
            ports.push((PortId(number as u16), mine.collect()));
            queues.push(theirs);
        }
        before(&snapshot, &queues);
        let settings = Settings { workers, flow_limit: 10_000, seed: 3, poll: Poll::Sleep };
        let mut paths = Paths::new(&snapshot, &settings);
        let shares: Vec<Share> = flows.iter().map(|flows| [flows.len(), 0]).collect();
        let blocks = (0..).zip(flows).map(|(worker, flows)| {
            let mut bytes = Vec::new();
            flows.iter().for_each(|flow| flow.to_bytes(&mut bytes));
            Ok::<_, OtherFlows>(SavedBlock { worker, count: flows.len(), bytes, start: 0 })
        });
        paths = paths.restore(&shares, &Meaning::default(), blocks).unwrap();
        let restored = paths.restored();
        let publisher = Arc::new(Publisher::new(snapshot));
        let handle = Handle::start(publisher.clone(), ports, paths).unwrap();
        (Self { network, publisher, handle, queues }, restored)
    }

    fn queue(&self, port: &str, worker: usize) -> &memory::Handle {
        let snapshot = self.publisher.current();
        let number = snapshot.ports.iter().position(|entry| entry.name == port).unwrap();
        &self.queues[number][worker]
    }

    fn inject(&self, port: &str, worker: usize, packet: Vec<u8>) {
        assert!(self.queue(port, worker).inject(packet));
    }

    /// The next packet that leaves through a worker's queue of a port.
    #[track_caller]
    fn expect(&self, port: &str, worker: usize) -> packets::Seen {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(packet) = self.queue(port, worker).collect() {
                return decode(&packet.bytes);
            }
            assert!(Instant::now() < deadline, "nothing left through {port}, queue {worker}: {:?}", self.report());
            std::thread::yield_now();
        }
    }

    /// The next packet that leaves through any queue of a port.
    #[track_caller]
    fn expect_anywhere(&self, port: &str) -> packets::Seen {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let snapshot = self.publisher.current();
            let number = snapshot.ports.iter().position(|entry| entry.name == port).unwrap();
            if let Some(packet) = self.queues[number].iter().find_map(memory::Handle::collect) {
                return decode(&packet.bytes);
            }
            assert!(Instant::now() < deadline, "nothing left through {port}: {:?}", self.report());
            std::thread::yield_now();
        }
    }

    fn enable_storage(&mut self) {
        let subnet = self.network.find_subnet("spoke/workload").unwrap();
        self.network.virtual_networks[subnet.virtual_network].subnets[subnet.subnet].service_endpoints.push(
            ServiceEndpoint { service: "Microsoft.Storage".into(), locations: vec![], source: EndpointSource::Private },
        );
        let before = self.publisher.current();
        let plan = Plan::new(Arc::new(self.network.clone()), bench::catalogue());
        let next = plan.compile(before.generation + 1, Some(&before)).unwrap();
        self.publisher.publish(next);
        assert!(self.handle.wait_for_generation(before.generation + 1, Duration::from_secs(10)));
    }

    /// Lets the workers make records, and waits until they do.
    fn log(&self) -> Vec<Arc<Records>> {
        let records = self.handle.log(true);
        self.handle.ports();
        records
    }

    fn report(&self) -> Report {
        Report::sum(&self.handle.counters())
    }

    fn finish(self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.report().unaccounted() != 0 {
            assert!(Instant::now() < deadline, "in = out + answers + drops: {:#?}", self.report());
            std::thread::yield_now();
        }
        self.handle.stop();
    }
}

#[test]
fn a_new_generation_is_followed_by_every_worker_when_waiting_ends() {
    let mut node = Node::start(2);
    for worker in 0..2 {
        node.inject("vm1", worker, udp(("10.1.1.4", 100 + worker as u16), ("20.60.1.10", 443), b"x"));
        node.expect("gateway", worker);
    }
    node.enable_storage();
    for worker in 0..2 {
        node.inject("vm1", worker, udp(("10.1.1.4", 200 + worker as u16), ("20.60.1.10", 443), b"x"));
        node.expect("contosodata", worker);
    }
    node.finish();
}

#[test]
fn replies_at_the_wrong_worker_reach_the_flows_owner() {
    let node = Node::start(2);
    node.inject("vm3", 0, udp(("10.1.3.4", 5), ("198.51.100.80", 53), b"q"));
    let out = node.expect("internet", 0);
    assert_eq!(out.source.to_string(), "203.0.113.200");
    // The reply enters through the other worker's queue, and leaves through the owner's.
    node.inject("internet", 1, udp(("198.51.100.80", 53), ("203.0.113.200", out.source_port), b"a"));
    let back = node.expect("vm3", 0);
    assert_eq!(back.destination.to_string(), "10.1.3.4");
    let deadline = Instant::now() + Duration::from_secs(10);
    while (node.report().handed_over, node.report().taken_over) != (1, 1) {
        assert!(Instant::now() < deadline, "{:?}", node.report());
    }
    node.finish();
}

fn taken(records: &[Arc<Records>]) -> Vec<Record> {
    records.iter().flat_map(|records| std::iter::from_fn(|| records.take())).collect()
}

/// The owner reads nothing itself meanwhile: the time is that of when it took the answer over.
#[test]
fn an_answer_that_is_handed_over_took_as_long_as_it_did() {
    const WAIT: Duration = Duration::from_millis(60);
    let mut bells = HashMap::new();
    let (node, _) = Node::resume_on(
        2,
        Vec::new(),
        |_, _| {},
        |name, worker, port| {
            if worker == 1 {
                return port;
            }
            let (bell, rung) = UnixStream::pair().unwrap();
            rung.set_nonblocking(true).unwrap();
            bells.insert(name.to_owned(), bell);
            Box::new(Rung(port, rung))
        },
    );
    let records = node.log();
    node.inject("vm3", 0, udp(("10.1.3.4", 5), ("198.51.100.80", 53), b"q"));
    (&bells["vm3"]).write_all(&[1]).unwrap();
    let out = node.expect("internet", 0);
    let asked = Instant::now();
    while asked.elapsed() < WAIT {
        std::thread::yield_now();
    }
    node.inject("internet", 1, udp(("198.51.100.80", 53), ("203.0.113.200", out.source_port), b"a"));
    node.expect("vm3", 0);
    let most = asked.elapsed() + Duration::from_secs(1);
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut told = Vec::new();
    while !told.iter().any(|record: &Record| record.event == Event::Reply) {
        told.extend(taken(&records));
        assert!(Instant::now() < deadline, "{told:#?}");
    }
    let reply = told.iter().find(|record| record.event == Event::Reply).unwrap();
    let took = Duration::from_micros(reply.round_trip.unwrap().into());
    assert!((WAIT..most).contains(&took), "{took:?}");
    node.finish();
}

/// A port that is read when a bell is rung, and not again and again.
struct Rung(Box<dyn Port>, UnixStream);

impl Port for Rung {
    fn receive(&mut self, now: Instant, batch: &mut [Frame]) -> io::Result<usize> {
        let _empty = self.1.read(&mut [0; 8]);
        self.0.receive(now, batch)
    }

    fn send(&mut self, now: Instant, frame: &mut Frame) -> Result<(), SendError> {
        self.0.send(now, frame)
    }

    fn readable(&self) -> Option<BorrowedFd<'_>> {
        Some(self.1.as_fd())
    }

    fn describe(&self) -> String {
        self.0.describe()
    }
}

/// A port that tells when it is gone.
struct Witness(Box<dyn Port>, #[allow(dead_code, reason = "dropped with it")] mpsc::Sender<()>);

/// A port that gives its first packets once somebody else is gone.
struct Late {
    port: Box<dyn Port>,
    until: mpsc::Receiver<()>,
    waits: Arc<AtomicBool>,
}

impl Port for Witness {
    fn receive(&mut self, now: Instant, batch: &mut [Frame]) -> io::Result<usize> {
        self.0.receive(now, batch)
    }

    fn send(&mut self, now: Instant, frame: &mut Frame) -> Result<(), SendError> {
        self.0.send(now, frame)
    }

    fn readable(&self) -> Option<BorrowedFd<'_>> {
        self.0.readable()
    }

    fn describe(&self) -> String {
        self.0.describe()
    }
}

impl Port for Late {
    fn receive(&mut self, now: Instant, batch: &mut [Frame]) -> io::Result<usize> {
        let count = self.port.receive(now, batch)?;
        if count > 0 {
            self.waits.store(true, Ordering::Relaxed);
            let _gone = self.until.recv();
        }
        Ok(count)
    }

    fn send(&mut self, now: Instant, frame: &mut Frame) -> Result<(), SendError> {
        self.port.send(now, frame)
    }

    fn readable(&self) -> Option<BorrowedFd<'_>> {
        self.port.readable()
    }

    fn describe(&self) -> String {
        self.port.describe()
    }
}

#[test]
fn what_is_between_workers_when_they_end_is_told() {
    let (gone, until) = mpsc::channel();
    let waits = Arc::new(AtomicBool::new(false));
    let (mut gone, mut until) = (Some(gone), Some(until));
    let (node, _) = Node::resume_on(
        2,
        Vec::new(),
        |_, _| {},
        |name, worker, port| match (name, worker) {
            // The last that the owner of the flow has is gone when it takes nothing over any more.
            ("vm4", 0) => Box::new(Witness(port, gone.take().unwrap())),
            ("vm1", 1) => Box::new(Late { port, until: until.take().unwrap(), waits: waits.clone() }),
            _ => port,
        },
    );
    let records = node.log();
    let packet = udp(("10.1.1.4", 9), ("192.168.1.1", 53), b"x");
    node.inject("vm1", 0, packet.clone());
    node.expect("gateway", 0);
    node.inject("vm1", 1, packet.clone());
    let deadline = Instant::now() + Duration::from_secs(10);
    while !waits.load(Ordering::Relaxed) {
        assert!(Instant::now() < deadline, "the other worker reads it");
        std::thread::yield_now();
    }
    node.handle.stop();
    let report = node.report();
    assert_eq!((report.dropped.get("hand_over_full"), report.unaccounted()), (Some(&1), 0), "{report:#?}");
    let told = taken(&records);
    let dropped: Vec<_> =
        told.iter().filter(|record| record.event == Event::Dropped(DropReason::HandOverFull)).collect();
    assert_eq!(dropped.len(), 1, "{told:#?}");
    assert_eq!((dropped[0].packets, dropped[0].bytes), ([1, 0], [packet.len() as u64, 0]));
    assert!(matches!(dropped[0].about, About::Port(Some(_))));
}

#[test]
fn packets_of_a_flow_stay_in_order_when_they_are_handed_over() {
    let node = Node::start(2);
    let packet = |sequence| Tcp { flags: "A", sequence, ..Tcp::default() }.bytes();
    node.inject("vm1", 0, packet(0));
    node.expect("gateway", 0);
    for sequence in 1..=100 {
        node.inject("vm1", 1, packet(sequence));
    }
    let mut last = 0;
    let mut seen = 0;
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        while let Some(packet) = node.queue("gateway", 0).collect() {
            let sequence = decode(&packet.bytes).tcp.unwrap().sequence;
            assert!(sequence > last, "{sequence} after {last}");
            last = sequence;
            seen += 1;
        }
        let report = node.report();
        if report.received == 101 && report.unaccounted() == 0 {
            let lost = report.dropped.get("hand_over_full").copied().unwrap_or(0);
            if seen + lost == 100 {
                break;
            }
        }
        assert!(Instant::now() < deadline, "{report:?}");
        std::thread::yield_now();
    }
    node.finish();
}

#[test]
fn two_workers_translate_to_different_ports() {
    let node = Node::start(2);
    for flow in 0..200_u16 {
        for worker in 0..2 {
            let source = 1_000 + flow * 2 + worker as u16;
            node.inject("vm3", worker, udp(("10.1.3.4", source), ("198.51.100.80", 53), b"q"));
        }
    }
    let mut ports = std::collections::HashSet::new();
    for worker in 0..2 {
        for _ in 0..200 {
            assert!(ports.insert(node.expect("internet", worker).source_port), "a port was used twice");
        }
    }
    assert_eq!(node.handle.flows(1_000).len(), 400);
    node.finish();
}

#[test]
fn a_device_that_is_gone_closes_its_port_and_no_other() {
    let node = Node::start(1);
    node.queue("vm2", 0).remove();
    node.inject("vm1", 0, udp(("10.1.1.4", 1), ("192.168.1.1", 1), b"x"));
    node.expect("gateway", 0);
    let deadline = Instant::now() + Duration::from_secs(10);
    while node.handle.ports().len() != node.queues.len() - 1 {
        assert!(Instant::now() < deadline);
    }
    node.inject("vm3", 0, udp(("10.1.3.4", 1), ("10.1.2.4", 1), b"x"));
    while !node.report().dropped.contains_key("unknown_port") {
        assert!(Instant::now() < deadline, "{:?}", node.report());
    }
    // How it ended is told after its end, until there is another port of its number.
    let errors = node.handle.port_errors();
    let [PortErrors { operation: Operation::Read, errno: "other", count: 1, port, .. }] = errors[..] else {
        panic!("{errors:?}");
    };
    node.handle.remove_ports(&[port]);
    assert!(node.handle.port_errors().is_empty());
    node.finish();
}

/// The flows of a node, by worker, as the next process reads them.
fn stop_and_save(node: &Node) -> Vec<Vec<SavedFlow>> {
    let stopped = node.handle.stop();
    let mut flows = Vec::new();
    stopped.save(|worker, flow| {
        flows.resize_with(flows.len().max(usize::from(worker) + 1), Vec::new);
        flows[usize::from(worker)].push(flow);
    });
    assert_eq!(flows.iter().map(Vec::len).sum::<usize>(), stopped.flow_count());
    assert_eq!(node.handle.stop().flow_count(), 0, "they are given away once");
    flows
}

#[test]
fn flows_go_on_with_more_and_with_fewer_workers() {
    for (before, after) in [(2, 2), (1, 3), (3, 1), (3, 2)] {
        let first = Node::start(before);
        let mut presented = Vec::new();
        for number in 0..12 {
            let worker = usize::from(number % before);
            first.inject("vm3", worker, udp(("10.1.3.4", 100 + number), ("198.51.100.80", 53), b"q"));
            presented.push(first.expect("internet", worker).source_port);
        }
        let flows = stop_and_save(&first);
        let (second, restored) = Node::resume(after, flows);
        assert_eq!(restored, Restored { restored: 12, expired: 0, refused: 0 }, "{before} to {after}");
        // Each reply comes in at another worker than the one before and still finds its way.
        for (number, port) in (0..).zip(&presented) {
            let worker = usize::from(number % after);
            second.inject("internet", worker, udp(("198.51.100.80", 53), ("203.0.113.200", *port), b"a"));
        }
        let mut seen: Vec<u16> = (0..12).map(|_| second.expect_anywhere("vm3").destination_port).collect();
        seen.sort_unstable();
        assert_eq!(seen, (100..112).collect::<Vec<u16>>(), "{before} to {after}");
        assert_eq!(second.report().flows_created, 0);
        // A new translation takes no port that a restored flow has, whichever worker makes it.
        for worker in 0..usize::from(after) {
            second.inject("vm3", worker, udp(("10.1.3.4", 900 + worker as u16), ("198.51.100.80", 53), b"q"));
            assert!(!presented.contains(&second.expect("internet", worker).source_port));
        }
        second.finish();
    }
}

/// How many packets of a flood have left before the last of as many packets of another NIC. The flood is one packet each of
/// many flows; `other` makes the other NIC's packets.
fn flood_before_the_last(number: u16, other: impl Fn(u16) -> Vec<u8>) -> usize {
    let fill = |snapshot: &Snapshot, queues: &[Vec<memory::Handle>]| {
        let queue = |name: &str| &queues[snapshot.ports.iter().position(|port| port.name == name).unwrap()][0];
        for packet in 0..number {
            assert!(queue("vm1").inject(udp(("10.1.1.4", 1_000 + packet), ("10.1.2.4", 53), b"flood")));
            assert!(queue("vm3").inject(other(packet)));
        }
    };
    let (node, _) = Node::resume_with(1, Vec::new(), fill);
    let sources: Vec<String> = (0..2 * number).map(|_| node.expect("vm2", 0).source.to_string()).collect();
    let last = sources.iter().rposition(|source| source == "10.1.3.4").unwrap();
    node.finish();
    sources[..last].iter().filter(|source| *source == "10.1.1.4").count()
}

/// Time is not measured: the order of what leaves shows how turns are shared. A first packet costs seven times as much as
/// a packet of a flow, so that one for every seven leaves the other NIC half of the time.
#[test]
fn a_flood_of_first_packets_leaves_other_nics_half_of_the_time() {
    let of_a_flow = |_| udp(("10.1.3.4", 7), ("10.1.2.4", 7), b"other");
    let flood = flood_before_the_last(1_900, of_a_flow);
    assert!(flood <= 1_900 / 7, "{flood} of the flood for 1,900 packets of a flow");
    let first_packets = |number| udp(("10.1.3.4", 1_000 + number), ("10.1.2.4", 53), b"other");
    let flood = flood_before_the_last(1_900, first_packets);
    assert!(flood <= 1_900, "{flood} of the flood for 1,900 first packets");
    assert!(flood >= 1_800, "and the other way round: {flood}");
}

/// What is not what it says is refused, whichever worker finds it out.
#[test]
fn blocks_with_other_flows_than_they_say_are_not_taken_in() {
    let first = Node::start(1);
    for number in 0..3 {
        first.inject("vm3", 0, udp(("10.1.3.4", 100 + number), ("198.51.100.80", 53), b"q"));
        first.expect("internet", 0);
    }
    let mut bytes = Vec::new();
    stop_and_save(&first)[0].iter().for_each(|flow| flow.to_bytes(&mut bytes));
    let snapshot = first.publisher.current();
    let block = |worker, count, cut: usize| {
        let bytes = [b"head", &bytes[..bytes.len() - cut]].concat();
        SavedBlock { worker, count, bytes, start: 4 }
    };
    let restore = |workers, blocks: Vec<Result<SavedBlock, OtherFlows>>| {
        let paths = Paths::new(&snapshot, &Settings { workers, flow_limit: 10_000, seed: 3, poll: Poll::Sleep });
        paths.restore(&[[3, 0]], &Meaning::default(), blocks.into_iter()).map(|paths| paths.restored())
    };
    for workers in [1, 2] {
        for worker in [0, 7] {
            let all = Restored { restored: 3, expired: 0, refused: 0 };
            assert_eq!(restore(workers, vec![Ok(block(worker, 3, 0))]), Ok(all));
            for bad in [block(worker, 4, 0), block(worker, 2, 0), block(worker, 3, 1)] {
                assert_eq!(restore(workers, vec![Ok(bad)]), Err(OtherFlows));
            }
            assert_eq!(restore(workers, vec![Ok(block(worker, 3, 0)), Err(OtherFlows)]), Err(OtherFlows));
            // Twice the same: the first ones keep their keys.
            let twice = restore(workers, vec![Ok(block(worker, 3, 0)), Ok(block(worker, 3, 0))]);
            assert_eq!(twice, Ok(Restored { refused: 3, ..all }));
        }
    }
}

/// A datagram whose checksum is left to whoever sends it on a wire, as a kernel hands over what its own hosts send.
fn unsummed(from: (&str, u16), payload: &[u8]) -> memory::Packet {
    let bytes = udp(from, ("20.60.1.10", 443), payload);
    let checksum = Checksum::Partial { start: 20, offset: 6 };
    let mut frame = Frame::from_packet(&bytes);
    let sum = checksum::pseudo_header(&bytes, &parse(&bytes).unwrap(), bytes.len() as u32 - 20).unwrap();
    frame.bytes_mut()[26..28].copy_from_slice(&sum.to_be_bytes());
    memory::Packet { bytes: frame.bytes().to_vec(), offload: Offload { checksum, segmentation: None } }
}

/// A node whose vm1 has sent all of these before it starts, and what has left through the gateway once all packets have left
/// or are dropped.
fn sent_at_once(packets: Vec<memory::Packet>, before: impl FnOnce(&memory::Handle)) -> (Node, Vec<memory::Packet>) {
    let count = packets.len();
    let (node, _) = Node::resume_with(1, Vec::new(), |snapshot, queues| {
        let queue = |name: &str| &queues[snapshot.ports.iter().position(|port| port.name == name).unwrap()][0];
        before(queue("gateway"));
        for packet in packets {
            assert!(queue("vm1").inject(packet));
        }
    });
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut left = Vec::new();
    loop {
        left.extend(node.queue("gateway", 0).collect_all());
        let dropped: u64 = node.report().dropped.values().sum();
        if payloads(&left).len() + dropped as usize == count {
            return (node, left);
        }
        assert!(Instant::now() < deadline, "{:?}", node.report());
        std::thread::yield_now();
    }
}

/// The payloads of what leaves, cut into the packets that a wire would carry.
fn payloads(left: &[memory::Packet]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for packet in left {
        let mut frame = Frame::from_packet(&packet.bytes);
        frame.offload = packet.offload;
        let parsed = parse(frame.bytes()).unwrap();
        segment(&frame, &parsed, &mut Frame::new(), |piece| {
            let parsed = parse(piece.bytes()).unwrap();
            assert_ne!(checksum::verify(piece.bytes(), &parsed), Some(false));
            all.push(piece.bytes()[parsed.payload()..].to_vec());
        });
    }
    all
}

#[test]
fn datagrams_of_a_batch_leave_as_super_packets_in_their_order() {
    let payload = |number: u16| [number.to_be_bytes(), [1, 2]].concat();
    let packets = (0..40).map(|number| unsummed(("10.1.1.4", 1_000 + number % 2), &payload(number))).collect();
    let (node, left) = sent_at_once(packets, |_| {});
    assert!(left.len() <= 10, "{} packets left", left.len());
    let payloads = payloads(&left);
    for flow in 0..2_u16 {
        let expected: Vec<_> = (flow..40).step_by(2).map(payload).collect();
        let of_flow = |payload: &&Vec<u8>| u16::from(payload[1]) % 2 == flow;
        assert_eq!(payloads.iter().filter(of_flow).cloned().collect::<Vec<_>>(), expected);
    }
    assert_eq!((node.report().forwarded, node.report().forwarded_bytes), (40, 40 * 32));
    node.finish();
}

#[test]
fn a_packet_that_is_sent_alone_does_not_overtake_its_flow() {
    let mut packets: Vec<memory::Packet> = (0..8_u8).map(|number| unsummed(("10.1.1.4", 9), &[number])).collect();
    // One whose checksum nobody has verified.
    packets[4] = memory::Packet::from(udp(("10.1.1.4", 9), ("20.60.1.10", 443), &[4]));
    let (node, left) = sent_at_once(packets, |_| {});
    assert_eq!(payloads(&left), (0..8_u8).map(|number| vec![number]).collect::<Vec<_>>());
    assert_eq!(left.len(), 3);
    node.finish();
}

/// One in 16 is timed, the first one included: first packets by themselves, packets of flows only with their batch.
#[test]
fn batches_and_first_packets_are_timed_and_packets_of_flows_are_not() {
    let node = Node::start(1);
    let pass = |source: u16| {
        node.inject("vm1", 0, udp(("10.1.1.4", source), ("192.168.1.1", 1), b"x"));
        node.expect("gateway", 0);
    };
    let timed = || {
        let report = node.report();
        (report.first_packets.count(), report.batch_times.count(), report.timed_packets)
    };
    let wait_for = |expected: (u64, u64, u64)| {
        let deadline = Instant::now() + Duration::from_secs(10);
        while timed() != expected {
            assert!(Instant::now() < deadline, "{:?} instead of {expected:?}", timed());
            std::thread::yield_now();
        }
    };
    // Each is a batch of its own.
    for _ in 0..16 {
        pass(1);
    }
    wait_for((1, 1, 1));
    pass(1);
    wait_for((1, 2, 2));
    for source in 2..=16 {
        pass(source);
    }
    wait_for((1, 2, 2));
    pass(17);
    wait_for((2, 3, 3));
    let report = node.report();
    assert!(report.first_packets.nanoseconds > 0 && report.batch_times.nanoseconds > report.first_packets.nanoseconds);
    node.finish();
}

/// What a device refuses is counted by its error, whoever the packet is from; a full queue of our own is no error of a device.
#[test]
fn errors_of_devices_are_counted_by_port_and_number() {
    let node = Node::start(1);
    let gateway = node.queue("gateway", 0);
    let failures = [libc::EIO, libc::ENOBUFS, libc::EIO, libc::EXDEV].map(memory::Failure::Errno);
    for failure in failures.into_iter().chain([memory::Failure::Full, memory::Failure::TooBig]) {
        gateway.fail_next_send(failure);
    }
    for number in 0..7 {
        node.inject("vm1", 0, udp(("10.1.1.4", 9), ("192.168.1.1", 1), &[number]));
    }
    assert_eq!(node.expect("gateway", 0).payload, [6], "the one after the failures");
    let vm2 = node.queue("vm2", 0);
    vm2.fail_next_receive(libc::ENETDOWN);
    let deadline = Instant::now() + Duration::from_secs(10);
    while node.handle.ports().len() != node.queues.len() - 1 {
        assert!(Instant::now() < deadline);
    }
    let snapshot = node.publisher.current();
    let mut seen: Vec<(String, Operation, &str, u64)> = Vec::new();
    for errors in node.handle.port_errors() {
        seen.push((snapshot.port_name(errors.port), errors.operation, errors.errno, errors.count));
    }
    let write = |errno, count| ("gateway".to_owned(), Operation::Write, errno, count);
    let ended = ("vm2".to_owned(), Operation::Read, "ENETDOWN", 1);
    assert_eq!(seen, [write("EIO", 2), write("ENOBUFS", 1), write("other", 1), write("EMSGSIZE", 1), ended]);
    let dropped = node.report().dropped;
    assert_eq!(["egress_failed", "egress_queue_full", "packet_too_big"].map(|reason| dropped[reason]), [3, 2, 1]);
    node.finish();
}

#[test]
fn packets_of_a_super_packet_that_could_not_leave_are_dropped_one_by_one() {
    let packets = (0..8_u8).map(|number| unsummed(("10.1.1.4", 9), &[number])).collect();
    let (node, left) = sent_at_once(packets, |gateway| gateway.fail_next_send(memory::Failure::Full));
    assert!(left.is_empty());
    let report = node.report();
    assert_eq!((report.forwarded, report.forwarded_bytes), (0, 0));
    assert_eq!(report.dropped.get("egress_queue_full"), Some(&8), "{:?}", report.dropped);
    assert!(report.dropped_inbound.is_empty(), "vm1 sent them: {:?}", report.dropped_inbound);
    node.finish();
}
