//! What passes through the nodes, and what of it is measured.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sidestep::port::namespace;

use crate::datagrams::{HEADERS, Link};
use crate::ending::Ending;
use crate::processor::spent;
use crate::report::median;
use crate::sites::Site;
use crate::stream::{Pace, during, stream};
use crate::watchers::Watchers;

/// Size of small IP packets.
const SMALL: usize = 64;

/// Bytes that a sender hands over and a receiver takes at once.
const BLOCK: usize = 128 << 10;

/// How long it takes until what arrives is counted.
const WARM: Duration = Duration::from_millis(40);

/// How long things are measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) rounds: usize,
    /// Turns of a round.
    turns: usize,
    /// A turn of TCP connections that stay, and of datagrams.
    turn: Duration,
    /// A turn of short connections. Longer than what flow logs wait until they write.
    turn_short: Duration,
}

impl Times {
    pub(crate) const FULL: Self =
        Self { rounds: 15, turns: 5, turn: Duration::from_millis(400), turn_short: Duration::from_millis(1_500) };
    pub(crate) const QUICK: Self =
        Self { rounds: 5, turns: 3, turn: Duration::from_millis(250), turn_short: Duration::from_millis(1_200) };
}

/// A node that is measured.
pub(crate) struct Subject {
    // Before the node that they look at.
    pub(crate) watchers: Option<Watchers>,
    /// Connections that stay.
    streams: Vec<Connection>,
    link: Link,
    listener: TcpListener,
    pub(crate) site: Site,
}

/// Both ends of a connection from `left` to `right`.
struct Connection {
    left: TcpStream,
    right: TcpStream,
}

/// The most connections at once.
const CONNECTIONS: usize = 8;

impl Subject {
    pub(crate) fn new(site: Site) -> Self {
        let listener = namespace::run(Some(&site.lab.name("right")), || TcpListener::bind(("0.0.0.0", 0)));
        let listener = listener.expect("a namespace").expect("listen");
        let streams = (0..CONNECTIONS).map(|_| {
            let left = connect(&site, &listener);
            let (right, _) = listener.accept().expect("accept");
            // So that a turn ends.
            right.set_read_timeout(Some(Duration::from_millis(5))).expect("a limit");
            Connection { left, right }
        });
        let streams = streams.collect();
        Self { watchers: None, streams, link: Link::new(&site), listener, site }
    }
}

fn connect(site: &Site, listener: &TcpListener) -> TcpStream {
    let port = listener.local_addr().expect("an address").port();
    let stream = namespace::run(Some(&site.lab.name("left")), || TcpStream::connect((site.to, port)));
    stream.expect("a namespace").expect("connect")
}

/// One thing that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// Gigabits in a second of so many TCP connections.
    Tcp(usize),
    /// Thousand small datagrams in a second that arrive of as many as the sender can send.
    Udp,
    /// Processor time of the node for each of them.
    UdpCost,
    /// TCP connections in a second that are opened and closed, one after the other.
    Short,
    /// Processor time of the node for each of them.
    ShortCost,
}

impl Load {
    pub(crate) const ALL: [Self; 6] =
        [Self::Tcp(1), Self::Tcp(CONNECTIONS), Self::Udp, Self::UdpCost, Self::Short, Self::ShortCost];

    pub(crate) fn key(self) -> String {
        match self {
            Self::Tcp(connections) => format!("tcp{connections}"),
            Self::Udp => "udp64".to_owned(),
            Self::UdpCost => "udp64_cost".to_owned(),
            Self::Short => "connections".to_owned(),
            Self::ShortCost => "connections_cost".to_owned(),
        }
    }

    pub(crate) fn title(self) -> String {
        match self {
            Self::Tcp(connections) => format!("TCP x{connections}, Gb/s"),
            Self::Udp => "UDP 64 B flood, kpps".to_owned(),
            Self::UdpCost => "UDP 64 B, CPU ns".to_owned(),
            Self::Short => "short connections, 1/s".to_owned(),
            Self::ShortCost => "short connections, CPU µs".to_owned(),
        }
    }

    /// Whether it is found with the load before it, and less is better.
    pub(crate) fn is_cost(self) -> bool {
        matches!(self, Self::UdpCost | Self::ShortCost)
    }

    /// Measures it once, all nodes in turn, and its cost: the medians of the turns.
    pub(crate) fn measure(self, subjects: &mut [Subject], times: &Times) -> Vec<(Self, Vec<(&'static str, f64)>)> {
        let mut rates = vec![Vec::new(); subjects.len()];
        let mut costs = rates.clone();
        for _ in 0..times.turns {
            for (number, subject) in subjects.iter_mut().enumerate() {
                let watching = subject.watchers.as_ref().map(Watchers::look);
                let process = subject.site.process().expect("a node");
                let before = spent(process);
                match self {
                    Self::Tcp(connections) => rates[number].push(tcp(&mut subject.streams[..connections], times.turn)),
                    Self::Udp | Self::UdpCost => {
                        let taken = subject.site.taken();
                        let outcome = stream(&subject.link, SMALL - HEADERS, Pace::Flood, during(times.turn));
                        rates[number].push(outcome.rate / 1e3);
                        costs[number].push((spent(process) - before) * 1e9 / (subject.site.taken() - taken) as f64);
                    }
                    Self::Short | Self::ShortCost => {
                        let count = short(subject, times.turn_short);
                        rates[number].push(count as f64 / times.turn_short.as_secs_f64());
                        costs[number].push((spent(process) - before) * 1e6 / count as f64);
                    }
                }
                drop(watching);
            }
        }
        let medians = |values: &[Vec<f64>]| {
            let names = subjects.iter().map(|subject| subject.site.name);
            names.zip(values.iter().map(|values| median(values))).collect::<Vec<_>>()
        };
        let mut found = vec![(self, medians(&rates))];
        match self {
            Self::Udp => found.push((Self::UdpCost, medians(&costs))),
            Self::Short => found.push((Self::ShortCost, medians(&costs))),
            _ => {}
        }
        found
    }
}

/// Sends over connections as much as they take, and gives the gigabits in a second that arrived.
fn tcp(connections: &mut [Connection], time: Duration) -> f64 {
    let (arrived, ending) = (AtomicU64::new(0), Ending::default());
    let idle = AtomicBool::new(false);
    thread::scope(|scope| {
        let (arrived, ending, idle) = (&arrived, &ending, &idle);
        for Connection { left, right } in connections {
            scope.spawn(move || {
                let block = vec![7; BLOCK];
                while !ending.has_come() {
                    left.write_all(&block).expect("send");
                }
            });
            scope.spawn(move || {
                let mut block = vec![0; BLOCK];
                loop {
                    match right.read(&mut block) {
                        Ok(length) => _ = arrived.fetch_add(length as u64, Ordering::Relaxed),
                        // Nothing is on its way any more.
                        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                            if idle.load(Ordering::Relaxed) {
                                return;
                            }
                        }
                        Err(error) => panic!("receive: {error}"),
                    }
                }
            });
        }
        let guard = ending.guard();
        thread::sleep(WARM);
        let (start, before) = (Instant::now(), arrived.load(Ordering::Relaxed));
        thread::sleep(time);
        let bytes = arrived.load(Ordering::Relaxed) - before;
        let rate = bytes as f64 * 8.0 / start.elapsed().as_secs_f64() / 1e9;
        drop(guard);
        // A sender that waits for room has it soon.
        thread::sleep(WARM);
        idle.store(true, Ordering::Relaxed);
        rate
    })
}

/// Opens connections, one after the other, hears a byte and closes them; gives how many.
fn short(subject: &Subject, time: Duration) -> u64 {
    let Subject { site, listener, .. } = subject;
    let port = listener.local_addr().expect("an address").port();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            loop {
                let (mut right, _) = listener.accept().expect("accept");
                if done.load(Ordering::Relaxed) {
                    return;
                }
                right.write_all(b"x").expect("send");
            }
        });
        let count = namespace::run(Some(&site.lab.name("left")), || {
            let start = Instant::now();
            let mut count = 0;
            while start.elapsed() < time {
                let mut left = TcpStream::connect((site.to, port)).expect("connect");
                let mut all = Vec::new();
                left.read_to_end(&mut all).expect("receive");
                assert_eq!(all, b"x");
                count += 1;
            }
            count
        });
        done.store(true, Ordering::Relaxed);
        drop(connect(site, listener));
        count.expect("a namespace")
    })
}
