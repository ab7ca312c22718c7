//! What the operator says about itself: logs, metrics and health.
//!
//! A log line or a metric never carries a secret: no environment value, no whole review.

mod classic;
pub mod metrics;
mod tracings;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

pub use metrics::Metrics;

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The level is not one.
    #[error("the log level {0:?} is none: use error, warn, info, debug, trace or target=level pairs")]
    Level(String),
    /// Logging is set up already.
    #[error("failed to start logging")]
    Start(#[source] TryInitError),
}

/// Starts logging: one JSON object a line on stderr. `level` is `info` or, by target, `info,kube=debug`.
pub fn log(level: &str) -> Result<(), LogError> {
    let targets = targets(level)?;
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_writer(std::io::stderr);
    tracing_subscriber::registry().with(targets).with(lines).try_init().map_err(LogError::Start)?;
    // Where, never what: the message of a slicing panic quotes the string, which may be somebody's environment.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "panicked");
    }));
    Ok(())
}

fn targets(level: &str) -> Result<Targets, LogError> {
    let refused = || LogError::Level(level.to_owned());
    // `Targets` takes a bare word that is no level for a target: a misspelt `inof` would switch the log off.
    let is_level = |part: &str| part.contains('=') || (!part.is_empty() && part.parse::<LevelFilter>().is_ok());
    if !level.split(',').all(is_level) {
        return Err(refused());
    }
    let targets: Targets = level.parse().map_err(|_| refused())?;
    // kube logs the whole of an answer that it cannot read, as a warning: somebody's workload, somebody's Secret.
    Ok(targets.with_target(KUBE_ANSWERS, LevelFilter::ERROR))
}

const KUBE_ANSWERS: &str = "kube_client::client";

/// What this replica still lacks before it can answer correctly.
#[derive(Debug, Default)]
pub struct Readiness(Mutex<BTreeMap<&'static str, Option<String>>>);

impl Readiness {
    /// Not ready until each of `checks` has passed.
    pub fn new(checks: impl IntoIterator<Item = &'static str>) -> Self {
        Self(Mutex::new(checks.into_iter().map(|check| (check, Some("not there yet".to_owned()))).collect()))
    }

    /// A check passes.
    pub fn pass(&self, check: &'static str) {
        let before = self.checks().insert(check, None);
        if before.flatten().is_some() {
            tracing::info!(check, "ready");
        }
    }

    /// A check does not pass, for this reason.
    pub fn fail(&self, check: &'static str, reason: impl Into<String>) {
        let reason = reason.into();
        let before = self.checks().insert(check, Some(reason.clone()));
        if before.flatten().as_deref() != Some(&*reason) {
            tracing::info!(check, reason, "not ready");
        }
    }

    /// A line for each check, and whether all pass.
    pub fn report(&self) -> (bool, String) {
        let checks = self.checks();
        let line = |(check, missing): (&&str, &Option<String>)| match missing {
            None => format!("[+] {check}\n"),
            Some(reason) => format!("[-] {check}: {reason}\n"),
        };
        (checks.values().all(Option::is_none), checks.iter().map(line).collect())
    }

    fn checks(&self) -> MutexGuard<'_, BTreeMap<&'static str, Option<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `/livez`, `/readyz` and `/metrics`.
pub fn router(metrics: Arc<Metrics>, readiness: Arc<Readiness>) -> Router {
    // Alive says that the runtime turns, nothing else: a restart mends no API server and no missing certificate.
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz).with_state(readiness))
        .route("/metrics", get(metrics_text).with_state(metrics))
}

async fn readyz(State(readiness): State<Arc<Readiness>>) -> impl IntoResponse {
    match readiness.report() {
        (true, lines) => (StatusCode::OK, lines),
        (false, lines) => (StatusCode::SERVICE_UNAVAILABLE, lines),
    }
}

/// OpenMetrics for whom asks for it, as Prometheus does; the older text for all others.
async fn metrics_text(State(metrics): State<Arc<Metrics>>, headers: HeaderMap) -> impl IntoResponse {
    let text = metrics.text();
    let mut accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    match accepted.any(|accepted| accepted.contains("application/openmetrics-text")) {
        true => ([(header::CONTENT_TYPE, OPEN_METRICS)], text),
        false => ([(header::CONTENT_TYPE, CLASSIC)], classic::text(&text)),
    }
}

/// Says in the log where a server listens.
pub fn listening(what: &'static str, address: SocketAddr) {
    tracing::info!(what, %address, "listening");
}

const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const CLASSIC: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// An error with its causes, since kube says "failed to perform initial object list" and keeps the reason below.
pub(crate) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_names_what_is_missing_until_nothing_is() {
        let readiness = Readiness::new(["certificate", "namespaces"]);
        readiness.pass("namespaces");
        readiness.fail("certificate", "the Secret agent-tracing-webhook-ca cannot be written: forbidden");
        let (ready, lines) = readiness.report();
        assert!(!ready);
        let missing = "[-] certificate: the Secret agent-tracing-webhook-ca cannot be written: forbidden\n";
        assert_eq!(lines, format!("{missing}[+] namespaces\n"));

        readiness.pass("certificate");
        assert!(readiness.report().0);
    }

    #[tokio::test]
    async fn prometheus_gets_the_format_that_it_asks_for() {
        let metrics = Arc::new(Metrics::default());
        let asked = |accept: &'static str| {
            let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
            metrics_text(State(metrics.clone()), headers)
        };
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, wanted) in [(prometheus, OPEN_METRICS), ("*/*", CLASSIC), ("text/plain", CLASSIC)] {
            let answer = asked(accept).await.into_response();
            assert_eq!(answer.headers()[header::CONTENT_TYPE], wanted, "{accept}");
        }
    }

    #[test]
    fn a_log_level_that_is_none_is_refused_with_what_to_write() {
        for level in ["loud", "", "inof", "info,kube=loud"] {
            let error = targets(level).unwrap_err().to_string();
            assert!(error.contains(&format!("{level:?}")) && error.contains("info"), "{error}");
        }
        assert!(targets("info").is_ok() && targets("warn,agent_tracing=debug").is_ok());
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_never_logged_as_a_whole() {
        for level in ["info", "trace", "info,kube=debug", "kube_client=trace"] {
            assert!(!targets(level).unwrap().would_enable(KUBE_ANSWERS, &tracing::Level::WARN), "{level}");
        }
    }
}
