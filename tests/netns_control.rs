//! A whole node on real devices in namespaces: what it makes, changes while it runs, and leaves behind.
//!
//! Needs root, `ip` and `ping`; says aloud when it cannot run, and fails then if `CI` is `true`.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Whether the tests can run here; says so if not.
fn privileged() -> bool {
    let root = rustix::process::geteuid().is_root();
    let driver = fs::File::options().read(true).write(true).open("/dev/net/tun").is_ok();
    let namespaces = Command::new("ip").args(["netns", "list"]).output().is_ok_and(|output| output.status.success());
    if root && driver && namespaces {
        return true;
    }
    let reason = format!("root: {root}, /dev/net/tun: {driver}, ip netns: {namespaces}");
    assert!(std::env::var("CI").as_deref() != Ok("true"), "cannot test a node on devices in CI: {reason}");
    // Straight to the stream, which the test harness does not capture.
    writeln!(std::io::stderr(), "SKIPPED: a node is not tested on real devices ({reason})").expect("write");
    false
}

/// Namespaces, a folder with document and catalogue, and processes of one test; gone when it ends in whatever way.
struct Lab {
    test: &'static str,
    folder: TempDir,
    namespaces: Vec<String>,
    processes: Vec<Child>,
}

impl Lab {
    fn new(test: &'static str) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let mut lab = Self { test, folder, namespaces: Vec::new(), processes: Vec::new() };
        for host in ["vm1", "vm2", "onprem", "edge", "data"] {
            let name = lab.name(host);
            // What a killed run of the same test left.
            let _absent = Command::new("ip").args(["netns", "delete", &name]).stderr(Stdio::null()).status();
            assert!(Command::new("ip").args(["netns", "add", &name]).status().expect("ip").success());
            lab.namespaces.push(name.clone());
            lab.exec("ip", &["-n", &name, "link", "set", "lo", "up"]);
        }
        let catalogue = r#"{ "changeNumber": 1, "cloud": "Public", "values": [ { "name": "Storage", "id": "Storage",
            "properties": { "changeNumber": 1, "region": "", "regionId": 0, "platform": "Azure",
            "systemService": "AzureStorage", "addressPrefixes": ["20.60.0.0/16", "2603:1020::/40"],
            "networkFeatures": ["UDR", "VSE"] } } ] }"#;
        fs::write(lab.folder.path().join("tags.json"), catalogue).expect("write");
        lab.write(&lab.document());
        lab
    }

    fn name(&self, host: &str) -> String {
        format!("ss-control-{}-{host}", self.test)
    }

    fn document(&self) -> String {
        let [vm1, onprem, edge, data] = ["vm1", "onprem", "edge", "data"].map(|host| self.name(host));
        format!(
            r#"
location = "westeurope"
tags = "tags.json"

[[virtual_network]]
name = "n"
address_space = ["10.1.0.0/16", "fd00:1::/48"]

  [[virtual_network.subnet]]
  name = "s"
  address_prefixes = ["10.1.1.0/24", "fd00:1:0:1::/64"]
  route_table = "forced"

[[route_table]]
name = "forced"
routes = [{{ name = "default", address_prefix = "0.0.0.0/0", next_hop_type = "VirtualNetworkGateway" }}]

[[nic]]
name = "vm1"
subnet = "n/s"
private_addresses = ["10.1.1.4", "fd00:1:0:1::4"]
device = {{ tun = "eth0", netns = "{vm1}" }}

[gateway]
virtual_network = "n"
learned_routes = ["192.168.0.0/16"]
device = {{ tun = "gw0", netns = "{onprem}", addresses = ["192.168.0.1/24"] }}

[internet]
public_addresses = ["203.0.113.200"]
device = {{ tun = "edge0", netns = "{edge}" }}

[[service]]
name = "data"
service = "Microsoft.Storage"
location = "westeurope"
addresses = ["20.60.1.10", "2603:1020::10"]
device = {{ tun = "eth0", netns = "{data}" }}
"#
        )
    }

    fn second_nic(&self) -> String {
        let vm2 = self.name("vm2");
        format!(
            "[[nic]]\nname = \"vm2\"\nsubnet = \"n/s\"\nprivate_addresses = [\"10.1.1.5\"]\n\
             device = {{ tun = \"eth0\", netns = \"{vm2}\" }}\n"
        )
    }

    fn write(&self, document: &str) {
        fs::write(self.folder.path().join("n.toml"), document).expect("write");
    }

    fn exec(&self, program: &str, arguments: &[&str]) -> String {
        let output = Command::new(program).args(arguments).output().expect("run");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{program} {arguments:?}: {errors}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// `ip` in a host's namespace.
    fn ip(&self, host: &str, arguments: &[&str]) -> String {
        let name = self.name(host);
        self.exec("ip", &[&["-n", &name], arguments].concat())
    }

    fn interfaces(&self, host: &str) -> usize {
        self.ip(host, &["-o", "link"]).lines().filter(|line| !line.contains(" lo: ")).count()
    }

    fn ping(&self, host: &str, to: &str) -> bool {
        let name = self.name(host);
        let status = Command::new("ip")
            .args(["netns", "exec", &name, "ping", "-c", "1", "-W", "2", to])
            .stdout(Stdio::null())
            .status();
        status.expect("ping").success()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sidestep"));
        command.current_dir(self.folder.path()).env_remove("SIDESTEP_LOG").args(arguments);
        command.env("SIDESTEP_CONTROL", self.folder.path().join("node.sock"));
        command
    }

    fn sidestep(&self, arguments: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.command(arguments).output().expect("run");
        let (out, errors) = (String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr));
        assert!(status.success(), "{arguments:?}: {out}{errors}");
        out
    }

    /// Starts a node and waits until it is ready; returns what it printed.
    fn start(&mut self, arguments: &[&str]) -> Vec<String> {
        let mut command = self.command(&["run", "-c", "n.toml"]);
        let process = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        self.processes.push(process.expect("start"));
        let out = self.processes.last_mut().and_then(|process| process.stdout.take()).expect("stdout");
        let mut lines = Vec::new();
        for line in BufReader::new(out).lines() {
            lines.push(line.expect("line"));
            if lines.last().is_some_and(|line| line == "ready") {
                return lines;
            }
        }
        panic!("the node is not ready: {lines:?}");
    }

    /// Ends the node and waits for it.
    fn stop(&mut self) {
        let mut process = self.processes.pop().expect("a node");
        let pid = rustix::process::Pid::from_child(&process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signal");
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = process.try_wait().expect("wait") {
                assert_eq!(status.code(), Some(0));
                return;
            }
            if Instant::now() >= deadline {
                let _gone = process.kill();
                panic!("the node does not end");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _gone = process.kill();
            let _status = process.wait();
        }
        for name in &self.namespaces {
            let _deleted = Command::new("ip").args(["netns", "delete", name]).status();
        }
    }
}

#[test]
fn a_node_makes_its_devices_and_takes_them_away() {
    if !privileged() {
        return;
    }
    let mut lab = Lab::new("life");
    let lines = lab.start(&["--io", "plain"]);
    let vm1 = lab.name("vm1");
    assert!(lines[0].starts_with(&format!("vm1: nic, eth0 in namespace {vm1}, ")), "{lines:?}");
    assert_eq!(lines.len(), 6, "{lines:?}");
    let routes = lab.ip("vm1", &["route"]);
    assert!(routes.contains("default dev eth0"), "{routes}");
    assert!(lab.ip("onprem", &["route"]).contains("10.1.0.0/16 dev gw0"));

    lab.sidestep(&["endpoint", "enable", "n/s", "Microsoft.Storage"]);
    assert!(lab.ping("vm1", "20.60.1.10"));
    assert!(lab.ping("vm1", "2603:1020::10"));
    let flows = lab.sidestep(&["flows"]);
    assert!(flows.contains("VirtualNetworkServiceEndpoint"), "{flows}");
    assert!(flows.ends_with("2 flows\n"), "{flows}");

    lab.stop();
    for host in ["vm1", "onprem", "edge", "data"] {
        assert_eq!(lab.interfaces(host), 0, "{host}");
    }
    assert!(!lab.folder.path().join("node.sock").exists());
}

#[test]
fn a_second_node_on_the_same_devices_is_refused() {
    if !privileged() {
        return;
    }
    let mut lab = Lab::new("second");
    lab.start(&[]);
    let other = lab.folder.path().join("other.sock");
    let output = lab.command(&["run", "-c", "n.toml"]).env("SIDESTEP_CONTROL", &other).output().expect("run");
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("port `vm1`: the interface `eth0` exists already in the network namespace"), "{errors}");
    assert!(!other.exists(), "what does not start leaves no socket");
    lab.sidestep(&["endpoint", "enable", "n/s", "Microsoft.Storage"]);
    assert!(lab.ping("vm1", "20.60.1.10"), "the first is not disturbed");
    lab.stop();
}

#[test]
fn devices_come_change_and_go_with_documents() {
    if !privileged() {
        return;
    }
    let mut lab = Lab::new("apply");
    lab.start(&[]);
    let first = lab.document();

    lab.write(&(first.clone() + &lab.second_nic()));
    let dry = lab.sidestep(&["apply", "-c", "n.toml", "--dry-run"]);
    assert!(dry.starts_with("new ports: vm2\n"), "{dry}");
    assert_eq!(lab.interfaces("vm2"), 0);
    lab.sidestep(&["apply", "-c", "n.toml"]);
    assert_eq!(lab.interfaces("vm2"), 1);
    assert!(lab.ping("vm2", "10.1.1.4"), "the workers serve the new port");

    // The address of a NIC moves, its device stays; a service gets one more, which the internet has to reach.
    let moved =
        first.replace("\"10.1.1.4\"", "\"10.1.1.9\"").replace("\"20.60.1.10\"", "\"20.60.1.10\", \"20.60.1.11\"");
    lab.write(&(moved + &lab.second_nic()));
    let applied = lab.sidestep(&["apply", "-c", "n.toml"]);
    assert!(applied.starts_with("ports changed: vm1, internet, data\n"), "{applied}");
    let addresses = lab.ip("vm1", &["-4", "-o", "address", "show", "eth0"]);
    assert!(addresses.contains("10.1.1.9/24") && !addresses.contains("10.1.1.4"), "{addresses}");
    assert!(lab.ip("vm1", &["route"]).contains("default dev eth0"), "the default route is there again");
    assert!(lab.ip("edge", &["route"]).contains("20.60.1.11 dev edge0"));
    assert!(lab.ping("vm2", "10.1.1.9"));

    lab.write(&first);
    lab.sidestep(&["apply", "-c", "n.toml"]);
    assert_eq!(lab.interfaces("vm2"), 0, "the device is closed before the answer");
    assert!(!lab.ip("edge", &["route"]).contains("20.60.1.11"));
    lab.sidestep(&["endpoint", "enable", "n/s", "Microsoft.Storage"]);
    assert!(lab.ping("vm1", "20.60.1.10"));
    lab.stop();
}

#[test]
fn a_document_whose_device_cannot_be_made_changes_nothing() {
    if !privileged() {
        return;
    }
    let mut lab = Lab::new("refuse");
    lab.start(&[]);
    // The name is taken in the namespace, by somebody else.
    lab.ip("vm2", &["tuntap", "add", "dev", "eth0", "mode", "tun"]);
    let routes = lab.ip("edge", &["route"]);
    let next = lab.document().replace("\"20.60.1.10\"", "\"20.60.1.10\", \"20.60.1.11\"") + &lab.second_nic();
    lab.write(&next);
    let output = lab.command(&["apply", "-c", "n.toml"]).output().expect("run");
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("port `vm2`: the interface `eth0` exists already"), "{errors}");
    assert_eq!(lab.ip("edge", &["route"]), routes);
    let status = lab.sidestep(&["status"]);
    assert!(status.starts_with("generation  1\n"), "{status}");
    lab.stop();
    assert_eq!(lab.interfaces("vm2"), 1, "what was there stays");
}

/// What an HTTP server on loopback answers: status line, headers and text.
fn http(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connect");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("ask");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answer");
    answer
}

/// The sum of a metric over its labels.
fn metric(text: &str, name: &str) -> u64 {
    let value = |line: &str| {
        let (row, value) = line.rsplit_once(' ')?;
        (row.split('{').next() == Some(name)).then(|| value.parse::<f64>().expect("a number") as u64)
    };
    let values: Vec<u64> = text.lines().filter_map(value).collect();
    assert!(!values.is_empty(), "no {name} in {text}");
    values.iter().sum()
}

/// Metrics say of two workers what the control socket says of both, every packet has an end, and a node that loses a device
/// tells so.
#[test]
fn metrics_agree_with_the_counters_and_tell_of_a_lost_device() {
    if !privileged() {
        return;
    }
    let mut lab = Lab::new("metrics");
    let lines = lab.start(&["--workers", "2", "--metrics", "127.0.0.1:0"]);
    let address = lines.iter().find_map(|line| line.strip_prefix("metrics http://")?.strip_suffix("/metrics"));
    let address = address.expect("where metrics are told").to_owned();
    lab.sidestep(&["endpoint", "enable", "n/s", "Microsoft.Storage"]);
    for _ in 0..5 {
        assert!(lab.ping("vm1", "20.60.1.10"));
    }
    assert!(http(&address, "/ready").ends_with("\r\n\r\nready\n"));

    let deadline = Instant::now() + Duration::from_secs(10);
    let text = loop {
        let text = http(&address, "/metrics");
        let ends =
            ["forwarded", "answered", "dropped"].map(|end| metric(&text, &format!("sidestep_{end}_packets_total")));
        let status: serde_json::Value = serde_json::from_str(&lab.sidestep(&["status", "--json"])).expect("a status");
        let counters = &status["counters"];
        let same = |metric_name: &str, counter: &str| Some(metric(&text, metric_name)) == counters[counter].as_u64();
        // Kernels of new hosts send a packet now and then: then the two were asked at different times.
        if ends.iter().sum::<u64>() == metric(&text, "sidestep_received_packets_total")
            && same("sidestep_received_packets_total", "received")
            && metric(&text, "sidestep_port_received_packets_total") == metric(&text, "sidestep_received_packets_total")
            && metric(&text, "sidestep_port_received_bytes_total") == metric(&text, "sidestep_received_bytes_total")
            && metric(&text, "sidestep_port_sent_packets_total")
                == metric(&text, "sidestep_forwarded_packets_total") + metric(&text, "sidestep_generated_packets_total")
            && same("sidestep_received_bytes_total", "received_bytes")
            && same("sidestep_forwarded_packets_total", "forwarded")
            && same("sidestep_flows_created_total", "flows_created")
            && same("sidestep_flows", "flows")
        {
            break text;
        }
        assert!(Instant::now() < deadline, "{text}\n{counters}");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(metric(&text, "sidestep_forwarded_packets_total") >= 10, "{text}");
    assert!(metric(&text, "sidestep_batch_packets_sum") >= 10, "{text}");
    // The endpoint is on: echoes went to the service and none into the tunnel.
    let sent = |port: &str| {
        let row = format!("sidestep_port_sent_packets_total{{port=\"{port}\"");
        let rows: String = text.lines().filter(|line| line.starts_with(&row)).map(|line| format!("{line}\n")).collect();
        metric(&rows, "sidestep_port_sent_packets_total")
    };
    assert!(sent("data") >= 5 && sent("vm1") >= 5 && sent("gateway") == 0, "{text}");
    assert_eq!(metric(&text, "sidestep_snapshot_generation"), 2);
    for secret in ["10.1.1.4", "20.60.1.10"] {
        assert!(!text.contains(secret), "no label tells an address: {text}");
    }

    lab.ip("vm1", &["link", "delete", "eth0"]);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !http(&address, "/ready").ends_with("not ready: no device at vm1\n") {
        assert!(Instant::now() < deadline, "{}", http(&address, "/ready"));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(http(&address, "/health").starts_with("HTTP/1.1 200 "));
    lab.stop();
}
