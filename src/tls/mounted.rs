//! Certificates that somebody else makes: two files that the kubelet replaces by swapping a symbolic link.
//!
//! The content is polled. A watch of the file would follow the link to the old one and see nothing.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::serving::{Serving, ServingError};
use super::{CERTIFICATE, CertificateSource, Certificates};
use crate::core::kubectl::Kubectl;
use crate::names;
use crate::telemetry::{Readiness, error_chain};

/// Why the mounted files cannot be used.
#[derive(Debug, thiserror::Error)]
enum MountedError {
    /// A file cannot be read.
    #[error("failed to read {file}")]
    Read {
        /// Its name in the folder.
        file: &'static str,
        /// Why.
        source: io::Error,
    },
    /// What was read cannot be served.
    #[error("failed to use {CERTIFICATE_FILE} and {KEY_FILE}")]
    Use(#[source] ServingError),
}

impl Certificates {
    /// Serves what the files hold, for as long as it can be used.
    pub(super) async fn poll_folder(&self, readiness: &Readiness) -> Infallible {
        let mut served: Option<Content> = None;
        let mut logged_error = String::new();
        loop {
            // By content: a swapped link tells nothing by its time, size or inode.
            match read(&self.folder) {
                Ok(content) if served.as_ref() == Some(&content) => {}
                content => match content.and_then(|content| Ok((self.usable(&content)?, content))) {
                    Ok((serving, content)) => {
                        tracing::info!(not_after = %serving.validity().until, "took the mounted certificate");
                        self.serve(serving);
                        served = Some(content);
                    }
                    Err(error) if served.is_none() => readiness.fail(CERTIFICATE, self.remedy(&error)),
                    Err(error) => {
                        let error = self.remedy(&error);
                        if error != logged_error {
                            tracing::warn!(error, "the mounted certificate cannot be used; serving the one before");
                            logged_error = error;
                        }
                    }
                },
            }
            let validity = self.serving.borrow().as_ref().map(Serving::validity);
            match validity.map(|validity| validity.check(self.clock.now())) {
                Some(Err(over)) => readiness.fail(CERTIFICATE, self.remedy(&over)),
                Some(Ok(())) => readiness.pass(CERTIFICATE),
                None => {}
            }
            self.clock.wait(POLL).await;
        }
    }

    fn usable(&self, (certificate, key): &Content) -> Result<Serving, MountedError> {
        let host = self.hosts.first().map_or("", String::as_str);
        Serving::read(certificate, key, host, self.clock.now()).map_err(MountedError::Use)
    }

    /// What is wrong, and where to look.
    fn remedy(&self, error: &dyn std::error::Error) -> String {
        let (folder, namespace, secret) = (self.folder.display(), &self.namespace, names::WEBHOOK_TLS_SECRET);
        let maker = match self.source {
            CertificateSource::ServiceCa => ["service", names::WEBHOOK_SERVICE],
            CertificateSource::SelfManaged | CertificateSource::CertManager => {
                ["certificate", names::WEBHOOK_CERTIFICATE]
            }
        };
        let look = Kubectl::new("describe").namespace(namespace).args(maker);
        let error = error_chain(error);
        format!("{error} in {folder}, where Secret {secret} is mounted; look: {look}")
    }
}

/// Certificates and key, PEM.
type Content = (Vec<u8>, Vec<u8>);

fn read(folder: &Path) -> Result<Content, MountedError> {
    let read =
        |file: &'static str| std::fs::read(folder.join(file)).map_err(|source| MountedError::Read { file, source });
    Ok((read(CERTIFICATE_FILE)?, read(KEY_FILE)?))
}

const CERTIFICATE_FILE: &str = "tls.crt";
const KEY_FILE: &str = "tls.key";
/// The kubelet itself takes up to two minutes.
pub(super) const POLL: Duration = Duration::from_secs(10);
