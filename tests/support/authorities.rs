//! Certificate authorities for tests.
#![allow(dead_code, reason = "each test file uses its own part")]

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

/// A certificate authority: P-256.
pub struct Authority {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// One that is valid for long.
    pub fn new(name: &str) -> Self {
        Self::until(name, 4096)
    }

    /// One that expires with the first of January.
    pub fn until(name: &str, year: i32) -> Self {
        let params = params(name, year);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// As a file holds it.
    pub fn pem(&self) -> String {
        self.certificate.pem().replace("\r\n", "\n")
    }

    /// As a connection does.
    pub fn der(&self) -> CertificateDer<'static> {
        self.certificate.der().clone()
    }

    /// The private key, which belongs into no bundle.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A server's certificate and key.
    pub fn signs(&self, host: &str) -> (CertificateDer<'static>, PrivatePkcs8KeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new([host.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        (leaf.der().clone(), PrivatePkcs8KeyDer::from(key.serialize_der()))
    }
}

/// Different certificates in one file.
pub fn certificates(count: usize) -> String {
    let key = KeyPair::generate().unwrap();
    let pem = |n: usize| params(&format!("authority {n}"), 4096).self_signed(&key).unwrap().pem();
    (0..count).map(pem).collect()
}

fn params(name: &str, year: i32) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_after = date_time_ymd(year, 1, 1);
    params
}
