//! What every long-running command of this program needs of its process: signals, listeners, the cluster.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use kube::config::KubeConfigOptions;
use kube::{Client, Config};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::http_server::listeners;
use crate::mlflow::Http;
use crate::telemetry::{self, Metrics};
use crate::trust::MakeHttp;

/// Makes clients whose requests to MLflow are counted.
pub(crate) fn make_http(metrics: &Arc<Metrics>) -> MakeHttp {
    let metrics = metrics.clone();
    Arc::new(move |pem| {
        let metrics = metrics.clone();
        Ok(Http::trusting(pem)?.with_meter(Arc::new(move |outcome, took| metrics.mlflow(outcome, took))))
    })
}

/// What asks this process to end.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From now on they do not end the process by themselves.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let of = |kind| signal(kind).context("failed to listen for signals");
        Ok(Self { terminate: of(SignalKind::terminate())?, interrupt: of(SignalKind::interrupt())? })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// A listener at an address, named in the log; `what` is the flag's name before `-addr`.
pub(crate) async fn listen(what: &'static str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = listeners::listen(address);
    let listener = listener.with_context(|| format!("failed to listen on {address} (--{what}-addr)"))?;
    telemetry::listening(what, listener.local_addr()?);
    Ok(listener)
}

/// The cluster that this process was told of: `KUBECONFIG`, or the pod's service account. Never somebody's current
/// context in a home directory.
pub(crate) async fn client() -> anyhow::Result<Client> {
    let mut config = match std::env::var_os("KUBECONFIG") {
        Some(_) => Config::from_kubeconfig(&KubeConfigOptions::default()).await.context("failed to read KUBECONFIG")?,
        None => Config::incluster().context("not in a pod: set KUBECONFIG to say which cluster to work on")?,
    };
    config.connect_timeout = Some(Duration::from_secs(5));
    // kube has none since version 4, and a list that never answers would never be repeated. Above the 290 s after which
    // the API server ends a watch.
    config.read_timeout = Some(Duration::from_secs(300));
    config.write_timeout = Some(Duration::from_secs(30));
    config.reset_reader_on_write = true;
    Client::try_from(config).context("failed to make a Kubernetes client")
}

/// How a command that runs for long ends. What ended it stands in the log, like all that it says.
pub(crate) fn exit_code(ended: anyhow::Result<()>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "ended");
            ExitCode::from(2)
        }
    }
}
