//! What `merge-ca` says of the bundle that it wrote, and how `check` reads it.
//!
//! Nobody can look into a running pod with the right to read alone, but into its logs. So both merges name each certificate
//! beyond the public ones, the operator's by its fingerprint, the agent's shell, which has no hash, by how it ends.

use super::BundledCertificate;

/// Certificates that are named, at most. An administrator's bundle has a few hundred; a log is no place for thousands.
const MAX_NAMED_CERTIFICATES: usize = 500;
/// What is shorter could end more than one certificate.
const FINGERPRINT_DIGITS: usize = 16;

const PREFIX: &str = "merge-ca: ";
const FINGERPRINT: &str = "holds sha256 ";
const ENDING: &str = "holds ending ";
const CLOSING: &str = "named ";
const FAILED: &str = "failed to write ";

/// The lines about these certificates, once they are in a bundle. The last one says that nothing before it is cut.
pub fn lines<'h>(certificates: impl Iterator<Item = &'h BundledCertificate>) -> Vec<String> {
    let all: Vec<_> = certificates.collect();
    let named = all.iter().take(MAX_NAMED_CERTIFICATES);
    let mut lines: Vec<_> = named.map(|h| format!("{FINGERPRINT}{} {}", h.fingerprint, h.subject)).collect();
    lines.push(format!("{CLOSING}{} of {} certificates beyond the public ones", lines.len(), all.len()));
    lines
}

/// What a log says of the bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogContent {
    /// Nothing: it is cut, or older than these lines.
    Nothing,
    /// There is no bundle.
    NotWritten,
    /// These are in it.
    Holds(NamedCertificates),
}

/// The certificates that a log names, or that a bundle holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedCertificates {
    fingerprints: Vec<String>,
    endings: Vec<String>,
    /// How many there are, with those that are not named.
    all: usize,
}

impl FromIterator<BundledCertificate> for NamedCertificates {
    fn from_iter<I: IntoIterator<Item = BundledCertificate>>(all: I) -> Self {
        let fingerprints: Vec<_> = all.into_iter().map(|certificate| certificate.fingerprint).collect();
        Self { all: fingerprints.len(), fingerprints, endings: Vec::new() }
    }
}

impl NamedCertificates {
    /// Whether it is named.
    pub fn has(&self, certificate: &BundledCertificate) -> bool {
        let ends = |ending: &String| ending.ends_with(&certificate.end) || certificate.end.ends_with(ending);
        self.fingerprints.contains(&certificate.fingerprint) || self.endings.iter().any(ends)
    }

    /// Whether every one is named, so that one that is not is not there.
    pub fn is_whole(&self) -> bool {
        self.fingerprints.len() + self.endings.len() >= self.all
    }
}

/// Reads a log.
pub fn read(log: &str) -> LogContent {
    let (mut named, mut all) = (NamedCertificates::default(), None);
    for line in log.lines().filter_map(|line| line.strip_prefix(PREFIX)) {
        if line.starts_with(FAILED) {
            return LogContent::NotWritten;
        } else if let Some(rest) = line.strip_prefix(FINGERPRINT) {
            named.fingerprints.extend(rest.split(' ').next().map(str::to_owned));
        } else if let Some(ending) = line.strip_prefix(ENDING) {
            let ending = ending.trim_end_matches('=');
            named.endings.extend((ending.len() >= FINGERPRINT_DIGITS).then(|| ending.to_owned()));
        } else if let Some(rest) = line.strip_prefix(CLOSING) {
            all = rest.split(' ').nth(2).and_then(|all| all.parse().ok());
        }
    }
    match all {
        Some(all) => LogContent::Holds(NamedCertificates { all, ..named }),
        None => LogContent::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(fingerprint: &str, end: &str) -> BundledCertificate {
        BundledCertificate {
            source: 0,
            fingerprint: fingerprint.to_owned(),
            end: end.to_owned(),
            subject: "named 9 of 9 x".to_owned(),
        }
    }

    fn written(lines: &[String]) -> String {
        lines.iter().map(|line| format!("merge-ca: {line}\n")).collect()
    }

    fn named(log: &str) -> NamedCertificates {
        match read(log) {
            LogContent::Holds(named) => named,
            other => panic!("{other:?}: {log}"),
        }
    }

    #[test]
    fn what_is_written_is_read_whatever_a_certificate_calls_itself() {
        let all = [certificate("aa", "x"), certificate("bb", "y")];
        let named = named(&written(&lines(all.iter())));
        assert!(all.iter().all(|certificate| named.has(certificate)) && named.is_whole());
        assert!(!named.has(&certificate("cc", "z")));
    }

    #[test]
    fn a_certificate_is_known_by_how_it_ends_however_long_the_lines_were() {
        let end = "qLxG0vqX9b7JfW2mKcQ1ZpTn5sYdHuRe";
        for ending in [&end[4..], end, &format!("MIIB{end}"), &format!("{end}==")] {
            let named = named(&format!("merge-ca: holds ending {ending}\nmerge-ca: named 1 of 1 certificates\n"));
            assert!(named.has(&certificate("aa", end)) && named.is_whole(), "{ending}");
            assert!(!named.has(&certificate("aa", "another's end, which is as long")), "{ending}");
        }
        let short = named("merge-ca: holds ending uRe=\nmerge-ca: named 1 of 1 certificates\n");
        assert!(!short.has(&certificate("aa", end)) && !short.is_whole(), "that many certificates could end so");
    }

    #[test]
    fn more_than_a_log_should_hold_are_counted() {
        let many: Vec<_> = (0..=MAX_NAMED_CERTIFICATES).map(|n| certificate(&format!("{n:064x}"), "")).collect();
        let lines = lines(many.iter());
        assert_eq!(lines.len(), MAX_NAMED_CERTIFICATES + 1);
        let named = named(&written(&lines));
        assert!(named.has(&many[0]) && !named.has(&many[MAX_NAMED_CERTIFICATES]) && !named.is_whole());
    }

    #[test]
    fn a_log_that_is_cut_or_of_before_says_nothing() {
        let lines = lines([certificate("aa", "x")].iter());
        assert_eq!(read(&written(&lines[..1])), LogContent::Nothing);
        assert_eq!(
            read("merge-ca: wrote /tmp/ca-bundle/combined-ca.crt: certificates: 142 (142 of system roots)\n"),
            LogContent::Nothing
        );
        assert_eq!(read(""), LogContent::Nothing);
        assert_eq!(read("merge-ca: failed to write /x: no space\n"), LogContent::NotWritten);
    }
}
