//! Settings of a standalone server, with their defaults.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Toleration;
use k8s_openapi::api::networking::v1::NetworkPolicyPeer;

use super::{Problems, resources, valid};
use crate::api::{Artifacts, DeletionPolicy, ImagePullPolicy, NetworkPolicy, Resources, SecretKey, Standalone};
use crate::core::children::quantity;

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

pub(super) fn standalone(spec: Standalone, problems: &mut Problems) -> StandaloneSettings {
    validate(&spec, problems);
    // Destructured, so that a new field of the spec cannot be forgotten here.
    let Standalone {
        image,
        image_pull_policy,
        image_pull_secrets,
        port,
        workers,
        storage,
        deletion_policy,
        backend_store_secret,
        artifacts,
        allowed_hosts,
        resources,
        node_selector,
        tolerations,
        pod_labels,
        network_policy,
    } = spec;
    let storage = storage.unwrap_or_default();
    let workers = workers.unwrap_or(1);
    let storage_size = storage.size.unwrap_or_else(|| DEFAULT_SIZE.to_owned());
    let image_pull_secrets = image_pull_secrets.into_iter().map(|secret| secret.name).collect();
    StandaloneSettings {
        image: image.unwrap_or_else(|| DEFAULT_IMAGE.to_owned()),
        image_pull_policy: image_pull_policy.unwrap_or(ImagePullPolicy::IfNotPresent),
        // The API server merges this list by name and refuses a name that stands twice.
        image_pull_secrets: unique(image_pull_secrets),
        port: port.unwrap_or(DEFAULT_PORT),
        workers,
        storage_size,
        storage_class_name: storage.storage_class_name,
        deletion_policy: deletion_policy.unwrap_or_default(),
        backend_store_secret,
        artifacts,
        allowed_hosts: unique(allowed_hosts),
        resources: with_defaults(resources.unwrap_or_default(), workers, problems),
        node_selector,
        tolerations,
        pod_labels,
        network_policy: match network_policy {
            Some(NetworkPolicy { enabled: Some(false), from: _ }) => None,
            Some(NetworkPolicy { enabled: _, from }) => Some(from),
            None => Some(Vec::new()),
        },
    }
}

/// What the schema cannot see.
fn validate(spec: &Standalone, problems: &mut Problems) {
    if let Some(size) = spec.storage.as_ref().and_then(|storage| storage.size.as_ref())
        && quantity::parse(size).is_none_or(|bytes| bytes <= 0)
    {
        problems.add(&format!("{PREFIX}.storage.size"), size, "write a size above zero, for example 5Gi");
    }
    for secret in &spec.image_pull_secrets {
        problems.secret(&format!("{PREFIX}.imagePullSecrets.name"), &secret.name);
    }
    if let Some(SecretKey { name, key }) = &spec.backend_store_secret {
        problems.secret(&format!("{PREFIX}.backendStoreSecret.name"), name);
        if !valid::secret_key(key) {
            let remedy = "write the name of a key of that Secret: letters, digits, '-', '_' and '.'";
            problems.add(&format!("{PREFIX}.backendStoreSecret.key"), key, remedy);
        }
    }
    if let Some(Artifacts { destination, env_from_secret }) = &spec.artifacts {
        // On the server's own disk they would be lost with the pod; the scheme mlflow-artifacts is the server itself.
        if ["file:", "mlflow-artifacts:"].iter().any(|scheme| destination.starts_with(scheme)) {
            let remedy = "write the address of an object store, for example s3://bucket/path, or leave artifacts out to \
                          keep them on the volume";
            problems.add(&format!("{PREFIX}.artifacts.destination"), destination, remedy);
        }
        if let Some(secret) = env_from_secret {
            problems.secret(&format!("{PREFIX}.artifacts.envFromSecret.name"), &secret.name);
        }
    }
    for host in &spec.allowed_hosts {
        if let Some(remedy) = valid::host_problem(host) {
            problems.add(&format!("{PREFIX}.allowedHosts"), host, remedy);
        }
    }
    for (field, labels) in [("podLabels", &spec.pod_labels), ("nodeSelector", &spec.node_selector)] {
        problems.labels(&format!("{PREFIX}.{field}"), labels);
    }
}

/// The user's resources over the defaults.
fn with_defaults(user: Resources, workers: u8, problems: &mut Problems) -> Resources {
    let more = 256 * u32::from(workers.saturating_sub(1));
    let (request, limit) = (format!("{}Mi", 512 + more), format!("{}Mi", 1024 + more));
    let defaults = [("requests", "cpu", "100m"), ("requests", "memory", &*request), ("limits", "memory", &*limit)];
    resources::with_defaults(user, &defaults, &format!("{PREFIX}.resources"), problems)
}

fn unique(mut list: Vec<String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    list.retain(|item| seen.insert(item.clone()));
    list
}

const PREFIX: &str = "spec.mlflow.standalone";
/// Image of the server: what Red Hat OpenShift AI 3.4 ships.
pub const DEFAULT_IMAGE: &str = "ghcr.io/mlflow/mlflow:v3.10.1";
/// Port of Service and container.
const DEFAULT_PORT: u16 = 5500;
/// Size of the volume.
pub const DEFAULT_SIZE: &str = "5Gi";
