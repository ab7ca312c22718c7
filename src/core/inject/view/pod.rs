//! The fields of a pod that decisions need.

use std::collections::BTreeMap;

use serde::de::{Deserializer, IgnoredAny};
use serde::{Deserialize, Serialize};

use super::node::{Affinity, PodOs, WindowsOptions};
use super::{Fields, Text, null_as_default};

/// A pod's spec.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec<'a> {
    /// Containers.
    #[serde(borrow, default, deserialize_with = "objects")]
    pub containers: Vec<Container<'a>>,
    /// Init containers; those with `restartPolicy: Always` are side containers.
    #[serde(borrow, default, deserialize_with = "objects_or_null")]
    pub init_containers: Option<Vec<Container<'a>>>,
    /// Node labels; tells Windows pods.
    #[serde(borrow, default)]
    pub node_selector: Option<BTreeMap<Text<'a>, Text<'a>>>,
    /// Operating system; tells Windows pods.
    #[serde(borrow, default)]
    pub os: Option<PodOs<'a>>,
    /// Whether the pod has the node's network, and by default asks the node's DNS.
    #[serde(default)]
    pub host_network: Option<bool>,
    /// Whose DNS the pod asks.
    #[serde(borrow, default)]
    pub dns_policy: Option<Text<'a>>,
    /// Node labels in more words; tells Windows pods.
    #[serde(borrow, default)]
    pub affinity: Option<Affinity<'a>>,
    /// The account that the pod acts as.
    #[serde(borrow, default)]
    pub service_account_name: Option<Text<'a>>,
    /// The same under its older name, which the API server still reads where the first is absent or empty.
    #[serde(borrow, default)]
    pub service_account: Option<Text<'a>>,
    /// Whether the pod gets that account's token; unset, the account decides.
    #[serde(default)]
    pub automount_service_account_token: Option<bool>,
    /// The uid of all containers that name none.
    #[serde(borrow, default)]
    pub security_context: Option<PodSecurity<'a>>,
    /// Volumes.
    #[serde(borrow, default)]
    pub volumes: Option<Vec<Volume<'a>>>,
    /// Secrets for pulling images.
    #[serde(borrow, default)]
    pub image_pull_secrets: Option<Vec<Reference<'a>>>,
}

/// The part of a pod's security context that concerns us.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSecurity<'a> {
    /// The uid.
    #[serde(default)]
    pub run_as_user: Option<i64>,
    /// Settings of Windows.
    #[serde(borrow, default)]
    pub windows_options: Option<WindowsOptions<'a>>,
}

/// A reference by name.
#[derive(Debug, Deserialize)]
pub struct Reference<'a> {
    /// The name.
    #[serde(borrow, default)]
    pub name: Text<'a>,
}

/// A volume; of its source only what ours have.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Volume<'a> {
    /// Its name.
    #[serde(borrow)]
    pub name: Text<'a>,
    /// An empty folder.
    #[serde(borrow)]
    pub empty_dir: Option<EmptyDir<'a>>,
    /// A ConfigMap.
    #[serde(borrow)]
    pub config_map: Option<ConfigMapVolume<'a>>,
    /// Several sources in one.
    #[serde(borrow)]
    pub projected: Option<Projected<'a>>,
    /// A Secret.
    pub secret: Option<IgnoredAny>,
    /// Fields of the pod itself.
    #[serde(rename = "downwardAPI")]
    pub downward_api: Option<IgnoredAny>,
    /// The content of an image, which nobody can write.
    pub image: Option<IgnoredAny>,
    /// A claim.
    pub persistent_volume_claim: Option<ReadOnly>,
    /// A volume of a storage driver in the pod's own spec.
    pub csi: Option<ReadOnly>,
}

/// Of a volume's source only whether it can be written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReadOnly {
    /// It cannot be written.
    pub read_only: Option<bool>,
}

/// An emptyDir.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EmptyDir<'a> {
    /// Its size at most.
    #[serde(borrow)]
    pub size_limit: Option<Text<'a>>,
}

/// A projected volume.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Projected<'a> {
    /// Its sources.
    #[serde(borrow, deserialize_with = "null_as_default")]
    pub sources: Vec<ProjectedSource<'a>>,
}

/// One source of a projected volume.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProjectedSource<'a> {
    /// A ConfigMap.
    #[serde(borrow)]
    pub config_map: Option<ConfigMapVolume<'a>>,
    /// A token of the pod's account.
    #[serde(borrow)]
    pub service_account_token: Option<TokenSource<'a>>,
    /// A Secret.
    pub secret: Option<IgnoredAny>,
}

/// A token as a file.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct TokenSource<'a> {
    /// The file.
    #[serde(borrow)]
    pub path: Text<'a>,
    /// Who takes it; the API server unless something else is said.
    #[serde(borrow)]
    pub audience: Option<Text<'a>>,
}

/// A ConfigMap as a volume.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ConfigMapVolume<'a> {
    /// Its name.
    #[serde(borrow)]
    pub name: Text<'a>,
    /// Whether it may be absent.
    pub optional: Option<bool>,
    /// Which keys, and as which files.
    #[serde(borrow, deserialize_with = "null_as_default")]
    pub items: Vec<KeyToPath<'a>>,
}

/// A key and its file.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct KeyToPath<'a> {
    /// The key.
    #[serde(borrow)]
    pub key: Text<'a>,
    /// The file.
    #[serde(borrow)]
    pub path: Text<'a>,
}

/// A volume in a container.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Mount<'a> {
    /// The volume.
    #[serde(borrow)]
    pub name: Text<'a>,
    /// Where.
    #[serde(borrow)]
    pub mount_path: Text<'a>,
    /// Whether it can be written.
    pub read_only: Option<bool>,
    /// A part of it.
    #[serde(borrow)]
    pub sub_path: Option<Text<'a>>,
}

/// A block device in a container.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Device<'a> {
    /// Where.
    #[serde(borrow)]
    pub device_path: Text<'a>,
}

/// What a container asks for, as far as it concerns the init container that serves it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ContainerResources {
    /// At most.
    pub limits: Option<Amounts>,
    /// At least.
    pub requests: Option<Amounts>,
}

/// Quantities by resource. Devices and huge pages are the agent's alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Amounts {
    /// Processor time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<serde_json::Value>,
    /// Memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<serde_json::Value>,
    /// Room on the node's disk.
    #[serde(rename = "ephemeral-storage", skip_serializing_if = "Option::is_none")]
    pub ephemeral_storage: Option<serde_json::Value>,
}

/// A container.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container<'a> {
    /// Its name.
    #[serde(borrow, default)]
    pub name: Text<'a>,
    /// Its environment.
    #[serde(borrow, default)]
    pub env: Option<Vec<EnvEntry<'a>>>,
    /// Sources of more environment, which cannot be seen into.
    #[serde(default)]
    pub env_from: Option<Vec<IgnoredAny>>,
    /// `Always` on an init container makes it a native side container.
    #[serde(borrow, default)]
    pub restart_policy: Option<Text<'a>>,
    /// Its image.
    #[serde(borrow, default)]
    pub image: Text<'a>,
    /// Its entry point.
    #[serde(borrow, default, deserialize_with = "null_as_default")]
    pub command: Vec<Text<'a>>,
    /// Its arguments.
    #[serde(borrow, default, deserialize_with = "null_as_default")]
    pub args: Vec<Text<'a>>,
    /// Its volumes.
    #[serde(borrow, default)]
    pub volume_mounts: Option<Vec<Mount<'a>>>,
    /// Block devices.
    #[serde(borrow, default)]
    pub volume_devices: Option<Vec<Device<'a>>>,
    /// What it asks for, which the init container that serves it asks for too.
    #[serde(default)]
    pub resources: Option<ContainerResources>,
    /// Its security context, which an init container with the same image takes over.
    #[serde(default)]
    pub security_context: Option<serde_json::Value>,
}

/// One entry of a container's environment.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvEntry<'a> {
    /// Its name.
    #[serde(borrow, default)]
    pub name: Text<'a>,
    /// Its literal value; absent means empty, unless `value_from` is set.
    #[serde(borrow, default)]
    pub value: Option<Text<'a>>,
    /// Set where the value comes from elsewhere.
    #[serde(default)]
    pub value_from: Option<IgnoredAny>,
}

/// A list of objects, and of nothing else.
fn objects<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let list = Vec::<Fields<T>>::deserialize(deserializer)?;
    Ok(list.into_iter().map(|Fields(object)| object).collect())
}

fn objects_or_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error> {
    let list = Option::<Vec<Fields<T>>>::deserialize(deserializer)?;
    Ok(list.map(|list| list.into_iter().map(|Fields(object)| object).collect()))
}
