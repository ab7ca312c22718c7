//! The public contract: the `AgentTracing` resource, what a user writes ([`AgentTracingSpec`]) and what the operator
//! answers ([`AgentTracingStatus`]).
//!
//! The doc comments of the fields *are* `kubectl explain agenttracing.spec`: they are written for users.

mod auth;
mod ca_bundle;
mod cr;
mod experiment;
mod external;
mod injection;
mod otlp;
mod reasons;
mod relay;
mod sdk;
mod spec;
mod standalone;
mod status;

pub use auth::{Auth, AuthMethod};
pub use ca_bundle::{CaBundle, CaBundleMode, CaBundleScope, CaBundleStrategy, ConfigMapKey};
pub use cr::{Cr, CrStorage, CrStorageResources, CrTemplate};
pub use experiment::Experiment;
pub use external::External;
pub use injection::{
    ContainerNames, EnvVar, Injection, LabelSelector, LabelSelectorRequirement, Rollout, RolloutPolicy,
    SelectorOperator, WorkloadKind,
};
pub use otlp::{Otlp, OtlpMode};
pub use reasons::Reason;
pub use relay::{Relay, RelayStorage};
pub use sdk::Sdk;
pub use spec::{AgentTracing, AgentTracingSpec, Mlflow, MlflowMode};
pub use standalone::{
    Artifacts, DeletionPolicy, EnvFromSecret, ImagePullPolicy, ImagePullSecret, NetworkPolicy, Resources, SecretKey,
    Standalone, Storage,
};
pub use status::{
    AgentTracingStatus, ConditionType, EnsuredExperiment, MAX_WORKLOADS, MlflowStatus, RefusedMergeCa, RelayStatus,
    StateCount, WorkloadState, WorkloadStatus,
};
