//! Flows that a change does not concern lose not one packet to it.

use std::collections::BTreeSet;
use std::net::{TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use sidestep::port::namespace;

use crate::conversation::{accept, connect, listen};
use crate::node::{Node, PATIENCE, Pinging, Site, WORKLOAD};
use crate::site::{FAMILIES, Family};
use crate::support::{privileged, wait_for};

/// Room for what arrives while a thread is not scheduled: more than 4 s of small datagrams, so that no loss is the
/// receiver's own.
const BUFFER: usize = 4 << 20;

/// How often a thread that waits for datagrams looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(20);

/// Numbered datagrams, one each millisecond, and their echoes.
struct Counted {
    what: String,
    sending: Arc<AtomicBool>,
    receiving: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    returned: Arc<AtomicU64>,
    sender: JoinHandle<()>,
    receivers: [JoinHandle<Vec<u64>>; 2],
}

impl Counted {
    fn start(node: &Node, (host, from): (&str, &str), (server, to): (&str, &str), family: Family) -> Self {
        let open = |host: &str, address: &str| {
            let socket = namespace::run(Some(&node.site.lab.name(host)), || UdpSocket::bind(family.socket(address, 0)));
            let socket = socket.expect("a namespace").expect("bind");
            socket.set_read_timeout(Some(LOOK)).expect("limit");
            set_socket_recv_buffer_size_force(&socket, BUFFER).expect("room");
            socket
        };
        let (client, echo) = (open(host, from), open(server, to));
        let address = echo.local_addr().expect("an address");
        let (sending, receiving) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(true)));
        let (sent, returned) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let receive = |socket: UdpSocket, answers: bool| {
            let (receiving, returned) = (receiving.clone(), returned.clone());
            thread::spawn(move || {
                let (mut seen, mut bytes) = (Vec::new(), [0; 8]);
                while receiving.load(Ordering::Relaxed) {
                    if let Ok((8, peer)) = socket.recv_from(&mut bytes) {
                        seen.push(u64::from_le_bytes(bytes));
                        if answers {
                            socket.send_to(&bytes, peer).expect("answer");
                        } else {
                            returned.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
                seen
            })
        };
        let receivers = [receive(echo, true), receive(client.try_clone().expect("a descriptor"), false)];
        let (on, count) = (sending.clone(), sent.clone());
        let sender = thread::spawn(move || {
            for number in 0_u64.. {
                if !on.load(Ordering::Relaxed) {
                    return;
                }
                client.send_to(&number.to_le_bytes(), address).expect("send");
                count.store(number + 1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(1));
            }
        });
        let what = format!("{host} to {to}");
        let counted = Self { what, sending, receiving, sent, returned, sender, receivers };
        counted.goes_on();
        counted
    }

    /// Waits until a good deal more has come back.
    #[track_caller]
    fn goes_on(&self) {
        let before = self.returned.load(Ordering::Relaxed);
        wait_for(&format!("{}: datagrams come back", self.what), PATIENCE, || {
            (self.returned.load(Ordering::Relaxed) > before + 100).then_some(())
        });
    }

    /// Every datagram arrived once and came back once.
    #[track_caller]
    fn finish(self) {
        self.sending.store(false, Ordering::Relaxed);
        self.sender.join().expect("the sender");
        let sent = self.sent.load(Ordering::Relaxed);
        wait_for(&format!("{}: all {sent} come back", self.what), PATIENCE, || {
            (self.returned.load(Ordering::Relaxed) >= sent).then_some(())
        });
        self.receiving.store(false, Ordering::Relaxed);
        for receiver in self.receivers {
            let seen = receiver.join().expect("a receiver");
            let distinct: BTreeSet<u64> = seen.iter().copied().collect();
            assert_eq!((seen.len() as u64, distinct.len() as u64), (sent, sent), "{}", self.what);
        }
    }
}

/// Flows that every change moves: 100 of datagrams, and the 20 connections that are given.
fn moved(node: &Node, family: Family, port: u16) -> Vec<(TcpStream, TcpStream)> {
    let listener = listen(&node.site.lab, "storage", port);
    let to = family.socket(family.service, port);
    let bind = || UdpSocket::bind(family.socket(family.vms[0], 0));
    let bind = || namespace::run(Some(&node.site.lab.name("vm1")), bind).expect("a namespace").expect("bind");
    // All are there at once, so that each has a port of its own.
    let sockets: Vec<UdpSocket> = (0..100).map(|_| bind()).collect();
    for socket in &sockets {
        socket.send_to(b"datagram", to).expect("send");
    }
    (0..20)
        .map(|_| {
            let client = connect(&node.site.lab, "vm1", to).expect("connect");
            (client, accept(&listener).0)
        })
        .collect()
}

fn untouched(io: &str, workers: &str) {
    let hosts = ["vm1", "vm3", "onprem", "internet", "storage"];
    let node = Site::new(&hosts).start(&["--io", io, "--workers", workers]);
    let route = "address_prefix = \"0.0.0.0/0\", next_hop_type = \"VirtualNetworkGateway\" },\n";
    let direct = "  { name = \"direct\", address_prefix = \"20.60.0.0/16\", next_hop_type = \"Internet\" },\n";
    let path = node.site.file("next.toml");
    std::fs::write(&path, node.site.text.replace(route, &format!("{route}{direct}"))).expect("write the document");
    let (first, next) = (node.document(), path);
    let apply = |document: &std::path::Path| node.tell(&["apply", "-c", document.to_str().expect("UTF-8")]);

    // The same host to elsewhere, and the same service from elsewhere.
    let mut counted = Vec::new();
    let mut pings = Vec::new();
    for family in FAMILIES {
        node.ping("vm1", family.web);
        node.ping("vm3", family.service);
        counted.push(Counted::start(&node, ("vm1", family.vms[0]), ("internet", family.web), family));
        counted.push(Counted::start(&node, ("vm3", family.vms[2]), ("storage", family.service), family));
        pings.push(Pinging::start(&node, "vm1", family.web));
    }
    type Change<'a> = &'a dyn Fn() -> serde_json::Value;
    let changes: [(&str, Change<'_>); 4] = [
        ("enable", &|| node.endpoint(WORKLOAD, true)),
        ("disable", &|| node.endpoint(WORKLOAD, false)),
        ("another route", &|| apply(&next)),
        ("the route goes", &|| apply(&first)),
    ];
    for (port, (what, change)) in (9100..).zip(changes) {
        let moved = moved(&node, FAMILIES[0], port);
        let answer = change();
        let count = |name: &str| answer[name].as_u64().expect("a number");
        assert_eq!(count("flows_reset"), moved.len() as u64, "{what}: {answer}");
        assert!(count("flows_moved") >= 100, "{what}: {answer}");
        counted.iter().for_each(Counted::goes_on);
    }
    for counted in counted {
        counted.finish();
    }
    for ping in pings {
        ping.finish();
    }
    node.finish();
}

#[test]
fn other_flows_lose_not_one_packet() {
    if privileged() {
        untouched("offload", "1");
    }
}

#[test]
fn other_flows_lose_not_one_packet_with_two_workers() {
    if privileged() {
        untouched("offload", "2");
    }
}

#[test]
fn other_flows_lose_not_one_packet_on_plain_devices() {
    if privileged() {
        untouched("plain", "1");
    }
}
