//! The relay's composition root.

use std::convert::Infallible;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::routing::get;
use axum::{Json, Router};
use futures::FutureExt;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

use super::door;
use super::forward::Forwarder;
use super::spool::Spool;
use super::target::{self, Target};
use crate::cli::relay::RelayArgs;
use crate::http_server::{self, Drain, Limits};
use crate::mlflow::Http;
use crate::process::{Signals, client, exit_code, listen, make_http};
use crate::telemetry::{self, Metrics, Readiness};
use crate::trust::TrustedAuthorities;

/// Runs the relay until SIGTERM or SIGINT.
pub async fn run(args: RelayArgs) -> anyhow::Result<ExitCode> {
    telemetry::log(&args.log_level)?;
    Ok(exit_code(relay(args).await))
}

async fn relay(args: RelayArgs) -> anyhow::Result<()> {
    let RelayArgs { namespace, tracing, addr, http_addr, spool, spool_size, token_file, ca_file, log_level: _ } = args;
    let mut signals = Signals::new()?;
    let mut listeners = Vec::new();
    for addr in addr {
        listeners.push(listen("relay", addr).await?);
    }
    let http_listener = listen("http", http_addr).await?;
    let metrics = Arc::new(Metrics::default());
    let readiness = Arc::new(Readiness::new([MLFLOW]));
    let authorities = TrustedAuthorities::new(ca_file, make_http(&metrics));
    let (http, https) = watch::channel(authorities.http(Timestamp::now())?);
    let (known, targets) = watch::channel(None);
    let file = spool.map(|folder| folder.join(SPOOL_FILE));
    let opened = Spool::open(file.as_deref(), spool_size).context("failed to open the spool (--spool)")?;
    let forwarder = Arc::new(Forwarder::new(opened, targets.clone(), https));

    let drain = watch::Sender::new(Drain::Open);
    let open = watch::Sender::new(Drain::Open);
    let mut tasks = JoinSet::new();
    for listener in listeners {
        let agents = door::router(forwarder.clone());
        tasks.spawn(http_server::serve(listener, None, agents, Limits::default(), drain.subscribe()));
    }
    let evidence = {
        let forwarder = forwarder.clone();
        get(async move || Json(forwarder.evidence()))
    };
    let own = telemetry::router(metrics, readiness.clone()).merge(Router::new().route("/evidence", evidence));
    tasks.spawn(http_server::serve(http_listener, None, own, Limits::default(), open.subscribe()));
    let client = client().await?;
    tasks.spawn(target::follow(client, (namespace, tracing), token_file, known).map(|never| match never {}));
    tasks.spawn(forwarder.forward().map(|never| match never {}));
    tasks.spawn(renew(authorities, http).map(|never| match never {}));
    tasks.spawn(announce(targets, readiness.clone()).map(|never| match never {}));
    tokio::select! {
        ended = tasks.join_next() => ended.unwrap_or(Ok(())).context("a task ended: a bug"),
        () = signals.next() => {
            readiness.fail("running", "this replica is terminating");
            drain.send_replace(Drain::Announced);
            tokio::select! {
                () = sleep(ANNOUNCE) => {}
                () = signals.next() => {}
            }
            drain.send_replace(Drain::Closed);
            // Those that are answering may finish; what is held stays in the spool.
            sleep(FINISH).await;
            Ok(())
        }
    }
}

/// Ready is who knows where traces go.
async fn announce(mut targets: watch::Receiver<Option<Arc<Target>>>, readiness: Arc<Readiness>) -> Infallible {
    if targets.wait_for(Option::is_some).await.is_ok() {
        readiness.pass(MLFLOW);
    }
    std::future::pending().await
}

/// Reads the certificate authorities again: they rotate.
async fn renew(authorities: TrustedAuthorities, https: watch::Sender<Http>) -> Infallible {
    let mut minute = interval(Duration::from_secs(60));
    loop {
        minute.tick().await;
        match authorities.http(Timestamp::now()) {
            Ok(http) => _ = https.send_replace(http),
            Err(error) => tracing::warn!(%error, "failed to read the certificate authorities; the last ones count"),
        }
    }
}

/// Readiness check: where traces go is known.
const MLFLOW: &str = "mlflow";
const SPOOL_FILE: &str = "spool.redb";
/// Endpoints forget this replica meanwhile.
const ANNOUNCE: Duration = Duration::from_secs(2);
const FINISH: Duration = Duration::from_millis(500);
