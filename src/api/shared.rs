use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A shared MLflow that the MLflow operator runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cr {
    /// Name of the cluster-scoped MLflow resource. Default: `mlflow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: Option<String>,
    /// Address of the server, in place of the one that is discovered. The operator asks there only if an administrator
    /// listed its host (`--trusted-mlflow-hosts`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^https://[^\s/@?#]+(/[^\s@?#]*)?$"))]
    pub url: Option<String>,
    /// Create the MLflow resource from `template` where there is none; an existing one is never touched and none is ever
    /// deleted. Only in namespaces that an administrator named (`--create-mlflow-namespaces`). Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub create: bool,
    /// What `create` creates. Default: one replica with SQLite and artifacts on a volume of 10Gi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<CrTemplate>,
}

/// The spec of an MLflow resource. Image and service account of the server are the MLflow operator's: it runs in a namespace
/// that whoever may edit an AgentTracing has nothing to say in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CrTemplate {
    /// Where the server keeps artifacts, for example `s3://bucket/path`. Default: `file:///mlflow/artifacts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub artifacts_destination: Option<String>,
    /// Database of the server; no password here, everybody can read it. Default: `sqlite:////mlflow/mlflow.db`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub backend_store_uri: Option<String>,
    /// Servers. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 32), extend("format" = "int32"))]
    pub replicas: Option<u8>,
    /// Agents upload spans through the server. Without it no trace has spans. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serve_artifacts: Option<bool>,
    /// Volume of the server. Default: 10Gi, ReadWriteOnce, where database or artifacts are on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<CrStorage>,
    /// Server processes. Default: the MLflow operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 32), extend("format" = "int32"))]
    pub workers: Option<u8>,
}

/// Volume of an MLflow resource, as in a PersistentVolumeClaim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CrStorage {
    /// `ReadWriteOnce` and the like.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), inner(length(max = 63)))]
    pub access_modes: Vec<String>,
    /// Its size.
    pub resources: CrStorageResources,
    /// Its StorageClass. Default: the cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
}

/// Size of a volume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CrStorageResources {
    /// For example `{storage: 10Gi}`.
    #[schemars(extend("maxProperties" = 4))]
    pub requests: BTreeMap<String, Quantity>,
}

/// A server that someone else runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct External {
    /// Its address, as agents get it: `http://` or `https://`, no user name or password.
    #[serde(rename = "trackingURI")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^https?://[^\s/@?#]+(/[^\s@?#]*)?$"))]
    pub tracking_uri: String,
    /// The workspace that traces go to, where the server has workspaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub workspace: Option<String>,
}

/// How agents authenticate to MLflow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Auth {
    /// `TokenFile`: MLFLOW_TRACKING_TOKEN_FILE names the pod's service account token, which the agent's code reads.
    /// `KubernetesPlugin`: MLflow's own plugin (3.11 and later, with the `kubernetes` package) does. `None`. Default:
    /// `TokenFile` in mode CR, else `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<AuthMethod>,
}

/// How agents authenticate to MLflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AuthMethod {
    /// The agent's code reads the file that MLFLOW_TRACKING_TOKEN_FILE names.
    TokenFile,
    /// MLFLOW_TRACKING_AUTH=kubernetes-namespaced.
    KubernetesPlugin,
    /// Not at all.
    None,
}

/// The certificate authorities that agents trust.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaBundle {
    /// `Auto`: in mode CR, and for an https address with `configMaps`. `Always`. `Never`. Default: `Auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<CaBundleMode>,
    /// `InitContainer`: the operator's image merges the authorities when a pod starts. `AgentInitContainer`: the agent's own
    /// image does, with its shell, so that authorities in that image are kept. `ConfigMap`: the operator merges them into
    /// ConfigMap `agenttracing-ca`; no further container, and it follows their rotation. Default: `InitContainer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<CaBundleStrategy>,
    /// `All`: every call of the agent that goes by REQUESTS_CA_BUNDLE or NODE_EXTRA_CA_CERTS. `MLflow`: only calls of MLflow's
    /// SDK, so that the agent's other calls keep the trust of their code. Default: `All`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<CaBundleScope>,
    /// ConfigMaps of this namespace with more certificate authorities.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub config_maps: Vec<ConfigMapKey>,
}

/// Whether agents get a bundle of certificate authorities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CaBundleMode {
    /// Where MLflow's certificate may need it.
    #[default]
    Auto,
    /// In every case.
    Always,
    /// In none.
    Never,
}

/// Who merges the certificate authorities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum CaBundleStrategy {
    /// An init container with the operator's image.
    #[default]
    InitContainer,
    /// An init container with the agent's image.
    AgentInitContainer,
    /// The operator, into a ConfigMap.
    ConfigMap,
}

/// Which calls of an agent trust the merged certificate authorities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CaBundleScope {
    /// All that its libraries make.
    #[default]
    All,
    /// Those to MLflow.
    MLflow,
}

/// One key of a ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapKey {
    /// Name of a ConfigMap in this namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in that ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}
