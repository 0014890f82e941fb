//! Answering over TCP, for metrics and the page: each connection gets one answer, and so many are served at a time that whoever
//! can connect cannot use up the descriptors that the node needs for its own.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;

/// How long a connection may take to say what it wants.
const SILENCE: Duration = Duration::from_secs(1);

/// Time between two attempts to accept a connection where the system refuses.
const BREATH: Duration = Duration::from_millis(100);

/// What connections may have.
pub(super) struct Limits {
    /// What they are for, in the log: `metrics`.
    pub(super) purpose: &'static str,
    /// Connections at a time; others wait until one ends.
    pub(super) connections: usize,
    /// How long one may take in all.
    pub(super) patience: Duration,
}

/// Answers, without end.
///
/// # Errors
/// When the listener, which must not block, cannot be taken over by the runtime.
pub(super) async fn serve(listener: TcpListener, router: Router, limits: Limits) -> io::Result<()> {
    let Limits { purpose, connections, patience } = limits;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let service = TowerToHyperService::new(router);
    let places = Arc::new(Semaphore::new(connections));
    loop {
        // Nobody closes it.
        let Ok(place) = places.clone().acquire_owned().await else { return Ok(()) };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "a connection for {purpose} fails");
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        let mut connection = http1::Builder::new();
        connection.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(SILENCE);
        let connection = connection.serve_connection(TokioIo::new(stream), service.clone());
        tokio::spawn(async move {
            // Who asks too slowly, or goes away, hears nothing.
            let _ = tokio::time::timeout(patience, connection).await;
            drop(place);
        });
    }
}
