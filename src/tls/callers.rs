//! Who may call: with a client CA only who shows a certificate of it, and nobody else gets as far as a request.
//!
//! An API server shows one where its administrator gave it a kubeconfig for webhooks (`--admission-control-config-file`); by
//! default it shows none, so that this is an option.

use std::convert::Infallible;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::serving::provider;
use super::{CALLERS, Certificates};
use crate::telemetry::{Readiness, error_chain};

/// Why a client CA cannot be used.
#[derive(Debug, thiserror::Error)]
enum CallersError {
    #[error("it cannot be read")]
    Read(#[from] std::io::Error),
    #[error("it holds no certificate in PEM")]
    Empty,
    #[error("its certificates cannot be used")]
    Use(#[from] rustls::server::VerifierBuilderError),
}

impl Certificates {
    /// Follows the file with the client CA for ever; without the option nothing is asked of callers.
    pub(super) async fn follow_callers(&self, readiness: &Readiness) -> Infallible {
        let Some(file) = &self.client_ca else {
            readiness.pass(CALLERS);
            return std::future::pending().await;
        };
        let mut taken = Vec::new();
        loop {
            let read = std::fs::read(file).map_err(CallersError::from);
            match read.and_then(|pem| if pem == taken { Ok(None) } else { Ok(Some((verifier(&pem)?, pem))) }) {
                Ok(None) => {}
                Ok(Some((verifier, pem))) => {
                    tracing::info!(file = %file.display(), "took the client CA; only its holders may call the webhook");
                    taken = pem;
                    self.callers.send_replace(Some(verifier));
                    self.offer();
                    readiness.pass(CALLERS);
                }
                // Never open to everybody: until there is one nobody is served, and afterwards the one before goes on.
                Err(error) => {
                    let what = format!("{} (--webhook-client-ca): {}", file.display(), error_chain(&error));
                    tracing::warn!(error = what, "the client CA cannot be used");
                    if taken.is_empty() {
                        readiness.fail(CALLERS, what);
                    }
                }
            }
            self.clock.wait(crate::tls::mounted::POLL).await;
        }
    }
}

fn verifier(pem: &[u8]) -> Result<Arc<dyn ClientCertVerifier>, CallersError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(pem).flatten());
    if roots.is_empty() {
        return Err(CallersError::Empty);
    }
    Ok(WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(provider())).build()?)
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;
    use crate::tls::serving::Serving;

    fn authority() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn signed(by: &CertifiedIssuer<'static, KeyPair>) -> (CertificateDer<'static>, PrivatePkcs8KeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(["webhook".to_owned()]).unwrap().signed_by(&key, by).unwrap();
        (leaf.der().clone(), PrivatePkcs8KeyDer::from(key.serialize_der()))
    }

    /// Review B7: no caller without the certificate gets as far as a request.
    #[tokio::test]
    async fn only_whoever_shows_a_certificate_of_the_client_ca_gets_through() {
        let (ours, apis, others) = (authority(), authority(), authority());
        let (leaf, key) = signed(&ours);
        let serving = Serving::new(vec![leaf], key.into()).unwrap();
        let config = serving.config_for(verifier(apis.pem().as_bytes()).unwrap()).unwrap();
        for (shown, expected) in [(Some(&apis), true), (Some(&others), false), (None, false)] {
            let mut roots = RootCertStore::empty();
            roots.add(ours.der().clone()).unwrap();
            let builder = rustls::ClientConfig::builder_with_provider(Arc::new(provider()));
            let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
            let client = match shown.map(signed) {
                Some((leaf, key)) => builder.with_client_auth_cert(vec![leaf], key.into()).unwrap(),
                None => builder.with_no_client_auth(),
            };
            let (near, far) = duplex(1 << 16);
            let accepting = TlsAcceptor::from(config.clone()).accept(far);
            let asking = async {
                let name = ServerName::try_from("webhook").unwrap();
                let mut stream = TlsConnector::from(Arc::new(client)).connect(name, near).await?;
                stream.write_all(b"a review").await?;
                stream.read_u8().await
            };
            let answering = async {
                let mut stream = accepting.await?;
                let mut heard = [0; 8];
                stream.read_exact(&mut heard).await?;
                stream.write_all(b"!").await?;
                stream.flush().await
            };
            let (asked, answered) = tokio::join!(asking, answering);
            assert_eq!((asked.is_ok(), answered.is_ok()), (expected, expected));
        }
        assert!(matches!(verifier(b"no certificate"), Err(CallersError::Empty)));
    }
}
