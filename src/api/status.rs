use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most workloads that a status lists.
pub const MAX_WORKLOADS: usize = 100;

/// What the operator found and did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentTracingStatus {
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Wired and current workloads out of those that match, as `5/6`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub injected: Option<String>,
    /// The MLflow that answered. Once good it stays: a server that is down changes no wiring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mlflow: Option<MlflowStatus>,
    /// The relay that was ready once: agents are wired to it from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<RelayStatus>,
    /// Experiments that exist in MLflow for the workloads, at most 1,000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub experiments: Vec<EnsuredExperiment>,
    /// The init container `merge-ca` that the cluster does not admit in this namespace; agents take their certificate authorities
    /// from a ConfigMap then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge_ca: Option<RefusedMergeCa>,
    /// Service accounts that may write to MLflow here, in mode CR.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(max = 253)))]
    pub service_accounts: Vec<String>,
    /// The workloads that match, worst first, at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_WORKLOADS), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["kind", "name"]))]
    pub workloads: Vec<WorkloadStatus>,
    /// How many workloads are in which state, those beyond the 100 included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["state"]))]
    pub workload_states: Vec<StateCount>,
    /// `Ready` sums up the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// How many workloads are in a state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StateCount {
    /// The state.
    pub state: WorkloadState,
    /// How many workloads.
    pub count: i32,
}

/// The MLflow that answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MlflowStatus {
    /// The tracking URI that agents get.
    #[schemars(length(max = 1024))]
    pub url: String,
    /// The server's version, as it said itself.
    #[schemars(length(max = 64))]
    pub version: String,
    /// Whether the server has workspaces switched on.
    pub workspaces: bool,
    /// How the address was found: `Service` is the operator's own, `MLflowStatusAddress` and `MLflowStatusURL` are the MLflow
    /// resource's, `Default` the documented one, `Spec` the one in the spec. `Unobserved`: nobody could ask there.
    #[schemars(length(max = 64))]
    pub source: String,
}

/// The relay that was ready once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RelayStatus {
    /// Its address; each workload's begins with it.
    #[schemars(length(max = 512))]
    pub url: String,
}

/// An init container `merge-ca` that the cluster does not admit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefusedMergeCa {
    /// From where it is: image and pull Secrets, as one short word. Another one is tried again.
    #[schemars(length(max = 64))]
    pub refused_source: String,
    /// What the API server said.
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// An experiment that exists in MLflow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnsuredExperiment {
    /// Name of the experiment.
    #[schemars(length(max = 512))]
    pub name: String,
    /// MLflow's numeric id.
    #[schemars(length(max = 64))]
    pub id: String,
}

/// One workload that matches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadStatus {
    /// Kind of the workload; of Pods that are wired by themselves that of their owner, for example `Rollout`.
    #[schemars(length(max = 63))]
    pub kind: String,
    /// Name of the workload, or of the Pods' owner.
    #[schemars(length(max = 253))]
    pub name: String,
    /// What is the case.
    pub state: WorkloadState,
    /// Why, where the state does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub reason: Option<String>,
    /// One sentence that ends with the next command to type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub message: Option<String>,
    /// The experiment that its traces go to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub experiment: Option<String>,
    /// When the newest trace with spans that was seen began, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub last_trace_time: Option<String>,
    /// What the user should know, for example which of their own values were kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 256)))]
    pub notes: Vec<String>,
}

/// What is the case with a workload. The order is the order of the list in status: worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum WorkloadState {
    /// It cannot be wired; the reason says why.
    Skipped,
    /// Its pods do not come back with the wiring; the reason says why, and no other workload is changed until they do.
    Halted,
    /// Somebody takes the wiring out again and again.
    Contested,
    /// Its wiring is not the wanted one and is not being changed now.
    Outdated,
    /// It will be wired when MLflow has answered.
    Pending,
    /// Its pods are being replaced by wired ones.
    RollingOut,
    /// Wired, current and running.
    Injected,
}

impl WorkloadState {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Skipped, Self::Halted, Self::Contested, Self::Outdated, Self::Pending, Self::RollingOut, Self::Injected];

    /// The name as it stands in status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skipped => "Skipped",
            Self::Halted => "Halted",
            Self::Contested => "Contested",
            Self::Outdated => "Outdated",
            Self::Pending => "Pending",
            Self::RollingOut => "RollingOut",
            Self::Injected => "Injected",
        }
    }
}

/// Types of the conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionType {
    /// The sum of the others.
    Ready,
    /// MLflow runs and answers.
    MLflowReady,
    /// MLflow shows this namespace as a workspace.
    WorkspaceReady,
    /// The workloads' service accounts may write to MLflow.
    RBACReady,
    /// The relay takes traces.
    RelayReady,
    /// The workloads' experiments exist.
    ExperimentsReady,
    /// The namespace is labelled and something matches.
    InjectionReady,
    /// Every workload that matches carries the wanted wiring.
    WorkloadsReady,
    /// Traces with spans arrive.
    TracesFlowing,
}

impl ConditionType {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Ready,
        Self::MLflowReady,
        Self::WorkspaceReady,
        Self::RBACReady,
        Self::RelayReady,
        Self::ExperimentsReady,
        Self::InjectionReady,
        Self::WorkloadsReady,
        Self::TracesFlowing,
    ];

    /// The name as it stands in status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::MLflowReady => "MLflowReady",
            Self::WorkspaceReady => "WorkspaceReady",
            Self::RBACReady => "RBACReady",
            Self::RelayReady => "RelayReady",
            Self::ExperimentsReady => "ExperimentsReady",
            Self::InjectionReady => "InjectionReady",
            Self::WorkloadsReady => "WorkloadsReady",
            Self::TracesFlowing => "TracesFlowing",
        }
    }
}
