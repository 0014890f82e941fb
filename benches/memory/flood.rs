//! How much of the rate of established packets remains where another NIC sends nothing but first packets, at a worker whose
//! flow table is full.
//!
//! It is a real worker on a thread of its own, with ports that need no device: one always has packets of 1,024 flows that
//! both sides have seen, the other one always has a packet of a 5-tuple that was never there. So the worker's own account of
//! turns is measured, and what it costs to end a flow for each that begins. What a system call for each packet would add is
//! not there; with it, the flood would take a smaller part.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::event::{EventfdFlags, eventfd};
use sidestep::packet::checksum;
use sidestep::packet::frame::Frame;
use sidestep::plan::Plan;
use sidestep::port::{Port, SendError};
use sidestep::snapshot::{PortId, Publisher};
use sidestep::telemetry::counters::Report as Counters;
use sidestep::worker::{Handle, Paths, Poll, Settings};

use crate::Measure;
use crate::bench::NETWORK;
use crate::forwarding::{self, LIFETIME, processor_time};
use crate::packets::udp;
use crate::report::{Report, Wanted};
use crate::tags;

/// Flows that the worker has room for.
const LIMIT: u32 = 1_032_192;

/// Flows of the port that keeps its rate.
const ESTABLISHED: u16 = 1_024;

/// Packets of them that are timed.
const PACKETS: u64 = 1_000_000;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a worker waits by for packets of a port, as for those of a device.
struct Bell(OwnedFd);

impl Bell {
    fn new() -> Arc<Self> {
        Arc::new(Self(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).expect("a descriptor")))
    }

    /// There is something to receive from now on.
    fn ring(&self) {
        rustix::io::write(&self.0, &1_u64.to_ne_bytes()).expect("ring");
    }

    /// There is no more.
    fn stop(&self) {
        rustix::io::read(&self.0, &mut [0; 8]).expect("it rings");
    }
}

/// Always has packets of the same flows, while it is asked to.
struct Steady {
    packets: Vec<Vec<u8>>,
    next: usize,
    bell: Arc<Bell>,
    /// Packets that are still to be given.
    left: Arc<AtomicU64>,
    /// When the first of them was given, as the thread's processor time.
    start: Option<Duration>,
    done: Sender<Duration>,
}

impl Port for Steady {
    fn receive(&mut self, _now: Instant, batch: &mut [Frame]) -> io::Result<usize> {
        let left = self.left.load(Ordering::Acquire);
        if left == 0 {
            return Ok(0);
        }
        let start = *self.start.get_or_insert_with(processor_time);
        let count = (batch.len() as u64).min(left);
        for frame in batch.iter_mut().take(count as usize) {
            frame.set_packet(&self.packets[self.next]);
            self.next = (self.next + 1) % self.packets.len();
        }
        self.left.store(left - count, Ordering::Release);
        if left == count {
            self.start = None;
            self.bell.stop();
            // Nobody waits any more where the benchmark has failed.
            let _gone = self.done.send(processor_time() - start);
        }
        Ok(count as usize)
    }

    fn send(&mut self, _now: Instant, _frame: &mut Frame) -> Result<(), SendError> {
        Ok(())
    }

    fn readable(&self) -> Option<BorrowedFd<'_>> {
        Some(self.bell.0.as_fd())
    }

    fn describe(&self) -> String {
        "steady".to_owned()
    }
}

/// Always has a packet of another 5-tuple, while its bell rings.
struct Random {
    packet: Vec<u8>,
    random: Rng,
    bell: Arc<Bell>,
}

impl Port for Random {
    fn receive(&mut self, _now: Instant, batch: &mut [Frame]) -> io::Result<usize> {
        for frame in batch.iter_mut() {
            let to = self.random.u32(64 << 24..80 << 24);
            self.packet[16..20].copy_from_slice(&to.to_be_bytes());
            self.packet[20..24].copy_from_slice(&self.random.u32(..).to_be_bytes());
            self.packet[10..12].fill(0);
            let sum = !checksum::sum(&self.packet[..20]);
            self.packet[10..12].copy_from_slice(&sum.to_be_bytes());
            frame.set_packet(&self.packet);
        }
        Ok(batch.len())
    }

    fn send(&mut self, _now: Instant, _frame: &mut Frame) -> Result<(), SendError> {
        Ok(())
    }

    fn readable(&self) -> Option<BorrowedFd<'_>> {
        Some(self.bell.0.as_fd())
    }

    fn describe(&self) -> String {
        "random".to_owned()
    }
}

/// A worker whose flow table is full.
pub(crate) struct Flood {
    handle: Handle,
    /// What the port of established packets is to give, and its bell.
    steady: (Arc<AtomicU64>, Arc<Bell>),
    flood: Arc<Bell>,
    done: Receiver<Duration>,
}

impl Flood {
    /// Starts the worker and fills its table.
    pub(crate) fn new(report: &mut Report) -> Self {
        report.row("flood_keeps", "part of their rate that packets keep in a flood", Wanted::AtLeast(0.5));
        report.row("flood_first_packets", "first packets of the flood for each of them", Wanted::Anything);
        report.row("established_worker_ns", "a packet of 1,024 flows through a worker, ns", Wanted::Anything);
        let second = "[[nic]]\nname = \"flooder\"\nsubnet = \"spoke/workload\"\nprivate_addresses = [\"10.1.1.5\"]\n\
                      device = { tun = \"t-flooder\" }\n";
        let document = format!("{NETWORK}{second}");
        let mut network = sidestep::model::parse(&document, "flood.toml".as_ref(), None)
            .unwrap_or_else(|mistakes| panic!("the document is wrong:\n{mistakes}"));
        (network.flows.limit, network.flows.limit_per_nic) = (LIMIT, LIMIT);
        network.flows.lifetimes.udp = Some(Duration::from_millis(LIFETIME));
        let snapshot = Plan::new(Arc::new(network), Arc::new(tags::catalogue())).compile(1, None).expect("it compiles");
        let snapshot = Arc::new(snapshot);
        let [steady, replies] = [(); 2].map(|()| (Arc::new(AtomicU64::new(0)), Bell::new()));
        let (finished, done) = channel();
        let give = |packets, (left, bell): &(Arc<AtomicU64>, Arc<Bell>)| {
            let (left, bell, done) = (left.clone(), bell.clone(), finished.clone());
            Box::new(Steady { packets, next: 0, bell, left, start: None, done })
        };
        let [there, back] = [true, false].map(|there| {
            let flow = |number| {
                let ends = [("10.1.1.4", 1_000 + number), ("192.168.1.1", 443)];
                if there { udp(ends[0], ends[1], &[0; 22]) } else { udp(ends[1], ends[0], &[0; 22]) }
            };
            (0..ESTABLISHED).map(flow).collect::<Vec<_>>()
        });
        let flood = Bell::new();
        let random = Random {
            packet: udp(("10.1.1.5", 1), ("64.0.0.1", 1), &[0; 22]),
            random: Rng::with_seed(21),
            bell: flood.clone(),
        };
        let port = |name| forwarding::port(&snapshot, name);
        let ports: Vec<(PortId, Vec<Box<dyn Port>>)> = vec![
            (port("vm1"), vec![give(there, &steady)]),
            (port("gateway"), vec![give(back, &replies)]),
            (port("flooder"), vec![Box::new(random)]),
        ];
        let paths =
            Paths::new(&snapshot, &Settings { workers: 1, flow_limit: LIMIT as usize, seed: 3, poll: Poll::Sleep });
        let handle = Handle::start(Arc::new(Publisher::new(snapshot)), ports, paths).expect("a worker");
        let worker = Self { handle, steady, flood, done };
        worker.run(ESTABLISHED.into());
        worker.give(&replies, ESTABLISHED.into());
        worker.flood.ring();
        let deadline = Instant::now() + PATIENCE;
        while worker.counters().flows_evicted < 1_000 {
            assert!(Instant::now() < deadline, "the table fills: {:?}", worker.counters());
            worker.run(10_000);
        }
        worker.flood.stop();
        worker
    }

    fn counters(&self) -> Counters {
        Counters::sum(&self.handle.counters())
    }

    /// Nanoseconds of the worker for each packet of so many that are established.
    fn run(&self, packets: u64) -> f64 {
        self.give(&self.steady, packets).as_nanos() as f64 / packets as f64
    }

    /// Lets a port give so many packets; the worker's time from the first to the last.
    fn give(&self, (left, bell): &(Arc<AtomicU64>, Arc<Bell>), packets: u64) -> Duration {
        left.store(packets, Ordering::Release);
        bell.ring();
        self.done.recv_timeout(PATIENCE).expect("the packets pass")
    }
}

impl Measure for Flood {
    fn round(&mut self, report: &mut Report) {
        let before = self.counters();
        let alone = self.run(PACKETS);
        let between = self.counters();
        assert_eq!(between.flow_misses, before.flow_misses, "the flows are there");
        self.flood.ring();
        let flooded = self.run(PACKETS);
        self.flood.stop();
        let after = self.counters();
        let (first, hits) = (after.flow_misses - between.flow_misses, after.flow_hits - between.flow_hits);
        assert!(first > 0 && after.flows_evicted > between.flows_evicted, "it is a flood");
        report.note("established_worker_ns", alone);
        report.note("flood_keeps", alone / flooded);
        report.note("flood_first_packets", first as f64 / hits as f64);
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.handle.stop();
    }
}
