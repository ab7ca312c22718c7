//! The spec: its blocks, and the rules between them.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AgentTracingStatus, Auth, CaBundle, Cr, Experiment, External, Injection, Otlp, Relay, Sdk, Standalone};

/// AgentTracing sends the traces of the AI agents of its namespace to MLflow, and says whether they arrive.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "agenttracing.dev",
    version = "v1alpha1",
    kind = "AgentTracing",
    plural = "agenttracings",
    shortname = "at",
    namespaced,
    status = "AgentTracingStatus",
    doc = "AgentTracing sends the traces of the AI agents of its namespace to MLflow, and says whether they arrive.",
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mlflow.mode"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Injected", type_ = "string", json_path = ".status.injected"),
    printcolumn(name = "Experiment", type_ = "string", json_path = ".spec.experiment.name"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]{0,54}[a-z0-9])?$')")
        .message("metadata.name prefixes the name of a Service: at most 56 lower-case letters, digits and '-', starting with a letter and ending with a letter or digit; choose such a name, for example 'tracing'")
)]
#[serde(rename_all = "camelCase")]
// Transition rules stand here, at spec level: on a field they do not fire when the field's block appears or goes. They say
// `has() ? :` and not `.?x.orValue()`, through which the API server's cost estimate loses sight of `maxLength`.
#[x_kube(
    validation = Rule::new("self.mlflow.mode == oldSelf.mlflow.mode")
        .message("mlflow.mode is immutable: delete this AgentTracing and create it again with the other mode"),
    validation = Rule::new("quantity((has(self.mlflow.standalone) && has(self.mlflow.standalone.storage) && has(self.mlflow.standalone.storage.size) ? self.mlflow.standalone.storage.size : '5Gi')).compareTo(quantity((has(oldSelf.mlflow.standalone) && has(oldSelf.mlflow.standalone.storage) && has(oldSelf.mlflow.standalone.storage.size) ? oldSelf.mlflow.standalone.storage.size : '5Gi'))) >= 0")
        .message("mlflow.standalone.storage.size can only grow: Kubernetes cannot shrink a volume; keep the old size or a larger one"),
    validation = Rule::new("(has(self.mlflow.standalone) && has(self.mlflow.standalone.storage) && has(self.mlflow.standalone.storage.storageClassName) ? self.mlflow.standalone.storage.storageClassName : '') == (has(oldSelf.mlflow.standalone) && has(oldSelf.mlflow.standalone.storage) && has(oldSelf.mlflow.standalone.storage.storageClassName) ? oldSelf.mlflow.standalone.storage.storageClassName : '')")
        .message("mlflow.standalone.storage.storageClassName is immutable: the class of a volume cannot change; set it back to the old value"),
    validation = Rule::new("!has(self.auth) || !has(self.auth.method) || self.auth.method == 'None' || self.mlflow.mode == 'CR' || (self.mlflow.mode == 'External' && has(self.mlflow.external) && self.mlflow.external.trackingURI.startsWith('https://'))")
        .message("auth.method must be None here: a token is sent only in mode CR and to an https:// address; take auth out, or write https:// in mlflow.external.trackingURI"),
    validation = Rule::new("!has(self.otlp) || !has(self.otlp.mode) || self.otlp.mode != 'Direct' || self.mlflow.mode == 'Standalone' || (self.mlflow.mode == 'External' && (!has(self.auth) || !has(self.auth.method) || self.auth.method == 'None'))")
        .message("otlp.mode Direct sends no token, so it is for mode Standalone, and for mode External where auth.method is None; write otlp.mode Relay"),
    validation = Rule::new("!has(self.relay) || ((has(self.otlp) && has(self.otlp.mode) && self.otlp.mode == 'Relay') || (has(self.auth) && has(self.auth.method) && self.auth.method == 'Relay'))")
        .message("relay is set, but nothing uses a relay: set otlp.mode or auth.method to Relay, or take relay out"),
    validation = Rule::new("!((has(self.otlp) && has(self.otlp.mode) && self.otlp.mode == 'Relay') || (has(self.auth) && has(self.auth.method) && self.auth.method == 'Relay')) || !((has(oldSelf.otlp) && has(oldSelf.otlp.mode) && oldSelf.otlp.mode == 'Relay') || (has(oldSelf.auth) && has(oldSelf.auth.method) && oldSelf.auth.method == 'Relay')) || (quantity(has(self.relay) && has(self.relay.storage) ? (has(self.relay.storage.size) ? self.relay.storage.size : '0') : '1Gi').compareTo(quantity(has(oldSelf.relay) && has(oldSelf.relay.storage) ? (has(oldSelf.relay.storage.size) ? oldSelf.relay.storage.size : '0') : '1Gi')) == 0 && (has(self.relay) && has(self.relay.storage) && has(self.relay.storage.storageClassName) ? self.relay.storage.storageClassName : '') == (has(oldSelf.relay) && has(oldSelf.relay.storage) && has(oldSelf.relay.storage.storageClassName) ? oldSelf.relay.storage.storageClassName : ''))")
        .message("relay.storage cannot change while the relay runs, since its volumes may hold traces: set it back; for another one set otlp.mode and auth.method so that nothing uses the relay, delete its PersistentVolumeClaims, and switch it on again")
)]
pub struct AgentTracingSpec {
    /// Stop injecting, repairing and reconciling; everything that exists is kept as it is. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
    /// Which MLflow receives the traces.
    pub mlflow: Mlflow,
    /// The MLflow experiment that the traces are logged to.
    #[serde(default)]
    pub experiment: Experiment,
    /// How agents authenticate to MLflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// Agents that speak OTLP, the protocol of OpenTelemetry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otlp: Option<Otlp>,
    /// The relay between agents and MLflow; only where `otlp.mode` or `auth.method` is `Relay`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<Relay>,
    /// Which certificate authorities agents trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<CaBundle>,
    /// Which workloads and containers are wired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub injection: Option<Injection>,
    /// How the MLflow SDK in the agents behaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sdk: Option<Sdk>,
}

/// Which MLflow receives the traces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.mode == 'Standalone' || !has(self.standalone)")
        .message("mlflow.standalone is set, but mlflow.mode is another: only the block of the chosen mode may be set; take mlflow.standalone out"),
    validation = Rule::new("self.mode == 'CR' || !has(self.cr)")
        .message("mlflow.cr is set, but mlflow.mode is another: only the block of the chosen mode may be set; take mlflow.cr out"),
    validation = Rule::new("self.mode == 'External' ? has(self.external) : !has(self.external)")
        .message("mlflow.external belongs to mlflow.mode External and to no other: give it there with a trackingURI, take it out elsewhere")
)]
pub struct Mlflow {
    /// `Standalone`: the operator runs MLflow itself, in this namespace. `CR`: a shared MLflow that the MLflow operator runs.
    /// `External`: a server that someone else runs. Immutable.
    pub mode: MlflowMode,
    /// Settings of the server that the operator runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standalone: Option<Standalone>,
    /// Where the shared MLflow is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cr: Option<Cr>,
    /// Where the server is that someone else runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
}

/// Who runs MLflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MlflowMode {
    /// The operator runs MLflow in the AgentTracing's namespace.
    Standalone,
    /// The MLflow operator runs one for the whole cluster.
    #[serde(rename = "CR")]
    Cr,
    /// Someone else runs it.
    External,
}

impl MlflowMode {
    /// The name as users write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Standalone => "Standalone",
            Self::Cr => "CR",
            Self::External => "External",
        }
    }
}
