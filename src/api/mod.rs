//! The public contract: the `AgentTracing` resource, what a user writes ([`AgentTracingSpec`]) and what the operator
//! answers ([`AgentTracingStatus`]).
//!
//! The doc comments of the fields *are* `kubectl explain agenttracing.spec`: they are written for users.

mod reasons;
mod shared;
mod spec;
mod status;

pub use reasons::Reason;
pub use shared::{
    Auth, AuthMethod, CaBundle, CaBundleMode, CaBundleScope, CaBundleStrategy, ConfigMapKey, Cr, CrStorage,
    CrStorageResources, CrTemplate, External,
};
pub use spec::{
    AgentTracing, AgentTracingSpec, Artifacts, ContainerNames, DeletionPolicy, EnvFromSecret, EnvVar, Experiment,
    ImagePullPolicy, ImagePullSecret, Injection, LabelSelector, LabelSelectorRequirement, Mlflow, MlflowMode,
    NetworkPolicy, Resources, Rollout, RolloutPolicy, Sdk, SecretKey, SelectorOperator, Standalone, Storage,
    WorkloadKind,
};
pub use status::{
    AgentTracingStatus, ConditionType, EnsuredExperiment, MlflowStatus, RefusedMergeCa, StateCount, WorkloadState,
    WorkloadStatus,
};
