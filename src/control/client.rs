//! A client of the control socket for commands: blocking, one connection for each question.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use super::answers::ErrorAnswer;

/// How long a node may take for an answer. Compiling the largest network takes a second or two.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// The largest answer that is read: the effective routes of a subnet with every service are about 3 MB.
const LARGEST_ANSWER: usize = 256 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no node runs on {}: start one with `sidestep run -c FILE`, name its socket with --control, or ask a document \
         with -c FILE",
        .0.display()
    )]
    NoNode(PathBuf),
    /// The socket is not ours to use.
    #[error("no permission to use the control socket {}: use sudo, or the group that owns it", .0.display())]
    Forbidden(PathBuf),
    /// The node refused; the answer says why.
    #[error("{}", .answer.error)]
    Refused {
        /// HTTP status code.
        status: u16,
        /// What the node says.
        answer: ErrorAnswer,
    },
    /// Something on the socket does not talk as a node does.
    #[error("the node on {} does not answer as expected: {reason}", .path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
}

/// A client of one node.
#[derive(Debug, Clone)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    /// A client of the node on this socket; connects only when it asks.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Asks with `GET`. The target is made with [`target`].
    ///
    /// # Errors
    /// [`ClientError`]
    pub fn get<A: DeserializeOwned>(&self, target: &str) -> Result<A, ClientError> {
        self.ask(Method::GET, target, Bytes::new())
    }

    /// Asks with `POST` and an empty body.
    ///
    /// # Errors
    /// [`ClientError`]
    pub fn post<A: DeserializeOwned>(&self, target: &str) -> Result<A, ClientError> {
        self.ask(Method::POST, target, Bytes::new())
    }

    /// Asks with `DELETE`.
    ///
    /// # Errors
    /// [`ClientError`]
    pub fn delete<A: DeserializeOwned>(&self, target: &str) -> Result<A, ClientError> {
        self.ask(Method::DELETE, target, Bytes::new())
    }

    /// Asks with `PUT` and a document.
    ///
    /// # Errors
    /// [`ClientError`]
    pub fn put<A: DeserializeOwned>(&self, target: &str, document: String) -> Result<A, ClientError> {
        self.ask(Method::PUT, target, Bytes::from(document))
    }

    /// Asks with `GET` for lines that come as long as there are any, and gives them to `take` as they come, whole ones and
    /// mostly several; it says whether it wants more.
    ///
    /// # Errors
    /// [`ClientError`], also where the node ends meanwhile in the middle of a line.
    pub fn follow(&self, target: &str, mut take: impl FnMut(&[u8]) -> bool) -> Result<(), ClientError> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| self.broken(error))?;
        runtime.block_on(async {
            let (response, connection) = tokio::time::timeout(PATIENCE, self.send(Method::GET, target, Bytes::new()))
                .await
                .unwrap_or_else(|_| Err(self.broken(format!("no answer in {} s", PATIENCE.as_secs()))))?;
            let status = response.status();
            let mut body = response.into_body();
            if !status.is_success() {
                let body = Limited::new(body, LARGEST_ANSWER).collect().await.map_err(|error| self.broken(error))?;
                return Err(refused(status, &body.to_bytes()));
            }
            let mut waiting = Vec::new();
            while let Some(frame) = body.frame().await {
                let Ok(data) = frame.map_err(|error| self.broken(error))?.into_data() else { continue };
                waiting.extend_from_slice(&data);
                let Some(end) = waiting.iter().rposition(|byte| *byte == b'\n') else { continue };
                let more = waiting.split_off(end + 1);
                if !take(&waiting) {
                    return Ok(());
                }
                waiting = more;
            }
            connection.abort();
            Ok(())
        })
    }

    fn ask<A: DeserializeOwned>(&self, method: Method, target: &str, body: Bytes) -> Result<A, ClientError> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| self.broken(error))?;
        let (status, body) = runtime.block_on(async {
            tokio::time::timeout(PATIENCE, self.exchange(method, target, body))
                .await
                .unwrap_or_else(|_| Err(self.broken(format!("no answer in {} s", PATIENCE.as_secs()))))
        })?;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| self.broken(error));
        }
        Err(refused(status, &body))
    }

    pub(super) async fn exchange(
        &self,
        method: Method,
        target: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let (response, connection) = self.send(method, target, body).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LARGEST_ANSWER)
            .collect()
            .await
            .map_err(|error| self.broken(error))?
            .to_bytes();
        connection.abort();
        Ok((status, body))
    }

    /// Connects.
    pub(super) async fn connect(&self) -> Result<UnixStream, ClientError> {
        UnixStream::connect(&self.path).await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NoNode(self.path.clone()),
            io::ErrorKind::PermissionDenied => ClientError::Forbidden(self.path.clone()),
            _ => self.broken(error),
        })
    }

    /// Sends a request on a connection of its own, which goes on until it is ended.
    pub(super) async fn send(
        &self,
        method: Method,
        target: &str,
        body: Bytes,
    ) -> Result<(Response<Incoming>, JoinHandle<hyper::Result<()>>), ClientError> {
        let stream = self.connect().await?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(error))?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(header::HOST, "sidestep")
            .body(Full::new(body))
            .map_err(|error| self.broken(error))?;
        let response = sender.send_request(request).await.map_err(|error| self.broken(error))?;
        Ok((response, connection))
    }

    pub(super) fn broken(&self, reason: impl ToString) -> ClientError {
        ClientError::Broken { path: self.path.clone(), reason: reason.to_string() }
    }
}

/// What a node says that refuses.
pub(super) fn refused(status: StatusCode, body: &[u8]) -> ClientError {
    let answer = serde_json::from_slice(body).unwrap_or_else(|_| ErrorAnswer {
        error: format!("the node answered {status}: {}", String::from_utf8_lossy(body).trim()),
        mistakes: Vec::new(),
    });
    ClientError::Refused { status: status.as_u16(), answer }
}

/// A request target: path segments and a query, each part escaped.
///
/// ```
/// # use sidestep::control::client::target;
/// assert_eq!(target(&["v1", "routes"], &[("of", "spoke/work load")]), "/v1/routes?of=spoke%2Fwork%20load");
/// ```
pub fn target(segments: &[&str], query: &[(&str, &str)]) -> String {
    let mut target = String::new();
    for segment in segments {
        target.push('/');
        escape(segment, &mut target);
    }
    for (position, (name, value)) in query.iter().enumerate() {
        target.push(if position == 0 { '?' } else { '&' });
        escape(name, &mut target);
        target.push('=');
        escape(value, &mut target);
    }
    target
}

/// Percent-encodes everything but the unreserved characters (RFC 3986 section 2.3).
fn escape(text: &str, target: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            target.push(char::from(byte));
        } else {
            target.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_there_is_said_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none.sock");
        let error = Client::new(&path).get::<serde_json::Value>("/v1/health").unwrap_err();
        assert!(matches!(error, ClientError::NoNode(_)), "{error}");
        assert!(error.to_string().contains("sidestep run -c FILE"), "{error}");

        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let error = Client::new(&path).get::<serde_json::Value>("/v1/health").unwrap_err();
        assert!(matches!(error, ClientError::NoNode(_)), "{error}");
    }

    #[test]
    fn names_survive_in_a_target() {
        assert_eq!(
            target(&["v1", "subnets", "a b", "ü/x"], &[("to", "fd00::1"), ("x", "1&2=3")]),
            "/v1/subnets/a%20b/%C3%BC%2Fx?to=fd00%3A%3A1&x=1%262%3D3"
        );
    }
}
