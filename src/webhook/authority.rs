//! The certificate authority of the webhook, and the serving certificates that it signs. Pure: the clock is a parameter.
//!
//! One authority for all replicas: with one each, `caBundle` would fit only the replica that wrote it last.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

/// A certificate authority: P-256, ten years.
#[derive(Debug)]
pub struct Authority {
    certificate: CertificateDer<'static>,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// Why an authority cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A key of the Secret is absent or no text.
    #[error("key {0} is missing or no text")]
    Missing(&'static str),
    /// The certificate cannot be read.
    #[error("key {TLS_CRT} holds no certificate")]
    Certificate,
    /// The private key cannot be read.
    #[error("key {TLS_KEY} holds no private key: {0}")]
    Key(#[source] rcgen::Error),
    /// The certificate is for another key.
    #[error("key {TLS_CRT} and key {TLS_KEY} do not belong together")]
    Mismatch,
    /// The certificate may not sign others.
    #[error("key {TLS_CRT} holds no authority's certificate")]
    NotAnAuthority,
    /// Too little time is left for a serving certificate.
    #[error("the authority's certificate expires within {LEAF_DAYS} days")]
    Expiring,
    /// The cryptography library refuses.
    #[error("failed to sign a certificate")]
    Sign(#[from] rcgen::Error),
    /// The TLS library refuses.
    #[error("failed to use a certificate")]
    Tls(#[from] rustls::Error),
}

impl Authority {
    /// A new authority.
    pub fn generate(now: Timestamp) -> Result<Self, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "agent-tracing-webhook-ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        valid(&mut params, now - SKEW, now + days(AUTHORITY_DAYS));
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        let pem = certificate.pem();
        Ok(Self { certificate: certificate.der().clone(), pem, issuer: Issuer::new(params, key) })
    }

    /// Reads the Secret's data.
    pub fn parse(data: &BTreeMap<String, ByteString>, now: Timestamp) -> Result<Self, AuthorityError> {
        let text = |key: &'static str| {
            let text = data.get(key).and_then(|bytes| std::str::from_utf8(&bytes.0).ok());
            text.ok_or(AuthorityError::Missing(key))
        };
        let (pem, key_pem) = (text(TLS_CRT)?, text(TLS_KEY)?);
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| AuthorityError::Certificate)?;
        let key = KeyPair::from_pem(key_pem).map_err(AuthorityError::Key)?;
        let (_, x509) = X509Certificate::from_der(&certificate).map_err(|_| AuthorityError::Certificate)?;
        if x509.public_key().raw != key.subject_public_key_info() {
            return Err(AuthorityError::Mismatch);
        }
        if !x509.is_ca() {
            return Err(AuthorityError::NotAnAuthority);
        }
        if x509.validity().not_after.timestamp() < (now + days(LEAF_DAYS)).as_second() {
            return Err(AuthorityError::Expiring);
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { pem: pem.to_owned(), certificate, issuer })
    }

    /// The Secret's data.
    pub fn data(&self) -> BTreeMap<String, ByteString> {
        let bytes = |text: String| ByteString(text.into_bytes());
        let key = self.issuer.key().serialize_pem();
        BTreeMap::from([(TLS_CRT.to_owned(), bytes(self.pem.clone())), (TLS_KEY.to_owned(), bytes(key))])
    }

    /// The certificate as `caBundle` wants it.
    pub fn bundle(&self) -> &[u8] {
        self.pem.as_bytes()
    }

    /// Whether clients that trust `bundle` trust what this authority signs.
    pub fn is_in(&self, bundle: &[u8]) -> bool {
        CertificateDer::pem_slice_iter(bundle).any(|certificate| certificate.is_ok_and(|c| c == self.certificate))
    }

    /// Signs a serving certificate for `hosts`: names or addresses.
    pub fn sign(&self, hosts: &[String], now: Timestamp) -> Result<Leaf, AuthorityError> {
        let mut params = CertificateParams::default();
        for host in hosts {
            params.subject_alt_names.push(match host.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(host.as_str().try_into()?),
            });
        }
        // No common name: it is limited to 64 characters, which a long namespace exceeds, and nobody reads it.
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let not_after = now + days(LEAF_DAYS);
        valid(&mut params, now - SKEW, not_after);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.der().clone();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = server_config(certificate.clone(), key)?;
        Ok(Leaf { certificate, config, renew_at: now + days(LEAF_DAYS * 2 / 3), not_after })
    }
}

/// A serving certificate, ready for use.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// TLS as the webhook serves it.
    pub config: Arc<ServerConfig>,
    /// When a new one is due: two thirds of its life, judged by the wall clock.
    pub renew_at: Timestamp,
    /// When it expires.
    pub not_after: Timestamp,
}

/// HTTP/1.1 only: it is what the API server speaks to webhooks. No resumption: it keeps no tickets for webhooks.
fn server_config(
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.with_no_client_auth().with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn valid(params: &mut CertificateParams, from: Timestamp, until: Timestamp) {
    // rcgen wants the `time` crate's type, which it does not export.
    let time = |at: Timestamp| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(at.as_second().unsigned_abs());
    (params.not_before, params.not_after) = (time(from), time(until));
}

fn days(days: u32) -> Duration {
    Duration::from_secs(u64::from(days) * 24 * 60 * 60)
}

const TLS_CRT: &str = "tls.crt";
const TLS_KEY: &str = "tls.key";
const AUTHORITY_DAYS: u32 = 3650;
const LEAF_DAYS: u32 = 90;
/// Other machines' clocks may be behind ours.
const SKEW: Duration = Duration::from_secs(60 * 60);

#[cfg(test)]
mod tests {
    use rustls::pki_types::{ServerName, UnixTime};

    use super::*;

    const NOW: &str = "2026-03-01T12:00:00Z";

    #[test]
    fn an_authority_survives_its_secret() {
        let authority = Authority::generate(now()).unwrap();
        let read = Authority::parse(&authority.data(), now()).unwrap();
        assert!(read.is_in(authority.bundle()));
        assert_eq!(read.data(), authority.data());
    }

    #[test]
    fn a_leaf_is_valid_for_its_names_and_addresses_under_the_published_bundle() {
        let authority = Authority::generate(now()).unwrap();
        let reread = Authority::parse(&authority.data(), now()).unwrap();
        let hosts = ["agent-tracing-webhook.agent-tracing-system.svc", "127.0.0.1"].map(str::to_owned);
        let leaf = reread.sign(&hosts, now()).unwrap();
        for host in &hosts {
            assert_eq!(verify(&leaf, authority.bundle(), host, now()), Ok(()), "{host}");
        }
        assert!(verify(&leaf, authority.bundle(), "other.svc", now()).is_err());
        assert!(verify(&leaf, Authority::generate(now()).unwrap().bundle(), &hosts[0], now()).is_err());
        assert!(verify(&leaf, authority.bundle(), &hosts[0], now() + days(91)).is_err());
    }

    #[test]
    fn a_leaf_is_renewed_at_two_thirds_of_its_life() {
        let leaf = Authority::generate(now()).unwrap().sign(&["a.svc".to_owned()], now()).unwrap();
        assert_eq!(leaf.renew_at, now() + days(60));
        assert_eq!(leaf.not_after, now() + days(90));
    }

    #[test]
    fn a_namespace_of_63_letters_fits() {
        let host = format!("agent-tracing-webhook.{}.svc.cluster.local", "n".repeat(63));
        assert!(Authority::generate(now()).unwrap().sign(&[host], now()).is_ok());
    }

    #[test]
    fn a_secret_that_cannot_work_says_why() {
        let good = Authority::generate(now()).unwrap();
        let parse = |data| Authority::parse(&data, now()).unwrap_err().to_string();
        let with = |key: &str, value: &[u8]| {
            let mut data = good.data();
            data.insert(key.to_owned(), ByteString(value.to_vec()));
            data
        };
        assert_eq!(parse(BTreeMap::new()), "key tls.crt is missing or no text");
        assert_eq!(parse(with("tls.crt", b"garbage")), "key tls.crt holds no certificate");
        assert!(parse(with("tls.key", b"garbage")).starts_with("key tls.key holds no private key"));
        let other = Authority::generate(now()).unwrap().data()["tls.key"].clone();
        assert_eq!(parse(with("tls.key", &other.0)), "key tls.crt and key tls.key do not belong together");
        let late = Authority::parse(&good.data(), now() + days(3600)).unwrap_err().to_string();
        assert_eq!(late, "the authority's certificate expires within 90 days");
    }

    #[test]
    fn a_bundle_of_several_certificates_and_rubbish_is_searched_through() {
        let (one, two) = (Authority::generate(now()).unwrap(), Authority::generate(now()).unwrap());
        let both = [b"# comment\n", one.bundle(), two.bundle()].concat();
        assert!(one.is_in(&both) && two.is_in(&both));
        assert!(!one.is_in(two.bundle()) && !one.is_in(b"") && !one.is_in(b"Cg=="));
    }

    fn now() -> Timestamp {
        NOW.parse().unwrap()
    }

    /// What a client does that trusts only `bundle`.
    fn verify(leaf: &Leaf, bundle: &[u8], host: &str, at: Timestamp) -> Result<(), rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(bundle) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let at = UnixTime::since_unix_epoch(Duration::from_secs(at.as_second().unsigned_abs()));
        let host = ServerName::try_from(host.to_owned()).unwrap();
        let verifier = verifier.build().unwrap();
        use rustls::client::danger::ServerCertVerifier;
        verifier.verify_server_cert(&leaf.certificate, &[], &host, &[], at).map(|_| ())
    }
}
