//! The cluster and the install.

use std::collections::BTreeSet;

use super::{Problem, Server, Settings};
use crate::core::inject::record::short_hash;
use crate::names;

/// Beginnings of the names of the cluster's own namespaces, which are never wired, whatever their labels say. `default` is an
/// ordinary one.
pub const SYSTEM_PREFIXES: [&str; 3] = ["kube-", "openshift-", "redhat-ods-"];
/// The one without a dash.
pub const SYSTEM_NAMESPACE: &str = "openshift";

/// Whether a namespace is one of the cluster's own.
pub fn is_system_namespace(namespace: &str) -> bool {
    namespace == SYSTEM_NAMESPACE || SYSTEM_PREFIXES.iter().any(|prefix| namespace.starts_with(prefix))
}

/// What is known of the cluster; not part of any AgentTracing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// API group `security.openshift.io` is served: SCCs give uid, fsGroup and seccomp profile.
    pub openshift: bool,
    /// The cluster's Services have IPv6 addresses, at least first of all.
    pub ipv6: bool,
    /// The cluster's DNS domain, for example `cluster.local`.
    pub cluster_domain: String,
    /// The operator's own namespace.
    pub operator_namespace: String,
    /// Namespaces that an administrator takes out, whatever their labels say.
    pub excluded_namespaces: BTreeSet<String>,
    /// The init container that merges certificate authorities.
    pub merge_ca: MergeCa,
    /// Beginnings of the images that a standalone MLflow may run; none: any.
    pub allowed_mlflow_images: BTreeSet<String>,
}

impl Platform {
    /// What an administrator's options forbid of an AgentTracing that is valid by itself.
    pub fn forbids(&self, settings: &Settings) -> Option<Problem> {
        let Server::Standalone(standalone) = &settings.server else { return None };
        let image = &standalone.image;
        let allows = |start: &String| {
            let rest = image.strip_prefix(start.as_str());
            // The next part of the name must begin there: `…/mlflow` does not allow `…/mlflow-of-somebody`.
            rest.is_some_and(|rest| rest.is_empty() || start.ends_with('/') || rest.starts_with(['/', ':', '@']))
        };
        let allowed = &self.allowed_mlflow_images;
        if allowed.is_empty() || allowed.iter().any(allows) {
            return None;
        }
        let allowed = allowed.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        Some(Problem {
            field: "spec.mlflow.standalone.image".to_owned(),
            value: image.clone(),
            remedy: format!("an administrator allows only images that begin with {allowed} (--allowed-mlflow-images)"),
        })
    }

    /// Whether nothing in a namespace is ever wired.
    pub fn excludes(&self, namespace: &str) -> bool {
        is_system_namespace(namespace)
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
            ipv6: false,
            cluster_domain: "cluster.local".to_owned(),
            operator_namespace: names::OPERATOR_NAMESPACE.to_owned(),
            excluded_namespaces: BTreeSet::new(),
            merge_ca: MergeCa::default(),
            allowed_mlflow_images: BTreeSet::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Review B5: what an administrator allows.
    #[test]
    fn an_image_is_allowed_by_the_beginning_of_its_name_up_to_a_border() {
        let tracing = |spec: &str| {
            let yaml = format!(
                "{{apiVersion: agenttracing.dev/v1alpha1, kind: AgentTracing, metadata: {{name: t, namespace: bank}}, spec: \
                 {{mlflow: {spec}}}}}"
            );
            crate::core::settings::parse(&serde_yaml::from_str(&yaml).unwrap()).unwrap()
        };
        let standalone = |image: &str| tracing(&format!("{{mode: Standalone, standalone: {{image: '{image}'}}}}"));
        let allowed =
            ["ghcr.io/mlflow/mlflow", "registry.example.com/", "mirror:5000/mlflow@sha256"].map(str::to_owned);
        let platform = Platform { allowed_mlflow_images: allowed.into(), ..Platform::default() };
        for image in [
            "ghcr.io/mlflow/mlflow",
            "ghcr.io/mlflow/mlflow:v3.10.1",
            "ghcr.io/mlflow/mlflow@sha256:0",
            "registry.example.com/any/thing:1",
            "mirror:5000/mlflow@sha256:0",
        ] {
            assert_eq!(platform.forbids(&standalone(image)), None, "{image}");
            assert_eq!(Platform::default().forbids(&standalone(image)), None, "by default any: {image}");
        }
        for image in ["ghcr.io/mlflow/mlflow-evil:1", "registry.example.com.evil/x", "mlflow", "mirror:5000/mlflow:1"] {
            let problem = platform.forbids(&standalone(image)).expect(image);
            assert_eq!((problem.field.as_str(), &*problem.value), ("spec.mlflow.standalone.image", image));
            assert!(problem.remedy.contains("registry.example.com/"), "{}", problem.remedy);
        }
        assert_eq!(platform.forbids(&tracing("{mode: CR}")), None);
    }

    #[test]
    fn system_namespaces_are_never_wired_and_names_that_only_resemble_them_are() {
        let platform = Platform { excluded_namespaces: BTreeSet::from(["till".to_owned()]), ..Platform::default() };
        for namespace in [
            "kube-system",
            "kube-public",
            "kube-flannel",
            "openshift",
            "openshift-monitoring",
            "redhat-ods-applications",
            names::OPERATOR_NAMESPACE,
            "till",
        ] {
            assert!(platform.excludes(namespace), "{namespace}");
        }
        for namespace in ["default", "kube", "kubeflow", "openshiftagents", "redhat-agents", "my-kube-system", "tills"]
        {
            assert!(!platform.excludes(namespace), "{namespace}");
        }
    }
}
