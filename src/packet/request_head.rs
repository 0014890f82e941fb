//! The host that the first request of an HTTP/1.x connection is for (RFC 9112 sections 2 to 5).
//!
//! Stricter than a server has to be. Bare carriage returns and line feeds, empty lines ahead, folded lines, and white
//! space in front of a colon are refused, since servers differ in what they make of them.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::host_name::host_name;
use super::server_name::{NameReader, Unnamed, append};

/// The most header fields of a request. Servers take about 100.
const MOST_FIELDS: usize = 128;

/// Collects the head until the empty line behind it.
#[derive(Debug)]
pub(super) struct RequestHead {
    head: Vec<u8>,
    /// How many bytes of the head have been scanned, and what the next may be.
    scanned: usize,
    place: Place,
    fields: usize,
}

/// Where in the head a byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The first byte of all.
    Start,
    Method,
    /// The rest of the request line, and the line feed at its end.
    Request,
    RequestEnd,
    /// The first byte of a line behind it.
    Line,
    FieldName,
    FieldValue,
    FieldEnd,
    /// The line feed of the empty line, and what follows it.
    HeadEnd,
    Behind,
}

impl RequestHead {
    pub(super) const fn new() -> Self {
        Self { head: Vec::new(), scanned: 0, place: Place::Start, fields: 0 }
    }

    pub(super) fn memory(&self) -> usize {
        self.head.capacity()
    }

    /// The name once the head is whole, and how long the request is with its content; `None` before.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Option<(String, u32)>, Unnamed> {
        append(&mut self.head, bytes);
        while let Some(&byte) = self.head.get(self.scanned) {
            self.place = self.step(byte)?;
            self.scanned += 1;
            if self.place == Place::Behind {
                return name(self.head.get(..self.scanned).unwrap_or_default()).map(Some);
            }
        }
        if self.scanned == NameReader::LIMIT { Err(Unnamed::TooLong) } else { Ok(None) }
    }

    /// Where the next byte is, or why this one cannot be.
    fn step(&mut self, byte: u8) -> Result<Place, Unnamed> {
        Ok(match (self.place, byte) {
            (Place::Start | Place::Method, _) if is_token(byte) => Place::Method,
            (Place::Method, b' ') => Place::Request,
            // What some servers skip or take for the space.
            (Place::Start | Place::Method, b' ' | b'\t' | b'\r' | b'\n' | 0x0b | 0x0c) => {
                return Err(Unnamed::Malformed);
            }
            (Place::Start | Place::Method, _) => return Err(Unnamed::NotTheProtocol),
            (Place::Request, b'\r') => Place::RequestEnd,
            (Place::Request, _) if !byte.is_ascii_control() => Place::Request,
            (Place::RequestEnd, b'\n') if self.is_version_1() => Place::Line,
            (Place::RequestEnd, b'\n') => return Err(Unnamed::NotTheProtocol),
            (Place::Line, b'\r') => Place::HeadEnd,
            (Place::Line, _) if self.fields == MOST_FIELDS => return Err(Unnamed::TooLong),
            (Place::Line | Place::FieldName, _) if is_token(byte) => Place::FieldName,
            (Place::FieldName, b':') => Place::FieldValue,
            (Place::FieldValue, b'\r') => Place::FieldEnd,
            (Place::FieldValue, _) if byte == b'\t' || !byte.is_ascii_control() => Place::FieldValue,
            (Place::FieldEnd, b'\n') => {
                self.fields += 1;
                Place::Line
            }
            (Place::HeadEnd, b'\n') => Place::Behind,
            _ => return Err(Unnamed::Malformed),
        })
    }

    /// Whether the request line, scanned up to its line feed, says HTTP/1.0 or HTTP/1.1. White space behind the version
    /// is a matter for the parser, which refuses it.
    fn is_version_1(&self) -> bool {
        let line = self.head.get(..self.scanned).unwrap_or_default().trim_ascii_end();
        line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0")
    }
}

/// Whether a byte may be in a method or in a field's name (RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The name in a whole head, and the length of the request.
fn name(head: &[u8]) -> Result<(String, u32), Unnamed> {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    if request.parse(head) != Ok(httparse::Status::Complete(head.len())) {
        return Err(Unnamed::Malformed);
    }
    let (Some(method), Some(target)) = (request.method, request.path) else { return Err(Unnamed::Malformed) };
    let of_target = of_target(method, target)?;
    let mut hosts = request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case("host"));
    let host = hosts.next().ok_or(Unnamed::NoName)?;
    if hosts.next().is_some() {
        return Err(Unnamed::Malformed);
    }
    let of_field = if host.value.is_empty() { Authority::Nameless } else { authority(host.value)? };
    let length = head.len() as u32 + content_length(request.headers)?;
    match (of_target, of_field) {
        // The target counts (RFC 9112 section 3.2.2), and not every server knows.
        (Some(Authority::Name(target)), Authority::Name(field)) if target != field => Err(Unnamed::Malformed),
        (Some(Authority::Name(name)), _) | (None, Authority::Name(name)) => Ok((name, length)),
        (Some(Authority::Nameless), _) | (None, Authority::Nameless) => Err(Unnamed::NoName),
    }
}

/// How many bytes of content a request has (RFC 9112 section 6.3). Where that shows in the content alone, as with chunks,
/// or where something else may follow, servers need not agree on where the request ends.
fn content_length(fields: &[httparse::Header<'_>]) -> Result<u32, Unnamed> {
    const MOST_CONTENT: u32 = 1 << 30;
    let is = |name: &'static str| fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
    if is("transfer-encoding").next().is_some() || is("upgrade").next().is_some() {
        return Err(Unnamed::Malformed);
    }
    let mut lengths = is("content-length");
    let Some(length) = lengths.next() else { return Ok(0) };
    if lengths.next().is_some() || length.value.is_empty() || !length.value.iter().all(u8::is_ascii_digit) {
        return Err(Unnamed::Malformed);
    }
    let length = str::from_utf8(length.value).ok().and_then(|text| text.parse::<u32>().ok());
    length.filter(|length| *length <= MOST_CONTENT).ok_or(Unnamed::TooLong)
}

/// What a request is for.
enum Authority {
    Name(String),
    /// An IP address, or in a `Host` field nothing.
    Nameless,
}

/// The authority of a request target in absolute form. `None` for a path, and for the `*` of OPTIONS. CONNECT asks for a
/// tunnel to its target, which is no request to a service.
fn of_target(method: &str, target: &str) -> Result<Option<Authority>, Unnamed> {
    const SCHEME: &[u8] = b"http://";
    if method == "CONNECT" {
        return Err(Unnamed::Malformed);
    }
    if target.starts_with('/') || (method == "OPTIONS" && target == "*") {
        return Ok(None);
    }
    let (scheme, rest) = target.as_bytes().split_at_checked(SCHEME.len()).ok_or(Unnamed::Malformed)?;
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return Err(Unnamed::Malformed);
    }
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    authority(rest.get(..end).unwrap_or_default()).map(Some)
}

/// A host and perhaps a port (RFC 3986 section 3.2). User information is refused, as RFC 9110 section 4.2.4 has it.
fn authority(text: &[u8]) -> Result<Authority, Unnamed> {
    const MOST_DIGITS: usize = 5;
    let text = str::from_utf8(text).map_err(|_| Unnamed::Malformed)?;
    let in_brackets = text.strip_prefix('[').map(|rest| rest.split_once(']').ok_or(Unnamed::Malformed)).transpose()?;
    let (host, port) = match in_brackets {
        Some((_, "")) => (text, None),
        Some((_, rest)) => (text, Some(rest.strip_prefix(':').ok_or(Unnamed::Malformed)?)),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    if port.is_some_and(|port| port.len() > MOST_DIGITS || !port.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(Unnamed::Malformed);
    }
    let address = match in_brackets {
        Some((address, _)) => address.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<Ipv4Addr>().is_ok(),
    };
    if address {
        return Ok(Authority::Nameless);
    }
    host_name(host.strip_suffix('.').unwrap_or(host).as_bytes()).map(Authority::Name).ok_or(Unnamed::Malformed)
}
