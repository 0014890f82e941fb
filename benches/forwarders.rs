//! A node beside the kernel's router and beside the loop that only reads and writes: TCP through one and eight connections,
//! and ping, between two hosts on this machine. `scripts/bench` runs it.
//!
//! Each round measures every forwarder once, one after the other, in another order each time. What counts are the ratios
//! within a round: their median over all rounds, with the smallest and the largest. Processor time is that of the whole
//! machine, both ends of iperf3 included, by what was received.
//!
//! `target/bench/bench.json` gets the medians. `SIDESTEP_BENCH_QUICK` shortens what is measured to a second each. Needs root,
//! `ip`, `nft`, `ping` and `iperf3`.

#[path = "report/mod.rs"]
#[allow(dead_code, reason = "shared with a benchmark that uses more of it")]
mod report;
#[path = "../tests/support/namespaces.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use support::{Lab, Process, privileged, run};
use tempfile::TempDir;

const ROUNDS: usize = 7;

/// A forwarder between the hosts `left` and `right`.
struct Forwarder {
    name: &'static str,
    lab: Lab,
    /// The address of `right`.
    to: &'static str,
    _process: Option<Process>,
    _folder: Option<TempDir>,
}

/// Starts a `sidestep` that says `ready`.
fn start(arguments: &[&str]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidestep"));
    let mut process = Process(command.args(arguments).stdout(Stdio::piped()).spawn().expect("start sidestep"));
    let out = BufReader::new(process.0.stdout.take().expect("a pipe"));
    assert!(out.lines().map_while(Result::ok).any(|line| line == "ready"), "sidestep {arguments:?} ends");
    process
}

/// The kernel's router between two veth pairs, with the connection tracking and the masquerade that a NAT needs.
fn kernel() -> Forwarder {
    let lab = Lab::new(&["left", "right", "router"]);
    let router = lab.name("router");
    for (host, number) in [("left", "1"), ("right", "2")] {
        let (host, inside) = (lab.name(host), format!("veth{number}"));
        run("ip", &["-n", &router, "link", "add", &inside, "type", "veth", "peer", "name", "eth0", "netns", &host]);
        run("ip", &["-n", &router, "address", "add", &format!("10.9.{number}.254/24"), "dev", &inside]);
        run("ip", &["-n", &router, "link", "set", &inside, "up"]);
        run("ip", &["-n", &host, "address", "add", &format!("10.9.{number}.1/24"), "dev", "eth0"]);
        run("ip", &["-n", &host, "link", "set", "eth0", "up"]);
        run("ip", &["-n", &host, "route", "add", "default", "via", &format!("10.9.{number}.254")]);
    }
    let rules = "table ip nat { chain post { type nat hook postrouting priority 100; oifname veth2 masquerade; }; }";
    lab.exec("router", &["sysctl", "-q", "-w", "net.ipv4.ip_forward=1"]);
    lab.exec("router", &["nft", rules]);
    Forwarder { name: "kernel", lab, to: "10.9.2.1", _process: None, _folder: None }
}

/// The loop that only reads and writes.
fn null(name: &'static str, io: &str) -> Forwarder {
    let lab = Lab::new(&["left", "right"]);
    let ends = [("left", "10.9.1.1/24"), ("right", "10.9.2.1/24")];
    let [left, right] = ends.map(|(host, address)| format!("{}/eth0={address}", lab.name(host)));
    let process = start(&["bench", "null", "--io", io, &left, &right]);
    Forwarder { name, lab, to: "10.9.2.1", _process: Some(process), _folder: None }
}

/// A node: a VM behind a network security group reaches a service over its endpoint, with this source.
fn node(name: &'static str, source: &str) -> Forwarder {
    let lab = Lab::new(&["left", "right"]);
    let folder = tempfile::tempdir().expect("a folder");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = format!(
        r#"
location = "westeurope"
tags = {tags:?}

[[virtual_network]]
name = "n"
address_space = ["10.1.0.0/16"]

  [[virtual_network.subnet]]
  name = "s"
  address_prefixes = ["10.1.1.0/24"]
  network_security_group = "g"
  service_endpoints = [{{ service = "Microsoft.Storage", source = {source} }}]

[[network_security_group]]
name = "g"

  [[network_security_group.security_rules]]
  name = "storage"
  priority = 100
  direction = "Outbound"
  access = "Allow"
  protocol = "*"
  source_address_prefix = "VirtualNetwork"
  source_port_range = "*"
  destination_address_prefix = "Storage"
  destination_port_range = "*"

[[snat_pool]]
name = "pool"
addresses = ["100.64.9.1"]

[[nic]]
name = "vm1"
subnet = "n/s"
private_addresses = ["10.1.1.4"]
device = {{ tun = "eth0", netns = "{left}" }}

[[service]]
name = "data"
service = "Microsoft.Storage"
location = "westeurope"
addresses = ["20.60.1.10"]
device = {{ tun = "eth0", netns = "{right}" }}
"#,
        tags = root.join("config/service-tags.json"),
        left = lab.name("left"),
        right = lab.name("right"),
    );
    let path = |file: &str| folder.path().join(file).display().to_string();
    fs::write(path("n.toml"), document).expect("write");
    let process = start(&["run", "-c", &path("n.toml"), "--control", &path("node.sock")]);
    Forwarder { name, lab, to: "20.60.1.10", _process: Some(process), _folder: Some(folder) }
}

/// One thing that is measured: `left` to `right` through a forwarder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Measure {
    /// Gigabits in a second of one connection, of eight.
    Tcp(u8),
    /// Processor seconds of a gigabyte, of one connection and of eight.
    Cpu(u8),
    /// Milliseconds: half the pings are faster.
    Ping,
}

impl Measure {
    fn name(self) -> String {
        match self {
            Self::Tcp(flows) => format!("tcp{flows}"),
            Self::Cpu(flows) => format!("cpu{flows}"),
            Self::Ping => "ping_p50".to_owned(),
        }
    }

    /// What it is called in the table.
    fn title(self) -> String {
        match self {
            Self::Tcp(flows) => format!("TCP x{flows}, Gb/s"),
            Self::Cpu(flows) => format!("TCP x{flows}, CPU s/GB"),
            Self::Ping => "ping p50, ms".to_owned(),
        }
    }
}

/// Processor time that the machine has spent on anything, in seconds.
fn busy() -> f64 {
    let text = fs::read_to_string("/proc/stat").expect("/proc/stat");
    let line = text.lines().next().expect("a line for all processors");
    let ticks: Vec<f64> = line.split_whitespace().skip(1).map(|value| value.parse().expect("a number")).collect();
    // User, nice, system, then two of idleness, then interrupts.
    (ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6]) / rustix::param::clock_ticks_per_second() as f64
}

fn measure(forwarder: &Forwarder, seconds: u32, found: &mut BTreeMap<(Measure, &'static str), Vec<f64>>) {
    let Forwarder { name, lab, to, .. } = forwarder;
    let mut note = |measure, value| found.entry((measure, *name)).or_default().push(value);
    for flows in [1, 8] {
        let before = busy();
        let rate = lab.iperf("left", "right", to, &["-t", &seconds.to_string(), "-P", &flows.to_string()]);
        let bytes = rate / 8.0 * f64::from(seconds);
        note(Measure::Tcp(flows), rate / 1e9);
        note(Measure::Cpu(flows), (busy() - before) / (bytes / 1e9));
    }
    let pings = (seconds * 300).to_string();
    let told = lab.exec("left", &["ping", "-i", "0.002", "-c", &pings, to]);
    let times = told.lines().filter_map(|line| line.split("time=").nth(1)?.split(' ').next()?.parse().ok());
    let mut times: Vec<f64> = times.collect();
    assert!(times.len() * 10 > seconds as usize * 300 * 9, "{} of {pings} pings were answered", times.len());
    note(Measure::Ping, median(&mut times));
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// `0.98 (0.95 to 1.01)`.
fn spread(values: &[f64], digits: usize) -> String {
    let mut values = values.to_vec();
    let median = median(&mut values);
    format!("{median:.digits$} ({:.digits$} to {:.digits$})", values[0], values[values.len() - 1])
}

fn main() {
    if !privileged() {
        return;
    }
    let seconds = if std::env::var_os("SIDESTEP_BENCH_QUICK").is_some() { 1 } else { 4 };
    let mut forwarders = [
        kernel(),
        null("ceiling", "offload"),
        null("ceiling, plain", "plain"),
        node("node", r#""private""#),
        node("node, SNAT", r#"{ snat = "pool" }"#),
    ];
    let mut found = BTreeMap::new();
    for round in 1..=ROUNDS {
        eprintln!("round {round} of {ROUNDS}");
        forwarders.iter().for_each(|forwarder| measure(forwarder, seconds, &mut found));
        forwarders.rotate_left(2);
    }

    let names = ["kernel", "ceiling", "ceiling, plain", "node", "node, SNAT"];
    let measures = [Measure::Tcp(1), Measure::Tcp(8), Measure::Cpu(1), Measure::Cpu(8), Measure::Ping];
    println!("{:<16} {:<18} {:<28} {:<26} {:<26}", "", "", "median", "to the ceiling", "to the kernel");
    let mut json = serde_json::Map::new();
    for measure in measures {
        for name in names {
            let own = &found[&(measure, name)];
            let ratios = |other| -> Vec<f64> {
                own.iter().zip(&found[&(measure, other)]).map(|(own, other)| own / other).collect()
            };
            let shown = |other| if name == other { String::new() } else { spread(&ratios(other), 2) };
            let (ceiling, kernel) = (shown("ceiling"), shown("kernel"));
            let value = spread(own, 3);
            println!("{name:<16} {:<18} {value:<28} {ceiling:<26} {kernel:<26}", measure.title());
            let key = match name {
                "node" => measure.name(),
                "node, SNAT" => format!("{}_snat", measure.name()),
                _ => continue,
            };
            for other in ["ceiling", "kernel"] {
                json.insert(format!("{key}_vs_{other}"), median(&mut ratios(other)).into());
            }
        }
    }
    report::save(json);
    println!("{ROUNDS} rounds of {seconds} s, {}", report::Machine::here());
}
