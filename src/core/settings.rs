//! An AgentTracing parsed once into settings that are valid and complete; the raw resource stops here.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::Toleration;
use k8s_openapi::api::networking::v1::NetworkPolicyPeer;

use super::policy::Policy;
use crate::api::{AgentTracing, Artifacts, DeletionPolicy, ImagePullPolicy, Resources, SecretKey};
use crate::names;

/// What is known of the cluster; not part of any AgentTracing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// API group `security.openshift.io` is served: SCCs give uid, fsGroup and seccomp profile.
    pub openshift: bool,
    /// The cluster's DNS domain, for example `cluster.local`.
    pub cluster_domain: String,
    /// The operator's own namespace.
    pub operator_namespace: String,
}

/// An AgentTracing with every default resolved.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of the AgentTracing.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its uid, for owner references.
    pub uid: String,
    /// `spec.suspend`.
    pub suspend: bool,
    /// What it wants of workloads.
    pub policy: Policy,
    /// The server that we run.
    pub standalone: StandaloneSettings,
}

/// The standalone server, every default resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct StandaloneSettings {
    /// Image of server and migration.
    pub image: String,
    /// When it is pulled.
    pub image_pull_policy: ImagePullPolicy,
    /// Names of pull Secrets, each once.
    pub image_pull_secrets: Vec<String>,
    /// Port of Service and container.
    pub port: u16,
    /// Server processes.
    pub workers: u8,
    /// Size of the volume.
    pub storage_size: String,
    /// Its class; `None` is the cluster's default class.
    pub storage_class_name: Option<String>,
    /// What happens to the volume with the AgentTracing.
    pub deletion_policy: DeletionPolicy,
    /// The database, where it is not SQLite on the volume.
    pub backend_store_secret: Option<SecretKey>,
    /// The artifact store, where it is not the volume.
    pub artifacts: Option<Artifacts>,
    /// The user's host names, each once.
    pub allowed_hosts: Vec<String>,
    /// Requests and limits, defaults filled in.
    pub resources: Resources,
    /// Labels that a node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Taints that are tolerated.
    pub tolerations: Vec<Toleration>,
    /// The user's pod labels.
    pub pod_labels: BTreeMap<String, String>,
    /// The user's peers of the NetworkPolicy; `None`: no NetworkPolicy.
    pub network_policy: Option<Vec<NetworkPolicyPeer>>,
}

/// A value that the API server accepted and that cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The field, as `kubectl explain` spells it.
    pub field: String,
    /// The value found there.
    pub value: String,
    /// What to write instead.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, value, remedy } = self;
        write!(f, "{field} is \"{value}\": {remedy}")
    }
}

/// Parses an AgentTracing, or names everything that is wrong with it.
pub fn parse(tracing: &AgentTracing) -> Result<Settings, Vec<Problem>> {
    let spec = tracing.spec.mlflow.standalone.clone().unwrap_or_default();
    let storage = spec.storage.unwrap_or_default();
    Ok(Settings {
        name: tracing.metadata.name.clone().unwrap_or_default(),
        namespace: tracing.metadata.namespace.clone().unwrap_or_default(),
        uid: tracing.metadata.uid.clone().unwrap_or_default(),
        suspend: tracing.spec.suspend,
        policy: Policy::of(tracing),
        standalone: StandaloneSettings {
            image: spec.image.unwrap_or_else(|| DEFAULT_IMAGE.to_owned()),
            image_pull_policy: spec.image_pull_policy.unwrap_or(ImagePullPolicy::IfNotPresent),
            image_pull_secrets: spec.image_pull_secrets.into_iter().map(|s| s.name).collect(),
            port: spec.port.unwrap_or(DEFAULT_PORT),
            workers: spec.workers.unwrap_or(1),
            storage_size: storage.size.unwrap_or_else(|| DEFAULT_SIZE.to_owned()),
            storage_class_name: storage.storage_class_name,
            deletion_policy: spec.deletion_policy.unwrap_or_default(),
            backend_store_secret: spec.backend_store_secret,
            artifacts: spec.artifacts,
            allowed_hosts: spec.allowed_hosts,
            resources: spec.resources.unwrap_or_default(),
            node_selector: spec.node_selector,
            tolerations: spec.tolerations,
            pod_labels: spec.pod_labels,
            network_policy: match spec.network_policy {
                Some(policy) if policy.enabled == Some(false) => None,
                Some(policy) => Some(policy.from),
                None => Some(Vec::new()),
            },
        },
    })
}

impl Settings {
    /// Name of all child objects: `<AgentTracing>-mlflow`.
    pub fn object_name(&self) -> String {
        names::mlflow_object(&self.name)
    }

    /// The address that agents get: `http://<AgentTracing>-mlflow.<namespace>.svc:<port>`.
    pub fn tracking_uri(&self) -> String {
        format!("http://{}.{}.svc:{}", self.object_name(), self.namespace, self.standalone.port)
    }
}

/// Image of the server: what Red Hat OpenShift AI 3.4 ships.
pub const DEFAULT_IMAGE: &str = "ghcr.io/mlflow/mlflow:v3.10.1";
/// Port of the server.
pub const DEFAULT_PORT: u16 = 5500;
/// Size of the volume.
pub const DEFAULT_SIZE: &str = "5Gi";
