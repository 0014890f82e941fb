//! A stream of numbered datagrams at a steady rate from the VM to an echo server (RFC 862), and what of it is lost on the
//! way there and on the way back while the network changes under it.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_recv_buffer_size_force;

use super::DemoError;
use crate::lab::interrupt;
use crate::port::namespace;

/// The port of the echo protocol (RFC 862).
const PORT: u16 = 7;

/// Datagrams offered per second: one lost is a blocked time of 1 ms.
pub(super) const RATE: u32 = 1000;

/// Room for what arrives while a thread is not scheduled. A small datagram takes less than 1 KB of it, so 4 MB are more
/// than 4 s at the rate, and no loss is the receiver's own.
const BUFFER: usize = 4 << 20;

/// How often a thread that waits for datagrams looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(20);

/// When nothing came for so long after the last datagram was sent, nothing is on its way any more.
const SILENCE: Duration = Duration::from_millis(500);

/// What became of a stream's datagrams.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Tally {
    /// Datagrams that were sent.
    pub(super) sent: u64,
    /// Those that the server received.
    pub(super) arrived: u64,
    /// Those that came back.
    pub(super) returned: u64,
    /// The rate at which they really were sent, per second.
    pub(super) rate: f64,
}

/// One datagram of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Echo {
    /// When it was sent, since the stream began.
    pub(super) sent: Duration,
    /// How long it took there and back, none if it did not come back.
    pub(super) round_trip: Option<Duration>,
    /// The source that the server saw, which tells the path; none if it did not arrive.
    pub(super) source_seen: Option<IpAddr>,
}

/// What a datagram carries: its number, and when it was sent, in nanoseconds since the stream began.
const LENGTH: usize = 12;

/// Numbers that came back, when they were sent and how long they took.
type Journal = Mutex<Vec<(u32, Duration, Duration)>>;

/// Numbers that arrived, and the source of each.
type Sources = Mutex<Vec<(u32, IpAddr)>>;

/// Who receives.
enum Receiver {
    /// Whoever sent, and notes how long each took; since when.
    Client(Instant, Arc<Journal>),
    /// Whoever sends back, and notes where each came from.
    Server(Arc<Sources>),
}

/// A stream that runs until it is finished or dropped.
#[derive(Debug)]
pub(super) struct Stream {
    to: SocketAddr,
    begin: Instant,
    sent: Arc<AtomicU64>,
    arrived: Arc<AtomicU64>,
    returned: Arc<AtomicU64>,
    journal: Arc<Journal>,
    sources: Arc<Sources>,
    enough: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    sender: Option<JoinHandle<()>>,
    receivers: Vec<JoinHandle<()>>,
}

impl Stream {
    /// Starts an echo server on an address of one namespace and a stream to it from another.
    ///
    /// # Errors
    /// A socket could not be made, or no thread started.
    pub(super) fn start(from: &str, server: &str, address: IpAddr) -> Result<Self, DemoError> {
        let to = SocketAddr::new(address, PORT);
        let failed = |said: String| DemoError::Probe { what: format!("a stream of datagrams to {to}"), said };
        let open = |netns: &str, local: SocketAddr| {
            namespace::run(Some(netns), || socket(local))
                .map_err(|error| failed(error.to_string()))?
                .map_err(|error| failed(error.to_string()))
        };
        let server = open(server, to)?;
        let client = open(from, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))?;
        let mut stream = Self {
            to,
            begin: Instant::now(),
            sent: Arc::default(),
            arrived: Arc::default(),
            returned: Arc::default(),
            journal: Arc::default(),
            sources: Arc::default(),
            enough: Arc::default(),
            stop: Arc::default(),
            sender: None,
            receivers: Vec::new(),
        };
        stream.run(server, client).map_err(|error| failed(error.to_string()))?;
        Ok(stream)
    }

    fn run(&mut self, server: UdpSocket, client: UdpSocket) -> io::Result<()> {
        client.connect(self.to)?;
        let receiver = client.try_clone()?;
        self.begin = Instant::now();
        let begin = self.begin;
        let served = Receiver::Server(Arc::clone(&self.sources));
        let noted = Receiver::Client(begin, Arc::clone(&self.journal));
        for (socket, count, who) in [(server, &self.arrived, served), (receiver, &self.returned, noted)] {
            let (count, stop) = (Arc::clone(count), Arc::clone(&self.stop));
            let thread = thread::Builder::new().name(format!("datagrams of {}", self.to));
            self.receivers.push(thread.spawn(move || receive(&socket, &who, &count, &stop))?);
        }
        let (sent, enough) = (Arc::clone(&self.sent), Arc::clone(&self.enough));
        let thread = thread::Builder::new().name(format!("stream to {}", self.to));
        self.sender = Some(thread.spawn(move || send(&client, begin, &sent, &enough))?);
        Ok(())
    }

    /// Waits until so many datagrams in all have come back.
    ///
    /// # Errors
    /// They did not in time, or a signal came.
    pub(super) fn wait_for(&self, expected: u64, patience: Duration) -> Result<(), DemoError> {
        let until = Instant::now() + patience;
        loop {
            interrupt::check()?;
            let came = self.returned.load(Ordering::Relaxed);
            if came >= expected {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(DemoError::Probe {
                    what: format!("the stream of datagrams to {}", self.to),
                    said: format!("only {came} of {expected} datagrams came back within {} s", patience.as_secs()),
                });
            }
            thread::sleep(LOOK);
        }
    }

    /// When it began.
    pub(super) fn begin(&self) -> Instant {
        self.begin
    }

    /// Sends nothing more, waits for what is on its way, and counts; and what became of every datagram, in the order in
    /// which they were due.
    pub(super) fn finish(mut self) -> (Tally, Vec<Echo>) {
        self.end_sending();
        let seconds = self.begin.elapsed().as_secs_f64();
        let sent = self.sent.load(Ordering::Relaxed);
        let count = || (self.arrived.load(Ordering::Relaxed), self.returned.load(Ordering::Relaxed));
        let (mut last, mut since) = (count(), Instant::now());
        while last.1 < sent && since.elapsed() < SILENCE {
            thread::sleep(LOOK);
            let now = count();
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
        let (arrived, returned) = count();
        let journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        (Tally { sent, arrived, returned, rate: sent as f64 / seconds }, echoes(sent, &journal, &sources))
    }

    fn end_sending(&mut self) {
        self.enough.store(true, Ordering::Relaxed);
        if let Some(sender) = self.sender.take() {
            // A thread that panicked has said so on stderr.
            let _ = sender.join();
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.end_sending();
        self.stop.store(true, Ordering::Relaxed);
        for receiver in self.receivers.drain(..) {
            let _ = receiver.join();
        }
    }
}

/// What became of so many datagrams: one that did not come back was sent when it was due.
fn echoes(sent: u64, journal: &[(u32, Duration, Duration)], sources: &[(u32, IpAddr)]) -> Vec<Echo> {
    let due = |number| Echo { sent: Duration::from_secs(1) * number / RATE, round_trip: None, source_seen: None };
    let mut echoes: Vec<_> = (0..u32::try_from(sent).unwrap_or(u32::MAX)).map(due).collect();
    for &(number, sent, round_trip) in journal {
        if let Some(echo) = echoes.get_mut(number as usize) {
            (echo.sent, echo.round_trip) = (sent, Some(round_trip));
        }
    }
    for &(number, source) in sources {
        if let Some(echo) = echoes.get_mut(number as usize) {
            echo.source_seen = Some(source);
        }
    }
    echoes
}

fn socket(local: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(local)?;
    socket.set_read_timeout(Some(LOOK))?;
    set_socket_recv_buffer_size_force(&socket, BUFFER)?;
    Ok(socket)
}

/// Sends a datagram whenever one is due. One that comes late does not delay the next ones, so the rate holds.
fn send(socket: &UdpSocket, begin: Instant, sent: &AtomicU64, enough: &AtomicBool) {
    let mut number = 0_u32;
    while !enough.load(Ordering::Relaxed) {
        let due = begin + Duration::from_secs(1) * number / RATE;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        // One that the kernel refuses was offered and does not arrive: it counts as lost.
        let _ = socket.send(&datagram(number, begin.elapsed()));
        number += 1;
        sent.store(number.into(), Ordering::Relaxed);
    }
}

fn datagram(number: u32, sent: Duration) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    // Enough for centuries.
    bytes[4..].copy_from_slice(&u64::try_from(sent.as_nanos()).unwrap_or(u64::MAX).to_be_bytes());
    bytes
}

fn read_datagram(bytes: [u8; LENGTH]) -> (u32, Duration) {
    let [a, b, c, d, sent @ ..] = bytes;
    (u32::from_be_bytes([a, b, c, d]), Duration::from_nanos(u64::from_be_bytes(sent)))
}

/// Counts the different numbers that arrive, and notes of them what whoever receives them knows. A server sends them back.
fn receive(socket: &UdpSocket, who: &Receiver, count: &AtomicU64, stop: &AtomicBool) {
    let mut seen = HashSet::new();
    while !stop.load(Ordering::Relaxed) {
        let mut bytes = [0; LENGTH];
        // Nothing came for a while, or a datagram of the client's could not be delivered, which is counted as a loss.
        let Ok((length, from)) = socket.recv_from(&mut bytes) else { continue };
        let (number, sent) = read_datagram(bytes);
        if length == bytes.len() && seen.insert(number) {
            count.store(seen.len() as u64, Ordering::Relaxed);
            match who {
                Receiver::Client(begin, journal) => {
                    let took = begin.elapsed().saturating_sub(sent);
                    journal.lock().unwrap_or_else(PoisonError::into_inner).push((number, sent, took));
                }
                Receiver::Server(sources) => {
                    sources.lock().unwrap_or_else(PoisonError::into_inner).push((number, from.ip()));
                }
            }
        }
        if matches!(who, Receiver::Server(_)) {
            // An echo that cannot be sent does not come back, and is counted as that.
            let _ = socket.send_to(&bytes[..length], from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receiver(who: Receiver) -> (SocketAddr, Arc<AtomicU64>, Arc<AtomicBool>, JoinHandle<()>) {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
        socket.set_read_timeout(Some(LOOK)).expect("timeout");
        let (address, count, stop) = (socket.local_addr().expect("address"), Arc::default(), Arc::default());
        let (count_too, stop_too) = (Arc::clone(&count), Arc::clone(&stop));
        (address, count, stop, thread::spawn(move || receive(&socket, &who, &count_too, &stop_too)))
    }

    #[test]
    fn every_number_counts_once_and_the_server_echoes() {
        let sources = Arc::new(Sources::default());
        let (address, count, stop, thread) = receiver(Receiver::Server(Arc::clone(&sources)));
        let client = UdpSocket::bind("127.0.0.1:0").expect("bind");
        client.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
        for number in [0_u32, 1, 1, 5] {
            let sent = datagram(number, Duration::from_micros(7));
            client.send_to(&sent, address).expect("send");
            let mut echo = [0; 16];
            assert_eq!(client.recv(&mut echo).expect("echo"), LENGTH);
            assert_eq!(echo[..LENGTH], sent);
        }
        client.send_to(b"no", address).expect("send");
        client.recv(&mut [0; 16]).expect("echo");
        stop.store(true, Ordering::Relaxed);
        thread.join().expect("ends");
        assert_eq!(count.load(Ordering::Relaxed), 3, "0, 1 and 5");
        let sources = sources.lock().expect("sources");
        assert_eq!(*sources, [0, 1, 5].map(|number| (number, IpAddr::from([127, 0, 0, 1]))));
    }

    #[test]
    fn datagrams_are_numbered_from_zero_without_a_gap() {
        let server = UdpSocket::bind("127.0.0.1:0").expect("bind");
        server.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
        let client = UdpSocket::bind("127.0.0.1:0").expect("bind");
        client.connect(server.local_addr().expect("address")).expect("connect");
        let (sent, enough) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (sent_too, enough_too) = (Arc::clone(&sent), Arc::clone(&enough));
        let sender = thread::spawn(move || send(&client, Instant::now(), &sent_too, &enough_too));
        for expected in 0_u32..20 {
            let mut bytes = [0; LENGTH];
            server.recv(&mut bytes).expect("datagram");
            assert_eq!(read_datagram(bytes).0, expected);
        }
        enough.store(true, Ordering::Relaxed);
        sender.join().expect("ends");
        assert!(sent.load(Ordering::Relaxed) >= 20);
    }

    #[test]
    fn a_client_notes_how_long_each_echo_took() {
        let journal = Arc::new(Journal::default());
        let begin = Instant::now();
        let (address, count, stop, thread) = receiver(Receiver::Client(begin, Arc::clone(&journal)));
        let server = UdpSocket::bind("127.0.0.1:0").expect("bind");
        for number in [2_u32, 0, 2] {
            server.send_to(&datagram(number, Duration::from_nanos(u64::from(number))), address).expect("send");
        }
        let until = Instant::now() + Duration::from_secs(10);
        while count.load(Ordering::Relaxed) < 2 {
            assert!(Instant::now() < until, "two numbers");
            thread::sleep(Duration::from_millis(1));
        }
        stop.store(true, Ordering::Relaxed);
        thread.join().expect("ends");
        let source = IpAddr::from([10, 1, 1, 4]);
        let echoes = echoes(3, &journal.lock().expect("journal"), &[(1, source), (9, source)]);
        assert_eq!(echoes.len(), 3);
        assert!(echoes[0].round_trip.is_some_and(|time| time <= begin.elapsed()));
        let lost = Echo { sent: Duration::from_millis(1), round_trip: None, source_seen: Some(source) };
        assert_eq!(echoes[1], lost, "due, and never came back");
        assert_eq!(echoes[2].sent, Duration::from_nanos(2));
    }
}
