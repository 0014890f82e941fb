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

/// What passes on a connection when it is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Traffic {
    /// Nothing: both ends read what never comes.
    Idle,
    /// The client writes as fast as it can.
    Upload,
    /// The server writes as fast as it can.
    Download,
}

/// An open connection from `vm1` to the service, with a thread at each end that ends with the connection and says when
/// it was reset.
struct Open {
    client: JoinHandle<Instant>,
    server: JoinHandle<Instant>,
    /// Bytes that the end has that reads.
    received: Arc<AtomicU64>,
}

impl Open {
    fn new(node: &Node, family: Family, port: u16, traffic: Traffic) -> Self {
        let listener = listen(&node.site.lab, "storage", port);
        let client = connect(&node.site.lab, "vm1", family.socket(family.service, port)).expect("connect");
        let (server, _) = accept(&listener);
        let received = Arc::new(AtomicU64::new(0));
        let end = |stream, writes: bool| {
            let counted = received.clone();
            thread::spawn(move || {
                until_reset(stream, &mut |stream| {
                    if writes { stream.write_all(&[0x5a; 65_536]) } else { read_some(stream, &counted) }
                })
            })
        };
        let server = end(server, traffic == Traffic::Download);
        let client = end(client, traffic == Traffic::Upload);
        if traffic != Traffic::Idle {
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
            let idle = Open::new(&node, family, 8001 + round, Traffic::Idle);
            let upload = Open::new(&node, family, 8011 + round, Traffic::Upload);
            let download = Open::new(&node, family, 8021 + round, Traffic::Download);
            stream.wait_for_more();
            let since = Instant::now();
            let answer = node.endpoint(WORKLOAD, enable);
            let source = if enable { family.vms[0] } else { family.onprem_public };
            assert_eq!(node.curl("vm1", &family.url(family.service)), source, "at once");
            assert!(since.elapsed() < SOON, "the new connection took {:?}", since.elapsed());
            assert!(answer["flows_reset"].as_u64() >= Some(3), "{answer}");
            assert_eq!(idle.received.load(Ordering::Relaxed), 0);
            idle.assert_reset(since, "idle");
            upload.assert_reset(since, "upload");
            download.assert_reset(since, "download");
            stream.wait_for_more();
        }
        stream.finish();
    }
    let status = node.finish();
    assert!(status["counters"]["flows_reset"].as_u64() >= Some(6 * families.len() as u64), "{:#}", status["counters"]);
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

/// The document with a route, or an endpoint, for the subnet of `vm1`.
fn variants(text: &str) -> [String; 4] {
    let table =
        "  { name = \"default\", address_prefix = \"0.0.0.0/0\", next_hop_type = \"VirtualNetworkGateway\" },\n";
    let route = "  { name = \"direct\", address_prefix = \"20.60.0.0/16\", next_hop_type = \"Internet\" },\n";
    let subnet = "  route_table = \"to-on-premises\"\n";
    let endpoint = |source: &str| {
        let endpoints = format!("  service_endpoints = [{{ service = \"Microsoft.Storage\", source = {source} }}]\n");
        text.replace(subnet, &format!("{subnet}{endpoints}"))
    };
    assert!(text.contains(table) && text.contains(subnet));
    let direct = text.replace(table, &format!("{table}{route}"));
    [direct, endpoint("\"private\""), endpoint("\"identity6\""), text.to_owned()]
}

/// What `vm1` presents under `identity6`: prefix, region 18, network tag, subnet tag 1, 10.1.1.4.
const IDENTITY: &str = "fde4:8dba:";

fn documents(io: &str, workers: &str) {
    let node = Site::new(&["vm1", "onprem", "internet", "storage"]).start(&["--io", io, "--workers", workers]);
    let _service = Web::serve(&node.site.lab, "storage");
    let family = FAMILIES[0];
    node.ping("vm1", family.service);
    let [direct, private, identity6, tunnel] = variants(&node.site.text);
    // A route changes, an endpoint comes, its source changes and changes back, and everything is as it was. Under
    // `identity6` the service's end is of IPv6, and so is its reset.
    let steps = [
        ("route", &direct, "203.0.113.200"),
        ("endpoint", &private, family.vms[0]),
        ("identity6", &identity6, IDENTITY),
        ("private", &private, family.vms[0]),
        ("identity6 again", &identity6, IDENTITY),
        ("tunnel", &tunnel, family.onprem_public),
    ];
    for (number, (what, document, source)) in (0..).zip(steps) {
        let open = [Traffic::Idle, Traffic::Upload, Traffic::Download].map(|traffic| {
            let port = 8200 + 10 * number + traffic as u16;
            (traffic, Open::new(&node, family, port, traffic))
        });
        let path = node.site.file("next.toml");
        std::fs::write(&path, document).expect("write the document");
        let since = Instant::now();
        let answer = node.tell(&["apply", "-c", path.to_str().expect("UTF-8")]);
        let seen = node.curl("vm1", &family.url(family.service));
        assert!(seen.starts_with(source), "{what}: the service sees {seen}");
        assert!(since.elapsed() < SOON, "{what}: the new connection took {:?}", since.elapsed());
        assert!(answer["flows_reset"].as_u64() >= Some(3), "{what}: {answer}");
        for (traffic, open) in open {
            open.assert_reset(since, &format!("{what}, {traffic:?}"));
        }
    }
    node.finish();
}

#[test]
fn changed_routes_and_sources_reset_both_ends() {
    if privileged() {
        documents("offload", "2");
    }
}

#[test]
fn changed_routes_and_sources_reset_both_ends_on_plain_devices() {
    if privileged() {
        documents("plain", "1");
    }
}
