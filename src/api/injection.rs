//! `spec.injection`: which workloads and containers are wired, and how fast.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which workloads and containers are wired.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Injection {
    /// Kinds of workloads that are wired: `Deployment`, `StatefulSet`, `DaemonSet`, `CronJob`, `Job`. Where it is empty only
    /// those with the label `agenttracing.dev/inject=true` are, which may be of any kind. Default: Deployment, Job and
    /// CronJob.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 5), extend("x-kubernetes-list-type" = "set"))]
    pub kinds: Option<Vec<WorkloadKind>>,
    /// Selects workloads by the labels of their pod template. Default: every workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// Selects containers by name. Default: all but well-known side containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub containers: Option<ContainerNames>,
    /// More environment variables for every wired container. A container's own value wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<EnvVar>,
    /// How running workloads get a changed wiring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
}

/// How running workloads get a changed wiring, which replaces their pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// `Automatic`: the operator changes them, a few at a time. `Manual`: they get it with their next own change, for
    /// example `kubectl rollout restart`. Default: `Automatic`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<RolloutPolicy>,
    /// Most workloads of this AgentTracing that are unavailable at a time because of the operator; the install limits
    /// the whole cluster besides. Default: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100), extend("format" = "int32"))]
    pub max_concurrent: Option<u16>,
}

/// Who changes running workloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RolloutPolicy {
    /// The operator, a few at a time.
    #[default]
    Automatic,
    /// Their owner.
    Manual,
}

/// A kind of workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WorkloadKind {
    /// Running pods are replaced when the wiring changes.
    Deployment,
    /// Running pods are replaced one after the other when the wiring changes.
    StatefulSet,
    /// Running pods are replaced node by node when the wiring changes.
    DaemonSet,
    /// Its next Jobs get a changed wiring.
    CronJob,
    /// Wired when it is created, or never.
    Job,
}

/// A label selector.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelector {
    /// Labels that must all be there with these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub match_labels: BTreeMap<String, String>,
    /// Expressions that must all hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub match_expressions: Vec<LabelSelectorRequirement>,
}

/// One expression of a label selector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelectorRequirement {
    /// The label.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: SelectorOperator,
    /// Values for `In` and `NotIn`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63)))]
    pub values: Vec<String>,
}

/// Operator of a label selector's expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SelectorOperator {
    /// The label has one of the values.
    In,
    /// The label has none of the values, or is absent.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

/// Selects containers by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerNames {
    /// Only these containers, also where one is a well-known side container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 63)))]
    pub include: Vec<String>,
    /// Never these containers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 63)))]
    pub exclude: Vec<String>,
}

/// An environment variable with a literal value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(self.name in ['MLFLOW_TRACKING_URI','MLFLOW_EXPERIMENT_NAME','MLFLOW_EXPERIMENT_ID','MLFLOW_WORKSPACE','MLFLOW_TRACKING_TOKEN_FILE','MLFLOW_TRACKING_AUTH','REQUESTS_CA_BUNDLE','MLFLOW_TRACKING_SERVER_CERT_PATH','NODE_EXTRA_CA_CERTS','MLFLOW_TRACING_DESTINATION','MLFLOW_HTTP_REQUEST_TIMEOUT','MLFLOW_HTTP_REQUEST_MAX_RETRIES','MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR','MLFLOW_ASYNC_TRACE_LOGGING_RETRY_TIMEOUT','MLFLOW_ENABLE_ASYNC_TRACE_LOGGING','MLFLOW_USE_BATCH_SPAN_PROCESSOR','MLFLOW_DISABLE_TELEMETRY','MLFLOW_TRACE_SAMPLING_RATIO','MLFLOW_TRACKING_TOKEN','MLFLOW_TRACKING_USERNAME','MLFLOW_TRACKING_PASSWORD','MLFLOW_TRACKING_INSECURE_TLS','NODE_TLS_REJECT_UNAUTHORIZED'])")
        .message("injection.env may not name a variable that the operator sets itself or one that carries a credential or switches TLS off; use the field of the spec made for it (see 'agent-tracing-operator explain')")
)]
pub struct EnvVar {
    /// Name of the variable.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub name: String,
    /// Its value.
    #[schemars(length(max = 2048))]
    pub value: String,
}
