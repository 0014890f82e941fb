//! Metrics and health over HTTP, for what watches a node from outside: Prometheus, a service manager, a load balancer.
//!
//! | request | answer |
//! |---|---|
//! | `GET /metrics` | all metrics, as [`telemetry::metrics`](crate::telemetry::metrics) names them |
//! | `GET /health` | 200 as long as the control side answers: who gets none restarts the node |
//! | `GET /ready` | 200 where every port has its device and every worker serves it, else 503 with the ports that lack one; 503 also while the node drains |
//!
//! It only tells: nothing can be changed here, and no address of a packet is told. Who may connect is decided by the address
//! that is listened on, so there is none unless asked for, and it is loopback unless said otherwise.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::connections::{self, Limits};
use super::node::Node;
use crate::telemetry::metrics;

/// Where metrics are told if the command line does not say where.
pub const DEFAULT_ADDRESS: &str = "127.0.0.1:9798";

/// How long a connection may take in all: longer than workers are waited for, so that one that hangs is told of.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections at a time; others wait until one ends.
const CONNECTIONS: usize = 16;

/// Why metrics cannot be told.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for metrics; choose another one with --metrics ADDRESS:PORT")]
pub struct MonitorError {
    /// Where it was to listen.
    pub address: SocketAddr,
    /// What the system said.
    source: io::Error,
}

/// Listens; connections wait until [`serve`] takes them.
///
/// # Errors
/// Where the address is not this machine's, is in use, or takes a privilege.
pub(super) fn listen(address: SocketAddr) -> Result<TcpListener, MonitorError> {
    let failed = |source| MonitorError { address, source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// Answers, without end. Each connection gets one answer, within [`PATIENCE`]; so many at a time that whoever can connect cannot
/// use up the descriptors that the node needs for its own.
///
/// # Errors
/// When the listener cannot be taken over by the runtime.
pub(super) async fn serve(node: Arc<Node>, listener: TcpListener) -> io::Result<()> {
    let limits = Limits { purpose: "metrics", connections: CONNECTIONS, patience: PATIENCE };
    connections::serve(listener, router(node), limits).await
}

fn router(node: Arc<Node>) -> Router {
    Router::new()
        .route("/metrics", get(text))
        .route("/health", get(async || "ok\n"))
        .route("/ready", get(ready))
        .fallback(unknown)
        .with_state(node)
}

fn failure(text: String) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn unknown(request: Request) -> Response {
    let text = format!("there is no {}; there are /metrics, /health and /ready\n", request.uri().path());
    (StatusCode::NOT_FOUND, text).into_response()
}

async fn text(State(node): State<Arc<Node>>) -> Response {
    let text = tokio::task::spawn_blocking(move || metrics::text(node.seen())).await;
    match text {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, HeaderValue::from_static(metrics::MEDIA_TYPE))], text).into_response(),
        Ok(Err(error)) => failure(format!("{error}\n")),
        Err(error) => failure(format!("{error}\n")),
    }
}

async fn ready(State(node): State<Arc<Node>>) -> Response {
    match tokio::task::spawn_blocking(move || (node.is_draining(), node.without_device())).await {
        Ok((true, _)) => failure("not ready: draining, no new flows are taken\n".to_owned()),
        Ok((false, ports)) if ports.is_empty() => "ready\n".into_response(),
        Ok((false, ports)) => failure(format!("not ready: no device at {}\n", ports.join(", "))),
        Err(error) => failure(format!("{error}\n")),
    }
}
