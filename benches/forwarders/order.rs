//! A node with two workers: whether datagrams of a flow stay in order both ways, with eight TCP connections beside them, and
//! how many packets one worker has to hand over to the other.

use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use crate::datagrams::{HEADERS, Stamp, clock, silent, socket};
use crate::ending::Ending;
use crate::sites::{Node, Site};

/// Flows of datagrams.
const FLOWS: usize = 64;

/// Payload of their datagrams: IP packets of 64 bytes.
const SIZE: usize = 64 - HEADERS;

/// Where `right` listens.
const PORT: u16 = 9_002;

/// Between two turns, each with a datagram of every flow.
const PERIOD: Duration = Duration::from_micros(500);

/// What became of the flows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    /// Datagrams that arrived at `right`, and back at `left`.
    pub(crate) received: [u64; 2],
    /// Those of them that came after a later one of their flow.
    pub(crate) late: [u64; 2],
    /// Bits in a second of the TCP connections.
    pub(crate) tcp: f64,
    /// What TCP found to be out of order.
    pub(crate) tcp_late: u64,
    /// Packets and super-packets that the node received, and that one worker handed to the other.
    pub(crate) packets: u64,
    pub(crate) handed_over: u64,
}

/// The highest number of each flow, and how many came behind one.
struct Order {
    next: [u64; FLOWS],
    received: u64,
    late: u64,
}

impl Order {
    fn new() -> Self {
        Self { next: [0; FLOWS], received: 0, late: 0 }
    }

    fn see(&mut self, stamp: Stamp) {
        let Some(next) = self.next.get_mut(stamp.stream as usize) else { return };
        self.received += 1;
        self.late += u64::from(stamp.number < *next);
        *next = (*next).max(stamp.number + 1);
    }
}

/// Sends both ways for some seconds.
pub(crate) fn two_workers(source: &'static str, seconds: u32) -> Report {
    let site = Node { source, settings: "workers = 2".to_owned(), ..Node::default() }.start("node, two workers");
    let before = site.counters().expect("a node");
    let ending = Ending::default();
    let right = socket(&site, "right", PORT);
    let lefts: Vec<UdpSocket> = (0..FLOWS)
        .map(|_| {
            let left = socket(&site, "left", 0);
            left.connect((site.to, PORT)).expect("a route");
            left.set_nonblocking(true).expect("no waiting");
            left
        })
        .collect();
    let (there, back, tcp) = thread::scope(|scope| {
        let guard = ending.guard();
        let there = scope.spawn(|| answer(&right, &ending));
        let back = scope.spawn(|| ask(&lefts, &ending));
        let tcp = site.lab.iperf("left", "right", site.to, &["-P", "8", "-t", &seconds.to_string()]);
        drop(guard);
        (there.join().expect("right"), back.join().expect("left"), tcp)
    });
    let after = site.counters().expect("a node");
    Report {
        received: [there.received, back.received],
        late: [there.late, back.late],
        tcp,
        tcp_late: tcp_reordered(&site),
        packets: after.received - before.received,
        handed_over: after.handed_over - before.handed_over,
    }
}

/// Sends a datagram of each flow at a time, and reads what comes back.
fn ask(flows: &[UdpSocket], ending: &Ending) -> Order {
    let mut order = Order::new();
    let mut datagram = [0; SIZE];
    let mut number = 0;
    while !ending.has_come() {
        for (stream, flow) in (0..).zip(flows) {
            Stamp { stream, number, time: clock() }.write(&mut datagram);
            // What is not sent is as good as lost.
            let _sent = flow.send(&datagram);
            while let Ok(length) = flow.recv(&mut datagram) {
                Stamp::read(&datagram[..length]).into_iter().for_each(|stamp| order.see(stamp));
            }
        }
        number += 1;
        thread::sleep(PERIOD);
    }
    order
}

/// Sends each datagram back under a number of its own, so that only the way back is seen in it.
fn answer(socket: &UdpSocket, ending: &Ending) -> Order {
    let mut order = Order::new();
    let mut numbers = [0; FLOWS];
    let mut datagram = [0; SIZE];
    while !ending.has_come() {
        let (length, peer) = match socket.recv_from(&mut datagram) {
            Ok(received) => received,
            Err(error) if silent(&error) => continue,
            Err(error) => panic!("receive: {error}"),
        };
        let Some(stamp) = Stamp::read(&datagram[..length]) else { continue };
        order.see(stamp);
        let Some(number) = numbers.get_mut(stamp.stream as usize) else { continue };
        Stamp { number: *number, ..stamp }.write(&mut datagram);
        *number += 1;
        let _sent = socket.send_to(&datagram[..length], peer);
    }
    order
}

/// Segments that TCP at `left` found to have overtaken each other.
fn tcp_reordered(site: &Site) -> u64 {
    let text = site.lab.exec("left", &["cat", "/proc/net/netstat"]);
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let pairs = names.split_whitespace().zip(values.split_whitespace());
    let found = pairs.filter(|(name, _)| ["TCPSACKReorder", "TCPRenoReorder", "TCPTSReorder"].contains(name));
    found.filter_map(|(_, value)| value.parse::<u64>().ok()).sum()
}
