//! The cluster and the install.

use std::collections::BTreeSet;

use crate::core::record::short_hash;
use crate::names;

/// Namespaces that are never wired, whatever their labels say.
const SYSTEM_NAMESPACES: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// What is known of the cluster; not part of any AgentTracing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// API group `security.openshift.io` is served: SCCs give uid, fsGroup and seccomp profile.
    pub openshift: bool,
    /// The cluster's DNS domain, for example `cluster.local`.
    pub cluster_domain: String,
    /// The operator's own namespace.
    pub operator_namespace: String,
    /// Namespaces that an administrator takes out, whatever their labels say.
    pub excluded_namespaces: BTreeSet<String>,
    /// The init container that merges certificate authorities.
    pub merge_ca: MergeCa,
}

impl Platform {
    /// Whether nothing in a namespace is ever wired.
    pub fn excludes(&self, namespace: &str) -> bool {
        SYSTEM_NAMESPACES.contains(&namespace)
            || namespace == self.operator_namespace
            || self.excluded_namespaces.contains(namespace)
    }
}

/// Install options of the init container that merges certificate authorities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeCa {
    /// Its image: the operator's own.
    pub image: String,
    /// Pull Secrets that every namespace is expected to have.
    pub pull_secrets: Vec<String>,
}

impl MergeCa {
    /// Where the image comes from and with which credentials, as one short word.
    pub fn source(&self) -> String {
        short_hash(std::iter::once(self.image.as_str()).chain(self.pull_secrets.iter().map(String::as_str)))
    }
}

impl Default for MergeCa {
    fn default() -> Self {
        Self {
            image: concat!("ghcr.io/agenttracing/agent-tracing-operator:v", env!("CARGO_PKG_VERSION")).to_owned(),
            pull_secrets: Vec::new(),
        }
    }
}

impl Default for Platform {
    /// A default install on plain Kubernetes.
    fn default() -> Self {
        Self {
            openshift: false,
            cluster_domain: "cluster.local".to_owned(),
            operator_namespace: names::OPERATOR_NAMESPACE.to_owned(),
            excluded_namespaces: BTreeSet::new(),
            merge_ca: MergeCa::default(),
        }
    }
}
