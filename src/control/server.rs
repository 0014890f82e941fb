//! HTTP and JSON over the control socket. Every answer is made on a thread that may block; connections are served by
//! two threads of their own, so that a slow client keeps nobody waiting but itself.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/health` | [`Health`](super::answers::Health) |
//! | `GET /v1/status` | [`Status`](super::answers::Status) |
//! | `GET /v1/routes?of=` | the effective routes of a NIC or subnet |
//! | `GET /v1/next-hop?from=&to=&protocol=` | the next hop and every candidate |
//! | `GET /v1/explain?from=&to=&protocol=&port=` | [`ExplainAnswer`](super::explain::ExplainAnswer) |
//! | `GET /v1/nsg?of=` | the network security groups of a NIC or subnet |
//! | `GET /v1/verify?from=&to=&direction=&protocol=&port=&local_port=&remote_port=` | [`VerifyAnswer`](super::verify::VerifyAnswer) |
//! | `GET /v1/flows?limit=` | [`FlowsAnswer`](super::answers::FlowsAnswer) |
//! | `GET /v1/flow-log?limit=` | [`FlowLogAnswer`](super::flow_log::FlowLogAnswer) |
//! | `GET /v1/flow-log?follow=true` | a [`FlowLogLine`](super::flow_log::FlowLogLine) for each record from now on |
//! | `GET /v1/top?watcher=&limit=&path=&by=&filter=` | [`TopAnswer`](super::top::TopAnswer) |
//! | `GET /v1/counters` | [`Counters`](super::answers::Counters) |
//! | `GET /v1/trace?from=&to=&protocol=&port=&both=&count=&timeout=` | a [`TraceLine`](crate::telemetry::trace::TraceLine) a line, as packets come |
//! | `GET /v1/capture?…&what=&snaplen=` | a pcapng file, as packets come |
//! | `DELETE /v1/watches/{id}` | ends a trace or capture, whose answer names its id in a header |
//! | `PUT /v1/document?path=&dry_run=` | [`DocumentAnswer`](super::answers::DocumentAnswer) |
//! | `PUT /v1/catalogue?path=&dry_run=` | [`DocumentAnswer`](super::answers::DocumentAnswer) |
//! | `POST`, `DELETE /v1/subnets/{network}/{subnet}/endpoints/{service}?dry_run=` | [`EndpointAnswer`](super::answers::EndpointAnswer) |
//! | `POST`, `DELETE /v1/drain` | [`DrainAnswer`](super::answers::DrainAnswer) |
//! | `GET /v1/support` | [`SupportAnswer`](super::support::SupportAnswer) |
//!
//! Errors are an [`ErrorAnswer`] with status 400 (malformed), 404 (unknown name), 408 (too slow), 409 (not as things
//! are), 413 (too large), 422 (a document with mistakes) or 500 (a device or file failed).

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::serve::IncomingStream;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::sync::watch;

use super::answers::{ErrorAnswer, ExplainQuery, VerifyQuery};
use super::follow;
use super::node::Node;
use super::refusal::Refusal;
use super::top::TopQuery;

/// The largest document that is read: a thousand networks of a thousand routes fit.
pub(crate) const LARGEST_DOCUMENT: usize = 16 << 20;

/// How long a request may take to arrive and be answered.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the end waits for answers that are under way.
const FAREWELL: Duration = Duration::from_secs(2);

/// Flows that are answered if the request does not say how many.
const DEFAULT_FLOWS: usize = 1000;

/// Serves a node until `end` turns true, and a little longer for the answers under way.
///
/// # Errors
/// When the listener cannot be taken over by the runtime.
pub(crate) async fn serve(
    node: Arc<Node>,
    listener: std::os::unix::net::UnixListener,
    mut end: watch::Receiver<bool>,
) -> io::Result<()> {
    let listener = UnixListener::from_std(listener)?;
    let service = router(node.clone()).into_make_service_with_connect_info::<Caller>();
    let mut ended = end.clone();
    let server = axum::serve(listener, service).with_graceful_shutdown(async move {
        // An error says that the sender is gone, which is an end, too.
        let _ = ended.wait_for(|end| *end).await;
        node.end_follows();
    });
    tokio::select! {
        result = server.into_future() => result,
        () = async { let _ = end.wait_for(|end| *end).await; tokio::time::sleep(FAREWELL).await; } => Ok(()),
    }
}

/// Questions about packets that are never sent, which the [page](super::page) asks, too.
pub(super) fn questions() -> Router<Arc<Node>> {
    Router::new()
        .route("/v1/routes", get(routes))
        .route("/v1/next-hop", get(next_hop))
        .route("/v1/explain", get(explain))
        .route("/v1/nsg", get(nsg))
        .route("/v1/verify", get(verify))
}

fn router(node: Arc<Node>) -> Router {
    questions()
        .route("/v1/health", get(health))
        .route("/v1/status", get(status))
        .route("/v1/flows", get(flows))
        .route("/v1/denials", get(denials))
        .route("/v1/flow-log", get(flow_log))
        .route("/v1/top", get(top))
        .route("/v1/counters", get(counters))
        .route("/v1/document", put(document))
        .route("/v1/catalogue", put(catalogue))
        .merge(follow::routes())
        .route("/v1/subnets/{network}/{subnet}/endpoints/{service}", post(enable).delete(disable))
        .route("/v1/drain", post(drain).delete(end_drain))
        .route("/v1/support", get(support))
        .fallback(unknown)
        .method_not_allowed_fallback(not_allowed)
        .layer(middleware::from_fn(bounded))
        .layer(DefaultBodyLimit::max(LARGEST_DOCUMENT))
        .with_state(node)
}

/// Who is at the other end of a connection, as the kernel says.
#[derive(Debug, Clone)]
struct Caller(String);

impl Connected<IncomingStream<'_, UnixListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self(match stream.io().peer_cred() {
            Ok(peer) => match peer.pid() {
                Some(pid) => format!("uid {} pid {pid}", peer.uid()),
                None => format!("uid {}", peer.uid()),
            },
            Err(_) => "unknown".to_owned(),
        })
    }
}

/// An error on its way out.
pub(super) struct Failure(StatusCode, ErrorAnswer);

impl Failure {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self(status, ErrorAnswer { error: error.into(), mistakes: Vec::new() })
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self(status, refusal.answer())
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<BytesRejection> for Failure {
    fn from(rejection: BytesRejection) -> Self {
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => too_large(),
            status => Self::new(status, rejection.body_text()),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

pub(super) type Answer<T> = Result<Json<T>, Failure>;

/// Asks the node on a thread that may block.
pub(super) async fn ask<T: Send + 'static>(
    node: Arc<Node>,
    question: impl FnOnce(&Node) -> Result<T, Refusal> + Send + 'static,
) -> Answer<T> {
    match tokio::task::spawn_blocking(move || question(&node)).await {
        Ok(answer) => Ok(Json(answer?)),
        Err(error) => {
            Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the node failed to answer: {error}")))
        }
    }
}

/// Refuses at once what says that it is too large, and in the end what takes too long.
async fn bounded(request: Request, next: Next) -> Response {
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: u64| length > LARGEST_DOCUMENT as u64) {
        return too_large().into_response();
    }
    match tokio::time::timeout(PATIENCE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            Failure::new(StatusCode::REQUEST_TIMEOUT, format!("no answer in {} s", PATIENCE.as_secs())).into_response()
        }
    }
}

fn too_large() -> Failure {
    let text = format!("the document is larger than {LARGEST_DOCUMENT} bytes");
    Failure::new(StatusCode::PAYLOAD_TOO_LARGE, text)
}

pub(super) async fn unknown(request: Request) -> Failure {
    Failure::new(StatusCode::NOT_FOUND, format!("there is no {}", request.uri().path()))
}

pub(super) async fn not_allowed(request: Request) -> Failure {
    let (method, path) = (request.method(), request.uri().path());
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, format!("{path} does not take {method}"))
}

async fn health(State(node): State<Arc<Node>>) -> impl IntoResponse {
    Json(node.health())
}

async fn status(State(node): State<Arc<Node>>) -> Answer<impl Serialize> {
    ask(node, |node| Ok(node.status())).await
}

#[derive(Deserialize)]
struct NameQuery {
    of: String,
}

async fn routes(
    State(node): State<Arc<Node>>,
    query: Result<Query<NameQuery>, QueryRejection>,
) -> Answer<impl Serialize> {
    let Query(NameQuery { of }) = query?;
    ask(node, move |node| node.routes(&of)).await
}

async fn nsg(State(node): State<Arc<Node>>, query: Result<Query<NameQuery>, QueryRejection>) -> Answer<impl Serialize> {
    let Query(NameQuery { of }) = query?;
    ask(node, move |node| node.network_security_groups(&of)).await
}

async fn verify(
    State(node): State<Arc<Node>>,
    query: Result<Query<VerifyQuery>, QueryRejection>,
) -> Answer<impl Serialize> {
    let Query(query) = query?;
    ask(node, move |node| node.verify(&query)).await
}

#[derive(Deserialize)]
struct NextHopQuery {
    from: String,
    to: String,
    protocol: Option<String>,
}

async fn next_hop(
    State(node): State<Arc<Node>>,
    query: Result<Query<NextHopQuery>, QueryRejection>,
) -> Answer<impl Serialize> {
    let Query(NextHopQuery { from, to, protocol }) = query?;
    ask(node, move |node| node.next_hop(&from, &to, protocol.as_deref())).await
}

async fn explain(
    State(node): State<Arc<Node>>,
    query: Result<Query<ExplainQuery>, QueryRejection>,
) -> Answer<impl Serialize> {
    let Query(query) = query?;
    ask(node, move |node| node.explain(&query)).await
}

#[derive(Deserialize)]
struct FlowsQuery {
    limit: Option<usize>,
}

async fn flows(
    State(node): State<Arc<Node>>,
    query: Result<Query<FlowsQuery>, QueryRejection>,
) -> Answer<impl Serialize> {
    let Query(FlowsQuery { limit }) = query?;
    ask(node, move |node| Ok(node.flows(limit.unwrap_or(DEFAULT_FLOWS)))).await
}

async fn denials(
    State(node): State<Arc<Node>>,
    query: Result<Query<FlowsQuery>, QueryRejection>,
) -> Answer<impl Serialize> {
    let Query(FlowsQuery { limit }) = query?;
    ask(node, move |node| Ok(node.denials(limit.unwrap_or(DEFAULT_FLOWS)))).await
}

#[derive(Deserialize)]
struct FlowLogQuery {
    limit: Option<usize>,
    #[serde(default)]
    follow: bool,
}

async fn flow_log(
    State(node): State<Arc<Node>>,
    query: Result<Query<FlowLogQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(FlowLogQuery { limit, follow }) = query?;
    if follow {
        let Json(lines) = ask(node, |node| node.follow_flow_log()).await?;
        return Ok(Response::new(Body::new(lines)));
    }
    Ok(ask(node, move |node| Ok(node.flow_log(limit.unwrap_or(DEFAULT_FLOWS)))).await?.into_response())
}

async fn top(State(node): State<Arc<Node>>, query: Result<Query<TopQuery>, QueryRejection>) -> Answer<impl Serialize> {
    let Query(query) = query?;
    ask(node, move |node| node.top(&query)).await
}

async fn counters(State(node): State<Arc<Node>>) -> Answer<impl Serialize> {
    ask(node, |node| Ok(node.counters())).await
}

#[derive(Deserialize)]
struct DocumentQuery {
    path: Option<PathBuf>,
    #[serde(default)]
    dry_run: bool,
}

async fn document(
    State(node): State<Arc<Node>>,
    ConnectInfo(Caller(who)): ConnectInfo<Caller>,
    query: Result<Query<DocumentQuery>, QueryRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Answer<impl Serialize> {
    let Query(DocumentQuery { path, dry_run }) = query?;
    let body = body?;
    ask(node, move |node| {
        let text = std::str::from_utf8(&body)
            .map_err(|error| Refusal::Malformed(format!("the document is not UTF-8: {error}")))?;
        if dry_run { node.try_document(text, path.as_deref()) } else { node.apply(&who, text, path.as_deref()) }
    })
    .await
}

#[derive(Deserialize)]
struct CatalogueQuery {
    path: PathBuf,
    #[serde(default)]
    dry_run: bool,
}

async fn catalogue(
    State(node): State<Arc<Node>>,
    ConnectInfo(Caller(who)): ConnectInfo<Caller>,
    query: Result<Query<CatalogueQuery>, QueryRejection>,
) -> Answer<impl Serialize> {
    let Query(CatalogueQuery { path, dry_run }) = query?;
    ask(node, move |node| if dry_run { node.try_catalogue(&path) } else { node.apply_catalogue(&who, &path) }).await
}

async fn drain(State(node): State<Arc<Node>>, ConnectInfo(Caller(who)): ConnectInfo<Caller>) -> Answer<impl Serialize> {
    ask(node, move |node| Ok(node.drain(&who, true))).await
}

async fn end_drain(
    State(node): State<Arc<Node>>,
    ConnectInfo(Caller(who)): ConnectInfo<Caller>,
) -> Answer<impl Serialize> {
    ask(node, move |node| Ok(node.drain(&who, false))).await
}

async fn support(State(node): State<Arc<Node>>) -> Answer<impl Serialize> {
    ask(node, |node| Ok(node.support())).await
}

type EndpointPath = Path<(String, String, String)>;

#[derive(Deserialize)]
struct SwitchQuery {
    #[serde(default)]
    dry_run: bool,
}

async fn enable(
    State(node): State<Arc<Node>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(endpoint): EndpointPath,
    query: Result<Query<SwitchQuery>, QueryRejection>,
) -> Answer<impl Serialize> {
    switch(node, caller, endpoint, query?.0, true).await
}

async fn disable(
    State(node): State<Arc<Node>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(endpoint): EndpointPath,
    query: Result<Query<SwitchQuery>, QueryRejection>,
) -> Answer<impl Serialize> {
    switch(node, caller, endpoint, query?.0, false).await
}

async fn switch(
    node: Arc<Node>,
    Caller(who): Caller,
    (network, subnet, service): (String, String, String),
    SwitchQuery { dry_run }: SwitchQuery,
    enabled: bool,
) -> Answer<impl Serialize> {
    let subnet = format!("{network}/{subnet}");
    ask(node, move |node| {
        if dry_run {
            node.try_endpoint(&subnet, &service, enabled)
        } else {
            node.set_endpoint(&who, &subnet, &service, enabled)
        }
    })
    .await
}
