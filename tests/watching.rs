//! Packets that are watched in real workers over memory ports: what is told of them, which of them are meant, and that
//! nothing of forwarding changes by it.

#[path = "behaviour/bench.rs"]
#[allow(dead_code, reason = "shared with the behaviour tests, which use more of it")]
mod bench;
#[path = "behaviour/packets.rs"]
#[allow(dead_code, reason = "shared with the behaviour tests, which use more of it")]
mod packets;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sidestep::model::network::{EndpointSource, Network, ServiceEndpoint};
use sidestep::packet::frame::{Checksum, Offload, SegmentKind, Segmentation};
use sidestep::path::{Answer, DropReason, Verdict};
use sidestep::plan::Plan;
use sidestep::port::Port;
use sidestep::port::memory::{self, Packet};
use sidestep::snapshot::{PortId, Publisher};
use sidestep::telemetry::capture::{Capture, parse_what};
use sidestep::telemetry::counters::Report;
use sidestep::telemetry::trace::TracedPacket;
use sidestep::worker::{End, Filter, Handle, How, MOST_WATCHES, Paths, Poll, Seen, Settings, Wanted, Watching, What};

use packets::{Tcp, echo, port_unreachable, udp};

const PATIENCE: Duration = Duration::from_secs(10);

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
        let network = sidestep::model::parse(bench::NETWORK, Path::new("watching.toml"), None).unwrap();
        let snapshot = Arc::new(Plan::new(Arc::new(network.clone()), bench::catalogue()).compile(1, None).unwrap());
        let mut ports: Vec<(PortId, Vec<Box<dyn Port>>)> = Vec::new();
        let mut queues = Vec::new();
        for number in 0..snapshot.ports.len() {
            let (mine, theirs): (Vec<_>, Vec<_>) =
                (0..workers).map(|_| memory::port(memory::Settings::default())).unzip();
            ports.push((PortId(number as u16), mine.into_iter().map(|port| Box::new(port) as Box<dyn Port>).collect()));
            queues.push(theirs);
        }
        let settings = Settings { workers, flow_limit: 10_000, seed: 3, poll: Poll::Sleep };
        let paths = Paths::new(&snapshot, &settings);
        let publisher = Arc::new(Publisher::new(snapshot));
        let handle = Handle::start(publisher.clone(), ports, paths).unwrap();
        Self { network, publisher, handle, queues }
    }

    fn port(&self, name: &str) -> PortId {
        let snapshot = self.publisher.current();
        PortId(snapshot.ports.iter().position(|entry| entry.name == name).unwrap() as u16)
    }

    fn queue(&self, port: &str, worker: usize) -> &memory::Handle {
        &self.queues[usize::from(self.port(port).0)][worker]
    }

    fn inject(&self, port: &str, worker: usize, packet: impl Into<Packet>) {
        assert!(self.queue(port, worker).inject(packet));
    }

    /// The next packet that leaves through a worker's queue of a port.
    #[track_caller]
    fn expect(&self, port: &str, worker: usize) -> Packet {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(packet) = self.queue(port, worker).collect() {
                return packet;
            }
            assert!(Instant::now() < deadline, "nothing left through {port}: {:?}", self.report());
            std::thread::yield_now();
        }
    }

    fn switch_storage(&mut self, on: bool) {
        let subnet = self.network.find_subnet("spoke/workload").unwrap();
        let endpoints =
            &mut self.network.virtual_networks[subnet.virtual_network].subnets[subnet.subnet].service_endpoints;
        endpoints.clear();
        if on {
            endpoints.push(ServiceEndpoint {
                service: "Microsoft.Storage".into(),
                locations: vec![],
                source: EndpointSource::Private,
            });
        }
        let before = self.publisher.current();
        let plan = Plan::new(Arc::new(self.network.clone()), bench::catalogue());
        self.publisher.publish(plan.compile(before.generation + 1, Some(&before)).unwrap());
        assert!(self.handle.wait_for_generation(before.generation + 1, PATIENCE));
    }

    fn watch(&self, filter: Filter) -> Watching {
        self.watch_with(Wanted { filter, stages: true, snaplen: 65_535, ..Wanted::default() })
    }

    fn watch_with(&self, wanted: Wanted) -> Watching {
        self.handle.watch(wanted, self.publisher.current().ports.len()).expect("watch")
    }

    fn end(&self, name: &str) -> Option<End> {
        let port = self.port(name);
        let addresses = &self.publisher.current().ports[usize::from(port.0)].addresses;
        Some(End { port: Some(port), prefixes: addresses.iter().map(|address| (*address).into()).collect() })
    }

    fn report(&self) -> Report {
        Report::sum(&self.handle.counters())
    }

    /// Waits until so many packets have been received and have ended.
    #[track_caller]
    fn settle(&self, received: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.report().received != received || self.report().unaccounted() != 0 {
            assert!(Instant::now() < deadline, "{:?}", self.report());
            std::thread::yield_now();
        }
    }
}

fn prefix(text: &str) -> Option<End> {
    Some(End { port: None, prefixes: vec![text.parse().unwrap()] })
}

#[track_caller]
fn next(watching: &Watching) -> Arc<Seen> {
    watching.next(PATIENCE).expect("a packet is seen")
}

fn stages(seen: &Seen) -> Vec<&str> {
    seen.stages.iter().map(|stage| stage.stage.as_str()).collect()
}

fn said(seen: &Seen, stage: &str) -> String {
    let found = seen.stages.iter().filter(|record| record.stage == stage);
    found.map(|record| format!("{} [{}]", record.decision, record.details.join("; "))).collect::<Vec<_>>().join(" / ")
}

#[test]
fn a_first_packet_shows_every_stage_and_later_ones_the_flow() {
    let mut node = Node::start(1);
    node.switch_storage(true);
    let watching = node.watch(Filter { from: node.end("vm1"), both: true, ..Filter::default() });
    node.inject("vm1", 0, Tcp::default().bytes());
    let first = next(&watching);
    assert_eq!(
        stages(&first),
        ["parse", "flow", "origin", "route", "next hop", "source", "install", "rewrite", "send"],
        "{:#?}",
        first.stages
    );
    assert_eq!(first.verdict, Some(Verdict::Forwarded(node.port("contosodata"))));
    assert!(said(&first, "flow").starts_with("miss"), "{}", said(&first, "flow"));
    assert!(said(&first, "next hop").contains("VirtualNetworkServiceEndpoint through contosodata"));
    assert!(said(&first, "install").contains("flow made, opening, generation 2"), "{}", said(&first, "install"));
    // The same stages as for a packet that is only asked about.
    let mut frame = sidestep::packet::frame::Frame::from_packet(&Tcp::default().bytes());
    let explained = sidestep::path::explain(&node.publisher.current(), node.port("vm1"), &frame);
    for stage in &explained.stages {
        assert!(stage.stage == "send" || first.stages.contains(stage), "{stage:?} in {:#?}", first.stages);
    }
    frame.clear();

    let answer = Tcp {
        from: ("20.60.1.10", 443),
        to: ("10.1.1.4", 40_000),
        flags: "SA",
        acknowledgment: 1_001,
        ..Tcp::default()
    };
    node.inject("contosodata", 0, answer.bytes());
    let reply = next(&watching);
    assert_eq!(stages(&reply), ["parse", "flow", "rewrite", "send"]);
    let flow = said(&reply, "flow");
    for words in [
        "hit: reply, opening",
        "decided under generation 2, the current one",
        "vm1 to contosodata, VirtualNetworkServiceEndpoint, source seen as 10.1.1.4",
        "Microsoft.Storage",
    ] {
        assert!(flow.contains(words), "{words}: {flow}");
    }
    let traced = TracedPacket::of(2, &reply).unwrap();
    let text = traced.text();
    assert!(
        text.contains("from contosodata, generation 2\n  tcp 20.60.1.10:443 -> 10.1.1.4:40000 SA, 40 bytes\n"),
        "{text}"
    );
    assert!(text.ends_with("  verdict: sent to vm1\n"), "{text}");
    assert_eq!(traced, serde_json::from_str(&serde_json::to_string(&traced).unwrap()).unwrap());
}

#[test]
fn a_translated_packet_shows_what_it_becomes_and_its_reply_is_found() {
    let node = Node::start(1);
    let watching = node.watch(Filter { from: prefix("10.1.3.4/32"), both: true, ..Filter::default() });
    node.inject("vm3", 0, udp(("10.1.3.4", 5), ("198.51.100.80", 53), b"q"));
    let out = next(&watching);
    let rewritten = said(&out, "rewrite");
    assert!(rewritten.contains("source 10.1.3.4:5 becomes 203.0.113.200:"), "{rewritten}");
    assert!(rewritten.contains("destination 198.51.100.80:53 stays"), "{rewritten}");
    let (image, sent) = &out.left[0];
    assert_eq!((image.port, *sent), (node.port("internet"), Ok(())));
    let port = image.parsed.unwrap().source_port;
    // As it enters nothing of it says whom it is for.
    node.inject("internet", 0, udp(("198.51.100.80", 53), ("203.0.113.200", port), b"a"));
    let back = next(&watching);
    assert_eq!(back.verdict, Some(Verdict::Forwarded(node.port("vm3"))));
    assert!(said(&back, "rewrite").contains("becomes 10.1.3.4:5"));
}

#[test]
fn only_what_the_filter_means_is_seen() {
    let mut node = Node::start(1);
    let all = node.watch(Filter::default());
    let cases: Vec<(&str, Filter, Vec<usize>)> = vec![
        ("from a port", Filter { from: node.end("vm1"), ..Filter::default() }, vec![0, 1, 2]),
        ("from an address", Filter { from: prefix("10.1.3.4/32"), ..Filter::default() }, vec![3]),
        ("to a prefix", Filter { to: prefix("20.60.0.0/16"), ..Filter::default() }, vec![0]),
        ("to a port, as it leaves", Filter { to: node.end("gateway"), ..Filter::default() }, vec![0, 1]),
        ("to a NIC", Filter { to: node.end("vm2"), ..Filter::default() }, vec![3]),
        ("a protocol", Filter { protocol: Some(1), ..Filter::default() }, vec![1]),
        ("a destination port", Filter { port: Some(53), ..Filter::default() }, vec![3]),
        // The identifier of a ping is no port.
        ("an identifier", Filter { port: Some(77), ..Filter::default() }, vec![]),
        ("no malformed packet", Filter { from: prefix("0.0.0.0/0"), ..Filter::default() }, vec![0, 1, 3]),
    ];
    let packets = [
        ("vm1", Tcp::default().bytes()),
        ("vm1", echo("10.1.1.4", "198.51.100.80", false, 77, 64)),
        ("vm1", vec![0x45, 0, 0]),
        ("vm3", udp(("10.1.3.4", 5), ("10.1.2.4", 53), b"q")),
    ];
    drop(all);
    let mut injected = 0;
    for (what, filter, expected) in cases {
        let watching = node.watch(filter);
        for (port, packet) in &packets {
            node.inject(port, 0, packet.clone());
            injected += 1;
            node.settle(injected);
        }
        let mut seen = Vec::new();
        while let Some(packet) = watching.next(Duration::ZERO) {
            let (_, image) = packet.entered.as_ref().unwrap();
            seen.push(packets.iter().position(|(_, bytes)| *bytes == image.bytes).unwrap());
        }
        assert_eq!(seen, expected, "{what}");
    }
    node.switch_storage(true);
}

#[test]
fn icmp_errors_about_a_flow_are_its_replies() {
    let node = Node::start(1);
    let packet = udp(("10.1.1.4", 5), ("198.51.100.80", 53), b"q");
    let filter = Filter { from: node.end("vm1"), to: prefix("198.51.100.80/32"), both: true, ..Filter::default() };
    let watching = node.watch(Filter { protocol: Some(17), port: Some(53), ..filter });
    node.inject("vm1", 0, packet.clone());
    next(&watching);
    // From a router on the way, which the filter does not name.
    node.inject("gateway", 0, port_unreachable("192.168.7.7", "10.1.1.4", &packet));
    let error = next(&watching);
    assert_eq!(error.verdict, Some(Verdict::Forwarded(node.port("vm1"))));
    assert!(said(&error, "flow").contains("the flow of the packet that it quotes"));
}

#[test]
fn drops_and_answers_have_their_reasons() {
    let node = Node::start(1);
    let watching = node.watch(Filter { from: node.end("vm1"), ..Filter::default() });
    node.inject("vm1", 0, udp(("10.9.9.9", 5), ("198.51.100.80", 53), b"forged"));
    let forged = next(&watching);
    assert_eq!(forged.verdict, Some(Verdict::Dropped(DropReason::SpoofedSource)));
    assert!(said(&forged, "origin").starts_with("drop: spoofed_source"), "{:#?}", forged.stages);
    node.inject("vm1", 0, vec![0x45, 0, 0]);
    let malformed = next(&watching);
    assert_eq!(malformed.verdict, Some(Verdict::Dropped(DropReason::Truncated)));
    let text = TracedPacket::of(1, &malformed).unwrap().text();
    assert!(text.contains("malformed, 3 bytes") && text.contains("malformed_truncated"), "{text}");
    let tired = Tcp { hop_limit: 1, ..Tcp::default() };
    node.inject("vm1", 0, tired.bytes());
    let answered = next(&watching);
    assert_eq!(answered.verdict, Some(Verdict::Answered(Answer::TimeExceeded)));
    assert_eq!(answered.left[0].0.port, node.port("vm1"));
    // A device that refuses: the flow is made, and the packet is lost by name.
    node.queue("gateway", 0).fail_next_send(memory::Failure::Full);
    node.inject("vm1", 0, Tcp::default().bytes());
    let refused = next(&watching);
    assert_eq!(refused.verdict, Some(Verdict::Dropped(DropReason::EgressQueueFull)));
    assert!(said(&refused, "send").contains("not out of gateway: egress_queue_full"), "{:#?}", refused.stages);
}

#[test]
fn a_switch_shows_in_the_next_packet_of_the_flow() {
    let mut node = Node::start(1);
    let watching = node.watch(Filter { from: node.end("vm1"), ..Filter::default() });
    let packet = udp(("10.1.1.4", 5), ("20.60.1.10", 443), b"x");
    node.inject("vm1", 0, packet.clone());
    assert_eq!(next(&watching).verdict, Some(Verdict::Forwarded(node.port("gateway"))));
    node.switch_storage(true);
    node.inject("vm1", 0, packet);
    let moved = next(&watching);
    assert_eq!(moved.verdict, Some(Verdict::Forwarded(node.port("contosodata"))));
    assert_eq!(moved.snapshot.generation, 2);
    let flow = said(&moved, "flow");
    assert!(flow.contains("hit: forward, as its first packet, moved") && flow.contains("/ miss"), "{flow}");
}

#[test]
fn a_packet_that_is_handed_over_is_seen_once_where_it_ends() {
    let node = Node::start(2);
    node.inject("vm3", 0, udp(("10.1.3.4", 5), ("198.51.100.80", 53), b"q"));
    let out = packets::decode(&node.expect("internet", 0).bytes);
    let watching = node.watch(Filter::default());
    node.inject("internet", 1, udp(("198.51.100.80", 53), ("203.0.113.200", out.source_port), b"a"));
    let seen = next(&watching);
    assert_eq!((seen.worker, seen.entered.as_ref().map(|(how, _)| *how)), (0, Some(How::TakenOver)));
    assert_eq!(seen.verdict, Some(Verdict::Forwarded(node.port("vm3"))));
    node.settle(2);
    assert!(watching.next(Duration::from_millis(20)).is_none());
}

#[test]
fn what_is_not_read_is_lost_and_counted_and_forwarded_all_the_same() {
    let node = Node::start(1);
    let watching = node.watch(Filter::default());
    let all: u64 = 3_000;
    for number in 0..all {
        while !node.queue("vm1", 0).inject(udp(("10.1.1.4", number as u16 + 1), ("198.51.100.80", 53), b"x")) {
            std::thread::yield_now();
        }
    }
    node.settle(all);
    assert_eq!(node.report().forwarded, all);
    let mut read = 0;
    while watching.next(Duration::ZERO).is_some() {
        read += 1;
    }
    let lost = watching.lost();
    assert_eq!(lost, [(node.port("vm1"), all - read)]);
    assert!((1_000..1_100).contains(&read), "{read}");
    // It goes on afterwards.
    node.inject("vm1", 0, udp(("10.1.1.4", 1), ("198.51.100.80", 53), b"x"));
    next(&watching);
}

/// Whoever wants drops gets them all, however much is forwarded beside.
#[test]
fn what_is_not_wanted_takes_no_room() {
    let node = Node::start(1);
    let what = What { entered: false, left: false, dropped: true };
    let watching = node.watch_with(Wanted { what, snaplen: 60, ..Wanted::default() });
    let all = 3_000;
    for number in 0..all {
        // Each thousandth is from an address that is nobody's.
        let from = if number % 1_000 == 999 { "10.9.9.9" } else { "10.1.1.4" };
        while !node.queue("vm1", 0).inject(udp((from, number as u16 + 1), ("198.51.100.80", 53), b"x")) {
            std::thread::yield_now();
        }
    }
    node.settle(all);
    assert_eq!(node.report().forwarded, all - 3);
    let seen: Vec<_> = std::iter::from_fn(|| watching.next(Duration::ZERO)).collect();
    assert_eq!((seen.len(), watching.lost()), (3, vec![]));
    assert!(seen.iter().all(|seen| matches!(seen.verdict, Some(Verdict::Dropped(_)))), "{seen:?}");
}

/// A packet that was seen before a change is told under the names of then.
#[test]
fn a_capture_names_ports_as_they_were_called() {
    let node = Node::start(1);
    let watching = node.watch_with(Wanted { snaplen: 60, ..Wanted::default() });
    for number in 1..3 {
        node.inject("vm1", 0, udp(("10.1.1.4", 5), ("198.51.100.80", 53), b"x"));
        node.settle(number);
    }
    let (before, mut after) = (next(&watching), Seen::clone(&next(&watching)));
    let mut network = node.network.clone();
    network.nics.iter_mut().find(|nic| nic.name == "vm1").unwrap().name = "renamed".into();
    let snapshot = Plan::new(Arc::new(network), bench::catalogue()).compile(2, None).unwrap();
    assert_eq!(snapshot.ports[usize::from(node.port("vm1").0)].name, "renamed", "another one has its number");
    after.snapshot = Arc::new(snapshot);
    let mut capture = Capture::new(What::default(), 60);
    let mut file = Vec::new();
    let mut lengths = Vec::new();
    capture.begin(&before.snapshot, [node.port("vm1")], &mut file);
    for seen in [&*before, &after, &after] {
        capture.add(seen, &mut file);
        lengths.push(file.len());
    }
    let has = |bytes: &[u8], name: &str| bytes.windows(name.len()).any(|part| part == name.as_bytes());
    assert!(!has(&file[..lengths[0]], "renamed") && has(&file[..lengths[0]], "vm1"));
    // Another interface, described once, and its packets are of it.
    assert!(has(&file[lengths[0]..lengths[1]], "entered through renamed"));
    assert_eq!(file[lengths[0]..].windows(7).filter(|part| part == b"renamed").count(), 3);
}

#[test]
fn a_limit_ends_it_and_workers_are_free_of_it_when_it_is_dropped() {
    let node = Node::start(2);
    let watching = node.watch_with(Wanted { limit: Some(3), stages: true, ..Wanted::default() });
    for number in 0..20 {
        node.inject("vm1", 0, udp(("10.1.1.4", number + 1), ("198.51.100.80", 53), b"x"));
    }
    node.settle(20);
    assert_eq!(std::iter::from_fn(|| watching.next(Duration::ZERO)).count(), 3);
    assert_eq!((watching.lost(), node.handle.watch_count()), (vec![], 1));
    drop(watching);
    let deadline = Instant::now() + PATIENCE;
    while node.handle.watch_count() != 0 {
        assert!(Instant::now() < deadline, "a worker still knows the watch");
        std::thread::yield_now();
    }
    // As many as may be, and no more.
    let port = node.publisher.current().ports.len();
    let many: Vec<_> = (0..MOST_WATCHES).map(|_| node.handle.watch(Wanted::default(), port).unwrap()).collect();
    assert!(node.handle.watch(Wanted::default(), port).is_none());
    drop(many);
    while node.handle.watch(Wanted::default(), port).is_none() {
        assert!(Instant::now() < deadline, "room comes back");
    }
}

/// The same packets through two nodes, one of which is watched: what leaves, and what is counted, is the same to the byte.
#[test]
fn watching_changes_nothing() {
    let mut nodes = [Node::start(1), Node::start(1)];
    let watching = nodes[1].watch_with(Wanted { stages: true, made: true, snaplen: 65_535, ..Wanted::default() });
    let mut sent = 0;
    for round in 0..3 {
        let super_packet = Packet {
            bytes: Tcp { flags: "A", payload: &[7; 4_000], sequence: 1_001, acknowledgment: 1, ..Tcp::default() }
                .bytes(),
            offload: Offload {
                checksum: Checksum::Partial { start: 20, offset: 16 },
                segmentation: Some(Segmentation { kind: SegmentKind::TcpV4, size: 1_400, ecn: false }),
            },
        };
        let packets: Vec<(&str, Packet)> = vec![
            ("vm1", Tcp::default().bytes().into()),
            ("vm1", super_packet),
            ("vm1", udp(("10.1.1.4", 9), ("20.60.1.10", 443), &[1; 30]).into()),
            ("vm3", udp(("10.1.3.4", 9), ("198.51.100.80", 53), b"q").into()),
            ("vm3", echo("10.1.3.4", "198.51.100.80", false, 4, 64).into()),
            ("vm3", echo("10.1.3.4", "198.51.100.80", false, 4, 1).into()),
            ("vm2", udp(("10.1.2.4", 9), ("198.18.0.1", 53), b"nowhere").into()),
            ("vm1", udp(("10.1.9.9", 9), ("20.60.1.10", 443), b"forged").into()),
            ("vm1", vec![0x60; 7].into()),
        ];
        for (port, packet) in packets {
            sent += 1;
            for node in &nodes {
                node.inject(port, 0, packet.clone());
                node.settle(sent);
            }
            for queue in 0..nodes[0].queues.len() {
                let [plain, watched] = [0, 1].map(|node| nodes[node].queues[queue][0].collect_all());
                assert_eq!(plain, watched, "round {round}, port {queue}");
            }
        }
        nodes.iter_mut().for_each(|node| node.switch_storage(round % 2 == 0));
    }
    let [plain, watched] = [0, 1].map(|node| nodes[node].report());
    let counts = |report: &Report| {
        (report.forwarded, report.answered.clone(), report.dropped.clone(), report.flow_hits, report.flow_misses)
    };
    assert_eq!(counts(&plain), counts(&watched));
    // Everything that entered was seen.
    let seen: Vec<_> = std::iter::from_fn(|| watching.next(Duration::ZERO)).collect();
    assert_eq!(seen.iter().filter(|seen| seen.entered.is_some()).count() as u64, sent);
}

#[test]
fn a_capture_has_what_is_asked_for_with_resets_of_a_switch() {
    let mut node = Node::start(1);
    let filter = Filter { from: node.end("vm1"), both: true, ..Filter::default() };
    let watching = node.watch_with(Wanted { filter, made: true, snaplen: 60, ..Wanted::default() });
    let syn_ack = Tcp {
        from: ("20.60.1.10", 443),
        to: ("10.1.1.4", 40_000),
        flags: "SA",
        sequence: 7,
        acknowledgment: 1_001,
        ..Tcp::default()
    };
    let ack = Tcp { flags: "A", sequence: 1_001, acknowledgment: 8, ..Tcp::default() };
    let opening = [("vm1", Tcp::default().bytes()), ("gateway", syn_ack.bytes()), ("vm1", ack.bytes())];
    for (number, (port, packet)) in (1..).zip(opening) {
        node.inject(port, 0, packet);
        node.settle(number);
    }
    node.inject("vm1", 0, udp(("10.9.9.9", 5), ("198.51.100.80", 53), &[1; 500]));
    node.settle(4);
    node.switch_storage(true);
    let mut seen = Vec::new();
    while let Some(packet) = watching.next(Duration::from_millis(200)) {
        seen.push(packet);
    }
    let made: Vec<_> = seen.iter().filter(|seen| seen.entered.is_none()).collect();
    let ports: Vec<_> = made.iter().map(|seen| seen.left[0].0.port).collect();
    assert_eq!(ports.len(), 2, "a reset to both ends: {made:?}");
    assert!(ports.contains(&node.port("vm1")) && ports.contains(&node.port("gateway")));
    let snapshot = node.publisher.current();
    let count = |what: &str| {
        let mut capture = Capture::new(parse_what(what).unwrap(), 60);
        let mut file = Vec::new();
        capture.begin(&snapshot, [], &mut file);
        seen.iter().for_each(|seen| capture.add(seen, &mut file));
        capture.packets()
    };
    assert_eq!(["entered", "left", "dropped", "entered,dropped", "entered,left,dropped"].map(count), [4, 5, 1, 4, 9]);
    assert!(parse_what("entered,gone").unwrap_err().contains("`gone`"));
}
