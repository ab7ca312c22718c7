use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["kind", "name"]))]
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
    pub const ALL: [Self; 8] = [
        Self::Ready,
        Self::MLflowReady,
        Self::WorkspaceReady,
        Self::RBACReady,
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
            Self::ExperimentsReady => "ExperimentsReady",
            Self::InjectionReady => "InjectionReady",
            Self::WorkloadsReady => "WorkloadsReady",
            Self::TracesFlowing => "TracesFlowing",
        }
    }
}

/// Declares [`Reason`] and its spelling in one place.
macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// Reasons of conditions and of skipped workloads.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Reason { $($(#[$doc])* $name),+ }

        impl Reason {
            /// The name as it stands in status.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),+ }
            }

            /// The reason of that name.
            pub fn from_name(name: &str) -> Option<Self> {
                [$(Self::$name),+].into_iter().find(|reason| reason.as_str() == name)
            }
        }
    };
}

reasons! {
    /// Ready and TracesFlowing: a trace with its spans arrived since the current wiring.
    TracesReceived,
    /// Ready: everything is wired, no trace was seen yet.
    WaitingForTraces,
    /// Ready: `spec.suspend` is set.
    Suspended,
    /// Another, older AgentTracing has the workloads.
    Conflict,
    /// Ready: passes fail again and again; the message says at what.
    ReconcileFailed,
    /// More accounts or experiments than a status holds.
    LimitReached,
    /// The spec cannot be carried out; the message names field, value and remedy.
    InvalidSpec,
    /// MLflow answers.
    Available,
    /// MLflow is starting.
    Progressing,
    /// MLflow's pod does not become ready.
    PodsNotReady,
    /// MLflow's volume is not bound or cannot become what the spec says.
    StorageNotBound,
    /// An object with our name exists that is not ours.
    NameConflict,
    /// The API server refuses one of our objects.
    CreateForbidden,
    /// The cluster has no MLflow resources: the MLflow operator is not installed.
    MLflowCRDMissing,
    /// There is no MLflow resource of that name.
    MLflowNotFound,
    /// The MLflow resource says that it is not available.
    MLflowNotReady,
    /// The MLflow resource's database could not be migrated.
    MigrationFailed,
    /// MLflow cannot be reached.
    Unreachable,
    /// MLflow's certificate is not trusted.
    TLSUntrusted,
    /// MLflow answers, and its storage is full.
    StorageFull,
    /// MLflow answers, and refuses to write.
    WritesRefused,
    /// The cluster refuses the MLflow resource that `mlflow.cr.create` describes.
    TemplateInvalid,
    /// MLflow shows the namespace as a workspace.
    Visible,
    /// MLflow's label selector hides the namespace.
    NamespaceLabelMissing,
    /// MLflow shows no system namespace.
    SystemNamespace,
    /// MLflow has no workspaces.
    WorkspacesDisabled,
    /// Every service account may write to MLflow.
    Bound,
    /// The ClusterRole to bind does not exist.
    ClusterRoleMissing,
    /// The API server refuses the RoleBinding.
    BindForbidden,
    /// A service account may not write although it is bound.
    AccessDenied,
    /// MLflow refuses the Host header.
    HostHeaderRejected,
    /// MLflow wants credentials.
    Unauthorized,
    /// Something answers with a web page instead of MLflow.
    LoginPage,
    /// Something else than MLflow answers at the address.
    WrongPath,
    /// MLflow is older than 3.0, which has no traces API.
    VersionTooOld,
    /// Experiments exist.
    Ensured,
    /// Experiments are being created.
    Creating,
    /// An experiment of that name was deleted.
    ExperimentDeleted,
    /// MLflow refuses to create the experiment.
    Forbidden,
    /// MLflow refuses the experiment's name.
    NameInvalid,
    /// The namespace is labelled and something matches.
    Enabled,
    /// The namespace has no injection label.
    NamespaceNotLabelled,
    /// An administrator took the namespace out, or it is one of the cluster's own.
    NamespaceExcluded,
    /// The webhook does not answer.
    WebhookUnavailable,
    /// No workload matches.
    NothingMatches,
    /// All workloads carry the wanted wiring.
    AllCurrent,
    /// Workloads wait for MLflow to answer once.
    WaitingForMLflow,
    /// Workloads are being replaced by wired ones.
    RolloutInProgress,
    /// A workload does not come back with its wiring, so no other one is changed.
    RolloutHalted,
    /// The init container that merges certificate authorities cannot be pulled or started.
    MergeCAImage,
    /// The cluster does not admit the init container that merges certificate authorities.
    MergeCARefused,
    /// Somebody takes the wiring out again and again.
    Contested,
    /// The wiring is not the wanted one.
    Outdated,
    /// Some workloads cannot be wired.
    Skipped,
    /// No trace was seen yet.
    NoTracesYet,
    /// Workloads that are up for 10 minutes have sent no trace.
    NoTracesFrom,
    /// Traces came regularly and have stopped.
    TracesStopped,
    /// It cannot be told from outside.
    NotObservable,
    /// Traces arrive, but without their spans.
    TracesWithoutSpans,
    /// A workload speaks OTLP to MLflow, at a path where that does not take it.
    OTLPPathMissing,
    /// Label `agenttracing.dev/inject=false`.
    OptedOut,
    /// The container sets its own MLFLOW_TRACKING_URI.
    OwnTrackingURI,
    /// A Job that was created while it could not be wired, and is never changed.
    CreatedUnwired,
    /// No container is left to wire.
    NoContainers,
    /// The template's annotations leave no room for the record of what was injected.
    AnnotationsTooLong,
    /// The pod has no service account token, which MLflow wants.
    NoServiceAccountToken,
    /// Windows pods are not wired.
    Windows,
    /// Our record on the template cannot be read.
    RecordUnreadable,
}
