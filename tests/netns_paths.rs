//! The path of one and the same flow as everything tells it that shows what a node does: stream and files of the flow log,
//! IPFIX, metrics, trace, capture, live view and page. All agree, and all show the switch from the tunnel to the backbone
//! within a second.
//!
//! Needs root, /dev/net/tun, the lab's tools, chromium and chromedriver; says aloud when it cannot run, and fails then if `CI`
//! is `true`.

#[path = "netns_flow_log/azure.rs"]
mod azure;
#[path = "support/browser.rs"]
#[allow(dead_code, reason = "shared with a test that uses more of it")]
mod browser;
#[path = "netns_flow_log/collector.rs"]
#[allow(dead_code, reason = "shared with a test that uses more of it")]
mod collector;
#[path = "support/lab.rs"]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use azure::tuples;
use browser::Browser;
use collector::{Collector, number, text};
use serde_json::Value;
use sidestep::telemetry::flow_record::{FlowEvent, FlowRecord};
use support::{DEMO, Lab, PRIVATE, SERVICE, metric, privileged_with};

/// How long anything may take on a busy machine but for the switch.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the switch may take to show.
const A_SECOND: Duration = Duration::from_secs(1);

/// Files are written at most once a second (`--flow-log-interval 1`; Azure's once a minute), and hold what was recorded then.
const A_FILE: Duration = Duration::from_secs(2);

/// A command that goes on, and the lines of its stdout so far.
struct Following {
    child: Child,
    lines: Receiver<String>,
}

impl Following {
    fn start(lab: &Lab, arguments: &[&str]) -> Self {
        let mut command = lab.command(arguments);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("start");
        let out = BufReader::new(child.stdout.take().expect("stdout"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let mut lines = out.lines().map_while(Result::ok);
            // Nobody listens once the test is over.
            while lines.next().is_some_and(|line| sender.send(line).is_ok()) {}
        });
        Self { child, lines }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Where a flow leaves, and by which path.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    path: String,
    egress: String,
}

impl Told {
    fn new(path: &str, egress: &str) -> Self {
        Self { path: path.to_lowercase(), egress: egress.to_owned() }
    }
}

/// Everything that shows the path of the flow.
struct Sources {
    quick: Quick,
    /// Its file grows.
    _capture: Following,
    browser: Browser,
    lab: Lab,
}

/// Those that answer at once, or tell of their own accord.
struct Quick {
    collector: Collector,
    stream: Following,
    trace: Following,
    metrics: String,
    /// Identifier of the ping, as the stream tells it.
    identifier: u16,
    /// Packets that each port had sent when metrics were read last.
    sent: BTreeMap<String, u64>,
    folder: PathBuf,
}

const QUICK: [&str; 6] = ["stream", "files", "IPFIX", "metrics", "trace", "capture"];

impl Sources {
    fn start() -> (Self, support::Running) {
        let mut lab = Lab::up("paths", DEMO);
        let collector = Collector::start();
        let ipfix = format!("tcp:{}", collector.address);
        lab.start_node(&[
            "--flow-log",
            "logs",
            "--flow-log-interval",
            "1",
            "--ipfix",
            &ipfix,
            "--metrics",
            "127.0.0.1:0",
            "--page",
            "127.0.0.1:0",
        ]);
        let stream = Following::start(&lab, &["flow-log", "--follow", "--json"]);
        let of_ping = ["--from", "vm1", "--to", SERVICE[0], "--protocol", "icmp"];
        let trace = Following::start(&lab, &[&["trace", "--json", "-n", "1000"][..], &of_ping].concat());
        let capture = Following::start(&lab, &[&["capture", "-w", "ping.pcapng"][..], &of_ping].concat());
        let browser = Browser::start();
        browser.open(lab.said("page"));
        let metrics = lab.said("metrics").trim_start_matches("http://").trim_end_matches("/metrics").to_owned();
        let ping = lab.spawn("vm1", &format!("ping -n -i 0.1 {}", SERVICE[0]));
        let (sent, folder) = (BTreeMap::new(), lab.folder().to_owned());
        let quick = Quick { collector, stream, trace, metrics, identifier: 0, sent, folder };
        (Self { quick, _capture: capture, browser, lab }, ping)
    }

    /// Waits until every source tells this, and gives how long each took; those that take their time are asked beside the
    /// others. Nobody takes it back.
    fn wait_for(&mut self, wanted: &Told) -> BTreeMap<&'static str, Duration> {
        let Self { quick, browser, lab, .. } = self;
        let (browser, lab) = (&*browser, &*lab);
        let start = Instant::now();
        let asked = |name: &'static str, ask: &dyn Fn() -> Option<Told>| loop {
            let told = ask();
            if told.as_ref() == Some(wanted) {
                return (name, start.elapsed());
            }
            assert!(start.elapsed() < PATIENCE, "{name} tells {told:?}, and never {wanted:?}");
        };
        let mut found = BTreeMap::new();
        std::thread::scope(|scope| {
            let top = scope.spawn(|| asked("top", &|| of_top(lab)));
            let page = scope.spawn(|| asked("page", &|| of_page(browser)));
            while found.len() < QUICK.len() {
                for name in QUICK {
                    if !found.contains_key(name) && quick.ask(name).as_ref() == Some(wanted) {
                        found.insert(name, start.elapsed());
                    }
                }
                assert!(start.elapsed() < PATIENCE, "{wanted:?}: only {found:?}");
                std::thread::sleep(Duration::from_millis(5));
            }
            found.extend([top.join().expect("top"), page.join().expect("page")]);
        });
        let again = QUICK.map(|name| (name, quick.ask(name)));
        for (name, told) in again.into_iter().chain([("top", of_top(lab)), ("page", of_page(browser))]) {
            assert!(told.as_ref().is_none_or(|told| told == wanted), "{name} tells {told:?} after {wanted:?}");
        }
        found
    }
}

impl Quick {
    /// The path of the flow as one source tells it now, if it has anything new.
    fn ask(&mut self, name: &str) -> Option<Told> {
        match name {
            "stream" => self.of_stream(),
            "files" => self.of_files(),
            "IPFIX" => self.of_ipfix(),
            "metrics" => self.of_metrics(),
            "trace" => self.of_trace(),
            _ => self.of_capture(),
        }
    }

    fn of_stream(&mut self) -> Option<Told> {
        let records =
            self.stream.lines.try_iter().map(|line| {
                serde_json::from_str::<FlowRecord>(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
            });
        let service: IpAddr = SERVICE[0].parse().expect("address");
        let begun = records.filter(|record| {
            let to_service = record.destination.is_some_and(|to| to.address == service);
            record.event == FlowEvent::Begin && to_service && record.ingress.as_deref() == Some("vm1")
        });
        let record = begun.last()?;
        self.identifier = record.source.expect("source").port;
        Some(Told::new(record.path.expect("path").name(), &record.egress.expect("egress")))
    }

    /// Azure's format has no room for the path. What it shows is that the flow ended and began anew, once.
    fn of_files(&self) -> Option<Told> {
        let identifier = self.identifier.to_string();
        let told = tuples(&self.folder.join("logs"));
        let of_ping = told
            .iter()
            .map(|(tuple, _)| tuple)
            .filter(|tuple| tuple[1..4] == [PRIVATE[0], SERVICE[0], &identifier] && tuple[5..7] == ["1", "O"]);
        let states: String = of_ping.map(|tuple| tuple[7].as_str()).collect();
        match states.as_str() {
            "B" => Some(Told::new("tunnel", "gateway")),
            "BEB" => Some(Told::new("endpoint", "contosodata")),
            "" | "BE" => None,
            other => panic!("states {other}"),
        }
    }

    fn of_ipfix(&self) -> Option<Told> {
        let told = self.collector.told();
        let source = PRIVATE[0].parse::<std::net::Ipv4Addr>().expect("address").octets().to_vec();
        let destination = SERVICE[0].parse::<std::net::Ipv4Addr>().expect("address").octets().to_vec();
        let mut flows = told.records.iter().filter(|(id, record)| {
            *id == 256 && record[&(0, 8)] == source && record[&(0, 12)] == destination && number(record, 4) == 1
        });
        let (_, record) = flows.next_back()?;
        Some(Told::new(&text(record, 96), &told.interfaces[&number(record, 14)]))
    }

    /// The port whose packets have grown in number, of the two that the flow may take: nothing else leaves by them.
    fn of_metrics(&mut self) -> Option<Told> {
        let mut grown = None;
        for (port, path) in [("gateway", "tunnel"), ("contosodata", "endpoint")] {
            let sent = metric(&self.metrics, &format!("sidestep_port_sent_packets_total{{port=\"{port}\""));
            let before = self.sent.insert(port.to_owned(), sent).unwrap_or(sent);
            if sent > before {
                // Down the tunnel it leaves by the gateway, and reaches the service from the internet: to its port, too.
                grown = grown.or(Some(Told::new(path, port)));
            }
        }
        grown
    }

    fn of_trace(&self) -> Option<Told> {
        let lines = self.trace.lines.try_iter().map(|line| serde_json::from_str::<Value>(&line).expect("JSON"));
        let packet = lines.filter(|line| line["packet"].is_object()).last()?["packet"].clone();
        let egress = packet["verdict"]["port"].as_str().expect("a port").to_owned();
        let stages = packet["stages"].to_string();
        let path = match (stages.contains("VirtualNetworkGateway"), stages.contains("VirtualNetworkServiceEndpoint")) {
            (true, false) => "tunnel",
            (_, true) => "endpoint",
            other => panic!("{other:?}: {packet}"),
        };
        Some(Told::new(path, &egress))
    }

    /// Comments of packets name the port that they left by.
    fn of_capture(&self) -> Option<Told> {
        let bytes = fs::read(self.folder.join("ping.pcapng")).ok()?;
        let found = String::from_utf8_lossy(&bytes);
        let at = |words: &str| found.rfind(words);
        let (gateway, endpoint) = (at("sent to gateway"), at("sent to contosodata"));
        match gateway.max(endpoint) {
            None => None,
            last if last == gateway => Some(Told::new("tunnel", "gateway")),
            _ => Some(Told::new("endpoint", "contosodata")),
        }
    }
}

fn of_top(lab: &Lab) -> Option<Told> {
    let seen: Value = serde_json::from_str(&lab.run(&["top", "--json", "--interval", "0.1"])).expect("JSON");
    let flow = seen["flows"].as_array().expect("flows").iter().find(|flow| {
        let flow = flow.to_string();
        flow.contains(PRIVATE[0]) && flow.contains(SERVICE[0]) && flow.contains("vm1")
    })?;
    Some(Told::new(flow["path"].as_str().expect("path"), flow["egress"].as_str().expect("egress")))
}

/// The row of the flow, and the way that is drawn on the map while the row has the focus.
fn of_page(browser: &Browser) -> Option<Told> {
    let path = browser.text(
        "const row = [...document.querySelectorAll('.flow-table tbody tr')].find(row => \
         row.dataset.key.startsWith('icmp vm1 ')); \
         row?.focus(); \
         return row?.querySelector('[data-column=path]').textContent",
    );
    let drawn = browser.text("return document.querySelector('#map .shown')?.dataset.way");
    let egress = match drawn.as_str() {
        "nic:vm1 gateway site internet service:contosodata" => "gateway",
        "nic:vm1 backbone service:contosodata" => "contosodata",
        "" => return None,
        other => panic!("drawn: {other}"),
    };
    Some(Told::new(&path, egress))
}

#[test]
fn everything_tells_the_same_path_of_the_same_flow_within_a_second_of_the_switch() {
    if !privileged_with(&["chromium", "chromedriver"]) {
        return;
    }
    let (mut sources, _ping) = Sources::start();
    sources.wait_for(&Told::new("tunnel", "gateway"));
    let before = sources.quick.identifier;

    sources.lab.run(&["endpoint", "enable", "spoke/workload", "Microsoft.Storage"]);
    // What had gone down the tunnel by then.
    let _before = sources.quick.ask("metrics");
    let took = sources.wait_for(&Told::new("endpoint", "contosodata"));
    assert_eq!(sources.quick.identifier, before, "the ping is the same");
    println!("{took:?}");
    for (name, took) in took {
        let most = if name == "files" { A_FILE } else { A_SECOND };
        assert!(took < most, "{name} shows the switch after {took:?}");
    }
}
