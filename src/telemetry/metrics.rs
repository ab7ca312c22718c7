//! Every metric of the operator. Each label is the name of an enum's variant, so that no cluster makes more series than are
//! in this source; only the last trace names its AgentTracing, for a bounded number of them.

use std::collections::BTreeMap;
use std::fmt::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry, Unit};

use super::tracings::TracingCollector;
use crate::api::WorkloadState;
use crate::mlflow::Outcome;

/// Every metric of the operator.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    admissions: Family<AdmissionLabels, Counter>,
    admission_duration: Histogram,
    in_flight: Gauge,
    last_admission: Arc<Moment>,
    certificate_expiry: Arc<Moment>,
    leader: Gauge,
    reconciles: Family<OutcomeLabels, Counter>,
    reconcile_duration: Histogram,
    step_duration: Family<StepLabels, Histogram, fn() -> Histogram>,
    reconcile_errors: Family<StepLabels, Counter>,
    repairs: Counter,
    rollouts: Counter,
    removals: Counter,
    unanswered_touches: Counter,
    mlflow_requests: Family<OutcomeLabels, Counter>,
    mlflow_duration: Histogram,
    tracings: Arc<TracingCollector>,
}

/// A step of a pass over an AgentTracing. Metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReconcileStep {
    /// The MLflow server: its objects, whether it answers.
    Server,
    /// The workloads: read and judged.
    Workloads,
    /// The relay: its objects, whether it is ready.
    Relay,
    /// Who may write to MLflow.
    Rights,
    /// Certificate authorities for agents.
    Authorities,
    /// What MLflow has of the workloads: experiments and traces.
    Traces,
    /// The status and the events about it.
    Status,
    /// Workloads brought to their wiring.
    Rollout,
}

impl ReconcileStep {
    /// All of them, in their order.
    pub const ALL: [Self; 8] = [
        Self::Server,
        Self::Workloads,
        Self::Relay,
        Self::Rights,
        Self::Authorities,
        Self::Traces,
        Self::Status,
        Self::Rollout,
    ];

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Workloads => "workloads",
            Self::Relay => "relay",
            Self::Rights => "rights",
            Self::Authorities => "authorities",
            Self::Traces => "traces",
            Self::Status => "status",
            Self::Rollout => "rollout",
        }
    }
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

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StepLabels {
    step: &'static str,
}

impl From<ReconcileStep> for StepLabels {
    fn from(step: ReconcileStep) -> Self {
        Self { step: step.as_str() }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Registry::with_prefix("agent_tracing"),
            admissions: Family::default(),
            admission_duration: Histogram::new(ADMISSION_SECONDS),
            in_flight: Gauge::default(),
            last_admission: Arc::new(Moment::new(
                "last_admission_timestamp",
                "When the last admission review was answered",
            )),
            certificate_expiry: Arc::new(Moment::new(
                "webhook_certificate_expiry_timestamp",
                "When the webhook's serving certificate expires",
            )),
            leader: Gauge::default(),
            reconciles: Family::default(),
            reconcile_duration: Histogram::new(PASS_SECONDS),
            step_duration: Family::new_with_constructor(|| Histogram::new(PASS_SECONDS)),
            reconcile_errors: Family::default(),
            repairs: Counter::default(),
            rollouts: Counter::default(),
            removals: Counter::default(),
            unanswered_touches: Counter::default(),
            mlflow_requests: Family::default(),
            mlflow_duration: Histogram::new(MLFLOW_SECONDS),
            tracings: Arc::default(),
        };
        // A series that appears with its first error has no increase yet, so that no alert would see that one.
        for step in ReconcileStep::ALL {
            drop(metrics.reconcile_errors.get_or_create(&step.into()));
        }
        for outcome in Outcome::ALL {
            drop(metrics.mlflow_requests.get_or_create(&OutcomeLabels { outcome: outcome.as_str() }));
        }
        metrics.registered()
    }
}

impl Metrics {
    fn registered(mut self) -> Self {
        let Self {
            registry,
            admissions,
            admission_duration,
            in_flight,
            last_admission,
            certificate_expiry,
            leader,
            reconciles,
            reconcile_duration,
            step_duration,
            reconcile_errors,
            repairs,
            rollouts,
            removals,
            unanswered_touches,
            mlflow_requests,
            mlflow_duration,
            tracings,
        } = &mut self;
        let mut register = Register(registry);
        register.one("admissions", "Admission reviews by what was answered and why", admissions);
        register.seconds(
            "admission_duration",
            "Time from the first byte of a review's body to its answer",
            admission_duration,
        );
        register.one("admissions_in_flight", "Admission reviews being answered now", in_flight);
        register.all(last_admission);
        register.all(certificate_expiry);
        register.one("leader", "1 while this replica leads, else 0", leader);
        register.one("reconciles", "Passes over an AgentTracing by outcome: ok, or the kind of error", reconciles);
        register.seconds("reconcile_duration", "Time of a pass over an AgentTracing", reconcile_duration);
        register.seconds("reconcile_step_duration", "Time of a step of a pass that was not left out", step_duration);
        register.one("reconcile_errors", "Passes that failed, by the step in which they did", reconcile_errors);
        register.one("repairs", "Workloads to which the operator gave back a wiring that was changed or lost", repairs);
        register.one(
            "rollouts",
            "Changes by the operator that make a workload replace its pods, repairs and removals included",
            rollouts,
        );
        register.one("removals", "Workloads out of which the operator took the wiring", removals);
        register.one(
            "unanswered_touches",
            "Workloads that the operator touched without the webhook answering",
            unanswered_touches,
        );
        register.one(
            "mlflow_requests",
            "Requests to MLflow servers by outcome: ok, or the class of error",
            mlflow_requests,
        );
        register.seconds("mlflow_request_duration", "Time of a request to an MLflow server", mlflow_duration);
        register.all(tracings);
        self
    }

    /// Counts an admission review; `result` and `reason` come from enums.
    pub fn admission(&self, result: &'static str, reason: &'static str, took: Duration) {
        self.admissions.get_or_create(&AdmissionLabels { result, reason }).inc();
        self.admission_duration.observe(took.as_secs_f64());
        self.last_admission.is(Timestamp::now().as_second());
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

    /// Counts a pass; `outcome` comes from an enum, and `failed_in` is the step in which it failed.
    pub fn reconcile(&self, outcome: &'static str, failed_in: Option<ReconcileStep>, took: Duration) {
        self.reconciles.get_or_create(&OutcomeLabels { outcome }).inc();
        self.reconcile_duration.observe(took.as_secs_f64());
        if let Some(step) = failed_in {
            self.reconcile_errors.get_or_create(&step.into()).inc();
        }
    }

    /// Notes how long a step of a pass took.
    pub fn step(&self, step: ReconcileStep, took: Duration) {
        self.step_duration.get_or_create(&step.into()).observe(took.as_secs_f64());
    }

    /// Counts a workload that the operator itself wired: `again` if it had this wiring before, `rolls` if its pods are
    /// replaced for it.
    pub fn wired(&self, again: bool, rolls: bool) {
        self.repairs.inc_by(again.into());
        self.rollouts.inc_by(rolls.into());
    }

    /// Counts a workload out of which the wiring was taken; `rolls` if its pods are replaced for it.
    pub fn removed(&self, rolls: bool) {
        self.removals.inc();
        self.rollouts.inc_by(rolls.into());
    }

    /// Counts a touch that no webhook answered.
    pub fn unanswered(&self) {
        self.unanswered_touches.inc();
    }

    /// Counts a request to an MLflow server.
    pub fn mlflow(&self, outcome: Outcome, took: Duration) {
        self.mlflow_requests.get_or_create(&OutcomeLabels { outcome: outcome.as_str() }).inc();
        self.mlflow_duration.observe(took.as_secs_f64());
    }

    /// Says whether this replica leads. With the end of it everything goes that only a leader says.
    pub fn leads(&self, leads: bool) {
        self.leader.set(leads.into());
        self.tracings.leads(leads);
    }

    /// Says how an AgentTracing is.
    pub fn tracing(
        &self,
        namespace: &str,
        name: &str,
        conditions: &[Condition],
        states: BTreeMap<WorkloadState, usize>,
        last_trace: Option<Timestamp>,
    ) {
        let name = (namespace.to_owned(), name.to_owned());
        self.tracings.observe(name, conditions, states, last_trace.map(Timestamp::as_second));
    }

    /// Says that an AgentTracing is gone.
    pub fn tracing_is_gone(&self, namespace: &str, name: &str) {
        self.tracings.gone(&(namespace.to_owned(), name.to_owned()));
    }

    /// Says when the serving certificate expires, in Unix seconds.
    pub fn certificate_expires(&self, at: i64) {
        self.certificate_expiry.is(at);
    }

    /// The metrics in OpenMetrics text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

/// A registry, said shortly.
struct Register<'a>(&'a mut Registry);

impl Register<'_> {
    fn one(&mut self, name: &str, help: &str, metric: &(impl Metric + Clone)) {
        self.0.register(name, help, metric.clone());
    }

    fn seconds(&mut self, name: &str, help: &str, metric: &(impl Metric + Clone)) {
        self.0.register_with_unit(name, help, Unit::Seconds, metric.clone());
    }

    fn all(&mut self, collector: &Arc<impl Collector>) {
        self.0.register_collector(Box::new(collector.clone()));
    }
}

/// A point in time; nothing is said of one that has not come: 1970 would be believed.
#[derive(Debug)]
struct Moment {
    name: &'static str,
    help: &'static str,
    at: AtomicI64,
}

impl Moment {
    fn new(name: &'static str, help: &'static str) -> Self {
        Self { name, help, at: AtomicI64::new(0) }
    }

    fn is(&self, at: i64) {
        self.at.store(at, Ordering::Relaxed);
    }
}

impl Collector for Moment {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let at = self.at.load(Ordering::Relaxed);
        if at == 0 {
            return Ok(());
        }
        let help = format!("{}, in Unix time", self.help);
        let gauge = encoder.encode_descriptor(self.name, &help, Some(&Unit::Seconds), MetricType::Gauge)?;
        ConstGauge::new(at).encode(gauge)
    }
}

/// 0.1 ms to 5 s: the API server gives up after 2 s.
const ADMISSION_SECONDS: [f64; 15] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0];
/// A pass ends after 60 s at the latest.
const PASS_SECONDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 20.0, 60.0];
/// A request ends after 5 s at the latest.
const MLFLOW_SECONDS: [f64; 9] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

#[cfg(test)]
mod tests;
