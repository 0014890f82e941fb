//! A client of a subnet with an endpoint policy, and connections of its to the shared address, packet by packet.

use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use sidestep::path::Verdict;

use crate::bench::Bench;
use crate::guarded::{Guarded, SHARED, resets, syn};
use crate::packets::Tcp;

pub(crate) const ACCOUNT: &str =
    "/subscriptions/s1/resourceGroups/data/providers/Microsoft.Storage/storageAccounts/first";

pub(crate) const APP: &str = r#"service_endpoints = [{ service = "Microsoft.Storage" }]
  service_endpoint_policies = ["only-first"]"#;

pub(crate) fn policy(name: &str, service: &str, resource: &str) -> String {
    format!(
        "[[service_endpoint_policy]]\nname = \"{name}\"\ndefinitions = [{{ name = \"d\", service = \"{service}\", \
         service_resources = [\"{resource}\"] }}]\n"
    )
}

pub(crate) fn bench() -> Bench {
    Guarded { app: APP, more: &policy("only-first", "Microsoft.Storage", ACCOUNT), ..Guarded::default() }.bench()
}

/// What a TLS client sends first.
pub(crate) fn hello(name: &str) -> Vec<u8> {
    let config = ClientConfig::builder_with_provider(ring::default_provider().into())
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

pub(crate) fn name(account: &str) -> String {
    format!("{account}.blob.core.windows.net")
}

/// A connection of `blue1` to the shared address, open.
pub(crate) struct Client {
    pub(crate) port: u16,
    pub(crate) next: u32,
}

pub(crate) const SERVER: u32 = 9_000;

impl Client {
    pub(crate) fn open(bench: &mut Bench, port: u16) -> Self {
        bench.forward("blue1", syn("10.1.1.4", SHARED, port), "front");
        let mut client = Self { port, next: 1_001 };
        bench.forward("front", client.server("SA", SERVER, 1_001, b""), "blue1");
        bench.forward("blue1", client.packet("A", client.next, b""), "front");
        client.next = 1_001;
        client
    }

    pub(crate) fn packet(&self, flags: &str, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let (from, to) = (("10.1.1.4", 40_000), (SHARED, self.port));
        Tcp { from, to, flags, sequence, acknowledgment: SERVER + 1, payload, ..Tcp::default() }.bytes()
    }

    pub(crate) fn server(&self, flags: &str, sequence: u32, acknowledgment: u32, payload: &[u8]) -> Vec<u8> {
        let (from, to) = ((SHARED, self.port), ("10.1.1.4", 40_000));
        Tcp { from, to, flags, sequence, acknowledgment, payload, ..Tcp::default() }.bytes()
    }

    /// The next bytes of the stream.
    pub(crate) fn send(&mut self, bench: &mut Bench, payload: &[u8]) -> Verdict {
        let packet = self.packet("PA", self.next, payload);
        self.next += payload.len() as u32;
        bench.inject("blue1", packet)
    }

    /// The server has acknowledged everything.
    pub(crate) fn acknowledge(&self, bench: &mut Bench) {
        bench.forward("front", self.server("A", SERVER + 1, self.next, b""), "blue1");
    }
}

/// Both ends are reset, with the numbers that each expects, and the server has got no byte of the last packet.
#[track_caller]
pub(crate) fn closed(bench: &mut Bench, server_has: u32) {
    let sent = bench.take();
    let to_client = resets(&sent, "blue1");
    let to_server = resets(&sent, "front");
    assert_eq!(to_client.len() + to_server.len(), sent.len(), "resets and nothing else: {sent:?}");
    assert!(to_client.iter().any(|reset| reset.tcp.as_ref().unwrap().sequence == SERVER + 1), "{sent:?}");
    assert!(to_server.iter().any(|reset| reset.tcp.as_ref().unwrap().sequence == server_has), "{sent:?}");
}

/// A SYN of the client from its port.
pub(crate) fn another_syn(sequence: u32) -> Vec<u8> {
    Tcp { to: (SHARED, 443), sequence, ..Tcp::default() }.bytes()
}

/// Nothing that the client sends there passes.
#[track_caller]
pub(crate) fn nothing_passes(bench: &mut Bench, client: &Client, sequence: u32, payload: &[u8]) {
    let verdict = bench.inject("blue1", client.packet("PA", sequence, payload));
    assert!(!matches!(verdict, Verdict::Forwarded(_)), "{verdict:?}");
    bench.take();
}
