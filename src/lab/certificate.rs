//! Certificates of the lab's web servers. Each lab has an authority of its own, made with it and gone with it; servers make
//! a certificate on the spot for each name that a client asks for. Clients that are given the authority
//! (`curl --cacert`) verify them as they would on the internet.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// The authority's certificate, in the folder of the lab.
pub(super) const CERTIFICATE: &str = "authority.pem";

/// Its key, which only root may read.
pub(super) const KEY: &str = "authority.key";

/// The name of the certificate for clients that give none.
const UNNAMED: &str = "localhost";

/// The most names that certificates are kept for; others get one made for each connection.
const MOST_NAMES: usize = 64;

/// Makes an authority, whose files go into a folder.
///
/// # Errors
/// When a file cannot be written.
pub(super) fn make_authority(folder: &Path) -> io::Result<()> {
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let certificate = authority().self_signed(&key).map_err(io::Error::other)?;
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(folder.join(KEY))?;
    file.write_all(key.serialize_pem().as_bytes())?;
    fs::write(folder.join(CERTIFICATE), certificate.pem())
}

/// What the certificate of an authority says. Servers make it anew from here: it is the same for every lab.
fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Sidestep lab");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

/// A server's side of TLS 1.2 and 1.3, for any name, with certificates of the authority in a folder.
///
/// # Errors
/// The authority cannot be read, or the cryptography does not offer these versions.
pub(super) fn server_config(folder: &Path) -> io::Result<Arc<ServerConfig>> {
    let key = KeyPair::from_pem(&fs::read_to_string(folder.join(KEY))?).map_err(io::Error::other)?;
    let certificates = Certificates { issuer: Issuer::new(authority(), key), made: Mutex::default() };
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(io::Error::other)?;
    Ok(Arc::new(builder.with_no_client_auth().with_cert_resolver(Arc::new(certificates))))
}

/// The certificates made so far.
#[derive(Debug)]
struct Certificates {
    issuer: Issuer<'static, KeyPair>,
    made: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().unwrap_or(UNNAMED);
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(certificate) = made.get(name) {
            return Some(Arc::clone(certificate));
        }
        let certificate = Arc::new(certificate(name, &self.issuer)?);
        if made.len() < MOST_NAMES {
            made.insert(name.to_owned(), Arc::clone(&certificate));
        }
        Some(certificate)
    }
}

/// Makes a certificate; none for what cannot be a name.
fn certificate(name: &str, issuer: &Issuer<'static, KeyPair>) -> Option<CertifiedKey> {
    let mut params = CertificateParams::new([name.to_owned()]).ok()?;
    params.distinguished_name = DistinguishedName::new();
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().ok()?;
    let certificate = params.signed_by(&key, issuer).ok()?;
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let key = ring::sign::any_supported_type(&key.into()).ok()?;
    Some(CertifiedKey::new(vec![certificate.der().clone()], key))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_certificate_is_made_for_the_name_that_is_asked_for() {
        let issuer = Issuer::new(authority(), KeyPair::generate().expect("a key"));
        let certificate = certificate("contosodata.blob.core.windows.net", &issuer).expect("a certificate");
        let der = certificate.end_entity_cert().expect("one certificate");
        let name = b"contosodata.blob.core.windows.net";
        assert!(der.windows(name.len()).any(|window| window == name));
    }

    #[test]
    fn the_key_of_an_authority_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        make_authority(folder.path()).expect("an authority");
        let mode = fs::metadata(folder.path().join(KEY)).expect("a key").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(fs::read_to_string(folder.path().join(CERTIFICATE)).expect("text").starts_with("-----BEGIN CERTIF"));
        server_config(folder.path()).expect("a server's side");
        assert!(make_authority(folder.path()).is_err(), "an authority is made once");
    }
}
