//! A node from its start to its end.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::time::MissedTickBehavior;

use super::answers::{Counters, RestoredStatus, StateStatus};
use super::devices::KernelDevices;
use super::document::Document;
use super::flow_log::FlowLogOptions;
use super::monitor::{self, MonitorError};
use super::node::{Loaded, Node, Overrides};
use super::notify;
use super::page::{Page, PageError};
use super::privileges::{self, Files, PrivilegesError};
use super::refusal::Refusal;
use super::server;
use super::socket::{self, ControlSocket, SocketError};
use super::state::{self, ByHand, Reading, StateError};
use crate::model::network::PollMode;
use crate::telemetry::ipfix::Exporter;
use crate::telemetry::vnet_flow_log::FlowLogError;
use crate::worker::{self, Paths, Poll};

/// How often the catalogue's file is looked at.
const LOOK_AT_CATALOGUE: Duration = Duration::from_secs(1);

/// How often the number of flows is looked at.
const LOOK_AT_FLOWS: Duration = Duration::from_secs(1);

/// How often denials are taken in.
const LOOK_AT_DENIALS: Duration = Duration::from_millis(250);

/// How often records of flows are taken in: fewer than the workers' queues hold come in that time.
const LOOK_AT_FLOW_LOG: Duration = Duration::from_millis(50);

/// How long the end waits for questions that are being answered.
const FAREWELL: Duration = Duration::from_secs(3);

/// What to run.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// The document.
    pub config: PathBuf,
    /// What the command line says instead of the document.
    pub overrides: Overrides,
    /// Where the control socket is, if not where the document or the default says.
    pub control: Option<PathBuf>,
    /// Where metrics and health are told over HTTP, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// What is logged of flows.
    pub flow_log: FlowLogOptions,
    /// Where the page is, if anywhere.
    pub page: Option<SocketAddr>,
    /// End when stdin closes.
    pub end_with_stdin: bool,
    /// Where flows are saved at the end and restored from at the start. With it devices stay when the process ends, and
    /// are taken over where they are there.
    pub state: Option<PathBuf>,
    /// Keep no privilege for devices of later documents.
    pub drop_all_privileges: bool,
}

/// Where a node is told about over HTTP.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// Metrics and health.
    pub metrics: Option<SocketAddr>,
    /// The URL of the page, with its token.
    pub page: Option<String>,
}

/// Why a node did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Document or devices.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The control socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The state file cannot be used. Where that shows at the end only, everything else has ended well.
    #[error(transparent)]
    State(#[from] StateError),
    /// Metrics.
    #[error(transparent)]
    Monitor(#[from] MonitorError),
    /// The page.
    #[error(transparent)]
    Page(#[from] PageError),
    /// What is not needed any more could not be given up.
    #[error(transparent)]
    Privileges(#[from] PrivilegesError),
    /// The folder of flow logs.
    #[error("--flow-log cannot be used")]
    FlowLog(#[from] FlowLogError),
    /// The socket to a collector of flow records.
    #[error("cannot make a socket to the IPFIX collector")]
    Collector(#[source] io::Error),
    /// Threads, signals.
    #[error("cannot run the control side")]
    Control(#[source] io::Error),
    /// What told that the node is ready failed.
    #[error("cannot tell that the node is ready")]
    Ready(#[source] io::Error),
}

/// Runs a node until SIGTERM, SIGINT or, if asked for, the end of stdin. `ready` is called once packets are forwarded and
/// the socket answers; it is told where metrics and page are, if anywhere. Returns what was counted.
///
/// # Errors
/// [`RunError`]; the socket is gone then, too, and so are devices that are not to stay.
pub fn run(
    options: RunOptions,
    ready: impl FnOnce(&Node, &ControlSocket, &Places) -> io::Result<()>,
) -> Result<Counters, RunError> {
    // Nothing is forwarded yet: the flows are read while the network is compiled.
    let reading = options.state.as_deref().map(read_state).transpose()?.flatten();
    let document = Document::read(&options.config)?;
    let by_hand = reading.as_ref().map(|reading| reading.by_hand(&document.text)).unwrap_or_default();
    let mut loaded = Loaded::resume(document.clone(), options.overrides.clone(), &by_hand)?;
    let logs = options.flow_log.folder.is_some() || options.flow_log.collector.is_some();
    let paths = |loaded: &Loaded| {
        let (network, snapshot) = (loaded.network(), loaded.snapshot());
        let poll = match network.poll {
            PollMode::Sleep => Poll::Sleep,
            PollMode::Adaptive => Poll::Adaptive,
        };
        let paths = Paths::new(snapshot, &worker::Settings::new(network.workers, network.flows.limit, poll));
        if logs { paths.logged() } else { paths }
    };
    let stopped = reading.as_ref().map(Reading::stopped);
    let restored = reading.and_then(|reading| or_warn(reading.restore(paths(&loaded), loaded.snapshot())));
    if restored.is_none() && by_hand != ByHand::default() {
        loaded = Loaded::load(document, options.overrides)?;
    }
    // Nothing of a file that cannot be used.
    let stopped = stopped.filter(|_| restored.is_some());
    let paths = restored.unwrap_or_else(|| paths(&loaded));
    let network = loaded.network();
    let path = socket::location(options.control.as_deref(), network.control.as_deref());
    let flow_log_files = loaded.flow_log_files(&options.flow_log)?;
    let exporter = options.flow_log.collector.as_ref().map(Exporter::new).transpose().map_err(RunError::Collector)?;
    // Also where that takes a privilege.
    let monitor = options.metrics.map(monitor::listen).transpose()?;
    // What is made in it.
    let flow_log_folder = options.flow_log.folder.as_ref().map(|folder| folder.join("insights-logs-flowlogflowevent"));
    let page = options.page.map(Page::listen).transpose()?;
    // Before there are other threads, which would keep what they were started with.
    let devices = privileges::divide(
        KernelDevices::new(network, options.state.is_some()),
        &Files {
            read: network.tags.iter().cloned().collect(),
            written: options.state.iter().chain([&path]).chain(&flow_log_folder).cloned().collect(),
        },
        &Files { read: Vec::new(), written: loaded.device_files() },
        options.drop_all_privileges,
    )?;
    if let Some(files) = &flow_log_files {
        files.check()?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(RunError::Control)?;
    // From here on a signal waits for its turn, so that what is being made is also taken down.
    let signals = {
        let _inside = runtime.enter();
        Signals::new().map_err(RunError::Control)?
    };
    let socket = ControlSocket::bind(&path)?;
    let counts = paths.restored();
    let records = paths.records();
    let mut restored = None;
    let node = loaded.start(Box::new(devices.clone()), |publisher, ports| {
        let handle = worker::Handle::start(publisher, ports, paths)?;
        restored = stopped.map(|stopped| RestoredStatus {
            flows: counts.restored,
            expired: counts.expired,
            left_out: counts.refused,
            blackout_us: SystemTime::now().duration_since(stopped).unwrap_or_default().as_micros() as u64,
        });
        Ok(handle)
    })?;
    if options.drop_all_privileges {
        devices.end();
    }
    if let Some(file) = options.state.clone() {
        if let Some(RestoredStatus { flows, expired, left_out, blackout_us }) = restored {
            tracing::info!(flows, expired, left_out, blackout_us, "flows are restored");
        }
        node.set_state(StateStatus { file, restored });
    }
    if logs {
        node.start_flow_log(records, flow_log_files, options.flow_log.interval, exporter).map_err(RunError::Control)?;
    }
    let node = Arc::new(node);

    let listener = socket.listener().map_err(RunError::Control)?;
    let (end, ended) = watch::channel(false);
    let server = runtime.spawn(server::serve(node.clone(), listener, ended));
    let metrics = monitor.as_ref().and_then(|listener| listener.local_addr().ok());
    let places = Places { metrics, page: page.as_ref().map(Page::url) };
    if let Some(listener) = monitor {
        let monitor = monitor::serve(node.clone(), listener);
        runtime.spawn(async {
            if let Err(error) = monitor.await {
                tracing::error!(%error, "metrics are not told any more");
            }
        });
    }
    if let Some(page) = page {
        let page = page.serve(node.clone());
        runtime.spawn(async {
            if let Err(error) = page.await {
                tracing::error!(%error, "the page is not served any more");
            }
        });
    }
    if let Some(file) = options.state.as_deref().filter(|_| stopped.is_some()) {
        // Whoever starts after a crash of this process must not find flows that are older than that; who starts after
        // a failure up to here finds them.
        state::remove(file)?;
    }
    if let Err(error) = ready(&node, &socket, &places) {
        if let Some(file) = &options.state {
            node.save(file)?;
        }
        return Err(RunError::Ready(error));
    }
    notify::ready();

    let result = runtime.block_on(async {
        let mut server = server;
        tokio::select! {
            failed = &mut server => {
                let error = match failed {
                    Ok(Err(error)) => error,
                    Ok(Ok(())) => io::Error::other("the control socket closed"),
                    Err(error) => io::Error::other(error),
                };
                return Err(RunError::Control(error));
            }
            () = signals.any() => {}
            () = stdin_closed(options.end_with_stdin) => tracing::info!("stdin is closed"),
            () = watch_catalogue(node.clone()) => {}
            () = watch_flows(node.clone()) => {}
            () = watch_denials(node.clone()) => {}
            () = watch_flow_log(node.clone()) => {}
        }
        if node.logs_flows() {
            // Before the socket closes: who follows is told of the end of every flow.
            let (node, state) = (node.clone(), options.state.clone());
            let stopping = tokio::task::spawn_blocking(move || node.stop(state.as_deref()));
            let _ = stopping.await.inspect_err(|error| tracing::error!(%error, "the workers do not end"));
        }
        notify::stopping();
        let _ = end.send(true);
        match server.await {
            Ok(result) => result.map_err(RunError::Control),
            Err(error) => Err(RunError::Control(io::Error::other(error))),
        }
    });
    runtime.shutdown_timeout(FAREWELL);
    node.look_at_denials();
    let saved = match &options.state {
        Some(path) => node.save(path).map(|flows| tracing::info!(flows, file = %path.display(), "flows are saved")),
        None => {
            node.stop(None);
            Ok(())
        }
    };
    // Nothing comes any more: what is counted is what was logged.
    let counters = node.counters();
    drop(node);
    drop(socket);
    result?;
    saved?;
    Ok(counters)
}

/// What the process before left.
fn read_state(path: &Path) -> Result<Option<Reading>, StateError> {
    state::check_folder(path)?;
    Ok(or_warn(Reading::begin(path)).flatten())
}

/// What can be used: a node that cannot go on starts anew.
fn or_warn<T>(read: Result<T, StateError>) -> Option<T> {
    read.inspect_err(|error| tracing::warn!(%error, "the node starts without flows")).ok()
}

/// Signals that end a node.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn any(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => tracing::info!("SIGTERM"),
            _ = self.interrupt.recv() => tracing::info!("SIGINT"),
        }
    }
}

/// Ends when stdin does, or never.
async fn stdin_closed(wanted: bool) {
    if !wanted {
        return std::future::pending().await;
    }
    let (closed, is_closed) = oneshot::channel();
    // The thread may outlive everything: it holds nothing but the channel, and a read cannot be called off.
    let reader = std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let mut bytes = [0; 256];
        loop {
            match io::stdin().read(&mut bytes) {
                Ok(0) => break,
                Err(error) if error.kind() != io::ErrorKind::Interrupted => break,
                _ => {}
            }
        }
        let _ = closed.send(());
    });
    match reader {
        // A sender that is gone says the same as one that spoke.
        Ok(_) => drop(is_closed.await),
        Err(error) => {
            tracing::error!(%error, "stdin is not watched");
            std::future::pending::<()>().await;
        }
    }
}

/// Takes changes of the catalogue's file in, without end.
async fn watch_catalogue(node: Arc<Node>) {
    let mut ticks = tokio::time::interval(LOOK_AT_CATALOGUE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let node = node.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || node.reload_catalogue()).await {
            tracing::error!(%error, "looking at the catalogue failed");
        }
    }
}

/// Says who was denied what, without end.
async fn watch_denials(node: Arc<Node>) {
    let mut ticks = tokio::time::interval(LOOK_AT_DENIALS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let node = node.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || node.look_at_denials()).await {
            tracing::error!(%error, "looking at denials failed");
        }
    }
}

/// Takes records of flows in, without end.
async fn watch_flow_log(node: Arc<Node>) {
    let mut ticks = tokio::time::interval(LOOK_AT_FLOW_LOG);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !node.logs_flows() {
            continue;
        }
        let node = node.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || node.look_at_flow_log()).await {
            tracing::error!(%error, "looking at records of flows failed");
        }
    }
}

/// Says when there are nearly as many flows as there may be, without end. A change that takes long does not delay it.
async fn watch_flows(node: Arc<Node>) {
    let mut ticks = tokio::time::interval(LOOK_AT_FLOWS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let node = node.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || node.look_at_flows()).await {
            tracing::error!(%error, "looking at the number of flows failed");
        }
    }
}
