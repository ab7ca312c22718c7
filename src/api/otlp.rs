//! `spec.otlp`: agents that speak OpenTelemetry's protocol.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where agents send what they say in OpenTelemetry's protocol (OTLP over HTTP).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.mode) && self.mode == 'Collector') == has(self.endpoint)")
        .message("otlp.endpoint belongs to otlp.mode Collector and to no other: give the collector's address there, for example 'http://collector.observability.svc:4318/v1/traces', take it out elsewhere")
)]
pub struct Otlp {
    /// `None`: agents get no OTLP variables. `Direct`: to MLflow itself, in mode Standalone, and in mode External without a
    /// token. `Relay`: to a relay that the operator runs, which has the token and keeps what MLflow does not take. `Collector`:
    /// to `endpoint`. Default: `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<OtlpMode>,
    /// Address to which the collector takes traces, with its path: it is given to agents as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^https?://[^\s/@?#]+(/[^\s@?#]*)?$"))]
    pub endpoint: Option<String>,
}

/// Where agents send what they say in OTLP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OtlpMode {
    /// Nowhere that the operator decides.
    #[default]
    None,
    /// To MLflow itself.
    Direct,
    /// To the relay.
    Relay,
    /// To a collector that somebody else runs.
    Collector,
}
