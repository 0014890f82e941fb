//! Flow logs of a node between real kernels: Azure's files, the stream, an IPFIX collector and metrics tell the same, to the
//! packet, and show the path of a flow.
//!
//! Needs root, /dev/net/tun and the tools; says aloud when it cannot run, and fails then if `CI` is `true`.

mod azure;
mod collector;
#[path = "../support/lab.rs"]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use azure::tuples;
use collector::{Collector, number, reverse, text};
use sidestep::control::answers::Counters;
use sidestep::path::kind::PathKind;
use sidestep::telemetry::flow_record::{FlowEvent, FlowRecord};
use support::{DEMO, Lab, PRIVATE, SERVICE, metric, privileged};

/// Clients of short connections: one curl by itself waits too long between two.
const CLIENTS: usize = 4;

/// Connections to the service before and after the switch.
const CONNECTIONS: usize = 20;

/// A node that logs in every way, and what it tells.
struct Logged {
    lab: Lab,
    metrics: String,
    collector: Collector,
    following: std::process::Child,
}

impl Logged {
    fn start(test: &str, arguments: &[&str]) -> Self {
        let mut lab = Lab::up(test, DEMO);
        let collector = Collector::start();
        let ipfix = format!("tcp:{}", collector.address);
        // Free a moment ago; the node tells if it is not any more.
        let free = TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address");
        let metrics = free.to_string();
        let all = ["--flow-log", "logs", "--flow-log-interval", "1", "--ipfix", &ipfix, "--metrics", &metrics];
        lab.start_node(&[&all[..], arguments].concat());
        let file = fs::File::create(lab.folder().join("stream.jsonl")).expect("file");
        let following = lab.command(&["flow-log", "--follow", "--json"]).stdout(file).stderr(Stdio::piped()).spawn();
        let logged = Self { lab, metrics, collector, following: following.expect("follow") };
        // Whoever follows is told of what comes from then on.
        logged.wait_for("a record in the stream", || {
            logged.lab.exec("vm1", "ping -n -c 1 -W 2 10.1.1.4");
            let _unanswered = logged.lab.output("vm1", "ping -n -c 1 -W 0.1 198.51.100.80");
            (!logged.stream().is_empty()).then_some(())
        });
        logged
    }

    fn wait_for<T>(&self, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            if let Some(found) = ask() {
                return found;
            }
            assert!(Instant::now() < deadline, "no {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Records of the stream so far.
    fn stream(&self) -> Vec<FlowRecord> {
        let text = fs::read_to_string(self.lab.folder().join("stream.jsonl")).expect("stream");
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).expect("a record")).collect()
    }

    fn metric(&self, row: &str) -> u64 {
        metric(&self.metrics, row)
    }

    /// Waits until no packet is on its way, and gives the counters.
    fn quiet(&self) -> Counters {
        self.wait_for("moment in which no packet is on its way", || {
            let before = self.lab.accounted();
            std::thread::sleep(Duration::from_millis(100));
            let after = self.lab.accounted();
            (before.received == after.received).then_some(after)
        })
    }

    fn connect(&self) {
        for _ in 0..CONNECTIONS {
            self.lab.exec("vm1", &format!("curl -sS --fail --noproxy * --max-time 8 http://{}/", SERVICE[0]));
        }
    }

    /// Ends the node and gives its last line, which sums everything up.
    fn stop(&mut self) -> String {
        self.lab.stop_node();
        let status = self.following.wait().expect("wait");
        assert!(!status.success(), "who follows is told that the node has ended");
        let log = fs::read_to_string(self.lab.folder().join("run.log")).expect("log");
        log.lines().find(|line| line.starts_with("received ")).unwrap_or_else(|| panic!("no summary: {log}")).to_owned()
    }
}

/// Packets of a tuple, there and back.
fn packets_of(tuple: &[String]) -> u64 {
    tuple[9].parse::<u64>().expect("sent") + tuple[11].parse::<u64>().expect("received")
}

fn summed(summary: &str, name: &str) -> u64 {
    let (_, rest) = summary.split_once(&format!("{name} ")).unwrap_or_else(|| panic!("no {name} in {summary}"));
    rest.split(|letter: char| !letter.is_ascii_digit()).next().expect("a number").parse().expect("a number")
}

/// Two workers, so that flows are handed over, too.
#[test]
fn every_source_tells_the_same_path_and_the_same_packets() {
    if !privileged() {
        return;
    }
    let mut logged = Logged::start("flows", &["--workers", "2"]);
    logged.connect();
    const TUNNEL: &str = "sidestep_port_sent_packets_total{port=\"gateway\"";
    assert!(logged.metric(TUNNEL) >= CONNECTIONS as u64, "{} packets down the tunnel", logged.metric(TUNNEL));
    logged.lab.run(&["endpoint", "enable", "spoke/workload", "Microsoft.Storage"]);
    // The last acknowledgements have gone.
    logged.quiet();
    let before = logged.metric(TUNNEL);
    logged.connect();
    assert_eq!(logged.metric(TUNNEL), before, "nothing goes down the tunnel any more");
    // What went down the tunnel comes in again by the internet edge, as flows of its own.
    let service = |record: &FlowRecord| {
        let to_service = record.destination.is_some_and(|to| to.address.to_string() == SERVICE[0] && to.port == 80);
        to_service && record.ingress.as_deref() == Some("vm1")
    };
    let over_endpoint = |record: &&FlowRecord| service(record) && record.path == Some(PathKind::Endpoint);
    logged.wait_for("flow over the endpoint in the stream", || logged.stream().iter().find(over_endpoint).map(|_| ()));
    let first = logged.stream().iter().find(over_endpoint).expect("found").clone();
    assert_eq!(first.endpoint.as_deref(), Some("Microsoft.Storage"));
    assert_eq!(first.identity.as_deref(), Some("spoke/workload"));
    assert_eq!(first.generation, 2);
    // All connections end, and what is left of them in a while; the node's end tells of the rest.
    let summary = logged.stop();

    let stream = logged.stream();
    let flows: Vec<_> = stream.iter().filter(|record| service(record)).collect();
    let begun =
        |path| flows.iter().filter(|record| record.event == FlowEvent::Begin && record.path == Some(path)).count();
    assert_eq!((begun(PathKind::Tunnel), begun(PathKind::Endpoint)), (CONNECTIONS, CONNECTIONS), "{summary}");
    let replied: Vec<_> = flows.iter().filter(|record| record.event == FlowEvent::Reply).collect();
    assert_eq!(replied.len(), 2 * CONNECTIONS);
    // There and back through the demo's tunnel takes 20 ms.
    let fastest = |path| {
        let replied = replied.iter().filter(|record| record.path == Some(path));
        replied.filter_map(|record| record.round_trip_us).min().expect("an answer")
    };
    let (tunnel, endpoint) = (fastest(PathKind::Tunnel), fastest(PathKind::Endpoint));
    assert!(tunnel >= 20_000 && endpoint < 20_000, "{tunnel} µs by the tunnel, {endpoint} µs over the endpoint");

    let told = logged.collector.finish();
    let names = &told.interfaces;
    assert!(
        names.values().any(|name| name == "gateway") && names.values().any(|name| name == "contosodata"),
        "{names:?}"
    );
    let source = PRIVATE[0].parse::<std::net::Ipv4Addr>().expect("address").octets().to_vec();
    let mut ipfix: BTreeMap<u64, (String, String)> = BTreeMap::new();
    for (_, record) in told.records.iter().filter(|(id, record)| *id == 256 && number(record, 11) == 80) {
        if record[&(0, 8)] == source {
            ipfix.insert(number(record, 7), (text(record, 96), names[&number(record, 14)].clone()));
        }
    }
    let azure = tuples(&logged.lab.folder().join("logs"));
    for record in flows.iter().filter(|record| record.event == FlowEvent::Begin) {
        let port = record.source.expect("source").port;
        let (path, egress) = &ipfix[&u64::from(port)];
        assert_eq!(record.path.map(PathKind::name), Some(path.as_str()));
        assert_eq!(record.egress.as_deref(), Some(egress.as_str()));
        let fields = [PRIVATE[0], SERVICE[0], &port.to_string(), "80", "6", "O"];
        let states: String =
            azure.iter().filter(|(tuple, _)| tuple[1..7] == fields).map(|(tuple, _)| tuple[7].as_str()).collect();
        assert_eq!(states, "BE", "connection from port {port}");
    }

    reconcile(&summary, &told, &azure);
    // The stream began a little later: the same but for what came before.
    let forwarded = summed(&summary, "forwarded");
    let passed = stream.iter().filter(|record| record.event != FlowEvent::Denied);
    let of_stream: u64 = passed.map(|record| record.packets.iter().sum::<u64>()).sum();
    assert!(of_stream <= forwarded && of_stream + 20 >= forwarded, "{of_stream} of {forwarded}");
}

/// To the packet: what was forwarded is what flows had, what ended here is what was denied, and Azure's files have what went
/// through NICs.
fn reconcile(summary: &str, told: &collector::Told, azure: &[(Vec<String>, PathBuf)]) {
    let (forwarded, ended) = (summed(summary, "forwarded"), summed(summary, "answered") + summed(summary, "dropped"));
    let flows = |denied: bool| {
        let flows = told.records.iter().filter(|(id, _)| (256..260).contains(id)).map(|(_, record)| record);
        flows.filter(move |record| (number(record, 89) >= 128) == denied)
    };
    let packets = |record: &collector::DataRecord| number(record, 2) + reverse(record, 2);
    let unknown = told.records.iter().filter(|(id, _)| *id == 266).map(|(_, record)| number(record, 133));
    let of_ipfix =
        (flows(false).map(packets).sum::<u64>(), flows(true).map(packets).sum::<u64>() + unknown.sum::<u64>());
    assert_eq!(of_ipfix, (forwarded, ended), "{summary}");
    let is_vm1 = |record: &&collector::DataRecord| {
        let side = |side| told.interfaces.get(&number(record, side)).is_some_and(|name| name == "vm1");
        side(10) || side(14)
    };
    let of_vm1: u64 = flows(false).filter(is_vm1).map(packets).sum();
    let of_azure: u64 = azure.iter().filter(|(tuple, _)| tuple[7] != "D").map(|(tuple, _)| packets_of(tuple)).sum();
    assert_eq!(of_azure, of_vm1, "{summary}");
}

/// Ten thousand short connections a minute, for six seconds, or as many as SIDESTEP_RECONCILE_SECONDS says: ports, counters, files and
/// collector agree to the packet, and nothing is lost.
#[test]
fn short_connections_reconcile_to_the_packet() {
    if !privileged() {
        return;
    }
    let seconds: usize = std::env::var("SIDESTEP_RECONCILE_SECONDS").map_or(6, |text| text.parse().expect("seconds"));
    // As many for each client.
    let connections = 10_000 * seconds / 60 / CLIENTS * CLIENTS;
    let mut logged = Logged::start("reconcile", &["--workers", "2"]);
    logged.lab.run(&["endpoint", "enable", "spoke/workload", "Microsoft.Storage"]);
    let url = format!("http://{}/?[1-{}]", SERVICE[0], connections / CLIENTS);
    let curl = format!(
        "curl -sS --fail --noproxy * -o /dev/null --rate {}/m -H Connection:close --max-time 8 {url}",
        // A little faster: curl makes good for nothing that it is late with.
        10_400 / CLIENTS
    );
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| logged.lab.exec("vm1", &curl));
        }
    });
    let took = started.elapsed();
    println!("{connections} connections in {took:?}");
    // Nobody says anything any more: neither the kernel of the VM, of itself, nor the node to it.
    logged.lab.exec("vm1", "ip link set eth0 down");
    let counters = logged.quiet();
    let ports = |name: &str, port: &str| logged.metric(&format!("sidestep_port_{name}_packets_total{port}"));
    let (sent, received) = (ports("sent", ""), ports("received", ""));
    assert_eq!((sent, received), (counters.forwarded + counters.generated, counters.received));
    let of_vm1 = ports("sent", "{port=\"vm1\"") + ports("received", "{port=\"vm1\"");
    let totals: serde_json::Value = serde_json::from_str(&logged.lab.run(&["status", "--json"])).expect("status");
    assert_eq!(totals["flow_log"]["lost_records"], 0, "{totals}");
    let summary = logged.stop();
    let told = logged.collector.finish();
    let azure = tuples(&logged.lab.folder().join("logs"));
    reconcile(&summary, &told, &azure);
    let begun = azure.iter().filter(|(tuple, _)| tuple[7] == "B" && tuple[4] == "80").count();
    assert_eq!(begun, connections, "{summary}");
    let ended = azure.iter().filter(|(tuple, _)| tuple[7] == "E" && tuple[4] == "80").count();
    assert_eq!(ended, connections, "{summary}");
    // Azure's files have every packet of the VM's port, but for those that ended where they entered.
    let passed: u64 = azure.iter().filter(|(tuple, _)| tuple[7] != "D").map(|(tuple, _)| packets_of(tuple)).sum();
    let of_vm1_alone = told.records.iter().filter(|(id, record)| {
        let ended = *id == 266 || (256..260).contains(id) && number(record, 89) >= 128;
        ended && told.interfaces.get(&number(record, 10)).is_some_and(|name| name == "vm1")
    });
    let ended = of_vm1_alone.map(|(id, record)| number(record, if *id == 266 { 133 } else { 2 })).sum::<u64>();
    println!(
        "{passed} packets in files and {ended} ended, {of_vm1} at the port: {summary}; {} data records",
        told.records.len()
    );
    assert_eq!(counters.generated, 0, "nothing was told to the VM");
    assert_eq!(passed + ended, of_vm1, "{summary}");
    // A few seconds say nothing about a rate where other tests run beside.
    assert!(seconds < 60 || took <= Duration::from_secs(seconds as u64), "{took:?} for {seconds} s");
}
