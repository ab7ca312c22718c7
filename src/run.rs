//! The composition root: everything that runs for long is made and joined here, and nothing is decided.
//!
//! Every replica serves the webhook; the one that holds the lease also controls and writes `caBundle`. On SIGTERM
//! leadership is handed over at once, while the webhook goes on serving until nobody calls it any more.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::pending;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::FutureExt;
use k8s_controller::LeaderElection;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::cli::run::RunArgs;
use crate::controller;
use crate::core::settings::hosts::Hosts;
use crate::core::settings::{MergeCa, Platform};
use crate::http_server::thread::on_own_thread;
use crate::http_server::{self, Drain, Limits};
use crate::names;
use crate::process::{Signals, client, exit_code, listen, make_http};
use crate::standstill::{STALL_LIMIT, spawned, unless_stalled};
use crate::telemetry::{self, Metrics, Readiness};
use crate::tls::clock::WallClock;
use crate::tls::{self, Certificates};
use crate::trust::TrustedAuthorities;
use crate::webhook::owner;
use crate::webhook::policy_cache::{self, PolicyCache};
use crate::webhook::{self, Webhook};

/// Runs the operator until SIGTERM or SIGINT; the second one ends it without waiting for callers to leave. What ends it
/// otherwise stands in the log, like all that it says; only an error of the log itself comes back.
pub async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    telemetry::log(&args.log_level)?;
    Ok(exit_code(operate(args).await))
}

#[expect(clippy::too_many_lines, reason = "a list of what runs")]
async fn operate(args: RunArgs) -> anyhow::Result<()> {
    let RunArgs {
        namespace,
        identity,
        webhook_addr,
        http_addr,
        cluster_domain,
        log_level: _,
        webhook_host,
        certificate_source,
        certificate_dir,
        webhook_client_ca,
        trusted_mlflow_hosts,
        mlflow_token_hosts,
        create_mlflow_namespaces,
        excluded_namespaces,
        allowed_mlflow_images,
        integration_cluster_role,
        max_concurrent_rollouts,
        ca_file,
        merge_ca_image,
        merge_ca_pull_secrets,
    } = args;
    let identity = identity.filter(|identity| !identity.is_empty()).unwrap_or_else(host_and_process);
    let mut signals = Signals::new()?;
    let webhook_listener = listen("webhook", webhook_addr).await?;
    let http_listener = listen("http", http_addr).await?;
    let client = client().await?;

    let metrics = Arc::new(Metrics::default());
    let checks = policy_cache::CHECKS.into_iter().chain(tls::CHECKS);
    let readiness = Arc::new(Readiness::new(checks));
    let cache = Arc::new(PolicyCache::default());
    let certificates = tls::CertificateOptions {
        namespace: namespace.clone(),
        cluster_domain: cluster_domain.clone(),
        more_hosts: webhook_host,
        source: certificate_source,
        folder: certificate_dir,
        client_ca: webhook_client_ca.map(PathBuf::from),
        clock: Arc::new(WallClock),
    };
    let certificates = Arc::new(Certificates::new(client.clone(), certificates, metrics.clone()));
    let platform = Platform {
        openshift: false,
        ipv6: std::env::var("KUBERNETES_SERVICE_HOST").is_ok_and(|host| host.contains(':')),
        cluster_domain,
        operator_namespace: namespace.clone(),
        excluded_namespaces: set(excluded_namespaces),
        allowed_mlflow_images: set(allowed_mlflow_images),
        merge_ca: MergeCa { image: merge_ca_image, pull_secrets: set(merge_ca_pull_secrets).into_iter().collect() },
    };
    let webhook = Arc::new(Webhook::new(cache.clone(), metrics.clone(), platform.clone()));

    let drain = watch::Sender::new(Drain::Open);
    let terminating = watch::Sender::new(false);
    let (webhook, tls, drained) = (webhook::router(webhook), Some(certificates.serving()), drain.subscribe());
    let webhook = on_own_thread("webhook", webhook_listener, move |listener| {
        http_server::serve(listener, tls, webhook, Limits::default(), drained)
    });
    let health = telemetry::router(metrics.clone(), readiness.clone());
    // Open to the end: the kubelet asks /livez for as long as the process is there.
    let open = watch::Sender::new(Drain::Open);
    let health = http_server::serve(http_listener, None, health, HEALTH_LIMITS, open.subscribe());
    let options = controller::Options {
        client: client.clone(),
        platform,
        identity,
        authorities: Arc::new(TrustedAuthorities::new(ca_file, make_http(&metrics))),
        trusted_hosts: hosts("--trusted-mlflow-hosts", trusted_mlflow_hosts)?,
        token_hosts: hosts("--mlflow-token-hosts", mlflow_token_hosts)?,
        create_namespaces: set(create_mlflow_namespaces),
        integration_role: integration_cluster_role,
        max_rolling: max_concurrent_rollouts.into(),
        metrics: metrics.clone(),
    };
    let leader = Leader { namespace, options, metrics };

    // Each in a task of its own: whatever one of them is busy with, the others go on, and an admission never waits.
    let mut tasks: JoinSet<anyhow::Result<()>> = JoinSet::new();
    tasks.spawn(webhook.map(|ended| ended.context("failed to serve the webhook")));
    tasks.spawn(health.map(Ok));
    let (watched, ready) = (client.clone(), readiness.clone());
    tasks.spawn(async move { match cache.keep(&watched, &ready).await {} });
    let (kept, ready) = (certificates.clone(), readiness.clone());
    tasks.spawn(async move { match kept.keep(&ready).await {} });
    let terminated = terminating.subscribe();
    tasks.spawn(async move { match leader.lead_until(&certificates, terminated).await? {} });
    tokio::select! {
        ended = tasks.join_next() => match ended {
            Some(ended) => ended.context("a task ended: a bug")?,
            None => Ok(()),
        },
        never = terminate(&mut signals, &readiness, &terminating, &drain) => match never {},
    }
}

/// A comma-separated flag that is empty gives one empty item.
fn set(items: Vec<String>) -> BTreeSet<String> {
    items.into_iter().map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
}

fn hosts(option: &str, items: Vec<String>) -> anyhow::Result<Hosts> {
    let items = set(items);
    Hosts::parse(items.iter().map(String::as_str)).map_err(|wrong| anyhow::anyhow!("{option}: {wrong}"))
}

/// What only one replica does.
struct Leader {
    namespace: String,
    options: controller::Options,
    metrics: Arc<Metrics>,
}

impl Leader {
    /// Leads whenever the lease can be had. When the process terminates, the lease is released at once, so that another
    /// replica leads while this one is still draining.
    async fn lead_until(
        &self,
        certificates: &Certificates,
        mut terminating: watch::Receiver<bool>,
    ) -> anyhow::Result<Infallible> {
        let lease =
            LeaderElection::new(self.options.client.clone(), &self.namespace, names::LEASE, &self.options.identity)
                .with_lease_duration(LEASE_DURATION)
                .with_renew_deadline(RENEW_DEADLINE)
                .with_retry_period(Duration::from_secs(2));
        let leading = async {
            loop {
                // A lost lease is no reason to end: the webhook of this replica is as good as before.
                let ended = lease.with_lease(unless_stalled(STALL_LIMIT, self.lead(certificates))).await;
                self.metrics.leads(false);
                match ended {
                    Some(Some(Some(error))) => return error,
                    Some(Some(None) | None) => tracing::warn!("stood still for too long; another one may lead"),
                    None => {}
                }
            }
        };
        tokio::select! {
            error = leading => return Err(error),
            _ = terminating.wait_for(|terminating| *terminating) => {}
        }
        self.metrics.leads(false);
        if timeout(RELEASE_TIMEOUT, lease.release()).await.is_err() {
            tracing::warn!("failed to release the lease in time; it expires by itself");
        }
        pending().await
    }

    /// Why the controller ended; `None` where it stood still for too long.
    async fn lead(&self, certificates: &Certificates) -> Option<anyhow::Error> {
        self.metrics.leads(true);
        tokio::select! {
            never = certificates.lead() => match never {},
            never = owner::keep(&self.options.client, &self.namespace) => match never {},
            ended = self.control() => ended,
        }
    }

    /// In a task of its own, so that the lease is renewed whatever the controller is busy with.
    async fn control(&self) -> Option<anyhow::Error> {
        let ended = spawned(controller::run(self.options.clone())).await?;
        Some(ended.err().map_or_else(|| anyhow::anyhow!("the controller ended"), anyhow::Error::from))
    }
}

/// The first signal: not ready, no leader, but serving for as long as the API server may still call; then the end.
async fn terminate(
    signals: &mut Signals,
    readiness: &Readiness,
    terminating: &watch::Sender<bool>,
    drain: &watch::Sender<Drain>,
) -> Infallible {
    signals.next().await;
    tracing::info!(
        seconds = (ANNOUNCE_AFTER + CLOSE_AFTER).as_secs(),
        "terminating; serving until nobody calls any more"
    );
    terminating.send_replace(true);
    readiness.fail("running", "this replica is terminating");
    // At first answers stay as they are: while this replica is still an endpoint, a new connection may come back to it.
    let in_peace = async {
        sleep(ANNOUNCE_AFTER).await;
        drain.send_replace(Drain::Announced);
        sleep(CLOSE_AFTER).await;
    };
    tokio::select! {
        () = in_peace => {}
        () = signals.next() => tracing::info!("asked again; ending now"),
    }
    drain.send_replace(Drain::Closed);
    pending().await
}

fn host_and_process() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "local" } else { host.trim() };
    format!("{host}-{}", std::process::id())
}

/// kube-proxy and the API server have seen by then that this replica is not ready.
const ANNOUNCE_AFTER: Duration = Duration::from_secs(5);
/// 15 s in all: the API server goes on using connections to a terminating pod (kubernetes#127335).
const CLOSE_AFTER: Duration = Duration::from_secs(10);
/// How long a lease holds that nobody renews, and after how long without renewal its holder gives up by itself.
const LEASE_DURATION: Duration = Duration::from_secs(15);
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);
/// Probes and Prometheus only.
const HEALTH_LIMITS: Limits = Limits {
    connections: 32,
    per_peer: 32,
    handshake: Duration::from_secs(5),
    header: Duration::from_secs(5),
    idle: Duration::from_secs(120),
    age: Duration::from_secs(3600),
    finish: Duration::from_secs(1),
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_that_stood_still_gives_up_before_another_one_leads() {
        const { assert!(STALL_LIMIT.as_secs() < LEASE_DURATION.as_secs() - RENEW_DEADLINE.as_secs()) };
    }
}
