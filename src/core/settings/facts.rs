//! What the status of an AgentTracing knows.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::{AgentTracing, AuthMethod, MlflowMode};

/// What was found out and is kept in status, so that the webhook knows it without asking anybody.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// The tracking URI, once MLflow has answered there.
    pub tracking_uri: Option<String>,
    /// Whether that MLflow has workspaces.
    pub workspaces: Option<bool>,
    /// Ensured experiments: name to numeric id.
    pub experiment_ids: BTreeMap<String, String>,
    /// In mode CR the service accounts that may write to MLflow; elsewhere, and where the relay writes for all, nobody needs to.
    pub bound: Option<BTreeSet<String>>,
    /// From where the init container `merge-ca` is that the cluster does not admit in this namespace.
    pub refused_merge_ca: Option<String>,
    /// Whether the relay was ready once.
    pub relay: bool,
}

impl Facts {
    /// Those of an AgentTracing; without a status none is known.
    pub fn of(tracing: &AgentTracing) -> Self {
        let relays_all = tracing.spec.auth.as_ref().and_then(|auth| auth.method) == Some(AuthMethod::Relay);
        let is_shared = tracing.spec.mlflow.mode == MlflowMode::Cr && !relays_all;
        let Some(status) = &tracing.status else {
            return Self { bound: is_shared.then(BTreeSet::new), ..Self::default() };
        };
        let mlflow = status.mlflow.as_ref();
        Self {
            tracking_uri: mlflow.map(|mlflow| mlflow.url.clone()),
            // Of a server that nobody may ask, whose version is not known, what the spec says counts.
            workspaces: mlflow.filter(|mlflow| !mlflow.version.is_empty()).map(|mlflow| mlflow.workspaces),
            experiment_ids: status.experiments.iter().map(|e| (e.name.clone(), e.id.clone())).collect(),
            bound: is_shared.then(|| status.service_accounts.iter().cloned().collect()),
            relay: status.relay.is_some(),
            refused_merge_ca: status.merge_ca.as_ref().map(|refused| refused.refused_source.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::core::settings::policy::Policy;

    #[test]
    fn a_server_without_workspaces_gets_none_whatever_the_spec_says() {
        for (known, expected) in [
            ("{}", Some("bank")),
            ("{mlflow: {url: u, version: '3', source: s, workspaces: true}}", Some("bank")),
            ("{mlflow: {url: u, version: '3', source: s, workspaces: false}}", None),
            // A workspace that was written into the spec later never reached the agents of an unlisted server.
            ("{mlflow: {url: u, version: '', source: Unobserved, workspaces: false}}", Some("bank")),
        ] {
            let yaml = format!(
                "{{apiVersion: agenttracing.dev/v1alpha1, kind: AgentTracing, metadata: {{name: t, namespace: bank}}, \
                 spec: {{mlflow: {{mode: CR}}}}, status: {known}}}"
            );
            assert_eq!(Policy::of(&serde_yaml::from_str(&yaml).unwrap()).workspace(), expected, "{known}");
        }
    }
}
