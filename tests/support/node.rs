//! A running `sidestep` between the hosts of a test.

#![allow(dead_code, reason = "every test binary has a copy and uses a part of it")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sidestep::port::namespace;
use sidestep::port::netlink::Netlink;
use tempfile::TempDir;

use crate::site::{self, DOCUMENT};
use crate::support::{Lab, Process, wait_for, wait_for_end};

/// How long anything may take on a busy machine that takes milliseconds on an idle one.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// The program under test.
const SIDESTEP: &str = env!("CARGO_BIN_EXE_sidestep");

/// The subnet whose endpoint most tests switch.
pub(crate) const WORKLOAD: &str = "spoke/workload";

/// Hosts and a document, before a node runs.
pub(crate) struct Site {
    pub(crate) lab: Lab,
    /// The document as it is written.
    pub(crate) text: String,
    folder: TempDir,
}

impl Site {
    /// The hosts, with the lines of [`DOCUMENT`] about others left out.
    pub(crate) fn new(hosts: &[&str]) -> Self {
        Self::of(hosts, DOCUMENT)
    }

    /// The same with another document.
    pub(crate) fn of(hosts: &[&str], document: &str) -> Self {
        let lab = site::build(hosts);
        let folder = tempfile::tempdir().expect("a folder");
        let tags = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/service-tags.json");
        fs::copy(tags, folder.path().join("service-tags.json")).expect("copy the catalogue");
        let text = fill(&lab, hosts, document);
        Self { lab, text, folder }
    }

    /// Changes what the document says.
    #[track_caller]
    pub(crate) fn replace(mut self, from: &str, to: &str) -> Self {
        assert!(self.text.contains(from), "the document has no `{from}`");
        self.text = self.text.replace(from, to);
        self
    }

    /// A file beside the document.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a node and waits until it forwards.
    #[track_caller]
    pub(crate) fn start(self, arguments: &[&str]) -> Node {
        fs::write(self.file("site.toml"), &self.text).expect("write the document");
        let log = File::create(self.file("log")).expect("make the log");
        let child = self
            .run_command("site.toml", "control.sock")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn();
        let mut process = Process(child.expect("start sidestep"));
        let output = process.0.stdout.take().expect("a pipe");
        let (send, lines) = mpsc::channel();
        // Ends with the process.
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _nobody_listens = send.send(line);
            }
        });
        let node = Node { process, site: self };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = lines.recv_timeout(left).unwrap_or_else(|_| panic!("sidestep does not get ready"));
            if line == "ready" {
                return node;
            }
        }
    }

    /// `sidestep run` with a document and a socket of the folder.
    pub(crate) fn run_command(&self, document: &str, socket: &str) -> Command {
        let mut command = Command::new(SIDESTEP);
        command.arg("run").arg("-c").arg(self.file(document)).arg("--control").arg(self.file(socket));
        command.arg("--exit-with-stdin");
        command
    }
}

/// Puts namespaces in the places of hosts and leaves out lines about hosts that are not there.
fn fill(lab: &Lab, hosts: &[&str], document: &str) -> String {
    let mut text = String::new();
    for line in document.lines() {
        match line.split('@').nth(1).filter(|_| !line.starts_with('#')) {
            Some(host) if hosts.contains(&host) => text.push_str(&line.replace(&format!("@{host}@"), &lab.name(host))),
            Some(_) => continue,
            None => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

/// A running node. A test ends it with [`Node::finish`]; a test that fails ends it by dropping it, and shows its log.
pub(crate) struct Node {
    process: Process,
    pub(crate) site: Site,
}

impl Node {
    /// Runs a command on a host, which must succeed, and gives what it prints.
    #[track_caller]
    pub(crate) fn exec(&self, host: &str, command: &[&str]) -> String {
        self.site.lab.exec(host, command)
    }

    /// Three pings that are all answered.
    #[track_caller]
    pub(crate) fn ping(&self, host: &str, to: &str) -> String {
        let text = self.site.lab.ping(host, to);
        assert!(text.contains(" 0% packet loss"), "{text}");
        text
    }

    /// The addresses on the way, as `traceroute` shows them.
    #[track_caller]
    pub(crate) fn trace(&self, host: &str, option: &str, to: &str) -> Vec<String> {
        let text = self.exec(host, &["traceroute", option, "-n", "-q", "1", "-w", "3", "-N", "1", "-m", "12", to]);
        text.lines().skip(1).filter_map(|line| Some(line.split_whitespace().nth(1)?.to_owned())).collect()
    }

    /// What a web server answers.
    #[track_caller]
    pub(crate) fn curl(&self, host: &str, url: &str) -> String {
        self.exec(host, &["curl", "--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", "10", url])
    }

    /// Runs one iperf3 test, which has to carry data, and gives bits in a second.
    #[track_caller]
    pub(crate) fn iperf(&self, host: &str, server: &str, to: &str, arguments: &[&str]) -> f64 {
        let rate = self.site.lab.iperf(host, server, to, arguments);
        assert!(rate > 5e6, "{host} to {to} {arguments:?}: {rate} bits in a second");
        rate
    }

    /// One run of iperf3 in each direction.
    #[track_caller]
    pub(crate) fn iperf_both(&self, host: &str, server: &str, to: &str) {
        for arguments in [&["-t", "1"][..], &["-t", "1", "-R"]] {
            self.iperf(host, server, to, arguments);
        }
    }

    /// Runs a command of sidestep that asks this node.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(SIDESTEP);
        command.args(arguments).arg("--control").arg(self.site.file("control.sock"));
        command.output().expect("run sidestep")
    }

    /// Runs a command of sidestep that this node does, and gives its JSON.
    #[track_caller]
    pub(crate) fn tell(&self, arguments: &[&str]) -> Value {
        let output = self.ask(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Switches the storage endpoint of a subnet.
    #[track_caller]
    pub(crate) fn endpoint(&self, subnet: &str, enabled: bool) -> Value {
        self.tell(&["endpoint", if enabled { "enable" } else { "disable" }, subnet, "Microsoft.Storage"])
    }

    /// `sidestep status --json`
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        self.tell(&["status"])
    }

    /// Where the document is.
    pub(crate) fn document(&self) -> PathBuf {
        self.site.file("site.toml")
    }

    /// What it wrote to stderr so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.site.file("log")).expect("read the log")
    }

    /// Ends the node by SIGTERM; see [`Node::finish_by`].
    #[track_caller]
    pub(crate) fn finish(self) -> Value {
        self.finish_by(Signal::TERM)
    }

    /// Checks that every packet is accounted for, ends the node by a signal and checks that it ends well and leaves
    /// nothing. Gives its last status.
    #[track_caller]
    pub(crate) fn finish_by(self, signal: Signal) -> Value {
        self.finish_with(|process| kill_process(Pid::from_child(process), signal).expect("signal"))
    }

    /// Ends the node by closing its stdin; see [`Node::finish_by`].
    #[track_caller]
    pub(crate) fn finish_by_stdin(self) -> Value {
        self.finish_with(|process| drop(process.stdin.take().expect("a pipe")))
    }

    #[track_caller]
    fn finish_with(mut self, end: impl FnOnce(&mut Child)) -> Value {
        let mut last = Value::Null;
        let status = wait_for("received = forwarded + answered + dropped + held", PATIENCE, || {
            let status = self.status();
            let balanced = is_balanced(&status["counters"]);
            if !balanced && last["counters"] == status["counters"] {
                panic!("packets are lost without a word: {:#}", status["counters"]);
            }
            last = status.clone();
            balanced.then_some(status)
        });
        assert!(status["counters"]["received"].as_u64() > Some(0), "nothing was received");
        let devices: Vec<(String, Option<String>)> = status["ports"]
            .as_array()
            .expect("ports")
            .iter()
            .filter(|port| !port["io"].as_str().expect("text").starts_with("ethernet"))
            .map(|port| {
                let netns = port["netns"].as_str().map(str::to_owned);
                (port["interface"].as_str().expect("a name").to_owned(), netns)
            })
            .collect();
        for (interface, netns) in &devices {
            assert!(has_interface(netns.as_deref(), interface), "{interface} in {netns:?} is not there");
        }
        end(&mut self.process.0);
        let end = wait_for_end("sidestep ends", PATIENCE, &mut self.process.0);
        assert_eq!(end.code(), Some(0), "{}", self.log());
        assert!(!self.site.file("control.sock").exists(), "the socket is left");
        for (interface, netns) in &devices {
            assert!(!has_interface(netns.as_deref(), interface), "{interface} in {netns:?} is left");
        }
        status
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.site.file("log")).unwrap_or_default();
            eprintln!("the node wrote:\n{log}");
            eprintln!("its status:\n{}", String::from_utf8_lossy(&self.ask(&["status"]).stdout));
        }
    }
}

/// A ping that goes on while something else is done.
pub(crate) struct Pinging {
    process: Process,
    output: BufReader<ChildStdout>,
}

impl Pinging {
    /// Starts it, and waits for the first answer.
    #[track_caller]
    pub(crate) fn start(node: &Node, host: &str, to: &str) -> Self {
        let mut command = node.site.lab.command(host, &["ping", "-i", "0.01", "-W", "2", to]);
        let mut process = Process(command.stdout(Stdio::piped()).spawn().expect("start ping"));
        let mut output = BufReader::new(process.0.stdout.take().expect("a pipe"));
        let mut text = String::new();
        while !text.contains("icmp_seq=") {
            assert_ne!(output.read_line(&mut text).expect("read"), 0, "ping says {text}");
        }
        assert!(text.contains("icmp_seq=1 "), "{text}");
        Self { process, output }
    }

    /// Ends it and checks that every packet was answered; the last may have been under way.
    #[track_caller]
    pub(crate) fn finish(mut self) {
        kill_process(Pid::from_child(&self.process.0), Signal::INT).expect("signal");
        let mut text = String::new();
        self.output.read_to_string(&mut text).expect("read");
        let answered = 1 + text.lines().filter(|line| line.contains("icmp_seq=")).count();
        let sent = text.split(" packets transmitted").next().and_then(|start| start.lines().last());
        let sent: usize = sent.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("ping says {text}"));
        assert!(text.contains(&format!("icmp_seq={answered} ")), "an earlier one is missing: {text}");
        assert!(sent >= 20 && sent <= answered + 1, "{answered} of {sent} answered: {text}");
    }
}

/// Whether every packet is accounted for.
fn is_balanced(counters: &Value) -> bool {
    let number = |name: &str| counters[name].as_u64().expect("a number");
    let sum =
        |name: &str| -> u64 { counters[name].as_object().expect("names").values().filter_map(Value::as_u64).sum() };
    number("received") == number("forwarded") + sum("answered") + sum("dropped") + number("fragments_held")
}

/// Whether a namespace has an interface.
pub(crate) fn has_interface(netns: Option<&str>, interface: &str) -> bool {
    namespace::run(netns, || Netlink::open().expect("netlink").interface(interface).expect("ask").is_some())
        .expect("a namespace")
}

/// A counter of a port.
#[track_caller]
pub(crate) fn port_counter(status: &Value, port: &str, name: &str) -> u64 {
    let value = &status["counters"]["ports"][port][name];
    value.as_u64().unwrap_or_else(|| panic!("no counter {name} of {port}: {:#}", status["counters"]["ports"]))
}
