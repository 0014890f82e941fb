//! The demo: the same traffic through the forced tunnel and through the service endpoint, measured one after the other on
//! a lab of its own, which is gone afterwards whatever happened.

mod connection;
mod document;
mod guard;
mod outcome;
mod page;
mod probe;
mod record;
mod report;
mod stream;
mod switch;
mod withheld;

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;

use self::document::Subject;
use self::guard::Guard;
pub use self::guard::guard;
pub use self::outcome::{Datagrams, Reconnection, Switch, Unreset};
use self::page::{Page, PageFile, Setting};
use self::record::{PhaseKind, Recorder, Timeline};
use self::report::{Expected, rounded};
pub use self::report::{Measurement, Report};
use super::LabError;
use super::build::{make, prepare, remove, remove_stale, wait_for_line};
use super::command::{self, CommandError, Tool};
use super::interrupt::{self, Interrupted};
use super::process::ProcessId;
use super::state::{State, StateError, Step, own_folder};
use crate::control::answers::EndpointAnswer;
use crate::control::client::{self, ClientError, target};
use crate::model::network::IoMode;
use crate::tags::{Catalogue, CatalogueError};

/// The name of the demo's lab.
pub const NAME: &str = "demo";

/// How long the forwarder may take to forward, on a slow machine with the largest catalogue.
const FORWARDER_START: Duration = Duration::from_secs(60);

/// How long the forwarder may take to end when it is told to.
const FORWARDER_END: Duration = Duration::from_secs(5);

/// How long the open connections may take to answer.
const CONNECTION: Duration = Duration::from_secs(15);

/// Seconds of one measurement of TCP.
const TCP_SECONDS: u32 = 3;

/// How the demo runs.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// A catalogue to use instead of the invented one that ships: the service then has an address of that.
    pub tags: Option<PathBuf>,
    /// How TUN devices are opened, if not as the document says.
    pub io: Option<IoMode>,
    /// Where a page about the run goes, to be shown to others.
    pub report: Option<PathBuf>,
}

/// Why the demo came to no good end.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The lab.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A tool.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A signal asked us to stop.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// The forwarder's control socket.
    #[error("the forwarder: {0}")]
    Control(#[from] ClientError),
    /// The forwarder does not start.
    #[error("the forwarder does not start: {0}")]
    Forwarder(String),
    /// The catalogue cannot be read.
    #[error(transparent)]
    Tags(#[from] CatalogueError),
    /// The catalogue lacks something.
    #[error("the catalogue cannot be used for the demo: {0}")]
    Catalogue(String),
    /// The demo's own document.
    #[error("the demo's document: {0}")]
    Document(String),
    /// Something could not be measured.
    #[error("{what}: {said}")]
    Probe {
        /// What was tried.
        what: String,
        /// What came instead.
        said: String,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Everything was measured, and something is not as it should be.
    #[error("not as it should be: {}", .failures.join("; "))]
    Failed {
        /// The measurements.
        report: Box<Report>,
        /// What does not hold.
        failures: Vec<String>,
    },
}

impl DemoError {
    /// Whether a signal ended the demo, and which.
    pub fn interrupted(&self) -> Option<Interrupted> {
        match self {
            Self::Interrupted(interrupted) | Self::Command(CommandError::Interrupted(interrupted)) => {
                Some(*interrupted)
            }
            Self::Lab(error) => error.interrupted(),
            _ => None,
        }
    }
}

/// Runs the demo. Lines about its progress go to `progress`.
///
/// # Errors
/// [`DemoError`]; nothing is left behind then, either.
pub fn run(options: &Options, progress: &mut dyn Write) -> Result<Report, DemoError> {
    let mut progress = Progress { out: progress, begin: Instant::now() };
    interrupt::listen().map_err(|source| DemoError::File { path: PathBuf::from("signal handlers"), source })?;
    // What cannot be written is said before anything is built.
    let file = options.report.as_deref().map(PageFile::open).transpose()?;
    let catalogue = options.tags.as_deref().map(Catalogue::load).transpose()?;
    let subject = Subject::new(catalogue.as_ref())?;
    let layout = prepare(&subject.network)?;
    command::require(&["ping", "traceroute", "iperf3", "curl", "nft"])?;
    if remove_stale(NAME)? {
        progress.say("removed what an interrupted demo had left");
    }

    progress.say(&format!("building the lab: {} network namespaces", layout.namespaces.len()));
    let mut stage = Stage::begin()?;
    let document = stage.write(&subject)?;
    make(&mut stage.state, &layout)?;
    progress.say("starting the forwarder");
    stage.start_forwarder(&document, options)?;
    stage.start_iperf3(&subject)?;

    let setting = file.is_some().then(|| Setting::of(options, &subject));
    let result = measure_both(&mut stage, &subject, file.is_some(), &mut progress);
    let result = stage.explain(result);
    progress.say("removing the lab");
    stage.end()?;
    let (report, timeline) = result?;
    let expected =
        Expected { private: subject.private_address, public: subject.public_address, service: subject.service_address };
    let mut failures = report.failures(&expected);
    if let (Some(file), Some(setting), Some(timeline)) = (file, setting, timeline) {
        let path = file.path().display().to_string();
        let page = Page { report: &report, timeline: &timeline, setting: &setting, failures: &failures };
        match file.write(&page.html()) {
            Ok(()) => progress.say(&format!("the page about this run is {path}")),
            // What was measured is shown all the same.
            Err(error) => failures.push(format!("the page cannot be written: {error}")),
        }
    }
    if failures.is_empty() { Ok(report) } else { Err(DemoError::Failed { report: Box::new(report), failures }) }
}

/// Lines about what is being done, with the time since the start.
struct Progress<'a> {
    out: &'a mut dyn Write,
    begin: Instant,
}

impl Progress<'_> {
    fn say(&mut self, text: &str) {
        // Nobody may be watching, and the demo goes on all the same.
        let _ = writeln!(self.out, "[{:5.1} s] {text}", self.begin.elapsed().as_secs_f64());
    }
}

fn measure_both(
    stage: &mut Stage,
    subject: &Subject,
    recorded: bool,
    progress: &mut Progress<'_>,
) -> Result<(Report, Option<Timeline>), DemoError> {
    let mut recorder = if recorded { Some(Recorder::start(stage, subject)?) } else { None };
    let forced_tunnel = measure(stage, subject, "forced tunnel", &mut recorder, progress)?;
    let (switch, moment) = switch::measure(stage, subject, progress)?;
    let service_endpoint = measure(stage, subject, "service endpoint", &mut recorder, progress)?;
    let timeline = recorder.map(|recorder| recorder.finish(&moment));
    Ok((Report { forced_tunnel, service_endpoint, switch }, timeline))
}

fn measure(
    stage: &Stage,
    subject: &Subject,
    path: &str,
    recorder: &mut Option<Recorder>,
    progress: &mut Progress<'_>,
) -> Result<Measurement, DemoError> {
    let (vm, to) = (subject.vm_netns.as_str(), subject.service_address);
    let mut step = |what: &str| progress.say(&format!("{path}: {what}"));
    step("next hop, path and ping");
    let next_hop_type = stage.next_hop_type(subject.nic, to)?;
    let way = probe::path(vm, to)?;
    let ping_ms = rounded(probe::ping(vm, to)?, 2);
    step(&format!("TCP throughput, {TCP_SECONDS} s"));
    let begin = Instant::now();
    let tcp_gbps = rounded(probe::throughput(vm, to, TCP_SECONDS)?, 3);
    if let Some(recorder) = recorder {
        recorder.phase(PhaseKind::Throughput, begin);
    }
    step("HTTP to the service and to an ordinary web site");
    let (http_status, seen) = probe::http(vm, &subject.service_host)?;
    let (_, web_seen) = probe::http(vm, &subject.web_host)?;
    Ok(Measurement {
        next_hop_type,
        source_seen: seen.map(|seen| seen.source),
        path: way,
        ping_ms,
        tcp_gbps,
        http_status,
        web_source_seen: web_seen.map(|seen| seen.source),
    })
}

/// The lab with forwarder and traffic servers on it. Removes everything when it is dropped.
#[derive(Debug)]
struct Stage {
    state: State,
    folder: PathBuf,
    forwarder: Option<Child>,
    guard: Guard,
    ended: bool,
}

impl Stage {
    fn begin() -> Result<Self, DemoError> {
        let folder = own_folder(NAME).map_err(LabError::from)?;
        let state = State::begin(NAME, &folder.join("demo.toml")).map_err(LabError::from)?;
        match Guard::start(NAME) {
            Ok(guard) => Ok(Self { state, folder, forwarder: None, guard, ended: false }),
            Err(error) => {
                state.forget().map_err(LabError::from)?;
                Err(error.into())
            }
        }
    }

    /// Writes the document into a folder of the lab's own.
    fn write(&mut self, subject: &Subject) -> Result<PathBuf, DemoError> {
        let folder = self.folder.clone();
        self.announce(Step::Tree { path: folder.clone() })?;
        fs::create_dir(&folder)
            .and_then(|()| subject.write(&folder))
            .map_err(|source| DemoError::File { path: folder, source })
    }

    /// Starts `sidestep run`, which ends with this process.
    fn start_forwarder(&mut self, document: &Path, options: &Options) -> Result<(), DemoError> {
        let mut tool = Tool::own_program()?.words("run --exit-with-stdin -c").word(document);
        tool = tool.word("--control").word(self.socket());
        if let Some(tags) = &options.tags {
            tool = tool.word("--tags").word(tags);
        }
        if let Some(io) = options.io {
            tool = tool.word("--io").word(match io {
                IoMode::Offload => "offload",
                IoMode::Plain => "plain",
            });
        }
        let log = self.log();
        let file = File::create(&log).map_err(|source| DemoError::File { path: log, source })?;
        let child = tool.spawn(Stdio::piped(), Stdio::piped(), file.into())?;
        let identity = ProcessId::of(child.id());
        self.forwarder = Some(child);
        let id = identity.map_err(|error| DemoError::Forwarder(error.to_string()))?;
        self.announce(Step::Process { what: "forwarder".to_owned(), id })?;
        let waited = match &mut self.forwarder {
            Some(forwarder) => wait_for_line(forwarder, "ready", FORWARDER_START),
            None => Ok(()),
        };
        interrupt::check()?;
        waited.map_err(|reason| DemoError::Forwarder(format!("{reason}\n{}", self.last_words())))
    }

    fn start_iperf3(&mut self, subject: &Subject) -> Result<(), DemoError> {
        let tool = Tool::new("iperf3").words("-s --forceflush").inside(&subject.service_netns);
        let mut child = tool.spawn(Stdio::null(), Stdio::piped(), Stdio::piped())?;
        if let Ok(id) = ProcessId::of(child.id()) {
            self.announce(Step::Process { what: "iperf3 server".to_owned(), id })?;
        }
        wait_for_line(&mut child, "Server listening", CONNECTION).map_err(|said| match interrupt::check() {
            Ok(()) => DemoError::Probe { what: "iperf3 -s".to_owned(), said },
            Err(interrupted) => interrupted.into(),
        })
    }

    fn next_hop_type(&self, from: &str, to: IpAddr) -> Result<String, DemoError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct NextHop {
            next_hop_type: String,
        }
        let query = [("from", from), ("to", &to.to_string()), ("protocol", "tcp")];
        let answer: NextHop = self.client().get(&target(&["v1", "next-hop"], &query))?;
        Ok(answer.next_hop_type)
    }

    fn enable_endpoint(&self, subject: &Subject) -> Result<EndpointAnswer, DemoError> {
        let (network, subnet) = subject.subnet.split_once('/').unwrap_or((subject.subnet, ""));
        let path = ["v1", "subnets", network, subnet, "endpoints", &subject.service];
        Ok(self.client().post(&target(&path, &[]))?)
    }

    fn client(&self) -> client::Client {
        client::Client::new(&self.socket())
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("control.sock")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("run.log")
    }

    /// The end of the forwarder's log.
    fn last_words(&self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// If a measurement failed because the forwarder is gone, says that instead.
    fn explain<T>(&mut self, result: Result<T, DemoError>) -> Result<T, DemoError> {
        let gone = self.forwarder.as_mut().and_then(|child| child.try_wait().ok().flatten());
        match (result, gone) {
            (Err(error), Some(status)) if error.interrupted().is_none() => {
                let what = "the forwarder ended while it was needed".to_owned();
                Err(DemoError::Probe { what, said: format!("{status}\n{}", self.last_words()) })
            }
            (result, _) => result,
        }
    }

    fn announce(&mut self, step: Step) -> Result<(), DemoError> {
        Ok(self.state.announce(step).map_err(LabError::from)?)
    }

    /// Stops the forwarder and removes everything.
    fn end(mut self) -> Result<(), DemoError> {
        Ok(self.remove()?)
    }

    fn remove(&mut self) -> Result<(), LabError> {
        self.ended = true;
        if let Some(mut forwarder) = self.forwarder.take() {
            // Its stdin closes, and it takes its devices down and ends. If it does not, it is killed as a process of
            // the lab.
            drop(forwarder.stdin.take());
            if let Ok(id) = ProcessId::of(forwarder.id()) {
                id.wait(FORWARDER_END);
                id.end(Duration::from_secs(1))
                    .map_err(|source| LabError::Io { what: "forwarder".to_owned(), source })?;
            }
            // It has ended; this only takes its place in the process table away.
            let _ = forwarder.wait();
        }
        let removed = remove(&mut self.state);
        self.guard.dismiss();
        removed
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if let Err(error) = self.remove() {
            // On the way out of another error, which is the one to return.
            let _ = writeln!(io::stderr(), "error: {error}");
        }
    }
}

impl From<StateError> for DemoError {
    fn from(error: StateError) -> Self {
        Self::Lab(error.into())
    }
}
