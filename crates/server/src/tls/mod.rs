//! TLS of the server: the certificate and its key, read again when their files change.

mod validity;

use crate::watched::Watched;
use kit::Timestamp;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::{
    path::Path,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use validity::Validity;

/// The one implementation of cryptography for TLS in this program.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Why there is no TLS with these files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds something else.
    #[error("{path}: {reason}")]
    File {
        /// Which.
        path: String,
        /// Why not.
        reason: String,
    },
    /// They do not belong together.
    #[error("{key}: {reason}; the first certificate in {cert} must be the one of this key")]
    Pair {
        /// The file of the key.
        key: String,
        /// The file of the certificate.
        cert: String,
        /// What is wrong.
        reason: String,
    },
    /// The library refuses.
    #[error("{0}")]
    Library(#[from] rustls::Error),
}

/// How long before its end a certificate is complained of.
const WARN_MS: u64 = 14 * 24 * 3_600_000;
/// How often that is said again.
const AGAIN_MS: u64 = 24 * 3_600_000;

/// A certificate with its key, as the files have it now.
#[derive(Debug)]
pub struct Certificate {
    cert: Watched,
    key: Watched,
    current: RwLock<(Arc<CertifiedKey>, Validity)>,
    complained: AtomicU64,
}

impl Certificate {
    /// Reads both files.
    ///
    /// # Errors
    /// One of them cannot be used, or they do not belong together.
    pub fn read(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let (cert, key) = (Watched::new(cert), Watched::new(key));
        let current = RwLock::new(load(&cert, &key)?);
        let certificate = Self { cert, key, current, complained: AtomicU64::new(0) };
        certificate.complain(crate::now());
        Ok(certificate)
    }

    /// What a server needs to offer HTTP/2 and HTTP/1.1 with it.
    ///
    /// # Errors
    /// None that the certificate could cause.
    pub fn config(self: &Arc<Self>) -> Result<ServerConfig, TlsError> {
        let builder =
            ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let resolver = Arc::clone(self) as Arc<dyn ResolvesServerCert>;
        let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    /// Reads the files again if one of them has changed, and says when the certificate ends soon.
    pub fn refresh(&self) {
        if self.cert.has_changed() || self.key.has_changed() {
            self.reload();
        }
        self.complain(crate::now());
    }

    /// Reads the files again. What cannot be used changes nothing: of two files, the second may still be on its way.
    pub fn reload(&self) {
        match load(&self.cert, &self.key) {
            Ok(new) => {
                tracing::info!(until = %new.1.not_after, "the certificate was read");
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
                self.complained.store(0, Relaxed);
            }
            Err(error) => tracing::error!("the certificate stays as it was: {error}"),
        }
    }

    fn complain(&self, now: Timestamp) {
        let validity = self.current.read().unwrap_or_else(PoisonError::into_inner).1;
        let path = self.cert.path().display();
        if validity.not_before <= now && now.0 + WARN_MS < validity.not_after.0
            || now.0 < self.complained.load(Relaxed) + AGAIN_MS
        {
            return;
        }
        self.complained.store(now.0, Relaxed);
        if now < validity.not_before {
            tracing::error!(
                "{path}: the certificate is not valid before {}: clients refuse it",
                validity.not_before
            );
        } else if now >= validity.not_after {
            tracing::error!(
                "{path}: the certificate has expired at {}: clients refuse it",
                validity.not_after
            );
        } else {
            tracing::warn!("{path}: the certificate expires at {}", validity.not_after);
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&current.0))
    }
}

fn load(cert: &Watched, key: &Watched) -> Result<(Arc<CertifiedKey>, Validity), TlsError> {
    cert.note();
    key.note();
    let file = |watched: &Watched, reason: String| TlsError::File {
        path: watched.path().display().to_string(),
        reason,
    };
    let chain = certificates(cert.path())?;
    let secret = PrivateKeyDer::from_pem_file(key.path())
        .map_err(|error| file(key, format!("no private key could be read: {error}")))?;
    let validity = chain.first().and_then(|first| Validity::of(first));
    let validity = validity
        .ok_or_else(|| file(cert, "the first certificate has no dates that can be read".to_owned()))?;
    let pair = CertifiedKey::from_der(chain, secret, &provider()).map_err(|error| TlsError::Pair {
        key: key.path().display().to_string(),
        cert: cert.path().display().to_string(),
        reason: error.to_string(),
    })?;
    Ok((Arc::new(pair), validity))
}

/// The certificates of a PEM file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let file = |reason: String| TlsError::File { path: path.display().to_string(), reason };
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let all = all.map_err(|error| file(format!("no certificate could be read: {error}")))?;
    if all.is_empty() { Err(file("there is no certificate in it".to_owned())) } else { Ok(all) }
}
