//! What several test programs share: network namespaces and processes that are gone when their test ends, in whatever
//! way, and what is done in them.

use std::io::Write;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Whether the tests can run here; says so if not.
pub(crate) fn privileged() -> bool {
    let root = rustix::process::geteuid().is_root();
    let driver = std::fs::File::options().read(true).write(true).open("/dev/net/tun").is_ok();
    let namespaces = Command::new("ip").args(["netns", "list"]).output().is_ok_and(|output| output.status.success());
    if root && driver && namespaces {
        return true;
    }
    let reason = format!("root: {root}, /dev/net/tun: {driver}, ip netns: {namespaces}");
    assert!(std::env::var("CI").as_deref() != Ok("true"), "cannot test with real devices in CI: {reason}");
    skipped(&format!("real devices ({reason})"));
    false
}

/// Says aloud what a test goes without.
pub(crate) fn skipped(what: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // Straight to the stream, which the test harness does not capture.
    writeln!(std::io::stderr(), "SKIPPED: {test}: without {what}").expect("write");
}

/// Runs a program, which must succeed, and gives what it prints.
#[track_caller]
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Asks again and again until there is an answer; too late is a failure.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, patience: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {patience:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits for the end of a process.
#[track_caller]
pub(crate) fn wait_for_end(what: &str, patience: Duration, process: &mut Child) -> ExitStatus {
    wait_for(what, patience, || process.try_wait().expect("a child"))
}

/// A process that is killed when its owner goes.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _gone = self.0.kill();
        let _status = self.0.wait();
    }
}

/// Network namespaces of one test, with names that no other test has: `ss-PROCESS-NUMBER-HOST`.
pub(crate) struct Lab {
    prefix: String,
    namespaces: Vec<String>,
}

impl Lab {
    /// Makes a namespace for each host.
    pub(crate) fn new(hosts: &[&str]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut lab = Self { prefix: format!("ss-{}-{number}", std::process::id()), namespaces: Vec::new() };
        for host in hosts {
            let name = lab.name(host);
            run("ip", &["netns", "add", &name]);
            lab.namespaces.push(name.clone());
            run("ip", &["-n", &name, "link", "set", "lo", "up"]);
        }
        lab
    }

    /// The name of a host's namespace.
    pub(crate) fn name(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }

    /// A command that runs on a host.
    pub(crate) fn command(&self, host: &str, command: &[&str]) -> Command {
        let mut ip = Command::new("ip");
        ip.args(["netns", "exec", &self.name(host)]).args(command);
        ip
    }

    /// Runs a command on a host, which must succeed, and gives what it prints.
    #[track_caller]
    pub(crate) fn exec(&self, host: &str, command: &[&str]) -> String {
        run("ip", &[&["netns", "exec", &self.name(host)], command].concat())
    }

    /// Three pings, of which one has to be answered.
    #[track_caller]
    pub(crate) fn ping(&self, host: &str, to: &str) -> String {
        self.exec(host, &["ping", "-c", "3", "-i", "0.05", "-W", "2", to])
    }

    /// Runs one iperf3 test from a host to an address of the server's and gives bits in a second as received.
    #[track_caller]
    pub(crate) fn iperf(&self, host: &str, server: &str, to: &str, arguments: &[&str]) -> f64 {
        let serve = self.command(server, &["iperf3", "-s", "-1", "--forceflush"]).stdout(Stdio::null()).spawn();
        let mut serve = Process(serve.expect("start iperf3"));
        wait_for("iperf3 listens", Duration::from_secs(10), || {
            self.exec(server, &["ss", "-Hltn", "sport = :5201"]).contains("5201").then_some(())
        });
        let base = ["timeout", "60", "iperf3", "-J", "-c", to];
        let report = self.exec(host, &[&base, arguments].concat());
        // The next test's server can only then listen.
        wait_for_end("iperf3 ends", Duration::from_secs(10), &mut serve.0);
        let report: serde_json::Value = serde_json::from_str(&report).expect("a report of iperf3");
        let received = &report["end"]["sum_received"]["bits_per_second"];
        received.as_f64().unwrap_or_else(|| panic!("iperf3 says {report}"))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in &self.namespaces {
            let _deleted = Command::new("ip").args(["netns", "delete", name]).status();
        }
    }
}
