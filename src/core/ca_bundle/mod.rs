//! Merges certificate authorities into one PEM bundle that every TLS library can load.
//!
//! A CA file *replaces* a client's trust: Python's `requests` with `REQUESTS_CA_BUNDLE` trusts nothing else, so an agent's
//! bundle holds the public roots as well as the cluster's. And OpenSSL reads all of a file or nothing: one broken block, or
//! the `-----END CERTIFICATE----------BEGIN CERTIFICATE-----` that `cat` makes of files without a final newline, and every
//! TLS connection of the agent fails. So each block is parsed by itself, what is sound is written anew, and the rest is named.

pub mod certificate;
pub mod log;
mod usage;

pub use usage::uses_config_map;

use std::collections::BTreeSet;
use std::fmt;

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use sha2::{Digest, Sha256};

/// Where the command `merge-ca` and [`AGENT_SCRIPT`] leave the bundle.
pub const OUTPUT: &str = "/tmp/ca-bundle/combined-ca.crt";
/// The folder where an agent's pod mounts the ConfigMaps with certificate authorities, one file for each.
pub const SOURCES_DIRECTORY: &str = "/tmp/ca-sources";
/// What is merged besides the system's roots, in this order: the service CA that OpenShift puts beside a pod's token, and
/// [`SOURCES_DIRECTORY`].
pub const DEFAULT_SOURCES: [&str; 2] =
    ["/var/run/secrets/kubernetes.io/serviceaccount/service-ca.crt", SOURCES_DIRECTORY];
/// The merge in the agent's own image, with no more than a POSIX shell, `mv`, `rm` and `chmod`: `sh -c SCRIPT`.
///
/// It finds certificates and mends the joints between files; what a certificate holds (broken, expired) it cannot see.
pub const AGENT_SCRIPT: &str = include_str!("agent.sh");

/// No bundle is longer, in bytes: twenty times the public roots, and every process of an agent reads it.
pub const MAX_BYTES: usize = 4 << 20;
/// The same where the bundle is in a ConfigMap: an object with more than a mebibyte is refused.
pub const MAX_BYTES_IN_CONFIG_MAP: usize = 1_000_000;
/// No more blocks are looked at, of all sources together.
pub const MAX_BLOCKS: usize = 10_000;

/// Something to merge.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// How the report calls it.
    pub name: &'a str,
    /// PEM, or whatever was found in its place.
    pub bytes: &'a [u8],
}

/// A bundle, and what became of its sources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// Every sound certificate once, in the order of first appearance. Ends in a newline unless it is empty.
    pub pem: String,
    /// How many certificates each source gave, in the order of the sources.
    pub counts: Vec<(String, usize)>,
    /// What tells each certificate of the bundle from all others, in its order.
    pub certificates: Vec<BundledCertificate>,
    /// What is not in the bundle.
    pub skipped: Vec<SkippedBlock>,
}

/// A certificate of the bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundledCertificate {
    /// Which of the sources gave it.
    pub source: usize,
    /// SHA-256 of its DER, in small hexadecimal digits.
    pub fingerprint: String,
    /// How its base64 ends, without padding. That is its signature: like no other's, and a shell can tell it.
    pub end: String,
    /// The subject's common name, or nothing; without control characters.
    pub subject: String,
}

/// Something that is not in the bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedBlock {
    /// The source's name.
    pub source: String,
    /// The reason.
    pub why: SkipReason,
}

/// Why something is not in the bundle. Blocks are counted from 1 within their source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SkipReason {
    /// There is nothing but white space.
    Empty,
    /// There is something, but no PEM block.
    NoBlock,
    /// A block that cannot be read.
    Broken {
        /// Which.
        block: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A block of another kind.
    NotACertificate {
        /// Which.
        block: usize,
        /// Its kind, when it is one in capitals.
        label: String,
    },
    /// A private key. Nothing of it is repeated anywhere.
    PrivateKey {
        /// Which.
        block: usize,
    },
    /// The certificate's time is over.
    Expired {
        /// Which.
        block: usize,
        /// Its last day, in UTC.
        on: String,
        /// The subject's common name, or nothing.
        subject: String,
    },
    /// Certificates that were there already.
    Duplicates(usize),
    /// The bundle or the number of blocks has reached its limit: nothing from this block on is in it.
    TooMuch {
        /// Which.
        block: usize,
    },
}

/// Merges `sources`. The same input gives the same bundle, and a bundle merged again gives itself.
pub fn merge(sources: &[Source<'_>], now: Timestamp) -> Merged {
    merge_at_most(sources, now, MAX_BYTES)
}

/// The same to a bundle of so many bytes at most.
pub fn merge_at_most(sources: &[Source<'_>], now: Timestamp, most: usize) -> Merged {
    let mut merged = Merged::default();
    let mut seen = BTreeSet::new();
    let mut blocks_left = MAX_BLOCKS;
    for source in sources {
        let count = take(source, now, &mut MergeBudget { blocks: &mut blocks_left, most }, &mut seen, &mut merged);
        merged.counts.push((source.name.to_owned(), count));
    }
    merged
}

/// The public certificate authorities that the program carries (Mozilla's), as PEM.
pub fn system_roots() -> String {
    webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(|der| pem_block(der)).collect()
}

/// What may still be added.
struct MergeBudget<'a> {
    /// Blocks to look at.
    blocks: &'a mut usize,
    /// Bytes of the whole bundle.
    most: usize,
}

/// Adds the sound certificates of one source and returns their number.
fn take(
    source: &Source<'_>,
    now: Timestamp,
    left: &mut MergeBudget<'_>,
    seen: &mut BTreeSet<Vec<u8>>,
    merged: &mut Merged,
) -> usize {
    let (mut count, mut duplicates, mut number) = (0, 0, 0);
    let place = merged.counts.len();
    let mut skip = |why| merged.skipped.push(SkippedBlock { source: source.name.to_owned(), why });
    for found in (Blocks { rest: source.bytes }) {
        number += 1;
        if *left.blocks == 0 {
            skip(SkipReason::TooMuch { block: number });
            break;
        }
        *left.blocks -= 1;
        let (der, subject) = match take_block(found, number, now) {
            Ok((der, _)) if seen.contains(&der) => {
                duplicates += 1;
                continue;
            }
            Ok(sound) => sound,
            Err(why) => {
                skip(why);
                continue;
            }
        };
        let text = pem_block(&der);
        if merged.pem.len() + text.len() > left.most {
            skip(SkipReason::TooMuch { block: number });
            break;
        }
        merged.pem.push_str(&text);
        merged.certificates.push(summarize(place, &der, subject));
        seen.insert(der);
        count += 1;
    }
    if duplicates > 0 {
        skip(SkipReason::Duplicates(duplicates));
    }
    if number == 0 {
        skip(if source.bytes.trim_ascii().is_empty() { SkipReason::Empty } else { SkipReason::NoBlock });
    }
    count
}

fn summarize(source: usize, der: &[u8], subject: String) -> BundledCertificate {
    let fingerprint = Sha256::digest(der).iter().map(|byte| format!("{byte:02x}")).collect();
    // Three bytes are four characters: a tail that begins with one of these threes ends as the whole does.
    let from = der.len().saturating_sub(END_BYTES) / 3 * 3;
    let end = STANDARD.encode(&der[from..]).trim_end_matches('=').to_owned();
    BundledCertificate { source, fingerprint, end, subject }
}

/// The DER of a certificate that is of use to a client, and its subject's name.
fn take_block(found: PemBlock<'_>, block: usize, now: Timestamp) -> Result<(Vec<u8>, String), SkipReason> {
    let broken = |problem| SkipReason::Broken { block, problem };
    let (label, body) = match found {
        PemBlock::Block { label, body } => (label, body),
        PemBlock::Broken(problem) => return Err(broken(problem)),
    };
    match label {
        // The second is what OpenSSL wrote in the nineties and still reads.
        b"CERTIFICATE" | b"X509 CERTIFICATE" => {}
        _ if label.ends_with(b"PRIVATE KEY") => return Err(SkipReason::PrivateKey { block }),
        // `TRUSTED CERTIFICATE` too: what follows the certificate in it may well say that it is *not* to be trusted.
        _ => return Err(SkipReason::NotACertificate { block, label: escape_label(label) }),
    }
    let text: Vec<u8> = body.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let der = LENIENT.decode(text).map_err(|_| broken("it is not base64"))?;
    let certificate = certificate::parse(&der).map_err(broken)?;
    let subject = certificate.common_name.unwrap_or_default();
    let subject = subject.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
    // Compared as seconds: an end in the year 9999 is beyond what a `Timestamp` holds.
    if i64::try_from(certificate.not_after).is_ok_and(|end| end < now.as_second()) {
        return Err(SkipReason::Expired { block, on: date(certificate.not_after), subject });
    }
    Ok((der, subject))
}

/// One certificate in PEM: 64 characters a line, a newline at the end.
pub fn pem_block(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = String::with_capacity(text.len() + text.len() / LINE + 64);
    out.push_str("-----BEGIN CERTIFICATE-----\n");
    for (index, character) in text.chars().enumerate() {
        if index > 0 && index % LINE == 0 {
            out.push('\n');
        }
        out.push(character);
    }
    out.push_str("\n-----END CERTIFICATE-----\n");
    out
}

/// The day of a moment in the past.
fn date(second: u64) -> String {
    let date =
        Timestamp::from_second(i64::try_from(second).unwrap_or(0)).map(|moment| moment.to_zoned(TimeZone::UTC).date());
    date.map_or_else(|_| "a day before all days".to_owned(), |date| date.to_string())
}

/// A block's label, if it is one: what stands there could be anything, a secret too.
fn escape_label(label: &[u8]) -> String {
    let honest = label.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b' ');
    if honest { String::from_utf8_lossy(label).into_owned() } else { String::new() }
}

/// The PEM blocks of any bytes, in one pass.
struct Blocks<'a> {
    rest: &'a [u8],
}

/// What stands between the text.
enum PemBlock<'a> {
    Block { label: &'a [u8], body: &'a [u8] },
    Broken(&'static str),
}

impl<'a> Iterator for Blocks<'a> {
    type Item = PemBlock<'a>;

    fn next(&mut self) -> Option<PemBlock<'a>> {
        let first = marker(self.rest)?;
        self.rest = first.after;
        if !first.begins {
            return Some(PemBlock::Broken("it has no beginning"));
        }
        let Some(label) = first.label else { return Some(PemBlock::Broken("its first line is not closed")) };
        Some(match marker(self.rest) {
            Some(last) if !last.begins => {
                self.rest = last.after;
                match last.label == Some(label) {
                    true => PemBlock::Block { label, body: last.before },
                    false => PemBlock::Broken("its last line does not fit its first"),
                }
            }
            // What begins before this one has ended is a block of its own, and comes next.
            _ => PemBlock::Broken("it has no end"),
        })
    }
}

/// `-----BEGIN …-----` or `-----END …-----`, wherever on a line: `cat` joins lines, editors put marks before the first.
struct Marker<'a> {
    begins: bool,
    /// `None`: its line ends before the closing dashes.
    label: Option<&'a [u8]>,
    before: &'a [u8],
    after: &'a [u8],
}

fn marker(text: &[u8]) -> Option<Marker<'_>> {
    (0..text.len()).find_map(|at| {
        let (before, from) = text.split_at(at);
        let begins = from.starts_with(BEGIN);
        let after = from.strip_prefix(if begins { BEGIN } else { END })?;
        let line = &after[..after.len().min(MAX_NAME)];
        let closed = line.windows(DASHES.len()).position(|window| window == DASHES);
        // Not with dashes that open the next marker: the rest of this one is lost, and that one is not.
        let own = |closed: usize| !(0..DASHES.len()).any(|n| is_marker(&after[closed + n..]));
        let label = closed.filter(|closed| own(*closed)).map(|closed| &line[..closed]).filter(|l| !l.contains(&b'\n'));
        let after = label.map_or(after, |label| &after[label.len() + DASHES.len()..]);
        Some(Marker { begins, label, before, after })
    })
}

fn is_marker(text: &[u8]) -> bool {
    text.starts_with(BEGIN) || text.starts_with(END)
}

impl fmt::Display for SkippedBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.source)?;
        match &self.why {
            SkipReason::Empty => write!(f, "is empty"),
            SkipReason::NoBlock => write!(f, "holds no PEM block"),
            SkipReason::Broken { block, problem } => write!(f, "block {block} is broken: {problem}"),
            SkipReason::NotACertificate { block, label } if label.is_empty() => {
                write!(f, "block {block} is not a certificate")
            }
            SkipReason::NotACertificate { block, label } => write!(f, "block {block} is not a certificate but {label}"),
            SkipReason::PrivateKey { block } => {
                write!(f, "block {block} is a private key, which does not belong where agents can read it")
            }
            SkipReason::Expired { block, on, subject } if subject.is_empty() => {
                write!(f, "block {block} expired on {on}")
            }
            SkipReason::Expired { block, on, subject } => write!(f, "block {block} ({subject}) expired on {on}"),
            SkipReason::Duplicates(1) => write!(f, "1 certificate was there already"),
            SkipReason::Duplicates(count) => write!(f, "{count} certificates were there already"),
            SkipReason::TooMuch { block } => write!(
                f,
                "block {block} and all after it are left out: a bundle has at most {MAX_BYTES} bytes ({MAX_BYTES_IN_CONFIG_MAP} in a ConfigMap) from {MAX_BLOCKS} blocks"
            ),
        }
    }
}

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";
/// Characters in a line of PEM.
const LINE: usize = 64;
/// Bytes of a certificate that tell it from others: the last two lines of PEM, and more.
const END_BYTES: usize = 120;
/// Names and labels in the report are no longer, in characters.
const MAX_NAME: usize = 64;
/// Without its padding a block is still worth reading; it is written anew with it.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests;
