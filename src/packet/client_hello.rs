//! The `server_name` of a TLS ClientHello, put together from records (RFC 8446 sections 4.1.2 and 5.1; RFC 5246 sections
//! 6.2.1 and 7.4.1.2 are the same to a reader).
//!
//! Parsed by hand, because what matters here are the checks that a parser for analysis leaves out: that lists end where
//! their lengths say and hold one name.

use std::ops::RangeInclusive;

use super::host_name::host_name;
use super::server_name::{NameReader, Unnamed, append};

/// Length of a record's header: content type, version, length.
const RECORD_HEADER: usize = 5;

/// Content type of handshake messages. Nothing else may come before the hello is complete.
const HANDSHAKE: u8 = 22;

/// TLS 1.0 to 1.2; TLS 1.3 says one of these where older versions look.
const MAJOR: u8 = 3;
const MINOR: RangeInclusive<u8> = 1..=3;

/// The most bytes of a record.
const RECORD: u16 = 1 << 14;

/// Length of a handshake message's header: type and 24 bits of length.
const MESSAGE_HEADER: usize = 4;

/// Handshake type of a ClientHello.
const CLIENT_HELLO: u8 = 1;

/// Extension types.
const SERVER_NAME: u16 = 0;
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

/// Collects the fragments in records until the hello is whole.
#[derive(Debug)]
pub(super) struct ClientHello {
    /// The handshake message so far, with its header.
    message: Vec<u8>,
    /// How many bytes of the next record's header are read, and the length in it.
    header: usize,
    length: u16,
    /// How many bytes of the record at hand are not in the message yet.
    left: usize,
}

impl ClientHello {
    pub(super) const fn new() -> Self {
        Self { message: Vec::new(), header: 0, length: 0, left: 0 }
    }

    pub(super) fn memory(&self) -> usize {
        self.message.capacity()
    }

    /// The name once the hello is whole, `None` before.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<Option<String>, Unnamed> {
        while let Some((&first, rest)) = bytes.split_first() {
            if self.left == 0 {
                self.header_byte(first)?;
                bytes = rest;
                continue;
            }
            let (fragment, rest) = bytes.split_at_checked(self.left).unwrap_or((bytes, &[]));
            self.left -= append(&mut self.message, fragment);
            bytes = rest;
            if let Some(body) = self.body()? {
                return name(body).map(Some);
            }
        }
        Ok(None)
    }

    /// Judges every byte of a record's header as it comes, so that another protocol is not waited for.
    fn header_byte(&mut self, byte: u8) -> Result<(), Unnamed> {
        let right = match self.header {
            0 => byte == HANDSHAKE,
            1 => byte == MAJOR,
            2 => MINOR.contains(&byte),
            3 => {
                self.length = u16::from_be_bytes([byte, 0]);
                true
            }
            _ => {
                self.length |= u16::from(byte);
                (1..=RECORD).contains(&self.length)
            }
        };
        if !right {
            let tells_protocol = self.message.is_empty() && self.header < 3;
            return Err(if tells_protocol { Unnamed::NotTheProtocol } else { Unnamed::Malformed });
        }
        self.header += 1;
        if self.header == RECORD_HEADER {
            self.header = 0;
            self.left = self.length.into();
        }
        Ok(())
    }

    /// The message without its header, once it is whole. It has to end where its record does: no client has anything to
    /// add to its hello before the server answers, but for early data, which is in a record of its own.
    fn body(&self) -> Result<Option<&[u8]>, Unnamed> {
        if self.message.first().is_some_and(|&kind| kind != CLIENT_HELLO) {
            return Err(Unnamed::Malformed);
        }
        let Some((&[_, high, middle, low], body)) = self.message.split_first_chunk::<MESSAGE_HEADER>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        if length > NameReader::LIMIT - MESSAGE_HEADER {
            return Err(Unnamed::TooLong);
        }
        if body.len() < length {
            return Ok(None);
        }
        if body.len() > length || self.left > 0 {
            return Err(Unnamed::Malformed);
        }
        Ok(Some(body))
    }
}

/// The name in a hello's body.
fn name(body: &[u8]) -> Result<String, Unnamed> {
    let extensions = extensions(body).ok_or(Unnamed::Malformed)?;
    let found = find(extensions).ok_or(Unnamed::Malformed)?;
    if found.encrypted {
        return Err(Unnamed::EncryptedHello);
    }
    found.name.ok_or(Unnamed::NoName)
}

/// What the extensions say.
#[derive(Default)]
struct Found {
    name: Option<String>,
    encrypted: bool,
}

/// The list of extensions, empty where the hello ends before it. `None` for a malformed hello.
fn extensions(body: &[u8]) -> Option<&[u8]> {
    const RANDOM: usize = 32;
    const MOST_SESSION_ID: usize = 32;
    let mut rest = Bytes(body);
    let (major, minor) = (rest.u8()?, rest.u8()?);
    rest.take(RANDOM)?;
    let session_id = rest.vector8()?;
    let cipher_suites = rest.vector16()?;
    let compression_methods = rest.vector8()?;
    let valid = major == MAJOR
        && MINOR.contains(&minor)
        && session_id.len() <= MOST_SESSION_ID
        && !cipher_suites.is_empty()
        && cipher_suites.len().is_multiple_of(2)
        && !compression_methods.is_empty();
    let extensions = if rest.is_empty() { &[] } else { rest.vector16()? };
    (valid && rest.is_empty()).then_some(extensions)
}

/// Walks all extensions, so that the second of a type is found wherever it is. `None` for a malformed list.
fn find(extensions: &[u8]) -> Option<Found> {
    let mut found = Found::default();
    // One bit for each type.
    let mut seen = [0_u64; (1 << 16) / u64::BITS as usize];
    let mut rest = Bytes(extensions);
    while !rest.is_empty() {
        let kind = rest.u16()?;
        let data = rest.vector16()?;
        let word = seen.get_mut(usize::from(kind) / u64::BITS as usize)?;
        let bit = 1 << (u32::from(kind) % u64::BITS);
        if *word & bit != 0 {
            return None;
        }
        *word |= bit;
        match kind {
            SERVER_NAME => found.name = Some(server_name(data)?),
            ENCRYPTED_CLIENT_HELLO => found.encrypted = is_outer(data)?,
            _ => {}
        }
    }
    Some(found)
}

/// The one name of a `server_name` extension (RFC 6066 section 3). Other types than `host_name` are not defined, so
/// servers skip them or the rest of the list; and a name has no dot at its end.
fn server_name(data: &[u8]) -> Option<String> {
    const HOST_NAME: u8 = 0;
    let mut data = Bytes(data);
    let mut list = Bytes(data.vector16()?);
    let kind = list.u8()?;
    let name = list.vector16()?;
    let only = kind == HOST_NAME && list.is_empty() && data.is_empty();
    if only { host_name(name) } else { None }
}

/// Whether an `encrypted_client_hello` extension has a hello inside. The other type marks a hello that was inside, and
/// has nothing else to it (RFC 9849 section 5).
fn is_outer(data: &[u8]) -> Option<bool> {
    const OUTER: u8 = 0;
    const INNER: u8 = 1;
    match data {
        [OUTER, ..] => Some(true),
        [INNER] => Some(false),
        _ => None,
    }
}

/// Bytes that are read from the front; `None` where they end early.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.first_chunk().copied().map(u16::from_be_bytes)
    }

    /// A vector behind its length in 8 bits.
    fn vector8(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.take(length.into())
    }

    /// A vector behind its length in 16 bits.
    fn vector16(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(length.into())
    }
}
