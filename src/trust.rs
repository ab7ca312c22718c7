//! Which certificates of other servers operator and relay believe. They rotate while it runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use crate::core::ca_bundle::{self, Source};
use crate::mlflow::{self, Http};

/// Makes a client that trusts certificate authorities in PEM.
pub type MakeHttp = Arc<dyn Fn(&str) -> Result<Http, mlflow::Error> + Send + Sync>;

/// Name and content.
type File = (String, Vec<u8>);

/// Certificate authorities in files.
pub struct TrustedAuthorities {
    /// Files, and folders of files, with more authorities than the public ones.
    pub files: Vec<PathBuf>,
    /// How a client is made.
    pub make_http: MakeHttp,
    current: Mutex<Option<(Vec<File>, Http)>>,
}

impl TrustedAuthorities {
    /// Authorities from these files; they may come and go.
    pub fn new(files: Vec<PathBuf>, make_http: MakeHttp) -> Self {
        Self { files, make_http, current: Mutex::default() }
    }

    /// A client that trusts what the files hold now. It is the same one, with its connections, until they change.
    pub fn http(&self, now: Timestamp) -> Result<Http, mlflow::Error> {
        let found: Vec<_> = self.files.iter().flat_map(|path| read(path)).collect();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, http)) = current.as_ref().filter(|(of, _)| *of == found) {
            return Ok(http.clone());
        }
        let roots = ca_bundle::system_roots();
        let sources = found.iter().map(|(name, bytes)| Source { name, bytes });
        let sources: Vec<_> = [Source { name: "public", bytes: roots.as_bytes() }].into_iter().chain(sources).collect();
        let merged = ca_bundle::merge(&sources, now);
        tracing::info!(kept = ?merged.counts, "certificate authorities");
        for skipped in &merged.skipped {
            tracing::warn!(skipped = %skipped, "a certificate authority cannot be used");
        }
        let pem = merged.pem;
        let http = (self.make_http)(&pem)?;
        *current = Some((found, http.clone()));
        Ok(http)
    }
}

/// What a file holds, or each file of a folder; a ConfigMap's are symbolic links. What cannot be read is absent.
fn read(path: &Path) -> Vec<(String, Vec<u8>)> {
    let named = |path: &Path| Some((path.display().to_string(), std::fs::read(path).ok()?));
    let Ok(entries) = std::fs::read_dir(path) else { return named(path).into_iter().collect() };
    let mut paths: Vec<_> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_file()).collect();
    paths.sort();
    paths.iter().filter_map(|path| named(path)).collect()
}
