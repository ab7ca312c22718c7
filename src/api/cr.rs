//! `spec.mlflow.cr`: a shared MLflow that the MLflow operator runs.

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
