//! Ports on real devices: two namespaces and, between them, the smallest forwarder there can be.
//!
//! Needs root, `ip`, `ping` and `iperf3`; says aloud when it cannot run, and fails then if `CI` is `true`.

#[path = "support/namespaces.rs"]
mod support;

use std::net::UdpSocket;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sidestep::packet::checksum;
use sidestep::packet::frame::{Checksum, Frame, Offload, SegmentKind, Segmentation};
use sidestep::port::open::{Interface, Io, OpenError, Settings, open};
use sidestep::port::{Port, SendError, link, namespace, netlink::Netlink};
use support::{Lab, privileged, run, skipped};

type Ports = Vec<Box<dyn Port>>;

/// Moves every packet from each of two ports to the other until it is stopped.
struct Forwarder {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<[Box<dyn Port>; 2]>>,
}

impl Forwarder {
    fn start(left: Box<dyn Port>, right: Box<dyn Port>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || forward([left, right], &stopped));
        Self { stop, thread: Some(thread) }
    }

    fn stop(mut self) -> [Box<dyn Port>; 2] {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("runs").join().expect("forward")
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn forward(mut ports: [Box<dyn Port>; 2], stop: &AtomicBool) -> [Box<dyn Port>; 2] {
    let mut batch: Vec<Frame> = (0..64).map(|_| Frame::new()).collect();
    while !stop.load(Ordering::Relaxed) {
        let mut received = 0;
        let now = Instant::now();
        for (from, to) in [(0, 1), (1, 0)] {
            ports[from].advance(now);
            let count = ports[from].receive(now, &mut batch).expect("receive");
            for frame in &mut batch[..count] {
                // A full queue drops, as on any router; TCP gets over it.
                let _sent = ports[to].send(now, frame);
            }
            received += count;
        }
        if received == 0 {
            let wait = ports.iter().filter_map(|port| port.deadline()).min();
            let wait = wait.map_or(Duration::from_millis(20), |at| at.saturating_duration_since(Instant::now()));
            let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.min(Duration::from_millis(20)).subsec_nanos()) };
            let mut descriptors: Vec<PollFd<'_>> = ports
                .iter()
                .filter_map(|port| port.readable().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)))
                .collect();
            poll(&mut descriptors, Some(&wait)).expect("poll");
        }
    }
    ports
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| net(text)).collect()
}

/// A TUN device `eth0` with the default route of both families.
fn tun(lab: &Lab, host: &str, addresses: &[&str], io: Io) -> Settings {
    Settings {
        name: host.to_owned(),
        interface: Interface::Tun { name: "eth0".to_owned() },
        netns: Some(lab.name(host)),
        mtu: 1500,
        addresses: nets(addresses),
        routes: vec![(net("0.0.0.0/0"), None), (net("::/0"), None)],
        link: None,
        pcap: None,
        io,
        queues: 1,
        persistent: false,
    }
}

const A: [&str; 2] = ["10.9.1.2/24", "fd00:9:1::2/64"];
const B: [&str; 2] = ["10.9.2.2/24", "fd00:9:2::2/64"];

fn open_one(settings: &Settings) -> Box<dyn Port> {
    let mut ports = open(settings).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(ports.len(), 1);
    ports.remove(0)
}

fn count(port: &dyn Port, name: &str) -> u64 {
    port.counters().into_iter().find(|(counter, _)| *counter == name).unwrap_or_else(|| panic!("no counter {name}")).1
}

fn interface_exists(namespace_name: &str, interface: &str) -> bool {
    namespace::run(Some(namespace_name), || {
        Netlink::open().expect("netlink").interface(interface).expect("ask").is_some()
    })
    .expect("namespace")
}

#[test]
fn offload_carries_super_packets_of_both_families() {
    if !privileged() {
        return;
    }
    let lab = Lab::new(&["a", "b"]);
    let left = open_one(&tun(&lab, "a", &A, Io::Offload));
    let right = open_one(&tun(&lab, "b", &B, Io::Offload));
    assert!(left.describe().starts_with("tun eth0, offload checksum tcp4 tcp6"), "{}", left.describe());
    let forwarder = Forwarder::start(left, right);
    lab.ping("a", "10.9.2.2");
    lab.ping("b", "fd00:9:1::2");
    for to in ["10.9.2.2", "fd00:9:2::2"] {
        assert!(lab.iperf("a", "b", to, &["-t", "1"]) > 50e6);
        assert!(lab.iperf("a", "b", to, &["-t", "1", "-R"]) > 50e6);
    }
    assert!(lab.iperf("a", "b", "10.9.2.2", &["-t", "1", "-u", "-b", "50M"]) > 1e6);
    for port in forwarder.stop() {
        assert!(count(&*port, "super_packets_in") > 100, "{:?}", port.counters());
        assert!(count(&*port, "super_packets_out") > 100, "{:?}", port.counters());
        assert_eq!(count(&*port, "invalid_headers"), 0);
        assert_eq!(count(&*port, "offload_fallbacks"), 0);
    }
}

#[test]
fn plain_carries_one_packet_a_frame() {
    if !privileged() {
        return;
    }
    let lab = Lab::new(&["a", "b"]);
    let left = open_one(&tun(&lab, "a", &A, Io::Plain));
    let right = open_one(&tun(&lab, "b", &B, Io::Plain));
    assert_eq!(left.describe(), "tun eth0, plain");
    let forwarder = Forwarder::start(left, right);
    lab.ping("a", "10.9.2.2");
    lab.ping("b", "fd00:9:1::2");
    for to in ["10.9.2.2", "fd00:9:2::2"] {
        assert!(lab.iperf("a", "b", to, &["-t", "1"]) > 20e6);
    }
    for port in forwarder.stop() {
        assert_eq!(count(&*port, "cut_in_software"), 0);
    }
}

/// Super-packets and unfinished checksums of an offload device are finished for a plain one.
#[test]
fn offload_and_plain_understand_each_other() {
    if !privileged() {
        return;
    }
    let lab = Lab::new(&["a", "b"]);
    let forwarder =
        Forwarder::start(open_one(&tun(&lab, "a", &A, Io::Offload)), open_one(&tun(&lab, "b", &B, Io::Plain)));
    lab.ping("a", "10.9.2.2");
    for to in ["10.9.2.2", "fd00:9:2::2"] {
        assert!(lab.iperf("a", "b", to, &["-t", "1"]) > 20e6);
        assert!(lab.iperf("a", "b", to, &["-t", "1", "-R"]) > 20e6);
    }
    let [_, plain] = forwarder.stop();
    assert!(count(&*plain, "cut_in_software") > 100, "{:?}", plain.counters());
}

/// A veth pair from `b` to `wire`, where the port attaches as the router of `b`.
fn wire(lab: &Lab, queues: u16) -> Settings {
    let (b, wire) = (lab.name("b"), lab.name("wire"));
    run("ip", &["-n", &b, "link", "add", "eth0", "type", "veth", "peer", "name", "port0", "netns", &wire]);
    run("ip", &["-n", &wire, "link", "set", "port0", "addrgenmode", "none"]);
    run("ip", &["-n", &b, "link", "set", "eth0", "up"]);
    run("ip", &["-n", &b, "address", "add", "10.9.2.2/24", "dev", "eth0"]);
    run("ip", &["-n", &b, "address", "add", "fd00:9:2::2/64", "dev", "eth0", "nodad"]);
    run("ip", &["-n", &b, "route", "add", "default", "via", "10.9.2.1"]);
    run("ip", &["-n", &b, "-6", "route", "add", "default", "via", "fd00:9:2::1"]);
    Settings {
        name: "wire".to_owned(),
        interface: Interface::Ethernet {
            name: "port0".to_owned(),
            addresses: nets(&["10.9.2.1/24", "fd00:9:2::1/64"]),
            next_hop: vec![],
        },
        netns: Some(wire),
        mtu: 1500,
        addresses: vec![],
        routes: vec![],
        link: None,
        pcap: None,
        io: Io::Offload,
        queues,
        persistent: false,
    }
}

#[test]
fn ethernet_is_a_host_on_its_link() {
    if !privileged() {
        return;
    }
    let lab = Lab::new(&["a", "b", "wire"]);
    let right = open_one(&wire(&lab, 1));
    let forwarder = Forwarder::start(open_one(&tun(&lab, "a", &A, Io::Offload)), right);
    lab.ping("a", "10.9.2.2");
    lab.ping("a", "fd00:9:2::2");
    // It knows us from our questions; now it has to ask.
    lab.exec("b", &["ip", "neighbour", "flush", "dev", "eth0"]);
    lab.ping("b", "10.9.1.2");
    lab.ping("b", "fd00:9:1::2");
    let neighbours = lab.exec("b", &["ip", "neighbour"]);
    assert!(neighbours.contains("10.9.2.1") && neighbours.contains("fd00:9:2::1"), "{neighbours}");
    for to in ["10.9.2.2", "fd00:9:2::2"] {
        assert!(lab.iperf("a", "b", to, &["-t", "1"]) > 20e6);
        assert!(lab.iperf("a", "b", to, &["-t", "1", "-R"]) > 20e6);
    }
    let [_, ethernet] = forwarder.stop();
    assert_eq!(ethernet.describe(), "ethernet port0, offload checksum tcp4 tcp6 udp");
    for counter in ["super_packets_in", "super_packets_out"] {
        assert!(count(&*ethernet, counter) > 100, "{:?}", ethernet.counters());
    }
    for counter in ["neighbour_questions", "neighbour_answers"] {
        assert!(count(&*ethernet, counter) >= 2, "{:?}", ethernet.counters());
    }
    for counter in ["cut_in_software", "offload_fallbacks", "invalid_frames"] {
        assert_eq!(count(&*ethernet, counter), 0, "{:?}", ethernet.counters());
    }
}

#[test]
fn a_neighbour_that_nobody_is_costs_one_held_packet() {
    if !privileged() {
        return;
    }
    let lab = Lab::new(&["b", "wire"]);
    let mut port = open_one(&wire(&lab, 1));
    let now = Instant::now();
    let mut packet = Frame::from_packet(&udp4([10, 9, 2, 77], 100));
    port.send(now, &mut packet).expect("the first is held");
    assert!(matches!(port.send(now, &mut packet), Err(SendError::NeighbourUnknown)));
    let elsewhere = &mut Frame::from_packet(&udp4([192, 0, 2, 1], 100));
    assert!(matches!(port.send(now, elsewhere), Err(SendError::Device(_))), "there is no router");
    for second in 1..=3 {
        let due = port.deadline().expect("a question is under way");
        assert_eq!(due, now + second * Duration::from_secs(1));
        port.advance(due);
    }
    assert_eq!(port.deadline(), None);
    assert_eq!(count(&*port, "neighbour_questions"), 3);
    assert_eq!(count(&*port, "neighbour_held_dropped"), 1);
}

#[test]
fn several_queues_share_a_device() {
    if !privileged() {
        return;
    }
    let lab = Lab::new(&["a", "b", "wire"]);
    let left: Ports = open(&Settings { queues: 2, ..tun(&lab, "a", &A, Io::Offload) }).expect("open");
    let right: Ports = open(&wire(&lab, 2)).expect("open");
    assert_eq!((left.len(), right.len()), (2, 2));
    let again = open(&tun(&lab, "a", &A, Io::Offload)).err().expect("refused");
    assert!(matches!(again, OpenError::Exists { .. }), "{again}");
    let forwarders: Vec<Forwarder> =
        left.into_iter().zip(right).map(|(left, right)| Forwarder::start(left, right)).collect();
    lab.ping("a", "10.9.2.2");
    lab.ping("a", "fd00:9:2::2");
    for arguments in [&["-t", "1", "-P", "16"][..], &["-t", "1", "-P", "16", "-R"]] {
        assert!(lab.iperf("a", "b", "10.9.2.2", arguments) > 20e6);
    }
    for forwarder in forwarders {
        for port in forwarder.stop() {
            assert!(count(&*port, "super_packets_in") > 0, "{}: {:?}", port.describe(), port.counters());
        }
    }
    let error = open(&Settings { queues: 2, ..tun(&lab, "wire", &[], Io::Plain) }).err().expect("refused");
    assert!(matches!(error, OpenError::Queues { queues: 2, .. }), "{error}");
}

#[test]
fn a_second_start_on_the_same_devices_is_refused() {
    if !privileged() {
        return;
    }
    let lab = Lab::new(&["a", "b", "wire"]);
    for io in [Io::Offload, Io::Plain] {
        let first = open_one(&tun(&lab, "a", &A, io));
        for second in [Io::Offload, Io::Plain] {
            let error = open(&tun(&lab, "a", &A, second)).err().expect("refused");
            assert!(matches!(error, OpenError::Exists { .. }), "{error}");
            let text = error.to_string();
            let start = "port `a`: the interface `eth0` exists already in the network namespace";
            assert!(text.starts_with(&format!("{start} `{}`", lab.name("a"))), "{text}");
        }
        drop(first);
        assert!(!interface_exists(&lab.name("a"), "eth0"));
    }
    let wire = wire(&lab, 1);
    let first = open_one(&wire);
    let error = open(&wire).err().expect("refused");
    assert_eq!(
        error.to_string(),
        format!(
            "port `wire`: another sidestep is attached to the interface `port0` in the network namespace `{}`; stop that \
             one first",
            lab.name("wire")
        )
    );
    drop(first);
    open_one(&wire);
}

#[test]
fn an_interface_that_exists_is_never_taken_over() {
    if !privileged() {
        return;
    }
    let lab = Lab::new(&["a"]);
    let name = lab.name("a");
    run("ip", &["-n", &name, "tuntap", "add", "eth0", "mode", "tun"]);
    for io in [Io::Offload, Io::Plain] {
        let error = open(&tun(&lab, "a", &A, io)).err().expect("refused");
        assert!(matches!(error, OpenError::Exists { .. }), "{error}");
    }
    assert!(interface_exists(&name, "eth0"));
}

#[test]
fn a_step_that_fails_leaves_nothing() {
    if !privileged() {
        return;
    }
    let lab = Lab::new(&["a"]);
    let mut settings = tun(&lab, "a", &A, Io::Offload);
    settings.routes.push((net("192.0.2.0/24"), Some("203.0.113.1".parse().expect("address"))));
    settings.routes.retain(|(prefix, _)| prefix.prefix_len() != 0);
    let error = open(&settings).err().expect("no such next hop");
    assert!(error.to_string().contains("cannot add the route 192.0.2.0/24"), "{error}");
    assert!(!interface_exists(&lab.name("a"), "eth0"));
    let missing = Settings { netns: Some(lab.name("none")), ..settings.clone() };
    let error = open(&missing).err().expect("no such namespace");
    assert!(error.to_string().contains(&format!("`{}` does not exist", lab.name("none"))), "{error}");
    let capture = Settings { pcap: Some("/nonexistent/x.pcapng".into()), ..tun(&lab, "a", &A, Io::Plain) };
    let error = open(&capture).err().expect("no such folder");
    assert!(matches!(error, OpenError::Capture { .. }), "{error}");
    assert!(!interface_exists(&lab.name("a"), "eth0"));
    let ethernet = Settings {
        interface: Interface::Ethernet { name: "none0".to_owned(), addresses: vec![], next_hop: vec![] },
        ..tun(&lab, "a", &[], Io::Offload)
    };
    let error = open(&ethernet).err().expect("no such interface");
    assert!(matches!(error, OpenError::Missing { .. }), "{error}");
}

#[test]
fn a_new_device_is_configured_and_quiet() {
    if !privileged() {
        return;
    }
    let lab = Lab::new(&["a"]);
    for io in [Io::Offload, Io::Plain] {
        let mut port = open_one(&Settings { mtu: 1400, ..tun(&lab, "a", &A, io) });
        let link = lab.exec("a", &["ip", "link", "show", "eth0"]);
        assert!(link.contains("mtu 1400") && link.contains("qlen 4096"), "{link}");
        let addresses = lab.exec("a", &["ip", "address", "show", "eth0"]);
        assert!(addresses.contains("10.9.1.2/24") && addresses.contains("fd00:9:1::2/64"), "{addresses}");
        assert!(!addresses.contains("fe80") && !addresses.contains("tentative"), "{addresses}");
        assert!(lab.exec("a", &["ip", "route"]).contains("default dev eth0"));
        assert!(lab.exec("a", &["ip", "-6", "route"]).contains("default dev eth0"));
        // Whatever the kernel sends by itself, it begins within a second.
        let wait = Timespec { tv_sec: 2, tv_nsec: 0 };
        let readable = port.readable().expect("a descriptor");
        poll(&mut [PollFd::from_borrowed_fd(readable, PollFlags::IN)], Some(&wait)).expect("poll");
        let mut batch = [Frame::new()];
        let received = port.receive(Instant::now(), &mut batch).expect("receive");
        assert_eq!(received, 0, "the kernel sent {:02x?}", batch[0].bytes());
    }
}

#[test]
fn a_removed_device_is_an_error() {
    if !privileged() {
        return;
    }
    let lab = Lab::new(&["a", "b", "wire"]);
    for settings in [tun(&lab, "a", &A, Io::Offload), tun(&lab, "a", &A, Io::Plain), wire(&lab, 1)] {
        let mut port = open_one(&settings);
        let interface = if settings.netns == Some(lab.name("a")) { "eth0" } else { "port0" };
        let host = settings.netns.clone().expect("a namespace");
        namespace::run(Some(&host), || {
            let mut netlink = Netlink::open().expect("netlink");
            let index = netlink.interface(interface).expect("ask").expect("exists").index;
            netlink.delete_interface(index).expect("delete");
        })
        .expect("namespace");
        let readable = port.readable().expect("a descriptor");
        let mut descriptors = [PollFd::from_borrowed_fd(readable, PollFlags::IN)];
        poll(&mut descriptors, Some(&Timespec { tv_sec: 5, tv_nsec: 0 })).expect("poll");
        assert!(!descriptors[0].revents().is_empty(), "a reader is woken");
        let error = port.receive(Instant::now(), &mut [Frame::new()]).expect_err("gone");
        assert!(matches!(error.raw_os_error(), Some(libc::EBADFD | libc::ENETDOWN | libc::ENODEV)), "{error}");
    }
}

/// An IPv4 UDP packet from 10.9.2.2, checksum complete.
fn udp4(to: [u8; 4], payload: usize) -> Vec<u8> {
    let mut packet = vec![0x5a; 28 + payload];
    let length = u16::try_from(packet.len()).expect("length");
    packet[..12].copy_from_slice(&[0x45, 0, 0, 0, 0, 1, 0, 0, 64, 17, 0, 0]);
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[12..16].copy_from_slice(&[10, 9, 2, 2]);
    packet[16..20].copy_from_slice(&to);
    let header = !checksum::sum(&packet[..20]);
    packet[10..12].copy_from_slice(&header.to_be_bytes());
    packet[20..28].copy_from_slice(&[0x13, 0x88, 0x13, 0x89, 0, 0, 0, 0]);
    packet[24..26].copy_from_slice(&(length - 20).to_be_bytes());
    let pseudo = pseudo_header(&packet);
    let sum = !checksum::add(checksum::sum(&packet[20..]), pseudo);
    packet[26..28].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// The sum of the pseudo header of an IPv4 UDP packet.
fn pseudo_header(packet: &[u8]) -> u16 {
    checksum::fold(u64::from(checksum::sum(&packet[12..20])) + 17 + packet.len() as u64 - 20)
}

/// Makes it a super-packet of segments of a size.
fn segmented(mut packet: Vec<u8>, size: u16) -> Frame {
    let pseudo = pseudo_header(&packet);
    packet[26..28].copy_from_slice(&pseudo.to_be_bytes());
    let mut frame = Frame::from_packet(&packet);
    frame.offload = Offload {
        checksum: Checksum::Partial { start: 20, offset: 6 },
        segmentation: Some(Segmentation { kind: SegmentKind::Udp, size, ecn: false }),
    };
    frame
}

/// The kernel takes at most 128 segments of UDP (64 before 6.9) and refuses a write of 200 with EINVAL: a refusal like
/// those of the kernels that had offload broken.
#[test]
fn a_refused_segmented_write_turns_to_software_aloud() {
    if !privileged() {
        return;
    }
    let lab = Lab::new(&["a"]);
    let mut port = open_one(&tun(&lab, "a", &A, Io::Offload));
    if !port.describe().contains("udp") {
        skipped("UDP segmentation, which the kernel does not have");
        return;
    }
    let socket = namespace::run(Some(&lab.name("a")), || UdpSocket::bind("10.9.1.2:5001").expect("bind"));
    let socket = socket.expect("namespace");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
    let now = Instant::now();
    let expect = |segments: usize, size: usize| {
        for segment in 0..segments {
            let mut bytes = [0; 2000];
            let length = socket.recv(&mut bytes).unwrap_or_else(|error| panic!("segment {segment}: {error}"));
            assert_eq!(&bytes[..length], vec![0x5a; size].as_slice());
        }
    };
    port.send(now, &mut segmented(udp4([10, 9, 1, 2], 20 * 100), 100)).expect("the kernel cuts it");
    expect(20, 100);
    assert_eq!(count(&*port, "super_packets_out"), 1);

    port.send(now, &mut segmented(udp4([10, 9, 1, 2], 200 * 50), 50)).expect("we cut it");
    expect(200, 50);
    assert_eq!(port.describe(), "tun eth0, offload checksum tcp4 tcp6 ecn");
    assert_eq!(count(&*port, "offload_fallbacks"), 1);
    assert_eq!(count(&*port, "cut_in_software"), 1);

    port.send(now, &mut segmented(udp4([10, 9, 1, 2], 20 * 100), 100)).expect("we cut this too");
    expect(20, 100);
    assert_eq!(count(&*port, "cut_in_software"), 2);
    assert_eq!(count(&*port, "offload_fallbacks"), 1);
    let features = lab.exec("a", &["ip", "-d", "link", "show", "eth0"]);
    assert!(features.contains("eth0"), "the device lives on: {features}");
}

#[test]
fn a_line_delays_and_a_capture_shows_it() {
    if !privileged() {
        return;
    }
    let lab = Lab::new(&["a", "b"]);
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("line.pcapng");
    let line = link::Settings { delay: Duration::from_millis(15), ..link::Settings::default() };
    let left = Settings { link: Some(line), pcap: Some(path.clone()), ..tun(&lab, "a", &A, Io::Offload) };
    let forwarder = Forwarder::start(open_one(&left), open_one(&tun(&lab, "b", &B, Io::Offload)));
    let text = lab.ping("a", "10.9.2.2");
    let fastest = text.split("rtt min/avg/max/mdev = ").nth(1).and_then(|rest| rest.split('/').next());
    let fastest: f64 = fastest.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("ping says {text}"));
    assert!((30.0..200.0).contains(&fastest), "{fastest} ms");
    drop(forwarder.stop());
    assert_packets(&path, 6);
}

/// Counts the enhanced packet blocks of a capture.
fn assert_packets(path: &Path, wanted: usize) {
    let file = std::fs::read(path).expect("read the capture");
    let word = |at: usize| u32::from_ne_bytes(file[at..at + 4].try_into().expect("a word"));
    let mut at = 0;
    let mut packets = 0;
    while at < file.len() {
        packets += usize::from(word(at) == 6);
        at += word(at + 4) as usize;
    }
    assert_eq!(packets, wanted);
}

#[test]
fn namespaces_are_gone_after_a_panic() {
    if !privileged() {
        return;
    }
    let mut name = String::new();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let lab = Lab::new(&["a"]);
        let _port = open_one(&tun(&lab, "a", &A, Io::Offload));
        name = lab.name("a");
        assert!(namespace::exists(&name));
        std::panic::resume_unwind(Box::new("on purpose"));
    }));
    assert!(panicked.is_err());
    assert!(!name.is_empty() && !namespace::exists(&name));
}
