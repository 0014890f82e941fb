//! Connections that are open while the endpoint is switched.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::conversation::{Web, accept, connect, listen};
use crate::node::{Node, PATIENCE, Site, WORKLOAD};
use crate::site::{FAMILIES, Family};
use crate::support::{privileged, wait_for};

/// How soon after the switch both ends know that their connection is closed.
const SOON: Duration = Duration::from_secs(2);

/// An open connection from `vm1` to the service, with a thread at each end that ends with the connection and says when
/// it was reset.
struct Open {
    client: JoinHandle<Instant>,
    server: JoinHandle<Instant>,
    /// Bytes that the server has.
    received: Arc<AtomicU64>,
}

impl Open {
    /// The client reads what never comes, or writes as fast as it can.
    fn new(node: &Node, family: Family, port: u16, busy: bool) -> Self {
        let listener = listen(&node.site.lab, "storage", port);
        let client = connect(&node.site.lab, "vm1", family.socket(family.service, port)).expect("connect");
        let (server, _) = accept(&listener);
        let received = Arc::new(AtomicU64::new(0));
        let counted = received.clone();
        let server = thread::spawn(move || until_reset(server, &mut |stream| read_some(stream, &counted)));
        let nothing = AtomicU64::new(0);
        let client = thread::spawn(move || {
            until_reset(client, &mut |stream| {
                if busy { stream.write_all(&[0x5a; 65_536]) } else { read_some(stream, &nothing) }
            })
        });
        if busy {
            wait_for("the connection is busy", PATIENCE, || {
                (received.load(Ordering::Relaxed) > 1_000_000).then_some(())
            });
        }
        Self { client, server, received }
    }

    /// Both ends were reset soon after a moment.
    #[track_caller]
    fn assert_reset(self, since: Instant, what: &str) {
        for (end, thread) in [("client", self.client), ("server", self.server)] {
            let at = thread.join().unwrap_or_else(|_| panic!("{what}: the {end} is not reset"));
            let after = at.saturating_duration_since(since);
            assert!(after < SOON, "{what}: the {end} is reset after {after:?}");
        }
    }
}

fn read_some(stream: &mut TcpStream, counted: &AtomicU64) -> std::io::Result<()> {
    let read = stream.read(&mut [0; 65_536])?;
    assert_ne!(read, 0, "closed without a reset");
    counted.fetch_add(read as u64, Ordering::Relaxed);
    Ok(())
}

/// Does it again and again until the other side resets the connection; anything else is a failure.
fn until_reset(mut stream: TcpStream, step: &mut dyn FnMut(&mut TcpStream) -> std::io::Result<()>) -> Instant {
    loop {
        if let Err(error) = step(&mut stream) {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
            return Instant::now();
        }
    }
}

/// A byte stream to a web site in the tunnel whose every byte depends on its place.
struct Stream {
    client: JoinHandle<u64>,
    server: JoinHandle<u64>,
    received: Arc<AtomicU64>,
    stop: Arc<AtomicU64>,
}

/// A period that divides no power of two, so that a lost or doubled segment shows.
const PATTERN: u64 = 251;

fn pattern(from: u64, bytes: &mut [u8]) {
    for (place, byte) in (from..).zip(bytes) {
        *byte = (place % PATTERN) as u8;
    }
}

impl Stream {
    fn new(node: &Node, family: Family, port: u16) -> Self {
        let listener = listen(&node.site.lab, "internet", port);
        let mut client = connect(&node.site.lab, "vm1", family.socket(family.web, port)).expect("connect");
        let (mut server, _) = accept(&listener);
        let (received, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (counted, stopped) = (received.clone(), stop.clone());
        let server = thread::spawn(move || {
            let (mut bytes, mut expected) = (vec![0; 65_536], vec![0; 65_536]);
            let mut total = 0;
            loop {
                let read = server.read(&mut bytes).expect("read");
                if read == 0 {
                    return total;
                }
                pattern(total, &mut expected[..read]);
                assert_eq!(bytes[..read], expected[..read], "from byte {total} on");
                total += read as u64;
                counted.store(total, Ordering::Relaxed);
            }
        });
        let client = thread::spawn(move || {
            let mut bytes = vec![0; 16_384];
            let mut total = 0;
            while stopped.load(Ordering::Relaxed) == 0 {
                pattern(total, &mut bytes);
                client.write_all(&bytes).expect("write");
                total += bytes.len() as u64;
            }
            client.shutdown(Shutdown::Write).expect("close");
            total
        });
        Self { client, server, received, stop }
    }

    /// Waits until more has passed than now.
    #[track_caller]
    fn wait_for_more(&self) {
        let before = self.received.load(Ordering::Relaxed);
        wait_for("the stream goes on", PATIENCE, || {
            (self.received.load(Ordering::Relaxed) > before + 500_000).then_some(())
        });
    }

    #[track_caller]
    fn finish(self) {
        self.stop.store(1, Ordering::Relaxed);
        let sent = self.client.join().expect("the client writes everything");
        let received = self.server.join().expect("the server reads everything");
        assert_eq!(received, sent);
    }
}

fn switches(io: &str, workers: &str, families: &[Family]) {
    let node = Site::new(&["vm1", "onprem", "internet", "storage"]).start(&["--io", io, "--workers", workers]);
    let _service = Web::serve(&node.site.lab, "storage");
    for family in families.iter().copied() {
        node.ping("vm1", family.service);
        let stream = Stream::new(&node, family, 8100);
        for (round, enable) in (0..).zip([true, false]) {
            let idle = Open::new(&node, family, 8001 + round, false);
            let busy = Open::new(&node, family, 8011 + round, true);
            stream.wait_for_more();
            let since = Instant::now();
            let answer = node.endpoint(WORKLOAD, enable);
            let source = if enable { family.vms[0] } else { family.onprem_public };
            assert_eq!(node.curl("vm1", &family.url(family.service)), source, "at once");
            assert!(since.elapsed() < SOON, "the new connection took {:?}", since.elapsed());
            assert!(answer["flows_reset"].as_u64() >= Some(2), "{answer}");
            assert_eq!(idle.received.load(Ordering::Relaxed), 0);
            idle.assert_reset(since, "idle");
            busy.assert_reset(since, "busy");
            stream.wait_for_more();
        }
        stream.finish();
    }
    let status = node.finish();
    assert!(status["counters"]["flows_reset"].as_u64() >= Some(4 * families.len() as u64), "{:#}", status["counters"]);
}

#[test]
fn a_switch_resets_what_moves_and_nothing_else() {
    if privileged() {
        switches("offload", "1", &FAMILIES);
    }
}

#[test]
fn a_switch_resets_what_moves_on_plain_devices() {
    if privileged() {
        switches("plain", "1", &FAMILIES[..1]);
    }
}

#[test]
fn a_switch_resets_what_moves_between_two_workers() {
    if privileged() {
        switches("offload", "2", &FAMILIES[..1]);
    }
}
