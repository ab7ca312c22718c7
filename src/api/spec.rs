use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Toleration;
use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AgentTracingStatus, Auth, CaBundle, Cr, External};

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
        .message("auth.method must be None here: a token is sent only in mode CR and to an https:// address; take auth out, or write https:// in mlflow.external.trackingURI")
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

/// Settings of the MLflow server that the operator runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Standalone {
    /// Image of the MLflow server. Default: `ghcr.io/mlflow/mlflow:v3.10.1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^\S+$"))]
    pub image: Option<String>,
    /// When the kubelet pulls the image: `Always`, `IfNotPresent` or `Never`. Default: `IfNotPresent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// Secrets of this namespace with credentials for the image's registry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub image_pull_secrets: Vec<ImagePullSecret>,
    /// Port of the Service and of the container. Default: 5500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 65535), extend("format" = "int32"))]
    pub port: Option<u16>,
    /// Server processes; each needs about 250 MiB. More than one does not help with SQLite. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 32), extend("format" = "int32"))]
    pub workers: Option<u8>,
    /// The volume that keeps traces and artifacts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<Storage>,
    /// What happens to the volume when this AgentTracing is deleted: `Retain` keeps it and a new AgentTracing of the
    /// same name adopts it again; `Delete` deletes it with every trace. Default: `Retain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
    /// A Secret that holds the SQLAlchemy URI of the database, in place of SQLite on the volume. The operator passes it
    /// on by reference and never reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_store_secret: Option<SecretKey>,
    /// Where artifacts are kept, in place of the volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<Artifacts>,
    /// Host names by which MLflow is reached from outside (routes, ingresses), besides its in-cluster names. MLflow
    /// refuses every other Host header with 403. `*` matches any run of characters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253), regex(pattern = r"^[^\s,]+$")))]
    pub allowed_hosts: Vec<String>,
    /// Compute resources of the server. Default: requests 100m and 512Mi, limit 1Gi, for each further worker 256Mi more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Labels that a node must have to run the server.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the server tolerates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,
    /// More labels for the server's pod. The operator's own labels win.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub pod_labels: BTreeMap<String, String>,
    /// Who may connect to the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_policy: Option<NetworkPolicy>,
}

/// When the kubelet pulls an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ImagePullPolicy {
    /// At every start of the container.
    Always,
    /// When the node does not have it.
    IfNotPresent,
    /// Not at all.
    Never,
}

/// A Secret with registry credentials.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImagePullSecret {
    /// Name of a Secret in this namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// The volume of a standalone server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// Size of the volume. It can only grow, and only where the StorageClass allows it. Default: `5Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[0-9]+(\.[0-9]{1,3})?(Ki|Mi|Gi|Ti|Pi|Ei|k|M|G|T|P|E)?$"))]
    pub size: Option<String>,
    /// StorageClass of the volume. Immutable. Default: the cluster's default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
}

/// What happens to the volume with the AgentTracing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Keep the volume; a new AgentTracing of the same name adopts it.
    #[default]
    Retain,
    /// Delete the volume and every trace on it.
    Delete,
}

/// One key of a Secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKey {
    /// Name of a Secret in this namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in that Secret.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// Where artifacts are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Artifacts {
    /// Address of the artifact store, for example `s3://bucket/path`.
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^[a-z][a-z0-9+.-]*://\S+$"))]
    pub destination: String,
    /// A Secret whose keys become environment variables of the server, for example the store's credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_from_secret: Option<EnvFromSecret>,
}

/// A Secret whose keys become environment variables.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvFromSecret {
    /// Name of a Secret in this namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Compute resources, as in a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// The most that the server may use, for example `{memory: 2Gi}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub limits: BTreeMap<String, Quantity>,
    /// What the scheduler reserves for the server.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub requests: BTreeMap<String, Quantity>,
}

/// Who may connect to a standalone server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkPolicy {
    /// Create a NetworkPolicy that admits this namespace, the operator and `from`. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// More peers that may connect, as in a NetworkPolicy: routers, ingress controllers, Prometheus.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub from: Vec<NetworkPolicyPeer>,
}

/// The MLflow experiment that traces are logged to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Experiment {
    /// Name of the experiment; `{workload}`, `{namespace}` and `{tracing}` are replaced by the names of the workload, its
    /// namespace and this AgentTracing. Default: `{workload}`.
    #[serde(default = "workload_template")]
    #[schemars(length(min = 1, max = 250), regex(pattern = r"^([^{}]|\{workload\}|\{namespace\}|\{tracing\})+$"))]
    pub name: String,
    /// Restore a deleted experiment of that name. Otherwise it is reported. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restore_deleted: bool,
    /// Also inject MLFLOW_TRACING_DESTINATION, the experiment's numeric id: the agent looks nothing up, and its own
    /// `set_experiment()` no longer counts. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pin: bool,
}

impl Default for Experiment {
    fn default() -> Self {
        Self { name: workload_template(), restore_deleted: false, pin: false }
    }
}

fn workload_template() -> String {
    "{workload}".to_owned()
}

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

/// How the MLflow SDK in the agents behaves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sdk {
    /// Seconds that a request to MLflow may take. Default: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 300), extend("format" = "int32"))]
    pub timeout_seconds: Option<u16>,
    /// How often a failed request is repeated. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10), extend("format" = "int32"))]
    pub max_retries: Option<u8>,
    /// Share of traces that are kept, from "0.0" to "1.0". Default: "1.0".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^(0(\.[0-9]+)?|1(\.0+)?)$"))]
    pub sampling_ratio: Option<String>,
}
