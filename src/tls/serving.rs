//! A certificate that the webhook serves, whoever signed it. Pure: the clock is a parameter.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::ServerConfig;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::ClientCertVerifier;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A serving certificate with its key, ready for use.
#[derive(Clone, Debug)]
pub struct Serving {
    config: Arc<ServerConfig>,
    chain: Vec<CertificateDer<'static>>,
    validity: Validity,
}

/// Why a certificate cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServingError {
    /// There is no certificate, or none that can be read.
    #[error("it holds no certificate")]
    Certificate,
    /// There is no private key, or none that can be read.
    #[error("it holds no private key")]
    Key,
    /// Certificate and key do not belong together, or the TLS library knows no such key.
    #[error("the certificate and the private key cannot be used together")]
    Pair(#[source] rustls::Error),
    /// The certificate is for other names.
    #[error("the certificate is not for {0}")]
    Name(String),
    /// The certificate is not valid now.
    #[error(transparent)]
    Time(#[from] NotNow),
}

impl Serving {
    /// A certificate with what leads to its authority, and its key. The pair is known to belong together.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, ServingError> {
        let validity = chain.first().and_then(|leaf| Validity::of(leaf)).ok_or(ServingError::Certificate)?;
        let config = server_config(chain.clone(), key).map_err(ServingError::Pair)?;
        Ok(Self { config, chain, validity })
    }

    /// Reads the PEM files `tls.crt` and `tls.key`, and takes what can be served as `host` now.
    pub fn read(certificate: &[u8], key: &[u8], host: &str, now: Timestamp) -> Result<Self, ServingError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
        let chain = chain.map_err(|_| ServingError::Certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| ServingError::Key)?;
        let serving = Self::new(chain, key)?;
        if !serving.is_for(host) {
            return Err(ServingError::Name(host.to_owned()));
        }
        serving.validity.check(now)?;
        Ok(serving)
    }

    /// TLS as the webhook serves it.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// The same for callers that show a certificate.
    pub fn config_for(&self, callers: Arc<dyn ClientCertVerifier>) -> Result<Arc<ServerConfig>, rustls::Error> {
        let builder =
            ServerConfig::builder_with_provider(Arc::new(provider())).with_safe_default_protocol_versions()?;
        let builder = builder.with_client_cert_verifier(callers);
        Ok(as_for_webhooks(builder.with_cert_resolver(self.config.cert_resolver.clone())))
    }

    /// From when to when.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// Whether a client that trusts `bundle` (PEM) and nothing else believes that this is `host`. It is verified as a client
    /// does, not compared: what signed the certificate may stand between it and the bundle.
    pub fn is_trusted(&self, bundle: &[u8], host: &str, now: Timestamp) -> bool {
        let Some((leaf, intermediates)) = self.chain.split_first() else { return false };
        let certificates = || CertificateDer::pem_slice_iter(bundle).flatten();
        // As Go does: a certificate that is trusted itself needs no authority.
        if certificates().any(|trusted| trusted == *leaf) {
            return self.is_for(host) && self.validity.check(now).is_ok();
        }
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(certificates());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(provider())).build();
        let (Ok(verifier), Ok(host)) = (verifier, ServerName::try_from(host)) else { return false };
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now.as_second().unsigned_abs()));
        verifier.verify_server_cert(leaf, intermediates, &host, &[], now).is_ok()
    }

    fn is_for(&self, host: &str) -> bool {
        let leaf = self.chain.first().and_then(|leaf| ParsedCertificate::try_from(leaf).ok());
        let (Some(leaf), Ok(host)) = (leaf, ServerName::try_from(host)) else { return false };
        verify_server_name(&leaf, &host).is_ok()
    }
}

/// The time for which a certificate is valid, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Its first second.
    pub from: Timestamp,
    /// Its last second.
    pub until: Timestamp,
}

/// A certificate is not valid by the wall clock, which may have jumped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotNow {
    /// Its time is over.
    #[error("the certificate expired at {0}")]
    Expired(Timestamp),
    /// Its time has not come.
    #[error("the certificate is not valid before {0}")]
    NotYet(Timestamp),
}

impl Validity {
    /// What a certificate says; nothing where it cannot be read.
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let (_, x509) = X509Certificate::from_der(certificate).ok()?;
        // The last day of 9999, which stands for "for ever", is beyond what a Timestamp holds.
        let at = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).unwrap_or(Timestamp::MAX);
        Some(Self { from: at(x509.validity().not_before), until: at(x509.validity().not_after) })
    }

    /// Whether it is valid.
    pub fn check(self, now: Timestamp) -> Result<(), NotNow> {
        match self {
            Self { from, .. } if now < from => Err(NotNow::NotYet(from)),
            Self { until, .. } if now > until => Err(NotNow::Expired(until)),
            Self { .. } => Ok(()),
        }
    }
}

/// HTTP/1.1 only: it is what the API server speaks to webhooks. No resumption: it keeps no tickets for webhooks.
fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(Arc::new(provider())).with_safe_default_protocol_versions()?;
    Ok(as_for_webhooks(builder.with_no_client_auth().with_single_cert(chain, key)?))
}

fn as_for_webhooks(mut config: ServerConfig) -> Arc<ServerConfig> {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

pub(super) fn provider() -> rustls::crypto::CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}
