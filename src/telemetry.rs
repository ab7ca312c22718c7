//! What the operator says about itself: logs, metrics and health.
//!
//! A log line or a metric never carries a secret: no environment value, no whole review, no object name as a label.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

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
    level.parse().map_err(|_| refused())
}

/// Every metric of the operator.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    admissions: Family<AdmissionLabels, Counter>,
    admission_duration: Histogram,
    reconciles: Family<OutcomeLabels, Counter>,
    in_flight: Gauge,
    leader: Gauge,
    certificate_expiry: Gauge,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AdmissionLabels {
    result: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Registry::with_prefix("agent_tracing"),
            admissions: Family::default(),
            admission_duration: Histogram::new(ADMISSION_SECONDS),
            reconciles: Family::default(),
            in_flight: Gauge::default(),
            leader: Gauge::default(),
            certificate_expiry: Gauge::default(),
        };
        metrics.registered()
    }
}

impl Metrics {
    fn registered(mut self) -> Self {
        let Self { registry, admissions, admission_duration, reconciles, in_flight, leader, certificate_expiry } =
            &mut self;
        registry.register("admissions", "Admission reviews by what was answered and why", admissions.clone());
        registry.register_with_unit(
            "admission_duration",
            "Time from the first byte of a review's body to its answer",
            Unit::Seconds,
            admission_duration.clone(),
        );
        registry.register("admissions_in_flight", "Admission reviews being answered now", in_flight.clone());
        registry.register("reconciles", "Reconciliations by outcome", reconciles.clone());
        registry.register("leader", "1 while this replica leads", leader.clone());
        registry.register_with_unit(
            "webhook_certificate_expiry_timestamp",
            "When the webhook's serving certificate expires, in Unix time",
            Unit::Seconds,
            certificate_expiry.clone(),
        );
        self
    }

    /// Counts an admission review; `result` and `reason` come from enums.
    pub fn admission(&self, result: &'static str, reason: &'static str, took: Duration) {
        self.admissions.get_or_create(&AdmissionLabels { result, reason }).inc();
        self.admission_duration.observe(took.as_secs_f64());
    }

    /// Counts a review as in flight until the answer is dropped.
    pub fn in_flight(&self) -> impl Drop + Send + use<> {
        struct Landed(Gauge);
        impl Drop for Landed {
            fn drop(&mut self) {
                self.0.dec();
            }
        }
        self.in_flight.inc();
        Landed(self.in_flight.clone())
    }

    /// Counts a reconciliation; `outcome` comes from an enum.
    pub fn reconcile(&self, outcome: &'static str) {
        self.reconciles.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// Says whether this replica leads.
    pub fn leads(&self, leads: bool) {
        self.leader.set(leads.into());
    }

    /// Says when the serving certificate expires, in Unix seconds.
    pub fn certificate_expires(&self, at: i64) {
        self.certificate_expiry.set(at);
    }

    /// The metrics in OpenMetrics text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

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

async fn metrics_text(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, OPEN_METRICS)], metrics.text())
}

/// Says in the log where a server listens.
pub fn listening(what: &'static str, address: SocketAddr) {
    tracing::info!(what, %address, "listening");
}

const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
/// 0.1 ms to 5 s: the API server gives up after 2 s.
const ADMISSION_SECONDS: [f64; 15] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0];

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

    #[test]
    fn metrics_are_text_that_prometheus_reads() {
        let metrics = Metrics::default();
        metrics.admission("injected", "wired", Duration::from_micros(80));
        metrics.reconcile("ready");
        metrics.leads(true);
        metrics.certificate_expires(1_900_000_000);
        drop(metrics.in_flight());
        let text = metrics.text();
        for line in [
            r#"agent_tracing_admissions_total{result="injected",reason="wired"} 1"#,
            r#"agent_tracing_admission_duration_seconds_bucket{le="0.0001"} 1"#,
            "agent_tracing_admissions_in_flight 0",
            r#"agent_tracing_reconciles_total{outcome="ready"} 1"#,
            "agent_tracing_leader 1",
            "agent_tracing_webhook_certificate_expiry_timestamp_seconds 1900000000",
            "# EOF",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
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
}
