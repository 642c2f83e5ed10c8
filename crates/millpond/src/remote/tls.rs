//! TLS to a server: whom it is believed from, and the handshake.

use super::address::Address;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use std::{io, path::Path, sync::Arc};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Why nobody can be believed.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file of certificates cannot be read, or has none.
    #[error("{path}: {reason}")]
    File {
        /// Which.
        path: String,
        /// Why not.
        reason: String,
    },
    /// The library of TLS refuses.
    #[error("{0}")]
    Library(#[from] rustls::Error),
}

/// Whom a server is believed from under TLS: those in the PEM file `ca`, or else those that this system trusts.
#[doc(hidden)]
pub fn trusted(ca: Option<&Path>) -> Result<RootCertStore, TrustError> {
    let mut trusted = RootCertStore::empty();
    match ca {
        Some(path) => {
            let wrong = |reason: &dyn std::fmt::Display| TrustError::File {
                path: path.display().to_string(),
                reason: reason.to_string(),
            };
            let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            for certificate in read.map_err(|error| wrong(&error))? {
                trusted.add(certificate)?;
            }
            if trusted.is_empty() {
                return Err(wrong(&"there is no certificate in it (BEGIN CERTIFICATE)"));
            }
        }
        None => {
            // Those that the library cannot read are passed over, as others do.
            trusted.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(trusted)
}

/// How this link begins TLS.
#[derive(Clone)]
pub(super) struct Tls(TlsConnector);

impl Tls {
    pub(super) fn new(ca: Option<&Path>) -> Result<Self, TrustError> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(trusted(ca)?)
            .with_no_client_auth();
        // A WebSocket begins with HTTP/1.1.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    pub(super) async fn begin(&self, address: &Address, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(address.bare_host().to_owned()).map_err(io::Error::other)?;
        self.0.connect(name, tcp).await
    }
}

/// Whether the server showed a certificate that is not believed: it will not be believed the next time either.
pub(super) fn is_mistrust(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
}
