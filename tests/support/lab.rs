//! What tests on real devices share: labs with names of their own, a node on them, and their end whatever happens.

#![allow(dead_code, reason = "every test binary has a copy and uses a part of it")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use sidestep::control::answers::Counters;
use sidestep::control::client::Client;
use tempfile::TempDir;
use toml::{Table, Value};

/// The network of the demo.
pub(crate) const DEMO: &str = include_str!("../../config/demo.toml");

/// Addresses of the demo's network.
pub(crate) const SERVICE: [&str; 2] = ["20.60.1.10", "2603:1020:206:100::10"];
pub(crate) const PRIVATE: [&str; 2] = ["10.1.1.4", "fd00:1:0:1::4"];
pub(crate) const PUBLIC: [&str; 2] = ["203.0.113.10", "2001:db8:ffff::10"];

/// What every name of a test's lab begins with, so that labs of killed tests can be told from others.
const PREFIX: &str = "ss-test";

/// How long a node may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether tests on devices can run here. Says aloud if not, and fails then if `CI` is `true`.
pub(crate) fn privileged() -> bool {
    privileged_with(&[])
}

/// The same for tests that need more tools than most.
pub(crate) fn privileged_with(more: &[&str]) -> bool {
    let root = rustix::process::geteuid().is_root();
    let driver = fs::File::options().read(true).write(true).open("/dev/net/tun").is_ok();
    let tools = ["ip", "nft", "ping", "traceroute", "iperf3", "curl"];
    let tools: Vec<_> = tools.iter().chain(more).filter(|tool| !installed(tool)).collect();
    if root && driver && tools.is_empty() {
        return true;
    }
    let reason = format!("root: {root}, /dev/net/tun: {driver}, tools missing: {tools:?}");
    assert!(std::env::var("CI").as_deref() != Ok("true"), "tests on devices cannot run in CI: {reason}");
    // Straight to the stream, which the test harness does not capture.
    writeln!(std::io::stderr(), "SKIPPED: a test on real devices ({reason})").expect("write");
    false
}

fn installed(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.iter().any(|folder| folder.join(tool).is_file())
}

/// The binary under test.
pub(crate) fn sidestep(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidestep"));
    command.env_remove("SIDESTEP_LOG").env_remove("SIDESTEP_CONTROL").args(arguments);
    command
}

/// A lab with names of its own, and perhaps a node on it.
pub(crate) struct Lab {
    name: String,
    folder: TempDir,
    node: Option<Child>,
    /// What the node said before it was ready.
    said: Vec<String>,
}

impl Lab {
    /// Builds the lab of a document for the test of this name. Its namespaces get names of their own, and the catalogue is
    /// the one that ships.
    pub(crate) fn up(test: &str, document: &str) -> Self {
        remove_left_behind();
        let lab = Self::prepare(test, document);
        lab.run(&["lab", "up", "-c", "network.toml", "--name", &lab.name]);
        lab
    }

    /// The same without building it.
    pub(crate) fn prepare(test: &str, document: &str) -> Self {
        let name = format!("{PREFIX}-{}-{test}", std::process::id());
        let lab = Self { name, folder: tempfile::tempdir().expect("folder"), node: None, said: Vec::new() };
        lab.write(document);
        lab
    }

    /// The lab's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The folder with `network.toml`.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The namespace of a host of the document.
    pub(crate) fn netns(&self, host: &str) -> String {
        format!("{}-{host}", self.name)
    }

    /// Starts a node on the lab and waits until it forwards.
    pub(crate) fn start_node(&mut self, arguments: &[&str]) {
        let mut command = self.command(&["run", "-c", "network.toml", "--exit-with-stdin"]);
        let log = fs::File::create(self.folder.path().join("run.log")).expect("log");
        let child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn();
        let node = self.node.insert(child.expect("start"));
        let out = node.stdout.take().expect("stdout");
        let lines = BufReader::new(out).lines().map_while(Result::ok);
        let mut ready = false;
        let said = lines.inspect(|line| ready = line == "ready").take_while(|line| line != "ready");
        self.said = said.collect();
        assert!(ready, "the node does not start: {}", self.log());
    }

    /// What follows a word on a line that the node said before it was ready.
    pub(crate) fn said(&self, word: &str) -> &str {
        let found = self.said.iter().find_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("the node says nothing about {word}: {:?}", self.said))
    }

    /// Runs a command line in a host's namespace and gives its stdout.
    pub(crate) fn exec(&self, host: &str, line: &str) -> String {
        let output = self.output(host, line);
        let said = String::from_utf8_lossy(&output.stderr);
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "in {host}: {line}: {}: {out}{said}\nnode: {}", output.status, self.log());
        out
    }

    /// Runs a command line in a host's namespace.
    pub(crate) fn output(&self, host: &str, line: &str) -> Output {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.netns(host)]).args(line.split_whitespace()).env("LC_ALL", "C");
        command.stdin(Stdio::null()).output().expect("run")
    }

    /// Starts a command line in a host's namespace; it is killed when the guard is dropped.
    pub(crate) fn spawn(&self, host: &str, line: &str) -> Running {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.netns(host)]).args(line.split_whitespace());
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("start");
        Running(child)
    }

    /// Runs `sidestep` in the lab's folder, talking to its node, and gives its stdout.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.command(arguments).output().expect("run");
        let said = String::from_utf8_lossy(&stderr);
        assert!(status.success(), "sidestep {arguments:?}: {status}: {said}");
        String::from_utf8(stdout).expect("text")
    }

    /// `sidestep` in the lab's folder, talking to its node.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = sidestep(arguments);
        command.current_dir(self.folder.path()).env("SIDESTEP_CONTROL", self.socket());
        command
    }

    /// Puts another document in force on the node.
    pub(crate) fn apply(&self, document: &str) {
        self.write(document);
        self.run(&["apply", "-c", "network.toml"]);
    }

    /// Waits until every packet that came in has gone out, was answered, was dropped for a named reason or is held, as the
    /// node counts them, and gives the counters.
    pub(crate) fn accounted(&self) -> Counters {
        let client = Client::new(&self.socket());
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            let counters: Counters = client.get("/v1/counters").expect("counters");
            let ended = counters.answered.values().sum::<u64>() + counters.dropped.values().sum::<u64>();
            // A fragment waits for the first one of its packet.
            let sum = counters.forwarded + ended + counters.fragments_held;
            if counters.received == sum && counters.received > 0 {
                return counters;
            }
            assert!(
                Instant::now() < until,
                "received {} packets, accounted for {sum}: {counters:?}",
                counters.received
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the node.
    pub(crate) fn stop_node(&mut self) {
        let Some(mut node) = self.node.take() else { return };
        drop(node.stdin.take());
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = node.try_wait().expect("wait") {
                assert!(status.success() || std::thread::panicking(), "the node ended with {status}: {}", self.log());
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _gone = node.kill();
        let _status = node.wait();
        assert!(std::thread::panicking(), "the node does not end: {}", self.log());
    }

    /// Where the lab's own files are: its certificate authority, and the logs of its services.
    pub(crate) fn own_file(&self, name: &str) -> PathBuf {
        Path::new("/run/sidestep/lab").join(format!("{}.d", self.name)).join(name)
    }

    /// Writes another document in the place of the lab's.
    pub(crate) fn write(&self, document: &str) {
        let mut table: Table = toml::from_str(document).expect("document");
        rename(&mut table, &self.name);
        let catalogue = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/service-tags.json");
        table.insert("tags".to_owned(), Value::String(catalogue.to_str().expect("path").to_owned()));
        fs::write(self.folder.path().join("network.toml"), toml::to_string(&table).expect("document")).expect("write");
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("node.sock")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("run.log")).unwrap_or_default()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop_node();
        // There is none if the test removed it, or it was refused.
        let _removed = self.command(&["lab", "down", "--name", &self.name]).output();
    }
}

/// The sum of the rows of a node's metrics that begin so.
pub(crate) fn metric(address: &str, row: &str) -> u64 {
    let mut stream = TcpStream::connect(address).expect("connect");
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("ask");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answer");
    let rows = answer.lines().filter_map(|line| line.strip_prefix(row)?.rsplit_once(' '));
    rows.map(|(_, value)| value.parse::<u64>().expect("a number")).sum()
}

/// A process of a test.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// Waits for a line that begins so on its stdout.
    pub(crate) fn wait_for(&mut self, start: &str) {
        let out = self.0.stdout.take().expect("stdout");
        let mut lines = BufReader::new(out).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.starts_with(start)), "no line begins with {start:?}");
        // Somebody has to read on, or the process ends at a closed pipe.
        std::thread::spawn(move || lines.for_each(drop));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _status = self.0.wait();
    }
}

/// Puts the lab's name before every name of a namespace.
fn rename(table: &mut Table, name: &str) {
    for (key, value) in table.iter_mut() {
        match value {
            Value::String(netns) if key == "netns" || key == "to" => {
                *netns = format!("{name}-{}", netns.trim_start_matches("sidestep-"));
            }
            Value::Table(inner) => rename(inner, name),
            Value::Array(items) => {
                items.iter_mut().filter_map(Value::as_table_mut).for_each(|inner| rename(inner, name))
            }
            _ => {}
        }
    }
}

/// Removes labs of tests that were killed: those whose process is gone.
fn remove_left_behind() {
    let Ok(labs) = fs::read_dir("/run/sidestep/lab") else { return };
    for lab in labs.filter_map(Result::ok) {
        let file = lab.file_name().to_string_lossy().into_owned();
        let Some(name) = file.strip_suffix(".json").filter(|name| name.starts_with(PREFIX)) else { continue };
        let pid = name.trim_start_matches(PREFIX).trim_start_matches('-').split('-').next().unwrap_or_default();
        if !Path::new("/proc").join(pid).exists() {
            let _removed = sidestep(&["lab", "down", "--name", name]).output();
        }
    }
}
