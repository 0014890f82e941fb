//! Everything that shows what a node does, and who looks at it.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;

use crate::ending::Ending;
use crate::sites::Site;
use crate::support::Process;

/// How often the page asks, as its script does.
const PAGE: Duration = Duration::from_millis(500);

/// How often metrics are read: a Prometheus asks every 15 s if it is not told otherwise.
const METRICS: Duration = Duration::from_secs(1);

/// How often `sidestep top` asks.
const TOP: Duration = Duration::from_secs(1);

/// Whom trace and capture wait for: nobody, so that each packet is compared with what is looked for.
const NOBODY: &str = "198.51.100.1";

/// A collector that listens.
pub(crate) fn collector() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").expect("bind")
}

/// Everything that can be on.
const ALL: [&str; 8] = ["files", "ipfix", "metrics", "page", "follow", "top", "trace", "capture"];

/// Whether something is on: all, or what `SIDESTEP_BENCH_WATCHED` names of [`ALL`], with commas between.
fn is_on(what: &str) -> bool {
    let Ok(chosen) = std::env::var("SIDESTEP_BENCH_WATCHED") else { return true };
    let unknown = chosen.split(',').find(|word| !ALL.contains(word));
    assert_eq!(unknown, None, "SIDESTEP_BENCH_WATCHED names some of {ALL:?}");
    chosen.split(',').any(|word| word == what)
}

/// Arguments of a node that tells what is on.
pub(crate) fn arguments(collector: &UdpSocket) -> Vec<String> {
    let collector = collector.local_addr().expect("an address").to_string();
    let all = [
        ("files", &["--flow-log", "FOLDER/logs", "--flow-log-interval", "1"][..]),
        ("ipfix", &["--ipfix", &collector]),
        ("metrics", &["--metrics", "127.0.0.1:0"]),
        ("page", &["--page", "127.0.0.1:0"]),
    ];
    let on = all.iter().filter(|(what, _)| is_on(what)).flat_map(|(_, arguments)| *arguments);
    on.map(|argument| (*argument).to_owned()).collect()
}

/// What those who look share.
#[derive(Debug, Default)]
struct Shared {
    ending: Ending,
    /// Whether their node has its turn.
    looking: AtomicBool,
    messages: AtomicU64,
    pages: AtomicU64,
    metrics: AtomicU64,
    tops: AtomicU64,
}

/// All who look at one node.
pub(crate) struct Watchers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// `sidestep flow-log --follow`, `trace` and `capture`.
    _commands: Vec<Process>,
}

impl Watchers {
    pub(crate) fn of(site: &Site, collector: UdpSocket) -> Self {
        let shared = Arc::new(Shared::default());
        let client = site.client();
        let mut threads = vec![collect(&shared, collector)];
        if is_on("page") {
            let (page, token) = site.said("page").split_once("/#").expect("a token");
            let page = page.strip_prefix("http://").expect("a URL").to_owned();
            let live = format!("GET /api/live HTTP/1.1\r\nHost: {page}\r\nAuthorization: Bearer {token}\r\n\r\n");
            threads.push(every(&shared, PAGE, move |shared| {
                ask(&page, &live);
                shared.pages.fetch_add(1, Ordering::Relaxed);
            }));
        }
        if is_on("metrics") {
            let url = site.said("metrics");
            let metrics = url.strip_prefix("http://").and_then(|url| url.strip_suffix("/metrics")).expect("a URL");
            let metrics = metrics.to_owned();
            let read = format!("GET /metrics HTTP/1.1\r\nHost: {metrics}\r\nConnection: close\r\n\r\n");
            threads.push(every(&shared, METRICS, move |shared| {
                ask(&metrics, &read);
                shared.metrics.fetch_add(1, Ordering::Relaxed);
            }));
        }
        if is_on("top") {
            threads.push(every(&shared, TOP, move |shared| {
                let _answer: Value = client.get("/v1/top?watcher=bench&limit=1000").expect("an answer");
                shared.tops.fetch_add(1, Ordering::Relaxed);
            }));
        }
        let socket = site.file("node.sock").display().to_string();
        let file = site.file("none.pcapng").display().to_string();
        let commands = [
            &["flow-log", "--follow", "--json"][..],
            &["trace", "--from", NOBODY, "--timeout", "86400"],
            &["capture", "--from", NOBODY, "--timeout", "86400", "-w", &file],
        ];
        let commands = commands.into_iter().filter(|arguments| {
            let what = if arguments[0] == "flow-log" { "follow" } else { arguments[0] };
            is_on(what)
        });
        let commands = commands.map(|arguments| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_sidestep"));
            command.args(arguments).args(["--control", &socket]).stdout(Stdio::null()).stderr(Stdio::null());
            Process(command.spawn().expect("start sidestep"))
        });
        let commands = commands.collect();
        // Until they have begun.
        thread::sleep(Duration::from_millis(500));
        Self { shared, threads, _commands: commands }
    }

    /// Their node has its turn as long as what is given lives.
    pub(crate) fn look(&self) -> Look {
        self.shared.looking.store(true, Ordering::Relaxed);
        self.threads.iter().for_each(|thread| thread.thread().unpark());
        Look(self.shared.clone())
    }

    /// What they were told, so that nobody takes silence for speed.
    pub(crate) fn told(&self, site: &Site) -> String {
        let status: Value = site.client().get("/v1/status").expect("a status");
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let shared = &self.shared;
        assert_eq!(count(&shared.messages) > 0, is_on("ipfix"), "what the collector heard");
        format!(
            "{} IPFIX messages, {} answers of the page, {} of metrics, {} of top; flow logs: {}",
            count(&shared.messages),
            count(&shared.pages),
            count(&shared.metrics),
            count(&shared.tops),
            status["flow_log"]
        )
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        drop(self.shared.ending.guard());
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            // What went wrong there was said there.
            let _ended = thread.join();
        }
    }
}

/// A turn.
pub(crate) struct Look(Arc<Shared>);

impl Drop for Look {
    fn drop(&mut self) {
        self.0.looking.store(false, Ordering::Relaxed);
    }
}

/// Does something again and again while the node has its turn.
fn every(shared: &Arc<Shared>, period: Duration, mut then: impl FnMut(&Shared) + Send + 'static) -> JoinHandle<()> {
    let shared = shared.clone();
    thread::spawn(move || {
        // Time in which the node had its turn since it was done last.
        let mut passed = Duration::ZERO;
        const STEP: Duration = Duration::from_millis(20);
        while !shared.ending.has_come() {
            if !shared.looking.load(Ordering::Relaxed) {
                thread::park();
                continue;
            }
            if passed >= period {
                passed = Duration::ZERO;
                then(&shared);
            }
            thread::sleep(STEP);
            passed += STEP;
        }
    })
}

/// Takes what a collector is sent.
fn collect(shared: &Arc<Shared>, collector: UdpSocket) -> JoinHandle<()> {
    let shared = shared.clone();
    collector.set_read_timeout(Some(Duration::from_millis(200))).expect("a limit");
    thread::spawn(move || {
        let mut message = vec![0; 65_536];
        while !shared.ending.has_come() {
            if collector.recv(&mut message).is_ok() {
                shared.messages.fetch_add(1, Ordering::Relaxed);
            }
        }
    })
}

/// Asks over HTTP and reads the whole answer, which must be one.
fn ask(address: &str, request: &str) {
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.write_all(request.as_bytes()).expect("ask");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}
