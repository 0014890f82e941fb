//! Certificates of the lab's web servers, made on the spot: one for each name that a client asks for, signed by itself.
//! Nobody can trust them, and nobody should; clients of the lab are told to take them (`curl -k`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// The name of the certificate for clients that give none.
const UNNAMED: &str = "localhost";

/// The most names that certificates are kept for; others get one made for each connection.
const MOST_NAMES: usize = 64;

/// A server's side of TLS 1.2 and 1.3, for any name.
///
/// # Errors
/// The cryptography does not offer these versions.
pub(super) fn server_config() -> Result<Arc<ServerConfig>, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?;
    Ok(Arc::new(builder.with_no_client_auth().with_cert_resolver(Arc::new(Certificates::default()))))
}

/// The certificates made so far.
#[derive(Debug, Default)]
struct Certificates {
    made: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().unwrap_or(UNNAMED);
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(certificate) = made.get(name) {
            return Some(Arc::clone(certificate));
        }
        let certificate = Arc::new(certificate(name)?);
        if made.len() < MOST_NAMES {
            made.insert(name.to_owned(), Arc::clone(&certificate));
        }
        Some(certificate)
    }
}

/// Makes a certificate; none for what cannot be a name.
fn certificate(name: &str) -> Option<CertifiedKey> {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).ok()?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let key = ring::sign::any_supported_type(&key.into()).ok()?;
    Some(CertifiedKey::new(vec![made.cert.der().clone()], key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_made_for_the_name_that_is_asked_for() {
        let certificate = certificate("contosodata.blob.core.windows.net").expect("a certificate");
        let der = certificate.end_entity_cert().expect("one certificate");
        let name = b"contosodata.blob.core.windows.net";
        assert!(der.windows(name.len()).any(|window| window == name));
    }
}
