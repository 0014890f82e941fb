//! The web server of the lab: a small HTTP/1.1 server, plain and over TLS, that answers with the source address it sees.
//! It is there so that a client learns how its packets look on the other side.
//!
//! `GET /` answers `{"source":"10.1.1.4","server":"contosodata"}`, or as a line of text where the request's `Accept`
//! prefers `text/plain`; `GET /bytes/1000` answers so many bytes. Who answers follows from the request's `Host`, else from
//! the address. Connections stay open as HTTP/1.1 has it (RFC 9112 section 9.3), so that a client can watch one over a
//! change of the network. Ports where services answer whom they deny are served, too (`refusal`).

use std::io::{self, BufWriter, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use ipnet::IpNet;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde::{Deserialize, Serialize};

use super::certificate;
use super::refusal::{Language, Refusals};
use super::state::NAMESPACES;

pub use super::refusal::Refusal;

/// The ports that it listens on: plain, and TLS.
pub(super) const PLAIN: u16 = 80;
pub(super) const TLS: u16 = 443;

/// The most bytes of a request's head, and the most header fields.
const LARGEST_HEAD: usize = 8 << 10;
const MOST_FIELDS: usize = 64;

/// The most connections at a time; a thread each.
const MOST_CONNECTIONS: usize = 256;

/// How long a connection may be silent.
const SILENCE: Duration = Duration::from_secs(60);

/// The most bytes that a client may ask for: 1 GiB, a second or two of a fast path.
const MOST_BYTES: u64 = 1 << 30;

/// How long a client that was refused may go on sending before the connection is closed over it.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How often the server looks whether its namespace still has its name.
const WATCH: Duration = Duration::from_millis(500);

/// Who answers on an address or for a host name: `ADDRESS=NAME` or `HOST=NAME` on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// What it answers for.
    pub subject: Subject,
    /// The name in its answers.
    pub name: String,
}

/// What a site answers for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// An address of the server.
    Address(IpAddr),
    /// A host name that requests give.
    Host(String),
}

impl std::str::FromStr for Site {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (subject, name) = text.split_once('=').ok_or("expected ADDRESS=NAME or HOST=NAME")?;
        let subject = match subject.parse() {
            Ok(address) => Subject::Address(address),
            Err(_) if subject.is_empty() => return Err("there is no address or host before the `=`".to_owned()),
            Err(_) => Subject::Host(subject.to_owned()),
        };
        Ok(Self { subject, name: name.to_owned() })
    }
}

/// What the server answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The source address of the request's connection.
    pub source: IpAddr,
    /// The name of the site.
    pub server: String,
}

/// What a server of a namespace needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// The namespace that the process is in.
    pub netns: String,
    /// Who answers.
    pub sites: Vec<Site>,
    /// Where services answer whom they deny.
    pub refusals: Vec<Refusal>,
    /// The addresses of callers that come over an endpoint.
    pub endpoint_sources: Vec<IpNet>,
    /// The folder of the lab: the certificate authority, and the server's log, `NETNS.log`.
    pub folder: PathBuf,
}

/// What the connections of a server share.
#[derive(Debug)]
struct Shared {
    sites: Vec<Site>,
    refusals: Refusals,
    open: AtomicUsize,
}

/// What is spoken on a port.
#[derive(Debug, Clone)]
enum Service {
    Plain,
    Tls(Arc<ServerConfig>),
    Refusing,
}

/// Serves in the namespace that the process is in, until the namespace's name is removed. Calls `ready` when it
/// listens.
///
/// # Errors
/// When it cannot listen or accept.
pub fn serve(options: Options, ready: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let Options { netns, sites, refusals, endpoint_sources, folder } = options;
    let refusals = Refusals::open(refusals, endpoint_sources, &folder.join(format!("{netns}.log")))?;
    let tls = Service::Tls(certificate::server_config(&folder)?);
    let mut listeners = vec![(listen(PLAIN)?, Service::Plain), (listen(TLS)?, tls)];
    for port in refusals.ports() {
        listeners.push((listen(port)?, Service::Refusing));
    }
    ready()?;
    let shared = Arc::new(Shared { sites, refusals, open: AtomicUsize::new(0) });
    for (listener, service) in listeners {
        let shared = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &service, &shared));
    }
    let name = Path::new(NAMESPACES).join(netns);
    while name.exists() {
        thread::sleep(WATCH);
    }
    Ok(())
}

/// Listens on all addresses: those of services come and go with the node. Where the kernel has no IPv6, that is the IPv4
/// ones.
fn listen(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
        .or_else(|_| TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))))
}

fn accept(listener: &TcpListener, service: &Service, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            // A connection that ended before it was taken, or no descriptors: both pass.
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        if shared.open.fetch_add(1, Ordering::Relaxed) >= MOST_CONNECTIONS {
            shared.open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (service, shared) = (service.clone(), Arc::clone(shared));
        thread::spawn(move || {
            // A client that breaks its connection concerns nobody else.
            let _ = serve_connection(stream, service, &shared);
            shared.open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn serve_connection(stream: TcpStream, service: Service, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    let local = stream.local_addr()?.ip().to_canonical();
    let source = stream.peer_addr()?.ip().to_canonical();
    match service {
        Service::Plain => converse(stream, local, source, &shared.sites),
        Service::Tls(config) => {
            let connection = ServerConnection::new(config).map_err(io::Error::other)?;
            converse(StreamOwned::new(connection, stream), local, source, &shared.sites)
        }
        Service::Refusing => refuse(stream, local, source, shared),
    }
}

/// Answers the requests of one connection until either side ends it.
fn converse(mut stream: impl Read + Write, local: IpAddr, source: IpAddr, sites: &[Site]) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let Some(request) = read_request(&mut stream, &mut buffer)? else { return Ok(()) };
        let server = server(&request, local, sites);
        let response = respond(&request, &Seen { source, server });
        let keep = response.keep;
        response.write(&mut BufWriter::new(&mut stream))?;
        if !keep {
            return Ok(());
        }
    }
}

/// Answers whom the firewall of a service denies.
fn refuse(mut stream: TcpStream, local: IpAddr, source: IpAddr, shared: &Shared) -> io::Result<()> {
    let at = SocketAddr::new(local, stream.local_addr()?.port());
    match shared.refusals.language(at) {
        None => Ok(()),
        Some(Language::Sql) => shared.refusals.refuse_sql(&name_at(local, &shared.sites), source),
        Some(Language::Http) => {
            let Some(request) = read_request(&mut stream, &mut Vec::new())? else { return Ok(()) };
            let is_head = matches!(request, Request::Good { is_head: true, .. });
            let server = server(&request, local, &shared.sites);
            shared.refusals.refuse_http(&server, source, is_head, &mut stream)?;
            // Closing over what was not read would reset the connection, and the client might lose the answer.
            stream.shutdown(Shutdown::Write)?;
            stream.set_read_timeout(Some(LAST_WORDS))?;
            io::copy(&mut stream.take(LARGEST_HEAD as u64), &mut io::sink()).map(|_| ())
        }
    }
}

/// The name of the site at an address.
fn name_at(local: IpAddr, sites: &[Site]) -> String {
    let found = sites.iter().find(|site| site.subject == Subject::Address(local));
    found.map_or_else(String::new, |site| site.name.clone())
}

/// Who answers a request that came to an address.
fn server(request: &Request, local: IpAddr, sites: &[Site]) -> String {
    let host = match request {
        Request::Good { host, .. } => host.as_deref(),
        Request::Bad(_) => None,
    };
    let of_host = |site: &&Site| match (&site.subject, host) {
        (Subject::Host(name), Some(host)) => name.eq_ignore_ascii_case(host),
        _ => false,
    };
    sites.iter().find(of_host).map_or_else(|| name_at(local, sites), |site| site.name.clone())
}

/// What matters of a request.
#[derive(Debug, PartialEq, Eq)]
enum Request {
    Good {
        /// The host that it is for, without port.
        host: Option<String>,
        is_get: bool,
        is_head: bool,
        wanted: Wanted,
        wants_text: bool,
        keep: bool,
    },
    /// Not HTTP, too long, or with a body, which nobody sends to this server.
    Bad(&'static str),
}

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// The source of the connection.
    Source,
    /// So many bytes.
    Bytes(u64),
    /// What there is not.
    Nothing,
}

impl Wanted {
    fn of(path: &str) -> Self {
        if path == "/" || path.starts_with("/?") {
            return Self::Source;
        }
        let count = path.strip_prefix("/bytes/").and_then(|count| count.parse().ok());
        count.filter(|count| *count <= MOST_BYTES).map_or(Self::Nothing, Self::Bytes)
    }
}

/// Reads one request's head from a connection; `buffer` holds what was read beyond it. None at the connection's end.
fn read_request(reader: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<Option<Request>> {
    loop {
        if let Some((request, length)) = parse(buffer) {
            buffer.drain(..length);
            return Ok(Some(request));
        }
        if buffer.len() >= LARGEST_HEAD {
            return Ok(Some(Request::Bad("431 Request Header Fields Too Large")));
        }
        let mut piece = [0; 2048];
        let count = match reader.read(&mut piece) {
            Ok(0) => return Ok(None),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        buffer.extend_from_slice(&piece[..count]);
    }
}

/// A request and the bytes of its head, if it is complete.
fn parse(buffer: &[u8]) -> Option<(Request, usize)> {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut head = httparse::Request::new(&mut fields);
    let length = match head.parse(buffer) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return None,
        Err(httparse::Error::TooManyHeaders) => {
            return Some((Request::Bad("431 Request Header Fields Too Large"), buffer.len()));
        }
        Err(_) => return Some((Request::Bad("400 Bad Request"), buffer.len())),
    };
    let values = |name: &'static str| {
        head.headers.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    };
    let has = |name, word: &str| {
        values(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .any(|item| item.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
    };
    let has_body = values("transfer-encoding").next().is_some() || values("content-length").any(|value| value != b"0");
    if has_body {
        return Some((Request::Bad("413 Content Too Large"), length));
    }
    // HTTP/1.0 closes unless asked to keep, HTTP/1.1 keeps unless asked to close (RFC 9112 section 9.3).
    let keep = if head.version == Some(0) { has("connection", "keep-alive") } else { !has("connection", "close") };
    let host = values("host").next().and_then(|value| std::str::from_utf8(value).ok());
    let request = Request::Good {
        host: host.map(|host| host.split_once(':').map_or(host, |(host, _)| host).to_owned()),
        is_get: head.method == Some("GET"),
        is_head: head.method == Some("HEAD"),
        wanted: Wanted::of(head.path.unwrap_or_default()),
        wants_text: has("accept", "text/plain"),
        keep,
    };
    Some((request, length))
}

/// A response about to be written.
#[derive(Debug, PartialEq, Eq)]
struct Response {
    status: &'static str,
    kind: &'static str,
    body: String,
    /// How many zeros follow the body.
    zeros: u64,
    without_body: bool,
    keep: bool,
}

fn respond(request: &Request, seen: &Seen) -> Response {
    let text = |status: &'static str, body: String, keep: bool, without_body: bool| Response {
        status,
        kind: "text/plain; charset=utf-8",
        body,
        zeros: 0,
        without_body,
        keep,
    };
    match *request {
        Request::Bad(status) => text(status, format!("{status}\n"), false, false),
        Request::Good { is_get, is_head, keep, .. } if !is_get && !is_head => {
            text("405 Method Not Allowed", "only GET and HEAD\n".to_owned(), keep, false)
        }
        Request::Good { wanted: Wanted::Nothing, is_head, keep, .. } => {
            text("404 Not Found", format!("there is only / and /bytes/COUNT up to {MOST_BYTES}\n"), keep, is_head)
        }
        Request::Good { wanted: Wanted::Bytes(zeros), is_head, keep, .. } => Response {
            status: "200 OK",
            kind: "application/octet-stream",
            body: String::new(),
            zeros,
            without_body: is_head,
            keep,
        },
        Request::Good { wants_text: true, is_head, keep, .. } => {
            text("200 OK", format!("{} sees {}\n", seen.server, seen.source), keep, is_head)
        }
        Request::Good { is_head, keep, .. } => {
            // An address and a string always are JSON.
            let body = serde_json::to_string(seen).unwrap_or_default() + "\n";
            Response { status: "200 OK", kind: "application/json", body, zeros: 0, without_body: is_head, keep }
        }
    }
}

impl Response {
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { status, kind, body, .. } = self;
        let length = body.len() as u64 + self.zeros;
        write!(out, "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n")?;
        if status.starts_with("405") {
            write!(out, "allow: GET, HEAD\r\n")?;
        }
        write!(out, "connection: {}\r\n\r\n", if self.keep { "keep-alive" } else { "close" })?;
        if !self.without_body {
            write!(out, "{body}")?;
            io::copy(&mut io::repeat(0).take(self.zeros), out)?;
        }
        out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Seen {
        Seen { source: "10.1.1.4".parse().expect("address"), server: "contosodata".to_owned() }
    }

    /// The responses to all requests in `bytes`, which arrive in pieces of `piece` bytes.
    fn answers(bytes: &[u8], piece: usize) -> Vec<Response> {
        struct Pieces<'a>(&'a [u8], usize);
        impl Read for Pieces<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let count = self.1.min(self.0.len()).min(buffer.len());
                let (now, later) = self.0.split_at(count);
                buffer[..count].copy_from_slice(now);
                self.0 = later;
                Ok(count)
            }
        }
        let mut reader = Pieces(bytes, piece);
        let mut buffer = Vec::new();
        let mut all = Vec::new();
        while let Some(request) = read_request(&mut reader, &mut buffer).expect("memory") {
            all.push(respond(&request, &seen()));
            if !all.last().is_some_and(|response| response.keep) {
                break;
            }
        }
        all
    }

    fn written(response: &Response) -> String {
        let mut bytes = Vec::new();
        response.write(&mut bytes).expect("memory");
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn the_answer_is_the_source_as_json() {
        let all = answers(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 4096);
        assert_eq!(all.len(), 1);
        assert_eq!(
            written(&all[0]),
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 45\r\nconnection: keep-alive\r\n\r\n\
             {\"source\":\"10.1.1.4\",\"server\":\"contosodata\"}\n"
        );
    }

    #[test]
    fn or_as_text() {
        let all = answers(b"GET /?x HTTP/1.1\r\naccept: text/html, text/plain\r\n\r\n", 4096);
        assert!(written(&all[0]).ends_with("\r\n\r\ncontosodata sees 10.1.1.4\n"));
    }

    #[test]
    fn requests_of_a_connection_are_answered_in_turn_however_they_arrive() {
        let bytes = b"GET / HTTP/1.1\r\n\r\nHEAD / HTTP/1.1\r\n\r\nGET /x HTTP/1.1\r\nConnection: Close\r\n\r\nGET / HTTP/1.1\r\n\r\n";
        for piece in [1, 7, 4096] {
            let all = answers(bytes, piece);
            let statuses: Vec<_> = all.iter().map(|response| (response.status, response.keep)).collect();
            assert_eq!(statuses, [("200 OK", true), ("200 OK", true), ("404 Not Found", false)], "pieces of {piece}");
            assert!(written(&all[1]).ends_with("\r\n\r\n"), "HEAD has no body");
        }
    }

    #[test]
    fn as_many_bytes_come_as_were_asked_for() {
        let all = answers(b"GET /bytes/3 HTTP/1.1\r\n\r\nHEAD /bytes/70000 HTTP/1.1\r\n\r\n", 4096);
        assert!(written(&all[0]).ends_with("content-length: 3\r\nconnection: keep-alive\r\n\r\n\0\0\0"));
        assert!(written(&all[1]).ends_with("content-length: 70000\r\nconnection: keep-alive\r\n\r\n"));
        assert_eq!(answers(b"GET /bytes/1073741825 HTTP/1.1\r\n\r\n", 4096)[0].status, "404 Not Found");
    }

    #[test]
    fn http_1_0_closes_unless_asked() {
        assert!(!answers(b"GET / HTTP/1.0\r\n\r\n", 4096)[0].keep);
        assert!(answers(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", 4096)[0].keep);
    }

    #[test]
    fn what_it_does_not_serve_is_refused() {
        let cases: [(&[u8], &str); 4] = [
            (b"DELETE / HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
            (b"POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello", "413 Content Too Large"),
            (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", "400 Bad Request"),
            (&[b'a'; 10_000], "431 Request Header Fields Too Large"),
        ];
        for (bytes, status) in cases {
            assert_eq!(answers(bytes, 4096)[0].status, status);
        }
    }

    #[test]
    fn a_site_is_read_from_the_command_line() {
        let site: Site = "2001:db8::1=www.example.com".parse().expect("site");
        let subject = Subject::Address("2001:db8::1".parse().expect("address"));
        assert_eq!(site, Site { subject, name: "www.example.com".to_owned() });
        let site: Site = "a.example=a".parse().expect("site");
        assert_eq!(site, Site { subject: Subject::Host("a.example".to_owned()), name: "a".to_owned() });
        assert!("10.0.0.1".parse::<Site>().is_err());
        assert!("=y".parse::<Site>().is_err());
    }

    #[test]
    fn who_answers_follows_from_the_host_and_else_from_the_address() {
        let sites = ["192.0.2.1=front", "a.example=a", "b.example=b"].map(|site| site.parse().expect("site"));
        let server = |head: &[u8]| {
            let (request, _) = parse(head).expect("a whole request");
            server(&request, "192.0.2.1".parse().expect("address"), &sites)
        };
        assert_eq!(server(b"GET / HTTP/1.1\r\nHost: B.example:8080\r\n\r\n"), "b");
        assert_eq!(server(b"GET / HTTP/1.1\r\nHost: c.example\r\n\r\n"), "front");
        assert_eq!(server(b"GET / HTTP/1.0\r\n\r\n"), "front");
    }
}
