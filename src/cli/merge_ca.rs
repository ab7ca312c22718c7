//! The init container's command: reads certificate authorities, merges them with [`crate::core::ca_bundle`], writes the
//! bundle. It never fails: an agent that cannot reach MLflow loses its traces, an agent that does not start is an outage.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;

use crate::core::ca_bundle::{self, Merged, Source, log};

/// Arguments of `merge-ca`. An agent's pod gives none.
#[derive(Args, Clone, Debug)]
pub struct MergeCaArgs {
    /// File with certificates, or a directory with such files. May be repeated.
    #[arg(long = "source", value_name = "PATH", default_values = ca_bundle::DEFAULT_SOURCES)]
    sources: Vec<PathBuf>,
    /// The bundle to write.
    #[arg(long, value_name = "FILE", default_value = ca_bundle::OUTPUT)]
    output: PathBuf,
    /// Leave out the public certificate authorities that the program carries.
    #[arg(long)]
    no_system_roots: bool,
    /// The image may be older than the operator that wrote the pod: from an argument on that it does not know, it does
    /// without.
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    unknown: Vec<OsString>,
}

/// Merges, writes and reports on stderr.
pub fn merge_ca(args: &MergeCaArgs) {
    if let Some(first) = args.unknown.first() {
        say(&format!("argument {} and all after it are not known here, and left out", first.display()));
    }
    let mut read = SourceReader { files: Vec::new(), left: MAX_READ };
    let public = usize::from(!args.no_system_roots);
    if !args.no_system_roots {
        // First: whatever follows is cut before they are.
        read.files.push((SYSTEM_ROOTS.to_owned(), ca_bundle::system_roots().into_bytes()));
    }
    args.sources.iter().for_each(|path| read.path(path));
    let sources: Vec<Source<'_>> = read.files.iter().map(|(name, bytes)| Source { name, bytes }).collect();
    let merged = ca_bundle::merge(&sources, Timestamp::now());
    report(&merged);
    let output = args.output.display();
    let written = write(&args.output, merged.pem.as_bytes());
    match &written {
        Ok(()) if merged.pem.is_empty() => say(&format!("wrote {output} without any certificate: it trusts nobody")),
        Ok(()) => say(&format!("wrote {output}: {}", summary(&merged))),
        Err(error) => say(&format!("failed to write {output}: {error}; agents find no new bundle there")),
    }
    if written.is_ok() {
        log::lines(merged.certificates.iter().filter(|certificate| certificate.source >= public))
            .iter()
            .for_each(|line| say(line));
    }
}

/// What has been read, within limits.
struct SourceReader {
    files: Vec<(String, Vec<u8>)>,
    /// Bytes that may still be read.
    left: u64,
}

impl SourceReader {
    /// Reads a file, or the files of a directory. What cannot be read is named and left out.
    fn path(&mut self, path: &Path) {
        let read = match fs::metadata(path) {
            Ok(about) if about.is_dir() => self.directory(path),
            // Anything else than a file may block for ever or have no end.
            Ok(about) if !about.is_file() => Err(io::Error::other("neither a file nor a directory")),
            Ok(_) => self.file(path),
            Err(error) => Err(error),
        };
        match read {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => say(&format!("{}: is not there", path.display())),
            Err(error) => say(&format!("{}: failed to read: {error}", path.display())),
        }
    }

    /// The directory of a ConfigMap holds links to `..data/<key>`, and `..data` is a link to a hidden directory, so that all
    /// files change at once. Links are followed, hidden names are not files of the user's.
    fn directory(&mut self, path: &Path) -> io::Result<()> {
        let names = fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.file_name()));
        let mut names = names.collect::<io::Result<Vec<_>>>()?;
        names.retain(|name| !name.as_encoded_bytes().starts_with(b"."));
        names.sort();
        if let Some(first) = names.get(MAX_FILES) {
            say(&format!("{}: is left out from {} on: more than {MAX_FILES} files", path.display(), first.display()));
        }
        for name in names.into_iter().take(MAX_FILES) {
            let file = path.join(name);
            match file.is_dir() {
                true => say(&format!("{}: is left out: a directory in a directory", file.display())),
                false => self.path(&file),
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) -> io::Result<()> {
        let limit = self.left.min(MAX_FILE);
        let (mut file, mut bytes) = (File::open(path)?, Vec::new());
        (&mut file).take(limit).read_to_end(&mut bytes)?;
        if file.read(&mut [0])? > 0 {
            say(&format!("{}: is too long, only its first {limit} bytes are read", path.display()));
        }
        self.left -= bytes.len() as u64;
        self.files.push((path.display().to_string(), bytes));
        Ok(())
    }
}

/// Replaces a file at once: a reader sees the old one or the new one, whole.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    // The same name each time: what a killed run has left is written over, not kept for ever.
    hidden.push(".new");
    let temporary = path.with_file_name(hidden);
    let written = fill(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn fill(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(path)?;
    // The agent runs as another user than this container; a umask must not keep the bundle from it.
    file.set_permissions(Permissions::from_mode(MODE))?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn report(merged: &Merged) {
    for skipped in merged.skipped.iter().take(MAX_LINES) {
        say(&skipped.to_string());
    }
    if let more @ 1.. = merged.skipped.len().saturating_sub(MAX_LINES) {
        say(&format!("… and {more} more"));
    }
}

fn summary(merged: &Merged) -> String {
    let all: usize = merged.counts.iter().map(|(_, count)| count).sum();
    let each = merged.counts.iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{count} of {name}"));
    format!("certificates: {all} ({})", each.collect::<Vec<_>>().join(", "))
}

/// One line on stderr. `eprintln!` would panic where nobody holds the other end.
fn say(line: &str) {
    let line: String = line.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    let _ = writeln!(io::stderr(), "merge-ca: {line}");
}

const SYSTEM_ROOTS: &str = "system roots";
const MODE: u32 = 0o644;
/// A ConfigMap holds 1 MiB; more than this does not fit into a bundle.
const MAX_FILE: u64 = ca_bundle::MAX_BYTES as u64;
/// Of all files together: the init container's memory is limited.
const MAX_READ: u64 = 2 * MAX_FILE;
/// Of one directory.
const MAX_FILES: usize = 1_000;
/// A log of this many lines is as much as anybody reads.
const MAX_LINES: usize = 200;
