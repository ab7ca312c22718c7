//! The operating system that pods are made for.
//!
//! Kubernetes has no one field that all Windows pods set: `os` is young, and most manifests choose nodes in one of the older
//! ways. What a RuntimeClass chooses cannot be seen from a template.

use serde::Deserialize;

use super::pod::{PodSpec, null_as_default};
use crate::core::inject::view::Text;

/// Labels of a node that say its operating system; the second is the older spelling.
const OS_LABELS: [&str; 2] = ["kubernetes.io/os", "beta.kubernetes.io/os"];
/// A label that only Windows nodes have.
const WINDOWS_BUILD: &str = "node.kubernetes.io/windows-build";
const WINDOWS: &str = "windows";

/// A pod's operating system.
#[derive(Debug, Deserialize)]
pub struct PodOs<'a> {
    /// `linux` or `windows`.
    #[serde(borrow, default)]
    pub name: Text<'a>,
}

/// Which nodes a pod is for, beside `nodeSelector`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Affinity<'a> {
    /// By the labels of nodes.
    #[serde(borrow)]
    pub node_affinity: Option<NodeAffinity<'a>>,
}

/// Which nodes a pod is for; what is only preferred says nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeAffinity<'a> {
    /// What a node must have.
    #[serde(borrow, rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    pub required: Option<NodeTerms<'a>>,
}

/// Alternatives, of which a node must meet one.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeTerms<'a> {
    /// The alternatives.
    #[serde(borrow, rename = "nodeSelectorTerms", deserialize_with = "null_as_default")]
    pub terms: Vec<Option<NodeTerm<'a>>>,
}

/// Requirements, of which a node must meet all.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeTerm<'a> {
    /// On its labels.
    #[serde(borrow, deserialize_with = "null_as_default")]
    pub match_expressions: Vec<NodeRequirement<'a>>,
    /// On its fields.
    #[serde(borrow, deserialize_with = "null_as_default")]
    pub match_fields: Vec<NodeRequirement<'a>>,
}

/// One requirement on a node.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeRequirement<'a> {
    /// The label.
    #[serde(borrow)]
    pub key: Text<'a>,
    /// `In`, `NotIn`, `Exists`, `DoesNotExist`, `Gt`, `Lt`.
    #[serde(borrow)]
    pub operator: Text<'a>,
    /// The values that the operator compares with.
    #[serde(borrow, deserialize_with = "null_as_default")]
    pub values: Vec<Text<'a>>,
}

/// Settings of Windows in a security context.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WindowsOptions<'a> {
    /// A domain account's settings.
    #[serde(borrow)]
    pub gmsa_credential_spec: Option<Text<'a>>,
    /// Where these stand.
    #[serde(borrow)]
    pub gmsa_credential_spec_name: Option<Text<'a>>,
    /// The user.
    #[serde(borrow)]
    pub run_as_user_name: Option<Text<'a>>,
    /// Whether it is a process of the node.
    pub host_process: Option<bool>,
}

impl WindowsOptions<'_> {
    /// Whether they say something. Policies write `hostProcess: false` into every pod, also into those of Linux.
    fn is_set(&self) -> bool {
        let texts = [&self.gmsa_credential_spec, &self.gmsa_credential_spec_name, &self.run_as_user_name];
        self.host_process == Some(true) || texts.into_iter().flatten().any(|text| !text.is_empty())
    }
}

impl PodSpec<'_> {
    /// Whether the pods run on Windows, whose images know no `/tmp/ca-bundle` and no init container of ours.
    ///
    /// What names the system counts before what only hints at it: `os`, then the labels of `nodeSelector`, then required node
    /// affinity, then settings that only Windows has.
    pub fn is_windows(&self) -> bool {
        if let Some(os) = self.os.as_ref().filter(|os| !os.name.is_empty()) {
            return &*os.name == WINDOWS;
        }
        let selected = |label: &str| self.node_selector.as_ref().and_then(|labels| labels.get(label));
        if let Some(os) = OS_LABELS.into_iter().find_map(selected) {
            return &**os == WINDOWS;
        }
        if selected(WINDOWS_BUILD).is_some() {
            return true;
        }
        let required = self.affinity.as_ref().and_then(|a| a.node_affinity.as_ref()?.required.as_ref());
        if let Some(windows) = required.and_then(NodeTerms::decides) {
            return windows;
        }
        let of_pod = self.security_context.as_ref().and_then(|context| context.windows_options.as_ref());
        let containers = self.containers.iter().chain(self.init_containers.iter().flatten());
        let of_containers = containers.filter_map(|c| c.security_context.as_ref()?.get("windowsOptions"));
        let mut of_containers = of_containers.filter_map(|options| WindowsOptions::deserialize(options).ok());
        of_pod.is_some_and(WindowsOptions::is_set) || of_containers.any(|options| options.is_set())
    }
}

impl NodeTerms<'_> {
    /// Whether all nodes that may be chosen are of Windows; `None` where they say nothing of the system.
    fn decides(&self) -> Option<bool> {
        // A term that requires nothing matches no node.
        let possible =
            self.terms.iter().flatten().filter(|t| !t.match_expressions.is_empty() || !t.match_fields.is_empty());
        let systems: Vec<Option<bool>> = possible.map(NodeTerm::decides).collect();
        let said = systems.iter().any(Option::is_some);
        said.then(|| systems.iter().all(|windows| *windows == Some(true)))
    }
}

impl NodeTerm<'_> {
    fn decides(&self) -> Option<bool> {
        let said: Vec<bool> = self.match_expressions.iter().filter_map(NodeRequirement::decides).collect();
        (!said.is_empty()).then(|| said.contains(&true))
    }
}

impl NodeRequirement<'_> {
    /// Whether only nodes of Windows meet it; `None` where it says nothing of the system.
    fn decides(&self) -> Option<bool> {
        let (key, operator) = (&*self.key, &*self.operator);
        if key == WINDOWS_BUILD {
            return (operator != "NotIn").then_some(operator != "DoesNotExist");
        }
        let windows = self.values.iter().any(|value| &**value == WINDOWS);
        let others = self.values.iter().any(|value| &**value != WINDOWS);
        match operator {
            _ if !OS_LABELS.contains(&key) => None,
            "In" => Some(windows && !others),
            "NotIn" => Some(others && !windows),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::core::inject::view::Workload;
    use crate::core::selection::kind::Kind;

    fn is_windows(pod: &str) -> bool {
        let pod: Value = serde_yaml::from_str(pod).unwrap();
        let object = json!({"metadata": {}, "spec": {"template": {"spec": pod}}}).to_string();
        Workload::parse(Kind::Deployment, &object).unwrap().is_windows()
    }

    fn affine(terms: &str) -> String {
        format!(
            "{{affinity: {{nodeAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: {{nodeSelectorTerms: {terms}}}}}}}}}"
        )
    }

    /// case B16
    #[test]
    fn windows_is_known_in_every_spelling() {
        for pod in [
            "{os: {name: windows}}",
            "{nodeSelector: {kubernetes.io/os: windows}}",
            "{nodeSelector: {beta.kubernetes.io/os: windows}}",
            "{nodeSelector: {node.kubernetes.io/windows-build: 10.0.20348}}",
            "{securityContext: {windowsOptions: {runAsUserName: ContainerUser}}}",
            "{containers: [{name: a}, {name: b, securityContext: {windowsOptions: {hostProcess: true}}}]}",
            "{initContainers: [{name: a, securityContext: {windowsOptions: {gmsaCredentialSpecName: x}}}]}",
        ] {
            assert!(is_windows(pod), "{pod}");
        }
        for terms in [
            "[{matchExpressions: [{key: kubernetes.io/os, operator: In, values: [windows]}]}]",
            "[{matchExpressions: [{key: beta.kubernetes.io/os, operator: In, values: [windows]}]}]",
            "[{matchExpressions: [{key: kubernetes.io/os, operator: NotIn, values: [linux]}]}]",
            "[{matchExpressions: [{key: zone, operator: Exists}, {key: kubernetes.io/os, operator: In, values: [windows]}]}]",
            "[{matchExpressions: [{key: node.kubernetes.io/windows-build, operator: Exists}]}]",
            "[null, {}, {matchExpressions: [{key: node.kubernetes.io/windows-build, operator: In, values: [a, b]}]}]",
        ] {
            assert!(is_windows(&affine(terms)), "{terms}");
        }
    }

    /// case B16
    #[test]
    fn linux_stays_linux() {
        for pod in [
            "{}",
            "{os: {name: linux}, nodeSelector: {kubernetes.io/os: windows}}",
            "{nodeSelector: {kubernetes.io/os: linux}, securityContext: {windowsOptions: {runAsUserName: x}}}",
            "{securityContext: {windowsOptions: {}}}",
            "{securityContext: {windowsOptions: null}}",
            "{containers: [{name: a, securityContext: {windowsOptions: {hostProcess: false, runAsUserName: ''}}}]}",
            "{affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, preference: \
             {matchExpressions: [{key: kubernetes.io/os, operator: In, values: [windows]}]}}]}}}",
            "{affinity: null}",
        ] {
            assert!(!is_windows(pod), "{pod}");
        }
        for terms in [
            "null",
            "[]",
            "[{matchExpressions: [{key: kubernetes.io/os, operator: NotIn, values: [windows]}]}]",
            "[{matchExpressions: [{key: kubernetes.io/os, operator: In, values: [linux, windows]}]}]",
            "[{matchExpressions: [{key: kubernetes.io/os, operator: In, values: [windows]}]}, \
             {matchExpressions: [{key: zone, operator: Exists}]}]",
            "[{matchExpressions: [{key: node.kubernetes.io/windows-build, operator: DoesNotExist}]}]",
            "[{matchExpressions: [{key: zone, operator: In, values: [windows]}]}]",
            "[{matchExpressions: null, matchFields: [{key: metadata.name, operator: In, values: [node-1]}]}]",
        ] {
            assert!(!is_windows(&affine(terms)), "{terms}");
        }
    }
}
