//! Answers that come bit by bit, for commands: each piece is told as it comes. Ctrl-C and SIGTERM ask the node for the end,
//! and what it still has to say is read; a second one ends at once.

use std::io;

use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::Bytes;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

use super::client::{Client, ClientError, PATIENCE, refused, target};
use super::follow::ID_HEADER;

/// Why a stream ended early.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The node.
    #[error("the node cannot be followed")]
    Node(#[from] ClientError),
    /// What the pieces are written to.
    #[error("cannot write what comes")]
    Write(#[source] io::Error),
    /// It was asked to end before the node had answered.
    #[error("ended before the node had answered")]
    Interrupted,
}

impl Client {
    /// Asks with `GET` and tells each piece of the answer as it comes.
    ///
    /// # Errors
    /// [`StreamError`]
    pub fn stream(&self, path: &str, mut piece: impl FnMut(&[u8]) -> io::Result<()>) -> Result<(), StreamError> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| self.broken(error))?;
        runtime.block_on(self.pieces(path, &mut piece))
    }

    async fn pieces(&self, path: &str, piece: &mut impl FnMut(&[u8]) -> io::Result<()>) -> Result<(), StreamError> {
        let mut signals = Signals::new().map_err(|error| self.broken(error))?;
        let (response, connection) = tokio::select! {
            // A node that hangs takes the connection and answers nothing.
            sent = timeout(PATIENCE, self.send(Method::GET, path, Bytes::new())) => {
                sent.map_err(|_| self.broken(format!("no answer in {} s", PATIENCE.as_secs())))??
            }
            () = signals.any() => return Err(StreamError::Interrupted),
        };
        let status = response.status();
        let id = response.headers().get(ID_HEADER).and_then(|id| id.to_str().ok()).map(str::to_owned);
        let mut body = response.into_body();
        if !status.is_success() {
            let body = body.collect().await.map_err(|error| self.broken(error))?.to_bytes();
            return Err(refused(status, &body).into());
        }
        let mut asked = false;
        loop {
            tokio::select! {
                frame = body.frame() => {
                    let Some(frame) = frame else { break };
                    let frame = frame.map_err(|error| self.broken(error))?;
                    if let Some(data) = frame.data_ref() {
                        piece(data).map_err(StreamError::Write)?;
                    }
                }
                () = signals.any() => {
                    let (Some(id), false) = (&id, asked) else { break };
                    asked = true;
                    let target = target(&["v1", "watches", id], &[]);
                    tokio::select! {
                        // Where it has ended by itself meanwhile there is nothing to end.
                        _ = timeout(PATIENCE, self.exchange(Method::DELETE, &target, Bytes::new())) => {}
                        () = signals.any() => break,
                    }
                }
            }
        }
        connection.abort();
        Ok(())
    }
}

/// Signals that end a stream.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
