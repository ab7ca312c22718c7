//! An AgentTracing as selection and wiring need it: parsed once, from spec and status.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::{
    AgentTracing, AuthMethod, CaBundleMode, CaBundleScope, CaBundleStrategy, ConfigMapKey, ContainerNames, EnvVar,
    Experiment, LabelSelector, LabelSelectorRequirement, MlflowMode, Rollout, RolloutPolicy, Sdk, SelectorOperator,
};
use crate::core::inject::view::Workload;
use crate::core::selection::kind::Kind;
use crate::names;

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
    /// The address as far as the spec alone says it, for workloads that cannot wait until MLflow has answered.
    pub address: Option<String>,
    /// Workloads of which kinds.
    pub kinds: Vec<Kind>,
    /// Which of them.
    pub selector: LabelSelector,
    /// Which containers.
    pub containers: ContainerNames,
    /// More variables.
    pub env: Vec<EnvVar>,
    /// How fast running workloads may be changed.
    pub rollout_strategy: RolloutStrategy,
    /// SDK settings.
    pub sdk: Sdk,
    /// The workspace that traces go to.
    pub workspace: Option<String>,
    /// How agents authenticate.
    pub auth: AuthMethod,
    /// The certificate authorities that agents get.
    pub ca: Option<CaChoice>,
    /// From where the init container `merge-ca` is that the cluster does not admit in this namespace.
    pub refused_merge_ca: Option<String>,
    /// In mode CR the service accounts that may write to MLflow; elsewhere nobody needs to.
    pub bound: Option<BTreeSet<String>>,
}

/// Which certificate authorities agents get, and who merges them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaChoice {
    /// Who merges.
    pub strategy: CaBundleStrategy,
    /// Which of the agent's calls trust them.
    pub scope: CaBundleScope,
    /// More sources.
    pub config_maps: Vec<ConfigMapKey>,
}

impl Policy {
    /// Parses an AgentTracing. Its API server has validated it; what may be absent has a default here.
    pub fn of(tracing: &AgentTracing) -> Self {
        let spec = &tracing.spec;
        let status = tracing.status.as_ref();
        let injection = spec.injection.clone().unwrap_or_default();
        let mode = spec.mlflow.mode;
        let mlflow = status.and_then(|s| s.mlflow.as_ref());
        let namespace = tracing.metadata.namespace.clone().unwrap_or_default();
        let workspace = match mode {
            MlflowMode::Standalone => None,
            MlflowMode::Cr => Some(namespace.clone()),
            MlflowMode::External => spec.mlflow.external.as_ref().and_then(|e| e.workspace.clone()),
        };
        let accounts = || status.iter().flat_map(|s| s.service_accounts.iter().cloned()).collect();
        Self {
            name: tracing.metadata.name.clone().unwrap_or_default(),
            namespace,
            created: tracing.metadata.creation_timestamp.as_ref().map_or(0, |t| t.0.as_second()),
            suspend: spec.suspend,
            tracking_uri: mlflow.map(|m| m.url.clone()),
            experiment: spec.experiment.clone(),
            experiment_ids: status
                .map(|s| s.experiments.iter().map(|e| (e.name.clone(), e.id.clone())).collect())
                .unwrap_or_default(),
            address: address(tracing),
            kinds: injection.kinds.map_or(DEFAULT_KINDS.to_vec(), |kinds| kinds.into_iter().map(Kind::from).collect()),
            selector: injection.selector.unwrap_or_default(),
            containers: injection.containers.unwrap_or_default(),
            env: injection.env,
            rollout_strategy: rollout_strategy(injection.rollout),
            sdk: spec.sdk.clone().unwrap_or_default(),
            // Against a server without workspaces the variable turns every answer into an error 500.
            workspace: workspace.filter(|_| mlflow.is_none_or(|m| m.workspaces)),
            auth: spec.auth.as_ref().and_then(|a| a.method).unwrap_or(match mode {
                MlflowMode::Cr => AuthMethod::TokenFile,
                MlflowMode::Standalone | MlflowMode::External => AuthMethod::None,
            }),
            ca: ca_choice(tracing),
            refused_merge_ca: status.and_then(|s| s.merge_ca.as_ref()).map(|refused| refused.refused_source.clone()),
            bound: (mode == MlflowMode::Cr).then(accounts),
        }
    }

    /// Whether a workload is wired that neither opts in nor out.
    pub fn selects(&self, workload: &Workload<'_>) -> bool {
        self.kinds.contains(&workload.kind) && self.selector.matches(|key| workload.template_label(key))
    }

    /// Whether a pod without a service account token could not log to MLflow.
    pub fn needs_token(&self) -> bool {
        self.auth != AuthMethod::None
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

/// How fast workloads may be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RolloutStrategy {
    /// Who changes them.
    pub policy: RolloutPolicy,
    /// How many of one AgentTracing may be unavailable at a time because of us.
    pub max_concurrent: usize,
}

impl Default for RolloutStrategy {
    fn default() -> Self {
        Self { policy: RolloutPolicy::Automatic, max_concurrent: 5 }
    }
}

/// Port of a standalone server.
pub const DEFAULT_PORT: u16 = 5500;

fn rollout_strategy(rollout: Option<Rollout>) -> RolloutStrategy {
    let Rollout { policy, max_concurrent } = rollout.unwrap_or_default();
    let default = RolloutStrategy::default();
    RolloutStrategy {
        policy: policy.unwrap_or(default.policy),
        max_concurrent: max_concurrent.map_or(default.max_concurrent, usize::from),
    }
}

/// The address that agents get where no server has to be asked for it.
fn address(tracing: &AgentTracing) -> Option<String> {
    let mlflow = &tracing.spec.mlflow;
    match mlflow.mode {
        MlflowMode::Standalone => {
            let port = mlflow.standalone.as_ref().and_then(|s| s.port).unwrap_or(DEFAULT_PORT);
            let metadata = &tracing.metadata;
            Some(names::mlflow_uri(metadata.name.as_deref()?, metadata.namespace.as_deref().unwrap_or_default(), port))
        }
        // The version that the server runs decides about its path, and whether it has workspaces.
        MlflowMode::Cr => None,
        MlflowMode::External => {
            let uri = mlflow.external.as_ref()?.tracking_uri.trim_end_matches('/');
            // One with a password is refused.
            (!uri.contains('@')).then(|| uri.to_owned())
        }
    }
}

fn ca_choice(tracing: &AgentTracing) -> Option<CaChoice> {
    let bundle = tracing.spec.ca_bundle.clone().unwrap_or_default();
    let mlflow = &tracing.spec.mlflow;
    let wanted = match (bundle.mode.unwrap_or_default(), mlflow.mode) {
        (CaBundleMode::Never, _) | (CaBundleMode::Auto, MlflowMode::Standalone) => false,
        (CaBundleMode::Always, _) | (CaBundleMode::Auto, MlflowMode::Cr) => true,
        (CaBundleMode::Auto, MlflowMode::External) => {
            let https = mlflow.external.as_ref().is_some_and(|e| e.tracking_uri.starts_with("https://"));
            https && !bundle.config_maps.is_empty()
        }
    };
    wanted.then(|| CaChoice {
        strategy: bundle.strategy.unwrap_or_default(),
        scope: bundle.scope.unwrap_or_default(),
        config_maps: bundle.config_maps,
    })
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

const DEFAULT_KINDS: [Kind; 3] = [Kind::Deployment, Kind::Job, Kind::CronJob];
