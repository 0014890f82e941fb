//! What clients send first.

use std::sync::OnceLock;

use rustls::crypto::{CryptoProvider, GetRandomFailed, SecureRandom, ring};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// The account that the policy lists, and the one that it does not.
pub(crate) const FIRST: &str = "first.blob.core.windows.net";
pub(crate) const SECOND: &str = "second.blob.core.windows.net";

/// The order of a hello's extensions hangs on random numbers, and a run has to be the same again.
#[derive(Debug)]
struct Same;

impl SecureRandom for Same {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        bytes.fill(0x5a);
        Ok(())
    }
}

fn hello(name: &str) -> Vec<u8> {
    let provider = CryptoProvider { secure_random: &Same, ..ring::default_provider() };
    let config = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut connection = ClientConnection::new(config.into(), name).unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    hello
}

fn request(name: &str) -> Vec<u8> {
    format!("GET /container/blob HTTP/1.1\r\nHost: {name}\r\nUser-Agent: x\r\n\r\n").into_bytes()
}

/// Streams by what is spoken; the first of each is one that may pass.
pub(crate) struct Streams {
    tls: Vec<Vec<u8>>,
    http: Vec<Vec<u8>>,
}

impl Streams {
    pub(crate) fn new() -> Self {
        static HELLOS: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
        let [first, second] = HELLOS.get_or_init(|| [hello(FIRST), hello(SECOND)]);
        let streams = |first: Vec<u8>, second: Vec<u8>| {
            let with_more = [second.clone(), vec![0x17; 9_000]].concat();
            let both = [first.clone(), second.clone()].concat();
            vec![first.clone(), second.clone(), first, second, both, with_more, vec![0x7f; 700]]
        };
        Self { tls: streams(first.clone(), second.clone()), http: streams(request(FIRST), request(SECOND)) }
    }

    pub(crate) fn of(&self, port: u16) -> &[Vec<u8>] {
        if port == 80 { &self.http } else { &self.tls }
    }
}
