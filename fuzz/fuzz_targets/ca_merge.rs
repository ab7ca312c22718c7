//! Any bytes into the merge of certificate authorities: it never panics, and keeps its promises.
//!
//! The mutator alone never gets through base64, so the first byte chooses what the rest is: a PEM file, two files, or the
//! bytes of one certificate inside a block.

#![no_main]

use std::collections::HashSet;

use agent_tracing::core::ca_bundle::{MAX_BYTES, Merged, Source, SkipReason, merge};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

fuzz_target!(|data: &[u8]| {
    let Some((how, rest)) = data.split_first() else { return };
    let block;
    let (first, second) = match how % 3 {
        0 => (rest, &[][..]),
        1 => rest.split_at(rest.len() / 2),
        _ => {
            block = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----", STANDARD.encode(rest));
            (block.as_bytes(), block.as_bytes())
        }
    };
    let merged = both(first, second);
    assert_eq!(merged, both(first, second), "the same input, another bundle");
    let pem = merged.pem.as_bytes();
    assert!(pem.is_empty() || pem.ends_with(b"-----END CERTIFICATE-----\n"));
    assert!(pem.len() <= MAX_BYTES);
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem).map(|c| c.expect("a sound block")).collect();
    assert_eq!(certificates.len(), merged.counts.iter().map(|(_, count)| count).sum::<usize>());
    assert_eq!(HashSet::<_>::from_iter(&certificates).len(), certificates.len(), "a certificate twice");
    let again = both(pem, b"");
    assert_eq!(again.pem, merged.pem, "merging it again changed it");
    assert!(again.skipped.iter().all(|s| s.source == "second" || (s.why == SkipReason::Empty && pem.is_empty())));
    for skipped in &merged.skipped {
        let line = skipped.to_string();
        assert!(line.len() < 400 && !line.contains(char::is_control), "a line in the log: {line:?}");
    }
});

fn both(first: &[u8], second: &[u8]) -> Merged {
    let now = Timestamp::constant(1_800_000_000, 0);
    merge(&[Source { name: "first", bytes: first }, Source { name: "second", bytes: second }], now)
}
