//! Asks a pod of a relay what it knows. It is shown nothing, and whatever it answers is bounded.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::redirect;

use crate::core::relay::evidence::Evidence;

/// The relay answers from memory.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Some 8,000 workloads.
const MAX_BODY: usize = 1 << 20;

/// A pod gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("failed to ask it")]
    Http(#[from] reqwest::Error),
    #[error("its answer has status {0}")]
    Status(u16),
    #[error("its answer is longer than {MAX_BODY} bytes")]
    TooLong,
    #[error("failed to understand its answer")]
    Unreadable(#[from] serde_json::Error),
}

/// A client for all relays.
pub(super) fn client() -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .user_agent(concat!("agent-tracing-operator/", env!("CARGO_PKG_VERSION")))
        .timeout(TIMEOUT)
        .redirect(redirect::Policy::none())
        .pool_max_idle_per_host(1)
        // A pod is never behind the proxy that the environment may name, and no certificate is looked at.
        .no_proxy()
        .tls_certs_only([])
        .build()
}

/// What a pod knows.
pub(super) async fn evidence(client: &reqwest::Client, pod: SocketAddr) -> Result<Evidence, Error> {
    let mut response = client.get(format!("http://{pod}/evidence")).send().await?;
    if !response.status().is_success() {
        return Err(Error::Status(response.status().as_u16()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err(Error::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(serde_json::from_slice(&body)?)
}
