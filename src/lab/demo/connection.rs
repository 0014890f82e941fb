//! A connection that stays open while the network changes under it: a client in the VM's namespace that asks again and
//! again on one connection, and connects again when it is broken, as an application would.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::DemoError;
use crate::lab::interrupt;
use crate::lab::serve::Seen;
use crate::port::namespace;

/// Milliseconds of pause between two requests, at random, so that several clients do not run in step.
const PAUSE: RangeInclusive<u64> = 10..=30;

/// Pause between two attempts to connect.
const AGAIN: Duration = Duration::from_millis(20);

/// How long the client waits for an answer before it gives a connection up: the application's timeout.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(2);

/// How often whoever waits for an answer looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(50);

/// The largest answer.
const LARGEST: usize = 4096;

/// An answer that the client got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    /// When it was complete.
    pub(super) at: Instant,
    /// The client's address as the server saw it.
    pub(super) source: IpAddr,
    /// The client's own port of the connection that it came on.
    pub(super) port: u16,
}

/// Something that happened to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    /// An answer.
    Answer(Answer),
    /// The connection was reset.
    Reset,
    /// There was no answer for as long as the application waits.
    TimedOut,
    /// The connection broke otherwise, or could not be made.
    Broken(String),
}

/// A client that runs until it is dropped.
#[derive(Debug)]
pub(super) struct Client {
    events: Receiver<Event>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    to: SocketAddr,
    /// How often its connection was reset.
    pub(super) resets: u32,
    /// How often it gave a connection up because no answer came.
    pub(super) timeouts: u32,
    /// Why a connection broke that was not reset.
    broken: Vec<String>,
}

impl Client {
    /// Starts a client in a namespace.
    ///
    /// # Errors
    /// No thread could be started.
    pub(super) fn start(netns: &str, address: IpAddr) -> io::Result<Self> {
        let to = SocketAddr::new(address, 80);
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, events) = mpsc::channel();
        let (stop_too, netns) = (Arc::clone(&stop), netns.to_owned());
        let thread = thread::Builder::new().name(format!("client of {to}")).spawn(move || {
            let ran = namespace::run(Some(&netns), || converse(to, &stop_too, &sender));
            if let Err(error) = ran {
                // Whoever listens is told; nobody may.
                let _ = sender.send(Event::Broken(error.to_string()));
            }
        })?;
        Ok(Self { events, stop, thread: Some(thread), to, resets: 0, timeouts: 0, broken: Vec::new() })
    }

    /// Waits for an answer to a request whose source address at the server is `source`. Resets and breaks on the way
    /// are counted.
    ///
    /// # Errors
    /// There was none in time, or a signal came.
    pub(super) fn wait_for(&mut self, source: IpAddr, patience: Duration) -> Result<Answer, DemoError> {
        let until = Instant::now() + patience;
        loop {
            interrupt::check()?;
            match self.events.recv_timeout(LOOK) {
                Ok(Event::Answer(answer)) if answer.source == source => return Ok(answer),
                Ok(event) => self.count(event),
                Err(RecvTimeoutError::Timeout) if Instant::now() < until => {}
                Err(_) => {
                    let last = self.broken.last().map(|said| format!("; {said}")).unwrap_or_default();
                    return Err(DemoError::Probe {
                        what: format!("the open connection to {}", self.to),
                        said: format!("no answer from there that saw {source} within {} s{last}", patience.as_secs()),
                    });
                }
            }
        }
    }

    /// Stops the client and counts what happened until then.
    pub(super) fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A client that panicked has said so on stderr.
            let _ = thread.join();
        }
        while let Ok(event) = self.events.try_recv() {
            self.count(event);
        }
    }

    /// Says that nothing but resets ended its connections.
    ///
    /// # Errors
    /// Something did; what it was.
    pub(super) fn refuse_breaks(&self) -> Result<(), DemoError> {
        let silence = (self.timeouts > 0).then(|| format!("no answer within {} s", TIMEOUT.as_secs()));
        let reasons: Vec<_> = self.broken.iter().cloned().chain(silence).collect();
        if reasons.is_empty() {
            return Ok(());
        }
        Err(DemoError::Probe {
            what: format!("the open connection to {}", self.to),
            said: format!("nothing but a reset was to end it: {}", reasons.join(", ")),
        })
    }

    fn count(&mut self, event: Event) {
        match event {
            Event::Answer(_) => {}
            Event::Reset => self.resets += 1,
            Event::TimedOut => self.timeouts += 1,
            Event::Broken(why) => self.broken.push(why),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Connects, asks, and connects again, until it is told to stop.
fn converse(to: SocketAddr, stop: &AtomicBool, events: &Sender<Event>) {
    while !stop.load(Ordering::Relaxed) {
        let event = match connect(to).map(|stream| ask(stream, stop, events)) {
            Ok(Ok(())) => continue,
            Ok(Err(error)) if is_reset(&error) => Event::Reset,
            Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Event::TimedOut,
            Ok(Err(error)) | Err(error) => {
                thread::sleep(AGAIN);
                Event::Broken(error.to_string())
            }
        };
        if events.send(event).is_err() {
            return;
        }
    }
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, CONNECT)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

/// Asks on one connection until it breaks or the client is told to stop.
fn ask(mut stream: TcpStream, stop: &AtomicBool, events: &Sender<Event>) -> io::Result<()> {
    let request = format!("GET / HTTP/1.1\r\nhost: {}\r\n\r\n", stream.peer_addr()?);
    let port = stream.local_addr()?.port();
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(request.as_bytes())?;
        let Some(Seen { source, .. }) = read_answer(&mut stream, stop)? else { break };
        if events.send(Event::Answer(Answer { at: Instant::now(), source, port })).is_err() {
            break;
        }
        thread::sleep(Duration::from_millis(fastrand::u64(PAUSE)));
    }
    Ok(())
}

fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

/// Reads one answer, none when the client is told to stop; requests are sent one at a time, so nothing follows it.
fn read_answer(stream: &mut TcpStream, stop: &AtomicBool) -> io::Result<Option<Seen>> {
    let until = Instant::now() + TIMEOUT;
    let mut bytes = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left.min(LOOK)))?;
        let mut piece = [0; 1024];
        match stream.read(&mut piece) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")),
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
            Err(error) if is_pause(&error) => continue,
            Err(error) => return Err(error),
        }
        if let Some(seen) = parse_answer(&bytes)? {
            return Ok(Some(seen));
        }
        if bytes.len() > LARGEST {
            return Err(io::Error::other("the answer is too long"));
        }
    }
    Ok(None)
}

/// Whether nothing came in the time of one look.
fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// The answer in these bytes, none while it is not complete.
fn parse_answer(bytes: &[u8]) -> io::Result<Option<Seen>> {
    let mut fields = [httparse::EMPTY_HEADER; 16];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(start) = head.parse(bytes).map_err(io::Error::other)? else { return Ok(None) };
    if head.code != Some(200) {
        return Err(io::Error::other(format!("HTTP status {}", head.code.unwrap_or(0))));
    }
    let length = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|field| std::str::from_utf8(field.value).ok()?.parse::<usize>().ok());
    let length = length.ok_or_else(|| io::Error::other("the answer has no length"))?;
    let Some(body) = bytes.get(start..).and_then(|rest| rest.get(..length)) else { return Ok(None) };
    Ok(Some(serde_json::from_slice(body)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_when_it_is_complete() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 31\r\n\r\n{\"source\":\"::1\",\"server\":\"web\"}";
        for cut in 0..text.len() {
            assert_eq!(parse_answer(&text[..cut]).expect("not wrong yet"), None, "{cut} bytes");
        }
        let seen = parse_answer(text).expect("good").expect("complete");
        assert_eq!(seen, Seen { source: "::1".parse().expect("address"), server: "web".to_owned() });
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        assert!(parse_answer(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n").is_err());
        assert!(parse_answer(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(parse_answer(b"SSH-2.0-x\r\n").is_err());
        assert!(parse_answer(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").is_err());
    }

    #[test]
    fn a_reset_is_told_from_other_ends() {
        assert!(is_reset(&io::ErrorKind::ConnectionReset.into()));
        assert!(is_reset(&io::ErrorKind::BrokenPipe.into()));
        assert!(!is_reset(&io::ErrorKind::WouldBlock.into()));
        assert!(!is_reset(&io::ErrorKind::ConnectionRefused.into()));
    }
}
