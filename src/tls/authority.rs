//! A certificate authority of the webhook, and the serving certificates that it signs. Pure: the clock is a parameter.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::serving::{NotNow, Serving, ServingError, Validity};

/// A certificate authority: P-256, a year.
#[derive(Debug)]
pub struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    validity: Validity,
}

/// Why an authority cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A key of the Secret is absent or no text.
    #[error("key {0} is missing or no text")]
    Missing(&'static str),
    /// A certificate cannot be read.
    #[error("key {0} holds no certificate")]
    Certificate(&'static str),
    /// A private key cannot be read.
    #[error("key {key} holds no private key: {source}")]
    Key {
        /// The key of the Secret.
        key: &'static str,
        /// What is wrong with it.
        source: rcgen::Error,
    },
    /// The certificate is for another key.
    #[error("key {0} and key {1} do not belong together")]
    Mismatch(&'static str, &'static str),
    /// The certificate may not sign others.
    #[error("key {0} holds no authority's certificate")]
    NotAnAuthority(&'static str),
    /// A time cannot be read.
    #[error("key {0} holds no time")]
    Time(&'static str),
    /// The authority is not valid now.
    #[error(transparent)]
    NotNow(#[from] NotNow),
    /// The cryptography library refuses.
    #[error("failed to sign a certificate")]
    Sign(#[from] rcgen::Error),
    /// The TLS library refuses.
    #[error("failed to use a certificate")]
    Serve(#[from] ServingError),
}

impl Authority {
    /// A new authority.
    pub fn generate(now: Timestamp) -> Result<Self, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "agent-tracing-webhook-ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let validity = Validity { from: now - SKEW, until: now + AUTHORITY_LIFE };
        valid(&mut params, validity);
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Self { certificate, issuer: Issuer::new(params, key), validity })
    }

    /// An authority of this certificate, whenever it is valid; `names` are the keys of the Secret that it comes from.
    pub fn read(
        certificate: &CertificateDer<'static>,
        key_pem: &str,
        names: (&'static str, &'static str),
    ) -> Result<Self, AuthorityError> {
        let key = KeyPair::from_pem(key_pem).map_err(|source| AuthorityError::Key { key: names.1, source })?;
        let unreadable = || AuthorityError::Certificate(names.0);
        let (_, x509) = X509Certificate::from_der(certificate).map_err(|_| unreadable())?;
        if x509.public_key().raw != key.subject_public_key_info() {
            return Err(AuthorityError::Mismatch(names.0, names.1));
        }
        if !x509.is_ca() {
            return Err(AuthorityError::NotAnAuthority(names.0));
        }
        let validity = Validity::of(certificate).ok_or_else(unreadable)?;
        Ok(Self { certificate: certificate.clone(), issuer: Issuer::from_ca_cert_der(certificate, key)?, validity })
    }

    /// Its certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Its private key.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// From when to when it is of use.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// When another one is due: at two thirds of its life, and of a year where it has more. What it signs until then it
    /// outlives.
    pub fn rotate_at(&self) -> Timestamp {
        let life = self.validity.until.duration_since(self.validity.from).unsigned_abs();
        self.validity.from + life.min(AUTHORITY_LIFE + SKEW) * 2 / 3
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
        let until = (now + LEAF_LIFE).min(self.validity.until);
        valid(&mut params, Validity { from: now - SKEW, until });
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.der().clone();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let renew_at = now + until.duration_since(now).unsigned_abs() * 2 / 3;
        Ok(Leaf { serving: Serving::new(vec![certificate], key)?, signer: self.certificate.clone(), renew_at })
    }
}

/// A serving certificate of ours.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// The certificate.
    pub serving: Serving,
    /// The authority that signed it.
    pub signer: CertificateDer<'static>,
    /// When a new one is due: two thirds of its life, judged by the wall clock.
    pub renew_at: Timestamp,
}

fn valid(params: &mut CertificateParams, Validity { from, until }: Validity) {
    // rcgen wants the `time` crate's type, which it does not export.
    let time = |at: Timestamp| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(at.as_second().unsigned_abs());
    (params.not_before, params.not_after) = (time(from), time(until));
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const AUTHORITY_LIFE: Duration = DAY.saturating_mul(365);
const LEAF_LIFE: Duration = DAY.saturating_mul(90);
/// Other machines' clocks may be behind ours.
const SKEW: Duration = Duration::from_secs(60 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ca_bundle::pem_block;

    const NOW: &str = "2026-03-01T12:00:00Z";

    #[test]
    fn a_leaf_is_valid_for_its_names_and_addresses_under_the_published_bundle() {
        let authority = Authority::generate(now()).unwrap();
        let reread = Authority::read(authority.certificate(), &authority.key_pem(), ("crt", "key")).unwrap();
        let hosts = ["agent-tracing-webhook.agent-tracing-system.svc", "127.0.0.1"].map(str::to_owned);
        let leaf = reread.sign(&hosts, now()).unwrap();
        let bundle = pem_block(authority.certificate());
        for host in &hosts {
            assert!(leaf.serving.is_trusted(bundle.as_bytes(), host, now()), "{host}");
        }
        assert!(!leaf.serving.is_trusted(bundle.as_bytes(), "other.svc", now()));
        assert!(!leaf.serving.is_trusted(bundle.as_bytes(), &hosts[0], now() + 91 * DAY));
        assert!(!leaf.serving.is_trusted(bundle.as_bytes(), &hosts[0], now() - DAY));
        let other = pem_block(Authority::generate(now()).unwrap().certificate());
        assert!(!leaf.serving.is_trusted(other.as_bytes(), &hosts[0], now()));
        // Rubbish around it does not hide it.
        let both = ["# comment\n", &other, &bundle].concat();
        assert!(leaf.serving.is_trusted(both.as_bytes(), &hosts[0], now()));
    }

    #[test]
    fn a_leaf_lives_90_days_and_is_renewed_after_60() {
        let leaf = Authority::generate(now()).unwrap().sign(&["a.svc".to_owned()], now()).unwrap();
        assert_eq!(leaf.renew_at, now() + 60 * DAY);
        assert_eq!(leaf.serving.validity().until, now() + 90 * DAY);
    }

    #[test]
    fn no_leaf_outlives_its_authority() {
        let authority = Authority::generate(now()).unwrap();
        let late = now() + 300 * DAY;
        let leaf = authority.sign(&["a.svc".to_owned()], late).unwrap();
        assert_eq!(leaf.serving.validity().until, authority.validity().until);
        assert!(leaf.renew_at < authority.validity().until && leaf.renew_at > late);
    }

    #[test]
    fn an_authority_is_due_in_time_for_every_leaf_that_it_signs() {
        let authority = Authority::generate(now()).unwrap();
        let days = authority.rotate_at().duration_since(now()).as_hours() / 24;
        assert_eq!(days, 243);
        assert!(authority.rotate_at() + LEAF_LIFE < authority.validity().until);
    }

    #[test]
    fn a_namespace_of_63_letters_fits() {
        let host = format!("agent-tracing-webhook.{}.svc.cluster.local", "n".repeat(63));
        assert!(Authority::generate(now()).unwrap().sign(&[host], now()).is_ok());
    }

    fn now() -> Timestamp {
        NOW.parse().unwrap()
    }
}
