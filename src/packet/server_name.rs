//! The name that a TCP client asks for, read from the first bytes of its stream: `server_name` in TLS, `Host` in HTTP.
//!
//! Endpoint policies let a client reach some names of a service and no others. A [`NameReader`] gets the bytes of one
//! connection in order, as few or as many at a time as come, and answers once: with a name, or with why there is none.
//!
//! - The answer does not depend on how the bytes are cut into segments or TLS records.
//! - A name is only ever read from a hello or a head that is whole, and that every server reads alike: what one server
//!   may take for another name than the next is [`Unnamed::Malformed`].
//! - Every byte is looked at a constant number of times, and at most [`NameReader::LIMIT`] of them are kept.
//!
//! What the name is worth: a client can ask for one name and, once the server answers, speak of another – by a second
//! request in the same HTTP connection ([`NameReader::end`] tells where it would begin), or inside TLS, where nothing in
//! between can see it. Only the first request and the first hello are read; after a HelloRetryRequest the client has to
//! repeat the name (RFC 8446 section 4.1.2).

use super::client_hello::ClientHello;
use super::request_head::RequestHead;

/// What a client is expected to speak, by the port that it connects to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Application {
    /// TLS 1.0 to 1.3: the name in the ClientHello.
    Tls,
    /// HTTP/1.0 and HTTP/1.1 in the clear: the name in the head of the first request.
    Http,
}

/// What a [`NameReader`] knows so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// It takes more bytes to tell.
    More,
    /// The client asks for this name: lower-case ASCII, without a port and a dot at the end, no IP address.
    Name(String),
    /// The client asks for no name that can be relied on.
    Unnamed(Unnamed),
}

/// Why a stream has no name. The client chooses which of them it is, so that none deserves more trust than another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Unnamed {
    /// The stream does not begin as the application's do: another protocol, SSL 2 or 3, HTTP/0.9, or HTTP/2.
    NotTheProtocol,
    /// A hello without `server_name`, a request without `Host`, or one for an IP address.
    NoName,
    /// The hello has an `encrypted_client_hello` extension (RFC 9849), so its `server_name` is perhaps not the name
    /// that the client asks for. A client that only pretends to encrypt (GREASE) looks the same, on purpose.
    EncryptedHello,
    /// Against the protocol's rules, or open to more than one reading.
    Malformed,
    /// Larger than [`NameReader::LIMIT`], or more header fields than any server takes.
    TooLong,
}

impl Unnamed {
    /// Every value in the order of its number.
    pub const ALL: &'static [Self] =
        &[Self::NotTheProtocol, Self::NoName, Self::EncryptedHello, Self::Malformed, Self::TooLong];

    /// The stable name, as counters and logs carry it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotTheProtocol => "not_the_protocol",
            Self::NoName => "no_name",
            Self::EncryptedHello => "encrypted_hello",
            Self::Malformed => "malformed",
            Self::TooLong => "too_long",
        }
    }

    /// One sentence for people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::NotTheProtocol => "The client does not speak the protocol of the port.",
            Self::NoName => "The client asks for no name.",
            Self::EncryptedHello => "The client encrypts the name that it asks for, or pretends to.",
            Self::Malformed => "The client's hello or request is malformed, or servers could read it differently.",
            Self::TooLong => "The client's hello or request is too long.",
        }
    }
}

/// Reads the first bytes of one connection, from the client to the server, until they tell the name.
#[derive(Debug)]
pub struct NameReader {
    stage: Stage,
    end: Option<u32>,
}

#[derive(Debug)]
enum Stage {
    Tls(ClientHello),
    Http(RequestHead),
    Answered(Reading),
}

impl NameReader {
    /// The most bytes of a handshake message or of a request's head that are read and kept: as much as a TLS record
    /// holds. Hellos with a post-quantum key share have under 2 KiB, and servers take heads of 8 to 16 KiB.
    pub const LIMIT: usize = 16 * 1024;

    /// A reader at the start of a connection. Allocates nothing yet.
    pub const fn new(application: Application) -> Self {
        let stage = match application {
            Application::Tls => Stage::Tls(ClientHello::new()),
            Application::Http => Stage::Http(RequestHead::new()),
        };
        Self { stage, end: None }
    }

    /// Takes the next bytes of the stream. What follows the hello or the head in them does not matter. After an answer
    /// other than [`Reading::More`] nothing is read any more, and every push gives that answer again.
    pub fn push(&mut self, bytes: &[u8]) -> Reading {
        let found = match &mut self.stage {
            Stage::Tls(hello) => hello.push(bytes),
            Stage::Http(head) => head.push(bytes).map(|found| {
                found.map(|(name, length)| {
                    self.end = Some(length);
                    name
                })
            }),
            Stage::Answered(answer) => return answer.clone(),
        };
        let answer = match found {
            Ok(None) => return Reading::More,
            Ok(Some(name)) => Reading::Name(name),
            Err(unnamed) => Reading::Unnamed(unnamed),
        };
        self.stage = Stage::Answered(answer.clone());
        answer
    }

    /// Where the request ends that the name is of, in bytes of the stream: what follows may be for another name. Only of
    /// HTTP, and only once the name is known.
    pub fn end(&self) -> Option<u32> {
        self.end
    }

    /// How many bytes it has allocated: at most [`Self::LIMIT`], none before the first byte, and no more than a name
    /// after the answer.
    pub fn memory(&self) -> usize {
        match &self.stage {
            Stage::Tls(hello) => hello.memory(),
            Stage::Http(head) => head.memory(),
            Stage::Answered(Reading::Name(name)) => name.capacity(),
            Stage::Answered(_) => 0,
        }
    }
}

/// Appends what fits [`NameReader::LIMIT`], and returns how many bytes that is. Doubles the room when it is used up, so
/// that copying stays linear, and does not overshoot the limit as [`Vec`] would.
pub(super) fn append(kept: &mut Vec<u8>, bytes: &[u8]) -> usize {
    const LEAST: usize = 64;
    let fitting = bytes.len().min(NameReader::LIMIT - kept.len());
    let length = kept.len() + fitting;
    if length > kept.capacity() {
        let capacity = length.max(kept.capacity() * 2).clamp(LEAST, NameReader::LIMIT);
        kept.reserve_exact(capacity - kept.len());
    }
    kept.extend_from_slice(bytes.get(..fitting).unwrap_or_default());
    fitting
}
