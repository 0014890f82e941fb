//! A node from its start to its end.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::time::MissedTickBehavior;

use super::answers::Counters;
use super::devices::KernelDevices;
use super::document::Document;
use super::node::{Loaded, Node, Overrides};
use super::refusal::Refusal;
use super::server;
use super::socket::{self, ControlSocket, SocketError};
use crate::worker;

/// How often the catalogue's file is looked at.
const LOOK_AT_CATALOGUE: Duration = Duration::from_secs(1);

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
    /// End when stdin closes.
    pub end_with_stdin: bool,
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
    /// Threads, signals.
    #[error("cannot run the control side")]
    Control(#[source] io::Error),
    /// What told that the node is ready failed.
    #[error("cannot tell that the node is ready")]
    Ready(#[source] io::Error),
}

/// Runs a node until SIGTERM, SIGINT or, if asked for, the end of stdin. `ready` is called once packets are forwarded and
/// the socket answers. Returns what was counted.
///
/// # Errors
/// [`RunError`]; devices and socket are gone then, too.
pub fn run(
    options: RunOptions,
    ready: impl FnOnce(&Node, &ControlSocket) -> io::Result<()>,
) -> Result<Counters, RunError> {
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

    let loaded = Loaded::load(Document::read(&options.config)?, options.overrides)?;
    let network = loaded.network();
    let path = socket::location(options.control.as_deref(), network.control.as_deref());
    let socket = ControlSocket::bind(&path)?;
    let devices = Box::new(KernelDevices::new(network));
    let settings = worker::Settings::new(network.workers);
    let node = loaded.start(devices, |publisher, ports| worker::Handle::start(publisher, ports, &settings))?;
    let node = Arc::new(node);

    let listener = socket.listener().map_err(RunError::Control)?;
    let (end, ended) = watch::channel(false);
    let server = runtime.spawn(server::serve(node.clone(), listener, ended));
    ready(&node, &socket).map_err(RunError::Ready)?;

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
        }
        let _ = end.send(true);
        match server.await {
            Ok(result) => result.map_err(RunError::Control),
            Err(error) => Err(RunError::Control(io::Error::other(error))),
        }
    });
    runtime.shutdown_timeout(FAREWELL);
    let counters = node.counters();
    drop(node);
    drop(socket);
    result.map(|()| counters)
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
