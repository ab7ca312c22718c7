//! Which workloads and containers an AgentTracing wires.

use super::OtlpTarget;
use super::problem::{LABEL_KEY, Problems};
use super::valid;
use crate::api::{Injection, LabelSelector, LabelSelectorRequirement, SelectorOperator};

/// What schema and CEL rules cannot say of it.
pub(super) fn validate(injection: &Injection, problems: &mut Problems) {
    for variable in &injection.env {
        if RESERVED.contains(&variable.name.as_str()) {
            let remedy = "the operator sets it itself, or it carries a credential or switches TLS off; take it out and use \
                          the field of the spec made for it (see 'agent-tracing-operator explain')";
            problems.add("spec.injection.env.name", &variable.name, remedy);
        }
    }
    let Some(selector) = &injection.selector else { return };
    problems.labels("spec.injection.selector.matchLabels", &selector.match_labels);
    for LabelSelectorRequirement { key, operator, values } in &selector.match_expressions {
        let listed = matches!(operator, SelectorOperator::In | SelectorOperator::NotIn);
        let field = "spec.injection.selector.matchExpressions";
        if !valid::label_key(key) {
            problems.add(&format!("{field}.key"), key, LABEL_KEY);
        } else if listed && values.is_empty() {
            problems.add(&format!("{field}.values"), "[]", &format!("operators In and NotIn need values for {key}"));
        } else if !listed && !values.is_empty() {
            let remedy = format!("operators Exists and DoesNotExist take no values for {key}");
            problems.add(&format!("{field}.values"), &values.join(", "), &remedy);
        }
    }
}

/// Where OTLP goes is said once.
pub(super) fn check_otlp(injection: &Injection, otlp: &OtlpTarget, problems: &mut Problems) {
    let is_ours = |name: &str| *otlp != OtlpTarget::None && OTLP_DESTINATION.contains(&name);
    for variable in injection.env.iter().filter(|variable| is_ours(&variable.name)) {
        let remedy = "otlp.mode sets it; take it out, or set otlp.mode to None";
        problems.add("spec.injection.env.name", &variable.name, remedy);
    }
}

impl LabelSelector {
    /// Whether labels match; an empty selector matches everything.
    pub fn matches<'l>(&self, label: impl Fn(&str) -> Option<&'l str>) -> bool {
        let labels_match = self.match_labels.iter().all(|(key, value)| label(key) == Some(value.as_str()));
        labels_match && self.match_expressions.iter().all(|e| e.matches(label(&e.key)))
    }
}

impl LabelSelectorRequirement {
    fn matches(&self, value: Option<&str>) -> bool {
        let listed = value.is_some_and(|v| self.values.iter().any(|candidate| candidate == v));
        match self.operator {
            SelectorOperator::In => listed,
            SelectorOperator::NotIn => !listed,
            SelectorOperator::Exists => value.is_some(),
            SelectorOperator::DoesNotExist => value.is_none(),
        }
    }
}

/// Names that `injection.env` may not use beside `otlp.mode`.
const OTLP_DESTINATION: [&str; 3] =
    ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"];

/// Names that `injection.env` may not use. The CEL rule of the kind says the same; a test compares them.
pub const RESERVED: [&str; 23] = [
    "MLFLOW_TRACKING_URI",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_EXPERIMENT_ID",
    "MLFLOW_WORKSPACE",
    "MLFLOW_TRACKING_TOKEN_FILE",
    "MLFLOW_TRACKING_AUTH",
    "REQUESTS_CA_BUNDLE",
    "MLFLOW_TRACKING_SERVER_CERT_PATH",
    "NODE_EXTRA_CA_CERTS",
    "MLFLOW_TRACING_DESTINATION",
    "MLFLOW_HTTP_REQUEST_TIMEOUT",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR",
    "MLFLOW_ASYNC_TRACE_LOGGING_RETRY_TIMEOUT",
    "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING",
    "MLFLOW_USE_BATCH_SPAN_PROCESSOR",
    "MLFLOW_DISABLE_TELEMETRY",
    "MLFLOW_TRACE_SAMPLING_RATIO",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_INSECURE_TLS",
    "NODE_TLS_REJECT_UNAUTHORIZED",
];
