//! The operating system that pods are made for.
//!
//! Kubernetes has no one field that all Windows pods set: `os` is young, and most manifests choose nodes in one of the older
//! ways. What a RuntimeClass chooses cannot be seen from a template.

use serde::Deserialize;

use super::node::{NodeRequirement, NodeTerm, NodeTerms, WindowsOptions};
use super::pod::PodSpec;

/// Labels of a node that say its operating system; the second is the older spelling.
const OS_LABELS: [&str; 2] = ["kubernetes.io/os", "beta.kubernetes.io/os"];
/// A label that only Windows nodes have.
const WINDOWS_BUILD: &str = "node.kubernetes.io/windows-build";
const WINDOWS: &str = "windows";

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
