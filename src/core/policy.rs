//! An AgentTracing as selection and wiring need it: parsed once, from spec and status.

use std::collections::BTreeMap;

use crate::api::{
    AgentTracing, ContainerNames, EnvVar, Experiment, LabelSelector, LabelSelectorRequirement, Sdk, SelectorOperator,
};

/// What one AgentTracing wants of workloads, and the facts that its status keeps.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Name of the AgentTracing.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Creation time in seconds; the oldest of several wins.
    pub created: i64,
    /// `spec.suspend`.
    pub suspend: bool,
    /// The tracking URI, once MLflow has answered there.
    pub tracking_uri: Option<String>,
    /// Experiment settings.
    pub experiment: Experiment,
    /// Ensured experiments: name to numeric id.
    pub experiment_ids: BTreeMap<String, String>,
    /// Which workloads.
    pub selector: LabelSelector,
    /// Which containers.
    pub containers: ContainerNames,
    /// More variables.
    pub env: Vec<EnvVar>,
    /// SDK settings.
    pub sdk: Sdk,
}

impl Policy {
    /// Parses an AgentTracing. Its API server has validated it; what may be absent has a default here.
    pub fn of(tracing: &AgentTracing) -> Self {
        let spec = &tracing.spec;
        let status = tracing.status.as_ref();
        let injection = spec.injection.clone().unwrap_or_default();
        Self {
            name: tracing.metadata.name.clone().unwrap_or_default(),
            namespace: tracing.metadata.namespace.clone().unwrap_or_default(),
            created: tracing.metadata.creation_timestamp.as_ref().map_or(0, |t| t.0.as_second()),
            suspend: spec.suspend,
            tracking_uri: status.and_then(|s| s.mlflow.as_ref()).map(|m| m.url.clone()),
            experiment: spec.experiment.clone(),
            experiment_ids: status
                .map(|s| s.experiments.iter().map(|e| (e.name.clone(), e.id.clone())).collect())
                .unwrap_or_default(),
            selector: injection.selector.unwrap_or_default(),
            containers: injection.containers.unwrap_or_default(),
            env: injection.env,
            sdk: spec.sdk.clone().unwrap_or_default(),
        }
    }

    /// The experiment of a workload: its annotation, else the template filled in.
    pub fn experiment_of(&self, workload: &str, annotation: Option<&str>) -> String {
        match annotation {
            Some(name) if !name.is_empty() => name.to_owned(),
            _ => self
                .experiment
                .name
                .replace("{workload}", workload)
                .replace("{namespace}", &self.namespace)
                .replace("{tracing}", &self.name),
        }
    }
}

impl LabelSelector {
    /// Whether labels match; an empty selector matches everything.
    pub fn matches<'l>(&self, label: impl Fn(&str) -> Option<&'l str>) -> bool {
        let labels_match = self.match_labels.iter().all(|(key, value)| label(key) == Some(value.as_str()));
        labels_match && self.match_expressions.iter().all(|e| e.matches(label(&e.key)))
    }
}

impl LabelSelectorRequirement {
    fn matches(&self, value: Option<&str>) -> bool {
        let listed = value.is_some_and(|v| self.values.iter().any(|candidate| candidate == v));
        match self.operator {
            SelectorOperator::In => listed,
            SelectorOperator::NotIn => !listed,
            SelectorOperator::Exists => value.is_some(),
            SelectorOperator::DoesNotExist => value.is_none(),
        }
    }
}
