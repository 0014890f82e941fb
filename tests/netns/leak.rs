//! Once a change has returned, nothing more of what it moved goes by the old path.

use std::io::{Read, Write};
use std::net::UdpSocket;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sidestep::port::namespace;

use crate::capture::{Capture, packets};
use crate::conversation::{connect, listen};
use crate::node::{Node, PATIENCE, Site, WORKLOAD};
use crate::site::{FAMILIES, Family};
use crate::support::{Process, privileged, wait_for};

/// UDP, TCP and ping from `vm1` to the service without a pause, whatever becomes of them.
struct Traffic {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    /// Datagrams and bytes of TCP that the service has.
    received: [Arc<AtomicU64>; 2],
    _ping: Process,
}

/// Between two datagrams, and two pieces of the TCP connection.
const PACE: Duration = Duration::from_micros(500);

impl Traffic {
    fn start(node: &Node, family: Family) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let received = [Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0))];
        let ping = node.site.lab.command("vm1", &["ping", "-i", "0.005", "-W", "1", family.service]);
        let ping = { ping }.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start ping");
        let mut traffic = Self { stop, threads: Vec::new(), received, _ping: Process(ping) };
        traffic.datagrams(node, family);
        traffic.connections(node, family);
        traffic
    }

    fn datagrams(&mut self, node: &Node, family: Family) {
        let open = |host: &str, address: &str| {
            let socket = namespace::run(Some(&node.site.lab.name(host)), || UdpSocket::bind(family.socket(address, 0)));
            let socket = socket.expect("a namespace").expect("bind");
            socket.set_read_timeout(Some(Duration::from_millis(20))).expect("limit");
            socket
        };
        let (client, server) = (open("vm1", family.vms[0]), open("storage", family.service));
        let to = server.local_addr().expect("an address");
        let (stop, count) = (self.stop.clone(), self.received[0].clone());
        self.threads.push(thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                count.fetch_add(u64::from(server.recv_from(&mut [0; 16]).is_ok()), Ordering::Relaxed);
            }
        }));
        let stop = self.stop.clone();
        self.threads.push(thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                // An ICMP error about an earlier one, at most.
                let _sent = client.send_to(b"datagram", to);
                thread::sleep(PACE);
            }
        }));
    }

    /// One connection after the other: as soon as one is reset, the next.
    fn connections(&mut self, node: &Node, family: Family) {
        let listener = listen(&node.site.lab, "storage", 9000);
        let (stop, count) = (self.stop.clone(), self.received[1].clone());
        self.threads.push(thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let count = count.clone();
                thread::spawn(move || {
                    while let Ok(read @ 1..) = stream.read(&mut [0; 65_536]) {
                        count.fetch_add(read as u64, Ordering::Relaxed);
                    }
                });
            }
        }));
        let (stop, vm1) = (self.stop.clone(), node.site.lab.name("vm1"));
        let to = family.socket(family.service, 9000);
        let connect = move || namespace::run(Some(&vm1), || std::net::TcpStream::connect_timeout(&to, PATIENCE));
        self.threads.push(thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let Ok(mut stream) = connect().expect("a namespace") else { continue };
                while !stop.load(Ordering::Relaxed) && stream.write_all(&[0x5a; 2_048]).is_ok() {
                    thread::sleep(PACE);
                }
            }
        }));
    }

    /// Waits until a good deal more has arrived of each.
    #[track_caller]
    fn goes_on(&self) {
        for (kind, count, more) in [("UDP", &self.received[0], 200), ("TCP", &self.received[1], 200_000)] {
            let before = count.load(Ordering::Relaxed);
            wait_for(&format!("{kind} goes on"), PATIENCE, || {
                (count.load(Ordering::Relaxed) > before + more).then_some(())
            });
        }
    }

    fn finish(self, node: &Node, family: Family) {
        self.stop.store(true, Ordering::Relaxed);
        // Ends the waiting accept.
        drop(connect(&node.site.lab, "storage", family.socket(family.service, 9000)));
        for thread in self.threads {
            thread.join().expect("a thread of the traffic");
        }
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs_f64()
}

fn leaks(io: &str, workers: &str, family: Family) {
    let node = Site::new(&["vm1", "onprem", "internet", "storage"]).start(&["--io", io, "--workers", workers]);
    let tunnel = Capture::start(&node, "onprem", "gw0");
    let backbone = Capture::start(&node, "storage", "eth0");
    // The beginning, the moments before each command and after it, and the end.
    let mut moments = vec![now()];
    let traffic = Traffic::start(&node, family);
    traffic.goes_on();
    for enable in [true, false, true] {
        moments.push(now());
        node.endpoint(WORKLOAD, enable);
        moments.push(now());
        traffic.goes_on();
    }
    moments.push(now());
    traffic.finish(&node, family);
    let filter = format!("src host {} and dst host {}", family.vms[0], family.service);
    let [tunnel, backbone] = [tunnel, backbone].map(|capture| packets(&capture.stop(), &filter));
    let between = |packets: &[(f64, String)], from: usize, to: usize| -> Vec<String> {
        let inside = |(at, _): &&(f64, String)| (moments[from]..moments[to]).contains(at);
        packets.iter().filter(inside).map(|(_, line)| line.clone()).collect()
    };
    // From the end of each command to the beginning of the next everything is on the one path, and nothing on the other.
    for (from, to, on, off) in
        [(0, 1, &tunnel, &backbone), (2, 3, &backbone, &tunnel), (4, 5, &tunnel, &backbone), (6, 7, &backbone, &tunnel)]
    {
        let what = format!("{io}, {workers} workers, {}, after change {}", family.option, from / 2);
        let seen = between(on, from, to);
        for (kind, mark) in [("UDP", "UDP, length"), ("TCP", "Flags ["), ("ping", "echo request")] {
            let count = seen.iter().filter(|line| line.contains(mark)).count();
            assert!(count >= 5, "{what}: {count} packets of {kind} on the path: {:?}", seen.first());
        }
        assert_eq!(between(off, from, to), Vec::<String>::new(), "{what}");
    }
    node.finish();
}

#[test]
fn nothing_goes_by_the_old_path_after_a_switch() {
    if privileged() {
        FAMILIES.into_iter().for_each(|family| leaks("offload", "1", family));
    }
}

#[test]
fn nothing_goes_by_the_old_path_after_a_switch_of_two_workers() {
    if privileged() {
        leaks("offload", "2", FAMILIES[0]);
    }
}

#[test]
fn nothing_goes_by_the_old_path_after_a_switch_of_plain_devices() {
    if privileged() {
        leaks("plain", "1", FAMILIES[0]);
    }
}
