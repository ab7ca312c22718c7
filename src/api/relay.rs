//! `spec.relay`: the relay that the operator runs between agents and MLflow.

use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Resources;

/// Settings of the relay. It runs while `otlp.mode` or `auth.method` is `Relay`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Relay {
    /// Pods of the relay, each with a volume of its own. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 5), extend("format" = "int32"))]
    pub replicas: Option<u8>,
    /// The volume for what MLflow does not take at the moment; half of it is used. `{}`: memory alone, which is lost when a
    /// pod ends. It cannot change while the relay runs. Default: `{size: 1Gi}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<RelayStorage>,
    /// Compute resources of each pod. Default: requests 10m and 32Mi, limit 96Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// More peers that may send traces, as in a NetworkPolicy, besides this namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub from: Vec<NetworkPolicyPeer>,
}

/// The volume of a pod of the relay.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.storageClassName) || has(self.size)")
        .message("relay.storage.storageClassName is of a volume, and without relay.storage.size there is none: give a size, for example 1Gi, or take storageClassName out")
)]
pub struct RelayStorage {
    /// Size of the volume; without it memory has to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[0-9]+(\.[0-9]{1,3})?(Ki|Mi|Gi|Ti|Pi|Ei|k|M|G|T|P|E)?$"))]
    pub size: Option<String>,
    /// StorageClass of the volume. Default: the cluster's default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
}
