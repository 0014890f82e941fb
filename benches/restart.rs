//! How long a restart silences a node, by the number of flows that it takes along and by the catalogue. Both processes
//! are the program as it is built for benchmarks, one after the other as a service manager starts them.
//!
//! Two figures, each the median of five restarts with the smallest and the largest: how long no echo of a stream of one
//! datagram a millisecond came back, and what the new process says (`blackout_us`: from the end of the old one's workers to
//! the start of its own).
//!
//! The catalogues are the small one of the demo and Azure's weekly file, which `SIDESTEP_TAGS` names, or `../shared/data`
//! has; without it that half is left out, and said so. Needs root, `ip`
//! and `nft`.

#[path = "../tests/support/namespaces.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod support;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sidestep::control::answers::Status;
use sidestep::control::client::Client;
use sidestep::port::namespace;
use support::{Lab, Process, privileged, run, wait_for_end};
use tempfile::TempDir;

/// Flows that a node takes along.
const FLOWS: [u64; 4] = [10, 100_000, 500_000, 1_000_000];
const ROUNDS: usize = 5;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);

const SERVICE: &str = "20.60.1.10";
const WEB: &str = "198.51.100.80";

struct Site {
    lab: Lab,
    folder: TempDir,
    node: Option<Process>,
}

impl Site {
    fn new(catalogue: &Path) -> Self {
        let lab = Lab::new(&["vm1", "internet", "data"]);
        run("ip", &["-n", &lab.name("internet"), "address", "add", &format!("{WEB}/32"), "dev", "lo"]);
        let folder = tempfile::tempdir().expect("a folder");
        let [vm1, internet, data] = ["vm1", "internet", "data"].map(|host| lab.name(host));
        let document = format!(
            r#"
location = "westeurope"
tags = {catalogue:?}

[flows]
limit_per_nic = 1048576
lifetimes = {{ udp = "1h" }}

[[virtual_network]]
name = "n"
address_space = ["10.1.0.0/16"]

  [[virtual_network.subnet]]
  name = "s"
  address_prefixes = ["10.1.1.0/24"]
  service_endpoints = [{{ service = "Microsoft.Storage" }}]

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
        );
        fs::write(folder.path().join("n.toml"), document).expect("write");
        Self { lab, folder, node: None }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&mut self) {
        let log = File::options().create(true).append(true).open(self.file("log")).expect("the log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_sidestep"));
        command.args(["run", "-c"]).arg(self.file("n.toml")).arg("--state").arg(self.file("state"));
        command.arg("--control").arg(self.file("node.sock"));
        let process = command.stdout(Stdio::piped()).stderr(log).spawn().expect("start sidestep");
        let mut process = Process(process);
        let out = BufReader::new(process.0.stdout.take().expect("a pipe"));
        let ready = out.lines().map_while(Result::ok).any(|line| line == "ready");
        assert!(ready, "{}", fs::read_to_string(self.file("log")).unwrap_or_default());
        self.node = Some(process);
    }

    fn end(&mut self) {
        let mut node = self.node.take().expect("a node");
        kill_process(Pid::from_child(&node.0), Signal::TERM).expect("signal");
        let status = wait_for_end("the node ends", PATIENCE, &mut node.0);
        assert!(status.success(), "{}", fs::read_to_string(self.file("log")).unwrap_or_default());
    }

    fn status(&self) -> Status {
        Client::new(&self.file("node.sock")).get("/v1/status").expect("a status")
    }

    fn udp(&self, host: &str, local: &str) -> UdpSocket {
        let socket = namespace::run(Some(&self.lab.name(host)), || UdpSocket::bind(local));
        let socket = socket.expect("a namespace").expect("bind");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("limit");
        socket
    }

    /// Makes flows of datagrams to the service, which nobody answers, until there are so many.
    fn populate(&self, flows: u64) {
        run(
            "ip",
            &[
                "netns",
                "exec",
                &self.lab.name("data"),
                "nft",
                "add table ip q; add chain ip q in { type filter hook \
             input priority 0; }; add rule ip q in udp dport 1-65535 drop",
            ],
        );
        let mut missing = flows.saturating_sub(self.status().flows.used.into());
        let mut port = 1_u16;
        let mut sockets: Vec<UdpSocket> = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while missing > 0 {
            assert!(Instant::now() < deadline, "{missing} flows are missing");
            // Each socket and port is a flow; what a full queue loses is made good in the next turn.
            let mut sent = 0;
            while sent < missing {
                if port == 1 || sockets.is_empty() {
                    sockets.push(self.udp("vm1", "10.1.1.4:0"));
                }
                let socket = sockets.last().expect("a socket");
                if socket.send_to(b"datagram", (SERVICE, port)).is_ok() {
                    sent += 1;
                }
                port = if port == 60_000 { 1 } else { port + 1 };
                if sent % 64 == 0 {
                    thread::sleep(Duration::from_micros(100));
                }
            }
            thread::sleep(Duration::from_millis(100));
            missing = flows.saturating_sub(self.status().flows.used.into());
        }
    }
}

/// A stream of one datagram a millisecond that is echoed, and the longest time without an echo.
fn silence(site: &mut Site, during: impl FnOnce(&mut Site)) -> Duration {
    let (server, client) = (site.udp("internet", &format!("{WEB}:53")), site.udp("vm1", "10.1.1.4:5353"));
    let stop = Arc::new(AtomicBool::new(false));
    let going = || {
        let stop = stop.clone();
        move || !stop.load(Ordering::Relaxed)
    };
    let on = going();
    let echo = thread::spawn(move || {
        let mut bytes = [0; 8];
        while on() {
            if let Ok((length, peer)) = server.recv_from(&mut bytes) {
                // While no node is there the kernel drops it, with or without a word.
                let _sent = server.send_to(&bytes[..length], peer);
            }
        }
    });
    let (on, receiver) = (going(), client.try_clone().expect("a descriptor"));
    let answers = thread::spawn(move || {
        let mut seen = Vec::new();
        while on() {
            if receiver.recv_from(&mut [0; 8]).is_ok() {
                seen.push(Instant::now());
            }
        }
        seen
    });
    let on = going();
    let ask = thread::spawn(move || {
        while on() {
            let _sent = client.send_to(b"datagram", (WEB, 53));
            thread::sleep(Duration::from_millis(1));
        }
    });
    thread::sleep(Duration::from_millis(300));
    during(site);
    thread::sleep(Duration::from_millis(500));
    stop.store(true, Ordering::Relaxed);
    echo.join().expect("the server");
    ask.join().expect("the client");
    let seen = answers.join().expect("the answers");
    seen.windows(2).map(|pair| pair[1] - pair[0]).max().expect("echoes")
}

fn measure(name: &str, catalogue: &Path) {
    for flows in FLOWS {
        let mut site = Site::new(catalogue);
        site.start();
        site.populate(flows - 1);
        let (mut silences, mut told) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            silences.push(silence(&mut site, |site| {
                site.end();
                site.start();
            }));
            let restored = site.status().state.and_then(|state| state.restored).expect("flows of the node before");
            assert!(restored.flows >= flows && restored.left_out == 0, "{restored:?}");
            told.push(Duration::from_micros(restored.blackout_us));
        }
        site.end();
        let spread = |mut times: Vec<Duration>| {
            times.sort_unstable();
            let ms = |time: Duration| time.as_secs_f64() * 1e3;
            format!("{:.1} ms ({:.1} to {:.1})", ms(times[ROUNDS / 2]), ms(times[0]), ms(times[ROUNDS - 1]))
        };
        println!("{name}, {flows} flows: silent {}, told {}", spread(silences), spread(told));
    }
}

fn main() {
    if !privileged() {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    measure("small catalogue", &root.join("config/service-tags.json"));
    let azure = std::env::var_os("SIDESTEP_TAGS")
        .map_or_else(|| root.join("../shared/data/ServiceTags_Public_20251117.json"), PathBuf::from);
    if azure.exists() {
        measure("Azure's catalogue", &azure);
    } else {
        println!("{} is missing: not measured with Azure's catalogue", azure.display());
    }
}
