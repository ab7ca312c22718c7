use std::sync::LazyLock;

use proptest::prelude::*;
use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::*;

/// 2027-01-15.
const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

#[test]
fn a_sound_certificate_comes_out_as_it_went_in() {
    let merged = merged(&[("service-ca.crt", &ca("service"))]);
    assert_eq!(merged.pem, ca("service"));
    assert_eq!(merged.counts, [("service-ca.crt".to_owned(), 1)]);
    assert_eq!(merged.skipped, []);
}

#[test]
fn sources_follow_each_other_in_their_order_and_repeated_certificates_are_counted() {
    let (one, two) = (ca("one"), ca("two"));
    let merged = merged(&[("first", &two), ("second", &format!("{one}{two}{two}")), ("third", &one)]);
    assert_eq!(merged.pem, format!("{two}{one}"));
    assert_eq!(counts(&merged), [1, 1, 0]);
    assert_eq!(
        report(&merged),
        ["second: 2 certificates were there already", "third: 1 certificate was there already"]
    );
}

#[test]
fn each_certificate_of_the_bundle_says_what_it_is_and_whence_it_came() {
    let (one, two) = (ca("one"), ca("two"));
    let merged = merged(&[("first", &two), ("second", &format!("{two}{one}"))]);
    let told: Vec<_> =
        merged.certificates.iter().map(|certificate| (certificate.source, certificate.subject.as_str())).collect();
    assert_eq!(told, [(0, "two"), (1, "one")]);
    for (certificate, pem) in merged.certificates.iter().zip([two, one]) {
        let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        assert!(
            certificate.end.len() > 128 && base64.trim_end_matches('=').ends_with(&certificate.end),
            "{certificate:?}"
        );
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let fingerprint: String = Sha256::digest(&der).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(certificate.fingerprint, fingerprint);
    }
}

#[test]
fn every_way_in_which_files_are_joined_and_saved_is_read() {
    let (one, two) = (ca("one"), ca("two"));
    for (what, text) in [
        ("no final newline", format!("{one}{}", two.trim_end())),
        ("cat of a file without a final newline", format!("{}{two}", one.trim_end())),
        ("CRLF", format!("{one}{two}").replace('\n', "\r\n")),
        ("a byte order mark", format!("\u{feff}{one}\u{feff}{two}")),
        ("text between", format!("# one\nsubject=CN = one\n{one}\n\nBag Attributes: <none>\n{two}# end")),
        ("one line each", format!("{}\n{}", one.replace('\n', ""), two.replace('\n', ""))),
        ("spaces", format!("  {}  \t{}", one.replace('\n', " \n  "), two)),
        ("the old label", format!("{one}{two}").replace(" CERTIFICATE", " X509 CERTIFICATE")),
        ("no padding", format!("{one}{two}").replace('=', "")),
        ("NUL bytes outside", format!("\0\0{one}\0{two}\0")),
    ] {
        let merged = merged(&[("source", &text)]);
        assert_eq!(merged.pem, format!("{one}{two}"), "{what}");
        assert_eq!(merged.skipped, [], "{what}");
    }
}

#[test]
fn a_broken_block_costs_no_other_its_place() {
    let (one, two) = (ca("one"), ca("two"));
    let der = CertificateDer::from_pem_slice(one.as_bytes()).unwrap();
    let wrapped = |bytes: &[u8]| pem_block(bytes);
    for (broken, why) in [
        (one.replace("-----END CERTIFICATE-----\n", ""), "block 1 is broken: it has no end"),
        (one.replace("-----BEGIN CERTIFICATE-----\n", ""), "block 1 is broken: it has no beginning"),
        (
            one.replace("-----END CERTIFICATE", "-----END X509"),
            "block 1 is broken: its last line does not fit its first",
        ),
        (one.replacen("MII", "M(I", 1), "block 1 is broken: it is not base64"),
        (wrapped(b"not a certificate"), "block 1 is broken: it holds no certificate"),
        (wrapped(&der[..der.len() - 1]), "block 1 is broken: it holds no certificate"),
        (wrapped(&[&der, &b"\0"[..]].concat()), "block 1 is broken: it holds no certificate"),
        (wrapped(b""), "block 1 is broken: it holds no certificate"),
        (wrapped(&bad_name(&der)), "block 1 is broken: a name in it is no text"),
    ] {
        let merged = merged(&[("odh", &format!("{broken}{two}"))]);
        assert_eq!(merged.pem, two, "{why}");
        assert_eq!(report(&merged), [format!("odh: {why}")]);
    }
}

#[test]
fn a_first_line_that_is_not_closed_is_told() {
    let text = ca("one").replace("CERTIFICATE-----\nMII", "CERTIFICATE\nMII");
    let merged = merged(&[("odh", &format!("{text}{}", ca("two")))]);
    assert_eq!(merged.pem, ca("two"));
    assert!(report(&merged).contains(&"odh: block 1 is broken: its first line is not closed".to_owned()));
}

#[test]
fn what_has_expired_is_left_out_with_its_date_and_what_is_not_yet_valid_stays() {
    let old = certificate_of("old root", |params| params.not_after = date_time_ymd(2021, 9, 30));
    let early = certificate_of("early", |params| params.not_before = date_time_ymd(2040, 1, 1));
    let endless = certificate_of("endless", |params| params.not_after = date_time_ymd(9999, 12, 31));
    let merged = merged(&[("odh", &format!("{old}{early}{endless}"))]);
    assert_eq!(merged.pem, format!("{early}{endless}"));
    assert_eq!(report(&merged), ["odh: block 1 (old root) expired on 2021-09-30"]);
}

#[test]
fn a_certificate_is_good_to_its_last_second() {
    let last = certificate_of("last", |params| params.not_after = date_time_ymd(2027, 1, 15));
    let end = Timestamp::from_second(date_time_ymd(2027, 1, 15).unix_timestamp()).unwrap();
    let source = [Source { name: "source", bytes: last.as_bytes() }];
    assert_eq!(merge(&source, end).pem, last);
    assert_eq!(merge(&source, end + jiff::SignedDuration::from_secs(1)).pem, "");
}

#[test]
fn what_is_no_certificate_is_named_and_nothing_of_a_key_is_repeated() {
    let key = KeyPair::generate().unwrap().serialize_pem();
    let trusted = ca("one").replace(" CERTIFICATE", " TRUSTED CERTIFICATE");
    let list = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
    let odd = "-----BEGIN hunter2-----\nAAAA\n-----END hunter2-----\n";
    let merged = merged(&[("odh", &format!("{key}{trusted}{list}{odd}{}", ca("two")))]);
    assert_eq!(merged.pem, ca("two"));
    assert_eq!(
        report(&merged),
        [
            "odh: block 1 is a private key, which does not belong where agents can read it",
            "odh: block 2 is not a certificate but TRUSTED CERTIFICATE",
            "odh: block 3 is not a certificate but X509 CRL",
            "odh: block 4 is not a certificate",
        ]
    );
    let secret = key.lines().nth(1).unwrap();
    assert!(!format!("{merged:?}").contains(secret));
}

#[test]
fn sources_without_anything_are_named() {
    let merged = merge(
        &[
            Source { name: "zero", bytes: b"" },
            Source { name: "blank", bytes: b" \n\n" },
            Source { name: "text", bytes: b"see the wiki" },
            Source { name: "der", bytes: &CertificateDer::from_pem_slice(ca("one").as_bytes()).unwrap() },
            Source {
                name: "utf-16",
                bytes: &"-----BEGIN".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>(),
            },
        ],
        NOW,
    );
    assert_eq!(merged.pem, "");
    let none = ["zero: is empty", "blank: is empty"].map(String::from).into_iter();
    let no_block = ["text", "der", "utf-16"].map(|name| format!("{name}: holds no PEM block"));
    assert_eq!(report(&merged), none.chain(no_block).collect::<Vec<_>>());
}

#[test]
fn a_bundle_has_limits_and_says_where_it_stopped() {
    let many = "-----BEGIN X-----\n-----END X-----\n".repeat(MAX_BLOCKS - 1);
    let merged_blocks = merged(&[("many", &format!("{many}{}{}", ca("one"), ca("two"))), ("late", &ca("three"))]);
    assert_eq!(merged_blocks.pem, ca("one"));
    let too_much = |source: &str, block| SkippedBlock { source: source.to_owned(), why: SkipReason::TooMuch { block } };
    let end = &merged_blocks.skipped[merged_blocks.skipped.len() - 2..];
    assert_eq!(end, [too_much("many", MAX_BLOCKS + 1), too_much("late", 1)]);

    let large: String = ["first", "second", "third"].map(megabyte).concat();
    let merged = merged(&[("large", &format!("{large}{}{}", megabyte("fourth"), ca("one")))]);
    assert_eq!(merged.skipped, [too_much("large", 4)]);
    assert!(merged.pem == large, "not the three before it");
}

/// Review A8: a bundle of more than 1 MiB was refused by the API server in each pass.
#[test]
fn a_bundle_for_a_config_map_is_one_that_the_api_server_takes() {
    // A certificate below the mebibyte of an object, and above it with the names and keys around it.
    let (small, large) = (ca("one"), megabyte("large"));
    let sources = [("first", &small), ("large", &large)].map(|(name, text)| Source { name, bytes: text.as_bytes() });
    let merged = merge_at_most(&sources, NOW, MAX_BYTES_IN_CONFIG_MAP);
    assert_eq!(merged.pem, small);
    assert_eq!(merged.skipped, [SkippedBlock { source: "large".to_owned(), why: SkipReason::TooMuch { block: 1 } }]);
}

#[test]
fn the_roots_that_the_program_carries_are_all_sound() {
    let roots = system_roots();
    let merged = merged(&[("system roots", &roots)]);
    assert_eq!(merged.pem, roots);
    assert!(counts(&merged)[0] > 100, "{:?}", merged.counts);
    assert_eq!(merged.skipped, []);
}

#[test]
fn roots_that_have_expired_are_dropped_too() {
    let roots = system_roots();
    let far: Timestamp = "2200-01-01T00:00:00Z".parse().unwrap();
    assert_eq!(merge(&[Source { name: "system roots", bytes: roots.as_bytes() }], far).pem, "");
}

#[test]
fn the_script_reads_and_writes_where_the_command_does() {
    for path in DEFAULT_SOURCES.iter().chain([&OUTPUT]) {
        assert!(AGENT_SCRIPT.contains(path), "{path}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_make_a_bundle_that_every_client_can_load(sources in prop::collection::vec(source(), 0..5)) {
        let sources: Vec<_> = sources.iter().map(|bytes| Source { name: "source", bytes }).collect();
        let merged = merge(&sources, NOW);
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(merged.pem.as_bytes()).collect();
        let certificates = certificates.unwrap();
        let kept: usize = counts(&merged).iter().sum();
        prop_assert_eq!(certificates.len(), kept);
        // rustls looks into extensions, so a damaged one may be refused, as it is one by one; OpenSSL never looks.
        let sound = certificates.into_iter().filter(|c| POOL.contains(&pem_block(c)));
        prop_assert_eq!(RootCertStore::empty().add_parsable_certificates(sound).1, 0);
        prop_assert!(merged.pem.is_empty() || merged.pem.ends_with("-----\n"));
    }

    #[test]
    fn every_sound_certificate_is_in_the_bundle_once_whatever_stands_around_it(
        before in prop::collection::vec(debris(), 0..4),
        picks in prop::collection::vec(0..POOL.len(), 1..6),
        after in prop::collection::vec(debris(), 0..4),
    ) {
        let mut bytes = before.concat();
        picks.iter().for_each(|pick| bytes.extend_from_slice(POOL[*pick].as_bytes()));
        bytes.extend(after.concat());
        let merged = merge(&[Source { name: "source", bytes: &bytes }], NOW);
        for pick in picks {
            prop_assert_eq!(merged.pem.matches(POOL[pick].as_str()).count(), 1);
        }
    }

    #[test]
    fn merging_a_bundle_again_changes_nothing(sources in prop::collection::vec(source(), 0..5)) {
        let sources: Vec<_> = sources.iter().map(|bytes| Source { name: "source", bytes }).collect();
        let once = merge(&sources, NOW);
        prop_assert_eq!(&merge(&sources, NOW), &once);
        let again = merge(&[Source { name: "bundle", bytes: once.pem.as_bytes() }], NOW);
        prop_assert_eq!(again.pem, once.pem);
    }
}

/// Sound certificates to pick from.
static POOL: LazyLock<Vec<String>> = LazyLock::new(|| (0..4).map(|n| ca(&format!("pool {n}"))).collect());

/// What a file may hold: sound certificates between, or in the middle of, anything else.
fn source() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        3 => (0..POOL.len()).prop_map(|n| POOL[n].clone().into_bytes()),
        1 => (0..POOL.len()).prop_map(|n| POOL[n].trim_end().as_bytes().to_vec()),
        1 => damaged(),
        2 => debris(),
    ];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

/// A certificate with some bytes changed, inside its DER or in its text.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    (0..POOL.len(), any::<bool>(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(n, inside, at, byte)| {
        let mut der = CertificateDer::from_pem_slice(POOL[n].as_bytes()).unwrap().to_vec();
        let mut text = POOL[n].clone().into_bytes();
        let victim = if inside { &mut der } else { &mut text };
        let at = at.index(victim.len());
        victim[at] = byte;
        if inside { pem_block(&der).into_bytes() } else { text }
    })
}

fn debris() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        prop::sample::select(vec![
            "-----BEGIN CERTIFICATE-----\n",
            "-----END CERTIFICATE-----\n",
            "-----BEGIN ",
            "-----END ",
            "-----",
            "\n",
            "\r\n",
            "\u{feff}",
            "# a comment\n",
            "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n",
            "MIIB\n",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ]
}

fn merged(sources: &[(&str, &str)]) -> Merged {
    let sources: Vec<_> = sources.iter().map(|(name, text)| Source { name, bytes: text.as_bytes() }).collect();
    merge(&sources, NOW)
}

fn counts(merged: &Merged) -> Vec<usize> {
    merged.counts.iter().map(|(_, count)| *count).collect()
}

fn report(merged: &Merged) -> Vec<String> {
    merged.skipped.iter().map(ToString::to_string).collect()
}

/// The same name gives the same certificate within a test run.
fn ca(name: &str) -> String {
    certificate_of(name, |_| {})
}

fn certificate_of(name: &str, change: impl FnOnce(&mut CertificateParams)) -> String {
    // One key, and a serial number made of it and the name; RSA keys would do the same, slower. Ed25519 signs the same twice.
    static KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap());
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    change(&mut params);
    let der = params.self_signed(&*KEY).unwrap().der().clone();
    pem_block(&der)
}

/// A certificate of somewhat more than a megabyte.
fn megabyte(name: &str) -> String {
    certificate_of(name, |params| {
        params.custom_extensions.push(rcgen::CustomExtension::from_oid_content(&[1, 2, 3], vec![0; 800_000]));
    })
}

/// The certificate with a byte in its subject that is not UTF-8.
fn bad_name(der: &[u8]) -> Vec<u8> {
    let mut der = der.to_vec();
    let at = der.windows(3).rposition(|w| w == b"one").unwrap();
    der[at] = 0xff;
    der
}
