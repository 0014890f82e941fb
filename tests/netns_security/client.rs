//! A TLS client that chooses how its bytes leave: what curl does not let one choose.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use sidestep::port::namespace;

use super::support::Lab;

/// How a client sends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// The most bytes of one write; each is a segment of its own.
    pub(crate) piece: usize,
    /// The pause behind each write.
    pub(crate) pause: Duration,
    /// Protocols offered by ALPN: the way to a hello as large as those with post-quantum key shares, and larger.
    pub(crate) protocols: usize,
}

/// Writes piece by piece.
struct Pieces {
    stream: TcpStream,
    manner: Manner,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.stream.write(&bytes[..bytes.len().min(self.manner.piece)])?;
        std::thread::sleep(self.manner.pause);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Asks for `/` by HTTPS and gives what came until the server closed.
pub(crate) fn get(lab: &Lab, host: &str, address: &str, name: &str, manner: Manner) -> io::Result<String> {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(lab.own_file("authority.pem")).expect("an authority");
    roots.add(authority).expect("a root");
    let mut config = ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = (0..manner.protocols).map(|number| format!("protocol-{number:08}").into_bytes()).collect();
    let connection = ClientConnection::new(Arc::new(config), ServerName::try_from(name.to_owned()).expect("a name"));
    let to = SocketAddr::new(address.parse().expect("an address"), 443);
    let connect = || TcpStream::connect_timeout(&to, Duration::from_secs(5));
    let stream = namespace::run(Some(&lab.netns(host)), connect).expect("a namespace")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut tls = StreamOwned::new(connection.expect("a client"), Pieces { stream, manner });
    tls.write_all(format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    match tls.read_to_string(&mut text) {
        // The server closes without TLS's goodbye.
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error),
        _ => Ok(text),
    }
}
