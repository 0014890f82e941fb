//! Parts of the flow log, with records that workers could have made.

use std::net::UdpSocket;

use super::outlet::{Given, Output};
use super::*;
use crate::control::document::Document;
use crate::control::node::{Loaded, Overrides};
use crate::path::flow::Phase;
use crate::path::policy::Named;
use crate::path::record::{About, Ending, Event};
use crate::path::redecide::Sides;
use crate::path::subject::Subject;
use crate::path::verdict::DropReason;
use crate::snapshot::{NextHopType, PortId, Snapshot};

fn snapshot() -> Arc<Snapshot> {
    let document = Document::read(std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/config/secured.toml")));
    let loaded = Loaded::load(document.unwrap(), Overrides::default()).unwrap();
    loaded.snapshot().clone()
}

fn record(snapshot: &Arc<Snapshot>, event: Event, port: u16) -> Record {
    let number = |name: &str| PortId(snapshot.ports.iter().position(|port| port.name == name).unwrap() as u16);
    let source = ("10.1.1.4".parse().unwrap(), port);
    let destination = ("20.60.1.10".parse().unwrap(), 443);
    let sides = Sides {
        protocol: 6,
        ingress: number("app1"),
        source,
        destination,
        egress: number("contosobackup"),
        presented: source,
        reached: destination,
    };
    record_of(snapshot, event, sides)
}

/// A record of a flow over an endpoint.
pub(in crate::control) fn record_of(snapshot: &Arc<Snapshot>, event: Event, sides: Sides) -> Record {
    Record {
        event,
        at: 2_000,
        began: 1_000,
        about: About::Flow(sides),
        packets: [5, 4],
        bytes: [500, 4_000],
        next_hop_type: Some(NextHopType::VirtualNetworkServiceEndpoint),
        phase: Some(Phase::Established),
        named: Named::NotYet,
        name: None,
        presented: None,
        round_trip: None,
        worker: 0,
        snapshot: snapshot.clone(),
    }
}

/// A packet of app1 that was dropped.
fn dropped(snapshot: &Arc<Snapshot>, reason: DropReason, destination: &str) -> Record {
    let record = record(snapshot, Event::Dropped(reason), 40_000);
    let About::Flow(sides) = record.about else { panic!("a flow") };
    let about = About::Packet(Subject { destination: destination.parse().unwrap(), ..sides.entering() });
    Record { about, packets: [1, 0], bytes: [60, 0], next_hop_type: None, phase: None, ..record }
}

#[test]
fn what_is_lost_for_want_of_room_is_counted_as_what_it_would_have_become() {
    let folder = tempfile::tempdir().unwrap();
    let collector = UdpSocket::bind("127.0.0.1:0").unwrap();
    let snapshot = snapshot();
    let translated = {
        let record = record(&snapshot, Event::Begin, 1);
        let About::Flow(sides) = record.about else { panic!("a flow") };
        Record { about: About::Flow(Sides { presented: ("203.0.113.9".parse().unwrap(), 1_024), ..sides }), ..record }
    };
    let records = [
        translated,
        record(&snapshot, Event::Begin, 2),
        record(&snapshot, Event::Reply, 2),
        record(&snapshot, Event::Continue, 2),
        record(&snapshot, Event::End(Ending::Expired), 2),
        record(&snapshot, Event::Related, 2),
        record(&snapshot, Event::Unsent(DropReason::NoDevice), 2),
        dropped(&snapshot, DropReason::NsgOutboundDenied, "198.51.100.80"),
        dropped(&snapshot, DropReason::NsgInboundDenied, "10.1.2.4"),
    ];
    for record in records {
        let words = FlowRecord::new(&record, 0);
        let mut exporter = Exporter::new(&Address::Udp(collector.local_addr().unwrap())).unwrap();
        exporter.add(&words);
        exporter.flush();
        assert_eq!(exporter.counts(), (ipfix::data_records(&record), 0), "{words:?}");
        assert!(Collector::wants(&record) || ipfix::data_records(&record) == 0);
        let mut files = VnetFlowLog::new(folder.path().to_owned(), vec![], None);
        files.add(&words);
        assert_eq!(files.waiting(), vnet_flow_log::tuples_of(&record), "{words:?}");
        assert!(Files::wants(&record) || files.waiting() == 0);
    }
}

#[test]
fn what_is_used_up_is_told_once_with_its_limit() {
    let collector = UdpSocket::bind("127.0.0.1:0").unwrap();
    collector.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut exporter = Exporter::new(&Address::Udp(collector.local_addr().unwrap())).unwrap();
    let snapshot = snapshot();
    for _ in 0..5 {
        for reason in [DropReason::NoFreePort, DropReason::FlowTableFull, DropReason::FlowLimitOfNic] {
            exporter.add_exhausted(&dropped(&snapshot, reason, "198.51.100.80"), 7);
        }
    }
    exporter.flush();
    let mut buffer = [0; 2_000];
    let _templates = collector.recv(&mut buffer).unwrap();
    let length = collector.recv(&mut buffer).unwrap();
    let mut sets = Vec::new();
    let mut place = 16;
    while place < length {
        let number = |place: usize| u16::from_be_bytes([buffer[place], buffer[place + 1]]);
        let end = place + usize::from(number(place + 2));
        sets.push((number(place), buffer[place + 4..end].to_vec()));
        place = end;
    }
    let time = 7_u64.to_be_bytes();
    let four = |number: u32| number.to_be_bytes().to_vec();
    let (pool, name) = (0..).zip(&snapshot.pools).find(|(_, pool)| !pool.v4.is_empty()).expect("a pool");
    let app1 = snapshot.ports.iter().position(|port| port.name == "app1").unwrap() as u32;
    let by_pool = [&time[..], &[3, 6], &four(pool), &[name.name.len() as u8], name.name.as_bytes()].concat();
    let flows = [&time[..], &[13], &four(1), &four(snapshot.flow_limit)].concat();
    let of_nic =
        [&time[..], &[13], &four(3), &four(snapshot.flow_limit_per_nic), &four(app1 + 1), &[10, 1, 1, 4]].concat();
    assert_eq!(sets, [(264, by_pool), (265, flows), (267, of_nic)]);
    assert_eq!(exporter.counts(), (3, 0));
}

/// An output that takes nothing until it may.
struct Slow {
    may: std::sync::mpsc::Receiver<()>,
    taken: std::sync::mpsc::Sender<usize>,
}

impl Output for Slow {
    fn take(&mut self, given: &Given) {
        let _ = self.may.recv();
        if let Given::Records(batch) = given {
            let _ = self.taken.send(batch.len());
        }
    }

    fn look(&mut self) -> Duration {
        Duration::from_secs(60)
    }

    fn end(&mut self) {}
}

#[test]
fn an_output_that_is_slow_holds_nobody_up_and_what_waits_is_bounded() {
    let log = FlowLog::default();
    let (let_it, may) = std::sync::mpsc::channel();
    let (taken, told) = std::sync::mpsc::channel();
    let snapshot = snapshot();
    lock(&log.going).collector = Some(Outlet::start("slow", Slow { may, taken }).unwrap());
    lock(&log.going).always = true;
    let records: Vec<_> = (0..4_096).map(|port| record(&snapshot, Event::Continue, port)).collect();
    // Nobody lets it go on: what is given does not wait for it, and neither do sums.
    for _ in 0..40 {
        log.give(&mut lock(&log.going), records.clone(), None);
    }
    let totals = log.totals();
    assert_eq!((totals.records, totals.not_exported), (40 * 4_096, 8 * 4_096), "{totals:?}");
    drop(let_it);
    let outlet = lock(&log.going).collector.take().unwrap();
    outlet.close().end(Instant::now() + Duration::from_secs(20));
    assert_eq!(told.iter().sum::<usize>(), 32 * 4_096);
}

#[test]
fn an_output_that_hangs_is_not_waited_for_at_the_end() {
    let (let_it, may) = std::sync::mpsc::channel();
    let (taken, _told) = std::sync::mpsc::channel();
    let outlet = Outlet::start("hanging", Slow { may, taken }).unwrap();
    let batch = Arc::new(Batch::new(vec![record(&snapshot(), Event::Continue, 1)], 0));
    assert!(outlet.give(&batch, None));
    let since = Instant::now();
    outlet.close().end(since + Duration::from_millis(50));
    assert!(since.elapsed() >= Duration::from_millis(50) && since.elapsed() < Duration::from_secs(10));
    drop(let_it);
}

#[test]
fn a_flow_is_told_by_one_clock_unless_it_was_set() {
    let mut going = Going::default();
    going.set_clock(1_000_000, 400);
    for (wall, epoch) in [(1_000_500, 999_600), (999_900, 999_600), (1_002_000, 1_001_600), (900_000, 899_600)] {
        going.set_clock(wall, 400);
        assert_eq!(going.epoch, Some(epoch), "{wall}");
    }
}

#[test]
fn what_is_kept_holds_no_snapshot_that_is_not_in_force() {
    let (before, after) = (snapshot(), snapshot());
    let mut going = Going::default();
    let batch = |snapshot, port| Arc::new(Batch::new(vec![record(snapshot, Event::Begin, port)], 5));
    for port in 0..10 {
        going.keep(batch(&before, port), 1);
    }
    assert_eq!(Arc::strong_count(&before), 11);
    going.keep(batch(&after, 10), 2);
    assert_eq!(Arc::strong_count(&before), 1);
    let ports: Vec<_> =
        going.kept.iter().flat_map(|batch| batch.words()).map(|words| words.source.unwrap().port).collect();
    assert_eq!(ports, (0..=10).collect::<Vec<_>>());
    for port in 0..2 * KEPT as u16 {
        going.keep(batch(&after, port), 2);
    }
    assert_eq!((going.kept.len(), going.kept_records), (KEPT, KEPT));
}
