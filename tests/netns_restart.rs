//! A node that ends and starts again between hosts whose connections go on.
//!
//! Needs root and `ip`; says aloud when it cannot run, and fails then if `CI` is `true`.

#[path = "support/namespaces.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod support;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sidestep::port::namespace;
use support::{Lab, Process, privileged, run, wait_for, wait_for_end};
use tempfile::TempDir;

/// How long anything may take on a busy machine that takes milliseconds on an idle one.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a blackout may last: the aim. Load and a build without optimisation only ever make one longer, so the shortest of
/// [`RESTARTS`] is held to it: that is out of reach for a node that is too slow, and one undisturbed restart is enough for one
/// that is not.
const BLACKOUT: Duration = Duration::from_millis(300);
const RESTARTS: usize = 5;

/// What no blackout may last, however busy the machine is: five times the aim.
const LONGEST_BLACKOUT: Duration = Duration::from_millis(1_500);

const SERVICE: &str = "20.60.1.10";
const WEB: &str = "198.51.100.80";
const SERVICE6: &str = "2603:1020:206:100::10";
const WEB6: &str = "2001:db8:80::80";

/// Hosts, a document, and the node between them.
struct Site {
    node: Option<Process>,
    folder: TempDir,
    lab: Lab,
}

impl Site {
    fn new() -> Self {
        let lab = Lab::new(&["vm1", "vm2", "internet", "data"]);
        let folder = tempfile::tempdir().expect("a folder");
        let catalogue = r#"{ "changeNumber": 1, "cloud": "Public", "values": [ { "name": "Storage", "id": "Storage",
            "properties": { "changeNumber": 1, "region": "", "regionId": 0, "platform": "Azure",
            "systemService": "AzureStorage", "addressPrefixes": ["20.60.0.0/16", "2603:1020:206::/48"],
            "networkFeatures": ["UDR", "VSE"] } } ] }"#;
        fs::write(folder.path().join("tags.json"), catalogue).expect("write");
        run("ip", &["-n", &lab.name("internet"), "address", "add", &format!("{WEB}/32"), "dev", "lo"]);
        let site = Self { node: None, folder, lab };
        site.write(&site.document());
        site
    }

    fn document(&self) -> String {
        let [vm1, internet, data] = ["vm1", "internet", "data"].map(|host| self.lab.name(host));
        format!(
            r#"
location = "westeurope"
tags = "tags.json"

[[virtual_network]]
name = "n"
address_space = ["10.1.0.0/16"]

  [[virtual_network.subnet]]
  name = "s"
  address_prefixes = ["10.1.1.0/24"]

[[nic]]
name = "vm1"
subnet = "n/s"
private_addresses = ["10.1.1.4"]
device = {{ tun = "eth0", netns = "{vm1}" }}

[internet]
public_addresses = ["203.0.113.200"]
device = {{ tun = "edge0", netns = "{internet}" }}

[[service]]
name = "data"
service = "Microsoft.Storage"
location = "westeurope"
addresses = ["{SERVICE}"]
device = {{ tun = "eth0", netns = "{data}" }}
"#
        )
    }

    /// The document with both families, a NAT gateway, and an endpoint whose traffic presents itself like this.
    fn translating(&self, source: &str) -> String {
        let replaced = [
            ("[\"10.1.0.0/16\"]", "[\"10.1.0.0/16\", \"fd00:1::/48\"]"),
            (
                "[\"10.1.1.0/24\"]\n",
                &format!(
                    "[\"10.1.1.0/24\", \"fd00:1:0:1::/64\"]\n  nat_gateway = \"egress\"\n  \
                     service_endpoints = [{{ service = \"Microsoft.Storage\", source = {source} }}]\n"
                ),
            ),
            ("[\"10.1.1.4\"]", "[\"10.1.1.4\", \"fd00:1:0:1::4\"]"),
            ("[\"203.0.113.200\"]", "[\"203.0.113.200\", \"2001:db8:ffff::200\"]"),
            (&format!("[\"{SERVICE}\"]"), &format!("[\"{SERVICE}\", \"{SERVICE6}\"]")),
        ];
        let document = replaced.into_iter().fold(self.document(), |document, (from, to)| {
            assert!(document.contains(from), "{from}");
            document.replace(from, to)
        });
        format!(
            "{document}\n[[nat_gateway]]\nname = \"egress\"\npublic_addresses = [\"203.0.113.50\", \"2001:db8:ffff::50\"]\n\
             \n[[snat_pool]]\nname = \"shared\"\naddresses = [\"100.64.9.1\", \"fd00:64:9::1\"]\n"
        )
    }

    /// One more NIC, which comes before the first in the document and so has its port number.
    fn second_nic(&self) -> String {
        let vm2 = self.lab.name("vm2");
        format!(
            "[[nic]]\nname = \"vm2\"\nsubnet = \"n/s\"\nprivate_addresses = [\"10.1.1.5\"]\n\
             device = {{ tun = \"eth0\", netns = \"{vm2}\" }}\n\n[[nic]]\nname = \"vm1\""
        )
    }

    fn write(&self, document: &str) {
        fs::write(self.file("n.toml"), document).expect("write");
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sidestep"));
        command.current_dir(self.folder.path()).env("SIDESTEP_LOG", "info").args(arguments);
        command.env("SIDESTEP_CONTROL", self.file("node.sock"));
        command
    }

    fn sidestep(&self, arguments: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.command(arguments).output().expect("run");
        let (out, errors) = (String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr));
        assert!(status.success(), "{arguments:?}: {out}{errors}");
        out
    }

    /// Starts a node and waits until it is ready.
    #[track_caller]
    fn start(&mut self, arguments: &[&str]) {
        let log = File::options().create(true).append(true).open(self.file("log")).expect("open the log");
        let mut command = self.command(&["run", "-c", "n.toml"]);
        let process = command.args(arguments).stdout(Stdio::piped()).stderr(log).spawn();
        let mut process = Process(process.expect("start sidestep"));
        let mut out = BufReader::new(process.0.stdout.take().expect("a pipe"));
        let mut text = String::new();
        while !text.ends_with("ready\n") {
            assert_ne!(out.read_line(&mut text).expect("read"), 0, "not ready: {text}{}", self.log());
        }
        self.node = Some(process);
    }

    /// Starts a node that must refuse to, and gives what it says.
    fn refused(&self, arguments: &[&str]) -> String {
        let other = self.file("other.sock");
        let mut command = self.command(&["run", "-c", "n.toml"]);
        let output = command.args(arguments).env("SIDESTEP_CONTROL", other).output().expect("run");
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Ends the node by a signal.
    #[track_caller]
    fn end(&mut self, signal: Signal) {
        let mut node = self.node.take().expect("a node");
        kill_process(Pid::from_child(&node.0), signal).expect("signal");
        let status = wait_for_end("the node ends", PATIENCE, &mut node.0);
        assert_eq!(status.code(), (signal != Signal::KILL).then_some(0), "{}", self.log());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.file("log")).unwrap_or_default()
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.sidestep(&["status", "--json"])).expect("JSON")
    }

    /// What the node has restored.
    #[track_caller]
    fn restored(&self) -> Value {
        let status = self.status();
        let restored = find(&status, "state")["restored"].clone();
        assert!(restored.is_object(), "{status:#}\n{}", self.log());
        restored
    }

    fn interfaces(&self, host: &str) -> Vec<String> {
        let text = run("ip", &["-n", &self.lab.name(host), "-o", "link"]);
        let name = |line: &str| line.split(": ").nth(1).map(str::to_owned);
        text.lines().filter_map(name).filter(|name| name != "lo").collect()
    }

    fn ip(&self, host: &str, arguments: &[&str]) -> String {
        run("ip", &[&["-n", &self.lab.name(host)], arguments].concat())
    }

    fn listen(&self, host: &str, port: u16) -> TcpListener {
        namespace::run(Some(&self.lab.name(host)), || TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)))
            .expect("a namespace")
            .expect("listen")
    }

    fn udp(&self, host: &str, local: &str) -> UdpSocket {
        namespace::run(Some(&self.lab.name(host)), || UdpSocket::bind(local)).expect("a namespace").expect("bind")
    }
}

/// A member of the status, which the command wraps.
fn find<'a>(status: &'a Value, name: &str) -> &'a Value {
    status.get(name).unwrap_or_else(|| &status["status"][name])
}

/// A period that divides no power of two, so that a lost or doubled segment shows.
const PATTERN: u64 = 251;

/// A connection whose client writes as fast as it can what depends on the place only, and whose server checks it and
/// acknowledges each 64 KiB with a byte.
struct Transfer {
    client: JoinHandle<u64>,
    server: JoinHandle<u64>,
    received: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    /// What the server sees.
    peer: SocketAddr,
}

impl Transfer {
    fn start(site: &Site, server: &str, address: &str, port: u16) -> Self {
        let listener = site.listen(server, port);
        let to = SocketAddr::new(address.parse().expect("an address"), port);
        let mut client = namespace::run(Some(&site.lab.name("vm1")), || TcpStream::connect_timeout(&to, PATIENCE))
            .expect("a namespace")
            .expect("connect");
        let (mut stream, peer) = listener.accept().expect("accept");
        for stream in [&client, &stream] {
            stream.set_read_timeout(Some(PATIENCE)).expect("limit");
            stream.set_write_timeout(Some(PATIENCE)).expect("limit");
        }
        let (received, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, stopped) = (received.clone(), stop.clone());
        let server = thread::spawn(move || {
            let (mut place, mut bytes) = (0_u64, vec![0; 65_536]);
            loop {
                let read = stream.read(&mut bytes).expect("the server reads");
                if read == 0 {
                    return place;
                }
                for byte in &bytes[..read] {
                    assert_eq!(u64::from(*byte), place % PATTERN, "at {place}");
                    place += 1;
                }
                counted.store(place, Ordering::Relaxed);
                stream.write_all(b".").expect("the server answers");
            }
        });
        let client = thread::spawn(move || {
            let mut answers = client.try_clone().expect("a descriptor");
            let reader = thread::spawn(move || std::io::copy(&mut answers, &mut std::io::sink()).expect("answers"));
            let mut place = 0;
            while !stopped.load(Ordering::Relaxed) {
                let bytes: Vec<u8> = (place..place + 8_192).map(|place| (place % PATTERN) as u8).collect();
                client.write_all(&bytes).expect("the client writes");
                place += 8_192;
            }
            client.shutdown(std::net::Shutdown::Write).expect("shutdown");
            assert!(reader.join().expect("the reader") > 0);
            place
        });
        let transfer = Self { client, server, received, stop, peer };
        transfer.goes_on();
        transfer
    }

    /// Waits until a good deal more has arrived.
    #[track_caller]
    fn goes_on(&self) {
        let before = self.received.load(Ordering::Relaxed);
        wait_for("the connection goes on", PATIENCE, || {
            (self.received.load(Ordering::Relaxed) > before + 300_000).then_some(())
        });
    }

    /// Ends it and checks that everything has arrived.
    #[track_caller]
    fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.client.join().expect("the client");
        assert_eq!(self.server.join().expect("the server"), sent);
    }
}

#[test]
fn connections_survive_a_restart_with_their_translated_ports() {
    if !privileged() {
        return;
    }
    for io in ["offload", "plain"] {
        let mut site = Site::new();
        site.start(&["--state", "state", "--io", io]);
        // Not in the document: the next process has to know it, or the connection would be cut.
        site.sidestep(&["endpoint", "enable", "n/s", "Microsoft.Storage"]);
        let private = Transfer::start(&site, "data", SERVICE, 443);
        assert_eq!(private.peer.ip().to_canonical().to_string(), "10.1.1.4");
        let public = Transfer::start(&site, "internet", WEB, 80);
        assert_eq!(public.peer.ip().to_canonical().to_string(), "203.0.113.200");
        for round in 1..=2 {
            let link = site.ip("vm1", &["-o", "link", "show", "eth0"]);
            site.end(Signal::TERM);
            assert_eq!(site.interfaces("vm1"), ["eth0"], "the device stays");
            assert!(site.ip("vm1", &["route"]).contains("default dev eth0"));
            assert!(site.file("state").exists());
            site.start(&["--state", "state", "--io", io]);
            wait_for("what was restored is not restored again", PATIENCE, || {
                (!site.file("state").exists()).then_some(())
            });
            let restored = site.restored();
            assert_eq!(restored["flows"], 2, "{io}, round {round}: {}", site.log());
            let number = |link: &str| link.split(':').next().map(str::to_owned);
            assert_eq!(number(&link), number(&site.ip("vm1", &["-o", "link", "show", "eth0"])), "the same device");
            private.goes_on();
            public.goes_on();
            let flows = site.sidestep(&["flows"]);
            assert!(flows.contains(&format!("203.0.113.200:{}", public.peer.port())), "the port stays: {flows}");
            assert!(flows.ends_with("2 flows\n"), "{flows}");
            assert!(site.sidestep(&["status"]).contains("switched    n/s Microsoft.Storage on"));
            println!("{io}: blackout {} us", restored["blackout_us"]);
        }
        private.finish();
        public.finish();
        site.end(Signal::TERM);
    }
}

/// Connections of both families to the service and, by the NAT gateway, to the internet go on across two restarts, and the
/// other sides see what they saw.
fn survive(source: &str, io: &str, seen: &[(&str, &str)]) {
    let mut site = Site::new();
    site.ip("internet", &["-6", "address", "add", &format!("{WEB6}/128"), "dev", "lo", "nodad"]);
    site.write(&site.translating(source));
    site.start(&["--state", "state", "--io", io]);
    let gateway = [("internet", WEB, "203.0.113.50"), ("internet", WEB6, "2001:db8:ffff::50")];
    let service = seen.iter().map(|(address, seen)| ("data", *address, *seen));
    let transfers: Vec<Transfer> = (0..)
        .zip(gateway.into_iter().chain(service))
        .map(|(number, (host, address, seen))| {
            let transfer = Transfer::start(&site, host, address, 8_100 + number);
            assert_eq!(transfer.peer.ip().to_canonical().to_string(), seen, "{source}");
            transfer
        })
        .collect();
    let mut presented = Vec::new();
    for round in 1..=2 {
        site.end(Signal::TERM);
        site.start(&["--state", "state", "--io", io]);
        assert_eq!(site.restored()["flows"], transfers.len(), "{source}, round {round}: {}", site.log());
        transfers.iter().for_each(Transfer::goes_on);
        let flows: Value = serde_json::from_str(&site.sidestep(&["flows", "--json"])).expect("JSON");
        let flows = flows["flows"].as_array().expect("a list").iter();
        presented = flows.map(|flow| flow["presented"].as_str().expect("a socket").to_owned()).collect();
    }
    for transfer in transfers {
        let peer = SocketAddr::new(transfer.peer.ip().to_canonical(), transfer.peer.port()).to_string();
        assert!(presented.contains(&peer), "{source}: {peer} is not in {presented:?}");
        transfer.finish();
    }
    site.end(Signal::TERM);
}

#[test]
fn connections_with_private_addresses_and_by_a_nat_gateway_survive() {
    if privileged() {
        survive("\"private\"", "offload", &[(SERVICE, "10.1.1.4"), (SERVICE6, "fd00:1:0:1::4")]);
    }
}

#[test]
fn connections_with_mapped_prefixes_survive() {
    if privileged() {
        let source = "{ prefix_map = [\"100.64.1.0/24\", \"fd00:64:1::/64\"] }";
        survive(source, "plain", &[(SERVICE, "100.64.1.4"), (SERVICE6, "fd00:64:1::4")]);
    }
}

#[test]
fn connections_with_identities_survive() {
    if privileged() {
        // What follows from the names of location, network and subnet, and 10.1.1.4.
        let identity = "fde4:8dba:0:da34:c00:100:a01:104";
        survive("\"identity6\"", "offload", &[(SERVICE, identity)]);
    }
}

#[test]
fn connections_of_a_pool_survive() {
    if privileged() {
        survive("{ snat = \"shared\" }", "offload", &[(SERVICE, "100.64.9.1"), (SERVICE6, "fd00:64:9::1")]);
    }
}

#[test]
fn several_workers_take_their_flows_up_again() {
    if !privileged() {
        return;
    }
    let mut site = Site::new();
    site.start(&["--state", "state", "--workers", "2"]);
    let transfers: Vec<Transfer> =
        (0..4).map(|number| Transfer::start(&site, "internet", WEB, 8_000 + number)).collect();
    site.end(Signal::INT);
    site.start(&["--state", "state", "--workers", "2"]);
    assert_eq!(site.restored()["flows"], 4);
    for transfer in &transfers {
        transfer.goes_on();
    }
    // As many queues as before are attached to, no more and no fewer: another number of workers has to say so.
    site.end(Signal::TERM);
    let errors = site.refused(&["--state", "state"]);
    assert!(
        errors.contains("was left by a node with several workers and cannot be taken over by one with one"),
        "{errors}"
    );
    assert!(site.file("state").exists(), "what was not restored is kept");
    site.start(&["--state", "state", "--workers", "3"]);
    assert_eq!(site.restored()["flows"], 4);
    for transfer in transfers {
        transfer.goes_on();
        transfer.finish();
    }
    site.end(Signal::TERM);
}

/// Counts what is lost at a known rate: one datagram each millisecond, echoed by the other side.
#[test]
fn the_blackout_is_bounded() {
    if !privileged() {
        return;
    }
    let mut site = Site::new();
    site.start(&["--state", "state"]);
    let server = site.udp("internet", &format!("{WEB}:53"));
    let client = site.udp("vm1", "10.1.1.4:5353");
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("limit");
    }
    let stop = Arc::new(AtomicBool::new(false));
    let echo = thread::spawn({
        let stop = stop.clone();
        move || {
            let mut bytes = [0; 16];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((length, peer)) = server.recv_from(&mut bytes) {
                    // While no node is there the kernel drops it, with or without a word.
                    let _sent = server.send_to(&bytes[..length], peer);
                }
            }
        }
    });
    let answers = thread::spawn({
        let (stop, client) = (stop.clone(), client.try_clone().expect("a descriptor"));
        move || {
            let (mut seen, mut bytes) = (Vec::new(), [0; 8]);
            while !stop.load(Ordering::Relaxed) {
                if let Ok((8, _)) = client.recv_from(&mut bytes) {
                    seen.push((u64::from_le_bytes(bytes), Instant::now()));
                }
            }
            seen
        }
    });
    let answered = Arc::new(AtomicU64::new(0));
    let asking = thread::spawn({
        let (stop, answered) = (stop.clone(), answered.clone());
        move || {
            let begin = Instant::now();
            for number in 0_u64.. {
                if stop.load(Ordering::Relaxed) {
                    return number;
                }
                let _sent = client.send_to(&number.to_le_bytes(), (WEB, 53));
                answered.store(number, Ordering::Relaxed);
                let due = begin + Duration::from_millis(number + 1);
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            0
        }
    });
    let more = |count: u64| {
        let before = answered.load(Ordering::Relaxed);
        wait_for("datagrams go on", PATIENCE, || (answered.load(Ordering::Relaxed) > before + count).then_some(()));
    };
    more(300);
    let mut reported = Vec::new();
    for _ in 0..RESTARTS {
        site.end(Signal::TERM);
        site.start(&["--state", "state"]);
        reported.push(site.restored()["blackout_us"].as_u64().expect("a number"));
        more(300);
    }
    stop.store(true, Ordering::Relaxed);
    let sent = asking.join().expect("the client");
    echo.join().expect("the server");
    let seen = answers.join().expect("the answers");
    let mut gaps: Vec<Duration> = seen.windows(2).map(|pair| pair[1].1.duration_since(pair[0].1)).collect();
    gaps.sort_unstable_by(|one, other| other.cmp(one));
    gaps.truncate(RESTARTS);
    let lost = sent - seen.len() as u64;
    println!("lost {lost} of {sent} at 1000/s, silent for {gaps:?}, reported {reported:?} us");
    assert!(seen.last().is_some_and(|(last, _)| last + 200 > sent), "answers come again");
    let shortest = gaps.last().expect("as many silences as restarts");
    assert!(*shortest < BLACKOUT, "silent for {gaps:?}\n{}", site.log());
    assert!(gaps[0] < LONGEST_BLACKOUT, "silent for {gaps:?}\n{}", site.log());
    let longest_together = LONGEST_BLACKOUT.as_millis() as u64 * RESTARTS as u64;
    assert!(lost < longest_together, "{lost} lost of {sent}");
    site.end(Signal::TERM);
}

#[test]
fn a_killed_node_leaves_its_devices_to_the_next() {
    if !privileged() {
        return;
    }
    let mut site = Site::new();
    site.write(&site.document().replace(
        "  address_prefixes = [\"10.1.1.0/24\"]\n",
        "  address_prefixes = [\"10.1.1.0/24\"]\n  service_endpoints = [{ service = \"Microsoft.Storage\" }]\n",
    ));
    site.start(&["--state", "state"]);
    let private = Transfer::start(&site, "data", SERVICE, 443);
    assert_eq!(private.peer.ip().to_canonical().to_string(), "10.1.1.4");
    site.end(Signal::KILL);
    assert_eq!(site.interfaces("vm1"), ["eth0"]);
    let errors = site.refused(&[]);
    assert!(errors.contains("one with `--state` may have left it"), "{errors}");
    assert!(errors.contains(&format!("`ip -n {} link delete eth0`", site.lab.name("vm1"))), "{errors}");
    site.start(&["--state", "state"]);
    assert!(find(&site.status(), "state")["restored"].is_null(), "there was no time to save");
    private.goes_on();
    let errors = site.refused(&["--state", "other"]);
    assert!(errors.contains("another sidestep is attached to the interface `eth0`"), "{errors}");
    private.finish();
    site.end(Signal::TERM);
}

#[test]
fn a_damaged_state_file_is_refused_and_the_node_starts() {
    if !privileged() {
        return;
    }
    // Anywhere: in the header, among the flows, and where all of them have been taken in already.
    for place in [30, 500, 999] {
        let mut site = Site::new();
        site.start(&["--state", "state"]);
        site.sidestep(&["endpoint", "enable", "n/s", "Microsoft.Storage"]);
        Transfer::start(&site, "internet", WEB, 80).finish();
        site.end(Signal::TERM);
        let mut bytes = fs::read(site.file("state")).expect("read");
        let place = bytes.len() * place / 1_000;
        bytes[place] ^= 1;
        fs::write(site.file("state"), bytes).expect("write");
        site.start(&["--state", "state"]);
        assert!(site.log().contains("is no state file, or is damaged: a checksum is wrong"), "{}", site.log());
        let status = site.status();
        assert!(find(&status, "state")["restored"].is_null());
        assert_eq!(find(&status, "flows")["used"], 0, "{status}");
        // Nothing of it is used, what was switched by hand neither.
        let public = Transfer::start(&site, "data", SERVICE, 443);
        assert_eq!(public.peer.ip().to_canonical().to_string(), "203.0.113.200");
        public.finish();
        site.end(Signal::TERM);
    }
}

#[test]
fn ports_come_and_go_with_devices_that_stay() {
    if !privileged() {
        return;
    }
    let mut site = Site::new();
    let first = site.document();
    let both = first.replacen("[[nic]]\nname = \"vm1\"", &site.second_nic(), 1);
    site.write(&both);
    site.start(&["--state", "state"]);
    let kept = Transfer::start(&site, "internet", WEB, 80);
    site.lab.ping("vm2", WEB);

    // The flows of a port that is gone are left out; those of a port with another number now are not.
    site.end(Signal::TERM);
    site.write(&first);
    site.start(&["--state", "state"]);
    let restored = site.restored();
    assert_eq!((&restored["flows"], &restored["left_out"]), (&1.into(), &1.into()), "{}", site.log());
    kept.goes_on();
    kept.finish();
    assert_eq!(site.interfaces("vm2"), ["eth0"], "nobody has asked for it to go");

    // Taken over while the node runs, and really gone when the document no longer has it.
    site.write(&both);
    site.sidestep(&["apply", "-c", "n.toml"]);
    site.lab.ping("vm2", WEB);
    site.write(&first);
    site.sidestep(&["apply", "-c", "n.toml"]);
    assert!(site.interfaces("vm2").is_empty(), "a port that is removed takes its device along");

    // Addresses and routes are those of the document that the next process has.
    site.end(Signal::TERM);
    let moved = first.replace("\"10.1.1.4\"", "\"10.1.1.9\"").replace("203.0.113.200", "203.0.113.201");
    site.write(&moved);
    site.ip("internet", &["route", "add", "192.0.2.0/24", "dev", "edge0"]);
    site.start(&["--state", "state"]);
    let addresses = site.ip("vm1", &["-4", "-o", "address", "show", "eth0"]);
    assert!(addresses.contains("10.1.1.9/24") && !addresses.contains("10.1.1.4"), "{addresses}");
    let routes = site.ip("vm1", &["route"]);
    assert!(routes.contains("default dev eth0"), "{routes}");
    let routes = site.ip("internet", &["route"]);
    assert!(routes.contains("192.0.2.0/24"), "a route of somebody else's stays: {routes}");
    assert!(routes.contains("203.0.113.201") && !routes.contains("203.0.113.200"), "{routes}");
    site.lab.ping("vm1", WEB);
    site.end(Signal::TERM);

    // What something else made is not touched.
    site.ip("vm2", &["tuntap", "add", "dev", "eth0", "mode", "tun"]);
    site.write(&both);
    let errors = site.refused(&["--state", "state"]);
    assert!(errors.contains("is not one that sidestep left: something else made it"), "{errors}");
    site.ip("vm2", &["link", "delete", "eth0"]);
    site.ip("vm2", &["link", "add", "eth0", "type", "veth", "peer", "name", "eth1"]);
    let errors = site.refused(&["--state", "state"]);
    assert!(errors.contains("it is no TUN device"), "{errors}");
}
