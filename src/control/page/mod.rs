//! The live view: a page that shows a node at work, and lets an endpoint be switched, served over HTTP on loopback.
//!
//! | request | answer |
//! |---|---|
//! | `GET /`, `/page.css`, `/*.js`, `/icon.svg` | the page, embedded in the program; nothing in it is secret |
//! | `GET /api/picture` | the network as it is drawn: [`Picture`](picture::Picture) |
//! | `GET /api/live?since=` | what goes on now: [`Live`](live::Live) |
//! | `GET /api/v1/routes`, `next-hop`, `explain`, `nsg`, `verify` | as on the control socket |
//! | `POST /api/endpoint?subnet=&service=&enabled=&dry_run=true` | [`EndpointAnswer`](super::answers::EndpointAnswer) |
//! | `POST /api/endpoint?subnet=&service=&enabled=&dry_run=false&generation=` | the same; 409 where that generation, which was tried, is not in force any more |
//!
//! # Who may ask
//! Every user of the machine can connect to a loopback address, and so can every web page that one of them looks at. So
//! `/api/` answers only who knows the token of this start, which stands in the URL that is printed (`access.rs`), and the
//! page loads nothing from elsewhere and lets nobody frame it (`assets.rs`).
//!
//! # What it costs
//! Nothing while nobody looks. Workers are asked at most once in [`live::INTERVAL`], however many look (for a second after a
//! change more often), and tell a bounded number of flows.

mod access;
mod assets;
pub mod live;
pub mod picture;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::middleware;
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};

use super::connections::{self, Limits};
use super::node::Node;
use super::refusal::Refusal;
use super::server::{self, Answer};
use access::Token;
use live::Watch;

/// Where the page is if the command line does not say where.
pub const DEFAULT_ADDRESS: &str = "127.0.0.1:9799";

/// How long a connection may take in all: a dry run waits up to 45 s for workers with a million flows.
const PATIENCE: Duration = Duration::from_secs(60);

/// Connections at a time; others wait until one ends. A browser opens up to six.
const CONNECTIONS: usize = 32;

/// Who asks for changes, as the history has it.
const WHO: &str = "page";

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// Others than this machine could connect.
    #[error(
        "{0} is not a loopback address, and the page is for this machine alone; from another one use \
         `ssh -L {port}:127.0.0.1:{port} HOST`", port = .0.port()
    )]
    NotLoopback(SocketAddr),
    /// The address cannot be listened on.
    #[error("cannot listen on {address} for the page; choose another one with --page ADDRESS:PORT")]
    Listen {
        /// Where it was to listen.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The system has no random numbers.
    #[error("cannot make the page's token")]
    Token(#[source] io::Error),
}

/// A page that is listened for and not yet served.
#[derive(Debug)]
pub struct Page {
    listener: TcpListener,
    address: SocketAddr,
    token: Token,
}

impl Page {
    /// Listens; connections wait until the page is served.
    ///
    /// # Errors
    /// [`PageError`]; also where the address is in use, or takes a privilege.
    pub fn listen(address: SocketAddr) -> Result<Self, PageError> {
        if !address.ip().is_loopback() {
            return Err(PageError::NotLoopback(address));
        }
        let failed = |source| PageError::Listen { address, source };
        let token = Token::random().map_err(PageError::Token)?;
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, token })
    }

    /// Where the page is, with the token behind `#`, which browsers do not send.
    pub fn url(&self) -> String {
        format!("http://{}/#{}", self.address, self.token.as_str())
    }

    /// Answers, without end. Each connection gets one answer, and so many are served at a time that whoever can connect
    /// cannot use up the descriptors that the node needs for its own.
    ///
    /// # Errors
    /// When the listener cannot be taken over by the runtime.
    pub(super) async fn serve(self, node: Arc<Node>) -> io::Result<()> {
        let limits = Limits { purpose: "the page", connections: CONNECTIONS, patience: PATIENCE };
        connections::serve(self.listener, router(node, self.token), limits).await
    }
}

/// What the page's own questions are asked of.
#[derive(Clone)]
struct Served {
    node: Arc<Node>,
    watch: Arc<Watch>,
}

fn router(node: Arc<Node>, token: Token) -> Router {
    let served = Served { node: node.clone(), watch: Arc::default() };
    let own = Router::new()
        .route("/picture", get(picture))
        .route("/live", get(live))
        .route("/endpoint", post(endpoint))
        .with_state(served);
    let api = Router::new()
        .merge(own)
        .merge(server::questions().with_state(node))
        .fallback(server::unknown)
        .method_not_allowed_fallback(server::not_allowed);
    Router::new()
        .nest("/api", api)
        .fallback(assets::answer)
        .layer(middleware::from_fn_with_state(Arc::new(token), access::guard))
        .layer(middleware::map_response(assets::guarded))
}

async fn picture(State(served): State<Served>) -> Answer<impl Serialize> {
    server::ask(served.node, |node| Ok(picture::picture(node))).await
}

#[derive(Deserialize)]
struct LiveQuery {
    /// Moments since then, in milliseconds since 1970, are left out of the answer.
    #[serde(default)]
    since: u64,
}

async fn live(
    State(Served { node, watch }): State<Served>,
    query: Result<Query<LiveQuery>, QueryRejection>,
) -> Answer<impl Serialize> {
    let Query(LiveQuery { since }) = query?;
    server::ask(node, move |node| Ok(watch.look(node, since))).await
}

#[derive(Deserialize)]
struct EndpointQuery {
    subnet: String,
    service: String,
    enabled: bool,
    dry_run: bool,
    /// The generation of the dry run: who switches has seen what that does.
    generation: Option<u64>,
}

async fn endpoint(
    State(served): State<Served>,
    query: Result<Query<EndpointQuery>, QueryRejection>,
) -> Answer<impl Serialize> {
    let Query(EndpointQuery { subnet, service, enabled, dry_run, generation }) = query?;
    server::ask(served.node, move |node| match (dry_run, generation) {
        (true, _) => node.try_endpoint(&subnet, &service, enabled),
        (false, Some(generation)) => node.set_endpoint_as_tried(generation, WHO, &subnet, &service, enabled),
        (false, None) => {
            Err(Refusal::Malformed("a switch says which `generation` was tried: that of a dry run".to_owned()))
        }
    })
    .await
}
